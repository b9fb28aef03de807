"""What shards cost by themselves: processor time per epoch and shard with 2, 8, 32 and 64 of them, and memory per shard.

Epochs of events that concern no rule, on this one machine: there is nothing to gain from many shards here, so all that
grows is overhead. Every shard tells every other one what it has for it, nothing included, and that it is through; so what an
epoch costs a shard grows with the number of shards. (Of that, Ray takes some 0.16 ms for each message that is sent and 0.2 ms
for each that is received.) The growth of the last step, the most crowded and the steepest, is projected to more shards than
this machine can hold.

What a shard takes while it has nothing to do is measured first, taken off, and told by itself: it comes with time, not with
epochs, and where many shards share two processors an epoch takes long.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from bench import inputs, packs
from bench.fed import fed
from cluster.core.coordinator import EVENTS_PER_SHARD

NAME = "scale"
HELP = "processor time per epoch and shard, and memory per shard, with 2 to 64 shards"

NUMBERS, SMOKE_NUMBERS = (2, 8, 32, 64), (2,)
EPOCHS, SMOKE_EPOCHS = 200, 100
EPOCH_EVENTS = 64
PROJECTED_SHARDS = 200
"""100 machines of two cores."""
EVENTS_PER_S = 100_000
"""Of one shard in a projected run."""
_IDLE_S, _SMOKE_IDLE_S = 10.0, 1.0
"""How long to look at shards that have nothing to do."""
_START_TIMEOUT_S = 600.0
_RUN_TIMEOUT_S = 600.0


def run(smoke: bool) -> dict[str, Any]:
    """Measure, print a table, return the figures."""
    numbers, epochs, idle_s = (SMOKE_NUMBERS, SMOKE_EPOCHS, _SMOKE_IDLE_S) if smoke else (NUMBERS, EPOCHS, _IDLE_S)
    load = os.getloadavg()
    print(f"about {epochs} epochs of about {EPOCH_EVENTS} events that concern no rule")
    print(
        f"{'shards':>6}{'ms/epoch':>10}{'CPU ms per epoch: shard':>25}{'coordinator':>13}{'idle shard':>12}"
        f"{'MB per shard':>14}{'own MB':>8}"
    )
    measured = []
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as temporary:
        pack = packs.marked(Path(temporary) / "pack")
        for shards in numbers:
            found = _measure(pack, shards, epochs, idle_s)
            measured.append(found)
            print(
                f"{shards:>6}{found['wall_ms']:>10.1f}{found['shard_cpu_ms']:>25.2f}{found['coordinator_cpu_ms']:>13.2f}"
                f"{found['idle_share']:>12.2%}{found['resident_mb']:>14.0f}{found['own_mb']:>8.0f}",
                flush=True,
            )
    figures: dict[str, Any] = {"measured": measured, "load": {"before": load, "after": os.getloadavg()}, "rows": []}
    if len(measured) > 1:
        figures["projection"] = _project(measured)
    print(f"load average {load[0]:.2f} before, {os.getloadavg()[0]:.2f} after")
    return figures


def _measure(pack: Path, shards: int, epochs: int, idle_s: float) -> dict[str, float]:
    options = ("--shards", str(shards), "--epoch-events", str(EPOCH_EVENTS))
    with fed(pack, *options, log_type=inputs.TINY) as run:
        run.write(inputs.TINY_MARK)
        run.wait_for_matches(1, _START_TIMEOUT_S)
        actors, coordinator = run.shards(), run.coordinator()
        idle_share = _idle_share(actors, idle_s)
        before_s, coordinator_before_s, began_s = _cpu_s(actors), _cpu_s([coordinator]), time.monotonic()
        run.feed(inputs.tiny(epochs * EPOCH_EVENTS, 1000))
        run.write(inputs.TINY_MARK)
        run.wait_for_matches(2, _RUN_TIMEOUT_S)
        wall_s = time.monotonic() - began_s
        shards_s, coordinator_s = _cpu_s(actors) - before_s, _cpu_s([coordinator]) - coordinator_before_s
        memory = [actor.memory_full_info() for actor in actors]
        done = run.finish()["epochs"]
    return {
        "shards": shards,
        "epochs": done,
        "wall_ms": round(wall_s * 1000 / done, 3),
        "shard_cpu_ms": round((shards_s / shards - idle_share * wall_s) * 1000 / done, 3),
        "coordinator_cpu_ms": round(coordinator_s * 1000 / done, 3),
        "idle_share": round(idle_share, 5),
        "resident_mb": round(sum(each.rss for each in memory) / shards / 1e6, 1),
        "own_mb": round(sum(each.uss for each in memory) / shards / 1e6, 1),
    }


def _idle_share(actors: Sequence[psutil.Process], idle_s: float) -> float:
    """How much of a processor one of them takes that has nothing to do."""
    before_s, began_s = _cpu_s(actors), time.monotonic()
    time.sleep(idle_s)
    return (_cpu_s(actors) - before_s) / (time.monotonic() - began_s) / len(actors)


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(each.user + each.system for each in times)


def _project(measured: Sequence[dict[str, float]]) -> dict[str, float]:
    """What an epoch comes to with many shards, if each costs what those of the last step did; measured by nobody."""
    few, before, most = measured[0], measured[-2], measured[-1]
    each_ms = (most["shard_cpu_ms"] - before["shard_cpu_ms"]) / (most["shards"] - before["shards"])
    of_shard_ms = most["shard_cpu_ms"] + each_ms * (PROJECTED_SHARDS - most["shards"])
    work_ms = EVENTS_PER_SHARD / EVENTS_PER_S * 1000
    kept = (work_ms + few["shard_cpu_ms"]) / (work_ms + of_shard_ms)
    print(f"per epoch and shard: {each_ms:.2f} ms for each shard from {before['shards']} to {most['shards']}")
    print(
        f"PROJECTION, not measured: with {PROJECTED_SHARDS} shards {of_shard_ms:.0f} ms beside {work_ms:.0f} ms of work "
        f"({EVENTS_PER_SHARD:,} events a shard and epoch at {EVENTS_PER_S:,} events/s): a shard keeps {kept:.0%} of its "
        f"rate with {few['shards']}"
    )
    return {
        "each_shard_ms": round(each_ms, 4),
        "projected_shards": PROJECTED_SHARDS,
        "projected_ms": round(of_shard_ms, 2),
        "projected_share_of_rate_kept": round(kept, 3),
    }
