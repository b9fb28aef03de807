"""One contract for every store; then what only one kind of store can get wrong."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from bench.redis_server import start_redis
from cluster.stores import BadName, BlobMissing, Fence, Fenced, LeaseHeld, Store, StoreUnreachable, open_store
from cluster.stores import redis as redis_store
from cluster.stores.directory import DirectoryStore
from cluster.stores.memory import MemoryStore

OpenStore = Callable[[], Store]
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(params=["memory", "directory", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens the same store as often as a test likes, as every process of a run does."""
    if request.param == "memory":
        store = MemoryStore()
        return lambda: store
    if request.param == "directory":
        return lambda: open_store(str(tmp_path / "store"))
    url: str = request.getfixturevalue("redis_url")
    return lambda: open_store(url)


@pytest.fixture
def store(opened: OpenStore) -> Store:
    return opened()


def commit(store: Store, fence: Fence, epoch: int, blobs: list[str] | None = None) -> bytes:
    """Commit a manifest that says who wrote it and when."""
    manifest = f"{fence.number}:{epoch}".encode()
    store.commit(fence, epoch, manifest, blobs or [])
    return manifest


def taken_over(store: Store, fence: Fence) -> Fence:
    """What a new owner gets once the lease has run out on the old one, which knows nothing of it."""
    store.release(fence)
    return store.acquire(fence.job, fresh=False)


# --- owners --------------------------------------------------------------------------------------------------------


def test_each_owner_of_a_job_gets_a_higher_token(store: Store) -> None:
    fences = []
    for _ in range(3):
        fences.append(store.acquire("march", fresh=False))
        store.release(fences[-1])

    assert [fence.number for fence in fences] == [1, 2, 3]
    assert len({fence.owner for fence in fences}) == 3
    assert store.acquire("april", fresh=False).number == 1


def test_a_job_that_is_held_is_not_taken_over(opened: OpenStore) -> None:
    held = opened().acquire("march", fresh=False)
    other = opened()
    other.lease_wait_s = 0.2

    with pytest.raises(LeaseHeld, match="job march: another process is running it"):
        other.acquire("march", fresh=True)

    opened().renew(held)


def test_a_released_job_can_be_acquired_by_who_waits_for_it(opened: OpenStore) -> None:
    first, second = opened(), opened()
    second.lease_wait_s = 5.0
    fence = first.acquire("march", fresh=False)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(second.acquire, "march", fresh=False)
        time.sleep(0.2)
        assert not waiting.done()
        first.release(fence)

        assert waiting.result(timeout=5).number == 2


def test_racing_owners_never_share_a_token_and_never_hold_the_job_together(opened: OpenStore) -> None:
    holders: list[Fence] = []

    def take_turns(_: int) -> list[int]:
        store = opened()
        store.lease_wait_s = 30.0
        numbers = []
        for _ in range(3):
            fence = store.acquire("march", fresh=False)
            holders.append(fence)
            assert holders == [fence]
            commit(store, fence, 0)
            holders.remove(fence)
            store.release(fence)
            numbers.append(fence.number)
        return numbers

    with ThreadPoolExecutor(6) as pool:
        numbers = sorted(number for turns in pool.map(take_turns, range(6)) for number in turns)

    assert numbers == list(range(1, 19))
    assert opened().manifests("march") == [b"18:0"]


def test_a_paused_owner_that_commits_after_a_takeover_is_fenced(opened: OpenStore) -> None:
    store, old_store = opened(), opened()
    old = old_store.acquire("march", fresh=False)
    commit(old_store, old, 5)
    old_store.release(old)
    new = store.acquire("march", fresh=False)

    for write in (
        lambda: commit(old_store, old, 6),
        lambda: old_store.renew(old),
        lambda: old_store.free_blobs(old, []),
    ):
        with pytest.raises(Fenced, match="job march: another process has taken it over"):
            write()
    assert store.manifests("march") == [b"1:5"]

    old_store.release(old)
    with pytest.raises(LeaseHeld):
        _impatient(opened()).acquire("march", fresh=False)
    store.renew(new)


