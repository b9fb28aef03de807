"""The serial lane: evaluations that touch keys of several shards, run by one of them in the order of the epoch.

An evaluation that asks for a key which its shard does not own is undone and deferred. When a shard has deferred any, the
epoch's leader collects the closure: the deferred evaluations, and every evaluation of the epoch that touched one of their
keys, transitively. Their keys go back to what they were when the epoch began, and the closure runs here in position order.

Why the outcome is the sequential one: an evaluation outside the closure shares no key with one inside, so each side sees
what it would have seen in order, whatever the other does. And a pass that asked for no key outside the closure *is* the
sequential run of it: every evaluation met exactly the writes of those before it.

A pass goes on when an evaluation asks for a key that nobody has lent, and all new keys join together after the pass, with the
evaluations that touched them (DESIGN 11.13). In the first pass the evaluation, too, goes on, as if the key were absent: if all
that were taken for absent are so, and nobody had touched them, the pass met what it would in sequence, and stands. Of keys that
are new, those of a flow or a request, say, that is the rule. But what goes on may be on a wrong way, such as a search that has no
end: after a few calls of helpers it is set aside, as evaluations are at once in later passes. Keys that only a pass in want of
others asked for do no harm: their evaluations run again to the same end.

Up to the first such key a pass ran after the same evaluations on the same values as the next one will, so the evaluation that
asked for it must ask for the same keys again and get further. If it does not, its rule is not deterministic: an error, not a
pass more.

While a pass has wanted no key, each of its evaluations meets what it would in sequence, in this pass already: by induction,
those of the closure before it are as in sequence and asked for lent keys only, and those outside touched none of these. So an
evaluation that does not return there does not return in sequence either. Rules that are suspected of it (poison.py) run only
there, and are set aside by a key that nobody has lent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial

from cluster.core.ingest import Decoder, event_id_of
from cluster.core.messages import FoundError, FoundMatch, JoinedEvaluation, Order, RuleCounts
from cluster.core.poison import ENDED, FINAL, NOTHING, OFFSET, ORDINAL, PARTITION, SUB, Cells, begin_run, place_of
from rules.evaluation import DEFERRED, NO_MATCH, Evaluation, evaluate
from rules.event import PantherEvent
from rules.rule import Outcome, Rule, RuleError
from rules.state import Row, State

_CALLS_ASSUMING = 16
"""So often an evaluation may call helpers from the first key on that it takes for absent: more often than most rules do."""


class _Evaluation(Evaluation):
    """One that may go on past keys that nobody has lent."""

    __slots__ = ("calls_left",)

    calls_left: int | None
    """None as long as it met lent keys only."""

    def begin(self, rule_id: str) -> None:
        super().begin(rule_id)
        self.calls_left = None

    def reach(self, helper: str, key: str) -> State:
        state = super().reach(helper, key)
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                self._end()
        return state


class Lane:
    """The lane of one epoch. It holds the closure so far, and after a pass that wanted nothing, its outcome."""

    def __init__(
        self,
        rules: Sequence[Rule],
        decoder: Decoder,
        sources: Mapping[int, str],
        max_value_bytes: int,
        timer: Callable[[], float],
        cells: Cells,
        suspects: AbstractSet[int],
        swallowing: frozenset[str],
    ) -> None:
        self._rules = rules
        self._decoder = decoder
        self._sources = sources
        self._max_value_bytes = max_value_bytes
        self._timer = timer
        self._cells = cells
        self._suspects = suspects
        """Ordinals of rules that wait for a pass that has set nothing aside before them."""
        self._swallowing = swallowing
        """RuleIDs of those that are ended for good by a key that nobody has lent (poison.py)."""
        self._rows: dict[str, Row] = {}
        """Every lent key, as it was when the epoch began."""
        self._evaluations: dict[Order, JoinedEvaluation] = {}
        self._events: dict[tuple[int, int], PantherEvent] = {}
        self._state: State | None = None
        """Of the last pass."""
        self._evaluation = _Evaluation(None)
        """The same."""
        self._order: Order = (0, 0, 0)
        """Of the evaluation that runs."""
        self._assumes = False
        """It may take a key for absent."""
        self._wanted: set[str] = set()
        """The keys that the last pass asked for and nobody has lent."""
        self._first_wanting: tuple[Order, tuple[str, ...]] | None = None
        """The first evaluation that asked for one, and the keys that it had asked for by then."""
        self.stands = False
        """Nothing was set aside in the last pass, and what has joined since is not other than it took it for."""
        self._fickle: set[int] = set()
        """Ordinals of rules that are not deterministic."""
        self.matches: list[FoundMatch] = []
        self.errors: list[FoundError] = []
        self.counts: dict[str, RuleCounts] = {}

    @property
    def orders(self) -> frozenset[Order]:
        """The evaluations of the closure."""
        return frozenset(self._evaluations)

    def join(self, joining: Collection[JoinedEvaluation], rows: Collection[Row] = ()) -> set[str]:
        """Take evaluations and lent keys in; the keys that these evaluations touch and that nobody has lent yet."""
        if joining or any(row.expiry_s is not None for row in rows):
            self.stands = False
        for joined in joining:
            self._evaluations[joined.order] = joined
        for row in rows:
            self._rows[row.key] = row
        return {key for joined in self._evaluations.values() for key in joined.keys} - self._rows.keys()

    def run(self) -> set[str]:
        """One pass over the closure, from the epoch's start. The keys that it asked for and nobody has lent; with none, it is the
        last, and otherwise too if it still `stands` once they have joined."""
        state = self._state = State(self._max_value_bytes)
        for row in self._rows.values():
            state.restore(row)
        evaluation = self._evaluation = _Evaluation(state, self._holds, partial(self._cells.__setitem__, ENDED))
        evaluation.swallowing = self._swallowing
        self.matches, self.errors, self.counts = [], [], {}
        self._wanted, self.stands = set(), True
        expected, self._first_wanting = self._first_wanting, None
        cells = self._cells
        begin_run(cells, NOTHING, final=True)
        for order, joined in sorted(self._evaluations.items()):
            routed = joined.event
            rule = self._rules[order[2]]
            if self._wanted and order[2] in self._suspects:
                self.stands = False
                continue
            self._order = order
            self._assumes = expected is None and order[2] not in self._suspects and rule.id not in self._swallowing
            event = self._event(joined)
            state.clock_s = joined.clock_s
            evaluation.begin_event(routed.time_s, routed.position)
            cells[PARTITION], cells[OFFSET], cells[SUB] = place_of(routed.position)
            cells[ORDINAL] = order[2]
            began_s = self._timer()
            outcome = evaluate(rule, event, evaluation)
            cells[ORDINAL] = NOTHING
            counts = self.counts.setdefault(rule.id, RuleCounts())
            counts.lane += 1
            counts.lane_s += self._timer() - began_s
            keys = evaluation.keys()
            if expected is not None and order == expected[0] and keys[: len(expected[1])] != expected[1]:
                self._fickle.add(order[2])
                state.undo()
                outcome = _key_changed(expected[1], keys)
            elif outcome is DEFERRED:
                if order[2] not in self._fickle:
                    if keys[-1] not in self._rows:
                        self._want(keys[-1])
                    self.stands = False
                    continue
                outcome = _key_changed((), keys)
            if outcome is not NO_MATCH:
                self._keep(joined, rule, outcome)
        return self._wanted

    def _holds(self, key: str) -> bool:
        """Whether the evaluation that runs may go on with a key."""
        if key in self._rows:
            return True
        if self._assumes:
            self._want(key)
            if self._evaluation.calls_left is None:
                self._evaluation.calls_left = _CALLS_ASSUMING
        return self._assumes

    def _want(self, key: str) -> None:
        self._cells[FINAL] = 0
        self._wanted.add(key)
        if self._first_wanting is None:
            self._first_wanting = self._order, self._evaluation.keys()

    def rows(self) -> list[Row]:
        """Every lent key as the last pass left it."""
        assert self._state is not None
        return [self._state.row(key) for key in self._rows]

    def _event(self, joined: JoinedEvaluation) -> PantherEvent:
        """Parsed once for all rules and passes."""
        place = joined.order[:2]
        event = self._events.get(place)
        if event is None:
            event = self._events[place] = self._decoder.routed(joined.event, self._sources[joined.partition])
        return event

    def _keep(self, joined: JoinedEvaluation, rule: Rule, outcome: Outcome) -> None:
        routed = joined.event
        event_id = event_id_of(routed.row_id, routed.position)
        for error in outcome.errors:
            self.errors.append(FoundError(joined.order, routed.position, event_id, rule.id, error))
        if outcome.match is not None:
            self.matches.append(
                FoundMatch(
                    joined.order,
                    routed.position,
                    event_id,
                    routed.log_type,
                    routed.time_s,
                    joined.clock_s,
                    outcome.match,
                )
            )


def _key_changed(before: tuple[str, ...], now: tuple[str, ...]) -> Outcome:
    message = (
        f"asked for {', '.join(map(repr, now[-3:])) or 'no key'}, but for another key"
        f"{f' ({before[-1]!r})' if before else ''} when it ran before on the very same event and values: "
        "build keys from the event and from state alone (no os.urandom, threads or files)"
    )
    return Outcome(None, (RuleError("rule", "KeyChanged", message, ""),))
