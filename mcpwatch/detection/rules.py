"""The table of rules: everything about a rule but the code of the stateless ones, which is in checks.py.

Help, docs, `rules list` and the runbook steps on screen are read from this table.

Tags: `owasp-mcp:NN` is the OWASP MCP Top 10 (2025), `attack:T…` MITRE ATT&CK v17, `atlas:AML…` MITRE ATLAS 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from mcpwatch.detection.hit import Severity
from mcpwatch.detection.principal import PRINCIPAL, Grouping
from mcpwatch.policy.model import Alerts
from mcpwatch.times import MINUTE, format_duration

Feed = Literal["call", "request", "failure"]
"""What a window counts: tool calls whatever their outcome, all MCP requests, or authentication failures."""


@dataclass(frozen=True, slots=True)
class Window:
    """The counting part of a window rule.

    Attributes:
        counts: Which events enter the window.
        need: How many of them in one window fire, from the policy's limits: N + 1 for "more than N".
        width: W in nanoseconds, from the policy's limits.
        distinct: Count distinct session ids in place of events.
        by_call: Count a call once that is logged more than once.
        limit: The limit in words.
    """

    counts: Feed
    need: Callable[[Alerts], int]
    width: Callable[[Alerts], int]
    limit: Callable[[Alerts], str]
    distinct: bool = False
    by_call: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        severity: Of its hits; None where it depends on verdict and outcome (`path-outside`, `domain-unexpected`).
        subject: Whom it groups by.
        window: For rules that count; None for rules that judge each event by itself.
        why: What it means when it fires, in one sentence.
        false_alarms: What harmless thing looks the same.
        runbook: What to do, three to six steps.
    """

    id: str
    title: str
    severity: Severity | None
    subject: Grouping
    window: Window | None
    why: str
    false_alarms: str
    tags: tuple[str, ...]
    runbook: tuple[str, ...]

    def limit(self, alerts: Alerts) -> str:
        """The limit in words."""
        return self.window.limit(alerts) if self.window is not None else "each such event"


def _minute(_: Alerts) -> int:
    return MINUTE


