"""A run that ends in any way goes on where its last checkpoint was, and delivers nothing twice."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from bench import workload
from cluster.config import Config
from cluster.display import Display
from cluster.run import CannotRun, Options
from cluster.run import run as driver_run
from cluster.runtime.job import JobSpec, ProcessLost, Status
from cluster.runtime.local import LocalRuntime
from tests.commands import COUNTERSIGN, PACKS, ROOT, Done, actors, countersign, run

OUTPUTS = ("matches.jsonl", "alerts.jsonl", "errors.jsonl")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("workload")
    workload.write(directory, 60_000, 5)
    return directory / "logs"


def command(logs: Path, into: Path, store: object, runtime: str, shards: int) -> list[str]:
    into.mkdir(parents=True, exist_ok=True)
    arguments = [
        "run", logs, "--rules", PACKS, "--runtime", runtime, "--shards", shards, "--store", store, "--job", "j",
        "--alerts", into / "alerts.jsonl", "--matches", into / "matches.jsonl", "--errors", into / "errors.jsonl",
        "--epoch-events", 2000, "--checkpoint-interval", 0.2, "--json", "--quiet",
    ]  # fmt: skip
    return [*COUNTERSIGN, *map(str, arguments)]


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for the driver and everything it started, Ray included."""
    tree = []
    with suppress(psutil.NoSuchProcess):
        driver = psutil.Process(process.pid)
        tree = [driver, *driver.children(recursive=True)]
    for each in tree:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()


