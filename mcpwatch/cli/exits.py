"""Exit codes, and how an error becomes one line and one of them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from mcpwatch.filter import FilterError
from mcpwatch.formats.mapping import FormatError
from mcpwatch.policy.model import PolicyError
from mcpwatch.response.plan import ResponseError
from mcpwatch.sources.block import SourceError
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


class UsageError(Exception):
    """The options don't fit together. The message says which, and what to do."""


ERRORS: Final[tuple[tuple[type[Exception], Exit], ...]] = (
    (UsageError, Exit.USAGE),
    (FilterError, Exit.USAGE),
    (ResponseError, Exit.NOT_APPLIED),
    (PolicyError, Exit.UNUSABLE),
    (SourceError, Exit.UNUSABLE),
    (FormatError, Exit.UNUSABLE),
)


def fail(message: object, code: Exit) -> None:
    """Say what is wrong on one line of standard error, and leave."""
    print(f"mcpwatch: {safe(message, 2_000)}", file=sys.stderr)
    sys.exit(code)


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
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror or error}", Exit.UNUSABLE)
