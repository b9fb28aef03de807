"""Guards: what must hold of an event for a rule to match or to reach state, and an index that finds rules by it (DESIGN 7).

    facts.py        what can be said of an event's fields, and the arithmetic of that
    values.py       abstract values; which calls can do no harm
    world.py        the code that one rule can reach, and which of its globals never change
    expressions.py  what expressions can come to
    analysis.py     goes through rule() and the helpers it calls
    index.py        from the values of an event's fields to the rules that it can concern

Sound by construction: whatever is not understood is no guard, never a wrong one. Skipping a rule whose guard does not hold may
hide an exception or a print of the skipped part, nothing else (PANTHER_FORMAT 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import rules.guards.values  # noqa: F401 - remembers what builtins and events are, before a pack can change them
from rules.errors import SourceLocation
from rules.guards.facts import ABSENT, ALWAYS, Clause, Facts, is_of_texts
from rules.guards.index import Index

__all__ = ["Guard", "Index", "clause_text"]


@dataclass(frozen=True, slots=True)
class Guard:
    """What must hold of a raw event for a rule to match or to reach state."""

    facts: Facts
    """ALWAYS where the rule has no guard."""
    reason: str = ""
    """Why it has none."""
    place: SourceLocation | None = None
    """Where in the pack that shows."""

    @property
    def clauses(self) -> list[Clause]:
        """All of which must hold, in a fixed order."""
        return sorted(self.facts, key=lambda clause: (len(clause), clause_text(clause)))

    @property
    def names_text(self) -> bool:
        """Where it does, lines without that text need not be parsed for the rule."""
        return any(map(is_of_texts, self.facts))

    def __bool__(self) -> bool:
        return self.facts != ALWAYS


_SHOWN = 6
"""So many values of a field are printed."""


def clause_text(clause: Clause) -> str:
    """A clause as a person reads it."""
    by_path: dict[tuple[str, ...], list[str]] = {}
    for path, value in clause:
        by_path.setdefault(path, []).append("absent" if value is ABSENT else _json(value))
    return " or ".join(f"{'.'.join(path)} is {_listed(sorted(values))}" for path, values in sorted(by_path.items()))


def _json(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def _listed(values: list[str]) -> str:
    shown = values if len(values) <= _SHOWN + 1 else [*values[:_SHOWN], f"{len(values) - _SHOWN} others"]
    return ", ".join(shown[:-1]) + (" or " if len(shown) > 1 else "") + shown[-1]
