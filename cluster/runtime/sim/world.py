"""One simulated run: a coordinator, its shards, the messages between them, and everything that goes wrong.

A life is what the driver starts: a coordinator and shards under one fencing token. When one of its processes is lost or
silent for long, the driver starts the next life from the store alone. What is left of the old one goes over into the new one
(a shard with what it holds, which it rolls back), or goes on as zombies until it is reaped. In the safety phase anything may
fail; in the liveness phase nothing does, and the run must end.
"""

from __future__ import annotations

import hashlib
import pickle
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.checkpoints import newest_whole
from cluster.core import snapshot
from cluster.core.coordinator import Coordinator, CoordinatorConfig, Phase, Progress, progress_of
from cluster.core.effects import (
    COORDINATOR,
    CommitManifest,
    Deliver,
    Effect,
    Finish,
    GoOn,
    LoadBlobs,
    ReadSlice,
    Send,
    StoreSnapshot,
    TellState,
)
from cluster.core.errors import CorruptSnapshot
from cluster.core.kept import Kept
from cluster.core.messages import (
    BlobsLoaded,
    EpochCut,
    ManifestCommitted,
    ManifestFailed,
    Message,
    RescaleRequested,
    SliceIngested,
    SliceRead,
    SnapshotFailed,
    SnapshotStored,
    Started,
    StateWanted,
    StopRequested,
    Ticked,
)
from cluster.core.poison import Hang, unwatched
from cluster.core.shard import Shard, ShardConfig
from cluster.runtime import job
from cluster.runtime.sim import checkers, hanging
from cluster.runtime.sim.checkers import Wrong
from cluster.runtime.sim.disk import Down, FencedOut, Output, Store, Writer
from cluster.runtime.sim.oracle import sequential
from cluster.runtime.sim.workload import START_S, Workload, draw
from cluster.stores import BlobMissing
from rules.pack import load_pack, log_types_of

KINDS = ("matches", "alerts", "errors", "dead_letters")

_LIVENESS_STEPS = 500_000
"""Several times what any run without faults takes: one without checkpoints, in which two rules hang on many events, began anew
78 times (seed 312345678925)."""


class _Lost(Exception):
    """The process ends here."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a seed draws besides the workload."""

    shards: int
    key_groups: int
    epoch_events: int
    checkpoint_interval_s: float
    index: bool
    moved_keys: int
    rescale_rate: float
    safety_steps: int
    fault_rate: float
    survivors: float
    """The chance of a process that is left of a life to go over into the next."""
    faults: tuple[str, ...]


FAULTS = (
    "shard lost", "coordinator lost", "machine lost", "paused", "store down", "store up", "newest writes lost", "stopped",
    "rescaled", "checkpoint damaged",
)  # fmt: skip


def draw_options(rng: random.Random) -> Options:
    faults = tuple(fault for fault in FAULTS if rng.random() < 0.6)
    return Options(
        rng.randint(1, 6),
        rng.choice([8, 256]),
        rng.choice([1, 2, 5, 20, 100, 500]),
        rng.choice([0.0, 0.0, 0.0, 0.5, 3.0, 1000.0]),
        rng.random() < 0.5,
        rng.choice([1, 20, 16_000]),
        rng.choice([0.0, 0.0, 0.005, 0.05]),
        rng.choice([0, 100, 400, 1000]),
        rng.choice([0.0, 0.01, 0.05, 0.1]),
        rng.choice([0.0, 0.5, 1.0]),
        faults,
    )


@dataclass(slots=True)
class Process:
    """A machine that runs, or has stopped."""

    name: int
    """COORDINATOR or the shard's number."""
    life: Life
    """Where it belongs now; messages of the lives before still reach it."""
    cells: list[int] = field(default_factory=unwatched)
    alive: bool = True
    paused_until: int = 0
    background: deque[tuple[Life, StoreSnapshot]] = field(default_factory=deque)

    @property
    def machine(self) -> Coordinator | Shard:
        return self.life.coordinator if self.name == COORDINATOR else self.life.shards[self.name]


