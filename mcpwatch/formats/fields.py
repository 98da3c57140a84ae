"""The fields of an audit record and the other names, words and units that logs use for them.

These tables are the generic reader: a home-made JSON log is understood because its names stand here. A mapping
file (docs/log-schema.md) adds to them for one log.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from typing import Any, Final

ABSENT: Final = frozenset({"", "-", "unknown", "anonymous", "null", "none", "None"})
"""Ways in which logs write "nothing here"."""

ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "timestamp": ("timestamp", "time", "ts", "@timestamp", "datetime", "logged_at", "start_time", "eventTime"),
    "event": ("event", "event_type", "eventType", "type"),
    "method": ("method", "mcp_method", "mcp.method.name", "mcpMethod"),
    "tool": ("tool", "tool_name", "toolName", "mcp_tool_name", "gen_ai.tool.name", "mcp.tool.name"),
    "params": ("params", "args", "arguments", "input", "parameters", "tool_input", "toolInput"),
    "status": ("status", "outcome", "decision", "success", "result_status", "status_code", "statusCode"),
    "error": ("error", "error_message", "errorMessage", "err", "reason"),
    "duration_ms": (
        "duration_ms", "durationMs", "latency_ms", "latencyMs", "elapsed_ms", "took_ms", "execution_time_ms",
        "duration", "latency",
    ),
    "duration_s": ("duration_s", "duration_seconds", "elapsed_s", "elapsed_seconds"),
    "key_id": ("key_id", "keyId", "api_key_id", "apiKeyId", "key_name"),
    "client_id": ("client_id", "clientId", "client", "client_name", "clientName", "mcp_agent_id"),
    "session_id": ("session_id", "sessionId", "session", "mcp_session_id", "mcp.session.id", "mcpSessionId"),
    "subject": ("user", "user_id", "userId", "actor", "subject", "sub", "user_email", "userEmail", "enduser.id"),
    "source_ip": (
        "source_ip", "sourceIp", "ip", "client_ip", "clientIp", "remote_addr", "remote_ip", "remoteAddr", "src_ip",
    ),
    "scopes": ("scopes", "scope"),
    "auth": ("auth", "authentication"),
    "server": ("server", "server_name", "serverName", "mcp_server_name", "server_id", "serverId"),
    "call_id": ("call_id", "callId", "tool_call_id", "toolCallId"),
    "definition_sha256": ("definition_sha256", "tool_definition_sha256", "definitionSha256"),
    "sequence": ("sequence", "sequence_number", "sequenceNumber", "seq"),
    "hash": ("hash", "record_hash", "entry_hash", "entryHash", "integrity_hash", "integrityHash"),
    "prev_hash": ("prev_hash", "previous_hash", "prevHash", "previousHash", "prev_entry_hash"),
}  # fmt: skip
"""Field -> names, the schema's own first. A dotted name is tried as it stands, then as a path into objects.

`api_key` and the like are no alias of `key_id` on purpose: they hold the key. `id` and `request_id` are none of
`call_id`: JSON-RPC counts them from 1 in every session.
"""

BESIDE: Final = frozenset({"definition_sha256", "sequence", "hash", "prev_hash"})
"""Fields that make no audit record by themselves: other logs have them too."""

STATUS_WORDS: Final[dict[str, str]] = {
    **dict.fromkeys(("success", "ok", "succeeded", "successful", "completed", "allowed", "allow", "pass",
                     "passed", "true", "request_success"), "success"),
    **dict.fromkeys(("error", "failed", "failure", "fail", "exception", "application_error", "false", "iserror",
                     "request_error"), "error"),
    **dict.fromkeys(("denied", "deny", "block", "blocked", "forbidden", "rejected", "refused",
                     "permission_denied", "access_denied"), "denied"),
    **dict.fromkeys(("unauthenticated", "unauthorized", "unauthorised", "auth_failed", "invalid_token",
                     "invalid_key", "authentication_failure"), "unauthenticated"),
    **dict.fromkeys(("rate_limited", "ratelimited", "rate_limit", "throttled", "too_many_requests"),
                    "rate_limited"),
    **dict.fromkeys(("timeout", "timed_out", "timedout", "deadline_exceeded"), "timeout"),
}  # fmt: skip
"""Words for an outcome -> outcome. Anything else is `unknown`."""

HTTP_STATUS: Final[dict[int, str]] = {
    401: "unauthenticated", 403: "denied", 407: "unauthenticated", 408: "timeout", 429: "rate_limited",
    504: "timeout",
}  # fmt: skip

EVENT_WORDS: Final[dict[str, str]] = {
    **dict.fromkeys(("tool_call", "mcp_tool_call", "tool_use", "tools/call", "toolcall", "call_tool"), "tool_call"),
    **dict.fromkeys(("request", "mcp_request"), "request"),
    **dict.fromkeys(("auth", "authentication", "login", "auth_failure", "auth_failed", "login_failed",
                     "authentication_failure", "authentication_failed"), "auth"),
    **dict.fromkeys(("session_start", "session_started", "mcp_initialize", "initialize"), "session_start"),
    **dict.fromkeys(("session_end", "session_ended", "session_closed"), "session_end"),
}  # fmt: skip
"""Words for a kind of event -> kind."""

FAILED_LOGINS: Final = frozenset(
    {"auth_failure", "auth_failed", "login_failed", "authentication_failure", "authentication_failed"}
)
"""Event words that are an explicit failed login by themselves."""

FIVE_FIELDS: Final = ("time", "tool and parameters", "client", "status", "duration")
"""What every tool call should have, in this order in every coverage table."""

_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_UNIT_MS: Final = {
    "ns": 1e-6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4, "h": 3.6e6,
}  # fmt: skip
MAX_DURATION_MS: Final = 1e15
"""What lasts longer, some 30,000 years, is no duration, and too much to be reckoned with in nanoseconds."""

MAX_ID: Final = 512
"""Longest id or name that is kept whole, in characters: how much is kept of a caller is not the caller's choice."""


