"""What machines ask for: imperative, plain data. A shell performs it and answers with a message (messages.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.core.messages import Message, Slice
from cluster.core.snapshot import Keys, Opened
from rules.state import Row

COORDINATOR = -1
"""The address of the coordinator; shards are addressed by their number."""


@dataclass(frozen=True, slots=True)
class Send:
    """Deliver a message, in order per sender and receiver."""

    to: int
    message: Message


@dataclass(frozen=True, slots=True)
class GoOn:
    """Give this message back to the machine, once what it has asked for so far is on its way."""

    message: Message


@dataclass(frozen=True, slots=True)
class ReadSlice:
    """Read a slice of the source; answered by SliceRead."""

    epoch: int
    number: int
    slice: Slice


@dataclass(frozen=True, slots=True)
class LoadBlobs:
    """Read these blobs from the store; answered by BlobsLoaded."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoreSnapshot:
    """Encode and store a snapshot; answered by SnapshotStored or SnapshotFailed. Take your time, in any thread."""

    epoch: int
    shard: int
    name: str
    """What the names of its blobs begin with."""
    keys: Keys
    windows: Opened


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand an epoch's records to the sinks: (position, record) in position order."""

    epoch: int
    matches: list[tuple[tuple[int, ...], bytes]]
    alerts: list[tuple[tuple[int, ...], bytes]]
    errors: list[tuple[tuple[int, ...], bytes]]
    dead_letters: list[tuple[tuple[int, ...], bytes]]


@dataclass(frozen=True, slots=True)
class CommitManifest:
    """Make what was delivered durable, then swap the manifest; answered by ManifestCommitted or ManifestFailed."""

    epoch: int
    manifest: dict[str, Any]
    blobs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    """The run is over: everything is delivered and, where the store allowed it, checkpointed."""

    interrupted: bool
    unsaved: str
    """Why the last checkpoint could not be written; empty when it was."""


@dataclass(frozen=True, slots=True)
class TellState:
    """Answer a StateWanted: the keys as they are after an epoch, that is before `cursor` in the source."""

    number: int
    epoch: int
    cursor: tuple[int, int]
    """(partition, start)"""
    rows: list[Row]
    more: int
    """How many there are beside `rows`."""


Effect = Send | GoOn | ReadSlice | LoadBlobs | StoreSnapshot | Deliver | CommitManifest | Finish | TellState
