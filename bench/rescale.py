"""How long key groups stand still while a running job on Ray goes from 1 to 2, 4 and back to 2 shards, with a million keys.

A group that moves stands still from the end of the last epoch on its old shard until the first one begins on its new shard; what
does not move, between two epochs on its own shard, as it does when nobody rescales. So of that the longest is told less the
longest when nobody does, for about as long as a rescale takes, checkpoints included; that, and how long an epoch takes, with as
many shards as before or after, whichever is longer. The shards tell it themselves, by the clock that all processes of a machine
share. The load is a share of what the job took in while it got its keys, through standard input at an even pace. What is longest
is one pause of hundreds: all figures are medians of several jobs.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.harness import Row, print_rows
from cluster import run as running
from cluster.config import Config
from cluster.core.messages import Moves
from cluster.display import Display
from cluster.runtime.job import JobSpec, Status
from cluster.runtime.ray import RayRuntime, start_ray

NAME = "rescale"
HELP = "how long key groups stand still while a job goes from 1 to 2, 4 and 2 shards"

ROUNDS = 3
PLAN = (2, 4, 2)
KEYS, SMOKE_KEYS = 1_000_000, 20_000
LOAD = 0.3
GOAL_MS = 250.0

_APART_S, _SMOKE_APART_S = 15.0, 0.2
"""Before the first rescale, and between two."""
_CHUNK_S = 0.02
_CHUNKS = 50
_POLL_S = 0.02

_RULE = """\
from panther_detection_helpers.caching import increment_counter

def rule(event):
    return increment_counter("seen:" + event["id"]) % 1000 == 0
"""
_SPEC = """\
AnalysisType: rule
RuleID: Seen
Filename: Seen.py
Enabled: true
LogTypes: [Own.Log]
Severity: Low
"""


@dataclass(slots=True)
class _Step:
    """One rescale."""

    before: int
    after: int
    began_s: float
    seconds: float = 0.0
    epochs: int = 0
    moves: list[Moves] = field(default_factory=list)

    @property
    def label(self) -> str:
        return f"{self.before} -> {self.after} shards"

    def figures(self) -> dict[str, Any]:
        arrivals = [move for move in self.moves if move.groups]
        return {
            "before": self.before,
            "after": self.after,
            "seconds": self.seconds,
            "epochs": self.epochs,
            "groups": sum(move.groups for move in arrivals),
            "keys": sum(move.keys for move in arrivals),
            "moving_ms": _spread(move.moving_s for move in arrivals),
            "staying_ms": _spread(move.staying_s for move in self.moves),
        }


def _spread(seconds: Iterator[float]) -> dict[str, float]:
    given = sorted(seconds) or [0.0]
    picked = {"median": statistics.median(given), "p99": given[len(given) * 99 // 100], "longest": given[-1]}
    return {name: each * 1000 for name, each in picked.items()}


def _median(rounds: list[Any]) -> Any:
    """Of figures that several jobs gave, each by itself."""
    if isinstance(rounds[0], dict):
        return {name: _median([each[name] for each in rounds]) for name in rounds[0]}
    return round(statistics.median(rounds), 1)


def _told(spread: dict[str, float]) -> str:
    return f"{spread['median']} ms in the median, {spread['p99']} at p99, {spread['longest']} at most"


class _Load(threading.Thread):
    """Writes events of random keys at an even pace to a pipe, whose other end is the standard input of the run."""

    def __init__(self, keys: int) -> None:
        super().__init__(daemon=True)
        self.output, self._input = os.pipe()
        self._keys = keys
        self._rate = 0.0
        self._stopped = threading.Event()
        os.write(self._input, _event(0))  # a run starts with the first line that it is sent

    def begin(self, rate: float) -> None:
        self._rate = rate
        self.start()

    def run(self) -> None:
        rng = random.Random(1)
        size = max(1, int(self._rate * _CHUNK_S))
        chunks = [b"".join(_event(rng.randrange(self._keys)) for _ in range(size)) for _ in range(_CHUNKS)]
        next_s, number = time.monotonic(), 0
        with suppress(BrokenPipeError):
            while not self._stopped.is_set():
                time.sleep(max(0.0, next_s - time.monotonic()))
                next_s = max(next_s + size / self._rate, time.monotonic() - 1.0)
                os.write(self._input, chunks[number % _CHUNKS])
                number += 1

    def close(self) -> None:
        """The end of the input. May be called again."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        if self.ident is not None:
            self.join()
        os.close(self._input)


