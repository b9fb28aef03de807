"""The coordinator cuts in order, within its credit, merges in position order, and checkpoints one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.core.coordinator import (
    EVENTS_PER_SHARD,
    RUN_AHEAD_EPOCHS,
    Coordinator,
    CoordinatorConfig,
    Phase,
    Progress,
    partitions_of,
    progress_of,
)
from cluster.core.effects import CommitManifest, Deliver, Effect, Finish, Send, TellState
from cluster.core.errors import InvariantBroken
from cluster.core.keygroups import balanced
from cluster.core.messages import (
    AlertOutput,
    Blob,
    Counts,
    EpochCut,
    EpochGrouped,
    ManifestCommitted,
    ManifestFailed,
    Message,
    Output,
    Partition,
    RescaleRequested,
    ShardRestored,
    Slice,
    SliceIngested,
    SliceParsed,
    SnapshotAdded,
    SnapshotFailed,
    SourceGrew,
    Started,
    StateAsked,
    StateTold,
    StateWanted,
    StopRequested,
    Ticked,
    TimeKnown,
)
from cluster.core.watermark import Watermark
from rules.state import Row

ALL = frozenset(range(256))
BLOB = Blob("b", ALL)


def partition(index: int = 0, size_bytes: int = 10_000, **other: Any) -> Partition:
    given = {"format": "jsonl", "compression": None, "rows": None, "log_type": "T", "first_time_s": None}
    return Partition(index, f"{index}.jsonl", size_bytes=size_bytes, mtime_ns=0, head_digest="d", **(given | other))


class Driven:
    """A coordinator whose invariants are checked after every message."""

    def __init__(
        self, *partitions: Partition, shards: int = 1, progress: Progress | None = None, **config: Any
    ) -> None:
        given: dict[str, Any] = {"epoch_events": 4, "checkpoint_interval_s": 5.0, "alert_limit": 1000}
        self.shards = shards
        self.machine = Coordinator(
            CoordinatorConfig(
                "job", shards, 256, pack_digest="p", job_start_s=7.0, fence=1, lateness_s=86400.0, **(given | config)
            ),
            partitions,
            progress or Progress(),
        )

    def start(self, growing: tuple[int, ...] = ()) -> list[Effect]:
        self.machine.start(growing)
        return [effect for shard in range(self.shards) for effect in self.tell(ShardRestored(shard))]

    def tell(self, message: Message) -> list[Effect]:
        effects = self.machine.handle(message)
        self.machine.validate()
        return effects

    def finish_epoch(self, epoch: int, **outputs: Any) -> list[Effect]:
        counts = outputs.pop("counts", Counts())
        return [
            effect
            for shard in range(self.shards)
            for effect in self.tell(
                EpochGrouped(
                    epoch, shard, Watermark(), counts if shard == 0 else Counts(), **(outputs if shard == 0 else {})
                )
            )
        ]


def cuts(effects: list[Effect], to: int = 0) -> list[EpochCut]:
    return [e.message for e in effects if isinstance(e, Send) and e.to == to and isinstance(e.message, EpochCut)]


def slices(effects: list[Effect]) -> list[Slice]:
    return [task.slice for cut in cuts(effects) for task in cut.tasks]


def ingested(cut: EpochCut, number: int = 0, last_time_s: float | None = 1.0, at_end: bool = False) -> SliceIngested:
    part = cut.tasks[number].slice
    return SliceIngested(cut.epoch, number, 0, part.stop or 0, at_end, last_time_s)


@pytest.fixture
def one() -> Iterator[Driven]:
    driven = Driven(partition())
    yield driven
    driven.machine.validate()


def test_every_shard_is_told_where_the_job_stands_before_anything_is_cut() -> None:
    driven = Driven(partition(), shards=2, progress=Progress(epoch=9, start=500, blobs=(BLOB,)))

    assert driven.machine.start() == [
        Send(shard, Started(9, Watermark(), (BLOB,), balanced(2, 256))) for shard in (0, 1)
    ]
    assert driven.tell(ShardRestored(0)) == []
    assert cuts(driven.tell(ShardRestored(1)))[0].epoch == 10


def test_it_cuts_no_further_than_its_credit(one: Driven) -> None:
    first = one.start()

    assert [cut.epoch for cut in cuts(first)] == list(range(1, RUN_AHEAD_EPOCHS + 1))
    assert slices(first) == [Slice(0, 0, 4000), Slice(0, 4000, 8000), Slice(0, 8000, 10_000)]


def test_an_epoch_that_is_done_gives_its_credit_back() -> None:
    driven = Driven(partition(size_bytes=40_000))
    first = cuts(driven.start())
    driven.tell(ingested(first[0]))

    assert slices(driven.finish_epoch(1)) == [Slice(0, 12_000, 16_000)]


def test_a_slice_comes_to_the_events_that_are_asked_for_whatever_their_size() -> None:
    driven = Driven(partition(size_bytes=1_000_000))
    waiting = cuts(driven.start())
    sizes = []
    for _ in range(40):
        cut = waiting.pop(0)
        parts = [(task.number, task.slice.start, task.slice.stop or 0) for task in cut.tasks]
        for number, start, stop in parts:
            records = max(1, (stop - start) // 100)
            driven.tell(SliceIngested(cut.epoch, number, records, start + records * 100, False, 1.0))
        sizes.append(parts[0][2] - parts[0][1])
        waiting += cuts(driven.finish_epoch(cut.epoch))

    assert sizes[0] == 4000, "before any was seen"
    assert 400 <= sizes[-1] < 450, "4 events of 100 bytes"


@pytest.mark.parametrize("shards", [1, 2, 3, 7, 64])
def test_an_epoch_has_a_slice_for_each_shard_whatever_rounding_leaves(shards: int) -> None:
    driven = Driven(partition(size_bytes=10**9), shards=shards, epoch_events=1000)
    first = cuts(driven.start())[0]
    for task in first.tasks:
        driven.tell(SliceIngested(first.epoch, task.number, 7, task.slice.start + 7 * 333, False, 1.0))
    later = cuts(driven.finish_epoch(first.epoch))[0]

    for cut in (first, later):
        assert sorted(task.shard for task in cut.tasks) == list(range(shards))


def test_epochs_are_short_while_groups_move_and_grow_to_what_they_were_afterwards() -> None:
    driven = Driven(partition(size_bytes=10**9), epoch_events=800)
    waiting = cuts(driven.start())
    driven.tell(RescaleRequested(2))
    driven.shards = 2
    waiting += cuts(driven.tell(ShardRestored(1)))
    sizes, shards = [], []
    for _ in range(300):
        cut = waiting.pop(0)
        for task in cut.tasks:
            driven.tell(ingested(cut, task.number))
        sizes.append(sum((task.slice.stop or 0) - task.slice.start for task in cut.tasks))
        first = cut.shards == 2 and 2 not in shards
        shards.append(cut.shards)
        driven.shards = cut.shards
        waiting += cuts(driven.finish_epoch(cut.epoch, copied=tuple(range(128, 256)) if first else ()))

    moving = shards.index(2)
    assert set(sizes[:moving]) == {800_000}
    settled = sizes.index(200_000)
    assert set(sizes[moving:settled]) == {100_000}
    assert sizes[settled:][:3] == [200_000, 400_000, 800_000]
    assert set(sizes[settled + 3 :]) == {800_000}


def test_epochs_of_a_rescale_follow_one_another_where_little_comes_in() -> None:
    driven = Driven(partition(size_bytes=0), epoch_events=800)
    driven.start(growing=(0,))
    (first,) = cuts(driven.tell(SourceGrew(0, 1000, False)))
    driven.tell(RescaleRequested(2))
    driven.shards = 2

    assert cuts(driven.tell(ShardRestored(1))) == [], "the one on its way is waited for"
    driven.shards = 1
    driven.tell(ingested(first))
    (empty,) = cuts(driven.finish_epoch(first.epoch))  # it was prepared before anybody asked for a rescale
    (moving,) = cuts(driven.finish_epoch(empty.epoch))
    assert (empty.tasks, empty.shards) == ((), 1)
    assert (moving.tasks, moving.shards) == ((), 2), "the rescale goes on without any input"
    assert cuts(driven.tell(SourceGrew(0, 2000, False))) == []
    driven.shards = 2
    assert slices(driven.finish_epoch(moving.epoch)) == [Slice(0, 1000, 2000)]


def test_small_compressed_files_are_taken_whole_while_groups_move() -> None:
    files = [partition(number, 1000 * 20, compression="gzip") for number in range(40)]  # about 240 events each
    driven = Driven(partition(0, 10_000_000), *files[1:], epoch_events=800)
    waiting = cuts(driven.start())
    driven.tell(RescaleRequested(2))
    driven.shards = 2
    waiting += cuts(driven.tell(ShardRestored(1)))
    taken = []
    while waiting:
        cut = waiting.pop(0)
        driven.shards = cut.shards
        for task in cut.tasks:
            driven.tell(ingested(cut, task.number, at_end=task.slice.stop is None))
        taken += [task.slice for task in cut.tasks if task.slice.partition]
        if len(taken) == 39:
            break
        waiting += cuts(driven.finish_epoch(cut.epoch))

    assert taken == [Slice(number, 0, None) for number in range(1, 40)]


def test_slices_are_shared_out_and_cover_the_source_once() -> None:
    driven = Driven(partition(size_bytes=9000), partition(1, size_bytes=2000), shards=2)
    tasks = [task for cut in cuts(driven.start()) for task in cut.tasks]

    assert {task.shard for task in tasks} == {0, 1}
    for index, size in ((0, 9000), (1, 2000)):
        parts = [task.slice for task in tasks if task.slice.partition == index]
        assert [p.start for p in parts] == [0, *[p.stop for p in parts[:-1]]]
        assert parts[-1].stop == size


def test_many_small_compressed_files_fill_one_epoch() -> None:
    driven = Driven(*(partition(n, 100, compression="gzip") for n in range(3)))
    first = cuts(driven.start())[0]

    assert [task.slice for task in first.tasks] == [Slice(n, 0, None) for n in range(3)]


def test_nothing_is_cut_behind_a_large_compressed_file_before_its_end_is_known() -> None:
    driven = Driven(partition(0, 10**9, compression="gzip"), partition(1, 1000))
    first = driven.start()

    assert slices(first) == [Slice(0, n * 4000, (n + 1) * 4000) for n in range(RUN_AHEAD_EPOCHS)]
    for cut in cuts(first):
        driven.tell(ingested(cut, at_end=cut.epoch == 2))
    after = driven.finish_epoch(1)
    assert slices(after) == [Slice(1, 0, 1000)]


def test_records_leave_in_position_order_whatever_shard_found_them() -> None:
    driven = Driven(partition(size_bytes=1000), shards=2)
    (cut, _last) = cuts(driven.start())
    for task in cut.tasks:
        driven.tell(ingested(cut, task.number))
    late = Output((0, 5, 0), (0, 50), b"late")
    early = Output((0, 1, 0), (0, 10), b"early")
    driven.tell(EpochGrouped(1, 0, Watermark(), Counts(), matches=[late]))
    (deliver, *_) = driven.tell(EpochGrouped(1, 1, Watermark(), Counts(), matches=[early]))

    assert isinstance(deliver, Deliver)
    assert deliver.matches == [((0, 10), b"early"), ((0, 50), b"late")]


def test_epochs_leave_in_order() -> None:
    driven = Driven(partition())
    first = cuts(driven.start())
    for cut in first:
        driven.tell(ingested(cut))

    assert [e for e in driven.finish_epoch(2) if isinstance(e, Deliver)] == []
    assert [e.epoch for e in driven.finish_epoch(1) if isinstance(e, Deliver)] == [1, 2]


def test_shards_that_disagree_on_the_watermark_stop_the_run() -> None:
    driven = Driven(partition(size_bytes=1000), shards=2)
    (cut, _last) = cuts(driven.start())
    for task in cut.tasks:
        driven.tell(ingested(cut, task.number))
    driven.tell(EpochGrouped(1, 0, Watermark(1.0, 1.0), Counts()))

    with pytest.raises(InvariantBroken, match="watermark"):
        driven.tell(EpochGrouped(1, 1, Watermark(2.0, 2.0), Counts()))


def finish_all(driven: Driven, effects: list[Effect]) -> list[Effect]:
    """Play a perfect shard and store until nothing more comes."""
    seen: list[Effect] = []
    while effects:
        effect = effects.pop(0)
        seen.append(effect)
        if isinstance(effect, Send) and isinstance(effect.message, EpochCut) and effect.to == 0:
            cut = effect.message
            for task in cut.tasks:
                effects += driven.tell(ingested(cut, task.number, at_end=True))
            effects += driven.finish_epoch(cut.epoch)
            if cut.checkpoint:
                for shard in range(driven.shards):
                    effects += driven.tell(SnapshotAdded(cut.epoch, shard, (Blob(f"blob-{shard}", ALL),)))
        if isinstance(effect, CommitManifest):
            effects += driven.tell(ManifestCommitted(effect.epoch))
    return seen


def test_a_run_ends_with_a_checkpoint_that_says_everything_was_read() -> None:
    driven = Driven(partition(), partition(1), shards=2)
    seen = finish_all(driven, driven.start())
    (commit,) = [e for e in seen if isinstance(e, CommitManifest)]

    assert seen[-1] == Finish(interrupted=False, unsaved="")
    assert driven.machine.phase is Phase.FINISHED
    assert progress_of(json.loads(json.dumps(commit.manifest))).partition == 2
    assert commit.blobs == ("blob-0", "blob-1")
    assert partitions_of(json.loads(json.dumps(commit.manifest))) == [partition(), partition(1)]


def test_a_run_that_is_asked_to_stop_cuts_no_more_input_and_is_interrupted() -> None:
    driven = Driven(partition(size_bytes=10**6))
    effects = driven.start()
    effects += driven.tell(StopRequested())
    seen = finish_all(driven, effects)

    assert len(slices(seen)) == RUN_AHEAD_EPOCHS
    assert seen[-1] == Finish(interrupted=True, unsaved="")


def test_a_checkpoint_is_due_after_its_interval_and_only_one_is_on_its_way() -> None:
    driven = Driven(partition(size_bytes=10**6))
    driven.tell(Ticked(100.0))
    first = cuts(driven.start())
    driven.tell(Ticked(106.0))
    driven.tell(ingested(first[0]))
    (second,) = cuts(driven.finish_epoch(1))
    driven.tell(ingested(first[1]))
    (third,) = cuts(driven.finish_epoch(2))

    assert (second.checkpoint, third.checkpoint) == (True, False)


def test_a_checkpoint_that_the_store_did_not_take_is_given_up_and_the_next_one_comes_in_time() -> None:
    driven = Driven(partition(size_bytes=10**6))
    driven.tell(Ticked(100.0))
    effects = driven.start()
    driven.tell(Ticked(106.0))
    first = cuts(effects)
    driven.tell(ingested(first[0]))
    (second,) = cuts(driven.finish_epoch(1))
    driven.tell(SnapshotFailed(second.epoch, 0, "down"))
    driven.tell(Ticked(112.0))
    driven.tell(ingested(first[1]))
    (third,) = cuts(driven.finish_epoch(2))

    assert third.checkpoint


def test_a_store_that_lost_blobs_gets_bases_until_it_has_taken_a_checkpoint() -> None:
    driven = Driven(partition(size_bytes=400_000), checkpoint_interval_s=0.0)
    effects = [*driven.tell(Ticked(0.0)), *driven.start()]
    bases: list[bool] = []
    for now_s in range(1, 60):
        following: list[Effect] = []
        for cut in cuts(effects):
            if cut.tasks:
                following += driven.tell(ingested(cut))
            following += driven.finish_epoch(cut.epoch)
            if cut.checkpoint and len(bases) < 4:
                bases.append(cut.base)
                driven.tell(SnapshotAdded(cut.epoch, 0, (BLOB,)))
                lost = ManifestFailed(cut.epoch, "a blob is missing", rebase=True)
                following += driven.tell(lost if len(bases) == 2 else ManifestCommitted(cut.epoch))
                assert driven.machine.refused == ("a blob is missing" if len(bases) == 2 else "")
        effects = following + driven.tell(Ticked(now_s * 2.0))

    assert bases == [False, False, True, False]


def test_the_last_checkpoint_is_tried_again_and_then_given_up_with_its_reason() -> None:
    driven = Driven(partition(size_bytes=1000))
    driven.tell(Ticked(0.0))
    effects = driven.start()
    (cut, last) = cuts(effects)
    driven.tell(ingested(cut))
    driven.finish_epoch(1)
    now_s = 0.0
    finish: list[Effect] = []
    while driven.machine.phase is not Phase.FINISHED:
        driven.finish_epoch(last.epoch)
        commits = driven.tell(SnapshotAdded(last.epoch, 0, (BLOB,)))
        assert isinstance(commits[0], CommitManifest)
        finish = driven.tell(ManifestFailed(last.epoch, "down"))
        now_s += 10.0
        again = cuts(driven.tell(Ticked(now_s))) if not finish else []
        last = again[0] if again else last

    assert finish == [Finish(interrupted=False, unsaved="down")]
    assert now_s > 30.0


def test_the_last_checkpoint_is_given_up_also_where_its_snapshot_fails_before_the_epoch_is_done() -> None:
    """As with a full store: each try fails at once, and the epoch that was cut for it is still on its way."""
    driven = Driven(partition(size_bytes=1000))
    driven.tell(Ticked(0.0))
    cut, last = cuts(driven.start())
    driven.tell(ingested(cut))
    driven.finish_epoch(cut.epoch)
    ended: list[Effect] = []
    for now_s in range(1, 60):
        if driven.machine.phase is Phase.FINISHED:
            break
        driven.tell(SnapshotFailed(last.epoch, 0, "full"))
        ended = driven.finish_epoch(last.epoch)
        (last,) = cuts(driven.tell(Ticked(float(now_s)))) or [last]

    assert ended[-1] == Finish(interrupted=False, unsaved="full")


def test_a_store_that_refused_is_left_in_peace_for_a_second() -> None:
    """Found by attack: every message cut another epoch for the last checkpoint, hundreds a second."""
    driven = Driven(partition(size_bytes=1000))
    driven.tell(Ticked(100.0))
    (cut, last) = cuts(driven.start())
    driven.tell(ingested(cut))
    driven.finish_epoch(1)
    driven.tell(SnapshotFailed(last.epoch, 0, "full"))

    assert cuts(driven.finish_epoch(last.epoch)) == []
    assert cuts(driven.tell(Ticked(100.9))) == []
    assert len(cuts(driven.tell(Ticked(101.1)))) == 1


def test_a_slice_that_starts_without_a_time_gets_the_time_before_it() -> None:
    driven = Driven(partition(size_bytes=40_000))
    first = cuts(driven.start())

    assert driven.tell(SliceParsed(2, 0, None)) == []
    assert Send(0, TimeKnown(2, 0, 55.0)) in driven.tell(ingested(first[0], last_time_s=55.0))


def test_a_slice_without_any_time_passes_on_what_came_before_it() -> None:
    driven = Driven(partition(size_bytes=40_000))
    first = cuts(driven.start())
    driven.tell(ingested(first[0], last_time_s=55.0))

    assert driven.tell(SliceParsed(2, 0, None)) == [Send(0, TimeKnown(2, 0, 55.0))]
    assert driven.tell(SliceParsed(3, 0, None)) == [Send(0, TimeKnown(3, 0, 55.0))]


def test_the_first_events_take_the_job_s_start_time() -> None:
    driven = Driven(partition())
    driven.start()

    assert driven.tell(SliceParsed(1, 0, None)) == [Send(0, TimeKnown(1, 0, 7.0))]


def alert(rule_id: str, at_s: float, offset: int) -> AlertOutput:
    return AlertOutput((0, offset, 0), (0, offset), b"%d" % offset, rule_id, at_s)


def test_the_limiter_holds_back_a_rule_s_alerts_and_says_so_once() -> None:
    driven = Driven(partition(size_bytes=1000), alert_limit=2)
    (cut, _last) = cuts(driven.start())
    driven.tell(ingested(cut))
    alerts = [alert("Loud", float(n), n) for n in range(5)] + [alert("Quiet", 5.0, 5), alert("Loud", 3601.0, 6)]
    (deliver, *_) = driven.finish_epoch(1, alerts=alerts)

    assert isinstance(deliver, Deliver)
    assert [position[1] for position, _ in deliver.alerts] == [0, 1, 2, 5, 6]
    assert json.loads(deliver.alerts[2][1])["rule_id"] == "countersign.limiter"
    assert deliver.alerts[4][1] == b"6"


def played(driven: Driven, epochs: int, events: int = 0, takes_s: float = 0.0) -> list[EpochCut]:
    """Start, and go through so many epochs, each with so many events; those that wait then."""
    driven.tell(Ticked(0.0))
    waiting = cuts(driven.start())
    for number in range(epochs):
        cut = waiting.pop(0)
        for task in cut.tasks:
            waiting += cuts(driven.tell(ingested(cut, task.number)))
        waiting += cuts(driven.tell(Ticked((number + 1) * takes_s)))
        waiting += cuts(driven.finish_epoch(cut.epoch, counts=Counts(events=events)))
    return waiting


@pytest.mark.parametrize("shards", [1, 3])
def test_an_epoch_holds_as_much_for_each_shard_however_many_there_are(shards: int) -> None:
    driven = Driven(partition(size_bytes=10**9), shards=shards, epoch_events=None)
    waiting = played(driven, 2)

    assert len(waiting[0].tasks) == shards
    parts = [shards * EVENTS_PER_SHARD * 1000 / _size_bytes(cut) for cut in waiting]
    assert parts == pytest.approx([2, 1, 1], rel=0.01), "the first ones are short, for nobody knows how slow the rules are"


def test_an_epoch_of_slow_rules_holds_about_a_second_of_work() -> None:
    """Found by a trial: with rules that took 2,400 events/s, a stop took a minute."""
    slow = Driven(partition(size_bytes=10**9), epoch_events=None, checkpoint_interval_s=1e9)
    usual = Driven(partition(size_bytes=10**9), epoch_events=None, checkpoint_interval_s=1e9)

    assert _size_bytes(played(slow, 9, events=2_400, takes_s=1.0)[-1]) == pytest.approx(2_400_000, rel=0.01)
    assert _size_bytes(played(usual, 9, events=2_400, takes_s=0.01)[-1]) == EVENTS_PER_SHARD * 1000


def test_how_fast_a_source_comes_in_says_nothing_about_the_rules() -> None:
    driven = Driven(partition(size_bytes=0), epoch_events=None, checkpoint_interval_s=1e9)
    driven.start(growing=(0,))
    for number in range(1, 9):
        driven.tell(Ticked(float(number)))
        (cut,) = cuts(driven.tell(SourceGrew(0, number * 1000, False)))
        driven.tell(ingested(cut))
        driven.finish_epoch(cut.epoch, counts=Counts(events=1))

    assert _size_bytes(cuts(driven.tell(SourceGrew(0, 10**9, False)))[0]) == EVENTS_PER_SHARD * 1000


def test_shards_that_join_make_epochs_no_longer_before_they_own_anything() -> None:
    """Found by a reviewer: with many of them what moves would have waited for long ones."""
    driven = Driven(partition(size_bytes=10**10), shards=2, epoch_events=None)
    waiting = played(driven, 3)
    usual = waiting[-1]
    driven.tell(RescaleRequested(64))
    for shard in range(2, 64):
        driven.shards = 2
        waiting += cuts(driven.tell(ShardRestored(shard)))
    while waiting[0].shards == 2:
        cut = waiting.pop(0)
        for task in cut.tasks:
            driven.tell(ingested(cut, task.number))
        waiting += cuts(driven.finish_epoch(cut.epoch))

    assert _size_bytes(waiting[0]) <= _size_bytes(usual) / 4


def test_what_one_shard_reads_alone_is_no_more_than_one_shard_s_part() -> None:
    driven = Driven(partition(size_bytes=10**10, compression="gzip"), shards=8, epoch_events=None)
    (*_, last) = played(driven, 3)

    assert len(last.tasks) == 1
    assert _size_bytes(last) == EVENTS_PER_SHARD * 1000


def _size_bytes(cut: EpochCut) -> int:
    return sum(task.slice.stop - task.slice.start for task in cut.tasks if task.slice.stop)


def test_what_comes_while_an_epoch_is_on_its_way_shares_the_next_one() -> None:
    driven = Driven(partition(size_bytes=0), epoch_events=100)
    driven.start(growing=(0,))
    (first,) = cuts(driven.tell(SourceGrew(0, 1000, False)))

    assert cuts(driven.tell(SourceGrew(0, 2000, False))) == []
    assert cuts(driven.tell(SourceGrew(0, 9000, False))) == []
    driven.tell(ingested(first))
    delivered = driven.finish_epoch(first.epoch)
    assert slices(delivered) == [Slice(0, 1000, 9000)]
    assert cuts(driven.tell(SourceGrew(0, 30_000, False))) == [], "of 1000 bytes each, before one was seen"
    more = driven.tell(SourceGrew(0, 200_000, False))
    assert slices(more)[0] == Slice(0, 9000, 109_000), "there is as much to do as an epoch takes"


def test_what_comes_does_not_wait_where_an_epoch_is_cut_anyway() -> None:
    driven = Driven(partition(size_bytes=0), epoch_events=100)
    driven.start(growing=(0,))
    driven.tell(Ticked(1.0))
    driven.tell(SourceGrew(0, 1000, False))
    driven.tell(SourceGrew(0, 2000, False))

    (due,) = cuts(driven.tell(Ticked(7.0)))
    assert due.checkpoint
    assert [task.slice for task in due.tasks] == [Slice(0, 1000, 2000)]


def test_a_growing_source_is_cut_as_it_grows_and_ends_when_it_says_so() -> None:
    driven = Driven(partition(size_bytes=0))
    assert cuts(driven.start(growing=(0,))) == []

    assert slices(driven.tell(SourceGrew(0, 100, False))) == [Slice(0, 0, 100)]
    grown = driven.tell(SourceGrew(0, 150, True))
    assert slices(grown) == [Slice(0, 100, 150)]
    assert cuts(grown)[-1].checkpoint


def test_a_look_at_keys_is_of_one_moment_and_in_key_order() -> None:
    driven = Driven(partition(size_bytes=100_000), shards=2)
    end = slices(driven.start())[-1].stop or 0
    wanted = StateWanted(5, None, "k", 3)
    asked = StateAsked(3, wanted)  # three epochs are on their way

    assert driven.tell(wanted) == [Send(0, asked), Send(1, asked)]
    rows = {n: Row(f"k{n}", n, None, None, 9) for n in range(6)}
    assert driven.tell(StateTold(5, 1, [rows[1], rows[3]], 2)) == []
    (told,) = driven.tell(StateTold(5, 0, [rows[0], rows[2], rows[4]], 4))

    assert told == TellState(5, 3, (0, end), [rows[0], rows[1], rows[2]], 3)


def test_a_shard_that_left_keys_out_ends_the_list_at_its_last() -> None:
    driven = Driven(partition(), shards=2)
    driven.start()
    driven.tell(StateWanted(5, None, "", 9))
    a, b, c = (Row(key, 1, None, None, 9) for key in "abc")
    driven.tell(StateTold(5, 0, [b], 4))
    (told,) = driven.tell(StateTold(5, 1, [a, c], 2))

    assert isinstance(told, TellState)
    assert (told.rows, told.more) == ([a, b], 4)


def test_an_unknown_message_is_a_bug() -> None:
    with pytest.raises(InvariantBroken):
        Driven(partition()).tell("hello")
