"""What a million counter keys take in two shards of a run on Ray, beside a bare dict of value and expiry.

Resident memory of the shards' processes, when all events are through and the checkpoint after them is done, less that of the same
run without events. Buffers that the traffic left behind are in it; a run with as many events of few keys says how much that is.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import inputs, packs
from bench.fed import fed
from bench.harness import RUNS, SMOKE_RUNS, Row, print_rows
from bench.state import in_own_process

NAME = "memory"
HELP = "bytes per counter key in 2 shards, against a bare dict"

KEYS, SMOKE_KEYS = 1_000_000, 1_000_000 // 64
"""Tables grow by doubling: a power of two fewer keys fill them as far."""
FEW_KEYS = 1_000
_CHECKPOINT_INTERVAL_S = 1.0
_SETTLE_S = 3.0
_TIMEOUT_S = 600.0


def run(smoke: bool) -> dict[str, Any]:
    """Measure, print a table, return the figures. Raises RuntimeError when the run counted other keys than the dict."""
    keys, runs = (SMOKE_KEYS, SMOKE_RUNS) if smoke else (KEYS, RUNS)
    load = os.getloadavg()
    grown, traffic, bare = [], [], []
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as temporary:
        pack = packs.counted(Path(temporary) / "pack")
        for _ in range(runs):
            empty = _resident_bytes(pack, 0, 1)
            grown.append((_resident_bytes(pack, keys, keys) - empty) / keys)
            if not smoke:
                traffic.append((_resident_bytes(pack, keys, FEW_KEYS) - empty) / keys)
            bare.append(in_own_process("dict", "counters", keys).bytes_per_key)
    ratio = _middle(grown) / _middle(bare)
    print(f"{keys:,} keys, bytes per key, medians of {runs}:")
    of_traffic = f"   of which the traffic's own {_middle(traffic):.0f}" if traffic else ""
    print(f"{'two shards':24}{_middle(grown):8.0f}{of_traffic}")
    print(f"{'bare dict':24}{_middle(bare):8.0f}   ratio {ratio:.2f}")
    print(f"load average {load[0]:.2f} before, {os.getloadavg()[0]:.2f} after")
    row = Row(
        f"memory of state, {keys:,} counter keys in 2 shards", "bare dict", ratio, "x", 2, 1.3, lower_is_better=True
    )
    if not smoke:
        print_rows([row])
    return {
        "keys": keys,
        "bytes_per_key": {"two_shards": grown, "traffic": traffic, "bare_dict": bare},
        "load": {"before": load, "after": os.getloadavg()},
        "rows": [row.plain()],
    }


def _resident_bytes(pack: Path, events: int, names: int) -> int:
    """Of the shards together, after so many events of so many names."""
    with fed(pack, "--checkpoint-interval", str(_CHECKPOINT_INTERVAL_S), log_type=inputs.TINY) as run:
        run.feed(inputs.tiny(events, names))
        run.write(inputs.TINY_MARK)
        run.wait_for_matches(1, _TIMEOUT_S)
        time.sleep(_SETTLE_S)
        resident: int = sum(shard.memory_info().rss for shard in run.shards())
        summary = run.finish()
    if summary["events"] != events + 1 or summary["evaluations"] != events + 1:
        raise RuntimeError(f"{events + 1:,} events were handed over, {summary['evaluations']:,} were counted")
    return resident


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
