"""What machines receive, and the plain values inside: frozen, past tense. What they ask for is in effects.py."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from cluster.core.keygroups import Owners
from cluster.core.poison import NO_POISON, Poison
from cluster.core.routed import Position as Position
from cluster.core.routed import RoutedEvent, RoutedEvents
from cluster.core.watermark import SliceTimes, Watermark
from rules.rule import Match, RuleError
from rules.state import Row
from rules.windows import WindowRow

Format = Literal["jsonl", "records", "parquet"]
Compression = Literal["gzip", "zstd"] | None

Order = tuple[int, int, int]
"""The place of an evaluation inside its epoch: (slice number, index in the slice, rule ordinal)."""


# --- the source -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Partition:
    """One file of the source. `index` is its place in the job's order (DESIGN 11.23), and the first part of a position."""

    index: int
    path: str
    format: Format
    compression: Compression
    size_bytes: int
    mtime_ns: int
    head_digest: str
    rows: int | None
    """Parquet only: the number of rows."""
    log_type: str | None
    first_time_s: float | None

    @property
    def is_plain(self) -> bool:
        """Its lines stand in the file as they are: it can be read anywhere, and again."""
        return self.format == "jsonl" and self.compression is None


@dataclass(frozen=True, slots=True)
class Slice:
    """A contiguous range of one partition: bytes of the decompressed JSON Lines, else record numbers. None is the end."""

    partition: int
    start: int
    stop: int | None


class TooLong(NamedTuple):
    """A record over the size limit: it was measured, never held."""

    offset: int
    length_bytes: int
    head: bytes


class Lines(NamedTuple):
    """Lines of JSON that nobody has cut yet (lines.py does): none over the size limit, none behind a byte order mark."""

    offset: int
    """The place of the first one."""
    data: bytes
    end: int
    """The lines end here; what follows in `data` is the beginning of another."""
    again: bool = False
    """They can be read again at their places, by whoever sees the source."""

    @property
    def next_start(self) -> int:
        """The place after the last one."""
        return self.offset + self.end


class CutLines(NamedTuple):
    """Lines among which something is special, cut with care."""

    raws: list[bytes]
    offsets: list[int]
    too_long: list[TooLong]
    next_start: int


@dataclass(frozen=True, slots=True)
class Records:
    """What a slice held: `raws` and `offsets`, one entry a record, blank lines have none; or else `lines`.

    `lines` may be read while it is iterated, piece by piece, so that a piece is still in the processor's cache when it is
    looked at; then it raises what reading raises. It can be iterated again.
    """

    raws: list[bytes]
    offsets: list[int]
    too_long: list[TooLong]
    next_start: int
    """Where the next slice of this partition starts."""
    at_end: bool
    """Nothing follows in this partition."""
    lines: Iterable[Lines | CutLines] = ()


# --- an epoch on its way through a shard -------------------------------------------------------------------------

_Columns = tuple[tuple[Any, ...], ...]
"""Named tuples as they are pickled: that takes a seventh of the time."""


def _columns(rows: Iterable[tuple[Any, ...]]) -> _Columns:
    return tuple(zip(*rows, strict=True))


def _rows(kind: Any, columns: _Columns) -> list[Any]:
    return list(map(kind._make, zip(*columns, strict=True)))


class Task(NamedTuple):
    """A slice of an epoch, its place in the epoch's order, and the shard that ingests it."""

    number: int
    shard: int
    slice: Slice


@dataclass(frozen=True, slots=True)
class RoutedSlice:
    """One slice's events for one shard, in order, and what every shard must know of the slice."""

    number: int
    times: SliceTimes
    events: RoutedEvents


class FoundMatch(NamedTuple):
    """An evaluation whose rule() returned True, on its way to the shard that groups its (rule, dedup)."""

    order: Order
    position: Position
    event_id: str
    log_type: str
    event_time_s: float
    clock_s: float
    match: Match


