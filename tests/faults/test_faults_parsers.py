"""Rows P: input made to break, to blind or to fool what reads it, through the reader and through the program."""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcpwatch.detection.rulefile import parse as parse_rule
from mcpwatch.documents.tree import DocumentError
from mcpwatch.event import Flag
from mcpwatch.filter import FilterError
from mcpwatch.filter import parse as parse_filter
from mcpwatch.formats.mappingfile import parse_mapping
from mcpwatch.formats.reader import Reader
from mcpwatch.formats.twice import said_twice
from mcpwatch.policy.load import parse as parse_policy
from mcpwatch.sources.block import Block
from mcpwatch.text import safe
from tests.faults.matrix import FULL, Figure, row
from tests.functional.program import Home, Json, records, wait_until

STAMP: Final = "2026-11-20T08:00:05Z"
GOOD: Final = b'{"timestamp":"2026-11-20T08:00:05Z","tool":"good","session_id":"s"}'

# what stands for a value in JSON; the second says whether a record with it must be understood
VALUES: Final[dict[str, tuple[bytes, bool]]] = {
    "an integer beyond 64 bits": (str(2**64).encode(), True),
    "a negative one": (str(-(2**70)).encode(), True),
    "NaN": (b"NaN", True),
    "Infinity": (b"-Infinity", True),
    "1e999": (b"1e999", True),
    "-1e400": (b"-1e400", True),
    "a number that is nearly zero": (b"1e-999", True),
    "a lone surrogate": (b'"\\ud800"', True),
    "surrogates the wrong way round": (b'"\\udc00\\ud800"', True),
    "5,000 digits": (b"9" * 5_000, True),
    "5,000 decimals": (b"0." + b"9" * 5_000, True),
    "a raw control character": (b'"a\x01\tb"', True),
    "a raw escape": (b'"\x1b]0;owned\x07"', True),
    "a NUL": (b'"a\0b"', True),
    "overlong UTF-8": (b'"\xc0\xaf\xe0\x80\xaf"', True),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', True),
    "half a character": (b'"\xe2\x82"', True),
    "a noncharacter": (b'"\xef\xbf\xbe\xf4\x8f\xbf\xbf"', True),
    "U+2028, NEL, VT, FF": ('"\u2028\x85\x0b\x0c"'.encode(), True),
    "depth 200": (b"[" * 200 + b"]" * 200, True),
    "depth 200,000": (b"[" * 200_000 + b"]" * 200_000, False),
    "objects to depth 100,000": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, False),
    "depth without end": (b"[" * 200_000, False),
    "a leading zero": (b"007", False),
    "a hexadecimal number": (b"0x1F", False),
    "an open string": (b'"abc', False),
    "-1": (b"-1", True),
    "a word": (b'"read"', True),
    "a list": (b'[1,[2],{"a":null}]', True),
    "an object": (b'{"a":[]}', True),
    "true": (b"true", True),
    "an empty text": (b'""', True),
}
FIELDS: Final = (
    "params", "timestamp", "duration_ms", "sequence", "scopes", "auth", "status", "tool", "session_id", "source_ip",
    "event", "error", "call_id", "hash", "server", "another",
)  # fmt: skip


def hostile_records() -> Iterator[tuple[bytes, bool]]:
    """Every value in every field, as native and as other records, and whether it must be understood."""
    for value, readable in VALUES.values():
        for field in FIELDS:
            record = b'{"timestamp":"2026-11-20T08:00:05Z","tool":"t","key_id":"k","%s":%s}' % (
                field.encode(),
                value,
            )
            yield record, readable
        yield b'{"ts":%s,"toolName":"t","params":{"x":%s}}' % (value, value), readable
        yield (
            b'\xef\xbb\xbf \0{"timestamp":1,"tool":"t","params":{"x":%s}}\r' % value,
            readable or value[:1] == b"\0",
        )


