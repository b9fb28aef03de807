"""The smoke runs of the benchmarks that are no contest with a bare loop, and the sums that their figures rest on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import inputs, lane, latency, scale
from bench.__main__ import main

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory and processor time are read from /proc")


def _smoke(name: str, directory: Path, *options: str) -> Any:
    figures = directory / "figures.json"
    assert main([name, "--smoke", "--json", str(figures), *options]) == 0
    return json.loads(figures.read_text())["figures"]


def test_a_pack_finds_what_each_event_through_each_rule_does(tmp_path: Path) -> None:
    figures = _smoke("pack", tmp_path, "--cache", str(tmp_path))

    sides = figures["sides"]
    assert sides["countersign"]["digest"] == sides["each rule, no index"]["digest"]
    assert sides["countersign"]["matches"] > 0
    assert figures["own_pack"]


def test_the_real_logs_come_over_and_over(shared_data: Path, tmp_path: Path) -> None:
    log = inputs.repeated_logs(tmp_path, 8_000)

    lines = log.read_bytes().splitlines()
    assert len(lines) == 8_000
    assert 3_000 < len(set(lines)) < 4_000


def test_more_rules_find_the_same(tmp_path: Path) -> None:
    figures = _smoke("rules", tmp_path, "--cache", str(tmp_path))

    assert figures["sides"]["10 rules"]["digest"] == figures["sides"]["30 rules"]["digest"]
    assert figures["sides"]["10 rules"]["matches"] > 0
    assert set(figures["events_per_s_by_rules"]) == {"10", "30"}


def test_the_lane_finds_what_one_shard_does(tmp_path: Path) -> None:
    figures = _smoke("lane", tmp_path, "--cache", str(tmp_path))

    for label in lane.PACKS:
        sides = figures[label]["sides"]
        assert sides["countersign"]["matches"] == lane.SMOKE_EVENTS // 1000
        assert sides["countersign"]["digest"] == sides["local, one shard"]["digest"]


@pytest.mark.ray
def test_latency_is_measured_at_a_pace_below_the_capacity(tmp_path: Path) -> None:
    figures = _smoke("latency", tmp_path, "--cache", str(tmp_path))

    assert 0 < figures["rate"] < figures["capacity"]
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]


@linux
@pytest.mark.ray
def test_memory_is_that_of_two_shards_beside_a_dict(tmp_path: Path) -> None:
    figures = _smoke("memory", tmp_path)

    assert figures["bytes_per_key"]["bare_dict"][0] > 0
    assert figures["bytes_per_key"]["two_shards"]


@linux
@pytest.mark.ray
def test_scale_counts_what_an_epoch_costs_each_shard(tmp_path: Path) -> None:
    [measured] = _smoke("scale", tmp_path)["measured"]

    assert measured["shards"] == 2
    assert measured["epochs"] > 5
    assert measured["shard_cpu_ms"] > 0
    assert measured["own_mb"] > 10


@pytest.mark.ray
def test_recovery_is_measured_with_and_without_a_spare(tmp_path: Path) -> None:
    figures = _smoke("recovery", tmp_path)

    for kind in ("cold", "warm"):
        [steps] = figures[kind]["kills"]
        assert 0 < steps["noticed"] < steps["replaced"] < steps["restored"]
        assert steps["replaced"] < steps["first alert"], "the driver asks for what is restored; an alert may be seen before"


@pytest.mark.ray
def test_rescales_are_measured_from_what_the_shards_tell_of_groups_that_moved(tmp_path: Path) -> None:
    figures = _smoke("rescale", tmp_path)

    assert list(figures["steps"]) == ["1 -> 2 shards", "2 -> 4 shards", "4 -> 2 shards"]
    for step in figures["steps"].values():
        assert step["groups"] == 128
        assert step["keys"] > 8_000
        assert 0 < step["moving_ms"]["median"] <= step["moving_ms"]["longest"]


def test_a_latency_is_from_the_write_that_held_the_event_to_the_sight_of_its_match() -> None:
    trace = latency.Trace(
        handed_bytes=[100, 250, 300], handed_s=[1.0, 2.0, 3.0], seen=[(1.5, 0), (2.25, 100), (9.0, 260)]
    )

    assert trace.latencies_ms(1.0, 3.0) == [500.0, 250.0]
    assert trace.latencies_ms(2.0, 4.0) == [250.0, 6000.0]
    assert trace.reached_bytes() == 260


def test_the_projection_goes_on_with_the_line_that_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    measured = [{"shards": float(shards), "shard_cpu_ms": 2.0 + 0.5 * shards} for shards in (2, 8, 32)]

    projected = scale._project(measured)

    assert projected["each_shard_ms"] == 0.5
    assert projected["projected_ms"] == 2.0 + 0.5 * scale.PROJECTED_SHARDS
    assert "PROJECTION, not measured" in capsys.readouterr().out
