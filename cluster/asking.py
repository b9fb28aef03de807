"""What a person asks of a job: how it stands, that it stops or goes to other shards, what a key holds. control.py answers.

Imports little, so that `countersign status` is there at once: no ray, no pyarrow, and Redis only for a store that is one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from cluster.checkpoints import newest_whole
from cluster.stores import Store, StoreError
from cluster.wording import counted
from rules.state import Row

STATUS = "status"
ASK = "ask-"
ANSWER = "answer-"
"""The names of notes; the last two are followed by the question's own."""

MOST_KEYS = 10_000
"""So many keys of a job that runs can be listed at once: they pass through its coordinator and its store."""

_POLL_S = 0.1
_ANSWER_S = 30.0
"""How long an answer is waited for: an epoch of the run may have to end first."""
_SILENT_S = 10.0
"""A driver that writes once a second and has not for so long is paused, or cut off from the store."""
_FRESH_S = 5.0
"""A driver that has written since then runs, whatever its lease says: one in Redis may run out while Ray starts."""
_GONE_S = 60.0
"""A run that has been asked to stop, and whose driver has been silent for so long, is not waited for any longer."""


class Refused(Exception):
    """What was asked for cannot be had; for a person, with its exit code (DESIGN 9)."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StopAsk(msgspec.Struct, tag="stop", frozen=True):
    """Checkpoint, then end."""

    run: str
    """For which run: that of the status that the command has read."""


class RescaleAsk(msgspec.Struct, tag="rescale", frozen=True):
    """Go to another number of shards."""

    run: str
    shards: int


class StateAsk(msgspec.Struct, tag="state", frozen=True):
    """What does one key hold, or the first `limit` of those that begin with `prefix`?"""

    run: str
    key: str | None
    prefix: str = ""
    limit: int = 1


Ask = StopAsk | RescaleAsk | StateAsk


class KeysAnswer(msgspec.Struct, frozen=True):
    """Answers StateAsk: the keys in order, as they were after an epoch."""

    epoch: int
    rows: list[Row]
    more: int
    """How many there are beside them."""


class RescaleAnswer(msgspec.Struct, frozen=True):
    """Answers RescaleAsk, when the rescale is over."""

    seconds: float
    """Since the run heard of it."""
    keys: int
    """How many moved, as far as the run that was asked has seen it through: a crash on the way moves the rest at once."""
    moving_s: float
    """The longest that a group stood still for it."""
    replaced_by: int | None = None
    """Somebody asked for so many shards meanwhile."""


def decode_ask(data: bytes) -> Ask | None:
    """None for what no command of this version writes."""
    with suppress(msgspec.DecodeError):
        ask: Ask = msgspec.json.decode(data, type=Ask)
        return ask
    return None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a job stands."""

    job: str
    runs: bool
    note: dict[str, Any] | None
    """The last status that a run of it has written."""
    manifest: dict[str, Any] | None
    """Its last checkpoint."""

    @property
    def age_s(self) -> float | None:
        """How old the note is; None where there is none."""
        return None if self.note is None else _age_s(self.note)

    def record(self) -> dict[str, Any]:
        """What `status --json` prints."""
        note, manifest, age_s = self.note or {}, self.manifest, self.age_s
        checkpoint = None
        if manifest is not None:
            partition, start = manifest["partition"], manifest["start"]
            paths = [each["path"] for each in manifest["partitions"]]
            checkpoint = {
                "epoch": manifest["epoch"],
                "place": [partition, start],
                "path": paths[partition] if partition < len(paths) else None,
                "shards": manifest["shards"],
                "token": manifest["fence"],
                "removed": [key for key, _ in manifest.get("removed", ())],
            }
        told = {name: value for name, value in note.items() if name != "written_at_s"}
        age = None if age_s is None else round(age_s, 1)
        return {"job": self.job, "running": self.runs, "age_s": age, **told, "checkpoint": checkpoint}


def standing(store: Store, job: str, tell: Callable[[str], None]) -> Standing:
    """How the job stands now; `tell` hears of damaged checkpoints. Raises Refused for a job that is not there, StoreError."""
    note = _note(store, job)
    runs = _runs(store, job, note)
    manifest = newest_whole(store, job, tell, blobs=False)
    if not runs and note is None and manifest is None:
        jobs = ", ".join(store.jobs()) or "none"
        raise Refused(4, f"job {job}: the store does not know it: jobs there: {jobs}")
    return Standing(job, runs, note, manifest)


def _note(store: Store, job: str) -> dict[str, Any] | None:
    data = store.get_note(job, STATUS)
    with suppress(msgspec.DecodeError):  # cut short by a power cut
        found: dict[str, Any] | None = None if data is None else msgspec.json.decode(data)
        return found
    return None


