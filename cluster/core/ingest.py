"""Ingest: from a slice's bytes to events at the shards that own the keys they touch.

Every (event, rule) is probed: the rule runs until its first state access, which gives the key exactly, since up to there
it depends on the event and the code only. Evaluations that touch no state are final here. Pure: bytes in, values out.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, cast

import orjson

from cluster.core.errors import require
from cluster.core.keygroups import Owners, key_grouping
from cluster.core.lines import count, cut, cut_all, digest_of
from cluster.core.messages import (
    Counts,
    CutLines,
    FoundError,
    FoundMatch,
    Lines,
    Order,
    Output,
    Position,
    Records,
    RoutedSlice,
    RuleCounts,
    TooLong,
)
from cluster.core.poison import ENDED, NO_POISON, NOTHING, OFFSET, ORDINAL, SUB, Cells, Poison, Skips, place_of
from cluster.core.prefilter import Prefilter
from cluster.core.routed import Item, Route, RoutedEvent, RoutedEvents, packed
from cluster.core.watermark import SliceClock, SliceTimes
from rules.evaluation import NO_MATCH, REACHED, Evaluation, evaluate
from rules.event import EventContext, PantherEvent
from rules.guards import Index
from rules.jsontext import has_long_integer, parse, parse_rounding
from rules.logtypes import Derived, LogType, undefined
from rules.pack import Pack
from rules.recall import Known, Recall, RecalledEvent, RecordedEvent, Room, light
from rules.rule import Outcome, Rule

_DEAD_LETTER_HEAD_BYTES = 4096
"""How much of a record over the size limit a dead letter keeps: enough to see what it was."""

_RECALLED = 65_536
"""How many different probes are remembered."""


class _Reached(NamedTuple):
    """What a probe came to."""

    group: int
    """The key group that it reached; _NOWHERE where it touched no state."""
    route: Route | None
    """For the event where this is the only rule that reaches state; None where it touched none."""
    outcome: Outcome | None = None
    """What it came to if that is final and no NO_MATCH."""


_NOWHERE = -1
_SILENT = _Reached(_NOWHERE, None)


class NeedsTime(NamedTuple):
    """The slice starts with an event that has no time of its own: somebody must say the time before it."""

    last_time_s: float | None
    """The time of the slice's own last event that has one, for those who wait behind this slice."""


class FinalMatch(NamedTuple):
    """A match that touched no state; its clock waits for W at the slice's start."""

    found: FoundMatch
    local_w_s: float


@dataclass(slots=True)
class IngestedSlice:
    """What a slice came to."""

    routed: list[RoutedSlice]
    """One for each shard."""
    times: SliceTimes
    records: int
    last_time_s: float | None
    matches: list[FinalMatch] = field(default_factory=list)
    errors: list[FoundError] = field(default_factory=list)
    dead_letters: list[Output] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to do with events of one log type."""

    log_type: LogType
    splits: bool
    rules: tuple[tuple[int, tuple[int, ...], Rule, Recall[_Reached]], ...]
    """(ordinal in the pack, the same alone in a tuple, rule, what its probes came to), ascending."""
    candidates: Callable[[dict[str, Any], list[dict[str, str]]], tuple[int, ...]]
    """Which of `rules` an event can concern (Index.candidates)."""
    time_of: Callable[[dict[str, Any]], float | None]
    prefilter: Prefilter | None
    unfiltered: tuple[str, ...]
    """The RuleIDs because of which there is no prefilter."""
    context: EventContext | None


@dataclass(slots=True)
class _Work:
    """A slice while it is ingested."""

    done: IngestedSlice
    number: int
    partition: int
    source: str
    owners: Owners
    clock: SliceClock
    current_s: float | None
    """The time of the event in hand: its own, else that of the one before it (DESIGN 11.3)."""
    events: int = 0
    """How many were parsed so far: the place of the event in hand."""
    probes: int = 0
    cites: bool = False
    """The record in hand need not be carried along."""
    matched: bool = False
    """A rule that reached no state matched the event in hand."""


class _Probed:
    """An event for the rules that have to run on it, as it is first wanted."""

    __slots__ = ("_context", "_derived", "_plain", "_recorded", "data")

    def __init__(self, data: dict[str, Any], derived: Derived, context: EventContext | None) -> None:
        """`data` is exact: rules that run may look at any number."""
        self.data = data
        self._derived = derived
        self._context = context
        self._plain: PantherEvent | None = None
        self._recorded: RecordedEvent | None = None

    def plain(self) -> PantherEvent:
        """For a rule of whose probe nothing is kept."""
        if self._plain is None:
            self._plain = PantherEvent(self.data, self._derived, self._context)
        return self._plain

    def recorded(self) -> RecordedEvent:
        """The same, asked for nothing yet."""
        if self._recorded is None:
            self._recorded = RecordedEvent(self.data, self._derived, self._context)
        else:
            self._recorded.begin()
        return self._recorded


Reread = Callable[[int, int, int, int], bytes]
"""(partition, offset, length, digest) -> a record's bytes. Raises what ends the run where they are not what they were."""


