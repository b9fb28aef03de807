"""What rules do to state: every call of a caching helper that an evaluation can reach, with its key as a pattern."""

from __future__ import annotations

import ast
import inspect
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from rules.helpers import CACHING
from rules.lints.patterns import Pattern
from rules.lints.sources import Item, Module, Place, Sources
from rules.lints.values import UNKNOWN, Evaluator, Scope, Values, entry_bindings
from rules.rule import AUXILIARIES

_CACHING_MODULES = frozenset({"panther_detection_helpers.caching", "panther_detection_helpers", "panther_oss_helpers"})
_PARAMETERS = {name: tuple(inspect.signature(function).parameters) for name, function in CACHING.items()}
EXPIRY_PARAMETERS = ("epoch_seconds", "expiry_seconds")

_READING = frozenset({"get_counter", "get_string_set", "get_dictionary", "check_account_age", "evaluate_threshold"})
_READING_IF_USED = frozenset({"increment_counter", "add_to_string_set", "remove_from_string_set"})
"""They return what is then there."""
ADDING = frozenset({"increment_counter", "add_to_string_set", "put_string_set", "put_dictionary"})
"""They put something under the key, and can say when it expires."""
_WRITING = ADDING | {
    "evaluate_threshold", "remove_from_string_set", "reset_counter", "reset_string_set", "set_key_expiration",
}  # fmt: skip

_LONG = 2000
"""So many calls are gone through for one rule."""

Arms = Mapping[Any, Any]
"""Branch -> the arm of it in which something stands."""


@dataclass(frozen=True, slots=True, eq=False)
class Access:
    """One call of a caching helper, as one evaluation comes by it."""

    helper: str
    place: Place
    keys: tuple[Pattern, ...]
    """The alternatives. Empty: what is no text for certain, or only stands for a missing one."""
    reads: bool
    writes: bool
    arguments: Mapping[str, ast.expr]
    values: Mapping[str, Values]
    """The arguments by parameter, as they stand and what they may be."""
    function: ast.FunctionDef
    """In which the call stands."""
    arms: Arms
    loops: frozenset[int]
    """Loops that may come by it several times."""

    def excludes(self, other: Access) -> bool:
        """Whether one evaluation cannot do both."""
        return any(self.arms[branch] != other.arms[branch] for branch in self.arms.keys() & other.arms.keys())

    @property
    def expiry(self) -> Values | None:
        """What it says of the expiry; None where it says nothing."""
        return next((self.values[name] for name in EXPIRY_PARAMETERS if name in self.values), None)


class Edge(NamedTuple):
    """A key that one rule writes and another reads."""

    writer: str
    skeleton: str
    reader: str


@dataclass(slots=True)
class Uses:
    """What the rules of a pack do to the keys of one skeleton."""

    pattern: Pattern
    readers: set[str] = field(default_factory=set)
    writers: set[str] = field(default_factory=set)

    @property
    def only_writers(self) -> set[str]:
        return self.writers - self.readers

    @property
    def only_readers(self) -> set[str]:
        return self.readers - self.writers

    @property
    def shared_on_purpose(self) -> bool:
        """One rule only writes such keys and another only reads them, or at least one of both is so and the key has a name.

        Without a name in the key those that do both are taken to keep theirs to themselves.
        """
        if self.pattern.is_named:
            return len(self.readers | self.writers) > 1 and bool(self.only_writers or self.only_readers)
        return bool(self.only_writers and self.only_readers)

    def edges(self) -> Iterator[Edge]:
        writers, readers = self.writers, self.readers
        if not self.pattern.is_named:
            writers, readers = self.only_writers, self.only_readers
        for writer in sorted(writers):
            for reader in sorted(readers - {writer}):
                yield Edge(writer, self.pattern.skeleton, reader)


