"""Rule: a module's functions with their YAML, and one evaluation by the module contract (PANTHER_FORMAT 1.1).

In production a failing auxiliary function has a fall-back and leaves a RuleError; only rule() decides whether there is a
match. The order of the functions is the contract's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rules.errors import FunctionReturnTypeError, StateReached
from rules.event import to_json

if TYPE_CHECKING:
    from rules.event import PantherEvent
    from rules.globals import Restorer

SEVERITIES = ("INFO", "LOW", "MEDIUM", "HIGH", "CRITICAL")

AUXILIARIES = (
    "title", "description", "reference", "severity", "runbook", "destinations", "dedup", "alert_context", "unique",
)  # fmt: skip
"""In the order in which they are called, after rule()."""

MAX_TEXT_CHARS = 1000
_CUT_MARK = "... (truncated)"
MAX_CONTEXT_CHARS = 200 * 1024
MAX_DESTINATIONS = 10


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """What the YAML says of a rule, checked."""

    id: str
    path: str
    """Of the Python file, relative to the pack."""
    yaml_path: str
    log_types: frozenset[str]
    severity: str
    """One of SEVERITIES."""
    display_name: str = ""
    enabled: bool = True
    dedup_period_s: int = 3600
    threshold: int = 1
    create_alert: bool = True
    description: str = ""
    reference: str = ""
    runbook: str = ""
    output_ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    reports: Mapping[str, list[str]] = field(default_factory=dict)
    status: str = ""
    tests: tuple[Mapping[str, Any], ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)
    """The YAML as it stands, for filters."""


@dataclass(frozen=True, slots=True)
class Match:
    """What a matching evaluation says of itself. All texts can be written as UTF-8."""

    title: str
    dedup: str
    severity: str
    context: str | None
    """JSON text."""
    description: str
    reference: str
    runbook: str
    destinations: list[str] | None
    """None: the normal routing (OutputIds)."""
    unique: str | None
    create_alert: bool


@dataclass(frozen=True, slots=True)
class RuleError:
    """A function of a rule that failed; `location` is the innermost frame in the pack, `path:line`."""

    function: str
    error: str
    message: str
    location: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an evaluation came to."""

    match: Match | None
    errors: tuple[RuleError, ...]


NO_MATCH = Outcome(None, ())
"""The outcome of nearly every evaluation. Compare by identity."""

Function = Callable[["PantherEvent"], Any]


