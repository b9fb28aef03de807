"""What one rule changes in a helper of the pack, no other rule sees, nor its own next evaluation (DESIGN 11.5)."""

from __future__ import annotations

import json

import pytest

from rules.errors import InvalidPack
from rules.evaluation import Evaluation, evaluate
from rules.event import PantherEvent
from rules.pack import Pack, load_pack
from rules.rule import Rule
from rules.state import State
from tests.rules.making import Runner, spec


def pack_of(rules: dict[str, str], **helpers: str) -> Pack:
    """A pack of rules by id and of globals by GlobalID."""
    files: dict[str, bytes] = {}
    for rule_id, source in rules.items():
        files[f"rules/{rule_id}.yml"] = spec(rule_id, f"{rule_id}.py")
        files[f"rules/{rule_id}.py"] = source.encode()
    for name, source in helpers.items():
        files[f"helpers/{name}.yml"] = f"AnalysisType: global\nGlobalID: {name}\nFilename: file_of_{name}.py\n".encode()
        files[f"helpers/file_of_{name}.py"] = source.encode()
    return load_pack(files, quiet=True)


def title(rule: Rule) -> str:
    outcome = Runner(State()).run(rule)
    assert outcome.match is not None, outcome
    return outcome.match.title


CHANGES = """\
# the helper rebinds a name of its own
COUNT = 0
def note():
    global COUNT
    COUNT += 1
    return COUNT
-
from g import note

# the helper fills a list of its own
SEEN = []
def note():
    SEEN.append(1)
    return len(SEEN)
-
import g
def note(): return g.note()

# the rule fills a list that it imported
SEEN = []
-
from g import SEEN
def note():
    SEEN.append(1)
    return len(SEEN)

# the rule fills a list by way of the module
SEEN = []
-
import g
def note():
    g.SEEN.append(1)
    return len(g.SEEN)

# the rule sets a name of the module
COUNT = 0
-
import g as helper
def note():
    helper.COUNT += 1
    return helper.COUNT

# the rule sets a name of the module by its name
COUNT = 0
-
import g
def note():
    setattr(g, "COUNT", g.COUNT + 1)
    return g.COUNT

# the module under a local name
COUNT = 0
-
import g
def note():
    it = g
    it.COUNT += 1
    return it.COUNT

# an import in a function
SEEN = []
-
def note():
    import g
    g.SEEN.append(1)
    return len(g.SEEN)

# an import of a name in a function
SEEN = []
-
def note():
    from g import SEEN as it
    it.append(1)
    return len(it)

# an import that is computed
SEEN = []
-
def note():
    g = __import__("".join(["g"]))
    g.SEEN.append(1)
    return len(g.SEEN)

# a list under another name
SEEN = []
-
import g
MINE = {"a": [g.SEEN]}
def note():
    MINE["a"][0].append(1)
    return len(g.SEEN)

# a method that was bound at load
SEEN = []
-
import g
add = g.SEEN.append
def note():
    add(1)
    return len(g.SEEN)

# a list that the rule gave the helper
LISTS = []
def note():
    for each in LISTS:
        each.append(1)
    return len(LISTS[0])
-
import g
MINE = []
g.LISTS.append(MINE)
def note():
    g.note()
    return len(MINE)

# a list that the helper gives away
SEEN = []
def seen(): return SEEN
-
from g import seen
def note():
    seen().append(1)
    return len(seen())

# a variable of a function that made the rule's
def counter():
    n = 0
    def note():
        nonlocal n
        n += 1
        return n
    return note
-
from g import counter
note = counter()

# a list of a function that made the rule's
def counter():
    seen = []
    def note():
        seen.append(1)
        return len(seen)
    return note
-
import g
note = g.counter()

# an attribute of a function that decorates
def counted(function):
    def note():
        note.n = getattr(note, "n", 0) + 1
        return note.n
    return note
-
from g import counted
@counted
def note(): pass

# an attribute of a class
class Box:
    seen = []
-
from g import Box
def note():
    Box.seen.append(1)
    return len(Box.seen)

# an attribute of a class by way of the module
class Box:
    count = 0
-
import g
def note():
    g.Box.count += 1
    return g.Box.count

# an instance of the helper's class
class Box:
    def __init__(self): self.n = 0
    def add(self):
        self.n += 1
        return self.n
-
from g import Box
BOX = Box()
def note(): return BOX.add()

# an instance of the rule's class, kept by the helper
KEPT = {}
def note():
    KEPT["box"].n += 1
    return KEPT["box"].n
-
import g
class Box:
    n = 0
g.KEPT["box"] = Box()
def note(): return g.note()

# a mutable default
def note(seen=[]):
    seen.append(1)
    return len(seen)
-
from g import note

# what a cache remembers
from functools import cache
@cache
def seen(): return []
-
from g import seen
def note():
    seen().append(1)
    return len(seen())

# a helper's helper
from h import note
-
from g import note
=
SEEN = []
def note():
    SEEN.append(1)
    return len(SEEN)

# a module of a module
import h
-
import g
def note():
    g.h.SEEN.append(1)
    return len(g.h.SEEN)
=
SEEN = []
""".strip().split("\n\n")