def finish(arguments: list[str]) -> Done:
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, timeout=120, check=False)
    result = Done(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert result.code == 0, result.stderr
    return result


def same(one: Path, other: Path) -> None:
    for output in OUTPUTS:
        assert (one / output).read_bytes() == (other / output).read_bytes(), f"{output} differs"


@pytest.mark.parametrize(
    ("runtime", "kind", "longest_s"),
    [("local", "directory", 6.0), pytest.param("ray", "redis", 11.0, marks=pytest.mark.ray)],
)
def test_ten_kills_at_random_moments_change_nothing(
    runtime: str, kind: str, longest_s: float, logs: Path, whole: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    store = tmp_path / "store" if kind == "directory" else request.getfixturevalue("redis_url")
    arguments = command(logs, tmp_path / "out", store, runtime, 2)
    survived = 0
    for _ in range(10):
        process = subprocess.Popen(
            arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=chance.uniform(0.1, longest_s))
        survived += process.poll() == 0
        assert process.poll() in (None, 0), process.stderr.read().decode() if process.stderr else ""
        kill_tree(process)
        assert process.stderr is not None
        process.stderr.close()
    summary = finish(arguments).summary

    assert summary["restarts"] + survived >= 4  # those killed before they took the job over do not count
    same(whole, tmp_path / "out")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("runtime", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_an_interrupted_run_checkpoints_exits_130_and_goes_on(
    runtime: str, number: signal.Signals, logs: Path, whole: Path, tmp_path: Path
) -> None:
    arguments = command(logs, tmp_path, tmp_path / "store", runtime, 2)
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(tmp_path / "matches.jsonl")
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)

    assert process.returncode == 130, stderr.decode()
    assert json.loads(stdout.splitlines()[-1])["interrupted"]
    summary = finish(arguments).summary
    assert 0 < summary["events"] < 60_000
    same(whole, tmp_path)


def test_a_run_that_is_stopped_while_its_runtime_starts_is_130_and_leaves_the_job_free(
    logs: Path, tmp_path: Path
) -> None:
    """Ray answers SIGTERM with sys.exit(15) while it starts."""
    options = Options([str(logs / "okta.jsonl")], [PACKS], store=str(tmp_path / "store"), job="j")

    def stopped(spec: JobSpec) -> LocalRuntime:
        raise SystemExit(15)

    for _ in range(2):
        with pytest.raises(CannotRun, match="nothing was read") as refused:
            driver_run(options, Config(), stopped, Display({}, live=False, human_alerts=None))
        assert refused.value.exit_code == 130


@pytest.mark.ray
@pytest.mark.parametrize("actor", ["ShardActor", "CoordinatorActor"])
def test_a_run_goes_on_by_itself_when_a_process_is_lost(actor: str, logs: Path, whole: Path, tmp_path: Path) -> None:
    arguments = command(logs, tmp_path, tmp_path / "store", "ray", 2)
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(tmp_path / "matches.jsonl")
    actors(process, actor)[0].kill()
    stdout, stderr = process.communicate(timeout=120)

    assert process.returncode == 0, stderr.decode()
    assert b"a process of the run was lost" in stderr
    same(whole, tmp_path)
    summary = json.loads(stdout.splitlines()[-1])
    assert summary["restarts"] == 1
    assert summary["matches"] == len((tmp_path / "matches.jsonl").read_bytes().splitlines())
    assert summary["events"] == 60_000


@pytest.mark.ray
def test_a_shard_that_is_lost_while_it_has_nothing_to_do_is_noticed_in_its_turn(logs: Path, tmp_path: Path) -> None:
    """Ten of them: more than are asked at a time."""
    lines = (logs / "okta.jsonl").read_bytes().splitlines(keepends=True)
    half = len(lines) // 2
    expected = run(logs / "okta.jsonl", into=tmp_path / "whole").summary
    arguments = command(logs, tmp_path, tmp_path / "store", "ray", 10)
    arguments[arguments.index(str(logs))] = "-"
    arguments += ["--log-type", "Okta.SystemLog"]
    process = subprocess.Popen(
        arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stderr is not None
    in_time = threading.Timer(120, process.kill)
    in_time.start()
    process.stdin.write(b"".join(lines[:half]))
    wait_for(tmp_path / "matches.jsonl")
    time.sleep(1)
    actors(process, "ShardActor")[-1].kill()
    told = iter(process.stderr.readline, b"")
    assert any(b"a process of the run was lost" in line for line in told)
    stdout, stderr = process.communicate(b"".join(lines[half:]), timeout=120)
    in_time.cancel()

    assert process.returncode == 0, stderr.decode()
    assert json.loads(stdout.splitlines()[-1])["events"] == expected["events"]
    assert (tmp_path / "matches.jsonl").read_bytes() == (tmp_path / "whole" / "matches.jsonl").read_bytes()


@pytest.mark.ray
def test_streams_get_nothing_twice_and_what_is_left_of_a_life_goes_on(
    logs: Path, whole: Path, tmp_path: Path, redis_url: str
) -> None:
    streams = {kind: f"{redis_url}?stream={kind}" for kind in ("matches", "alerts", "errors")}
    arguments = command(logs, tmp_path, redis_url, "ray", 2)
    for kind, uri in streams.items():
        arguments[arguments.index(f"--{kind}") + 1] = uri
    client: Any = redis.Redis.from_url(redis_url)

    def shards() -> dict[int, psutil.Process]:
        return {shard.pid: shard for shard in actors(process, "ShardActor")}

    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until_s = time.monotonic() + 60
    while not client.xlen("matches") and time.monotonic() < until_s:
        time.sleep(0.02)
    first, second = shards().values()
    first.kill()
    while not len(shards().keys() - {first.pid, second.pid}) and process.poll() is None:
        time.sleep(0.02)
    assert second.pid in shards()
    _, stderr = process.communicate(timeout=120)

    assert process.returncode == 0, stderr.decode()
    assert b"a process of the run was lost" in stderr
    for kind in streams:
        given = [fields[b"record"] for _, fields in client.xrange(kind)]
        assert given == (whole / f"{kind}.jsonl").read_bytes().splitlines()


class Frail(LocalRuntime):
    """Loses a process at its third poll, as long as there are lives to lose."""

    lives = 0
    last = 3

    def __init__(self, spec: JobSpec) -> None:
        super().__init__(spec)
        Frail.lives += 1
        self._polls = 0

    def poll(self, timeout_s: float) -> Status:
        self._polls += 1
        if self._polls == 3 and Frail.lives <= Frail.last:
            raise ProcessLost("a process was lost")
        return super().poll(0.05)


def test_what_the_terminal_has_seen_does_not_come_again_after_a_loss(
    logs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shown: list[list[str]] = []
    for last in (0, 3):
        monkeypatch.setattr(Frail, "last", last)
        monkeypatch.setattr(Frail, "lives", 0)
        face = io.StringIO()
        options = Options(
            [str(logs / "okta.jsonl")],
            [PACKS],
            store=str(tmp_path / f"store-{last}"),
            epoch_events=50,
            checkpoint_interval_s=0.0,
        )
        summary = driver_run(options, Config(), Frail, Display({}, live=False, human_alerts=face))
        assert summary.record["restarts"] == last
        shown.append(face.getvalue().splitlines())

    assert shown[0] == shown[1] != []


def test_losses_without_a_checkpoint_in_between_end_the_run_with_what_to_do(logs: Path, tmp_path: Path) -> None:
    class Doomed(LocalRuntime):
        def poll(self, timeout_s: float) -> Status:
            raise ProcessLost("a process was lost")

    options = Options([str(logs / "okta.jsonl")], [PACKS], store=str(tmp_path / "store"), job="j")

    with pytest.raises(CannotRun, match="without a checkpoint in between") as ended:
        driver_run(options, Config(), Doomed, Display({}, live=False, human_alerts=None))
    assert ended.value.exit_code == 4


def wait_for(path: Path, timeout_s: float = 60.0) -> None:
    """Until something stands in a file."""
    until_s = time.monotonic() + timeout_s
    while not path.exists() or path.stat().st_size == 0:
        assert time.monotonic() < until_s, f"nothing in {path}"
        time.sleep(0.02)


def test_a_job_that_is_done_delivers_nothing_more_and_takes_new_files(logs: Path, tmp_path: Path) -> None:
    def go(*files: Path) -> Done:
        return run(*files, "--job", "j", into=tmp_path)

    first = go(logs / "okta.jsonl")
    before = (tmp_path / "matches.jsonl").read_bytes()
    again = go(logs / "okta.jsonl")
    more = go(logs / "okta.jsonl", logs / "github.jsonl")

    assert first.summary["events"] > 0
    assert again.summary["events"] == 0
    assert more.summary["events"] > 0
    after = (tmp_path / "matches.jsonl").read_bytes()
    assert after.startswith(before)
    positions = [json.loads(line)["position"] for line in after.splitlines()]
    assert positions == sorted(positions)


def test_another_number_of_shards_goes_on_just_as_well(logs: Path, whole: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(command(logs, tmp_path, tmp_path / "store", "local", 3), cwd=ROOT)
    wait_for(tmp_path / "matches.jsonl")
    kill_tree(process)
    finish(command(logs, tmp_path, tmp_path / "store", "local", 1))

    same(whole, tmp_path)


def test_fresh_starts_over(logs: Path, tmp_path: Path) -> None:
    first = run(logs / "okta.jsonl", "--job", "j", into=tmp_path)
    before = (tmp_path / "matches.jsonl").read_bytes()
    again = run(logs / "okta.jsonl", "--job", "j", "--fresh", into=tmp_path)

    assert again.summary["events"] == first.summary["events"]
    assert (tmp_path / "matches.jsonl").read_bytes() == before


def test_a_changed_input_is_refused(logs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "okta.jsonl"
    copy.write_bytes((logs / "okta.jsonl").read_bytes())
    run(copy, "--job", "j", into=tmp_path)
    copy.write_bytes(copy.read_bytes() + b"{}\n")

    done = run(copy, "--job", "j", into=tmp_path, code=3)
    assert "okta.jsonl: it grew from " in done.stderr


def test_results_of_an_input_that_no_checkpoint_knows_any_more_are_refused(logs: Path, tmp_path: Path) -> None:
    """With a further input they would have been taken for those of another one."""
    run(logs / "okta.jsonl", "--job", "j", into=tmp_path)
    manifests = next((tmp_path / "store").rglob("manifests"))
    before = set(manifests.iterdir())
    run(logs / "okta.jsonl", logs / "github.jsonl", "--job", "j", into=tmp_path)
    for later in set(manifests.iterdir()) - before:
        later.unlink()
    held = (tmp_path / "matches.jsonl").read_bytes()

    done = run(logs, "--job", "j", into=tmp_path, code=4)

    assert "holds results of an input that the newest readable checkpoint does not know" in done.stderr
    assert (tmp_path / "matches.jsonl").read_bytes() == held


def test_a_missing_input_of_the_job_is_refused(logs: Path, tmp_path: Path) -> None:
    run(logs / "okta.jsonl", logs / "github.jsonl", "--job", "j", into=tmp_path)

    assert "github.jsonl" in run(logs / "okta.jsonl", "--job", "j", into=tmp_path, code=3).stderr


def test_an_output_that_lost_records_is_refused(logs: Path, tmp_path: Path) -> None:
    run(logs, "--job", "j", into=tmp_path)
    lines = (tmp_path / "matches.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "matches.jsonl").write_bytes(b"".join(lines[:-1]))

    assert "holds fewer records" in run(logs, "--job", "j", into=tmp_path, code=4).stderr


def test_an_existing_output_of_nobody_s_job_is_refused(logs: Path, tmp_path: Path) -> None:
    run(logs / "okta.jsonl", "--job", "one", into=tmp_path)

    assert "alerts.jsonl: exists already" in run(logs / "okta.jsonl", "--job", "two", into=tmp_path, code=4).stderr


def test_a_job_that_runs_is_not_taken_over(logs: Path, tmp_path: Path) -> None:
    arguments = command(logs, tmp_path, tmp_path / "store", "local", 1)
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        wait_for(tmp_path / "matches.jsonl")
        second = subprocess.run(arguments, cwd=ROOT, capture_output=True, check=False)
    finally:
        kill_tree(process)

    assert second.returncode == 4
    assert b"another process is running it" in second.stderr


def test_changed_rules_go_on_after_a_clean_end_and_are_refused_after_a_kill(logs: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    for name in ("mfa_fatigue", "password_spray"):
        for suffix in (".py", ".yml"):
            source = PACKS / "okta" / (name + suffix)
            (rules / source.name).write_bytes(source.read_bytes())
    run(logs / "okta.jsonl", "--job", "j", into=tmp_path, rules=rules)
    (rules / "mfa_fatigue.py").write_text((rules / "mfa_fatigue.py").read_text() + "\n# changed\n")

    assert run(logs / "okta.jsonl", "--job", "j", into=tmp_path, rules=rules).summary["events"] == 0

    (rules / "mfa_fatigue.py").write_text((rules / "mfa_fatigue.py").read_text() + "\n# changed again\n")
    with (tmp_path / "alerts.jsonl").open("ab") as file:
        file.write(b'{"position":[1,0]}\n')  # as a run leaves it that is killed between two checkpoints
    killed = run(logs / "okta.jsonl", "--job", "j", into=tmp_path, rules=rules, code=2)

    assert "its rules changed, and " in killed.stderr


def test_a_job_without_a_name_leaves_nothing_behind(logs: Path, tmp_path: Path) -> None:
    done = countersign(
        "run", logs / "okta.jsonl", "--rules", PACKS, "--runtime", "local", "--quiet", "--json", cwd=tmp_path
    )

    assert done.code == 0, done.stderr
    assert os.listdir(tmp_path) == []
