"""Lines that no rule can match are not parsed, and nothing but counters and dead letters shows it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.core.ingest import Decoder, FinalMatch, Ingest, IngestedSlice, NeedsTime
from cluster.core.keygroups import balanced
from cluster.core.lines import offsets_of
from cluster.core.messages import Lines, Records
from cluster.core.poison import unwatched
from cluster.core.prefilter import Prefilter
from cluster.core.routed import RoutedEvent
from rules.pack import Pack
from tests.core.test_shard import IMPORT, TYPES, pack_of

GUARDED = IMPORT + (
    'def rule(event):\n    if event.get("kind") not in {"denied", "a b"}:\n        return False\n'
    '    return increment_counter("k:" + str(event.get("user"))) > 1\n'
)
PLAIN = 'def rule(event):\n    return event.get("kind") == "bad"\n'


def ingest(pack: Pack, lines: list[bytes], *, prefilter: bool, uncut: bool = False) -> IngestedSlice | NeedsTime:
    machine = Ingest(pack, Decoder(TYPES, pack.context_of), 64, unwatched(), use_prefilter=prefilter)
    data = b"".join(line + b"\n" for line in lines)
    if uncut:
        half = data.rfind(b"\n", 0, len(data) // 2) + 1
        parts = [Lines(0, data, half), Lines(half, data[half:-1], len(data) - half - 1)]
        records = Records([], [], [], len(data), True, [part for part in parts if part.end > 0])
    else:
        records = Records(lines, offsets_of(lines, 0), [], len(data), True)
    return machine.slice(0, 0, "p.jsonl", "T", records, None, balanced(3, 64), 3)


def routed(done: IngestedSlice) -> list[list[RoutedEvent]]:
    """What goes where, but for the places, of which only the order counts."""
    for part in done.routed:
        places = [event.place for event in part.events]
        assert places == sorted(set(places))
    return [[event._replace(place=0) for event in part.events] for part in done.routed]


def matched(done: IngestedSlice) -> list[FinalMatch]:
    """Which matches there are, again but for the places."""
    orders = [match.found.order for match in done.matches]
    assert orders == sorted(orders)
    return [match._replace(found=match.found._replace(order=(0, 0, match.found.order[2]))) for match in done.matches]


PACK = pack_of(A=GUARDED, B=PLAIN)
KINDS = st.sampled_from(["denied", "bad", "a b", "Denied", "other", "", 'de"nied', "den\\ied", "denïed"])
SPELLINGS = st.sampled_from(
    [
        lambda event: json.dumps(event).encode(),
        lambda event: json.dumps(event, ensure_ascii=False).encode(),
        lambda event: json.dumps(event, indent=1).replace("\n", " ").encode(),
        lambda event: json.dumps(event).replace("denied", "\\u0064enied").encode(),
        lambda event: json.dumps(event).replace("bad", "b\\u0061d").encode() + b"\r",
        lambda event: json.dumps({"kind": "other", **event}).encode() + b" ",
    ]
)
LINES = st.lists(
    st.one_of(
        st.builds(
            lambda spell, event: spell(event),
            SPELLINGS,
            st.fixed_dictionaries(
                {},
                optional={
                    "kind": KINDS,
                    "KIND": KINDS,
                    "user": st.sampled_from(["u", "denied"]),
                    "t": st.integers(1_700_000_000, 1_700_009_000),
                    "p_log_type": st.sampled_from(["T", "Other"]),
                },
            ),
        ),
        st.sampled_from([b"broken", b'{"t":1700000000', b"[]", b'{"kind":"denied","t":"never"}', b"7"]),
    ),
    max_size=20,
)


@settings(max_examples=400, deadline=None)
@given(LINES, st.booleans(), st.booleans())
def test_a_slice_comes_to_the_same_with_and_without(lines: list[bytes], uncut: bool, uncut_without: bool) -> None:
    with_it = ingest(PACK, lines, prefilter=True, uncut=uncut)
    without = ingest(PACK, lines, prefilter=False, uncut=uncut_without)

    if isinstance(without, NeedsTime) or isinstance(with_it, NeedsTime):
        # without it any event may ask; with it only one that is parsed
        assert isinstance(without, NeedsTime)
        assert not isinstance(with_it, NeedsTime) or with_it == without
        return
    assert routed(with_it) == routed(without)
    assert with_it.times[1:] == without.times[1:]
    assert matched(with_it) == matched(without)
    assert with_it.last_time_s == without.last_time_s
    assert with_it.counts.events == without.counts.events
    assert {letter.position for letter in with_it.dead_letters} <= {letter.position for letter in without.dead_letters}


def test_what_no_rule_can_match_is_skipped_and_counted() -> None:
    lines = [b'{"kind":"other","t":1700000000}', b'{"kind":"denied","user":"u","t":1700000001}', b'{"t":1700000002}']
    done = ingest(PACK, lines, prefilter=True)

    assert isinstance(done, IngestedSlice)
    assert (done.counts.events, done.counts.skipped_unparsed) == (3, 2)
    assert done.last_time_s == 1_700_000_002.0


def test_without_it_every_line_that_cannot_be_used_is_a_dead_letter() -> None:
    lines = [b'{"kind":"other","t":"never"}', b'{"kind":other}']
    with_it, without = (ingest(PACK, lines, prefilter=prefilter) for prefilter in (True, False))

    assert isinstance(with_it, IngestedSlice)
    assert isinstance(without, IngestedSlice)
    assert with_it.dead_letters == []
    assert [letter.position for letter in without.dead_letters] == [(0, 0), (0, 29)]


def test_an_event_without_a_time_takes_that_of_a_skipped_one() -> None:
    lines = [b'{"kind":"other","t":1700000005}', b"broken", b'{"kind":"bad"}']
    done = ingest(PACK, lines, prefilter=True)

    assert isinstance(done, IngestedSlice)
    assert [match.found.event_time_s for match in done.matches] == [1_700_000_005.0]
    assert len(done.dead_letters) == 1


def test_a_rule_without_a_guard_makes_every_line_parsed() -> None:
    done = ingest(pack_of(A=GUARDED, B="def rule(event):\n    return False\n"), [b'{"t":1700000000}'], prefilter=True)

    assert isinstance(done, IngestedSlice)
    assert done.counts.skipped_unparsed == 0


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a/b", "ä", "a\nb", ""])
def test_a_text_with_several_spellings_makes_no_prefilter(text: str) -> None:
    assert Prefilter.of(["plain", text]) is None


def test_any_number_of_texts_is_looked_for_at_once() -> None:
    prefilter = Prefilter.of(f"text {n}" for n in range(2000))

    assert prefilter is not None
    assert prefilter.records([b'{"a":"text 1999"}', b'{"a":"text 2000"}', b'{"a":"text"}']) == [0]


@pytest.mark.parametrize(
    ("line", "skipped"),
    [
        (b'{"a":"b"}', True),
        (b'{"a":"b"}\r', True),
        (b'{"a":"denied"}', False),
        (b'{"a":"\\u0064enied"}', False),
        (b'{"a":"x\\/y"}', False),
        (b'{"a":"b","p_log_type":"T"}', False),
        (b'{"a":"b"', False),
        (b"nonsense", False),
        (b'[{"a":"b"}]', False),
        (b'\xef\xbb\xbf{"a":"b"}', False),
    ],
)
def test_only_a_whole_plain_object_without_the_texts_is_skipped(line: bytes, skipped: bool) -> None:
    prefilter = Prefilter.of(["denied"])

    assert prefilter is not None
    assert (prefilter.records([line]) == []) is skipped
    for before, after in ((b"", b""), (b'{"c":1}\n', b"\n"), (b'{"c":"denied"}\n', b'\n{"d":"denied"}\n{"e":')):
        data = before + line + after
        end = len(data) if not after else data.rfind(b"\n") + 1
        found = prefilter.lines(Lines(0, data, end))
        assert (found is not None and line not in [data[start:stop] for start, stop in zip(*found, strict=True)]) is skipped


def test_the_rules_that_keep_the_prefilter_away_are_counted_with_what_was_parsed_for_them() -> None:
    lines = [b'{"kind":"other","t":1700000000}', b'{"kind":"denied","user":"u","t":1700000001}']
    unguarded = ingest(pack_of(A=GUARDED, B="def rule(event):\n    return len(event) > 7\n"), lines, prefilter=True)
    guarded = ingest(PACK, lines, prefilter=True)

    assert isinstance(unguarded, IngestedSlice)
    assert isinstance(guarded, IngestedSlice)
    assert {rule_id: each.parsed for rule_id, each in unguarded.counts.rules.items()} == {"B": 2}
    assert guarded.counts.rules == {}
