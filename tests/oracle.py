"""The promise in a loop: one process that reads the events in order. No engine code but the order of files.

Slow and obvious on purpose: W is computed from its definition over all active events so far.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.sources import discover
from rules.evaluation import Evaluation, evaluate
from rules.event import PantherEvent
from rules.logtypes import load_definitions, shipped_definitions, undefined
from rules.pack import load_pack, read_files
from rules.state import State
from rules.windows import Policy, Windows

LATENESS_S = 86_400.0
Verdict = tuple[str, tuple[int, ...], str, str, str, str]
"""(rule id, position, title, dedup, severity, alert id)"""


def sequential(inputs: list[str], rules: Path) -> tuple[list[Verdict], list[tuple[str, tuple[int, ...]]]]:
    """(matches, alerts as (alert id, position)) of JSON Lines files, each event through each rule in RuleID order."""
    pack = load_pack(read_files([rules]), quiet=True)
    types = load_definitions(shipped_definitions())
    state, windows = State(), Windows()
    evaluation = Evaluation(state)
    matches: list[Verdict] = []
    alerts: list[tuple[str, tuple[int, ...]]] = []
    w_s = last_s = float("-inf")
    for partition in discover(inputs, types, None):
        for offset, record in _records(partition.path):
            log_type = types.get(record.get("p_log_type") or partition.log_type or "") or undefined("")
            events = log_type.events_of(record)
            split = len(events) != 1 or events[0] is not record
            for sub, data in enumerate(events):
                time_s = log_type.time_of(data)
                assert time_s is not None, "the oracle is for logs in which every event has a time"
                position = (partition.index, offset, sub) if split else (partition.index, offset)
                state.clock_s = clock_s = max(time_s, w_s - LATENESS_S)
                event = PantherEvent(
                    data, log_type.derive(data, time_s, position, partition.path), pack.context_of(log_type.name)
                )
                evaluation.begin_event(time_s, position)
                active = False
                for rule in pack.rules:
                    if log_type.name not in rule.log_types:
                        continue
                    match = evaluate(rule, event, evaluation).match
                    active |= evaluation.key is not None or match is not None
                    if match is None:
                        continue
                    policy = Policy(rule.spec.threshold, float(rule.spec.dedup_period_s), rule.has_unique)
                    key = (rule.id, match.dedup)
                    placed = windows.add(key, policy, clock_s, position, match.unique, lambda: b"")
                    matches.append((rule.id, position, match.title, match.dedup, match.severity, placed.alert_id))
                    if placed.raised and match.create_alert:
                        alerts.append((placed.alert_id, position))
                if active:
                    w_s, last_s = max(w_s, min(last_s, time_s)), time_s
    return matches, alerts


def _records(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    data = gzip.decompress(Path(path).read_bytes()) if path.endswith(".gz") else Path(path).read_bytes()
    if data.startswith(b'{"Records"'):
        yield from enumerate(json.loads(data)["Records"])
        return
    offset = 0
    for line in data.split(b"\n"):
        if line.strip():
            yield offset, json.loads(line)
        offset += len(line) + 1


def verdicts_of(matches: Path) -> list[Verdict]:
    """A matches file in the oracle's terms."""
    records = map(json.loads, matches.read_text().splitlines())
    return [(r["rule_id"], tuple(r["position"]), r["title"], r["dedup"], r["severity"], r["alert_id"]) for r in records]


def alerts_of(alerts: Path) -> list[tuple[str, tuple[int, ...]]]:
    """An alerts file in the oracle's terms."""
    return [(r["alert_id"], tuple(r["position"])) for r in map(json.loads, alerts.read_text().splitlines())]
