"""Shares: how much of an epoch each shard ingests, so that what it ingests and what it executes take all shards equally long.

Keys are not asked for equally often: one hot principal makes its shard execute more than the others, which then wait for it in
every epoch. What to ingest can be given to anyone. Only sizes depend on this, no result. Pure.
"""

from __future__ import annotations

from cluster.core.messages import Counts

_SKIPPED_COST = 1 / 8
"""Of an event that is skipped unparsed, as a part of what one costs that is parsed; measured 1/8 to 1/20."""

_EVALUATION_COST = 0.6
"""The same of an evaluation that reaches state; measured 0.5 to 0.7 where rules count or collect."""

_LEAST = 0.1
"""Of an even share: so much a shard ingests however much it executes."""

_WEIGHT = 0.2
"""Of what is new, against what is known."""


def ingest_cost(counts: Counts) -> float:
    """What ingesting took, in events that are parsed."""
    return counts.events - counts.skipped_unparsed * (1 - _SKIPPED_COST)


class Shares:
    """Learns from what shards did in the epochs before."""

    def __init__(self) -> None:
        self._ingested = 0.0
        """By a shard in an epoch, on average; in events that are parsed, as all here."""
        self._executed: dict[int, float] = {}
        """By each shard in an epoch."""

    def learn(self, shard: int, counts: Counts) -> None:
        """What a shard did in an epoch."""
        ingested = ingest_cost(counts)
        executed = counts.evaluations * _EVALUATION_COST
        if not ingested and not executed:
            return  # an empty epoch says nothing
        self._ingested += _WEIGHT * (ingested - self._ingested)
        before = self._executed.get(shard, executed)
        self._executed[shard] = before + _WEIGHT * (executed - before)

    def of(self, shards: int) -> list[float]:
        """Each shard's part of an epoch; together they are 1. One that is new is taken to execute as much as others."""
        known = [self._executed[shard] for shard in range(shards) if shard in self._executed]
        ingested = self._ingested * shards
        if not known or not ingested:
            return [1 / shards] * shards
        usual = sum(known) / len(known)
        executed = [self._executed.get(shard, usual) for shard in range(shards)]
        each = (ingested + sum(executed)) / shards
        parts = [min(max((each - own) / ingested, _LEAST / shards), 1.0) for own in executed]
        whole = sum(parts)
        return [part / whole for part in parts]
