"""Which pieces of a text are credentials? Known by the exact forms that their issuers give them, never by chance.

The kinds bear the names that secret scanners give them (gitleaks above all). Each form has a literal anchor, a
body of known characters and length, and must stand alone: words, UUIDs, hashes and base64 are nothing of the kind.
Whoever only wants to hide what might be one asks `suspects`, which wants less.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final


@dataclass(frozen=True, slots=True)
class Form:
    """What credentials of one kind look like.

    Attributes:
        kind: Name of the kind, as secret scanners call it.
        anchors: Literal texts; each credential of the kind holds one, as a rule as its beginning.
        body: Pattern of what follows the anchor. A run of any length ends in `+`, to be read only once: what is in it
            can't follow the credential.
        hidden: Pattern of what follows an anchor in text that is hidden, where less is enough for hiding.
        lead: Pattern of what stands before the anchor and belongs to the credential.
        after: Characters that can't follow a credential of this kind, as the inside of a character class.
        before: Characters that can't stand before it, likewise.
        random: The body is random, so that a run of one character, or the word EXAMPLE, gives a placeholder away.
    """

    kind: str
    anchors: tuple[str, ...]
    body: str
    hidden: str | None = None
    lead: str = ""
    after: str = "A-Za-z0-9_"
    before: str = "A-Za-z0-9"
    random: bool = True


_ALNUM: Final = "[A-Za-z0-9]"
_WORD: Final = "[A-Za-z0-9_-]"
_WORD_AFTER: Final = "A-Za-z0-9_-"

FORMS: Final[tuple[Form, ...]] = (
    Form("age-secret-key", ("AGE-SECRET-KEY-1",), "[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
    Form(
        "anthropic-api-key",
        ("sk-ant-",),
        rf"(?:api|admin|oat|ort|sid)\d{{2}}-{_WORD}{{80,200}}+",
        after=_WORD_AFTER,
    ),
    Form("atlassian-api-token", ("ATATT3",), r"[A-Za-z0-9_=-]{180,192}+", after="A-Za-z0-9_=-"),
    Form("aws-access-token", ("AKIA", "ASIA", "ABIA", "ACCA"), "[A-Z2-7]{16}", hidden="[A-Z0-9]{16}"),
    Form("azure-storage-account-key", ("AccountKey=",), r"[A-Za-z0-9+/]{86}==", after="", random=False),
    Form("databricks-api-token", ("dapi",), r"[a-f0-9]{32}(?:-\d)?"),
    Form("digitalocean-pat", ("dop_v1_", "doo_v1_", "dor_v1_"), "[a-f0-9]{64}"),
    Form("gcp-api-key", ("AIza",), rf"{_WORD}{{35}}", after=_WORD_AFTER, hidden=rf"{_WORD}{{30,}}"),
    Form("github-app-token", ("ghu_", "ghs_"), rf"{_ALNUM}{{36}}", hidden=rf"{_ALNUM}{{20,}}"),
    Form("github-fine-grained-pat", ("github_pat_",), "[A-Za-z0-9_]{82}", hidden="[A-Za-z0-9_]{20,}"),
    Form("github-oauth", ("gho_",), rf"{_ALNUM}{{36}}", hidden=rf"{_ALNUM}{{20,}}"),
    Form("github-pat", ("ghp_",), rf"{_ALNUM}{{36}}", hidden=rf"{_ALNUM}{{20,}}"),
    Form("github-refresh-token", ("ghr_",), rf"{_ALNUM}{{36,76}}+", hidden=rf"{_ALNUM}{{20,}}"),
    Form("gitlab-deploy-token", ("gldt-",), rf"{_WORD}{{20}}", after=_WORD_AFTER),
    Form(
        "gitlab-pat",
        ("glpat-",),
        rf"(?:{_WORD}{{27,300}}+\.[0-9a-z]{{9}}|{_WORD}{{20}})",  # the longer one names its cell
        hidden=rf"{_WORD}{{20,}}(?:\.[0-9a-z]{{9}})?",
        after=_WORD_AFTER,
    ),
    Form("gitlab-ptt", ("glptt-",), "[0-9a-f]{40}"),
    Form(
        "gitlab-runner-authentication-token",
        ("glrt-",),
        rf"(?:t\d_{_WORD}{{27,300}}+\.[0-9a-z]{{9}}|{_WORD}{{20}})",
        after=_WORD_AFTER,
    ),
    Form("grafana-service-account-token", ("glsa_",), rf"{_ALNUM}{{32}}_[A-Fa-f0-9]{{8}}"),
    Form("groq-api-key", ("gsk_",), rf"{_ALNUM}{{52}}"),
    Form("huggingface-access-token", ("hf_",), rf"{_ALNUM}{{34}}", hidden=rf"{_ALNUM}{{30,}}"),
    Form(
        "jwt",
        ("eyJ",),
        rf"{_WORD}{{10,}}\.eyJ{_WORD}{{10,}}\.{_WORD}{{20,}}",
        hidden=rf"(?:(?!eyJ){_WORD}){{8,}}\.{_WORD}{{8,}}(?:\.{_WORD}*){{1,3}}",  # JWE as well
        before="A-Za-z0-9_-",
        after="",
        random=False,
    ),
    Form("linear-api-key", ("lin_api_",), rf"{_ALNUM}{{40}}"),
    Form("notion-api-token", ("ntn_",), rf"\d{{11}}{_ALNUM}{{35}}"),
    Form("npm-access-token", ("npm_",), rf"{_ALNUM}{{36}}", hidden=rf"{_ALNUM}{{30,}}"),
    Form(
        "openai-api-key",
        ("sk-proj-", "sk-svcacct-", "sk-admin-"),
        rf"{_WORD}{{40,250}}+",
        after=_WORD_AFTER,
    ),
    Form("openai-api-key", ("sk-",), rf"{_ALNUM}{{48}}", after=_WORD_AFTER, hidden=rf"{_WORD}{{8,}}"),
    Form("openrouter-api-key", ("sk-or-v1-",), "[a-f0-9]{64}"),
    Form("perplexity-api-key", ("pplx-",), rf"{_ALNUM}{{48}}"),
    Form(
        "private-key",
        ("-----BEGIN ",),
        r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:\s|\\[nr]|%0[AaDd])*+"
        r"(?:[A-Za-z0-9+/]{40}|(?:Proc-Type|Version|Comment): )(?:[^-]++|-(?!----))*+"
        r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?",
        hidden=r"[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?"
        r"(?:-----END(?: [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?|\Z)",
        before="",
        after="",
        random=False,
    ),
    Form(
        "pypi-upload-token",
        ("pypi-AgEIcHlwaS5vcmc", "pypi-AgENdGVzdC5weXBpLm9yZ"),
        rf"{_WORD}{{50,1000}}+",
        after=_WORD_AFTER,
    ),
    Form("sendgrid-api-token", ("SG.",), rf"{_WORD}{{22}}\.{_WORD}{{43}}", after=_WORD_AFTER),
    Form("shopify-access-token", ("shpat_", "shpca_", "shppa_", "shpss_"), "[A-Fa-f0-9]{32}"),
    Form("slack-app-token", ("xapp-",), r"\d-[A-Z0-9]{8,14}-\d{10,14}-[a-f0-9]{64}"),
    Form(
        "slack-bot-token",
        ("xoxb-",),
        rf"\d{{8,14}}-(?:\d{{10,14}}-)?{_ALNUM}{{18,34}}+",
        after=_WORD_AFTER,
        hidden="[A-Za-z0-9-]{10,}",
    ),
    Form(
        "slack-user-token",
        ("xoxp-", "xoxe-"),
        r"(?:\d{10,14}-){3}[A-Za-z0-9-]{28,34}",
        after=_WORD_AFTER,
        hidden="[A-Za-z0-9-]{10,}",
    ),
    Form(
        "slack-webhook-url",
        ("hooks.slack.com/services/",),
        rf"T{_ALNUM}{{8,12}}/B{_ALNUM}{{8,12}}/{_ALNUM}{{24}}",
        lead="(?:https?://)?",
    ),
    Form(
        "stripe-access-token",
        ("sk_live_", "sk_test_", "rk_live_", "rk_test_"),
        rf"(?=[A-Za-z]{{0,64}}\d){_ALNUM}{{16,250}}+",  # a digit tells it from a name such as sk_test_…
        hidden=rf"{_ALNUM}{{8,}}",
    ),
    Form(
        "telegram-bot-api-token",
        (":AA",),
        rf"{_WORD}{{33}}",
        lead=r"(?:bot)?\d{8,10}",  # as it stands in the address of each request
        before="A-Za-z0-9_-",
        after=_WORD_AFTER,
    ),
    Form("twilio-api-key", ("SK",), "[0-9a-f]{32}"),
    Form("vault-service-token", ("hvs.",), rf"(?:{_WORD}{{90,120}}+|{_ALNUM}{{24}})", after=_WORD_AFTER),
)
"""Every kind of credential that is known."""

EXAMPLES: Final = frozenset(
    {
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "sk_test_4eC39HqLyjWDarjtT1zdp7dc",
        "sk_test_BQokikJOvBiI2HlWgH4olfQ2",
        "AIzaSyDaGmWKa4JsXZ-HjGw7ISLn_3namBGewQe",
        "4839574812:AAFD39kkdpWt3ywyRZergyOLMaJhac60qc",
        # the storage emulator's, the same on every machine
        "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    }
)
"""Credentials that stand in their issuers' documentation and open nothing."""

