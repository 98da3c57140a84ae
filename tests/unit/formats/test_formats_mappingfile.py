"""Mapping files: every mistake is one line that names the file, the line and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.formats.mapping import Mapping
from mcpwatch.formats.mappingfile import MAX_BYTES, FormatError, load_mapping, load_mappings, parse_mapping
from mcpwatch.formats.reader import Reader
from tests.oracle import block_of

WHOLE = """\
name: acme
title: ACME gateway
shape: json
match: {k: 1, s: [a, b], p: {present: true}, q: {starts: [x, y]}, r: {contains: z}, u: {not: [1]}, v: {kind: text}}
each: calls[]
fields: {timestamp: t, tool: [a.b, '"c.d"'], duration: d, ended: e, method: m}
kinds: {called: tool_call}
status: {ok: success, 7: denied}
units: {timestamp: ms, duration: min}
zone: Europe/Berlin
constants: {server: s1, event: auth, status: denied}
parse: {x: "a {b}", y.z: ["c {d}", "e {f}"]}
variants:
  - when: {l: started}
    phase: start
    fields: {error: []}
  - when: {l: done}
    phase: end
    constants: {status: success}
    kinds: {x: auth}
    status: {y: error}
  - ignore: true
pair: [server, [id, ref]]
pair_by: order
lacks: {client: switch it on, time: "", params: x}
settings: |
  Do it.
