"""The benchmarks' rules: the founding ones as they ship, and made-up ones for what those do not show."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from bench.harness import ROOT

Pack = Callable[[Path], Path]
"""Writes a pack into a directory that is not there yet, and returns it."""

FOUNDING_RULES = ("access_denied_burst", "assume_role_new_ip")
CALLS_COUNTED = 100
"""What `every_event` matches on: so many calls of one principal within the hour."""

_EVERY_EVENT = f"""\
from panther_detection_helpers.caching import increment_counter, reset_counter, set_key_expiration


def rule(event):
    principal = event.deep_get("userIdentity", "arn")
    key = f"{{__name__}}:{{principal}}"
    calls = increment_counter(key)
    if calls == 1:
        set_key_expiration(key, event.event_time_epoch() + 3600)
    if calls < {CALLS_COUNTED}:
        return False
    reset_counter(key)
    return True


def title(event):
    return f"{CALLS_COUNTED} calls of [{{event.deep_get('userIdentity', 'arn')}}] within an hour"


def dedup(event):
    return event.deep_get("userIdentity", "arn")
"""

_MOST_MATCH = """\
def rule(event):
    return not event.get("errorCode") and event.get("eventName") != "AssumeRole"


def title(event):
    return f"[{event.deep_get('userIdentity', 'arn')}] was let through"


def dedup(event):
    return event.deep_get("userIdentity", "arn")
"""

_GUARDED = """\
def rule(event):
    return event.get("eventName") == "{name}" and event.deep_get("userIdentity", "userName") == "{who}"


def title(event):
    return f"{name} by [{{event.deep_get('userIdentity', 'arn')}}]"


def dedup(event):
    return event.deep_get("userIdentity", "arn")
"""

_HOT_KEY = """\
from panther_detection_helpers.caching import increment_counter


def rule(event):
    calls = increment_counter("calls")
    increment_counter(f"calls:{event.deep_get('userIdentity', 'arn')}", 1, 3600)
    return calls % 1000 == 0
"""

_HOT_AND_FRESH_KEY = """\
from panther_detection_helpers.caching import increment_counter, put_string_set


def rule(event):
    principal = event.deep_get("userIdentity", "arn")
    calls = increment_counter("calls")
    increment_counter(f"calls:{principal}", 1, 3600)
    put_string_set(f"seen:{event.get('eventID')}", [principal], 3600)
    return calls % 1000 == 0
"""

_COUNTED = """\
from panther_detection_helpers.caching import increment_counter


def rule(event):
    return increment_counter(f"Some.Rule:1:{event.get('who')}", 1, 1_900_000_000) < 0 or event.get("who") == "end"
"""

_MARKED = """\
def rule(event):
    return event.get("who") == "end"
"""

_PRESENT = ("AssumeRole", "GetSecretValue", "GetUser", "ListAttachedRolePolicies", "BatchGetImage", "PutMetricAlarm")
"""Calls that the generated CloudTrail holds: a fifth of it. All other rules wait for what never comes."""


def founding(directory: Path) -> Path:
    """The product's founding rules: denials counted per principal and hour, and the addresses that a role was assumed from."""
    directory.mkdir()
    for name in FOUNDING_RULES:
        for suffix in (".py", ".yml"):
            shutil.copy(ROOT / "rules" / "packs" / "aws_cloudtrail" / (name + suffix), directory)
    return directory


def every_event(directory: Path) -> Path:
    """One rule that counts every event by its principal."""
    return _write(directory, {"Bench.Calls": _EVERY_EVENT})


def most_match(directory: Path) -> Path:
    """One rule without state, which matches what is neither an error nor an AssumeRole."""
    return _write(directory, {"Bench.LetThrough": _MOST_MATCH})


def guarded(rules: int) -> Pack:
    """So many rules on one call of one user each. The first few are all that ever match, so that any number finds the same."""

    def write(directory: Path) -> Path:
        names = [*_PRESENT, *(f"{'Create' if n % 2 else 'Delete'}Resource{n:04d}" for n in range(rules))]
        sources = {f"Bench.Guarded.{n:04d}": _GUARDED.format(name=names[n], who="user-00003") for n in range(rules)}
        return _write(directory, sources)

    return write


def hundred(directory: Path) -> Path:
    """More than a hundred rules: the founding ones, and guarded ones."""
    founding(directory)
    for file in guarded(110)(directory / "guarded").iterdir():
        file.rename(directory / file.name)
    (directory / "guarded").rmdir()
    return directory


def hot_key(directory: Path) -> Path:
    """Every event asks for the one hot key and for its principal's: all of them go through the serial lane."""
    return _write(directory, {"Bench.HotKey": _HOT_KEY})


def hot_and_fresh_key(directory: Path) -> Path:
    """The same, and a third key that nobody asked for before."""
    return _write(directory, {"Bench.HotKey": _HOT_AND_FRESH_KEY})


def counted(directory: Path) -> Path:
    """A counter for each name of bench.inputs.Tiny; a match for its mark."""
    return _write(directory, {"Bench.Counted": _COUNTED}, log_type="Bench.Tiny")


def marked(directory: Path) -> Path:
    """A match for the mark of bench.inputs.Tiny, and nothing else: what is left is the engine's own work."""
    return _write(directory, {"Bench.Marked": _MARKED}, log_type="Bench.Tiny")


def _write(directory: Path, sources: dict[str, str], log_type: str = "AWS.CloudTrail") -> Path:
    """RuleID -> Python source."""
    directory.mkdir()
    for rule_id, source in sources.items():
        (directory / f"{rule_id}.py").write_text(source)
        (directory / f"{rule_id}.yml").write_text(
            f"AnalysisType: rule\nRuleID: {rule_id}\nFilename: {rule_id}.py\nEnabled: true\nLogTypes: [{log_type}]\n"
            "Severity: Low\n"
        )
    return directory
