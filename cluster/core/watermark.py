"""W, the event-time watermark, as a value that composes over slices (DESIGN 11.1 and 11.2).

W at a position is the highest time that two consecutive active events before it have both reached. An event is active
when an evaluation of it reached state or matched. Written out: over the active events a1, a2, ... before the position,
W = max(min(a1, a2), min(a2, a3), ...). One corrupt date in the far future therefore moves nothing.

A slice is ingested without knowing what came before it, so each event carries the part of W that its own slice knows
(`local_w_s`), and each slice a summary of three numbers. Folding the summaries in slice order gives W at every position,
whatever the cuts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

NEVER_S = float("-inf")


class SliceTimes(NamedTuple):
    """What a slice adds to W: its active events' first and last time, where the first one stands, and its inner maximum."""

    first_index: int = -1
    first_s: float = NEVER_S
    last_s: float = NEVER_S
    inner_w_s: float = NEVER_S


class Watermark(NamedTuple):
    """W so far, and the time of the last active event, the neighbour that the next one meets."""

    w_s: float = NEVER_S
    last_s: float = NEVER_S

    def horizons(self, times: SliceTimes, lateness_s: float) -> tuple[int, float, float]:
        """(index, earlier, later): what W before an event of a slice comes to, less the lateness, when self is the watermark at
        the slice's start: the earlier one for events up to that index, the later one after it. But for what the slice adds."""
        before_s = self.w_s - lateness_s
        if times.first_index < 0:
            return -1, before_s, before_s
        return times.first_index, before_s, max(self.w_s, min(self.last_s, times.first_s)) - lateness_s

    def clock(self, times: SliceTimes, lateness_s: float) -> Callable[[int, float, float], float]:
        """The clock of a slice's evaluations (DESIGN 5), from their event's (index, local_w_s, time_s): its own time, but not
        earlier than W before it less the lateness."""
        first_index, earlier_s, later_s = self.horizons(times, lateness_s)

        def clock_s(index: int, local_w_s: float, time_s: float) -> float:
            return max(time_s, local_w_s - lateness_s, later_s if index > first_index else earlier_s)

        return clock_s

    def after(self, times: SliceTimes) -> Watermark:
        """The watermark at the slice's end."""
        if times.first_index < 0:
            return self
        return Watermark(max(self.w_s, min(self.last_s, times.first_s), times.inner_w_s), times.last_s)


class SliceClock:
    """Builds a slice's SliceTimes while its events are ingested in order."""

    __slots__ = ("_first_index", "_first_s", "_last_s", "local_w_s")

    def __init__(self) -> None:
        self.local_w_s = NEVER_S
        self._first_index = -1
        self._first_s = NEVER_S
        self._last_s = NEVER_S

    def activate(self, index: int, time_s: float) -> None:
        """The event at `index` is active; events after it see its part in `local_w_s`."""
        if self._first_index < 0:
            self._first_index, self._first_s = index, time_s
        else:
            reached_s = time_s if time_s < self._last_s else self._last_s
            if reached_s > self.local_w_s:
                self.local_w_s = reached_s
        self._last_s = time_s

    def times(self) -> SliceTimes:
        return SliceTimes(self._first_index, self._first_s, self._last_s, self.local_w_s)
