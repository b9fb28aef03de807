"""A shard ingests, executes in position order and groups; what it computes does not depend on shards or cuts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.core import lane, snapshot
from cluster.core.effects import COORDINATOR, Effect, GoOn, LoadBlobs, ReadSlice, Send, StoreSnapshot
from cluster.core.errors import CorruptSnapshot, InvariantBroken
from cluster.core.keygroups import balanced
from cluster.core.messages import (
    Blob,
    BlobsLoaded,
    EpochCut,
    EpochExecuted,
    EpochGrouped,
    EventsRouted,
    GroupsGiven,
    GroupsMoved,
    Message,
    Partition,
    Records,
    ShardRestored,
    Slice,
    SliceIngested,
    SliceParsed,
    SliceRead,
    SnapshotAdded,
    SnapshotStored,
    Started,
    StateAsked,
    StateTold,
    StateWanted,
    Task,
    TimeKnown,
)
from cluster.core.records import time_text
from cluster.core.shard import Shard, ShardConfig
from cluster.core.watermark import Watermark
from rules.evaluation import evaluate
from rules.logtypes import load_definitions
from rules.pack import Pack, load_pack
from rules.windows import WindowRow
from tests.capturing import encoded

START = Watermark()
TYPES = load_definitions(
    {
        "T.yml": b"LogType: T\nTimestamp: t\nRecognise: [{t: '*'}]\n",
        "Split.yml": b"LogType: Split\nTimestamp: t\nSplit: {List: events}\nRecognise: [{t: '*', events: '*'}]\n",
    }
)


def pack_of(log_type: str = "T", **modules: str) -> Pack:
    """A pack of rules `Name="python"`, for one log type, one alert a match."""
    files: dict[str, bytes] = {}
    for name, source in modules.items():
        files[f"{name}.py"] = source.encode()
        files[f"{name}.yml"] = (
            f"AnalysisType: rule\nRuleID: {name}\nFilename: {name}.py\nEnabled: true\nLogTypes: [{log_type}]\nSeverity: High\n"
        ).encode()
    return load_pack(files)


IMPORT = "from panther_detection_helpers.caching import *\nfrom panther_detection_helpers import caching\n"
COUNT = """
from panther_detection_helpers.caching import increment_counter
def rule(event):
    if not event.get("user"):
        return False
    return increment_counter("Count:" + event["user"], 1, 3600) % 3 == 0
def title(event):
    return event["user"]
"""
SEEN = """
from panther_detection_helpers.caching import add_to_string_set, get_string_set
def rule(event):
    key = f"Seen:{event.get('host')}"
    new = event.get("user") not in get_string_set(key)
    add_to_string_set(key, event.get("user") or "nobody", event.event_time_epoch() + 600)
    return new
def title(event):
    return str(event.get("host"))
"""
PLAIN = """
def rule(event):
    return event.get("bad") is True
