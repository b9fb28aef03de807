"""Tests: in a rule's YAML run on real state, one event or a sequence, and say what they found."""

from __future__ import annotations

from textwrap import dedent, indent

import pytest

from rules.pack import load_pack, log_types_of
from rules.selftest import TestResult, run_tests
from tests.rules.making import spec

COUNTING = """\
from panther_detection_helpers.caching import increment_counter
LIMIT = 3
def rule(event):
    return increment_counter(event["who"], 1, 3600) >= LIMIT
def title(event):
    return f"{event['who']} did it"
"""


def run(tests: str, source: str = COUNTING, more: str = "", others: dict[str, str] | None = None) -> list[TestResult]:
    """Run the tests of a rule, `others` being more rules of the pack by id."""
    yaml = f"{dedent(more)}Tests:\n{indent(dedent(tests), '  ')}"
    files = {"some_rule.yml": spec() + yaml.encode(), "some_rule.py": source.encode()}
    for rule_id, text in (others or {}).items():
        files |= {f"{rule_id}.yml": spec(rule_id, f"{rule_id}.py"), f"{rule_id}.py": text.encode()}
    pack = load_pack(files)
    return list(run_tests(pack, log_types_of(pack)))


def problems_of(tests: str, source: str = COUNTING, more: str = "", others: dict[str, str] | None = None) -> list[str]:
    (result,) = run(tests, source, more, others)
    return result.problems


def test_one_event_on_fresh_state() -> None:
    results = run(
        """\
        - {Name: first, ExpectedResult: false, Log: {who: a}}
        - {Name: again, ExpectedResult: false, Log: {who: a}}
        - {Name: wrong, ExpectedResult: true, Log: {who: a}}
        """
    )

    assert [(result.rule_id, result.name, result.passed) for result in results] == [
        ("Some.Rule", "first", True),
        ("Some.Rule", "again", True),
        ("Some.Rule", "wrong", False),
    ]
    assert results[2].problems == ["rule() gave false, true expected"]


def test_a_sequence_is_judged_by_its_last_event_and_counts_by_element() -> None:
    assert problems_of(
        """\
        - Name: third alerts
          ExpectedResult: true
          ExpectedTitle: a did it
          ExpectedDedup: a did it
          ExpectedSeverity: Low
          Logs:
            - {Log: {who: a}, Count: 2, ExpectedMatches: 0, ExpectedAlerts: 0}
            - {who: b}
            - {Log: {who: a}, Count: 3, ExpectedMatches: 3, ExpectedAlerts: 1}
        """
    ) == []  # fmt: skip


def test_what_was_expected_and_is_otherwise_is_said() -> None:
    assert problems_of(
        """\
        - Name: all wrong
          ExpectedResult: true
          ExpectedTitle: b did it
          ExpectedDedup: c
          ExpectedSeverity: High
          Logs:
            - {Log: {who: a}, Count: 2, ExpectedMatches: 1, ExpectedAlerts: 2}
            - {who: a}
        """
    ) == [
        "event 1: 0 matches, 1 expected",
        "event 1: 0 alerts, 2 expected",
        "title is 'a did it', 'b did it' expected",
        "dedup is 'a did it', 'c' expected",
        "severity is 'LOW', 'High' expected",
    ]


def test_repetitions_are_a_minute_apart_unless_told_and_state_expires_in_event_time() -> None:
    test = """\
        - Name: spread
          ExpectedResult: {}
          Logs:
            - Log: {{who: a, p_event_time: "2024-03-01 12:00:00"}}
              Count: 3
              {}
        """

    assert problems_of(test.format("true", "")) == []
    assert problems_of(test.format("true", "EverySeconds: 3599")) == []
    assert problems_of(test.format("false", "EverySeconds: 3600")) == []


def test_alerts_follow_threshold_and_dedup_window() -> None:
    assert problems_of(
        """\
        - Name: two windows
          ExpectedResult: true
          Logs:
            - {Log: {p_event_time: "2024-03-01 12:00:00"}, Count: 11, ExpectedMatches: 11, ExpectedAlerts: 1}
            - {Log: {p_event_time: "2024-03-01 12:11:00"}, Count: 5, ExpectedAlerts: 1}
        """,
        source="def rule(event): return True\n",
        more="Threshold: 5\nDedupPeriodMinutes: 10\n",
    ) == []  # fmt: skip


def test_distinct_values_count_where_the_rule_has_unique() -> None:
    assert problems_of(
        """\
        - Name: distinct
          ExpectedResult: true
          Logs:
            - {Log: {v: a}, Count: 5, ExpectedAlerts: 0}
            - {Log: {v: b}, ExpectedAlerts: 1}
        """,
        source="def rule(event): return True\ndef unique(event): return event['v']\n",
        more="Threshold: 2\n",
    ) == []  # fmt: skip


def test_other_rules_run_on_the_same_state_where_the_log_type_is_theirs() -> None:
    writer = COUNTING.replace("1, 3600) >= LIMIT", "5, 3600) < 0")
    test = "- {{Name: both, ExpectedResult: {}, AlsoRun: [A.Writer], Log: {{who: a{}}}}}\n"

    assert problems_of(test.format("true", ""), others={"A.Writer": writer}) == []
    assert problems_of(test.format("false", ", p_log_type: Other.Log"), others={"A.Writer": writer}) == []


