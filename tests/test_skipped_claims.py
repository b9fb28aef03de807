"""The table at the end of `make test`, by running pytest on a small file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

SUITE = """
import pytest

@pytest.mark.parametrize("store", ["directory", "redis"])
def test_a_snapshot_survives_a_restart(store):
    pytest.skip("no server here")

def test_it_is_on_time():
    pass
"""


def closing_words(suite: str, directory: Path) -> str:
    (directory / "pytest.ini").write_text("[pytest]")  # not our own configuration
    (directory / "test_small.py").write_text(suite)
    command = [sys.executable, "-m", "pytest", "-p", "tests.skipped_claims", "-p", "no:cacheprovider", str(directory)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout.partition("claims skipped")[2]


def test_what_was_skipped_is_listed_once_with_its_reason(tmp_path: Path) -> None:
    words = closing_words(SUITE, tmp_path)
    (row,) = [line for line in words.splitlines() if "a snapshot survives a restart" in line]
    assert [cell.strip() for cell in row.split("│")[2:4]] == ["2", "no server here"]
    assert "it is on time" not in words


def test_where_nothing_was_skipped_it_says_so(tmp_path: Path) -> None:
    assert "every claim was tested" in closing_words(SUITE.replace("pytest.skip", "print"), tmp_path)
