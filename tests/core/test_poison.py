"""What a hang is taken for, by what is known of its rule."""

from __future__ import annotations

import json

from cluster.core.poison import Hang, Poison, Suspect, Timeout, poison_of, poison_record

PLACE = (0, 120, 0)


def test_a_hang_after_the_end_of_a_probe_says_that_the_rule_swallows_and_nothing_of_the_event() -> None:
    assert Poison().after("R", Hang(PLACE, 3, True, 15.0, ended=1)) == Poison(swallowing=("R",))


def test_a_hang_of_before_that_is_told_late_says_nothing_new() -> None:
    known = Poison(swallowing=("R",))

    assert known.after("R", Hang(PLACE, 3, True, 15.0, ended=1)) == known


def test_a_hang_of_a_rule_that_was_ended_for_good_counts() -> None:
    assert Poison().after("R", Hang(PLACE, 3, False, 15.0, ended=2)).timeouts == (Timeout("R", PLACE, 15.0),)


def test_a_hang_before_any_end_counts_where_it_is_final() -> None:
    known = Poison(swallowing=("R",))

    assert known.after("R", Hang(PLACE, 3, True, 15.0)).timeouts == (Timeout("R", PLACE, 15.0),)
    assert known.after("R", Hang(PLACE, 3, False, 15.0)).suspects == (Suspect("R", PLACE),)


def test_what_is_known_survives_a_manifest() -> None:
    known = Poison((Timeout("A", PLACE, 15.0),), (Suspect("B", PLACE),), ("C",))

    assert poison_of(json.loads(json.dumps(poison_record(known)))) == known