class Decoder:
    """Turns a record's bytes into events the same way at ingest and, for routed events, at the owner of their key.

    Records that can be read again are cited, where somebody gives a function for that: few of them are needed again, and an
    event is a fifth as large without its bytes.
    """

    def __init__(
        self,
        log_types: Mapping[str, LogType],
        context_of: Callable[[str], EventContext | None],
        *,
        plain: bool = False,
        reread: Reread | None = None,
    ) -> None:
        """`plain`: make no heirs of PantherEvent, which need all bytes."""
        self.plain = plain
        self.cites = reread is not None and not plain
        self._reread = reread
        self._failure: Exception | None = None
        self._log_types = dict(log_types)
        self._context_of = context_of

    def log_type(self, name: str) -> LogType:
        found = self._log_types.get(name)
        if found is None:
            found = self._log_types[name] = undefined(name)
        return found

    def routed(self, event: RoutedEvent, source: str) -> PantherEvent:
        """A routed event, which is parsed only if more is asked of it than at ingest."""
        context = self._context_of(event.log_type)
        if self.plain:
            return PantherEvent(*self._parsed(source, event), context)
        return RecalledEvent(event.known, event.epoch_s, partial(self._parsed, source), event, context)

    def events(self, routed: RoutedEvents, source: str) -> Iterator[tuple[Item, PantherEvent]]:
        """routed() for the events of a slice, as its columns have them."""
        if self.plain:
            for item in routed.items():
                yield item, self.routed(routed.event(item), source)
            return

        def parsed(item: Item) -> _Parsed:
            return self._parsed(source, routed.event(item))

        of: str | None = None
        context: EventContext | None = None
        for item in routed.items():
            row, (log_type, _, known) = item
            if log_type != of:
                of, context = log_type, self._context_of(log_type)
            yield item, RecalledEvent(known, row[6], parsed, item, context)

    def _parsed(self, source: str, event: RoutedEvent) -> _Parsed:
        """A routed event's record; its bytes were parsed once already, at ingest, so they cannot fail here."""
        log_type, position, raw = self.log_type(event.log_type), event.position, event.raw
        if not isinstance(raw, bytes):
            raw = self._read_again(position, *raw)
        _, _, sub = place_of(position)
        data = log_type.events_of(cast(dict[str, Any], parse(raw)))[sub]
        return data, log_type.derive(data, event.time_s, position, source)

    def _read_again(self, position: Position, length_bytes: int, digest: int) -> bytes:
        try:
            require(self._reread is not None, "a record is cited to a shard that cannot read it")
            assert self._reread is not None
            return self._reread(position[0], position[1], length_bytes, digest)
        except Exception as error:
            self._failure = error  # a rule may be asking, and swallow it
            raise

    def check(self) -> None:
        """Raise what reading again came to, if that failed since the last time: no evaluation since then counts."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


_Parsed = tuple[dict[str, Any], Derived]
"""An event and its p_ fields."""


class Ingest:
    """The ingesting half of one shard. Keeps nothing between slices but caches."""

    def __init__(
        self,
        pack: Pack,
        decoder: Decoder,
        key_groups: int,
        cells: Cells,
        *,
        use_index: bool = True,
        use_prefilter: bool = True,
    ) -> None:
        self._cells = cells
        self._use_index = use_index
        self._use_prefilter = use_prefilter
        self._decoder = decoder
        self._rules = pack.rules
        self._context_of = pack.context_of
        self._plans: dict[str, _Plan] = {}
        self._room = Room(_RECALLED)
        self._group_of = key_grouping(key_groups)
        self._evaluation = Evaluation(None, tell_ended=partial(cells.__setitem__, ENDED))
        self._skips = Skips(NO_POISON, ())
        self._on_event = self._event

    def poison(self, poison: Poison) -> None:
        """Skip these evaluations from here on, and end those for good that would not end."""
        self._evaluation.swallowing = frozenset(poison.swallowing)
        self._skips = Skips(poison, self._rules)
        self._on_event = self._event_of_poisoned if self._skips else self._event

    def _plan(self, log_type: str) -> _Plan:
        plan = self._plans.get(log_type)
        if plan is None:
            chosen = tuple((n, rule) for n, rule in enumerate(self._rules) if log_type in rule.log_types)
            kind = self._decoder.log_type(log_type)
            index = Index([rule.guard(log_type) if self._use_index else None for _, rule in chosen])
            filters = self._use_prefilter and kind.split is None
            texts = index.texts if filters else None
            prefilter = None if texts is None else Prefilter.of(texts)
            plan = _Plan(
                kind,
                kind.split is not None,
                tuple((n, (n,), rule, Recall(self._room, off=self._decoder.plain)) for n, rule in chosen),
                index.candidates,
                kind.timer(),
                prefilter,
                tuple(chosen[n][1].id for n in index.without_texts) if filters else (),
                self._context_of(log_type),
            )
            self._plans[log_type] = plan
        return plan

    def slice(
        self,
        number: int,
        partition: int,
        source: str,
        log_type: str,
        records: Records,
        time_before_s: float | None,
        owners: Owners,
        shards: int,
    ) -> IngestedSlice | NeedsTime:
        """Ingest one slice for `shards` shards, of which `owners` says who gets what.

        `log_type` is that of the partition; a record's own p_log_type wins. `time_before_s` is the time of the last event
        before the slice, None while it is not known: NeedsTime is returned if it turns out to matter.
        """
        done = IngestedSlice(
            [RoutedSlice(number, SliceTimes(), RoutedEvents(partition)) for _ in range(shards)],
            SliceTimes(),
            0,
            None,
        )
        work = _Work(done, number, partition, source, owners, SliceClock(), time_before_s)
        default = self._plan(log_type)
        loads = orjson.loads
        too_long = list(records.too_long)
        for batch in _batches(records, default.prefilter, too_long):
            done.counts.skipped_unparsed += batch.skipped
            done.records += batch.skipped + len(batch.raws)
            settled = 0  # the times before it are known
            work.cites = batch.again and self._decoder.cites
            for raw, offset, start, stop in zip(batch.raws, batch.offsets, batch.starts, batch.stops, strict=True):
                try:
                    try:
                        record = loads(raw)
                    except orjson.JSONDecodeError:
                        record = parse_rounding(_without_newline(raw))
                    if type(record) is not dict:
                        raise ValueError(f"the record is {_kind(record)}, not an object")
                    own_type = record.get("p_log_type")
                    plan = default if own_type is None else self._own_plan(own_type, default)
                    if plan.splits:
                        timed = _split(plan.log_type, raw, (partition, offset))
                    else:
                        own_s = plan.time_of(record)
                except ValueError as error:
                    done.dead_letters.append(_dead_letter(number, (partition, offset), source, str(error), _without_newline(raw)))
                    continue
                if (plan.splits or own_s is None) and start > settled:
                    self._settle(work, batch.backwards(settled, start), log_type)
                settled = stop
                if plan.splits:
                    if not all(self._take(work, plan, *each, raw) for each in timed):
                        return self._needs_time(records, log_type)
                    self._cells[SUB] = 0
                    continue
                # _take() written out, without what only split records need: nearly all events of a run pass here.
                if own_s is not None:
                    work.current_s = done.last_time_s = own_s
                elif work.current_s is None:
                    return self._needs_time(records, log_type)
                folded: list[dict[str, str]] = []
                candidates = plan.candidates(record, folded)
                if candidates:
                    self._on_event(work, plan, candidates, record, folded, (partition, offset), raw)
                work.events += 1
            if batch.skipped:
                self._settle(work, batch.backwards(settled, batch.end), log_type)
        done.counts.events = work.events + done.counts.skipped_unparsed
        done.counts.probes = work.probes
        for rule_id in default.unfiltered:
            done.counts.rules[rule_id] = RuleCounts(parsed=work.events)
        done.dead_letters += [_too_long(number, partition, source, long) for long in too_long]
        done.records += len(too_long)
        done.times = work.clock.times()
        done.routed = [RoutedSlice(number, done.times, r.events) for r in done.routed]
        return done

    def _settle(self, work: _Work, skipped_backwards: Iterable[bytes], log_type: str) -> None:
        """Take over the time of what was skipped, for events after it that have none."""
        skipped_s = self._last_time(skipped_backwards, log_type)
        if skipped_s is not None:
            work.current_s = work.done.last_time_s = skipped_s

    def _needs_time(self, records: Records, log_type: str) -> NeedsTime:
        return NeedsTime(self._last_time(reversed(cut_all(records).raws), log_type))

    def _take(
        self, work: _Work, plan: _Plan, event: dict[str, Any], own_s: float | None, position: Position, raw: bytes
    ) -> bool:
        """Ingest one event; False where it needs a time and nobody has said the one before it."""
        if own_s is not None:
            work.current_s = work.done.last_time_s = own_s
        elif work.current_s is None:
            return False
        folded: list[dict[str, str]] = []
        candidates = plan.candidates(event, folded)
        if candidates:
            self._cells[SUB] = position[2] if len(position) > 2 else 0
            self._on_event(work, plan, candidates, event, folded, position, raw)
        work.events += 1
        return True

    def _own_plan(self, own_type: object, default: _Plan) -> _Plan:
        """The plan of the record's own p_log_type, which wins over that of its partition."""
        return self._plan(own_type) if isinstance(own_type, str) and own_type else default

    def _event_of_poisoned(
        self,
        work: _Work,
        plan: _Plan,
        candidates: tuple[int, ...],
        data: dict[str, Any],
        folded: list[dict[str, str]],
        position: Position,
        raw: bytes,
    ) -> None:
        """_event() for the rules that are to be run, and what is said of those that hung on this event."""
        skips, place = self._skips, place_of(position)
        for ordinal, error in skips.errors(place, (plan.rules[candidate][0] for candidate in candidates)):
            order = (work.number, work.events, ordinal)
            found = FoundError(order, position, event_id_of(row_id_of(data), position), self._rules[ordinal].id, error)
            work.done.errors.append(found)
        candidates = tuple(candidate for candidate in candidates if skips.runs(place, plan.rules[candidate][0]))
        if candidates:
            self._event(work, plan, candidates, data, folded, position, raw)

    def _event(
        self,
        work: _Work,
        plan: _Plan,
        candidates: tuple[int, ...],
        data: dict[str, Any],
        folded: list[dict[str, str]],
        position: Position,
        raw: bytes,
    ) -> None:
        """Find out which key groups the event's rules reach, those whose guard it meets, and send it to their owners.

        Long integers in `data` may be rounded. Recall takes no float for known, so what it says holds of the exact data too.
        """
        time_s = work.current_s or 0.0
        event: _Probed | None = None
        route: Route | None = None
        others: tuple[tuple[int, Route], ...] = ()
        rules, owners = plan.rules, work.owners
        for candidate in candidates:
            ordinal, alone, rule, recall = rules[candidate]
            reached = None if recall.off else recall.find(data, folded)
            if reached is None:
                if event is None:
                    event = self._probed(work, plan, data, time_s, position, raw)
                reached = self._probe(work, plan, ordinal, alone, rule, recall, event, position)
            group, its_route, outcome = reached
            if its_route is None:
                if outcome is not None:
                    self._final(work, plan, rule, (work.number, work.events, ordinal), data, time_s, position, outcome)
            elif route is None:
                owner, route = owners[group], its_route
            else:
                others = (*others, (owners[group], its_route))
        work.probes += len(candidates)
        if route is not None:
            clock, place = work.clock, work.events
            epoch_s = PantherEvent(data).event_time_epoch() if "p_event_time" in data else int(time_s)
            length_bytes, digest = (len(raw), digest_of(raw)) if work.cites else (0, 0)
            row = packed(place, position[1], time_s, clock.local_w_s, length_bytes, digest, epoch_s)
            row_id = row_id_of(data) if "p_row_id" in data else None
            routes = ((owner, route),)
            for owner, route in _merged(routes + others) if others else routes:
                events = work.done.routed[owner].events
                events.append(row, route)
                if not work.cites:
                    events.raws[place] = _without_newline(raw)
                if row_id is not None:
                    events.row_ids[place] = row_id
                if plan.splits and len(position) > 2:
                    events.subs[place] = position[2]
            clock.activate(place, time_s)
        elif work.matched:
            work.clock.activate(work.events, time_s)
        work.matched = False

    def _probed(
        self, work: _Work, plan: _Plan, data: dict[str, Any], time_s: float, position: Position, raw: bytes
    ) -> _Probed:
        """The event for rules that have to run."""
        if not plan.splits and has_long_integer(raw):  # what was split is exact
            data = cast(dict[str, Any], parse(raw))
        self._evaluation.begin_event(time_s, position)
        return _Probed(data, plan.log_type.derive(data, time_s, position, work.source), plan.context)

    def _probe(
        self,
        work: _Work,
        plan: _Plan,
        ordinal: int,
        alone: tuple[int, ...],
        rule: Rule,
        recall: Recall[_Reached],
        event: _Probed,
        position: Position,
    ) -> _Reached:
        """Run a rule until it reaches state. What it comes to without is final."""
        evaluation = self._evaluation
        self._cells[OFFSET] = position[1]
        self._cells[ORDINAL] = ordinal
        if self._decoder.plain or (recall.off and not rule.reaches_state):
            recorded, known = None, {}
            outcome = evaluate(rule, event.plain(), evaluation)
        else:
            recorded = event.recorded()
            known = recorded.known
            outcome = evaluate(rule, recorded, evaluation)
        self._cells[ORDINAL] = NOTHING
        if outcome is REACHED:
            found = _Reached(self._group_of(evaluation.key or ""), (plan.log_type.name, alone, light(known)))
        else:
            found = _SILENT if outcome is NO_MATCH else _Reached(_NOWHERE, None, outcome)
        if recorded is not None and not recall.off:
            recall.learn_from(recorded, outcome, evaluation, found)
        return found

    def _final(
        self,
        work: _Work,
        plan: _Plan,
        rule: Rule,
        order: Order,
        data: dict[str, Any],
        time_s: float,
        position: Position,
        outcome: Outcome,
    ) -> None:
        """An outcome that needs no state."""
        done = work.done
        work.matched |= outcome.match is not None
        event_id = event_id_of(row_id_of(data), position)
        done.counts.evaluations += 1
        for error in outcome.errors:
            done.errors.append(FoundError(order, position, event_id, rule.id, error))
        if outcome.match is not None:
            found = FoundMatch(order, position, event_id, plan.log_type.name, time_s, 0.0, outcome.match)
            done.matches.append(FinalMatch(found, work.clock.local_w_s))

    def _last_time(self, backwards: Iterable[bytes], log_type: str) -> float | None:
        """The first time that any event of these records, the last of which comes first, has of its own."""
        for raw in backwards:
            try:
                record = parse_rounding(raw)
                if not isinstance(record, dict):
                    continue
                kind = self._own_plan(record.get("p_log_type"), self._plan(log_type)).log_type
                times = [kind.time_of(event) for event in kind.events_of(record)]
            except ValueError:
                continue
            known = [time_s for time_s in times if time_s is not None]
            if known:
                return known[-1]
        return None