class FoundError(NamedTuple):
    """A rule error at its place."""

    order: Order
    position: Position
    event_id: str
    rule_id: str
    error: RuleError


class Output(NamedTuple):
    """One finished record (a JSON object, no newline) for a sink, at its place."""

    order: Order
    position: Position
    record: bytes


class AlertOutput(NamedTuple):
    """A finished alert with what the limiter must know of it."""

    order: Order
    position: Position
    record: bytes
    rule_id: str
    created_s: float


class JoinedEvaluation(NamedTuple):
    """An evaluation on its way into the serial lane (lane.py), with all that it takes to run it anywhere."""

    order: Order
    partition: int
    clock_s: float
    event: RoutedEvent
    keys: tuple[str, ...]
    """The keys that it is known to touch."""


@dataclass(slots=True)
class RuleCounts:
    """What one rule cost."""

    evaluations: int = 0
    deferred: int = 0
    """Those that asked for a key of another shard."""
    lane: int = 0
    """Those whose result is the serial lane's, because of a key of their own or of one that they share."""
    lane_s: float = 0.0
    parsed: int = 0
    """Events that had to be parsed for it, as its guard asks for no text that could be looked for first."""

    def add(self, other: RuleCounts) -> None:
        self.evaluations += other.evaluations
        self.deferred += other.deferred
        self.lane += other.lane
        self.lane_s += other.lane_s
        self.parsed += other.parsed


@dataclass(slots=True)
class Counts:
    """What a shard did in an epoch; summed up in the run's summary."""

    events: int = 0
    skipped_unparsed: int = 0
    probes: int = 0
    evaluations: int = 0
    deferred: int = 0
    rules: dict[str, RuleCounts] = field(default_factory=dict)
    """By RuleID: those that reached state, or kept the prefilter away."""

    def add(self, other: Counts) -> None:
        self.events += other.events
        self.skipped_unparsed += other.skipped_unparsed
        self.probes += other.probes
        self.evaluations += other.evaluations
        self.deferred += other.deferred
        for rule_id, counts in other.rules.items():
            self.rules.setdefault(rule_id, RuleCounts()).add(counts)


class Blob(NamedTuple):
    """A snapshot in the store, and the key groups of which its rows count: those that its shard has owned ever since.

    Of a group that moved away since, or came back, later blobs hold all there is.
    """

    name: str
    groups: frozenset[int]


# --- messages to a shard -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The job begins or goes on: restore what these blobs hold of the shard's key groups, in this order."""

    epoch: int
    """The last epoch whose effects the blobs hold; 0 for a new job."""
    watermark: Watermark
    blobs: tuple[Blob, ...]
    owners: Owners
    """Who owns what at the end of that epoch."""
    poison: Poison = NO_POISON
    """What is not to be evaluated."""


@dataclass(frozen=True, slots=True)
class Joined:
    """The shard takes part in a running job from the next cut on that it hears of; there is nothing for it to restore."""

    poison: Poison = NO_POISON
    """What is not to be evaluated."""


@dataclass(frozen=True, slots=True)
class BlobsLoaded:
    """Answers LoadBlobs."""

    blobs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EpochCut:
    """The coordinator cut an epoch. Every shard hears of every task; each ingests its own."""

    epoch: int
    tasks: tuple[Task, ...]
    checkpoint: bool
    shards: int
    """How many take part: those with a lower number."""
    owners: Owners
    """Who owns what in it, from routing to grouping. Only a cut changes that."""
    base: bool = False
    """With a checkpoint: one that rests on no earlier snapshot, for the store has lost some."""
    target: Owners | None = None
    """Who will own what after some more cuts."""


@dataclass(frozen=True, slots=True)
class GroupsGiven:
    """What moves with the next epoch is on its way to its new owners: they need not wait for this shard to execute it."""

    epoch: int


@dataclass(frozen=True, slots=True)
class KeysCopied:
    """Keys that the receiver will own before long, as they were at the sender's. GroupsMoved says what has changed since."""

    keys: list[Row]

    def __reduce__(self) -> tuple[object, ...]:
        return _keys_copied, _columns(self.keys)


