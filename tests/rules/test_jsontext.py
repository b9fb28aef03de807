from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.jsontext import parse

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text()
    | st.from_regex(r"[0-9]{18,24}", fullmatch=True),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES, st.sampled_from([None, 0, 2]), st.booleans())
def test_what_the_standard_json_writes_comes_back_unchanged(value: object, indent: int | None, ascii: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    assert parse(text) == json.loads(text)


@pytest.mark.parametrize("digits", [19, 20, 21, 30, 400])
@pytest.mark.parametrize("shape", ['{"id":%s}', '{"id": %s}', "[1,%s]", "[\n%s]", '{"id":-%s}', "%s"])
def test_integers_keep_every_digit(digits: int, shape: str) -> None:
    text = shape % ("9" * digits)
    assert parse(text.encode()) == json.loads(text)


def test_a_byte_order_mark_is_nothing() -> None:
    assert parse(b'\xef\xbb\xbf{"a":1}') == {"a": 1}


def test_what_only_the_standard_json_takes_is_taken() -> None:
    value = parse(b'{"a":NaN,"b":-Infinity,"c":"\\ud800"}')
    assert isinstance(value, dict)
    assert math.isnan(value["a"])
    assert value["b"] == -math.inf
    assert value["c"] == "\ud800"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not JSON: Expecting value at character 0"),
        (b'{"a":1', "not JSON: Expecting ',' delimiter at character 6"),
        (b'{"a":"\xff"}', "not UTF-8: byte 6 is 0xff"),
        (b'{"id":' + b"1" * 5000 + b"}", "an integer of more than 4300 digits"),
        (b"[" * 100_000, "nested too deeply"),
        ('{"a":1}'.encode("utf-16"), "not UTF-8"),
    ],
)
def test_what_both_parsers_refuse_has_a_short_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse(raw)
    assert len(str(caught.value)) < 100
