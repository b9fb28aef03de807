"""Every evaluation starts from the globals that the module had after loading (DESIGN 11.5)."""

from __future__ import annotations

import pytest

from rules.errors import InvalidPack
from rules.pack import load_pack
from tests.rules.making import Runner, make_rule

CHANGES = """\
# a rebound name
COUNT = 0
def note():
    global COUNT
    COUNT += 1
    return COUNT

# a name that loading did not set
def note():
    global SEEN
    if "SEEN" in globals():
        return 2
    SEEN = 1
    return SEEN

# a list
SEEN = []
def note():
    SEEN.append(1)
    return len(SEEN)

# a list under another name
SEEN = []
def note():
    it = SEEN
    it.append(1)
    return len(SEEN)

# a list by way of or
SEEN = [0]
def note():
    (SEEN or []).append(1)
    return len(SEEN) - 1

# a list rebound in place
SEEN = []
def note():
    global SEEN
    SEEN += [1]
    return len(SEEN)

# a list that two names share
SEEN = []
ALIAS = SEEN
def note():
    ALIAS.append(1)
    return len(SEEN)

# an element that is deleted
SEEN = [1, 2]
def note():
    del SEEN[0]
    return 2 - len(SEEN)

# a dict
SEEN = {}
def note():
    SEEN["n"] = SEEN.get("n", 0) + 1
    return SEEN["n"]

# the order of a dict
SEEN = {"a": 1, "b": 2}
def note():
    first, last = SEEN
    SEEN[first] = SEEN.pop(first)
    return 1 if last == "b" else 2

# a set
SEEN = set()
def note():
    SEEN.add(len(SEEN))
    return len(SEEN)

# a defaultdict
from collections import defaultdict
SEEN = defaultdict(int)
def note():
    SEEN["n"] += 1
    return SEEN["n"]

# a Counter
from collections import Counter
SEEN = Counter()
def note():
    SEEN.update("n")
    return SEEN["n"]

# a deque
from collections import deque
SEEN = deque(maxlen=9)
def note():
    SEEN.append(1)
    return len(SEEN)

# a list in a dict
SEEN = {"a": []}
def note():
    SEEN["a"].append(1)
    return len(SEEN["a"])

# a list in a dict, by get
SEEN = {"a": []}
def note():
    SEEN.get("a").append(1)
    return len(SEEN["a"])

# a list in a tuple, in a loop
SEEN = ([],)
def note():
    for it in SEEN:
        it.append(1)
    return len(SEEN[0])

# a list in a list, by sorted
SEEN = [[1], [0]]
def note():
    sorted(SEEN)[0].append(1)
    return len(SEEN[1]) - 1

# an object with slots
class Seen:
    __slots__ = ("n",)
    def __init__(self):
        self.n = 0
SEEN = Seen()
def note():
    SEEN.n += 1
    return SEEN.n

# a data class with slots
from dataclasses import dataclass
@dataclass(slots=True)
class Seen:
    n: int = 0
SEEN = Seen()
def note():
    SEEN.n += 1
    return SEEN.n

# a private slot, in a base class, that loading left empty
class Base:
    __slots__ = ("__n",)
    def bump(self):
        self.__n = getattr(self, "_Base__n", 0) + 1
        return self.__n
class Seen(Base):
    __slots__ = ()
SEEN = Seen()
def note():
    return SEEN.bump()

# a list in a slot
class Seen:
    __slots__ = ("all",)
SEEN = Seen()
SEEN.all = []
def note():
    SEEN.all.append(1)
    return len(SEEN.all)

# a UserDict
from collections import UserDict
SEEN = UserDict()
def note():
    SEEN["n"] = SEEN.get("n", 0) + 1
    return SEEN["n"]

# a UserList
from collections import UserList
SEEN = UserList()
def note():
    SEEN.append(1)
    return len(SEEN)

# an array
from array import array
SEEN = array("i", [0])
def note():
    SEEN[0] += 1
    return SEEN[0]

# a bound method of a list
SEEN = []
add = SEEN.append
size = SEEN.__len__
def note():
    add(1)
    return size()

# a partial that holds a list
from functools import partial
def count(seen):
    seen.append(1)
    return len(seen)
counted = partial(count, [])
def note():
    return counted()

# a text buffer
from io import StringIO
SEEN = StringIO()
def note():
    SEEN.write("x")
    return len(SEEN.getvalue())

# a byte buffer
from io import BytesIO
SEEN = BytesIO()
def note():
    SEEN.write(b"x")
    return SEEN.tell()

# what a thread keeps
from threading import local
SEEN = local()
def note():
    SEEN.n = getattr(SEEN, "n", 0) + 1
    return SEEN.n

# a generator of random numbers
from random import Random
CHANCE = Random(4)
FIRST = Random(4).random()
def note():
    return 1 if CHANCE.random() == FIRST else 2

# a list in a lambda
SEEN = []
note = lambda: SEEN.append(1) or len(SEEN)

# a default argument
def note(seen=[]):
    seen.append(1)
    return len(seen)

# a variable of an enclosing function
def make():
    n = 0
    def note():
        nonlocal n
        n += 1
        return n
    return note
note = make()

# a list of an enclosing function
def make():
    seen = []
    def note():
        seen.append(1)
        return len(seen)
    return note
note = make()

# an attribute of a function
def note():
    note.n = getattr(note, "n", 0) + 1
    return note.n

# an attribute of a class
class Seen:
    n = 0
def note():
    Seen.n += 1
    return Seen.n

# an attribute of a class, by cls
class Seen:
    n = 0
    @classmethod
    def note(cls):
        cls.n += 1
        return cls.n
def note():
    return Seen.note()

# a list of a class
class Seen:
    them = []
def note():
    Seen.them.append(1)
    return len(Seen.them)

# an object
class Seen:
    def __init__(self):
        self.n = 0
    def note(self):
        self.n += 1
        return self.n
SEEN = Seen()
def note():
    return SEEN.note()

# a data class with annotations that are texts
from __future__ import annotations
from dataclasses import dataclass, field
@dataclass
class Seen:
    them: list[int] = field(default_factory=list)
SEEN = Seen()
def note():
    SEEN.them.append(1)
    return len(SEEN.them)

# what a cache remembers
from functools import lru_cache
CALLS = []
@lru_cache
def once():
    CALLS.append(1)
def note():
    once()
    return 2 - len(CALLS)

# what a cache around a function of the library remembers
from functools import lru_cache
from os.path import basename
name_of = lru_cache(basename)
def note():
    known = name_of.cache_info().currsize
    name_of("a/b")
    return 1 + known

# a method of a container under another name
SEEN = {}
see = SEEN.__setitem__
def note():
    see(len(SEEN), 1)
    return len(SEEN)

# what members of an enumeration hold
from enum import Enum
class Seen(Enum):
    THEM = []
def note():
    Seen.THEM.value.append(1)
    return len(Seen.THEM.value)

# the default of a named tuple
from typing import NamedTuple
class Seen(NamedTuple):
    them: list = []
def note():
    Seen().them.append(1)
    return len(Seen().them)

# what a named tuple holds
from typing import NamedTuple
class Seen(NamedTuple):
    them: list
SEEN = Seen([])
def note():
    SEEN.them.append(1)
    return len(SEEN[0])

# what a property closes over
class Seen:
    @property
    def them(self, seen=[]):
        seen.append(1)
        return seen
def note():
    return len(Seen().them)

# a partial method
from functools import partialmethod
class Seen:
    def see(self, seen):
        seen.append(1)
        return len(seen)
    note = partialmethod(see, [])
def note():
    return Seen().note()

# a view of a mapping
from types import MappingProxyType
SEEN = MappingProxyType({"them": []})
def note():
    SEEN["them"].append(1)
    return len(SEEN["them"])

# the values of a dict
SEEN = {"them": []}.values()
def note():
    for them in SEEN:
        them.append(1)
        return len(them)

# globals()
COUNT = 0
def note():
    globals()["COUNT"] += 1
    return COUNT
"""
"""Modules whose note() gives 1 when it is called for the first time, under a heading each."""

