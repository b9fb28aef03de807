"""What the engine must know of a log type: how to recognise its records, when its events happened, whom they name.

A log type is data, a YAML file in rules/log_types/ or in a rule pack:

    LogType: Example.Audit
    Recognise:                     # a list of alternatives; each names fields and what they hold
      - {service: example, action: "*"}
    Timestamp: [occurredAt, meta.received]      # the first that is present
    Indicators:                    # p_any_<name>: the fields whose values go there
      ip_addresses: [client.ip, "hops[].ip"]
    Split: {List: events, Objects: [parameters]}

A path is field names joined by dots; `[]` goes through the elements of a list; `\\.` is a dot in a name. In Recognise
`"*"` is any value but null, `"text*"` any text that starts so, and a list any of its members. Split makes one event of
each element of a list; Objects names those of an element's lists of `{name, value}` that become objects.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml

from rules.errors import InvalidPack, Problem, SourceLocation
from rules.times import BadTime, format_time, parse_time, timer

__all__ = [
    "BadTime",
    "Derived",
    "LogType",
    "load_definitions",
    "parse_time",
    "recognise",
    "shipped_definitions",
    "undefined",
]

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FieldPath:
    """A path, taken apart. `"[]"` stands among the names where the path goes through a list."""

    names: tuple[str, ...]

    @staticmethod
    def parse(text: str) -> FieldPath:
        names: list[str] = []
        for part in re.split(r"(?<!\\)\.", text):
            name = part.replace("\\.", ".")
            names += [name[:-2], "[]"] if name.endswith("[]") else [name]
        if not all(names):
            raise ValueError(f"the path {text!r} has an empty name")
        return FieldPath(tuple(names))

    def value(self, event: Event) -> object:
        """What stands there, None where nothing does. For paths without `[]`."""
        value: object = event
        for name in self.names:
            if type(value) is not dict:
                return None
            value = value.get(name)
        return value

    def values(self, event: Event) -> Sequence[object]:
        """All that stands there: no, one or many values."""
        value: object = event
        for at, name in enumerate(self.names):
            if name == "[]":
                return self._elements(value, at)
            if type(value) is not dict or name not in value:
                return ()
            value = value[name]
        return (value,)

    def _elements(self, value: object, at: int) -> list[object]:
        """All that stands below a value from the `at`-th name on, which goes through a list."""
        found: list[object] = [value]
        for name in self.names[at:]:
            if name == "[]":
                found = [element for value in found if type(value) is list for element in value]
            else:
                found = [value[name] for value in found if type(value) is dict and name in value]
        return found


@dataclass(frozen=True, slots=True)
class FieldTest:
    """One field of an alternative of Recognise, with the texts it may hold."""

    path: FieldPath
    exact: frozenset[str]
    prefixes: tuple[str, ...]

    @staticmethod
    def parse(path: str, patterns: Sequence[str]) -> FieldTest:
        exact = frozenset(text for text in patterns if not text.endswith("*"))
        return FieldTest(FieldPath.parse(path), exact, tuple(text[:-1] for text in patterns if text.endswith("*")))

    def holds(self, record: Event) -> bool:
        value = self.path.value(record)
        if isinstance(value, str):
            return value in self.exact or value.startswith(self.prefixes)
        return value is not None and "" in self.prefixes


@dataclass(frozen=True, slots=True)
class Split:
    """How one record becomes several events."""

    list_name: str
    object_names: tuple[str, ...]

    def events(self, record: Event) -> list[Event]:
        elements = record.get(self.list_name)
        if not isinstance(elements, list) or not elements or not all(isinstance(each, dict) for each in elements):
            return [record]
        common = {name: value for name, value in record.items() if name != self.list_name}
        return [common | self._flattened(element) for element in elements]

    def _flattened(self, element: Event) -> Event:
        return {name: _as_object(value) if name in self.object_names else value for name, value in element.items()}


def _as_object(parameters: object) -> object:
    """[{"name": "a", "intValue": "1"}, ...] -> {"a": 1, ...}; anything else stays as it is."""
    if not isinstance(parameters, list) or not all(isinstance(each, dict) and "name" in each for each in parameters):
        return parameters
    return {str(each["name"]): _parameter_value(each) for each in parameters}


def _parameter_value(parameter: Event) -> object:
    """Google writes the value under a name that tells its type, and 64-bit integers as text."""
    for name, value in parameter.items():
        match name:
            case "intValue":
                return _as_int(value)
            case "multiIntValue" if isinstance(value, list):
                return [_as_int(each) for each in value]
            case "messageValue" if isinstance(value, dict):
                return _as_object(value.get("parameter"))
            case "multiMessageValue" if isinstance(value, list):
                return [_as_object(each.get("parameter")) if isinstance(each, dict) else each for each in value]
            case "value" | "boolValue" | "multiValue" | "multiBoolValue":
                return value
    return None


def _as_int(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
        return int(value)
    return value


# --- indicators: what may stand in which p_any_ list ---------------------------------------------------------------


_remembered = lru_cache(maxsize=4096)
"""For what is asked of the same few thousand texts over and over, and takes a microsecond or two."""


@_remembered
def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.ASCII)
    return _remembered(lambda text: compiled.fullmatch(text) is not None)


INDICATORS: dict[str, Callable[[str], bool]] = {
    "actor_ids": bool,
    "aws_account_ids": _matches(r"[0-9]{12}"),
    "aws_arns": _matches(r"arn:[^:\s]+:[^:\s]*:[^:\s]*:[^:\s]*:.+"),
    "aws_instance_ids": _matches(r"i-[0-9a-f]{8,17}"),
    "domain_names": _matches(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)+[A-Za-z][A-Za-z0-9-]{1,62}\.?"),
    "emails": _matches(r"[^@\s]+@[^@\s]+\.[^@\s]+"),
    "ip_addresses": _is_ip,
    "md5_hashes": _matches(r"[0-9a-fA-F]{32}"),
    "sha1_hashes": _matches(r"[0-9a-fA-F]{40}"),
    "sha256_hashes": _matches(r"[0-9a-fA-F]{64}"),
    "trace_ids": bool,
    "usernames": bool,
}
"""Each indicator's name, and whether a text can be one. What cannot is left out: `AWS Internal` is no IP address."""


