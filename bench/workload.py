"""Makes a day of log files: ordinary traffic (background.py) with attacks planted in it (stories.py).

Shaped like what is measured of real logs: half of CloudTrail's events are one principal's, the rest spread as Zipf's
law has it, with a churn of sessions seen once; minutes are quiet or busy; some 15 % of the events stand behind a later
one, by up to ten minutes; one in a hundred is there twice. The same seed gives the same bytes: of Random, only random()
and getrandbits() are drawn, which stay as they are from one Python to the next.

    python -m bench.workload DIR --events 300000 --seed 1
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from pathlib import Path
from random import Random

from bench.background import (
    ARCHIVE_ACCOUNT,
    DAY_S,
    EKS,
    CloudTrail,
    GitHub,
    GSuite,
    Okta,
    StatefulCloudTrail,
    Traffic,
    time_text,
)
from bench.stories import STORIES, Expected, Story

START_S = 1_772_409_600
"""2026-03-02T00:00:00Z"""
SPAN_S = 84_600
"""23.5 hours. The files are read one after the other, so it stays within the lateness that the engine allows (24 h)."""
ARCHIVE_AGE_S = 8 * DAY_S
"""How much older the archived CloudTrail is: more than the week that the first use of a service needs to stand out."""

DUPLICATE_SHARE = 0.01
LATE_SHARE = 0.16
LATEST_S = 600
_LINES_PER_WRITE = 4096


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file of the workload; `name` tells its format, `share` is its part of all ordinary events."""

    name: str
    log_type: str
    share: float
    traffic: Callable[[Random], Traffic]
    start_s: int = START_S

    def holds(self, log_type: str, time_s: int) -> bool:
        return log_type == self.log_type and self.start_s <= time_s < self.start_s + SPAN_S


FILES = (
    LogFile(
        "aws-cloudtrail-archive.json.gz",
        "AWS.CloudTrail",
        0.01,
        lambda random: CloudTrail(random, account=ARCHIVE_ACCOUNT, principals=2000),
        start_s=START_S - ARCHIVE_AGE_S,
    ),
    LogFile("aws-cloudtrail.jsonl", "AWS.CloudTrail", 0.80, CloudTrail),
    LogFile("okta.jsonl", "Okta.SystemLog", 0.08, Okta),
    LogFile("github.jsonl", "GitHub.Audit", 0.05, GitHub),
    LogFile("gsuite.jsonl", "GSuite.ActivityEvent", 0.03, GSuite),
    LogFile("eks.jsonl", "Amazon.EKS.Audit", 0.03, EKS),
)


