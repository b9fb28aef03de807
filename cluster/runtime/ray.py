"""The Ray runtime: one actor a shard, one for the coordinator on the driver's machine. The only file that imports ray.

Order holds from one submitter to one sync actor without task retries, which is what the machines need. Ray restarts nothing: a
lost actor is ProcessLost for the driver, which starts all of them anew from the last checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.core.effects import COORDINATOR, Send
from cluster.core.messages import Message, Ticked
from cluster.environment import EVALUATION_ENVIRONMENT
from cluster.runtime.job import Failure, JobSpec, ProcessLost, Status, lost
from cluster.runtime.shells import CoordinatorShell, ShardShell, failure_of
from cluster.watch import LOOK_EVERY_S, Ended, Slot, Watch

_START_TIMEOUT_S = 120.0

_CONNECT_TIMEOUT_S = 5.0

_KILL_TIMEOUT_S = 10.0

_WATCH_PATIENCE_S = 10.0
"""How long a watch on another machine may take to answer: it does next to nothing, but the machine may be busy."""

_OPTIONS: dict[str, Any] = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "enable_task_events": False}

_ANSWER_TIMEOUT_S = 600.0
"""The coordinator may be writing to a store that is down; it answers when the store's own timeouts have run out."""


class ClusterUnreachable(Exception):
    """There is no Ray cluster at the address, or it cannot run the job."""


class _Peers:
    """Where to send messages to."""

    def __init__(self, coordinator: Any, shards: list[Any]) -> None:
        self._coordinator = coordinator
        self._shards = shards

    def deliver(self, sends: list[Send]) -> None:
        for send in sends:
            to = self._coordinator if send.to == COORDINATOR else self._shards[send.to]
            # Our own pickle: Ray's would look at every tuple in Python before it writes it.
            to.receive.remote(pickle.dumps(send.message, pickle.HIGHEST_PROTOCOL))


class _WatchedActor:
    """What the watch must know of an actor, and what Ray is asked of any."""

    def __init__(self) -> None:
        self._slot = Slot()

    def whereabouts(self) -> tuple[str, str]:
        """(the node's id, the path of the slot there)"""
        return ray.get_runtime_context().get_node_id(), self._slot.path

    def ping(self) -> None:
        """Answered in turn with the other messages."""


class _WatchActor:
    """The watch on another machine than the driver's."""

    def __init__(self, limit_s: float) -> None:
        self._watch = Watch(limit_s)

    def add(self, name: str, path: str) -> None:
        self._watch.add(name, path)

    def look(self) -> list[Ended]:
        return self._watch.look()


class _ShardActor(_WatchedActor):
    """Carries messages to a ShardShell and what follows from them to the others."""

    def __init__(self, spec: JobSpec, number: int) -> None:
        super().__init__()
        self._spec = spec
        self._number = number
        self._jobs: queue.SimpleQueue[Callable[[], Message]] = queue.SimpleQueue()
        self._shell: ShardShell | None = None  # made in connect(): what fails there reaches the driver as it is
        self._peers: _Peers | None = None

    @staticmethod
    def _check_installation() -> None:
        import rules

        home = Path(__file__).resolve().parents[2]
        if Path(rules.__file__ or "").resolve().parents[1] != home:
            raise RuntimeError(
                f"{rules.__file__}: this is not the package `rules` of {home}: start from another directory"
            )

    def connect(self, coordinator: Any, shards: list[Any]) -> None:
        """Build the shard and learn where the others are. Raises what makes the run impossible."""
        self._check_installation()
        self._shell = ShardShell(self._spec, self._number, self._jobs.put, self._slot.cells)
        self._peers = _Peers(coordinator, shards)
        self._coordinator = coordinator
        self._self = shards[self._number]
        threading.Thread(target=self._work, daemon=True).start()

    def receive(self, message: bytes) -> None:
        assert self._shell is not None
        assert self._peers is not None
        try:
            sends = self._shell.receive(pickle.loads(message))
        except Exception as error:
            self._fail(error)
            return
        self._peers.deliver(sends)

    def _work(self) -> None:
        """Snapshots are encoded and stored beside the stream; their outcome comes back like any message."""
        while True:
            job = self._jobs.get()
            try:
                self._self.receive.remote(pickle.dumps(job()))
            except Exception as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._coordinator.fail.remote(failure_of(error, f"shard {self._number}"))


