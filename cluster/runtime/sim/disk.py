"""The simulated store and outputs: what survives the processes of a run, and how it may fail them."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass, field

from cluster.core import snapshot
from cluster.core.errors import CorruptSnapshot
from cluster.core.messages import Position
from cluster.runtime.sim.checkers import Wrong
from cluster.sinks import Continuation, Place, position_of
from cluster.stores import BlobMissing, retained


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

    def get_blob(self, job: str, name: str) -> bytes:
        if self.down:
            raise Down
        return self.read_blob(name)

    def read_blob(self, name: str) -> bytes:
        """What is there, whether the store answers or not."""
        if name not in self._now.blobs:
            raise BlobMissing(name)
        return self._now.blobs[name]

    def commit(self, token: tuple[int, int], epoch: int, manifest: bytes, blobs: tuple[str, ...]) -> None:
        now = self._write()
        if now.token != token:
            raise FencedOut
        for name in blobs:
            if name not in now.blobs:
                raise BlobMissing(name)
        kept = {(number, at): data for number, at, data in now.manifests} | {(token[0], epoch): manifest}
        now.manifests = tuple((*place, kept[place]) for place in sorted(retained(kept)))
        self.committed.append(token[0])
        named: set[str] = set()
        for _, _, each in now.manifests:
            with suppress(CorruptSnapshot):
                named.update(snapshot.decode_manifest(each)["blobs"])
        for name in now.blobs.keys() - named:
            if int(name.split("-")[1]) < epoch - 50:  # the grace period, in epochs
                del now.blobs[name]

    def manifests(self, job: str) -> list[bytes]:
        if self.down:
            raise Down
        return [manifest for _, _, manifest in reversed(self._now.manifests)]

    def damage_newest(self, rng: random.Random) -> bool:
        """Spoil or lose a blob of the newest checkpoint, or spoil its manifest, if an older one is whole."""
        if (
            not all(self._is_whole(manifest) for _, _, manifest in self._now.manifests[-2:])
            or len(self._now.manifests) < 2
        ):
            return False
        older, newest = (snapshot.decode_manifest(data)["blobs"] for _, _, data in self._now.manifests[-2:])
        own = [name for name in newest if name not in older]
        if not own or rng.random() < 0.2:
            number, epoch, manifest = self._now.manifests[-1]
            self._now.manifests = (*self._now.manifests[:-1], (number, epoch, _spoiled(manifest, rng)))
        elif rng.random() < 0.5:
            del self._now.blobs[rng.choice(own)]
        else:
            name = rng.choice(own)
            self._now.blobs[name] = _spoiled(self._now.blobs[name], rng)
        self._history = []  # nobody falls back to before it
        return True

    def _is_whole(self, manifest: bytes) -> bool:
        try:
            for name in snapshot.decode_manifest(manifest)["blobs"]:
                snapshot.check(self._now.blobs[name])
        except (CorruptSnapshot, KeyError):
            return False
        return True

    def lose_newest(self, writes: int) -> None:
        """A fail-over to a replica that had not heard of the last writes."""
        if self._history:
            self._now = self._history[max(0, len(self._history) - writes)]
            self._history = []
            self.committed = []


def _spoiled(data: bytes, rng: random.Random) -> bytes:
    """With one bit turned, or cut off."""
    at = rng.randrange(len(data))
    return data[:at] if rng.random() < 0.3 else data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


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
