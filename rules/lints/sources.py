"""A pack as text: its modules as syntax trees and its YAML with places, whether or not the pack can be loaded."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from rules.schema import module_of
from rules.yaml12 import BadYaml, Lines, load

DETECTIONS = ("rule", "scheduled_rule", "policy")
"""AnalysisTypes whose modules are evaluated."""


class Place(NamedTuple):
    """A place in a file, counted from 1; prints as `path:line:column`."""

    path: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


class Module:
    """One Python file of a pack."""

    def __init__(self, path: str, source: bytes, tree: ast.Module) -> None:
        self.path = path
        self.tree = tree
        self._lines = source.splitlines()
        self.functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        self.imports: dict[str, str] = {}
        """Name -> what it stands for, dotted; those of imports inside functions too."""
        self.stars: list[str] = []
        """Modules of which everything is imported."""
        self._nodes = list(ast.walk(tree))
        for node in self._nodes:
            self._read_import(node)

    def _read_import(self, node: ast.AST) -> None:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    root = alias.name.partition(".")[0]
                    self.imports[alias.asname or root] = alias.name if alias.asname else root
            case ast.ImportFrom(module=str() as module, names=names):
                for alias in names:
                    if alias.name == "*":
                        self.stars.append(module)
                    else:
                        self.imports[alias.asname or alias.name] = f"{module}.{alias.name}"

    @cached_property
    def constants(self) -> dict[str, list[ast.expr]]:
        """What is assigned to plain names at module level."""
        found: dict[str, list[ast.expr]] = {}
        for node in _outside_functions(self.tree):
            match node:
                case ast.Assign(targets=targets, value=value):
                    for target in targets:
                        if isinstance(target, ast.Name):
                            found.setdefault(target.id, []).append(value)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    found.setdefault(name, []).append(value)
        return found

    @cached_property
    def names(self) -> frozenset[str]:
        """What is bound at module level, star imports apart."""
        found = set()
        for node in _outside_functions(self.tree):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    found.add(name)
                case ast.Name(id=name, ctx=ast.Store()):
                    found.add(name)
                case ast.Import(names=names) | ast.ImportFrom(names=names):
                    found.update((alias.asname or alias.name).partition(".")[0] for alias in names)
        return frozenset(found)

    @cached_property
    def outermost_functions(self) -> list[ast.AST]:
        """The functions that stand in no other, methods included."""
        return list(_outermost_functions(self.tree))

    @cached_property
    def nodes_in_functions(self) -> list[ast.AST]:
        return [node for function in self.outermost_functions for node in ast.walk(function)]

    @cached_property
    def declared_global(self) -> frozenset[str]:
        """The names that any function declares global."""
        return frozenset(name for node in self._nodes if isinstance(node, ast.Global) for name in node.names)

    def dotted(self, expression: ast.expr) -> str:
        """What a name or attribute stands for, through the imports: `datetime.datetime.now`. Empty for anything else."""
        match expression:
            case ast.Name(id=name):
                return self.imports.get(name, name)
            case ast.Attribute(value=value, attr=attribute):
                base = self.dotted(value)
                return f"{base}.{attribute}" if base else ""
        return ""

    def place(self, node: ast.expr | ast.stmt) -> Place:
        line = self._lines[node.lineno - 1] if node.lineno <= len(self._lines) else b""
        return Place(self.path, node.lineno, len(line[: node.col_offset].decode(errors="ignore")) + 1)


def _outermost_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
        else:
            yield from _outermost_functions(child)


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """What is executed when a module is loaded, and definitions themselves."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _outside_functions(child)


@dataclass(frozen=True, slots=True)
class Item:
    """One YAML file of a pack that has an AnalysisType."""

    path: str
    kind: str
    id: str
    """RuleID, PolicyID or GlobalID; the path where it has none."""
    document: Mapping[str, Any]
    lines: Lines
    text: list[str]
    module: Module | None
    """Its Python, or that of the rule it is derived from; None where there is none or it cannot be parsed."""

    def place(self, *keys: str | int) -> Place:
        """Of a key or list element in the YAML."""
        line = self.lines.of(*keys)
        return Place(self.path, line, column_of(self.text, line))

    def get(self, key: str, kind: type) -> Any:
        """What a key holds if it is of that type, else None."""
        value = self.document.get(key)
        return value if isinstance(value, kind) and not (kind is int and isinstance(value, bool)) else None


def column_of(text: list[str], line: int) -> int:
    """Where a line's first word begins, dashes of lists apart."""
    if not 0 < line <= len(text):
        return 1
    start = re.match(r"(?:\s*-(?=\s))*\s*", text[line - 1])
    return start.end() + 1 if start and start.end() < len(text[line - 1]) else 1


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything of a pack that can be read."""

    items: list[Item] = field(default_factory=list)
    modules: dict[str, Module] = field(default_factory=dict)
    """By path: those that an item names."""
    helpers: dict[str, Module] = field(default_factory=dict)
    """By GlobalID."""

    @property
    def detections(self) -> list[Item]:
        return [item for item in self.items if item.kind in DETECTIONS]


_DEEP = 150
"""No module with deeper nesting is looked at: nobody writes it by hand, and each level costs a few of Python's frames."""

_IDS = {"rule": "RuleID", "scheduled_rule": "RuleID", "policy": "PolicyID", "global": "GlobalID"}


def read_sources(files: Mapping[str, bytes]) -> Sources:
    """What can be read of a pack's files; what cannot is left out, load_pack() says why."""
    sources = Sources()
    documents: list[tuple[str, Mapping[str, Any], Lines]] = []
    for path in sorted(files):
        if path.endswith((".yml", ".yaml")):
            try:
                document, lines = load(files[path])
            except BadYaml:
                continue
            if isinstance(document, dict) and isinstance(document.get("AnalysisType"), str):
                documents.append((path, document, lines))
    bases = {
        document["RuleID"]: (path, document)
        for path, document, _ in documents
        if isinstance(document.get("RuleID"), str)
    }
    for path, document, lines in documents:
        kind = document["AnalysisType"]
        base = document.get("BaseDetection")
        owner = bases.get(base, (path, document)) if isinstance(base, str) else (path, document)
        module = _module(module_of(*owner), files, sources.modules)
        item_id = document.get(_IDS.get(kind, ""))
        text = files[path].decode("utf-8-sig").splitlines()
        item = Item(path, kind, item_id if isinstance(item_id, str) else path, document, lines, text, module)
        sources.items.append(item)
        if kind == "global" and module is not None:
            sources.helpers[item.id] = module
    return sources


def _module(path: str, files: Mapping[str, bytes], known: dict[str, Module]) -> Module | None:
    if path not in known and path in files and path.endswith(".py"):
        try:
            tree = ast.parse(files[path])
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
        if _depth(tree) > _DEEP:
            return None
        known[path] = Module(path, files[path], tree)
    return known.get(path)


def _depth(tree: ast.AST) -> int:
    """How deeply nodes are nested."""
    depth, level = 0, [tree]
    while level:
        depth += 1
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return depth
