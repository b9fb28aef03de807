"""Conditions: what a simple detection or an inline filter can ask of one value (PANTHER_FORMAT 1.4).

Each is a pure function of values and never raises, whatever an event holds. What it says of values is here; how values are
found and expressions combined is simple.py's.

    group       conditions                                        hold for
    presence    Exists, DoesNotExist                              any value, null too / no value at all
                IsNull, IsNotNull                                 null or no value / any other
                IsNullOrEmpty, IsNotNullOrEmpty                   the same, and "", [] and {} (0 and false are not empty)
    address     IsIPAddress, IsIPv4Address, IsIPv6Address         a text that is such an address
                IsIPAddressPublic, IsIPAddressPrivate             a globally reachable / a private one (some are neither)
    comparison  Equals, IEquals                                   an equal value; texts that are equal but for case
                StartsWith, EndsWith, Contains and I*             texts; Contains also a list with an equal element
                Has                                               a list with an equal element
                IsGreaterThan, IsLessThan, with OrEqual,          two numbers or two texts
                OrEquals or OrEqualTo after it
                IsIn                                              a value equal to one of Values
                IsIPAddressInCIDR                                 an address of the network
    inverse     DoesNot* of Equals, StartsWith, EndsWith,         whatever the comparison does not hold for: null, no
                Contains and Has, with I before it where the      value and other types too
                comparison has one; IsNotIn

Types are JSON's: true is not 1, "5" is neither 5 nor more than 3, 1 is 1.0. A comparison with null, with no value or with a
type that it is not made for does not hold. IPv4 addresses written as IPv6 (::ffff:10.0.0.1) are the IPv4 addresses they mean.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, NamedTuple

from rules.event import ImmutableDict, ImmutableList

ABSENT: Any = object()
"""What stands for a value that an event does not have. Compare by identity."""

UNFIT: Any = object()
"""What becomes of an operand that a condition cannot compare with."""

Predicate = Callable[[Any], bool]


class Comparison(NamedTuple):
    """A condition with an operand. `prepare` makes one ready, once where it is a constant; UNFIT where it is of no use."""

    operand: str
    """What it compares with, for messages."""
    prepare: Callable[[Any], Any]
    holds: Callable[[Any, Any], bool]
    inverse: bool = False
    of_many: bool = False
    """It takes Values, a list, instead of Value."""


# --- operands ----------------------------------------------------------------------------------------------------


def is_scalar(value: Any) -> bool:
    """Whether a value is one that a pack can write down as a constant."""
    return isinstance(value, str | int | float)


def _scalar(value: Any) -> Any:
    return value if is_scalar(value) else UNFIT


def _anything(value: Any) -> Any:
    return UNFIT if value is None else value


def _ordered(value: Any) -> Any:
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else UNFIT


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else UNFIT


def _folded(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else UNFIT


class _Members(NamedTuple):
    """Values, taken apart: most are texts, which a set answers at once."""

    texts: frozenset[str]
    others: tuple[Any, ...]


def _members(values: Any) -> Any:
    if not isinstance(values, list) or UNFIT in map(_scalar, values):
        return UNFIT
    texts = frozenset(value for value in values if isinstance(value, str))
    return _Members(texts, tuple(value for value in values if not isinstance(value, str)))


@lru_cache(4096)
def _network_of(text: str) -> Any:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return UNFIT


def _network(value: Any) -> Any:
    return _network_of(value) if isinstance(value, str) else UNFIT


# --- comparisons -------------------------------------------------------------------------------------------------


def _equals(value: Any, operand: Any) -> bool:
    try:
        return (value == operand) is True and isinstance(value, bool) is isinstance(operand, bool)
    except RecursionError:  # nested too deep to be told apart
        return False


def _iequals(value: Any, operand: str) -> bool:
    return isinstance(value, str) and value.casefold() == operand


def _starts(value: Any, operand: str) -> bool:
    return isinstance(value, str) and value.startswith(operand)


def _istarts(value: Any, operand: str) -> bool:
    return isinstance(value, str) and value.casefold().startswith(operand)


def _ends(value: Any, operand: str) -> bool:
    return isinstance(value, str) and value.endswith(operand)


def _iends(value: Any, operand: str) -> bool:
    return isinstance(value, str) and value.casefold().endswith(operand)


def _has(value: Any, operand: Any) -> bool:
    return isinstance(value, ImmutableList) and any(_equals(element, operand) for element in value)


def _contains(value: Any, operand: Any) -> bool:
    if isinstance(value, str):
        return isinstance(operand, str) and operand in value
    return _has(value, operand)


def _icontains(value: Any, operand: str) -> bool:
    if isinstance(value, str):
        return operand in value.casefold()
    return isinstance(value, ImmutableList) and any(_iequals(element, operand) for element in value)


def _order(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], bool]:
    def holds(value: Any, operand: Any) -> bool:
        if _ordered(value) is UNFIT or isinstance(value, str) is not isinstance(operand, str):
            return False
        return bool(compare(value, operand))

    return holds


def _is_in(value: Any, operand: _Members) -> bool:
    if isinstance(value, str):
        return value in operand.texts
    return any(_equals(value, other) for other in operand.others)


def _in_network(value: Any, operand: IPv4Network | IPv6Network) -> bool:
    address = _address(value)
    return address is not None and address in operand


# --- addresses ---------------------------------------------------------------------------------------------------


@lru_cache(4096)
def _address_of(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _address(value: Any) -> IPv4Address | IPv6Address | None:
    return _address_of(value) if isinstance(value, str) else None


def _is_ipv4(value: Any) -> bool:
    return isinstance(_address(value), IPv4Address) and ":" not in value


def _is_ipv6(value: Any) -> bool:
    return _address(value) is not None and ":" in value


def _is_public(value: Any) -> bool:
    address = _address(value)
    return address is not None and address.is_global


def _is_private(value: Any) -> bool:
    address = _address(value)
    return address is not None and address.is_private


# --- presence ----------------------------------------------------------------------------------------------------


def _is_null(value: Any) -> bool:
    return value is None or value is ABSENT


def _is_null_or_empty(value: Any) -> bool:
    return _is_null(value) or (isinstance(value, str | ImmutableList | ImmutableDict) and len(value) == 0)


PRESENCE: dict[str, Predicate] = {
    "Exists": lambda value: value is not ABSENT,
    "DoesNotExist": lambda value: value is ABSENT,
    "IsNull": _is_null,
    "IsNotNull": lambda value: not _is_null(value),
    "IsNullOrEmpty": _is_null_or_empty,
    "IsNotNullOrEmpty": lambda value: not _is_null_or_empty(value),
}
"""Conditions that ask whether there is a value. They are given ABSENT where there is none."""

ADDRESS: dict[str, Predicate] = {
    "IsIPAddress": lambda value: _address(value) is not None,
    "IsIPv4Address": _is_ipv4,
    "IsIPv6Address": _is_ipv6,
    "IsIPAddressPublic": _is_public,
    "IsIPAddressPrivate": _is_private,
}
"""Conditions on what a value is, without an operand."""

_EQUAL_ENDINGS = ("OrEqual", "OrEquals", "OrEqualTo")
"""All three are written: in Panther's pages, in its tests and in its public pack."""


