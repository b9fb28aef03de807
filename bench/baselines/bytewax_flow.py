"""The two founding rules as a Bytewax dataflow: one ordered source, keyed state, recovery on with a snapshot every 5 s.

The input is one file, and the rules count in its order: so one partition reads and parses it, and only what reaches state goes
to the worker that has the key. Runs in an environment of its own, which has Bytewax (bench/environments.py). Prints
{"events", "seconds"} and writes one line per match, {"rule_id", "position", "dedup"}.

    PYTHONPATH=. python -m bench.baselines.bytewax_flow PROCESSES WORKERS CLOUDTRAIL.jsonl SCRATCH-DIR MATCHES.jsonl
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

from bytewax import operators as op
from bytewax._bytewax import cluster_main
from bytewax.connectors.files import FileSink
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import StatefulBatchLogic
from bytewax.recovery import RecoveryConfig, init_db_dir

from bench.baselines.founding import Said, match_line, select, step

SNAPSHOT_INTERVAL = timedelta(seconds=5)
_BATCH_BYTES = 1 << 20

Reached = tuple[int, Said]
"""(offset of the line, what it says)"""


class _Lines(StatefulSourcePartition[list[tuple[int, bytes]], int]):
    """A file's lines, a megabyte of them at a time, each with its offset; goes on at an offset."""

    def __init__(self, path: Path, scratch: Path, offset: int | None) -> None:
        self._file = path.open("rb", buffering=_BATCH_BYTES)
        self._offset = offset or 0
        self._file.seek(self._offset)
        self._events = 0
        self._scratch = scratch
        self._start_s = time.monotonic()

    def next_batch(self) -> list[list[tuple[int, bytes]]]:
        lines = self._file.readlines(_BATCH_BYTES)
        if not lines:
            raise StopIteration
        batch = []
        for line in lines:
            batch.append((self._offset, line))
            self._offset += len(line)
        self._events += len(batch)
        return [batch]

    def snapshot(self) -> int:
        return self._offset

    def close(self) -> None:
        (self._scratch / "source.json").write_text(json.dumps({"events": self._events, "start_s": self._start_s}))


class _File(FixedPartitionedSource[list[tuple[int, bytes]], int]):
    def __init__(self, path: Path, scratch: Path) -> None:
        self._path = path
        self._scratch = scratch

    def list_parts(self) -> list[str]:
        return [str(self._path)]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Lines:
        return _Lines(self._path, self._scratch, resume_state)


class _Key(StatefulBatchLogic[Reached, str, Any]):
    """The state of one key."""

    def __init__(self, state: Any) -> None:
        self._state = state

    def on_batch(self, values: list[Reached]) -> tuple[Iterable[str], bool]:
        matches = []
        for offset, said in values:
            self._state, matched = step(self._state, said)
            if matched:
                matches.append(match_line(said, offset))
        return matches, self._state is None

    def snapshot(self) -> Any:
        if self._state is None:
            return None
        value, expiry_s = self._state
        return set(value) if isinstance(value, set) else value, expiry_s


def _reached(batches: list[list[tuple[int, bytes]]]) -> Iterable[tuple[str, Reached]]:
    for batch in batches:
        for offset, line in batch:
            said = select(line)
            if said is not None:
                yield f"{said[0]} {said[1]}", (offset, said)


def _flow(log: Path, scratch: Path, matches: Path) -> Dataflow:
    flow = Dataflow("founding")
    batches = op.input("read", flow, _File(log, scratch))
    keyed = op.flat_map_batch("parse", batches, _reached)
    found = op.stateful_batch("state", keyed, _Key)
    op.output("write", found, FileSink(matches))
    return flow


def _run_process(number: int, addresses: list[str], workers: int, log: Path, scratch: Path, matches: Path) -> None:
    cluster_main(
        _flow(log, scratch, matches),
        addresses,
        number,
        epoch_interval=SNAPSHOT_INTERVAL,
        recovery_config=RecoveryConfig(scratch / "recovery"),
        worker_count_per_proc=workers,
    )
    (scratch / f"end-{number}.json").write_text(json.dumps(time.monotonic()))


def _free_addresses(count: int) -> list[str]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def main() -> None:
    processes, workers = int(sys.argv[1]), int(sys.argv[2])
    log, scratch, matches = map(Path, sys.argv[3:6])
    if len(sys.argv) > 6:  # one of the processes that we start below
        _run_process(int(sys.argv[6]), sys.argv[7:], workers, log, scratch, matches)
        return
    (scratch / "recovery").mkdir()
    init_db_dir(scratch / "recovery", processes * workers)
    matches.touch()
    addresses = _free_addresses(processes) if processes > 1 else []
    command = [sys.executable, "-m", "bench.baselines.bytewax_flow", *sys.argv[1:]]
    children = [subprocess.Popen([*command, str(number), *addresses]) for number in range(processes)]
    exit_codes = [child.wait() for child in children]
    if any(exit_codes):
        sys.exit("a process of the dataflow failed")
    source = json.loads((scratch / "source.json").read_text())
    end_s = max(json.loads(path.read_text()) for path in scratch.glob("end-*.json"))
    print(json.dumps({"events": source["events"], "seconds": end_s - source["start_s"]}))


if __name__ == "__main__":
    main()
