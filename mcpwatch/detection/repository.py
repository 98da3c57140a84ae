"""Calls about a repository elsewhere, where a path that stands out is mostly a file that does nothing."""

from __future__ import annotations

import re
from typing import Final

from mcpwatch.policy.marks import Mark

_PATH: Final = re.compile(r"(?!.*\.\.)[\w.-]+(?:/[\w. -]+)*", re.ASCII)
_WORKS_THERE: Final = frozenset(
    {
        "MCP configuration",
        "agent configuration",
        "editor configuration",
        "git hooks or configuration",
        "CI workflow",
    }
)
"""Tampering that works from inside a repository too."""


def is_inside(path: str) -> bool:
    """Whether it is a path inside a repository.

    Any caller can name a repository beside a path of this machine, and must gain nothing by it.
    """
    return _PATH.fullmatch(path) is not None


def does_nothing_there(mark: Mark) -> bool:
    """Whether what stands out in a call about a repository is a file that does nothing there."""
    about_files = mark.kind in ("sensitive", "tampering")
    return about_files and mark.what not in _WORKS_THERE and is_inside(mark.value)