def adds_up(summary: Json, lines: int) -> None:
    """The counters of a summary account for every line."""
    names = ("understood", "not_understood", "blank", "repeated", "joined", "held")
    assert summary["lines"] == lines == sum(summary[name] for name in names)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def replay(
    home: Home, data: bytes, *options: str, name: str = "a.jsonl", code: int = 0
) -> tuple[list[Json], Json]:
    """The events and the summary of a replay."""
    (home.folder / name).write_bytes(data)
    done = home.run("replay", name, "--json", "--events", *options)
    assert done.returncode == code, done.stderr
    (summary,) = records(done.stdout, "summary")
    return records(done.stdout, "event"), summary


@row("P1")
def test_every_odd_value_in_every_field_is_understood_or_shown(home: Home, figure: Figure) -> None:
    """What is no JSON for any parser is counted, kept and listed; all else is read, and nothing crashes."""
    hostile = list(hostile_records())
    lines = [line for record, _ in hostile for line in (record, GOOD)]
    reader = Reader("a")
    for line, readable in hostile:
        before = reader.understood
        reader.read(Block("a", [line], 0, 1))
        assert not readable or reader.understood == before + 1, line[:100]
    assert reader.understood + reader.not_understood == reader.lines == len(hostile)
    assert sum(reader.reasons.values()) == reader.not_understood
    assert all(item.head and item.head == safe(item.head, 200) for item in reader.examples)
    events, summary = replay(home, b"\n".join(lines) + b"\n")
    adds_up(summary, len(lines))
    assert summary["understood"] == len(events) == reader.understood + len(hostile)
    assert sum(event.get("tool") == "good" for event in events) == len(hostile)
    figure(
        f"{len(hostile)} records: {reader.understood} understood, {reader.not_understood} shown as not understood, "
        "0 lost"
    )


@row("P1")
def test_a_number_is_never_another_number(home: Home) -> None:
    """orjson makes 18446744073709551616 a float in silence: here it stays what it is, to the last digit."""
    numbers = [2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**64 + 1, 10**30, -(2**63) - 1]
    kinds = (b'{"timestamp":1,"tool":"t","params":{"n":%d}}', b'{"ts":1,"toolName":"t","args":{"n":%d}}')
    lines = [kind % number for kind in kinds for number in numbers]
    events, _ = replay(home, b"\n".join(lines) + b"\n")
    assert [event["params"]["n"] for event in events] == numbers * 2


@row("P2")
def test_a_record_that_says_two_things_is_caught_and_both_are_told(home: Home, figure: Figure) -> None:
    forged = [
        ('"tool":"file_read","tool":"shell_execute"', ("tool", ("file_read", "shell_execute"))),
        ('"tool":"file_read","\\u0074ool":"shell_execute"', ("tool", ("file_read", "shell_execute"))),
        ('"tool":"t","status":"denied","status":"success"', ("status", ("denied", "success"))),
        ('"tool":"t","key_id":"a","key_id" : "b"', ("key_id", ("a", "b"))),
        ('"tool":"t","params":{"path":"/etc"},"params":{}', ("params", ('{"path": "/etc"}', "{}"))),
        ('"tool":"file_read","toolName":"shell_execute"', ("tool, toolName", ("file_read", "shell_execute"))),
    ]
    lines = [f'{{"timestamp":"{STAMP}","session_id":"s",{forgery}}}'.encode() for forgery, _ in forged]
    honest = b'{"timestamp":"%s","tool":"t","params":{"tool":{"status":"x","key_id":"y"}}}' % STAMP.encode()
    events = Reader("a").read(Block("a", [*lines, honest], 0, 1))
    assert [bool(event.flags & Flag.DUPLICATE_KEYS) for event in events] == [True] * len(lines) + [False]
    assert [said_twice(event) for event in events] == [*((said,) for _, said in forged), ()]
    read, summary = replay(home, b"\n".join([*lines, honest]) + b"\n")
    adds_up(summary, len(lines) + 1)
    assert read[0]["tool"] == read[1]["tool"] == "shell_execute"
    figure(f"{len(lines)} of {len(lines)} forgeries caught, 0 of 1 honest records")


