"""Lints: what is likely to go wrong with a pack's rules although they load, found by reading them, never by running them.

sources.py     a pack as text: syntax trees, YAML with places
patterns.py    keys as patterns, literal text with holes
names.py       what is assigned in a function
values.py      what an expression may be
analysis.py    what rules do to which keys, and the graph of keys that rules share
table.py       the lints, by id
silence.py     the comments that silence them
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rules.lints.analysis import Analysis, Edge
from rules.lints.silence import Silence, read_silences
from rules.lints.sources import Place, read_sources
from rules.lints.table import LINTS

UNUSED_IGNORE = "unused-ignore"
UNUSED_IGNORE_REASON = "a comment that silences nothing will hide the next finding in its place"

NO_GUARD = "no-guard"
NO_GUARD_REASON = (
    "a rule without a guard is evaluated on every event of its log types, which costs time and changes nothing"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One warning; prints as `path:line:column: ID: what is wrong: what to do`."""

    place: Place
    id: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.id}: {self.message}: {self.remedy}"


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in a pack."""

    findings: tuple[Finding, ...]
    """In order of place."""
    notes: tuple[Finding, ...]
    """What is worth knowing and no fault, in order of place."""
    silenced: int
    edges: tuple[Edge, ...]


def reason_of(lint_id: str) -> str:
    """Why a lint matters."""
    own = {UNUSED_IGNORE: UNUSED_IGNORE_REASON, NO_GUARD: NO_GUARD_REASON}
    return own[lint_id] if lint_id in own else LINTS[lint_id].reason


def lint(files: Mapping[str, bytes], notes: Iterable[Finding] | None = None) -> Report:
    """Read a pack's files, which need not be valid, and say what is likely to go wrong.

    `notes` are findings of NO_GUARD, which only who has loaded the rules can know; they can be silenced like others.
    None: nobody has looked.
    """
    analysis = Analysis(read_sources(files))
    found = {
        (place, lint_id): Finding(place, lint_id, message, remedy)
        for lint_id, each in LINTS.items()
        for place, message, remedy in each.find(analysis)
    }
    silences = read_silences(files)
    heard = [finding for finding in found.values() if not _is_silenced(finding, silences)]
    heard_notes = tuple(
        note for note in sorted(notes or (), key=lambda note: note.place) if not _is_silenced(note, silences)
    )
    if notes is None:
        for silence in silences:
            silence.used.add(NO_GUARD)
    complaints = [finding for silence in silences for finding in _about(silence)]
    findings = sorted([*heard, *complaints], key=lambda finding: (finding.place, finding.id))
    return Report(tuple(findings), heard_notes, len(found) - len(heard), tuple(analysis.edges))


def _is_silenced(finding: Finding, silences: list[Silence]) -> bool:
    path, line, _ = finding.place
    found = [each for each in silences if each.place.path == path and each.line == line and finding.id in each.ids]
    for silence in found:
        silence.used.add(finding.id)
    return bool(found)


def _about(silence: Silence) -> Iterator[Finding]:
    """What is wrong with a comment that silences."""
    for lint_id in silence.ids:
        if lint_id not in LINTS and lint_id != NO_GUARD:
            yield Finding(
                silence.place,
                UNUSED_IGNORE,
                f"there is no lint {lint_id!r}",
                f"write one of {', '.join([*LINTS, NO_GUARD])}",
            )
        elif lint_id not in silence.used:
            yield Finding(silence.place, UNUSED_IGNORE, f"{lint_id} finds nothing here", "remove it from the comment")
    if not silence.ids or not silence.reason:
        message = "the comment says not " + ("why" if silence.ids else "what it silences")
        yield Finding(silence.place, UNUSED_IGNORE, message, "write # countersign: ignore[ID] reason")
