"""Source: one Python file of a pack, compiled once, and what its code objects tell of it.

They are much cheaper to read than the syntax tree, and as sure where they are sure; the tree is made where they are not.
"""

from __future__ import annotations

import ast
import dis
import inspect
from collections.abc import Iterator
from functools import cached_property
from types import CodeType

from rules.rule import PACK_PREFIX

_BY_NAME = frozenset({"__dict__", "delattr", "globals", "setattr", "vars"})
"""Names through which a function can set something without a statement that says so."""

_DYNAMIC = frozenset({"__builtins__", "__import__", "eval", "exec", "import_module", "importlib"})
"""Names through which a module can import what cannot be read off."""

_OP = dis.opmap
_IMPORT, _EXTENDED, _CACHE = _OP["IMPORT_NAME"], _OP["EXTENDED_ARG"], _OP["CACHE"]
_LOAD_GLOBAL, _CONTAINS = _OP["LOAD_GLOBAL"], _OP["CONTAINS_OP"]
_STORES = frozenset(_OP[name] for name in ("DELETE_ATTR", "DELETE_GLOBAL", "STORE_ATTR", "STORE_GLOBAL"))
_STORES_OUTSIDE = frozenset(_OP[name] for name in ("DELETE_DEREF", "STORE_DEREF"))


class Source:
    """Raises what compiling raises: SyntaxError, ValueError, RecursionError or MemoryError."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self._data = data
        self.code: CodeType = compile(data, PACK_PREFIX + path, "exec", dont_inherit=True)
        self._inner = tuple(_inside(self.code))
        """Of the functions, classes and lambdas in it."""

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self._data, filename=PACK_PREFIX + self.path)

    def line_of(self, name: str) -> int | None:
        """Where the module assigns a name."""
        return next((node.lineno for node in self.tree.body if name in _bound(node)), None)

    def definition(self, code: CodeType) -> ast.FunctionDef | None:
        """Where a function is defined whose code this is, and not that of another file, or code that was made by hand."""
        if not any(code is each for each in self._inner):
            return None
        return self._definitions.get((code.co_name, code.co_firstlineno))

    @cached_property
    def _definitions(self) -> dict[tuple[str, int], ast.FunctionDef]:
        """By name and line. One line holds the beginning of one definition; a decorated one begins with its decorators."""
        return {(node.name, node.lineno): node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)}

    @cached_property
    def imports(self) -> frozenset[str]:
        """The first parts of the names of all that may be imported, anywhere in it; dynamic imports apart."""
        return self.imports_of_functions | _imports(self.code)

    @cached_property
    def imports_of_functions(self) -> frozenset[str]:
        """Those that stand inside functions."""
        return frozenset(name for code in self._inner for name in _imports(code))

    @cached_property
    def imports_dynamically(self) -> bool:
        """It may import in a way that cannot be read off."""
        return any(not _DYNAMIC.isdisjoint(code.co_names) for code in (self.code, *self._inner))

    @cached_property
    def names(self) -> frozenset[str]:
        """Every global, attribute and module that its functions name."""
        return frozenset(name for code in self._inner for name in code.co_names)

    @cached_property
    def sets_nothing(self) -> bool:
        """Surely no function sets a global, an attribute or a variable of an enclosing function."""
        return self.names.isdisjoint(_BY_NAME) and not any(map(_may_set, self._inner))

    def only_looks_into(self, name: str) -> bool:
        """Surely every use of a global in its functions is `something in NAME`."""
        return all(_only_looks_into(name, code) for code in self._inner if name in code.co_names)


def _bound(node: ast.stmt) -> set[str]:
    """The names that a statement assigns."""
    return {target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)}


def _inside(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _inside(constant)


def _operations(code: CodeType) -> Iterator[tuple[int, int]]:
    """(operation, argument) one after the other."""
    extended = 0
    for operation, argument in zip(code.co_code[::2], code.co_code[1::2], strict=True):
        if operation == _EXTENDED:
            extended = (extended | argument) << 8
        elif operation != _CACHE:
            yield operation, extended | argument
            extended = 0


def _imports(code: CodeType) -> frozenset[str]:
    if _IMPORT not in code.co_code[::2]:
        return frozenset()
    names = (code.co_names[argument] for operation, argument in _operations(code) if operation == _IMPORT)
    return frozenset(name.partition(".")[0] for name in names)


def _may_set(code: CodeType) -> bool:
    operations = frozenset(code.co_code[::2])
    return not operations.isdisjoint(_STORES) or (bool(code.co_freevars) and not operations.isdisjoint(_STORES_OUTSIDE))


def _only_looks_into(name: str, code: CodeType) -> bool:
    """Each load of the global is followed by `in`, at once."""
    if not code.co_flags & inspect.CO_NEWLOCALS:
        return False  # the body of a class, where names are loaded in other ways
    index = code.co_names.index(name)
    loads = looks = 0
    loaded = False
    for operation, argument in _operations(code):
        looks += loaded and operation == _CONTAINS
        loaded = operation == _LOAD_GLOBAL and argument >> 1 == index
        loads += loaded
    return loads == looks


def tells_apart(data: bytes, name: str) -> bool:
    """Whether a Python file may tell instances of the class of this name from those of its heirs.

    Imports of it, annotations, isinstance() and issubclass() do not. Nor do docstrings and `__all__`; any other text with the
    name may. What does not compile says nothing.
    """
    if name.encode() not in data:
        return False
    try:
        return _uses(ast.parse(data), name)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _uses(node: ast.AST, name: str) -> bool:
    match node:
        case ast.Name(id=found) | ast.Attribute(attr=found) if found == name:
            return True
        case ast.Constant(value=str(text)):
            return name in text
        case ast.alias(name=found, asname=other):
            return other not in (None, name) and found.endswith(name)
        case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[instance, _]):
            return _uses(instance, name)
        case ast.Expr(value=ast.Constant()) | ast.Assign(targets=[ast.Name(id="__all__")]):
            return False
    return any(
        _uses(child, name)
        for field, value in ast.iter_fields(node)
        if field not in ("annotation", "returns")
        for child in (value if isinstance(value, list) else [value])
        if isinstance(child, ast.AST)
    )
