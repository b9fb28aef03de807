"""Slot and Watch: how one process sees whether another one lives, what it evaluates, and for how long.

Each process of the engine has a slot: cells in shared memory (cluster/core/poison.py has their list), in which a thread counts
the beats and the machine writes what it evaluates. One watch on each machine looks at the slots ten times a second:

    hung        no beat for 2 s, and the process is stopped, or all of it sleeps outside of any evaluation
    timed out   the same evaluation for longer than the limit

and ends such a process with SIGKILL. A regular expression that runs away holds the interpreter's lock and so silences the
beats, but it is an evaluation that works: only the limit ends it. The watch is a process of its own, so nothing that a rule
does can hold it up; this is in place of the kernel timer of DESIGN 11.11, with the same promise for less.

Time that nobody looked at does not count: when the watch itself was stopped (Ctrl-Z, a laptop that slept), the others were too.
"""

from __future__ import annotations

import mmap
import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.core.poison import (
    BEAT,
    CELLS,
    ENDED,
    FINAL,
    NOTHING,
    OFFSET,
    ORDINAL,
    PARTITION,
    PID,
    RUN,
    SUB,
    Cells,
    Hang,
)

LOOK_EVERY_S = 0.1
SILENCE_S = 2.0
"""Without a beat for so long a process is looked at more closely: ten beats, so that a busy machine is no reason."""

_BEAT_EVERY_S = 0.2
_LONGEST_LOOK_S = 0.5
"""More than this between two looks does not count as time."""

_SIZE_BYTES = 8 * CELLS

_STOPPED, _SLEEPING = "T", "S"
_GONE = ("", "Z", "X")


class Slot:
    """The cells of this process, where others of its user can see them as long as it lives.

    Memory without a file: no disk holds up the evaluation that writes a cell, and nothing is left of a process that is killed.
    """

    def __init__(self) -> None:
        descriptor = os.memfd_create("countersign-slot")
        os.ftruncate(descriptor, _SIZE_BYTES)
        self.path = f"/proc/{os.getpid()}/fd/{descriptor}"
        self.cells: Cells = _mapped(descriptor)
        self.cells[PID] = os.getpid()
        self.cells[ORDINAL] = NOTHING
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while True:
            self.cells[BEAT] += 1
            time.sleep(_BEAT_EVERY_S)


def _mapped(descriptor: int) -> Cells:
    return memoryview(mmap.mmap(descriptor, _SIZE_BYTES)).cast("q")


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that was killed."""

    name: str
    hang: Hang | None
    """The evaluation that timed out; None where the process was hung."""


class Watch:
    """Looks at the slots of one machine's processes."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._looked_s = time.monotonic()
        self._watched: list[_Watched] = []

    def add(self, name: str, path: str) -> None:
        """Watch the process whose slot is at `path`; one that is gone needs no watching."""
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return
        self._watched.append(_Watched(name, _mapped(descriptor)))
        os.close(descriptor)

    def look(self) -> list[Ended]:
        """End what must be ended. Processes that are gone are forgotten: others notice these at once."""
        now_s = time.monotonic()
        passed_s, self._looked_s = min(now_s - self._looked_s, _LONGEST_LOOK_S), now_s
        ended: list[Ended] = []
        for each in list(self._watched):
            timed_out = each.timed_out(passed_s, self._limit_s)
            if timed_out or each.hung(passed_s):
                self._watched.remove(each)
                if each.kill():
                    ended.append(Ended(each.name, each.hang(self._limit_s) if timed_out else None))
        return ended

    def in_hand(self) -> Hang | None:
        """What a process that is gone was evaluating, if it was: perhaps that ended it. It is told once."""
        gone = [each for each in self._watched if each.is_gone()]
        self._watched = [each for each in self._watched if each not in gone]
        return next((hang for hang in (each.in_hand(self._limit_s) for each in gone) if hang.ordinal != NOTHING), None)


class _Watched:
    """What the watch has seen of one process."""

    def __init__(self, name: str, cells: Cells) -> None:
        self.name = name
        self._cells = cells
        self._pid = cells[PID]
        self._born = _born(self._pid)
        self._beat = cells[BEAT]
        self._silent_s = 0.0
        self._worked: int | None = None
        """CPU time when the silence was first looked into."""
        self._evaluation = self._read()
        self._busy_s = 0.0

    def _read(self) -> tuple[int, ...]:
        return tuple(self._cells[at] for at in (ORDINAL, OFFSET, SUB, PARTITION, RUN, FINAL, ENDED))

    def timed_out(self, passed_s: float, limit_s: float) -> bool:
        evaluation = self._read()
        if evaluation[0] == NOTHING or evaluation != self._evaluation:
            self._evaluation, self._busy_s = evaluation, 0.0
            return False
        self._busy_s += passed_s
        return self._busy_s >= limit_s and _state(self._pid) != _STOPPED

    def is_gone(self) -> bool:
        return _state(self._pid) in _GONE or _born(self._pid) != self._born

    def in_hand(self, limit_s: float) -> Hang:
        return Hang.read(self._cells, limit_s)

    def hang(self, limit_s: float) -> Hang:
        ordinal, offset, sub, partition, _, final, ended = self._evaluation
        return Hang((partition, offset, sub), ordinal, bool(final), limit_s, ended)

    def hung(self, passed_s: float) -> bool:
        beat = self._cells[BEAT]
        if beat != self._beat:
            self._beat, self._silent_s, self._worked = beat, 0.0, None
            return False
        self._silent_s += passed_s
        if self._silent_s < SILENCE_S / 2:
            return False
        worked = _worked(self._pid)
        if self._worked is None:
            self._worked = worked
        if self._silent_s < SILENCE_S:
            return False
        if _state(self._pid) == _STOPPED:
            return True
        if self._evaluation[0] == NOTHING and worked == self._worked and _sleeps(self._pid):
            return True
        self._silent_s, self._worked = SILENCE_S / 2, worked
        return False

    def kill(self) -> bool:
        """Whether it was there to be killed, and not another process by its number."""
        if _born(self._pid) != self._born:
            return False
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        return True


# --- what the kernel says of a process; nothing where there is no /proc, and then nothing counts as hung -----------


def _fields(path: Path) -> list[str]:
    """The fields of a `stat` file from the state on, the third of proc(5). Empty when the process is gone."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _state(pid: int) -> str:
    fields = _fields(Path(f"/proc/{pid}/stat"))
    return fields[0] if fields else ""


def _worked(pid: int) -> int:
    """CPU time in ticks."""
    fields = _fields(Path(f"/proc/{pid}/stat"))
    return int(fields[11]) + int(fields[12]) if fields else 0


def _born(pid: int) -> str:
    fields = _fields(Path(f"/proc/{pid}/stat"))
    return fields[19] if fields else ""


def _sleeps(pid: int) -> bool:
    """Every thread waits for something. One that waits for its turn on a busy machine does not."""
    states = [fields[0] for path in Path(f"/proc/{pid}/task").glob("*/stat") if (fields := _fields(path))]
    return bool(states) and all(state == _SLEEPING for state in states)
