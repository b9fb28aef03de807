"""Items against each other, and what a pack has besides rules: bases, ids, models, tables, packs; and what is left out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rules.errors import InvalidPack
from rules.filters import FILE
from rules.guards import clause_text
from rules.guards.analysis import Finding
from rules.guards.facts import ALWAYS
from rules.pack import Pack, load_pack
from rules.rule import Rule
from tests.rules.making import Runner, make_rule

RULE: dict[str, Any] = {
    "AnalysisType": "rule", "RuleID": "Base", "Enabled": True, "Severity": "Low", "LogTypes": ["L"], "Filename": "r.py",
}  # fmt: skip
DERIVED: dict[str, Any] = {"AnalysisType": "rule", "RuleID": "Derived", "BaseDetection": "Base"}
MODEL: dict[str, Any] = {
    "AnalysisType": "datamodel", "DataModelID": "M", "Enabled": True, "LogTypes": ["L"],
    "Mappings": [{"Name": "who", "Path": "user"}],
}  # fmt: skip
TABLE: dict[str, Any] = {
    "AnalysisType": "lookup_table", "LookupName": "t", "Enabled": True, "Filename": "t.csv",
    "LogTypeMap": {"PrimaryKey": "k", "AssociatedLogTypes": [{"LogType": "L", "Selectors": ["k"]}]},
}  # fmt: skip

MODULE = b"SEEN = []\ndef rule(event):\n    return True\ndef title(event):\n    return __name__\n"


def files_of(*documents: dict[str, Any], module: bytes = MODULE) -> dict[str, bytes]:
    """Each in a file d<n>.yml."""
    files = {f"d{number}.yml": json.dumps(document, indent=1).encode() for number, document in enumerate(documents)}
    return {**files, "r.py": module, "t.csv": b"k,v\n1,a\n"}


def pack_of(*documents: dict[str, Any]) -> Pack:
    return load_pack(files_of(*documents))


def problems_of(*documents: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidPack) as invalid:
        pack_of(*documents)
    return list(map(str, invalid.value.problems))


def ids(rules: tuple[Rule, ...]) -> list[str]:
    return [rule.id for rule in rules]


# --- derived rules -----------------------------------------------------------------------------------------------


def test_a_derived_rule_has_its_base_s_body_in_an_instance_of_its_own() -> None:
    base, derived = pack_of({**DERIVED, "Severity": "High", "Threshold": 5}, RULE).rules

    assert (derived.spec.path, derived.spec.yaml_path) == ("r.py", "d0.yml")
    assert (derived.spec.severity, derived.spec.threshold, derived.log_types) == ("HIGH", 5, frozenset({"L"}))
    assert derived.namespace["SEEN"] is not base.namespace["SEEN"]
    match = Runner().run(derived).match
    assert match is not None
    assert match.title == "Derived"


def test_a_derived_rule_is_not_derived_from_a_derived_one() -> None:
    other = {**DERIVED, "RuleID": "Other", "BaseDetection": "Derived"}

    assert problems_of(RULE, DERIVED, other) == ["d2.yml:4: Derived is derived itself: name the rule that has a body"]


def test_rules_that_are_derived_from_each_other_are_refused() -> None:
    other = {**DERIVED, "RuleID": "Base", "BaseDetection": "Derived"}

    assert len(problems_of(DERIVED, other)) == 2


def test_a_derived_rule_is_of_its_base_s_kind() -> None:
    assert problems_of(RULE, {**DERIVED, "AnalysisType": "scheduled_rule"}) == [
        "d1.yml:4: Base is a rule: derive a scheduled_rule from a scheduled_rule"
    ]


# --- ids ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        MODEL,
        TABLE,
        {"AnalysisType": "global", "GlobalID": "g", "Filename": "r.py"},
        {"AnalysisType": "pack", "PackID": "p", "PackDefinition": {"IDs": []}},
        {"AnalysisType": "saved_query", "QueryName": "q", "Query": "select 1"},
    ],
)
def test_an_id_is_given_once_whatever_it_names(document: dict[str, Any]) -> None:
    disabled = {**document, "Enabled": False} if "Enabled" in document else document  # or they conflict by log type

    (problem,) = problems_of(disabled, disabled)
    assert "is also in d0.yml: give each" in problem


def test_policies_and_rules_share_their_ids() -> None:
    policy = {key: value for key, value in RULE.items() if key not in ("RuleID", "LogTypes")}
    policy |= {"AnalysisType": "policy", "PolicyID": "Base", "ResourceTypes": []}

    assert problems_of(RULE, policy) == ["d1.yml:6: PolicyID Base is also in d0.yml: give each policy an id of its own"]


def test_ids_that_differ_by_case_are_two() -> None:
    assert ids(pack_of(RULE, {**RULE, "RuleID": "BASE"}).rules) == ["BASE", "Base"]


# --- what rules use ----------------------------------------------------------------------------------------------


def test_a_log_type_with_neither_model_nor_table_has_no_context() -> None:
    pack = pack_of(RULE, MODEL)

    assert pack.context_of("Other") is None
    context = pack.context_of("L")
    assert context is not None
    assert context.model is pack.models["L"]
    assert pack.context_of("L") is context


def test_what_is_disabled_is_checked_and_not_used() -> None:
    pack = pack_of({**MODEL, "Enabled": False}, MODEL | {"DataModelID": "N"}, {**TABLE, "Enabled": False})

    assert [model.id for model in pack.models.values()] == ["N"]
    assert pack.tables == ()
    assert len(problems_of({**TABLE, "Enabled": False, "LogTypeMap": {**TABLE["LogTypeMap"], "PrimaryKey": "v2"}})) == 1


def test_a_table_that_has_no_rows_here_costs_nothing() -> None:
    remote = {key: value for key, value in TABLE.items() if key != "Filename"} | {"Refresh": {"PeriodMinutes": 60}}

    assert pack_of(remote).context_of("L") is None
    assert pack_of(TABLE).context_of("L") is not None


# --- guards ------------------------------------------------------------------------------------------------------


def clauses(rule: Rule, log_type: str = "L") -> list[str]:
    found = rule.guard(log_type)
    assert found is not None
    return [clause_text(clause) for clause in found.clauses]


def test_a_guard_is_looked_for_once_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def analyse(world: object, function: object) -> Finding:
        asked.append(function)
        return Finding(ALWAYS, "so")

    monkeypatch.setattr("rules.guards.analysis.analyse", analyse)
    rule = make_rule("def rule(event): return event.get('a') == 'b'\n")
    assert asked == []

    assert rule.guard("L") is rule.guard("L")
    assert len(asked) == 1


def test_a_simple_detection_has_a_guard_too() -> None:
    detection = {key: value for key, value in RULE.items() if key != "Filename"}
    detection["Detection"] = [{"Key": "a", "Condition": "Equals", "Value": "b"}]
    (rule,) = pack_of(detection).rules

    assert (clauses(rule), rule.reaches_state) == (["a is 'b'"], False)


def test_globals_that_are_changed_take_no_guard_away_that_does_not_look_at_them() -> None:
    helper = {"AnalysisType": "global", "GlobalID": "g", "Filename": "g.py"}
    counting = b"N = 'b'\ndef note():\n    global N\n    N += 'c'\n"
    for source, expected in ((b"'b'", ["a is 'b'"]), (b"N", [])):
        guarded = b"def rule(event): return event.get('a') == " + source + b"\n"
        importing = load_pack(
            {**files_of(RULE, helper, module=b"from g import N\n" + guarded), "g.py": counting}
        ).rules[0]
        own = load_pack(files_of(RULE, module=counting + guarded)).rules[0]

        assert (importing.changes_globals, own.changes_globals) == (True, True)
        assert (clauses(importing), clauses(own)) == (["a is 'b'"], expected)


def test_a_guard_is_that_of_the_log_type_s_data_model() -> None:
    model = {"AnalysisType": "datamodel", "Enabled": True}
    models = [
        {**model, "DataModelID": name, "LogTypes": [name], "Mappings": [{"Name": "who", "Path": path}]}
        for name, path in (("L", "$.user.name"), ("M", "$.actor"))
    ]
    module = b"def rule(event): return event.udm('who') == 'root'\n"
    (rule,) = load_pack(files_of({**RULE, "LogTypes": ["L", "M", "N"]}, *models, module=module)).rules

    assert [clauses(rule, name) for name in "LMN"] == [["user.name is 'root'"], ["actor is 'root'"], []]


# --- what is left out --------------------------------------------------------------------------------------------


def test_tolerantly_what_is_valid_is_loaded_and_the_rest_is_said() -> None:
    files = files_of(
        RULE, {**RULE, "RuleID": "Twice"}, {**RULE, "RuleID": "Twice"}, {**RULE, "RuleID": "Odd", "Odd": 1}
    )
    pack = load_pack(files, tolerant=True)

    assert ids(pack.rules) == ["Base", "Twice"]
    assert [str(problem).partition(": ")[0] for problem in pack.problems] == ["d2.yml:3", "d3.yml:10"]
    assert load_pack(files_of(RULE)).problems == ()


def test_a_rule_that_is_missing_through_another_s_fault_is_said_to_be() -> None:
    files = files_of({**RULE, "Severity": "Odd"}, DERIVED)

    assert [str(problem) for problem in load_pack(files, tolerant=True).problems] == [
        "d0.yml:5: Severity holds 'Odd': give Info, Low, Medium, High or Critical",
        "d1.yml:1: what it imports, or is derived from, is invalid: mend that first",
    ]


def test_a_filter_among_the_files_leaves_out_what_it_does_not_want() -> None:
    test = {"Name": "t", "ExpectedResult": True, "Log": {}, "AlsoRun": ["Beside"]}
    files = files_of(
        {**RULE, "RuleID": "Wanted", "Tags": ["yes"], "Tests": [test]},
        {**RULE, "RuleID": "Beside"},
        {**RULE, "RuleID": "Other", "Filename": "other.py"},
    )
    files["other.py"] = b"def rule(event): return True\nraise ValueError('this would be executed')\n"
    pack = load_pack({**files, FILE: b"Tags=yes"})

    assert ids(pack.rules) == ids(pack.everything) == ["Wanted"]
    assert ids(pack.companions) == ["Beside"]
    assert pack.digest != load_pack({**files, FILE: b"Tags!=no"}, tolerant=True).digest


def test_a_filter_may_name_a_pack() -> None:
    manifest = {"AnalysisType": "pack", "PackID": "P", "PackDefinition": {"IDs": ["Base", "unknown"]}}
    files = files_of(RULE, {**RULE, "RuleID": "Other"}, manifest)

    assert ids(load_pack({**files, FILE: b"PackID=P"}).rules) == ["Base"]


def test_a_derived_rule_is_wanted_for_what_it_has_of_its_base() -> None:
    assert ids(load_pack({**files_of({**RULE, "Tags": ["a"]}, DERIVED), FILE: b"Tags=a"}).rules) == ["Base", "Derived"]


@pytest.mark.parametrize(
    "text", ["RuleID: R\nAnalysisTyp: rule\n", "GlobalID: g\nFilename: g.py\n", "RuleID: R\nTags: [\n"]
)
def test_a_file_with_an_id_and_no_analysis_type_is_an_error_not_a_file_of_another_tool(text: str) -> None:
    with pytest.raises(InvalidPack) as refused:
        load_pack({"a.yml": text.encode()})

    assert str(refused.value).startswith("a.yml:")


def test_a_file_of_another_tool_is_left_out_in_silence() -> None:
    assert load_pack({"ci.yml": b"jobs: {build: {steps: []}}\n"}).notices == ()