"""


class Cluster:
    """Shards with a perfect, in-order coordinator: plays epochs and collects what leaves."""

    def __init__(self, pack: Pack, shards: int) -> None:
        partition = Partition(0, "p.jsonl", "jsonl", None, 0, 0, "d", None, "T", None)
        self.machines = [
            Shard(ShardConfig(n, 64, 86_400.0, 400_000, (partition,), 1, "me"), pack, TYPES) for n in range(shards)
        ]
        self.sent: list[Message] = []
        self.blobs: dict[str, bytes] = {}
        self.snapshots: list[StoreSnapshot] = []
        self.epoch = 0
        self.held: list[tuple[int, Message]] | None = None
        """While a list: matches between shards wait in here."""

    def tell(self, shard: int, message: Message) -> None:
        queue = [(shard, message)]
        while queue:
            to, message = queue.pop(0)
            effects = self.machines[to].handle(message)
            self.machines[to].validate()
            for effect in effects:
                queue += self._perform(to, effect)

    def _perform(self, shard: int, effect: Effect) -> list[tuple[int, Message]]:
        match effect:
            case Send(to=to, message=message):
                if to != COORDINATOR and self.held is not None and isinstance(message, EpochExecuted):
                    self.held.append((to, message))
                    return []
                if to != COORDINATOR:
                    return [(to, message)]
                self.sent.append(message)
                if isinstance(message, SliceParsed):
                    return [(shard, TimeKnown(message.epoch, message.number, 7.0))]
            case GoOn(message=message):
                return [(shard, message)]
            case ReadSlice(epoch=epoch, number=number):
                return [(shard, SliceRead(epoch, number, self.records[number]))]
            case LoadBlobs(names=names):
                return [(shard, BlobsLoaded(tuple(self.blobs[name] for name in names)))]
            case StoreSnapshot():
                self.snapshots.append(effect)
                (self.blobs[effect.name],) = snapshot.encode(effect.keys, effect.windows)
                return [(shard, SnapshotStored(effect.epoch, shard, (effect.name,), len(self.blobs[effect.name])))]
        return []

    def start(self, epoch: int = 0, watermark: Watermark = START, blobs: Sequence[Blob] = ()) -> None:
        self.epoch = epoch
        for shard in range(len(self.machines)):
            self.tell(shard, Started(epoch, watermark, tuple(blobs), balanced(len(self.machines), 64)))

    def cut(self, epoch: int, tasks: tuple[Task, ...], checkpoint: bool = False) -> EpochCut:
        shards = len(self.machines)
        return EpochCut(epoch, tasks, checkpoint, shards, balanced(shards, 64))

    def play(self, slices: list[list[tuple[int, bytes]]], checkpoint: bool = False) -> None:
        """One epoch with these slices of (offset, record)."""
        self.epoch += 1
        self.records = [Records([raw for _, raw in part], [at for at, _ in part], [], 0, False) for part in slices]
        tasks = tuple(Task(n, n % len(self.machines), Slice(0, 0, 0)) for n in range(len(slices)))
        for shard in range(len(self.machines)):
            self.tell(shard, self.cut(self.epoch, tasks, checkpoint))

    def look(self, wanted: StateWanted) -> None:
        for shard in range(len(self.machines)):
            self.tell(shard, StateAsked(self.epoch, wanted))

    def told(self) -> dict[str, Any]:
        return {row.key: row for message in self.sent if isinstance(message, StateTold) for row in message.rows}

    def records_of(self, kind: str) -> list[dict[str, Any]]:
        """All records of a kind that left, in position order."""
        done = [m for m in self.sent if isinstance(m, EpochGrouped)]
        outputs = [(m.epoch, output) for m in done for output in getattr(m, kind)]
        outputs.sort(key=lambda item: (item[0], item[1].order))
        return [orjson.loads(output.record) for _, output in outputs]

    def keys(self) -> dict[str, Any]:
        """The final state (DESIGN 11.18): what has not expired for any event that may still come."""
        w_s = [message for message in self.sent if isinstance(message, EpochGrouped)][-1].watermark.w_s
        return {row.key: row for machine in self.machines for row in machine.state.rows(w_s - 86_400.0)}


def numbered(events: Sequence[dict[str, Any] | bytes]) -> list[tuple[int, bytes]]:
    return [(at * 100, e if isinstance(e, bytes) else json.dumps(e).encode()) for at, e in enumerate(events)]


def run(pack: Pack, events: Sequence[dict[str, Any] | bytes], shards: int = 1) -> Cluster:
    cluster = Cluster(pack, shards)
    cluster.start()
    cluster.play([numbered(events)])
    return cluster


def test_what_moves_is_on_its_way_before_its_former_owner_executes_the_epoch() -> None:
    """Found by bench/rescale.py: the new owner waited for that, too."""
    cluster = Cluster(PACK, 2)
    cluster.start()
    cluster.play([numbered([{"t": 1_700_000_000, "user": "eve"}])])
    machine, before = cluster.machines[0], balanced(2, 64)
    after = tuple(1 if group == 0 else owner for group, owner in enumerate(before))
    prepared, moving = EpochCut(2, (), False, 2, before, False, after), EpochCut(3, (), False, 2, after)
    for shard in (0, 1):
        cluster.tell(shard, prepared)

    machine.handle(EventsRouted(3, 1, ()))

    effects = machine.handle(moving)
    (moved,) = [effect.message for effect in effects if isinstance(effect, Send) and effect.to == 1][-1:]
    assert (type(moved), moved.groups) == (GroupsMoved, (0,))
    assert effects[-1] == GoOn(GroupsGiven(3))
    machine.validate()
    executed = machine.handle(GroupsGiven(3))
    assert [type(effect.message) for effect in executed if isinstance(effect, Send)] == [EpochExecuted]
    machine.validate()


EVENTS = st.lists(
    st.fixed_dictionaries(
        {"t": st.one_of(st.integers(1_700_000_000, 1_700_004_000), st.just(1_700_200_000))},
        optional={
            "user": st.sampled_from(["alice", "bob", "eve"]),
            "host": st.sampled_from(["h1", "h2"]),
            "bad": st.booleans(),
        },
    ),
    max_size=30,
)
PACK = pack_of(Count=COUNT, Seen=SEEN, Plain=PLAIN)


@settings(deadline=None, max_examples=60)
@given(EVENTS, st.integers(1, 4), st.lists(st.integers(0, 30), max_size=6), st.lists(st.integers(0, 30), max_size=3))
def test_results_and_state_do_not_depend_on_shards_slices_or_epochs(
    events: list[dict[str, Any]], shards: int, slice_cuts: list[int], epoch_cuts: list[int]
) -> None:
    whole = run(PACK, events)
    cluster = Cluster(PACK, shards)
    cluster.start()
    records = numbered(events)
    for start, stop in _ranges(epoch_cuts, len(records)):
        part = records[start:stop]
        cluster.play([part[a:b] for a, b in _ranges([cut - start for cut in slice_cuts], len(part))])

    for kind in ("matches", "alerts", "errors"):
        assert cluster.records_of(kind) == whole.records_of(kind)
    assert cluster.keys() == whole.keys()


@settings(deadline=None, max_examples=40)
@given(EVENTS, st.integers(1, 3), st.integers(1, 3), st.integers(0, 30))
def test_a_job_goes_on_from_its_snapshots_with_another_number_of_shards(
    events: list[dict[str, Any]], before: int, after: int, cut: int
) -> None:
    whole = run(PACK, events)
    records = numbered(events)
    first = Cluster(PACK, before)
    first.start()
    first.play([records[:cut]], checkpoint=True)
    grouped = [m for m in first.sent if isinstance(m, EpochGrouped)][-1]
    chains = [blob for m in first.sent if isinstance(m, SnapshotAdded) for blob in m.chain]
    second = Cluster(PACK, after)
    second.blobs = first.blobs
    second.start(first.epoch, grouped.watermark, chains)
    second.play([records[cut:]])

    assert first.records_of("matches") + second.records_of("matches") == whole.records_of("matches")
    assert first.records_of("alerts") + second.records_of("alerts") == whole.records_of("alerts")
    assert second.keys() == whole.keys()


def test_a_window_is_not_freed_while_matches_of_an_earlier_epoch_are_still_on_their_way() -> None:
    """Found by running it: with two shards, execute ran ahead of group, and freed by the later epoch's W."""
    source = "def rule(event):\n    return True\ndef title(event):\n    return event['user']\n"
    pack = pack_of(R=source)
    day = 86_400
    base = 1_700_000_000
    users = [f"u{n}" for n in range(8)]  # windows on both shards
    first = [{"t": base, "user": user} for user in users]
    late = [{"t": base + 5, "user": user} for user in users]
    far = [{"t": base + 3 * day, "user": "far"}] * 3
    whole = run(pack, [*first, *late, *far, {"t": base + 3 * day, "user": "last"}])

    records = numbered([*first, *late, *far, {"t": base + 3 * day, "user": "last"}])
    cluster = Cluster(pack, 2)
    cluster.start()
    cluster.play([records[:4], records[4:8]])
    cluster.held = []
    cluster.play([records[8:12], records[12:16]])
    cluster.play([records[16:18], records[18:19]])
    cluster.play([records[19:], []])
    held, cluster.held = cluster.held, None
    for to, message in held:
        cluster.tell(to, message)

    assert cluster.records_of("matches") == whole.records_of("matches")


