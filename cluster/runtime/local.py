"""The local runtime: every machine in one process, one queue. The same protocol as on Ray, not a look-alike."""

from __future__ import annotations

import time
from collections import deque

from cluster.core.effects import COORDINATOR, Send
from cluster.core.messages import Message, RescaleRequested, Ticked
from cluster.runtime.job import JobSpec, Status
from cluster.runtime.shells import CoordinatorShell, ShardShell, failure_of


class LocalRuntime:
    """Carries messages between a coordinator and its shards in one thread."""

    def __init__(self, spec: JobSpec) -> None:
        self._spec = spec
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
        return ShardShell(self._spec, number, lambda job: job())

    def send(self, message: Message) -> None:
        """A message from the driver to the coordinator."""
        self._queue.extend(self._coordinator.receive(message))

    def rescale(self, shards: int) -> None:
        """Go to another number of shards; only while the last status says that it is not on its way to one already."""
        self._shards += [self._shard(number) for number in range(len(self._shards), shards)]
        self.send(RescaleRequested(shards))

    def abandon(self) -> None:
        """There is nothing to lose but the process itself."""
        self.close()

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
