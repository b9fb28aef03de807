"""What a pack adds to events: data models through udm(), lookup tables through p_enrichment and lookup(). And odd keys."""

from __future__ import annotations

from typing import Any

import pytest

from rules.datamodels import build_model
from rules.event import ImmutableDict, PantherError, PantherEvent

ROW = {"owner": "alice"}


class Context:
    """Counts how often it is asked for enrichment, and keeps what it was shown."""

    def __init__(self, found: dict[str, Any] | None = None, **mappings: str) -> None:
        def refuse(*problem: object) -> None:
            raise AssertionError(problem)

        listed = [{"Name": name, "Path": path} for name, path in mappings.items()]
        self.model = build_model("Model", frozenset(), listed, {}, refuse) if mappings else None
        self.found = found or {}
        self.enriches = True
        self.shown: list[dict[str, Any]] = []

    def enrichment(self, event: dict[str, Any]) -> dict[str, Any]:
        self.shown.append(event)
        return self.found

    def lookup(self, table: str, key: Any) -> Any:
        return ROW if (table, key) == ("assets", "i-1") else None


class Derived:
    time_s = 0.0

    def base(self) -> dict[str, Any]:
        return {"p_log_type": "Some.Log"}

    def any(self) -> dict[str, Any]:
        return {"p_any_ip_addresses": ["10.0.0.1"]}


def test_udm_gives_what_the_model_s_path_finds_null_and_falsy_values_too() -> None:
    event = PantherEvent({"user": {"name": "ann", "none": None, "zero": 0}}, None, Context(actor="$.user.name"))
    falsy = PantherEvent(event.original, None, Context(none="user.none", zero="user.zero"))

    assert event.udm("actor", default=7) == "ann"
    assert falsy.udm("none", default=7) is None
    assert falsy.udm("zero", default=7) == 0


def test_udm_gives_the_default_where_a_mapped_path_finds_nothing() -> None:
    event = PantherEvent({"actor": "own", "p_udm": {"actor": "from udm"}}, None, Context(actor="$.user.name"))

    assert event.udm("actor", default=7) == 7
    assert event.udm("actor") is None


def test_udm_looks_under_p_udm_and_on_the_event_for_what_the_model_does_not_map() -> None:
    data = {"p_udm": {"host": "from udm", "a": {"b": 2}}, "host": "own", "count": 0, "source": {"ip": "1.1.1.1"}}
    event = PantherEvent(data, None, Context(actor="user", source="user"))

    assert event.udm("host") == "from udm"
    assert event.udm("count", default=7) == 7
    assert event.udm("source", "ip") == "1.1.1.1"  # several keys are no name of a model
    assert event.udm("a", "b") == 2


def test_udm_raises_where_a_path_matches_several_values() -> None:
    event = PantherEvent({"users": [{"name": "ann"}, {"name": "bob"}]}, None, Context(actor="$.users[*].name"))

    with pytest.raises(PantherError, match=r"users\[\*\].name matches 2 values"):
        event.udm("actor")


def test_what_udm_gives_is_immutable() -> None:
    event = PantherEvent({"user": {"name": "ann"}}, None, Context(user="user"))

    assert type(event.udm("user")) is ImmutableDict


def test_udm_path_is_the_path_without_its_root() -> None:
    event = PantherEvent({}, None, Context(source_ip="$.client.ipAddress", actor="user"))

    assert event.udm_path("source_ip") == "client.ipAddress"
    assert event.udm_path("actor") == "user"


def test_udm_path_of_what_the_model_does_not_map_is_where_udm_looks() -> None:
    event = PantherEvent({"p_udm": {"host": "h"}}, None, Context(actor="user"))

    assert event.udm_path("host") == "p_udm.host"
    assert event.udm_path("source", "ip") == "source.ip"


def test_a_context_without_a_model_is_as_no_context() -> None:
    event = PantherEvent({"user": "ann"}, None, Context())

    assert event.udm("user") == "ann"
    with pytest.raises(PantherError, match="no data model maps user"):
        event.udm_path("user")


def test_enrichment_is_made_once_and_only_when_it_is_looked_for() -> None:
    context = Context({"assets": {"host": ROW}})
    event = PantherEvent({"host": "i-1"}, Derived(), context)

    assert event.get("host") == "i-1"
    assert event.get("absent") is event.get("p_source_label") is None
    assert event.deep_get("p_any_ip_addresses") == ["10.0.0.1"]
    assert context.shown == []
    assert event["p_enrichment"] == event.get("P_Enrichment") == {"assets": {"host": ROW}}
    assert event.deep_get("p_enrichment", "ASSETS", "host", "owner") == "alice"
    assert event.deep_walk("p_enrichment", "assets", "host", "owner") == "alice"
    assert len(context.shown) == 1


