"""Adds entries to a section of the file and removes them, in whichever of YAML's shapes it is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from mcpwatch.documents.tree import Document, Node
from mcpwatch.policy.edit.splice import (
    BREAKS,
    Splice,
    behind_colon,
    cut_lines,
    editable,
    indent_of,
    line_behind,
    line_start,
    new_line,
    newline_of,
    next_line,
    refuse,
)

ADDED: Final = "  # added by mcpwatch"
"""Stands behind a section or a tool that was not in the file before, so that undoing removes it again."""


def append(
    document: Document, name: str, entries: Sequence[str], bullet: str, note: str = ""
) -> list[Splice]:
    """Add entries to a section, which may be missing, empty, a block, or in brackets.

    Args:
        entries: The entries as they stand between brackets.
        bullet: What stands before each on a line of its own: `- ` in a list.
        note: A comment behind an entry that has its own line.
    """
    entry = ", ".join(entries)

    def lines(indent: str) -> str:
        return newline_of(document).join(f"{indent}{bullet}{one}{note}" for one in entries)

    root = editable(document, document.root)
    text = document.text
    left, right = "[]" if bullet else "{}"
    found = root.pair(name)
    if found is None:
        if root.flow:
            comma = ", " if root.pairs else ""
            place = root.pairs[-1][1].end if root.pairs else root.start + 1
            return [Splice(place, place, f"{comma}{name}: {left}{entry}{right}")]
        indent = indent_of(document, root)
        first = new_line(document, document.end, f"{indent}{name}:{ADDED}")
        second = new_line(document, document.end, lines(f"{indent}  "))
        return [replace(first, text=first.text + second.text)]
    key, section = found
    editable(document, section)
    if section.null:
        if section.end > section.start:
            return [Splice(section.start, section.end, f"{left}{entry}{right}")]
        if root.flow:
            return [behind_colon(text, key, f"{left}{entry}{right}")]
        added = lines(f"{indent_of(document, key)}  ")
        return [new_line(document, next_line(text, key.end), added)]
    children = section.items or [value for _, value in section.pairs]
    if section.flow:
        place = children[-1].end if children else section.start + 1
        return [Splice(place, place, f"{', ' if children else ''}{entry}")]
    return [new_line(document, line_behind(text, section), lines(indent_of(document, section)))]


def remove(document: Document, name: str, unwanted: Sequence[int]) -> list[Splice]:
    """Remove entries of a list by their numbers; a section that mcpwatch added goes with its last entry."""
    found = editable(document, document.root).pair(name)
    if found is None or not unwanted:
        return []
    key, section = found
    editable(document, section)
    entries = section.items
    for number in unwanted:
        editable(document, entries[number])
    if section.flow:
        return _remove_from_brackets(document.text, section, frozenset(unwanted))
    ranges = [_entry_lines(document, entries[number]) for number in unwanted]
    key_line = (line_start(document.text, key.start), next_line(document.text, key.end))
    if len(unwanted) == len(entries) and ranges[0][0] == key_line[1]:
        written = document.text[key_line[0] : key_line[1]].rstrip(BREAKS)
        if written == f"{indent_of(document, key)}{name}:{ADDED}":
            ranges.append(key_line)
    return cut_lines(document.text, ranges)


def _entry_lines(document: Document, node: Node) -> tuple[int, int]:
    start = line_start(document.text, node.start)
    if re.fullmatch(r" *- +", document.text[start : node.start]) is None:
        raise refuse(document, node, "the entry does not start on the line of its '-'")
    return start, line_behind(document.text, node)


_TO_COMMA: Final = re.compile(r"(?:\s|#[^\n\r\x85\u2028\u2029]*)*,")


def _remove_from_brackets(text: str, section: Node, unwanted: frozenset[int]) -> list[Splice]:
    splices: list[Splice] = []
    kept = [item for number, item in enumerate(section.items) if number not in unwanted]
    for number in sorted(unwanted):
        item = section.items[number]
        before = section.items[number - 1].end if number else None
        taken = splices[-1].end if splices else 0
        if (
            before is not None
            and taken <= before  # else the comma in between went with the entry before
            and kept
            and kept[0].start < item.start
            and "#" not in text[before : item.start]
        ):
            splices.append(Splice(before, item.end, ""))
            continue
        splices.append(Splice(item.start, item.end, ""))
        comma = _TO_COMMA.match(text, item.end)
        if comma is not None:
            end = comma.end()
            # the blank behind the comma as well, so that the next entry stands where this one stood
            end += len(text[end:]) - len(text[end:].lstrip(" ")) if comma.end() - item.end == 1 else 0
            splices.append(Splice(comma.end() - 1, end, ""))
    return splices
