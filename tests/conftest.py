"""Fixtures for all tests: real logs, a real redis-server, and a core that cannot reach Ray."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bench import workload
from bench.redis_server import RedisServerMissing, start_redis
from tests.commands import run

ROOT = Path(__file__).resolve().parent.parent
PURE = (ROOT / "tests" / "rules", ROOT / "tests" / "core")


@pytest.fixture(autouse=True)
def _pure_tests_cannot_import_ray(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules and machines must not need a cluster: where they are tested, `import ray` fails."""
    if any(request.path.is_relative_to(directory) for directory in PURE):
        monkeypatch.setitem(sys.modules, "ray", None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real logs beside the repository."""
    directory = ROOT.parent / "shared" / "data"
    if not directory.is_dir():
        pytest.skip("the real logs (../shared/data) are not on this machine")
    return directory


@pytest.fixture(scope="session")
def _redis_server() -> Iterator[str]:
    try:
        with start_redis() as url:
            yield url
    except RedisServerMissing as error:
        pytest.skip(str(error))


@pytest.fixture
def redis_url(_redis_server: str) -> str:
    """The URL of a real and empty Redis server."""
    with redis.Redis.from_url(_redis_server) as client:
        client.flushall()
    return _redis_server


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs of the demo's workload. A module that needs more of them has a fixture of its own under this name."""
    directory = tmp_path_factory.mktemp("workload")
    workload.write(directory, 3_000, 5)
    return directory / "logs"


@pytest.fixture(scope="module")
def whole(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run over `logs` without interruptions leaves."""
    directory = tmp_path_factory.mktemp("whole")
    run(logs, into=directory)
    return directory
