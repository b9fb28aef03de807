"""`python -m bench all`: the benchmarks of the speed goals one after the other, and what they came to as a Markdown table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Benchmark(Protocol):
    """What a benchmark has to offer: a module, or an object."""

    @property
    def NAME(self) -> str: ...

    @property
    def HELP(self) -> str: ...

    def run(self, smoke: bool, *more: Any, **options: Any) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class All:
    """A benchmark of benchmarks."""

    benchmarks: Sequence[Benchmark]
    NAME: str = "all"
    HELP: str = "all but recovery, rescale, state and pat in turn, and a table of what they came to (an hour and more)"

    def run(
        self,
        smoke: bool,
        pack: Path | None = None,
        cache: Path | None = None,
        save: Callable[[dict[str, Any]], None] = lambda figures: None,
    ) -> dict[str, Any]:
        """Figures by benchmark, those so far saved after each: an hour is long. Raises RuntimeError in the end when one of them
        failed; the others are run and shown."""
        given = {name: value for name, value in (("pack", pack), ("cache", cache)) if value is not None}
        figures: dict[str, Any] = {}
        failures: list[str] = []
        for benchmark in self.benchmarks:
            print(f"\n## {benchmark.NAME}: {benchmark.HELP}", flush=True)
            taken = inspect.signature(benchmark.run).parameters.keys()
            options = {name: value for name, value in given.items() if name in taken}
            try:
                figures[benchmark.NAME] = benchmark.run(smoke, **options)
                save(figures)
            except RuntimeError as error:
                print(f"failed: {error}")
                failures.append(f"{benchmark.NAME}: {error}")
        print("\n" + "\n".join(markdown(figures)))
        if failures:
            raise RuntimeError("; ".join(failures))
        return figures


def markdown(figures: Mapping[str, Any]) -> Iterable[str]:
    """The lines of the table."""
    yield "| workload | baseline | at least | aim | measured | |"
    yield "|---|---|---|---|---|---|"
    for name, of_one in figures.items():
        for row in of_one.get("rows", ()):
            unit = row["unit"] if row["unit"].startswith("x") else f" {row['unit']}"
            measured = f"{row['measured']:.3g}{unit}"
            if row["goal"] is None:
                goal = aim = verdict = ""
            else:
                goal, aim = (f"{row[kind]:.3g}{unit}" for kind in ("goal", "aim"))
                goal = f"at most {goal}" if row["lower_is_better"] else goal
                verdict = "met" if row["met"] else "**not met**"
            yield f"| {row['workload']} | {row['baseline']} | {goal} | {aim} | {measured} | {verdict} |"
        if "skipped" in of_one:
            yield f"| {name} | | | | skipped: {of_one['skipped']} | |"
