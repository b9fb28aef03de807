"""W is the same at every position whatever the cuts, and one corrupt date moves nothing."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cluster.core.watermark import NEVER_S, SliceClock, Watermark

EVENTS = st.lists(st.tuples(st.booleans(), st.floats(0, 1e6)), max_size=40)


def sequential(events: list[tuple[bool, float]]) -> list[float]:
    """W before each event, by the definition."""
    active: list[float] = []
    result = []
    for is_active, time_s in events:
        result.append(max([NEVER_S, *map(min, active, active[1:])]))
        if is_active:
            active.append(time_s)
    return result


def by_slices(events: list[tuple[bool, float]], cuts: list[int]) -> tuple[list[float], Watermark]:
    bounds = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    watermark = Watermark()
    result = []
    for start, stop in pairwise(bounds):
        clock = SliceClock()
        local = []
        for index, (is_active, time_s) in enumerate(events[start:stop]):
            local.append(clock.local_w_s)
            if is_active:
                clock.activate(index, time_s)
        times = clock.times()
        w_before = watermark.clock(times, 0.0)
        result += [w_before(index, local_w_s, NEVER_S) for index, local_w_s in enumerate(local)]
        watermark = watermark.after(times)
    return result, watermark


@given(EVENTS, st.lists(st.integers(0, 40), max_size=8))
def test_w_does_not_depend_on_cuts(events: list[tuple[bool, float]], cuts: list[int]) -> None:
    assert by_slices(events, cuts)[0] == sequential(events)


@given(EVENTS, st.lists(st.integers(0, 40), max_size=8), st.lists(st.integers(0, 40), max_size=8))
def test_the_watermark_at_the_end_does_not_depend_on_cuts(
    events: list[tuple[bool, float]], cuts: list[int], others: list[int]
) -> None:
    assert by_slices(events, cuts)[1] == by_slices(events, others)[1]


def test_one_corrupt_date_moves_nothing() -> None:
    events = [(True, 100.0), (True, 4e9), (True, 101.0), (True, 102.0)]

    assert by_slices(events, [])[1].w_s == 101.0


def test_two_neighbours_that_agree_move_w() -> None:
    assert by_slices([(True, 100.0), (True, 200.0), (True, 300.0)], [1, 2])[0] == [NEVER_S, NEVER_S, 100.0]


def test_inactive_events_move_nothing() -> None:
    assert by_slices([(False, 500.0), (True, 100.0), (False, 900.0), (True, 110.0)], [2])[1] == Watermark(100.0, 110.0)
