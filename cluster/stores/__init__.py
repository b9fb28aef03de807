"""The store contract: where a job's snapshots and manifests are kept, and who may write them. What open_store() opens.

    blob       immutable bytes under a name: one shard's snapshot, written before anything names it
    manifest   the small record that makes blobs and source offsets a checkpoint; the newest one is where a job stands
    fence      (number, owner): the fencing token of one run of a job. Only the latest can commit
    lease      says that the latest owner is alive, so that nobody takes the job over by mistake
    note       small bytes under a name, by which whoever runs a job and those who ask about it talk (cluster/control.py).
               Anybody may write one: nothing that must be right depends on them

Safety comes from the fence alone. A lease may be lost at any time (a paused process, a restarted server) and two owners
may run at once; then one of them commits, and the other is Fenced.

    StoreUnreachable   the store cannot be used now: somebody mends it, or the URL. What was asked may have happened
    LeaseHeld          another process runs the job: wait for it, or stop it
    Fenced             another process has taken the job over, or destroyed it: this one must end
    BlobMissing        the store does not hold what it was given: go on from an older checkpoint, or start over
    BadName            no name for a job, a blob or a note (a ValueError)

Each kind of store is one module. That of Redis is imported when a redis:// URL is opened, and no earlier.
"""

from __future__ import annotations

import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

KEPT_CHECKPOINTS = 3
"""The newest and two to go back to. Their blobs are kept as well."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_POLL_S = 0.05


class StoreError(Exception):
    """What a store can raise, BadName apart. The text is for a person: what, where, what to do."""


class StoreUnreachable(StoreError):
    """The store cannot be used now. Whether a write that ends so has happened is not known; it can be repeated."""


class LeaseHeld(StoreError):
    """Another process runs the job."""


class Fenced(StoreError):
    """The job has a later owner, or none any more: what this one writes no longer counts."""


class BlobMissing(StoreError):
    """A blob is not in the store."""


class BadName(ValueError):
    """A name that could not be a file name and a part of a Redis key everywhere."""


@dataclass(frozen=True, slots=True)
class Fence:
    """One run's right to commit: compared for equality, so that a store which fell back in time mistakes nobody."""

    job: str
    number: int
    """The fencing token: higher than that of every earlier run of the job."""
    owner: str
    """Random."""


