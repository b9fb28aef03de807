"""Rule modules see the event's own time, and chance that is the same in every replay (DESIGN 5)."""

from __future__ import annotations

import datetime
import time

import pytest

from rules.errors import InvalidPack
from rules.state import State
from tests.rules.making import NOON_S, Runner, make_rule

AT_S = NOON_S + 0.25


def value_of(source: str, rule_id: str = "Some.Rule", runner: Runner | None = None) -> str:
    """repr() of what `value()` gives in a module, at a quarter of a second past noon."""
    rule = make_rule(f"{source}\ndef rule(event): return True\ndef dedup(event): return repr(value())", rule_id=rule_id)
    outcome = (runner or Runner(State())).run(rule, at_s=AT_S)
    assert outcome.match is not None
    assert outcome.errors == ()
    return outcome.match.dedup


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import time\ndef value(): return time.time()", repr(AT_S)),
        ("import time as t\ndef value(): return t.time_ns()", "1709294400250000000"),
        ("from time import time\ndef value(): return time()", repr(AT_S)),
        ("def value():\n    import time\n    return time.time()", repr(AT_S)),
        ("def value():\n    from time import time as now\n    return now()", repr(AT_S)),
        ("import time\ndef value(): return time.monotonic() - time.perf_counter()", "0.0"),
        ("import time\ndef value(): return time.clock_gettime(0), time.process_time()", repr((AT_S, AT_S))),
        ("import time\ndef value(): return time.clock_gettime_ns(0) - time.thread_time_ns()", "0"),
        ("import time\ndef value(): return time.gmtime().tm_hour, time.localtime().tm_hour", "(12, 12)"),
        ("import time\ndef value(): return time.gmtime(0).tm_year", "1970"),
        (
            "import time\ndef value(): return time.strftime('%H:%M'), time.strftime('%Y', time.gmtime(0))",
            "('12:00', '1970')",
        ),
        ("import time\ndef value(): return time.ctime(), time.asctime()", "('Fri Mar  1 12:00:00 2024',) * 2"),
        ("from datetime import datetime\ndef value(): return datetime.now()", "(2024, 3, 1, 12, 0, 0, 250000)"),
        ("from datetime import datetime\ndef value(): return datetime.utcnow()", "(2024, 3, 1, 12, 0, 0, 250000)"),
        ("import datetime as dt\ndef value(): return dt.datetime.today()", "(2024, 3, 1, 12, 0, 0, 250000)"),
        ("import datetime\ndef value(): return datetime.date.today()", "datetime.date(2024, 3, 1)"),
        (
            "from datetime import *\ndef value(): return datetime.now(timezone(timedelta(hours=2))).isoformat()",
            "'2024-03-01T14:00:00.250000+02:00'",
        ),
        ("import uuid\ndef value(): return uuid.uuid4().version, uuid.uuid1().version", "(4, 1)"),
    ],
)
def test_the_present_is_the_event_s_own_time(source: str, expected: str) -> None:
    if expected.startswith("(2024"):
        expected = f"datetime.datetime{expected}"
    if expected.endswith("* 2"):
        expected = repr((expected[2:26],) * 2)

    assert value_of(source) == expected


@pytest.mark.parametrize(
    "expression",
    [
        "datetime(2024, 1, 1)",
        "datetime.now()",
        "datetime.fromtimestamp(0, timezone.utc)",
        "datetime.strptime('2024', '%Y')",
        "datetime.fromisoformat('2024-01-01')",
        "datetime.combine(date(2024, 1, 1), datetime.min.time())",
        "datetime.now() - timedelta(days=1)",
    ],
)
def test_datetimes_are_real_ones(expression: str) -> None:
    source = f"from datetime import *\nit = lambda: {expression}\n"
    value = "def value(): return isinstance(it(), datetime), isinstance(it(), date), type(it())"

    assert value_of(source + value) == repr((True, True, datetime.datetime))


def test_real_values_are_instances_of_the_stand_ins() -> None:
    rule = make_rule(
        "import datetime\n"
        "def rule(event):\n"
        "    it = event['at']\n"
        "    return isinstance(it, datetime.datetime) and not isinstance(it.date(), datetime.datetime)\n"
    )

    assert Runner().run(rule, {"at": datetime.datetime(2024, 1, 1)}).match is not None


CHANCE = [
    "import uuid\ndef value(): return uuid.uuid4()",
    "import random as r\ndef value(): return r.random(), r.randint(1, 10**9), r.choice(range(10**9))",
    "from random import shuffle\ndef value():\n    it = list(range(50))\n    shuffle(it)\n    return it",
    "import random\ndef value(): return random.Random().random()",
    "import random\ndef value(): return random.SystemRandom().random()",
    "import random\ndef value(): return random.SystemRandom(7).random()",
]


@pytest.mark.parametrize("source", CHANCE)
def test_chance_depends_on_position_and_rule_and_nothing_else(source: str) -> None:
    once, again = value_of(source), value_of(source)
    other_rule = value_of(source, rule_id="Other.Rule")
    later = Runner(State())
    later.offset = 1

    assert once == again
    assert other_rule != once
    assert value_of(source, runner=later) not in (once, other_rule)


def test_two_draws_of_one_evaluation_differ_and_a_seed_is_kept() -> None:
    assert value_of("import uuid\ndef value(): return uuid.uuid4() == uuid.uuid4()") == "False"
    assert value_of(
        "import random\ndef value(): return random.Random(1).random() == random.Random(1).random()"
    ) == "True"  # fmt: skip
    assert (
        value_of("import random\ndef value():\n    random.seed(1)\n    return random.random()") == "0.13436424411240122"
    )


@pytest.mark.parametrize(
    "call", ["time.time()", "datetime.datetime.now()", "uuid.uuid4()", "random.random()", "random.Random()"]
)
def test_there_is_no_present_while_a_module_is_loaded(call: str) -> None:
    with pytest.raises(InvalidPack, match=r"some_rule.py:3: loading raises RuntimeError: no event is being evaluated"):
        make_rule(f"import time, datetime, uuid, random\n\nSTART = {call}\ndef rule(event): return False")


def test_the_real_modules_stay_as_they_are() -> None:
    value_of("import time, datetime\ndef value(): return time.time(), datetime.datetime.now()")

    assert abs(time.time() - datetime.datetime.now().timestamp()) < 60
    assert type(datetime.datetime.now()) is datetime.datetime
