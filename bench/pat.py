"""Time of `countersign test DIR` against that of `pat test --path DIR`: cold processes, default options, in turns in one run.

pat (panther_analysis_tool, from PyPI) goes into a virtual environment of its own below a cache folder. Every test that pat
ran must have come to the same with us, else the times compare nothing. What we run beyond that (simple detections, say) is
counted and costs us.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from bench.environments import CannotInstall, Environment
from bench.harness import CACHE, ROOT, RUNS, SMOKE_RUNS

NAME = "pat"
HELP = "seconds of `countersign test` on a pack, against the format's own test tool"

VERSION = "1.11.1"
PACKAGES = (
    f"panther_analysis_tool=={VERSION}",
    "panther_detection_helpers==1.0.2",  # pat does not ask for it, nor it for boto3, and rules import both
    "boto3==1.42.97",
    "policyuniverse==1.5.1.20231109",  # these two are the public pack's own needs
    "pycountry==24.6.1",
)
ENVIRONMENT = Environment(f"pat-{VERSION}", PACKAGES)
SMOKE_RULES = 30

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TEST = re.compile(r"\t\[(PASS|FAIL)\] (.*)")
_COUNT = re.compile(r"\t(Passed|Skipped|Failed|Invalid): (\d+)")


@dataclass(frozen=True, slots=True)
class Report:
    """What one side said of a pack."""

    seconds: float
    tests: Counter[tuple[str, str]]
    """(name, PASS or FAIL)"""
    detections: dict[str, int]
    """Passed, Skipped, Failed, Invalid."""


def run(smoke: bool, pack: Path | None = None, cache: Path = CACHE) -> dict[str, object]:
    """Measure, print a table, return the figures. Raises RuntimeError when a test came to something else on one side."""
    if pack is None and not smoke:
        raise RuntimeError("no pack to test: give --pack DIR, a checkout of rules in this format")
    with tempfile.TemporaryDirectory(prefix="bench-pat-") as temporary:
        directory = pack.resolve() if pack is not None else small_pack(Path(temporary) / "pack")
        ours = [sys.executable, "-m", "cluster", "test", str(directory)]
        try:
            theirs = [str(ENVIRONMENT.program(cache, "pat")), "test", "--path", str(directory)]
        except CannotInstall as error:
            if not smoke:
                raise
            print(f"pat is left out, only our side is timed: {error}")
            theirs = None
        empty = Path(temporary) / "empty"  # pat reads its settings from the working directory
        empty.mkdir()
        return _compare(ours, theirs, empty, SMOKE_RUNS if smoke else RUNS)


def _compare(ours: list[str], theirs: list[str] | None, cwd: Path, runs: int) -> dict[str, object]:
    load_before = os.getloadavg()
    sides = {"countersign": (ours, ROOT)} if theirs is None else {"pat": (theirs, cwd), "countersign": (ours, ROOT)}
    reports: dict[str, list[Report]] = {side: [] for side in sides}
    for number in range(runs + 1):
        for side, (command, where) in sides.items():
            report = time_side(command, where)
            if number:  # the first one compiles the side's own modules
                reports[side].append(report)
    if theirs is not None:
        check(reports["pat"][-1], reports["countersign"][-1])
    return _report(reports, load_before)


# --- one run -------------------------------------------------------------------------------------------------------


def time_side(command: Sequence[str], cwd: Path) -> Report:
    """Run one side as a cold process. Raises RuntimeError unless it ran tests; that some fail is a result."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PANTHER_")}
    start_s = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start_s
    report = read_report(seconds, done.stdout)
    if done.returncode not in (0, 1) or not report.tests:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}, no result:\n{done.stderr[-2000:]}")
    return report


