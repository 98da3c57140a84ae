"""Shapes: how the records stand in a line that is not one JSON object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from mcpwatch.formats.accesslog import accesslog
from mcpwatch.formats.keyvalue import cef, leef, logfmt
from mcpwatch.formats.otlp import otlp

Shape = Callable[[bytes], "list[dict[str, Any]] | None"]
"""Takes a line without its transports; gives its records, or None where the line has another shape. Never raises."""

SHAPES: Final[Mapping[str, Shape]] = {
    "logfmt": logfmt,
    "cef": cef,
    "leef": leef,
    "accesslog": accesslog,
    "otlp": otlp,
}
"""Shapes by the name that a mapping file calls them by. `json` and `text` need no splitter of their own."""
