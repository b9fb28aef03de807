"""On real logs, and on events made of them by changing the fields that guards ask for, the index changes no result."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rules.evaluation import Evaluation, evaluate
from rules.event import PantherEvent
from rules.guards import Index
from rules.guards.facts import ABSENT, Fact
from rules.logtypes import LogType, recognise, undefined
from rules.pack import Pack, load_pack, log_types_of, read_files
from rules.state import State
from tests.commands import PACKS
from tests.public_pack import public_pack

OTHER_VALUES: list[Any] = [None, 1, 0, True, False, "", [], {}, 1.5, "no such value"]


def logs(directory: Path, of_each: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """(log type or empty, record) of every log file, the first few and the last few of each."""
    for path in sorted(directory.rglob("*.jsonl.gz")):
        if any(part in str(path) for part in (".expect", ".labels", "expected", "policies")):
            continue
        lines = gzip.decompress(path.read_bytes()).splitlines()
        named = path.name.removesuffix(".jsonl.gz") if path.parent.name == "panther-analysis-tests" else ""
        chosen = lines if len(lines) <= 2 * of_each else lines[:of_each] + lines[-of_each:]
        for line in chosen:
            record = json.loads(line)
            if isinstance(record, dict):
                own = record.get("p_log_type")
                yield own if isinstance(own, str) else named, record


def changed(event: dict[str, Any], facts: Sequence[Fact], chance: random.Random) -> dict[str, Any]:
    """A copy in which up to three fields that guards look at are otherwise."""
    event = json.loads(json.dumps(event))
    for _ in range(chance.randint(1, 3)):
        path, value = chance.choice(facts)
        holder = event
        for name in path[:-1]:
            actual = next((each for each in holder if each.lower() == name.lower()), name)
            if not isinstance(holder.get(actual), dict):
                holder[actual] = {}
            holder = holder[actual]
        name = next((each for each in holder if each.lower() == path[-1].lower()), path[-1])
        wanted = None if value is ABSENT else value
        match chance.randrange(6):
            case 0 | 1:
                holder[name] = wanted
            case 2:
                holder.pop(name, None)
            case 3:
                holder[name.upper()] = holder.pop(name, wanted)
            case 4:
                holder[name] = chance.choice([*OTHER_VALUES, [wanted], {"a": wanted}, str(wanted).swapcase()])
            case 5:
                holder[name.swapcase()] = wanted
    return event


class Comparison:
    """Evaluates the rules of a pack on events, all of them on one state and those that the index gives on another."""

    def __init__(self, pack: Pack) -> None:
        self.pack = pack
        self.types = log_types_of(pack)
        self.states = (State(), State())
        self.evaluations = tuple(map(Evaluation, self.states))
        self._indexes: dict[str, tuple[list[Any], Index, list[Fact]]] = {}
        self.events = self.evaluated = self.spared = self.matches = 0

    def of(self, log_type: str) -> tuple[list[Any], Index, list[Fact]]:
        if log_type not in self._indexes:
            rules = [rule for rule in self.pack.rules if log_type in rule.log_types]
            guards = [rule.guard(log_type) for rule in rules]
            facts = {fact for guard in guards if guard is not None for clause in guard.facts for fact in clause}
            self._indexes[log_type] = rules, Index(guards), sorted(facts, key=repr)
        return self._indexes[log_type]

    def add(self, event: dict[str, Any], log_type: LogType) -> None:
        rules, index, _ = self.of(log_type.name)
        kept = set(index.candidates(event, []))
        position = (0, self.events)
        self.events += 1
        found: tuple[list[Any], list[Any]] = ([], [])
        for which, (state, evaluation) in enumerate(zip(self.states, self.evaluations, strict=True)):
            state.clock_s = 1.7e9 + self.events
            derived = log_type.derive(event, state.clock_s, position, "logs")
            whole = PantherEvent(event, derived, self.pack.context_of(log_type.name))
            evaluation.begin_event(state.clock_s, position)
            for number, rule in enumerate(rules):
                if which == 0 or number in kept:
                    outcome = evaluate(rule, whole, evaluation)
                    if outcome.match is not None or evaluation.keys():
                        found[which].append((rule.id, outcome.match, evaluation.keys()))
        assert found[0] == found[1], (event, [each for each in found[0] if each not in found[1]])
        self.evaluated += len(kept)
        self.spared += len(rules) - len(kept)
        self.matches += sum(match is not None for _, match, _ in found[0])

    def run(self, records: Iterator[tuple[str, dict[str, Any]]], changes: int) -> None:
        chance = random.Random(7)
        for named, record in records:
            name = named or recognise(record, self.types) or ""
            log_type = self.types.get(name) or undefined(name)
            if not self.of(name)[0]:
                continue
            for event in log_type.events_of(record):
                self.add(event, log_type)
                for _ in range(changes if self.of(name)[2] else 0):
                    self.add(changed(event, self.of(name)[2], chance), log_type)
        rows = [{row.key: row for row in state.rows(float("-inf"))} for state in self.states]
        assert rows[0] == rows[1]


def test_the_shipped_rules_find_the_same_with_and_without_the_index(shared_data: Path) -> None:
    comparison = Comparison(load_pack(read_files([PACKS]), quiet=True))
    comparison.run(logs(shared_data, of_each=500), changes=3)

    assert comparison.events > 1_000
    assert comparison.matches > 10
    assert comparison.spared > comparison.evaluated
    assert list(comparison.states[0].rows(float("-inf")))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # policyuniverse leaves a file open
def test_the_public_pack_finds_the_same_with_and_without_the_index(shared_data: Path) -> None:
    comparison = Comparison(load_pack(read_files([public_pack(shared_data)]), quiet=True, tolerant=True))
    comparison.run(logs(shared_data, of_each=60), changes=1)

    assert comparison.matches > 1_000
    assert comparison.spared > 4 * comparison.evaluated
    guarded = sum(all(rule.guard(name) for name in rule.log_types) for rule in comparison.pack.rules)
    assert guarded >= 677, "rules of the public pack lost their guards"
