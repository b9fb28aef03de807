"""Keys map to groups and groups to shards, stably and completely."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.core.keygroups import balanced, group_of, hashed_part, key_grouping


@given(st.integers(1, 64), st.integers(1, 256))
def test_shards_begin_with_contiguous_shares_of_nearly_one_size(shards: int, groups: int) -> None:
    owners = balanced(shards, groups)
    sizes = [owners.count(shard) for shard in range(shards)]

    assert len(owners) == groups
    assert list(owners) == sorted(owners)
    assert max(sizes) - min(sizes) <= 1


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
