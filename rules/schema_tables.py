"""The keys of every AnalysisType, as tables (PANTHER_FORMAT 1.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from rules.rule import SEVERITIES
from rules.schema_shapes import Choice, Each, Keys, Leaf, Named, Shape


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _differ(value: Any) -> bool:
    return _is_texts(value) and len({item.lower() for item in value}) == len(value)


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9


_ID = re.compile(r'[^<>&"%]+')

TEXT = Leaf("a text", lambda value: isinstance(value, str))
NAME = Leaf("a text that is not empty", lambda value: isinstance(value, str) and value != "")
RULE_ID = Leaf('a text without < > & " or %', lambda value: isinstance(value, str) and _ID.fullmatch(value) is not None)
SEVERITY = Leaf(
    "Info, Low, Medium, High or Critical", lambda value: isinstance(value, str) and value.upper() in SEVERITIES
)
BOOL = Leaf("true or false", lambda value: isinstance(value, bool))
NATURAL = Leaf("a whole number, 0 or more", lambda value: _is_int(value) and value >= 0)
POSITIVE = Leaf("a whole number, 1 or more", lambda value: _is_int(value) and value >= 1)
SECONDS = Leaf("a number of seconds", _is_seconds)
TEXTS = Leaf("a list of texts, each once", _differ)
LOG_TYPES = Leaf("a list of log types, at least one and each once", lambda value: value != [] and _differ(value))
NAMES = Leaf("a list of names, at least one and each once", lambda value: value != [] and _differ(value))
REPORTS = Leaf(
    "lists by name", lambda value: isinstance(value, dict) and all(isinstance(items, list) for items in value.values())
)
LIST = Leaf("a list", lambda value: isinstance(value, list))
MAPPING = Leaf("a mapping", lambda value: isinstance(value, dict))
EVENT = Leaf("an event, a mapping of field names to values", lambda value: isinstance(value, dict))
TIMES = Leaf(
    "a list of whole numbers or of times",
    lambda value: isinstance(value, list) and all(_is_int(item) or isinstance(item, str) for item in value),
)
ANY = Leaf("anything", lambda value: True)

# --- tests -------------------------------------------------------------------------------------------------------


def is_step(element: Mapping[str, Any]) -> bool:
    """Whether an element of Logs is an event with instructions; otherwise it is the event.

    A name that only instructions have decides: a misspelled `Log` beside them must not turn them into an event.
    """
    return isinstance(element.get("Log"), dict) or not element.keys().isdisjoint(_INSTRUCTIONS)


_INSTRUCTIONS = frozenset({"EverySeconds", "ExpectedAlerts", "ExpectedMatches"})


_STEP = Keys(
    {"Count": POSITIVE, "EverySeconds": SECONDS, "ExpectedAlerts": NATURAL, "ExpectedMatches": NATURAL, "Log": EVENT},
    required=("Log",),
)
_MOCK = Keys({"objectName": TEXT, "returnValue": ANY}, required=("objectName", "returnValue"))

_ANY_TEST: Final[Mapping[str, Shape]] = {
    "ExpectedContext": MAPPING,
    "ExpectedDedup": TEXT,
    "ExpectedDestinations": TEXTS,
    "ExpectedResult": BOOL,
    "ExpectedSeverity": SEVERITY,
    "ExpectedTitle": TEXT,
    "LogType": TEXT,
    "Mocks": Each(_MOCK),
    "Name": TEXT,
    "ResourceType": TEXT,
}
RULE_TEST = Keys(
    {
        **_ANY_TEST,
        "AlsoRun": TEXTS,
        "Log": EVENT,
        "Logs": Each(Choice(lambda value: _STEP if isinstance(value, dict) and is_step(value) else EVENT), at_least=1),
    },
    required=("Name", "ExpectedResult"),
    one_of=(("Log", "Logs"),),
)
_POLICY_TEST = Keys(
    {**_ANY_TEST, "Log": EVENT, "Resource": EVENT}, required=("Name", "ExpectedResult"), one_of=(("Resource", "Log"),)
)
_CORRELATION_TEST = Keys(
    {
        "ExpectedResult": BOOL,
        "Name": TEXT,
        "RuleOutputs": Each(Keys({"ID": TEXT, "Matches": Named(Named(TIMES))}, required=("ID",))),
    },
    required=("Name", "ExpectedResult", "RuleOutputs"),
)

# --- rules and policies ------------------------------------------------------------------------------------------

_ANY_DETECTION: Final[Mapping[str, Shape]] = {
    "AnalysisType": TEXT,
    "CreateAlert": BOOL,
    "CreatedBy": TEXT,
    "Description": TEXT,
    "DisplayName": TEXT,
    "Enabled": BOOL,
    "OnlyUseBaseRiskScore": BOOL,
    "OutputIds": TEXTS,
    "Reference": TEXT,
    "Reports": REPORTS,
    "Runbook": TEXT,
    "Severity": SEVERITY,
    "Status": TEXT,
    "SummaryAttributes": TEXTS,
    "Tags": TEXTS,
}
_OVERRIDES: Final[Mapping[str, Shape]] = {
    **_ANY_DETECTION,
    "AlertContext": LIST,  # what is in these is for rules/simple.py to read
    "AlertTitle": TEXT,
    "BaseVersion": NATURAL,
    "DedupPeriodMinutes": NATURAL,
    "DynamicSeverities": LIST,
    "GroupBy": LIST,
    "InlineFilters": LIST,
    "RuleID": RULE_ID,
    "Tests": Each(RULE_TEST),
    "Threshold": POSITIVE,
}
_RULE = Keys(
    {**_OVERRIDES, "Detection": LIST, "Filename": NAME, "LogTypes": LOG_TYPES},
    required=("RuleID", "Enabled", "Severity", "LogTypes"),
    one_of=(("Filename", "Detection"),),
)
_SCHEDULED_RULE = Keys(
    {**_OVERRIDES, "Detection": LIST, "Filename": NAME, "ScheduledQueries": NAMES},
    required=("RuleID", "Enabled", "Severity", "ScheduledQueries"),
    one_of=(("Filename", "Detection"),),
)
_DERIVED_RULE = Keys({**_OVERRIDES, "BaseDetection": RULE_ID}, required=("RuleID", "BaseDetection"))
_POLICY = Keys(
    {
        **_ANY_DETECTION,
        "ActionDelaySeconds": NATURAL,
        "AutoRemediationID": TEXT,
        "AutoRemediationParameters": MAPPING,
        "Detection": LIST,
        "Filename": NAME,
        "PolicyID": RULE_ID,
        "ResourceTypes": TEXTS,
        "Suppressions": TEXTS,
        "Tests": Each(_POLICY_TEST),
    },
    required=("PolicyID", "Enabled", "Severity", "Filename", "ResourceTypes"),
)

# --- correlation rules -------------------------------------------------------------------------------------------

_SCHEDULE = Keys(
    {"CronExpression": TEXT, "RateMinutes": POSITIVE, "TimeoutMinutes": POSITIVE},
    required=("TimeoutMinutes",),
    some_of=(("CronExpression", "RateMinutes"),),  # the public pack's own template gives both
    whole=Leaf(
        "a rate of more than a minute and no shorter than TimeoutMinutes",
        lambda value: (
            "CronExpression" in value or (value["RateMinutes"] > 1 and value["RateMinutes"] >= value["TimeoutMinutes"])
        ),
    ),
)
_STAGE = Keys(
    {"Absence": BOOL, "ID": TEXT, "MaxMatchCount": POSITIVE, "MinMatchCount": POSITIVE, "RuleID": RULE_ID},
    required=("ID", "RuleID"),
)
_TRANSITION = Keys(
    {
        "From": TEXT,
        "ID": TEXT,
        "Match": Each(
            Choice(
                lambda value: (
                    Keys({"On": TEXT}, required=("On",))
                    if isinstance(value, dict) and "On" in value
                    else Keys({"From": TEXT, "To": TEXT}, required=("From", "To"))
                )
            ),
            at_least=1,
            at_most=1,
        ),
        "To": TEXT,
        "WithinTimeFrameMinutes": POSITIVE,
    },
    required=("ID", "From", "To"),
)
_CORRELATION = Keys(
    {
        "EventEvaluationOrder": Leaf(
            "Chronological or ReverseChronological", lambda value: value in ("Chronological", "ReverseChronological")
        ),
        "Group": Each(_STAGE, at_least=1),
        "LookbackWindowMinutes": POSITIVE,
        "MatchCriteria": Named(Each(Keys({"GroupID": TEXT, "Match": TEXT}, required=("GroupID", "Match")), at_least=1)),
        "MinMatchCount": POSITIVE,
        "Schedule": _SCHEDULE,
        "Sequence": Each(_STAGE, at_least=1),
        "Transitions": Each(_TRANSITION, at_least=1),
    },
    required=("Schedule",),
    one_of=(("Sequence", "Group"),),
)
_CORRELATION_RULE = Keys(
    {
        **_ANY_DETECTION,
        "BaseVersion": NATURAL,
        "DedupPeriodMinutes": NATURAL,
        "Detection": Each(_CORRELATION, at_least=1, at_most=1),
        "RuleID": RULE_ID,
        "Tests": Each(_CORRELATION_TEST),
        "Threshold": POSITIVE,
    },
    required=("RuleID", "Enabled", "Severity", "Detection"),
)

# --- what rules use ----------------------------------------------------------------------------------------------

_QUERIES = ("Query", "AthenaQuery", "SnowflakeQuery", "DatabricksQuery")
_QUERY_KEYS: Final[Mapping[str, Shape]] = dict.fromkeys(_QUERIES, TEXT)

_MAPPING = Keys({"Method": NAME, "Name": NAME, "Path": NAME}, required=("Name",), one_of=(("Path", "Method"),))
_DATAMODEL = Keys(
    {
        "AnalysisType": TEXT,
        "DataModelID": NAME,
        "Description": TEXT,
        "DisplayName": TEXT,
        "Enabled": BOOL,
        "Filename": NAME,
        "LogTypes": LOG_TYPES,
        "Mappings": Each(_MAPPING),
    },
    required=("DataModelID", "Enabled", "LogTypes", "Mappings"),
)
_GLOBAL = Keys(
    {"AnalysisType": TEXT, "Description": TEXT, "Filename": NAME, "GlobalID": NAME, "Tags": TEXTS},
    required=("GlobalID", "Filename"),
)
_PACK = Keys(
    {
        "AnalysisType": TEXT,
        "Description": TEXT,
        "DisplayName": TEXT,
        "PackDefinition": Keys({"IDs": Each(TEXT)}, required=("IDs",)),
        "PackID": NAME,
    },
    required=("PackID", "PackDefinition"),
)
_REFRESH = Keys(
    {
        "AlarmPeriodMinutes": POSITIVE,
        "CronExpression": TEXT,
        "GCSCredentials": TEXT,
        "ObjectKMSKey": TEXT,
        "ObjectPath": TEXT,
        "PeriodMinutes": POSITIVE,
        "RoleARN": TEXT,
        "StorageProvider": TEXT,
    }
)
_LOOKUP_TABLE = Keys(
    {
        **_QUERY_KEYS,
        "AnalysisType": TEXT,
        "Description": TEXT,
        "DisplayName": TEXT,
        "Enabled": BOOL,
        "Filename": NAME,
        "Indicators": ANY,
        "LogTypeMap": Keys(
            {
                "AssociatedLogTypes": Each(
                    Keys({"LogType": NAME, "Selectors": Each(TEXT)}, required=("LogType", "Selectors"))
                ),
                "PrimaryKey": NAME,
            },
            required=("PrimaryKey", "AssociatedLogTypes"),
        ),
        "LookupName": NAME,
        "Reference": TEXT,
        "Refresh": _REFRESH,
        "Schema": TEXT,
        "Tags": TEXTS,
        "Validations": ANY,
    },
    required=("LookupName", "Enabled", "LogTypeMap"),
    one_of=(("Filename", "Refresh"),),
)

# --- queries -----------------------------------------------------------------------------------------------------

_ANY_QUERY: Final[Mapping[str, Shape]] = {
    **_QUERY_KEYS,
    "AnalysisType": TEXT,
    "Description": TEXT,
    "EmailConfig": MAPPING,
    "Enabled": BOOL,
    "Lookback": ANY,
    "LookbackWindowSeconds": NATURAL,
    "QueryName": NAME,
    "Tags": TEXTS,
}
_SAVED_QUERY = Keys(_ANY_QUERY, required=("QueryName",), some_of=(_QUERIES,))
_SCHEDULED_QUERY = Keys(
    {**_ANY_QUERY, "Schedule": _SCHEDULE}, required=("QueryName", "Enabled", "Schedule"), some_of=(_QUERIES,)
)
_SCHEDULED_PROMPT = Keys(
    {
        "AnalysisType": TEXT,
        "Description": TEXT,
        "DisplayName": TEXT,
        "EmailConfig": MAPPING,
        "Enabled": BOOL,
        "Prompt": TEXT,
        "PromptName": NAME,
        "Schedule": _SCHEDULE,
        "Tags": TEXTS,
    },
    required=("Prompt", "Schedule"),
)


def _rule_or_derived(plain: Keys) -> Choice:
    return Choice(lambda value: _DERIVED_RULE if isinstance(value, dict) and "BaseDetection" in value else plain)


SHAPES: Final[Mapping[str, Shape]] = {
    "correlation_rule": _CORRELATION_RULE,
    "datamodel": _DATAMODEL,
    "global": _GLOBAL,
    "lookup_table": _LOOKUP_TABLE,
    "pack": _PACK,
    "policy": _POLICY,
    "rule": _rule_or_derived(_RULE),
    "saved_query": _SAVED_QUERY,
    "scheduled_prompt": _SCHEDULED_PROMPT,
    "scheduled_query": _SCHEDULED_QUERY,
    "scheduled_rule": _rule_or_derived(_SCHEDULED_RULE),
}
"""AnalysisType -> the shape of such a file."""

ID_KEYS: Final[Mapping[str, str]] = {
    "correlation_rule": "RuleID",
    "datamodel": "DataModelID",
    "global": "GlobalID",
    "lookup_table": "LookupName",
    "pack": "PackID",
    "policy": "PolicyID",
    "rule": "RuleID",
    "saved_query": "QueryName",
    "scheduled_prompt": "PromptName",
    "scheduled_query": "QueryName",
    "scheduled_rule": "RuleID",
}
"""AnalysisType -> the key that holds its id. Ids under the same key must differ."""

NOT_RUN: Final[Mapping[str, str]] = {
    "correlation_rule": "correlation rules",
    "saved_query": "saved queries",
    "scheduled_prompt": "scheduled prompts",
    "scheduled_query": "scheduled queries",
}
"""AnalysisTypes that are checked and not run."""
