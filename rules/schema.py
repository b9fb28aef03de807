"""The YAML of a pack's items: what is wrong with it, and what a rule's says (PANTHER_FORMAT 1.3).

Which keys there are stands in schema_tables.py; how they are checked, in schema_shapes.py.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from typing import Any, Literal

from rules.rule import RuleSpec
from rules.schema_tables import is_step

__all__ = ["RuleKind", "is_step", "module_of", "read_spec"]

RuleKind = Literal["rule", "scheduled_rule", "policy"]


def module_of(path: str, document: Mapping[str, Any]) -> str:
    """The path of the file that an item's YAML names; empty where it names none."""
    name = document.get("Filename")
    if not isinstance(name, str) or not name:
        return ""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), name))


def read_spec(kind: RuleKind, path: str, document: Mapping[str, Any], module_path: str) -> RuleSpec:
    """What a rule's YAML says, which has been checked. `module_path` is empty for a simple detection."""
    get: Callable[..., Any] = document.get
    return RuleSpec(
        id=get("PolicyID" if kind == "policy" else "RuleID"),
        kind=kind,
        path=module_path or path,
        yaml_path=path,
        log_types=frozenset(get("LogTypes", ())),
        severity=get("Severity").upper(),
        display_name=get("DisplayName", ""),
        enabled=get("Enabled"),
        dedup_period_s=get("DedupPeriodMinutes", 60) * 60,
        threshold=get("Threshold", 1),
        create_alert=get("CreateAlert", True),
        description=get("Description", ""),
        reference=get("Reference", ""),
        runbook=get("Runbook", ""),
        output_ids=tuple(get("OutputIds", ())),
        tags=tuple(get("Tags", ())),
        # Sections such as CIS 3.12 are numbers to YAML.
        reports={str(name): [str(item) for item in items] for name, items in get("Reports", {}).items()},
        status=get("Status", ""),
        tests=tuple(get("Tests", ())),
        raw=document,
    )
