"""Does a path lie inside the allowed folders? Decided from its text alone.

A log shows what a client asked for, not what the server made of it. So a path is first read as written, and
then in the other ways a real server might read it: with percent signs decoded, backslashes taken as separators,
look-alike characters folded, and so on. Outside as written is a violation; inside as written but outside, or
unreadable, in another reading is ambiguous. Symlinks and mounts can't be seen in text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from mcpwatch.policy.effort import Effort
from mcpwatch.policy.verdict import Finding, Verdict
from mcpwatch.text import safe

MAX_LENGTH: Final = 4_096
"""Longer paths are judged as written and are ambiguous at best; no file system takes them."""
MAX_NAME: Final = 255
"""A longer name of a file or folder is ambiguous at best: file systems refuse it, careless servers cut it."""
_MAX_READINGS: Final = 128
# A path made to cost time gets fewer: this many characters are read over and over, and the rest is ambiguous.
_MAX_READ: Final = 65_536
_MAX_WHOLE: Final = 65_536
_MAX_ROUNDS: Final = 5
_SHOWN_ROOTS: Final = 3

# The folder that relative paths start from where the policy doesn't say. A NUL is in no path that gets this far.
_UNKNOWN_BASE: Final = "\0base"
_MAC_ROOTS: Final = ("/Users/", "/Volumes/", "/Library/", "/Applications/", "/System/", "/private/")
_DRIVE_ROOT: Final = re.compile(r"[A-Za-z]:(?:[\\/]|$)|\\\\")

# Anything that could make another reading differ from the one as written.
_SUSPECT: Final = re.compile(r"[^ -~]|[%\\;$`~?#:&]|\.[.\"']|0x|^[ \"']")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a text leads: the drive, share or "" it starts from, and the components below, collapsed."""

    anchor: str
    parts: tuple[str, ...]
    magic: bool
    """Passes through a link of /proc that leaves whatever folder it is in."""


