"""The demo fleet's policy file: what a team of this size would have, with a comment where one is due."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mcpwatch.times import DAY, HOUR, iso, utc_day

CALLS_PER_MINUTE: Final = 12
"""The policy's `session_calls_per_minute`. The honest sessions stay just below it."""

_KEYS: Final = (
    ("key_0001", "billing-bot", "payments", "[read, network]", 82),
    ("key_0002", "support-agent", "support", "[read, write]", 61),
    ("key_0003", "research-agent", "insights", "[read, network]", 47),
    ("key_0004", "report-writer", "finance", "[read, write]", 33),
    ("key_0005", "acme-desktop", "workplace", "[read, write, network]", 12),
    ("key_0006", "data-pipeline", "platform", "[read, write]", 80),
    ("key_0007", "ci-bot", "build", "[read, network, shell]", 75),
    ("key_0008", "on-call", "platform", "[read]", 118),
    ("key_0009", "old-laptop", "workplace", "[read]", 70),
)
"""Name, client, owner, scopes, age in days."""

_TEXT: Final = """\
# What the agents of this fleet may do. The MCP servers obey this file, and mcpwatch watches that they do.
version: 1

tools:
  # Files: data is read, results go to one folder.
  file_read: {allowed_paths: ["/app/data/", "/app/public/"], require_scope: read, require_audit_log: true}
  file_write: {allowed_paths: ["/app/output/"], require_scope: write, require_audit_log: true}

  # The web: the model providers for posting, a few reference sites for reading.
  http_request:
    allowed_domains: ["api.openai.com", "api.anthropic.com"]
    require_scope: network
    require_audit_log: true
  http_get:
    allowed_domains: ["docs.python.org", "*.wikipedia.org"]
    require_scope: network
    require_audit_log: true

  # Data.
  database_write: {require_scope: write, require_audit_log: true}
  memory_store: {require_audit_log: true}
  calculator: {}
  datetime: {}
  text_transform: {}

  # The build still runs its steps through the shell; the scope keeps it to one key. To be switched off.
  shell_execute: {require_scope: shell, require_audit_log: true}
  bash: {enabled: false}

unlisted_tools: deny

alerts:
  # Our agents work faster than the default of 5 calls a minute in one session: about 9, never above 11.
  session_calls_per_minute: @CALLS
  # The servers look at this file several times a second.
  enforcement_grace: 2s

# Names only: the keys themselves are in the secret store.
keys:
@KEYS

revoked:
  - {key: key_0009, at: "@REVOKED", by: "sam@bastion", reason: "laptop handed back"}

lockouts: []
"""


def policy_text(now_ns: int) -> str:
    """The policy as it stands at a moment: the dates in it are counted back from there."""
    keys = "\n".join(
        f"  {name}: {{client: {client}, owner: {owner}, scopes: {scopes}, created: {utc_day(now_ns - age * DAY)}}}"
        for name, client, owner, scopes, age in _KEYS
    )
    values = {"@CALLS": str(CALLS_PER_MINUTE), "@KEYS": keys, "@REVOKED": iso(now_ns - 9 * DAY - 5 * HOUR)}
    text = _TEXT
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text


def write_policy(path: Path, now_ns: int) -> None:
    """Write the demo's policy file, new, for a fleet that starts at `now_ns`."""
    path.write_text(policy_text(now_ns), encoding="utf-8")
