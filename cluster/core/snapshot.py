"""Snapshots and manifests <-> bytes. Versioned, checksummed, never pickle: what is read back from a store is data.

A blob is an 8-byte head (magic `CSB1`, CRC-32 of what follows) and a compressed Arrow IPC stream of rows, some at a time: kind 0
is a key, kind 1 an alert window. Rows without `expiry_s` (keys) or `opened_s` (windows) are tombstones. A manifest is JSON with a
CRC of its own, so that a person can read it. Arrow is imported with the first blob: `status` reads manifests, and starts at once.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.core.errors import CorruptSnapshot, LaterFormat
from cluster.core.keygroups import key_grouping
from cluster.core.messages import Blob
from rules.capture import Capture, Joint
from rules.segment import Image
from rules.state import Fields, Row
from rules.windows import WindowKey, WindowRow

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 2
"""Format version of manifests. Later code restores every earlier format.

1  the first
2  `groups`: of each blob the key groups of which its rows count; `owners`: who owned which group
"""

BLOB_FORMAT = 1
"""Format version of blobs, the last byte of their magic. From the next one on the checksum has to cover the magic as well:
that tells a later format from a byte that was damaged."""

_MAGIC = b"CSB%d" % BLOB_FORMAT
_HEAD = struct.Struct("<4sI")

BLOB_BYTES = 4 << 20
"""Large enough that a store's cost for each does not count, small enough to be held and sent at once (DESIGN 8: 1-8 MB)."""

_BATCH_ROWS = 1024
"""Rows that are read at once, and up to twice as many that become Arrow columns at once: either takes some 0.5 ms and lets no
other thread run."""
_BATCH_TEXT = 1 << 20
"""The same for characters in sets and dictionaries."""


@cache
def _schema() -> pa.Schema:
    """The columns of a blob."""
    import pyarrow as pa

    return pa.schema(
        [
            ("kind", pa.uint8()),
            ("key", pa.string()),
            ("counter", pa.int64()),
            ("members", pa.list_(pa.string())),
            ("dictionary", pa.string()),
            ("expiry_s", pa.int64()),
            ("window", pa.binary()),
        ]
    )


Keys = Capture[str, Image] | Joint[str, Image]
Opened = Capture[WindowKey, WindowRow]


def encode(
    keys: Keys, windows: Opened, blob_bytes: int = BLOB_BYTES, rest: Callable[[], None] = lambda: None
) -> Iterator[bytes]:
    """What a shard captured, as blobs; at least one. One that has come to `blob_bytes` takes no further rows.

    Made for a thread beside the stream: `rest` is called after each millisecond or so, and may let others run.
    """
    import pyarrow as pa
    import pyarrow.ipc

    batches = chain(_key_batches(keys, rest), _window_batches(windows))
    more = True
    while more:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, _schema(), options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            more = False
            for batch in batches:
                rest()
                writer.write_batch(batch)
                if sink.tell() >= blob_bytes:
                    more = True
                    break
        body: bytes = sink.getvalue().to_pybytes()
        yield _HEAD.pack(_MAGIC, zlib.crc32(body)) + body


def _key_batches(keys: Keys, rest: Callable[[], None]) -> Iterator[pa.RecordBatch]:
    for names, images in keys.slices(_BATCH_ROWS):
        rest()
        yield from _divided(names, images)


def _divided(names: list[str], images: list[Image]) -> Iterator[pa.RecordBatch]:
    """Batches of as many rows as are not too much text together: a value may have some 400 KB."""
    counters, members, dictionaries, expiries_s = zip(*images, strict=True) if images else ((), (), (), ())
    text = sum(map(len, chain.from_iterable(filter(None, members)))) + sum(map(len, filter(None, dictionaries)))
    if text > _BATCH_TEXT and len(names) > 1:
        middle = len(names) // 2
        yield from _divided(names[:middle], images[:middle])
        yield from _divided(names[middle:], images[middle:])
        return
    count = len(names)
    yield _batch([0] * count, names, counters, members, dictionaries, expiries_s, [None] * count)


