"""Keys as patterns: what two keys have in common, and what a key's tag is."""

from __future__ import annotations

import pytest

from rules.lints.patterns import UNKNOWN_HOLE, Hole, Part, Pattern, pattern_of

USER, ROLE = Hole("user"), Hole("role")


def key(*parts: Part) -> Pattern:
    return pattern_of(parts)


def test_a_pattern_shows_where_its_holes_come_from() -> None:
    assert str(key("a:", USER, ":", Hole(), UNKNOWN_HOLE)) == "a:{user}:{...}{...}"


def test_neighbouring_literals_are_one_part_and_empty_ones_none() -> None:
    assert key("a", "", ":", USER) == key("a:", USER)
    assert key("", "") == Pattern(())


def test_patterns_that_differ_in_their_holes_only_have_one_skeleton() -> None:
    assert key("a:", USER).skeleton == key("a:", ROLE).skeleton == "a:{...}"
    assert key("a:", USER, ROLE).skeleton == "a:{...}"
    assert key("b:", USER).skeleton != key("a:", USER).skeleton


def test_three_word_characters_in_a_row_are_a_name() -> None:
    assert key("abc:", USER).is_named
    assert not key(USER, "-", ROLE, ":a:").is_named
    assert not key("ab", USER, "c").is_named


def test_only_what_comes_out_of_the_event_is_known() -> None:
    assert key("a:", USER).is_known
    assert not key(UNKNOWN_HOLE, USER).is_known


@pytest.mark.parametrize(
    ("one", "two", "may"),
    [
        (key("a:", USER), key("a:", USER), True),
        (key("a:", USER), key("a:", ROLE), False),
        (key("a:", USER), key("a:", Hole()), True),
        (key("a:", USER), key("b:", USER), False),
        (key("a:", USER), key("a:", USER, ":b"), False),
        (key("a:", UNKNOWN_HOLE), key("a:", USER, ":b"), True),
        (key("a:", UNKNOWN_HOLE), key("b:", USER), False),
        (key(UNKNOWN_HOLE, ":x"), key(USER, ":y"), False),
        (key(UNKNOWN_HOLE), key("a:", USER), True),
    ],
)
def test_patterns_may_be_the_same_key_unless_something_in_them_contradicts(
    one: Pattern, two: Pattern, may: bool
) -> None:
    assert one.may_equal(two) is may
    assert two.may_equal(one) is may


def test_the_tag_is_between_the_first_brace_and_the_next_closing_one() -> None:
    assert key("a:{", USER, "}:b{c}").tag == key(USER)
    assert key("a:{x", USER, "}").tag == key("x", USER)
    assert key("a:{b}").tag == key("b")


def test_there_is_no_tag_without_both_braces_or_anything_between() -> None:
    assert key("a:", USER).tag is None
    assert key("a:{", USER).tag is None
    assert key("a:{}", USER, "{b}").tag is None
