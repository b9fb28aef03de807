"""What every runtime does around a machine: perform its effects and feed the outcome back, until only messages remain."""

from __future__ import annotations

import ctypes
import gc
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cluster.core import snapshot
from cluster.core.coordinator import Coordinator, Phase
from cluster.core.effects import (
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
from cluster.core.errors import CorruptSnapshot, InvariantBroken, LaterFormat
from cluster.core.kept import Kept
from cluster.core.messages import (
    BlobsLoaded,
    ManifestCommitted,
    ManifestFailed,
    Message,
    SliceRead,
    SnapshotFailed,
    SnapshotStored,
)
from cluster.core.poison import Cells
from cluster.core.shard import Shard
from cluster.runtime.job import KINDS, Failure, JobSpec, Status
from cluster.sinks import OutputExists, Sink, SinkFailed, open_sink, shown
from cluster.sources import InputUnreadable, Reader, SourceChanged, check_unchanged
from cluster.stores import BlobMissing, Fenced, Store, StoreUnreachable, open_store
from rules.logtypes import LogType
from rules.pack import Pack, load_pack, log_types_of

Job = Callable[[Callable[[], None]], Message]
"""Slow work that ends in a message. It calls what it is given after each millisecond or so, to let others run."""

Background = Callable[[Job], Message | None]
"""Runs a job: returns its message, or None and delivers it later as if it had been received."""

_RESTS = 9
"""How many times as long as a job beside the stream has worked it rests: a tenth of a processor is its share. A machine may have
more shards than processors, and all of them snapshot at once. (bench rescale, four shards on two processors, 99 of 100 pauses of
what stays: 54 to 74 ms; 67 to 83 ms where each rests 4 ms.)"""

_REST_AT_MOST_S = 0.01
"""It may have been another's turn on the processor while it seemed to work."""


def failure_of(error: Exception, who: str) -> Failure:
    """The exit code and the words for what ended a run. What nobody foresaw is a bug of ours, told with its traceback."""
    if isinstance(error, InputUnreadable | SourceChanged):
        return Failure(3, str(error))
    if isinstance(error, BlobMissing | CorruptSnapshot):
        return Failure(4, str(error), damaged=True)
    if isinstance(error, StoreUnreachable):
        return Failure(4, str(error), store_away=True)
    if isinstance(error, Fenced | SinkFailed | OutputExists | LaterFormat):
        return Failure(4, str(error))
    story = "".join(traceback.format_exception(error))
    return Failure(1, f"the {who} failed, which is a bug of ours: please report it with this:\n{story}")


@dataclass(frozen=True, slots=True)
class Rules:
    """A pack as it is loaded; it serves one process through all its lives."""

    digest: str
    pack: Pack
    log_types: Mapping[str, LogType]


def load_rules(spec: JobSpec, before: Rules | None = None) -> Rules:
    """The job's rules, those from before where they are the same."""
    if before is not None and before.digest == spec.pack_digest:
        return before
    pack = load_pack(spec.pack_files, quiet=True)
    if spec.use_index:
        _find_guards(pack, {partition.log_type or "" for partition in spec.partitions})
    return Rules(spec.pack_digest, pack, log_types_of(pack))


def _find_guards(pack: Pack, log_types: set[str]) -> None:
    """Ahead of the first slice: while a shard that joins takes its time over that, all the others wait (0.25 s for the 129
    CloudTrail rules of the public pack)."""
    for rule in pack.rules:
        for log_type in log_types.intersection(rule.log_types):
            rule.guard(log_type)


def spare_the_collector() -> None:
    """What is loaded by now stays, and events come and go without cycles: look for garbage seldom. Worth a tenth of the time.

    For processes that do nothing else.

    What is new is looked through in small portions, for a shard stands still meanwhile (200,000 objects: up to 95 ms), and what
    has been found in use is not looked at again: that is its state, and growing.
    """
    gc.freeze()
    gc.set_threshold(20_000, 1_000_000, 1_000_000)


_libc = ctypes.CDLL(None)
_malloc_trim: Callable[[int], int] | None = getattr(_libc, "malloc_trim", None)
_mallopt: Callable[[int, int], int] | None = getattr(_libc, "mallopt", None)
"""Both are glibc's; other C libraries have none, or need none."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _LARGE_BYTES = 64 << 20, 32 << 20
"""mallopt(3): how much free memory it keeps, and from which size on a block is the system's own affair (32 MB at most)."""


def keep_memory() -> None:
    """Do not return memory block by block: a shard reads a megabyte after the other, and where each goes back at once, the system
    clears every page of the next one. Worth two hundredths of the time. give_back() returns what is free.

    For processes that do nothing else.
    """
    if _mallopt is not None:
        _mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        _mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def give_back() -> None:
    """Let the system have the pages that nothing stands on any more. Some 10 ms for 100 MB, in which nobody gets memory.

    What traffic takes and frees leaves holes between what stays, which glibc keeps for what comes next: as much as the state of
    half a million keys takes (bench memory).
    """
    if _malloc_trim is not None:
        _malloc_trim(0)


def paced(busy: Callable[[], bool]) -> Callable[[], None]:
    """What a job that begins now calls after each small step: it rests there while others are `busy`."""
    since_s = time.perf_counter()

    def rest() -> None:
        nonlocal since_s
        worked_s = time.perf_counter() - since_s
        time.sleep(min(worked_s * _RESTS, _REST_AT_MOST_S) if busy() else 0.0)
        since_s = time.perf_counter()

    return rest


class ShardShell:
    """A shard, its reader and its store."""

    def __init__(
        self,
        spec: JobSpec,
        number: int,
        background: Background,
        cells: Cells,
        rules: Rules | None = None,
        kept: Kept | None = None,
    ) -> None:
        """`cells` say what it evaluates; `rules` and `kept` are those that this process has already."""
        self._job = spec.fence.job
        rules = load_rules(spec, rules)
        self._reader = Reader(spec.partitions, spec.config.max_event_bytes)
        # Across machines a record that is needed again would be fetched from where the file is, each for itself.
        reread = self._reader.read_again if spec.one_machine else None
        config = spec.shard_config(number)
        self._machine = Shard(config, rules.pack, rules.log_types, time.perf_counter, cells, kept, reread)
        self._store = open_store(spec.store_url)
        self._background = background
        if kept is None:
            self._check_sight(spec)

    def leave(self) -> Kept:
        """Its life is over: what it holds goes on in the next one."""
        return self._machine.leave()

    def pace(self) -> Callable[[], None]:
        """For a job in a thread beside this one, to be called after each small step: lets the stream have the machine, as
        long as there is one."""
        return paced(lambda: self._machine.busy)

    def _check_sight(self, spec: JobSpec) -> None:
        """Every machine must see the same inputs and the same store (DESIGN 11.31); the fence serves as the nonce."""
        try:
            for partition in spec.partitions:
                check_unchanged(partition)
        except SourceChanged as error:
            raise SourceChanged(f"on {socket.gethostname()}: {error}") from None
        manifests = self._store.manifests(self._job)
        if not manifests or snapshot.decode_manifest(manifests[0])["fence"] != spec.fence.number:
            raise StoreUnreachable(
                f"{spec.store_url}: {socket.gethostname()} sees another store under this name: "
                "use a directory that all machines share, or redis://"
            )

    def receive(self, message: Message) -> Iterator[Send]:
        """Everything that follows from a message, as messages for others: to be sent off one by one, for work goes on after
        them."""
        return _settle(self._machine.handle, message, self._perform)

    def _perform(self, effect: Effect) -> Message | None:
        if isinstance(effect, ReadSlice):
            return SliceRead(effect.epoch, effect.number, self._reader.read(effect.slice))
        if isinstance(effect, LoadBlobs):
            return BlobsLoaded(tuple(self._store.get_blob(self._job, name) for name in effect.names))
        if isinstance(effect, StoreSnapshot):
            return self._background(lambda rest: self._store_snapshot(effect, rest))
        raise InvariantBroken(f"a shard asked for {effect!r}")

    def _store_snapshot(self, effect: StoreSnapshot, rest: Callable[[], None]) -> Message:
        stored = store_snapshot(self._store, self._job, effect, rest)
        if not self._machine.busy:  # while events come, what is free is used again
            give_back()
        return stored


def store_snapshot(store: Store, job: str, effect: StoreSnapshot, rest: Callable[[], None]) -> Message:
    """Encode and store what was captured, in small steps with `rest` between them."""
    names: list[str] = []
    size_bytes = 0
    try:
        blobs = snapshot.encode(effect.keys, effect.windows, rest=rest)
        for number, blob in enumerate(blobs):
            names.append(f"{effect.name}-{number}")
            size_bytes += len(blob)
            store.put_blob(job, names[-1], blob)
    except StoreUnreachable as error:
        return SnapshotFailed(effect.epoch, effect.shard, str(error))
    return SnapshotStored(effect.epoch, effect.shard, tuple(names), size_bytes)


class CoordinatorShell:
    """The coordinator, its sinks and its store."""

    def __init__(self, spec: JobSpec) -> None:
        self._spec = spec
        self._machine = Coordinator(spec.coordinator_config(), spec.partitions, spec.progress)
        self._store = open_store(spec.store_url)
        self._sinks: dict[str, Sink] = {}
        self._shown = {kind: shown(uri) for kind, uri in spec.outputs.items()}
        self._lines: dict[str, list[bytes]] = {}
        self._finish: Finish | None = None
        self._told: list[TellState] = []
        self._failure: Failure | None = None
        for kind, uri in spec.outputs.items():
            if uri == "-":
                self._lines[kind] = []
            else:
                self._sinks[kind] = open_sink(uri, resume=spec.resume)
        self._lines.setdefault("alerts", [])

    def start(self) -> list[Send]:
        return [effect for effect in self._machine.start(self._spec.growing) if isinstance(effect, Send)]

    def receive(self, message: Message) -> list[Send]:
        """Everything that follows from a message, as messages for shards. A failure ends the run and is kept."""
        if self._failure is not None:
            return []
        try:
            return list(_settle(self._machine.handle, message, self._perform))
        except Exception as error:
            self.fail(failure_of(error, "coordinator"))
            return []

    def fail(self, failure: Failure) -> None:
        """The run cannot go on; the first reason is the one that is told."""
        if self._failure is None:
            self._failure = failure

    def status(self) -> Status:
        machine = self._machine
        lines = {kind: records for kind, records in self._lines.items() if records}
        self._lines = {kind: [] for kind in self._lines}
        status = Status(
            machine.phase,
            machine.totals,
            machine.watermark.w_s,
            machine.checkpointed_at_s,
            machine.place,
            machine.keys,
            lines,
        )
        status.shards, status.rescaling = machine.shards, machine.rescaling
        status.moves, machine.moves = machine.moves, []
        status.told, self._told = self._told, []
        status.refused = machine.refused
        status.failure = self._failure
        if self._finish is not None:
            status.interrupted, status.unsaved = self._finish.interrupted, self._finish.unsaved
        return status

    @property
    def over(self) -> bool:
        return self._failure is not None or self._machine.phase is Phase.FINISHED

    def close(self) -> None:
        for sink in self._sinks.values():
            sink.close()

    def _perform(self, effect: Effect) -> Message | None:
        if isinstance(effect, Deliver):
            self._deliver(effect)
            return None
        if isinstance(effect, CommitManifest):
            return self._commit(effect)
        if isinstance(effect, Finish):
            self._finish = effect
            for sink in self._sinks.values():
                sink.flush()
            return None
        if isinstance(effect, TellState):
            self._told.append(effect)
            return None
        raise InvariantBroken(f"the coordinator asked for {effect!r}")

    def _deliver(self, effect: Deliver) -> None:
        for kind in KINDS:
            records = getattr(effect, kind)
            if not records:
                continue
            if kind in self._sinks:
                self._sinks[kind].write(records)
            if kind in self._lines:
                self._lines[kind] += [record for _, record in records]

    def _commit(self, effect: CommitManifest) -> Message:
        for sink in self._sinks.values():
            sink.flush()
        try:
            manifest = snapshot.encode_manifest({**effect.manifest, "sinks": self._places(), "outputs": self._shown})
            self._store.commit(self._spec.fence, effect.epoch, manifest, effect.blobs)
            self._store.free_blobs(self._spec.fence, self._blobs_in_use())
        except StoreUnreachable as error:
            return ManifestFailed(effect.epoch, str(error))
        except BlobMissing as error:  # a server that fell back in time, say: what is in memory is still whole
            return ManifestFailed(effect.epoch, str(error), rebase=True)
        return ManifestCommitted(effect.epoch)

    def _places(self) -> dict[str, Any]:
        """kind -> what its output holds for certain; a resumed run refuses an output that holds less."""
        places = {kind: sink.progress() for kind, sink in self._sinks.items()}
        return {kind: {"uri": self._shown[kind], "place": place} for kind, place in places.items() if place}

    def _blobs_in_use(self) -> set[str]:
        named: set[str] = set()
        for data in self._store.manifests(self._spec.fence.job):
            with suppress(CorruptSnapshot):  # an older one, which nobody can go back to
                named.update(snapshot.decode_manifest(data)["blobs"])
        return named


def _settle(
    handle: Callable[[Message], list[Effect]],
    message: Message,
    perform: Callable[[Effect], Message | None],
) -> Iterator[Send]:
    """Handle a message and, in order, every message that its effects come back as."""
    queue: deque[Message] = deque([message])
    while queue:
        for effect in handle(queue.popleft()):
            if isinstance(effect, Send):
                yield effect
            elif isinstance(effect, GoOn):
                queue.append(effect.message)
            else:
                answer = perform(effect)
                if answer is not None:
                    queue.append(answer)
