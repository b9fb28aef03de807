"""State: the keys of one shard (or one test), each with a counter, a string set and a dictionary under one expiry.

What the caching helpers mean is here; the helpers themselves only find the state that is theirs. Nothing here reads a
clock: whoever evaluates sets `clock_s`. Values are immutable and stand in columns (segment.py): that is compact, makes a
before-image or a snapshot row a handful of references, and lets nothing handed to a rule alias what is stored.
"""

from __future__ import annotations

import heapq
import json
import reprlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from rules.capture import Joint
from rules.segment import SLOTS, UNKNOWN, Image, Segment, segments

NEW_KEY_TTL_S = 90 * 86_400
"""What a new key gets when its writer names no expiry: the public helpers' default."""

RELATIVE_BELOW_S = 1_000_000_000
"""A lower `epoch_seconds` counts from the clock: the public helpers' cut-off since 1.0. As a date it is in 2001."""

MAX_KEY_BYTES = 2048
"""DynamoDB's limit for a partition key, which rules of this format were written under."""

MAX_VALUE_BYTES = 400 * 1024
"""DynamoDB's limit for an item, which rules of this format were written under."""

_LEAST_REMEMBERED, _MOST_REMEMBERED = 8, 4096
_REMEMBERED_SETS = 256
"""Which sets are remembered as sets, by their size, and how many: some 75 MB at the very worst."""

_LEAST, _MOST = -(2**63), 2**63 - 1  # counters and expiries are 64 bits wide in a snapshot

Fields = tuple[str, int | None, tuple[str, ...] | None, str | None, int | None]
"""A Row's, in their order."""

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 80


class Row(NamedTuple):
    """All that is stored under a key, as plain immutable data."""

    key: str
    counter: int | None
    members: tuple[str, ...] | None
    """The string set, in insertion order."""
    dictionary: str | None
    """JSON text."""
    expiry_s: int | None
    """None makes the row a tombstone: the key does not exist."""


def check_key(helper: str, key: object) -> None:
    """Raise TypeError or ValueError, naming the helper and the key, unless the key is text of 1 to 2048 UTF-8 bytes."""
    if type(key) is str and key.isascii() and 0 < len(key) <= MAX_KEY_BYTES:
        return
    if type(key) is not str:
        raise TypeError(f"{helper}: the key {_shown(key)} is no text: make it a str")
    if not key:
        raise ValueError(f"{helper}: the key '' is empty: build it from the rule and what it keeps track of")
    size_bytes = _utf8_bytes(helper, key, key)
    if size_bytes > MAX_KEY_BYTES:
        raise ValueError(f"{_at(helper, key)} has {size_bytes} bytes, the limit is {MAX_KEY_BYTES}: hash its long part")


