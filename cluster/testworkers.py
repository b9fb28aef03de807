"""Worker processes for `countersign test`: each loads its share of a pack and runs the tests in it.

Rules are other people's code: one may end the process, or never come back. So tests run in children, with one worker too.
A child notes what it is at in memory that it shares with the parent; a child that ends, or stays at one thing for too long,
has failed that one thing, and another takes its place for the rest. Results come in the order of the detections' ids, whoever
ran them.
"""

from __future__ import annotations

import gc
import mmap
import os
import pickle
import re
import selectors
import signal
import struct
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any, NoReturn

from rules.errors import InvalidPack, Problem, SourceLocation
from rules.filters import FILE as FILTER_FILE
from rules.logtypes import load_definitions, shipped_definitions
from rules.pack import Pack, load_pack, log_types_of
from rules.rule import PACK_PREFIX, Rule
from rules.selftest import Runner, TestResult

BIG_PACK_BYTES = 500_000
"""Of YAML: from here on several workers are faster than one."""

_GRACE_S = 1.0
"""So long after the time limit a child that has not come back by itself is killed: it hangs outside Python."""

_ALARM_AGAIN_S = 0.1
"""After the limit every further function of the same test is given so long."""

_MOST_LOST = 1000
"""Children that may be lost before we give up: the machine, and not a rule, is what is wrong then."""

_PIPE_GONE, _BUG = 76, 70
"""Exit codes of a child: a rule has closed the pipe to the parent, and we have made a mistake."""

_POLL_S = 0.1
_LENGTH_BYTES = 8
_RESULTS_A_MESSAGE = 100


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be tested, and how."""

    files: Mapping[str, bytes]
    filters: tuple[str, ...] = ()
    test_names: frozenset[str] = frozenset()
    """Empty: all."""
    skip_disabled: bool = False
    changed: frozenset[str] | None = None
    """Only what these files concern, of what the filters want; None: all of that."""
    ignore_extra_keys: bool = False
    available_destinations: frozenset[str] | None = None
    no_mocks: bool = False
    """Run each test with mocks a second time without."""
    now_s: float = 0.0
    time_limit_s: float = 10.0
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Detection:
    """One detection that was asked for, as far as the report must know it."""

    id: str
    path: str
    """Of its YAML."""
    skipped: bool
    """Disabled, and those were not asked for."""
    expectations: tuple[bool, ...]
    """ExpectedResult of each of its tests."""


@dataclass(slots=True)
class Found:
    """What testing a pack, or a worker's share of one, came to."""

    detections: list[Detection] = field(default_factory=list)
    results: list[TestResult] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    """What in the pack is invalid: that part was not tested."""
    notices: list[str] = field(default_factory=list)
    test_names: set[str] = field(default_factory=set)
    """The tests that there are, where none had a wanted name."""


class TimeLimit(BaseException):
    """A function of a rule ran for longer than a test may."""


def run_order(order: Order) -> Found:
    """Load and test. Rules can neither end this process nor write to its output."""
    sys.stdout.flush()
    sys.stderr.flush()
    shares = divide(order.files, order.workers)
    workers = [_Worker(order, files) for files in shares]
    try:
        _attend(workers)
    finally:
        for worker in workers:
            worker.close()
    return _merged([worker.found for worker in workers])


def _merged(shares: Iterable[Found]) -> Found:
    whole = Found()
    known: dict[str, Detection] = {}
    for share in shares:
        # What is in every share counts once.
        whole.results += [result for result in share.results if result.rule_id not in known]
        for detection in share.detections:
            first = known.setdefault(detection.id, detection)
            if first is detection:
                whole.detections.append(detection)
            elif first.path != detection.path:
                message = f"the id {detection.id} is also in {first.path}"
                whole.problems.append(Problem(SourceLocation(detection.path, 1), message, "give each an id of its own"))
        whole.problems += [problem for problem in share.problems if problem not in whole.problems]
        whole.notices += [notice for notice in share.notices if notice not in whole.notices]
        whole.test_names |= share.test_names
    whole.detections.sort(key=lambda detection: detection.id)
    whole.results.sort(key=lambda result: result.rule_id)  # stable: tests stay in the order of the YAML
    whole.problems.sort(key=lambda problem: (problem.location.path, problem.location.line or 0))
    return whole


# --- shares --------------------------------------------------------------------------------------------------------

