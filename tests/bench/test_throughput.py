"""The comparisons are fair before they are fast: every baseline and the engine find the same matches."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import inputs, packs, throughput
from bench.__main__ import BENCHMARKS, main
from bench.harness import OURS, ROOT, Side, digest_of, in_turns
from bench.throughput import CONTESTS, FOUNDING, Contest

WITH_US = ("throughput", "sparse", "dense", "matching", "redis")
"""The contests whose baselines need nothing that we do not have."""


def contest(name: str) -> Contest:
    return next(contest for contest in CONTESTS if name == contest.NAME)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", WITH_US)
def test_the_smoke_run_finds_the_same_matches_on_both_sides(
    name: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = cache / f"{name}.json"

    assert main([name, "--smoke", "--cache", str(cache), "--json", str(figures)]) == 0

    report = json.loads(figures.read_text())
    sides = report["figures"]["sides"]
    baselines = sides.keys() - {OURS}
    assert baselines
    assert {sides[baseline]["digest"] for baseline in baselines} == {sides[OURS]["digest"]}
    assert sides[OURS]["matches"] > 0
    assert all(sides[name][kind]["ratio"] > 0 for name in baselines for kind in ("processing", "start_up_included"))
    assert report["machine"]["commit"]
    assert "the same on all sides (SHA-256 " in capsys.readouterr().out


@pytest.mark.ray
def test_two_shards_on_ray_find_what_a_loop_over_the_first_part_does(cache: Path) -> None:
    log = inputs.cloudtrail(cache, 10_000, share=FOUNDING.share)
    first_part = replace(throughput.BARE, events=4_000)

    timings, _ = replace(contest("throughput"), baselines=(first_part,)).measure(cache, log, 1, runtime="ray")

    [bare], [engine] = timings[first_part.name], timings[OURS]
    assert (bare.events, engine.events) == (4_000, 10_000)
    assert (bare.matches, bare.digest) == (engine.matches, engine.digest)
    assert bare.matches > 10


@pytest.mark.parametrize("name", ["bytewax", "pyflink"])
def test_a_tool_that_is_not_installed_is_skipped_with_a_message(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--smoke", "--cache", str(tmp_path)]) == 0
    assert "skipped: " in capsys.readouterr().out


def test_a_machine_without_java_cannot_compare_with_flink(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.throughput.shutil.which", lambda _: None)

    figures = replace(contest("pyflink"), events=10).run(smoke=False, cache=tmp_path)

    assert "install a JDK" in str(figures["skipped"])


def _side(name: str, line: str) -> Side:
    code = f"import sys; open(sys.argv[1], 'w').write({line!r}); print('{{\"events\": 1, \"seconds\": 1}}')"
    return Side(name, lambda matches, scratch: [sys.executable, "-c", code, str(matches)])


def test_matches_that_differ_make_the_figures_void() -> None:
    theirs = _side("theirs", '{"rule_id": "R", "position": [0, 0], "dedup": "d"}\n')
    same = _side("ours", '{"rule_id": "R", "position": [0, 0], "dedup": "d", "title": "t"}\n')
    later = _side("ours", '{"rule_id": "R", "position": [0, 9], "dedup": "d"}\n')

    assert [timing.matches for timing in in_turns((theirs, same), 2)["ours"]] == [1, 1]
    with pytest.raises(RuntimeError, match="the matches differ: 1 of theirs, 1 of ours"):
        in_turns((theirs, later), 1)


def test_a_side_that_fails_makes_the_figures_void() -> None:
    broken = Side("theirs", lambda matches, scratch: [sys.executable, "-c", "raise SystemExit('no room')"])

    with pytest.raises(RuntimeError, match=r"theirs: .*exit 1:\nno room"):
        in_turns((broken,), 1)


def test_the_digest_sees_a_match_more_less_or_elsewhere_and_no_order() -> None:
    one, two = (json.dumps({"rule_id": "R", "position": [0, n], "dedup": "d", "title": "t"}).encode() for n in (1, 2))
    moved = two.replace(b"[0, 2]", b"[0, 3]")

    assert digest_of([one, two]) == digest_of([two, one])
    assert digest_of([one, two], counted_bytes=2) == digest_of([one])
    assert len({digest_of(lines) for lines in ([one, two], [one], [one, one, two], [one, moved])}) == 4


def test_a_log_is_made_once_and_is_the_same_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_PART_EVENTS", 300)
    first = inputs.cloudtrail(tmp_path, 1_000, share=0.5)
    written_ns = first.stat().st_mtime_ns

    assert inputs.cloudtrail(tmp_path, 1_000, share=0.5).stat().st_mtime_ns == written_ns
    assert len(first.read_bytes().splitlines()) == 1_000
    assert inputs.cloudtrail(tmp_path / "again", 1_000, share=0.5).read_bytes() == first.read_bytes()
    assert inputs.prefix(first, 1_000) == first
    assert inputs.prefix(first, 10).read_bytes() == b"".join(first.read_bytes().splitlines(keepends=True)[:10])


def test_the_founding_pack_is_the_shipped_rules(tmp_path: Path) -> None:
    pack = packs.founding(tmp_path / "pack")
    shipped = ROOT / "rules" / "packs" / "aws_cloudtrail"
    assert {path.name: path.read_bytes() for path in pack.iterdir()} == {
        name: (shipped / name).read_bytes() for rule in packs.FOUNDING_RULES for name in (f"{rule}.py", f"{rule}.yml")
    }


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


@pytest.mark.parametrize("place", ["absent/figures.json", "."])
def test_a_place_that_figures_cannot_go_to_is_told_before_the_work(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["throughput", "--smoke", "--json", str(tmp_path / place)])

    assert ended.value.code == 2
    assert "not a file in a folder that is there" in capsys.readouterr().err
