"""PantherEvent: the read-only view of one event that rules get (PANTHER_FORMAT 1.5).

Keys are case-insensitive at every level: an exact match wins, else the first key in order that is equal but for case.
Nested dicts and lists are wrapped when they are reached, so an event that no rule looks into costs nothing.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from rules.datamodels import DataModel

Json = Any
"""A JSON value as the parser made it, or wrapped."""

_SHAPES_KEPT = 4096
_shapes: dict[tuple[str, ...], dict[str, str]] = {}
"""tuple of a dict's keys -> {lower-case key: key}. Logs have few shapes, and building this map is what a miss would cost."""

ATOMS = frozenset({str, int, float, bool, type(None)})
"""The types of JSON values that hold no other values."""


class _Missing:
    """Has one instance in a process: pickling names it."""

    def __reduce__(self) -> str:
        return "MISSING"

    def __repr__(self) -> str:
        return "MISSING"  # no address: traces of two processes are compared


MISSING: Any = _Missing()
"""What stands for a value that is not there. Compare by identity."""


class DerivedFields(Protocol):
    """The p_ fields of an event that its source did not write. Each is asked for at most once."""

    @property
    def time_s(self) -> float:
        """The event's time, epoch seconds."""

    def base(self) -> dict[str, Any]:
        """p_log_type, p_event_time, p_parse_time, p_row_id, p_source_label"""

    def any(self) -> dict[str, Any]:
        """p_any_*: indicators by kind"""


class EventContext(Protocol):
    """What a pack adds to the events of one log type. One serves many events."""

    @property
    def model(self) -> DataModel | None:
        """The log type's enabled data model."""

    @property
    def enriches(self) -> bool:
        """Whether enrichment() may give anything: an event's p_ fields need not be worked out for it where not."""

    def enrichment(self, event: dict[str, Any]) -> dict[str, Any]:
        """p_enrichment: {table: {selector: row}}; {} where nothing matched. `event` has its p_ fields."""

    def lookup(self, table: str, key: Any) -> Any:
        """The row of a table, a dict; None where there is none."""


def folded_keys(data: Mapping[str, Any]) -> dict[str, str]:
    """Lower-case key -> the key as it stands, the first of those that are equal but for case."""
    shape = tuple(data)
    found = _shapes.get(shape)
    if found is None:
        found = {}
        for key in shape:
            if isinstance(key, str):  # the events of tests are YAML, whose keys can be numbers
                found.setdefault(key.lower(), key)
        if len(_shapes) >= _SHAPES_KEPT:
            _shapes.clear()
        _shapes[shape] = found
    return found


def find_folded(data: Mapping[str, Any], key: str) -> Json:
    """The value of a key without regard to case, or MISSING. AttributeError for a key that is no text."""
    actual = folded_keys(data).get(key.lower())
    return MISSING if actual is None else data[actual]


def wrap(value: Json) -> Json:
    """A value as rules get it."""
    kind = type(value)
    if kind is dict:
        return ImmutableDict(value)
    if kind is list:
        return ImmutableList(value)
    return value


def _unwrap(value: Json) -> Json:
    """A deep, mutable copy in plain Python."""
    if type(value) in ATOMS:
        return value
    try:
        return _copied(value)
    except RecursionError:
        return _copied_deep(value)


def _plain(value: Json) -> Json:
    """A value without its wrapper."""
    if isinstance(value, ImmutableDict):
        return value.raw
    return value._items if isinstance(value, ImmutableList) else value


def _copied(value: Json) -> Json:
    if type(value) in ATOMS:  # asking for the type of a Mapping is slow
        return value
    value = _plain(value)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    return value


def _copied_deep(value: Json) -> Json:
    """What _copied() gives, for values nested deeper than Python's calls may be: parsers read more levels than that."""
    whole = [value]
    ahead: list[tuple[Any, Any]] = [(whole, 0)]  # (the copy that holds it, where)
    while ahead:
        holder, place = ahead.pop()
        value = _plain(holder[place])
        if isinstance(value, dict):
            holder[place] = copy = dict(value)
            ahead.extend((copy, key) for key in copy)
        elif isinstance(value, list | tuple):
            holder[place] = items = list(value)
            ahead.extend((items, index) for index in range(len(items)))
    return whole[0]


