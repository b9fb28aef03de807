"""Runs the Tests: that stand in the YAML of detections, against real, fresh state (PANTHER_FORMAT 1.6 and 5).

A test is one event (`Log`; `Resource` for a policy), evaluated in test mode: all functions run, whatever rule() says. Or it is
a sequence (`Logs`), evaluated as a run would, each element an event or

    - Log: {...}            the event
      Count: 9              so many times (1), each EverySeconds (60) after the one before
      EverySeconds: 60
      ExpectedMatches: 0    of this rule, among these events
      ExpectedAlerts: 0

`ExpectedResult` is the verdict on the last event; of its alert are `ExpectedTitle`, `ExpectedDedup`, `ExpectedSeverity`,
`ExpectedDestinations` (in any order) and `ExpectedContext` (a mapping: these keys have these values, others may be there).
`AlsoRun` names rules of the pack that run on the same state, in RuleID order, where an event is of their log types.
`Mocks` stand in the rule's module, and only there, while the test runs.
"""

from __future__ import annotations

import builtins
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from rules.evaluation import Evaluation, evaluate
from rules.event import PantherEvent
from rules.logtypes import BadTime, LogType, undefined
from rules.pack import Pack
from rules.rule import AUXILIARIES, Match, Outcome, Rule, RuleError
from rules.schema import is_step
from rules.state import State
from rules.times import format_time
from rules.windows import Policy, Windows

LATENESS_S = 86_400.0
"""As in production: how far an event's clock may lie behind W."""

_PRINTED = {"alert_context": "alertContext"}

_BUILTINS = frozenset(dir(builtins))


class FunctionResult(NamedTuple):
    """What one function of the last event's evaluation gave."""

    name: str
    passed: bool
    output: str


@dataclass(slots=True)
class TestResult:
    """What one test came to."""

    __test__ = False

    rule_id: str
    name: str
    problems: list[str] = field(default_factory=list)
    functions: list[FunctionResult] = field(default_factory=list)
    printed: str = ""
    """What the rules printed."""
    failed: list[str] = field(default_factory=list)
    """Where the problems are: names of functions, `mocks`, or `events`."""
    errored: bool = False
    """Something raised; otherwise what failed is an expectation."""
    seconds: float = 0.0
    """How long it took, where whoever runs it measures."""
    unmocked: TestResult | None = None
    """What a test with mocks came to without them, where that was asked for."""

    @property
    def passed(self) -> bool:
        return not self.problems

    def fail(self, where: str, problem: str, *, errored: bool = False) -> None:
        self.problems.append(problem)
        if where not in self.failed:
            self.failed.append(where)
        self.errored |= errored


class Runner:
    """Runs the tests of a pack's detections one by one. Never raises for what rules do."""

    def __init__(
        self,
        pack: Pack,
        types: Mapping[str, LogType],
        *,
        now_s: float = 0.0,
        available_destinations: frozenset[str] | None = None,
    ) -> None:
        self.pack = pack
        self.types = types
        self.now_s = now_s
        """The time of events that have none, and of those before the first that has one."""
        self.available_destinations = available_destinations
        """The names that destinations() may return; None where any may be."""
        self._by_id = {rule.id: rule for rule in (*pack.all_rules, *pack.companions)}

    def run(self, rule: Rule, test: Mapping[str, Any], *, mocked: bool = True) -> TestResult:
        """Run one test; `mocked` False leaves its mocks away."""
        result = TestResult(rule.id, test["Name"])
        rules = [rule]
        if test.get("AlsoRun"):
            names = sorted({*test["AlsoRun"], rule.id})
            if missing := [name for name in names if name not in self._by_id]:
                result.fail("AlsoRun", f"AlsoRun names {', '.join(missing)}: invalid, or no rule for events")
                return result
            rules = [self._by_id[name] for name in names]
        mocks = _mocks_of(test) if mocked else {}
        unknown = mocks.keys() - rule.namespace.keys() - _BUILTINS
        if unknown:
            result.fail("mocks", f"Mocks names {', '.join(sorted(unknown))}: the module has no such name")
            return result
        with rule.patched(mocks), _captured() as printed:
            _Play(self, rules, rule, test, result).play()
        result.printed = printed.getvalue()
        return result


