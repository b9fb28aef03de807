"""What is read from standard input is told of when it comes, however long the driver waits before it asks how far the run is."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.core.messages import SourceGrew
from cluster.run import CannotRun, _spooled, _tell_growth_for
from cluster.spool import Spool

SPEC: Any = SimpleNamespace(growing=(3,))


class Told:
    """A runtime that notes what it is sent, and then has more come in."""

    def __init__(self, spool_input: int, lines: list[bytes]) -> None:
        self.messages: list[Any] = []
        self._input = spool_input
        self._lines = lines
        self.more()

    def send(self, message: Any) -> None:
        self.messages.append(message)
        self.more()

    def more(self) -> None:
        if self._lines:
            os.write(self._input, self._lines.pop(0))
        elif self._input >= 0:
            os.close(self._input)
            self._input = -1


def test_each_line_is_told_of_while_the_driver_waits(tmp_path: Path) -> None:
    read, write = os.pipe()
    with open(read, "rb", buffering=0) as stream:
        spool = Spool(stream, tmp_path / "spool.jsonl")
        runtime: Any = Told(write, [b"one\n", b"two\n"])
        told = (0, False)
        while not told[1]:
            told = _tell_growth_for(0.2, SPEC, spool, runtime, told)

    assert runtime.messages[:2] == [SourceGrew(3, 4, False), SourceGrew(3, 8, False)]
    assert told == (8, True)
    assert _tell_growth_for(0.001, SPEC, spool, runtime, told) == told, "nothing comes any more"


def test_input_that_fails_is_told_of(tmp_path: Path) -> None:
    with (tmp_path / "closed").open("wb") as stream:  # which cannot be read
        spool = Spool(stream, tmp_path / "spool.jsonl")
        nobody: Any = None
        with pytest.raises(CannotRun, match=r"standard input: .*: what was read before is kept in"):
            _tell_growth_for(5.0, SPEC, spool, nobody, (0, False))


OTHERS = [b'{"x": 1}\n', b"\n"] * 99
"""Ninety-nine records, and blank lines."""
OWN = b'{"p_log_type": "Own.Log"}\n'


@pytest.mark.parametrize(
    ("lines", "log_type"), [([*OTHERS, OWN], "Own.Log"), ([*OTHERS, b'{"x": 2}\n', OWN], None), ([OWN, *OTHERS], "Own.Log")]
)
@pytest.mark.parametrize("at_once", [1, 99, 198, 199, 1000])
def test_the_log_type_is_the_same_however_fast_lines_come(
    at_once: int, lines: list[bytes], log_type: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "spool.jsonl"
    path.write_bytes(b"".join(lines))
    sizes = [sum(map(len, lines[:stop])) for stop in [*range(at_once, len(lines), at_once), len(lines)]]

    class Coming:
        def __init__(self) -> None:
            self.path = path

        def wait_for_more(self, than_bytes: int, timeout_s: float) -> tuple[int, bool]:
            size_bytes = next(size for size in sizes if size > than_bytes)
            return size_bytes, size_bytes == sizes[-1]

    spool: Any = Coming()
    assert _spooled(spool, 0, None, {}).log_type == log_type
