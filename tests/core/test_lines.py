"""Lines are cut and counted the same way, whatever they are like."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.core.lines import count, cut
from cluster.core.messages import Lines

LINES = st.lists(st.integers(0, 3000).map(lambda size: b"x" * size), max_size=40)


@given(LINES, st.booleans(), st.binary(max_size=5))
def test_lines_are_counted_whatever_their_length_and_however_the_last_one_ends(
    lines: list[bytes], ended: bool, rest: bytes
) -> None:
    data = b"\n".join(lines) + (b"\n" if ended and lines else b"")
    expected = len(lines) if ended or not lines or lines[-1] else len(lines) - 1
    if data:
        assert count(Lines(0, data + rest, len(data))) == expected


@given(st.lists(st.sampled_from([b"", b" ", b"\t\r", b"x", b" x\r"]), max_size=9), st.booleans())
def test_blank_lines_are_no_records_whatever_they_are_blank_with(lines: list[bytes], ended: bool) -> None:
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    raws, offsets = cut(Lines(7, data, len(data)))

    assert [raw.removesuffix(b"\n") for raw in raws] == [line for line in lines if line.strip()]
    assert all(data[offset - 7 :].startswith(raw) for raw, offset in zip(raws, offsets, strict=True))


@given(LINES)
def test_cut_lines_are_those_that_are_not_blank_at_their_offsets(lines: list[bytes]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    raws, offsets = cut(Lines(7, data + b"rest", len(data)))

    assert raws == [line + b"\n" for line in lines if line]
    assert all(data[offset - 7 :].startswith(raw) for raw, offset in zip(raws, offsets, strict=True))
