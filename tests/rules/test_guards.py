"""A guard is what a rule needs to match or reach state, read off its first statements; never a wrong one."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.evaluation import NO_MATCH, Evaluation, evaluate
from rules.event import PantherEvent
from rules.guards import Guard, Index, guard_of
from rules.pack import Pack, load_pack

CONSTANTS = """
from panther_detection_helpers.caching import increment_counter
NAMES = {"a", "b"}
LIST = ["c"]
ONE = "d"
NUMBERS = {1, 2}
"""


def pack_of(*bodies: str) -> Pack:
    files: dict[str, bytes] = {}
    for n, body in enumerate(bodies):
        lines = "\n".join("    " + line for line in body.splitlines())
        files[f"r{n}.py"] = f"{CONSTANTS}\ndef rule(event):\n{lines}\n".encode()
        files[f"r{n}.yml"] = (
            f"AnalysisType: rule\nRuleID: R{n}\nFilename: r{n}.py\nEnabled: true\nLogTypes: [T]\nSeverity: Low\n"
        ).encode()
    return load_pack(files, quiet=True)


def guard(body: str) -> Guard | None:
    return pack_of(body).rules[0].guard


GUARDED = {
    'return event.get("x") == "v"': ("x", {"v"}),
    'return event.get("x") == ONE': ("x", {"d"}),
    'return event.get("x") in NAMES and increment_counter("k") > 3': ("x", {"a", "b"}),
    'if event.get("x") != "v":\n    return False\nreturn increment_counter("k") > 3': ("x", {"v"}),
    'if event.get("x") not in NAMES:\n    return False\nreturn True': ("x", {"a", "b"}),
    'if event.get("y") not in NAMES or event.get("x") != "v":\n    return False\nreturn True': ("x", {"v"}),
    '"""Words."""\nkind = event.get("x")\nif kind not in NAMES and kind not in LIST:\n    return False\nreturn True': (
        "x",
        {"a", "b", "c"},
    ),
    'if event.get("y"):\n    return False\nif not event.get("x") == "v":\n    return False\nreturn True': ("x", {"v"}),
    'if event.deep_get("a", "b") is None:\n    return False\nreturn event.get("x") == "v"': ("x", {"v"}),
    'return event.get("x") == "v" or event.get("x") in LIST': ("x", {"v", "c"}),
}

UNGUARDED = [
    'return event.get("x") != "v"',
    'return increment_counter("k") > 3 and event.get("x") == "v"',
    'if increment_counter("k") > 3 or event.get("x") != "v":\n    return False\nreturn True',
    'if event.get("x") != "v":\n    increment_counter("k")\n    return False\nreturn True',
    'if event.get("x") != "v":\n    return True\nreturn False',
    'if event.get("x") != "v":\n    return False\nelse:\n    return True',
    'return event.get("x", "v") == "v"',
    'return event.get("p_log_type") == "T"',
    'return event.get("x") in "value"',
    'return event.get("x") in NUMBERS',
    'return event.get("x") == "v" or event.get("y") == "v"',
    'event = event.get("inner")\nreturn event.get("x") == "v"',
    'ONE = event.get("y")\nreturn event.get("x") == ONE',
    'for _ in range(2):\n    increment_counter("k")\nreturn event.get("x") == "v"',
    'return str(increment_counter("k")) == event.get("y") and event.get("x") == "v"',
    'x = event.get("x")\nx = increment_counter("k")\nreturn x == "v"',
    'return [event.get("x") == "v"] and True',
]


@pytest.mark.parametrize(("body", "expected"), GUARDED.items(), ids=list(GUARDED))
def test_a_plain_first_condition_is_a_guard(body: str, expected: tuple[str, set[str]]) -> None:
    assert guard(body) == (expected[0], frozenset(expected[1]))


@pytest.mark.parametrize("body", UNGUARDED)
def test_whatever_else_is_no_guard(body: str) -> None:
    assert guard(body) is None


def test_a_constant_that_a_function_may_change_is_no_guard() -> None:
    assert guard('if event.get("x") not in NAMES:\n    return False\nNAMES.add("z")\nreturn True') is None


def test_a_rule_defined_twice_or_decorated_has_no_guard() -> None:
    source = 'def rule(event):\n    return event.get("x") == "v"\n'
    namespace: dict[str, Any] = {}
    exec(compile(source + "rule = lambda event: True", "m", "exec"), namespace)
    assert guard_of(ast.parse(source), namespace) is None
    assert guard_of(ast.parse("@decorated\n" + source), {}) is None


VALUES = st.one_of(st.sampled_from(["v", "a", "c", "d", "V", ""]), st.none(), st.integers(0, 2), st.lists(st.just("v")))
EVENTS = st.dictionaries(st.sampled_from(["x", "X", "y", "Y", "a"]), VALUES, max_size=4)
ALL = pack_of(*GUARDED, *UNGUARDED)


@settings(max_examples=300)
@given(EVENTS)
def test_a_rule_that_the_index_leaves_out_neither_matches_nor_reaches_state(event: dict[str, Any]) -> None:
    evaluation = Evaluation(None)
    evaluation.begin_event(0.0, (0, 0))
    kept = Index([rule.guard for rule in ALL.rules]).candidates(event)
    for n, rule in enumerate(ALL.rules):
        if n in kept:
            continue
        outcome = evaluate(rule, PantherEvent(event), evaluation)
        assert outcome.match is None
        assert evaluation.key is None
        assert outcome is NO_MATCH or outcome.errors


def test_the_index_gives_candidates_in_order_and_finds_keys_in_any_case() -> None:
    index = Index([Guard("x", frozenset({"a"})), None, Guard("y", frozenset({"b"})), Guard("x", frozenset({"a", "c"}))])

    assert index.candidates({"X": "a", "y": "b"}) == (0, 1, 2, 3)
    assert index.candidates({"x": "c"}) == (1, 3)
    assert index.candidates({"x": ["a"], "y": None}) == (1,)
