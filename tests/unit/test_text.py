"""What is promised about untrusted text: it can be shown, and it gives no secrets away."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcpwatch import text
from mcpwatch.text import REDACTED, is_secret_name, redact, redact_text, safe

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=200)  # surrogates too
LIMITS = st.integers(1, 300)

# DerivedCoreProperties.txt, Default_Ignorable_Code_Point, and printable characters that are drawn as a blank
DEFAULT_IGNORABLE = [
    *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFEFF, 0xFFA0),
    *range(0x180B, 0x1810),
    *range(0x200B, 0x2010),
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    *range(0xFE00, 0xFE10),
    *range(0xFFF0, 0xFFF9),
    *range(0x1BCA0, 0x1BCA4),
    *range(0x1D173, 0x1D17B),
    *range(0xE0000, 0xE1000),
]
BLANKS = [
    0xA0,
    0x1680,
    *range(0x2000, 0x200B),
    0x2028,
    0x2029,
    0x202F,
    0x205F,
    0x2800,
    0x3000,
    0xFFFC,
    0x1D159,
]


def longest_run_of_marks(shown: str) -> int:
    longest = run = 0
    for char in shown:
        run = run + 1 if unicodedata.category(char).startswith("M") else 0
        longest = max(longest, run)
    return longest


@given(ANY_TEXT, LIMITS)
@example("\ud800\udfff", 10)
@example("a" + "\u0301" * 50, 300)
@example("a" + "\u20dd\u0489" * 50, 300)
def test_whatever_comes_in_only_bounded_printable_text_comes_out(value: str, limit: int) -> None:
    shown = safe(value, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    assert not set(map(ord, shown)) & {*DEFAULT_IGNORABLE, *BLANKS}
    assert longest_run_of_marks(shown) <= 3


@given(ANY_TEXT, LIMITS)
def test_safe_text_made_safe_again_is_the_same(value: str, limit: int) -> None:
    once = safe(value, limit)
    assert safe(once, limit) == once


@given(st.binary(max_size=200))
def test_any_bytes_come_out_printable(value: bytes) -> None:
    assert safe(value).isprintable()


def test_every_code_point_comes_out_printable_and_visible() -> None:
    hidden = {*DEFAULT_IGNORABLE, *BLANKS}
    for start in range(0, 0x110000, 0x1000):
        shown = safe("x".join(map(chr, range(start, start + 0x1000))), 100_000)
        assert shown.isprintable(), hex(start)
        assert not set(map(ord, shown)) & hidden, hex(start)
        assert not shown.endswith("…")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain text, [/x] and \\ too", "plain text, [/x] and \\ too"),
        ("", ""),
        ("\x1b]0;owned\x07", "\\e]0;owned\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\nb\tc\rd\0", "a\\nb\\tc\\rd\\x00"),
        ("\x7f", "\\x7f"),
        ("abc\u202egpj.exe", "abc\\u202egpj.exe"),
        ("a\u200bb", "a\\u200bb"),
        ("\U000e0041", "\\U000e0041"),
        ("\udc80", "\\udc80"),
        ("a\u3164b\ufe0f", "a\\u3164b\\ufe0f"),
        ("x\U000e0100", "x\\U000e0100"),
        ("naïve 日本語 한국어 \U0001f600", "naïve 日本語 한국어 \U0001f600"),
        (b"caf\xc3\xa9 \xff\xfe", "café \\xff\\xfe"),
        (None, "None"),
        (12.5, "12.5"),
    ],
)
def test_what_a_terminal_could_obey_is_spelled_out_and_the_rest_stays(value: object, shown: str) -> None:
    assert safe(value) == shown


def test_the_fourth_mark_on_a_letter_is_spelled_out_and_a_new_letter_starts_anew() -> None:
    assert safe("e" + "\u0301" * 4 + "e\u0301") == "e\u0301\u0301\u0301\\u0301e\u0301"


def test_decomposed_hangul_is_readable_but_vowels_cannot_be_piled_up() -> None:
    decomposed = unicodedata.normalize("NFD", "한국어")
    assert safe(decomposed) == decomposed
    assert safe("\u1100" + "\u1161" * 5).endswith("\\u1161\\u1161")


def test_a_cut_text_ends_in_an_ellipsis_and_an_uncut_one_does_not() -> None:
    assert safe("abcdef", 6) == "abcdef"
    assert safe("abcdefg", 6) == "abcde…"
    assert safe("\x1babcd", 4) == "\\ea…"
    assert safe("\x1b\x1b\x1b\x1b", 6) == "\\e\\e\\…"
    assert len(safe("y" * 10_000_000)) == text.DEFAULT_LIMIT


def test_a_number_that_python_refuses_to_write_is_named() -> None:
    assert safe(10**5000) == "<int too long to write>"


def test_long_strings_are_not_kept_alive() -> None:
    """Hostile logs must not fill the memory through the caches."""
    before = text._safe_cached.cache_info().currsize, text._is_secret_name_cached.cache_info().currsize
    for number in range(50):
        safe(f"{number}" + "z" * 1_000)
        is_secret_name(f"{number}" + "z" * 1_000)
    assert (
        text._safe_cached.cache_info().currsize,
        text._is_secret_name_cached.cache_info().currsize,
    ) == before


JWT = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0"
    ".dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
)
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq\nabc=\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("value", "secret"),
    [
        ("use sk-ant-api03-Abc_def-0123456789 now", "sk-ant"),
        ("sk-proj-4f9c8a7b6d5e", "4f9c8a7b6d5e"),
        ("Bearer%20sk-proj-4f9c8a7b6d5e", "4f9c8a7b6d5e"),
        ("sk_live_4eC39HqLyjWDarjtT1zdp7dc", "4eC39"),
        ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", "16C7e"),
        ("github_pat_11ABCDEFG0aBcDeFgHiJ_kLmNoP", "11ABC"),
        ("glpat-AbCdEfGhIjKlMnOpQrSt", "AbCdEf"),
        ("xoxb-17653672481-19874698323-pdFZKVeTuE8sk7", "17653672481"),
        ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN"),
        ("AIzaSyDaGmWKa4JsXZ-HjGw7ISLn_3namBGewQe", "SyDaGm"),
        (f"token is {JWT}", "eyJzdWIi"),
        (f"{JWT}.extra.parts", "extra"),
        (PEM, "MIIEpAIB"),
        (PEM.replace("\n", "\\n"), "MIIEpAIB"),
        (PEM[:60], "MIIEp"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----\nlQOYBF", "lQOYBF"),
        ("Authorization: Bearer abcdef0123456789", "abcdef0123456789"),
        ("authorization: basic dXNlcjpwYXNzd29yZA==", "dXNlcjpw"),
        ("curl -H 'Authorization: Basic dXNlcjpwYXNz' x", "dXNlcjpwYXNz"),
        ("postgres://app:hunter2@db:5432/x", "hunter2"),
        ("redis://:hunter2@cache:6379", "hunter2"),
        ("https://u:p@ss@host/x", "ss@"),
        ("https://u:" + "p" * 500 + "@host/", "ppp"),
        ("password=hunter2", "hunter2"),
        ('{"password": "hunter2"}', "hunter2"),
        ('{\\"password\\": \\"hunter2\\"}', "hunter2"),
        ('password="correct horse battery"', "horse"),
        ("export AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG", "wJalr"),
        ("GET /v1?api_key=abcd1234&x=1", "abcd1234"),
        ("X-Api-Key: 0123456789abcdef", "0123456789abcdef"),
        ("mysql --password hunter2 -u root", "hunter2"),
        ("tool --db-password hunter2", "hunter2"),
        ("Cookie: sid=0123abcd; theme=dark", "0123abcd"),
        ("mysql -u root -phunter2 shop", "hunter2"),
        ("mysqldump --single-transaction -u root -p'hunter 2' shop", "hunter 2"),
        ("/usr/bin/mysqladmin -phunter2 status", "hunter2"),
        ('[{"name": "Authorization", "value": "hunter2"}]', "hunter2"),
        ('{\\"key\\": \\"X-Api-Key\\", \\"value\\": \\"hunter2\\"}', "hunter2"),
        ('{"passwords": ["hunter2", "hunter3"], "a": 1}', "hunter3"),
        ('{"passwords": ["hunter2"]}', "hunter2"),
        ("api_keys=hunter2", "hunter2"),
        ('{"tokens": ["hunter2"]}', "hunter2"),
        ("pw=hunter2", "hunter2"),
        ("code_verifier=hunter2hunter2", "hunter2"),
    ],
)
def test_secrets_are_recognised_by_their_shape(value: str, secret: str) -> None:
    assert secret in value
    hidden = redact_text(value)
    assert secret not in hidden
    assert REDACTED in hidden
    assert redact_text(hidden) == hidden


@pytest.mark.parametrize(
    ("value", "hidden"),
    [
        ("GET /v1?api_key=abcd1234&page=2", f"GET /v1?api_key={REDACTED}&page=2"),
        ("postgres://app:hunter2@db:5432/x", f"postgres://{REDACTED}@db:5432/x"),
        ('{"token": "a b c d", "path": "/etc"}', f'{{"token": "{REDACTED}", "path": "/etc"}}'),
        ("mysql --password hunter2 -u root", f"mysql --password {REDACTED} -u root"),
    ],
)
def test_what_stands_around_a_secret_stays_readable(value: str, hidden: str) -> None:
    assert redact_text(value) == hidden


@pytest.mark.parametrize(
    "value",
    [
        "key_0007",
        "/app/data/risk-assessment-2026/disk-usage-report.txt",
        "/home/u/.ssh/id_rsa.pub",
        "task-management desk-booking",
        "tokenizer.json",
        "token_count=4096 max_tokens: 128",
        "Basic authentication required",
        "basic understanding of the bearer authentication scheme",
        "https://api.openai.com:443/v1/chat?x=a@b",
        "http://evil.example:80?d=a@b",
        "mailto:alice@example.com",
        "SELECT secret_name FROM vault WHERE id = 5",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "c9bf9e57-1685-4c89-bafb-ff5af830be8a",
        "rm -rf / --no-preserve-root",
        "-----BEGIN PUBLIC KEY-----",
        "PWD=/app/data",
        "mysql -u root -P 3306 shop -p",
        "grep -pattern file",
        "kpw=12345 tokens: 4096",
        '{"tokens": "4096"}',
        '{"name": "alice", "value": "hunter2"}',
    ],
)
def test_ordinary_values_are_left_alone(value: str) -> None:
    assert redact_text(value) == value


def test_an_unclosed_quote_hides_no_more_than_its_line() -> None:
    """Otherwise an attacker hides a whole command by beginning it with `token="`."""
    assert "rm -rf /" in redact_text('token="x\nrm -rf /')
    assert "rm -rf /" in redact_text('token="' + "x" * 2_000 + "; rm -rf /")


SECRETIVE = [
    "password",
    "Password",
    "user_password",
    "dbpassword",
    "passwd",
    "passphrase",
    "db-pass",
    "pwd",
    "secret",
    "client_secret",
    "clientSecret",
    "token",
    "access_token",
    "accessToken",
    "authtoken",
    "X-Auth-Token",
    "id_token",
    "refreshToken",
    "token_value",
    "api_key",
    "apiKey",
    "APIKey",
    "api-key",
    "X-Api-Key",
    "apikey",
    "privateKey",
    "private_key",
    "aws_secret_access_key",
    "session_key",
    "Authorization",
    "bearer",
    "cookie",
    "Set-Cookie",
    "credentials",
    "pin",
    "otp",
    "auth",
    "secret_id",
    "access_tokens",
    "password2",
    "signature",
    "passwords",
    "api_keys",
    "apiKeys",
    "private_keys",
    "session_tokens",
    "pw",
    "db_pw",
    "code_verifier",
    "codeVerifier",
]

HARMLESS = [
    "key_id",
    "keyId",
    "key",
    "path",
    "token_count",
    "tokenCount",
    "max_tokens",
    "payload_tokens",
    "prompt_tokens",
    "tokenizer",
    "token_limit",
    "token_type",
    "tokens_used",
    "secret_name",
    "secretName",
    "password_file",
    "compass",
    "bypass",
    "author",
    "authority",
    "auth_method",
    "keyboard",
    "monkey",
    "passenger",
    "ping",
    "pinned",
    "api_key_id",
    "access_key_id",
    "token_url",
    "token_expires_in",
    "session_id",
    "client_id",
    "secretary",
    "passthrough",
    "monkey_key",
    "x",
]


@pytest.mark.parametrize("name", SECRETIVE)
def test_values_are_hidden_by_the_name_that_holds_them(name: str) -> None:
    assert is_secret_name(name)
    for value in ("hunter2", 1234, 1.5, ["a"], {"a": "b"}):
        assert redact({"outer": [{name: value}]}) == {"outer": [{name: REDACTED}]}
    assert redact({name: None}) == {name: None}
    assert redact({name: ""}) == {name: ""}


@pytest.mark.parametrize("name", HARMLESS)
def test_values_under_harmless_names_are_shown(name: str) -> None:
    assert not is_secret_name(name)
    assert redact({name: "value"}) == {name: "value"}


def test_tokens_are_hidden_unless_they_are_counted() -> None:
    assert redact({"tokens": ["a", "b"]}) == {"tokens": REDACTED}
    assert redact({"tokens": "hunter2"}) == {"tokens": REDACTED}
    assert redact({"tokens": 4096}) == {"tokens": 4096}


@pytest.mark.parametrize("name", ["name", "key", "header"])
@pytest.mark.parametrize("value", ["value", "values"])
def test_a_value_is_hidden_by_the_name_beside_it(name: str, value: str) -> None:
    for secret in ("hunter2", 1234, ["hunter2"]):
        pair = {value: secret, name: "Authorization"}
        assert redact({"headers": [pair]}) == {"headers": [{value: REDACTED, name: "Authorization"}]}
        assert redact({value: secret, name: "Accept"}) == {value: secret, name: "Accept"}


def test_redaction_reaches_names_and_nested_values_and_leaves_the_original() -> None:
    params = {"a": [{"b": ("x", "password=hunter2")}], "ghp_16C7e42F292c6912E7710c838347Ae178B4a": 1}
    assert redact(params) == {"a": [{"b": ["x", f"password={REDACTED}"]}], REDACTED: 1}
    assert params["a"] == [{"b": ("x", "password=hunter2")}]


def test_nesting_too_deep_to_look_into_is_not_shown() -> None:
    deep: object = "sk-0123456789abcdef"
    for _ in range(5_000):
        deep = [deep]
    assert "sk-0123" not in str(redact(deep))
    assert "[too deep]" in str(redact(deep))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_redaction_takes_any_json(value: object) -> None:
    redact(value)


@pytest.mark.parametrize(
    "fragment",
    [
        *(
            "eyJ",
            "eyJaaaaaaaa",
            "eyJaaaaaaaa.",
            "eyJaaaaaaaa.bbbbbbbb",
            "sk-",
            "%20sk-",
            "--a-",
            "-",
            "://",
            "://a:",
        ),
        *(
            "://a@",
            "-----BEGIN ",
            "-----BEGIN PRIVATE KEY-----",
            "bearer ",
            "basic\t",
            "token ",
            "token=",
            'token="',
        ),
        *(
            'token=\\"',
            "--password ",
            "cookie: ",
            "mysql ",
            "mysql -",
            '"name":"token',
            '"name":"token","value":"',
            "tokens=[",
            "pw=",
            "AKIA",
            "AIza",
            "authorization: bearer ",
            "A",
            "a",
            " ",
            "\\",
        ),
    ],
)
def test_no_long_run_of_anything_stalls_the_redaction(fragment: str) -> None:
    """Each takes a fraction of a second; with a shape that reads text again and again it would be minutes."""
    size = 1 << 18
    assert redact_text((fragment * (size // len(fragment) + 1))[:size]) is not None
    assert redact_text(fragment + " " * size) is not None
