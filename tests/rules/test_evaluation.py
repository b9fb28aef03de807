"""What an evaluation came to is decided by its record, never by what the rule did with an exception (DESIGN 11.4)."""

from __future__ import annotations

import faulthandler
import gc
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from rules.evaluation import DEFERRED, NO_MATCH, REACHED, Evaluation
from rules.pack import load_pack
from rules.rule import Outcome
from rules.state import State
from tests.rules.making import Runner, make_rule, spec

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


# --- rules that do not come back by themselves -------------------------------------------------------------------

RETRYING = {
    "a loop": "while True:\n  try:\n   n = KEY\n   break\n  except:\n   pass\n return n > 0",
    "a loop that goes on in finally": (
        "n = None\n while n is None:\n  try:\n   n = KEY\n  finally:\n   if n is None:\n    continue\n return n > 0"
    ),
    "a loop in a loop": (
        "n = None\n while n is None:\n  try:\n   while n is None:\n    try:\n     n = KEY\n    except:\n     pass\n"
        "  except:\n   pass\n  finally:\n   continue\n return n > 0"
    ),
    "a handler in a handler": (
        "while True:\n  try:\n   n = KEY\n   break\n  except:\n   try:\n    n = KEY\n    break\n   except:\n"
        "    try:\n     n = KEY\n     break\n    except:\n     continue\n return n > 0"
    ),
    "suppress": "n = None\n while n is None:\n  with suppress(BaseException): n = KEY\n return n > 0",
    "a context manager of its own": "n = None\n while n is None:\n  with Deaf():\n   n = KEY\n return n > 0",
    "a generator": (
        "def tries():\n  while True:\n   try:\n    n = KEY\n   except:\n    n = None\n   yield n\n"
        " return next(n for n in tries() if n is not None) > 0"
    ),
    "a generator that is asked again": (
        "def tries():\n  while True:\n   yield attempt(lambda: KEY)\n return next(filter(None, tries())) > 0"
    ),
    "a nested function": (
        "def again():\n  try:\n   return KEY\n  except:\n   return None\n"
        " while (n := again()) is None: pass\n return n > 0"
    ),
    "a comprehension": "return next(n for n in (attempt(lambda: KEY) for _ in count()) if n is not None) > 0",
    "a loop in C": "return [*iter(lambda: attempt(lambda: KEY) is None, False)] == []",
    "a pack's helper module": "return retrying.until(lambda: KEY) > 0",
    "text that is executed": (
        "names = {}\n exec('while True:\\n try:\\n  n = KEY\\n  break\\n except: pass', globals(), names)\n"
        " return names['n'] > 0"
    ),
    "a class's __del__": "said = []\n Dying(lambda: KEY, said)\n return said[0] > 0",
    "a __del__ of what the end leaves behind": (
        "kept = Dying(lambda: KEY, [])\n while True:\n  try:\n   n = KEY\n   break\n  except:\n   pass\n return n > 0"
    ),
    "sorting": "return sorted([2, 1], key=lambda _: retrying.until(lambda: KEY)) == [2, 1]",
    "one that others call back": "increment_counter('a')\n put_string_set('a', (str(retrying.until(lambda: KEY))"
    " for _ in 'x'))\n return True",
}
"""Bodies of rules that ask for a key until they are given it."""

RETRYING_MODULE = """
from contextlib import suppress
from itertools import count
import retrying
from panther_detection_helpers.caching import *

class Deaf:
 def __enter__(self):
  return self
 def __exit__(self, *_):
  return True

class Dying:
 def __init__(self, ask, said):
  self.ask, self.said = ask, said
 def __del__(self):
  self.said.append(retrying.until(self.ask))

def attempt(ask):
 try:
  return ask()
 except:
  return None

def rule(event):
 BODY
"""

RETRYING_HELPER = """
def until(ask):
    while True:
        try:
            return ask()
        except BaseException:
            continue
"""


