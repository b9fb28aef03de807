"""The content of one file: decompressing it, and cutting it into records. Knows formats, not partitions or log types.

Every kind of file has one method, `read(start, stop) -> Records`, where start and stop are byte offsets in the
decompressed content for JSON Lines, and record numbers for the others. The cuts never change what the records are.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Literal, Protocol

import msgspec
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.core.lines import offsets_of
from cluster.core.messages import CutLines, Lines, Records, TooLong

CHUNK_BYTES = 1 << 20
"""How much is read at once: what a core's cache holds beside what looks at it."""
LOOK_BYTES = 1 << 16
"""How much is read at once where only the end of a line is looked for."""
TOO_LONG_HEAD_BYTES = 256
"""How much of a record over the size limit is kept to tell it by; no more than the limit."""
PARQUET_BATCH_ROWS = 1000
"""Few enough to hold as JSON text, whatever the size of the file's row groups."""

BOM = b"\xef\xbb\xbf"


class InputUnreadable(Exception):
    """A file's bytes cannot be had: compressed data damaged or cut off, broken Parquet, a failing disk."""


class SourceChanged(Exception):
    """A file is not the one that the job started with."""


class File(Protocol):
    """An open file of some format."""

    def read(self, start: int, stop: int | None) -> Records: ...


# --- bytes ----------------------------------------------------------------------------------------------------------


class Content(Protocol):
    """The decompressed bytes of a file. `read_at` returns 1 to `size` bytes, or none at the end."""

    def read_at(self, offset: int, size: int) -> bytes: ...


class PlainContent:
    def __init__(self, path: str, size_bytes: int | None) -> None:
        """Reads no further than `size_bytes`; None is for a file that still grows."""
        self._path = path
        self._size_bytes = size_bytes
        self._file = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def read_at(self, offset: int, size: int) -> bytes:
        if self._size_bytes is not None:
            size = min(size, self._size_bytes - offset)
        if size <= 0:
            return b""
        try:
            data = os.pread(self._file, size, offset)
        except OSError as error:
            raise InputUnreadable(f"{self._path}: byte {offset}: {error.strerror}: check the disk") from error
        if not data and self._size_bytes is not None:
            raise SourceChanged(f"{self._path}: it became shorter than {self._size_bytes} bytes: restore it")
        return data


class CompressedContent:
    """Reads front to back. Going back further than the last block means starting again."""

    def __init__(self, path: str, codec: Literal["gzip", "zstd"]) -> None:
        self._path = path
        self._codec = codec
        self._restart()

    def _restart(self) -> None:
        self._stream = pa.CompressedInputStream(pa.OSFile(self._path, "rb"), self._codec)
        self._block = b""
        self._block_start = 0

    def read_at(self, offset: int, size: int) -> bytes:
        if offset < self._block_start:
            self._restart()
        while offset >= self._block_start + len(self._block):
            if not self._advance():
                return b""
        begin = offset - self._block_start
        return self._block[begin : begin + size]

    def _advance(self) -> bool:
        end = self._block_start + len(self._block)
        try:
            data = self._stream.read(CHUNK_BYTES)
        except OSError as error:
            raise InputUnreadable(
                f"{self._path}: the {self._codec} data is damaged or cut off after byte {end} of its content"
                f" ({error}): replace the file or leave it out"
            ) from error
        if not data:
            return False
        # The last byte stays: who starts at a block's first byte asks whether a newline stands before it.
        kept = self._block[-1:]
        self._block_start = end - len(kept)
        self._block = kept + data
        return True


# --- JSON Lines -----------------------------------------------------------------------------------------------------


