from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.times import BadTime, format_time, parse_time

JULY_10 = datetime(2023, 7, 10, 11, 42, 18, tzinfo=UTC).timestamp()

MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(2200, 12, 30))
OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@pytest.mark.parametrize(
    "text",
    [
        "2023-07-10T11:42:18Z",
        "2023-07-10t11:42:18z",
        "2023-07-10 11:42:18",
        "2023-07-10 11:42:18.000000000",
        "2023-07-10 11:42:18 UTC",
        "2023-07-10 11:42:18 (UTC)",
        "2023-07-10T13:42:18+02:00",
        "2023-07-10T13:42:18.000+0200",
        "2023-07-10 04:42:18.0 -0700",
        " 2023-07-10T11:42:18Z ",
        "1688989338",
        "1688989338000",
        1688989338,
        1688989338.0,
        1688989338000,
        1688989338000000,
        1688989338000000000,
    ],
    ids=repr,
)
def test_the_shapes_of_real_logs_are_read(text: object) -> None:
    assert parse_time(text) == JULY_10


@pytest.mark.parametrize(
    ("value", "microseconds"),
    [
        ("2022-11-29 00:09:04.38", 380_000),
        ("2020-05-15T04:28:42.237027213Z", 237_027),
        ("2025-01-15T14:20:35.4567890Z", 456_789),
        (1688989338123456789, 123_456),
        (1688989338.123457, 123_457),
        (1688989338123, 123_000),
        ("1688989338.5", 500_000),
    ],
)
def test_a_time_is_cut_to_the_microsecond(value: object, microseconds: int) -> None:
    assert round(parse_time(value) * 1e6) % 10**6 == microseconds


@given(MOMENTS, st.sampled_from(["Z", "z", "+00:00", ".0Z", " Z"]))
def test_every_way_to_write_utc_gives_the_same_time(moment: datetime, zone: str) -> None:
    whole = moment.replace(microsecond=0)

    assert parse_time(whole.isoformat() + zone) == whole.replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize("text", ["   2023-07-10T11:42Z", "\n  2023-07-10 11:42Z", "2023-07-10T11:42Z   "])
def test_white_space_does_not_make_a_minute_a_second(text: str) -> None:
    assert parse_time(text) == JULY_10 - 18


@pytest.mark.parametrize(
    "text",
    [
        "2023-07-10T11:42:60Z",
        "2023-07-10T11:42:6 Z",
        "2023-07-10T11:4 :18Z",
        "2201-01-01T00:00:59Z",
        "2023-02-30T11:42:18Z",
        "2023-07-10T24:00:05Z",
    ],
)
def test_what_looks_like_the_commonest_shape_is_read_or_refused_like_any_other(text: str) -> None:
    usual = text.removesuffix("Z") + "+00:00"
    try:
        expected = parse_time(usual)
    except BadTime:
        with pytest.raises(BadTime, match=re.escape(text)):
            parse_time(text)
    else:
        assert parse_time(text) == expected


@given(MOMENTS)
def test_a_time_is_exact_to_the_microsecond_with_and_without_a_zone(moment: datetime) -> None:
    expected = moment.replace(tzinfo=UTC).timestamp()
    assert parse_time(moment.isoformat()) == expected
    assert parse_time(moment.isoformat(sep=" ") + "Z") == expected


@given(MOMENTS, OFFSETS)
def test_an_offset_is_taken_off(moment: datetime, offset: timezone) -> None:
    local = moment.replace(tzinfo=UTC).astimezone(offset)
    assert parse_time(local.isoformat()) == local.timestamp()


@given(MOMENTS)
def test_what_format_time_writes_parse_time_reads_back(moment: datetime) -> None:
    time_s = moment.replace(tzinfo=UTC).timestamp()
    assert parse_time(format_time(time_s)) == time_s


@given(MOMENTS, st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59), st.sampled_from("T ")), min_size=2))
def test_minutes_of_an_hour_that_was_met_are_read_like_the_first(
    moment: datetime, times: list[tuple[int, int, str]]
) -> None:
    for minute, second, between in times:
        expected = moment.replace(minute=minute, second=second, microsecond=0, tzinfo=UTC)
        assert parse_time(f"{expected:%Y-%m-%d{between}%H:%M:%SZ}") == expected.timestamp()


def test_times_are_written_as_panther_does() -> None:
    assert format_time(JULY_10 + 0.25) == "2023-07-10 11:42:18.250000000"


def test_a_date_alone_is_its_midnight_and_a_leap_second_the_next_second() -> None:
    assert format_time(parse_time("2023-07-10")) == "2023-07-10 00:00:00.000000000"
    assert format_time(parse_time("2016-12-31T23:59:60Z")) == "2017-01-01 00:00:00.000000000"


@pytest.mark.parametrize(
    "value",
    [
        "...",
        "now",
        "20230710",  # a date, not a day in August 1970
        "2025-04-11:21:02.3387000Z",  # from a real test: datetime.fromisoformat makes 21:02:00 of it
        "2024-12-17 00:00:00000000",
        "2019-01-01T100:00:00Z",
        "2023-02-30T00:00:00Z",
        "2023-07-10T25:00:00Z",
        "٢٠٢٣-07-10T11:42:18Z",
        "2" * 100_000,
        True,
        float("nan"),
        float("inf"),
        [],
        {"time": 1},
        b"2023-07-10T11:42:18Z",
    ],
)
def test_what_holds_no_time_is_a_bad_time(value: object) -> None:
    with pytest.raises(BadTime) as caught:
        parse_time(value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "value", ["1969-12-31T23:59:59Z", "2201-01-01T00:00:00Z", "0001-01-01T00:00:00+23:00", -1, 8e9, 10**400]
)
def test_years_outside_1970_to_2200_are_refused_by_name(value: object) -> None:
    with pytest.raises(BadTime, match="1970 to 2200"):
        parse_time(value)


def test_the_first_and_the_last_second_are_inside() -> None:
    assert parse_time(0) == parse_time("1970-01-01T00:00:00Z") == 0.0
    assert format_time(parse_time("2200-12-31T23:59:59.999999Z")) == "2200-12-31 23:59:59.999999000"
