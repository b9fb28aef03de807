"""What must hold of a simulated run: its results are the oracle's, its offsets are covered once, its tokens only grow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from cluster.core.effects import TellState
from cluster.core.shard import Shard
from cluster.runtime.sim.oracle import Expected
from rules.state import Row


class Wrong(AssertionError):
    """A promise was broken."""


def check_outputs(expected: Expected, outputs: dict[str, list[bytes]]) -> None:
    """Matches, alerts, errors and dead letters, in order, each once."""
    given = {kind: [json.loads(record) for record in records] for kind, records in outputs.items()}
    _same("matches", expected.matches, given["matches"])
    _same("alerts", expected.alerts, given["alerts"])
    _same("errors", expected.errors, given["errors"])
    _same("dead letters", [{"position": at} for at in expected.dead_letters], given["dead_letters"])


def _same(what: str, expected: Sequence[dict[str, Any]], given: Sequence[dict[str, Any]]) -> None:
    for number, (mine, theirs) in enumerate(zip(expected, given, strict=False)):
        shown = {name: theirs.get(name) for name in mine}
        if shown != mine:
            raise Wrong(f"{what}: record {number} is {shown}, {mine} expected")
    if len(expected) != len(given):
        more = (expected if len(expected) > len(given) else given)[min(len(expected), len(given))]
        raise Wrong(f"{what}: {len(given)} records, {len(expected)} expected; the first of the rest is {more}")


def check_keys(expected: Expected, rows: Sequence[Row], horizon_s: float) -> None:
    """The final state: every key in one place, those that may still be read as the oracle has them."""
    given: dict[str, Row] = {}
    for row in rows:
        if row.key in given:
            raise Wrong(f"key {row.key!r} is on two shards")
        if row.expiry_s is not None and row.expiry_s > horizon_s:
            given[row.key] = row
    for key in sorted(expected.keys.keys() | given.keys()):
        if expected.keys.get(key) != given.get(key):
            raise Wrong(f"key {key!r} is {given.get(key)}, {expected.keys.get(key)} expected")


def check_seen(by_then: Expected, seen: TellState, limit: int) -> None:
    """What a look at keys gave while the stream went on is the state between two events, and is told as one."""
    expected = [row for _, row in sorted(by_then.keys.items())]
    if (seen.rows, seen.more) != (expected[:limit], max(0, len(expected) - limit)):
        raise Wrong(f"before {seen.cursor} {seen.rows} and {seen.more} more were seen, {expected} expected")


def check_rolled_back(fresh: Shard, back: Shard, horizon_s: float) -> None:
    """A shard that went back to a checkpoint holds what one does that has read it, as far as anybody can still ask for it."""
    read, rolled = _held(fresh, horizon_s), _held(back, horizon_s)
    for key in sorted(read.keys() | rolled.keys()):
        if read.get(key) != rolled.get(key):
            raise Wrong(f"{key} was rolled back to {rolled.get(key)}, the checkpoint has {read.get(key)}")


def _held(shard: Shard, horizon_s: float) -> dict[tuple[str, ...], object]:
    keys: dict[tuple[str, ...], object] = {(row.key,): row for row in shard.state.rows(horizon_s)}
    windows: dict[tuple[str, ...], object] = {
        (row.rule_id, row.dedup): row
        for row in shard.windows.rows()
        if row.opened_s is not None and row.opened_s + row.period_s >= horizon_s
    }
    return {**keys, **windows}


def check_tokens(numbers: Sequence[int]) -> None:
    """Fencing tokens of committed manifests, in the order of the commits."""
    for before, after in pairwise(numbers):
        if after < before:
            raise Wrong(f"a manifest of token {after} was committed after one of token {before}")


def check_covered(sizes: dict[int, int], slices: Sequence[tuple[int, int, int]]) -> None:
    """(partition, start, stop) of every delivered slice, in order: nothing is left out, nothing is read twice."""
    at = dict.fromkeys(sizes, 0)
    for partition, start, stop in slices:
        if min(start, sizes[partition]) != at[partition]:
            raise Wrong(f"partition {partition} was read from {start}, {at[partition]} expected")
        at[partition] = min(stop, sizes[partition])
    if at != sizes:
        raise Wrong(f"read up to {at}, the ends are {sizes}")
