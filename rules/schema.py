"""The YAML of a rule: which keys there are, what each holds, and what it means for the rule (PANTHER_FORMAT 1.3)."""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from rules.errors import Problem, SourceLocation
from rules.rule import SEVERITIES, RuleSpec
from rules.yaml12 import Lines


class _Kind(NamedTuple):
    """What a key may hold."""

    name: str
    holds: Callable[[Any], bool]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _differ(value: Any) -> bool:
    return _is_texts(value) and len({item.lower() for item in value}) == len(value)


_TEXT = _Kind("a text", lambda value: isinstance(value, str))
_RULE_ID = _Kind(
    'a text without < > & " or %',
    lambda value: isinstance(value, str) and re.fullmatch(r'[^<>&"%]+', value) is not None,
)
_SEVERITY = _Kind(
    "Info, Low, Medium, High or Critical", lambda value: isinstance(value, str) and value.upper() in SEVERITIES
)
_BOOL = _Kind("true or false", lambda value: isinstance(value, bool))
_NATURAL = _Kind("a whole number, 0 or more", lambda value: _is_int(value) and value >= 0)
_POSITIVE = _Kind("a whole number, 1 or more", lambda value: _is_int(value) and value >= 1)
_SECONDS = _Kind(
    "a number of seconds",
    lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9,
)
_TEXTS = _Kind("a list of texts, each once", _differ)
_LOG_TYPES = _Kind("a list of log types, at least one and each once", lambda value: value != [] and _differ(value))
_REPORTS = _Kind(
    "lists by name", lambda value: isinstance(value, dict) and all(isinstance(items, list) for items in value.values())
)
_LIST = _Kind("a list", lambda value: isinstance(value, list))
_EVENT = _Kind("an event", lambda value: isinstance(value, dict))
_ANY = _Kind("anything", lambda value: True)
_NO_FILTER = _Kind("no filter in this version: write it in rule()", lambda value: value in ([], [{"All": []}]))

_RULE_KEYS = {
    "AnalysisType": _TEXT,
    "BaseVersion": _NATURAL,
    "CreateAlert": _BOOL,
    "CreatedBy": _TEXT,
    "DedupPeriodMinutes": _NATURAL,
    "Description": _TEXT,
    "DisplayName": _TEXT,
    "Enabled": _BOOL,
    "Filename": _TEXT,
    "InlineFilters": _NO_FILTER,
    "LogTypes": _LOG_TYPES,
    "OnlyUseBaseRiskScore": _BOOL,
    "OutputIds": _TEXTS,
    "Reference": _TEXT,
    "Reports": _REPORTS,
    "RuleID": _RULE_ID,
    "Runbook": _TEXT,
    "Severity": _SEVERITY,
    "Status": _TEXT,
    "SummaryAttributes": _TEXTS,
    "Tags": _TEXTS,
    "Tests": _LIST,
    "Threshold": _POSITIVE,
}
_RULE_REQUIRED = ("RuleID", "Enabled", "Filename", "LogTypes", "Severity")
_NOT_YET = frozenset(
    {"AlertContext", "AlertTitle", "BaseDetection", "Detection", "DynamicSeverities", "GroupBy", "ScheduledQueries"}
)
"""Keys of the format that this version does not carry out."""

_TEST_KEYS = {
    "AlsoRun": _TEXTS,
    "ExpectedDedup": _TEXT,
    "ExpectedDestinations": _TEXTS,
    "ExpectedResult": _BOOL,
    "ExpectedSeverity": _SEVERITY,
    "ExpectedTitle": _TEXT,
    "Log": _EVENT,
    "Logs": _Kind("a list of events, at least one", lambda value: isinstance(value, list) and value != []),
    "LogType": _TEXT,
    "Mocks": _LIST,
    "Name": _TEXT,
    "ResourceType": _TEXT,
}
_STEP_KEYS = {
    "Count": _POSITIVE,
    "EverySeconds": _SECONDS,
    "ExpectedAlerts": _NATURAL,
    "ExpectedMatches": _NATURAL,
    "Log": _EVENT,
}
_MOCK_KEYS = {"objectName": _TEXT, "returnValue": _ANY}


