"""What the names and the values of a log say about its fields: the tables of `mcpwatch.formats.suggest`."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from mcpwatch.formats.fields import EVENT_WORDS, address_of, duration_of, status_of
from mcpwatch.text import redact
from mcpwatch.times import parse_rfc3339, parse_time

_FROM_NS, _TO_NS = (found[0] for text in ("2001-01-01T00:00:00Z", "2100-01-01T00:00:00Z")
                    if (found := parse_rfc3339(text)) is not None)  # fmt: skip
_TOOL: Final = re.compile(r"[A-Za-z][\w./:@-]{0,127}")
_METHOD: Final = re.compile(
    r"(?:tools|resources|prompts|notifications|completion|logging|roots|sampling|elicitation|tasks|server)/[\w/]+"
    r"|initialize|ping"
)
_HEX: Final = re.compile(r"(?:0x)?[0-9a-fA-F-]{16,}")
MAX_WORDS: Final = 24
"""Most different words of a place that holds words."""


def _is_time(value: Any) -> bool:
    found = (
        parse_time(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    )
    return found is not None and _FROM_NS <= found[0] < _TO_NS


def _is_tool(value: Any) -> bool:
    return isinstance(value, str) and bool(_TOOL.fullmatch(value)) and not _METHOD.fullmatch(value) and not (
        _HEX.fullmatch(value))  # fmt: skip


def _is_duration(value: Any) -> bool:
    return not _is_time(value) and duration_of(value) is not None


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _is_key_id(value: Any) -> bool:
    return _is_id(value) and redact(value) == value  # a key itself is none


def _is_unique_id(value: Any) -> bool:
    return isinstance(value, str) and len(value) >= 8 and not _is_time(value)


def _is_address(value: Any) -> bool:
    try:
        ipaddress.ip_address(address_of(value) or "")
    except ValueError:
        return False
    return True


def _is_word(value: Any) -> bool:
    return isinstance(value, bool | int) or (isinstance(value, str) and len(value) <= 40)


class Guess(NamedTuple):
    """How one field is known.

    Attributes:
        names: What its name and the name above it look like, and how much that says.
        fits: What each of its values is.
        words: It has few different values.
    """

    field: str
    names: tuple[tuple[str, int], ...]
    fits: Callable[[Any], bool]
    words: bool = False


GUESSES: Final = (
    Guess("tool", (
        (r"(^|_)(tool|tool_name|tool_call_name|called_tool)$", 9), (r"tool_(call_)?(name|id)$", 8),
        (r"(^|_)(function|func|fn)(_name)?$", 6), (r"(call|request|params|target|command|invocation)_name$", 5),
        (r"(^|_)(command|action|operation|op|cmd|procedure|what)$", 3), (r"^name$", 2),
    ), _is_tool),
    Guess("ended", ((r"(^|_)(end|ended|finish|finished|stop|stopped|complete|completed|done)(_|$)", 6),), _is_time),
    Guess("timestamp", (
        (r"(^|_)(timestamp|logged_at|event_time)$", 9), (r"(^|_)(start|started|begin|began|received)(_|$)", 8),
        (r"(^|_)(t|ts|time|when|datetime|date|at|created|occurred)(_|$)", 6),
    ), _is_time),
    Guess("method", ((r"(^|_)(method|rpc|type|event|operation|op|action)(_|$)", 4),), lambda value: isinstance(
        value, str) and bool(_METHOD.fullmatch(value))),
    Guess("duration", (
        (r"(^|_)(duration|elapsed|latency|took|taken|runtime|response_time|exec\w*_time|cost|wall)(_|$)", 6),
        (r"(^|_)(ms|millis|msec|us|micros|ns|nanos|seconds|secs)$", 3),
    ), _is_duration),
    Guess("session_id", (
        (r"(^|_)sess(ion)?(_id|_uuid)?$", 7), (r"(^|_)(conversation|connection)(_id)?$", 4),
    ), _is_id),
    Guess("call_id", (
        (r"(call|invocation|correlation|execution|span|event|audit)_(id|uuid)$", 6), (r"request_(id|uuid)$", 5),
        (r"(^|_)(uuid|guid|trace_id)$", 4), (r"^id$", 2),
    ), _is_unique_id),
    Guess("source_ip", (
        (r"(^|_)(source|client|remote|src|peer|from|caller)_?(ip|addr|address)?$", 6),
        (r"(^|_)(ip|addr|address)$", 5), (r"forwarded", 4), (r"(^|_)host$", 2),
    ), _is_address),
    Guess("key_id", (
        (r"(^|_)(key|api_key|apikey|credential|token)_(id|name|alias)$", 7),
        (r"(^|_)(consumer|credential)$|^key$", 4),
    ), _is_key_id),
    Guess("client_id", (
        (r"(^|_)client(_id|_name|_info)?$", 7), (r"client(_info)?_name$", 7), (r"(^|_)(agent|app|application|caller)"
         r"(_id|_name)?$", 5),
    ), _is_id),
    Guess("subject", (
        (r"(^|_)(user|subject|sub|principal|actor|account|identity|who|owner|employee)(_id|_name|_email)?$", 6),
        (r"(^|_)(email|login|username|upn)$", 5),
    ), _is_id),
    Guess("status", (
        (r"(^|_)(status|outcome|result|verdict|decision|success|succeeded|ok)$", 7),
        (r"(^|_)(state|exit|rc|exit_code|status_code|response_code|return_code|code|disposition|failed)$", 4),
    ), _is_word, words=True),
    Guess("error", ((r"(^|_)(error|err|exception|failure|error_message|error_msg)$", 6),
                     (r"error_(message|text|detail)|(^|_)(reason|why)$", 5)), lambda value: isinstance(value, str)),
    Guess("server", ((r"(^|_)(server|backend|upstream|service|component|gateway|mcp)(_id|_name)?$", 5),), _is_id),
    Guess("event", (
        (r"(^|_)(event|event_type|type|kind|event_name|category|action|msg)$", 5),
    ), _is_word, words=True),
)  # fmt: skip
PARAMS: Final = re.compile(
    r"(^|_)(arg|args|arguments|params|parameters|input|inputs|kwargs|payload|options|body|data)$"
)
ANSWERS: Final = re.compile(r"(^|_)(result|response|output|answer|reply)$")

_OUTCOMES: Final = tuple((re.compile(words), outcome) for words, outcome in (
    (r"unauth|login|invalid_(token|key|credential)|bad_(token|key)|no_(token|key)|expired", "unauthenticated"),
    (r"rate|limit|throttl|quota|too_many|busy", "rate_limited"),
    (r"time_?d?_?out|deadline", "timeout"),
    (r"den[iy]|forbid|block|reject|refus|disallow|not_(allowed|permitted|authori)|unpermitted|policy", "denied"),
    (r"fail|err|exc|crash|abort|fault|bad|broke|cancel|panic|^no$|^nok$|^ko$|unsuccess|incomplete", "error"),
    (r"^(ok(ay)?|done|good|fine|yes|finished|served|executed|permit(ted)?|accept(ed)?|grant(ed)?|succe\w*|complet\w*"
     r"|pass\w*|allow\w*)$", "success"),
))  # fmt: skip
_KINDS: Final = tuple((re.compile(words), kind) for words, kind in (
    (r"(session|connection|client)_?(start|open|creat|init|establish|connect)|^(connect|connected|initialized?)$",
     "session_start"),
    (r"(session|connection|client)_?(end|clos|stop|terminat|disconnect|delet)|^disconnect(ed)?$", "session_end"),
    (r"log_?in|sign_?in|auth", "auth"),
    (r"tool|call|invo|exec", "tool_call"),
))  # fmt: skip
_UNITS: Final = tuple((re.compile(words), unit) for words, unit in (
    (r"(^|_)(ns|nanos?|nanoseconds)$", "ns"), (r"(^|_)(us|micros|microseconds|usec)$", "us"),
    (r"(^|_)(ms|millis|milliseconds|msec)$", "ms"), (r"(^|_)(s|sec|secs|seconds)$", "s"),
    (r"(^|_)(min|minutes)$", "min"),
))  # fmt: skip


ARGUMENTS: Final = re.compile(r"(^|_)(arg|args|arguments|parameters|input|inputs|kwargs)$")
"""Names of objects that hold what a tool was called with, and nothing else."""

_FAILED: Final = re.compile(r"fail|error|denied|blocked|rejected|timed_?out")
_EXIT_CODES: Final = frozenset(("rc", "exit", "exit_code", "return_code"))


def outcome_of(name: str, value: Any) -> str | None:
    """The outcome that a value of a place with this name seems to stand for; None: nobody knows, or everybody."""
    word = word_of(value)
    if isinstance(value, bool):
        return ("error" if value else "success") if _FAILED.search(name) else None
    if name in _EXIT_CODES and word.isdigit():
        return "success" if word == "0" else "error"
    if status_of(value) != "unknown" or is_http(value):
        return None
    plain = _plain(value)
    return next((outcome for words, outcome in _OUTCOMES if words.search(plain)), None)


def kind_of(value: Any) -> str | None:
    """The kind of event that a word seems to stand for; None: nobody knows, or everybody."""
    if is_known_kind(value):
        return None
    plain = _plain(value)
    return next((kind for words, kind in _KINDS if words.search(plain)), None)


def is_known_kind(value: Any) -> bool:
    """Whether a word for a kind of event needs no explanation."""
    return word_of(value).strip().lower() in EVENT_WORDS


PHASES: Final = re.compile(r"(^|_)(event|event_type|type|kind|phase|stage|state|status|action|msg|message)$")
"""Names of places whose word says whether a line begins or ends a call."""
IDS: Final = re.compile(r"(^|_)(id|uuid|guid|rid|cid|req|request|call|span|trace|correlation|invocation)$")
_STARTS: Final = re.compile(r"(^|_)(start\w*|beg[aiu]n\w*|calling|called|invok\w*|enter\w*|received)(_|$)")
_ENDS: Final = re.compile(
    r"(^|_)(end|ended|finish\w*|complet\w*|done|succe\w*|fail\w*|error\w*|return\w*|respon\w*|result|denied|timeout)(_|$)"
)


def phase_of(value: Any) -> str | None:
    """Whether a word seems to say that a call begins or ends: `start` or `end`."""
    plain = _plain(value)
    if kind_of(value) not in (None, "tool_call") or EVENT_WORDS.get(plain) not in (None, "tool_call"):
        return None
    if _ENDS.search(plain):
        return "end"
    return "start" if _STARTS.search(plain) else None


def outcome_of_end(value: Any) -> str | None:
    """The outcome that the word for the end of a call says, at its end or anywhere."""
    last = _plain(value).rpartition("_")[2]
    known = status_of(last)
    if known != "unknown" and not is_http(last):
        return known
    return outcome_of("", last) or outcome_of("", value)


def _plain(value: Any) -> str:
    return re.sub(r"[^a-z0-9]+", "_", word_of(value).lower()).strip("_")


def is_http(value: Any) -> bool:
    """Whether a value is a status of HTTP."""
    word = word_of(value)
    return len(word) == 3 and word.isascii() and word.isdigit() and "100" <= word <= "599"


def word_of(value: Any) -> str:
    """A value as a mapping file calls it."""
    return json.dumps(value) if isinstance(value, bool) else str(value)


def says_its_unit(name: str, values: list[Any]) -> bool:
    """Whether a duration says by its name or by its values what it counts."""
    return any(words.search(name) for words, _ in _UNITS) or all(isinstance(value, str) for value in values)


def unit_of(name: str, values: list[Any]) -> str:
    """What a duration of this name counts."""
    for words, unit in _UNITS:
        if words.search(name):
            return unit
    numbers = [value for value in values if isinstance(value, float)]
    # nobody measures milliseconds to their thousandths only to stay below ten of them
    return (
        "s" if numbers and max(numbers) < 10 and any(value != round(value, 3) for value in numbers) else "ms"
    )


SIGNATURES: Final = frozenset(
    ("type", "kind", "event", "event_type", "logger", "schema", "msg", "message", "component", "app", "service",
     "scope", "source", "log", "category", "product", "record_type")
)  # fmt: skip
"""Names whose value, where it is always the same, tells a log from others."""
