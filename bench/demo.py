"""`make demo`: plants attacks in a day of logs, has the engine find them, and says whether it found those and no others.

Everything is real: log files on disk, two shards on Ray, checkpoints in a redis-server of its own, and the commands that
a person would type. The exit code is 1 when an alert is missing or one is unexpected.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import workload
from bench.redis_server import RedisServerMissing, start_redis
from bench.workload import Planted

ROOT = Path(__file__).resolve().parent.parent
JOB = "demo"
SHOWN_KEY = "AWS.CloudTrail.AssumeRole.NewIP:arn:aws:iam::111122223333:role/break-glass"
"""Written by the story of the role assumed from a new address."""
_POLL_S = 0.05

Alert = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one story. Nothing is wrong when `missing` is empty."""

    story: str
    alerts: tuple[Alert, ...]
    missing: tuple[str, ...]
    """One line each: the rule and dedup string of alerts that were not raised."""


def compare(planted: Sequence[Planted], alerts: Sequence[Alert]) -> tuple[list[Outcome], list[Alert]]:
    """(each story with its alerts, the alerts that no story expects)."""
    raised: dict[tuple[str, str], list[Alert]] = defaultdict(list)
    for alert in alerts:
        raised[alert["rule_id"], alert["dedup"]].append(alert)
    outcomes = []
    for story in planted:
        found: list[Alert] = []
        missing: list[str] = []
        for expected in story.expected:
            left = raised[expected.rule_id, expected.dedup]
            found += left[: expected.alerts]
            missing += [f"{expected.rule_id} for {expected.dedup}"] * (expected.alerts - len(left))
            del left[: expected.alerts]
        outcomes.append(Outcome(story.story, tuple(found), tuple(missing)))
    return outcomes, [alert for left in raised.values() for alert in left]


