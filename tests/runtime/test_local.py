"""The local runtime's process is the driver's to stop, from its very start."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from cluster.runtime.job import JobSpec
from cluster.runtime.local import LocalRuntime


@pytest.mark.parametrize("threads", [0, 1], ids=["forked", "spawned"])
def test_ctrl_c_in_a_terminal_is_not_for_the_engine(threads: int, spec: JobSpec) -> None:
    """Found by a trial: it goes to all processes of the terminal, and ended the one that was starting."""
    over = threading.Event()
    others = [threading.Thread(target=over.wait) for _ in range(threads)]
    for other in others:
        other.start()
    runtime = LocalRuntime(spec)
    try:
        blocked = _blocked(runtime._process.pid)
    finally:
        runtime.abandon()
        over.set()
        for other in others:
            other.join()

    assert {signal.SIGINT, signal.SIGTERM} <= blocked


def _blocked(pid: int) -> set[int]:
    (line,) = (each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("SigBlk:"))
    mask = int(line.split()[1], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}
