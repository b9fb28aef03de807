"""Simple detections and inline filters: each kind of expression, each key of a rule, and every refusal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules import yaml12
from rules.conditions import ADDRESS, COMPARISONS, PRESENCE
from rules.event import PantherEvent
from rules.guards import clause_text
from rules.guards.facts import Facts, holds
from rules.simple import compile_detection, compile_filters, facts_of_detection, facts_of_filters

EVENT: dict[str, Any] = {
    "action": "repo.archived",
    "count": 7,
    "limit": 5,
    "nothing": None,
    "user": {"Name": "ann", "ips": ["10.0.0.1", "8.8.8.8"], "empty": []},
    "items": [
        {"kind": "key", "age": 3, "tags": ["a", "b"]},
        {"kind": "cert", "age": 9, "tags": ["b"]},
        {"kind": None, "tags": "c"},
        "loose",
    ],
    "deep": [[1, 2], [3]],
    "a.b": "dotted",
    "p_enrichment": {"hosts": {"src.ip": {"owner": {"team": "red"}, "tier": 1}}},
}


class Refused(list[tuple[tuple[str | int, ...], str, str]]):
    """What a compiler found wrong, as it reports it."""

    def __call__(self, where: tuple[str | int, ...], message: str, remedy: str) -> None:
        self.append((where, message, remedy))


def document(text: str) -> dict[str, Any]:
    made, _ = yaml12.load(dedent(text).encode())
    assert isinstance(made, dict)
    return made


def functions(text: str | dict[str, Any]) -> dict[str, Callable[[PantherEvent], Any]]:
    refused = Refused()
    made = compile_detection(document(text) if isinstance(text, str) else text, refuse=refused)
    assert refused == []
    assert made is not None
    return made


def detects(expressions: Any, event: dict[str, Any] = EVENT) -> Any:
    return functions({"Detection": expressions})["rule"](PantherEvent(event))


def passes(filters: Any, event: dict[str, Any] = EVENT) -> bool:
    refused = Refused()
    test = compile_filters(filters, refused)
    assert refused == []
    return True if test is None else test(PantherEvent(event))


# --- where values are -------------------------------------------------------------------------------------------

FOUND: list[tuple[dict[str, Any], Any]] = [
    ({"Key": "action"}, "repo.archived"),
    ({"Key": "ACTION"}, "repo.archived"),
    ({"Key": "a.b"}, "dotted"),
    ({"DeepKey": ["action"]}, "repo.archived"),
    ({"DeepKey": ["user", "name"]}, "ann"),
    ({"DeepKey": ["items", 1, "kind"]}, "cert"),
    ({"DeepKey": ["deep", -1, 0]}, 3),
    ({"KeyPath": "action"}, "repo.archived"),
    ({"KeyPath": "User.name"}, "ann"),
    ({"KeyPath": "user.ips[1]"}, "8.8.8.8"),
    ({"KeyPath": "user.ips[-1]"}, "8.8.8.8"),
    ({"KeyPath": "deep[0][1]"}, 2),
    ({"KeyPath": '"a.b"'}, "dotted"),
    ({"KeyPath": "items[*].kind"}, ["key", "cert"]),
    ({"KeyPath": "items[*].tags"}, [["a", "b"], ["b"], "c"]),
    ({"KeyPath": "items[*].tags[*]"}, ["a", "b", "b"]),
    ({"KeyPath": "deep[*]"}, [[1, 2], [3]]),
    ({"KeyPath": "deep[*][*]"}, [1, 2, 3]),
    ({"KeyPath": "deep[*][0]"}, [1, 3]),
    ({"KeyPath": "items[*].missing"}, []),
    ({"KeyPath": "user.empty[*].x"}, []),
    ({"Enrichment": {"Table": "hosts", "Selector": "src.ip", "FieldPath": "owner.team"}}, "red"),
    ({"Enrichment": {"Table": "hosts", "Selector": "src.ip", "FieldPath": "tier"}}, 1),
]

NOT_FOUND: list[dict[str, Any]] = [
    {"Key": "missing"},
    {"Key": "user.name"},
    {"DeepKey": ["user", "name", "first"]},
    {"DeepKey": ["user", 0]},
    {"DeepKey": ["items", 9, "kind"]},
    {"DeepKey": ["items", "kind"]},
    {"KeyPath": "user.missing.more"},
    {"KeyPath": "user.ips[2]"},
    {"KeyPath": "user.ips[-3]"},
    {"KeyPath": "user[0]"},
    {"KeyPath": "user[*]"},
    {"KeyPath": "missing[*].kind"},
    {"KeyPath": "action[0]"},
    {"KeyPath": "nothing.more"},
    {"Enrichment": {"Table": "hosts", "Selector": "dst.ip", "FieldPath": "tier"}},
    {"Enrichment": {"Table": "people", "Selector": "src.ip", "FieldPath": "tier"}},
]


def value_at(key: dict[str, Any]) -> Any:
    made = functions({"AlertContext": [{"KeyName": "it", "KeyValue": key}]})
    context = made["alert_context"](PantherEvent(EVENT))
    return json.loads(json.dumps(context, default=PantherEvent.json_encoder))["it"]


@pytest.mark.parametrize(("key", "value"), FOUND)
def test_a_key_finds_its_value(key: dict[str, Any], value: Any) -> None:
    assert value_at(key) == value
    assert detects([{**key, "Condition": "Exists"}])


@pytest.mark.parametrize("key", NOT_FOUND)
def test_a_key_without_a_value_is_absent(key: dict[str, Any]) -> None:
    assert detects([{**key, "Condition": "DoesNotExist"}])
    assert value_at(key) is None


def test_a_null_is_there_and_null() -> None:
    assert detects([{"Key": "nothing", "Condition": "Exists"}, {"Key": "nothing", "Condition": "IsNull"}])


# --- expressions -------------------------------------------------------------------------------------------------


def test_expressions_side_by_side_must_all_hold() -> None:
    yes, no = {"Condition": "AlwaysTrue"}, {"Condition": "AlwaysFalse"}
    assert detects([yes]) is True
    assert detects([no]) is False
    assert detects([yes, yes]) is True
    assert detects([yes, no]) is False


def test_a_comparison_of_one_key_with_a_constant() -> None:
    assert detects([{"Key": "action", "Condition": "Equals", "Value": "repo.archived"}]) is True
    assert detects([{"Key": "action", "Condition": "Equals", "Value": "repo.create"}]) is False
    assert detects([{"KeyPath": "items[1].age", "Condition": "IsGreaterThan", "Value": 8}]) is True
    assert detects([{"KeyPath": "user.ips", "Condition": "Has", "Value": "8.8.8.8"}]) is True


def test_membership_takes_values() -> None:
    assert detects([{"Key": "action", "Condition": "IsIn", "Values": ["x", "repo.archived"]}]) is True
    assert detects([{"Key": "action", "Condition": "IsNotIn", "Values": ["x", "repo.archived"]}]) is False


def test_a_comparison_of_two_keys_compares_the_first_with_the_second() -> None:
    def compared(condition: str, first: str, second: str) -> Any:
        return detects([{"Condition": condition, "Values": [{"KeyPath": first}, {"Key": second}]}])

    assert compared("IsGreaterThan", "count", "limit") is True
    assert compared("IsGreaterThan", "limit", "count") is False
    assert compared("Has", "items[*].age", "limit") is False
    assert compared("DoesNotEqual", "count", "limit") is True
    assert compared("Equals", "user", "user") is True


UNEQUAL = [
    ("missing", "count"),
    ("count", "missing"),
    ("missing", "missing"),
    ("count", "nothing"),
    ("nothing", "nothing"),
    ("action", "count"),
]


@pytest.mark.parametrize(("first", "second"), UNEQUAL)
def test_what_cannot_be_compared_is_neither_equal_nor_more_but_different(first: str, second: str) -> None:
    def compared(condition: str) -> Any:
        return detects([{"Condition": condition, "Values": [{"Key": first}, {"Key": second}]}])

    assert (compared("Equals"), compared("IsGreaterThan"), compared("DoesNotEqual")) == (False, False, True)
    assert (compared("IsIPAddressInCIDR"), compared("DoesNotStartWith")) == (False, True)


def test_a_network_may_come_from_the_event() -> None:
    expression = {"Condition": "IsIPAddressInCIDR", "Values": [{"Key": "ip"}, {"Key": "net"}]}
    assert detects([expression], {"ip": "10.1.1.1", "net": "10.0.0.0/8"}) is True
    assert detects([expression], {"ip": "11.1.1.1", "net": "10.0.0.0/8"}) is False
    assert detects([expression], {"ip": "10.1.1.1", "net": "no network"}) is False


ELEMENTS: list[tuple[list[Any], dict[str, bool]]] = [
    ([1, 1], {"AnyElement": True, "AllElements": True, "OnlyOneElement": False, "NoElement": False}),
    ([1, 0], {"AnyElement": True, "AllElements": False, "OnlyOneElement": True, "NoElement": False}),
    ([0, 0], {"AnyElement": False, "AllElements": False, "OnlyOneElement": False, "NoElement": True}),
    ([], {"AnyElement": False, "AllElements": True, "OnlyOneElement": False, "NoElement": True}),
]


@pytest.mark.parametrize("condition", ["AnyElement", "AllElements", "OnlyOneElement", "NoElement"])
@pytest.mark.parametrize(("ones", "answers"), ELEMENTS)
def test_expressions_look_into_the_elements_of_a_list(
    ones: list[Any], answers: dict[str, bool], condition: str
) -> None:
    is_one = [{"Key": "n", "Condition": "Equals", "Value": 1}]
    event = {"list": [{"n": n} for n in ones]}
    for key in ({"Key": "list"}, {"DeepKey": ["list"]}, {"KeyPath": "list[*]"}):
        assert detects([{**key, "Condition": condition, "Expressions": is_one}], event) is answers[condition]


@pytest.mark.parametrize("value", [None, "text", 5, {"n": 1}])
def test_of_what_is_no_list_only_no_element_holds(value: Any) -> None:
    for event in ({"list": value}, {}):
        for condition in ("AnyElement", "AllElements", "OnlyOneElement", "NoElement"):
            expression = {"Key": "list", "Condition": condition, "Expressions": [{"Condition": "AlwaysTrue"}]}
            assert detects([expression], event) is (condition == "NoElement")


def test_all_expressions_must_hold_for_the_same_element() -> None:
    both = [
        {"Key": "kind", "Condition": "Equals", "Value": "key"},
        {"Key": "AGE", "Condition": "IsGreaterThan", "Value": 5},
    ]
    assert detects([{"Key": "items", "Condition": "AnyElement", "Expressions": both}]) is False
    assert detects([{"Key": "items", "Condition": "AnyElement", "Expressions": [{"Any": both}]}]) is True


def test_elements_that_are_no_objects_have_no_fields() -> None:
    no_kind = [{"Key": "kind", "Condition": "DoesNotExist"}]
    assert detects([{"Key": "items", "Condition": "OnlyOneElement", "Expressions": no_kind}]) is True


def test_comprehensions_nest() -> None:
    inner = {
        "Key": "inner",
        "Condition": "AnyElement",
        "Expressions": [{"Key": "n", "Condition": "Equals", "Value": 1}],
    }
    outer = [{"Key": "outer", "Condition": "AllElements", "Expressions": [inner]}]
    assert detects(outer, {"outer": [{"inner": [{"n": 0}, {"n": 1}]}, {"inner": [{"n": 1}]}]}) is True
    assert detects(outer, {"outer": [{"inner": [{"n": 0}, {"n": 1}]}, {"inner": [{"n": 0}]}]}) is False


def test_combinators_of_nothing() -> None:
    assert [detects([{name: []}]) for name in ("All", "Any", "OnlyOne", "None")] == [True, False, False, True]


TREES = st.recursive(
    st.sampled_from("abc"),
    lambda inner: st.tuples(st.sampled_from(["All", "Any", "OnlyOne", "None"]), st.lists(inner, max_size=3)),
    max_leaves=12,
)


def written(tree: Any) -> dict[str, Any]:
    """A tree as an expression: a leaf holds where its field is true."""
    if isinstance(tree, str):
        return {"Key": tree, "Condition": "Equals", "Value": True}
    name, parts = tree
    return {name: [written(part) for part in parts]}


def expected(tree: Any, event: dict[str, bool]) -> bool:
    if isinstance(tree, str):
        return event[tree]
    held = [expected(part, event) for part in tree[1]].count(True)
    return {"All": held == len(tree[1]), "Any": held > 0, "OnlyOne": held == 1, "None": held == 0}[tree[0]]


@given(TREES, st.fixed_dictionaries(dict.fromkeys("abc", st.booleans())))
def test_any_tree_of_combinators_is_what_counting_says(tree: Any, event: dict[str, bool]) -> None:
    assert detects([written(tree)], event) is expected(tree, event)


# --- filters -----------------------------------------------------------------------------------------------------


UNWANTED = {"KeyPath": "action", "Condition": "IsNull"}


@pytest.mark.parametrize(
    "filters",
    [[], [{"All": []}], [{"Any": []}], [{"All": [{"Any": []}]}, {"All": []}], [{"Any": [UNWANTED, {"All": []}]}]],
)
def test_an_empty_filter_is_none_at_all(filters: Any) -> None:
    assert compile_filters(filters, Refused()) is None


def test_filters_must_all_pass_and_nest() -> None:
    archived = {"KeyPath": "action", "Condition": "Equals", "Value": "repo.archived"}
    other = {"KeyPath": "action", "Condition": "Equals", "Value": "other"}
    assert passes([archived]) is True
    assert passes([archived, other]) is False
    assert passes([{"Any": [archived, other]}]) is True
    assert passes([{"All": [archived, {"Any": [other]}]}]) is False
    assert passes([{"Any": [other, {"All": []}]}]) is True


def test_a_filter_can_look_at_enrichment() -> None:
    at: dict[str, Any] = {"Enrichment": {"Table": "hosts", "Selector": "src.ip", "FieldPath": "owner.team"}}
    assert passes([{**at, "Condition": "Equals", "Value": "red"}]) is True
    assert passes([{**at, "Condition": "IsIn", "Values": ["blue"]}]) is False
    assert passes([{**at, "Condition": "IsIn", "Values": ["blue"]}], {"p_enrichment": {}}) is True


OPERANDS: dict[str, dict[str, Any]] = {
    name: {"Values": ["a"]} if comparison.of_many else {"Value": "10.0.0.0/8" if "CIDR" in name else "a"}
    for name, comparison in COMPARISONS.items()
}


@pytest.mark.parametrize("name", [*COMPARISONS, *ADDRESS])
def test_an_absent_field_passes_every_filter_that_compares_and_only_inverse_detections(name: str) -> None:
    expression = {"KeyPath": "missing.field", "Condition": name, **OPERANDS.get(name, {})}

    assert passes([expression]) is True
    assert detects([expression]) is (name in COMPARISONS and COMPARISONS[name].inverse)


@pytest.mark.parametrize("name", [*COMPARISONS, *ADDRESS])
def test_a_null_passes_only_inverse_filters(name: str) -> None:
    expression = {"KeyPath": "nothing", "Condition": name, **OPERANDS.get(name, {})}
    inverse = name in COMPARISONS and COMPARISONS[name].inverse

    assert passes([expression]) is inverse
    assert detects([expression]) is inverse


@pytest.mark.parametrize("name", PRESENCE)
def test_filters_that_ask_for_presence_mean_it(name: str) -> None:
    expression = {"KeyPath": "missing", "Condition": name}

    assert passes([expression]) is (name in ("DoesNotExist", "IsNull", "IsNullOrEmpty"))
    assert detects([expression]) is passes([expression])


# --- the other keys of a rule ------------------------------------------------------------------------------------


def test_only_what_is_given_is_made() -> None:
    assert set(functions("Detection: [{Condition: AlwaysTrue}]")) == {"rule"}
    assert set(functions("AlertTitle: text")) == {"title"}
    assert functions("RuleID: A.Rule") == {}
    assert set(functions("GroupBy: []\nAlertContext: []\nDynamicSeverities: []")) == {"alert_context", "severity"}


TITLES = {
    "plain": "plain",
    "": "",
    "Repository [{action}] archived.": "Repository [repo.archived] archived.",
    "{user.name}{USER.NAME}": "annann",
    "{count} of {limit}": "7 of 5",
    "{user.ips}": '["10.0.0.1", "8.8.8.8"]',
    "{items[0].kind} {items[*].age}": "key [3, 9]",
    "{missing} {nothing} {user.missing.more}": "<unknown> <unknown> <unknown>",
    "a } b {": "a } b {",
}


@pytest.mark.parametrize("title", TITLES)
def test_a_title_shows_fields(title: str) -> None:
    assert functions({"AlertTitle": title})["title"](PantherEvent(EVENT)) == TITLES[title]


def test_a_title_writes_booleans_as_json_does() -> None:
    assert functions("AlertTitle: '{it}'")["title"](PantherEvent({"it": True})) == "true"


def test_alert_context_holds_what_the_keys_find() -> None:
    made = functions(
        """
        AlertContext:
          - KeyName: what
            KeyValue: {Key: action}
          - KeyName: who
            KeyValue: {KeyPath: user.name}
          - KeyName: where
            KeyValue: {KeyPath: no.where}
          - KeyName: team
            KeyValue: {Enrichment: {Table: hosts, Selector: src.ip, FieldPath: owner}}
        """
    )
    assert made["alert_context"](PantherEvent(EVENT)) == {
        "what": "repo.archived",
        "who": "ann",
        "where": None,
        "team": {"team": "red"},
    }


def dedup(*paths: str, event: dict[str, Any] = EVENT) -> Any:
    return functions({"GroupBy": [{"KeyPath": path} for path in paths]})["dedup"](PantherEvent(event))


def test_one_key_groups_by_its_value() -> None:
    assert dedup("action") == "repo.archived"
    assert dedup("count") == "7"
    assert dedup("missing") == dedup("nothing") == ""


def test_several_keys_group_by_all_their_values_told_apart() -> None:
    assert dedup("action", "count") == '["repo.archived", 7]'
    assert dedup("action", "missing") == '["repo.archived", null]'
    assert dedup("x", "y", event={"x": "a", "y": "bc"}) != dedup("x", "y", event={"x": "ab", "y": "c"})


def test_the_first_severity_whose_conditions_hold_is_taken() -> None:
    severity = functions(
        """
        DynamicSeverities:
          - ChangeTo: Critical
            Conditions: [{Key: n, Condition: IsGreaterThan, Value: 9}, {Key: m, Condition: Equals, Value: 1}]
          - ChangeTo: low
            Conditions: [{Key: n, Condition: IsGreaterThan, Value: 5}]
          - ChangeTo: INFO
            Conditions: [{Key: n, Condition: IsGreaterThan, Value: 1}]
        """
    )["severity"]
    events = [{"n": 10, "m": 1}, {"n": 10}, {"n": 3}, {"n": 0}, {}]
    assert [severity(PantherEvent(event)) for event in events] == ["CRITICAL", "LOW", "INFO", "DEFAULT", "DEFAULT"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "A", "b", "", "p_any_x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
PATHS = ["a", "a.b", "A[0]", "a[*]", "a[*].b", "b.a[*][0]", "p_any_x[*].a", "a.a.a"]
PAIRS = [(path, other) for path in PATHS for other in PATHS]
ONE_KEY = [
    {"KeyPath": path, "Condition": name, **OPERANDS.get(name, {})}
    for path in PATHS
    for name in [*COMPARISONS, *ADDRESS, *PRESENCE]
]
TWO_KEYS = [
    {"Condition": name, "Values": [{"KeyPath": path}, {"KeyPath": other}]}
    for path, other in PAIRS
    for name in ("Equals", "Has", "IContains", "IsLessThan")
]
IN_LISTS = [
    {"KeyPath": path, "Condition": name, "Expressions": [{"KeyPath": other, "Condition": "Exists"}]}
    for path, other in PAIRS
    for name in ("AllElements", "OnlyOneElement")
]
EVERYTHING = {
    "Detection": [{"OnlyOne": [*ONE_KEY, *TWO_KEYS, *IN_LISTS]}],
    "AlertTitle": "".join(f"{{{path}}}" for path in PATHS),
    "AlertContext": [{"KeyName": path, "KeyValue": {"KeyPath": path}} for path in PATHS],
    "GroupBy": [{"KeyPath": path} for path in PATHS],
}
ALL_FUNCTIONS = functions(EVERYTHING)


@given(st.dictionaries(st.sampled_from(["a", "A", "b", "p_any_x"]), JSON, max_size=4))
def test_no_event_makes_a_function_raise(data: dict[str, Any]) -> None:
    event = PantherEvent(data)
    assert type(ALL_FUNCTIONS["rule"](event)) is bool
    assert type(ALL_FUNCTIONS["title"](event)) is str
    assert type(ALL_FUNCTIONS["dedup"](event)) is str
    assert list(ALL_FUNCTIONS["alert_context"](event)) == PATHS


def test_a_value_nested_too_deep_for_json_is_named_so() -> None:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    event = PantherEvent({"it": value})
    assert functions("AlertTitle: '{it}'")["title"](event) == "<nested too deep>"
    assert functions("GroupBy: [{Key: it}]")["dedup"](event) == "<nested too deep>"


# --- refusals ----------------------------------------------------------------------------------------------------

REFUSED_DETECTIONS = {
    "Detection: []": (("Detection",), "Detection is empty"),
    "Detection: {Key: a, Condition: Exists}": (("Detection",), "Detection holds {'Key': 'a', 'Condition': 'Exists'}"),
    "Detection:": (("Detection",), "Detection holds None"),
    "Detection: [text]": (("Detection", 0), "'text' is no expression"),
    "Detection: [{Kee: a, Condition: Exists}]": (("Detection", 0, "Kee"), "unknown key 'Kee'"),
    "Detection: [{Key: a}]": (("Detection", 0), "Condition is missing"),
    "Detection: [{Key: a, Condition: Equal, Value: x}]": (("Detection", 0, "Condition"), "unknown condition 'Equal'"),
    "Detection: [{Key: a, Condition: [Equals], Value: x}]": (("Detection", 0, "Condition"), "unknown condition ['Equals']"),
    "Detection: [{Key: a, Condition: Equals}]": (("Detection", 0), "Value is missing"),
    "Detection: [{Key: a, Condition: Equals, Values: [x]}]": (("Detection", 0, "Values"), "Equals takes no Values"),
    "Detection: [{Key: a, Condition: IsIn, Value: x}]": (("Detection", 0, "Value"), "IsIn takes no Value"),
    "Detection: [{Key: a, Condition: Exists, Value: x}]": (("Detection", 0, "Value"), "Exists takes no Value"),
    "Detection: [{Key: a, Condition: IsIPAddress, Values: []}]": (
        ("Detection", 0, "Values"), "IsIPAddress takes no Values"),
    "Detection: [{Key: a, Condition: AnyElement}]": (("Detection", 0), "Expressions is missing"),
    "Detection: [{Key: a, Condition: AnyElement, Expressions: x}]": (
        ("Detection", 0, "Expressions"), "Expressions holds 'x'"),
    "Detection: [{Key: a, Condition: Has, Value: x, Expressions: []}]": (
        ("Detection", 0, "Expressions"), "Has takes no Expressions"),
    "Detection: [{Key: a, Condition: AnyElement, Expressions: [{Key: b, Condition: Is}]}]": (
        ("Detection", 0, "Expressions", 0, "Condition"), "unknown condition 'Is'"),
    "Detection: [{Condition: Exists}]": (("Detection", 0), "Exists has no key"),
    "Detection: [{Condition: Equals, Value: x}]": (("Detection", 0), "Equals has no key"),
    "Detection: [{Condition: IsIn, Values: [x, y]}]": (("Detection", 0), "IsIn has no key"),
    "Detection: [{Condition: AnyElement, Expressions: []}]": (("Detection", 0), "AnyElement has no key"),
    "Detection: [{Condition: Equals}]": (("Detection", 0), "Values is missing"),
    "Detection: [{Condition: Equals, Values: [{Key: a}]}]": (("Detection", 0, "Values"), "Values holds [{'Key': 'a'}]"),
    "Detection: [{Condition: Equals, Values: [{Key: a}, b]}]": (("Detection", 0, "Values", 1), "'b' names no field"),
    "Detection: [{Key: a, KeyPath: b, Condition: Exists}]": (
        ("Detection", 0, "KeyPath"), "Key and KeyPath in one expression"),
    "Detection: [{Key: a, Condition: AlwaysTrue}]": (("Detection", 0, "Key"), "AlwaysTrue takes no key"),
    "Detection: [{Condition: AlwaysTrue, Value: x}]": (("Detection", 0, "Value"), "AlwaysTrue takes no Value"),
    "Detection: [{All: [], Any: []}]": (("Detection", 0), "All stands beside Any"),
    "Detection: [{None: [], Key: a, Condition: Exists}]": (("Detection", 0), "None stands beside Key, Condition"),
    "Detection: [{Any: {Key: a}}]": (("Detection", 0, "Any"), "Any holds {'Key': 'a'}"),
    "Detection: [{OnlyOne: [{None: [5]}]}]": (("Detection", 0, "OnlyOne", 0, "None", 0), "5 is no expression"),
    "Detection: [{Key: 5, Condition: Exists}]": (("Detection", 0, "Key"), "Key holds 5"),
    "Detection: [{Key: '', Condition: Exists}]": (("Detection", 0, "Key"), "Key holds ''"),
    "Detection: [{DeepKey: a, Condition: Exists}]": (("Detection", 0, "DeepKey"), "DeepKey holds 'a'"),
    "Detection: [{DeepKey: [], Condition: Exists}]": (("Detection", 0, "DeepKey"), "DeepKey holds []"),
    "Detection: [{DeepKey: [0], Condition: Exists}]": (("Detection", 0, "DeepKey"), "DeepKey holds [0]"),
    "Detection: [{DeepKey: [a, true], Condition: Exists}]": (("Detection", 0, "DeepKey"), "DeepKey holds ['a', True]"),
    "Detection: [{DeepKey: [a, ''], Condition: Exists}]": (("Detection", 0, "DeepKey"), "DeepKey holds ['a', '']"),
    "Detection: [{Key: a, Condition: Equals, Value: [x]}]": (
        ("Detection", 0, "Value"), "Equals compares with a text, a number, true or false, not ['x']"),
    "Detection: [{Key: a, Condition: Equals, Value: null}]": (
        ("Detection", 0, "Value"), "Equals compares with a text, a number, true or false, not None"),
    "Detection: [{Key: a, Condition: StartsWith, Value: 5}]": (
        ("Detection", 0, "Value"), "StartsWith compares with a text, not 5"),
    "Detection: [{Key: a, Condition: IsLessThan, Value: true}]": (
        ("Detection", 0, "Value"), "IsLessThan compares with a number or a text, not True"),
    "Detection: [{Key: a, Condition: IsIn, Values: x}]": (
        ("Detection", 0, "Values"), "IsIn compares with a list of texts, numbers, true or false, not 'x'"),
    "Detection: [{Key: a, Condition: IsIPAddressInCIDR, Value: 10.0.0.0/33}]": (
        ("Detection", 0, "Value"), "IsIPAddressInCIDR compares with a network such as 10.0.0.0/8, not '10.0.0.0/33'"),
    "Detection: [{Enrichment: hosts, Condition: Exists}]": (("Detection", 0, "Enrichment"), "'hosts' is no mapping"),
    "Detection: [{Enrichment: {Table: t, Selector: s}, Condition: Exists}]": (
        ("Detection", 0, "Enrichment"), "FieldPath is missing"),
    "Detection: [{Enrichment: {Table: t, Selector: s, FieldPath: f, Row: 1}, Condition: Exists}]": (
        ("Detection", 0, "Enrichment", "Row"), "unknown key 'Row'"),
    "Detection: [{Enrichment: {Table: t, Selector: '', FieldPath: f}, Condition: Exists}]": (
        ("Detection", 0, "Enrichment", "Selector"), "Selector holds ''"),
    "Detection: [{Enrichment: {Table: t, Selector: s, FieldPath: f..g}, Condition: Exists}]": (
        ("Detection", 0, "Enrichment", "FieldPath"), "'f..g' is no path"),
    "Detection: [{Key: a, Condition: AnyElement, Expressions: "
    "[{Enrichment: {Table: t, Selector: s, FieldPath: f}, Condition: Exists}]}]": (
        ("Detection", 0, "Expressions", 0, "Enrichment"), "an element has no enrichment"),
    "AlertTitle: 5": (("AlertTitle",), "AlertTitle holds 5"),
    "AlertTitle: 'a {} b'": (("AlertTitle",), "'' is no path"),
    "AlertTitle: '{a b[x]}'": (("AlertTitle",), "'a b[x]' is no path"),
    "AlertContext: text": (("AlertContext",), "AlertContext holds 'text'"),
    "AlertContext: [text]": (("AlertContext", 0), "'text' is no mapping"),
    "AlertContext: [{KeyName: a}]": (("AlertContext", 0), "KeyValue is missing"),
    "AlertContext: [{KeyName: a, KeyValue: {Key: b}, KeyFoo: c}]": (("AlertContext", 0, "KeyFoo"), "unknown key 'KeyFoo'"),
    "AlertContext: [{KeyName: 5, KeyValue: {Key: b}}]": (("AlertContext", 0, "KeyName"), "KeyName holds 5"),
    "AlertContext: [{KeyName: a, KeyValue: b}]": (("AlertContext", 0, "KeyValue"), "'b' names no field"),
    "AlertContext: [{KeyName: a, KeyValue: {Key: b}}, {KeyName: a, KeyValue: {Key: c}}]": (
        ("AlertContext", 1, "KeyName"), "KeyName 'a' is twice"),
    "GroupBy: user": (("GroupBy",), "GroupBy holds 'user'"),
    "GroupBy: [user]": (("GroupBy", 0), "'user' names no field"),
    "GroupBy: [{Key: a, KeyPath: b}]": (("GroupBy", 0), "{'Key': 'a', 'KeyPath': 'b'} names no field"),
    "GroupBy: [{Field: a}]": (("GroupBy", 0), "{'Field': 'a'} names no field"),
    "GroupBy: [{KeyPath: 5}]": (("GroupBy", 0, "KeyPath"), "5 is no path"),
    "DynamicSeverities: high": (("DynamicSeverities",), "DynamicSeverities holds 'high'"),
    "DynamicSeverities: [high]": (("DynamicSeverities", 0), "'high' is no mapping"),
    "DynamicSeverities: [{ChangeTo: High}]": (("DynamicSeverities", 0), "Conditions is missing"),
    "DynamicSeverities: [{ChangeTo: Worse, Conditions: []}]": (
        ("DynamicSeverities", 0, "ChangeTo"), "'Worse' is no severity"),
    "DynamicSeverities: [{ChangeTo: 5, Conditions: []}]": (("DynamicSeverities", 0, "ChangeTo"), "5 is no severity"),
    "DynamicSeverities: [{ChangeTo: Low, Conditions: [x]}]": (
        ("DynamicSeverities", 0, "Conditions", 0), "'x' is no expression"),
}  # fmt: skip

REFUSED_FILTERS = {
    "": (("InlineFilters",), "InlineFilters holds None"),
    "{All: []}": (("InlineFilters",), "InlineFilters holds {'All': []}"),
    "[{Key: a, Condition: Exists}]": (("InlineFilters", 0, "Key"), "InlineFilters do not know Key"),
    "[{DeepKey: [a], Condition: Exists}]": (("InlineFilters", 0, "DeepKey"), "InlineFilters do not know DeepKey"),
    "[{OnlyOne: []}]": (("InlineFilters", 0, "OnlyOne"), "InlineFilters do not know OnlyOne"),
    "[{All: [{None: []}]}]": (("InlineFilters", 0, "All", 0, "None"), "InlineFilters do not know None"),
    "[{KeyPath: a, Condition: AnyElement, Expressions: []}]": (
        ("InlineFilters", 0), "InlineFilters do not know the condition AnyElement"),
    "[{Condition: AlwaysTrue}]": (("InlineFilters", 0), "InlineFilters do not know conditions without a key"),
    "[{Condition: Equals, Values: [{KeyPath: a}, {KeyPath: b}]}]": (
        ("InlineFilters", 0), "InlineFilters do not know conditions without a key"),
    "[{KeyPath: a, Condition: Equals, Value: {}}]": (
        ("InlineFilters", 0, "Value"), "Equals compares with a text, a number, true or false, not {}"),
    "[{Any: [{KeyPath: a..b, Condition: Exists}]}]": (("InlineFilters", 0, "Any", 0, "KeyPath"), "'a..b' is no path"),
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED_DETECTIONS)
def test_what_a_detection_cannot_mean_is_refused_with_its_place(text: str) -> None:
    refused = Refused()
    assert compile_detection(document(text), refused) is None
    assert [problem[:2] for problem in refused] == [REFUSED_DETECTIONS[text]]
    assert all(remedy for _, _, remedy in refused)


@pytest.mark.parametrize("text", REFUSED_FILTERS)
def test_what_a_filter_cannot_mean_is_refused_with_its_place(text: str) -> None:
    refused = Refused()
    assert compile_filters(document(f"InlineFilters: {text}")["InlineFilters"], refused) is None
    assert [problem[:2] for problem in refused] == [REFUSED_FILTERS[text]]
    assert all(remedy for _, _, remedy in refused)


@pytest.mark.parametrize(
    "path",
    [".a", "a.", "a..b", "[0]", "[*].a", "a[", "a[]", "a[x]", "a[1", "a]", 'a"b"', '"a', "", "a[1].", 'a.""', "a[1]b"],
)
def test_a_malformed_path_is_refused(path: str) -> None:
    refused = Refused()
    assert compile_detection({"Detection": [{"KeyPath": path, "Condition": "Exists"}]}, refused) is None
    assert [where for where, _, _ in refused] == [("Detection", 0, "KeyPath")]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("equals", "Equals"),
        ("NotEquals", "DoesNotEqual"),
        ("IsGreaterOrEqual", "IsGreaterThanOrEqual"),
        ("DoesNotStartsWith", "DoesNotStartWith"),
        ("IsIpAddressInCidr", "IsIPAddressInCIDR"),
        ("IsNotNul", "IsNotNull"),
        ("anyelement", "AnyElement"),
        ("AlwaysTru", "AlwaysTrue"),
    ],
)
def test_a_misspelled_condition_is_told_what_was_meant(wrong: str, right: str) -> None:
    refused = Refused()
    compile_detection({"Detection": [{"Key": "a", "Condition": wrong, "Value": "x"}]}, refused)
    assert [remedy for _, _, remedy in refused] == [f"write {right}"]


def test_misspelled_keys_are_told_what_was_meant() -> None:
    refused = Refused()
    compile_detection(document("Detection: [{keypath: a, Conditon: Exists}]\nAlertContext: [{Keyname: a}]"), refused)
    assert [remedy for _, _, remedy in refused] == [
        "write KeyPath", "write Condition", "add KeyName", "add KeyValue", "write KeyName"]  # fmt: skip


def test_all_problems_are_reported_at_once() -> None:
    refused = Refused()
    text = """
    Detection:
      - {Key: a, Condition: Equal, Value: 1}
      - Any: [{Key: 5, Condition: Exists}, {Key: b, Condition: StartsWith, Value: 1}]
    AlertTitle: '{a..b}'
    GroupBy: [x]
    """
    assert compile_detection(document(text), refused) is None
    assert [where for where, _, _ in refused] == [
        ("Detection", 0, "Condition"),
        ("Detection", 1, "Any", 0, "Key"),
        ("Detection", 1, "Any", 1, "Value"),
        ("AlertTitle",),
        ("GroupBy", 0),
    ]


def test_an_expression_inside_itself_is_refused_once() -> None:
    refused = Refused()
    assert compile_detection(document("Detection: &it [{All: *it}, {Any: *it}]"), refused) is None
    ((_, message, _),) = refused
    assert message == "more than 30 expressions in one another"


WORDS = [
    "Key",
    "DeepKey",
    "KeyPath",
    "Enrichment",
    "Table",
    "Condition",
    "Value",
    "Values",
    "Expressions",
    "All",
    "None",
    "ChangeTo",
    "Conditions",
    "KeyName",
    "KeyValue",
]
SCRAPS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=3)
    | st.sampled_from(["Equals", "IsIn", "Exists", "a.b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*WORDS, 5, None]), inner, max_size=4),
    max_leaves=10,
)
RULE_KEYS = ["Detection", "AlertTitle", "AlertContext", "GroupBy", "DynamicSeverities"]


@given(st.dictionaries(st.sampled_from(RULE_KEYS), SCRAPS | st.lists(SCRAPS, max_size=3)), SCRAPS)
def test_no_yaml_makes_the_compiler_raise(rule: dict[str, Any], filters: Any) -> None:
    refused = Refused()
    made = compile_detection(rule, refused)
    assert (made is None) is bool(refused)
    for function in (made or {}).values():
        function(PantherEvent(EVENT))
    test = compile_filters(filters, refused)
    assert test is None or type(test(PantherEvent(EVENT))) is bool


# --- guards ------------------------------------------------------------------------------------------------------


def clauses(text: str) -> list[str]:
    return sorted(map(clause_text, facts_of(text)))


def facts_of(text: str) -> Facts:
    functions(text)
    return facts_of_detection(document(text))


GUARDED = {
    "Detection: [{Key: x, Condition: Equals, Value: v}]": ["x is 'v'"],
    "Detection: [{KeyPath: x, Condition: Equals, Value: v}]": ["x is 'v'"],
    "Detection: [{KeyPath: '\"a.b\"', Condition: Equals, Value: v}]": ["a.b is 'v'"],
    "Detection: [{KeyPath: x.y, Condition: Equals, Value: v}]": ["x.y is 'v'"],
    "Detection: [{DeepKey: [x, y], Condition: Equals, Value: v}]": ["x.y is 'v'"],
    "Detection: [{Key: x, Condition: Equals, Value: 5}]": ["x is 5"],
    "Detection: [{Key: x, Condition: Equals, Value: true}]": ["x is true"],
    "Detection: [{Key: x, Condition: IsNull}]": ["x is absent or null"],
    "Detection: [{Key: x, Condition: IsIn, Values: [v, w]}]": ["x is 'v' or 'w'"],
    "Detection: [{Key: x, Condition: IsIn, Values: [v, 5]}]": ["x is 'v' or 5"],
    "Detection: [{Key: y, Condition: Exists}, {All: [{Key: x, Condition: Equals, Value: v}]}]": ["x is 'v'"],
    "Detection: [{Any: [{Key: x, Condition: Equals, Value: v}, {Key: y, Condition: Equals, Value: w}]}]": [
        "x is 'v' or y is 'w'"
    ],
    "Detection: [{Key: y, Condition: IsIn, Values: [v, w]}, {Key: x, Condition: Equals, Value: v}]": [
        "x is 'v'",
        "y is 'v' or 'w'",
    ],
}

UNGUARDED = [
    "Detection: [{Key: x, Condition: Equals, Value: 0.5}]",
    "Detection: [{Key: x, Condition: Equals, Value: 99999999999999999999}]",
    "Detection: [{Key: x, Condition: IEquals, Value: v}]",
    "Detection: [{Key: x, Condition: DoesNotEqual, Value: v}]",
    "Detection: [{Key: x, Condition: IsNotIn, Values: [v]}]",
    "Detection: [{Key: p_log_type, Condition: Equals, Value: v}]",
    "Detection: [{Key: P_source, Condition: Equals, Value: v}]",
    "Detection: [{KeyPath: 'x[0]', Condition: Equals, Value: v}]",
    "Detection: [{KeyPath: 'x[*].y', Condition: Equals, Value: v}]",
    "Detection: [{Any: [{Key: x, Condition: Equals, Value: v}, {Key: y, Condition: Exists}]}]",
    "Detection: [{None: [{Key: x, Condition: Equals, Value: v}]}]",
    "Detection: [{OnlyOne: [{Key: x, Condition: Equals, Value: v}]}]",
    "Detection: [{Condition: Equals, Values: [{Key: x}, {Key: y}]}]",
    "Detection: [{Key: x, Condition: AnyElement, Expressions: [{Key: y, Condition: Equals, Value: v}]}]",
    "Detection: [{Condition: AlwaysTrue}]",
    "AlertTitle: text",
]


@pytest.mark.parametrize("text", GUARDED)
def test_what_a_field_must_equal_is_a_guard(text: str) -> None:
    assert clauses(text) == GUARDED[text]


@pytest.mark.parametrize("text", UNGUARDED)
def test_whatever_else_is_no_guard(text: str) -> None:
    assert clauses(text) == []


def events() -> Iterable[dict[str, Any]]:
    for value in ("v", "w", "V", "", None, 5, True, 1, ["v"], {"y": "v"}, {"Y": "v"}):
        yield from ({"x": value}, {"X": value}, {"a.b": value, "y": "w"}, {"x": value, "y": "v"}, {"y": value})
        yield {"x": value, "y": "q"}


@pytest.mark.parametrize("text", GUARDED)
def test_no_detection_holds_for_an_event_that_its_guard_leaves_out(text: str) -> None:
    rule, facts = functions(text)["rule"], facts_of(text)
    held = [event for event in events() if rule(PantherEvent(event))]
    assert held != []
    assert all(holds(facts, event) for event in held)


def test_no_filter_lets_pass_an_event_that_its_guard_leaves_out() -> None:
    texts = (
        "[{KeyPath: x, Condition: Equals, Value: v}]",
        "[{Any: [{KeyPath: x, Condition: IsIn, Values: [v, 5]}, {KeyPath: y, Condition: Equals, Value: v}]}]",
        "[{All: [{KeyPath: x, Condition: IsNull}]}, {Any: [{KeyPath: y, Condition: Exists}]}]",
    )
    for text in texts:
        filters = document(f"InlineFilters: {text}")["InlineFilters"]
        passes, facts = compile_filters(filters, Refused()), facts_of_filters(filters)
        assert passes is not None
        assert any(not holds(facts, event) for event in events()), text
        assert all(holds(facts, event) for event in [*events(), {}] if passes(PantherEvent(event)))
