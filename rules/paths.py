"""JSON paths, as data models and lookup tables write them: `$.a.b`, `a.b[0]`, `$.a[*].b`, `$['a b'].c`.

Names, indices and `[*]` are followed here, and names count without regard to case, as everywhere in events. What else JSONPath
knows (`..`, filters, slices, unions) is left to jsonpath-ng, which is only imported where a pack has such a path; there names
count as they are spelled.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rules.event import MISSING, ImmutableDict, Json, find_folded

_EVERY = object()
"""The step `[*]`."""

_STEP = re.compile(
    r"""\.? ( [A-Za-z_@] [A-Za-z0-9_@-]* )     # a name
      | \[ ( [0-9]{1,9} ) \]
      | \[ ( \* ) \]
      | (?: \[ \s* (?: '([^'\\]+)' | "([^"\\]+)" ) \s* \] | \.? (?: '([^'\\]+)' | "([^"\\]+)" ) )""",
    re.VERBOSE,
)
_AFTER_ROOT = re.compile(r"\$(?=[.\[])")


class BadPath(ValueError):
    """A text is no JSON path."""


class JsonPath:
    """A compiled path."""

    __slots__ = ("_general", "_steps", "names", "text")

    def __init__(self, text: str) -> None:
        """Raises BadPath."""
        self.text = text.strip().removeprefix("$.")
        """The path without its root: what p_enrichment and udm_path() call it."""
        self._steps = _steps(text.strip())
        plain = self._steps is not None and all(type(step) is str for step in self._steps)
        self.names: tuple[str, ...] = self._steps if plain and self._steps is not None else ()
        """The steps, where all are names; else empty."""
        self._general: Any = None if self._steps is not None else _general(text.strip())

    def values(self, event: ImmutableDict) -> list[Json]:
        """All that stands there, null too, as the parser made it: nothing, one or several values."""
        if self.names:
            return self._at_names(event)
        if self._steps is None:
            len(event)  # jsonpath-ng sees what is there, and what that is must not depend on who asked before: all p_ fields
            return [found.value for found in self._general.find(event.raw)]
        first, *rest = self._steps
        return _spread([event.find(first)], rest) if isinstance(first, str) else []  # an event is no list

    def _at_names(self, event: ImmutableDict) -> list[Json]:
        """What stands at a path of names: nearly all paths are such, and it is worth the lines."""
        first, *rest = self.names
        value = event.find(first)
        for name in rest:
            if type(value) is not dict:
                return []
            inner = value.get(name, MISSING)
            value = find_folded(value, name) if inner is MISSING else inner
        return [] if value is MISSING else [value]


def _stepped(value: Json, step: Any) -> Json:
    """What stands one step below a value, or MISSING."""
    if type(step) is str:
        if type(value) is not dict:
            return MISSING
        inner = value.get(step, MISSING)
        return find_folded(value, step) if inner is MISSING else inner
    return value[step] if type(value) is list and step < len(value) else MISSING


def _spread(values: list[Json], steps: Sequence[Any]) -> list[Json]:
    """What stands some steps below some values, any of which may be MISSING."""
    for step in steps:
        if step is _EVERY:
            values = [element for value in values if type(value) is list for element in value]
        else:
            values = [_stepped(value, step) for value in values]
    return [value for value in values if value is not MISSING]


def _steps(text: str) -> tuple[Any, ...] | None:
    """The steps of a path of names, indices and `[*]`; None for any other."""
    root = _AFTER_ROOT.match(text)
    at = root.end() if root is not None else 0
    steps: list[Any] = []
    while at < len(text):
        found = _STEP.match(text, at)
        # Only the first name does without a dot: `a.b`, not `a[0]b`.
        if found is None or (text[at] not in ".[" and at > 0) or (text[at] == "." and at == 0):
            return None
        name, index, every, *quoted = found.groups()
        if index is not None:
            steps.append(int(index))
        elif every is not None:
            steps.append(_EVERY)
        else:
            steps.append(name or next(filter(None, quoted)))
        at = found.end()
    return tuple(steps) or None


def _general(text: str) -> Any:
    from jsonpath_ng.ext.parser import parse  # not with the module: most packs have no such path

    try:
        return parse(text)
    except Exception as error:  # its lexer and its parser each raise their own, and plain Exception
        raise BadPath(str(error)) from None
