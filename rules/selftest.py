"""Runs the Tests: that stand in rules' YAML, against real, fresh state (PANTHER_FORMAT 1.6 and 5).

A test is one event (`Log`) or a sequence (`Logs`), each element an event or

    - Log: {...}            the event
      Count: 9              so many times (1), each EverySeconds (60) after the one before
      EverySeconds: 60
      ExpectedMatches: 0    of this rule, among these events
      ExpectedAlerts: 0

`ExpectedResult` is the verdict on the last event; `ExpectedTitle`, `ExpectedDedup` and `ExpectedSeverity` are of its match.
`AlsoRun` names rules of the pack that run on the same state, in RuleID order, where an event is of their log types.
`Mocks` stand in the rule's module, and only there, while the test runs.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import MagicMock

from rules.evaluation import Evaluation, evaluate
from rules.event import PantherEvent
from rules.logtypes import BadTime, LogType, undefined
from rules.pack import Pack
from rules.rule import AUXILIARIES, NO_MATCH, Match, Outcome, Rule, RuleError
from rules.schema import is_step
from rules.state import State
from rules.times import format_time
from rules.windows import Policy, Windows

LATENESS_S = 86_400.0
"""As in production: how far an event's clock may lie behind W."""

_PRINTED = {"alert_context": "alertContext"}


@dataclass(slots=True)
class TestResult:
    """What one test came to."""

    __test__ = False

    rule_id: str
    name: str
    problems: list[str] = field(default_factory=list)
    functions: list[tuple[str, bool, str]] = field(default_factory=list)
    """(name, passed, output) of the last event's evaluation."""
    printed: str = ""
    """What the rules printed."""

    @property
    def passed(self) -> bool:
        return not self.problems


class _Bench:
    """Rules on one fresh state, fed event by event as a run would."""

    def __init__(self, rules: list[Rule], types: Mapping[str, LogType], group_of: Callable[[str], int]) -> None:
        self._rules = rules
        self.types = types
        self._state = State()
        self._windows = Windows()
        self._evaluation = Evaluation(self._state, group_of)
        self._w_s = self._last_s = float("-inf")
        self._time_s = 0.0
        self._count = 0

    def feed(self, data: dict[str, Any], rule: Rule) -> tuple[Outcome, bool]:
        """Evaluate every rule on an event; (what `rule` came to, whether it raised an alert)."""
        log_type = self._log_type(data, rule)
        own_s = _time_of(log_type, data)
        self._time_s = time_s = self._time_s if own_s is None else own_s
        position = (0, self._count)
        self._count += 1
        self._state.clock_s = clock_s = max(time_s, self._w_s - LATENESS_S)
        event = PantherEvent(data, log_type.derive(data, time_s, position, "test"))
        self._evaluation.begin_event(time_s, position)
        result, raised, active = NO_MATCH, False, False
        for each in self._rules:
            if each is not rule and log_type.name not in each.log_types:
                continue
            outcome = evaluate(each, event, self._evaluation)
            active |= self._evaluation.key is not None or outcome.match is not None
            alert = outcome.match is not None and self._alert(each, outcome.match, clock_s, position)
            if each is rule:
                result, raised = outcome, alert
        if active:
            self._w_s, self._last_s = max(self._w_s, min(self._last_s, time_s)), time_s
        return result, raised

    def _log_type(self, data: dict[str, Any], rule: Rule) -> LogType:
        name = data.get("p_log_type")
        if not isinstance(name, str) or not name:
            name = min(rule.log_types)
        return self.types.get(name) or undefined(name)

    def _alert(self, rule: Rule, match: Match, clock_s: float, position: tuple[int, ...]) -> bool:
        policy = Policy(rule.spec.threshold, float(rule.spec.dedup_period_s), rule.has_unique)
        placed = self._windows.add((rule.id, match.dedup), policy, clock_s, position, match.unique, lambda: b"")
        return placed.raised and match.create_alert


def run_tests(
    pack: Pack,
    types: Mapping[str, LogType],
    group_of: Callable[[str], int],
    *,
    wanted: Callable[[Rule, Mapping[str, Any]], bool] = lambda rule, test: True,
) -> Iterator[TestResult]:
    """Run the tests of all rules of a pack, in RuleID order, as `group_of` groups keys. Never raises for what rules do."""
    by_id = {rule.id: rule for rule in pack.all_rules}
    for rule in pack.all_rules:
        for test in rule.spec.tests:
            if wanted(rule, test):
                yield _run_test(rule, test, by_id, types, group_of)