def is_step(element: Mapping[str, Any]) -> bool:
    """Whether an element of Logs is an event with instructions; otherwise it is the event."""
    return isinstance(element.get("Log"), dict)


def module_of(path: str, document: Mapping[str, Any]) -> str:
    """The path of the Python file that belongs to a rule's YAML; empty where it names none."""
    name = document.get("Filename")
    if not isinstance(name, str) or not name:
        return ""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), name))


def read_spec(
    path: str, document: Mapping[str, Any], lines: Lines, files: Iterable[str], problems: list[Problem]
) -> RuleSpec | None:
    """What a rule's YAML says. None where something is wrong, which is then among the problems."""
    checker = _Checker(path, lines, problems)
    before = len(problems)
    checker.mapping((), document, _RULE_KEYS, _RULE_REQUIRED, _NOT_YET)
    module_path = module_of(path, document)
    if module_path and module_path not in files:
        checker.refuse(("Filename",), f"there is no file {module_path}", "put the module beside its YAML")
    tests = document.get("Tests")
    for number, test in enumerate(tests if isinstance(tests, list) else ()):
        checker.test(("Tests", number), test)
    if len(problems) > before:
        return None
    get: Callable[..., Any] = document.get
    return RuleSpec(
        id=get("RuleID"),
        path=module_path,
        yaml_path=path,
        log_types=frozenset(get("LogTypes")),
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


_Path = tuple[str | int, ...]


class _Checker:
    """Collects what is wrong with one file. Paths are the keys and indices that lead to a place in it."""

    def __init__(self, path: str, lines: Lines, problems: list[Problem]) -> None:
        self._path = path
        self._lines = lines
        self._problems = problems

    def refuse(self, where: _Path, message: str, remedy: str) -> None:
        self._problems.append(Problem(SourceLocation(self._path, self._lines.of(*where)), message, remedy))

    def mapping(
        self,
        where: _Path,
        value: Any,
        keys: Mapping[str, _Kind],
        required: Iterable[str],
        not_yet: frozenset[str] = frozenset(),
    ) -> bool:
        """Check a mapping key by key; whether it is one."""
        if not isinstance(value, dict):
            self.refuse(where, f"{_shown(value)} is no mapping", f"give {', '.join(required)}")
            return False
        for name in required:
            if name not in value and not_yet.isdisjoint(value):
                self.refuse(where, f"{name} is missing", f"add {name}: {keys[name].name}")
        for name, held in value.items():
            if name in not_yet:
                self.refuse(
                    (*where, name), f"{name} is not carried out by this version", "write it in the Python module"
                )
            elif name not in keys:
                near = difflib.get_close_matches(str(name), keys, 1)
                self.refuse((*where, name), f"unknown key {name!r}", f"write {near[0]}" if near else "remove it")
            elif not keys[name].holds(held):
                self.refuse((*where, name), f"{name} holds {_shown(held)}", f"give {keys[name].name}")
        return True

    def test(self, where: _Path, test: Any) -> None:
        if not self.mapping(where, test, _TEST_KEYS, ("Name", "ExpectedResult")):
            return
        if ("Log" in test) == ("Logs" in test):
            self.refuse(where, "a test has either Log or Logs", "give one event, or a list of them")
        for key, check in (("Logs", self._element), ("Mocks", self._mock)):
            elements = test.get(key)
            for number, element in enumerate(elements if isinstance(elements, list) else ()):
                check((*where, key, number), element)

    def _element(self, where: _Path, element: Any) -> None:
        if isinstance(element, dict) and is_step(element):
            self.mapping(where, element, _STEP_KEYS, ("Log",))
        elif not _EVENT.holds(element):
            self.refuse(where, f"{_shown(element)} is no event", "give a mapping of field names to values")

    def _mock(self, where: _Path, mock: Any) -> None:
        self.mapping(where, mock, _MOCK_KEYS, ("objectName", "returnValue"))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."
