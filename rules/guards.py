"""Guards: a condition on one field without which a rule can neither match nor reach state (DESIGN 7).

Read off the first statements of rule(), as far as they are plain: comparisons of `event.get("field")` with constants that end
in `return False`, or a `return` that begins with one. Whatever is not understood ends the analysis: no guard, never a wrong
one. Skipping a rule whose guard fails may hide an exception or a print of the skipped part, nothing else.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, NamedTuple

from rules.event import folded_keys


class Guard(NamedTuple):
    """The rule can only match events whose `field` holds one of `values`."""

    field: str
    values: frozenset[str]


class _Conditions(NamedTuple):
    """What must hold for an expression to come out as wanted, and whether all of the expression was understood."""

    guards: list[Guard]
    complete: bool


def guard_of(tree: ast.Module, namespace: Mapping[str, Any]) -> Guard | None:
    """The most selective guard of a module's rule(). The module must not change its globals."""
    found = [node for node in tree.body if getattr(node, "name", None) == "rule"]
    function = namespace.get("rule")
    if len(found) != 1 or not isinstance(found[0], ast.FunctionDef) or not isinstance(function, FunctionType):
        return None
    node = found[0]
    plain = (
        not node.decorator_list
        and function.__code__.co_firstlineno == node.lineno
        and function.__globals__ is namespace
    )
    arguments = node.args
    only_event = len(arguments.args) == 1 and not (arguments.vararg or arguments.kwonlyargs or arguments.kwarg)
    if not plain or not only_event or any(isinstance(each, ast.Yield | ast.YieldFrom) for each in ast.walk(node)):
        return None
    guards = _Reader(node, namespace).guards()
    return min(reversed(guards), key=lambda guard: len(guard.values), default=None)


class _Reader:
    """Reads the first statements of one rule()."""

    def __init__(self, function: ast.FunctionDef, namespace: Mapping[str, Any]) -> None:
        self._body = function.body
        self._event = function.args.args[0].arg
        self._namespace = namespace
        self._assigned = {
            each.id for each in ast.walk(function) if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load)
        } | {self._event}
        self._aliases: dict[str, str] = {}
        """Local name -> the field that it holds."""

    def guards(self) -> list[Guard]:
        guards: list[Guard] = []
        if self._event in {each.id for each in _stores(self._body)}:
            return guards
        for statement in self._body:
            match statement:
                case ast.Expr(value=ast.Constant()):
                    continue
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if (field := self._field(value)) is not None:
                    self._aliases[name] = field
                    continue
                case ast.If(test=test, body=[ast.Return(value=ast.Constant(value=False))], orelse=[]):
                    conditions = self._false(test)
                case ast.Return(value=ast.expr() as value):
                    return guards + self._true(value).guards
                case _:
                    return guards
            guards += conditions.guards
            if not conditions.complete:
                return guards
        return guards

    def _true(self, test: ast.expr) -> _Conditions:
        """What must hold for `test` to be true."""
        match test:
            case ast.Compare(left=left, ops=[ast.Eq() | ast.In() as op], comparators=[right]):
                return self._comparison(test, left, right, isinstance(op, ast.In))
            case ast.BoolOp(op=ast.And(), values=values):
                return self._each(values, self._true)
            case ast.BoolOp(op=ast.Or(), values=values):
                return self._either(test, values, self._true)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self._false(operand)
        return _Conditions([], self._plain(test))

    def _false(self, test: ast.expr) -> _Conditions:
        """What must hold for `test` to be false."""
        match test:
            case ast.Compare(left=left, ops=[ast.NotEq() | ast.NotIn() as op], comparators=[right]):
                return self._comparison(test, left, right, isinstance(op, ast.NotIn))
            case ast.BoolOp(op=ast.Or(), values=values):
                return self._each(values, self._false)
            case ast.BoolOp(op=ast.And(), values=values):
                return self._either(test, values, self._false)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self._true(operand)
        return _Conditions([], self._plain(test))

    @staticmethod
    def _each(values: Sequence[ast.expr], want: Callable[[ast.expr], _Conditions]) -> _Conditions:
        """All must come out as wanted; they are evaluated in order, so what follows one not understood may not count."""
        guards: list[Guard] = []
        for value in values:
            conditions = want(value)
            guards += conditions.guards
            if not conditions.complete:
                return _Conditions(guards, False)
        return _Conditions(guards, True)

    def _either(
        self, test: ast.expr, values: Sequence[ast.expr], want: Callable[[ast.expr], _Conditions]
    ) -> _Conditions:
        """One must come out as wanted: a guard only if all are about one field."""
        parts = [want(value) for value in values]
        complete = self._plain(test)
        guards = [part.guards[0] for part in parts if len(part.guards) == 1]
        if not complete or len(guards) != len(parts) or len({guard.field for guard in guards}) != 1:
            return _Conditions([], complete)
        return _Conditions([Guard(guards[0].field, frozenset().union(*(guard.values for guard in guards)))], True)

    def _comparison(self, test: ast.expr, left: ast.expr, right: ast.expr, is_membership: bool) -> _Conditions:
        field = self._field(left)
        values = self._constants(right, is_membership)
        if field is None or values is None or field.lower().startswith("p_"):
            return _Conditions([], self._plain(test))
        return _Conditions([Guard(field, values)], True)

    def _field(self, node: ast.expr) -> str | None:
        """The field that an expression reads: event.get("field"), or a local name that holds it."""
        match node:
            case ast.Name(id=name):
                return self._aliases.get(name)
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=event), attr="get"),
                args=[ast.Constant(value=str(field))],
                keywords=[],
            ) if event == self._event:
                return field
        return None

    def _constants(self, node: ast.expr, is_membership: bool) -> frozenset[str] | None:
        """The texts that an expression accepts; None where it is anything but texts known now."""
        value: Any = None
        match node:
            case ast.Name(id=name) if name not in self._assigned:
                value = self._namespace.get(name)
            case ast.Constant() | ast.Set() | ast.Tuple() | ast.List():
                try:
                    value = ast.literal_eval(node)
                except ValueError:
                    return None
        if not is_membership:
            return frozenset({value}) if type(value) is str else None
        if type(value) not in (set, frozenset, list, tuple, dict) or not all(type(each) is str for each in value):
            return None
        return frozenset(value)

    def _plain(self, node: ast.expr) -> bool:
        """Whether evaluating an expression can do nothing but read the event: no state, no other code."""
        match node:
            case ast.Constant():
                return True
            case ast.Name(id=name):
                return name in self._aliases or (name not in self._assigned and self._constants(node, True) is not None)
            case ast.BoolOp(values=values):
                return all(map(self._plain, values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self._plain(operand)
            case ast.Compare(left=left, comparators=comparators):
                return all(map(self._plain, [left, *comparators]))
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=event), attr="get" | "deep_get"), args=args, keywords=keywords
            ):
                given = [*args, *(keyword.value for keyword in keywords)]
                return event == self._event and all(isinstance(each, ast.Constant) for each in given)
        return False


