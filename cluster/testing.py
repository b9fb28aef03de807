"""`countersign test`: runs a pack's own tests and prints them in the way this format's users know (PANTHER_FORMAT 3)."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster.core.keygroups import DEFAULT_KEY_GROUPS, key_grouping
from rules.pack import load_pack, log_types_of, read_files
from rules.rule import Rule
from rules.selftest import TestResult, run_tests


class BadFilter(ValueError):
    """A --filter that cannot be understood, or that nothing matches."""


def run_pack_tests(
    directory: Path, filters: list[str], names: list[str], minimum_tests: int, show_failures_only: bool
) -> int:
    """Run and print; returns the exit code: 0 if all passed, else 1."""
    pack = load_pack(read_files([directory]))
    for notice in pack.notices:
        print(f"countersign: {notice}", file=sys.stderr)
    types = log_types_of(pack)
    keep = _filter(filters)
    chosen = [rule for rule in pack.all_rules if keep(rule)]
    if not chosen:
        what = (
            f"no rule matches {' '.join(filters)}: check --filter"
            if filters
            else "no rules in there: check the directory"
        )
        raise BadFilter(f"{directory}: {what}")

    def wanted(rule: Rule, test: Mapping[str, Any]) -> bool:
        return keep(rule) and (not names or test["Name"] in names)

    results: dict[str, list[TestResult]] = defaultdict(list)
    for result in run_tests(pack, types, key_grouping(DEFAULT_KEY_GROUPS), wanted=wanted):
        results[result.rule_id].append(result)
    if names and not results:
        raise BadFilter(f"{directory}: no test is called {' or '.join(names)}: check --test-names")
    too_few = [rule.id for rule in chosen if len(results[rule.id]) < minimum_tests] if not names else []
    _print_results(results, show_failures_only, colour=sys.stdout.isatty())
    return _print_summary(directory, results, too_few, minimum_tests)


def _filter(filters: list[str]) -> Callable[[Rule], bool]:
    """KEY=V1,V2 keeps rules whose YAML has one of the values; several filters must all hold; KEY!=V excludes."""
    checks: list[tuple[str, bool, set[str]]] = []
    for text in filters:
        key, mark, values = text.partition("=")
        if not mark or not values:
            raise BadFilter(f"--filter {text}: no filter: write KEY=VALUE")
        checks.append((key.removesuffix("!"), not key.endswith("!"), {value.lower() for value in values.split(",")}))

    def keep(rule: Rule) -> bool:
        return all(bool(_values(rule.spec.raw.get(key)) & values) is wanted for key, wanted, values in checks)

    return keep


def _values(value: Any) -> set[str]:
    items = value if isinstance(value, list) else [value]
    return {str(item).lower() for item in items if item is not None}


def _mark(passed: bool, colour: bool) -> str:
    text = "[PASS]" if passed else "[FAIL]"
    return f"\033[{32 if passed else 31}m{text}\033[0m" if colour else text


def _print_results(results: Mapping[str, list[TestResult]], failures_only: bool, *, colour: bool) -> None:
    for rule_id, tests in results.items():
        shown = [test for test in tests if not (failures_only and test.passed)]
        if not shown:
            continue
        print(rule_id)
        for test in shown:
            print(f"\t{_mark(test.passed, colour)} {test.name}")
            for name, passed, output in test.functions:
                print(f"\t\t{_mark(passed, colour)} [{name}] {output}")
            for problem in test.problems:
                print(f"\t\t{_mark(False, colour)} {problem}")
        print()


def _print_summary(directory: Path, results: Mapping[str, list[TestResult]], too_few: list[str], minimum: int) -> int:
    failed = {
        rule_id: names for rule_id, tests in results.items() if (names := [t.name for t in tests if not t.passed])
    }
    if failed:
        print("--------------------------\nFailed Tests Summary")
        for rule_id, names in failed.items():
            print(f"\t{rule_id}\n\t\t{names}\n")
    for rule_id in too_few:
        print(f"\t{rule_id} has fewer than {minimum} tests")
    rules_failed = failed.keys() | set(too_few)
    tests = sum(map(len, results.values()))
    print("--------------------------\nTest Summary")
    print(f"\tPath: {directory}")
    print(f"\tPassed: {len(results.keys() - rules_failed)}\n\tFailed: {len(rules_failed)}")
    print(f"\tTests: {tests}, {sum(map(len, failed.values()))} failed")
    return 1 if rules_failed else 0
