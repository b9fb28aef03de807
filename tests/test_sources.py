from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cluster.core.lines import cut_all, digest_of
from cluster.core.messages import Lines, Partition, Records, Slice, TooLong
from cluster.files import CHUNK_BYTES, LineFile
from cluster.sources import (
    HEAD_BYTES,
    OPEN_FILES,
    InputMissing,
    InputUnreadable,
    Reader,
    SourceChanged,
    discover,
)
from rules.jsontext import parse
from rules.logtypes import load_definitions, shipped_definitions

TYPES = load_definitions(shipped_definitions())


def cloudtrail(time: str = "2023-07-10T11:42:18Z", **fields: object) -> dict[str, object]:
    return {"eventSource": "s3", "eventName": "Get", "awsRegion": "x", "eventTime": time, **fields}


def lines(*records: object) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def compress(data: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data)
    return pa.compress(data, codec="zstd", asbytes=True) if suffix == ".zst" else data


def write(path: Path, data: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compress(data, path.suffix))
    return str(path)


def partition_of(path: str | Path) -> Partition:
    (partition,) = discover([str(path)], TYPES, None)
    return partition


def read_all(partition: Partition, max_event_bytes: int = 1_000_000) -> Records:
    return cut_all(Reader([partition], max_event_bytes).read(Slice(partition.index, 0, None)))


def read_in_order(reader: Reader, size: int, partition: int = 0) -> list[Records]:
    """As the coordinator does: each slice starts where the last one says."""
    slices = [cut_all(reader.read(Slice(partition, 0, size)))]
    while not slices[-1].at_end:
        start = slices[-1].next_start
        slices.append(cut_all(reader.read(Slice(partition, start, start + size))))
    return slices


def joined(slices: Iterable[Records]) -> tuple[list[tuple[int, bytes]], list[TooLong]]:
    slices = list(map(cut_all, slices))
    pairs = [pair for each in slices for pair in zip(each.offsets, each.raws, strict=True)]
    return pairs, [too_long for each in slices for too_long in each.too_long]


# --- reading again --------------------------------------------------------------------------------------------------


def test_a_record_can_be_read_again_as_long_as_it_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":2}\n{"a":3}\n')
    partition = partition_of(path)
    reader = Reader([partition])
    (lines,) = reader.read(Slice(0, 0, 24)).lines

    assert isinstance(lines, Lines)
    assert lines.again
    assert reader.read_again(0, 8, 7, digest_of(b'{"a":2}')) == b'{"a":2}'
    with path.open("ab") as file:
        file.write(b'{"a":4}\n')
    for who in reader, Reader([partition]):  # one that has the file open, one that opens it now
        assert who.read_again(0, 8, 7, digest_of(b'{"a":2}')) == b'{"a":2}'
    with path.open("r+b") as file:
        file.seek(8)
        file.write(b'{"a":7}')
    with pytest.raises(SourceChanged, match=r"a\.jsonl: the record at byte 8 is not what it was"):
        reader.read_again(0, 8, 7, digest_of(b'{"a":2}'))
    path.write_bytes(b"")
    with pytest.raises(SourceChanged):
        reader.read_again(0, 8, 7, digest_of(b'{"a":2}'))


def test_records_of_compressed_files_are_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a":1}\n'))

    assert not any(getattr(part, "again", False) for part in Reader([partition_of(path)]).read(Slice(0, 0, None)).lines)


# --- JSON Lines -----------------------------------------------------------------------------------------------------

LINES = st.one_of(
    st.binary(max_size=12).filter(lambda line: b"\n" not in line),
    st.sampled_from([b"", b" ", b"\t \r", b"\r", b'{"a":1}', b'{"a":1}\r', b"\xff\xfe", b"\xef\xbb\xbf", b"{" * 60]),
)
FILES = st.builds(
    lambda bom, body, end: (b"\xef\xbb\xbf" if bom else b"") + b"\n".join(body) + end,
    st.booleans(),
    st.lists(LINES, max_size=12),
    st.sampled_from([b"", b"\n", b"\r\n", b"\n\n"]),
)
LIMIT = 40


