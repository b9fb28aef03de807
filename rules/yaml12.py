"""YAML with 1.2 meaning on PyYAML's C parser, and the line of everything in it.

PyYAML resolves plain scalars by YAML 1.1: `no` is False, `2020-01-01` a date, `010` eight, `1:30` ninety. Test events in rule
packs are written for YAML 1.2's core schema, where these are text, text, ten and text.

Nearly every file holds nothing but plain mappings, sequences and scalars: it is built straight from the parser's events.
Whatever else there is (anchors, tags, merge keys, errors) goes through PyYAML's nodes, which know what it means.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
_REMEMBERED_SCALARS = 1 << 15


class _Resolver(yaml.resolver.BaseResolver):
    """The core schema of YAML 1.2.2, section 10.3.2, and the merge key `<<`, which packs use."""


for _name, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
     "-+.0123456789"),
    ("merge", r"<<", "<"),
):  # fmt: skip
    _Resolver.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), list(_first))


_Parser: Any = vars(yaml.cyaml)["CParser"]  # absent from the type stubs


class _Loader(_Parser, yaml.constructor.SafeConstructor, _Resolver):  # type: ignore[misc]
    def __init__(self, text: str) -> None:
        _Parser.__init__(self, text)
        yaml.constructor.SafeConstructor.__init__(self)
        _Resolver.__init__(self)

    def construct_int(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))
        for prefix, base in (("0o", 8), ("0x", 16)):
            if text.startswith(prefix):
                return int(text[2:], base)
        return int(text)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys differ, as YAML asks; PyYAML would let the last one win."""
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


_Loader.add_constructor(_TAG + "int", _Loader.construct_int)


class _Unusual(Exception):
    """Something that only the loader with nodes can judge."""


def _plain_document(text: str) -> Any:
    """The document of a file of plain mappings, sequences and scalars. Raises _Unusual, or what the parser raises."""
    next_event: Callable[[], Any] = _Parser(text).get_event
    next_event()  # the stream's start
    next_event()  # the document's
    document = _plain_value(next_event, next_event())
    next_event()
    if type(next_event()) is not yaml.StreamEndEvent:
        raise _Unusual
    return document


def _plain_value(next_event: Callable[[], Any], event: Any) -> Any:
    """What begins with this event."""
    kind = type(event)
    if kind is yaml.ScalarEvent:
        if event.anchor is not None or event.tag is not None:
            raise _Unusual
        return _meaning(event.value) if event.implicit[0] else event.value
    if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
        raise _Unusual
    if kind is yaml.MappingStartEvent:
        return _plain_mapping(next_event)
    if kind is yaml.SequenceStartEvent:
        sequence = []
        while type(event := next_event()) is not yaml.SequenceEndEvent:
            sequence.append(_plain_value(next_event, event))
        return sequence
    raise _Unusual


def _plain_mapping(next_event: Callable[[], Any]) -> dict[Any, Any]:
    mapping: dict[Any, Any] = {}
    pairs = 0
    while type(event := next_event()) is not yaml.MappingEndEvent:
        if type(event) is not yaml.ScalarEvent:
            raise _Unusual
        key = _plain_value(next_event, event)
        mapping[key] = _plain_value(next_event, next_event())
        pairs += 1
    if pairs != len(mapping):  # a key is twice, or two keys are equal to Python
        raise _Unusual
    return mapping


@lru_cache(_REMEMBERED_SCALARS)  # keys and values recur from file to file
def _meaning(text: str) -> Any:
    """What an unquoted scalar stands for. Raises _Unusual or ValueError for what is rare, such as 0x1F and .inf."""
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    read = _READ.get(tag.removeprefix(_TAG))
    if read is None:
        raise _Unusual
    return read(text)


_READ: dict[str, Callable[[str], Any]] = {
    "str": str,
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": int,
    "float": float,
}
_RESOLVER = _Resolver()


class BadYaml(ValueError):
    """No YAML; `line` is where, counted from 1, or None."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


class Lines:
    """Where things stand in a file. The file is parsed again by the first question: there is one only of a few files."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def _root(self) -> yaml.Node | None:
        loader = _Loader(self._text)
        try:
            return loader.get_single_node()  # type: ignore[no-any-return]
        finally:
            loader.dispose()

    def of(self, *path: str | int) -> int:
        """The line of a key or list element, by the keys and indices that lead to it; of the innermost that is there."""
        line, node = 1, self._root
        for step in path:
            if isinstance(node, yaml.MappingNode):
                found = next(((key, value) for key, value in node.value if key.value == str(step)), None)
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                found = (node.value[step], node.value[step])
            else:
                found = None
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        return line


def load(data: bytes) -> tuple[Any, Lines]:
    """The document of a file, and where its parts stand. Raises BadYaml."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadYaml(f"no YAML: not UTF-8 at byte {error.start}", None) from None
    try:
        document = _plain_document(text)
    except (_Unusual, yaml.YAMLError, ValueError, RecursionError):
        document = _document(text)
    return document, Lines(text)


def _document(text: str) -> Any:
    """The document of any file. Raises BadYaml."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            return loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        raise BadYaml(f"no YAML: {problem}", mark.line + 1 if mark is not None else None) from None
    except (ValueError, RecursionError) as error:
        raise BadYaml(f"no YAML: {error}", None) from None
