"""Poison: evaluations that do not return, as a part of the input (DESIGN 11.12); and the cells by which one is found out.

A machine writes into its cells what it is about to evaluate. When an evaluation takes longer than the limit its process is
killed, and what the cells said becomes part of the job: it is logged with the next life's manifest before anything runs again.
A poisoned evaluation is not run, has no effect at all, W included, and gives an error record. After its third one a rule is off.

A timeout counts where the evaluation met what it would meet in the one sequential run (`final`):

    probe      always: up to its first access to state a rule depends on the event and the code alone
    execute    on a single shard, which runs in order and defers nothing
    lane       while the pass has set nothing aside: all evaluations before this one were then as in sequence (lane.py)

Elsewhere an evaluation may have run ahead of a write that is still to come, so it becomes a suspect only. In the epoch that
holds a suspect's place, whatever its cuts are by then, all evaluations of its rule go into the lane, and wait there for a pass
that has set nothing aside before them: what hangs there counts. (All of the rule's, or else each that is left out would leave
the next one to meet the same state and hang as well, at the price of one life each.)

None of this says anything of a rule that does not return after a helper has ended its evaluation: it swallowed that, and waits
for a value that the one sequential run would give it. What it asked for is lost with its process. From the next life on such a
rule is `swallowing`: all its evaluations are ended for good when a helper ends them (rules/unwinding.py), so that they come
back there and tell their keys. One that even so does not (it waits for a thread, or took the trace function away) counts.

Why `off` is exact in whatever order timeouts are found: let t1 < t2 < t3 be the first three of a rule in the sequential run.
What is known of it is at any time some true timeouts and perhaps some places after t3, so the third smallest known is never
before t3, and no evaluation up to t3 is ever skipped wrongly. A run cannot get past a true timeout that is not known: the
evaluation runs, hangs and becomes known. An epoch is delivered when all before it are, so at the end, and before anything at
or after t1, t2 or t3 was delivered, all three are known, and t3 is the third smallest. A place after t3 can be known only
because its evaluation ran before t3 was found (in a slice that was read ahead); it is then skipped, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from rules.rule import Rule, RuleError

Place = tuple[int, int, int]
"""An event's position as three numbers that compare: (partition, offset, sub-index; 0 where its record is one event)."""

TIMEOUTS_UNTIL_OFF = 3
"""Each costs the limit and a replay: one is bad luck with an event, three are the rule."""

PID, BEAT, RUN, FINAL, PARTITION, OFFSET, SUB, ORDINAL, ENDED = range(9)
"""The cells: the process and its beat (cluster/watch.py); a number that grows with every slice and pass, whether what runs in it
sees final state; the event's place, and the ordinal of the rule that is evaluated, NOTHING between evaluations; 1 where a
helper has ended the evaluation and the rule has not come back, 2 where it was ended for good (rules/evaluation.py)."""

NOTHING = -1
CELLS = 9


class Cells(Protocol):
    """A list of integers, or a view of shared memory that somebody else watches."""

    def __getitem__(self, at: int, /) -> int: ...
    def __setitem__(self, at: int, value: int, /) -> None: ...


def unwatched() -> list[int]:
    """Cells that nobody looks at."""
    return [*[0] * ORDINAL, NOTHING, 0]


def begin_run(cells: Cells, partition: int, *, final: bool) -> None:
    """The evaluations that follow are of one partition, and of one kind."""
    cells[RUN] += 1
    cells[FINAL] = int(final)
    cells[PARTITION] = partition
    cells[SUB] = 0


class Hang(NamedTuple):
    """An evaluation that did not return within the limit."""

    place: Place
    ordinal: int
    final: bool
    limit_s: float
    ended: int = 0
    """1: a helper had ended it, and the rule went on for all that; 2: also when it was ended for good."""

    @staticmethod
    def read(cells: Cells, limit_s: float) -> Hang:
        """The evaluation that these cells tell of."""
        place = (cells[PARTITION], cells[OFFSET], cells[SUB])
        return Hang(place, cells[ORDINAL], bool(cells[FINAL]), limit_s, cells[ENDED])


class Timeout(NamedTuple):
    """A poisoned evaluation."""

    rule_id: str
    place: Place
    limit_s: float