def expected_records(data: bytes) -> tuple[list[tuple[int, bytes]], list[TooLong]]:
    """The definition, word for word."""
    records, too_long, offset = [], [], 0
    for line in data.split(b"\n"):
        raw = line[3:] if offset == 0 and line.startswith(b"\xef\xbb\xbf") else line
        if len(line) > LIMIT:
            too_long.append(TooLong(offset, len(line), line[:LIMIT]))
        elif raw.strip():
            records.append((offset, raw))
        offset += len(line) + 1
    return records, too_long


class InMemory:
    """Content that comes in pieces of any size, as decompressed data does."""

    def __init__(self, data: bytes, piece_bytes: int) -> None:
        self.data = data
        self.piece_bytes = piece_bytes

    def read_at(self, offset: int, size: int) -> bytes:
        return self.data[offset : offset + min(size, self.piece_bytes)]


@given(FILES, st.lists(st.integers(0, 200)), st.integers(1, 100))
def test_a_line_is_read_once_whatever_the_cuts_and_the_pieces(data: bytes, cuts: list[int], piece_bytes: int) -> None:
    file = LineFile(InMemory(data, piece_bytes), LIMIT)
    bounds = [0, *sorted(cuts)]
    slices = [file.read(start, stop) for start, stop in zip(bounds, [*bounds[1:], None], strict=True)]
    assert joined(slices) == expected_records(data)
    assert slices[-1].at_end


@given(FILES, st.integers(1, 60), st.integers(1, 100))
def test_each_slice_says_where_the_next_one_starts(data: bytes, size: int, piece_bytes: int) -> None:
    file = LineFile(InMemory(data, piece_bytes), LIMIT)
    slices = [file.read(0, size)]
    while not slices[-1].at_end:
        start = slices[-1].next_start
        slices.append(file.read(start, start + size))
        assert slices[-1].next_start > start
    assert joined(slices) == expected_records(data)
    assert slices[-1].next_start == len(data)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(data=FILES, size=st.integers(1, 60), suffix=st.sampled_from(["", ".gz", ".zst"]))
def test_compressed_or_not_the_records_are_the_same(tmp_path: Path, data: bytes, size: int, suffix: str) -> None:
    assume(not data.startswith((b"PAR1", b"\x1f\x8b", b"\x28\xb5\x2f\xfd")))  # the format is told by content
    path = write(tmp_path / f"a.jsonl{suffix}", data)
    partition = replace(partition_of(path), format="jsonl")  # random bytes may begin as a file of Records does
    reader = Reader([partition], LIMIT)
    assert joined(read_in_order(reader, size)) == expected_records(data)
    assert joined([cut_all(reader.read(Slice(0, 0, None)))]) == expected_records(data), "and again from the start"


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_slices_larger_than_a_block_lose_nothing_at_its_edges(tmp_path: Path, suffix: str) -> None:
    records = [{"number": number, "padding": "x" * (number % 1700)} for number in range(5000)]
    partition = partition_of(write(tmp_path / f"a.jsonl{suffix}", lines(*records)))
    for size in (CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES):
        pairs, _ = joined(read_in_order(Reader([partition]), size))
        assert [orjson.loads(raw) for _, raw in pairs] == records


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_line_over_the_limit_is_measured_but_not_held(tmp_path: Path, suffix: str) -> None:
    long = b'{"a":"' + b"x" * (30 << 20) + b'"}'
    partition = partition_of(write(tmp_path / f"a.jsonl{suffix}", b'{"a":1}\n' + long + b'\n{"a":2}\n'))
    reader = Reader([partition])
    tracemalloc.start()
    records = cut_all(reader.read(Slice(0, 0, 20)))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert records.raws == [b'{"a":1}']
    assert records.too_long == [TooLong(8, len(long), long[:256])]
    assert records.next_start == 8 + len(long) + 1
    assert cut_all(reader.read(Slice(0, records.next_start, None))).raws == [b'{"a":2}']
    assert peak_bytes < 8 << 20


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_line_over_the_limit_is_set_apart_among_any_number_of_short_ones(tmp_path: Path, suffix: str) -> None:
    long = b'{"a":"' + b"x" * 100 + b'"}'
    short = b'{"a":1}\n' * 1000
    partition = partition_of(write(tmp_path / f"a.jsonl{suffix}", short + long + b"\n" + short))
    records = cut_all(Reader([partition], max_event_bytes=len(long) - 1).read(Slice(0, 0, None)))

    assert len(records.raws) == 2000
    assert [(each.offset, each.length_bytes) for each in records.too_long] == [(len(short), len(long))]
    assert len(cut_all(Reader([partition], max_event_bytes=len(long)).read(Slice(0, 0, None))).raws) == 2001


