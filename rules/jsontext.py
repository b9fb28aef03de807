"""Turning the bytes of one record into a value: which parser decides, and what counts as JSON."""

from __future__ import annotations

import json
import re

import orjson

_BOM = b"\xef\xbb\xbf"

# orjson makes a float of an integer that fits neither int64 nor uint64: with 20 digits or more, or 19 and a minus.
# Looking for a run of digits with `re` takes 8 ns a byte, four times as long as parsing; mapping every digit to "0" and
# searching for 19 of them takes 1 ns.
_DIGITS_TO_ZERO = bytes(ord("0") if chr(byte) in "0123456789" else ord(" ") for byte in range(256))
_NINETEEN_DIGITS = b"0" * 19
# Outside a string a number follows the start of the text, a bracket, a comma, a colon or white space. Inside one it
# mostly does not: many logs have ids of 21 digits in quotes, or names that end in a time; they need no second parse.
_LONG_INTEGER = re.compile(rb"(?<![^\[,:\s])(?:-[0-9]{19}|[0-9]{20})")


def parse(raw: bytes) -> object:
    """The value that `raw`, one JSON text in UTF-8 with or without a byte order mark, stands for.

    orjson decides; where it refuses, or would round a long integer, the standard json does. So `NaN`, `Infinity` and
    lone surrogates are accepted (the standard json takes them), and integers are exact up to 4300 digits.
    Raises ValueError, with a short reason, only for what both refuse.
    """
    value = parse_rounding(raw)
    return _standard(raw.removeprefix(_BOM)) if has_long_integer(raw) else value


def parse_rounding(raw: bytes) -> object:
    """parse(), but for integers beyond 64 bits, which come out as the nearest float. Nothing else differs."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        if not raw.startswith(_BOM):
            return _standard(raw)
    return parse_rounding(raw.removeprefix(_BOM))


def has_long_integer(raw: bytes) -> bool:
    """Whether parse_rounding() may have rounded. Costs half of a parse: ask only where it matters."""
    digits = raw.translate(_DIGITS_TO_ZERO)
    run = digits.find(_NINETEEN_DIGITS)
    while run >= 0:
        start = run - 1 if raw[run - 1 : run] == b"-" else run
        if _LONG_INTEGER.match(raw, start):
            return True
        run = digits.find(_NINETEEN_DIGITS, run + len(_NINETEEN_DIGITS))
    return False


def _standard(raw: bytes) -> object:
    # json.loads(bytes) would also take UTF-16 and UTF-32, which no reader of lines can cut: decode here.
    try:
        return json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}") from None
    except ValueError:  # from int(), about its limit
        raise ValueError("not usable JSON: an integer of more than 4300 digits") from None
    except RecursionError:
        raise ValueError("not usable JSON: nested too deeply") from None
