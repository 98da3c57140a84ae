"""Reads JSON as logs really hold it, with nothing changed in silence and nothing refused that can be read."""

from __future__ import annotations

import codecs
import json
import math
import re
from typing import Any, Final

import orjson

_MAX_DIGITS: Final = 400  # past them Python refuses some conversions, and nobody counts that far
_MAX_QUICK_DEPTH: Final = 200
_DIGITS: Final = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_NINETEEN: Final = b"0" * 19  # what is beyond 64 bits has at least that many digits
# an escape of JSON, which stays, or one of nginx
_ESCAPE: Final = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|.)", re.DOTALL)


def _escape_bad_utf8(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    # two backslashes: inside a JSON string they decode to the visible text \xff
    return "".join(f"\\\\x{byte:02x}" for byte in error.object[error.start : error.end]), error.end


codecs.register_error("mcpwatch.visible", _escape_bad_utf8)


def visible(text: bytes) -> tuple[str, bool]:
    """JSON as text, with bytes that are no UTF-8 (overlong too) as visible `\\xNN`, and whether there are any."""
    try:
        return text.decode(), False
    except UnicodeDecodeError:
        return text.decode("utf-8", "mcpwatch.visible"), True


def parse_json(text: bytes) -> tuple[Any, bool]:
    r"""A JSON value, and whether bytes of it were no UTF-8.

    By the fast parser, else by the standard one, which takes NaN, numbers of any size, lone surrogates and raw
    control characters. A whole number of more than 400 digits is given as text. `\x22`, which nginx writes where a
    `log_format` does not say `escape=json`, is the character that it stands for: else a quotation mark in a header
    would keep a request from being read.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is nested too deep.
    """
    try:
        value = orjson.loads(text)
    except (ValueError, RecursionError):
        pass
    else:
        # the fast one would silently turn a whole number beyond 64 bits into a float
        if _NINETEEN not in text.translate(_DIGITS) or not _has_huge_float(value):
            return value, False
    decoded, bad = visible(text)
    return json.loads(repaired(decoded), strict=False, parse_int=_whole_number), bad


def repaired(text: str) -> str:
    r"""JSON with its escapes `\xNN`, which only nginx writes, as escapes of JSON."""
    if "\\x" not in text:
        return text
    return _ESCAPE.sub(lambda found: f"\\u00{found[1]}" if found[1] else found[0], text)


def _has_huge_float(value: Any, depth: int = 0) -> bool:
    if isinstance(value, float):
        return abs(value) >= 2**63 or not math.isfinite(value)
    if depth > _MAX_QUICK_DEPTH:
        return True  # nobody looked: the other parser will do
    if isinstance(value, dict):
        return any(_has_huge_float(item, depth + 1) for item in value.values())
    if isinstance(value, list):
        return any(_has_huge_float(item, depth + 1) for item in value)
    return False


def _whole_number(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_DIGITS else digits
