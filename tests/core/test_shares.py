"""What a shard ingests makes up for what it executes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.core.messages import Counts
from cluster.core.shares import Shares


def learned(*epochs: tuple[Counts, ...]) -> Shares:
    shares = Shares()
    for epoch in epochs:
        for shard, counts in enumerate(epoch):
            shares.learn(shard, counts)
    return shares


def test_shares_are_even_as_long_as_nothing_is_known() -> None:
    assert Shares().of(4) == [0.25] * 4


def test_a_shard_that_executes_more_ingests_less() -> None:
    shares = learned(*[(Counts(events=1000, evaluations=1500), Counts(events=1000, evaluations=500))] * 30)

    hot, cold = shares.of(2)

    assert hot * 2000 + 0.6 * 1500 == pytest.approx(cold * 2000 + 0.6 * 500, rel=0.01)


def test_shards_that_execute_alike_share_evenly_whatever_they_ingested() -> None:
    shares = learned(*[(Counts(events=1500, evaluations=500), Counts(events=500, evaluations=500))] * 30)

    assert shares.of(2) == pytest.approx([0.5, 0.5])


def test_a_shard_is_never_without_a_share() -> None:
    shares = learned(*[(Counts(events=10, evaluations=10_000), Counts(events=10))] * 30)

    hot, cold = shares.of(2)

    assert 0.03 < hot < 0.1
    assert hot + cold == pytest.approx(1)


def test_events_that_are_skipped_count_for_little() -> None:
    skipping = Counts(events=800, skipped_unparsed=800, evaluations=100)
    shares = learned(*[(skipping, Counts(events=800, skipped_unparsed=800))] * 30)

    hot, cold = shares.of(2)

    assert hot * 200 + 60 == pytest.approx(cold * 200, rel=0.01)


def test_an_empty_epoch_changes_nothing_and_a_new_shard_counts_as_usual() -> None:
    shares = learned(*[(Counts(events=100, evaluations=100),) * 2] * 10)
    before = shares.of(2)

    shares.learn(0, Counts())

    assert shares.of(2) == before
    assert shares.of(3) == pytest.approx([1 / 3] * 3)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 10**6), st.integers(0, 10**6)), max_size=30), st.integers(1, 8)
)
def test_shares_are_positive_and_make_a_whole(done: list[tuple[int, int, int]], shards: int) -> None:
    shares = Shares()
    for shard, events, evaluations in done:
        shares.learn(shard, Counts(events=events, evaluations=evaluations))

    parts = shares.of(shards)

    assert len(parts) == shards
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(1)
