"""Cutting JSON Lines into records: at C speed, and only where somebody wants the records."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from itertools import accumulate

import xxhash

from cluster.core.messages import CutLines, Lines, Records

digest_of: Callable[[bytes], int] = xxhash.xxh3_64_intdigest
"""Of a record that is cited: xxHash3, 64 bits."""


def cut(lines: Lines) -> tuple[list[bytes], list[int]]:
    """(records, their offsets), each record with its newline; blank lines are no records."""
    # Lines of a file are found with memchr(), 0.15 us for one of 1 KB; bytes.split() looks at each byte, 0.45 us.
    raws = BytesIO(lines.data[: lines.end]).readlines()
    offsets = list(accumulate(map(len, raws), initial=lines.offset))
    offsets.pop()
    if not any(map(bytes.isspace, raws)):
        return raws, offsets
    kept = [(raw, offset) for raw, offset in zip(raws, offsets, strict=True) if not raw.isspace()]
    return [raw for raw, _ in kept], [offset for _, offset in kept]


def offsets_of(lines: list[bytes], offset: int) -> list[int]:
    """Where lines that follow one another begin, the first one at `offset`. 0.1 us a line."""
    starts = accumulate(map(len, lines), initial=offset)
    return list(map(operator.add, starts, range(len(lines))))


def count(lines: Lines) -> int:
    """How many there are, blank ones included."""
    data, end = lines.data, lines.end
    # Taking the newlines out finds them with memchr(), 0.07 ns a byte; bytes.count() looks at each byte, 0.3 ns.
    newlines = len(data) - len(data.replace(b"\n", b"")) - data.count(b"\n", end)
    return newlines + (not data.endswith(b"\n", 0, end))


def cut_all(records: Records) -> Records:
    """The same records, cut, without newlines."""
    raws, offsets, too_long = list(records.raws), list(records.offsets), list(records.too_long)
    for part in records.lines:
        if isinstance(part, CutLines):
            more_raws, more_offsets = part.raws, part.offsets
            too_long += part.too_long
        else:
            lines, more_offsets = cut(part)
            more_raws = [line.removesuffix(b"\n") for line in lines]
        raws += more_raws
        offsets += more_offsets
    return replace(records, raws=raws, offsets=offsets, too_long=too_long, lines=())