CASES = dict(case.split("\n", 1) for case in CHANGES.removeprefix("# ").split("\n# "))


@pytest.mark.parametrize("module", CASES.values(), ids=CASES)
def test_nothing_that_a_rule_changes_is_seen_by_the_next_evaluation(module: str) -> None:
    rule = make_rule(f"{module}\ndef rule(event): return note() != 1\n")
    runner = Runner()

    for _ in range(3):
        outcome = runner.run(rule)
        assert outcome.errors == ()
        assert outcome.match is None


def test_rule_and_its_auxiliaries_share_one_instance() -> None:
    rule = make_rule(
        "WHO = ''\nSEEN = []\n"
        "def rule(event):\n    global WHO\n    WHO = event['who']\n    SEEN.append(WHO)\n    return True\n"
        "def title(event): return f'{WHO} {SEEN}'\n"
    )
    runner = Runner()

    titles = [outcome.match.title for who in "ab" if (outcome := runner.run(rule, {"who": who})).match]

    assert titles == ["a ['a']", "b ['b']"]


def test_a_probe_leaves_no_trace_in_the_globals() -> None:
    rule = make_rule(
        "from panther_detection_helpers.caching import get_counter\nSEEN = []\n"
        "def rule(event):\n    SEEN.append(1)\n    if event['asks']:\n        get_counter('k')\n    return len(SEEN) > 1\n"
    )
    runner = Runner()

    runner.run(rule, {"asks": True})
    assert runner.run(rule, {"asks": False}).match is None


@pytest.mark.parametrize(
    "change",
    [
        "t = {'b': SHARED}\n    t['b'].add('r')",
        "{'b': SHARED}['b'].add('r')",
        "for v in {'b': SHARED}.values():\n        v.add('r')",
        "f(**{'s': SHARED})",
    ],
)
def test_what_a_dict_hands_on_is_put_back(change: str) -> None:
    """Found by a reader: a dict that is made of containers was taken for a copy of them."""
    rule = make_rule(
        "SHARED = {'p'}\ndef f(s):\n    s.add('r')\n"
        f"def rule(event):\n    found = event.get('z') in SHARED\n    {change}\n    return found\n"
    )
    runner = Runner()

    assert rule.changes_globals
    assert [runner.run(rule, {"z": "r"}).match for _ in range(2)] == [None, None]