def _impatient(store: Store) -> Store:
    store.lease_wait_s = 0.0
    return store


def test_an_owner_whose_token_is_right_but_whose_name_is_not_is_fenced(store: Store) -> None:
    fence = store.acquire("march", fresh=False)

    with pytest.raises(Fenced):
        commit(store, Fence("march", fence.number, "somebody-else"), 1)


def test_a_new_owner_restarts_from_an_earlier_epoch_and_its_manifest_is_the_newest(store: Store) -> None:
    old = store.acquire("march", fresh=False)
    commit(store, old, 7)
    new = taken_over(store, old)

    newest = commit(store, new, 3)

    assert store.manifests("march") == [newest]


# --- checkpoints ---------------------------------------------------------------------------------------------------


def test_the_newest_three_manifests_are_kept_newest_first(opened: OpenStore) -> None:
    store = opened()
    fence = store.acquire("march", fresh=False)
    assert store.manifests("march") == []

    for epoch in (1, 2, 9, 10, 11):
        commit(store, fence, epoch)

    assert opened().manifests("march") == [b"1:11", b"1:10", b"1:9"]


def test_three_checkpoints_are_kept_however_often_the_job_is_taken_over(opened: OpenStore) -> None:
    store = opened()
    fence = store.acquire("march", fresh=False)
    for epoch in (1, 2, 9, 10):
        commit(store, fence, epoch)
    for _ in range(5):
        fence = taken_over(store, fence)
        commit(store, fence, 10)  # where the job stands, under the new owner's token

    assert opened().manifests("march") == [b"6:10", b"1:9", b"1:2"]


def test_checkpoints_that_an_owner_went_back_behind_are_forgotten_and_the_older_ones_stay(opened: OpenStore) -> None:
    store = opened()
    fence = store.acquire("march", fresh=False)
    for epoch in (5, 6, 7):
        commit(store, fence, epoch)
    fence = taken_over(store, fence)

    commit(store, fence, 6)
    assert opened().manifests("march") == [b"2:6", b"1:5"]
    commit(store, fence, 8)
    assert opened().manifests("march") == [b"2:8", b"2:6", b"1:5"]


def test_a_blob_comes_back_as_it_was_stored(opened: OpenStore) -> None:
    opened().acquire("march", fresh=False)
    for name, data in (("all-bytes", bytes(range(256))), ("empty", b""), ("large", os.urandom(3_000_000))):
        opened().put_blob("march", name, data)

        assert opened().get_blob("march", name) == data


def test_a_blob_that_was_never_stored_is_missing(store: Store) -> None:
    store.acquire("march", fresh=False)

    with pytest.raises(BlobMissing, match="job march: blob no-such is not in the store"):
        store.get_blob("march", "no-such")


def test_a_blobs_name_keeps_the_bytes_it_got_first(store: Store) -> None:
    store.acquire("march", fresh=False)
    store.put_blob("march", "b", b"first")
    store.put_blob("march", "b", b"second")

    assert store.get_blob("march", "b") == b"first"


def test_writers_of_one_blob_at_once_leave_one_of_their_blobs_whole(opened: OpenStore) -> None:
    opened().acquire("march", fresh=False)
    contents = [bytes([number]) * 200_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: opened().put_blob("march", "b", data), contents))

    assert opened().get_blob("march", "b") in contents


def test_a_commit_that_names_a_missing_blob_changes_nothing(store: Store) -> None:
    fence = store.acquire("march", fresh=False)
    store.put_blob("march", "here", b"x")
    commit(store, fence, 1, ["here"])

    with pytest.raises(BlobMissing, match="blob gone"):
        commit(store, fence, 2, ["here", "gone"])

    assert store.manifests("march") == [b"1:1"]