class _CoordinatorActor(_WatchedActor):
    """Carries messages to a CoordinatorShell; the driver polls it."""

    def __init__(self, spec: JobSpec) -> None:
        super().__init__()
        self._spec = spec
        self._peers: _Peers | None = None

    def connect(self, coordinator: Any, shards: list[Any]) -> None:
        """Open the outputs and start the job. Raises what makes the run impossible."""
        self._shell = CoordinatorShell(self._spec)
        self._peers = _Peers(coordinator, shards)
        self._peers.deliver(self._shell.start())

    def receive(self, message: bytes) -> None:
        self._hear(pickle.loads(message))

    def _hear(self, message: Message) -> None:
        assert self._peers is not None
        self._peers.deliver(self._shell.receive(message))

    def fail(self, failure: Failure) -> None:
        self._shell.fail(failure)

    def poll(self, now_s: float) -> Status:
        self._hear(Ticked(now_s))
        return self._shell.status()

    def close(self) -> None:
        self._shell.close()


def start_ray(address: str | None) -> None:
    """Connect to the cluster at `address` (auto, or host:port), or start Ray on this machine, once. Raises ClusterUnreachable."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    home = str(Path(__file__).resolve().parents[2])
    environment = {**EVALUATION_ENVIRONMENT, "PYTHONPATH": _python_path(home)}
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        "runtime_env": {"env_vars": environment},
        "namespace": "countersign",
    }
    try:
        with contextlib.chdir(home):  # Ray puts the driver's directory first on its workers' sys.path
            if address is None:
                os.environ.pop("RAY_ADDRESS", None)
                ray.init(include_dashboard=False, **options)
                return
            _check_reachable(address)
            ray.init(address=address, **options)
    except Exception as error:
        text = str(error).strip().splitlines()
        raise ClusterUnreachable(
            f"{address or 'this machine'}: no Ray to run on: {text[0] if text else type(error).__name__}: "
            "start a head with `ray start --head`, or leave --address away"
        ) from error


def _check_reachable(address: str) -> None:
    """Ask the port: ray.init() would take minutes to notice that nobody is there. Raises OSError."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()


def _python_path(home: str) -> str:
    """Our installation first: a directory with its own package `rules` is a likely place to start from (DESIGN 11.32)."""
    rest = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != home]
    return os.pathsep.join([home, *rest])


