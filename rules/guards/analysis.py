"""The analysis of a rule: what must hold of an event for rule() to return True, or to reach a caching helper.

The functions are gone through statement by statement, with all ways through them at once: what holds on the way, and what
is known of each local name there. Facts are of the raw event, which nothing changes, so they hold from where they are
learned until the end. A way ends where rule() returns; where it may have returned True, what held there is one of the ways to
match. Code that is not understood might do anything, so a way ends there too, as one that counts. What holds on all the
ways that count is the guard. (DESIGN 7 and 11.19, PANTHER_FORMAT 4.)
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

from rules.datamodels import MethodMapping, PathMapping
from rules.errors import SourceLocation
from rules.guards.expressions import (
    Env,
    Expressions,
    Frame,
    Lambda,
    Outcomes,
    TooLong,
    carries_mutable,
    joined,
    shared,
    weakest,
)
from rules.guards.facts import ALWAYS, NEVER, Facts, both, either, one_of
from rules.guards.values import (
    ALL,
    ANY,
    BOOL,
    CHANGING_METHODS,
    FALSE,
    FOLDED,
    FOLDED_METHODS,
    HARMLESS,
    ISINSTANCE,
    NONE,
    ORDERLESS,
    PLAIN,
    READING,
    REDUCE,
    TRUE,
    UNKNOWN,
    Abstract,
    Constant,
    Event,
    Field,
    Table,
    elements_of,
    has_order,
    in_order,
    is_atom,
    is_data,
    is_instance_of,
    is_simple_kind,
)
from rules.guards.world import Code, World
from rules.helpers import CACHING

_MAX_DEPTH = 8
_MAX_WAYS = 48
_MAX_UNROLLED = 12
_MAX_FOLDED = 4096

Way = tuple[Facts, Env]
"""What holds on one way through a function so far, and what its names hold."""

_HELPERS = {id(function) for function in CACHING.values()}


@dataclass(frozen=True, slots=True)
class Finding:
    """What the analysis came to."""

    facts: Facts
    reason: str
    """Why nothing must hold; empty where something must."""
    place: SourceLocation | None = None
    """Where that shows."""


NEVER_TRUE = "it seems never to return True"
_NOTHING_IN_COMMON = "its ways to match have no condition in common that can be looked up"


class _Unguarded(Exception):
    """Nothing needs to hold: the arguments say why and where."""


def analyse(world: World, function: Any) -> Finding:
    """What must hold of a raw event for a rule's function to return True or to reach a caching helper."""
    followed = world.follow(function) if world.can_be_followed else None
    if followed is None:
        return Finding(ALWAYS, "rule() is not defined by a plain `def` of the pack")
    place = SourceLocation(followed.code.source.path, followed.node.lineno)
    try:
        needed = _Walk(world).needed(followed.node, followed.code)
    except _Unguarded as unguarded:
        return Finding(ALWAYS, *unguarded.args)
    except TooLong:
        return Finding(ALWAYS, "there are too many ways through it to follow", place)
    except RecursionError:
        return Finding(ALWAYS, "it is nested too deep to follow", place)
    if needed == NEVER:  # to leave it out would hide the errors of a rule that cannot be right
        return Finding(ALWAYS, NEVER_TRUE, place)
    return Finding(needed, "")


