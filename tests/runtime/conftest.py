"""A job, as a runtime gets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.runtime.job import JobSpec
from cluster.runtime.local import LocalRuntime
from tests.test_checkpoints import Crash, go, in_directory


@pytest.fixture
def spec(logs: Path, tmp_path: Path) -> JobSpec:
    """A job that is about to start."""
    seen: list[JobSpec] = []

    def starting(spec: JobSpec) -> LocalRuntime:
        seen.append(spec)
        raise Crash

    with pytest.raises(Crash):
        go(logs, tmp_path, in_directory(tmp_path / "store"), starting)
    return seen[0]
