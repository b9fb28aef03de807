"""`make compat PACK=dir`: how much of a pack in this format runs here, by kind, as `countersign test` says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rules.pack import MissingPack, read_files
from rules.yaml12 import BadYaml, load

ROOT = Path(__file__).resolve().parent.parent

RULE, SCHEDULED, POLICY = KINDS = ("rule", "scheduled rule", "policy")
SIMPLE, FILTERED = OF_THESE = ("simple detection", "inline filters")
"""Counted among the kinds, and once more by themselves: pat does invalid them."""

_IDS = {RULE: "RuleID", SCHEDULED: "RuleID", POLICY: "PolicyID"}


class CannotTest(RuntimeError):
    """`countersign test` gave no result."""


@dataclass(slots=True)
class Row:
    """What became of the detections of one kind; `tests` is `passed`, `failed` and `invalid` together."""

    detections: int = 0
    tests: int = 0
    passed: int = 0
    failed: int = 0
    invalid: int = 0
    """Tests of files that are invalid, or that name a module that is not there."""


@dataclass(frozen=True, slots=True)
class Compatibility:
    """A pack's rows, by kind."""

    rows: Mapping[str, Row]
    exit_code: int
    """Of `countersign test`."""
    reasons: tuple[str, ...]
    """Why tests are invalid, and which failed, a line each."""


def compatibility(directory: Path) -> Compatibility:
    """Test a pack as `countersign test` does, and count by kind. Raises CannotTest and MissingPack."""
    files = read_files([directory])
    command = [sys.executable, "-m", "cluster", "test", str(directory.resolve()), "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        raise CannotTest(done.stderr.strip())
    report = json.loads(done.stdout)
    rows = {kind: Row() for kind in (*KINDS, *OF_THESE)}
    reasons = [reason for problems in report["invalid"].values() for reason in problems]
    for path in sorted(files):
        document = _document(path, files[path])
        kind = str(document.get("AnalysisType")).replace("_", " ")
        if kind not in KINDS:
            continue
        written = len(document.get("Tests") or ())
        results = report["results"].get(document.get(_IDS[kind]), [])
        if len(results) < written:
            reasons.append(f"{path}: {written - len(results)} of its {written} tests could not be run")
        reasons += [f"{path}: {result['name']}: failed" for result in results if not result["passed"]]
        passed = sum(result["passed"] for result in results)
        for name in (kind, *_also(document)):
            row = rows[name]
            row.detections += 1
            row.tests += max(written, len(results))
            row.passed += passed
            row.failed += len(results) - passed
            row.invalid += max(0, written - len(results))
    return Compatibility(rows, done.returncode, tuple(reasons))


def _document(path: str, data: bytes) -> Mapping[str, Any]:
    """Empty for what is no YAML mapping: `countersign test` says what is wrong with it."""
    if not path.endswith((".yml", ".yaml")):
        return {}
    try:
        document, _ = load(data)
    except BadYaml:
        return {}
    return document if isinstance(document, dict) else {}


def _also(document: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name, key in ((SIMPLE, "Detection"), (FILTERED, "InlineFilters")) if key in document)


def as_table(found: Compatibility) -> str:
    """The rows for people; what is counted twice stands below a line."""
    lines = [f"{'':18}{'detections':>11}{'tests':>8}{'passed':>8}{'failed':>8}{'invalid':>9}"]
    for kind, row in found.rows.items():
        if kind == SIMPLE:
            lines.append("among these")
        lines.append(f"{kind:<18}{row.detections:>11,}{row.tests:>8,}{row.passed:>8,}{row.failed:>8,}{row.invalid:>9,}")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Print the table, and why anything was invalid; the exit code is that of `countersign test`."""
    if len(arguments) != 1 or not arguments[0]:
        print("usage: make compat PACK=dir, a checkout of rules in this format", file=sys.stderr)
        return 2
    try:
        found = compatibility(Path(arguments[0]))
    except (CannotTest, MissingPack) as error:
        print(error, file=sys.stderr)
        return 2
    print(as_table(found))
    for reason in found.reasons:
        print(f"    {reason}")
    return found.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
