"""A rescale goes on until nothing of it is on its way any more."""

from __future__ import annotations

import pytest

from cluster.core.keygroups import balanced
from cluster.core.ownership import Ownership

GROUPS = 8


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 4)])
def test_a_rescale_is_over_once_its_last_epoch_is_delivered(before: int, after: int) -> None:
    ownership = Ownership(balanced(before, GROUPS), before, moved_keys=1)
    for newcomer in ownership.request(after):
        ownership.joined(newcomer)
    moving: list[int] = []
    number = 0
    copied: set[int] = set()
    while True:
        number += 1
        assert ownership.needs_epoch(number)
        owners = ownership.owners
        ownership.prepare(number)
        ownership.validate()
        if ownership.owners != owners:
            moving.append(number)
            moved = {g for g, (owner, to) in enumerate(zip(owners, ownership.owners, strict=True)) if owner != to}
            assert moved <= copied, "only what is copied moves"
        if ownership.target is None:
            break
        for shard in range(ownership.shards):
            groups = [group for group, owner in enumerate(ownership.owners) if owner == shard]
            ownership.grouped(shard, 1_000, groups[-2:])
            copied.update(groups[-2:])

    assert sorted(set(ownership.owners)) == list(range(after))
    assert moving[-1] < number, "the epoch after the last that moves anything"
    for awaited in (moving[-1], number):
        ownership.let_go(awaited)
        assert not ownership.settled, "it is not delivered yet"
    ownership.let_go(number + 1)
    assert ownership.settled
    assert ownership.shards == after
    assert not ownership.needs_epoch(number + 1)
