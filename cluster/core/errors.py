"""What can end a run, split by who must act.

ClusterError
  InvariantBroken    a bug of ours: never caught, carries the story
  CorruptSnapshot    the store holds bytes that are not what was written: the operator restores or starts over
"""

from __future__ import annotations


class ClusterError(Exception):
    """The engine cannot go on."""


class InvariantBroken(ClusterError):
    """A machine contradicts itself or its neighbours."""


class CorruptSnapshot(ClusterError):
    """A blob or manifest in the store cannot be read back."""


def require(holds: bool, story: str) -> None:
    """Raise InvariantBroken with the story unless `holds`: an assert that also stands under -O."""
    if not holds:
        raise InvariantBroken(story)
