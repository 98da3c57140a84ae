# ruff: noqa: E501 - a table of whole files is easier to read with one file on each line
from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from mcpwatch.documents import tree
from mcpwatch.policy.load import MissingPolicy, load, parse
from mcpwatch.policy.model import (
    Alerts,
    Key,
    Lockout,
    LockoutRules,
    PolicyError,
    Revocation,
    Tier,
    ToolPolicy,
)
from mcpwatch.times import HOUR, MINUTE, SECOND

HASH = "9F86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
AT = 1_795_317_247_123_456_000

EXAMPLE = f"""\
# Policy of the payments fleet. Changes go through on-call.
version: 1
tools:                                   # permission matrix
  file_read:     {{allowed_paths: ["/app/data/", "/app/public/"], require_scope: read}}
  file_write:    {{allowed_paths: ["/app/output/"], require_scope: write, require_audit_log: true}}
  shell_execute: {{enabled: false}}        # nobody needs it
  http_request:  {{allowed_domains: ["api.openai.com", "api.anthropic.com"], require_scope: network}}
  move_file:
    risk: high
    path_params: [source, destination]
    url_params: []
    base_dir: /app
    definition_sha256: "{HASH}"
  calculator:
unlisted_tools: deny                     # or allow
risk_tiers: {{high: [deploy], medium: [report], low: [ping]}}
alerts:                                  # optional; defaults shown
  session_calls_per_minute: 5
  key_requests_per_minute: 100
  auth_failures: 3
  auth_failures_within: 5m
  enforcement_grace: 10s
  allowed_lateness: 120s
lockout: {{enforce: false, durations: [5m, 15m, 1h, 4h, 24h], trusted_proxies: [127.0.0.1, "::1"]}}
keys:
  key_0001: {{client: billing-bot, owner: payments, scopes: [read, network], created: 2026-09-01, sha256: "{HASH}"}}
  0007: {{client: yes}}
revoked:                                 # written by mcpwatch
  - {{key: key_0007, at: "2026-11-22T03:14:07.123456Z", by: "alice@bastion", reason: "leaked in a ticket"}}
  - {{session: 0x1F, at: 2026-11-22T03:14:07.123456Z, until: 2026-11-22 05:14:07.123456 +01:00}}
lockouts:
  - {{key: key_0009, source_ip: "203.0.113.9", at: "2026-11-22T03:14:07.123456Z", until: "2026-11-22T03:19:07Z",
     rule: auth-lockout, incident: INC-5R3JIASZOBTCFJZK}}
"""


def test_the_whole_example_is_read_as_it_is_meant() -> None:
    policy = parse(EXAMPLE.encode(), Path("policy.yaml"))
    assert policy.tools["file_read"] == ToolPolicy(
        allowed_paths=("/app/data/", "/app/public/"), require_scope="read"
    )
    assert policy.tools["file_write"].require_audit_log
    assert not policy.tools["shell_execute"].enabled
    assert policy.tools["http_request"].allowed_domains == ("api.openai.com", "api.anthropic.com")
    assert policy.tools["move_file"] == ToolPolicy(
        risk=Tier.HIGH,
        path_params=("source", "destination"),
        url_params=(),
        base_dir="/app",
        definition_sha256=HASH.lower(),
    )
    assert policy.tools["calculator"] == ToolPolicy()
    assert policy.deny_unlisted
    assert policy.risk_tiers == {"deploy": Tier.HIGH, "report": Tier.MEDIUM, "ping": Tier.LOW}
    assert policy.alerts == Alerts()
    assert policy.lockout == LockoutRules()
    assert policy.lockout.durations == (5 * MINUTE, 15 * MINUTE, HOUR, 4 * HOUR, 24 * HOUR)
    assert policy.keys["key_0001"] == Key(
        "key_0001", "billing-bot", "payments", ("read", "network"), date(2026, 9, 1), HASH.lower()
    )
    assert policy.keys["0007"] == Key("0007", "yes")
    assert policy.revoked == (
        Revocation("key", "key_0007", AT, "alice@bastion", "leaked in a ticket"),
        Revocation("session", "0x1F", AT, until=AT + HOUR),
    )
    locked_until = AT - 123_456_000 + 5 * MINUTE
    assert policy.lockouts == (
        Lockout("key_0009", "203.0.113.9", AT, locked_until, "auth-lockout", "INC-5R3JIASZOBTCFJZK"),
    )
    assert policy.path == Path("policy.yaml")
    assert policy.sha256 is not None


