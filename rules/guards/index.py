"""Index: which rules an event can concern, by their guards. Looks at a handful of fields, however many rules there are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rules.event import folded_keys
from rules.guards.facts import ABSENT, Clause, Path, is_of_texts, value_at

if TYPE_CHECKING:
    from rules.guards import Guard

_ONE_SPELLING = re.compile(r"[ !#-.0-\[\]-~]+")
"""Printable ASCII without quote, slash and backslash: JSON spells such a text in one way, unless it uses `\\u`."""

_MERGED_KEPT = 65_536


class Index:
    """`guards[n]` is that of the n-th rule, None where it is evaluated on every event."""

    def __init__(self, guards: Sequence[Guard | None]) -> None:
        clauses = [guard.clauses if guard is not None else [] for guard in guards]
        chosen = _chosen(clauses)
        self._always = tuple(n for n, clause in enumerate(chosen) if clause is None)
        self._clauses = clauses
        groups: dict[Path, dict[Any, list[int]]] = {}
        for n, clause in enumerate(chosen):
            for path, value in clause or ():
                groups.setdefault(path, {}).setdefault(value, []).append(n)
        self._groups: list[tuple[int, ...]] = []
        """Rules that share a value of a field."""
        self._flat: list[tuple[str, str, dict[Any, int]]] = []
        """(field, the same in lower case, {value: group})"""
        self._deep: list[tuple[Path, dict[Any, int]]] = []
        for path, table in groups.items():
            numbered = {value: self._numbered(rules) for value, rules in table.items()}
            if len(path) == 1:
                self._flat.append((path[0], path[0].lower(), numbered))
            else:
                self._deep.append((path, numbered))
        self._merged: dict[tuple[int, ...], tuple[int, ...]] = {}

    def _numbered(self, rules: list[int]) -> int:
        self._groups.append(tuple(rules))
        return len(self._groups) - 1

    @property
    def texts(self) -> frozenset[str] | None:
        """Texts of which every event that can concern a rule holds one, as a JSON string. None where some rule asks for none."""
        found: set[str] = set()
        for clauses in self._clauses:
            of_texts = [clause for clause in clauses if is_of_texts(clause)]
            if not of_texts:
                return None
            best = min(of_texts, key=lambda clause: (_spellings(clause), len({fact.value for fact in clause} - found)))
            found.update(fact.value for fact in best)
        return frozenset(found)

    @property
    def without_texts(self) -> tuple[int, ...]:
        """The rules that keep `texts` from being known."""
        return tuple(n for n, clauses in enumerate(self._clauses) if not any(map(is_of_texts, clauses)))

    def candidates(self, event: dict[str, Any], folded: list[dict[str, str]]) -> tuple[int, ...]:
        """The rules whose guard may hold of an event, ascending. The event is raw: keys count without regard to case.

        `folded` is empty, or has the event's folded_keys(), for all who look at it: they are made once.
        """
        found: tuple[int, ...] = ()
        for field, lower, table in self._flat:
            value = event.get(field, ABSENT)
            if value is ABSENT:
                if not folded:
                    folded.append(folded_keys(event))
                actual = folded[0].get(lower)
                if actual is not None:
                    value = event[actual]
            try:
                group = table.get(value)
            except TypeError:  # a dict or a list: no guard is about those
                continue
            if group is not None:
                found += (group,)
        for path, table in self._deep:
            value = value_at(event, path)
            try:
                group = table.get(value)
            except TypeError:
                continue
            if group is not None:
                found += (group,)
        if not found:
            return self._always
        merged = self._merged.get(found)
        return self._merge(found) if merged is None else merged

    def _merge(self, found: tuple[int, ...]) -> tuple[int, ...]:
        if len(self._merged) >= _MERGED_KEPT:
            self._merged.clear()
        rules = {n for group in found for n in self._groups[group]}
        merged = self._merged[found] = tuple(sorted(rules.union(self._always)))
        return merged


def _spellings(clause: Clause) -> bool:
    """Whether one of its texts can be spelled in several ways in JSON."""
    return not all(_ONE_SPELLING.fullmatch(fact.value) for fact in clause)


def _chosen(clauses: Sequence[Sequence[Clause]]) -> list[Clause | None]:
    """For each rule the clause to find it by: few fields for all of them, and those that tell rules apart."""
    values: dict[Path, set[Any]] = {}
    rules: Counter[Path] = Counter()
    for each in clauses:
        for path in {fact.path for clause in each for fact in clause}:
            rules[path] += 1
        for clause in each:
            for path, value in clause:
                values.setdefault(path, set()).add(value)

    def cost(clause: Clause) -> tuple[int, int, int, int]:
        """Rules that share a field share the look at it; the more values it has among them, the fewer share a value."""
        paths = {fact.path for fact in clause}
        common = sum(type(fact.value) is not str for fact in clause)  # null, true or absent stand in many events
        return common, len(paths), -max((len(values[path]) * rules[path] for path in paths), default=0), len(clause)

    return [min(each, key=cost, default=None) for each in clauses]
