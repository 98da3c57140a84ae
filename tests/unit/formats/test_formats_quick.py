"""What is looked at before a line is read in earnest never keeps one from being read that can be."""

from __future__ import annotations

import pytest

from mcpwatch.formats.mappingfile import parse_mapping
from mcpwatch.formats.reader import Reader
from mcpwatch.formats.template import compile_template
from tests.oracle import block_of


@pytest.mark.parametrize(
    ("template", "needs", "lines"),
    [
        ("Call {tool}{? of {server}} done", "Call ", ["Call add done", "Call add of s done"]),
        ("one{? two} three{?, four}", " three", ["one two three", "one three, four"]),
        ("{{{a}}} is {b}", "} is ", ["{x} is y"]),
        ("{prefix}{_:logfmt}", "=", ["INFO a=1"]),
        ("{prefix}{r:json}{?{tail:rest}}", "{", ['INFO {"a": 1} x', "{}"]),
        ("{r:json}", "", ["[1]"]),
    ],
)
def test_what_a_template_needs_stands_in_each_of_its_lines(
    template: str, needs: str, lines: list[str]
) -> None:
    compiled = compile_template(template)
    assert compiled.needs == needs
    for line in lines:
        found = compiled(line)
        assert found is not None and needs in line
        assert "_" in template or found.keys() <= compiled.places


JSON_IN_TEXT = b"""
name: acme
shape: text
lines: {call: "{prefix}{record:json}", pairs: "{prefix}{pairs:logfmt}"}
match: {record.vendor: acme, level: {not: debug}, line: {present: true}}
fields: {tool: [record.tool, tool]}
"""


@pytest.mark.parametrize(
    ("line", "is_read"),
    [
        ('INFO {"vendor": "acme", "tool": "add"}', True),
        (r'INFO {"v\u0065ndor": "acme", "tool": "add"}', True),
        ('INFO {"tool": "add"}', False),
        (r'INFO {"vendor": "other", "tool": "\u0061dd"}', False),
        ('DEBUG {"vendor": "acme", "tool": "add"}', False),
    ],
)
def test_names_that_are_asked_for_may_be_escaped(line: str, is_read: bool) -> None:
    reader = Reader("log", mappings=[parse_mapping(JSON_IN_TEXT, "m.yaml", "acme")], format_name="acme")
    events = reader.read(block_of([line]))
    assert [event.tool for event in events] == (["add"] if is_read else [])
    assert reader.not_understood == (not is_read)


def test_native_records_after_others_are_native_and_the_same() -> None:
    native = b'{"timestamp":"2026-11-20T08:00:05Z","event":"tool_call","tool":"add","params":{},"status":"success"}'
    other = b'{"ts":"2026-11-20T08:00:05Z","toolName":"add"}'
    reader = Reader("log")
    for line in (other, native, native, other):
        reader.read(block_of([line]))
    assert reader.formats["native"] == 2
    assert reader.formats["generic"] == 2
    assert reader.understood == reader.events == 4
