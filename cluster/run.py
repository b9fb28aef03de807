"""One run of one job, from the driver's side: prepare it, drive a runtime, tell how it went. cli.py parses, display.py shows.

What a run continues, and what it refuses, is decided here, before anything starts.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from cluster import sinks
from cluster.checkpoints import newest_whole
from cluster.config import Config
from cluster.control import Control, lane_shares
from cluster.core import snapshot
from cluster.core.coordinator import Coordinator, Phase, Progress, Totals, partitions_of, progress_of
from cluster.core.messages import Message, Partition, Position, SourceGrew, StopRequested
from cluster.core.poison import NO_POISON, TIMEOUTS_UNTIL_OFF, Hang, Place, Poison
from cluster.display import Display
from cluster.runtime.job import CheckpointDamaged, JobSpec, ProcessLost, Status
from cluster.sources import changed, discover
from cluster.spool import Spool, is_spooled, spooled_partition
from cluster.stores import BlobMissing, Fence, Store, StoreUnreachable, open_store
from cluster.wording import first_of
from rules.errors import InvalidPack, Problem
from rules.filters import FILE, BadFilter, parse_filters
from rules.jsontext import parse
from rules.logtypes import LogType, recognise
from rules.pack import Pack, load_pack, log_types_of, path_on_disk, read_files
from rules.state import Row

DEFAULT_STORE = ".countersign"
DEFAULT_CHECKPOINT_INTERVAL_S = 5.0

_POLL_S = 0.1
_TELL_S = 0.01
"""Between two words on how far standard input has come: each costs the coordinator half a millisecond."""
_RENEW_S = 1.0
_RECOGNISE_RECORDS = 100
_RECOGNISE_BYTES = 4 << 20
_BARREN_LIVES = 10
"""So many lost processes without a checkpoint in between are no accident."""
_STORE_PATIENCE_S = 60.0
"""How long a run that lost a process waits for a store that is down."""
_PARSED_TO_TELL = 1_000_000
"""So many events that were parsed for want of a guard, some ten seconds' worth, are worth a word at the end."""
_LANE_TO_TELL = 0.05
"""The share of a rule's evaluations in the serial lane from which on the run's end says so."""


