"""Whatever JSON an event is, what rules do with it gives a value or one of the documented exceptions.

RecursionError is one of them, where Python itself compares, prints or encodes what is nested deeper than its limit.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.datamodels import DataModel, build_model
from rules.event import ImmutableDict, ImmutableList, PantherError, PantherEvent
from rules.logtypes import LogType, load_definitions, recognise, shipped_definitions
from rules.lookups import LookupTable, PackContext, build_table
from rules.simple import compile_detection, compile_filters

NAMES = ("a", "A", "b", "B", "", "a.b", "p_any_ip_addresses", "P_Enrichment", "p_enrichment", "p_udm", "p_log_type",
         "_mocked_lookup_data_", "İ", "ß", "assets", "net")  # fmt: skip
"""Few, so that paths meet; İ has two letters in lower case."""

names = st.one_of(st.sampled_from(NAMES), st.text(max_size=4))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),  # NaN and the infinities: the exact parser takes them
    st.text(max_size=8),
    st.sampled_from(["10.1.2.3", "::ffff:10.0.0.1", "i-1", "x" * 20_000, "\ud800", "2024-03-01 12:00:00", "1"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)),
    max_leaves=20,
)


def _nested(levels: int, innermost: Any, kinds: str) -> Any:
    for level in range(levels):
        innermost = [innermost] if kinds[level % len(kinds)] == "[" else {"a": innermost}
    return innermost


deep = st.builds(_nested, st.sampled_from([300, 1000]), scalars, st.sampled_from(["[", "{", "[{"]))
"""Nested as deep as orjson reads, which is deeper than Python's calls go."""

events = st.dictionaries(names, st.one_of(values, values, values, deep), max_size=6)
keys = st.lists(names, max_size=3)
odd_keys: st.SearchStrategy[Any] = st.one_of(
    names, st.none(), st.integers(), st.lists(st.integers(), max_size=1), st.just({})
)


def _refused(*problem: object) -> None:
    raise AssertionError(problem)


def _made(built: Any) -> Any:
    assert built is not None
    return built


PATHS = (
    "a",
    "$.a.b",
    "a[0]",
    "$.a[*].b",
    "$['a.b']",
    "$..b",
    "$.a[?(@.b > 1)]",
    "$.p_any_ip_addresses[0]",
    "a[-1:]",
    "$.*",
    "$",
)
MODEL: DataModel = _made(
    build_model(
        "M",
        frozenset(),
        [{"Name": path, "Path": path} for path in PATHS] + [{"Name": "method", "Method": "method"}],
        {
            "method": lambda event: (
                event.get("a"),
                event.deep_get("a", "b"),
                event.get("p_log_type"),
                len(event),
                list(event),
            )
        },
        _refused,
    )
)
TABLE: LookupTable = _made(
    build_table(
        {
            "LookupName": "assets",
            "LogTypeMap": {
                "PrimaryKey": "net",
                "AssociatedLogTypes": [{"LogType": "T", "Selectors": [*PATHS, "p_any_ip_addresses"]}],
            },
        },
        b"net,x\n10.0.0.0/8,1\ni-1,2\n1,3\n",
        _refused,
    )
)
CONTEXT = PackContext(MODEL, [TABLE], "T")
TYPE = LogType("T")


def event_of(data: dict[str, Any]) -> PantherEvent:
    return PantherEvent(data, TYPE.derive(data, 1_709_294_400.0, (0, 0), "source"), CONTEXT)


def tried(*allowed: type[Exception]) -> Callable[[Callable[[], Any]], Any]:
    """Calls something, whose only exceptions may be these; gives None for them."""

    def call(function: Callable[[], Any]) -> Any:
        try:
            return function()
        except allowed:
            return None

    return call


def same(one: Any, other: Any) -> bool:
    """Equality for which NaN is NaN and 1 is not True. Iterative: the values may be deep."""
    pairs = [(one, other)]
    while pairs:
        one, other = pairs.pop()
        if type(one) is not type(other):
            return False
        if isinstance(one, dict):
            if list(one) != list(other):
                return False
            pairs.extend((one[key], other[key]) for key in one)
        elif isinstance(one, list):
            if len(one) != len(other):
                return False
            pairs.extend(zip(one, other, strict=True))
        elif one != other and not (isinstance(one, float) and math.isnan(one) and math.isnan(other)):
            return False
    return True


@given(events, odd_keys)
def test_looking_up_a_key_gives_a_value_or_what_is_documented(data: dict[str, Any], key: Any) -> None:
    event = event_of(data)
    if not isinstance(key, str):
        for look in (event.get, event.__getitem__, event.__contains__, event.deep_get, event.udm):
            with pytest.raises(AttributeError, match="lower"):
                look(key)
        return
    found = event.get(key, "default")
    assert (key in event) is (tried(KeyError)(lambda: [event[key]]) is not None)
    if key in data:
        assert same(plain(found), data[key])
    if key not in event:
        assert found == "default"
        assert all(name.lower() != key.lower() for name in data)


def plain(value: Any) -> Any:
    return value.copy() if isinstance(value, ImmutableDict | ImmutableList) else value


@given(events, keys)
def test_deep_get_takes_every_path(data: dict[str, Any], path: list[str]) -> None:
    event = event_of(data)
    found = event.deep_get(*path, default="default")

    assert found is not None
    assert type(found) not in (dict, list)
    assert type(event.deep_get(*path)) is not dict


@given(events, keys, st.sampled_from(["all", "first", "last", "other"]))
def test_deep_walk_takes_every_path_and_refuses_what_cannot_be_told_apart(
    data: dict[str, Any], path: list[str], return_val: str
) -> None:
    tried(TypeError)(lambda: event_of(data).deep_walk(*path, return_val=return_val))


