"""What a run tells those who ask about it, and what it does for them: the driver's half. asking.py is the commands' half.

They talk by notes in the job's store (cluster/stores):

    status        how the run stands: written by the driver once a second, and at its end
    ask-<id>      a question or an order, left by a command
    answer-<id>   what became of it, left by the driver; the command removes both

The driver talks to the store in a thread of its own: one that is slow or down stops nothing. Questions name the run that they
are for. What an earlier run left unanswered is removed, never obeyed.
"""

from __future__ import annotations

import itertools
import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import msgspec

from cluster.asking import (
    ANSWER,
    ASK,
    STATUS,
    Ask,
    KeysAnswer,
    RescaleAnswer,
    RescaleAsk,
    StateAsk,
    StopAsk,
    decode_ask,
)
from cluster.core.coordinator import Phase
from cluster.core.messages import Counts, Message, Partition, StateWanted
from cluster.core.records import time_text
from cluster.core.watermark import NEVER_S
from cluster.runtime.job import JobSpec, Status
from cluster.stores import Store, StoreUnreachable

_POLL_S = 0.25
"""How often questions are looked for: one listdir or one command of Redis, some 50 us."""

_STATUS_S = 1.0

_LAST_WORDS_S = 3.0
"""How long the end of a run waits for a store to take the last status."""

_RATE_TURNS_S = 5.0


class Driver(Protocol):
    """What is told of the driver itself."""

    @property
    def spec(self) -> JobSpec: ...
    @property
    def restarts(self) -> int: ...
    @property
    def severities(self) -> Mapping[str, int]: ...
    def growing_bytes(self) -> int | None: ...
    def stop(self) -> None: ...
    def rescale(self, shards: int) -> None: ...
    @property
    def rescale_pending(self) -> bool: ...


class Engine(Protocol):
    """Who takes messages to the coordinator."""

    def send(self, message: Message) -> None: ...


@dataclass(slots=True)
class _Rescale:
    """Somebody waits for this one, or several do."""

    who: list[str]
    shards: int
    began_s: float
    keys: int = 0
    moving_s: float = 0.0


class Control:
    """One run's side of the conversation. Enter it as soon as the job is held; leave it before the job is released."""

    def __init__(self, store: Store, job: str) -> None:
        self._store = store
        self._job = job
        self._run = secrets.token_hex(8)
        self._record: dict[str, Any] = {
            "job": job,
            "run": self._run,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started_at": time_text(_wall_s()),
            "phase": "starting",
        }
        self._turned_s = self._recorded_s = time.monotonic()
        self._rates: deque[tuple[float, int]] = deque()
        self._asked: deque[tuple[str, Ask]] = deque()
        self._answers: deque[tuple[str, bytes]] = deque()
        self._seen: set[str] = set()
        self._numbers = itertools.count()
        self._views: dict[int, tuple[str, StateWanted]] = {}
        """number -> whose question it is, and the question."""
        self._rescale: _Rescale | None = None
        """The one that was asked for last."""
        self._engine: Engine | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._talk, name="control", daemon=True)

    def __enter__(self) -> Control:
        with suppress(StoreUnreachable):
            for name in (*self._store.list_notes(self._job, ASK), *self._store.list_notes(self._job, ANSWER)):
                self._store.delete_note(self._job, name)
            self._write_status()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._record = {**self._record, "ended": "failed", "reason": str(error) or type(error).__name__}
        self._over.set()
        self._thread.join(_LAST_WORDS_S)

    # --- in the driver's loop ------------------------------------------------------------------------------------

    def turn(self, driver: Driver, engine: Engine, status: Status) -> None:
        """Tell what was asked, and note how the run stands. Never waits."""
        self._turned_s = now_s = time.monotonic()
        if engine is not self._engine:  # the one before took what it was asked to its grave
            self._engine = engine
            for _, wanted in self._views.values():
                engine.send(wanted)
        for told in status.told:
            who, _ = self._views.pop(told.number)
            self._answers.append((who, msgspec.json.encode(KeysAnswer(told.epoch, told.rows, told.more))))
        self._follow_rescale(driver, status)
        while self._asked:
            self._obey(*self._asked.popleft(), driver, engine)
        if now_s - self._recorded_s >= _STATUS_S or "events" not in self._record:
            self._note(driver, status, now_s)

    def restarting(self) -> None:
        """The processes of the run were lost: the next turn is that of others."""
        self._record = {**self._record, "phase": "restarting"}

    def end(self, driver: Driver, status: Status) -> None:
        """The run is over, well or badly."""
        self._follow_rescale(driver, status)
        self._note(driver, status, time.monotonic())
        if status.failure is not None:
            end = {"ended": "failed", "reason": status.failure.message}
        elif status.unsaved:
            end = {"ended": "unsaved", "reason": status.unsaved}
        else:
            end = {"ended": "interrupted" if status.interrupted else "finished"}
        self._record = {**self._record, **end}

    def _obey(self, who: str, ask: Ask, driver: Driver, engine: Engine) -> None:
        match ask:
            case StopAsk():
                driver.stop()
                self._answers.append((who, b"{}"))
            case RescaleAsk():
                if self._rescale is not None and self._rescale.shards == ask.shards:
                    self._rescale.who.append(who)
                    return
                if self._rescale is not None:
                    self._answer_rescale(self._rescale, replaced_by=ask.shards)
                self._rescale = _Rescale([who], ask.shards, time.monotonic())
                driver.rescale(ask.shards)
            case StateAsk():
                wanted = StateWanted(next(self._numbers), ask.key, ask.prefix, ask.limit)
                self._views[wanted.number] = who, wanted
                engine.send(wanted)

    def _follow_rescale(self, driver: Driver, status: Status) -> None:
        """Answer for the rescale when it is over. One that a crash cut short is over too: the next life has its shards."""
        asked = self._rescale
        if asked is None:
            return
        asked.keys += sum(move.keys for move in status.moves)
        asked.moving_s = max([asked.moving_s, *(move.moving_s for move in status.moves if move.groups)])
        if not driver.rescale_pending and not status.rescaling and status.shards == asked.shards:
            self._note(driver, status, time.monotonic())
            self._answer_rescale(asked)
            self._rescale = None

    def _answer_rescale(self, asked: _Rescale, replaced_by: int | None = None) -> None:
        seconds = time.monotonic() - asked.began_s
        answer = RescaleAnswer(seconds, asked.keys, asked.moving_s, replaced_by)
        self._answers += [(who, msgspec.json.encode(answer)) for who in asked.who]

    def _note(self, driver: Driver, status: Status, now_s: float) -> None:
        self._recorded_s = now_s
        events = status.totals.counts.events
        self._rates.append((now_s, events))
        while now_s - self._rates[0][0] > _RATE_TURNS_S:
            self._rates.popleft()
        first_s, first = self._rates[0]
        rate = (events - first) / (now_s - first_s) if now_s > first_s else 0.0
        self._record = {**self._record, **_figures(driver, status, now_s), "events_per_s": round(max(0.0, rate))}

    # --- in the thread -------------------------------------------------------------------------------------------

    def _talk(self) -> None:
        written_s = time.monotonic()
        while True:
            over = self._over.wait(_POLL_S)
            with suppress(StoreUnreachable):  # which the run itself says
                self._exchange()
                if over or time.monotonic() - written_s >= _STATUS_S:
                    self._write_status()
                    written_s = time.monotonic()
            if over:
                return

    def _exchange(self) -> None:
        names = self._store.list_notes(self._job, ASK)
        self._seen.intersection_update(names)
        for name in names:
            if name not in self._seen:
                ask = decode_ask(self._store.get_note(self._job, name) or b"")
                self._seen.add(name)
                if ask is None or ask.run != self._run:
                    self._store.delete_note(self._job, name)
                else:
                    self._asked.append((name.removeprefix(ASK), ask))
        if self._answers and "ended" not in self._record:
            self._write_status()  # who has an answer finds `status` to agree with it
        while self._answers:
            who, answer = self._answers[0]
            self._store.put_note(self._job, ANSWER + who, answer)
            self._store.delete_note(self._job, ASK + who)
            self._answers.popleft()

    def _write_status(self) -> None:
        note = {
            **self._record,
            "written_at_s": _wall_s(),
            "silent_s": round(time.monotonic() - self._turned_s, 1),
        }
        self._store.put_note(self._job, STATUS, msgspec.json.encode(note))


