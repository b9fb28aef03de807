"""`countersign explain`: what one rule asks of events, which keys it touches, and what it makes of given ones."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from cluster.core.records import time_text
from cluster.sources import InputMissing, InputUnreadable
from rules.errors import InvalidPack, Problem, SourceLocation
from rules.evaluation import Evaluation, evaluate
from rules.event import PantherEvent
from rules.guards import clause_text
from rules.guards.facts import ABSENT, Clause, clause_holds, value_at
from rules.jsontext import parse
from rules.lints.analysis import Access, Analysis
from rules.lints.sources import read_sources
from rules.logtypes import BadTime, LogType, recognise, undefined
from rules.pack import Pack, load_pack, log_types_of, read_files
from rules.rule import PACK_PREFIX, Outcome, Rule
from rules.state import Row, State


class NoSuchRule(Exception):
    """The pack has no rule of that id that can be run."""


def explain(directory: Path, rule_id: str, event_file: Path | None) -> None:
    """Print. Raises MissingPack, InvalidPack, NoSuchRule, InputMissing and InputUnreadable."""
    files = read_files([directory])
    pack = load_pack(files, quiet=True, tolerant=True)
    rule = _find(pack, rule_id)
    events = [] if event_file is None else _read(event_file)
    accesses = Analysis(read_sources(files)).accesses.get(rule_id, [])
    lines = [*_head(rule), "", *_guards(rule), "", *_keys(accesses)]
    if events:
        lines += _Runner(pack, rule).run(events)
    print("\n".join(lines))


def _find(pack: Pack, rule_id: str) -> Rule:
    found = {rule.id: rule for rule in pack.all_rules}
    if rule_id in found:
        return found[rule_id]
    problems = list(_problems_of(pack, rule_id))
    if problems:
        raise InvalidPack(problems)
    near = difflib.get_close_matches(rule_id, found, 3, cutoff=0.3)
    remedy = f"it may be {' or '.join(near)}" if near else "countersign check says what the pack holds"
    raise NoSuchRule(f"{rule_id}: the pack has no rule of that id: {remedy}")


def _problems_of(pack: Pack, rule_id: str) -> Iterator[Problem]:
    """What is wrong with the files of a rule that could not be loaded."""
    for path, data in pack.files.items():
        if path.endswith((".yml", ".yaml")) and rule_id.encode() in data:
            stem = path.rpartition(".")[0]
            yield from (each for each in pack.problems if each.location.path.rpartition(".")[0] == stem)


# --- of the rule -----------------------------------------------------------------------------------------------------


def _head(rule: Rule) -> list[str]:
    state = "may read and write state" if rule.reaches_state else "touches no state"
    off = "" if rule.spec.enabled else ", not enabled"
    return [f"{rule.id}: {rule.spec.path}, for {', '.join(sorted(rule.log_types))}; {state}{off}"]


def _guards(rule: Rule) -> list[str]:
    """What must hold of an event, for the log types together where it is the same."""
    texts: dict[tuple[str, ...], list[str]] = {}
    for log_type in sorted(rule.log_types):
        texts.setdefault(tuple(_guard(rule, log_type)), []).append(log_type)
    lines: list[str] = []
    for text, log_types in texts.items():
        on = f" on {', '.join(log_types)}" if len(texts) > 1 else ""
        lines += [f"Guard{on}: {text[0]}", *text[1:]]
    return lines


def _guard(rule: Rule, log_type: str) -> Iterator[str]:
    guard = rule.guard(log_type)
    if not guard:
        place = "" if guard is None or guard.place is None else f" ({guard.place})"
        yield f"none, it is evaluated on every event: {'' if guard is None else guard.reason}{place}"
        return
    clauses = guard.clauses
    yield "it is evaluated only where " + ("all of these hold" if len(clauses) > 1 else "this holds")
    for clause in clauses:
        yield f"  {clause_text(clause)}"
    if not guard.names_text:
        yield "None of that is a text that could be looked for first: every line of the log type is parsed for it"


def _keys(accesses: Sequence[Access]) -> list[str]:
    if not accesses:
        return ["Keys: none"]
    lines = ["Keys, as far as they can be read off:"]
    for access in accesses:
        does = " and ".join(word for word, on in (("reads", access.reads), ("writes", access.writes)) if on)
        keys = " or ".join(dict.fromkeys(map(str, access.keys))) or "?"
        lines.append(f"  {keys}: {access.helper}() {does or 'looks'}, {access.place.path}:{access.place.line}")
    return list(dict.fromkeys(lines))


# --- of events -------------------------------------------------------------------------------------------------------


def _read(path: Path) -> list[dict[str, Any]]:
    """The events of a file: one JSON object or a list of them, or JSON Lines."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputMissing(f"{path}: no such file: check its name") from None
    except OSError as error:
        raise InputMissing(f"{path}: {error.strerror}: check its permissions") from None
    try:
        whole: list[Any] = [parse(data)]
    except ValueError:
        whole = []
        for number, line in enumerate(data.splitlines(), 1):
            if line.strip():
                try:
                    whole.append(parse(line))
                except ValueError as error:
                    raise InputUnreadable(f"{path}:{number}: no JSON: {error}: give one event, or one a line") from None
    events: list[Any] = whole[0] if len(whole) == 1 and isinstance(whole[0], list) else whole
    if not events or not all(isinstance(event, dict) for event in events):
        raise InputUnreadable(f"{path}: holds no event: give a JSON object, or one a line")
    return events


