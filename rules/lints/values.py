"""What an expression of a rule may be, without running it: texts with holes, values out of the event, constants.

Names are followed through assignments, parameters, helper functions of the pack and module constants. What cannot be followed
is Unknown, and nobody is accused of it.
"""

from __future__ import annotations

import ast
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple, TypeAlias

from rules.lints.names import Binding, Locals
from rules.lints.patterns import UNKNOWN_HOLE, Hole, Part, Pattern, pattern_of
from rules.lints.sources import Module

_MANY = 16
"""More alternatives than this are Unknown."""
_DEEP = 12
"""So many calls within calls are followed."""
_NESTED = 80
"""So many expressions within expressions are followed: each costs a few of Python's frames."""
_LONG = 1000
"""So many calls are followed for one expression: helpers that call each other over and over would take for ever."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal that is no text."""

    value: Any


@dataclass(frozen=True, slots=True)
class Field:
    """A value out of the event, or one that only depends on it."""

    label: str = ""
    loop: int = 0


@dataclass(frozen=True, slots=True)
class Clock:
    """The evaluation's time plus some seconds; None: plus something unknown."""

    offset_s: float | None = 0


@dataclass(frozen=True, slots=True)
class Items:
    """A list, tuple or set that is written out; Unknown among them stands for any."""

    elements: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """The event itself."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Could be anything."""

    loop: int = 0


Value: TypeAlias = Pattern | Constant | Field | Clock | Items | Event | Unknown
Values: TypeAlias = tuple[Value, ...]
"""The alternatives."""

UNKNOWN: Values = (Unknown(),)
EVENT: Values = (Event(),)

WALL_CLOCK = frozenset(
    {f"time.{name}" for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")}
    | {"datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today"}
)
"""Calls that ask what time it is."""

_CLOCK_S = frozenset({"time.time", "time.monotonic", "time.perf_counter"})
_UNCHANGED = frozenset(
    {"casefold", "lower", "lstrip", "removeprefix", "removesuffix", "replace", "rstrip", "strip", "title", "upper"}
)
"""Methods of a text that leave it the same as far as a key's pattern goes."""
_EVENT_METHODS = frozenset({"get", "deep_get", "deep_walk", "udm"})
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
}


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """Where an expression stands: a module under a name, and maybe a call of one of its functions."""

    module: Module
    name: str
    """What `__name__` is."""
    function: ast.FunctionDef | None = None
    bindings: Mapping[str, Values] | None = None
    """What the parameters are."""
    depth: int = 0


class Called(NamedTuple):
    """A function of the pack that a call leads to, and the scope of that call."""

    function: ast.FunctionDef
    scope: Scope


