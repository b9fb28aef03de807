"""Keys as patterns: what is literal in a key that a rule builds, and what is only known when it runs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

WILDCARD = "{...}"


class Hole(NamedTuple):
    """A part of a key that is only known when the rule runs."""

    label: str = ""
    """Where in the event it comes from; empty where that cannot be said."""
    from_event: bool = True
    """It is a value out of the event. False: it could be anything, a prefix too."""
    loop: int = 0
    """The loop whose variable it depends on, 0 for none."""


UNKNOWN_HOLE = Hole(from_event=False)

Part = str | Hole


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text with holes. Neighbouring literals are one part: make it with pattern_of()."""

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return "".join(part if isinstance(part, str) else _shown(part) for part in self.parts)

    @property
    def holes(self) -> tuple[Hole, ...]:
        return tuple(part for part in self.parts if isinstance(part, Hole))

    @property
    def literal(self) -> str:
        """What is literal in it, with a blank for each hole."""
        return "".join(part if isinstance(part, str) else " " for part in self.parts)

    @property
    def is_constant(self) -> bool:
        return not self.holes

    @property
    def is_known(self) -> bool:
        """All that is not literal comes out of the event."""
        return all(hole.from_event for hole in self.holes)

    @property
    def is_named(self) -> bool:
        """Something literal in it reads as a name."""
        return re.search(r"\w{3}", self.literal) is not None

    @property
    def skeleton(self) -> str:
        """The same for all patterns that differ in their holes only; neighbouring holes count as one."""
        text = "".join(part if isinstance(part, str) else WILDCARD for part in self.parts)
        while WILDCARD * 2 in text:
            text = text.replace(WILDCARD * 2, WILDCARD)
        return text

    @property
    def tag(self) -> Pattern | None:
        """What decides where the key lives: between the first { and the next }, if that is not empty."""
        rest = _after(self.parts, "{")
        inside: list[Part] = []
        for part in rest:
            before, mark, _ = part.partition("}") if isinstance(part, str) else (part, "", "")
            inside.append(before)
            if mark:
                tag = pattern_of(inside)
                return tag if tag.parts else None
        return None

    def may_equal(self, other: Pattern) -> bool:
        """Whether it might be the same text. Values from two different places in the event are taken to differ."""
        if self.skeleton == other.skeleton:
            pairs = zip(self.holes, other.holes, strict=False)
            return len(self.holes) != len(other.holes) or all(
                not (one.label and two.label) or one.label == two.label for one, two in pairs
            )
        return not (self.is_known and other.is_known) and _ends_agree(self, other) and _ends_agree(other, self)


def pattern_of(parts: Iterable[Part]) -> Pattern:
    """The pattern of some parts in a row."""
    made: list[Part] = []
    for part in parts:
        if part == "":
            continue
        if isinstance(part, str) and made and isinstance(made[-1], str):
            made[-1] += part
        else:
            made.append(part)
    return Pattern(tuple(made))


def _shown(hole: Hole) -> str:
    return f"{{{hole.label}}}" if hole.label else WILDCARD


def _after(parts: tuple[Part, ...], mark: str) -> list[Part]:
    """The parts after the first literal `mark`."""
    for number, part in enumerate(parts):
        if isinstance(part, str) and mark in part:
            return [part.partition(mark)[2], *parts[number + 1 :]]
    return []


def _ends_agree(one: Pattern, other: Pattern) -> bool:
    """Whether the literal start and end of the one do not contradict those of the other."""
    start, other_start = _literal_at(one, 0), _literal_at(other, 0)
    end, other_end = _literal_at(one, -1), _literal_at(other, -1)
    starts = start.startswith(other_start) or other_start.startswith(start)
    return starts and (end.endswith(other_end) or other_end.endswith(end))


def _literal_at(pattern: Pattern, place: int) -> str:
    part = pattern.parts[place] if pattern.parts else ""
    return part if isinstance(part, str) else ""
