"""A YAML file as a tree of nodes that know their places, built under caps.

The tree is built from parser events, never from constructed values: an id is the text that stands in the file
(`0007` stays `0007`, `yes` stays `yes`), every node knows its line, and a document made to exhaust memory is
refused while it is being read.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import yaml
from msgspec import Struct
from msgspec.structs import replace

from mcpwatch.errors import Unusable
from mcpwatch.text import safe

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 64
MAX_ALIASES: Final = 100
MAX_NODES: Final = 50_000
"""Nodes of the tree, with what an alias stands for counted each time: ten thousand keys fit."""


_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq")
)


class Node(Struct, frozen=True, eq=False, gc=False):
    """One value of the file, and where it stands.

    Attributes:
        line: Line of its start, from 1.
        start: Index of its first character in `Document.text`; of the alias where it is one.
        end: Index behind its last character; exact for single values and for `{…}` and `[…]` only.
        text: A single value's text, as the quotes and escapes mean it.
        plain: Written without quotes, so that `~` is nothing and `yes` is true.
        block: Written as a `|` or `>` block, whose end is the start of a line.
        flow: Written as `{…}` or `[…]`.
        odd: What else is special about it: "an alias", "anchored" or "tagged"; empty for nearly all.
        size: How many nodes it stands for, itself included.
    """

    kind: Literal["text", "list", "map"]
    line: int
    start: int
    end: int
    text: str = ""
    plain: bool = False
    block: bool = False
    flow: bool = False
    odd: str = ""
    items: tuple[Node, ...] = ()
    pairs: tuple[tuple[Node, Node], ...] = ()
    size: int = 1

    @property
    def null(self) -> bool:
        """Whether nothing stands there: no text, `~` or `null`."""
        return self.kind == "text" and self.plain and self.text in _NULLS

    def pair(self, key: str) -> tuple[Node, Node] | None:
        """The key and the value of one entry."""
        return next((pair for pair in self.pairs if pair[0].text == key), None)

    def get(self, key: str) -> Node | None:
        """The value of one entry."""
        found = self.pair(key)
        return None if found is None else found[1]


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """The file as text without its byte order mark, and its tree.

    Attributes:
        bom: The byte order mark that stood before the text, or nothing.
        end: Index where more could be added: of the document's end mark `...`, else of the end of the text.
    """

    name: str
    text: str
    bom: bytes
    root: Node
    end: int


class DocumentError(Unusable):
    """A file can't be used. The message says which file and line, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """What kind of file is read: what it is called, the line that it starts with, and the error for a bad one."""

    what: str
    first: str
    error: type[DocumentError]


class NodeError(Exception):
    """A node is not as it should be; whoever knows the file turns it into an error with file and line (`located`)."""

    def __init__(self, where: Node | int, message: str) -> None:
        super().__init__(message)
        self.line = where if isinstance(where, int) else where.line
        self.message = message


class _TreeBuilder:
    """Makes the tree from parser events, which come one at a time, so that a cap stops the reading."""

    def __init__(self, text: str) -> None:
        # YAML ends lines at U+0085 and U+2028 too, and counts one more at the end: an editor does neither
        self._newlines = [found.start() for found in re.finditer("\n", text)]
        self.root: Node | None = None
        self.end: int | None = None
        self._open: list[tuple[Any, list[Node]]] = []
        self._anchors: dict[str, Node] = {}
        self._documents = self._aliases = self._nodes = 0

    def take(self, event: Any) -> None:
        """Take the next event; raises `NodeError` where a cap is exceeded."""
        kind = event.__class__
        if kind is yaml.ScalarEvent:
            self._add(event, _text_node(event, self._line(event)))
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            if len(self._open) >= MAX_DEPTH:
                raise NodeError(self._line(event), f"nested more than {MAX_DEPTH} levels deep")
            self._open.append((event, []))
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._close(event)
        elif kind is yaml.AliasEvent:
            self._alias(event, self._line(event))
        elif kind is yaml.DocumentStartEvent:
            self._documents += 1
            if self._documents > 1:
                raise NodeError(
                    self._line(event), "a second document starts here: the file must be one document"
                )
        elif kind is yaml.DocumentEndEvent and event.explicit:
            self.end = event.start_mark.index

    def _line(self, event: Any) -> int:
        return bisect_left(self._newlines, event.start_mark.index) + 1

    def _alias(self, event: Any, line: int) -> None:
        self._aliases += 1
        target = self._anchors.get(event.anchor)
        if self._aliases > MAX_ALIASES:
            raise NodeError(line, f"more than {MAX_ALIASES} aliases")
        if target is None:
            raise NodeError(line, f"alias {quote(event.anchor)} stands for nothing, or for itself")
        start, end = event.start_mark.index, event.end_mark.index
        self._add(None, replace(target, line=line, start=start, end=end, odd="an alias"))

    def _add(self, event: Any, node: Node) -> None:
        self._nodes += node.size
        if self._nodes > MAX_NODES:
            raise NodeError(node, f"more than {MAX_NODES} values")
        if event is not None and event.anchor is not None:
            self._anchors[event.anchor] = node
        if self._open:
            self._open[-1][1].append(node)
        else:
            self.root = node

    def _close(self, event: Any) -> None:
        start, children = self._open.pop()
        line = self._line(start)
        is_map = start.__class__ is yaml.MappingStartEvent
        pairs = tuple(zip(children[::2], children[1::2], strict=True)) if is_map else ()
        _check_keys(pairs)
        inside = sum([child.size for child in children])
        self._nodes -= inside  # _add counts them again as part of the node
        node = Node(
            "map" if is_map else "list",
            line,
            start.start_mark.index,
            event.end_mark.index,
            flow=bool(start.flow_style),
            odd=_oddity(start, line),
            items=() if is_map else tuple(children),
            pairs=pairs,
            size=1 + inside,
        )
        self._add(start, node)


