"""Ownership: who owns what in the epoch that is cut next, and the way of a running job to another number of shards.

Steps of a rescale (each waits for the one above it):

    JOINING   new shards are told of the job
    MOVING    cuts name the target: who gives groups away sorts their keys and copies them to their new owners, some thousand
              an epoch (census.py). Every cut moves a few of the groups that are copied, until the target is reached
    ENDING    shards that own nothing have no part in the cuts any more. Once the first of these is delivered, so is all that
              moved, and nobody waits for anything that lies before it, the rescale is over, and they may go

Only groups that move with an epoch wait for it, and then only for what has changed since they were copied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from enum import Enum

from cluster.core.errors import require
from cluster.core.keygroups import Owners, rebalanced


class Step(Enum):
    SETTLED = "settled"
    JOINING = "joining"
    MOVING = "moving"
    ENDING = "ending"


class Ownership:
    """Who owns what, as the coordinator decides it."""

    def __init__(self, owners: Owners, shards: int, moved_keys: int) -> None:
        """`moved_keys` is about how many keys a shard gives away, or takes, with one epoch."""
        self._moved_keys = moved_keys
        self.owners = owners
        """Of the epoch that is cut next."""
        self.shards = shards
        """How many have a part in it."""
        self.target: Owners | None = None
        """Where a rescale leads to."""
        self._step = Step.SETTLED
        self._wanted = shards
        self._waiting: set[int] = set()
        """JOINING: who has not answered."""
        self._ready: set[int] = set()
        """MOVING: the groups that are copied to their new owners."""
        self._since = 0
        """ENDING: the first epoch after all has moved."""
        self._prepared = 0
        """The epoch that all this is for."""
        self._keys: dict[int, int] = {}
        """Shard -> how many keys it held when it was last heard of."""

    @property
    def settled(self) -> bool:
        return self._step is Step.SETTLED

    @property
    def owning(self) -> int:
        """How many shards have state. Those that join a run have none at first, and those that leave it soon have none."""
        return len(set(self.owners))

    def needs_epoch(self, number: int) -> bool:
        """Only one more epoch, this one, brings it further, be it empty."""
        if self._step is Step.JOINING:
            return not self._waiting
        if self._step is Step.ENDING:
            return number <= self._since
        return self._step is Step.MOVING

    def request(self, shards: int) -> range:
        """Begin a rescale. Returns the shards that are new, whose answers are awaited."""
        require(self.settled, "a rescale began before the one before it was over")
        newcomers = range(self.shards, shards)
        if shards != self.shards:
            self._step, self._wanted, self._waiting = Step.JOINING, shards, set(newcomers)
        return newcomers

    def joined(self, shard: int) -> None:
        require(self._step is Step.JOINING and shard in self._waiting, f"shard {shard} joined unasked")
        self._waiting.discard(shard)

    def prepare(self, number: int) -> None:
        """Set `owners`, `shards` and `target` to what holds in the epoch that is cut next. Asked again, it stays with that."""
        if number == self._prepared or self._waiting:
            return
        self._prepared = number
        if self._step is Step.JOINING:
            self._step = Step.MOVING
            self.shards = max(self.shards, self._wanted)
            self.target = rebalanced(self.owners, self._wanted)
        elif self._step is Step.MOVING:
            self._move(number)

    def _move(self, number: int) -> None:
        assert self.target is not None
        if self.owners != self.target:
            self.owners = _moved(self.owners, self.target, self._ready, self._groups_at_once())
            return
        self._step = Step.ENDING
        self._since, self.shards, self.target, self._ready = number, self._wanted, None, set()

    def _groups_at_once(self) -> int:
        keys = sum(self._keys.values())
        return max(1, self._moved_keys * len(self.owners) // max(keys, 1))

    def grouped(self, shard: int, keys: int, copied: Collection[int]) -> None:
        """A shard has finished its part of an epoch, holds so many keys, and has copied these groups to their new owners."""
        self._keys[shard] = keys
        self._ready.update(copied)

    def let_go(self, awaited: int) -> None:
        """Nobody waits for anything of an epoch before `awaited`."""
        if self._step is Step.ENDING and awaited > self._since:
            self._step = Step.SETTLED
            self._keys = {shard: keys for shard, keys in self._keys.items() if shard < self.shards}

    def validate(self) -> None:
        require(max(self.owners) < self.shards, "a shard that has no part in an epoch owns something in it")
        require(not self._ready or self._step is Step.MOVING, "groups are ready to move, and nothing moves")


def _moved(owners: Owners, target: Owners, ready: Collection[int], limit: int) -> Owners:
    """`owners` a step nearer to `target` by groups that are ready: no shard gives away or takes more than `limit`.

    Only half of the shards that have any give away: all wait for the slowest, and shards of one machine for each other.
    """
    waiting = Counter(owners[group] for group in ready if owners[group] != target[group])
    givers = {shard for shard, _ in waiting.most_common((len(waiting) + 1) // 2)}
    given: dict[int, int] = {}
    taken: dict[int, int] = {}
    moved = list(owners)
    for group, (owner, to) in enumerate(zip(owners, target, strict=True)):
        if owner == to or owner not in givers or group not in ready:
            continue
        if given.get(owner, 0) < limit and taken.get(to, 0) < limit:
            given[owner] = given.get(owner, 0) + 1
            taken[to] = taken.get(to, 0) + 1
            moved[group] = to
    return tuple(moved)
