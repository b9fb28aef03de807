"""All enabled CloudTrail rules of a pack over real logs, against a loop that runs every event through every one of them.

The logs are those of ../shared/data over and over, or generated ones where this machine has none; the pack is the one given, a
checkout of a public one, say, or more than a hundred rules of our own.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from bench import inputs, packs
from bench.harness import CACHE, OURS, RUNS, SMOKE_RUNS, Row, Side, engine, in_turns, module_command, print_rows, report

NAME = "pack"
HELP = "all CloudTrail rules of --pack DIR, or of a hundred of our own, against each event through each rule"

EVENTS, SMOKE_EVENTS = 2_000_000, 2_000
LOOP_EVENTS = 400_000
"""The loop takes a minute for so many."""
LOG_TYPE = "AWS.CloudTrail"
_LOOP = "each rule, no index"


def run(smoke: bool, pack: Path | None = None, cache: Path = CACHE) -> dict[str, Any]:
    """Measure, print a table, return the figures. Raises RuntimeError when the matches differ or a side fails."""
    events, runs = (SMOKE_EVENTS, SMOKE_RUNS) if smoke else (EVENTS, RUNS)
    with tempfile.TemporaryDirectory(prefix="bench-pack-") as temporary:
        directory = pack.resolve() if pack is not None else packs.hundred(Path(temporary) / "pack")
        real = inputs.LOGS.is_dir()
        log = inputs.repeated_logs(cache, events) if real else inputs.cloudtrail(cache, events, share=0.02)
        part = log if smoke else inputs.prefix(log, LOOP_EVENTS)
        counted = None if part == log else part.stat().st_size
        load = os.getloadavg()
        sides = (
            Side(_LOOP, module_command("bench.baselines.every_rule", directory, LOG_TYPE, part)),
            Side(OURS, engine(log, directory, runtime="local" if smoke else "ray"), counted),
        )
        whose = "our own" if pack is None else "the pack given"
        print(
            f"{whose}, {events:,} {'real' if real else 'generated'} events, {log.stat().st_size / 1e6:,.0f} MB",
            flush=True,
        )
        figures = report(in_turns(sides, runs), load)
    ratio = figures["sides"][_LOOP]["processing"]["ratio"]
    row = Row(f"all CloudTrail rules of {whose}", "each event through each rule", ratio, "x", 8, 20)
    if not smoke:
        print_rows([row])
    return {**figures, "real_logs": real, "own_pack": pack is None, "rows": [row.plain()]}