def test_gzip_members_one_after_the_other_are_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(b"".join(gzip.compress(part) for part in (b'{"a":', b"", b'1}\n{"a":2}\n', b'{"a":3}')))
    assert read_all(partition_of(path)).raws == [b'{"a":1}', b'{"a":2}', b'{"a":3}']


# --- files that are one document ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    "document",
    [
        b'{"Records":[%s]}',
        b'{ "records" : [ %s ] }\n',
        b"[%s]",
        b"\xef\xbb\xbf\n[\n%s\n]\n",
        b'{"Records":[%s],"next":{"a":[]}}',
        b'{"Records":[],"x":1}',
        b"[]",
    ],
)
def test_records_and_arrays_are_cut_into_their_elements(tmp_path: Path, document: bytes, suffix: str) -> None:
    elements = [b'{"a":1}', b'{"b":["]",{"c":"}"}]}', b'{"Records":[1]}', b"7", b'{"t":"\\"]}{"}']
    data = document % b" ,\n".join(elements) if b"%s" in document else document
    partition = partition_of(write(tmp_path / f"a.json{suffix}", data))
    assert partition.format == "records"
    whole = read_all(partition)
    assert whole.raws == (elements if b"%s" in document else [])
    assert whole.offsets == list(range(len(whole.raws)))
    for size in (1, 2, 3, 100):
        assert joined(read_in_order(Reader([partition]), size)) == joined([whole])


def test_documents_joined_end_to_end_are_read_as_one(tmp_path: Path) -> None:
    data = b'{"Records":[{"a":1},{"a":2}]}{"Records":[]}\n{"Records":[{"a":3}]}'
    assert read_all(partition_of(write(tmp_path / "all.json", data))).raws == [b'{"a":1}', b'{"a":2}', b'{"a":3}']


def test_what_only_the_standard_json_takes_costs_no_other_record(tmp_path: Path) -> None:
    data = b'{"Records":[{"a":1},{"a":NaN},{"a":"\xff\n"},{"a":' + b"1" * 5000 + b'},{"a":4}]}'
    raws = read_all(partition_of(write(tmp_path / "a.json", data))).raws
    assert len(raws) == 5
    assert raws[1:3] == [b'{"a":NaN}', b'{"a":"\xff\n"}']
    assert raws[4] == b'{"a":4}'


@pytest.mark.parametrize("rest", [b'{"a":3', b'{"a":3},{"a" 4},{"a":5}]}', b'{"a":3}]} trailing', b"[" * 100_000])
def test_a_damaged_document_keeps_its_good_records_and_loses_no_byte(tmp_path: Path, rest: bytes) -> None:
    partition = partition_of(write(tmp_path / "a.json", b'{"Records":[{"a":1},{"a":2},' + rest))
    raws = read_all(partition).raws
    assert raws[:2] == [b'{"a":1}', b'{"a":2}']
    with pytest.raises(ValueError, match="JSON"):
        parse(raws[-1])
    assert rest.endswith(raws[-1])


