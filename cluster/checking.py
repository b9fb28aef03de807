"""`countersign check`: what is wrong with a pack, what is likely to go wrong, which keys are shared, which rules lack a guard."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from cluster.wording import counted, first_of
from rules.errors import InvalidPack, Problem
from rules.lints import NO_GUARD, NO_GUARD_REASON, Finding, Report, lint, reason_of
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
    report = lint(files, _without_guard(pack.rules))
    findings = sorted([*errors, *report.findings], key=lambda each: each.place)
    sections = [
        [f"{directory / each.place.path}{str(each)[len(each.place.path) :]}" for each in findings],
        _reasons(report),
        _graph(report),
        _notes(directory, report),
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


def _without_guard(rules: Iterable[Rule]) -> Iterator[Finding]:
    """The rules that have no guard for some log type, and why."""
    for rule in rules:
        places: dict[Place, tuple[str, list[str]]] = {}
        for log_type in sorted(rule.log_types):
            guard = rule.guard(log_type)
            if guard is not None and not guard:
                at = guard.place
                place = Place(rule.spec.path, 1, 1) if at is None or at.line is None else Place(at.path, at.line, 1)
                places.setdefault(place, (guard.reason, []))[1].append(log_type)
        for place, (reason, of) in places.items():
            on = "" if len(of) == len(rule.log_types) else f" on {', '.join(of)}"
            yield Finding(
                place, NO_GUARD, f"{rule.id} has no guard{on}: {reason}", "compare a field with a constant first"
            )


def _notes(directory: Path, report: Report) -> list[str]:
    if not report.notes:
        return []
    return [
        f"Notes ({NO_GUARD_REASON}):",
        *(f"  {directory / note.place.path}{str(note)[len(note.place.path) :]}" for note in report.notes),
    ]


def _guards(rules: Sequence[Rule]) -> list[str]:
    """How many rules are found by the value of a field."""
    guarded = sum(all(rule.guard(log_type) for log_type in rule.log_types) for rule in rules)
    without = len(rules) - guarded
    if not rules:
        return []
    rest = f"; {counted(without, 'rule')} evaluated on each event of their log types" if without else ""
    lines = [f"Guards: {counted(guarded, 'rule')} looked up by the value of a field{rest}"]
    textless = [
        rule.id
        for rule in rules
        if any((guard := rule.guard(log_type)) and not guard.names_text for log_type in rule.log_types)
    ]
    if textless:
        lines.append(f"Every line is parsed for {first_of(textless)}: nothing in the guard is a text to look for first")
    return lines


def _counts(errors: list[Finding], report: Report, pack: Pack) -> str:
    silenced = f" ({report.silenced} silenced)" if report.silenced else ""
    notes = f", {counted(len(report.notes), 'note')}" if report.notes else ""
    helpers = f" and {counted(len(pack.globals), 'helper')}" if pack.globals else ""
    return (
        f"{counted(len(errors), 'error')}, {counted(len(report.findings), 'warning')}{silenced}{notes}"
        f" in {counted(len(pack.everything), 'rule')}{helpers}"
    )
