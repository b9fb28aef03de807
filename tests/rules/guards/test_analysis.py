"""A guard is what a rule needs to match or to reach state, read off its code and its helpers'; never a wrong one."""

from __future__ import annotations

from textwrap import dedent, indent
from typing import Any

import pytest

from rules.evaluation import REACHED, Evaluation, evaluate
from rules.event import PantherEvent
from rules.guards import Guard, clause_text
from rules.guards.facts import holds
from rules.pack import Pack, load_pack
from rules.rule import Rule

CONSTANTS = """
import helper
from helper import HELD, is_success, kind_of
from panther_detection_helpers.caching import increment_counter
NAMES = {"a", "b"}
LIST = ["c"]
ONE = "d"
NUMBERS = {1, 2}
TABLE = {"x": "v", "y": "w"}
CHANGED = ["a"]
class Odd:
    def __eq__(self, other):
        if isinstance(other, list):
            other.append("z")
        return False
ODD = Odd()
REBOUND = "v"
def change():
    global REBOUND
    REBOUND = "w"
    CHANGED.append("z")
"""

HELPER = """
from functools import reduce
from collections.abc import Mapping
HELD = {"h"}
SET_BY_OTHERS = "v"
def is_success(event):
    if event.get("errorCode", "") or event.get("errorMessage", ""):
        return False
    return True
def deep_get(dictionary, *keys, default=None):
    out = reduce(lambda d, key: d.get(key, default) if isinstance(d, Mapping) else default, keys, dictionary)
    if out is None:
        return default
    return out
def kind_of(event):
    if event.get("x") == "v" and event.get("y") == "w":
        return "login"
    if event.get("x") == "u":
        return "logout"
    return None
def named(event, name="x", *, among=("a", "b")):
    return event.get(name) in among
def drawn(event):
    yield event.get("x") == "v"
"""

MODEL = """
def get_kind(event):
    return "login" if event.get("x") in ("a", "b") else None
"""


def pack_of(*modules: str, helper: str = HELPER, yaml: str = "") -> Pack:
    files: dict[str, bytes] = {
        "helper.py": helper.encode(),
        "helper.yml": b"AnalysisType: global\nGlobalID: helper\nFilename: helper.py\n",
        "model.py": MODEL.encode(),
        "model.yml": b"AnalysisType: datamodel\nDataModelID: M\nFilename: model.py\nEnabled: true\nLogTypes: [T]\n"
        b"Mappings: [{Name: kind, Method: get_kind}, {Name: user, Path: $.who.name}, {Name: row, Path: p_row_id}]\n",
    }
    for n, module in enumerate(modules):
        files[f"r{n}.py"] = module.encode()
        files[f"r{n}.yml"] = (
            f"AnalysisType: rule\nRuleID: R{n}\nFilename: r{n}.py\nEnabled: true\nLogTypes: [T]\nSeverity: Low\n{yaml}"
        ).encode()
    return load_pack(files, quiet=True)


def module_of(body: str, top: str = "") -> str:
    return f"{CONSTANTS}{top}\ndef rule(event):\n{indent(dedent(body), '    ')}\n"


def rule_of(body: str, top: str = "", **more: str) -> Rule:
    return pack_of(module_of(body, top), **more).rules[0]


def guard(body: str, top: str = "", **more: str) -> Guard:
    found = rule_of(body, top, **more).guard("T")
    assert found is not None
    return found


def texts(found: Guard) -> list[str]:
    return [clause_text(clause) for clause in found.clauses]


