"""Kept: what a shard holds, and takes into the job's next life: its state and windows, and the checkpoints they lead back to.

State and Windows keep what was there before each change since the last checkpoint. A shard that outlives a life goes back to
that checkpoint by itself, at the cost of what has changed since; where the next life starts from another one, it reads the
blobs like a new process.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.core.errors import require
from rules.state import State
from rules.windows import Windows


@dataclass(frozen=True, slots=True)
class _Mark:
    """A checkpoint, as far as it must be told from others: no two have blobs of the same names."""

    epoch: int
    blobs: frozenset[str]


@dataclass(slots=True)
class Kept:
    """A shard's contents."""

    state: State
    windows: Windows = field(default_factory=Windows)
    _groups: object = None
    """The key groups that both hold, in a form that can be compared."""
    _settled: _Mark | None = None
    """The last checkpoint that is known to be committed."""
    _taken: _Mark | None = None
    """The one after it, whose rows were captured; its blobs are the shard's own, none before they are stored."""

    def started(self, epoch: int, blobs: tuple[str, ...], groups: object) -> None:
        """They hold what the blobs of a checkpoint do."""
        self._groups = groups
        self._settled, self._taken = _Mark(epoch, frozenset(blobs)), None

    def moved(self) -> None:
        """Key groups came or went: until all of this is in a checkpoint again, the way back is by the blobs.

        What was stored before the last capture is let go: nobody would say when it is of no use any more.
        """
        self._settled = self._taken = None
        self.state.settle()
        self.windows.settle()

    def captured(self, epoch: int, groups: object) -> None:
        """What is dirty was taken from both, at the end of an epoch."""
        require(self._settled is None or epoch > self._settled.epoch, f"epoch {epoch} was captured after a later one")
        self._groups = groups
        self._taken = _Mark(epoch, frozenset())

    def stored(self, epoch: int, chain: tuple[str, ...]) -> None:
        """What was captured is in the store, and these are the blobs that it takes to have all of the shard."""
        if self._taken is not None and self._taken.epoch == epoch:
            self._taken = _Mark(epoch, frozenset(chain))

    def committed(self, epoch: int, blobs: tuple[str, ...]) -> None:
        """A checkpoint with what was captured is the job's newest."""
        if self._taken is None or self._taken.epoch != epoch:
            return
        self._settled, self._taken = _Mark(epoch, frozenset(blobs)), None
        self.state.settle()
        self.windows.settle()

    def roll_back(self, epoch: int, blobs: tuple[str, ...], groups: object) -> bool:
        """Return to a checkpoint, if that can be done without reading it. False: the contents are of no use any more."""
        if groups != self._groups:
            return False
        named = frozenset(blobs)
        if self._settled == _Mark(epoch, named):
            to_settled = True
        elif (
            self._taken is not None and self._taken.epoch == epoch and self._taken.blobs and self._taken.blobs <= named
        ):
            to_settled = False  # it was committed, and the word of it was lost
        else:
            return False
        self.state.roll_back(to_settled)
        self.windows.roll_back(to_settled)
        self.started(epoch, blobs, groups)
        return True
