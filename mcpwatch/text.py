"""Makes untrusted text safe to show. Everything in a log is written by somebody else.

Terminals obey control bytes, and programs obey markup. So text from a log reaches a screen, a title, the
clipboard, an export or an error message only as `SafeText`, which `safe` alone makes: printable characters
only, everything else spelled out as a visible escape, and of bounded length.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, NewType

from mcpwatch.credentials import find, mask, suspects

SafeText = NewType("SafeText", str)
"""Text without a single character that a terminal could obey. Made by `safe`, and by nothing else."""

DEFAULT_LIMIT: Final = 4_096
_MAX_COMBINING: Final = 3
# Longer ones are not remembered: a log full of long strings must not fill the memory through a cache.
_MAX_CACHED: Final = 256
# Printable by Unicode's book, yet drawn as nothing or as a blank: they hide text or fake spacing.
_INVISIBLE: Final = frozenset(
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0\ufffc\U00016fe4\U0001d159"
    + "".join(map(chr, range(0xFE00, 0xFE10)))
    + "".join(map(chr, range(0xE0100, 0xE01F0)))
)
_PLAIN: Final = re.compile(r"[ -~]*")

SECRET_NAMES: Final = re.compile(
    r"(?:passwords?|passwd|passphrases?|passcodes?|secrets?|token|bearer|authorization|cookies?|credentials?"
    r"|signatures?|code_?verifier|(?:api|private|access|session|signing|encryption|master)_?keys?)(?:_|\d|$)"
    r"|(?:^|_)(?:pass|pwd|pw|pin|otp|creds?)$|^auth$"
    r"|(?:^|_)(?:access|api|auth|bearer|refresh|id|session)_tokens$|^tokens$"
)
"""Names of parameters whose values are never shown, in `snake_case`: see `is_secret_name`."""

_DESCRIBES_SECRET: Final = re.compile(
    r"_(?:counts?|limit|budget|usage|used|length|len|size|types?|names?|ur[il]|endpoint|file|path|policy"
    r"|in|at|age|ttl|expir(?:y|es|ation)|required|enabled|present|valid)$|(?<!secret)_ids?$"
)
_WORD_STARTS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")

# What a text calls a secret in front of it. "pw" and its like only as whole words, as they end other words too.
_NAMED: Final = (
    r"(?:passwords?|passwd|passphrases?|secrets?|token|credentials?|authorization|signatures?|code[_-]?verifier"
    r"|(?:api|access|private)[_-]?keys?|(?<![a-z0-9])pw|tokens(?=\\?[\"']?\s*[=:]\s*(?:\[\s*)?\\?[\"'](?!\d+\b)))"
)
_QUOTE: Final = r"\\?[\"']"

# What holds a secret whatever the secret looks like. The groups stay readable; they only lead up to it. Each takes
# time linear in the text: no two tries may read the same characters again and again.
_SECRET_PLACES: Final = re.compile(
    # a short word behind it is prose ("basic authentication"), not a credential
    r"(?i:bearer|basic)\s+(?![A-Za-z][a-z-]{0,15}(?:[\s.,:;!?)\"']|\Z))[A-Za-z0-9._~+/=-]{8,}"
    r"|(?<=://)[^/\s:@?#]*:[^/\s?#]+(?=@)"  # user:password@ in a URL
    r"|(?<=[Cc]ookie: )[^\r\n\"']{4,}"
    r"|(?i:(?P<option>(?<![\w-])--(?:[a-z]{1,16}-){0,3}"
    r"(?:password|passwd|passphrase|secret|token|api-?key|access-?key)\s+)[^\s\"'-][^\s\"']{3,})"
    r"|(?P<mysql>(?<![\w-])(?:mysql|mariadb)(?:-?(?:dump|admin|import|check|show|slap))?(?:\.exe)?\s"
    r"(?:[^\r\n|;&]{0,256}?\s)??-p)(?:\"[^\"\r\n]{1,256}\"|'[^'\r\n]{1,256}'|[^\s\"'|;&]+)"
    # programs that take a password as a short option: `sshpass -p SECRET`, `curl -u name:SECRET`
    r"|(?P<short>(?<![\w-])(?:sshpass\s[^\r\n|;&]{0,256}?(?<!\S)-p\s*|(?:7za?|rar|unrar)\s[^\r\n|;&]{0,256}?(?<!\S)-p"
    r"|(?:unzip|zip)\s[^\r\n|;&]{0,256}?(?<!\S)-P\s*|redis-cli\s[^\r\n|;&]{0,256}?(?<!\S)-a\s+"
    r"|(?:docker|podman|helm|oras|skopeo|nerdctl|oc|az)\s[^\r\n|;&]{0,64}?login\s[^\r\n|;&]{0,256}?(?<!\S)-p\s+"
    r"|(?:ldapsearch|ldapmodify|ldapadd|ldapdelete)\s[^\r\n|;&]{0,256}?(?<!\S)-w\s+"
    r"|curl\s[^\r\n|;&]{0,256}?(?<!\S)(?:-u\s*|--(?:proxy-)?user[\s=])[\"']?[^\s:\"']{0,128}:))"
    r"(?:\"[^\"\r\n]{1,256}\"|'[^'\r\n]{1,256}'|[^\s\"'|;&]+)"
    # {"name": "Authorization", "value": "…"}, as lists of headers and of environment variables are written
    rf"|(?i:(?P<pair>{_QUOTE}(?:name|key|header){_QUOTE}\s*:\s*{_QUOTE}[\w-]{{0,40}}?{_NAMED}[\w-]{{0,8}}{_QUOTE}"
    rf"\s*,\s*{_QUOTE}value{_QUOTE}\s*:\s*(?P<around>{_QUOTE}))(?:(?!(?P=around))[^\r\n]){{1,1024}})"
    rf"|(?i:(?P<assigned>{_NAMED}\\?[\"']?\s*[=:]\s*(?P<quote>{_QUOTE})?(?:(?:bearer|basic|digest)\s+)?)"
    r"(?(quote)(?:(?!(?P=quote))[^\r\n]){1,1024}|(?:\[(?=\s*\\?[\"']|redacted\][\]})])[^\]\r\n]{3,1024}\]?|[^\s&,;\"']{4,})))"
)
_LEADING: Final = ("option", "mysql", "short", "pair", "assigned")
# No place without one of these, and most values of calls hold none.
_LEADS_UP: Final = re.compile(r"[=:\s]")
REDACTED: Final = "[redacted]"


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\x1b": "\\e"}.get(char, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _joins_before(char: str) -> bool:
    """Whether it is drawn onto the character before it: marks, vowels and finals of decomposed Hangul."""
    return (
        unicodedata.category(char)[0] == "M" or "\u1160" <= char <= "\u11ff" or "\ud7b0" <= char <= "\ud7fb"
    )


def _spell_out(text: str) -> str:
    out = []
    combining = 0
    for char in text:
        combining = combining + 1 if _joins_before(char) else 0
        shown = char.isprintable() and char not in _INVISIBLE and combining <= _MAX_COMBINING
        # a blank other than the space (U+00A0, U+3000) is not printable, so it is spelled out as well
        out.append(char if shown else _escape(char))
    return "".join(out)


def _safe(text: str, limit: int) -> str:
    cut = len(text) > limit
    head = text[: limit - 1] if cut else text
    spelled = head if _PLAIN.fullmatch(head) else _spell_out(head)
    if len(spelled) > limit - cut:
        spelled, cut = spelled[: limit - 1], True
    return spelled + "…" if cut else spelled


_safe_cached: Final = lru_cache(maxsize=8_192)(_safe)


def safe(value: object, limit: int = DEFAULT_LIMIT) -> SafeText:
    """Spell out whatever a terminal could obey, and cut to `limit` characters (the last one then is `…`).

    Escapes every code point that `str.isprintable` refuses (C0, C1, DEL, bidi marks, zero width, tags,
    surrogates, odd blanks), printable characters that show nothing, and the fourth and later combining mark on
    one letter. Bytes are read as UTF-8 with bad ones spelled as `\\xNN`. Its own output stays as it is.

    Args:
        value: Anything; what is no text is written with `str`.
        limit: Most characters of the result, at least 1.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    try:
        text = value if isinstance(value, str) else str(value)
    except ValueError:  # Python refuses to write integers of more than 4,300 digits
        text = f"<{type(value).__name__} too long to write>"
    head = text[: limit + 1]  # no more than this can show
    return SafeText((_safe_cached if len(head) <= _MAX_CACHED else _safe)(head, limit))


