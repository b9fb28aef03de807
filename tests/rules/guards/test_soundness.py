"""Whatever a rule is made of: an event that its guard leaves out can neither match it nor make it reach state.

Programs are drawn from the traps: constants that are rebound, changed and aliased, texts of a pack's own class, builtins with
another meaning, defaults that are themselves accepted, keys in any case, values of every type, handlers that swallow, helpers
that do any of this.
"""

from __future__ import annotations

from textwrap import indent
from typing import Any

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from rules.evaluation import REACHED, Evaluation, evaluate
from rules.event import PantherEvent
from rules.guards import Index
from rules.guards.analysis import NEVER_TRUE
from rules.guards.facts import NEVER, holds
from rules.pack import Pack, load_pack
from tests.rules.guards.test_analysis import HELPER, MODEL

TOP = """
import helper
from helper import HELD, deep_get, is_success, kind_of, named, Odd
{imports}
NAMES = {{"a", "b"}}
LIST = ["v", "w"]
ONE = "v"
NUMBERS = {{1, 2, None}}
TABLE = {{"v": "w", "w": "v", "a": True}}
CHANGED = ["a"]
ALIAS = CHANGED
NESTED = [["v"], ["w"]]
ODD = Odd("v")
EVERY = helper.Every()
REBOUND = "v"
{extra}
def change(name="z"):
    global REBOUND
    REBOUND = name
    CHANGED.append(name)
    return name
def keep(value, seen=[]):
    seen.append(value)
    return seen
def swap(values):
    if isinstance(values, list):
        values.append("u")
    return values
def pick(event, *keys, default=None, **more):
    for key in keys:
        if event.get(key) is not None:
            return event.get(key)
    return more.get("other", default)
"""

MORE_HELPER = """
class Odd(str):
    def __eq__(self, other):
        return True
    __hash__ = str.__hash__
class Every:
    def __eq__(self, other):
        return True
    def __contains__(self, other):
        return True
    __hash__ = None
"""

STATE = "from panther_detection_helpers.caching import get_counter, increment_counter"
NO_STATE = "def increment_counter(key):\n    return CHANGED.append(key) or 1\ndef get_counter(key):\n    return 0"

EXTRAS = [
    "", "def all(values):\n    return True", "def len(value):\n    return change()",
    "helper.named = lambda event, *names, **more: True",
    "def other(event):\n    return 'login'\nkind_of.__code__ = other.__code__",
    "def set_it():\n    helper.HELD.add('z')", "isinstance = lambda value, kind: True",
]  # fmt: skip

KEYS = ["x", "y", "X", "who"]
LITERALS = ['"v"', '"w"', '"V"', '""', '"name"', "None", "True", "False", "1", "0", "1.0"]
COLLECTIONS = [
    "NAMES", "LIST", "CHANGED", "ALIAS", "TABLE", "NUMBERS", "HELD", "NESTED", "EVERY", '("v", "w")', '["v", None]', '"vw"',
    "helper.HELD", 'NAMES | {"v"}', "sorted(NAMES)", "l0", "l1", "keep(ONE)", "NESTED[0]", "swap(LIST)", "{}",
]  # fmt: skip
VALUES = [
    "l0", "l1", "l2", "ONE", "REBOUND", "ODD", "CHANGED[-1]", "kind_of(event)", 'event.udm("kind")', 'event.udm("user")',
    'event.udm("other")', "is_success(event)", "change()", 'change("v")', "named(event)", "named(event, among=LIST)",
    'helper.named(event, "y")', "event", "increment_counter", "event.raw", "change",
]  # fmt: skip
CAUGHT = ["Exception", "KeyError as l2", "(TypeError, AttributeError)"]
LOCALS = ["l0", "l1", "l2"]

key = st.sampled_from(KEYS).map(lambda name: f'"{name}"')


def leaf() -> st.SearchStrategy[str]:
    defaults = st.sampled_from(["", ', "v"', ", None", ", {}", ", LIST", ', ""', ", ONE", ", True"])
    return st.one_of(
        st.builds("event.get({}{})".format, key, defaults),
        st.builds("event[{}]".format, key),
        st.builds("event.deep_get({}, {})".format, key, st.sampled_from(['"name"', '"b"', '"b", default="v"', 'default="v"'])),
        st.builds("deep_get(event, {}, default={})".format, key, st.sampled_from(['"v"', "None", "{}"])),
        st.builds("event.get({}, {{}}).get({}{})".format, key, st.sampled_from(['"name"', '"b"']), defaults),
        st.builds("pick(event, {}, {})".format, key, st.sampled_from(['"y"', 'default="v"', 'other="w"', '*["x"]'])),
        st.sampled_from([*LITERALS, *VALUES]),
    )  # fmt: skip