class _Walk(Expressions):
    """Goes through one rule."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._needed = NEVER
        self._running: list[ast.FunctionDef] = []

    def needed(self, node: ast.FunctionDef, code: Code) -> Facts:
        arguments = node.args
        plain = len(arguments.posonlyargs + arguments.args) == 1 and not (
            arguments.vararg or arguments.kwonlyargs or arguments.kwarg
        )
        if not plain:
            raise _Unguarded("rule() takes more than the event", SourceLocation(code.source.path, node.lineno))
        (event,) = arguments.posonlyargs + arguments.args
        self._block(node.body, [(ALWAYS, {event.arg: Event()})], self._frame(node, code, 0))
        return self._needed

    @staticmethod
    def _frame(node: ast.FunctionDef, code: Code, depth: int) -> Frame:
        names = _names_of(node)
        return Frame(code, node, names.local, names.declared_global, [], depth)

    def unknown(self, node: ast.AST, env: Env, frame: Frame, facts: Facts, what: str) -> Outcomes:
        if self.world.is_strict:
            self._end_at(node, frame, facts, what)
            return []
        self.forget_globals(env)
        return [(facts, UNKNOWN)]

    def _end_at(self, node: ast.AST, frame: Frame, facts: Facts, what: str) -> None:
        """A way ends here, and may be one to a match."""
        if facts == NEVER:
            return
        place = SourceLocation(frame.code.source.path, getattr(node, "lineno", frame.node.lineno))
        if not facts:
            raise _Unguarded(f"it {what} before it has compared a field with constants", place)
        self._needed = either(self._needed, facts)
        if not self._needed:
            raise _Unguarded(_NOTHING_IN_COMMON, place)

    # --- statements --------------------------------------------------------------------------------------------------

    def _block(self, body: Sequence[ast.stmt], ways: list[Way], frame: Frame) -> list[Way]:
        for statement in body:
            ways = _merged(after for way in ways for after in self._statement(statement, *way, frame))
            if not ways:
                break
        return ways

    def _statement(self, statement: ast.stmt, facts: Facts, env: Env, frame: Frame) -> list[Way]:
        """The ways on from a statement that is reached with these facts."""
        self.step()
        if facts == NEVER:
            return []
        match statement:
            case ast.Pass() | ast.Global():
                return [(facts, env)]
            case ast.Continue() | ast.Break():
                return []  # what comes after a loop goes by what held before it
            case ast.Expr(value=value):
                return self._after(self.value(value, env, frame, facts), env)
            case ast.Return(value=None):
                frame.returns.append((facts, NONE))
                return []
            case ast.Return(value=ast.expr() as value):
                returned = self.value(value, env, frame, facts)
                if frame.depth > 0:
                    frame.returns[:] = joined([*frame.returns, *returned])
                    return []
                for held, verdict in returned:
                    what = "returns True" if isinstance(verdict, Constant) else "returns what is not known"
                    self._end_at(statement, frame, _where_true(verdict, held), what)
                return []
            case ast.Raise(exc=error, cause=cause):
                for each in (error, cause):
                    if each is not None:
                        self.value(each, env, frame, facts)
                return []
            case ast.Assert(test=test, msg=message):
                self.test(test, env, frame, facts)  # nothing is learned: with -O it is not executed
                if message is not None:
                    self.value(message, env, frame, facts)
                return [(facts, env)]
            case ast.Assign(targets=targets, value=value):
                return self._assign(targets, value, facts, env, frame)
            case ast.AnnAssign(target=target, value=value):
                return [(facts, env)] if value is None else self._assign([target], value, facts, env, frame)
            case ast.AugAssign(target=target, value=value):
                return self._augment(statement, target, value, facts, env, frame)
            case ast.If(test=test, body=body, orelse=orelse):
                true, false = self.test(test, env, frame, facts)
                return [*self._block(body, [(true, env)], frame), *self._block(orelse, [(false, env)], frame)]
            case ast.For(target=target, iter=over, body=body, orelse=orelse):
                return self._for(statement, target, over, body, orelse, facts, env, frame)
            case ast.While(test=test, body=body, orelse=orelse):
                known = self._widened(env, statement, frame)
                frame.repeated += 1
                true, false = self.test(test, known, frame, facts)
                self._block(body, [(true, known)], frame)
                frame.repeated -= 1
                return self._block(orelse, [(facts, known)], frame) if orelse else [(facts, known)]
            case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=[]):
                return self._try(statement, body, handlers, orelse, facts, env, frame)
            case ast.FunctionDef(name=name, decorator_list=[], args=arguments) if not frame.repeated:
                defaults = [*arguments.defaults, *(each for each in arguments.kw_defaults if each is not None)]
                return [
                    (held, self.set_name(name, UNKNOWN, env, frame))
                    for held, _ in self.each(defaults, env, frame, facts)
                ]
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                for held, _ in self.unknown(statement, env, frame, facts, "imports"):
                    known = dict(env)
                    for alias in aliases:
                        known = self.set_name((alias.asname or alias.name).partition(".")[0], UNKNOWN, known, frame)
                    return [(held, known)]
                return []
            case ast.Delete(targets=targets) if all(isinstance(each, ast.Name) for each in targets):
                gone = {each.id for each in targets if isinstance(each, ast.Name)}
                self.forget_globals(env)
                return [(facts, {name: value for name, value in env.items() if name not in gone})]
        self._end_at(statement, frame, facts, "uses syntax that is not followed")
        return []

    @staticmethod
    def _after(outcomes: Outcomes, env: Env) -> list[Way]:
        return [(weakest(outcomes)[0], env)] if outcomes else []

    def _for(
        self, statement: ast.For, target: ast.expr, over: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt],
        facts: Facts, env: Env, frame: Frame,
    ) -> list[Way]:  # fmt: skip
        outcomes = self.value(over, env, frame, facts)
        if not outcomes:
            return []
        if len(outcomes) == 1 and not orelse and not _leaves_loop(body):
            held, container = outcomes[0]
            known = in_order(container)
            if known is not None and len(known) <= _MAX_UNROLLED:
                ways: list[Way] = [(held, env)]
                for each in known:
                    value = Constant(each, is_shared=container.is_shared)  # type: ignore[attr-defined]
                    ways = _merged(
                        after for more, inner in ways
                        for after in self._store(target, value, more, inner, frame)
                    )  # fmt: skip
                    ways = self._block(body, ways, frame)
                return ways
        facts, container = weakest(outcomes)
        element: Abstract = PLAIN if container.is_plain else UNKNOWN
        if not container.is_plain and not self.unknown(over, env, frame, facts, "goes through what is not known"):
            return []
        known_names = self._widened(env, statement, frame)
        frame.repeated += 1
        self._block(body, self._store(target, element, facts, known_names, frame), frame)
        frame.repeated -= 1
        return self._block(orelse, [(facts, known_names)], frame) if orelse else [(facts, known_names)]

    def _widened(self, env: Env, statement: ast.stmt, frame: Frame) -> Env:
        """The names, where a statement may have set some of them any number of times."""
        self.forget_globals(env)
        known = dict(env)
        for name in _stored_in(statement) & frame.local_names:
            # Where it matters, what is not plain is refused inside of it.
            plain = self.world.is_strict and (name not in env or env[name].is_plain)
            known[name] = PLAIN if plain else UNKNOWN
        return known

    def _try(
        self, statement: ast.Try, body: list[ast.stmt], handlers: list[ast.ExceptHandler], orelse: list[ast.stmt],
        facts: Facts, env: Env, frame: Frame,
    ) -> list[Way]:  # fmt: skip
        interrupted = self._widened(env, statement, frame)
        frame.repeated += 1
        ways = self._block(body, [(facts, env)], frame)
        frame.repeated -= 1
        ways = self._block(orelse, ways, frame) if ways else []
        self.forget_globals(interrupted)
        for handler in handlers:
            caught = {**interrupted, handler.name: UNKNOWN} if handler.name else dict(interrupted)
            if handler.type is None:
                entries = [(facts, caught)]
            else:
                entries = self._after(self.value(handler.type, caught, frame, facts), caught)
            for held, inner in self._block(handler.body, entries, frame):
                ways.append((held, {name: value for name, value in inner.items() if name != handler.name}))
        return ways

    # --- assignments -------------------------------------------------------------------------------------------------

    def _assign(self, targets: Sequence[ast.expr], node: ast.expr, facts: Facts, env: Env, frame: Frame) -> list[Way]:
        ways: list[Way] = []
        for held, value in self.value(node, env, frame, facts):
            after: list[Way] = [(held, env)]
            if len(targets) > 1:
                value = shared(value)
            for target in targets:
                after = [each for more, known in after for each in self._store(target, value, more, known, frame)]
            ways += after
        return ways

    def _store(self, target: ast.expr, value: Abstract, facts: Facts, env: Env, frame: Frame) -> list[Way]:
        match target:
            case ast.Name(id=name):
                if frame.repeated and self.world.is_strict and not value.is_plain:
                    self._end_at(target, frame, facts, "keeps what is not known")
                    return []
                return [
                    (held, self.set_name(name, bound, env, frame))
                    for held, bound in self._bound(name, value, facts, frame)
                ]
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                return self._unpack(target, targets, value, facts, env, frame)
            case ast.Starred(value=inner):
                return self._store(inner, PLAIN if value.is_plain else UNKNOWN, facts, env, frame)
            case ast.Subscript(value=base, slice=index):
                ways = []
                for held, (holder, at) in self.each([base, index], env, frame, facts):
                    if not isinstance(holder, Constant | Field | Event | Table) and all(
                        each.is_plain for each in (holder, at, value)
                    ):
                        ways.append((held, env))
                    elif isinstance(holder, Constant | Field | Event | Table):
                        self._end_at(target, frame, held, "changes what it has from the event or its module")
                    else:
                        ways += self._after(self.unknown(target, env, frame, held, "changes what is not known"), env)
                return ways
            case ast.Attribute(value=base):
                ways = []
                for held, holder in self.value(base, env, frame, facts):
                    if holder.is_plain:
                        self._end_at(target, frame, held, "sets an attribute")
                    else:
                        ways += self._after(self.unknown(target, env, frame, held, "sets an attribute"), env)
                return ways
        self._end_at(target, frame, facts, "uses syntax that is not followed")
        return []

    def _unpack(
        self, node: ast.expr, targets: Sequence[ast.expr], value: Abstract, facts: Facts, env: Env, frame: Frame
    ) -> list[Way]:
        parts: list[Abstract] = [PLAIN if value.is_plain else UNKNOWN] * len(targets)
        if not value.is_plain:
            if not self.unknown(node, env, frame, facts, "unpacks what is not known"):
                return []
        elif isinstance(value, Constant) and type(value.value) in (tuple, list):
            one_each = len(value.value) == len(targets) and not any(isinstance(each, ast.Starred) for each in targets)
            if one_each:
                parts = [Constant(each, is_shared=value.is_shared) for each in value.value]
        ways: list[Way] = [(facts, env)]
        for target, part in zip(targets, parts, strict=True):
            ways = [after for held, known in ways for after in self._store(target, part, held, known, frame)]
        return ways

    def _bound(self, name: str, value: Abstract, facts: Facts, frame: Frame) -> Outcomes:
        """What may be known of a value under a name: of a container that the function may change, nothing."""
        if isinstance(value, Table):
            unchanged = self._only_looked_into(name, frame)
            return [(facts, value if unchanged else PLAIN if value.is_plain else UNKNOWN)]
        if not carries_mutable(value) or (_is_flat(value) and self._only_looked_into(name, frame)):
            return [(facts, value)]
        if isinstance(value, Field):
            present: Abstract = Field(value.path)
            return [(facts, present), (self.absent(value, facts), PLAIN)]
        return [(facts, PLAIN)]

    def _only_looked_into(self, name: str, frame: Frame) -> bool:
        """Whether nothing but plain reading is done to what a name holds."""
        names = _names_of(frame.node)
        if name in names.captured or name in frame.global_names:
            return False
        return all(self._only_reads(use, names.parents, frame) for use in names.loads.get(name, ()))

    def _only_reads(self, node: ast.AST, parents: dict[ast.AST, ast.AST], frame: Frame) -> bool:
        parent = parents.get(node)
        match parent:
            case ast.FormattedValue() | ast.If() | ast.While() | ast.Assert() | ast.Return():
                return True
            case ast.Compare(left=left, ops=ops):
                # What it is compared with otherwise might have its own ways.
                contains = all(isinstance(op, ast.In | ast.NotIn) for op in ops) and left is not node
                return contains or all(isinstance(op, ast.Is | ast.IsNot) for op in ops)
            case ast.UnaryOp(op=ast.Not()):
                return True
            case ast.IfExp(test=test) if test is node:
                return True
            case ast.BoolOp() | ast.IfExp():
                return self._only_reads(parent, parents, frame)
            case ast.For(iter=over) | ast.comprehension(iter=over) if over is node:
                return True
            case ast.Subscript(value=base, ctx=ast.Load()) if base is node:
                return True
            case ast.Attribute(attr=method, ctx=ast.Load()):
                call = parents.get(parent)
                called = isinstance(call, ast.Call) and call.func is parent
                return called and method not in CHANGING_METHODS and not method.startswith("_")
            case ast.Call(func=ast.Name(id=name), args=arguments) if node in arguments and not parent.keywords:
                found = None if name in frame.local_names else self.world.name(frame.code, name)
                return isinstance(found, Constant) and id(found.value) in READING
        return False

    def _augment(
        self, statement: ast.AugAssign, target: ast.expr, node: ast.expr, facts: Facts, env: Env, frame: Frame
    ) -> list[Way]:
        """target += node"""
        if not isinstance(target, ast.Name) or target.id in frame.global_names:
            ways = []
            for held, _ in self.value(node, env, frame, facts):
                ways += self._after(self.unknown(statement, env, frame, held, "changes what is not known"), env)
            return ways
        name, ways = target.id, []
        for held, value in self.value(node, env, frame, facts):
            before = self.name(name, env, frame)
            if before is None:
                return []
            if _may_be_container(before):
                self._end_at(statement, frame, held, "changes a container")
            elif before.is_plain and value.is_plain:
                ways.append((held, self.set_name(name, PLAIN, env, frame)))
            else:
                for more, _ in self.unknown(statement, env, frame, held, "computes with a value that is not known"):
                    ways.append((more, self.set_name(name, UNKNOWN, env, frame)))
        return ways

    # --- calls -------------------------------------------------------------------------------------------------------

    def test(self, node: ast.expr, env: Env, frame: Frame, facts: Facts) -> tuple[Facts, Facts]:
        match node:
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
                function = self.name(name, env, frame)
                if isinstance(function, Constant):
                    if function.value is BOOL:
                        return self.test(argument, env, frame, facts)
                    if function.value is ANY or function.value is ALL:
                        known = self.quantified(function.value, argument, env, frame, facts)
                        if known is not None:
                            return known
        return super().test(node, env, frame, facts)

    def call(self, node: ast.Call, env: Env, frame: Frame, facts: Facts) -> Outcomes:
        match node:
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
                function = self.name(name, env, frame)
                if isinstance(function, Constant):
                    if function.value is BOOL:
                        return self.as_bool(argument, env, frame, facts)
                    if function.value is ANY or function.value is ALL:
                        known = self.quantified(function.value, argument, env, frame, facts)
                        if known is not None:
                            return joined([(known[0], TRUE), (known[1], FALSE)])
            case ast.Call(func=ast.Attribute(value=base, attr=method)):
                return [
                    after
                    for held, receiver in self.value(base, env, frame, facts)
                    for after in self._method(node, receiver, method, env, frame, held)
                ]
        return [
            after
            for held, function in self.value(node.func, env, frame, facts)
            for after in self._called(node, function, env, frame, held)
        ]

    def _arguments(
        self, node: ast.Call, env: Env, frame: Frame, facts: Facts, *, at_once: bool = False
    ) -> list[tuple[Facts, _Arguments]]:
        """What a call's arguments can come to. `at_once`: whoever is called goes through generators and keeps nothing."""
        nodes: list[ast.expr] = [each.value if isinstance(each, ast.Starred) else each for each in node.args]
        nodes += [keyword.value for keyword in node.keywords]
        found: list[tuple[Facts, list[Abstract]]] = [(facts, [])]
        for each in nodes:
            if at_once and isinstance(each, ast.GeneratorExp):
                after = [
                    (more, [*values, value])
                    for held, values in found
                    for more, value in self.comprehension(each, env, frame, held)
                ]
            else:
                after = [
                    (more, [*values, *column])
                    for held, values in found
                    for more, column in self.each([each], env, frame, held)
                ]
            if len(after) > _MAX_UNROLLED:
                held = after[0][0]
                for more, _ in after[1:]:
                    held = either(held, more)
                columns = zip(*(values for _, values in after), strict=True)
                after = [(held, [weakest([(ALWAYS, value) for value in column])[1] for column in columns])]
            found = after
        return [(held, _Arguments.of(node, values)) for held, values in found]

    def _called(self, node: ast.Call, function: Abstract, env: Env, frame: Frame, facts: Facts) -> Outcomes:
        outcomes: Outcomes = []
        known = function.value if isinstance(function, Constant) else None
        harmless = known is ANY or known is ALL or (known is not None and HARMLESS.get(id(known)) is known)
        for held, given in self._arguments(node, env, frame, facts, at_once=harmless and not _is_lazy(known)):
            if harmless:
                outcomes += self._harmless(node, known, given, env, frame, held)
            elif known is ISINSTANCE and len(given.positional) == 2 and given.is_simple:
                outcomes += self._isinstance(node, given.positional, env, frame, held)
            elif known is REDUCE and given.is_simple and len(given.positional) == 3:
                outcomes += self._reduce(node, given.positional, env, frame, held)
            elif isinstance(function, Lambda):
                outcomes += self._lambda(node, function, given, env, frame, held)
            elif isinstance(function, Constant) and not function.is_data:
                outcomes += self._run(node, known, given, env, frame, held)
            else:
                outcomes += self._unknown_call(node, given, env, frame, held)
        return outcomes

    def _unknown_call(self, node: ast.Call, given: _Arguments, env: Env, frame: Frame, facts: Facts) -> Outcomes:
        return self.unknown(node, env, frame, facts, f"calls {_shown(node.func)}()")

    def _harmless(
        self, node: ast.Call, function: Any, given: _Arguments, env: Env, frame: Frame, facts: Facts
    ) -> Outcomes:
        if not given.all_plain:
            return self._unknown_call(node, given, env, frame, facts)
        constants = [each for each in given.positional if isinstance(each, Constant)]
        ordered = id(function) in ORDERLESS or all(map(has_order, constants))
        if id(function) in FOLDED and given.is_simple and len(constants) == len(given.positional) and ordered:
            values = [each.value for each in constants]
            if all(_size(value) <= _MAX_FOLDED for value in values):
                try:
                    made = function(*values)
                except Exception:
                    return []
                if is_data(made):
                    return [(facts, Constant(made, is_shared=is_atom(made) or type(made) is tuple))]
        return [(facts, PLAIN)]

    def _isinstance(self, node: ast.Call, given: Sequence[Abstract], env: Env, frame: Frame, facts: Facts) -> Outcomes:
        value, kinds = given
        if not value.is_plain or not isinstance(kinds, Constant) or not is_simple_kind(kinds.value):
            return self.unknown(node, env, frame, facts, "asks for a type that is not known")
        answer = is_instance_of(value, kinds.value)
        return [(facts, each) for each in (TRUE, FALSE) if answer is None or each.value is answer]

    def _reduce(self, node: ast.Call, given: Sequence[Abstract], env: Env, frame: Frame, facts: Facts) -> Outcomes:
        """functools.reduce(), as in helpers that go down a path of keys."""
        function, over, start = given
        known = in_order(over)
        if known is None or len(known) > _MAX_UNROLLED or not isinstance(function, Lambda):
            return self.unknown(node, env, frame, facts, "calls reduce()")
        outcomes: Outcomes = [(facts, start)]
        for element in known:
            outcomes = joined(
                after for held, value in outcomes
                for after in self._lambda(node, function, _Arguments([value, Constant(element)], {}), env, frame, held)
            )  # fmt: skip
        return outcomes

    def _lambda(
        self, node: ast.Call, function: Lambda, given: _Arguments, env: Env, frame: Frame, facts: Facts
    ) -> Outcomes:
        arguments = function.node.args
        names = [each.arg for each in arguments.args]
        simple = not (arguments.posonlyargs or arguments.vararg or arguments.kwonlyargs or arguments.kwarg)
        if not simple or arguments.defaults or not given.is_simple or len(given.positional) != len(names):
            return self._unknown_call(node, given, env, frame, facts)
        if any(isinstance(each, ast.NamedExpr | ast.Lambda) for each in ast.walk(function.node.body)):
            return self._unknown_call(node, given, env, frame, facts)
        if any(map(carries_mutable, given.positional)) or function.env is not env:
            # It sees its names as they are when it is called; here they are as when it was made.
            return self._unknown_call(node, given, env, frame, facts)
        inner = {**env, **dict(zip(names, given.positional, strict=True))}
        outcomes = self.value(function.node.body, inner, frame, facts)
        self.forget_globals(env)
        return outcomes

    def _run(self, node: ast.Call, function: Any, given: _Arguments, env: Env, frame: Frame, facts: Facts) -> Outcomes:
        """Go through a function of the pack with these arguments."""
        if id(function) in _HELPERS:
            return self.unknown(node, env, frame, facts, f"reaches state with {_shown(node.func)}()")
        if _is_plain_exception(function) and given.all_plain:
            return [(facts, UNKNOWN)]
        followed = self.world.follow(function)
        if followed is None or frame.depth >= _MAX_DEPTH or followed.node in self._running:
            return self._unknown_call(node, given, env, frame, facts)
        inner = self._frame(followed.node, followed.code, frame.depth + 1)
        self._running.append(followed.node)
        try:
            outcomes: Outcomes = []
            for held, names in self._parameters(function, followed.node, given, inner, facts):
                inner.returns = []
                left = self._block(followed.node.body, [(held, names)], inner)
                outcomes += [*inner.returns, *((more, NONE) for more, _ in left)]
        except _CannotBind:
            return self._unknown_call(node, given, env, frame, facts)
        finally:
            self._running.pop()
            self.forget_globals(env)
        return joined(outcomes)

    def _parameters(
        self, function: Any, node: ast.FunctionDef, given: _Arguments, frame: Frame, facts: Facts
    ) -> list[Way]:
        """The names of a function when it is called. Raises _CannotBind where that is not clear."""
        if not given.is_clear:
            raise _CannotBind
        arguments = node.args
        names = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
        keywords = dict(given.keywords)
        values: dict[str, Abstract] = {}
        defaults = function.__defaults__ or ()
        if len(defaults) > len(names):  # set by hand
            raise _CannotBind
        for name, default in zip(names[len(names) - len(defaults) :], defaults, strict=True):
            values[name] = self.world.constant(default)
        for name, default in (function.__kwdefaults__ or {}).items():
            values[name] = self.world.constant(default)
        values.update(zip(names, given.positional, strict=False))
        rest = given.positional[len(names) :]
        if arguments.vararg is not None:
            if all(isinstance(each, Constant) and is_atom(each.value) for each in rest):
                values[arguments.vararg.arg] = Constant(tuple(each.value for each in rest))  # type: ignore[attr-defined]
            else:
                values[arguments.vararg.arg] = PLAIN if all(each.is_plain for each in rest) else UNKNOWN
        elif rest:
            return []  # TypeError
        known = {*names[len(arguments.posonlyargs) :], *(each.arg for each in arguments.kwonlyargs)}
        values.update({name: keywords.pop(name) for name in list(keywords) if name in known})
        if arguments.kwarg is not None:
            values[arguments.kwarg.arg] = PLAIN if all(each.is_plain for each in keywords.values()) else UNKNOWN
        elif keywords:
            return []
        if not {*names, *(each.arg for each in arguments.kwonlyargs)} <= values.keys():
            return []
        ways: list[Way] = [(facts, {})]
        for name, value in values.items():
            ways = [
                (held, {**env, name: bound})
                for more, env in ways
                for held, bound in self._bound(name, value, more, frame)
            ]
        return ways

    # --- methods -----------------------------------------------------------------------------------------------------

    def _method(
        self, node: ast.Call, receiver: Abstract, method: str, env: Env, frame: Frame, facts: Facts
    ) -> Outcomes:
        if isinstance(receiver, Constant) and isinstance(receiver.value, ModuleType):
            return [
                after
                for held, function in self.attribute(node.func, receiver, method, env, frame, facts)
                for after in self._called(node, function, env, frame, held)
            ]
        outcomes: Outcomes = []
        at_once = receiver.is_plain and method in ("extend", "join", "update")
        for held, given in self._arguments(node, env, frame, facts, at_once=at_once):
            known = self._known_method(node, receiver, method, given, env, frame, held)
            if known is not None:
                outcomes += known
            elif method in CHANGING_METHODS and isinstance(receiver, Field | Event | Constant | Table):
                self._end_at(node, frame, held, "changes what it has from the event or its module")
            elif receiver.is_plain and given.all_plain and not method.startswith("_") and method != "udm":
                outcomes.append((held, PLAIN))  # udm() may run a function of the pack
            else:
                outcomes += self._unknown_call(node, given, env, frame, held)
        return outcomes

    def _known_method(
        self, node: ast.Call, receiver: Abstract, method: str, given: _Arguments, env: Env, frame: Frame, facts: Facts
    ) -> Outcomes | None:
        """What a method gives that is understood; None of any other."""
        keys = given.texts
        match receiver, method:
            case ((Event() | Field()), "get") if given.is_clear and 1 <= given.count <= 2 and keys:
                default = given.positional[1] if len(given.positional) == 2 else given.keywords.get("default", NONE)
                if given.keywords.keys() <= {"default"}:
                    return self._with_default(receiver, keys[:1], default, facts)
            case ((Event() | Field()), "deep_get") if given.is_clear and keys and len(keys) == len(given.positional):
                if given.keywords.keys() <= {"default"}:
                    default = given.keywords.get("default", NONE)
                    return self._with_default(receiver, keys, default, facts, nulls_too=True)
            case Event(as_fields=False), "udm" if given.is_clear and given.keywords.keys() <= {"default"}:
                if len(given.positional) == 1 and keys:
                    return self._udm(node, receiver, keys[0], given.keywords.get("default", NONE), env, frame, facts)
            case (Constant(value=dict(), is_data=True) | Table()), "get" if given.is_simple and 1 <= len(given.positional) <= 2:
                index = given.positional[0]
                if isinstance(index, Field):
                    default = given.positional[1] if len(given.positional) == 2 else NONE
                    return self.looked_up(receiver, index, default, facts)
        if isinstance(receiver, Constant) and receiver.is_data and method in FOLDED_METHODS and given.is_simple:
            constants = [each for each in given.positional if isinstance(each, Constant) and each.is_data]
            values = [each.value for each in constants]
            ordered = all(map(has_order, [receiver, *constants]))
            if len(values) == len(given.positional) and _size(receiver.value) <= _MAX_FOLDED and ordered:
                try:
                    made = getattr(receiver.value, method)(*values)
                except Exception:
                    return []
                made = list(made) if method in ("items", "keys", "values") else made
                if is_data(made):
                    return [(facts, Constant(made, is_shared=is_atom(made)))]
        return None

    def _with_default(
        self,
        receiver: Event | Field,
        keys: tuple[str, ...],
        default: Abstract,
        facts: Facts,
        *,
        nulls_too: bool = False,
    ) -> Outcomes:
        if isinstance(default, Constant) and default.is_data:
            return self.inner(receiver, keys, default, facts, nulls_too=nulls_too)
        # Where the default is not known: either something is there, or it is the default.
        return [*self.inner(receiver, keys, None, facts), (facts, default)]

    def _udm(
        self, node: ast.Call, event: Event, key: str, default: Abstract, env: Env, frame: Frame, facts: Facts
    ) -> Outcomes:
        """event.udm(key): through the mapping of the log type's data model."""
        mapping = None if self.world.model is None else self.world.model.mapping(key)
        match mapping:
            case PathMapping(path=path) if path.names and not path.names[0].lower().startswith("p_"):
                if isinstance(default, Constant) and default.is_data:
                    return [(facts, Field(path.names, default))]
                return [(facts, Field(path.names)), (facts, default)]
            case MethodMapping(function=function):
                given = _Arguments([Event(as_fields=True)], {})
                return self._run(node, function, given, env, frame, facts)
            case None | PathMapping():
                return [(facts, PLAIN)] if default.is_plain else [(facts, PLAIN), (facts, default)]
        return self._unknown_call(node, _Arguments([], {}), env, frame, facts)


