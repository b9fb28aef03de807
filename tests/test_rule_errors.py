"""Rules that raise leave the same error records on every runtime, with any number of shards: those of the plain loop.

One rule for each kind of failure, in a pack of our own; an event says which rule it is for. Prefilter and index are off: they
may skip an evaluation that would have raised (DESIGN 11.17).
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from rules.evaluation import Evaluation, evaluate
from rules.event import PantherEvent
from rules.pack import load_pack, read_files
from rules.state import State
from rules.times import format_time
from tests.commands import run

LOG_TYPE = "Custom.Raising"
START_S = 1_709_294_400.0
"""2024-03-01 12:00:00 UTC"""
EVENTS_PER_KIND = 12
ACTORS = 17
UNCUT = ("--no-prefilter", "--no-index")


@dataclass(frozen=True)
class Kind:
    """One way to fail: what the module has after its rule(), or instead of it, and the errors of one such event."""

    source: str
    errors: tuple[tuple[str, str], ...]
    """(function, exception)"""
    instead: bool = False
    """The source defines fails(event), which rule() returns for the events of this kind."""


def in_rule(body: str, error: str) -> Kind:
    """rule() fails: there is no match."""
    return Kind("def fails(event):\n" + _indented(body), (("rule", error),), instead=True)


def in_auxiliary(function: str, body: str, error: str) -> Kind:
    """rule() matches and an auxiliary function fails."""
    return Kind(f"def {function}(event):\n" + _indented(body), ((function, error),))


def _indented(body: str) -> str:
    return "".join(f"    {line}\n" for line in dedent(body).strip().splitlines())


CACHING = "from panther_detection_helpers.caching import *\n"

KINDS: dict[str, Kind] = {
    # rule()
    "exception": in_rule("raise ValueError(f'no {event[\"actor\"]}')", "ValueError"),
    "missing_key": in_rule("return event['absent'] == 1", "KeyError"),
    "attribute_of_none": in_rule("return event.get('absent').lower() == 'x'", "AttributeError"),
    "write_to_the_event": in_rule("event['actor'] = 'somebody else'", "TypeError"),
    "write_below_the_event": in_rule("event['nested']['list'].append(3)", "AttributeError"),
    "system_exit": in_rule("import sys; sys.exit(3)", "SystemExit"),
    "bare_raise": in_rule("raise", "RuntimeError"),
    "keyboard_interrupt": in_rule("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "generator_exit": in_rule("raise GeneratorExit('closed')", "GeneratorExit"),
    "stop_iteration": in_rule("return next(iter([]))", "StopIteration"),
    "stop_in_a_generator": in_rule("return all(next(iter([])) for _ in range(2))", "RuntimeError"),
    "running_generator": in_rule(
        """
        def own(): yield next(generator)
        generator = own()
        return next(generator)
        """,
        "ValueError",
    ),
    "recursion": in_rule("return fails(event)", "RecursionError"),
    "recursion_of_two": Kind(
        "def fails(event):\n    return other(event)\n\n\ndef other(event):\n    return fails(event)\n",
        (("rule", "RecursionError"),),
        instead=True,
    ),
    "recursion_in_a_comparison": in_rule("a = []; b = []; a.append(b); b.append(a); return a == b", "RecursionError"),
    "division": in_rule("return event['n'] / 0 > 1", "ZeroDivisionError"),
    "failed_import": in_rule("import no_such_module_of_ours", "ModuleNotFoundError"),
    "assertion": in_rule("assert event['n'] < 0, {'n': event['n']}", "AssertionError"),
    "chained": in_rule(
        """
        try:
            event['absent']
        except KeyError as error:
            raise LookupError('chained') from error
        """,
        "LookupError",
    ),
    "exception_group": in_rule("raise ExceptionGroup('two', [ValueError('a'), KeyError('b')])", "ExceptionGroup"),
    "own_class": in_rule(
        """
        class Unlucky(Exception): pass
        raise Unlucky(13, event['actor'])
        """,
        "Unlucky",
    ),
    "no_text_for_it": in_rule(
        """
        class Mute(Exception):
            def __str__(self): raise SystemExit
        raise Mute
        """,
        "Mute",
    ),
    "a_surrogate_in_it": in_rule("raise ValueError('\\ud800 é \\x00')", "ValueError"),
    "a_long_text": in_rule("raise ValueError('x' * 100_000)", "ValueError"),
    "none": in_rule("return None", "FunctionReturnTypeError"),
    "truth_of_another_type": in_rule("return 1", "FunctionReturnTypeError"),
    "a_generator_for_a_verdict": in_rule("yield True", "FunctionReturnTypeError"),
    "a_coroutine_for_a_verdict": in_rule("return (True for _ in ())", "FunctionReturnTypeError"),
    "no_such_argument": Kind("def fails(event, more): return True\n", (("rule", "TypeError"),), instead=True),
    # the auxiliaries, in the contract's order
    "title_raises": in_auxiliary("title", "return event['absent']", "KeyError"),
    "title_of_bytes": in_auxiliary("title", "return b'title'", "FunctionReturnTypeError"),
    "description_raises": in_auxiliary("description", "raise OSError(2, 'no such thing')", "FileNotFoundError"),
    "description_of_none": in_auxiliary("description", "return None", "FunctionReturnTypeError"),
    "reference_exits": in_auxiliary("reference", "raise SystemExit", "SystemExit"),
    "reference_of_a_list": in_auxiliary("reference", "return ['https://example.com']", "FunctionReturnTypeError"),
    "severity_raises": in_auxiliary("severity", "return {}['LOW']", "KeyError"),
    "severity_unknown": in_auxiliary("severity", "return 'URGENT'", "ValueError"),
    "severity_of_a_number": in_auxiliary("severity", "return 3", "FunctionReturnTypeError"),
    "runbook_raises": in_auxiliary("runbook", "return runbook(event)", "RecursionError"),
    "runbook_of_a_tuple": in_auxiliary("runbook", "return 'a', 'b'", "FunctionReturnTypeError"),
    "destinations_raise": in_auxiliary("destinations", "raise KeyboardInterrupt('stop')", "KeyboardInterrupt"),
    "destinations_twice": in_auxiliary("destinations", "return ['a', 'b', 'a']", "ValueError"),
    "destinations_as_text": in_auxiliary("destinations", "return 'pager'", "FunctionReturnTypeError"),
    "dedup_raises": in_auxiliary("dedup", "return event.deep_get('nested', 'absent').strip()", "AttributeError"),
    "dedup_of_none": in_auxiliary("dedup", "return None", "FunctionReturnTypeError"),
    "context_raises": in_auxiliary("alert_context", "raise NotImplementedError", "NotImplementedError"),
    "context_of_a_list": in_auxiliary("alert_context", "return [1]", "FunctionReturnTypeError"),
    "context_with_nan": in_auxiliary("alert_context", "return {'ratio': float('nan')}", "ValueError"),
    "context_of_sets": in_auxiliary("alert_context", "return {'members': {1}}", "TypeError"),
    "context_in_a_circle": in_auxiliary("alert_context", "a = {}; a['a'] = a; return a", "ValueError"),
    "context_too_deep": in_auxiliary(
        "alert_context",
        """
        deep = {}
        for _ in range(100_000): deep = {'deep': deep}
        return deep
        """,
        "RecursionError",
    ),
    "context_with_keys_of_bytes": in_auxiliary("alert_context", "return {b'key': 1}", "TypeError"),
    "unique_raises": in_auxiliary("unique", "return str(1 // 0)", "ZeroDivisionError"),
    "unique_of_none": in_auxiliary("unique", "return None", "FunctionReturnTypeError"),
    "all_of_them": Kind(
        "def title(event): return 1\n"
        "description = reference = severity = runbook = destinations = dedup = alert_context = unique = title\n",
        tuple(
            (name, "FunctionReturnTypeError")
            for name in ("title", "description", "reference", "severity", "runbook", "destinations", "dedup",
                         "alert_context", "unique")
        ),
    ),
    # the caching helpers
    "key_of_none": in_rule("return get_counter(None) > 0", "TypeError"),
    "key_of_an_event": in_rule("return bool(get_string_set(event['nested']))", "TypeError"),
    "key_that_is_empty": in_rule("put_string_set('', ['x'])", "ValueError"),
    "key_that_is_long": in_rule("return get_counter('k' * 2049) > 0", "ValueError"),
    "member_of_none": in_rule("add_to_string_set(f'kinds:{event[\"actor\"]}', [None, 'x'])", "TypeError"),
    "members_of_two_types": in_rule("put_string_set(f'kinds:{event[\"actor\"]}', ['x', 1])", "TypeError"),
    "a_fraction_counted": in_rule("increment_counter(f'kinds:{event[\"actor\"]}', 1.5)", "TypeError"),
    "an_expiry_in_words": in_rule("increment_counter(f'kinds:{event[\"actor\"]}', epoch_seconds='soon')", "ValueError"),
    "a_dictionary_of_sets": in_rule("put_dictionary(f'kinds:{event[\"actor\"]}', {'x': {1}})", "ValueError"),
    "no_dictionary": in_rule("put_dictionary(f'kinds:{event[\"actor\"]}', ['x'])", "TypeError"),
    "a_value_too_big": in_rule("put_dictionary(f'kinds:{event[\"actor\"]}', {'x': 'y' * 410_000})", "ValueError"),
    "the_table": in_rule("return kv_table()", "NotImplementedError"),
    "from_another_thread": in_rule(
        """
        from threading import Thread
        def count():
            try:
                get_counter(f'kinds:{event["actor"]}')
            except RuntimeError:
                pass
        thread = Thread(target=count)
        thread.start()
        thread.join()
        return False
        """,
        "ThreadError",
    ),
    # A write before an exception stands: the message counts them, in the order of the events.
    "after_a_write": in_rule("raise ValueError(increment_counter(f'written:{event[\"actor\"]}'))", "ValueError"),
    "after_writes_under_two_keys": in_rule(
        """
        counts = increment_counter(f'one:{event["actor"]}'), increment_counter(f'two:{event["n"] % 5}')
        raise ValueError(f'{counts[0]} and {counts[1]}')
        """,
        "ValueError",
    ),
    "after_a_swallowed_abort": in_rule(
        """
        try:
            count = increment_counter(f'swallowed:{event["actor"]}')
        except BaseException:
            count = -1
        raise ValueError(count)
        """,
        "ValueError",
    ),
    "written_in_an_auxiliary": in_auxiliary(
        "alert_context", "raise ValueError(increment_counter(f'context:{event[\"actor\"]}'))", "ValueError"
    ),
}  # fmt: skip


def module_of(name: str, kind: Kind) -> str:
    matches = "fails(event)" if kind.instead else "True"
    return f"{CACHING}\n\n{kind.source}\n\ndef rule(event):\n    return event['kind'] == {name!r} and {matches}\n"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rule of each kind, `Raising.<kind>`."""
    directory = tmp_path_factory.mktemp("raising")
    for name, kind in KINDS.items():
        (directory / f"{name}.py").write_text(module_of(name, kind))
        (directory / f"{name}.yml").write_text(
            f"AnalysisType: rule\nRuleID: Raising.{name}\nEnabled: true\nFilename: {name}.py\nLogTypes: [{LOG_TYPE}]\n"
            "Severity: Low\n"
        )
    return directory


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Events of each kind, of several actors, one second apart."""
    kinds = list(KINDS) * EVENTS_PER_KIND
    random.Random(3).shuffle(kinds)
    path = tmp_path_factory.mktemp("log") / "raising.jsonl"
    with path.open("w") as file:
        for number, kind in enumerate(kinds):
            event = {
                "p_log_type": LOG_TYPE,
                "p_event_time": format_time(START_S + number),
                "p_row_id": f"row-{number}",
                "kind": kind,
                "actor": f"actor-{number % ACTORS}",
                "n": number,
                "nested": {"list": [1, 2]},
            }
            print(json.dumps(event), file=file)
    return path


@pytest.fixture(scope="module")
def expected(pack: Path, log: Path) -> list[dict[str, Any]]:
    """The error records, by the promise's own loop: events in order, rules by RuleID, one state."""
    rules = load_pack(read_files([pack]), quiet=True).rules
    state = State()
    evaluation = Evaluation(state)
    records = []
    offset = 0
    for number, line in enumerate(log.read_bytes().splitlines(keepends=True)):
        position = (0, offset)
        offset += len(line)
        data = json.loads(line)
        state.clock_s = START_S + number
        event = PantherEvent(data)
        evaluation.begin_event(START_S + number, position)
        for rule in rules:
            for error in evaluate(rule, event, evaluation).errors:
                records.append(
                    {
                        "rule_id": rule.id,
                        "event_id": data["p_row_id"],
                        "function": error.function,
                        "error": error.error,
                        "message": error.message,
                        "location": error.location,
                        "position": list(position),
                    }
                )
    return records


