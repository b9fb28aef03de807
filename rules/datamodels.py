"""Data models: where the events of a log type have what a name of the unified model means (PANTHER_FORMAT 1.5).

A mapping is a Path into the event, compiled when the pack is loaded, or a Method: a function of the model's module, which gets
the event's fields and none of what only events can do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rules.event import MISSING, ImmutableDict, Json, PantherError, PantherEvent, wrap
from rules.paths import BadPath, JsonPath

Refuse = Callable[[tuple[str | int, ...], str, str], None]
"""Reports a problem: the keys that lead to it in the YAML, what is wrong, what to do."""


class UdmMapping(Protocol):
    """What one name of a data model stands for."""

    @property
    def source(self) -> str:
        """Where it comes from: a path or the name of a function."""

    def value(self, event: PantherEvent) -> Json:
        """Its value on an event, as rules get it; MISSING where the event has none."""


@dataclass(frozen=True, slots=True)
class PathMapping:
    """A name that stands for what a path finds."""

    name: str
    path: JsonPath

    @property
    def source(self) -> str:
        return self.path.text

    def value(self, event: PantherEvent) -> Json:
        """Raises PantherError where there are several values: which one is meant is not for us to say."""
        found = self.path.values(event)
        if len(found) > 1:
            raise PantherError(f"{self.name}: the path {self.path.text} matches {len(found)} values: map it to one")
        return wrap(found[0]) if found else MISSING


@dataclass(frozen=True, slots=True)
class MethodMapping:
    """A name that stands for what a function makes of the event's fields."""

    source: str
    function: Callable[[ImmutableDict], Json]

    def value(self, event: PantherEvent) -> Json:
        return self.function(_Fields(event))


@dataclass(frozen=True, slots=True)
class DataModel:
    """The unified names of some log types."""

    id: str
    log_types: frozenset[str]
    mappings: Mapping[str, UdmMapping]

    def mapping(self, name: Any) -> UdmMapping | None:
        """What a name stands for; None where the model does not say, as for what is no text."""
        return self.mappings.get(name) if isinstance(name, str) else None


class _Fields(ImmutableDict):
    """The fields of an event, added ones too, as a dict and no more."""

    __slots__ = ("_event",)

    def __init__(self, event: PantherEvent) -> None:
        super().__init__(event.raw)
        self._event = event

    def _find(self, key: str) -> Json:
        found = self._event._find(key)
        self.raw = self._event.raw
        return found

    def _at_first(self, key: str) -> Json:
        found = self._event._at_first(key)
        self.raw = self._event.raw
        return found

    def __iter__(self) -> Iterator[str]:
        names = iter(self._event)
        self.raw = self._event.raw
        return names

    def __len__(self) -> int:
        return len(self._event)


def build_model(
    model_id: str,
    log_types: frozenset[str],
    mappings: Sequence[Mapping[str, Any]],
    functions: Mapping[str, Any],
    refuse: Refuse,
) -> DataModel | None:
    """A model from its YAML, which has been checked, and its module's names. None where something was refused."""
    made: dict[str, UdmMapping] = {}
    sound = True
    for number, mapping in enumerate(mappings):
        where = ("Mappings", number)
        name = mapping["Name"]
        if name in made:
            refuse((*where, "Name"), f"{name} is mapped twice", "keep one of the mappings")
            sound = False
        built = _build(where, mapping, functions, refuse)
        if built is None:
            sound = False
        else:
            made.setdefault(name, built)
    return DataModel(model_id, log_types, made) if sound else None


def _build(
    where: tuple[str | int, ...], mapping: Mapping[str, Any], functions: Mapping[str, Any], refuse: Refuse
) -> UdmMapping | None:
    method = mapping.get("Method")
    if method is not None:
        function = functions.get(method)
        if callable(function):
            return MethodMapping(method, function)
        refuse(
            (*where, "Method"),
            f"the model's module has no function {method}",
            f"define {method}(event) in its Filename",
        )
        return None
    try:
        return PathMapping(mapping["Name"], JsonPath(mapping["Path"]))
    except BadPath as error:
        refuse((*where, "Path"), f"{mapping['Path']!r} is no JSON path: {error}", "write it as in $.actor.email")
        return None