def _age_s(note: dict[str, Any]) -> float:
    written_at_s: float = note["written_at_s"]
    return max(0.0, time.time() - written_at_s)  # noqa: TID251


def _runs(store: Store, job: str, note: dict[str, Any] | None) -> bool:
    return store.held(job) or (note is not None and "ended" not in note and _age_s(note) < _FRESH_S)


# --- orders ------------------------------------------------------------------------------------------------------


def stop(store: Store, job: str) -> dict[str, Any] | None:
    """Have a run end after a checkpoint, and wait for it: returns its last status, None where it ended without one.

    Raises Refused, and what stores raise.
    """
    run = _run(store, job)
    with suppress(_Ended), _asked(store, job, StopAsk(run)) as who:
        _answer(store, job, who, run)
    note = _note(store, job)
    while note is not None and note["run"] == run and _runs(store, job, note):
        if _age_s(note) > _GONE_S:
            raise Refused(4, f"job {job}: asked to stop, and silent for {_age_s(note):.0f} s: {_whereabouts(note)}")
        time.sleep(_POLL_S)
        note = _note(store, job)
    return note if note is not None and note["run"] == run and "ended" in note else None


def rescale(store: Store, job: str, shards: int, tell: Callable[[dict[str, Any]], None]) -> RescaleAnswer:
    """Have a run go to another number of shards, and wait until it has.

    `tell` is given each status on the way. Raises Refused, and what stores raise.
    """
    run = _run(store, job)
    try:
        with _asked(store, job, RescaleAsk(run, shards)) as who:
            answer = msgspec.json.decode(_answer(store, job, who, run, tell), type=RescaleAnswer)
    except _Ended:
        raise Refused(
            4, f"job {job}: the run ended before it went to {shards} shards: give --shards to the next"
        ) from None
    if answer.replaced_by is not None:
        raise Refused(4, f"job {job}: somebody asked for {answer.replaced_by} shards before it had gone to {shards}")
    return answer


def keys(store: Store, job: str, key: str | None, prefix: str, limit: int) -> KeysAnswer | None:
    """The keys of a job that runs; None where it does not, or ends meanwhile. Raises Refused, and what stores raise."""
    if not _runs(store, job, _note(store, job)):
        return None
    if limit > MOST_KEYS:
        raise Refused(
            2, f"--limit {limit}: {MOST_KEYS} keys at most of a job that runs: narrow --prefix, or stop it first"
        )
    run = _run(store, job)
    try:
        with _asked(store, job, StateAsk(run, key, prefix, limit)) as who:
            return msgspec.json.decode(_answer(store, job, who, run), type=KeysAnswer)
    except _Ended:
        return None


class _Ended(Exception):
    """The run is over, and has not answered."""


def _run(store: Store, job: str) -> str:
    """The run that goes on. Raises Refused where none does."""
    now = standing(store, job, lambda text: None)
    if not now.runs:
        raise Refused(4, f"job {job}: it does not run: `countersign status --job {job}` says how it stands")
    if now.note is None or "ended" in now.note:
        raise Refused(4, f"job {job}: it is just starting or ending: try again in a moment")
    run: str = now.note["run"]
    return run


@contextmanager
def _asked(store: Store, job: str, ask: Ask) -> Iterator[str]:
    """Leave a question, and remove every trace of it in the end."""
    who = secrets.token_hex(8)
    store.put_note(job, ASK + who, msgspec.json.encode(ask))
    try:
        yield who
    finally:
        with suppress(StoreError):
            store.delete_note(job, ASK + who)
            store.delete_note(job, ANSWER + who)


def _answer(
    store: Store, job: str, who: str, run: str, tell: Callable[[dict[str, Any]], None] | None = None
) -> bytes:
    """Wait for the answer. Raises _Ended, Refused when there is none in time.

    With `tell` it may take any time, while the driver is not silent: it is given each status.
    """
    began_s = time.monotonic()
    while True:
        note = _note(store, job)
        runs = _runs(store, job, note)
        data = store.get_note(job, ANSWER + who)
        if data is not None:
            return data
        if not runs or (note is not None and (note["run"] != run or "ended" in note)):
            raise _Ended
        waited_s = time.monotonic() - began_s
        if tell is None and waited_s >= _ANSWER_S:
            where = "its driver" if note is None else _whereabouts(note)
            raise Refused(4, f"job {job}: it runs, and has not answered for {_ANSWER_S:.0f} s: see to {where}")
        if tell is not None and note is not None:
            if _age_s(note) > _GONE_S:
                raise Refused(4, f"job {job}: it was asked, and is silent for {_age_s(note):.0f} s: {_whereabouts(note)}")
            tell(note)
        time.sleep(_POLL_S)


