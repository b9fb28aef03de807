"""Routed events: those of one slice for one shard, by columns.

A tuple for each would be a dozen small objects that stay while others come and go around them: then what is parsed next lies
scattered in memory, and parsing takes half as long again. All numbers of an event are a row of bytes, pickled at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import NamedTuple

from rules.recall import Known

Position = tuple[int, ...]
"""The public place of an event: (partition, offset) or (partition, offset, sub-index). Never depends on shards or epochs."""

Cited = tuple[int, int]
"""(length in bytes, digest) of a record that is not carried along, for it can be read again at its place: with its newline
where it was cut with it (lines.py)."""

_ROW = Struct("<qqddqQq")

packed: Callable[[int, int, float, float, int, int, int], bytes] = _ROW.pack
"""A Row as bytes."""

Row = tuple[int, int, float, float, int, int, int]
"""(place, offset, time_s, local_w_s, length in bytes, digest, epoch_s) as in a RoutedEvent; no length and no digest of a record
that is carried along."""

Route = tuple[str, tuple[int, ...], Known]
"""(log_type, rules, known) as in a RoutedEvent. Events with the same answers share it."""

Item = tuple[Row, Route]
"""An event as the columns have it."""


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
    row_id: str | None
    """Its own id, if it has one (row_id_of() in ingest.py)."""


class RoutedEvents:
    """Events in the order of the slice, of which each has a place of its own. Iterating gives a RoutedEvent for each."""

    __slots__ = ("_partition", "_rows", "raws", "routes", "row_ids", "subs")

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._rows = bytearray()
        self.routes: list[Route] = []
        """Of each event."""
        self.subs: dict[int, int] = {}
        """Place -> sub-index, of those that have one: log types that split records are rare."""
        self.row_ids: dict[int, str] = {}
        """Place -> id, of those that have one of their own."""
        self.raws: dict[int, bytes] = {}
        """Place -> record, of those that are carried along."""

    def __len__(self) -> int:
        return len(self.routes)

    def __repr__(self) -> str:
        return f"RoutedEvents({list(map(tuple, self))})"

    def append(self, row: bytes, route: Route) -> None:
        """An event, of which `row` has the numbers, packed(). What few have is set beside it: `subs`, `row_ids`, `raws`."""
        self._rows += row
        self.routes.append(route)

    def __iter__(self) -> Iterator[RoutedEvent]:
        return map(self.event, self.items())

    def items(self) -> Iterator[Item]:
        """The same, as the columns have them: who wants but a part makes nothing of the rest."""
        return zip(_ROW.iter_unpack(self._rows), self.routes, strict=True)

    def event(self, item: Item) -> RoutedEvent:
        (place, offset, time_s, local_w_s, length_bytes, digest, epoch_s), (log_type, rules, known) = item
        position = self.position(place, offset)
        raw = self.raws.get(place, (length_bytes, digest))
        row_id = self.row_ids.get(place)
        return RoutedEvent(place, position, time_s, local_w_s, log_type, rules, raw, known, epoch_s, row_id)

    def position(self, place: int, offset: int) -> Position:
        if place in self.subs:
            return self._partition, offset, self.subs[place]
        return self._partition, offset
