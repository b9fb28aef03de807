"""Where events come from: finding the files of a run, putting them in order, and reading slices of them.

What a file holds and how it is cut into records is in files.py.
"""

from __future__ import annotations

import glob
import math
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import xxhash

from cluster.core.lines import digest_of
from cluster.core.messages import Compression, Format, Partition, Records, Slice
from cluster.files import (
    RECORDS_START,
    CompressedContent,
    Content,
    File,
    InputUnreadable,
    LineFile,
    ParquetRows,
    PlainContent,
    RecordsFile,
    SourceChanged,
    parquet_batches,
    parquet_rows,
    walk_records,
)
from rules.jsontext import parse
from rules.logtypes import BadTime, LogType, recognise, undefined

__all__ = ["InputMissing", "InputUnreadable", "Reader", "SourceChanged", "discover"]

MAX_EVENT_BYTES = 1_000_000
HEAD_BYTES = 64 * 1024
"""What a file's digest covers, and what is looked at to tell its format, its log type and its first time."""
HEAD_RECORDS = 100
OPEN_FILES = 8
"""How many files a reader keeps open. A shard works on few at a time, and a file of Records is held in memory."""

_MAGIC: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_PARQUET_MAGIC = b"PAR1"
_LOG_NAME = re.compile(r"\.(json|jsonl|ndjson|log|parquet)(\.gz|\.zst)?$", re.IGNORECASE)
_LOOKS_LIKE_A_LOG = re.compile(rb"PAR1|(?:\xef\xbb\xbf)?\s*[{\[]")


class InputMissing(Exception):
    """Inputs that are not there or cannot be read: one line each."""

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


# --- finding files --------------------------------------------------------------------------------------------------


def discover(inputs: Sequence[str], types: Mapping[str, LogType], log_type: str | None) -> list[Partition]:
    """The files that `inputs` (files, directories, globs) name, as the partitions of a run, in order.

    The order is by the time of each file's first usable event, then path; files in which no time was found come last. A
    file named twice is taken once. Of a directory, what has the name of a log or begins like JSON is taken, all the way
    down, but nothing hidden. `log_type` says it for all files; without it each file's first records tell.
    Raises InputMissing with every input that yields nothing and every file that cannot be read.
    """
    problems: list[str] = []
    taken: dict[str, Partition] = {}  # by the path that links lead to
    for text in inputs:
        problems_before = len(problems)
        yields_files = False
        for path, is_named in _files_of(text, problems):
            real_path = os.path.realpath(path)
            if real_path not in taken:
                try:
                    partition = _examine(os.path.abspath(path), types, log_type, is_named)
                except OSError as error:
                    problems.append(_unreadable(path, error))
                    continue
                except InputUnreadable as error:
                    problems.append(str(error))
                    continue
                if partition is None:
                    continue
                taken[real_path] = partition
            yields_files = True
        if not yields_files and len(problems) == problems_before:
            problems.append(_nothing_found(text))
    if problems:
        raise InputMissing(*problems)
    ordered = sorted(taken.values(), key=_order)
    return [replace(partition, index=index) for index, partition in enumerate(ordered)]


def _order(partition: Partition) -> tuple[float, str]:
    return (math.inf if partition.first_time_s is None else partition.first_time_s, partition.path)


def _files_of(text: str, problems: list[str]) -> Iterator[tuple[str, bool]]:
    """The files behind one input, and whether it names them (a glob does, a directory does not)."""
    paths = [text] if os.path.lexists(text) else sorted(glob.glob(text, recursive=True))
    for path in paths:
        if os.path.isdir(path):
            yield from ((each, False) for each in _files_below(path, problems))
        else:
            yield path, True


def _files_below(directory: str, problems: list[str]) -> Iterator[str]:
    def report(error: OSError) -> None:
        problems.append(_unreadable(error.filename, error))

    for parent, directories, names in os.walk(directory, onerror=report):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        yield from (os.path.join(parent, name) for name in sorted(names) if not name.startswith("."))


