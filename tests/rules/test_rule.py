"""The module contract, function by function (PANTHER_FORMAT 1.1)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rules.event import PantherEvent
from rules.rule import MAX_CONTEXT_CHARS, RuleError
from rules.state import State
from tests.rules.making import Runner, make_rule, match_of

MATCHES = "def rule(event): return True\n"
YAML = """\
    DisplayName: Shown Name
    Description: from yaml
    Reference: https://yaml
    Runbook: yaml runbook
"""
TEXTS = ("title", "description", "reference", "runbook", "dedup", "unique")


def errors_of(source: str, more: str = "", data: dict[str, Any] | None = None) -> list[RuleError]:
    return list(Runner(State()).run(make_rule(source, more), data).errors)


@pytest.mark.parametrize("value", ["1", "0", "None", "'yes'", "[]", "event.get('x')"])
def test_rule_must_return_exactly_a_bool(value: str) -> None:
    outcome = Runner().run(make_rule(f"def rule(event): return {value}"))

    assert outcome.match is None
    (error,) = outcome.errors
    assert (error.function, error.error) == ("rule", "FunctionReturnTypeError")
    assert error.message.endswith("return bool")


NAMELESS = """
class Kind(type):
    @property
    def __name__(cls):
        raise SystemExit("no name")


class Value(metaclass=Kind):
    pass


class Failure(Exception, metaclass=Kind):
    pass


def rule(event):
    {does}