def run_tests(
    pack: Pack,
    types: Mapping[str, LogType],
    *,
    wanted: Callable[[Rule, Mapping[str, Any]], bool] = lambda rule, test: True,
) -> Iterator[TestResult]:
    """Run the tests of all detections of a pack, in order of their ids."""
    runner = Runner(pack, types)
    for rule in pack.everything:
        for test in rule.spec.tests:
            if wanted(rule, test):
                yield runner.run(rule, test)


def _mocks_of(test: Mapping[str, Any]) -> dict[str, Any]:
    mocks = test.get("Mocks")
    if not mocks:
        return {}
    from unittest.mock import MagicMock  # slow to import, and most tests have no mocks

    return {mock["objectName"]: MagicMock(return_value=mock["returnValue"]) for mock in mocks}


@contextmanager
def _captured() -> Iterator[io.StringIO]:
    """What is printed meanwhile. A rule may close or replace what it finds in sys.stdout: each test gets its own."""
    before, printed = sys.stdout, _Printed()
    sys.stdout = printed
    try:
        yield printed
    finally:
        sys.stdout = before


class _Printed(io.StringIO):
    def close(self) -> None:
        """A rule that closes its standard output still has printed what it has printed."""


# --- playing a test ------------------------------------------------------------------------------------------------


class _Seen(NamedTuple):
    """What the last event's evaluation came to."""

    verdict: bool
    """What rule() said; False where it raised."""
    match: Match | None
    """In test mode always there, else on a match."""
    errors: tuple[RuleError, ...]


_NOTHING = _Seen(False, None, ())


class _InTestMode:
    """A rule as evaluate() sees it, whose run() is that of test mode; keeps what came of it."""

    def __init__(self, rule: Rule) -> None:
        self.id = rule.id
        self._rule = rule
        self.seen = _NOTHING

    def run(self, event: PantherEvent) -> Outcome:
        verdict, match, errors = self._rule.run_all(event)
        self.seen = _Seen(verdict, match, errors)
        return Outcome(match if verdict else None, errors)


