"""State: the keys of one shard (or one test), with counters, string sets and dictionaries side by side under one expiry.

Meaning: PANTHER_FORMAT 2.2 to 2.4. Memory: parallel dicts that share the key strings, and immutable values, so that a
before-image or a snapshot row is four references. No clock of its own: `clock_s` is set by the caller.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

NEW_KEY_TTL_S = 90 * 86_400
"""What a new key gets when its writer says nothing: the public helpers' default."""

RELATIVE_BELOW_S = 1_000_000_000
"""A smaller epoch_seconds is relative to the clock. The public helpers' cut-off since 1.0; 1e9 is 2001-09-09."""

MAX_KEY_BYTES = 2048
"""DynamoDB's limit for a partition key, which rules of this format were written under."""

MAX_VALUE_BYTES = 400 * 1024
"""DynamoDB's limit for an item."""

_COUNTER_LIMIT = 1 << 63

_ANY = Any


@dataclass(frozen=True, slots=True)
class Row:
    """What a key holds, as plain immutable data. `expiry_s` None is a tombstone: the key does not exist."""

    key: str
    counter: int | None
    members: tuple[str, ...] | None
    dictionary: str | None
    expiry_s: int | None


_Image = tuple[int | None, tuple[str, ...] | None, str | None, int | None]


def check_key(helper: str, key: object) -> None:
    """TypeError or ValueError, naming the helper, unless the key is text of 1 to 2048 UTF-8 bytes."""
    if type(key) is not str:
        raise TypeError(f"{helper}(): the key is {key!r} of type {type(key).__name__}: keys are text")
    if not key:
        raise ValueError(f"{helper}(): the key is empty: build it from the rule and what it counts by")
    if len(key) > MAX_KEY_BYTES // 4 or not key.isascii():
        _check_long_key(helper, key)


