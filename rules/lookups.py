"""Lookup tables: rows that stand beside a pack's rules, found by a key, for p_enrichment and event.lookup().

A table's file is JSON Lines or CSV with a header, plain or gzip; told apart by content. There is no schema, so

    values        are what the file says: those of CSV are texts, those of JSON Lines what JSON makes of them
    keys          are compared as texts, exactly: an account 123 of an event finds the row 123 of a CSV file. A key that is a
                  list stands for each of its elements. Rows without a key are left out; of rows with the same key the last counts
    networks      a table with a network among its keys (10.0.0.0/8) is one of addresses: the longest network that holds an
                  address is its row. ::ffff:10.0.0.1 is 10.0.0.1; host bits of a network do not count

A table whose data the pack does not hold (Refresh, or a query) has no rows. In p_enrichment a selector is called what it is
without its `$.`; a row there has the value that matched under p_match; a selector with several values has a list of the rows.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from rules.event import ImmutableDict
from rules.paths import BadPath, JsonPath

if TYPE_CHECKING:
    from rules.datamodels import DataModel, Refuse

Row = dict[str, Any]

_BITS = {4: 32, 6: 128}
_LONGEST_ADDRESS = 64
"""Characters: 45 for IPv6 with IPv4 inside, and a zone. What is longer would only fill the cache."""


class BadTable(ValueError):
    """A table's file cannot be read."""


# --- finding a row -----------------------------------------------------------------------------------------------


@lru_cache(65_536)
def _address(text: str) -> tuple[int, int] | None:
    """(IP version, the address as a number), or None. Logs name few addresses, often."""
    try:
        found: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found.version, int(found)


def _network(text: str) -> tuple[int, int, int] | None:
    """(IP version, prefix length, the prefix as a number), or None for what is neither network nor address."""
    try:
        found = ip_network(text, strict=False)
    except ValueError:
        return None
    version, length, prefix = found.version, found.prefixlen, int(found.network_address)
    if version == 6 and length >= 96 and (mapped := IPv6Address(prefix).ipv4_mapped) is not None:
        version, length, prefix = 4, length - 96, int(mapped)
    return version, length, prefix >> (_BITS[version] - length)


class _Networks:
    """Rows by network: for each prefix length a dictionary, asked from the longest to the shortest."""

    __slots__ = ("_by_version",)

    def __init__(self, rows: Mapping[tuple[int, int, int], Row]) -> None:
        by_length: dict[int, dict[int, dict[int, Row]]] = {4: {}, 6: {}}
        for (version, length, prefix), row in rows.items():
            by_length[version].setdefault(length, {})[prefix] = row
        self._by_version = {
            version: [(_BITS[version] - length, rows) for length, rows in sorted(lengths.items(), reverse=True)]
            for version, lengths in by_length.items()
        }

    def find(self, text: str) -> Row | None:
        address = _address(text) if len(text) <= _LONGEST_ADDRESS else None
        if address is None:
            return None
        version, number = address
        for shift, rows in self._by_version[version]:
            row = rows.get(number >> shift)
            if row is not None:
                return row
        return None


def _key_text(value: Any) -> str | None:
    """A value as a key. Only texts and whole numbers are keys; an empty text is none."""
    if isinstance(value, str):
        return value or None
    return str(value) if type(value) is int else None


@dataclass(frozen=True, slots=True)
class LookupTable:
    """One table. `selectors` are by log type."""

    name: str
    rows: Mapping[str, Row] = field(default_factory=dict)
    networks: _Networks | None = None
    selectors: Mapping[str, tuple[JsonPath, ...]] = field(default_factory=dict)

    @property
    def has_rows(self) -> bool:
        return bool(self.rows)

    def find(self, value: Any) -> Row | None:
        """The row of a value, or None. Not a copy."""
        text = _key_text(value)
        if text is None:
            return None
        row = self.rows.get(text)
        return self.networks.find(text) if row is None and self.networks is not None else row


# --- what a pack adds to events ----------------------------------------------------------------------------------


class PackContext:
    """The data model and the lookup tables of one log type."""

    __slots__ = ("_selectors", "_tables", "model")

    def __init__(self, model: DataModel | None, tables: Sequence[LookupTable], log_type: str) -> None:
        self.model = model
        self._tables = {table.name: table for table in tables}
        self._selectors = [
            (table, selectors) for table in tables if table.has_rows and (selectors := table.selectors.get(log_type))
        ]

    @property
    def enriches(self) -> bool:
        return bool(self._selectors)

    def enrichment(self, event: dict[str, Any]) -> dict[str, Any]:
        """The rows that the event's selectors find, by table and selector."""
        found: dict[str, Any] = {}
        fields = ImmutableDict(event)
        for table, selectors in self._selectors:
            rows = {path.text: row for path in selectors if (row := _rows(table, path.values(fields))) is not None}
            if rows:
                found[table.name] = rows
        return found

    def lookup(self, table: str, key: Any) -> Row | None:
        """The row of a table, or None: no such table, no such key."""
        if not isinstance(table, str) or table not in self._tables:
            return None
        return self._tables[table].find(key)