_TESTED = re.compile(rb"^AnalysisType[ \t]*:[ \t]*['\"]?(?:rule|scheduled_rule|policy)['\"]?[ \t]*(?:#.*)?\r?$", re.M)
_ID = re.compile(rb"^(?:RuleID|PolicyID)[ \t]*:[ \t]*['\"]?(.+?)['\"]?[ \t]*(?: #.*)?\r?$", re.M)
_NAMES_OTHERS = (b"BaseDetection", b"AlsoRun")


def divide(files: Mapping[str, bytes], shares: int) -> list[dict[str, bytes]]:
    """A pack's files in up to so many shares of about the same work. Detections that know each other stay together.

    YAML files that hold something else than a detection, or that a glance does not tell from it, are in every share, and so are
    all that are no YAML.
    """
    if shares < 2:
        return [dict(files)]
    by_id: dict[bytes, list[str]] = {}
    linked: dict[str, bytes] = {}
    for path, data in sorted(files.items()):
        if path.endswith((".yml", ".yaml")) and _TESTED.search(data) and (found := _ID.search(data)):
            by_id.setdefault(found[1], []).append(path)
            if any(key in data for key in _NAMES_OTHERS):
                linked[path] = data
    text = b"\n".join(linked.values())
    together = {
        path for rule_id, paths in by_id.items() if linked and (rule_id in text or not linked.keys().isdisjoint(paths))
        for path in paths
    }  # fmt: skip
    groups = [sorted(together)] if together else []
    groups += [paths for paths in by_id.values() if together.isdisjoint(paths)]
    divided = {path for group in groups for path in group}
    common = {path: data for path, data in files.items() if path not in divided}
    total = sum(len(files[path]) for path in divided)
    made: list[dict[str, bytes]] = [dict(common)]
    so_far = 0
    for group in groups:
        if so_far >= total * len(made) / shares:
            made.append(dict(common))
        for path in group:
            made[-1][path] = files[path]
            so_far += len(files[path])
    return made


def concerned(pack: Pack, changed: frozenset[str]) -> tuple[Rule, ...]:
    """The detections of a pack whose tests may come out otherwise since these files changed; files that are gone do not count.

    A rule's own files concern it, those derived from it and those whose tests name it; a global those that mention it. Anything
    else, such as a data model, concerns all.
    """
    everything = pack.everything
    own = {path for rule in everything for path in (rule.spec.yaml_path, rule.spec.path)}
    here = changed & pack.files.keys()
    if not here <= own | set(pack.globals.values()):
        return everything
    stale = {name for name, path in pack.globals.items() if path in here}
    for _ in pack.globals:
        stale |= {name for name, path in pack.globals.items() if _mentions(pack.files[path], stale)}
    modules = {rule.spec.path for rule in everything if not here.isdisjoint((rule.spec.yaml_path, rule.spec.path))}
    ids = {rule.id for rule in everything if rule.spec.path in modules or _mentions(pack.files[rule.spec.path], stale)}
    ids |= {rule.id for rule in everything for test in rule.spec.tests if not ids.isdisjoint(test.get("AlsoRun", ()))}
    return tuple(rule for rule in everything if rule.id in ids)


def _mentions(source: bytes, names: set[str]) -> bool:
    return any(re.search(rb"\b" + re.escape(name.encode()) + rb"\b", source) for name in names)


# --- the parent's side ---------------------------------------------------------------------------------------------


class _Cell:
    """What a child is at, in memory that parent and child share. One writes; the other reads it when the one is dead or stuck."""

    _HEAD = struct.Struct("<QI")
    _BYTES = 8192

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self._BYTES)
        self._serial = 0

    def note(self, text: str) -> None:
        data = text.encode("utf-8", "replace")[: self._BYTES - self._HEAD.size]
        self._serial += 1
        self._memory[self._HEAD.size : self._HEAD.size + len(data)] = data
        self._HEAD.pack_into(self._memory, 0, self._serial, len(data))

    def read(self) -> tuple[int, str]:
        """(a number that changes with every note, the note; empty where the child is at nothing that may be interrupted)."""
        serial, length = self._HEAD.unpack_from(self._memory)
        return serial, self._memory[self._HEAD.size : self._HEAD.size + length].decode("utf-8", "replace")


_LOADING, _TESTING = "loading", "testing"


