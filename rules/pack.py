"""Packs: from directories to files, and from files to rules. The only file of rules/ that reads a pack's disk.

A pack is data: read_files() gives bytes by relative path, and load_pack() needs nothing else, so that a shard on another
machine builds the very same rules. Every problem of every file is reported at once.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rules.errors import InvalidPack, Problem, SourceLocation
from rules.globals import CannotRestore, restorer_for
from rules.guards import guard_of
from rules.logtypes import LogType, load_definitions, shipped_definitions
from rules.panther import reaches_state, rule_builtins
from rules.rule import AUXILIARIES, PACK_PREFIX, Function, Rule, RuleSpec, place_of
from rules.schema import module_of, read_spec
from rules.yaml12 import BadYaml, Lines, load

_SUFFIXES = (".py", ".yml", ".yaml")

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


def log_types_of(pack: Pack) -> dict[str, LogType]:
    """The shipped log types, and the pack's own, which win. Raises InvalidPack."""
    return load_definitions(shipped_definitions()) | load_definitions(pack.log_type_files)


# --- from disk ---------------------------------------------------------------------------------------------------


def read_files(directories: Sequence[Path]) -> dict[str, bytes]:
    """The rule files below some directories, by relative path; hidden files and folders are skipped.

    With several directories each path starts with its directory's name (and number, where two have the same). Raises
    MissingPack.
    """
    names = [directory.resolve().name for directory in directories]
    files: dict[str, bytes] = {}
    for number, directory in enumerate(directories):
        if not directory.is_dir():
            raise MissingPack(f"{directory}: no such directory of rules: check --rules")
        prefix = ""
        if len(directories) > 1:
            prefix = f"{names[number]}/" if Counter(names)[names[number]] == 1 else f"{number}-{names[number]}/"
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
    loader = _Loader(files, quiet)
    for path in sorted(files):
        if path.endswith((".yml", ".yaml")):
            loader.read(path)
    rules = loader.rules()
    if loader.problems:
        raise InvalidPack(sorted(loader.problems, key=lambda it: (it.location.path, it.location.line or 0)))
    enabled = tuple(rule for rule in rules if rule.spec.enabled)
    return Pack(enabled, rules, dict(files), _digest(files), tuple(loader.notices), loader.log_type_files)


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for path, data in sorted(files.items()):
        for part in (path.encode(), data):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


