"""The demo tells the truth: it fails when an alert is missing or one is unexpected."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.demo import compare
from bench.stories import Expected
from bench.workload import Planted
from tests.commands import PACKS, ROOT

EVENTS = 2000
STORY = Planted(
    "password guessed", "gsuite.jsonl", 1, "2026-03-02T00:00:00Z", (Expected("Some.Rule", "sam", alerts=2),)
)


def demo(directory: Path, rules: Path = PACKS, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.demo", "--events", str(EVENTS), "--runtime", "local"]
    command += ["--directory", str(directory), "--rules", str(rules), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.usefixtures("redis_url")  # skips where there is no redis-server
def test_the_demo_finds_what_was_planted(tmp_path: Path) -> None:
    done = demo(tmp_path / "demo")

    assert (done.returncode, done.stderr.count("missing"), done.stderr.count("unexpected")) == (0, 0, 0), done.stderr
    assert "password guessed" in done.stdout
    assert '"string_set":["198.51.100.7","203.0.113.66"]' in done.stdout
    assert "first alert" in done.stdout
    assert "events/s on 2 shards" in done.stdout


@pytest.mark.usefixtures("redis_url")
def test_a_rule_taken_out_of_the_pack_is_missed(tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    shutil.copytree(PACKS, pack)
    (pack / "gsuite" / "login_failures_then_success.py").unlink()
    (pack / "gsuite" / "login_failures_then_success.yml").unlink()

    done = demo(tmp_path / "demo", pack)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "demo: missing: password guessed: no alert of GSuite.Login.FailuresThenSuccess for simple.sam@example.com"
    )
    assert done.stderr.count("missing") == 1


def test_too_few_events_are_a_usage_error(tmp_path: Path) -> None:
    done = demo(tmp_path / "demo", PACKS, "--events", "10")

    assert done.returncode == 2
    assert "ask for that many at least, not 10" in done.stderr


def test_an_alert_too_few_is_missing() -> None:
    [outcome], unexpected = compare([STORY], [{"rule_id": "Some.Rule", "dedup": "sam"}])

    assert (len(outcome.alerts), outcome.missing) == (1, ("Some.Rule for sam",))
    assert unexpected == []


def test_an_alert_too_many_and_one_of_another_are_unexpected() -> None:
    alerts = [
        {"rule_id": "Some.Rule", "dedup": dedup, "number": n} for n, dedup in enumerate(("sam", "sam", "sam", "tom"))
    ]

    [outcome], unexpected = compare([STORY], alerts)

    assert (len(outcome.alerts), outcome.missing) == (2, ())
    assert [alert["number"] for alert in unexpected] == [2, 3]