@given(events)
def test_a_copy_is_the_event_and_the_event_stays_as_it_was(data: dict[str, Any]) -> None:
    before = PantherEvent(data).to_dict()
    event = event_of(data)
    copy = event.to_dict()

    assert list(copy) == list(event)
    assert len(copy) == len(event)
    assert all(same(copy[name], value) for name, value in data.items())
    assert same(PantherEvent(data).to_dict(), before)
    for value in copy.values():
        if isinstance(value, dict | list):
            value.clear()
    assert same(PantherEvent(data).to_dict(), before)


@given(events)
def test_comparing_printing_and_encoding_raise_nothing_but_what_python_s_limits_are(data: dict[str, Any]) -> None:
    event = event_of(data)
    attempt = tried(RecursionError)

    assert attempt(lambda: event == event.to_dict()) is not NotImplemented
    attempt(lambda: event != {})
    attempt(lambda: event == [1])
    attempt(lambda: repr(event))
    encoded = attempt(lambda: json.dumps(event, default=PantherEvent.json_encoder))
    assert encoded is None or isinstance(json.loads(encoded), dict)
    for value in event.values():
        if isinstance(value, ImmutableList):
            attempt(partial(_all_of_a_list, value))


def _all_of_a_list(value: ImmutableList) -> None:
    assert list(value) == value.as_list() or any(each != each for each in _flat(value.as_list()))
    assert ("a" in value) is ("a" in value.as_list())
    assert len(value[:1]) == min(len(value), 1)


def _flat(value: Any) -> Iterator[Any]:
    """The scalars inside a value."""
    for each in value.values() if isinstance(value, dict) else value:
        if isinstance(each, dict | list):
            yield from _flat(each)
        else:
            yield each


@given(events)
def test_the_event_s_time_is_a_whole_number(data: dict[str, Any]) -> None:
    assert type(event_of(data).event_time_epoch()) is int
    assert type(PantherEvent({"p_event_time": data.get("a")}).event_time_epoch()) is int


@given(events, st.sampled_from([*PATHS, "method"]))
def test_udm_gives_a_value_or_says_that_a_path_meets_several(data: dict[str, Any], name: str) -> None:
    found = tried(PantherError, RecursionError)(lambda: event_of(data).udm(name, default="default"))

    assert type(found) not in (dict, list)
    assert isinstance(event_of(data).udm_path(name), str)


@given(events, keys)
def test_udm_without_a_mapping_looks_at_the_event(data: dict[str, Any], path: list[str]) -> None:
    event_of(data).udm(*path)
    assert isinstance(event_of(data).udm_path("unmapped", *path), str)


@given(events)
def test_enrichment_is_by_table_and_selector_and_only_where_something_matches(data: dict[str, Any]) -> None:
    found = tried(RecursionError)(lambda: event_of(data).get("p_enrichment"))

    if found is not None and not {name.lower() for name in data} & {"p_enrichment"}:
        for rows in found["assets"].values():
            for row in rows if isinstance(rows, ImmutableList) else [rows]:
                assert {"net", "x", "p_match"} == set(row)


@given(events, st.one_of(names, scalars, values), st.one_of(st.just("assets"), names))
def test_lookup_gives_a_row_or_nothing(data: dict[str, Any], key: Any, table: str) -> None:
    mocked = data.get("_mocked_lookup_data_")
    found = tried(*([AttributeError] if mocked is not None else []))(lambda: event_of(data).lookup(table, key))

    assert mocked is not None or found is None or set(found) == {"net", "x"}


COMPARISONS = (
    "Equals",
    "IEquals",
    "StartsWith",
    "Contains",
    "IContains",
    "IsGreaterThan",
    "IsLessThanOrEqualTo",
    "IsIPAddressInCIDR",
)
PRESENCE = (
    "Exists",
    "DoesNotExist",
    "IsNull",
    "IsNullOrEmpty",
    "IsIPAddress",
    "IsIPAddressPublic",
    "IsIPAddressPrivate",
)


@given(
    events,
    st.sampled_from(["a", "a.b", "a[0]", "a[*].b", '"a.b"']),
    st.one_of(
        st.builds(
            lambda condition, value: {"Condition": condition, "Value": value},
            st.sampled_from(COMPARISONS),
            st.one_of(st.sampled_from(["10.0.0.0/8", "1"]), st.integers()),
        ),
        st.builds(lambda condition: {"Condition": condition}, st.sampled_from(PRESENCE)),
        st.builds(lambda values: {"Condition": "IsIn", "Values": values}, st.lists(st.text(max_size=2), min_size=1)),
    ),
)
def test_filters_and_detections_answer_yes_or_no(data: dict[str, Any], path: str, condition: dict[str, Any]) -> None:
    problems: list[Any] = []
    expression = {"KeyPath": path, **condition}
    keep = compile_filters([expression], lambda *it: problems.append(it))
    detection = compile_detection({"Detection": [expression]}, lambda *it: problems.append(it))

    if not problems:  # a value that the condition cannot have
        assert keep is not None
        assert detection is not None
        assert type(keep(event_of(data))) is bool
        assert type(detection["rule"](event_of(data))) is bool


TYPES = load_definitions(shipped_definitions())


@settings(max_examples=50)
@given(events, st.sampled_from(sorted(TYPES)))
def test_every_log_type_takes_every_event(data: dict[str, Any], name: str) -> None:
    log_type = TYPES[name]
    recognise(data, TYPES)
    for each in log_type.events_of(data):
        derived = log_type.derive(each, 0.0, (0, 0), "source")
        assert all(texts for texts in derived.any().values())
        assert pickle.loads(pickle.dumps(derived.base())) == derived.base()