def test_records_over_the_limit_are_set_apart_with_their_numbers(tmp_path: Path) -> None:
    long = b'{"a":"' + b"x" * 100 + b'"}'
    partition = partition_of(write(tmp_path / "a.json", b'[{"a":0},%s,{"a":2}]' % long))
    records = read_all(partition, max_event_bytes=50)
    assert records == Records([b'{"a":0}', b'{"a":2}'], [0, 2], [TooLong(1, len(long), long[:50])], 3, True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=30)
@given(
    values=st.lists(
        st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
    ),
    indent=st.sampled_from([None, 1]),
)
def test_any_array_comes_back_value_by_value(tmp_path: Path, values: list[object], indent: int | None) -> None:
    path = write(tmp_path / "a.json", json.dumps(values, indent=indent).encode())
    assert [parse(raw) for raw in read_all(partition_of(path)).raws] == values


# --- Parquet --------------------------------------------------------------------------------------------------------


def test_rows_become_json_without_nulls_and_with_times_in_utc(tmp_path: Path) -> None:
    schema = pa.schema(
        {
            "eventName": pa.string(),
            "when": pa.timestamp("ns"),
            "nested": pa.struct({"at": pa.list_(pa.timestamp("ns", "UTC")), "none": pa.string()}),
            "tags": pa.map_(pa.string(), pa.int64()),
            "bytes": pa.binary(),
            "amount": pa.decimal128(10, 2),
        }
    )
    moment = datetime(2023, 7, 10, 11, 42, 18, 5, tzinfo=UTC)
    rows: list[dict[str, Any]] = [
        {
            "eventName": "A",
            "when": 1688989338_123456789,
            "nested": {"at": [moment, None], "none": None},
            "tags": [("x", 1)],
            "bytes": b"text",
            "amount": Decimal("3.50"),
        },
        {"eventName": None},
    ]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    assert [orjson.loads(raw) for raw in read_all(partition_of(path)).raws] == [
        {
            "eventName": "A",
            "when": "2023-07-10T11:42:18.123456Z",
            "nested": {"at": ["2023-07-10T11:42:18.000005Z", None]},
            "tags": {"x": 1},
            "bytes": "text",
            "amount": 3.5,
        },
        {},
    ]


def test_rows_are_numbered_and_the_same_whatever_the_cuts(tmp_path: Path) -> None:
    path = tmp_path / "rows"  # known by its content
    events = [cloudtrail(eventID=f"e{number}") for number in range(2500)]
    pq.write_table(pa.Table.from_pylist(events), path, row_group_size=700)
    partition = partition_of(path)
    assert (partition.format, partition.rows, partition.log_type) == ("parquet", 2500, "AWS.CloudTrail")
    whole = read_all(partition)
    assert [orjson.loads(raw) for raw in whole.raws] == events
    assert whole.offsets == list(range(2500))
    reader = Reader([partition])
    for size in (333, 1000, 2500):
        assert joined(read_in_order(reader, size)) == joined([whole])
    assert cut_all(reader.read(Slice(0, 700, 702))).raws == whole.raws[700:702]
    assert cut_all(reader.read(Slice(0, 10, 12))).raws == whole.raws[10:12], "and back"


# --- files that changed or are damaged ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_data_that_is_cut_off_is_reported_with_file_and_place(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    body = lines(*({"a": os.urandom(50).hex()} for _ in range(40_000)))
    path.write_bytes(compress(body, suffix)[:-1000])
    reader = Reader([partition_of(path)])
    first = cut_all(reader.read(Slice(0, 0, 1000)))
    assert first.raws
    for _ in range(2):  # trying again must not find an early end instead
        with pytest.raises(
            InputUnreadable, match=rf"a.jsonl{suffix}: the \w+ data is damaged or cut off after byte \d+"
        ):
            cut_all(reader.read(Slice(0, first.next_start, None)))


