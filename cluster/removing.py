"""Removing a key from a job by hand: a new checkpoint without it, under a token of its own.

A removal is input that no source holds. So it has its place between two runs, never within one: at a checkpoint past which
nothing was delivered. The manifest keeps it in mind, as from there on the job is no longer what its input alone makes of it.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.asking import Refused
from cluster.core import snapshot
from cluster.run import state_rows
from cluster.stores import Fence, LeaseHeld, Store
from rules.capture import Capture
from rules.windows import WindowKey, WindowRow

_NO_WINDOW: dict[WindowKey, WindowRow] = {}


def remove_key(store: Store, job: str, key: str, tell: Callable[[str], None]) -> bool:
    """False where the job has no such key; `tell` hears of damaged checkpoints. Raises Refused, CannotRun, StoreError."""
    state_rows(store, job, tell)  # a job that is not there must not be made by looking at it
    try:
        fence = store.acquire(job, fresh=False)
    except LeaseHeld:
        raise Refused(
            4,
            f"job {job}: it runs, and a key is removed between two runs: `countersign stop --job {job}`, then remove it, "
            "then run it again",
        ) from None
    try:
        return _remove(store, fence, key, tell)
    finally:
        store.release(fence)


def _remove(store: Store, fence: Fence, key: str, tell: Callable[[str], None]) -> bool:
    manifest, rows = state_rows(store, fence.job, tell)
    if not manifest.get("closed"):
        raise Refused(
            4,
            f"job {fence.job}: its last run did not end with a checkpoint, so its outputs may be past that: run it again, "
            f"to the end or until `countersign stop --job {fence.job}`, then remove the key",
        )
    if all(row.key != key for row in rows):
        return False
    epoch = manifest["epoch"]
    name = f"{fence.number:08d}-{epoch:010d}-{fence.owner}-removed"
    (tombstone,) = snapshot.encode(
        Capture([key], lambda _: (None, None, None, None), {}), Capture([], _NO_WINDOW.__getitem__, {})
    )
    store.put_blob(fence.job, name, tombstone)
    blobs = [*manifest["blobs"], name]
    removed = [*manifest.get("removed", []), [key, epoch]]
    changed = {**manifest, "fence": fence.number, "blobs": blobs, "removed": removed}
    store.commit(fence, epoch, snapshot.encode_manifest(changed), blobs)
    return True
