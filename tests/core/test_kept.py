"""A shard goes back to a checkpoint by itself where it can, and says so where it cannot."""

from __future__ import annotations

import pytest

from cluster.core.kept import Kept
from rules.state import State
from rules.windows import Policy
from tests.capturing import take_dirty

GROUPS = frozenset({1, 2})
POLICY = Policy(threshold=1, period_s=60.0, distinct=False)


def count(kept: Kept) -> None:
    """A write, and a match."""
    kept.state.begin()
    at = kept.state.increment_counter("key")
    kept.windows.add(("R", "dedup"), POLICY, 0.0, (0, at), None, lambda: b"")


def capture(kept: Kept, epoch: int) -> None:
    take_dirty(kept.state)
    kept.windows.capture_dirty()
    kept.captured(epoch, GROUPS)


def held(kept: Kept) -> tuple[int, int]:
    """The counter, and the matches of the window."""
    return kept.state.get_counter("key"), sum(row.matches for row in kept.windows.rows())


@pytest.fixture
def kept() -> Kept:
    """Started from nothing, one count in the checkpoint of epoch 5, one after it."""
    kept = Kept(State())
    kept.started(0, (), GROUPS)
    count(kept)
    capture(kept, 5)
    kept.stored(5, ("own",))
    kept.committed(5, ("own", "another's"))
    count(kept)
    return kept


def test_it_goes_back_to_the_committed_checkpoint_and_on_from_there(kept: Kept) -> None:
    assert kept.roll_back(5, ("own", "another's"), GROUPS)
    assert held(kept) == (1, 1)

    count(kept)
    assert kept.roll_back(5, ("own", "another's"), GROUPS)
    assert held(kept) == (1, 1)


def test_it_goes_back_to_a_checkpoint_of_whose_commit_it_has_not_heard(kept: Kept) -> None:
    capture(kept, 8)
    kept.stored(8, ("own", "delta"))
    count(kept)

    assert kept.roll_back(8, ("own", "delta", "another's"), GROUPS)
    assert held(kept) == (2, 2)


def test_it_goes_back_past_a_checkpoint_that_came_to_nothing(kept: Kept) -> None:
    for epoch in (8, 11):
        capture(kept, epoch)
        kept.stored(epoch, ("own", f"delta-{epoch}"))
        count(kept)

    assert kept.roll_back(5, ("own", "another's"), GROUPS)
    assert held(kept) == (1, 1)


def test_what_is_not_in_the_store_is_no_checkpoint(kept: Kept) -> None:
    capture(kept, 8)

    assert not kept.roll_back(8, ("own", "delta"), GROUPS)


@pytest.mark.parametrize(
    ("epoch", "blobs", "groups"),
    [(4, ("own", "another's"), GROUPS), (5, ("own",), GROUPS), (5, ("own", "another's"), frozenset({1}))],
    ids=["another epoch", "other blobs", "other groups"],
)
def test_to_anything_else_it_does_not_go_back(
    kept: Kept, epoch: int, blobs: tuple[str, ...], groups: frozenset[int]
) -> None:
    assert not kept.roll_back(epoch, blobs, groups)


def test_when_groups_have_moved_it_waits_for_the_next_checkpoint(kept: Kept) -> None:
    kept.moved()
    assert not kept.roll_back(5, ("own", "another's"), GROUPS)

    capture(kept, 8)
    kept.stored(8, ("own",))
    kept.committed(8, ("own",))
    count(kept)
    assert kept.roll_back(8, ("own",), GROUPS)
    assert held(kept) == (2, 2)


def test_what_was_captured_while_groups_move_is_let_go(kept: Kept) -> None:
    """Found by bench/rescale.py: with each move the word of a commit found nothing to settle, and images piled up."""
    for epoch in (8, 9, 10):
        capture(kept, epoch)
        kept.stored(epoch, (f"delta-{epoch}",))
        kept.moved()
        kept.committed(epoch, ("own", f"delta-{epoch}"))

        assert not any(segment.taken for segment in kept.state._segments)
        assert not kept.windows._taken
        assert not kept.roll_back(epoch, ("own", f"delta-{epoch}"), GROUPS)
        count(kept)