def _window_batches(windows: Opened) -> Iterator[pa.RecordBatch]:
    for keys, rows in windows.slices(_BATCH_ROWS // 4):
        none = [None] * len(rows)
        rule_ids = [rule_id for rule_id, _ in keys]
        yield _batch([1] * len(rows), rule_ids, none, none, none, none, [msgspec.msgpack.encode(row) for row in rows])


def _batch(*columns: Sequence[object]) -> pa.RecordBatch:
    import pyarrow as pa

    arrays = [pa.array(column, field.type) for column, field in zip(columns, _schema(), strict=True)]
    return pa.record_batch(arrays, schema=_schema())


def check(blob: bytes) -> memoryview:
    """The compressed rows of a blob. Raises CorruptSnapshot for bytes that encode() did not write, LaterFormat."""
    if len(blob) < _HEAD.size:
        raise CorruptSnapshot("it is cut off")
    magic, crc = _HEAD.unpack_from(blob)
    body = memoryview(blob)[_HEAD.size :]
    if magic == _MAGIC:
        if zlib.crc32(body) != crc:
            raise CorruptSnapshot("it fails its checksum")
        return body
    if magic[:3] == _MAGIC[:3] and zlib.crc32(body, zlib.crc32(magic)) == crc:
        raise LaterFormat(f"a snapshot has format {magic[3:].decode('latin-1')}, {_later(BLOB_FORMAT)}")
    raise CorruptSnapshot(f"it starts with {magic!r}, not with {_MAGIC!r}")


def decode(blob: bytes) -> tuple[list[Row], list[WindowRow]]:
    """The rows of a blob. Raises CorruptSnapshot, LaterFormat."""
    keys, windows = contents(blob)
    return [Row(*fields) for fields in keys], windows


def contents(blob: bytes) -> tuple[Iterator[Fields], list[WindowRow]]:
    """As decode(), but of keys their fields alone: a recovery waits for this, and making a Row takes longer than all the rest."""
    import pyarrow.compute as pc
    import pyarrow.ipc

    table = pyarrow.ipc.open_stream(check(blob)).read_all()
    windows = table.filter(pc.equal(table["kind"], 1))
    keys = table.filter(pc.equal(table["kind"], 0)) if windows.num_rows else table
    members = keys["members"].to_pylist()
    if keys["members"].null_count < keys.num_rows:
        members = [None if each is None else tuple(each) for each in members]
    fields = [keys[name].to_pylist() for name in ("key", "counter", "dictionary", "expiry_s")]
    return (
        zip(fields[0], fields[1], members, *fields[2:], strict=True),
        [msgspec.msgpack.decode(window, type=WindowRow) for window in windows["window"].to_pylist()],
    )


def encode_manifest(manifest: dict[str, Any]) -> bytes:
    """A manifest as JSON behind its checksum, one line."""
    body = msgspec.json.encode(manifest, order="sorted")
    return b"%08x " % zlib.crc32(body) + body


def decode_manifest(data: bytes) -> dict[str, Any]:
    """The inverse. Raises CorruptSnapshot when the bytes are not what encode_manifest wrote, LaterFormat."""
    try:
        crc, body = int(data[:8], 16), data[9:]
    except ValueError:
        crc, body = -1, b""
    if zlib.crc32(body) != crc:
        raise CorruptSnapshot("the manifest fails its checksum")
    manifest: dict[str, Any] = msgspec.json.decode(body)
    if manifest.get("format") not in range(1, FORMAT + 1):
        raise LaterFormat(f"the manifest has format {manifest.get('format')}, {_later(FORMAT)}")
    return manifest


def blobs_of(manifest: dict[str, Any]) -> tuple[Blob, ...]:
    """The blobs that a manifest names, in the order in which they are restored."""
    groups = manifest.get("groups", {})
    whole = [0, manifest["key_groups"]]
    return tuple(Blob(name, _groups(groups.get(name, whole))) for name in manifest["blobs"])


def blobs_record(blobs: Sequence[Blob]) -> dict[str, Any]:
    """The inverse of blobs_of."""
    return {"blobs": [blob.name for blob in blobs], "groups": {blob.name: _bounds(blob.groups) for blob in blobs}}


def rows_of(manifest: dict[str, Any], get_blob: Callable[[str], bytes]) -> list[Row]:
    """The keys that a checkpoint holds, in their order; not those that can be read no more."""
    rows: dict[str, Row] = {}
    key_group = key_grouping(manifest["key_groups"])
    for blob in blobs_of(manifest):
        for row in decode(get_blob(blob.name))[0]:
            if key_group(row.key) in blob.groups:
                rows[row.key] = row
    horizon_s = float("-inf") if manifest["w_s"] is None else manifest["w_s"] - manifest["lateness_s"]
    return [row for _, row in sorted(rows.items()) if row.expiry_s is not None and row.expiry_s > horizon_s]


def _later(known: int) -> str:
    return f"this version reads up to {known}: run the version that wrote it, or start over with --fresh"


def _bounds(groups: Collection[int]) -> list[int]:
    """Groups as ranges, [start, stop, start, stop ...]: nearly always one."""
    starts = {group for group in groups if group - 1 not in groups}
    stops = {group + 1 for group in groups if group + 1 not in groups}
    return sorted(starts | stops)


def _groups(bounds: list[int]) -> frozenset[int]:
    return frozenset(
        group for start, stop in zip(bounds[::2], bounds[1::2], strict=True) for group in range(start, stop)
    )
