from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rules.errors import InvalidPack
from rules.jsontext import parse
from rules.logtypes import (
    BadTime,
    LogType,
    load_definitions,
    recognise,
    shipped_definitions,
    undefined,
)

TYPES = load_definitions(shipped_definitions())
JULY_10 = 1688989338.0


def define(text: str) -> LogType:
    (log_type,) = load_definitions({"example.yml": text.encode()}).values()
    return log_type


# --- the definitions that ship --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log_type", "event"),
    [
        ("AWS.CloudTrail", {"eventTime": "2023-07-10T11:42:18Z"}),
        ("AWS.VPCFlow", {"start": 1688989338}),
        ("Amazon.EKS.Audit", {"requestReceivedTimestamp": "2023-07-10T11:42:18.000000Z"}),
        ("Azure.Audit", {"time": "2023-07-10T11:42:18.0000000Z"}),
        ("GCP.AuditLog", {"timestamp": "2023-07-10T11:42:18.000000000Z"}),
        ("GSuite.ActivityEvent", {"id": {"time": "2023-07-10T11:42:18.000Z"}}),
        ("GitHub.Audit", {"@timestamp": 1688989338000, "created_at": 1688989339000}),
        ("GitHub.Audit", {"created_at": 1688989338000}),
        ("Okta.SystemLog", {"published": "2023-07-10T11:42:18.000Z"}),
        ("Zeek.DNS", {"ts": 1688989338.0}),
        ("AWS.ALB", {"timestamp": "2023-07-10 11:42:18.000000000"}),
        ("AWS.GuardDuty", {"createdAt": "2023-07-09T00:00:00.000Z", "updatedAt": "2023-07-10T11:42:18.000Z"}),
        ("AWS.S3ServerAccess", {"time": "2023-07-10 11:42:18.000000000"}),
        ("AWS.VPCDns", {"query_timestamp": "2023-07-10T11:42:18Z"}),
        ("AWS.WAFWebACL", {"timestamp": 1688989338000}),
        ("Asana.Audit", {"created_at": "2023-07-10T11:42:18.000Z"}),
        ("Atlassian.Audit", {"attributes": {"time": "2023-07-10T11:42:18.000Z"}}),
        ("Auth0.Events", {"data": {"date": "2023-07-10T11:42:18.000Z"}}),
        ("Azure.MonitorActivity", {"time": "2023-07-10T11:42:18.0000000Z"}),
        ("Box.Event", {"created_at": "2023-07-10T04:42:18-07:00"}),
        ("Cloudflare.Firewall", {"Datetime": "2023-07-10T11:42:18Z"}),
        (
            "Cloudflare.HttpRequest",
            {"EdgeStartTimestamp": 1688989338000000000, "EdgeEndTimestamp": 1688989339000000000},
        ),
        ("Databricks.Audit", {"timestamp": 1688989338000}),
        ("Dropbox.TeamEvent", {"timestamp": "2023-07-10T11:42:18Z"}),
        ("Duo.Authentication", {"timestamp": 1688989338, "isotimestamp": "2023-07-10T11:42:18.000000+00:00"}),
        ("Duo.Authentication", {"timestamp": 1688989338}),
        ("Gravitational.TeleportAudit", {"time": "2023-07-10T11:42:18Z"}),
        ("Notion.AuditLogs", {"event": {"timestamp": "2023-07-10T11:42:18.000Z"}}),
        ("OneLogin.Events", {"event_timestamp": "2023-07-10 11:42:18 UTC"}),
        ("OneLogin.Events", {"created_at": "2023-07-10T11:42:18.000Z"}),
        ("OnePassword.ItemUsage", {"timestamp": "2023-07-10T11:42:18Z"}),
        ("OnePassword.SignInAttempt", {"timestamp": "2023-07-10T11:42:18Z"}),
        ("Panther.Audit", {"timestamp": "2023-07-10T11:42:18Z"}),
        ("Slack.AuditLogs", {"date_create": 1688989338}),
        ("Snowflake.LoginHistory", {"EVENT_TIMESTAMP": "2023-07-10 11:42:18.000000000"}),
        ("Tines.Audit", {"created_at": "2023-07-10T11:42:18Z"}),
        ("Zendesk.Audit", {"created_at": "2023-07-10T11:42:18Z"}),
        ("Zoom.Operation", {"time": "2023-07-10T11:42:18Z"}),
    ],
)
def test_each_log_type_knows_where_its_time_stands(log_type: str, event: dict[str, Any]) -> None:
    assert TYPES[log_type].time_of(event) == JULY_10


