"""Coordinator: cuts epochs, answers for time, merges results in position order, completes checkpoints, ends the run.

Life of a run (the table below is the whole truth):

    RESTORING   shards load the last checkpoint
    RUNNING     epochs are cut as long as there is input and credit
    DRAINING    no more input, or somebody asked to stop: one last, empty epoch with a checkpoint is on its way
    FINISHED    everything is delivered; the last checkpoint is committed or given up

Pure: time comes in as Ticked, nothing is read or written here.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from enum import Enum
from itertools import chain
from operator import attrgetter
from typing import Any, TypeVar

from cluster.core import records, snapshot
from cluster.core.effects import CommitManifest, Deliver, Effect, Finish, Send, TellState
from cluster.core.errors import InvariantBroken, require
from cluster.core.keygroups import Owners, balanced, rebalanced
from cluster.core.messages import (
    AlertOutput,
    Blob,
    CheckpointCommitted,
    Counts,
    EpochCut,
    EpochGrouped,
    Joined,
    ManifestCommitted,
    ManifestFailed,
    Message,
    Moves,
    Output,
    Partition,
    Position,
    RescaleRequested,
    RuleCounts,
    ShardRestored,
    Slice,
    SliceIngested,
    SliceParsed,
    SnapshotAdded,
    SnapshotFailed,
    SourceGrew,
    Started,
    StateAsked,
    StateTold,
    StateWanted,
    StopRequested,
    Task,
    Ticked,
    TimeKnown,
)
from cluster.core.ownership import Ownership
from cluster.core.poison import NO_POISON, Poison, poison_of, poison_record
from cluster.core.shares import Shares, ingest_cost
from cluster.core.watermark import NEVER_S, Watermark

RUN_AHEAD_EPOCHS = 3
"""How many epochs may be on their way at once: one executes, one is ingested, one waits to be. More is memory, not speed."""

EVENTS_PER_SHARD = 16_384
"""In an epoch, of events that have to be parsed. What an epoch costs a shard besides grows with the number of shards, for all
tell all others (bench scale); so its work must not shrink with it."""

_EPOCH_AT_MOST_S = 1.0
"""So long an epoch's work should take, where nobody says how many events it has: a stop and a checkpoint wait for those that are
on their way, and slow rules take minutes for what others do in a second."""

_AT_FIRST = 1 / 8
"""Of its usual length is the first epoch: nobody knows yet how slow the rules are. Each is twice as long as the one before."""

_COMPRESSION_RATIO = 12
"""Decompressed size guessed from compressed size; CloudTrail under gzip measures 10 to 14. Only sizes epochs."""

_WHILE_MOVING = 1 / 8
"""Epochs are so much shorter during a rescale: what moves with one waits until its new owner has put a slice down. After it
each is at most twice as long as the one before it: what has piled up would else come as one long pause."""

_LITTLE = 0.5
"""A share of an epoch. At 110,000 events/s half of all matches are out after 45 ms, instead of 65 ms if epochs overlapped
(bench latency); between a quarter and one there is no difference."""

_FIRST_MEAN_BYTES = 1000.0
"""Record size assumed before any was seen."""

_LIMITER_PERIOD_S = 3600.0
"""PANTHER_FORMAT 1.2: 1,000 alerts of one detection within one hour."""

_LAST_CHECKPOINT_TRIES_S = 30.0
"""How long the last checkpoint is tried again while the store is down."""


_T = TypeVar("_T", Output, AlertOutput)


_RETRY_S = 1.0
"""How long a store that refused a checkpoint is left in peace: trying costs an epoch."""


class Phase(Enum):
    RESTORING = "restoring"
    RUNNING = "running"
    DRAINING = "draining"
    FINISHED = "finished"


TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.RESTORING: frozenset({Phase.RUNNING, Phase.DRAINING}),
    Phase.RUNNING: frozenset({Phase.DRAINING}),
    Phase.DRAINING: frozenset(
        {Phase.FINISHED, Phase.RUNNING}
    ),  # RUNNING: stdin grew again before the last epoch was cut
    Phase.FINISHED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class CoordinatorConfig:
    """What the coordinator must know of the job."""

    job: str
    shards: int
    key_groups: int
    epoch_events: int | None
    """None: EVENTS_PER_SHARD for each shard."""
    checkpoint_interval_s: float
    alert_limit: int
    """Alerts of one rule within an hour of event time; 0 is no limit."""
    pack_digest: str
    job_start_s: float
    """The time of events before which no event has one (DESIGN 11.3)."""
    fence: int
    lateness_s: float
    moved_keys: int = 4_000
    """About how many keys a shard gives away, or takes, with one epoch of a rescale: what moves waits while it is sent."""


_START = Watermark()


@dataclass(slots=True)
class Totals:
    """The run's summary, without times."""

    counts: Counts = field(default_factory=Counts)
    matches: int = 0
    alerts: int = 0
    errors: int = 0
    dead_letters: int = 0
    epochs: int = 0
    checkpoints: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a job stands: what a manifest says, and a new job's zero."""

    epoch: int = 0
    partition: int = 0
    start: int = 0
    times_s: dict[int, float] = field(default_factory=dict)
    """partition -> the time of its last event so far, for the events after it that have none."""
    watermark: Watermark = _START
    blobs: tuple[Blob, ...] = ()
    owners: Owners = ()
    """Who owned what; a new job's zero does not say."""
    limiter: dict[str, tuple[float, int]] = field(default_factory=dict)
    """rule id -> (start of its window, alerts in it)"""
    totals: Totals = field(default_factory=Totals)
    """What the run had done by then, for those who take it over."""
    poison: Poison = NO_POISON
    """Evaluations that do not return, as far as they are known. It grows between lives only."""
    removed: tuple[tuple[str, int], ...] = ()
    """(key, epoch after which) for keys that somebody removed by hand (cluster/removing.py)."""