class Analysis:
    """A pack's sources with what its rules do to state."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        evaluator = Evaluator(sources.helpers)
        self.accesses: dict[str, list[Access]] = {}
        """By the id of the rule, scheduled rule or policy."""
        for item in sources.detections:
            if item.module is not None and _reaches_state(item.module, sources.helpers):
                self.accesses[item.id] = _Walk(evaluator, item, item.module).accesses

    @cached_property
    def uses(self) -> dict[str, Uses]:
        """By skeleton; of keys of which nothing literal is known there are none."""
        found: dict[str, Uses] = {}
        for rule_id, accesses in self.accesses.items():
            for access in accesses:
                for pattern in access.keys:
                    if pattern.is_known or pattern.is_named:
                        uses = found.setdefault(pattern.skeleton, Uses(pattern))
                        if access.reads:
                            uses.readers.add(rule_id)
                        if access.writes:
                            uses.writers.add(rule_id)
        return found

    @property
    def edges(self) -> list[Edge]:
        """The graph of keys that one rule writes and another reads."""
        return sorted(edge for uses in self.uses.values() for edge in uses.edges())

    @property
    def modules(self) -> list[Module]:
        return [module for _, module in sorted(self.sources.modules.items())]

    def rules_by_module(self) -> dict[str, list[Item]]:
        """The items that each module serves, by path."""
        found: defaultdict[str, list[Item]] = defaultdict(list)
        for item in self.sources.items:
            if item.module is not None:
                found[item.module.path].append(item)
        return found


def _reaches_state(module: Module, helpers: Mapping[str, Module]) -> bool:
    """Whether a module can come by a caching helper through its imports and those of the pack's globals."""
    seen: set[str] = set()
    left = [module]
    while left:
        each = left.pop()
        for root in {dotted.partition(".")[0] for dotted in (*each.imports.values(), *each.stars)} - seen:
            if root in ("panther_detection_helpers", "panther_oss_helpers"):
                return True
            seen.add(root)
            if root in helpers:
                left.append(helpers[root])
    return False


class _Walk:
    """Goes through the functions that the engine calls for one rule, and through those that they call."""

    def __init__(self, evaluator: Evaluator, item: Item, module: Module) -> None:
        self._evaluator = evaluator
        self.accesses: list[Access] = []
        self._seen: set[ast.Call] = set()
        self._stack: list[ast.FunctionDef] = []
        self._calls_left = _LONG
        for name in ("rule", "policy", *AUXILIARIES):
            function = module.functions.get(name)
            if function is not None:
                scope = Scope(module, item.id, function, entry_bindings(function))
                # Auxiliary functions are called where rule() gave True.
                arms: Arms = {} if name in ("rule", "policy") else {"match": True}
                _Body(self, function, scope, arms, frozenset(), decides=name == "rule")
        # What nobody is seen to call (methods, nested functions) may be called all the same, with anything.
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef) and node not in module.functions.values():
                _Body(self, node, Scope(module, item.id, node, {}), {node: True}, frozenset(), unseen_only=True)
        for function in module.functions.values():
            bindings = dict.fromkeys(entry_bindings(function), UNKNOWN)
            scope = Scope(module, item.id, function, bindings)
            _Body(self, function, scope, {function: True}, frozenset(), unseen_only=True)

    def call(
        self, node: ast.Call, scope: Scope, arms: Arms, loops: frozenset[int], used: bool, unseen_only: bool
    ) -> None:
        """A call: of a caching helper, which is noted, or of a function of the pack, which is gone through."""
        owner, _, name = self._evaluator.target_of(node, scope).rpartition(".")
        if owner in _CACHING_MODULES and name in CACHING:
            if not (unseen_only and node in self._seen):
                self._seen.add(node)
                self._note(node, name, scope, arms, loops, used)
            return
        called = self._evaluator.called(node, scope)
        if called is not None and called.function not in self._stack and not unseen_only and self._calls_left:
            self._calls_left -= 1
            self._stack.append(called.function)
            _Body(self, called.function, called.scope, arms, loops)
            self._stack.pop()

    def _note(self, node: ast.Call, helper: str, scope: Scope, arms: Arms, loops: frozenset[int], used: bool) -> None:
        arguments = dict(zip(_PARAMETERS[helper], node.args, strict=False))
        arguments.update({keyword.arg: keyword.value for keyword in node.keywords if keyword.arg is not None})
        key = arguments.get("key")
        assert scope.function is not None
        self.accesses.append(
            Access(
                helper,
                scope.module.place(node),
                self._evaluator.patterns(key, scope) if key is not None else (),
                helper in _READING or (used and helper in _READING_IF_USED),
                helper in _WRITING,
                arguments,
                {name: self._evaluator.values(value, scope) for name, value in arguments.items()},
                scope.function,
                arms,
                loops,
            )
        )


