"""What one can ask of a job while it runs, and after: status, stop, state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import asking, control
from cluster.asking import Refused, StateAsk, StopAsk, standing, status_text
from cluster.config import Config
from cluster.control import Control
from cluster.core.coordinator import Phase, Progress, Totals
from cluster.core.effects import TellState
from cluster.core.messages import Message, Moves, StateWanted
from cluster.display import Display
from cluster.run import Options
from cluster.run import run as driver_run
from cluster.runtime.job import Status
from cluster.runtime.local import LocalRuntime
from cluster.stores import StoreUnreachable
from cluster.stores.directory import DirectoryStore
from cluster.stores.memory import MemoryStore
from rules.state import Row
from tests.commands import COUNTERSIGN, Done, countersign
from tests.test_cli import YAML, event, lines

COUNT = """
from panther_detection_helpers.caching import increment_counter
def rule(event):
    return increment_counter(f"Count:{event.get('user')}", 1, event.event_time_epoch() + 3600) % 3 == 0
"""
ANY = [
    ("local", "directory"),
    ("local", "redis"),
    pytest.param("ray", "redis", marks=pytest.mark.ray),
]


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    directory = tmp_path / "rules"
    directory.mkdir()
    (directory / "denied.py").write_text(COUNT)
    (directory / "denied.yml").write_text(YAML)
    return directory


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    kind = getattr(request, "param", "directory")
    return str(tmp_path / "store") if kind == "directory" else str(request.getfixturevalue("redis_url"))


class Running:
    """A run whose input goes on until somebody ends it."""

    def __init__(self, process: subprocess.Popen[bytes], store: str) -> None:
        self.process = process
        self._store = store

    def feed(self, *events: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(lines(*events))
        self.process.stdin.flush()

    def ask(self, *arguments: object) -> Done:
        return countersign(*arguments, "--job", "march", "--store", self._store)

    def got(self, key: str) -> dict[str, Any]:
        done = self.ask("state", "get", key)
        assert done.code == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def status(self) -> dict[str, Any]:
        done = self.ask("status", "--json")
        assert done.code == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def until(self, reached: Callable[[dict[str, Any]], bool], timeout_s: float = 60.0) -> dict[str, Any]:
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            assert self.process.poll() is None
            if reached(now := self.status()):
                return now
        raise AssertionError(f"not reached: {now}")


@contextmanager
def running(
    rules: Path, store: str, runtime: str = "local", shards: int = 2, interval_s: float = 600
) -> Iterator[Running]:
    """`countersign run -` under the job's name; without checkpoints, unless one is asked for."""
    command = [
        *COUNTERSIGN, "run", "-", "--rules", rules, "--runtime", runtime, "--shards", shards, "--store", store,
        "--job", "march", "--alerts", rules.parent / "alerts.jsonl", "--checkpoint-interval", interval_s, "--quiet",
    ]  # fmt: skip
    process = subprocess.Popen(
        list(map(str, command)), cwd=rules.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    run = Running(process, store)
    run.feed(event(0))  # a run starts with the first line that it is sent
    try:
        while run.ask("status").code != 0:
            assert process.poll() is None
        yield run
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        with suppress(ValueError, BrokenPipeError):
            process.communicate(timeout=30)


# --- the commands ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("runtime", "store"), ANY, indirect=["store"])
def test_a_job_is_looked_at_while_it_runs_stopped_and_goes_on_without_a_key(
    runtime: str, store: str, rules: Path
) -> None:
    with running(rules, store, runtime) as run:
        run.feed(event(1), event(2, "bob"), event(3), event(4, zero=b"".hex()), b"no json")
        status = run.until(lambda now: now.get("events", 0) == 5 and now["phase"] == "running")
        assert status["running"]
        assert (status["matches"], status["alerts"], status["severities"]) == (1, 1, {"HIGH": 1})
        assert (status["dead_letters"], status["keys"], status["shards"], status["restarts"]) == (1, 2, 2, 0)
        assert (status["checkpoints"], status["input"]["bytes_left"], status["rules_off"]) == (0, 0, [])
        assert "job march: running, since 20" in run.ask("status").stdout

        got = run.ask("state", "get", "Count:eve")
        assert json.loads(got.stdout) == {"key": "Count:eve", "counter": 4, "expires_at": "2026-03-02T10:04:00Z"}
        assert "job march runs: as of its epoch" in got.stderr
        listed = run.ask("state", "ls", "--prefix", "Count:", "--limit", 1)
        assert json.loads(listed.stdout)["key"] == "Count:bob"
        assert "1 more" in listed.stderr
        assert run.ask("state", "get", "Count:nobody").code == 1
        refused = run.ask("state", "rm", "Count:eve")
        assert refused.code == 4
        assert "countersign stop --job march" in refused.stderr

        for shards in (4, 1):
            rescaled = run.ask("rescale", "--shards", shards)
            assert (rescaled.code, rescaled.stdout[: len("job march: 4 shard")]) == (0, f"job march: {shards} shard")
            status = run.until(lambda now: now.get("events", 0) == 5)  # a run that lost a process on a busy machine replays
            assert (status["shards"], status["rescaling_to"]) == (shards, None)
            assert run.got("Count:eve")["counter"] == 4

        stopped = run.ask("stop")
        assert (stopped.code, stopped.stdout) == (
            0, "job march: stopped after 5 events and a checkpoint: the same `run` goes on from there\n",
        )  # fmt: skip
        assert run.process.wait(timeout=30) == 130

    again = run.ask("stop")
    assert (again.code, "it does not run" in again.stderr) == (4, True)
    assert "does not run; interrupted" in run.ask("status").stdout
    assert run.got("Count:eve")["counter"] == 4
    removed = run.ask("state", "rm", "Count:eve")
    assert (removed.code, "no longer what its input alone says" in removed.stderr) == (0, True)
    assert [run.ask("state", verb, "Count:eve").code for verb in ("get", "rm")] == [1, 1]
    assert run.status()["checkpoint"]["removed"] == ["Count:eve"]

    with running(rules, store, runtime, shards=3) as run:
        run.feed(event(5))
        run.until(lambda now: now.get("events", 0) == 2)
        assert run.got("Count:eve")["counter"] == 2
        assert run.got("Count:bob")["counter"] == 1
        assert run.status()["checkpoint"]["removed"] == ["Count:eve"]
        assert run.ask("stop").code == 0
    assert run.got("Count:eve")["counter"] == 2
    assert run.status()["checkpoint"]["removed"] == ["Count:eve"]


@pytest.mark.parametrize("store", ["directory", "redis"], indirect=True)
def test_a_job_that_is_killed_while_it_is_asked_is_answered_for_by_its_checkpoint(store: str, rules: Path) -> None:
    with running(rules, store, interval_s=0.1) as run:
        run.feed(event(1))
        both = len(lines(event(0), event(1)))
        run.until(lambda now: now["checkpoint"] is not None and now["checkpoint"]["place"] == [0, both])
        run.process.send_signal(signal.SIGSTOP)
        command = [*COUNTERSIGN, "state", "get", "Count:eve", "--job", "march", "--store", store]
        asker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while "answer" not in " ".join(_ends(store)) and not any(name.startswith("ask-") for name in _ends(store)):
            time.sleep(0.02)
        run.process.kill()
        stdout, stderr = asker.communicate(timeout=20)

    assert (asker.returncode, json.loads(stdout)["counter"]) == (0, 2)
    assert "does not run: as of its last checkpoint" in stderr
    assert not any(name.startswith("ask-") for name in _ends(store))
    assert "ended without a word" in run.ask("status").stdout
    unclean = run.ask("state", "rm", "Count:eve")
    assert (unclean.code, "did not end with a checkpoint" in unclean.stderr) == (4, True)


def _ends(store: str) -> list[str]:
    from cluster.stores import open_store

    return open_store(store).list_notes("march", "")


def test_a_run_that_ends_by_itself_or_fails_leaves_word_of_it(rules: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(*map(event, range(3))))
    command = ["run", log, "--rules", "rules", "--runtime", "local", "--job", "march", "--store", tmp_path / "store"]
    outputs = ["--alerts", tmp_path / "alerts.jsonl"]
    assert countersign(*command, *outputs, cwd=tmp_path).code == 0
    finished = countersign("status", "--job", "march", "--store", tmp_path / "store")
    (tmp_path / "alerts.jsonl").unlink()
    assert countersign(*command, *outputs, cwd=tmp_path).code == 4
    failed = countersign("status", "--job", "march", "--store", tmp_path / "store")

    assert "does not run; finished" in finished.stdout
    assert "resumes     at the end of the input (epoch" in finished.stdout
    assert "does not run; failed" in failed.stdout
    assert "holds fewer records" in failed.stdout


@pytest.mark.parametrize("command", ["status", "stop", "rescale --shards 2", "state get k", "state rm k"])
def test_a_job_that_is_not_there_is_refused_and_nothing_is_made(command: str, tmp_path: Path) -> None:
    (tmp_path / "store" / "jobs").mkdir(parents=True)
    for store in ("store", "nowhere"):
        done = countersign(*command.split(), "--job", "march", "--store", store, cwd=tmp_path)
        assert (done.code, done.stdout) == (4, "")
        assert done.stderr.startswith("countersign: job march: ")
        assert done.stderr.endswith("jobs there: none\n")
    assert [path.name for path in tmp_path.rglob("*")] == ["store", "jobs"]


@pytest.mark.parametrize(
    ("given", "code"), [([], 2), (["--job", "../x"], 2), (["--job", "x", "--store", "redis://127.0.0.1:1/0"], 4)]
)
def test_what_nobody_can_ask_is_said_without_a_traceback(given: list[str], code: int) -> None:
    done = countersign("status", *given)

    assert (done.code, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr


def test_status_starts_without_ray_arrow_and_redis(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.release(store.acquire("march", fresh=False))
    store.put_note("march", "status", b"{}")
    program = (
        "import sys; from cluster.cli import app\n"
        "app(['status', '--job', 'march', '--json', '--store', sys.argv[1]], standalone_mode=False)\n"
        "print(sorted({'ray', 'pyarrow', 'redis', 'rich.live', 'cluster.run'} & set(sys.modules)))"
    )
    note = {"run": "r", "written_at_s": 0.0}
    store.put_note("march", "status", json.dumps(note).encode())
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


# --- the driver's half -----------------------------------------------------------------------------------------------


class Engine:
    """Takes messages, and keeps them."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, message: Message) -> None:
        self.sent.append(message)


class Driver:
    """What Control wants to know of one."""

    def __init__(self) -> None:
        self.spec: Any = SimpleNamespace(partitions=(), shards=1, progress=Progress())
        self.restarts = 0
        self.severities: dict[str, int] = {}
        self.stopped = False
        self.rescale_pending = False

    def growing_bytes(self) -> int | None:
        return None

    def stop(self) -> None:
        self.stopped = True

    def rescale(self, shards: int) -> None:
        self.rescale_pending = True
        self.spec.shards = shards


def status(*told: TellState, **other: Any) -> Status:
    return Status(Phase.RUNNING, Totals(), float("-inf"), None, (0, 0), 0, told=list(told), **other)


@pytest.fixture
def held() -> MemoryStore:
    store = MemoryStore()
    store.acquire("march", fresh=False)
    return store


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_POLL_S", 0.01)
    monkeypatch.setattr(control, "_STATUS_S", 0.02)


def until(reached: Callable[[], Any]) -> None:
    until_s = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < until_s
        time.sleep(0.005)


def run_of(store: MemoryStore) -> str:
    note = standing(store, "march", print).note
    assert note is not None
    return str(note["run"])


def test_what_an_earlier_run_was_asked_is_removed_and_never_obeyed(held: MemoryStore) -> None:
    import msgspec

    driver, engine = Driver(), Engine()
    held.put_note("march", "ask-before", msgspec.json.encode(StopAsk("earlier")))
    held.put_note("march", "answer-before", b"{}")
    with Control(held, "march") as talk:
        assert held.list_notes("march", "a") == []
        held.put_note("march", "ask-late", msgspec.json.encode(StopAsk("earlier")))
        held.put_note("march", "ask-strange", b"what?")
        until(lambda: held.list_notes("march", "a") == [])
        talk.turn(driver, engine, status())

    assert not driver.stopped


def test_a_question_that_was_lost_with_its_processes_is_put_to_the_next_ones(held: MemoryStore) -> None:
    import msgspec

    first, second, driver = Engine(), Engine(), Driver()
    with Control(held, "march") as talk:
        held.put_note("march", "ask-1", msgspec.json.encode(StateAsk(run_of(held), "k")))

        def sent() -> bool:
            talk.turn(driver, first, status())
            return bool(first.sent)

        until(sent)
        talk.restarting()
        until(lambda: standing(held, "march", print).record()["phase"] == "restarting")
        talk.turn(driver, second, status())
        assert second.sent == first.sent == [StateWanted(0, "k")]
        talk.turn(driver, second, status(TellState(0, 7, (0, 1), [Row("k", 1, None, None, 9)], 0)))
        until(lambda: held.get_note("march", "answer-1"))

    answer = msgspec.json.decode(held.get_note("march", "answer-1") or b"", type=asking.KeysAnswer)
    assert (answer.epoch, answer.rows) == (7, [Row("k", 1, None, None, 9)])


def test_a_rescale_is_answered_when_it_is_over_and_not_before(held: MemoryStore) -> None:
    driver = Driver()
    seen: list[Any] = []
    with Control(held, "march") as talk, ThreadPoolExecutor() as pool:
        asked = pool.submit(asking.rescale, held, "march", 4, seen.append)

        def heard() -> bool:
            talk.turn(driver, Engine(), status(shards=2))
            return driver.rescale_pending

        until(heard)
        talk.turn(driver, Engine(), status(shards=4))  # it had four before it was asked, and goes somewhere else
        driver.rescale_pending = False
        talk.turn(driver, Engine(), status(shards=4, rescaling=True, moves=[Moves(1, 10, 0.25, 0.1)]))
        until(lambda: seen)
        assert not asked.done()
        talk.turn(driver, Engine(), status(shards=4, moves=[Moves(0, 0, 0.0, 0.9), Moves(2, 5, 0.125, 0.0)]))
        answer = asked.result(timeout=10)

    assert (answer.keys, answer.moving_s, answer.replaced_by) == (15, 0.25, None)


def test_a_rescale_that_another_takes_the_place_of_is_refused_and_the_other_answered(held: MemoryStore) -> None:
    driver = Driver()
    with Control(held, "march") as talk, ThreadPoolExecutor() as pool:

        def goes_to(shards: int) -> bool:
            talk.turn(driver, Engine(), status(shards=2, rescaling=True))
            return bool(driver.spec.shards == shards)

        first = pool.submit(asking.rescale, held, "march", 4, lambda note: None)
        until(lambda: goes_to(4))
        second = pool.submit(asking.rescale, held, "march", 3, lambda note: None)
        until(lambda: goes_to(3))
        with pytest.raises(Refused, match="somebody asked for 3 shards before it had gone to 4"):
            first.result(timeout=10)
        driver.rescale_pending = False
        talk.turn(driver, Engine(), status(shards=3))
        assert second.result(timeout=10).replaced_by is None


def test_all_who_ask_for_the_same_rescale_are_answered(held: MemoryStore) -> None:
    driver = Driver()
    with Control(held, "march") as talk, ThreadPoolExecutor() as pool:
        asked = [pool.submit(asking.rescale, held, "march", 4, lambda note: None) for _ in range(3)]
        until(lambda: len(held.list_notes("march", "ask-")) == 3)

        def heard() -> bool:
            talk.turn(driver, Engine(), status(shards=2))
            return talk._rescale is not None and len(talk._rescale.who) == 3

        until(heard)
        driver.rescale_pending = False
        talk.turn(driver, Engine(), status(shards=4))
        assert [each.result(timeout=10).replaced_by for each in asked] == [None] * 3


def test_a_rescale_that_is_over_when_the_run_ends_is_answered_before_the_end_is_told(held: MemoryStore) -> None:
    told: list[str] = []

    class Telling(MemoryStore):
        def put_note(self, job: str, name: str, data: bytes) -> None:
            told.append("ended" if b'"ended"' in data else name.partition("-")[0])
            super().put_note(job, name, data)

    held.__class__ = Telling
    driver = Driver()
    with ThreadPoolExecutor() as pool:
        with Control(held, "march") as talk:
            asked = pool.submit(asking.rescale, held, "march", 4, lambda note: None)

            def heard() -> bool:
                talk.turn(driver, Engine(), status(shards=2))
                return driver.rescale_pending

            until(heard)
            driver.rescale_pending = False
            talk.end(driver, status(shards=4, moves=[Moves(1, 7, 0.5, 0.0)]))
        assert asked.result(timeout=10).keys == 7

    assert told.index("answer") < told.index("ended")


def test_a_rescale_that_the_end_of_the_run_overtakes_is_refused(held: MemoryStore) -> None:
    with Control(held, "march") as talk, ThreadPoolExecutor() as pool:
        asked = pool.submit(asking.rescale, held, "march", 4, lambda note: None)
        until(lambda: held.list_notes("march", "ask-"))
        talk.end(Driver(), status())
        with pytest.raises(Refused, match="the run ended before it went to 4 shards: give --shards to the next"):
            asked.result(timeout=10)


def test_a_driver_that_does_not_answer_is_not_waited_for_for_ever(
    held: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_ANSWER_S", 0.2)
    monkeypatch.setattr(asking, "_GONE_S", -1.0)
    with Control(held, "march") as talk:  # whose loop does not turn
        for ask in (
            lambda: asking.keys(held, "march", "k", "", 1),
            lambda: asking.stop(held, "march"),
        ):
            with pytest.raises(Refused, match="it runs, and has not answered for 0 s: see to its driver is process"):
                ask()
        with pytest.raises(Refused, match="it was asked, and is silent for"):
            asking.rescale(held, "march", 4, lambda note: None)
        assert held.list_notes("march", "a") == []
        talk.turn(Driver(), Engine(), status())
        with pytest.raises(Refused, match="10000 keys at most"):
            asking.keys(held, "march", None, "", 10_001)


def test_a_driver_that_was_told_to_stop_and_falls_silent_is_not_waited_for_for_ever(
    held: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    driver = Driver()
    with Control(held, "march") as talk:
        over = threading.Event()

        def loop() -> None:
            while not over.is_set():
                talk.turn(driver, Engine(), status())

        thread = threading.Thread(target=loop)
        thread.start()
        monkeypatch.setattr(asking, "_GONE_S", -1.0)
        with pytest.raises(Refused, match="asked to stop, and silent for"):
            asking.stop(held, "march")
        over.set()
        thread.join()

    assert driver.stopped


def test_a_run_whose_lease_ran_out_while_it_was_busy_is_still_asked(held: MemoryStore) -> None:
    """Found on Ray with Redis: a lease lasts 5 s, and what starts takes longer."""
    engine, driver = Engine(), Driver()
    with Control(held, "march") as talk:
        held.release(held._jobs["march"].fence)
        assert standing(held, "march", print).runs
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(asking.keys, held, "march", "k", "", 1)

            def sent() -> bool:
                talk.turn(driver, engine, status())
                return bool(engine.sent)

            until(sent)
            talk.turn(driver, engine, status(TellState(0, 7, (0, 1), [], 0)))
            answer = asked.result(timeout=10)

        assert (answer and answer.epoch) == 7
        talk.end(driver, status())
    assert not standing(held, "march", print).runs


def test_a_driver_that_has_stopped_writing_is_said_to_be_silent(held: MemoryStore) -> None:
    with Control(held, "march") as talk:
        talk.turn(Driver(), Engine(), status())
        until(lambda: "events" in standing(held, "march", print).record())
        now = standing(held, "march", print)
    assert now.note is not None
    now.note["written_at_s"] -= 100
    assert "silent for 100 s: paused, or cut off from the store" in status_text(now)
    now.note["written_at_s"] += 100
    now.note["silent_s"] = 50
    assert "its engine has not answered for 50 s" in status_text(now)


@pytest.mark.parametrize("slow", [False, True], ids=["down", "slow"])
def test_a_store_that_takes_no_notes_holds_nothing_up(
    slow: bool, rules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(self: DirectoryStore, job: str, name: str) -> list[str]:
        asked.append(job)
        if slow and len(asked) > 2:  # not before the run begins
            time.sleep(20)
        raise StoreUnreachable("the store is down")

    monkeypatch.setattr(DirectoryStore, "list_notes", refuse)
    monkeypatch.setattr(control, "_LAST_WORDS_S", 0.1)
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(*(event(minute % 60) for minute in range(3000))))
    outputs = {"alerts": str(tmp_path / "alerts.jsonl")}
    options = Options(
        [str(log)], [rules], store=str(tmp_path / "store"), job="march", outputs=outputs, epoch_events=100
    )
    display = Display(outputs, live=False, human_alerts=None, quiet=True)
    began_s = time.monotonic()
    summary = driver_run(options, Config(), LocalRuntime, display)

    assert (summary.exit_code, summary.record["events"]) == (0, 3000)
    assert asked
    assert time.monotonic() - began_s < 15


def test_a_run_without_a_name_leaves_no_notes(rules: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(lines(event(0)))
    countersign("run", log, "--rules", rules, "--runtime", "local", "--store", tmp_path / "store", cwd=tmp_path)

    assert not (tmp_path / "store").exists()
    assert os.listdir(tmp_path) == ["rules", "log.jsonl"] or set(os.listdir(tmp_path)) == {"rules", "log.jsonl"}