class _Rescaling:
    """RayRuntime that has the load begin and goes through PLAN once all keys are there, and then ends the load."""

    waits = False
    """It looks more often than the run asks."""

    def __init__(self, spec: JobSpec, keys: int, load: _Load, apart_s: float) -> None:
        self._runtime = RayRuntime(spec)
        self._keys = keys
        self._load = load
        self._apart_s = apart_s
        self._plan = list(PLAN)
        self._began_s = time.monotonic()
        self._quiet_until_s = 0.0
        self._quiet: tuple[float, int] | None = None
        """When it was last seen that nothing is rescaled, and the epochs until then."""
        self._epochs = 0
        self.rate = 0.0
        self.steps: list[_Step] = []
        self.epoch_s: dict[int, float] = {}
        """Number of shards -> the mean length of an epoch between two rescales, under load."""
        self.usual: dict[int, list[Moves]] = {}
        """Number of shards -> the same between two rescales, under load."""

    def poll(self, timeout_s: float) -> Status:
        status: Status = self._runtime.poll(min(timeout_s, _POLL_S))
        now_s, epochs = time.monotonic(), status.totals.epochs
        step = self.steps[-1] if self.steps and not self.steps[-1].seconds else None
        if step is not None:
            step.moves += status.moves
            step.epochs += epochs - self._epochs
            if not status.rescaling and status.shards == step.after:
                step.seconds = now_s - step.began_s
                self._rest(now_s, epochs)
        elif not self.rate:
            if status.keys >= self._keys:
                self.rate = LOAD * self._keys / (now_s - self._began_s)
                self._load.begin(self.rate)
                self._rest(now_s, epochs)
        elif self._quiet is not None and now_s < self._quiet_until_s:
            if now_s >= self._quiet[0] + self._apart_s / 3:  # the load has begun, or what was rescaled has settled
                self.usual.setdefault(status.shards, []).extend(status.moves)
        elif self._quiet is not None and now_s >= self._quiet_until_s and epochs > self._quiet[1]:
            since_s, before = self._quiet
            self._quiet = None
            self.epoch_s[status.shards] = (now_s - since_s) / max(1, epochs - before)
            self._next(status.shards, now_s)
        self._epochs = epochs
        return status

    def _rest(self, now_s: float, epochs: int) -> None:
        self._quiet_until_s = now_s + self._apart_s
        self._quiet = now_s, epochs

    def _next(self, shards: int, now_s: float) -> None:
        if self._plan:
            self.steps.append(_Step(shards, self._plan.pop(0), now_s))
            self._runtime.rescale(self.steps[-1].after)
        else:
            self._load.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)


