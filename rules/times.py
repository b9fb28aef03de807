"""Times of log records, read and written as Panther does. A time is seconds since 1970, exact to the microsecond."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

LATEST_S = 7_289_654_400.0
"""The end of the year 2200. Later times are no times of log records but other units, sentinels or corruption."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)
_MAX_TEXT = 64

# 2026-03-02T09:00:00Z: most logs write so, and some 60 events of theirs share a minute where none shares a second.
_COMMON_LENGTH = 20
_SECONDS = {f"{second:02}Z": float(second) for second in range(60)}
_MINUTES = {f"{minute:02}:": 60.0 * minute for minute in range(60)}
_KEPT = 4096
_minutes: dict[str, float] = {}
"""2026-03-02T09:00: -> its time, of minutes that were met as part of such a text."""
_hours: dict[str, float] = {}
"""The same of 2026-03-02T09:, from which the times of its minutes are made."""

# What datetime.fromisoformat does not take: a space before the offset, UTC in words, a leap second, no seconds.
_UNUSUAL = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,18}))?)?)?\s*(Z|UTC|GMT|\(UTC\)|[+-]\d\d:?\d\d)?",
    re.ASCII | re.IGNORECASE,
)
# Nine digits or more: "20230710" is a date to its author, not a day in August 1970.
_NUMBER = re.compile(r"\d{9,20}(?:\.\d{1,18})?", re.ASCII)


class BadTime(ValueError):
    """A time is present and cannot be read."""


def timer(
    first: str, second: str, otherwise: Callable[[dict[str, Any]], float | None]
) -> Callable[[dict[str, Any]], float | None]:
    """A function that gives an event's time as parse_time() reads it in the first of two fields that is not null, or what
    `otherwise` says where that is empty. Raises BadTime."""
    minutes, seconds = _minutes, _SECONDS

    def time_of(event: dict[str, Any]) -> float | None:
        value = event.get(first)
        if value is None:
            value = event.get(second)
        if type(value) is str:  # the beginning of parse_time(), without a call: each parsed event comes here
            minute_s, second_s = minutes.get(value[:17]), seconds.get(value[17:])
            if minute_s is not None and second_s is not None:
                return minute_s + second_s
        return parse_time(value) if value else otherwise(event)

    return time_of


def parse_time(value: object) -> float:
    """The time that a field's value stands for, cut to the microsecond.

    Text: RFC 3339 and its looser relatives, a space for the T, any number of decimals, any offset or none (then it is
    UTC), or a number in quotes. Numbers count since 1970 in the unit that their size tells: seconds, or from 1e11 on
    milliseconds, from 1e14 microseconds, from 1e17 nanoseconds. Raises BadTime for all else and for years outside 1970
    to 2200.
    """
    if isinstance(value, str):
        minute_s, second_s = _minutes.get(value[:17]), _SECONDS.get(value[17:])
        if second_s is None or len(value) != _COMMON_LENGTH:
            if len(value) > _MAX_TEXT:
                raise BadTime(f"{value[:_MAX_TEXT]!r}... is no time")
            return _parse_text(value)
        if minute_s is None:
            minute_s = _minute_s(value, second_s)
        return minute_s + second_s
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _from_number(value)
    raise BadTime(f"{_shortened(value)} is no time")


def _minute_s(text: str, second_s: float) -> float:
    """The time of the minute in a text of the common length that ends in these seconds."""
    hour_s, in_hour_s = _hours.get(text[:14]), _MINUTES.get(text[14:17])
    if hour_s is None or in_hour_s is None:
        minute_s = _parse_text(text) - second_s
        if in_hour_s is None or text[13] != ":" or text[11:13] == "24":  # 24:00:00 is a time to later Pythons, and that alone
            return minute_s
        hour_s = _kept(_hours, text[:14], minute_s - in_hour_s)
    return _kept(_minutes, text[:17], hour_s + in_hour_s)


def _kept(times: dict[str, float], text: str, time_s: float) -> float:
    if len(times) >= _KEPT:
        times.clear()
    times[text] = time_s
    return time_s


def format_time(time_s: float) -> str:
    """Panther's form, which has no zone and means UTC: 2023-07-10 11:42:18.000000000"""
    moment = _NAIVE_EPOCH + timedelta(seconds=time_s)
    return moment.isoformat(sep=" ", timespec="microseconds") + "000"


@lru_cache(maxsize=4096)  # many events share a time: a hit takes 0.05 us, a miss 0.5 and more
def _parse_text(text: str) -> float:
    # fromisoformat also takes week dates and "2025-04-11:21:02", which it reads as 21:02:00: check the shape first.
    if text[10:11] in ("T", " ") and text[13:14] == ":" == text[16:17] and text[4:5] == "-":
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return _parse_unusual(text)
        if moment.tzinfo is None:
            return _in_range((moment - _NAIVE_EPOCH).total_seconds(), text)
        return _in_range(moment.timestamp(), text)
    return _parse_unusual(text)


def _parse_unusual(text: str) -> float:
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return _from_number(float(text) if "." in text else int(text))
    found = _UNUSUAL.fullmatch(text)
    if found is None:
        raise BadTime(f"{text!r} is no time")
    date, minute, second, fraction, offset = found.groups()
    leap_s = 1 if second == "60" else 0
    zone = offset if offset and offset[0] in "+-" else "Z"
    try:
        moment = datetime.fromisoformat(
            f"{date}T{minute or '00:00'}:{'59' if leap_s else second or '00'}.{fraction or '0'}{zone}"
        )
    except ValueError as error:
        raise BadTime(f"{text!r} is no time: {error}") from None
    return _in_range(moment.timestamp() + leap_s, text)


def _from_number(number: int | float) -> float:
    if not 0 <= number < 1e19:  # NaN is neither
        raise BadTime(f"{_shortened(number)} lies outside the years 1970 to 2200")
    per_second = 1 if number < 1e11 else 10**3 if number < 1e14 else 10**6 if number < 1e17 else 10**9
    # Integers in integers: a float cannot hold today's nanoseconds.
    exact = isinstance(number, int)
    microseconds = number * 10**6 // per_second if exact else round(number * (10**6 / per_second))
    return _in_range(microseconds / 1e6, number)


def _in_range(time_s: float, value: object) -> float:
    if 0 <= time_s < LATEST_S:
        return time_s
    raise BadTime(f"{_shortened(value)} lies outside the years 1970 to 2200")


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "..."
