"""Recall: what a rule asks of events, and what a probe comes to where an event gives the same answers as one before it.

A probe depends on nothing but the values it asks its event for, unless it consults the time or chance: globals it finds as
they were when the pack was loaded (globals.py). So the values asked for, in their order, are a path in a tree whose leaves
say what the probe came to: that it does not match, or the match, or the key group that it reached. Logs repeat themselves:
nine of ten probes need not run. What a probe asked for is also what the evaluation proper asks for first, and goes along to
the shard that runs it, which then does not parse the event a second time.

Only single values count, got by their keys. A rule that looks at an event in any other way is run each time.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, Generic, TypeVar

from rules.evaluation import NO_MATCH, REACHED, Evaluation
from rules.event import (
    ATOMS,
    MISSING,
    DerivedFields,
    EventContext,
    Json,
    PantherEvent,
    find_folded,
    folded_keys,
)
from rules.rule import Outcome

Known = dict[Any, Json]
"""A key, or the tuple of keys of a deep_get() -> the single value there; what is absent is MISSING, or None for a tuple."""

T = TypeVar("T")
U = TypeVar("U")

_UNKNOWN: Any = object()

_MOST_READS = 16
"""A rule that asks for more has long paths, which few events share."""
_MOST_CHARS = 512
"""Where the texts together are longer, they are not remembered: they seldom come back, and take room."""
_MOST_MATCH_CHARS = 4096
"""Nor are matches whose texts are longer."""
_MOST_SENT = 64
_MOST_SENT_CHARS = 4096
"""What is known of an event goes along with it unless it is more than that: then it is parsed again."""
_WINDOW_MISSES = 2048
"""After so many probes that had to run it is looked at whether remembering is worth its while: walking a path takes a quarter
of the time of a probe, learning one half of it."""


class _AskedByGet(PantherEvent):
    """An event whose other ways to ask for a key ask get()."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Json:
        value = self.get(key, MISSING)
        if value is MISSING:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        return self.get(key, MISSING) is not MISSING  # type: ignore[arg-type]


class RecordedEvent(_AskedByGet):
    """An event that notes what it is asked for.

    It trusts nobody: all that PantherEvent does begins with a look at `raw`, and that makes it opaque. Only what is written out
    below puts that back, once the answer is in `known`; where PantherEvent raises instead, it stays opaque.
    """

    __slots__ = ("_data", "_original", "known", "opaque")

    def __init__(self, data: dict[str, Json], derived: DerivedFields | None, context: EventContext | None) -> None:
        super().__init__(data, derived, context)
        self.begin()

    def begin(self) -> None:
        """Forget what was asked for so far."""
        self.known: Known = {}
        """What was asked for, in that order."""
        self.opaque = False
        """Something was asked for that is not in `known`, or that depends on more than the event's own fields."""

    @property
    def raw(self) -> dict[str, Json]:
        self.opaque = True
        return self._data

    @raw.setter
    def raw(self, value: dict[str, Json]) -> None:
        self._data = value

    @property
    def original(self) -> dict[str, Json]:
        self.opaque = True
        return self._original

    @original.setter
    def original(self, value: dict[str, Json]) -> None:
        self._original = value

    def get(self, key: str, default: Json = None) -> Json:
        if type(key) is not str:
            return super().get(key, default)
        value = self.known.get(key, _UNKNOWN)
        if value is _UNKNOWN:
            opaque = self.opaque
            value = super().get(key, MISSING)
            if value is MISSING or type(value) in ATOMS:
                self.known[key] = value
                self.opaque = opaque or self._may_be_derived(key)
        return default if value is MISSING else value

    def deep_get(self, *keys: str, default: Json = None) -> Json:
        try:
            value = self.known.get(keys, _UNKNOWN)
        except TypeError:  # a key that cannot be hashed
            return super().deep_get(*keys, default=default)
        if value is _UNKNOWN:
            opaque = self.opaque
            value = super().deep_get(*keys)
            if type(value) in ATOMS:
                self.known[keys] = value
                self.opaque = opaque or not all(map(_is_text, keys)) or self._may_be_derived(keys[0])
        return default if value is None else value

    def _may_be_derived(self, key: str) -> bool:
        """Whether it names a p_ field that may depend on more than the fields that the event's source wrote."""
        if key == "p_enrichment" and (self._context is None or not self._context.enriches):
            return False
        return key[:2] in ("p_", "P_")

    def event_time_epoch(self) -> int:
        self.opaque = True
        return super().event_time_epoch()

    def __reduce__(self) -> tuple[Any, ...]:
        self.opaque = True
        return super().__reduce__()


