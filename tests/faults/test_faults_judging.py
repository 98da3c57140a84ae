"""What one line of a log can cost: a megabyte that is made to be slow to judge, and what it must not hide."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from mcpwatch.detection.engine import Engine
from mcpwatch.detection.hit import Hit, Severity
from mcpwatch.event import AuditEvent
from mcpwatch.formats.reader import Reader
from mcpwatch.policy.judge import Judge
from mcpwatch.policy.load import parse
from mcpwatch.policy.verdict import Finding
from mcpwatch.sources.block import Block
from tests.faults.matrix import FULL, Figure, row

SIZE: Final = 1 << 20 if FULL else 1 << 17
"""Bytes of a line, about; the longest that are read are 1 MiB."""
LIMIT: Final = 1.0
"""Seconds of this process for one line."""

POLICY: Final = parse(
    b"""version: 1
tools:
  file_read: {allowed_paths: ["/app/data/", "/app/public/"], require_scope: read}
  http_request: {allowed_domains: ["api.openai.com", "*.example.com"], require_scope: network}
  shell_execute: {require_audit_log: true}
  note: {risk: low}
keys:
  key_0001: {client: billing-bot, owner: payments, scopes: [read, network], created: 2026-11-01}
revoked:
  - {session: s9, at: "2026-11-19T00:00:00Z", by: a, reason: b}
