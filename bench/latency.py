"""Milliseconds from handing an event over to its match in the output, at 70 % of the capacity of this very set-up.

Lines from memory go into the run's standard input, at a pace; the output is watched, and each match's place in the input
tells when its event was handed over. Capacity is measured in the same way, by a pacer that runs ahead of the output by a
bounded number of events. Both take turns, and the first seconds of each do not count.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import inputs, packs
from bench.fed import Fed, fed
from bench.harness import CACHE, RUNS, SMOKE_RUNS, Row, print_rows

NAME = "latency"
HELP = "milliseconds from hand-over to sink write, paced at 70 % of capacity"

SHARE_OF_CAPACITY = 0.7
EVENTS_KEPT, SMOKE_EVENTS_KEPT = 100_000, 10_000
"""How many different events; they come over and over."""
WARM_S, MEASURED_S = 5.0, 15.0
SMOKE_WARM_S, SMOKE_MEASURED_S = 0.5, 2.0
EPOCH_EVENTS = 1_024
"""What a user sets (`--epoch-events`) who wants alerts soon: an epoch is as long as half of it takes to come in. It costs a third
of the capacity that epochs of 4,096 have, at 70 % of which half of all matches take 60 to 230 ms."""
AHEAD_EVENTS = 100_000
"""How far the pacer that measures capacity runs ahead of the output."""
_FIRST_EVENTS = 2_000
"""Handed over at once, so that there is a match to wait for."""
_TICK_S = 0.002
_WATCH_S = 0.001
_START_TIMEOUT_S = 300.0


@dataclass(slots=True)
class Trace:
    """What was handed over, and what came out."""

    handed_bytes: list[int] = field(default_factory=list)
    """How many bytes had been handed over after each write."""
    handed_s: list[float] = field(default_factory=list)
    """When each write began."""
    seen: list[tuple[float, int]] = field(default_factory=list)
    """(when a match was in the output, the offset of its event)"""
    stopped: bool = False

    def reached_bytes(self) -> int:
        return self.seen[-1][1] if self.seen else 0

    def latencies_ms(self, from_s: float, to_s: float) -> list[float]:
        """Of the events handed over between two moments that matched."""
        found = []
        for seen_s, offset in self.seen:
            handed_s = self.handed_s[bisect_right(self.handed_bytes, offset)]
            if from_s <= handed_s < to_s:
                found.append((seen_s - handed_s) * 1000)
        return found


def run(smoke: bool, cache: Path = CACHE) -> dict[str, Any]:
    """Measure, print a table, return the figures."""
    runs = SMOKE_RUNS if smoke else RUNS
    kept = SMOKE_EVENTS_KEPT if smoke else EVENTS_KEPT
    warm_s, measured_s = (SMOKE_WARM_S, SMOKE_MEASURED_S) if smoke else (WARM_S, MEASURED_S)
    lines = inputs.cloudtrail(cache, kept, share=0.23).read_bytes().splitlines(keepends=True)
    load = os.getloadavg()
    measured: dict[str, list[float]] = {"capacity": [], "rate": [], "p50_ms": [], "p99_ms": [], "matches": []}
    with tempfile.TemporaryDirectory(prefix="bench-latency-") as temporary:
        pack = packs.founding(Path(temporary) / "pack")
        for _ in range(runs):
            capacity = _capacity(pack, lines, warm_s, measured_s)
            rate, latencies = _paced(pack, lines, SHARE_OF_CAPACITY * capacity, warm_s, measured_s)
            cuts = statistics.quantiles(latencies, n=100)
            for name, value in zip(measured, (capacity, rate, cuts[49], cuts[98], len(latencies)), strict=True):
                measured[name].append(value)
    medians = {name: statistics.median(values) for name, values in measured.items()}
    print(
        f"capacity {medians['capacity']:,.0f} events/s; paced at {medians['rate']:,.0f}; epochs of {EPOCH_EVENTS:,} at most"
    )
    print(
        f"p50 {medians['p50_ms']:.0f} ms, p99 {medians['p99_ms']:.0f} ms, of {medians['matches']:,.0f} matches; runs: {runs}"
    )
    print(f"load average {load[0]:.2f} before, {os.getloadavg()[0]:.2f} after")
    label = "latency from hand-over to sink write, at 70 % of capacity"
    rows = [
        Row(label, "p50", medians["p50_ms"], "ms", 50, 25, lower_is_better=True),
        Row(label, "p99", medians["p99_ms"], "ms", 250, 100, lower_is_better=True),
    ]
    if not smoke:
        print_rows(rows)
    figures = {name: round(value, 1) for name, value in medians.items()}
    every = {name: [round(value, 1) for value in values] for name, values in measured.items()}
    loads = {"before": load, "after": os.getloadavg()}
    return {**figures, "runs": every, "load": loads, "rows": [row.plain() for row in rows]}


def _capacity(pack: Path, lines: list[bytes], warm_s: float, measured_s: float) -> float:
    """Events per second that come out when the pacer keeps a bounded number of them under way."""
    size_bytes = sum(map(len, lines)) / len(lines)
    blocks = [b"".join(lines[start : start + 1000]) for start in range(0, len(lines), 1000)]
    ahead_bytes = AHEAD_EVENTS * size_bytes

    def pace(run: Fed, trace: Trace) -> None:
        handed, number = trace.handed_bytes[-1], 0
        while not trace.stopped:
            if handed - trace.reached_bytes() > ahead_bytes:
                time.sleep(_TICK_S)
                continue
            block = blocks[number % len(blocks)]
            handed, number = handed + len(block), number + 1
            trace.handed_s.append(time.monotonic())
            trace.handed_bytes.append(handed)
            run.write(block)

    trace, (start_s, end_s) = _traced(pack, lines, pace, warm_s, measured_s)
    inside = [(seen_s, offset) for seen_s, offset in trace.seen if start_s <= seen_s < end_s]
    (first_s, first_bytes), (last_s, last_bytes) = inside[0], inside[-1]
    return (last_bytes - first_bytes) / size_bytes / (last_s - first_s)


def _paced(pack: Path, lines: list[bytes], rate: float, warm_s: float, measured_s: float) -> tuple[float, list[float]]:
    """(events per second that were handed over, latencies in ms)"""

    def pace(run: Fed, trace: Trace) -> None:
        began_s = time.monotonic()
        handed, sent = trace.handed_bytes[-1], 0
        while not trace.stopped:
            now_s = time.monotonic()
            due = int((now_s - began_s) * rate)
            if due == sent:
                time.sleep(_TICK_S)
                continue
            block = b"".join(lines[number % len(lines)] for number in range(sent, due))
            handed, sent = handed + len(block), due
            trace.handed_s.append(now_s)
            trace.handed_bytes.append(handed)
            run.write(block)
            time.sleep(_TICK_S)

    trace, (start_s, end_s) = _traced(pack, lines, pace, warm_s, measured_s)
    inside = [at for at, moment in enumerate(trace.handed_s) if start_s <= moment < end_s]
    handed = trace.handed_bytes[inside[-1]] - trace.handed_bytes[inside[0]]
    size_bytes = sum(map(len, lines)) / len(lines)
    seconds = trace.handed_s[inside[-1]] - trace.handed_s[inside[0]]
    return handed / size_bytes / seconds, trace.latencies_ms(start_s, end_s)


def _traced(
    pack: Path, lines: list[bytes], pace: Callable[[Fed, Trace], None], warm_s: float, measured_s: float
) -> tuple[Trace, tuple[float, float]]:
    """(the trace of a run under a pacer, the moments between which it counts)"""
    trace = Trace()
    with fed(pack, "--epoch-events", str(EPOCH_EVENTS), log_type="AWS.CloudTrail") as run:
        first = b"".join(lines[:_FIRST_EVENTS])
        trace.handed_s.append(time.monotonic())
        trace.handed_bytes.append(len(first))
        run.write(first)
        run.wait_for_matches(1, _START_TIMEOUT_S)  # Ray is up: from here on the pace can be kept
        threads = [threading.Thread(target=each, args=(run, trace), daemon=True) for each in (pace, _watch)]
        for thread in threads:
            thread.start()
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        start_s = time.monotonic() + warm_s
        end_s = start_s + measured_s
        time.sleep(warm_s + measured_s)
        while trace.reached_bytes() < _handed_by(trace, end_s) and time.monotonic() < deadline_s:
            time.sleep(_WATCH_S)  # what was handed over in time shall come out, however late
        trace.stopped = True
        for thread in threads:
            thread.join()
        run.finish()
    return trace, (start_s, end_s)


def _handed_by(trace: Trace, moment_s: float) -> int:
    """How many bytes were handed over before a moment."""
    at = bisect_right(trace.handed_s, moment_s)
    return trace.handed_bytes[at - 1] if at else 0


def _watch(run: Fed, trace: Trace) -> None:
    """Note each match as soon as the output holds it."""
    with run.matches.open("rb") as output:
        rest = b""
        while not trace.stopped:
            chunk = output.read()
            if not chunk:
                time.sleep(_WATCH_S)
                continue
            now_s = time.monotonic()
            *whole, rest = (rest + chunk).split(b"\n")
            trace.seen.extend((now_s, json.loads(line)["position"][1]) for line in whole)
