"""One contract for every sink that can be continued; then what only files, streams or standard output can get wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, run

import orjson
import pytest

from bench.redis_server import start_redis
from cluster.core.errors import InvariantBroken
from cluster.core.messages import Position
from cluster.sinks import (
    _STREAM_BATCH,
    Continuation,
    OutputExists,
    Place,
    Records,
    Sink,
    SinkFailed,
    discard,
    open_sink,
    reserved,
    shown,
)
from cluster.stores.redis import connect

ROOT = Path(__file__).resolve().parent.parent


def record(*position: int, text: str = "") -> tuple[Position, bytes]:
    return position, orjson.dumps({"text": text, "position": position})


A, B1, B2, B3, C, D = (
    record(0, 10),
    record(0, 25, text="one"),
    record(0, 25, text="two"),
    record(0, 25, text="zwei ½"),
    record(0, 300),
    record(1, 0),
)
ALL = [A, B1, B2, B3, C, D]


@dataclass(frozen=True)
class Output:
    """An output and what stands in it, whatever kind it is."""

    uri: str
    lines: Callable[[], list[bytes]]


def file_output(path: Path) -> Output:
    return Output(str(path), lambda: path.read_bytes().splitlines())


def stream_output(url: str, stream: str) -> Output:
    client = connect(url)
    return Output(f"{url}?stream={stream}", lambda: [fields[b"record"] for _, fields in client.xrange(stream)])


@pytest.fixture(params=["file", "stream"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Output:
    if request.param == "file":
        return file_output(tmp_path / "alerts.jsonl")
    return stream_output(request.getfixturevalue("redis_url"), "alerts")


def written(output: Output, records: Records, *, resume: bool = False) -> Sink:
    sink = open_sink(output.uri, resume=resume)
    sink.write(records)
    sink.flush()
    return sink


def lines_of(records: Records) -> list[bytes]:
    return [data for _, data in records]


# --- the contract --------------------------------------------------------------------------------------------------


def test_records_come_out_as_they_went_in(output: Output) -> None:
    sink = open_sink(output.uri, resume=False)
    assert sink.progress() is None
    for records in (ALL[:2], [], ALL[2:]):
        sink.write(records)
    sink.flush()
    sink.close()

    assert output.lines() == lines_of(ALL)


@pytest.mark.parametrize("position", [(0, 0), (0, 0, 0), (3, (1 << 44) - 1), (999_999, 7, 12)])
def test_progress_is_the_last_position_and_how_many_records_it_has(output: Output, position: Position) -> None:
    sink = written(output, [record(*position, text=text) for text in "abc"])

    assert sink.progress() == (position, 3)
    assert open_sink(output.uri, resume=True).progress() == (position, 3)


@pytest.mark.parametrize("crash_after", range(len(ALL) + 1))
@pytest.mark.parametrize("replay_from", [0, 1])
def test_a_replay_adds_what_is_missing_and_nothing_twice(output: Output, crash_after: int, replay_from: int) -> None:
    written(output, ALL[:crash_after])

    resumed = open_sink(output.uri, resume=True)
    for record_ in ALL[min(replay_from, crash_after) :]:
        resumed.write([record_])
    resumed.flush()

    assert output.lines() == lines_of(ALL)
    assert resumed.progress() == (D[0], 1)


def test_a_replay_may_come_in_other_batches_than_the_first_time(output: Output) -> None:
    written(output, ALL[:3])

    resumed = open_sink(output.uri, resume=True)
    resumed.write(ALL[:2])
    resumed.write(ALL[2:])

    assert output.lines() == lines_of(ALL)


def test_an_output_can_be_resumed_again_and_again(output: Output) -> None:
    for end in range(len(ALL) + 1):
        written(output, ALL[:end], resume=True).close()

    assert output.lines() == lines_of(ALL)


def test_an_output_that_holds_something_is_refused_unless_it_is_to_be_continued(output: Output) -> None:
    written(output, [A]).close()

    with pytest.raises(OutputExists, match=r"alerts.*: exists already: give the --job that wrote it"):
        open_sink(output.uri, resume=False)

    assert output.lines() == lines_of([A])


def test_positions_of_split_records_are_in_order_with_the_others(output: Output) -> None:
    split = [record(0, 5), record(0, 5, 0), record(0, 5, 1), record(0, 6), record(1, 0, 0), record(1, 0, 1)]
    for end in range(1, len(split) + 1):
        written(output, split[:end], resume=True)

    assert output.lines() == lines_of(split)


def test_an_earlier_owner_that_is_still_writing_can_only_write_the_same(output: Output) -> None:
    paused = open_sink(output.uri, resume=False)
    paused.write(ALL[:2])
    owner = open_sink(output.uri, resume=True)
    owner.write(ALL)

    paused.write(ALL[2:5])

    assert output.lines() == lines_of(ALL)
    assert open_sink(output.uri, resume=True).progress() == (D[0], 1)


def test_records_out_of_order_are_a_bug_of_ours(output: Output) -> None:
    sink = open_sink(output.uri, resume=False)
    with pytest.raises(InvariantBroken):
        sink.write([C, A])
    assert output.lines() == []


def test_a_discarded_output_is_gone_and_can_be_made_again(output: Output) -> None:
    discard(output.uri)
    written(output, ALL)

    discard(output.uri)

    written(output, [A])
    assert output.lines() == lines_of([A])


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "alerts.jsonl"


def test_a_torn_last_record_is_cut_off_wherever_it_was_torn(path: Path) -> None:
    whole = b"".join(line + b"\n" for line in lines_of(ALL[:4]))
    last_line = whole.rindex(b"{")
    assert "½".encode() in whole[last_line:]
    for size_bytes in range(last_line, len(whole)):  # among them half of the two bytes of ½, and all but the newline
        path.write_bytes(whole[:size_bytes])

        resumed = open_sink(str(path), resume=True)

        assert resumed.progress() == (B2[0], 2)
        assert path.read_bytes() == whole[:last_line]
        resumed.write(ALL)
        resumed.close()
        assert path.read_bytes().splitlines() == lines_of(ALL)


def test_a_file_with_nothing_but_a_torn_record_starts_over(path: Path) -> None:
    path.write_bytes(A[1][:7])

    written(file_output(path), ALL, resume=True)

    assert path.read_bytes().splitlines() == lines_of(ALL)


def test_records_longer_than_what_is_read_at_once_are_found_from_the_end(path: Path) -> None:
    long = [record(0, offset, text="x" * 200_000) for offset in (1, 2, 2)]
    written(file_output(path), long)

    assert open_sink(str(path), resume=True).progress() == ((0, 2), 2)


NOT_OURS = {
    "text": (b"my notes\n", 2),
    "text without a newline": (b"my notes", 2),
    "json of another kind": (b'{"position": "left"}\n', 2),
    "a position of another kind": (b'{"position": [0, -1]}\n', 2),
    "an array": (b"[0, 25]\n", 2),
    "a blank line": (b"\n", 2),
    "not UTF-8": (b"\xff\xfe\n", 2),
    "a later position before an earlier one": (record(0, 9)[1] + b"\n", 1),
}


@pytest.mark.parametrize("kind", NOT_OURS)
def test_a_file_that_somebody_edited_is_refused_at_its_line_and_left_alone(path: Path, kind: str) -> None:
    edit, line = NOT_OURS[kind]
    content = A[1] + b"\n" + edit
    path.write_bytes(content)

    for use in (lambda: open_sink(str(path), resume=True), lambda: discard(str(path))):
        with pytest.raises(SinkFailed, match=rf"alerts\.jsonl:{line}: this line is .*: put back what the run wrote"):
            use()

    assert path.read_bytes() == content


def test_what_no_run_wrote_is_not_said_to_be_replaced_by_fresh(path: Path) -> None:
    path.write_bytes(b"a letter\n")

    with pytest.raises(OutputExists, match=r"exists already, and is no output of a run: give another path$"):
        open_sink(str(path), resume=False)


def test_an_output_has_a_name_without_its_passwords() -> None:
    assert shown("redis://user:secret@host:1/2?stream=s") == "redis://user:***@host:1/2?stream=s"
    assert shown("/some/file@place:x") == "/some/file@place:x"
    assert shown("-") == "-"


def test_two_runs_that_begin_together_on_one_file_are_told_apart(path: Path) -> None:
    """Found by a trial: both saw an empty file, and each wrote into the other's records."""
    open_sink(str(path), resume=False).close()
    refused = pytest.raises(OutputExists, match="another run is writing there: give another path")
    with reserved(str(path)), refused, reserved(str(path)):
        pass
    with reserved(str(path)), reserved("/dev/null"), reserved("redis://localhost/0?stream=s"), reserved("-"):
        pass


