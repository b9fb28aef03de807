"""Abstract values: what the analysis of a rule knows of the result of an expression, and which calls can do no harm.

Event     the event itself
Field     what stands at a path of the event, or the default of the call that looked for it
Constant  an object that is known now and will be the same in every evaluation
Table     a dict that the function has made, of constant keys and values that are not all constants
PLAIN     data of which nothing is known: numbers, texts, built-in containers of such, values of the event. Whatever is
          done to it runs no code but Python's own
UNKNOWN   anything: to look at it may run any code
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rules.event import ImmutableDict, ImmutableList, PantherEvent
from rules.guards.facts import ABSENT, Path


class Abstract:
    """An abstract value. Compare by identity, but for what `key` says is the same."""

    __slots__ = ()

    @property
    def key(self) -> object:
        """Equal for values of which the same is known."""
        return id(self)

    @property
    def is_plain(self) -> bool:
        return True


@dataclass(frozen=True, slots=True, eq=False)
class Event(Abstract):
    """The event, or, `as_fields`, what a data model's method gets of it."""

    as_fields: bool = False

    @property
    def key(self) -> object:
        return Event, self.as_fields


@dataclass(frozen=True, slots=True, eq=False)
class Constant(Abstract):
    value: Any
    is_data: bool = True
    """It is made of exact built-in types, all the way down."""
    is_shared: bool = True
    """It stands in a module, where nothing changes it; else it was made by the function that is looked at."""

    @property
    def key(self) -> object:
        if type(self.value) is float:
            return Constant, repr(self.value)  # 0.0 and -0.0 are written differently
        scalar = type(self.value) in _ATOMS
        return (Constant, type(self.value), self.value) if scalar else (Constant, id(self.value))

    @property
    def is_plain(self) -> bool:
        return self.is_data


@dataclass(frozen=True, slots=True, eq=False)
class Table(Abstract):
    rows: dict[Any, Abstract]
    """Atoms, and what stands under each."""

    @property
    def is_plain(self) -> bool:
        return all(value.is_plain for value in self.rows.values())


@dataclass(frozen=True, slots=True, eq=False)
class Field(Abstract):
    """What stands at a path. Where nothing does: the default; without one, an exception."""

    path: Path
    default: Constant | None = None
    nulls_too: bool = False
    """A null that stands there becomes the default as well."""

    @property
    def key(self) -> object:
        return Field, self.path, None if self.default is None else self.default.key, self.nulls_too

    def raw_values(self, wanted: Iterable[Any]) -> list[Any]:
        """What must stand at the path for the field to equal one of some values."""
        wanted = list(wanted)
        raw = [value for value in wanted if not (self.nulls_too and value is None)]
        if self.default is not None and self.default.value in wanted:
            raw.append(ABSENT)
            if self.nulls_too:
                raw.append(None)
        return raw

    def seen(self, raw: Any) -> Any:
        """The value that a rule sees where `raw` stands at the path; ABSENT where it sees an exception."""
        if raw is ABSENT or (self.nulls_too and raw is None):
            return ABSENT if self.default is None else self.default.value
        return raw


class _Nothing(Abstract):
    __slots__ = ("_is_plain",)

    def __init__(self, is_plain: bool) -> None:
        self._is_plain = is_plain

    @property
    def is_plain(self) -> bool:
        return self._is_plain


PLAIN = _Nothing(True)
UNKNOWN = _Nothing(False)

TRUE, FALSE, NONE = Constant(True), Constant(False), Constant(None)

_ATOMS = frozenset({str, int, float, bool, bytes, type(None)})
_SEQUENCES = (list, tuple, set, frozenset)