def test_mocks_are_magic_mocks_in_the_rule_s_module_for_one_test_only() -> None:
    source = """\
import json
from unittest.mock import MagicMock
LIMIT = ["none"]
def names():
    return "real"
def rule(event):
    global LIMIT
    if isinstance(LIMIT, MagicMock):
        LIMIT = json.loads(LIMIT())
    return names() in LIMIT
"""
    results = run(
        """\
        - Name: mocked
          ExpectedResult: true
          Log: {}
          Mocks:
            - {objectName: LIMIT, returnValue: '["a", "b"]'}
            - {objectName: names, returnValue: b}
        - {Name: not mocked, ExpectedResult: false, Log: {}}
        - Name: in a sequence
          ExpectedResult: true
          Logs: [{}, {}]
          Mocks: [{objectName: LIMIT, returnValue: '["real"]'}]
        """,
        source,
    )

    assert [result.problems for result in results] == [[], [], []]


def test_a_mock_of_a_name_that_the_module_lacks_fails_the_test() -> None:
    test = "- {Name: t, ExpectedResult: false, Log: {who: a}, Mocks: [{objectName: nobody, returnValue: x}]}\n"

    assert problems_of(test) == ["Mocks names nobody: the module has no such name"]


@pytest.mark.parametrize("expected", ["true", "false"])
@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("raise ValueError('no')", "rule raised ValueError: no"),
        ("import sys; sys.exit(2)", "rule raised SystemExit: 2"),
        ("return 1", "rule raised FunctionReturnTypeError: rule() returned int: return bool"),
    ],
)
def test_a_rule_that_fails_fails_its_own_tests_whatever_they_expect(expected: str, body: str, problem: str) -> None:
    results = run(
        f"- {{Name: t, ExpectedResult: {expected}, Log: {{}}, AlsoRun: [Z]}}\n",
        f"def rule(event): {body}\n",
        others={"Z": "def rule(event): return True\n"},
    )

    assert results[0].problems == [problem]


def test_a_failing_auxiliary_fails_a_positive_test() -> None:
    test = "- {Name: t, ExpectedResult: true, Log: {}}\n"
    source = "def rule(event): return True\ndef title(event): return 7\ndef severity(event): return 'HIGH'\n"

    (result,) = run(test, source)

    assert result.problems == ["title raised FunctionReturnTypeError: title() returned int: return str"]
    assert [(name, passed) for name, passed, _ in result.functions] == [
        ("rule", True),
        ("title", False),
        ("severity", True),
        ("dedup", True),
    ]


def test_an_error_before_the_last_event_fails_the_sequence() -> None:
    assert problems_of("- {Name: t, ExpectedResult: false, Logs: [{}, {who: a}]}\n") == [
        "event 1: rule raised KeyError: 'who'"
    ]


def test_one_evaluation_may_touch_any_keys() -> None:
    source = """\
from panther_detection_helpers.caching import *
def rule(event): return increment_counter("a") + increment_counter("b") + get_counter("a") == 3
"""

    assert problems_of("- {Name: t, ExpectedResult: true, Log: {}}\n", source) == []


def test_the_functions_of_the_last_event_are_shown_in_order_with_their_output() -> None:
    source = "def rule(event): return True\ndef alert_context(event): return {'a': event['a']}\ndef title(event): return 'T'\n"

    (result,) = run("- {Name: t, ExpectedResult: true, Log: {a: 1}}\n", source)

    assert result.functions == [
        ("rule", True, "true"), ("title", True, "T"), ("dedup", True, "T"), ("alertContext", True, '{"a": 1}'),
    ]  # fmt: skip


def test_what_a_rule_prints_is_kept_with_its_test(capsys: pytest.CaptureFixture[str]) -> None:
    (result,) = run(
        "- {Name: t, ExpectedResult: false, Log: {}}\n", "def rule(event):\n    print('seen')\n    return False\n"
    )

    assert result.printed == "seen\n"
    assert capsys.readouterr().out == ""


def test_the_event_is_what_json_would_give_and_one_test_cannot_change_it_for_the_next() -> None:
    source = (
        "def rule(event): return event.get('200') == 'ok' and event['at'] == '2024-01-01' and event['list'] == ['a']\n"
    )
    test = "{{Name: {}, ExpectedResult: true, Log: {{200: ok, at: 2024-01-01, list: [a]}}}}"

    assert [r.problems for r in run(f"- {test.format('one')}\n- {test.format('two')}\n", source)] == [[], []]


def test_a_time_that_cannot_be_read_is_no_time() -> None:
    assert problems_of('- {Name: t, ExpectedResult: false, Log: {who: a, p_event_time: "..."}}\n') == []


def test_tests_can_be_chosen() -> None:
    files = {
        "some_rule.yml": spec()
        + b"Tests:\n  - {Name: a, ExpectedResult: false, Log: {}}\n  - {Name: b, ExpectedResult: false, Log: {}}\n",
        "some_rule.py": b"def rule(event): return False\n",
    }
    pack = load_pack(files)

    chosen = run_tests(pack, log_types_of(pack), wanted=lambda rule, test: test["Name"] == "b")

    assert [result.name for result in chosen] == ["b"]
