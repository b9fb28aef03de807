"""Capture: what was stored at one moment, read later, and by another thread, while the stream goes on.

Nothing is copied at that moment. Whoever changes what was captured keeps what was there before in a table of the capture
first. So its reader looks at what is there now, and then for what was kept, in this order; what was kept counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Generic, TypeVar
from weakref import ReferenceType, ref

K = TypeVar("K")
V = TypeVar("V")


class Capture(Generic[K, V]):
    """Keys, and the immutable values that they had."""

    def __init__(
        self,
        keys: Collection[K],
        now: Callable[[K], V],
        kept: Mapping[K, V],
        wanted: Callable[[V], bool] | None = None,
    ) -> None:
        """`keys` do not change. `now` gives a key's value as it is, `kept` will have what it was before its first change.

        Keys with values that are not `wanted` are left out when they are read.
        """
        self._keys = keys
        self._now = now
        self._moved: dict[K, V] = {}
        self._kept: list[Mapping[K, V]] = [self._moved, kept]
        self._wanted = wanted

    def __len__(self) -> int:
        """How many keys were captured, wanted or not."""
        return len(self._keys)

    def go_on_in(self, kept: Mapping[K, V]) -> None:
        """What keys were before their changes stands in another table from here on."""
        self._kept.append(kept)

    def keep(self, key: K, value: V) -> None:
        """A key is about to change, or to leave, without the tables' hearing of it; `value` is what it has now."""
        if key not in self._moved:
            self._moved[key] = next((kept[key] for kept in self._kept if key in kept), value)

    def slices(self, count: int) -> Iterator[tuple[list[K], list[V]]]:
        """The keys, at most so many at a time, with the values that they had."""
        rest = iter(self._keys)
        while keys := list(islice(rest, count)):
            yield self._read(keys)

    def _read(self, keys: list[K]) -> tuple[list[K], list[V]]:
        values = list(map(self._now, keys))  # all of them before any table: one that changes meanwhile is in a table
        for kept in reversed(self._kept):  # of several the earliest counts
            if kept:
                for at, key in enumerate(keys):
                    if key in kept:
                        values[at] = kept[key]
        if self._wanted is not None and not all(map(self._wanted, values)):
            pairs = [pair for pair in zip(keys, values, strict=True) if self._wanted(pair[1])]
            return [key for key, _ in pairs], [value for _, value in pairs]
        return keys, values


class Joint(Generic[K, V]):
    """Several captures of one moment as one."""

    def __init__(self, parts: Sequence[Capture[K, V]]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        """How many keys were captured, wanted or not."""
        return sum(map(len, self._parts))

    def slices(self, count: int) -> Iterator[tuple[list[K], list[V]]]:
        """See Capture; up to twice as many at a time."""
        keys: list[K] = []
        values: list[V] = []
        for part in self._parts:
            for more_keys, more_values in part.slices(count):
                keys += more_keys
                values += more_values
                if len(keys) >= count:
                    yield keys, values
                    keys, values = [], []
        if keys:
            yield keys, values


class Captures(Generic[K, V]):
    """The captures that somebody may still read."""

    def __init__(self) -> None:
        self._references: list[ReferenceType[Capture[K, V]]] = []

    def add(self, capture: Capture[K, V]) -> Capture[K, V]:
        self._references.append(ref(capture))
        return capture

    def go_on_in(self, kept: Mapping[K, V]) -> None:
        """See Capture."""
        alive = self._alive()
        for capture in alive:
            capture.go_on_in(kept)
        self._references = list(map(ref, alive))

    def keep(self, keys: Collection[K], now: Callable[[K], V]) -> None:
        """See Capture."""
        for capture in self._alive() if self._references else ():
            for key in keys:
                capture.keep(key, now(key))

    def forget(self) -> None:
        """What is read from now on is of no use to anybody."""
        self._references = []

    def _alive(self) -> list[Capture[K, V]]:
        return [capture for reference in self._references if (capture := reference()) is not None]
