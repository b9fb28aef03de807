"""The simulated store and outputs: what survives the processes of a run, and how it may fail them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cluster.core import snapshot
from cluster.core.messages import Position
from cluster.runtime.sim.checkers import Wrong
from cluster.sinks import Continuation, Place, position_of

KEPT_MANIFESTS = 3


class Down(Exception):
    """The store does not answer."""


class FencedOut(Exception):
    """Somebody has taken the job over."""


@dataclass(slots=True)
class _Contents:
    token: tuple[int, int] = (0, 0)
    """(number, owner)"""
    manifests: tuple[tuple[int, int, bytes], ...] = ()
    """(token number, epoch, manifest), oldest first"""
    blobs: dict[str, bytes] = field(default_factory=dict)


class Store:
    """What cluster.stores promises, in memory, with a history so that the newest writes can be lost."""

    def __init__(self) -> None:
        self._now = _Contents()
        self._history: list[_Contents] = []
        self._owners = 0
        self.down = False
        self.committed: list[int] = []
        """Token numbers of manifests, in the order of their commits; emptied by a loss."""

    def _write(self) -> _Contents:
        if self.down:
            raise Down
        self._history = [*self._history[-20:], _Contents(self._now.token, self._now.manifests, dict(self._now.blobs))]
        return self._now

    def acquire(self) -> tuple[int, int]:
        """A new token, higher than any other that the store knows of."""
        now = self._write()
        self._owners += 1
        now.token = (now.token[0] + 1, self._owners)
        return now.token

    def put_blob(self, name: str, data: bytes) -> None:
        self._write().blobs.setdefault(name, data)

    def get_blob(self, name: str) -> bytes:
        if self.down:
            raise Down
        return self.read_blob(name)

    def read_blob(self, name: str) -> bytes:
        """What is there, whether the store answers or not."""
        return self._now.blobs[name]

    def commit(self, token: tuple[int, int], epoch: int, manifest: bytes, blobs: tuple[str, ...]) -> None:
        now = self._write()
        if now.token != token:
            raise FencedOut
        if any(name not in now.blobs for name in blobs):
            raise FencedOut  # after a loss of writes: what the owner stored before is gone, so it must not go on
        now.manifests = tuple(sorted([*now.manifests, (token[0], epoch, manifest)])[-KEPT_MANIFESTS:])
        self.committed.append(token[0])
        named = {name for _, _, kept in now.manifests for name in snapshot.decode_manifest(kept)["blobs"]}
        for name in now.blobs.keys() - named:
            if int(name.split("-")[1]) < epoch - 50:  # the grace period, in epochs
                del now.blobs[name]

    def newest(self) -> dict[str, Any] | None:
        if self.down:
            raise Down
        return snapshot.decode_manifest(self._now.manifests[-1][2]) if self._now.manifests else None

    def lose_newest(self, writes: int) -> None:
        """A fail-over to a replica that had not heard of the last writes."""
        if self._history:
            self._now = self._history[max(0, len(self._history) - writes)]
            self._history = []
            self.committed = []


class Output:
    """One output file: whole records, of which the last may not be on the disk yet."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self._flushed = 0

    def crash(self, lost: int) -> None:
        """The machine with the file stopped: up to `lost` records that were not flushed are gone."""
        self.records = self.records[: max(self._flushed, len(self.records) - lost)]

    def open(self) -> Writer:
        return Writer(self)

    def write(self, at: int, records: list[bytes]) -> None:
        """At an explicit place, as files are written: who is behind must write what is there."""
        for number, record in enumerate(records, at):
            if number < len(self.records):
                if self.records[number] != record:
                    raise Wrong(f"record {number} of an output was {self.records[number]!r} and became {record!r}")
            elif number == len(self.records):
                self.records.append(record)
            else:
                raise Wrong("an output has a hole")

    def flush(self) -> None:
        self._flushed = len(self.records)


class Writer:
    """One process's hold on an output, as cluster.sinks has it."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._at = len(output.records)
        place: Place | None = None
        self._held: dict[Position, list[bytes]] = {}
        """What the output held when it was opened, by position."""
        for record in output.records:
            position = position_of(record)
            assert position is not None
            before = place.records if place is not None and place.position == position else 0
            place = Place(position, before + 1)
            self._held.setdefault(position, []).append(record)
        self._continuation = Continuation(place)

    def write(self, records: list[tuple[Position, bytes]]) -> None:
        new = self._continuation.new_of(records)
        for position, record in records[: len(records) - len(new)]:
            if record not in self._held.get(position, ()):
                raise Wrong(f"a replay gives {record!r} where an output has {self._held.get(position)}")
        self._output.write(self._at, [record for _, record in new])
        self._at += len(new)
        for position, _ in new:
            self._continuation.add(position)

    def flush(self) -> None:
        self._output.flush()
