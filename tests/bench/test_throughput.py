"""The comparison is fair before it is fast: the hand-written loop and the engine find the same matches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import throughput, workload
from bench.__main__ import BENCHMARKS, main


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("throughput") / "aws-cloudtrail.jsonl"
    workload.write_stateful(path, 10_000, seed=4, share=throughput.STATEFUL_SHARE)
    return path


def test_the_bare_loop_and_the_engine_find_the_same_matches(log: Path, tmp_path: Path) -> None:
    pack = throughput.founding_pack(tmp_path / "pack")

    [bare], [engine] = throughput.measure(log, pack, tmp_path, runs=1, runtime="local")

    assert (bare.events, bare.matches, bare.digest) == (engine.events, engine.matches, engine.digest)
    assert bare.matches > 50
    rules = {json.loads(line)["rule_id"] for line in (tmp_path / "bare-matches.jsonl").read_text().splitlines()}
    assert rules == {"AWS.CloudTrail.AccessDenied.Burst", "AWS.CloudTrail.AssumeRole.NewIP"}


def test_matches_that_differ_make_the_figures_void(log: Path, tmp_path: Path) -> None:
    pack = throughput.founding_pack(tmp_path / "pack")
    (pack / "assume_role_new_ip.yml").unlink()

    with pytest.raises(RuntimeError, match="the matches differ"):
        throughput.measure(log, pack, tmp_path, runs=1, runtime="local")


def test_the_digest_sees_a_match_more_less_or_elsewhere_and_no_order() -> None:
    one, two = (json.dumps({"rule_id": "R", "position": [0, n], "dedup": "d", "title": "t"}).encode() for n in (1, 2))
    moved = two.replace(b"[0, 2]", b"[0, 3]")

    assert throughput.digest_of([one, two]) == throughput.digest_of([two, one])
    assert len({throughput.digest_of(lines) for lines in ([one, two], [one], [one, one, two], [one, moved])}) == 4


@pytest.mark.ray
def test_the_smoke_run_reports_both_ratios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["throughput", "--smoke", "--json", str(tmp_path / "figures.json")]) == 0

    report = json.loads((tmp_path / "figures.json").read_text())
    assert report["machine"]["commit"]
    assert report["figures"]["processing"]["ratio"] > 0
    assert report["figures"]["start_up_included"]["ratio"] > 0
    assert "the same on both sides" in capsys.readouterr().out


class _Disagreeing:
    NAME = "disagreeing"
    HELP = "a benchmark whose two sides do not come to the same"

    def run(self, smoke: bool) -> dict[str, object]:
        raise RuntimeError("one says 5 and the other 6")


def test_sides_that_disagree_are_an_exit_code_of_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.__main__.BENCHMARKS", (_Disagreeing(),))

    assert main(["disagreeing"]) == 1
    assert "one says 5 and the other 6" in capsys.readouterr().err


def test_without_a_name_the_benchmarks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0

    listed = capsys.readouterr().out
    assert all(f"{benchmark.NAME} " in listed and benchmark.HELP in listed for benchmark in BENCHMARKS)