class CannotRun(Exception):
    """The run is refused before it starts, or ended; for a person, with its exit code (DESIGN 9)."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Runtime(Protocol):
    """What the driver needs of a runtime."""

    waits: bool
    """poll() does nothing but wait before it asks: others do the work."""

    def poll(self, timeout_s: float) -> Status: ...
    def send(self, message: Message) -> None: ...
    def rescale(self, shards: int) -> None: ...
    def restart(self, spec: JobSpec) -> Runtime:
        """The one of the next life, which may be the same. Raises ProcessLost, and may be called again."""
        ...

    def abandon(self) -> None: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class Options:
    """The command line of `run`."""

    inputs: list[str]
    rules: list[Path]
    log_type: str | None = None
    shards: int = 2
    store: str = DEFAULT_STORE
    job: str | None = None
    fresh: bool = False
    outputs: dict[str, str] = field(default_factory=dict)
    epoch_events: int | None = None
    """None: what the number of shards asks for (cluster/core/coordinator.py)."""
    checkpoint_interval_s: float = DEFAULT_CHECKPOINT_INTERVAL_S
    use_index: bool = True
    use_prefilter: bool = True
    filters: list[str] = field(default_factory=list)
    """Only rules that these want (rules/filters.py)."""


@dataclass(slots=True)
class Summary:
    """What `run --json` prints (DESIGN 9)."""

    job: str
    exit_code: int
    record: dict[str, Any]
    notes: list[str]


def run(options: Options, config: Config, start_runtime: Callable[[JobSpec], Runtime], display: Display) -> Summary:
    """Run a job to its end, an interruption or a failure. Raises CannotRun; what it says is for a person."""
    pack = _pack(options)
    for notice in pack.notices:
        display.aside(notice)
    types = log_types_of(pack)
    files = [name for name in options.inputs if name != "-"]
    partitions = discover(files, types, options.log_type) if files else []
    for warning in _unseen(partitions, pack):
        display.note(warning)
    _check_distinct(options.outputs)
    options.store = _absolute(options.store)
    store = open_store(options.store)
    job = options.job or time.strftime("run-%Y%m%d-%H%M%S-") + str(os.getpid())
    fence = store.acquire(job, fresh=options.fresh)
    try:
        with Control(store, job) if options.job is not None else nullcontext() as control, ExitStack() as held:
            spool = _spool(options, job) if "-" in options.inputs else None
            known = newest_whole(store, job, display.note)
            spec = _prepare(options, config, pack, types, partitions, store, fence, spool, known, held)
            drive = _Drive(spec, [rule.id for rule in pack.rules], store, spool, start_runtime, display, control)
            try:
                status = drive.run()
            finally:
                fence = drive.spec.fence
            return _conclude(options, drive, status)
    finally:
        with suppress(Exception):
            store.release(fence)
            if options.job is None:
                _forget(options, store, job)


# --- before the start --------------------------------------------------------------------------------------------


def _pack(options: Options) -> Pack:
    """The rules, of those in the directories what the filters want. Raises BadFilter, InvalidPack, MissingPack."""
    files = read_files(options.rules)
    filter_ = parse_filters(options.filters)
    if options.filters:
        files[FILE] = "\n".join(options.filters).encode()
    try:
        pack = load_pack(files, quiet=True)
    except InvalidPack as invalid:
        raise InvalidPack(_on_disk(options.rules, problem) for problem in invalid.problems) from None
    if options.filters and not pack.all_rules:
        raise filter_.refusal(files)
    if options.filters and not pack.rules:
        raise BadFilter(f"{' and '.join(options.filters)} matches rules that are disabled: enable one of them")
    return pack


def _on_disk(directories: list[Path], problem: Problem) -> Problem:
    path = path_on_disk(directories, problem.location.path)
    return replace(problem, location=replace(problem.location, path=path))


def _unseen(partitions: list[Partition], pack: Pack) -> Iterator[str]:
    """What no rule will see, a line for each log type. Records that name their own log type are another matter."""
    taken = {log_type for rule in pack.rules for log_type in rule.log_types}
    by_type: dict[str, list[Partition]] = {}
    for partition in partitions:
        if partition.log_type is None or partition.log_type not in taken:
            by_type.setdefault(partition.log_type or "", []).append(partition)
    for log_type, inputs in sorted(by_type.items()):
        which = f"{inputs[0].path}{f' and {len(inputs) - 1} more' if len(inputs) > 1 else ''}"
        if log_type:
            yield f"{which}: no rule is for {log_type}: only records with a p_log_type of their own are looked at"
        else:
            yield f"{which}: of no known log type: give --log-type, or only records with a p_log_type are looked at"


def job_directory(store_url: str, job: str) -> Path:
    """Where a job keeps what belongs to this machine: dead letters and spooled input. In the directory store, if it is one."""
    root = Path(DEFAULT_STORE) if "://" in store_url else Path(store_url)
    return root.resolve() / "jobs" / job


def _spool(options: Options, job: str) -> Spool:
    """Start to keep standard input, beside what earlier runs of the job kept of theirs."""
    directory = job_directory(options.store, job)
    directory.mkdir(parents=True, exist_ok=True)
    kept = list(directory.glob("stdin-*.jsonl"))
    if options.fresh:
        for file in kept:
            file.unlink()
        kept = []
    return Spool(sys.stdin.buffer, directory / f"stdin-{len(kept)}.jsonl")


def _prepare(
    options: Options,
    config: Config,
    pack: Pack,
    types: Mapping[str, LogType],
    partitions: list[Partition],
    store: Store,
    fence: Fence,
    spool: Spool | None,
    known: dict[str, Any] | None,
    held: ExitStack,
) -> JobSpec:
    """`known` is the manifest of the checkpoint to go on from; None starts the job. `held` keeps others from its outputs."""
    if known is not None:
        partitions = _continued(partitions_of(known), partitions, options.log_type, known)
        _check_key_groups(known, config)
    growing: tuple[int, ...] = ()
    if spool is not None:
        partitions.append(_spooled(spool, len(partitions), options.log_type, types))
        growing = (len(partitions) - 1,)
    progress = _continued_progress(known, pack) if known is not None else Progress()
    job_start_s = known["job_start_s"] if known is not None else _now_s()
    outputs = _outputs(options, fence.job)
    if options.fresh or options.job is None:
        _discard_outputs(options, outputs)
    if known is not None:
        _check_outputs(known, outputs)
        _check_changed_pack(known, pack.digest, outputs)
        _check_inputs_known(known, outputs)
    for uri in outputs.values():
        if uri != "-":
            sinks.open_sink(uri, resume=known is not None).close()
            _reserve(uri, held, resume=known is not None)
    spec = JobSpec(
        fence,
        options.store,
        options.shards,
        config,
        tuple(partitions),
        growing,
        pack.files,
        pack.digest,
        progress,
        job_start_s,
        options.epoch_events,
        options.checkpoint_interval_s,
        outputs,
        known is not None,
        options.use_index,
        options.use_prefilter,
    )
    _claim(store, spec, known)
    return spec


def _reserve(output: str, held: ExitStack, *, resume: bool) -> None:
    """Let no other run begin to write there. One that goes on is not held up by what is left of the job's earlier runs."""
    try:
        held.enter_context(sinks.reserved(output))
    except sinks.OutputExists:
        if not resume:
            raise