def test_gzip_that_is_damaged_in_the_middle_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    data = bytearray(gzip.compress(lines(*({"a": os.urandom(50).hex()} for _ in range(40_000)))))
    data[len(data) // 2 : len(data) // 2 + 50] = b"\xff" * 50
    path.write_bytes(data)
    with pytest.raises(InputUnreadable, match=r"a.jsonl.gz: the gzip data is damaged"):
        read_all(partition_of(path))


def test_times_of_day_and_durations_in_nanoseconds_are_read(tmp_path: Path) -> None:
    columns = {"t": pa.array([1_000_000_005], pa.time64("ns")), "d": pa.array([1_500_000_007], pa.duration("ns"))}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)

    assert json.loads(read_all(partition_of(path)).raws[0]) == {"t": "00:00:01", "d": "0:00:01.500000"}


def test_a_date_that_python_has_not_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"t": pa.array([2**62], pa.timestamp("us"))}), path)
    with pytest.raises((InputUnreadable, InputMissing), match=r"a.parquet: the Parquet data is damaged"):
        read_all(partition_of(path))


def test_damaged_parquet_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"a": [os.urandom(8).hex() for _ in range(5000)]})
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[2000:2100] = b"\xff" * 100
    path.write_bytes(data)
    with pytest.raises((InputUnreadable, InputMissing), match=r"a.parquet: the Parquet data is damaged"):
        read_all(partition_of(path))


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b'{"a":2}\n')


def touch(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def rewrite(path: Path) -> None:
    mtime_ns = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes().replace(b"1", b"7"))
    os.utime(path, ns=(mtime_ns, mtime_ns))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (grow, "it grew from 8 to 16 bytes since the job started"),
        (touch, "it was modified after the job started"),
        (rewrite, "its first bytes are not those that it had"),
        (Path.unlink, "No such file or directory"),
    ],
)
def test_a_file_that_changed_since_the_start_is_refused(
    tmp_path: Path, change: Callable[[Path], None], what: str
) -> None:
    path = tmp_path / "a.jsonl"
    partition = partition_of(write(path, b'{"a":1}\n'))
    change(path)
    with pytest.raises(SourceChanged, match=rf"a.jsonl: {what}.*: restore it, or start a new job"):
        read_all(partition)


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    reader = Reader([partition_of(write(path, b'{"a":1}\n{"a":2}\n'))])
    cut_all(reader.read(Slice(0, 0, 4)))
    os.truncate(path, 8)
    with pytest.raises(SourceChanged, match="it became shorter than 16 bytes"):
        cut_all(reader.read(Slice(0, 8, None)))


