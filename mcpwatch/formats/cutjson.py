"""JSON in a text: where it ends, and what can be read of one that was cut off."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from mcpwatch.formats.lenient import parse_json

MAX_DEPTH: Final = 100
"""Levels of a cut text that are read: what stands deeper is left out."""

# a string is passed over as one piece, an unfinished one to the end; each character is read once
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[{}\[\],:]', re.DOTALL)
_CLOSER: Final = {"{": "}", "[": "]"}
_TRIES: Final = 8


def json_end(text: str, start: int) -> int | None:
    """Where the JSON object or array that begins at `start` ends (behind its bracket); None: it is cut off."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        sign = token.group()
        if sign in ("{", "["):
            depth += 1
        elif sign in ("}", "]"):
            depth -= 1
            if depth <= 0:
                return token.end()
    return None


def parse_cut_json(text: str) -> Any:
    """The value of a JSON object or array, or what stands complete of one that was cut off or damaged on the way.

    Members and items before the damage are kept; one that is only begun is not, but for the objects and arrays
    around the place. None where nothing can be read.
    """
    whole = text.encode("utf-8", "surrogatepass")
    try:
        return parse_json(whole)[0]
    except (ValueError, RecursionError):
        pass
    places = _places_to_close(text)
    limit = len(text)
    for _ in range(_TRIES):
        while places and places[-1][0] > limit:
            places.pop()
        if not places:
            return None
        end, closers = places[-1]
        try:
            return json.loads(text[:end] + closers, strict=False)
        except json.JSONDecodeError as error:
            limit = min(error.pos, end - 1)
        except (ValueError, RecursionError):
            return None
    return None


def _places_to_close(text: str) -> list[tuple[int, str]]:
    """Where a text can be ended so that it holds whole members only, each with the brackets that end it there."""
    places: list[tuple[int, str]] = []
    closers = ""
    is_value = False  # whether a string here is a value: behind a colon, or an item
    for token in _TOKEN.finditer(text):
        sign = token.group()
        if sign in _CLOSER:
            if len(closers) == MAX_DEPTH:
                break
            closers = _CLOSER[sign] + closers
            places.append((token.end(), closers))
            is_value = sign == "["
        elif sign in ("}", "]"):
            if closers[:1] != sign:
                break
            closers = closers[1:]
            places.append((token.end(), closers))
            is_value = False
        elif sign == ",":
            places.append((token.start(), closers))
            is_value = closers[:1] == "]"
        elif sign == ":":
            is_value = True
        elif is_value and len(sign) > 1 and sign[-1] == '"':
            places.append((token.end(), closers))
            is_value = False
        if not closers:
            break
    return places
