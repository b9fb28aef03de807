"""`make compat`: the public pack passes test for test, where this machine has it, and the table counts right, anywhere."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from bench import compat
from bench.compat import FILTERED, POLICY, RULE, SCHEDULED, SIMPLE, Row, as_table, compatibility
from tests.public_pack import public_pack

# Three templates are among the public pack's detections. Two of them name a Python file that nobody has written, so there
# is nothing to run; pat calls them invalid.
EXPECTED = {
    RULE: Row(detections=867, tests=3_004, passed=3_003, failed=0, invalid=1),
    SCHEDULED: Row(detections=58, tests=112, passed=112, failed=0, invalid=0),
    POLICY: Row(detections=120, tests=391, passed=390, failed=0, invalid=1),
    SIMPLE: Row(detections=1, tests=2, passed=2, failed=0, invalid=0),
    FILTERED: Row(detections=12, tests=43, passed=42, failed=0, invalid=1),
}


def test_every_test_of_the_public_pack_passes(shared_data: Path) -> None:
    found = compatibility(public_pack(shared_data))

    assert found.rows == EXPECTED, "\n".join(found.reasons[:50])
    assert found.exit_code == 0


TESTS = """
    Tests:
      - Name: the one
        ExpectedResult: true
        EVENT: {action: open}
      - Name: the other
        ExpectedResult: false
        EVENT: {action: close}
"""


def write(directory: Path, name: str, yaml: str, source: str = "") -> None:
    event = "Resource" if "PolicyID" in yaml else "Log"
    (directory / f"{name}.yml").write_text(yaml.strip() + "\n" + dedent(TESTS).replace("EVENT", event))
    if source:
        (directory / f"{name}.py").write_text(source)


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """One detection of each kind; of its two tests a failing one fails one, and one is invalid."""
    source = "def rule(event):\n    return event.get('action') == 'open'\n"
    rule = "AnalysisType: rule\nRuleID: {0}\nEnabled: true\nLogTypes: [AWS.CloudTrail]\nSeverity: Low\n"
    write(tmp_path, "good", rule.format("Good") + "Filename: good.py", source)
    write(tmp_path, "failing", rule.format("Failing") + "Filename: failing.py", "def rule(event):\n    return True\n")
    write(tmp_path, "invalid", rule.format("Invalid") + "Filename: invalid.py\nUnknown: 1", source)
    write(
        tmp_path, "filtered",
        rule.format("Filtered") + "Filename: filtered.py\nInlineFilters:\n  - {KeyPath: action, Condition: Equals, Value: open}",
        "def rule(event):\n    return True\n",
    )  # fmt: skip
    write(tmp_path, "simple", rule.format("Simple") + "Detection:\n  - {Key: action, Condition: Equals, Value: open}")
    write(
        tmp_path, "scheduled",
        "AnalysisType: scheduled_rule\nRuleID: Scheduled\nEnabled: true\nScheduledQueries: [A Query]\nSeverity: Low\n"
        "Filename: scheduled.py",
        source,
    )  # fmt: skip
    write(
        tmp_path, "policy",
        "AnalysisType: policy\nPolicyID: Policy\nEnabled: true\nResourceTypes: [AWS.S3.Bucket]\nSeverity: Low\n"
        "Filename: policy.py",
        source.replace("rule(event)", "policy(resource)").replace("event.", "resource."),
    )  # fmt: skip
    return tmp_path


def test_each_kind_is_counted_by_itself_and_what_pat_does_not_run_once_more(pack: Path) -> None:
    found = compatibility(pack)

    assert found.rows == {
        RULE: Row(detections=5, tests=10, passed=7, failed=1, invalid=2),
        SCHEDULED: Row(detections=1, tests=2, passed=2),
        POLICY: Row(detections=1, tests=2, passed=2),
        SIMPLE: Row(detections=1, tests=2, passed=2),
        FILTERED: Row(detections=1, tests=2, passed=2),
    }
    assert found.exit_code == 1
    assert "failing.yml: the other: failed" in found.reasons
    assert "invalid.yml: 2 of its 2 tests could not be run" in found.reasons
    assert any(reason.startswith("invalid.yml:") and "Unknown" in reason for reason in found.reasons)


def test_the_table_is_printed_with_why_and_ends_as_the_tests_did(
    pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compat.main([str(pack)]) == 1

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["detections", "tests", "passed", "failed", "invalid"]
    assert lines[1].split() == ["rule", "5", "10", "7", "1", "2"]
    assert lines[4] == "among these"
    assert "    failing.yml: the other: failed" in lines

    for name in ("failing", "invalid"):
        (pack / f"{name}.yml").unlink()
    assert compat.main([str(pack)]) == 0


def test_thousands_are_grouped() -> None:
    table = as_table(compat.Compatibility({RULE: Row(867, 3004, 3003, 0, 1)}, 0, ()))

    assert table.splitlines()[1].split() == ["rule", "867", "3,004", "3,003", "0", "1"]


@pytest.mark.parametrize("arguments", [[], [""], ["no/such/directory"]])
def test_without_a_pack_the_exit_code_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert compat.main(arguments) == 2
    assert capsys.readouterr().err
