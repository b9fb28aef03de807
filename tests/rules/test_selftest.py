"""Tests: in a rule's YAML run on real state, one event or a sequence, and say what they found."""

from __future__ import annotations

import json
from textwrap import dedent, indent
from typing import Any

import pytest
import yaml

from rules.errors import InvalidPack
from rules.pack import load_pack, log_types_of
from rules.rule import Rule
from rules.selftest import Runner, TestResult, run_tests
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


# --- test mode ---------------------------------------------------------------------------------------------------


def test_all_functions_run_whatever_rule_says_and_their_errors_do_not_count_where_no_alert_is_expected() -> None:
    source = """\
def rule(event): return False
def title(event):
    print("title")
    raise ValueError("no")
def severity(event):
    print("severity")
    return "HIGH"
"""
    (result,) = run("- {Name: t, ExpectedResult: false, Log: {}}\n", source)

    assert result.printed == "title\nseverity\n"
    assert result.passed
    assert result.functions == [("rule", True, "false")]


def test_a_rule_that_should_match_and_does_not_still_shows_what_its_functions_give() -> None:
    source = "def rule(event): return False\ndef title(event): return 'T'\n"

    (result,) = run("- {Name: t, ExpectedResult: true, Log: {}}\n", source)

    assert result.functions == [("rule", False, "false"), ("title", True, "T"), ("dedup", True, "T")]
    assert result.failed == ["rule"]


def test_in_a_sequence_functions_run_on_matches_only_as_in_a_run() -> None:
    source = "def rule(event): return event['m']\ndef title(event):\n    print('title')\n    return 'T'\n"

    (result,) = run("- {Name: t, ExpectedResult: false, Logs: [{m: true}, {m: false}]}\n", source)

    assert (result.printed, result.passed) == ("title\n", True)


def test_an_expectation_that_fails_is_told_from_an_exception() -> None:
    expected, raised = run(
        "- {Name: a, ExpectedResult: true, Log: {m: false}}\n- {Name: b, ExpectedResult: true, Log: {}}\n",
        "def rule(event): return event['m']\n",
    )

    assert (expected.passed, expected.errored) == (False, False)
    assert (raised.passed, raised.errored) == (False, True)


@pytest.mark.parametrize(
    ("expected", "problems"),
    [
        ("{a: 1, nested: {b: [1, x]}}", []),
        ("{a: 1}", []),
        ("{}", []),
        ("{a: '1'}", ["alert_context['a'] is 1, '1' expected"]),
        ("{c: 1}", ["alert_context has no 'c', 1 expected"]),
        ("{nested: {b: [1]}}", ["alert_context['nested'] is {'b': [1, 'x']}, {'b': [1]} expected"]),
    ],
)
def test_expected_context_names_keys_and_their_values(expected: str, problems: list[str]) -> None:
    source = "def rule(event): return True\ndef alert_context(event): return event\n"
    log = "{a: 1, nested: {b: [1, x]}}"
    test = f"- {{Name: t, ExpectedResult: true, ExpectedContext: {expected}, Log: {log}}}\n"

    assert problems_of(test, source) == problems


@pytest.mark.parametrize(
    ("returned", "expected", "problems"),
    [
        ("['slack', 'pager']", "[pager, slack]", []),
        ("['slack']", "[pager]", ["destinations are ['slack'], ['pager'] expected"]),
        ("[]", "[]", []),
        ("None", "[from-yaml]", []),
        ("None", "[]", ["destinations are ['from-yaml'], [] expected"]),
    ],
)
def test_expected_destinations_are_those_of_the_alert(returned: str, expected: str, problems: list[str]) -> None:
    source = f"def rule(event): return True\ndef destinations(event): return {returned}\n"
    test = f"- {{Name: t, ExpectedResult: true, ExpectedDestinations: {expected}, Log: {{}}}}\n"

    assert problems_of(test, source, more="OutputIds: [from-yaml]\n") == problems


def runner_of(tests: str, source: str, more: str = "", **settings: Any) -> tuple[Runner, Rule]:
    yaml = f"{dedent(more)}Tests:\n{indent(dedent(tests), '  ')}"
    pack = load_pack({"some_rule.yml": spec() + yaml.encode(), "some_rule.py": source.encode()})
    return Runner(pack, log_types_of(pack), **settings), pack.all_rules[0]


def test_destinations_are_only_looked_up_where_some_are_available() -> None:
    source = "def rule(event): return True\ndef destinations(event): return ['slack', 'pager']\n"
    test = "- {Name: t, ExpectedResult: true, Log: {}}\n"

    def problems(available: frozenset[str] | None) -> list[str]:
        runner, rule = runner_of(test, source, available_destinations=available)
        return runner.run(rule, rule.spec.tests[0]).problems

    assert problems(None) == []
    assert problems(frozenset({"slack", "pager", "mail"})) == []
    assert problems(frozenset({"slack"})) == [
        "destinations raised UnknownDestination: no available destination is called 'pager'"
    ]


