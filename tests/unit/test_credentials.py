"""What is promised about credentials: each kind is found by its exact form, and nothing else is taken for one."""

from __future__ import annotations

import base64
import hashlib
import itertools
import random
import re
import string
import sys
import uuid
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcpwatch import credentials
from mcpwatch.credentials import EXAMPLES, FORMS, find, fingerprint, mask, suspects
from mcpwatch.text import REDACTED, redact_text

RANDOM = random.Random(7)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=200)


def some(count: int, characters: str = string.ascii_letters + string.digits) -> str:
    return "".join(RANDOM.choice(characters) for _ in range(count))


HEX = "0123456789abcdef"
UPPER = string.ascii_uppercase + "234567"
URL64 = string.ascii_letters + string.digits + "-_"
PEM_BODY = base64.encodebytes(RANDOM.randbytes(600)).decode()

# Put together here, so that no scanner takes this file for a leak.
REAL = {
    "age-secret-key": "AGE-SECRET-KEY-1" + some(58, "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"),
    "anthropic-api-key": "sk-ant-" + "api03-" + some(93, URL64) + "AA",
    "atlassian-api-token": "ATATT3" + some(186, URL64),
    "aws-access-token": "AKIA" + some(16, UPPER),
    "azure-storage-account-key": "AccountKey=" + base64.b64encode(RANDOM.randbytes(64)).decode(),
    "databricks-api-token": "dapi" + some(32, HEX),
    "digitalocean-pat": "dop_v1_" + some(64, HEX),
    "gcp-api-key": "AIza" + some(35, URL64),
    "github-app-token": "ghs_" + some(36),
    "github-fine-grained-pat": "github_pat_" + some(22) + "_" + some(59),
    "github-oauth": "gho_" + some(36),
    "github-pat": "ghp_" + some(36),
    "github-refresh-token": "ghr_" + some(76),
    "gitlab-deploy-token": "gldt-" + some(20, URL64),
    "gitlab-pat": "glpat-" + some(20),
    "gitlab-ptt": "glptt-" + some(40, HEX),
    "gitlab-runner-authentication-token": "glrt-" + some(20, URL64),
    "grafana-service-account-token": "glsa_" + some(32) + "_" + some(8, HEX),
    "groq-api-key": "gsk_" + some(52),
    "huggingface-access-token": "hf_" + some(34, string.ascii_letters),
    "jwt": "eyJ" + some(33, URL64) + ".eyJ" + some(60, URL64) + "." + some(43, URL64),
    "linear-api-key": "lin_api_" + some(40),
    "notion-api-token": "ntn_" + some(11, string.digits) + some(35),
    "npm-access-token": "npm_" + some(36),
    "openai-api-key": "sk-proj-" + some(74, URL64) + "T3BlbkFJ" + some(74, URL64),
    "openrouter-api-key": "sk-or-v1-" + some(64, HEX),
    "perplexity-api-key": "pplx-" + some(48),
    "private-key": f"-----BEGIN RSA PRIVATE KEY-----\n{PEM_BODY}-----END RSA PRIVATE KEY-----",
    "pypi-upload-token": "pypi-AgEIcHlwaS5vcmc" + some(150, URL64),
    "sendgrid-api-token": "SG." + some(22, URL64) + "." + some(43, URL64),
    "shopify-access-token": "shpat_" + some(32, HEX),
    "slack-app-token": "xapp-1-A0" + some(9, UPPER) + "-1234567890123-" + some(64, HEX),
    "slack-bot-token": "xoxb-" + "1765367248112-1987469832321-" + some(24),
    "slack-user-token": "xoxp-" + "1765367248112-1987469832321-1987469832999-" + some(32, HEX),
    "slack-webhook-url": "https://hooks.slack.com/services/T"
    + some(9, UPPER)
    + "/B"
    + some(10, UPPER)
    + "/"
    + some(24),
    "stripe-access-token": "sk_live_" + "51" + some(22),
    "telegram-bot-api-token": "1234567890:AA" + some(33, URL64),
    "twilio-api-key": "SK" + some(32, HEX),
    "vault-service-token": "hvs." + some(95, URL64),
}
OTHERS = [
    ("aws-access-token", "ASIA" + some(16, UPPER)),
    ("openai-api-key", "sk-" + some(20) + "T3BlbkFJ" + some(20)),
    ("anthropic-api-key", "sk-ant-oat01-" + some(95, URL64)),
    (
        "gitlab-pat",
        "glpat-" + some(40) + ".01" + some(7, HEX),
    ),
    ("slack-bot-token", "xoxb-" + "12345678901-" + some(24)),
    ("vault-service-token", "hvs." + some(24)),
    ("private-key", f"-----BEGIN OPENSSH PRIVATE KEY-----\\n{PEM_BODY.replace(chr(10), chr(92) + 'n')}"),
    (
        "private-key",
        f"-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: x\n\n{PEM_BODY}-----END PGP PRIVATE KEY BLOCK-----",
    ),
    (
        "private-key",
        f"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,AB\n\n{PEM_BODY}",
    ),
]
ALL = [*REAL.items(), *OTHERS]
"""(kind, credential)"""