def _whereabouts(note: dict[str, Any]) -> str:
    return f"its driver is process {note['pid']} on {note['host']}, and was {note['phase']}"


# --- words -------------------------------------------------------------------------------------------------------


def stopped_text(job: str, note: dict[str, Any] | None) -> tuple[bool, str]:
    """Whether the run has stopped well, and what to say of it."""
    if note is None:
        return False, f"job {job}: the run ended without a word: the next one goes on from the last checkpoint"
    how, events = note["ended"], f"{note.get('events', 0):,} events"
    if how == "failed":
        return False, f"job {job}: the run failed after {events}: {note['reason']}"
    if how == "unsaved":
        return (
            False,
            f"job {job}: stopped after {events}, and the last checkpoint could not be written: {note['reason']}",
        )
    if how == "finished":
        return True, f"job {job}: it had read all of its input: {events}"
    return True, f"job {job}: stopped after {events} and a checkpoint: the same `run` goes on from there"


def status_text(now: Standing) -> str:
    """How the job stands, for a person: a line for each thing."""
    note = now.note
    lines = [_headline(now)]
    if note is not None and "events" in note:
        lines += [f"  {name:<12}{text}" for name, text in _figures(note, now.runs) if text]
    if now.manifest is not None and not now.runs:
        record = now.record()["checkpoint"]
        at = "the end of the input" if record["path"] is None else f"{record['path']}, {record['place'][1]:,}"
        lines.append(f"  {'resumes':<12}at {at} (epoch {record['epoch']:,}, {counted(record['shards'], 'shard')})")
    if now.manifest is not None and now.manifest.get("removed"):
        keys = ", ".join(key for key, _ in now.manifest["removed"])
        lines.append(f"  {'removed':<12}{keys}: by hand, so this is not what the input alone makes of the job")
    return "\n".join(lines)


def _headline(now: Standing) -> str:
    note, age_s = now.note, now.age_s
    head = f"job {now.job}: "
    if now.runs:
        if note is None or age_s is None or "ended" in note:
            return head + "starting, or ending"
        words = f"{note['phase']}, since {note['started_at'][:19]}Z (process {note['pid']} on {note['host']})"
        if age_s > _SILENT_S:
            words += f"; silent for {age_s:.0f} s: paused, or cut off from the store"
        elif note["silent_s"] > _SILENT_S:
            words += f"; its engine has not answered for {note['silent_s']:.0f} s"
        return head + words
    if note is None:
        return head + "does not run"
    ended = note.get("ended")
    if ended is None:
        return head + f"does not run; its last run ended without a word {_ago(age_s or 0.0)}, {note['phase']}"
    return head + f"does not run; {ended} {_ago(age_s or 0.0)}" + (f": {note['reason']}" if "reason" in note else "")


def _figures(note: dict[str, Any], runs: bool) -> Iterator[tuple[str, str]]:
    yield "events", f"{note['events']:,}" + (f", {note['events_per_s']:,}/s" if runs else " in its last run")
    source = note["input"]
    if source["path"] is not None:
        which = f"{source['done'] + 1} of {counted(source['files'], 'file')}"
        yield "input", f"{source['path']} ({which}), {_size(source['bytes_left'])} left"
    yield "event time", (note["event_time"] or "")[:19].replace("T", " ")
    severities = ", ".join(f"{name} {number:,}" for name, number in note["severities"].items())
    yield "alerts", f"{note['alerts']:,}" + (f" ({severities})" if severities else "")
    yield "matches", f"{note['matches']:,}"
    yield "errors", f"{note['errors']:,}, dead letters {note['dead_letters']:,}"
    age_s = note["checkpoint_age_s"]
    yield "checkpoint", f"{note['checkpoints']:,}" + (f", the last {_ago(age_s)}" if age_s is not None and runs else "")
    going = f", going to {note['rescaling_to']}" if runs and note["rescaling_to"] is not None else ""
    yield "shards", f"{note['shards']}{going}, {counted(note['keys'], 'key')}, {counted(note['restarts'], 'restart')}"
    for rule_id, share in note["lane"].items():
        yield "serial lane", f"{rule_id}: {share['fraction']:.1%} of its evaluations, {share['seconds']:.1f} s"
    if note["rules_off"]:
        yield "switched off", f"{', '.join(note['rules_off'])}: evaluations of it did not return"


def _ago(seconds: float) -> str:
    for unit_s, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
