"""What can end a run, split by who must act.

ClusterError
  InvariantBroken    a bug of ours: never caught, carries the story
  CorruptSnapshot    the store holds bytes that are not what was written: an older checkpoint may do
  LaterFormat        the store holds what a later version wrote: the operator runs that one
"""

from __future__ import annotations


class ClusterError(Exception):
    """The engine cannot go on."""


class InvariantBroken(ClusterError):
    """A machine contradicts itself or its neighbours."""


class CorruptSnapshot(ClusterError):
    """A blob or manifest in the store cannot be read back."""


class LaterFormat(ClusterError):
    """A blob or manifest is whole and of a format that this version does not know. An older checkpoint would be no remedy."""


def require(holds: bool, story: str) -> None:
    """Raise InvariantBroken with the story unless `holds`: an assert that also stands under -O."""
    if not holds:
        raise InvariantBroken(story)
