"""Shard: ingests its slices, executes what is routed to its key groups in position order, groups matches into alerts.

Life of an epoch e on a shard (each step waits for the one above it, and for the same step of e-1):

    EpochCut        own slices are read and ingested           -> EventsRouted to every shard, SliceIngested; while e-1 is not
                                                                 executed here, what is small waits for EpochExecuted of that
    EventsRouted    from every shard, and e-1 grouped          -> execute e in position order; EpochExecuted to every shard
    EpochExecuted   from every shard, and nothing was deferred -> group e in position order; EpochGrouped to the coordinator

Where any shard deferred an evaluation, the epoch's leader runs the serial lane (lane.py) before e is grouped:

    EpochExecuted   from every shard, on the leader            -> KeysAsked to the owners
    KeysAsked       the keys' owner                            -> KeysLent to the leader
    KeysLent        from every shard that was asked            -> a pass, unless that before stands; KeysAsked again, or LaneRan
                                                                  to every shard
    LaneRan                                                    -> take the outcome over, group e

A key group that is to move is copied ahead (census.py), and is itself on its way between two epochs, the second of which is e:

    EpochCut        with a target, on the group's owner        -> KeysCopied to the owner to be
    EpochCut        and e-1 grouped, on its owner up to e-1    -> GroupsMoved to its owner from e on
    GroupsGiven     from itself, once these are sent           -> execute e, if all else is there
    GroupsMoved     from every shard that gives groups away    -> execute e, if all else is there

Reading runs ahead of executing by as many epochs as the coordinator cuts. Pure: no clock, no store, no threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from typing import Any

from cluster.core import records, snapshot
from cluster.core.census import Census, Leaving
from cluster.core.effects import COORDINATOR, Effect, GoOn, LoadBlobs, ReadSlice, Send, StoreSnapshot
from cluster.core.errors import InvariantBroken, require
from cluster.core.ingest import Decoder, Ingest, IngestedSlice, NeedsTime, Reread, event_id_of
from cluster.core.kept import Kept
from cluster.core.keygroups import Owners, key_grouping, window_group
from cluster.core.lane import Lane
from cluster.core.messages import (
    AT_REST,
    AlertOutput,
    Blob,
    BlobsLoaded,
    CheckpointCommitted,
    Counts,
    EpochCut,
    EpochExecuted,
    EpochGrouped,
    EventsRouted,
    FoundError,
    FoundMatch,
    GroupsGiven,
    GroupsMoved,
    Joined,
    JoinedEvaluation,
    KeysAsked,
    KeysCopied,
    KeysLent,
    LaneRan,
    Message,
    Moves,
    Order,
    Output,
    Partition,
    Position,
    Records,
    RoutedSlice,
    RuleCounts,
    ShardRestored,
    Slice,
    SliceIngested,
    SliceParsed,
    SliceRead,
    SnapshotAdded,
    SnapshotFailed,
    SnapshotStored,
    Started,
    StateAsked,
    StateTold,
    StateWanted,
    Task,
    TimeKnown,
)
from cluster.core.poison import (
    ENDED,
    NOTHING,
    OFFSET,
    ORDINAL,
    SUB,
    Cells,
    Place,
    Poison,
    Suspect,
    begin_run,
    unwatched,
)
from cluster.core.routed import RoutedEvent
from cluster.core.watermark import NEVER_S, Watermark
from rules.capture import Joint
from rules.evaluation import DEFERRED, NO_MATCH, Evaluation, Touched, evaluate, keys_of
from rules.event import PantherEvent
from rules.logtypes import LogType
from rules.pack import Pack
from rules.rule import Outcome, Rule
from rules.segment import Image
from rules.state import Row, State
from rules.windows import Policy

_NEW = Watermark()

_FREED_PER_EPOCH = 5_000
"""How many keys an epoch looks at for expiry: some 0.5 ms, so that freeing never pauses a shard for the size of its state."""

_HELD_EVENTS = 64
"""Of what is routed early: more of them are sent, and taken apart, while the epoch before is executed, instead of after it."""

_TOLD_BYTES = 4_000_000
"""About as much of their values goes into one answer about keys. It is for a person, and passes through the coordinator."""


@dataclass(frozen=True, slots=True)
class ShardConfig:
    """What a shard must know besides the pack."""

    shard: int
    key_groups: int
    lateness_s: float
    max_value_bytes: int
    partitions: tuple[Partition, ...]
    fence: int
    """The job's fencing token: part of the names of blobs."""
    owner: str
    """The fence's random part, in these names as well: a store that lost its newest writes gives a token again."""
    use_index: bool = True
    """Probe only the rules whose guard an event meets; off, results are the same (errors apart), and slower."""
    use_prefilter: bool = True
    """Do not parse lines that no rule can match; off, dead letters are complete, and all is slower."""
    sorted_keys: int = 5_000
    """How many keys an epoch sorts while a rescale is prepared: some 3 to 10 ms."""
    copied_keys: int = 1_000
    """How many keys an epoch copies to their owners to be, 2 to 5 ms here, half as many there; and of how many that have moved it
    lets go."""


class _Lender:
    """What of an epoch a shard has lent to the serial lane, and what it could: each evaluation and key once."""

    def __init__(self, evaluations: Iterable[JoinedEvaluation]) -> None:
        self._by_key: dict[str, list[JoinedEvaluation]] = {}
        for evaluation in evaluations:
            for key in evaluation.keys:
                self._by_key.setdefault(key, []).append(evaluation)
        self._lent: set[str] = set()

    def lend(self, keys: Iterable[str]) -> tuple[list[str], list[JoinedEvaluation]]:
        """The keys, those that their evaluations touched, and so on; and these evaluations."""
        found: dict[Order, JoinedEvaluation] = {}
        lent: list[str] = []
        pending = list(keys)
        while pending:
            key = pending.pop()
            if key in self._lent:
                continue
            self._lent.add(key)
            lent.append(key)
            for evaluation in self._by_key.get(key, ()):
                if evaluation.order not in found:
                    found[evaluation.order] = evaluation
                    pending += evaluation.keys
        return lent, list(found.values())