def _check_long_key(helper: str, key: str) -> None:
    try:
        size_bytes = len(key.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{helper}(): the key {key!r} holds a lone surrogate: it is no text") from None
    if size_bytes > MAX_KEY_BYTES:
        raise ValueError(f"{helper}(): the key has {size_bytes} bytes, {MAX_KEY_BYTES} at most: hash its long part")


class State:
    """Keys and what they hold. Methods raise TypeError or ValueError for arguments that the contract refuses."""

    def __init__(self, max_value_bytes: int = MAX_VALUE_BYTES) -> None:
        self.clock_s = 0.0
        self.dirty: set[str] = set()
        """Keys written since take_dirty(). After an undo it may name a key that did not change."""
        self._max_value_bytes = max_value_bytes
        self._counters: dict[str, int] = {}
        self._sets: dict[str, tuple[str, ...]] = {}
        self._dictionaries: dict[str, str] = {}
        self._expiries: dict[str, int] = {}
        """Every key has an entry here, and only here where all that is known of it is when it expires."""
        self._images: dict[str, _Image] = {}
        self._to_free: list[str] = []

    def __len__(self) -> int:
        return len(self._expiries)

    # --- counters ------------------------------------------------------------------------------------------------

    def get_counter(self, key: str) -> int:
        return self._counters.get(key, 0) if self._live(key) else 0

    def increment_counter(self, key: str, val: int = 1, epoch_seconds: _ANY = None) -> int:
        if type(val) is not int:
            raise TypeError(f"increment_counter(): val is {val!r} of type {type(val).__name__}: counters are int")
        expiry_s = self._expiry_for(key, epoch_seconds, "increment_counter")
        self._touch(key)
        value = self._counters.get(key, 0) + val
        if not -_COUNTER_LIMIT <= value < _COUNTER_LIMIT:
            raise ValueError(f"increment_counter(): {value} does not fit into 64 bits: reset the counter in time")
        self._counters[key] = value
        self._expiries[key] = expiry_s
        return value

    def reset_counter(self, key: str) -> None:
        if self._live(key):
            self._touch(key)
            self._counters.pop(key, None)

    # --- expiry --------------------------------------------------------------------------------------------------

    def set_key_expiration(self, key: str, epoch_seconds: _ANY) -> None:
        expiry_s = self._expiry_for(key, epoch_seconds, "set_key_expiration")
        self._touch(key)
        self._expiries[key] = expiry_s

    def _live(self, key: str) -> bool:
        expiry_s = self._expiries.get(key)
        return expiry_s is not None and expiry_s > self.clock_s

    def _expiry_for(self, key: str, epoch_seconds: _ANY, helper: str) -> int:
        """The expiry that a write leaves: the asked one, else the live key's own, else 90 days."""
        if epoch_seconds is None:
            expiry_s = self._expiries.get(key)
            if expiry_s is not None and expiry_s > self.clock_s:
                return expiry_s
            return int(self.clock_s) + NEW_KEY_TTL_S
        if not isinstance(epoch_seconds, int | float | str):
            raise TypeError(
                f"{helper}(): epoch_seconds is {epoch_seconds!r} of type {type(epoch_seconds).__name__}: give a number"
            )
        try:
            seconds = int(float(epoch_seconds))
        except (ValueError, OverflowError):
            raise ValueError(f"{helper}(): epoch_seconds is {epoch_seconds!r}: give a number of seconds") from None
        if not -_COUNTER_LIMIT <= seconds < _COUNTER_LIMIT // 2:
            raise ValueError(f"{helper}(): epoch_seconds is {epoch_seconds!r}: out of range")
        return seconds + int(self.clock_s) if seconds < RELATIVE_BELOW_S else seconds

    # --- string sets ---------------------------------------------------------------------------------------------

    def get_string_set(self, key: str) -> set[str]:
        return set(self._sets.get(key, ())) if self._live(key) else set()

    def put_string_set(self, key: str, val: Iterable[str], epoch_seconds: _ANY = None) -> set[str]:
        """An empty `val` is reset_string_set(). A bare str is its letters, as in the public helpers."""
        members = self._members("put_string_set", val)
        if not members:
            self.reset_string_set(key)
            return set()
        self._check_size("put_string_set", members)
        expiry_s = self._expiry_for(key, epoch_seconds, "put_string_set")
        self._touch(key)
        self._drop_columns(key)
        self._sets[key] = members
        self._expiries[key] = expiry_s
        return set(members)

    def add_to_string_set(self, key: str, val: str | Iterable[str], epoch_seconds: _ANY = None) -> set[str]:
        added = self._one_or_many("add_to_string_set", val)
        if not added:
            return self.get_string_set(key)
        expiry_s = self._expiry_for(key, epoch_seconds, "add_to_string_set")
        before = self._sets.get(key, ()) if self._live(key) else ()
        members = set(before)
        new = tuple(member for member in added if member not in members)
        members.update(new)
        if new:
            self._check_size("add_to_string_set", (*before, *new))
        self._touch(key)
        self._sets[key] = before + new
        self._expiries[key] = expiry_s
        return members

    def remove_from_string_set(self, key: str, val: str | Iterable[str], epoch_seconds: _ANY = None) -> set[str]:
        removed = set(self._one_or_many("remove_from_string_set", val))
        if not removed or not self._live(key):
            return self.get_string_set(key)
        expiry_s = self._expiry_for(key, epoch_seconds, "remove_from_string_set")
        left = tuple(member for member in self._sets.get(key, ()) if member not in removed)
        self._touch(key)
        if left:
            self._sets[key] = left
        else:
            self._sets.pop(key, None)
        self._expiries[key] = expiry_s
        return set(left)

    def reset_string_set(self, key: str) -> None:
        if self._live(key):
            self._touch(key)
            self._sets.pop(key, None)

    def _one_or_many(self, helper: str, val: str | Iterable[str]) -> tuple[str, ...]:
        return self._members(helper, (val,) if isinstance(val, str) else val)

    def _members(self, helper: str, val: Iterable[str]) -> tuple[str, ...]:
        """The texts of `val`, each once, in order: the sorted order where `val` is a set, whose own is arbitrary."""
        try:
            members = tuple(dict.fromkeys(val))
        except TypeError:
            raise TypeError(f"{helper}(): {val!r} of type {type(val).__name__} is no collection of texts") from None
        for member in members:
            if type(member) is not str:
                self._refuse_member(helper, member)
            if not member.isascii():
                _check_text(helper, member)
        return tuple(sorted(members)) if isinstance(val, set | frozenset) else members

    @staticmethod
    def _refuse_member(helper: str, member: object) -> NoReturn:
        raise TypeError(f"{helper}(): {member!r} of type {type(member).__name__} in a string set: give texts only")

    def _check_size(self, helper: str, members: tuple[str, ...]) -> None:
        size = sum(map(len, members))
        if size * 4 > self._max_value_bytes:  # at most 4 bytes a character: only then count exactly
            size_bytes = sum(len(member.encode()) for member in members)
            self._refuse_size(helper, size_bytes)

    def _refuse_size(self, helper: str, size_bytes: int) -> None:
        if size_bytes > self._max_value_bytes:
            raise ValueError(
                f"{helper}(): the value has {size_bytes} bytes, {self._max_value_bytes} at most: "
                "keep less under one key, or raise COUNTERSIGN_MAX_VALUE_BYTES"
            )

    # --- dictionaries --------------------------------------------------------------------------------------------

    def get_dictionary(self, key: str) -> dict[str, Any]:
        text = self._dictionaries.get(key) if self._live(key) else None
        return json.loads(text) if text is not None else {}

    def put_dictionary(self, key: str, val: Mapping[str, Any], epoch_seconds: _ANY = None) -> None:
        """Kept as JSON text: keys become text, tuples lists. TypeError for no mapping, ValueError for no JSON."""
        if not isinstance(val, Mapping):
            raise TypeError(f"put_dictionary(): {val!r} of type {type(val).__name__} is no mapping")
        try:
            text = json.dumps(dict(val), default=_plain)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"put_dictionary(): the value cannot be written as JSON: {error}") from None
        self._refuse_size("put_dictionary", len(text))
        expiry_s = self._expiry_for(key, epoch_seconds, "put_dictionary")
        self._touch(key)
        self._drop_columns(key)
        self._dictionaries[key] = text
        self._expiries[key] = expiry_s

    # --- writing, and taking it back -----------------------------------------------------------------------------

    def begin(self) -> None:
        """An evaluation begins: undo() comes back to here."""
        if self._images:
            self._images = {}

    def undo(self) -> None:
        """Put every key written since begin() back."""
        for key, image in self._images.items():
            self._set(key, image)
        self._images = {}

    def _image(self, key: str) -> _Image:
        return (
            self._counters.get(key),
            self._sets.get(key),
            self._dictionaries.get(key),
            self._expiries.get(key),
        )

    def _touch(self, key: str) -> None:
        """About to write: keep the before-image, and start afresh where the key has expired."""
        if key not in self._images:
            self._images[key] = self._image(key)
        self.dirty.add(key)
        expiry_s = self._expiries.get(key)
        if expiry_s is not None and expiry_s <= self.clock_s:
            self._drop_columns(key)

    def _drop_columns(self, key: str) -> None:
        self._counters.pop(key, None)
        self._sets.pop(key, None)
        self._dictionaries.pop(key, None)

    def _set(self, key: str, image: _Image) -> None:
        self._drop_columns(key)
        counter, members, dictionary, expiry_s = image
        if expiry_s is None:
            self._expiries.pop(key, None)
            return
        self._expiries[key] = expiry_s
        if counter is not None:
            self._counters[key] = counter
        if members is not None:
            self._sets[key] = members
        if dictionary is not None:
            self._dictionaries[key] = dictionary

    # --- snapshots and freeing -----------------------------------------------------------------------------------

    def take_dirty(self) -> list[str]:
        """The keys written since the last call."""
        taken = list(self.dirty)
        self.dirty = set()
        return taken

    def row(self, key: str) -> Row:
        """What a key holds; a tombstone where it does not exist."""
        return Row(key, *self._image(key))

    def restore(self, row: Row) -> None:
        """Put a row in place of what the key holds."""
        self._set(row.key, (row.counter, row.members, row.dictionary, row.expiry_s))

    def rows(self, horizon_s: float) -> Iterator[Row]:
        """The keys that expire after the horizon (W less lateness: DESIGN 11.18), oldest first."""
        for key, expiry_s in self._expiries.items():
            if expiry_s > horizon_s:
                yield self.row(key)

    def free(self, horizon_s: float, limit: int) -> int:
        """Look at up to `limit` keys, delete those that expired by the horizon, return how many. Invisible to rules."""
        if not self._to_free:
            self._to_free = list(self._expiries)
        batch = self._to_free[-limit:]
        del self._to_free[-limit:]
        freed = 0
        for key in batch:
            expiry_s = self._expiries.get(key)
            if expiry_s is not None and expiry_s <= horizon_s:
                self._drop_columns(key)
                del self._expiries[key]
                self.dirty.add(key)
                freed += 1
        return freed

    def validate(self) -> None:
        """AssertionError where the columns contradict each other."""
        for column in (self._counters, self._sets, self._dictionaries):
            lost = [key for key in column if key not in self._expiries]
            if lost:
                raise AssertionError(f"keys without an expiry: {lost[:3]}")
        for key, members in self._sets.items():
            if len(set(members)) != len(members) or not members:
                raise AssertionError(f"{key!r} holds an empty set or a member twice: {members}")


def _check_text(helper: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{helper}(): {text!r} holds a lone surrogate: it is no text") from None


def _plain(value: object) -> object:
    """Parts of events inside a dictionary, as plain data."""
    copy = getattr(value, "copy", None)
    if copy is not None and isinstance(value, Mapping | Iterable):
        return copy()
    raise TypeError(f"{value!r} of type {type(value).__name__}")
