"""World: the code that an evaluation of one rule can reach, and which of its globals are the same in every evaluation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from rules.guards.values import PLAIN, UNKNOWN, Abstract, Constant, events_are_ours, is_atom, is_data, mutable_parts

if TYPE_CHECKING:
    from rules.datamodels import DataModel
    from rules.source import Source

_REACHES_INTO_OTHERS = frozenset(
    {"_fields", "_folded", "_getframe", "_items", "ctypes", "f_back", "f_globals", "f_locals", "gc", "inspect"}
    | {"original", "raw", "__code__", "__defaults__", "__kwdefaults__", "__class__", "__dict__", "__getattribute__"}
    | {"__setattr__", "attrgetter", "delattr", "getattr", "methodcaller", "setattr", "vars"}
)
"""Names through which a function might change an event, or what another function is or holds."""


class Changes(Protocol):
    """What a module's functions may change: a rules.globals.Restorer."""

    namespace: dict[str, Any]
    names: frozenset[str]
    held: Mapping[int, Any]


class Code(Protocol):
    """A module of the pack that has been executed: a rules.modules.Module."""

    made: ModuleType

    @property
    def source(self) -> Source: ...
    @property
    def namespace(self) -> dict[str, Any]: ...
    @property
    def own_restorer(self) -> Changes | None: ...


@dataclass(frozen=True, slots=True)
class Followed:
    """A function of the pack whose code is known."""

    node: ast.FunctionDef
    code: Code


class World:
    """`modules` are all that the rule can reach, its own first; `model` is the data model of the log type in question."""

    def __init__(self, modules: Sequence[Code], model: DataModel | None, *, reaches_state: bool) -> None:
        self.rule_code = modules[0]
        self.model = model
        self._by_namespace = {id(code.namespace): code for code in modules}
        changes = [code.own_restorer for code in modules if code.own_restorer is not None]
        self._rebound: dict[int, frozenset[str]] = {}
        for each in changes:
            known = self._rebound.get(id(each.namespace), frozenset())
            self._rebound[id(each.namespace)] = known | each.names
        self._held = frozenset(held for each in changes for held in each.held)
        self._reaches_state = reaches_state
        self._modules = modules
        self._data: dict[int, tuple[Any, Abstract]] = {}

    @cached_property
    def is_strict(self) -> bool:
        """Whether code that is not understood may do what the analysis would have to know: call a caching helper, or change
        what it takes for granted."""
        return self._reaches_state or any(
            code.source.imports_dynamically or not _REACHES_INTO_OTHERS.isdisjoint(code.source.names)
            for code in self._modules
        )

    @cached_property
    def can_be_followed(self) -> bool:
        return events_are_ours()

    def follow(self, function: Any) -> Followed | None:
        """The code of a function; None where it is not the pack's, or cannot be followed call by call."""
        if type(function) is not FunctionType or function.__closure__:
            return None
        code = self._by_namespace.get(id(function.__globals__))
        nested = function.__code__.co_qualname != function.__code__.co_name  # in a class, say, where names are mangled
        node = None if code is None or nested else function_node(code.source, function.__code__)
        return None if code is None or node is None else Followed(node, code)

    def is_rebound(self, code: Code, name: str) -> bool:
        """Whether a function may rebind a global of a module."""
        names = self._rebound.get(id(code.namespace), frozenset())
        return name in names or id(code.made) in self._held

    def name(self, code: Code, name: str) -> Abstract | None:
        """What a global name stands for in a module; None where nobody has defined it."""
        if self.is_rebound(code, name):
            return UNKNOWN
        if name in code.namespace:
            return self.constant(code.namespace[name])
        builtins: Mapping[str, Any] = code.namespace.get("__builtins__", {})
        if isinstance(builtins, ModuleType):
            builtins = vars(builtins)
        return Constant(builtins[name], is_data=is_data(builtins[name])) if name in builtins else None

    def attribute(self, module: ModuleType, name: str) -> Abstract:
        """What a module that is imported somewhere has under a name."""
        code = self._by_namespace.get(id(vars(module)))
        if id(module) in self._held or (code is not None and self.is_rebound(code, name)):
            return UNKNOWN
        if name not in vars(module):
            return UNKNOWN
        value = vars(module)[name]
        if code is None and (isinstance(value, re.RegexFlag) or (is_data(value) and not is_atom(value))):
            return PLAIN  # of a library; nobody puts back what a pack does to it
        return self.constant(value)

    def constant(self, value: Any) -> Abstract:
        """An object that a module holds."""
        known = self._data.get(id(value))
        if known is None:
            known = self._data[id(value)] = (value, self._constant(value))
        return known[1]

    def _constant(self, value: Any) -> Abstract:
        if is_data(value):
            return UNKNOWN if self._may_change(mutable_parts(value)) else Constant(value)
        if type(value) is re.Pattern:
            return PLAIN
        if isinstance(value, FunctionType | ModuleType | type) or callable(value):
            return Constant(value, is_data=False)
        return UNKNOWN

    def _may_change(self, containers: Iterable[Any]) -> bool:
        return any(id(each) in self._held for each in containers)


def function_node(source: Source, code: CodeType) -> ast.FunctionDef | None:
    """The definition of a code object of a source, if it is a plain function without decorators."""
    node = source.definition(code)
    return node if node is not None and _can_be_followed(node) else None


@lru_cache(4096)
def _can_be_followed(node: ast.FunctionDef) -> bool:
    return not node.decorator_list and not any(isinstance(each, _UNFOLLOWED) for each in ast.walk(node))


_UNFOLLOWED = (ast.Yield, ast.YieldFrom, ast.Await, ast.Nonlocal, ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith)