_OBEYED: Final = re.compile(r"[^\n\t -~]")
_STYLED: Final = re.compile(r"(\x1b\[[0-9;]*m|[\n\t])")


def plain_output(text: str) -> str:
    """What a program prints, with everything spelled out that a terminal obeys, but line ends, tabs and colours.

    The last wall, for texts that somebody forgot to make safe. Takes time linear in the text.
    """
    if _OBEYED.search(text) is None:
        return text
    return "".join(
        part if part.isprintable() or _STYLED.fullmatch(part) else _spell_out(part)
        for part in _STYLED.split(text)
    )


def _secret_spans(text: str) -> list[tuple[int, int]]:
    spans = suspects(text)
    if _LEADS_UP.search(text):
        spans += [
            (max(found.start(), *map(found.end, _LEADING)), found.end())
            for found in _SECRET_PLACES.finditer(text)
        ]
    return spans


def redact_text(text: str) -> str:
    """Replace what has the shape of a secret (API keys, JWTs, private keys, passwords in URLs or behind a name)."""
    shown = []
    done = 0
    for start, end in sorted(_secret_spans(text)):
        if start > done or not done:
            shown += [text[done:start], REDACTED]
        done = max(done, end)
    return "".join([*shown, text[done:]]) if done else text


def safe_id(value: object, limit: int = DEFAULT_LIMIT) -> SafeText:
    """An id, safe to show. One that is itself a credential keeps its kind and its end: `ghp_…k4Zq (40 characters)`.

    An id names a key and never holds it, but some servers log the key itself. It is masked rather than redacted, so
    that two of them stay apart; only whole, exact forms are, as many an id begins as keys of some issuer do.
    """
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    return safe(mask_secrets(text) if isinstance(text, str) else text, limit)