@dataclass(frozen=True, slots=True)
class _Root:
    """An allowed folder (or file)."""

    text: str
    place: _Place
    fold: bool

    def holds(self, place: _Place) -> bool:
        """Whether `place` is this root or below it."""
        if place.anchor != self.place.anchor:
            return False
        head = place.parts[: len(self.place.parts)]
        return (tuple(map(_fold, head)) if self.fold else head) == self.place.parts


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The allowed folders and how to read a path against them."""

    roots: tuple[_Root, ...]
    base: _Place
    windows: bool
    shown: str

    def root_of(self, place: _Place) -> _Root | None:
        return next((root for root in self.roots if root.holds(place)), None)


def _fold(part: str) -> str:
    return unicodedata.normalize("NFC", part).casefold()


_PROC_OR_DEV: Final = re.compile(r"(?:^|/)(?:proc|dev)/")
_PROC: Final = frozenset({"self", "thread-self"})
_PROC_LINKS: Final = frozenset({"root", "cwd", "exe", "fd", "fdinfo", "map_files", "ns"})


def _leads_out(parts: list[str]) -> bool:
    """Whether the last component is a link such as /proc/self/root, /proc/1/task/1/cwd, /dev/fd."""
    above = parts[:-1]
    if above == ["dev"]:
        return parts[-1] == "fd"
    if len(above) > 3 and above[-2] == "task":
        above = above[:-2]
    return len(above) > 1 and above[-2] == "proc" and (above[-1] in _PROC or above[-1].isdecimal())


def _collapse(parts: list[str], start: tuple[str, ...] = ()) -> tuple[tuple[str, ...], bool]:
    """The components without `.`, `..` and empty ones, and whether the way passes through a link of /proc."""
    out = list(start)
    magic = False
    for part in parts:
        if part == "..":
            if out:
                out.pop()
        elif part and part != ".":
            out.append(part)
            magic = magic or (part in _PROC_LINKS and _leads_out(out))
    return tuple(out), magic


def _windows_part(part: str) -> str:
    # `x:stream` is a stream of x; blanks and dots at the end of a name are dropped, so `.. ` is `..`
    bare = part.partition(":")[0].rstrip(" ")
    return bare if bare in (".", "..") else bare.rstrip(" .")


def _split_windows(text: str) -> tuple[str | None, list[str]]:
    """The anchor (None for a relative path) and the components of a Windows path."""
    text = text.replace("\\", "/")
    if text.startswith("//"):
        host, _, rest = text[2:].partition("/")
        share, _, rest = rest.partition("/")
        return f"//{host}/{share}".casefold(), [_windows_part(p) for p in rest.split("/")]
    anchor: str | None = None
    if re.match(r"[A-Za-z]:", text):
        # `C:name` is relative to a folder nobody can know: an anchor that no root has
        anchor, text = text[:2].casefold() + ("" if text[2:3] in ("/", "") else "?"), text[2:]
    elif text.startswith("/"):
        anchor = ""
    return anchor, [_windows_part(p) for p in text.split("/")]


def _place(text: str, base: _Place, windows: bool) -> _Place:
    if windows:
        anchor, parts = _split_windows(text)
    else:
        anchor, parts = ("" if text.startswith("/") else None), text.split("/")
    if anchor is None:
        return _Place(base.anchor, *_collapse(parts, base.parts))
    return _Place(anchor, *_collapse(parts))


@lru_cache(maxsize=256)
def _bounds(allowed: tuple[str, ...], base_dir: str | None, windows: bool) -> _Bounds:
    unknown = _Place("", (_UNKNOWN_BASE,), False)
    base = _place(base_dir, unknown, windows) if base_dir is not None else unknown
    roots = []
    for text in allowed:
        place = _place(text, base, windows)
        fold = windows or text.startswith(_MAC_ROOTS)
        parts = tuple(map(_fold, place.parts)) if fold else place.parts
        roots.append(_Root(text, _Place(place.anchor, parts, False), fold))
    relative_root = any(root.place.parts[:1] == (_UNKNOWN_BASE,) for root in roots)
    if base == unknown and not relative_root:
        roots.append(_Root("", unknown, windows))
    shown = ", ".join(safe(text, 80) for text in allowed[:_SHOWN_ROOTS])
    more = len(allowed) - _SHOWN_ROOTS
    return _Bounds(tuple(roots), base, windows, shown + (f" and {more} more" if more > 0 else ""))


_ESCAPES: Final = re.compile(r"(?:%(?:25)*(?:u[0-9A-Fa-f]{4}|[0-9A-Fa-f]{2}))+")
_WIDE_ESCAPE: Final = re.compile(r"%u([0-9A-Fa-f]{4})")
# First bytes of UTF-8 forms longer than their character needs; no correct encoder ever writes them.
_OVERLONG: Final = re.compile(
    rb"[\xc0\xc1]|[\xf8-\xfd][\x80-\xbf]|\xe0[\x00-\x9f]|\xf0[\x00-\x8f]",
)
_OVERLONG_TEXT: Final = re.compile(
    "[\xc0\xc1\udcc0\udcc1][\x80-\xbf\udc80-\udcbf]|[\xe0\udce0][\x80\udc80]|[\xf0\udcf0][\x80\udc80]"
)
_SPELLED: Final = re.compile(
    r"(?:0x|\\x|\\u00|%%|&#x0{0,5}|(?<=\.\.))(2e|2f|5c);?|&#0{0,5}(46|47|92);?|&(period|sol|bsol);"
    r"|(%%32%%65|%%32%%66|%%35%%63|%bg%qf)",
    re.IGNORECASE,
)
_SPELLED_CHARS: Final = {
    "2e": ".", "46": ".", "period": ".", "2f": "/", "47": "/", "sol": "/", "5c": "\\", "92": "\\", "bsol": "\\",
    "%%32%%65": ".", "%%32%%66": "/", "%%35%%63": "\\", "%bg%qf": "/",
}  # fmt: skip
# What Unicode compatibility folding, code page conversion or a careless reader turns into a dot or a slash.
_LOOK_ALIKE: Final = str.maketrans(
    dict.fromkeys("․﹒．。｡\uf02e", ".")
    | {"‥": "..", "︰": "..", "…": "...", "︙": "..."}
    | dict.fromkeys("／∕⁄⧸╱\uf02f\uefc8\uf025", "/")
    | dict.fromkeys("＼﹨∖⧵╲\uf05c", "\\")
    | dict.fromkeys("％﹪", "%")
    | {
        wide: chr(wide - 0xFEE0)
        for wide in (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF27), *range(0xFF41, 0xFF47))
    }
)
# What terminals don't show and some file systems drop from names.
_UNSEEN: Final = re.compile("[\x00-\x1f\x7f\xad\u200b-\u200f\u2060-\u2064\ufeff]")
_PARAMETER: Final = re.compile(r"[;?#][^/\\]*")
_BLANKS: Final = re.compile(r"(^|/)\s*(\.{1,2})\s+(?=/|$)|(^|/)\s+(\.{1,2})(?=/|$)")
_WILD_DOTS: Final = re.compile(r"(^|[/\\])(?:\.\?|\?\.|\?\?)(?=[/\\]|$)")
_CLIMB: Final = re.compile(r"\.\.[/\\]")
# A last `...` is how Go names all packages below a folder, and climbs only once something follows it.
_DOT_RUN: Final = re.compile(r"(?:^|(?<=[/\\]))(?:\.{3,}(?=[/\\])|\.{4,}$)")


def _decode_percent(text: str) -> str:
    if "%" not in text:
        return text
    text = _WIDE_ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    try:
        return unquote_to_bytes(text.encode("utf-8", "surrogatepass")).decode("utf-8")
    except UnicodeDecodeError:
        return unquote_to_bytes(text.encode("utf-8", "surrogatepass")).decode("latin-1")


def _decode_spelled(text: str) -> str:
    return _SPELLED.sub(lambda m: _SPELLED_CHARS[(m[1] or m[2] or m[3] or m[4]).lower()], text)


def _strip_blanks(text: str) -> str:
    return _BLANKS.sub(lambda m: (m[1] or m[3] or "") + (m[2] or m[4]), _UNSEEN.sub("", text)).strip()


def _climbs(dots: re.Match[str]) -> str:
    return "/".join([".."] * (len(dots[0]) - 1))


def _filter_climbs(text: str) -> str:
    # the trick is what a single pass leaves behind: `....//` becomes `../`
    filtered = _CLIMB.sub("", text)
    return filtered if ".." in filtered else text


_READINGS: Final[tuple[tuple[str, Callable[[str], str]], ...]] = (
    ("{escape} is decoded", _decode_percent),
    ("{spelled} is decoded", _decode_spelled),
    ("look-alike characters are folded", lambda text: text.translate(_LOOK_ALIKE)),
    ("backslashes separate", lambda text: text.replace("\\", "/")),
    ("; parameters are stripped", lambda text: _PARAMETER.sub("", text)),
    ("blanks are stripped", _strip_blanks),
    ("quotes are stripped", lambda text: text.replace('"', "").replace("'", "")),
    ("? matches a dot", lambda text: _WILD_DOTS.sub(r"\1..", text)),
    ("../ is filtered out", _filter_climbs),
    ("runs of dots climb, as on old Windows", lambda text: _DOT_RUN.sub(_climbs, text)),
)
"""What a server might do to a path before it opens it. `{…}` is where what it is done to is shown."""
_POSIX_READINGS: Final = (
    *_READINGS,
    ("backslashes are dropped, as shells do", lambda text: re.sub(r"\\(.)", r"\1", text)),
)
"""Where a backslash does not separate."""

_OVERLONG_REASON: Final = "holds overlong UTF-8, which careless decoders take for dots and slashes"
_ANYWHERE: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"`"), "holds a backtick, which shells run"),
    (
        re.compile(r"\$[({]|(?:^|/)\$[A-Z_][A-Z0-9_]+(?![A-Za-z0-9_])"),
        "holds a variable, which shells expand",
    ),
    (re.compile(r"(?:^|[/\\])%[A-Za-z_]{3,}%(?=[/\\]|$)"), "holds a variable, which Windows expands"),
    (_OVERLONG_TEXT, _OVERLONG_REASON),
    (re.compile(r"\x00"), "cut short once an escaped NUL is decoded"),
)
"""What makes the text unreadable wherever it stands."""

_AT_START: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"~(?:[A-Za-z_][\w.-]*|[+-])?(?:[/\\]|$)"), "leads to a home folder if ~ is expanded"),
    (re.compile(r"\$[A-Za-z_]\w*(?:[/\\]|$)"), "holds a variable, which shells expand"),
    (re.compile(r"\\\\"), "on a network share once read as Windows does"),
    (re.compile(r"[A-Za-z]:(?!:)"), "on a drive once read as Windows does"),
    (
        re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|(?i:file|jar|data|expect|netdoc|phar|url):"),
        "elsewhere once read as a URL",
    ),
)
"""What leads elsewhere when the path begins with it."""


def _unreadable(text: str, at_start: bool, windows: bool) -> str | None:
    for pattern, why in _ANYWHERE:
        if pattern.search(text):
            return why
    if at_start and not windows:
        for pattern, why in _AT_START:
            if pattern.match(text):
                return why
    if "%" in text:
        raw = unquote_to_bytes(_WIDE_ESCAPE.sub("", text).encode("utf-8", "surrogatepass"))
        # only what the escapes add counts: letters beyond ASCII are correct UTF-8 by construction
        if _OVERLONG.search(raw) and not _is_utf8(raw):
            return _OVERLONG_REASON
    return None


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def _decoded(text: str) -> str:
    for _ in range(_MAX_ROUNDS):
        text = _decode_percent(text)
    return text


def _shown(text: str) -> dict[str, str]:
    """The first escape and the first spelled-out character, each of ASCII only, for reasons.

    An escape that stands for a dot or a separator is a better example than one of a letter.
    """
    escapes = [match[0] for match in _ESCAPES.finditer(text)]
    telling = [escape for escape in escapes if set("./\\") & set(_decoded(escape))]
    spelled = _SPELLED.search(text)
    return {
        "escape": (*telling, *escapes, "%")[0][:24].lower(),
        "spelled": spelled[0].lower() if spelled else "a spelled-out character",
    }


def _other_readings(text: str, windows: bool) -> Iterator[tuple[str, str] | None]:
    """Each other text a server might see, with what it did to get there; None when there is no end to them."""
    readings = _READINGS if windows else _POSIX_READINGS
    most = min(_MAX_READINGS, _MAX_READ // (len(text) + 1))
    seen = {text}
    waiting: list[tuple[str, tuple[int, ...]]] = [(text, ())]
    for current, steps in waiting:
        for number, (_, apply) in enumerate(readings):
            new = apply(current)
            if new in seen:
                continue
            if len(seen) >= most or (number == 0 and steps.count(0) >= _MAX_ROUNDS):
                yield None
                return
            seen.add(new)
            taken = (*steps, number)
            waiting.append((new, taken))
            yield new, " and ".join(readings[step][0] for step in dict.fromkeys(taken))


_FILE_URI: Final = re.compile(r"file:(//([^/\\]*))?", re.IGNORECASE)


def _from_uri(text: str, windows: bool) -> str | None:
    """The path in a `file:` URI, None when it names another host."""
    match = _FILE_URI.match(text)
    if match is None:
        return text
    if (match[2] or "").lower() not in ("", "localhost"):
        return None
    path = _decode_percent(text[match.end() :])
    return path[1:] if windows and re.match(r"/[A-Za-z]:", path) else path


_EXTENDED: Final = re.compile(r"[\\/]{2}[?.][\\/](?:UNC(?P<share>[\\/])|(?=[A-Za-z]:))", re.IGNORECASE)


def _plain_windows(text: str) -> str:
    r"""The path without the `\\?\` that lifts the limit on its length. Other such names are devices."""
    return (
        _EXTENDED.sub(lambda match: "\\\\" if match["share"] else "", text, count=1)
        if _EXTENDED.match(text)
        else text
    )


def judge_path(
    value: object,
    allowed: tuple[str, ...] | None,
    *,
    base_dir: str | None = None,
    windows: bool = False,
    effort: Effort | None = None,
) -> Finding:
    """Judge one path against the allowed folders. Never raises.

    Args:
        value: The parameter as logged. Anything but text is not evaluable.
        allowed: The folders; None means the tool isn't restricted, an empty tuple that no path is allowed.
        base_dir: The folder that relative paths start from. Without it they are assumed to be inside unless they
            climb.
        windows: Read as Windows does: both slashes separate, drives and shares, case doesn't matter. Roots in
            the macOS places (/Users/, /Volumes/, …) are compared without case as well.
        effort: What is left for the values of the call, if it has so many that they share it.
    """
    if allowed is None:
        return Finding(
            "path", Verdict.NOT_APPLICABLE, value if isinstance(value, str) else "", "not restricted"
        )
    if not isinstance(value, str):
        return Finding("path", Verdict.NOT_EVALUABLE, "", "not text")
    if not value:
        return Finding("path", Verdict.NOT_EVALUABLE, "", "empty")
    if not windows and len(value) <= MAX_NAME and _SUSPECT.search(value) is None:
        for root, reason in _plain_roots(allowed):
            if value.startswith(root) and _PROC_OR_DEV.search(value) is None:
                return Finding("path", Verdict.ALLOWED, value, reason)
    if allowed and len(value) > _MAX_WHOLE:
        return Finding("path", Verdict.AMBIGUOUS, value, "too long to be read at all")
    verdict, reason = _judge(value, allowed, base_dir, windows, effort)
    return Finding("path", verdict, value, reason)


@lru_cache(maxsize=256)
def _plain_roots(allowed: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The roots that plain text can be compared with, each with the reason that it gives."""
    return tuple(
        (root.rstrip("/") + "/", f"inside {safe(root, 80)}")
        for root in allowed
        if root.startswith("/") and _SUSPECT.search(root) is None and "//" not in root and "/./" not in root
    )


def looks_windows(allowed: tuple[str, ...] | None) -> bool:
    """Whether the allowed folders are those of a Windows machine: drives or network shares."""
    return bool(allowed) and any(_DRIVE_ROOT.match(root) for root in allowed or ())


def _judge(
    value: str, allowed: tuple[str, ...], base_dir: str | None, windows: bool, effort: Effort | None
) -> tuple[Verdict, str]:
    if not allowed:
        return Verdict.VIOLATION, "no path is allowed"
    if "\0" in value:
        return Verdict.VIOLATION, "holds a NUL"
    bounds = _bounds(allowed, base_dir, windows)
    text = _from_uri(value, windows)
    if text is None:
        return Verdict.VIOLATION, "a file: URI of another host"
    if "\0" in text:
        return Verdict.VIOLATION, "holds a NUL"
    if windows:
        text = _plain_windows(text)
    place = _place(text, bounds.base, windows)
    if place.magic:
        return Verdict.VIOLATION, "passes through a /proc link that leads out of any folder"
    root = bounds.root_of(place)
    if root is None:
        return Verdict.VIOLATION, _why_outside(text, place, bounds)
    within = f"inside {safe(root.text, 80)}" if root.text else "relative (assumed inside)"
    if _SUSPECT.search(text) and (other := _elsewhere(text, root, bounds, effort)) is not None:
        return Verdict.AMBIGUOUS, f"{within} as written; {other}"
    if len(text) > MAX_LENGTH:
        return Verdict.AMBIGUOUS, f"{within} as written; too long to read in every way"
    if len(text) > MAX_NAME and max(map(len, place.parts), default=0) > MAX_NAME:
        return (
            Verdict.AMBIGUOUS,
            f"{within} as written; holds a name that is cut short or refused for its length",
        )
    return Verdict.ALLOWED, within if root.text else "relative, no base_dir in the policy (assumed inside)"


def _why_outside(text: str, place: _Place, bounds: _Bounds) -> str:
    if ".." in text:
        flat = _flat(text, bounds.windows)
        for root in bounds.roots:
            if root.text and flat.startswith(_flat(root.text, bounds.windows).rstrip("/") + "/"):
                return f"climbs out of {safe(root.text, 80)} with .."
        if bounds.base.parts == (_UNKNOWN_BASE,) and not flat.startswith("/") and place.anchor == "":
            return "relative, and climbs with .. out of wherever it starts"
    return f"outside {bounds.shown}"


def _flat(text: str, windows: bool) -> str:
    return text.replace("\\", "/").casefold() if windows else text


_ONE_OF_TOO_MANY: Final = "one of too many in one call to be read in every way"


def _elsewhere(text: str, root: _Root, bounds: _Bounds, effort: Effort | None) -> str | None:
    """Why another reading of a path that is inside as written leads out, or None."""
    if len(text) > MAX_LENGTH:
        return "too long to read in every way"
    if effort is not None and effort.readings <= 0:
        return _ONE_OF_TOO_MANY
    # the allowed folder itself may hold odd characters; only what follows it is the caller's
    prefix = root.text.rstrip("/") + "/" if root.text else ""
    rest = text[len(prefix) :] if prefix and text.startswith(prefix) else text
    prefix = text[: len(text) - len(rest)]
    if (why := _unreadable(rest, not prefix, bounds.windows)) is not None:
        return why
    for reading in _other_readings(rest, bounds.windows):
        if effort is not None and not effort.read(len(rest)):
            return _ONE_OF_TOO_MANY
        if reading is None:
            return "encoded over and over"
        other, how = reading
        if (why := _unreadable(other, not prefix, bounds.windows)) is not None:
            return why
        place = _place(prefix + other, bounds.base, bounds.windows)
        if place.magic or bounds.root_of(place) is None:
            return f"outside once {how.format_map(_shown(rest))}"
    return None
