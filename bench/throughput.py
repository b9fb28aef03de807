"""Events per second of two shards on Ray, store and checkpoints on, as ratios to honest programs that do the same work.

Same file, same rules, same matches. The founding rules count denials per principal and hour, and remember the addresses that
a role was assumed from. A slow baseline runs the first part of the log: then only its matches are compared.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import inputs, packs
from bench.environments import CannotInstall, Environment
from bench.harness import (
    CACHE,
    OURS,
    ROOT,
    RUNS,
    SHARDS,
    SMOKE_RUNS,
    Command,
    Row,
    Side,
    Skipped,
    Timing,
    engine,
    in_turns,
    module_command,
    print_rows,
    report,
)
from bench.redis_server import RedisServerMissing, start_redis

EVENTS, SMOKE_EVENTS = 2_000_000, 10_000
LARGE_EVENTS = 4_000_000
"""For what is fast enough to be through with the others too soon."""

BYTEWAX = Environment(
    "bytewax-0.21.1", ("bytewax==0.21.1", "orjson==3.13.0"), ("python3.11", "python3.12", "python3.10")
)
PYFLINK = Environment("pyflink-2.3.0", ("apache-flink==2.3.0", "orjson==3.13.0"), ("python3.11", "python3.10"))


@dataclass(frozen=True, slots=True)
class Workload:
    """What all sides have to do."""

    label: str
    share: float
    """Of the events, those that are a denial or an AssumeRole."""
    pack: packs.Pack
    loop: str
    """The function of bench.baselines.bare_loop that does it."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A program to compare with."""

    name: str
    open: Callable[[ExitStack, Path, Path, str], Command]
    """(what to close in the end, cache, log, loop) -> its command. Raises CannotInstall, RedisServerMissing, Skipped."""
    environment: Environment | None = None
    """Where it is installed, unless with us."""
    events: int | None = None
    """How many it runs, where the whole log would take too long."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Our rate against that of the fastest of some baselines."""

    label: str
    baselines: tuple[str, ...]
    at_least: float | None
    aim: float | None


FOUNDING = Workload("founding rules, 23 % of events stateful", 0.23, packs.founding, "founding")
SPARSE = Workload("founding rules, 2 % stateful", 0.02, packs.founding, "founding")
DENSE = Workload("one rule, every event stateful", 0.02, packs.every_event, "every_event")
MATCHING = Workload("80 % of events match", 0.2, packs.most_match, "most_match")


@dataclass(frozen=True, slots=True)
class Contest:
    """A benchmark: a workload, and the baselines that do it too."""

    NAME: str
    HELP: str
    workload: Workload
    baselines: tuple[Baseline, ...]
    goals: tuple[Goal, ...]
    events: int = EVENTS

    def run(self, smoke: bool, cache: Path = CACHE) -> dict[str, Any]:
        """Measure, print a table, return the figures. Raises RuntimeError when the sides' matches differ or a side fails."""
        events, runs = (SMOKE_EVENTS, SMOKE_RUNS) if smoke else (self.events, RUNS)
        absent = [b.environment.name for b in self.baselines if b.environment and not b.environment.present(cache)]
        try:
            if smoke and absent:
                raise Skipped(f"{', '.join(dict.fromkeys(absent))}: not installed: without --smoke it will be")
            log = inputs.cloudtrail(cache, events, share=self.workload.share)
            runtime = "local" if smoke else "ray"
            size_mb = log.stat().st_size / 1e6
            print(f"{self.workload.label}: {events:,} CloudTrail events, {size_mb:,.0f} MB; ours: `{runtime}`", flush=True)
            timings, load = self.measure(cache, log, runs, runtime=runtime)
        except (CannotInstall, RedisServerMissing, Skipped) as error:
            print(f"skipped: {error}")
            return {"skipped": str(error)}
        figures = report(timings, load)
        rows = [self._row(goal, figures["sides"]) for goal in self.goals]
        if not smoke:
            print_rows(rows)
        shape = {"stateful_share": self.workload.share, "shards": SHARDS}
        return {**figures, **shape, "rows": [row.plain() for row in rows]}

    def measure(
        self, cache: Path, log: Path, runs: int, *, runtime: str
    ) -> tuple[dict[str, list[Timing]], tuple[float, float, float]]:
        """(every side's runs, the load average before them)"""
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            pack = self.workload.pack(directory / "pack")
            load = os.getloadavg()
            timings: dict[str, list[Timing]] = {OURS: []}
            for baseline in self.baselines:  # each with runs of ours beside it: the prefixes may differ
                part = log if baseline.events is None else inputs.prefix(log, baseline.events)
                counted = None if part == log else part.stat().st_size
                ours = Side(OURS, engine(log, pack, runtime=runtime), counted)
                theirs = Side(baseline.name, baseline.open(stack, cache, part, self.workload.loop))
                both = in_turns((theirs, ours), runs)
                timings[baseline.name] = both[baseline.name]
                timings[OURS] += both[OURS]
        return timings, load

    def _row(self, goal: Goal, sides: dict[str, Any]) -> Row:
        ratio = min(sides[name]["processing"]["ratio"] for name in goal.baselines)
        return Row(self.workload.label, goal.label, ratio, "x", goal.at_least, goal.aim)


