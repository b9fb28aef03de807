"""What is assigned in a function, and which assignments a use of a name may see."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple


class Binding(NamedTuple):
    """A value that is bound to a name."""

    end: tuple[int, int]
    """Where the statement ends: later uses see it."""
    block: tuple[int, ...]
    """The blocks in which it stands."""
    value: ast.expr | None
    """None: something that cannot be followed."""
    loop: int = 0
    """Not 0: the name is the variable of this loop over the value."""


class Locals:
    """The names that a function assigns, and which assignments reach a use."""

    def __init__(self, function: ast.FunctionDef) -> None:
        self.globals: set[str] = set()
        self.assigned: dict[str, list[Binding]] = {}
        self._block_of: dict[ast.AST, tuple[int, ...]] = {}
        self._visit(function.body, (0,))

    def before(self, name: ast.Name) -> tuple[list[Binding], bool]:
        """Those bindings of a name that a use of it may see, and whether one of them is always executed before."""
        bindings = self.assigned[name.id]
        use, block = (name.lineno, name.col_offset), self._block_of.get(name, (0,))
        seen = sorted((binding for binding in bindings if binding.end <= use), key=lambda binding: binding.end)
        for number in range(len(seen) - 1, -1, -1):
            if seen[number].block == block[: len(seen[number].block)]:
                return seen[number:], True
        return seen or bindings, False

    def _visit(self, body: list[ast.stmt], block: tuple[int, ...]) -> None:
        for statement in body:
            self._statement(statement, block)

    def _statement(self, statement: ast.stmt, block: tuple[int, ...]) -> None:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self._bind(ast.Name(statement.name), statement, block, None)
            return
        match statement:
            case ast.Global(names=names):
                self.globals.update(names)
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._bind(target, statement, block, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._bind(target, statement, block, value)
            case ast.AugAssign(target=ast.Name(id=name) as target, op=operator, value=value):
                before = ast.copy_location(ast.Name(name, ast.Load()), target)
                self._block_of[before] = block
                self._bind(target, statement, block, ast.copy_location(ast.BinOp(before, operator, value), statement))
            case ast.For(target=target, iter=iterated):
                self._bind(target, iterated, (*block, id(statement.body)), iterated, loop=id(statement))
            case ast.With(items=items):
                for item in items:
                    if item.optional_vars is not None:
                        self._bind(item.optional_vars, item.context_expr, block, None)
        for child in ast.iter_child_nodes(statement):
            if isinstance(child, ast.expr):
                self._expression(child, block)
        for name in ("body", "orelse", "finalbody"):
            inner = getattr(statement, name, None)
            if inner:
                # What stands in a `with` or `finally` is always executed.
                always = isinstance(statement, ast.With) or name == "finalbody"
                self._visit(inner, block if always else (*block, id(inner)))
        for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
            for child in ast.walk(part.pattern) if isinstance(part, ast.match_case) else ():
                if isinstance(child, ast.MatchAs | ast.MatchStar) and child.name:
                    self._bind(ast.Name(child.name), statement.subject, (*block, id(part)), None)  # type: ignore[attr-defined]
            self._visit(part.body, (*block, id(part)))

    def _expression(self, expression: ast.expr, block: tuple[int, ...]) -> None:
        for node in ast.walk(expression):
            match node:
                case ast.Name():
                    self._block_of[node] = block
                case ast.NamedExpr(target=target, value=value):
                    self._bind(target, node, block, value)
                case ast.comprehension(target=target, iter=iterated):
                    for name in ast.walk(target):
                        if isinstance(name, ast.Name):
                            plain = iterated if name is target else None
                            binding = Binding((0, 0), block, plain, loop=id(node))
                            self.assigned.setdefault(name.id, []).append(binding)

    def _bind(
        self,
        target: ast.expr,
        place: ast.stmt | ast.expr,
        block: tuple[int, ...],
        value: ast.expr | None,
        loop: int = 0,
    ) -> None:
        """Note an assignment to a name, or to several at once."""
        end = (place.end_lineno or place.lineno, place.end_col_offset or place.col_offset)
        if isinstance(target, ast.Name):
            self.assigned.setdefault(target.id, []).append(Binding(end, block, value, loop))
        elif isinstance(target, ast.Tuple | ast.List):
            values: Iterator[ast.expr | None] = iter(
                value.elts
                if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts) and not loop
                else [None] * len(target.elts)
            )
            for element in target.elts:
                self._bind(element, place, block, next(values), 0)
        elif isinstance(target, ast.Starred):
            self._bind(target.value, place, block, None)