"""


def parsed(text: str) -> Mapping:
    return parse_mapping(text.encode("utf-8", "surrogatepass"), "m.yaml", "m")


def test_a_file_may_say_everything_at_once() -> None:
    found = parsed(WHOLE.replace('time: "", ', ""))
    assert (found.name, found.title, found.shape, found.by_order) == ("acme", "ACME gateway", "json", True)
    assert (len(found.variants), len(found.match), len(found.pair), len(found.parse)) == (3, 7, 2, 2)
    assert (found.lacks, found.settings, found.signed) == (
        {"client": "switch it on", "params": "x"},
        "Do it.\n",
        True,
    )


F = "fields: {tool: x}\n"
T = "shape: text\nlines: {a: 'x {tool}'}\n" + F
P = F + "pair: [a]\nvariants: [{when: {p: 1}, phase: start}, {when: {p: 2}, phase: end}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ':1: empty: a mapping file starts with "name: acme-gateway"'),
        ("[]", ":1: a mapping file is a mapping"),
        ("name: x", ":1: the file has no 'fields'"),
        ("fields: []", ":1: fields must be a mapping, such as"),
        ("fields: {}", ":1: fields must be a mapping, for example {tool: call.name}"),
        (F + "feilds: {}", ":2: unknown key 'feilds'; did you mean 'fields'?"),
        (F + "variant: []", ":2: unknown key 'variant'; did you mean 'variants'?"),
        ("fields:\n  tol: x", ":2: unknown field 'tol' in fields; did you mean 'tool'?"),
        ("fields:\n  zzzz: x", ":2: unknown field 'zzzz' in fields; known are timestamp"),
        ("fields: {tool: ''}", "fields.tool must be text that is not empty"),
        ("fields: {tool: []}", "fields.tool must be a path such as call.name"),
        ("fields: {tool: {a: b}}", "fields.tool must be a path such as call.name"),
        ("fields:\n  tool: [a, 'b..c']", ":2: fields.tool: 'b..c' is no path: at character 3 there must be"),
        ("fields: {tool: 'a[].b'}", "fields.tool: 'a[].b' is no path: [] stands for many elements"),
        (F + "status: {0: fine}", ":2: status.0: no 'fine'; there are denied, error"),
        (F + "status: {0: sucess}", ":2: status.0: no 'sucess'; did you mean 'success'?"),
        (F + "status: [0]", ":2: status must be a mapping, such as"),
        (F + "kinds: {x: toolcall}", ":2: kinds.x: no 'toolcall'; did you mean 'tool_call'?"),
        (F + "match: yes", ":2: match must be a mapping, such as"),
        (F + "match: {a: {stars: x}}", ":2: unknown key 'stars' in match.a; did you mean 'starts'?"),
        (F + "match: {a: {starts: x, contains: y}}", ":2: match.a must be one of present, starts"),
        (F + "match: {a: {}}", ":2: match.a must be one of present, starts"),
        (F + "match: {a: []}", ":2: match.a must be a value, a list of values"),
        (F + "match: {a: {present: 'true'}}", ":2: match.a.present must be true or false"),
        (F + "match: {a: {kind: string}}", ":2: match.a.kind must be text or number or object or list or bool"),
        (F + "match: {'a[': 1}", ":2: match: 'a[' is no path"),
        (F + "match: {a: [[1]]}", ":2: match.a must be a value"),
        (F + "constants: {event: boom}", ":2: constants.event: no 'boom'; there are auth"),
        (F + "constants: {status: deny}", ":2: constants.status: no 'deny'; did you mean 'denied'?"),
        (F + "constants: {sever: a}", ":2: unknown field 'sever' in constants; did you mean 'server'?"),
        (F + "units: {timestamp: h}", ":2: units.timestamp must be one of s, ms, us, ns, not 'h'"),
        (F + "units: {duration: parsec}", ":2: units.duration must be one of ns, us, ms, s, min, h, not 'parsec'"),
        (F + "units: {durations: s}", ":2: unknown key 'durations' in units; did you mean 'duration'?"),
        (F + "zone: Mars/Olympus", ":2: zone must be local or the name of a zone such as Europe/Berlin"),
        (F + "zone: ../../etc/passwd", ":2: zone must be local or"),
        (F + "each: calls", ":2: each: 'calls' leads to no elements: it must end in []"),
        (F + "each: '[]'", ":2: each: '[]' leads to no elements"),
        (F + "parse: {x: 'no place'}\nparse: {}", "duplicate key 'parse'"),
        (F + "parse: {x: '{a}{b}'}", ":2: parse.x: '{a}{b}' is no template: nothing stands between"),
        (F + "shape: yaml", ":2: shape must be json or text or"),
        (F + "shape: text", ":1: a format of shape text needs 'lines'"),
        (F + "lines: {a: 'x {b}'}", ":2: 'lines' goes only with shape: text"),
        (T + "match: {", "not YAML"),
        ("shape: text\nlines: {}\n" + F, ":2: lines must be a mapping, such as {called:"),
        ("shape: text\nlines: {a: '{x'}\n" + F, ":2: lines.a: '{x' is no template"),
        (F + "variants: {}", ":2: variants must be a list"),
        (F + "variants: [{when: {a: 1}, phases: start}]", ":2: unknown key 'phases' in variants[0]; did you mean"),
        (F + "variants: [{when: {a: 1}, ignore: false}]", ":2: variants[0].ignore must be true, or left out"),
        (F + "variants: [{when: {a: 1}, phase: middle}]", ":2: variants[0].phase must be start or end"),
        (F + "variants:\n  - when: {a: 1}\n    phase: start", ":4: 'phase' needs 'pair'"),
        (F + "pair: [a]", ":2: 'pair' needs a variant with 'phase: start' and one with 'phase: end'"),
        (F + "pair_by: id", ":2: 'pair_by' needs a variant with"),
        (P + "]\npair_by: oder", ":4: pair_by must be id or order"),
        (P.replace("[a]", "a") + "]", ":2: pair must be a list of paths"),
        (P.replace("[a]", "[[]]") + "]", ":2: pair[0] must be a path or a list of paths"),
        (F + "variants:\n  - constants: {server: a}\n  - when: {a: 1}\n    ignore: true", ":4: no record gets here"),
        (F + "variants:\n  - when: {}\n    ignore: true\n  - ignore: true", ":5: no record gets here"),
        (F + "variants:" + "\n  - {when: {a: 1}, ignore: true}" * 65, ":67: more than 64 variants"),
        (F + "name: auto", ":2: name must be a name of at most 60 printable characters, and none of auto"),
        (F + "name: 'a > b'", ":2: name must be a name"),
        (F + "name: \"a\\tb\"", ":2: name must be a name"),
        (F + "lacks: {colour: x}", ":2: unknown key 'colour' in lacks"),
        (F + "lacks: {client: ''}", ":2: lacks.client must be text that is not empty"),
        ("fields: {tool: x, tool: y}", ":1: duplicate key 'tool'"),
        ("fields: {tool: [", "not YAML"),
        ("a: !!python/object/apply:os.system [id]", ":1: unknown tag"),
        ("[" * 20_000, ":1: nested more than 64 levels deep"),
        ("fields: &a {tool: x}\nmatch: {<<: *a}", "merge keys"),
        ("#" * (MAX_BYTES + 1), "larger than 64 KiB: is this a mapping file?"),
        ("name: é\nfields: {tool: \0}", ":2: not YAML: unacceptable character"),
    ],
)  # fmt: skip
def test_a_wrong_mapping_is_one_line_that_names_the_file_and_the_mistake(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(text)
    with pytest.raises(FormatError) as caught:
        load_mapping(file)
    assert message in str(caught.value)
    assert "m.yaml" in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_folder_is_read_in_order_of_names(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yaml", "c.txt"):
        (tmp_path / name).write_text("fields: {tool: x}")
    assert [mapping.name for mapping in load_mappings(tmp_path)] == ["a", "b"]


def test_two_files_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yaml"):
        (tmp_path / name).write_text("name: acme\nfields: {tool: x}")
    with pytest.raises(FormatError, match=r"b\.yaml: 'acme' is also in .*a\.yaml"):
        load_mappings(tmp_path)


def test_a_missing_folder_or_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such folder"):
        load_mappings(tmp_path / "none")
    with pytest.raises(FormatError, match="there is no such file"):
        load_mapping(tmp_path / "none.yaml")


PIECES = [line for line in WHOLE.splitlines() if line] + [
    "variants: [{}]", "each: a[].b[]", "shape: otlp", "pair: []", "{", "- x", "fields:", "  tool: [",
    "&a", "*a", "\t",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=12).map("\n".join) | st.text(max_size=40),
    st.dictionaries(
        st.sampled_from(["k", "calls", "t", "l", "x"]), st.sampled_from([1, "a", None, [{"x": 1}]])
    ),
)
def test_a_file_is_refused_in_one_line_or_reads_any_record(text: str, record: dict[str, object]) -> None:
    try:
        found = parsed(text)
    except FormatError as error:
        assert str(error).isprintable()
        return
    reader = Reader("a", mappings=[found], format_name=found.name)
    reader.read(block_of([record, "text"]))
    assert reader.lines == 2