class ImmutableList(Sequence[Json]):
    """A list of an event. Equal to lists and tuples of the same items; not a list. A slice of it is a tuple in plain Python."""

    __slots__ = ("_items",)

    def __init__(self, items: Sequence[Json]) -> None:
        self._items = items

    def __getitem__(self, index: Any) -> Json:
        found = self._items[index]
        return tuple(map(_unwrap, found)) if isinstance(index, slice) else wrap(found)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Json]:
        return map(wrap, self._items)

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
        """The value of a key that is not there as written, or MISSING. AttributeError for a key that is no text."""
        if self._folded is None:
            self._folded = folded_keys(self.raw)
        actual = self._folded.get(key.lower())
        return MISSING if actual is None else self.raw[actual]

    def __getitem__(self, key: str) -> Json:
        try:
            value = self.raw[key]
        except (KeyError, TypeError):
            value = self._find(key)
            if value is MISSING:
                raise KeyError(key) from None
        kind = type(value)
        return wrap(value) if kind is dict or kind is list else value

    def get(self, key: str, default: Json = None) -> Json:
        """The value; the default only where there is none (a null that is there stays None)."""
        try:
            value = self.raw.get(key, MISSING)
        except TypeError:  # a key that cannot be hashed, which _find() refuses like the others
            value = MISSING
        if value is MISSING:
            value = self._find(key)
            if value is MISSING:
                return default
        kind = type(value)
        return wrap(value) if kind is dict or kind is list else value

    def __contains__(self, key: object) -> bool:
        try:
            if key in self.raw:
                return True
        except TypeError:  # as in get()
            pass
        return self._find(key) is not MISSING  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def items(self) -> ItemsView[str, Json]:
        return _Items(self)

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
        value: Json = self.raw
        try:
            for key in keys:  # nearly every path is there as it is written
                if type(value) is not dict:
                    return self._deep_get(keys, default)
                value = value[key]
        except (KeyError, TypeError):
            return self._deep_get(keys, default)
        if value is None:
            return default
        kind = type(value)
        return wrap(value) if kind is dict or kind is list else value

    def _deep_get(self, keys: tuple[str, ...], default: Json) -> Json:
        """deep_get() of a path that is not there as it is written."""
        try:
            value = self.find(keys[0])
            for key in keys[1:]:
                if type(value) is not dict:
                    return default
                inner = value.get(key)
                value = find_folded(value, key) if inner is None and key not in value else inner
        except TypeError:  # a key that cannot be hashed is a key that is no text
            raise AttributeError(f"the keys {keys!r} are not all texts: they have no 'lower'") from None
        return default if value is None or value is MISSING else wrap(value)

    def deep_walk(self, *keys: str, default: Json = None, return_val: str = "all") -> Json:
        """What stands at a path, in plain Python; nothing there, null and an empty list are the default.

        A path that goes through lists gives the values of all their items: the lists at its ends opened, without repetition,
        a single one by itself. An item without a value counts with the default, unless that is None. Case-sensitive, unlike
        deep_get. `return_val` is all, first or last of these. TypeError where a dict or a list is among them.
        """
        if not keys:
            return self.copy()
        leaves = _leaves(self._at_first(keys[0]), keys[1:], default)
        if not isinstance(leaves, list):
            return leaves.value
        leaves = list(dict.fromkeys(_unwrap(leaves)))
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

    def find(self, key: str) -> Json:
        """The value of a key as the parser made it, or MISSING. Not for rules."""
        value = self.raw.get(key, MISSING)
        return self._find(key) if value is MISSING else value


class _Items(ItemsView[str, Json]):
    """As of any mapping, but iterated in without a look-up for each key: contexts of alerts go through whole events."""

    __slots__ = ()
    _mapping: ImmutableDict

    def __repr__(self) -> str:  # a rule may put it into a title
        return f"ItemsView({self._mapping!r})"

    def __iter__(self) -> Iterator[tuple[str, Json]]:
        keys = iter(self._mapping)  # an event adds its p_ fields for this
        return zip(keys, map(wrap, self._mapping.raw.values()), strict=True)


class _Single(NamedTuple):
    """What stands at the end of a path that goes through no list."""

    value: Json


def _leaves(value: Json, keys: Sequence[str], default: Json) -> list[Json] | _Single:
    """The values at the end of a path, as deep_walk() describes them."""
    at = 0
    while at < len(keys) and type(value) is dict:
        value, at = value.get(keys[at]), at + 1
    if at == len(keys):
        return _Single(default if value is None or value == [] else _unwrap(value))
    if type(value) is not list:
        return _Single(default)
    leaves: list[Json] = []
    ahead = [
        (item, at) for item in reversed(value)
    ]  # a stack, not recursion: lists may be nested as deep as the parser reads
    while ahead:
        value, at = ahead.pop()
        if at < len(keys) and type(value) is dict:
            ahead.append((value.get(keys[at]), at + 1))
        elif at < len(keys) and type(value) is list and value:
            ahead.extend((item, at) for item in reversed(value))
        else:
            if at < len(keys) or value is None or value == []:
                value = default
            if isinstance(value, list | ImmutableList):
                leaves.extend(value)
            elif value is not None:
                leaves.append(value)
    return leaves


class PantherError(Exception):
    """What Panther raises where a rule asks for what its pack does not have."""


