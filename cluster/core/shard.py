"""Shard: ingests its slices, executes what is routed to its key groups in position order, groups matches into alerts.

Life of an epoch e on a shard (each step waits for the one above it, and for the same step of e-1):

    EpochCut        own slices are read and ingested           -> EventsRouted to every shard, SliceIngested
    EventsRouted    from every shard, and e-1 executed         -> execute e in position order; MatchesFound to every shard
    MatchesFound    from every shard, and e-1 grouped          -> group e in position order; EpochGrouped to the coordinator

Reading runs ahead of executing by as many epochs as the coordinator cuts. Pure: no clock, no store, no threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.core import records, snapshot
from cluster.core.effects import COORDINATOR, Effect, LoadBlobs, ReadSlice, Send, StoreSnapshot
from cluster.core.errors import InvariantBroken, require
from cluster.core.ingest import Decoder, FinalMatch, Ingest, IngestedSlice, NeedsTime, event_id_of
from cluster.core.keygroups import key_grouping, owned_range, owner_of, window_group
from cluster.core.messages import (
    AlertOutput,
    BlobsLoaded,
    Counts,
    EpochCut,
    EpochGrouped,
    EventsRouted,
    FoundError,
    FoundMatch,
    MatchesFound,
    Message,
    Output,
    Partition,
    Records,
    RoutedEvent,
    RoutedSlice,
    ShardRestored,
    SliceIngested,
    SliceParsed,
    SliceRead,
    SnapshotAdded,
    SnapshotFailed,
    SnapshotStored,
    Started,
    Task,
    TimeKnown,
)
from cluster.core.watermark import NEVER_S, Watermark
from rules.evaluation import NO_MATCH, Evaluation, evaluate
from rules.event import PantherEvent
from rules.logtypes import LogType
from rules.pack import Pack
from rules.rule import Outcome, Rule, RuleError
from rules.state import Row, State
from rules.windows import Policy, Windows

_FREED_PER_EPOCH = 5_000
"""How many keys an epoch looks at for expiry: some 0.5 ms, so that freeing never pauses a shard for the size of its state."""


@dataclass(frozen=True, slots=True)
class ShardConfig:
    """What a shard must know besides the pack."""

    shard: int
    shards: int
    key_groups: int
    lateness_s: float
    max_value_bytes: int
    partitions: tuple[Partition, ...]
    fence: int
    """The job's fencing token: part of the names of blobs, so that two owners never write one name."""
    use_index: bool = True
    """Probe only the rules whose guard an event meets; off, results are the same (errors apart), and slower."""
    use_prefilter: bool = True
    """Do not parse lines that no rule can match; off, dead letters are complete, and all is slower."""


@dataclass(slots=True)
class _Epoch:
    """What a shard knows of an epoch that is not finished."""

    cut: EpochCut | None = None
    ingested: dict[int, IngestedSlice] = field(default_factory=dict)
    waiting: dict[int, Records] = field(default_factory=dict)
    """Own slices that wait for TimeKnown."""
    routed: dict[int, tuple[RoutedSlice, ...]] = field(default_factory=dict)
    found: dict[int, list[FoundMatch]] = field(default_factory=dict)
    errors: list[FoundError] = field(default_factory=list)
    horizon_s: float = NEVER_S
    """W at its start, less the lateness: no clock in it or after it lies before."""
    watermark: Watermark | None = None
    keys: list[Row] | None = None
    """Captured at the end of execute, in an epoch with a checkpoint."""
    delta: bool = False
    """`keys` holds only what changed since the snapshot before."""
    counts: Counts = field(default_factory=Counts)