def laughs(levels: int, link: str) -> str:
    """Each level stands for nine of the one below."""
    below = "a: &a0 {k: v}\n"
    return below + "".join(
        f"a{n}: &a{n} {{{link.format(', '.join([f'*a{n - 1}'] * 9))}}}\n" for n in range(1, levels)
    )


YAML_BOMBS: Final[dict[str, str]] = {
    "100,000 nested [": "a: " + "[" * 100_000,
    "100,000 nested {": "{a: " * 100_000,
    "aliases of aliases": laughs(12, "k: [{}]"),
    "merge keys of merge keys": laughs(12, "<<: [{}]"),
    "a million values": "a: [" + "1," * 500_000 + "]",
    "over 1 MiB": "#" * (1 << 20) + "\na: 1",
    "a key that stands twice": "version: 1\nversion: 1\n",
    "an object of Python": "a: !!python/object/apply:os.system [id]",
    "a NUL": "a: \0",
    "two marks": "\ufeff\ufeffversion: 1",
    "an endless number": "version: !!int " + "9" * 100_000,
    "a day that does not exist": "version: 9999-99-99",
    "an endless float": "version: 1e999999",
    "a tag that lies": "version: !!int 0x",
}
READERS: Final[dict[str, Any]] = {
    "policy": lambda data: parse_policy(data, Path("p.yaml")),
    "rule": lambda data: parse_rule(data, "p.yaml"),
    "mapping": lambda data: parse_mapping(data, "p.yaml", "p"),
}


@row("P3")
def test_a_yaml_bomb_is_refused_in_one_line_by_every_reader(figure: Figure) -> None:
    """PyYAML's own C loader dies of the first one, and takes the process with it."""
    for name, text in YAML_BOMBS.items():
        for kind, read in READERS.items():
            with pytest.raises(DocumentError) as caught:
                read(text.encode())
            message = str(caught.value)
            assert message.startswith("p.yaml:"), (name, kind)
            assert message == safe(message)
            assert len(message) < 400, (name, kind)
    figure(f"{len(YAML_BOMBS)} bombs refused by {len(READERS)} readers, each in one line")


@row("P3", slow=True)
def test_the_loader_that_others_use_dies_of_what_is_refused_here() -> None:
    """What the cap on depth is for: if this stops crashing, the cap can be looked at again."""
    program = "import yaml; yaml.load('[' * 100_000, yaml.CSafeLoader)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode != 0


@row("P3")
def test_a_bad_policy_mapping_or_configuration_ends_the_program_in_one_line(home: Home) -> None:
    (home.folder / "a.jsonl").write_bytes(GOOD + b"\n")
    (home.folder / "maps").mkdir()
    bad = YAML_BOMBS["100,000 nested ["]
    (home.folder / "p.yaml").write_text(bad)
    (home.folder / "maps/m.yaml").write_text(bad[:60_000])
    for options, place in ((("--policy", "p.yaml"), "p.yaml:1:"), (("--formats", "maps"), "maps/m.yaml:1:")):
        done = home.run("replay", "a.jsonl", "--json", *options)
        assert (done.returncode, done.stdout) == (3, "")
        assert place in done.stderr.splitlines()[-1]
    for text in ("a = " + "[" * 20_000, "theme = 0x" + "f" * 10_000, "#" * 300_000):
        home.configure(text)
        done = home.run("replay", "a.jsonl", "--json")
        assert (done.returncode, done.stdout) == (3, ""), text[:40]
        (line,) = done.stderr.splitlines()
        assert "config.toml" in line
        assert line == safe(line)