GUARDED = {
    'return event.get("x") == "v"': ["x is 'v'"],
    'return "v" == event.get("x")': ["x is 'v'"],
    'return event["x"] == ONE': ["x is 'd'"],
    'return event.deep_get("a", "b", default="") == "v"': ["a.b is 'v'"],
    'return event.get("a", {}).get("b") == "v"': ["a.b is 'v'"],
    'return event.get("x") in NAMES and increment_counter("k") > 3': ["x is 'a' or 'b'"],
    'return increment_counter("k") > 3 if event.get("x") in HELD else False': ["x is 'h'"],
    'if event.get("x") != "v":\n    return False\nreturn increment_counter("k") > 3': ["x is 'v'"],
    'if event.get("x") == "v":\n    if event.get("y") in LIST:\n        return True\nreturn False': ["x is 'v'", "y is 'c'"],
    'if event.get("x") not in NAMES:\n    return False\nreturn True': ["x is 'a' or 'b'"],
    'if event.get("x") not in NAMES or event.get("y") != "v":\n    return False\nreturn True': ["y is 'v'", "x is 'a' or 'b'"],
    'kind = event.get("x")\nif kind not in NAMES and kind not in LIST:\n    return False\nreturn True': ["x is 'a', 'b' or 'c'"],
    'return event.get("x") == "v" or event.get("y") == "w"': ["x is 'v' or y is 'w'"],
    'return not (event.get("x") != "v" or event.get("y") != "w")': ["x is 'v'", "y is 'w'"],
    'return all([event.get("x") == "v", event.get("y")])': ["x is 'v'"],
    'return any([event.get("x") == "v", event.get("x") == "w"])': ["x is 'v' or 'w'"],
    'return any(event.get("x") == name for name in sorted(NAMES))': ["x is 'a' or 'b'"],
    'for key in ("x", "y"):\n    if event.get(key) == "v":\n        return True\nreturn False': ["x is 'v' or y is 'v'"],
    'return bool(event.get("x") == "v")': ["x is 'v'"],
    'wanted = event.get("x") == "v"\nother = event.get("y")\nreturn wanted and bool(other)': ["x is 'v'"],
    'return (x := event.get("x")) == "v" and len(x) > 0': ["x is 'v'"],
    'return "a" < "b" == event.get("x")': ["x is 'b'"],
    'return is_success(event) and event.get("x") == "v"': ["x is 'v'"],
    'return helper.is_success(event) and event.get("x") == "v"': ["x is 'v'"],
    'return helper.deep_get(event, "a", "b", default="") == "v"': ["a.b is 'v'"],
    'return kind_of(event) == "login"': ["x is 'v'", "y is 'w'"],
    'return kind_of(event) is not None': ["x is 'u' or 'v'", "x is 'u' or y is 'w'"],
    'return helper.named(event)': ["x is 'a' or 'b'"],
    'return helper.named(event, name="z", among=["q"])': ["z is 'q'"],
    'return event.udm("kind") == "login"': ["x is 'a' or 'b'"],
    'return event.udm("user") == "root"': ["who.name is 'root'"],
    'return TABLE[event.get("x")] == "v"': ["x is 'x'"],
    'return TABLE.get(event.get("x")) == "w"': ["x is 'y'"],
    'return event.get("x") is True': ["x is true"],
    'return event.get("x")': ["x is true"],
    'return event.get("x") in NUMBERS': ["x is 1 or 2"],
    'return event.get("x", "v") == "v"': ["x is 'v' or absent"],
    'return event.deep_get("x", default="v") == "v"': ["x is 'v', absent or null"],
    'return event.get("x") is None': ["x is absent or null"],
    'if event.get("x") not in {1, "v"} or event.get("x") is True:\n    return False\nreturn True': ["x is 'v' or 1"],
    'return event.get("x", 1) == True': ["x is absent or true"],
    'try:\n    n = int(event["n"])\nexcept (KeyError, ValueError):\n    return False\nreturn event.get("x") == "v"': ["x is 'v'"],
    'names = ["a"]\nreturn event.get("x") in names': ["x is 'a'"],
    'return event.get("x") in NAMES | {"q"}': ["x is 'a', 'b' or 'q'"],
    'return event.get("x") == ONE.upper()': ["x is 'D'"],
    'if isinstance(NAMES, str):\n    return True\nreturn event.get("x") == "v"': ["x is 'v'"],
    'found = []\nfor each in event.get("l", []):\n    found.append(each)\nreturn event.get("x") == "v"': ["x is 'v'"],
    'global REBOUND\nREBOUND = event.get("x")\nreturn REBOUND == "v"': ["x is 'v'"],
    'return event.get("x") == "v" if event.get("y") else False': ["x is 'v'"],
    'event = event.get("inner")\nreturn event.get("x") == "v"': ["inner.x is 'v'"],
    'x = event.get("x") or event.get("y")\nreturn x == "v"': ["x is 'v' or y is 'v'"],
    'take = {"a": lambda e: e.get("l"), "b": lambda e: e.get("m")}.get(event.get("x"))\nif not take:\n    return False\n'
    'return bool(take(event))': ["x is 'a' or 'b'"],
    'ways = {"a": event.get("y"), "b": "v"}\nreturn ways.get(event.get("x")) == "v"': ["x is 'a' or 'b'", "x is 'b' or y is 'v'"],
    'ways = {"a": event.get("y"), 1: event.get("z")}\nreturn ways[event.get("x")] is not None': ["x is 'a' or 1"],
}  # fmt: skip

