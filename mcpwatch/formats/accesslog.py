"""Access logs of web servers, and the lines of nginx's error log that say why it refused somebody.

| `line`    | is                                                                                             |
|-----------|------------------------------------------------------------------------------------------------|
| access    | NCSA common or combined (nginx, Apache), uvicorn                                               |
| limited   | nginx: over a limit of requests or connections                                                 |
| delayed   | nginx: held back by a limit of requests                                                        |
| forbidden | nginx: refused by a rule                                                                       |
| login     | nginx: no password, or a wrong one                                                             |
| error     | any other line of nginx's error log                                                            |

A record has, where the line says it: `time` (RFC 3339), `remote_addr`, `remote_port`, `user`, `request`,
`http_method`, `path`, `protocol`, `status` (a number), `bytes`, `referer`, `user_agent`, `extra` (what else stands
at the end), `level`, `message`, `zone`, `server`, `host`.
"""

from __future__ import annotations

import re
from typing import Any, Final

from mcpwatch.formats.keyvalue import decoded
from mcpwatch.formats.moments import read_moment

_QUOTED: Final = r'"((?:[^"\\]|\\.)*+)"'
# the NCSA common log format, Apache's and nginx's "combined"; a name of the virtual host may stand before
_NCSA: Final = re.compile(
    r"(?:(?P<vhost>[\w.-]{1,255}(?::\d{1,5})?) )?(?P<addr>[0-9A-Za-z.:%_-]{1,255}) \S{1,255} (?P<user>\S{1,255}) "
    rf"\[(?P<time>[^\]]{{1,40}})\] {_QUOTED} (?P<status>\d{{3}}) (?P<bytes>\d{{1,19}}|-)"
    rf"(?: {_QUOTED} {_QUOTED})?(?: (?P<extra>.*))?"
)
# uvicorn's default access line, with its level or another prefix before it: 1.2.3.4:5 - "POST /mcp HTTP/1.1" 401
_UVICORN: Final = re.compile(rf"{_QUOTED} (?P<status>\d{{3}})(?: [A-Za-z][A-Za-z' -]{{0,40}})?")
_UVICORN_MARK: Final = ' - "'
_MAX_BEFORE: Final = 224
_NOT_BEFORE: Final = re.compile(r"[\"'{}=]|[A-Za-z]/[A-Za-z]")
_MAX_WORDS: Final = (
    4  # of a time, a level, a logger and a process; more is a message, which may quote anybody
)
_CLIENT: Final = re.compile(
    r"(?:[0-9A-Fa-f.:]{2,64}:\d{1,5})?", re.ASCII
)  # a socket without an address has none
_DIGIT: Final = re.compile(r"\d", re.ASCII)
_LEVEL: Final = re.compile(r"(?<!\w)(DEBUG|INFO|WARNING|ERROR|CRITICAL)(?!\w)")
_REQUEST: Final = re.compile(r"([A-Z]{1,24}) (\S*)(?: (HTTP/[\d.]{1,5}))?", re.ASCII)
_NGINX_ERROR: Final = re.compile(
    r"(?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(?P<level>[a-z]{4,6})\] \d{1,10}#\d{1,10}: "
    r"(?:\*\d{1,20} )?(?P<message>.*)"
)
# what nginx adds to a message behind the client, in this order (ngx_http_log_error)
_ADDED: Final = (
    ("server", ", server: "), ("request", ', request: "'), ("upstream", '", upstream: "'), ("host", '", host: "'),
    ("referer", '", referrer: "'),
)  # fmt: skip
_ZONE: Final = re.compile(r'(?:by zone|zone) "([^"]{1,128})"')
# as nginx begins these messages: anywhere else it may be the name of a file that somebody asked for
_CAUSES: Final = (
    ("limited", re.compile(r"limiting (?:requests|connections)\b(?!, dry run)")),
    ("delayed", re.compile(r"delaying request\b")),
    ("forbidden", re.compile(r"access forbidden by rule\b")),
    ("login", re.compile(
        r'no user/password was provided for basic authentication|user ".*"(?:: password mismatch| was not found in )'
    )),
)  # fmt: skip
_CLIENT_MARK: Final = ", client: "


