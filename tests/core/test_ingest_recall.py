"""Ingest recalls probes only where a rule cannot tell."""

from __future__ import annotations

import json

import pytest

from cluster.core import ingest
from cluster.core.ingest import Decoder, Ingest, IngestedSlice
from cluster.core.keygroups import balanced
from cluster.core.lines import offsets_of
from cluster.core.messages import Records
from cluster.core.poison import unwatched
from rules.evaluation import Evaluation, evaluate
from rules.event import PantherEvent
from rules.pack import Pack
from rules.rule import Outcome, Rule
from tests.core.test_shard import TYPES, pack_of

LOG = [json.dumps({"kind": kind, "user": "u", "t": 1_700_000_000 + n}).encode() for n, kind in enumerate("abaabba")]


def ingested(pack: Pack, log: list[bytes] = LOG) -> tuple[Decoder, IngestedSlice]:
    decoder = Decoder(TYPES, pack.context_of, plain=pack.names_event_class)
    machine = Ingest(pack, decoder, 64, unwatched())
    records = Records(log, offsets_of(log, 0), [], sum(map(len, log)) + len(log), True)
    done = machine.slice(0, 0, "p.jsonl", "T", records, None, balanced(1, 64), 1)
    assert isinstance(done, IngestedSlice)
    return decoder, done


COUNTING = """\
from panther_detection_helpers.caching import increment_counter
{imports}


def rule(event):
    return {condition}event.get("kind") == "a" and increment_counter(event.get("user")) > 0
"""


@pytest.mark.parametrize("known", [True, False], ids=["recalled", "told-apart"])
def test_events_are_of_the_class_that_a_pack_names(known: bool) -> None:
    named = {"imports": "from panther_core import PantherEvent\n", "condition": "type(event) is PantherEvent and "}
    pack = pack_of(R=COUNTING.format(**({"imports": "", "condition": ""} if known else named)))
    decoder, done = ingested(pack)

    routed = list(done.routed[0].events)
    assert len(routed) == 4
    for item in routed:
        event = decoder.routed(item, "p.jsonl")
        assert (event.get("kind"), event["t"]) == ("a", item[2])
        assert (type(event) is PantherEvent) is not known
        assert isinstance(event, PantherEvent)


def test_events_with_the_same_answers_share_what_is_known_of_them() -> None:
    _, done = ingested(pack_of(R=COUNTING.format(imports="", condition="")))

    first, *others = (item[7] for item in done.routed[0].events)
    assert first == {"kind": "a", "user": "u"}
    assert all(known is first for known in others)
    assert done.counts.probes == 4, "those that were recalled included"


NUMBERED = """\
from panther_detection_helpers.caching import increment_counter


def rule(event):
    return increment_counter(f"{event.get('n')} {event.get('m')}") > 0
"""


def test_long_integers_are_exact_for_rules_and_their_probes_are_run_each_time() -> None:
    numbers = [2**70, 2**70 + 1, 2**70, 2**63, 2**63, -(2**63) - 1, 2**64]
    log = [json.dumps({"n": n, "m": 0, "t": 1_700_000_000}).encode() for n in numbers]
    decoder, done = ingested(pack_of(R=NUMBERED), log)

    routed = list(done.routed[0].events)
    assert [item[7] for item in routed] == [{"n": n, "m": 0} for n in numbers]
    assert [decoder.routed(item, "p.jsonl").to_dict()["n"] for item in routed] == numbers
    assert routed[3][7] is routed[4][7], "an integer of 64 bits is remembered"
    assert routed[0][7] is not routed[2][7], "a longer one is not"


TELLING = """\
def rule(event):
    return event.get("kind") == "a"

def title(event):
    return f"{event.get('user')} did {event.get('kind')}"

def alert_context(event):
    return {"who": event.get("user")MORE}
"""


@pytest.mark.parametrize(
    ("more", "runs"),
    [
        ("", 2),
        (', "at": event.get("t")', 5),
        (', "all": event.to_dict()', 5),
        (', "long": event.get("user") * 5_000', 5),
    ],
    ids=["recalled", "another each time", "looks at all", "too long"],
)
def test_matches_are_recalled_where_the_same_was_asked(more: str, runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    log = [json.dumps({"kind": kind, "user": "u", "t": 1_700_000_000 + n}).encode() for n, kind in enumerate("abaaba")]
    log.append(json.dumps({"kind": "a", "user": "v", "t": 1_700_000_000, "p_row_id": "own"}).encode())
    pack = pack_of(R=TELLING.replace("MORE", more))
    ran: list[object] = []

    def noted(rule: Rule, event: PantherEvent, evaluation: Evaluation) -> Outcome:
        ran.append(rule)
        return evaluate(rule, event, evaluation)

    monkeypatch.setattr(ingest, "evaluate", noted)
    _, done = ingested(pack, log)
    named = pack_of(R=TELLING.replace("MORE", more) + "KIND = 'PantherEvent'\n")
    _, expected = ingested(named, log)

    assert done.matches == expected.matches
    assert len(done.matches) == 5
    assert done.counts.evaluations == 5
    assert done.matches[-1].found.event_id == "own"
    assert len(ran) == runs + 5, "the second time all that match were run"