class _Play:
    """One test: rules on one fresh state, fed event by event."""

    def __init__(
        self, runner: Runner, rules: list[Rule], rule: Rule, test: Mapping[str, Any], result: TestResult
    ) -> None:
        self._runner = runner
        self._rules = rules
        self._rule = rule
        self._test = test
        self._result = result
        self._streams = rule.spec.kind == "rule"
        """Other detections read rows and resources: neither p_ fields nor data models nor lookup tables belong to those."""
        self._default_type = min(rule.log_types, default="")
        self._state = State()
        self._windows = Windows()
        self._evaluation = Evaluation(self._state)
        self._w_s = self._last_s = float("-inf")
        self._time_s = runner.now_s
        self._count = 0

    def play(self) -> None:
        sequence = self._test.get("Logs")
        if sequence:
            seen = self._sequence(sequence)
        else:
            data = _as_logged(self._test["Log"] if "Log" in self._test else self._test["Resource"])
            seen, _ = self._feed(data, in_test_mode=True)
        self._judge(seen)

    def _sequence(self, elements: list[dict[str, Any]]) -> _Seen:
        result = self._result
        seen, failed = _NOTHING, list[str]()
        for number, step in enumerate(map(_Step.of, elements), 1):
            matches = alerts = 0
            for data in step.events(self._runner.types, self._default_type):
                for problem in failed:  # of the event before: _judge() looks at the last one
                    result.fail("events", problem, errored=True)
                seen, raised = self._feed(data, in_test_mode=False)
                failed = [f"event {number}: {error.function} raised {_said(error)}" for error in seen.errors]
                matches += seen.verdict
                alerts += raised
            for what, expected, counted in (("matches", step.matches, matches), ("alerts", step.alerts, alerts)):
                if expected is not None and expected != counted:
                    result.fail("events", f"event {number}: {counted} {what}, {expected} expected")
        return seen

    def _refuse_bad_time(self, log_type: LogType, data: dict[str, Any]) -> None:
        """A sequence stands for a run, which would make a dead letter of this event."""
        try:
            log_type.time_of(data)
        except BadTime as error:
            self._result.fail("events", f"{error}: a run would make a dead letter of this event", errored=True)

    def _feed(self, data: dict[str, Any], *, in_test_mode: bool) -> tuple[_Seen, bool]:
        """Evaluate every rule on an event; (what the tested one came to, whether it raised an alert)."""
        name = data.get("p_log_type")
        named = isinstance(name, str) and name != ""
        log_type_name = cast(str, name) if named else self._default_type
        log_type = self._runner.types.get(log_type_name) or undefined(log_type_name)
        own_s = _time_of(log_type, data)
        if own_s is None and not in_test_mode:
            self._refuse_bad_time(log_type, data)
        self._time_s = time_s = self._time_s if own_s is None else own_s
        position = (0, self._count)
        self._count += 1
        self._state.clock_s = clock_s = max(time_s, self._w_s - LATENESS_S)
        if self._streams:
            derived = log_type.derive(data, time_s, position, "test")
            # A single event's data model goes by what is written in it, as in Panther's own tests.
            context = self._runner.pack.context_of(log_type_name) if named or not in_test_mode else None
            event = PantherEvent(data, derived, context)
        elif self._rule.kind == "policy":
            event = cast(PantherEvent, deepcopy(data))  # policies get their resource in plain Python, and may change it
        else:
            event = PantherEvent(data)
        self._evaluation.begin_event(time_s, position)
        seen, raised, active = _NOTHING, False, False
        for rule in self._rules:
            if rule is self._rule and in_test_mode:
                seen, outcome = self._try(rule, event)
            elif rule is self._rule or log_type_name in rule.log_types:
                outcome = evaluate(rule, event, self._evaluation)
                if rule is self._rule:
                    seen = _Seen(outcome.match is not None, outcome.match, outcome.errors)
            else:
                continue
            active |= self._evaluation.key is not None or outcome.match is not None
            alert = outcome.match is not None and self._alert(rule, outcome.match, clock_s, position)
            raised |= alert and rule is self._rule
        if active:
            self._w_s, self._last_s = max(self._w_s, min(self._last_s, time_s)), time_s
        return seen, raised

    def _try(self, rule: Rule, event: PantherEvent) -> tuple[_Seen, Outcome]:
        tried = _InTestMode(rule)
        outcome = evaluate(cast(Rule, tried), event, self._evaluation)
        if self._evaluation.ended:  # what the rule did after that does not count
            return _Seen(False, None, outcome.errors), outcome
        return tried.seen, outcome

    def _alert(self, rule: Rule, match: Match, clock_s: float, position: tuple[int, ...]) -> bool:
        policy = Policy(rule.spec.threshold, float(rule.spec.dedup_period_s), rule.has_unique)
        placed = self._windows.add((rule.id, match.dedup), policy, clock_s, position, match.unique, lambda: b"")
        return placed.raised and match.create_alert

    # --- the verdict ---

    def _judge(self, seen: _Seen) -> None:
        """pat's verdict: false is only false, a raising rule fails; where an alert is expected every auxiliary must succeed.

        A policy's alert is that of a resource that does not comply, for which it gives false.
        """
        rule, result = self._rule, self._result
        errors = {error.function: _said(error) for error in seen.errors}
        own = "policy" if rule.spec.kind == "policy" else "rule"
        expected: bool = self._test["ExpectedResult"]
        for function in ("inline_filters", "rule"):
            if function in errors:
                name = own if function == "rule" else function
                result.fail(name, f"{name} raised {errors[function]}", errored=True)
                result.functions.append(FunctionResult(name, False, errors[function]))
                return
        said = str(seen.verdict).lower()
        result.functions.append(FunctionResult(own, seen.verdict is expected, said))
        if seen.verdict is not expected:
            result.fail(own, f"{own}() gave {said}, {str(expected).lower()} expected")
        if seen.match is None:
            return
        if expected is (own == "rule"):
            self._auxiliaries(seen.match, errors)
        if seen.verdict is (own == "rule"):
            self._assertions(seen.match)

    def _auxiliaries(self, match: Match, errors: dict[str, str]) -> None:
        unknown = self._unknown_destinations(match)
        if unknown:
            errors.setdefault("destinations", f"UnknownDestination: no available destination is called {unknown}")
        for name in AUXILIARIES:
            if name in self._rule.defined or name == "dedup":  # every alert has one
                printed = _PRINTED.get(name, name)
                error = errors.get(name)
                output = _output(match, name) if error is None else error
                self._result.functions.append(FunctionResult(printed, error is None, output))
                if error is not None:
                    self._result.fail(printed, f"{name} raised {error}", errored=True)

    def _unknown_destinations(self, match: Match) -> str:
        available = self._runner.available_destinations
        if available is None or not match.destinations or match.destinations == ["SKIP"]:
            return ""
        return ", ".join(repr(name) for name in match.destinations if name not in available)

    def _assertions(self, match: Match) -> None:
        test = self._test
        for key, name in (("ExpectedTitle", "title"), ("ExpectedDedup", "dedup"), ("ExpectedSeverity", "severity")):
            wanted = test.get(key)
            given = _output(match, name)
            if wanted is not None and given != (wanted.upper() if name == "severity" else wanted):
                self._result.fail(name, f"{name} is {given!r}, {wanted!r} expected")
        if (destinations := test.get("ExpectedDestinations")) is not None:
            sent = list(self._rule.spec.output_ids) if match.destinations is None else match.destinations
            sent = [] if sent == ["SKIP"] else sent
            if sorted(sent) != sorted(destinations):
                self._result.fail("destinations", f"destinations are {sent!r}, {destinations!r} expected")
        for key, wanted in _as_logged(test.get("ExpectedContext") or {}).items():
            context = json.loads(match.context or "{}")
            if key not in context:
                self._result.fail("alertContext", f"alert_context has no {key!r}, {wanted!r} expected")
            elif context[key] != wanted:
                self._result.fail("alertContext", f"alert_context[{key!r}] is {context[key]!r}, {wanted!r} expected")