class _Batch(NamedTuple):
    """Records to parse, and what was skipped around them. A place is an index into `source`."""

    raws: Sequence[bytes]
    offsets: Sequence[int]
    starts: Sequence[int]
    """The place of each."""
    stops: Sequence[int]
    """The place after each."""
    end: int
    """The place after the last, parsed or skipped."""
    skipped: int
    source: bytes | list[bytes]
    again: bool = False
    """The records can be read again."""

    def backwards(self, start: int, stop: int) -> Iterator[bytes]:
        """The records that lie between two places, the last one first. Of lines nearly always one is asked for."""
        source = self.source
        if not isinstance(source, bytes):
            yield from reversed(source[start:stop])
            return
        while stop > start:
            newline = source.rfind(b"\n", start, stop)
            yield source[max(newline + 1, start) : stop]
            stop = newline


def _batches(records: Records, prefilter: Prefilter | None, too_long: list[TooLong]) -> Iterator[_Batch]:
    """What of a slice to parse; what is found to be too long is added to `too_long`.

    Where looking spares little, the rest of the slice is not looked at any more. That depends on the slice alone, so that a
    replay makes the same dead letters.
    """
    for part in records.lines:
        if isinstance(part, CutLines):
            too_long += part.too_long
            yield _batch_of_records(part.raws, part.offsets, None)
            continue
        batch = _batch_of_lines(part, prefilter)
        if batch.skipped < len(batch.raws):
            prefilter = None
        yield batch
    if records.raws:
        yield _batch_of_records(records.raws, records.offsets, prefilter)