def test_a_file_that_was_cut_between_two_records_goes_on_from_there(path: Path) -> None:
    written(file_output(path), ALL)
    path.write_bytes(b"".join(line + b"\n" for line in lines_of(ALL[:2])))

    written(file_output(path), ALL, resume=True)

    assert path.read_bytes().splitlines() == lines_of(ALL)


def test_flush_asks_the_disk_for_the_file_and_its_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    sink = open_sink(str(path), resume=False)
    sink.write([A])
    assert synced == []

    sink.flush()
    sink.flush()

    assert synced == [str(path), str(path.parent), str(path)]


def test_a_full_disk_keeps_whole_records_only_and_can_be_resumed(path: Path) -> None:
    fill = (
        "import resource, sys; from cluster.sinks import SinkFailed, open_sink\n"
        "from tests.test_sinks import ALL\n"
        "sink = open_sink(sys.argv[1], resume=False); sink.write(ALL[:2])\n"
        "limit = sum(len(line) + 1 for _, line in ALL[:4]) - 3\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        "try: sink.write(ALL[2:])\n"
        "except SinkFailed as error: print(error)"
    )
    words = run([sys.executable, "-c", fill, path], stdout=PIPE, text=True, check=True, cwd=ROOT).stdout

    assert words == f"{path}: File too large: raise the limit, or give another file\n"
    assert path.read_bytes().splitlines() == lines_of(ALL[:2])
    written(file_output(path), ALL, resume=True)
    assert path.read_bytes().splitlines() == lines_of(ALL)


