"""Census: the keys and alert windows of the groups that a shard is about to give away, sorted by group.

Which keys a group has, no one knows: an index of all keys would cost every run memory and time for what few of them need.
So it is made when a rescale begins, a bounded number of keys an epoch, and what is new meanwhile is added.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cluster.core.keygroups import Owners, group_of, hashed_part, window_group
from rules.state import State
from rules.windows import WindowKey, Windows


class Census:
    """What one shard will give away on the way to `target`. It lists what is gone by now, or twice: the taker looks."""

    def __init__(self, target: Owners, leaving: Collection[int], state: State, windows: Windows) -> None:
        self.target = target
        self._state = state
        self._windows = windows
        self._pending_keys = state.keys()
        self._pending_windows = windows.keys()
        state.new_keys = []
        windows.new_keys = []
        self._keys: dict[int, list[str]] = {group: [] for group in leaving}
        self._window_keys: dict[int, list[WindowKey]] = {group: [] for group in leaving}

    @property
    def done(self) -> bool:
        return not self._pending_keys and not self._pending_windows

    def advance(self, limit: int) -> None:
        """Sort the next `limit` keys and windows, and all that are new."""
        self._sort(self._pending_keys[-limit:], self._pending_windows[-limit:])
        del self._pending_keys[-limit:], self._pending_windows[-limit:]
        self._sort_new()

    def take(self, groups: Iterable[int]) -> tuple[list[str], list[WindowKey]]:
        """All keys and windows of these groups, which leave the shard now."""
        self._sort_new()
        keys: dict[str, None] = {}
        window_keys: dict[WindowKey, None] = {}
        for group in groups:
            keys |= dict.fromkeys(self._keys.pop(group))
            window_keys |= dict.fromkeys(self._window_keys.pop(group))
        return list(keys), list(window_keys)

    def close(self) -> None:
        """Nobody needs to hear of new keys any more."""
        self._state.new_keys = None
        self._windows.new_keys = None

    def _sort_new(self) -> None:
        assert self._state.new_keys is not None
        assert self._windows.new_keys is not None
        self._sort(self._state.new_keys, self._windows.new_keys)
        self._state.new_keys = []
        self._windows.new_keys = []

    def _sort(self, keys: Iterable[str], window_keys: Iterable[WindowKey]) -> None:
        groups, by_group, windows_by_group = len(self.target), self._keys, self._window_keys
        for key in keys:
            found = by_group.get(group_of(hashed_part(key), groups))
            if found is not None:
                found.append(key)
        for window_key in window_keys:
            windows = windows_by_group.get(window_group(*window_key, groups))
            if windows is not None:
                windows.append(window_key)
