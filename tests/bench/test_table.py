"""The table of all benchmarks, and the picture: what was not met shows, what failed stops nothing, smoke runs count nowhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench import plot
from bench.harness import Row
from bench.table import All, markdown

FAST = Row("founding rules", "bare loop", 2.5, "x", 1.2, 3)
SLOW = Row("one rule", "bare loop", 0.5, "x", 0.6, 1.1)
HEAVY = Row("memory", "bare dict", 4.0, "x", 2, 1.3, lower_is_better=True)
QUICK = Row("latency", "p50", 20.0, "ms", 50, 25, lower_is_better=True)
PLAIN = Row("80 % match", "bare loop", 0.3, "x", None, None)


@dataclass(frozen=True, slots=True)
class _Made:
    NAME: str
    result: Callable[[], dict[str, Any]]
    HELP: str = "made up"

    def run(self, smoke: bool, cache: Path | None = None) -> dict[str, Any]:
        return self.result() | {"cache": cache}


def _failing() -> dict[str, Any]:
    raise RuntimeError("the matches differ")


def _of(*rows: Row) -> dict[str, Any]:
    return {"rows": [row.plain() for row in rows]}


def test_the_table_says_what_was_met() -> None:
    figures = {"some": _of(FAST, SLOW, HEAVY, QUICK, PLAIN), "other": {"skipped": "no Java"}}

    assert list(markdown(figures))[2:] == [
        "| founding rules | bare loop | 1.2x | 3x | 2.5x | met |",
        "| one rule | bare loop | 0.6x | 1.1x | 0.5x | **not met** |",
        "| memory | bare dict | at most 2x | 1.3x | 4x | **not met** |",
        "| latency | p50 | at most 50 ms | 25 ms | 20 ms | met |",
        "| 80 % match | bare loop |  |  | 0.3x |  |",
        "| other | | | | skipped: no Java | |",
    ]


def test_all_runs_on_past_a_benchmark_that_fails_and_fails_in_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError, match="first: the matches differ"):
        All((_Made("first", _failing), _Made("second", lambda: _of(FAST)))).run(smoke=True, cache=tmp_path)

    assert "| founding rules | bare loop | 1.2x | 3x | 2.5x | met |" in capsys.readouterr().out


def test_all_saves_what_it_has_after_each_benchmark(tmp_path: Path) -> None:
    saved: list[set[str]] = []
    benchmarks = (_Made("first", lambda: _of(FAST)), _Made("second", lambda: _of(SLOW)), _Made("third", _failing))

    with pytest.raises(RuntimeError):
        All(benchmarks).run(smoke=True, save=lambda figures: saved.append(set(figures)))

    assert saved == [{"first"}, {"first", "second"}]


def test_all_hands_on_what_a_benchmark_takes(tmp_path: Path) -> None:
    figures = All((_Made("one", lambda: _of(FAST)),)).run(smoke=True, pack=tmp_path / "pack", cache=tmp_path)

    assert figures["one"]["cache"] == tmp_path


def _write(path: Path, name: str, figures: dict[str, Any], date: str, smoke: bool = False) -> None:
    machine = {"date": date, "commit": f"of {date}", "cpus": "2"}
    path.write_text(json.dumps({"name": name, "smoke": smoke, "machine": machine, "figures": figures}))


def test_the_newest_result_of_a_benchmark_counts_and_no_smoke_run(tmp_path: Path) -> None:
    _write(tmp_path / "a.json", "all", {"throughput": _of(FAST), "dense": _of(SLOW)}, "2026-03-01")
    _write(tmp_path / "b.json", "dense", _of(PLAIN), "2026-03-02")
    _write(tmp_path / "c.json", "throughput", _of(SLOW), "2026-03-03", smoke=True)

    figures, machine = plot.newest(tmp_path)

    assert figures == {"throughput": _of(FAST), "dense": _of(PLAIN)}
    assert (machine["date"], machine["commit"]) == ("2026-03-02", "of 2026-03-01 and of 2026-03-02")


def test_bars_are_ratios_of_which_more_is_better() -> None:
    found = plot.bars({"some": _of(FAST, HEAVY, QUICK, PLAIN)})

    assert [(bar.ratio, bar.goal) for bar in found] == [(2.5, 1.2), (0.25, 0.5), (0.3, None)]


def test_the_curve_is_by_number_of_rules() -> None:
    figures = {"rules": {"events_per_s_by_rules": {"1000": 5.0, "10": 9.0, "100": 8.0}}}

    assert plot.rates_by_rules(figures) == [(10, 9.0), (100, 8.0), (1000, 5.0)]


@pytest.mark.parametrize("rows", [(FAST, SLOW, HEAVY, PLAIN), (PLAIN,), (QUICK,), ()])
def test_the_picture_is_a_png(rows: tuple[Row, ...], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is in the extra `bench`")
    figures = {"some": _of(*rows), "rules": {"events_per_s_by_rules": {"10": 9.0, "100": 8.0}}}
    _write(tmp_path / "a.json", "all", figures, "2026-03-01")

    plot.run(smoke=False, results=tmp_path)

    assert (tmp_path / plot.PICTURE).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("text", ['{"name": "all"', "[]", "{}"])
def test_a_file_that_is_no_result_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text(text)

    with pytest.raises(RuntimeError, match=r"odd\.json: not what .* writes: take it away"):
        plot.run(smoke=False, results=tmp_path)


def test_without_results_there_is_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no results yet, smoke runs do not count: run `python -m bench all"):
        plot.run(smoke=False, results=tmp_path)
