"""Key -> key group -> shard, as pure functions on a stable hash. Nothing here knows what a key holds."""

from __future__ import annotations

from collections.abc import Callable

import xxhash

DEFAULT_KEY_GROUPS = 256
"""Fixed when a job is created. A power of two well above any shard count in sight, and small enough for a table a person
can read."""

Owners = tuple[int, ...]
"""key group -> the shard that owns it."""


def hashed_part(key: str) -> str:
    """What of a key decides its group: the text between the first `{` and the next `}` if that is not empty, else all.

    Redis Cluster's hash tags, so that what people know of them holds here.
    """
    start = key.find("{")
    if start < 0:
        return key
    stop = key.find("}", start + 1)
    return key[start + 1 : stop] if stop > start + 1 else key


def group_of(text: str, groups: int) -> int:
    """The group of a text: xxHash3 of its UTF-8 bytes, never hash(), which differs between processes."""
    return xxhash.xxh3_64_intdigest(text.encode()) % groups


def key_grouping(groups: int) -> Callable[[str], int]:
    """A function from key to key group. It remembers nothing: hashing a key again takes as long as looking it up."""
    digest = xxhash.xxh3_64_intdigest

    def key_group(key: str) -> int:
        # group_of(hashed_part(key)), written out
        return digest((hashed_part(key) if "{" in key else key).encode()) % groups

    return key_group


def window_group(rule_id: str, dedup: str, groups: int) -> int:
    """The group of an alert window."""
    return group_of(f"{rule_id}\0{dedup}", groups)


def balanced(shards: int, groups: int) -> Owners:
    """Who owns what when a job begins: shards own contiguous ranges of nearly equal size."""
    return tuple(group * shards // groups for group in range(groups))


def rebalanced(owners: Owners, shards: int) -> Owners:
    """The same for another number of shards, with as few groups in other hands as can be."""
    owned: list[list[int]] = [[] for _ in range(shards)]
    spare: list[int] = []
    for group, owner in enumerate(owners):
        (owned[owner] if owner < shards else spare).append(group)
    share, larger = divmod(len(owners), shards)
    by_size = sorted(range(shards), key=lambda shard: -len(owned[shard]))
    shares = {shard: share + (place < larger) for place, shard in enumerate(by_size)}
    for shard, groups in enumerate(owned):
        spare += groups[shares[shard] :]
        del groups[shares[shard] :]
    target = list(owners)
    spare.sort(reverse=True)
    for shard, groups in enumerate(owned):
        for _ in range(shares[shard] - len(groups)):
            target[spare.pop()] = shard
    return tuple(target)