def _oddity(event: Any, line: int) -> str:
    if event.tag is None or event.tag == "!":
        return "anchored" if event.anchor is not None else "" if event.tag is None else "tagged"
    if event.tag not in _TAGS:
        raise NodeError(line, f"unknown tag {quote(event.tag)}: write the value without a tag")
    return "tagged"


def _text_node(event: Any, line: int) -> Node:
    odd = _oddity(event, line)
    plain = event.style in (None, "") and odd != "tagged"
    start, end = event.start_mark.index, event.end_mark.index
    return Node("text", line, start, end, event.value, plain, event.style in ("|", ">"), odd=odd)


def _check_keys(pairs: tuple[tuple[Node, Node], ...]) -> None:
    seen: dict[str, int] = {}
    for key, _ in pairs:
        if key.kind != "text" or key.odd == "an alias":
            raise NodeError(key, "a key must be plain text")
        if key.plain and key.text == "<<":
            raise NodeError(key, "merge keys (<<) are not read: write the entries out")
        if not key.text:
            raise NodeError(key, "a key must not be empty")
        if key.text in seen:
            raise NodeError(
                key, f"duplicate key {quote(key.text)}, first on line {seen[key.text]}: remove one"
            )
        seen[key.text] = key.line


@contextmanager
def located(name: str, kind: FileKind) -> Iterator[None]:
    """Turn what goes wrong in a file of that name into the kind's error, with file and line."""
    try:
        yield
    except NodeError as error:
        raise kind.error(safe(f"{name}:{error.line}: {error.message}")) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        what = " ".join(filter(None, (error.context, error.problem)))
        raise kind.error(safe(f"{name}:{line}: not YAML: {what}")) from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise kind.error(safe(f"{name}: not YAML: {reason}")) from None


def compose(data: bytes, name: str, kind: FileKind) -> Document:
    """Build the tree of a file.

    Args:
        name: Of the file, for messages.

    Raises:
        DocumentError: The kind's own: the bytes are no YAML mapping in UTF-8, or exceed a cap.
    """
    if len(data) > MAX_BYTES:
        raise kind.error(safe(f"{name}: larger than {MAX_BYTES} bytes: is this {kind.what}?"))
    bom = b"\xef\xbb\xbf" if data.startswith(b"\xef\xbb\xbf") else b""
    try:
        text = data[len(bom) :].decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, len(bom) + error.start) + 1
        raise kind.error(safe(f"{name}:{line}: not UTF-8: save the file as UTF-8")) from None
    builder = _TreeBuilder(text)
    with located(name, kind):
        if text.startswith("\ufeff"):
            raise NodeError(1, "two byte order marks: remove one")
        try:
            for event in yaml.parse(text, Loader=_LOADER):
                builder.take(event)
        except yaml.reader.ReaderError as error:
            line = data.count(b"\n", 0, len(bom) + error.position) + 1
            raise NodeError(line, f"not YAML: {str(error).partition(chr(10))[0]}") from None
        root = builder.root
        if root is None or root.null:
            raise NodeError(1, f'empty: {kind.what} starts with "{kind.first}"')
        if root.kind != "map":
            raise NodeError(root, f'{kind.what} is a mapping that starts with "{kind.first}"')
    return Document(name, text, bom, root, len(text) if builder.end is None else builder.end)


def quote(text: str) -> str:
    """Untrusted text in quotation marks, for messages."""
    return f"'{safe(text, 80)}'"