def _stores(body: Sequence[ast.stmt]) -> list[ast.Name]:
    return [
        each
        for statement in body
        for each in ast.walk(statement)
        if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load)
    ]


_ABSENT: Any = object()


class Index:
    """Which of some rules an event can concern, by their guards. Looks at a handful of fields, however many rules there are."""

    def __init__(self, guards: Sequence[Guard | None]) -> None:
        """`guards[n]` is that of the n-th rule, None where it has none."""
        self._always = tuple(n for n, guard in enumerate(guards) if guard is None)
        tables: dict[str, dict[str, list[int]]] = {}
        for n, guard in enumerate(guards):
            for value in guard.values if guard is not None else ():
                tables.setdefault(guard.field, {}).setdefault(value, []).append(n)  # type: ignore[union-attr]
        self._tables = [
            (field, field.lower(), {value: tuple(found) for value, found in table.items()})
            for field, table in tables.items()
        ]
        self._merged: dict[tuple[tuple[int, ...], ...], tuple[int, ...]] = {}

    @property
    def texts(self) -> frozenset[str] | None:
        """Every text that a guard accepts: an event with none of them concerns no rule. None if a rule has no guard."""
        return None if self._always else frozenset(text for _, _, table in self._tables for text in table)

    def candidates(self, event: dict[str, Any]) -> tuple[int, ...]:
        """The rules whose guard an event meets, ascending. The event is raw: keys count without regard to case."""
        found: list[tuple[int, ...]] = []
        folded: dict[str, str] | None = None
        for field, lower, table in self._tables:
            value = event.get(field, _ABSENT)
            if value is _ABSENT:
                if folded is None:
                    folded = folded_keys(event)
                actual = folded.get(lower)
                if actual is None:
                    continue
                value = event[actual]
            if type(value) is str and value in table:
                found.append(table[value])
        if not found:
            return self._always
        return self._merge((self._always, *found))

    def _merge(self, found: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
        merged = self._merged.get(found)
        if merged is None:
            merged = self._merged[found] = tuple(sorted({n for part in found for n in part}))
        return merged
