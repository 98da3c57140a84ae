"""The tree of a YAML file: where things stand in it, and files made to break what reads them."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcpwatch.documents.tree import (
    MAX_ALIASES,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    Document,
    DocumentError,
    FileKind,
    Node,
    compose,
)
from mcpwatch.text import safe

KIND = FileKind("a test", "a: 1", DocumentError)


def read(text: str | bytes) -> Document:
    return compose(text if isinstance(text, bytes) else text.encode(), "t.yaml", KIND)


def refusal(text: str | bytes) -> str:
    with pytest.raises(DocumentError) as caught:
        read(text)
    message = str(caught.value)
    assert message == safe(message)
    return message


def billion_laughs(levels: int, width: int) -> str:
    lines = ["a0: &a0 lol"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


BOMBS: dict[str, tuple[str | bytes, str]] = {
    "100,000 nested lists": ("a: " + "[" * 100_000, r"t.yaml:1: nested more than 64 levels deep"),
    "100,000 nested mappings": ("{a: " * 100_000, r"t.yaml:1: nested more than 64"),
    "nested blocks": ("- " * 100_000, r"t.yaml:1: nested more than 64"),
    "nested questions": ("? " * 100_000, r"t.yaml:1: nested more than 64"),
    "indentation": ("".join(f"{' ' * n}a:\n" for n in range(1_000)), r"t.yaml:65: nested more than 64"),
    "billion laughs": (billion_laughs(10, 9), r"t.yaml:6: more than 50000 values"),
    "aliases": ("a: &a 1\nb: [" + "*a, " * 101 + "]", r"t.yaml:2: more than 100 aliases"),
    "alias of itself": ("a: &a [*a]", r"t.yaml:1: alias 'a' stands for nothing, or for itself"),
    "merge bomb": (
        "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 9)),
        r"t.yaml:2: merge keys",
    ),
    "values": ("a: [" + "1," * MAX_NODES + "]", r"t.yaml:1: more than 50000 values"),
    "keys": ("".join(f"k{n}: 1\n" for n in range(30_000)), r"more than 50000 values"),
    "bytes": ("#" * (MAX_BYTES + 1), r"t.yaml: larger than 1048576 bytes: is this a test\?"),
    "duplicate keys": ("a: 1\nb: 2\n'a': 3", r"t.yaml:3: duplicate key 'a', first on line 1"),
    "duplicate keys by escape": ('a: 1\n"\\x61": 3', r"t.yaml:2: duplicate key 'a'"),
    "duplicate keys inside": ("a:\n  - {b: 1, b: 2}", r"t.yaml:2: duplicate key 'b'"),
    "a key that is a list": ("? [a]\n: 1", r"t.yaml:1: a key must be plain text"),
    "a key that is an alias": ("a: &a b\n*a : 1", r"t.yaml:2: a key must be plain text"),
    "an object of Python": ("a: !!python/object/apply:os.system [id]", r"t.yaml:1: unknown tag"),
    "a tag of its own": ("a: !x b", r"t.yaml:1: unknown tag '!x'"),
    "an endless directive": ("%YAML " + "9" * 100_000 + "\na: 1", r"t.yaml:1: not YAML"),
    "a version of the future": ("%YAML 3.0\n---\na: 1", r"t.yaml:1: not YAML"),
    "two documents": ("a: 1\n---\nb: 1", r"t.yaml:2: a second document"),
    "nothing": ("# nothing\n", r't.yaml:1: empty: a test starts with "a: 1"'),
    "a list": ("- a", r't.yaml:1: a test is a mapping that starts with "a: 1"'),
    "two marks": ("\ufeff\ufeffa: 1", r"t.yaml:1: two byte order marks"),
    "a NUL": ("a: 1\nb: \0", r"t.yaml:2: not YAML: unacceptable character"),
    "a control character": ("é: 1\nb: '\x1b]0;x\x07'", r"t.yaml:2: not YAML: unacceptable character"),
    "no UTF-8": (b"a: 1\nb: \xff", r"t.yaml:2: not UTF-8: save the file as UTF-8"),
    "a lone surrogate in bytes": (b"a: \xed\xa0\x80", r"t.yaml:1: not UTF-8"),
    "overlong UTF-8": (b"a: \xc0\xaf", r"t.yaml:1: not UTF-8"),
    "UTF-16": ("a: 1".encode("utf-16"), r"t.yaml:1: not UTF-8"),
    "an escape beyond Unicode": ('a: "\\UFFFFFFFF"', r"t.yaml:1: not YAML"),
    "a tab": ("a:\n\t- b", r"t.yaml:2: not YAML"),
    "an open quote": ("a: 1\nb: '", r"t.yaml:\d: not YAML"),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_made_to_break_its_reader_is_refused_with_its_line(bomb: str) -> None:
    text, message = BOMBS[bomb]
    assert re.search(message, refusal(text)), refusal(text)


@pytest.mark.parametrize(
    "value",
    [
        "!!int 0x", "!!int " + "9" * 5_000, "!!float 1e999999", "1e999999", "9999-99-99", "2026-02-30",
        "9999-12-31T23:59:59.999999999+25:00", "190:20:30.15", "0b2", "0x", "!!timestamp 9999-99-99", ".nan",
        "!!bool maybe", "!!null x", "-0o8", "1_", "0" * 10_000,
    ],
)  # fmt: skip
def test_a_value_that_does_not_exist_is_its_text(value: str) -> None:
    """Nothing is constructed: no date, number or object of Python comes into being while a file is read."""
    node = read(f"a: {value}").root.get("a")
    assert node is not None
    assert node.text == value.rpartition(" ")[2]
    assert node.plain != value.startswith("!!")


def test_the_caps_are_where_they_are_said_to_be() -> None:
    read("a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1))
    assert "nested more than" in refusal("a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH)
    read("a: &a 1\nb: [" + ", ".join(["*a"] * MAX_ALIASES) + "]")
    read("a: [" + "1," * (MAX_NODES - 3) + "]")
    assert "more than" in refusal("a: [" + "1," * (MAX_NODES - 2) + "]")
    read("a: 1\n" + "#" * (MAX_BYTES - 5))


def test_what_an_alias_stands_for_is_counted_each_time() -> None:
    big = ", ".join(["1"] * 5_000)
    assert "more than 50000 values" in refusal(f"a: &a [{big}]\nb: [{', '.join(['*a'] * 10)}]")


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_places_are_in_the_text_behind_the_mark(bom: bytes) -> None:
    document = read(bom + "é: [ü, x]\nb: 'c'\n".encode())
    assert document.bom == bom
    for key, value in document.root.pairs:
        assert document.text[key.start : key.end] == key.text
        assert document.text[value.start : value.end] in ("[ü, x]", "'c'")
    assert [key.line for key, _ in document.root.pairs] == [1, 2]


def _inside(node: Node, length: int, rows: int) -> None:
    assert 0 <= node.start <= node.end <= length
    assert 1 <= node.line <= rows
    for child in (*node.items, *(each for pair in node.pairs for each in pair)):
        if child.odd != "an alias":
            _inside(child, length, rows)


tokens = st.sampled_from(
    ["a", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ", ", "&x ", "*x", "!!str ", "'", '"', "|\n", ">-\n", "? ", "#",
     "<<", "---\n", "...\n", "%", "\ufeff", "\u2028", "\\", "\t", "é", "~", "0x1", "1e999", "\r\n", "\0", "\x85"]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(tokens, max_size=24).map("".join).map(str.encode) | st.binary(max_size=40))
@example(b"a: |\n  b")
@example(b"? a")
@example("a: \u2028b\n\u2029c: \x85d".encode())
def test_whatever_the_bytes_there_is_a_tree_with_places_or_one_line_that_says_why_not(data: bytes) -> None:
    try:
        document = read(data)
    except DocumentError as error:
        assert str(error) == safe(str(error))
        assert str(error).startswith("t.yaml:")
        return
    assert document.bom + document.text.encode() == data
    _inside(document.root, len(document.text), document.text.count("\n") + 1)
