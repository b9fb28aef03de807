"""A run goes on when its processes are killed and frozen, and what it leaves is what one process would."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from bench.chaos import chaos, deck


@pytest.mark.ray
def test_shards_coordinators_nodes_and_redis_are_hurt_and_nothing_differs(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")

    report = chaos(tmp_path, kills=4, seed=seed, events=60_000)

    assert report.problems == []
    assert sum(report.kills.values()) == 4
    assert {"node removed", "redis restarted"} <= report.kills.keys()


def test_all_that_can_happen_happens_in_a_long_run() -> None:
    drawn = Counter(deck(100, random.Random(1)))

    assert drawn == {"killed": 57, "frozen": 25, "node removed": 8, "redis restarted": 8, "redis unreachable": 2}
