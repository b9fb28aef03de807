"""Each lint has what it accuses and what it lets pass; a comment silences it, and one that silences nothing is accused."""

from __future__ import annotations

from textwrap import dedent, indent

import pytest

from rules.lints import UNUSED_IGNORE, Report, lint, reason_of
from rules.lints.table import LINTS
from tests.commands import PACKS
from tests.rules.making import spec
from tests.rules.test_lints_analysis import HELPERS, helper

DEDUP = "def dedup(event): return 'all'\n"
FIRST = HELPERS.count("\n") + 1
"""The line of the first line of a rule's text in its module."""


def report_of(source: str, yaml: str = "", more: dict[str, bytes] | None = None) -> Report:
    files = {"some_rule.yml": spec(more=yaml), "some_rule.py": (HELPERS + dedent(source)).encode(), **(more or {})}
    return lint(files)


def findings(source: str, yaml: str = "", more: dict[str, bytes] | None = None) -> list[str]:
    """The findings of a pack with this rule, without place and remedy."""
    return [f"{each.id}: {each.message}" for each in report_of(source, yaml, more).findings]


def of_rule(body: str, more: dict[str, bytes] | None = None) -> list[str]:
    """The findings of a rule() with this body."""
    return findings(f"def rule(event):\n{indent(dedent(body), '    ')}\n    return True\n", more=more)


def other_rule(body: str) -> dict[str, bytes]:
    source = f"{HELPERS}def rule(event):\n{indent(dedent(body), '    ')}\n    return True\n"
    return {"other.yml": spec("Other", "other.py"), "other.py": source.encode()}


# --- the whole ----------------------------------------------------------------------------------------------------


def test_the_shipped_rules_have_no_finding_and_a_graph_of_their_markers() -> None:
    report = lint({
        path.relative_to(PACKS).as_posix(): path.read_bytes()
        for path in PACKS.rglob("*") if path.suffix in (".py", ".yml") and path.is_file()
    })  # fmt: skip
    assert list(map(str, report.findings)) == []
    assert [tuple(edge) for edge in report.edges] == [
        ("AWS.CloudTrail.ConsoleLogin.Marker", "aws.console_login:{...}", "AWS.CloudTrail.Logging.TamperAfterLogin"),
        ("AWS.CloudTrail.NewUser.Marker", "aws.new_user:{...}:{...}", "AWS.CloudTrail.NewUser.PrivilegedAction"),
    ]


def test_a_finding_says_where_what_and_what_to_do() -> None:
    report = report_of("def rule(event):\n    increment_counter(__name__)\n    return True\n")
    assert list(map(str, report.findings)) == [
        f"some_rule.py:{FIRST + 1}:5: no-expiry: increment_counter() sets no expiry: the key Some.Rule stays for 90 days: "
        "give epoch_seconds, event.event_time_epoch() + 3600 for an hour, or call set_key_expiration()"
    ]


def test_findings_are_in_order_of_their_places_and_each_is_said_once() -> None:
    keep = "def keep(key): increment_counter(key)\n"
    more = helper("store", HELPERS + keep) | other_rule("store.keep('Other:x')").copy()
    more["other.py"] = b"import store\ndef rule(event): store.keep('Other:x'); return True\n"
    report = report_of(
        "import store\ndef rule(event):\n  store.keep(__name__)\n  return True\n", "DedupPeriodMinutes: 1", more
    )
    assert [(each.id, each.place.path) for each in report.findings] == [
        ("dedup-period", "some_rule.yml"), ("no-expiry", "store.py"),
    ]  # fmt: skip


def test_a_file_that_cannot_be_parsed_hides_nothing_of_the_others() -> None:
    more = {"b.yml": spec("B", "b.py"), "b.py": b"def rule(:\n", "c.yml": b"a: ["}
    assert findings("def rule(event):\n    increment_counter(__name__)\n    return True\n", more=more) == [
        "no-expiry: increment_counter() sets no expiry: the key Some.Rule stays for 90 days"
    ]


