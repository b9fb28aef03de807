"""Packs: from directories to files, and from files to rules. The only file of rules/ that reads a pack's disk.

A pack is data: read_files() gives bytes by relative path, and load_pack() needs nothing else, so that a shard on another
machine builds the very same rules. Every problem of every file is reported at once.
"""

from __future__ import annotations

import ast
import hashlib
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rules.errors import InvalidPack, Problem, SourceLocation
from rules.globals import restorer_for
from rules.panther import reaches_state, rule_builtins
from rules.rule import AUXILIARIES, PACK_PREFIX, SEVERITIES, Rule, RuleSpec
from rules.yaml12 import BadYaml, load

_SUFFIXES = (".py", ".yml", ".yaml")
_RULE_ID = re.compile(r"[^<>&\"%]+")

NOT_YET = {
    "scheduled_rule": "scheduled rules",
    "policy": "policies",
    "datamodel": "data models",
    "global": "global helpers",
    "lookup_table": "lookup tables",
    "correlation_rule": "correlation rules",
    "scheduled_query": "scheduled queries",
    "saved_query": "saved queries",
    "pack": "pack manifests",
}
"""AnalysisTypes that are known and that this version does not run."""


class MissingPack(FileNotFoundError):
    """A directory of rules is not there or holds none."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Pack:
    """Rules that belong together."""

    rules: tuple[Rule, ...]
    """The enabled ones, by RuleID: the order in which they are evaluated."""
    all_rules: tuple[Rule, ...]
    files: dict[str, bytes]
    digest: str
    """SHA-256 over the files: names the pack in manifests."""
    notices: tuple[str, ...]
    """Items that this version does not run, a line each."""
    log_type_files: dict[str, bytes]
    """Definitions of log types found in the pack."""


# --- from disk ---------------------------------------------------------------------------------------------------


def read_files(directories: Sequence[Path]) -> dict[str, bytes]:
    """The rule files below some directories, by relative path; hidden files and folders are skipped.

    With several directories each path starts with its directory's name. Raises MissingPack.
    """
    files: dict[str, bytes] = {}
    for number, directory in enumerate(directories):
        if not directory.is_dir():
            raise MissingPack(f"{directory}: no such directory of rules: check --rules")
        prefix = "" if len(directories) == 1 else f"{number}-{directory.resolve().name}/"
        found = {prefix + name: data for name, data in _read_below(directory)}
        if not found:
            raise MissingPack(f"{directory}: the directory holds no rules (.py with .yml): check --rules")
        files.update(found)
    return files


def _read_below(directory: Path) -> Iterable[tuple[str, bytes]]:
    for parent, folders, names in os.walk(directory, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__pycache__")))
        for name in sorted(names):
            if name.endswith(_SUFFIXES) and not name.startswith("."):
                path = Path(parent, name)
                try:
                    yield path.relative_to(directory).as_posix(), path.read_bytes()
                except OSError as error:
                    raise MissingPack(f"{path}: {error.strerror}: check its permissions") from None


# --- from bytes --------------------------------------------------------------------------------------------------


def load_pack(files: Mapping[str, bytes], *, quiet: bool = False) -> Pack:
    """Rules from a pack's files. `quiet` discards what rules print. Raises InvalidPack with all problems."""
    problems: list[Problem] = []
    notices: list[str] = []
    log_type_files: dict[str, bytes] = {}
    specs: list[RuleSpec] = []
    for path, data in sorted(files.items()):
        if not path.endswith((".yml", ".yaml")):
            continue
        try:
            document, lines = load(data)
        except BadYaml as error:
            problems.append(Problem(SourceLocation(path, error.line), str(error), "mend the YAML"))
            continue
        if not isinstance(document, dict):
            problems.append(
                Problem(SourceLocation(path, 1), "the file holds no mapping", "start it with AnalysisType: rule")
            )
            continue
        kind = document.get("AnalysisType")
        if kind is None:
            if "LogType" in document:
                log_type_files[path] = data
        elif kind == "rule":
            spec = _Checker(path, document, lines, problems, files).spec()
            if spec is not None:
                specs.append(spec)
        elif kind in NOT_YET:
            notices.append(f"{path}: {NOT_YET[kind]} are not run by this version: the file is left out")
        else:
            line = lines.get("AnalysisType")
            problems.append(
                Problem(SourceLocation(path, line), f"AnalysisType is {kind!r}", "use one of the format's types")
            )
    _check_unique(specs, problems)
    rules = [rule for spec in specs if (rule := _load_rule(spec, files[spec.path], quiet, problems)) is not None]
    if problems:
        raise InvalidPack(problems)
    rules.sort(key=lambda rule: rule.id)
    enabled = tuple(rule for rule in rules if rule.spec.enabled)
    return Pack(enabled, tuple(rules), dict(files), _digest(files), tuple(notices), log_type_files)


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for path, data in sorted(files.items()):
        for part in (path.encode(), data):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _check_unique(specs: list[RuleSpec], problems: list[Problem]) -> None:
    first: dict[str, RuleSpec] = {}
    for spec in specs:
        known = first.setdefault(spec.id, spec)
        if known is not spec:
            message = f"RuleID {spec.id} is also in {known.yaml_path}"
            problems.append(Problem(SourceLocation(spec.yaml_path), message, "give each rule an id of its own"))


