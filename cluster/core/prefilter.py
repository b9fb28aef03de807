"""The prefilter: which records need not be parsed, because no rule's guard can hold in them (DESIGN 7 and 11.19 to 11.21).

Where every rule of a log type has a guard on texts, an event can only concern one of them if its bytes hold one of these
texts as a JSON string. A skipped record is counted and never moves W; whether it is JSON to its end is not looked at.

Hyperscan looks for all texts at once, in a megabyte of lines at a time, so that a skipped line is never cut out. Where
Hyperscan cannot be installed, everything is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from cluster.core.messages import Lines

try:
    import hyperscan
except ImportError:  # no wheel for this platform
    hyperscan = None  # type: ignore[assignment]

_SAFE = re.compile(r"[ !#-.0-\[\]-~]+")
"""Printable ASCII without quote, slash and backslash: such a text has one spelling in JSON, unless `\\u` is used."""

_ALSO_PARSED = (rb"\\u", rb"\\/", rb'"p_log')
"""`\\u` and `\\/` may spell a text in another way; with a p_log_type the record may be for other rules. Of that its beginning is
looked for: beyond eight bytes Hyperscan has to look twice, 0.03 us a line."""

_ODD = (rb"\n[^{]", rb"[^}\r]\n", rb"[^}]\r\n")
"""A line that does not look like an object from end to end, a blank one included."""


def _database(patterns: list[bytes], ids: list[int]) -> Any:
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(expressions=patterns, ids=ids)
    return database


class Prefilter:
    """Tells from bytes which records an event of one log type that concerns a rule may stand in. Not thread-safe."""

    def __init__(self, literals: Iterable[bytes]) -> None:
        literals = [re.escape(literal) for literal in literals]
        patterns = [*literals, *_ALSO_PARSED, *_ODD]
        self._database = _database(patterns, [int(pattern in _ODD) for pattern in patterns])

    @staticmethod
    def of(texts: Iterable[str]) -> Prefilter | None:
        """A prefilter for the texts that the rules' guards accept; None where one could be spelt in several ways."""
        wanted = sorted(set(texts))
        if hyperscan is None or not all(map(_SAFE.fullmatch, wanted)):
            return None
        return Prefilter(f'"{text}"'.encode() for text in wanted)

    def lines(self, lines: Lines) -> tuple[list[int], list[int]] | None:
        """Where in `data` the lines to parse start, and where each one's newline is, or would be; None where a line is odd and
        all must be parsed."""
        data, end = lines.data, lines.end
        hits = self._hits(data, end)
        if hits is None:
            return None
        starts: list[int] = []
        stops: list[int] = []
        begin, find = data.rfind, data.find
        stop = 0
        for hit in hits:
            if hit <= stop:
                continue  # the line has been found already
            if hit > end:
                break
            starts.append(begin(b"\n", stop, hit) + 1 or stop)
            stop = find(b"\n", hit, end)
            if stop < 0:
                stop = end
            stops.append(stop)
        return starts, stops

    def records(self, raws: list[bytes]) -> list[int] | None:
        """Which of some records to parse; None where one is odd and all must be."""
        data = b"\n".join(raws)
        hits = self._hits(data, len(data))
        if hits is None:
            return None
        kept: list[int] = []
        at = iter(hits)
        hit = next(at, None)
        for number, end in enumerate(accumulate(len(raw) + 1 for raw in raws)):
            if hit is None:
                break
            if hit < end:
                kept.append(number)
                while hit is not None and hit < end:
                    hit = next(at, None)
        return kept

    def _hits(self, data: bytes, end: int) -> list[int] | None:
        """Where in `data` the texts end, ascending. None where a line is odd, of those up to `end`."""
        hits: list[int] = []
        odd: list[int] = []
        add, add_odd = hits.append, odd.append

        def hit(kind: int, start: int, to: int, flags: int, context: Any) -> None:
            add_odd(to) if kind else add(to)

        self._database.scan(data, hit)
        if end and not (data.startswith(b"{") and data[max(end - 3, 0) : end].rstrip(b"\r\n").endswith(b"}")):
            return None
        return None if odd and odd[0] <= end else hits