def test_an_alb_record_in_panther_s_names_is_recognised() -> None:
    record = {
        "type": "https",
        "elb": "app/my-lb/50dc",
        "clientIp": "192.0.2.1",
        "elbStatusCode": 200,
        "requestUrl": "/",
    }

    assert recognise(record, TYPES) == "AWS.ALB"


REAL_FILES = {
    "invictus-aws/cloudtrail": "AWS.CloudTrail",
    "opensearch-catalog/cloudtrail": "AWS.CloudTrail",
    "streamalert-tests/cloudtrail": "AWS.CloudTrail",
    "streamalert-tests/cloudtrail-via-cloudwatch": "AWS.CloudTrail",
    "cribl/okta-systemlog": "Okta.SystemLog",
    "streamalert-tests/okta-logevents": "Okta.SystemLog",
    **{
        f"invictus-gws/{name}": "GSuite.ActivityEvent"
        for name in ("admin", "calendar", "drive", "groups_enterprise", "login", "user_accounts")
    },
}


def records_of(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path) as lines:
        for line in lines:
            record = parse(line)
            if isinstance(record, dict):
                yield record


@pytest.mark.parametrize(("name", "log_type"), REAL_FILES.items())
def test_every_record_of_a_real_file_is_recognised(shared_data: Path, name: str, log_type: str) -> None:
    assert {recognise(record, TYPES) for record in records_of(shared_data / f"{name}.jsonl.gz")} == {log_type}


def test_no_record_of_another_log_type_is_taken_for_one_of_ours(shared_data: Path) -> None:
    mistaken = []
    for path in sorted((shared_data / "panther-analysis-tests").glob("*.jsonl.gz")):
        log_type = path.name.removesuffix(".jsonl.gz")
        if not path.name.endswith((".expect.jsonl.gz", "_tests.jsonl.gz")):
            found = {recognise(record, TYPES) for record in records_of(path)} - {None, log_type}
            mistaken += [(log_type, name) for name in found]
    assert mistaken == []


@pytest.mark.parametrize("log_type", sorted(set(TYPES) - {"AWS.ALB", "Zeek.DNS"}))
def test_the_first_records_of_hand_made_logs_are_enough(shared_data: Path, log_type: str) -> None:
    """Written for rule tests, many with only the fields that a rule reads."""
    records = list(records_of(shared_data / "panther-analysis-tests" / f"{log_type}.jsonl.gz"))[:100]
    assert log_type in {recognise(record, TYPES) for record in records}


def test_the_times_of_real_files_are_read(shared_data: Path) -> None:
    for name, log_type in REAL_FILES.items():
        if not name.startswith("streamalert"):  # whose times are elided
            for record in records_of(shared_data / f"{name}.jsonl.gz"):
                assert TYPES[log_type].time_of(record) is not None


# --- time -----------------------------------------------------------------------------------------------------------

EXAMPLE = define(
    r"""
LogType: Example.Audit
Recognise:
  - {service: example, action: ["user.*", logout]}
  - {'meta\.version': "*"}
Timestamp: [occurredAt, meta.received]
Indicators:
  ip_addresses: [client.ip, "hops[].ip", "via[]"]
  aws_arns: [arn]
  aws_account_ids: [account]
  domain_names: [client.ip]
  sha256_hashes: [digest]
  usernames: [user]
Split: {List: events, Objects: [parameters]}
"""
)


@pytest.mark.parametrize("absent", [{}, {"occurredAt": None}, {"occurredAt": ""}, {"meta": None}, {"meta": "text"}])
def test_an_absent_null_or_empty_time_is_no_time(absent: dict[str, Any]) -> None:
    assert EXAMPLE.time_of(absent) is None