@dataclass(slots=True)
class _Epoch:
    """An epoch on its way."""

    cut: EpochCut
    cursor: tuple[int, int]
    """(partition, start) after it."""
    last_times: dict[int, float | None] = field(default_factory=dict)
    """slice number -> time of its last event that has one; an entry means that the slice was parsed."""
    grouped: dict[int, EpochGrouped] = field(default_factory=dict)


@dataclass(slots=True)
class _Checkpoint:
    """A checkpoint on its way: at most one at a time."""

    epoch: int
    shards: int
    """How many have a part in it."""
    chains: dict[int, tuple[Blob, ...]] = field(default_factory=dict)
    progress: Progress | None = None
    """Set when the epoch is delivered."""
    committing: bool = False

    @property
    def blobs(self) -> tuple[Blob, ...]:
        return tuple(blob for _, chain in sorted(self.chains.items()) for blob in chain)


@dataclass(slots=True)
class _View:
    """A look at keys that the shards were asked for."""

    asked: StateAsked
    cursor: tuple[int, int]
    shards: int
    """How many were asked."""
    told: dict[int, StateTold] = field(default_factory=dict)


class Coordinator:
    """The machine that knows where the job stands."""

    def __init__(self, config: CoordinatorConfig, partitions: Iterable[Partition], progress: Progress) -> None:
        self._config = config
        self._partitions = list(partitions)
        self._start = progress
        self._phase = Phase.RESTORING
        owners = progress.owners or balanced(config.shards, config.key_groups)
        self._ownership = Ownership(rebalanced(owners, config.shards), config.shards, config.moved_keys)
        self._rescale_to: int | None = None
        """Asked for and not begun."""
        self.moves: list[Moves] = []
        """What moved since somebody emptied this, an entry for each epoch and shard, where nothing did as well."""
        self._restored: set[int] = set()
        self._cursor = self._place = (progress.partition, progress.start)
        self._ended: set[int] = set()
        """Partitions of unknown length that a shard has read to the end."""
        self._growing: dict[int, int] = {}
        """Spooled partitions that may still grow -> their size in complete lines."""
        self._cut_epoch = progress.epoch
        self._cut_shards = config.shards
        """How many have a part in that epoch."""
        self._delivered = progress.epoch
        self._epochs: dict[int, _Epoch] = {}
        self._times_s = dict(progress.times_s)
        self._watermark = progress.watermark
        self._limiter = dict(progress.limiter)
        self._waiting: list[tuple[int, int]] = []
        """(epoch, slice number) that wait for TimeKnown."""
        self._mean_bytes = _FIRST_MEAN_BYTES
        self._shares = Shares()
        self._pace = 1.0 if config.epoch_events else _AT_FIRST
        """How long an epoch is in comparison to what is usual."""
        self._rate: float | None = None
        """Events per second, skipped ones included, while there was more to do than could be done."""
        self._busy_since: tuple[float, int] | None = None
        """(when that was looked at last, the events since)"""
        self._now_s: float | None = None
        self._checkpointed_at_s: float | None = None
        self._checkpoint: _Checkpoint | None = None
        self._checkpointed = progress.epoch
        self._stopping = False
        self._keys = 0
        self._views: dict[int, _View] = {}
        self._last_epoch: int | None = None
        self._last_try_s: float | None = None
        self._unsaved: str | None = None
        """Why the last checkpoint will not be; the run ends when its last epoch is delivered."""
        self._rebase = False
        """The next checkpoint is of bases."""
        self.refused = ""
        """Why the store did not take the checkpoint that was tried last; empty where it did."""
        self._retry_at_s = NEVER_S
        """No checkpoint before this, after one that failed."""
        self.totals = copy.deepcopy(progress.totals)
        self._handlers: dict[type, Callable[[Any], list[Effect]]] = {
            ShardRestored: self._shard_restored,
            Ticked: self._ticked,
            StopRequested: self._stop_requested,
            RescaleRequested: self._rescale_requested,
            SourceGrew: self._source_grew,
            StateWanted: self._state_wanted,
            StateTold: self._state_told,
            SliceParsed: self._slice_parsed,
            SliceIngested: self._slice_ingested,
            EpochGrouped: self._epoch_grouped,
            SnapshotAdded: self._snapshot_added,
            SnapshotFailed: self._snapshot_failed,
            ManifestCommitted: self._manifest_committed,
            ManifestFailed: self._manifest_failed,
        }

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def watermark(self) -> Watermark:
        return self._watermark

    @property
    def keys(self) -> int:
        """How many keys the shards stored after the last epoch that was delivered."""
        return self._keys

    @property
    def place(self) -> tuple[int, int]:
        """(partition, start) of what has not been delivered yet."""
        return self._place

    @property
    def shards(self) -> int:
        """How many take part now."""
        return self._ownership.shards

    @property
    def rescaling(self) -> bool:
        """Another number of shards is asked for, and not reached. While it is not, only `shards` are needed."""
        return self._rescale_to is not None or not self._ownership.settled

    @property
    def checkpointed_at_s(self) -> float | None:
        """When the last checkpoint was committed, on the clock of Ticked."""
        return self._checkpointed_at_s

    def start(self, growing: Iterable[int] = ()) -> list[Effect]:
        """Tell every shard where the job stands. `growing` are the spooled partitions that may still grow."""
        self._growing = {index: self._partitions[index].size_bytes for index in growing}
        start = self._start
        started = Started(start.epoch, start.watermark, start.blobs, self._ownership.owners, start.poison)
        return [Send(shard, started) for shard in range(self._ownership.shards)]

    def handle(self, message: Message) -> list[Effect]:
        """The only way in."""
        handler = self._handlers.get(type(message))
        if handler is None:
            raise InvariantBroken(f"the coordinator does not know {message!r}")
        return handler(message)

    def _enter(self, phase: Phase) -> None:
        require(phase in TRANSITIONS[self._phase], f"the coordinator cannot go from {self._phase} to {phase}")
        self._phase = phase

    # --- start, stop, time ---------------------------------------------------------------------------------------

    def _shard_restored(self, message: ShardRestored) -> list[Effect]:
        if self._phase is not Phase.RESTORING:
            self._ownership.joined(message.shard)
            return self._advance()
        self._restored.add(message.shard)
        if len(self._restored) < self._ownership.shards:
            return []
        self._enter(Phase.RUNNING)
        return self._advance()

    def _ticked(self, message: Ticked) -> list[Effect]:
        require(self._now_s is None or message.now_s >= self._now_s, "time went backwards")
        self._now_s = message.now_s
        if self._checkpointed_at_s is None:
            self._checkpointed_at_s = message.now_s
        return self._advance()

    def _stop_requested(self, message: StopRequested) -> list[Effect]:
        self._stopping = True
        return self._advance()

    def _rescale_requested(self, message: RescaleRequested) -> list[Effect]:
        self._rescale_to = message.shards
        return self._advance()

    def _source_grew(self, message: SourceGrew) -> list[Effect]:
        require(message.size_bytes >= self._growing.get(message.partition, 0), "a spooled source shrank")
        self._growing[message.partition] = message.size_bytes
        if message.at_end:
            del self._growing[message.partition]
            partition = self._partitions[message.partition]
            self._partitions[message.partition] = _resized(partition, message.size_bytes)
        return self._advance()

    # --- cutting -------------------------------------------------------------------------------------------------

    def _advance(self) -> list[Effect]:
        effects = self._rescale()
        while self._phase is Phase.RUNNING and len(self._epochs) < RUN_AHEAD_EPOCHS:
            self._ownership.prepare(self._cut_epoch + 1)
            due, waits = self._checkpoint_due(), self._more_comes()
            awaited = due or (not waits and self._ownership.needs_epoch(self._cut_epoch + 1))
            tasks = [] if self._stopping or (waits and not due) else self._cut_tasks()
            last = not tasks and (self._stopping or self._input_over())
            if last and (self._checkpoint is not None or self._resting()):
                break  # one checkpoint at a time; the last one comes when this one is through
            if not tasks and not last and not awaited:
                break  # waiting for the source, or for a shard to say how long a file is
            if last:
                self._enter(Phase.DRAINING)
                self._last_epoch = self._cut_epoch + 1
            effects += self._cut(tasks, checkpoint=last or due)
        return effects

    def _rescale(self) -> list[Effect]:
        """Begin the rescale that is asked for, if there is one and nothing is in its way."""
        if self._rescale_to is None or self._phase is not Phase.RUNNING or not self._ownership.settled:
            return []
        shards, self._rescale_to = self._rescale_to, None
        return [Send(shard, Joined(self._start.poison)) for shard in self._ownership.request(shards)]

    def _cut(self, tasks: list[Task], *, checkpoint: bool) -> list[Effect]:
        self._cut_epoch += 1
        base = checkpoint and self._rebase
        ownership = self._ownership
        cut = EpochCut(
            self._cut_epoch,
            tuple(tasks),
            checkpoint,
            ownership.shards,
            ownership.owners,
            base,
            ownership.target,
        )
        self._epochs[self._cut_epoch] = _Epoch(cut, self._cursor)
        if tasks:
            self._pace = min(1.0, 2 * self._pace)
        self._cut_shards = cut.shards
        if checkpoint:
            self._checkpoint = _Checkpoint(self._cut_epoch, cut.shards)
        return [Send(shard, cut) for shard in range(cut.shards)]

    def _checkpoint_due(self) -> bool:
        if self._checkpoint is not None or self._now_s is None or self._checkpointed_at_s is None:
            return False
        if self._resting():
            return False
        behind = self._cut_epoch > self._checkpointed
        return behind and self._now_s - self._checkpointed_at_s >= self._config.checkpoint_interval_s

    def _resting(self) -> bool:
        return self._now_s is not None and self._now_s < self._retry_at_s

    def _input_over(self) -> bool:
        return self._cursor[0] >= len(self._partitions)

    def _cut_tasks(self) -> list[Task]:
        """The next slices in order, about an epoch's events together."""
        tasks: list[Task] = []
        usual = self._epoch_events()
        if not self._ownership.settled:
            self._pace = _WHILE_MOVING
        events = max(1, int(usual * self._pace))
        budget = float(events)
        owning = self._ownership.owning
        shares = self._shares.of(self._ownership.shards)
        while budget >= 1.0 and not self._input_over():  # less than an event is what rounding leaves
            index, start = self._cursor
            partition = self._partitions[index]
            if index in self._ended:
                self._cursor = (index + 1, 0)
                continue
            size = self._known_length(partition)
            if size is not None:
                if start >= size:
                    if index in self._growing:
                        break
                    self._cursor = (index + 1, 0)
                    continue
                unit = 1.0 if partition.format == "parquet" else self._mean_bytes
                shard = self._next_shard(tasks)
                stop = min(size, start + math.ceil(max(1.0, events * shares[shard]) * unit))
                tasks.append(Task(len(tasks), shard, Slice(index, start, stop)))
                self._cursor = (index, stop)
                budget -= (stop - start) / unit
                continue
            guess = partition.size_bytes * (_COMPRESSION_RATIO if partition.compression else 1) / self._mean_bytes
            if partition.format == "records" or guess <= usual / owning:
                tasks.append(Task(len(tasks), self._next_shard(tasks), Slice(index, start, None)))
                self._cursor = (index + 1, 0)
                budget -= max(1.0, guess)
                continue
            stop = start + math.ceil(events / owning * self._mean_bytes)  # what one reads alone is one shard's part
            tasks.append(Task(len(tasks), index % self._ownership.shards, Slice(index, start, stop)))
            self._cursor = (index, stop)
            break  # what follows it in order is not known before its end is
        return tasks

    def _more_comes(self) -> bool:
        """Little is there, and an epoch is on its way: what comes until that is delivered shares the next one with it.

        Epochs that overlap are for when there is much to do: what each costs besides its events is time that all of them wait.
        """
        index, start = self._cursor
        there_bytes = self._growing.get(index, 0) - start
        return bool(self._epochs) and index in self._growing and there_bytes < _LITTLE * self._epoch_events() * self._mean_bytes

    def _epoch_events(self) -> int:
        """`epoch_events` events that have to be parsed, with what is skipped between them: an epoch costs every shard a few
        milliseconds of messages, which is to be little beside its work."""
        events = float(self._config.epoch_events or EVENTS_PER_SHARD * self._ownership.owning)
        counts = self.totals.counts
        if counts.events:
            events /= ingest_cost(counts) / counts.events
        if self._rate is not None and self._config.epoch_events is None:
            events = min(events, self._rate * _EPOCH_AT_MOST_S)
        return int(events)

    def _learn_rate(self, events: int) -> None:
        """An epoch of so many is delivered. Says nothing where the next ones wait for input."""
        if self._now_s is None:
            return
        if self._busy_since is None or len(self._epochs) < RUN_AHEAD_EPOCHS:
            self._busy_since = self._now_s, 0
            return
        since_s, before = self._busy_since
        self._busy_since = since_s, before + events
        if self._now_s - since_s >= _EPOCH_AT_MOST_S:
            self._rate = max(1.0, (before + events) / (self._now_s - since_s))
            self._busy_since = self._now_s, 0

    def _next_shard(self, tasks: list[Task]) -> int:
        """Who ingests the slice after these: all in turn, beginning with another one in each epoch."""
        return (self._cut_epoch + len(tasks)) % self._ownership.shards

    def _known_length(self, partition: Partition) -> int | None:
        """Bytes or rows, where the partition can be cut anywhere; None where only its reader finds the end."""
        if partition.format == "parquet":
            return partition.rows
        if partition.is_plain:
            return self._growing.get(partition.index, partition.size_bytes)
        return None

    # --- time of events without one ------------------------------------------------------------------------------

    def _slice_parsed(self, message: SliceParsed) -> list[Effect]:
        self._epochs[message.epoch].last_times[message.number] = message.last_time_s
        self._waiting.append((message.epoch, message.number))
        return self._answer_times()

    def _slice_ingested(self, message: SliceIngested) -> list[Effect]:
        epoch = self._epochs[message.epoch]
        epoch.last_times[message.number] = message.last_time_s
        part = epoch.cut.tasks[message.number].slice
        if message.at_end and self._known_length(self._partitions[part.partition]) is None:
            self._ended.add(part.partition)
        if message.records and self._partitions[part.partition].format == "jsonl":
            mean = (message.next_start - part.start) / message.records
            self._mean_bytes += 0.2 * (max(mean, 1.0) - self._mean_bytes)
        return self._answer_times() + self._advance()

    def _answer_times(self) -> list[Effect]:
        effects: list[Effect] = []
        still: list[tuple[int, int]] = []
        for epoch, number in self._waiting:
            time_s = self._time_before(epoch, number)
            if time_s is None:
                still.append((epoch, number))
            else:
                shard = self._epochs[epoch].cut.tasks[number].shard
                effects.append(Send(shard, TimeKnown(epoch, number, time_s)))
        self._waiting = still
        return effects

    def _time_before(self, epoch_number: int, number: int) -> float | None:
        """The time of the last event before a slice in its partition; None while a slice between is not parsed."""
        partition = self._epochs[epoch_number].cut.tasks[number].slice.partition
        for at in range(epoch_number, self._delivered, -1):
            epoch = self._epochs[at]
            for task in reversed(epoch.cut.tasks):
                if (at, task.number) >= (epoch_number, number) or task.slice.partition != partition:
                    continue
                if task.number not in epoch.last_times:
                    return None
                time_s = epoch.last_times[task.number]
                if time_s is not None:
                    return time_s
        return self._times_s.get(partition, self._config.job_start_s)

    # --- results -------------------------------------------------------------------------------------------------

    def _epoch_grouped(self, message: EpochGrouped) -> list[Effect]:
        epoch = self._epochs[message.epoch]
        require(message.shard not in epoch.grouped, f"shard {message.shard} finished epoch {message.epoch} twice")
        epoch.grouped[message.shard] = message
        self._shares.learn(message.shard, message.counts)
        self.moves.append(message.moves)
        self._ownership.grouped(message.shard, message.keys, message.copied)
        effects: list[Effect] = []
        while (ready := self._epochs.get(self._delivered + 1)) and len(ready.grouped) == ready.cut.shards:
            effects += self._deliver(self._delivered + 1, ready)
        return effects + self._end_unsaved() + self._advance()

    def _deliver(self, number: int, epoch: _Epoch) -> list[Effect]:
        parts = list(epoch.grouped.values())
        watermarks = {part.watermark for part in parts}
        require(len(watermarks) == 1, f"shards disagree on the watermark of epoch {number}: {watermarks}")
        self._watermark = watermarks.pop()
        for task in epoch.cut.tasks:
            last_s = epoch.last_times[task.number]
            if last_s is not None:
                self._times_s = {task.slice.partition: last_s}
            elif task.slice.partition not in self._times_s:
                self._times_s = {}
        alerts = [kept for alert in _merged(p.alerts for p in parts) for kept in self._limit(alert)]
        deliver = Deliver(
            number,
            _placed(_merged(p.matches for p in parts)),
            alerts,
            _placed(_merged(p.errors for p in parts)),
            _placed(_merged(p.dead_letters for p in parts)),
        )
        self._count(parts, deliver)
        self._learn_rate(sum(part.counts.events for part in parts))
        del self._epochs[number]
        self._delivered = number
        self._keys = sum(part.keys for part in parts)
        self._place = epoch.cursor
        if self._checkpoint is not None and self._checkpoint.epoch == number:
            self._checkpoint.progress = Progress(
                number,
                *epoch.cursor,
                dict(self._times_s),
                self._watermark,
                (),
                epoch.cut.owners,
                dict(self._limiter),
                copy.deepcopy(self.totals),
                self._start.poison,
                self._start.removed,
            )
        self._let_go()
        return [deliver, *self._commit()]

    def _let_go(self) -> None:
        """Shards that leave may go once nobody waits for them any more."""
        awaited = [view.asked.epoch for view in self._views.values()]
        if self._checkpoint is not None:
            awaited.append(self._checkpoint.epoch)
        self._ownership.let_go(min([self._delivered + 1, *awaited]))

    def _count(self, parts: list[EpochGrouped], deliver: Deliver) -> None:
        totals = self.totals
        for part in parts:
            totals.counts.add(part.counts)
        totals.matches += len(deliver.matches)
        totals.alerts += len(deliver.alerts)
        totals.errors += len(deliver.errors)
        totals.dead_letters += len(deliver.dead_letters)
        totals.epochs += 1

    def _limit(self, alert: AlertOutput) -> list[tuple[Position, bytes]]:
        """The alert, or the one system alert in place of a rule's first alert over the limit, or nothing."""
        limit = self._config.alert_limit
        if not limit:
            return [(alert.position, alert.record)]
        opened_s, count = self._limiter.get(alert.rule_id, (alert.created_s, 0))
        if alert.created_s > opened_s + _LIMITER_PERIOD_S:
            opened_s, count = alert.created_s, 0
        self._limiter[alert.rule_id] = (opened_s, count + 1)
        if count < limit:
            return [(alert.position, alert.record)]
        if count == limit:
            held = records.limiter_record(alert.rule_id, limit, _LIMITER_PERIOD_S, alert.created_s, alert.position)
            return [(alert.position, held)]
        return []

    # --- looking at keys -----------------------------------------------------------------------------------------

    def _state_wanted(self, message: StateWanted) -> list[Effect]:
        """Ask every shard for the state after the last epoch that was cut: together their answers are of one moment."""
        view = self._views[message.number] = _View(StateAsked(self._cut_epoch, message), self._cursor, self._cut_shards)
        return [Send(shard, view.asked) for shard in range(view.shards)]

    def _state_told(self, message: StateTold) -> list[Effect]:
        view = self._views[message.number]
        view.told[message.shard] = message
        if len(view.told) < view.shards:
            return []
        del self._views[message.number]
        self._let_go()
        parts = view.told.values()
        # Behind the last key of a shard that left some out, others' keys would stand in the place of its own.
        ends = [part.rows[-1].key for part in parts if len(part.rows) < part.found]
        rows = sorted((row for part in parts for row in part.rows), key=lambda row: row.key)
        rows = [row for row in rows if not ends or row.key <= min(ends)][: view.asked.wanted.limit]
        more = sum(part.found for part in parts) - len(rows)
        return [TellState(message.number, view.asked.epoch, view.cursor, rows, more)]

    # --- checkpoints ---------------------------------------------------------------------------------------------

    def _snapshot_added(self, message: SnapshotAdded) -> list[Effect]:
        if self._checkpoint is None or self._checkpoint.epoch != message.epoch:
            return []  # another shard's snapshot of that epoch failed: the checkpoint was given up
        self._checkpoint.chains[message.shard] = message.chain
        return self._commit()

    def _commit(self) -> list[Effect]:
        checkpoint = self._checkpoint
        if checkpoint is None or checkpoint.progress is None or checkpoint.committing:
            return []
        if len(checkpoint.chains) < checkpoint.shards:
            return []
        checkpoint.committing = True
        blobs = checkpoint.blobs
        manifest = self.manifest(checkpoint.progress, blobs, closed=checkpoint.epoch == self._last_epoch)
        return [CommitManifest(checkpoint.epoch, manifest, tuple(blob.name for blob in blobs))]

    def manifest(self, progress: Progress, blobs: tuple[Blob, ...], *, closed: bool = False) -> dict[str, Any]:
        """`closed` says that nothing was delivered past it: the run that wrote it ended with it."""
        return {
            "format": snapshot.FORMAT,
            "job": self._config.job,
            "fence": self._config.fence,
            "key_groups": self._config.key_groups,
            "shards": self._ownership.shards,
            "pack_digest": self._config.pack_digest,
            "job_start_s": self._config.job_start_s,
            "lateness_s": self._config.lateness_s,
            "partitions": [_partition_record(p) for p in self._partitions],
            "closed": closed,
            **progress_record(progress, blobs),
        }

    def _manifest_committed(self, message: ManifestCommitted) -> list[Effect]:
        self.totals.checkpoints += 1
        self._checkpointed = message.epoch
        assert self._checkpoint is not None
        committed = CheckpointCommitted(message.epoch, tuple(blob.name for blob in self._checkpoint.blobs))
        stay = min(self._checkpoint.shards, self._ownership.shards)
        self._checkpoint = None
        self._rebase = False
        self.refused = ""
        self._let_go()
        self._checkpointed_at_s = self._now_s
        if message.epoch == self._last_epoch:
            self._enter(Phase.FINISHED)
            return [Finish(self._stopping and not self._input_over(), "")]
        return [*(Send(shard, committed) for shard in range(stay)), *self._advance()]

    def _manifest_failed(self, message: ManifestFailed) -> list[Effect]:
        self._rebase |= message.rebase
        return self._give_up(message.epoch, message.reason)

    def _snapshot_failed(self, message: SnapshotFailed) -> list[Effect]:
        if self._checkpoint is None or self._checkpoint.epoch != message.epoch:
            return []
        return self._give_up(message.epoch, message.reason)

    def _give_up(self, number: int, reason: str) -> list[Effect]:
        """The store did not take a checkpoint: the stream goes on, the next one comes in its time."""
        self._checkpoint = None
        self.refused = reason
        self._let_go()
        self._checkpointed_at_s = self._now_s
        now_s = self._now_s or 0.0
        self._retry_at_s = now_s + _RETRY_S
        if number != self._last_epoch:
            return self._advance()
        if self._last_try_s is None:
            self._last_try_s = now_s
        if now_s - self._last_try_s >= _LAST_CHECKPOINT_TRIES_S:
            self._unsaved = reason
            return self._end_unsaved()
        self._enter(Phase.RUNNING)
        self._last_epoch = None
        return []  # tried again at the next tick

    def _end_unsaved(self) -> list[Effect]:
        if self._unsaved is None or self._epochs:
            return []
        self._enter(Phase.FINISHED)
        return [Finish(self._stopping and not self._input_over(), self._unsaved)]

    # --- invariants ----------------------------------------------------------------------------------------------

    def validate(self) -> None:
        """Raise when the machine contradicts itself; tests call it after every message."""
        require(self._delivered <= self._cut_epoch, "delivered an epoch that was not cut")
        require(sorted(self._epochs) == list(range(self._delivered + 1, self._cut_epoch + 1)), "epochs have a hole")
        require(len(self._epochs) <= RUN_AHEAD_EPOCHS, "more epochs on their way than credit allows")
        require(self._checkpointed <= self._delivered, "checkpointed an epoch that was not delivered")
        if self._checkpoint is not None:
            require(self._checkpoint.epoch > self._checkpointed, "a checkpoint is on its way twice")
        self._ownership.validate()
        if self._phase is Phase.FINISHED:
            require(not self._epochs, "finished with epochs on their way")


