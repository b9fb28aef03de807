"""Where finished records go: JSON Lines files, Redis streams, standard output. A sink says how far it is.

A record is one JSON object in bytes that holds its place in the source under "position". Records come in position
order. After a crash they come again, the same ones: so an output's last complete record says which of them it has.

    SinkFailed     the output cannot be written, or is not ours; it holds whole records. Make room, or give another
    OutputExists   there is an output already, and nobody said that it is to be continued
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import orjson

from cluster.core.errors import require
from cluster.core.messages import Position
from cluster.stores.directory import sync_directory

if TYPE_CHECKING:
    from cluster.stores.redis import Client

Records = Sequence[tuple[Position, bytes]]
"""(position, one JSON object without a newline), in position order. Several may have one position."""

_CHUNK_BYTES = 1 << 16
_STREAM_BATCH = 256
"""Entries sent at once. A record has at most some 200 KB (the context's limit), so a batch stays below 64 MB."""


class SinkFailed(Exception):
    """The output cannot be written, read on, or continued. After it only close() makes sense."""


class OutputExists(Exception):
    """The output holds something, and resume was not asked for."""


class Place(NamedTuple):
    """Where the last complete record of an output is, and how many records the output has of that position."""

    position: Position
    records: int


class Sink(ABC):
    """An open output. One process writes it; where two do, both write the same (DESIGN 11.9)."""

    @abstractmethod
    def progress(self) -> Place | None:
        """The place of the last record; None where there is none, or where that cannot be known (standard output)."""

    @abstractmethod
    def write(self, records: Records) -> None:
        """Append records, leaving out those that the output had when it was opened. Not durable before flush().

        Raises SinkFailed; then none of `records` has been written, or a stream may have the first of them.
        """

    @abstractmethod
    def flush(self) -> None:
        """Make what was written as durable as the output can. Raises SinkFailed."""

    @abstractmethod
    def close(self) -> None:
        """Give the output back, without making it durable."""


def open_sink(uri: str, *, resume: bool) -> Sink:
    """The sink at a path, `-` (standard output) or redis://host:port/db?stream=NAME.

    `resume` continues what is there; without it anything that is there is refused. Raises SinkFailed, OutputExists.
    """
    if uri == "-":
        return StdoutSink()
    if _scheme(uri) is None:
        return FileSink(Path(uri), resume=resume)
    return StreamSink(*_stream_of(uri), resume=resume)


def shown(uri: str) -> str:
    """An output's name for people and manifests: a URL without its passwords. Two of the same output are equal."""
    if _scheme(uri) is None:
        return uri
    from cluster.stores import redis

    return redis.shown(uri)


def discard(uri: str) -> None:
    """Remove an output of an earlier run, if there is one. Raises SinkFailed when it holds anything but our records."""
    if uri == "-":
        return
    open_sink(uri, resume=True).close()
    if _scheme(uri) is None:
        path = Path(uri)
        if path.is_file():  # and not a device
            path.unlink()
    else:
        url, stream = _stream_of(uri)
        with _reaching(url):
            _connect(url).delete(stream)


@contextmanager
def reserved(uri: str) -> Iterator[None]:
    """While this lasts nobody else begins to write there. Raises OutputExists where somebody has. Only files can be reserved."""
    if _scheme(uri) is not None or not Path(uri).is_file():
        yield
        return
    file = os.open(uri, os.O_RDWR)
    try:
        with suppress(OSError):  # of a file system without locks
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputExists(f"{uri}: another run is writing there: give another path") from None
        yield
    finally:
        os.close(file)


# --- how far an output is ------------------------------------------------------------------------------------------


class Continuation:
    """Which of the records that come are new."""

    def __init__(self, place: Place | None) -> None:
        self.place = place
        self._resumed_at = place
        """The place at opening, until what comes is past it."""
        self._repeated = 0
        """How many records at that position have come again."""

    def new_of(self, records: Records) -> Records:
        """`records` without those at its head that the output had at opening."""
        require(all(a[0] <= b[0] for a, b in pairwise(records)), "records come in position order")
        if self._resumed_at is None:
            return records
        position, count = self._resumed_at
        for index, (at, _) in enumerate(records):
            self._repeated += at == position
            if at > position or self._repeated > count:
                self._resumed_at = None
                return records[index:]
        return []

    def add(self, position: Position) -> int:
        """Count one more record; returns how many there were at its position."""
        earlier = self.place
        require(earlier is None or earlier.position <= position, f"{position} is written after {earlier}")
        count = earlier.records if earlier is not None and earlier.position == position else 0
        self.place = Place(position, count + 1)
        return count


    def add_all(self, records: Records) -> None:
        """add() for each of them, which are in order: the place is that of the last one."""
        if not records:
            return
        last, earlier = records[-1][0], self.place
        require(earlier is None or earlier.position <= records[0][0], f"{records[0][0]} is written after {earlier}")
        count = 0
        for position, _ in reversed(records):
            if position != last:
                break
            count += 1
        if count == len(records) and earlier is not None and earlier.position == last:
            count += earlier.records
        self.place = Place(last, count)


def position_of(record: bytes) -> Position | None:
    """The position in a record; None if the bytes are no record of ours."""
    try:
        value = orjson.loads(record)
    except orjson.JSONDecodeError:
        return None
    position = value.get("position") if isinstance(value, dict) else None
    if not isinstance(position, list) or len(position) not in (2, 3):
        return None
    return tuple(position) if all(type(part) is int and part >= 0 for part in position) else None


# --- files ---------------------------------------------------------------------------------------------------------


class FileSink(Sink):
    """JSON Lines, written at explicit offsets: an earlier owner that is still writing can only write the same bytes."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._path = path
        self._name_is_durable = False
        with self._failing():
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            with self._failing():
                self._end, place = self._look(resume)
        except BaseException:
            os.close(self._file)
            raise
        self._progress = Continuation(place)
        self._keeps = stat.S_ISREG(os.fstat(self._file).st_mode)

    def progress(self) -> Place | None:
        return self._progress.place if self._keeps else None  # a device holds nothing that could be looked up

    def write(self, records: Records) -> None:
        new = self._progress.new_of(records)
        data = b"".join([record + b"\n" for _, record in new])
        with self._failing():
            _write_all(self._file, data, self._end)
        self._end += len(data)
        self._progress.add_all(new)

    def flush(self) -> None:
        with self._failing():
            try:
                os.fsync(self._file)
            except OSError as error:
                if error.errno != errno.EINVAL:  # a device, such as /dev/null, which has nothing to make durable
                    raise
            if not self._name_is_durable:
                sync_directory(self._path.parent)
                self._name_is_durable = True

    def close(self) -> None:
        os.close(self._file)

    def _look(self, resume: bool) -> tuple[int, Place | None]:
        """(where to go on writing, the place of the last record), after half a last record has been cut off."""
        size_bytes = os.fstat(self._file).st_size
        if size_bytes and not resume:
            raise self._exists(size_bytes)
        end = _line_start(self._file, size_bytes + 1)
        place = self._last_place(end)
        if end < size_bytes:
            if os.pread(self._file, 1, end) != b"{":
                raise self._not_ours(end, "is no record of a run")
            os.ftruncate(self._file, end)
        return end, place

    def _last_place(self, end: int) -> Place | None:
        place: Place | None = None
        while end > 0:
            start = _line_start(self._file, end)
            position = position_of(os.pread(self._file, end - 1 - start, start))
            if position is None:
                raise self._not_ours(start, "is no record of a run")
            if place is None:
                place = Place(position, 1)
            elif position == place.position:
                place = Place(position, place.records + 1)
            elif position > place.position:
                raise self._not_ours(start, "is a record of a later position than the next one")
            else:
                break
            end = start
        return place

    def _exists(self, size_bytes: int) -> OutputExists:
        last = _line_start(self._file, size_bytes)
        if position_of(os.pread(self._file, size_bytes - last, last).removesuffix(b"\n")) is None:
            return OutputExists(f"{self._path}: exists already, and is no output of a run: give another path")
        return OutputExists(
            f"{self._path}: exists already: give the --job that wrote it, another path, or --fresh to replace it"
        )

    def _not_ours(self, offset: int, what: str) -> SinkFailed:
        line = 1
        for start in range(0, offset, _CHUNK_BYTES):
            line += os.pread(self._file, min(_CHUNK_BYTES, offset - start), start).count(b"\n")
        return SinkFailed(f"{self._path}:{line}: this line {what}: put back what the run wrote, or give another path")

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            remedy = _REMEDIES.get(error.errno or 0, "give a file that can be written")
            raise SinkFailed(f"{self._path}: {os.strerror(error.errno or 0)}: {remedy}") from error


_REMEDIES = {
    errno.ENOSPC: "make room, or give another file",
    errno.EDQUOT: "make room, or give another file",
    errno.EFBIG: "raise the limit, or give another file",
    errno.ENOENT: "make its directory, or give another file",
    errno.EISDIR: "give a file in it",
}


def _write_all(file: int, data: bytes, offset: int) -> None:
    """Write `data` at `offset`, or nothing: what a full disk took of it is cut off again."""
    written = 0
    try:
        while written < len(data):
            written += os.pwrite(file, memoryview(data)[written:], offset + written)
    except OSError:
        with suppress(OSError):
            if os.fstat(file).st_size == offset + written:  # else another process has gone on from here
                os.ftruncate(file, offset)
        raise


def _line_start(file: int, end: int) -> int:
    """Where the line starts whose newline is, or would be, the byte before `end`."""
    stop = end - 1
    while stop > 0:
        start = max(0, stop - _CHUNK_BYTES)
        newline = os.pread(file, stop - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        stop = start
    return 0


# --- standard output -----------------------------------------------------------------------------------------------


@contextmanager
def standard_output_failing() -> Iterator[None]:
    """Whoever writes to it: what fails there is SinkFailed."""
    try:
        yield
    except OSError as error:
        raise SinkFailed(f"standard output: {error.strerror}: keep its reader running, or give a path") from error


class StdoutSink(Sink):
    """JSON Lines for whoever reads along. Nothing is known of what an earlier run wrote."""

    def __init__(self) -> None:
        self._progress = Continuation(None)

    def progress(self) -> Place | None:
        return None

    def write(self, records: Records) -> None:
        with standard_output_failing():
            sys.stdout.buffer.writelines(record + b"\n" for _, record in self._progress.new_of(records))

    def flush(self) -> None:
        with standard_output_failing():
            sys.stdout.buffer.flush()

    def close(self) -> None:
        """Standard output is not ours to close."""


# --- Redis streams -------------------------------------------------------------------------------------------------


_FIELD = b"record"
_OFFSET_BITS = 44
"""Of the first half of an entry id: 16 TB in a partition, and a million partitions."""
_COUNT_BITS = 32
"""Of the second half: sub-index and, from 1, the record's number at its position. An id of 0-0 is not allowed."""


class StreamSink(Sink):
    """Entries {record: JSON} whose ids come from the position, so that a record cannot be added twice.

    The server's last generated id says how far the stream is, also when its readers delete what they have read. Entries
    are as durable as the server's own configuration makes them.
    """

    def __init__(self, url: str, stream: str, *, resume: bool) -> None:
        self._url, self._stream = url, stream
        self._redis = _connect(url)
        with _reaching(url):
            place = self._look(resume)
        self._progress = Continuation(place)

    def progress(self) -> Place | None:
        return self._progress.place

    def write(self, records: Records) -> None:
        new = self._progress.new_of(records)
        entries = [(_entry_id(position, self._progress.add(position)), record) for position, record in new]
        with _reaching(self._url):
            for start in range(0, len(entries), _STREAM_BATCH):
                self._add(entries[start : start + _STREAM_BATCH])

    def flush(self) -> None:
        """Every write() has been answered by the server."""

    def close(self) -> None:
        self._redis.close()

    def _look(self, resume: bool) -> Place | None:
        kind = self._redis.type(self._stream)
        if kind == b"none":
            return None
        if kind != b"stream":
            raise SinkFailed(
                f"{self._name()}: the key holds a {kind.decode()}: give the name of a stream, or of no key"
            )
        last_id = self._redis.xinfo_stream(self._stream)["last-generated-id"]
        if last_id == b"0-0":  # made for its readers, and never written
            return None
        if not resume:
            raise OutputExists(
                f"{self._name()}: exists already: give the --job that wrote it, another one, or --fresh to replace it"
            )
        place = _place_of(last_id)
        newest = self._redis.xrevrange(self._stream, count=1)  # nothing, where its readers delete what they have read
        if place is None or not all(_is_ours(*entry) for entry in newest):
            raise self._not_ours(last_id.decode(), "is no record of a run")
        return place

    def _add(self, entries: Sequence[tuple[str, bytes]]) -> None:
        # One transaction: a server that is short of memory must not refuse an entry and take the next one, for then the
        # first could never be added.
        with self._redis.pipeline(transaction=True) as pipe:
            for entry_id, record in entries:
                pipe.xadd(self._stream, {_FIELD: record}, id=entry_id)
            answers = pipe.execute(raise_on_error=False)
        for (entry_id, record), answer in zip(entries, answers, strict=True):
            if isinstance(answer, Exception):
                if "equal or smaller" not in str(answer):
                    raise answer
                self._check_present(entry_id, record)

    def _check_present(self, entry_id: str, record: bytes) -> None:
        """The entry was there: from an earlier owner, a command whose answer was lost, or somebody else."""
        for _, fields in self._redis.xrange(self._stream, entry_id, entry_id):
            if fields.get(_FIELD) != record:
                raise self._not_ours(entry_id, "is another record than this run's")

    def _not_ours(self, entry_id: str, what: str) -> SinkFailed:
        return SinkFailed(f"{self._name()}: entry {entry_id} {what}: give a stream that nobody else writes")

    def _name(self) -> str:
        return f"{shown(self._url)}: stream {self._stream}"


def _entry_id(position: Position, count: int) -> str:
    """The id of the record that has `count` others of its position before it. Ids order as (position, count) does."""
    partition, offset, *sub = position
    require(partition < 1 << (64 - _OFFSET_BITS) and offset < 1 << _OFFSET_BITS, f"{position} fits into an entry id")
    return f"{partition << _OFFSET_BITS | offset}-{(sub[0] + 1 if sub else 0) << _COUNT_BITS | count + 1}"


def _is_ours(entry_id: bytes, fields: dict[bytes, bytes]) -> bool:
    place = _place_of(entry_id)
    return place is not None and place.position == position_of(fields.get(_FIELD, b""))


def _place_of(entry_id: bytes) -> Place | None:
    """The inverse of _entry_id; None for an id that it cannot have made."""
    high, low = map(int, entry_id.split(b"-"))
    position: Position = (high >> _OFFSET_BITS, high & ((1 << _OFFSET_BITS) - 1))
    sub, count = low >> _COUNT_BITS, low & ((1 << _COUNT_BITS) - 1)
    if sub:
        position = (*position, sub - 1)
    return Place(position, count) if count else None


def _scheme(uri: str) -> str | None:
    return uri.partition("://")[0] if "://" in uri else None


def _stream_of(uri: str) -> tuple[str, str]:
    """(the server's URL, the stream's name). Raises SinkFailed."""
    if _scheme(uri) not in ("redis", "rediss"):
        raise SinkFailed(f"{_scheme(uri)}://: no kind of output: give a path, - or redis://host:port/db?stream=NAME")
    parts = urlsplit(uri)
    query = parse_qsl(parts.query)
    names = [value for name, value in query if name == "stream"]
    url = urlunsplit(parts._replace(query=urlencode([pair for pair in query if pair[0] != "stream"])))
    if len(names) != 1 or not names[0]:
        raise SinkFailed(f"{shown(url)}: which stream? give redis://host:port/db?stream=NAME")
    return url, names[0]


def _connect(url: str) -> Client:
    """A client; this is where the redis package is imported, if it has not been."""
    from cluster.stores.redis import connect

    try:
        return connect(url)
    except ValueError:  # whose text may hold a part of the password
        raise SinkFailed(f"{shown(url)}: no such URL: give redis://user:password@host:port/db?stream=NAME") from None


def _reaching(url: str) -> AbstractContextManager[None]:
    from cluster.stores.redis import reaching

    return reaching(url, SinkFailed)