def test_a_failed_write_does_not_cut_off_what_another_owner_has_added(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused = open_sink(str(path), resume=False)
    paused.write(ALL[:1])
    written(file_output(path), ALL, resume=True)

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(SinkFailed):
        paused.write(ALL[1:2])

    assert path.read_bytes().splitlines() == lines_of(ALL)


def test_a_full_device_and_the_null_device() -> None:
    full = open_sink("/dev/full", resume=False)
    with pytest.raises(SinkFailed, match="/dev/full: No space left on device"):
        full.write([A])
    null = written(Output("/dev/null", list), ALL)
    assert null.progress() is None, "nothing could look that up"
    discard("/dev/null")
    assert Path("/dev/null").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "Is a directory: give a file in it"),
        ("missing/alerts.jsonl", "No such file or directory: make its directory, or give another file"),
    ],
)
def test_a_path_that_cannot_be_a_file_is_named_with_the_remedy(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(SinkFailed, match=f": {said}$"):
        open_sink(f"{tmp_path}/{name}", resume=False)


# --- standard output -----------------------------------------------------------------------------------------------


def test_standard_output_gets_every_record_and_remembers_none(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    for resume in (False, True):
        sink = open_sink("-", resume=resume)
        sink.write(ALL)
        sink.flush()
        assert sink.progress() is None
        sink.close()
    discard("-")

    assert capfdbinary.readouterr().out.splitlines() == lines_of(ALL * 2)


def test_a_reader_of_standard_output_that_left_is_a_failed_sink() -> None:
    program = (
        "import os, sys; from cluster.sinks import SinkFailed, open_sink\n"
        "sink = open_sink('-', resume=False)\n"
        "try: sink.write([((0, 0), b'{}')]); sink.flush()\n"
        "except SinkFailed as error: print(error, file=sys.stderr); os._exit(0)"
    )
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        process = run([sys.executable, "-c", program], stdout=gone, stderr=PIPE, text=True, cwd=ROOT)

    assert process.stderr == "standard output: Broken pipe: keep its reader running, or give a path\n"


# --- Redis streams -------------------------------------------------------------------------------------------------


def test_a_stream_that_its_readers_empty_still_says_how_far_it_is(redis_url: str) -> None:
    output = stream_output(redis_url, "alerts")
    written(output, ALL[:3])
    connect(redis_url).xtrim("alerts", maxlen=0, approximate=False)

    written(output, ALL, resume=True)

    assert output.lines() == lines_of(ALL[3:])


def test_a_stream_that_was_made_for_its_readers_is_empty(redis_url: str) -> None:
    connect(redis_url).xgroup_create("alerts", "siem", mkstream=True)

    written(stream_output(redis_url, "alerts"), ALL)

    assert stream_output(redis_url, "alerts").lines() == lines_of(ALL)


def test_a_stream_that_somebody_else_writes_is_refused_and_left_alone(redis_url: str) -> None:
    client, uri = connect(redis_url), f"{redis_url}?stream=orders"
    entry_id = client.xadd("orders", {"item": "1"}).decode()

    for use in (lambda: open_sink(uri, resume=True), lambda: discard(uri)):
        with pytest.raises(SinkFailed, match=f"stream orders: entry {entry_id} is no record of a run"):
            use()

    assert client.xlen("orders") == 1


def test_an_entry_of_somebody_elses_in_our_stream_is_noticed(redis_url: str) -> None:
    client, output = connect(redis_url), stream_output(redis_url, "alerts")
    sink = written(output, [A])
    client.xadd("alerts", {"record": record(0, 25, text="forged")[1]}, id=f"{25}-1")

    with pytest.raises(SinkFailed, match="stream alerts: entry 25-1 is another record than this run's"):
        sink.write([B1])


def test_a_key_that_is_no_stream_is_refused(redis_url: str) -> None:
    connect(redis_url).set("alerts", "x")

    with pytest.raises(SinkFailed, match="stream alerts: the key holds a string"):
        open_sink(f"{redis_url}?stream=alerts", resume=True)


def test_more_records_than_go_into_one_batch_arrive_in_order(redis_url: str) -> None:
    output = stream_output(redis_url, "matches")
    many = [record(0, offset // 3, text=str(offset)) for offset in range(1000)]

    written(output, many)

    assert output.lines() == lines_of(many)


def test_a_server_short_of_memory_takes_no_entry_out_of_turn() -> None:
    with start_redis(["--maxmemory", "5mb", "--maxmemory-policy", "noeviction"]) as url:
        output = stream_output(url, "alerts")
        sink = open_sink(output.uri, resume=False)
        large = [record(0, offset, text="x" * 5_000) for offset in range(5 * _STREAM_BATCH)]
        with pytest.raises(SinkFailed, match=r"maxmemory"):
            sink.write(large)

        lines = output.lines()
        assert 0 < len(lines) < len(large)
        assert len(lines) % _STREAM_BATCH == 0  # whole transactions
        assert lines == lines_of(large[: len(lines)])
        connect(url).config_set("maxmemory", "0")
        written(output, large, resume=True)
        assert output.lines() == lines_of(large)


def test_an_unreachable_server_is_named_without_the_password() -> None:
    with pytest.raises(SinkFailed, match=r"redis://:\*\*\*@127\.0\.0\.1:1/0: .*see that a Redis server runs there"):
        open_sink("redis://:s3cret@127.0.0.1:1/0?stream=alerts", resume=False)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("redis://host:6379/0", r"redis://host:6379/0: which stream\?"),
        ("redis://host:6379/0?stream=", "which stream"),
        ("redis://host:6379/0?stream=a&stream=b", "which stream"),
        ("redis://:s3cret@host:port?stream=a", r"redis://:\*\*\*@host:port: no such URL"),
        ("https://example.org/hook", "https://: no kind of output: give a path, - or redis://"),
    ],
)
def test_a_uri_that_says_nothing_is_refused(uri: str, words: str) -> None:
    for use in (lambda: open_sink(uri, resume=False), lambda: discard(uri)):
        with pytest.raises(SinkFailed, match=words):
            use()


@pytest.mark.parametrize("earlier", [None, Place((0, 5), 2), Place((0, 7), 1)])
@pytest.mark.parametrize("offsets", [[], [7], [7, 7], [7, 7, 9], [7, 9, 9], [8, 9]])
def test_records_that_are_added_at_once_count_as_one_by_one(earlier: Place | None, offsets: list[int]) -> None:
    records = [((0, offset), b"{}") for offset in offsets]
    one, all_at_once = Continuation(earlier), Continuation(earlier)
    for position, _ in records:
        one.add(position)
    all_at_once.add_all(records)

    assert all_at_once.place == one.place


def test_what_lies_before_the_end_is_not_added() -> None:
    with pytest.raises(InvariantBroken, match="is written after"):
        Continuation(Place((0, 5), 2)).add_all([((0, 4), b"{}")])
