"""Blobs of given rows, as a snapshot of a shard with these rows would give them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from cluster.core import snapshot
from rules.capture import Capture
from rules.segment import Image
from rules.state import Row, State
from rules.windows import WindowKey, WindowRow


def take_dirty(state: State) -> list[str]:
    """The keys that the next snapshot would hold, which is made thereby."""
    return [key for keys, _ in state.capture_dirty().slices(1_000) for key in keys]


def captured(keys: Sequence[Row], windows: Sequence[WindowRow]) -> tuple[snapshot.Keys, snapshot.Opened]:
    """These rows, captured."""
    images: dict[str, Image] = {row.key: (row.counter, row.members, row.dictionary, row.expiry_s) for row in keys}
    opened: dict[WindowKey, WindowRow] = {(row.rule_id, row.dedup): row for row in windows}
    return Capture(list(images), images.__getitem__, {}), Capture(list(opened), opened.__getitem__, {})


def encoded(keys: Sequence[Row], windows: Sequence[WindowRow]) -> bytes:
    """The one blob of few rows."""
    (blob,) = snapshot.encode(*captured(keys, windows))
    return blob


def of_later_format(blob: bytes, format: int) -> bytes:
    """A blob as a later version would begin it."""
    magic = b"CSB%d" % format
    return magic + struct.pack("<I", zlib.crc32(magic + blob[8:])) + blob[8:]
