"""What an evaluation came to is decided by its record, never by what the rule did with an exception (DESIGN 11.4)."""

from __future__ import annotations

import pytest

from rules.evaluation import DEFERRED, NO_MATCH, REACHED
from rules.rule import Outcome
from rules.state import State
from tests.rules.making import Runner, make_rule

IMPORT = "from panther_detection_helpers.caching import *\n"


def holds_a(key: str) -> bool:
    """A state that holds the keys that begin with a."""
    return key.startswith("a")


def error_of(outcome: Outcome) -> tuple[str, str]:
    assert outcome.match is None
    (error,) = outcome.errors
    return error.error, error.message


def test_a_rule_without_state_is_final_in_a_probe() -> None:
    probe = Runner()

    assert probe.run(make_rule("def rule(event): return False")) is NO_MATCH
    assert probe.run(make_rule("def rule(event): return True")).match is not None
    assert error_of(probe.run(make_rule("def rule(event): raise ValueError('no')"))) == ("ValueError", "no")
    assert probe.evaluation.key is None


SWALLOWING = {
    "lets it through": "def rule(event):\n    return get_counter('k') > 0",
    "bare except": "def rule(event):\n    try:\n        get_counter('k')\n    except:\n        pass\n    return False",
    "goes on to another key": (
        "def rule(event):\n    try:\n        get_counter('k')\n    except:\n        increment_counter('other')\n    return True"
    ),
    "finally return": "def rule(event):\n    try:\n        get_counter('k')\n    finally:\n        return True",
    "in title only": "def rule(event): return True\ndef title(event): return str(get_counter('k'))",
    "in title, swallowed": (
        "def rule(event): return True\n"
        "def title(event):\n    try:\n        return str(get_counter('k'))\n    except BaseException:\n        return 'x'"
    ),
    "raises something else": (
        "def rule(event):\n    try:\n        get_counter('k')\n    except BaseException as e:\n        raise ValueError from e"
    ),
    "generator": "def rule(event):\n    return any(get_counter(k) for k in ['k', 'l'])",
    "calls a thread afterwards": (
        "import threading\n"
        "def work():\n    try:\n        get_counter('t')\n    except BaseException:\n        pass\n"
        "def rule(event):\n    try:\n        get_counter('k')\n    except BaseException:\n"
        "        t = threading.Thread(target=work)\n        t.start()\n        t.join()\n    return True"
    ),
}


@pytest.mark.parametrize("source", SWALLOWING.values(), ids=SWALLOWING)
def test_a_probe_ends_at_its_first_helper_whatever_the_rule_does_about_it(source: str) -> None:
    probe = Runner()

    assert probe.run(make_rule(IMPORT + source)) is REACHED
    assert probe.evaluation.key == "k"


def test_what_a_probe_came_to_does_not_carry_over() -> None:
    probe = Runner()
    probe.run(make_rule(IMPORT + SWALLOWING["bare except"]))

    assert probe.run(make_rule("def rule(event): return False")) is NO_MATCH
    assert probe.evaluation.key is None


@pytest.mark.parametrize("key", ["''", "None", "7", "b'k'", "'k' * 2049", "'\\ud800'"])
def test_an_invalid_key_is_an_error_in_a_probe_too_and_no_access(key: str) -> None:
    rule = make_rule(f"{IMPORT}def rule(event): return get_counter({key}) > 0")
    probe, execute = Runner(), Runner(State())

    assert error_of(probe.run(rule)) == error_of(execute.run(rule))
    assert error_of(probe.run(rule))[0] in ("TypeError", "ValueError")
    assert probe.evaluation.key is None
    assert execute.evaluation.key is None


def test_the_key_of_an_execution_is_its_first() -> None:
    execute = Runner(State(), holds_a)
    rule = make_rule(f"{IMPORT}def rule(event):\n    increment_counter('ab')\n    return increment_counter('ac') == 1")

    assert execute.run(rule).match is not None
    assert execute.evaluation.key == "ab"


@pytest.mark.parametrize(
    "after", ["", "    try:\n        get_counter('b')\n    except:\n        increment_counter('a')\n"]
)
def test_a_key_that_the_state_does_not_hold_defers_the_evaluation_and_leaves_no_writes(after: str) -> None:
    state = State()
    execute = Runner(state, holds_a)
    rule = make_rule(f"{IMPORT}def rule(event):\n    increment_counter('a')\n{after}    return get_counter('b') == 0")

    assert execute.run(rule) is DEFERRED
    assert execute.evaluation.keys() == ("a", "b")
    assert state.get_counter("a") == 0


def test_a_key_that_the_state_does_not_hold_defers_in_title_as_well() -> None:
    execute = Runner(State(), holds_a)
    rule = make_rule(
        f"{IMPORT}def rule(event): return increment_counter('a') == 1\ndef title(event): return str(get_counter('b'))"
    )

    assert execute.run(rule) is DEFERRED


def test_the_keys_of_an_evaluation_are_told_once_each_in_the_order_of_asking() -> None:
    execute = Runner(State(), holds_a)
    rule = make_rule(
        f"{IMPORT}def rule(event):\n    for key in ('a3', 'a1', 'a3', 'a2', 'a1'):\n        get_counter(key)\n    return False"
    )
    execute.run(rule)

    assert execute.evaluation.keys() == ("a3", "a1", "a2")


def test_a_state_that_holds_all_keys_defers_nothing() -> None:
    rule = make_rule(f"{IMPORT}def rule(event): return increment_counter('a') + increment_counter('b') == 2")

    assert Runner(State()).run(rule).match is not None


def test_writes_before_an_exception_stand() -> None:
    state = State()
    rule = make_rule(f"{IMPORT}def rule(event):\n    increment_counter('a')\n    raise ValueError('no')")

    assert error_of(Runner(state, holds_a).run(rule)) == ("ValueError", "no")
    assert state.get_counter("a") == 1


THREAD = (
    "import threading\n"
    "def rule(event):\n    {first}\n"
    "    t = threading.Thread(target=work)\n    t.start()\n    t.join()\n    {then}\n    return True\n"
    "def work():\n    try:\n        increment_counter('a')\n    except BaseException:\n        pass\n"
)


@pytest.mark.parametrize("then", ["pass", "increment_counter('a')"])
def test_a_helper_in_another_thread_is_an_error_everywhere_and_leaves_no_writes(then: str) -> None:
    state = State()
    rule = make_rule(IMPORT + THREAD.format(first="pass", then=then))

    assert error_of(Runner().run(rule))[0] == error_of(Runner(state).run(rule))[0] == "ThreadError"
    assert state.get_counter("a") == 0


def test_a_helper_in_another_thread_takes_back_what_came_before_it() -> None:
    state = State()
    rule = make_rule(IMPORT + THREAD.format(first="increment_counter('a')", then="pass"))

    assert Runner().run(rule) is REACHED
    assert error_of(Runner(state).run(rule))[0] == "ThreadError"
    assert state.get_counter("a") == 0


@pytest.mark.parametrize(
    "raised", ["SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit()", "RecursionError()", "BaseException('x')"]
)
def test_nothing_that_a_rule_raises_leaves_the_evaluation(raised: str) -> None:
    assert error_of(Runner().run(make_rule(f"def rule(event): raise {raised}")))[0] == raised.partition("(")[0]


def test_endless_recursion_is_an_error() -> None:
    assert error_of(Runner().run(make_rule("def rule(event): return rule(event)")))[0] == "RecursionError"