def test_nesting_that_no_person_writes_ends_nothing() -> None:
    for terms in (100, 900):
        key = " + ".join(["'abc'"] * terms)
        more = {
            "b.yml": spec("B", "b.py"),
            "b.py": f"{HELPERS}def rule(event): return get_counter({key}) > 1\n".encode(),
        }
        found = findings("def rule(event):\n    increment_counter(__name__)\n    return True\n", more=more)
        assert found == ["no-expiry: increment_counter() sets no expiry: the key Some.Rule stays for 90 days"]


def test_every_lint_has_a_reason() -> None:
    assert all(reason_of(lint_id) for lint_id in (*LINTS, UNUSED_IGNORE))


# --- keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    ["__name__ + event.get('x')", "'Some.Rule' + event.get('x')", "'mine:' + event.get('x')", "unknown(event)",
     "unknown(event) + ':' + event.get('x')"],
)  # fmt: skip
def test_a_key_that_names_its_rule_or_could_do_so_passes(key: str) -> None:
    assert of_rule(f"increment_counter({key}, 1, 60)") == []


@pytest.mark.parametrize("key", ["event.get('x')", "event.get('x') + '-' + event.get('y')", "f'{event.get(\"x\")}:'"])
def test_a_key_in_which_nothing_names_the_rule_is_accused(key: str) -> None:
    (finding,) = of_rule(f"x = increment_counter({key}, 1, 60)")
    assert finding.startswith("key-prefix: nothing in the key {x}")


def test_a_name_of_a_helper_s_own_is_none_of_the_rule() -> None:
    more = helper("keys", "def key(event): return event.get('x')\n")
    assert findings("import keys\ndef rule(event): return get_counter(keys.key(event)) > 1\n", more=more) == [
        "key-prefix: nothing in the key {x} names the rule"
    ]


def test_a_key_that_two_rules_read_and_write_is_accused_in_both() -> None:
    body = "x = increment_counter(f'count:{event.get(\"x\")}', 1, 60)"
    assert sorted(of_rule(body, other_rule(body))) == [
        "key-prefix: the key count:{x} is also read and written by Other",
        "key-prefix: the key count:{x} is also read and written by Some.Rule",
    ]


def test_a_key_by_which_rules_share_state_on_purpose_passes() -> None:
    marker = "put_string_set(f'new:{event.get(\"x\")}', ['x'], 60)"
    assert of_rule(marker, other_rule("check_account_age(f'new:{event.get(\"y\")}')")) == []


def test_of_a_shared_key_without_a_name_only_the_writer_is_accused() -> None:
    key = "event.get('a') + '-' + event.get('b')"
    report = report_of(
        f"def rule(event):\n  put_string_set({key}, ['x'], 60)\n  return True\n",
        more=other_rule(f"check_account_age({key})"),
    )
    assert [(each.id, each.place.path) for each in report.findings] == [("key-prefix", "some_rule.py")]


def test_two_keys_in_one_evaluation_want_a_common_tag() -> None:
    two = "user = event.get('x')\nincrement_counter(f'abc:USER:a', 1, 60)\nincrement_counter(f'abc:USER:b', 1, 60)"
    assert of_rule(two.replace("USER", "{user}")) == [
        "no-common-tag: one evaluation uses the keys abc:{x}:a and abc:{x}:b"
    ]
    assert of_rule(two.replace("USER", "{{{user}}}")) == []


def test_tags_of_different_fields_are_not_common() -> None:
    (finding,) = of_rule("""
        one, two = event.get('x'), event.get('y')
        get_counter(f'abc:{{{one}}}')
        get_counter(f'def:{{{two}}}')
        """)
    assert finding == "no-common-tag: one evaluation uses the keys abc:{{x}} and def:{{y}}"


def test_keys_of_which_something_is_unknown_might_hold_a_tag_there() -> None:
    assert of_rule("get_counter('abc:' + unknown(event))\nget_counter('def:' + unknown(event))") == []
    assert of_rule("for item in unknown(event):\n  get_counter('abc:' + item)") == []


def test_one_key_spelled_twice_and_keys_of_ways_that_exclude_each_other_pass() -> None:
    assert of_rule("user = event.get('x')\nget_counter(f'abc:{user}')\nget_counter('abc:' + event.get('x'))") == []
    assert of_rule("if event.get('x'):\n  get_counter('abc')\n  return False\nget_counter('def')") == []