def test_there_is_an_example_of_every_kind() -> None:
    assert set(REAL) == {form.kind for form in FORMS}


AROUND = [
    ("", ""),
    ("use ", " now"),
    ('{"token": "', '"}'),
    ("TOKEN=", "\n"),
    ("https://x.example/?t=", "&a=b"),
    ("日本語", "です"),
    ("(", ")."),
    ("Bearer%20", "%20"),
    ("line\\n", "\\n"),
]


@pytest.mark.parametrize(("kind", "credential"), ALL)
def test_each_kind_is_found_whole_wherever_it_stands(kind: str, credential: str) -> None:
    for before, after in AROUND:
        (secret,) = find(before + credential + after)
        assert secret.kind == kind
        found = (before + credential + after)[secret.start : secret.end]
        # the last part of an unclosed private key is what follows it
        assert found == credential or (kind == "private-key" and "END" not in credential)


@pytest.mark.parametrize(("kind", "credential"), ALL)
def test_a_credential_cut_short_or_run_into_a_word_is_none(kind: str, credential: str) -> None:
    if kind in ("jwt", "private-key", "pypi-upload-token", "stripe-access-token", "github-refresh-token"):
        pytest.skip("of no fixed length")
    variable = kind in ("anthropic-api-key", "atlassian-api-token", "openai-api-key", "vault-service-token")
    if not variable and "." not in credential[5:] and not credential.startswith("xox"):
        assert find(credential[:-1]) == ()
    if kind != "azure-storage-account-key":
        assert find("x" + credential) == () or kind == "slack-webhook-url"
    if not variable and not credential.startswith("xox"):
        assert find(credential + "x" * 300) == () or kind == "azure-storage-account-key"


@pytest.mark.parametrize(("kind", "credential"), ALL)
def test_redaction_hides_every_kind(kind: str, credential: str) -> None:
    for before, after in AROUND:
        shown = redact_text(before + credential + after)
        assert credential[-24:] not in shown
        assert credential[12:24] not in shown or kind in ("private-key", "slack-webhook-url")
        assert REDACTED in shown


@given(st.lists(st.one_of(st.sampled_from([c for _, c in ALL]), ANY_TEXT), max_size=6).map("".join))
def test_whatever_is_found_is_hidden_as_well(text: str) -> None:
    hidden = {place for start, end in suspects(text) for place in range(start, end)}
    for secret in find(text):
        assert set(range(secret.start, secret.end)) <= hidden


@given(ANY_TEXT)
@example("\ud800ghp_\udfff")
def test_any_text_is_taken(text: str) -> None:
    find(text)
    mask(text)
    assert re.fullmatch("[0-9a-f]{12}", fingerprint(text, b"key"))


def test_secrets_come_in_order_and_never_overlap() -> None:
    text = " ".join(credential for _, credential in ALL)
    secrets = find(text)
    assert [s.kind for s in secrets] == [kind for kind, _ in ALL]
    assert all(one.end <= two.start for one, two in itertools.pairwise(secrets))


def test_what_stands_inside_a_secret_is_not_told_again() -> None:
    unclosed = f"-----BEGIN PRIVATE KEY-----\n{PEM_BODY} {REAL['github-pat']}"
    assert [(s.kind, s.start) for s in find(unclosed)] == [("private-key", 0)]


@pytest.mark.parametrize(
    "text",
    [
        *sorted(EXAMPLES),
        "AKIAIOSFODNN7EXAMPLE",
        "AKIAI44QH8DHBEXAMPLE",
        "ghp_" + "x" * 36,
        "sk-proj-" + "X" * 60,
        "https://hooks.slack.com/services/T00000000/B00000000/" + "X" * 24,
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ"
        ".SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
    ],
)
def test_examples_of_documentation_and_placeholders_are_not_reported(text: str) -> None:
    assert find(f"key: {text} ") == ()


