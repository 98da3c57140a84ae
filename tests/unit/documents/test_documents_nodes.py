"""Readers of nodes that only rule files use so far; those of the policy are tested with it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpwatch.documents.nodes import Reader, list_of, phrase, plain_value, seconds, text
from mcpwatch.documents.tree import DocumentError, FileKind, NodeError, compose

KIND = FileKind("a test", "a: 1", DocumentError)

# above U+FFFF JSON writes two escapes, which YAML does not put together
TEXTS = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]))
# a longer key YAML takes only behind a question mark
KEYS = TEXTS.filter(lambda key: 2 < len(json.dumps(key)) < 1_000)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def read(reader: Reader, written: str) -> object:
    node = compose(f"a: {written}\n".encode("utf-8", "surrogatepass"), "t", KIND).root.get("a")
    assert node is not None
    return reader(node, "a")


@pytest.mark.parametrize(
    ("written", "ns"),
    [("0", 0), ("1.5", 1_500_000_000), ("12.000000001", 12_000_000_001), ("999999999", 999_999_999 * 10**9)],
)
def test_seconds_are_exact_nanoseconds(written: str, ns: int) -> None:
    assert read(seconds, written) == ns


@pytest.mark.parametrize("written", ["-1", "1.", ".5", "1e3", "1.0000000001", "[]", "~", "1234567890", "٣"])
def test_what_is_no_number_of_seconds_is_refused(written: str) -> None:
    with pytest.raises(NodeError, match="a must be a number of seconds"):
        read(seconds, written)


@given(JSON)
def test_json_in_a_file_means_what_json_means(value: object) -> None:
    assert read(plain_value, json.dumps(value)) == value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("0007", "0007"), ("yes", "yes"), ("True", "True"), ("~", None), ("1.50", 1.5), ("-2e3", -2000.0),
        ("'12'", "12"), ("'null'", "null"), ("1_000", "1_000"), (".inf", ".inf"), ("9" * 41, "9" * 41),
    ],
)  # fmt: skip
def test_only_what_json_reads_as_a_value_is_one(written: str, value: object) -> None:
    found = read(plain_value, written)
    assert found == value
    assert type(found) is type(value)


def test_a_phrase_is_one_line_of_what_can_be_seen() -> None:
    assert read(phrase(20), "|\n  two\n\n  lines  here\n") == "two lines here"
    for written in ('"a\\e[2J"', '"a\\u202eb"', '"a\\u200bb"', "' '", "''", "~", "[a]", "x" * 21):
        with pytest.raises(NodeError):
            read(phrase(20), written)
    assert read(phrase(20), "x" * 20) == "x" * 20


def test_a_list_says_what_it_must_be() -> None:
    assert read(list_of(text), "[a, b]") == ("a", "b")
    with pytest.raises(NodeError, match="a must be a list of names"):
        read(list_of(text, "a list of names"), "a")