def _rows(table: LookupTable, values: list[Any]) -> Row | list[Row] | None:
    """The row of one value, the rows of several, None where nothing matches."""
    if len(values) == 1 and not isinstance(values[0], list):
        row = table.find(values[0])
        return None if row is None else {**row, "p_match": values[0]}
    elements = [element for value in values for element in (value if isinstance(value, list) else [value])]
    return [{**row, "p_match": element} for element in elements if (row := table.find(element)) is not None] or None


# --- reading tables ----------------------------------------------------------------------------------------------


def build_table(document: Mapping[str, Any], data: bytes | None, refuse: Refuse) -> LookupTable | None:
    """A table from its YAML, which has been checked, and its file's content. None where something was refused."""
    mapping = document["LogTypeMap"]
    selectors = _selectors(mapping["AssociatedLogTypes"], refuse)
    key = _path(("LogTypeMap", "PrimaryKey"), mapping["PrimaryKey"], refuse)
    if selectors is None or key is None:
        return None
    name = document["LookupName"]
    if data is None:
        return LookupTable(name, selectors=selectors)
    try:
        rows = list(_read(data))
    except BadTable as error:
        refuse(
            ("Filename",), f"{document.get('Filename')}: {error}", "mend the table: CSV with a header, or JSON Lines"
        )
        return None
    by_key: dict[str, Row] = {}
    for row in rows:
        for text in _keys(row, key):
            by_key.pop(text, None)  # the last row counts, also among networks that are written in several ways
            by_key[text] = row
    if rows and not by_key:
        message = f"no row of {document.get('Filename')} has a value under {mapping['PrimaryKey']}"
        refuse(("LogTypeMap", "PrimaryKey"), message, f"name one of its columns: {', '.join(list(rows[0])[:8])}")
        return None
    return LookupTable(name, by_key, _networks(by_key), selectors)


def _path(where: tuple[str | int, ...], text: str, refuse: Refuse) -> JsonPath | None:
    try:
        return JsonPath(text)
    except BadPath as error:
        refuse(where, f"{text!r} is no JSON path: {error}", "write it as in sourceIPAddress or $.client.ipAddress")
        return None


def _selectors(associated: Sequence[Mapping[str, Any]], refuse: Refuse) -> dict[str, tuple[JsonPath, ...]] | None:
    selectors: dict[str, tuple[JsonPath, ...]] = {}
    sound = True
    for number, each in enumerate(associated):
        for index, text in enumerate(each["Selectors"]):
            path = _path(("LogTypeMap", "AssociatedLogTypes", number, "Selectors", index), text, refuse)
            if path is None:
                sound = False
            else:
                selectors[each["LogType"]] = (*selectors.get(each["LogType"], ()), path)
    return selectors if sound else None


def _keys(row: Row, path: JsonPath) -> Iterator[str]:
    for value in path.values(ImmutableDict(row)):
        for each in value if isinstance(value, list) else [value]:
            text = _key_text(each)
            if text is not None:
                yield text


def _networks(by_key: Mapping[str, Row]) -> _Networks | None:
    """The rows by network, single addresses too; None where no key is a network of several addresses."""
    found = {text: _network(text) for text in by_key if "/" in text}
    if not any(network is not None for network in found.values()):
        return None
    networks = {text: found[text] if text in found else _network(text) for text in by_key}
    return _Networks({network: by_key[text] for text, network in networks.items() if network is not None})


def _read(data: bytes) -> Iterator[Row]:
    """The rows of a file. Raises BadTable."""
    try:
        plain = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        text = plain.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise BadTable(f"cannot be read: {error}") from None
    reader: Callable[[str], Iterator[Row]] = _json_rows if text.lstrip().startswith("{") else _csv_rows
    return reader(text)


def _json_rows(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line or line.isspace():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadTable(f"line {number} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise BadTable(f"line {number} holds no JSON object")
        yield row


def _csv_rows(text: str) -> Iterator[Row]:
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(lines, [])
        for name in header:
            if not name or header.count(name) > 1:
                raise BadTable(f"the column {name!r} of its header has no name of its own")
        for values in lines:
            if not values:
                continue  # an empty line
            if len(values) != len(header):
                raise BadTable(f"line {lines.line_num} has {len(values)} values, the header {len(header)}")
            yield dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise BadTable(f"line {lines.line_num} is no CSV: {error}") from None