READS = [
    ("A = {'x', 'y'}", "'x' in A and len(A) == 2 and 'z' not in A"),
    ("A = ['x', 'y']", "any(a == 'z' for a in A) or A[0] == 'x' or bool(A) or sorted(A) == A"),
    ("A = {'x': 1}", "A.get('x') == 2 or A['x'] == 2 or [k for k, v in A.items()] == [] or not A"),
    ("A = {'x': ['y']}", "'y' in A['x'] or 'y' in A.get('x', []) or 'x' in A"),
    ("A = ['x']\nB = ['y']", "'x' in A + B or event.deep_get(*A) or f'{A}'"),
    ("A = {'x': 1}", "{**A, 'y': 2} == 3"),
    ("A = ['x']", "isinstance(A, list) and len(A or B) + len(A if A else B) > 1\nB = ()"),
    ("import re\nA = [re.compile('x')]", "any(a.match('y') for a in A)"),
    ("import ipaddress\nA = [ipaddress.ip_network('10.0.0.0/8')]", "[n for n in A if n.is_private] == []"),
    ("import logging\nLOG = logging.getLogger('x')", "LOG.debug('x')"),
    ("from enum import Enum\nclass A(Enum):\n    X = 1", "A.X == A('x')"),
    ("class A:\n    x = 1\n    def __init__(self):\n        self.y = 2", "A().y == 2"),
    ("def f(x=('a',), y=None):\n    return x", "f(1)"),
]


@pytest.mark.parametrize(("before", "expression"), READS)
def test_a_module_whose_functions_only_read_pays_nothing(before: str, expression: str) -> None:
    assert not make_rule(f"{before}\ndef rule(event): return {expression}").changes_globals


def files_of(source: str) -> dict[str, bytes]:
    """A pack of one rule."""
    spec = b"AnalysisType: rule\nRuleID: R\nFilename: r.py\nEnabled: true\nLogTypes: [T]\nSeverity: Low\n"
    return {"r.py": source.encode(), "r.yml": spec}


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        ("import itertools\nSEEN = itertools.count()", "count"),
        ("SEEN = (n for n in range(9))", "generator"),
        ("SEEN = [(n for n in range(9)).__iter__()]", "generator"),
        ("SEEN = [iter('abc')]", "str_ascii_iterator"),
    ],
)
def test_an_iterator_that_outlives_an_evaluation_is_refused_with_its_place(made: str, kind: str) -> None:
    """Found by attack: with a key from itertools.cycle, results depended on the number of shards."""
    source = f"{made}\ndef rule(event):\n    return next(SEEN[0] if isinstance(SEEN, list) else SEEN) == 1\n"
    files = files_of(source)
    with pytest.raises(InvalidPack, match=rf"r.py:{made.count(chr(10)) + 1}: SEEN is an iterator \({kind}\)"):
        load_pack(files)


def test_the_next_of_an_iterator_is_an_iterator() -> None:
    files = files_of("import itertools\nturn = itertools.count().__next__\ndef rule(event):\n    return turn() == 1\n")
    with pytest.raises(InvalidPack, match=r"r.py:2: turn is an iterator \(count\)"):
        load_pack(files)


def test_a_cache_of_the_library_stays_as_it_is() -> None:
    assert not make_rule("from re import _compile\ndef rule(event): return _compile is None").changes_globals
    rule = make_rule(
        "from fnmatch import _compile_pattern as known\nknown('a*')\n"
        "def rule(event): return known.cache_info().currsize > 0\n"
    )

    assert Runner().run(rule).match is not None


def test_an_iterator_that_no_function_uses_is_nobody_s_business() -> None:
    files = files_of("lines = iter('ab')\nFIRST = next(lines)\ndef rule(event):\n    return FIRST == 'a'\n")

    assert len(load_pack(files).rules) == 1


@pytest.mark.parametrize(
    "source",
    [
        "class C:\n    n = 0\n    def __call__(self, event):\n        self.n += 1\n        return self.n == 1\nrule = C()\n",
        "from functools import partial\n"
        "def _r(seen, event):\n    seen.append(1)\n    return len(seen) == 1\nrule = partial(_r, [])\n",
        "class C:\n    n = 0\n    def go(self, event):\n        self.n += 1\n        return self.n == 1\nrule = C().go\n",
        "from collections import defaultdict\nD = defaultdict(int)\n"
        "def rule(event):\n    n = len(D)\n    D[event.get('n')]\n    return n == 0\n",
    ],
    ids=["an object", "a partial", "a bound method", "a dict that makes what it lacks"],
)
def test_what_merely_calling_or_reading_changes_is_put_back(source: str) -> None:
    runner, rule = Runner(), make_rule(source)

    assert [runner.run(rule, {"n": n}).match is not None for n in range(3)] == [True, True, True]
