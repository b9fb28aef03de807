"""What a pack's modules see when they import: its globals and what stands in for real packages; nothing is left behind."""

from __future__ import annotations

import sys

import pytest

from rules.errors import InvalidPack
from rules.pack import Pack, load_pack
from rules.rule import Rule
from rules.state import State
from tests.rules.making import Runner, make_rule, spec

TRUE = "def rule(event): return True\n"


def files_of(rules: dict[str, str], **helpers: str) -> dict[str, bytes]:
    """Rules by id and globals by GlobalID, each in a file r_<id>.py or g_<id>.py."""
    files: dict[str, bytes] = {}
    for rule_id, source in rules.items():
        files[f"r_{rule_id}.yml"] = spec(rule_id, f"r_{rule_id}.py")
        files[f"r_{rule_id}.py"] = source.encode()
    for name, source in helpers.items():
        files[f"g_{name}.yml"] = f"AnalysisType: global\nGlobalID: {name}\nFilename: g_{name}.py\n".encode()
        files[f"g_{name}.py"] = source.encode()
    return files


def pack_of(rules: dict[str, str], **helpers: str) -> Pack:
    return load_pack(files_of(rules, **helpers), quiet=True)


def problems_of(files: dict[str, bytes]) -> list[str]:
    with pytest.raises(InvalidPack) as invalid:
        load_pack(files)
    return list(map(str, invalid.value.problems))


def title(rule: Rule) -> str:
    outcome = Runner(State()).run(rule)
    assert outcome.match is not None, outcome
    return outcome.match.title


# --- globals -----------------------------------------------------------------------------------------------------


def test_a_global_is_executed_once_and_only_if_something_imports_it(capsys: pytest.CaptureFixture[str]) -> None:
    rule = "from g import f\n" + TRUE
    load_pack(files_of({"A": rule, "B": rule}, g="print('g runs')\nf = 1\n", h="print('h runs')\n"))

    assert capsys.readouterr().out == "g runs\n"


def test_a_global_that_only_a_function_imports_is_executed_with_the_pack_and_not_with_the_first_event() -> None:
    source = "def rule(event): return True\ndef title(event):\n    from g import when\n    return when\n"
    helper = "import time\ntry:\n    when = str(time.time())\nexcept RuntimeError:\n    when = 'while loading'\n"
    (rule,) = pack_of({"A": source}, g=helper).rules

    assert title(rule) == "while loading"


def test_globals_that_import_each_other_behave_as_in_python() -> None:
    one = "A = 1\nimport h\nB = h.B\n"
    (rule,) = pack_of(
        {"A": f"import g\n{TRUE}def title(event): return str(g.B)\n"}, g=one, h="import g\nB = g.A + 1\n"
    ).rules

    assert title(rule) == "2"


def test_a_cycle_that_fails_in_python_fails_with_its_place() -> None:
    files = files_of({"A": f"import g\n{TRUE}"}, g="from h import B\nA = 1\n", h="\nfrom g import A\nB = 1\n")

    assert problems_of(files)[0] == (
        "g_h.py:2: loading raises ImportError: cannot import name 'A' from 'g' (g_g.py): mend the module"
    )


def test_a_global_that_fails_is_said_once_whoever_imports_it() -> None:
    rule = f"import g\n{TRUE}"
    said = problems_of(files_of({"A": rule, "B": rule}, g="\nraise ValueError('no')\n"))

    assert [problem for problem in said if "ValueError" in problem] == [
        "g_g.py:2: loading raises ValueError: no: mend the module"
    ]
    assert len(said) == 3  # and that neither rule is loaded


def test_what_is_wrong_in_a_global_that_nothing_imports_is_said_too() -> None:
    assert problems_of(files_of({}, g="def f(:\n")) == ["g_g.py:1: no Python: invalid syntax: mend the syntax"]


def test_a_global_is_no_package() -> None:
    assert problems_of(files_of({"A": f"\nimport g.sub\n{TRUE}"}, g="")) == [
        "r_A.py:2: there is no module g.sub: add a global with GlobalID: g, or pip install the package that holds it"
    ]


def test_globals_are_seen_inside_the_pack_only() -> None:
    before = dict(sys.modules), list(sys.path)
    pack_of({"A": f"import some_global_of_a_pack\n{TRUE}"}, some_global_of_a_pack="import json\n")

    assert (dict(sys.modules), list(sys.path)) == before
    with pytest.raises(ModuleNotFoundError):
        __import__("some_global_of_a_pack")


def test_two_packs_do_not_share_globals() -> None:
    rule = f"import g\ng.SEEN.append(1)\n{TRUE}def title(event): return str(len(g.SEEN))\n"
    packs = [pack_of({"A": rule}, g="SEEN = []\n") for _ in range(2)]

    assert [title(pack.rules[0]) for pack in packs] == ["1", "1"]


def test_a_global_knows_its_name_and_a_rule_its_id() -> None:
    source = f"from g import name\n{TRUE}def title(event): return name + ' ' + __name__\n"
    (rule,) = pack_of({"A": source}, g="name = __name__\n").rules

    assert title(rule) == "g A"


def test_a_global_named_like_a_package_is_the_pack_s_and_noticed() -> None:
    pack = pack_of(
        {"A": f"import json\n{TRUE}def title(event): return json.dumps()\n"}, json="def dumps(): return 'mine'\n"
    )

    assert title(pack.rules[0]) == "mine"
    assert pack.notices == ("g_json.py: the global json is imported in place of the Python package of that name",)
    assert __import__("json").dumps(1) == "1"


