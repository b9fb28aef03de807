"""What expressions can come to, and what must then hold of the event.

An expression has several outcomes: (facts that hold where it comes to this, what it comes to). Outcomes that are left out
cannot happen: the expression raises, which is no match, or whoever catches it goes by what held before.
"""

from __future__ import annotations

import ast
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from rules.guards.facts import ABSENT, ALWAYS, NEVER, Facts, both, either, one_of, values_at, without
from rules.guards.values import (
    ALL,
    ANY,
    FALSE,
    PLAIN,
    TRUE,
    UNKNOWN,
    Abstract,
    Constant,
    Event,
    Field,
    Table,
    elements_of,
    in_order,
    is_atom,
    is_data,
)
from rules.guards.world import Code, World

Env = dict[str, Abstract]
"""Local name -> what it holds. May be weakened in place, by whoever looks at an expression; else a copy is made."""

Outcome = tuple[Facts, Abstract]
Outcomes = list[Outcome]

_MAX_COMBINATIONS = 12
_MAX_UNROLLED = 64
_MAX_STEPS = 20_000
_GLOBAL = "global "
"""Before the name of a global that the function itself has set, in its Env."""


class TooLong(Exception):
    """The rule has more ways through it than are gone."""


@dataclass(frozen=True, slots=True, eq=False)
class Lambda(Abstract):
    """A lambda expression, where it stands."""

    node: ast.Lambda
    env: Env

    @property
    def is_plain(self) -> bool:
        return False


@dataclass(slots=True, eq=False)
class Frame:
    """One call of a function."""

    code: Code
    node: ast.FunctionDef
    local_names: frozenset[str]
    global_names: frozenset[str]
    """Those that it declares global."""
    returns: Outcomes
    depth: int
    repeated: int = 0
    """How many loops and `try` stand around the statement in hand."""


def joined(outcomes: Iterable[Outcome]) -> Outcomes:
    """Outcomes of which the same is known, as one."""
    outcomes = list(outcomes)
    if len(outcomes) == 1 and outcomes[0][0] != NEVER:
        return outcomes
    found: dict[object, Outcome] = {}
    for facts, value in outcomes:
        if facts == NEVER:
            continue
        known = found.get(value.key)
        found[value.key] = (facts, value) if known is None else (either(known[0], facts), value)
    return list(found.values())


def weakest(outcomes: Sequence[Outcome]) -> Outcome:
    """One outcome that says of all of them what is true of each."""
    facts, value = outcomes[0]
    for more, other in outcomes[1:]:
        facts = either(facts, more)
        if other.key != value.key:
            value = PLAIN if value.is_plain and other.is_plain else UNKNOWN
    return facts, value


