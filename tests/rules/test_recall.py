"""What is recalled of an event or of a probe is what asking again would have given."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules import recall
from rules.evaluation import NO_MATCH, REACHED, Evaluation, evaluate
from rules.event import MISSING, PantherEvent
from rules.logtypes import load_definitions, shipped_definitions
from rules.recall import Known, Recall, RecalledEvent, RecordedEvent, Room
from tests.rules.making import make_rule

CLOUDTRAIL = load_definitions(shipped_definitions())["AWS.CloudTrail"]
TIME_S = 1_709_294_400.0

NAMES = ("a", "A", "b", "p_log_type", "P_any_ip_addresses", "p_event_time", "sourceIPAddress")
names = st.sampled_from(NAMES)
scalars = st.sampled_from([None, True, False, 0, 1, 0.0, -0.0, 1.0, 2**70, "", "1", "x", "10.0.0.1"])
values = st.one_of(
    scalars,
    scalars,
    st.lists(scalars, max_size=2),
    st.dictionaries(names, st.one_of(scalars, st.just({"a": 1})), max_size=3),
)
events = st.dictionaries(names, values, max_size=5)

Question = Callable[[PantherEvent], Any]


def _questions() -> st.SearchStrategy[tuple[str, Question]]:
    paths = st.lists(names, min_size=1, max_size=3)
    return st.one_of(
        names.map(lambda name: (f"get {name}", lambda event: event.get(name, "default"))),
        names.map(lambda name: (f"[{name}]", lambda event: event[name])),
        names.map(lambda name: (f"{name} in", lambda event: name in event)),
        paths.map(lambda path: (f"deep_get {path}", lambda event: event.deep_get(*path, default="default"))),
        paths.map(lambda path: (f"deep_walk {path}", lambda event: event.deep_walk(*path))),
        paths.map(lambda path: (f"udm {path}", lambda event: event.udm(*path))),
        st.sampled_from(
            [
                ("list", list),
                ("len", len),
                ("to_dict", lambda event: event.to_dict()),
                ("repr", repr),
                ("bool", bool),
                ("equal", lambda event: event == event.to_dict()),
                ("items", lambda event: list(event.items())),
                ("epoch", lambda event: event.event_time_epoch()),
                ("lookup", lambda event: event.lookup("t", "k")),
                ("deepcopy", lambda event: copy.deepcopy(event).to_dict()),
                ("copy", lambda event: copy.copy(event).to_dict()),
                ("nothing", lambda event: event.deep_get() is event),
                ("odd", lambda event: event.get(3)),
                ("odd path", lambda event: event.deep_get("a", ["b"])),
                ("attribute", lambda event: event.eventName),
                ("type", lambda event: f"{type(event)} {type(event).__name__}"),
                ("too much", lambda event: event.get("a", "b", "c")),
                ("too much deep", lambda event: event.deep_get("a", fallback="b")),
                ("too much in", lambda event: event.__contains__()),
                ("too much []", lambda event: event.__getitem__()),
                ("too much epoch", lambda event: event.event_time_epoch(1)),
            ]
        ),
    )


questions = st.lists(_questions(), max_size=6)


def _answer(event: PantherEvent, question: Question) -> str:
    try:
        answer = question(event)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return f"{type(answer).__name__}: {answer!r}"


def _plain(data: dict[str, Any]) -> PantherEvent:
    return PantherEvent(data, CLOUDTRAIL.derive(data, TIME_S, (0, 7), "s"), None)


def _recorded(data: dict[str, Any]) -> RecordedEvent:
    return RecordedEvent(data, CLOUDTRAIL.derive(data, TIME_S, (0, 7), "s"), None)


@given(events, questions, questions)
def test_recorded_and_recalled_events_answer_as_any_event_does(
    data: dict[str, Any], before: list[tuple[str, Question]], after: list[tuple[str, Question]]
) -> None:
    plain, recorded = _plain(data), _recorded(data)
    for what, question in before:
        assert _answer(recorded, question) == _answer(plain, question), what

    known = pickle.loads(pickle.dumps(recorded.known))
    epoch_s = _plain(data).event_time_epoch()
    recalled = RecalledEvent(known, epoch_s, lambda data: (data, CLOUDTRAIL.derive(data, TIME_S, (0, 7), "s")), data, None)
    for what, question in [*after, *before]:
        assert _answer(recalled, question) == _answer(plain, question), what
    assert known == recorded.known, "known values are shared between events"


def test_a_recalled_event_is_parsed_only_where_more_is_asked_than_is_known() -> None:
    parsed: list[int] = []

    def parse(_: None) -> tuple[dict[str, Any], None]:
        parsed.append(1)
        return {"a": "x", "b": {"c": 1}, "d": 2}, None

    event = RecalledEvent({"a": "x", "absent": MISSING, ("b", "c"): 1, ("b", "d"): None}, 7, parse, None, None)

    assert (event["a"], event.get("absent", 3), event.deep_get("b", "c"), event.event_time_epoch()) == ("x", 3, 1, 7)
    assert event.deep_get("b", "d", default=5) == 5
    assert "absent" not in event
    assert parsed == []
    assert (event["d"], list(event)) == (2, ["a", "b", "d"])
    assert parsed == [1]


OPAQUE: dict[str, Question] = {
    "nested": lambda event: event.get("nested"),
    "deep nested": lambda event: event.deep_get("nested"),
    "list in it": lambda event: event.deep_get("nested", "inner"),
    "item": lambda event: event["items"],
    "derived": lambda event: event.get("p_log_type"),
    "derived, folded": lambda event: event.get("P_Event_Time"),
    "deep derived": lambda event: event.deep_get("p_row_id"),
    "derived in": lambda event: "p_any_ip_addresses" in event,
    "epoch": lambda event: event.event_time_epoch(),
    "walk": lambda event: event.deep_walk("a"),
    "lookup": lambda event: event.lookup("table", "key"),
    "to_dict": lambda event: event.to_dict(),
    "len": lambda event: len(event),
    "bool": lambda event: bool(event),
    "list": list,
    "repr": repr,
    "equal": lambda event: event == {},
    "copy": copy.copy,
}


@pytest.mark.parametrize("what", OPAQUE)
def test_what_is_more_than_a_value_of_the_event_makes_it_opaque(what: str) -> None:
    event = _recorded({"a": 1, "nested": {"inner": [1], "b": 2}, "items": [1]})
    OPAQUE[what](event)

    assert event.opaque
    event.begin()
    assert (event.get("a"), event.get("B"), event.deep_get("nested", "b"), "c" in event) == (1, None, 2, False)
    assert not event.opaque
    assert event.known == {"a": 1, "B": MISSING, ("nested", "b"): 2, "c": MISSING}


def test_enrichment_is_a_field_like_others_where_no_table_gives_any() -> None:
    class Context:
        model = None
        enriches = False

        def enrichment(self, event: dict[str, Any]) -> dict[str, Any]:
            raise AssertionError

        def lookup(self, table: str, key: Any) -> Any:
            raise AssertionError

    context = Context()
    event = RecordedEvent({"a": 1}, None, context)

    assert event.deep_get("p_enrichment", "table") is event.get("p_enrichment") is None
    assert not event.opaque
    context.enriches = True
    event = RecordedEvent({"a": 1, "p_enrichment": None}, None, context)
    assert event.get("p_enrichment") is None
    assert event.opaque


RULES = (
    "return event.get('a') == 1 and increment_counter(f\"{event.get('a')!r}\") > 0",
    "return event.get('a') is True and event.deep_get('b', 'a') == 'x' and increment_counter('k') > 0",
    "return increment_counter(f\"{event.deep_get('b', 'A', default=7)!r}{'A' in event}\") > 0",
    "return increment_counter('always') > 0",
    "return False",
    "return bool(event.get('b')) and increment_counter('nested') > 0",
    "return increment_counter(str(event.get('p_event_time'))) > 0",
    "return increment_counter(str(event.event_time_epoch())) > 0",
    "return increment_counter(str(time.time())) > 0",
    "return event.get('a') == 'x' and random.random() < 0.5",
    "return uuid.uuid4().int % 2 == 0 and increment_counter('k') > 0",
    "return datetime.datetime.now().second % 2 == 0 and increment_counter(str(event.get('A'))) > 0",
    "CALLS.append(1)\n    return len(CALLS) > 1 or increment_counter(str(len(CALLS))) > 0",
    "try:\n        increment_counter(str(event.get('a')))\n    except BaseException:\n        pass\n"
    "    return event.get('b') is None",
    "return event['a'] == 1",
)
HEAD = (
    "import datetime, random, time, uuid\nfrom panther_detection_helpers.caching import increment_counter\nCALLS = []\n"
)


@given(st.sampled_from(RULES), st.lists(st.tuples(events, st.integers(0, 3)), min_size=1, max_size=12))
def test_a_recalled_probe_is_what_running_it_gives(body: str, log: list[tuple[dict[str, Any], int]]) -> None:
    title = "def title(event):\n    return f\"{event.get('b')} {event.get('sourceIPAddress')}\"\n"
    rule = make_rule(f"{HEAD}\n\ndef rule(event):\n    {body}\n\n{title}")
    remembered: Recall[Any] = Recall(Room(8))
    evaluation = Evaluation(None)
    for place, (data, second) in enumerate(log):
        found = remembered.find(data, [])
        evaluation.begin_event(TIME_S + second, (0, place))
        event = RecordedEvent(data, CLOUDTRAIL.derive(data, TIME_S + second, (0, place), "s"), None)
        outcome = evaluate(rule, event, evaluation)
        came_to = (outcome, evaluation.key, event.known if outcome is REACHED else None)
        if found is not None:
            assert repr(found) == repr(came_to)
            assert (found[0] is NO_MATCH, found[0] is REACHED) == (outcome is NO_MATCH, outcome is REACHED)
        else:
            remembered.learn_from(event, outcome, evaluation, came_to)


def test_what_came_once_is_recalled() -> None:
    remembered: Recall[int] = Recall(Room(8))
    known: Known = {"name": "x", ("who", "arn"): "me", "error": MISSING, "count": 1}
    remembered.learn(known, 5)

    assert remembered.find({"Name": "x", "who": {"ARN": "me"}, "count": 1}, []) == 5
    for other in (
        {"name": "y"},
        {"name": "x", "who": {"arn": "me"}, "count": True},
        {"name": "x", "who": "me", "count": 1},
    ):
        assert remembered.find(other, []) is None


def test_probes_that_ask_for_different_things_after_the_same_answers_are_not_recalled() -> None:
    for more in ({"a": 1, "c": 1}, {"a": 1}, {"b": 1}, {}):
        remembered: Recall[int] = Recall(Room(8))
        remembered.learn({"a": 1, "b": 1}, 5)
        remembered.learn(more, 5)
        assert remembered.off, more
        assert remembered.find({"a": 1, "b": 1}, []) is None


@pytest.mark.parametrize("value", [0.0, "x" * 513], ids=["float", "long"])
def test_floats_and_long_texts_are_not_recalled(value: Any) -> None:
    remembered: Recall[int] = Recall(Room(8))
    remembered.learn({"a": value}, 5)

    assert remembered.find({"a": value}, []) is None


@pytest.mark.parametrize("look", ["event.original", "event.raw", "event.to_dict()", "event"])
def test_a_match_that_looks_at_the_whole_event_is_not_recalled(look: str) -> None:
    rule = make_rule(f"def rule(event):\n    return event.get('a') == 1\n\ndef title(event):\n    return str({look})\n")
    remembered: Recall[int] = Recall(Room(8))
    evaluation = Evaluation(None)
    event = RecordedEvent({"a": 1, "n": 1}, None, None)
    remembered.learn_from(event, evaluate(rule, event, evaluation), evaluation, 5)

    assert remembered.find({"a": 1, "n": 2}, []) is None


def test_what_goes_along_with_an_event_is_small() -> None:
    small: Known = {"a": "x" * 4000, "b": MISSING}

    assert recall.light(small) is small
    assert recall.light({"a": "x" * 4000, ("b", "c"): "x" * 97}) == {}
    assert recall.light({str(number): number for number in range(65)}) == {}


def test_remembering_is_given_up_where_events_do_not_repeat_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "_WINDOW_MISSES", 10)
    unique: Recall[int] = Recall(Room(100))
    hot: Recall[int] = Recall(Room(100))
    for number in range(40):
        unique.find({"a": number}, [])
        unique.learn({"a": number}, 1)
        for value in (number, 0, 0):
            if hot.find({"a": value}, []) is None:
                hot.learn({"a": value}, 1)

    assert unique.off
    assert not hot.off


def test_what_is_remembered_has_a_limit_and_makes_room_for_what_comes_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "_WINDOW_MISSES", 10)
    remembered: Recall[int] = Recall(Room(5))

    def recalled() -> list[int]:
        return [number for number in range(12) if remembered.find({"a": number}, [])]

    for number in range(9):
        for _ in range(3):
            if remembered.find({"a": number}, []) is None:
                remembered.learn({"a": number}, 1)
        assert len(recalled()) <= 5
    for number in range(9, 12):
        if remembered.find({"a": number}, []) is None:
            remembered.learn({"a": number}, 1)
    assert not remembered.off
    assert recalled() == [6, 7, 8, 9, 10]


def test_json_values_come_back_equal_from_where_they_are_sent() -> None:
    known: Known = {"a": MISSING, ("b", "c"): None, "d": 2**70, "e": "\ud800"}

    again = pickle.loads(pickle.dumps(known, pickle.HIGHEST_PROTOCOL))

    assert again == known
    assert again["a"] is MISSING
    assert json.dumps(again["d"]) == str(2**70)
