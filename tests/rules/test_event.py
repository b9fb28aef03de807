"""PantherEvent behaves as PANTHER_FORMAT 1.5 says, line by line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from rules.event import ImmutableDict, PantherEvent
from rules.recall import RecalledEvent, RecordedEvent

EVENT: dict[str, Any] = {
    "eventName": "GetObject",
    "userIdentity": {"ARN": "arn:1", "nothing": None, "zero": 0, "empty": ""},
    "resources": [{"name": "a", "tags": ["x", "y"]}, {"name": "b"}, {"name": "a"}],
    "present": None,
}


@pytest.fixture(params=["plain", "recorded", "recalled"])
def event(request: pytest.FixtureRequest) -> PantherEvent:
    data = json.loads(json.dumps(EVENT))
    if request.param == "plain":
        return PantherEvent(data)
    recorded = RecordedEvent(data, None, None)
    if request.param == "recorded":
        return recorded
    recorded.get("present"), recorded.get("absent"), recorded.deep_get("userIdentity", "ARN")
    return RecalledEvent(recorded.known, 0, lambda data: (data, None), data, None)


def test_keys_are_case_insensitive_at_every_level(event: PantherEvent) -> None:
    assert event["EVENTNAME"] == event.get("eventname") == "GetObject"
    assert event["useridentity"]["arn"] == event.deep_get("UserIdentity", "Arn") == "arn:1"
    assert "EventName" in event
    assert "Arn" in event["userIdentity"]


def test_an_exact_match_wins_else_the_first_key_in_order() -> None:
    event = PantherEvent({"KEY": 1, "key": 2, "Key": 3})

    assert event["key"] == 2
    assert event["kEY"] == 1


def test_a_missing_key_is_named_as_it_was_given(event: PantherEvent) -> None:
    with pytest.raises(KeyError, match="MissingKey"):
        event["MissingKey"]
    assert "MissingKey" not in event


@pytest.mark.parametrize("key", [3, None, ("a",), ["a"]])
def test_a_key_that_is_no_text_is_an_attribute_error(event: PantherEvent, key: Any) -> None:
    for look in (event.get, event.__getitem__):
        with pytest.raises(AttributeError, match="lower"):
            look(key)


def test_get_gives_its_default_only_for_what_is_absent(event: PantherEvent) -> None:
    assert event.get("absent", 7) == 7
    assert event.get("present", 7) is None


def test_what_is_nested_is_neither_dict_nor_list_but_equal_to_them(event: PantherEvent) -> None:
    identity, resources = event["userIdentity"], event["resources"]

    assert not isinstance(identity, dict)
    assert isinstance(identity, Mapping)
    assert not isinstance(resources, list)
    assert isinstance(resources, Sequence)
    assert identity == EVENT["userIdentity"]
    assert EVENT["userIdentity"] == identity
    assert resources == EVENT["resources"] == resources
    assert resources == tuple(EVENT["resources"])
    assert event == EVENT
    assert identity != {}
    assert {"name": "b"} in resources


def test_items_are_the_keys_and_what_they_give(event: PantherEvent) -> None:
    for each in event, event["userIdentity"]:
        assert list(each.items()) == [(key, each[key]) for key in each]
        assert [type(value) for _, value in each.items()] == [type(each[key]) for key in each]
        assert all(pair in each.items() for pair in each.items())
        assert len(each.items()) == len(each)


def test_nothing_of_an_event_can_be_changed_or_hashed(event: PantherEvent) -> None:
    identity, resources = event["userIdentity"], event["resources"]

    for thing, method in ((identity, "__setitem__"), (resources, "append"), (event, "update"), (event, "pop")):
        assert not hasattr(thing, method)
    for hashing in (event, identity, resources):
        with pytest.raises(TypeError, match="unhashable"):
            hash(hashing)
    with pytest.raises(TypeError):
        resources + [1]  # noqa: RUF005
    with pytest.raises(TypeError):
        {"a": 1} | identity


def test_plain_copies_are_deep_and_can_be_changed(event: PantherEvent) -> None:
    copy = event.to_dict()
    copy["userIdentity"]["ARN"] = "changed"
    event["resources"].copy()[0]["name"] = "changed"

    assert event == EVENT
    assert type(event.copy()["resources"]) is list
    assert event["resources"].as_list() == EVENT["resources"]
    assert {**event["userIdentity"]} == dict(event["userIdentity"]) == EVENT["userIdentity"]
    assert set(event["resources"][0]["tags"]) == {"x", "y"}
    assert event["resources"][1:] == tuple(EVENT["resources"][1:])
    assert type(event["resources"][1:][0]) is dict


def test_json_needs_the_event_s_own_encoder(event: PantherEvent) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps(event)
    assert json.loads(json.dumps(event, default=PantherEvent.json_encoder)) == EVENT
    with pytest.raises(TypeError, match="set is not JSON serializable"):
        json.dumps({1}, default=PantherEvent.json_encoder)


def test_deep_get_takes_none_for_absent_keeps_what_is_falsy_and_stops_at_lists(event: PantherEvent) -> None:
    assert event.deep_get("userIdentity", "nothing", default=7) == 7
    assert event.deep_get("userIdentity", "zero", default=7) == 0
    assert event.deep_get("userIdentity", "empty", default=7) == ""
    assert event.deep_get("resources", "name", default=7) == 7
    assert event.deep_get("eventName", "name", default=7) == 7
    assert event.deep_get("absent", "name", default=7) == 7
    assert event.deep_get() is event
    assert type(event.deep_get("userIdentity")) is ImmutableDict
    assert event["userIdentity"].deep_get("arn") == "arn:1"


def test_deep_walk_goes_through_lists_without_repeating(event: PantherEvent) -> None:
    assert event.deep_walk("resources", "name") == ["a", "b"]
    assert event.deep_walk("resources", "name", return_val="first") == "a"
    assert event.deep_walk("resources", "name", return_val="last") == "b"
    assert event.deep_walk("resources", "tags") == ["x", "y"]
    assert event.deep_walk("resources", "absent") is None
    assert event.deep_walk("resources", "absent", default=7) == 7
    assert event.deep_walk("userIdentity", "zero") == 0
    assert PantherEvent({"a": [{"b": 1}, {"b": 1}]}).deep_walk("a", "b") == 1
    assert PantherEvent({"a": [[{"b": 1}], {"b": 2}]}).deep_walk("a", "b") == [1, 2]
    assert PantherEvent({"a": {"b": []}}).deep_walk("a", "b", default=7) == 7
    assert event.deep_walk() == event.to_dict()


def test_deep_walk_is_case_sensitive(event: PantherEvent) -> None:
    assert event.deep_walk("userIdentity", "arn") is None
    assert event.deep_walk("userIdentity", "ARN") == "arn:1"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ([{"p": 1}], [{"p": 1}]), ([5, 5], [5, 5]), ([[1]], [[1]]), ([None], [None]), ({"p": [1]}, {"p": [1]}), ({}, {}),
        ("", ""), (0, 0), (False, False), ([], 7), (None, 7),
    ],
)  # fmt: skip
def test_deep_walk_gives_what_stands_at_a_path_without_lists_as_it_is(value: Any, found: Any) -> None:
    for event, keys in ((PantherEvent({"a": value}), ("a",)), (PantherEvent({"a": {"b": value}}), ("a", "b"))):
        for return_val in ("all", "first", "last"):
            answer = event.deep_walk(*keys, default=7, return_val=return_val)
            assert (answer, type(answer)) == (found, type(found))  # plain, so that rules may change it


@pytest.mark.parametrize(
    ("items", "found"),
    [
        ([{"b": [1, 2]}, {"b": [3]}], [1, 2, 3]), ([{"b": 1}, {"b": [2, 1]}], [1, 2]), ([{"b": [1]}], 1),
        ([[{"b": [1, 2]}], [{"b": 3}]], [1, 2, 3]), ([{"b": [None, 1]}], [None, 1]), ([{"b": ""}], ""),
        ([{"b": None}, {"b": 1}, {}, None, "text", {"b": []}], 1), ([{}], None), (["text"], None), ([], None),
    ],
)  # fmt: skip
def test_deep_walk_opens_the_lists_at_the_ends_of_a_path_through_a_list(items: Any, found: Any) -> None:
    assert PantherEvent({"a": items}).deep_walk("a", "b") == found


@pytest.mark.parametrize(
    ("items", "default", "found"),
    [
        ([{"b": 1}, {}, {"b": 3}], "", [1, "", 3]), ([{"b": []}, {"b": 1}], 0, [0, 1]), ([{"b": 1}, "text"], [], 1),
        ([{"b": 1}, None], ["x", "y"], [1, "x", "y"]), ([{}], ["x"], "x"), ([[], {"b": 1}], "D", ["D", 1]), ([], [], []),
        ([{}], "D", "D"),
    ],
)  # fmt: skip
def test_deep_walk_counts_items_without_a_value_with_the_default(items: Any, default: Any, found: Any) -> None:
    assert PantherEvent({"a": items}).deep_walk("a", "b", default=default) == found


@pytest.mark.parametrize("leaf", [{"c": 1}, [{"c": 1}], [[1], [2]]])
def test_deep_walk_refuses_dicts_and_lists_of_lists_among_the_values_of_a_list(leaf: Any) -> None:
    with pytest.raises(TypeError, match="unhashable"):
        PantherEvent({"a": [{"b": leaf}]}).deep_walk("a", "b")


def test_deep_walk_answers_a_return_val_that_it_does_not_know_with_the_text_all() -> None:
    assert PantherEvent({"a": [{"b": 1}]}).deep_walk("a", "b", return_val="every") == "all"


@pytest.mark.parametrize(
    ("text", "epoch_s"),
    [
        ("2024-03-01 12:00:00.123456789", 1_709_294_400),
        ("2024-03-01 12:00:00", 1_709_294_400),
        ("2024-03-01T12:00:00Z", 0),
        ("2024-03-01 14:00:00+02:00", 0),
        ("yesterday", 0),
        (None, 0),
        (1_709_294_400, 0),
    ],
)
def test_event_time_epoch_reads_times_without_a_zone_and_gives_0_for_others(text: Any, epoch_s: int) -> None:
    assert PantherEvent({"p_event_time": text}).event_time_epoch() == epoch_s
    assert PantherEvent({}).event_time_epoch() == 0


def test_udm_without_a_model_looks_under_p_udm_then_on_the_event_and_replaces_what_is_falsy() -> None:
    event = PantherEvent({"p_udm": {"user": "from udm"}, "user": "own", "count": 0, "source": {"ip": "1.1.1.1"}})

    assert event.udm("user") == "from udm"
    assert event.udm("count", default=7) == 7
    assert event.udm("source", "ip") == "1.1.1.1"
    with pytest.raises(Exception, match="no data model maps user"):
        event.udm_path("user")


def test_lookup_reads_what_a_test_wrote_into_the_event() -> None:
    event = PantherEvent({"_mocked_lookup_data_": {"assets": {"i-1": {"owner": "alice"}}}})

    assert event.lookup("assets", "i-1") == {"owner": "alice"}
    assert event.lookup("assets", "i-2") is None


class Derived:
    """Counts how often it is asked."""

    time_s = 1_709_294_400.5

    def __init__(self) -> None:
        self.asked: list[str] = []

    def base(self) -> dict[str, Any]:
        self.asked.append("base")
        return {"p_log_type": "Some.Log", "p_event_time": "2024-03-01 12:00:00.500000000"}

    def any(self) -> dict[str, Any]:
        self.asked.append("any")
        return {"p_any_ip_addresses": ["1.1.1.1"]}


def test_derived_fields_are_asked_for_once_and_only_when_missed() -> None:
    derived = Derived()
    event = PantherEvent({"a": 1}, derived)

    assert event.get("a") == 1
    assert event.get("absent") is None
    assert event.event_time_epoch() == 1_709_294_400
    assert derived.asked == []
    assert event["p_log_type"] == event.get("P_Log_Type") == "Some.Log"
    assert event.get("p_source_label") is None
    assert derived.asked == ["base"]
    assert event.deep_get("p_any_ip_addresses") == ["1.1.1.1"]
    assert event.deep_walk("p_any_ip_addresses") == ["1.1.1.1"]
    assert "p_any_usernames" not in event
    assert derived.asked == ["base", "any"]


@pytest.mark.parametrize("look", [len, list, dict, PantherEvent.to_dict, repr, lambda event: list(event.items())])
def test_looking_at_the_whole_event_includes_derived_fields(look: Any) -> None:
    derived = Derived()
    look(PantherEvent({"a": 1}, derived))

    assert derived.asked == ["base", "any"]
    assert PantherEvent({"a": 1}, Derived()).to_dict().keys() == {
        "p_log_type",
        "p_event_time",
        "p_any_ip_addresses",
        "a",
    }


def test_what_the_source_wrote_wins_over_what_is_derived() -> None:
    event = PantherEvent({"p_log_type": "Own.Log"}, Derived())

    assert event["p_event_time"].startswith("2024-03-01")
    assert event["p_log_type"] == "Own.Log"
    assert event.original == {"p_log_type": "Own.Log"}


def test_the_order_of_added_fields_does_not_depend_on_which_was_asked_for_first() -> None:
    class Derived:
        time_s = 0.0

        def base(self) -> dict[str, Any]:
            return {"p_log_type": "L", "p_row_id": "r"}

        def any(self) -> dict[str, Any]:
            return {"p_any_ip_addresses": ["1.2.3.4"]}

    orders = []
    for first in ("p_any_ip_addresses", "p_row_id", "a"):
        event = PantherEvent({"a": 1}, Derived())
        event.get(first)
        orders.append(list(event))

    assert orders[0] == orders[1] == orders[2] == ["p_log_type", "p_row_id", "p_any_ip_addresses", "a"]