class Expressions(ABC):
    """Looks at expressions. Calls are left to its heir."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._steps_left = _MAX_STEPS

    @abstractmethod
    def unknown(self, node: ast.AST, env: Env, frame: Frame, facts: Facts, what: str) -> Outcomes:
        """Code that is not understood is run here."""

    @abstractmethod
    def call(self, node: ast.Call, env: Env, frame: Frame, facts: Facts) -> Outcomes:
        """What a call can come to."""

    def step(self) -> None:
        self._steps_left -= 1
        if self._steps_left < 0:
            raise TooLong

    # --- as a value ------------------------------------------------------------------------------------------------

    def value(self, node: ast.expr, env: Env, frame: Frame, facts: Facts) -> Outcomes:
        """What an expression can come to, where some facts hold before it."""
        self.step()
        match node:
            case ast.Constant(value=value):
                return [(facts, Constant(value) if is_data(value) else PLAIN)]
            case ast.Name(id=name):
                found = self.name(name, env, frame)
                return [] if found is None else [(facts, found)]
            case ast.Call():
                return joined(self.call(node, env, frame, facts))
            case ast.Compare() | ast.UnaryOp(op=ast.Not()):
                return self.as_bool(node, env, frame, facts)
            case ast.BoolOp():
                return self._bool_op(node, env, frame, facts)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                true, false = self.test(test, env, frame, facts)
                return joined([*self._where(body, env, frame, true), *self._where(orelse, env, frame, false)])
            case ast.Attribute(value=base, attr=name):
                return joined(
                    each for held, of in self.value(base, env, frame, facts)
                    for each in self.attribute(node, of, name, env, frame, held)
                )  # fmt: skip
            case ast.Subscript(value=base, slice=index):
                return joined(
                    each for held, (of, at) in self.each([base, index], env, frame, facts)
                    for each in self.item(node, of, at, env, frame, held)
                )  # fmt: skip
            case ast.NamedExpr(target=ast.Name(id=name), value=inner):
                return self._named(name, inner, env, frame, facts)
            case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
                return self._collection(node, elements, env, frame, facts)
            case ast.Dict(keys=keys, values=values):
                return self._dict(keys, values, env, frame, facts)
            case ast.Lambda():
                return [(facts, Lambda(node, env))]
            case ast.GeneratorExp():
                # It runs later, when names may hold something else.
                return self.unknown(node, env, frame, facts, "makes a generator")
            case ast.ListComp() | ast.SetComp() | ast.DictComp():
                return self.comprehension(node, env, frame, facts)
            case ast.BinOp(left=left, op=op, right=right):
                return joined(
                    each for held, (one, other) in self.each([left, right], env, frame, facts)
                    for each in self._binary(node, op, one, other, env, frame, held)
                )  # fmt: skip
            case ast.UnaryOp(operand=operand):
                return self._made_of(node, [operand], env, frame, facts)
            case ast.JoinedStr() | ast.FormattedValue() | ast.Slice():
                inner_nodes = [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr)]
                return self._made_of(node, inner_nodes, env, frame, facts)
        return self.unknown(node, env, frame, facts, "uses syntax that is not followed")

    def _where(self, node: ast.expr, env: Env, frame: Frame, facts: Facts) -> Outcomes:
        return [] if facts == NEVER else self.value(node, env, frame, facts)

    def each(
        self, nodes: Sequence[ast.expr], env: Env, frame: Frame, facts: Facts
    ) -> list[tuple[Facts, list[Abstract]]]:
        """What several expressions, one after the other, can come to."""
        found: list[tuple[Facts, list[Abstract]]] = [(facts, [])]
        for node in nodes:
            after = [
                (more, [*values, value]) for held, values in found for more, value in self.value(node, env, frame, held)
            ]
            if len(after) > _MAX_COMBINATIONS:
                columns = zip(*(values for _, values in after), strict=True)
                held = after[0][0]
                for more, _ in after[1:]:
                    held = either(held, more)
                after = [(held, [weakest([(ALWAYS, value) for value in column])[1] for column in columns])]
            found = after
        return found

    def _made_of(self, node: ast.AST, parts: Sequence[ast.expr], env: Env, frame: Frame, facts: Facts) -> Outcomes:
        """Of plain parts, new plain data."""
        outcomes: Outcomes = []
        for held, values in self.each(parts, env, frame, facts):
            if all(value.is_plain for value in values):
                outcomes.append((held, PLAIN))
            else:
                outcomes += self.unknown(node, env, frame, held, "computes with a value that is not known")
        return joined(outcomes)

    # --- names -----------------------------------------------------------------------------------------------------

    def name(self, name: str, env: Env, frame: Frame) -> Abstract | None:
        """What a name holds; None where to ask raises."""
        if name in frame.global_names:
            set_here = env.get(_GLOBAL + name)
            return self.world.name(frame.code, name) if set_here is None else set_here
        if name in env:
            return env[name]
        return None if name in frame.local_names else self.world.name(frame.code, name)

    def forget_globals(self, env: Env) -> None:
        """Some function may have set them again."""
        for name in [name for name in env if name.startswith(_GLOBAL)]:
            del env[name]

    def set_name(self, name: str, value: Abstract, env: Env, frame: Frame) -> Env:
        return {**env, (_GLOBAL + name if name in frame.global_names else name): value}

    def _named(self, name: str, node: ast.expr, env: Env, frame: Frame, facts: Facts) -> Outcomes:
        """`name := node`. Whether it comes to that depends on what stands around it, so little is known of the name."""
        outcomes = [(held, shared(value)) for held, value in self.value(node, env, frame, facts)]
        if frame.repeated and not all(value.is_plain for _, value in outcomes):
            outcomes = [
                each for held, _ in outcomes for each in self.unknown(node, env, frame, held, "keeps what is not known")
            ]
        first = name not in env and len(outcomes) == 1 and isinstance(outcomes[0][1], Field | Event)
        if first and name not in frame.global_names and not carries_mutable(outcomes[0][1]):
            env[name] = outcomes[0][1]
        else:
            env[name] = UNKNOWN
            self.forget_globals(env)
        return outcomes

    # --- as a condition ----------------------------------------------------------------------------------------------

    def as_bool(self, node: ast.expr, env: Env, frame: Frame, facts: Facts) -> Outcomes:
        """An expression that gives True or False."""
        true, false = self.test(node, env, frame, facts)
        return joined([(true, TRUE), (false, FALSE)])

    def test(self, node: ast.expr, env: Env, frame: Frame, facts: Facts) -> tuple[Facts, Facts]:
        """What holds where an expression is true, and where it is false."""
        self.step()
        match node:
            case ast.BoolOp(op=op, values=parts):
                going, done = facts, NEVER
                for part in parts:
                    if going == NEVER:
                        break
                    true, false = self.test(part, env, frame, going)
                    going, ended = (true, false) if isinstance(op, ast.And) else (false, true)
                    done = either(done, ended)
                return (going, done) if isinstance(op, ast.And) else (done, going)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                true, false = self.test(operand, env, frame, facts)
                return false, true
            case ast.Compare():
                return self._compare(node, env, frame, facts)
        true, false = NEVER, NEVER
        for held, value in self.value(node, env, frame, facts):
            if_true, if_false = self.truth(node, value, env, frame, held)
            true, false = either(true, if_true), either(false, if_false)
        return true, false

    def truth(self, node: ast.AST, value: Abstract, env: Env, frame: Frame, facts: Facts) -> tuple[Facts, Facts]:
        """What holds where a value is taken for true, and where for false."""
        match value:
            case Constant(value=known, is_data=True):
                return (facts, NEVER) if known else (NEVER, facts)
            case Constant(value=known) if _is_always_true(known):
                return facts, NEVER
            case Field(path=path):
                named = {raw: value.seen(raw) for raw in values_at(facts, path)}
                raising = [raw for raw, seen in named.items() if seen is ABSENT]
                falsy = [raw for raw, seen in named.items() if seen is not ABSENT and not seen]
                truthy = [raw for raw, seen in named.items() if seen is not ABSENT and seen]
                return without(facts, path, falsy + raising), without(facts, path, truthy + raising)
        if value.is_plain or isinstance(value, Lambda):
            return facts, facts
        left = self.unknown(node, env, frame, facts, "asks whether a value is true that is not known")
        held = left[0][0] if left else NEVER
        return held, held

    def _bool_op(self, node: ast.BoolOp, env: Env, frame: Frame, facts: Facts) -> Outcomes:
        """`and`, `or`, as the value that they give."""
        outcomes: Outcomes = []
        going = facts
        for part in node.values[:-1]:
            after = NEVER
            for held, found in self._where(part, env, frame, going):
                true, false = self.truth(part, found, env, frame, held)
                on, done = (true, false) if isinstance(node.op, ast.And) else (false, true)
                outcomes.append((done, found))
                after = either(after, on)
            going = after
        return joined([*outcomes, *self._where(node.values[-1], env, frame, going)])

    # --- comparisons -------------------------------------------------------------------------------------------------

    def _compare(self, node: ast.Compare, env: Env, frame: Frame, facts: Facts) -> tuple[Facts, Facts]:
        """a < b < c is a < b and b < c, each looked at once."""
        true, false = NEVER, NEVER
        going = [(held, left) for held, left in self.value(node.left, env, frame, facts)]
        for op, comparator in zip(node.ops, node.comparators, strict=True):
            after: Outcomes = []
            for held, left in going:
                for more, right in self.value(comparator, env, frame, held):
                    if_true, if_false = self._compared(node, op, left, right, env, frame, more)
                    after.append((if_true, right))
                    false = either(false, if_false)
            going = joined(after)
        for held, _ in going:
            true = either(true, held)
        return true, false

    def _compared(
        self, node: ast.AST, op: ast.cmpop, left: Abstract, right: Abstract, env: Env, frame: Frame, facts: Facts
    ) -> tuple[Facts, Facts]:
        match op:
            case ast.NotEq():
                true, false = self._compared(node, ast.Eq(), left, right, env, frame, facts)
                return false, true
            case ast.NotIn():
                true, false = self._compared(node, ast.In(), left, right, env, frame, facts)
                return false, true
            case ast.IsNot():
                true, false = self._compared(node, ast.Is(), left, right, env, frame, facts)
                return false, true
            case ast.Is():
                return _identical(left, right, facts)
        if not (left.is_plain and right.is_plain):
            gone = self.unknown(node, env, frame, facts, "compares a value that is not known")
            held = gone[0][0] if gone else NEVER
            return held, held
        if isinstance(left, Constant) and isinstance(right, Constant):
            return _decided(lambda: _COMPARE[type(op)](left.value, right.value), facts)
        match op:
            case ast.Eq():
                return _equal(left, right, facts)
            case ast.In():
                return _member(left, right, facts)
        return facts, facts

    # --- parts -------------------------------------------------------------------------------------------------------

    def attribute(self, node: ast.AST, base: Abstract, name: str, env: Env, frame: Frame, facts: Facts) -> Outcomes:
        match base:
            case Constant(value=ModuleType() as module, is_data=False):
                return [(facts, self.world.attribute(module, name))]
        if base.is_plain and not name.startswith("_"):
            return [(facts, UNKNOWN)]  # a method, most likely
        return self.unknown(node, env, frame, facts, f"looks at .{name} of what is not known")

    def item(self, node: ast.AST, base: Abstract, index: Abstract, env: Env, frame: Frame, facts: Facts) -> Outcomes:
        """base[index]"""
        match base, index:
            case ((Event() | Field()), Constant(value=str(key))):
                return self.inner(base, (key,), None, facts)
            case Constant(value=known, is_data=True), Constant(value=at, is_data=True):
                try:
                    found = known[at]
                except Exception:
                    return []
                return [(facts, Constant(found, is_shared=base.is_shared))]
            case (Constant(value=dict(), is_data=True) | Table()), Field():
                return self.looked_up(base, index, None, facts)
        if base.is_plain and index.is_plain:
            return [(facts, PLAIN)]
        return self.unknown(node, env, frame, facts, "looks into what is not known")

    def inner(
        self,
        base: Event | Field,
        keys: tuple[str, ...],
        default: Constant | None,
        facts: Facts,
        *,
        nulls_too: bool = False,
    ) -> Outcomes:
        """What stands at some keys below the event or a field; the default where there is nothing."""
        if isinstance(base, Event):
            if keys[0].lower().startswith("p_"):
                return [(facts, PLAIN)]
            return [(facts, Field(keys, default, nulls_too))]
        outcomes: Outcomes = [(facts, Field((*base.path, *keys), default, nulls_too))]
        if base.default is not None and type(base.default.value) is dict and base.default.value:
            outcomes.append((self.absent(base, facts), PLAIN))
        return outcomes

    def absent(self, field: Field, facts: Facts) -> Facts:
        """What holds where a field is its default."""
        return both(facts, one_of(field.path, [ABSENT, None] if field.nulls_too else [ABSENT]))

    def looked_up(self, known: Constant | Table, field: Field, default: Abstract | None, facts: Facts) -> Outcomes:
        """What a known dict holds under a field's value; without a default, what it does not hold raises."""
        if isinstance(known, Table):
            rows = known.rows
        else:
            rows = {key: Constant(value, is_shared=known.is_shared) for key, value in known.value.items()}
        if len(rows) > _MAX_UNROLLED:
            return [(facts, PLAIN if known.is_plain and (default is None or default.is_plain) else UNKNOWN)]
        outcomes: Outcomes = [
            (both(facts, one_of(field.path, field.raw_values([key]))), value) for key, value in rows.items()
        ]
        if default is not None:
            outcomes.append((without(facts, field.path, field.raw_values(rows)), default))
        return joined(outcomes)

    # --- collections -------------------------------------------------------------------------------------------------

    def _collection(
        self, node: ast.Tuple | ast.List | ast.Set, elements: Sequence[ast.expr], env: Env, frame: Frame, facts: Facts
    ) -> Outcomes:
        if any(isinstance(each, ast.Starred) for each in elements):
            inner = [each.value if isinstance(each, ast.Starred) else each for each in elements]
            return self._made_of(node, inner, env, frame, facts)
        make: Callable[[Iterable[Any]], Any] = {ast.Tuple: tuple, ast.List: list, ast.Set: set}[type(node)]
        outcomes: Outcomes = []
        for held, values in self.each(elements, env, frame, facts):
            if all(isinstance(value, Constant) and _can_be_copied(value) for value in values):
                try:
                    made = make(value.value for value in values)  # type: ignore[attr-defined]
                except TypeError:
                    continue  # what cannot be hashed
                outcomes.append((held, Constant(made, is_data(made), is_shared=type(made) is tuple)))
            else:
                outcomes.append((held, PLAIN if all(value.is_plain for value in values) else UNKNOWN))
        return joined(outcomes)

    def _dict(
        self, keys: Sequence[ast.expr | None], values: Sequence[ast.expr], env: Env, frame: Frame, facts: Facts
    ) -> Outcomes:
        in_turn = [part for pair in zip(keys, values, strict=True) for part in pair if part is not None]
        outcomes: Outcomes = []
        for held, parts in self.each(in_turn, env, frame, facts):
            pairs = list(zip(parts[::2], parts[1::2], strict=False)) if None not in keys else None
            if pairs is not None and all(isinstance(part, Constant) and _can_be_copied(part) for part in parts):
                try:
                    made = {key.value: value.value for key, value in pairs}  # type: ignore[attr-defined]
                except TypeError:
                    continue
                outcomes.append((held, Constant(made, is_data(made), is_shared=False)))
            elif pairs is not None and all(isinstance(key, Constant) and is_atom(key.value) for key, _ in pairs):
                outcomes.append((held, Table({key.value: _kept(value) for key, value in pairs})))  # type: ignore[attr-defined]
            else:
                outcomes.append((held, PLAIN if all(part.is_plain for part in parts) else UNKNOWN))
        return joined(outcomes)

    def comprehension(
        self,
        node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp,
        env: Env,
        frame: Frame,
        facts: Facts,
    ) -> Outcomes:
        """One that is gone through at once."""
        if any(isinstance(each, ast.NamedExpr | ast.Lambda) for each in ast.walk(node)):
            return self.unknown(node, env, frame, facts, "uses syntax that is not followed")
        inner, inside, after = dict(env), facts, facts
        for number, generator in enumerate(node.generators):
            outcomes = self.value(generator.iter, inner, frame, inside)
            if not outcomes:
                return [] if number == 0 else [(after, PLAIN)]
            inside, over = weakest(outcomes)
            after = inside if number == 0 else after
            if not over.is_plain:
                left = self.unknown(node, env, frame, inside, "goes through what is not known")
                if not left:
                    return []
            element = PLAIN if over.is_plain else UNKNOWN
            inner.update({each.id: element for each in ast.walk(generator.target) if isinstance(each, ast.Name)})
            for condition in generator.ifs:
                inside, _ = self.test(condition, inner, frame, inside)
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        made = self.each(parts, inner, frame, inside) if inside != NEVER else []
        plain = all(value.is_plain for _, values in made for value in values)
        self.forget_globals(env)
        return [(after, PLAIN if plain else UNKNOWN)]

    def _binary(
        self, node: ast.AST, op: ast.operator, one: Abstract, other: Abstract, env: Env, frame: Frame, facts: Facts
    ) -> Outcomes:
        compute = _COMPUTE.get(type(op))
        if isinstance(one, Constant) and isinstance(other, Constant) and one.is_data and other.is_data and compute:
            try:
                made = compute(one.value, other.value)
            except Exception:
                return []
            return [(facts, Constant(made, is_shared=is_atom(made) or type(made) is tuple))]
        if one.is_plain and other.is_plain:
            return [(facts, PLAIN)]
        return self.unknown(node, env, frame, facts, "computes with a value that is not known")

    # --- any() and all() ---------------------------------------------------------------------------------------------

    def quantified(
        self, function: Any, argument: ast.expr, env: Env, frame: Frame, facts: Facts
    ) -> tuple[Facts, Facts] | None:
        """any() or all() of what is written out, or made of the elements of a constant; None for any other argument."""
        op: ast.boolop = ast.Or() if function is ANY else ast.And()
        assert function is ANY or function is ALL
        match argument:
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                if not elements or any(isinstance(each, ast.Starred) for each in elements):
                    return None
                for element in elements:  # all are looked at, whatever they come to
                    if not self.value(element, env, frame, facts):
                        return NEVER, NEVER
                return self.test(ast.BoolOp(op, list(elements)), env, frame, facts)
            case ast.GeneratorExp(
                elt=element,
                generators=[ast.comprehension(target=ast.Name(id=name), iter=over, ifs=ifs, is_async=0)],
            ) if not any(isinstance(each, ast.NamedExpr | ast.Lambda) for each in ast.walk(argument)):
                outcomes = self.value(over, env, frame, facts)
                if len(outcomes) != 1 or (function is ALL and ifs):
                    return None
                held, container = outcomes[0]
                elements_known = in_order(container)
                if elements_known is None or len(elements_known) > _MAX_UNROLLED:
                    return None
                asked = ast.BoolOp(ast.And(), [*ifs, element]) if ifs else element
                shared = isinstance(container, Constant) and container.is_shared
                going, done = held, NEVER
                for known in elements_known:
                    inner = {**env, name: Constant(known, is_shared=shared)}
                    true, false = self.test(asked, inner, frame, going)
                    going, ended = (false, true) if function is ANY else (true, false)
                    done = either(done, ended)
                self.forget_globals(env)
                return (done, going) if function is ANY else (going, done)
        return None