def test_without_its_mocks_a_test_runs_on_real_state() -> None:
    source = "from panther_detection_helpers.caching import get_counter\ndef rule(event): return get_counter('k') == 'nine'\n"
    test = """\
        - Name: t
          ExpectedResult: true
          Log: {}
          Mocks: [{objectName: get_counter, returnValue: nine}]
        """
    runner, rule = runner_of(test, source)

    assert runner.run(rule, rule.spec.tests[0]).passed
    assert runner.run(rule, rule.spec.tests[0], mocked=False).problems == ["rule() gave false, true expected"]


@pytest.mark.parametrize("value", ["text", "[1, {a: b}]", "7", "{a: [1]}", "true", "null"])
def test_a_mock_returns_what_the_yaml_says_untouched(value: str) -> None:
    source = "import json\ndef it(): return 1\ndef rule(event): return json.dumps(it()) == event['as_json']\n"
    as_json = json.dumps(yaml.safe_load(value))
    test = f"""\
        - Name: t
          ExpectedResult: true
          Log: {{as_json: {as_json!r}}}
          Mocks: [{{objectName: it, returnValue: {value}}}]
        """

    assert problems_of(test, source) == []


def test_a_builtin_can_be_mocked_and_is_the_module_s_own_only_meanwhile() -> None:
    source = "def rule(event): return len(event) == 'many'\n"
    test = """\
        - {Name: mocked, ExpectedResult: true, Log: {}, Mocks: [{objectName: len, returnValue: many}]}
        - {Name: real, ExpectedResult: false, Log: {}}
        """

    assert [result.problems for result in run(test, source)] == [[], []]


def test_a_mock_stands_for_all_functions_and_not_in_the_helpers_of_a_pack() -> None:
    yaml = """\
Tests:
  - Name: t
    ExpectedResult: true
    ExpectedTitle: mocked real
    Log: {}
    Mocks: [{objectName: inner, returnValue: mocked}]
"""
    files = {
        "some_rule.yml": spec() + yaml.encode(),
        "some_rule.py": b"from helper import inner, outer\ndef rule(event): return inner() == 'mocked'\n"
        b"def title(event): return inner() + ' ' + outer()\n",
        "helper.yml": b"AnalysisType: global\nGlobalID: helper\nFilename: helper.py\n",
        "helper.py": b"def inner(): return 'real'\ndef outer(): return inner()\n",
    }
    pack = load_pack(files)

    (result,) = run_tests(pack, log_types_of(pack))

    assert result.problems == []


def test_an_event_without_a_time_has_the_time_that_the_run_began() -> None:
    runner, rule = runner_of(
        "- {Name: t, ExpectedResult: true, Log: {}}\n",
        "import time\ndef rule(event): return time.time() == 1700000000.0\n",
        now_s=1_700_000_000.0,
    )

    assert runner.run(rule, rule.spec.tests[0]).problems == []


def test_a_companion_that_is_invalid_fails_the_test_that_names_it() -> None:
    files = {
        "some_rule.yml": spec(more="Tests: [{Name: t, ExpectedResult: true, AlsoRun: [Broken], Log: {}}]\n"),
        "some_rule.py": b"def rule(event): return True\n",
        "broken.yml": spec("Broken", "broken.py"),
        "broken.py": b"raise ValueError\n",
    }
    pack = load_pack(files, tolerant=True)

    (result,) = run_tests(pack, log_types_of(pack))

    assert result.problems == ["AlsoRun names Broken: invalid, or no rule for events"]


# --- policies, scheduled rules, filters ----------------------------------------------------------------------------


def detection(yaml: str, source: str) -> list[TestResult]:
    pack = load_pack({"it.yml": dedent(yaml).encode(), "it.py": source.encode()})
    return list(run_tests(pack, log_types_of(pack)))


POLICY = """\
    AnalysisType: policy
    PolicyID: A.Policy
    Enabled: true
    Filename: it.py
    ResourceTypes: [AWS.S3.Bucket]
    Severity: Low
    Tests:
      - {Name: complies, ExpectedResult: true, Resource: {Encrypted: [yes]}}
      - {Name: does not, ExpectedResult: false, ExpectedTitle: open, Resource: {Encrypted: []}}
"""


