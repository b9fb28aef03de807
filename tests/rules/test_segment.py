"""Keys are divided so that no table is large, and tables of many keys are not full at the same time."""

from __future__ import annotations

import pytest

from rules.segment import SLOTS, segments
from rules.state import State

KEYS = 100_000


@pytest.fixture(scope="module")
def sizes() -> list[int]:
    state = State()
    for key in range(KEYS):
        state.begin()
        state.increment_counter(f"Some.Rule:user-{key}")
    return [len(segment.expiries) for segment in state._segments]


def test_no_segment_holds_more_than_a_fortieth_of_the_keys(sizes: list[int]) -> None:
    assert sum(sizes) == KEYS
    assert max(sizes) < KEYS / 40


def test_segments_are_of_all_sizes_between_one_and_its_double(sizes: list[int]) -> None:
    """A table is made anew whenever it has doubled: while all keys double, each of them once, one after the other."""
    _, slots = segments()
    shares = sorted(slots.count(segment) for segment in set(slots))

    assert sum(shares) == SLOTS
    assert shares[-1] == pytest.approx(2 * shares[0], abs=1)
    assert len(set(shares)) == shares[-1] - shares[0] + 1
    assert 1.6 < max(sizes) / min(sizes) < 2.6
