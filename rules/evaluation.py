"""The context of the evaluation that runs now, and running one: what the helpers and the bound clock act on.

One Evaluation object serves a whole shard: it is set up for each event, so that an evaluation costs no allocation.
While probing (no state) the first helper call records its key and aborts. A rule cannot swallow that: the record, not the
exception, decides what the evaluation came to (DESIGN 11.4).
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from rules.errors import StateReached
from rules.rule import NO_MATCH, Outcome, RuleError

if TYPE_CHECKING:
    from rules.event import PantherEvent
    from rules.rule import Rule
    from rules.state import State

__all__ = ["NO_MATCH", "REACHED", "Evaluation", "StateReached", "current", "evaluate"]

REACHED = Outcome(None, ())
"""What a probe that reached state comes to: Evaluation.key says where. Compare by identity."""


class Evaluation:
    """What one shard's evaluations share. Not thread-safe, on purpose: a helper called in another thread is refused."""

    __slots__ = ("_group", "_group_of", "_random", "_thread", "event_time_s", "foreign_key", "key", "position",
                 "rule_id", "state", "strayed")  # fmt: skip

    def __init__(self, state: State | None, group_of: Callable[[str], int] | None = None) -> None:
        self.state = state
        """Where helpers read and write; None while probing."""
        self._group_of = group_of
        self._thread = threading.get_ident()
        self.event_time_s = 0.0
        """The event's own time: what time.time() gives in rule modules."""
        self.position: tuple[int, ...] = ()
        self.rule_id = ""
        self.key: str | None = None
        """The first key that the evaluation asked state for."""
        self.foreign_key: str | None = None
        """The first key of another key group that it asked for."""
        self.strayed = False
        """A helper was called from another thread."""
        self._group = 0
        self._random: random.Random | None = None

    def begin_event(self, event_time_s: float, position: tuple[int, ...]) -> None:
        """The evaluations that follow are of this event."""
        self.event_time_s = event_time_s
        self.position = position

    def reach(self, key: str) -> State:
        """The state that holds a key. Raises StateReached while probing and at a key of a second key group."""
        if threading.get_ident() != self._thread:
            self.strayed = True
            raise StateReached
        if self.key is None:
            self.key = key
            if self.state is None:
                raise StateReached
            if self._group_of is not None:
                self._group = self._group_of(key)
        elif self.state is None or self.foreign_key is not None:
            raise StateReached
        elif key != self.key and self._group_of is not None and self._group_of(key) != self._group:
            self.foreign_key = key
            raise StateReached
        return self.state

    @property
    def random(self) -> random.Random:
        """A generator seeded by (position, rule id): the same in every replay."""
        if self._random is None:
            self._random = random.Random(f"{self.position}{self.rule_id}")
        return self._random

    def start(self, rule_id: str) -> None:
        self.rule_id = rule_id
        self.key = self.foreign_key = self._random = None
        self.strayed = False


_current: Evaluation | None = None


def current() -> Evaluation:
    """The evaluation that runs now. RuntimeError outside one: at import of a rule's module there is no event."""
    if _current is None:
        raise RuntimeError(
            "there is no evaluation: caching helpers work inside rule() and its auxiliary functions only"
        )
    return _current


def evaluate(rule: Rule, event: PantherEvent, evaluation: Evaluation) -> Outcome:
    """Run a rule on an event: NO_MATCH, REACHED (probing only) or what it came to. Never raises for what a rule does.

    Writes that stood before an ordinary exception stand after it; an evaluation that reached a second key group, or used
    another thread, leaves none.
    """
    global _current
    evaluation.start(rule.id)
    state = evaluation.state
    if state is not None:
        state.begin()
    _current = evaluation
    try:
        outcome = rule.run(event)
    finally:
        _current = None
    if evaluation.key is None and not evaluation.strayed:
        return outcome
    if evaluation.strayed:
        return _undone(state, _strayed())
    if state is None:
        return REACHED
    if evaluation.foreign_key is not None:
        return _undone(state, _two_groups(evaluation))
    return outcome


def _undone(state: State | None, error: RuleError) -> Outcome:
    if state is not None:
        state.undo()
    return Outcome(None, (error,))


def _strayed() -> RuleError:
    return RuleError(
        "rule", "ThreadError", "a caching helper was called from another thread: call it in rule() itself", ""
    )


def _two_groups(evaluation: Evaluation) -> RuleError:
    message = (
        f"one evaluation touched {evaluation.key!r} and {evaluation.foreign_key!r}, which are in different key groups: "
        "give both keys a common {tag}, such as the actor in braces"
    )
    return RuleError("rule", "KeyGroupError", message, "")
