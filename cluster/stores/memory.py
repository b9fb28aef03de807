"""The store in the memory of one process, for tests. It has what the contract asks for and nothing that outlives it."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from cluster.stores import Fence, Store, blob_missing, check_name, fenced, retained


@dataclass(slots=True)
class _Job:
    fence: Fence
    held: bool = True
    manifests: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """(fence number, epoch) -> manifest"""
    notes: dict[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class _Blob:
    data: bytes
    needed_s: float
    """When it was last known to be needed, on the monotonic clock."""


class MemoryStore(Store):
    """Jobs in dictionaries, under one lock."""

    lease_wait_s = 0.0
    """Owners are threads of one process: none dies alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._blobs: dict[tuple[str, str], _Blob] = {}

    def _try_acquire(self, job: str, owner: str, fresh: bool) -> Fence | None:
        with self._lock:
            known = self._jobs.get(job)
            if known is not None and known.held:
                return None
            fence = Fence(job, known.fence.number + 1 if known is not None else 1, owner)
            manifests = {} if known is None or fresh else known.manifests
            self._jobs[job] = _Job(fence, manifests=manifests, notes={} if known is None else known.notes)
            return fence

    def renew(self, fence: Fence) -> None:
        with self._lock:
            self._own(fence).held = True

    def release(self, fence: Fence) -> None:
        with self._lock:
            known = self._jobs.get(fence.job)
            if known is not None and known.fence == fence:
                known.held = False

    def held(self, job: str) -> bool:
        with self._lock:
            known = self._jobs.get(check_name(job))
            return known is not None and known.held

    def put_blob(self, job: str, name: str, data: bytes) -> None:
        with self._lock:
            self._blobs.setdefault((check_name(job), check_name(name)), _Blob(bytes(data), time.monotonic()))

    def get_blob(self, job: str, name: str) -> bytes:
        with self._lock:
            blob = self._blobs.get((check_name(job), check_name(name)))
        if blob is None:
            raise blob_missing(job, name)
        return blob.data

    def commit(self, fence: Fence, epoch: int, manifest: bytes, blobs: Sequence[str]) -> None:
        with self._lock:
            manifests = self._own(fence).manifests
            for name in blobs:
                if (fence.job, name) not in self._blobs:
                    raise blob_missing(fence.job, name)
            if manifests and max(manifests) > (fence.number, epoch):
                raise fenced(fence.job)
            manifests[fence.number, epoch] = manifest
            for old in manifests.keys() - set(retained(manifests)):
                del manifests[old]

    def manifests(self, job: str) -> list[bytes]:
        with self._lock:
            known = self._jobs.get(check_name(job))
            return [] if known is None else [known.manifests[key] for key in sorted(known.manifests, reverse=True)]

    def free_blobs(self, fence: Fence, keep: Collection[str]) -> None:
        now_s = time.monotonic()
        with self._lock:
            self._own(fence)
            for job, name in list(self._blobs):
                if job == fence.job:
                    if name in keep:
                        self._blobs[job, name].needed_s = now_s
                    elif now_s - self._blobs[job, name].needed_s >= self.grace_s:
                        del self._blobs[job, name]

    def put_note(self, job: str, name: str, data: bytes) -> None:
        with self._lock:
            self._notes(job)[check_name(name)] = bytes(data)

    def get_note(self, job: str, name: str) -> bytes | None:
        with self._lock:
            return self._notes(job).get(check_name(name))

    def list_notes(self, job: str, prefix: str) -> list[str]:
        with self._lock:
            return sorted(name for name in self._notes(job) if name.startswith(prefix))

    def delete_note(self, job: str, name: str) -> None:
        with self._lock:
            self._notes(job).pop(check_name(name), None)

    def destroy(self, job: str) -> None:
        with self._lock:
            self._jobs.pop(check_name(job), None)
            for key in [key for key in self._blobs if key[0] == job]:
                del self._blobs[key]

    def jobs(self) -> list[str]:
        with self._lock:
            return sorted(self._jobs)

    def _notes(self, job: str) -> dict[str, bytes]:
        known = self._jobs.get(check_name(job))
        return {} if known is None else known.notes

    def _own(self, fence: Fence) -> _Job:
        known = self._jobs.get(fence.job)
        if known is None or known.fence != fence:
            raise fenced(fence.job)
        return known