@pytest.fixture(scope="module")
def one_shard(pack: Path, log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a single local shard."""
    into = tmp_path_factory.mktemp("one-shard")
    run(log, *UNCUT, into=into, rules=pack)
    return into


def records_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_kind_fails_where_and_how_it_is_meant_to_and_nothing_else_fails(expected: list[dict[str, Any]]) -> None:
    found: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for record in expected:
        found[record["rule_id"]][record["function"], record["error"]] += 1

    assert len(KINDS) >= 60
    assert found == {
        f"Raising.{name}": Counter(dict.fromkeys(kind.errors, EVENTS_PER_KIND)) for name, kind in KINDS.items()
    }


def test_errors_say_what_was_raised_and_where_in_the_pack(expected: list[dict[str, Any]]) -> None:
    first = {record["rule_id"].removeprefix("Raising."): record for record in reversed(expected)}

    def line_of(name: str, text: str) -> str:
        lines = module_of(name, KINDS[name]).splitlines()
        return f"{name}.py:{next(number for number, line in enumerate(lines, 1) if text in line)}"

    for name, text in (
        ("exception", "raise ValueError"), ("recursion_of_two", "and fails(event)"), ("chained", "raise LookupError"),
        ("dedup_raises", "strip()"), ("member_of_none", "add_to_string_set"), ("written_in_an_auxiliary", "raise"),
    ):  # fmt: skip
        assert first[name]["location"] == line_of(name, text)
    assert first["no_text_for_it"]["message"] == "<the exception cannot be printed>"
    assert first["a_surrogate_in_it"]["message"] == "? é \0"
    assert len(first["a_long_text"]["message"]) == 1000
    assert first["key_of_none"]["message"].startswith("get_counter: the key None ")
    assert first["from_another_thread"]["message"].startswith("a caching helper was called from another thread")


@pytest.mark.parametrize("kind", ["after_a_write", "after_a_swallowed_abort", "written_in_an_auxiliary"])
def test_writes_before_an_exception_stand(kind: str, expected: list[dict[str, Any]], log: Path) -> None:
    actors = {event["p_row_id"]: event["actor"] for event in records_of(log)}
    counts: Counter[str] = Counter()
    for record in expected:
        if record["rule_id"] == f"Raising.{kind}":
            actor = actors[record["event_id"]]
            counts[actor] += 1
            assert record["message"] == str(counts[actor])
    assert max(counts.values()) > 1


def test_one_local_shard_gives_the_records_of_the_sequential_loop(
    one_shard: Path, expected: list[dict[str, Any]]
) -> None:
    assert records_of(one_shard / "errors.jsonl") == expected


@pytest.mark.parametrize(
    ("runtime", "shards"), [("local", 3), *[pytest.param("ray", n, marks=pytest.mark.ray) for n in (1, 3)]]
)
def test_the_error_records_are_byte_identical_for_any_runtime_and_number_of_shards(
    runtime: str, shards: int, pack: Path, log: Path, one_shard: Path, tmp_path: Path
) -> None:
    run(log, *UNCUT, "--epoch-events", 100, into=tmp_path, runtime=runtime, shards=shards, rules=pack)

    for output in ("errors.jsonl", "matches.jsonl"):
        assert (tmp_path / output).read_bytes() == (one_shard / output).read_bytes(), f"{output} differs"


def test_a_match_stands_whatever_its_auxiliaries_do(one_shard: Path) -> None:
    records = records_of(one_shard / "matches.jsonl")
    by_kind = {record["rule_id"].removeprefix("Raising."): record for record in records}

    assert by_kind.keys() == {name for name, kind in KINDS.items() if not kind.instead}
    assert all(record["severity"] == "LOW" for record in records)
    assert by_kind["title_raises"]["title"] == "Raising.title_raises"
    assert by_kind["context_with_nan"]["context"]["_error"].startswith("ValueError")
    assert by_kind["context_with_nan"]["dedup"] == "defaultDedupString:Raising.context_with_nan"
