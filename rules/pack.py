"""Packs: from directories to files, and from files to rules. The only file of rules/ that reads a pack's disk.

A pack is data: read_files() gives bytes by relative path, and load_pack() needs nothing else, so that a shard on another
machine builds the very same rules. Every problem of every file is reported at once.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rules.datamodels import DataModel
from rules.errors import InvalidPack, Problem
from rules.event import EventContext
from rules.items import Reader, check_ids, check_models
from rules.loading import Loader
from rules.logtypes import LogType, load_definitions, shipped_definitions
from rules.lookups import LookupTable, PackContext
from rules.rule import Rule
from rules.schema import module_of
from rules.source import tells_apart
from rules.yaml12 import BadYaml, load

_YAML = (".yml", ".yaml")


class MissingPack(FileNotFoundError):
    """A directory of rules is not there or holds none."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Pack:
    """Rules that belong together, and what they use."""

    rules: tuple[Rule, ...]
    """The enabled ones for log events, by RuleID: the order in which they are evaluated."""
    all_rules: tuple[Rule, ...]
    """Those for log events, enabled or not."""
    scheduled_rules: tuple[Rule, ...]
    """For the rows of scheduled queries, enabled or not."""
    policies: tuple[Rule, ...]
    """For cloud resources, enabled or not; their rule() is policy(resource)."""
    packs: Mapping[str, frozenset[str]]
    """PackID -> the ids it holds."""
    globals: Mapping[str, str]
    """GlobalID -> the path of its Python file."""
    models: Mapping[str, DataModel]
    """Log type -> its enabled data model."""
    tables: tuple[LookupTable, ...]
    """The enabled lookup tables that have rows."""
    files: dict[str, bytes]
    digest: str
    """SHA-256 over the files: names the pack in manifests."""
    notices: tuple[str, ...]
    """What a reader might not expect, a line each."""
    log_type_files: dict[str, bytes]
    """Definitions of log types found in the pack."""
    companions: tuple[Rule, ...] = ()
    """Rules that the filter leaves out and that tests of others name (AlsoRun)."""
    problems: tuple[Problem, ...] = ()
    """What is wrong with the rest of the pack, where it was loaded tolerantly."""
    _contexts: dict[str, EventContext | None] = field(default_factory=dict)
    _names_event_class: list[bool] = field(default_factory=list)
    """Empty until somebody asks: the files that name it have to be parsed."""

    @property
    def everything(self) -> tuple[Rule, ...]:
        """Rules, scheduled rules and policies, by id."""
        return tuple(sorted((*self.all_rules, *self.scheduled_rules, *self.policies), key=lambda rule: rule.id))

    @property
    def names_event_class(self) -> bool:
        """Its code may ask whether an event is a PantherEvent and nothing else: then heirs of it (recall.py) will not do."""
        if not self._names_event_class:
            python = (data for path, data in self.files.items() if path.endswith(".py"))
            self._names_event_class.append(any(tells_apart(data, "PantherEvent") for data in python))
        return self._names_event_class[0]

    def context_of(self, log_type: str) -> EventContext | None:
        """What the pack adds to the events of a log type: a data model, lookup tables. None where it has neither."""
        if log_type not in self._contexts:
            self._contexts[log_type] = self._context(log_type)
        return self._contexts[log_type]

    def _context(self, log_type: str) -> EventContext | None:
        model = self.models.get(log_type)
        if model is None and not self.tables:
            return None
        return PackContext(model, self.tables, log_type)


def log_types_of(pack: Pack) -> dict[str, LogType]:
    """The shipped log types, and the pack's own, which win. Raises InvalidPack."""
    return load_definitions(shipped_definitions()) | load_definitions(pack.log_type_files)


# --- from disk ---------------------------------------------------------------------------------------------------


def read_files(directories: Sequence[Path]) -> dict[str, bytes]:
    """The YAML files below some directories and the files that they name, by relative path; what is hidden is skipped.

    With several directories each path starts with its directory's name (and number, where two have the same). Raises
    MissingPack.
    """
    files: dict[str, bytes] = {}
    for directory, prefix in zip(directories, _prefixes(directories), strict=True):
        if not directory.is_dir():
            raise MissingPack(f"{directory}: no such directory of rules: check its name")
        found = {prefix + name: data for name, data in _read_below(directory)}
        if not found:
            raise MissingPack(f"{directory}: the directory holds no rules (.py with .yml): check its name")
        files.update(found)
    return files


