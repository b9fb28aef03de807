"""Facts: what must hold of an event's fields, as a conjunction of clauses. The arithmetic of guards; knows no syntax.

A fact says that what stands at a path equals one value: a text, a small whole number, true, false, null, or nothing at all.
A clause holds where one of its facts does, and facts hold where all of their clauses do. All operations may only forget:
what they give follows from what they were given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from rules.event import MISSING, find_folded

ABSENT: Any = MISSING
"""The value of a fact that says that nothing stands at its path: no such key, or no object on the way to it."""

Path = tuple[str, ...]

_SCALARS = frozenset({str, bool, type(None)})
_EXACT_BELOW = 2**53
"""Larger numbers may reach the index rounded (DESIGN 11.24)."""

_MAX_CLAUSES = 12
_MAX_FACTS = 2000
"""What a guard may grow to; beyond that clauses are forgotten, the longest first."""


class Fact(NamedTuple):
    """What stands at `path` equals `value`, as values are equal to Python: true is 1."""

    path: Path
    value: Any


Clause = frozenset[Fact]
Facts = frozenset[Clause]

ALWAYS: Facts = frozenset()
NEVER: Facts = frozenset({frozenset()})


def is_of_texts(clause: Clause) -> bool:
    """Whether an event of which it holds has one of its texts in it: such a text can be looked for before events are parsed."""
    return all(type(fact.value) is str for fact in clause)


def can_be_looked_up(value: Any) -> bool:
    """Whether an index tells the value from all others. Exact types: what a class of the pack's own equals is its business."""
    kind = type(value)
    return value is ABSENT or kind in _SCALARS or (kind is int and -_EXACT_BELOW < value < _EXACT_BELOW)


def both(one: Facts, other: Facts) -> Facts:
    """What holds where both do."""
    if one is other or not other:
        return one
    if not one:
        return other
    by_path: dict[Path, Clause] = {}
    mixed: list[Clause] = []
    for clause in (*one, *other):
        path = _only_path(clause)
        if path is None:
            mixed.append(clause)
        else:
            known = by_path.get(path)
            by_path[path] = clause if known is None else known & clause
    return _shortest((*by_path.values(), *mixed))


def either(one: Facts, other: Facts) -> Facts:
    """What holds where at least one does."""
    if one in (NEVER, other):
        return other
    if other == NEVER:
        return one
    return _shortest(mine | theirs for mine in one for theirs in other)


def one_of(path: Path, values: Collection[Any]) -> Facts:
    """One of the values stands at the path; nothing is said where one of them cannot be looked up."""
    if not all(map(can_be_looked_up, values)):
        return ALWAYS
    return frozenset({frozenset(Fact(path, value) for value in values)})


def without(facts: Facts, path: Path, values: Collection[Any]) -> Facts:
    """What is left of facts where none of the values stands at the path."""
    gone = {Fact(path, value) for value in values if can_be_looked_up(value)}
    if not any(gone & clause for clause in facts):
        return facts
    return _shortest(clause - gone for clause in facts)


def values_at(facts: Facts, path: Path) -> set[Any]:
    """Every value that a fact names at a path."""
    return {fact.value for clause in facts for fact in clause if fact.path == path}


def holds(facts: Facts, event: dict[str, Any]) -> bool:
    """Whether they hold of a raw event."""
    return all(clause_holds(clause, event) for clause in facts)


def clause_holds(clause: Clause, event: dict[str, Any]) -> bool:
    return any(same(value_at(event, fact.path), fact.value) for fact in clause)


def same(value: Any, wanted: Any) -> bool:
    """Whether a raw value is the one that a fact names."""
    return value is wanted or (type(value) in _COMPARABLE and wanted is not ABSENT and value == wanted)


_COMPARABLE = frozenset({str, bool, int, float, type(None)})


def value_at(event: dict[str, Any], path: Path) -> Any:
    """The raw value at a path, ABSENT where there is none. Keys are found as rules find them: exactly, else but for case."""
    value: Any = event
    for key in path:
        if type(value) is not dict:
            return ABSENT
        inner = value.get(key, ABSENT)
        value = find_folded(value, key) if inner is ABSENT else inner
        if value is ABSENT:
            return ABSENT
    return value


def _only_path(clause: Clause) -> Path | None:
    """The path of a clause that is about one field."""
    paths = {fact.path for fact in clause}
    return paths.pop() if len(paths) == 1 else None


def _shortest(clauses: Iterable[Clause]) -> Facts:
    """The clauses that say most; one that follows from a shorter one says nothing new."""
    kept: list[Clause] = []
    for clause in sorted(set(clauses), key=len):
        if len(clause) <= _MAX_FACTS and not any(short <= clause for short in kept):
            kept.append(clause)
            if len(kept) == _MAX_CLAUSES:
                break
    return frozenset(kept)