@pytest.mark.parametrize(
    "convert", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n"), lambda t: t.rstrip("\n")]
)
def test_bom_crlf_and_a_missing_last_newline_change_nothing(convert: object) -> None:
    assert callable(convert)
    plain, other = (parse(text.encode(), None) for text in (EXAMPLE, convert(EXAMPLE)))
    assert (plain.tools, plain.keys, plain.revoked) == (other.tools, other.keys, other.revoked)


def test_empty_sections_are_empty_and_an_empty_list_allows_nothing() -> None:
    text = "version: 1\ntools: {a: {allowed_paths: []}}\nrevoked:\nlockouts: ~\nkeys: {}\nalerts:\nlockout:\n"
    policy = parse(text.encode(), None)
    assert (policy.revoked, policy.lockouts, dict(policy.keys), policy.alerts) == ((), (), {}, Alerts())
    assert policy.tools["a"].allowed_paths == ()
    assert not policy.deny_unlisted


def test_limits_of_the_file_are_used() -> None:
    text = "version: 1\nalerts: {session_calls_per_minute: 1000, enforcement_grace: 0s, auth_failures_within: 1h30m}\n"
    alerts = parse(text.encode(), None).alerts
    assert (alerts.session_calls_per_minute, alerts.enforcement_grace) == (1000, 0)
    assert alerts.auth_failures_within == 90 * 60 * SECOND


