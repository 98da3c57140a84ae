"""Finds the data that is shipped with mcpwatch: themes, rules, formats and sample logs."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

_INSIDE: Final = {"formats": "mappings"}  # mcpwatch/formats is the code that reads them


def shipped(kind: Literal["themes", "rules", "formats", "sample_logs"]) -> Path:
    """The folder of the shipped data: inside the installed package, else in the checkout beside it."""
    package = Path(__file__).parent
    inside = package / _INSIDE.get(kind, kind)
    return inside if inside.is_dir() else package.parent / kind