@pytest.mark.parametrize(
    "text",
    [
        "/app/data/risk-assessment-2026/disk-usage-report.txt",
        "sk-learn sk_test_connection_helper sk_test_thisisalongfunctionname",
        "eyJhbGciOiJIUzI1NiJ9",
        "-----BEGIN PRIVATE KEY----- is how such a file begins; do not commit it, as nobody can take it back.",
        "-----BEGIN PUBLIC KEY-----\n" + PEM_BODY,
        "-----BEGIN CERTIFICATE-----\n" + PEM_BODY,
        "npm_config_registry npm_lifecycle_event hf_transfer",
        "RISKASSESSMENT SKILL0123456789",
        "SG.utils.something.other",
        "self.hvs.get(value)",
        "12:AAPL 1234567890:AAPL",
        "AccountKey=<your key>;EndpointSuffix=core.windows.net",
        "arn:aws:iam::123456789012:role/Admin",
    ],
)
def test_ordinary_text_holds_no_credentials(text: str) -> None:
    assert find(text) == ()


def test_hashes_ids_and_base64_hold_no_credentials() -> None:
    """20,000 each: not one false alarm."""
    for number in range(20_000):
        raw = RANDOM.randbytes(48)
        texts = (
            str(uuid.UUID(bytes=raw[:16])),
            hashlib.sha256(raw).hexdigest(),
            hashlib.md5(raw).hexdigest().upper(),
            base64.b64encode(raw).decode(),
            base64.urlsafe_b64encode(raw).decode(),
            f"{number}:{base64.b32encode(raw).decode()}",
        )
        assert find(" ".join(texts)) == ()


def test_the_standard_library_holds_no_credentials() -> None:
    """Several megabytes of ordinary code and prose, outside of its tests of keys."""
    folder = Path(next(path for path in sys.path if Path(path, "asyncio").is_dir()))
    size = 0
    for file in sorted([*folder.glob("*.py"), *folder.glob("[a-e]*/*.py")]):
        text = file.read_text("utf-8", "replace")
        size += len(text)
        assert find(text) == (), file
    assert size > 4_000_000


@pytest.mark.parametrize(("kind", "credential"), ALL)
def test_a_mask_tells_the_kind_and_at_most_four_characters(kind: str, credential: str) -> None:
    shown = mask(credential)
    assert "\n" not in shown and len(shown) < 60
    assert f"{len(credential):,} characters" in shown
    anchors = [anchor for form in FORMS if form.kind == kind for anchor in form.anchors]
    secret = credential
    for anchor in sorted(anchors, key=len, reverse=True):
        secret = secret.rpartition(anchor)[2] if kind != "private-key" else secret
    assert not any(secret[i : i + 5] in shown for i in range(len(secret) - 4))
    assert kind == "private-key" or any(anchor in shown for anchor in anchors)


def test_of_a_short_credential_two_characters_are_shown_and_of_an_unknown_one_none() -> None:
    assert mask("AKIA" + "B" * 14 + "C2") == "AKIA…C2 (20 characters)"
    assert mask("gho_" + "B" * 32 + "wxyz") == "gho_…wxyz (40 characters)"
    assert mask("hunter2") == "… (7 characters)"


def test_a_fingerprint_recognises_a_credential_and_needs_the_key() -> None:
    one = REAL["github-pat"]
    assert fingerprint(one, b"a") == fingerprint(one, b"a")
    assert len({fingerprint(one, b"a"), fingerprint(one, b"b"), fingerprint(one + "x", b"a")}) == 3
    # HMAC-SHA256, RFC 4231 test case 2
    assert fingerprint("what do ya want for nothing?", b"Jefe") == "5bdcc146bf60"


@pytest.mark.parametrize(
    "fragment",
    [
        *(anchor for form in FORMS for anchor in form.anchors),
        *(credential[:-1] for _, credential in ALL),
        "-----BEGIN PRIVATE KEY-----\n" + "A" * 40,
        "-----BEGIN PRIVATE KEY-----\\n",
        "eyJaaaaaaaaaa.",
        "eyJaaaaaaaaaa.eyJaaaaaaaaaa.",
        "12345678",
        "1234567890:AA",
        "https://",
    ],
)
def test_no_long_run_of_anything_stalls_the_search(fragment: str) -> None:
    """Each takes a fraction of a second; with a pattern that reads text again and again it would be minutes."""
    text = (fragment * ((1 << 18) // len(fragment) + 1))[: 1 << 18]
    assert find(text) is not None
    assert find(fragment + " " * (1 << 18)) is not None


def test_every_credential_holds_an_anchor() -> None:
    for _, credential in ALL:
        assert any(anchor in credential for anchor in credentials.ANCHORS)
