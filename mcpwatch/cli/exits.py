"""Exit codes, and how an error becomes one line and one of them."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Final, NoReturn

from mcpwatch.errors import Misused, NotApplied, Unusable
from mcpwatch.text import safe


class Exit(IntEnum):
    """What the program's end tells a script."""

    DONE = 0
    FOUND = 1
    """Incidents at or above --fail-on, or a check that failed."""
    USAGE = 2
    UNUSABLE = 3
    """An input, policy or format file can't be used."""
    NOT_APPLIED = 4
    """A change was not made."""
    INTERRUPTED = 130


class UsageError(Misused):
    """The options don't fit together. The message says which, and what to do."""


class ConfigError(Unusable):
    """config.toml can't be used. The message says where, why, and what to do."""


ERRORS: Final[tuple[tuple[type[Exception], Exit], ...]] = (
    (Misused, Exit.USAGE),
    (NotApplied, Exit.NOT_APPLIED),
    (Unusable, Exit.UNUSABLE),
)


def note(message: object) -> None:
    """Say something on one line of standard error."""
    with contextlib.suppress(OSError, AttributeError):  # closed: then nobody wants to know
        print(f"mcpwatch: {safe(message, 2_000)}", file=sys.stderr, flush=True)


def fail(message: object, code: Exit) -> NoReturn:
    """Say what is wrong on one line of standard error, and leave."""
    note(message)
    sys.exit(code)


class Stop:
    """Takes SIGINT and SIGTERM for a command that finishes the line it is printing; a second SIGINT interrupts.

    Attributes:
        received: The signal, once there was one.
        then: Called with it, from the signal handler.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.then: Callable[[], None] | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)

    def _take(self, number: int, _: object) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
        if self.then is not None:
            self.then()


def prepare_streams() -> None:
    """Make standard output one that can always be written to: it may be closed, or not speak UTF-8."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - stays open to the end
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        # what the terminal's encoding lacks becomes an escape instead of an error
        reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def friendly() -> Iterator[None]:
    """Turn the rooms' errors into a line and an exit code; a reader that went away (`| head`) is no error."""
    try:
        yield
    except BrokenPipeError:
        # Python would complain again when it flushes standard output at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.DONE)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except tuple(kind for kind, _ in ERRORS) as error:
        code = next(code for kind, code in ERRORS if isinstance(error, kind))
        fail(error, code)
    except OSError as error:
        if error.errno == errno.ENOSPC and error.filename is None:
            fail("standard output can't be written: no space left on the device", Exit.UNUSABLE)
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror or error}", Exit.UNUSABLE)
