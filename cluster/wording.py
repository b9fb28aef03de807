"""Pieces of sentences that several commands say to people."""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN = 3


def counted(number: int, noun: str, plural: str = "s") -> str:
    """1 match, 1,000 matches: `plural` is the noun's ending where there is not just one."""
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def first_of(names: Sequence[str]) -> str:
    """A, B, C and 5 more."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