""",
    None,
)

# Pieces that a text is filled with: whatever some pattern begins with, repeats or looks for.
PIECES: Final = (
    "lorem ipsum dolor ", "x", "/", "../", "a/../", "./", ".", "a.b.c.", "a ", "\t", "\n", "\\", "\\x2e", "c:\\a\\",
    "%25", "%2e%2e%2f", "%", "%%3", "%u002e", "a%41", "%20sk-", "%%32%65", "a%2525252e", "https://", "https://a ",
    "http://u:p@h", "://a:", "@", "a@", "QWxhZGRpbjpvcGVu", "=", "key=", "password=x ", "secret: [", "--token ",
    "--a-", "mysql -u ", '"name":"token","value":', "bearer ", "Cookie: ", '"', "\"a'", "'", "e\u0301\u0327\u0300",
    "\u1112\u1161\u11ab", "\ufdfa", "\u200b", "a\u200b", "\x1b[", "\u202e", "\U0001f3f4\U000e0061",
    "\U0001f3f4\U000e0061\U000e0062\U000e007f", "\ufe00", "\uff0e\uff0f", "\u00e9.", "rm -rf a; echo $(id) & nc x ",
    ";|&$(", "$(", "`", "~/", "/a;b=c", "[", "{", '[{"a":', "[],", "eyJ", "eyJaaaaaaaaaa.eyJ", "sk-",
    "sk-ant-api03-", "ghp_", "AKIA", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "1234567890:AA",
    "-----BEGIN RSA PRIVATE KEY-----\n" + "A" * 41, "SG.aaaaaaaaaaaaaaaaaaaaaa.", "glpat-", "AccountKey=",
    "pypi-AgEIcHlwaS5vcmc", "xoxb-1234567890-", "runcated", "[truncated", "...[1 chars truncated", "[REDACTED]",
    "/etc/passwd ", "/etc/", "/proc/self/root/", ".ssh/", ".env ", "etc ", "\n+++ a", "*** Add File: a\n",
    "crontab -", "x:", "1.", "0x7f.", "[::", "xn--a.", "&#x2e;", "file://", "1.1.1.1.nip.io.", "api_key_", "aB",
)  # fmt: skip

Record = dict[str, Any]


def record(**given: Any) -> Record:
    """A call by a known key."""
    return {
        "timestamp": "2026-11-20T08:00:00Z", "event": "tool_call", "tool": "note", "params": {"a": 1},
        "status": "success", "duration_ms": 1, "key_id": "key_0001", "client_id": "c", "session_id": "s1",
        "source_ip": "10.0.0.1", "scopes": ["read", "network"], **given,
    }  # fmt: skip


IDS: Final = ("key_id", "client_id", "session_id", "source_ip", "call_id", "server")
PLACES: Final[dict[str, Callable[[str], Record]]] = {
    "a command": lambda text: record(tool="shell_execute", params={"command": text}),
    "a path": lambda text: record(tool="file_read", params={"path": "/app/data/" + text}),
    "a URL": lambda text: record(tool="http_request", params={"url": text}),
    "a host": lambda text: record(tool="http_request", params={"url": "https://" + text}),
    "a parameter": lambda text: record(params={"q": text}),
    "prose": lambda text: record(params={"text": text}),
    "a name": lambda text: record(params={text: 1}),
    "an error": lambda text: record(status="error", error=text),
    "a resource": lambda text: record(event="request", tool=None, params={"uri": text}),
    "a tool": lambda text: record(tool=text),
    "every id": lambda text: record(
        **dict.fromkeys(IDS, text[: len(text) // 8]),
        auth={"method": "jwt", "subject": text[: len(text) // 8], "expires_at": text[: len(text) // 8]},
    ),
    "hashes": lambda text: record(hash=text, prev_hash=text[:9], definition_sha256=text[:9]),
}  # fmt: skip


def filled(piece: str, size: int = SIZE) -> str:
    """A text of that many bytes."""
    return piece * (size // len(piece.encode("utf-8", "surrogatepass")) + 1)


def nested(depth: int) -> object:
    value: object = "x"
    for _ in range(depth):
        value = [value]
    return value


def many(make: Callable[[int], object], size: int = SIZE) -> list[object]:
    """As many values as fill that many bytes."""
    return [
        make(number)
        for number in range(size // (len(json.dumps(make(9_999), ensure_ascii=False).encode()) + 1))
    ]


VALUES: Final[dict[str, Callable[[], object]]] = {
    "short texts": lambda: many(lambda n: f"a{n}"),
    "blank texts": lambda: many(lambda _: ""),
    "empty lists": lambda: many(lambda _: []),
    "numbers": lambda: many(lambda n: n),
    "paths": lambda: many(lambda n: f"/app/data/{n}"),
    "odd paths": lambda: many(lambda n: f"/app/data/%2e/{n};a"),
    "odder paths": lambda: many(lambda n: f"/app/data/%2e/{n};a\\%25..'" + "a" * 60),
    "odd paths of 100 B": lambda: many(lambda n: "/app/data/" + "a\\b'%;d" * 10 + str(n)),
    "odd paths of 500 B": lambda: many(lambda n: "/app/data/" + "a\\b'%;d" * 60 + str(n)),
    "odd paths of 4 kB": lambda: many(lambda n: "/app/data/" + "a\\b'c;d" * 560 + str(n)),
    "wide paths of 4 kB": lambda: many(lambda n: "/app/data/" + "\uff0e\uff0f" * 600 + str(n)),
    "encoded paths of 4 kB": lambda: many(lambda n: "/app/data/" + "a;%25../" * 480 + str(n)),
    "files that matter": lambda: many(lambda n: f"/etc/passwd/../{n}" + "/.ssh/" * 8),
    "secrets": lambda: many(lambda n: f"ghp_16C7e42F292c6912E7710c838347Ae178B{n % 90 + 10}/{n}"),
    "odd URLs": lambda: many(lambda n: f"https://a{n}@api.openai.com\\%2e." + "a" * 60),
    "long URLs": lambda: many(lambda n: "https://" + "a%2e" * 4_000 + str(n)),
    "hosts beyond ASCII": lambda: many(lambda n: "https://" + "\u00e9." * 20 + str(n)),
    "long hosts beyond ASCII": lambda: many(lambda n: "https://" + "\u00e9." * 1_900 + str(n)),
    "hosts of punycode": lambda: many(lambda n: "https://" + "xn--a." * 10 + str(n)),
    "JSON texts": lambda: many(lambda _: json.dumps(["/app/data/..%2e"] * 500)),
    "broken JSON texts": lambda: many(lambda _: "[" + '"a",' * 1_000),
    "deep JSON texts": lambda: many(lambda _: "[" * 900 + "]" * 900),
    "JSON texts of objects": lambda: many(lambda _: "[" + "{}," * 20_000 + "{}]"),
    "deep lists": lambda: [nested(30)] * (SIZE // 64),
    "keys": lambda: {f"k{n}": n for n in range(SIZE // 17)},
    "keys with texts": lambda: {f"k{n}": f"v{n}" for n in range(SIZE // 21)},
    "keys with odd paths": lambda: {f"path{n}": f"/app/data/%2e/{n}" + "a" * 150 for n in range(SIZE // 190)},
    "keys that are paths": lambda: {f"/app/data/{n}": "v" for n in range(SIZE // 24)},
    "long keys": lambda: {"k" * 4_000 + str(n): {"a": 1} for n in range(SIZE // 4_030)},
}  # fmt: skip

NAMED: Final = {"file_read": "paths", "http_request": "urls", "shell_execute": "command", "note": "data"}


@pytest.fixture(autouse=True)
def own_heap() -> Iterator[None]:
    """Take what the test program holds out of the garbage collector's work."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def read(given: Record) -> list[AuditEvent]:
    """The events of one line."""
    text = json.dumps(given, ensure_ascii=False)
    return Reader("a.jsonl").read(Block("a.jsonl", [text.encode("utf-8", "surrogatepass")], 0, 1), None)