@row("P4")
def test_a_pattern_costs_no_more_than_the_text_is_long(figure: Figure) -> None:
    """`(a+)+$` keeps `re` busy for ever from 30 letters on: here it is text, or refused."""
    (event,) = Reader("a").read(
        Block("a", [b'{"timestamp":1,"tool":"%s!","error":"%s!"}' % (b"a" * 400, b"a" * 100_000)], 0, 1)
    )
    tried = 0
    for pattern in (
        "(a+)+$",
        "(a|a)*$",
        "(.*a){40}$",
        "*a*a*a*a*a*a*a*a*a*a*a*a*b",
        "?*" * 50 + "b",
        "[a-a]*b",
    ):
        for place in ("tool", "error", ""):
            for quoted in (pattern, json.dumps(pattern)):
                try:
                    found = parse_filter(f"{place}:{quoted}" if place else quoted)
                except FilterError:
                    continue
                tried += 1
                found.match(event, None)
    assert tried > 6
    figure(f"{tried} filters on 100,000 letters, none hangs")


def packed(kind: str, data: bytes) -> bytes:
    return gzip.compress(data) if kind == "gz" else zstd.compress(data, options=_CHECKED)


_CHECKED: Final[dict[int, int]] = {zstd.CompressionParameter.checksum_flag: 1}  # as zstd(1) does unasked


@row("P5")
@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_a_broken_compressed_log_is_read_up_to_the_break(home: Home, kind: str, figure: Figure) -> None:
    seeded = random.Random(7)
    tools = [f"{seeded.getrandbits(1_000):0250x}" for _ in range(2_000)]
    whole = packed(
        kind, b"".join(b'{"timestamp":1795000000,"tool":"%s"}\n' % tool.encode() for tool in tools)
    )
    cut = len(whole) // 2
    for data, told in (
        (whole[:cut], f"ends at byte {cut}"),
        (whole[:cut] + b"\xff" * 200 + whole[cut + 200 :], "is broken at byte"),
    ):
        (home.folder / f"a.jsonl.{kind}").write_bytes(data)
        done = home.run("replay", f"a.jsonl.{kind}", "--json", "--events")
        assert done.returncode == 3
        assert told in done.stderr.splitlines()[-1]
        (summary,) = records(done.stdout, "summary")
        adds_up(summary, summary["lines"])
        read = [event["tool"] for event in records(done.stdout, "event")]
        assert read[:600] == tools[:600]
        figure(
            f"{kind}: {len(read):,} of 2,000 records, broken at half of the file ({told.partition(' at')[0]})"
        )


@row("P5")
def test_a_broken_log_costs_the_others_nothing(home: Home) -> None:
    """Of several logs as one timeline all that can be read is read, and which one is broken is told."""
    for name, first in (("a", 1), ("b", 2)):
        lines = b"".join(b'{"timestamp":%d,"tool":"%s"}\n' % (n, name.encode()) for n in range(first, 200, 2))
        (home.folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines))
    broken = home.folder / "a.jsonl.gz"
    broken.write_bytes(broken.read_bytes()[:-60])
    done = home.run("replay", "a.jsonl.gz", "b.jsonl.gz", "--json", "--events")
    assert done.returncode == 3
    assert "a.jsonl.gz: is cut short" in done.stderr
    tools = [event["tool"] for event in records(done.stdout, "event")]
    assert tools.count("b") == 99
    assert 0 < tools.count("a") < 100


@row("P5")
def test_a_frame_that_wants_2_gib_of_memory_is_refused_unread(home: Home, figure: Figure) -> None:
    (home.folder / "window.zst").write_bytes(b"\x28\xb5\x2f\xfd\x00" + bytes([21 << 3]) + b"\x01\0\0")
    done = home.run("replay", "window.zst", "--json")
    assert done.returncode == 3
    assert "128 MiB of memory at byte 0" in done.stderr.splitlines()[-1]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    assert peak < 400
    figure(f"2 GiB window refused, peak {peak} MiB")