def _is_always_true(value: Any) -> bool:
    return isinstance(value, FunctionType | BuiltinFunctionType | ModuleType) or type(value) is type


def carries_mutable(value: Abstract) -> bool:
    """Whether a value may be a container that the function has made and can change."""
    if isinstance(value, Table):
        return True
    if isinstance(value, Field):
        return value.default is not None and carries_mutable(value.default)
    return isinstance(value, Constant) and not value.is_shared and not is_atom(value.value)


def _kept(value: Abstract) -> Abstract:
    """What may be known of a value that a collection holds: others may get at it there."""
    if isinstance(value, Lambda) or not value.is_plain:
        return UNKNOWN
    return PLAIN if carries_mutable(value) else value


def shared(value: Abstract) -> Abstract:
    """What may be known of a value that stands in two places: what is changed in one of them is so in the other."""
    if not carries_mutable(value):
        return value
    return PLAIN if value.is_plain else UNKNOWN


def _can_be_copied(value: Constant) -> bool:
    """Whether a collection that holds it may be taken for one that holds a copy."""
    return is_atom(value.value) or not value.is_data or value.is_shared


def _decided(compute: Callable[[], Any], facts: Facts) -> tuple[Facts, Facts]:
    try:
        return (facts, NEVER) if compute() else (NEVER, facts)
    except Exception:
        return NEVER, NEVER