def _wall_s() -> float:
    """The wall clock, for people and for those who see the note only later: no result depends on it."""
    return time.time()  # noqa: TID251


def _figures(driver: Driver, status: Status, now_s: float) -> dict[str, Any]:
    spec, totals, counts = driver.spec, status.totals, status.totals.counts
    age_s = None
    if totals.checkpoints and status.checkpointed_at_s is not None:
        age_s = round(max(0.0, now_s - status.checkpointed_at_s), 1)
    return {
        "phase": status.phase.value if status.phase is not Phase.FINISHED else "over",
        "events": counts.events,
        "matches": totals.matches,
        "alerts": totals.alerts,
        "severities": dict(driver.severities),
        "errors": totals.errors,
        "dead_letters": totals.dead_letters,
        "epochs": totals.epochs,
        "checkpoints": totals.checkpoints,
        "checkpoint_age_s": age_s,
        "event_time": None if status.w_s == NEVER_S else time_text(status.w_s),
        "input": _input(spec.partitions, status.place, driver.growing_bytes()),
        "keys": status.keys,
        "shards": status.shards,
        "rescaling_to": spec.shards if status.rescaling else None,
        "restarts": driver.restarts,
        "lane": lane_shares(counts),
        "rules_off": sorted(spec.progress.poison.off()),
    }


def _input(partitions: tuple[Partition, ...], place: tuple[int, int], growing_bytes: int | None) -> dict[str, Any]:
    """How much is left. Of a file that is read front to back only its end tells, so it is left until then."""
    index, start = place
    left = sum(partition.size_bytes for partition in partitions[index:])
    if growing_bytes is not None:
        left += growing_bytes - partitions[-1].size_bytes
    at = partitions[index] if index < len(partitions) else None
    if at is not None and at.is_plain:
        left -= start
    elif at is not None and at.rows:
        left -= int(at.size_bytes * start / at.rows)
    return {"files": len(partitions), "done": index, "path": at.path if at else None, "bytes_left": max(0, left)}


def lane_shares(counts: Counts) -> dict[str, Any]:
    """RuleID -> what of it ran in the serial lane, for the rules of which anything did."""
    return {
        rule_id: {
            "deferred": each.deferred,
            "evaluations": each.lane,
            "fraction": round(each.lane / max(each.evaluations, each.lane), 4),
            "seconds": round(each.lane_s, 3),
        }
        for rule_id, each in sorted(counts.rules.items())
        if each.lane
    }