def test_a_crash_between_blob_and_commit_leaves_the_older_checkpoint(opened: OpenStore) -> None:
    store = opened()
    fence = store.acquire("march", fresh=False)
    store.put_blob("march", "one", b"1")
    commit(store, fence, 1, ["one"])
    store.put_blob("march", "two", b"2")
    store.release(fence)

    resumed = opened()
    new = resumed.acquire("march", fresh=False)

    assert resumed.manifests("march") == [b"1:1"]
    assert resumed.get_blob("march", "one") == b"1"
    assert commit(resumed, new, 1, ["one", "two"]) == resumed.manifests("march")[0]


def test_a_commit_can_be_repeated_because_its_answer_may_get_lost(store: Store) -> None:
    fence = store.acquire("march", fresh=False)
    commit(store, fence, 1)
    commit(store, fence, 2)
    commit(store, fence, 2)

    assert store.manifests("march") == [b"1:2", b"1:1"]


def test_a_commit_that_arrives_after_a_later_one_of_its_run_is_refused(store: Store) -> None:
    fence = store.acquire("march", fresh=False)
    commit(store, fence, 2)

    with pytest.raises(Fenced):
        commit(store, fence, 1)

    assert store.manifests("march") == [b"1:2"]


def test_a_fresh_start_forgets_the_checkpoints_but_not_the_token(store: Store) -> None:
    old = store.acquire("march", fresh=False)
    commit(store, old, 7)
    store.release(old)

    fence = store.acquire("march", fresh=True)

    assert fence.number == 2
    assert store.manifests("march") == []
    store.release(fence)
    resumed = store.acquire("march", fresh=False)
    assert store.manifests("march") == []
    assert commit(store, resumed, 0) == store.manifests("march")[0]


# --- what is no longer needed --------------------------------------------------------------------------------------


def test_blobs_are_freed_only_after_nobody_has_needed_them_for_the_grace_period(store: Store) -> None:
    fence = store.acquire("march", fresh=False)
    for epoch in range(1, 5):
        store.put_blob("march", f"blob-{epoch}", b"x")
        commit(store, fence, epoch, [f"blob-{epoch}"])
    kept = ["blob-2", "blob-3", "blob-4"]
    store.put_blob("march", "of-the-next-checkpoint", b"x")

    store.free_blobs(fence, [*kept, "blob-1"])
    store.free_blobs(fence, kept)
    assert store.get_blob("march", "blob-1") == b"x"

    commit(store, fence, 5, ["blob-1", "of-the-next-checkpoint"])
    store.grace_s = 0.0
    store.free_blobs(fence, ["blob-3", "blob-4", "blob-1", "of-the-next-checkpoint"])

    with pytest.raises(BlobMissing):
        store.get_blob("march", "blob-2")
    for name in ("blob-1", "blob-3", "blob-4", "of-the-next-checkpoint"):
        assert store.get_blob("march", name) == b"x"


def test_freeing_blobs_of_one_job_leaves_another_jobs_alone(store: Store) -> None:
    march, april = store.acquire("march", fresh=False), store.acquire("april", fresh=False)
    for fence in (march, april):
        store.put_blob(fence.job, "b", b"x")
        commit(store, fence, 1, ["b"])
    store.grace_s = 0.0

    store.free_blobs(march, [])

    assert store.get_blob("april", "b") == b"x"


def test_destroying_a_job_that_is_held_fences_its_owner_for_good(opened: OpenStore) -> None:
    owners, store = opened(), opened()
    old = owners.acquire("march", fresh=False)
    owners.put_blob("march", "b", b"x")
    commit(owners, old, 1, ["b"])

    store.destroy("march")

    assert store.jobs() == []
    assert store.manifests("march") == []
    with pytest.raises(BlobMissing):
        store.get_blob("march", "b")
    for fenced_off in (lambda: owners.renew(old), lambda: commit(owners, old, 2)):
        with pytest.raises(Fenced):
            fenced_off()
    new = store.acquire("march", fresh=False)
    with pytest.raises(Fenced):
        commit(owners, old, 3)
    owners.release(old)
    store.renew(new)
    assert store.manifests("march") == []


def test_a_store_lists_its_jobs_and_knows_nothing_of_others(store: Store) -> None:
    assert store.jobs() == []
    assert store.manifests("never-seen") == []
    store.destroy("never-seen")
    for job in ("march", "april"):
        store.acquire(job, fresh=False)

    assert store.jobs() == ["april", "march"]


