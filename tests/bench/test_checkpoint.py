"""The benchmark of checkpoints measures checkpoints, at a scale that a test can pay for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.__main__ import main


def test_the_smoke_run_measures_pauses_bytes_and_throughput(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"

    assert main(["checkpoint", "--smoke", "--cache", str(tmp_path), "--json", str(figures)]) == 0

    report = json.loads(figures.read_text())["figures"]
    assert min(report["pause_ms"]["during"]) > 0
    assert 2 < report["bytes_per_dirty_counter"] < 40
    assert len(report["throughput_loss"]) == 1
    assert "stands still for" in capsys.readouterr().out