def mask_secrets(text: str) -> str:
    """The text with every whole credential in it masked."""
    shown = []
    done = 0
    for secret in find(text):
        shown += [text[done : secret.start], mask(text[secret.start : secret.end])]
        done = secret.end
    return "".join([*shown, text[done:]]) if done else text


_PAIR: Final = 2
_TAKES_PASSWORDS: Final = re.compile(
    r"(?:mysql|mariadb)(?:-?(?:dump|admin|import|check|show|slap))?|sshpass|7za?|rar|unrar"
)
"""Programs whose option -p is followed by a password, without a blank."""
_PAIR_NAMES: Final = ("name", "key", "header")
_PAIR_VALUES: Final = frozenset({"value", "values"})


def _names_a_secret(value: Mapping[Any, Any]) -> bool:
    """Whether it is a pair such as `{"name": "Authorization", "value": …}` that is called like a secret."""
    if _PAIR_VALUES.isdisjoint(value):
        return False
    names = (value.get(name) for name in _PAIR_NAMES)
    return any(isinstance(name, str) and is_secret_name(name) for name in names)


def _holds_secret(name: str, item: object) -> bool:
    if not isinstance(item, str | int | float | list | dict) or item == "" or not is_secret_name(name):
        return False
    # language models count their words in tokens
    return not (isinstance(item, int | float) and name.lower() == "tokens")


def redact(value: Any, *, depth: int = 0) -> Any:
    """A copy of a JSON value in which secrets are replaced: by the name that holds them, and by their shape."""
    if isinstance(value, str):
        return redact_text(value)
    if depth > 32:
        return "[too deep]"
    if isinstance(value, Mapping):
        paired = _names_a_secret(value)
        return {
            redact_text(str(name)): REDACTED
            if _holds_secret(str(name), item) or (paired and name in _PAIR_VALUES and item is not None)
            else redact(item, depth=depth + 1)
            for name, item in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return _redact_items(value, depth + 1)
    return value


def _redact_items(items: Sequence[Any], depth: int) -> list[Any]:
    """The items of a list, some of which say what the next one is: `["--token", "…"]`, `[["Authorization", "…"]]`."""
    shown = [redact(item, depth=depth) for item in items]
    for at, (name, item) in enumerate(pairwise(items), 1):
        if isinstance(name, str) and isinstance(item, str) and item and _announces_secret(name, item):
            shown[at] = REDACTED
    if len(items) == _PAIR and all(isinstance(item, str) for item in items) and _is_header(items[0]):
        shown[1] = REDACTED
    command = items[0] if items and isinstance(items[0], str) else ""
    if _TAKES_PASSWORDS.fullmatch(command.rpartition("/")[2]):
        shown = [
            "-p" + REDACTED if isinstance(item, str) and item.startswith("-p") and item != "-p" else item
            for item in shown
        ]
    return shown


def _announces_secret(name: str, item: str) -> bool:
    """Whether an argument is an option that a secret follows: `--password hunter2`, `--api-key …`."""
    return name.startswith("--") and "=" not in name and not item.startswith("--") and is_secret_name(name)


def _is_header(name: str) -> bool:
    """Whether a pair of texts is a header with a secret; plain words such as `["token", "limit"]` are no header."""
    return not name.startswith("-") and is_secret_name(name) and (not name.islower() or "-" in name)


def is_secret_name(name: str) -> bool:
    """Whether a parameter of this name holds a secret: `api_key`, `X-Api-Key`, `accessToken`, `db_password`.

    Names that only say something about one don't: `key_id`, `token_count`, `max_tokens`, `secretName`.
    """
    return (_is_secret_name_cached if len(name) <= _MAX_CACHED else _is_secret_name)(name)


def _is_secret_name(name: str) -> bool:
    words = _WORD_STARTS.sub("_", name).strip("_").lower()
    return SECRET_NAMES.search(words) is not None and _DESCRIBES_SECRET.search(words) is None


_is_secret_name_cached: Final = lru_cache(maxsize=4_096)(_is_secret_name)