def test_a_key_for_each_element_of_a_loop_wants_a_common_tag() -> None:
    assert of_rule("for item in event.get('items', []):\n  get_counter(f'{__name__}:{item}')") == [
        "no-common-tag: one evaluation uses a key for each element of a loop: Some.Rule:{items[]}"
    ]
    assert of_rule("any(get_counter('abc:' + item) for item in event.get('items', []))") == [
        "no-common-tag: one evaluation uses a key for each element of a loop: abc:{items[]}"
    ]
    assert of_rule("for item in event.get('items', []):\n  get_counter(f'abc:{{{event.get(\"x\")}}}:{item}')") == []
    assert of_rule("for item in event.get('items', []):\n  get_counter(f'abc:{item}')\n  break") == []
    assert of_rule("for item in event.get('items', []):\n  pass\nget_counter(f'abc:{item}')") == []


# --- expiry and values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "increment_counter('abc', 1, 60)",
        "put_string_set('abc', ['x'], epoch_seconds=event.event_time_epoch() + 60)",
        "put_string_set('abc', ['x'], epoch_seconds=60 if event.get('x') else None)",
        "if add_to_string_set('abc', 'x'):\n  set_key_expiration('abc', 60)",
        "put_dictionary('abc', {}, 60)\nput_dictionary('abc', {'x': 1})",
        "key = unknown(event)\nincrement_counter(key)\nset_key_expiration(key, 60)",
        "evaluate_threshold('abc')",
        "get_string_set('abc')",
        "remove_from_string_set('abc', 'x')",
    ],
)
def test_a_write_whose_key_gets_an_expiry_passes(body: str) -> None:
    assert of_rule(body) == []


@pytest.mark.parametrize(
    ("body", "helper_name"),
    [
        ("increment_counter('abc')", "increment_counter"),
        ("put_string_set('abc', ['x'], None)", "put_string_set"),
        (
            "if event.get('x'):\n  add_to_string_set('abc', 'x')\n  return True\nset_key_expiration('def', 60)",
            "add_to_string_set",
        ),
        ("put_dictionary('abc', {})", "put_dictionary"),
    ],
)
def test_a_write_without_expiry_is_accused(body: str, helper_name: str) -> None:
    assert of_rule(body) == [f"no-expiry: {helper_name}() sets no expiry: the key abc stays for 90 days"]


@pytest.mark.parametrize(
    ("expiry", "message"),
    [
        ("0", "with an expiry of 0 the key has expired already"),
        ("-3600", "with an expiry of -3600 the key has expired already"),
        ("60 - 60", "with an expiry of 0 the key has expired already"),
        ("1700000000", "the expiry 1.7e+09 is one fixed moment, 2023-11-14"),
        ("event.event_time_epoch()", "the key expires at the event's own time, which is at once"),
        ("event.event_time_epoch() - 60", "the key expires at the event's own time, which is at once"),
    ],
)
def test_an_expiry_that_is_past_is_accused(expiry: str, message: str) -> None:
    assert of_rule(f"increment_counter('abc', 1, {expiry})") == [f"expired: increment_counter(): {message}"]
    assert of_rule(f"set_key_expiration('abc', {expiry})") == [f"expired: set_key_expiration(): {message}"]


@pytest.mark.parametrize(
    "expiry", ["60", "event.event_time_epoch() + 1", "event.get('x')", "0 if event.get('x') else 60", "'0'"]
)
def test_an_expiry_that_may_be_to_come_passes(expiry: str) -> None:
    assert of_rule(f"increment_counter('abc', 1, {expiry})") == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("put_string_set('abc', 'text', 60)", "put_string_set() with one text makes a set of its letters"),
        (
            "put_string_set('abc', f'{event.get(\"x\")}', 60)",
            "put_string_set() with one text makes a set of its letters",
        ),
        ("put_string_set('abc', ['x', None], 60)", "put_string_set() with None among the members raises TypeError"),
        ("add_to_string_set('abc', None, 60)", "add_to_string_set() with None raises TypeError"),
        (
            "add_to_string_set('abc', event.get('x'), 60)",
            "add_to_string_set() raises TypeError where event.get('x') is None",
        ),
        (
            "put_string_set('abc', ['y', event.deep_get('x', 'z')], 60)",
            "put_string_set() raises TypeError where event.deep_get('x', 'z') is None",
        ),
    ],
)
def test_what_is_no_member_of_a_set_is_accused(call: str, message: str) -> None:
    assert of_rule(call) == [f"set-value: {message}"]


