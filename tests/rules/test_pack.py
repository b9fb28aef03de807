"""A pack is data; everything wrong with it is said at once, each with its place."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

import pytest

from rules.errors import InvalidPack
from rules.pack import MissingPack, load_pack, log_types_of, read_files
from tests.rules.making import Runner, make_rule, spec

RULE = b"def rule(event): return False\n"


def problems_of(files: dict[str, bytes]) -> list[str]:
    with pytest.raises(InvalidPack) as invalid:
        load_pack(files)
    assert str(invalid.value).splitlines() == [str(problem) for problem in invalid.value.problems]
    return str(invalid.value).splitlines()


def problem_with(more: str, source: bytes = RULE) -> str:
    """The one problem of a rule with `more` in its YAML, which starts at line 7."""
    (problem,) = problems_of({"some_rule.yml": spec(more=more), "some_rule.py": source})
    return problem


# --- files -------------------------------------------------------------------------------------------------------


def write(directory: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return directory


def test_a_directory_gives_its_yaml_and_what_that_names_by_relative_path_without_what_is_hidden(tmp_path: Path) -> None:
    table = b"AnalysisType: lookup_table\nFilename: './data/rows.csv' # str\n"
    folded = b"AnalysisType: rule\nFilename: >-\n  over\n"
    wanted = {
        "a/r.py": RULE, "a/r.yml": spec(filename="r.py"), "b.yaml": b"x: 1", "t.yml": table, "data/rows.csv": b"a,b",
        "f.yml": folded, "over": RULE,
    }  # fmt: skip
    others = {"a/other.py": b"", "data/other.csv": b"", "readme.md": b"", "a/r.pyc": b""}
    hidden = {".git/x.yml": b"", "a/.r.yml": b"", "a/__pycache__/r.yml": b""}

    assert read_files([write(tmp_path, wanted | others | hidden)]) == wanted


def test_paths_of_several_directories_start_with_the_directory_s_name(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"r.yml": spec()})
    two = write(tmp_path / "two", {"r.yml": spec()})
    same = write(tmp_path / "other" / "one", {"r.yml": spec()})

    assert read_files([one, two]).keys() == {"one/r.yml", "two/r.yml"}
    assert read_files([one, same]).keys() == {"0-one/r.yml", "1-one/r.yml"}


def test_a_directory_that_is_missing_or_holds_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPack, match=r"absent: no such directory of rules: check its name"):
        read_files([tmp_path / "absent"])
    with pytest.raises(MissingPack, match="holds no rules"):
        read_files([tmp_path])


# --- packs -------------------------------------------------------------------------------------------------------


def test_rules_are_in_order_of_their_ids_and_disabled_ones_apart() -> None:
    files = {
        "1.yml": spec("B", "x.py"), "2.yml": spec("A", "x.py"),
        "3.yml": spec("C", "x.py").replace(b"Enabled: true", b"Enabled: false"), "x.py": RULE,
    }  # fmt: skip
    pack = load_pack(files)

    assert [rule.id for rule in pack.rules] == ["A", "B"]
    assert [rule.id for rule in pack.all_rules] == ["A", "B", "C"]
    assert pack.files == files


def test_the_digest_changes_with_any_file_and_not_with_their_order() -> None:
    files = {"r.yml": spec(filename="r.py"), "r.py": RULE}

    assert load_pack(files).digest == load_pack(dict(reversed(files.items()))).digest
    assert load_pack(files | {"r.py": RULE + b"#"}).digest != load_pack(files).digest
    assert load_pack(files | {"s.py": RULE}).digest != load_pack(files).digest


def test_what_is_not_run_is_noticed_once_for_each_kind_and_other_yaml_is_skipped() -> None:
    query = b"AnalysisType: saved_query\nQueryName: %s\nQuery: select 1\n"
    pack = load_pack({"a.yml": query % b"a", "b.yml": query % b"b", "ci.yml": b"on: push\n"})

    assert pack.rules == ()
    assert pack.notices == ("saved queries are checked and not run by this version: 2 in this pack",)


def test_a_template_may_name_a_file_that_is_not_there() -> None:
    pack = load_pack({"templates/r.yml": spec(filename="yours.py")})

    assert (pack.rules, pack.notices) == (
        (), ("templates/r.yml: a template, which names templates/yours.py: there is no such file, it is left out",)
    )  # fmt: skip


def test_definitions_of_log_types_are_found_in_packs_and_win_over_the_shipped_ones() -> None:
    definition = b"LogType: AWS.CloudTrail\nTimestamp: mine\n"
    pack = load_pack({"types/t.yml": definition, "r.yml": spec(filename="r.py"), "r.py": RULE})

    assert pack.log_type_files == {"types/t.yml": definition}
    assert log_types_of(pack)["AWS.CloudTrail"].time_of({"mine": 1_709_294_400}) == 1_709_294_400
    assert "Okta.SystemLog" in log_types_of(pack)


def test_a_scenario_of_logs_for_a_log_type_is_no_definition_of_it() -> None:
    pack = load_pack({"scenario.yml": b"LogType: AWS.CloudTrail\nFormat: raw\nLogs:\n  - {a: 1}\n"})

    assert pack.log_type_files == {}


def test_what_is_no_yaml_and_holds_no_analysis_type_is_left_out_with_a_notice() -> None:
    pack = load_pack({"chart/values.yml": b"a: {{ .Values.a }}\n", "two.yml": b"a: 1\n---\nb: 2\n"})

    assert pack.notices == ("chart/values.yml: no YAML and no AnalysisType: left out (2 such files in all)",)


def test_every_problem_of_every_file_is_reported_in_order() -> None:
    assert problems_of({
        "a.yml": spec("A", "a.py", more="Severty: High\nThreshold: none\n"),
        "a.py": b"def rule(event)\n",
        "b.yml": b"AnalysisType: rule\n",
        "c.yml": b"AnalysisType: [\n",
        "d.yml": spec("D", "d.py"),
        "d.py": b"\nraise ValueError('no')\n",
        "e.yml": b"AnalysisType: rle\n",
        "f.yml": b"- 1\n",
    }) == [
        "a.py:1: no Python: expected ':': mend the syntax",
        "a.yml:7: unknown key 'Severty': write Severity",
        "a.yml:8: Threshold holds 'none': give a whole number, 1 or more",
        'b.yml:1: RuleID is missing: add RuleID: a text without < > & " or %',
        "b.yml:1: Enabled is missing: add Enabled: true or false",
        "b.yml:1: Severity is missing: add Severity: Info, Low, Medium, High or Critical",
        "b.yml:1: LogTypes is missing: add LogTypes: a list of log types, at least one and each once",
        "b.yml:1: Filename or Detection is missing: give one of them",
        "c.yml:2: no YAML: did not find expected node content: mend the YAML",
        "d.py:2: loading raises ValueError: no: mend the module",
        "e.yml:1: AnalysisType is 'rle': use one of the format's types",
        "f.yml:1: the file holds no mapping: start it with AnalysisType: rule",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("Threshold: 0", "7: Threshold holds 0: give a whole number, 1 or more"),
        ("Threshold: true", "7: Threshold holds True: give a whole number, 1 or more"),
        ("DedupPeriodMinutes: -5", "7: DedupPeriodMinutes holds -5: give a whole number, 0 or more"),
        ("Tags: [a, A]", "7: Tags holds ['a', 'A']: give a list of texts, each once"),
        ("CreateAlert: no", "7: CreateAlert holds 'no': give true or false"),
        ("Reports: {MITRE: x}", "7: Reports holds {'MITRE': 'x'}: give lists by name"),
        ("Detection: []", "7: Filename and Detection exclude each other: keep one of them"),
        ("ScheduledQueries: [q]", "7: unknown key 'ScheduledQueries': remove it"),
        ("Tests: [7]", "7: 7 is no mapping: give Name, ExpectedResult, Log or Logs"),
        ("Tests: [{Name: a, Log: {}}]", "7: ExpectedResult is missing: add ExpectedResult: true or false"),
    ],
)
def test_what_is_wrong_in_the_yaml_has_its_line(more: str, problem: str) -> None:
    assert problem_with(more) == f"some_rule.yml:{problem}"


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("", "8: Log or Logs is missing: give one of them"),
        ("Log: {}\nLogs: [{}]", "11: Log and Logs exclude each other: keep one of them"),
        ("Logs:\n- {}\n- Log: {}\n  Cuont: 3", "13: unknown key 'Cuont': write Count"),
        ("Logs: [text]", "10: 'text' does not belong here: give an event, a mapping of field names to values"),
        ("Log: {}\nMocks: [{objectName: x}]", "11: returnValue is missing: add returnValue: anything"),
        ("Log: {}\nAlsoRun: [Other]", "11: the pack has no rule Other: name a rule by its RuleID"),
        ("Log: {}\nExpectedTitel: x", "11: unknown key 'ExpectedTitel': write ExpectedTitle"),
    ],
)
def test_what_is_wrong_in_a_test_has_its_line(more: str, problem: str) -> None:
    test = f"Tests:\n  - Name: a\n    ExpectedResult: true\n{indent(more, '    ')}\n"

    assert problem_with(test) == f"some_rule.yml:{problem}"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (b"x = 1\n", "some_rule.py:1: detection needs to have a method named 'rule': define rule(event)"),
        (RULE + b"title = 'text'\n", "some_rule.py:2: title is str: define title(event)"),
        (b"def rule(event):\n\n  return (\n", "some_rule.py:3: no Python: '(' was never closed: mend the syntax"),
        (b"\nimport no_such_module\n", "some_rule.py:2: there is no module no_such_module: "
         "add a global with GlobalID: no_such_module, or pip install the package that holds it"),
        (b"import sys\nsys.exit(3)\n", "some_rule.py:2: loading raises SystemExit: 3: mend the module"),
        (b"\0", "some_rule.py: no Python: source code string cannot contain null bytes: mend the syntax"),
        (b"from panther_detection_helpers.caching import nothing\n", "some_rule.py:1: loading raises ImportError: "
         "cannot import name 'nothing' from 'panther_detection_helpers.caching' (unknown location): mend the module"),
        (b"from panther_detection_helpers.monitoring import x\n", "some_rule.py:1: there is no module "
         "panther_detection_helpers.monitoring: this part of panther_detection_helpers is not provided: do without it"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_module_has_its_line(source: bytes, problem: str) -> None:
    assert problem_with("", source) == problem


def test_a_rule_id_may_be_used_once() -> None:
    assert problems_of({"a.yml": spec("A", "r.py"), "b.yml": spec("A", "r.py"), "r.py": RULE}) == [
        "b.yml:2: RuleID A is also in a.yml: give each rule an id of its own"
    ]


def test_a_module_is_found_beside_its_yaml_and_may_serve_several_rules() -> None:
    pack = load_pack({"d/a.yml": spec("A", "../r.py"), "r.yml": spec("B", "r.py"), "r.py": RULE})

    assert [rule.spec.path for rule in pack.rules] == ["r.py", "r.py"]
    assert problems_of({"d/a.yml": spec("A", "r.py"), "r.py": RULE}) == [
        "d/a.yml:4: there is no file d/r.py: put the module beside its YAML"
    ]


def test_a_filter_that_filters_nothing_is_accepted() -> None:
    assert make_rule("def rule(event): return True", "InlineFilters:\n  - All: []\n").id == "Some.Rule"


def test_the_yaml_becomes_a_spec() -> None:
    more = "Severity: high\nThreshold: 5\nDedupPeriodMinutes: 15\nCreateAlert: false\nTags: [a]\n"
    more += "Reports: {MITRE: [T1], CIS: [3.2]}\n"
    files = {"some_rule.yml": spec(more=more).replace(b"Severity: Low\n", b""), "some_rule.py": RULE}
    (rule,) = load_pack(files).rules

    assert (rule.spec.severity, rule.spec.threshold, rule.spec.dedup_period_s) == ("HIGH", 5, 900)
    assert (rule.spec.create_alert, rule.spec.tags, rule.spec.reports) == (
        False,
        ("a",),
        {"MITRE": ["T1"], "CIS": ["3.2"]},
    )
    assert (rule.spec.log_types, rule.spec.yaml_path) == (frozenset({"Some.Log"}), "some_rule.yml")


# --- what a module can import ------------------------------------------------------------------------------------

CACHING = "from panther_detection_helpers.caching import get_counter"


@pytest.mark.parametrize(
    ("source", "reaches"),
    [
        ("import json, re, time, datetime, ipaddress", False),
        ("from panther_core import PantherEvent", False),
        (CACHING, True),
        ("import panther_detection_helpers.caching as caching", True),
        ("import panther_oss_helpers", True),
        (f"def inner():\n    {CACHING}", True),
        (f"class Inner:\n    def inner(self):\n        if self:\n            {CACHING}", True),
        ("import importlib", True),
        ("helpers = __import__('panther_detection_helpers')", True),
        ("exec('import panther_oss_helpers')", True),
        ("from rules.helpers import get_counter", True),
    ],
)
def test_a_rule_reaches_state_only_if_something_in_it_may_import_a_helper(source: str, reaches: bool) -> None:
    assert make_rule(f"{source}\ndef rule(event): return False").reaches_state is reaches


@pytest.mark.parametrize(
    "module", ["panther_core", "panther_core.enriched_event", "panther_analysis_tool.enriched_event"]
)
def test_rules_find_the_event_s_type_for_annotations(module: str) -> None:
    rule = make_rule(
        f"from {module} import PantherEvent\ndef rule(event: PantherEvent) -> bool: return isinstance(event, PantherEvent)"
    )

    assert Runner().run(rule).match is not None


def test_helper_modules_exist_inside_packs_only() -> None:
    make_rule(f"{CACHING}\ndef rule(event): return False")

    with pytest.raises(ModuleNotFoundError):
        __import__("panther_detection_helpers")
    with pytest.raises(ModuleNotFoundError):
        __import__("Some.Rule")


def test_rules_do_not_share_a_module_and_know_their_names() -> None:
    files = {
        "a.yml": spec("A", "r.py"),
        "b.yml": spec("B", "r.py"),
        "r.py": b"def rule(event): return __name__ == 'A'\n",
    }
    one, two = load_pack(files).rules

    assert Runner().run(one).match is not None
    assert Runner().run(two).match is None


def test_a_rule_named_like_a_module_does_not_take_its_place() -> None:
    assert make_rule("import json\ndef rule(event): return bool(json.dumps(1))", rule_id="json").id == "json"
    assert __import__("json").dumps(1) == "1"


def test_print_is_discarded_where_the_pack_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "some_rule.yml": spec(),
        "some_rule.py": b"print('loaded')\ndef rule(event):\n    print('ran')\n    return False\n",
    }

    Runner().run(load_pack(files, quiet=True).rules[0])
    assert capsys.readouterr().out == ""
    Runner().run(load_pack(files).rules[0])
    assert capsys.readouterr().out == "loaded\nran\n"