class Store(ABC):
    """Keeps jobs. Safe to use from several threads; every process opens its own.

    Names of jobs, blobs and notes: letters, digits, dots, dashes, underscores, 100 at most, a letter or digit first.
    """

    lease_wait_s: float
    """How long acquire() waits for a lease to run out before it takes its owner to be alive."""

    grace_s: float = 600.0
    """How long a blob lives that no retained manifest names: it may belong to a checkpoint that is being made, or a
    reader may have an old manifest in hand. Ten minutes of checkpoints are garbage that a store can hold."""

    def acquire(self, job: str, *, fresh: bool) -> Fence:
        """Take the job over: returns the next fencing token, with the lease. `fresh` forgets the job's checkpoints.

        Raises LeaseHeld, BadName, StoreUnreachable.
        """
        check_name(job)
        owner = secrets.token_hex(8)
        deadline_s = time.monotonic() + self.lease_wait_s
        while (fence := self._try_acquire(job, owner, fresh)) is None:
            if time.monotonic() >= deadline_s:
                raise LeaseHeld(
                    f"job {job}: another process is running it: wait for it, stop it, or give another --job"
                )
            time.sleep(_POLL_S)
        return fence

    @abstractmethod
    def _try_acquire(self, job: str, owner: str, fresh: bool) -> Fence | None:
        """One attempt of acquire(): None while another process holds the lease."""

    @abstractmethod
    def renew(self, fence: Fence) -> None:
        """Keep the lease: call it every second. Raises Fenced, StoreUnreachable."""

    @abstractmethod
    def release(self, fence: Fence) -> None:
        """Give the lease up, if it is still this owner's. Raises StoreUnreachable."""

    @abstractmethod
    def held(self, job: str) -> bool:
        """Whether an owner holds the job's lease now. A killed owner's may last a while. Raises BadName, StoreUnreachable."""

    @abstractmethod
    def put_blob(self, job: str, name: str, data: bytes) -> None:
        """Store a blob durably. A name that is taken keeps its bytes. Raises BadName, StoreUnreachable.

        No fence is asked for: until a manifest names it, a blob means nothing.
        """

    @abstractmethod
    def get_blob(self, job: str, name: str) -> bytes:
        """A blob's bytes. Raises BlobMissing, BadName, StoreUnreachable."""

    @abstractmethod
    def commit(self, fence: Fence, epoch: int, manifest: bytes, blobs: Sequence[str]) -> None:
        """Make `manifest` the job's newest in one step, and forget those that retained() leaves out. Safe to repeat.

        Manifests are ordered by (fence number, epoch), and none replaces a later one. `blobs` are those it names.
        Raises Fenced, BlobMissing (both before anything has changed), StoreUnreachable.
        """

    @abstractmethod
    def manifests(self, job: str) -> list[bytes]:
        """The retained manifests, newest first; empty for a job that has none. Raises BadName, StoreUnreachable."""

    @abstractmethod
    def free_blobs(self, fence: Fence, keep: Collection[str]) -> None:
        """Delete the blobs that have not been among `keep` for `grace_s`. `keep`: all that retained manifests name.

        Raises Fenced, StoreUnreachable.
        """

    @abstractmethod
    def put_note(self, job: str, name: str, data: bytes) -> None:
        """Leave a note, in place of one of that name, in one step. Raises BadName, StoreUnreachable.

        No fence is asked for, and a note may be lost in a power cut. One for a job that the store does not know is dropped.
        """

    @abstractmethod
    def get_note(self, job: str, name: str) -> bytes | None:
        """A note's bytes; None where there is none. Raises BadName, StoreUnreachable."""

    @abstractmethod
    def list_notes(self, job: str, prefix: str) -> list[str]:
        """The names of a job's notes that begin with `prefix`, sorted. Cheap. Raises BadName, StoreUnreachable."""

    @abstractmethod
    def delete_note(self, job: str, name: str) -> None:
        """Remove a note, if it is there. Raises BadName, StoreUnreachable."""

    @abstractmethod
    def destroy(self, job: str) -> None:
        """Forget a job and its notes, also while it is held: its owner is Fenced then. Raises BadName, StoreUnreachable."""

    @abstractmethod
    def jobs(self) -> list[str]:
        """The names of the jobs in the store, sorted. Raises StoreUnreachable."""


def open_store(url: str) -> Store:
    """The store at a redis:// or rediss:// URL, else in the directory of that name. Nothing is created or reached yet.

    Raises StoreUnreachable for a URL of another kind.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        from cluster.stores.directory import DirectoryStore

        return DirectoryStore(url)
    if scheme in ("redis", "rediss"):
        from cluster.stores.redis import RedisStore

        return RedisStore(url)
    raise StoreUnreachable(f"{scheme}://: no kind of store: give a directory, redis://host:port/db or rediss://")


def retained(places: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Which manifests stay, of those at these (fence number, epoch): KEPT_CHECKPOINTS of different epochs, newest first.

    An owner that takes a job over writes its checkpoint once more, so copies must not count. Where one went back to an
    earlier checkpoint, what its predecessor wrote after that is of no use: a later one could not be read, or it is a copy.
    """
    kept: list[tuple[int, int]] = []
    for place in sorted(places, reverse=True):
        if not kept or place[1] < kept[-1][1]:
            kept.append(place)
    return kept[:KEPT_CHECKPOINTS]


def check_name(name: str) -> str:
    """The name of a job, blob or note, which is returned. Raises BadName."""
    if _NAME.fullmatch(name) is None:
        raise BadName(f"{name!r}: no name for a job: use letters, digits, dots, dashes and underscores, 100 at most")
    return name


def fenced(job: str) -> Fenced:
    return Fenced(f"job {job}: another process has taken it over, or destroyed it, or its store began empty: this run ends here")


def blob_missing(job: str, name: str) -> BlobMissing:
    return BlobMissing(f"job {job}: blob {name} is not in the store: restore it, or start over with --fresh")
