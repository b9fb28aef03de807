"""The comparison with pat compares the same: what both print is read alike, and a test that came out otherwise voids it."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench import environments, pat
from bench.__main__ import main

PRINTED = """\
Some.Rule
\t[{green}PASS{end}] is one
\t\t[{green}PASS{end}] [rule] true
\t[{red}FAIL{end}] is another
\t\t[{red}FAIL{end}] [rule] ValueError: [PASS] not a test

--------------------------
Failed Tests Summary
\tSome.Rule
\t\t['is another:rule']

--------------------------
Test Summary
\tPath: rules
\tPassed: 0
\tSkipped: 2
\tFailed: 1
\tInvalid: 0
"""


@pytest.fixture
def no_pat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine from which PyPI cannot be reached."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.mark.parametrize(("green", "red", "end"), [("", "", ""), ("\x1b[32m", "\x1b[31m", "\x1b[0m")])
def test_tests_and_counts_are_read_with_colours_and_without(green: str, red: str, end: str) -> None:
    report = pat.read_report(1.5, PRINTED.format(green=green, red=red, end=end))

    assert report.tests == Counter({("is one", "PASS"): 1, ("is another", "FAIL"): 1})
    assert report.detections == {"Passed": 0, "Skipped": 2, "Failed": 1, "Invalid": 0}


def report(*tests: tuple[str, str]) -> pat.Report:
    return pat.Report(1.0, Counter(tests), {})


def test_what_only_we_run_is_no_difference() -> None:
    pat.check(report(("a", "PASS")), report(("a", "PASS"), ("b", "FAIL")))


@pytest.mark.parametrize(
    "ours", [(), (("a", "FAIL"), ("a", "PASS")), (("a", "PASS"),)], ids=["absent", "other verdict", "fewer"]
)
def test_a_test_of_pats_that_is_absent_or_other_here_voids_the_times(ours: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(RuntimeError, match="the first: 'a', PASS with pat"):
        pat.check(report(("a", "PASS"), ("a", "PASS")), report(*ours))


@pytest.mark.parametrize("code", ["print('Passed: 0')", "print('\\t[PASS] a'); raise SystemExit(2)"])
def test_a_side_that_ran_no_test_or_broke_off_voids_the_times(code: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no result"):
        pat.time_side([sys.executable, "-c", code], tmp_path)


def test_the_smoke_without_pat_says_so_and_times_our_side(
    no_pat: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"

    assert main(["pat", "--smoke", "--cache", str(tmp_path / "cache"), "--json", str(figures)]) == 0

    printed = capsys.readouterr().out
    assert "pat is left out, only our side is timed: pat-1.11.1 cannot be installed: " in printed
    ours = json.loads(figures.read_text())["figures"]["countersign"]
    assert ours["tests"] == 2 * pat.SMOKE_RULES
    assert ours["detections"]["Passed"] == pat.SMOKE_RULES
    assert ours["detections"]["Failed"] == 0
    assert ours["median_s"] > 0


def test_without_pat_the_measurement_itself_fails(
    no_pat: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = pat.small_pack(tmp_path / "pack")

    assert main(["pat", "--pack", str(pack), "--cache", str(tmp_path / "cache")]) == 1
    assert "pat-1.11.1 cannot be installed" in capsys.readouterr().err


def test_without_a_pack_there_is_nothing_to_measure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pat"]) == 1
    assert "give --pack DIR" in capsys.readouterr().err


def test_an_interrupted_installation_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / f"pat-{pat.VERSION}"
    home.mkdir()
    made: list[str] = []
    monkeypatch.setattr(environments, "_install", lambda _, command: made.append(command[-1]))

    executable = pat.ENVIRONMENT.program(tmp_path, "pat")
    assert made == [str(home), pat.PACKAGES[-1]]
    assert pat.ENVIRONMENT.program(tmp_path, "pat") == executable
    assert len(made) == 2

    (home / "complete").unlink()
    pat.ENVIRONMENT.program(tmp_path, "pat")
    assert len(made) == 4


def test_a_benchmark_without_a_pack_takes_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["state", "--pack", "rules"])
    assert refused.value.code == 2
    assert "state takes no --pack" in capsys.readouterr().err
