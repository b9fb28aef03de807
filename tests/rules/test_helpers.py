"""The helpers that rule authors call: public signatures, the event's clock, and clear refusals. Meaning: test_state.py."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from rules import helpers
from rules.state import State
from tests.rules.making import NOON_S, Runner, make_rule

SIGNATURES = {
    "get_counter": "(key, force_ttl_check=False)",
    "increment_counter": "(key, val=1, epoch_seconds=None)",
    "reset_counter": "(key)",
    "set_key_expiration": "(key, epoch_seconds)",
    "get_string_set": "(key, force_ttl_check=False)",
    "put_string_set": "(key, val, epoch_seconds=None)",
    "add_to_string_set": "(key, val, epoch_seconds=None)",
    "remove_from_string_set": "(key, val, epoch_seconds=None)",
    "reset_string_set": "(key)",
    "get_dictionary": "(key, force_ttl_check=False)",
    "put_dictionary": "(key, val, epoch_seconds=None)",
    "evaluate_threshold": "(key, threshold=10, expiry_seconds=3600)",
    "check_account_age": "(key, force_ttl_check=False)",
}


def result_of(runner: Runner, expression: str, at_s: float = NOON_S) -> Any:
    """What an expression gives inside an evaluation; exceptions as (type, message)."""
    rule = make_rule(
        f"from panther_detection_helpers.caching import *\ndef rule(event):\n    return event['sink']({expression}) is None"
    )
    caught: list[object] = []
    outcome = runner.run(rule, {"sink": caught.append}, at_s)
    if outcome.match is None:
        return outcome.errors[0].error, outcome.errors[0].message
    return caught[0]


@pytest.fixture
def runner() -> Runner:
    return Runner(State())


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_those_of_the_public_library(name: str) -> None:
    function: Callable[..., object] = helpers.CACHING[name]
    parameters = [
        p.replace(annotation=inspect.Parameter.empty) for p in inspect.signature(function).parameters.values()
    ]

    assert str(inspect.Signature(parameters)) == SIGNATURES[name]


@pytest.mark.parametrize(
    "module",
    ["panther_detection_helpers.caching", "panther_detection_helpers", "panther_oss_helpers"],
)
def test_all_module_names_lead_to_the_same_state(runner: Runner, module: str) -> None:
    rule = make_rule(f"import {module} as helpers\ndef rule(event): return helpers.increment_counter('k', 2) == 2")

    assert runner.run(rule).match is not None
    assert runner.state is not None
    assert runner.state.get_counter("k") == 2


def test_a_helper_outside_an_evaluation_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"no event is being evaluated: call this inside rule\(\)"):
        helpers.get_counter("k")


def test_force_ttl_check_is_accepted_and_changes_nothing(runner: Runner) -> None:
    assert result_of(runner, "get_counter('k', force_ttl_check=True)") == 0
    assert result_of(runner, "get_string_set('k', force_ttl_check=True)") == set()
    assert result_of(runner, "get_dictionary('k', force_ttl_check=True)") == {}


def test_relative_expiry_counts_from_the_event_s_time(runner: Runner) -> None:
    result_of(runner, "increment_counter('k', 1, 60)")

    assert result_of(runner, "get_counter('k')", NOON_S + 59) == 1
    assert result_of(runner, "get_counter('k')", NOON_S + 60) == 0


def test_evaluate_threshold_resets_at_the_threshold_and_renews_its_expiry_on_every_call(runner: Runner) -> None:
    calls = [result_of(runner, "evaluate_threshold('k', 3, 60)", NOON_S + 50 * n) for n in range(6)]

    assert calls == [False, False, True, False, False, True]
    assert result_of(runner, "evaluate_threshold('k', 1)") is True
    assert result_of(runner, "evaluate_threshold('other', 2, 60)", NOON_S) is False
    assert result_of(runner, "evaluate_threshold('other', 2, 60)", NOON_S + 60) is False


def test_check_account_age_asks_for_a_set_and_says_false_to_what_is_no_key(runner: Runner) -> None:
    result_of(runner, "put_string_set('alice', ['2024-03-01'])")

    assert result_of(runner, "check_account_age('alice')") is True
    assert result_of(runner, "check_account_age('bob')") is False
    assert result_of(runner, "check_account_age(None)") is False
    assert result_of(runner, "check_account_age('')") is False
    assert result_of(runner, "check_account_age(7)") is False


def test_lists_of_an_event_can_be_stored(runner: Runner) -> None:
    rule = make_rule(
        "from panther_detection_helpers.caching import *\n"
        "def rule(event):\n"
        "    put_dictionary('k', {'ips': event['ips']})\n"
        "    return add_to_string_set('k', event['ips']) == {'a', 'b'}"
    )

    outcome = runner.run(rule, {"ips": ["a", "b"]})

    assert outcome.errors == ()
    assert result_of(runner, "get_dictionary('k')") == {"ips": ["a", "b"]}


@pytest.mark.parametrize("name", ["kv_table", "ttl_expired"])
def test_what_there_is_no_table_for_is_refused_with_a_reason(runner: Runner, name: str) -> None:
    error, message = result_of(runner, f"{name}('k')")

    assert error == "NotImplementedError"
    assert message.startswith(f"{name}: not supported here")


@pytest.mark.parametrize(
    "call",
    [
        "get_counter({})",
        "increment_counter({})",
        "reset_counter({})",
        "set_key_expiration({}, 60)",
        "get_string_set({})",
        "put_string_set({}, ['a'])",
        "add_to_string_set({}, 'a')",
        "remove_from_string_set({}, 'a')",
        "reset_string_set({})",
        "get_dictionary({})",
        "put_dictionary({}, {{}})",
        "evaluate_threshold({})",
    ],
)
def test_a_key_that_is_no_text_is_refused_by_the_name_of_the_helper(runner: Runner, call: str) -> None:
    error, message = result_of(runner, call.format(7))

    assert error == "TypeError"
    assert message.startswith(f"{call.partition('(')[0]}: the key 7 ")