class _CannotBind(Exception):
    """It is not clear which parameter gets what."""


@dataclass(slots=True)
class _Arguments:
    """What a call gives."""

    positional: list[Abstract]
    keywords: dict[str, Abstract]
    is_clear: bool = True
    """Nothing is spread whose length or names are not known."""
    spread: tuple[Abstract, ...] = ()
    """What is, where that is so."""

    @staticmethod
    def of(node: ast.Call, values: Sequence[Abstract]) -> _Arguments:
        made = _Arguments([], {})
        for argument, value in zip(node.args, values, strict=False):
            if not isinstance(argument, ast.Starred):
                made.positional.append(value)
                continue
            elements = elements_of(value.value) if isinstance(value, Constant) and value.is_data else None
            if elements is None or type(value.value) not in (list, tuple):  # type: ignore[attr-defined]
                made.is_clear = False
                made.spread += (value,)
            else:
                made.positional += [Constant(each, is_shared=value.is_shared) for each in elements]  # type: ignore[attr-defined]
        for keyword, value in zip(node.keywords, values[len(node.args) :], strict=True):
            if keyword.arg is None:
                made.is_clear = False
                made.spread += (value,)
            else:
                made.keywords[keyword.arg] = value
        return made

    @property
    def is_simple(self) -> bool:
        return self.is_clear and not self.keywords

    @property
    def count(self) -> int:
        return len(self.positional) + len(self.keywords)

    @property
    def all_plain(self) -> bool:
        return all(each.is_plain for each in (*self.positional, *self.keywords.values(), *self.spread))

    @property
    def texts(self) -> tuple[str, ...]:
        """The constant texts that the positional arguments begin with."""
        found: list[str] = []
        for each in self.positional:
            if not isinstance(each, Constant) or type(each.value) is not str:
                break
            found.append(each.value)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class _Names:
    """What a function does with names."""

    local: frozenset[str]
    declared_global: frozenset[str]
    captured: frozenset[str]
    """Names that functions inside of it use."""
    loads: dict[str, list[ast.Name]]
    parents: dict[ast.AST, ast.AST]


