"""JobSpec: everything a process needs to take part in a job, as plain data that travels to any machine.

Packs are data (DESIGN 11.10): shards build their rules from the bytes in here, never from a directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cluster.config import Config
from cluster.core.coordinator import CoordinatorConfig, Phase, Progress, Totals
from cluster.core.effects import TellState
from cluster.core.messages import Moves, Partition
from cluster.core.poison import Hang
from cluster.core.shard import ShardConfig
from cluster.stores import Fence
from cluster.watch import Ended


class ProcessLost(Exception):
    """A process of the run is gone. What it knew is in the store and in the source: new ones can take over."""

    def __init__(self, message: str, hang: Hang | None = None, in_hand: Hang | None = None) -> None:
        super().__init__(message)
        self.hang = hang
        """The evaluation that did not return, where that is why."""
        self.in_hand = in_hand
        """The evaluation that ran when the process ended, as far as it is known."""


def lost(ended: Sequence[Ended]) -> ProcessLost:
    """What the watch ended, for the driver; of several the one that tells most."""
    told = min(ended, key=lambda each: each.hang is None)
    why = "nothing was heard of it" if told.hang is None else "a rule did not return"
    return ProcessLost(f"{told.name} was ended, since {why}", told.hang)


class CheckpointDamaged(ProcessLost):
    """What a new life was to go on from cannot be read back: an older checkpoint must do."""


def is_of_life(message: object, life: object) -> bool:
    """Whether a message, by its token, is of the life that its receiver is in: those of any other are dropped."""
    return message == life


KINDS = ("matches", "alerts", "errors", "dead_letters")
"""The four outputs of a run."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One run of one job."""

    fence: Fence
    store_url: str
    shards: int
    config: Config
    partitions: tuple[Partition, ...]
    growing: tuple[int, ...]
    """Partitions that are still being spooled."""
    pack_files: dict[str, bytes]
    pack_digest: str
    progress: Progress
    job_start_s: float
    epoch_events: int | None
    """None: what the number of shards asks for."""
    checkpoint_interval_s: float
    outputs: dict[str, str]
    """kind -> URI; a kind without one is counted only. `-` is passed on to the driver, which owns the terminal."""
    resume: bool
    """Outputs may exist, and are continued."""
    use_index: bool
    use_prefilter: bool
    """See ShardConfig for both."""
    one_machine: bool = False
    """All shards run on one machine; for the runtime to say."""

    @property
    def life(self) -> str:
        """What messages of this life are told by. The number alone may come again after a store lost its newest writes."""
        return f"{self.fence.number} {self.fence.owner}"

    def shard_config(self, shard: int) -> ShardConfig:
        return ShardConfig(
            shard,
            self.config.key_groups,
            self.config.lateness_s,
            self.config.max_value_bytes,
            self.partitions,
            self.fence.number,
            self.fence.owner,
            self.use_index,
            self.use_prefilter,
        )

    def coordinator_config(self) -> CoordinatorConfig:
        return CoordinatorConfig(
            self.fence.job,
            self.shards,
            self.config.key_groups,
            self.epoch_events,
            self.checkpoint_interval_s,
            self.config.alert_limit,
            self.pack_digest,
            self.job_start_s,
            self.fence.number,
            self.config.lateness_s,
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run cannot go on, for a person, and its exit code (DESIGN 9)."""

    exit_code: int
    message: str
    damaged: bool = False
    """The checkpoint could not be read back."""
    store_away: bool = False
    """The store was not there for what a life cannot begin without; all else waits for it."""


@dataclass(slots=True)
class Status:
    """What the driver hears when it asks."""

    phase: Phase
    totals: Totals
    w_s: float
    checkpointed_at_s: float | None
    place: tuple[int, int]
    """(partition, start) of what has not been delivered yet."""
    keys: int
    lines: dict[str, list[bytes]] = field(default_factory=dict)
    """Records of the outputs that go to the terminal, and all alerts for the live display, since the last time."""
    interrupted: bool = False
    unsaved: str = ""
    refused: str = ""
    """Why the store did not take the checkpoint that was tried last."""
    shards: int = 0
    """How many take part in the epochs that are cut now."""
    rescaling: bool = False
    """It is on its way to another number of them; no further rescale may be asked for."""
    moves: list[Moves] = field(default_factory=list)
    """What moved since the last time, as Coordinator.moves tells it."""
    told: list[TellState] = field(default_factory=list)
    """Answers to StateWanted, since the last time."""
    failure: Failure | None = None
