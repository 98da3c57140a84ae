"""The demo's MCP fleet: three servers that obey a real policy file and write a real audit log.

The verdicts are those of `mcpwatch.policy.judge`, so what an operator writes into the policy file bites here as it
would on a server that enforces it.
"""

from __future__ import annotations

import heapq
from pathlib import Path
from typing import Any, Final

import orjson

from mcpwatch.demo.cast import Attempt, everybody, lifetime
from mcpwatch.demo.policy import write_policy
from mcpwatch.policy.decide import decide
from mcpwatch.policy.file import PolicyFile
from mcpwatch.policy.judge import Judge
from mcpwatch.times import SECOND, iso

__all__ = ["RELOAD_EVERY", "Fleet", "answer", "write_policy"]

RELOAD_EVERY: Final = 3 * SECOND // 10
"""Simulated ns between two looks of the servers at the policy file."""

_MISHAPS: Final = {"error": "upstream failed", "timeout": "no answer within 30 s"}
_REFUSED_MS: Final = 1.2


def answer(judge: Judge, attempt: Attempt, number: int) -> bytes:
    """Let a server answer an attempt, and return the line that it logs.

    Args:
        judge: Of the policy that the server knows at that time.
        number: Makes the call id; unique in a log.
    """
    status, error, duration = _outcome(judge, attempt)
    caller = attempt.caller
    key = judge.policy.keys.get(caller.key or "")
    record: dict[str, Any] = {
        "timestamp": iso(attempt.at_ns),
        "event": attempt.kind,
        "tool": attempt.tool,
        "params": attempt.params,
        "status": status,
        "error": error,
        "duration_ms": duration,
        "key_id": caller.key,
        "client_id": caller.client,
        "session_id": caller.session,
        "source_ip": caller.source_ip,
        "scopes": None if key is None else key.scopes,
        "auth": {"method": caller.method, "subject": caller.subject, **lifetime(caller, attempt.at_ns)},
        "server": attempt.server,
        "call_id": f"{attempt.server}-{number:06d}",
    }
    if caller.subject is None:
        del record["auth"]["subject"]
    return orjson.dumps({name: value for name, value in record.items() if value is not None}) + b"\n"


def _outcome(judge: Judge, attempt: Attempt) -> tuple[str, str | None, float]:
    """Status, error message and duration of an attempt."""
    caller = attempt.caller
    if attempt.enforced:
        if caller.key not in judge.policy.keys:
            return "unauthenticated", "credentials not accepted", _REFUSED_MS
        decision = decide(
            judge,
            key=caller.key,
            client=caller.client,
            session=caller.session,
            subject=caller.subject,
            source_ip=caller.source_ip,
            tool=attempt.tool,
            params=attempt.params,
            scopes=None,
            at_ns=attempt.at_ns,
        )
        if not decision.allowed:
            return decision.status, decision.reason, _REFUSED_MS
    return attempt.outcome, _MISHAPS.get(attempt.outcome), attempt.duration_ms


class Fleet:
    """A small MCP fleet with an attacker, in simulated time. The same seed and policy give the same log.

    Args:
        log_path: The audit log; made if it is missing, else appended to.
        policy_path: The policy file that the servers obey. One that breaks or vanishes leaves the last good one.
        start_ns: When the simulation begins.

    Raises:
        PolicyError: There is no valid policy file to begin with.
    """

    def __init__(self, log_path: Path, policy_path: Path, *, seed: int, start_ns: int) -> None:
        self._log = log_path
        self._policy = PolicyFile(policy_path)
        self._judge = Judge(self._policy.policy)
        self._looked_ns = start_ns
        self._attempts = heapq.merge(*everybody(start_ns, seed), key=lambda attempt: attempt.at_ns)
        self._next = next(self._attempts)
        self._written = 0

    def step(self, until_ns: int) -> int:
        """Append every record up to that time to the log, in one write.

        Returns:
            How many records that were.
        """
        lines = []
        while self._next.at_ns <= until_ns:
            self._look(self._next.at_ns)
            self._written += 1
            lines.append(answer(self._judge, self._next, self._written))
            self._next = next(self._attempts)
        if lines:
            with self._log.open("ab") as log:
                log.write(b"".join(lines))
        return len(lines)

    def _look(self, now_ns: int) -> None:
        """Read the policy anew if it changed and the time to look has come."""
        if now_ns - self._looked_ns < RELOAD_EVERY:
            return
        self._looked_ns = now_ns - now_ns % RELOAD_EVERY
        before = self._policy.policy
        self._policy.check()
        if self._policy.policy is not before:
            self._judge = Judge(self._policy.policy)
