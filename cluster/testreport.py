"""What `countersign test` says: text as this format's users know it, JSON, or JUnit XML (PANTHER_FORMAT 3 and 5).

A Report is plain data; each format is a function from it to text. Counters are per detection, as pat's, with the number of tests
beside them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rules.errors import Problem
from rules.selftest import TestResult

FORMATS = ("text", "json", "junit")

_RULE = "-" * 26

_TOO_FEW = "minimum tests"
"""The name under which too few tests are reported, as if that were one."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that a run of tests came to."""

    path: str
    results: Mapping[str, list[TestResult]]
    """The tests that ran, by id of their detection; a detection without any has an empty list."""
    too_few: Mapping[str, str] = field(default_factory=dict)
    """Detections that have fewer tests than was asked for, with what they lack."""
    skipped: tuple[str, ...] = ()
    invalid: tuple[Problem, ...] = ()
    no_mocks: bool = False
    """Tests with mocks ran a second time without."""

    @property
    def failed(self) -> dict[str, list[str]]:
        """`<test>:<function>` of what failed, by id of the detection."""
        failed: dict[str, list[str]] = {}
        for detection_id, tests in self.results.items():
            names = [f"{test.name}:{where}" for test in tests for where in test.failed]
            if detection_id in self.too_few:
                names.append(_TOO_FEW)
            if names:
                failed[detection_id] = names
        return failed

    @property
    def invalid_files(self) -> dict[str, list[Problem]]:
        files: dict[str, list[Problem]] = {}
        for problem in self.invalid:
            files.setdefault(problem.location.path, []).append(problem)
        return files

    @property
    def differing(self) -> list[tuple[TestResult, TestResult]]:
        """(with mocks, without) of the tests that one passes and the other does not."""
        both = [(test, test.unmocked) for tests in self.results.values() for test in tests if test.unmocked is not None]
        return [(mocked, real) for mocked, real in both if mocked.passed is not real.passed]

    @property
    def counts(self) -> dict[str, int]:
        """Of detections, and of tests."""
        tests = [test for tests in self.results.values() for test in tests]
        failed, invalid, skipped = len(self.failed), len(self.invalid_files), len(self.skipped)
        return {
            "total": len(self.results) + invalid + skipped,
            "passed": len(self.results) - failed,
            "failed": failed,
            "invalid": invalid,
            "skipped": skipped,
            "tests_total": len(tests),
            "tests_passed": sum(test.passed for test in tests),
        }

    @property
    def is_good(self) -> bool:
        return not self.failed and not self.invalid


# --- text ----------------------------------------------------------------------------------------------------------


def as_text(report: Report, *, failures_only: bool, colour: bool) -> str:
    lines: list[str] = []
    for detection_id, tests in report.results.items():
        shown = [test for test in tests if not (failures_only and test.passed)]
        if shown:
            lines.append(detection_id)
            for test in shown:
                lines += _test_lines(test, colour)
            lines.append("")
    lines += _section("Failed Tests Summary", _failed_lines(report))
    lines += _section("Skipped Tests Summary", [f"\t{name}" for name in report.skipped])
    lines += _section("Invalid Tests Summary", _invalid_lines(report))
    if report.no_mocks:
        lines += _section("Without Mocks Summary", _no_mocks_lines(report))
    counts = report.counts
    lines += [_RULE, "Test Summary", f"\tPath: {report.path}"]
    lines += [f"\t{name.title()}: {counts[name]}" for name in ("passed", "skipped", "failed", "invalid")]
    lines.append(f"\tTests: {counts['tests_total']}, {counts['tests_total'] - counts['tests_passed']} failed")
    return "\n".join(lines) + "\n"


def _section(title: str, lines: list[str]) -> list[str]:
    return [_RULE, title, *lines, ""] if lines else []


def _mark(passed: bool, colour: bool) -> str:
    text = "[PASS]" if passed else "[FAIL]"
    return f"\033[{32 if passed else 31}m{text}\033[0m" if colour else text


def _test_lines(test: TestResult, colour: bool) -> Iterator[str]:
    yield from test.printed.splitlines()
    yield f"\t{_mark(test.passed, colour)} {test.name}"
    for name, passed, output in test.functions:
        yield f"\t\t{_mark(passed, colour)} [{name}] {output}"
    for problem in test.problems:
        yield f"\t\t{_mark(False, colour)} {problem}"


def _failed_lines(report: Report) -> list[str]:
    lines: list[str] = []
    for detection_id, names in report.failed.items():
        lines += [f"\t{detection_id}", f"\t\t{names}"]
        if detection_id in report.too_few:
            lines.append(f"\t\t{report.too_few[detection_id]}")
    return lines


def _invalid_lines(report: Report) -> list[str]:
    lines: list[str] = []
    for path, problems in report.invalid_files.items():
        lines += [f"\t{path}", *(f"\t\t{problem}" for problem in problems)]
    return lines