@pytest.mark.parametrize("case", CHANGES, ids=lambda case: case.splitlines()[0][2:])
def test_what_a_rule_changes_in_a_helper_is_put_back(case: str) -> None:
    helper, rule = case.split("\n-\n")
    rule, _, other = rule.partition("\n=\n")
    tail = "\ndef rule(event): return True\ndef title(event): return str(note())\n"
    pack = pack_of({"A": rule + tail, "B": rule + tail}, g=helper, **({"h": other} if other else {}))
    a, b = pack.rules

    assert [title(a), title(b), title(a), title(b)] == ["1"] * 4
    assert a.changes_globals


READS = """\
# its functions are called
def f(x): return x
-
import g
def rule(event): return g.f(True)

# its functions are imported
def f(x=("a", 1), y=None): return True
-
from g import f
def rule(event): return f()

# its lists are looked into
NAMES = ["a", "b"]
-
from g import NAMES
def rule(event): return "a" in NAMES

# its lists are looked into by way of the module
NAMES = {"a": "b"}
-
import g
def rule(event): return "a" in g.NAMES and g.NAMES.get("a") == "b" and len(g.NAMES) == 1

# its lists are read through
NAMES = ["a", "b"]
-
from g import NAMES
def rule(event): return any(name == "a" for name in NAMES)

# a function imports it and calls
def f(): return True
-
def rule(event):
    from g import f
    return f()

# nothing is done with its list
SEEN = []
-
import g
def rule(event): return True
""".strip().split("\n\n")


@pytest.mark.parametrize("case", READS, ids=lambda case: case.splitlines()[0][2:])
def test_a_rule_that_only_reads_its_helpers_pays_nothing(case: str) -> None:
    helper, source = case.split("\n-\n")
    (rule,) = pack_of({"A": source}, g=helper).rules

    assert not rule.changes_globals
    assert Runner().run(rule).match is not None


def test_a_helper_that_another_rule_changes_is_no_burden_for_those_who_do_not_import_it() -> None:
    pack = pack_of(
        {"A": "from g import note\ndef rule(event): return note() == 1\n", "B": "def rule(event): return True\n"},
        g="SEEN = []\ndef note():\n    SEEN.append(1)\n    return len(SEEN)\n",
    )

    assert [rule.changes_globals for rule in pack.rules] == [True, False]


def test_what_loading_left_in_a_helper_stays_whichever_rule_left_it() -> None:
    register = "import g\ng.NAMES.append(__name__)\ndef rule(event): return True\ndef title(event): return g.note()\n"
    pack = pack_of(
        {"A": register, "B": register},
        g="NAMES = []\ndef note():\n    NAMES.append('more')\n    return ' '.join(NAMES)\n",
    )

    assert [title(rule) for rule in (*pack.rules, *pack.rules)] == ["A B more"] * 4


def test_what_a_data_model_s_method_changes_is_put_back() -> None:
    model = "AnalysisType: datamodel\nDataModelID: M\nEnabled: true\nLogTypes: [Some.Log]\nFilename: m.py\n"
    files = {
        "m.yml": (model + "Mappings: [{Name: n, Method: count}]\n").encode(),
        "m.py": b"import g\nCOUNT = 0\ndef count(event):\n    global COUNT\n    COUNT += 1\n    return [COUNT, g.note()]\n",
        "g.yml": b"AnalysisType: global\nGlobalID: g\nFilename: g.py\n",
        "g.py": b"SEEN = []\ndef note():\n    SEEN.append(1)\n    return len(SEEN)\n",
        "some_rule.yml": spec(),
        "some_rule.py": b"def rule(event): return True\ndef title(event): return str(event.udm('n'))\n",
    }
    pack = load_pack(files)
    (rule,) = pack.rules

    for _ in range(2):
        evaluation = Evaluation(State())
        evaluation.begin_event(0.0, (0, 0))
        outcome = evaluate(rule, PantherEvent({}, context=pack.context_of("Some.Log")), evaluation)
        assert outcome.match is not None
        assert json.loads(outcome.match.title) == [1, 1]


def test_what_a_raising_rule_changed_is_put_back_too() -> None:
    source = "import g\ndef rule(event):\n    g.SEEN.append(1)\n    raise ValueError(len(g.SEEN))\n"
    pack = pack_of({"A": source, "B": source}, g="SEEN = []\n")

    assert [Runner().run(rule).errors[0].message for rule in (*pack.rules, *pack.rules)] == ["1"] * 4


def test_a_helper_with_an_iterator_is_refused_once_however_many_rules_use_it() -> None:
    source = "from g import note\ndef rule(event): return note() == 1\n"
    with pytest.raises(InvalidPack) as invalid:
        pack_of({"A": source, "B": source}, g="import itertools\nIT = itertools.count()\ndef note(): return next(IT)\n")

    (first, *rest) = map(str, invalid.value.problems)
    assert first.startswith("helpers/file_of_g.py:2: IT is an iterator (count)")
    assert all("what it imports" in problem for problem in rest)
