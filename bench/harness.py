"""What the benchmarks share: sides that are timed in turns, the digest of matches that they must have in common, the report.

A side is a command that writes match lines to a file and says {"events", "seconds"} on its last line: the seconds from its
first event to its last match by its own watch. The time from the command to its end is taken here. Medians are compared;
runs alternate, so that what else the machine does falls on all sides.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "countersign-bench"
SHARDS = 2
CHECKPOINT_INTERVAL_S = 5
RUNS, SMOKE_RUNS = 5, 1

OURS = "countersign"

Command = Callable[[Path, Path], list[str]]
"""(file for the matches, empty directory for whatever else) -> the command of one run."""


class Skipped(Exception):
    """A benchmark, or one side of it, cannot run on this machine; for a person, with what to do."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the programs that are compared."""

    name: str
    command: Command
    counted_bytes: int | None = None
    """Only matches of events before this place in the log count for the digest, where another side reads no further."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One run of one side."""

    events: int
    seconds: float
    """From the first event to the last match, by the side's own watch."""
    total_seconds: float
    """From the command to its end: the start of interpreters, of Ray or of a JVM included."""
    matches: int
    digest: str
    """Of the matches, sorted: rule, position and dedup string."""
    said: Mapping[str, Any]
    """The side's last line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was measured, and what it should come to."""

    workload: str
    baseline: str
    measured: float
    unit: str
    """x: so many times the baseline's rate (or memory). ms: milliseconds."""
    goal: float | None
    """None where nothing was asked for."""
    aim: float | None
    lower_is_better: bool = False

    @property
    def met(self) -> bool:
        if self.goal is None:
            return True
        return self.measured <= self.goal if self.lower_is_better else self.measured >= self.goal

    def plain(self) -> dict[str, Any]:
        return asdict(self) | {"measured": round(self.measured, 3), "met": self.met}


def in_turns(sides: Sequence[Side], runs: int) -> dict[str, list[Timing]]:
    """Every side's runs, one of each in turn. Raises RuntimeError when their matches differ or a side fails."""
    timings: dict[str, list[Timing]] = {side.name: [] for side in sides}
    for _ in range(runs):
        for side in sides:
            timings[side.name].append(timed(side))
        last = [of_side[-1] for of_side in timings.values()]
        if len({timing.digest for timing in last}) != 1:
            found = ", ".join(f"{of_side[-1].matches} of {name}" for name, of_side in timings.items())
            raise RuntimeError(f"the matches differ: {found}")
    return timings


def timed(side: Side) -> Timing:
    """Run a side once, in its own fresh directory. Raises RuntimeError when it fails."""
    with tempfile.TemporaryDirectory(prefix="bench-side-") as temporary:
        directory = Path(temporary)
        matches, scratch = directory / "matches.jsonl", directory / "scratch"
        scratch.mkdir()
        command = side.command(matches, scratch)
        start_s = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        total_s = time.perf_counter() - start_s
        if done.returncode != 0:
            said = (done.stderr or done.stdout)[-2000:]
            raise RuntimeError(f"{side.name}: {' '.join(command)}: exit {done.returncode}:\n{said}")
        said = json.loads(done.stdout.splitlines()[-1])
        with matches.open("rb") as lines:
            count, digest = digest_of(lines, side.counted_bytes)
    return Timing(said["events"], said["seconds"], total_s, count, digest, said)


def digest_of(lines: Iterable[bytes], counted_bytes: int | None = None) -> tuple[int, str]:
    """(number, digest) of match records, whatever their order and whatever else they say."""
    records = map(json.loads, lines)
    essence = sorted(
        (record["position"], record["rule_id"], record["dedup"])
        for record in records
        if counted_bytes is None or record["position"][1] < counted_bytes
    )
    return len(essence), hashlib.sha256(json.dumps(essence).encode()).hexdigest()


def engine(log: Path, pack: Path, *options: str, runtime: str = "ray", log_type: str | None = None) -> Command:
    """Our side: two shards, with a store and checkpoints, matches to a file."""

    def command(matches: Path, scratch: Path) -> list[str]:
        outputs = ["--matches", str(matches), "--alerts", str(scratch / "alerts.jsonl")]
        return engine_command(str(log), pack, scratch, *outputs, *options, runtime=runtime, log_type=log_type)

    return command


def engine_command(
    log: str, pack: Path, scratch: Path, *options: str, runtime: str = "ray", log_type: str | None = None
) -> list[str]:
    command = [sys.executable, "-m", "cluster", "run", log, "--rules", str(pack), "--runtime", runtime]
    if "--shards" not in options:
        command += ["--shards", str(SHARDS)]
    if log_type is not None:
        command += ["--log-type", log_type]
    command += ["--store", str(scratch / "store"), "--checkpoint-interval", str(CHECKPOINT_INTERVAL_S)]
    return [*command, *options, "--json", "--quiet"]


def module_command(module: str, *arguments: object) -> Command:
    """A baseline of ours under this very interpreter: its arguments, then the file for the matches."""
    return lambda matches, scratch: [sys.executable, "-m", module, *map(str, arguments), str(matches)]


def report(
    timings: Mapping[str, Sequence[Timing]], load_before: tuple[float, float, float], ours: str = OURS
) -> dict[str, Any]:
    """Print the rates with our ratio to each other side; returns the figures. The sides agreed on their matches."""
    rates = {
        name: {
            "processing": [timing.events / timing.seconds for timing in of_side],
            "start_up_included": [timing.events / timing.total_seconds for timing in of_side],
        }
        for name, of_side in timings.items()
    }
    medians = {
        name: {kind: statistics.median(of_kind) for kind, of_kind in of_side.items()} for name, of_side in rates.items()
    }
    print(f"{'median of events/s':24}{'events':>12}{'processing':>14}{'ours/it':>8}{'with start-up':>16}{'ours/it':>8}")
    figures: dict[str, Any] = {}
    for name, of_side in medians.items():
        ratios = {kind: medians[ours][kind] / of_side[kind] for kind in of_side}
        figures[name] = {
            kind: {
                "events_per_s": round(of_side[kind]),
                "runs": [round(rate) for rate in rates[name][kind]],
                "ratio": round(ratios[kind], 3),
            }
            for kind in of_side
        } | {"events": timings[name][0].events}
        told = [f"{ratio:8.2f}" if name != ours else " " * 8 for ratio in ratios.values()]
        print(
            f"{name:24}{timings[name][0].events:>12,}{of_side['processing']:>14,.0f}{told[0]}"
            f"{of_side['start_up_included']:>16,.0f}{told[1]}"
        )
    for name, of_runs in timings.items():
        last = of_runs[-1]
        figures[name] |= {"matches": last.matches, "digest": last.digest}
        if name != ours:
            print(
                f"{name}: {last.matches:,} matches, the same on all sides (SHA-256 {last.digest[:16]}); "
                f"runs, in turns: {len(of_runs)}"
            )
    load_after = os.getloadavg()
    print(f"load average {load_before[0]:.2f} before, {load_after[0]:.2f} after")
    return {"sides": figures, "load": {"before": load_before, "after": load_after}}


def print_rows(rows: Iterable[Row]) -> None:
    for row in rows:
        told = f"{row.workload} / {row.baseline}: {row.measured:.3g} {row.unit}"
        if row.goal is not None:
            word = "at most" if row.lower_is_better else "at least"
            told += f", {word} {row.goal:.3g}, aim {row.aim:.3g}: {'met' if row.met else 'NOT met'}"
        print(told)
