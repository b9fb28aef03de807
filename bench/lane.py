"""The serial lane at its worst: every event asks for one hot key, for its principal's, and in the second pack for a fresh one.

All evaluations of an epoch are then one closure, which one shard runs while the other waits. Compared with `--runtime local` and
one shard, which holds every key and needs no lane.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from bench import inputs, packs
from bench.harness import CACHE, OURS, RUNS, SMOKE_RUNS, Row, Side, engine, in_turns, print_rows, report

NAME = "lane"
HELP = "a pack that is all multi-key on one hot key, against one local process"

EVENTS, SMOKE_EVENTS = 400_000, 5_000
PACKS = {"hot key": packs.hot_key, "hot key and a fresh one": packs.hot_and_fresh_key}
_LOCAL = "local, one shard"


def run(smoke: bool, cache: Path = CACHE) -> dict[str, Any]:
    """Measure, print a table for each pack, return the figures. Raises RuntimeError when matches differ or a side fails."""
    events, runs = (SMOKE_EVENTS, SMOKE_RUNS) if smoke else (EVENTS, RUNS)
    log = inputs.cloudtrail(cache, events, share=0.23)
    figures: dict[str, Any] = {}
    rows = []
    for label, write in PACKS.items():
        print(f"{label}: {events:,} CloudTrail events", flush=True)
        load = os.getloadavg()
        with tempfile.TemporaryDirectory(prefix="bench-lane-") as temporary:
            pack = write(Path(temporary) / "pack")
            sides = (
                Side(_LOCAL, engine(log, pack, "--shards", "1", runtime="local")),
                Side(OURS, engine(log, pack, runtime="local" if smoke else "ray")),
            )
            figures[label] = report(in_turns(sides, runs), load)
        ratio = figures[label]["sides"][_LOCAL]["processing"]["ratio"]
        rows.append(Row(f"multi-key on one {label}", "`local`, one shard", ratio, "x", 1 / 3, 1 / 3))
    if not smoke:
        print_rows(rows)
    return {**figures, "rows": [row.plain() for row in rows]}
