"""Rule: a module's functions with their YAML, and one evaluation by the module contract (PANTHER_FORMAT 1.1).

In production a failing auxiliary function has a fall-back and leaves a RuleError; only rule() decides whether there is a
match. The order of the functions is the contract's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rules.errors import FunctionReturnTypeError, SourceLocation, StateReached
from rules.event import PantherEvent

if TYPE_CHECKING:
    from rules.globals import Restorer
    from rules.guards import Guard

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
    """Of the Python file, relative to the pack; of the YAML where the rule is a simple detection."""
    yaml_path: str
    log_types: frozenset[str]
    """Empty for scheduled rules and policies."""
    severity: str
    """One of SEVERITIES."""
    kind: Literal["rule", "scheduled_rule", "policy"] = "rule"
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
    """The YAML as it stands, for filters; of a derived rule together with its base's."""


class Match(NamedTuple):
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


class RuleError(NamedTuple):
    """A function of a rule that failed; `location` is the innermost frame in the pack (of a recursion without end the outermost),
    `path:line`."""

    function: str
    error: str
    message: str
    location: str


class Outcome(NamedTuple):
    """What an evaluation came to."""

    match: Match | None
    errors: tuple[RuleError, ...]


NO_MATCH = Outcome(None, ())
"""The outcome of nearly every evaluation. Compare by identity."""

Function = Callable[[PantherEvent], Any]

PACK_PREFIX = "pack:"
"""Rule modules are compiled under `pack:<path in the pack>`, which no file on disk is called."""


