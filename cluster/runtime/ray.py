"""The Ray runtime: one actor a shard, one for the coordinator on the driver's machine. The only file that imports ray.

Order holds from one submitter to one sync actor without task retries, which is what the machines need. Ray restarts nothing: a
lost actor is ProcessLost for the driver, which begins the job's next life. The actors that are left go over into it with their
rules and state; a spare, started once a run lasts, or a new actor takes the place of the lost one.
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
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.core.effects import COORDINATOR, Send
from cluster.core.messages import Message, RescaleRequested, Ticked
from cluster.core.poison import Hang
from cluster.environment import EVALUATION_ENVIRONMENT
from cluster.runtime.job import Failure, JobSpec, ProcessLost, Status, is_of_life, lost
from cluster.runtime.shells import (
    CoordinatorShell,
    Job,
    Rules,
    ShardShell,
    failure_of,
    keep_memory,
    load_rules,
    spare_the_collector,
)
from cluster.watch import LOOK_EVERY_S, Ended, Slot, Watch

_START_TIMEOUT_S = 120.0

_CONNECT_TIMEOUT_S = 5.0

_KILL_TIMEOUT_S = 10.0

SPARE_AFTER_S = 30.0
"""How long a life lasts before a spare is started, which costs a second of one processor: on two no more than 2 % of what the
life has had of them by then. Short runs do without."""

_SURVIVOR_PATIENCE_S = 5.0
"""How long a process that is left of a life may take to its next one before it counts as lost: it works its queue off first."""

_WATCH_PATIENCE_S = 10.0
"""How long a watch on another machine may take to answer: it does next to nothing, but the machine may be busy."""

_OPTIONS: dict[str, Any] = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "enable_task_events": False}

_PINGS_PER_POLL = 8
"""How many shards are asked at a time whether they are there, in turns: with 64 of them, asking all ten times a second takes a
fifth of the driver's processor and half of what idle shards take. So a loss may take 0.1 s for each eight to be noticed."""

_ANSWER_TIMEOUT_S = 600.0
"""The coordinator may be writing to a store that is down; it answers when the store's own timeouts have run out."""


class ClusterUnreachable(Exception):
    """There is no Ray cluster at the address, or it cannot run the job."""


