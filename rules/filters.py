"""--filter: which detections of a pack are meant, by what their YAML says (PANTHER_FORMAT 3).

    KEY=V1,V2     the key holds one of the values
    KEY!=V1,V2    it holds none of them

Several filters must all hold. Values are compared without regard to case; where the key holds a list, one element is
enough. PackID names a pack manifest: it holds for the detections that the manifest lists.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rules.rule import Rule
from rules.yaml12 import BadYaml, load

KEYS = (
    "AnalysisType", "BaseDetection", "CreateAlert", "CreatedBy", "DedupPeriodMinutes", "Description", "DisplayName", "Enabled",
    "Filename", "LogTypes", "OnlyUseBaseRiskScore", "OutputIds", "PackID", "PolicyID", "Reference", "Reports",
    "ResourceTypes", "RuleID", "Runbook", "ScheduledQueries", "Severity", "Status", "SummaryAttributes", "Tags", "Threshold",
)  # fmt: skip
"""What can be asked for: the keys of rules, scheduled rules and policies, and PackID."""

_BOOLS = {
    **dict.fromkeys(("true", "yes", "on", "1"), "true"),
    **dict.fromkeys(("false", "no", "off", "0"), "false"),
}
_BOOL_KEYS = ("CreateAlert", "Enabled", "OnlyUseBaseRiskScore")

FILE = ".filter"
"""The name under which filters travel among a pack's files, one a line: a filtered pack is another pack, with its own digest.
Hidden, so that no directory of rules has it."""

Packs = Mapping[str, frozenset[str]]
"""PackID -> the ids that the manifest lists."""


class BadFilter(ValueError):
    """A filter that cannot be understood, or that nothing matches."""


_OTHER_KINDS = "only files of other kinds, or with errors, say so: countersign check tells which"


class _Spec(Protocol):
    """What a filter asks of a rules.rule.RuleSpec."""

    @property
    def id(self) -> str: ...
    @property
    def enabled(self) -> bool: ...
    @property
    def log_types(self) -> frozenset[str]: ...
    @property
    def severity(self) -> str: ...
    @property
    def raw(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Clause:
    """One --filter."""

    text: str
    key: str
    excludes: bool
    values: frozenset[str]
    """In lower case."""

    def holds(self, spec: _Spec, packs: Packs) -> bool:
        return self.values.isdisjoint(values_of(spec, self.key, packs)) is self.excludes


@dataclass(frozen=True, slots=True)
class Filter:
    """Several clauses, which must all hold; without any it wants everything."""

    clauses: tuple[Clause, ...] = ()

    def wants(self, rule: Rule, packs: Packs) -> bool:
        return self.holds(rule.spec, packs)

    def holds(self, spec: _Spec, packs: Packs) -> bool:
        """The same, of a rule that is not loaded yet."""
        return all(clause.holds(spec, packs) for clause in self.clauses)

    def refusal(self, files: Mapping[str, bytes]) -> BadFilter:
        """What to say where nothing in a pack matches: the filters, and what is near to values that none of its files has."""
        known: dict[str, set[str]] = {clause.key: set() for clause in self.clauses}
        for document in _documents(files):
            for key, values in known.items():
                values |= _texts(document.get(key))
        message = f"no detection matches {' and '.join(clause.text for clause in self.clauses)}"
        remedies = list(self._remedies(known))
        some = "each filter matches some, but all together none" if len(self.clauses) > 1 else _OTHER_KINDS
        return BadFilter(f"{message}: {', '.join(remedies) or some}")

    def _remedies(self, known: Mapping[str, set[str]]) -> Iterator[str]:
        for clause in self.clauses:
            by_folded = {value.lower(): value for value in sorted(known[clause.key])}
            if not clause.excludes and clause.values.isdisjoint(by_folded):
                near = [difflib.get_close_matches(value, by_folded, 3) for value in sorted(clause.values)]
                names = list(dict.fromkeys(by_folded[name] for each in near for name in each))
                names = names or list(by_folded.values())[:3]
                yield f"{clause.key} may be {' or '.join(names)}" if names else f"nothing has {clause.key}"


def _documents(files: Mapping[str, bytes]) -> Iterator[Mapping[str, Any]]:
    for path, data in sorted(files.items()):
        if path.endswith((".yml", ".yaml")):
            try:
                document, _ = load(data)
            except BadYaml:
                continue
            if isinstance(document, dict):
                yield document


def parse_filters(texts: Sequence[str]) -> Filter:
    """Raises BadFilter, which says what is wrong and what to write."""
    return Filter(tuple(map(_clause, texts)))


def _clause(text: str) -> Clause:
    key, mark, values = text.partition("=")
    excludes = key.endswith("!")
    key = key.removesuffix("!").strip()
    texts = frozenset(value.strip().lower() for value in values.split(",") if value.strip())
    if not mark or not texts:
        raise BadFilter(f"--filter {text}: no filter: write KEY=VALUE or KEY!=VALUE")
    if key not in KEYS:
        near = difflib.get_close_matches(key.lower(), {name.lower(): name for name in KEYS}, 1)
        meant = next((name for name in KEYS if near and name.lower() == near[0]), None)
        remedy = f"write {meant}" if meant else f"use one of {', '.join(KEYS)}"
        raise BadFilter(f"--filter {text}: {key!r} is no key of a detection: {remedy}")
    if key in _BOOL_KEYS:
        wrong = sorted(texts - _BOOLS.keys())
        if wrong:
            raise BadFilter(f"--filter {text}: {key} is true or false, not {wrong[0]}: write {key}=true")
        texts = frozenset(_BOOLS[value] for value in texts)
    return Clause(text, key, excludes, texts)


def values_of(spec: _Spec, key: str, packs: Packs) -> frozenset[str]:
    """What a detection has under a key, in lower case. What it has by default counts where the engine goes by it."""
    value: Any
    match key:
        case "PackID":
            value = [name for name, ids in packs.items() if spec.id in ids]
        case "Enabled":
            value = spec.enabled
        case "LogTypes":
            value = list(spec.log_types)
        case "Severity":
            value = spec.severity
        case "CreateAlert":
            value = spec.raw.get(key, True)
        case _:
            value = spec.raw.get(key)
    return frozenset(text.lower() for text in _texts(value))


def _texts(value: Any) -> set[str]:
    """A value as texts: each of a list, the names of a mapping."""
    items = value if isinstance(value, list | dict) else [value]
    return {str(item).lower() if isinstance(item, bool) else str(item) for item in items if item is not None}