class Derived:
    """The p_ fields of one event that its source did not write; worked out when asked for."""

    __slots__ = ("_event", "_log_type", "_position", "_source_label", "time_s")

    def __init__(
        self, log_type: LogType, event: Event, time_s: float, position: tuple[int, ...], source_label: str
    ) -> None:
        self._log_type = log_type
        self._event = event
        self.time_s = time_s
        self._position = position
        self._source_label = source_label

    def base(self) -> dict[str, object]:
        """p_log_type, p_event_time, p_parse_time, p_row_id and p_source_label, without those that the event has."""
        if _is_normalised(self._event):
            return {}
        time = format_time(self.time_s)
        fields: dict[str, object] = {
            "p_log_type": self._log_type.name,
            "p_event_time": time,
            "p_parse_time": time,  # the event's time too: a wall clock would give two runs two answers
            "p_row_id": _row_id(self._position),
            "p_source_label": self._source_label,
        }
        return {name: value for name, value in fields.items() if name not in self._event}

    def any(self) -> dict[str, list[str]]:
        """p_any_<indicator>: sorted lists of distinct texts, without the empty ones and those that the event has."""
        if _is_normalised(self._event):
            return {}
        found: dict[str, set[str]] = {}
        for indicator, paths in self._log_type.indicators.items():
            is_valid = INDICATORS[indicator]
            texts = {text for path in paths for text in map(_as_text, path.values(self._event)) if is_valid(text)}
            if texts:
                found[indicator] = texts
        # As Panther does: an ARN names its account too.
        accounts = {arn.split(":")[4] for arn in found.get("aws_arns", ())}
        if accounts := set(filter(INDICATORS["aws_account_ids"], accounts)):
            found["aws_account_ids"] = found.get("aws_account_ids", set()) | accounts
        fields = {f"p_any_{indicator}": sorted(texts) for indicator, texts in sorted(found.items())}
        return {name: texts for name, texts in fields.items() if name not in self._event}


