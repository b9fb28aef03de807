"""Shapes: what a place in a YAML file may hold, as data; and the checker that reports every place that holds something else."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rules.errors import Problem, SourceLocation
from rules.yaml12 import Lines

Path = tuple[str | int, ...]
"""The keys and indices that lead to a place in a file."""


class Leaf(NamedTuple):
    """A value that is told by looking at it."""

    name: str
    holds: Callable[[Any], bool]


class Each(NamedTuple):
    """A list of the same."""

    element: Shape
    at_least: int = 0
    at_most: int | None = None

    @property
    def name(self) -> str:
        if self.at_least == self.at_most:
            return f"a list of exactly {self.at_least}"
        return f"a list of at least {self.at_least}" if self.at_least else "a list"

    def holds(self, value: Any) -> bool:
        return (
            isinstance(value, list)
            and len(value) >= self.at_least
            and (self.at_most is None or len(value) <= self.at_most)
        )


class Named(NamedTuple):
    """A mapping from names of the author's choice."""

    element: Shape
    name: str = "a mapping"

    def holds(self, value: Any) -> bool:
        return isinstance(value, dict)


class Keys(NamedTuple):
    """A mapping with keys of the format."""

    keys: Mapping[str, Shape]
    required: tuple[str, ...] = ()
    one_of: tuple[tuple[str, ...], ...] = ()
    """Of each group exactly one key is given."""
    some_of: tuple[tuple[str, ...], ...] = ()
    """Of each group at least one key is given."""
    whole: Leaf | None = None
    """What must hold of the mapping when each of its keys is as it should be."""
    name: str = "a mapping"


class Choice(NamedTuple):
    """What a place holds decides which shape it must have."""

    shape_of: Callable[[Any], Shape]
    name: str = "a mapping"


Shape = Leaf | Each | Named | Keys | Choice


class Checker:
    """Collects what is wrong with one file."""

    def __init__(self, path: str, lines: Lines, problems: list[Problem], *, ignore_extra_keys: bool = False) -> None:
        self._path = path
        self._lines = lines
        self._problems = problems
        self._ignore_extra_keys = ignore_extra_keys

    def refuse(self, where: Path, message: str, remedy: str) -> None:
        self._problems.append(Problem(SourceLocation(self._path, self._lines.of(*where)), message, remedy))

    def check(self, where: Path, value: Any, shape: Shape) -> None:
        """Report every place at or below `where` that is not of its shape."""
        match shape:
            case Choice():
                self.check(where, value, shape.shape_of(value))
            case Keys():
                self._keys(where, value, shape)
            case _ if not shape.holds(value):
                named = where and isinstance(where[-1], str)
                said = f"{where[-1]} holds {shown(value)}" if named else f"{shown(value)} does not belong here"
                self.refuse(where, said, f"give {shape.name}")
            case Each(element=element):
                for number, each in enumerate(value):
                    if not (isinstance(element, Leaf) and element.holds(each)):
                        self.check((*where, number), each, element)
            case Named(element=element):
                for name, each in value.items():
                    self.check((*where, name), each, element)

    def _keys(self, where: Path, value: Any, shape: Keys) -> None:
        if not isinstance(value, dict):
            names = ", ".join([*shape.required, *(" or ".join(group) for group in shape.one_of)])
            self.refuse(where, f"{shown(value)} is no mapping", f"give {names or shape.name}")
            return
        before = len(self._problems)
        for name in shape.required:
            if name not in value:
                self.refuse(where, f"{name} is missing", f"add {name}: {shape.keys[name].name}")
        for group in (*shape.one_of, *shape.some_of):
            if value.keys().isdisjoint(group):
                self.refuse(where, f"{' or '.join(group)} is missing", "give one of them")
        for group in shape.one_of:
            given = [name for name in group if name in value]
            if len(given) > 1:
                self.refuse((*where, given[1]), f"{' and '.join(given)} exclude each other", "keep one of them")
        for name, held in value.items():
            known = shape.keys.get(name)
            if known is None:
                if not self._ignore_extra_keys:
                    near = difflib.get_close_matches(str(name), shape.keys, 1)
                    self.refuse((*where, name), f"unknown key {name!r}", f"write {near[0]}" if near else "remove it")
            elif not (isinstance(known, Leaf) and known.holds(held)):  # the usual case costs no call
                self.check((*where, name), held, known)
        if shape.whole is not None and before == len(self._problems) and not shape.whole.holds(value):
            self.refuse(where, f"{where[-1]} holds {shown(value)}", f"give {shape.whole.name}")


def shown(value: Any) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."