def run(smoke: bool) -> dict[str, object]:
    """Measure, print a table, return the figures. Raises RuntimeError when a run ends before the last rescale has."""
    keys = SMOKE_KEYS if smoke else KEYS
    load_before = os.getloadavg()
    rounds = [_figures(_play(keys, _SMOKE_APART_S if smoke else _APART_S)) for _ in range(1 if smoke else ROUNDS)]
    figures = _median(rounds)
    usual_ms, epoch_ms = figures["usual_ms"], figures["epoch_ms"]
    print(f"{keys:,} keys, {figures['events_per_s']:,.0f} events/s: {LOAD:.0%} of what one shard took in; jobs: {len(rounds)}")
    rows = [row for label, step in figures["steps"].items() for row in _rows(label, step, usual_ms, epoch_ms)]
    print_rows(rows)
    for label, step in figures["steps"].items():
        print(
            f"{label}: {step['groups']:.0f} groups with {step['keys']:,.0f} keys in {step['epochs']:.0f} epochs, "
            f"{step['seconds']} s; what stays pauses for {_told(step['staying_ms'])}"
        )
    for shards, spread in usual_ms.items():
        print(f"{shards} shards when nobody rescales: {_told(spread)} between two epochs, of {epoch_ms[shards]} ms each")
    return {"keys": keys, **figures, "load_before": load_before, "rounds": rounds, "rows": [row.plain() for row in rows]}


def _figures(runtime: _Rescaling) -> dict[str, Any]:
    """What one job gave."""
    if len(runtime.steps) < len(PLAN) or not runtime.steps[-1].seconds:
        raise RuntimeError("the run was over before the last rescale")
    return {
        "events_per_s": runtime.rate,
        "epoch_ms": {str(n): seconds * 1000 for n, seconds in runtime.epoch_s.items()},
        "usual_ms": {str(n): _spread(move.staying_s for move in moves) for n, moves in runtime.usual.items()},
        "steps": {step.label: step.figures() for step in runtime.steps},
    }


def _play(keys: int, apart_s: float) -> _Rescaling:
    started: list[_Rescaling] = []
    load = _Load(keys)

    def start(spec: JobSpec) -> Any:
        start_ray(None)
        started.append(_Rescaling(spec, keys, load, apart_s))
        return started[-1]

    before = sys.stdin
    with tempfile.TemporaryDirectory(prefix="rescale-") as temporary, open(load.output, "rb", buffering=0) as source:
        directory = Path(temporary)
        _write(directory, keys)
        options = running.Options([str(directory / "all.jsonl"), "-"], [directory / "rules"], shards=1)
        options.store, options.job = str(directory / "store"), "rescale"
        options.outputs = {kind: str(directory / f"{kind}.jsonl") for kind in ("matches", "alerts")}
        display = Display(options.outputs, live=False, human_alerts=None, quiet=True)
        sys.stdin = SimpleNamespace(buffer=source)
        try:
            running.run(options, Config(), start, display)
        finally:
            sys.stdin = before
            load.close()
    return started[0]


def _rows(
    label: str, step: dict[str, Any], usual_ms: dict[str, dict[str, float]], epoch_ms: dict[str, float]
) -> Iterator[Row]:
    numbers = (f"{step['before']:.0f}", f"{step['after']:.0f}")
    usually_ms = max((usual_ms[n]["longest"] for n in numbers if n in usual_ms), default=0.0)
    added_ms = max(0.0, step["staying_ms"]["longest"] - usually_ms)
    goal_ms = max(epoch_ms[n] for n in numbers if n in epoch_ms)
    moving_ms = step["moving_ms"]["longest"]
    yield Row(label, "longest pause of a group that moves", moving_ms, "ms", GOAL_MS, GOAL_MS, lower_is_better=True)
    yield Row(
        label,
        "what it adds to the longest pause of one that stays, against an epoch",
        added_ms,
        "ms",
        goal_ms,
        goal_ms,
        lower_is_better=True,
    )


def _write(directory: Path, keys: int) -> None:
    """The rule, and a log in which every key comes once."""
    (directory / "rules").mkdir()
    (directory / "rules" / "Seen.py").write_text(_RULE)
    (directory / "rules" / "Seen.yml").write_text(_SPEC)
    with (directory / "all.jsonl").open("wb") as file:
        file.writelines(_event(key * 7919 % keys) for key in range(keys))


def _event(key: int) -> bytes:
    return b'{"p_log_type":"Own.Log","p_event_time":"2024-05-01T00:00:00Z","id":"user-%07d"}\n' % key
