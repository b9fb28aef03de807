"""A checkpoint that is damaged is passed over, loudly, and the run comes to the same results from an older one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.checkpoints import newest_whole
from cluster.config import Config
from cluster.core import snapshot
from cluster.core.errors import CorruptSnapshot, LaterFormat
from cluster.core.poison import poison_of
from cluster.display import Display
from cluster.run import CannotRun, Options, Summary, state_rows
from cluster.run import run as driver_run
from cluster.runtime.job import JobSpec, ProcessLost, Status
from cluster.runtime.local import LocalRuntime
from cluster.stores import Store, open_store
from cluster.stores import redis as redis_store
from cluster.stores.memory import MemoryStore
from rules.state import Row
from tests.capturing import encoded, of_later_format
from tests.commands import PACKS

OUTPUTS = ("matches.jsonl", "alerts.jsonl", "errors.jsonl")


@dataclass(frozen=True)
class Kept:
    """A store whose contents a test can spoil from outside, as a disk or an operator would."""

    url: str
    open: Callable[[], Store]
    write_blob: Callable[[str, bytes | None], None]
    """None takes the blob away."""
    write_newest_manifest: Callable[[bytes], None]

    def spoil(self, what: str) -> str:
        """Spoil the newest checkpoint of job j; returns what a person must be told."""
        newest, *older = map(snapshot.decode_manifest, self.open().manifests("j"))
        if what == "manifest":
            self.write_newest_manifest(self.open().manifests("j")[0][:-5])
            return "the manifest fails its checksum"
        name = next(name for name in newest["blobs"] if name not in older[0]["blobs"])
        if what == "missing":
            self.write_blob(name, None)
            return f"blob {name} is not in the store"
        data = bytearray(self.open().get_blob("j", name))
        data[-1] ^= 1
        self.write_blob(name, bytes(data))
        return f"blob {name}: it fails its checksum"


def in_memory() -> Kept:
    store = MemoryStore()

    def write_blob(name: str, data: bytes | None) -> None:
        if data is None:
            del store._blobs["j", name]
        else:
            store._blobs["j", name].data = data

    def write_manifest(data: bytes) -> None:
        manifests = store._jobs["j"].manifests
        manifests[max(manifests)] = data

    return Kept("", lambda: store, write_blob, write_manifest)


def in_directory(root: Path) -> Kept:
    home = root / "jobs" / "j" / "checkpoints"

    def write_blob(name: str, data: bytes | None) -> None:
        if data is None:
            (home / "blobs" / name).unlink()
        else:
            (home / "blobs" / name).write_bytes(data)

    def write_manifest(data: bytes) -> None:
        max((home / "manifests").iterdir()).write_bytes(data)

    return Kept(str(root), lambda: open_store(str(root)), write_blob, write_manifest)


def in_redis(url: str) -> Kept:
    client = redis_store.connect(url)

    def write_blob(name: str, data: bytes | None) -> None:
        if data is None:
            client.delete(f"countersign:{{j}}:blob:{name}")
        else:
            client.set(f"countersign:{{j}}:blob:{name}", data)

    def write_manifest(data: bytes) -> None:
        number, epoch, _ = client.lindex("countersign:{j}:manifests", 0).split(b" ", 2)
        client.lset("countersign:{j}:manifests", 0, b" ".join([number, epoch, data]))

    return Kept(url, lambda: open_store(url), write_blob, write_manifest)


@pytest.fixture(params=["directory", "redis"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    if request.param == "directory":
        return in_directory(tmp_path / "store")
    return in_redis(request.getfixturevalue("redis_url"))


@pytest.fixture(params=["memory", "directory", "redis"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    """A store with three checkpoints of a job: a base and up to two deltas."""
    if request.param == "memory":
        made = in_memory()
    elif request.param == "directory":
        made = in_directory(tmp_path / "store")
    else:
        made = in_redis(request.getfixturevalue("redis_url"))
    store = made.open()
    fence = store.acquire("j", fresh=False)
    blobs: list[str] = []
    for epoch in (3, 5, 8):
        blobs.append(f"blob-{epoch}")
        store.put_blob("j", blobs[-1], encoded([Row(f"key-{epoch}", epoch, None, None, 9_000)], []))
        manifest = {
            "format": snapshot.FORMAT, "key_groups": 256, "epoch": epoch, "blobs": blobs, "partitions": [epoch],
            "w_s": None, "lateness_s": 1.0, "timeouts": [["Slow", [0, epoch, 0], 15.0]],
        }  # fmt: skip
        store.commit(fence, epoch, snapshot.encode_manifest(manifest), blobs)
    return made


# --- which one is chosen -------------------------------------------------------------------------------------------


def chosen(kept: Kept, told: list[str], **options: Any) -> Any:
    manifest = newest_whole(kept.open(), "j", told.append, **options)
    return None if manifest is None else manifest["epoch"]


def test_the_newest_checkpoint_is_chosen_where_it_is_whole_and_nothing_is_said(filled: Kept) -> None:
    told: list[str] = []

    assert chosen(filled, told) == 8
    assert told == []
    assert newest_whole(filled.open(), "another", told.append) is None


@pytest.mark.parametrize("what", ["spoiled", "missing", "manifest"])
def test_a_damaged_checkpoint_is_told_of_and_the_one_before_it_is_chosen(filled: Kept, what: str) -> None:
    wrong = filled.spoil(what)
    told: list[str] = []

    assert chosen(filled, told) == 5
    assert len(told) == 1
    assert told[0].startswith("job j: checkpoint ")
    assert told[0].endswith(f"damaged: {wrong}: going back to an older one")


def test_damage_that_every_checkpoint_rests_on_is_an_error_that_says_what_to_do(filled: Kept) -> None:
    filled.write_blob("blob-3", None)
    told: list[str] = []

    with pytest.raises(CorruptSnapshot, match=r"none of its checkpoints can be read back .*blob-3.*--fresh"):
        chosen(filled, told)
    assert len(told) == 3


def test_manifests_alone_do_not_tell_that_a_blob_is_damaged(filled: Kept) -> None:
    filled.spoil("spoiled")

    assert chosen(filled, [], blobs=False) == 8


def test_what_became_input_since_an_older_checkpoint_stays_so(filled: Kept) -> None:
    filled.spoil("missing")
    manifest = newest_whole(filled.open(), "j", lambda _: None)

    assert manifest is not None
    assert manifest["epoch"] == 5
    assert manifest["partitions"] == [8]
    assert poison_of(manifest).timeouts == (("Slow", (0, 8, 0), 15.0),)


def test_no_checkpoint_from_before_a_key_was_removed_by_hand_will_do(filled: Kept) -> None:
    newest = snapshot.decode_manifest(filled.open().manifests("j")[0])
    filled.write_newest_manifest(snapshot.encode_manifest({**newest, "removed": [["key-3", 8]]}))
    assert chosen(filled, []) == 8
    filled.spoil("spoiled")

    with pytest.raises(CorruptSnapshot, match="epoch 5 is from before a key was removed by hand"):
        chosen(filled, [])


def test_state_shows_the_last_whole_checkpoint_and_says_so(filled: Kept) -> None:
    filled.spoil("spoiled")
    told: list[str] = []
    manifest, rows = state_rows(filled.open(), "j", told.append)

    assert manifest["epoch"] == 5
    assert [row.key for row in rows] == ["key-3", "key-5"]
    assert len(told) == 1


def test_what_a_later_version_wrote_is_not_taken_for_damage(filled: Kept) -> None:
    blob = filled.open().get_blob("j", "blob-8")
    filled.write_blob("blob-8", of_later_format(blob, 9))

    with pytest.raises(LaterFormat, match="format 9, this version reads up to 1: run the version that wrote it"):
        chosen(filled, [])


# --- runs ----------------------------------------------------------------------------------------------------------


class Crash(Exception):
    """The driver and all its processes are gone."""


def go(
    logs: Path, into: Path, kept: Kept, runtime: Callable[[JobSpec], LocalRuntime] = LocalRuntime, shards: int = 2
) -> Summary:
    outputs = {name.partition(".")[0]: str(into / name) for name in OUTPUTS}
    options = Options(
        [str(logs)], [PACKS], shards=shards, store=kept.url, job="j", outputs=outputs, epoch_events=60,
        checkpoint_interval_s=0.0,
    )  # fmt: skip
    return driver_run(options, Config(), runtime, Display({}, live=False, human_alerts=None))


def about_to_start(logs: Path, into: Path) -> JobSpec:
    """What a runtime is given; nothing is started."""
    seen: list[JobSpec] = []

    def starting(spec: JobSpec) -> LocalRuntime:
        seen.append(spec)
        raise Crash

    with pytest.raises(Crash):
        go(logs, into, in_directory(into / "store"), starting)
    return seen[0]


def after_checkpoints(number: int, then: Callable[[], None]) -> Callable[[JobSpec], LocalRuntime]:
    """A runtime that does something, once, when so many checkpoints are there."""
    done: list[bool] = []

    class Interrupted(LocalRuntime):
        def poll(self, timeout_s: float) -> Status:
            status = super().poll(0.001)
            if not done and status.totals.checkpoints >= number:
                done.append(True)
                then()
            return status

    return Interrupted


def raising(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def same(one: Path, other: Path) -> None:
    for output in OUTPUTS:
        assert (one / output).read_bytes() == (other / output).read_bytes(), f"{output} differs"


@pytest.mark.parametrize("what", ["spoiled", "missing", "manifest"])
def test_a_run_goes_on_from_an_older_checkpoint_when_the_newest_is_damaged(
    what: str, kept: Kept, logs: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Crash):
        go(logs, tmp_path, kept, after_checkpoints(5, raising(Crash())))
    wrong = kept.spoil(what)
    go(logs, tmp_path, kept, shards=3)

    assert f"damaged: {wrong}: going back to an older one" in capsys.readouterr().err
    same(whole, tmp_path)


@pytest.mark.parametrize("what", ["spoiled", "missing", "manifest"])
def test_a_run_that_loses_a_process_goes_back_behind_a_damaged_checkpoint(
    what: str, kept: Kept, logs: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = []

    def lose() -> None:
        wrong.append(kept.spoil(what))
        raise ProcessLost("a process was lost")

    summary = go(logs, tmp_path, kept, after_checkpoints(5, lose))

    assert summary.record["restarts"] >= 1
    assert f"damaged: {wrong[0]}: going back to an older one" in capsys.readouterr().err
    same(whole, tmp_path)


def test_a_run_whose_checkpoints_are_all_damaged_ends_with_4_and_what_to_do(
    kept: Kept, logs: Path, tmp_path: Path
) -> None:
    with pytest.raises(Crash):
        go(logs, tmp_path, kept, after_checkpoints(5, raising(Crash())))
    for data in kept.open().manifests("j"):
        kept.write_blob(snapshot.decode_manifest(data)["blobs"][0], b"")
    before = [(tmp_path / output).read_bytes() for output in OUTPUTS]

    with pytest.raises(CorruptSnapshot, match="restore the store from a copy, or start over with --fresh"):
        go(logs, tmp_path, kept)
    assert [(tmp_path / output).read_bytes() for output in OUTPUTS] == before


def test_a_store_that_lost_blobs_of_a_run_gets_new_bases_and_the_run_goes_on(
    kept: Kept, logs: Path, whole: Path, tmp_path: Path
) -> None:
    def lose() -> None:
        for name in snapshot.decode_manifest(kept.open().manifests("j")[0])["blobs"]:
            kept.write_blob(name, None)

    summary = go(logs, tmp_path, kept, after_checkpoints(5, lose))

    assert summary.record["restarts"] == 0
    assert chosen(kept, []) == summary.record["epochs"]
    same(whole, tmp_path)


def test_changed_rules_do_not_go_on_from_a_checkpoint_of_the_old_ones_that_results_lie_past(
    logs: Path, tmp_path: Path
) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    for path in (PACKS / "okta").iterdir():
        if path.suffix in (".py", ".yml"):
            (rules / path.name).write_bytes(path.read_bytes())
    outputs = {"matches": str(tmp_path / "matches.jsonl")}
    options = Options(
        [str(logs / "okta.jsonl")], [rules], store=str(tmp_path / "store"), job="j", outputs=outputs, epoch_events=40,
        checkpoint_interval_s=0.0,
    )  # fmt: skip
    driver_run(options, Config(), LocalRuntime, Display({}, live=False, human_alerts=None))
    (rules / "mfa_fatigue.py").write_text((rules / "mfa_fatigue.py").read_text() + "\n# changed\n")
    manifests = tmp_path / "store" / "jobs" / "j" / "checkpoints" / "manifests"
    _, *later = sorted(manifests.iterdir())
    for path in later:
        path.write_bytes(b"")

    with pytest.raises(CannotRun, match=r"its rules changed, and .*matches.jsonl holds results of the old ones") as refused:
        driver_run(options, Config(), LocalRuntime, Display({}, live=False, human_alerts=None))
    assert refused.value.exit_code == 2
