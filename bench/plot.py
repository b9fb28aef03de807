"""`python -m bench plot`: from bench/results/, a picture of the ratios and of events per second by number of rules.

Results are what `--json` wrote, of one benchmark or of `all`; the newest of each benchmark counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "plot"
HELP = "bench/results/*.json -> bench/results/benchmarks.png (needs matplotlib: pip install -e '.[bench]')"

RESULTS = Path(__file__).resolve().parent / "results"
PICTURE = "benchmarks.png"


@dataclass(frozen=True, slots=True)
class Bar:
    """One ratio, as how many times the baseline's rate (or how small a part of its memory) ours is."""

    label: str
    ratio: float
    goal: float | None


def run(smoke: bool, results: Path = RESULTS) -> dict[str, Any]:
    """Draw the picture into `results`. Raises RuntimeError where there are no results, or no matplotlib."""
    figures, machine = newest(results)
    if not figures:
        remedy = f"run `python -m bench all --json {results}/NAME.json` first"
        raise RuntimeError(f"{results}: no results yet, smoke runs do not count: {remedy}")
    try:
        import matplotlib
    except ImportError:
        raise RuntimeError("matplotlib is not here: pip install -e '.[bench]'") from None
    matplotlib.use("agg")
    draw(bars(figures), rates_by_rules(figures), machine, results / PICTURE)
    print(f"wrote {results / PICTURE}")
    return {}


def newest(results: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """(figures by benchmark, the last machine, the commits of all that count). Smoke runs measure nothing and do not count.

    Raises RuntimeError where a file holds no result.
    """
    written = sorted(results.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)  # dates are whole days
    reports = [_read(path) for path in written]
    figures: dict[str, Any] = {}
    commits: dict[str, str] = {}
    machine: dict[str, str] = {}
    for report in sorted(reports, key=lambda report: str(report["machine"].get("date", ""))):
        if not report["smoke"]:
            found = report["figures"] if report["name"] == "all" else {report["name"]: report["figures"]}
            figures |= found
            machine = report["machine"]
            commits |= dict.fromkeys(found, machine["commit"])
    return figures, machine | {"commit": " and ".join(dict.fromkeys(commits.values()))}


def _read(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text())
    except ValueError:
        report = None
    if not isinstance(report, dict) or not {"name", "smoke", "machine", "figures"} <= report.keys():
        raise RuntimeError(f"{path}: not what `python -m bench NAME --json FILE` writes: take it away")
    return report


def bars(figures: Mapping[str, Any]) -> list[Bar]:
    """The ratios, those of which less is better turned over; what has another unit is left out."""
    found = []
    for of_one in figures.values():
        for row in of_one.get("rows", ()):
            if not row["unit"].startswith("x"):
                continue
            label = f"{row['workload']}\nagainst {row['baseline']}"
            ratio, goal = row["measured"], row["goal"]
            if row["lower_is_better"]:
                ratio, goal = 1 / ratio, None if goal is None else 1 / goal
                label += f" (turned over: {row['measured']:.2f} {row['unit']})"
            found.append(Bar(label, ratio, goal))
    return found


def rates_by_rules(figures: Mapping[str, Any]) -> list[tuple[int, float]]:
    """(number of rules, events per second)"""
    rates = figures.get("rules", {}).get("events_per_s_by_rules", {})
    return sorted((int(number), float(rate)) for number, rate in rates.items())


def draw(bars: Sequence[Bar], rates: Sequence[tuple[int, float]], machine: Mapping[str, str], picture: Path) -> None:
    """One PNG: bars with their goals on the left, the curve on the right."""
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(13, 1.5 + 0.5 * max(len(bars), 6)), width_ratios=(3, 2), layout="constrained"
    )
    places = range(len(bars))
    verdicts = ["no goal" if bar.goal is None else "met" if bar.ratio >= bar.goal else "not met" for bar in bars]
    for verdict, colour in (("met", "#3a7d44"), ("not met", "#b85c38"), ("no goal", "#8a8a8a")):
        of_it = [place for place in places if verdicts[place] == verdict]
        if of_it:
            left.barh(of_it, [bars[place].ratio for place in of_it], color=colour, label=verdict)
    goals = [(bar.goal, place) for place, bar in zip(places, bars, strict=True) if bar.goal is not None]
    if goals:
        left.scatter(*zip(*goals, strict=True), marker="|", s=250, color="black", zorder=3, label="goal")
    for place, bar in zip(places, bars, strict=True):
        left.annotate(f" {bar.ratio:.2g}", (bar.ratio, place), va="center", fontsize=8)
    left.set_yticks(places, [bar.label for bar in bars], fontsize=8)
    left.invert_yaxis()
    left.set_xscale("log")
    left.axvline(1, color="grey", linewidth=0.8)
    left.set_xlabel("times the baseline (log)")
    if bars:
        left.legend(loc="lower right")
    right.plot([number for number, _ in rates], [rate for _, rate in rates], marker="o", color="#3a5f8a")
    right.set_xscale("log")
    right.set_ylim(bottom=0)
    right.set_xlabel("guarded rules of one log type")
    right.set_ylabel("events/s, 2 shards")
    right.grid(alpha=0.3)
    told = ", ".join(
        f"{name} {machine[name]}" for name in ("date", "commit", "cpus", "python", "ray") if name in machine
    )
    figure.suptitle(f"Countersign, 2 shards on Ray; {told}", fontsize=9)
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)