class Rule:
    """One rule. Not thread-safe: its functions share the module's globals, which are put back before each run."""

    def __init__(
        self,
        spec: RuleSpec,
        functions: Mapping[str, Function],
        *,
        namespace: dict[str, Any],
        reaches_state: bool,
        restorer: Restorer | None = None,
        shared: Sequence[Restorer] = (),
        find_guard: Callable[[str], Guard | None] = lambda log_type: None,
        filter: Callable[[PantherEvent], bool] | None = None,
    ) -> None:
        """`restorer` puts back what is the module's own, `shared` what other rules might see too."""
        self.spec = spec
        self.id = spec.id
        self.kind = spec.kind
        self.log_types = spec.log_types
        self.reaches_state = reaches_state
        """False only where no import in the pack could lead to a caching helper."""
        self.changes_globals = restorer is not None or bool(shared)
        """Its functions may change globals of modules, which are put back for each run."""
        self.namespace = namespace
        """The module's globals."""
        self.defined = frozenset(functions)
        """The names of the functions that the module has."""
        self.has_unique = "unique" in functions
        self._functions = functions
        self._rule = functions["rule"]
        self._filter = filter
        self._restorer = restorer
        self._shared = tuple(shared)
        self._find_guard = find_guard
        self._guards: dict[str, Guard | None] = {}
        self._default_dedup = f"defaultDedupString:{spec.id}"

    def guard(self, log_type: str) -> Guard | None:
        """What must hold of an event of a log type for it to match or to reach state; found when it is first asked for.

        To be asked between evaluations. None where nobody has looked.
        """
        if log_type not in self._guards:
            self._restore_shared()
            if self._restorer is not None:
                self._restorer.restore()
            self._guards[log_type] = self._find_guard(log_type)
        return self._guards[log_type]

    def run(self, event: PantherEvent) -> Outcome:
        """The filter, rule() and, on a match, all auxiliary functions, in production mode. Never raises for what they do.

        What a run that a helper ended (StateReached) came to is for the evaluation's record to say: it gives NO_MATCH.
        """
        if self._restorer is not None:
            self._restorer.restore()
        try:
            if self._filter is None:  # _unless_matched() but for the call: nearly all evaluations end here
                try:
                    verdict = self._rule(event)
                except StateReached:
                    return NO_MATCH
                except BaseException as error:
                    return Outcome(None, (_error("rule", error),))
                if verdict is False:
                    return NO_MATCH
                outcome = self._unusable(verdict)
            else:
                outcome = self._unless_matched(event)
            if outcome is not None:
                return outcome
            errors: list[RuleError] = []
            return Outcome(self._match(event, errors), tuple(errors))
        except StateReached:
            return NO_MATCH
        finally:
            if self._shared:
                self._restore_shared()

    def run_all(self, event: PantherEvent) -> tuple[bool, Match | None, tuple[RuleError, ...]]:
        """In test mode: the auxiliary functions as well where rule() says False.

        What rule() said, False where it raised; what the auxiliary functions made, None where they were not called since the
        filter kept the event out, rule() raised, or a helper ended the run.
        """
        if self._restorer is not None:
            self._restorer.restore()
        try:
            outcome = self._unless_matched(event)
            if outcome is not None and (outcome.errors or not self._passes(event)):
                return False, None, outcome.errors
            errors: list[RuleError] = []
            return outcome is None, self._match(event, errors), tuple(errors)
        except StateReached:
            return False, None, ()
        finally:
            self._restore_shared()

    def _restore_shared(self) -> None:
        """At the end of a run, not before the next: another rule may be the next to see it."""
        for restorer in self._shared:
            restorer.restore()

    def _passes(self, event: PantherEvent) -> bool:
        return self._filter is None or self._filter(event) is True

    def _unless_matched(self, event: PantherEvent) -> Outcome | None:
        """What the evaluation comes to unless rule() says True; None if it does. Raises StateReached."""
        if self._filter is not None:
            try:
                if not self._passes(event):
                    return NO_MATCH
            except BaseException as error:
                return Outcome(None, (_error("inline_filters", error),))
        try:
            verdict = self._rule(event)
        except StateReached:
            raise
        except BaseException as error:
            return Outcome(None, (_error("rule", error),))
        return NO_MATCH if verdict is False else self._unusable(verdict)

    def _unusable(self, verdict: object) -> Outcome | None:
        """The error that what rule() returned comes to; None for True."""
        if verdict is True:
            return None
        return Outcome(None, (_error("rule", _wrong_type("policy" if self.kind == "policy" else "rule", "bool", verdict)),))

    def _match(self, event: PantherEvent, errors: list[RuleError]) -> Match:
        """Call the auxiliary functions in the contract's order."""
        spec = self.spec
        title = self._call("title", _text, event, errors, absent="", fallback=spec.id)
        description = self._call("description", _text, event, errors, absent=spec.description, fallback="")
        reference = self._call("reference", _text, event, errors, absent=spec.reference, fallback="")
        severity = self._call("severity", self._severity, event, errors, absent=spec.severity, fallback=spec.severity)
        runbook = self._call("runbook", _text, event, errors, absent=spec.runbook, fallback="")
        destinations = self._call("destinations", _destinations, event, errors, absent=None, fallback=None)
        dedup = self._call("dedup", _text, event, errors, absent=title, fallback="")
        context = self._call("alert_context", _context, event, errors, absent=None, fallback=_context_of_error)
        unique = self._call("unique", _text, event, errors, absent=None, fallback=None)
        return Match(
            title or spec.display_name or spec.id,
            dedup or self._default_dedup,
            severity,
            context,
            description,
            reference,
            runbook,
            destinations,
            unique,
            spec.create_alert and destinations != ["SKIP"],
        )

    def _call(
        self,
        name: str,
        check: Callable[[str, Any], Any],
        event: PantherEvent,
        errors: list[RuleError],
        *,
        absent: Any,
        fallback: Any,
    ) -> Any:
        """What a function gives, checked; `absent` where the module has none, `fallback` (a value, or made of the
        exception) where it fails."""
        function = self._functions.get(name)
        if function is None:
            return absent
        try:
            return check(name, function(event))
        except StateReached:
            raise
        except BaseException as error:
            errors.append(_error(name, error))
            return fallback(error) if callable(fallback) else fallback

    def _severity(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise _wrong_type(name, "str", value)
        severity = _exact(value).upper()
        if severity == "DEFAULT":
            return self.spec.severity
        if severity not in SEVERITIES:
            raise ValueError(f"severity() returned {value!r}: return one of {', '.join(SEVERITIES)} or DEFAULT")
        return severity

    @contextmanager
    def patched(self, replacements: Mapping[str, object]) -> Iterator[None]:
        """While this lasts the module's globals have these values instead; a test's mocks. A name that the module does not
        have, such as a builtin's, is its own for as long."""
        before = {name: self.namespace[name] for name in replacements if name in self.namespace}
        self._rebind(replacements)
        try:
            yield
        finally:
            for name in replacements.keys() - before.keys():
                self.namespace.pop(name, None)
            self._rebind(before)

    def _rebind(self, values: Mapping[str, object]) -> None:
        self.namespace.update(values)
        for restorer in (self._restorer, *self._shared):
            if restorer is not None and restorer.namespace is self.namespace:
                restorer.rebind(values)


# --- what functions return, checked -------------------------------------------------------------------------------


def _wrong_type(function: str, expected: str, value: Any) -> FunctionReturnTypeError:
    return FunctionReturnTypeError(f"{function}() returned {_kind(value)}: return {expected}")


def _kind(value: object) -> str:
    """The name of its class, without asking the class for it: that may be the rule's own code, and raise."""
    return _exact(_NAME(type(value)))


_NAME: Callable[[type], str] = type.__dict__["__name__"].__get__


def _exact(text: str) -> str:
    """A plain str, where a rule gives one of its own class: it travels, and must not bring the rule's methods along."""
    return text if type(text) is str else str.__str__(text)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - len(_CUT_MARK)] + _CUT_MARK


