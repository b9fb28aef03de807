"""Standard input as a source: spooled to a file in the job's directory and read from there (DESIGN 11.25).

A spooled partition has no head digest: it grows, so its identity is its path.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import BinaryIO

from cluster.core.messages import Partition

_CHUNK_BYTES = 1 << 20


class Spool:
    """Copies a stream to a file in the background, and knows how far its complete lines reach.

    Reads the descriptor itself: a thread that waits inside a buffered reader holds its lock, and an interpreter that ends
    then aborts.
    """

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self.path = path
        self._stream = stream
        self._file = path.open("xb")
        self._changed = threading.Condition()
        self._size_bytes = 0
        self._at_end = False
        self.failure: OSError | None = None
        threading.Thread(target=self._copy, daemon=True).start()

    def _copy(self) -> None:
        written = 0
        try:
            while chunk := os.read(self._stream.fileno(), _CHUNK_BYTES):
                self._file.write(chunk)
                self._file.flush()
                last_line = chunk.rfind(b"\n")
                with self._changed:
                    if last_line >= 0:
                        self._size_bytes = written + last_line + 1
                    self._changed.notify_all()
                written += len(chunk)
        except OSError as error:
            self.failure = error
        with self._changed:
            self._size_bytes = written
            self._at_end = True
            self._changed.notify_all()
        self._file.close()

    def progress(self) -> tuple[int, bool]:
        """(bytes in complete lines, nothing follows)"""
        with self._changed:
            return self._size_bytes, self._at_end

    def wait_for_more(self, than_bytes: int, timeout_s: float) -> tuple[int, bool]:
        """progress(), once it is past `than_bytes` or at the end, or the time is up."""
        with self._changed:
            self._changed.wait_for(lambda: self._at_end or self._size_bytes > than_bytes, timeout_s)
            return self._size_bytes, self._at_end


def spooled_partition(index: int, path: str, size_bytes: int, log_type: str | None) -> Partition:
    """The partition that stands for a spool of JSON Lines."""
    return Partition(index, path, "jsonl", None, size_bytes, 0, "", None, log_type, None)


def is_spooled(partition: Partition) -> bool:
    return partition.head_digest == ""