@pytest.fixture(autouse=True)
def _no_test_runs_for_ever() -> Iterator[None]:
    faulthandler.dump_traceback_later(60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def retrying_rule(body: str, key: str) -> Any:
    """A rule with this body, in which KEY asks for `key`."""
    source = RETRYING_MODULE.replace("BODY", body).replace("KEY", f'increment_counter("{key}")')
    files = {
        "some_rule.yml": spec(),
        "some_rule.py": source.encode(),
        "retrying.yml": b"AnalysisType: global\nGlobalID: retrying\nFilename: retrying.py\n",
        "retrying.py": RETRYING_HELPER.encode(),
    }
    (rule,) = load_pack(files).all_rules
    return rule


@pytest.mark.parametrize("body", RETRYING.values(), ids=RETRYING)
def test_a_rule_that_asks_until_it_is_given_comes_back_where_it_is_not(body: str) -> None:
    probe, among_others, alone = Runner(), Runner(State(), holds_a), Runner(State())

    assert probe.run(retrying_rule(body, "a")) is REACHED
    assert probe.evaluation.key == "a"
    assert among_others.run(retrying_rule(body, "b")) is DEFERRED
    assert among_others.evaluation.keys()[-1] == "b"
    assert among_others.state is not None
    assert list(among_others.state.rows(float("-inf"))) == []
    assert alone.run(retrying_rule(body, "a")).match is not None
    gc.collect()


WAITING = {
    "a loop": "n = None\n try: n = KEY\n except: pass\n while n is None: pass\n return n > 0",
    "a loop in finally": "n = None\n try:\n  n = KEY\n finally:\n  while n is None: pass\n return n > 0",
    "calls of itself": "n = attempt(lambda: KEY)\n for _ in iter(lambda: n is None, False): pass\n return n > 0",
    "a loop in C": "n = attempt(lambda: KEY)\n return [*iter(lambda: n is None, False)] == [] and n > 0",
}


@pytest.mark.parametrize("body", [*WAITING.values(), *RETRYING.values()])
def test_a_rule_that_is_known_to_wait_comes_back_at_once(body: str) -> None:
    probe, among_others, alone = Runner(), Runner(State(), holds_a), Runner(State())
    for runner in (probe, among_others, alone):
        runner.evaluation.swallowing = frozenset({"Some.Rule"})

    assert probe.run(retrying_rule(body, "a")) is REACHED
    assert among_others.run(retrying_rule(body, "b")) is DEFERRED
    assert alone.run(retrying_rule(body, "a")).match is not None


def test_what_a_rule_does_when_it_is_ended_for_good_is_nothing() -> None:
    did: list[str] = []
    rule = retrying_rule("try:\n  KEY\n except:\n  DID.append('except')\n finally:\n  DID.append('finally')", "a")
    rule.namespace["DID"] = did
    probe = Runner()
    probe.evaluation.swallowing = frozenset({"Some.Rule"})
    probe.run(rule)

    assert did == []


def test_who_traces_the_run_goes_on_with_it() -> None:
    hook, lines = sys.unraisablehook, []

    def trace(frame: FrameType, what: str, arg: object) -> Any:
        lines.append(frame.f_code.co_name)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        Runner().run(retrying_rule(RETRYING["a loop"], "a"))
        during = sys.gettrace()
        Runner().run(make_rule("def rule(event): return seen()\ndef seen(): return True"))
    finally:
        sys.settrace(before)

    assert during is trace
    assert sys.unraisablehook is hook
    assert "seen" in lines


def test_the_next_rule_is_left_alone() -> None:
    probe = Runner()
    probe.run(retrying_rule(RETRYING["a loop in a loop"], "a"))

    assert (
        probe.run(make_rule("def rule(event):\n    for _ in range(20):\n        pass\n    return True")).match
        is not None
    )


def test_that_a_helper_ended_it_is_told_until_the_rule_is_back() -> None:
    told: list[int] = []
    rule = make_rule(f"{IMPORT}def rule(event):\n    return increment_counter(event.get('key')) == 1")
    for state, holds, key in ((None, None, "a"), (State(), holds_a, "b"), (State(), holds_a, "a")):
        runner = Runner(state, holds)
        runner.evaluation = Evaluation(state, holds, told.append)
        runner.run(rule, {"key": key})
    runner.evaluation = Evaluation(None, None, told.append)
    runner.evaluation.swallowing = frozenset({"Some.Rule"})
    runner.run(rule, {"key": "a"})

    assert told == [1, 0, 1, 0, 1, 2, 0]


@pytest.mark.parametrize("body", RETRYING.values())
def test_nothing_that_an_ended_rule_raised_is_handled_any_more(body: str) -> None:
    probe = Runner()
    probe.run(retrying_rule(body, "a"))

    assert error_of(probe.run(make_rule("def rule(event): raise"))) == (
        "RuntimeError",
        "No active exception to reraise",
    )
