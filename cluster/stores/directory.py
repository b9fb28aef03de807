"""The store in a directory, and the default: files that are written once, under names that say their order.

    <root>/jobs/<job>/checkpoints/
        lease                       locked (flock) by the process that runs the job, and freed with it by the kernel
        tokens/<number>             written once; holds `owner floor`. The highest is the fence of the job
        manifests/<number>-<epoch>  the highest is the job's newest; those with a number below the floor do not count
        blobs/<name>                modified (mtime) when it was last known to be needed
        notes/<name>                replaced at will

A file gets its name only when its bytes are on the disk (those of a note may still be on their way), so what has a name
is whole. The floor is what makes a fresh start one atomic step: an earlier owner that is still writing writes below it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.stores import Fence, Fenced, Store, StoreUnreachable, blob_missing, check_name, fenced, retained


@dataclass(frozen=True, slots=True)
class _Token:
    number: int
    owner: str
    floor: int
    """The number of the last fresh start."""


class DirectoryStore(Store):
    """Jobs in a directory. The lease is this object's process's: a child made by fork() shares it."""

    lease_wait_s = 1.0
    """A killed owner's lock is free as soon as the kernel has taken the process apart."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = Path(root)
        self._leases: dict[Fence, int] = {}

    def _try_acquire(self, job: str, owner: str, fresh: bool) -> Fence | None:
        home = self._home(job)
        with self._reaching():
            for part in ("blobs", "manifests", "notes", "tokens"):
                (home / part).mkdir(parents=True, exist_ok=True)
            for directory in (home, *home.parents[:3]):
                sync_directory(directory)
            lease = _locked(home / "lease")
            if lease is None:
                return None
            try:
                fence = _take_token(home, Fence(job, 0, owner), fresh)
            except BaseException:
                os.close(lease)
                raise
        self._leases[fence] = lease
        _held.add(lease)
        return fence

    def renew(self, fence: Fence) -> None:
        with self._reaching():
            self._own(fence)

    def release(self, fence: Fence) -> None:
        lease = self._leases.pop(fence, None)
        if lease is not None:
            _held.discard(lease)
            os.close(lease)

    def held(self, job: str) -> bool:
        with self._reaching(), suppress(FileNotFoundError):
            descriptor = os.open(self._home(job) / "lease", os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # for a moment: acquire() tries more than once
            except BlockingIOError:
                return True
            finally:
                os.close(descriptor)
        return False

    def put_blob(self, job: str, name: str, data: bytes) -> None:
        with self._reaching(), suppress(FileExistsError):
            _write(self._home(job) / "blobs" / check_name(name), data, os.link)

    def get_blob(self, job: str, name: str) -> bytes:
        with self._reaching():
            try:
                return (self._home(job) / "blobs" / check_name(name)).read_bytes()
            except FileNotFoundError:
                raise blob_missing(job, name) from None

    def commit(self, fence: Fence, epoch: int, manifest: bytes, blobs: Sequence[str]) -> None:
        home = self._home(fence.job)
        path = home / "manifests" / _manifest_name((fence.number, epoch))
        with self._reaching():
            self._own(fence)
            for name in blobs:
                if not (home / "blobs" / check_name(name)).exists():
                    raise blob_missing(fence.job, name)
            if any(later > path.name for later in _names(path.parent)):
                raise fenced(fence.job)
            _write(path, manifest, os.replace)
            try:
                self._own(fence)  # who was paused here and lost the job wrote below the new owner's manifests
            except Fenced:
                path.unlink(missing_ok=True)
                raise
            places = _places(path.parent)
            for old in set(places).difference(retained(places)):
                (path.parent / _manifest_name(old)).unlink(missing_ok=True)

    def manifests(self, job: str) -> list[bytes]:
        directory = self._home(job) / "manifests"
        found: list[bytes] = []
        with self._reaching():
            token = _current_token(self._home(job))
            places = [] if token is None else [at for at in _places(directory) if at[0] >= token.floor]
            for place in retained(places):
                with suppress(FileNotFoundError):  # forgotten since it was listed
                    found.append((directory / _manifest_name(place)).read_bytes())
        return found

    def free_blobs(self, fence: Fence, keep: Collection[str]) -> None:
        home = self._home(fence.job)
        with self._reaching():
            self._own(fence)
            os.utime(home / "lease")
            now_s = (home / "lease").stat().st_mtime  # the file system's clock, which need not be this machine's
            for name in keep:
                with suppress(FileNotFoundError):
                    os.utime(home / "blobs" / name)
            for file in (*home.glob("blobs/[!.]*"), *home.glob("*/.*")):
                with suppress(FileNotFoundError):  # an unfinished file that has got its name
                    if file.name not in keep and now_s - file.stat().st_mtime >= self.grace_s:
                        file.unlink()

    def put_note(self, job: str, name: str, data: bytes) -> None:
        path = self._note(job, name)
        unfinished = path.with_name(f".{name}-{secrets.token_hex(4)}")
        with self._reaching(), suppress(FileNotFoundError):  # there is no such job, or none any more
            try:
                unfinished.write_bytes(data)
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)

    def get_note(self, job: str, name: str) -> bytes | None:
        with self._reaching(), suppress(FileNotFoundError):
            return self._note(job, name).read_bytes()
        return None

    def list_notes(self, job: str, prefix: str) -> list[str]:
        with self._reaching(), suppress(FileNotFoundError):
            return [name for name in _names(self._home(job) / "notes") if name.startswith(prefix)]
        return []

    def delete_note(self, job: str, name: str) -> None:
        with self._reaching():
            self._note(job, name).unlink(missing_ok=True)

    def destroy(self, job: str) -> None:
        home = self._home(job)
        doomed = home.with_name(f".destroyed-{secrets.token_hex(4)}")
        with self._reaching(), suppress(FileNotFoundError):
            home.rename(doomed)  # at once, so that an owner finds all of its job or nothing
            shutil.rmtree(doomed)
        with suppress(OSError):  # what others keep beside the checkpoints stays
            home.parent.rmdir()

    def jobs(self) -> list[str]:
        with self._reaching():
            return sorted({path.parts[-4] for path in self._root.glob("jobs/*/checkpoints/tokens/[0-9]*")})

    def _home(self, job: str) -> Path:
        return self._root / "jobs" / check_name(job) / "checkpoints"

    def _note(self, job: str, name: str) -> Path:
        return self._home(job) / "notes" / check_name(name)

    def _own(self, fence: Fence) -> None:
        token = _current_token(self._home(fence.job))
        if token is None or (token.number, token.owner) != (fence.number, fence.owner):
            raise fenced(fence.job)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            place = error.filename or self._root
            raise StoreUnreachable(
                f"{place}: {error.strerror}: see that --store {self._root} is a directory, can be written and has room"
            ) from error


