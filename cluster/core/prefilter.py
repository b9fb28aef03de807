"""The prefilter: which lines need not be parsed, because no rule's guard can hold in them (DESIGN 7 and 11.19 to 11.21).

Where every rule of a log type has a guard on texts, an event can only concern one of them if its bytes hold one of these
texts as a JSON string. A skipped line is counted and never moves W; whether it is JSON to its end is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_SAFE = re.compile(r"[ !#-.0-\[\]-~]+")
"""Printable ASCII without quote, slash and backslash: such a text has one spelling in JSON, unless `\\u` is used."""

MAX_LITERALS = 10
"""Looking for one costs about 0.4 us in a CloudTrail event, parsing and all that follows 6 us."""


class Prefilter:
    """Tells from a line's bytes that no event of one log type in it can concern a rule."""

    def __init__(self, literals: Iterable[bytes]) -> None:
        self._literals = tuple(literals)

    @staticmethod
    def of(texts: Iterable[str]) -> Prefilter | None:
        """A prefilter for the texts that the rules' guards accept; None where one could be spelt in several ways."""
        wanted = sorted(set(texts))
        if len(wanted) > MAX_LITERALS or not all(map(_SAFE.fullmatch, wanted)):
            return None
        # A text that others contain is looked for without its quotes, and stands for them too.
        shortest = [text for text in wanted if not any(other in text for other in wanted if other != text)]
        inner = {text for text in shortest if any(text in other for other in wanted if other != text)}
        return Prefilter((text if text in inner else f'"{text}"').encode() for text in shortest)

    def skips(self, line: bytes) -> bool:
        """Whether the line need not be parsed. Never for one that does not look like an object from end to end."""
        for literal in self._literals:
            if literal in line:
                return False
        # `\u` and `\/` may spell a text in another way; with a p_log_type the line may be for other rules
        if not line.startswith(b"{") or not line.endswith((b"}", b"}\r")) or b'"p_log_type"' in line:
            return False
        return b"\\" not in line or (b"\\u" not in line and b"\\/" not in line)  # one byte is found eight times as fast
