"""The index gives every rule whose guard may hold, in order, and looks at few fields to do so."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.guards import Guard, Index
from rules.guards.facts import ABSENT, ALWAYS, NEVER, Facts, both, either, holds, one_of, value_at


def guard(**values: Any) -> Guard:
    """A clause for each argument: the field, and the values that it may have."""
    facts = ALWAYS
    for name, wanted in values.items():
        facts = both(facts, one_of(tuple(name.split("__")), wanted))
    return Guard(facts)


def test_candidates_are_in_order_and_keys_count_in_any_case() -> None:
    index = Index([guard(x=["a"]), None, guard(y=["b"]), guard(x=["a", "c"])])

    assert index.candidates({"X": "a", "y": "b"}, []) == (0, 1, 2, 3)
    assert index.candidates({"x": "c"}, []) == (1, 3)
    assert index.candidates({"x": ["a"], "y": None}, []) == (1,)


def test_a_rule_whose_guard_cannot_hold_is_never_a_candidate() -> None:
    index = Index([Guard(NEVER), guard(x=["a"])])

    assert index.candidates({"x": "a"}, []) == (1,)
    assert index.texts == frozenset({"a"})


def test_nested_fields_missing_fields_and_either_of_two_are_looked_up() -> None:
    either_field = Guard(either(one_of(("x",), ["a"]), one_of(("u", "name"), ["root"])))
    index = Index([either_field, guard(u__name=["root"]), guard(x=[ABSENT, None])])

    assert index.candidates({"x": "a"}, []) == (0,)
    assert index.candidates({"U": {"Name": "root"}, "x": 1}, []) == (0, 1)
    assert index.candidates({"u": "root"}, []) == (2,)
    assert index.candidates({"x": None, "u": {"name": {"root": 1}}}, []) == (2,)


def test_true_is_one_and_no_text() -> None:
    index = Index([guard(x=[True]), guard(x=["true"]), guard(x=[0])])

    assert [index.candidates({"x": value}, []) for value in (True, 1, 1.0, "true", "1", False, 0, None)] == [
        (0,), (0,), (0,), (1,), (), (2,), (2,), (),
    ]  # fmt: skip


def test_the_texts_are_those_of_a_clause_of_texts_and_none_if_a_rule_has_none() -> None:
    mixed = guard(x=["a", None], y=["b", "c"])
    index = Index([mixed, guard(x=["d"])])

    assert (index.texts, index.without_texts) == (frozenset({"b", "c", "d"}), ())
    without = Index([mixed, None, guard(x=["e", ABSENT])])
    assert (without.texts, without.without_texts) == (None, (1, 2))


def test_the_texts_are_few_and_spelled_in_one_way_where_there_is_a_choice() -> None:
    assert Index([guard(x=["a/b"], y=["c", "d"])]).texts == frozenset({"c", "d"})
    assert Index([guard(x=["a", "b"], y=["c"])]).texts == frozenset({"c"})
    assert Index([guard(y=["c", "d"]), guard(x=["e"], y=["c"])]).texts == frozenset({"c", "d"})


def test_rules_are_told_apart_by_the_field_that_has_the_most_values() -> None:
    rules = [guard(source=["s3"], name=[f"Get{n}", f"Put{n}"]) for n in range(100)]
    index = Index(rules)

    assert index.candidates({"source": "s3", "name": "Get7"}, []) == (7,)
    assert index.candidates({"source": "s3", "name": "List"}, []) == ()


paths = st.sampled_from([("x",), ("y",), ("u", "name"), ("u", "x")])
scalars = st.sampled_from(["a", "b", "", None, True, False, 0, 1, 2, ABSENT])
clauses = st.lists(st.tuples(paths, scalars), min_size=1, max_size=4)


def facts_of(clause_list: list[list[tuple[tuple[str, ...], Any]]]) -> Facts:
    facts = ALWAYS
    for clause in clause_list:
        made = NEVER
        for path, value in clause:
            made = either(made, one_of(path, [value]))
        facts = both(facts, made)
    return facts


facts_drawn = st.lists(clauses, max_size=3).map(facts_of)
raw = st.one_of(scalars.filter(lambda value: value is not ABSENT), st.sampled_from([[], ["a"], {}, 1.0, 0.5]))
events = st.dictionaries(
    st.sampled_from(["x", "X", "y", "u", "U"]),
    st.one_of(raw, st.dictionaries(st.sampled_from(["name", "Name", "x"]), raw, max_size=2)),
    max_size=4,
)


@given(st.lists(st.one_of(st.none(), facts_drawn.map(Guard)), max_size=6), events)
def test_a_rule_whose_guard_holds_is_always_a_candidate(guards: list[Guard | None], event: dict[str, Any]) -> None:
    found = Index(guards).candidates(event, [])

    assert list(found) == sorted(set(found))
    assert {n for n, each in enumerate(guards) if each is None or holds(each.facts, event)} <= set(found)


@given(facts_drawn, facts_drawn, events)
def test_what_is_said_of_both_and_of_either_holds_there(one: Facts, other: Facts, event: dict[str, Any]) -> None:
    if holds(one, event) and holds(other, event):
        assert holds(both(one, other), event)
    if holds(one, event) or holds(other, event):
        assert holds(either(one, other), event)


@given(st.dictionaries(st.sampled_from(["a", "A", "b"]), st.one_of(raw, st.dictionaries(st.just("B"), raw))))
def test_a_value_is_found_where_a_rule_finds_it(event: dict[str, Any]) -> None:
    from rules.event import PantherEvent

    wanted = PantherEvent(event).deep_get("a", "b")
    found = value_at(event, ("a", "b"))
    assert wanted == (None if found is ABSENT else found)


class Watched(dict[str, Any]):
    """An event that counts how often it is looked at."""

    looks = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.looks += 1
        return super().get(key, default)


@pytest.mark.parametrize("rules", [10, 1000])
def test_an_event_is_looked_at_as_often_for_a_thousand_rules_as_for_ten(rules: int) -> None:
    index = Index([guard(source=["s3", "ec2"], name=[f"Get{n}"], code=[f"c{n % 3}"]) for n in range(rules)])
    event = Watched(source="s3", name="Get7", code="c1")

    assert index.candidates(event, []) == (7,)
    assert event.looks == 1


@pytest.mark.parametrize("rules", [1, 50])
def test_events_of_any_mix_of_values_are_kept_track_of(rules: int) -> None:
    index = Index([guard(**{f"f{n % 3}": [f"v{n}"]}) for n in range(rules)])
    for n in range(rules):
        assert index.candidates({f"f{n % 3}": f"v{n}"}, []) == (n,)
