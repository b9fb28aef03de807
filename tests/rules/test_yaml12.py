"""YAML has its 1.2 meaning, and everything in it has a line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yaml import YAMLError

from rules import yaml12
from rules.yaml12 import BadYaml, load
from tests.commands import PACKS


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("Yes", "Yes"), ("on", "on"), ("y", "y"),
        ("true", True), ("False", False), ("TRUE", True), ("tRue", "tRue"),
        ("2024-01-01", "2024-01-01"), ("2024-01-01 10:00:00", "2024-01-01 10:00:00"),
        ("010", 10), ("0o10", 8), ("0x1F", 31), ("0b11", "0b11"), ("1_000", "1_000"), ("+7", 7), ("-0", 0),
        ("1:30", "1:30"), ("190:20:30", "190:20:30"),
        ("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("1e3", 1000.0), ("-1.5E-2", -0.015), ("1.2.3", "1.2.3"), (".inf", math.inf),
        ("~", None), ("null", None), ("", None), ("nul", "nul"), ("=", "="),
        ("'true'", "true"), ('"1"', "1"), ("[1, a]", [1, "a"]), ("{a: 1}", {"a": 1}),
    ],
)  # fmt: skip
def test_plain_scalars_follow_the_core_schema_of_1_2(text: str, value: Any) -> None:
    document, _ = load(f"key: {text}\n".encode())

    assert document == {"key": value}
    assert type(document["key"]) is type(value)


def test_nan_and_a_byte_order_mark_are_read() -> None:
    assert math.isnan(load(b"\xef\xbb\xbf.nan")[0])


def test_anchors_and_merge_keys_work_and_own_keys_win() -> None:
    document, _ = load(b"a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [*a, {z: 4}]}\n")

    assert document["b"] == {"x": 1, "y": 3}
    assert document["c"] == {"x": 1, "y": 2, "z": 4}


TEXT = b"""\
# a comment
Name: x
Tests:
  - Name: first

  - Log:
      field: 1
    Name: second
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 1), (("Name",), 2), (("Tests",), 3), (("Tests", 0), 4), (("Tests", 1, "Log"), 6),
        (("Tests", 1, "Log", "field"), 7), (("Tests", 1, "Name"), 8),
        (("Tests", 1, "Absent", "deeper"), 6), (("Tests", 7), 3), (("Absent",), 1),
    ],
)  # fmt: skip
def test_every_key_and_element_has_a_line_and_what_is_absent_that_of_where_it_would_be(path: Any, line: int) -> None:
    assert load(TEXT)[1].of(*path) == line


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (b"a: 1\nb: [1\n", 3, "no YAML"),
        (b"a: 1\nb: 2\na: 3\n", 3, "the key 'a' is twice"),
        (b"a:\n  - {x: 1, x: 1}\n", 2, "the key 'x' is twice"),
        (b"a: 1\n---\nb: 2\n", 2, "no YAML"),
        (b"a: !!python/object:os.system x\n", 1, "could not determine a constructor"),
        (b"a: *nowhere\n", 1, "undefined alias"),
        (b"a: \xff\n", None, "not UTF-8 at byte 3"),
        (b"? [a]\n: 1\n", 1, "unhashable"),
    ],
)
def test_what_is_no_yaml_is_refused_with_its_line(text: bytes, line: int | None, message: str) -> None:
    with pytest.raises(BadYaml, match=message) as refused:
        load(text)
    assert refused.value.line == line


SCALARS = st.sampled_from(
    ["no", "true", "~", "", "010", "0x1F", "0o17", "-7", "1.5", ".inf", "-.INF", ".nan", "1e3", "2024-01-01", "<<", "=",
     "'no'", '"1"', "plain text", "1:30", "!!str 1", "&a x", "*a", "9" * 30, "true x", "é", "| x", "- x", "? x", "x: y"]
)  # fmt: skip


def written(depth: int = 2) -> st.SearchStrategy[str]:
    """A value in flow style, right or wrong."""
    if not depth:
        return SCALARS
    inner = written(depth - 1)
    mapping = st.lists(st.tuples(SCALARS, inner), max_size=3).map(
        lambda it: f"{{{', '.join(f'{k}: {v}' for k, v in it)}}}"
    )
    return SCALARS | mapping | st.lists(inner, max_size=3).map(lambda it: f"[{', '.join(it)}]")


@given(st.lists(st.tuples(SCALARS, written()), max_size=4))
def test_the_short_cut_through_events_gives_what_the_nodes_give_or_leaves_it_to_them(
    pairs: list[tuple[str, str]],
) -> None:
    text = "\n".join(f"{key}: {value}" for key, value in pairs)
    try:
        document = yaml12._document(text)
    except BadYaml:
        with pytest.raises((yaml12._Unusual, YAMLError, ValueError)):
            yaml12._plain_document(text)
        return
    assert repr(load(text.encode())[0]) == repr(document)  # repr: NaN is not itself


@pytest.mark.parametrize("path", sorted(PACKS.rglob("*.yml")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_rule_needs_no_more_than_the_short_cut(path: Path) -> None:
    text = path.read_text()

    assert yaml12._plain_document(text) == yaml12._document(text)


def test_equal_keys_of_two_types_are_two_keys_of_which_the_last_wins_as_in_python() -> None:
    assert load(b"1: a\n1.0: b\n'1': c\n")[0] == {1: "b", "1": "c"}