def test_enrichment_sees_the_fields_that_are_added_to_the_event() -> None:
    context = Context()
    PantherEvent({"host": "i-1"}, Derived(), context).get("p_enrichment")

    assert context.shown == [{"host": "i-1", "p_log_type": "Some.Log", "p_any_ip_addresses": ["10.0.0.1"]}]


def test_an_event_is_not_worked_out_for_enrichment_that_no_table_can_give() -> None:
    class Dear(Derived):
        def base(self) -> dict[str, Any]:
            raise AssertionError

        any = base

    context = Context()
    context.enriches = False
    event = PantherEvent({"host": "i-1"}, Dear(), context)

    assert event.get("p_enrichment") is None
    assert event.deep_get("p_enrichment", "assets", default=7) == 7
    assert context.shown == []


def test_deep_walk_finds_enrichment_first_thing() -> None:
    assert PantherEvent({}, None, Context({"assets": {"host": ROW}})).deep_walk("p_enrichment", "assets", "host") == ROW


def test_enrichment_is_absent_where_nothing_matches() -> None:
    event = PantherEvent({"host": "i-2"}, None, Context())

    assert "p_enrichment" not in event
    assert event.to_dict() == {"host": "i-2"}


@pytest.mark.parametrize("look", [len, list, dict, PantherEvent.to_dict, repr])
def test_looking_at_the_whole_event_includes_enrichment(look: Any) -> None:
    event = PantherEvent({"host": "i-1"}, None, Context({"assets": {"host": ROW}}))
    look(event)

    assert set(event.raw) == {"host", "p_enrichment"}


@pytest.mark.parametrize("name", ["p_enrichment", "P_ENRICHMENT"])
def test_an_event_with_enrichment_of_its_own_keeps_it(name: str) -> None:
    context = Context({"assets": {"host": ROW}})
    event = PantherEvent({name: {"own": 1}}, Derived(), context)

    assert event["p_enrichment"] == {"own": 1}
    assert len(event) == 3
    assert context.shown == []


def test_lookup_asks_the_pack_s_tables_and_its_rows_cannot_be_changed() -> None:
    event = PantherEvent({}, None, Context())

    assert event.lookup("assets", "i-1") == ROW
    assert type(event.lookup("assets", "i-1")) is ImmutableDict
    assert event.lookup("assets", "i-2") is event.lookup("other", "i-1") is None


def test_what_a_test_says_of_lookups_comes_before_the_tables() -> None:
    event = PantherEvent({"_mocked_lookup_data_": {"assets": {"i-1": {"owner": "mock"}}}}, None, Context())

    assert event.lookup("assets", "i-1") == {"owner": "mock"}
    assert event.lookup("assets", "i-2") is None


@pytest.mark.parametrize("key", [3, None, ("a",), ["a"], {}])
def test_a_key_that_is_no_text_is_an_attribute_error_everywhere(key: Any) -> None:
    event = PantherEvent({"a": {"b": 1}}, Derived(), Context(actor="user"))

    for look in (event.__contains__, event.deep_get, event.udm, lambda it: event.deep_get("a", it)):
        with pytest.raises(AttributeError, match="lower"):
            look(key)


def test_keys_of_an_event_that_are_no_texts_are_in_nobody_s_way() -> None:
    event = PantherEvent({1: "a", None: "b", "Name": {2: "c", "X": "d"}})  # type: ignore[dict-item]

    assert event.get("name", {}).get("x") == event.deep_get("NAME", "x") == "d"
    assert event.get("absent") is None


def nested(levels: int, innermost: Any, key: str | None = None) -> Any:
    """A value inside so many lists, or dicts with this key."""
    for _ in range(levels):
        innermost = [innermost] if key is None else {key: innermost}
    return innermost


def test_values_are_found_and_copied_however_deep_they_are_nested() -> None:
    lists, dicts = nested(5000, {"b": 1}), nested(5000, [1, "end"], "A")
    event = PantherEvent({"lists": lists, "dicts": dicts})

    assert event.deep_walk("lists", "b") == 1
    assert event.deep_get("dicts", *(["a"] * 5000)) == [1, "end"]
    copy, levels = event.to_dict()["dicts"], 0
    assert copy is not dicts
    while isinstance(copy, dict):
        copy, levels = copy["A"], levels + 1
    assert (levels, copy, type(copy)) == (5000, [1, "end"], list)
