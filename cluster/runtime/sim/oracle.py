"""The promise in a loop: one process, one event after another, against the state as it is. No engine code.

Slow and obvious on purpose. W is computed as it is defined (DESIGN 11.2), the limiter as it is described (11.14).
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from cluster.core.poison import TIMEOUTS_UNTIL_OFF
from cluster.runtime.sim import hanging
from cluster.runtime.sim.workload import START_S, Workload
from rules.evaluation import Evaluation, evaluate
from rules.event import PantherEvent
from rules.logtypes import BadTime
from rules.pack import Pack, log_types_of
from rules.state import Row, State
from rules.windows import Policy, Windows

NEVER_S = float("-inf")


@dataclass(slots=True)
class Expected:
    """What a run must come to."""

    matches: list[dict[str, Any]] = field(default_factory=list)
    """rule_id, position, event_time, title, dedup, context, alert_id"""
    alerts: list[dict[str, Any]] = field(default_factory=list)
    """alert_id, rule_id, position; the limiter's own without alert_id"""
    errors: list[dict[str, Any]] = field(default_factory=list)
    """rule_id, position, function, error"""
    dead_letters: list[list[int]] = field(default_factory=list)
    """positions"""
    keys: dict[str, Row] = field(default_factory=dict)


def sequential(workload: Workload, pack: Pack, until: tuple[int, int] | None = None) -> Expected:
    """Read every event in order, those before `until` if it is given, and run every rule on it in RuleID order."""
    log_type = log_types_of(pack)["Sim"]
    expected, state, windows = Expected(), State(), Windows()
    evaluation = Evaluation(state)
    limiter: dict[str, tuple[float, int]] = {}
    timeouts: Counter[str] = Counter()
    hanging.watch(None)
    active: list[float] = []
    for file in workload.files:
        at, time_s = 0, float(START_S)
        for number, raw in enumerate(file.records):
            position = (file.partition.index, at if file.partition.format == "jsonl" else number)
            at += len(raw) + 1
            if until is not None and position >= until:
                break
            try:
                data = json.loads(raw)
                own_s = log_type.time_of(data) if isinstance(data, dict) else None
                if not isinstance(data, dict):
                    raise ValueError
            except (ValueError, BadTime):
                expected.dead_letters.append(list(position))
                continue
            time_s = time_s if own_s is None else own_s
            w_s = max((min(a, b) for a, b in pairwise(active)), default=NEVER_S)
            state.clock_s = clock_s = max(time_s, w_s - workload.lateness_s)
            event = PantherEvent(
                data, log_type.derive(data, time_s, position, file.partition.path), pack.context_of("Sim")
            )
            evaluation.begin_event(time_s, position)
            moves = False
            for rule in pack.rules:
                if timeouts[rule.id] == TIMEOUTS_UNTIL_OFF:
                    continue
                outcome = evaluate(rule, event, evaluation)
                place = {"rule_id": rule.id, "position": list(position)}
                if hanging.taken():
                    state.undo()
                    timeouts[rule.id] += 1
                    expected.errors.append({**place, "function": "rule", "error": "TimeoutError"})
                    continue
                match = outcome.match
                moves |= evaluation.key is not None or match is not None
                expected.errors += [{**place, "function": e.function, "error": e.error} for e in outcome.errors]
                if match is None:
                    continue
                policy = Policy(rule.spec.threshold, float(rule.spec.dedup_period_s), rule.has_unique)
                placed = windows.add((rule.id, match.dedup), policy, clock_s, position, match.unique, lambda: b"")
                context = json.loads(match.context) if match.context else None
                when = datetime.fromtimestamp(time_s, UTC).replace(tzinfo=None).isoformat() + "Z"
                said = {
                    "event_time": when,
                    "title": match.title,
                    "dedup": match.dedup,
                    "context": context,
                    "alert_id": placed.alert_id,
                }
                expected.matches.append({**place, **said})
                if placed.raised and match.create_alert:
                    expected.alerts += _limited(limiter, workload.alert_limit, clock_s, {**place, **said})
            if moves:
                active.append(time_s)
    w_s = max((min(a, b) for a, b in pairwise(active)), default=NEVER_S)
    expected.keys = {row.key: row for row in state.rows(w_s - workload.lateness_s)}
    return expected


def _limited(
    limiter: dict[str, tuple[float, int]], limit: int, clock_s: float, alert: dict[str, Any]
) -> list[dict[str, Any]]:
    shown = {name: alert[name] for name in ("alert_id", "rule_id", "position")}
    if not limit:
        return [shown]
    opened_s, count = limiter.get(alert["rule_id"], (clock_s, 0))
    if clock_s > opened_s + 3600:
        opened_s, count = clock_s, 0
    limiter[alert["rule_id"]] = (opened_s, count + 1)
    if count == limit:
        return [{"rule_id": "countersign.limiter", "position": alert["position"]}]
    return [shown] if count < limit else []