def text_of(value: object) -> str | None:
    """An id or name as text; None where the log says that there is none. A very long one is cut and hashed."""
    if isinstance(value, str):
        if len(value) > MAX_ID:
            digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
            return f"{value[: MAX_ID // 2]}…{digest}"
        return None if value in ABSENT else value
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return str(value)
    return None


def plain_name(name: str | None) -> str | None:
    """The name of a tool without the `=?base64?…?=` that the header Mcp-Name may hold it in (MCP 2026-07-28)."""
    if name is None or not name.startswith("=?base64?") or not name.endswith("?="):
        return name
    try:
        return text_of(base64.b64decode(name[9:-2], validate=True).decode())
    except ValueError:
        return name


def number_of(value: object) -> int | None:
    """A whole number that is not negative."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63 else None


def status_of(value: object) -> str:
    """The outcome that a word, a flag or an HTTP code stands for.

    HTTP 2xx is `unknown`: MCP servers answer denied, unknown and failed tools with 200.
    """
    if value.__class__ is str and value in STATUS_WORDS:
        return STATUS_WORDS[value]
    if isinstance(value, bool):
        return "success" if value else "error"
    if isinstance(value, str):
        word = value.strip().lower().replace("-", "_").replace(" ", "_")
        if word.isascii() and word.isdigit() and len(word) == 3:
            return status_of(int(word))
        return STATUS_WORDS.get(word, "unknown")
    if isinstance(value, int):
        return HTTP_STATUS.get(value, "error" if 400 <= value <= 599 else "unknown")
    return "unknown"


def duration_of(value: object, unit_ms: float = 1.0) -> float | None:
    """Milliseconds from a number (of `unit_ms` each) or text such as `4ms`, `1.2s`, `412.7µs`, `1m2.5s`."""
    if value.__class__ is float and 0 <= value < 1e9:
        return value * unit_ms
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            number = float(value) * unit_ms
        except OverflowError:
            return None
        return _in_range(number)
    if isinstance(value, str) and len(value) <= 64:
        text = value.strip()
        parts = _DURATION_PART.findall(text)
        if parts and "".join(text.split()) == "".join(number + unit for number, unit in parts):
            return _in_range(sum(float(number) * _UNIT_MS[unit] for number, unit in parts))
        if text.replace(".", "", 1).isdigit() and text.isascii():
            return _in_range(float(text) * unit_ms)
    return None


def _in_range(milliseconds: float) -> float | None:
    return milliseconds if 0 <= milliseconds < MAX_DURATION_MS else None


def address_of(value: object) -> str | None:
    """An address without its port: `10.1.2.3:56642` and `[2001:db8::1]:443` lose it.

    Of a list, as in X-Forwarded-For, the last public one, else the last: what stands before is the caller's word, and
    what stands behind are one's own proxies.
    """
    text = text_of(value)
    if text is None:
        return None
    if "," in text:
        text = _last_public([part.strip() for part in text.split(",")])
    if text.startswith("["):
        return text[1:].split("]", 1)[0] or None
    host, colon, port = text.rpartition(":")
    if colon and ":" not in host and port.isdigit():
        return host or None
    return text or None


def _last_public(addresses: list[str]) -> str:
    for text in reversed(addresses):
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        if not any(address in network for network in _OWN):
            return text
    return addresses[-1]


_OWN: Final = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "::1/128", "fc00::/7", "fe80::/10"),
    )
)
"""Private addresses (RFC 1918, RFC 4193), this host and the link: where one's own proxies stand."""


def scopes_of(value: object) -> list[str] | None:
    """Scopes as a list; a string is split as OAuth writes them, by blanks (or commas)."""
    if isinstance(value, str):
        return None if value in ABSENT else value.replace(",", " ").split()
    if isinstance(value, list):
        if set(map(type, value)) <= {str}:
            return value
        return [str(item) for item in value if isinstance(item, str | int)]
    return None


def look_up(record: dict[str, Any], name: str) -> Any:
    """The value under a name: as it stands, else as a dotted path into nested objects. None if absent."""
    value = record.get(name)
    if value is not None or "." not in name:
        return value
    found: Any = record
    for part in name.split("."):
        if isinstance(found, list) and part.isascii() and part.isdigit() and len(part) < 6:
            found = found[int(part)] if int(part) < len(found) else None
        elif isinstance(found, dict):
            found = found.get(part)
        else:
            return None
    return found
