"""The store in Redis 6.2 or later, and how we speak to Redis at all: connect() and reaching() serve the sink too.

    countersign:{<job>}:fence       "<number> <owner>" of the latest run
    countersign:{<job>}:lease       its owner, while it lives: expires after LEASE_MS
    countersign:{<job>}:manifests   list, newest first
    countersign:{<job>}:named       set: the names of blobs that a manifest has named
    countersign:{<job>}:blob:<name> the bytes; expires after the grace period, unless a manifest names it
    countersign:{<job>}:notes       hash: name -> bytes
    countersign:jobs                set: the names of the jobs

The client repeats a command whose answer it did not get, so every command here can be repeated. A server that restarts
or fails over may have lost its latest writes: then the fence differs, or a blob is missing, and commit() refuses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cluster.stores import (
    KEPT_CHECKPOINTS,
    Fence,
    Store,
    StoreUnreachable,
    blob_missing,
    check_name,
    fenced,
)

LEASE_MS = 5_000
"""Five renewals may be late before another run takes the job over."""

_TIMEOUT_S = 5.0
"""To connect, and for each answer. With one repetition, an unreachable server is told of after ten seconds."""

Client = Any
"""A redis.Redis. What its methods return is typed as a union with its asynchronous twin's, which helps nobody."""


def connect(url: str) -> Client:
    """A client for a redis:// or rediss:// URL (user, password, database and the client's own options included).

    Nothing is sent yet. Raises ValueError for a URL that says nothing useful.
    """
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=_TIMEOUT_S,
        socket_timeout=_TIMEOUT_S,
        retry=Retry(NoBackoff(), retries=1),
    )


@contextmanager
def reaching(url: str, failure: Callable[[str], Exception]) -> Iterator[None]:
    """Turn what goes wrong with the server at `url` into failure(text), for a person and without the password."""
    try:
        yield
    except redis.exceptions.AuthenticationError as error:
        raise failure(f"{shown(url)}: {error}: correct the user and password in the URL") from error
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
        words = str(error).replace("\n", " ")
        raise failure(f"{shown(url)}: {words}: see that a Redis server runs there and can be reached") from error
    except redis.exceptions.ReadOnlyError as error:
        raise failure(f"{shown(url)}: {error}: give the URL of the primary, not of a replica") from error
    except redis.exceptions.RedisError as error:
        if "maxmemory" in str(error):
            raise failure(f"{shown(url)}: the server's memory is full: raise its maxmemory, or make room") from error
        raise failure(f"{shown(url)}: {error}: see to the server, or give another URL") from error


def shown(url: str) -> str:
    """The URL with its passwords hidden."""
    return re.sub(r"(?<=[?&]password=)[^&]*", "***", re.sub(r"//([^:@/]*):.*@", r"//\1:***@", url))


