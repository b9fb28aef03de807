"""Every shipped rule: the checks common to all of them, and its own Tests: against real state.

What can be said of a rule without running it is read from its syntax tree and its YAML; the rest runs the real
evaluation, so a key that two rules share or an expiry that is forgotten shows here and not in production.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.core.keygroups import DEFAULT_KEY_GROUPS, key_grouping
from rules import selftest
from rules.evaluation import Evaluation, evaluate
from rules.event import PantherEvent
from rules.logtypes import load_definitions, shipped_definitions
from rules.pack import Pack, load_pack, read_files
from rules.rule import Outcome, Rule
from rules.state import State

PACKS = Path(__file__).parents[1] / "rules" / "packs"
LOG_TYPE_OF_FOLDER = {
    "aws_cloudtrail": "AWS.CloudTrail",
    "eks": "Amazon.EKS.Audit",
    "github": "GitHub.Audit",
    "gsuite": "GSuite.ActivityEvent",
    "okta": "Okta.SystemLog",
}
HELPERS = {
    "add_to_string_set",
    "check_account_age",
    "evaluate_threshold",
    "get_counter",
    "get_dictionary",
    "get_string_set",
    "increment_counter",
    "put_dictionary",
    "put_string_set",
    "remove_from_string_set",
    "reset_counter",
    "reset_string_set",
    "set_key_expiration",
}
EXPIRING_WRITES = {
    "add_to_string_set",
    "evaluate_threshold",
    "increment_counter",
    "put_dictionary",
    "put_string_set",
}
"""Helpers that make a key live: each takes the expiry as its third argument."""


@dataclass(frozen=True)
class Shipped:
    """A rule as its two files say it."""

    path: Path
    spec: dict[str, Any]
    tree: ast.Module

    @property
    def rule_id(self) -> str:
        return str(self.spec["RuleID"])

    @property
    def alerts(self) -> bool:
        """False for a marker: it writes a key for other rules and never matches."""
        return bool(self.spec.get("CreateAlert", True))

    def functions(self) -> dict[str, ast.FunctionDef]:
        return {node.name: node for node in self.tree.body if isinstance(node, ast.FunctionDef)}

    def shared_prefix(self) -> str | None:
        """The first part of the key that this rule has in common with another one, if any."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SHARED_PREFIX":
                return str(ast.literal_eval(node.value))
        return None


def helper_calls(node: ast.AST) -> list[ast.Call]:
    return [
        call
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in HELPERS
    ]


def called(node: ast.AST) -> set[str]:
    return {ast.unparse(call.func) for call in helper_calls(node)}


SHIPPED = [
    Shipped(path, yaml.safe_load(path.read_text()), ast.parse(path.with_suffix(".py").read_text()))
    for path in sorted(PACKS.glob("*/*.yml"))
]
each_rule = pytest.mark.parametrize("shipped", SHIPPED, ids=lambda shipped: shipped.rule_id)


# What the files say


def test_rules_come_in_pairs_of_one_name() -> None:
    names = {suffix: {path.with_suffix("") for path in PACKS.rglob(f"*{suffix}")} for suffix in (".py", ".yml")}
    assert names[".py"] == names[".yml"]
    assert [shipped.path.stem + ".py" for shipped in SHIPPED] == [shipped.spec["Filename"] for shipped in SHIPPED]
    assert len({shipped.rule_id for shipped in SHIPPED}) == len(SHIPPED)


@each_rule
def test_a_rule_stands_in_the_folder_of_its_log_type(shipped: Shipped) -> None:
    assert shipped.spec["LogTypes"] == [LOG_TYPE_OF_FOLDER[shipped.path.parent.name]]