def test_a_time_that_is_there_and_unreadable_is_bad_even_before_a_good_one() -> None:
    with pytest.raises(BadTime):
        EXAMPLE.time_of({"occurredAt": "yesterday", "meta": {"received": JULY_10}})


def test_an_empty_field_leaves_the_time_to_the_next() -> None:
    assert EXAMPLE.time_of({"occurredAt": "", "meta": {"received": JULY_10}}) == JULY_10


def test_p_event_time_comes_before_the_timestamp_fields() -> None:
    event = {"p_event_time": "2023-07-10 11:42:18", "occurredAt": 1}
    assert EXAMPLE.time_of(event) == JULY_10
    assert undefined("Unknown.Type").time_of(event) == JULY_10
    assert undefined("Unknown.Type").time_of({"occurredAt": 1}) is None


# --- recognising ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "is_recognised"),
    [
        ({"service": "example", "action": "user.login"}, True),
        ({"service": "example", "action": "logout"}, True),
        ({"service": "example", "action": "logout.all"}, False),
        ({"service": "examples", "action": "logout"}, False),
        ({"service": "example"}, False),
        ({"service": "example", "action": None}, False),
        ({"service": "example", "action": ["logout"]}, False),
        ({"meta.version": 0}, True),
        ({"meta.version": None}, False),
        ({"meta": {"version": 1}}, False),
    ],
)
def test_an_alternative_holds_when_all_of_its_fields_do(record: dict[str, Any], is_recognised: bool) -> None:
    assert (recognise(record, {"Example.Audit": EXAMPLE}) is not None) is is_recognised


def test_the_alternative_that_asks_for_most_wins_then_the_name_whatever_the_order() -> None:
    files = {
        "a.yml": b"{LogType: B, Recognise: [{x: '*'}]}",
        "b.yml": b"{LogType: A, Recognise: [{y: '*'}]}",
        "c.yml": b"{LogType: C, Recognise: [{x: '*', y: '*'}]}",
    }
    types = load_definitions(files)
    backwards = dict(reversed(types.items()))
    for record, expected in [({"x": 1, "y": 1}, "C"), ({"x": 1}, "B"), ({"y": 1}, "A"), ({}, None)]:
        assert recognise(record, types) == recognise(record, backwards) == expected
    del types["C"]
    assert recognise({"x": 1, "y": 1}, types) == "A"


# --- splitting ------------------------------------------------------------------------------------------------------

ACTIVITY = {
    "kind": "admin#reports#activity",
    "id": {"time": "2022-08-02T19:10:44.576Z", "applicationName": "drive"},
    "actor": {"email": "admin@example.com"},
    "events": [
        {"type": "access", "name": "edit", "parameters": [{"name": "doc_id", "value": "d1"}]},
        {
            "type": "acl_change",
            "name": "change_user_access",
            "parameters": [
                {"name": "billable", "boolValue": True},
                {"name": "size", "intValue": "258855114937"},
                {"name": "new_value", "multiValue": ["owner", "writers"]},
                {"name": "codes", "multiIntValue": ["1", "2"]},
                {"name": "info", "messageValue": {"parameter": [{"name": "kind", "intValue": "3"}]}},
                {"name": "infos", "multiMessageValue": [{"parameter": [{"name": "kind", "value": "x"}]}]},
                {"name": "empty"},
            ],
        },
        {"type": "login", "name": "logout"},
    ],
}


def test_an_activity_of_google_becomes_one_event_for_each_that_it_holds() -> None:
    events = TYPES["GSuite.ActivityEvent"].events_of(ACTIVITY)
    common = {name: ACTIVITY[name] for name in ("kind", "id", "actor")}
    assert events == [
        common | {"type": "access", "name": "edit", "parameters": {"doc_id": "d1"}},
        common
        | {
            "type": "acl_change",
            "name": "change_user_access",
            "parameters": {
                "billable": True,
                "size": 258855114937,
                "new_value": ["owner", "writers"],
                "codes": [1, 2],
                "info": {"kind": 3},
                "infos": [{"kind": "x"}],
                "empty": None,
            },
        },
        common | {"type": "login", "name": "logout"},
    ]
    assert len(ACTIVITY["events"]) == 3, "the record itself is left as it was"


