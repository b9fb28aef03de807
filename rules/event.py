"""PantherEvent: the read-only view of one event that rules get (PANTHER_FORMAT 1.5).

Keys are case-insensitive at every level: an exact match wins, else the first key in order that is equal but for case.
Nested dicts and lists are wrapped when they are reached, so an event that no rule looks into costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

Json = Any
"""A JSON value as the parser made it, or wrapped."""

_SHAPES_KEPT = 4096
_shapes: dict[tuple[str, ...], dict[str, str]] = {}
"""tuple of a dict's keys -> {lower-case key: key}. Logs have few shapes, and building this map is what a miss would cost."""

_MISSING: Any = object()


class DerivedFields(Protocol):
    """The p_ fields of an event that its source did not write. Each is asked for at most once."""

    @property
    def time_s(self) -> float:
        """The event's time, epoch seconds."""

    def base(self) -> dict[str, Any]:
        """p_log_type, p_event_time, p_parse_time, p_row_id, p_source_label"""

    def any(self) -> dict[str, Any]:
        """p_any_*: indicators by kind"""


def folded_keys(data: Mapping[str, Any]) -> dict[str, str]:
    """Lower-case key -> the key as it stands, the first of those that are equal but for case."""
    shape = tuple(data)
    found = _shapes.get(shape)
    if found is None:
        found = {}
        for key in shape:
            found.setdefault(key.lower(), key)
        if len(_shapes) >= _SHAPES_KEPT:
            _shapes.clear()
        _shapes[shape] = found
    return found


def _find_folded(data: Mapping[str, Any], key: str) -> Json:
    actual = folded_keys(data).get(key.lower())
    return _MISSING if actual is None else data[actual]


def _wrap(value: Json) -> Json:
    kind = type(value)
    if kind is dict:
        return ImmutableDict(value)
    if kind is list:
        return ImmutableList(value)
    return value


def _unwrap(value: Json) -> Json:
    """A deep, mutable copy in plain Python."""
    if isinstance(value, ImmutableDict):
        value = value.raw
    elif isinstance(value, ImmutableList):
        value = value._items
    if isinstance(value, dict):
        return {key: _unwrap(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_unwrap(item) for item in value]
    return value


class ImmutableList(Sequence[Json]):
    """A list of an event. Equal to lists and tuples of the same items; not a list."""

    __slots__ = ("_items",)

    def __init__(self, items: Sequence[Json]) -> None:
        self._items = items

    def __getitem__(self, index: Any) -> Json:
        found = self._items[index]
        return ImmutableList(found) if isinstance(index, slice) else _wrap(found)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Json]:
        return map(_wrap, self._items)

    def __contains__(self, value: object) -> bool:
        return any(value == item for item in self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ImmutableList):
            other = other._items
        if not isinstance(other, list | tuple) or len(other) != len(self._items):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._items)

    def copy(self) -> list[Json]:
        return _unwrap(self)  # type: ignore[no-any-return]

    as_list = copy


class ImmutableDict(Mapping[str, Json]):
    """A dict of an event, with case-insensitive keys. Equal to dicts with the same items; not a dict."""

    __slots__ = ("_folded", "raw")

    def __init__(self, data: dict[str, Json]) -> None:
        self.raw = data
        """What the parser made. Not for rules."""
        self._folded: dict[str, str] | None = None

    def _find(self, key: str) -> Json:
        """The value of a key that is not there as written, or _MISSING. AttributeError for a key that is no text."""
        if self._folded is None:
            self._folded = folded_keys(self.raw)
        actual = self._folded.get(key.lower())
        return _MISSING if actual is None else self.raw[actual]

    def __getitem__(self, key: str) -> Json:
        try:
            value = self.raw[key]
        except (KeyError, TypeError):
            value = self._find(key)
            if value is _MISSING:
                raise KeyError(key) from None
        kind = type(value)
        return _wrap(value) if kind is dict or kind is list else value

    def get(self, key: str, default: Json = None) -> Json:
        """The value; the default only where there is none (a null that is there stays None)."""
        try:
            value = self.raw[key]
        except (KeyError, TypeError):  # TypeError: a key that cannot be hashed, which _find() refuses like the others
            value = self._find(key)
            if value is _MISSING:
                return default
        kind = type(value)
        return _wrap(value) if kind is dict or kind is list else value

    def __contains__(self, key: object) -> bool:
        return key in self.raw or self._find(key) is not _MISSING  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ImmutableDict):
            other = other.to_dict()
        return isinstance(other, dict) and self.to_dict() == _unwrap(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.to_dict())

    def to_dict(self) -> dict[str, Json]:
        """A deep, mutable copy."""
        return {key: _unwrap(self.raw[key]) for key in self}

    copy = to_dict

    def deep_get(self, *keys: str, default: Json = None) -> Json:
        """The value at a path of keys; the default where the path ends early, meets a list, or the value is None."""
        if not keys:
            return self
        first, *rest = keys
        value = self.raw.get(first)
        if value is None and first not in self.raw:
            value = self._find(first)
        for key in rest:
            if type(value) is not dict:
                return default
            inner = value.get(key)
            value = _find_folded(value, key) if inner is None and key not in value else inner
        return default if value is None or value is _MISSING else _wrap(value)

    def deep_walk(self, *keys: str, default: Json = None, return_val: str = "all") -> Json:
        """The values at a path that goes through lists: without repetition, a single one by itself.

        Case-sensitive, unlike deep_get. `return_val` is all, first or last. TypeError where several values are dicts.
        """
        if not keys:
            return self
        leaves = list(_leaves(self._at_first(keys[0]), keys[1:]))
        if len(leaves) > 1:
            leaves = list(dict.fromkeys(leaves))
        if not leaves:
            return default
        match return_val:
            case "first":
                return leaves[0]
            case "last":
                return leaves[-1]
            case "all":
                return leaves[0] if len(leaves) == 1 else leaves
        return "all"  # as Panther answers what it does not know

    def _at_first(self, key: str) -> Json:
        """The value of a key, spelled exactly; None where there is none."""
        return self.raw.get(key)


