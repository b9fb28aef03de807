"""Alert windows: how matches of one (rule, dedup) become alerts (DESIGN 5, 11.15, 11.16).

A window opens at its first match and takes every match whose clock is not later than the dedup period after that first
match's clock, earlier ones included; the next one opens a new window. The alert is raised once, when the number of
matches, or of distinct unique() values, first reaches the threshold. Times are event time, so a replay opens the same
windows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from rules.capture import Capture, Captures

WindowKey = tuple[str, str]
"""(rule id, dedup string)"""


class Policy(NamedTuple):
    """What a rule says about its windows."""

    threshold: int
    """At least 1."""
    period_s: float
    distinct: bool
    """Threshold counts the distinct values of unique() instead of matches."""


class WindowRow(NamedTuple):
    """A window as plain data, for snapshots. `opened_s` None is a tombstone: the window does not exist."""

    rule_id: str
    dedup: str
    opened_s: float | None
    period_s: float
    alert_id: str
    matches: int
    raised: bool
    first: bytes
    uniques: tuple[bytes, ...]


class Placed(NamedTuple):
    """Where a match went."""

    alert_id: str
    raised: bool
    """This match reached the threshold: raise the alert now."""
    matches: int
    """How many the window holds now."""
    first: bytes
    """What the window's first match said of itself; empty once the alert is raised."""


class _Window:
    __slots__ = ("alert_id", "count", "first", "opened_s", "period_s", "raised", "uniques")

    def __init__(self, alert_id: str, opened_s: float, period_s: float) -> None:
        self.alert_id = alert_id
        self.opened_s = opened_s
        self.period_s = period_s
        self.count = 0
        self.raised = False
        self.first = b""
        self.uniques: dict[bytes, None] = {}


class Windows:
    """The open windows of one shard, or of one test."""

    def __init__(self) -> None:
        self._windows: dict[WindowKey, _Window] = {}
        self._dirty: dict[WindowKey, WindowRow] = {}
        """The windows that changed since the last capture, as they were then."""
        self._taken: dict[WindowKey, WindowRow] = {}
        """The same from settle() to the capture."""
        self._to_free: list[WindowKey] = []
        self.new_keys: list[WindowKey] | None = None
        """What is not None collects the windows that are opened; some of them may be gone again."""
        self._captures: Captures[WindowKey, WindowRow] = Captures()

    def __len__(self) -> int:
        return len(self._windows)

    def add(
        self,
        key: WindowKey,
        policy: Policy,
        clock_s: float,
        position: tuple[int, ...],
        unique: str | None,
        first: Callable[[], bytes],
    ) -> Placed:
        """Place a match. `first` is called only for a match that opens a window, and describes it for the alert."""
        if key not in self._dirty:
            self._dirty[key] = self._row(key)
        window = self._windows.get(key)
        if window is None or clock_s > window.opened_s + policy.period_s:
            window = _Window(alert_id(key, position), clock_s, policy.period_s)
            window.first = first()
            self._windows[key] = window
            if self.new_keys is not None:
                self.new_keys.append(key)
        window.count += 1
        described = window.first
        raised = not window.raised and self._reached(window, policy, unique)
        if raised:
            window.raised = True
            window.first = b""
            window.uniques = {}
        return Placed(window.alert_id, raised, window.count, described)

    @staticmethod
    def _reached(window: _Window, policy: Policy, unique: str | None) -> bool:
        if not policy.distinct:
            return window.count >= policy.threshold
        if unique is not None:
            window.uniques[hashlib.blake2b(unique.encode(), digest_size=16).digest()] = None
        return len(window.uniques) >= policy.threshold

    def free(self, horizon_s: float, limit: int) -> int:
        """Look at up to `limit` windows and drop those that ended before the horizon (W - lateness). Returns how many."""
        if not self._to_free:
            self._to_free = list(self._windows)
        batch = self._to_free[-limit:]
        del self._to_free[-limit:]
        freed = 0
        for key in batch:
            window = self._windows.get(key)
            if window is not None and window.opened_s + window.period_s < horizon_s:
                if key not in self._dirty:
                    self._dirty[key] = self._row(key)
                del self._windows[key]
                freed += 1
        return freed

    def capture_dirty(self) -> Capture[WindowKey, WindowRow]:
        """The windows that changed since the last capture, as they are; those that are gone as tombstones."""
        taken = self._dirty
        self._taken = {**taken, **self._taken} if self._taken else taken
        self._dirty = {}
        self._captures.go_on_in(self._dirty)
        return self._captures.add(Capture(taken.keys(), self._row, self._dirty))

    def capture_all(self) -> Capture[WindowKey, WindowRow]:
        """All windows, for a snapshot that needs no earlier one."""
        self.capture_dirty()
        return self._captures.add(Capture(list(self._windows), self._row, self._dirty))

    def settle(self) -> None:
        """What was captured last is safe: roll_back() need not go back any further."""
        self._taken = {}

    def roll_back(self, to_settled: bool) -> None:
        """To the last capture; or to the one before the last settle(), the very start without. See State.roll_back()."""
        self._captures.forget()  # they were of a life that is over
        images = {**self._dirty, **self._taken} if to_settled else self._dirty
        for row in images.values():
            self.restore(row)
        self._to_free = []
        self._dirty, self._taken = {}, {}

    def rows(self) -> Iterable[WindowRow]:
        """All windows, for a base snapshot."""
        return [self._row(key) for key in self._windows]

    def keys(self) -> list[WindowKey]:
        return list(self._windows)

    def give_away(self, keys: Collection[WindowKey]) -> list[WindowRow]:
        """The rows of these windows, as far as they are here; another shard has them from now on. That makes none dirty."""
        self._captures.keep(keys, self._row)
        rows: list[WindowRow] = []
        for key in keys:
            self._dirty.pop(key, None)
            if key in self._windows:
                rows.append(self._row(key))
                del self._windows[key]
        return rows

    def put(self, row: WindowRow) -> None:
        """Put a row in as a change like any other."""
        key = (row.rule_id, row.dedup)
        self._dirty.setdefault(key, self._row(key))
        self.restore(row)

    def _row(self, key: WindowKey) -> WindowRow:
        window = self._windows.get(key)
        if window is None:
            return WindowRow(*key, None, 0.0, "", 0, False, b"", ())
        return WindowRow(
            *key,
            window.opened_s,
            window.period_s,
            window.alert_id,
            window.count,
            window.raised,
            window.first,
            tuple(window.uniques),
        )

    def restore(self, row: WindowRow) -> None:
        """Put a row back; a later row of the same window wins."""
        key = (row.rule_id, row.dedup)
        self._captures.keep((key,), self._row)
        if row.opened_s is None:
            self._windows.pop(key, None)
            return
        window = _Window(row.alert_id, row.opened_s, row.period_s)
        window.count, window.raised, window.first = row.matches, row.raised, row.first
        window.uniques = dict.fromkeys(row.uniques)
        self._windows[key] = window

    def validate(self) -> None:
        """Raise AssertionError when a window contradicts itself."""
        for key, window in self._windows.items():
            if window.count < 1:
                raise AssertionError(f"window {key} has no match")
            if window.raised and (window.first or window.uniques):
                raise AssertionError(f"window {key} kept what only an alert to come needs")


def alert_id(key: WindowKey, position: tuple[int, ...]) -> str:
    """The name of a window: rule, dedup string and the position of its first match; 32 hexadecimal digits."""
    text = "\0".join((*key, *map(str, position)))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