class _Body:
    """Goes through one call of a function, in order, minding which statements exclude each other."""

    def __init__(
        self,
        walk: _Walk,
        function: ast.FunctionDef,
        scope: Scope,
        arms: Arms,
        loops: frozenset[int],
        *,
        decides: bool = False,
        unseen_only: bool = False,
    ) -> None:
        """`decides`: it is rule(), after whose `return False` nothing else is called."""
        self._walk = walk
        self._scope = scope
        self._decides = decides
        self._unseen_only = unseen_only
        self._outer = loops
        self._block(function.body, arms, frozenset())

    def _branch(self, node: ast.AST) -> object:
        """Names a branch in this call; in another call of the same function it is another one."""
        return (id(self), id(node))

    def _block(self, body: list[ast.stmt], arms: Arms, loops: frozenset[int]) -> None:
        for number, statement in enumerate(body):
            here = dict(arms)
            rest = body[number:]
            if self._decides and _gives_false(rest):
                here["match"] = False
            # An inner `return` or `break` ends a loop: what stands before it is done once.
            around = frozenset() if isinstance(rest[-1], ast.Return | ast.Raise | ast.Break) else loops
            self._statement(statement, here, around)
            if isinstance(statement, ast.If) and _ends(statement.body):
                arms = {**arms, self._branch(statement): False}

    def _statement(self, statement: ast.stmt, arms: Arms, loops: frozenset[int]) -> None:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                return
            case ast.Expr(value=value):
                self._expression(value, arms, loops, used=False)
            case ast.If(test=test, body=body, orelse=orelse):
                self._expression(test, arms, loops)
                self._block(body, {**arms, self._branch(statement): True}, loops)
                self._block(orelse, {**arms, self._branch(statement): False}, loops)
            case ast.For(iter=iterated, body=body, orelse=orelse):
                self._expression(iterated, arms, loops)
                self._block(body, arms, loops | {id(statement)})
                self._block(orelse, arms, loops)
            case ast.Match(subject=subject, cases=cases):
                self._expression(subject, arms, loops)
                for number, case in enumerate(cases):
                    if case.guard is not None:
                        self._expression(case.guard, arms, loops)
                    self._block(case.body, {**arms, self._branch(statement): number}, loops)
            case _:
                for child in ast.iter_child_nodes(statement):
                    if isinstance(child, ast.expr):
                        self._expression(child, arms, loops)
                    elif isinstance(child, ast.withitem):
                        self._expression(child.context_expr, arms, loops)
                    elif isinstance(child, ast.ExceptHandler):
                        self._block(child.body, arms, loops)
                for name in ("body", "orelse", "finalbody"):
                    self._block(getattr(statement, name, []), arms, loops)

    def _expression(self, node: ast.expr, arms: Arms, loops: frozenset[int], *, used: bool = True) -> None:
        match node:
            case ast.IfExp(test=test, body=body, orelse=orelse):
                self._expression(test, arms, loops)
                self._expression(body, {**arms, self._branch(node): True}, loops)
                self._expression(orelse, {**arms, self._branch(node): False}, loops)
                return
            case ast.ListComp(generators=generators) | ast.SetComp(generators=generators):
                loops = loops | {id(each) for each in generators}
            case ast.GeneratorExp(generators=generators) | ast.DictComp(generators=generators):
                loops = loops | {id(each) for each in generators}
            case ast.Lambda():
                return
            case ast.Call():
                self._walk.call(node, self._scope, arms, self._outer | loops, used, self._unseen_only)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._expression(child, arms, loops)
            elif isinstance(child, ast.keyword):
                self._expression(child.value, arms, loops)
            elif isinstance(child, ast.comprehension):
                for part in (child.iter, *child.ifs):
                    self._expression(part, arms, loops)


def _ends(body: list[ast.stmt]) -> bool:
    """Whether nothing after a block is executed when the block was."""
    last = body[-1] if body else None
    if isinstance(last, ast.If):
        return _ends(last.body) and _ends(last.orelse)
    return isinstance(last, ast.Return | ast.Raise | ast.Continue | ast.Break)


def _gives_false(body: list[ast.stmt]) -> bool:
    """Whether the rest of a rule() can end in `return False` only."""
    if not isinstance(body[-1], ast.Return):
        return False
    returns = [node for statement in body for node in ast.walk(statement) if isinstance(node, ast.Return)]
    return all(isinstance(node.value, ast.Constant) and node.value.value is False for node in returns)
