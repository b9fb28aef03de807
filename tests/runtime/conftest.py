"""A job, as a runtime gets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.runtime.job import JobSpec
from tests.test_checkpoints import about_to_start


@pytest.fixture
def spec(logs: Path, tmp_path: Path) -> JobSpec:
    return about_to_start(logs, tmp_path)
