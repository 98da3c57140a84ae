"""docs/formats.md has every key of a mapping file, and what it shows does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from docs.tables import CONDITION_KEYS, MAPPING_KEYS, VARIANT_KEYS
from mcpwatch.formats.mappingfile import FormatError, parse_mapping
from mcpwatch.formats.reader import Reader, lacking_fields
from mcpwatch.formats.shipped import shipped_mappings
from mcpwatch.sources.block import Block

TEXT = (Path(__file__).parents[3] / "docs" / "formats.md").read_text(encoding="utf-8")
EXAMPLES = [
    (found[1], found[2]) for found in re.finditer(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
]
MAPPINGS = {yaml.safe_load(text)["name"]: text for language, text in EXAMPLES if language == "yaml"}


@pytest.mark.parametrize(
    ("place", "documented"),
    [
        ("fields: {tool: a}\nzzzzzz: 1", MAPPING_KEYS),
        ("fields: {tool: a}\nvariants: [{zzzzzz: 1}]", VARIANT_KEYS),
        ("fields: {tool: a}\nmatch: {a: {zzzzzz: 1}}", CONDITION_KEYS),
    ],
)
def test_every_key_of_a_mapping_file_is_documented_and_no_other(
    place: str, documented: dict[str, str]
) -> None:
    with pytest.raises(FormatError) as raised:
        parse_mapping(place.encode(), "x", "x")
    assert set(str(raised.value).partition("known are ")[2].split(", ")) == documented.keys()


def test_the_made_up_gateway_is_under_25_lines_and_gives_all_five_fields_of_both_calls() -> None:
    text = MAPPINGS["acme-gateway"]
    [record] = [text for language, text in EXAMPLES if language == "json"]
    reader = Reader("docs", mappings=[parse_mapping(text.encode(), "docs", "docs")])
    first, second = reader.read(Block("docs", [record.strip().encode()], 0, 1))
    assert len(text.splitlines()) < 25
    assert not any((*lacking_fields(first), *lacking_fields(second)))
    assert (first.tool, first.server, first.status, first.duration_ms) == (
        "file_read",
        "files",
        "success",
        4.0,
    )
    assert (second.tool, second.server, second.status, second.error) == (
        "fetch",
        "web",
        "denied",
        "not allowed",
    )
    assert (first.key_id, first.source_ip) == ("key_0001", "10.20.0.11")


def test_the_logfmt_example_puts_both_lines_together() -> None:
    [lines] = [text.splitlines() for language, text in EXAMPLES if text.startswith("time=")]
    reader = Reader("docs", mappings=[parse_mapping(MAPPINGS["acme-server"].encode(), "docs", "docs")])
    start, end = reader.read(Block("docs", [line.encode() for line in lines], 0, 1))
    assert (start.tool, end.status, end.duration_ms) == ("file_read", "success", 7.0)


def test_the_text_example_reads_its_two_lines() -> None:
    reader = Reader("docs", mappings=[parse_mapping(MAPPINGS["acme-text"].encode(), "docs", "docs")])
    lines = [b"2026-11-20 08:00:05 file_read took 4ms", b"2026-11-20 08:00:06 file_read failed: no such file"]
    done, failed = reader.read(Block("docs", lines, 0, 1))
    assert (done.tool, done.status, done.duration_ms) == ("file_read", "success", 4.0)
    assert (failed.status, failed.error) == ("error", "no such file")


def test_settings_of_every_product_are_shown() -> None:
    headings = re.findall(r"^### (.+)$", TEXT.split("## Recommended settings")[1], re.MULTILINE)
    assert [mapping.title for mapping in shipped_mappings() if mapping.settings] == headings[:-2]
