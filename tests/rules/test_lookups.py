"""Lookup tables: how files are read, which row a value finds, and what p_enrichment holds."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.event import PantherEvent
from rules.lookups import LookupTable, PackContext, build_table

CSV = b'host,owner,age\ni-1,alice,3\ni-2,"bob, jr",\n'
JSONL = b'{"host": "i-1", "owner": "alice", "age": 3}\n\n{"host": "i-2", "tags": ["x"], "age": null}\n'


def document(
    key: str = "host", *selectors: str, log_type: str = "Some.Log", filename: str = "table.csv"
) -> dict[str, Any]:
    associated = [{"LogType": log_type, "Selectors": list(selectors)}] if selectors else []
    return {
        "AnalysisType": "lookup_table",
        "LookupName": "assets",
        "Enabled": True,
        "Filename": filename,
        "LogTypeMap": {"PrimaryKey": key, "AssociatedLogTypes": associated},
    }


def table(data: bytes | None, key: str = "host", *selectors: str, log_type: str = "Some.Log") -> LookupTable:
    problems: list[Any] = []
    made = build_table(document(key, *selectors, log_type=log_type), data, lambda *it: problems.append(it))
    assert made is not None, problems
    return made


def lines(*rows: Any) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in rows)


def problem_of(data: bytes | None, key: str = "host", *selectors: str) -> tuple[Any, str, str]:
    problems: list[Any] = []
    assert build_table(document(key, *selectors), data, lambda *it: problems.append(it)) is None
    (problem,) = problems
    return problem  # type: ignore[no-any-return]


# --- reading -------------------------------------------------------------------------------------------------------


def test_the_values_of_csv_are_texts() -> None:
    assert table(CSV).find("i-1") == {"host": "i-1", "owner": "alice", "age": "3"}
    assert table(CSV).find("i-2") == {"host": "i-2", "owner": "bob, jr", "age": ""}


def test_the_values_of_json_lines_are_what_json_makes_of_them() -> None:
    assert table(JSONL).find("i-1") == {"host": "i-1", "owner": "alice", "age": 3}
    assert table(JSONL).find("i-2") == {"host": "i-2", "tags": ["x"], "age": None}


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "compressed": gzip.compress,
    "with a mark": lambda data: b"\xef\xbb\xbf" + data,
    "from Windows": lambda data: data.replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("data", [CSV, JSONL])
def test_files_may_be_compressed_have_a_mark_or_come_from_windows(data: bytes, change: Any) -> None:
    assert table(change(data)).rows == table(data).rows


def test_csv_values_may_hold_line_breaks_and_empty_lines_count_for_nothing() -> None:
    assert table(b'host,note\n\ni-1,"two\nlines"\n').rows == {"i-1": {"host": "i-1", "note": "two\nlines"}}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"host,owner\ni-1\n", "line 2 has 1 values, the header 2"),
        (b'host,owner\ni-1,"open', "line 2 is no CSV"),
        (b"host,host\n", "'host' of its header has no name of its own"),
        (b"host,\n", "'' of its header has no name of its own"),
        (b'{"host": 1}\n[1]\n', "line 2 holds no JSON object"),
        (b'{"host": 1}\n{"host"', "line 2 is no JSON"),
        (b"host\n\xff\n", "cannot be read"),
        (gzip.compress(CSV)[:-9], "cannot be read"),
        (b"\x1f\x8bnothing", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_line(data: bytes, said: str) -> None:
    where, message, remedy = problem_of(data)

    assert where == ("Filename",)
    assert message.startswith("table.csv: ")
    assert said in message
    assert remedy


def test_a_primary_key_that_no_row_has_is_refused_with_the_columns() -> None:
    where, message, remedy = problem_of(CSV, "hostname")

    assert where == ("LogTypeMap", "PrimaryKey")
    assert message == "no row of table.csv has a value under hostname"
    assert remedy.endswith("host, owner, age")


@pytest.mark.parametrize(("key", "selectors"), [("a[", ()), ("host", ("ok", "$..["))])
def test_a_bad_path_is_refused(key: str, selectors: tuple[str, ...]) -> None:
    where, message, _ = problem_of(CSV, key, *selectors)

    inside = ("AssociatedLogTypes", 0, "Selectors", 1) if selectors else ("PrimaryKey",)
    assert where == ("LogTypeMap", *inside)
    assert "is no JSON path" in message


@pytest.mark.parametrize("data", [None, b"", b"host,owner\n"])
def test_a_table_without_data_has_no_rows_and_finds_nothing(data: bytes | None) -> None:
    made = table(data, "host", "host")

    assert not made.has_rows
    assert made.find("i-1") is None
    assert PackContext(None, [made], "Some.Log").enrichment({"host": "i-1"}) == {}


# --- keys ----------------------------------------------------------------------------------------------------------


def test_keys_are_compared_as_texts() -> None:
    assert table(b"host\n123\n").find(123) == {"host": "123"}
    assert table(lines({"host": 123})).find("123") == {"host": 123}


@pytest.mark.parametrize("value", [None, True, 1.0, "", "I-1", "i-1 ", [], ["i-1"], {"host": "i-1"}])
def test_what_is_no_key_finds_nothing(value: Any) -> None:
    assert table(lines({"host": "i-1"}, {"host": 1}, {"host": True}, {"host": ""})).find(value) is None


def test_of_rows_with_the_same_key_the_last_counts_and_rows_without_one_are_left_out() -> None:
    made = table(lines({"host": "i-1", "n": 1}, {"n": 2}, {"host": None}, {"host": "i-1", "n": 3}))

    assert made.rows == {"i-1": {"host": "i-1", "n": 3}}


def test_a_key_that_is_a_list_stands_for_each_of_its_elements() -> None:
    made = table(lines({"names": ["a", 7], "n": 1}), "names")

    assert made.find("a") == made.find(7) == {"names": ["a", 7], "n": 1}


def test_a_primary_key_may_be_a_path() -> None:
    assert table(lines({"user": {"id": "u-1"}}), "$.user.id").find("u-1") == {"user": {"id": "u-1"}}


# --- networks ------------------------------------------------------------------------------------------------------

NETWORKS = b"net,name\n10.0.0.0/8,all\n10.1.0.0/16,office\n10.1.2.3,printer\n2001:db8::/32,six\n192.168.1.7/24,host bits\nw,w\n"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("10.200.0.1", "all"),
        ("10.1.9.9", "office"),
        ("10.1.2.3", "printer"),
        ("::ffff:10.1.9.9", "office"),
        ("2001:db8:1::5", "six"),
        ("2001:0DB8::1", "six"),
        ("192.168.1.1", "host bits"),
        ("10.1.0.0/16", "office"),
        ("w", "w"),
        ("11.0.0.1", None),
        ("2001:db9::1", None),
        ("10.1.9", None),
        ("a" * 100_000, None),
        (167837953, None),
    ],
)
def test_the_longest_network_that_holds_an_address_is_its_row(address: Any, name: str | None) -> None:
    row = table(NETWORKS, "net").find(address)

    assert (row and row["name"]) == name


def test_a_network_of_everything_holds_every_address_of_its_version() -> None:
    made = table(b"net\n0.0.0.0/0\n", "net")

    assert made.find("255.255.255.255") == {"net": "0.0.0.0/0"}
    assert made.find("::1") is None


def test_a_network_written_as_ipv6_with_ipv4_inside_is_one_of_ipv4() -> None:
    assert table(b"net\n::ffff:10.0.0.0/104\n", "net").find("10.9.9.9") is not None


def test_addresses_are_compared_as_texts_where_no_key_is_a_network() -> None:
    assert table(b"ip\n2001:db8::1\n", "ip").find("2001:0db8::1") is None


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)), min_size=1, max_size=20),
    st.integers(0, 2**32 - 1),
)
def test_networks_find_what_trying_every_network_finds(networks: list[tuple[int, int]], number: int) -> None:
    nets = [IPv4Network((number, length), strict=False) for number, length in networks]
    address = IPv4Address(number)
    made = table(b"net\n" + "\n".join(map(str, nets)).encode(), "net")
    expected = max((net for net in nets if address in net), key=lambda net: net.prefixlen, default=None)

    row = made.find(str(address))
    assert (row and row["net"]) == (expected and str(expected))


# --- what events get -----------------------------------------------------------------------------------------------


def enrichment(event: dict[str, Any], *selectors: str, data: bytes = CSV, log_type: str = "Some.Log") -> dict[str, Any]:
    return PackContext(None, [table(data, "host", *selectors)], log_type).enrichment(event)


ALICE = {"host": "i-1", "owner": "alice", "age": "3"}


def test_enrichment_has_a_row_under_table_and_selector_with_what_matched() -> None:
    assert enrichment({"instance": "i-1"}, "instance") == {"assets": {"instance": {**ALICE, "p_match": "i-1"}}}


def test_a_selector_is_called_what_it_is_without_its_root() -> None:
    event = {"client": {"host": "i-1"}}

    assert list(enrichment(event, "$.client.host")["assets"]) == ["client.host"]
    assert list(enrichment(event, "client.host")["assets"]) == ["client.host"]


def test_a_selector_with_several_values_has_the_rows_of_those_that_match() -> None:
    rows = [{**ALICE, "p_match": "i-1"}]

    assert enrichment({"hosts": ["i-0", "i-1", None, ["i-1"]]}, "hosts") == {"assets": {"hosts": rows}}
    assert enrichment({"hosts": [{"id": "i-1"}, {"id": "i-9"}]}, "$.hosts[*].id") == {"assets": {"hosts[*].id": rows}}
    assert enrichment({"hosts": ["i-9"]}, "hosts") == {}


def test_only_selectors_of_the_event_s_log_type_count() -> None:
    assert enrichment({"instance": "i-1"}, "instance", log_type="Other.Log") == {}


def test_selectors_that_find_nothing_are_left_out() -> None:
    assert list(enrichment({"a": "i-1", "b": "i-9", "c": 5}, "a", "b", "c", "d")["assets"]) == ["a"]


def test_selectors_may_name_indicators_that_are_added_to_the_event() -> None:
    class Derived:
        time_s = 0.0

        def base(self) -> dict[str, Any]:
            return {}

        def any(self) -> dict[str, Any]:
            return {"p_any_ip_addresses": ["10.1.2.3", "11.0.0.1", "10.9.9.9"]}

    context = PackContext(None, [table(NETWORKS, "net", "p_any_ip_addresses")], "Some.Log")
    event = PantherEvent({"x": 1}, Derived(), context)

    assert event.deep_walk("p_enrichment", "assets", "p_any_ip_addresses", "name") == ["printer", "all"]
    assert event.deep_walk("p_enrichment", "assets", "p_any_ip_addresses", "p_match") == ["10.1.2.3", "10.9.9.9"]


def test_an_event_s_enrichment_does_not_change_the_table() -> None:
    made = table(CSV, "host", "host")
    PantherEvent({"host": "i-1"}, None, PackContext(None, [made], "Some.Log")).to_dict()["p_enrichment"]["assets"][
        "host"
    ].clear()

    assert made.rows["i-1"] == ALICE


def test_lookup_finds_rows_of_the_tables_of_every_log_type() -> None:
    event: Any = PantherEvent({}, None, PackContext(None, [table(NETWORKS, "net"), LookupTable("empty")], "Other.Log"))

    assert event.lookup("assets", "10.1.2.3") == {"net": "10.1.2.3", "name": "printer"}
    unknown: list[tuple[Any, Any]] = [
        ("assets", "11.0.0.1"),
        ("assets", None),
        ("assets", ["10.1.2.3"]),
        ("assets", {}),
    ]
    for name, key in (*unknown, ("empty", "a"), ("absent", "a"), (None, "a"), ([], "a")):
        assert event.lookup(name, key) is None


def test_of_rows_of_one_network_the_last_counts_however_it_is_written() -> None:
    document = {
        "LookupName": "T", "Enabled": True, "Filename": "t.csv",
        "LogTypeMap": {"PrimaryKey": "net", "AssociatedLogTypes": [{"LogType": "L", "Selectors": ["ip"]}]},
    }  # fmt: skip
    data = b"net,who\n10.0.0.0/8,one\n10.1.2.3/8,two\n10.0.0.0/8,three\n"
    table = build_table(document, data, lambda *problem: pytest.fail(str(problem)))

    assert table is not None
    assert PackContext(None, [table], "L").lookup("T", "10.1.2.9") == {"net": "10.0.0.0/8", "who": "three"}