class _Loader:
    """Reads a pack's files one by one and collects what they hold and what is wrong with them."""

    def __init__(self, files: Mapping[str, bytes], quiet: bool) -> None:
        self._files = files
        self._quiet = quiet
        self._specs: list[tuple[RuleSpec, Lines]] = []
        self.problems: list[Problem] = []
        self.notices: list[str] = []
        self.log_type_files: dict[str, bytes] = {}

    def _refuse(self, path: str, line: int | None, message: str, remedy: str) -> None:
        self.problems.append(Problem(SourceLocation(path, line), message, remedy))

    def read(self, path: str) -> None:
        """One YAML file."""
        try:
            document, lines = load(self._files[path])
        except BadYaml as error:
            self._refuse(path, error.line, str(error), "mend the YAML")
            return
        if not isinstance(document, dict):
            self._refuse(path, 1, "the file holds no mapping", "start it with AnalysisType: rule")
            return
        kind = document.get("AnalysisType")
        if kind is None:
            if "LogType" in document:
                self.log_type_files[path] = self._files[path]
        elif kind == "rule":
            spec = read_spec(path, document, lines, self._files, self.problems)
            if spec is not None:
                self._specs.append((spec, lines))
            elif module_of(path, document) in self._files:
                self._parse(module_of(path, document))  # what is wrong there is worth knowing too
        elif isinstance(kind, str) and kind in NOT_YET:
            self.notices.append(f"{path}: {NOT_YET[kind]} are not run by this version: the file is left out")
        else:
            self._refuse(path, lines.of("AnalysisType"), f"AnalysisType is {kind!r}", "use one of the format's types")

    def rules(self) -> tuple[Rule, ...]:
        """All rules that can be loaded, by RuleID."""
        self._check_ids()
        rules = [rule for spec, _ in self._specs if (rule := self._load(spec)) is not None]
        return tuple(sorted(rules, key=lambda rule: rule.id))

    def _check_ids(self) -> None:
        first: dict[str, RuleSpec] = {}
        for spec, lines in self._specs:
            known = first.setdefault(spec.id, spec)
            if known is not spec:
                message = f"RuleID {spec.id} is also in {known.yaml_path}"
                self._refuse(spec.yaml_path, lines.of("RuleID"), message, "give each rule an id of its own")
        for spec, lines in self._specs:
            for number, test in enumerate(spec.tests):
                for rule_id in test.get("AlsoRun", ()):
                    if rule_id not in first:
                        line = lines.of("Tests", number, "AlsoRun")
                        self._refuse(
                            spec.yaml_path, line, f"the pack has no rule {rule_id}", "name a rule by its RuleID"
                        )

    def _parse(self, path: str) -> ast.Module | None:
        try:
            return ast.parse(self._files[path], filename=PACK_PREFIX + path)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            self._refuse(path, getattr(error, "lineno", None), f"no Python: {_reason(error)}", "mend the syntax")
            return None

    def _load(self, spec: RuleSpec) -> Rule | None:
        """Execute a rule's module."""
        tree = self._parse(spec.path)
        if tree is None:
            return None
        module = ModuleType(spec.id)
        namespace = vars(module)
        namespace.update(__file__=spec.path, __builtins__=rule_builtins(quiet=self._quiet))
        try:
            with _registered(module):
                exec(compile(tree, PACK_PREFIX + spec.path, "exec"), namespace)
        except BaseException as error:
            place = place_of(error.__traceback__) or SourceLocation(spec.path)
            if isinstance(error, ModuleNotFoundError):
                remedy = "install it, or put the helper into the rule: global helpers are not run by this version"
            else:
                remedy = "mend the module"
            self._refuse(place.path, place.line, f"loading raises {type(error).__name__}: {error}", remedy)
            return None
        functions = self._functions(spec, tree, namespace)
        if functions is None:
            return None
        try:
            restorer = restorer_for(tree, namespace)
        except CannotRestore as error:
            line = next((node.lineno for node in tree.body if error.name in _bound(node)), None)
            self._refuse(spec.path, line, str(error), "make it inside the function that uses it")
            return None
        return Rule(
            spec,
            functions,
            namespace=namespace,
            reaches_state=reaches_state(tree),
            restorer=restorer,
            guard=guard_of(tree, namespace) if restorer is None else None,
        )

    def _functions(self, spec: RuleSpec, tree: ast.Module, namespace: dict[str, Any]) -> dict[str, Function] | None:
        """The contract's functions that the module has, however it came by them."""
        functions = {name: namespace[name] for name in ("rule", *AUXILIARIES) if name in namespace}
        wrong = [name for name, function in functions.items() if not callable(function)]
        for name in wrong:
            line = next((node.lineno for node in tree.body if name in _bound(node)), None)
            self._refuse(spec.path, line, f"{name} is {type(functions[name]).__name__}", f"define {name}(event)")
        if "rule" not in functions:
            self._refuse(spec.path, 1, "detection needs to have a method named 'rule'", "define rule(event)")
        return None if wrong or "rule" not in functions else functions


def _reason(error: BaseException) -> str:
    return str(getattr(error, "msg", None) or error or type(error).__name__)


def _bound(node: ast.stmt) -> set[str]:
    """The names that a statement assigns."""
    return {target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)}


@contextmanager
def _registered(module: ModuleType) -> Iterator[None]:
    """While a module is executed: in sys.modules, where dataclasses look for the module of their annotations."""
    if module.__name__ in sys.modules:  # RuleID `json`, say: ours must not be imported in its place
        yield
        return
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        sys.modules.pop(module.__name__, None)