def _unreadable(path: str, error: OSError) -> str:
    return f"{path}: {error.strerror or error}: check the path and its permissions"


def _nothing_found(text: str) -> str:
    if os.path.isdir(text):
        return f"{text}: the directory holds no logs: name the files themselves if they are logs"
    if glob.has_magic(text):
        return f"{text}: nothing matches: check the pattern"
    return f"{text}: no such file or directory: check the path"


def _examine(path: str, types: Mapping[str, LogType], log_type: str | None, is_named: bool) -> Partition | None:
    """What the start of a file tells. None for a file in a directory that does not seem to be a log."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputUnreadable(f"{path!a}: the name is not UTF-8, which manifests are: rename it") from None
    # Before opening: opening a pipe would wait for its writer.
    if not stat.S_ISREG(os.stat(path).st_mode):
        if not is_named:
            return None
        raise OSError(0, "not a regular file (pipe it into `-` instead)", path)
    with open(path, "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        head = file.read(HEAD_BYTES)
    compression = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
    content = _content(path, compression, status.st_size)
    start = head if compression is None else content.read_at(0, HEAD_BYTES)
    if not (is_named or _LOG_NAME.search(path) or _LOOKS_LIKE_A_LOG.match(start)):
        return None
    if start.startswith(_PARQUET_MAGIC) and compression:
        raise InputUnreadable(f"{path}: Parquet inside {compression}: decompress it")
    format = _format_of(start)
    partition = Partition(
        index=0,
        path=path,
        format=format,
        compression=compression,
        size_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        head_digest=_digest(head),
        rows=parquet_rows(path) if format == "parquet" else None,
        log_type=log_type,
        first_time_s=None,
    )
    records = _first_records(partition, start)
    first = next(records, None)
    if first is None and len(start) == HEAD_BYTES:  # its first record may be longer than that
        return _with_type_and_time(partition, types, _first_records(partition, content.read_at(0, MAX_EVENT_BYTES)))
    return _with_type_and_time(partition, types, chain([] if first is None else [first], records))


def _format_of(start: bytes) -> Format:
    if start.startswith(_PARQUET_MAGIC):
        return "parquet"
    return "records" if RECORDS_START.match(start) else "jsonl"


def _digest(head: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(head)


def _first_records(partition: Partition, start: bytes) -> Iterator[dict[str, Any]]:
    """Up to HEAD_RECORDS records that can be parsed; a record that the head cuts off cannot."""
    raws: Iterator[bytes]
    if partition.format == "parquet":
        raws = chain.from_iterable(parquet_batches(partition.path))
    elif partition.format == "records":
        raws = walk_records(start)
    else:
        raws = (line for line in start.split(b"\n") if line.strip())
    for raw in islice(raws, HEAD_RECORDS):
        try:
            record = parse(raw)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def _with_type_and_time(
    partition: Partition, types: Mapping[str, LogType], records: Iterator[dict[str, Any]]
) -> Partition:
    """The partition with the log type that its first records tell, and the time of the first event that has one."""
    looked_at: list[dict[str, Any]] = []
    log_type = partition.log_type
    while log_type is None and (record := next(records, None)) is not None:
        looked_at.append(record)
        log_type = _own_log_type(record) or recognise(record, types)
    for record in chain(looked_at, records):
        name = _own_log_type(record) or log_type or ""
        try:
            time_s = types.get(name, undefined(name)).time_of(record)
        except BadTime:
            continue
        if time_s is not None:
            return replace(partition, log_type=log_type, first_time_s=time_s)
    return replace(partition, log_type=log_type)


def _own_log_type(record: dict[str, Any]) -> str | None:
    name = record.get("p_log_type")
    return name if isinstance(name, str) and name else None


# --- reading them ---------------------------------------------------------------------------------------------------


class Reader:
    """Reads slices of partitions. Keeps the files it reads open, so that slices in order cost no second look."""

    def __init__(self, partitions: Sequence[Partition], max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._partitions = {partition.index: partition for partition in partitions}
        self._max_event_bytes = max_event_bytes
        self._files: OrderedDict[int, File] = OrderedDict()

    def read(self, slice: Slice) -> Records:
        """The records of a slice; those over the size limit come apart, measured but not held.

        JSON Lines: every line whose first byte lies in the slice, to its end. A blank line is no record, and of a byte
        order mark at the start of the file nothing is seen; a line keeps the carriage return before its newline. Lines that
        are nothing special come uncut (core/lines.py cuts them). Raises
        InputUnreadable where the bytes cannot be had, SourceChanged where the file is not the one of the partition.
        """
        # Out of the table while it is read: one that failed is not kept, nor one at its end that nobody reads again.
        file = self._files.pop(slice.partition, None) or self._open(self._partitions[slice.partition])
        records = file.read(slice.start, slice.stop)
        if not records.at_end or self._partitions[slice.partition].is_plain:
            self._keep(slice.partition, file)
        return records

    def read_again(self, partition: int, offset: int, length_bytes: int, digest: int) -> bytes:
        """A record whose Lines said that it can be read again. Raises InputUnreadable, and SourceChanged where it has another
        digest (core/lines.py) than it had: whatever else became of the file, it may have grown, say, is all the same."""
        file = self._files.pop(partition, None) or self._opened(self._partitions[partition])
        assert isinstance(file, LineFile)
        raw = file.again(offset, length_bytes)
        if digest_of(raw) != digest:
            path = self._partitions[partition].path
            raise SourceChanged(
                f"{path}: the record at byte {offset} is not what it was a moment ago: let files be as they are while a job "
                "reads them"
            )
        self._keep(partition, file)
        return raw

    def _keep(self, partition: int, file: File) -> None:
        self._files[partition] = file
        if len(self._files) > OPEN_FILES:
            self._files.popitem(last=False)

    def _open(self, partition: Partition) -> File:
        check_unchanged(partition)
        return self._opened(partition)

    def _opened(self, partition: Partition) -> File:
        if partition.format == "parquet":
            return ParquetRows(partition.path, self._max_event_bytes)
        size_bytes = partition.size_bytes if partition.head_digest else None
        content = _content(partition.path, partition.compression, size_bytes)
        return (RecordsFile if partition.format == "records" else LineFile)(content, self._max_event_bytes)


def check_unchanged(partition: Partition) -> None:
    """Raises SourceChanged unless the partition's file is the one that was found when the job started.

    A partition without a head digest still grows (a spooled standard input), and is not checked.
    """
    if not partition.head_digest:
        return
    remedy = "restore it, or start a new job"
    try:
        with open(partition.path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise SourceChanged(f"{partition.path}: {error.strerror}, but the job reads it: {remedy}") from error
    now = replace(
        partition, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns, head_digest=_digest(head)
    )
    what = changed(partition, now)
    if what is not None:
        raise SourceChanged(f"{partition.path}: {what}: {remedy}")


def changed(partition: Partition, now: Partition) -> str | None:
    """How the file of a partition differs from the one that it was when the job started; None where it does not."""
    if now.size_bytes > partition.size_bytes and partition.is_plain:
        return (
            f"it grew from {partition.size_bytes} to {now.size_bytes} bytes since the job started (a file is read as it was "
            "found; what comes later belongs into a file of its own, which goes on after it)"
        )
    if now.size_bytes != partition.size_bytes:
        return f"its size was {partition.size_bytes} bytes when the job started and is {now.size_bytes}"
    if now.mtime_ns != partition.mtime_ns:
        return "it was modified after the job started"
    if now.head_digest != partition.head_digest:
        return "its first bytes are not those that it had when the job started"
    return None


def _content(path: str, compression: Compression, size_bytes: int | None) -> Content:
    return PlainContent(path, size_bytes) if compression is None else CompressedContent(path, compression)
