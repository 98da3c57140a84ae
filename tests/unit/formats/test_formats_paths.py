"""Paths lead where they say, whatever the record is; conditions hold for what they name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcpwatch.formats import conditions
from mcpwatch.formats.paths import (
    CUT,
    MAX_ELEMENTS,
    OUTER,
    PathError,
    TooMany,
    compile_each,
    compile_path,
    json_in,
    word_of,
)

RECORD: dict[str, Any] = {
    "tool": "read",
    "meta": {"when": 1, "deep": {"er": {"x": 2}}},
    "a.b": "whole",
    "a": {"b": "nested", "c": "only nested", "b.c": {"d": "half"}},
    "gen_ai": {"tool.name": "middle", "tool": {"name": "inner", "id": 7}},
    "list": [{"n": 1}, {"n": 2}, ["x", "y"]],
    "tags": [{"key": "mcp.tool", "value": "t"}, {"key": 3, "value": "three"}, {"key": True, "value": "yes"}],
    "payload": '{"name": "add", "arguments": {"a": [1, {"b": 2}]}}',
    "items": '[{"x": 1}]',
    "cut": '{"name": "write", "arguments": {"path": "/x", "content": "aaaa',
    "text": "no json",
    "null": None,
    "request": {"headers": {"mcp-name": ["read_file"], "X-Other": "o"}},
    "resp_Headers": {"MCP-Session-Id": "s"},
    "not_a_header": {"Mcp-Name": "n"},
    "with blank": {"[odd]": 1, "dot.ted": 2},
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("tool", "read"), ("none", None), ("meta.when", 1), ("meta.none", None), ("meta.deep.er.x", 2),
        ("meta.deep.er.x.y", None), ("tool.x", None), ("null", None), ("null.x", None),
        ("a.b", "whole"), ('a."b"', "nested"), ("a.c", "only nested"), ("a.b.c.d", "half"),
        ("gen_ai.tool.name", "middle"), ('gen_ai.tool."name"', "inner"), ("gen_ai.tool.id", 7),
        ("list[0].n", 1), ("list[1].n", 2), ("list[-1][0]", "x"), ("list[3]", None), ("list[-4]", None),
        ("list.1.n", 2), ("list.9.n", None), ("list.n", None), ("meta[0]", None),
        ("tags[key=mcp.tool].value", "t"), ("tags[key=3].value", "three"), ("tags[key=true].value", "yes"),
        ("tags[key=none].value", None), ("meta[key=x]", None),
        ("payload.name", "add"), ("payload.arguments.a[1].b", 2), ("payload[0]", None), ("items[0].x", 1),
        ("items[x=1].x", 1), ("cut.name", "write"), ("cut.arguments.path", "/x"), ("text.x", None),
        ("cut.arguments", {"path": "/x", CUT[0]: CUT[1]}),
        ("request.headers.Mcp-Name", ["read_file"]), ("request.headers.x-other", "o"),
        ("resp_Headers.Mcp-Session-Id", "s"), ("not_a_header.mcp-name", None),
        ('"with blank"."dot.ted"', 2), ("with blank.dot.ted", 2), ('with blank."[odd]"', 1),
    ],
)  # fmt: skip
def test_a_path_leads_where_it_says(path: str, value: object) -> None:
    found = compile_path(path)
    assert found.get(RECORD) == value
    if value is not None:
        assert not found.roots.isdisjoint(RECORD)


@pytest.mark.parametrize(
    "path",
    ["", ".", "a.", ".a", "a..b", "a[", "a]", "a[x]", "[0]", "a.[0]", 'a"b"', 'a."b', "a[9999999]", "a[=x]",
     "a[]", "a[].b", "a" + ".a" * 40],
)  # fmt: skip
def test_what_is_no_path_is_refused_with_a_reason(path: str) -> None:
    with pytest.raises(PathError, match=r"\w"):
        compile_path(path)


@pytest.mark.parametrize("path", ["a", "a[].b", "[]", "a.b", "a[0]"])
def test_a_path_to_elements_ends_in_brackets(path: str) -> None:
    with pytest.raises(PathError):
        compile_each(path)


def test_each_element_knows_the_record_around_it_and_nobody_can_pretend_to_be_that() -> None:
    record = {
        "id": 1,
        "calls": [{"n": 1}, {"n": 2, OUTER: {"id": "forged"}, f"{OUTER}.id": "forged"}, "text"],
    }
    found = compile_each("calls[]").elements(record)
    assert [compile_path("^.id").get(element) for element in found] == [1, 1, 1]
    assert [compile_path("n").get(element) for element in found] == [1, 2, None]
    assert compile_path("value").get(found[2]) == "text"
    assert record == {
        "id": 1,
        "calls": [{"n": 1}, {"n": 2, OUTER: {"id": "forged"}, f"{OUTER}.id": "forged"}, "text"],
    }


def test_elements_of_elements_know_all_that_is_around_them() -> None:
    record = {
        "run": 7,
        "agents": [{"name": "a", "calls": [{"t": 1}, {"t": 2}]}, {"name": "b", "calls": {"t": 3}}],
    }
    found = compile_each("agents[].calls[]").elements(record)
    seen = [[compile_path(path).get(each) for path in ("t", "^.name", "^.^.run")] for each in found]
    assert seen == [[1, "a", 7], [2, "a", 7], [3, "b", 7]]


@pytest.mark.parametrize("calls", [None, 1, "text", "{}x", True, 1.5])
def test_where_there_is_no_list_there_are_no_elements(calls: object) -> None:
    assert compile_each("calls[]").elements({"calls": calls}) == []


def test_elements_may_stand_in_a_text_and_are_not_without_end() -> None:
    assert len(compile_each("calls[]").elements({"calls": '[{"x": 1}, {"x": 2}]'})) == 2
    with pytest.raises(TooMany):
        compile_each("calls[]").elements({"calls": [0] * (MAX_ELEMENTS + 1)})
    with pytest.raises(TooMany):
        compile_each("a[].b[]").elements({"a": [{"b": [0] * 200}] * 100})


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "b", "a.b", "b.c", "headers", "^", "0", "c"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)
nested = json_values | json_values.map(lambda value: {"a": json.dumps(value)}) | json_values.map(json.dumps)
some_paths = st.sampled_from(
    [
        "a",
        "a.b",
        "a.b.c",
        'a."b.c"',
        "a[0]",
        "a[-1].b",
        "a[b=1].c",
        "a[b=null]",
        "a.headers.B",
        "^.a",
        "a.0.b",
    ]
)


def plainly(record: Any, names: list[str]) -> Any:
    """What a path of plain names means, by the words of its definition."""
    if not names:
        return record
    if isinstance(record, str):
        record = json_in(record)
    if isinstance(record, dict):
        for count in range(len(names), 0, -1):
            inner = record.get(".".join(names[:count]))
            if inner is not None and (found := plainly(inner, names[count:])) is not None:
                return found
    return None


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "a.b", "a.b.c", "^"]), nested, max_size=4), some_paths)
def test_whatever_the_record_a_path_never_raises(record: dict[str, Any], path: str) -> None:
    compile_path(path).get(record)


@settings(max_examples=600, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["a", "b", "a.b", "a.b.c", "a.b.c.d"]), nested, max_size=4),
    st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=4),
)
@example({"a": {"b": None, "b.c": 1}, "a.b": {"c": None}}, ["a", "b", "c"])
@example({"a.b": {"c": 1}, "a": {"b": {"c": 2}}}, ["a", "b", "c"])
@example({"a": {"b": {"c": {"d": 1}}}, "a.b": 5}, ["a", "b", "c", "d"])
def test_the_quick_way_down_plain_names_finds_what_the_definition_says(
    record: dict[str, Any], names: list[str]
) -> None:
    assert repr(compile_path(".".join(names)).get(record)) == repr(plainly(record, names))


def test_json_in_a_text_has_limits() -> None:
    for text in (
        "[" * 101 + "]" * 101,
        "{" + '"a":{' * 5_000,
        "[" * 500_000,
        '{"a":"' + "x" * (1 << 20) + '"}',
    ):
        assert json_in(text) is None
    assert json_in("[" * 100 + "]" * 100) is not None
    assert json_in('{"n": ' + "9" * 5_000 + "}") == {"n": "9" * 5_000}
    assert json_in("[redacted]") is None


@pytest.mark.parametrize(
    ("test", "yes", "no"),
    [
        (
            conditions.equals(["a", "1", "true", "null", "1.5"]),
            ["a", 1, "1", True, None, 1.5],
            ["b", 2, False, [], {}],
        ),
        (conditions.differs(["a", "200"]), ["b", None, 201, [], {}], ["a", 200, "200"]),
        (conditions.present(True), ["a", 0, False, [], {}], [None, "", "-", "unknown", "anonymous"]),
        (conditions.present(False), [None, "", "-"], ["a", 0, False]),
        (conditions.starts(["tools/", "x"]), ["tools/call", "x"], ["a tools/", None, 1, ["tools/"]]),
        (conditions.contains(["denied"]), ["access denied: x"], ["Denied", None, 7, ["denied"]]),
        (conditions.KINDS_OF_VALUES["text"], ["", "-"], [None, 1, [], {}]),
        (conditions.KINDS_OF_VALUES["number"], [0, 1.5, 2**70], [None, True, "1"]),
        (conditions.KINDS_OF_VALUES["object"], [{}], [None, []]),
        (conditions.KINDS_OF_VALUES["list"], [[]], [None, {}]),
        (conditions.KINDS_OF_VALUES["bool"], [True, False], [None, 0, "true"]),
    ],
)
def test_a_condition_holds_for_what_it_names(test: conditions.Test, yes: list[Any], no: list[Any]) -> None:
    assert all(map(test, yes))
    assert not any(map(test, no))


@settings(max_examples=300, deadline=None)
@given(nested, st.sampled_from([2**70, -(10**5_000), float("nan"), float("inf")]))
def test_whatever_the_value_a_condition_and_a_word_are_total(value: Any, number: Any) -> None:
    for each in (value, number):
        word = word_of(each)
        assert word is None or isinstance(word, str)
        for test in (conditions.equals(["x"]), conditions.present(True), conditions.starts(["x"])):
            assert test(each) in (True, False)


def test_a_condition_that_nothing_can_meet_without_its_name_says_which_names_it_needs() -> None:
    path = compile_path("a.b")
    assert conditions.Condition(path, conditions.equals(["x"])).roots == frozenset({"a", "a.b"})
    assert conditions.Condition(path, conditions.equals(["x", "null"])).roots is None
    assert conditions.Condition(path, conditions.present(False)).roots is None
    assert conditions.Condition(path, conditions.differs(["x"])).roots is None