def progress_record(progress: Progress, blobs: tuple[Blob, ...]) -> dict[str, Any]:
    """The part of a manifest that says where the job stands."""
    return {
        "epoch": progress.epoch,
        "partition": progress.partition,
        "start": progress.start,
        "times_s": {str(partition): time_s for partition, time_s in progress.times_s.items()},
        "w_s": _finite(progress.watermark.w_s),
        "w_last_s": _finite(progress.watermark.last_s),
        "limiter": {rule_id: list(window) for rule_id, window in progress.limiter.items()},
        "owners": list(progress.owners),
        **snapshot.blobs_record(blobs),
        "totals": asdict(progress.totals),
        **poison_record(progress.poison),
        "removed": [list(each) for each in progress.removed],
    }


def progress_of(manifest: dict[str, Any]) -> Progress:
    """The inverse of progress_record."""
    return Progress(
        manifest["epoch"],
        manifest["partition"],
        manifest["start"],
        {int(partition): time_s for partition, time_s in manifest["times_s"].items()},
        Watermark(_or_never(manifest["w_s"]), _or_never(manifest["w_last_s"])),
        snapshot.blobs_of(manifest),
        tuple(manifest.get("owners", ())),
        {rule_id: (opened_s, count) for rule_id, (opened_s, count) in manifest["limiter"].items()},
        _totals_of(manifest.get("totals", {})),
        poison_of(manifest),
        tuple((key, epoch) for key, epoch in manifest.get("removed", ())),
    )