class _Worker:
    """One share and the child that works on it, replaced as often as it takes."""

    def __init__(self, order: Order, files: dict[str, bytes]) -> None:
        self._order = order
        self._files = files
        self._found = Found()
        self._results: dict[tuple[str, int], TestResult] = {}
        """By the detection's id and the test's number in its YAML."""
        self._lost = 0
        self._cell = _Cell()
        self._start()

    def _start(self) -> None:
        self._received = bytearray()
        self._ended = False
        reading, writing = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(reading)
            _be_child(self._order, self._files, frozenset(self._results), self._cell, writing)
        os.close(writing)
        self.pipe = reading
        self._serial, self._since_s = self._cell.read()[0], time.monotonic()

    @property
    def found(self) -> Found:
        """What all children together came to."""
        results = [result for _, result in sorted(self._results.items(), key=lambda item: item[0])]
        return replace(self._found, results=results)

    def receive(self) -> bool:
        """Take what is there; whether the child is still at work."""
        data = os.read(self.pipe, 1 << 20)
        self._received += data
        while len(self._received) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._received[:_LENGTH_BYTES], "little")
            if len(self._received) < end:
                break
            self._take(pickle.loads(self._received[_LENGTH_BYTES:end]))
            del self._received[:end]
        return bool(data)

    def _take(self, message: Any) -> None:
        match message:
            case Found():
                self._found = message
            case dict():
                self._results.update(message)
            case RuntimeError():
                raise message
            case None:
                self._ended = True

    def is_stuck(self, now_s: float) -> bool:
        """The child has been at one thing for longer than it may."""
        serial, at = self._cell.read()
        if serial != self._serial:
            self._serial, self._since_s = serial, now_s
        return at != "" and now_s - self._since_s > self._order.time_limit_s + _GRACE_S

    def close(self) -> int:
        """End the child, if it has not ended by itself; its exit code, negative for a signal."""
        if self._pid == 0:
            return 0
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.close(self.pipe)
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return os.waitstatus_to_exitcode(status)

    def goes_on(self, *, stuck: bool) -> bool:
        """Now that the child has ended, or is stuck: whether another has taken its place."""
        if not self._ended and not stuck:  # let it end by itself: its exit code is what we want to know
            os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        code = self.close()
        if self._ended:
            return False
        if stuck:
            how = f"longer than {self._order.time_limit_s:g} s, and it could not be interrupted"
        elif code == _PIPE_GONE:
            how = "it closed files that are not its own"
        else:
            how = f"it ended the process (signal {-code})" if code < 0 else f"it ended the process (exit code {code})"
        self._blame(how)
        self._start()
        return True

    def _blame(self, how: str) -> None:
        """What the child was at has failed, and is left out from now on."""
        self._lost += 1
        kind, *what = self._cell.read()[1].split("\0")
        if kind == _TESTING and self._lost <= _MOST_LOST:
            rule_id, number, name = what
            result = TestResult(rule_id, name)
            result.fail("process", f"the test did not come back: {how}", errored=True)
            self._results[rule_id, int(number)] = result
        elif kind == _LOADING and what[0] in self._files and self._lost <= _MOST_LOST:
            self._files[what[0]] = f"raise RuntimeError({'the module does not come back: ' + how!r})\n".encode()
        else:
            raise RuntimeError(f"a worker of `countersign test` was lost: {how}")


def _attend(workers: list[_Worker]) -> None:
    """Until all are done."""
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.pipe, selectors.EVENT_READ, worker)
        while selector.get_map():
            for key, _ in selector.select(_POLL_S):
                worker = key.data
                if not worker.receive():
                    selector.unregister(key.fd)
                    if worker.goes_on(stuck=False):
                        selector.register(worker.pipe, selectors.EVENT_READ, worker)
            now_s = time.monotonic()
            for key in list(selector.get_map().values()):
                if key.data.is_stuck(now_s):
                    selector.unregister(key.fd)
                    key.data.goes_on(stuck=True)
                    selector.register(key.data.pipe, selectors.EVENT_READ, key.data)


# --- the child's side ----------------------------------------------------------------------------------------------


def _be_child(
    order: Order, files: Mapping[str, bytes], done: frozenset[tuple[str, int]], cell: _Cell, pipe: int
) -> NoReturn:
    """What the process does from the fork to its end."""
    child = _Child(order, cell, pipe)
    code = _BUG
    try:
        child.detach()
        child.work(files, done)
        child.send(None)
        code = 0
    except BaseException:
        cell.note("")
        child.send(RuntimeError(traceback.format_exc()))
    finally:
        os._exit(code)