class Suspect(NamedTuple):
    """An evaluation that hung where that proves nothing."""

    rule_id: str
    place: Place


@dataclass(frozen=True, slots=True)
class Poison:
    """What is known of evaluations that do not return."""

    timeouts: tuple[Timeout, ...] = ()
    """In order of their places; of each rule at most as many as it takes to switch it off."""
    suspects: tuple[Suspect, ...] = ()
    swallowing: tuple[str, ...] = ()
    """RuleIDs of those that did not return after a helper had ended their evaluation."""

    def after(self, rule_id: str, hang: Hang) -> Poison:
        """What is known once this was found out as well."""
        if hang.ended == 1:
            return replace(self, swallowing=(*(each for each in self.swallowing if each != rule_id), rule_id))
        suspect = Suspect(rule_id, hang.place)
        if not hang.final and not hang.ended:
            return replace(self, suspects=(*(each for each in self.suspects if each != suspect), suspect))
        own = {each.place: each for each in self.timeouts if each.rule_id == rule_id}
        own.setdefault(hang.place, Timeout(rule_id, hang.place, hang.limit_s))
        first = [own[place] for place in sorted(own)][:TIMEOUTS_UNTIL_OFF]
        others = [each for each in self.timeouts if each.rule_id != rule_id]
        return replace(self, timeouts=tuple(sorted([*others, *first], key=lambda each: (each.place, each.rule_id))))

    def off(self) -> dict[str, Place]:
        """RuleID -> the place of the timeout after which it is not evaluated any more."""
        places: dict[str, list[Place]] = {}
        for timeout in self.timeouts:
            places.setdefault(timeout.rule_id, []).append(timeout.place)
        return {rule_id: at[-1] for rule_id, at in places.items() if len(at) == TIMEOUTS_UNTIL_OFF}


NO_POISON = Poison()


def poison_record(poison: Poison) -> dict[str, Any]:
    """The part of a manifest that keeps it."""
    return {
        "timeouts": [list(each) for each in poison.timeouts],
        "suspects": [list(each) for each in poison.suspects],
        "swallowing": list(poison.swallowing),
    }


def poison_of(manifest: dict[str, Any]) -> Poison:
    """The inverse of poison_record(). Manifests of earlier versions know none."""
    return Poison(
        tuple(Timeout(rule_id, _place(place), limit_s) for rule_id, place, limit_s in manifest.get("timeouts", ())),
        tuple(Suspect(rule_id, _place(place)) for rule_id, place in manifest.get("suspects", ())),
        tuple(manifest.get("swallowing", ())),
    )


def _place(record: Sequence[int]) -> Place:
    partition, offset, sub = record
    return partition, offset, sub


def place_of(position: tuple[int, ...]) -> Place:
    """The place of a public position."""
    return position[0], position[1], position[2] if len(position) > 2 else 0


class Skips:
    """Which evaluations of a pack are not to be run. False where all are."""

    def __init__(self, poison: Poison, rules: Sequence[Rule]) -> None:
        ordinals = {rule.id: ordinal for ordinal, rule in enumerate(rules)}
        off = poison.off()
        self._off = {ordinals[rule_id]: place for rule_id, place in off.items() if rule_id in ordinals}
        self._timeouts = {
            (each.place, ordinals[each.rule_id]): _error(each, last=off.get(each.rule_id) == each.place)
            for each in poison.timeouts
            if each.rule_id in ordinals
        }

    def __bool__(self) -> bool:
        return bool(self._timeouts)

    def runs(self, place: Place, ordinal: int) -> bool:
        off = self._off.get(ordinal)
        return (place, ordinal) not in self._timeouts and (off is None or place < off)

    def errors(self, place: Place, ordinals: Iterable[int]) -> Iterator[tuple[int, RuleError]]:
        """(ordinal, what is said in place of its outcome) of the timeouts of an event."""
        for ordinal in ordinals:
            error = self._timeouts.get((place, ordinal))
            if error is not None:
                yield ordinal, error


def _error(timeout: Timeout, *, last: bool) -> RuleError:
    message = f"it did not return within {timeout.limit_s:g} s: ended, without any effect"
    if last:
        message += f"; the {TIMEOUTS_UNTIL_OFF}rd time, so from here on the rule is off: mend it, and run again"
    return RuleError("rule", "TimeoutError", message, "")
