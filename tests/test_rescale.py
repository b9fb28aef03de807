"""A job that goes to other numbers of shards while it runs gives what it gives on one shard."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import run as running
from cluster.config import Config
from cluster.display import Display
from cluster.runtime.job import JobSpec, Status
from cluster.runtime.local import LocalRuntime
from cluster.stores import open_store
from tests.commands import write_rule

RULES = {
    "Count": 'return increment_counter("count:" + event["user"], 1, 100000) % 5 == 0',
    "Seen": (
        'new = event["user"] not in get_string_set("seen:" + event["host"])\n'
        '    add_to_string_set("seen:" + event["host"], event["user"])\n    return new'
    ),
    "Pair": 'return increment_counter("pair:" + event["user"]) == increment_counter("pair:" + event["host"])',
    "Plain": 'return event["n"] % 3 == 0',
}
OUTPUTS = ("matches", "alerts", "errors")


class Rescaling:
    """A runtime that goes through `plan`. While it is on each of its steps, and after the last, it lets more input in."""

    def __init__(self, runtime: Any, plan: list[int], more: threading.Semaphore) -> None:
        self._runtime = runtime
        self._plan = plan
        self._more = more
        self._until = 0
        self._over = not plan
        self.seen: list[int] = []

    def poll(self, timeout_s: float) -> Status:
        status: Status = self._runtime.poll(timeout_s)
        if status.shards not in self.seen[-1:]:
            self.seen.append(status.shards)
        if self._plan and not status.rescaling and status.totals.counts.events > self._until:
            self._until = status.totals.counts.events
            self._runtime.rescale(self._plan.pop(0))
            self._more.release()
        elif not self._plan and not status.rescaling and not self._over:
            self._over = True
            self._more.release()
        return status

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)


def write_rules(directory: Path) -> None:
    directory.mkdir()
    for rule_id, body in RULES.items():
        source = f"def rule(event):\n    {body}\n\ndef title(event):\n    return event['user']\n"
        write_rule(directory, rule_id, source, "Threshold: 3\nDedupPeriodMinutes: 10\n")


def write_events(count: int) -> list[bytes]:
    rng = random.Random(4)
    return [
        json.dumps(
            {
                "p_log_type": "Own.Log",
                "p_event_time": f"2024-05-01T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}Z",
                "user": f"u{rng.randrange(400)}",
                "host": f"h{rng.randrange(50)}",
                "n": n,
            }
        ).encode()
        + b"\n"
        for n in range(count)
    ]


class Unlucky(Rescaling):
    """Loses a shard while others join: before these have a place, or after that."""

    placed = False

    def poll(self, timeout_s: float) -> Status:
        plan, pid = list(self._plan), self._runtime.pids()[0]
        status = super().poll(timeout_s)
        if self._plan != plan:
            self.wanted = plan[0]
            while self.placed and self.wanted - 1 not in self._runtime._nodes:
                self._runtime._go_on()
            os.kill(pid, signal.SIGKILL)
            while True:  # until the loss is noticed
                self._runtime._ping()
        return status

    def restart(self, spec: JobSpec) -> Unlucky:
        self._runtime.restart(replace(spec, shards=self.wanted))  # as a run does that is asked for a rescale
        return self


def play(
    directory: Path,
    start: Any,
    shards: int,
    plan: list[int],
    monkeypatch: pytest.MonkeyPatch,
    rescaling: type[Rescaling] = Rescaling,
) -> tuple[dict[str, Any], list[Any], list[int]]:
    """A run with the events on standard input: (its summary, the keys that it leaves, the numbers of shards on the way)."""
    directory.mkdir()
    write_rules(directory / "rules")
    events = write_events(6000)
    reading, writing = os.pipe()
    parts = len(plan) + 2
    more = threading.Semaphore(1 if plan else parts)
    runtimes: list[Rescaling] = []

    def feed() -> None:
        with os.fdopen(writing, "wb") as pipe:
            for part in range(parts):
                more.acquire()
                pipe.writelines(events[part * len(events) // parts : (part + 1) * len(events) // parts])
                pipe.flush()

    def started(spec: JobSpec) -> Rescaling:
        runtimes.append(rescaling(start(spec), plan, more))
        return runtimes[-1]

    options = running.Options(["-"], [directory / "rules"], shards=shards, store=str(directory / "store"), job="j")
    options.outputs = {kind: str(directory / f"{kind}.jsonl") for kind in OUTPUTS}
    options.epoch_events, options.checkpoint_interval_s = 200, 0.2
    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    with os.fdopen(reading) as pipe, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", pipe)
        display = Display(options.outputs, live=False, human_alerts=None, quiet=True)
        summary = running.run(options, Config(), started, display)
    _, rows = running.state_rows(open_store(options.store), "j", print)
    assert summary.exit_code == 0, summary
    return summary.record, rows, runtimes[-1].seen


def compare(
    tmp_path: Path, start: Any, plan: list[int], monkeypatch: pytest.MonkeyPatch, rescaling: type[Rescaling] = Rescaling
) -> dict[str, Any]:
    """The summary of a run that goes through the plan, and gives what one on one shard does."""
    _, expected, _ = play(tmp_path / "one", LocalRuntime, 1, [], monkeypatch)
    summary, rows, seen = play(tmp_path / "rescaled", start, 1, list(plan), monkeypatch, rescaling)

    assert seen == [1, *plan]
    assert summary["shards"] == plan[-1]
    for kind in OUTPUTS:
        ours, theirs = ((tmp_path / name / f"{kind}.jsonl").read_bytes() for name in ("one", "rescaled"))
        assert ours == theirs, f"{kind} differ"
    assert rows == expected
    assert len(rows) > 400
    return summary


def test_the_local_runtime_rescales_up_and_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(tmp_path, LocalRuntime, [3, 2, 4], monkeypatch)


@pytest.mark.ray
def test_a_job_on_ray_rescales_up_and_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster.runtime.ray import RayRuntime, start_ray

    start_ray(None)
    compare(tmp_path, RayRuntime, [3, 2, 4], monkeypatch)


@pytest.mark.ray
@pytest.mark.parametrize("placed", [False, True])
def test_a_shard_that_is_lost_while_others_join_is_replaced(
    placed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Those that were on their way in had no place yet, and the next life took them for known."""
    from cluster.runtime.ray import RayRuntime, start_ray

    start_ray(None)
    monkeypatch.setattr(Unlucky, "placed", placed)
    summary = compare(tmp_path, RayRuntime, [3], monkeypatch, Unlucky)

    assert summary["restarts"] == 1
    assert "Traceback" not in capfd.readouterr().err
