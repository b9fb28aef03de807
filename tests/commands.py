"""Runs the command line as a person would: in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
PACKS = ROOT / "rules" / "packs"
COUNTERSIGN = [str(Path(sys.executable).with_name("countersign"))]
if not Path(COUNTERSIGN[0]).exists():  # not installed: the module is the same
    COUNTERSIGN = [sys.executable, "-m", "cluster"]


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    stdout: str
    stderr: str

    @property
    def summary(self) -> dict[str, Any]:
        """The object that `run --json` prints last."""
        found: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return found


def countersign(*arguments: object, cwd: Path | None = None, stdin: bytes | None = None, timeout_s: float = 120) -> Done:
    """Run to the end; `cwd` defaults to the repository."""
    command = [*COUNTERSIGN, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd or ROOT, input=stdin, capture_output=True, timeout=timeout_s, check=False)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def actors(process: subprocess.Popen[bytes], title: str) -> list[psutil.Process]:
    """The processes of a run on Ray that are called so: ShardActor, CoordinatorActor."""
    return [child for child in psutil.Process(process.pid).children(recursive=True) if title in child.name()]


def run(
    *arguments: object, into: Path, runtime: str = "local", shards: int = 1, rules: Path = PACKS, code: int = 0
) -> Done:
    """`countersign run --json` with its outputs in the directory `into`; fails unless it exits with `code`."""
    into.mkdir(parents=True, exist_ok=True)
    done = countersign(
        "run", *arguments, "--rules", rules, "--runtime", runtime, "--shards", shards, "--store", into / "store",
        "--alerts", into / "alerts.jsonl", "--matches", into / "matches.jsonl", "--errors", into / "errors.jsonl",
        "--json", "--quiet",
    )  # fmt: skip
    assert done.code == code, f"exit {done.code}, {code} expected:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


def write_rule(directory: Path, rule_id: str, source: str, more: str = "") -> None:
    """A rule for events of the log type Own.Log, `more` being further lines of its YAML; the caching helpers are imported."""
    (directory / f"{rule_id}.py").write_text(f"from panther_detection_helpers.caching import *\n\n{source}")
    (directory / f"{rule_id}.yml").write_text(
        f"AnalysisType: rule\nRuleID: {rule_id}\nFilename: {rule_id}.py\nEnabled: true\nLogTypes: [Own.Log]\n"
        f"Severity: Low\n{more}"
    )