class _Runner:
    """Evaluates one rule on events, on a state that is empty at first."""

    def __init__(self, pack: Pack, rule: Rule) -> None:
        self._pack = pack
        self._rule = rule
        self._types = log_types_of(pack)
        self._state = State()
        self._evaluation = Evaluation(self._state)

    def run(self, records: Sequence[dict[str, Any]]) -> Iterator[str]:
        number = 0
        for record in records:
            log_type = self._log_type(record)
            for event in log_type.events_of(record):
                number += 1
                yield ""
                yield from self._one(number, event, log_type)

    def _log_type(self, record: dict[str, Any]) -> LogType:
        name = record.get("p_log_type")
        if not isinstance(name, str) or not name:
            only = next(iter(self._rule.log_types)) if len(self._rule.log_types) == 1 else None
            name = recognise(record, self._types) or only or ""
        return self._types.get(name) or undefined(name)

    def _one(self, number: int, event: dict[str, Any], log_type: LogType) -> Iterator[str]:
        named = f"Event {number} ({log_type.name or 'of no known log type'})"
        if log_type.name not in self._rule.log_types:
            yield f"{named}: not evaluated: the rule is for {', '.join(sorted(self._rule.log_types))}"
            return
        guard = self._rule.guard(log_type.name)
        failing = [clause for clause in (guard.clauses if guard else ()) if not clause_holds(clause, event)]
        if failing:
            yield f"{named}: not evaluated, no match: the guard does not hold"
            for clause in failing:
                yield f"  {clause_text(clause)}, but {_there(clause, event)}"
            return
        try:
            time_s = log_type.time_of(event) or 0.0
        except BadTime as error:
            yield f"{named}: a dead letter: {error}"
            return
        self._state.clock_s = max(self._state.clock_s, time_s)
        derived = log_type.derive(event, time_s, (0, number), "explain")
        whole = PantherEvent(event, derived, self._pack.context_of(log_type.name))
        before = {row.key: row for row in self._state.rows(self._state.clock_s)}
        self._evaluation.begin_event(time_s, (0, number))
        with _ReturnOf(self._rule) as returned:
            outcome = evaluate(self._rule, whole, self._evaluation)
        yield f"{named}: {self._verdict(outcome, returned.place)}"
        yield from _details(outcome)
        yield from self._touched(before)

    def _verdict(self, outcome: Outcome, returned: SourceLocation | None) -> str:
        if outcome.match is not None:
            return "match" + ("" if returned is None else f": rule() returned True at {returned}")
        if any(error.function in ("rule", "inline_filters") for error in outcome.errors):
            return "an error, no match"
        if returned is None and self._rule.namespace:
            return "no match: the InlineFilters keep it out"
        return "no match" + ("" if returned is None else f": rule() returned False at {returned}")

    def _touched(self, before: dict[str, Row]) -> Iterator[str]:
        keys = self._evaluation.keys()
        if not keys:
            yield "  state: not touched"
        for key in keys:
            old, new = before.get(key), self._state.row(key)
            was = "nothing" if old is None else _row(old)
            if new.expiry_s is None or old == new:
                yield f"  state: {key!r} read: {was}"
            else:
                yield f"  state: {key!r} written: {_row(new)} (before: {was})"


def _there(clause: Clause, event: dict[str, Any]) -> str:
    """What stands where a clause looks."""
    found = []
    for path in sorted({fact.path for fact in clause}):
        value = value_at(event, path)
        text = "absent" if value is ABSENT else json.dumps(value, ensure_ascii=False, default=str)
        found.append(f"{'.'.join(path)} is {text if len(text) <= 80 else text[:77] + '...'}")
    return " and ".join(found)


def _details(outcome: Outcome) -> Iterator[str]:
    if outcome.match is not None:
        match = outcome.match
        yield f"  title: {match.title}"
        yield f"  dedup: {match.dedup}"
        yield f"  severity: {match.severity}"
        if match.unique is not None:
            yield f"  unique: {match.unique}"
    for error in outcome.errors:
        yield f"  {error.function}() raised {error.error}: {error.message}" + (
            f" at {error.location}" if error.location else ""
        )


def _row(row: Row) -> str:
    parts = []
    if row.counter is not None:
        parts.append(f"counter {row.counter}")
    if row.members is not None:
        parts.append(f"set {list(row.members)}")
    if row.dictionary is not None:
        parts.append(f"dictionary {row.dictionary}")
    until = f", until {time_text(row.expiry_s)}" if row.expiry_s is not None else ""
    return (", ".join(parts) or "no value") + until


class _ReturnOf:
    """Watches where rule() returns from."""

    def __init__(self, rule: Rule) -> None:
        self._code = getattr(rule.namespace.get("rule"), "__code__", None)
        self.place: SourceLocation | None = None

    def __enter__(self) -> _ReturnOf:
        self._before = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _call(self, frame: FrameType, kind: str, argument: Any) -> Any:
        if frame.f_code is not self._code:
            return None
        return self._line

    def _line(self, frame: FrameType, kind: str, argument: Any) -> Any:
        if kind == "return":
            path = frame.f_code.co_filename.removeprefix(PACK_PREFIX)
            self.place = SourceLocation(path, frame.f_lineno)
        return self._line