_INVERSES = {
    "Equals": "DoesNotEqual",
    "IEquals": "IDoesNotEqual",
    "StartsWith": "DoesNotStartWith",
    "IStartsWith": "IDoesNotStartWith",
    "EndsWith": "DoesNotEndWith",
    "IEndsWith": "IDoesNotEndWith",
    "Contains": "DoesNotContain",
    "IContains": "IDoesNotContain",
    "Has": "DoesNotHave",
    "IsIn": "IsNotIn",
}


def _comparisons() -> dict[str, Comparison]:
    text, scalar = "a text", "a text, a number, true or false"
    made = {
        "Equals": Comparison(scalar, _anything, _equals),
        "IEquals": Comparison(text, _folded, _iequals),
        "StartsWith": Comparison(text, _text, _starts),
        "IStartsWith": Comparison(text, _folded, _istarts),
        "EndsWith": Comparison(text, _text, _ends),
        "IEndsWith": Comparison(text, _folded, _iends),
        "Contains": Comparison(scalar, _scalar, _contains),
        "IContains": Comparison(text, _folded, _icontains),
        "Has": Comparison(scalar, _scalar, _has),
        "IsIn": Comparison("a list of texts, numbers, true or false", _members, _is_in, of_many=True),
        "IsIPAddressInCIDR": Comparison("a network such as 10.0.0.0/8", _network, _in_network),
    }
    for name, inverse in _INVERSES.items():
        made[inverse] = made[name]._replace(inverse=True)
    for name, compare, or_equal in (
        ("IsGreaterThan", operator.gt, operator.ge),
        ("IsLessThan", operator.lt, operator.le),
    ):
        made[name] = Comparison("a number or a text", _ordered, _order(compare))
        for ending in _EQUAL_ENDINGS:
            made[name + ending] = Comparison("a number or a text", _ordered, _order(or_equal))
    return made


COMPARISONS = _comparisons()