_BASE, _ANY, _ENRICHMENT = 1, 2, 4
_ALL = _BASE | _ANY | _ENRICHMENT
"""The kinds of p_ fields that are added to an event, as bits."""


def _kind_of(name: str) -> int:
    """The kind that a p_ field belongs to, by its name in lower case."""
    if name.startswith("p_any_"):
        return _ANY
    return _ENRICHMENT if name == "p_enrichment" else _BASE


class PantherEvent(ImmutableDict):
    """One event. p_ fields that its source did not write are added when they are first looked for."""

    __slots__ = ("_added", "_context", "_derived", "_epoch_s", "_fields", "original")

    def __init__(
        self, data: dict[str, Json], derived: DerivedFields | None = None, context: EventContext | None = None
    ) -> None:
        self.raw = self.original = data
        """`original` is the record as its source wrote it, without added fields. Not for rules."""
        self._folded = None
        self._derived = derived
        self._context = context
        self._added = 0
        """The kinds of p_ fields that have been asked for."""
        self._fields: dict[int, dict[str, Any]] | None = None
        """What they gave."""
        self._epoch_s: int | None = None

    def _find(self, key: str) -> Json:
        lower = key.lower()
        if self._added != _ALL and lower.startswith("p_"):
            self._add(_kind_of(lower))
            if key in self.raw:
                return self.raw[key]
        if self._folded is None:
            self._folded = folded_keys(self.raw)
        actual = self._folded.get(lower)
        return MISSING if actual is None else self.raw[actual]

    def _at_first(self, key: str) -> Json:
        if key.startswith("p_") and key not in self.raw:
            self._add(_kind_of(key))
        return self.raw.get(key)

    def _add(self, kind: int) -> None:
        if self._added & kind:
            return
        self._added |= kind
        if kind == _ENRICHMENT:
            fields = self._enrichment()
        elif self._derived is not None:
            fields = self._derived.any() if kind == _ANY else self._derived.base()
        else:
            return
        if not fields:
            return
        if self._fields is None:
            self._fields = {}
        self._fields[kind] = fields
        merged: dict[str, Any] = {}
        for each in sorted(self._fields):  # in one order, whoever asked first: a rule may iterate
            merged.update(self._fields[each])
        self.raw = {**merged, **self.original}
        self._folded = None

    def _enrichment(self) -> dict[str, Any]:
        """p_enrichment, where rows of lookup tables match and the source did not write its own."""
        if self._context is None or not self._context.enriches or "p_enrichment" in folded_keys(self.raw):
            return {}
        self._add(_BASE)
        self._add(_ANY)
        found = self._context.enrichment(self.raw)
        return {"p_enrichment": found} if found else {}

    def _add_all(self) -> None:
        for kind in (_BASE, _ANY, _ENRICHMENT):
            self._add(kind)

    def __iter__(self) -> Iterator[str]:
        self._add_all()
        return iter(self.raw)

    def __len__(self) -> int:
        self._add_all()
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
        """What the log type's data model maps a key to, null and falsy values too; the default where it maps to nothing.

        What no model maps: p_udm.<keys>, then <keys>; what is falsy there becomes the default. PantherError where a model's
        path meets several values.
        """
        if self._context is not None and len(keys) == 1 and (model := self._context.model) is not None:
            mapping = model.mapping(keys[0])
            if mapping is not None:
                value = mapping.value(self)
                return default if value is MISSING else value
        return self.deep_get("p_udm", *keys) or self.deep_get(*keys) or default

    def udm_path(self, *keys: str) -> str:
        """Where udm() finds a key: the path without its `$.`, or the function's name. PantherError without a model."""
        model = None if self._context is None else self._context.model
        if model is None:
            raise PantherError(f"no data model maps {'.'.join(map(str, keys))}: name the field itself")
        mapping = model.mapping(keys[0]) if len(keys) == 1 else None
        if mapping is not None:
            return mapping.source
        path = ".".join(map(str, keys))
        return f"p_udm.{path}" if self.deep_get("p_udm", *keys) else path

    def lookup(self, table: str, key: Any) -> Json:
        """A row of a lookup table, or None. What a test says in _mocked_lookup_data_ comes first."""
        mocked = self.raw.get("_mocked_lookup_data_")
        if mocked is None and self._context is not None:
            return wrap(self._context.lookup(table, key))
        return self.deep_get("_mocked_lookup_data_", table, key)

    def __reduce__(self) -> tuple[Any, ...]:
        """For rules that copy their event: as it was made."""
        return PantherEvent, (self.original, self._derived, self._context)

    @staticmethod
    def json_encoder(value: object) -> Json:
        """For json.dumps(event, default=PantherEvent.json_encoder)."""
        if isinstance(value, ImmutableDict | ImmutableList):
            return value.copy()
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