@pytest.mark.parametrize(
    "call",
    [
        "put_string_set('abc', ['text'], 60)",
        "put_string_set('abc', event.get('x', []), 60)",
        "add_to_string_set('abc', 'text', 60)",
        "add_to_string_set('abc', event.get('x', ''), 60)",
        "add_to_string_set('abc', event.get('p_row_id'), 60)",
        "add_to_string_set('abc', str(event.get('x')), 60)",
        "if event.get('x'):\n  add_to_string_set('abc', event.get('x'), 60)",
        "put_string_set('abc', unknown(event), 60)",
        "put_string_set('abc', [], 60)",
    ],
)
def test_what_may_well_be_a_member_passes(call: str) -> None:
    assert of_rule(call) == []


# --- what is called ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("imports", "call", "name"),
    [
        ("import time", "time.time()", "time.time"),
        ("from time import time as now", "now()", "time.time"),
        ("import datetime as dt", "dt.datetime.utcnow()", "datetime.datetime.utcnow"),
        ("from datetime import datetime", "datetime.now()", "datetime.datetime.now"),
        ("from datetime import date", "date.today()", "datetime.date.today"),
        ("import time", "time.gmtime()", "time.gmtime"),
        ("import time", "time.strftime('%s')", "time.strftime"),
    ],
)
def test_a_look_at_the_clock_is_told_what_it_gives(imports: str, call: str, name: str) -> None:
    source = f"{imports}\ndef rule(event):\n    return {call} is not None\n"
    assert findings(source) == [f"wall-clock: {name}() gives the event's own time here, not the wall clock"]


def test_a_time_that_is_given_is_no_look_at_the_clock() -> None:
    assert (
        findings("""
        import time
        from datetime import datetime, timedelta
        def rule(event):
            return time.gmtime(5) and datetime.fromtimestamp(5) and time.strftime("%s", 5) and timedelta(5)
        """)
        == []
    )


@pytest.mark.parametrize(
    ("imports", "call", "name"),
    [
        ("import requests", "requests.get('x')", "requests.get"),
        ("from urllib.request import urlopen", "urlopen('x')", "urllib.request.urlopen"),
        ("import socket", "socket.gethostbyname('x')", "socket.gethostbyname"),
        ("import boto3", "boto3.client('s3')", "boto3.client"),
        ("import subprocess as s", "s.run('x')", "subprocess.run"),
        ("", "open('x')", "open"),
    ],
)
def test_what_reaches_outside_is_accused_where_functions_do_it(imports: str, call: str, name: str) -> None:
    source = f"{imports}\ndef rule(event):\n    return bool({call})\n"
    assert findings(source) == [
        f"outside-access: {name}() reaches outside: it may be called any number of times, and answer otherwise in a replay"
    ]


def test_names_that_only_look_like_it_pass() -> None:
    assert (
        findings("""
        import requests, socket
        DATA = requests.get("at load")
        def open(x): return x
        def rule(event):
            return open("x") and socket.inet_aton("1.2.3.4") and event.requests.get("x") and requests.exceptions.Timeout()
        """)
        == []
    )


@pytest.mark.parametrize(
    ("module", "change"),
    [
        ("SEEN = []", "SEEN.append(event.get('x'))"),
        ("SEEN = {}", "SEEN[event.get('x')] = 1"),
        ("SEEN = set()", "del SEEN['x']"),
        ("SEEN = 0", "global SEEN\nSEEN += 1"),
    ],
)
def test_a_global_that_functions_fill_is_told_that_it_does_not_last(module: str, change: str) -> None:
    source = f"{module}\ndef rule(event):\n{indent(change, '    ')}\n    return True\n"
    assert findings(source) == [
        "global-kept: what a function puts into the global SEEN is gone before the next evaluation"
    ]