def _said(error: RuleError) -> str:
    return f"{error.error}: {error.message}"


def _output(match: Match, name: str) -> str:
    """What an auxiliary function gave, as it is shown."""
    match name:
        case "destinations":
            return json.dumps(match.destinations)
        case "alert_context":
            return match.context or ""
        case _:
            return getattr(match, name) or ""


# --- the events of a test ------------------------------------------------------------------------------------------


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
        data = _as_logged(self.log)
        yield data
        if self.count == 1:
            return
        name = data.get("p_log_type") or log_type
        first_s = _time_of(types.get(name) or undefined(name), data)
        for repetition in range(1, self.count):
            if first_s is not None:
                data = {**data, "p_event_time": format_time(first_s + repetition * self.every_s)}
            yield data


def _time_of(log_type: LogType, event: dict[str, Any]) -> float | None:
    """A test's time may be left out with dots; a run would make a dead letter of such an event."""
    try:
        return log_type.time_of(event)
    except BadTime:
        return None


_SCALARS = frozenset({str, int, float, bool, type(None)})


def _as_logged(event: dict[str, Any]) -> dict[str, Any]:
    """The event as its JSON would give it, with keys that are texts: mostly the very object. Rules only see it read-only."""
    if _is_json(event):
        return event
    return json.loads(json.dumps(event, default=str))  # type: ignore[no-any-return]


def _is_json(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return all(type(key) is str and (type(each) in _SCALARS or _is_json(each)) for key, each in value.items())
    if kind is list:
        return all(type(each) in _SCALARS or _is_json(each) for each in value)
    return kind in _SCALARS