class _Peers:
    """Where to send the messages of one life."""

    def __init__(self, life: str, coordinator: Any, shards: list[Any]) -> None:
        self.life = life
        self._coordinator = coordinator
        self._shards = shards

    def meet(self, shards: list[Any]) -> None:
        """More shards have joined."""
        self._shards = shards

    def deliver(self, sends: Iterable[Send]) -> None:
        for send in sends:
            self.tell(send.to, send.message)

    def tell(self, to: int, message: Message) -> None:
        # Our own pickle: Ray's would look at every tuple in Python before it writes it.
        self._actor(to).receive.remote(self.life, pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def fail(self, failure: Failure) -> None:
        self._coordinator.fail.remote(self.life, failure)

    def _actor(self, to: int) -> Any:
        return self._coordinator if to == COORDINATOR else self._shards[to]


class _WatchActor:
    """The watch on another machine than the driver's."""

    def __init__(self, limit_s: float) -> None:
        self._watch = Watch(limit_s)

    def add(self, name: str, path: str) -> None:
        self._watch.add(name, path)

    def look(self) -> list[Ended]:
        return self._watch.look()


class _Actor:
    """A process of the run: a shard or the coordinator in one life after the other, as long as it lasts.

    Every message names its life. Those of another one than the receiver's are dropped: they are late.
    """

    def __init__(self) -> None:
        self._slot = Slot()
        self._rules: Rules | None = None
        self._peers: _Peers | None = None
        self._shard: ShardShell | None = None
        self._coordinator: CoordinatorShell | None = None
        self._jobs: queue.SimpleQueue[tuple[str, int, Job]] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def whereabouts(self) -> tuple[str, str]:
        """(the node's id, the path of the slot there)"""
        return ray.get_runtime_context().get_node_id(), self._slot.path

    def ping(self) -> int:
        """Answered in turn with the other messages, with the process's number."""
        return os.getpid()

    def load(self, spec: JobSpec) -> None:
        """Do ahead what taking part will take."""
        import pyarrow.compute  # noqa: F401  # the first blob would import it

        _check_installation()
        before, self._rules = self._rules, load_rules(spec, self._rules)
        if self._rules is not before:
            spare_the_collector()
            keep_memory()

    def be_shard(self, spec: JobSpec, number: int, coordinator: Any, shards: list[Any]) -> None:
        """Take part in a life, and leave the one before. Raises what makes the run impossible."""
        self.load(spec)
        kept = self._shard.leave() if self._shard is not None else None
        peers = _Peers(spec.life, coordinator, shards)

        def background(job: Job) -> None:
            self._jobs.put((spec.life, number, job))

        self._shard = ShardShell(spec, number, background, self._slot.cells, self._rules, kept)
        self._peers = peers

    def be_coordinator(self, spec: JobSpec, coordinator: Any, shards: list[Any]) -> None:
        """Take part in a life, and leave the one before: open the outputs and start the job. Raises as be_shard()."""
        if self._coordinator is not None:
            self._coordinator.close()
        self._coordinator = CoordinatorShell(spec)
        self._peers = _Peers(spec.life, coordinator, shards)
        self._peers.deliver(self._coordinator.start())

    def meet(self, life: str, shards: list[Any]) -> None:
        """Learn of shards that have joined."""
        if self._peers is not None and is_of_life(life, self._peers.life):
            self._peers.meet(shards)

    @ray.method(num_returns=0)  # nobody waits for an answer, and Ray takes some 7 % less time where there is none
    def receive(self, life: str, message: bytes) -> None:
        peers = self._peers
        if peers is None or not is_of_life(life, peers.life):
            return
        shell = self._shard or self._coordinator
        assert shell is not None
        try:
            peers.deliver(shell.receive(pickle.loads(message)))
        except Exception as error:
            peers.fail(failure_of(error, "shard"))

    def _work(self) -> None:
        """Snapshots are encoded and stored beside the stream; their outcome comes back like any message."""
        while True:
            self._do(*self._jobs.get())  # and hold on to nothing of it: what was captured may be as large as the state

    def _do(self, life: str, number: int, job: Job) -> None:
        peers = self._peers
        if peers is None or not is_of_life(life, peers.life):
            return
        try:
            assert self._shard is not None
            peers.tell(number, job(self._shard.pace()))
        except Exception as error:
            peers.fail(failure_of(error, f"shard {number}"))

    def fail(self, life: str, failure: Failure) -> None:
        if self._peers is not None and is_of_life(life, self._peers.life):
            assert self._coordinator is not None
            self._coordinator.fail(failure)

    def poll(self, now_s: float) -> Status:
        assert self._coordinator is not None
        assert self._peers is not None
        self._peers.deliver(self._coordinator.receive(Ticked(now_s)))
        return self._coordinator.status()

    def close(self) -> None:
        assert self._coordinator is not None
        self._coordinator.close()


class _ShardActor(_Actor):
    """What a process began as: its title says so to whoever looks at a machine's processes."""


class _CoordinatorActor(_Actor):
    """See _ShardActor."""


class _SpareActor(_Actor):
    """See _ShardActor."""


def _check_installation() -> None:
    import rules

    home = Path(__file__).resolve().parents[2]
    if Path(rules.__file__ or "").resolve().parents[1] != home:
        raise RuntimeError(f"{rules.__file__}: this is not the package `rules` of {home}: start from another directory")


def start_ray(address: str | None) -> None:
    """Connect to the cluster at `address` (auto, or host:port), or start Ray on this machine, once. Raises ClusterUnreachable."""
    if ray.is_initialized():
        return
    _keep_ray_off_standard_output()
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    home = str(Path(__file__).resolve().parents[2])
    os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] = "1"  # answers that nobody waits for are of a life that is over
    environment = {**EVALUATION_ENVIRONMENT, "PYTHONPATH": _python_path(home)}
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        "namespace": "countersign",
    }
    try:
        with contextlib.chdir(home):  # Ray puts the driver's directory first on its workers' sys.path
            if address is None:
                os.environ.pop("RAY_ADDRESS", None)
                with _environment(environment):
                    ray.init(address="local", include_dashboard=False, **options)
                return
            _check_reachable(address)
            ray.init(address=address, runtime_env={"env_vars": environment}, **options)
    except Exception as error:
        text = str(error).strip().splitlines()
        remedy = (
            "it may be busy: try again, or run with `--runtime local`"
            if address is None
            else "start a head with `ray start --head`, or leave --address away"
        )
        raise ClusterUnreachable(
            f"{address or 'this machine'}: no Ray to run on: {text[0] if text else type(error).__name__}: {remedy}"
        ) from error