def _batch_of_lines(lines: Lines, prefilter: Prefilter | None) -> _Batch:
    found = None if prefilter is None else prefilter.lines(lines)
    if found is None:
        return _batch_of_records(*cut(lines), None)._replace(again=lines.again)
    data, offset = lines.data, lines.offset
    starts, stops = found
    return _Batch(
        [data[start:stop] for start, stop in zip(starts, stops, strict=True)],
        [offset + start for start in starts],
        starts,
        [stop + 1 for stop in stops],
        lines.end,
        count(lines) - len(starts),
        data,
        lines.again,
    )


def _batch_of_records(raws: list[bytes], offsets: list[int], prefilter: Prefilter | None) -> _Batch:
    kept = None if prefilter is None else prefilter.records(raws)
    if kept is None:
        return _Batch(raws, offsets, range(len(raws)), range(1, len(raws) + 1), len(raws), 0, raws)
    chosen, places = [raws[number] for number in kept], [offsets[number] for number in kept]
    stops = [number + 1 for number in kept]
    return _Batch(chosen, places, kept, stops, len(raws), len(raws) - len(kept), raws)


def _split(kind: LogType, raw: bytes, position: Position) -> list[tuple[dict[str, Any], float | None, Position]]:
    """The events of a record whose log type splits records, with their own times and positions. Raises BadTime."""
    record = cast(dict[str, Any], parse(raw))
    events = kind.events_of(record)
    if len(events) == 1 and events[0] is record:
        return [(record, kind.time_of(record), position)]
    return [(event, kind.time_of(event), (*position, sub)) for sub, event in enumerate(events)]


