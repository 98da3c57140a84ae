"""Writes values as YAML that every reader takes for the same text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from mcpwatch.policy.model import PolicyError
from mcpwatch.text import safe

LONGEST_KEY: Final = 1_000
"""Characters of a mapping key as written; YAML's own limit is 1,024."""


def quoted(text: str) -> str:
    """Write text as a double-quoted YAML scalar on one line, with everything unprintable escaped.

    Raises:
        PolicyError: It holds a lone surrogate, which no UTF-8 file can.
    """
    out = []
    for char in text:
        code = ord(char)
        if 0xD800 <= code < 0xE000:
            raise PolicyError(
                f"'{safe(text, 80)}' can't be written: it holds half a character (a lone surrogate)"
            )
        if char in '"\\':
            out.append("\\" + char)
        elif char.isprintable():
            out.append(char)
        else:
            out.append(
                f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
            )
    return '"' + "".join(out) + '"'


def flow(pairs: Iterable[tuple[str, str | None]]) -> str:
    """Write a mapping between braces, without the pairs that have no value."""
    return "{" + ", ".join(f"{name}: {quoted(value)}" for name, value in pairs if value) + "}"


def scalar(name: str) -> str:
    """Write text as a key: plain where every YAML reader takes it for text, else quoted."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) and not re.fullmatch(
        r"(?i)y|n|yes|no|on|off|true|false|null", name
    )
    return name if plain else quoted(name)