@dataclass(slots=True)
class Life:
    """A coordinator and its shards under one token."""

    token: tuple[int, int]
    coordinator: Coordinator
    shards: list[Shard]
    writers: dict[str, Writer]
    processes: dict[int, Process] = field(default_factory=dict)
    cells: list[list[int]] = field(default_factory=list)
    channels: dict[tuple[int, int], deque[bytes]] = field(default_factory=dict)
    finish: Finish | None = None
    lost_at: int | None = None
    """The step at which a process was lost or fell silent, as far as the driver can notice."""
    hang: Hang | None = None
    """What the watch said of the first process that it ended."""
    cuts: dict[int, EpochCut] = field(default_factory=dict)
    ingested: dict[tuple[int, int], SliceIngested] = field(default_factory=dict)
    covered: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    """epoch -> (partition, start, stop) of its slices, along the lives that led here"""


class World:
    """Runs one seed."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.workload: Workload = draw(self._rng, random.Random(f"hangs of {seed}"))
        self.options = draw_options(self._rng)
        files = {file.partition.index: file for file in self.workload.files}
        cites = random.Random(f"citing of {seed}").random() < 0.5
        self._reread = (lambda partition, *cited: files[partition].again(*cited)) if cites else None
        self._pack = load_pack(self.workload.pack, quiet=True)
        self._log_types = log_types_of(self._pack)
        self._store = Store()
        self._outputs = {kind: Output() for kind in KINDS}
        self._life: Life | None = None
        self._hang: Hang | None = None
        """What the driver knows, and has not logged yet."""
        self._zombies: list[Life] = []
        self._left: dict[int, Process] = {}
        """What is left of the life before, and may go over into the next."""
        self._step = 0
        self._calm = False
        self._now_s = 0.0
        self._shards = self.options.shards
        self._rescale_to: int | None = None
        """Asked for, and not told to the coordinator."""
        self._committed: dict[tuple[int, int], Life] = {}
        """(token's number, epoch) of a manifest -> whose it is. After a store lost a token, that may be a zombie's."""
        self._told: list[str] = []
        self._doomed = False
        """The next checkpoint will be spoiled as soon as there is another to go back to, be it after the last fault."""
        self.damaged = 0
        """How often the newest checkpoint was spoiled."""
        self.lives = self.hangs = self.rescales = 0
        self.lane = 0
        self.rolled_back = 0
        """Shards that went back to a checkpoint without reading it."""
        self._looking = random.Random(f"looking of {seed}")
        self._looks = self._looking.choice([0, 0, 1, 2])
        """How often somebody asks for keys yet."""
        self._wanted: list[StateWanted] = []
        self._seen: list[TellState] = []
        self._trace = hashlib.sha256()

    @property
    def trace(self) -> str:
        """A digest of every choice and message: the same for the same seed."""
        return self._trace.hexdigest()

    def report(self) -> Iterator[str]:
        """What was drawn, a line each."""
        workload = self.workload
        yield f"rules: {', '.join(workload.names)}"
        yield (
            f"events: {sum(len(file.records) for file in workload.files)} in "
            f"{', '.join(file.partition.compression or file.partition.format for file in workload.files)}; "
            f"lateness {workload.lateness_s:g} s; limit {workload.alert_limit}"
        )
        yield str(self.options)

    def run(self) -> None:
        """Raise Wrong, or what a machine raised, where a promise does not hold."""
        for _ in range(self.options.safety_steps):
            if self._done():
                break
            self._advance()
            if self._rng.random() < self.options.fault_rate and self.options.faults and not self._done():
                self._fault(self._rng.choice(self.options.faults))
        self._store.down = False
        self._calm = True
        for life in self._lives():
            for process in life.processes.values():
                process.paused_until = 0
        for _ in range(_LIVENESS_STEPS):
            if self._done():
                break
            self._advance()
        else:
            raise Wrong(f"no end after {_LIVENESS_STEPS} steps without faults")
        self._check()

    # --- scheduling ----------------------------------------------------------------------------------------------

    def _lives(self) -> list[Life]:
        return ([self._life] if self._life is not None else []) + self._zombies

    def _done(self) -> bool:
        finish = self._life.finish if self._life is not None else None
        return finish is not None and not finish.interrupted and not finish.unsaved

    def _advance(self) -> None:
        """One step: a message, a background job, the clock, or the driver."""
        self._step += 1
        self._now_s += 0.01
        if self._life is None:
            self._drive()
            return
        if self._life.finish is not None or (self._life.lost_at is not None and self._rng.random() < 0.05):
            self._bury()
            return
        life = self._life if not self._zombies or self._rng.random() < 0.8 else self._rng.choice(self._zombies)
        if self._rng.random() < 0.02 and life in self._zombies:
            self._zombies.remove(life)  # reaped
            return
        if self._rng.random() < self.options.rescale_rate:
            self._rescale_to = self._rng.randint(1, 6)
        if self._rng.random() < 0.1:
            self._rescale(self._life)
        if len(self._wanted) < self._looks and self._looking.random() < 0.01:
            wanted = StateWanted(len(self._wanted), None, "", self._looking.choice([2, 10_000]))
            self._wanted.append(wanted)
            self._tell(self._life, COORDINATOR, wanted)
        choices = self._choices(life)
        if not choices or self._rng.random() < 0.1:
            self._now_s += 0.2
            self._tell(life, COORDINATOR, Ticked(self._now_s))
            return
        choice = choices[self._rng.randrange(len(choices))]
        if isinstance(choice, Process):
            self._store_snapshot(choice)
        else:
            self._tell(life, choice[1], pickle.loads(life.channels[choice].popleft()))

    def _choices(self, life: Life) -> list[Process | tuple[int, int]]:
        def runs(name: int) -> bool:
            process = life.processes[name]
            return process.alive and process.paused_until <= self._step

        found: list[Process | tuple[int, int]] = [
            channel for channel, queue in life.channels.items() if queue and runs(channel[1])
        ]
        return found + [process for process in life.processes.values() if process.background and runs(process.name)]

    def _tell(self, life: Life, name: int, message: Message) -> None:
        process = life.processes[name]
        if not process.alive or process.paused_until > self._step or not job.is_of_life(life.token, process.life.token):
            return
        life = process.life
        self._trace.update(f"{life.token}{name}{message!r}".encode() if not isinstance(message, Ticked) else b"t")
        if isinstance(message, SliceIngested):
            life.ingested[message.epoch, message.number] = message
        queue: deque[Message] = deque([message])
        machine = process.machine
        try:
            while queue:
                hanging.watch(process.cells)
                message = queue.popleft()
                effects = machine.handle(message)
                hang = hanging.taken()
                if hang is not None:
                    self._end(process, hang)
                    return
                machine.validate()
                if isinstance(message, Started) and not any(isinstance(effect, LoadBlobs) for effect in effects):
                    self._check_rolled_back(life, process.name, message)
                for effect in effects:
                    answer = self._perform(life, process, effect)
                    if answer is not None:
                        queue.append(answer)
        except (Down, FencedOut, BlobMissing, CorruptSnapshot, _Lost):
            # What no machine can go on after ends its process, as the shells have it.
            self._lose(process)

    # --- effects -------------------------------------------------------------------------------------------------

    def _perform(self, life: Life, process: Process, effect: Effect) -> Message | None:
        match effect:
            case Send(to=to, message=message):
                if isinstance(message, EpochCut):
                    life.cuts[message.epoch] = message
                life.channels.setdefault((process.name, to), deque()).append(pickle.dumps(message))
            case GoOn(message=message):
                return message
            case ReadSlice():
                return SliceRead(
                    effect.epoch, effect.number, self.workload.files[effect.slice.partition].read(effect.slice)
                )
            case LoadBlobs():
                return BlobsLoaded(tuple(self._store.get_blob("sim", name) for name in effect.names))
            case StoreSnapshot():
                process.background.append((life, effect))
            case Deliver():
                for kind in KINDS:
                    life.writers[kind].write(getattr(effect, kind))
                self._cover(life, effect.epoch)
            case CommitManifest():
                return self._commit(life, effect)
            case TellState():
                self._seen.append(effect)
            case Finish():
                for writer in life.writers.values():
                    writer.flush()
                life.finish = effect
        return None

    def _cover(self, life: Life, epoch: int) -> None:
        tasks = life.cuts[epoch].tasks
        ingested = [life.ingested[epoch, task.number] for task in tasks]
        life.covered[epoch] = [
            (task.slice.partition, task.slice.start, done.next_start if task.slice.stop is None else task.slice.stop)
            for task, done in zip(tasks, ingested, strict=True)
        ]

    def _store_snapshot(self, process: Process) -> None:
        life, effect = process.background.popleft()
        blobs = {f"{effect.name}-{n}": blob for n, blob in enumerate(snapshot.encode(effect.keys, effect.windows, 1))}
        try:
            for name, blob in blobs.items():
                self._store.put_blob(name, blob)
        except Down:
            self._tell(life, process.name, SnapshotFailed(effect.epoch, effect.shard, "down"))
            return
        if self._rng.random() < 0.02 and "store down" in self.options.faults:  # written, and the answer lost
            self._tell(life, process.name, SnapshotFailed(effect.epoch, effect.shard, "timed out"))
            return
        self._tell(life, process.name, SnapshotStored(effect.epoch, effect.shard, tuple(blobs), sum(map(len, blobs.values()))))

    def _commit(self, life: Life, effect: CommitManifest) -> Message:
        for writer in life.writers.values():
            writer.flush()
        try:
            self._store.commit(life.token, effect.epoch, snapshot.encode_manifest(effect.manifest), effect.blobs)
            self._committed[life.token[0], effect.epoch] = life
        except Down:
            return ManifestFailed(effect.epoch, "down")
        except BlobMissing as error:
            return ManifestFailed(effect.epoch, str(error), rebase=True)
        if self._doomed and life.coordinator.phase is Phase.RUNNING and self._store.damage_newest(self._rng):
            self._doomed = False
            self.damaged += 1
            for process in life.processes.values():  # it shows when somebody goes on from there
                self._lose(process)
        if self._rng.random() < 0.02 and "store down" in self.options.faults:
            return ManifestFailed(effect.epoch, "timed out")
        if self._rng.random() < 0.1 and "coordinator lost" in self.options.faults and not self._calm:
            raise _Lost
        return ManifestCommitted(effect.epoch)

    # --- the driver ----------------------------------------------------------------------------------------------

    def _drive(self) -> None:
        """Start the next life from the store alone."""
        self._shards, self._rescale_to = self._rescale_to or self._shards, None
        try:
            token = self._store.acquire()
            known = newest_whole(self._store, "sim", self._told.append)
            progress = progress_of(known) if known is not None else Progress()
            if self._hang is not None:
                rule_id = self._pack.rules[self._hang.ordinal].id
                progress = replace(progress, poison=progress.poison.after(rule_id, self._hang))
            life = self._born(token, progress)
            if known is not None:
                before = self._committed[known["fence"], known["epoch"]].covered
                life.covered = {epoch: slices for epoch, slices in before.items() if epoch <= progress.epoch}
            manifest = snapshot.encode_manifest(life.coordinator.manifest(progress, progress.blobs))
            self._store.commit(token, progress.epoch, manifest, tuple(blob.name for blob in progress.blobs))
            self._committed[token[0], progress.epoch] = life
        except Down:
            if self._rng.random() < 0.1:
                self._store.down = False
            return
        self._hang = None
        self._life = life
        self._settle_in(life)
        self.lives += 1
        for effect in life.coordinator.start():
            self._perform(life, life.processes[COORDINATOR], effect)

    def _born(self, token: tuple[int, int], progress: Progress) -> Life:
        options, workload = self.options, self.workload
        partitions = tuple(file.partition for file in workload.files)
        config = CoordinatorConfig(
            "sim",
            self._shards,
            options.key_groups,
            options.epoch_events,
            options.checkpoint_interval_s,
            workload.alert_limit,
            self._pack.digest,
            float(START_S),
            token[0],
            workload.lateness_s,
            options.moved_keys,
        )
        coordinator = Coordinator(config, partitions, progress)
        shard = self._shard_config(token)
        life = Life(token, coordinator, [], {kind: self._outputs[kind].open() for kind in KINDS})
        for n in range(self._shards):
            cells = self._left[n].cells if n in self._left else unwatched()
            life.cells.append(cells)
            life.shards.append(
                Shard(
                    replace(shard, shard=n),
                    self._pack,
                    self._log_types,
                    cells=cells,
                    kept=self._kept(n),
                    reread=self._reread,
                )
            )
        return life

    def _shard_config(self, token: tuple[int, int]) -> ShardConfig:
        """Of shard 0."""
        options, workload = self.options, self.workload
        partitions = tuple(file.partition for file in workload.files)
        return ShardConfig(
            0,
            options.key_groups,
            workload.lateness_s,
            400_000,
            partitions,
            token[0],
            str(token[1]),
            options.index,
            False,
            2 * options.moved_keys,
            options.moved_keys,
        )

    def _grow(self, life: Life, shards: int) -> None:
        """Start shards until there are so many."""
        for number in range(len(life.shards), shards):
            cells = unwatched()
            config = replace(self._shard_config(life.token), shard=number)
            life.cells.append(cells)
            life.shards.append(Shard(config, self._pack, self._log_types, cells=cells, reread=self._reread))
            life.processes[number] = Process(number, life, cells)

    def _rescale(self, life: Life) -> None:
        """End shards that are not needed any more; then, where another number is asked for, go there."""
        coordinator = life.processes[COORDINATOR]
        if not coordinator.alive or coordinator.paused_until > self._step or life.coordinator.rescaling:
            return
        for number in range(life.coordinator.shards, len(life.shards)):
            life.processes.pop(number).alive = False
            life.channels = {ends: queue for ends, queue in life.channels.items() if number not in ends}
        del life.shards[life.coordinator.shards :], life.cells[life.coordinator.shards :]
        if self._rescale_to is not None:
            self._shards, self._rescale_to = self._rescale_to, None
            self._grow(life, self._shards)
            self.rescales += 1
            self._tell(life, COORDINATOR, RescaleRequested(self._shards))

    def _kept(self, name: int) -> Kept | None:
        """What a shard that is left of the life before holds."""
        if name not in self._left:
            return None
        machine = self._left[name].machine
        assert isinstance(machine, Shard)
        return machine.kept

    def _settle_in(self, life: Life) -> None:
        """Give each machine of a life its process: the one that is left, or a new one."""
        for name in (COORDINATOR, *range(len(life.shards))):
            process = life.processes[name] = self._left.pop(name) if name in self._left else Process(name, life)
            process.life = life
            if name != COORDINATOR:
                process.cells = life.cells[name]
        for process in self._left.values():
            process.alive = False
        self._left = {}

    def _bury(self) -> None:
        """The driver gives a life up; what still runs of it are zombies until somebody reaps them."""
        assert self._life is not None
        if any(process.alive for process in self._life.processes.values()) and self._life.finish is None:
            self._zombies.append(self._life)
            self._left = {
                name: process
                for name, process in self._life.processes.items()
                if process.alive and process.paused_until <= self._step and self._rng.random() < self.options.survivors
            }
        self._hang = self._life.hang or self._hang
        self._life = None

    def _end(self, process: Process, hang: Hang) -> None:
        """The watch ends a process. Now and then the driver does not hear why, and takes it for lost."""
        self.hangs += 1
        if process.life.hang is None and self._rng.random() < 0.9:
            process.life.hang = hang
        self._lose(process)

    def _lose(self, process: Process) -> None:
        process.alive = False
        process.background.clear()
        if process.life.lost_at is None:
            process.life.lost_at = self._step

    # --- faults --------------------------------------------------------------------------------------------------

    def _fault(self, name: str) -> None:
        self._trace.update(name.encode())
        rng, life = self._rng, self._life
        if name == "store down":
            self._store.down = True
        elif name == "store up":
            self._store.down = False
        elif name == "rescaled":
            self._shards = rng.randint(1, 6)
        elif life is None:
            return
        elif name == "shard lost":
            self._lose(life.processes[rng.randrange(len(life.shards))])
        elif name == "coordinator lost":
            self._lose(life.processes[COORDINATOR])
        elif name == "machine lost":
            for each in self._lives():
                for process in each.processes.values():
                    self._lose(process)
            for output in self._outputs.values():
                output.crash(rng.randint(0, 5))
        elif name == "paused":
            process = life.processes[rng.choice(list(life.processes))]
            process.paused_until = self._step + rng.choice([5, 50, 500])
            if rng.random() < 0.5:
                life.lost_at = self._step  # for the driver, silence is death
        elif name == "newest writes lost":
            if rng.random() < 0.5:  # a fail-over that cuts every connection
                for process in life.processes.values():
                    self._lose(process)
            self._store.lose_newest(rng.randint(1, 6))
        elif name == "checkpoint damaged":
            self._doomed = True
        elif name == "stopped":
            self._tell(life, COORDINATOR, StopRequested())

    # --- the verdict ---------------------------------------------------------------------------------------------

    def _check_rolled_back(self, life: Life, name: int, started: Started) -> None:
        """It holds what one does that reads the checkpoint."""
        self.rolled_back += 1
        shard = life.shards[name]
        config = replace(self._shard_config(life.token), shard=name)
        fresh = Shard(config, self._pack, self._log_types)
        (load,) = fresh.handle(started)
        assert isinstance(load, LoadBlobs)
        try:
            fresh.handle(BlobsLoaded(tuple(self._store.read_blob(name) for name in load.names)))
        except (CorruptSnapshot, KeyError):  # damaged since the life began
            return
        horizon_s = started.watermark.w_s - self.workload.lateness_s
        checkers.check_rolled_back(fresh, shard, horizon_s)

    def _check(self) -> None:
        life = self._life
        assert life is not None
        require_finished = life.coordinator.phase is Phase.FINISHED
        if not require_finished:
            raise Wrong("the coordinator asked for the end before it was there")
        expected = sequential(self.workload, load_pack(self.workload.pack, quiet=True))
        checkers.check_outputs(expected, {kind: output.records for kind, output in self._outputs.items()})
        horizon_s = life.coordinator.watermark.w_s - self.workload.lateness_s
        rows = [row for shard in life.shards for row in shard.state.rows(float("-inf"))]
        checkers.check_keys(expected, rows, horizon_s)
        checkers.check_keys(expected, self._stored_rows(), horizon_s)
        for seen in self._seen:
            by_then = sequential(self.workload, load_pack(self.workload.pack, quiet=True), until=seen.cursor)
            checkers.check_seen(by_then, seen, self._wanted[seen.number].limit)
        checkers.check_tokens(self._store.committed)
        sizes = {
            file.partition.index: file.length() if file.partition.format == "jsonl" else len(file.records)
            for file in self.workload.files
        }
        checkers.check_covered(sizes, [part for _, parts in sorted(life.covered.items()) for part in parts])
        self.lane = sum(counts.lane for counts in life.coordinator.totals.counts.rules.values())

    def _stored_rows(self) -> list[Any]:
        """The keys of the last checkpoint."""
        manifest = newest_whole(self._store, "sim", self._told.append)
        assert manifest is not None
        return snapshot.rows_of(manifest, lambda name: self._store.get_blob("sim", name))
