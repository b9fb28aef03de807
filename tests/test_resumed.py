"""What may be different when a job goes on, and what is refused: with what it is, and what to do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cluster.config import Config
from cluster.core import snapshot
from cluster.display import Display
from cluster.run import CannotRun, Options
from cluster.run import run as driver_run
from cluster.runtime.local import LocalRuntime
from cluster.stores import open_store
from tests.commands import PACKS, run
from tests.test_checkpoints import OUTPUTS, Crash, after_checkpoints, raising, same


@dataclass
class Job:
    """One job: its inputs, and how its next run is started."""

    into: Path
    inputs: list[Path]
    options: dict[str, Any] = field(default_factory=dict)
    config: Config = field(default_factory=Config)

    def run(self, runtime: Callable[..., LocalRuntime] = LocalRuntime) -> None:
        outputs = {name.partition(".")[0]: str(self.into / name) for name in OUTPUTS}
        given: dict[str, Any] = {
            "rules": [PACKS], "shards": 2, "store": str(self.into / "store"), "job": "j", "outputs": outputs,
            "epoch_events": 50, "checkpoint_interval_s": 0.0,
        }  # fmt: skip
        options = Options([str(each) for each in self.inputs], **(given | self.options))
        driver_run(options, self.config, runtime, Display({}, live=False, human_alerts=None))

    def crash(self) -> None:
        with pytest.raises(Crash):
            self.run(after_checkpoints(4, raising(Crash())))

    def refused(self, exit_code: int) -> str:
        with pytest.raises(CannotRun) as refused:
            self.run()
        assert refused.value.exit_code == exit_code
        return str(refused.value)


@pytest.fixture
def job(logs: Path, tmp_path: Path) -> Job:
    """A job whose first run was killed; its inputs are copies of the logs."""
    shutil.copytree(logs, tmp_path / "logs")
    job = Job(tmp_path, [tmp_path / "logs"])
    job.crash()
    return job


def expected(logs: Path, into: Path) -> Path:
    """What a run of the files where the job has them leaves."""
    run(logs, into=into / "expected")
    return into / "expected"


# --- inputs --------------------------------------------------------------------------------------------------------


def grown(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"{}\n")


def trimmed(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def touched(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def replaced(path: Path) -> None:
    """By another of the same size and time."""
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"{", b" ", 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (grown, "it grew from "),
        (trimmed, "its size was "),
        (touched, "it was modified after the job started: restore it, or use --fresh"),
        (replaced, "its first bytes are not those that it had when the job started: restore it, or use --fresh"),
    ],
)
def test_an_input_that_is_not_what_it_was_is_refused_and_told_how(
    change: Callable[[Path], None], said: str, job: Job
) -> None:
    before = [(job.into / output).read_bytes() for output in OUTPUTS]
    change(job.into / "logs" / "okta.jsonl")

    assert f"okta.jsonl: {said}" in job.refused(3)
    assert [(job.into / output).read_bytes() for output in OUTPUTS] == before


def test_standard_input_that_was_kept_and_is_gone_is_refused(logs: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    spool = store / "jobs" / "j" / "stdin-0.jsonl"
    spool.parent.mkdir(parents=True)
    shutil.copy(logs / "okta.jsonl", spool)
    job = Job(tmp_path, [logs / "github.jsonl"], {"epoch_events": 5})
    job.crash()
    opened = open_store(str(store))
    fence = opened.acquire("j", fresh=False)
    known = snapshot.decode_manifest(opened.manifests("j")[0])
    kept = known["partitions"][0] | {"path": str(spool), "head_digest": "", "size_bytes": spool.stat().st_size}
    manifest = known | {"fence": fence.number, "partitions": [*known["partitions"], kept]}
    opened.commit(fence, known["epoch"], snapshot.encode_manifest(manifest), known["blobs"])
    opened.release(fence)
    spool.unlink()

    assert "stdin-0.jsonl: 0 bytes of the standard input that the job kept are left, of " in job.refused(3)


# --- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"epoch_events": 7}, {"epoch_events": 1000}, {"shards": 5}, {"shards": 1}, {"checkpoint_interval_s": 1000.0},
     {"use_index": False, "use_prefilter": False}],
    ids=str,
)  # fmt: skip
def test_options_that_results_do_not_depend_on_may_change(options: dict[str, Any], job: Job) -> None:
    whole = expected(job.into / "logs", job.into)
    job.options |= options
    job.run()

    same(whole, job.into)


def test_the_number_of_key_groups_may_not_change(job: Job) -> None:
    job.config = Config(key_groups=64)

    assert "created with 256 key groups, COUNTERSIGN_KEY_GROUPS asks for 64" in job.refused(2)


def test_the_log_type_that_a_file_was_taken_for_stays(job: Job) -> None:
    job.options["log_type"] = "AWS.CloudTrail"

    said = job.refused(2)
    assert "the job reads it as " in said
    assert "not as AWS.CloudTrail: leave --log-type as it was, or use --fresh" in said


def test_outputs_may_go_elsewhere_and_hold_the_rest_there(job: Job) -> None:
    whole = expected(job.into / "logs", job.into)
    elsewhere = job.into / "elsewhere"
    elsewhere.mkdir()
    job.options["outputs"] = {name.partition(".")[0]: str(elsewhere / name) for name in OUTPUTS}
    job.run()

    for output in OUTPUTS:
        all_of_it, first, rest = ((at / output).read_bytes() for at in (whole, job.into, elsewhere))
        assert all_of_it.startswith(first)
        assert all_of_it.endswith(rest)
        assert len(first) + len(rest) >= len(all_of_it)


def test_outputs_may_be_moved_and_go_on_there(job: Job) -> None:
    whole = expected(job.into / "logs", job.into)
    moved = job.into / "moved"
    moved.mkdir()
    for output in OUTPUTS:
        (job.into / output).rename(moved / output)
    job.options["outputs"] = {name.partition(".")[0]: str(moved / name) for name in OUTPUTS}
    job.run()

    same(whole, moved)


def test_an_output_that_another_job_wrote_is_refused_however_far_it_is(logs: Path, tmp_path: Path) -> None:
    shutil.copytree(logs, tmp_path / "logs")
    whole = expected(tmp_path / "logs", tmp_path)
    before = (whole / "matches.jsonl").read_bytes()
    job = Job(tmp_path, [tmp_path / "logs"], {"outputs": {}})
    job.crash()
    job.options["outputs"] = {"matches": str(whole / "matches.jsonl")}

    assert "matches.jsonl: exists already, and the job's last run did not write it: give " in job.refused(4)
    assert (whole / "matches.jsonl").read_bytes() == before


@pytest.mark.parametrize("meanwhile", [{}, {"matches": "other.jsonl"}])
def test_an_output_that_was_left_out_for_a_while_is_refused(
    meanwhile: dict[str, str], logs: Path, tmp_path: Path
) -> None:
    shutil.copytree(logs, tmp_path / "logs")
    first, *rest = sorted((tmp_path / "logs").iterdir())
    job = Job(tmp_path, [first])
    job.run()
    job.inputs.append(rest[0])
    job.options["outputs"] = {kind: str(tmp_path / name) for kind, name in meanwhile.items()}
    job.run()
    job.inputs.append(rest[1])
    del job.options["outputs"]

    assert "exists already, and the job's last run did not write it" in job.refused(4)


def test_a_device_is_no_output_that_could_lose_records(job: Job) -> None:
    job.options["outputs"] = {"matches": "/dev/null"}
    job.crash()
    job.run()
    job.run()


def test_a_store_may_be_copied_and_the_job_go_on_from_the_copy(job: Job) -> None:
    whole = expected(job.into / "logs", job.into)
    (job.into / "store").rename(job.into / "copy")
    job.options["store"] = str(job.into / "copy")
    job.run()

    same(whole, job.into)


_TYPE = """schema: Ours.Log
fields:
  - name: at
    type: timestamp
    isEventTime: true
    timeFormats: [unix]
"""


def test_a_changed_log_type_definition_is_a_changed_pack(tmp_path: Path) -> None:
    """Accepted at a checkpoint, refused where results of the old one lie past it."""
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "r.py").write_text("def rule(event):\n    return True\n")
    (rules / "r.yml").write_text(
        "AnalysisType: rule\nRuleID: R\nFilename: r.py\nEnabled: true\nSeverity: Low\nLogTypes: [Ours.Log]\n"
    )
    (rules / "ours.yml").write_text(_TYPE)
    log = tmp_path / "log.jsonl"
    log.write_text("".join(f'{{"at": {1_700_000_000 + n}}}\n' for n in range(500)))
    job = Job(tmp_path, [log], {"rules": [rules], "log_type": "Ours.Log", "epoch_events": 1})
    job.run()
    (rules / "ours.yml").write_text(_TYPE + "  - name: note\n    type: string\n")
    job.run()

    (rules / "ours.yml").write_text(_TYPE + "  - name: remark\n    type: string\n")
    _, *later = sorted((tmp_path / "store" / "jobs" / "j" / "checkpoints" / "manifests").iterdir())
    for manifest in later:
        manifest.write_bytes(b"")
    assert "its rules changed, and " in job.refused(2)
