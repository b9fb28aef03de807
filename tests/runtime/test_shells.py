"""What every runtime does around a machine: memory is given back where nobody needs it next."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cluster.core.messages import EpochCut, Message, SnapshotStored, Started
from cluster.core.poison import unwatched
from cluster.core.watermark import Watermark
from cluster.runtime import shells
from cluster.runtime.job import JobSpec
from tests.commands import ROOT

HOLES = """
import os
from cluster.runtime.shells import give_back

def resident_bytes():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

blocks = [b"x" * 60_000 for _ in range(2_000)]
stay = blocks[::10]
del blocks
before = resident_bytes()
give_back()
print(before - resident_bytes())
"""


@pytest.mark.skipif(shells._malloc_trim is None, reason="this C library has no malloc_trim")
def test_what_nothing_stands_on_any_more_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 50_000_000


READING = """
import resource
from cluster.runtime.shells import keep_memory

def read():
    for _ in range(100):
        block = (b"\\n" * (1 << 20)).replace(b"\\n", b" ")

keep_memory()
read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
read()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(shells._mallopt is None, reason="this C library has no mallopt")
def test_who_reads_a_megabyte_after_the_other_gets_the_same_pages_each_time() -> None:
    done = subprocess.run([sys.executable, "-c", READING], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100, "page faults; some 480 where glibc is left to itself"


def test_guards_are_found_before_the_first_slice_for_which_all_shards_wait(spec: JobSpec) -> None:
    rules = shells.load_rules(spec).pack.rules
    asked: list[str] = []
    for rule in rules:
        rule._find_guard = asked.append
    log_types = {partition.log_type or "" for partition in spec.partitions}
    guards = [rule.guard(name) for rule in rules for name in log_types.intersection(rule.log_types)]

    assert any(guards)
    assert asked == []


def test_a_shard_gives_memory_back_with_a_snapshot_unless_an_epoch_is_on_its_way(
    spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[shells.Job] = []
    given: list[None] = []
    monkeypatch.setattr(shells, "give_back", lambda: given.append(None))
    shell = shells.ShardShell(spec, 0, jobs.append, unwatched())
    owners = (0,) * spec.config.key_groups

    def tell(message: Message) -> None:
        for _ in shell.receive(message):
            pass

    tell(Started(0, Watermark(), (), owners))
    tell(EpochCut(1, (), True, 1, owners))
    assert isinstance(jobs[0](lambda: None), SnapshotStored)
    assert len(given) == 1

    tell(EpochCut(2, (), True, 1, owners))
    tell(EpochCut(3, (), False, 2, owners))  # waits for what shard 1 routes
    assert isinstance(jobs[1](lambda: None), SnapshotStored)
    assert len(given) == 1, "the stream needs it next"