@dataclass(slots=True)
class _Epoch:
    """What a shard knows of an epoch that is not finished."""

    cut: EpochCut | None = None
    ingested: dict[int, IngestedSlice] = field(default_factory=dict)
    waiting: dict[int, Records] = field(default_factory=dict)
    """Own slices that wait for TimeKnown."""
    gives: dict[int, list[int]] = field(default_factory=dict)
    """Shard -> the groups that it is to have of this one; without any, it joins, and hears of W."""
    takes: frozenset[int] = frozenset()
    """The shards whose GroupsMoved it waits for."""
    moved: dict[int, GroupsMoved] = field(default_factory=dict)
    moves: Moves = AT_REST
    routed: dict[int, tuple[RoutedSlice, ...]] = field(default_factory=dict)
    held: dict[int, EventsRouted] = field(default_factory=dict)
    """Shard -> what is for it, until the epoch before this one is executed here."""
    rule_sets: Counter[tuple[int, ...]] = field(default_factory=Counter)
    """Ordinals that an event was executed by -> how many events."""
    touched: list[Touched] = field(default_factory=list)
    """The keys of each executed evaluation, in order; kept where other shards may ask for them."""
    joining: list[JoinedEvaluation] = field(default_factory=list)
    """Own evaluations that were deferred."""
    executed: dict[int, EpochExecuted] = field(default_factory=dict)
    lane: Lane | None = None
    """On the leader."""
    asked: set[int] = field(default_factory=set)
    """The shards whose keys the lane waits for."""
    lender: _Lender | None = None
    ran: LaneRan | None = None
    errors: list[FoundError] = field(default_factory=list)
    horizon_s: float = NEVER_S
    """No clock in it or after it lies before."""
    started: Watermark = field(default_factory=Watermark)
    """W at its start."""
    watermark: Watermark | None = None
    """W at its end, once it is executed."""
    keys: Joint[str, Image] | None = None
    """Captured when it is resolved, in an epoch with a checkpoint."""
    delta: bool = False
    """`keys` holds only what changed since the snapshot before."""
    copied: list[int] = field(default_factory=list)
    """The groups that its new owners have by now, but for what changes yet."""
    counts: Counts = field(default_factory=Counts)


@dataclass(slots=True)
class _Stored:
    """A snapshot in the store, or on its way there."""

    groups: set[int]
    """Those that its rows count of."""
    names: tuple[str, ...] = ()
    """Its blobs, once they are in the store."""
    size_bytes: int = 0