@contextlib.contextmanager
def _environment(environment: dict[str, str]) -> Iterator[None]:
    """What is started meanwhile inherits it. Ray keeps processes ready that have no environment of their own, and only those."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _keep_ray_off_standard_output() -> None:
    """Ray reports each process and machine that it loses on the driver's standard output, where our records may go, and has no
    option against it (2.60, `listen_error_messages`). We say so ourselves, and Ray's own logs have all of it."""
    if hasattr(ray._private.worker, "print_to_stdstream"):
        ray._private.worker.print_to_stdstream = lambda *arguments, **options: None


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
    """Carries messages between actors, and replaces those that are lost."""

    waits = True

    def __init__(self, spec: JobSpec) -> None:
        self._here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._spec = spec
        self._actors: dict[int, Any] = {}
        """Shard, or COORDINATOR -> its process."""
        self._nodes: dict[int, str] = {}
        """The same -> the node that its process runs on. Those that are here are watched."""
        self._spare: tuple[Any, Any] | None = None
        """A process that waits to take the place of another, and what is ready when it is."""
        self._joining: _Joining | None = None
        """The way of new shards into the run, while they are on it."""
        self._watches = _Watches(spec.config.evaluation_timeout_s)
        try:
            self._begin(spec)
        except BaseException:
            self.abandon()
            raise

    def restart(self, spec: JobSpec) -> RayRuntime:
        """What is left goes over into the next life, what is lost is replaced."""
        for who in self._lost():
            self._forget(who)
        self._begin(spec)
        return self

    def _forget(self, who: int) -> None:
        del self._actors[who]
        self._nodes.pop(who, None)  # one that was on its way to join has none yet

    def _lost(self) -> list[int]:
        """Those that are gone, or do not come to answer; these are gone then as well, and write no more."""
        pings = {who: actor.ping.remote() for who, actor in self._actors.items()}
        answered, _ = ray.wait(list(pings.values()), num_returns=len(pings), timeout=_SURVIVOR_PATIENCE_S)
        lost = [who for who, ping in pings.items() if ping not in answered or not _is_there(ping)]
        for who in lost:
            ray.kill(self._actors[who])
        for who in lost:
            with contextlib.suppress(Exception):
                ray.get(pings[who], timeout=_KILL_TIMEOUT_S)
        return lost

    def _begin(self, spec: JobSpec) -> None:
        """Begin a life with the processes that there are and as many new ones as it takes. Raises ProcessLost."""
        self._spec = spec
        self._joining = None
        for who in [who for who in self._actors if who >= spec.shards]:
            ray.kill(self._actors[who])
            self._forget(who)
        for who in (COORDINATOR, *range(spec.shards)):
            if who not in self._actors:
                self._actors[who] = self._taken_spare() or self._started(who)
        self._watch_over([who for who in self._actors if who not in self._nodes])
        nodes = {self._nodes[who] for who in self._actors}
        spec = self._spec = replace(spec, one_machine=len(nodes) == 1)
        data = ray.put(spec)
        shards = [self._actors[number] for number in range(spec.shards)]
        coordinator = self._actors[COORDINATOR]
        self._get(
            [shard.be_shard.remote(data, number, coordinator, shards) for number, shard in enumerate(shards)],
            _START_TIMEOUT_S,
        )
        self._get([coordinator.be_coordinator.remote(data, coordinator, shards)], _START_TIMEOUT_S)
        self._pings = {number: shard.ping.remote() for number, shard in enumerate(shards)}
        """Shard -> its last ping, those that were asked longest ago first."""
        self._begun_s = time.monotonic()

    def _started(self, who: int) -> Any:
        if who == COORDINATOR:
            return ray.remote(_CoordinatorActor).options(**_OPTIONS, scheduling_strategy=self._here).remote()
        return ray.remote(_ShardActor).options(**_OPTIONS, scheduling_strategy="SPREAD").remote()

    def _watch_over(self, who: list[int]) -> None:
        places = self._get([self._actors[each].whereabouts.remote() for each in who], _START_TIMEOUT_S)
        self._nodes |= {each: node for each, (node, _) in zip(who, places, strict=True)}
        names = ["the coordinator" if each == COORDINATOR else f"shard {each}" for each in who]
        added = [self._watches.add(name, *place) for name, place in zip(names, places, strict=True)]
        self._get([answer for answer in added if answer is not None], _START_TIMEOUT_S)
        self._watches.begin()

    def poll(self, timeout_s: float) -> Status:
        """Ask the coordinator how far it is; waits `timeout_s` before, so that asking costs nothing."""
        time.sleep(timeout_s)
        self._ping()
        self._go_on()
        asked = self._actors[COORDINATOR].poll.remote(time.monotonic())
        status: Status = self._get([asked], _ANSWER_TIMEOUT_S)[0]
        if self._joining is not None:
            status.rescaling = True
        elif not status.rescaling:
            for number in [who for who in self._pings if who >= status.shards]:
                del self._pings[number]
                ray.kill(self._actors[number])
                self._forget(number)
            self._keep_spare()
        return status

    def _ping(self) -> None:
        """Notice a lost shard: its answer is an error. A busy one answers when it is through, which is fine."""
        pings = self._pings
        answered, _ = ray.wait(list(pings.values()), num_returns=len(pings), timeout=0)
        self._get(answered, _ANSWER_TIMEOUT_S)
        here = set(answered)
        for number in [number for number, ping in pings.items() if ping in here][:_PINGS_PER_POLL]:
            del pings[number]  # and to the end of the line
            pings[number] = self._actors[number].ping.remote()

    def send(self, message: Message) -> None:
        self._actors[COORDINATOR].receive.remote(self._spec.life, pickle.dumps(message))

    def pids(self) -> dict[int, int]:
        """Shard, or COORDINATOR -> the number of its process, for those who mean to hurt it."""
        return {who: ray.get(actor.ping.remote()) for who, actor in self._actors.items()}

    # --- rescaling -----------------------------------------------------------------------------------------------

    def rescale(self, shards: int) -> None:
        """Go to another number of shards; only while the last status says that it is not on its way to one already."""
        self._joining = _Joining(self._join(shards))
        self._go_on()

    def _join(self, shards: int) -> Generator[list[Any], list[Any], None]:
        """Start what is missing, and tell the coordinator. Yields what is to be answered before it goes on; the run does."""
        new = range(len(self._actors) - 1, shards)
        for number in new:
            self._actors[number] = self._taken_spare() or self._started(number)
        places = yield [self._actors[number].whereabouts.remote() for number in new]
        self._nodes |= {number: node for number, (node, _) in zip(new, places, strict=True)}
        added = [self._watches.add(f"shard {number}", *place) for number, place in zip(new, places, strict=True)]
        yield [answer for answer in added if answer is not None]
        self._watches.begin()
        everyone = [self._actors[number] for number in range(len(self._actors) - 1)]
        coordinator = self._actors[COORDINATOR]
        if new:
            data = ray.put(self._spec)
            yield [everyone[number].be_shard.remote(data, number, coordinator, everyone) for number in new]
            known = [coordinator, *everyone[: new.start]]
            yield [actor.meet.remote(self._spec.life, everyone) for actor in known]
        self._pings |= {number: everyone[number].ping.remote() for number in new}
        self.send(RescaleRequested(shards))

    def _go_on(self) -> None:
        """Take the way of those that join as far as it goes by now. Raises ProcessLost where it leads nowhere."""
        while (joining := self._joining) is not None:
            if len(ray.wait(joining.waiting, num_returns=len(joining.waiting), timeout=0)[0]) < len(joining.waiting):
                if time.monotonic() - joining.since_s > _START_TIMEOUT_S:
                    raise ProcessLost(f"a process that was to join gave no answer for {_START_TIMEOUT_S:.0f} s")
                return
            try:
                joining.go_on(self._get(joining.waiting, _START_TIMEOUT_S))
            except StopIteration:
                self._joining = None

    # --- the spare -----------------------------------------------------------------------------------------------

    def _keep_spare(self) -> None:
        """Start one in a run that lasts: here, where a coordinator has to be and a shard may be.

        Not while the run is rescaled: a process that starts takes a processor for a second, and other shards have to start.
        """
        if self._spare is None and time.monotonic() - self._begun_s >= SPARE_AFTER_S:
            spare: Any = ray.remote(_SpareActor).options(**_OPTIONS, scheduling_strategy=self._here).remote()
            self._spare = spare, spare.load.remote(self._spec)

    def _taken_spare(self) -> Any:
        """The spare, ready or nearly so; None where there is none, or it is gone."""
        if self._spare is None:
            return None
        (spare, loaded), self._spare = self._spare, None
        ray.wait([loaded], timeout=_SURVIVOR_PATIENCE_S)
        return spare if _is_there(loaded) else None

    # --- the end -------------------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """Kill what is left of the actors, and wait until no one writes any more. Ray goes on."""
        self._kill_all()
        for actor in self._actors.values():
            with contextlib.suppress(Exception):
                ray.get(actor.ping.remote(), timeout=_KILL_TIMEOUT_S)

    def close(self) -> None:
        try:
            ray.get(self._actors[COORDINATOR].close.remote(), timeout=30)
        except Exception as error:
            print(f"closing the outputs: {error}", file=sys.stderr)
        self._kill_all()
        ray.shutdown()

    def _kill_all(self) -> None:
        if self._spare is not None:
            ray.kill(self._spare[0])
            self._spare = None
        for actor in self._actors.values():
            ray.kill(actor)
        self._watches.close()

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
            story = f"a process of the run was lost (Ray says: {reason})"
            raise ProcessLost(story, in_hand=self._watches.in_hand()) from None