# The subject 1234567890 named John Doe, which every tutorial on JSON Web Tokens signs.
_JOHN_DOE: Final = ".eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9l"
_SHORT: Final = 4_096
_PLACEHOLDER: Final = re.compile(r"EXAMPLE|(.)\1{7}", re.IGNORECASE)


def _pattern(form: Form, anchor: str) -> re.Pattern[str]:
    literal = re.escape(anchor)
    follows = f"(?![{form.after}])" if form.after else ""
    if not form.before:
        return re.compile(form.lead + literal + form.body + follows)
    # A credential behind a percent escape or an escaped line end stands alone although letters precede it.
    # With a literal in front, the search for it is as fast as for a plain text.
    alone = rf"(?<![{form.before}]@)|(?<=%[0-9A-Fa-f]{{2}}@)|(?<=\\[nrt]@)"
    if form.lead:
        return re.compile(f"(?:{alone.replace('@', '')}){form.lead}{literal}{form.body}{follows}")
    return re.compile(f"{literal}(?:{alone.replace('@', literal)}){form.body}{follows}")


def _hiding(form: Form, anchor: str) -> re.Pattern[str]:
    # a few letters and a hyphen end many words, as in "risk-analysis"
    alone = (
        rf"(?:(?<![{_WORD_AFTER}]sk-)|(?<=%[0-9A-Fa-f]{{2}}sk-)|(?<=\\[nrt]sk-))" if anchor == "sk-" else ""
    )
    return re.compile(form.lead + re.escape(anchor) + alone + (form.hidden or form.body))