def _prefixes(directories: Sequence[Path]) -> list[str]:
    if len(directories) == 1:
        return [""]
    names = [directory.resolve().name for directory in directories]
    return [f"{name}/" if Counter(names)[name] == 1 else f"{n}-{name}/" for n, name in enumerate(names)]


def path_on_disk(directories: Sequence[Path], path: str) -> str:
    """Where a file of read_files() stands, as a person would type it."""
    for directory, prefix in zip(directories, _prefixes(directories), strict=True):
        if path.startswith(prefix):
            return str(directory / path[len(prefix) :])
    return path


def _read_below(directory: Path) -> Iterator[tuple[str, bytes]]:
    present: set[str] = set()
    yaml: list[str] = []
    for parent, folders, names in os.walk(directory, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__pycache__")))
        below = Path(parent).relative_to(directory)
        for name in sorted(names):
            if not name.startswith("."):
                path = (below / name).as_posix()
                present.add(path)
                if name.endswith(_YAML):
                    yaml.append(path)
    named: set[str] = set()
    for path in yaml:
        data = _read(directory / path)
        named.update(_named_in(path, data, present))
        yield path, data
    for path in sorted(named):
        yield path, _read(directory / path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MissingPack(f"{path}: {error.strerror}: check its permissions") from None


_FILENAME = re.compile(rb"""^Filename:[ \t]*["']?([^"'\s#]+)["']?[ \t]*(?:#.*)?\r?$""", re.MULTILINE)


def _named_in(path: str, data: bytes, present: set[str]) -> Iterator[str]:
    """The file that a YAML file names, if it is there. It is parsed only where a look does not tell."""
    if b"Filename" not in data:
        return
    found = _FILENAME.search(data)
    name = module_of(path, {"Filename": found[1].decode(errors="replace")}) if found is not None else ""
    if name not in present:
        try:
            document, _ = load(data)
        except BadYaml:
            return  # for load_pack() to say
        name = module_of(path, document) if isinstance(document, dict) else ""
    if name in present and not name.endswith(_YAML):
        yield name


# --- from bytes --------------------------------------------------------------------------------------------------


def load_pack(
    files: Mapping[str, bytes], *, quiet: bool = False, ignore_extra_keys: bool = False, tolerant: bool = False
) -> Pack:
    """Rules from a pack's files. Raises InvalidPack with all problems.

    `quiet` discards what rules print; `ignore_extra_keys` lets YAML have keys that the format does not know; `tolerant`
    leaves out what is not valid instead of raising. Where rules.filters.FILE is among the files, only what it wants is loaded.
    """
    problems: list[Problem] = []
    reader = Reader(files, problems, ignore_extra_keys=ignore_extra_keys)
    for path in sorted(files):
        if path.endswith(_YAML):
            reader.read(path)
    check_ids(reader.items)
    check_models(reader.items)
    loader = Loader(files, reader.items, problems, quiet)
    rules = loader.rules()
    tables = loader.tables()
    if problems:
        loader.report_left_out({rule.id for rule in rules})
    # Each once: a global fails for many rules.
    ordered = tuple(sorted(dict.fromkeys(problems), key=lambda it: (it.location.path, it.location.line or 0)))
    if ordered and not tolerant:
        raise InvalidPack(ordered)
    wanted = [rule for rule in rules if loader.wants(rule.spec)]
    streaming = tuple(rule for rule in wanted if rule.kind == "rule")
    return Pack(
        rules=tuple(rule for rule in streaming if rule.spec.enabled),
        all_rules=streaming,
        scheduled_rules=tuple(rule for rule in wanted if rule.kind == "scheduled_rule"),
        policies=tuple(rule for rule in wanted if rule.kind == "policy"),
        packs=loader.packs,
        globals=loader.globals,
        models=loader.models,
        tables=tables,
        files=dict(files),
        digest=_digest(files),
        notices=(*reader.notices(), *loader.notices()),
        log_type_files=reader.log_type_files,
        companions=tuple(rule for rule in rules if not loader.wants(rule.spec)),
        problems=ordered,
    )


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for path, data in sorted(files.items()):
        for part in (path.encode(), data):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