class Evaluator:
    """Evaluates expressions of a pack's modules."""

    def __init__(self, helpers: Mapping[str, Module]) -> None:
        """`helpers` are the pack's globals by GlobalID."""
        self._helpers = helpers
        self._locals: dict[ast.FunctionDef, Locals] = {}
        self._busy: set[tuple[ast.AST, int]] = set()
        """What is being evaluated: expressions under their bindings, and functions."""
        self._calls_left = _LONG

    # --- names and calls -----------------------------------------------------------------------------------------

    def target_of(self, call: ast.Call, scope: Scope) -> str:
        """What is called, dotted, re-exports of helpers resolved; empty for what is no plain name."""
        dotted = scope.module.dotted(call.func)
        root = dotted.partition(".")[0]
        if (
            scope.function is not None
            and root not in scope.module.imports
            and root in self._of(scope.function).assigned
        ):
            return ""
        return self._resolved(dotted)

    def _resolved(self, dotted: str) -> str:
        for _ in range(_DEEP):
            owner, _, name = dotted.rpartition(".")
            helper = self._helpers.get(owner)
            if helper is None or name not in helper.imports:
                break
            dotted = helper.imports[name]
        return dotted

    def called(self, call: ast.Call, scope: Scope) -> Called | None:
        """The pack's own function that is called."""
        if scope.depth >= _DEEP:
            return None
        target = self.target_of(call, scope)
        owner, _, name = target.rpartition(".")
        module, module_name = (self._helpers.get(owner), owner) if owner else (scope.module, scope.name)
        if not owner and name not in scope.module.functions:
            module, module_name = next(
                ((self._helpers[star], star) for star in scope.module.stars if name in self._functions(star)),
                (None, ""),
            )
        function = module.functions.get(name) if module is not None else None
        if module is None or function is None:
            return None
        bare = Scope(module, module_name, depth=scope.depth + 1)
        return Called(
            function, Scope(module, module_name, function, self._bound(function, call, scope, bare), bare.depth)
        )

    def _functions(self, helper: str) -> Mapping[str, ast.FunctionDef]:
        return self._helpers[helper].functions if helper in self._helpers else {}

    def _bound(self, function: ast.FunctionDef, call: ast.Call, caller: Scope, bare: Scope) -> dict[str, Values]:
        """The parameters of a call."""
        arguments = function.args
        names = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
        bound = {each.arg: UNKNOWN for each in ast.walk(arguments) if isinstance(each, ast.arg)}
        defaults = zip(names[len(names) - len(arguments.defaults) :], arguments.defaults, strict=True)
        named = ((each.arg, value) for each, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
        for name, default in (*defaults, *named):
            if default is not None:
                bound[name] = self.values(default, bare)
        for name, value in zip(names, call.args, strict=False):
            if isinstance(value, ast.Starred):
                bound.update(dict.fromkeys(names[names.index(name) :], UNKNOWN))
                break
            bound[name] = self.values(value, caller)
        for keyword in call.keywords:
            if keyword.arg is None:
                bound.update(dict.fromkeys(names, UNKNOWN))
            elif keyword.arg in bound:
                bound[keyword.arg] = self.values(keyword.value, caller)
        return bound

    def _of(self, function: ast.FunctionDef) -> Locals:
        if function not in self._locals:
            self._locals[function] = Locals(function)
        return self._locals[function]

    # --- expressions ---------------------------------------------------------------------------------------------

    def values(self, node: ast.expr, scope: Scope) -> Values:
        """What an expression may be."""
        mark = (node, id(scope.bindings))
        if mark in self._busy or len(self._busy) > _NESTED:
            return UNKNOWN
        if not self._busy:
            self._calls_left = _LONG
        self._busy.add(mark)
        try:
            found = _distinct(self._values(node, scope))
        finally:
            self._busy.discard(mark)
        return found if 0 < len(found) <= _MANY else UNKNOWN

    def patterns(self, node: ast.expr, scope: Scope) -> tuple[Pattern, ...]:
        """What text an expression may be; what is no text for certain (None, a number) and the empty text are left out."""
        found = [value for value in self.values(node, scope) if not isinstance(value, Constant | Items | Event)]
        return tuple(dict.fromkeys(pattern for value in found if (pattern := pattern_of(_parts(value))).parts))

    def _values(self, node: ast.expr, scope: Scope) -> Iterable[Value]:
        match node:
            case ast.Constant(value=value):
                return [pattern_of([value]) if isinstance(value, str) else Constant(value)]
            case ast.JoinedStr(values=values):
                return _joined([self._formatted(value, scope) for value in values])
            case ast.Name(id=name):
                return self._name(node, name, scope)
            case ast.BinOp():
                return self._arithmetic(node, scope)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return [_negated(value) for value in self.values(operand, scope)]
            case ast.BoolOp(values=parts, op=operator):
                found = [value for part in parts for value in self.values(part, scope)]
                return found if isinstance(operator, ast.And) else _without_stand_ins(found)
            case ast.IfExp(body=body, orelse=orelse):
                return [*self.values(body, scope), *self.values(orelse, scope)]
            case ast.NamedExpr(value=value):
                return self.values(value, scope)
            case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
                return [Items(_distinct(value for each in elements for value in self._element(each, scope)))]
            case ast.ListComp(elt=element) | ast.SetComp(elt=element) | ast.GeneratorExp(elt=element):
                return [Items(self.values(element, scope))]
            case ast.Subscript(value=base, slice=key):
                return [_inside(value, key) for value in self.values(base, scope)]
            case ast.Attribute():
                return self._attribute(node, scope)
            case ast.Call():
                return self._call(node, scope)
        return UNKNOWN

    def _formatted(self, node: ast.expr, scope: Scope) -> Values:
        return self.values(node.value if isinstance(node, ast.FormattedValue) else node, scope)

    def _element(self, node: ast.expr, scope: Scope) -> Values:
        if not isinstance(node, ast.Starred):
            return self.values(node, scope)
        return tuple(
            element
            for value in self.values(node.value, scope)
            for element in (value.elements if isinstance(value, Items) else UNKNOWN)
        )

    def _name(self, node: ast.Name, name: str, scope: Scope) -> Iterable[Value]:
        if name == "__name__":
            return [pattern_of([scope.name])]
        if scope.function is not None:
            held = self._of(scope.function)
            parameter = (scope.bindings or {}).get(name, ())
            if name not in held.globals and name in held.assigned:
                bindings, all_of_them = held.before(node)
                return [*self._assigned(bindings, scope), *(() if all_of_them else parameter)]
            if parameter:
                return parameter
        return self._global(name, scope.module, scope.name)

    def _assigned(self, bindings: Iterable[Binding], scope: Scope) -> Iterable[Value]:
        """What some bindings of a name give."""
        for binding in bindings:
            if binding.value is None:
                yield Unknown()
            elif binding.loop:
                yield from (_each(value, binding.loop) for value in self.values(binding.value, scope))
            else:
                yield from self.values(binding.value, scope)

    def _global(self, name: str, module: Module, module_name: str) -> Iterable[Value]:
        bare = Scope(module, module_name)
        found = [value for node in module.constants.get(name, ()) for value in self.values(node, bare)]
        for function in module.functions.values():
            held = self._of(function)
            if name in held.globals:
                scope = Scope(module, module_name, function, entry_bindings(function))
                found += self._assigned(held.assigned.get(name, ()), scope)
        if not found:
            owner, _, attribute = self._resolved(module.imports.get(name, "")).rpartition(".")
            if owner in self._helpers:
                return self._global(attribute, self._helpers[owner], owner)
        return _without_stand_ins(found) or UNKNOWN

    def _attribute(self, node: ast.Attribute, scope: Scope) -> Iterable[Value]:
        owner, _, name = scope.module.dotted(node).rpartition(".")
        helper = self._helpers.get(owner)
        return self._global(name, helper, owner) if helper is not None else UNKNOWN

    def _arithmetic(self, node: ast.BinOp, scope: Scope) -> Iterable[Value]:
        lefts = self.values(node.left, scope)
        if isinstance(node.op, ast.Mod) and all(isinstance(left, Pattern) for left in lefts):
            rights = node.right.elts if isinstance(node.right, ast.Tuple) else [node.right]
            return self._filled([_percent(left) for left in lefts if isinstance(left, Pattern)], rights, scope)
        return [_combined(node.op, left, right) for left, right in product(lefts, self.values(node.right, scope))]

    def _call(self, node: ast.Call, scope: Scope) -> Iterable[Value]:
        called = self.called(node, scope)
        if called is not None:
            return self._returned(called)
        target = self.target_of(node, scope)
        match target, node.args:
            case (("str" | "int" | "float" | "round" | "abs"), [value, *_]):
                return [_converted(target, each) for each in self.values(value, scope)]
            case (("list" | "set" | "tuple" | "sorted" | "frozenset"), [value]):
                return [each if isinstance(each, Items) else Items(UNKNOWN) for each in self.values(value, scope)]
        if target in _CLOCK_S:
            return [Clock()]
        if isinstance(node.func, ast.Attribute):
            return [
                value
                for base in self.values(node.func.value, scope)
                for value in self._method(base, node.func.attr, node.args, scope)
            ]
        return UNKNOWN

    def _returned(self, called: Called) -> Iterable[Value]:
        self._calls_left -= 1
        mark = (called.function, 0)
        if mark in self._busy or self._calls_left < 0:
            return UNKNOWN
        self._busy.add(mark)
        found = [
            value
            for node in ast.walk(called.function)
            if isinstance(node, ast.Return) and node.value is not None
            for value in self.values(node.value, called.scope)
        ]
        self._busy.discard(mark)
        return _without_stand_ins(found)

    def _method(self, base: Value, name: str, arguments: list[ast.expr], scope: Scope) -> Iterable[Value]:
        if isinstance(base, Event):
            if name == "event_time_epoch":
                return [Clock()]
            return [Field(_label(name, arguments))] if name in _EVENT_METHODS else UNKNOWN
        if name in _UNCHANGED and isinstance(base, Field | Pattern | Clock):
            return [base]
        if isinstance(base, Field) and name == "get" and arguments:
            return [_inside(base, arguments[0])]
        if isinstance(base, Pattern) and name == "format":
            return self._filled([_braces(base)], arguments, scope)
        if isinstance(base, Pattern) and name == "join" and len(arguments) == 1:
            return self._joined_by(base, arguments[0], scope)
        return UNKNOWN

    def _joined_by(self, separator: Pattern, node: ast.expr, scope: Scope) -> Iterable[Value]:
        if not isinstance(node, ast.List | ast.Tuple) or any(isinstance(each, ast.Starred) for each in node.elts):
            return UNKNOWN
        parts: list[Values] = []
        for element in node.elts:
            parts += [(separator,)] if parts else []
            parts.append(self.values(element, scope))
        return _joined(parts)

    def _filled(
        self, templates: list[list[str | None] | None], arguments: list[ast.expr], scope: Scope
    ) -> Iterable[Value]:
        """Templates, None where the next argument goes, with the arguments put in."""
        found: list[Value] = []
        for template in templates:
            if template is None or template.count(None) != len(arguments):
                return UNKNOWN
            values = iter([self.values(argument, scope) for argument in arguments])
            found += _joined([next(values) if part is None else (pattern_of([part]),) for part in template])
        return found


# --- values in values -----------------------------------------------------------------------------------------------


def _distinct(values: Iterable[Value]) -> Values:
    kept: list[Value] = []
    for value in values:
        if value not in kept:
            kept.append(value)
    return tuple(kept)


def _parts(value: Value) -> tuple[Part, ...]:
    match value:
        case Pattern(parts=parts):
            return parts
        case Field(label=label, loop=loop):
            return (Hole(label, loop=loop),)
        case Clock():
            return (Hole("time"),)
        case Constant(value=constant):
            return (str(constant),)
        case Unknown(loop=loop):
            return (Hole(from_event=False, loop=loop),)
    return (UNKNOWN_HOLE,)


def _joined(alternatives: list[Values]) -> Iterable[Value]:
    """The texts in a row, for each choice of alternatives."""
    count = 1
    for values in alternatives:
        count *= len(values)
    if count > _MANY:
        return [pattern_of(part for values in alternatives for part in _one_of(values))]
    return [pattern_of(part for value in choice for part in _parts(value)) for choice in product(*alternatives)]


def _one_of(values: Values) -> tuple[Part, ...]:
    if len(values) == 1:
        return _parts(values[0])
    return (Hole(from_event=all(isinstance(value, Field) for value in values)),)


def _without_stand_ins(values: list[Value]) -> list[Value]:
    """Without what only stands for a value that is missing: None, empty texts, and literals beside values of events."""
    present: list[Value] = [value for value in values if not isinstance(value, Constant) and value != Pattern(())]
    open_ones: list[Value] = [value for value in present if not (isinstance(value, Pattern) and value.is_constant)]
    return open_ones or present or values


def _combined(operator: ast.operator, left: Value, right: Value) -> Value:
    match left, right:
        case Constant(value=int() | float() as one), Constant(value=int() | float() as two):
            return _calculated(operator, one, two)
        case (Clock(offset_s=offset), Constant(value=int() | float() as seconds)) if offset is not None:
            if isinstance(operator, ast.Add | ast.Sub):
                return Clock(offset + seconds if isinstance(operator, ast.Add) else offset - seconds)
        case (Constant(value=int() | float() as seconds), Clock(offset_s=offset)) if offset is not None:
            if isinstance(operator, ast.Add):
                return Clock(offset + seconds)
        case _:
            pass
    if isinstance(left, Clock) or isinstance(right, Clock):
        return Clock(None) if isinstance(operator, ast.Add | ast.Sub) else Unknown()
    if isinstance(operator, ast.Add) and (isinstance(left, Pattern | Field) or isinstance(right, Pattern | Field)):
        return pattern_of((*_parts(left), *_parts(right)))
    return Unknown()


def _calculated(operator: ast.operator, one: float, two: float) -> Value:
    how = _ARITHMETIC.get(type(operator))
    try:
        return Constant(how(one, two)) if how is not None else Unknown()
    except (ArithmeticError, ValueError):
        return Unknown()


def _negated(value: Value) -> Value:
    if isinstance(value, Constant) and isinstance(value.value, int | float):
        return Constant(-value.value)
    return Unknown()


def _converted(target: str, value: Value) -> Value:
    if isinstance(value, Field | Clock):
        return value
    if target == "str":
        return pattern_of(_parts(value))
    return value if isinstance(value, Constant) else Unknown()


def _inside(value: Value, key: ast.expr) -> Value:
    """An element of a value."""
    literal = str(key.value) if isinstance(key, ast.Constant) else ""
    if isinstance(value, Event):
        return Field(literal)
    if isinstance(value, Field):
        return Field(f"{value.label}.{literal}" if value.label and literal else "", value.loop)
    return Unknown()


def _each(value: Value, loop: int) -> Value:
    """What a loop's variable is."""
    if isinstance(value, Field):
        return Field(f"{value.label}[]" if value.label else "", loop)
    return Field("", loop) if isinstance(value, Items) and Unknown() not in value.elements else Unknown(loop)


def _label(method: str, arguments: list[ast.expr]) -> str:
    """The path of a field, of which get() names one key and the others several."""
    names = arguments[:1] if method == "get" else arguments
    texts = [name.value for name in names if isinstance(name, ast.Constant) and isinstance(name.value, str)]
    return ".".join(texts) if len(texts) == len(names) else ""


def _braces(template: Pattern) -> list[str | None] | None:
    """The template of str.format(); None where it is not plain."""
    if not template.is_constant:
        return None
    made: list[str | None] = []
    try:
        for literal, name, _, _ in string.Formatter().parse(template.literal):
            if name:
                return None
            made += [literal] if name is None else [literal, None]
    except ValueError:
        return None
    return made


def _percent(template: Pattern) -> list[str | None] | None:
    """The template of the % operator; None where it is not plain."""
    if not template.is_constant:
        return None
    texts = template.literal.replace("%d", "%s").split("%s")
    if any("%" in text for text in texts):
        return None
    made: list[str | None] = [texts[0]]
    for text in texts[1:]:
        made += [None, text]
    return made


def entry_bindings(function: ast.FunctionDef) -> dict[str, Values]:
    """The parameters of a function that the engine calls: the first is the event."""
    names = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
    return {name: EVENT if number == 0 else UNKNOWN for number, name in enumerate(names)}
