"""`# countersign: ignore[ID] reason`: a finding that its author knows of, in a line of Python or YAML or above it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rules.lints.sources import Place

_COMMENT = re.compile(r"#\s*countersign:\s*ignore\[([^\]]*)\]\s*(.*)")


@dataclass(slots=True)
class Silence:
    """One such comment."""

    place: Place
    ids: tuple[str, ...]
    reason: str
    line: int
    """The line that it speaks of: its own, or the next one that is no comment."""
    used: set[str] = field(default_factory=set)
    """Which of its ids had something to silence."""


def read_silences(files: Mapping[str, bytes]) -> list[Silence]:
    """All such comments of a pack."""
    return [
        silence
        for path, data in sorted(files.items())
        if path.endswith((".py", ".yml", ".yaml")) and b"countersign:" in data
        for silence in _of_file(path, data.decode("utf-8", "replace").splitlines())
    ]


def _of_file(path: str, lines: list[str]) -> Iterator[Silence]:
    for number, text in enumerate(lines, 1):
        found = _COMMENT.search(text)
        if found is None:
            continue
        line = number
        while line <= len(lines) and lines[line - 1].lstrip().startswith("#"):
            line += 1
        ids = tuple(part.strip() for part in found[1].split(",") if part.strip())
        yield Silence(Place(path, number, found.start() + 1), ids, found[2].strip(), line)