def test_a_global_that_carries_something_from_rule_to_title_passes() -> None:
    assert (
        findings("""
        FOUND = {}
        def rule(event):
            global FOUND
            FOUND = {}
            FOUND["x"] = event.get("x")
            return True
        def title(event):
            seen = []
            seen.append(FOUND.get("x"))
            return str(seen)
        """)
        == []
    )


# --- titles and dedup strings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("event['x']", "raises KeyError where the event has no x"),
        ("f'{event[\"x\"]}'", "raises KeyError where the event has no x"),
        ("event.get('x').lower()", "raises where event.get('x') is None"),
        ("event.deep_get('y', 'x')[0]", "raises where event.deep_get('y', 'x') is None"),
        ("'a' + event.get('x')", "raises TypeError where event.get('x') is no text"),
        ("event.udm('x') + ':' + 'b'", "raises TypeError where event.udm('x') is no text"),
        ("str(int(event.get('x')))", "raises where event.get('x') is no number"),
    ],
)
def test_a_title_or_dedup_that_raises_on_a_missing_field_is_accused(expression: str, message: str) -> None:
    for name in ("title", "dedup"):
        assert findings(f"def rule(event): return True\ndef {name}(event): return {expression}\n") == [
            f"can-raise: {name}() {message}"
        ]


@pytest.mark.parametrize(
    "body",
    [
        "return event.get('x', '').lower()",
        "return event.deep_get('x', default='').lower()",
        "return f\"{event.get('x')}\"",
        "return event['x'] if 'x' in event else ''",
        "return event.get('x').lower() if event.get('x') else ''",
        "try:\n    return event['x']\nexcept KeyError:\n    return ''",
        "return str(int(event.get('x', 0)))",
        "return OTHER['x']",
    ],
)
def test_a_title_that_minds_the_missing_field_passes(body: str) -> None:
    assert findings(f"OTHER = {{}}\ndef rule(event): return True\ndef title(event):\n{indent(body, '    ')}\n") == []


def test_a_field_that_rule_looks_at_is_taken_to_be_there() -> None:
    assert (
        findings("def rule(event): return event.get('x') == 'y'\ndef title(event): return event['x'].lower()\n") == []
    )
    assert findings("def rule(event): return True\ndef alert_context(event): return event['x']\n") == []


# --- YAML ---------------------------------------------------------------------------------------------------------------


def test_a_threshold_without_title_and_dedup_counts_everybody_together() -> None:
    rule = "def rule(event): return True\n"
    report = report_of(rule, "Threshold: 5")
    assert [str(each.place) for each in report.findings] == ["some_rule.yml:7:1"]
    assert findings(rule, "Threshold: 5") == [
        "threshold-dedup: Threshold is 5 and all matches count together, whoever they are about"
    ]
    assert findings(rule, "Threshold: 1") == []
    assert findings(rule + DEDUP, "Threshold: 5") == []
    assert findings(rule + "from other import title\n", "Threshold: 5") == []


def test_a_simple_detection_groups_by_its_own_keys() -> None:
    simple = (
        b"AnalysisType: rule\nRuleID: S\nEnabled: true\nDetection: []\nLogTypes: [A]\nSeverity: Low\nThreshold: 3\n"
    )
    assert [each.id for each in lint({"s.yml": simple}).findings] == ["threshold-dedup"]
    assert lint({"s.yml": simple + b"GroupBy: [{Key: user}]\n"}).findings == ()


def test_a_dedup_period_below_five_is_said_to_be_taken_as_it_stands() -> None:
    rule = "def rule(event): return True\n"
    assert findings(rule, "DedupPeriodMinutes: 3") == [
        "dedup-period: DedupPeriodMinutes is 3: taken as it stands here, where Panther takes 5"
    ]
    assert "Panther ignores it" in findings(rule, "DedupPeriodMinutes: 0")[0]
    assert findings(rule, "DedupPeriodMinutes: 5") == []


