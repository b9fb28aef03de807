"""A real log under the public rule pack gives what an independent implementation of the format says, on every runtime.

MANIFEST.md describes the expected file: one line per match and per alert, by line of the log, with the hash of the context.
"""

from __future__ import annotations

import gc
import gzip
import hashlib
import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rules.evaluation import Evaluation, evaluate
from rules.event import PantherEvent
from rules.pack import Pack, load_pack, log_types_of, read_files
from rules.state import State
from rules.windows import Policy, Windows
from tests.commands import run
from tests.public_pack import public_pack

LATENESS_S = 86_400.0


class Match(NamedTuple):
    """A match as the expected file has it; `context` is None where it depends on the order of a set."""

    line: int
    rule_id: str
    title: str
    dedup: str
    severity: str
    context: str | None


class Alert(NamedTuple):
    """An alert as the expected file has it: `first` is the line of the window's first match."""

    rule_id: str
    dedup: str
    title: str
    severity: str
    first: int
    at: int


@dataclass(frozen=True)
class Replay:
    """What a log under a pack came to. All in the order of the log, then of the rules' ids."""

    matches: list[Match]
    alerts: list[Alert]
    errors: list[tuple[int, str]]
    """(line, rule id)"""


def digest(context: Any) -> str:
    return hashlib.sha1(json.dumps(context, sort_keys=True).encode()).hexdigest()


@pytest.fixture(scope="module")
def pack(shared_data: Path) -> Path:
    return public_pack(shared_data)


@pytest.fixture(scope="module")
def log(shared_data: Path) -> Path:
    return shared_data / "expected" / "invictus-aws.normalised.jsonl.gz"


@pytest.fixture(scope="module")
def lines(log: Path) -> list[bytes]:
    return gzip.decompress(log.read_bytes()).splitlines(keepends=True)


@pytest.fixture(scope="module")
def loaded(pack: Path) -> Pack:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a library of the pack's leaves a file open
        found = load_pack(read_files([pack]), quiet=True)
        gc.collect()
    return found


@pytest.fixture(scope="module")
def expected(shared_data: Path, loaded: Pack) -> Replay:
    """The expected file; where a rule has no title(), which it calls null, the alert is called by the rule's name."""
    names = {rule.id: rule.spec.display_name or rule.id for rule in loaded.rules}
    matches, alerts, errors = [], [], []
    for line in gzip.decompress(
        (shared_data / "expected" / "invictus-aws.expected.jsonl.gz").read_bytes()
    ).splitlines():
        record = json.loads(line)
        if "alert" in record:
            record["rule_id"] = record.pop("alert")
            record["title"] = record["title"] or names[record["rule_id"]]
            alerts.append(Alert(**record))
        elif "error" in record:
            errors.append((record["line"], record["rule_id"]))
        else:
            record["title"] = record["title"] or names[record["rule_id"]]
            matches.append(Match(**record))
    alerts.sort(key=lambda alert: (alert.at, alert.rule_id))
    return Replay(matches, alerts, errors)


