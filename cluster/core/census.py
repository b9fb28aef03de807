"""Census: the keys and alert windows of the groups that a shard is about to give away, sorted by group.

Which keys a group has, no one knows: an index of all keys would cost every run memory and time for what few of them need.
So it is made when a rescale begins, a bounded number of keys an epoch, and what is new meanwhile is added. Then the groups
are copied to their new owners, one after the other and a bounded number of keys an epoch as well; what changes after that
goes with the group itself, as do all its windows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from cluster.core.errors import require
from cluster.core.keygroups import Owners, key_grouping, window_group
from rules.state import Row, State
from rules.windows import WindowKey, Windows


class Leaving(NamedTuple):
    """What goes with groups that leave the shard."""

    keys: list[str]
    """All of theirs, and some that are gone."""
    copied: int
    """How many rows of them were copied before."""
    changed: list[Row]
    """Those that may have changed since, tombstones among them."""
    windows: list[WindowKey]
    """All of theirs."""


class Census:
    """What one shard will give away on the way to `target`. It lists what is gone by now, or twice: the taker looks."""

    def __init__(self, target: Owners, leaving: Collection[int], state: State, windows: Windows) -> None:
        self.target = target
        self._group_of = key_grouping(len(target))
        self._state = state
        self._windows = windows
        self._unread = state.keys()
        self._pending_keys: list[str] = []
        self._pending_windows = windows.keys()
        state.new_keys = []
        windows.new_keys = []
        self._keys: dict[int, dict[str, None]] = {group: {} for group in leaving}
        """No lists: the collector of garbage would look through them, while the shard stands still."""
        self._window_keys: dict[int, list[WindowKey]] = {group: [] for group in leaving}
        self._uncopied = sorted(leaving)
        """The first of them is the one that is being copied; the order in which ownership.py moves them."""
        self._copying: list[str] = []
        """What is left of the keys that the first of them had when that began. Keys that it has got since are in `_changed`."""
        self._changed: dict[int, dict[str, None]] = {}
        """The keys of a group that were written since the first of it was copied."""
        self._rows: dict[int, int] = {}
        """How many rows of it were copied."""

    def advance(self, sorted_keys: int, copied_keys: int) -> tuple[dict[int, list[Row]], list[int]]:
        """Sort the next keys and windows and all that are new; once all are sorted, copy. To be called before each epoch.

        Returns the rows that are copied now, by the shard that is to have them, and the groups that are copied by now.
        """
        self._note_written()
        while len(self._pending_keys) <= sorted_keys and (portion := next(self._unread, None)) is not None:
            self._pending_keys += portion
        self._sort(self._pending_keys[-sorted_keys:], self._pending_windows[-sorted_keys:])
        del self._pending_keys[-sorted_keys:], self._pending_windows[-sorted_keys:]
        self._sort_new()
        return ({}, []) if self._pending_keys or self._pending_windows else self._copy(copied_keys)

    def _copy(self, limit: int) -> tuple[dict[int, list[Row]], list[int]]:
        copies: dict[int, list[Row]] = {}
        copied: list[int] = []
        while self._uncopied:
            group = self._uncopied[0]
            if group not in self._changed:
                self._changed[group], self._rows[group] = {}, 0
                self._copying = list(self._keys[group])
            keys = self._copying[:limit]
            del self._copying[:limit]
            rows = [row for row in map(self._state.row, keys) if row.expiry_s is not None]
            if rows:
                copies.setdefault(self.target[group], []).extend(rows)
            self._rows[group] += len(rows)
            limit -= len(keys)
            if self._copying:
                break
            copied.append(self._uncopied.pop(0))
        return copies, copied

    def changed(self, keys: Iterable[str]) -> None:
        """These keys were written by other means than an evaluation."""
        changed, group_of = self._changed, self._group_of
        for key in keys if changed else ():
            of_group = changed.get(group_of(key))
            if of_group is not None:
                of_group[key] = None

    def take(self, groups: Iterable[int]) -> Leaving:
        """These groups leave the shard now."""
        self._note_written()
        self._sort_new()
        keys: dict[str, None] = {}
        changed: list[str] = []
        window_keys: dict[WindowKey, None] = {}
        copied = 0
        for group in groups:
            require(group in self._changed and group not in self._uncopied, f"group {group} moves before all of it is copied")
            changed += self._changed.pop(group)
            copied += self._rows.pop(group)
            keys |= self._keys.pop(group)
            window_keys |= dict.fromkeys(self._window_keys.pop(group))
        keys |= dict.fromkeys(changed)
        return Leaving(list(keys), copied, list(map(self._state.row, changed)), list(window_keys))

    def close(self) -> None:
        """Nobody needs to hear of new keys any more."""
        self._state.new_keys = None
        self._windows.new_keys = None

    def _note_written(self) -> None:
        self.changed(self._state.written())

    def _sort_new(self) -> None:
        assert self._state.new_keys is not None
        assert self._windows.new_keys is not None
        self._sort(self._state.new_keys, self._windows.new_keys)
        self._state.new_keys = []
        self._windows.new_keys = []

    def _sort(self, keys: Iterable[str], window_keys: Iterable[WindowKey]) -> None:
        groups, by_group, windows_by_group = len(self.target), self._keys, self._window_keys
        group_of = self._group_of
        for key in keys:
            found = by_group.get(group_of(key))
            if found is not None:
                found[key] = None
        for window_key in window_keys:
            windows = windows_by_group.get(window_group(*window_key, groups))
            if windows is not None:
                windows.append(window_key)
