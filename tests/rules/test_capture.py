"""A capture gives what was stored when it was taken, whatever happens before it is read, and whoever reads it."""

from __future__ import annotations

import math
import random
import sys
import threading
from collections.abc import Iterator

import pytest

from rules.capture import Joint
from rules.segment import Image
from rules.state import Row, State
from rules.windows import Policy, Windows


def rows_of(capture: Joint[str, Image], step: int = 7) -> dict[str, Row]:
    """What a capture gives, read in slices."""
    found: dict[str, Row] = {}
    for keys, images in capture.slices(step):
        found |= {key: Row(key, *image) for key, image in zip(keys, images, strict=True)}
    return found


def change(state: State, chance: random.Random) -> None:
    """One of all that changes a state between snapshots."""
    key = f"k{chance.randrange(30)}"
    state.clock_s += chance.choice([0, 0, 1])
    state.begin()
    match chance.randrange(9):
        case 0 | 1:
            state.increment_counter(key, 1, chance.randrange(1, 40))
        case 2:
            state.add_to_string_set(key, str(chance.randrange(9)), 30)
        case 3:
            state.put_dictionary(key, {"n": chance.randrange(9)}, 20)
        case 4:
            state.increment_counter(key)
            state.undo()
        case 5:
            state.free(state.clock_s, 5)
        case 6:
            state.restore(Row(key, chance.randrange(99), None, None, 9_999))
        case 7:
            state.let_go([key, "unknown"])
        case 8:
            state.take_over([Row(key, None, ("x",), None, 9_999)])


@pytest.mark.parametrize("seed", range(200))
def test_a_capture_is_of_its_moment_whatever_comes_after_it(seed: int) -> None:
    chance = random.Random(seed)
    state = State()
    taken: list[tuple[Joint[str, Image], dict[str, Row]]] = []
    for _ in range(4):
        for _ in range(chance.randrange(60)):
            change(state, chance)
        if chance.random() < 0.5:
            expected = {row.key: row for row in state.rows(state.clock_s)}
            taken.append((state.capture_all(state.clock_s), expected))
        else:
            expected = {key: state.row(key) for segment in state._segments for key in segment.dirty}
            taken.append((state.capture_dirty(), expected))
    for _ in range(chance.randrange(60)):
        change(state, chance)

    assert [rows_of(capture) for capture, _ in taken] == [expected for _, expected in taken]


def test_windows_are_captured_as_they_are() -> None:
    windows = Windows()
    policy = Policy(3, 600.0, distinct=True)

    def match(dedup: str, at: int) -> None:
        windows.add(("R", dedup), policy, float(at), (0, at), str(at), lambda: b"first")

    for at in range(20):
        match(f"d{at % 7}", at)
    expected = {(row.rule_id, row.dedup): row for row in windows.rows()}
    everything, nothing = windows.capture_all(), windows.capture_dirty()
    for at in range(20, 60):
        match(f"d{at % 9}", at)
    windows.free(math.inf, 4)
    windows.give_away([("R", "d0"), ("R", "d8")])

    assert dict(zip(*next(everything.slices(100)), strict=True)) == expected
    assert len(nothing) == 0


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads that interrupt each other all the time."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before_s)


@pytest.mark.usefixtures("quick_switches")
def test_another_thread_reads_a_capture_while_every_key_of_it_changes() -> None:
    state = State()
    state.clock_s = 1.0
    for number in range(3_000):
        state.begin()
        state.increment_counter(f"k{number}", 1, 1_000)
    for generation in range(1, 6):
        expected = {row.key: row for row in state.rows(0)}
        capture = state.capture_all(0.0)
        read: list[dict[str, Row]] = []
        reader = threading.Thread(target=lambda capture=capture, read=read: read.append(rows_of(capture, 50)))
        reader.start()
        for number in range(3_000):
            state.begin()
            state.add_to_string_set(f"k{number}", f"member-{generation}", 1_000)
            state.increment_counter(f"k{number}", 1, 2_000 * generation)
        reader.join()

        assert read == [expected]