def _run_test(
    rule: Rule,
    test: Mapping[str, Any],
    by_id: Mapping[str, Rule],
    types: Mapping[str, LogType],
    group_of: Callable[[str], int],
) -> TestResult:
    result = TestResult(rule.id, test["Name"])
    rules = {rule.id: rule, **{name: by_id[name] for name in test.get("AlsoRun", ())}}
    bench = _Bench([rules[name] for name in sorted(rules)], types, group_of)
    mocks = {mock["objectName"]: MagicMock(return_value=mock["returnValue"]) for mock in test.get("Mocks", ())}
    unknown = mocks.keys() - rule.namespace.keys()
    if unknown:
        result.problems.append(f"Mocks names {', '.join(sorted(unknown))}: the module has no such name")
        return result
    with rule.patched(mocks), redirect_stdout(io.StringIO()) as printed:
        _play(bench, rule, test, result)
    result.printed = printed.getvalue()
    return result


def _play(bench: _Bench, rule: Rule, test: Mapping[str, Any], result: TestResult) -> None:
    outcome, failed = NO_MATCH, list[str]()
    for number, step in enumerate(map(_Step.of, test.get("Logs") or [test["Log"]]), 1):
        matches = alerts = 0
        for data in step.events(bench.types, min(rule.log_types)):
            result.problems += failed  # of the event before: _judge() looks at the last one
            outcome, raised = bench.feed(data, rule)
            failed = [f"event {number}: {error.function} raised {_said(error)}" for error in outcome.errors]
            matches += outcome.match is not None
            alerts += raised
        for what, expected, counted in (("matches", step.matches, matches), ("alerts", step.alerts, alerts)):
            if expected is not None and expected != counted:
                result.problems.append(f"event {number}: {counted} {what}, {expected} expected")
    _judge(rule, test, outcome, result)


def _judge(rule: Rule, test: Mapping[str, Any], outcome: Outcome, result: TestResult) -> None:
    """pat's verdict: false is only false, a raising rule included; true needs every auxiliary to succeed."""
    errors = {error.function: _said(error) for error in outcome.errors}
    expected: bool = test["ExpectedResult"]
    verdict = outcome.match is not None
    if "rule" in errors:
        result.problems.append(f"rule raised {errors['rule']}")
        result.functions.append(("rule", False, errors["rule"]))
        return
    result.functions.append(("rule", verdict is expected, str(verdict).lower()))
    if verdict is not expected:
        result.problems.append(f"rule() gave {str(verdict).lower()}, {str(expected).lower()} expected")
    if outcome.match is None:
        return
    given = _given(outcome.match)
    for name in AUXILIARIES:
        if name in rule.defined and expected:
            output = errors.get(name, given[name])
            result.functions.append((_PRINTED.get(name, name), name not in errors, output))
            if name in errors:
                result.problems.append(f"{name} raised {errors[name]}")
    for key, name in (("ExpectedTitle", "title"), ("ExpectedDedup", "dedup"), ("ExpectedSeverity", "severity")):
        wanted = test.get(key)
        if wanted is not None and given[name] != (wanted.upper() if name == "severity" else wanted):
            result.problems.append(f"{name} is {given[name]!r}, {wanted!r} expected")


def _said(error: RuleError) -> str:
    return f"{error.error}: {error.message}"


def _given(match: Match) -> dict[str, str]:
    return {
        "title": match.title,
        "description": match.description,
        "reference": match.reference,
        "severity": match.severity,
        "runbook": match.runbook,
        "destinations": json.dumps(match.destinations),
        "dedup": match.dedup,
        "alert_context": match.context or "",
        "unique": match.unique or "",
    }


@dataclass(frozen=True, slots=True)
class _Step:
    """One element of Logs."""

    log: dict[str, Any]
    count: int = 1
    every_s: float = 60.0
    matches: int | None = None
    alerts: int | None = None

    @staticmethod
    def of(element: dict[str, Any]) -> _Step:
        if not is_step(element):
            return _Step(element)
        return _Step(
            element["Log"],
            element.get("Count", 1),
            element.get("EverySeconds", 60),
            element.get("ExpectedMatches"),
            element.get("ExpectedAlerts"),
        )

    def events(self, types: Mapping[str, LogType], log_type: str) -> Iterator[dict[str, Any]]:
        """The event `count` times, each with the time it would have had."""
        yield _as_logged(self.log)
        if self.count == 1:
            return
        name = self.log.get("p_log_type") or log_type
        first_s = _time_of(types.get(name) or undefined(name), self.log)
        for repetition in range(1, self.count):
            data = _as_logged(self.log)
            if first_s is not None:
                data["p_event_time"] = format_time(first_s + repetition * self.every_s)
            yield data


def _time_of(log_type: LogType, event: dict[str, Any]) -> float | None:
    """A test's time may be left out with dots; a run would make a dead letter of such an event."""
    try:
        return log_type.time_of(event)
    except BadTime:
        return None


def _as_logged(event: dict[str, Any]) -> dict[str, Any]:
    """The event as its JSON would give it: a copy, with keys that are texts."""
    return json.loads(json.dumps(event, default=str))  # type: ignore[no-any-return]
