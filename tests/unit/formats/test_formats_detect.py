"""Each record is read by the mapping of its own format, whatever came before it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.formats.detect import Detector
from mcpwatch.formats.mapping import GENERIC, Mapping
from mcpwatch.formats.mappingfile import FormatError, parse_mapping
from mcpwatch.formats.reader import Reader
from mcpwatch.formats.shipped import shipped_names
from tests.oracle import block_of


def mapping(name: str, text: str) -> Mapping:
    return parse_mapping(f"name: {name}\n{text}".encode(), "m.yaml", "m")


ALPHA = mapping("alpha", "match: {kind: [call, note]}\nfields: {tool: name, timestamp: t}\n"
                "variants: [{when: {kind: note}, ignore: true}]")  # fmt: skip
BETA = mapping("beta", "match: {meta.vendor: beta}\nfields: {tool: call.name, timestamp: meta.t}")
PLAIN = mapping(
    "plain", "shape: text\nlines: {a: 'CALL {tool:word} at {t:time}'}\nfields: {tool: tool, timestamp: t}"
)
LOGFMT = mapping("pairs", "shape: logfmt\nmatch: {vendor: gamma}\nfields: {tool: tool, timestamp: t}")
OWN = [ALPHA, BETA, PLAIN, LOGFMT]

LINES: dict[str, list[str]] = {
    "alpha": ['{"kind":"call","name":"x","t":1}', '{"t":1,"name":"x","kind":"call","more":[1]}', '{"kind":"note"}'],
    "beta": ['{"meta":{"vendor":"beta","t":1},"call":{"name":"x"}}'],
    "plain": ["CALL x at 2026-11-20T08:00:05Z"],
    "pairs": ["vendor=gamma tool=x t=2026-11-20T08:00:05Z"],
    "native": ['{"timestamp":1,"tool":"x"}', '{"timestamp":1,"event":"request"}'],
    "generic": ['{"ts":1,"toolName":"x"}', '{"kind":"other","tool_name":"x"}', '{"meta":{"vendor":"b"},"tool":"x"}'],
    "otlp": ['{"resourceMetrics":[]}'],
    "": ["junk", '{"foo":1}', "[]", '{"kind":"other"}', "CALL x at noon", "vendor=delta tool=x", '{"kind":"call"'],
}  # fmt: skip
FORMATS = {line: name for name, lines in LINES.items() for line in lines}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(sorted(FORMATS)), max_size=20))
def test_in_a_mixed_stream_each_line_is_read_by_its_own_format_whatever_the_order(lines: list[str]) -> None:
    reader = Reader("a", mappings=OWN)
    reader.read(block_of(lines))
    expected = [FORMATS[line] for line in lines if FORMATS[line]]
    assert +reader.formats == {name: expected.count(name) for name in expected}
    assert reader.not_understood == len(lines) - len(expected)
    assert reader.lines == reader.understood + reader.not_understood


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(FORMATS)), max_size=12), st.integers(0, 12))
def test_what_a_line_says_does_not_depend_on_where_reading_began(lines: list[str], start: int) -> None:
    def said(reader: Reader, read: list[str]) -> list[tuple[Any, ...]]:
        return [(event.tool, event.time_ns, event.event) for event in reader.read(block_of(read))]

    whole = Reader("a", mappings=OWN)
    before, behind = said(whole, lines[:start]), said(whole, lines[start:])
    assert said(Reader("a", mappings=OWN), lines[start:]) == behind
    assert said(Reader("a", mappings=OWN), lines) == before + behind


def test_the_format_of_a_record_is_known_inside_what_it_travelled_in() -> None:
    reader = Reader("a", mappings=OWN)
    for line in ('{"kind":"call","name":"x","t":1}', "CALL x at 2026-11-20T08:00:05Z"):
        reader.read(block_of([f"<34>1 2026-11-22T03:14:07Z h mcp 7 - - {line}"]))
    assert +reader.formats == {"syslog 5424 > alpha": 1, "syslog 5424 > plain": 1}


def test_where_several_would_read_a_record_the_one_that_read_the_last_does_so() -> None:
    first = mapping("first", "match: {a: 1}\nfields: {tool: t}")
    second = mapping("second", "match: {b: 1}\nfields: {tool: t}")
    both, other = {"a": 1, "b": 1, "t": "x"}, {"a": 2, "b": 1, "t": "x"}
    reader = Reader("a", mappings=[first, second])
    reader.read(block_of([both, other, both]))
    assert +reader.formats == {"first": 1, "second": 2}


def test_a_users_mapping_goes_before_a_shipped_one_and_takes_its_place_by_its_name() -> None:
    shipped = mapping("acme", "match: {k: 1}\nfields: {tool: t}")
    elsewhere = mapping("acme", "match: {k: 2}\nfields: {tool: t}")
    before = mapping("zeta", "match: {k: 1}\nfields: {tool: u}")
    for own, expected in (([], "acme"), ([elsewhere], ""), ([before], "zeta")):
        detector = Detector(own, [shipped], None, frozenset())
        found = detector.read(record := {"k": 1, "t": "x", "u": "y"}, detector.plan(record))
        assert (found if isinstance(found, str) else found[0]) == (expected or "no field of it is known")


def test_no_shipped_mapping_reads_a_record_with_native_names_only_but_a_users_may() -> None:
    greedy = mapping("greedy", "match: {tool: x}\nfields: {tool: tool, timestamp: timestamp}")
    record = {"timestamp": 1, "tool": "x"}
    detector = Detector([], [greedy], GENERIC, frozenset({"timestamp", "tool"}))
    found = detector.read(record, detector.plan(record))
    assert (found if isinstance(found, str) else found[0]) == "native"
    reader = Reader("a", mappings=[greedy])
    reader.read(block_of([record, {"timestamp": 1, "tool": "y"}]))
    assert +reader.formats == {"greedy": 1, "native": 1}


def test_a_mapping_that_does_not_know_its_records_reads_only_what_it_is_told_to_read() -> None:
    blind = mapping("blind", "fields: {tool: verb, timestamp: at}")
    record = {"verb": "x", "at": 1}
    auto = Reader("a", mappings=[blind])
    assert auto.read(block_of([record])) == []
    told = Reader("a", mappings=[blind], format_name="blind")
    assert [event.tool for event in told.read(block_of([record]))] == ["x"]


def test_a_format_that_is_asked_for_reads_its_own_records_and_no_others() -> None:
    reader = Reader("a", mappings=OWN, format_name="alpha")
    reader.read(block_of(sorted(FORMATS)))
    assert +reader.formats == {"alpha": 3}
    assert reader.reasons["not of the format alpha"] > 0
    text = Reader("a", mappings=OWN, format_name="plain")
    text.read(block_of(sorted(FORMATS)))
    assert +text.formats == {"plain": 1}


def test_a_shipped_format_may_be_asked_for_by_its_name() -> None:
    for name in shipped_names():
        assert Reader("a", format_name=name).format_name == "none yet"
    with pytest.raises(FormatError, match="unknown format 'toolhve'; there are: auto, native, generic"):
        Reader("a", format_name="toolhve")


def test_neither_names_nor_words_of_a_log_fill_the_memory() -> None:
    reader = Reader("a")
    lines = [json.dumps({"ts": 1, "toolName": "x", "status": f"w{n}", f"n{n}": n}) for n in range(6_000)]
    reader.read(
        block_of(
            [
                *lines,
                json.dumps({"toolName": "x", "n" * 3_000: 1}),
                json.dumps({str(n): n for n in range(99)}),
            ]
        )
    )
    detector = reader._detector
    assert 0 < len(detector._plans) <= 4_096
    assert all(len(names) <= 64 and sum(map(len, names)) <= 2_048 for names in detector._plans)
    assert len(reader.unknown_words) == 200


def test_a_native_log_reads_no_mapping_file() -> None:
    """And so does whoever only asks for the version: start-up is paid for by those who need it."""
    code = """
import sys
from mcpwatch.formats.reader import Reader
from mcpwatch.formats import shipped
from mcpwatch.sources.block import Block
reader = Reader("a")
reader.read(Block("a", [b'{"timestamp":"2026-11-20T08:00:05Z","tool":"x"}'], 0, 1))
assert shipped.shipped_mapping.cache_info().misses == 0
reader.read(Block("a", [b'{"ts":1,"toolName":"x"}'], 0, 1))
assert shipped.shipped_mapping.cache_info().misses == len(shipped.shipped_names()) > 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    version = """
import sys
from mcpwatch.cli import main
sys.argv = ["mcpwatch", "--version"]
try:
    main()
except SystemExit:
    pass
assert "mcpwatch.formats.mappingfile" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", version], check=True, timeout=60, stdout=subprocess.DEVNULL)
