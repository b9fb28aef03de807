"""The context of the evaluation that runs now, and running one: what the helpers and the bound clock act on.

One Evaluation object serves a whole shard: it is set up for each event, so that an evaluation costs no allocation.
While probing (no state) the first helper call records its key and ends the evaluation. A rule cannot swallow that: the
record, not the exception, decides what the evaluation came to (DESIGN 11.4).
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

_OTHER_THREAD = "a caching helper was called from another thread: call it in rule() itself"


class Evaluation:
    """What one shard's evaluations share. Not thread-safe, on purpose: a helper called in another thread is refused."""

    __slots__ = ("_group", "_group_of", "_random", "_thread", "ended", "event_time_s", "foreign_key", "key", "position",
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
        self.ended = False
        """A helper ended the evaluation; whatever the rule did after that does not count."""
        self.foreign_key: str | None = None
        """It was ended by this key, which is of another key group than the first."""
        self.strayed = False
        """It was ended by a helper call from another thread."""
        self._group = 0
        self._random: random.Random | None = None

    def begin_event(self, event_time_s: float, position: tuple[int, ...]) -> None:
        """The evaluations that follow are of this event, and run in this thread."""
        self._thread = threading.get_ident()
        self.event_time_s = event_time_s
        self.position = position

    def begin(self, rule_id: str) -> None:
        """Forget what the evaluation before came to."""
        self.rule_id = rule_id
        self.key = self.foreign_key = self._random = None
        self.ended = self.strayed = False

    def reach(self, key: str) -> State:
        """The state that holds a key. Raises StateReached, after recording why, where the evaluation ends here."""
        if threading.get_ident() != self._thread:
            self.strayed = self.strayed or not self.ended
            self.ended = True
            raise RuntimeError(_OTHER_THREAD)
        if self.ended:
            raise StateReached
        if self.key is None:
            self.key = key
            if self.state is None:
                self.ended = True
                raise StateReached
            if self._group_of is not None:
                self._group = self._group_of(key)
        elif self._group_of is not None and key != self.key and self._group_of(key) != self._group:
            self.foreign_key = key
            self.ended = True
            raise StateReached
        assert self.state is not None
        return self.state

    @property
    def random(self) -> random.Random:
        """A generator seeded by (position, rule id): the same in every replay."""
        if self._random is None:
            self._random = random.Random(f"{self.position}{self.rule_id}")
        return self._random


_current: Evaluation | None = None


def current() -> Evaluation:
    """The evaluation that runs now. Raises RuntimeError outside one: while a module is loaded there is no event."""
    if _current is None:
        raise RuntimeError("no event is being evaluated: call this inside rule() or another function of the rule")
    return _current


def evaluate(rule: Rule, event: PantherEvent, evaluation: Evaluation) -> Outcome:
    """Run a rule on an event: NO_MATCH, REACHED (probing only) or what it came to. Never raises for what a rule does.

    One at a time in a process. Writes that stood before an ordinary exception stand after it; an evaluation that reached a
    second key group, or called a helper from another thread, leaves none.
    """
    global _current
    evaluation.begin(rule.id)
    state = evaluation.state
    if state is not None:
        state.begin()
    _current = evaluation
    try:
        outcome = rule.run(event)
    finally:
        _current = None
    if not evaluation.ended:
        return outcome
    if not evaluation.strayed and evaluation.foreign_key is None:
        return REACHED
    if state is not None:
        state.undo()
    error = RuleError("rule", "ThreadError", _OTHER_THREAD, "") if evaluation.strayed else _two_groups(evaluation)
    return Outcome(None, (error,))


def _two_groups(evaluation: Evaluation) -> RuleError:
    message = (
        f"one evaluation touched {evaluation.key!r} and {evaluation.foreign_key!r}, which are in different key groups: "
        "give both keys a common {tag}, such as the actor in braces"
    )
    return RuleError("rule", "KeyGroupError", message, "")