_held: set[int] = set()
"""The leases of this process, by their descriptors."""


def _let_go() -> None:
    """A forked child holds what its parent does, and would go on holding it."""
    for lease in _held:
        os.close(lease)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock of the file at `path`; None while somebody else's does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)  # held, or the job was destroyed between the two lines
    return None


def _take_token(home: Path, fence: Fence, fresh: bool) -> Fence:
    """Create the next token for fence.owner. Where locks do not hold (some network file systems) this still does."""
    while True:
        current = _current_token(home)
        number = 1 if current is None else current.number + 1
        floor = number if fresh or current is None else current.floor
        with suppress(FileExistsError):
            _write(home / "tokens" / f"{number:010d}", f"{fence.owner} {floor}".encode(), os.link)
            break
    for old in _names(home / "tokens"):
        if int(old) < number:
            (home / "tokens" / old).unlink(missing_ok=True)
    for old in _names(home / "manifests"):
        if int(old.partition("-")[0]) < floor:
            (home / "manifests" / old).unlink(missing_ok=True)
    return Fence(fence.job, number, fence.owner)


def _current_token(home: Path) -> _Token | None:
    """The highest token; None where there is no job."""
    while True:
        try:
            names = _names(home / "tokens")
        except FileNotFoundError:
            return None
        if not names:
            return None
        with suppress(FileNotFoundError):  # a taker has put a higher one in its place
            owner, floor = (home / "tokens" / names[-1]).read_text().split()
            return _Token(int(names[-1]), owner, int(floor))


def _manifest_name(place: tuple[int, int]) -> str:
    return f"{place[0]:010d}-{place[1]:012d}"


def _places(manifests: Path) -> list[tuple[int, int]]:
    """(fence number, epoch) of the manifests in a directory."""
    parts = [name.split("-") for name in _names(manifests)]
    return [(int(number), int(epoch)) for number, epoch in parts]


def _names(directory: Path) -> list[str]:
    """The finished files in a directory, in order."""
    return sorted(name for name in os.listdir(directory) if not name.startswith("."))


def _write(path: Path, data: bytes, publish: Callable[[Path, Path], None]) -> None:
    """Write a file durably and never less than all of it. `publish` is os.replace, or os.link for a new file only."""
    unfinished = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with unfinished.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        publish(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