def _totals_of(record: dict[str, Any]) -> Totals:
    counts = record.get("counts", {})
    rules = {rule_id: RuleCounts(**each) for rule_id, each in counts.get("rules", {}).items()}
    return Totals(**{**record, "counts": Counts(**{**counts, "rules": rules})})


def partitions_of(manifest: dict[str, Any]) -> list[Partition]:
    """The source as the manifest lists it, in order."""
    return [Partition(index=index, **record) for index, record in enumerate(manifest["partitions"])]


def _partition_record(partition: Partition) -> dict[str, Any]:
    names = (
        "path",
        "format",
        "compression",
        "size_bytes",
        "mtime_ns",
        "head_digest",
        "rows",
        "log_type",
        "first_time_s",
    )
    return {name: getattr(partition, name) for name in names}


def _resized(partition: Partition, size_bytes: int) -> Partition:
    record = _partition_record(partition) | {"size_bytes": size_bytes}
    return Partition(index=partition.index, **record)


def _finite(time_s: float) -> float | None:
    return None if time_s == NEVER_S else time_s


def _or_never(time_s: float | None) -> float:
    return NEVER_S if time_s is None else time_s


def _merged(parts: Iterable[list[_T]]) -> list[_T]:
    """Sorted lists into one, in order. sorted() finds the runs by itself."""
    return sorted(chain.from_iterable(parts), key=attrgetter("order"))


def _placed(outputs: list[Output]) -> list[tuple[Position, bytes]]:
    return [(output.position, output.record) for output in outputs]
