"""Exit codes, and how an error becomes one line and one of them."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Final, NoReturn

import click

from mcpwatch.errors import Misused, NotApplied, Unusable
from mcpwatch.text import plain_output, redact_text, safe

_LAST_STREAM: Final = 2
"""The descriptor of standard error."""
_PIPE: Final = 1 << 16
_MAX_SAID: Final = 20
_NO_MEMORY: Final = (
    "out of memory: allow more (ulimit -v, the container's limit), or read less (--since, --from)"
)


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
    FAULT = 70
    """A fault in mcpwatch itself, told in one line and reported in the state folder."""
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


STATE: Final = "mcpwatch.state"
"""Where the state folder stands in the context of a command, once it is known."""


def faulted(error: BaseException) -> Exit:
    """Tell of an error that ended something: in one line, and in a report where it is a fault of mcpwatch itself.

    Returns:
        The exit code for it.
    """
    if isinstance(error, MemoryError):
        note(_NO_MEMORY)
        return Exit.UNUSABLE
    for kind, code in ERRORS:
        if isinstance(error, kind):
            note(error)
            return code
    from mcpwatch.cli import crash  # loads what no run without a fault needs

    told = f"a fault in mcpwatch: {crash.headline(error)}"
    try:
        report = crash.write_report(error, _state_dir(), time.time_ns())
    except OSError as problem:
        note(f"{told}; no report: {problem.strerror}")
    else:
        note(f"{told}; report: {safe(report, 1_000)}")
    return Exit.FAULT


def _state_dir() -> Path:
    from mcpwatch.cli.options import state_dir

    context = click.get_current_context(silent=True)
    known = context.meta.get(STATE) if context is not None else None
    return known if isinstance(known, Path) else state_dir(None)


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


class _Printed(io.TextIOWrapper):
    """Standard output, of which a terminal obeys nothing but line ends and colours."""

    def write(self, text: str, /) -> int:
        super().write(plain_output(text))
        return len(text)


def prepare_streams() -> None:
    """Make standard output one that can always be written to: it may be closed, or not speak UTF-8."""
    # a file that is opened in the place of a closed stream would take what is meant for the stream
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST_STREAM:
        pass
    os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - stays open to the end
    # what the terminal's encoding lacks becomes an escape instead of an error
    sys.stdout = _Printed(
        open(os.dup(1), "wb"),  # noqa: PTH123, SIM115
        encoding=sys.stdout.encoding if sys.stdout is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=os.isatty(1),
    )
    # Python's own tracebacks hold messages as they are, and would be printed over the console
    threading.excepthook = lambda fault: _thread_faulted(fault.exc_value)


def _thread_faulted(error: BaseException | None) -> None:
    if error is not None and not isinstance(error, SystemExit):
        faulted(error)


@contextlib.contextmanager
def messages_held_back() -> Iterator[None]:
    """While something is drawn on the terminal, keep what is written to standard error; tell it afterwards.

    Libraries in C write there past Python. No more than a pipe holds is kept, and what is kept is made safe.
    """
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    kept = os.dup(_LAST_STREAM)
    os.dup2(write, _LAST_STREAM)
    os.close(write)
    try:
        yield
    finally:
        os.dup2(kept, _LAST_STREAM)
        os.close(kept)
        with contextlib.suppress(BlockingIOError):
            said = redact_text(os.read(read, _PIPE).decode("utf-8", "backslashreplace"))
            for line in said.split("\n")[:_MAX_SAID]:
                if line.strip():
                    note(line.removeprefix("mcpwatch: "))
        os.close(read)


def _drop_output() -> None:
    """Give up what standard output has not taken: Python would try, and complain, once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _give_up_output() -> None:
    # Python would complain again when it flushes standard output at exit
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def friendly() -> Iterator[None]:
    """Turn the rooms' errors into a line and an exit code; a reader that went away (`| head`) is no error."""
    try:
        yield
    except BrokenPipeError:
        _drop_output()
        sys.exit(Exit.DONE)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except tuple(kind for kind, _ in ERRORS) as error:
        code = next(code for kind, code in ERRORS if isinstance(error, kind))
        fail(error, code)
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except OSError as error:
        if error.filename is None:
            _drop_output()
        if error.errno == errno.ENOSPC and error.filename is None:
            _give_up_output()
            fail("standard output can't be written: no space left on the device", Exit.UNUSABLE)
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror or error}", Exit.UNUSABLE)
    except Exception as error:
        sys.exit(faulted(error))
