"""`mcpwatch inspect` says what each format of a log tells and lacks, and writes a first mapping for a new one."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.functional.program import MCPWATCH, Home, records

RPC = [
    '2026-11-22T03:14:07.410Z [files] [info] Message from client: {"method":"tools/call","params":'
    '{"name":"read_file","arguments":{"path":"/a"}},"jsonrpc":"2.0","id":2} { metadata: undefined }',
    '2026-11-22T03:14:07.573Z [files] [info] Message from server: {"jsonrpc":"2.0","id":2,"result":{"content":[]}}'
    " { metadata: undefined }",
    '2026-11-22T03:14:08.410Z [files] [info] Message from client: {"method":"tools/call","params":'
    '{"name":"read_file","arguments":{"path":"/b"}},"jsonrpc":"2.0","id":3} { metadata: undefined }',
]
ACCESS = '203.0.113.9 - - [22/Nov/2026:03:14:07 +0000] "POST /mcp HTTP/1.1" {} 30 "-" "curl/7"'
NATIVE = (
    '{"timestamp":"2026-11-22T03:14:07Z","tool":"add","params":{},"session_id":"s","status":"success",'
    '"duration_ms":4}'
)
CALLS = [{"fn": "read_page", "parameters": {"path": "/a"}, "verdict": "fine", "tookMs": 4.5},
         {"fn": "write_page", "parameters": {"path": "/b"}, "verdict": "refused", "tookMs": 5}]  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def acme(number: int) -> str:
    return json.dumps(
        {"meta": {"when": f"2026-11-22T03:14:{number:02d}Z"}, "who": {"userName": "ann"}, "calls": CALLS}
    )


def log(home: Home, *lines: str, name: str = "mixed.log") -> str:
    (home.folder / name).write_text("".join(line + "\n" for line in lines))
    return name


def test_each_format_of_a_mixed_log_by_itself(home: Home) -> None:
    name = log(
        home, NATIVE, *RPC, ACCESS.format(200), ACCESS.format(401), "mcp-1  | " + NATIVE,
        '{"toolName":"x","status":"zonk"}', "no record",
        '2026-11-22T03:14:07Z stdout P {"tool":',
    )  # fmt: skip
    (found,) = records(home.run("inspect", name, "--json").stdout, "inspect")
    formats = {one["format"]: one for one in found["formats"]}
    assert set(formats) == {"native", "claude-desktop", "access-log", "compose > native", "generic"}
    assert sum(one["events"] for one in formats.values()) == found["events"]
    assert formats["native"]["fields"]["duration"] == {"have": 1, "of": 1}
    assert formats["native"]["outcomes"] == {"success": 1}
    # a call whose end was met is one event, with the outcome and the duration of its end
    desktop = formats["claude-desktop"]
    assert (desktop["records"], desktop["events"], desktop["tool_calls"]) == (3, 2, 2)
    assert desktop["outcomes"] == {"success": 1, "unknown": 1}
    assert desktop["fields"]["duration"] == {"have": 1, "of": 2}
    assert found["calls_without_end"] == 1
    assert found["records_without_end"] == 1
    # HTTP 200 is no success
    assert formats["access-log"]["outcomes"] == {"unknown": 1, "unauthenticated": 1}
    assert formats["access-log"]["advice"]
    assert formats["native"]["advice"] == {}
    assert formats["generic"]["unknown_words"] == {"zonk": 1}
    assert found["not_understood"] == 1


def test_the_same_for_people_fits_into_80_columns(home: Home) -> None:
    name = log(home, *RPC, ACCESS.format(200), '{"toolName":"x","status":"zonk"}', "x" * 300)
    told = home.run("inspect", name).stdout
    for said in (
        "mixed.log: claude-desktop, 80% understood\n",
        "6 lines = 4 understood + 1 not understood + 0 blank + 0 repeated + 1 joined",
        "\n  claude-desktop (",
        "3 records, 2 events, 2 tool calls",
        "outcomes: success 1, unknown 1",
        "for tool: ",
        "words for outcomes of which nothing is known: zonk (1)",
        "a logging middleware",
        "1 call without an end",
        "1 x not JSON",
        "inspect FILE --suggest",
    ):
        assert said in told
    evidence = [line for line in told.splitlines() if "xxx" in line]
    assert all(len(line) <= 80 for line in told.splitlines() if line not in evidence)
    assert len(evidence[0]) > 80  # whole where it is kept or searched

    leader, follower = pty.openpty()
    done = subprocess.run(
        [MCPWATCH, "inspect", name],
        cwd=home.folder,
        env=home.environment() | {"COLUMNS": "80"},
        stdout=follower,
    )
    os.close(follower)
    screen = os.read(leader, 65_536).decode()
    os.close(leader)
    assert done.returncode == 0
    assert "xxx" in screen
    assert all(len(line) <= 80 for line in screen.splitlines())


def test_the_first_call_is_shown_as_it_was_read(home: Home) -> None:
    """A wrong unit, place or word in a mapping file shows at once; nothing secret does."""
    secret = "ghp_" + "4f9aC1x8Qe7LmN2pRt6vWz3y" + "aB3dE5gH7jK9"
    name = log(home, *(json.dumps({"at": 1795317247 + n, "fn": "add", "who": "ann", "kw": {"path": "/a", "n": n},
                                   "key": secret, "secs": 1.5}) for n in range(3)))  # fmt: skip
    (home.folder / "mine").mkdir()
    mapping = """name: acme
