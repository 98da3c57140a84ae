"""Text that is put in or cut out at places that the parser's marks give, so that every other byte stays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mcpwatch.documents.tree import Document, Node
from mcpwatch.policy.model import PolicyError
from mcpwatch.text import safe


@dataclass(frozen=True, slots=True)
class Splice:
    """Replace what stands from `start` to `end`, in characters, by `text`."""

    start: int
    end: int
    text: str


BREAKS: Final = "\n\r\x85\u2028\u2029"


def line_start(text: str, index: int) -> int:
    """Index of the start of the line that an index is on."""
    while index and text[index - 1] not in BREAKS:
        index -= 1
    return index


def next_line(text: str, index: int) -> int:
    """Index of the start of the line after the one that an index is on."""
    while index < len(text) and text[index] not in BREAKS:
        index += 1
    return index + (2 if text.startswith("\r\n", index) else 1 if index < len(text) else 0)


def _content_end(node: Node) -> Node:
    """The last single value or `{…}` in a node: its end is exact, that of a block is not."""
    while not node.flow and (node.items or node.pairs):
        node = node.items[-1] if node.items else node.pairs[-1][1]
    return node


def line_behind(text: str, node: Node) -> int:
    """Index of the start of the first line behind a node."""
    last = _content_end(node)
    # the end of a `|` block is already the start of the next line
    return last.end if last.block else next_line(text, last.end)


def newline_of(document: Document) -> str:
    """How the lines of the file end."""
    found = re.search(r"\r\n|\n|\r", document.text)
    return found.group() if found else "\n"


def new_line(document: Document, index: int, line: str) -> Splice:
    """Insert a line at the start of a line, or at the end of a text that may lack its last newline."""
    newline = newline_of(document)
    if index and document.text[index - 1] not in BREAKS:
        return Splice(index, index, newline + line)
    return Splice(index, index, line + newline)


def cut_lines(text: str, ranges: Sequence[tuple[int, int]]) -> list[Splice]:
    """Cut whole lines out, given by start and end."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and merged[-1][1] >= start:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    if merged and merged[-1][1] == len(text) and text[-1:] not in BREAKS:
        # the last line has no newline: what goes with it is the newline before
        start = merged[-1][0]
        start -= 2 if text.endswith("\r\n", 0, start) else 1 if start else 0
        merged[-1] = (start, len(text))
    return [Splice(start, end, "") for start, end in merged]


def refuse(document: Document, node: Node, why: str) -> PolicyError:
    """The error for a place that can only be edited by hand."""
    return PolicyError(safe(f"{document.name}:{node.line}: not changed: {why}; edit the file by hand"))


def editable(document: Document, node: Node) -> Node:
    """The node itself, if it can be edited without touching another. Raises PolicyError."""
    if node.odd:
        raise refuse(document, node, f"the value here is {node.odd}")
    return node


def indent_of(document: Document, node: Node) -> str:
    """The blanks before a node that starts its line. Raises PolicyError where it does not."""
    start = line_start(document.text, node.start)
    before = document.text[start : node.start]
    if before.strip(" "):
        raise refuse(document, node, "the entry does not start its line")
    return before


def behind_colon(text: str, key: Node, value: str) -> Splice:
    """Put a value behind the colon of a key that has none."""
    # where nothing stands, the two parsers of PyYAML disagree on the place
    place = text.find(":", key.end) + 1
    return Splice(place, place, f" {value}")


def spliced(document: Document, data: bytes, splices: Sequence[Splice]) -> bytes:
    """Put the splices into the bytes: marks count characters, so what lies between is encoded to be measured."""
    text, out, index, place = document.text, [document.bom], 0, len(document.bom)
    for splice in sorted(splices, key=lambda splice: (splice.start, splice.end)):
        kept = place + len(text[index : splice.start].encode())
        out += [data[place:kept], splice.text.encode()]
        place = kept + len(text[splice.start : splice.end].encode())
        index = splice.end
    out.append(data[place:])
    return b"".join(out)
