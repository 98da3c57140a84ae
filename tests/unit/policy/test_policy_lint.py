from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from mcpwatch.policy.lint import CHECKS, lint
from mcpwatch.policy.model import PolicyError

TODAY = date(2026, 11, 22)
AT = "2026-01-01T00:00:00Z"

GOOD = """\
version: 1
tools:
  file_read: {allowed_paths: ["/app/data/"], require_scope: read, require_audit_log: true}
  http_request: {allowed_domains: ["api.openai.com", "*.example.com", "10.0.0.1:8080"], require_audit_log: true}
  database_write: {require_scope: write, require_audit_log: true}
  shell_execute: {enabled: false}
  calculator:
unlisted_tools: deny
keys:
  key_0001: {created: 2026-09-01}
revoked:
  - {key: key_0001, at: 2026-01-01T00:00:00Z, until: 2026-11-22T00:00:00Z}
"""

FOUND = [
    ("tools:\n  file_write: {require_audit_log: true}", "unrestricted-paths", "high", 4),
    ("tools:\n  file_read: {require_audit_log: true}", "unrestricted-paths", "medium", 4),
    ("tools:\n  http_request: {require_audit_log: true}", "unrestricted-domains", "high", 4),
    ("tools:\n  http_get: {require_audit_log: true}", "unrestricted-domains", "medium", 4),
    ("tools:\n  database_write: {require_audit_log: true}", "unrestricted-high", "medium", 4),
    ("tools:\n  bash: {require_audit_log: true}", "shell-enabled", "high", 4),
    ("tools:\n  memory_store: {require_scope: x}", "unlogged", "low", 4),
    ("tools:\n  ping:\n    allowed_domains:\n      - a.example.com\n      - '*'", "wide-domain", "high", 7),
    ("tools: {ping: {allowed_domains: ['*.com']}}", "wide-domain", "high", 3),
    ("tools: {ping: {allowed_domains: ['*.co.uk']}}", "wide-domain", "high", 3),
    ("tools: {ping: {allowed_domains: ['https://api.openai.com/']}}", "odd-domain", "medium", 3),
    ("tools: {ping: {allowed_domains: ['api.*.com']}}", "odd-domain", "medium", 3),
    ("tools: {ping: {allowed_paths: ['/']}}", "wide-path", "high", 3),
    ("tools: {ping: {allowed_paths: ['/app/*']}}", "pattern-path", "medium", 3),
    ("tools: {ping: {allowed_paths: ['data/']}}", "relative-path", "medium", 3),
    ("tools: {ping: {allowed_paths: ['/app']}}", "path-without-slash", "low", 3),
    ("keys:\n  a: {created: 2026-08-23}", "old-key", "medium", 4),
    ("keys:\n  a: {client: x}", "undated-key", "low", 4),
    (f"keys: {{a: {{created: 2026-11-01}}}}\nrevoked:\n- {{key: b, at: {AT}}}", "unknown-revoked", "low", 5),
    (
        f"revoked:\n - {{key: a, at: {AT}}}\n - {{key: b, at: {AT}, until: 2026-11-21T23:00:00Z}}",
        "over",
        "low",
        5,
    ),
    (f"lockouts:\n - {{key: b, at: {AT}, until: 2026-11-21T23:00:00Z}}", "over", "low", 4),
]


@pytest.mark.parametrize(("text", "code", "severity", "line"), FOUND)
def test_what_is_unwise_is_found_on_its_line(text: str, code: str, severity: str, line: int) -> None:
    found = lint(f"version: 1\nunlisted_tools: deny\n{text}\n".encode(), None, today=TODAY)
    assert [(advice.code, advice.severity, advice.line) for advice in found] == [(code, severity, line)]
    assert found[0].message.isprintable()


def test_tools_that_are_not_listed_should_be_denied() -> None:
    assert [advice.code for advice in lint(b"version: 1\n", None, today=TODAY)] == ["unlisted-allowed"]


def test_every_check_is_tried_here() -> None:
    assert {code for _, code, _, _ in FOUND} | {"unlisted-allowed"} == set(CHECKS)


def test_a_sound_policy_gets_no_advice() -> None:
    assert lint(GOOD.encode(), Path("policy.yaml"), today=TODAY) == []


def test_an_invalid_policy_is_an_error_and_no_advice() -> None:
    with pytest.raises(PolicyError, match=r"^policy.yaml:1: "):
        lint(b"version: 2", Path("policy.yaml"), today=TODAY)