def _continued_progress(known: dict[str, Any], pack: Pack) -> Progress:
    """Where the job goes on. What is known of rules that do not return holds for the very same rules only."""
    progress = replace(progress_of(known), totals=Totals())
    return progress if known["pack_digest"] == pack.digest else replace(progress, poison=NO_POISON)


def _now_s() -> float:
    """The wall clock, once a job: the time of events before which no event has one. It stays in the manifest."""
    return time.time()  # noqa: TID251


def _claim(store: Store, spec: JobSpec, known: dict[str, Any] | None) -> None:
    """Write where the job stands under our own token (DESIGN 11.28): from here on an earlier owner can commit nothing."""
    coordinator = Coordinator(spec.coordinator_config(), spec.partitions, spec.progress)
    manifest = coordinator.manifest(spec.progress, spec.progress.blobs)
    outputs = manifest["outputs"] = {kind: sinks.shown(uri) for kind, uri in spec.outputs.items()}
    held = known.get("sinks", {}) if known is not None else {}
    manifest["sinks"] = {kind: each for kind, each in held.items() if outputs.get(kind) == each["uri"]}
    names = [blob.name for blob in spec.progress.blobs]
    store.commit(spec.fence, spec.progress.epoch, snapshot.encode_manifest(manifest), names)


def _continued(
    old: list[Partition], now: list[Partition], log_type: str | None, known: dict[str, Any]
) -> list[Partition]:
    """The job's files in their order, new ones after them. Raises CannotRun when a file is gone or is another one.

    What a file was taken for at first, its log type included, it stays.
    """
    by_path = {partition.path: partition for partition in now}
    ordered: list[Partition] = []
    for partition in old:
        found = by_path.pop(partition.path, None)
        if is_spooled(partition):
            size_bytes = _spooled_bytes(partition, known)
            ordered.append(spooled_partition(partition.index, partition.path, size_bytes, partition.log_type))
        elif found is None:
            raise CannotRun(
                3,
                f"{partition.path}: this input of the job is not among those given now: name it again, or use --fresh",
            )
        elif (what := changed(partition, found)) is not None:
            raise CannotRun(3, f"{partition.path}: {what}: restore it, or use --fresh")
        elif log_type is not None and log_type != partition.log_type:
            raise CannotRun(
                2,
                f"{partition.path}: the job reads it as {partition.log_type or 'of no known log type'}, not as {log_type}: "
                "leave --log-type as it was, or use --fresh",
            )
        else:
            ordered.append(partition)
    for partition in by_path.values():
        ordered.append(_moved(partition, len(ordered)))
    return ordered


def _spooled_bytes(partition: Partition, known: dict[str, Any]) -> int:
    """How much of an earlier run's standard input is kept. Raises CannotRun when that is less than it was."""
    try:
        size_bytes = Path(partition.path).stat().st_size
    except FileNotFoundError:
        size_bytes = 0
    known_bytes = max(partition.size_bytes, known["start"] if known["partition"] == partition.index else 0)
    if known["partition"] <= partition.index and size_bytes < known_bytes:
        raise CannotRun(
            3,
            f"{partition.path}: {size_bytes} bytes of the standard input that the job kept are left, of {known_bytes}: "
            "restore it, or use --fresh",
        )
    return size_bytes


def _moved(partition: Partition, index: int) -> Partition:
    return replace(partition, index=index)


