"""Config: every setting of the engine that is not a command-line option. Read from the environment once, passed down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from cluster.core.keygroups import DEFAULT_KEY_GROUPS


class BadSetting(ValueError):
    """An environment variable holds no usable value."""


@dataclass(frozen=True, slots=True)
class Config:
    """Each field is read from COUNTERSIGN_<FIELD IN CAPITALS>."""

    lateness_s: float = 86_400.0
    """How far an event's time may lie behind W and still be its own clock. A day: what cloud providers promise at worst."""

    max_event_bytes: int = 1_000_000
    """A longer record becomes a dead letter, unread. CloudTrail's own limit for an event is 256 KB."""

    max_value_bytes: int = 400 * 1024
    """The largest set or dictionary under one key: DynamoDB's item limit, which rules of this format were written under."""

    alert_limit: int = 1_000
    """Alerts of one rule within an hour of event time before the rest are held back; 0 is no limit."""

    evaluation_timeout_s: float = 15.0
    """How long one evaluation may take before its process is ended and the event is skipped for its rule. Rules take
    microseconds; Panther's own limit for a batch is 15 s."""

    key_groups: int = DEFAULT_KEY_GROUPS
    """Units in which state moves between shards. Fixed when a job is created."""


def from_environment(environment: Mapping[str, str]) -> Config:
    """The Config that the environment asks for. Raises BadSetting, naming the variable."""
    values: dict[str, float | int] = {}
    for setting in fields(Config):
        name = f"COUNTERSIGN_{setting.name.upper()}"
        text = environment.get(name)
        if text is None:
            continue
        kind = float if setting.name.endswith("_s") else int
        try:
            value = kind(text)
        except ValueError:
            raise BadSetting(f"{name}={text!r}: not a number: give one, or unset it") from None
        lowest = 0 if setting.name in ("alert_limit", "lateness_s") else 1
        if not lowest <= value < 1 << 50:
            raise BadSetting(f"{name}={text!r}: out of range: give {lowest} or more")
        values[setting.name] = value
    return Config(**values)  # type: ignore[arg-type]
