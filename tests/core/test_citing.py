"""A record that can be read again is not carried along; where it has changed meanwhile, nothing counts that saw it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cluster.core.effects import Effect, ReadSlice, Send
from cluster.core.ingest import Decoder, Ingest, IngestedSlice, Reread
from cluster.core.keygroups import balanced
from cluster.core.lines import digest_of
from cluster.core.messages import EpochCut, EpochGrouped, Lines, Partition, Records, Slice, SliceRead, Started, Task
from cluster.core.poison import NOTHING, ORDINAL, unwatched
from cluster.core.shard import Shard, ShardConfig
from cluster.core.watermark import Watermark
from rules.pack import Pack
from tests.core.test_shard import IMPORT, TYPES, pack_of

LOG = b"".join(
    json.dumps({"t": 1_700_000_000 + n, "user": f"u{n % 2}", "what": f"w{n}", **more}).encode() + b"\n"
    for n, more in enumerate([{}, {"p_row_id": "first"}, {}, {"p_row_id": "second"}])
)
RULE = IMPORT + (
    "def rule(event):\n    return increment_counter(event['user']) > 1\n"
    "def title(event):\n    try:\n        return event['what']\n    except:\n        return 'lost'\n"
)


class Gone(Exception):
    pass


def again(partition: int, offset: int, length_bytes: int, digest: int) -> bytes:
    raw = LOG[offset : offset + length_bytes]
    assert (partition, digest_of(raw)) == (0, digest)
    return raw


def gone(partition: int, offset: int, length_bytes: int, digest: int) -> bytes:
    raise Gone


def records(*, readable: bool) -> Records:
    return Records([], [], [], len(LOG), True, [Lines(0, LOG, len(LOG), readable)])


def ingested(pack: Pack, reread: Reread | None, *, readable: bool = True) -> tuple[Decoder, list[Any]]:
    decoder = Decoder(TYPES, pack.context_of, plain=pack.names_event_class, reread=reread)
    done = Ingest(pack, decoder, 64, unwatched()).slice(
        0, 0, "p.jsonl", "T", records(readable=readable), None, balanced(1, 64), 1
    )
    assert isinstance(done, IngestedSlice)
    return decoder, list(done.routed[0].events)


def test_an_event_is_read_again_only_where_more_is_asked_than_is_known_and_is_the_same() -> None:
    reads: list[int] = []

    def counted(*cited: int) -> bytes:
        reads.append(cited[1])
        return again(*cited)

    decoder, routed = ingested(pack_of(R=RULE), counted)

    assert [item[6] for item in routed] == [(len(raw), digest_of(raw)) for raw in LOG.splitlines(keepends=True)]
    event = decoder.routed(routed[2], "p.jsonl")
    assert (event["user"], reads) == ("u0", [])
    assert (event["what"], event["t"], reads) == ("w2", 1_700_000_002, [routed[2][1][1]])
    assert event.original == json.loads(LOG.splitlines()[2])


@pytest.mark.parametrize("why", ["nobody can", "the source cannot", "events are plain"])
def test_what_cannot_be_read_again_is_carried_along(why: str) -> None:
    plain = "from panther_core import PantherEvent\nKIND = PantherEvent\n" if why == "events are plain" else ""
    _, routed = ingested(
        pack_of(R=plain + RULE), None if why == "nobody can" else again, readable=why != "the source cannot"
    )

    assert [item[6] for item in routed] == LOG.splitlines()


def executed(reread: Reread, cells: list[int] | None = None, rule: str = RULE) -> tuple[Shard, list[Effect]]:
    partition = Partition(0, "p.jsonl", "jsonl", None, 0, 0, "d", None, "T", None)
    config = ShardConfig(0, 64, 86_400.0, 400_000, (partition,), 1, "me")
    shard = Shard(config, pack_of(R=rule), TYPES, cells=cells, reread=reread)
    owners = balanced(1, 64)
    shard.handle(Started(0, Watermark(), (), owners))
    (read,) = shard.handle(EpochCut(1, (Task(0, 0, Slice(0, 0, len(LOG))),), False, 1, owners))
    assert isinstance(read, ReadSlice)
    return shard, shard.handle(SliceRead(1, 0, records(readable=True)))


def test_a_disk_that_takes_its_time_is_no_hanging_rule() -> None:
    cells = unwatched()
    seen: list[int] = []

    def slow(*cited: int) -> bytes:
        seen.append(cells[ORDINAL])
        return again(*cited)

    executed(slow, cells)

    assert seen
    assert set(seen) == {NOTHING}


def test_a_rule_cannot_swallow_that_its_event_has_changed() -> None:
    executed(again)[0].validate()

    with pytest.raises(Gone):
        executed(gone)


def test_a_match_is_told_by_its_own_id_without_reading_its_event_again() -> None:
    knowing = IMPORT + "def rule(event):\n    return increment_counter(event['user']) > 1\n"

    _, effects = executed(gone, rule=knowing)

    (grouped,) = (e.message for e in effects if isinstance(e, Send) and isinstance(e.message, EpochGrouped))
    third = len(b"".join(LOG.splitlines(keepends=True)[:2]))
    assert [json.loads(match.record)["event_id"] for match in grouped.matches] == [f"0:{third}", "second"]
