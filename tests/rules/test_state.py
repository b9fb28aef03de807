"""What the caching helpers do to state: the expiry argument, and every row of the table of the helpers' behaviour."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rules.evaluation import Evaluation, evaluate
from rules.event import PantherEvent
from rules.pack import load_pack
from rules.segment import Image
from rules.state import MAX_KEY_BYTES, MAX_VALUE_BYTES, NEW_KEY_TTL_S, RELATIVE_BELOW_S, Row, State, check_key
from tests.capturing import take_dirty

NOW_S = 1_700_000_000
KEY = "Some.Rule:alice"


@pytest.fixture
def state() -> Iterator[State]:
    made = State()
    made.clock_s = float(NOW_S)
    made.begin()
    yield made
    made.validate()


def expiry_s(state: State, key: str = KEY) -> int | None:
    return state.row(key).expiry_s


def images_of(state: State) -> dict[str, Image]:
    """What dirty keys were."""
    return {key: image for segment in state._segments for key, image in segment.dirty.items()}


def expired(state: State) -> State:
    """The same state, one second after the expiry of KEY."""
    at_s = expiry_s(state)
    assert at_s is not None
    state.clock_s = at_s + 1.0
    return state


# --- the expiry argument ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epoch_seconds", "expected_s"),
    [
        pytest.param(3600, NOW_S + 3600, id="an int below 1e9 counts from the clock"),
        pytest.param(RELATIVE_BELOW_S - 1, NOW_S + RELATIVE_BELOW_S - 1, id="the last relative second"),
        pytest.param(RELATIVE_BELOW_S, RELATIVE_BELOW_S, id="1e9 is a date"),
        pytest.param(28 * 86_400, NOW_S + 28 * 86_400, id="four weeks are relative, which 0.4.0 took for 1970"),
        pytest.param(NOW_S + 3600, NOW_S + 3600, id="a date stays"),
        pytest.param(NOW_S + 3600.9, NOW_S + 3600, id="a float is cut"),
        pytest.param(RELATIVE_BELOW_S - 0.5, NOW_S + RELATIVE_BELOW_S - 1, id="a float is cut before it is compared"),
        pytest.param("3600", NOW_S + 3600, id="text"),
        pytest.param(f"{NOW_S + 3600}.75", NOW_S + 3600, id="text of a float"),
        pytest.param("1e3", NOW_S + 1000, id="text with an exponent"),
        pytest.param(True, NOW_S + 1, id="a bool counts as an int"),
        pytest.param(0, NOW_S, id="0 is now"),
        pytest.param(-60, NOW_S - 60, id="a negative is past"),
        pytest.param("-60.9", NOW_S - 60, id="negative text"),
        pytest.param(None, NOW_S + NEW_KEY_TTL_S, id="None is 90 days for a new key"),
    ],
)
def test_the_expiry_argument_is_a_date_or_counts_from_the_clock(
    state: State, epoch_seconds: object, expected_s: int
) -> None:
    state.increment_counter(KEY, 1, epoch_seconds)

    assert expiry_s(state) == expected_s


def test_a_relative_expiry_counts_from_the_whole_second_of_the_clock(state: State) -> None:
    state.clock_s = NOW_S + 0.9
    state.increment_counter(KEY, 1, 60)

    assert expiry_s(state) == NOW_S + 60


@pytest.mark.parametrize("epoch_seconds", [0, "0", -1, NOW_S, NOW_S - 1], ids=repr)
def test_a_key_given_an_expiry_that_is_not_after_the_clock_is_expired_at_once(
    state: State, epoch_seconds: object
) -> None:
    assert state.increment_counter(KEY, 5, epoch_seconds) == 5
    assert state.get_counter(KEY) == 0


@pytest.mark.parametrize(
    "epoch_seconds", ["abc", "", "inf", "nan", "1e400", math.inf, math.nan, 2**63, -1e300], ids=repr
)
def test_a_number_that_is_no_time_is_a_value_error(state: State, epoch_seconds: object) -> None:
    with pytest.raises(
        ValueError, match=r"^increment_counter: the key 'Some\.Rule:alice': epoch_seconds .* is no time:"
    ):
        state.increment_counter(KEY, 1, epoch_seconds)


@pytest.mark.parametrize(
    "epoch_seconds", [[3600], {}, b"3600", 3600j, object()], ids=lambda value: type(value).__name__
)
def test_what_is_no_number_is_a_type_error_and_not_90_days(state: State, epoch_seconds: object) -> None:
    with pytest.raises(TypeError, match=r"^add_to_string_set: .* of type \w+ is no time: pass seconds"):
        state.add_to_string_set(KEY, "a", epoch_seconds)


Write = Callable[[State, object], object]
"""A write to KEY, given an epoch_seconds."""

WRITES: dict[str, Write] = {
    "increment_counter": lambda state, expiry: state.increment_counter(KEY, 1, expiry),
    "put_string_set": lambda state, expiry: state.put_string_set(KEY, ["a", "b"], expiry),
    "add_to_string_set": lambda state, expiry: state.add_to_string_set(KEY, ["a", "b"], expiry),
    "put_dictionary": lambda state, expiry: state.put_dictionary(KEY, {"a": 1}, expiry),
    "set_key_expiration": lambda state, expiry: state.set_key_expiration(KEY, expiry),
}
every_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)


@every_write
def test_every_writer_gives_a_new_key_90_days_unless_told_otherwise(state: State, write: Write) -> None:
    write(state, None)
    assert expiry_s(state) == NOW_S + NEW_KEY_TTL_S


@every_write
def test_every_writer_keeps_a_live_key_s_expiry_unless_told_otherwise(state: State, write: Write) -> None:
    state.increment_counter(KEY, 1, 60)
    write(state, None)
    assert expiry_s(state) == NOW_S + 60

    write(state, 10)
    assert expiry_s(state) == NOW_S + 10


@every_write
def test_every_writer_starts_an_expired_key_afresh(state: State, write: Write) -> None:
    state.put_dictionary(KEY, {"old": True}, 60)
    state.add_to_string_set(KEY, "old")
    state.increment_counter(KEY, 9)
    write(expired(state), None)

    fresh = State()
    fresh.clock_s = state.clock_s
    write(fresh, None)
    assert state.row(KEY) == fresh.row(KEY)


@every_write
def test_a_write_that_raises_has_changed_nothing(state: State, write: Write) -> None:
    state.increment_counter(KEY, 9, 60)
    take_dirty(expired(state))
    before = state.row(KEY)

    with pytest.raises(ValueError, match="is no time"):
        write(state, "soon")
    assert state.row(KEY) == before
    assert not take_dirty(state)


# --- counters ---------------------------------------------------------------------------------------


def test_increment_of_a_new_key_returns_val_as_an_int(state: State) -> None:
    counts = [state.increment_counter("one"), state.increment_counter("seven", 7)]

    assert counts == [1, 7]
    assert [type(count) for count in counts] == [int, int]


def test_counts_are_ints_that_json_can_write_and_a_missing_one_is_0(state: State) -> None:
    state.increment_counter(KEY)
    state.increment_counter(KEY)

    assert json.dumps([state.get_counter(KEY), state.get_counter("missing")]) == "[2, 0]"


def test_increment_of_an_expired_counter_starts_again_and_forgets_the_stale_count(state: State) -> None:
    state.increment_counter(KEY, 9, 60)
    expired(state)

    assert [state.increment_counter(KEY), state.increment_counter(KEY)] == [1, 2]


def test_increment_without_expiry_leaves_the_expiry_of_a_live_counter(state: State) -> None:
    state.increment_counter(KEY, 1, 60)
    state.increment_counter(KEY, 1, None)

    assert expiry_s(state) == NOW_S + 60


def test_increments_without_expiry_on_a_new_key_count_1_2_3(state: State) -> None:
    assert [state.increment_counter(KEY, 1, None) for _ in range(3)] == [1, 2, 3]


def test_whatever_is_expired_reads_as_absent_at_once(state: State) -> None:
    state.put_dictionary(KEY, {"a": 1}, 60)
    state.add_to_string_set(KEY, "a")
    state.increment_counter(KEY)
    expired(state)

    assert (state.get_counter(KEY), state.get_string_set(KEY), state.get_dictionary(KEY)) == (0, set(), {})


def test_a_key_is_expired_from_its_expiry_on_and_not_a_moment_earlier(state: State) -> None:
    state.increment_counter(KEY, 1, 60)
    state.clock_s = NOW_S + 59.999
    assert state.get_counter(KEY) == 1

    state.clock_s = NOW_S + 60.0
    assert state.get_counter(KEY) == 0
    assert state.increment_counter(KEY) == 1


def test_a_late_event_still_sees_a_key_that_has_expired_for_others(state: State) -> None:
    state.increment_counter(KEY, 3, 60)
    expired(state)
    assert state.get_counter(KEY) == 0

    state.clock_s = NOW_S + 30.0
    assert state.increment_counter(KEY) == 4


@pytest.mark.parametrize("val", [1.0, "1", None, True, 1_700_000_060.5], ids=repr)
def test_increment_by_what_is_no_int_is_a_type_error(state: State, val: Any) -> None:
    with pytest.raises(
        TypeError, match=r"^increment_counter: the key 'Some\.Rule:alice': val .* is no int: count whole"
    ):
        state.increment_counter(KEY, val)


def test_increment_by_0_and_by_negatives_works(state: State) -> None:
    assert [state.increment_counter(KEY, val) for val in (5, 0, -7)] == [5, 5, -2]


@pytest.mark.parametrize(("limit", "beyond"), [(2**63 - 1, 1), (-(2**63), -1)])
def test_a_count_beyond_64_bits_is_a_value_error_and_the_last_one_before_it_stays(
    state: State, limit: int, beyond: int
) -> None:
    assert state.increment_counter(KEY, limit) == limit
    with pytest.raises(ValueError, match="beyond 64 bits: reset the counter"):
        state.increment_counter(KEY, beyond)
    assert state.get_counter(KEY) == limit


# --- string sets ------------------------------------------------------------------------------------


def test_add_to_an_expired_set_holds_the_new_member_only(state: State) -> None:
    state.add_to_string_set(KEY, ["a", "b"], 60)

    assert expired(state).add_to_string_set(KEY, "c") == {"c"}
    assert state.get_string_set(KEY) == {"c"}


def test_remove_from_an_expired_set_returns_nothing_and_leaves_the_key_expired(state: State) -> None:
    state.add_to_string_set(KEY, ["a", "b"], 60)

    assert expired(state).remove_from_string_set(KEY, "a", 3600) == set()
    assert expiry_s(state) == NOW_S + 60


def test_remove_takes_out_the_member_and_not_the_whole_set(state: State) -> None:
    state.add_to_string_set(KEY, ["a", "b", "c"])

    assert state.remove_from_string_set(KEY, ["a", "c"]) == {"b"}
    assert state.get_string_set(KEY) == {"b"}


@pytest.mark.parametrize("method", [State.add_to_string_set, State.remove_from_string_set])
def test_add_and_remove_without_expiry_keep_the_expiry(state: State, method: Callable[..., set[str]]) -> None:
    state.add_to_string_set(KEY, ["a", "b"], 60)
    method(state, KEY, "b")

    assert expiry_s(state) == NOW_S + 60


@pytest.mark.parametrize("method", [State.add_to_string_set, State.remove_from_string_set])
def test_add_and_remove_with_an_expiry_move_it_even_if_no_member_changes(
    state: State, method: Callable[..., set[str]]
) -> None:
    state.add_to_string_set(KEY, ["a", "b"], 60)
    method(state, KEY, "b" if method is State.add_to_string_set else "absent", 3600)

    assert expiry_s(state) == NOW_S + 3600


def test_add_of_a_member_that_is_there_returns_the_full_set(state: State) -> None:
    state.add_to_string_set(KEY, ["a", "b"])

    assert state.add_to_string_set(KEY, "a") == {"a", "b"}


def test_remove_of_an_absent_member_returns_the_real_set(state: State) -> None:
    state.add_to_string_set(KEY, ["a", "b"])

    assert state.remove_from_string_set(KEY, "z") == {"a", "b"}


def test_the_last_member_taken_out_leaves_an_empty_set_under_the_same_expiry(state: State) -> None:
    state.add_to_string_set(KEY, "a", 60)

    assert state.remove_from_string_set(KEY, "a") == set()
    assert state.row(KEY) == Row(KEY, None, None, None, NOW_S + 60)


@pytest.mark.parametrize("nothing", [[], (), set(), iter(())], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("method", [State.add_to_string_set, State.remove_from_string_set])
def test_add_and_remove_of_nothing_return_the_set_and_write_nothing(
    state: State, method: Callable[..., set[str]], nothing: object
) -> None:
    state.add_to_string_set(KEY, "a", 60)
    take_dirty(state)

    assert method(state, KEY, nothing, 3600) == {"a"}
    assert method(state, "missing", nothing, 3600) == set()
    assert expiry_s(state) == NOW_S + 60
    assert not take_dirty(state)


def test_add_and_remove_take_one_text_as_one_member(state: State) -> None:
    assert state.add_to_string_set(KEY, "hello") == {"hello"}
    assert state.add_to_string_set(KEY, "") == {"hello", ""}
    assert state.remove_from_string_set(KEY, "hello") == {""}


def test_put_of_one_text_stores_its_letters(state: State) -> None:
    assert state.put_string_set(KEY, "hello") == set("hello")
    assert state.get_string_set(KEY) == {"h", "e", "l", "o"}


def test_put_of_nothing_is_a_reset_that_keeps_expiry_and_counter(state: State) -> None:
    state.add_to_string_set(KEY, "a", 60)
    state.increment_counter(KEY)

    assert state.put_string_set(KEY, [], 3600) == set()
    assert state.row(KEY) == Row(KEY, 1, None, None, NOW_S + 60)
    assert state.put_string_set("missing", []) == set()
    assert len(state) == 1


@pytest.mark.parametrize("helper", ["put_string_set", "add_to_string_set", "remove_from_string_set"])
@pytest.mark.parametrize("val", [None, 7, [None], ["a", None], ["a", 1], [1, 2], {"a", 1}, b"ab", [["a"]]], ids=repr)
def test_what_is_no_collection_of_texts_is_a_type_error_that_names_helper_key_and_value(
    state: State, helper: str, val: object
) -> None:
    with pytest.raises(
        TypeError, match=rf"^{helper}: the key 'Some\.Rule:alice': .* of type \w+ is no .*: (pass|make)"
    ):
        getattr(state, helper)(KEY, val)
    assert len(state) == 0


def test_a_member_that_is_no_whole_text_is_a_value_error(state: State) -> None:
    with pytest.raises(ValueError, match="half a surrogate pair"):
        state.add_to_string_set(KEY, "\ud83d")
    assert state.add_to_string_set(KEY, "\U0001f600") == {"\U0001f600"}


def test_a_returned_set_is_the_rule_s_own_to_change(state: State) -> None:
    for handed_out in (
        state.put_string_set(KEY, ["a"]),
        state.add_to_string_set(KEY, "b"),
        state.get_string_set(KEY),
        state.remove_from_string_set(KEY, "absent"),
    ):
        handed_out.add("mine")
        handed_out.discard("a")

    assert state.get_string_set(KEY) == {"a", "b"}


def test_members_are_stored_in_the_order_they_came_in(state: State) -> None:
    state.put_string_set(KEY, ["c", "a", "c"])
    state.add_to_string_set(KEY, ["b", "a"])

    assert state.row(KEY).members == ("c", "a", "b")


def test_members_that_came_as_a_set_are_stored_in_an_order_that_no_hash_seed_decides(state: State) -> None:
    texts = [f"user-{n}" for n in range(50)]
    state.put_string_set(KEY, set(texts))

    assert state.row(KEY).members == tuple(sorted(texts))


# --- resets and expiries ----------------------------------------------------------------------------


def test_resets_drop_their_own_value_only_keep_the_expiry_and_return_none(state: State) -> None:
    state.put_dictionary(KEY, {"a": 1}, 60)
    state.increment_counter(KEY)
    state.add_to_string_set(KEY, "a")
    resets: list[Callable[[str], object]] = [state.reset_counter, state.reset_string_set]

    assert [reset(KEY) for reset in resets] == [None, None]
    assert state.row(KEY) == Row(KEY, None, None, '{"a":1}', NOW_S + 60)


def test_a_counter_counts_again_from_1_under_the_expiry_that_a_reset_has_kept(state: State) -> None:
    state.increment_counter(KEY, 9, 60)
    state.reset_counter(KEY)

    assert state.increment_counter(KEY) == 1
    assert expiry_s(state) == NOW_S + 60


def test_resets_of_an_absent_or_expired_key_make_no_row(state: State) -> None:
    state.increment_counter(KEY, 1, 60)
    take_dirty(expired(state))
    for key in (KEY, "missing"):
        state.reset_counter(key)
        state.reset_string_set(key)

    assert len(state) == 1
    assert not take_dirty(state)


def test_an_expiry_set_on_an_absent_key_waits_for_the_next_write(state: State) -> None:
    state.set_key_expiration(KEY, 60)
    assert state.get_counter(KEY) == 0

    state.increment_counter(KEY)
    assert expiry_s(state) == NOW_S + 60


def test_the_documented_pattern_is_an_hourly_counter(state: State) -> None:
    counts = []
    for minute in (0, 20, 59, 60, 61):
        state.clock_s = NOW_S + minute * 60.0
        counts.append(state.increment_counter(KEY))
        if counts[-1] == 1:
            state.set_key_expiration(KEY, state.clock_s + 3600)

    assert counts == [1, 2, 3, 1, 2]


def test_a_key_can_be_expired_by_hand(state: State) -> None:
    state.increment_counter(KEY, 5)
    state.set_key_expiration(KEY, 0)

    assert state.get_counter(KEY) == 0


# --- dictionaries, whole keys, limits ---------------------------------------------------------------


def test_a_dictionary_comes_back_as_json_has_it(state: State) -> None:
    state.put_dictionary(KEY, {1: (1, 2), "nested": {"naïve": None}, "nan": math.nan, "big": 2**70, "half": "\ud83d"})
    held = state.get_dictionary(KEY)

    assert math.isnan(held.pop("nan"))
    assert held == {"1": [1, 2], "nested": {"naïve": None}, "big": 2**70, "half": "\ud83d"}


def test_parts_of_an_event_can_be_kept_in_a_dictionary(state: State) -> None:
    event = PantherEvent({"client": {"ip": "10.0.0.1", "ports": [22, {"tls": 443}]}})
    state.put_dictionary(KEY, {"client": event.get("client")})
    state.put_dictionary("whole", event)

    assert state.get_dictionary(KEY) == {"client": {"ip": "10.0.0.1", "ports": [22, {"tls": 443}]}}
    assert state.get_dictionary("whole")["client"] == state.get_dictionary(KEY)["client"]


@pytest.mark.parametrize("val", [None, [("a", 1)], "{}", 7], ids=repr)
def test_put_dictionary_of_no_mapping_is_a_type_error(state: State, val: Any) -> None:
    with pytest.raises(TypeError, match=r"^put_dictionary: .* of type \w+ is no mapping: pass a dict"):
        state.put_dictionary(KEY, val)


def nested_too_deep() -> dict[str, Any]:
    outer: dict[str, Any] = {}
    for _ in range(100_000):
        outer = {"in": outer}
    return outer


def holding_itself() -> dict[str, Any]:
    outer: dict[str, Any] = {}
    outer["me"] = outer
    return outer


@pytest.mark.parametrize(
    "val",
    [{"a": {1}}, {"a": b"x"}, {"a": object()}, {("a", 1): 1}, holding_itself(), nested_too_deep()],
    ids=["a set", "bytes", "an object", "a tuple as key", "itself", "too deep"],
)
def test_put_dictionary_of_what_json_cannot_say_is_a_value_error(state: State, val: dict[Any, Any]) -> None:
    with pytest.raises(ValueError, match=r"^put_dictionary: the key 'Some\.Rule:alice': not JSON: .*: keep only"):
        state.put_dictionary(KEY, val)
    assert len(state) == 0


def test_a_missing_or_empty_dictionary_is_a_fresh_empty_dict(state: State) -> None:
    state.put_dictionary(KEY, {})
    state.get_dictionary(KEY)["mine"] = 1
    state.get_dictionary("missing")["mine"] = 1

    assert state.get_dictionary(KEY) == state.get_dictionary("missing") == {}


def test_a_returned_dictionary_and_one_passed_in_are_the_rule_s_own_to_change(state: State) -> None:
    mine: dict[str, list[int]] = {"a": [1]}
    state.put_dictionary(KEY, mine)
    mine["a"].append(2)
    state.get_dictionary(KEY)["a"].append(3)

    assert state.get_dictionary(KEY) == {"a": [1]}


def test_a_counter_a_set_and_a_dictionary_share_one_key_and_one_expiry(state: State) -> None:
    state.put_dictionary(KEY, {"a": 1}, 60)
    state.add_to_string_set(KEY, "a")
    state.increment_counter(KEY)

    assert state.row(KEY) == Row(KEY, 1, ("a",), '{"a":1}', NOW_S + 60)
    assert len(state) == 1


@pytest.mark.parametrize("put", ["put_string_set", "put_dictionary"])
def test_puts_replace_all_that_the_key_holds(state: State, put: str) -> None:
    state.put_dictionary(KEY, {"a": 1}, 60)
    state.add_to_string_set(KEY, "a")
    state.increment_counter(KEY)
    WRITES[put](state, None)

    members, dictionary = (("a", "b"), None) if put == "put_string_set" else (None, '{"a":1}')
    assert state.row(KEY) == Row(KEY, None, members, dictionary, NOW_S + 60)


def test_a_value_over_the_limit_is_a_value_error_and_is_never_cut() -> None:
    state = State(max_value_bytes=10)
    state.add_to_string_set(KEY, ["1234", "ééé"])  # 10 bytes
    with pytest.raises(ValueError, match=r"^add_to_string_set: .* has 11 bytes, the limit is 10: keep less"):
        state.add_to_string_set(KEY, "x")
    with pytest.raises(ValueError, match=r"^put_dictionary: .* has 13 bytes, the limit is 10"):
        state.put_dictionary(KEY, {"a": "12345"})
    with pytest.raises(ValueError, match=r"^put_string_set: .* has 11 bytes, the limit is 10"):
        state.put_string_set(KEY, ["12345678901"])

    assert state.row(KEY).members == ("1234", "ééé")


def test_the_default_limit_is_400_kb(state: State) -> None:
    state.add_to_string_set(KEY, "x" * MAX_VALUE_BYTES)
    with pytest.raises(ValueError, match="has 409601 bytes, the limit is 409600"):
        state.add_to_string_set(KEY, "y")


@pytest.mark.parametrize("key", [None, 7, b"key", ["key"], {"a": "x" * 10_000}], ids=lambda key: type(key).__name__)
def test_a_key_that_is_no_text_is_a_type_error_that_names_helper_and_key(key: object) -> None:
    with pytest.raises(TypeError, match=r"^get_counter: the key .{1,100} of type \w+ is no text: make it a str$"):
        check_key("get_counter", key)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("", "is empty: build it from the rule"),
        ("x" * (MAX_KEY_BYTES + 1), "has 2049 bytes, the limit is 2048: hash its long part"),
        ("é" * 1025, "has 2050 bytes, the limit is 2048: hash its long part"),
        ("half \ud83d", "holds half a surrogate pair"),
    ],
    ids=["empty", "too long", "too long in UTF-8", "not UTF-8"],
)
def test_a_key_that_is_empty_too_long_or_no_whole_text_is_a_value_error(key: str, says: str) -> None:
    with pytest.raises(ValueError, match=rf"^get_counter: the key '.{{0,200}} {says}"):
        check_key("get_counter", key)


@pytest.mark.parametrize("key", ["x", "x" * MAX_KEY_BYTES, "é" * 1024, "\U0001f600" * 512, "\0 "], ids=len)
def test_any_other_text_is_a_key(key: str) -> None:
    check_key("get_counter", key)


# --- what is composed of these, through the helpers of a rule ------------------------------------------


class Calls:
    """Calls one caching helper as a rule does, one evaluation each, and hands out what the helper returned."""

    def __init__(self, call: str, state: State) -> None:
        source = f"from panther_detection_helpers.caching import *\ndef rule(event):\n    return bool({call})\n"
        spec = (
            b"AnalysisType: rule\nRuleID: A.Rule\nFilename: a.py\nEnabled: true\nLogTypes: [Some.Log]\nSeverity: Info\n"
        )
        (self._rule,) = load_pack({"a.py": source.encode(), "a.yml": spec}).rules
        self._evaluation = Evaluation(state)

    def __call__(self) -> bool:
        outcome = evaluate(self._rule, PantherEvent({}), self._evaluation)
        assert outcome.errors == ()
        return outcome.match is not None


def test_evaluate_threshold_is_true_at_the_threshold_and_starts_again(state: State) -> None:
    over = Calls(f"evaluate_threshold('{KEY}', 3, 60)", state)

    assert [over() for _ in range(7)] == [False, False, True, False, False, True, False]


def test_evaluate_threshold_renews_its_expiry_with_every_call(state: State) -> None:
    over = Calls(f"evaluate_threshold('{KEY}', 3, 60)", state)
    verdicts = []
    for at_s in (0, 50, 100, 150, 200, 300):
        state.clock_s = NOW_S + float(at_s)
        verdicts.append(over())

    assert verdicts == [False, False, True, False, False, False]


def test_evaluate_threshold_does_not_count_on_from_a_stale_count(state: State) -> None:
    over = Calls(f"evaluate_threshold('{KEY}', 5, 60)", state)
    assert not any(over() for _ in range(4))
    expired(state)

    assert [over(), over()] == [False, False]


@pytest.mark.parametrize("key", ["None", "''", "7", "'unknown'"])
def test_check_account_age_of_no_key_or_an_unknown_one_is_false(state: State, key: str) -> None:
    assert not Calls(f"check_account_age({key})", state)()


def test_check_account_age_is_true_as_long_as_the_key_holds_a_set(state: State) -> None:
    young = Calls(f"check_account_age('{KEY}')", state)
    state.put_string_set(KEY, "creator", 60)

    assert young()
    expired(state)
    assert not young()


@pytest.mark.parametrize("getter", ["get_counter", "get_string_set", "get_dictionary"])
def test_force_ttl_check_is_accepted_and_changes_nothing(state: State, getter: str) -> None:
    value = {"get_counter": "0", "get_string_set": "set()", "get_dictionary": "{}"}[getter]
    state.increment_counter(KEY, 1, 60)
    expired(state)

    assert Calls(f"{getter}('{KEY}', force_ttl_check=True) == {getter}('{KEY}') == {value}", state)()


# --- an evaluation's writes can be taken back ------------------------------------------------------------------------


def test_undo_takes_back_everything_since_begin_and_nothing_before(state: State) -> None:
    state.put_dictionary(KEY, {"a": 1}, 60)
    state.add_to_string_set(KEY, "a")
    state.increment_counter(KEY)
    before = list(state.rows(-math.inf))

    state.begin()
    state.put_string_set(KEY, ["b"], 10)
    state.reset_string_set(KEY)
    state.increment_counter("new")
    state.undo()

    assert list(state.rows(-math.inf)) == before


def test_undo_brings_back_the_expired_values_that_a_fresh_start_dropped(state: State) -> None:
    state.increment_counter(KEY, 9, 60)
    expired(state).begin()
    state.increment_counter(KEY)
    state.undo()

    state.clock_s = NOW_S + 30.0
    assert state.get_counter(KEY) == 9


def test_an_undone_key_is_dirty_so_that_a_row_taken_meanwhile_is_corrected(state: State) -> None:
    state.increment_counter(KEY)
    taken = list(take_dirty(state))
    state.undo()

    assert taken == list(take_dirty(state)) == [KEY]
    assert state.row(KEY) == Row(KEY, None, None, None, None)


# --- snapshots and freeing -------------------------------------------------------------------------------------------


def test_take_dirty_names_each_written_key_once(state: State) -> None:
    for key in ("a", "b", "a"):
        state.increment_counter(key)
    state.get_counter("c")

    assert sorted(take_dirty(state)) == ["a", "b"]
    assert not take_dirty(state)


def test_a_row_stays_as_it_was_while_the_stream_goes_on(state: State) -> None:
    state.add_to_string_set(KEY, "a", 60)
    row = state.row(KEY)
    state.add_to_string_set(KEY, "b")

    assert row == Row(KEY, None, ("a",), None, NOW_S + 60)


def test_the_row_of_an_absent_key_is_a_tombstone_and_restoring_it_deletes(state: State) -> None:
    tombstone = state.row(KEY)
    state.increment_counter(KEY)
    state.restore(tombstone)

    assert tombstone == Row(KEY, None, None, None, None)
    assert len(state) == 0


def test_restored_rows_are_not_dirty_and_are_freed_in_their_time(state: State) -> None:
    state.restore(Row(KEY, 3, None, None, NOW_S + 60))

    assert state.get_counter(KEY) == 3
    assert not take_dirty(state)
    assert state.free(NOW_S + 60.0, limit=10) == 1


def test_rows_that_are_put_take_the_place_of_what_was_there_and_can_be_rolled_back(state: State) -> None:
    state.increment_counter("kept", 1, 60)
    state.add_to_string_set("gone", "a", 60)
    take_dirty(state)
    state.settle()
    rows = [
        Row("kept", None, ("b",), None, NOW_S + 90),
        Row("new", 7, None, "{}", NOW_S + 90),
        Row("gone", None, None, None, None),
        Row("never", None, None, None, None),
    ]
    state.put(rows)

    assert sorted(images_of(state)) == ["gone", "kept", "never", "new"]
    assert [state.row(row.key) for row in rows] == rows
    state.validate()
    state.roll_back(to_settled=False)
    assert [state.row(key) for key in ("kept", "gone", "new")] == [
        Row("kept", 1, None, None, NOW_S + 60),
        Row("gone", None, ("a",), None, NOW_S + 60),
        Row("new", None, None, None, None),
    ]


@pytest.mark.parametrize("here", ["nothing", "a row", "word that it is gone"])
def test_rows_that_are_taken_over_are_as_if_they_were_put(state: State, here: str) -> None:
    other = State()
    other.clock_s = state.clock_s
    rows = [Row("a", 1, ("b",), None, NOW_S + 90), Row("c", None, None, "{}", NOW_S + 80)]
    for each in (state, other):
        if here != "nothing":
            each.increment_counter("c", 5, 60)
            take_dirty(each)
        if here == "word that it is gone":
            each.free(NOW_S + 60.0, limit=10)
        each.new_keys = []
    state.put(rows)
    other.take_over(rows)

    assert [other.row(row.key) for row in rows] == rows
    assert sorted(other.rows(0.0)) == sorted(state.rows(0.0))
    assert (images_of(other), sorted(other.new_keys or [])) == (images_of(state), sorted(state.new_keys or []))
    other.validate()
    assert other.free(NOW_S + 90.0, limit=10) == 2
    for each in (state, other):
        each.roll_back(to_settled=False)
    assert other.row("c").counter == (None if here == "nothing" else 5)


def test_rows_are_the_keys_that_expire_after_the_horizon(state: State) -> None:
    for key, ttl_s in (("b", 30), ("a", 10), ("c", 20)):
        state.increment_counter(key, 1, ttl_s)
    state.increment_counter("b")

    assert sorted(row.key for row in state.rows(NOW_S + 10.0)) == ["b", "c"]
    assert sorted(row.key for row in state.rows(-math.inf)) == ["a", "b", "c"]


def test_free_deletes_what_expired_by_the_horizon_and_leaves_a_tombstone_to_write(state: State) -> None:
    state.increment_counter("old", 1, 10)
    state.increment_counter("young", 1, 11)
    take_dirty(state)

    assert state.free(NOW_S + 10.0, limit=100) == 1
    assert [row.key for row in state.rows(-math.inf)] == ["young"]
    assert [state.row(key) for key in take_dirty(state)] == [Row("old", None, None, None, None)]


def test_the_first_keys_of_a_prefix_come_in_order_with_the_number_of_all_that_live(state: State) -> None:
    for key in ("b2", "b10", "a", "b1", "c"):
        state.increment_counter(key, 1, 1000)
    state.increment_counter("b0", 1, 10)

    rows, number = state.first("b", 2, NOW_S + 10.0)
    assert ([row.key for row in rows], number) == (["b1", "b10"], 3)
    assert state.first("none", 2, -math.inf) == ([], 0)


def test_free_looks_at_no_more_keys_than_its_limit_and_goes_on_where_it_stopped(state: State) -> None:
    for number in range(10):
        state.increment_counter(str(number), 1, 10 if number % 2 else 1000)
    horizon_s = NOW_S + 10.0

    assert [state.free(horizon_s, limit=4) for _ in range(4)] == [2, 2, 1, 0]
    assert sorted(row.key for row in state.rows(-math.inf)) == list("02468")


def test_a_key_that_was_undone_a_hundred_times_is_looked_at_once(state: State) -> None:
    for _ in range(100):
        state.begin()
        state.increment_counter(KEY)
        state.undo()
    state.increment_counter(KEY, 1, 1000)
    state.increment_counter("old", 1, 10)

    assert state.free(NOW_S + 10.0, limit=2) == 1


BETWEEN: dict[str, Callable[[State], object]] = {
    "free": lambda state: state.free(0.0, limit=10),
    "restore": lambda state: state.restore(Row("another", 1, None, None, NOW_S + 60)),
    "put": lambda state: state.put([Row("another", 1, None, None, NOW_S + 60)]),
}


@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
def test_undo_does_not_reach_back_beyond_freeing_and_restoring(
    state: State, between: Callable[[State], object]
) -> None:
    state.increment_counter(KEY)
    between(state)
    state.undo()

    assert state.get_counter(KEY) == 1