def test_whoever_looks_sees_whether_a_job_is_held(opened: OpenStore) -> None:
    owners, store = opened(), opened()
    assert not store.held("never-seen")
    fence = owners.acquire("march", fresh=False)

    assert store.held("march")
    assert store.held("march")
    owners.release(fence)
    assert not store.held("march")
    assert store.jobs() == ["march"]


# --- notes ---------------------------------------------------------------------------------------------------------


def test_anybody_leaves_reads_replaces_and_removes_notes_of_a_job(opened: OpenStore) -> None:
    store = opened()
    store.acquire("march", fresh=False)
    store.acquire("april", fresh=False)
    assert store.get_note("march", "status") is None
    for data in (bytes(range(256)), b"short", b"", b"x" * 100_000):
        opened().put_note("march", "status", data)
        assert opened().get_note("march", "status") == data
    for name in ("ask-2", "ask-1", "answer-1"):
        opened().put_note("march", name, b"")

    assert store.list_notes("march", "ask-") == ["ask-1", "ask-2"]
    assert store.list_notes("march", "") == ["answer-1", "ask-1", "ask-2", "status"]
    assert store.list_notes("april", "") == []
    opened().delete_note("march", "ask-1")
    opened().delete_note("march", "never-seen")
    assert store.list_notes("march", "ask-") == ["ask-2"]


def test_a_note_is_never_seen_in_part(opened: OpenStore) -> None:
    opened().acquire("march", fresh=False)
    contents = [bytes([number]) * 300_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        left = [pool.submit(opened().put_note, "march", "status", data) for data in contents * 4]
        while not all(note.done() for note in left):
            assert opened().get_note("march", "status") in [None, *contents]

    assert opened().list_notes("march", "") == ["status"]


def test_notes_outlive_their_owner_and_a_fresh_start_and_go_with_the_job(opened: OpenStore) -> None:
    store = opened()
    store.release(store.acquire("march", fresh=False))
    store.put_note("march", "status", b"x")
    store.release(store.acquire("march", fresh=True))
    assert store.get_note("march", "status") == b"x"

    store.destroy("march")

    assert store.get_note("march", "status") is None
    assert store.list_notes("march", "") == []
    store.acquire("march", fresh=False)
    assert store.list_notes("march", "") == []


def test_notes_of_a_job_that_is_not_there_leave_nothing_behind(store: Store) -> None:
    store.put_note("never-seen", "status", b"x")
    store.delete_note("never-seen", "status")

    assert store.get_note("never-seen", "status") is None
    assert store.list_notes("never-seen", "") == []
    assert store.jobs() == []


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../march", "a/b", "/etc", ".hidden", "-rf", "march\n", "a b", "märz", "a*", "{a}", "a" * 101],
)
def test_names_that_could_leave_their_place_are_refused(store: Store, name: str) -> None:
    store.acquire("march", fresh=False)
    for use in (
        lambda: store.acquire(name, fresh=False),
        lambda: store.manifests(name),
        lambda: store.destroy(name),
        lambda: store.put_blob(name, "b", b""),
        lambda: store.put_blob("march", name, b""),
        lambda: store.get_blob("march", name),
        lambda: store.held(name),
        lambda: store.put_note(name, "n", b""),
        lambda: store.put_note("march", name, b""),
        lambda: store.get_note("march", name),
        lambda: store.list_notes(name, ""),
        lambda: store.delete_note("march", name),
    ):
        with pytest.raises(BadName, match=re.escape(repr(name))):
            use()
    assert store.jobs() == ["march"]


# --- a directory ---------------------------------------------------------------------------------------------------


