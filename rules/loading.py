"""Loader: makes of a pack's items what they stand for: rules, data models, lookup tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

from rules.datamodels import DataModel, build_model
from rules.errors import Problem, SourceLocation
from rules.event import PantherEvent
from rules.filters import FILE, Filter, parse_filters
from rules.globals import Restorer
from rules.guards import Guard
from rules.guards.facts import both
from rules.items import DERIVABLE, Item, with_base
from rules.lookups import LookupTable, build_table
from rules.modules import Module, Modules
from rules.rule import AUXILIARIES, Function, Rule, RuleSpec
from rules.schema import read_spec
from rules.schema_tables import NOT_RUN
from rules.simple import compile_detection, compile_filters, facts_of_detection, facts_of_filters


class Loader:
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
        modules = (*self._model_modules.values(), *(module for _, _, module in loaded if module is not None))
        self._modules.settle(tuple(dict.fromkeys(modules)))
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
        functions = (
            self._functions(spec, module) if module is not None else compile_detection(item.document, item.refuse)
        )
        filters = item.document.get("InlineFilters")
        keep = compile_filters(filters, item.refuse) if filters and spec.kind == "rule" else None
        if functions is None or not item.sound or (module is not None and not module.can_be_restored):
            return None
        restorer, shared = self._restorers(spec, module)
        return Rule(
            spec,
            functions,
            namespace=module.namespace if module is not None else {},
            reaches_state=self._reaches_state(spec, module),
            restorer=restorer,
            shared=shared,
            find_guard=self._guard_finder(item, spec, functions["rule"], module),
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

    def _guard_finder(
        self, item: Item, spec: RuleSpec, function: Function, module: Module | None
    ) -> Callable[[str], Guard | None]:
        """Finds the guard of a rule for a log type, through the log type's data model; once for each model."""
        filters = facts_of_filters(item.document.get("InlineFilters") or ())
        models = [self._model_modules[each] for each in sorted(spec.log_types) if each in self._model_modules]
        reached = [] if module is None else [module, *module.behind]
        for each in models:
            reached += [each, *each.behind]
        reaches_state = self._reaches_state(spec, module)

        def find(model: DataModel | None) -> Guard:
            if module is None:
                facts = both(filters, facts_of_detection(item.document))
                return Guard(facts) if facts else Guard(facts, "its Detection compares no field with constants alone")
            from rules.guards.analysis import analyse  # not with the module: `test` needs no guards
            from rules.guards.world import World

            analysed = analyse(World(tuple(dict.fromkeys(reached)), model, reaches_state=reaches_state), function)
            facts = both(filters, analysed.facts)
            return Guard(facts) if facts else Guard(facts, analysed.reason, analysed.place)

        found: dict[str, Guard] = {}

        def find_once(log_type: str) -> Guard:
            model = self.models.get(log_type)
            model_id = "" if model is None else model.id
            if model_id not in found:
                found[model_id] = find(model)
            return found[model_id]

        return find_once

    # --- what rules use ------------------------------------------------------------------------------------------

    def _load_models(self) -> None:
        for item in self.of("datamodel"):
            module = self._modules.load(item.id, item.file) if item.file else None
            if item.file and module is None:
                continue
            functions = module.namespace if module is not None else {}
            log_types = frozenset(item.document["LogTypes"])
            model = build_model(item.id, log_types, item.document["Mappings"], functions, item.refuse)
            if model is not None and item.document["Enabled"]:
                self.models.update(dict.fromkeys(log_types, model))
                if module is not None:
                    self._model_modules.update(dict.fromkeys(log_types, module))

    def tables(self) -> tuple[LookupTable, ...]:
        """The lookup tables that are enabled and have rows."""
        tables = []
        for item in self.of("lookup_table"):
            table = build_table(item.document, self._files.get(item.file), item.refuse)
            if table is not None and table.has_rows and item.document["Enabled"]:
                tables.append(table)
        return tuple(tables)


def _every_row(event: PantherEvent) -> bool:
    """The rule() of a scheduled rule that has none: its query has chosen the rows."""
    return True
