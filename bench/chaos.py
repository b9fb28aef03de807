"""`make chaos KILLS=100`: kills and freezes the processes of a run on Ray until so many are through, and compares what it wrote.

Shards and coordinators get SIGKILL, or SIGSTOP and SIGCONT, at random moments; the redis-server is restarted under them. The
rules count, collect, and touch keys of several shards. Alerts, matches, errors and the final state must be those of one process.
Exit codes: 0 all the same, 1 something differs or a run ended by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench import workload
from bench.redis_server import start_redis

ROOT = Path(__file__).resolve().parent.parent
OUTPUTS = ("matches", "alerts", "errors")
JOB = "chaos"

_ACTORS = ("ray::_ShardActor", "ray::_CoordinatorActor")

_SEVERAL_KEYS = {
    "Chaos.Pair": 'both = increment_counter("pair:" + who) - increment_counter("pair:" + name)\n    return both % 97 == 3',
    "Chaos.Hot": 'return increment_counter("hot") % 1000 == 0 and bool(add_to_string_set("hot:" + name, who))',
    "Chaos.Chain": (
        'to = get_dictionary("to:" + who).get("name", name)\n    put_dictionary("to:" + who, {"name": name})\n'
        '    return increment_counter("met:" + to + who) == 40'
    ),
}
"""RuleID -> body; `who` is the caller and `name` the name of the call."""


@dataclass(slots=True)
class Report:
    """What was done to the runs."""

    kills: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    runs: int = 0
    problems: list[str] = field(default_factory=list)


def write_pack(directory: Path) -> None:
    """Rules that touch keys of several shards, on a hundredth of the calls."""
    directory.mkdir(parents=True, exist_ok=True)
    for rule_id, body in _SEVERAL_KEYS.items():
        source = (
            "from panther_detection_helpers.caching import *\n\ndef rule(event):\n"
            '    who = str(event.deep_get("userIdentity", "arn"))\n    name = str(event.get("eventName"))\n'
            '    if not str(event.get("eventID"))[-1:] in "0123":\n        return False\n'
            f"    {body}\n\ndef title(event):\n    return str(event.get('eventName'))\n"
        )
        (directory / f"{rule_id}.py").write_text(source)
        (directory / f"{rule_id}.yml").write_text(
            f"AnalysisType: rule\nRuleID: {rule_id}\nFilename: {rule_id}.py\nEnabled: true\nLogTypes: [AWS.CloudTrail]\n"
            "Severity: Low\n"
        )


def chaos(directory: Path, kills: int, *, seed: int, events: int, shards: int = 3) -> Report:
    """Run jobs in `directory` until `kills` processes were killed or frozen and the last job is through."""
    rng = random.Random(seed)
    report = Report()
    workload.write(directory, events, seed)
    write_pack(directory / "rules")
    _finish(_command(directory, "local", directory / "local-store", "whole", 1), report)
    data = directory / "redis"
    data.mkdir()
    with ExitStack() as stack:
        redis = stack.enter_context(ExitStack())
        url = redis.enter_context(start_redis(["--appendonly", "yes"], directory=data))
        port = int(url.rsplit(":", 1)[1].split("/")[0])
        while sum(report.kills.values()) < kills and not report.problems:
            process = subprocess.Popen(
                _command(directory, "ray", url, "chaos", shards),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            try:
                while process.poll() is None and sum(report.kills.values()) < kills:
                    time.sleep(rng.uniform(0.3, 2.5))
                    if rng.random() < 0.1:
                        redis.close()
                        redis.enter_context(start_redis(["--appendonly", "yes"], directory=data, port=port))
                        report.kills["redis restarted"] += 1
                    else:
                        _hurt(process.pid, rng, report)
                stdout, stderr = process.communicate(timeout=600)
            finally:
                process.kill()
            report.runs += 1
            if process.returncode != 0:
                report.problems.append(f"a run ended with {process.returncode}: {stderr.decode()[-1500:]}")
                break
            report.restarts += json.loads(stdout.splitlines()[-1])["restarts"]
            _compare(directory, url, report)
    return report


def _command(directory: Path, runtime: str, store: object, name: str, shards: int) -> list[str]:
    outputs = [part for kind in OUTPUTS for part in (f"--{kind}", str(directory / f"{name}-{kind}.jsonl"))]
    return [
        sys.executable, "-m", "cluster", "run", str(directory / "logs"),
        "--rules", "rules/packs", "--rules", str(directory / "rules"),
        "--runtime", runtime, "--shards", str(shards), "--store", str(store), "--job", JOB, "--fresh", *outputs,
        "--epoch-events", "2000", "--checkpoint-interval", "0.5", "--json", "--quiet",
    ]  # fmt: skip


def _finish(command: list[str], report: Report) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=600, check=False)
    if done.returncode != 0:
        report.problems.append(f"the run to compare with ended with {done.returncode}: {done.stderr.decode()[-1500:]}")


def _hurt(driver: int, rng: random.Random, report: Report) -> None:
    """Kill or freeze one actor, if there is any yet."""
    actors: list[psutil.Process] = []
    with suppress(psutil.Error):
        for process in psutil.Process(driver).children(recursive=True):
            with suppress(psutil.Error):
                if process.name().startswith("ray::") and " ".join(process.cmdline()).startswith(_ACTORS):
                    actors.append(process)
    if not actors:
        return
    victim = rng.choice(actors)
    with suppress(psutil.Error, ProcessLookupError):
        who = "coordinator" if " ".join(victim.cmdline()).startswith(_ACTORS[1]) else "shard"
        if rng.random() < 0.3:
            os.kill(victim.pid, signal.SIGSTOP)
            time.sleep(rng.uniform(0.1, 3.0))
            os.kill(victim.pid, signal.SIGCONT)
            report.kills[f"{who} frozen"] += 1
        else:
            victim.kill()
            report.kills[f"{who} killed"] += 1


def _compare(directory: Path, url: str, report: Report) -> None:
    for kind in OUTPUTS:
        whole, hurt = (directory / f"{name}-{kind}.jsonl" for name in ("whole", "chaos"))
        if whole.read_bytes() != hurt.read_bytes():
            report.problems.append(f"{kind} differ: {whole} and {hurt}")
    if _state(str(directory / "local-store")) != _state(url):
        report.problems.append("the final state differs")


def _state(store: str) -> bytes:
    command = [
        sys.executable, "-m", "cluster", "state", "ls", "--job", JOB, "--store", store, "--limit", "1000000",
    ]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, check=True).stdout


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="how many processes to kill or freeze (100)")
    parser.add_argument("--events", type=int, default=400_000, help="events of one run (400,000)")
    parser.add_argument("--seed", type=int, default=int(time.monotonic()), help="draws the moments and the victims")
    given = parser.parse_args()
    print(f"seed {given.seed}")
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        report = chaos(Path(temporary), given.kills, seed=given.seed, events=given.events)
    done = ", ".join(f"{count} x {what}" for what, count in sorted(report.kills.items()))
    print(f"{report.runs} runs, {report.restarts} restarts; {done or 'nothing was hurt'}")
    for problem in report.problems:
        print(problem)
    print("failed" if report.problems else "no differences in matches, alerts, errors and state")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
