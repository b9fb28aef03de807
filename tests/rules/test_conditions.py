"""Every condition, on values that it holds for and on values that it does not, of right and of wrong types."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.conditions import ABSENT, ADDRESS, COMPARISONS, PRESENCE, UNFIT
from rules.event import ImmutableDict, ImmutableList, PantherEvent

ODD = [None, True, False, 0, 5, 5.5, float("nan"), "", "text", [], ["text"], [[None]], {}, {"text": 1}]
"""Values of every type."""


def wrapped(value: Any) -> Any:
    return PantherEvent({"it": value})["it"]


def holds(name: str, value: Any, operand: Any = None) -> bool:
    """What a condition says of a value; where there is an operand it is one that the condition can use."""
    value = value if value is ABSENT else wrapped(value)
    if name in PRESENCE:
        return PRESENCE[name](value)
    if name in ADDRESS:
        return ADDRESS[name](value)
    comparison = COMPARISONS[name]
    ready = comparison.prepare(operand)
    assert ready is not UNFIT
    return comparison.holds(value, ready) is not comparison.inverse


COMPARED: list[tuple[str, Any, list[Any], list[Any]]] = [
    # condition, operand, holds for, does not hold for
    ("Equals", "a", ["a"], ["A", "ab", ["a"], {"a": 1}]),
    ("Equals", 5, [5, 5.0], ["5", 6, True]),
    ("Equals", 1, [1, 1.0], [True, "1", "true"]),
    ("Equals", True, [True], [1, "true", False]),
    ("Equals", False, [False], [0, "", []]),
    ("Equals", "", [""], [" ", [], 0]),
    ("IEquals", "Straße", ["Straße", "STRASSE", "straße"], ["Strass", 5, ["straße"]]),
    ("StartsWith", "ab", ["ab", "abc"], ["Abc", "cab", ["ab"], {"ab": 1}]),
    ("IStartsWith", "aB", ["ABc", "ab"], ["cab", ["ab"]]),
    ("EndsWith", "bc", ["bc", "abc"], ["abC", "bcd", ["bc"]]),
    ("IEndsWith", "bC", ["aBC"], ["bcd", ["bc"]]),
    ("Contains", "b", ["abc", "b", ["a", "b"]], ["aBc", ["ab"], {"b": 1}, [["b"]]]),
    ("Contains", 5, [[4, 5], [5.0]], ["5", 5, ["5"], [True]]),
    ("IContains", "B", ["abc", ["a", "b"]], ["ac", ["ab"], {"b": 1}, [5]]),
    ("Has", "b", [["a", "b"]], ["b", "abc", {"b": 1}, [["b"]]]),
    ("Has", 1, [[1], [1.0]], [[True], ["1"], 1]),
    ("IsGreaterThan", 5, [6, 5.5, float("inf"), 10**400], [5, 4, "6", True, float("nan"), [6], {"a": 6}]),
    ("IsGreaterThan", "b", ["c", "ba"], ["b", "a", 7, ["c"]]),
    ("IsLessThan", 5, [4, 4.5, -1], [5, 6, "4", False, float("nan"), [4]]),
    ("IsLessThan", "2024-02", ["2024-01-31"], ["2024-02", 1]),
    ("IsIn", ["a", 1, True], ["a", 1, 1.0, True], ["b", "A", "1", 0, False, ["a"], {"a": 1}]),
    ("IsIn", [], [], ["a", 1, [], ""]),
    ("IsIPAddressInCIDR", "10.0.0.0/8", ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.1", "10.1.2.3:80", "::1", 1, "", ["10.1.2.3"]]),
    ("IsIPAddressInCIDR", "10.1.2.3/8", ["10.9.9.9"], ["11.0.0.1"]),
    ("IsIPAddressInCIDR", "2001:db8::/32", ["2001:db8::1"], ["2001:db9::1", "10.0.0.1"]),
    ("IsIPAddressInCIDR", "192.0.2.1", ["192.0.2.1"], ["192.0.2.2"]),
]  # fmt: skip

INVERSES = {
    "Equals": "DoesNotEqual",
    "IEquals": "IDoesNotEqual",
    "StartsWith": "DoesNotStartWith",
    "IStartsWith": "IDoesNotStartWith",
    "EndsWith": "DoesNotEndWith",
    "IEndsWith": "IDoesNotEndWith",
    "Contains": "DoesNotContain",
    "IContains": "IDoesNotContain",
    "Has": "DoesNotHave",
    "IsIn": "IsNotIn",
}

OR_EQUAL: list[tuple[str, Any, list[Any], list[Any]]] = [
    (name + ending, operand, good, bad)
    for ending in ("OrEqual", "OrEquals", "OrEqualTo")
    for name, operand, good, bad in (
        ("IsGreaterThan", 5, [5, 5.0, 6], [4.9, "5", True, None]),
        ("IsLessThan", 5, [5, 4.5], [5.1, "5", False, None]),
        ("IsGreaterThan", "b", ["b", "c"], ["a", 98]),
    )
]


@pytest.mark.parametrize(("name", "operand", "good", "bad"), [*COMPARED, *OR_EQUAL])
def test_a_comparison_holds_for_what_it_says_and_for_nothing_else(
    name: str, operand: Any, good: list[Any], bad: list[Any]
) -> None:
    assert [value for value in good if not holds(name, value, operand)] == []
    assert [value for value in [*bad, None] if holds(name, value, operand)] == []


@pytest.mark.parametrize(("name", "operand", "good", "bad"), [row for row in COMPARED if row[0] in INVERSES])
def test_an_inverse_holds_for_whatever_the_comparison_does_not(
    name: str, operand: Any, good: list[Any], bad: list[Any]
) -> None:
    assert [value for value in good if holds(INVERSES[name], value, operand)] == []
    assert [value for value in [*bad, None] if not holds(INVERSES[name], value, operand)] == []


def test_each_condition_is_in_one_of_these_tables() -> None:
    assert set(COMPARISONS) == {row[0] for row in COMPARED + OR_EQUAL} | set(INVERSES.values())
    assert {name for name, comparison in COMPARISONS.items() if comparison.inverse} == set(INVERSES.values())
    assert set(PRESENT) == set(PRESENCE)
    assert set(ADDRESSES) == set(ADDRESS)


EMPTY: list[Any] = ["", [], {}]
FULL: list[Any] = [0, False, "a", [None], {"a": None}]
PRESENT: dict[str, tuple[list[Any], list[Any]]] = {
    "Exists": ([None, *EMPTY, *FULL], [ABSENT]),
    "DoesNotExist": ([ABSENT], [None, *EMPTY, *FULL]),
    "IsNull": ([None, ABSENT], [*EMPTY, *FULL]),
    "IsNotNull": ([*EMPTY, *FULL], [None, ABSENT]),
    "IsNullOrEmpty": ([None, ABSENT, *EMPTY], FULL),
    "IsNotNullOrEmpty": (FULL, [None, ABSENT, *EMPTY]),
}

PUBLIC = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"]
PRIVATE = ["10.0.0.1", "192.168.1.1", "127.0.0.1", "fd00::1", "::1", "::ffff:10.0.0.1"]
NO_ADDRESS = [*ODD, "10.0.0.256", "10.0.0.1/8", "10.0.0.1:80", "host", 2130706433, ["8.8.8.8"], {"8.8.8.8": "8.8.8.8"}]
V4 = ["8.8.8.8", "10.0.0.1", "192.168.1.1", "127.0.0.1", "100.64.0.1"]
V6 = ["2606:4700::1111", "fd00::1", "::1", "::ffff:8.8.8.8", "::ffff:10.0.0.1", "fe80::1%eth0"]
ADDRESSES: dict[str, tuple[list[Any], list[Any]]] = {
    "IsIPAddress": (V4 + V6, NO_ADDRESS),
    "IsIPv4Address": (V4, [*V6, *NO_ADDRESS]),
    "IsIPv6Address": (V6, [*V4, *NO_ADDRESS]),
    "IsIPAddressPublic": (PUBLIC, [*PRIVATE, "100.64.0.1", *NO_ADDRESS]),
    "IsIPAddressPrivate": (PRIVATE, [*PUBLIC, "100.64.0.1", *NO_ADDRESS]),
}


@pytest.mark.parametrize("name", [*PRESENT, *ADDRESSES])
def test_a_condition_without_operand_holds_for_what_it_says_and_for_nothing_else(name: str) -> None:
    good, bad = (PRESENT | ADDRESSES)[name]
    assert [value for value in good if not holds(name, value)] == []
    assert [value for value in bad if holds(name, value)] == []


USELESS: dict[str, list[Any]] = {
    "Equals": [None],
    "IEquals": [None, 5, True, ["a"]],
    "StartsWith": [None, 5, True, ["a"]],
    "IStartsWith": [None, 5, ["a"]],
    "EndsWith": [None, 5, ["a"]],
    "IEndsWith": [None, 5, ["a"]],
    "Contains": [None, ["a"], {"a": 1}],
    "IContains": [None, 5, ["a"]],
    "Has": [None, ["a"], {"a": 1}],
    "IsGreaterThan": [None, True, ["a"]],
    "IsLessThan": [None, True, ["a"]],
    "IsIn": [None, "a", [["a"]], [None], {"a": 1}],
    "IsIPAddressInCIDR": [None, 10, "10.0.0.0/33", "host", "", ["10.0.0.0/8"]],
}


@pytest.mark.parametrize("name", USELESS)
def test_an_operand_of_no_use_is_known_before_anything_is_compared(name: str) -> None:
    assert [operand for operand in USELESS[name] if COMPARISONS[name].prepare(operand) is not UNFIT] == []


def deep(levels: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(levels):
        made = [made]
    return made


def test_values_nested_too_deep_to_compare_are_not_equal() -> None:
    assert not holds("Equals", deep(5000), wrapped(deep(5000)))
    assert holds("Equals", deep(20), wrapped(deep(20)))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["10.0.0.1", "::1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(COMPARISONS)), VALUES, VALUES)
def test_no_comparison_raises_and_all_answer_true_or_false(name: str, value: Any, operand: Any) -> None:
    comparison = COMPARISONS[name]
    ready = comparison.prepare(operand if comparison.of_many else wrapped(operand))
    if ready is not UNFIT:
        assert type(comparison.holds(wrapped(value), ready)) is bool


@given(st.sampled_from(sorted(PRESENCE | ADDRESS)), VALUES)
def test_no_condition_without_operand_raises_and_all_answer_true_or_false(name: str, value: Any) -> None:
    assert type((PRESENCE | ADDRESS)[name](wrapped(value))) is bool


def test_lists_and_objects_of_an_event_are_compared_as_they_are_written() -> None:
    assert isinstance(wrapped([1]), ImmutableList)
    assert isinstance(wrapped({}), ImmutableDict)
    assert holds("Equals", [1, {"a": "b"}], wrapped([1, {"a": "b"}]))
    assert not holds("Equals", [1, {"a": "b"}], wrapped([1, {"a": "c"}]))