# --- the baselines -------------------------------------------------------------------------------------------------


def _bare(stack: ExitStack, cache: Path, log: Path, loop: str) -> Command:
    return module_command("bench.baselines.bare_loop", loop, log)


def _by_words(stack: ExitStack, cache: Path, log: Path, loop: str) -> Command:
    return module_command("bench.baselines.bare_loop", f"{loop}_by_words", log)


def _redis(stack: ExitStack, cache: Path, log: Path, loop: str) -> Command:
    return module_command("bench.baselines.redis_loop", stack.enter_context(start_redis()), log)


def _bytewax(processes: int, workers: int) -> Callable[[ExitStack, Path, Path, str], Command]:
    def open_(stack: ExitStack, cache: Path, log: Path, loop: str) -> Command:
        return _foreign(BYTEWAX, cache, "bench.baselines.bytewax_flow", processes, workers, log)

    return open_


def _pyflink(mode: str) -> Callable[[ExitStack, Path, Path, str], Command]:
    def open_(stack: ExitStack, cache: Path, log: Path, loop: str) -> Command:
        if shutil.which("java") is None:
            raise Skipped(
                "PyFlink needs Java: install a JDK 11, 17 or 21 (Debian: apt install openjdk-17-jre-headless)"
            )
        return _foreign(PYFLINK, cache, "bench.baselines.pyflink_job", mode, log)

    return open_


def _foreign(environment: Environment, cache: Path, module: str, *arguments: object) -> Command:
    """A baseline of another environment: its arguments, a directory to write in, the file for the matches."""
    python = environment.program(cache)
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])  # PyFlink's thread mode looks for `python` there
    start = ["env", f"PYTHONPATH={ROOT}", f"PATH={path}", str(python), "-m", module, *map(str, arguments)]
    return lambda matches, scratch: [*start, str(scratch), str(matches)]


BARE = Baseline("bare loop", _bare)
WORDS = Baseline("bare loop by words", _by_words)
REDIS = Baseline("Redis per helper", _redis)
BYTEWAX_THREADS = Baseline("Bytewax -w2", _bytewax(1, 2), BYTEWAX)
BYTEWAX_PROCESSES = Baseline("Bytewax -p2", _bytewax(2, 1), BYTEWAX)
# More than a minute each on the fastest machine so far, at 17,400 and 40,800 events/s.
PYFLINK_PROCESS = Baseline("PyFlink process", _pyflink("process"), PYFLINK, events=1_200_000)
PYFLINK_THREAD = Baseline("PyFlink thread", _pyflink("thread"), PYFLINK, events=2_500_000)

BY_WORDS = Goal("bare loop that parses only lines with a word of the rules", (WORDS.name,), None, None)
"""Nothing was asked for; but it is what we skip lines by, too."""

CONTESTS = (
    Contest(
        "throughput",
        "2 shards on Ray against a bare loop: founding rules, 23 % of events stateful",
        FOUNDING,
        (BARE, WORDS),
        (Goal("bare loop, one core", ("bare loop",), 1.2, 2.5), BY_WORDS),
    ),
    Contest(
        "sparse",
        "the same with 2 % of events stateful",
        SPARSE,
        (BARE, WORDS),
        (Goal("bare loop, one core", ("bare loop",), 3, 6), BY_WORDS),
        LARGE_EVENTS,
    ),
    Contest(
        "dense",
        "one rule that counts every event, against a bare loop",
        DENSE,
        (BARE,),
        (Goal("bare loop, one core", ("bare loop",), 0.6, 1.1),),
    ),
    Contest(
        "matching",
        "80 % of the events match, against a bare loop",
        MATCHING,
        (BARE,),
        (Goal("bare loop, one core", ("bare loop",), None, None),),
    ),
    Contest(
        "redis",
        "founding rules against a loop with a Redis round trip for each helper call",
        FOUNDING,
        (REDIS,),
        (Goal("Redis round trip per helper", ("Redis per helper",), 12, 25),),
    ),
    Contest(
        "bytewax",
        "founding rules against Bytewax, keyed state with recovery on (installs it)",
        FOUNDING,
        (BYTEWAX_THREADS, BYTEWAX_PROCESSES),
        (Goal("Bytewax, the faster of -w2 and two processes", ("Bytewax -w2", "Bytewax -p2"), 1.5, 3),),
        LARGE_EVENTS,
    ),
    Contest(
        "pyflink",
        "founding rules against PyFlink, parallelism 2 (needs Java; installs it)",
        FOUNDING,
        (PYFLINK_PROCESS, PYFLINK_THREAD),
        (
            Goal("PyFlink, process mode", ("PyFlink process",), 30, 80),
            Goal("PyFlink, thread mode", ("PyFlink thread",), 10, 25),
        ),
        LARGE_EVENTS,
    ),
)
