"""A store that is away, falls back in time or is full costs a run a longer replay and checkpoints, never a record."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from bench.redis_server import RedisServerMissing, find_redis_server, start_redis
from cluster.core.poison import unwatched
from cluster.run import CannotRun
from cluster.runtime.job import JobSpec, ProcessLost, Status
from cluster.runtime.local import LocalRuntime
from cluster.runtime.shells import ShardShell
from cluster.sources import SourceChanged
from cluster.stores import Fenced, Store, StoreUnreachable
from tests.test_checkpoints import (
    Crash,
    Kept,
    about_to_start,
    after_checkpoints,
    go,
    in_directory,
    in_redis,
    raising,
    same,
)

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class Server:
    """A redis-server that can be stopped and started again on its port, with what it has on its disk."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._directory = directory
        self._arguments = arguments
        self._port: int | None = None
        self.start()

    def start(self) -> None:
        self._running = start_redis(self._arguments, directory=self._directory, port=self._port)
        self.url = self._running.__enter__()
        self._port = int(self.url.rpartition(":")[2].removesuffix("/0"))

    def stop(self) -> None:
        self._running.__exit__(None, None, None)

    @property
    def kept(self) -> Kept:
        return in_redis(self.url)

    def client(self) -> Any:
        return redis.Redis.from_url(self.url)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    try:
        find_redis_server()
    except RedisServerMissing as error:
        pytest.skip(str(error))
    servers: list[Server] = []

    def start(*arguments: str) -> Server:
        home = tmp_path / f"redis-{len(servers)}"
        home.mkdir()
        servers.append(Server(home, *arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def acting(acts: dict[int, Callable[[], None]]) -> type[LocalRuntime]:
    """A runtime that does each of some things once, when so many checkpoints are there."""
    left = sorted(acts.items())

    class Acting(LocalRuntime):
        def poll(self, timeout_s: float) -> Status:
            status = super().poll(0.001)
            if left and status.totals.checkpoints >= left[0][0]:
                left.pop(0)[1]()
            return status

    return Acting


# --- a server that fell back in time -------------------------------------------------------------------------------


def test_a_server_that_loses_acknowledged_writes_of_a_run_costs_it_new_bases_and_nothing_else(
    serve: Callable[..., Server], logs: Path, whole: Path, tmp_path: Path
) -> None:
    server = serve()
    seen: list[int] = []

    def fall_back() -> None:
        seen.append(len(server.client().keys("*:blob:*")))
        server.stop()
        server.start()
        seen.append(len(server.client().keys("*:blob:*")))

    def save() -> None:
        server.client().save()

    summary = go(logs, tmp_path, server.kept, acting({3: save, 7: fall_back}))

    assert seen[0] > seen[1] > 0
    assert summary.record["restarts"] == 0
    same(whole, tmp_path)


def test_a_server_that_loses_the_run_itself_ends_it_and_the_same_command_replays_more(
    serve: Callable[..., Server], logs: Path, whole: Path, tmp_path: Path
) -> None:
    server = serve()
    with pytest.raises(Crash):
        go(logs, tmp_path, server.kept, after_checkpoints(4, raising(Crash())))
    server.client().save()

    def fall_back() -> None:
        server.stop()
        server.start()
        fell_back.append(True)

    fell_back: list[bool] = []
    with pytest.raises((Fenced, CannotRun), match="another process has taken it over, or destroyed it"):
        go(logs, tmp_path, server.kept, after_checkpoints(1, fall_back))
    assert fell_back
    go(logs, tmp_path, server.kept)

    same(whole, tmp_path)


# --- a store that is away ------------------------------------------------------------------------------------------


def test_a_run_goes_on_while_its_server_is_away_and_has_its_checkpoint_in_the_end(
    serve: Callable[..., Server], logs: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(*DURABLE)

    def go_away() -> None:
        server.stop()
        threading.Timer(3.0, server.start).start()

    began_s = time.monotonic()
    summary = go(logs, tmp_path, server.kept, after_checkpoints(4, go_away))

    assert time.monotonic() - began_s > 3.0
    assert summary.exit_code == 0
    assert summary.record["restarts"] == 0
    same(whole, tmp_path)
    again = go(logs, tmp_path, server.kept)
    assert again.record["events"] == 0


@pytest.mark.parametrize("runtime", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_run_that_loses_a_process_while_its_server_is_away_waits_for_it(
    runtime: str, serve: Callable[..., Server], logs: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found by bench/chaos.py, with Ray's own report of the loss on standard output: the store went away when the run had its
    token, and its processes had nothing yet."""
    server = serve(*DURABLE)
    base: Any = LocalRuntime
    if runtime == "ray":
        from cluster.runtime.ray import RayRuntime, start_ray

        start_ray(None)
        base = RayRuntime
    lives: list[str] = []
    lost: list[bool] = []

    class Unlucky(base):  # type: ignore[misc]
        def restart(self, spec: JobSpec) -> Any:
            lives.append(spec.fence.owner)
            if len(lives) > 1:
                return super().restart(spec)
            server.stop()
            try:
                return super().restart(spec)
            finally:
                threading.Timer(0.5, server.start).start()

        def poll(self, timeout_s: float) -> Status:
            status: Status = super().poll(0.001)
            if not lost and status.totals.checkpoints >= 2:
                lost.append(True)
                if runtime == "local":
                    raise ProcessLost("a process was lost")
                os.kill(self.pids()[0], signal.SIGKILL)
            return status

    summary = go(logs, tmp_path, server.kept, Unlucky)

    assert summary.exit_code == 0
    assert len(set(lives)) == len(lives) >= 2, "a life that found no store, and the next one"
    said = capsys.readouterr()
    assert (said.out, "waiting for the store" in said.err) == ("", True)
    same(whole, tmp_path)


def test_a_server_that_is_away_when_a_shard_is_to_join_costs_the_run_a_life(
    serve: Callable[..., Server], logs: Path, whole: Path, tmp_path: Path
) -> None:
    server = serve()
    joins = raising(StoreUnreachable("the server is away"))

    summary = go(logs, tmp_path, server.kept, after_checkpoints(2, joins))

    assert (summary.exit_code, summary.record["restarts"]) == (0, 1)
    same(whole, tmp_path)


# --- a store that is full ------------------------------------------------------------------------------------------


def redis_full(server: Server) -> tuple[Callable[[], None], Callable[[], None]]:
    return partial(server.client().config_set, "maxmemory", 1), partial(server.client().config_set, "maxmemory", 0)


def directory_taken_away(root: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    """Nothing can be written where blobs are; a disk cannot be filled for a test (tests/test_stores.py limits a file's size)."""
    blobs = root / "jobs" / "j" / "checkpoints" / "blobs"

    def take_away() -> None:
        blobs.rename(blobs.with_name("blobs-away"))
        blobs.write_text("")

    def give_back() -> None:
        blobs.unlink()
        blobs.with_name("blobs-away").rename(blobs)

    return take_away, give_back


@pytest.mark.parametrize("kind", ["redis", "directory"])
def test_a_run_goes_on_while_nothing_can_be_stored_and_has_its_checkpoint_in_the_end(
    kind: str, serve: Callable[..., Server], logs: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "redis":
        server = serve()
        kept = server.kept
        fill, make_room = redis_full(server)
    else:
        kept = in_directory(tmp_path / "store")
        fill, make_room = directory_taken_away(tmp_path / "store")

    def fill_for_a_while() -> None:
        fill()
        threading.Timer(2.5, make_room).start()  # the driver looks once a second

    summary = go(logs, tmp_path, kept, after_checkpoints(1, fill_for_a_while))

    assert summary.exit_code == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "no checkpoints for now: " in line]
    assert len(set(said)) == len(said) > 0
    assert summary.record["restarts"] == 0
    same(whole, tmp_path)
    assert go(logs, tmp_path, kept).record["events"] == 0


def test_a_full_server_has_no_half_of_a_checkpoint(serve: Callable[..., Server]) -> None:
    server = serve()
    store: Store = server.kept.open()
    fence = store.acquire("j", fresh=False)
    store.put_blob("j", "b", b"x")
    store.commit(fence, 1, b"one", ["b"])
    server.client().config_set("maxmemory", 1)

    with pytest.raises(StoreUnreachable, match="memory is full"):
        store.put_blob("j", "c", b"x")
    for epoch, manifest in ((2, b"two"), (3, b"three")):
        try:
            store.commit(fence, epoch, manifest, ["b"])
        except StoreUnreachable:
            manifest = b"one"
        assert store.manifests("j")[0] == manifest
    assert store.get_blob("j", "b") == b"x"


# --- another machine -----------------------------------------------------------------------------------------------


def test_a_shard_that_sees_another_store_or_other_inputs_does_not_start(logs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "logs"
    shutil.copytree(logs, copy)
    spec = about_to_start(copy, tmp_path)
    ShardShell(spec, 0, lambda job: job(lambda: None), unwatched())

    with pytest.raises(StoreUnreachable, match=r"sees another store .* use a directory that all machines share"):
        ShardShell(replace(spec, store_url=str(tmp_path / "elsewhere")), 0, lambda job: job(lambda: None), unwatched())
    with (copy / "okta.jsonl").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(SourceChanged, match=r"^on .*okta.jsonl: it grew"):
        ShardShell(spec, 0, lambda job: job(lambda: None), unwatched())
