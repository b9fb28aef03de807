"""The context of the evaluation that runs now, and running one: what the helpers and the bound clock act on.

One Evaluation object serves a whole shard: it is set up for each event, so that an evaluation costs no allocation.
While probing (no state) the first helper call records its key and ends the evaluation; with a state that holds only some
keys, the first key that it does not hold does. A rule cannot swallow that: the record, not the exception, decides what the
evaluation came to (DESIGN 11.4). Nor can it go on for ever: a rule that asks again and again is ended for good (unwinding.py),
and one that waits without asking is killed once (cluster/core/poison.py), and from then on ended so at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, NoReturn, cast

from rules.errors import StateReached
from rules.rule import NO_MATCH, Outcome, RuleError
from rules.segment import SLOTS
from rules.state import MAX_KEY_BYTES, check_key
from rules.unwinding import Unwinding

if TYPE_CHECKING:
    from rules.event import PantherEvent
    from rules.rule import Rule
    from rules.state import State

__all__ = ["DEFERRED", "NO_MATCH", "REACHED", "RUNNING", "Evaluation", "StateReached", "Touched", "current", "evaluate",
           "keys_of"]  # fmt: skip

REACHED = Outcome(None, ())
"""What a probe that reached state comes to: Evaluation.key says where. Compare by identity."""

DEFERRED = Outcome(None, ())
"""What an evaluation comes to that asked for a key which the state does not hold: Evaluation.keys() says which, the last is
the one it met. It has left nothing behind. Compare by identity."""

_OTHER_THREAD = "a caching helper was called from another thread: call it in rule() itself"

STRAYED = Outcome(None, (RuleError("rule", "ThreadError", _OTHER_THREAD, ""),))
"""What an evaluation comes to that called a helper from another thread."""

_PATIENCE = 8
"""At so many calls after the one that ended the evaluation the rule is taken to call for ever."""


Touched = str | tuple[str, ...] | None
"""The keys of an evaluation: none, one, or several."""


def keys_of(touched: Touched) -> tuple[str, ...]:
    """Evaluation.keys(), of what touched() gave."""
    if touched is None:
        return ()
    return (touched,) if type(touched) is str else cast(tuple[str, ...], touched)


class Evaluation:
    """What one shard's evaluations share. Not thread-safe, on purpose: a helper called in another thread is refused."""

    __slots__ = ("_holds", "_random", "_refused", "_tell_ended", "_thread", "_unwinding", "ended", "event_time_s",
                 "key", "others", "position", "rule_id", "stale", "state", "strayed", "swallowing", "varies")  # fmt: skip

    def __init__(
        self,
        state: State | None,
        holds: Callable[[str], bool] | None = None,
        tell_ended: Callable[[int], object] | None = None,
    ) -> None:
        """`tell_ended` is called with 1 when a key ends an evaluation, with 2 when its rule is ended for good, and with 0 once
        it has come back."""
        self.state = state
        """Where helpers read and write; None while probing."""
        self._holds = holds
        """Whether the state holds a key; None where it holds all."""
        self.stale = False
        """Some of what is in the state are keys that it does not hold any more."""
        self._thread = get_ident()
        self.event_time_s = 0.0
        """The event's own time: what time.time() gives in rule modules."""
        self.position: tuple[int, ...] = ()
        self.rule_id = ""
        self.key: str | None = None
        """The first key that the evaluation asked state for."""
        self.ended = False
        """A helper ended the evaluation; whatever the rule did after that does not count."""
        self.others: dict[str, None] | None = None
        """The keys after the first, each once."""
        self.strayed = False
        """It was ended by a helper call from another thread."""
        self.varies = False
        """It asked for the time or for chance."""
        self._random: random.Random | None = None
        self._tell_ended = tell_ended
        self._refused = 0
        """How often a helper was called since it ended."""
        self._unwinding: Unwinding | None = None
        self.swallowing: frozenset[str] = frozenset()
        """RuleIDs that are ended for good by the first helper that ends them."""

    def run_here(self) -> None:
        """The evaluations that follow run in this thread."""
        self._thread = get_ident()

    def begin_event(self, event_time_s: float, position: tuple[int, ...]) -> None:
        """The evaluations that follow are of this event, and run in this thread."""
        self.run_here()
        self.event_time_s = event_time_s
        self.position = position

    def begin(self, rule_id: str) -> None:
        """Forget what the evaluation before came to."""
        self.rule_id = rule_id
        self.key = self.others = None
        if self.ended:  # what has strayed was ended
            self.ended = self.strayed = False
        if self.varies:  # what has drawn varies
            self.varies, self._random = False, None

    def reach(self, helper: str, key: str) -> State:
        """The state that holds a key. Raises StateReached, after recording why, where the evaluation ends here, and what
        check_key() does where that is no key."""
        first = self.key
        if (first is None or key is not first) and (
            type(key) is not str or not key.isascii() or not 0 < len(key) <= MAX_KEY_BYTES
        ):
            check_key(helper, key)  # it may still be one
        if get_ident() != self._thread:
            self.strayed = self.strayed or not self.ended
            self.ended = True
            raise RuntimeError(_OTHER_THREAD)
        if self.ended:
            self._refuse()
        state = self.state
        if first is None:
            self.key = key
        elif key == first or (self.others is not None and key in self.others):
            assert state is not None
            return state
        elif self.others is None:
            self.others = {key: None}
        else:
            self.others[key] = None
        if state is None:
            self._end()
        # Unless stale, what is stored is held: to look for it costs least, and is what the helper does next.
        holds = self._holds
        if holds is not None and (self.stale or key not in state.slots[hash(key) % SLOTS].expiries) and not holds(key):
            self._end()
        return state

    def _end(self) -> NoReturn:
        self.ended = True
        if self._tell_ended is not None:
            self._tell_ended(1)
        if self.rule_id in self.swallowing:
            self._unwind()
        raise StateReached

    def _refuse(self) -> NoReturn:
        self._refused += 1
        if self._refused >= _PATIENCE:
            self._unwind()
        raise StateReached

    def _unwind(self) -> None:
        if self._unwinding is None:
            self._unwinding = Unwinding()
        if self._tell_ended is not None:
            self._tell_ended(2)
        self._unwinding.begin(evaluate.__code__)

    def close(self) -> None:
        """The rule of an evaluation that was ended has come back."""
        self._refused = 0
        if self._unwinding is not None:
            self._unwinding.end()
            self._unwinding = None
        if self._tell_ended is not None:
            self._tell_ended(0)

    def keys(self) -> tuple[str, ...]:
        """The keys that the evaluation asked state for, each once, in that order."""
        return keys_of(self.touched())

    def touched(self) -> Touched:
        """The same, to be kept: most ask for one key, and then it costs nothing."""
        return self.key if self.others is None else (cast(str, self.key), *self.others)

    @property
    def random(self) -> random.Random:
        """A generator seeded by (position, rule id): the same in every replay."""
        if self._random is None:
            self.varies = True
            self._random = random.Random(f"{self.position}{self.rule_id}")
        return self._random


