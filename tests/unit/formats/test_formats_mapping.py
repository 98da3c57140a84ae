"""Mapping files: what they can say, and what they are told when they say it wrongly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcpwatch.documents.tree import MAX_BYTES
from mcpwatch.event import AuditEvent
from mcpwatch.formats.mapping import FieldMap, FormatError, load_mapping, load_mappings
from mcpwatch.formats.reader import Reader
from tests.oracle import block_of

ACME = """
name: acme
match: {kind: mcp_call, v: 2}
fields:
  timestamp: meta.when
  tool: [call.name, call.tool]
  params: call.args
  duration_s: took
  session_id: calls.0.session
status: {0: success, 7: denied, true: error}
constants: {server: acme-1, event: tool_call}
"""
RECORD: dict[str, Any] = {
    "kind": "mcp_call",
    "v": 2,
    "meta": {"when": "2026-11-20T08:00:05Z"},
    "call": {"tool": "file_read", "args": {"path": "/x"}},
    "calls": [{"session": "s"}],
    "took": 0.25,
    "status": 7,
}


def mapping(tmp_path: Path, text: str = ACME) -> FieldMap:
    file = tmp_path / "m.yaml"
    file.write_text(text)
    return load_mapping(file)


def with_status(tmp_path: Path) -> FieldMap:
    return mapping(tmp_path, ACME.replace("fields:\n", "fields:\n  status: status\n"))


def test_a_mapping_reads_nested_names_units_words_and_constants(tmp_path: Path) -> None:
    reader = Reader("a", mappings=[with_status(tmp_path)])
    (event,) = reader.read(block_of([RECORD]))
    assert (event.event, event.tool, event.params) == ("tool_call", "file_read", {"path": "/x"})
    assert (event.duration_ms, event.status, event.session_id) == (250, "denied", "s")
    assert (event.server, event.time_ns) == ("acme-1", 1_795_161_605 * 10**9)
    assert reader.format_name == "acme"


@pytest.mark.parametrize(
    ("word", "outcome"), [(0, "success"), ("0", "success"), (9, "unknown"), ("ok", "success")]
)
def test_words_of_the_log_come_before_the_usual_ones(tmp_path: Path, word: object, outcome: str) -> None:
    (event,) = Reader("a", mappings=[with_status(tmp_path)]).read(block_of([RECORD | {"status": word}]))
    assert event.status == outcome


@pytest.mark.parametrize(
    ("word", "written"), [(True, "true"), (False, "false"), (1.5, "1.5"), ("yes", "yes"), (7, "7")]
)
def test_words_and_matches_are_written_as_in_the_log(tmp_path: Path, word: object, written: str) -> None:
    """`true` in a mapping file is JSON's true, `yes` is a word; YAML's own reading of them plays no part."""
    found = mapping(
        tmp_path, f"fields: {{tool: t, status: s}}\nmatch: {{m: {written}}}\nstatus: {{{written}: denied}}"
    )
    (event,) = Reader("a", mappings=[found]).read(block_of([{"t": "x", "m": word, "s": word}]))
    assert (event.tool, event.status) == ("x", "denied")


def test_records_of_another_kind_are_read_as_usual(tmp_path: Path) -> None:
    reader = Reader("a", mappings=[mapping(tmp_path)])
    native = {"timestamp": 1, "tool": "t"}
    events = reader.read(block_of([RECORD, RECORD | {"kind": "other", "toolName": "u"}, native]))
    assert [event.tool for event in events] == ["file_read", "u", "t"]
    assert {name: count for name, count in reader.formats.items() if count} == {
        "acme": 1,
        "generic": 1,
        "native": 1,
    }


def test_a_mapping_asked_for_by_name_reads_every_record(tmp_path: Path) -> None:
    reader = Reader("a", mappings=[mapping(tmp_path)], format_name="acme")
    events: list[AuditEvent] = reader.read(
        block_of([RECORD | {"kind": "other"}, {"timestamp": 1, "tool": "t"}])
    )
    assert [event.tool for event in events] == ["file_read"]
    assert reader.not_understood == 1


def test_a_folder_is_read_in_order_of_names(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yaml", "c.txt"):
        (tmp_path / name).write_text("fields: {tool: x}")
    assert [mapping.name for mapping in load_mappings(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ':1: empty: a mapping file starts with "fields: {tool: call.name}"'),
        ("[]", ":1: a mapping file is a mapping"),
        ("name: x", ":1: the file has no 'fields'"),
        ("fields: []", ":1: fields must be a mapping, for example {tool: call.name}"),
        ("fields: {tool: x}\nfeilds: {}", ":2: unknown key 'feilds'; did you mean 'fields'?"),
        ("fields:\n  tol: x", ":2: unknown field 'tol' in fields; known are timestamp"),
        ("fields: {tool: ''}", "fields.tool must be a name"),
        ("fields: {tool: []}", "fields.tool must be a name"),
        ("fields: {tool: {a: b}}", "fields.tool must be a name"),
        ("fields: {tool: x}\nstatus: {0: fine}", ":2: status.0 must be denied or error"),
        ("fields: {tool: x}\nstatus: [0]", ":2: status must be a mapping, such as"),
        ("fields: {tool: x}\nmatch: yes", ":2: match must be a mapping, such as"),
        ("fields: {tool: x}\nconstants: {event: boom}", ":2: constants.event must be auth or"),
        ("fields: {tool: x}\nconstants: {sever: a}", ":2: unknown field 'sever' in constants"),
        ("fields: {tool: x, tool: y}", ":1: duplicate key 'tool'"),
        ("fields: {tool: [", "not YAML"),
        ("a: !!python/object/apply:os.system [id]", ":1: unknown tag"),
        ("[" * 100_000, ":1: nested more than 64 levels deep"),
        ("fields: &a {tool: x}\nmatch: {<<: *a}", "merge keys"),
        ("#" * (MAX_BYTES + 1), "larger than 1048576 bytes"),
        ("name: é\nfields: {tool: \0}", ":2: not YAML: unacceptable character"),
    ],
)  # fmt: skip
def test_a_wrong_mapping_is_one_line_that_names_the_file_and_the_mistake(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(FormatError) as caught:
        mapping(tmp_path, text)
    assert message in str(caught.value)
    assert "m.yaml" in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_missing_folder_or_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such folder"):
        load_mappings(tmp_path / "none")
    with pytest.raises(FormatError, match="there is no such file"):
        load_mapping(tmp_path / "none.yaml")
