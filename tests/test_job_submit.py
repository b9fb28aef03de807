"""`ray job submit` against a real head that demands a token: what the README tells the owner of a cluster to type."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent  # not resolved: the virtual environment's, where `ray` is too
START_TIMEOUT_S = 60.0
SUBMIT_TIMEOUT_S = 60.0

pytestmark = pytest.mark.ray


@dataclass(frozen=True)
class Head:
    """A running head: where its job server is, and the environment of somebody who holds its token."""

    url: str
    environment: Mapping[str, str]

    def submit(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Submit the working tree with a command, as from a shell; .gitignore keeps .venv and caches out of it."""
        options = ["--address", self.url, "--working-dir", ".", "--log-color", "false"]
        return subprocess.run(
            [str(BIN / "ray"), "job", "submit", *options, "--", *command],
            env={**self.environment, **environment},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SUBMIT_TIMEOUT_S,
        )


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ExitStack() as cleanup:
        # Not tmp_path: Ray puts Unix sockets below it, whose paths may have 107 bytes.
        home = Path(tempfile.mkdtemp(prefix="head-"))
        cleanup.callback(shutil.rmtree, home, ignore_errors=True)
        environment = _environment(home)
        subprocess.run(
            [BIN / "ray", "get-auth-token", "--generate"], env=environment, check=True, capture_output=True, timeout=60
        )
        port, dashboard, client = _free_ports(3)
        log = cleanup.enter_context((home / "head.log").open("w+"))
        process = subprocess.Popen(
            [
                *(BIN / "ray", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=2"),
                *(f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
                *("--dashboard-agent-listen-port=0", "--object-store-memory=100000000", f"--temp-dir={home}"),
            ],
            env=environment,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        cleanup.callback(_stop, process)
        _wait_for_port(dashboard, process, home / "head.log")
        yield Head(f"http://127.0.0.1:{dashboard}", environment)


def _environment(home: Path) -> dict[str, str]:
    """Nothing of the caller's Ray; the token lies where Ray looks by default, below HOME."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "HOME": str(home), "PATH": f"{BIN}{os.pathsep}{kept['PATH']}", "RAY_AUTH_MODE": "token"}


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"the head did not start:\n{log.read_text()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop this head only: `ray stop` would stop every Ray on the machine, that of another test included."""
    process.terminate()  # `ray start --block` takes its children down
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # workers are in groups of their own; they end when their raylet does


def _denials(path: Path) -> None:
    """Ten denied calls of one user within an hour, and one of another."""
    with path.open("w") as file:
        for minute in range(11):
            user = "eve" if minute else "bob"
            event = {
                "eventVersion": "1.08",
                "eventTime": f"2024-03-01T10:{minute:02}:00Z",
                "eventSource": "iam.amazonaws.com",
                "eventName": "ListUsers",
                "eventID": f"00000000-0000-0000-0000-{minute:012}",
                "awsRegion": "us-east-1",
                "sourceIPAddress": "203.0.113.7",
                "errorCode": "AccessDenied",
                "userIdentity": {"type": "IAMUser", "arn": f"arn:aws:iam::123456789012:user/{user}"},
            }
            print(json.dumps(event), file=file)


def test_a_job_submitted_with_the_token_raises_the_alert(head: Head, tmp_path: Path) -> None:
    _denials(tmp_path / "trail.jsonl")
    alerts = tmp_path / "alerts.jsonl"
    job = head.submit(
        *("python", "-m", "cluster", "run", str(tmp_path / "trail.jsonl"), "--rules", "rules/packs"),
        *("--log-type", "AWS.CloudTrail", "--address", "auto", "--alerts", str(alerts), "--json", "--quiet"),
    )
    assert job.returncode == 0, job.stdout
    (alert,) = [json.loads(line) for line in alerts.read_text().splitlines()]
    assert alert["rule_id"] == "AWS.CloudTrail.AccessDenied.Burst"
    assert alert["dedup"] == "arn:aws:iam::123456789012:user/eve"


@pytest.mark.parametrize(
    "credentials",
    [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "0" * 64}],
    ids=["no token", "a wrong token"],
)
def test_without_the_token_nothing_is_run(head: Head, tmp_path: Path, credentials: dict[str, str]) -> None:
    job = head.submit("touch", str(tmp_path / "ran"), **credentials)
    assert job.returncode != 0
    assert "authentication" in job.stdout.lower(), job.stdout
    assert not (tmp_path / "ran").exists()