class _Joining:
    """Steps that wait for answers, while the run goes on."""

    def __init__(self, steps: Generator[list[Any], list[Any], None]) -> None:
        self._steps = steps
        self.waiting: list[Any] = next(steps)
        self.since_s = time.monotonic()

    def go_on(self, answers: list[Any]) -> None:
        """Raises StopIteration after the last step."""
        self.waiting, self.since_s = self._steps.send(answers), time.monotonic()


def _is_there(answer: Any) -> bool:
    """Whether an actor has answered, and not Ray in its place."""
    try:
        ray.get(answer, timeout=0)
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        return False
    except ray.exceptions.RayTaskError:
        return True
    return True


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
                self._forget(node)
                raise ProcessLost(f"node {node[:8]} of the cluster gave no answer for {_WATCH_PATIENCE_S:.0f} s")
        if ended:
            raise lost(ended)

    def in_hand(self) -> Hang | None:
        """See Watch; of processes on this machine."""
        return self._watch.in_hand()

    def _seen(self, node: str, look: Any) -> list[Ended]:
        try:
            seen: list[Ended] = ray.get(look)
        except ray.exceptions.RayActorError:
            self._forget(node)
            raise ProcessLost(f"node {node[:8]} of the cluster was lost") from None
        return seen

    def _forget(self, node: str) -> None:
        ray.kill(self._actors.pop(node))
        del self._looks[node]

    def close(self) -> None:
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors = {}
        self._looks = {}