def test_a_spooled_partition_may_grow(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.write_bytes(b'{"a":1}\n')
    reader = Reader([Partition(0, str(path), "jsonl", None, 8, 0, "", None, None, None)])
    first = cut_all(reader.read(Slice(0, 0, 8)))
    with path.open("ab") as spool:
        spool.write(b'{"a":2}\n')
    assert cut_all(reader.read(Slice(0, first.next_start, 16))).raws == [b'{"a":2}']


def test_many_partitions_can_be_read_in_turns(tmp_path: Path) -> None:
    for number in range(2 * OPEN_FILES):
        write(tmp_path / f"{number:02}.jsonl", lines({"file": number, "line": 0}, {"file": number, "line": 1}))
    partitions = discover([str(tmp_path)], TYPES, None)
    reader = Reader(partitions)
    starts = [0] * len(partitions)
    for line in range(2):
        for index in range(len(partitions)):
            records = cut_all(reader.read(Slice(index, starts[index], starts[index] + 1)))
            assert records.raws == [orjson.dumps({"file": index, "line": line})]
            starts[index] = records.next_start


# --- discovery ------------------------------------------------------------------------------------------------------


def names(partitions: list[Partition]) -> list[str]:
    return [os.path.basename(partition.path) for partition in partitions]


def test_files_are_ordered_by_their_first_time_then_by_path(tmp_path: Path) -> None:
    write(tmp_path / "z" / "first.json", b'{"Records":[%s]}' % orjson.dumps(cloudtrail("2023-07-09T00:00:00Z")))
    write(tmp_path / "b.jsonl.gz", lines(cloudtrail("2023-07-10T00:00:00Z")))
    write(tmp_path / "a.jsonl", lines(cloudtrail("2023-07-10T00:00:00Z")))
    write(tmp_path / "later.jsonl.zst", lines(cloudtrail("not a time"), cloudtrail("2023-07-11T00:00:00Z")))
    write(tmp_path / "0-timeless.jsonl", lines({"a": 1}))
    partitions = discover([str(tmp_path)], TYPES, None)
    assert names(partitions) == ["first.json", "a.jsonl", "b.jsonl.gz", "later.jsonl.zst", "0-timeless.jsonl"]
    assert [partition.index for partition in partitions] == [0, 1, 2, 3, 4]
    assert partitions[3].first_time_s == datetime(2023, 7, 11, tzinfo=UTC).timestamp()
    assert partitions[4].first_time_s is None
    assert discover([str(tmp_path)], TYPES, None) == partitions


def test_a_partition_describes_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", lines(cloudtrail()))
    partition = partition_of(path)
    status = os.stat(path)
    assert partition == Partition(
        index=0,
        path=path,
        format="jsonl",
        compression=None,
        size_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        head_digest=partition.head_digest,
        rows=None,
        log_type="AWS.CloudTrail",
        first_time_s=1688989338.0,
    )
    assert len(partition.head_digest) == 32


def test_of_a_directory_logs_are_taken_by_name_or_content_and_nothing_hidden(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "c.log", b"text\n")
    write(tmp_path / "no-suffix", b' {"a":1}\n')
    write(tmp_path / "AWSLogs.JSON.GZ", b"{}")
    write(tmp_path / "compressed.gz", b'{"a":1}\n')
    write(tmp_path / "README.md", b"# logs\n")
    write(tmp_path / "image.png", b"\x89PNG\r\n\x1a\n\x00")
    write(tmp_path / ".hidden.json", b"{}")
    write(tmp_path / ".git" / "x.json", b"{}")
    os.mkfifo(tmp_path / "pipe.json")
    found = sorted(names(discover([str(tmp_path)], TYPES, None)))
    assert found == ["AWSLogs.JSON.GZ", "c.log", "compressed.gz", "no-suffix"]


def test_a_file_that_is_named_is_taken_whatever_its_name_and_only_once(tmp_path: Path) -> None:
    path = write(tmp_path / "README.md", b"# logs\n")
    link = tmp_path / "link"
    link.symlink_to(path)
    pattern = str(tmp_path / "R*")
    assert names(discover([path, path, pattern, str(link)], TYPES, None)) == ["README.md"]


def test_globs_reach_down_and_directories_in_them_are_walked(tmp_path: Path) -> None:
    for name in ("2023/07/a.json", "2023/08/b.json", "2024/c.json"):
        write(tmp_path / name, b"[]")
    assert names(discover([str(tmp_path / "2023" / "*")], TYPES, None)) == ["a.json", "b.json"]
    assert names(discover([str(tmp_path / "**" / "*.json")], TYPES, None)) == ["a.json", "b.json", "c.json"]


def test_a_file_whose_name_has_the_signs_of_a_glob_is_that_file(tmp_path: Path) -> None:
    assert names(discover([write(tmp_path / "a[1].json", b"[]")], TYPES, None)) == ["a[1].json"]


def test_every_input_that_yields_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling.json").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path / "good.json", b"[]")
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(os.urandom(1000))[:-100])
    inputs = ["gone.json", "empty", "*.csv", "dangling.json", "pipe", "cut.json.gz", "good.json"]
    with pytest.raises(InputMissing) as caught:
        discover([str(tmp_path / name) for name in inputs], TYPES, None)
    reasons = [
        "gone.json: no such file or directory: check the path",
        "empty: the directory holds no logs: ",
        "*.csv: nothing matches: check the pattern",
        "dangling.json: No such file or directory: ",
        "pipe: not a regular file",
        "cut.json.gz: the gzip data is damaged or cut off after byte 0",
    ]
    assert len(caught.value.problems) == len(reasons)
    for problem, reason in zip(caught.value.problems, reasons, strict=True):
        assert problem.startswith(f"{tmp_path}/{reason}")
    assert str(caught.value).count("\n") == len(reasons) - 1


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff.json", "wb"):
        pass
    with pytest.raises(InputMissing, match="the name is not UTF-8"):
        discover([str(tmp_path)], TYPES, None)


