"""`countersign explain` says what a rule asks of events, which keys it touches, and why given events match or do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.explaining import explain
from tests.commands import PACKS, countersign
from tests.rules.making import spec
from tests.test_checking import pack

RULE = """from panther_detection_helpers.caching import increment_counter
NAMES = {"a", "b"}
def rule(event):
    if event.get("kind") not in NAMES or event.deep_get("who", "type") != "user":
        return False
    if event.get("odd"):
        raise ValueError("odd")
    return increment_counter(f"R:{event.get('user')}", epoch_seconds=60) >= 2
def title(event):
    return f"twice by {event.get('user')}"
"""
FITS = {
    "kind": "a",
    "who": {"type": "user"},
    "user": "eve",
    "p_log_type": "Some.Log",
    "p_event_time": "2024-01-01T00:00:00Z",
}
HEAD = [
    "R: r.py, for Some.Log; may read and write state",
    "",
    "Guard: it is evaluated only where all of these hold",
    "  who.type is 'user'",
    "  kind is 'a' or 'b'",
    "",
    "Keys, as far as they can be read off:",
    "  R:{user}: increment_counter() reads and writes, r.py:8",
]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return pack(tmp_path, r_yml=spec("R", "r.py"), r_py=RULE)


def explained(directory: Path, capsys: pytest.CaptureFixture[str], *events: dict[str, Any]) -> list[str]:
    """The lines about some events."""
    file = directory / "events.jsonl"
    file.write_text("\n".join(map(json.dumps, events)))
    explain(directory, "R", file)
    lines = capsys.readouterr().out.splitlines()
    assert lines[: len(HEAD)] == HEAD
    return lines[len(HEAD) + 1 :]


def test_a_rule_is_explained_by_its_guard_and_its_keys(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain(directory, "R", None)
    assert capsys.readouterr().out.splitlines() == HEAD


def test_a_guard_that_does_not_hold_is_shown_with_what_is_there(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explained(directory, capsys, {**FITS, "KIND": "x", "kind": 1, "who": {"Type": "user"}}) == [
        "Event 1 (Some.Log): not evaluated, no match: the guard does not hold",
        "  kind is 'a' or 'b', but kind is 1",
    ]


def test_events_are_evaluated_in_order_and_the_state_that_they_leave_is_shown(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explained(directory, capsys, FITS, FITS) == [
        "Event 1 (Some.Log): no match: rule() returned False at r.py:8",
        "  state: 'R:eve' written: counter 1, until 2024-01-01T00:01:00Z (before: nothing)",
        "",
        "Event 2 (Some.Log): match: rule() returned True at r.py:8",
        "  title: twice by eve",
        "  dedup: twice by eve",
        "  severity: LOW",
        "  state: 'R:eve' written: counter 2, until 2024-01-01T00:01:00Z (before: counter 1, until 2024-01-01T00:01:00Z)",
    ]


def test_an_error_of_the_rule_is_shown_with_its_place(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explained(directory, capsys, {**FITS, "odd": True}) == [
        "Event 1 (Some.Log): an error, no match",
        "  rule() raised ValueError: odd at r.py:7",
        "  state: not touched",
    ]


def test_an_event_of_another_log_type_is_not_evaluated(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explained(directory, capsys, {**FITS, "p_log_type": "Okta.SystemLog"}) == [
        "Event 1 (Okta.SystemLog): not evaluated: the rule is for Some.Log"
    ]


def test_an_inline_filter_that_keeps_an_event_out_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filters = "InlineFilters:\n  - {KeyPath: size, Condition: IsGreaterThan, Value: 5}\n"
    pack(tmp_path, r_yml=spec("R", "r.py", more=filters), r_py=RULE)

    lines = explained(tmp_path, capsys, {**FITS, "size": 3})
    assert lines[0] == "Event 1 (Some.Log): no match: the InlineFilters keep it out"


def test_a_rule_without_a_guard_says_why_and_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack(tmp_path, r_yml=spec("R", "r.py"), r_py="def rule(event):\n    return True\n")
    explain(tmp_path, "R", None)

    why = "it returns True before it has compared a field with constants (r.py:2)"
    assert f"Guard: none, it is evaluated on every event: {why}" in capsys.readouterr().out.splitlines()


def test_a_guard_that_names_no_text_is_said_to_have_every_line_parsed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = pack(tmp_path, r_yml=spec("R", "r.py"), r_py="def rule(event):\n    return event.get('readOnly') is True\n")

    explain(directory, "R", None)

    assert capsys.readouterr().out.splitlines()[2:5] == [
        "Guard: it is evaluated only where this holds",
        "  readOnly is true",
        "None of that is a text that could be looked for first: every line of the log type is parsed for it",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["R"], 0, ""),
        (["Q"], 2, "Q: the pack has no rule of that id"),
        (["Broken"], 1, "b.py:1: no Python"),
        (["R", "--event", "absent.json"], 3, "absent.json: no such file"),
        (["R", "--event", "r.py"], 3, "r.py:1: no JSON"),
        (["R", "--event", "number.json"], 3, "number.json: holds no event"),
    ],
)
def test_the_exit_code_tells_what_is_to_be_mended(directory: Path, arguments: list[str], code: int, said: str) -> None:
    pack(directory, b_yml=spec("Broken", "b.py"), b_py="def (", number_json="7")
    done = countersign("explain", directory, *arguments, cwd=directory)

    assert done.code == code
    assert said in done.stderr


def test_the_example_of_its_help_works() -> None:
    done = countersign("explain", PACKS, "AWS.CloudTrail.AccessDenied.Burst")

    assert done.code == 0
    assert "errorCode is 'AccessDenied'" in done.stdout
    assert "countersign explain rules/packs AWS.CloudTrail.AccessDenied.Burst" in " ".join(
        countersign("explain", "--help").stdout.split()
    )