@each_rule
def test_a_rule_says_what_an_analyst_needs(shipped: Shipped) -> None:
    spec = shipped.spec
    assert spec["AnalysisType"] == "rule"
    assert spec["Enabled"] is True
    assert spec["DisplayName"]
    assert spec["Tags"]
    assert len(spec["Description"].split()) >= 25
    assert spec["Reference"].startswith("https://")
    assert spec["DedupPeriodMinutes"] >= 5
    assert spec["Threshold"] >= 1
    for technique in spec["Reports"]["MITRE ATT&CK"]:
        assert re.fullmatch(r"TA\d{4}:T\d{4}(\.\d{3})?", technique)
    steps = re.findall(r"^\d+\. ", spec["Runbook"], re.MULTILINE)
    assert len(steps) >= (3 if shipped.alerts else 1)
    assert {"rule", "title", "dedup", "alert_context"} <= shipped.functions().keys()


@each_rule
def test_a_rule_is_tested_for_both_outcomes_and_without_mocks(shipped: Shipped) -> None:
    tests = shipped.spec["Tests"]
    outcomes = {test["ExpectedResult"] for test in tests}
    assert outcomes == ({True, False} if shipped.alerts else {False})
    assert any("Log" in test and not test["ExpectedResult"] for test in tests)
    assert any("Logs" in test for test in tests)
    assert not any("Mocks" in test for test in tests)
    if shipped.alerts:
        assert any(step.get("ExpectedAlerts") for test in tests for step in test.get("Logs", []))
        assert any("ExpectedTitle" in test and "ExpectedDedup" in test for test in tests)


@each_rule
def test_times_in_tests_are_quoted(shipped: Shipped) -> None:
    def scalars(value: object) -> Iterator[object]:
        if isinstance(value, dict):
            for element in value.values():
                yield from scalars(element)
        elif isinstance(value, list):
            for element in value:
                yield from scalars(element)
        else:
            yield value

    assert not [value for value in scalars(shipped.spec["Tests"]) if isinstance(value, date)]


@each_rule
def test_every_write_says_when_its_key_expires(shipped: Shipped) -> None:
    for function in shipped.functions().values():
        if "set_key_expiration" in called(function):
            continue
        for call in helper_calls(function):
            if ast.unparse(call.func) in EXPIRING_WRITES:
                named = {keyword.arg for keyword in call.keywords}
                assert len(call.args) >= 3 or named & {"epoch_seconds", "expiry_seconds"}, ast.unparse(call)