@pytest.fixture
def without_root() -> Iterator[None]:
    """Root may read everything, so it steps back for a moment."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)
    yield
    os.seteuid(user)


def test_a_file_without_permission_is_missing(request: pytest.FixtureRequest) -> None:
    with TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        os.chmod(write(Path(directory) / "a.json", b"[]"), 0)
        request.getfixturevalue("without_root")
        with pytest.raises(InputMissing, match=r"a.json: Permission denied"):
            discover([directory], TYPES, None)
        if os.getuid() == 0:
            os.seteuid(0)  # or the directory could not be removed


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.zst"])
def test_type_and_time_come_from_the_first_records_that_tell(tmp_path: Path, name: str) -> None:
    records = [{"a": 1}, cloudtrail(""), cloudtrail("?"), cloudtrail(), cloudtrail("2020-01-01T00:00:00Z")]
    data = lines(*records) if ".jsonl" in name else b'{"Records":%s}' % orjson.dumps(records)
    partition = partition_of(write(tmp_path / name, data + b" "))
    assert (partition.log_type, partition.first_time_s) == ("AWS.CloudTrail", 1688989338.0)


def test_only_the_first_hundred_records_tell(tmp_path: Path) -> None:
    known = partition_of(write(tmp_path / "a.jsonl", lines(*[{"a": 1}] * 99, cloudtrail())))
    unknown = partition_of(write(tmp_path / "b.jsonl", lines(*[{"a": 1}] * 100, cloudtrail())))
    assert (known.log_type, unknown.log_type) == ("AWS.CloudTrail", None)


def test_an_event_may_say_its_own_type_and_time(tmp_path: Path) -> None:
    event = {"p_log_type": "My.Type", "p_event_time": "2023-07-10 11:42:18.000000000"}
    partition = partition_of(write(tmp_path / "a.jsonl", lines(event, cloudtrail())))
    assert (partition.log_type, partition.first_time_s) == ("My.Type", 1688989338.0)


def test_the_callers_log_type_comes_before_what_is_recognised(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", lines({"published": "2023-07-10T11:42:18Z"} | cloudtrail("2020-01-01")))
    (partition,) = discover([path], TYPES, "Okta.SystemLog")
    assert (partition.log_type, partition.first_time_s) == ("Okta.SystemLog", 1688989338.0)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_records_longer_than_the_head_are_still_told(tmp_path: Path, name: str) -> None:
    event = orjson.dumps({"padding": "x" * 2 * HEAD_BYTES} | cloudtrail())
    partition = partition_of(write(tmp_path / name, event if name == "a.jsonl" else b'{"Records":[%s]}' % event))
    assert (partition.log_type, partition.first_time_s) == ("AWS.CloudTrail", 1688989338.0)


def test_an_empty_file_is_a_partition_without_records(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst"):
        assert read_all(partition_of(write(tmp_path / name, b""))) == Records([], [], [], 0, True)


def test_real_files_are_found_with_their_types(shared_data: Path) -> None:
    partitions = discover([str(shared_data / "invictus-aws"), str(shared_data / "invictus-gws")], TYPES, None)
    found = {name: partition.log_type for name, partition in zip(names(partitions), partitions, strict=True)}
    assert found["cloudtrail.jsonl.gz"] == "AWS.CloudTrail"
    assert found["drive.jsonl.gz"] == found["login.jsonl.gz"] == "GSuite.ActivityEvent"
    times = [partition.first_time_s for partition in partitions if partition.first_time_s is not None]
    assert times == sorted(times)
