"""`python -m bench NAME [--smoke] [--json FILE]`: one benchmark, with what one must know of the machine to read its figures.

A benchmark is a module or an object with NAME, HELP and run(smoke) -> its figures, plain data; where it can use a pack or a
cache folder, run() takes them too. It prints its own table, and raises RuntimeError when the sides that it compares do not
agree on the result: then the figures mean nothing, and we exit with 1.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from bench import checkpoint, growth, lane, latency, memory, pack, pat, plot, recovery, rescale, scale, state
from bench.harness import CACHE
from bench.table import All, Benchmark
from bench.throughput import CONTESTS

PACKAGES = ("ray", "redis", "orjson", "pyarrow", "hyperscan")


_TABLE: tuple[Benchmark, ...] = (*CONTESTS, pack, growth, latency, memory, lane, scale, checkpoint)
BENCHMARKS: tuple[Benchmark, ...] = (*_TABLE, recovery, rescale, state, pat, All(_TABLE), plot)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    by_name = {benchmark.NAME: benchmark for benchmark in BENCHMARKS}
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        epilog="benchmarks:\n" + "\n".join(f"  {b.NAME:<12}{b.HELP}" for b in BENCHMARKS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "name", nargs="?", choices=by_name, metavar="NAME", help="which one; without it they are listed"
    )
    parser.add_argument("--smoke", action="store_true", help="small and quick: shows that it works, measures nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument(
        "--pack", type=Path, metavar="DIR", help="pat, pack, all: the rules, a checkout of a public pack, say"
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help=f"where logs and tools are kept ({CACHE})")
    given = parser.parse_args(arguments)
    if given.name is None:
        parser.print_help()
        return 0
    benchmark = by_name[given.name]
    options: dict[str, Any] = {name: value for name in ("pack", "cache") if (value := getattr(given, name)) is not None}
    if given.json is not None and (given.json.is_dir() or not given.json.parent.is_dir()):
        parser.error(f"--json {given.json}: not a file in a folder that is there: make that first")
    taken = inspect.signature(benchmark.run).parameters.keys()
    for name in options.keys() - taken:
        parser.error(f"{given.name} takes no --{name}")
    machine = describe_machine()
    print(" ".join(f"{name}={value}" for name, value in machine.items()))

    def save(figures: dict[str, Any]) -> None:
        if given.json is not None:
            report = {"name": given.name, "smoke": given.smoke, "machine": machine, "figures": figures}
            new = given.json.with_name(f"{given.json.name}.new")
            new.write_text(json.dumps(report, indent=1) + "\n")
            new.replace(given.json)

    if "save" in taken:
        options["save"] = save
    try:
        figures = benchmark.run(given.smoke, **options)
    except RuntimeError as error:
        print(f"bench {given.name}: {error}", file=sys.stderr)
        return 1
    save(figures)
    return 0


def describe_machine() -> dict[str, str]:
    """Date, commit, versions, processors, memory and load average, for the head of a report."""
    described = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": _commit(), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            described[package] = version(package)
        except PackageNotFoundError:
            described[package] = "absent"
    described["cpus"] = str(os.cpu_count())
    described["memory_gb"] = f"{psutil.virtual_memory().total / 1e9:.0f}"
    described["load"] = "/".join(f"{load:.2f}" for load in os.getloadavg())
    return described


def _commit() -> str:
    """The short hash, with a + when the work tree differs from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+" if changes.stdout else "")


if __name__ == "__main__":
    sys.exit(main())