LOW, MEDIUM, HIGH, CRITICAL = Severity.LOW, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "enforcement-gap", "Policy is not enforced", CRITICAL, PRINCIPAL, None,
        "A call succeeded that the policy forbids: the server does not do what the policy says.",
        "The server reloads the policy only now and then; raise alerts.enforcement_grace if that is agreed.",
        ("owasp-mcp:07", "attack:T1078"),
        (
            "Open the evidence: which server answered, and when was the policy changed?",
            "Check that this server reads this policy file and has reloaded it.",
            "If the key still works, stop the server or block the address at the proxy now.",
            "Rotate the credential at its issuer.",
            "List every success since the change: that is the damage to look at.",
        ),
    ),
    Rule(
        "unauthenticated-success", "A call succeeded without credentials", CRITICAL, PRINCIPAL, None,
        "Somebody used a tool without a key, a subject or a client, on a server that otherwise knows its callers.",
        "Health checks that the server logs as requests.",
        ("owasp-mcp:07", "attack:T1190"),
        (
            "Find the endpoint that let it through: a second port, a debug route, the server behind the proxy.",
            "Block it at the proxy or the firewall.",
            "See what else came from this address (o in the console).",
            "Require authentication on every endpoint, then test with no key.",
        ),
    ),
    Rule(
        "shell-execute", "Shell command", HIGH, PRINCIPAL, None,
        "A shell tool was called: near-arbitrary code execution, worth a look even when it is allowed.",
        "Coding agents whose job it is; keep them on a server of their own.",
        ("owasp-mcp:05", "attack:T1059"),
        (
            "Read the command in the evidence.",
            "If nobody can say why it ran: revoke the key (r), then disable the tool (d).",
            "Look at the session before the command: what was the agent told to do, and by which document?",
            "On the host, check what the command left behind.",
        ),
    ),
    Rule(
        "path-outside", "File outside the permitted paths", None, PRINCIPAL, None,
        "A tool was asked for a file outside the folders that the policy permits.",
        "A new folder that nobody added to the policy.",
        ("owasp-mcp:02", "attack:T1083", "attack:T1005"),
        (
            "Look at the outcome: a success means the file was read or written.",
            "Success: revoke the key (r) and treat the file's content as known to the caller.",
            "Denied: see whether it goes on; one key trying many paths is looking for a way.",
            "If the folder is right, add it to allowed_paths and say why.",
        ),
    ),
    Rule(
        "domain-unexpected", "Request to an unexpected domain", None, PRINCIPAL, None,
        "A tool was asked to fetch from, or send to, a host that the policy does not list.",
        "A new API that nobody added to the policy; documentation sites.",
        ("owasp-mcp:10", "attack:T1567", "attack:T1552.005"),
        (
            "Look at the outcome: a success means that data may have left, or metadata may have come in.",
            "Cloud metadata (169.254.169.254) with a success: rotate the instance's credentials now.",
            "Revoke the key (r); block the host in the egress proxy.",
            "If the host is right, add it to allowed_domains and say why.",
        ),
    ),
    Rule(
        "auth-lockout", "Repeated authentication failures", HIGH,
        (("known_key", "source_ip"), ("source_ip",)),
        Window(
            "failure", lambda a: a.auth_failures, lambda a: a.auth_failures_within,
            lambda a: f"{a.auth_failures} or more failures in {format_duration(a.auth_failures_within)}",
        ),
        "Somebody is guessing credentials, or a program keeps using one that no longer works.",
        "A client with an expired token that retries.",
        ("owasp-mcp:07", "attack:T1110"),
        (
            "Is it one key from one address, or many keys from one address?",
            "Lock out the address (l); the policy's lockout ladder sets for how long.",
            "Look for a success from the same address after the failures.",
            "If a client is broken, tell its owner before it locks itself out again.",
        ),
    ),
    Rule(
        "session-rate", "Too many tool calls from one session", MEDIUM,
        (("session",), ("key", "client"), ("key",), ("source_ip", "client"), ("source_ip",)),
        Window(
            "call", lambda a: a.session_calls_per_minute + 1, _minute,
            lambda a: f"more than {a.session_calls_per_minute} calls in 60 s", by_call=True,
        ),
        "One session calls tools faster than the policy allows: a runaway loop or a stolen session.",
        "Coding agents call tools far more often than five times a minute; raise the limit for them.",
        ("owasp-mcp:02", "atlas:AML.T0053"),
        (
            "Look at the tools: the same call again and again is a loop, many different ones are exploration.",
            "Ask the owner of the key whether this job is theirs.",
            "If not, revoke the session or the key (r).",
            "If it is normal here, raise alerts.session_calls_per_minute.",
        ),
    ),
    Rule(
        "session-churn", "Many sessions from one principal", MEDIUM,
        (("key", "client"), ("source_ip",)),
        Window(
            "call", lambda a: a.session_calls_per_minute + 1, _minute,
            lambda a: f"more than {a.session_calls_per_minute} sessions in 60 s", distinct=True,
        ),
        "One caller uses more sessions a minute than calls are allowed in one: it hides its rate by changing them.",
        "Servers without sessions, which log a new session id for every request.",
        ("owasp-mcp:02",),
        (
            "Does this server give every request a session id of its own? Then this is its call rate.",
            "Else somebody rotates sessions: look at what they call.",
            "Revoke the key (r) if its owner cannot explain it.",
        ),
    ),
    Rule(
        "key-rate", "Too many requests from one key", MEDIUM, (("key",),),
        Window(
            "request", lambda a: a.key_requests_per_minute + 1, _minute,
            lambda a: f"more than {a.key_requests_per_minute} requests in 60 s",
        ),
        "One key makes more MCP requests than the policy allows, and the front did not stop it.",
        "Batch jobs that share a key.",
        ("owasp-mcp:02", "attack:T1499"),
        (
            "Check the rate limit at the proxy: it should have refused these.",
            "See which sessions and addresses share the key.",
            "Revoke the key (r) if it is used from somewhere unknown.",
        ),
    ),
    Rule(
        "tool-disabled", "Call of a disabled tool", MEDIUM, PRINCIPAL, None,
        "Somebody tried a tool that the policy has switched off.",
        "A client with an old tool list.",
        ("owasp-mcp:02",),
        (
            "Refused: see whether the caller goes on to other tools.",
            "Succeeded: there is an enforcement-gap incident too; start there.",
            "Make sure that the server no longer lists the tool.",
        ),
    ),
    Rule(
        "tool-unlisted", "Call of a tool that the policy does not list", MEDIUM, PRINCIPAL, None,
        "A tool was called that nobody has written a policy for.",
        "A server was updated and brought new tools.",
        ("owasp-mcp:09", "owasp-mcp:04"),
        (
            "Find out which server offers the tool, and since when.",
            "Read what it does; then list it in the policy, enabled or disabled.",
            "A name close to that of a known tool may be an impostor: compare the definitions.",
        ),
    ),
    Rule(
        "scope-missing", "Call without the required scope", MEDIUM, PRINCIPAL, None,
        "A key was used for a tool that its scopes do not cover.",
        "A key that should have the scope and was issued without it.",
        ("owasp-mcp:02", "owasp-mcp:07"),
        (
            "Refused: ask the owner whether the key should be able to do this.",
            "Succeeded: the server does not check scopes; there is an enforcement-gap incident too.",
            "Issue a new key with the right scopes; do not widen the old one.",
        ),
    ),
    Rule(
        "audit-missing", "Audit record is incomplete", MEDIUM, PRINCIPAL, None,
        "A tool whose calls must be logged in full was called, and the record lacks what is needed to judge it.",
        "A server that logs parameters only at a higher log level.",
        ("owasp-mcp:08", "attack:T1562.008"),
        (
            "See in the evidence which field is missing.",
            "Turn on parameter logging for this tool at the server.",
            "If only some records lack it, ask why: somebody may be hiding what they do.",
        ),
    ),
    Rule(
        "key-unknown", "A key succeeded that the policy does not know", MEDIUM, PRINCIPAL, None,
        "A call succeeded with a key that is not in the policy's list of keys.",
        "A key was issued and nobody entered it.",
        ("owasp-mcp:07", "owasp-mcp:01", "attack:T1136"),
        (
            "Ask who issued the key.",
            "Nobody: revoke it (r) and look for where it was created.",
            "Somebody: enter it with its owner, scopes and date.",
        ),
    ),
    Rule(
        "revoked-attempt", "Revoked principal was refused", LOW, PRINCIPAL, None,
        "A revoked key, client, session or subject tried again and was refused: the revocation works.",
        "A client that nobody told about the revocation.",
        ("owasp-mcp:07",),
        (
            "Nothing is broken: this shows that the revocation is in force.",
            "See from where it comes; an unknown address still holds the key.",
            "If it goes on for long, tell the owner or lock out the address (l).",
        ),
    ),
)  # fmt: skip

BY_ID: Final[dict[str, Rule]] = {rule.id: rule for rule in RULES}
WINDOW_RULES: Final = tuple(rule for rule in RULES if rule.window is not None)
