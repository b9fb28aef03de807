"""Seconds without alerts after SIGKILL of a shard: from the kill to the first alert on an event that was made after it.

Two shards with 100,000 keys each read a stream at 30 % of what they can do, with checkpoints every 2 s. Cold means that a
process is started for the lost one; warm, that the spare takes its place. The run is driven here as `countersign run` does
it, with a watch around the runtime that notes when the loss was noticed, when the lost process was replaced, when the
checkpoint was restored, and when what had been done before was done again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.core.effects import COORDINATOR
from cluster.core.messages import Message
from cluster.environment import in_evaluation_environment
from cluster.runtime.job import JobSpec, ProcessLost, Status

NAME = "recovery"
HELP = "seconds from SIGKILL of a shard to the first new alert"

ROOT = Path(__file__).resolve().parent.parent
SHARDS = 2
KEYS, SMOKE_KEYS = 100_000, 5_000
"""Of one shard."""
LOAD = 0.3
KILLS, SMOKE_KILLS = 5, 1
CHECKPOINT_INTERVAL_S = 2.0
LIMITS_S = {"cold": 3.0, "warm": 1.5}
STEPS = ("noticed", "replaced", "restored", "replayed", "first alert")

_APART_S = {"cold": (6.0, 9.0), "warm": (35.0, 38.0)}
"""Between two kills; a spare is there some seconds after the last."""
_CHUNK_S = 0.02
_BEACON = 100
"""One event in so many raises an alert."""
_NOW = b"##########.######"

_RULE = """\
from panther_detection_helpers.caching import increment_counter

def rule(event):
    increment_counter("recovery:" + event["user"])
    return event["beacon"] == 1

def title(event):
    return str(event["t"])

def dedup(event):
    return str(event["t"]) + event["user"]