match: {fn: {present: true}}
fields: {timestamp: at, tool: fn, params: kw, subject: who, key_id: key, duration: secs}
"""
    for units, said in (
        ("", "first call: 2026-11-22T03:14:07.000000Z, add, /a, unknown, 1.5 ms, key "),
        ("units: {timestamp: ms, duration: s}", "first call: 1970-01-21T18:41:57.247000Z, add, /a, unknown, 1,500"),
    ):  # fmt: skip
        (home.folder / "mine" / "acme.yaml").write_text(mapping + units)
        told = " ".join(home.run("inspect", name, "--formats", "mine").stdout.split())
        assert said in told
        assert ", user ann" in told
        assert secret not in told
    # the end of a call that is logged in two lines belongs to it
    told = " ".join(home.run("inspect", log(home, *RPC)).stdout.split())
    assert "first call: 2026-11-22T03:14:07.410000Z, read_file, /a, success, 163 ms" in told


def test_calls_that_name_nobody_are_told_because_no_rule_sees_them(home: Home) -> None:
    nobody, address = '{"tool":"a","params":{}}', '{"tool":"a","params":{},"source_ip":"203.0.113.9"}'
    told = " ".join(home.run("inspect", log(home, nobody, address, nobody)).stdout.split())
    assert "2 of 3 events without client, key, session, user or address: rules go by callers" in told
    told = home.run("inspect", log(home, address)).stdout
    assert "rules go by callers" not in told


def test_it_names_what_is_missing_and_shows_each_reason(home: Home) -> None:
    """Parameters alone, or the tool alone; a reason of which there is much hides no other."""
    told = home.run("inspect", log(home, '{"tool":"a"}', "[]", *["text"] * 40)).stdout
    assert "0%   parameters missing in 1 of 1" in told
    assert told.count("text\n") == 5
    assert ": []\n" in told
    assert "... and 35 more" in told
    told = home.run("inspect", log(home, *["text"] * 40), "--all").stdout
    assert told.count("text\n") == 40
    assert told.startswith("mixed.log: no known format, 0% understood\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('time=2026-11-20T08:00:05Z msg="call" fn=file_read', "inspect FILE --suggest"),
        ('2026-11-20T08:00:05Z app: {"fn": "x"}', "inspect FILE --suggest"),
        ('{"fn": "x"}', "inspect FILE --suggest"),
        ("2026-11-20T08:00:05Z x took 4ms", "write a mapping file with `shape: text`"),
    ],
)
def test_what_to_do_with_lines_that_nothing_reads(home: Home, line: str, said: str) -> None:
    told = home.run("inspect", log(home, line)).stdout
    assert said in told
    assert ("--suggest" in told) == ("--suggest" in said)


def test_a_suggestion_reads_its_log(home: Home) -> None:
    name = log(home, *map(acme, range(20)), NATIVE, "no record", name="Acme Gate.jsonl")
    (home.folder / "mine").mkdir()
    done = home.run("inspect", name, "--suggest")
    assert (done.returncode, done.stderr) == (0, "")
    assert "name: acme-gate\n" in done.stdout
    (home.folder / "mine" / "acme.yaml").write_text(done.stdout)
    (found,) = records(home.run("inspect", name, "--formats", "mine", "--json").stdout, "inspect")
    formats = {one["format"]: one for one in found["formats"]}
    assert set(formats) == {"acme-gate", "native"}
    acmes = formats["acme-gate"]
    assert (acmes["records"], acmes["events"], acmes["outcomes"]) == (20, 40, {"success": 20, "denied": 20})
    assert all(field == {"have": 40, "of": 40} for field in acmes["fields"].values())
    again = home.run("inspect", name, "--suggest", "--formats", "mine")
    assert again.returncode == 3  # nothing is left to suggest


@pytest.mark.parametrize(
    "record",
    ['{{"fn": "add", "kwargs": {{"a": {0}}}, "who": "ann"}}', 'fn=add who=ann kwargs="{{\\"a\\": {0}}}"'],
)
def test_a_suggestion_for_records_behind_what_a_logging_set_up_writes(home: Home, record: str) -> None:
    name = log(
        home,
        *(f"2026-11-22 03:14:{number:02d},250 INFO audit: {record.format(number)}" for number in range(9)),
    )
    (home.folder / "mine").mkdir()
    (home.folder / "mine" / "own.yaml").write_text(home.run("inspect", name, "--suggest").stdout)
    (found,) = records(home.run("inspect", name, "--formats", "mine", "--json").stdout, "inspect")
    (own,) = found["formats"]
    assert (own["format"], own["tool_calls"], found["not_understood"]) == ("mixed", 9, 0)
    for field in ("time", "tool and parameters", "client"):
        assert own["fields"][field] == {"have": 9, "of": 9}


def test_where_there_is_nothing_to_suggest_it_says_so(home: Home) -> None:
    for lines, said in (
        ((NATIVE,), "no JSON or logfmt records in it that no format knows"),
        (("text",), "no JSON or logfmt records in it that no format knows"),
        (('{"a":1}',), "neither a tool nor a time can be found"),
    ):
        done = home.run("inspect", log(home, *lines), "--suggest")
        assert (done.returncode, done.stdout) == (3, "")
        assert said in done.stderr
    done = home.run("inspect", "a", "b", "--suggest")
    assert done.returncode == 2
    assert "--suggest takes one FILE" in done.stderr


def test_hostile_words_and_names_are_shown_as_text(home: Home) -> None:
    name = log(
        home,
        '{"tool":"\\u001b[2J","status":"\\u001b]0;x\\u0007"}',
        "\x1b[2Jx",
        '{"\\u001b[2J":1,"fn":"\\u001b[1m"}',
    )
    for arguments in ([], ["--json"], ["--suggest"]):
        done = home.run("inspect", name, *arguments)
        assert "\x1b" not in done.stdout + done.stderr