@dataclass(frozen=True, slots=True)
class Planted:
    """A story's place, and the alerts that it must raise: none for one that only looks like an attack."""

    story: str
    file: str
    line: int
    """Of the story's first event in `file`, counted from 1; among Records, the number of the record."""
    time: str
    expected: tuple[Expected, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was written."""

    seed: int
    logs: Path
    """The directory that holds the log files, and nothing else."""
    events: dict[str, int]
    """By file name."""
    planted: tuple[Planted, ...]


_Line = tuple[float, str, str]
"""(arrival in seconds since 1970, the event's JSON, the story it belongs to or "")"""


def write(directory: Path, events: int, seed: int, stories: bool = True) -> Manifest:
    """Write `events` events, stories included, to `directory`/logs, and `directory`/planted.json.

    Raises ValueError when there is no room for the stories among so few events.
    """
    told = tell(seed) if stories else []
    ordinary = events - sum(len(story.steps) for story in told)
    if ordinary < 0:
        raise ValueError(f"the stories alone take {events - ordinary} events: ask for that many at least, not {events}")
    logs = directory / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    counts = _apportion(ordinary, [file.share for file in FILES])
    places: dict[str, tuple[str, int]] = {}
    written: dict[str, int] = {}
    for file, count in zip(FILES, counts, strict=True):
        random = Random(f"{seed} {file.name}")
        lines = merge(_arrivals(file.traffic(random), random, count, file.start_s), _steps_in(file, told))
        noted = _note_stories(lines, file.name, places)
        path = logs / file.name
        written[file.name] = _write_records(path, noted) if ".json." in file.name else _write_lines(path, noted)
    planted = tuple(Planted(s.name, *places[s.name], time_text(s.start_s) + "Z", s.expected) for s in told)
    manifest = Manifest(seed, logs, written, planted)
    (directory / "planted.json").write_text(_manifest_text(manifest))
    return manifest


def write_stateful(path: Path, events: int, seed: int, share: float, start_s: int = START_S) -> None:
    """Write one CloudTrail file in which `share` of the events is a denial or an AssumeRole. They alert as they may."""
    random = Random(f"{seed} stateful {share}")
    lines = _arrivals(StatefulCloudTrail(random, share), random, events, start_s)
    _write_lines(path, (line for _, line, _ in lines))


def tell(seed: int) -> list[Story]:
    """Every story once, spread over the day."""
    random = Random(f"{seed} stories")
    gap_s = SPAN_S * 0.9 / len(STORIES)
    return [story(START_S + 60 + int(number * gap_s), random) for number, story in enumerate(STORIES)]


def _arrivals(traffic: Traffic, random: Random, count: int, start_s: int) -> Iterator[_Line]:
    """Ordinary events in the order in which they arrive, which is not quite the order in which they happened."""
    chance = random.random
    gap_s = max(1.0, SPAN_S / max(count, 1))
    line = ""
    for arrival_s in _moments(random, count, start_s):
        luck = chance()
        if luck < DUPLICATE_SHARE and line:
            yield arrival_s, line, ""
            continue
        late_s = 0.0
        if luck > 1 - LATE_SHARE:
            late_s = chance() * (LATEST_S if luck > 0.99 else min(8 * gap_s, LATEST_S))
        line = traffic.line(max(start_s, int(arrival_s - late_s)))
        yield arrival_s, line, ""


def _moments(random: Random, count: int, start_s: int) -> Iterator[float]:
    """`count` rising times over the span: minutes differ in how busy they are, one in fifty is a burst."""
    minutes = [random.random() + (10 if random.random() < 0.02 else 0.3) for _ in range(SPAN_S // 60)]
    for minute, events in enumerate(_apportion(count, minutes)):
        for number in range(events):
            yield start_s + 60 * (minute + number / events)


def _apportion(total: int, weights: list[float]) -> list[int]:
    """Whole numbers in proportion to the weights, which sum to the total."""
    whole = sum(weights)
    shares, passed, given = [], 0.0, 0
    for weight in weights:
        passed += weight
        share = round(total * passed / whole) - given
        shares.append(share)
        given += share
    return shares


def _steps_in(file: LogFile, stories: Iterable[Story]) -> list[_Line]:
    lines = [
        (float(step.time_s), json.dumps(step.event, separators=(",", ":")), story.name)
        for story in stories
        for step in story.steps
        if file.holds(step.log_type, step.time_s)
    ]
    return sorted(lines, key=lambda line: line[0])  # stable: a story's events of one second keep their order


def _note_stories(lines: Iterable[_Line], file: str, places: dict[str, tuple[str, int]]) -> Iterator[str]:
    """The lines' JSON; the place of each story's first event goes into `places`."""
    for number, (_, line, story) in enumerate(lines, 1):
        if story and story not in places:
            places[story] = (file, number)
        yield line


def _write_lines(path: Path, lines: Iterator[str]) -> int:
    """Write JSON Lines; returns how many."""
    count = 0
    with path.open("wb") as file:
        while block := list(islice(lines, _LINES_PER_WRITE)):
            file.write(("\n".join(block) + "\n").encode())
            count += len(block)
    return count


def _write_records(path: Path, lines: Iterator[str]) -> int:
    """Write {"Records": [...]} as CloudTrail delivers it, compressed; returns how many."""
    records = list(lines)
    text = '{"Records":[' + ",".join(records) + "]}"
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return len(records)


def _manifest_text(manifest: Manifest) -> str:
    plain = {
        "seed": manifest.seed,
        "events": manifest.events,
        "stories": [dataclasses.asdict(planted) for planted in manifest.planted],
    }
    return json.dumps(plain, indent=1) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.workload", description="Write a day of logs with attacks.")
    parser.add_argument("directory", type=Path, help="where to write: logs/ and planted.json")
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    manifest = write(given.directory, given.events, given.seed)
    for name, count in manifest.events.items():
        print(f"{count:>9,}  {manifest.logs / name}")
    print(f"{len(manifest.planted):>9,}  stories, listed in {given.directory / 'planted.json'}")


if __name__ == "__main__":
    main()
