"""Fewer bytes for the same picture: styles that are still set are not sent again.

Rich ends every piece of text with a reset and begins the next one with its whole style. On a slow line these
sequences are most of what is sent; leaving out what does not change halves it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final, NamedTuple

from textual.drivers import linux_driver
from textual.drivers.linux_driver import LinuxDriver

_SGR: Final = re.compile(r"\x1b\[([0-9;]*)m")
_LENGTHS: Final = {"2": 5, "5": 3}


_INTENSITY: Final = ("1", "2")
_NORMAL: Final = "22"
"""Neither bold nor dim."""
_DRAWN: Final = frozenset({"4", "5", "6", "7", "9"})
"""Attributes that show on a blank: underlined, blinking, reversed, struck through."""


class Pen(NamedTuple):
    """What SGR sequences have set: foreground, background, and attributes such as bold."""

    fore: str = ""
    back: str = ""
    attributes: tuple[str, ...] = ()


PLAIN: Final = Pen()


@lru_cache(maxsize=4_096)
def _set(pen: Pen, codes: str) -> Pen | None:
    """The pen after a sequence; None where it holds a code that is not known here."""
    parts = codes.split(";")
    while parts:
        code = parts[0]
        if code in ("", "0"):
            pen, used = PLAIN, 1
        elif code in ("38", "48") and len(parts) > 1 and parts[1] in _LENGTHS:
            used = _LENGTHS[parts[1]]
            whole = ";".join(parts[:used])
            pen = pen._replace(fore=whole) if code == "38" else pen._replace(back=whole)
        elif code.isdigit() and 1 <= int(code) <= 9:
            pen, used = pen._replace(attributes=tuple(sorted({*pen.attributes, code}))), 1
        elif code.isdigit() and (30 <= int(code) <= 37 or 90 <= int(code) <= 97):
            pen, used = pen._replace(fore=code), 1
        elif code.isdigit() and (40 <= int(code) <= 47 or 100 <= int(code) <= 107):
            pen, used = pen._replace(back=code), 1
        elif code in ("39", "49"):
            pen, used = (pen._replace(fore="") if code == "39" else pen._replace(back="")), 1
        else:
            return None
        parts = parts[used:]
    return pen


@lru_cache(maxsize=4_096)
def _turn(old: Pen, new: Pen) -> str:
    """The shortest sequence from one pen to the other."""
    if old == new:
        return ""
    if new == PLAIN:
        return "\x1b[0m"
    lost = set(old.attributes) - set(new.attributes)
    gone = bool(lost - set(_INTENSITY)) or bool(old.fore and not new.fore) or bool(old.back and not new.back)
    codes = ["0"] if gone else [_NORMAL] if lost else []
    kept = () if gone else tuple(code for code in old.attributes if not lost or code not in _INTENSITY)
    codes += [code for code in new.attributes if code not in kept]
    codes += [new.fore] if new.fore and (gone or new.fore != old.fore) else []
    codes += [new.back] if new.back and (gone or new.back != old.back) else []
    return f"\x1b[{';'.join(codes)}m"


def _same_blank(old: Pen, new: Pen) -> bool:
    """Whether blanks look the same under both: only their background and what is drawn through them shows."""
    return old.back == new.back and not _DRAWN & {*old.attributes, *new.attributes}


def thrifty(data: str) -> str:
    """The same output with fewer style sequences; unchanged where it holds one that is not known here."""
    out: list[str] = []
    shown: Pen = PLAIN
    wanted: Pen = PLAIN
    at = 0
    for match in _SGR.finditer(data):
        if match.start() > at:
            text = data[at : match.start()]
            if not (text.isspace() and _same_blank(shown, wanted)):
                out.append(_turn(shown, wanted))
                shown = wanted
            out.append(text)
        after = _set(wanted, match[1])
        if after is None:
            return data
        wanted, at = after, match.end()
    out.append(_turn(shown, wanted))
    out.append(data[at:])
    return "".join(out)


def _lenient_decoder(encoding: str) -> Callable[[], codecs.IncrementalDecoder]:
    return partial(codecs.getincrementaldecoder(encoding), errors="replace")


class ThriftyDriver(LinuxDriver):
    """Textual's driver, with shorter output, and input that survives bytes that are not UTF-8."""

    def run_input_thread(self) -> None:
        """Read keys. A stray byte (a paste in another encoding) becomes a replacement character, not the end."""
        setattr(linux_driver, "getincrementaldecoder", _lenient_decoder)  # noqa: B010 - it is not exported
        super().run_input_thread()

    def write(self, data: str) -> None:
        """Write to the terminal."""
        super().write(thrifty(data))