class _Child:
    """Loads a share and tests it."""

    def __init__(self, order: Order, cell: _Cell, pipe: int) -> None:
        self._order = order
        self._cell = cell
        self._pipe = pipe
        self._pipe_is = _identity(pipe)
        self._loading = False

    def detach(self) -> None:
        """From here on nothing that a rule does to standard input and output, or an interrupt, reaches the report."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle: it ends us
        signal.signal(signal.SIGALRM, self._interrupt)
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 0)
        os.dup2(2, 1)
        gc.disable()  # until all is loaded: nothing of that is garbage

    def send(self, message: Any) -> None:
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        data = len(data).to_bytes(_LENGTH_BYTES, "little") + data
        while data:
            data = data[os.write(self._pipe, data) :]

    def work(self, files: Mapping[str, bytes], done: frozenset[tuple[str, int]]) -> None:
        pack = self._load(files)
        problems = list(pack.problems)
        try:
            types = log_types_of(pack)
        except InvalidPack as error:
            problems += error.problems
            types = load_definitions(shipped_definitions())
        gc.freeze()
        gc.enable()
        order = self._order
        chosen = concerned(pack, order.changed) if order.changed is not None else pack.everything
        tests = {rule.id: [] if self._skips(rule) else list(self._wanted(rule)) for rule in chosen}
        detections = [
            Detection(
                rule.id,
                rule.spec.yaml_path,
                self._skips(rule),
                tuple(test["ExpectedResult"] for _, test in tests[rule.id]),
            )
            for rule in chosen
        ]
        found = Found(detections, [], problems, list(pack.notices))
        if order.test_names and not any(tests.values()):
            found.test_names.update(test["Name"] for rule in chosen for test in rule.spec.tests)
        self.send(found)
        runner = Runner(pack, types, now_s=order.now_s, available_destinations=order.available_destinations)
        results: dict[tuple[str, int], TestResult] = {}
        for rule in chosen:
            for number, test in tests[rule.id]:
                if (rule.id, number) in done:
                    continue
                results[rule.id, number] = self._run(runner, rule, number, test)
                if len(results) >= _RESULTS_A_MESSAGE:
                    self.send(results)
                    results = {}
        self.send(results)

    def _load(self, files: Mapping[str, bytes]) -> Pack:
        if self._order.filters:
            files = {**files, FILTER_FILE: "\n".join(self._order.filters).encode()}
        sys.addaudithook(self._hear)
        self._loading = True
        with redirect_stdout(sys.stderr):
            pack = load_pack(files, tolerant=True, ignore_extra_keys=self._order.ignore_extra_keys)
        self._loading = False
        self._end()
        return pack

    def _skips(self, rule: Rule) -> bool:
        return self._order.skip_disabled and not rule.spec.enabled

    def _wanted(self, rule: Rule) -> Iterator[tuple[int, Mapping[str, Any]]]:
        names = self._order.test_names
        for number, test in enumerate(rule.spec.tests):
            if not names or test["Name"] in names:
                yield number, test

    def _run(self, runner: Runner, rule: Rule, number: int, test: Mapping[str, Any]) -> TestResult:
        started_s = time.perf_counter()
        self._begin(_TESTING, rule.id, number, test["Name"])
        result = runner.run(rule, test)
        if self._order.no_mocks and test.get("Mocks"):
            result.unmocked = runner.run(rule, test, mocked=False)
        if _identity(self._pipe) != self._pipe_is:
            os._exit(_PIPE_GONE)  # while the note still says who did it
        self._end()
        result.seconds = time.perf_counter() - started_s
        return result

    # --- the time limit ---

    def _begin(self, *what: object) -> None:
        self._cell.note("\0".join(map(str, what)))
        signal.setitimer(signal.ITIMER_REAL, self._order.time_limit_s, _ALARM_AGAIN_S)

    def _end(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._cell.note("")

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Audit hook: a module of the pack is executed, and not by another one that imports it."""
        if event == "exec" and self._loading:
            path = getattr(arguments[0], "co_filename", "")
            if path.startswith(PACK_PREFIX) and not _in_pack(sys._getframe(1)):
                self._begin(_LOADING, path[len(PACK_PREFIX) :])

    def _interrupt(self, _signal: int, frame: FrameType | None) -> None:
        """The time is up. Where code of the pack runs it is ended; our own is left alone."""
        if _in_pack(frame):
            raise TimeLimit(f"longer than {self._order.time_limit_s:g} s: mend the loop, or raise --time-limit")


def _identity(fd: int) -> tuple[int, int] | None:
    """Which file an open descriptor is of; None where it is closed."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _in_pack(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACK_PREFIX):
            return True
        frame = frame.f_back
    return False