MOCKED = """
    Tests:
      - Name: one
        ExpectedResult: true
        Log: {}
        Mocks:
          - objectName: NAME
            returnValue: x
    """


def test_a_mock_of_a_name_that_the_module_does_not_have_is_accused_at_its_place() -> None:
    report = report_of("def rule(event): return True\n", MOCKED.replace("NAME", "get_countr"))
    assert [str(each) for each in report.findings] == [
        "some_rule.yml:13:9: mock-name: the mock get_countr matches no name of some_rule.py: "
        "name what the module defines or imports, or remove the mock"
    ]


@pytest.mark.parametrize("name", ["get_counter", "rule", "LIST", "Kind", "os", "late"])
def test_a_mock_of_anything_that_the_module_binds_passes(name: str) -> None:
    source = """
        import os.path
        LIST = []
        class Kind: pass
        if LIST:
            from other import late
        def rule(event): return True
        """
    assert findings(source, MOCKED.replace("NAME", name)) == []
    assert findings("from other import *\ndef rule(event): return True\n", MOCKED.replace("NAME", name)) == []


def test_two_tests_of_one_name_are_accused() -> None:
    tests = "Tests:\n- {Name: a, ExpectedResult: false, Log: {}}\n- {Name: a, ExpectedResult: false, Log: {}}\n"
    assert findings("def rule(event): return False\n", tests) == [
        "duplicate-test: the test in line 8 has the name 'a' too"
    ]


def test_a_helper_that_no_module_imports_is_accused() -> None:
    used, unused = helper("used", "X = 1\n"), helper("unused", "X = 1\n")
    assert findings("from used import X\ndef rule(event): return True\n", more=used | unused) == [
        "unused-helper: no module imports the helper unused"
    ]


# --- silence ------------------------------------------------------------------------------------------------------------

ACCUSED = "def rule(event):\n{above}    increment_counter('abc'){beside}\n    return True\n"


def test_a_comment_beside_or_above_silences_what_it_names() -> None:
    comment = "# countersign: ignore[no-expiry] it is small"
    for source in (
        ACCUSED.format(above="", beside=f"  {comment}"),
        ACCUSED.format(above=f"    {comment}\n", beside=""),
        ACCUSED.format(above=f"    {comment}\n    # and that is why\n", beside=""),
    ):
        report = report_of(source)
        assert (report.findings, report.silenced) == ((), 1)


def test_a_comment_elsewhere_or_of_another_lint_silences_nothing_and_is_accused_itself() -> None:
    far = "# countersign: ignore[no-expiry] it is small\n" + ACCUSED.format(above="", beside="")
    assert [text.partition(":")[0] for text in findings(far)] == ["unused-ignore", "no-expiry"]

    other = ACCUSED.format(above="", beside="  # countersign: ignore[wall-clock] no")
    assert findings(other)[1:] == ["unused-ignore: wall-clock finds nothing here"]


def test_one_comment_may_name_several_lints() -> None:
    comment = "# countersign: ignore[no-expiry, key-prefix] a reason"
    source = f"def rule(event):\n    increment_counter(event.get('x'))  {comment}\n    return True\n"
    report = report_of(source)
    assert (report.findings, report.silenced) == ((), 2)


def test_a_comment_needs_a_reason_and_the_id_of_a_lint() -> None:
    assert findings(ACCUSED.format(above="", beside="  # countersign: ignore[no-expiry]")) == [
        "unused-ignore: the comment says not why"
    ]
    assert findings("def rule(event): return True  # countersign: ignore[no-such] x") == [
        "unused-ignore: there is no lint 'no-such'"
    ]
    assert findings("def rule(event): return True  # countersign: ignore[] x") == [
        "unused-ignore: the comment says not what it silences"
    ]


def test_comments_in_yaml_silence_too() -> None:
    rule = "def rule(event): return True\n"
    assert findings(rule, "Threshold: 5  # countersign: ignore[threshold-dedup] one for all is meant\n") == []
    assert findings(rule, "# countersign: ignore[dedup-period] as in the old system\nDedupPeriodMinutes: 1\n") == []