def read_report(seconds: float, output: str) -> Report:
    """What both tools print alike: a line per test, and the counts of detections."""
    lines = _COLOUR.sub("", output).splitlines()
    tests = Counter((found[2].strip(), found[1]) for line in lines if (found := _TEST.fullmatch(line)))
    detections = {found[1]: int(found[2]) for line in lines if (found := _COUNT.fullmatch(line))}
    return Report(seconds, tests, detections)


def check(theirs: Report, ours: Report) -> None:
    """Raise RuntimeError unless every test that pat ran was run by us and came to the same."""
    lost = theirs.tests - ours.tests
    if lost:
        (name, verdict), _ = next(iter(lost.items()))
        raise RuntimeError(
            f"{lost.total()} tests of pat's are other or absent here, the first: {name!r}, {verdict} with pat"
        )


# --- what is printed -----------------------------------------------------------------------------------------------


def _report(reports: dict[str, list[Report]], load_before: tuple[float, float, float]) -> dict[str, object]:
    medians = {side: statistics.median(report.seconds for report in of_side) for side, of_side in reports.items()}
    print(f"{'':14}{'median':>10}{'tests':>8}{'failed':>8}   detections")
    for side, of_side in reports.items():
        last = of_side[-1]
        failed = sum(count for (_, verdict), count in last.tests.items() if verdict == "FAIL")
        detections = ", ".join(f"{count} {name.lower()}" for name, count in last.detections.items())
        print(f"{side:<14}{medians[side]:>8.2f} s{last.tests.total():>8,}{failed:>8,}   {detections}")
    figures: dict[str, object] = {
        side: {
            "median_s": round(medians[side], 3),
            "runs_s": [round(report.seconds, 3) for report in of_side],
            "tests": of_side[-1].tests.total(),
            "detections": of_side[-1].detections,
        }
        for side, of_side in reports.items()
    }
    if "pat" in medians:
        ratio = medians["pat"] / medians["countersign"]
        runs = len(reports["pat"])
        print(
            f"{ratio:.1f} times as fast as pat {VERSION}; cold processes, default options, in turns, runs a side: {runs}"
        )
        figures |= {"ratio": round(ratio, 2), "pat_version": VERSION}
    loads = {"before": load_before, "after": os.getloadavg()}
    print("load average " + ", ".join(f"{each[0]:.2f} {when}" for when, each in loads.items()))
    return {**figures, "load": loads}


# --- the smoke's pack ----------------------------------------------------------------------------------------------

_HELPER = """\
def region_of(event):
    return event.deep_get("place", "region", default="nowhere")
"""

_RULE = """\
from bench_places import region_of


def rule(event):
    return event.get("action") == "open" and event.get("door") == {number}


def title(event):
    return f"Door {number} opened in {{region_of(event)}}"


def alert_context(event):
    return {{"who": event.get("who"), "region": region_of(event)}}
"""

_YAML = """\
AnalysisType: rule
RuleID: Bench.Door.{number}
Enabled: true
Filename: door_{number}.py
LogTypes: [AWS.CloudTrail]
Severity: Low
Tests:
  - Name: Door {number} opened
    ExpectedResult: true
    Log: {{action: open, door: {number}, who: ann, place: {{region: north}}}}
  - Name: Door {number} closed
    ExpectedResult: false
    Log: {{action: close, door: {number}, who: bob}}
"""


def small_pack(directory: Path) -> Path:
    """Some rules with a helper and two tests each, which both tools take; returns `directory`."""
    (directory / "global_helpers").mkdir(parents=True)
    (directory / "rules").mkdir()
    (directory / "global_helpers" / "bench_places.py").write_text(_HELPER)
    (directory / "global_helpers" / "bench_places.yml").write_text(
        dedent("""\
            AnalysisType: global
            GlobalID: bench_places
            Filename: bench_places.py
            Description: Where events happened
        """)
    )
    for number in range(SMOKE_RULES):
        (directory / "rules" / f"door_{number}.py").write_text(_RULE.format(number=number))
        (directory / "rules" / f"door_{number}.yml").write_text(_YAML.format(number=number))
    return directory