def _check_key_groups(known: dict[str, Any], config: Config) -> None:
    if known["key_groups"] != config.key_groups:
        raise CannotRun(
            2,
            f"the job was created with {known['key_groups']} key groups, COUNTERSIGN_KEY_GROUPS asks for {config.key_groups}:"
            " the number is fixed: unset it, or use --fresh",
        )


def _check_changed_pack(known: dict[str, Any], digest: str, outputs: dict[str, str]) -> None:
    """Changed rules start at a checkpoint; they cannot continue what the old ones delivered past it (DESIGN 11.10)."""
    if known["pack_digest"] == digest:
        return
    at = (known["partition"], known["start"])
    for name, position in _reached(outputs):
        if position[:2] >= at:
            raise CannotRun(
                2,
                f"job {known['job']}: its rules changed, and {name} holds results of the old ones past the last checkpoint: "
                "finish or interrupt (Ctrl-C) one run with the old rules first, or use --fresh",
            )


def _check_inputs_known(known: dict[str, Any], outputs: dict[str, str]) -> None:
    """Where a later checkpoint was lost, what it said of new inputs was too: they might come in another order now.

    A life writes down its inputs before it delivers anything (_claim()), so that is the only way to come here.
    """
    for name, position in _reached(outputs):
        if position[0] >= len(known["partitions"]):
            raise CannotRun(
                4,
                f"job {known['job']}: {name} holds results of an input that the newest readable checkpoint does not know: "
                "restore the store from a copy, or use --fresh",
            )


def _reached(outputs: dict[str, str]) -> Iterator[tuple[str, Position]]:
    """The outputs that hold records, by their names for people, and where the last of these stands in the input."""
    for uri in outputs.values():
        place = None if uri == "-" else _place_in(uri)
        if place is not None:
            yield sinks.shown(uri), place.position


def _place_in(uri: str) -> sinks.Place | None:
    """How far an output is."""
    sink = sinks.open_sink(uri, resume=True)
    place = sink.progress()
    sink.close()
    return place


def _check_outputs(known: dict[str, Any], outputs: dict[str, str]) -> None:
    """An output that has lost records cannot be continued: they would be missing from it for ever. Nor can one that others wrote,
    or that was left out for a while."""
    sinks_then = known.get("sinks", {})
    for kind, held in sinks_then.items():
        uri = outputs.get(kind, "-")
        if sinks.shown(uri) != sinks.shown(held["uri"]):
            continue  # the rest goes somewhere else: that is the user's choice
        position, records = held["place"]
        place = _place_in(uri)
        if place is None or (place.position, place.records) < (tuple(position), records):
            raise CannotRun(
                4,
                f"{sinks.shown(uri)}: holds fewer records than at the job's last checkpoint (up to position {position}): "
                "restore it, or use --fresh",
            )
    named = known.get("outputs")
    if named is None:
        return  # an older version's job
    for kind, uri in outputs.items():
        before = named.get(kind, "-")
        place = None if kind == "dead_letters" or sinks.shown(uri) in (before, "-") else _place_in(uri)
        if place is not None and (before == "-" or not _may_be_moved(place, sinks_then.get(kind))):
            raise CannotRun(
                4,
                f"{sinks.shown(uri)}: exists already, and the job's last run did not write it: give that run's output, "
                "another path, or --fresh to start over and replace it",
            )


def _may_be_moved(place: sinks.Place, held: dict[str, Any] | None) -> bool:
    """Whether an output holds as much as the one that a checkpoint knows under another name."""
    return held is None or (place.position, place.records) >= (tuple(held["place"][0]), held["place"][1])


def _outputs(options: Options, job: str) -> dict[str, str]:
    outputs = {kind: _absolute(uri) for kind, uri in options.outputs.items()}
    outputs.setdefault("alerts", "-")
    directory = job_directory(options.store, job)
    directory.mkdir(parents=True, exist_ok=True)
    outputs["dead_letters"] = str(directory / "dead-letters.jsonl")
    return outputs


def _check_distinct(outputs: Mapping[str, str]) -> None:
    """Two writers of one output would overwrite each other: each keeps its own place in it. Only the terminal is shared."""
    owners: dict[object, str] = {}
    for kind, uri in outputs.items():
        if uri == "-":
            continue
        first = owners.setdefault(_output_identity(uri), kind)
        if first != kind:
            raise CannotRun(2, f"--{kind} {sinks.shown(uri)}: --{first} goes there too: give each output a place of its own")


