"""What a key costs in rules.state.State, in bytes and in time per write, beside the least one could write by hand.

That least is `{key: (value, expiry)}` with an int or a set as the value: no undo, no snapshots, no freeing. Both sides are
filled by the same writes, each in a process of its own, and what the process grew by is what is counted: the resident
memory that the operating system reports. tracemalloc would count what was asked for, not the rounding, the holes and the
spare room of tables, which a shard pays for as well. All keys are left dirty, as they are just before a snapshot: it is
the most that State ever needs.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from bench.harness import RUNS, SMOKE_RUNS
from rules.state import State

NAME = "state"
HELP = "bytes per key and nanoseconds per write, against a bare dict"

KEYS = 1_000_000
SMOKE_KEYS = KEYS // 64
"""Tables grow by doubling: a power of two fewer keys fill them as far, so that the ratios come out alike."""
LIMITS = {"counters": 1.5, "sets": 0.8}
"""How many times the bare dict's memory State may take."""

_CLOCK_S = 1_700_000_000
_MEMBERS = 3
_TIMED_WRITES, _PASSES = 20_000, 5

Write = tuple[str, str, int]
"""(key, member, expiry in seconds since 1970). Counters leave the member alone."""
Fill = Callable[[Iterable[Write]], int]
"""Carries writes out and returns the sum of the counts, or sizes of sets, that they led to."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one side came to."""

    bytes_per_key: float
    ns_per_write: float
    answer: int
    """The sum of what all writes returned: the same on both sides, or they did not do the same."""


def run(smoke: bool) -> dict[str, object]:
    """Measure counters and sets on both sides in turns, print a table of medians, return its figures.

    Needs Linux. Raises RuntimeError when the two sides disagree on what was counted.
    """
    keys, runs = (SMOKE_KEYS, SMOKE_RUNS) if smoke else (KEYS, RUNS)
    load = os.getloadavg()
    print(f"{f'{keys:,} keys':16}       bytes per key                         ns per write")
    print(f"{'':16} {'State':>8} {'dict':>8}   ratio   limit    {'State':>8} {'dict':>8}")
    figures: dict[str, object] = {"keys": keys, "runs": runs}
    for kind, limit in LIMITS.items():
        turns = [[in_own_process(side, kind, keys) for side in ("State", "dict")] for _ in range(runs)]
        ours, bare = map(_median, zip(*turns, strict=True))
        if ours.answer != bare.answer:
            raise RuntimeError(f"{kind}: State came to {ours.answer} and the dict to {bare.answer}")
        ratio = ours.bytes_per_key / bare.bytes_per_key
        print(
            f"{kind:16} {ours.bytes_per_key:8.0f} {bare.bytes_per_key:8.0f} {ratio:7.2f} {limit:7.2f}"
            f"    {ours.ns_per_write:8.0f} {bare.ns_per_write:8.0f}{'' if ratio <= limit else '   over the limit'}"
        )
        figures[kind] = {
            "bytes_per_key": {"State": round(ours.bytes_per_key, 1), "dict": round(bare.bytes_per_key, 1)},
            "ratio": round(ratio, 3),
            "limit": limit,
            "ns_per_write": {"State": round(ours.ns_per_write), "dict": round(bare.ns_per_write)},
        }
    print(f"medians of {runs} in turns; load average {load[0]:.2f} before, {os.getloadavg()[0]:.2f} after")
    return {**figures, "load": {"before": load, "after": os.getloadavg()}}


def _median(costs: Sequence[Cost]) -> Cost:
    """Of each figure by itself; what was counted is the same in all."""
    bytes_per_key = statistics.median(cost.bytes_per_key for cost in costs)
    return Cost(bytes_per_key, statistics.median(cost.ns_per_write for cost in costs), costs[0].answer)


def in_own_process(side: str, kind: str, keys: int) -> Cost:
    """What `keys` keys of a kind, counters or sets, cost a side, State or dict."""
    # Spawned, not forked: a fork starts with its parent's memory, holes to be filled included.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, side, kind, keys).result()


def _measure(side: str, kind: str, keys: int) -> Cost:
    fill = _FILLS[side, kind]()
    per_key = 1 if kind == "counters" else _MEMBERS
    answer = fill(_writes(1_000, per_key, 0))  # code is warm and the first arenas are there
    before_bytes = _resident_bytes()
    answer += fill(_writes(keys, per_key, 1))
    grown_bytes = _resident_bytes() - before_bytes
    passes_ns = []
    for _ in range(_PASSES):
        again = list(_writes(keys, per_key, 1, step=max(1, keys * per_key // _TIMED_WRITES)))
        start_ns = time.perf_counter_ns()
        answer += fill(again)
        passes_ns.append((time.perf_counter_ns() - start_ns) / len(again))
    return Cost(grown_bytes / keys, statistics.median(passes_ns), answer)


def _writes(keys: int, per_key: int, series: int, step: int = 1) -> Iterator[Write]:
    """Writes as events bring them: nothing is shared between two of them, be it equal."""
    for number in range(0, keys * per_key, step):
        key, member = divmod(number, per_key)
        spread = key * 7919 % keys  # neighbours in time are not neighbours in memory
        yield (
            f"Some.Rule:{series}:user-{spread:09d}",
            f"10.{member}.{spread % 251}.{spread % 241}",
            _CLOCK_S + 1 + spread,
        )


def _resident_bytes() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _state_counters() -> Fill:
    state = State()
    state.clock_s = float(_CLOCK_S)

    def fill(writes: Iterable[Write]) -> int:
        total = 0
        for key, _, expiry_s in writes:
            state.begin()
            total += state.increment_counter(key, 1, expiry_s)
        return total

    return fill


def _state_sets() -> Fill:
    state = State()
    state.clock_s = float(_CLOCK_S)

    def fill(writes: Iterable[Write]) -> int:
        total = 0
        for key, member, expiry_s in writes:
            state.begin()
            total += len(state.add_to_string_set(key, member, expiry_s))
        return total

    return fill


def _dict_counters() -> Fill:
    table: dict[str, tuple[int, int]] = {}

    def fill(writes: Iterable[Write]) -> int:
        total = 0
        for key, _, expiry_s in writes:
            held = table.get(key)
            count = held[0] + 1 if held is not None and held[1] > _CLOCK_S else 1
            table[key] = count, expiry_s
            total += count
        return total

    return fill


def _dict_sets() -> Fill:
    table: dict[str, tuple[set[str], int]] = {}

    def fill(writes: Iterable[Write]) -> int:
        total = 0
        for key, member, expiry_s in writes:
            held = table.get(key)
            members = held[0] if held is not None and held[1] > _CLOCK_S else set()
            members.add(member)
            table[key] = members, expiry_s
            total += len(members)
        return total

    return fill


_FILLS: dict[tuple[str, str], Callable[[], Fill]] = {
    ("State", "counters"): _state_counters,
    ("State", "sets"): _state_sets,
    ("dict", "counters"): _dict_counters,
    ("dict", "sets"): _dict_sets,
}
