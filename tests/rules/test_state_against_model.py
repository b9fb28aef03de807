"""Whatever is asked of State, it does what a plain model does: a dict of records that is never freed, stored or restored."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rules.state import NEW_KEY_TTL_S, Row, State
from tests.capturing import take_dirty


@dataclass
class Record:
    """What the plain model holds under a key."""

    expiry_s: int
    counter: int = 0
    members: list[str] = field(default_factory=list)
    dictionary: dict[str, Any] = field(default_factory=dict)


class Model:
    """The semantics as one would write them down: a dict of records that forgets nothing before it must."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.clock_s = 0.0

    def live(self, key: str) -> Record | None:
        record = self.records.get(key)
        return record if record is not None and record.expiry_s > self.clock_s else None

    def writable(self, key: str, ttl_s: int | None, replace: bool = False) -> Record:
        record = self.live(key)
        if record is None:
            record = Record(int(self.clock_s) + NEW_KEY_TTL_S)
        elif replace:
            record = Record(record.expiry_s)
        if ttl_s is not None:
            record.expiry_s = int(self.clock_s) + ttl_s
        self.records[key] = record
        return record

    def contents(self, horizon_s: float) -> dict[str, Record]:
        return {key: record for key, record in self.records.items() if record.expiry_s > horizon_s}


KEYS = st.sampled_from(["a", "b", "c", "d"])
TTLS = st.none() | st.integers(-5, 60)
MEMBERS = st.lists(st.sampled_from(["x", "y", "z", "é"]), max_size=3)


