"""Events per second of two shards on Ray, as a ratio to one hand-written loop in one process: same file, rules and run.

The rules are the product's founding ones: denials counted per principal and hour, and the addresses that a role has been
assumed from. Both sides write their matches, which must be the same. Runs alternate, so that what else the machine does
falls on both; medians are compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench import workload

NAME = "throughput"
HELP = "events/s of 2 shards on Ray, against a bare loop in one process"

ROOT = Path(__file__).resolve().parent.parent
FOUNDING_RULES = ("access_denied_burst", "assume_role_new_ip")
EVENTS, SMOKE_EVENTS = 2_000_000, 20_000
RUNS, SMOKE_RUNS = 5, 1
STATEFUL_SHARE = 0.23
"""The part of the events that reaches state in either rule."""
SHARDS = 2


@dataclass(frozen=True, slots=True)
class Timing:
    """One run of one side."""

    events: int
    seconds: float
    """From the first event to the last match, by the side's own watch."""
    total_seconds: float
    """From the command to its end: the interpreter's and Ray's start included."""
    matches: int
    digest: str
    """Of the matches in order: rule, position and dedup string."""


def run(smoke: bool) -> dict[str, object]:
    """Measure, print a table, return the figures. Raises RuntimeError when the sides' matches differ or a side fails."""
    events, runs = (SMOKE_EVENTS, SMOKE_RUNS) if smoke else (EVENTS, RUNS)
    with tempfile.TemporaryDirectory(prefix="throughput-") as temporary:
        directory = Path(temporary)
        log = directory / "aws-cloudtrail.jsonl"
        workload.write_stateful(log, events, seed=1, share=STATEFUL_SHARE)
        pack = founding_pack(directory / "pack")
        size_mb = log.stat().st_size / 1e6
        print(f"{events:,} CloudTrail events, {size_mb:,.0f} MB, {STATEFUL_SHARE:.0%} stateful; {runs} runs a side")
        bare, engine = measure(log, pack, directory, runs, runtime="ray")
    return _report(bare, engine)


def measure(log: Path, pack: Path, directory: Path, runs: int, *, runtime: str) -> tuple[list[Timing], list[Timing]]:
    """(the bare loop's runs, the engine's). Raises RuntimeError when their matches differ or a side fails."""
    bare: list[Timing] = []
    engine: list[Timing] = []
    for _ in range(runs):
        bare.append(time_bare_loop(log, directory))
        engine.append(time_engine(log, pack, directory, runtime=runtime))
        if bare[-1].digest != engine[-1].digest:
            found = f"{bare[-1].matches} of the bare loop, {engine[-1].matches} of the engine"
            raise RuntimeError(f"the matches differ: {found}")
    return bare, engine


def founding_pack(directory: Path) -> Path:
    """A pack of just the two rules; returns `directory`."""
    directory.mkdir()
    for name in FOUNDING_RULES:
        for suffix in (".py", ".yml"):
            shutil.copy(ROOT / "rules" / "packs" / "aws_cloudtrail" / (name + suffix), directory)
    return directory


def time_bare_loop(log: Path, directory: Path) -> Timing:
    matches = directory / "bare-matches.jsonl"
    return _time([sys.executable, "-m", "bench.baselines.bare_loop", str(log), str(matches)], matches)


def time_engine(log: Path, pack: Path, directory: Path, *, runtime: str) -> Timing:
    matches, store = directory / "engine-matches.jsonl", directory / "store"
    matches.unlink(missing_ok=True)
    command = [sys.executable, "-m", "cluster", "run", str(log), "--rules", str(pack), "--runtime", runtime]
    command += ["--shards", str(SHARDS), "--store", str(store), "--matches", str(matches), "--json", "--quiet"]
    return _time(command, matches)


def _time(command: list[str], matches: Path) -> Timing:
    # Ray makes its workers nice (15), which on a busy machine would measure its politeness.
    environment = os.environ | {"RAY_worker_niceness": "0"}
    start_s = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    total_s = time.perf_counter() - start_s
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}:\n{done.stderr[-2000:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    with matches.open("rb") as lines:
        count, digest = digest_of(lines)
    return Timing(said["events"], said["seconds"], total_s, count, digest)


def digest_of(lines: Iterable[bytes]) -> tuple[int, str]:
    """(number, digest) of match records, whatever their order and whatever else they say."""
    records = map(json.loads, lines)
    essence = sorted((record["position"], record["rule_id"], record["dedup"]) for record in records)
    return len(essence), hashlib.sha256(json.dumps(essence).encode()).hexdigest()


def _report(bare: list[Timing], engine: list[Timing]) -> dict[str, object]:
    figures: dict[str, object] = {
        "events": bare[0].events,
        "matches": bare[0].matches,
        "stateful_share": STATEFUL_SHARE,
        "shards": SHARDS,
        "load_after": os.getloadavg(),
    }
    print(f"{'':24}{'bare loop':>14}{'engine':>14}{'ratio':>8}")
    for name, measure in (("processing", "seconds"), ("start-up included", "total_seconds")):
        rates = {
            side: [timing.events / getattr(timing, measure) for timing in timings]
            for side, timings in (("bare_loop", bare), ("engine", engine))
        }
        medians = {side: statistics.median(of_side) for side, of_side in rates.items()}
        ratio = medians["engine"] / medians["bare_loop"]
        print(f"{name:<24}{medians['bare_loop']:>12,.0f}/s{medians['engine']:>12,.0f}/s{ratio:>8.2f}")
        figures[name.replace(" ", "_").replace("-", "_")] = {
            "events_per_s": {side: round(median) for side, median in medians.items()},
            "runs": {side: [round(rate) for rate in of_side] for side, of_side in rates.items()},
            "ratio": round(ratio, 3),
        }
    print(f"{bare[0].matches:,} matches, the same on both sides")
    return figures