def _is_normalised(event: Event) -> bool:
    """Whatever wrote both fields wrote all that it wanted to (DESIGN section 9)."""
    return "p_log_type" in event and "p_event_time" in event


def _row_id(position: tuple[int, ...]) -> str:
    text = ":".join(map(str, position))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _as_text(value: object) -> str:
    """An indicator's text. Numbers count (account and actor ids); other values give "", which is no indicator."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if type(value) is int else ""


# --- log types ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LogType:
    """One log type. Never changes an event that it is given."""

    name: str
    alternatives: tuple[tuple[FieldTest, ...], ...] = ()
    timestamp: tuple[FieldPath, ...] = ()
    indicators: Mapping[str, tuple[FieldPath, ...]] = field(default_factory=dict)
    split: Split | None = None

    def time_of(self, event: Event) -> float | None:
        """The event's own time, in seconds since 1970: its p_event_time, else the first of its timestamp fields.

        None where all of them are absent, null or empty. Raises BadTime where one is present and holds no time.
        """
        value = event.get("p_event_time")
        if value is not None and value != "":
            return parse_time(value)
        for path in self.timestamp:
            value = path.value(event)
            if value is not None and value != "":
                return parse_time(value)
        return None

    def timer(self) -> Callable[[Event], float | None]:
        """time_of() as a function: nearly all log types have one field for the time, and each parsed event is asked."""
        if len(self.timestamp) != 1 or len(self.timestamp[0].names) != 1:
            return self.time_of
        return timer("p_event_time", self.timestamp[0].names[0], self.time_of)

    def events_of(self, record: Event) -> list[Event]:
        """The events that one record holds: itself, except for log types that split theirs."""
        return [record] if self.split is None else self.split.events(record)

    def derive(self, event: Event, time_s: float, position: tuple[int, ...], source_label: str) -> Derived:
        """The p_ fields of `event`, which happened at `time_s` and stands at `position`. Costs nothing until used."""
        return Derived(self, event, time_s, position, source_label)


def undefined(name: str) -> LogType:
    """A log type without a definition: it has p_event_time or no time, and no indicators (DESIGN 11.26)."""
    return LogType(name)


def recognise(record: Event, types: Mapping[str, LogType]) -> str | None:
    """The log type whose fields `record` has. Among several, the one that asked for most; then the first by name."""
    best: tuple[int, str] | None = None
    for name, log_type in types.items():
        for tests in log_type.alternatives:
            candidate = (-len(tests), name)
            if (best is None or candidate < best) and all(test.holds(record) for test in tests):
                best = candidate
    return None if best is None else best[1]


# --- definitions ----------------------------------------------------------------------------------------------------

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def shipped_definitions() -> dict[str, bytes]:
    """The definitions that come with the engine: file name -> content."""
    directory = Path(__file__).parent / "log_types"
    return {f"log_types/{path.name}": path.read_bytes() for path in sorted(directory.glob("*.yml"))}


def load_definitions(files: Mapping[str, bytes]) -> dict[str, LogType]:
    """Definitions by log type, from the content of their files by path. Raises InvalidPack with every problem found."""
    problems: list[Problem] = []
    types: dict[str, LogType] = {}
    for path, content in sorted(files.items()):
        definition = _Definition(path, problems)
        log_type = definition.read(content)
        if log_type is not None and types.setdefault(log_type.name, log_type) is not log_type:
            definition.problem(None, f"{log_type.name} is defined twice", "keep one of the definitions")
    if problems:
        raise InvalidPack(tuple(problems))
    return types


class _Definition:
    """Reads one file. Scalars stay the text they are (`on` and `12` too), so YAML's types play no part."""

    def __init__(self, path: str, problems: list[Problem]) -> None:
        self._path = path
        self._problems = problems

    def problem(self, node: yaml.Node | None, message: str, remedy: str) -> None:
        line = None if node is None else node.start_mark.line + 1
        self._problems.append(Problem(SourceLocation(self._path, line), message, remedy))

    def read(self, content: bytes) -> LogType | None:
        before = len(self._problems)
        try:
            root = yaml.compose(content, Loader=_LOADER)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            location = SourceLocation(self._path, mark.line + 1 if mark else None)
            message = f"not valid YAML: {getattr(error, 'problem', None) or error}"
            self._problems.append(Problem(location, message, "correct the syntax"))
            return None
        keys = self._mapping(root, ("LogType", "Recognise", "Timestamp", "Indicators", "Split"))
        name = self._text(keys["LogType"]) if "LogType" in keys else ""
        if isinstance(root, yaml.MappingNode) and "LogType" not in keys:
            self.problem(root, "LogType is missing", "name the log type, as in LogType: Example.Audit")
        log_type = LogType(
            name,
            tuple(map(self._alternative, self._elements(keys.get("Recognise")))),
            tuple(self._paths(keys.get("Timestamp"), lists=False)),
            self._indicators(keys.get("Indicators")),
            self._split(keys.get("Split")),
        )
        return log_type if len(self._problems) == before else None

    def _alternative(self, node: yaml.Node) -> tuple[FieldTest, ...]:
        tests = []
        for text, value in self._mapping(node).items():
            patterns = self._texts(value)
            for path in self._path_of(value, text, lists=False):
                tests.append(FieldTest.parse(text, patterns) if patterns else FieldTest(path, frozenset(), ()))
        if not tests:
            self.problem(node, "an empty alternative recognises everything", "name a field")
        return tuple(tests)

    def _indicators(self, node: yaml.Node | None) -> dict[str, tuple[FieldPath, ...]]:
        keys = self._mapping(node, tuple(INDICATORS)) if node else {}
        return {name: tuple(self._paths(value, lists=True)) for name, value in keys.items()}

    def _split(self, node: yaml.Node | None) -> Split | None:
        if node is None:
            return None
        keys = self._mapping(node, ("List", "Objects"))
        if "List" not in keys:
            self.problem(node, "Split has no List", "name the field that holds the list of events")
            return None
        return Split(self._text(keys["List"]), tuple(self._texts(keys["Objects"]) if "Objects" in keys else ()))

    def _paths(self, node: yaml.Node | None, *, lists: bool) -> Iterator[FieldPath]:
        for text in self._texts(node) if node else ():
            yield from self._path_of(node, text, lists=lists)

    def _path_of(self, node: yaml.Node | None, text: str, *, lists: bool) -> Iterator[FieldPath]:
        try:
            path = FieldPath.parse(text)
        except ValueError as error:
            self.problem(node, str(error), "write names joined by dots, as in client.ip")
            return
        if "[]" in path.names and not lists:
            self.problem(node, f"the path {text!r} goes through a list", "only Indicators may use []")
            return
        yield path

    def _mapping(self, node: yaml.Node | None, allowed: Sequence[str] | None = None) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self.problem(node, "expected a mapping", "write key: value")
            return {}
        keys = {}
        for key_node, value in node.value:
            key = self._text(key_node)
            if allowed is not None and key not in allowed:
                self.problem(key_node, f"unknown key {key!r}", f"use one of {', '.join(allowed)}")
            else:
                keys[key] = value
        return keys

    def _elements(self, node: yaml.Node | None) -> list[yaml.Node]:
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            self.problem(node, "expected a list", "start each element with a dash")
            return []
        return list(node.value)

    def _texts(self, node: yaml.Node) -> list[str]:
        """One text, or a list of them."""
        return [self._text(node)] if isinstance(node, yaml.ScalarNode) else list(map(self._text, self._elements(node)))

    def _text(self, node: yaml.Node) -> str:
        if isinstance(node, yaml.ScalarNode) and node.value:
            return str(node.value)
        self.problem(node, "expected a text", "write a name, a path or a pattern")
        return ""
