"""The local runtime: every machine in one process, one queue. The same protocol as on Ray, not a look-alike.

The process is a child of the driver, which watches it: a rule that does not return ends the child, and the driver goes on.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import multiprocessing.resource_tracker
import os
import pickle
import signal
import threading
import time
import traceback
import warnings
from collections import deque
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from cluster.core.effects import COORDINATOR, Send
from cluster.core.messages import Message, RescaleRequested, Ticked
from cluster.core.poison import Cells
from cluster.runtime.job import JobSpec, ProcessLost, Status, lost
from cluster.runtime.shells import CoordinatorShell, ShardShell, failure_of, keep_memory, spare_the_collector
from cluster.watch import LOOK_EVERY_S, Slot, Watch

_PR_SET_PDEATHSIG = 1
"""prctl(2)"""


class _Engine:
    """Carries messages between a coordinator and its shards in one thread."""

    def __init__(self, spec: JobSpec, cells: Cells) -> None:
        self._spec = replace(spec, one_machine=True)
        self._cells = cells
        self._coordinator = CoordinatorShell(spec)
        self._shards = [self._shard(number) for number in range(spec.shards)]
        self._queue: deque[Send] = deque(self._coordinator.start())

    def poll(self, timeout_s: float) -> Status:
        """Work for about `timeout_s`, then say how far it came. Returns early when nothing is left to do."""
        until_s = time.monotonic() + timeout_s
        self.send(Ticked(time.monotonic()))
        while self._queue and not self._coordinator.over:
            self._step(self._queue.popleft())
            if time.monotonic() >= until_s:
                break
        else:
            if not self._coordinator.over:
                time.sleep(max(0.0, until_s - time.monotonic()))  # waiting for the source
        status = self._coordinator.status()
        if not status.rescaling:
            del self._shards[status.shards :]
        return status

    def _shard(self, number: int) -> ShardShell:
        return ShardShell(self._spec, number, lambda job: job(lambda: None), self._cells)

    def send(self, message: Message) -> None:
        """A message from the driver to the coordinator."""
        self._queue.extend(self._coordinator.receive(message))

    def rescale(self, shards: int) -> None:
        self._shards += [self._shard(number) for number in range(len(self._shards), shards)]
        self.send(RescaleRequested(shards))

    def close(self) -> None:
        self._coordinator.close()

    def _step(self, send: Send) -> None:
        if send.to == COORDINATOR:
            self._queue.extend(self._coordinator.receive(send.message))
            return
        try:
            self._queue.extend(self._shards[send.to].receive(send.message))
        except Exception as error:
            self._coordinator.fail(failure_of(error, f"shard {send.to}"))


# --- in the child ------------------------------------------------------------------------------------------------


class _Poll(NamedTuple):
    """Asked of the child; answered by a Status."""

    timeout_s: float


class _Rescale(NamedTuple):
    """Asked of the child; answered by None."""

    shards: int


class _Close(NamedTuple):
    """Asked of the child; answered by None, its last word."""


class _Raised(NamedTuple):
    """Answers anything, where it cannot be done."""

    error: BaseException


def _serve(connection: Connection[Any, Any], parent: int) -> None:
    """Build the engine and do what the parent asks, until it asks no more."""
    _end_with(parent)
    _be_silent()
    slot = Slot()
    connection.send(slot.path)
    engine: _Engine | None = None
    with suppress(EOFError):
        while True:
            asked = connection.recv()
            answer: Status | _Raised | None = None
            try:
                match asked:
                    case JobSpec():
                        engine = _Engine(asked, slot.cells)
                        spare_the_collector()
                        keep_memory()
                    case _Poll():
                        assert engine is not None
                        answer = engine.poll(asked.timeout_s)
                    case _Rescale():
                        assert engine is not None
                        engine.rescale(asked.shards)
                    case _Close():
                        assert engine is not None
                        engine.close()
                    case _:
                        assert engine is not None
                        engine.send(asked)
                        continue
            except Exception as error:
                answer = _Raised(_portable(error))
            connection.send(answer)


def _be_silent() -> None:
    """What rules write goes nowhere (DESIGN 11.34), however they do; what goes wrong here travels as a message."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _end_with(parent: int) -> None:
    """Whatever this process does, and even while a rule holds the interpreter: the kernel sees to it, where it can (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was faster
        os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error with its traceback as a note, or only its words where it does not survive the journey."""
    story = "".join(traceback.format_exception(error))
    error.add_note(story)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(story)
    return error


# --- in the parent -----------------------------------------------------------------------------------------------


class LocalRuntime:
    """The driver's side of the child."""

    waits = False

    def __init__(self, spec: JobSpec) -> None:
        # A forked child has only the thread that forked: what other Python threads held would stay held in it. The allocators'
        # own threads, which are not counted here, see to that themselves.
        context: Any = multiprocessing.get_context("spawn" if threading.active_count() > 1 else "fork")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, os.getpid()))
        self._watch = Watch(spec.config.evaluation_timeout_s)
        if context.get_start_method() == "spawn":
            multiprocessing.resource_tracker.ensure_running()  # which lets these signals through: not in between
        # The child keeps this: Ctrl-C and `kill` are for the driver, which asks it to stop.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 does count the allocators'
                self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        try:
            self._watch.add("the engine", self._answer())
            self._tell(spec)
            self._answer()
        except BaseException:
            self.abandon()
            raise

    def poll(self, timeout_s: float) -> Status:
        """Let it work for about `timeout_s`, then say how far it came."""
        self._tell(_Poll(timeout_s))
        status: Status = self._answer()
        return status

    def send(self, message: Message) -> None:
        """A message from the driver to the coordinator."""
        self._tell(message)

    def rescale(self, shards: int) -> None:
        """Go to another number of shards; only while the last status says that it is not on its way to one already."""
        self._tell(_Rescale(shards))
        self._answer()

    def restart(self, spec: JobSpec) -> LocalRuntime:
        """There is one process: if it is not lost, it is out of step."""
        self.abandon()
        return type(self)(spec)

    def abandon(self) -> None:
        """End the child, and wait until it writes no more."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def close(self) -> None:
        """Raises what closing the outputs raises."""
        try:
            self._tell(_Close())
            self._answer()
        except ProcessLost:
            pass
        finally:
            self.abandon()

    def _tell(self, message: object) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # the next answer says so
            self._connection.send(message)

    def _answer(self) -> Any:
        """What the child says next. Raises what it raised there, and ProcessLost."""
        while not self._connection.poll(LOOK_EVERY_S):
            ended = self._watch.look()
            if ended:
                raise lost(ended)
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            story = f"the engine's process ended by itself (exit code {self._process.exitcode})"
            raise ProcessLost(story, in_hand=self._watch.in_hand()) from None
        if isinstance(answer, _Raised):
            raise answer.error
        return answer
