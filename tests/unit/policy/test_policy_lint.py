"""Every check of a policy file fires on what it is for, on the right line, and on nothing that is fine."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mcpwatch.data import shipped
from mcpwatch.documents.tree import compose
from mcpwatch.policy.advice.comments import comments
from mcpwatch.policy.lint import CHECKS, CODES, Advice, Severity, lint
from mcpwatch.policy.load import POLICY_FILE
from mcpwatch.policy.model import PolicyError
from mcpwatch.policy.urls import judge_url

TODAY = date(2026, 11, 22)
AT = "2026-01-01T00:00:00Z"
LATER = "2027-01-01T00:00:00Z"
HEAD = "version: 1\nunlisted_tools: deny\n"
"""Two lines, so that what follows begins on line 3."""

GOOD = """\
version: 1
tools:
  file_read: {allowed_paths: ["/app/data/"], require_scope: read, require_audit_log: true}
  # Posts to the model providers, for everybody.
  http_request: {allowed_domains: ["api.openai.com", "*.example.com", "10.0.0.1:8080"], require_audit_log: true}
  database_write: {require_scope: write, require_audit_log: true}
  shell_execute: {enabled: false}
  calculator:
unlisted_tools: deny
keys:
  key_0001: {owner: payments, scopes: [read, write], created: 2026-09-01}
revoked:
  - {key: key_0001, at: 2026-01-01T00:00:00Z, until: 2026-11-22T00:00:00Z}