def _output_identity(uri: str) -> object:
    """What two spellings of one output have in common: the file behind links, or the server and stream."""
    if "://" in uri:
        parts = urlsplit(uri)
        database = parts.path.strip("/") or "0"
        return parts.hostname, parts.port or 6379, database, dict(parse_qsl(parts.query)).get("stream")
    path = os.path.realpath(uri)
    try:
        status = os.stat(path)
    except OSError:
        return path
    return status.st_dev, status.st_ino


def _absolute(uri: str) -> str:
    """Paths as every process finds them, whatever directory it runs in."""
    return uri if uri == "-" or "://" in uri else str(Path(uri).resolve())


def _discard_outputs(options: Options, outputs: dict[str, str]) -> None:
    for kind, uri in outputs.items():
        if uri != "-" and (options.fresh or kind == "dead_letters"):
            sinks.discard(uri)


def _spooled(spool: Spool, index: int, log_type: str | None, types: Mapping[str, LogType]) -> Partition:
    """The partition of standard input, once enough of it is there to say what it is."""
    size_bytes = 0
    while True:
        size_bytes, at_end = spool.wait_for_more(size_bytes, 3600.0)
        if log_type is not None:
            break
        records, whole = _first_records(spool.path, size_bytes)
        log_type = next((found for record in records if (found := _recognised(record, types)) is not None), None)
        if at_end or log_type is not None or len(records) == _RECOGNISE_RECORDS or not whole:
            break
    return spooled_partition(index, str(spool.path.resolve()), size_bytes, log_type)


def _first_records(path: Path, size_bytes: int) -> tuple[list[bytes], bool]:
    """(as many as are looked at or are there, whether more of them would be looked at): the same however fast they come."""
    with path.open("rb") as file:
        lines = file.read(min(size_bytes, _RECOGNISE_BYTES)).split(b"\n")
    return [line for line in lines if line.strip()][:_RECOGNISE_RECORDS], size_bytes < _RECOGNISE_BYTES


def _recognised(line: bytes, types: Mapping[str, LogType]) -> str | None:
    try:
        record = parse(line)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    own = record.get("p_log_type")
    return own if isinstance(own, str) and own else recognise(record, types)


# --- while it runs -----------------------------------------------------------------------------------------------


