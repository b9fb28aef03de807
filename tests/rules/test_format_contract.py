"""The rule format, clause by clause (PANTHER_FORMAT 1.1 to 1.3), with packs of our own: each test is one claim.

What one module's test already holds - the functions' limits and fall-backs (test_rule), YAML 1.2 (test_yaml12), windows in
isolation (test_windows) - is not repeated here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rules import yaml12
from rules.errors import InvalidPack
from rules.evaluation import Evaluation, evaluate
from rules.event import PantherEvent
from rules.pack import Pack, load_pack, log_types_of
from rules.rule import Outcome, Rule
from rules.selftest import TestResult, run_tests
from rules.state import State
from tests.commands import run as run_command

MODULE = "def rule(event): return True\ndef policy(resource): return True\ndef method(event): return 1\n"

SOUND: dict[str, dict[str, Any]] = yaml12.load(b"""
rule:
  AnalysisType: rule
  RuleID: A.Rule
  Enabled: true
  Severity: Low
  LogTypes: [A.Log]
  Filename: x.py
simple detection:
  AnalysisType: rule
  RuleID: A.Rule
  Enabled: true
  Severity: Low
  LogTypes: [A.Log]
  Detection: [{Key: n, Condition: Exists}]
scheduled rule:
  AnalysisType: scheduled_rule
  RuleID: A.Scheduled
  Enabled: true
  Severity: Low
  ScheduledQueries: [q]
  Filename: x.py
policy:
  AnalysisType: policy
  PolicyID: A.Policy
  Enabled: true
  Severity: Low
  ResourceTypes: [AWS.S3.Bucket]
  Filename: x.py
derived rule:
  AnalysisType: rule
  RuleID: A.Derived
  BaseDetection: A.Rule
global:
  AnalysisType: global
  GlobalID: some_helpers
  Filename: x.py
data model with a path:
  AnalysisType: datamodel
  DataModelID: A.Model
  Enabled: true
  LogTypes: [A.Log]
  Mappings: [{Name: ip, Path: src.ip}]
data model with a method:
  AnalysisType: datamodel
  DataModelID: A.Model
  Enabled: true
  LogTypes: [A.Log]
  Filename: x.py
  Mappings: [{Name: ip, Method: method}]
pack:
  AnalysisType: pack
  PackID: A.Pack
  PackDefinition: {IDs: [A.Rule]}
lookup table from a file:
  AnalysisType: lookup_table
  LookupName: hosts
  Enabled: true
  Filename: x.csv
  Schema: Custom.Hosts
  LogTypeMap: &map
    PrimaryKey: ip
    AssociatedLogTypes: [{LogType: A.Log, Selectors: [ip]}]
lookup table from storage:
  AnalysisType: lookup_table
  LookupName: hosts
  Enabled: true
  Schema: Custom.Hosts
  LogTypeMap: *map
  Refresh:
    ObjectPath: s3://bucket/key
    PeriodMinutes: 60
    AlarmPeriodMinutes: 1440
    RoleARN: arn
    ObjectKMSKey: arn
    GCSCredentials: c
    StorageProvider: S3
lookup table from SQL:
  AnalysisType: lookup_table
  LookupName: hosts
  Enabled: true
  Schema: Custom.Hosts
  LogTypeMap: *map
  Query: select 1
  Refresh: {CronExpression: 0 0 * * *}
  Indicators: []
  Validations: []
saved query:
  AnalysisType: saved_query
  QueryName: q
  Query: select 1
scheduled query:
  AnalysisType: scheduled_query
  QueryName: q
  Enabled: true
  Query: select 1
  Schedule: {RateMinutes: 60, TimeoutMinutes: 5}
correlation rule of a sequence:
  AnalysisType: correlation_rule
  RuleID: A.Correlation
  Enabled: true
  Severity: Low
  Detection:
    - Sequence:
        - {ID: "1", RuleID: A.Rule, MinMatchCount: 1, MaxMatchCount: 5}
        - {ID: "2", RuleID: B.Rule, Absence: true}
      Transitions: [{ID: t, From: "1", To: "2", WithinTimeFrameMinutes: 15, Match: [{On: user}]}]
      Schedule: {RateMinutes: 1440, TimeoutMinutes: 5}
      LookbackWindowMinutes: 1800
      EventEvaluationOrder: Chronological
correlation rule of a group:
  AnalysisType: correlation_rule
  RuleID: A.Correlation
  Enabled: true
  Severity: Low
  Detection:
    - Group: [{ID: "1", RuleID: A.Rule, MinMatchCount: 1, MaxMatchCount: 5}]
      MatchCriteria: {user: [{GroupID: "1", Match: user}]}
      MinMatchCount: 2
      Schedule: {CronExpression: 0 * * * *, TimeoutMinutes: 5}
scheduled prompt:
  AnalysisType: scheduled_prompt
  PromptName: p
  Enabled: true
  Prompt: look
  Schedule: {RateMinutes: 60, TimeoutMinutes: 5}