@row("P5", slow=True)
def test_a_bomb_ends_at_its_first_gib(home: Home, figure: Figure) -> None:
    frame = zstd.ZstdCompressor(level=3)
    bomb = b"".join(frame.compress(b"x" * (1 << 20)) for _ in range(4_096)) + frame.flush()
    (home.folder / "bomb.zst").write_bytes(bomb)
    done = home.run("replay", "bomb.zst", "--json")
    assert done.returncode == 3
    assert "decompression bomb" in done.stderr.splitlines()[-1]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    assert peak < 400
    figure(f"4 GiB in {len(bomb) // 1024} kB refused, peak {peak} MiB")


@pytest.fixture
def datagrams(tmp_path: Path) -> Iterator[tuple[Path, socket.socket]]:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.settimeout(10)
        yield path, listening


RECORD: Final = f'{{"timestamp":"{STAMP}","tool":"file_read","params":{{"path":"/x"}},"session_id":"s"}}'
TIMELESS: Final = '{"tool":"file_read","session_id":"s"}'


@row("P6")
@pytest.mark.skipif(
    shutil.which("logger") is None, reason="logger is not installed (apt-get install bsdutils)"
)
def test_what_the_real_logger_writes_is_read(
    datagrams: tuple[Path, socket.socket], home: Home, figure: Figure
) -> None:
    path, listening = datagrams
    lines = []
    for options in (
        ["--rfc3164"],
        ["--rfc5424"],
        ["--rfc5424=notime"],
        ["--rfc3164", "-i"],
        ["--rfc5424", "--id=7"],
    ):
        for text in (RECORD, TIMELESS):
            subprocess.run(["logger", "-u", str(path), *options, "-t", "mcp", text], check=True)
            lines.append(listening.recv(65_536).rstrip(b"\0\n"))
    events, summary = replay(home, b"\n".join(lines) + b"\n", name="real.log")
    adds_up(summary, len(lines))
    assert [event["tool"] for event in events] == ["file_read"] * len(lines)
    assert all(event["server"].endswith("mcp") for event in events)
    assert [event.get("time") for event in events[::2]] == ["2026-11-20T08:00:05.000000Z"] * (len(lines) // 2)
    untimed = [line for line, event in zip(lines, events, strict=True) if event.get("time") is None]
    assert len(untimed) == 1  # --rfc5424=notime says no time
    figure(f"logger: {len(events)} of {len(lines)} records")


RSYSLOGD: Final = shutil.which("rsyslogd", path="/usr/sbin:/sbin:/usr/bin")
TEMPLATES: Final = ("TraditionalFileFormat", "FileFormat", "SyslogProtocol23Format")


@row("P6")
@pytest.mark.skipif(RSYSLOGD is None, reason="rsyslogd is not installed (apt-get install rsyslog)")
def test_what_the_real_rsyslogd_writes_is_read_and_nobody_forges_a_record_in_it(
    home: Home, figure: Figure
) -> None:
    assert RSYSLOGD is not None
    folder = home.folder
    actions = [
        f'*.* action(type="omfile" file="{folder}/{name}.log" template="RSYSLOG_{name}")'
        for name in TEMPLATES
    ]
    (folder / "rsyslog.conf").write_text(
        "\n".join(
            [
                'global(workDirectory="' + str(folder) + '" parser.escapeControlCharactersOnReceive="on")',
                'module(load="imuxsock" SysSock.Use="off")',
                f'input(type="imuxsock" Socket="{folder}/log" CreatePath="off")',
                *actions,
            ]
        )
        + "\n"
    )
    command = [RSYSLOGD, "-n", "-f", str(folder / "rsyslog.conf"), "-i", str(folder / "pid")]
    forged = 'text\n<34>1 2026-11-22T03:14:07Z h mcp - - - {"tool":"forged"}'
    texts = [RECORD, TIMELESS, "@cee:" + RECORD, forged, RECORD.replace("/x", "/\\u00e9/é")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as daemon:
        try:
            wait_until((folder / "log").exists, "rsyslogd's socket")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
                for text in texts:
                    sending.sendto(b"<13>Nov 22 03:14:07 mcp[77]: " + text.encode(), str(folder / "log"))
            last = folder / f"{TEMPLATES[-1]}.log"
            wait_until(
                lambda: last.exists() and last.read_bytes().count(b"\n") >= len(texts), "rsyslogd's files"
            )
        finally:
            daemon.terminate()
    total = 0
    for name in TEMPLATES:
        done = home.run("replay", f"{name}.log", "--json", "--events")
        events = records(done.stdout, "event")
        assert [event["tool"] for event in events] == ["file_read"] * 4, name
        assert all(event["server"].endswith("/mcp") and event.get("time") for event in events)
        total += len(events)
        (inspected,) = map(json.loads, home.run("inspect", f"{name}.log", "--json").stdout.splitlines())
        assert inspected["format"] == f"syslog {5424 if '23' in name else 3164} > native"
    figure(f"rsyslogd: {total} of {4 * len(TEMPLATES)} records in {len(TEMPLATES)} formats, 0 forged")


JOURNALD: Final = Path("/lib/systemd/systemd-journald")
# a namespace of its own: the machine's journal is neither read nor written
NAMESPACE: Final = """
set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/journal /run/systemd/journald.conf.d
printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nForwardToWall=no\\n' > /run/systemd/journald.conf.d/test.conf
mount --bind "$1/machine-id" /etc/machine-id
/lib/systemd/systemd-journald 2>/dev/null &
for n in $(seq 100); do [ -S /run/systemd/journal/socket ] && break; sleep 0.05; done
"$2" "$1/send.py" "$1"
for n in $(seq 100); do
  journalctl --no-pager -q -o json -t mcp > "$1/journal" && [ "$(wc -l < "$1/journal")" -ge 6 ] && break; sleep 0.05
done
journalctl --no-pager -q -o json --all -t mcp > "$1/journal-all"
kill %1
"""
SEND: Final = """
import pathlib, socket, subprocess, sys
folder = pathlib.Path(sys.argv[1])
record, timeless = (folder / name for name in ("record", "timeless"))
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def send(*messages):
    fields = b"".join(b"MESSAGE\\n" + len(m).to_bytes(8, "little") + m + b"\\n" for m in messages)
    s.sendto(fields + b"SYSLOG_IDENTIFIER=mcp\\n", "/run/systemd/journal/socket")
subprocess.run(["logger", "-u", "/run/systemd/journal/dev-log", "-t", "mcp", record.read_text()], check=True)
send(timeless.read_bytes())
send(b'{"tool":"a\\xffb"}')
send(b'{"tool":"big","params":{"x":"' + b"x" * 5000 + b'"}}')
send(b'text\\n{"tool":"forged"}')
send(b'{"tool":"first"}', b'{"tool":"last"}')
"""


@row("P6")
@pytest.mark.skipif(
    os.geteuid() != 0 or not JOURNALD.exists() or shutil.which("journalctl") is None
    or not Path("/etc/machine-id").exists(),
    reason="needs root, and systemd-journald",
)  # fmt: skip
def test_what_the_real_journal_holds_is_read(home: Home, figure: Figure) -> None:
    """By `journalctl -o json`: text, bytes, one message that is left out, one of two lines, one entry with two."""
    for name, text in (
        ("record", RECORD),
        ("timeless", TIMELESS),
        ("send.py", SEND),
        ("machine-id", "a" * 32),
    ):
        (home.folder / name).write_text(text)
    command = ["unshare", "-m", "-p", "-f", "--mount-proc", "bash", "-c", NAMESPACE, "-", str(home.folder)]
    done = subprocess.run([*command, sys.executable], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0 and "Operation not permitted" in done.stderr:
        pytest.skip("no namespaces here")
    assert done.returncode == 0, done.stderr
    for name, tools in (
        ("journal", ["file_read", "file_read", "a\\xffb", "last"]),
        ("journal-all", ["file_read", "file_read", "a\\xffb", "big", "last"]),
    ):
        run = home.run("replay", name, "--json", "--events")
        events = records(run.stdout, "event")
        assert [event["tool"] for event in events] == tools
        (summary,) = records(run.stdout, "summary")
        adds_up(summary, 6)
        assert all(event.get("time") for event in events)
    shown = home.run("inspect", "journal").stdout
    assert "journal > native" in shown
    assert "write it out with journalctl --all" in " ".join(shown.split())
    figure("systemd-journald: 5 of 5 records with --all, 0 forged")


line_parts = st.sampled_from(
    [
        b'{"timestamp":1,', b'"tool":"t"', b"}", b"{", b",", b"\n", b"\r\n", b"\0", b"\xef\xbb\xbf", b"\xff",
        b'"\\ud800"', b'"x"', b"[123,125]", b"null", b"\\u0074", b"[" * 3_000, b"@cee:", b"Nov 22 03:14:07 h mcp: ",
        b"<34>1 2026-11-22T03:14:07Z h a - - - ", b"2026-11-22T03:14:07Z h mcp[1]: ",
        b'{"__REALTIME_TIMESTAMP":"1795317247123456","MESSAGE":',
    ]
)  # fmt: skip


@row("P7")
@settings(max_examples=3_000 if FULL else 300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(line_parts | st.binary(max_size=12), max_size=30).map(b"".join), st.booleans())
def test_whatever_the_bytes_the_counters_add_up(data: bytes, live: bool) -> None:
    block = Block("a", data.split(b"\n"), 0, 1)
    if len(data) % 3 == 0:
        block.repeats = frozenset(range(0, len(block.lines), 2))
    reader = Reader("a")
    events = reader.read(block, 1_795_132_800 * 10**9 if live else None)
    counted = (reader.understood, reader.not_understood, reader.blank, reader.repeated, reader.joined)
    assert reader.lines == len(block.lines) == sum(counted)
    assert len(events) == reader.understood == sum(reader.formats.values())
    for event in events:
        assert bool(said_twice(event)) or not event.flags & Flag.DUPLICATE_KEYS


yaml_parts = st.sampled_from(
    [
        "version: 1\n", "tools:\n", "  t: ", "{allowed_paths: [a]}\n", "keys: ", "revoked:\n  - ", "{key: a, at: ",
        "fields: ", "{tool: [a.b, c]}\n", "match: ", "status: {0: denied}\n", "title: x\n", "id: x\n", "detection:\n",
        "&a ", "*a", "[", "]", "{", "}", ": ", "\n", "- ", "!!int ", "0x", "9999-99-99", "1e999", "'", '"', "|\n",
        "<<: ", "\ufeff", "\t", "é", "~",
    ]
)  # fmt: skip


@row("P7")
@settings(max_examples=3_000 if FULL else 300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(yaml_parts, max_size=24).map("".join).map(str.encode) | st.binary(max_size=30))
def test_whatever_the_bytes_a_document_is_read_or_refused_in_one_line(data: bytes) -> None:
    for read in READERS.values():
        try:
            read(data)
        except DocumentError as error:
            assert str(error) == safe(str(error))


FUZZED: Final = ("transports", "lines", "compressed", "documents", "mappings", "rules", "policies")


@row("P7", slow=True)
@pytest.mark.parametrize(
    "target", ["transports", "lines", "compressed", "documents", "mappings", "rules", "policies"]
)
def test_coverage_guided_search_finds_nothing(target: str, tmp_path: Path, figure: Figure) -> None:
    """A minute of `make fuzz` for each target, where atheris is installed."""
    pytest.importorskip("atheris")
    script = Path(__file__).parents[1] / "fuzz/fuzz_inputs.py"
    options = [target, "-max_total_time=60", "-max_len=4096", "-print_final_stats=1"]
    done = subprocess.run(
        [sys.executable, str(script), *options], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    (executed,) = [
        line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line
    ]
    figure(f"{target}: {int(executed):,} executions")