def test_a_policy_s_verdict_is_whether_its_resource_complies_and_its_alert_is_that_of_one_that_does_not() -> None:
    source = "def policy(resource): return bool(resource['Encrypted'])\ndef title(resource): return 'open'\n"

    complies, does_not = detection(POLICY, source)

    assert (complies.problems, complies.functions) == ([], [("policy", True, "true")])
    assert (does_not.problems, does_not.functions[:2]) == ([], [("policy", True, "false"), ("title", True, "open")])


def test_a_policy_s_title_is_checked_where_there_is_an_alert() -> None:
    source = "def policy(resource): return bool(resource['Encrypted'])\ndef title(resource): return 'shut'\n"

    complies, does_not = detection(POLICY, source)

    assert (complies.problems, does_not.problems) == ([], ["title is 'shut', 'open' expected"])


def test_a_policy_gets_plain_python_of_its_own() -> None:
    source = """\
def policy(resource):
    assert type(resource) is dict and type(resource["Encrypted"]) is list
    complies = bool(resource["Encrypted"])
    resource["Encrypted"].clear()
    return complies
def title(resource): return "open"
"""
    assert [result.problems for result in detection(POLICY, source)] == [[], []]


def test_a_scheduled_rule_without_rule_matches_every_row_and_sees_it_as_it_is() -> None:
    yaml = """\
        AnalysisType: scheduled_rule
        RuleID: A.Scheduled
        Enabled: true
        Filename: it.py
        ScheduledQueries: [Query]
        Severity: Low
        Tests: [{Name: t, ExpectedResult: true, ExpectedTitle: "['n', 'p_log_type']", Log: {n: 1, p_log_type: Some.Log}}]
    """
    (result,) = detection(yaml, "def title(event): return str(list(event))\n")

    assert result.problems == []


MODEL = {
    "model.yml": b"AnalysisType: datamodel\nDataModelID: M\nEnabled: true\nLogTypes: [Some.Log]\n"
    b"Mappings: [{Name: actor, Path: who}]\n",
    "some_rule.py": b"def rule(event): return event.udm('actor') == 'eve'\n",
}


@pytest.mark.parametrize(
    ("event", "verdict"),
    [
        ("Log: {who: eve, p_log_type: Some.Log}", "true"),
        ("Log: {who: eve, p_log_type: Other.Log}", "false"),
        ("Log: {who: eve}", "false"),  # as pat: what is not written in the event has no model
        ("Logs: [{who: eve}]", "true"),  # as a run: the event is of the rule's log type
    ],
)
def test_a_data_model_goes_by_the_event_s_log_type(event: str, verdict: str) -> None:
    test = f"Tests: [{{Name: t, ExpectedResult: {verdict}, {event}}}]\n"
    pack = load_pack({**MODEL, "some_rule.yml": spec(more=test)})

    (result,) = run_tests(pack, log_types_of(pack))

    assert result.problems == []


def test_data_models_do_not_apply_to_scheduled_rules() -> None:
    yaml = b"""\
AnalysisType: scheduled_rule
RuleID: A.Scheduled
Enabled: true
Filename: some_rule.py
ScheduledQueries: [Query]
Severity: Low
Tests: [{Name: t, ExpectedResult: false, Log: {who: eve, p_log_type: Some.Log}}]
"""
    pack = load_pack({**MODEL, "some_rule.yml": yaml})

    (result,) = run_tests(pack, log_types_of(pack))

    assert result.problems == []


def test_an_inline_filter_keeps_events_out_and_what_it_keeps_out_matches_nothing() -> None:
    more = "InlineFilters: [{All: [{KeyPath: kind, Condition: Equals, Value: login}]}]\n"
    tests = """\
        - {Name: in, ExpectedResult: true, Log: {kind: login}}
        - {Name: out, ExpectedResult: false, Log: {kind: logout}}
        - {Name: wrong, ExpectedResult: true, Log: {kind: logout}}
        """
    inside, outside, wrong = run(tests, "def rule(event): return True\n", more)

    assert (inside.problems, outside.problems) == ([], [])
    assert wrong.problems == ["rule() gave false, true expected"]


def test_a_step_whose_log_is_misspelled_is_refused_and_no_event() -> None:
    with pytest.raises(InvalidPack, match="unknown key 'Lgo'"):
        run("- {Name: n, ExpectedResult: false, Logs: [{Lgo: {who: a}, Count: 3, ExpectedMatches: 0}]}")


def test_a_sequence_with_a_time_that_a_run_would_refuse_fails() -> None:
    bad = "{p_log_type: AWS.CloudTrail, eventTime: noon, who: a}"

    (problem,) = problems_of(f"- {{Name: n, ExpectedResult: false, Logs: [{bad}]}}")
    assert "a run would make a dead letter of this event" in problem
    assert problems_of(f"- {{Name: n, ExpectedResult: false, Log: {bad}}}") == []