"""
_SPEC = """\
AnalysisType: rule
RuleID: Recovery.Count
Filename: count.py
Enabled: true
LogTypes: [Bench]
Severity: Low
"""
_LOG_TYPE = "LogType: Bench\nTimestamp: t\nRecognise: [{beacon: '*'}]\n"


def run(smoke: bool) -> dict[str, object]:
    """Measure both ways, print a table, return the figures. Raises RuntimeError when a run ends by itself."""
    kills = SMOKE_KILLS if smoke else KILLS
    keys = SMOKE_KEYS if smoke else KEYS
    with tempfile.TemporaryDirectory(prefix="recovery-") as temporary:
        directory = Path(temporary)
        write_pack(directory / "rules")
        capacity = 20_000.0 if smoke else _capacity(directory, keys)
        print(f"{keys:,} keys a shard, {SHARDS} shards, {capacity * LOAD:,.0f} events/s: {LOAD:.0%} of {capacity:,.0f}")
        print("seconds after SIGKILL of a shard (medians):")
        print(f"{'':6}" + "".join(f"{step:>13}" for step in STEPS) + f"{'worst':>9}{'limit':>8}")
        figures: dict[str, object] = {"keys_per_shard": keys, "events_per_s": round(capacity * LOAD)}
        for kind in LIMITS_S:
            figures[kind] = _measured(kind, directory / kind, directory / "rules", keys, capacity * LOAD, kills)
    return figures


def _measured(kind: str, directory: Path, pack: Path, keys: int, rate: float, kills: int) -> dict[str, Any]:
    directory.mkdir()
    taken = list(measure(directory, pack, keys, rate, kills, kind))
    medians = {step: statistics.median(times[step] for times in taken) for step in STEPS}
    worst = max(times["first alert"] for times in taken)
    limit = LIMITS_S[kind]
    over = "" if medians["first alert"] <= limit else "   over the limit"
    print(f"{kind:6}" + "".join(f"{medians[step]:13.2f}" for step in STEPS) + f"{worst:9.2f}{limit:8.1f}{over}")
    return {"kills": taken, "medians": medians, "limit": limit}


def write_pack(directory: Path) -> None:
    """One rule that counts per user, and raises an alert on a beacon."""
    directory.mkdir()
    (directory / "count.py").write_text(_RULE)
    (directory / "count.yml").write_text(_SPEC)
    (directory / "log_type.yml").write_text(_LOG_TYPE)


def _event(user: int, beacon: bool, time_text: str) -> str:
    return f'{{"t": {time_text}, "user": "user-{user:09d}", "beacon": {int(beacon)}, "padding": "{"x" * 200}"}}\n'


def _write_fill(path: Path, keys: int) -> None:
    """An event of every user, so that all keys are there."""
    now = f"{time.time():.6f}"
    with path.open("w") as file:
        file.writelines(_event(user, False, now) for user in range(keys * SHARDS))


def _capacity(directory: Path, keys: int) -> float:
    """Events per second of a run over a file that is there: the least of what fills the keys and what counts on."""
    path = directory / "capacity.jsonl"
    chance = random.Random(1)
    with path.open("w") as file:
        for n in range(600_000):
            file.write(_event(chance.randrange(keys * SHARDS), n % _BEACON == 0, f"{time.time():.6f}"))
    arguments = [
        sys.executable, "-m", "cluster", "run", str(path), "--rules", str(directory / "rules"), "--shards", str(SHARDS),
        "--alerts", str(directory / "capacity-alerts.jsonl"), "--checkpoint-interval", str(CHECKPOINT_INTERVAL_S),
        "--store", str(directory / "capacity-store"), "--quiet", "--json",
    ]  # fmt: skip
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode())
    return float(json.loads(done.stdout.splitlines()[-1])["events_per_s"])


# --- the side that kills ---------------------------------------------------------------------------------------------


def measure(directory: Path, pack: Path, keys: int, rate: float, kills: int, kind: str) -> Iterator[dict[str, float]]:
    """step -> seconds after the kill, for each kill. Raises RuntimeError when the run ends."""
    _write_fill(directory / "fill.jsonl", keys)
    arguments = [
        sys.executable,
        "-m",
        "bench.recovery",
        "--drive",
        str(directory),
        "--rules",
        str(pack),
        "--kind",
        kind,
    ]
    with (directory / "stderr").open("wb") as stderr:
        driver = subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stderr=stderr)
    writer = _Writer(driver, rate, keys * SHARDS)
    chance = random.Random(keys)
    alerts = _Alerts(directory / "alerts.jsonl")
    try:
        writer.start()
        _wait_for(driver, lambda: alerts.newest_s() > 0.0)
        for _ in range(kills):
            until_s = time.monotonic() + chance.uniform(*_APART_S[kind])
            while time.monotonic() < until_s:
                time.sleep(0.1)
                alerts.newest_s()
            yield _kill(driver, directory, alerts, chance)
    except _Ended:
        raise RuntimeError(f"the run ended: {(directory / 'stderr').read_text()[-2000:]}") from None
    finally:
        writer.stop()
        driver.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            driver.wait(60)
        driver.kill()
        driver.wait()
        writer.join()
        assert driver.stdin is not None
        with suppress(BrokenPipeError):  # what was not written any more
            driver.stdin.close()


class _Ended(Exception):
    """The driver is gone."""


def _kill(driver: subprocess.Popen[bytes], directory: Path, alerts: _Alerts, chance: random.Random) -> dict[str, float]:
    steps = directory / "steps.jsonl"
    seen = len(steps.read_text().splitlines())
    victim = chance.choice(json.loads((directory / "shards.json").read_text()))
    killed_s, killed_at_s = time.monotonic(), time.time()
    os.kill(victim, signal.SIGKILL)
    _wait_for(driver, lambda: alerts.newest_s() > killed_at_s)
    first_s = time.monotonic() - killed_s
    _wait_for(driver, lambda: len(steps.read_text().splitlines()) >= seen + len(STEPS) - 1)
    taken = {name: at_s - killed_s for name, at_s in map(json.loads, steps.read_text().splitlines()[seen:])}
    return {**taken, "first alert": first_s}


def _wait_for(driver: subprocess.Popen[bytes], happened: Any) -> None:
    while not happened():
        if driver.poll() is not None:
            raise _Ended
        time.sleep(0.01)


class _Alerts:
    """Reads the alerts as they are written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._newest_s = 0.0

    def newest_s(self) -> float:
        """The time of the newest event with an alert; 0 before the first."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._at)
            *lines, _ = file.read().split(b"\n")
            self._at += sum(len(line) + 1 for line in lines)
            if lines:
                self._newest_s = float(json.loads(lines[-1])["title"])
        return self._newest_s


class _Writer(threading.Thread):
    """Writes events at an even pace to the standard input of a run, each with the time at which it was made."""

    def __init__(self, driver: subprocess.Popen[bytes], rate: float, users: int) -> None:
        super().__init__(daemon=True)
        self._driver = driver
        self._stopped = threading.Event()
        chance = random.Random(2)
        size = max(_BEACON, int(rate * _CHUNK_S))
        self._pace_s = size / rate
        self._chunks = [
            "".join(_event(chance.randrange(users), n % _BEACON == 0, _NOW.decode()) for n in range(size)).encode()
            for _ in range(20)
        ]

    def run(self) -> None:
        pipe = self._driver.stdin
        assert pipe is not None
        next_s = time.monotonic()
        number = 0
        with suppress(BrokenPipeError):
            while not self._stopped.is_set():
                time.sleep(max(0.0, next_s - time.monotonic()))
                next_s = max(next_s + self._pace_s, time.monotonic() - 1.0)
                now = f"{time.time():.6f}".encode()
                pipe.write(self._chunks[number % len(self._chunks)].replace(_NOW, now))
                pipe.flush()
                number += 1

    def stop(self) -> None:
        self._stopped.set()


# --- the side that runs ----------------------------------------------------------------------------------------------


class _Watched:
    """A runtime, and a file of when it came through what after a loss."""

    waits = True

    def __init__(self, runtime: Any, path: Path) -> None:
        self._runtime = runtime
        self._path = path
        self._events = 0
        self._expected: list[str] = []
        self._tell_shards()

    def poll(self, timeout_s: float) -> Status:
        try:
            status: Status = self._runtime.poll(timeout_s)
        except ProcessLost:
            self._note("noticed")
            self._expected = ["replaced", "restored", "replayed"]
            raise
        if self._expected[:1] == ["restored"] and status.phase.value == "running":
            self._note(self._expected.pop(0))
        if self._expected[:1] == ["replayed"] and status.totals.counts.events >= self._events:
            self._note(self._expected.pop(0))
        if not self._expected:
            self._events = status.totals.counts.events
        return status

    def restart(self, spec: JobSpec) -> _Watched:
        self._runtime = self._runtime.restart(spec)
        self._note(self._expected.pop(0))
        self._tell_shards()
        return self

    def abandon(self) -> None:
        self._runtime.abandon()

    def send(self, message: Message) -> None:
        self._runtime.send(message)

    def close(self) -> None:
        self._runtime.close()

    def _tell_shards(self) -> None:
        pids = [pid for who, pid in self._runtime.pids().items() if who != COORDINATOR]
        self._path.with_name("shards.json").write_text(json.dumps(pids))

    def _note(self, step: str) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps([step, time.monotonic()]) + "\n")


def _drive(directory: Path, pack: Path, kind: str) -> int:
    """What `countersign run fill.jsonl -` does, watched."""
    from cluster.config import from_environment
    from cluster.display import Display
    from cluster.run import Options
    from cluster.run import run as drive
    from cluster.runtime import ray as on_ray

    if kind == "cold":
        on_ray.SPARE_AFTER_S = math.inf
    steps = directory / "steps.jsonl"
    steps.touch()

    def start(spec: JobSpec) -> Any:
        on_ray.start_ray(None)
        return _Watched(on_ray.RayRuntime(spec), steps)

    outputs = {"alerts": str(directory / "alerts.jsonl")}
    options = Options(
        [str(directory / "fill.jsonl"), "-"],
        [pack],
        log_type="Bench",
        shards=SHARDS,
        store=str(directory / "store"),
        job="recovery",
        outputs=outputs,
        checkpoint_interval_s=CHECKPOINT_INTERVAL_S,
    )
    config = replace(from_environment(os.environ), alert_limit=0)
    return drive(options, config, start, Display(outputs, live=False, human_alerts=None)).exit_code


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.recovery", description="the run that bench recovery kills")
    parser.add_argument("--drive", type=Path, required=True)
    parser.add_argument("--rules", type=Path, required=True)
    parser.add_argument("--kind", choices=LIMITS_S, required=True)
    given = parser.parse_args()
    in_evaluation_environment()
    return _drive(given.drive, given.rules, given.kind)


if __name__ == "__main__":
    sys.exit(main())
