"""What is stored comes back as it was, whichever version stored it; what is damaged or of a later version is refused."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from cluster.core import snapshot
from cluster.core.coordinator import partitions_of, progress_of
from cluster.core.errors import CorruptSnapshot, LaterFormat
from cluster.core.messages import Partition
from cluster.core.poison import NO_POISON
from rules.state import Row
from tests.capturing import captured, encoded, of_later_format
from tests.golden.make import HERE, KEYS, MANIFEST, PARTITIONS, PROGRESS, WINDOWS

ALL = frozenset(range(MANIFEST["key_groups"]))


@pytest.mark.parametrize("format", range(1, snapshot.BLOB_FORMAT + 1))
def test_rows_that_any_format_stored_are_restored(format: int) -> None:
    keys, windows = snapshot.decode((HERE / f"blob-{format}").read_bytes())

    assert keys == KEYS
    assert windows == WINDOWS


@pytest.mark.parametrize("format", range(1, snapshot.FORMAT + 1))
def test_a_manifest_of_any_format_says_where_its_job_stood(format: int) -> None:
    manifest = snapshot.decode_manifest((HERE / f"manifest-{format}").read_bytes())

    stood = PROGRESS
    if format == 1:  # no group had ever moved
        stood = replace(PROGRESS, owners=(), blobs=tuple(blob._replace(groups=ALL) for blob in PROGRESS.blobs))
    assert progress_of(manifest) == stood
    assert partitions_of(manifest) == [Partition(index=index, **record) for index, record in enumerate(PARTITIONS)]
    same = ("job", "fence", "key_groups", "shards", "pack_digest", "job_start_s", "lateness_s", "sinks")
    assert {name: manifest[name] for name in same} == {name: MANIFEST[name] for name in same}


def test_a_manifest_from_before_there_was_poison_knows_none() -> None:
    manifest = snapshot.decode_manifest((HERE / "manifest-1").read_bytes())
    del manifest["timeouts"], manifest["suspects"], manifest["totals"]

    assert progress_of(manifest).poison == NO_POISON


def test_rows_come_back_as_they_were_encoded() -> None:
    for keys, windows in ((KEYS, WINDOWS), (KEYS, []), ([], WINDOWS), ([], [])):
        assert snapshot.decode(encoded(keys, windows)) == (keys, windows)
    many = [Row(f"key-{n}", n, None, None, n) for n in range(100_000)]
    assert snapshot.decode(encoded(many, [])) == (many, [])


def test_what_is_much_is_divided_into_blobs_of_bounded_size() -> None:
    rows = [Row(f"key-{n}", None, (random.Random(n).randbytes(20_000).hex(),), None, n) for n in range(300)]
    blobs = list(snapshot.encode(*captured(rows, WINDOWS), blob_bytes=1 << 20))

    assert len(blobs) > 3
    assert max(map(len, blobs)) < 2 << 20
    assert [row for blob in blobs for row in snapshot.decode(blob)[0]] == rows
    assert [row for blob in blobs for row in snapshot.decode(blob)[1]] == WINDOWS


def test_no_damage_to_a_blob_or_manifest_goes_unnoticed() -> None:
    rng = random.Random(1)
    blob, manifest = encoded(KEYS, WINDOWS), snapshot.encode_manifest(MANIFEST)
    for decode, data in ((snapshot.decode, blob), (snapshot.decode_manifest, manifest)):
        for _ in range(300):
            at = rng.randrange(len(data))
            turned = bytes([data[at] ^ 1 << rng.randrange(8)])
            for damaged in (data[:at] + turned + data[at + 1 :], data[:at]):
                if damaged[:8].lower() == data[:8].lower() and damaged[9:] == data[9:]:
                    continue  # the case of the checksum's digits, or the blank after them
                with pytest.raises(CorruptSnapshot):
                    decode(damaged)


@pytest.mark.parametrize("at", range(8))
@pytest.mark.parametrize("bit", range(8))
def test_damage_to_the_head_of_a_blob_is_not_taken_for_a_later_format(at: int, bit: int) -> None:
    """Found by the simulator: such a blob ended the run, where the checkpoint before it would have done."""
    blob = bytearray(encoded(KEYS, []))
    blob[at] ^= 1 << bit

    with pytest.raises(CorruptSnapshot):
        snapshot.decode(bytes(blob))


def test_a_later_format_is_refused_and_the_remedy_is_named() -> None:
    remedy = "run the version that wrote it, or start over with --fresh"
    later = snapshot.encode_manifest(MANIFEST | {"format": snapshot.FORMAT + 1})

    with pytest.raises(LaterFormat, match=f"the manifest has format 3, this version reads up to 2: {remedy}"):
        snapshot.decode_manifest(later)
    with pytest.raises(LaterFormat, match=f"a snapshot has format 2, this version reads up to 1: {remedy}"):
        snapshot.decode(of_later_format(encoded(KEYS, []), 2))
