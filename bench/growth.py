"""Events per second with 10, 100 and 1,000 guarded rules of one log type: what a rule costs that an event does not concern.

All of them find the same matches, for all but the first few rules wait for calls that never come.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from bench import inputs, packs
from bench.harness import CACHE, RUNS, SMOKE_RUNS, Row, Side, engine, in_turns, print_rows, report

NAME = "rules"
HELP = "10, 100 and 1,000 guarded rules of one log type, against itself at 10"

EVENTS, SMOKE_EVENTS = 2_000_000, 10_000
NUMBERS, SMOKE_NUMBERS = (10, 100, 1_000), (10, 30)


def run(smoke: bool, cache: Path = CACHE) -> dict[str, Any]:
    """Measure, print a table, return the figures. Raises RuntimeError when the matches differ or a side fails."""
    events, runs, numbers = (SMOKE_EVENTS, SMOKE_RUNS, SMOKE_NUMBERS) if smoke else (EVENTS, RUNS, NUMBERS)
    log = inputs.cloudtrail(cache, events, share=0.02)
    print(f"{events:,} CloudTrail events, {log.stat().st_size / 1e6:,.0f} MB", flush=True)
    load = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="bench-rules-") as temporary:
        sides = [
            Side(
                _name(number),
                engine(log, packs.guarded(number)(Path(temporary) / str(number)), runtime="local" if smoke else "ray"),
            )
            for number in numbers
        ]
        figures = report(in_turns(sides, runs), load, ours=_name(numbers[-1]))
    loss = 1 / figures["sides"][_name(numbers[0])]["processing"]["ratio"]
    row = Row(
        "10 to 1,000 guarded rules of one log type", "itself at 10", loss, "x slower", 2, 1.3, lower_is_better=True
    )
    if not smoke:
        print_rows([row])
    rates = {number: figures["sides"][_name(number)]["processing"]["events_per_s"] for number in numbers}
    return {**figures, "events_per_s_by_rules": rates, "rows": [row.plain()]}


def _name(number: int) -> str:
    return f"{number:,} rules"