class Rule:
    """One rule. Not thread-safe: its functions share the module's globals, which `restorer` puts back before each run."""

    def __init__(
        self,
        spec: RuleSpec,
        functions: Mapping[str, Function],
        *,
        namespace: dict[str, Any],
        reaches_state: bool,
        restorer: Restorer | None,
    ) -> None:
        self.spec = spec
        self.id = spec.id
        self.log_types = spec.log_types
        self.reaches_state = reaches_state
        """False only where no import in the pack could lead to a caching helper."""
        self.namespace = namespace
        """The module's globals; tests patch mocks into it."""
        self.defined = frozenset(functions)
        """The names of the functions that the module has."""
        self.has_unique = "unique" in functions
        self._functions = functions
        self._rule = functions["rule"]
        self._restorer = restorer
        self._default_dedup = f"defaultDedupString:{spec.id}"

    def run(self, event: PantherEvent) -> Outcome:
        """rule() and, on a match, all auxiliary functions, in production mode. Never raises for what they do."""
        if self._restorer is not None:
            self._restorer.restore()
        try:
            verdict = self._rule(event)
        except StateReached:
            return NO_MATCH  # what it came to is for evaluate() to say
        except BaseException as error:
            return Outcome(None, (self.error("rule", error),))
        if verdict is False:
            return NO_MATCH
        if verdict is not True:
            return Outcome(None, (self.error("rule", _wrong_type("rule", "bool", verdict)),))
        errors: list[RuleError] = []
        try:
            match = self._match(event, lambda name, error: errors.append(self.error(name, error)))
        except StateReached:
            return NO_MATCH
        return Outcome(match, tuple(errors))

    def _match(self, event: PantherEvent, failed: Callable[[str, BaseException], None]) -> Match:
        spec = self.spec

        def call(name: str, check: Callable[[str, Any], Any], fallback: Any) -> Any:
            try:
                return check(name, self._functions[name](event))
            except StateReached:
                raise
            except BaseException as error:
                failed(name, error)
                return fallback

        def text(name: str, fallback: str, absent: str) -> str:
            return call(name, _text, fallback) if name in self._functions else absent

        title = text("title", spec.id, "")
        description = text("description", "", spec.description)
        reference = text("reference", "", spec.reference)
        severity = call("severity", self._severity, spec.severity) if "severity" in self._functions else spec.severity
        runbook = text("runbook", "", spec.runbook)
        destinations = call("destinations", _destinations, None) if "destinations" in self._functions else None
        dedup = text("dedup", self._default_dedup, title) or self._default_dedup
        context = self._context(event, failed) if "alert_context" in self._functions else None
        unique = call("unique", _text, None) if self.has_unique else None
        return Match(
            title or spec.display_name or spec.id,
            dedup,
            severity,
            context,
            description,
            reference,
            runbook,
            destinations,
            unique,
            spec.create_alert and destinations != ["SKIP"],
        )

    def _context(self, event: PantherEvent, failed: Callable[[str, BaseException], None]) -> str:
        try:
            return _context("alert_context", self._functions["alert_context"](event))
        except StateReached:
            raise
        except BaseException as error:
            failed("alert_context", error)
            return json.dumps({"_error": _safe(repr(error))})

    def _severity(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise _wrong_type(name, "str", value)
        severity = value.upper()
        if severity == "DEFAULT":
            return self.spec.severity
        if severity not in SEVERITIES:
            raise ValueError(f"severity() returned {value!r}: one of {', '.join(SEVERITIES)} or DEFAULT is expected")
        return severity

    def error(self, function: str, error: BaseException) -> RuleError:
        """The exception as data, with the innermost place inside the pack."""
        try:
            message = str(error)
        except BaseException:
            message = "<the exception cannot be printed>"
        return RuleError(function, type(error).__name__, _safe(_cut(message)), _place(error.__traceback__))


def _place(trace: TracebackType | None) -> str:
    place = ""
    while trace is not None:
        filename = trace.tb_frame.f_code.co_filename
        if filename.startswith(PACK_PREFIX):
            place = f"{filename[len(PACK_PREFIX) :]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


PACK_PREFIX = "pack:"
"""Rule modules are compiled under `pack:<path in the pack>`, which no file on disk is called."""


def _wrong_type(function: str, expected: str, value: Any) -> FunctionReturnTypeError:
    return FunctionReturnTypeError(f"{function}() returned {type(value).__name__}: {expected} is expected")


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - len(_CUT_MARK)] + _CUT_MARK


def _safe(text: str) -> str:
    """Lone surrogates cannot be written as UTF-8; they become question marks."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong_type(name, "str", value)
    return _safe(_cut(value))


def _destinations(name: str, value: Any) -> list[str] | None:
    """An empty list skips the alert. Unknown names cannot be told apart here: there is no list of destinations."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong_type(name, "list of str or None", value)
    if not value:
        return ["SKIP"]
    if len(set(value)) != len(value):
        raise ValueError(f"destinations() returned {value!r}: the same destination twice")
    return [_safe(item) for item in value[:MAX_DESTINATIONS]]


def _context(name: str, value: Any) -> str:
    if not isinstance(value, Mapping):
        raise _wrong_type(name, "a mapping", value)
    text = to_json(value)
    if len(text) > MAX_CONTEXT_CHARS:
        size = (
            f"alert_context size is [{len(text)}] characters, bigger than maximum of [{MAX_CONTEXT_CHARS}] characters"
        )
        return json.dumps({"_error": size})
    return text