def _no_mocks_lines(report: Report) -> list[str]:
    ran = sum(test.unmocked is not None for tests in report.results.values() for test in tests)
    lines = [f"\t{ran} tests with mocks ran on real state too, {len(report.differing)} came out otherwise"]
    for mocked, real in report.differing:
        outcome = "fails" if mocked.passed else "passes"
        lines += [f"\t{mocked.rule_id}", f"\t\t{mocked.name}: {outcome} without mocks"]
        lines += [f"\t\t\t{problem}" for problem in real.problems]
    return lines


# --- JSON ----------------------------------------------------------------------------------------------------------


def as_json(report: Report, *, failures_only: bool) -> str:
    record: dict[str, Any] = {
        "summary": {"path": report.path, **report.counts},
        "results": {
            detection_id: tests
            for detection_id, results in report.results.items()
            if (tests := [_test_record(test) for test in results if not (failures_only and test.passed)])
        },
        "failed": report.failed,
        "invalid": {path: list(map(str, problems)) for path, problems in report.invalid_files.items()},
        "skipped": list(report.skipped),
    }
    if report.no_mocks:
        record["without_mocks"] = [
            {"rule_id": mocked.rule_id, "mocked": mocked.passed, **_test_record(real)}
            for mocked, real in report.differing
        ]
    return json.dumps(record, indent=2) + "\n"


def _test_record(test: TestResult) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": test.name,
        "passed": test.passed,
        "errored": test.errored,
        "functions": [
            {"name": name, "status": "PASS" if passed else "FAIL", "output": output}
            for name, passed, output in test.functions
        ],
    }
    if test.problems:
        record["problems"] = test.problems
    if test.printed:
        record["printed"] = test.printed
    return record


# --- JUnit ---------------------------------------------------------------------------------------------------------


def as_junit(report: Report, *, failures_only: bool) -> str:
    """One suite a detection; what is invalid is a suite with an error. The numbers count what is written."""
    suites = [_suite(name, tests, report, failures_only) for name, tests in report.results.items()]
    suites += [_invalid_suite(path, problems) for path, problems in report.invalid_files.items()]
    suites += [_skipped_suite(name) for name in report.skipped]
    body = "".join(suites)
    numbers = (
        f'tests="{body.count("<testcase ")}" failures="{body.count("<failure ")}" errors="{body.count("<error ")}"'
    )
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<testsuites name="countersign test" {numbers}>\n{body}</testsuites>\n'
    )


def _suite(name: str, tests: list[TestResult], report: Report, failures_only: bool) -> str:
    cases = [_case(test) for test in tests if not (failures_only and test.passed)]
    if name in report.too_few:
        cases.append(_case_element(name, _TOO_FEW, 0.0, _element("failure", report.too_few[name], "")))
    return _suite_element(name, cases) if cases else ""


def _case(test: TestResult) -> str:
    inner = ""
    if test.problems:
        inner = _element("error" if test.errored else "failure", test.problems[0], "\n".join(test.problems))
    if test.printed:
        inner += f"      <system-out>{_xml(test.printed)}</system-out>\n"
    return _case_element(test.rule_id, test.name, test.seconds, inner)


def _invalid_suite(path: str, problems: list[Problem]) -> str:
    text = list(map(str, problems))
    return _suite_element(path, [_case_element(path, "valid", 0.0, _element("error", text[0], "\n".join(text)))])


def _skipped_suite(name: str) -> str:
    return _suite_element(name, [_case_element(name, "enabled", 0.0, "      <skipped/>\n")])


def _suite_element(name: str, cases: list[str]) -> str:
    body = "".join(cases)
    numbers = (
        f'tests="{len(cases)}" failures="{body.count("<failure ")}" errors="{body.count("<error ")}"'
        f' skipped="{body.count("<skipped/>")}"'
    )
    return f"  <testsuite name={_attribute(name)} {numbers}>\n{body}  </testsuite>\n"


def _case_element(suite: str, name: str, seconds: float, inner: str) -> str:
    opening = f'    <testcase classname={_attribute(suite)} name={_attribute(name)} time="{seconds:.6f}"'
    return f"{opening}>\n{inner}    </testcase>\n" if inner else f"{opening}/>\n"


def _element(tag: str, message: str, text: str) -> str:
    return f"      <{tag} message={_attribute(message)}>{_xml(text)}</{tag}>\n"


_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""What XML 1.0 cannot hold, whatever way it is written."""


_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#13;"})
_ATTRIBUTE_ESCAPES = _ESCAPES | str.maketrans({"\n": "&#10;", "\t": "&#9;"})
# xml.sax.saxutils would do, but it imports what opens URLs, which takes longer than testing a small pack.


def _xml(text: str) -> str:
    return _NO_XML.sub("\ufffd", text).translate(_ESCAPES)


def _attribute(text: str) -> str:
    shown = _NO_XML.sub("\ufffd", text).translate(_ATTRIBUTE_ESCAPES)
    return f'"{shown}"'