def _keys_copied(*columns: tuple[Any, ...]) -> KeysCopied:
    return KeysCopied(_rows(Row, columns))


@dataclass(frozen=True, slots=True)
class GroupsMoved:
    """What the receiver owns from this epoch on and the sender owned before it."""

    epoch: int
    sender: int
    watermark: Watermark
    """W at the epoch's start: a shard that joins knows no other."""
    groups: tuple[int, ...]
    copied: int
    """How many rows of them are in KeysCopied."""
    keys: list[Row]
    """Those of their keys that have changed since they were copied, tombstones among them."""
    windows: list[WindowRow]
    """All of theirs."""
    executed_s: float
    """When the sender had executed the epoch before, by its timer."""


@dataclass(frozen=True, slots=True)
class SliceRead:
    """Answers ReadSlice."""

    epoch: int
    number: int
    records: Records


@dataclass(frozen=True, slots=True)
class TimeKnown:
    """Answers SliceParsed(needs_time): the time of the last event before the slice (DESIGN 11.3)."""

    epoch: int
    number: int
    time_s: float


@dataclass(frozen=True, slots=True)
class EventsRouted:
    """All that one shard's slices of an epoch hold for the receiver; sent even when empty, which makes it the barrier."""

    epoch: int
    sender: int
    slices: tuple[RoutedSlice, ...]


@dataclass(frozen=True, slots=True)
class EpochExecuted:
    """A shard has executed an epoch: its matches that the receiver groups. Sent even when empty, which makes it the barrier."""

    epoch: int
    sender: int
    matches: list[FoundMatch]
    deferred: int
    """How many evaluations the sender could not finish; with any, the epoch is resolved by its serial lane."""
    joining: list[JoinedEvaluation]
    """These evaluations, where the receiver runs the lane."""
    routed: EventsRouted | None = None
    """What the sender has for the receiver of the next epoch, where it knows that by now: the receiver cannot execute that one
    before it has this, so one message does for both."""

    def __reduce__(self) -> tuple[object, ...]:
        matches = _columns(self.matches)
        return _epoch_executed, (self.epoch, self.sender, matches, self.deferred, self.joining, self.routed)


def _epoch_executed(epoch: int, sender: int, matches: _Columns, *rest: Any) -> EpochExecuted:
    return EpochExecuted(epoch, sender, _rows(FoundMatch, matches), *rest)


@dataclass(frozen=True, slots=True)
class KeysAsked:
    """The serial lane of an epoch needs these keys of the receiver, and every evaluation that touched one of them."""

    epoch: int
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeysLent:
    """Answers KeysAsked: the keys as they were when the epoch began, those that their evaluations drew in as well."""

    epoch: int
    sender: int
    rows: list[Row]
    joining: list[JoinedEvaluation]


@dataclass(frozen=True, slots=True)
class LaneRan:
    """The serial lane of an epoch is through: what it leaves behind for the receiver. Sent even when empty."""

    epoch: int
    rows: list[Row]
    """The receiver's keys that were lent, as they are now."""
    orders: frozenset[Order]
    """The evaluations that ran in the lane; whatever they came to before is void."""
    matches: list[FoundMatch]
    errors: list[FoundError]


@dataclass(frozen=True, slots=True)
class StateAsked:
    """Somebody wants to see keys as they are when `epoch`, the last that was cut, is through."""

    epoch: int
    wanted: StateWanted


@dataclass(frozen=True, slots=True)
class SnapshotStored:
    """Answers StoreSnapshot, and then goes on to the coordinator with the shard's number."""

    epoch: int
    shard: int
    names: tuple[str, ...]
    """Its blobs, in order."""
    size_bytes: int
    """All of them together."""


