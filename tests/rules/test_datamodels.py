"""Data models: which paths are understood, what functions get, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from rules.datamodels import DataModel, build_model
from rules.event import ImmutableDict, PantherError, PantherEvent
from rules.lookups import PackContext
from rules.paths import BadPath, JsonPath

EVENT: dict[str, Any] = {
    "a": {"b": {"c": 1}, "none": None, "two words": 2},
    "list": [{"x": 1}, {"x": 2, "deep": [{"y": 3}, {"y": 4}]}, "text"],
    "Upper": {"Case": 5},
    "text": "abc",
    "user-agent": 6,
    "@type": 7,
}


class Derived:
    """The p_ fields of an event, and how often each kind was worked out."""

    time_s = 0.0

    def __init__(self, **any: Any) -> None:
        self._any = any
        self.asked: list[str] = []

    def base(self) -> dict[str, Any]:
        self.asked.append("base")
        return {"p_log_type": "Some.Log"}

    def any(self) -> dict[str, Any]:
        self.asked.append("any")
        return self._any


def values(path: str, event: dict[str, Any] | None = None) -> list[Any]:
    return JsonPath(path).values(PantherEvent(EVENT if event is None else event))


def model(functions: dict[str, Any] | None = None, **mappings: dict[str, str]) -> DataModel:
    """A model whose names are mapped so."""
    problems: list[Any] = []
    listed = [{"Name": name, **mapping} for name, mapping in mappings.items()]
    made = build_model("M", frozenset({"Some.Log"}), listed, functions or {}, lambda *it: problems.append(it))
    assert made is not None, problems
    return made


def problems_of(*mappings: dict[str, str], functions: dict[str, Any] | None = None) -> list[Any]:
    problems: list[Any] = []
    made = build_model("M", frozenset(), mappings, functions or {}, lambda *it: problems.append(it))
    assert made is None
    return problems


def event_with(made: DataModel, data: dict[str, Any], derived: Any = None) -> PantherEvent:
    return PantherEvent(data, derived, PackContext(made, [], "Some.Log"))


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$.a.b.c", [1]),
        ("a.b.c", [1]),
        (" $.a.b.c ", [1]),
        ("a.b", [{"c": 1}]),
        ("a.none", [None]),
        ("a.absent", []),
        ("a.b.c.d", []),
        ("text.a", []),
        ("$.list[1].x", [2]),
        ("list[0]", [{"x": 1}]),
        ("list[9]", []),
        ("text[0]", []),
        ("a[0]", []),
        ("$[0]", []),
        ("list[*].x", [1, 2]),
        ("list[*].deep[*].y", [3, 4]),
        ("list[*].deep[0].y", [3]),
        ("text[*]", []),
        ("$['a'].b.c", [1]),
        ("$.a['two words']", [2]),
        ('a."two words"', [2]),
        ("$.user-agent", [6]),
        ("'@type'", [7]),
        ("@type", [7]),
        # left to jsonpath-ng
        ("$..c", [1]),
        ("$.list[?(@.x > 1)].x", [2]),
        ("$.list[0:2].x", [1, 2]),
        ("$", [EVENT]),
    ],
)
def test_paths_find(path: str, found: list[Any]) -> None:
    assert values(path) == found


@pytest.mark.parametrize("path", ["upper.case", "UPPER['CASE']", "$.uPPer.CASE"])
def test_names_of_a_path_count_without_regard_to_case(path: str) -> None:
    assert values(path) == [5]


def test_an_exact_name_wins_over_one_that_is_equal_but_for_case() -> None:
    assert values("a.key", {"A": {"key": 0}, "a": {"KEY": 1, "key": 2}}) == [2]


@pytest.mark.parametrize("path", ["$.", "a..", "a[", "a[b", "$.a b", "a[0]b", "[?(", "", "$x"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(BadPath):
        JsonPath(path)


def test_paths_reach_fields_that_are_added_to_the_event() -> None:
    made = model(
        kind={"Path": "p_log_type"}, first={"Path": "$.p_any_ip_addresses[0]"}, last={"Path": "p_any_ip_addresses[-1:]"}
    )

    for name, value in (("last", "10.0.0.2"), ("kind", "Some.Log"), ("first", "10.0.0.1")):
        assert event_with(made, {}, Derived(p_any_ip_addresses=["10.0.0.1", "10.0.0.2"])).udm(name) == value


def test_what_a_path_finds_does_not_depend_on_what_was_asked_before() -> None:
    made = model(only={"Path": "$.*"})
    for asked in ([], ["p_log_type"], ["p_any_emails"]):
        event = event_with(made, {"name": 1}, Derived())
        for key in asked:
            event.get(key)
        with pytest.raises(PantherError, match="2 values"):
            event.udm("only")


def test_a_path_that_jsonpath_ng_follows_gives_one_value_or_raises() -> None:
    made = model(deep={"Path": "$..name"})

    assert event_with(made, {"a": {"name": 1}}).udm("deep") == 1
    assert event_with(made, {"a": {}}).udm("deep", default=7) == 7
    with pytest.raises(PantherError, match="2 values"):
        event_with(made, {"name": 1, "a": {"name": 1}}).udm("deep")


def test_plain_paths_do_not_import_jsonpath_ng() -> None:
    code = (
        "import sys; from rules.paths import JsonPath; JsonPath('$.a[0].b[*]'); sys.exit('jsonpath_ng' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_method_gets_the_event_s_fields_as_a_dict_and_no_event() -> None:
    seen: list[Any] = []

    def get_user(event: Any) -> Any:
        seen.append(event)
        return event.get("USER"), event.deep_get("a", "b"), event.deep_walk("a", "b"), event["user"]

    event = event_with(model({"get_user": get_user}, user={"Method": "get_user"}), {"user": "ann", "a": {"b": 1}})

    assert event.udm("user") == ("ann", 1, 1, "ann")
    assert event.udm_path("user") == "get_user"
    assert isinstance(seen[0], ImmutableDict)
    assert not isinstance(seen[0], PantherEvent)
    assert not hasattr(seen[0], "udm")


def test_a_method_sees_fields_that_are_added_to_the_event_each_worked_out_once() -> None:
    functions = {
        "get": lambda event: (event["p_log_type"], "p_any_usernames" in event, event.deep_walk("p_any_usernames")),
        "walk": lambda event: event.deep_walk("p_log_type"),
        "whole": lambda event: (len(event), sorted(event), event.to_dict(), event == event.to_dict()),
    }
    made = model(functions, get={"Method": "get"}, walk={"Method": "walk"}, whole={"Method": "whole"})
    whole = {"p_log_type": "Some.Log", "p_any_usernames": ["ann"], "user": 1}

    for order in (("walk", "get", "whole"), ("whole", "get", "walk")):
        derived = Derived(p_any_usernames=["ann"])
        event = event_with(made, {"user": 1}, derived)
        answers = {name: event.udm(name) for name in order}
        assert answers["get"] == ("Some.Log", True, ["ann"])
        assert answers["walk"] == "Some.Log"
        assert answers["whole"] == (3, sorted(whole), whole, True)
        assert sorted(derived.asked) == ["any", "base"]


@pytest.mark.parametrize("value", [None, "", 0, {"a": 1}])
def test_what_a_method_gives_is_the_answer_whatever_it_is(value: Any) -> None:
    assert event_with(model({"get": lambda _: value}, it={"Method": "get"}), {"it": 5}).udm("it", default=7) == value


def test_what_a_method_raises_is_the_rule_s_to_see() -> None:
    event = event_with(model({"get": lambda event: event["absent"]}, it={"Method": "get"}), {})

    with pytest.raises(KeyError, match="absent"):
        event.udm("it")


def test_a_method_that_the_module_does_not_have_is_refused() -> None:
    mappings = ({"Name": "a", "Path": "a"}, {"Name": "b", "Method": "get_b"}, {"Name": "c", "Method": "CONSTANT"})

    assert [(where, message) for where, message, _ in problems_of(*mappings, functions={"CONSTANT": 1})] == [
        (("Mappings", 1, "Method"), "the model's module has no function get_b"),
        (("Mappings", 2, "Method"), "the model's module has no function CONSTANT"),
    ]


def test_a_bad_path_is_refused_with_its_place() -> None:
    ((where, message, remedy),) = problems_of({"Name": "a", "Path": "$.a["})

    assert where == ("Mappings", 0, "Path")
    assert message.startswith("'$.a[' is no JSON path")
    assert remedy


def test_a_name_that_is_mapped_twice_is_refused() -> None:
    ((where, message, _),) = problems_of({"Name": "a", "Path": "a"}, {"Name": "a", "Path": "b"})

    assert (where, message) == (("Mappings", 1, "Name"), "a is mapped twice")
