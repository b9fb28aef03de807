"""Matches become alerts once per window, in event time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.windows import Placed, Policy, Windows

KEY = ("Some.Rule", "alice")
HOUR = Policy(threshold=1, period_s=3600.0, distinct=False)


@pytest.fixture
def windows():  # type: ignore[no-untyped-def]
    made = Windows()
    yield made
    made.validate()


def add(windows: Windows, clock_s: float, policy: Policy = HOUR, unique: str | None = None, offset: int = 0) -> Placed:
    return windows.add(KEY, policy, clock_s, (0, offset or int(clock_s)), unique, lambda: b"first at %d" % clock_s)


def test_the_first_match_raises_and_later_ones_join(windows: Windows) -> None:
    first, second = add(windows, 0.0), add(windows, 10.0)

    assert (first.raised, second.raised) == (True, False)
    assert first.alert_id == second.alert_id


def test_a_match_at_the_very_end_still_joins_and_the_next_opens_a_new_window(windows: Windows) -> None:
    first, last, new = add(windows, 0.0), add(windows, 3600.0), add(windows, 3600.5)

    assert last.alert_id == first.alert_id
    assert new.raised
    assert new.alert_id != first.alert_id


def test_an_earlier_clock_joins_the_open_window(windows: Windows) -> None:
    assert add(windows, 1000.0).alert_id == add(windows, 10.0).alert_id


def test_the_window_is_fixed_at_its_first_match_not_sliding(windows: Windows) -> None:
    minutes = [7, 36, 42, 66, 67.1]

    assert [add(windows, minute * 60).raised for minute in minutes] == [True, False, False, False, True]


def test_the_alert_is_raised_when_the_threshold_is_reached_with_the_first_match_s_facts(windows: Windows) -> None:
    policy = Policy(3, 3600.0, False)
    placed = [add(windows, at, policy) for at in (5.0, 6.0, 7.0, 8.0)]

    assert [p.raised for p in placed] == [False, False, True, False]
    assert [p.matches for p in placed] == [1, 2, 3, 4]
    assert placed[2].first == b"first at 5"


def test_unique_values_are_counted_once_and_none_not_at_all(windows: Windows) -> None:
    policy = Policy(2, 3600.0, True)
    values = ["a", "a", None, "b", "c"]

    assert [add(windows, float(at), policy, value).raised for at, value in enumerate(values)] == [
        False, False, False, True, False,
    ]  # fmt: skip


def test_an_alert_is_named_by_rule_dedup_and_first_position() -> None:
    one, same, other = Windows(), Windows(), Windows()

    assert add(one, 5.0, offset=77).alert_id == add(same, 9.0, offset=77).alert_id
    assert add(other, 5.0, offset=78).alert_id != add(Windows(), 5.0, offset=77).alert_id


def test_windows_are_freed_when_the_horizon_passed_their_end(windows: Windows) -> None:
    add(windows, 0.0)

    assert windows.free(3600.0, 10) == 0
    assert windows.free(3600.5, 10) == 1
    assert len(windows) == 0
    assert next(windows.capture_dirty().slices(1))[1][0].opened_s is None


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 9000), st.sampled_from(["x", "y", "z", None])), max_size=30),
    st.integers(0, 30),
    st.integers(1, 4),
    st.booleans(),
)
def test_a_restored_snapshot_goes_on_as_if_nothing_had_happened(
    matches: list[tuple[str, float, str | None]], cut: int, threshold: int, distinct: bool
) -> None:
    policy = Policy(threshold, 600.0, distinct)

    def play(windows: Windows, part: list[tuple[int, tuple[str, float, str | None]]]) -> list[Placed]:
        return [
            windows.add(("R", dedup), policy, clock_s, (0, at), unique, lambda at=at: b"%d" % at)  # type: ignore[misc]
            for at, (dedup, clock_s, unique) in part
        ]

    numbered = list(enumerate(matches))
    whole = play(Windows(), numbered)
    before, after = Windows(), Windows()
    first_half = play(before, numbered[:cut])
    for _, rows in before.capture_dirty().slices(30):
        for row in rows:
            after.restore(row)
    after.validate()

    assert first_half + play(after, numbered[cut:]) == whole


@given(
    st.lists(
        st.sampled_from(["take", "settle", "free", "back to what was taken", "back to what is settled"])
        | st.tuples(st.sampled_from("ab"), st.floats(0, 9000), st.sampled_from(["x", "y", None])),
        max_size=40,
    ),
    st.integers(1, 4),
    st.booleans(),
)
def test_rolled_back_windows_are_those_that_were_there(
    steps: list[str | tuple[str, float, str | None]], threshold: int, distinct: bool
) -> None:
    windows, policy = Windows(), Policy(threshold, 600.0, distinct)
    taken = settled = rows = sorted(windows.rows())
    for at, step in enumerate(steps):
        match step:
            case "take":
                windows.capture_dirty()
                taken = sorted(windows.rows())
            case "settle":
                windows.settle()
                settled = taken
            case "free":
                windows.free(3000.0, 1)
            case "back to what was taken" | "back to what is settled":
                rows = settled if step == "back to what is settled" else taken
                windows.roll_back(step == "back to what is settled")
                taken = settled = rows
                assert sorted(windows.rows()) == rows
                assert len(windows.capture_dirty()) == 0
            case (dedup, clock_s, unique):
                windows.add(("R", dedup), policy, clock_s, (0, at), unique, lambda at=at: b"%d" % at)  # type: ignore[misc]
        windows.validate()