class _Stopper:
    """Turns the first SIGINT or SIGTERM into a clean stop, and the second into an end at once."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, frame: object) -> None:
        if self.asked:
            os._exit(130)
        self.asked = True


class _Shown:
    """Which of the records for the terminal were not shown yet: after a restart those since the checkpoint come again."""

    def __init__(self) -> None:
        self._continuations: dict[str, sinks.Continuation] = {}

    def restart(self) -> None:
        self._continuations = {kind: sinks.Continuation(each.place) for kind, each in self._continuations.items()}

    def new_of(self, lines: Mapping[str, list[bytes]]) -> dict[str, list[bytes]]:
        new: dict[str, list[bytes]] = {}
        for kind, records in lines.items():
            continuation = self._continuations.setdefault(kind, sinks.Continuation(None))
            placed = continuation.new_of([(sinks.position_of(record) or (), record) for record in records])
            for position, _ in placed:
                continuation.add(position)
            new[kind] = [record for _, record in placed]
        return new


class _Drive:
    """A run from its start to its end, through as many lives as it takes: see cluster/runtime/sim/world.py for the word."""

    def __init__(
        self,
        spec: JobSpec,
        rule_ids: Sequence[str],
        store: Store,
        spool: Spool | None,
        start_runtime: Callable[[JobSpec], Runtime],
        display: Display,
        control: Control | None,
    ) -> None:
        self.spec = spec
        self.restarts = spec.fence.number - 1 if spec.resume else 0
        self.seconds = self.start_seconds = 0.0
        self._rule_ids = rule_ids
        self._store = store
        self._spool = spool
        self._start_runtime = start_runtime
        self._display = display
        self._control = control
        self._stopper = _Stopper()
        self._shown = _Shown()
        self._went_on = False
        """This is not the first life: a store that is away is waited for, and not what somebody mistyped."""
        self._barren = 0
        """Lives in a row that came to no checkpoint."""
        self._rescale_to: int | None = None
        """Asked for, and not begun: one at a time."""

    def run(self) -> Status:
        """Raises CannotRun."""
        began_s = time.monotonic()
        stopper = self._stopper
        before = {number: signal.signal(number, stopper) for number in (signal.SIGINT, signal.SIGTERM)}
        runtime: Runtime | None = None
        try:
            runtime = self._start_runtime(self.spec)
        except SystemExit:  # Ray answers SIGTERM so while it starts
            raise CannotRun(130, "stopped before the run began: nothing was read") from None
        except ProcessLost as lost:
            runtime = self._start_again(lost, None)
        for number in before:  # Ray sets its own
            signal.signal(number, stopper)
        started_s = time.monotonic()
        try:
            with self._display:
                while True:
                    try:
                        status = self._until_over(runtime, stopper)
                        status.lines.update(self._shown.new_of(runtime.poll(0.0).lines))
                        break
                    except (ProcessLost, StoreUnreachable) as lost:  # the latter of a shard that was to join
                        try:
                            runtime = self._start_again(_lost_by(lost), runtime)
                        except BaseException:
                            runtime.abandon()
                            runtime = None
                            raise
                self._display.lines(status)
                if self._control is not None:
                    self._control.end(self, status)
        finally:
            ended_s = time.monotonic()
            for number, handler in before.items():
                signal.signal(number, handler)
            if runtime is not None:
                runtime.close()
        self.seconds, self.start_seconds = ended_s - started_s, started_s - began_s
        return status

    @property
    def severities(self) -> Mapping[str, int]:
        """How many alerts of each severity came."""
        return self._display.severities

    def growing_bytes(self) -> int | None:
        """How far the input that is still coming has come."""
        return self._spool.progress()[0] if self._spool is not None else None

    def stop(self) -> None:
        """As a first Ctrl-C does."""
        self._stopper.asked = True

    def _until_over(self, runtime: Runtime, stopper: _Stopper) -> Status:
        spec, display = self.spec, self._display
        renewed_s = time.monotonic()
        told, trouble = False, ""
        grown = (-1, False)
        while True:
            if self._spool is not None and runtime.waits:
                grown = _tell_growth_for(_POLL_S, spec, self._spool, runtime, grown)
                status = runtime.poll(0.0)
            else:
                status = runtime.poll(_POLL_S)
            status.lines = self._shown.new_of(status.lines)
            display.show(status)  # first, or alerts would scroll past a view of the time before
            display.lines(status)
            if status.failure is not None and status.failure.damaged:
                raise CheckpointDamaged(status.failure.message)
            if status.failure is not None and status.failure.store_away and self._went_on:
                raise ProcessLost(status.failure.message)
            if status.failure is not None or status.phase is Phase.FINISHED:
                status.lines = {}
                return status
            if self._control is not None:
                self._control.turn(self, runtime, status)
            if stopper.asked and not told:
                told = True
                display.note("stopping: one more checkpoint (again to stop at once)")
                runtime.send(StopRequested())
            if self._rescale_to is not None and not status.rescaling:
                self._begin_rescale(self._rescale_to)
                runtime.rescale(self.spec.shards)
            if self._spool is not None:
                grown = _tell_growth(spec, self._spool, runtime, grown)
            if time.monotonic() - renewed_s >= _RENEW_S:
                renewed_s = time.monotonic()
                before, trouble = trouble, _renew(self._store, spec.fence) or status.refused
                if trouble and trouble != before:
                    display.note(f"no checkpoints for now: {trouble}")

    def rescale(self, shards: int) -> None:
        """Go to another number of shards, as soon as the rescale before is over; a crash on the way leads there as well."""
        self._rescale_to = shards

    @property
    def rescale_pending(self) -> bool:
        """One was asked for and has not begun."""
        return self._rescale_to is not None

    def _begin_rescale(self, shards: int) -> None:
        self._rescale_to = None
        self.spec = replace(self.spec, shards=shards)
        self._display.note(f"going to {shards} shards: what does not move goes on")

    def _start_again(self, lost: ProcessLost, runtime: Runtime | None) -> Runtime:
        """The next life, from the store alone and under a token of its own. Raises CannotRun where that leads nowhere."""
        if self._control is not None:
            self._control.restarting()
        self._shown.restart()
        self.spec = replace(self.spec, shards=self._rescale_to or self.spec.shards)
        self._rescale_to = None
        self._went_on = True
        while True:
            self._display.note(f"{self._why(lost)}: going on from the last checkpoint")
            before = self.spec.progress
            self._take_over(lost)
            after = self.spec.progress
            self._barren = 0 if after.epoch > before.epoch or after.poison != before.poison else self._barren + 1
            self._tell_off(before.poison, after.poison)
            if self._barren >= _BARREN_LIVES:
                raise CannotRun(
                    4,
                    f"{self._why(lost)}, {_BARREN_LIVES} times without a checkpoint in between: see what ends it, "
                    "and run the same command again: a job with --job goes on from its last checkpoint",
                )
            self.restarts += 1
            try:
                return self._start_runtime(self.spec) if runtime is None else runtime.restart(self.spec)
            except (ProcessLost, StoreUnreachable) as again:
                lost = _lost_by(again)

    def _why(self, lost: ProcessLost) -> str:
        hang = lost.hang or lost.in_hand
        if hang is None:
            return str(lost)
        position = list(hang.place if hang.place[2] else hang.place[:2])
        rule_id = self._rule_ids[hang.ordinal]
        if lost.hang is None:
            return f"{lost} while {rule_id} ran on the event at {position}"
        what = f"{rule_id} did not return within {hang.limit_s:g} s on the event at {position}"
        if hang.ended == 1:
            return f"{what}, as it waits for what a helper gives: from now on it is ended where the helper cannot give it yet"
        return what if hang.final or hang.ended else f"{what}, which is tried again when all before it is settled"

    def _tell_off(self, before: Poison, after: Poison) -> None:
        for rule_id in after.off().keys() - before.off().keys():
            self._display.note(_off(rule_id, after.off()[rule_id]))

    def _take_over(self, lost: ProcessLost) -> None:
        """Put our next token and the newest checkpoint into `spec`, with what was learnt of evaluations that do not return;
        where blobs are suspect, they are read before.

        Raises CannotRun, CorruptSnapshot, and StoreUnreachable when patience is at its end.
        """
        suspect = isinstance(lost, CheckpointDamaged)
        until_s = time.monotonic() + _STORE_PATIENCE_S
        while True:
            try:
                self._store.release(self.spec.fence)
                self.spec = replace(self.spec, fence=self._store.acquire(self.spec.fence.job, fresh=False))
                self._go_back(suspect, lost.hang)
                return
            except BlobMissing:
                suspect = True
            except StoreUnreachable as error:
                if time.monotonic() >= until_s:
                    raise
                self._display.note(f"waiting for the store: {error}")
                time.sleep(1.0)

    def _go_back(self, suspect: bool, hang: Hang | None) -> None:
        job = self.spec.fence.job
        manifest = newest_whole(self._store, job, self._display.note, blobs=suspect)
        if manifest is None:
            raise CannotRun(4, f"job {job}: the store has lost its checkpoints: restore it, or start over with --fresh")
        _check_changed_pack(manifest, self.spec.pack_digest, self.spec.outputs)
        progress = progress_of(manifest)
        if hang is not None:
            progress = replace(progress, poison=progress.poison.after(self._rule_ids[hang.ordinal], hang))
        self.spec = replace(self.spec, progress=progress, resume=True)
        _claim(self._store, self.spec, manifest)


def _lost_by(error: ProcessLost | StoreUnreachable) -> ProcessLost:
    """A process that did not find the store when it was to take part is of as little use as one that is gone."""
    return error if isinstance(error, ProcessLost) else ProcessLost(str(error))


def _off(rule_id: str, place: Place) -> str:
    return f"{rule_id} is off after {TIMEOUTS_UNTIL_OFF} events on which it did not return, the last {list(place[:2])}: mend it"


def _tell_growth_for(
    seconds: float, spec: JobSpec, spool: Spool, runtime: Runtime, told: tuple[int, bool]
) -> tuple[int, bool]:
    """Tell of what comes in while this lasts, when it comes: a wait here is one for every event."""
    until_s = time.monotonic() + seconds
    while (left_s := until_s - time.monotonic()) > 0:
        if told[1]:
            time.sleep(left_s)
            continue
        spool.wait_for_more(told[0], left_s)
        told = _tell_growth(spec, spool, runtime, told)
        time.sleep(min(_TELL_S, max(0.0, until_s - time.monotonic())))
    return told


def _tell_growth(spec: JobSpec, spool: Spool, runtime: Runtime, told: tuple[int, bool]) -> tuple[int, bool]:
    if spool.failure is not None:
        raise CannotRun(3, f"standard input: {spool.failure}: what was read before is kept in {spool.path}")
    now = spool.progress()
    if now != told and not told[1]:
        runtime.send(SourceGrew(spec.growing[0], now[0], now[1]))
    return now


def _renew(store: Store, fence: Fence) -> str:
    """Say that the job is still ours; what stood in the way, for a person. Raises Fenced."""
    try:
        store.renew(fence)
    except StoreUnreachable as error:
        return str(error)
    return ""


# --- after the end -----------------------------------------------------------------------------------------------


def _conclude(options: Options, drive: _Drive, status: Status) -> Summary:
    if status.failure is not None:
        raise CannotRun(status.failure.exit_code, status.failure.message)
    spec, seconds = drive.spec, drive.seconds
    totals, counts = status.totals, status.totals.counts
    notes: list[str] = []
    record: dict[str, Any] = {
        "job": spec.fence.job,
        "events": counts.events,
        "skipped_unparsed": counts.skipped_unparsed,
        "evaluations": counts.evaluations,
        "probes": counts.probes,
        "deferred": counts.deferred,
        "matches": totals.matches,
        "alerts": totals.alerts,
        "errors": totals.errors,
        "dead_letters": totals.dead_letters,
        "seconds": round(seconds, 3),
        "start_seconds": round(drive.start_seconds, 3),
        "events_per_s": round(counts.events / seconds) if seconds > 0 else 0,
        "epochs": totals.epochs,
        "checkpoints": totals.checkpoints,
        "restarts": drive.restarts,
        "shards": status.shards,
        "interrupted": status.interrupted,
        "lane": lane_shares(counts),
        "parsed_for": {rule_id: each.parsed for rule_id, each in sorted(counts.rules.items()) if each.parsed},
        "rules_off": {rule_id: list(place[:2]) for rule_id, place in spec.progress.poison.off().items()},
    }
    letters = Path(spec.outputs["dead_letters"])
    if totals.dead_letters:
        notes.append(f"{totals.dead_letters} records could not be read: they are kept in {letters}")
        record["dead_letters_file"] = str(letters)
    slow = [rule_id for rule_id, events in record["parsed_for"].items() if events >= _PARSED_TO_TELL]
    if slow:
        notes.append(
            f"every event was parsed for {first_of(slow)}: "
            "where a rule's guard asks for a text, the others are skipped (`countersign explain` shows guards)"
        )
    notes += [
        f"{share['fraction']:.0%} of {rule_id} ran in the serial lane, which is slow: give its keys a common {{tag}}"
        for rule_id, share in record["lane"].items()
        if share["fraction"] > _LANE_TO_TELL
    ]
    notes += [_off(rule_id, place) for rule_id, place in spec.progress.poison.off().items()]
    if status.unsaved:
        notes.append(f"the last checkpoint could not be written: {status.unsaved}")
        return Summary(spec.fence.job, 4, record, notes)
    if status.interrupted:
        if options.job is not None:
            notes.append("interrupted after a checkpoint: the same command goes on from here")
        return Summary(spec.fence.job, 130, record, notes)
    return Summary(spec.fence.job, 0, record, notes)


def _forget(options: Options, store: Store, job: str) -> None:
    """A job without a name cannot be continued, so it leaves nothing behind but its dead letters (DESIGN 11.30)."""
    store.destroy(job)
    directory = job_directory(options.store, job)
    for spooled in directory.glob("stdin-*.jsonl"):
        spooled.unlink()
    letters = directory / "dead-letters.jsonl"
    if letters.exists() and letters.stat().st_size == 0:
        letters.unlink()
    with suppress(OSError):  # what is not empty stays
        directory.rmdir()
        directory.parent.rmdir()
        directory.parent.parent.rmdir()


def state_rows(store: Store, job: str, tell: Callable[[str], None]) -> tuple[dict[str, Any], list[Row]]:
    """(manifest, rows of all keys) of a job's last whole checkpoint, in key order. Raises CannotRun when there is none."""
    manifest = newest_whole(store, job, tell)
    if manifest is None:
        jobs = ", ".join(store.jobs()) or "none"
        raise CannotRun(4, f"job {job}: the store has no checkpoint of it: jobs there: {jobs}")
    return manifest, snapshot.rows_of(manifest, lambda name: store.get_blob(job, name))