def judged(given: Record) -> tuple[list[Hit], float]:
    """The hits of one line, and what it took to judge it, seconds of this process."""
    events = read(given)
    assert len(events) == 1
    engine = Engine(POLICY, logs=("/var/log/mcp/audit.jsonl",))
    begun = time.process_time()
    hits = engine.observe(events)
    return hits, time.process_time() - begun


def texts() -> Iterator[tuple[str, Record]]:
    """Lines with one long text: each piece everywhere, or, at small size, each in one place."""
    places = list(PLACES.items())
    for number, piece in enumerate(PIECES):
        for name, place in places if FULL else [places[number % len(places)]]:
            yield f"{piece[:24]!r} in {name}", place(filled(piece))


def structures() -> Iterator[tuple[str, Record]]:
    """Lines with many values."""
    tools = list(NAMED)
    for number, (name, make) in enumerate(VALUES.items()):
        value = make()
        for tool in tools if FULL else [tools[number % 3]]:
            yield f"{name} for {tool}", record(tool=tool, params={NAMED[tool]: value})
            if isinstance(value, dict):
                yield f"{name} at the top for {tool}", record(tool=tool, params=value)


@row("F9")
@pytest.mark.parametrize("lines", [texts, structures])
def test_no_line_takes_long_to_judge(
    lines: Callable[[], Iterator[tuple[str, Record]]], figure: Figure
) -> None:
    """Whatever stands in it, wherever it stands."""
    _, plain = judged(record(params={"text": filled("lorem ipsum dolor ")}))
    took = {name: judged(line)[1] for name, line in lines()}
    worst = max(took, key=lambda name: took[name])
    # a machine that is busy may halt one of them for a while: what is slow is slow twice
    slow = {name: judged(line)[1] for name, line in lines() if took[name] > LIMIT}
    slow = {name: seconds for name, seconds in slow.items() if seconds > LIMIT}
    figure(
        f"{len(took)} lines of {SIZE // 1024} kB, the slowest {took[worst] * 1000:.0f} ms ({worst}), "
        f"mean {sum(took.values()) / len(took) * 1000:.0f} ms, plain text {plain * 1000:.0f} ms"
    )
    assert not slow


@row("F9", slow=True)
def test_what_a_text_takes_to_judge_grows_no_faster_than_the_text(figure: Figure) -> None:
    """Twice the text takes at most about twice the time, for whatever it is filled with."""
    grown = {}
    for piece in PIECES:
        for name in ("a command", "a path", "a URL"):
            half, whole = (
                min(judged(PLACES[name](filled(piece, size)))[1] for _ in range(2))
                for size in (1 << 19, 1 << 20)
            )
            if whole > 0.1:
                grown[f"{piece[:24]!r} in {name}"] = whole / half
    worst = max(grown, key=lambda name: grown[name]) if grown else "none"
    figure(f"512 kB to 1 MB: at most {max(grown.values(), default=0):.1f} times the time ({worst})")
    assert all(times < 3.2 for times in grown.values()), grown


def rules(given: Record) -> dict[str, Severity]:
    """The rules that fire on a line, each with its severity."""
    hits, _ = judged(given)
    return {hit.rule: hit.severity for hit in hits}


# the paths are allowed in every reading, the URLs in one
ODD_PATHS: Final = [f"/app/data/{n}/%2e/a;b\\c'd" for n in range(5_000)]
ODD_URLS: Final = [f"https:\\api.openai.com/{n}" for n in range(5_000)]


