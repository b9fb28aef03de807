"""The generated logs are what they claim to be: repeatable, shaped like real ones, and with the planted attacks and no others."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench import workload
from bench.background import Ration
from bench.workload import Manifest
from cluster.sources import discover
from rules.logtypes import load_definitions, shipped_definitions
from rules.pack import load_pack, read_files
from tests.commands import PACKS
from tests.oracle import sequential

EVENTS = 20_000
MAIN = "aws-cloudtrail.jsonl"
ARCHIVE = "aws-cloudtrail-archive.json.gz"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return workload.write(tmp_path_factory.mktemp("workload"), EVENTS, seed=3)


@pytest.fixture(scope="module")
def cloudtrail(written: Manifest) -> list[dict[str, Any]]:
    return records(written.logs / MAIN)


def records(path: Path) -> list[dict[str, Any]]:
    if path.name == ARCHIVE:
        found: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))["Records"]
        return found
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def digest(directory: Path) -> str:
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.suffix != ".gz")
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("same", 5), ("other", 6)):
        workload.write(tmp_path / name, 1000, seed)

    assert digest(tmp_path / "one") == digest(tmp_path / "same") != digest(tmp_path / "other")
    archives = [(tmp_path / name / "logs" / ARCHIVE).read_bytes() for name in ("one", "same")]
    assert archives[0] == archives[1]


def test_there_are_as_many_events_as_asked_for_and_each_file_is_recognised(written: Manifest) -> None:
    assert sum(written.events.values()) == EVENTS
    counted = {path.name: len(records(path)) for path in written.logs.iterdir()}
    assert counted == written.events

    found = discover([str(written.logs)], load_definitions(shipped_definitions()), None)

    log_types = {Path(partition.path).name: partition.log_type for partition in found}
    assert log_types == {file.name: file.log_type for file in workload.FILES}
    assert Path(found[0].path).name == ARCHIVE, "last week's file comes first"


def test_there_is_no_room_for_the_stories_among_too_few_events(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ask for that many at least, not 100"):
        workload.write(tmp_path, 100, seed=1)


def test_a_planted_story_starts_at_the_line_that_the_list_names(written: Manifest) -> None:
    files = {name: records(written.logs / name) for name in written.events}
    for story, planted in zip(workload.tell(written.seed), written.planted, strict=True):
        assert files[planted.file][planted.line - 1] == story.steps[0].event

    listed = json.loads((written.logs.parent / "planted.json").read_text())
    assert [story["story"] for story in listed["stories"]] == [planted.story for planted in written.planted]


def test_the_planted_attacks_raise_their_alerts_and_nothing_else_does(written: Manifest) -> None:
    """By the loop that defines the right answer, not by the engine."""
    matches, alerts = sequential([str(written.logs)], PACKS)

    dedups = {alert_id: (rule_id, dedup) for rule_id, _, _, dedup, _, alert_id in matches}
    raised = Counter(dedups[alert_id] for alert_id, _ in alerts)
    assert raised == {
        (expected.rule_id, expected.dedup): expected.alerts for story in written.planted for expected in story.expected
    }


def test_every_shipped_rule_that_alerts_has_a_story(written: Manifest) -> None:
    pack = load_pack(read_files([PACKS]), quiet=True)
    alerting = {rule.id for rule in pack.rules if rule.spec.create_alert}

    assert {expected.rule_id for story in written.planted for expected in story.expected} == alerting
    assert any(not story.expected for story in written.planted), "and some stories only look like an attack"


def test_one_principal_makes_half_of_the_calls_and_many_keys_are_seen_once(cloudtrail: list[dict[str, Any]]) -> None:
    principals = Counter(event["userIdentity"]["arn"] for event in cloudtrail)
    (_, head), (_, second) = principals.most_common(2)
    assert 0.45 < head / len(cloudtrail) < 0.55
    assert second / len(cloudtrail) < 0.15

    keys = Counter(event["userIdentity"]["accessKeyId"] for event in cloudtrail)
    assert sum(1 for uses in keys.values() if uses == 1) / len(keys) > 0.5


def test_events_are_out_of_order_late_and_repeated_as_in_real_logs(cloudtrail: list[dict[str, Any]]) -> None:
    times = [event["eventTime"] for event in cloudtrail]
    inversions = sum(1 for before, after in pairwise(times) if after < before)
    assert 0.10 < inversions / len(times) < 0.20

    latest_s, lateness_s = 0, []
    for event in cloudtrail:
        hours, minutes, seconds = map(int, event["eventTime"][11:19].split(":"))
        time_s = (hours * 60 + minutes) * 60 + seconds
        latest_s = max(latest_s, time_s)
        lateness_s.append(latest_s - time_s)
    assert 300 < max(lateness_s) <= workload.LATEST_S + 1

    duplicates = len(cloudtrail) - len({event["eventID"] for event in cloudtrail})
    assert 0.005 < duplicates / len(cloudtrail) < 0.015


def test_events_are_as_long_as_real_ones(written: Manifest) -> None:
    sizes = sorted(map(len, (written.logs / MAIN).read_bytes().splitlines()))
    assert 1000 < sizes[len(sizes) // 2] < 1200


@pytest.mark.parametrize("share", [0.02, 0.23])
def test_the_share_of_stateful_events_is_the_one_asked_for(share: float, tmp_path: Path) -> None:
    workload.write_stateful(tmp_path / MAIN, 10_000, seed=1, share=share)

    events = records(tmp_path / MAIN)
    stateful = sum(1 for event in events if "errorCode" in event or event["eventName"] == "AssumeRole")
    assert len(events) == 10_000
    assert stateful / len(events) == pytest.approx(share, abs=0.015)


def test_a_ration_is_what_a_principal_may_take_in_a_period() -> None:
    ration = Ration(limit=2, period_s=3600)

    assert [ration.take("a", time_s) for time_s in (0, 10, 3599, 3600)] == [True, True, False, True]
    assert ration.take("b", 3599)