class State:
    """What a shard remembers of its keys.

    A key is live while its expiry lies after the clock. An expired key reads as absent and a write to it starts afresh.

    The methods named like helpers do what rule authors call. They take keys that check_key() accepts; for any other
    argument that no rule should pass they raise TypeError or ValueError and have changed nothing. `epoch_seconds` is a
    number, or one as text, cut to whole seconds: below 1e9 it counts from the clock, else from 1970. None leaves a live
    key its expiry and gives a new one 90 days.
    """

    def __init__(self, max_value_bytes: int = MAX_VALUE_BYTES) -> None:
        self.clock_s = 0.0
        """The clock of the evaluation that runs (DESIGN 5). It may go back, but never to before a freed horizon."""
        self._segments, self.slots = segments()
        """The segment of a key is slots[hash(key) % SLOTS]."""
        self._max_value_bytes = max_value_bytes
        self._visits: deque[str] = deque()
        """Every key again, in the order in which free() looks at them. May also name keys that are gone."""
        self.new_keys: list[str] | None = None
        """What is not None collects the keys that were not there before; some of them may be gone again."""
        self._remembered: dict[str, tuple[tuple[str, ...], set[str]]] = {}
        """Sets of hot keys, valid while the stored members are the very same tuple."""
        self._images: dict[str, Image] = {}
        """What was stored, when the evaluation began, under the keys that it has written."""
        self._epoch_images: dict[str, Image] | None = None
        """The same since begin_epoch(), for the keys of all evaluations; None where nobody wants to go back that far."""

    def __len__(self) -> int:
        """How many keys are stored: the live, and the expired that free() has not met yet."""
        return sum(len(segment.expiries) for segment in self._segments)

    def has(self, key: str) -> bool:
        """It is stored, be it expired."""
        return key in self.slots[hash(key) % SLOTS].expiries

    # --- counters ------------------------------------------------------------------------------------------------

    def get_counter(self, key: str) -> int:
        segment = self._live(key)
        return 0 if segment is None else segment.counters.get(key, 0)

    def increment_counter(self, key: str, val: int = 1, epoch_seconds: object = None) -> int:
        """Returns the new count."""
        if type(val) is not int:
            raise TypeError(f"{_at('increment_counter', key)}: val {_shown(val)} is no int: count whole numbers")
        segment = self.slots[hash(key) % SLOTS]
        before_s = segment.expiries.get(key)
        count = val if before_s is None or before_s <= self.clock_s else segment.counters.get(key, 0) + val
        if not _LEAST <= count <= _MOST:
            raise ValueError(f"{_at('increment_counter', key)}: {count} is beyond 64 bits: reset the counter in time")
        self._write_known("increment_counter", segment, key, before_s, epoch_seconds)
        segment.counters[key] = count
        return count

    def reset_counter(self, key: str) -> None:
        """The key keeps its expiry."""
        segment = self._live(key)
        if segment is not None and key in segment.counters:
            self._write("reset_counter", key)
            del segment.counters[key]

    # --- string sets ---------------------------------------------------------------------------------------------

    def get_string_set(self, key: str) -> set[str]:
        return self._handed_out(key, self._members(key))

    def put_string_set(self, key: str, val: Iterable[str], epoch_seconds: object = None) -> set[str]:
        """Replaces all that the key holds, returns the new set. A str is its letters; nothing is reset_string_set()."""
        members = _texts("put_string_set", key, val)
        if not members:
            self.reset_string_set(key)
            return set()
        self._check_size("put_string_set", key, members)
        segment = self._write("put_string_set", key, epoch_seconds)
        segment.drop_values(key)
        segment.sets[key] = members
        return set(members)

    def add_to_string_set(self, key: str, val: str | Iterable[str], epoch_seconds: object = None) -> set[str]:
        """Adds one text, or each of several, and returns the whole set. Adding nothing writes nothing."""
        added = _one_or_more("add_to_string_set", key, val)
        before = self._members(key)
        if not added:
            return self._handed_out(key, before)
        known = self._handed_out(key, before)
        new = tuple([member for member in added if member not in known])  # a list, which is made faster than it is generated
        members = before + new
        if new:
            self._check_size("add_to_string_set", key, members)
        segment = self._write("add_to_string_set", key, epoch_seconds)
        segment.sets[key] = members
        return self._handed_out(key, members) if new else known

    def remove_from_string_set(self, key: str, val: str | Iterable[str], epoch_seconds: object = None) -> set[str]:
        """Removes one text, or each of several, and returns what is left. Where there is no set, nothing is written."""
        removed = set(_one_or_more("remove_from_string_set", key, val))
        before = self._members(key)
        if not removed or not before:
            return set(before)
        left = tuple(member for member in before if member not in removed)
        segment = self._write("remove_from_string_set", key, epoch_seconds)
        if left:
            segment.sets[key] = left
        else:
            del segment.sets[key]
        return set(left)

    def reset_string_set(self, key: str) -> None:
        """The key keeps its expiry."""
        segment = self._live(key)
        if segment is not None and key in segment.sets:
            self._write("reset_string_set", key)
            del segment.sets[key]

    def _handed_out(self, key: str, members: tuple[str, ...]) -> set[str]:
        """A set of its own for the rule. What it iterates in depends on `members` alone, remembered or not.

        Hot keys with many members are read all the time: copying a set costs a third of making it from a tuple.
        """
        size = len(members)
        if size < _LEAST_REMEMBERED or size > _MOST_REMEMBERED:
            return set(members)
        remembered = self._remembered.get(key)
        if remembered is None or remembered[0] is not members:
            if len(self._remembered) >= _REMEMBERED_SETS:
                self._remembered.clear()
            remembered = self._remembered[key] = (members, set(members))
        return remembered[1].copy()

    def _members(self, key: str) -> tuple[str, ...]:
        segment = self.slots[hash(key) % SLOTS]  # _live(), written out: each helper for sets comes here
        expiry_s = segment.expiries.get(key)
        return () if expiry_s is None or expiry_s <= self.clock_s else segment.sets.get(key, ())

    def _check_size(self, helper: str, key: str, members: tuple[str, ...]) -> None:
        self._check_value_bytes(helper, key, _utf8_bytes(helper, key, "".join(members)))

    # --- dictionaries --------------------------------------------------------------------------------------------

    def get_dictionary(self, key: str) -> dict[str, Any]:
        """A fresh copy, as JSON gives it back: keys are text, tuples have become lists."""
        segment = self._live(key)
        text = None if segment is None else segment.dictionaries.get(key)
        return {} if text is None else json.loads(text)

    def put_dictionary(self, key: str, val: Mapping[Any, Any], epoch_seconds: object = None) -> None:
        """Replaces all that the key holds. Parts of an event may stand in it; what JSON cannot say is a ValueError."""
        if not isinstance(val, Mapping):
            raise TypeError(f"{_at('put_dictionary', key)}: {_shown(val)} is no mapping: pass a dict")
        try:
            # Escaped to ASCII: a character is a byte then, and a lone surrogate comes back as it was.
            text = json.dumps(dict(val), separators=(",", ":"), default=_plain)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{_at('put_dictionary', key)}: not JSON: {error}: keep only text, numbers, lists and dicts"
            ) from None
        self._check_value_bytes("put_dictionary", key, len(text))
        segment = self._write("put_dictionary", key, epoch_seconds)
        segment.drop_values(key)
        segment.dictionaries[key] = text

    def _check_value_bytes(self, helper: str, key: str, size_bytes: int) -> None:
        if size_bytes > self._max_value_bytes:
            raise ValueError(
                f"{_at(helper, key)}: the value has {size_bytes} bytes, the limit is {self._max_value_bytes}: "
                "keep less under one key, or raise max_value_bytes"
            )

    # --- expiry, and what all writes share -----------------------------------------------------------------------

    def set_key_expiration(self, key: str, epoch_seconds: object) -> None:
        """On an absent key the expiry waits for the first value."""
        self._write("set_key_expiration", key, epoch_seconds)

    def _live(self, key: str) -> Segment | None:
        """The segment of a key that is live."""
        segment = self.slots[hash(key) % SLOTS]
        expiry_s = segment.expiries.get(key)
        return segment if expiry_s is not None and expiry_s > self.clock_s else None

    def _write(self, helper: str, key: str, epoch_seconds: object = None) -> Segment:
        """What every write does beside setting its value: check and set the expiry, start afresh what has expired. Returns where
        the value is to be set."""
        segment = self.slots[hash(key) % SLOTS]
        self._write_known(helper, segment, key, segment.expiries.get(key), epoch_seconds)
        return segment

    def _write_known(
        self, helper: str, segment: Segment, key: str, before_s: int | None, epoch_seconds: object
    ) -> None:
        """The same, by who has looked at its expiry already."""
        live = before_s is not None and before_s > self.clock_s
        after_s = None if live and epoch_seconds is None else self._expiry_s(helper, key, epoch_seconds)
        dirty = segment.dirty
        if key not in self._images:
            image = self._images[key] = UNKNOWN if before_s is None else segment.image(key)
            if self._epoch_images is not None:
                self._epoch_images.setdefault(key, image)
            if key not in dirty:
                dirty[key] = image
        elif key not in dirty:  # someone has taken what the evaluation wrote before
            dirty[key] = segment.image(key)
        if after_s is not None:
            segment.expiries[key] = after_s
            if before_s is None:
                self._add(key)
            elif not live:
                segment.drop_values(key)

    def _expiry_s(self, helper: str, key: str, epoch_seconds: object) -> int:
        if epoch_seconds is None:
            return int(self.clock_s) + NEW_KEY_TTL_S
        seconds = epoch_seconds if type(epoch_seconds) is int else self._whole_seconds(helper, key, epoch_seconds)
        expiry_s = seconds if seconds >= RELATIVE_BELOW_S else int(self.clock_s) + seconds
        if not _LEAST <= expiry_s <= _MOST:
            raise ValueError(_no_expiry(helper, key, epoch_seconds))
        return expiry_s

    @staticmethod
    def _whole_seconds(helper: str, key: str, epoch_seconds: object) -> int:
        if not isinstance(epoch_seconds, (int, float, str)):
            raise TypeError(_no_expiry(helper, key, epoch_seconds))
        try:
            return int(float(epoch_seconds) if isinstance(epoch_seconds, str) else epoch_seconds)
        except (ValueError, OverflowError):  # text that is no number; NaN; infinity, which "1e400" is too
            raise ValueError(_no_expiry(helper, key, epoch_seconds)) from None

    def _add(self, key: str) -> None:
        """What a key needs that was not there."""
        self._visits.append(key)
        if self.new_keys is not None:
            self.new_keys.append(key)

    # --- one evaluation's writes can be taken back ---------------------------------------------------------------

    def begin(self) -> None:
        """An evaluation begins: undo() comes back to here."""
        if self._images:
            self._images = {}

    def undo(self) -> None:
        """Give every key written since begin() what it had then."""
        for key, image in self._images.items():
            segment = self.slots[hash(key) % SLOTS]
            if key not in segment.dirty:  # someone has taken the undone row already
                segment.dirty[key] = segment.image(key)
            segment.store(key, image)
            if image[-1] is None:
                self._visits.pop()  # the evaluation's new keys are the last that were appended
        self._images = {}

    def begin_epoch(self, *, images: bool = True) -> None:
        """From here on row_before() can tell what was stored when this was called; without `images` nobody will ask."""
        self._epoch_images = {} if images else None

    def written(self) -> Collection[str]:
        """The keys that evaluations have written since begin_epoch(), as far as row_before() can tell."""
        return self._epoch_images or ()

    def row_before(self, key: str) -> Row:
        """What was stored under the key when the epoch began, as row() would have said."""
        assert self._epoch_images is not None
        return Row(key, *(self._epoch_images.get(key) or self._image(key)))

    def _image(self, key: str) -> Image:
        return self.slots[hash(key) % SLOTS].image(key)

    # --- snapshots and freeing, between evaluations --------------------------------------------------------------

    def capture_dirty(self) -> Joint[str, Image]:
        """The keys that may have changed since the last capture, with what is stored under them now."""
        return Joint([segment.capture_dirty() for segment in self._segments])

    def capture_all(self, horizon_s: float) -> Joint[str, Image]:
        """What rows() gives now, for a snapshot that needs no earlier one: nothing is dirty then."""
        return Joint([segment.capture_all(horizon_s) for segment in self._segments])

    def settle(self) -> None:
        """What was captured last is safe: roll_back() need not go back any further."""
        for segment in self._segments:
            segment.taken = {}

    def roll_back(self, to_settled: bool) -> None:
        """Store again what was stored at the last capture; or at the one before the last settle(), the very start without.

        Nothing is dirty then, and that is where a later roll_back() comes to at most.
        """
        self.begin()
        for segment in self._segments:
            segment.roll_back(to_settled)
        self._visits = deque(chain.from_iterable(self.keys()))

    def keys(self) -> Iterator[list[str]]:
        """All keys, in 64 portions, each as it is when it is asked for; the expired ones that free() has not met yet included."""
        for segment in self._segments:
            yield list(segment.expiries)

    def let_go(self, keys: Iterable[str]) -> None:
        """Another shard has these keys from now on. That makes none of them dirty."""
        self.begin()
        for key in keys:
            self.slots[hash(key) % SLOTS].let_go(key)

    def take_over(self, rows: Iterable[Row]) -> None:
        """put() for keys that another shard has let go, none of them a tombstone: twice as fast where they are new here."""
        self.begin()
        slots = self.slots
        new: list[str] = []
        for row in rows:
            key, counter, members, dictionary, expiry_s = row
            segment = slots[hash(key) % SLOTS]
            if expiry_s is None or key in segment.expiries or key in segment.dirty:
                self.put((row,))
                continue
            segment.dirty[key] = UNKNOWN
            segment.fill(key, counter, members, dictionary, expiry_s)
            new.append(key)
        self._visits.extend(new)
        if self.new_keys is not None:
            self.new_keys += new

    def row(self, key: str) -> Row:
        """What is stored under the key, expired or not; a tombstone if nothing is."""
        return Row(key, *self._image(key))

    def rows(self, horizon_s: float) -> Iterator[Row]:
        """The keys that expire after the horizon, in no particular order. Do not write while you iterate.

        With the horizon W - lateness, which no clock to come lies before, these are the final state (DESIGN 11.18).
        """
        for segment in self._segments:
            for key, expiry_s in segment.expiries.items():
                if expiry_s > horizon_s:
                    yield Row(key, *segment.image(key))

    def first(self, prefix: str, limit: int, horizon_s: float) -> tuple[list[Row], int]:
        """Of the keys that begin with `prefix` and expire after the horizon the first `limit` in order, and their number."""
        expiries = chain.from_iterable(segment.expiries.items() for segment in self._segments)
        found = [key for key, expiry_s in expiries if expiry_s > horizon_s and key.startswith(prefix)]
        return [self.row(key) for key in heapq.nsmallest(limit, found)], len(found)

    def put(self, rows: Collection[Row]) -> None:
        """Store rows in place of what their keys hold; a write like any other."""
        self.begin()
        for row in rows:
            segment = self.slots[hash(row.key) % SLOTS]
            segment.captures.keep((row.key,), segment.image)
            if row.key not in segment.dirty:
                segment.dirty[row.key] = segment.image(row.key)
        self._place(rows)

    def restore(self, row: Row) -> None:
        """Store a row in place of what its key holds. Does not make the key dirty."""
        self.begin()
        segment = self.slots[hash(row.key) % SLOTS]
        segment.captures.keep((row.key,), segment.image)
        self._place((row,))

    def restore_all(self, rows: Iterable[Fields]) -> None:
        """restore() for many rows, given by their fields, later ones in place of earlier ones, while nothing is captured."""
        self.begin()
        self._place(rows)

    def _place(self, rows: Iterable[Fields]) -> None:
        slots = self.slots
        for key, counter, members, dictionary, expiry_s in rows:
            segment = slots[hash(key) % SLOTS]
            expiries = segment.expiries
            if key in expiries:
                segment.drop_values(key)
                if expiry_s is None:
                    del expiries[key]
            elif expiry_s is not None:
                self._add(key)
            if expiry_s is not None:
                segment.fill(key, counter, members, dictionary, expiry_s)

    def free(self, horizon_s: float, limit: int) -> int:
        """Look at the next `limit` keys in turn, delete those that expired by the horizon, return how many that were.

        Costs the same whatever the size of the state. Rules cannot tell, as long as no clock to come lies before the
        horizon. What is deleted becomes dirty, so that the next snapshot has its tombstone.
        """
        self.begin()
        visits, slots = self._visits, self.slots
        freed = 0
        for _ in range(min(limit, len(visits))):
            key = visits.popleft()
            segment = slots[hash(key) % SLOTS]
            expiry_s = segment.expiries.get(key)
            if expiry_s is None:
                continue
            if expiry_s > horizon_s:
                visits.append(key)
                continue
            if key not in segment.dirty:
                segment.dirty[key] = segment.image(key)
            segment.drop_values(key)
            del segment.expiries[key]
            freed += 1
        return freed

    def validate(self) -> None:
        """Raise AssertionError when the columns contradict each other; reads all of them."""
        visits = set(self._visits)
        for segment in self._segments:
            columns: tuple[Mapping[str, object], ...] = (segment.counters, segment.sets, segment.dictionaries)
            for key in (key for column in columns for key in column if key not in segment.expiries):
                raise AssertionError(f"key {key!r} has a value and no expiry")
            for key, members in segment.sets.items():
                if not members or len(set(members)) < len(members):
                    raise AssertionError(f"key {key!r} stores an empty set, or a member twice: {members}")
            for key in segment.expiries:
                if key not in visits:
                    raise AssertionError(f"key {key!r} will never be freed")
                if self.slots[hash(key) % SLOTS] is not segment:
                    raise AssertionError(f"key {key!r} stands in another segment than its own")


