"""Writes what this version makes of KEYS, WINDOWS and MANIFEST beside this file, under the number of its format. Once a format:

    python -m tests.golden.make

What is there is never written again, and later code must restore all of it (tests/core/test_snapshot.py).
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.core import snapshot
from cluster.core.coordinator import Progress, Totals, progress_record
from cluster.core.messages import Blob, Counts, RuleCounts
from cluster.core.watermark import Watermark
from rules.state import Row
from rules.windows import WindowRow
from tests.capturing import encoded

HERE = Path(__file__).parent

KEYS = [
    Row("counter", 42, None, None, 1_900_000_000),
    Row("set", None, ("b", "a", "ä"), None, 1_900_000_001),
    Row("dictionary", None, None, '{"a":[1,2.5,null,"\\ud800"]}', 1_900_000_002),
    Row("all three, at their limits", -(2**63), ("x",), "{}", 2**63 - 1),
    Row("waits for its first value", None, None, None, 5),
    Row("tombstone", None, None, None, None),
]
WINDOWS = [
    WindowRow("Rule.A", "dedup", 1_700_000_000.5, 3600.0, "0a1b", 3, False, b'{"title":"t"}', (b"0" * 16, b"1" * 16)),
    WindowRow("Rule.B", "", None, 0.0, "", 0, False, b"", ()),
]
PROGRESS = Progress(
    epoch=17,
    partition=1,
    start=4096,
    times_s={1: 1_700_000_001.25},
    watermark=Watermark(1_700_000_000.0, 1_700_000_001.25),
    blobs=(
        Blob("00000002-0000000009-0000-base", frozenset({*range(100), 200})),
        Blob("00000002-0000000017-0000-delta", frozenset(range(256))),
    ),
    owners=(0,) * 256,
    limiter={"Rule.A": (1_700_000_000.0, 999)},
    totals=Totals(
        Counts(10, 4, 6, 5, 1, {"Rule.A": RuleCounts(5, 1, 2, 0.25)}), 3, 1, 0, 2, epochs=17, checkpoints=2
    ),
)
PARTITIONS: list[dict[str, Any]] = [
    {
        "path": "/logs/a.jsonl.gz", "format": "jsonl", "compression": "gzip", "size_bytes": 1000, "mtime_ns": 1,
        "head_digest": "00ff", "rows": None, "log_type": "AWS.CloudTrail", "first_time_s": 1_699_999_999.0,
    },
    {
        "path": "/logs/b.parquet", "format": "parquet", "compression": None, "size_bytes": 2000, "mtime_ns": 2,
        "head_digest": "ff00", "rows": 5000, "log_type": None, "first_time_s": None,
    },
]  # fmt: skip
MANIFEST: dict[str, Any] = {
    "format": snapshot.FORMAT,
    "job": "march",
    "fence": 2,
    "key_groups": 256,
    "shards": 1,
    "pack_digest": "d1",
    "job_start_s": 1_699_000_000.0,
    "lateness_s": 86_400.0,
    "partitions": PARTITIONS,
    "sinks": {"matches": {"uri": "/out/matches.jsonl", "place": [[1, 4000], 1]}},
    **progress_record(PROGRESS, PROGRESS.blobs),
}


def main() -> None:
    made = {
        f"blob-{snapshot.BLOB_FORMAT}": encoded(KEYS, WINDOWS),
        f"manifest-{snapshot.FORMAT}": snapshot.encode_manifest(MANIFEST),
    }
    for name, data in made.items():
        with suppress(FileExistsError), (HERE / name).open("xb") as file:
            file.write(data)


if __name__ == "__main__":
    main()