def is_data(value: Any, *, depth: int = 6) -> bool:
    """Whether a value is made of exact built-in types, all the way down."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    if depth == 0:
        return False
    if kind is dict:
        return all(is_data(each, depth=depth - 1) for pair in value.items() for each in pair)
    return kind in _SEQUENCES and all(is_data(each, depth=depth - 1) for each in value)


def mutable_parts(value: Any) -> Iterator[Any]:
    """The lists, sets and dicts that a value of data is made of, itself included."""
    if type(value) in _ATOMS:
        return
    if type(value) not in (tuple, frozenset):
        yield value
    for each in [*value, *value.values()] if type(value) is dict else value:
        yield from mutable_parts(each)


def is_atom(value: Any) -> bool:
    return type(value) in _ATOMS


def elements_of(value: Any) -> list[Any] | None:
    """What `in` compares with, one by one; None for what is no container, and for texts."""
    return list(value) if type(value) in (*_SEQUENCES, dict) else None


def in_order(value: Abstract) -> list[Any] | None:
    """The elements of a constant container as a rule goes through them; None where that is not known."""
    return elements_of(value.value) if isinstance(value, Constant) and value.is_data and has_order(value) else None


def has_order(value: Constant) -> bool:
    """Whether a constant has the same order in every evaluation: not a set that a function makes anew each time."""
    return value.is_shared or not _holds_set(value.value)


def _holds_set(value: Any) -> bool:
    if type(value) in (set, frozenset):
        return True
    return any(map(_holds_set, elements_of(value) or ())) or (
        type(value) is dict and any(map(_holds_set, value.values()))
    )


# --- what can be called ----------------------------------------------------------------------------------------------

HARMLESS = {
    id(function): function
    for function in (
        abs, bool, bytes, chr, dict, enumerate, float, frozenset, hash, int, len, list, max, min, ord, range, repr, reversed,
        round, set, sorted, str, sum, tuple, zip,
    )
}  # fmt: skip
"""Functions that, given plain data, run no code of a pack and give plain data. By identity: a pack can put its own in their
place. None is written in Python, where a pack could put its own into what they are made of."""

FOLDED = {
    id(function): function for function in (len, str, int, bool, float, set, frozenset, list, tuple, sorted, min, max)
}
"""Of these, those whose result is computed where the arguments are constants."""

ORDERLESS = frozenset(map(id, (len, sorted, set, frozenset)))
"""Of these, those whose result does not depend on the order of a set."""

READING = frozenset(
    map(
        id,
        (
            all,
            any,
            bool,
            enumerate,
            frozenset,
            hash,
            isinstance,
            len,
            list,
            repr,
            reversed,
            set,
            sorted,
            str,
            tuple,
            zip,
        ),
    )
)
"""Functions that do nothing to a flat container and do not give it back."""

ANY, ALL, ISINSTANCE, BOOL, REDUCE = any, all, isinstance, bool, functools.reduce

FOLDED_METHODS = frozenset(
    {"capitalize", "casefold", "endswith", "get", "items", "join", "keys", "lower", "lstrip", "removeprefix"}
    | {"removesuffix", "replace", "rstrip", "split", "startswith", "strip", "title", "union", "upper", "values"}
)
"""Methods whose result is computed where the receiver and the arguments are constants."""

CHANGING_METHODS = frozenset(
    {"add", "append", "clear", "difference_update", "discard", "extend", "insert", "intersection_update", "pop"}
    | {"popitem", "remove", "reverse", "setdefault", "sort", "symmetric_difference_update", "update"}
)
"""Methods of built-in containers that change them."""

_EVENT_CLASSES = {kind: dict(vars(kind)) for kind in (PantherEvent, ImmutableDict, ImmutableList)}


def events_are_ours() -> bool:
    """Whether no pack has put its own methods into the classes of events."""
    return all(
        vars(kind).keys() == methods.keys() and all(vars(kind)[name] is methods[name] for name in methods)
        for kind, methods in _EVENT_CLASSES.items()
    )


def is_instance_of(value: Abstract, kinds: Any) -> bool | None:
    """What isinstance() says; None where it may say either."""
    if isinstance(value, Event):
        return issubclass(ImmutableDict if value.as_fields else PantherEvent, kinds)
    if isinstance(value, Constant) and value.is_data:
        return isinstance(value.value, kinds)
    return None


def is_simple_kind(kinds: Any) -> bool:
    """Whether isinstance() with it runs no code but Python's own."""
    if type(kinds) is tuple:
        return all(map(is_simple_kind, kinds))
    return type(kinds) is type or (isinstance(kinds, type) and kinds.__module__ in ("collections.abc", "rules.event"))