class Demo:
    """One showing: the directory it works in, what it prints on, and the options it passes on."""

    def __init__(self, directory: Path, rules: Path, runtime: str, shards: int, console: Console) -> None:
        self._directory = directory
        self._rules = rules
        self._runtime = runtime
        self._shards = shards
        self._console = console

    def show(self, events: int, seed: int) -> int:
        """Returns the exit code. Raises RedisServerMissing."""
        shutil.rmtree(self._directory, ignore_errors=True)
        self._console.rule("A day of logs, attacks among them")
        manifest = workload.write(self._directory, events, seed)
        attacks = sum(1 for story in manifest.planted if story.expected)
        for name, count in manifest.events.items():
            self._console.print(f"{count:>9,} events  {_brief(manifest.logs / name)}")
        self._console.print(f"{attacks} attacks and {len(manifest.planted) - attacks} that only look like one")
        with start_redis() as store:
            self._console.rule("The engine reads them")
            summary, code = self._run(manifest.logs, store)
            if code != 0:
                return code
            self._console.rule("What was planted, and what was found")
            wrong = self._print_comparison(manifest.planted)
            self._print_key(store)
        self._print_closing(summary, manifest.logs)
        for line in wrong:
            print(f"demo: {line}", file=sys.stderr)
        return 1 if wrong else 0

    @property
    def _alerts(self) -> Path:
        return self._directory / "alerts.jsonl"

    def _run(self, logs: Path, store: str) -> tuple[dict[str, Any], int]:
        """(the summary, with the time to the first alert; the exit code)."""
        command = ["run", str(logs), "--rules", str(self._rules), "--runtime", self._runtime]
        command += ["--shards", str(self._shards), "--store", store, "--job", JOB, "--fresh"]
        command += ["--alerts", str(self._alerts), "--matches", str(self._directory / "matches.jsonl"), "--json"]
        start_s = time.monotonic()
        # Its live display is on stderr, which it inherits.
        with subprocess.Popen(self._command(command), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            try:
                first_alert_s = self._await_first_alert(process, start_s)
                said, _ = process.communicate()
            except KeyboardInterrupt:  # it was sent to both: let the engine end cleanly
                process.wait()
                return {}, 130
        if process.returncode != 0:
            return {}, process.returncode
        summary: dict[str, Any] = json.loads(said.splitlines()[-1])
        return summary | {"first_alert_s": first_alert_s}, 0

    def _await_first_alert(self, process: subprocess.Popen[str], start_s: float) -> float | None:
        while True:
            ended = process.poll() is not None  # asked first: what it wrote last is there when it has ended
            if self._alerts.exists() and self._alerts.stat().st_size > 0:
                return time.monotonic() - start_s
            if ended:
                return None
            time.sleep(_POLL_S)

    def _command(self, arguments: Sequence[str]) -> list[str]:
        """The command line to run, after showing it as one would type it."""
        shown = [_brief(argument) if argument.startswith("/") else argument for argument in arguments]
        self._console.print(f"$ countersign {shlex.join(shown)}", style="bold", soft_wrap=True)
        return [sys.executable, "-m", "cluster", *arguments]

    def _print_comparison(self, planted: Sequence[Planted]) -> list[str]:
        """Print the stories with their alerts; returns a line for each thing that is wrong."""
        alerts = [json.loads(line) for line in self._alerts.read_text().splitlines()]
        outcomes, unexpected = compare(planted, alerts)
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column()
        table.add_column("story", no_wrap=True)
        table.add_column("severity")
        table.add_column("alert", overflow="fold")
        for outcome in outcomes:
            verdict = "[bold red]missing[/]" if outcome.missing else "[green]ok[/]"
            lines = [(alert["severity"], alert["title"]) for alert in outcome.alerts]
            lines += [("", f"no alert of {missing}") for missing in outcome.missing]
            for number, (severity, text) in enumerate(lines or [("", "no alert, as it should be")]):
                first = number == 0
                table.add_row(verdict if first else "", outcome.story if first else "", severity, _plain(text))
        for alert in unexpected:
            table.add_row("[bold red]unexpected[/]", "", alert["severity"], _plain(alert["title"]))
        self._console.print(table)
        severities = Counter(alert["severity"] for alert in alerts)
        self._console.print(
            f"{len(alerts)} alerts:", ", ".join(f"{count} {severity}" for severity, count in severities.most_common())
        )
        return [f"missing: {o.story}: no alert of {what}" for o in outcomes for what in o.missing] + [
            f"unexpected: {alert['rule_id']} for {alert['dedup']}" for alert in unexpected
        ]

    def _print_key(self, store: str) -> None:
        self._console.rule("What a key holds")
        command = self._command(["state", "get", SHOWN_KEY, "--job", JOB, "--store", store])
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        self._console.print(done.stdout.strip() or done.stderr.strip(), soft_wrap=True, markup=False)

    def _print_closing(self, summary: dict[str, Any], logs: Path) -> None:
        self._console.rule("In numbers")
        self._console.print(
            f"{summary['events']:,} events in {summary['seconds']:.1f} s: {summary['events_per_s']:,.0f} events/s "
            f"on {self._shards} shards ({self._runtime}); {summary['alerts']} alerts from {summary['matches']:,} matches, "
            "most of which only count towards the Threshold of their rule"
        )
        if summary["first_alert_s"] is not None:
            self._console.print(f"first alert {summary['first_alert_s']:.1f} s after the command, start-up included")
        self._console.print(f"Try next: .venv/bin/countersign run {_brief(logs)} --rules {_brief(self._rules)} --runtime local")


def _brief(path: str | Path) -> str:
    """A path as one would type it in the repository."""
    whole = Path(path)
    return str(whole.relative_to(ROOT)) if whole.is_relative_to(ROOT) else str(whole)


def _plain(text: str) -> str:
    """Text in which rich sees no markup."""
    return text.replace("[", r"\[")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.demo", description="Find planted attacks in generated logs.")
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--rules", type=Path, default=ROOT / "rules" / "packs", help="another pack than the shipped one"
    )
    parser.add_argument("--runtime", choices=("ray", "local"), default="ray")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument(
        "--directory", type=Path, default=ROOT / "build" / "demo", help="wiped, and left for you to look at"
    )
    given = parser.parse_args()
    # A pipe has no width: give the table the room it needs.
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    demo = Demo(given.directory.resolve(), given.rules.resolve(), given.runtime, given.shards, console)
    try:
        return demo.show(given.events, given.seed)
    except RedisServerMissing as error:
        print(f"demo: {error}", file=sys.stderr)
        return 4
    except ValueError as error:  # fewer events than the stories take
        print(f"demo: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