class RedisStore(Store):
    """Jobs in one database of a Redis server."""

    lease_wait_s = LEASE_MS / 1000 + 1

    def __init__(self, url: str) -> None:
        self._url = url
        try:
            self._redis = connect(url)
        except ValueError:  # whose text may hold a part of the password
            raise StoreUnreachable(f"{shown(url)}: no such URL: give redis://user:password@host:port/db") from None
        script = files("cluster.stores").joinpath("commit_manifest.lua").read_text()
        self._commit_manifest = self._redis.register_script(script)

    def _try_acquire(self, job: str, owner: str, fresh: bool) -> Fence | None:
        fence_key, lease_key = _key(job, "fence"), _key(job, "lease")

        def take(pipe: Client) -> Fence | None:
            holder, known = pipe.get(lease_key), pipe.get(fence_key)
            number, last_owner = _fence_parts(known)
            if last_owner == owner:  # we have it, and the answer was lost
                return Fence(job, number, owner)
            if holder is not None:
                return None
            fence = Fence(job, number + 1, owner)
            pipe.multi()
            pipe.set(fence_key, _fence_text(fence))
            pipe.set(lease_key, owner, px=LEASE_MS)
            if fresh:
                pipe.delete(_key(job, "manifests"))
            return fence

        with self._reaching():
            self._redis.sadd(_JOBS, job)
            taken: Fence | None = self._redis.transaction(take, lease_key, fence_key, value_from_callable=True)
        return taken

    def renew(self, fence: Fence) -> None:
        def prolong(pipe: Client) -> None:
            pipe.set(_key(fence.job, "lease"), fence.owner, px=LEASE_MS)

        self._as_owner(fence, prolong)

    def release(self, fence: Fence) -> None:
        lease_key = _key(fence.job, "lease")

        def give_up(pipe: Client) -> None:
            mine = pipe.get(lease_key) == fence.owner.encode()
            pipe.multi()
            if mine:
                pipe.delete(lease_key)

        with self._reaching():
            self._redis.transaction(give_up, lease_key)

    def held(self, job: str) -> bool:
        with self._reaching():
            return bool(self._redis.exists(_key(job, "lease")))

    def put_blob(self, job: str, name: str, data: bytes) -> None:
        with self._reaching():
            self._redis.set(_blob_key(job, name), data, px=max(1, int(self.grace_s * 1000)), nx=True)

    def get_blob(self, job: str, name: str) -> bytes:
        with self._reaching():
            data: bytes | None = self._redis.get(_blob_key(job, name))
        if data is None:
            raise blob_missing(job, name)
        return data

    def commit(self, fence: Fence, epoch: int, manifest: bytes, blobs: Sequence[str]) -> None:
        keys = [_key(fence.job, kind) for kind in ("fence", "manifests", "named")]
        keys += [_blob_key(fence.job, name) for name in blobs]
        arguments = [_fence_text(fence), epoch, manifest, KEPT_CHECKPOINTS, *blobs]
        with self._reaching():
            verdict, *missing = self._commit_manifest(keys, arguments)
        if verdict == b"missing":
            raise blob_missing(fence.job, missing[0].decode())
        if verdict != b"committed":
            raise fenced(fence.job)

    def manifests(self, job: str) -> list[bytes]:
        with self._reaching():
            entries: list[bytes] = self._redis.lrange(_key(job, "manifests"), 0, -1)
        return [entry.split(b" ", 2)[2] for entry in entries]

    def free_blobs(self, fence: Fence, keep: Collection[str]) -> None:
        named_key = _key(fence.job, "named")

        def let_expire(pipe: Client) -> None:
            for name in named - set(keep):
                pipe.pexpire(_blob_key(fence.job, name), int(self.grace_s * 1000))
                pipe.srem(named_key, name)

        with self._reaching():
            named = {name.decode() for name in self._redis.smembers(named_key)}
        self._as_owner(fence, let_expire)

    def put_note(self, job: str, name: str, data: bytes) -> None:
        fence_key, notes_key = _key(job, "fence"), _key(job, "notes")
        check_name(name)

        def leave(pipe: Client) -> None:
            known = pipe.exists(fence_key)
            pipe.multi()
            if known:
                pipe.hset(notes_key, name, data)

        with self._reaching():
            self._redis.transaction(leave, fence_key)

    def get_note(self, job: str, name: str) -> bytes | None:
        with self._reaching():
            data: bytes | None = self._redis.hget(_key(job, "notes"), check_name(name))
        return data

    def list_notes(self, job: str, prefix: str) -> list[str]:
        with self._reaching():
            names = self._redis.hkeys(_key(job, "notes"))
        return sorted(name for name in map(bytes.decode, names) if name.startswith(prefix))

    def delete_note(self, job: str, name: str) -> None:
        with self._reaching():
            self._redis.hdel(_key(job, "notes"), check_name(name))

    def destroy(self, job: str) -> None:
        with self._reaching():
            named = self._redis.smembers(_key(job, "named"))
            self._redis.delete(*(_key(job, kind) for kind in ("fence", "lease", "manifests", "notes")))
            if named:
                self._redis.unlink(*(_blob_key(job, name.decode()) for name in named))
            self._redis.delete(_key(job, "named"))
            self._redis.srem(_JOBS, job)

    def jobs(self) -> list[str]:
        with self._reaching():
            return sorted(name.decode() for name in self._redis.smembers(_JOBS))

    def _as_owner(self, fence: Fence, queue: Callable[[Client], None]) -> None:
        """Perform what `queue` puts into a pipeline in one step, if the fence is still the job's. Raises Fenced."""
        fence_key = _key(fence.job, "fence")

        def checked(pipe: Client) -> bool:
            if pipe.get(fence_key) != _fence_text(fence):
                return False
            pipe.multi()
            queue(pipe)
            return True

        with self._reaching():
            owned = self._redis.transaction(checked, fence_key, value_from_callable=True)
        if not owned:
            raise fenced(fence.job)

    def _reaching(self) -> Any:
        return reaching(self._url, StoreUnreachable)


_JOBS = "countersign:jobs"


def _key(job: str, kind: str) -> str:
    return f"countersign:{{{check_name(job)}}}:{kind}"


def _blob_key(job: str, name: str) -> str:
    return _key(job, f"blob:{check_name(name)}")


def _fence_text(fence: Fence) -> bytes:
    return f"{fence.number} {fence.owner}".encode()


def _fence_parts(text: bytes | None) -> tuple[int, str]:
    """(number, owner) of what the fence key holds; (0, "") for a job that is new."""
    number, _, owner = (text or b"0 ").decode().partition(" ")
    return int(number), owner