class RecalledEvent(_AskedByGet):
    """An event that was asked before. It is parsed only where it is asked for more than is known of it.

    What PantherEvent keeps beside `raw` is there from then on: all that it does begins with a look at `raw`, or adds fields.
    """

    __slots__ = ("_data", "_known", "_original", "_parse", "_unparsed")

    def __init__(
        self,
        known: Known,
        epoch_s: int,
        parse: Callable[[U], tuple[dict[str, Json], DerivedFields | None]],
        unparsed: U,
        context: EventContext | None,
    ) -> None:
        """`epoch_s` is the event's event_time_epoch(); `parse` makes the event and its p_ fields of what is `unparsed`.
        `known` is not changed: events share it."""
        self._known = known
        self._epoch_s = epoch_s
        self._parse = parse
        self._unparsed = unparsed
        self._context = context
        self._data: dict[str, Json] | None = None

    def _parsed(self) -> dict[str, Json]:
        self._original, self._derived = self._parse(self._unparsed)
        self._folded, self._added, self._fields = None, 0, None
        self._data = self._original
        return self._original

    @property
    def raw(self) -> dict[str, Json]:
        return self._parsed() if self._data is None else self._data

    @raw.setter
    def raw(self, value: dict[str, Json]) -> None:
        self._data = value

    @property
    def original(self) -> dict[str, Json]:  # type: ignore[override]
        if self._data is None:
            self._parsed()
        return self._original

    def _add(self, kind: int) -> None:
        if self._data is None:
            self._parsed()
        super()._add(kind)

    def get(self, key: str, default: Json = None) -> Json:
        if type(key) is str:
            try:
                value = self._known[key]
            except KeyError:
                pass
            else:
                return default if value is MISSING else value
        return super().get(key, default)

    def deep_get(self, *keys: str, default: Json = None) -> Json:
        try:
            value = self._known[keys]
        except (KeyError, TypeError):  # not asked for before; a key that cannot be hashed
            pass
        else:
            return default if value is None else value
        return super().deep_get(*keys, default=default)


# Rules that print an event's type, or call it wrongly, see what they would of any event.
for _kind in _AskedByGet, RecordedEvent, RecalledEvent:
    _kind.__name__ = _kind.__qualname__ = PantherEvent.__name__
    _kind.__module__ = PantherEvent.__module__
    for _name, _function in vars(_kind).items():
        if isinstance(_function, FunctionType) and hasattr(PantherEvent, _name):
            _function.__qualname__ = getattr(PantherEvent, _name).__qualname__


def light(known: Known) -> Known:
    """What of it to send along with an event: all or nothing."""
    return known if len(known) <= _MOST_SENT and _chars(known) <= _MOST_SENT_CHARS else {}


def _chars(known: Known) -> int:
    return sum(len(value) for value in known.values() if type(value) is str)


def _fits_in(outcome: Outcome) -> bool:
    """It is a match that is small enough, and nothing else."""
    match = outcome.match
    if match is None or outcome.errors:
        return False
    return sum(len(value) for value in match if isinstance(value, str)) <= _MOST_MATCH_CHARS


def _fits(value: Json) -> bool:
    """Whether equal values are the same, which 0.0 and -0.0 are not, and a parser that rounds gives it as it is."""
    return type(value) is not float and (type(value) is not int or -(2**63) <= value < 2**64)


def _is_text(key: object) -> bool:
    return type(key) is str