@lru_cache(4096)
def _names_of(function: ast.FunctionDef) -> _Names:
    arguments = function.args
    given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    declared = {name for node in ast.walk(function) if isinstance(node, ast.Global) for name in node.names}
    captured: set[str] = set()
    loads: dict[str, list[ast.Name]] = {}
    parents: dict[ast.AST, ast.AST] = {}
    for node in ast.walk(function):
        for child in ast.iter_child_nodes(node):
            parents[child] = node
        if node is not function and isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            captured.update(each.id for each in ast.walk(node) if isinstance(each, ast.Name))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            loads.setdefault(node.id, []).append(node)
    local = {each.arg for each in given if each is not None}
    for statement in function.body:
        local |= _stored_in(statement)
    return _Names(frozenset(local - declared), frozenset(declared), frozenset(captured), loads, parents)


_INNER_SCOPES = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda, ast.FunctionDef, ast.ClassDef)


def _stored_in(node: ast.AST) -> set[str]:
    """The names of the function itself that something in a statement sets."""
    stored: set[str] = set()
    ahead = [node]
    while ahead:
        each = ahead.pop()
        match each:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                stored.add(name)
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                stored.add(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                stored.add(name)
            case ast.MatchMapping(rest=str(name)):
                stored.add(name)
            case ast.alias(name=name, asname=asname):
                stored.add((asname or name).partition(".")[0])
        if isinstance(each, _INNER_SCOPES):
            stored.update(_named_in(each))
        else:
            ahead.extend(ast.iter_child_nodes(each))
    return stored


def _named_in(scope: ast.AST) -> Iterator[str]:
    """What `:=` in a comprehension sets, which is of the function around it."""
    for each in ast.walk(scope):
        if isinstance(each, ast.NamedExpr):
            yield each.target.id


def _merged(ways: Iterable[Way]) -> list[Way]:
    """Ways on which names hold the same, as one; all of them as one, should they be too many."""
    ways = list(ways)
    if len(ways) == 1 and ways[0][0] != NEVER:
        return ways
    found: dict[object, Way] = {}
    for facts, env in ways:
        if facts == NEVER:
            continue
        key = frozenset((name, value.key) for name, value in env.items())
        known = found.get(key)
        found[key] = (facts, env) if known is None else (either(known[0], facts), env)
    merged = list(found.values())
    if len(merged) <= _MAX_WAYS:
        return merged
    facts, env = merged[0]
    for more, other in merged[1:]:
        facts = either(facts, more)
        env = dict(_common(env, other))
    return [(facts, env)]


def _common(one: Env, other: Env) -> Iterator[tuple[str, Abstract]]:
    for name in sorted(one.keys() | other.keys()):
        mine, theirs = one.get(name, UNKNOWN), other.get(name, UNKNOWN)
        yield name, weakest([(ALWAYS, mine), (ALWAYS, theirs)])[1]


def _leaves_loop(body: Sequence[ast.stmt]) -> bool:
    return any(isinstance(each, ast.Break | ast.Continue) for statement in body for each in ast.walk(statement))


def _where_true(value: Abstract, facts: Facts) -> Facts:
    """What holds where rule() returned this and it is True."""
    match value:
        case Constant(value=known):
            return facts if known is True else NEVER
        case Field():
            return both(facts, one_of(value.path, value.raw_values([True])))
        case Event() | Lambda():
            return NEVER
    return facts


def _is_flat(value: Abstract) -> bool:
    """Whether a container holds nothing that could be changed by itself."""
    if isinstance(value, Field):
        return value.default is None or _is_flat(value.default)
    known = value.value if isinstance(value, Constant) else None
    parts = [*known, *known.values()] if type(known) is dict else elements_of(known) or ()
    return all(map(is_atom, parts))


def _may_be_container(value: Abstract) -> bool:
    """Whether `+=` may change what a name holds, which others may hold as well."""
    if isinstance(value, Field):
        return value.default is not None and _may_be_container(value.default)
    return isinstance(value, Constant) and value.is_data and not is_atom(value.value) and type(value.value) is not tuple


def _is_lazy(function: Any) -> bool:
    """Whether a harmless function goes through its argument later."""
    return any(function is each for each in (enumerate, reversed, zip))


def _is_plain_exception(function: Any) -> bool:
    """Whether to make such an exception runs no code of the pack."""
    return isinstance(function, type) and issubclass(function, BaseException) and function.__module__ == "builtins"


def _size(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 1


def _shown(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 40 else text[:37] + "..."
