"""Where the comments of a YAML file are: the parser drops them, and a person's reasons stand in them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mcpwatch.documents.tree import Document, Node

_MARK = re.compile(r"(?:^|(?<=[ \t]))#")
_SAYS_SOMETHING = re.compile(r"[^\W_]{2}")


def comments(document: Document) -> dict[int, bool]:
    """Lines with a comment that says something, each with whether it has nothing but the comment."""
    inside = _scalars(document.root)
    ranges = sorted((node.start, node.end) for node in inside)
    found: dict[int, bool] = {}
    index, current = 0, 0
    for number, line in enumerate(document.text.splitlines(keepends=True), 1):
        for mark in _MARK.finditer(line):
            place = index + mark.start()
            while current < len(ranges) and ranges[current][1] <= place:
                current += 1
            if current < len(ranges) and ranges[current][0] <= place:
                continue  # a sign in a quoted text
            if _SAYS_SOMETHING.search(line, mark.end()):
                found[number] = not line[: mark.start()].strip()
            break
        index += len(line)
    return found


def _scalars(node: Node) -> Iterator[Node]:
    waiting = [node]
    while waiting:
        node = waiting.pop()
        # what an alias stands for is somewhere else
        if node.kind == "text" or node.odd == "an alias":
            yield node
            continue
        waiting.extend(node.items)
        waiting.extend(each for pair in node.pairs for each in pair)
