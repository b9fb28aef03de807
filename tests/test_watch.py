"""The watch ends what hangs and what takes too long for one evaluation, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from cluster.core.poison import Hang
from cluster.watch import LOOK_EVERY_S, SILENCE_S, Ended, Watch
from tests.commands import ROOT

HEAD = """
import re, sys, time
from cluster.core.poison import FINAL, NOTHING, OFFSET, ORDINAL, PARTITION, RUN, SUB, begin_run
from cluster.watch import Slot

slot = Slot()
cells = slot.cells
print(slot.path, flush=True)

def evaluating(ordinal, offset):
    cells[OFFSET], cells[ORDINAL] = offset, ordinal

begin_run(cells, 3, final=True)
"""

IDLE = "time.sleep(60)"
SLEEPING_RULE = "evaluating(7, 1234)\ntime.sleep(60)"
RUNAWAY_EXPRESSION = 'evaluating(7, 1234)\nre.match(r"(a+)+$", "a" * 60 + "b")'
MANY_EVALUATIONS = "while True:\n    for n in range(1000):\n        evaluating(n % 3, n)\n        time.sleep(0.001)"

Start = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process with a slot that then does what it is told."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(body: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", HEAD + body], cwd=ROOT, stdout=subprocess.PIPE)
        started.append(process)
        return process

    yield begin
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def watch_of(process: subprocess.Popen[bytes], limit_s: float = 60.0) -> Watch:
    assert process.stdout is not None
    watch = Watch(limit_s)
    watch.add("it", process.stdout.readline().decode().strip())
    return watch


def ended(watch: Watch, within_s: float) -> list[Ended]:
    """What the watch ends, looking as often as it is meant to."""
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        found = watch.look()
        if found:
            return found
        time.sleep(LOOK_EVERY_S)
    return []


@pytest.mark.parametrize("body", [IDLE, SLEEPING_RULE, RUNAWAY_EXPRESSION])
def test_a_stopped_process_is_ended_within_three_seconds(body: str, start: Start) -> None:
    process = start(body)
    watch = watch_of(process)
    assert ended(watch, 0.5) == []
    os.kill(process.pid, signal.SIGSTOP)

    assert ended(watch, 3.0) == [Ended("it", None)]
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("body", [SLEEPING_RULE, RUNAWAY_EXPRESSION])
def test_an_evaluation_over_the_limit_is_ended_and_told(body: str, start: Start) -> None:
    process = start(body)

    assert ended(watch_of(process, 1.0), 10.0) == [Ended("it", Hang((3, 1234, 0), 7, True, 1.0))]
    assert process.wait() == -signal.SIGKILL


def test_an_expression_that_silences_the_beats_is_not_hung_while_it_works(start: Start) -> None:
    process = start(RUNAWAY_EXPRESSION)

    assert ended(watch_of(process), SILENCE_S + 1.5) == []
    assert process.poll() is None


def test_many_evaluations_may_take_longer_than_one(start: Start) -> None:
    process = start(MANY_EVALUATIONS)

    assert ended(watch_of(process, 2.0), 4.0) == []
    assert process.poll() is None


def test_a_process_that_waits_for_work_lives(start: Start) -> None:
    process = start(IDLE)

    assert ended(watch_of(process, 0.5), SILENCE_S + 1.0) == []


def test_time_in_which_nobody_looked_does_not_count(start: Start) -> None:
    process = start(SLEEPING_RULE)
    watch = watch_of(process, 1.5)
    watch.look()
    time.sleep(2.0)

    assert watch.look() == []
    assert ended(watch, 10.0) != []


def test_a_process_that_is_gone_is_not_reported(start: Start) -> None:
    process = start(SLEEPING_RULE)
    watch = watch_of(process, 0.3)
    process.kill()
    process.wait()

    assert ended(watch, 1.0) == []


def test_a_killed_process_leaves_no_slot_behind_and_needs_no_watching(start: Start) -> None:
    process = start(SLEEPING_RULE)
    assert process.stdout is not None
    path = process.stdout.readline().decode().strip()
    assert os.path.exists(path)
    process.kill()
    process.wait()

    assert not os.path.exists(path)
    watch = Watch(0.3)
    watch.add("it", path)
    assert ended(watch, 1.0) == []