"""


def key(name: str, more: str = "") -> str:
    return f"  {name}: {{owner: x, created: 2026-11-01{more}}}"


def domains(*entries: str) -> str:
    return "tools:\n  calculator:\n    allowed_domains:\n" + "\n".join(
        f"      - '{each}'" for each in entries
    )


def paths(*entries: str, more: str = "") -> str:
    listed = "\n".join(f'      - "{each}"' for each in entries)
    return f"tools:\n  calculator:\n    allowed_paths:\n{listed}\n{more}"


SCOPED = "tools:\n  file_read: {allowed_paths: ['/a/'], require_audit_log: true, require_scope: read}\n"

FOUND: list[tuple[str, str, Severity, int]] = [
    ("tools:\n  file_write: {require_audit_log: true, require_scope: x}", "unrestricted-paths", "high", 4),
    ("tools:\n  file_read: {require_audit_log: true}", "unrestricted-paths", "medium", 4),
    ("tools:\n  http_request: {require_audit_log: true, require_scope: x}", "unrestricted-domains", "high", 4),
    ("tools:\n  http_get: {require_audit_log: true}", "unrestricted-domains", "medium", 4),
    ("tools:\n  database_write: {require_audit_log: true}", "unrestricted-high", "medium", 4),
    ("tools:\n  database_write: {require_audit_log: true}  # for all", "unrestricted-high", "medium", 4),
    ("tools:\n  bash: {require_audit_log: true}", "shell-enabled", "high", 4),
    ("tools:\n  mcp__a__run-command: {require_audit_log: true, require_scope: x}", "shell-enabled", "high", 4),
    (
        "tools:\n  file_write: {require_audit_log: true, allowed_paths: [/a/]}",
        "unexplained-high",
        "low",
        4,
    ),
    (
        "# far above\n\ntools:\n  file_write: {require_audit_log: true, allowed_paths: ['/a/ # no comment/']}",
        "unexplained-high",
        "low",
        6,
    ),
    (
        "tools:\n  # -----\n  file_write: {require_audit_log: true, allowed_paths: [/a/]}",
        "unexplained-high",
        "low",
        5,
    ),
    (
        "tools:\n  calculator: {}  # of another tool\n  file_write: {require_audit_log: true, allowed_paths: [/a/]}",
        "unexplained-high",
        "low",
        5,
    ),
    ("tools:\n  memory_store: {require_scope: x}", "unlogged", "low", 4),
    ("tools:\n  crm_sync: {}", "unrated", "low", 4),
    (
        "risk_tiers: {medium: [calculator]}\ntools:\n  calculator:\n    risk: low",
        "risk-conflict",
        "medium",
        6,
    ),
    ("tools:\n  text-transform: {risk: low}\n  Text_Transform: {risk: low}", "two-spellings", "low", 5),
    ("tools:\n  datetime: {}\n  DateTime: {enabled: false}", "two-spellings", "medium", 5),
    ("tools:\n  bash: {enabled: false, require_scope: x}", "disabled-restricted", "low", 4),
    ("tools:\n  file_read: {enabled: false, require_audit_log: true}", "disabled-restricted", "low", 4),
    ("tools:\n  calculator:\n    enabled: true\n    allowed_paths: []", "nothing-allowed", "low", 6),
    (
        "tools:\n  calculator:\n    enabled: true\n    allowed_paths: []\n    allowed_domains: []",
        "nothing-allowed",
        "low",
        6,
    ),
    (
        paths("/a/", more="    path_params: [filePath]\n    url_params:\n      - x\n      - file-path"),
        "double-param",
        "medium",
        10,
    ),
    (paths("/a/", more="    path_params: []"), "blind-restriction", "medium", 7),
    (domains("a.example.com") + "\n    url_params: []", "blind-restriction", "medium", 7),
    ("tools:\n  calculator:\n    path_params: [x]", "blind-restriction", "low", 5),
    (domains("*"), "wide-domain", "high", 6),
    *((domains(each), "wide-domain", "high", 6) for each in (
        "*.com", "*.COM.", "*.com:443", "*.co.uk", "*.github.io", "*.s3.amazonaws.com", "*.herokuapp.com",
        "*.xn--p1ai", "*.рф", "*.anything.ck",
    )),
    (domains("*.amazonaws.com"), "wide-domain", "medium", 6),
    (domains("*.windows.net"), "wide-domain", "medium", 6),
    (domains("https://api.openai.com/"), "odd-domain", "medium", 6),
    (domains("api.*.com"), "odd-domain", "medium", 6),
    *((domains(each), "metadata-domain", "high", 6) for each in (
        "169.254.169.254", "metadata.google.internal", "[fd00:ec2::254]:80",
    )),
    (domains("a.example.com", "b.org", "*.example.com"), "shadowed-domain", "low", 6),
    (domains("*.a.example.com", "*.example.com"), "shadowed-domain", "low", 6),
    (domains("api.example.com", "API.example.com."), "shadowed-domain", "low", 7),
    (domains("a.example.com:8443", "*.example.com:8443"), "shadowed-domain", "low", 6),
    (paths("/"), "wide-path", "high", 6),
    (paths("C:\\\\"), "wide-path", "high", 6),
    (paths("/app/*"), "pattern-path", "medium", 6),
    (paths("data/"), "relative-path", "medium", 6),
    (paths("/data/", more="    base_dir: data"), "relative-path", "medium", 7),
    (paths("/app"), "path-without-slash", "low", 6),
    (paths("/app/data/", "/b/", "/app/"), "shadowed-path", "low", 6),
    (paths("/app/", "/app/./"), "shadowed-path", "low", 7),
    (paths("/b/../app/x/", "/app/"), "shadowed-path", "low", 6),
    (paths("C:\\\\App\\\\Data\\\\", "c:/app/"), "shadowed-path", "low", 6),
    (paths("/app/data/", more="    base_dir: /srv"), "base-outside", "medium", 7),
    ("alerts:\n  session_calls_per_minute: 600\n  key_requests_per_minute: 900", "limit-high", "medium", 4),
    ("alerts:\n  auth_failures: 100", "limit-high", "medium", 4),
    ("alerts:\n  session_calls_per_minute: 9", "limit-low", "low", 4),
    ("alerts:\n  auth_failures: 1", "limit-low", "low", 4),
    (
        "alerts:\n  session_calls_per_minute: 20\n  key_requests_per_minute: 19",
        "limits-crossed",
        "low",
        5,
    ),
    ("alerts:\n  auth_failures: 3\n  enforcement_grace: 5m", "grace-too-long", "medium", 5),
    ("lockout:\n  enforce: true\n  durations: [10s, 1h]", "grace-too-long", "medium", 5),
    ("lockout:\n  durations:\n    - 1h\n    - 2h\n    - 90m", "ladder-not-rising", "low", 7),
    ("lockout:\n  durations:\n    - 1h\n    - 60m", "ladder-not-rising", "low", 6),
    ("keys:\n  a: {created: 2026-08-23, owner: x}", "old-key", "medium", 4),
    (
        f"keys:\n  a: {{created: 2026-08-23, owner: x}}\nrevoked: [{{client: a, at: {AT}}}]",
        "old-key",
        "medium",
        4,
    ),
    (
        f"keys:\n  a: {{created: 2026-08-23, owner: x}}\nrevoked: [{{key: a, at: {AT}, until: {LATER}}}]",
        "old-key",
        "medium",
        4,
    ),
    ("keys:\n  a: {owner: x}", "undated-key", "low", 4),
    ("keys:\n  a: {created: 2026-11-01}", "unowned-key", "low", 4),
    (f"{SCOPED}keys:\n{key('a', ', scopes: [read, wirte]')}", "unused-scope", "low", 6),
    (f"{SCOPED}keys:\n{key('a', ', scopes: []')}", "unheld-scope", "low", 4),
    (f"keys:\n{key('a')}\nrevoked:\n- {{key: b, at: {AT}}}", "unknown-revoked", "low", 6),
    (f"revoked:\n- {{key: b, at: {AT}}}\n- {{key: b, at: {LATER}}}", "revoked-twice", "low", 5),
    (
        f"revoked:\n- {{key: b, at: {LATER}}}\n- {{key: b, at: {AT}, until: 2027-02-01T00:00:00Z}}",
        "revoked-twice",
        "low",
        4,
    ),
    (
        f"revoked:\n- {{key: b, at: {AT}, until: 2026-12-01T00:00:00Z}}\n"
        f"- {{key: b, at: 2026-12-01T00:00:00Z, until: {LATER}}}\n- {{key: b, at: 2026-12-15T00:00:00Z}}",
        "revoked-twice",
        "low",
        6,
    ),
    (
        f"revoked:\n- {{key: b, at: {AT}, until: {LATER}}}\nlockouts:\n- {{key: b, at: {AT}, until: {LATER}}}",
        "locked-revoked",
        "low",
        6,
    ),
    (f"lockouts:\n- {{source_ip: '::1', at: {AT}, until: 2026-11-22T00:00:00Z}}", "locked-proxy", "high", 4),
    (
        f"revoked:\n- {{key: b, at: {AT}}}\nlockouts:\n- {{key: b, at: {AT}, until: {LATER}}}",
        "locked-revoked",
        "low",
        6,
    ),
    *((f"lockouts:\n- {{source_ip: '{each}', at: {AT}, until: {LATER}}}", "locked-proxy", "high", 4) for each in (
        "127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "0.0.0.0",
    )),
    (
        f"lockout: {{trusted_proxies: [10.0.0.7]}}\nlockouts:\n- {{source_ip: 10.0.0.7, at: {AT}, until: {LATER}}}",
        "locked-proxy",
        "high",
        5,
    ),
    (
        f"revoked:\n - {{key: a, at: {AT}}}\n - {{key: b, at: {AT}, until: 2026-11-21T23:00:00Z}}",
        "over",
        "low",
        5,
    ),
    (f"lockouts:\n - {{key: b, at: {AT}, until: 2026-11-21T23:00:00Z}}", "over", "low", 4),
]  # fmt: skip
"""What follows `HEAD`, and the only advice on it."""

FINE: list[tuple[str, str]] = [
    ("unrestricted-paths", "tools: {file_write: {allowed_paths: []}, file_read: {enabled: false}}"),
    ("unrestricted-paths", "tools: {file_read: {risk: low}, database_write: {}}"),
    ("unrestricted-domains", "tools: {http_request: {allowed_domains: []}, http_get: {enabled: false}}"),
    ("unrestricted-high", "tools: {database_write: {require_scope: x}, file_write: {}, bash: {}}"),
    ("unexplained-high", "tools:\n  # Why not\n  file_write: {allowed_paths: [/a/]}"),
    ("unexplained-high", "tools:\n  file_write: {allowed_paths: [/a/]}  # why not"),
    ("unexplained-high", "tools:\n  file_write:\n    # why not\n    allowed_paths: [/a/]"),
    ("unexplained-high", "tools:\n  file_write: {\n    allowed_paths: [/a/] # why not\n  }"),
    ("unexplained-high", "tools:\n  file_write: {require_scope: x}\n  file_delete: {enabled: false}"),
    ("unexplained-high", "tools:\n  file_write: {risk: medium}"),
    ("shell-enabled", "tools: {bash: {enabled: false}, bash_history: {}}"),
    ("unlogged", "tools: {calculator: {}, file_read: {require_audit_log: true}, bash: {enabled: false}}"),
    ("unrated", "tools: {calculator: {}, user_list: {}, crm_sync: {risk: low}, mcp__x__datetime: {}}"),
    ("unrated", "risk_tiers: {low: [crm_sync]}\ntools: {crm_sync: {}, other_sync: {enabled: false}}"),
    ("risk-conflict", "risk_tiers: {high: [calculator, x]}\ntools: {calculator: {risk: high}, x: {}}"),
    ("two-spellings", "tools: {file_read: {}, file_reads: {}, fileread: {}, mcp__a__file_read: {}}"),
    ("disabled-restricted", "tools: {bash: {enabled: false}, file_read: {require_scope: x}}"),
    ("disabled-restricted", f"tools: {{bash: {{enabled: false, since: {AT}, require_scope: x}}}}"),
    ("disabled-restricted", "tools: {deploy: {enabled: false, risk: high}}"),
    ("nothing-allowed", "tools: {calculator: {allowed_paths: []}}"),
    ("nothing-allowed", "tools: {a: {enabled: true, allowed_paths: [], allowed_domains: [a.example.com]}}"),
    ("nothing-allowed", "tools: {a: {enabled: false, allowed_paths: []}, b: {enabled: true}}"),
    ("double-param", "tools: {a: {path_params: [x], url_params: [y]}, b: {path_params: [y]}}"),
    ("blind-restriction", "tools: {a: {allowed_paths: [/a/], path_params: [x]}, b: {url_params: [y]}}"),
    ("blind-restriction", "tools: {a: {path_params: [], allowed_domains: [a.example.com]}}"),
    *(("wide-domain", domains(each)) for each in (
        "com", "github.io", "*.example.com", "*.me.github.io", "*.mine.s3.amazonaws.com", "*.internal",
        "*.svc.cluster.local", "*.wikipedia.org", "*.openai.com", "*.example.co.uk",
        "*.www.ck",
    )),
    ("wide-domain", "tools: {calculator: {enabled: false, allowed_domains: ['*']}}"),
    ("odd-domain", domains("a.example.com", "*.example.com", "a.example.com:8443", "[::1]:80", "::1", "bücher.de")),
    ("metadata-domain", domains("metadata.example.com", "169.253.0.1", "10.0.0.1")),
    ("shadowed-domain", domains("example.com", "*.example.com", "a.example.org", "*.b.example.net")),
    ("shadowed-domain", domains("a.example.com:8443", "*.example.com", "b.org", "b.org:8443")),
    ("shadowed-domain", domains("10.0.0.1", "*", "::1")),
    ("wide-path", paths("/app/", "C:\\\\app\\\\")),
    ("pattern-path", paths("/app/[a]/", "/app/%41/")),
    ("relative-path", paths("/app/", "C:\\\\app\\\\", "\\\\\\\\host\\\\share\\\\", more="    base_dir: /app")),
    ("path-without-slash", paths("/app/", "C:\\\\app\\\\")),
    ("shadowed-path", paths("/app/data/", "/app/data-evil/", "/app/public/", "/apps/", "/app/Data/")),
    ("shadowed-path", paths("data/x/", "/data/")),
    ("base-outside", paths("/app/data/", more="    base_dir: /app/data/x")),
    ("base-outside", paths("/app/data/", more="    base_dir: /app")),
    ("base-outside", paths("/app/data/", more="    base_dir: /")),
    ("base-outside", paths("/app/data/", more="    base_dir: ../x")),
    ("base-outside", "tools: {a: {allowed_paths: [], base_dir: /x}}"),
    ("unlisted-allowed", ""),
    ("limit-high", "alerts: {session_calls_per_minute: 599, auth_failures: 99}"),
    ("limit-low", ""),
    ("limit-low", "alerts: {session_calls_per_minute: 10, auth_failures: 2}"),
    ("limits-crossed", "alerts: {session_calls_per_minute: 50, key_requests_per_minute: 50}"),
    ("grace-too-long", "alerts: {enforcement_grace: 299s}"),
    ("grace-too-long", "lockout: {durations: [11s]}"),
    ("ladder-not-rising", "lockout: {durations: [1h]}"),
    ("ladder-not-rising", "lockout: {durations: [1h, 2h, 24h]}"),
    ("old-key", "keys: {a: {created: 2026-08-24}}"),
    ("old-key", f"keys: {{a: {{created: 2020-01-01}}}}\nrevoked: [{{key: a, at: {AT}}}]"),
    ("undated-key", f"keys: {{a: {{}}, b: {{created: 2026-11-22}}}}\nrevoked: [{{key: a, at: {AT}}}]"),
    ("unowned-key", f"keys: {{a: {{}}, b: {{owner: x}}}}\nrevoked: [{{key: a, at: {AT}}}]"),
    ("unused-scope", "tools: {a: {}}\nkeys: {a: {scopes: [x]}}"),
    ("unused-scope", "tools: {a: {require_scope: x, enabled: false}}\nkeys: {a: {scopes: [x]}, b: {}}"),
    ("unheld-scope", "tools: {a: {require_scope: x}}"),
    ("unheld-scope", "tools: {a: {require_scope: x}}\nkeys: {a: {scopes: [y]}, b: {}}"),
    ("unheld-scope", "tools: {b: {enabled: false, require_scope: z}}\nkeys: {a: {scopes: [x]}}"),
    ("unknown-revoked", f"revoked: [{{key: a, at: {AT}}}]"),
    ("unknown-revoked", f"keys: {{a: {{}}}}\nrevoked: [{{client: b, at: {AT}}}, {{key: a, at: {AT}}}]"),
    ("revoked-twice", f"revoked: [{{key: a, at: {AT}}}, {{client: a, at: {AT}}}, {{key: b, at: {AT}}}]"),
    ("revoked-twice", f"revoked: [{{key: a, at: {LATER}}}, {{key: a, at: {AT}, until: {LATER}}}]"),
    ("locked-revoked", f"revoked: [{{client: a, at: {AT}}}]\nlockouts: [{{key: a, at: {AT}, until: {LATER}}}]"),
    (
        "locked-revoked",
        f"revoked: [{{key: a, at: {AT}, until: 2026-12-01T00:00:00Z}}]\n"
        f"lockouts: [{{key: a, at: {AT}, until: {LATER}}}, {{source_ip: 192.0.2.1, at: {AT}, until: {LATER}}}]",
    ),
    ("locked-revoked", f"revoked: [{{key: a, at: {LATER}}}]\nlockouts: [{{key: a, at: {AT}, until: {LATER}}}]"),
    ("locked-proxy", f"lockouts: [{{key: a, source_ip: 127.0.0.1, at: {AT}, until: {LATER}}}]"),
    ("locked-proxy", f"lockouts: [{{source_ip: 192.0.2.1, at: {AT}, until: {LATER}}}]"),
    ("over", f"revoked: [{{key: a, at: {AT}, until: 2026-11-22T00:00:00Z}}]"),
    ("over", f"lockouts: [{{key: a, at: {AT}, until: 2026-11-22T00:00:00Z}}]"),
]  # fmt: skip
"""Checks, and what follows `HEAD` that they have nothing against."""


def advice(text: str) -> list[Advice]:
    return lint(f"{HEAD}{text}\n".encode(), None, today=TODAY)


@pytest.mark.parametrize(("text", "code", "severity", "line"), FOUND)
def test_what_is_unwise_is_found_on_its_line_and_nothing_else(
    text: str, code: str, severity: str, line: int
) -> None:
    found = advice(text)
    assert [(item.code, item.severity, item.line) for item in found] == [(code, severity, line)]
    assert found[0].message.isprintable()


@pytest.mark.parametrize(("code", "text"), FINE)
def test_what_is_fine_is_not_found(code: str, text: str) -> None:
    assert code not in {item.code for item in advice(text)}


def test_tools_that_are_not_listed_should_be_denied() -> None:
    for text in ("version: 1\n", "version: 1\nunlisted_tools: allow\n"):
        [item] = lint(text.encode(), None, today=TODAY)
        assert (item.code, item.severity, item.line) == ("unlisted-allowed", "medium", text.count("\n"))


def test_every_check_is_tried_both_ways() -> None:
    assert {code for _, code, _, _ in FOUND} | {"unlisted-allowed"} == set(CHECKS)
    assert {code for code, _ in FINE} == set(CHECKS)
    assert set(CHECKS) < set(CODES), "the scan for links has codes of its own"


def test_a_sound_policy_gets_no_advice() -> None:
    assert lint(GOOD.encode(), Path("policy.yaml"), today=TODAY) == []


def test_the_sample_policy_has_the_two_things_to_find() -> None:
    found = lint((shipped("sample_logs") / "policy.yaml").read_bytes(), None, today=TODAY)
    assert [item.code for item in found] == ["shell-enabled", "old-key"]


def test_an_invalid_policy_is_an_error_and_no_advice() -> None:
    with pytest.raises(PolicyError, match=r"^policy.yaml:1: "):
        lint(b"version: 2", Path("policy.yaml"), today=TODAY)


def test_names_from_the_file_are_shown_safely_and_leave_room_for_what_to_do() -> None:
    name = "x\\e[31m" + "y" * 500 + "_write"
    found = advice(f'tools:\n  "{name}": {{require_audit_log: true}}')
    assert found
    for item in found:
        assert "\x1b" not in item.message
        assert item.message.isprintable()
        assert ":" in item.message, "what to do is still there"


def test_advice_comes_by_line_and_the_worst_of_a_line_first() -> None:
    found = advice("tools:\n  bash: {}\n  crm_sync: {}\nalerts: {auth_failures: 1}")
    assert [(item.line, item.severity) for item in found] == [(4, "high"), (4, "low"), (5, "low"), (6, "low")]


def test_every_message_says_what_to_do() -> None:
    """Behind a colon, or as a question where only a person can know."""
    for text, _, _, _ in FOUND:
        for item in advice(text):
            assert ":" in item.message or item.message.endswith("?"), item


def test_large_lists_and_many_keys_are_linted_in_linear_time() -> None:
    """Comparing every pair, or looking through all keys for each, would take hours here: this ends at all."""
    many = "\n".join(f"      - h{number}.example.com" for number in range(15_000))
    found = advice(f"tools:\n  calculator:\n    allowed_domains:\n{many}\n      - '*.example.com'")
    assert [item.code for item in found] == ["shadowed-domain"] * 15_000
    folders = "\n".join(f"      - /a/{number}/" for number in range(15_000))
    assert advice(f"tools:\n  calculator:\n    allowed_paths:\n{folders}") == []
    keys = "\n".join(f"  k{number}: {{owner: x}}" for number in range(10_000))
    assert len(advice(f"keys:\n{keys}")) == 10_000


HOST = st.lists(st.sampled_from(["a", "b", "com", "io", "github"]), min_size=1, max_size=4).map(".".join)
ENTRY = st.builds(
    lambda star, host, port: f"{star}{host}{port}",
    st.sampled_from(["", "*."]),
    HOST,
    st.sampled_from(["", ":443", ":8443"]),
)


@given(st.lists(ENTRY, min_size=1, max_size=5), HOST, st.sampled_from(["", ":443", ":8443"]))
def test_removing_what_is_shadowed_changes_no_verdict(entries: list[str], host: str, port: str) -> None:
    """One at a time, the list allows exactly the same hosts without a shadowed entry."""
    text = domains(*entries)
    for item in advice(text):
        if item.code == "shadowed-domain":
            rest = [entry for number, entry in enumerate(entries) if number + 6 != item.line]
            for url in (f"https://{host}{port}/", f"http://{host}{port}/"):
                assert judge_url(url, tuple(entries)).verdict is judge_url(url, tuple(rest)).verdict


@given(st.text("ab #'\"\n:-|[]{}\\", max_size=60))
def test_comments_are_found_where_the_yaml_reader_sees_none_of_their_text(text: str) -> None:
    """Taking the comments out of a file never changes what it says."""
    data = f"x: 1\n{text}"
    try:
        document = compose(data.encode(), "x", POLICY_FILE)
        meant = yaml.load(data, yaml.BaseLoader)
    except (PolicyError, yaml.YAMLError, TypeError):
        return
    lines = document.text.split("\n")
    for number, alone in comments(document).items():
        if alone:
            without = "\n".join([*lines[: number - 1], "# other words", *lines[number:]])
            assert yaml.load(without, yaml.BaseLoader) == meant
