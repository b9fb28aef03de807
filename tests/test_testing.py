"""`countersign test`: isolation, workers, flags, exit codes. What a test means is tested in tests/rules/test_selftest.py."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest

from cluster.testworkers import Order, concerned, divide, run_order
from rules.pack import load_pack, read_files
from tests.commands import COUNTERSIGN, countersign

TESTS = """\
- {Name: one, ExpectedResult: true, Log: {n: 1}}
- {Name: two, ExpectedResult: false, Log: {n: 2}}
- {Name: three, ExpectedResult: false, Log: {n: 3}}
"""
GOOD = "def rule(event): return event['n'] == 1\n"


def add(pack: Path, rule_id: str, source: str = GOOD, more: str = "", tests: str = TESTS) -> None:
    """Write a rule; `more` are lines of its YAML."""
    lines = f"AnalysisType: rule\nRuleID: {rule_id}\nEnabled: true\nFilename: {rule_id}.py\nLogTypes: [Some.Log]\n"
    lines += f"Severity: Low\n{dedent(more)}"
    lines += f"Tests:\n{indent(dedent(tests), '  ')}" if tests else ""
    (pack / f"{rule_id}.yml").write_text(lines)
    (pack / f"{rule_id}.py").write_text(dedent(source))


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """With two good rules: one before, one after what a test adds, in order of their ids."""
    directory = tmp_path / "pack"
    directory.mkdir()
    add(directory, "A.Good")
    add(directory, "Z.Good")
    return directory


def found(pack: Path, **settings: Any) -> dict[str, list[str]]:
    """`rule test` -> its problems, in the order of the results."""
    order = Order(read_files([pack]), **{"time_limit_s": 0.3, **settings})
    return {f"{result.rule_id} {result.name}": result.problems for result in run_order(order).results}


def in_json(*arguments: object) -> Any:
    return json.loads(countersign("test", *arguments, "--format", "json").stdout)


# --- isolation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("raise ValueError('no')", "rule raised ValueError: no"),
        ("import sys; sys.exit(3)", "rule raised SystemExit: 3"),
        ("raise KeyboardInterrupt", "rule raised KeyboardInterrupt: "),
        ("import os; os._exit(3)", "the test did not come back: it ended the process (exit code 3)"),
        ("import os; os.kill(os.getpid(), 9)", "the test did not come back: it ended the process (signal 9)"),
        ("import os; os.closerange(3, 256)", "the test did not come back: it closed files that are not its own"),
        ("import sys; sys.stdout.close()", None),
        ("import os; os.close(1); os.close(0)", None),
        ("return rule(event)", "rule raised RecursionError: maximum recursion depth exceeded"),
    ],
)
def test_whatever_a_rule_does_fails_its_own_test_only(pack: Path, workers: int, body: str, problem: str | None) -> None:
    add(pack, "M.Bad", f"def rule(event):\n    if event['n'] == 2: {body}\n    return event['n'] == 1\n")

    results = found(pack, workers=workers)

    assert list(results) == [
        f"{rule} {test}" for rule in ("A.Good", "M.Bad", "Z.Good") for test in ("one", "two", "three")
    ]
    said = results.pop("M.Bad two")
    assert set(map(tuple, results.values())) == {()}
    if problem is not None:
        assert [each[: len(problem)] for each in said] == [problem]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("[0 for _ in iter(int, 1)]", "rule raised TimeLimit: longer than 0.3 s: mend the loop, or raise --time-limit"),
        ("import re; re.match('(a+)+$', 'a' * 40 + 'b')", "rule raised TimeLimit: longer than 0.3 s: "),
        (
            "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]); os.read(os.pipe()[0], 1)",
            "the test did not come back: longer than 0.3 s, and it could not be interrupted",
        ),
    ],
)
def test_a_rule_that_never_comes_back_is_ended(pack: Path, body: str, problem: str) -> None:
    add(
        pack,
        "M.Bad",
        f"import os, signal\ndef rule(event):\n    if event['n'] == 2: {body}\n    return event['n'] == 1\n",
    )

    results = found(pack)

    assert [each[: len(problem)] for each in results.pop("M.Bad two")] == [problem]
    assert len(results) == 8
    assert set(map(tuple, results.values())) == {()}


def test_a_loop_that_swallows_every_exception_is_ended_too(pack: Path) -> None:
    body = (
        "    while event['n'] == 2:\n        try:\n            while True: pass\n        except BaseException: pass\n"
    )
    add(pack, "M.Bad", f"def rule(event):\n{body}    return event['n'] == 1\n")

    results = found(pack)

    assert results.pop("M.Bad two")
    assert set(map(tuple, results.values())) == {()}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("raise SystemExit(1)", "M.Bad.py:1: loading raises SystemExit: 1: mend the module"),
        ("while True: pass", "M.Bad.py:1: loading raises TimeLimit: longer than 0.3 s: "),
        (
            "import os; os._exit(4)",
            "M.Bad.py:1: loading raises RuntimeError: the module does not come back: it ended the process",
        ),
        (
            "import os; os.kill(os.getpid(), 11)",
            "M.Bad.py:1: loading raises RuntimeError: the module does not come back: ",
        ),
    ],
)
def test_a_module_that_cannot_be_loaded_is_invalid_and_the_others_are_tested(
    pack: Path, line: str, problem: str
) -> None:
    add(pack, "M.Bad", f"{line}\n{GOOD}")

    whole = run_order(Order(read_files([pack]), time_limit_s=0.3))

    assert [str(each)[: len(problem)] for each in whole.problems] == [problem]
    assert [each.id for each in whole.detections] == ["A.Good", "Z.Good"]
    assert [result.passed for result in whole.results] == [True] * 6


def test_what_rules_write_to_the_standard_output_does_not_get_into_the_report(pack: Path) -> None:
    add(
        pack,
        "M.Loud",
        "import os\ndef rule(event):\n    os.write(1, b'raw')\n    print('loud')\n    return event['n'] == 1\n",
    )

    done = countersign("test", pack, "--format", "json")

    assert [test["printed"] for test in json.loads(done.stdout)["results"]["M.Loud"]] == ["loud\n"] * 3


def test_what_a_rule_reads_from_the_standard_input_is_nothing(pack: Path) -> None:
    add(pack, "M.Reads", "import sys\ndef rule(event): return sys.stdin.read() == '' and event['n'] == 1\n")

    done = subprocess.run([*COUNTERSIGN, "test", pack], input=b"typed", capture_output=True, check=False)

    assert done.returncode == 0, done.stdout.decode()


# --- workers ------------------------------------------------------------------------------------------------------


def test_the_report_is_the_same_with_any_number_of_workers(pack: Path) -> None:
    for number in range(20):
        add(pack, f"Rule.{number}", GOOD.replace("1", "2") if number % 7 == 3 else GOOD)

    one, *others = (countersign("test", pack, "--workers", workers).stdout for workers in (1, 2, 5))

    assert others == [one, one]
    assert "Failed: 3" in one


def test_shares_hold_every_detection_once_and_everything_else_each() -> None:
    rule = b"AnalysisType: rule\nRuleID: %s\n"
    files = {f"{number}.yml": rule % str(number).encode() for number in range(9)}
    files |= {
        "helper.py": b"",
        "model.yml": b"AnalysisType: datamodel\n",
        "flow.yml": b"{AnalysisType: rule, RuleID: Flow}\n",
    }

    shares = divide(files, 3)

    assert len(shares) == 3
    for path in files:
        holders = sum(path in share for share in shares)
        assert holders == (1 if path[0].isdigit() else 3), path


def test_detections_that_name_each_other_or_have_one_id_are_in_one_share() -> None:
    rule = b"AnalysisType: rule\nRuleID: %s\n%s"
    files = {f"{number}.yml": rule % (f"Rule {number}".encode(), b"") for number in range(40)}
    files["derived.yml"] = rule % (b"Derived", b"BaseDetection: Rule 39\n")
    files["tests.yml"] = rule % (b"'With: quotes'", b"Tests:\n  - AlsoRun: [Rule 1, 'Rule 20']\n")
    files["twice.yml"] = rule % (b'"Rule 38"', b"")

    shares = divide(files, 4)

    def share_of(path: str) -> int:
        (number,) = (number for number, share in enumerate(shares) if path in share)
        return number

    assert share_of("derived.yml") == share_of("39.yml")
    assert share_of("tests.yml") == share_of("1.yml") == share_of("20.yml")
    assert share_of("twice.yml") == share_of("38.yml")
    assert len(shares) > 1


def test_a_rule_that_is_in_every_share_is_tested_once(pack: Path) -> None:
    flow = "{AnalysisType: rule, RuleID: Flow, Enabled: true, Filename: A.Good.py, LogTypes: [L], Severity: Low, Tests: [%s]}"
    (pack / "flow.yml").write_text(flow % "{Name: t, ExpectedResult: true, Log: {n: 1}}")
    (pack / "escaped.yml").write_text(
        (pack / "Z.Good.yml").read_text().replace("RuleID: Z.Good", r'RuleID: "\x5A.Good"')
    )
    for number in range(10):
        add(pack, f"Rule.{number}")

    whole = run_order(Order(read_files([pack]), workers=4))

    assert [result.rule_id for result in whole.results].count("Flow") == 1
    assert len(whole.results) == 37
    assert ["is also in" in str(problem) for problem in whole.problems] == [True]


def test_a_duplicate_id_and_a_base_in_another_folder_are_seen_by_any_number_of_workers(pack: Path) -> None:
    for number in range(10):
        add(pack, f"Rule.{number}")
    (pack / "twice.yml").write_text((pack / "A.Good.yml").read_text())
    (pack / "derived.yml").write_text("AnalysisType: rule\nRuleID: Derived\nBaseDetection: Z.Good\nSeverity: High\n")

    whole = run_order(Order(read_files([pack]), workers=4))

    assert [str(problem) for problem in whole.problems] == [
        "twice.yml:2: RuleID A.Good is also in A.Good.yml: give each rule an id of its own"
    ]
    assert [result.passed for result in whole.results if result.rule_id == "Derived"] == [True] * 3


# --- flags --------------------------------------------------------------------------------------------------------


def test_a_directory_is_named_once_as_an_argument_or_as_an_option(pack: Path) -> None:
    assert countersign("test", "--path", pack).stdout == countersign("test", pack).stdout
    assert countersign("test").code == 2
    assert countersign("test", pack, "--path", pack).code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--filter", "RuleID=A.Goof"], "no detection matches RuleID=A.Goof: RuleID may be A.Good"),
        (["--filter", "RuleId=A.Good"], "'RuleId' is no key of a detection: write RuleID"),
        (["--filter", "RuleID"], "no filter: write KEY=VALUE"),
        (["--test-names", "ones"], "no test is called ones: near to it: 'one'"),
        (["--ignore-files", "A.Goof.yml"], "the pack has no such file: write A.Good.yml"),
        (["--format", "yaml"], "is no format"),
        (["--workers", "-1"], "--workers"),
        (["--time-limit", "0"], "--time-limit"),
    ],
)
def test_what_cannot_be_meant_is_exit_2_and_says_what_is_near(pack: Path, arguments: list[str], message: str) -> None:
    done = countersign("test", pack, *arguments)

    assert done.code == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert done.stdout == ""


def test_a_directory_that_is_not_there_or_has_nothing_to_test_is_exit_2(tmp_path: Path) -> None:
    (tmp_path / "helper.yml").write_text("AnalysisType: global\nGlobalID: helper\nFilename: helper.py\n")
    (tmp_path / "helper.py").write_text("")

    nothing, nowhere = countersign("test", tmp_path), countersign("test", tmp_path / "rulez")

    assert (nothing.code, "no rules, scheduled rules or policies in there" in nothing.stderr) == (2, True)
    assert (nowhere.code, "no such directory" in nowhere.stderr) == (2, True)


def test_what_is_valid_is_tested_and_what_is_not_is_exit_1_with_its_place(pack: Path) -> None:
    add(pack, "M.Bad", more="Extra: 1\n")

    done = countersign("test", pack)

    assert done.code == 1
    assert "M.Bad.yml:7: unknown key 'Extra'" in done.stdout
    assert "Passed: 2\n\tSkipped: 0\n\tFailed: 0\n\tInvalid: 1\n\tTests: 6, 0 failed" in done.stdout
    assert countersign("test", pack, "--ignore-extra-keys").code == 0
    assert countersign("test", pack, "--ignore-files", "M.Bad.yml").code == 0
    assert countersign("test", pack, "--ignore-files", pack / "M.Bad.yml").code == 0


def test_filters_choose_detections_and_must_all_hold(pack: Path) -> None:
    add(pack, "M.High", more="Tags: [Mine]\n")

    assert list(in_json(pack, "--filter", "RuleID=A.Good,M.High")["results"]) == ["A.Good", "M.High"]
    assert list(in_json(pack, "--filter", "RuleID!=A.Good", "--filter", "Tags!=mine")["results"]) == ["Z.Good"]


def test_test_names_choose_tests(pack: Path) -> None:
    report = in_json(pack, "--test-names", "two", "--test-names", "three", "--filter", "RuleID=A.Good")

    assert [test["name"] for test in report["results"]["A.Good"]] == ["two", "three"]


def test_too_few_tests_fail_a_detection(pack: Path) -> None:
    add(pack, "M.One", tests="- {Name: one, ExpectedResult: true, Log: {n: 1}}\n")
    add(
        pack,
        "N.Alike",
        tests="- {Name: a, ExpectedResult: true, Log: {n: 1}}\n- {Name: b, ExpectedResult: true, Log: {n: 1}}\n",
    )
    add(pack, "O.None", tests="")

    assert in_json(pack)["failed"] == {}
    assert list(in_json(pack, "--minimum-tests", 1)["failed"]) == ["O.None"]
    assert list(in_json(pack, "--minimum-tests", 2)["failed"]) == ["M.One", "N.Alike", "O.None"]
    assert countersign("test", pack, "--minimum-tests", 1).code == 1


def test_disabled_detections_are_tested_unless_they_are_skipped(pack: Path) -> None:
    yaml = pack / "A.Good.yml"
    yaml.write_text(yaml.read_text().replace("Enabled: true", "Enabled: false"))

    assert in_json(pack)["skipped"] == []
    report = in_json(pack, "--skip-disabled-tests")
    assert (report["skipped"], list(report["results"])) == (["A.Good"], ["Z.Good"])
    assert (report["summary"]["total"], report["summary"]["skipped"]) == (2, 1)


def test_destinations_are_checked_against_the_available_ones(pack: Path) -> None:
    add(pack, "M.Sends", GOOD + "def destinations(event): return ['slack']\n")

    assert countersign("test", pack).code == 0
    assert countersign("test", pack, "--available-destination", "slack", "--available-destination", "mail").code == 0
    assert in_json(pack, "--available-destination", "mail")["failed"] == {"M.Sends": ["one:destinations"]}


def test_failures_come_last_where_results_are_sorted(pack: Path) -> None:
    add(pack, "M.Fails", "def rule(event): return True\n")

    assert list(in_json(pack)["results"]) == ["A.Good", "M.Fails", "Z.Good"]
    assert list(in_json(pack, "--sort-test-results")["results"]) == ["A.Good", "Z.Good", "M.Fails"]


def test_only_failures_are_shown_where_that_is_asked_for(pack: Path) -> None:
    add(pack, "M.Fails", "def rule(event): return event['n'] < 3\n")

    done = countersign("test", pack, "--show-failures-only")

    assert "A.Good" not in done.stdout
    assert "[PASS] one" not in done.stdout
    assert "\t[FAIL] two\n" in done.stdout
    assert "Passed: 2" in done.stdout


def test_a_run_takes_the_same_filters(pack: Path, tmp_path: Path) -> None:
    add(pack, "M.Off", more="Status: Experimental\n")
    yaml = pack / "M.Off.yml"
    yaml.write_text(yaml.read_text().replace("Enabled: true", "Enabled: false"))
    (pack / "pack.yml").write_text("AnalysisType: pack\nPackID: Mine\nPackDefinition:\n  IDs: [Z.Good, M.Off]\n")
    (tmp_path / "log.jsonl").write_text('{"n": 1, "p_log_type": "Some.Log", "p_event_time": "2026-03-02 10:00:00"}\n')

    def matching(*arguments: str, code: int = 0) -> Any:
        done = countersign(
            "run", tmp_path / "log.jsonl", "--rules", pack, "--runtime", "local", "--store", tmp_path / "store",
            "--matches", "-", "--quiet", "--json", *arguments,
        )  # fmt: skip
        assert done.code == code, done.stderr
        return [json.loads(line).get("rule_id") for line in done.stdout.splitlines()[:-1]] or done.stderr

    assert matching() == ["A.Good", "Z.Good"]
    assert matching("--filter", "PackID=mine") == ["Z.Good"]
    assert matching("--filter", "RuleID!=Z.Good", "--filter", "Severity=Low") == ["A.Good"]
    assert "RuleID may be A.Good" in matching("--filter", "RuleID=A.Goof", code=2)
    assert "disabled: enable one" in matching("--filter", "RuleID=M.Off", code=2)
    assert "write RuleID" in matching("--filter", "ruleid=M.Off", code=2)


# --- without mocks ------------------------------------------------------------------------------------------------

REMEMBERS = """\
from panther_detection_helpers.caching import get_counter
def rule(event): return int(get_counter("k")) == 9
"""


def test_tests_with_mocks_run_again_on_real_state_and_those_that_differ_are_reported(pack: Path) -> None:
    add(
        pack,
        "M.Mocked",
        REMEMBERS,
        tests="""\
        - {Name: differs, ExpectedResult: true, Log: {}, Mocks: [{objectName: get_counter, returnValue: "9"}]}
        - {Name: agrees, ExpectedResult: false, Log: {}, Mocks: [{objectName: get_counter, returnValue: "8"}]}
        """,
    )

    done = countersign("test", pack, "--no-mocks")
    report = in_json(pack, "--no-mocks")

    assert done.code == 0
    assert "2 tests with mocks ran on real state too, 1 came out otherwise" in done.stdout
    assert "differs: fails without mocks" in done.stdout
    assert [(each["rule_id"], each["name"], each["mocked"], each["passed"]) for each in report["without_mocks"]] == [
        ("M.Mocked", "differs", True, False)
    ]
    assert "without_mocks" not in in_json(pack)


def test_a_mock_of_a_name_that_the_module_lacks_is_a_failure_and_a_warning(pack: Path) -> None:
    add(
        pack,
        "M.Mocked",
        tests="- {Name: t, ExpectedResult: true, Log: {n: 1}, Mocks: [{objectName: x, returnValue: y}]}\n",
    )

    done = countersign("test", pack)

    assert done.code == 1
    assert "'t:mocks'" in done.stdout
    assert "M.Mocked: t: Mocks names x: the module has no such name" in done.stderr


# --- formats ------------------------------------------------------------------------------------------------------


def test_json_counts_detections_and_tests(pack: Path) -> None:
    add(pack, "M.Fails", "def rule(event): return event['n'] < 3\ndef title(event): return 'T'\n")
    add(pack, "N.Invalid", "def rule(event) return True\n")

    report = in_json(pack)

    assert report["summary"] == {
        "path": str(pack), "total": 4, "passed": 2, "failed": 1, "invalid": 1, "skipped": 0, "tests_total": 9, "tests_passed": 8,
    }  # fmt: skip
    assert report["failed"] == {"M.Fails": ["two:rule"]}
    assert list(report["invalid"]) == ["N.Invalid.py"]
    assert report["results"]["M.Fails"][0] == {
        "name": "one",
        "passed": True,
        "errored": False,
        "functions": [
            {"name": "rule", "status": "PASS", "output": "true"},
            {"name": "title", "status": "PASS", "output": "T"},
            {"name": "dedup", "status": "PASS", "output": "T"},
        ],
    }


def test_junit_is_xml_whose_numbers_add_up_whatever_rules_say(pack: Path) -> None:
    add(pack, "M.Fails", "def rule(event):\n    print('<\\x00>')\n    raise ValueError('<&\"\\x00\\ud800')\n")
    add(pack, "N.Invalid", "def rule(event) return True\n")
    add(pack, "O.Wrong", "def rule(event): return True\n")

    done = countersign("test", pack, "--format", "junit")
    root = ET.fromstring(done.stdout)

    assert done.code == 1
    cases = root.findall("testsuite/testcase")
    assert [root.get(name) for name in ("tests", "failures", "errors")] == ["13", "2", "4"]
    assert (len(cases), len(root.findall(".//failure")), len(root.findall(".//error"))) == (13, 2, 4)
    for suite in root:
        assert suite.get("tests") == str(len(suite))
    (error, *_) = root.findall("testsuite[@name='M.Fails']//error")
    assert error.get("message") == 'rule raised ValueError: <&"\ufffd?'


def test_colours_are_for_terminals_only(pack: Path) -> None:
    primary, secondary = pty.openpty()
    done = subprocess.run([*COUNTERSIGN, "test", pack], stdout=secondary, stderr=subprocess.DEVNULL, check=False)
    os.close(secondary)
    shown = os.read(primary, 1 << 16)
    os.close(primary)

    assert done.returncode == 0
    assert b"\033[32m[PASS]\033[0m one" in shown
    assert "\033" not in countersign("test", pack).stdout


# --- watching -----------------------------------------------------------------------------------------------------


class Watched:
    """`countersign test --watch` in a process of its own, with its output in files."""

    def __init__(self, pack: Path, directory: Path) -> None:
        self._out, self._err = directory / "out", directory / "err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen([*COUNTERSIGN, "test", str(pack), "--watch"], stdout=out, stderr=err)
        self._seen = 0

    def next_report(self) -> str:
        """What it printed of the next round."""
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s and self.process.poll() is None:
            text = self._out.read_text()[self._seen :]
            end = text.find("\tTests: ")
            if end >= 0 and "\n" in text[end:]:
                length = text.index("\n", end) + 1
                self._seen += length
                return text[:length]
            time.sleep(0.05)
        raise AssertionError(f"no report: {self._out.read_text()} {self._err.read_text()}")

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


def test_watching_tests_again_what_a_change_concerns_until_interrupted(pack: Path, tmp_path: Path) -> None:
    watched = Watched(pack, tmp_path)
    try:
        assert "Tests: 6, 0 failed" in watched.next_report()
        add(pack, "A.Good", GOOD + "def title(event): return 'changed'\n")
        changed = watched.next_report()
        assert ("[title] changed" in changed, "Z.Good" in changed) == (True, False)
        (pack / "A.Good.py").write_text("def rule(event) return\n")
        assert "Invalid: 1" in watched.next_report()
        assert watched.interrupt() == 130
    finally:
        watched.process.kill()
        watched.process.wait()


def test_a_change_concerns_the_detections_that_use_the_file(pack: Path) -> None:
    add(pack, "B.Imports", "from helper import it\ndef rule(event): return it(event)\n")
    add(pack, "C.Names", tests="- {Name: t, ExpectedResult: true, AlsoRun: [B.Imports], Log: {n: 1}}\n")
    for name, source in (
        ("helper", "import deeper\ndef it(event): return event['n'] == deeper.ONE\n"),
        ("deeper", "ONE = 1\n"),
    ):
        (pack / f"{name}.yml").write_text(f"AnalysisType: global\nGlobalID: {name}\nFilename: {name}.py\n")
        (pack / f"{name}.py").write_text(source)
    (pack / "derived.yml").write_text("AnalysisType: rule\nRuleID: D\nBaseDetection: A.Good\nSeverity: High\n")
    loaded = load_pack(read_files([pack]))
    everything = [rule.id for rule in loaded.everything]

    def ids(*changed: str) -> list[str]:
        return [rule.id for rule in concerned(loaded, frozenset(changed))]

    assert ids("Z.Good.yml") == ["Z.Good"]
    assert ids("A.Good.yml") == ids("A.Good.py") == ["A.Good", "D"]
    assert ids("derived.yml") == ["D"] or ids("derived.yml") == ["A.Good", "D"]
    assert ids("B.Imports.py") == ids("helper.py") == ids("deeper.py") == ["B.Imports", "C.Names"]
    assert ids("gone.py") == []
    assert ids("helper.yml") == everything


# --- interrupts ---------------------------------------------------------------------------------------------------


def test_an_interrupt_ends_the_tests_and_leaves_no_process_behind(pack: Path) -> None:
    source = """\
        import os
        def rule(event):
            with open(event["at"], "w") as file:
                file.write(str(os.getpid()))
            while True: pass
        """
    add(pack, "M.Slow", source, tests=f"- {{Name: t, ExpectedResult: true, Log: {{at: {pack / 'pid'}}}}}\n")
    process = subprocess.Popen(
        [*COUNTERSIGN, "test", str(pack)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline_s = time.monotonic() + 20
    while not ((pack / "pid").exists() and (pack / "pid").read_text()) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)

    assert process.returncode == 130, err
    assert (out, "interrupted" in err) == ("", True)
    with pytest.raises(ProcessLookupError):
        os.kill(int((pack / "pid").read_text()), 0)
