"""What checkpoints cost a stream: how long a shard stands still for one, how much throughput they take, what they store.

Still, and for how long: a thread that does nothing but write to State, as a shard does, and looks at the clock each time; the
longest gap counts. In the first half of its time a checkpoint is captured, encoded and stored beside it, by the code that
shards run; in the second half nothing is, which shows what the machine itself does to such a thread. Throughput: whole
runs on Ray in pairs, with a checkpoint every 5 s and with none but the last.
"""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from bench import inputs, packs
from bench.harness import CACHE, CHECKPOINT_INTERVAL_S, RUNS, SMOKE_RUNS, Row, Side, engine, in_turns, print_rows
from cluster.core.effects import StoreSnapshot
from cluster.core.messages import Message, SnapshotStored
from cluster.runtime.shells import paced, store_snapshot
from cluster.stores import open_store
from rules.state import State
from rules.windows import Windows

NAME = "checkpoint"
HELP = "the pause that a checkpoint makes, its share of the throughput, bytes per dirty counter"

KEYS, SMOKE_KEYS = 1_000_000, 20_000
DIRTY, SMOKE_DIRTY = 100_000, 5_000
REPEATS, SMOKE_REPEATS = 9, 2
EVENTS, SMOKE_EVENTS = 4_000_000, 10_000
"""Enough for several checkpoints within a run."""
_STATEFUL_SHARE = 0.23

PAUSE_MS = 10.0
LOSS = 0.05

_CLOCK_S = 1_700_000_000.0


def run(smoke: bool, cache: Path = CACHE) -> dict[str, Any]:
    """Measure, print, return the figures. Raises RuntimeError when runs with and without checkpoints differ in matches."""
    load = os.getloadavg()
    keys, dirty, repeats = (SMOKE_KEYS, SMOKE_DIRTY, SMOKE_REPEATS) if smoke else (KEYS, DIRTY, REPEATS)
    with tempfile.TemporaryDirectory(prefix="bench-checkpoint-") as directory:
        pauses, bytes_per_counter = _pauses(Path(directory), keys, dirty, repeats)
    with_ms = statistics.median(during for during, _ in pauses)
    without_ms = statistics.median(after for _, after in pauses)
    print(
        f"{keys:,} counters, {dirty:,} of them dirty: the writing thread stands still for {with_ms:.1f} ms at most during "
        f"a checkpoint, {without_ms:.1f} ms without one (medians of {repeats}); {bytes_per_counter:.1f} bytes a dirty counter"
    )
    losses = _losses(cache, smoke)
    loss = statistics.median(losses)
    print(
        f"a checkpoint every {CHECKPOINT_INTERVAL_S} s takes {loss:.1%} of the throughput (median of {len(losses)} pairs: "
        f"{', '.join(f'{each:.1%}' for each in losses)})"
    )
    rows = [
        Row("checkpoint", f"longest pause, {dirty:,} dirty keys", with_ms, "ms", PAUSE_MS, 5.0, lower_is_better=True),
        Row("checkpoint", "share of the throughput", loss * 100, "%", LOSS * 100, 2.0, lower_is_better=True),
    ]
    if not smoke:
        print_rows(rows)
    return {
        "keys": keys,
        "dirty": dirty,
        "pause_ms": {"during": [round(during, 2) for during, _ in pauses], "after": [round(a, 2) for _, a in pauses]},
        "bytes_per_dirty_counter": round(bytes_per_counter, 2),
        "throughput_loss": [round(each, 4) for each in losses],
        "load": {"before": load, "after": os.getloadavg()},
        "rows": [row.plain() for row in rows],
    }


# --- pauses --------------------------------------------------------------------------------------------------------


def _pauses(directory: Path, keys: int, dirty: int, repeats: int) -> tuple[list[tuple[float, float]], float]:
    """((longest gap during a checkpoint, the same without one), in ms) of each repetition; bytes per dirty counter."""
    names = [f"Some.Rule:user-{number * 7919 % keys:09d}" for number in range(keys)]
    written = names[:dirty]  # and no others: more dirty keys than were asked for make longer pauses
    state, windows = State(), Windows()
    state.clock_s = _CLOCK_S
    _count(state, names)
    state.capture_dirty()
    state.settle()
    gc.collect()
    gc.freeze()  # as shards do
    store = open_store(str(directory))
    store.acquire("bench", fresh=True)
    found: list[tuple[float, float]] = []
    stored: list[Message] = []
    for number in range(repeats):
        _count(state, written)

        def snapshot(name: str = str(number)) -> Callable[[], None]:
            """Capture, as a shard does between two evaluations; what comes back is for the thread beside it."""
            effect = StoreSnapshot(0, 0, name, state.capture_dirty(), windows.capture_dirty())
            return lambda: stored.append(store_snapshot(store, "bench", effect, paced(lambda: True)))

        during_s, took_s = _longest_gap(state, written, snapshot)
        idle = partial(time.sleep, took_s)
        after_s, _ = _longest_gap(state, written, partial(partial, idle))
        state.settle()
        found.append((during_s * 1e3, after_s * 1e3))
        if number + 1 < repeats:  # what was written while we measured is not what the next is to hold
            state.capture_dirty()
            state.settle()
    sizes = [message.size_bytes for message in stored if isinstance(message, SnapshotStored)]
    return found, statistics.median(sizes) / dirty


def _count(state: State, names: list[str]) -> None:
    for name in names:
        state.begin()
        state.increment_counter(name, 1, 3600)


def _longest_gap(state: State, names: list[str], begin: Callable[[], Callable[[], None]]) -> tuple[float, float]:
    """(longest time between two writes, how long it all took) while a thread does what `begin` gives, in seconds."""
    longest_s = 0.0
    start_s = last_s = time.perf_counter()
    beside = threading.Thread(target=begin())
    beside.start()
    for name in cycle(names):
        state.begin()
        state.increment_counter(name, 1, 3600)
        now_s = time.perf_counter()
        longest_s = max(longest_s, now_s - last_s)
        last_s = now_s
        if not beside.is_alive():
            break
    beside.join()
    return longest_s, last_s - start_s


# --- throughput ----------------------------------------------------------------------------------------------------


def _losses(cache: Path, smoke: bool) -> list[float]:
    """The share of the throughput that checkpoints took, of each pair of runs."""
    events, runs = (SMOKE_EVENTS, SMOKE_RUNS) if smoke else (EVENTS, RUNS)
    log = inputs.cloudtrail(cache, events, share=_STATEFUL_SHARE)
    interval_s = 0.1 if smoke else CHECKPOINT_INTERVAL_S
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        pack = packs.founding(Path(directory) / "pack")
        sides = [
            Side(
                name,
                engine(log, pack, "--checkpoint-interval", str(seconds), runtime="local" if smoke else "ray"),
            )
            for name, seconds in (("with", interval_s), ("without", 1e6))
        ]
        timings = in_turns(sides, runs)
    pairs = zip(timings["with"], timings["without"], strict=True)
    return [1 - (ours.events / ours.seconds) / (theirs.events / theirs.seconds) for ours, theirs in pairs]