class Shard:
    """One shard's machine. Never blocks, never fails on input: bad records become dead letters, bad rules errors."""

    def __init__(self, config: ShardConfig, pack: Pack, log_types: Mapping[str, LogType]) -> None:
        self._config = config
        self._rules: tuple[Rule, ...] = pack.rules
        self._policies = [
            Policy(rule.spec.threshold, float(rule.spec.dedup_period_s), rule.has_unique) for rule in pack.rules
        ]
        self._ordinals = {rule.id: ordinal for ordinal, rule in enumerate(pack.rules)}
        self._sources = {p.index: p.path for p in config.partitions}
        self._log_types = {p.index: p.log_type or "" for p in config.partitions}
        self._decoder = Decoder(log_types)
        self._ingest = Ingest(
            config.shard,
            config.shards,
            pack,
            self._decoder,
            config.key_groups,
            use_index=config.use_index,
            use_prefilter=config.use_prefilter,
        )
        self._owned = owned_range(config.shard, config.shards, config.key_groups)
        self._group_of = key_grouping(config.key_groups)
        self.state = State(config.max_value_bytes)
        self.windows = Windows()
        self._evaluation = Evaluation(self.state, self._group_of)
        self._epochs: dict[int, _Epoch] = {}
        self._executed = 0
        self._grouped = 0
        self._watermark = Watermark()
        self._chain: list[tuple[str, int]] = []
        """(name, size in bytes) of the base and the deltas that hold this shard's key groups."""
        self._handlers: dict[type, Callable[[Any], list[Effect]]] = {
            Started: self._started,
            BlobsLoaded: self._restore,
            EpochCut: self._cut,
            SliceRead: self._read,
            TimeKnown: self._time_known,
            EventsRouted: self._events_routed,
            MatchesFound: self._matches_found,
            SnapshotStored: self._snapshot_stored,
            SnapshotFailed: self._snapshot_failed,
        }

    def handle(self, message: Message) -> list[Effect]:
        """The only way in."""
        handler = self._handlers.get(type(message))
        if handler is None:
            raise InvariantBroken(f"shard {self._config.shard} does not know {message!r}")
        return handler(message)

    # --- start ---------------------------------------------------------------------------------------------------

    def _started(self, message: Started) -> list[Effect]:
        require(not self._epochs and self._executed == 0, "a shard is started once")
        self._executed = self._grouped = message.epoch
        self._watermark = message.watermark
        return [LoadBlobs(message.blobs)]

    def _restore(self, message: BlobsLoaded) -> list[Effect]:
        for blob in message.blobs:
            keys, windows = snapshot.decode(blob)
            for row in keys:
                if self._group_of(row.key) in self._owned:
                    self.state.restore(row)
            for window in windows:
                if window_group(window.rule_id, window.dedup, self._config.key_groups) in self._owned:
                    self.windows.restore(window)
        return [Send(COORDINATOR, ShardRestored(self._config.shard))]

    # --- ingest --------------------------------------------------------------------------------------------------

    def _cut(self, message: EpochCut) -> list[Effect]:
        epoch = self._epochs.setdefault(message.epoch, _Epoch())
        require(epoch.cut is None, f"epoch {message.epoch} was cut twice")
        require(message.epoch > self._executed, f"epoch {message.epoch} was executed before it was cut")
        epoch.cut = message
        own = self._own_tasks(message)
        if not own:
            return self._route(message.epoch, epoch)
        return [ReadSlice(message.epoch, task.number, task.slice) for task in own]

    def _own_tasks(self, cut: EpochCut) -> list[Task]:
        return [task for task in cut.tasks if task.shard == self._config.shard]

    def _read(self, message: SliceRead) -> list[Effect]:
        epoch = self._epochs[message.epoch]
        return self._ingest_slice(message.epoch, epoch, message.number, message.records, None)

    def _time_known(self, message: TimeKnown) -> list[Effect]:
        epoch = self._epochs[message.epoch]
        records = epoch.waiting.pop(message.number)
        return self._ingest_slice(message.epoch, epoch, message.number, records, message.time_s)

    def _ingest_slice(
        self, number: int, epoch: _Epoch, task_number: int, records: Records, time_before_s: float | None
    ) -> list[Effect]:
        assert epoch.cut is not None
        partition = epoch.cut.tasks[task_number].slice.partition
        done = self._ingest.slice(
            task_number, partition, self._sources[partition], self._log_types[partition], records, time_before_s
        )
        if isinstance(done, NeedsTime):
            epoch.waiting[task_number] = records
            return [Send(COORDINATOR, SliceParsed(number, task_number, done.last_time_s))]
        epoch.ingested[task_number] = done
        ingested = SliceIngested(
            number, task_number, done.records, records.next_start, records.at_end, done.last_time_s
        )
        effects: list[Effect] = [Send(COORDINATOR, ingested)]
        if len(epoch.ingested) == len(self._own_tasks(epoch.cut)):
            effects += self._route(number, epoch)
        return effects

    def _route(self, number: int, epoch: _Epoch) -> list[Effect]:
        done = [epoch.ingested[task] for task in sorted(epoch.ingested)]
        own = self._config.shard
        effects: list[Effect] = [
            Send(to, EventsRouted(number, own, tuple(ingested.routed[to] for ingested in done)))
            for to in range(self._config.shards)
            if to != own
        ]
        routed = tuple(ingested.routed[own] for ingested in done)
        for ingested in done:
            ingested.routed = []
        return effects + self._events_routed(EventsRouted(number, own, routed))

    # --- execute -------------------------------------------------------------------------------------------------

    def _events_routed(self, message: EventsRouted) -> list[Effect]:
        epoch = self._epochs.setdefault(message.epoch, _Epoch())
        require(message.sender not in epoch.routed, f"shard {message.sender} routed epoch {message.epoch} twice")
        epoch.routed[message.sender] = message.slices
        return self._advance_execute()

    def _advance_execute(self) -> list[Effect]:
        effects: list[Effect] = []
        while True:
            epoch = self._epochs.get(self._executed + 1)
            if epoch is None or epoch.cut is None or len(epoch.routed) < self._config.shards:
                return effects
            self._executed += 1
            effects += self._execute(self._executed, epoch)

    def _execute(self, number: int, epoch: _Epoch) -> list[Effect]:
        assert epoch.cut is not None
        epoch.horizon_s = self._watermark.w_s - self._config.lateness_s
        self.state.free(epoch.horizon_s, _FREED_PER_EPOCH)
        slices = sorted((s for parts in epoch.routed.values() for s in parts), key=lambda s: s.number)
        require([s.number for s in slices] == [t.number for t in epoch.cut.tasks], f"epoch {number} misses a slice")
        found: list[FoundMatch] = []
        for routed in slices:
            partition = epoch.cut.tasks[routed.number].slice.partition
            self._execute_slice(epoch, routed, partition, found)
            ingested = epoch.ingested.get(routed.number)
            if ingested is not None:
                found += [self._clocked(final, ingested) for final in ingested.matches]
                epoch.errors += ingested.errors
                epoch.counts.add(ingested.counts)
            self._watermark = self._watermark.after(routed.times)
        epoch.routed = dict.fromkeys(epoch.routed, ())
        epoch.watermark = self._watermark
        if epoch.cut.checkpoint:
            epoch.delta = self._delta()
            epoch.keys = self._capture_keys(epoch.delta)
        return self._send_matches(number, found)

    def _execute_slice(self, epoch: _Epoch, routed: RoutedSlice, partition: int, found: list[FoundMatch]) -> None:
        source = self._sources[partition]
        evaluation, state, watermark = self._evaluation, self.state, self._watermark
        lateness_s = self._config.lateness_s
        parsed = routed.parsed
        for at, item in enumerate(routed.events):
            event = parsed[at] if parsed is not None else self._decoder.routed(item, source)
            w_s = watermark.before(item.place, item.local_w_s, routed.times)
            clock_s = max(item.time_s, w_s - lateness_s)
            state.clock_s = clock_s
            evaluation.begin_event(item.time_s, item.position)
            for ordinal in item.rules:
                outcome = evaluate(self._rules[ordinal], event, evaluation)
                if evaluation.key is not None and self._group_of(evaluation.key) not in self._owned:
                    state.undo()
                    outcome = _strayed(evaluation.key)
                if outcome is not NO_MATCH:
                    self._outcome(epoch, routed.number, item, event, ordinal, clock_s, outcome, found)
            epoch.counts.evaluations += len(item.rules)

    def _outcome(
        self,
        epoch: _Epoch,
        slice_number: int,
        item: RoutedEvent,
        event: PantherEvent,
        ordinal: int,
        clock_s: float,
        outcome: Outcome,
        found: list[FoundMatch],
    ) -> None:
        order = (slice_number, item.place, ordinal)
        event_id = event_id_of(event.original, item.position)
        for error in outcome.errors:
            epoch.errors.append(FoundError(order, item.position, event_id, self._rules[ordinal].id, error))
        if outcome.match is not None:
            found.append(FoundMatch(order, item.position, event_id, item.log_type, item.time_s, clock_s, outcome.match))

    def _clocked(self, final: FinalMatch, ingested: IngestedSlice) -> FoundMatch:
        found = final.found
        w_s = self._watermark.before(found.order[1], final.local_w_s, ingested.times)
        return found._replace(clock_s=max(found.event_time_s, w_s - self._config.lateness_s))

    # --- group ---------------------------------------------------------------------------------------------------

    def _send_matches(self, number: int, found: list[FoundMatch]) -> list[Effect]:
        groups, shards = self._config.key_groups, self._config.shards
        batches: list[list[FoundMatch]] = [[] for _ in range(shards)]
        for match in found:
            rule_id = self._rules[match.order[2]].id
            batches[owner_of(window_group(rule_id, match.match.dedup, groups), shards, groups)].append(match)
        own = self._config.shard
        effects: list[Effect] = [
            Send(to, MatchesFound(number, own, batch)) for to, batch in enumerate(batches) if to != own
        ]
        return effects + self._matches_found(MatchesFound(number, own, batches[own]))

    def _matches_found(self, message: MatchesFound) -> list[Effect]:
        epoch = self._epochs.setdefault(message.epoch, _Epoch())
        require(message.sender not in epoch.found, f"shard {message.sender} sent matches of {message.epoch} twice")
        epoch.found[message.sender] = message.matches
        effects: list[Effect] = []
        while True:
            ready = self._epochs.get(self._grouped + 1)
            if ready is None or len(ready.found) < self._config.shards or self._executed <= self._grouped:
                return effects
            self._grouped += 1
            effects += self._group(self._grouped, ready)
            del self._epochs[self._grouped]

    def _group(self, number: int, epoch: _Epoch) -> list[Effect]:
        assert epoch.watermark is not None
        # By the horizon of this epoch, not of one that was executed since: its matches may need what that one would free.
        self.windows.free(epoch.horizon_s, _FREED_PER_EPOCH)
        matches: list[Output] = []
        alerts: list[AlertOutput] = []
        found = [match for part in epoch.found.values() for match in part]
        found.sort(key=lambda match: match.order)
        for match in found:
            self._place(match, matches, alerts)
        grouped = EpochGrouped(
            number,
            self._config.shard,
            epoch.watermark,
            epoch.counts,
            matches,
            alerts,
            [Output(e.order, e.position, records.error_record(e)) for e in sorted(epoch.errors, key=lambda e: e.order)],
            [letter for _, ingested in sorted(epoch.ingested.items()) for letter in ingested.dead_letters],
        )
        effects: list[Effect] = []
        if epoch.keys is not None:
            effects.append(self._store_snapshot(number, epoch.keys, epoch.delta))
        return [*effects, Send(COORDINATOR, grouped)]

    def _place(self, found: FoundMatch, matches: list[Output], alerts: list[AlertOutput]) -> None:
        ordinal = found.order[2]
        spec = self._rules[ordinal].spec
        match = found.match
        placed = self.windows.add(
            (spec.id, match.dedup),
            self._policies[ordinal],
            found.clock_s,
            found.position,
            match.unique,
            lambda: records.first_match_facts(found, spec),
        )
        matches.append(Output(found.order, found.position, records.match_record(found, spec, placed.alert_id)))
        if placed.raised and match.create_alert:
            record = records.alert_record(placed.first, found, spec, placed.alert_id, placed.matches)
            alerts.append(AlertOutput(found.order, found.position, record, spec.id, found.clock_s))

    # --- snapshots -----------------------------------------------------------------------------------------------

    def _delta(self) -> bool:
        """A delta will do as long as the deltas together are smaller than the base they change."""
        sizes = [size for _, size in self._chain]
        return bool(sizes) and sum(sizes[1:]) <= sizes[0]

    def _capture_keys(self, delta: bool) -> list[Row]:
        dirty = self.state.take_dirty()
        if delta:
            return [self.state.row(key) for key in dirty]
        return list(self.state.rows(self._watermark.w_s - self._config.lateness_s))

    def _store_snapshot(self, number: int, keys: list[Row], delta: bool) -> Effect:
        dirty = self.windows.take_dirty()
        windows = dirty if delta else list(self.windows.rows())
        kind = "delta" if delta else "base"
        name = f"{self._config.fence:08d}-{number:010d}-{self._config.shard:04d}-{kind}"
        if not delta:
            self._chain = []
        return StoreSnapshot(number, self._config.shard, name, keys, windows)

    def _snapshot_stored(self, message: SnapshotStored) -> list[Effect]:
        self._chain.append((message.name, message.size_bytes))
        chain = tuple(name for name, _ in self._chain)
        return [Send(COORDINATOR, SnapshotAdded(message.epoch, self._config.shard, chain))]

    def _snapshot_failed(self, message: SnapshotFailed) -> list[Effect]:
        self._chain = []  # what the lost snapshot held is no longer dirty: only a new base is whole
        return [Send(COORDINATOR, message)]

    # --- invariants ----------------------------------------------------------------------------------------------

    def validate(self) -> None:
        """Raise when the machine contradicts itself; tests call it after every message."""
        require(self._grouped <= self._executed, "grouped an epoch before executing it")
        for number, epoch in self._epochs.items():
            require(number > self._grouped, f"epoch {number} was grouped and kept")
            require(len(epoch.routed) <= self._config.shards, f"epoch {number} heard of more shards than there are")
            if number > self._executed:
                require(epoch.watermark is None, f"epoch {number} has a watermark and was not executed")
        for row in self.state.rows(float("-inf")):
            require(self._group_of(row.key) in self._owned, f"key {row.key!r} belongs to another shard")
        self.state.validate()
        self.windows.validate()


def _strayed(key: str) -> Outcome:
    """The pair of the check at ingest: a rule that asks for another key than its probe did is not deterministic."""
    message = (
        f"asked for key {key!r}, but for another one when it was probed: "
        "build keys from the event alone (no os.urandom, threads or files)"
    )
    return Outcome(None, (RuleError("rule", "KeyChanged", message, ""),))