def test_rules_may_define_their_functions_by_import() -> None:
    helper = "def rule(event): return True\nshout = lambda event: 'imported'\n"
    (rule,) = pack_of({"A": "from g import rule\nfrom g import shout as title\n"}, g=helper).rules

    assert title(rule) == "imported"
    guard = rule.guard("L")
    assert guard is not None
    assert not guard


def test_a_dataclass_in_a_global_finds_its_module() -> None:
    helper = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass D:\n    n: int = 1\n"
    )
    (rule,) = pack_of({"A": f"from g import D\n{TRUE}def title(event): return str(D().n)\n"}, g=helper).rules

    assert title(rule) == "1"


def test_annotations_are_evaluated_as_python_does() -> None:
    rule = make_rule("def rule(event: int): return rule.__annotations__ == {'event': int}\n")

    assert Runner().run(rule).match is not None


# --- state -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["from g import f", "import g", "def inner():\n    import g"])
def test_a_rule_reaches_state_if_a_helper_that_it_imports_may(how: str) -> None:
    source = f"{how}\ndef rule(event): return False\n"
    helper = "import h\ndef f(): return 1\n"
    caching = "from panther_detection_helpers.caching import get_counter\n"

    assert pack_of({"A": source}, g=helper, h=caching).rules[0].reaches_state
    assert not pack_of({"A": source}, g=helper, h="").rules[0].reaches_state


def test_a_rule_reaches_state_if_a_data_model_of_its_log_types_may() -> None:
    model = "AnalysisType: datamodel\nDataModelID: M\nEnabled: true\nLogTypes: [%s]\nFilename: m.py\n"
    model += "Mappings: [{Name: n, Method: m}]\n"
    module = b"from panther_detection_helpers.caching import get_counter\ndef m(event): return get_counter('k')\n"
    files = files_of({"A": TRUE})

    assert load_pack({**files, "m.yml": (model % "Some.Log").encode(), "m.py": module}).rules[0].reaches_state
    assert not load_pack({**files, "m.yml": (model % "Other.Log").encode(), "m.py": module}).rules[0].reaches_state


def test_the_helpers_stand_in_an_older_pack_s_own_module_of_them() -> None:
    own = "import boto3\ndef increment_counter(key, val=1): return boto3.resource('dynamodb')\ndef twice(x): return 2 * x\n"
    own += "def through(key): return increment_counter(key)\n"
    source = "from panther_oss_helpers import increment_counter, through, twice\n"
    source += "def rule(event): return twice(increment_counter('k') + through('k')) == 6\n"
    pack = pack_of({"A": source}, panther_oss_helpers=own)

    assert Runner(State()).run(pack.rules[0]).match is not None
    assert pack.rules[0].reaches_state
    assert pack.notices == ()


def test_the_helpers_are_there_without_a_module_of_the_pack_in_their_short_form() -> None:
    source = "from panther_oss_helpers import add_to_string_set, increment_counter\n"
    source += "def rule(event): return increment_counter('k', 2) == 2 and add_to_string_set('s', 'a') == {'a'}\n"

    assert Runner(State()).run(make_rule(source)).match is not None


# --- what stands in for packages ---------------------------------------------------------------------------------


def test_boto3_can_be_imported_and_annotated_with_and_calling_it_says_why_not() -> None:
    source = """
        import boto3
        from botocore.exceptions import ClientError, NoCredentialsError

        TABLE: boto3.resource = None

        def table() -> boto3.resource:
            return boto3.resource("dynamodb").Table("x")

        def rule(event):
            try:
                return bool(table())
            except (ClientError, NoCredentialsError):
                return True
    """
    (error,) = Runner().run(make_rule(source)).errors

    assert error.message.startswith("boto3.resource: not supported here")
    assert "some_rule.py:8" in error.location


def test_types_of_events_can_be_imported() -> None:
    source = "from panther_core.immutable import ImmutableCaseInsensitiveDict, ImmutableList\n"
    source += "def rule(event):\n    a, b = event['a'], event['b']\n"
    source += "    return isinstance(a, ImmutableCaseInsensitiveDict) and isinstance(b, ImmutableList)\n"

    assert Runner().run(make_rule(source), {"a": {}, "b": []}).match is not None


@pytest.mark.parametrize(
    ("module", "remedy"),
    [
        (
            "no_such_module_of_dateutil",
            "add a global with GlobalID: no_such_module_of_dateutil, or pip install the package",
        ),
        ("boto3.nothing", "this part of boto3 is not provided: do without it"),
        ("panther_core.nothing", "this part of panther_core is not provided: do without it"),
    ],
)
def test_a_module_that_is_missing_is_named_with_what_to_do(module: str, remedy: str) -> None:
    (problem,) = problems_of(files_of({"A": f"\nimport {module}\n{TRUE}"}))

    assert problem.startswith(f"r_A.py:2: there is no module {module}: {remedy}")


def test_a_known_package_that_is_missing_is_named_as_pip_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)  # as if it were not installed

    assert problems_of(files_of({"A": f"\ndef f(): pass\nimport jwt\n{TRUE}"})) == [
        "r_A.py:3: there is no module jwt: pip install PyJWT"
    ]
