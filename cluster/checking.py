"""`countersign check`: what is wrong with a pack, what is likely to go wrong, which keys are shared, which rules lack a guard."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from rules.errors import InvalidPack, Problem
from rules.lints import Finding, Report, lint, reason_of
from rules.lints.sources import Place, column_of
from rules.pack import Pack, load_pack, log_types_of, read_files
from rules.rule import Rule

ERROR = "error"
"""Stands where warnings have the id of their lint."""


def check_pack(directory: Path) -> int:
    """Check and print; returns the exit code: 1 if there is an error, else 0. Raises MissingPack."""
    files = read_files([directory])
    pack = load_pack(files, quiet=True, tolerant=True)
    errors = [Finding(_place_of(problem, files), ERROR, problem.message, problem.remedy) for problem in _problems(pack)]
    report = lint(files)
    findings = sorted([*errors, *report.findings], key=lambda each: each.place)
    sections = [
        [f"{directory / each.place.path}{str(each)[len(each.place.path) :]}" for each in findings],
        _reasons(report),
        _graph(report),
        [*_guards(pack.rules), _counts(errors, report, pack)],
    ]
    print("\n\n".join("\n".join(section) for section in sections if section))
    return 1 if errors else 0


def _problems(pack: Pack) -> list[Problem]:
    """What keeps the pack from being run."""
    try:
        log_types_of(pack)
    except InvalidPack as invalid:
        return [*pack.problems, *invalid.problems]
    return list(pack.problems)


def _place_of(problem: Problem, files: Mapping[str, bytes]) -> Place:
    """Where a problem begins, as closely as can be said."""
    path, line = problem.location.path, problem.location.line or 1
    data = files.get(path, b"")
    if path.endswith(".py"):
        try:
            ast.parse(data)
        except SyntaxError as error:
            if error.lineno == line and error.offset:
                return Place(path, line, error.offset)
        except (ValueError, RecursionError, MemoryError):
            pass
    return Place(path, line, column_of(data.decode("utf-8", "replace").splitlines(), line))


def _reasons(report: Report) -> list[str]:
    """Why the lints that found something matter."""
    ids = sorted({finding.id for finding in report.findings})
    if not ids:
        return []
    width = max(map(len, ids))
    return [
        "Why:",
        *(f"  {lint_id:{width}}  {reason_of(lint_id)}" for lint_id in ids),
        f"Who knows better says so in the line or above it:  # countersign: ignore[{ids[0]}] reason",
    ]


def _graph(report: Report) -> list[str]:
    if not report.edges:
        return []
    return [
        "Keys that one rule writes and another reads:",
        *(f"  {writer} -> {skeleton} -> {reader}" for writer, skeleton, reader in report.edges),
    ]


def _guards(rules: Iterable[Rule]) -> list[str]:
    """How many rules are evaluated on each event of their log types, and why."""
    reasons = Counter(_without_guard(rule) for rule in rules)
    guarded = reasons.pop("", 0)
    if not reasons:
        return [f"Guards: {_number(guarded, 'rule')}, each looked up by the value of a field"] if guarded else []
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return [
        f"Guards: {_number(guarded, 'rule')} looked up by the value of a field; "
        f"{reasons.total()} evaluated on each event of their log types: {why}"
    ]


def _without_guard(rule: Rule) -> str:
    """Why a rule has no guard; empty where it has one."""
    if rule.guard is not None:
        return ""
    if not rule.namespace:
        return "written in YAML"
    return "changing module globals" if rule.changes_globals else "beginning with no comparison that can be read off"


def _counts(errors: list[Finding], report: Report, pack: Pack) -> str:
    silenced = f" ({report.silenced} silenced)" if report.silenced else ""
    helpers = f" and {_number(len(pack.globals), 'helper')}" if pack.globals else ""
    return (
        f"{_number(len(errors), 'error')}, {_number(len(report.findings), 'warning')}{silenced}"
        f" in {_number(len(pack.everything), 'rule')}{helpers}"
    )


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