"""


@pytest.mark.parametrize(
    ("does", "error"),
    [
        ("return Value()", ("rule", "FunctionReturnTypeError", "rule() returned Value: return bool")),
        ("raise Failure('it')", ("rule", "Failure", "it")),
    ],
)
def test_what_a_rule_gives_is_named_without_asking_its_class(does: str, error: tuple[str, ...]) -> None:
    (found,) = errors_of(NAMELESS.format(does=does))

    assert found[:3] == error


def test_without_auxiliaries_the_yaml_speaks() -> None:
    match = match_of(MATCHES, YAML)

    assert match.title == "Shown Name"
    assert match.dedup == "defaultDedupString:Some.Rule"
    assert match.severity == "LOW"
    assert (match.description, match.reference, match.runbook) == ("from yaml", "https://yaml", "yaml runbook")
    assert (match.context, match.destinations, match.unique, match.create_alert) == (None, None, None, True)
    assert match_of(MATCHES).title == "Some.Rule"


@pytest.mark.parametrize("name", TEXTS)
def test_texts_of_a_thousand_characters_pass_and_longer_ones_are_cut_to_that(name: str) -> None:
    source = MATCHES + f"def {name}(event): return event['text']\n"

    assert getattr(match_of(source, data={"text": "x" * 1000}), name) == "x" * 1000
    assert getattr(match_of(source, data={"text": "x" * 1001}), name) == "x" * 985 + "... (truncated)"


@pytest.mark.parametrize("name", TEXTS)
def test_lone_surrogates_become_question_marks(name: str) -> None:
    assert getattr(match_of(MATCHES + f"def {name}(event): return 'é\\ud800'\n"), name) == "é?"


FALLBACKS = {
    "title": "Some.Rule",
    "description": "",
    "reference": "",
    "runbook": "",
    "severity": "LOW",
    "destinations": None,
    "dedup": "defaultDedupString:Some.Rule",
    "unique": None,
}


@pytest.mark.parametrize("broken", ["return 7", "raise ValueError('no')", "import sys; sys.exit()"])
@pytest.mark.parametrize("name", FALLBACKS)
def test_an_auxiliary_that_fails_falls_back_and_leaves_an_error(name: str, broken: str) -> None:
    source = MATCHES + f"def {name}(event): {broken}\n"

    assert getattr(match_of(source, YAML), name) == FALLBACKS[name]
    assert [error.function for error in errors_of(source)] == [name]


@pytest.mark.parametrize("name", ["title", "dedup", "unique"])
def test_none_is_no_text(name: str) -> None:
    source = MATCHES + f"def {name}(event): return None\n"

    assert getattr(match_of(source), name) == FALLBACKS[name]
    assert [error.error for error in errors_of(source)] == ["FunctionReturnTypeError"]


def test_dedup_falls_back_to_the_title_only_where_it_is_not_defined() -> None:
    title = "def title(event): return 'a title'\n"

    assert match_of(MATCHES + title).dedup == "a title"
    assert match_of(MATCHES + title + "def dedup(event): return ''\n").dedup == "defaultDedupString:Some.Rule"
    assert match_of(MATCHES + title + "def dedup(event): return None\n").dedup == "defaultDedupString:Some.Rule"
    assert match_of(MATCHES + "def title(event): return ''\n", YAML).title == "Shown Name"
    assert match_of(MATCHES + "def title(event): return ''\n", YAML).dedup == "defaultDedupString:Some.Rule"


def test_a_title_that_raises_becomes_the_rule_id_in_title_and_dedup() -> None:
    match = match_of(MATCHES + "def title(event): raise ValueError\n", YAML)

    assert (match.title, match.dedup) == ("Some.Rule", "Some.Rule")


@pytest.mark.parametrize(
    ("value", "severity"),
    [("'high'", "HIGH"), ("'Critical'", "CRITICAL"), ("'DEFAULT'", "LOW"), ("'default'", "LOW"), ("'worse'", "LOW")],
)
def test_severity_is_upper_case_and_default_is_the_yaml_s(value: str, severity: str) -> None:
    source = MATCHES + f"def severity(event): return {value}\n"

    assert match_of(source).severity == severity
    assert bool(errors_of(source)) == (value == "'worse'")


@pytest.mark.parametrize(
    ("value", "destinations", "alerts"),
    [
        ("None", None, True),
        ("['a', 'b']", ["a", "b"], True),
        ("[]", ["SKIP"], False),
        ("['SKIP']", ["SKIP"], False),
        ("['a', 'a']", None, True),
        ("('a',)", None, True),
        ("['a', 7]", None, True),
        ("[str(n) for n in range(12)]", [str(n) for n in range(10)], True),
    ],
)
def test_destinations_are_ten_names_or_a_way_to_skip_the_alert(value: str, destinations: Any, alerts: bool) -> None:
    match = match_of(MATCHES + f"def destinations(event): return {value}\n")

    assert match.destinations == destinations
    assert match.create_alert is alerts


def test_create_alert_false_makes_matches_only() -> None:
    assert not match_of(MATCHES, "CreateAlert: false\n").create_alert


def test_a_context_may_hold_parts_of_the_event_and_the_event_itself() -> None:
    data = {"a": {"b": [1, {"c": None}]}, "text": "ü\ud800"}
    source = MATCHES + "def alert_context(event): return {'all': event, 'a': event['a'], 'l': event['a']['b']}\n"
    whole = MATCHES + "def alert_context(event): return event\n"

    context = match_of(source, data=data).context
    assert context is not None
    assert json.loads(context)["l"] == [1, {"c": None}]
    assert json.loads(context)["all"]["text"] == "ü?"
    assert json.loads(match_of(whole, data={"a": 1}).context or "") == {"a": 1}


@pytest.mark.parametrize("value", ["{'a': float('nan')}", "{'a': {1, 2}}", "{'a': object}", "[1]", "None"])
def test_a_context_that_is_no_json_becomes_a_note_of_the_error(value: str) -> None:
    source = MATCHES + f"def alert_context(event): return {value}\n"

    assert json.loads(match_of(source).context or "").keys() == {"_error"}
    assert [error.function for error in errors_of(source)] == ["alert_context"]


def test_a_context_that_raises_is_shown_by_the_repr_of_its_exception() -> None:
    context = match_of(MATCHES + "def alert_context(event): raise ValueError('no')\n").context

    assert context == '{"_error": "ValueError(\'no\')"}'


def test_a_context_over_the_limit_is_replaced_by_its_size_which_is_no_error() -> None:
    source = MATCHES + "def alert_context(event): return {'a': 'x' * event['n']}\n"

    fits = MAX_CONTEXT_CHARS - len('{"a": ""}')
    assert len(match_of(source, data={"n": fits}).context or "") == MAX_CONTEXT_CHARS
    assert "size is [204801]" in (match_of(source, data={"n": fits + 1}).context or "")
    assert errors_of(source, data={"n": fits + 1}) == []


def test_functions_run_in_the_contract_s_order_and_only_on_a_match() -> None:
    names = [
        "title", "description", "reference", "severity", "runbook", "destinations", "dedup", "alert_context", "unique",
    ]  # fmt: skip
    source = "def rule(event):\n    event['calls']('rule')\n    return event['result']\n"
    for name in names:
        source += f"def {name}(event): event['calls']('{name}')\n"
    calls: list[str] = []

    Runner().run(make_rule(source), {"calls": calls.append, "result": True})
    assert calls == ["rule", *names]
    calls.clear()
    Runner().run(make_rule(source), {"calls": calls.append, "result": False})
    assert calls == ["rule"]


def test_whatever_the_module_calls_title_is_its_title() -> None:
    assert match_of(MATCHES + "title = lambda event: 'by lambda'\n").title == "by lambda"
    assert (
        match_of(
            MATCHES + "from operator import methodcaller\ntitle = methodcaller('get', 'name')\n", data={"name": "n"}
        ).title
        == "n"
    )


def test_an_error_tells_its_type_message_and_innermost_place_in_the_pack() -> None:
    source = (
        "import json\n\ndef rule(event):\n    return inner(event)\n\ndef inner(event):\n    return json.loads('{')\n"
    )

    (error,) = errors_of(source)

    assert error.function == "rule"
    assert error.error == "JSONDecodeError"
    assert error.message.startswith("Expecting property name")
    assert error.location == "some_rule.py:7"


def test_an_exception_that_cannot_be_printed_is_still_an_error() -> None:
    source = (
        "class Bad(Exception):\n    def __str__(self): raise ValueError\n    __repr__ = __str__\n"
        "def rule(event): return True\n"
        "def title(event): raise Bad\n"
        "def alert_context(event): raise Bad\n"
    )

    assert [(e.function, e.error, e.message) for e in errors_of(source)] == [
        ("title", "Bad", "<the exception cannot be printed>"),
        ("alert_context", "Bad", "<the exception cannot be printed>"),
    ]


def test_long_messages_are_cut_and_made_safe() -> None:
    (error,) = errors_of("def rule(event): raise ValueError('\\ud800' * 5000)")

    assert len(error.message) == 1000
    assert error.message.startswith("???")


def test_the_module_s_name_is_the_rule_id() -> None:
    assert match_of(MATCHES + "def title(event): return __name__\n").title == "Some.Rule"


# --- test mode ---------------------------------------------------------------------------------------------------


def test_in_test_mode_auxiliaries_run_whatever_rule_says() -> None:
    rule = make_rule(
        "def rule(event): return event['a']\ndef title(event): return 'called'\ndef dedup(event): return 1\n"
    )

    for verdict in (True, False):
        said, match, errors = rule.run_all(PantherEvent({"a": verdict}))
        assert said is verdict
        assert match is not None
        assert match.title == "called"
        assert [error.function for error in errors] == ["dedup"]


def test_in_test_mode_a_rule_that_raises_is_false_and_nothing_else_runs() -> None:
    rule = make_rule("def rule(event): return 1\ndef title(event): raise ValueError\n")

    said, match, errors = rule.run_all(PantherEvent({}))
    assert (said, match) == (False, None)
    assert [error.function for error in errors] == ["rule"]


def test_in_test_mode_nothing_runs_on_what_a_filter_keeps_out() -> None:
    rule = make_rule(
        "def rule(event): raise ValueError\n", "InlineFilters: [{KeyPath: a, Condition: Equals, Value: b}]"
    )

    assert rule.run_all(PantherEvent({"a": "c"})) == (False, None, ())
    assert rule.run_all(PantherEvent({"a": "b"}))[2] != ()


def test_in_test_mode_globals_are_put_back_as_well() -> None:
    rule = make_rule("N = 0\ndef rule(event):\n    global N\n    N += 1\n    return N == 1\n")

    assert [rule.run_all(PantherEvent({}))[0] for _ in range(2)] == [True, True]


def test_texts_of_a_class_of_the_rule_s_own_become_plain_texts() -> None:
    source = (
        "class S(str):\n    def __reduce_ex__(self, protocol):\n        raise SystemExit(3)\n"
        "def rule(event):\n    return True\ndef title(event):\n    return S('t')\ndef severity(event):\n    return S('low')\n"
    )
    match = Runner().run(make_rule(source)).match

    assert match is not None
    assert (type(match.title), match.title, type(match.severity), match.severity) == (str, "t", str, "LOW")
