"""The benchmarks' inputs: generated logs in a cache directory, made once, by all processors; never part of the repository.

A log is written in parts, a day of events each, so that the same name gives the same bytes whatever the number of
processors. Its name holds a digest of the code that made it: when that changes, it is made again.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from bench import background, workload
from bench.harness import ROOT

_PART_EVENTS = 100_000
_WRITE_BYTES = 1 << 22

LOGS = ROOT.parent / "shared" / "data"
"""Real logs beside the repository, where this machine has them."""
_CLOUDTRAIL_FILES = (
    "opensearch-catalog/cloudtrail.jsonl.gz",
    "invictus-aws/cloudtrail.jsonl.gz",
)


def cloudtrail(cache: Path, events: int, *, share: float) -> Path:
    """CloudTrail of which `share` is a denial or an AssumeRole (bench/workload.py); about 1.2 KB an event."""
    return _cached(cache, f"cloudtrail-{share}-{events}", lambda path: _write_parts(path, events, share))


def _write_parts(path: Path, events: int, share: float) -> None:
    parts = [min(_PART_EVENTS, events - start) for start in range(0, events, _PART_EVENTS)]
    with tempfile.TemporaryDirectory(prefix="parts-", dir=path.parent) as temporary:
        files = [Path(temporary) / f"{number:04d}" for number in range(len(parts))]
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            for _ in pool.map(partial(_write_part, share), files, range(len(parts)), parts):
                pass
        with path.open("wb") as whole:
            for file in files:
                with file.open("rb") as part:
                    shutil.copyfileobj(part, whole, _WRITE_BYTES)
                file.unlink()


def _write_part(share: float, path: Path, number: int, events: int) -> None:
    start_s = workload.START_S + number * background.DAY_S
    workload.write_stateful(path, events, seed=number + 1, share=share, start_s=start_s)


def prefix(log: Path, events: int) -> Path:
    """The first `events` lines of a cached log, beside it; the log itself where it has no more."""
    path = log.with_name(f"{log.stem}-first-{events}.jsonl")
    if not path.exists():
        partial_path = path.with_suffix(".partial")
        with log.open("rb") as lines, partial_path.open("wb") as first:
            first.writelines(islice(lines, events))
        if partial_path.stat().st_size == log.stat().st_size:
            partial_path.unlink()
            return log
        partial_path.rename(path)
    return path


def repeated_logs(cache: Path, events: int) -> Path:
    """The real CloudTrail beside the repository, over and over, with its own times. Raises FileNotFoundError without it."""
    lines = [
        line
        for name in _CLOUDTRAIL_FILES
        for line in gzip.decompress((LOGS / name).read_bytes()).splitlines(keepends=True)
    ]
    digest = hashlib.sha256(b"".join(lines)).hexdigest()[:8]
    return _cached(cache, f"cloudtrail-real-{digest}-{events}", lambda path: _repeat(path, lines, events))


def _repeat(path: Path, lines: list[bytes], events: int) -> None:
    whole = b"".join(lines)
    rounds, rest = divmod(events, len(lines))
    with path.open("wb") as file:
        for _ in range(rounds):
            file.write(whole)
        file.writelines(lines[:rest])


TINY = "Bench.Tiny"
"""A made-up log type whose events are as small as they can be."""
TINY_MARK = b'{"p_event_time":"2026-03-02 09:00:00","who":"end"}\n'
"""The event that a rule matches on: when the match is there, all that came before is through."""


def tiny(events: int, names: int) -> Iterator[bytes]:
    """Lines of a time and who it was, one of `names` in turn."""
    for number in range(events):
        spread = number * 7919 % names  # neighbours in time are not neighbours in memory
        yield b'{"p_event_time":"2026-03-02 09:00:00","who":"user-%09d"}\n' % spread


def _cached(cache: Path, name: str, write: Callable[[Path], None]) -> Path:
    """The log of that name; older ones that other code made go away, for they are large."""
    directory = cache / "logs"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-{_code_digest()}.jsonl"
    if path.exists():
        return path
    for stale in directory.glob(f"{name}-*"):
        stale.unlink()
    partial_path = path.with_suffix(".partial")
    print(f"Writing {path} ...", flush=True)
    write(partial_path)
    partial_path.rename(path)
    return path


def _code_digest() -> str:
    sources = (Path(module.__file__ or "") for module in (background, workload))
    code = b"".join(source.read_bytes() for source in (*sources, Path(__file__)))
    return hashlib.sha256(code).hexdigest()[:8]
