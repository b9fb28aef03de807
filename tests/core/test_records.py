"""What records say of times is what datetime says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.records import time_text
from rules.times import LATEST_S, parse_time


@given(st.integers(0, int(LATEST_S) - 1) | st.floats(0, LATEST_S - 1))
def test_a_time_is_told_to_the_microsecond_and_can_be_read_again(time_s: float) -> None:
    assert time_text(time_s) == datetime.fromtimestamp(time_s, UTC).isoformat().replace("+00:00", "Z")
    assert parse_time(time_text(time_s)) == pytest.approx(time_s, abs=2e-6)


@pytest.mark.parametrize(
    ("time_s", "text"),
    [
        (0.0, "1970-01-01T00:00:00Z"),
        (1772442059.0, "2026-03-02T09:00:59Z"),
        (1772442060.5, "2026-03-02T09:01:00.500000Z"),
        (-1.0, "1969-12-31T23:59:59Z"),
    ],
)
def test_whole_seconds_have_no_fraction(time_s: float, text: str) -> None:
    assert time_text(time_s) == text