def _load_rule(spec: RuleSpec, source: bytes, quiet: bool, problems: list[Problem]) -> Rule | None:
    """Execute the module under the name of its rule, in a namespace of its own."""

    def refuse(line: int | None, message: str, remedy: str) -> None:
        problems.append(Problem(SourceLocation(spec.path, line), message, remedy))

    try:
        tree = ast.parse(source, filename=PACK_PREFIX + spec.path)
    except (SyntaxError, ValueError) as error:
        refuse(getattr(error, "lineno", None), f"no Python: {getattr(error, 'msg', error)}", "mend the syntax")
        return None
    namespace: dict[str, Any] = {"__name__": spec.id, "__file__": spec.path, "__builtins__": rule_builtins(quiet=quiet)}
    try:
        exec(compile(tree, PACK_PREFIX + spec.path, "exec"), namespace)
    except ModuleNotFoundError as error:
        refuse(_line_in_pack(error), str(error), "install it, or put the helper into the rule: globals are not run yet")
        return None
    except BaseException as error:
        refuse(_line_in_pack(error), f"the module raises {type(error).__name__}: {error}", "mend the module")
        return None
    functions: dict[str, Callable[..., Any]] = {
        name: namespace[name] for name in ("rule", *AUXILIARIES) if name in namespace
    }
    if "rule" not in functions:
        refuse(None, "detection needs to have a method named 'rule'", "define rule(event)")
        return None
    for name, function in functions.items():
        if not callable(function):
            refuse(None, f"{name} is {type(function).__name__}, not a function", f"define {name}(event)")
            return None
    return Rule(
        spec,
        functions,
        namespace=namespace,
        reaches_state=reaches_state(tree),
        restorer=restorer_for(tree, namespace),
    )


def _line_in_pack(error: BaseException) -> int | None:
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith(PACK_PREFIX):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


# --- the YAML of a rule ------------------------------------------------------------------------------------------

_TEXT, _BOOL, _INT, _TEXTS, _MAPPING, _LIST = (
    "text",
    "true or false",
    "a whole number",
    "a list of texts",
    "a mapping",
    "a list",
)

_KEYS = {
    "AnalysisType": _TEXT, "RuleID": _TEXT, "Enabled": _BOOL, "Filename": _TEXT, "LogTypes": _TEXTS, "Severity": _TEXT,
    "Description": _TEXT, "DisplayName": _TEXT, "DedupPeriodMinutes": _INT, "Threshold": _INT, "Tags": _TEXTS,
    "Reports": _MAPPING, "Reference": _TEXT, "Runbook": _TEXT, "OutputIds": _TEXTS, "SummaryAttributes": _TEXTS,
    "Tests": _LIST, "CreateAlert": _BOOL, "Status": _TEXT, "CreatedBy": _TEXT, "BaseVersion": _INT,
    "OnlyUseBaseRiskScore": _BOOL,
}  # fmt: skip
"""The keys of a rule that this version carries out (PANTHER_FORMAT 1.3), with what they hold."""

_KEYS_NOT_YET = ("Detection", "ScheduledQueries", "InlineFilters", "DynamicSeverities", "AlertTitle", "AlertContext",
                 "GroupBy", "BaseDetection")  # fmt: skip

_REQUIRED = ("RuleID", "Enabled", "Filename", "LogTypes", "Severity")

_HOLDS: dict[str, Callable[[Any], bool]] = {
    _TEXT: lambda value: isinstance(value, str),
    _BOOL: lambda value: isinstance(value, bool),
    _INT: lambda value: isinstance(value, int) and not isinstance(value, bool),
    _TEXTS: lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    _MAPPING: lambda value: isinstance(value, dict),
    _LIST: lambda value: isinstance(value, list),
}


