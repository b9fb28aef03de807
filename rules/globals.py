"""Module globals: every evaluation starts from what its module held after loading (DESIGN 11.5).

What functions may change is found once, when the module is loaded: names that any function rebinds, and mutable objects
that a function uses in a way that is not plainly reading. Content is put back in place, so that whoever else holds the
object sees it too. Modules without either pay nothing. An iterator cannot be put back: a module whose functions use one
that was made at load is refused, rather than give results that depend on how evaluations are spread over shards.
"""

from __future__ import annotations

import ast
import re
import sys
import threading
from array import array
from collections import UserDict, UserList, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from enum import Enum
from functools import lru_cache, partial, partialmethod
from io import BytesIO, StringIO
from random import Random
from types import (
    BuiltinMethodType,
    CellType,
    FunctionType,
    MappingProxyType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

from rules.rule import AUXILIARIES
from rules.source import Source

_ABSENT: Any = object()

_Cached: Any = type(lru_cache(lambda: None))
"""What functools.cache and lru_cache make of a function."""

_VIEWS = frozenset({type({}.keys()), type({}.values()), type({}.items())})

_WHOLE = frozenset({"all", "any", "bool", "hash", "isinstance", "len", "print", "repr", "str", "sum"})
"""Functions that read their argument and give nothing of it away."""

_ELEMENTS = frozenset(
    {"dict", "enumerate", "filter", "frozenset", "iter", "list", "map", "max", "min", "reversed", "set", "sorted"}
    | {"tuple", "zip"}
)
"""Functions that give the elements away: harmless where the elements cannot be changed."""

_READING_METHODS = frozenset(
    {"copy", "count", "difference", "find", "get", "index", "intersection", "isdisjoint", "issubset", "issuperset"}
    | {"items", "keys", "symmetric_difference", "union", "values"}
)
"""Methods of containers that change nothing."""

_CONTAINERS = (dict, list, set, deque, bytearray)

_CONTRACT = frozenset({"rule", "policy", *AUXILIARIES})

_ATOMS = frozenset({bool, bytes, complex, float, int, str, type(None), re.Pattern})

_IsFlat = Callable[[Any], bool]
"""Whether a value is a container whose elements cannot be changed."""

_OnlyReads = Callable[[bool], bool]
"""Whether one use of a value does nothing to it; takes whether it is flat."""

Restore = Callable[[], None]


class CannotRestore(Exception):
    """A module's functions use an object whose content cannot be put back; `name` is the module's name for it."""

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(
            f"{name} is an iterator ({kind}), which every evaluation would find where the one before left it"
        )
        self.name = name


class Restorer:
    """Puts back what a module's functions may have changed."""

    def __init__(
        self,
        namespace: dict[str, Any],
        names: Iterable[str],
        contents: Iterable[Restore],
        held: Mapping[int, Any],
    ) -> None:
        self.namespace = namespace
        """The globals of the module."""
        self.names = frozenset(names)
        """Those of them that functions may rebind."""
        self.held = held
        """The objects whose content they may change, and what these hold, by id."""
        self._values = {name: namespace.get(name, _ABSENT) for name in sorted(self.names)}
        self._contents = tuple(contents)

    def restore(self) -> None:
        """What the last evaluation left is gone."""
        for name, value in self._values.items():
            if value is _ABSENT:
                self.namespace.pop(name, None)
            else:
                self.namespace[name] = value
        for put_back in self._contents:
            put_back()

    def rebind(self, values: Mapping[str, Any]) -> None:
        """From now on names stand for these values; for mocks. Names that no function rebinds need no restoring."""
        self._values.update({name: value for name, value in values.items() if name in self._values})


class Ours:
    """What is a pack's own, as one of its modules sees it, and hence may change and is to be put back."""

    def __init__(self, modules: Iterable[ModuleType], names: Set[str]) -> None:
        self.modules = tuple(modules)
        """The module and those that it can import."""
        self.names = names
        """Of all modules of the pack: what they define may have come to this one in another way. Its __module__ tells."""

    def have(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return isinstance(value, ModuleType) and any(value is module for module in self.modules)

    def named(self, name: str) -> ModuleType | None:
        """The one of a name."""
        return next((module for module in self.modules if module.__name__ == name), None)


def restorer_for(
    source: Source, namespace: dict[str, Any], ours: Ours, *, attributes_set: bool = False
) -> Restorer | None:
    """A Restorer for a module that has been executed, None where its functions can change nothing.

    With `attributes_set` the modules that it can reach may do what sets_attributes() says. Raises CannotRestore.
    """
    if source.sets_nothing and not attributes_set and _holds_still(source, namespace, ours):
        return None
    found = _Uses(source.tree)
    names = found.rebound
    if "globals" in found.used:
        names = names | found.used | set(namespace)
    attributes_set = attributes_set or found.sets_attributes

    def is_flat(value: Any) -> bool:
        if not isinstance(value, _CONTAINERS):
            return False
        held = _Contents(ours, attributes_set=attributes_set)
        held.add(value)
        return len(held.restores) == 1

    def changed(name: str, value: Any) -> Iterator[Any]:
        """What functions may change in what a name stands for."""
        if name in found.used and ours.have(value):
            yield from _changed_in(value, found.reached_through(name), is_flat)
            return
        written = name in names or (name in found.used and found.may_change(name, flat=is_flat(value)))
        if written or _hides(value) or _keeps(name, value):
            yield value

    contents = _Contents(ours, attributes_set=attributes_set)
    imported = [
        (name, value)
        for name, module_name, attribute in found.imports
        if (value := _imported(ours, module_name, attribute)) is not None
    ]
    for name, value in [*namespace.items(), *imported]:
        if not name.startswith("__"):
            try:
                for each in changed(name, value):
                    contents.add(each)
            except _Iterator as iterator:
                raise CannotRestore(name, str(iterator)) from None
    if source.imports_dynamically:
        for module in ours.modules:
            contents.add(module)
    if not names and not contents.restores:
        return None
    return Restorer(namespace, names - {"__builtins__"}, contents.restores, contents.seen)


def sets_attributes(source: Source) -> bool:
    """Whether a function of the module might set an attribute of a class or function, or a variable of an enclosing one."""
    return not source.sets_nothing and _Uses(source.tree).sets_attributes


def _hides(value: Any) -> bool:
    """Whether a value may change what only it holds: a mutable default, a closure, an attribute."""
    return isinstance(value, FunctionType | type | _Cached)


def _keeps(name: str, value: Any) -> bool:
    """Whether merely calling or reading a value may change it: a rule() that is an object, a dict that makes what it lacks."""
    return (name in _CONTRACT and callable(value)) or hasattr(type(value), "__missing__")


def _imported(ours: Ours, module_name: str, attribute: str | None) -> Any:
    """What an import gives, if it is of one of ours."""
    module = ours.named(module_name)
    return module if module is None or attribute is None else getattr(module, attribute, None)


def _changed_in(module: ModuleType, uses: Iterable[tuple[str | None, _OnlyReads]], is_flat: _IsFlat) -> Iterator[Any]:
    """What might be changed through a name for a module of the pack: things in it, or all of it.

    Calling its functions is none of this: what they change is theirs to put back.
    """
    for attribute, only_reads in uses:
        value = getattr(module, attribute, None) if attribute is not None else None
        if attribute is None or isinstance(value, ModuleType):
            yield module
        elif _hides(value) or not only_reads(is_flat(value)):
            yield value


# --- what is told without a syntax tree ----------------------------------------------------------------------------


def _holds_still(source: Source, namespace: Mapping[str, Any], ours: Ours) -> bool:
    """Surely no function changes what a module holds. For a source that sets nothing."""
    if source.imports_dynamically or not source.imports_of_functions.isdisjoint(ours.names):
        return False
    return all(
        _is_inert(value, ours)
        or (not _hides(value) and not _keeps(name, value) and name not in source.names)
        or (type(value) in _CONTAINERS and source.only_looks_into(name))
        for name, value in namespace.items()
        if not name.startswith("__")
    )


def _is_inert(value: Any, ours: Ours) -> bool:
    """Surely nothing can change in a value."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    if kind is tuple or kind is frozenset:
        return all(_is_inert(each, ours) for each in value)
    if kind is FunctionType:
        return value.__module__ not in ours.names or (
            (value.__defaults__ is None or _is_inert(value.__defaults__, ours))
            and not (value.__kwdefaults__ or value.__closure__ or value.__dict__)
        )
    if kind is ModuleType:
        return not ours.have(value)
    return isinstance(value, type) and value.__module__ not in ours.names


# --- what functions do with a name ---------------------------------------------------------------------------------


class _Uses:
    """How the functions of a module use names."""

    def __init__(self, tree: ast.Module) -> None:
        self._parents: dict[ast.AST, ast.AST] = {}
        self._loads: dict[str, list[ast.Name]] = {}
        self.rebound: set[str] = set()
        """Names that a function declares global."""
        self.imports: list[tuple[str, str, str | None]] = []
        """Imports in functions: (the name bound, the module, what is imported from it)."""
        self.sets_attributes = False
        """Somewhere an attribute of a class or function might be set, or a variable of an enclosing function."""
        for function in _outermost_functions(tree):
            self._read(function)

    def _read(self, function: ast.AST) -> None:
        for node in ast.walk(function):
            for child in ast.iter_child_nodes(node):
                self._parents[child] = node
            match node:
                case ast.Global(names=names):
                    self.rebound.update(names)
                case ast.Import(names=aliases):
                    self.imports += [(alias.asname or alias.name, alias.name, None) for alias in aliases]
                case ast.ImportFrom(module=str(module), names=aliases):
                    self.imports += [(alias.asname or alias.name, module, alias.name) for alias in aliases]
                case ast.Name(id=name, ctx=ast.Load()):
                    self._loads.setdefault(name, []).append(node)
                    self.sets_attributes |= name in ("setattr", "delattr", "vars")
                case ast.Attribute(value=ast.Name(id="self")):
                    pass  # of an instance: restored with what holds it
                case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Attribute(attr="__dict__") | ast.Nonlocal():
                    self.sets_attributes = True

    @property
    def used(self) -> Set[str]:
        return self._loads.keys()

    def may_change(self, name: str, *, flat: bool) -> bool:
        """Whether any use of a container might change it. `flat`: its elements cannot be changed."""
        return not all(self._only_reads(node, flat) for node in self._loads[name])

    def reached_through(self, name: str) -> Iterator[tuple[str | None, _OnlyReads]]:
        """Each use of a name for a module: the attribute that is loaded, None for anything else; and what is done to that."""
        for node in self._loads[name]:
            match self._parents.get(node):
                case ast.Attribute(attr=attribute, ctx=ast.Load()) as parent if attribute != "__dict__":
                    yield attribute, partial(self._only_reads, parent)
                case _:
                    yield None, bool

    def _only_reads(self, node: ast.AST, flat: bool) -> bool:
        """Whether nothing is done to what an expression gives, which is a container or comes out of one."""
        parent = self._parents.get(node)
        match parent:
            case (
                ast.Compare()
                | ast.UnaryOp()
                | ast.FormattedValue()
                | ast.If()
                | ast.While()
                | ast.Assert()
                | ast.Expr()
            ):
                return True
            case ast.IfExp(test=test) if test is node:
                return True
            case ast.BoolOp() | ast.IfExp():  # gives the very object
                return self._only_reads(parent, flat)
            case ast.BinOp() | ast.Starred():  # make a new one of its elements
                return flat
            case ast.Dict(keys=keys, values=values):  # so does `**` in it; all else in it is handed on
                return flat and any(key is None and value is node for key, value in zip(keys, values, strict=True))
            case ast.For(iter=iterated) | ast.comprehension(iter=iterated) if iterated is node:
                return flat
            case ast.Subscript(value=container, ctx=context):
                reads = container is not node or isinstance(context, ast.Load)
                return reads and (flat or self._only_reads(parent, flat))
            case ast.Call(func=ast.Name(id=name), args=arguments) if node in arguments:
                return name in _WHOLE or (name in _ELEMENTS and flat)
            case ast.Attribute(attr=method, ctx=ast.Load()):
                call = self._parents.get(parent)
                if method in _READING_METHODS and isinstance(call, ast.Call) and call.func is parent:
                    return flat or self._only_reads(call, flat)
                return self._only_reads(parent, False)
        return False


def _outermost_functions(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
        else:
            yield from _outermost_functions(node)


# --- what objects hold ---------------------------------------------------------------------------------------------


class _Iterator(Exception):
    """Met among the contents of an object; says its type."""


class _Contents:
    """What it takes to put back the content of objects, and of all that can be reached from them."""

    def __init__(self, ours: Ours, *, attributes_set: bool) -> None:
        self._ours = ours
        self._attributes_set = attributes_set
        self.seen: dict[int, Any] = {}
        """By id. Kept, or another object could get the id of one."""
        self.restores: list[Restore] = []

    def add(self, value: Any) -> None:
        """One object. Those of other modules (loggers, compiled expressions, ...) are not ours to restore."""
        if id(value) in self.seen:
            return
        self.seen[id(value)] = value
        for part in self._parts(value):
            self.add(part)

    def _parts(self, value: Any) -> Iterable[Any]:
        """Note how to restore one object; give what it holds."""
        if isinstance(value, dict):
            self.restores.append(_refill(value.clear, value.update, dict(value)))
            made = [value.default_factory] if isinstance(value, defaultdict) else []
            return [*value, *value.values(), *made]
        if isinstance(value, set):
            # Listed, so that every refill builds the set in the same order.
            self.restores.append(_refill(value.clear, value.update, list(value)))
            return list(value)
        if isinstance(value, list | deque | bytearray):
            self.restores.append(_refill(value.clear, value.extend, list(value)))
            return list(value)
        if isinstance(value, tuple | frozenset) or type(value) in _VIEWS:
            return list(value)
        if isinstance(value, MappingProxyType):
            return list(value.values())
        if isinstance(value, _Cached):  # what it remembers may depend on earlier events
            if not _is_of_library(value):
                self.restores.append(value.cache_clear)
            return [value.__wrapped__]
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value) if value.__module__ in self._ours.names else ()
        if isinstance(value, BuiltinMethodType | MethodWrapperType | MethodType):  # add = SEEN.append
            return [value.__self__, *([value.__func__] if isinstance(value, MethodType) else [])]
        if isinstance(value, partial):
            return [value.func, value.args, value.keywords]
        if isinstance(value, Enum):
            return [value.value]
        if type(value).__module__ in self._ours.names:
            return [getattr(value, "__dict__", ()), *self._slots(value)]
        if self._ours.have(value):
            return self._module(value)
        if isinstance(value, SimpleNamespace | UserDict | UserList | threading.local):
            return [vars(value)]
        return self._from_library(value)

    def _module(self, module: ModuleType) -> Iterable[Any]:
        content = dict(vars(module))
        self.restores.append(_refill(vars(module).clear, vars(module).update, content))
        return [value for name, value in content.items() if not name.startswith("__")]

    def _slots(self, value: Any) -> Iterable[Any]:
        """Note how to restore what an instance of one of the module's classes keeps in slots; give it."""
        names = [name for kind in type(value).__mro__ for name in _slot_names(kind)]
        content = {name: getattr(value, name, _ABSENT) for name in names}
        if content:
            self.restores.append(lambda: _reset_slots(value, content))
        return [each for each in content.values() if each is not _ABSENT]

    def _from_library(self, value: Any) -> Iterable[Any]:
        """Note how to restore an object of the standard library that keeps its content out of sight."""
        match value:
            case array():
                self.restores.append(
                    _refill(lambda: value.__delitem__(slice(None)), value.extend, array(value.typecode, value))
                )
            case Random():
                state = value.getstate()
                self.restores.append(lambda: value.setstate(state))
            case StringIO() | BytesIO():
                self.restores.append(_rewritten(value))
            case _ if hasattr(type(value), "__next__"):
                raise _Iterator(type(value).__name__)
        return ()

    def _function(self, function: FunctionType) -> Iterable[Any]:
        if function.__module__ not in self._ours.names:
            return ()
        if self._attributes_set:
            self.restores += [_refilled_cell(cell) for cell in function.__closure__ or () if _is_filled(cell)]
            self.restores.append(_refill(vars(function).clear, vars(function).update, dict(vars(function))))
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        return [function.__defaults__, *(function.__kwdefaults__ or {}).values(), *vars(function).values(), *cells]

    def _class(self, kind: type) -> Iterable[Any]:
        if issubclass(kind, Enum):
            return list(kind.__members__.values())
        if hasattr(kind, "_fields"):
            return list(getattr(kind, "_field_defaults", {}).values())
        attributes = {name: value for name, value in vars(kind).items() if not name.startswith("__")}
        if self._attributes_set:
            self.restores.append(lambda: _reset_class(kind, attributes))
        functions = [value for value in vars(kind).values() if isinstance(value, FunctionType)]
        wrapped = [part for each in attributes.values() for part in _wrapped(each)]
        return [*attributes.values(), *functions, *wrapped]


def _wrapped(attribute: Any) -> Iterable[Any]:
    """What an attribute of a class has been made of."""
    match attribute:
        case classmethod() | staticmethod():
            return [attribute.__func__]
        case property():
            return [attribute.fget, attribute.fset, attribute.fdel]
        case partialmethod():
            return [attribute.func, attribute.args, attribute.keywords]
    return ()


def _is_of_library(cached: Any) -> bool:
    """It is the very function that an imported module has: one that a rule makes of such a function is the rule's."""
    found: Any = sys.modules.get(cached.__module__)
    for name in cached.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is cached


def _refill(clear: Callable[[], None], fill: Callable[[Any], None], content: Any) -> Restore:
    def restore() -> None:
        clear()
        fill(content)

    return restore


def _rewritten(buffer: Any) -> Restore:
    content, position = buffer.getvalue(), buffer.tell()

    def restore() -> None:
        buffer.seek(0)
        buffer.truncate()
        buffer.write(content)
        buffer.seek(position)

    return restore


def _slot_names(kind: type) -> list[str]:
    """The slots of one class, under the names by which they are reached."""
    slots = vars(kind).get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    private = f"_{kind.__name__.lstrip('_')}"
    return [
        private + name if name.startswith("__") and not name.endswith("__") else name
        for name in names
        if name not in ("__dict__", "__weakref__")
    ]


def _reset_slots(value: Any, content: Mapping[str, Any]) -> None:
    for name, each in content.items():
        if each is not _ABSENT:
            object.__setattr__(value, name, each)
        elif hasattr(value, name):
            object.__delattr__(value, name)


def _is_filled(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not _ABSENT
    except ValueError:
        return False


def _refilled_cell(cell: CellType) -> Restore:
    content = cell.cell_contents

    def restore() -> None:
        cell.cell_contents = content

    return restore


def _reset_class(kind: type, attributes: Mapping[str, Any]) -> None:
    now = {name: value for name, value in vars(kind).items() if not name.startswith("__")}
    for name in now.keys() - attributes.keys():
        delattr(kind, name)
    for name, value in attributes.items():
        if now.get(name, _ABSENT) is not value:
            setattr(kind, name, value)
