"""Rules and evaluations for tests, from the text of a module."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import dedent
from typing import Any

from rules.evaluation import Evaluation, evaluate
from rules.event import DerivedFields, PantherEvent
from rules.pack import load_pack
from rules.rule import Match, Outcome, Rule
from rules.state import State

NOON_S = 1_709_294_400.0
"""2024-03-01 12:00:00 UTC"""


def spec(rule_id: str = "Some.Rule", filename: str = "some_rule.py", more: str = "") -> bytes:
    """The YAML of a rule."""
    lines = f"AnalysisType: rule\nRuleID: {rule_id}\nEnabled: true\nFilename: {filename}\nLogTypes: [Some.Log]\nSeverity: Low\n"
    return (lines + dedent(more)).encode()


def make_rule(source: str, more: str = "", rule_id: str = "Some.Rule") -> Rule:
    """The rule of this module, with `more` in its YAML."""
    files = {"some_rule.yml": spec(rule_id, more=more), "some_rule.py": dedent(source).encode()}
    (rule,) = load_pack(files).all_rules
    return rule


class Runner:
    """Evaluates rules one after the other, as one shard does: on state, or probing without."""

    def __init__(self, state: State | None = None, holds: Callable[[str], bool] | None = None) -> None:
        self.state = state
        self.evaluation = Evaluation(state, holds)
        self.offset = 0

    def run(
        self, rule: Rule, data: dict[str, Any] | None = None, at_s: float = NOON_S, derived: DerivedFields | None = None
    ) -> Outcome:
        if self.state is not None:
            self.state.clock_s = at_s
        self.evaluation.begin_event(at_s, (0, self.offset))
        self.offset += 1
        return evaluate(rule, PantherEvent(data or {}, derived), self.evaluation)


def match_of(source: str, more: str = "", data: dict[str, Any] | None = None) -> Match:
    """What the rule says of its match on an event."""
    outcome = Runner(State()).run(make_rule(source, more), data)
    assert outcome.match is not None, outcome
    return outcome.match
