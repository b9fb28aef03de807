"""Packs: from directories to files, and from files to rules. The only file of rules/ that reads a pack's disk.

A pack is data: read_files() gives bytes by relative path, and load_pack() needs nothing else, so that a shard on another
machine builds the very same rules. Every problem of every file is reported at once.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rules.errors import InvalidPack, Problem, SourceLocation
from rules.filters import FILE, Filter, parse_filters
from rules.globals import Restorer
from rules.guards import Guard, guard_of
from rules.items import DERIVABLE, Item, Reader, check_ids, check_models, with_base
from rules.logtypes import LogType, load_definitions, shipped_definitions
from rules.modules import Module, Modules
from rules.rule import AUXILIARIES, Function, Rule, RuleSpec
from rules.schema import module_of, read_spec
from rules.schema_tables import NOT_RUN
from rules.yaml12 import BadYaml, load

if TYPE_CHECKING:
    from rules.datamodels import DataModel
    from rules.event import EventContext, PantherEvent
    from rules.lookups import LookupTable

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
    """The enabled lookup tables that have content."""
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

    @property
    def everything(self) -> tuple[Rule, ...]:
        """Rules, scheduled rules and policies, by id."""
        return tuple(sorted((*self.all_rules, *self.scheduled_rules, *self.policies), key=lambda rule: rule.id))

    def context_of(self, log_type: str) -> EventContext | None:
        """What the pack adds to the events of a log type: a data model, lookup tables. None where it has neither."""
        if log_type not in self._contexts:
            self._contexts[log_type] = self._context(log_type)
        return self._contexts[log_type]

    def _context(self, log_type: str) -> EventContext | None:
        model = self.models.get(log_type)
        if model is None and not self.tables:
            return None
        from rules.lookups import PackContext

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
    loader = _Loader(files, reader.items, problems, quiet)
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
        notices=(*reader.notices, *loader.notices()),
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


class _Loader:
    """Makes of a pack's items what they stand for."""

    def __init__(self, files: Mapping[str, bytes], items: Sequence[Item], problems: list[Problem], quiet: bool) -> None:
        self._files = files
        self._items = items
        self._problems = problems
        self.globals = {item.id: item.file for item in self.of("global")}
        self.packs = {item.id: frozenset(item.document["PackDefinition"]["IDs"]) for item in self.of("pack")}
        self._filter = parse_filters(files[FILE].decode().splitlines()) if FILE in files else Filter()
        self._modules = Modules(files, self.globals, self._refuse, quiet=quiet)
        self.models: dict[str, DataModel] = {}
        self._model_modules: dict[str, Module] = {}
        """By log type."""
        self._asked_for: set[str] = set()
        """The ids of all that would be loaded, were everything valid."""

    def of(self, *kinds: str) -> list[Item]:
        """The items of some AnalysisTypes with which nothing is wrong."""
        return [item for item in self._items if item.sound and item.kind in kinds]

    def _refuse(self, path: str, line: int | None, message: str, remedy: str) -> None:
        self._problems.append(Problem(SourceLocation(path, line), message, remedy))

    def notices(self) -> Iterator[str]:
        """What is in the pack and not run, a line for each AnalysisType, and which packages are hidden."""
        counts = Counter(item.kind for item in self._items)
        for kind, named in NOT_RUN.items():
            if counts[kind]:
                yield f"{named} are checked and not run by this version: {counts[kind]} in this pack"
        yield from self._modules.notices()

    # --- rules ---------------------------------------------------------------------------------------------------

    def rules(self) -> tuple[Rule, ...]:
        """All rules, scheduled rules and policies that are wanted and can be loaded, by id; and what tests of those name."""
        by_id = {item.id: item for item in self._items if item.kind in DERIVABLE}
        for path in sorted(
            {item.file for item in self._items if item.file.endswith(".py") and item.file in self._files}
        ):
            self._modules.source(path)  # what is wrong there is worth knowing, whatever is wrong with the YAML
        self._load_models()
        loaded = []
        for item, spec in self._chosen(by_id):
            module = self._modules.load(item.id, item.file) if item.file else None
            if module is not None or not item.file:
                loaded.append((item, spec, module))
        # What functions may change is found when all have been executed: one may have put its own into another's list.
        made = [self._rule(*each) for each in loaded]
        return tuple(sorted((rule for rule in made if rule is not None), key=lambda rule: rule.id))

    def wants(self, spec: RuleSpec) -> bool:
        """Whether the pack's filter wants a rule."""
        return self._filter.holds(spec, self.packs)

    def _chosen(self, by_id: Mapping[str, Item]) -> list[tuple[Item, RuleSpec]]:
        """What is to be loaded: what the filter wants, and what the tests of that want beside them."""
        read = []
        for item in self.of(*DERIVABLE, "policy"):
            whole = with_base(item, by_id.get)
            if whole is None:
                self._asked_for.add(item.id)
            else:
                kind: Any = whole.kind
                read.append((whole, read_spec(kind, whole.path, whole.document, whole.file)))
        wanted = [spec for _, spec in read if self.wants(spec)]
        ids = {spec.id for spec in wanted}
        ids |= {rule_id for spec in wanted for test in spec.tests for rule_id in test.get("AlsoRun", ())}
        self._asked_for |= ids
        return [(item, spec) for item, spec in read if spec.id in ids]

    def report_left_out(self, loaded: Set[str]) -> None:
        """What is missing through another's fault is a problem of its own: nobody would notice that it does not run."""
        refused = {problem.location.path for problem in self._problems}
        for item in self.of(*DERIVABLE, "policy"):
            if item.id in self._asked_for - loaded and refused.isdisjoint((item.path, item.file)):
                self._refuse(item.path, 1, "what it imports, or is derived from, is invalid", "mend that first")

    def _rule(self, item: Item, spec: RuleSpec, module: Module | None) -> Rule | None:
        functions = self._functions(spec, module) if module is not None else _detection(item)
        filters = item.document.get("InlineFilters")
        keep = _filter(item, filters) if filters and spec.kind == "rule" else None
        if functions is None or not item.sound or (module is not None and not self._modules.settle(module)):
            return None
        restorer, shared = self._restorers(spec, module)
        return Rule(
            spec,
            functions,
            namespace=module.namespace if module is not None else {},
            reaches_state=self._reaches_state(spec, module),
            restorer=restorer,
            shared=shared,
            find_guard=partial(_guard, item, module),
            filter=keep,
        )

    def _functions(self, spec: RuleSpec, module: Module) -> dict[str, Function] | None:
        """The contract's functions that the module has, however it came by them."""
        body = "policy" if spec.kind == "policy" else "rule"
        namespace = module.namespace
        functions = {name: namespace[name] for name in (body, *AUXILIARIES) if name in namespace}
        wrong = [name for name, function in functions.items() if not callable(function)]
        for name in wrong:
            line = module.source.line_of(name)
            self._refuse(spec.path, line, f"{name} is {type(functions[name]).__name__}", f"define {name}(event)")
        if body not in functions and spec.kind == "scheduled_rule":
            functions[body] = _every_row
        if body not in functions:
            argument = "resource" if body == "policy" else "event"
            message = f"detection needs to have a method named '{body}'"
            self._refuse(spec.path, 1, message, f"define {body}({argument})")
        if wrong or body not in functions:
            return None
        return {"rule": functions.pop(body), **functions}

    def _restorers(self, spec: RuleSpec, module: Module | None) -> tuple[Restorer | None, list[Restorer]]:
        """What puts back the module's own globals, and what puts back those that others may see."""
        modules = [self._model_modules[each] for each in sorted(spec.log_types) if each in self._model_modules]
        behind = dict.fromkeys(each for one in modules for each in (one, *one.behind))
        if module is not None:
            behind.update(dict.fromkeys(module.behind))
        shared = [each.own_restorer for each in behind if each.own_restorer is not None]
        own = module.own_restorer if module is not None else None
        if own is not None and module is not None and module.behind:
            return None, [own, *shared]  # it may change what it has from a global
        return own, shared

    def _reaches_state(self, spec: RuleSpec, module: Module | None) -> bool:
        models = (self._model_modules[each] for each in spec.log_types if each in self._model_modules)
        return (module is not None and module.reaches_state) or any(each.reaches_state for each in models)

    # --- what rules use ------------------------------------------------------------------------------------------

    def _load_models(self) -> None:
        for item in self.of("datamodel"):
            module = self._modules.load(item.id, item.file) if item.file else None
            if item.file and (module is None or not self._modules.settle(module)):
                continue
            try:
                from rules.datamodels import build_model
            except ImportError:  # being written
                return
            log_types = frozenset(item.document["LogTypes"])
            functions = module.namespace if module is not None else {}
            model = build_model(item.id, log_types, item.document["Mappings"], functions, item.refuse)
            if model is not None and item.document["Enabled"]:
                for log_type in log_types:
                    self.models[log_type] = model
                    if module is not None:
                        self._model_modules[log_type] = module

    def tables(self) -> tuple[LookupTable, ...]:
        """The lookup tables that are enabled and have content."""
        tables = []
        for item in self.of("lookup_table"):
            try:
                from rules.lookups import build_table
            except ImportError:  # being written
                return ()
            table = build_table(item.document, self._files.get(item.file), item.refuse)
            if table is not None and item.document["Enabled"]:
                tables.append(table)
        return tuple(tables)


def _every_row(event: PantherEvent) -> bool:
    """The rule() of a scheduled rule that has none: its query has chosen the rows."""
    return True


def _detection(item: Item) -> dict[str, Function] | None:
    from rules.simple import compile_detection

    return compile_detection(item.document, item.refuse)


def _filter(item: Item, filters: Any) -> Callable[[PantherEvent], bool] | None:
    from rules.simple import compile_filters

    return compile_filters(filters, item.refuse)


def _guard(item: Item, module: Module | None) -> Guard | None:
    if module is None:
        from rules.simple import guard_of_detection

        return guard_of_detection(item.document)
    return guard_of(module.source.tree, module.namespace) if module.own_restorer is None else None
