"""Finds the data that is shipped with mcpwatch: themes, rules and sample logs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def shipped(kind: Literal["themes", "rules", "sample_logs"]) -> Path:
    """The folder of the shipped data: inside the installed package, else in the checkout beside it."""
    package = Path(__file__).parent
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind
