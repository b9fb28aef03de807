"""`make chaos KILLS=100`: does so many bad things to runs on a Ray cluster of several nodes, and compares what they wrote.

Shards and coordinators get SIGKILL, or SIGSTOP and SIGCONT, at random moments; nodes go; the redis-server is restarted, or
does not answer for 20 s. The rules count, collect, and touch keys of several shards. Alerts, matches, errors and the final state
must be those of one process. Exit codes: 0 all the same, 1 something differs or a run ended by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench import workload
from bench.redis_server import start_redis

ROOT = Path(__file__).resolve().parent.parent
OUTPUTS = ("matches", "alerts", "errors")
JOB = "chaos"

NODES = 2
"""Besides the head, where the run's driver and coordinator are."""

_ACTORS = {"ray::_ShardActor": "shard", "ray::_CoordinatorActor": "coordinator", "ray::_SpareActor": "spare"}
"""How the title of a process begins -> what it began as. A spare may have taken any other's place."""

_UNREACHABLE_S = 20.0
_PROGRESS_TIMEOUT_S = 15.0
_HASTE = 0.3
"""The share of bad things that do not wait until the run has got over the one before."""

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


def deck(kills: int, rng: random.Random) -> list[str]:
    """What will be done, in order."""
    done = Counter(
        {
            "node removed": max(1, kills // 12),
            "redis restarted": max(1, kills // 12),
            "redis unreachable": kills // 50,
            "frozen": max(1, kills // 4),
        }
    )
    drawn = [*done.elements()]
    drawn += ["killed"] * (kills - len(drawn))
    rng.shuffle(drawn)
    return drawn


def chaos(directory: Path, kills: int, *, seed: int, events: int, shards: int = 3) -> Report:
    """Run jobs in `directory` until `kills` bad things were done and the last job is through."""
    rng = random.Random(seed)
    report = Report()
    workload.write(directory, events, seed)
    write_pack(directory / "rules")
    _finish(_command(directory, "local", directory / "local-store", "whole", 1), report)
    data = directory / "redis"
    data.mkdir()
    planned = deck(kills, rng)
    with ExitStack() as stack:
        machines = stack.enter_context(_Machines.started(data))
        while planned and not report.problems:
            command = [*_command(directory, "ray", machines.redis_url, "chaos", shards), "--address", machines.address]
            matches = directory / "chaos-matches.jsonl"
            matches.unlink(missing_ok=True)
            said, noted = directory / "chaos.out", directory / "chaos.err"
            with said.open("wb") as out, noted.open("wb") as err:
                process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err)
            try:
                while planned and _wait(process, matches, rng):
                    # A run whose store is not there when it starts ends, and says so: that is no crash to survive.
                    if planned[-1].startswith("redis") and not matches.exists():
                        continue
                    if machines.hurt(planned[-1], rng, report):
                        planned.pop()
                        _tell(len(planned), matches)
                process.wait(timeout=600)
            finally:
                process.kill()
            report.runs += 1
            if process.returncode != 0:
                report.problems.append(f"a run ended with {process.returncode}: {noted.read_text()[-1500:]}")
                break
            report.restarts += json.loads(said.read_bytes())["restarts"]
            _compare(directory, machines.redis_url, report)
    return report


def _wait(process: subprocess.Popen[bytes], output: Path, rng: random.Random) -> bool:
    """For the moment of the next bad thing: mostly one at which the run goes on. False when it is through."""
    if rng.random() >= _HASTE:
        before = output.stat().st_size if output.exists() else 0
        until_s = time.monotonic() + _PROGRESS_TIMEOUT_S
        while process.poll() is None and time.monotonic() < until_s:
            time.sleep(0.05)
            if output.exists() and output.stat().st_size != before:
                break
    time.sleep(rng.uniform(0.0, 2.0))
    return process.poll() is None


def _tell(left: int, matches: Path) -> None:
    if sys.stderr.isatty():
        size_mb = matches.stat().st_size / 1e6 if matches.exists() else 0
        print(f"\r{left} to go, {size_mb:.1f} MB of matches ", end="", file=sys.stderr, flush=True)


class _Machines:
    """A Ray cluster and a redis-server, and what may happen to them."""

    def __init__(self, cluster: Any, data: Path, stack: ExitStack) -> None:
        self._cluster = cluster
        self._data = data
        self._redis = stack.enter_context(ExitStack())
        self.redis_url = self._start_redis(None)
        self.address: str = cluster.address

    @classmethod
    @contextmanager
    def started(cls, data: Path) -> Iterator[_Machines]:
        from ray.cluster_utils import Cluster

        os.environ.setdefault("RAY_worker_niceness", "0")
        cluster: Any = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **_NODE})
        try:
            for _ in range(NODES):
                cluster.add_node(**_NODE)
            with ExitStack() as stack:
                yield cls(cluster, data, stack)
        finally:
            cluster.shutdown()

    def _start_redis(self, port: int | None) -> str:
        return self._redis.enter_context(start_redis(["--appendonly", "yes"], directory=self._data, port=port))

    def hurt(self, what: str, rng: random.Random, report: Report) -> bool:
        """Do one bad thing. False where there is nothing yet to do it to."""
        match what:
            case "node removed":
                self._cluster.remove_node(rng.choice(sorted(self._cluster.worker_nodes, key=id)), allow_graceful=False)
                self._cluster.add_node(**_NODE)
            case "redis restarted":
                self._redis.close()
                self._start_redis(int(self.redis_url.rsplit(":", 1)[1].split("/")[0]))
            case "redis unreachable":
                self._stop_redis_for(_UNREACHABLE_S)
            case _:
                who = _hurt(what, rng)
                what = f"{who} {what}"
                if not who:
                    return False
        report.kills[what] += 1
        return True

    @staticmethod
    def _stop_redis_for(seconds: float) -> None:
        (server,) = (each for each in psutil.Process().children() if each.name().startswith("redis-server"))
        server.suspend()
        time.sleep(seconds)
        server.resume()


_NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 150_000_000}


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


def _hurt(what: str, rng: random.Random) -> str:
    """Kill or freeze one actor; returns what it began as, nothing if there is none yet."""
    actors: list[tuple[psutil.Process, str]] = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            title = " ".join(process.cmdline())
            actors += [(process, who) for start, who in _ACTORS.items() if title.startswith(start)]
    if not actors:
        return ""
    victim, who = rng.choice(actors)
    try:
        if what == "killed":
            victim.kill()
        else:
            victim.suspend()
            time.sleep(rng.uniform(0.1, 6.0))
            victim.resume()
    except psutil.NoSuchProcess:  # a frozen one may be ended for it
        if what == "killed":
            return ""
    return who


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
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    report = chaos(directory, given.kills, seed=given.seed, events=given.events)
    done = ", ".join(f"{count} x {what}" for what, count in sorted(report.kills.items()))
    print(f"{report.runs} runs, {report.restarts} restarts; {done or 'nothing was hurt'}")
    for problem in report.problems:
        print(problem)
    if report.problems:
        print(f"failed; what was read and written is in {directory}")
        return 1
    shutil.rmtree(directory)
    print("no differences in matches, alerts, errors and state")
    return 0


if __name__ == "__main__":
    sys.exit(main())