def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    collection = st.one_of(st.sampled_from(COLLECTIONS), inner)
    return st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["==", "!=", "is", "is not", "<"]), inner),
        st.builds("({} {} {})".format, inner, st.sampled_from(["in", "not in"]), collection),
        st.builds("({} == {} == {})".format, inner, inner, inner),
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner),
        st.builds("(not {})".format, inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("{}([{}, {}])".format, st.sampled_from(["any", "all"]), inner, inner),
        st.builds("{}({} for e in {})".format, st.sampled_from(["any", "all"]), inner, collection),
        st.builds("any({} == e for e in {} if {})".format, inner, collection, inner),
        st.builds("({} := {})".format, st.sampled_from(LOCALS), inner),
        st.builds(
            "{}({})".format, st.sampled_from(["bool", "str", "len", "keep", "swap", "list", "helper.is_success"]), inner
        ),
        st.builds("isinstance({}, {})".format, inner, st.sampled_from(["str", "dict", "(str, list)", "Odd"])),
        st.builds(
            "{}.{}".format, inner, st.sampled_from(["lower()", 'get("b")', "copy()", 'append("v")', "pop()", "get"])
        ),
        st.builds("TABLE.get({}, {})".format, inner, inner),
        st.builds("TABLE[{}]".format, inner),
        st.builds("{}[{}]".format, inner, inner),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds("(lambda e: {})({})".format, inner, inner),
        st.builds("increment_counter(str({}))".format, inner),
        st.builds("named(event, {}, among={})".format, key, collection),
        st.builds("pick({}, {})".format, inner, inner),
    )


expression = st.recursive(leaf(), larger, max_leaves=6)


def block(statements: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(statements, min_size=1, max_size=3).map(lambda lines: indent("\n".join(lines), "    "))


def condition() -> st.SearchStrategy[str]:
    field = st.one_of(
        st.builds("event.get({})".format, key),
        st.builds("event.deep_get({}, {})".format, key, st.sampled_from(['"name"', '"b"'])),
        st.sampled_from(["l0", "l1", 'event.udm("kind")', 'event.udm("user")', 'event.get("x", {}).get("b")']),
    )
    return st.one_of(
        st.builds(
            "{} {} {}".format,
            field,
            st.sampled_from(["==", "==", "!="]),
            st.sampled_from([*LITERALS, "ONE", "REBOUND"]),
        ),
        st.builds("{} {} {}".format, field, st.sampled_from(["in", "in", "not in"]), st.sampled_from(COLLECTIONS)),
        st.sampled_from(["is_success(event)", "named(event)", "named(event, among=LIST)", 'kind_of(event) == "login"']),
    )


either_condition = st.one_of(condition(), condition(), expression)


def simple() -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("{} = {}".format, st.sampled_from(LOCALS), expression),
        st.builds("{} = {}".format, st.sampled_from(LOCALS), st.sampled_from(COLLECTIONS)),
        st.builds("{} += {}".format, st.sampled_from(LOCALS), expression),
        st.builds("{}[{}] = {}".format, st.sampled_from(["l0", "TABLE", "event"]), expression, expression),
        st.builds("{}, {} = {}".format, st.sampled_from(LOCALS), st.sampled_from(LOCALS), expression),
        st.builds("del {}".format, st.sampled_from(LOCALS)),
        st.builds("event = {}".format, expression),
        st.builds("REBOUND = {}".format, expression),
        st.builds("if {}:\n    return {}".format, either_condition, st.sampled_from(["False", "True"])),
        st.builds("if {}:\n    return False".format, either_condition),
        st.builds("if not ({}):\n    return False".format, either_condition),
        st.builds("if not ({}):\n    return False".format, condition()),
        st.builds("return {}".format, either_condition),
        st.builds("{} = {}".format, st.sampled_from(LOCALS), st.sampled_from(['event.get("x")', 'event.get("y", "v")', "[]"])),
        st.builds("assert {}".format, expression),
        st.builds("{}".format, expression),
        st.sampled_from(["raise ValueError('v')", "def inner():\n    CHANGED.append('v')\n    return 'v'\nl0 = inner()",
                         'l0 = ["v"]', "l1 = l0", 'l1 = [l0]', 'l0.append("w")', "import helper as l2", "pass"]),
    )  # fmt: skip


def compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    body = block(inner)
    deeper = body.map(lambda text: indent(text, "    "))
    return st.one_of(
        st.builds("if {}:\n{}".format, expression, body),
        st.builds("if {}:\n{}\nelse:\n{}".format, expression, body, body),
        st.builds("for l1 in {}:\n{}".format, st.one_of(st.sampled_from(COLLECTIONS), expression), body),
        st.builds("for l1 in (1, 2):\n{}\n    {}".format, body, st.sampled_from(["break", "continue", "pass"])),
        st.builds("try:\n{}\nexcept {}:\n{}".format, body, st.sampled_from(CAUGHT), body),
        st.builds("try:\n{}\nexcept Exception:\n{}\nelse:\n{}".format, body, body, body),
        st.builds("try:\n{}\nfinally:\n{}".format, body, body),
        st.builds("match {}:\n    case 'v':\n{}\n    case _:\n{}".format, expression, deeper, deeper),
    )  # fmt: skip