UNGUARDED = [
    'return event.get("x") != "v"',
    "return True",
    'return increment_counter("k") > 3 and event.get("x") == "v"',
    'if increment_counter("k") > 3 or event.get("x") != "v":\n    return False\nreturn True',
    'if event.get("x") != "v":\n    increment_counter("k")\n    return False\nreturn True',
    'if event.get("x") != "v":\n    return True\nreturn False',
    'return event.get("p_log_type") == "T"',
    'return event.get("P_Source") == "T"',
    'return event.udm("row") == "v"',
    'return event.udm("other") == "v"',
    'return event.udm(*["kind"], default="login") == "login" or True',
    'return event.get("x") in "value"',
    'return event.get("x").lower() == "v"',
    'return event.get("x") == 0.5',
    'return event.get("x") == 10 ** 30',
    'return event.get("x") == 99999999999999999999',
    'return event.get("x") in CHANGED',
    'return event.get("x") == REBOUND',
    'change()\nreturn event.get("x") == REBOUND',
    'ONE = event.get("y")\nreturn event.get("x") == ONE',
    'for _ in range(2):\n    increment_counter("k")\nreturn event.get("x") == "v"',
    'while increment_counter("k") < 2:\n    pass\nreturn event.get("x") == "v"',
    'return str(increment_counter("k")) == event.get("y") and event.get("x") == "v"',
    'x = event.get("x")\nx = increment_counter("k")\nreturn x == "v"',
    'names = ["a"]\nnames.append(event.get("y"))\nreturn event.get("x") in names',
    'names = ["a"]\nother = [names]\nother[0].append(event.get("y"))\nreturn event.get("x") in names',
    'names = ["a"]\ndef more():\n    names.append("z")\nmore()\nreturn event.get("x") in names',
    'names = ["a"]\nnames += ["z"]\nreturn event.get("x") in names',
    'names = ["a"]\nbig = max(names, ["0"])\nbig.append("z")\nreturn event.get("x") in names',
    'names = ["a"]\nnames.__iadd__([event.get("y")])\nreturn event.get("x") in names',
    'names = ["a"]\nadd = names.append\nadd(event.get("y"))\nreturn event.get("x") in names',
    'names = ["a"]\nODD == names\nreturn event.get("x") in names',
    'return event.get("x") == list({"v", "w"})[0] and increment_counter("k") > 0 or event.get("y")',
    'getattr(event, "raw")["x"] = "v"\nreturn event.get("x") == "v"',
    'x = event.get("x", {})\nx["y"] = "v"\nreturn x.get("y") == "v"',
    'name = "v"\ntry:\n    name = event.get("y")\n    int(name)\nexcept ValueError:\n    return event.get("x") == name',
    'name = "v"\nfor each in event.get("l", []):\n    if each:\n        name = each\nreturn event.get("x") == name',
    'name = "v"\nwhile name:\n    name = event.get(name)\nreturn event.get("x") == name',
    'try:\n    return event["x"] == "v"\nexcept KeyError:\n    return True',
    'try:\n    int(event.get("x"))\nexcept TypeError:\n    increment_counter("k")\nreturn event.get("x") == "v"',
    'try:\n    return event.get("x") == "v"\nfinally:\n    return True',
    'with increment_counter("k"):\n    pass\nreturn event.get("x") == "v"',
    'match event.get("x"):\n    case "v":\n        return True\n    case _:\n        return True',
    'return (lambda e: increment_counter("k"))(event) and event.get("x") == "v"',
    'return [increment_counter("k") for _ in "ab"] and event.get("x") == "v"',
    'return sorted([1, 2], key=lambda _: increment_counter("k")) and event.get("x") == "v"',
    'return f"{increment_counter(\'k\')}" and event.get("x") == "v"',
    'import random\nreturn event.get("x") == "v"',
    'f = increment_counter\nf("k")\nreturn event.get("x") == "v"',
    'assert increment_counter("k")\nreturn event.get("x") == "v"',
    'assert event.get("y"), increment_counter("k")\nreturn event.get("x") == "v"',
    'raise ValueError(increment_counter("k"))',
    'event.raw["x"] = "v"\nreturn event.get("x") == "v"',
    'return event.get("x") == "v" or event.get("y") == increment_counter("k")',
    'return getattr(event, "get")("x") == "v" or True',
    'names = more = []\nmore.append("z")\nif names:\n    return True\nreturn event.get("x") == "v"',
    'ways = {"a": event.get("y")}\nways["b"] = 1\nreturn bool(ways.get(event.get("x")))',
    'ways = {"a": event.get("y")}\nmore = ways\nmore["b"] = 1\nreturn bool(ways.get(event.get("x")))',
    'ways = more = {"a": event.get("y")}\nmore["b"] = 1\nreturn bool(ways.get(event.get("x")))',
    'ways = {"a": event.get("y")}\nways |= {"b": 1}\nreturn bool(ways.get(event.get("x")))',
    'ways = {"a": event.get("y")}\ndef more():\n    ways["b"] = 1\nmore()\nreturn bool(ways.get(event.get("x")))',
    'ways = {"a": lambda: 1}\nways.update(b=lambda: 2)\nreturn bool(ways.get(event.get("x")))',
    'return bool({"a": event.get("y"), event.get("z"): 1}.get(event.get("x")))',
    'return bool({"a": event.get("y"), **event.get("z")}.get(event.get("x")))',
    'return bool({"a": event.get("y")}.get(event.get("x"), 1))',
    'return bool({"a": increment_counter("k")}.get(event.get("x")))',
    'return bool((lambda d: d.get(event.get("x")) if d.update(b=1) is None else 0)({"a": event.get("y")}))',
    'x = (w := {"a": event.get("y")})\nw["b"] = 1\nreturn bool(x.get(event.get("x")))',
    'x = (w := ["a"])\nw.append("b")\nreturn event.get("x") in x',
    'return bool({"b": increment_counter("k"), TABLE[event.get("x")]: 1})',
    't = {"b": CHANGED}\nt["b"].append("r")\nreturn event.get("z") in CHANGED',
    'class Local:\n    n = increment_counter("k")\nreturn event.get("x") == "v"',
]