def test_looking_at_a_job_that_is_not_there_creates_no_directory(directory: DirectoryStore, tmp_path: Path) -> None:
    assert not directory.held("march")
    directory.put_note("march", "status", b"x")
    assert directory.list_notes("march", "") == []
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def directory(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


def python(program: str, *arguments: object) -> subprocess.Popen[str]:
    """A process of its own, which prints when it is where the test wants it."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def test_kill_9_frees_the_lease_of_a_directory_at_once(directory: DirectoryStore, tmp_path: Path) -> None:
    hold = (
        "import sys, time; from cluster.stores import open_store\n"
        "open_store(sys.argv[1]).acquire('march', fresh=False); print('held', flush=True); time.sleep(60)"
    )
    with python(hold, tmp_path) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(LeaseHeld):
            _impatient(DirectoryStore(tmp_path)).acquire("march", fresh=False)

        owner.send_signal(signal.SIGKILL)
        started_s = time.monotonic()
        fence = directory.acquire("march", fresh=False)

    assert time.monotonic() - started_s < 1.0
    assert fence.number == 2


def test_an_owner_that_loses_the_job_while_it_writes_a_manifest_leaves_none(
    directory: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = directory.acquire("march", fresh=False)
    commit(directory, old, 1)
    fsync = os.fsync

    def lose_the_job(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        taken_over(directory, old)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", lose_the_job)
    with pytest.raises(Fenced):
        commit(directory, old, 2)

    assert directory.manifests("march") == [b"1:1"]


def test_what_an_earlier_owner_writes_during_a_fresh_start_does_not_count(
    directory: DirectoryStore, tmp_path: Path
) -> None:
    directory.release(directory.acquire("march", fresh=False))
    fence = directory.acquire("march", fresh=True)
    late = tmp_path / "jobs" / "march" / "checkpoints" / "manifests" / f"{1:010d}-{9:012d}"
    late.write_bytes(b"1:9")

    assert directory.manifests("march") == []
    directory.release(fence)
    directory.acquire("march", fresh=False)
    assert directory.manifests("march") == []


def test_an_unfinished_file_has_no_name_and_is_swept_away(directory: DirectoryStore, tmp_path: Path) -> None:
    fence = directory.acquire("march", fresh=False)
    home = tmp_path / "jobs" / "march" / "checkpoints"
    unfinished = [home / part / ".0000000009-aaaa" for part in ("blobs", "manifests", "tokens")]
    for path in unfinished:
        path.write_bytes(b"hal")

    commit(directory, fence, 1)
    assert directory.manifests("march") == [b"1:1"]
    directory.free_blobs(fence, [])
    assert all(path.exists() for path in unfinished)
    directory.grace_s = 0.0
    directory.free_blobs(fence, [])
    assert not any(path.exists() for path in unfinished)


def test_destroying_a_job_leaves_what_others_keep_beside_its_checkpoints(
    directory: DirectoryStore, tmp_path: Path
) -> None:
    directory.acquire("march", fresh=False)
    letters = tmp_path / "jobs" / "march" / "dead-letters.jsonl"
    letters.write_text("{}\n")

    directory.destroy("march")

    assert [path.name for path in letters.parent.iterdir()] == ["dead-letters.jsonl"]
    assert directory.jobs() == []


def test_a_place_that_cannot_be_a_directory_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = open_store(str(tmp_path / "file"))

    with pytest.raises(StoreUnreachable, match=r"file.*: Not a directory: see that --store .*/file is a directory"):
        store.acquire("march", fresh=False)


def test_a_full_disk_takes_no_half_blob(tmp_path: Path) -> None:
    fill = (
        "import resource, sys; from cluster.stores import StoreUnreachable, open_store\n"
        "store = open_store(sys.argv[1]); store.acquire('march', fresh=False)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try: store.put_blob('march', 'b', bytes(100_000))\n"
        "except StoreUnreachable as error: print(error)"
    )
    with python(fill, tmp_path) as writer:
        words = writer.communicate()[0]

    assert "File too large: see that --store" in words
    assert list((tmp_path / "jobs" / "march" / "checkpoints" / "blobs").iterdir()) == []


def test_a_directory_store_does_not_import_redis() -> None:
    look = "import sys; from cluster.stores import open_store; open_store('here'); print('redis' in sys.modules)"
    with python(look) as process:
        assert process.communicate()[0] == "False\n"


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(StoreUnreachable, match="s3://: no kind of store: give a directory"):
        open_store("s3://bucket/jobs")


# --- Redis ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(redis_url: str) -> redis_store.Client:
    return redis_store.connect(redis_url)


def test_the_lease_of_a_dead_owner_runs_out(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "LEASE_MS", 300)
    dead = open_store(redis_url).acquire("march", fresh=False)
    store = open_store(redis_url)
    started_s = time.monotonic()

    fence = store.acquire("march", fresh=False)

    assert 0.1 < time.monotonic() - started_s < 2.0
    assert fence.number == dead.number + 1
    assert store.lease_wait_s > redis_store.LEASE_MS / 1000


def test_a_renewed_lease_does_not_run_out(redis_url: str, client: redis_store.Client) -> None:
    store = open_store(redis_url)
    fence = store.acquire("march", fresh=False)
    client.pexpire("countersign:{march}:lease", 100)

    store.renew(fence)

    assert client.pttl("countersign:{march}:lease") > 4_000


def test_a_lost_answer_does_not_make_an_owner_wait_for_itself(redis_url: str) -> None:
    store = redis_store.RedisStore(redis_url)
    first = store._try_acquire("march", "me", fresh=False)

    assert first is not None
    assert store._try_acquire("march", "me", fresh=False) == first


def test_a_blob_lives_for_the_grace_period_until_a_manifest_names_it(
    redis_url: str, client: redis_store.Client
) -> None:
    store = open_store(redis_url)
    fence = store.acquire("march", fresh=False)
    store.put_blob("march", "b", b"x")
    key = "countersign:{march}:blob:b"
    assert 590 < client.ttl(key) <= 600

    commit(store, fence, 1, ["b"])
    assert client.ttl(key) == -1

    store.put_blob("march", "b", b"x")
    assert client.ttl(key) == -1

    store.free_blobs(fence, [])
    assert 590 < client.ttl(key) <= 600
    assert client.exists("countersign:{march}:named") == 0


def test_a_destroyed_job_leaves_no_keys(redis_url: str, client: redis_store.Client) -> None:
    store = open_store(redis_url)
    fence = store.acquire("march", fresh=False)
    store.put_blob("march", "b", b"x")
    commit(store, fence, 1, ["b"])

    store.destroy("march")

    assert client.keys() == []


def test_the_database_in_the_url_is_the_one_that_is_used(redis_url: str) -> None:
    open_store(redis_url.replace("/0", "/3")).acquire("march", fresh=False)

    assert open_store(redis_url).jobs() == []
    assert open_store(redis_url.replace("/0", "/3")).jobs() == ["march"]


def test_a_restart_loses_the_lease_but_neither_checkpoints_nor_safety(tmp_path: Path) -> None:
    durable = ["--appendonly", "yes", "--appendfsync", "always"]
    with start_redis(durable, directory=tmp_path) as url:
        store = open_store(url)
        fence = store.acquire("march", fresh=False)
        store.put_blob("march", "b", b"x")
        commit(store, fence, 1, ["b"])
        redis_store.connect(url).delete("countersign:{march}:lease")
        port = int(url.rpartition(":")[2].removesuffix("/0"))
    with start_redis(durable, directory=tmp_path, port=port):
        store.renew(fence)
        assert commit(store, fence, 2, ["b"]) == store.manifests("march")[0]

        new = taken_over(store, fence)
        with pytest.raises(Fenced):
            commit(store, fence, 3)
        commit(store, new, 3, ["b"])


def test_a_server_that_fell_back_in_time_does_not_take_one_owner_for_another(tmp_path: Path) -> None:
    with start_redis(directory=tmp_path) as url:
        store = open_store(url)
        first = store.acquire("march", fresh=False)
        store.release(first)
        redis_store.connect(url).save()
        second = store.acquire("march", fresh=False)
        commit(store, second, 1)
        port = int(url.rpartition(":")[2].removesuffix("/0"))
    with start_redis(directory=tmp_path, port=port):
        third = store.acquire("march", fresh=False)

        assert third.number == second.number
        for stale in (first, second):
            with pytest.raises(Fenced):
                commit(store, stale, 2)
        commit(store, third, 1)


def test_a_blob_that_the_server_lost_is_missed_when_a_manifest_names_it(
    redis_url: str, client: redis_store.Client
) -> None:
    store = open_store(redis_url)
    fence = store.acquire("march", fresh=False)
    store.put_blob("march", "base", b"x")
    commit(store, fence, 1, ["base"])
    client.delete("countersign:{march}:blob:base")

    with pytest.raises(BlobMissing, match="blob base is not in the store"):
        commit(store, fence, 2, ["base"])

    assert store.manifests("march") == [b"1:1"]


def test_an_unreachable_server_is_named_with_the_remedy_and_without_the_password() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{unused.getsockname()[1]}/2"
        with pytest.raises(StoreUnreachable) as caught:
            open_store(f"redis://ops:s3cr:t@{place}").acquire("march", fresh=False)

    words = str(caught.value)
    assert words.startswith(f"redis://ops:***@{place}: ")
    assert "Connection refused" in words
    assert "see that a Redis server runs there" in words
    assert "s3cr" not in words


def test_a_silent_server_is_given_up_within_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = 2
    assert redis_store._TIMEOUT_S * attempts <= 10
    monkeypatch.setattr(redis_store, "_TIMEOUT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started_s = time.monotonic()
        with pytest.raises(StoreUnreachable, match="see that a Redis server runs there"):
            open_store(f"redis://127.0.0.1:{silent.getsockname()[1]}").jobs()

    assert time.monotonic() - started_s < 0.2 * attempts + 1.0


def test_users_and_passwords_are_the_servers_to_judge() -> None:
    with start_redis(["--requirepass", "right"]) as url:
        with_user = url.replace("redis://", "redis://{}:{}@")
        store = open_store(with_user.format("default", "right"))
        store.acquire("march", fresh=False)
        admin = redis_store.connect(with_user.format("default", "right"))
        admin.acl_setuser("ops", enabled=True, passwords=["+s3cret"], keys=["countersign:*"], categories=["+@all"])
        admin.acl_setuser("reader", enabled=True, passwords=["+s3cret"], keys=["other:*"], categories=["+@all"])

        assert open_store(with_user.format("ops", "s3cret")).jobs() == ["march"]
        for refused, words in (
            (with_user.format("ops", "wrong"), "invalid username-password pair"),
            (url, "authenticate"),
            (with_user.format("reader", "s3cret"), "no permissions to access"),
        ):
            with pytest.raises(StoreUnreachable, match=words) as caught:
                open_store(refused).jobs()
            assert "wrong" not in str(caught.value)
            assert "s3cret" not in str(caught.value)


def test_a_replica_is_refused_in_the_servers_words(redis_url: str) -> None:
    port = redis_url.rpartition(":")[2].removesuffix("/0")
    words = r"read only replica.*: give the URL of the primary"
    with start_redis(["--replicaof", "127.0.0.1", port]) as url, pytest.raises(StoreUnreachable, match=words):
        open_store(url).acquire("march", fresh=False)


def test_tls_is_asked_for_by_the_scheme() -> None:
    pool = redis_store.connect("rediss://ops:s3cret@example.org:6380/1").connection_pool

    assert pool.connection_class is redis.SSLConnection


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://:pw@host", "redis://:***@host"),
        ("redis://user:p@ss/w:rd@host/1", "redis://user:***@host/1"),
        ("redis://host/0?password=pw&db=1", "redis://host/0?password=***&db=1"),
    ],
)
def test_passwords_are_never_shown(url: str, safe: str) -> None:
    assert redis_store.shown(url) == safe


def test_a_url_that_says_nothing_is_refused_without_its_password() -> None:
    with pytest.raises(StoreUnreachable, match=r"redis://:\*\*\*@host:port: no such URL") as caught:
        open_store("redis://:s3cret@host:port")

    assert "s3cret" not in str(caught.value)