class Shard:
    """One shard's machine. Never blocks, never fails on input: bad records become dead letters, bad rules errors."""

    def __init__(
        self,
        config: ShardConfig,
        pack: Pack,
        log_types: Mapping[str, LogType],
        timer: Callable[[], float] = lambda: 0.0,
        cells: Cells | None = None,
        kept: Kept | None = None,
        reread: Reread | None = None,
    ) -> None:
        """`timer` gives seconds, for the report on lane time; no result depends on it. `cells`: see poison.py.

        `kept` is what the same process held in the life before. With `reread` records are cited to other shards, which must
        have it too; it reads, which is the one thing that a machine does not leave to its effects: a rule waits for it.
        """
        self._config = config
        self._cells: Cells = unwatched() if cells is None else cells
        self._suspects: tuple[Suspect, ...] = ()
        self._swallowing: frozenset[str] = frozenset()
        self._tell_ended = partial(self._cells.__setitem__, ENDED)
        self._probing = Evaluation(None, tell_ended=self._tell_ended)
        self._timer = timer
        self._rules: tuple[Rule, ...] = pack.rules
        self._policies = [
            Policy(rule.spec.threshold, float(rule.spec.dedup_period_s), rule.has_unique) for rule in pack.rules
        ]
        self._ordinals = {rule.id: ordinal for ordinal, rule in enumerate(pack.rules)}
        self._sources = {p.index: p.path for p in config.partitions}
        self._log_types = {p.index: p.log_type or "" for p in config.partitions}
        reread = None if reread is None else _unwatched_reading(reread, self._cells)
        self._decoder = Decoder(log_types, pack.context_of, plain=pack.names_event_class, reread=reread)
        self._ingest = Ingest(
            pack,
            self._decoder,
            config.key_groups,
            self._cells,
            use_index=config.use_index,
            use_prefilter=config.use_prefilter,
        )
        self._owners: Owners = ()
        """Who owns what in the epoch that was executed last."""
        self._cut_owners: Owners = ()
        """The same of the epoch that was cut last."""
        self._cut_shards: int | None = None
        """How many have a part in it; None before the first."""
        self._joins = False
        """The next cut is its first, in the middle of a run."""
        self._executed_s = 0.0
        """When the last epoch had been executed, by the timer."""
        self._census: Census | None = None
        """While a rescale wants groups of this shard."""
        self._gone: list[str] = []
        """Keys that are another's by now, and still here: to let go of all at once takes long. No evaluation must read them."""
        self._copies: dict[int, list[Row]] = {}
        """Keys of groups that are to come here, as they were."""
        self._group_of = key_grouping(config.key_groups)
        self._hold(kept or Kept(State(config.max_value_bytes)))
        self._epochs: dict[int, _Epoch] = {}
        self._executed = 0
        self._grouped = 0
        self._watermark = Watermark()
        self._asked: list[StateAsked] = []
        self._chain: list[_Stored] = []
        """The base and the deltas that hold this shard's key groups."""
        self._storing: dict[int, list[tuple[_Stored, frozenset[int]]]] = {}
        """Epoch -> the chain as it was then, while the last of it is on its way to the store."""
        self._start: Started | None = None
        """While it reads what it starts from."""
        self._handlers: dict[type, Callable[[Any], list[Effect]]] = {
            Started: self._started,
            Joined: self._joined,
            BlobsLoaded: self._restore,
            CheckpointCommitted: self._checkpoint_committed,
            EpochCut: self._cut,
            SliceRead: self._read,
            TimeKnown: self._time_known,
            EventsRouted: self._events_routed,
            KeysCopied: self._keys_copied,
            GroupsGiven: lambda message: self._advance_execute(),
            GroupsMoved: self._groups_moved,
            EpochExecuted: self._epoch_executed,
            KeysAsked: self._keys_asked,
            KeysLent: self._keys_lent,
            LaneRan: self._lane_ran,
            StateAsked: self._state_asked,
            SnapshotStored: self._snapshot_stored,
            SnapshotFailed: self._snapshot_failed,
        }

    def handle(self, message: Message) -> list[Effect]:
        """The only way in."""
        handler = self._handlers.get(type(message))
        if handler is None:
            raise InvariantBroken(f"shard {self._config.shard} does not know {message!r}")
        return handler(message)

    @property
    def busy(self) -> bool:
        """An epoch has begun here that is not over. May be asked by another thread."""
        return bool(self._epochs)

    # --- start ---------------------------------------------------------------------------------------------------

    def _started(self, message: Started) -> list[Effect]:
        require(not self._epochs and self._executed == 0, "a shard is started once")
        self._executed = self._grouped = message.epoch
        self._watermark = message.watermark
        self._owners = self._cut_owners = message.owners
        self._shun(message.poison)
        if self.kept.roll_back(message.epoch, _names(message.blobs), self._owned(message.owners)):
            return [Send(COORDINATOR, ShardRestored(self._config.shard))]
        self._hold(Kept(State(self._config.max_value_bytes)))
        self._start = message
        return [LoadBlobs(_names(self._blobs_here(message)))]

    def _blobs_here(self, message: Started) -> tuple[Blob, ...]:
        """Those that hold anything of this shard."""
        own = self._owned(message.owners)
        return tuple(blob for blob in message.blobs if not own.isdisjoint(blob.groups))

    def _hold(self, kept: Kept) -> None:
        self.kept = kept
        self.state = kept.state
        self.windows = kept.windows
        self.state.new_keys = self.windows.new_keys = None
        self._alone = Evaluation(self.state)
        self._among_others = Evaluation(self.state, self._owns, self._tell_ended)
        self._among_others.swallowing = self._swallowing

    def leave(self) -> Kept:
        """What it holds, for the next life. The machine is of no use any more, and drops all else: it refers to itself."""
        self._handlers = {}
        self._epochs = {}
        return self.kept

    def _restore(self, message: BlobsLoaded) -> list[Effect]:
        start = self._start
        assert start is not None
        own, group_of = self._owned(start.owners), self._group_of
        for blob, data in zip(self._blobs_here(start), message.blobs, strict=True):
            counted = own & blob.groups
            keys, windows = snapshot.contents(data)
            self.state.restore_all(fields for fields in keys if group_of(fields[0]) in counted)
            for window in windows:
                if window_group(window.rule_id, window.dedup, self._config.key_groups) in counted:
                    self.windows.restore(window)
        self.kept.started(start.epoch, _names(start.blobs), own)
        self._start = None
        return [Send(COORDINATOR, ShardRestored(self._config.shard))]

    def _joined(self, message: Joined) -> list[Effect]:
        require(self._cut_shards is None, "a shard joins once")
        self._joins = True
        self._shun(message.poison)
        return [Send(COORDINATOR, ShardRestored(self._config.shard))]

    def _shun(self, poison: Poison) -> None:
        self._ingest.poison(poison)
        self._suspects = poison.suspects
        self._swallowing = self._probing.swallowing = self._among_others.swallowing = frozenset(poison.swallowing)

    def _owned(self, owners: Owners) -> frozenset[int]:
        """The groups that this shard has by a table."""
        return frozenset(group for group, owner in enumerate(owners) if owner == self._config.shard)

    # --- ingest --------------------------------------------------------------------------------------------------

    def _cut(self, message: EpochCut) -> list[Effect]:
        epoch = self._epochs.setdefault(message.epoch, _Epoch())
        require(epoch.cut is None, f"epoch {message.epoch} was cut twice")
        self._plan_moves(message, epoch)
        require(message.epoch > self._executed, f"epoch {message.epoch} was executed before it was cut")
        epoch.cut = message
        own = self._own_tasks(message)
        if not own:
            return self._route(message.epoch, epoch)
        reads = [ReadSlice(message.epoch, task.number, task.slice) for task in own]
        return [*self._give(self._epochs.get(self._executed + 1)), *reads]

    def _plan_moves(self, cut: EpochCut, epoch: _Epoch) -> None:
        """What this shard gives away and takes with an epoch."""
        own, before = self._config.shard, self._cut_owners
        if self._joins:
            self._joins = False
            self._executed = self._grouped = cut.epoch - 1
            epoch.takes = frozenset({0})
        elif cut.owners != before:
            for group, (owner, to) in enumerate(zip(before, cut.owners, strict=True)):
                if owner != to and owner == own:
                    epoch.gives.setdefault(to, []).append(group)
            epoch.takes = frozenset(
                owner for owner, to in zip(before, cut.owners, strict=True) if owner != to and to == own
            )
        if own == 0 and self._cut_shards is not None:
            epoch.gives.update((shard, []) for shard in range(self._cut_shards, cut.shards))
        self._cut_owners, self._cut_shards = cut.owners, cut.shards

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
        cut = epoch.cut
        partition = cut.tasks[task_number].slice.partition
        begin_run(self._cells, partition, final=True)
        done = self._ingest.slice(
            task_number,
            partition,
            self._sources[partition],
            self._log_types[partition],
            records,
            time_before_s,
            cut.owners,
            cut.shards,
        )
        if isinstance(done, NeedsTime):
            epoch.waiting[task_number] = records
            return [Send(COORDINATOR, SliceParsed(number, task_number, done.last_time_s))]
        epoch.ingested[task_number] = done
        ingested = SliceIngested(
            number, task_number, done.records, records.next_start, records.at_end, done.last_time_s
        )
        effects: list[Effect] = [Send(COORDINATOR, ingested)]
        if len(epoch.ingested) == len(self._own_tasks(cut)):
            effects += self._route(number, epoch)
        return effects

    def _route(self, number: int, epoch: _Epoch) -> list[Effect]:
        assert epoch.cut is not None
        done = [epoch.ingested[task] for task in sorted(epoch.ingested)]
        own = self._config.shard
        routed = {
            to: EventsRouted(number, own, tuple(ingested.routed[to] for ingested in done))
            for to in range(epoch.cut.shards)
        }
        for ingested in done:
            ingested.routed = []
        effects = self._events_routed(routed.pop(own))
        if self._executed < number - 1:
            epoch.held = {to: message for to, message in routed.items() if _events(message) <= _HELD_EVENTS}
        return [*_sent({to: message for to, message in routed.items() if to not in epoch.held}), *effects]

    # --- execute -------------------------------------------------------------------------------------------------

    def _events_routed(self, message: EventsRouted) -> list[Effect]:
        epoch = self._epochs.setdefault(message.epoch, _Epoch())
        require(message.sender not in epoch.routed, f"shard {message.sender} routed epoch {message.epoch} twice")
        epoch.routed[message.sender] = message.slices
        return self._advance_execute()

    def _advance_execute(self) -> list[Effect]:
        """Execute the next epoch, once its events and groups are here and the one before it is resolved."""
        epoch = self._epochs.get(self._executed + 1)
        if epoch is None or epoch.cut is None or self._grouped < self._executed:
            return []
        given = self._give(epoch)
        if given:
            return [*given, GoOn(GroupsGiven(epoch.cut.epoch))]
        if len(epoch.routed) < epoch.cut.shards or len(epoch.moved) < len(epoch.takes):
            return []
        self._executed += 1
        self._take(epoch)
        return self._execute(self._executed, epoch)

    # --- groups that move ----------------------------------------------------------------------------------------

    def _give(self, epoch: _Epoch | None) -> list[Effect]:
        """Send off what moves with an epoch, once the one before it is resolved: others wait for it."""
        if epoch is None or epoch.cut is None or self._grouped < self._executed:
            return []
        effects: list[Effect] = []
        for to, groups in sorted(epoch.gives.items()):
            leaving = Leaving([], 0, [], []) if self._census is None else self._census.take(groups)
            require(not groups or self._census is not None, f"groups {groups} move, and nobody knows their keys")
            self._gone += leaving.keys
            moved = GroupsMoved(
                epoch.cut.epoch,
                self._config.shard,
                self._watermark,
                tuple(groups),
                leaving.copied,
                leaving.changed,
                self.windows.give_away(leaving.windows),
                self._executed_s,
            )
            effects.append(Send(to, moved))
            self._count_no_more(groups)
        if any(epoch.gives.values()):
            self.kept.moved()
        epoch.gives = {}
        return effects

    def _count_no_more(self, groups: Iterable[int]) -> None:
        """Rows of these groups in the snapshots so far are of the past, also where the groups come back one day."""
        for stored in self._chain:
            stored.groups.difference_update(groups)
        self._chain = [stored for stored in self._chain if stored.groups]

    def _keys_copied(self, message: KeysCopied) -> list[Effect]:
        for row in message.keys:
            self._copies.setdefault(self._group_of(row.key), []).append(row)
        return []

    def _groups_moved(self, message: GroupsMoved) -> list[Effect]:
        epoch = self._epochs.setdefault(message.epoch, _Epoch())
        require(message.sender not in epoch.moved, f"shard {message.sender} gave groups away twice")
        epoch.moved[message.sender] = message
        return self._advance_execute()

    def _take(self, epoch: _Epoch) -> None:
        """Have what moves here with an epoch. The next snapshot holds all of it: those of its former shard count no more."""
        assert epoch.cut is not None
        something_stays = epoch.cut.target is not None and self._config.shard in epoch.cut.owners
        self._let_go(self._config.copied_keys if something_stays and not epoch.takes else None)
        keys = len(self.state)
        for sender, moved in sorted(epoch.moved.items()):
            require(sender in epoch.takes, f"shard {sender} gave groups away unasked")
            require(self._watermark in (_NEW, moved.watermark), "shards disagree on the watermark of groups that move")
            self._watermark = moved.watermark
            copied = [self._copies.pop(group, []) for group in moved.groups]
            require(sum(map(len, copied)) == moved.copied, f"copies of shard {sender}'s keys were lost on the way")
            for rows in copied:
                self.state.take_over(rows)
            self.state.put(moved.keys)
            for window in moved.windows:
                self.windows.put(window)
        came = [moved for moved in epoch.moved.values() if moved.groups]
        if came:
            self.kept.moved()
        now_s = self._timer()
        epoch.moves = Moves(
            sum(len(moved.groups) for moved in came),
            len(self.state) - keys,
            max((now_s - moved.executed_s for moved in came), default=0.0),
            now_s - self._executed_s if self._executed_s else 0.0,
        )
        epoch.moved = {}

    def _let_go(self, limit: int | None = None) -> None:
        """Of so many keys that are gone; of all before any come back, before somebody looks at all keys, and where nothing stays
        that would wait."""
        if self._gone:
            start = 0 if limit is None else max(0, len(self._gone) - limit)
            self.state.let_go(self._gone[start:])
            del self._gone[start:]
            self._among_others.stale = bool(self._gone)

    def _copy_ahead(self, epoch: _Epoch, cut: EpochCut) -> list[Effect]:
        """Be ready to give away what the target of a rescale wants of this shard."""
        if self._census is not None and self._census.target != cut.target:
            self._census.close()
            self._census = None
        if cut.target is None:
            return []
        if self._census is None:
            leaving = self._owned(cut.owners) - self._owned(cut.target)
            if not leaving:
                return []
            self._census = Census(cut.target, leaving, self.state, self.windows)
        copies, epoch.copied = self._census.advance(self._config.sorted_keys, self._config.copied_keys)
        return [Send(to, KeysCopied(rows)) for to, rows in copies.items()]

    def _execute(self, number: int, epoch: _Epoch) -> list[Effect]:
        assert epoch.cut is not None
        self._owners = epoch.cut.owners
        copies = self._copy_ahead(epoch, epoch.cut)
        epoch.horizon_s = self._watermark.w_s - self._config.lateness_s
        self.state.free(epoch.horizon_s, _FREED_PER_EPOCH)
        self.state.begin_epoch(images=epoch.cut.shards > 1)
        found: list[FoundMatch] = []
        started = self._watermark
        slices = self._slices(epoch)
        require([s.number for s in slices] == [t.number for t in epoch.cut.tasks], f"epoch {number} misses a slice")
        for routed in slices:
            self._execute_slice(epoch, epoch.cut, routed, found)
            ingested = epoch.ingested.get(routed.number)
            if ingested is not None:
                found += self._clocked(ingested)
                epoch.errors += ingested.errors
                epoch.counts.add(ingested.counts)
            self._watermark = self._watermark.after(routed.times)
        self._decoder.check()
        epoch.started, epoch.watermark = started, self._watermark
        self._executed_s = self._timer()
        # Nobody waits for the copies, all wait for what was executed. No group moves before its copy is sent: the coordinator
        # hears of that only later.
        return self._send_executed(number, epoch, found) + copies

    @staticmethod
    def _slices(epoch: _Epoch) -> list[RoutedSlice]:
        return sorted((part for parts in epoch.routed.values() for part in parts), key=lambda part: part.number)

    def _execute_slice(self, epoch: _Epoch, cut: EpochCut, routed: RoutedSlice, found: list[FoundMatch]) -> None:
        partition = cut.tasks[routed.number].slice.partition
        source = self._sources[partition]
        alone = cut.shards == 1
        evaluation = self._alone if alone else self._among_others
        state = self.state
        lateness_s = self._config.lateness_s
        first_index, earlier_s, later_s = self._watermark.horizons(routed.times, lateness_s)
        touched = epoch.touched
        events, subs = routed.events, routed.events.subs
        rules = self._rules
        epoch.rule_sets.update([ordinals for _, ordinals, _ in events.routes])
        cells = self._cells
        suspects = self._suspected(cut)
        begin_run(cells, partition, final=alone)
        evaluation.run_here()
        for item, event in self._decoder.events(events, source):
            (place, offset, time_s, local_w_s, _, _, _), (_, ordinals, _) = item
            clock_s = later_s if place > first_index else earlier_s  # Watermark.clock(), written out
            if local_w_s - lateness_s > clock_s:
                clock_s = local_w_s - lateness_s
            if time_s > clock_s:
                clock_s = time_s
            state.clock_s = clock_s
            position: Position = (partition, offset)
            if subs:
                position, cells[SUB] = events.position(place, offset), subs.get(place, 0)
            evaluation.event_time_s, evaluation.position = time_s, position
            cells[OFFSET] = offset
            for ordinal in ordinals:
                cells[ORDINAL] = ordinal
                rule = rules[ordinal]
                if suspects and ordinal in suspects:
                    outcome = self._defer(rule, event, time_s, position)
                else:
                    outcome = evaluate(rule, event, evaluation)
                if not alone:
                    touched.append(evaluation.key if evaluation.others is None else evaluation.touched())
                if outcome is DEFERRED:
                    order = (routed.number, place, ordinal)
                    keys = evaluation.keys()
                    epoch.joining.append(JoinedEvaluation(order, partition, clock_s, events.event(item), keys))
                elif outcome is not NO_MATCH:
                    self._outcome(epoch, routed.number, events.event(item), ordinal, clock_s, outcome, found)
            cells[ORDINAL] = NOTHING

    def _suspected(self, cut: EpochCut) -> frozenset[int]:
        """The ordinals of the rules that run in the lane only, where it can be told whether they hang (poison.py)."""
        if not self._suspects or cut.shards == 1:
            return frozenset()
        return frozenset(
            self._ordinals[suspect.rule_id]
            for suspect in self._suspects
            if suspect.rule_id in self._ordinals and any(_holds(task.slice, suspect.place) for task in cut.tasks)
        )

    def _defer(self, rule: Rule, event: PantherEvent, time_s: float, position: Position) -> Outcome:
        """Leave an evaluation to the lane, which is told the key that is known of it: the one that the probe at ingest gave."""
        probing, evaluation = self._probing, self._among_others
        probing.begin_event(time_s, position)
        evaluate(rule, event, probing)
        evaluation.begin(rule.id)
        evaluation.key = probing.key
        return DEFERRED

    def _outcome(
        self,
        epoch: _Epoch,
        slice_number: int,
        item: RoutedEvent,
        ordinal: int,
        clock_s: float,
        outcome: Outcome,
        found: list[FoundMatch],
    ) -> None:
        order = (slice_number, item.place, ordinal)
        event_id = event_id_of(item.row_id, item.position)
        for error in outcome.errors:
            epoch.errors.append(FoundError(order, item.position, event_id, self._rules[ordinal].id, error))
        if outcome.match is not None:
            found.append(FoundMatch(order, item.position, event_id, item.log_type, item.time_s, clock_s, outcome.match))

    def _clocked(self, ingested: IngestedSlice) -> list[FoundMatch]:
        """The matches that needed no state, with their clocks: W at the start of the slice is known."""
        clock = self._watermark.clock(ingested.times, self._config.lateness_s)
        return [
            FoundMatch(order, position, event_id, log_type, time_s, clock(order[1], local_w_s, time_s), match)
            for (order, position, event_id, log_type, time_s, _, match), local_w_s in ingested.matches
        ]

    def _owns(self, key: str) -> bool:
        return self._owners[self._group_of(key)] == self._config.shard

    def _send_executed(self, number: int, epoch: _Epoch, found: list[FoundMatch]) -> list[Effect]:
        assert epoch.cut is not None
        own, leader = self._config.shard, self._leader(epoch.cut)
        batches = self._by_grouper(epoch.cut, found)
        joining = epoch.joining
        epoch.counts.deferred += len(joining)
        self._count_rules(epoch)
        following = self._epochs.get(number + 1, _Epoch())
        held, following.held = following.held, {}
        executed = [
            EpochExecuted(number, own, batch, len(joining), joining if to == leader else [], held.pop(to, None))
            for to, batch in enumerate(batches)
        ]
        effects: list[Effect] = [Send(to, message) for to, message in enumerate(executed) if to != own]
        return effects + _sent(held) + self._epoch_executed(executed[own])

    def _by_grouper(self, cut: EpochCut, found: list[FoundMatch]) -> list[list[FoundMatch]]:
        """Matches by the shard that owns their alert window."""
        groups, owners = self._config.key_groups, cut.owners
        batches: list[list[FoundMatch]] = [[] for _ in range(cut.shards)]
        for match in found:
            rule_id = self._rules[match.order[2]].id
            batches[owners[window_group(rule_id, match.match.dedup, groups)]].append(match)
        return batches

    def _count_rules(self, epoch: _Epoch) -> None:
        def counts(ordinal: int) -> RuleCounts:
            return epoch.counts.rules.setdefault(self._rules[ordinal].id, RuleCounts())

        for ordinals, events in epoch.rule_sets.items():
            epoch.counts.evaluations += events * len(ordinals)
            for ordinal in ordinals:
                counts(ordinal).evaluations += events
        for joined in epoch.joining:
            counts(joined.order[2]).deferred += 1

    # --- the serial lane -----------------------------------------------------------------------------------------

    @staticmethod
    def _leader(cut: EpochCut) -> int:
        """Who runs the lane of an epoch: in turns, so that the work is shared."""
        return cut.epoch % cut.shards

    def _epoch_executed(self, message: EpochExecuted) -> list[Effect]:
        epoch = self._epochs.setdefault(message.epoch, _Epoch())
        require(message.sender not in epoch.executed, f"shard {message.sender} executed epoch {message.epoch} twice")
        routed = [] if message.routed is None else self._events_routed(message.routed)
        epoch.executed[message.sender] = replace(message, routed=None)
        return routed + self._resolve(message.epoch, epoch)

    def _resolve(self, number: int, epoch: _Epoch) -> list[Effect]:
        """Once every shard has executed: group the epoch, after the serial lane where there is one."""
        if epoch.cut is None or len(epoch.executed) < epoch.cut.shards:
            return []
        require(number == self._executed, f"epoch {number} was executed everywhere but here")
        if not any(executed.deferred for executed in epoch.executed.values()):
            return self._finish(number, epoch)
        if epoch.ran is not None:
            self._take_over(epoch, epoch.ran)
            return self._finish(number, epoch)
        if epoch.lane is not None or self._leader(epoch.cut) != self._config.shard:
            return []
        epoch.lane = Lane(
            self._rules,
            self._decoder,
            self._sources,
            self._config.max_value_bytes,
            self._timer,
            self._cells,
            self._suspected(epoch.cut),
            self._swallowing,
        )
        joining = [joined for executed in epoch.executed.values() for joined in executed.joining]
        wanted = epoch.lane.join(joining)
        return self._ask(number, epoch, wanted) if wanted else self._run_lane(number, epoch, epoch.lane)

    def _ask(self, number: int, epoch: _Epoch, keys: set[str]) -> list[Effect]:
        """Ask the owners for keys that the lane wants. Sorted: what is sent must not depend on the order of a set."""
        assert epoch.cut is not None
        owners, own = epoch.cut.owners, self._config.shard
        wanted: dict[int, list[str]] = {}
        for key in sorted(keys):
            wanted.setdefault(owners[self._group_of(key)], []).append(key)
        epoch.asked = set(wanted)
        effects: list[Effect] = [Send(to, KeysAsked(number, tuple(asked))) for to, asked in wanted.items() if to != own]
        if own in wanted:  # not at once: passes would begin within each other, and a rule find the stack full
            effects.append(GoOn(self._lent(number, epoch, wanted[own])))
        return effects

    def _keys_asked(self, message: KeysAsked) -> list[Effect]:
        epoch = self._epochs[message.epoch]
        assert epoch.cut is not None
        return [Send(self._leader(epoch.cut), self._lent(message.epoch, epoch, message.keys))]

    def _lent(self, number: int, epoch: _Epoch, keys: Iterable[str]) -> KeysLent:
        require(number == self._executed, f"keys of epoch {number} are asked for, which does not run here")
        if epoch.lender is None:
            epoch.lender = _Lender(self._settled(epoch))
        lent, joining = epoch.lender.lend(keys)
        return KeysLent(number, self._config.shard, [self.state.row_before(key) for key in lent], joining)

    def _settled(self, epoch: _Epoch) -> Iterator[JoinedEvaluation]:
        """The evaluations of an epoch that were not deferred, with the keys that they touched."""
        assert epoch.cut is not None
        deferred = {joined.order for joined in epoch.joining}
        touched = iter(epoch.touched)
        watermark = epoch.started
        for part in self._slices(epoch):
            partition = epoch.cut.tasks[part.number].slice.partition
            clock = watermark.clock(part.times, self._config.lateness_s)
            for item in part.events:
                clock_s = clock(item.place, item.local_w_s, item.time_s)
                for ordinal in item.rules:
                    order = (part.number, item.place, ordinal)
                    keys = keys_of(next(touched))
                    if order not in deferred:
                        yield JoinedEvaluation(order, partition, clock_s, item, keys)
            watermark = watermark.after(part.times)

    def _keys_lent(self, message: KeysLent) -> list[Effect]:
        epoch = self._epochs[message.epoch]
        require(epoch.lane is not None, f"keys are lent to epoch {message.epoch}, whose lane is not here")
        assert epoch.lane is not None
        require(message.sender in epoch.asked, f"shard {message.sender} lent keys unasked")
        epoch.asked.discard(message.sender)
        wanted = epoch.lane.join(message.joining, message.rows)
        if epoch.asked:
            return []
        require(not wanted, f"the owners kept keys of epoch {message.epoch}: {sorted(wanted)[:3]}")
        run = self._close_lane if epoch.lane.stands else self._run_lane
        return run(message.epoch, epoch, epoch.lane)

    def _run_lane(self, number: int, epoch: _Epoch, lane: Lane) -> list[Effect]:
        wanted = lane.run()
        self._decoder.check()
        return self._ask(number, epoch, wanted) if wanted else self._close_lane(number, epoch, lane)

    def _close_lane(self, number: int, epoch: _Epoch, lane: Lane) -> list[Effect]:
        assert epoch.cut is not None
        owners, shards, own = epoch.cut.owners, epoch.cut.shards, self._config.shard
        rows: list[list[Row]] = [[] for _ in range(shards)]
        for row in lane.rows():
            rows[owners[self._group_of(row.key)]].append(row)
        matches = self._by_grouper(epoch.cut, lane.matches)
        for rule_id, counts in lane.counts.items():
            epoch.counts.rules.setdefault(rule_id, RuleCounts()).add(counts)
        ran = [
            LaneRan(number, rows[to], lane.orders, matches[to], lane.errors if to == own else [])
            for to in range(shards)
        ]
        effects: list[Effect] = [Send(to, message) for to, message in enumerate(ran) if to != own]
        return effects + self._lane_ran(ran[own])

    def _lane_ran(self, message: LaneRan) -> list[Effect]:
        epoch = self._epochs[message.epoch]
        require(epoch.ran is None, f"the lane of epoch {message.epoch} ran twice")
        epoch.ran = message
        # Not finished yet, perhaps: the leader may have heard of shards that are still to be heard here.
        return self._resolve(message.epoch, epoch)

    def _take_over(self, epoch: _Epoch, ran: LaneRan) -> None:
        """Take the lane's outcome in place of what its evaluations came to before."""
        self.state.put(ran.rows)
        if self._census is not None:
            self._census.changed(row.key for row in ran.rows)
        epoch.errors = [error for error in epoch.errors if error.order not in ran.orders] + ran.errors
        own = self._config.shard
        for sender, executed in epoch.executed.items():
            matches = [match for match in executed.matches if match.order not in ran.orders]
            epoch.executed[sender] = replace(executed, matches=matches + (ran.matches if sender == own else []))

    # --- group ---------------------------------------------------------------------------------------------------

    def _finish(self, number: int, epoch: _Epoch) -> list[Effect]:
        """Every evaluation of the epoch has its outcome: group its matches, and execute the next."""
        assert epoch.cut is not None
        if epoch.cut.checkpoint:
            epoch.delta = not epoch.cut.base and self._delta()
            epoch.keys = self._capture_keys(epoch.delta)
        self._grouped = number
        effects = self._group(number, epoch)
        del self._epochs[number]
        return effects + self._tell_state() + self._advance_execute()

    def _group(self, number: int, epoch: _Epoch) -> list[Effect]:
        assert epoch.watermark is not None
        self.windows.free(epoch.horizon_s, _FREED_PER_EPOCH)
        matches: list[Output] = []
        alerts: list[AlertOutput] = []
        found = [match for executed in epoch.executed.values() for match in executed.matches]
        found.sort(key=attrgetter("order"))
        for match in found:
            self._place(match, matches, alerts)
        grouped = EpochGrouped(
            number,
            self._config.shard,
            epoch.watermark,
            epoch.counts,
            len(self.state) - sum(map(self.state.has, self._gone)),
            tuple(epoch.copied),
            epoch.moves,
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

    # --- looking at keys -----------------------------------------------------------------------------------------

    def _state_asked(self, message: StateAsked) -> list[Effect]:
        require(message.epoch >= self._grouped, f"asked for keys as of epoch {message.epoch}, which is over")
        self._asked.append(message)
        return self._tell_state()

    def _tell_state(self) -> list[Effect]:
        """Answer who asked for the state as it is now. No epoch runs: none after the one that is asked for was cut."""
        ready = [asked for asked in self._asked if asked.epoch == self._grouped]
        if not ready:
            return []
        self._asked = [asked for asked in self._asked if asked.epoch > self._grouped]
        return [Send(COORDINATOR, self._told(asked.wanted)) for asked in ready]

    def _told(self, wanted: StateWanted) -> StateTold:
        self._let_go()
        horizon_s = self._watermark.w_s - self._config.lateness_s
        if wanted.key is None:
            rows, found = self.state.first(wanted.prefix, wanted.limit, horizon_s)
        else:
            row = self.state.row(wanted.key)
            rows = [row] if row.expiry_s is not None and row.expiry_s > horizon_s else []
            found = len(rows)
        size_bytes = 0
        for count, row in enumerate(rows, 1):
            size_bytes += len(row.dictionary or "") + sum(map(len, row.members or ()))
            if size_bytes >= _TOLD_BYTES:
                rows = rows[:count]
                break
        return StateTold(wanted.number, self._config.shard, rows, found)

    # --- snapshots -----------------------------------------------------------------------------------------------

    def _delta(self) -> bool:
        """A delta will do as long as the deltas together are smaller than the base they change."""
        sizes = [stored.size_bytes for stored in self._chain]
        return bool(sizes) and sum(sizes[1:]) <= sizes[0]

    def _capture_keys(self, delta: bool) -> Joint[str, Image]:
        self._let_go()
        if delta:
            return self.state.capture_dirty()
        return self.state.capture_all(self._watermark.w_s - self._config.lateness_s)

    def _store_snapshot(self, number: int, keys: Joint[str, Image], delta: bool) -> Effect:
        windows = self.windows.capture_dirty() if delta else self.windows.capture_all()
        kind = "delta" if delta else "base"
        name = f"{self._config.fence:08d}-{number:010d}-{self._config.shard:04d}-{self._config.owner}-{kind}"
        if not delta:
            self._chain = []
        self._chain.append(_Stored(set(self._owned(self._owners))))
        # As it is now: by the time it is stored, groups may have moved, of which the rows in it count in this epoch.
        self._storing[number] = [(stored, frozenset(stored.groups)) for stored in self._chain]
        self.kept.captured(number, self._owned(self._owners))
        return StoreSnapshot(number, self._config.shard, name, keys, windows)

    def _snapshot_stored(self, message: SnapshotStored) -> list[Effect]:
        chain = self._storing.pop(message.epoch, None)
        if chain is None:
            reason = "the snapshot that it changes was not stored"
            return [Send(COORDINATOR, SnapshotFailed(message.epoch, self._config.shard, reason))]
        last, _ = chain[-1]
        last.names, last.size_bytes = message.names, message.size_bytes
        blobs = tuple(Blob(name, groups) for stored, groups in chain for name in stored.names)
        self.kept.stored(message.epoch, _names(blobs))
        return [Send(COORDINATOR, SnapshotAdded(message.epoch, self._config.shard, blobs))]

    def _snapshot_failed(self, message: SnapshotFailed) -> list[Effect]:
        self._chain = []  # what the lost snapshot held is no longer dirty: only a new base is whole
        self._storing = {}
        return [Send(COORDINATOR, message)]

    def _checkpoint_committed(self, message: CheckpointCommitted) -> list[Effect]:
        self.kept.committed(message.epoch, message.blobs)
        return []

    # --- invariants ----------------------------------------------------------------------------------------------

    def validate(self) -> None:
        """Raise when the machine contradicts itself; tests call it after every message."""
        require(self._grouped <= self._executed, "grouped an epoch before executing it")
        for number, epoch in self._epochs.items():
            require(number > self._grouped, f"epoch {number} was grouped and kept")
            if epoch.cut is not None:
                require(len(epoch.routed) <= epoch.cut.shards, f"epoch {number} heard of more shards than there are")
            if number > self._executed:
                require(epoch.watermark is None, f"epoch {number} has a watermark and was not executed")
            require(not epoch.held or number > self._executed + 1, f"what is routed in epoch {number} waits for nothing")
        gone = set(self._gone)
        for row in self.state.rows(float("-inf")):
            require(self._owns(row.key) or row.key in gone, f"key {row.key!r} belongs to another shard")
        for group in self._copies:
            owner = self._owners[group] if self._owners else None
            require(owner != self._config.shard, f"group {group} is here, and so are copies of its keys")
        self.state.validate()
        self.windows.validate()


def _unwatched_reading(reread: Reread, cells: Cells) -> Reread:
    """Reading is no rule's fault, however long the disk takes."""

    def read(partition: int, offset: int, length_bytes: int, digest: int) -> bytes:
        ordinal = cells[ORDINAL]
        cells[ORDINAL] = NOTHING
        try:
            return reread(partition, offset, length_bytes, digest)
        finally:
            cells[ORDINAL] = ordinal

    return read


def _holds(part: Slice, place: Place) -> bool:
    partition, offset, _ = place
    return part.partition == partition and part.start <= offset and (part.stop is None or offset < part.stop)


def _events(message: EventsRouted) -> int:
    return sum(len(part.events) for part in message.slices)


def _sent(messages: Mapping[int, Message]) -> list[Effect]:
    return [Send(to, message) for to, message in messages.items()]


def _names(blobs: Iterable[Blob]) -> tuple[str, ...]:
    return tuple(blob.name for blob in blobs)