@pytest.mark.parametrize("body", GUARDED)
def test_what_a_rule_asks_of_the_event_is_its_guard(body: str) -> None:
    found = guard(body)
    assert sorted(texts(found)) == sorted(GUARDED[body])
    assert found.reason == ""


@pytest.mark.parametrize("body", UNGUARDED)
def test_whatever_else_is_no_guard_and_says_why(body: str) -> None:
    found = guard(body)
    assert texts(found) == []
    assert found.reason != ""


TRAPS = {
    "an object that counts what it is compared with": (
        "class Counts:\n    def __eq__(self, other):\n        return increment_counter('k') > 1\nCOUNTS = Counts()\n",
        'return COUNTS == "v" and event.get("x") == "v"',
    ),
    "a builtin has another meaning": (
        "def all(values):\n    return True\n", 'return all([event.get("x") == "v"])'
    ),
    "a builtin is put in place by an import": (
        "from helper import any\n", 'return any([event.get("x") == "v"])'
    ),
    "a text of its own class": (
        "class Text(str):\n    def __eq__(self, other):\n        return True\n    __hash__ = str.__hash__\nONE = Text('d')\n",
        'return event.get("x") == ONE',
    ),
    "an object that equals everything": (
        "class Any:\n    def __eq__(self, other):\n        return True\nONE = Any()\n", 'return event.get("x") == ONE'
    ),
    "a container that holds everything": (
        "class All(list):\n    def __contains__(self, other):\n        return True\nNAMES = All()\n",
        'return event.get("x") in NAMES',
    ),
    "a function of the helper is replaced": (
        "helper.is_success = lambda event: increment_counter('k')\n",
        'return helper.is_success(event) and event.get("x") == "v"',
    ),
    "a constant of the helper is set while it runs": (
        "def set_it():\n    helper.SET_BY_OTHERS = 'w'\n",
        'set_it()\nreturn event.get("x") == helper.SET_BY_OTHERS',
    ),
    "its code is replaced": ("def other(event):\n    return True\nis_success.__code__ = other.__code__\n",
        'return not is_success(event) or event.get("x") == "v" or True'),
    "it has other defaults than are written": (
        "def asked(event, name='x'):\n    return event.get(name) == 'v'\nasked.__defaults__ = (1, 2, 'y')\n",
        "return asked(event)",
    ),
    "a list is changed under another name": (
        "ALIAS = CHANGED\ndef add():\n    ALIAS.append('q')\n", 'add()\nreturn event.get("x") in CHANGED'
    ),
    "a default that is changed": (
        "def kept(name, seen=[]):\n    seen.append(name)\n    return seen\n", 'return event.get("x") in kept("a")'
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAPS)
def test_what_looks_like_a_condition_and_is_none_is_no_guard(name: str) -> None:
    top, body = TRAPS[name]
    helper = HELPER + "def any(values):\n    return True\n"
    module = CONSTANTS + top + "def rule(event):\n" + indent(body, "    ") + "\n"
    found = pack_of(module, helper=helper).rules[0].guard("T")
    assert found is not None
    assert texts(found) == []


def test_a_rule_that_cannot_reach_state_may_run_what_nobody_understands() -> None:
    source = (
        "import base64\ndef rule(event):\n    base64.b64decode(str(event.get('y')))\n    return event.get('x') == 'v'\n"
    )
    with_state = "from panther_detection_helpers.caching import get_counter\n" + source

    assert [texts(rule.guard("T") or Guard(frozenset())) for rule in pack_of(source, with_state).rules] == [
        ["x is 'v'"],
        [],
    ]


@pytest.mark.parametrize(
    "source",
    [
        'def rule(event):\n    return event.get("x") == "v"\nrule = lambda event: True\n',
        'def twice(f):\n    return f\n@twice\ndef rule(event):\n    return event.get("x") == "v"\n',
        'class Rule:\n    def __call__(self, event):\n        return event.get("x") == "v"\nrule = Rule()\n',
        'def rule(event, more=None):\n    return event.get("x") == "v"\n',
        'def rule(*events):\n    return events[0].get("x") == "v"\n',
        'def rule(event):\n    yield event.get("x") == "v"\n',
        'def outer(name):\n    def rule(event):\n        return event.get(name) == "v"\n    return rule\nrule = outer("x")\n',
    ],
)
def test_a_rule_that_is_no_plain_function_has_no_guard(source: str) -> None:
    found = pack_of(source).rules[0].guard("T")
    assert found is not None
    assert texts(found) == []
    assert found.reason != ""


def test_a_long_list_of_values_is_a_guard_too() -> None:
    found = guard('return event.get("x", "none") in [f"v{n}" for n in range(5)] or event.get("x", "none") in MANY',
                  top="MANY = {f'v{n}' for n in range(50_000)}\n")  # fmt: skip
    assert texts(found) == []  # of the comprehension nothing is known
    (clause,) = guard('return event.get("x", "none") in MANY', top="MANY = {f'v{n}' for n in range(50_000)}\n").facts
    assert len(clause) == 50_000


def test_a_name_of_a_comprehension_hides_no_global() -> None:
    body = 'found = [ONE for ONE in "ab"]\nreturn event.get("x") == ONE'
    assert texts(guard(body)) == ["x is 'd'"]


def test_inline_filters_are_guards_that_let_pass_what_has_no_such_field() -> None:
    yaml = "InlineFilters: [{KeyPath: who.name, Condition: Equals, Value: root}]\n"
    assert texts(guard('return event.get("x") == "v"', yaml=yaml)) == ["x is 'v'", "who.name is 'root' or absent"]


def test_a_guard_is_found_with_the_globals_as_they_were_loaded() -> None:
    rule = rule_of('global REBOUND\nREBOUND = "q"\nreturn event.get("x") == "v"')
    evaluation = Evaluation(None)
    evaluation.begin_event(0.0, (0, 0))
    evaluate(rule, PantherEvent({"x": "v"}), evaluation)

    assert texts(rule.guard("T") or Guard(frozenset())) == ["x is 'v'"]
    assert rule.namespace["REBOUND"] == "v"


VALUES: list[Any] = [
    "v",
    "w",
    "a",
    "c",
    "d",
    "V",
    "",
    "root",
    None,
    0,
    1,
    True,
    1.0,
    2,
    [],
    ["v"],
    {},
    {"b": "v"},
    {"name": "root"},
]


@pytest.mark.parametrize("body", [*GUARDED, *UNGUARDED])
def test_an_event_that_the_guard_leaves_out_neither_matches_nor_reaches_state(body: str) -> None:
    rule = rule_of(body)
    found = rule.guard("T")
    assert found is not None
    context = pack_of(module_of(body)).context_of("T")
    evaluation = Evaluation(None)
    evaluation.begin_event(0.0, (0, 0))
    for key in ("x", "y", "X", "a", "who"):
        for value in VALUES:
            for more in ({}, {"y": "w"}, {"x": "v"}, {"a": {"B": "v"}, "y": "v"}):
                event = {key: value, **more}
                outcome = evaluate(rule, PantherEvent(event, context=context), evaluation)
                if outcome.match is not None or outcome is REACHED:
                    assert holds(found.facts, event), event