def _one_or_more(helper: str, key: str, val: str | Iterable[str]) -> tuple[str, ...]:
    if type(val) is str:
        return (val,)
    return _texts(helper, key, [val] if isinstance(val, str) else val)


def _texts(helper: str, key: str, val: Iterable[str]) -> tuple[str, ...]:
    """Each text of `val` once, in order; sorted if it is a set, whose own order says nothing."""
    try:
        texts = tuple(dict.fromkeys(val))
    except TypeError:  # no iterable, or of members that cannot be hashed
        raise TypeError(f"{_at(helper, key)}: {_shown(val)} is no collection of texts: pass a list") from None
    for text in texts:
        if type(text) is not str:
            raise TypeError(f"{_at(helper, key)}: the member {_shown(text)} is no text: make it a str")
    return tuple(sorted(texts)) if isinstance(val, (set, frozenset)) else texts


def _utf8_bytes(helper: str, key: str, text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(
            f"{_at(helper, key)}: {_brief.repr(text)} holds half a surrogate pair: "
            "text.encode(errors='replace').decode() makes it whole"
        ) from None


def _plain(value: object) -> object:
    """Nested parts of an event, which are neither dict nor list, for the JSON encoder."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return list(value)
    raise TypeError(f"{_shown(value)} stands in it")


def _no_expiry(helper: str, key: str, epoch_seconds: object) -> str:
    return f"{_at(helper, key)}: epoch_seconds {_shown(epoch_seconds)} is no time: pass seconds since 1970, or from now"


def _at(helper: str, key: str) -> str:
    return f"{helper}: the key {_brief.repr(key)}"


def _shown(value: object) -> str:
    return f"{_brief.repr(value)} of type {type(value).__name__}"