ONE = "2026-01-01T00:00:00Z"
BAD = [
    ("tools:\n  file_read: {allowed_path: []}", "policy.yaml:3: unknown key 'allowed_path' in tools.file_read; did you mean 'allowed_paths'?"),
    ("revokes: []", "policy.yaml:2: unknown key 'revokes'; did you mean 'revoked'?"),
    ("qqqq: []", "known are version"),
    ("tools: {a: {allowed_paths: /app/}}", "tools.a.allowed_paths must be a list"),
    ("tools: {a: {allowed_paths: }}", "tools.a.allowed_paths must be a list"),
    ("tools: {a: {allowed_paths: [~]}}", "allowed_paths[0] must be text"),
    ("tools: {a: {enabled: 'false'}}", "true or false, without quotes"),
    ("tools: {a: {enabled: 0}}", "true or false"),
    ("tools: {a: {risk: severe}}", "high or medium or low"),
    ("tools: {a: {definition_sha256: abc}}", "SHA-256"),
    ("tools: [a]", "tools must be a mapping"),
    ("tools: {a: {}, a: {}}", "duplicate key 'a', first on line 2"),
    ("tools: {yes: {}, 'yes': {}}", "duplicate key"),
    ("tools: {'': {}}", "must not be empty"),
    ("unlisted_tools: maybe", "deny or allow"),
    ("unlisted_tools:", "deny or allow"),
    ("risk_tiers: {high: [a], low: [a]}", "two tiers"),
    ("risk_tiers: {severe: [a]}", "unknown key 'severe'"),
    ("alerts: {auth_failures: 0}", "from 1 to 1000"),
    ("alerts: {auth_failures: 1001}", "from 1 to 1000"),
    ("alerts: {auth_failures: 1e2}", "from 1 to 1000"),
    ("alerts: {auth_failures_within: 10}", "duration"),
    ("alerts: {auth_failures_within: 0s}", "duration"),
    ("alerts: {allowed_lateness: 999999999d}", "at most 3650 days"),
    ("lockout: {durations: []}", "at least one duration"),
    ("lockout: {trusted_proxies: [localhost]}", "IP address, not 'localhost'"),
    ("keys: {a: {created: 2026-13-01}}", "a day such as"),
    ("keys: {a: {sha256: secret}}", "SHA-256"),
    (f"revoked: [{{at: {ONE}}}]", "exactly one of key, client, session, subject"),
    (f"revoked: [{{key: ~, at: {ONE}}}]", "exactly one of"),
    (f"revoked: [{{key: a, client: b, at: {ONE}}}]", "exactly one of"),
    ("revoked: [{key: a}]", "revoked[0] has no 'at'"),
    ("revoked: [{key: a, at: today}]", "a time such as"),
    (f"revoked: [{{key: a, at: {ONE}, until: {ONE}}}]", "ends ('until') before it begins"),
    ("revoked: {key: a}", "revoked must be a list"),
    (f"lockouts: [{{at: {ONE}, until: 2026-01-02}}]", "a time such as"),
    (f"lockouts: [{{at: {ONE}, until: 2026-01-02T00:00:00Z}}]", "a key, a source_ip, or both"),
    (f"lockouts: [{{source_ip: 1.2.3, at: {ONE}, until: 2026-01-02T00:00:00Z}}]", "IP address"),
    ("tools: &a {x: *a}", "stands for nothing, or for itself"),
    ("tools: {<<: {a: {}}}", "merge keys"),
    ("tools: {a: {require_scope: !secret x}}", "unknown tag"),
    ("---\nversion: 1", "a second document starts here"),
    ("tools: {[a]: {}}", "a key must be plain text"),
    ("tools: {a: [}", "not YAML"),
    ("tools: {\"\x1b[31m\": {}}", "policy.yaml"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD)
def test_what_is_wrong_is_named_with_file_and_line(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse(f"version: 1\n{text}\n".encode(), Path("policy.yaml"))
    assert message in str(caught.value)
    assert str(caught.value).startswith("policy.yaml")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "data", [b"", b"# nothing\n", b"~", b"[]", b"version: 2\n", b"version:\n", b"tools: {}\n", b"x", b"\xff\xfe1\x00",
             b"version: 1\nkeys: {\xff: {}}", b"\xef\xbb\xbf\xef\xbb\xbfversion: 1\n", b"version: 1\n\x00", b" " * (1 << 20) + b"1"]
)  # fmt: skip
def test_what_is_no_policy_at_all_is_refused(data: bytes) -> None:
    """In particular an empty file, which an editor leaves for a moment, is not a policy that allows everything."""
    with pytest.raises(PolicyError):
        parse(data, None)


BOMBS = {
    "depth": "version: 1\ntools: " + "[" * 100_000,
    "flow maps": "version: 1\ntools: " + "{a: " * 50_000,
    "laughs": "version: 1\na: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)),
    "merges": "version: 1\na0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 30)),
    "nodes": "version: 1\ntools: [" + "a," * 400_000 + "]",
    "aliases": "version: 1\na: &a x\ntools: [" + "*a," * 1_000 + "]",
}  # fmt: skip


CAPS = {
    "depth": "nested more than 64 levels",
    "flow maps": "nested more than 64 levels",
    "laughs": "more than 50000 values",
    "merges": "merge keys",
    "nodes": "more than 50000 values",
    "aliases": "more than 100 aliases",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_document_made_to_exhaust_memory_is_refused(name: str) -> None:
    # without the caps these take minutes, or crash the process
    with pytest.raises(PolicyError, match=CAPS[name]):
        parse(BOMBS[name].encode(), None)


@example(b"version: 1\n? \n: - ")
@example(b"version: 1\nkeys: {a: {created: 0000-00-00}}")
@example(b"version: 1\nrevoked: [{key: a, at: 9999-12-31T23:59:59-23:59}]")
@given(
    st.binary(max_size=200)
    | st.text(alphabet="version: 1\n\r-[]{},&*!|>'\"#%@`?~<a\\x0\u2028\x85\ufeff", max_size=120).map(
        lambda text: b"version: 1\n" + text.encode()
    )
)
def test_nothing_but_a_policy_error_is_ever_raised(data: bytes) -> None:
    try:
        policy = parse(data, None)
    except PolicyError as error:
        assert str(error).isprintable()
    else:
        assert policy.sha256


def test_both_yaml_loaders_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with_c = parse(EXAMPLE.encode(), None)
    monkeypatch.setattr(tree, "_LOADER", yaml.SafeLoader)
    assert parse(EXAMPLE.encode(), None) == with_c


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPolicy, match=r"no such policy file.*policy init"):
        load(tmp_path / "policy.yaml")
    with pytest.raises(PolicyError, match="Is a directory"):
        load(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PolicyError, match="not a regular file"):
        load(tmp_path / "pipe")
    (tmp_path / "policy.yaml").write_text(EXAMPLE)
    assert load(tmp_path / "policy.yaml").path == tmp_path / "policy.yaml"
