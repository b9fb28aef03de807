"""The JSON records that leave the engine: matches, alerts, errors (DESIGN 9). Pure bytes; sinks.py writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
import orjson

from cluster.core.messages import FoundError, FoundMatch, Position
from rules.rule import Match, RuleSpec

LIMITER_RULE_ID = "countersign.limiter"


def time_text(time_s: float) -> str:
    """RFC 3339 in UTC, to the microsecond where there is one."""
    whole_s = int(time_s)
    if whole_s != time_s:
        return _text_with_fraction(time_s)
    minute, second = divmod(whole_s, 60)
    return f"{_minute_text(minute)}{second:02}Z"


@lru_cache(4096)
def _text_with_fraction(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat().replace("+00:00", "Z")


@lru_cache(4096)
def _minute_text(minute: int) -> str:
    """Minutes since 1970 as `2026-03-02T09:00:`: some 60 events of a log share one."""
    return datetime.fromtimestamp(60 * minute, UTC).isoformat()[: len("2026-03-02T09:00:")]


def match_record(found: FoundMatch, spec: RuleSpec, alert_id: str) -> bytes:
    match = found.match
    return orjson.dumps(
        {
            "rule_id": spec.id,
            "event_id": safe_text(found.event_id),
            "log_type": safe_text(found.log_type),
            "event_time": time_text(found.event_time_s),
            "title": match.title,
            "dedup": match.dedup,
            "severity": match.severity,
            "context": _fragment(match.context),
            "alert_id": alert_id,
            "position": found.position,
        }
    )


def first_match_facts(found: FoundMatch, spec: RuleSpec) -> bytes:
    """What an alert takes from its window's first match, kept as bytes until the threshold is reached."""
    match = found.match
    return orjson.dumps(
        {
            "severity": match.severity,
            "title": match.title,
            "dedup": match.dedup,
            "first_match_at": time_text(found.clock_s),
            "first_event_id": safe_text(found.event_id),
            "context": _fragment(match.context),
            "description": match.description,
            "reference": match.reference,
            "runbook": match.runbook,
            "destinations": _destinations(match, spec),
            "log_type": safe_text(found.log_type),
        }
    )


def alert_record(first: bytes, found: FoundMatch, spec: RuleSpec, alert_id: str, count: int) -> bytes:
    """The alert that the match `found` raises; `first` is first_match_facts of the window's first match."""
    # Raw: what the rule gave goes on byte for byte, integers of any size included
    facts: dict[str, Any] = msgspec.json.decode(first, type=dict[str, msgspec.Raw])
    return msgspec.json.encode(
        {
            "alert_id": alert_id,
            "rule_id": spec.id,
            "severity": facts["severity"],
            "title": facts["title"],
            "dedup": facts["dedup"],
            "created_at": time_text(found.clock_s),
            "first_match_at": facts["first_match_at"],
            "first_event_id": facts["first_event_id"],
            "event_id": safe_text(found.event_id),
            "match_count": count,
            "threshold": spec.threshold,
            "context": facts["context"],
            "description": facts["description"],
            "reference": facts["reference"],
            "runbook": facts["runbook"],
            "destinations": facts["destinations"],
            "log_type": facts["log_type"],
            "tags": spec.tags,
            "reports": spec.reports,
            "position": found.position,
        }
    )


def error_record(found: FoundError) -> bytes:
    return orjson.dumps(
        {
            "rule_id": found.rule_id,
            "event_id": safe_text(found.event_id),
            "function": found.error.function,
            "error": found.error.error,
            "message": safe_text(found.error.message),
            "location": found.error.location,
            "position": found.position,
        }
    )


def limiter_record(rule_id: str, limit: int, period_s: float, created_s: float, position: Position) -> bytes:
    """The system alert that says a rule's further alerts are held back (DESIGN 11.14)."""
    at = time_text(created_s)
    title = f"{rule_id} raised {limit} alerts within {period_s / 60:.0f} minutes: its further alerts are held back"
    return orjson.dumps(
        {
            "alert_id": f"{LIMITER_RULE_ID}:{':'.join(map(str, position))}:{rule_id}",
            "rule_id": LIMITER_RULE_ID,
            "severity": "HIGH",
            "title": title,
            "dedup": rule_id,
            "created_at": at,
            "first_match_at": at,
            "first_event_id": "",
            "event_id": "",
            "match_count": limit,
            "threshold": limit,
            "context": None,
            "description": "Matches are still recorded. The limit is COUNTERSIGN_ALERT_LIMIT.",
            "reference": "",
            "runbook": f"See whether {rule_id} is too wide: raise its Threshold or narrow its dedup string.",
            "destinations": [],
            "log_type": "",
            "tags": [],
            "reports": {},
            "position": position,
        }
    )


def _destinations(match: Match, spec: RuleSpec) -> list[str]:
    """destinations() beats OutputIds (PANTHER_FORMAT 1.2)."""
    return list(spec.output_ids if match.destinations is None else match.destinations)


def _fragment(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)


def safe_text(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot say, replaced by `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