class StateAgainstModel(RuleBasedStateMachine):
    """Freeing, snapshots and recovery happen to the State only: the model, which knows none of them, must not notice."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.model = Model()
        self.horizon_s = 0.0
        self.at_begin: dict[str, Record] | None = None
        self.stored: dict[str, Row] = {}
        self.taken = self.settled = self.kept()

    def kept(self) -> tuple[dict[str, Record], dict[str, Row]]:
        """What the model holds now, and what is stored."""
        return deepcopy(self.model.records), dict(self.stored)

    @rule(ahead_s=st.integers(0, 40), fraction=st.sampled_from([0.0, 0.5]))
    def move_clock(self, ahead_s: int, fraction: float) -> None:
        """Forward, or back as far as the horizon."""
        self.set_clock(self.horizon_s + ahead_s + fraction)

    def set_clock(self, clock_s: float) -> None:
        self.state.clock_s = self.model.clock_s = clock_s

    @rule(key=KEYS, val=st.integers(-2, 3), ttl_s=TTLS)
    def increment(self, key: str, val: int, ttl_s: int | None) -> None:
        record = self.model.writable(key, ttl_s)
        record.counter += val
        assert self.state.increment_counter(key, val, ttl_s) == record.counter

    @rule(key=KEYS)
    def reset_counter(self, key: str) -> None:
        if record := self.model.live(key):
            record.counter = 0
        self.state.reset_counter(key)

    @rule(key=KEYS, ttl_s=TTLS)
    def set_expiration(self, key: str, ttl_s: int | None) -> None:
        self.model.writable(key, ttl_s)
        self.state.set_key_expiration(key, ttl_s)

    @rule(key=KEYS, members=MEMBERS, ttl_s=TTLS)
    def put_set(self, key: str, members: list[str], ttl_s: int | None) -> None:
        if members:
            self.model.writable(key, ttl_s, replace=True).members = list(dict.fromkeys(members))
        elif record := self.model.live(key):
            record.members = []
        assert self.state.put_string_set(key, members, ttl_s) == set(members)

    @rule(key=KEYS, members=MEMBERS, ttl_s=TTLS)
    def add(self, key: str, members: list[str], ttl_s: int | None) -> None:
        held = record.members if (record := self.model.live(key)) else []
        if members:
            held = self.model.writable(key, ttl_s).members
            held += [member for member in dict.fromkeys(members) if member not in held]
        assert self.state.add_to_string_set(key, members, ttl_s) == set(held)

    @rule(key=KEYS, members=MEMBERS, ttl_s=TTLS)
    def remove(self, key: str, members: list[str], ttl_s: int | None) -> None:
        record = self.model.live(key)
        left = [member for member in record.members if member not in members] if record else []
        if record and record.members and members:
            self.model.writable(key, ttl_s).members = left
        assert self.state.remove_from_string_set(key, members, ttl_s) == set(left)

    @rule(key=KEYS)
    def reset_set(self, key: str) -> None:
        if record := self.model.live(key):
            record.members = []
        self.state.reset_string_set(key)

    @rule(key=KEYS, val=st.dictionaries(st.sampled_from(["p", "q"]), st.integers()), ttl_s=TTLS)
    def put_dictionary(self, key: str, val: dict[str, int], ttl_s: int | None) -> None:
        self.model.writable(key, ttl_s, replace=True).dictionary = val
        self.state.put_dictionary(key, val, ttl_s)

    @rule()
    def begin(self) -> None:
        self.at_begin = deepcopy(self.model.records)
        self.state.begin()

    @precondition(lambda self: self.at_begin is not None)
    @rule()
    def undo(self) -> None:
        assert self.at_begin is not None
        self.model.records = self.at_begin
        self.at_begin = None
        self.state.undo()

    @rule(ahead_s=st.integers(0, 30), limit=st.integers(0, 5))
    def free(self, ahead_s: int, limit: int) -> None:
        """The horizon only ever moves on, and no clock to come lies before it."""
        self.horizon_s += ahead_s
        self.set_clock(max(self.state.clock_s, self.horizon_s))
        before = self.rows().keys()
        freed = self.state.free(self.horizon_s, limit)
        gone = before - self.rows().keys()
        assert len(gone) == freed <= limit
        assert all(self.model.records[key].expiry_s <= self.horizon_s for key in gone)
        self.at_begin = None

    @rule()
    def snapshot(self) -> None:
        self.stored |= {key: self.state.row(key) for key in take_dirty(self.state)}
        self.taken = self.kept()

    @rule()
    def settle(self) -> None:
        self.state.settle()
        self.settled = self.taken

    @rule(to_settled=st.booleans())
    def roll_back(self, to_settled: bool) -> None:
        """Back in time. What is stored under a key is again what a restored snapshot of then would hold."""
        records, stored = self.settled if to_settled else self.taken
        self.state.roll_back(to_settled)
        self.model.records, self.stored = deepcopy(records), dict(stored)
        self.taken = self.settled = self.kept()
        self.at_begin = None
        assert not any(segment.dirty for segment in self.state._segments)

    @rule()
    def snapshot_and_recover(self) -> None:
        self.snapshot()
        recovered = State()
        for row in self.stored.values():
            recovered.restore(row)
        assert {row.key: row for row in recovered.rows(-math.inf)} == self.rows()
        assert not any(segment.dirty for segment in recovered._segments)
        self.taken = self.settled = self.kept()
        recovered.clock_s = self.state.clock_s
        self.state = recovered
        self.at_begin = None

    def rows(self) -> dict[str, Row]:
        return {row.key: row for row in self.state.rows(-math.inf)}

    @invariant()
    def reads_agree(self) -> None:
        for key in ("a", "b", "c", "d"):
            record = self.model.live(key) or Record(0)
            assert self.state.get_counter(key) == record.counter
            assert self.state.get_string_set(key) == set(record.members)
            assert self.state.get_dictionary(key) == record.dictionary

    @invariant()
    def final_states_agree(self) -> None:
        found = {
            row.key: Record(
                row.expiry_s or 0, row.counter or 0, [*(row.members or ())], json.loads(row.dictionary or "{}")
            )
            for row in self.state.rows(self.horizon_s)
        }
        assert found == self.model.contents(self.horizon_s)

    @invariant()
    def the_state_is_valid(self) -> None:
        self.state.validate()
        assert len(self.state) == len(self.rows())


TestStateAgainstModel = StateAgainstModel.TestCase
