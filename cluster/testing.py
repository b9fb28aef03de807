"""`countersign test`: what to test, in which processes, and what to say of it (PANTHER_FORMAT 3 and 5).

testworkers.py runs the tests, testreport.py words the report. Results go to standard output, everything else to standard
error.
"""

from __future__ import annotations

import difflib
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from cluster.testreport import FORMATS as FORMATS
from cluster.testreport import Report, as_json, as_junit, as_text
from cluster.testworkers import BIG_PACK_BYTES, Detection, Found, Order, run_order
from rules.filters import BadFilter, Filter, parse_filters
from rules.pack import MissingPack, read_files
from rules.selftest import TestResult

DEFAULT_TIME_LIMIT_S = 10.0

_POLL_S = 0.3
_YAML = (".yml", ".yaml")


class NothingToTest(ValueError):
    """A directory without detections, or a name that nothing has; says what was near."""


@dataclass(slots=True)
class Options:
    """The command line of `test`."""

    directory: Path
    filters: list[str] = field(default_factory=list)
    test_names: list[str] = field(default_factory=list)
    minimum_tests: int = 0
    show_failures_only: bool = False
    format: str = "text"
    skip_disabled_tests: bool = False
    ignore_files: list[str] = field(default_factory=list)
    ignore_extra_keys: bool = False
    available_destinations: list[str] = field(default_factory=list)
    sort_test_results: bool = False
    workers: int = 0
    """0: as many as the pack is worth, and the machine has."""
    no_mocks: bool = False
    time_limit_s: float = DEFAULT_TIME_LIMIT_S


def run_pack_tests(options: Options) -> int:
    """Test and print; the exit code: 0, 1 if anything failed, 130 if interrupted. Raises what a person can mend."""
    try:
        return _test(options, None)
    except KeyboardInterrupt:
        _log("interrupted")
        return 130


def watch(options: Options) -> int:
    """Test, and again what changes concern, until interrupted: then 130. Raises only what the first time raises."""
    try:
        stamps = _stamps(options.directory)
        _test(options, None)
        while True:
            time.sleep(_POLL_S)
            now = _stamps(options.directory)
            changed = sorted(path for path in now.keys() | stamps.keys() if now.get(path) != stamps.get(path))
            stamps = now
            if changed:
                _log(f"changed: {', '.join(changed)}")
                try:
                    _test(options, frozenset(changed))
                except (BadFilter, NothingToTest, MissingPack) as error:
                    _log(str(error))
    except KeyboardInterrupt:
        return 130


def _stamps(directory: Path) -> dict[str, tuple[int, int]]:
    """When each file was last written, and its size, by its path in the pack."""
    stamps: dict[str, tuple[int, int]] = {}
    for parent, folders, names in os.walk(directory, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
        for name in names:
            path = Path(parent, name)
            with suppress(OSError):  # an editor's, and gone again
                status = path.stat()
                stamps[path.relative_to(directory).as_posix()] = status.st_mtime_ns, status.st_size
    return {path: stamp for path, stamp in stamps.items() if not path.rpartition("/")[2].startswith(".")}


def _test(options: Options, changed: frozenset[str] | None) -> int:
    """Test what was asked for, or what of that the changed files concern; the exit code."""
    filter_ = parse_filters(options.filters)
    files = _files(options)
    _log(f"testing {options.directory}")
    found = run_order(_order(options, files, changed))
    for notice in found.notices:
        _log(notice)
    for result in found.results:
        if "mocks" in result.failed:
            _log(f"{result.rule_id}: {result.name}: {', '.join(result.problems)}")
    if changed is None:
        _check_something_is_there(options, filter_, files, found)
    report = _report(options, found)
    sys.stdout.write(_text(options, report))
    sys.stdout.flush()
    return 0 if report.is_good else 1


def _log(text: str) -> None:
    print(f"countersign: {text}", file=sys.stderr, flush=True)


def _files(options: Options) -> dict[str, bytes]:
    files = read_files([options.directory])
    for name in options.ignore_files:
        ignored = [path for path in files if path == os.path.normpath(name)]
        ignored = ignored or [path for path in files if _is_same(options.directory / path, Path(name))]
        if not ignored:
            near = difflib.get_close_matches(name, files, 1)
            remedy = f"write {near[0]}" if near else "give its path in the pack"
            raise NothingToTest(f"--ignore-files {name}: the pack has no such file: {remedy}")
        for path in ignored:
            del files[path]
    return files


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _order(options: Options, files: Mapping[str, bytes], changed: frozenset[str] | None) -> Order:
    return Order(
        files,
        tuple(options.filters),
        frozenset(options.test_names),
        options.skip_disabled_tests,
        changed,
        options.ignore_extra_keys,
        frozenset(options.available_destinations) if options.available_destinations else None,
        options.no_mocks,
        time.time(),  # noqa: TID251 - what an event without a time has, as the start of a run is in `run`
        options.time_limit_s,
        options.workers or _workers_for(files),
    )


def _workers_for(files: Mapping[str, bytes]) -> int:
    size_bytes = sum(len(data) for path, data in files.items() if path.endswith(_YAML))
    if size_bytes < BIG_PACK_BYTES:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_something_is_there(options: Options, filter_: Filter, files: Mapping[str, bytes], found: Found) -> None:
    """A test run that tests nothing must not look like a good one."""
    if not found.detections:
        if filter_.clauses and not found.problems:
            raise BadFilter(f"{options.directory}: {filter_.refusal(files)}")
        if not found.problems:
            raise NothingToTest(
                f"{options.directory}: no rules, scheduled rules or policies in there: check the directory"
            )
    elif options.test_names and not found.results:
        near = [
            name
            for wanted in options.test_names
            for name in difflib.get_close_matches(wanted, found.test_names, 3)
        ]  # fmt: skip
        remedy = f"near to it: {', '.join(map(repr, near))}" if near else "check --test-names"
        raise NothingToTest(f"{options.directory}: no test is called {' or '.join(options.test_names)}: {remedy}")


# --- the report ----------------------------------------------------------------------------------------------------


def _report(options: Options, found: Found) -> Report:
    results: dict[str, list[TestResult]] = {each.id: [] for each in found.detections if not each.skipped}
    for result in found.results:
        results[result.rule_id].append(result)
    if options.test_names:
        results = {name: tests for name, tests in results.items() if tests}
    lacking = {each.id: _lacks(each, options.minimum_tests) for each in found.detections if each.id in results}
    report = Report(
        str(options.directory),
        results,
        {} if options.test_names else {name: what for name, what in lacking.items() if what},
        tuple(each.id for each in found.detections if each.skipped),
        tuple(found.problems),
        options.no_mocks,
    )
    if options.sort_test_results:  # the failures last, where one looks
        failed = report.failed
        report = replace(report, results=dict(sorted(results.items(), key=lambda item: item[0] in failed)))
    return report


def _lacks(detection: Detection, minimum: int) -> str:
    """What of the tests that were asked for a detection does not have; empty where nothing is missing."""
    count = len(detection.expectations)
    if count < minimum:
        return f"{count} tests, {minimum} asked for"
    if minimum > 1 and len(set(detection.expectations)) < 2:
        return "its tests all expect the same: one should match, and one should not"
    return ""


def _text(options: Options, report: Report) -> str:
    match options.format:
        case "json":
            return as_json(report, failures_only=options.show_failures_only)
        case "junit":
            return as_junit(report, failures_only=options.show_failures_only)
    assert options.format in FORMATS
    return as_text(report, failures_only=options.show_failures_only, colour=sys.stdout.isatty())