class _Fork:
    """A value that all probes ask for that have come so far."""

    __slots__ = ("deep", "first", "lower", "path", "rest", "ways")

    def __init__(self, path: str | tuple[str, ...]) -> None:
        self.path = path
        keys = (path,) if isinstance(path, str) else path
        self.first, self.rest = keys[0], keys[1:]
        self.lower = self.first.lower()
        self.deep = keys is path
        """It is deep_get() that asks, not get()."""
        self.ways: dict[Any, Any] = {}
        """Value -> the next fork, or what the probe came to."""


class Room:
    """For how many more probes there is room, of 1 or 2 KB each. Rules share it: most of a pack's are seldom run."""

    __slots__ = ("leaves",)

    def __init__(self, leaves: int) -> None:
        self.leaves = leaves


class Recall(Generic[T]):
    """What one rule's probes came to, as who probes puts it, but never None. Holds on to no event."""

    def __init__(self, room: Room, *, off: bool = False) -> None:
        self._room = room
        self._top: dict[Any, _Fork] = {}
        """The first fork, under None."""
        self._leaves = 0
        self._walks = self._misses = 0
        """Since the window began."""
        self.off = off
        """It is not worth its while, or the rule does not do the same twice. For good: others are worth looking at."""

    def find(self, data: dict[str, Json], folded: list[dict[str, str]]) -> T | None:
        """What a probe of this event comes to; None where that has to be found out. Integers of more than 64 bits may be rounded.

        `folded` is empty, or has the event's folded_keys(): the same for all who look, so that they are made once.

        get() and deep_get() are written out (test_recall.py holds them together): it takes the place of a probe.
        """
        self._walks += 1
        step: Any = self._top.get(None)
        get, absent = data.get, MISSING
        try:
            while type(step) is _Fork:
                value = get(step.first, absent)
                if value is absent:
                    if not folded:
                        folded.append(folded_keys(data))
                    actual = folded[0].get(step.lower)
                    if actual is not None:
                        value = data[actual]
                if step.deep:
                    for key in step.rest:
                        if type(value) is not dict:
                            value = None
                            break
                        value = value[key] if key in value else find_folded(value, key)
                    if value is absent:
                        value = None
                kind = type(value)
                if kind is str or value is None or value is absent:
                    step = step.ways[value]
                elif kind is int or kind is bool:
                    step = step.ways[kind, value]
                else:
                    return None  # see _fits()
        except KeyError:  # no probe came this way
            return None
        return step  # type: ignore[no-any-return]

    def learn(self, known: Known, found: T) -> None:
        """Remember what a probe came to that find() did not know: it asked for `known`, and for nothing else."""
        self._missed()
        if self.off or not self._room.leaves:
            return
        if len(known) > _MOST_READS or _chars(known) > _MOST_CHARS or not all(map(_fits, known.values())):
            return
        ways: dict[Any, Any] = self._top
        way: Any = None
        for path, value in known.items():
            fork = ways.get(way)
            if fork is None:
                fork = ways[way] = _Fork(path)
            elif type(fork) is not _Fork or fork.path != path:
                self._turn_off()
                return
            ways = fork.ways
            way = value if type(value) is str or value is None or value is MISSING else (type(value), value)
        if way in ways:
            self._turn_off()
            return
        ways[way] = found
        self._leaves += 1
        self._room.leaves -= 1

    def learn_from(self, event: RecordedEvent, outcome: Outcome, evaluation: Evaluation, found: T) -> None:
        """learn() what a probe came to, if it can be remembered."""
        pure = not (event.opaque or evaluation.varies)
        if pure and (outcome is NO_MATCH or outcome is REACHED or _fits_in(outcome)):
            self.learn(event.known, found)
        else:
            self._missed()

    def _missed(self) -> None:
        self._misses += 1
        if self._misses >= _WINDOW_MISSES:
            self._look_back()

    def _look_back(self) -> None:
        """Give up where few are recalled; begin anew where there is no room: what comes now is not what came long ago."""
        if self._walks < 2 * self._misses:
            self._turn_off()
        elif not self._room.leaves:
            self._forget()
        self._walks = self._misses = 0

    def _turn_off(self) -> None:
        self.off = True
        self._forget()

    def _forget(self) -> None:
        self._top = {}
        self._room.leaves += self._leaves
        self._leaves = 0