class _Running:
    """What runs in this process."""

    __slots__ = ("evaluation",)

    def __init__(self) -> None:
        self.evaluation: Evaluation | None = None


RUNNING = _Running()


def current() -> Evaluation:
    """The evaluation that runs now. Raises RuntimeError outside one: while a module is loaded there is no event."""
    if RUNNING.evaluation is None:
        raise RuntimeError("no event is being evaluated: call this inside rule() or another function of the rule")
    return RUNNING.evaluation


def evaluate(rule: Rule, event: PantherEvent, evaluation: Evaluation) -> Outcome:
    """Run a rule on an event: NO_MATCH, REACHED (probing only), DEFERRED or what it came to. Never raises for what a rule does.

    One at a time in a process. Writes that stood before an ordinary exception stand after it; an evaluation that asked for a
    key which the state does not hold, or called a helper from another thread, leaves none.
    """
    evaluation.begin(rule.id)
    state = evaluation.state
    if state is not None:
        state.begin()
    RUNNING.evaluation = evaluation
    try:
        outcome = rule.run(event)
    finally:
        RUNNING.evaluation = None
    if not evaluation.ended:
        return outcome
    evaluation.close()
    if state is None and not evaluation.strayed:
        return REACHED
    if state is not None:
        state.undo()
    return STRAYED if evaluation.strayed else DEFERRED
