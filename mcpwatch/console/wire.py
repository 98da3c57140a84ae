"""Fewer bytes for the same picture: styles that are still set are not sent again.

Rich ends every piece of text with a reset and begins the next one with its whole style. On a slow line these
sequences are most of what is sent; leaving out what does not change halves it.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from io import TextIOWrapper
from typing import Any, Final, NamedTuple

from textual.app import App
from textual.drivers import linux_driver
from textual.drivers._writer_thread import WriterThread
from textual.drivers.linux_driver import LinuxDriver

from mcpwatch.console.wall import own_only

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


def _terminal_output() -> TextIOWrapper:
    """Standard output as it is. What its encoding lacks becomes `?`: an error would end all drawing."""
    encoding = sys.__stdout__.encoding if sys.__stdout__ is not None else "utf-8"
    return open(os.dup(1), "w", encoding=encoding, errors="replace", newline="")  # noqa: PTH123


class _Writer(WriterThread):
    """Writes until the terminal is gone; from then on nobody waits for it."""

    def run(self) -> None:
        """Write what is queued."""
        try:
            super().run()
        except (OSError, ValueError):
            while self._queue.get() is not None:
                pass


class ThriftyDriver(LinuxDriver):
    """Textual's driver, with shorter output that holds nothing foreign, and input that survives odd bytes.

    It draws on standard output: standard error may be a file, and is for messages.
    """

    def __init__(
        self, app: App[Any], *, debug: bool = False, mouse: bool = True, size: tuple[int, int] | None = None
    ) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        self._file = _terminal_output()

    def start_application_mode(self) -> None:
        """Take the terminal."""
        setattr(linux_driver, "WriterThread", _Writer)  # noqa: B010 - it is not exported
        super().start_application_mode()  # type: ignore[no-untyped-call]

    def run_input_thread(self) -> None:
        """Read keys. A stray byte (a paste in another encoding) becomes a replacement character, not the end."""
        setattr(linux_driver, "getincrementaldecoder", _lenient_decoder)  # noqa: B010
        super().run_input_thread()

    def _run_input_thread(self) -> None:
        try:
            self.run_input_thread()
        except OSError:
            pass  # the terminal is gone: whoever watches it ends the console
        except Exception as error:
            self._app.call_later(self._app._handle_exception, error)

    def _sigcont_application(self, *_: object) -> None:
        if self._auto_restart and not self._must_signal_resume:
            # stopped without notice: whoever had the terminal meanwhile took its modes back
            self.suspend_application_mode()
            self._must_signal_resume = True
        super()._sigcont_application()

    def _disable_mouse_support(self) -> None:
        super()._disable_mouse_support()
        if self._mouse_pixels:
            self.write("\x1b[?1016l")

    def write(self, data: str) -> None:
        """Write to the terminal."""
        super().write(thrifty(own_only(data)))