@pytest.mark.parametrize("events", [None, [], "text", [1], {"name": "edit"}])
def test_a_record_with_nothing_to_split_is_one_event(events: object) -> None:
    record = {"name": "edit", "parameters": {"doc_id": "d1"}, "events": events}
    assert TYPES["GSuite.ActivityEvent"].events_of(record) == [record]


def test_parameters_of_another_shape_stay_as_they_are() -> None:
    record = {"events": [{"parameters": {"a": 1}}, {"parameters": [1]}, {"parameters": None}]}
    assert [event["parameters"] for event in EXAMPLE.events_of(record)] == [{"a": 1}, [1], None]


def test_records_of_other_log_types_are_events_themselves() -> None:
    record: dict[str, Any] = {"events": [{"a": 1}]}
    assert TYPES["AWS.CloudTrail"].events_of(record)[0] is record


# --- derived fields -------------------------------------------------------------------------------------------------


def test_the_base_fields_say_type_time_place_and_source() -> None:
    base = EXAMPLE.derive({"a": 1}, JULY_10, (3, 4096), "trail").base()
    assert base == {
        "p_log_type": "Example.Audit",
        "p_event_time": "2023-07-10 11:42:18.000000000",
        "p_parse_time": "2023-07-10 11:42:18.000000000",
        "p_row_id": base["p_row_id"],
        "p_source_label": "trail",
    }


def test_a_log_type_without_a_definition_has_p_event_time_or_no_time_and_no_indicators() -> None:
    unknown = undefined("Other")

    assert unknown.time_of({"p_event_time": "2023-07-10 11:42:18", "time": "2024-01-01T00:00:00Z"}) == JULY_10
    assert unknown.time_of({"time": "2024-01-01T00:00:00Z", "timestamp": 5}) is None
    assert unknown.derive({"ip": "1.2.3.4", "user": "ann"}, JULY_10, (0, 0), "").any() == {}


def test_a_row_id_depends_on_the_position_alone() -> None:
    positions = [(0, 1), (0, 11), (0, 1, 1), (1, 1), (1, 0)]
    row_ids = [str(EXAMPLE.derive({}, 0.0, position, "x").base()["p_row_id"]) for position in positions]
    assert row_ids[0] == undefined("Other").derive({"b": 2}, 5.0, (0, 1), "y").base()["p_row_id"]
    assert len(set(row_ids)) == len(positions)
    assert all(len(row_id) == 32 and int(row_id, 16) for row_id in row_ids)


def test_indicators_are_sorted_lists_of_distinct_texts_that_can_be_what_they_claim() -> None:
    event = {
        "client": {"ip": "cloudformation.amazonaws.com"},
        "hops": [{"ip": "9.9.9.9"}, {"ip": "2001:db8::1"}, {"ip": "9.9.9.9"}, {"ip": 7}, {}, "text", None],
        "via": ["AWS Internal", "1.2.3.4:443", " 1.2.3.4 ", "::1", ""],
        "arn": "arn:aws:iam::123456789012:user/ann",
        "account": "210987654321",
        "digest": "abc",
        "user": "ann",
    }
    assert EXAMPLE.derive(event, 0.0, (0, 0), "").any() == {
        "p_any_aws_account_ids": ["123456789012", "210987654321"],
        "p_any_aws_arns": ["arn:aws:iam::123456789012:user/ann"],
        "p_any_domain_names": ["cloudformation.amazonaws.com"],
        "p_any_ip_addresses": ["1.2.3.4", "2001:db8::1", "9.9.9.9", "::1"],
        "p_any_usernames": ["ann"],
    }


def test_cloudtrail_finds_what_panther_finds(shared_data: Path) -> None:
    compared = 0
    log_type = TYPES["AWS.CloudTrail"]
    for event in records_of(shared_data / "panther-analysis-tests" / "AWS.CloudTrail.jsonl.gz"):
        expected = {name: event.pop(name) for name in list(event) if name.startswith("p_")}
        found = log_type.derive(event, 0.0, (0, 0), "").any()
        for name in ("p_any_ip_addresses", "p_any_trace_ids"):
            if name in expected and event.get("sourceIPAddress") and name in found:
                assert set(found[name]) <= set(expected[name]), event.get("eventName")
                compared += 1
    assert compared > 20


