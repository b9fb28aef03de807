"""The memory that a key may take, held to at a scale that a test can pay for."""

from __future__ import annotations

import json
import sys

import pytest

from bench.state import LIMITS, run


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_state_takes_no_more_than_its_share_of_a_bare_dict(capsys: pytest.CaptureFixture[str]) -> None:
    figures = json.loads(json.dumps(run(smoke=True)))

    assert {kind: figures[kind]["ratio"] <= limit for kind, limit in LIMITS.items()} == {"counters": True, "sets": True}
    table = capsys.readouterr().out
    assert all(kind in table for kind in LIMITS)
    assert "over the limit" not in table