@pytest.fixture(scope="module")
def looped(loaded: Pack, lines: list[bytes]) -> Replay:
    """The promise's own loop: every event in order, every enabled rule by RuleID, one state."""
    log_type = log_types_of(loaded)["AWS.CloudTrail"]
    rules = [rule for rule in loaded.rules if log_type.name in rule.log_types]
    context = loaded.context_of(log_type.name)
    state, windows = State(), Windows()
    evaluation = Evaluation(state)
    replay = Replay([], [], [])
    firsts: dict[str, Match] = {}
    w_s = last_s = float("-inf")
    for number, raw in enumerate(lines):
        data = json.loads(raw)
        time_s = log_type.time_of(data)
        assert time_s is not None
        state.clock_s = clock_s = max(time_s, w_s - LATENESS_S)
        event = PantherEvent(data, log_type.derive(data, time_s, (0, number), str(number)), context)
        evaluation.begin_event(time_s, (0, number))
        active = False
        for rule in rules:
            outcome = evaluate(rule, event, evaluation)
            found = outcome.match
            active |= evaluation.key is not None or found is not None
            replay.errors.extend((number, rule.id) for _ in outcome.errors)
            if found is None:
                continue
            said = json.loads(found.context) if found.context else None
            match = Match(number, rule.id, found.title, found.dedup, found.severity, digest(said))
            replay.matches.append(match)
            policy = Policy(rule.spec.threshold, float(rule.spec.dedup_period_s), rule.has_unique)
            placed = windows.add((rule.id, found.dedup), policy, clock_s, (number,), found.unique, lambda: b"")
            first = firsts.setdefault(placed.alert_id, match)
            if placed.raised and found.create_alert:
                replay.alerts.append(Alert(rule.id, found.dedup, first.title, first.severity, first.line, number))
        if active:
            w_s, last_s = max(w_s, min(last_s, time_s)), time_s
    return replay


def written(into: Path, lines: list[bytes]) -> Replay:
    """What a run has written, in the expected file's terms."""
    line_at, offset = {}, 0
    for number, raw in enumerate(lines):
        line_at[offset] = number
        offset += len(raw)
    matches, alerts, errors = (
        [json.loads(line) for line in (into / name).read_text().splitlines()]
        for name in ("matches.jsonl", "alerts.jsonl", "errors.jsonl")
    )
    first: dict[str, int] = {}
    for match in matches:
        first.setdefault(match["alert_id"], line_at[match["position"][1]])
    return Replay(
        [
            Match(line_at[m["position"][1]], m["rule_id"], m["title"], m["dedup"], m["severity"], digest(m["context"]))
            for m in matches
        ],
        [
            Alert(a["rule_id"], a["dedup"], a["title"], a["severity"], first[a["alert_id"]], line_at[a["position"][1]])
            for a in alerts
        ],
        [(line_at[e["position"][1]], e["rule_id"]) for e in errors],
    )


def same(found: Replay, expected: Replay) -> None:
    """Everything but the contexts that depend on the order of a set."""
    assert found.errors == expected.errors
    assert differences(map(_bare, found.matches), map(_bare, expected.matches)) == []
    assert differences(found.alerts, expected.alerts) == []
    assert [
        (theirs, ours.context)
        for ours, theirs in zip(found.matches, expected.matches, strict=True)
        if theirs.context is not None and ours.context != theirs.context
    ] == []


def _bare(match: Match) -> Match:
    return match._replace(context=None)


def differences(found: Iterable[NamedTuple], expected: Iterable[NamedTuple]) -> list[str]:
    """The first of what only one side has, - theirs and + ours, or of what stands elsewhere."""
    ours, theirs = list(found), list(expected)
    if ours == theirs:
        return []
    mine, wanted = set(ours), set(theirs)
    lost = [f"- {each}" for each in theirs if each not in mine] + [f"+ {each}" for each in ours if each not in wanted]
    return lost[:20] or ["the same in another order"]


def test_the_sequential_loop_gives_every_expected_match_and_alert(looped: Replay, expected: Replay) -> None:
    assert len(expected.matches) > 2000
    assert len(expected.alerts) > 30
    same(looped, expected)


@pytest.mark.parametrize(
    ("runtime", "shards"),
    [
        (name, n) if name == "local" else pytest.param(name, n, marks=pytest.mark.ray)
        for name in ("local", "ray")
        for n in (1, 3)
    ],
)
def test_every_runtime_gives_every_expected_match_and_alert(
    runtime: str, shards: int, pack: Path, log: Path, lines: list[bytes], expected: Replay, tmp_path: Path
) -> None:
    run(log, "--epoch-events", 500, into=tmp_path, runtime=runtime, shards=shards, rules=pack)

    same(written(tmp_path, lines), expected)
