"""Which checkpoint a job goes on from: the newest that is whole. One that is damaged is told of, and an older one serves.

Any whole checkpoint is right: from an older one the replay is longer, and what the outputs hold beyond it is left out when
it comes again (sinks.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from cluster.core import snapshot
from cluster.core.errors import CorruptSnapshot
from cluster.core.poison import poison_of, poison_record
from cluster.stores import BlobMissing


class Readable(Protocol):
    """What is asked of a store here."""

    def manifests(self, job: str) -> list[bytes]: ...
    def get_blob(self, job: str, name: str) -> bytes: ...


def newest_whole(
    store: Readable, job: str, tell: Callable[[str], None], *, blobs: bool = True
) -> dict[str, Any] | None:
    """The manifest of the job's newest checkpoint that can be read back; None for a job that has no manifest.

    `tell` hears of each that is passed over, and what is wrong with it. With `blobs` every blob is read and its checksum
    compared; without, manifests only. What is input is always that of the newest manifest that can be read, for the outputs
    may hold what came of it: the files in their order, and the evaluations that are known not to return. A key that somebody
    removed (removing.py) is input too, and cannot be removed again in the middle of a replay: no checkpoint before that will do.

    Raises CorruptSnapshot when there are manifests and none will do, LaterFormat, StoreUnreachable.
    """
    damage: list[str] = []
    inputs: dict[str, Any] = {}
    removed: list[Any] = []
    for data in store.manifests(job):
        try:
            manifest = snapshot.decode_manifest(data)
        except CorruptSnapshot as error:
            damage.append(str(error))
            tell(f"job {job}: checkpoint damaged: {error}: going back to an older one")
            continue
        if not inputs:
            inputs = {"partitions": manifest["partitions"], **poison_record(poison_of(manifest))}
            removed = manifest.get("removed", [])
        if manifest.get("removed", []) != removed:
            damage.append(f"epoch {manifest['epoch']} is from before a key was removed by hand")
            break
        wrong = _damaged_blob(store, job, manifest["blobs"]) if blobs else None
        if wrong is None:
            return manifest | inputs
        damage.append(f"epoch {manifest['epoch']}: {wrong}")
        tell(f"job {job}: checkpoint of epoch {manifest['epoch']} damaged: {wrong}: going back to an older one")
    if not damage:
        return None
    raise CorruptSnapshot(
        f"job {job}: none of its checkpoints can be read back ({'; '.join(damage)}): "
        "restore the store from a copy, or start over with --fresh"
    )


def _damaged_blob(store: Readable, job: str, names: list[str]) -> str | None:
    """What is wrong with the first of these blobs that is not as it was written; None where all are."""
    for name in names:
        try:
            snapshot.check(store.get_blob(job, name))
        except BlobMissing:
            return f"blob {name} is not in the store"
        except CorruptSnapshot as error:
            return f"blob {name}: {error}"
    return None