statement = st.recursive(simple(), compound, max_leaves=5)
bodies = st.lists(statement, min_size=1, max_size=5).map("\n".join)


def rule_body() -> st.SearchStrategy[str]:
    """A rule that has a good chance to have a guard, and to match: something, a condition, anything."""
    before = st.one_of(st.just("pass"), st.just("pass"), simple(), statement)
    asking = st.one_of(
        st.builds("if not ({}):\n    return False".format, condition()),
        st.builds("if not ({} or {}):\n    return False".format, condition(), condition()),
        st.builds("{} = {}\nif {}:\n    return False".format, st.just("l0"), leaf(), st.sampled_from(
            ['l0 != "v"', "l0 not in LIST", "not l0 == ONE", 'l0 != "v" and l0 not in NAMES']
        )),
        st.builds("if not all([{}, {}]):\n    return False".format, condition(), expression),
    )  # fmt: skip
    ends = st.sampled_from(
        ["return True", 'return increment_counter("k") > 3', 'increment_counter("k")', "return aid(event) == 'v'"]
    )
    return st.one_of(
        st.tuples(before, asking, statement, ends).map("\n".join),
        st.tuples(before, asking, ends).map("\n".join),
        st.tuples(asking, before, ends).map("\n".join),
        bodies,
    )


TEXTS = ["v", "w", "a", "V", "h", "", "u", "login"]
values = st.sampled_from(
    [*TEXTS, None, True, False, 1, 0, 1.0, 2, [], ["v"], {}, {"b": "v"}, {"B": "w"}, {"name": "v"}]
)
events = st.dictionaries(
    st.sampled_from(["x", "X", "y", "Y", "who", "Who", "errorCode", "p_row_id"]), values, max_size=4
)


@st.composite
def packs(draw: st.DrawFn) -> tuple[str, str]:
    """(the rule's module, its helper)"""
    imports = draw(st.sampled_from([STATE, NO_STATE]))
    top = TOP.format(imports=imports, extra=draw(st.sampled_from(EXTRAS)))
    helper_body = draw(st.one_of(st.just("return None"), bodies))
    body = draw(rule_body())
    before = draw(st.sampled_from(["", "global REBOUND\n"]))
    names = draw(st.sampled_from(["l0 = l1 = l2 = None\n", 'l0 = event.get("x")\nl1 = LIST\nl2 = "v"\n']))
    rule = f"def aid(event):\n{indent(before + names + helper_body, '    ')}\n"
    rule += f"def rule(event):\n{indent(before + names + body, '    ')}\n"
    return top + rule, HELPER + MORE_HELPER


def load(module: str, helper: str) -> Pack:
    files = {
        "helper.py": helper.encode(),
        "helper.yml": b"AnalysisType: global\nGlobalID: helper\nFilename: helper.py\n",
        "model.py": MODEL.encode(),
        "model.yml": b"AnalysisType: datamodel\nDataModelID: M\nFilename: model.py\nEnabled: true\nLogTypes: [T]\n"
        b"Mappings: [{Name: kind, Method: get_kind}, {Name: user, Path: $.who.name}]\n",
        "r.py": module.encode(),
        "r.yml": b"AnalysisType: rule\nRuleID: R\nFilename: r.py\nEnabled: true\nLogTypes: [T]\nSeverity: Low\n",
    }
    return load_pack(files, quiet=True, tolerant=True)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(packs(), st.lists(events, min_size=12, max_size=25))
def test_no_event_that_a_guard_leaves_out_matches_or_reaches_state(
    made: tuple[str, str], drawn: list[dict[str, Any]]
) -> None:
    pack = load(*made)
    if not pack.rules:
        return  # what cannot be put back is refused
    (rule,) = pack.rules
    guard = rule.guard("T")
    assert guard is not None
    facts = NEVER if guard.reason == NEVER_TRUE else guard.facts
    index = Index([guard])
    evaluation = Evaluation(None)
    for number, event in enumerate(drawn):
        evaluation.begin_event(0.0, (0, number))
        outcome = evaluate(rule, PantherEvent(dict(event), context=pack.context_of("T")), evaluation)
        if outcome.match is not None or outcome is REACHED:
            note(f"{made[0][made[0].index('def aid') :]}\n{event}\n{guard}")
            assert holds(facts, event)
            assert index.candidates(event, []) == (0,)
