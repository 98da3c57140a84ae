"""Records that are written as `key=value` pairs: logfmt, and the CEF and LEEF of security tools."""

from __future__ import annotations

import re
from typing import Any, Final

from mcpwatch.formats.cutjson import json_end

MAX_PAIRS: Final = 1_000
"""Most pairs of one line that are read."""
_MAX_CUT: Final = 4  # values of one line whose bracket never closes; each was looked for to the line's end

_KEY: Final = re.compile(r"([A-Za-z_@][^\s=\"'{}\[\],;|]{0,127})=")
_NEXT_KEY: Final = re.compile(r"(?<!\s)\s++(?=[A-Za-z_@][^\s=\"'{}\[\],;|]{0,127}=)")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*+)"?', re.DOTALL)
_WORD: Final = re.compile(r"\S*")
_ESCAPE: Final = re.compile(r"\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)", re.DOTALL)
_CONTROLS: Final = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def decoded(text: bytes) -> str:
    """A line as text; bytes that are no UTF-8 become visible."""
    return text.decode("utf-8", "backslashreplace")


def read_pairs(text: str, at: int = 0) -> dict[str, str] | None:
    r"""The `key=value` pairs of a text from a place to its end; None where it does not begin with one.

    A value in double quotes has the escapes of Go and JSON (`\n`, `\"`, `\u00e9`, `\x1b`). One that begins with a
    bracket is a whole JSON value, blanks and all. Words without `=` belong to the unquoted value before them, as in
    `error=access denied`; a comma before the next key is none of it. Of a key that stands twice the first counts:
    what a program writes comes before the text of others that it quotes at the end.
    """
    found: dict[str, str] = {}
    length = len(text)
    while at < length and text[at].isspace():
        at += 1
    key = _KEY.match(text, at)
    pairs = cut = 0
    while key is not None and pairs < MAX_PAIRS:
        pairs += 1
        begin, end = key.end(), None
        if text[begin : begin + 1] in ("{", "[") and cut < _MAX_CUT:
            end = json_end(text, begin)
            cut += end is None
        value, at = _value(text, begin, end)
        found.setdefault(key[1], value)
        ahead = _NEXT_KEY.search(text, at)
        key = _KEY.match(text, ahead.end()) if ahead is not None else None
    return found or None


def _value(text: str, at: int, end: int | None) -> tuple[str, int]:
    """The value that begins at a place, and where it ends.

    Args:
        end: Where it ends if it is a JSON value; None if it is none, or was cut off.
    """
    first = text[at : at + 1]
    if first == '"':
        quoted = _QUOTED.match(text, at)
        assert quoted is not None  # it begins with a quote
        return unescaped(quoted[1]), quoted.end()
    if end is not None:
        behind = _WORD.match(text, end)  # [2001:db8::1]:443
        end = behind.end() if behind is not None else end
        return text[at:end], end
    if text[at : at + 2] in ('{"', '["', "[{"):
        return text[at:], len(text)
    ahead = _NEXT_KEY.search(text, at)
    if ahead is None:
        return text[at:].rstrip(), len(text)
    return text[at : ahead.start()].removesuffix(","), ahead.start()


def unescaped(text: str) -> str:
    """The text of a quoted value."""
    if "\\" not in text:
        return text
    return _ESCAPE.sub(_meant, text)


def _meant(escape: re.Match[str]) -> str:
    sign = escape[1]
    if len(sign) == 1:
        return _CONTROLS.get(sign, sign)
    code = int(sign[1:], 16)
    return chr(code) if code < 0x110000 else escape[0]


def logfmt(text: bytes) -> list[dict[str, Any]] | None:
    """One record of a line of pairs, as Go's slog and logfmt write them; a line with one pair alone is none."""
    found = read_pairs(decoded(text))
    return [dict(found)] if found is not None and len(found) > 1 else None


# CEF (ArcSight Common Event Format): header fields escape | and \, extension values escape = and \ and line ends
_CEF: Final = re.compile(
    r"CEF:\s?\d{1,3}\|" + r"\|".join(rf"(?P<{name}>(?:[^|\\]|\\.)*+)" for name in (
        "vendor", "product", "version", "event", "name", "severity"
    )) + r"(?:\|(?P<extension>.*))?",
    re.DOTALL,
)  # fmt: skip
_CEF_KEY: Final = re.compile(r"(?:^|(?<!\s)\s++)([A-Za-z0-9_][A-Za-z0-9_.\[\]-]{0,127})=")
_CEF_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_LABELLED: Final = "Label"


def cef(text: bytes) -> list[dict[str, Any]] | None:
    """One record of a CEF line: vendor, product, version, event, name, severity, and the extension's keys.

    Of pairs such as `cs1=… cs1Label=CorrelationID` the value stands under both names. No key of the extension takes
    the place of a header field.
    """
    found = _CEF.fullmatch(decoded(text))
    if found is None:
        return None
    record: dict[str, Any] = {
        name: _CEF_ESCAPE.sub(_meant, value) for name, value in found.groupdict().items()
        if name != "extension"
    }  # fmt: skip
    extension = _cef_extension(found["extension"] or "")
    for name, value in extension.items():
        record.setdefault(name, value)
    for name, label in extension.items():
        named = extension.get(name.removesuffix(_LABELLED)) if name.endswith(_LABELLED) else None
        if named is not None and label:
            record.setdefault(label, named)
    return [record]


def _cef_extension(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    keys = list(_CEF_KEY.finditer(text))
    ends = [*(key.start() for key in keys[1:]), len(text)]
    for key, end in zip(keys, ends, strict=False):  # there is an end also where there is no key
        found.setdefault(key[1], _CEF_ESCAPE.sub(_meant, text[key.end() : end].strip()))
    return found


# LEEF (Log Event Extended Format of QRadar): 2.0 may name the delimiter, as itself or in hex, else it is the tab
_LEEF: Final = re.compile(
    r"LEEF:\s?(?P<leef>[12])(?:\.\d)?\|(?P<vendor>[^|]*)\|(?P<product>[^|]*)\|(?P<version>[^|]*)\|(?P<event>[^|]*)"
    r"\|(?P<rest>.*)",
    re.DOTALL,
)
_LEEF_DELIMITER: Final = re.compile(
    r"(?:(?:0?x|\\x)(?P<hex>[0-9A-Fa-f]{1,4})|(?P<char>[^\w=|]))?\|", re.DOTALL
)


def leef(text: bytes) -> list[dict[str, Any]] | None:
    """One record of a LEEF line: vendor, product, version, event, and its attributes, none of which hides those."""
    found = _LEEF.fullmatch(decoded(text))
    if found is None:
        return None
    record: dict[str, Any] = {name: found[name] for name in ("vendor", "product", "version", "event")}
    attributes, delimiter = found["rest"], "\t"
    named = _LEEF_DELIMITER.match(attributes) if found["leef"] == "2" else None
    if named is not None:
        attributes = attributes[named.end() :]
        delimiter = chr(int(named["hex"], 16)) if named["hex"] else named["char"] or delimiter
    for attribute in attributes.split(delimiter):
        name, equals, value = attribute.partition("=")
        if equals and name.strip():
            record.setdefault(name.strip(), value.strip())
    return [record]
