"""Segment: the columns of some of the keys. State divides its keys among many, so that no table holds all of them.

A table that is full is made anew, and whoever evaluates waits for it: 50 ms at 450,000 keys, for each column. Segments are of
different sizes, so that they do not come to it at the same time either.
"""

from __future__ import annotations

import math

from rules.capture import Capture, Captures

Image = tuple[int | None, tuple[str, ...] | None, str | None, int | None]
"""All that is stored under a key, in the order of Row's fields; the last is None when the key is unknown."""

UNKNOWN: Image = (None, None, None, None)
"""One for all: new keys are many, and wait for the next snapshot with it."""

SLOTS = 1021
"""A key's slot is hash(key) % SLOTS. A prime: a table looks at the lowest bits of the hash itself, and takes twice as many steps
where all its keys have them in common. Nothing that is told depends on it."""

_SEGMENTS = 64
"""With a million keys, the largest has 22,000: a table of these is made anew in 1 ms."""

_SEGMENT_OF = tuple(int(_SEGMENTS * math.log2(1 + slot / SLOTS)) for slot in range(SLOTS))
"""Slot -> segment: the last has twice as many slots as the first."""


class Segment:
    """The columns, parallel dicts that share their key strings, and what they were."""

    __slots__ = ("captures", "counters", "dictionaries", "dirty", "expiries", "sets", "taken")

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}
        self.sets: dict[str, tuple[str, ...]] = {}
        self.dictionaries: dict[str, str] = {}
        self.expiries: dict[str, int] = {}
        """In seconds since 1970. Every key is here, one that only waits for its first value included."""
        self.dirty: dict[str, Image] = {}
        """The keys that may have changed since they were taken last, with what was stored under them then."""
        self.taken: dict[str, Image] = {}
        """The same from settle() to that."""
        self.captures: Captures[str, Image] = Captures()

    def image(self, key: str) -> Image:
        expiry_s = self.expiries.get(key)
        if expiry_s is None:
            return UNKNOWN
        return self.counters.get(key), self.sets.get(key), self.dictionaries.get(key), expiry_s

    def store(self, key: str, image: Image) -> None:
        """In place of what is stored; UNKNOWN for nothing."""
        counter, members, dictionary, expiry_s = image
        self.drop_values(key)
        if expiry_s is None:
            self.expiries.pop(key, None)
        else:
            self.fill(key, counter, members, dictionary, expiry_s)

    def fill(
        self, key: str, counter: int | None, members: tuple[str, ...] | None, dictionary: str | None, expiry_s: int
    ) -> None:
        """Store this under a key that has no values."""
        self.expiries[key] = expiry_s
        if counter is not None:
            self.counters[key] = counter
        if members is not None:
            self.sets[key] = members
        if dictionary is not None:
            self.dictionaries[key] = dictionary

    def drop_values(self, key: str) -> None:
        self.counters.pop(key, None)
        self.sets.pop(key, None)
        self.dictionaries.pop(key, None)

    def take_dirty(self) -> dict[str, Image]:
        """The keys that may have changed since the last call, at no cost, however many there are."""
        taken = self.dirty
        self.taken = {**taken, **self.taken} if self.taken else taken
        self.dirty = {}
        self.captures.go_on_in(self.dirty)
        return taken

    def capture_dirty(self) -> Capture[str, Image]:
        return self.captures.add(Capture(self.take_dirty().keys(), self.image, self.dirty))

    def capture_all(self, horizon_s: float) -> Capture[str, Image]:
        self.take_dirty()
        keys = list(self.expiries)

        def wanted(image: Image) -> bool:
            return image[-1] is not None and image[-1] > horizon_s

        return self.captures.add(Capture(keys, self.image, self.dirty, wanted))

    def roll_back(self, to_settled: bool) -> None:
        """See State."""
        images = {**self.dirty, **self.taken} if to_settled else self.dirty
        for key, image in images.items():
            self.store(key, image)
        self.dirty, self.taken = {}, {}
        self.captures.forget()  # they were of a life that is over

    def let_go(self, key: str) -> None:
        """See State."""
        self.captures.keep((key,), self.image)
        self.dirty.pop(key, None)
        self.drop_values(key)
        self.expiries.pop(key, None)


def segments() -> tuple[list[Segment], list[Segment]]:
    """All segments, and for each slot the one that has it."""
    each = [Segment() for _ in range(_SEGMENTS)]
    return each, [each[segment] for segment in _SEGMENT_OF]