class _Checker:
    """Checks one rule's YAML and reports all that is wrong with it."""

    def __init__(
        self,
        path: str,
        document: dict[str, Any],
        lines: dict[str, int],
        problems: list[Problem],
        files: Mapping[str, bytes],
    ) -> None:
        self._path = path
        self._document = document
        self._lines = lines
        self._problems = problems
        self._files = files
        self._before = len(problems)

    def _refuse(self, key: str, message: str, remedy: str) -> None:
        line = self._lines.get(key, 1)
        self._problems.append(Problem(SourceLocation(self._path, line), message, remedy))

    def spec(self) -> RuleSpec | None:
        """The rule's spec; None where something is wrong."""
        self._check_keys()
        module = self._module()
        self._check_values()
        if len(self._problems) > self._before:
            return None
        get: Callable[..., Any] = self._document.get
        return RuleSpec(
            id=get("RuleID"),
            path=module,
            yaml_path=self._path,
            log_types=frozenset(get("LogTypes")),
            severity=get("Severity").upper(),
            display_name=get("DisplayName", ""),
            enabled=get("Enabled"),
            dedup_period_s=get("DedupPeriodMinutes", 60) * 60,
            threshold=get("Threshold", 1),
            create_alert=get("CreateAlert", True),
            description=get("Description", ""),
            reference=get("Reference", ""),
            runbook=get("Runbook", ""),
            output_ids=tuple(get("OutputIds", ())),
            tags=tuple(get("Tags", ())),
            reports=get("Reports", {}),
            status=get("Status", ""),
            tests=tuple(get("Tests", ())),
            raw=self._document,
        )

    def _check_keys(self) -> None:
        for key in _REQUIRED:
            if key not in self._document and not (key == "Filename" and "Detection" in self._document):
                self._refuse(key, f"{key} is missing", f"add {key}: {_KEYS[key]}")
        for key, value in self._document.items():
            if key in _KEYS_NOT_YET:
                self._refuse(key, f"{key} is not carried out by this version", "write it in the Python module")
            elif key not in _KEYS:
                self._refuse(str(key), f"{key!r} is no key of a rule", "check its spelling, or remove it")
            elif not _HOLDS[_KEYS[key]](value):
                self._refuse(key, f"{key} holds {value!r}", f"give {_KEYS[key]}")

    def _module(self) -> str:
        name = self._document.get("Filename")
        if not isinstance(name, str):
            return ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(self._path), name))
        if path not in self._files:
            self._refuse("Filename", f"{name} is not there", "put the module beside its YAML")
        return path

    def _check_values(self) -> None:
        get: Callable[..., Any] = self._document.get
        rule_id, severity = get("RuleID"), get("Severity")
        if isinstance(rule_id, str) and not _RULE_ID.fullmatch(rule_id):
            self._refuse("RuleID", f"RuleID is {rule_id!r}", 'use no <, >, &, %, or "')
        if isinstance(severity, str) and severity.upper() not in SEVERITIES:
            self._refuse("Severity", f"Severity is {severity!r}", "use Info, Low, Medium, High or Critical")
        for key, lowest in (("Threshold", 1), ("DedupPeriodMinutes", 0)):
            if _HOLDS[_INT](get(key)) and get(key) < lowest:
                self._refuse(key, f"{key} is {get(key)}", f"give {lowest} or more")
        for key in ("LogTypes", "OutputIds", "SummaryAttributes", "Tags"):
            values = get(key)
            if _HOLDS[_TEXTS](values) and len({value.lower() for value in values}) < len(values):
                self._refuse(key, f"{key} names something twice", "remove the repetition")
        if get("LogTypes") == []:
            self._refuse("LogTypes", "LogTypes is empty", "name at least one log type")
        for test in get("Tests") if isinstance(get("Tests"), list) else ():
            self._check_test(test)

    def _check_test(self, test: Any) -> None:
        name = test.get("Name") if isinstance(test, dict) else None
        if not isinstance(name, str):
            self._refuse("Tests", f"a test has no Name: {str(test)[:60]!r}", "give each test a Name")
            return
        if not isinstance(test.get("ExpectedResult"), bool):
            self._refuse("Tests", f"test {name!r} has no ExpectedResult", "add true or false")
        if isinstance(test.get("Log"), dict) == isinstance(test.get("Logs"), list):
            self._refuse("Tests", f"test {name!r} needs an event", "add Log: with an event, or Logs: with a list")
