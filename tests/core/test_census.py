"""Who gets a key group has what its former owner had, though that went on writing while it copied."""

from __future__ import annotations

import random

import pytest

from cluster.core.census import Census
from cluster.core.errors import InvariantBroken
from cluster.core.keygroups import group_of
from rules.state import Row, State
from rules.windows import Windows

GROUPS = 4
LEAVING = (1, 3)


def write(state: State, chance: random.Random) -> None:
    key = f"k{chance.randrange(60)}"
    state.begin()
    match chance.randrange(5):
        case 0:
            state.increment_counter(key, 1, chance.randrange(1, 99))
        case 1:
            state.add_to_string_set(key, str(chance.randrange(9)))
        case 2:
            state.reset_counter(key)
        case 3:
            state.increment_counter(key)
            state.undo()
        case 4:
            state.put_dictionary(key, {"n": chance.randrange(9)})


def of_groups(state: State, groups: tuple[int, ...]) -> dict[str, Row]:
    return {row.key: row for row in state.rows(0.0) if group_of(row.key, GROUPS) in groups}


@pytest.mark.parametrize("seed", range(100))
def test_copies_and_what_changed_since_make_up_the_group(seed: int) -> None:
    chance = random.Random(seed)
    giver, taker = State(), State()
    giver.begin_epoch()
    for _ in range(chance.randrange(120)):
        write(giver, chance)
    census = Census((0, 1, 0, 2), frozenset(LEAVING), giver, Windows())
    waiting = set(LEAVING)
    copies_there: list[Row] = []
    while waiting:
        copies, copied = census.advance(chance.randrange(1, 40), chance.randrange(1, 20))
        assert set(copies) <= {1, 2}, "a copy goes to the owner to be"
        for rows in copies.values():
            copies_there += rows
        waiting.difference_update(copied)
        giver.begin_epoch()
        for _ in range(chance.randrange(20)):
            write(giver, chance)
        if chance.random() < 0.3:  # as the serial lane does
            row = Row(f"k{chance.randrange(60)}", chance.randrange(9), None, None, 9_999)
            giver.put([row])
            census.changed([row.key])

    expected = of_groups(giver, LEAVING)
    leaving = census.take(LEAVING)
    giver.let_go(leaving.keys)
    taker.take_over(copies_there)
    taker.put(leaving.changed)

    assert len(copies_there) == leaving.copied
    assert of_groups(taker, LEAVING) == expected
    assert not of_groups(giver, LEAVING)
    giver.validate()
    taker.validate()


def test_a_group_does_not_leave_before_all_of_it_is_copied() -> None:
    state = State()
    for number in range(40):
        state.increment_counter(f"k{number}")
    census = Census((1,), frozenset({0}), state, Windows())

    copies, copied = census.advance(100, 39)

    assert ([len(rows) for rows in copies.values()], copied) == ([39], [])
    with pytest.raises(InvariantBroken, match="group 0 moves before all of it is copied"):
        census.take([0])


def test_a_group_that_grows_as_fast_as_it_is_copied_is_copied_all_the_same() -> None:
    """Found by a reader: keys that came later were copied in their turn, and a rescale went on until the input ended."""
    state = State()
    state.increment_counter("k")
    census = Census((1,), frozenset({0}), state, Windows())
    through: list[int] = []
    for epoch in range(10):
        state.begin_epoch()
        for number in range(30):
            state.begin()
            state.increment_counter(f"{epoch} {number}")
        _, copied = census.advance(100, 10)
        through += copied

    assert through == [0]
    assert len(census.take([0]).changed) > 100
