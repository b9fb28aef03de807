"""A run goes on when its processes are killed and frozen, and what it leaves is what one process would."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench.chaos import chaos


@pytest.mark.ray
def test_shards_and_coordinators_are_killed_and_frozen_and_nothing_differs(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")

    report = chaos(tmp_path, kills=4, seed=seed, events=60_000)

    assert report.problems == []
    assert sum(report.kills.values()) >= 4
