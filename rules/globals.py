"""Module globals: every evaluation starts from what the module held after loading (DESIGN 11.5).

Found once, at load: names that any function rebinds, and module-level containers that any function might change. Rules
without either pay nothing.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import Any

_CONTAINERS = (list, dict, set, bytearray)

_READING_METHODS = frozenset(
    {"get", "items", "keys", "values", "copy", "index", "count", "union", "intersection", "difference"}
    | {"symmetric_difference", "issubset", "issuperset", "isdisjoint", "fromkeys", "decode", "startswith", "endswith", "find"}
)
"""Methods of containers that change nothing. Any other attribute of a container counts as a change."""

_MISSING: Any = object()


class Restorer:
    """Puts a module's changeable globals back."""

    def __init__(self, namespace: dict[str, Any], rebound: set[str], containers: set[str]) -> None:
        self._namespace = namespace
        self._rebound = {name: namespace.get(name, _MISSING) for name in rebound}
        self._containers = {name: (namespace[name], copy.deepcopy(namespace[name])) for name in containers}

    def restore(self) -> None:
        """What the last evaluation left is gone."""
        namespace = self._namespace
        for name, value in self._rebound.items():
            if value is _MISSING:
                namespace.pop(name, None)
            else:
                namespace[name] = value
        for value, pristine in self._containers.values():
            if value != pristine:
                _refill(value, copy.deepcopy(pristine))


def _refill(container: Any, content: Any) -> None:
    """In place: functions may hold the container itself, as a default argument say."""
    container.clear()
    if isinstance(container, list | bytearray):
        container.extend(content)
    else:
        container.update(content)


def restorer_for(tree: ast.Module, namespace: dict[str, Any]) -> Restorer | None:
    """A Restorer for a module that has been executed, None where its functions can change nothing."""
    rebound: set[str] = set()
    candidates = {
        name for name, value in namespace.items() if isinstance(value, _CONTAINERS) and not name.startswith("__")
    }
    changed: set[str] = set()
    for function in _functions(tree):
        for node in ast.walk(function):
            if isinstance(node, ast.Global):
                rebound.update(node.names)
        changed |= _maybe_changed(function, candidates)
    if not rebound and not changed:
        return None
    return Restorer(namespace, rebound, changed)


def _functions(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node


def _maybe_changed(function: ast.AST, candidates: set[str]) -> set[str]:
    """The containers that a function uses in any way but reading them."""
    if not candidates:
        return set()
    parents = {child: node for node in ast.walk(function) for child in ast.iter_child_nodes(node)}
    return {
        node.id
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and node.id in candidates and not _only_read(node, parents)
    }


def _only_read(node: ast.Name, parents: dict[ast.AST, ast.AST]) -> bool:
    parent = parents.get(node)
    match parent:
        case ast.Compare() | ast.BoolOp() | ast.UnaryOp() | ast.If() | ast.IfExp() | ast.FormattedValue():
            return True
        case ast.For(iter=iterated) | ast.comprehension(iter=iterated):
            return iterated is node
        case ast.Subscript(value=container, ctx=ast.Load()):
            return container is node and not _kept(parent, parents)
        case ast.Attribute(attr=name):
            return name in _READING_METHODS
        case ast.Call(func=ast.Name(id=name)):
            return name in {
                "len",
                "any",
                "all",
                "sorted",
                "set",
                "list",
                "tuple",
                "dict",
                "frozenset",
                "max",
                "min",
                "sum",
            }
    return False


def _kept(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether what stands in a container is itself written to: NAMES["a"].append(...), NAMES["a"]["b"] = ..."""
    parent = parents.get(node)
    match parent:
        case ast.Attribute(attr=name):
            return name not in _READING_METHODS and name not in dir(str)
        case ast.Subscript(ctx=ast.Load()):
            return _kept(parent, parents)
        case ast.Subscript() | ast.AugAssign():
            return True
    return False