def _merged(routes: Sequence[tuple[int, Route]]) -> list[tuple[int, Route]]:
    """Routes of one event's rules, with their owners -> one for each owner. Each knows what any of the rules asked for."""
    rules: dict[int, tuple[int, ...]] = {}
    known: Known = {}
    log_type, _, _ = routes[0][1]
    for owner, (_, its_rules, asked) in routes:
        rules[owner] = rules.get(owner, ()) + its_rules
        known.update(asked)
    return [(owner, (log_type, its_rules, known)) for owner, its_rules in rules.items()]


def event_id_of(row_id: str | None, position: Position) -> str:
    """The event's own id, else `<partition>:<offset>` (and `:<sub-index>` of a split record)."""
    if row_id is not None:
        return row_id
    return f"{position[0]}:{position[1]}" if len(position) == 2 else ":".join(map(str, position))


def row_id_of(event: Mapping[str, Any]) -> str | None:
    """The event's own p_row_id, if that is a text."""
    own = event.get("p_row_id")
    return own if isinstance(own, str) and own else None


def _without_newline(raw: bytes) -> bytes:
    """A record as it is carried along or told of, whether it was cut with its newline or without."""
    return raw.removesuffix(b"\n")


def _kind(value: object) -> str:
    return {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")


def _dead_letter(number: int, position: Position, source: str, reason: str, raw: bytes) -> Output:
    return Output((number, position[1], 0), position, _letter(position, source, reason, len(raw), raw))


def _too_long(number: int, partition: int, source: str, long: TooLong) -> Output:
    position = (partition, long.offset)
    reason = f"the record has {long.length_bytes} bytes, over the limit: raise COUNTERSIGN_MAX_EVENT_BYTES to take it"
    letter = _letter(position, source, reason, long.length_bytes, long.head[:_DEAD_LETTER_HEAD_BYTES])
    return Output((number, long.offset, 0), position, letter)


def _letter(position: Position, source: str, reason: str, length_bytes: int, raw: bytes) -> bytes:
    letter: dict[str, Any] = {"source": source, "position": position, "reason": reason, "length_bytes": length_bytes}
    try:
        letter["raw"] = raw.decode()
    except UnicodeDecodeError:
        letter["raw_base64"] = base64.b64encode(raw).decode()
    return orjson.dumps(letter)