_PATTERNS: Final = tuple((anchor, form, _pattern(form, anchor)) for form in FORMS for anchor in form.anchors)
# More is hidden than is told from text well enough to be reported.
_HIDING: Final = (
    *((anchor, _hiding(form, anchor)) for form in FORMS for anchor in form.anchors),
    ("xox", re.compile("xox[a-z]-[A-Za-z0-9-]{10,}")),
    ("pypi-", re.compile(rf"pypi-{_WORD}{{40,}}")),
)
ANCHORS: Final = tuple(anchor for anchor, _, _ in _PATTERNS)
"""Every credential that `find` finds holds one of these."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A credential in a text: its kind, and where it stands (`text[start:end]`)."""

    kind: str
    start: int
    end: int


def _is_example(form: Form, text: str) -> bool:
    if text.removeprefix("bot") in EXAMPLES or _JOHN_DOE in text:
        return True
    return form.random and _PLACEHOLDER.search(text) is not None


def _candidates(text: str) -> Iterator[Secret]:
    for anchor, form, pattern in _PATTERNS:
        if anchor in text:
            for match in pattern.finditer(text):
                if not _is_example(form, match.group()):
                    yield Secret(form.kind, match.start(), match.end())


def find(text: str) -> tuple[Secret, ...]:
    """The credentials in a text in the order they stand there, without overlaps. Never raises.

    Examples of documentation and placeholders are left out. Takes time linear in the text.
    """
    return (_find if len(text) <= _SHORT else _find_in_long)(text)


def _find(text: str) -> tuple[Secret, ...]:
    found: list[Secret] = []
    for secret in sorted(_candidates(text), key=lambda s: (s.start, -s.end)):
        if not found or secret.start >= found[-1].end:
            found.append(secret)
    return tuple(found)


# A text as long as a line is asked for several times while its call is judged; two of them are all that is kept.
_find_in_long: Final = lru_cache(maxsize=2)(_find)


def suspects(text: str) -> list[tuple[int, int]]:
    """Where anything stands that could be a credential, as (start, end) in no order: what is better hidden.

    Less is asked of it than by `find`, which finds nothing outside of these places. Takes time linear in the text.
    """
    return [match.span() for anchor, pattern in _HIDING if anchor in text for match in pattern.finditer(text)]


def mask(secret: str) -> str:
    """A credential's anchor, last characters and length, as in `ghp_…k4Zq (40 characters)`.

    Four characters of its end are shown, two of a short one. Of a private key, and of anything whose kind isn't
    known, nothing is shown but the length.
    """
    size = f"({len(secret):,} characters)"
    for anchor, form, pattern in _PATTERNS:
        if anchor in secret and pattern.fullmatch(secret):
            if form.kind == "private-key":
                return f"private-key {size}"
            body = len(secret) - secret.index(anchor) - len(anchor)
            return f"{anchor}…{secret[-4 if body >= 24 else -2 :]} {size}"
    return f"… {size}"


PROCESS_KEY: Final = secrets.token_bytes(32)
"""Key of fingerprints that need not mean anything to another process."""


def fingerprint(secret: str, key: bytes) -> str:
    """The first 12 hex digits of HMAC-SHA256, by which the same credential is recognised without being kept."""
    return hmac.new(key, secret.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:12]