@each_rule
def test_a_rule_needs_the_helpers_and_the_standard_library_only(shipped: Shipped) -> None:
    modules = {node.module for node in shipped.tree.body if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in shipped.tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert modules <= {"panther_detection_helpers.caching", "re"}


def test_together_the_rules_use_every_helper() -> None:
    assert set[str]().union(*(called(shipped.tree) for shipped in SHIPPED)) == HELPERS


def test_one_rule_needs_no_helper_but_threshold_and_unique() -> None:
    stateless = [shipped for shipped in SHIPPED if not called(shipped.tree)]
    assert [shipped.rule_id for shipped in stateless] == ["AWS.CloudTrail.S3.BucketEnumeration"]
    assert stateless[0].spec["Threshold"] > 1
    assert "unique" in stateless[0].functions()


def test_keys_are_shared_between_a_writer_and_a_reader() -> None:
    writers = {shipped.shared_prefix() for shipped in SHIPPED if called(shipped.tree) & EXPIRING_WRITES} - {None}
    readers = {
        shipped.shared_prefix()
        for shipped in SHIPPED
        if called(shipped.tree) & {"get_counter", "check_account_age"} and not called(shipped.tree) & EXPIRING_WRITES
    } - {None}
    assert writers == readers == {"aws.console_login", "aws.new_user"}


# What running them says


@cache
def shipped_pack() -> Pack:
    return load_pack(read_files([PACKS]))


@cache
def results_by_rule() -> dict[str, list[selftest.TestResult]]:
    results: dict[str, list[selftest.TestResult]] = {}
    log_types = load_definitions(shipped_definitions())
    for result in selftest.run_tests(shipped_pack(), log_types):
        results.setdefault(result.rule_id, []).append(result)
    return results


@each_rule
def test_its_own_tests_pass(shipped: Shipped) -> None:
    results = results_by_rule()[shipped.rule_id]
    assert [result.name for result in results] == [test["Name"] for test in shipped.spec["Tests"]]
    assert [(result.name, result.problems) for result in results if not result.passed] == []


class Replay:
    """The events of one test, evaluated in order by the rules that the test names, on a state of its own.

    Count repeats an event without moving its time: what is asked here depends on keys, not on windows.
    """

    def __init__(self, shipped: Shipped, test: dict[str, Any]) -> None:
        by_id: dict[str, Rule] = {rule.id: rule for rule in shipped_pack().rules}
        self._rules = [by_id[rule_id] for rule_id in sorted({shipped.rule_id, *test.get("AlsoRun", [])})]
        self.state = State()
        self._evaluation = Evaluation(self.state)
        self.events: list[dict[str, Any]] = []
        for step in test.get("Logs") or [test["Log"]]:
            repeated = step if "Log" in step else {"Log": step}
            self.events += [repeated["Log"]] * repeated.get("Count", 1)

    def feed(self, event: dict[str, Any]) -> list[Outcome]:
        time_s = datetime.fromisoformat(event["p_event_time"]).replace(tzinfo=UTC).timestamp()
        self.state.clock_s = time_s
        outcomes = []
        for rule in self._rules:
            self._evaluation.begin_event(time_s, (0, 0))
            outcomes.append(evaluate(rule, PantherEvent(event), self._evaluation))
        return outcomes


def damaged(event: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The event without one field, and with null in its place, for every field at every depth but the time."""
    for name, value in event.items():
        if name == "p_event_time":
            continue
        yield {key: kept for key, kept in event.items() if key != name}
        yield {**event, name: None}
        if isinstance(value, dict):
            yield from ({**event, name: inner} for inner in damaged(value))
        if isinstance(value, list):
            yield {**event, name: []}
            for element in value:
                if isinstance(element, dict):
                    yield from ({**event, name: [inner]} for inner in damaged(element))


@each_rule
def test_keys_start_with_the_rule_or_a_shared_prefix_and_name_something(shipped: Shipped) -> None:
    prefixes = {f"{shipped.rule_id}:", *(f"{other.shared_prefix()}:" for other in SHIPPED if other.shared_prefix())}
    keys = set()
    for test in shipped.spec["Tests"]:
        replay = Replay(shipped, test)
        for event in replay.events:
            assert [error for outcome in replay.feed(event) for error in outcome.errors] == []
        keys |= {row.key for row in replay.state.rows(horizon_s=0)}
    for key in keys:
        named = [key.removeprefix(prefix) for prefix in prefixes if key.startswith(prefix)]
        assert named, key
        assert named[0], key
        assert "None" not in key
    assert bool(keys) == bool(called(shipped.tree))


@each_rule
def test_an_event_with_a_field_missing_or_null_is_no_error_and_no_key(shipped: Shipped) -> None:
    for test in shipped.spec["Tests"]:
        replay = Replay(shipped, test)
        for event in replay.events[:-1]:
            replay.feed(event)
        for event in damaged(replay.events[-1]):
            assert [error for outcome in replay.feed(event) for error in outcome.errors] == [], event
        assert not [row.key for row in replay.state.rows(horizon_s=0) if "None" in row.key]


@each_rule
def test_an_event_that_comes_late_or_twice_is_no_error(shipped: Shipped) -> None:
    for test in shipped.spec["Tests"]:
        replay = Replay(shipped, test)
        for event in [*reversed(replay.events), *replay.events, *replay.events]:
            assert [error for outcome in replay.feed(event) for error in outcome.errors] == []


def test_two_keys_of_one_evaluation_share_a_tag() -> None:
    shipped = next(rule for rule in SHIPPED if rule.rule_id == "Okta.Admin.ResetThenGrant")
    replay = Replay(shipped, shipped.spec["Tests"][0])
    for event in replay.events:
        replay.feed(event)
    keys = sorted(row.key for row in replay.state.rows(horizon_s=0))
    assert keys == [f"{shipped.rule_id}:{{00uadmin}}:{what}" for what in ("grants", "resets")]
    assert len({key_grouping(DEFAULT_KEY_GROUPS)(key) for key in keys}) == 1
