"""A run on Ray that is fed through its standard input, line by line from memory, and looked at while it runs.

When the input stays open the run stays too, with all its state and nothing to do: that is when memory and processor time
are read.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from bench.harness import ROOT, engine_command

_SHARD, _COORDINATOR = "ray::_ShardActor", "ray::_CoordinatorActor"
_POLL_S = 0.01
_LINES_PER_WRITE = 10_000


class Fed:
    """One run; made by fed()."""

    def __init__(self, process: subprocess.Popen[bytes], matches: Path, stderr: Path) -> None:
        assert process.stdin is not None
        self.process = process
        self.matches = matches
        self.input = process.stdin.fileno()
        self._stderr = stderr

    def feed(self, lines: Iterable[bytes]) -> None:
        """Hand over lines; blocks while the pipe is full."""
        left = iter(lines)
        while block := list(islice(left, _LINES_PER_WRITE)):
            self.write(b"".join(block))

    def write(self, data: bytes) -> None:
        """Hand over bytes that end with a line. Raises RuntimeError when the run has ended."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.input, view) :]
        except BrokenPipeError:
            raise RuntimeError(f"the run ended: {self._said()}") from None

    def wait_for_matches(self, count: int, timeout_s: float) -> None:
        """Until so many matches were written. Raises RuntimeError when the run ends, or takes too long."""
        deadline_s = time.monotonic() + timeout_s
        while not self.matches.exists() or self.matches.read_bytes().count(b"\n") < count:
            if self.process.poll() is not None:
                raise RuntimeError(f"the run ended: {self._said()}")
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"no match within {timeout_s:.0f} s: {self._said()}")
            time.sleep(_POLL_S)

    def shards(self) -> list[psutil.Process]:
        return self._actors(_SHARD)

    def coordinator(self) -> psutil.Process:
        return self._actors(_COORDINATOR)[0]

    def finish(self) -> dict[str, Any]:
        """Close the input; the summary. Raises RuntimeError when the run fails."""
        output, _ = self.process.communicate()
        if self.process.returncode != 0:
            raise RuntimeError(f"exit {self.process.returncode}: {self._said()}")
        summary: dict[str, Any] = json.loads(output.splitlines()[-1])
        return summary

    def _actors(self, title: str) -> list[psutil.Process]:
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            command = process.cmdline()
            if command and command[0].startswith(title):
                found.append(process)
        return found

    def _said(self) -> str:
        return self._stderr.read_text(errors="replace")[-2000:]


@contextmanager
def fed(pack: Path, *options: str, log_type: str | None = None) -> Iterator[Fed]:
    """A run over standard input while the block runs, on Ray, with a store and checkpoints, matches to a file."""
    with tempfile.TemporaryDirectory(prefix="bench-fed-") as temporary:
        scratch = Path(temporary)
        matches, stderr = scratch / "matches.jsonl", scratch / "stderr"
        outputs = ["--matches", str(matches), "--alerts", str(scratch / "alerts.jsonl")]
        command = engine_command("-", pack, scratch, *outputs, *options, log_type=log_type)
        with stderr.open("wb") as said:
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, bufsize=0
            )
        try:
            yield Fed(process, matches, stderr)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.communicate(timeout=60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