@row("F9")
@pytest.mark.parametrize(
    ("tool", "params", "rule", "least"),
    [
        ("file_read", {"paths": ["/etc/shadow", *ODD_PATHS]}, "path-outside", Severity.CRITICAL),
        ("file_read", {"paths": ["/app/data/%2e%2e/%2e%2e/etc/shadow", *ODD_PATHS]}, "path-outside", Severity.HIGH),
        ("file_read", {f"path_{n}": path for n, path in enumerate(ODD_PATHS)} | {"path": "/etc/shadow"},
         "path-outside", Severity.CRITICAL),
        ("file_read", {f"k{n}": n for n in range(20_000)} | {"path": "/etc/shadow"}, "path-outside", Severity.HIGH),
        ("file_read", {"path": "/app/data/../" * 9_000 + "etc/shadow"}, "path-outside", Severity.HIGH),
        ("file_read", {"path": "/app/data/" + "./" * 90_000}, "path-outside", Severity.HIGH),
        ("file_read", {"x": json.dumps({"pad": "a" * 90_000, "path": "/etc/shadow"})}, "path-outside",
         Severity.CRITICAL),
        ("http_request", {"urls": ["https://evil.example.net/", *ODD_URLS]}, "domain-unexpected", Severity.CRITICAL),
        ("http_request", {"urls": ["https:/\\0xa9fea9fe", *ODD_URLS]}, "domain-unexpected", Severity.HIGH),
        ("http_request", {"x": "https://evil.example.net/" + "a" * 9_000}, "domain-unexpected", Severity.CRITICAL),
        ("http_request", {"url": "https://" + "\u00e9." * 3_000 + "evil"}, "domain-unexpected", Severity.HIGH),
        ("fetch_page", {"urls": ["https:/\\0xa9fea9fe", *ODD_URLS]}, "domain-unexpected", Severity.HIGH),
        ("note", {f"k{n}": "" for n in range(20_000)} | {"q": "x\x1b[2J"}, "hostile-text", Severity.MEDIUM),
        ("note", {"q": [""] * 20_000}, "hostile-text", Severity.MEDIUM),
        ("note", {"q": "a" * 900_000 + "x\x1b[2J"}, "hostile-text", Severity.MEDIUM),
        ("note", {"q": "% \\ " * 90_000 + "ghp_16C7e42F292c6912E7710c838347Ae178B4b"}, "secret-in-params",
         Severity.HIGH),
        ("note", {"q": ["%41"] * 9_000 + ["ghp_16C7e42F292c6912E7710c838347Ae178B4b"]}, "secret-in-params",
         Severity.HIGH),
        ("note", {"q": json.dumps(["a" * 90_000, "\x1b[2J"])}, "hostile-text", Severity.MEDIUM),
        ("shell_execute", {"command": "true;" * 90_000 + "tee -a /etc/%63rontab"}, "policy-tampering",
         Severity.CRITICAL),
        ("shell_execute", {"command": "a%252541" * 90_000 + " ;tee ~/.ssh/authorized_keys"}, "policy-tampering",
         Severity.CRITICAL),
    ],
)  # fmt: skip
def test_padding_hides_nothing(tool: str, params: dict[str, object], rule: str, least: Severity) -> None:
    """What is too much to be read in every way is ambiguous, and never allowed.

    Of a list the last item is judged first.
    """
    assert rules(record(tool=tool, params=params)).get(rule, Severity.LOW) >= least


def test_many_ordinary_values_are_no_alarm() -> None:
    """Hundreds of files and pages in one call, oddly named ones among them."""
    files = [f"/app/data/M\u00fcller & S\u00f6hne {n} (100%).pdf" for n in range(200)]
    pages = [f"https://api.openai.com/v1/files/{n}?q=%20a" for n in range(2_000)]
    assert rules(record(tool="file_read", params={"paths": files})) == {}
    assert rules(record(tool="http_request", params={"urls": pages})) == {}
    assert (
        rules(record(tool="file_read", params={f"file_{n}": name for n, name in enumerate(files[:100])}))
        == {}
    )


@pytest.mark.parametrize(
    "params",
    [
        {"paths": ODD_PATHS},
        {f"path_{n}": path for n, path in enumerate(ODD_PATHS)},
        {f"path_{n}": path for n, path in enumerate(ODD_PATHS[:40])},
        {"paths": ODD_PATHS[:400], "more": {"paths": ODD_PATHS}},
    ],
)
def test_what_is_said_of_a_call_never_depends_on_the_calls_before(params: dict[str, object]) -> None:
    """A judge that knows all of the values by themselves says the same as a new one, and as the explanation."""

    def found(judge: Judge) -> list[tuple[str, str]]:
        return sorted((each.reason, each.verdict) for each in judge.for_tool("file_read").findings(params))

    used = Judge(POLICY)
    for path in ODD_PATHS[:200]:
        used.for_tool("file_read").findings({"path": path})
        used.for_tool("file_read").findings({"paths": [path]})
    for name, value in list(params.items())[:200]:
        used.for_tool("file_read").findings({name: value})
    used.for_tool("file_read").suspects(params, 0)
    assert found(used) == found(Judge(POLICY))
    explained: tuple[Finding, ...] = used.for_tool("file_read").explain(params)
    assert sorted((each.reason, each.verdict) for each in explained if not each.fine) == found(used)
