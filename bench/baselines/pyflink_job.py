"""The two founding rules as a PyFlink job: KeyedProcessFunction with value state at parallelism 2, a checkpoint every 5 s.

The input is one file, and the rules count in its order: so one task reads and parses it, and only what reaches state goes to
the task that has the key. MODE is `process` (Python in processes of its own, Flink's default) or `thread` (inside the JVM).
Runs in an environment of its own, which has PyFlink (bench/environments.py). Prints {"events", "seconds"} and writes one line
per match, {"rule_id", "position", "dedup"}.

    PYTHONPATH=. python -m bench.baselines.pyflink_job MODE CLOUDTRAIL.jsonl SCRATCH-DIR MATCHES.jsonl
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyflink.common import Configuration, Encoder, Types, WatermarkStrategy
from pyflink.datastream import FlatMapFunction, KeyedProcessFunction, RuntimeContext, StreamExecutionEnvironment
from pyflink.datastream.connectors.file_system import FileSink, FileSource, StreamFormat
from pyflink.datastream.state import ValueStateDescriptor

from bench.baselines.founding import match_line, select, step

PARALLELISM = 2
_SAID = Types.TUPLE([Types.STRING(), Types.STRING(), Types.DOUBLE(), Types.STRING(), Types.LONG()])
"""What select() gives, and the offset of the line."""


class _Select(FlatMapFunction):
    """Lines -> what reaches state. Counts the bytes before each line: there is one such task, and it sees all lines in order."""

    def __init__(self, started: str) -> None:
        self._started = started

    def open(self, runtime_context: RuntimeContext) -> None:
        self._offset = 0

    def flat_map(self, value: str) -> Iterator[Any]:
        if self._offset == 0:
            Path(self._started).write_text(json.dumps(time.monotonic()))
        said = select(value)
        if said is not None:
            yield *said, self._offset
        self._offset += len(value.encode()) + 1


class _Count(KeyedProcessFunction):
    """The state of one key."""

    def open(self, runtime_context: RuntimeContext) -> None:
        self._state = runtime_context.get_state(ValueStateDescriptor("state", Types.PICKLED_BYTE_ARRAY()))

    def process_element(self, value: Any, ctx: KeyedProcessFunction.Context) -> Iterator[str]:
        said = value[:4]
        state, matched = step(self._state.value(), said)
        if state is None:
            self._state.clear()
        else:
            self._state.update(state)
        if matched:
            yield match_line(said, value[4])


def run(mode: str, log: Path, scratch: Path) -> float:
    """Runs the job; returns the seconds from its first event to its end."""
    settings = Configuration()
    settings.set_string("python.execution-mode", mode)
    settings.set_string("python.executable", sys.executable)
    settings.set_string("python.client.executable", sys.executable)
    settings.set_string("execution.checkpointing.interval", "5 s")
    settings.set_string("execution.checkpointing.dir", (scratch / "checkpoints").as_uri())
    settings.set_string("pipeline.object-reuse", "true")
    settings.set_string("restart-strategy.type", "none")  # a failure is to be seen, not tried again
    environment = StreamExecutionEnvironment.get_execution_environment(settings)
    environment.set_parallelism(PARALLELISM)
    source = FileSource.for_record_stream_format(StreamFormat.text_line_format(), log.as_uri()).build()
    lines = environment.from_source(source, WatermarkStrategy.no_watermarks(), "lines").set_parallelism(1)
    started = scratch / "started.json"
    said = lines.flat_map(_Select(str(started)), output_type=_SAID).set_parallelism(1)
    matches = said.key_by(_key, key_type=Types.STRING()).process(_Count(), output_type=Types.STRING())
    sink = FileSink.for_row_format((scratch / "matches").as_uri(), Encoder.simple_string_encoder()).build()
    matches.sink_to(sink)
    environment.execute("founding")
    start_s: float = json.loads(started.read_text())
    return time.monotonic() - start_s


def _key(said: Any) -> str:
    return f"{said[0]} {said[1]}"


def main() -> None:
    mode, log, scratch, matches = sys.argv[1], *map(Path, sys.argv[2:5])
    seconds = run(mode, log.resolve(), scratch.resolve())
    with matches.open("wb") as whole:
        for part in sorted(path for path in (scratch / "matches").rglob("*part-*") if path.is_file()):
            with part.open("rb") as lines:
                shutil.copyfileobj(lines, whole)
    with log.open("rb") as lines:
        events = sum(1 for _ in lines)
    print(json.dumps({"events": events, "seconds": seconds}))


if __name__ == "__main__":
    main()