""")[0]
"""A file of each kind, no key too many."""

RULE, SIMPLE, SCHEDULED, POLICY = (SOUND[kind] for kind in ("rule", "simple detection", "scheduled rule", "policy"))
TEST = {"Name": "t", "ExpectedResult": True, "Log": {"n": 1}}
DERIVED, GLOBAL, PACK = (SOUND[kind] for kind in ("derived rule", "global", "pack"))
MODEL, TABLE, SAVED, SCHEDULED_QUERY = (
    SOUND[kind] for kind in ("data model with a path", "lookup table from a file", "saved query", "scheduled query")
)
CORRELATION = SOUND["correlation rule of a sequence"]
SEQUENCE: dict[str, Any] = CORRELATION["Detection"][0]
GROUP: dict[str, Any] = SOUND["correlation rule of a group"]["Detection"][0]


def files_of(*documents: dict[str, Any], module: str = MODULE, **more: str) -> dict[str, bytes]:
    """A pack of these documents (JSON is YAML), with x.py, x.csv and further modules by name."""
    files = {f"d{number}.yml": json.dumps(document).encode() for number, document in enumerate(documents)}
    if any("BaseDetection" in each for each in documents) and not any(
        each.get("RuleID") == "A.Rule" for each in documents
    ):
        files["base.yml"] = json.dumps(RULE).encode()
    named = {f"{name}.py": source.encode() for name, source in more.items()}
    return {**files, "x.py": module.encode(), "x.csv": b"ip,name\n10.0.0.1,a\n", **named}


def problems(*documents: dict[str, Any], **how: str) -> list[str]:
    """What is wrong with a pack of these documents."""
    try:
        load_pack(files_of(*documents, **how))
    except InvalidPack as error:
        return [str(problem) for problem in error.problems]
    return []


def without(document: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in keys}


def one(pack: Pack, rule_id: str) -> Rule:
    (found,) = [rule for rule in pack.everything if rule.id == rule_id]
    return found


def outcome(rule: Rule, data: Any = None) -> Outcome:
    evaluation = Evaluation(State())
    evaluation.begin_event(0.0, (0, 0))
    return evaluate(rule, PantherEvent({} if data is None else data), evaluation)


def load_one(document: dict[str, Any], module: str = MODULE, **more: str) -> Rule:
    pack = load_pack(files_of(document, module=module, **more))
    return one(pack, document.get("RuleID", document.get("PolicyID", "")))


def result_of(module: str, **test: Any) -> TestResult:
    """What the only test of a rule comes to."""
    pack = load_pack(files_of({**RULE, "Tests": [{"Name": "it", "Log": {}, **test}]}, module=module))
    (result,) = run_tests(pack, log_types_of(pack))
    return result


# --- 1.1: the functions of a module ------------------------------------------------------------------------------

RAISES = "def rule(event): raise ValueError('rule ran')\n"
FILTER = [{"KeyPath": "wanted", "Condition": "Equals", "Value": True}]


def test_rule_is_not_run_on_an_event_that_the_filters_hold_back() -> None:
    rule = load_one({**RULE, "InlineFilters": FILTER}, RAISES)

    assert outcome(rule, {"wanted": False}) == Outcome(None, ())
    assert [error.message for error in outcome(rule, {"wanted": True}).errors] == ["rule ran"]
    assert [error.message for error in outcome(rule, {}).errors] == ["rule ran"]


def test_a_filter_that_raises_is_a_rule_error_and_rule_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """None that is compiled from YAML does."""

    def raising(event: PantherEvent) -> bool:
        raise ValueError("no filter")

    monkeypatch.setattr("rules.loading.compile_filters", lambda filters, refuse: raising)
    result = outcome(load_one({**RULE, "InlineFilters": FILTER}, RAISES))

    assert result.match is None
    assert [(error.function, error.error) for error in result.errors] == [("inline_filters", "ValueError")]


def test_filters_run_for_rules_only() -> None:
    assert outcome(load_one({**SCHEDULED, "InlineFilters": FILTER}), {"wanted": False}).match is not None


def test_simple_detections_have_filters_too() -> None:
    rule = load_one({**SIMPLE, "InlineFilters": FILTER})

    assert outcome(rule, {"n": 1, "wanted": False}).match is None
    assert outcome(rule, {"n": 1, "wanted": True}).match is not None


def test_a_function_that_is_imported_counts_as_defined() -> None:
    module = "from some_helpers import title\ndef rule(event): return True\n"
    pack = load_pack(
        files_of(RULE, {**GLOBAL, "Filename": "h.py"}, module=module, h="def title(event): return 'imported'\n")
    )
    match = outcome(one(pack, "A.Rule")).match

    assert match is not None
    assert match.title == "imported"


def test_a_rule_or_policy_without_its_function_is_not_loaded() -> None:
    assert problems(RULE, module="def policy(event): return True\n") == [
        "x.py:1: detection needs to have a method named 'rule': define rule(event)"
    ]
    assert problems(POLICY, module="def rule(event): return True\n") == [
        "x.py:1: detection needs to have a method named 'policy': define policy(resource)"
    ]


def test_a_scheduled_rule_without_rule_matches_every_row() -> None:
    match = outcome(load_one(SCHEDULED, "def title(event): return event['name']\n"), {"name": "row"}).match

    assert match is not None
    assert match.title == "row"


def test_a_match_of_a_regular_expression_is_no_bool() -> None:
    (error,) = outcome(load_one(RULE, "import re\ndef rule(event): return re.match('a', 'a')\n")).errors

    assert error.error == "FunctionReturnTypeError"


def test_production_runs_auxiliaries_on_a_match_only_and_a_test_always() -> None:
    module = "def rule(event): return False\ndef title(event):\n    print('title ran')\n    return 't'\n"

    assert "title ran" in result_of(module, ExpectedResult=False).printed
    assert outcome(load_one(RULE, module + "def severity(event): raise ValueError\n")) == Outcome(None, ())


def test_an_auxiliary_that_fails_fails_a_positive_test_and_no_negative_one() -> None:
    title = "def title(event): raise ValueError('no title')\n"

    assert result_of("def rule(event): return False\n" + title, ExpectedResult=False).passed
    assert not result_of("def rule(event): return True\n" + title, ExpectedResult=True).passed


def test_a_context_that_is_too_large_is_no_failure_in_a_test_either() -> None:
    module = "def rule(event): return True\ndef alert_context(event): return {'a': 'x' * 300000}\n"

    assert result_of(module, ExpectedResult=True).passed


def test_the_module_of_a_derived_rule_has_the_derived_rule_s_id_for_its_name() -> None:
    pack = load_pack(files_of(RULE, DERIVED, module=MODULE + "def title(event): return __name__\n"))
    matches = [outcome(rule).match for rule in pack.everything]

    assert [match.title for match in matches if match is not None] == ["A.Derived", "A.Rule"]


def test_helpers_are_imported_by_their_global_id_wherever_the_file_is() -> None:
    files = files_of(RULE, module="import some_helpers\ndef rule(event): return some_helpers.HELPS\n")
    files["helpers/other_name.py"] = b"HELPS = True\n"
    files["helpers/other_name.yml"] = json.dumps({**GLOBAL, "Filename": "other_name.py"}).encode()

    assert outcome(one(load_pack(files), "A.Rule")).match is not None


def test_helpers_import_each_other() -> None:
    one_global = {**GLOBAL, "GlobalID": "first", "Filename": "f.py"}
    other = {**GLOBAL, "GlobalID": "second", "Filename": "s.py"}
    files = files_of(RULE, one_global, other, module="from first import value\ndef rule(event): return value()\n",
                     f="import second\ndef value(): return second.VALUE\n", s="VALUE = True\n")  # fmt: skip

    assert outcome(one(load_pack(files), "A.Rule")).match is not None


def test_a_helper_named_like_a_package_is_used_and_noticed() -> None:
    document = {**GLOBAL, "GlobalID": "yaml", "Filename": "h.py"}
    pack = load_pack(
        files_of(RULE, document, module="import yaml\ndef rule(event): return yaml.MINE\n", h="MINE = True\n")
    )

    assert outcome(one(pack, "A.Rule")).match is not None
    assert ["yaml" in notice for notice in pack.notices] == [True]


# --- 1.2: when an alert fires ------------------------------------------------------------------------------------
# One run of the engine; each rule looks at the events that name it.

NAMED = "def rule(event): return event['for'] == {id!r}\n"
DEDUP = "def dedup(event): return event['key']\n"
TITLE = "def title(event): return event['key'] + ' at ' + event['p_event_time'][11:19]\n"

MINUTE = "event['p_event_time'][14:16]"
TELLING = "".join(
    f"def {name}(event): return {value}\n"
    for name, value in {
        **dict.fromkeys(("title", "description", "reference", "runbook"), MINUTE),
        "alert_context": f"{{'minute': {MINUTE}}}",
        "severity": "event['severity']",
        "destinations": f"[{MINUTE}]",
    }.items()
)

ALERTING: dict[str, tuple[dict[str, Any], str]] = {
    "Window.Fixed": ({}, TITLE + DEDUP),
    "Window.Other": ({}, TITLE + DEDUP),
    "Window.Types": ({"LogTypes": ["A.Log", "B.Log"]}, DEDUP),
    "Window.Short": ({"DedupPeriodMinutes": 2}, DEDUP),
    "Threshold.Three": ({"Threshold": 3, "Tags": ["t"], "Reports": {"MITRE": ["T1"]}}, DEDUP + TELLING),
    "Threshold.Unique": ({"Threshold": 2}, DEDUP + "def unique(event): return event['value']\n"),
    "No.Alert": ({"CreateAlert": False}, DEDUP),
    "No.Destination": ({}, DEDUP + "def destinations(event): return []\n"),
    "To.Function": ({"OutputIds": ["yaml"]}, "def destinations(event): return ['function', 'again']\n"),
    "To.Normal": ({"OutputIds": ["yaml"]}, "def destinations(event): return None\n"),
    "To.Yaml": ({"OutputIds": ["yaml", "more"]}, "def severity(event): return 'high'\n"),
    "Title.Raises": ({}, "def title(event): return event['absent']\n"),
    "Rule.Raises": ({"Threshold": 2}, "def rule(event): return 1 if event['for'] == 'Rule.Raises' else False\n"),
}  # fmt: skip


def at(clock: str, rule_id: str, key: str = "k", **more: Any) -> dict[str, Any]:
    return {
        "p_log_type": "A.Log",
        "p_event_time": f"2024-03-01 {clock}.000000000",
        "for": rule_id,
        "key": key,
        "value": None,
        "severity": "LOW",
        **more,
    }


EVENTS = [
    *(at(clock, "Window.Fixed") for clock in ("10:07:00", "10:36:00", "10:42:00", "11:06:00", "11:07:01")),
    *(at("10:10:00", "Window.Fixed", key) for key in ("one", "other")),
    at("10:10:00", "Window.Other", "one"),
    at("10:20:00", "Window.Types"), at("10:21:00", "Window.Types", p_log_type="B.Log"),
    *(at(clock, "Window.Short") for clock in ("10:00:00", "10:02:00", "10:02:01")),
    at("10:01:00", "Threshold.Three", severity="CRITICAL"), at("10:02:00", "Threshold.Three"),
    *(at(clock, "Threshold.Three") for clock in ("10:03:00", "10:04:00", "10:05:00")),
    *(at(clock, "Threshold.Three", "below") for clock in ("10:01:00", "10:02:00")),
    *(at(clock, "Threshold.Three", "apart") for clock in ("10:01:00", "10:02:00", "11:02:00")),
    *(at("10:00:00", "Threshold.Three", "twice") for _ in range(3)),
    *(at("10:01:00", "Threshold.Unique", "same", value="a") for _ in range(4)),
    *(at("10:01:00", "Threshold.Unique", "two", value=value) for value in ("a", "a", "b")),
    *(at("10:01:00", "Threshold.Unique", "none", value=value) for value in ("a", None, None)),
    at("10:00:00", "Threshold.Unique", "reset", value="a"), at("11:30:00", "Threshold.Unique", "reset", value="b"),
    at("10:00:00", "No.Alert"), at("10:00:00", "No.Destination"),
    at("10:00:00", "To.Function"), at("10:00:00", "To.Normal"), at("10:00:00", "To.Yaml"),
    at("10:00:00", "Title.Raises", "a"), at("10:01:00", "Title.Raises", "b"),
    at("10:00:00", "Rule.Raises"), at("10:01:00", "Rule.Raises"), at("10:02:00", "Rule.Raises"),
]  # fmt: skip


class Ran:
    """The records that one run left, by rule."""

    def __init__(self, directory: Path) -> None:
        self._records = {
            name: [json.loads(line) for line in (directory / f"{name}.jsonl").read_text().splitlines()]
            for name in ("alerts", "matches", "errors")
        }

    def of(self, kind: str, rule_id: str, dedup: str | None = None) -> list[dict[str, Any]]:
        return [
            record
            for record in self._records[kind]
            if record["rule_id"] == rule_id and dedup in (None, record.get("dedup"))
        ]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    directory = tmp_path_factory.mktemp("contract")
    rules = directory / "rules"
    rules.mkdir()
    for rule_id, (more, module) in ALERTING.items():
        document = {**RULE, "RuleID": rule_id, "Filename": f"{rule_id}.py", **more}
        rules.joinpath(f"{rule_id}.yml").write_text(json.dumps(document))
        rules.joinpath(f"{rule_id}.py").write_text(NAMED.format(id=rule_id) + module)
    log = directory / "log.jsonl"
    log.write_text("".join(json.dumps(event) + "\n" for event in EVENTS))
    run_command(log, into=directory / "out", rules=rules)
    return Ran(directory / "out")


def test_the_window_is_fixed_at_its_first_match_and_an_hour_long_unless_told(ran: Ran) -> None:
    first, second = ran.of("alerts", "Window.Fixed", "k")

    assert (first["title"], second["title"]) == ("k at 10:07:00", "k at 11:07:01")
    assert first["alert_id"] != second["alert_id"]
    assert [match["alert_id"] for match in ran.of("matches", "Window.Fixed", "k")] == [
        *[first["alert_id"]] * 4,
        second["alert_id"],
    ]


def test_each_dedup_string_of_each_rule_has_a_window_of_its_own(ran: Ran) -> None:
    alerts = [
        *ran.of("alerts", "Window.Fixed", "one"),
        *ran.of("alerts", "Window.Fixed", "other"),
        *ran.of("alerts", "Window.Other", "one"),
    ]

    assert len({alert["alert_id"] for alert in alerts}) == len(alerts) == 3


def test_the_log_type_is_not_part_of_the_window_s_key(ran: Ran) -> None:
    first, second = ran.of("matches", "Window.Types")

    assert (first["log_type"], second["log_type"]) == ("A.Log", "B.Log")
    assert first["alert_id"] == second["alert_id"]
    assert len(ran.of("alerts", "Window.Types")) == 1


def test_a_period_below_five_minutes_is_taken_as_given(ran: Ran) -> None:
    assert [alert["first_match_at"][11:19] for alert in ran.of("alerts", "Window.Short")] == ["10:00:00", "10:02:01"]


def test_an_alert_is_of_its_window_s_first_match_and_of_the_time_at_which_the_threshold_is_reached(ran: Ran) -> None:
    (alert,) = ran.of("alerts", "Threshold.Three", "k")

    assert [alert[name] for name in ("title", "description", "reference", "runbook")] == ["01"] * 4
    assert (alert["severity"], alert["destinations"], alert["context"]) == ("CRITICAL", ["01"], {"minute": "01"})
    assert (alert["first_match_at"], alert["created_at"]) == ("2024-03-01T10:01:00Z", "2024-03-01T10:03:00Z")
    assert (alert["match_count"], alert["threshold"]) == (3, 3)
    assert (alert["tags"], alert["reports"]) == (["t"], {"MITRE": ["T1"]})


def test_matches_beyond_or_below_the_threshold_are_stored_and_raise_nothing(ran: Ran) -> None:
    assert len(ran.of("matches", "Threshold.Three", "k")) == 5
    assert len(ran.of("matches", "Threshold.Three", "below")) == 2
    assert ran.of("alerts", "Threshold.Three", "below") == []


def test_matches_of_two_windows_do_not_add_up(ran: Ran) -> None:
    assert ran.of("alerts", "Threshold.Three", "apart") == []


def test_the_same_event_again_counts_again(ran: Ran) -> None:
    assert len(ran.of("alerts", "Threshold.Three", "twice")) == 1


def test_with_unique_the_threshold_counts_distinct_values(ran: Ran) -> None:
    (alert,) = ran.of("alerts", "Threshold.Unique", "two")

    assert alert["match_count"] == 3
    assert ran.of("alerts", "Threshold.Unique", "same") == []
    assert ran.of("alerts", "Threshold.Unique", "none") == []
    assert [error["function"] for error in ran.of("errors", "Threshold.Unique")] == ["unique", "unique"]


def test_distinct_values_are_forgotten_with_their_window(ran: Ran) -> None:
    assert len(ran.of("matches", "Threshold.Unique", "reset")) == 2
    assert ran.of("alerts", "Threshold.Unique", "reset") == []


@pytest.mark.parametrize("rule_id", ["No.Alert", "No.Destination"])
def test_a_match_without_an_alert_is_stored(ran: Ran, rule_id: str) -> None:
    assert len(ran.of("matches", rule_id)) == 1
    assert ran.of("alerts", rule_id) == []


@pytest.mark.parametrize(
    ("rule_id", "destinations"),
    [("To.Function", ["function", "again"]), ("To.Normal", ["yaml"]), ("To.Yaml", ["yaml", "more"])],
)
def test_destinations_beats_output_ids_which_beat_severity(ran: Ran, rule_id: str, destinations: list[str]) -> None:
    (alert,) = ran.of("alerts", rule_id)

    assert alert["destinations"] == destinations


def test_severity_beats_the_yaml_s(ran: Ran) -> None:
    assert [alert["severity"] for alert in ran.of("alerts", "To.Yaml")] == ["HIGH"]


def test_a_title_that_raises_puts_all_matches_into_one_alert(ran: Ran) -> None:
    (alert,) = ran.of("alerts", "Title.Raises")

    assert (alert["title"], alert["dedup"]) == ("Title.Raises", "Title.Raises")
    assert len(ran.of("matches", "Title.Raises")) == 2


def test_rule_errors_raise_no_alert_and_are_recorded_each(ran: Ran) -> None:
    assert [error["error"] for error in ran.of("errors", "Rule.Raises")] == ["FunctionReturnTypeError"] * 3
    assert ran.of("alerts", "Rule.Raises") == ran.of("matches", "Rule.Raises") == []


# --- 1.3: the keys of each kind of file --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SOUND)
def test_each_kind_of_file_loads(kind: str) -> None:
    assert problems(SOUND[kind]) == []


@pytest.mark.parametrize("kind", SOUND)
def test_a_key_that_the_format_does_not_know_is_refused_unless_extra_keys_are_ignored(kind: str) -> None:
    document = {**SOUND[kind], "Frobnicate": 1}

    assert [problem.partition(": ")[2] for problem in problems(document)] == [
        "unknown key 'Frobnicate': remove it",
    ]
    load_pack(files_of(document), ignore_extra_keys=True)


REQUIRED = {
    "rule": ["RuleID", "Enabled", "LogTypes", "Severity", "Filename"],
    "simple detection": ["RuleID", "Enabled", "LogTypes", "Severity", "Detection"],
    "scheduled rule": ["RuleID", "Enabled", "ScheduledQueries", "Severity", "Filename"],
    "derived rule": ["RuleID"],
    "policy": ["PolicyID", "Enabled", "Severity", "Filename"],
    "global": ["GlobalID", "Filename"],
    "data model with a path": ["DataModelID", "Enabled", "LogTypes", "Mappings"],
    "pack": ["PackID", "PackDefinition"],
    "lookup table from a file": ["LookupName", "Enabled", "Filename", "LogTypeMap"],
    "lookup table from storage": ["Refresh"],
    "saved query": ["QueryName", "Query"],
    "scheduled query": ["QueryName", "Query", "Schedule"],
    "correlation rule of a sequence": ["RuleID", "Enabled", "Severity", "Detection"],
}


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind, keys in REQUIRED.items() for key in keys])
def test_a_key_that_must_be_there_is_missed(kind: str, key: str) -> None:
    (problem,) = problems(without(SOUND[kind], key))

    assert f"{key} " in problem
    assert "is missing" in problem


RULE_OPTIONS: dict[str, tuple[Any, Any]] = {
    # key: (a value that it holds, one that it does not)
    "AlertContext": ([], "text"),
    "AlertTitle": ("text", 5),
    "BaseVersion": (1, "one"),
    "CreateAlert": (False, "no"),
    "CreatedBy": ("me", 5),
    "DedupPeriodMinutes": (15, "15"),
    "Description": ("text", ["text"]),
    "DisplayName": ("text", 5),
    "DynamicSeverities": ([], "text"),
    "GroupBy": ([], "text"),
    "InlineFilters": ([], "text"),
    "OnlyUseBaseRiskScore": (True, 1),
    "OutputIds": (["a"], "a"),
    "Reference": ("https://a", 5),
    "Reports": ({"MITRE": ["T1"]}, {"MITRE": "T1"}),
    "Runbook": ("text", 5),
    "Status": ("Experimental", 5),
    "SummaryAttributes": (["a"], "a"),
    "Tags": (["a"], "a"),
    "Tests": ([], "text"),
    "Threshold": (5, "5"),
}


@pytest.mark.parametrize("kind", ["rule", "simple detection", "scheduled rule", "derived rule"])
@pytest.mark.parametrize("key", RULE_OPTIONS)
def test_the_optional_keys_of_rules_hold_what_the_format_says(kind: str, key: str) -> None:
    good, bad = RULE_OPTIONS[key]

    assert problems({**SOUND[kind], key: good}) == []
    assert [key in problem for problem in problems({**SOUND[kind], key: bad})] == [True]


@pytest.mark.parametrize("character", '<>&"%')
@pytest.mark.parametrize("kind", ["rule", "scheduled rule", "derived rule", "correlation rule of a sequence"])
def test_some_characters_are_not_for_rule_ids(kind: str, character: str) -> None:
    assert len(problems({**SOUND[kind], "RuleID": f"A{character}B"})) == 1


@pytest.mark.parametrize("severity", ["Info", "Low", "Medium", "High", "Critical"])
def test_there_are_five_severities(severity: str) -> None:
    assert load_one({**RULE, "Severity": severity}).spec.severity == severity.upper()


@pytest.mark.parametrize("severity", ["", "Severe", "DEFAULT", 3])
def test_and_no_others(severity: Any) -> None:
    assert len(problems({**RULE, "Severity": severity})) == 1


@pytest.mark.parametrize("key", ["LogTypes", "OutputIds", "SummaryAttributes", "Tags"])
def test_what_is_twice_in_a_list_is_refused_case_aside(key: str) -> None:
    assert problems({**RULE, key: ["a", "b"]}) == []
    assert len(problems({**RULE, key: ["a", "A"]})) == 1


def test_a_rule_has_a_module_or_a_detection() -> None:
    assert len(problems({**RULE, "Detection": SIMPLE["Detection"]})) == 1
    assert len(problems(without(RULE, "Filename"))) == 1


def test_a_rule_is_for_log_types_or_for_scheduled_queries() -> None:
    for kind, other in (("rule", "ScheduledQueries"), ("scheduled rule", "LogTypes")):
        assert len(problems({**SOUND[kind], other: ["a"]})) == 1


def test_rules_of_either_kind_must_not_share_an_id() -> None:
    assert len(problems(RULE, {**SCHEDULED, "RuleID": RULE["RuleID"]})) == 1


# --- derived rules


def test_a_derived_rule_is_its_base_but_for_what_it_says_itself() -> None:
    base = {**RULE, "Description": "of the base", "Tags": ["base"], "Tests": [TEST]}
    pack = load_pack(files_of(base, {**DERIVED, "Severity": "High", "Tags": ["own"], "Enabled": False}))
    derived = one(pack, "A.Derived")

    assert (derived.spec.severity, derived.spec.tags, derived.spec.enabled) == ("HIGH", ("own",), False)
    assert (derived.spec.description, derived.log_types) == ("of the base", frozenset({"A.Log"}))
    assert [test["Name"] for test in derived.spec.tests] == ["t"]
    assert [rule.id for rule in pack.rules] == ["A.Rule"]


def test_tests_of_a_derived_rule_take_the_place_of_the_base_s() -> None:
    test = {"Name": "base", "ExpectedResult": True, "Log": {}}
    derived = {**DERIVED, "Tests": [{**test, "Name": "own"}]}

    assert [
        each["Name"] for each in one(load_pack(files_of({**RULE, "Tests": [test]}, derived)), "A.Derived").spec.tests
    ] == ["own"]


def test_a_derived_rule_may_come_from_a_simple_detection() -> None:
    base = {**SIMPLE, "AlertTitle": "of the base"}
    derived = one(load_pack(files_of(base, {**DERIVED, "AlertTitle": "own {n}"})), "A.Derived")
    match = outcome(derived, {"n": 5}).match

    assert match is not None
    assert match.title == "own 5"
    assert outcome(derived, {}).match is None


@pytest.mark.parametrize(
    ("key", "value"), [("Filename", "x.py"), ("Detection", SIMPLE["Detection"]), ("LogTypes", ["B.Log"])]
)
def test_a_derived_rule_keeps_its_base_s_body_and_log_types(key: str, value: Any) -> None:
    assert len(problems({**DERIVED, key: value})) == 1


def test_a_base_that_is_not_there_is_named() -> None:
    (problem,) = problems({**DERIVED, "BaseDetection": "No.Rule"})

    assert "the pack has no rule No.Rule" in problem


# --- data models, lookup tables, packs


def test_a_mapping_has_a_path_or_a_method() -> None:
    for mapping in ({"Name": "ip"}, {"Name": "ip", "Path": "a", "Method": "method"}, {"Path": "a"}):
        assert len(problems({**SOUND["data model with a method"], "Mappings": [mapping]})) == 1


def test_a_log_type_has_one_enabled_data_model() -> None:
    assert len(problems(MODEL, {**MODEL, "DataModelID": "B.Model"})) == 1
    assert problems(MODEL, {**MODEL, "DataModelID": "B.Model", "Enabled": False}) == []
    assert problems(MODEL, {**MODEL, "DataModelID": "B.Model", "LogTypes": ["B.Log"]}) == []


def test_a_lookup_table_has_a_file_or_is_refreshed() -> None:
    assert len(problems({**TABLE, "Refresh": {"PeriodMinutes": 60}})) == 1


def test_packs_name_what_they_hold() -> None:
    assert load_pack(files_of(RULE, PACK)).packs == {"A.Pack": frozenset({"A.Rule"})}
    assert len(problems({**PACK, "PackDefinition": {}})) == 1


# --- queries


@pytest.mark.parametrize("key", ["Query", "AthenaQuery", "SnowflakeQuery", "DatabricksQuery"])
def test_a_query_is_written_for_any_of_the_engines(key: str) -> None:
    assert problems({**without(SAVED, "Query"), key: "select 1"}) == []


@pytest.mark.parametrize("how", [{"CronExpression": "0 0 1 1 *"}, {"RateMinutes": 5}])
def test_a_schedule_is_a_cron_expression_or_a_rate(how: Any) -> None:
    assert problems({**SCHEDULED_QUERY, "Schedule": {**how, "TimeoutMinutes": 5}}) == []


@pytest.mark.parametrize(
    "schedule",
    [
        {"TimeoutMinutes": 5},
        {"RateMinutes": 5},
        {"RateMinutes": 1, "TimeoutMinutes": 1},
        {"RateMinutes": 5, "TimeoutMinutes": 6},
    ],
)
def test_a_rate_is_more_than_a_minute_and_no_shorter_than_the_time_limit(schedule: Any) -> None:
    assert len(problems({**SCHEDULED_QUERY, "Schedule": schedule})) == 1


def test_a_scheduled_query_may_look_back_and_send_mail() -> None:
    more = {"Lookback": True, "LookbackWindowSeconds": 60, "EmailConfig": {"Recipients": ["a@b"]}}

    assert problems({**SCHEDULED_QUERY, **more}) == []


# --- correlation rules


def correlation(**changes: Any) -> dict[str, Any]:
    return {**CORRELATION, "Detection": [{**SEQUENCE, **changes}]}


@pytest.mark.parametrize(
    "detection",
    [
        [],
        [SEQUENCE, GROUP],
        [{**SEQUENCE, **GROUP}],
        [without(SEQUENCE, "Schedule")],
        [without(SEQUENCE, "Sequence")],
    ],
)
def test_a_correlation_rule_is_one_scheduled_sequence_or_group(detection: Any) -> None:
    assert len(problems({**CORRELATION, "Detection": detection})) >= 1


@pytest.mark.parametrize(
    "match",
    [
        [],
        [{}],
        [{"On": "a", "From": "b", "To": "c"}],
        [{"From": "a"}],
        [{"On": "a"}, {"On": "b"}],
    ],
)
def test_a_transition_has_one_match_on_one_field_or_between_two(match: Any) -> None:
    transition = {**SEQUENCE["Transitions"][0], "Match": match}

    assert len(problems(correlation(Transitions=[transition]))) >= 1


def test_events_are_correlated_in_one_order_or_the_other() -> None:
    assert problems(correlation(EventEvaluationOrder="ReverseChronological")) == []
    assert len(problems(correlation(EventEvaluationOrder="Sideways"))) == 1


def test_tests_of_a_correlation_rule_say_when_its_rules_matched() -> None:
    test = {"Name": "t", "ExpectedResult": True, "RuleOutputs": [{"ID": "1", "Matches": {"user": {"ann": [0, 5]}}}]}

    assert problems({**CORRELATION, "Tests": [test]}) == []
    assert len(problems({**CORRELATION, "Tests": [without(test, "RuleOutputs")]})) == 1


# --- tests in the YAML


@pytest.mark.parametrize(
    "more",
    [
        {"Mocks": [{"objectName": "x", "returnValue": "text"}, {"objectName": "y", "returnValue": True}]},
        {"ExpectedDestinations": ["a"]},
        {"LogType": "A.Log", "ResourceType": "ignored"},
    ],
)
def test_a_test_may_mock_expect_destinations_and_name_its_type(more: dict[str, Any]) -> None:
    assert problems({**RULE, "Tests": [{**TEST, **more}]}) == []


@pytest.mark.parametrize("key", ["Name", "ExpectedResult", "Log"])
def test_a_test_needs_a_name_an_expectation_and_an_event(key: str) -> None:
    (problem,) = problems({**RULE, "Tests": [without(TEST, key)]})

    assert key in problem


def test_a_policy_is_tested_with_a_resource() -> None:
    pack = load_pack(
        files_of(
            {**POLICY, "Tests": [{"Name": "t", "ExpectedResult": True, "Resource": {"ok": True}}]},
            module="def policy(resource): return resource['ok']\n",
        )
    )

    assert [result.passed for result in run_tests(pack, log_types_of(pack))] == [True]


def test_a_policy_gets_its_resource_in_plain_python() -> None:
    module = "def policy(resource): return type(resource) is dict and type(resource['items']) is list\n"
    test = {"Name": "t", "ExpectedResult": True, "Resource": {"items": [1]}}
    pack = load_pack(files_of({**POLICY, "Tests": [test]}, module=module))

    assert [result.passed for result in run_tests(pack, log_types_of(pack))] == [True]


@pytest.mark.parametrize(("complies", "passes"), [(True, True), (False, False)])
def test_a_policy_needs_its_auxiliaries_where_a_resource_is_expected_not_to_comply(
    complies: bool, passes: bool
) -> None:
    module = "def policy(resource): return resource['ok']\ndef title(resource): raise ValueError('no title')\n"
    test = {"Name": "t", "ExpectedResult": complies, "Resource": {"ok": complies}}
    pack = load_pack(files_of({**POLICY, "Tests": [test]}, module=module))
    (result,) = run_tests(pack, log_types_of(pack))

    assert result.passed is passes
    assert [function.name for function in result.functions] == (
        ["policy"] if complies else ["policy", "title", "dedup"]
    )


def test_the_dedup_string_of_an_expected_alert_is_shown_wherever_it_comes_from() -> None:
    _, shown = result_of("def rule(event): return True\n", ExpectedResult=True).functions

    assert shown == ("dedup", True, "defaultDedupString:A.Rule")


def test_the_events_of_tests_are_what_yaml_1_2_says() -> None:
    log = "{day: 2024-03-01, on: yes, code: 010, at: 1:30}"
    module = "def rule(event): return event == {'day': '2024-03-01', 'on': 'yes', 'code': 10, 'at': '1:30'}\n"
    files = files_of(module=module)
    files["r.yml"] = f'{json.dumps(RULE)[:-1]}, "Tests": [{{Name: t, ExpectedResult: true, Log: {log}}}]}}'.encode()
    (rule,) = load_pack(files).rules

    assert rule.spec.tests[0]["Log"] == {"day": "2024-03-01", "on": "yes", "code": 10, "at": "1:30"}
    assert outcome(rule, rule.spec.tests[0]["Log"]).match is not None


def test_files_may_end_in_yaml() -> None:
    files = files_of()
    files["r.yaml"] = json.dumps(RULE).encode()

    assert [rule.id for rule in load_pack(files).rules] == ["A.Rule"]