def _ranges(cuts: list[int], size: int) -> list[tuple[int, int]]:
    bounds = [0, *sorted(min(max(cut, 0), size) for cut in cuts), size]
    return list(pairwise(bounds))


def test_an_event_that_no_rule_matches_and_that_asks_for_no_state_moves_no_clock() -> None:
    """What moves W must not depend on which rules are probed, and hence not on index and prefilter (DESIGN 11.2)."""
    refuses = pack_of(Refuses="def rule(event):\n    return False\n")
    far = [{"t": 1_700_900_000}] * 3

    def w_s(pack: Pack) -> float:
        cluster = run(pack, [*far, {"t": 1_700_000_000, "bad": True}, *far, {"t": 1_700_000_001, "bad": True}])
        (grouped,) = (message for message in cluster.sent if isinstance(message, EpochGrouped))
        return grouped.watermark.w_s

    assert w_s(refuses) == START.w_s
    assert w_s(pack_of(Plain=PLAIN, Refuses="def rule(event):\n    return False\n")) == 1_700_000_000.0


@pytest.mark.parametrize("shards", [1, 3])
def test_the_rules_of_one_event_run_in_the_order_of_their_ids(shards: int) -> None:
    write = IMPORT + 'def rule(event):\n    return increment_counter("{x}") < 0\n'
    read = IMPORT + 'def rule(event):\n    return get_counter("{x}") == 1\n'
    after = run(pack_of(A=write, B=read), [{"t": 1_700_000_000}], shards)
    before = run(pack_of(B=read, C=write), [{"t": 1_700_000_000}] * 2, shards)

    assert [match["position"] for match in after.records_of("matches")] == [[0, 0]]
    assert [match["position"] for match in before.records_of("matches")] == [[0, 100]]


