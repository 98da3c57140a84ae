"""A template reads the lines it describes, no others, and takes no longer over hostile ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpwatch.formats.cutjson import json_end, parse_cut_json
from mcpwatch.formats.moments import read_moment
from mcpwatch.formats.template import MAX_PREFIX, compile_template
from mcpwatch.times import parse_rfc3339

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("template", "line", "expected"),
    [
        ("Calling {tool} with {rest:rest}", "Calling a b with c with d", {"tool": "a b", "rest": "c with d"}),
        ("took {ms:number}ms", "took 16.21ms", {"ms": "16.21"}),
        ("took {ms:number}ms", "took xms", None),
        ("by {who:word}, {why}", "by ann, no", {"who": "ann", "why": "no"}),
        ("by {who:word}, {why}", "by ann lee, no", None),
        ("by {who:word}, {why}", "by , no", None),
        ("ran {tool:word}{more:rest}", "ran add (1)", {"tool": "add", "more": " (1)"}),
        ("'{tool}' ended", "'a' ended' ended", {"tool": "a' ended"}),
        ("'{tool}' ended{? in {ms:number}ms}", "'a' ended", {"tool": "a"}),
        ("'{tool}' ended{? in {ms:number}ms}", "'a' ended in 4ms", {"tool": "a", "ms": "4"}),
        ("'{tool}' ended{? in {ms:number}ms}", "'a' ended in time", None),
        ("{{{a}}}", "{x}", {"a": "x"}),
        ("[{at:time}] {l:word} up", "[2026-11-22T03:14:07Z] INFO up", {"at": "2026-11-22T03:14:07Z", "l": "INFO"}),
        ("[{at:time}] up", "[soon] up", None),
        ("got {body:json}", 'got {"a": "}"} x', None),
        ("got {body:json} x", 'got {"a": "}\\""} x', {"body": '{"a": "}\\""}'}),
        ("got {body:json} x", 'got {"a": ["b', {"body": '{"a": ["b'}),
        ("got {body:json} x", 'got {"a": "b...[9 truncated]", c}]} x', {"body": '{"a": "b...[9 truncated]", c}]} x'}),
        ("got {body:json} x", "got 12 x", None),
        ("call {_:logfmt}", 'call a=1 b="x y" c=d e', {"a": "1", "b": "x y", "c": "d e"}),
        ("call {_:logfmt}", "call nothing", None),
        ("up", "up", {}),
        ("up", "up!", None),
    ],
)  # fmt: skip
def test_a_template_takes_what_stands_in_its_places(
    template: str, line: str, expected: dict[str, str] | None
) -> None:
    assert compile_template(template)(line) == expected


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("", {}),
        ("- ", {}),
        ("INFO:fastmcp.timing:", {"level": "info"}),
        ("2026-11-22 06:01:55,489 INFO fastmcp.timing ", {"time": "2026-11-22 06:01:55,489", "level": "info"}),
        ("2026-11-22T06:01:55Z warning  mcp ", {"time": "2026-11-22T06:01:55Z", "level": "warning"}),
        ("2026/11/22 06:09:04 ", {"time": "2026-11-22T06:09:04"}),
        ("[07/20/26 19:42:07] INFO     ", {"time": "2026-07-20T19:42:07", "level": "info"}),
        ("[2026-01-08T23:00:00Z] [ERROR] [auth] ", {"time": "2026-01-08T23:00:00Z", "level": "error"}),
        ("2026-01-09 17:30:15,123 - my.logger - DEBUG - ", {"time": "2026-01-09 17:30:15,123", "level": "debug"}),
        ("2026-08-27T00:22:00.789058Z\tinfo\t", {"time": "2026-08-27T00:22:00.789058Z", "level": "info"}),
        ("2026-11-22 06:01:55.489 | INFO     | app:run:12 - ", {"time": "2026-11-22 06:01:55.489", "level": "info"}),
    ],
)  # fmt: skip
def test_a_prefix_is_what_logging_set_ups_write(prefix: str, said: dict[str, str]) -> None:
    """Also one right before JSON or pairs, and the time in it can be read."""
    assert compile_template("{prefix}Calling {tool}")(prefix + "Calling add") == {**said, "tool": "add"}
    assert compile_template("{prefix}{r:json}")(prefix + '{"a":1}') == {**said, "r": '{"a":1}'}
    assert compile_template("{prefix}{_:logfmt}")(prefix + "a=1") == {**said, "a": "1"}
    assert parse_rfc3339(said.get("time", "2026-01-01T00:00:00Z")) is not None


@pytest.mark.parametrize(
    "before", ['he said "', "re", "level=info ", "it's ", '{"a": ', "x" * MAX_PREFIX + " "]
)
def test_what_somebody_said_is_no_prefix(before: str) -> None:
    """A message that quotes a line of the log does not become one."""
    assert compile_template("{prefix}Calling {tool}")(before + "Calling add") is None


def test_what_a_line_captures_counts_before_what_its_prefix_or_its_pairs_say() -> None:
    line = "INFO 2026-11-22T06:01:55Z x: user=ann event=start event=end user=eve"
    assert compile_template("{prefix}: user={user:word} {_:logfmt}")(line) == {
        "time": "2026-11-22T06:01:55Z", "level": "info", "user": "ann", "event": "start",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{a}{b} x", "nothing stands between {a} and {b}"),
        ("x {a:word}{b:number}", "nothing stands between {a} and {b}"),
        ("{a", "a { without its other half"),
        ("a}", "a } without its other half"),
        ("{?a", "{? without its }"),
        ("{?a{?b}}", "can't stand in another"),
        ("x{?a}{?b}{?c}{?d}{?e}", "more than 4 parts"),
        ("{a:foo} x", "no such kind of place; there are: text, word"),
        ("{a b} x", "a place needs a name"),
        ("{} x", "a place needs a name"),
        ("{a} x {a}", "{a} stands twice"),
        ("{a:rest} x", "goes to the end"),
        ("{a:logfmt} x", "goes to the end"),
        ("x {prefix}y", "must stand at the beginning"),
        ("{prefix}{a}", "must be followed by"),
        ("{a}", "every line would fit"),
        ("{a:word} {b:rest}", "every line would fit"),
        ("{prefix}", "must be followed by"),
        ("", "every line would fit"),
    ],
)
def test_a_template_that_can_not_be_used_says_why(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("{", r"\{").replace("?", r"\?")):
        compile_template(template)


TEMPLATES = [
    "{prefix}Tool '{tool}' failed after {ms:number}ms: {error:rest}",
    "{time:time} [{server}] [{level:word}] Message: {message:json}{? {{ metadata: undefined }}}",
    "{prefix}{_:logfmt}",
    "{a} | {b} | {c}{? - {d}}{? + {e:json}}",
]


@pytest.mark.parametrize("template", TEMPLATES)
@given(st.text(alphabet=st.sampled_from(" '\"{}[]=:|\\-+am1T"), max_size=80))
def test_a_template_never_raises_and_captures_only_what_is_there(template: str, line: str) -> None:
    found = compile_template(template)(line)
    for value in (found or {}).values():
        assert value in line or "\\" in line  # escapes in quoted pairs are resolved


@given(
    st.from_regex(r"[a-z_]{1,10}", fullmatch=True), st.decimals(0, 10**6, places=2),
    st.text(alphabet=st.characters(exclude_characters="\n"), max_size=40),
)  # fmt: skip
def test_a_line_made_by_a_template_gives_its_values_back(tool: str, ms: Any, error: str) -> None:
    read = compile_template("{prefix}Tool '{tool}' failed after {ms:number}ms: {error:rest}")
    line = f"2026-11-22 06:01:55,791 INFO fx Tool '{tool}' failed after {ms}ms: {error}"
    assert read(line) == {
        "time": "2026-11-22 06:01:55,791", "level": "info", "tool": tool, "ms": str(ms), "error": error,
    }  # fmt: skip


def test_lines_made_to_be_slow_are_not() -> None:
    """A place is never tried a second time: a quadratic reader would be at this for minutes."""
    parts = ["Message: {", '{"', '\\"', '"\\', "[", " - ", "a=", "' failed after ", " | ", "1", " ", "{}"]
    begins = ["", "2026-11-22T03:14:07Z [s] [i] Message: {", "INFO Tool '", "x | ", "a=", 'a="', "a={"]
    for template in TEMPLATES:
        read = compile_template(template)
        for begin in begins:
            for part in parts:
                line = begin + part * ((1 << 16) // len(part))
                read(line)


@given(JSON.filter(lambda value: isinstance(value, dict | list)), st.text(max_size=5), st.booleans())
def test_where_a_json_text_ends(value: Any, behind: str, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert json_end("x" + text + behind, 1) == len(text) + 1
    assert json_end(text[:-1], 0) is None
    assert parse_cut_json(text) == value


@given(JSON.filter(lambda value: isinstance(value, dict)), st.data())
def test_a_cut_json_text_gives_what_stands_before_the_cut(value: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(value)
    read = parse_cut_json(text[: data.draw(st.integers(1, len(text)))])
    assert isinstance(read, dict)
    names = list(value)
    assert list(read) == names[: len(read)]
    for name in list(read)[:-1]:  # what precedes the last is whole
        assert read[name] == value[name]


def test_what_is_read_of_a_damaged_json_text() -> None:
    text = '{"jsonrpc":"2.0","id":2,"result":{"content":[{"type":"text","text":"a m...[99 truncated]..., "q" x"}]}}'
    assert parse_cut_json(text) == {
        "jsonrpc": "2.0", "id": 2, "result": {"content": [{"type": "text", "text": "a m...[99 truncated]..., "}]},
    }  # fmt: skip
    assert parse_cut_json('{"a": 12') == {}  # perhaps it was 123
    assert parse_cut_json('{"a": 12, "b": tru') == {"a": 12}
    assert parse_cut_json('{"a": "b", "c') == {"a": "b"}
    assert parse_cut_json('[{"a": [1, {"b": "c"') == [{"a": [1, {"b": "c"}]}]
    assert parse_cut_json("text") is None
    assert parse_cut_json("") is None


@given(st.text(alphabet=st.sampled_from('{}[]",:\\ a1'), max_size=60))
def test_reading_damaged_json_never_raises(text: str) -> None:
    parse_cut_json(text)
    json_end(text, 0)


@pytest.mark.parametrize("part", ['{"a":', "[", '[{"', '{"a":"b",', '"', "[[],", '{"a":[],'])
def test_deep_and_long_damaged_json_is_read_in_time(part: str) -> None:
    parse_cut_json(part * (200_000 // len(part)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22T03:14:07.123Z", "2026-11-22T03:14:07.123Z"),
        ("2026-11-22 03:14:07,123 INFO", "2026-11-22 03:14:07,123"),
        ("2026-11-22 03:14:07 +01:00", "2026-11-22 03:14:07 +01:00"),
        ("2026-11-22 03:14:07 UTC", "2026-11-22 03:14:07 UTC"),
        ("2026/11/22 03:14:07.5", "2026-11-22T03:14:07.5"),
        ("22/Nov/2026:03:14:07 +0100", "2026-11-22T03:14:07+0100"),
        ("22/Nox/2026:03:14:07 +0100", None),
        ("11/22/26 03:14:07", "2026-11-22T03:14:07"),
        ("3:14", None),
    ],
)
def test_times_in_their_spellings(text: str, expected: str | None) -> None:
    moment = read_moment("x" + text, 1)
    assert (moment.time if moment else None) == expected
    if moment is not None:
        assert parse_rfc3339(moment.time) is not None