def accesslog(text: bytes) -> list[dict[str, Any]] | None:
    """One record of a line of an access log; None where it is none."""
    line = decoded(text)
    for read in (_ncsa, _nginx_error, _uvicorn):
        record = read(line)
        if record is not None:
            return [{name: value for name, value in record.items() if value not in (None, "")}]
    return None


def _ncsa(line: str) -> dict[str, Any] | None:
    found = _NCSA.fullmatch(line)
    moment = read_moment(found["time"]) if found is not None else None
    if found is None or moment is None:
        return None
    request, referer, agent = found[5], found[8], found[9]
    return {
        "line": "access",
        "time": moment.time,
        "host": found["vhost"],
        "remote_addr": found["addr"],
        "user": found["user"],
        **_request(request),
        "status": int(found["status"]),
        "bytes": int(found["bytes"]) if found["bytes"] != "-" else None,
        "referer": referer,
        "user_agent": agent,
        "extra": found["extra"],
    }


def _uvicorn(line: str) -> dict[str, Any] | None:
    mark = line.find(_UVICORN_MARK, 0, _MAX_BEFORE)
    if mark < 0:
        return None
    before, _, client = line[:mark].rpartition(" ")
    found = _UVICORN.fullmatch(line, mark + len(_UVICORN_MARK) - 1)
    if found is None or _CLIENT.fullmatch(client) is None or not _is_prefix(before):
        return None
    level = _LEVEL.search(before)
    digit = _DIGIT.search(before)
    moment = read_moment(before, digit.start()) if digit is not None else None
    address, _, port = client.rpartition(":")
    return {
        "line": "access",
        "time": moment.time if moment is not None else None,
        "level": level.group().lower() if level is not None else None,
        "remote_addr": address,
        "remote_port": int(port) if port else None,
        **_request(found[1]),
        "status": int(found["status"]),
    }


def _is_prefix(text: str) -> bool:
    """Whether a text is what a logging set-up puts before a message."""
    words = sum(any(map(str.isalpha, word)) for word in text.split())
    return words <= _MAX_WORDS and _NOT_BEFORE.search(text) is None


def _request(text: str) -> dict[str, Any]:
    """A request line and its parts; of one that is no HTTP, only itself."""
    found = _REQUEST.fullmatch(text)
    if found is None:
        return {"request": text}
    return {"request": text, "http_method": found[1], "path": found[2], "protocol": found[3]}


def _nginx_error(line: str) -> dict[str, Any] | None:
    found = _NGINX_ERROR.fullmatch(line)
    moment = read_moment(found["time"]) if found is not None else None
    if found is None or moment is None:
        return None
    message, said = _taken_apart(found["message"])
    # a name that somebody logs in with may hold anything: the cause is looked for in the whole text
    cause = next((name for name, words in _CAUSES if words.match(found["message"])), "error")
    if cause == "login" and found["message"].count(_CLIENT_MARK) > 1:
        said.pop("remote_addr", None)  # an address, but whose: a failed login must not lock out somebody else
    zone = _ZONE.search(message)
    return {
        "line": cause,
        "time": moment.time,
        "level": found["level"],
        "message": message,
        "zone": zone[1] if zone is not None else None,
        **said,
        **(_request(said["request"]) if "request" in said else {}),
    }


def _taken_apart(text: str) -> tuple[str, dict[str, str]]:
    """The message itself, and what nginx adds to it.

    From the front: what a client chose, its request and what comes behind, can't change what stands before it.
    """
    message, found, rest = text.partition(_CLIENT_MARK)
    said: dict[str, str] = {}
    name = "remote_addr"
    for following, mark in _ADDED:
        value, marked, behind = rest.partition(mark)
        if marked:
            said[name] = value
            name, rest = following, behind
    if found:
        said[name] = rest.removesuffix('"')
    return message, said