class RayRuntime:
    """Carries messages between actors."""

    def __init__(self, spec: JobSpec) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        data = ray.put(spec)
        shard_class: Any = ray.remote(_ShardActor)
        coordinator_class: Any = ray.remote(_CoordinatorActor)
        self._shards: list[Any] = [
            shard_class.options(**_OPTIONS, scheduling_strategy="SPREAD").remote(data, number)
            for number in range(spec.shards)
        ]
        self._coordinator: Any = coordinator_class.options(**_OPTIONS, scheduling_strategy=here).remote(data)
        self._watches = _Watches(spec.config.evaluation_timeout_s)
        try:
            self._watch_over([(f"shard {number}", shard) for number, shard in enumerate(self._shards)])
            self._watch_over([("the coordinator", self._coordinator)])
            self._get(
                [shard.connect.remote(self._coordinator, self._shards) for shard in self._shards], _START_TIMEOUT_S
            )
            self._get([self._coordinator.connect.remote(self._coordinator, self._shards)], _START_TIMEOUT_S)
        except ProcessLost:
            self.abandon()
            raise
        self._pings = {number: shard.ping.remote() for number, shard in enumerate(self._shards)}

    def _watch_over(self, actors: list[tuple[str, Any]]) -> None:
        places = self._get([actor.whereabouts.remote() for _, actor in actors], _START_TIMEOUT_S)
        added = [self._watches.add(name, *place) for (name, _), place in zip(actors, places, strict=True)]
        self._get([answer for answer in added if answer is not None], _START_TIMEOUT_S)
        self._watches.begin()

    def poll(self, timeout_s: float) -> Status:
        """Ask the coordinator how far it is; waits `timeout_s` before, so that asking costs nothing."""
        time.sleep(timeout_s)
        self._ping()
        status: Status = self._get([self._coordinator.poll.remote(time.monotonic())], _ANSWER_TIMEOUT_S)[0]
        return status

    def _ping(self) -> None:
        """Notice a lost shard: its answer is an error. A busy one answers when it is through, which is fine."""
        for number, ping in self._pings.items():
            if ray.wait([ping], timeout=0)[0]:
                self._get([ping], _ANSWER_TIMEOUT_S)
                self._pings[number] = self._shards[number].ping.remote()

    def send(self, message: Message) -> None:
        self._coordinator.receive.remote(pickle.dumps(message))

    def abandon(self) -> None:
        """Kill what is left of the actors, and wait until no one writes any more. Ray goes on."""
        actors = [self._coordinator, *self._shards]
        for actor in actors:
            ray.kill(actor)
        self._watches.close()
        for actor in actors:
            with contextlib.suppress(Exception):
                ray.get(actor.ping.remote(), timeout=_KILL_TIMEOUT_S)

    def close(self) -> None:
        try:
            ray.get(self._coordinator.close.remote(), timeout=30)
        except Exception as error:
            print(f"closing the outputs: {error}", file=sys.stderr)
        for actor in [self._coordinator, *self._shards]:
            ray.kill(actor)
        self._watches.close()
        ray.shutdown()

    def _get(self, references: list[Any], timeout_s: float) -> list[Any]:
        """What the actors answer, all of it; while they take their time they are watched. Raises what they raise."""
        until_s = time.monotonic() + timeout_s
        waiting = references
        try:
            while waiting:
                _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=LOOK_EVERY_S)
                self._watches.look()
                if waiting and time.monotonic() >= until_s:
                    raise ProcessLost(f"a process of the run gave no answer for {timeout_s:.0f} s")
            return list(ray.get(references))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayActorError as error:
            self._watches.look(patience_s=_WATCH_PATIENCE_S)  # perhaps a watch ended it, and knows why
            reason = str(error).strip().splitlines()[0][:200]
            raise ProcessLost(f"a process of the run was lost (Ray says: {reason})") from None


class _Watches:
    """A watch on each machine that has actors of ours: the driver's own here, an actor elsewhere."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._here = ray.get_runtime_context().get_node_id()
        self._watch = Watch(limit_s)
        self._actors: dict[str, Any] = {}
        """Node id -> the watch there."""
        self._looks: dict[str, tuple[Any, float]] = {}
        """Node id -> the look that it was asked for, and when."""

    def add(self, name: str, node: str, path: str) -> Any:
        """What is to be waited for before begin(), if anything is."""
        if node == self._here:
            self._watch.add(name, path)
            return None
        if node not in self._actors:
            watch_class: Any = ray.remote(_WatchActor)
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            self._actors[node] = watch_class.options(**_OPTIONS, scheduling_strategy=there).remote(self._limit_s)
        return self._actors[node].add.remote(name, path)

    def begin(self) -> None:
        for node in self._actors.keys() - self._looks.keys():
            self._ask(node)

    def _ask(self, node: str) -> None:
        self._looks[node] = self._actors[node].look.remote(), time.monotonic()

    def look(self, patience_s: float = 0.0) -> None:
        """Raises ProcessLost where a watch has ended a process, or is silent itself. Waits `patience_s` for those elsewhere."""
        ended = self._watch.look()
        for node, (look, asked_s) in list(self._looks.items()):
            if ray.wait([look], timeout=patience_s)[0]:
                ended += self._seen(node, look)
                self._ask(node)
            elif time.monotonic() - asked_s > _WATCH_PATIENCE_S:
                raise ProcessLost(f"node {node[:8]} of the cluster gave no answer for {_WATCH_PATIENCE_S:.0f} s")
        if ended:
            raise lost(ended)

    @staticmethod
    def _seen(node: str, look: Any) -> list[Ended]:
        try:
            seen: list[Ended] = ray.get(look)
        except ray.exceptions.RayActorError:
            raise ProcessLost(f"node {node[:8]} of the cluster was lost") from None
        return seen

    def close(self) -> None:
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors = {}
        self._looks = {}
