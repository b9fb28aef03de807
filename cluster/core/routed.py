"""Routed events: those of one slice for one shard, by columns.

A tuple for each would be a dozen small objects that stay while others come and go around them: then what is parsed next lies
scattered in memory, and parsing takes half as long again. Numbers in arrays are also pickled at once.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import repeat
from typing import NamedTuple

from rules.recall import Known

Position = tuple[int, ...]
"""The public place of an event: (partition, offset) or (partition, offset, sub-index). Never depends on shards or epochs."""

Cited = tuple[int, int]
"""(length in bytes, digest) of a record that is not carried along, for it can be read again at its place."""

Routed = tuple[int, Position, float, float, str, tuple[int, ...], bytes | Cited, Known, int]
"""A RoutedEvent as it comes out of the columns."""


class RoutedEvent(NamedTuple):
    """An event for the shard that owns a key it touches: each event once per destination."""

    place: int
    """Its index among the events of the slice that were parsed."""
    position: Position
    time_s: float
    local_w_s: float
    """The slice's own part of W before this event (watermark.py)."""
    log_type: str
    rules: tuple[int, ...]
    """Ordinals in the pack, ascending: rules that reach state on this shard."""
    raw: bytes | Cited
    known: Known
    """What the probes asked of the event, and found."""
    epoch_s: int
    """Its event_time_epoch()."""


class RoutedEvents:
    """Events in the order of the slice. Iterating gives a Routed for each."""

    __slots__ = ("_bytes", "_digests", "_epochs_s", "_known", "_lengths", "_local_w_s", "_log_types", "_offsets",
                 "_partition", "_places", "_subs", "_times_s", "rules")  # fmt: skip

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._places = array("q")
        self._offsets = array("q")
        self._subs: dict[int, int] = {}
        """Index of the event -> its sub-index, of those that have one: log types that split records are rare."""
        self._times_s = array("d")
        self._local_w_s = array("d")
        self._log_types: list[str] = []
        self.rules: list[tuple[int, ...]] = []
        """Of each event."""
        self._lengths = array("q")
        self._digests = array("Q")
        """Both 0 for records that are carried along."""
        self._bytes: dict[int, bytes] = {}
        """Index of the event -> its record, of those that are."""
        self._known: list[Known] = []
        self._epochs_s = array("q")

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"RoutedEvents({list(self)})"

    def append(
        self,
        place: int,
        position: Position,
        time_s: float,
        local_w_s: float,
        log_type: str,
        rules: tuple[int, ...],
        raw: bytes | Cited,
        known: Known,
        epoch_s: int,
    ) -> None:
        if len(position) > 2:
            self._subs[len(self._places)] = position[2]
        if isinstance(raw, bytes):
            self._bytes[len(self._places)] = raw
            raw = (0, 0)
        self._places.append(place)
        self._offsets.append(position[1])
        self._times_s.append(time_s)
        self._local_w_s.append(local_w_s)
        self._log_types.append(log_type)
        self.rules.append(rules)
        self._lengths.append(raw[0])
        self._digests.append(raw[1])
        self._known.append(known)
        self._epochs_s.append(epoch_s)

    def __iter__(self) -> Iterator[Routed]:
        return zip(
            self._places,
            self._positions(),
            self._times_s,
            self._local_w_s,
            self._log_types,
            self.rules,
            self._raws(),
            self._known,
            self._epochs_s,
            strict=True,
        )

    def _positions(self) -> Iterator[Position]:
        plain = zip(repeat(self._partition), self._offsets)
        if not self._subs:
            return plain
        subs = self._subs
        return ((*position, subs[n]) if n in subs else position for n, position in enumerate(plain))

    def _raws(self) -> Iterator[bytes | Cited]:
        if len(self._bytes) == len(self._places):
            return iter(self._bytes.values())
        cited = zip(self._lengths, self._digests, strict=True)
        if not self._bytes:
            return cited
        carried = self._bytes
        return (carried.get(n, each) for n, each in enumerate(cited))