class LineFile:
    """JSON Lines. A line belongs to the slice in which its first byte lies; blank lines are no records."""

    def __init__(self, content: Content, max_event_bytes: int) -> None:
        self._content = content
        self._max_event_bytes = max_event_bytes

    def read(self, start: int, stop: int | None) -> Records:
        first = self._first_line(start, stop)
        if stop is not None and isinstance(self._content, PlainContent):
            end = max(first, self._first_line(stop, None))
            return Records([], [], [], end, not self._content.read_at(end, 1), _Parts(self, first, stop))
        parts = list(self.parts(first, stop))  # going back is dear, or where it ends is not known
        end = parts[-1].next_start if parts else first
        return Records([], [], [], end, not self._content.read_at(end, 1), parts)

    def again(self, offset: int, size: int) -> bytes:
        """The same bytes as before; of files that are not compressed. Fewer where the file has become shorter."""
        return self._content.read_at(offset, size)

    def parts(self, position: int, stop: int | None) -> Iterator[Lines | CutLines]:
        """The lines from `position`, where one begins, to the one in which the byte before `stop` lies."""
        part: Lines | CutLines
        while stop is None or position < stop:
            data = self._lines_at(position)
            if data is not None and not data:
                return
            end = 0 if data is None else self._end_of_lines(data, position, stop)
            if data is None or (position == 0 and data.startswith(BOM)) or self._may_be_too_long(data, end):
                part = self._careful(
                    position, position + CHUNK_BYTES if stop is None else min(position + CHUNK_BYTES, stop)
                )
            else:
                part = Lines(position, data, end, isinstance(self._content, PlainContent))
            yield part
            position = part.next_start

    def _lines_at(self, position: int) -> bytes | None:
        """Bytes in which a line ends, or the file does; None where the line is over the limit."""
        data = self._content.read_at(position, CHUNK_BYTES)
        while b"\n" not in data:
            if len(data) > self._max_event_bytes:
                return None
            more = self._content.read_at(position + len(data), CHUNK_BYTES)
            if not more:
                break
            data += more
        return data

    @staticmethod
    def _end_of_lines(data: bytes, position: int, stop: int | None) -> int:
        """Where the last of the slice's lines that are whole in `data`, which stands at `position`, ends."""
        last = 0
        if stop is not None and stop - position <= len(data):
            last = data.find(b"\n", max(stop - position - 1, 0)) + 1
        return last or data.rfind(b"\n") + 1 or len(data)

    def _may_be_too_long(self, data: bytes, end: int) -> bool:
        """Where each half of the limit holds the end of a line, none is over it."""
        if end <= self._max_event_bytes:
            return False
        half = max(self._max_event_bytes // 2, 1)
        return any(data.find(b"\n", at, at + half) < 0 for at in range(0, end - half, half))

    def _careful(self, position: int, stop: int) -> CutLines:
        """The same of lines that may be too long or follow a byte order mark, cut without holding one over the limit."""
        cutter = _LineCutter(position, self._max_event_bytes)
        while position < stop and (chunk := self._content.read_at(position, min(CHUNK_BYTES, stop - position))):
            cutter.feed(chunk)
            position += len(chunk)
        while cutter.inside_line and (chunk := self._content.read_at(position, LOOK_BYTES)):
            chunk = chunk[: chunk.find(b"\n") + 1] or chunk
            cutter.feed(chunk)
            position += len(chunk)
        cutter.finish()
        return CutLines(cutter.raws, cutter.offsets, cutter.too_long, position)

    def _first_line(self, start: int, stop: int | None) -> int:
        """Where the first line of the slice begins; `stop`, or the end of the file, where none does."""
        if start == 0:
            return 0
        position = start - 1
        while stop is None or position < stop:
            size = LOOK_BYTES if stop is None else min(LOOK_BYTES, stop - position)
            chunk = self._content.read_at(position, size)
            newline = chunk.find(b"\n")
            if newline >= 0:
                return position + newline + 1
            if not chunk:
                break
            position += len(chunk)
        return max(start, position)


class _Parts:
    """What LineFile.parts() gives, read anew by whoever iterates."""

    def __init__(self, file: LineFile, position: int, stop: int) -> None:
        self._file = file
        self._position = position
        self._stop = stop

    def __iter__(self) -> Iterator[Lines | CutLines]:
        return self._file.parts(self._position, self._stop)


class _LineCutter:
    """Cuts chunks that follow one another into lines, without ever holding one that is over the limit."""

    def __init__(self, offset: int, max_event_bytes: int) -> None:
        self.raws: list[bytes] = []
        self.offsets: list[int] = []
        self.too_long: list[TooLong] = []
        self._max_event_bytes = max_event_bytes
        # The line that is not complete yet: where it starts, and what of it is there. Once that is over the limit, its
        # length so far is counted and only its head kept.
        self._offset = offset
        self._begun = b""
        self._counted_bytes = 0

    @property
    def inside_line(self) -> bool:
        return bool(self._begun)

    def feed(self, chunk: bytes) -> None:
        if self._counted_bytes:
            line, newline, chunk = chunk.partition(b"\n")
            self._counted_bytes += len(line)
            if not newline:
                return
            self._end_counted()
        lines = chunk.split(b"\n")
        lines[0] = self._begun + lines[0]
        self._begun = lines.pop()
        if lines:
            self._add(lines)
        if len(self._begun) > self._max_event_bytes:
            self._counted_bytes = len(self._begun)
            self._begun = _head(self._begun, self._max_event_bytes)

    def finish(self) -> None:
        """The file or the slice ended, and its last line with it."""
        if self._counted_bytes:
            self._end_counted()
        elif self._begun:
            self._add([self._begun])
            self._begun = b""

    def _end_counted(self) -> None:
        self.too_long.append(TooLong(self._offset, self._counted_bytes, self._begun))
        self._offset += self._counted_bytes + 1
        self._begun = b""
        self._counted_bytes = 0

    def _add(self, lines: list[bytes]) -> None:
        # Everything here runs at C speed, 0.2 us a line; the exceptional lines are looked for, not expected.
        offsets = offsets_of(lines, self._offset)
        is_first = self._offset == 0
        self._offset = offsets[-1] + len(lines[-1]) + 1
        if is_first or not all(map(bytes.strip, lines)) or max(map(len, lines)) > self._max_event_bytes:
            self._add_carefully(lines, offsets)
        else:
            self.raws += lines
            self.offsets += offsets

    def _add_carefully(self, lines: list[bytes], offsets: list[int]) -> None:
        for line, offset in zip(lines, offsets, strict=True):
            # The limit first, or a long blank line would be one thing when cut and another when whole.
            if len(line) > self._max_event_bytes:
                self.too_long.append(TooLong(offset, len(line), _head(line, self._max_event_bytes)))
                continue
            raw = line.removeprefix(BOM) if offset == 0 else line
            if raw.strip():
                self.raws.append(raw)
                self.offsets.append(offset)


def _head(record: bytes, max_event_bytes: int) -> bytes:
    return record[: min(TOO_LONG_HEAD_BYTES, max_event_bytes)]


# --- files of Records -----------------------------------------------------------------------------------------------

# CloudTrail delivers {"Records": [...]}, Azure {"records": [...]}, and some tools a bare array.
_START = r'\s*(?:\{\s*"[Rr]ecords"\s*:\s*)?\[\s*'
RECORDS_START = re.compile(rb"(?:\xef\xbb\xbf)?" + _START.encode())
_TEXT_START = re.compile(_START, re.ASCII)
_SEPARATOR = re.compile(r"\s*(?:,\s*|(?=\]))", re.ASCII)
_END = re.compile(r"\]\s*\}?", re.ASCII)


class _Document(msgspec.Struct):
    Records: list[msgspec.Raw] = []
    records: list[msgspec.Raw] = []


_DOCUMENT = msgspec.json.Decoder(_Document | list[msgspec.Raw])
# Numbers are only walked over, so nothing is converted; and what a string may hold is for the parser to say.
_WALKER = json.JSONDecoder(parse_int=str, parse_float=str, strict=False)


def split_records(data: bytes) -> Iterator[bytes]:
    """The records of `{"Records": [...]}` or of an array, unparsed.

    What the file's damaged part holds comes as one last record, so that it ends among the dead letters with its place.
    Several such documents one after the other, as `cat *.json` makes them, are taken as one.
    """
    data = data.removeprefix(BOM)
    try:
        document = _DOCUMENT.decode(data)
    except (msgspec.DecodeError, RecursionError):
        yield from walk_records(data)
        return
    yield from map(bytes, document if isinstance(document, list) else document.Records + document.records)


def walk_records(data: bytes) -> Iterator[bytes]:
    """Like split_records, one record at a time: slower, for what msgspec refuses and for the start of a file."""
    text = data.removeprefix(BOM).decode("latin-1")  # one character a byte: places in the text are places in the file
    position = 0
    while start := _TEXT_START.match(text, position):
        position = start.end()
        while not text.startswith("]", position):
            try:
                _, end = _WALKER.raw_decode(text, position)
            except (ValueError, RecursionError):
                break
            yield text[position:end].encode("latin-1")
            separator = _SEPARATOR.match(text, end)
            position = separator.end() if separator else end
        document_end = _END.match(text, position)
        if document_end is None:
            break
        position = document_end.end()
    if rest := text[position:].encode("latin-1").strip():
        yield rest


class RecordsFile:
    """A file that is one JSON document. All of it is held in memory: such files are small (CloudTrail's some MB)."""

    def __init__(self, content: Content, max_event_bytes: int) -> None:
        chunks = []
        size = 0
        while chunk := content.read_at(size, CHUNK_BYTES):
            chunks.append(chunk)
            size += len(chunk)
        self._raws = list(split_records(b"".join(chunks)))
        self._max_event_bytes = max_event_bytes

    def read(self, start: int, stop: int | None) -> Records:
        stop = len(self._raws) if stop is None else min(stop, len(self._raws))
        return _numbered(self._raws[start:stop], start, stop >= len(self._raws), self._max_event_bytes)


def _numbered(raws: list[bytes], start: int, at_end: bool, max_event_bytes: int) -> Records:
    """Records with the numbers from `start` on."""
    next_start = start + len(raws)
    if not raws or max(map(len, raws)) <= max_event_bytes:
        return Records(raws, list(range(start, next_start)), [], next_start, at_end)
    kept = [(raw, number) for number, raw in enumerate(raws, start) if len(raw) <= max_event_bytes]
    too_long = [
        TooLong(number, len(raw), _head(raw, max_event_bytes))
        for number, raw in enumerate(raws, start)
        if len(raw) > max_event_bytes
    ]
    return Records([raw for raw, _ in kept], [number for _, number in kept], too_long, next_start, at_end)


# --- Parquet --------------------------------------------------------------------------------------------------------


class ParquetRows:
    """Rows as JSON text, read front to back. Nulls are left out: a column cannot tell absent from null, and in logs
    absent is what is meant. Times are RFC 3339 in UTC, cut to the microsecond."""

    def __init__(self, path: str, max_event_bytes: int) -> None:
        self._path = path
        self._max_event_bytes = max_event_bytes
        self.rows = parquet_rows(path)
        self._restart()

    def _restart(self) -> None:
        self._batches = parquet_batches(self._path)
        self._batch: list[bytes] = []
        self._batch_start = 0

    def read(self, start: int, stop: int | None) -> Records:
        stop = self.rows if stop is None else min(stop, self.rows)
        raws: list[bytes] = []
        position = start
        if position < self._batch_start:
            self._restart()
        while position < stop:
            while position >= self._batch_start + len(self._batch):
                self._batch_start += len(self._batch)
                self._batch = next(self._batches)
            begin = position - self._batch_start
            raws += self._batch[begin : begin + stop - position]
            position = start + len(raws)
        return _numbered(raws, start, stop >= self.rows, self._max_event_bytes)


def parquet_rows(path: str) -> int:
    """How many rows the file has. Raises InputUnreadable."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise _broken_parquet(path, error) from error


def parquet_batches(path: str) -> Iterator[list[bytes]]:
    """The rows in order, as JSON text, some at a time. Raises InputUnreadable."""
    try:
        # Spark and Athena write INT96, which is nanoseconds; Python's datetime has none.
        with pq.ParquetFile(path, coerce_int96_timestamp_unit="us", page_checksum_verification=True) as file:
            for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS):
                schema = pa.schema([each.with_type(_in_microseconds(each.type)) for each in batch.schema])
                table = pa.Table.from_batches([batch]).cast(schema, safe=False)
                yield [_row_text(row) for row in table.to_pylist(maps_as_pydicts="lossy")]
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # the last two: a date that Python has not
        raise _broken_parquet(path, error) from error


def _broken_parquet(path: str, error: Exception) -> InputUnreadable:
    return InputUnreadable(f"{path}: the Parquet data is damaged ({error}): replace the file or leave it out")


def _in_microseconds(kind: Any) -> Any:
    """The Arrow type `kind` with its nanoseconds replaced, nested ones too."""
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if pa.types.is_time64(kind):
        return pa.time64("us")
    if pa.types.is_duration(kind):
        return pa.duration("us")
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_in_microseconds(kind.value_type)))
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, kind.item_field.with_type(_in_microseconds(kind.item_type)))
    if pa.types.is_struct(kind):
        return pa.struct([each.with_type(_in_microseconds(each.type)) for each in kind])
    return kind


def _row_text(row: dict[str, object]) -> bytes:
    # Maps may have keys that are no text; the others cannot occur.
    options = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS
    return orjson.dumps(_without_nulls(row), default=_plain, option=options)


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value


def _plain(value: object) -> object:
    """What JSON has for the column types that it does not know."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() and abs(value) < 2**63 else float(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)