def test_a_lane_evaluates_once_what_asks_for_new_keys_and_a_few_times_what_asks_for_others_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pass that ended at each key that it meets would be quadratic (DESIGN 11.13)."""
    source = IMPORT + (
        "def rule(event):\n"
        "    n = event['n']\n"
        "    return [increment_counter(key) for key in ('hot', f'some {n % 9}', f'own {n}', f'more {n}')][-1] == event['round']\n"
    )
    evaluated: list[str] = []

    def counting(rule: Any, event: Any, evaluation: Any) -> Any:
        evaluated.append(rule.id)
        return evaluate(rule, event, evaluation)

    monkeypatch.setattr(lane, "evaluate", counting)
    cluster = run(pack_of(R=source), [{"t": 1_700_000_000, "n": n, "round": 1} for n in range(60)], shards=3)

    assert len(cluster.records_of("matches")) == 60
    assert len(evaluated) == 60, "all keys are new"
    evaluated.clear()
    cluster.play([numbered([{"t": 1_700_000_000, "n": n, "round": 2} for n in range(60)])])
    assert len(cluster.records_of("matches")) == 120
    assert 60 < len(evaluated) <= 6 * 60


@pytest.mark.parametrize(
    "search",
    ["while not get_counter(f'day {n}'):\n        n -= 1", "while not get_counter('day 0'):\n        pass"],
    ids=["of a key that is there", "that waits for a key that is there"],
)
def test_a_search_that_ends_in_sequence_ends_in_the_lane(search: str) -> None:
    source = IMPORT + (
        "def rule(event):\n    n = event['n']\n    if not n:\n        return increment_counter('day 0') < 0\n"
        f"    increment_counter('searched')\n    {search}\n    return True\n"
    )
    events = [{"t": 1_700_000_000, "n": n} for n in (50, 300)]
    for shards in (2, 3, 5):
        cluster = run(pack_of(R=source), [{"t": 1_700_000_000, "n": 0}], shards)
        cluster.play([numbered(events)])
        assert len(cluster.records_of("matches")) == 2


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_many_passes_leave_a_rule_as_much_of_the_stack_as_one(shards: int) -> None:
    """Each event goes on from where the one before came to. Passes began within each other, and the rule found no stack left."""
    source = IMPORT + (
        "def deep(n):\n    return n and 1 + deep(n - 1)\n"
        "def rule(event):\n    if 'n' in event:\n        return increment_counter(f\"node {event['n']}{{x}}\") < 0\n"
        "    step = get_counter(f\"node {get_counter('at')}{{x}}\")\n    if step:\n        increment_counter('at', step)\n"
        "    return step == 1 and deep(700) == 700\n"
    )
    cluster = run(pack_of(R=source), [{"t": 1_700_000_000, "n": n} for n in range(100 * shards)], shards)
    for _ in range(shards):  # each leads once
        cluster.play([numbered([{"t": 1_700_000_000}] * 100)])

    assert cluster.records_of("errors") == []
    assert len(cluster.records_of("matches")) == 100 * shards


def test_an_event_goes_once_to_each_shard_that_owns_one_of_its_keys() -> None:
    cluster = Cluster(PACK, 4)
    cluster.start()
    routed: list[EventsRouted] = []
    handle = cluster.machines[0].handle
    effects = handle(cluster.cut(1, (Task(0, 0, Slice(0, 0, 0)),)))
    assert isinstance(effects[0], ReadSlice)
    records = Records([b'{"user":"alice","host":"h1","t":1700000000}'], [0], [], 0, True)
    for effect in handle(SliceRead(1, 0, records)):
        if isinstance(effect, Send) and isinstance(effect.message, EventsRouted):
            routed.append(effect.message)

    assert len(routed) == 3
    assert all(len(part.events) <= 1 for message in routed for part in message.slices)


def test_what_is_routed_early_goes_along_with_the_outcome_of_the_epoch_before_it() -> None:
    cluster = Cluster(PACK, 2)
    cluster.start()
    machine = cluster.machines[0]
    task, record = Task(0, 0, Slice(0, 0, 0)), b'{"user":"alice","host":"h1","t":1700000000}'
    for number in (1, 2, 3):
        machine.handle(cluster.cut(number, (task,)))

    (first,) = to_others(machine.handle(SliceRead(1, 0, Records([record], [0], [], 0, False))))
    assert isinstance(first, EventsRouted), "nothing goes before it"
    assert to_others(machine.handle(SliceRead(2, 0, Records([record], [100], [], 0, False)))) == []
    assert to_others(machine.handle(SliceRead(3, 0, Records([], [], [], 0, True)))) == []
    machine.validate()

    (executed,) = to_others(machine.handle(EventsRouted(1, 1, ())))
    assert isinstance(executed, EpochExecuted)
    assert executed.epoch == 1
    assert executed.routed is not None, "the third has to wait for the second"
    assert executed.routed.epoch == 2
    machine.handle(EventsRouted(2, 1, ()))
    (executed,) = to_others(machine.handle(EpochExecuted(1, 1, [], 0, [], EventsRouted(3, 1, ()))))
    assert isinstance(executed, EpochExecuted)
    assert executed.routed == EventsRouted(3, 0, executed.routed.slices if executed.routed else ())
    machine.validate()


def test_much_that_is_routed_early_is_on_its_way_at_once() -> None:
    cluster = Cluster(PACK, 2)
    cluster.start()
    machine, task = cluster.machines[0], Task(0, 0, Slice(0, 0, 0))
    for number in (1, 2):
        machine.handle(cluster.cut(number, (task,)))
    raws = [json.dumps({"t": 1_700_000_000, "user": f"u{n}"}).encode() for n in range(300)]

    (routed,) = to_others(machine.handle(SliceRead(2, 0, Records(raws, [n * 100 for n in range(300)], [], 0, True))))
    assert isinstance(routed, EventsRouted)
    machine.validate()
    machine.handle(SliceRead(1, 0, Records([], [], [], 0, False)))
    (executed,) = to_others(machine.handle(EventsRouted(1, 1, ())))
    assert isinstance(executed, EpochExecuted)
    assert executed.routed is None


def test_what_is_routed_early_to_a_shard_that_joins_goes_by_itself() -> None:
    cluster = Cluster(PACK, 2)
    cluster.start()
    machine, owners = cluster.machines[0], balanced(2, 64)
    machine.handle(EpochCut(1, (), False, 2, owners))

    assert to_others(machine.handle(EpochCut(2, (), False, 3, owners))) == []
    effects = machine.handle(EventsRouted(1, 1, ()))
    sent = [(effect.to, type(effect.message)) for effect in effects if isinstance(effect, Send) and effect.to != COORDINATOR]
    assert sent == [(1, EpochExecuted), (2, EventsRouted)]
    machine.validate()


def to_others(effects: Sequence[Effect]) -> list[Message]:
    return [effect.message for effect in effects if isinstance(effect, Send) and effect.to != COORDINATOR]


def test_an_evaluation_may_touch_keys_of_several_shards_and_runs_in_the_serial_lane_then() -> None:
    both = IMPORT + 'def rule(event):\n    increment_counter("a")\n    return increment_counter("b") == 2\n'
    cluster = run(pack_of(Both=both), [{"t": 1_700_000_000}] * 2, shards=4)

    assert {key: row.counter for key, row in cluster.keys().items()} == {"a": 2, "b": 2}
    assert [match["position"] for match in cluster.records_of("matches")] == [[0, 100]]


def test_two_keys_with_a_common_tag_may_be_used_together() -> None:
    both = IMPORT + 'def rule(event):\n    increment_counter("a{x}")\n    return increment_counter("b{x}") == 1\n'
    cluster = run(pack_of(Both=both), [{"t": 1_700_000_000}], shards=3)

    assert len(cluster.records_of("matches")) == 1
    assert set(cluster.keys()) == {"a{x}", "b{x}"}


@pytest.mark.parametrize(
    "swallow",
    ["try:\n        increment_counter('k')\n    except:\n        pass\n    return True",
     "try:\n        increment_counter('k')\n    finally:\n        return True"],
    ids=["bare except", "finally return"],
)  # fmt: skip
def test_a_rule_cannot_swallow_the_end_of_its_probe(swallow: str) -> None:
    cluster = run(pack_of(R=IMPORT + f"def rule(event):\n    {swallow}\n"), [{"t": 1_700_000_000}] * 3, shards=2)

    assert cluster.keys()["k"].counter == 3
    assert len(cluster.records_of("matches")) == 3


def test_a_helper_first_called_in_title_is_found_by_the_probe() -> None:
    source = IMPORT + 'def rule(event):\n    return True\ndef title(event):\n    return str(increment_counter("k"))\n'
    cluster = run(pack_of(R=source), [{"t": 1_700_000_000}] * 2, shards=3)

    assert [match["title"] for match in cluster.records_of("matches")] == ["1", "2"]


def test_a_helper_in_another_thread_is_a_rule_error() -> None:
    source = IMPORT + (
        "import threading\ndef quietly():\n    try:\n        increment_counter('k')\n    except BaseException:\n"
        "        pass\ndef rule(event):\n    t = threading.Thread(target=quietly)\n"
        "    t.start(); t.join()\n    return True\n"
    )
    cluster = run(pack_of(R=source), [{"t": 1_700_000_000}])

    assert [error["error"] for error in cluster.records_of("errors")] == ["ThreadError"]
    assert cluster.records_of("matches") == []


def test_a_rule_whose_keys_are_not_a_function_of_event_and_state_is_an_error_not_a_lane_without_end() -> None:
    source = IMPORT + (
        "import os\ndef rule(event):\n    known = f\"known {event['n']}\"\n    if not event.get('again'):\n"
        "        return increment_counter(known) < 0\n    increment_counter(os.urandom(8).hex())\n"
        "    return increment_counter(known) == 2\n"
    )
    cluster = run(pack_of(R=source), [{"t": 1_700_000_000, "n": n} for n in range(40)], shards=4)
    cluster.play([numbered([{"t": 1_700_000_000, "n": n, "again": 1} for n in range(40)])])

    assert {error["error"] for error in cluster.records_of("errors")} == {"KeyChanged"}
    assert len(cluster.records_of("errors")) + len(cluster.records_of("matches")) == 40


def test_writes_before_an_exception_stand() -> None:
    source = IMPORT + 'def rule(event):\n    increment_counter("k")\n    raise ValueError("no")\n'
    cluster = run(pack_of(R=source), [{"t": 1_700_000_000}] * 2)

    assert cluster.keys()["k"].counter == 2
    assert [e["location"] for e in cluster.records_of("errors")] == ["R.py:5", "R.py:5"]


def test_records_that_cannot_be_used_become_dead_letters_with_their_place_and_reason() -> None:
    cluster = run(PACK, [b"not json", b"[1]", b'{"t":"no time"}', {"t": 1_700_000_000, "bad": True}])

    letters = cluster.records_of("dead_letters")
    assert [letter["position"] for letter in letters] == [[0, 0], [0, 100], [0, 200]]
    assert "not JSON" in letters[0]["reason"]
    assert "an array" in letters[1]["reason"]
    assert letters[2]["raw"] == '{"t":"no time"}'
    assert [match["position"] for match in cluster.records_of("matches") if match["rule_id"] == "Plain"] == [[0, 300]]


def test_an_event_more_than_the_lateness_behind_w_has_its_clock_at_the_bound() -> None:
    source = IMPORT + 'def rule(event):\n    return increment_counter("k", 1, 3600) > 1\n'
    day = 86_400
    base = 1_700_000_000
    events = [{"t": base}, {"t": base + 3 * day}, {"t": base + 3 * day}, {"t": base + 5}, {"t": base + 2 * day + 10}]
    cluster = run(pack_of(R=source), events)

    # third: same hour as the second; fourth: clamped to base + 2 d, where the key lives until base + 3 d + 1 h
    assert [match["position"][1] for match in cluster.records_of("matches")] == [200, 300, 400]


def test_the_log_type_that_an_event_gives_itself_wins_over_that_of_its_partition() -> None:
    events: list[dict[str, Any] | bytes] = [
        {"t": 1_700_000_000, "bad": True, "p_log_type": "Other"},
        {"t": 1_700_000_000, "bad": True},
    ]

    assert [match["position"] for match in run(pack_of(Plain=PLAIN), events).records_of("matches")] == [[0, 100]]


@pytest.mark.parametrize("shards", [1, 3])
def test_events_of_one_record_are_told_apart_by_a_third_number_in_their_positions(shards: int) -> None:
    odd = IMPORT + 'def rule(event):\n    return increment_counter("k") % 2 == 1\n'
    pack = pack_of("Split", Odd=odd, Each="def rule(event):\n    return True\n")
    record = {"t": 1_700_000_000, "p_log_type": "Split", "events": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}
    cluster = run(pack, [record], shards)
    matches = [(match["rule_id"], match["position"], match["event_id"]) for match in cluster.records_of("matches")]

    assert matches == [
        ("Each", [0, 0, 0], "0:0:0"), ("Odd", [0, 0, 0], "0:0:0"), ("Each", [0, 0, 1], "0:0:1"),
        ("Each", [0, 0, 2], "0:0:2"), ("Odd", [0, 0, 2], "0:0:2"),
    ]  # fmt: skip


def test_an_alert_is_of_the_clock_at_which_it_was_raised_and_not_of_its_event_s_time() -> None:
    pack = pack_of(R="def rule(event):\n    return True\ndef title(event):\n    return event['user']\n")
    base, day = 1_700_000_000, 86_400
    events = [*[{"t": base + 3 * day, "user": "on time"}] * 2, {"t": base, "user": "late"}]
    on_time, late = run(pack, events).records_of("alerts")

    assert on_time["created_at"] == time_text(base + 3 * day)
    assert late["created_at"] == late["first_match_at"] == time_text(base + 2 * day)


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_who_looks_at_keys_sees_them_between_two_epochs_the_serial_lane_included(shards: int) -> None:
    both = IMPORT + 'def rule(event):\n    increment_counter("a")\n    return increment_counter("b") == 2\n'
    cluster = Cluster(pack_of(Both=both), shards)
    cluster.start()
    cluster.play([numbered([{"t": 1_700_000_000}])])
    cluster.held = []
    cluster.play([numbered([{"t": 1_700_000_000}] * 2)])
    cluster.look(StateWanted(1, None, limit=9))
    if shards > 1:
        assert cluster.told() == {}
    held, cluster.held = cluster.held, None
    for to, message in held:
        cluster.tell(to, message)

    assert {key: row.counter for key, row in cluster.told().items()} == {"a": 3, "b": 3}
    cluster.sent.clear()
    cluster.look(StateWanted(2, "b"))
    assert {key: row.counter for key, row in cluster.told().items()} == {"b": 3}


def test_keys_are_looked_up_by_prefix_in_order_with_their_number_and_without_what_expired() -> None:
    source = IMPORT + "def rule(event):\n    increment_counter(event['key'], 1, event['t'] + 60)\n"
    day = 86_400
    keys = [{"t": 1_700_000_000, "key": "n-old"}, *({"t": 1_700_000_000 + 2 * day, "key": f"n{n}"} for n in range(20))]
    cluster = run(pack_of(R=source), [*keys, {"t": 1_700_000_000 + 2 * day, "key": "other"}])
    cluster.look(StateWanted(1, None, "n", 3))
    cluster.look(StateWanted(2, "n-old"))

    by_prefix, expired = (message for message in cluster.sent if isinstance(message, StateTold))
    assert ([row.key for row in by_prefix.rows], by_prefix.found) == (["n0", "n1", "n10"], 20)
    assert (expired.rows, expired.found) == ([], 0)


def test_an_answer_about_keys_has_a_bounded_size_and_says_what_it_left_out() -> None:
    source = IMPORT + "def rule(event):\n    put_dictionary(event['key'], {'x': 'x' * 390_000}, 9999)\n"
    cluster = run(pack_of(R=source), [{"t": 1_700_000_000, "key": f"k{n:02}"} for n in range(30)])
    cluster.look(StateWanted(1, None, limit=30))

    (told,) = (message for message in cluster.sent if isinstance(message, StateTold))
    assert ([row.key for row in told.rows], told.found) == ([f"k{n:02}" for n in range(11)], 30)


def test_only_what_changed_goes_into_the_next_snapshot() -> None:
    cluster = Cluster(pack_of(Count=COUNT), 1)
    cluster.start()
    many = [{"t": 1_700_000_000, "user": f"u{n}"} for n in range(50)]
    cluster.play([numbered(many)], checkpoint=True)
    cluster.play([numbered([{"t": 1_700_000_001, "user": "u7"}])], checkpoint=True)

    base, delta = cluster.snapshots
    assert (len(base.keys), base.name.endswith("base")) == (50, True)
    assert (next(delta.keys.slices(9))[0], delta.name.endswith("delta")) == (["Count:u7"], True)
    added = [message for message in cluster.sent if isinstance(message, SnapshotAdded)]
    assert [blob.name for blob in added[-1].chain] == [base.name, delta.name]


def test_a_slice_without_times_asks_for_the_time_before_it() -> None:
    cluster = run(PACK, [{"bad": True}, {"t": 1_700_000_000, "bad": True}])

    assert SliceParsed(1, 0, 1_700_000_000.0) in cluster.sent
    assert next(m["event_time"] for m in cluster.records_of("matches")) == "1970-01-01T00:00:07Z"


def test_it_reports_what_it_read() -> None:
    cluster = run(PACK, [{"t": 1_700_000_000}, b"broken"])

    ingested = next(message for message in cluster.sent if isinstance(message, SliceIngested))
    assert (ingested.records, ingested.last_time_s) == (2, 1_700_000_000.0)
    assert isinstance(cluster.sent[0], ShardRestored)


def test_an_epoch_cut_twice_is_a_bug() -> None:
    cluster = Cluster(PACK, 2)
    cluster.start()
    cluster.machines[0].handle(cluster.cut(1, (Task(0, 1, Slice(0, 0, 0)),)))

    with pytest.raises(InvariantBroken, match="twice"):
        cluster.machines[0].handle(cluster.cut(1, (Task(0, 1, Slice(0, 0, 0)),)))


def test_a_snapshot_is_read_back_as_it_was_written() -> None:
    cluster = run(PACK, [{"t": 1_700_000_000, "user": "é", "host": "h"}] * 4)
    rows = list(cluster.keys().values())
    windows = [
        WindowRow("R", "d", 1.5, 60.0, "id", 2, False, b"{}", (b"\x00" * 16,)),
        WindowRow("R", "x", None, 0.0, "", 0, False, b"", ()),
    ]

    assert snapshot.decode(encoded(rows, windows)) == (rows, windows)


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:4], lambda b: b"XXXX" + b[4:], lambda b: b[:-1] + bytes([b[-1] ^ 1])],
    ids=["cut off", "not ours", "one bit"],
)
def test_a_damaged_snapshot_is_refused(damage: Any) -> None:
    with pytest.raises(CorruptSnapshot):
        snapshot.decode(damage(encoded([], [])))