@dataclass(frozen=True, slots=True)
class CheckpointCommitted:
    """The job's newest checkpoint: it holds these blobs, of all shards, and nobody goes back to before it."""

    epoch: int
    blobs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SnapshotFailed:
    """The store took no snapshot: the checkpoint of that epoch will not be."""

    epoch: int
    shard: int
    reason: str


# --- messages to the coordinator ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passed. The only clock a machine sees."""

    now_s: float


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Somebody asked the run to end: checkpoint, then stop."""


@dataclass(frozen=True, slots=True)
class StateWanted:
    """Somebody wants to see one key, or the first `limit` of those that begin with `prefix`."""

    number: int
    """Says which answer is whose."""
    key: str | None
    prefix: str = ""
    limit: int = 1


@dataclass(frozen=True, slots=True)
class StateTold:
    """A shard's part of the answer to StateAsked."""

    number: int
    shard: int
    rows: list[Row]
    """In key order, without gaps."""
    found: int
    """How many there are, those that are left out included."""


@dataclass(frozen=True, slots=True)
class RescaleRequested:
    """Somebody asked for another number of shards. Those that are new run already and can be reached by all."""

    shards: int


@dataclass(frozen=True, slots=True)
class SourceGrew:
    """A spooled partition has more complete lines (stdin), or has ended."""

    partition: int
    size_bytes: int
    at_end: bool


@dataclass(frozen=True, slots=True)
class ShardRestored:
    shard: int


@dataclass(frozen=True, slots=True)
class SliceParsed:
    """A slice starts with events that have no time; the shard waits for TimeKnown."""

    epoch: int
    number: int
    last_time_s: float | None


@dataclass(frozen=True, slots=True)
class SliceIngested:
    """A slice has been read to its end."""

    epoch: int
    number: int
    records: int
    next_start: int
    at_end: bool
    last_time_s: float | None
    """The time of its last event that has one of its own."""


class Moves(NamedTuple):
    """What came to a shard with an epoch, and for how long nothing ran. Times are good where all shards share a clock."""

    groups: int
    keys: int
    moving_s: float
    """Since the former owners had executed the epoch before."""
    staying_s: float
    """The same for the groups that the shard had before."""


AT_REST = Moves(0, 0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class EpochGrouped:
    """A shard has finished its part of an epoch."""

    epoch: int
    shard: int
    watermark: Watermark
    """W after the epoch: the same from every shard."""
    counts: Counts
    keys: int = 0
    """How many keys the shard stores."""
    copied: tuple[int, ...] = ()
    """The groups that it has copied to the owners that the cut's target names, besides those it told of before."""
    moves: Moves = AT_REST
    matches: list[Output] = field(default_factory=list)
    alerts: list[AlertOutput] = field(default_factory=list)
    errors: list[Output] = field(default_factory=list)
    dead_letters: list[Output] = field(default_factory=list)

    def __reduce__(self) -> tuple[object, ...]:
        told = self.epoch, self.shard, self.watermark, self.counts, self.keys, self.copied, self.moves
        return _epoch_grouped, (told, _columns(self.matches), self.alerts, self.errors, self.dead_letters)


def _epoch_grouped(told: tuple[Any, ...], matches: _Columns, *rest: Any) -> EpochGrouped:
    fields = [*told, _rows(Output, matches), *rest]
    return EpochGrouped(*fields)


@dataclass(frozen=True, slots=True)
class SnapshotAdded:
    """A shard's snapshot is in the store: `chain` is the base and deltas that now hold all its key groups."""

    epoch: int
    shard: int
    chain: tuple[Blob, ...]


@dataclass(frozen=True, slots=True)
class ManifestCommitted:
    """Answers CommitManifest."""

    epoch: int


@dataclass(frozen=True, slots=True)
class ManifestFailed:
    """The store did not take it; the next checkpoint will do."""

    epoch: int
    reason: str
    rebase: bool = False
    """It has lost blobs: only bases are whole now."""


Message = Any
"""Machines dispatch on the class; a message they do not know is a programming error and raises InvariantBroken."""