def _equal(left: Abstract, right: Abstract, facts: Facts) -> tuple[Facts, Facts]:
    if isinstance(right, Field):
        left, right = right, left
    match left, right:
        case Field(), Constant(value=wanted) if is_atom(wanted):
            raw = left.raw_values([wanted])
            return both(facts, one_of(left.path, raw)), without(facts, left.path, raw)
    return facts, facts


def _member(left: Abstract, right: Abstract, facts: Facts) -> tuple[Facts, Facts]:
    match left, right:
        case Field(), Constant(value=container):
            elements = elements_of(container)
            if elements is None:
                return facts, facts
            if not all(map(is_atom, elements)):
                return facts, facts
            raw = left.raw_values(elements)
            return both(facts, one_of(left.path, raw)), without(facts, left.path, raw)
        case Constant(value=str(key)), Event() if not key.lower().startswith("p_"):
            return without(facts, (key,), [ABSENT]), both(facts, one_of((key,), [ABSENT]))
    return facts, facts


_SINGLETONS = (None, True, False)


def _identical(left: Abstract, right: Abstract, facts: Facts) -> tuple[Facts, Facts]:
    """`is`, which runs no code."""
    if isinstance(right, Field):
        left, right = right, left
    match left, right:
        case Field(), Constant(value=wanted) if any(wanted is each for each in _SINGLETONS):
            raw = left.raw_values([wanted])
            without_it = without(facts, left.path, raw) if wanted is None else facts  # 1 equals True, and is not it
            return both(facts, one_of(left.path, raw)), without_it
        case Constant(value=one), Constant(value=other) if any(one is each or other is each for each in _SINGLETONS):
            return (facts, NEVER) if one is other else (NEVER, facts)
        case Event(), Constant():
            return NEVER, facts
    return facts, facts


_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.In: lambda one, other: one in other,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}

_COMPUTE: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
}
"""What cannot grow out of hand, as a power or a product could."""