def _safe(text: str) -> str:
    """Lone surrogates cannot be written as UTF-8; they become question marks."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong_type(name, "str", value)
    return _safe(_cut(_exact(value)))


def _destinations(name: str, value: Any) -> list[str] | None:
    """An empty list skips the alert. Unknown names cannot be told apart here: there is no list of destinations."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong_type(name, "list of str or None", value)
    if not value:
        return ["SKIP"]
    if len(set(value)) != len(value):
        raise ValueError(f"destinations() returned {value!r}: name each destination once")
    return [_safe(_exact(item)) for item in value[:MAX_DESTINATIONS]]


# Not ensure_ascii: an escaped lone surrogate would be text that stricter JSON parsers refuse.
_context_text = json.JSONEncoder(default=PantherEvent.json_encoder, allow_nan=False, ensure_ascii=False).encode


def _context(name: str, value: Any) -> str:
    """JSON text. One that is too big is replaced by a note of its size, which by the contract is no error."""
    if not isinstance(value, Mapping):
        raise _wrong_type(name, "a mapping", value)
    text = _context_text(value)
    if len(text) > MAX_CONTEXT_CHARS:
        return json.dumps({"_error": f"alert_context size is [{len(text)}] characters, [{MAX_CONTEXT_CHARS}] at most"})
    return _safe(text)


def _context_of_error(error: BaseException) -> str:
    return json.dumps({"_error": _printed(repr, error)}, ensure_ascii=False)


# --- exceptions as data -------------------------------------------------------------------------------------------


def _error(function: str, error: BaseException) -> RuleError:
    trace = error.__traceback__
    if isinstance(error, RecursionError):
        # Where it runs out, and in what, depends on how deep the stack is above us, which differs between runtimes.
        place = next(_places(trace), None)
        return RuleError(function, _kind(error), "maximum recursion depth exceeded", str(place or ""))
    return RuleError(function, _kind(error), _printed(str, error), str(place_of(trace) or ""))


def _printed(how: Callable[[object], str], error: BaseException) -> str:
    try:
        return _safe(_cut(_exact(how(error))))
    except BaseException:
        return "<the exception cannot be printed>"


def place_of(trace: TracebackType | None) -> SourceLocation | None:
    """The innermost place inside the pack."""
    place = None
    for place in _places(trace):  # noqa: B007 - the last is wanted
        pass
    return place


def _places(trace: TracebackType | None) -> Iterator[SourceLocation]:
    """The places inside the pack, the outermost first. (traceback.extract_tb would look for the source on disk.)"""
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        if path.startswith(PACK_PREFIX):
            yield SourceLocation(path[len(PACK_PREFIX) :], trace.tb_lineno)
        trace = trace.tb_next