def _leaves(value: Json, keys: Sequence[str]) -> Iterator[Json]:
    """What stands at the end of a path, all lists on the way and at its end opened, without nulls."""
    if type(value) is list:
        for item in value:
            yield from _leaves(item, keys)
    elif not keys:
        if value is not None:
            yield _wrap(value)
    elif type(value) is dict:
        yield from _leaves(value.get(keys[0]), keys[1:])


class PantherError(Exception):
    """What Panther raises where a rule asks for what its pack does not have."""


class PantherEvent(ImmutableDict):
    """One event. p_ fields that its source did not write are derived when they are first looked for."""

    __slots__ = ("_any_pending", "_base_pending", "_derived", "_epoch_s", "original")

    def __init__(self, data: dict[str, Json], derived: DerivedFields | None = None) -> None:
        self.raw = self.original = data
        """`original` is the record as its source wrote it, without derived fields. Not for rules."""
        self._folded = None
        self._base_pending = self._any_pending = self._derived = derived
        self._epoch_s: int | None = None

    def _find(self, key: str) -> Json:
        if self._any_pending is not None or self._base_pending is not None:
            lower = key.lower()
            if lower.startswith("p_"):
                self._derive(indicators=lower.startswith("p_any_"))
                if key in self.raw:
                    return self.raw[key]
        return ImmutableDict._find(self, key)

    def _at_first(self, key: str) -> Json:
        if key.startswith("p_") and key not in self.raw:
            self._derive(indicators=key.startswith("p_any_"))
        return self.raw.get(key)

    def _derive(self, *, indicators: bool) -> None:
        pending = self._any_pending if indicators else self._base_pending
        if pending is None:
            return
        if indicators:
            self._any_pending, fields = None, pending.any()
        else:
            self._base_pending, fields = None, pending.base()
        self.raw = {**fields, **self.raw}
        self._folded = None

    def _derive_all(self) -> None:
        self._derive(indicators=False)
        self._derive(indicators=True)

    def __iter__(self) -> Iterator[str]:
        self._derive_all()
        return iter(self.raw)

    def __len__(self) -> int:
        self._derive_all()
        return len(self.raw)

    def event_time_epoch(self) -> int:
        """p_event_time as epoch seconds; 0 where it is absent or not as the format writes it (without a zone)."""
        if self._epoch_s is None:
            known = self._derived is not None and "p_event_time" not in self.original
            self._epoch_s = int(self._derived.time_s) if known and self._derived else self._written_epoch_s()
        return self._epoch_s

    def _written_epoch_s(self) -> int:
        text = self.get("p_event_time")
        if not isinstance(text, str):
            return 0
        try:
            parsed = datetime.fromisoformat(text)
        except ValueError:
            return 0
        return 0 if parsed.tzinfo is not None else int(parsed.replace(tzinfo=UTC).timestamp())

    def udm(self, *keys: str, default: Json = None) -> Json:
        """Without a data model: p_udm.<keys>, then <keys>; what is falsy there becomes the default."""
        return self.deep_get("p_udm", *keys) or self.deep_get(*keys) or default

    def udm_path(self, *keys: str) -> str:
        """Where a data model finds a key. Raises PantherError: there is no data model."""
        raise PantherError(f"no data model maps {'.'.join(keys)}: name the field itself")

    def lookup(self, table: str, key: str) -> Json:
        """A row of a lookup table; without tables, what a test says in _mocked_lookup_data_."""
        return self.deep_get("_mocked_lookup_data_", table, key)

    @staticmethod
    def json_encoder(value: object) -> Json:
        """For json.dumps(event, default=PantherEvent.json_encoder)."""
        if isinstance(value, ImmutableDict | ImmutableList):
            return value.copy()
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
