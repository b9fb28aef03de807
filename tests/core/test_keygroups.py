"""Keys map to groups and groups to shards, stably and completely."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.core.keygroups import group_of, hashed_part, key_grouping, owned_range, owner_of


@given(st.integers(1, 64), st.integers(1, 256))
def test_every_group_has_exactly_the_owner_that_says_it_owns_it(shards: int, groups: int) -> None:
    owners = {group: shard for shard in range(shards) for group in owned_range(shard, shards, groups)}

    assert owners == {group: owner_of(group, shards, groups) for group in range(groups)}


def test_the_hash_is_stable_between_versions_and_processes() -> None:
    assert group_of("denied:alice", 1 << 62) == 4390568684041842526
    assert group_of("schlüssel", 1 << 62) == 1930512577882366174


def test_keys_with_one_tag_share_a_group() -> None:
    group = key_grouping(256)

    assert group("resets:{alice}") == group("grants:{alice}") == group("{alice}")


def test_an_empty_or_open_brace_is_no_tag() -> None:
    assert [hashed_part(key) for key in ("a{}b", "a{b", "{x}{y}", "a{{b}c")] == ["a{}b", "a{b", "x", "{b"]


@given(st.lists(st.text(), max_size=50))
def test_the_cache_changes_nothing(keys: list[str]) -> None:
    keys = [key.encode("utf-8", "replace").decode() for key in keys]
    group = key_grouping(64)

    assert [group(key) for key in keys] == [group_of(hashed_part(key), 64) for key in keys]