def test_a_normalised_event_gets_nothing_and_no_field_that_is_there_is_replaced() -> None:
    normalised = {"p_log_type": "Example.Audit", "p_event_time": "2023-07-10 11:42:18", "user": "ann"}
    derived = EXAMPLE.derive(normalised, JULY_10, (0, 0), "x")
    assert (derived.base(), derived.any()) == ({}, {})

    half = {"p_event_time": "2023-07-10 11:42:18", "p_any_usernames": ["bob"], "user": "ann"}
    derived = EXAMPLE.derive(half, JULY_10, (0, 0), "x")
    assert set(derived.base()) == {"p_log_type", "p_parse_time", "p_row_id", "p_source_label"}
    assert derived.any() == {}


# --- definitions ----------------------------------------------------------------------------------------------------


def test_every_problem_of_every_definition_is_reported_at_its_line() -> None:
    files = {
        "a.yml": b"LogType: A\nTimestamps: time\nIndicators:\n  ip_adresses: [ip]\n  usernames: [a..b]\n",
        "b.yml": b"Timestamp: 'times[]'\n",
        "c.yml": b"LogType: C\nRecognise: {a: b}\n",
        "d.yml": b"LogType: [\n",
        "e.yml": b"- 1\n",
        "f.yml": b"LogType: F\nRecognise: [{}]\nSplit: {Objects: x}\n",
        "g.yml": b"LogType: Twice\n",
        "h.yml": b"LogType: Twice\n",
    }
    with pytest.raises(InvalidPack) as caught:
        load_definitions(files)
    lines = [f"{problem.location}: {problem.message}" for problem in caught.value.problems]
    assert lines == [
        "a.yml:2: unknown key 'Timestamps'",
        "a.yml:4: unknown key 'ip_adresses'",
        "a.yml:5: the path 'a..b' has an empty name",
        "b.yml:1: LogType is missing",
        "b.yml:1: the path 'times[]' goes through a list",
        "c.yml:2: expected a list",
        "d.yml:2: not valid YAML: did not find expected node content",
        "e.yml:1: expected a mapping",
        "f.yml:2: an empty alternative recognises everything",
        "f.yml:3: Split has no List",
        "h.yml: Twice is defined twice",
    ]
    assert all(problem.remedy for problem in caught.value.problems)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"\x00", b"a: &a [*a]", b"LogType: &a [*a]", b"--- 1\n--- 2"]
)
def test_bytes_that_are_no_definition_are_a_problem(content: bytes) -> None:
    with pytest.raises(InvalidPack, match=r"^x\.yml"):
        load_definitions({"x.yml": content})


def test_scalars_are_the_text_they_are() -> None:
    log_type = define("LogType: 12\nRecognise: [{on: yes}]\n")
    assert log_type.name == "12"
    assert recognise({"on": "yes"}, {"12": log_type}) == "12"


ODD_TIMES: tuple[object, ...] = (
    None, "", 0, 0.0, False, True, [], {}, "x", -1, 1_700_000_000, "1700000000", "2024-03-01T12:00:00Z",
)  # fmt: skip


@pytest.mark.parametrize("log_type", ["AWS.CloudTrail", "Okta.SystemLog"])
def test_the_timer_of_a_log_type_gives_its_time(log_type: str) -> None:
    kind = TYPES[log_type]
    name = kind.timestamp[0].names[0]
    timer = kind.timer()

    def said(time_of: Any, event: dict[str, Any]) -> object:
        try:
            return time_of(event)
        except BadTime as error:
            return str(error)

    for own in (..., *ODD_TIMES):
        for other in (..., *ODD_TIMES):
            given = {"p_event_time": own, name: other}
            event = {key: value for key, value in given.items() if value is not ...}
            assert said(timer, event) == said(kind.time_of, event), event
