"""The logs, opened: is each one read, and does it tell what it should?"""

from __future__ import annotations

from mcpwatch.console.lines import Line, bar
from mcpwatch.console.screens.document import DocumentScreen, Part, heading
from mcpwatch.snapshot import SourceRow

_STATE_ROLES = {"reading": "ok", "waiting": "warn", "refused": "error", "ended": "dim"}
_COUNTERS = (
    "lines",
    "understood",
    "not_understood",
    "blank",
    "repeated",
    "joined",
    "held",
    "events",
    "gaps",
)
_WRONG = frozenset({"not_understood", "gaps"})


def source_parts(row: SourceRow, width: int) -> list[Part]:
    """One log as part of a document."""
    parts = heading(row.name, width)
    state: Line = ((f"{row.state:<12}", _STATE_ROLES[row.state]), (row.note, "text"))
    behind = f", {row.behind:,} bytes behind" if row.behind else ""
    parts += [
        (state, None),
        ((("file        ", "dim"), (row.path, "text")), None),
        ((("format      ", "dim"), (row.format or "not known yet", "text")), None),
        ((("pace        ", "dim"), (f"{row.per_second:,.1f} records/s{behind}", "text")), None),
    ]
    for start in range(0, len(_COUNTERS), 3):
        cells: list[tuple[str, str]] = [("            " if start else "counters    ", "dim")]
        for name in _COUNTERS[start : start + 3]:
            value = getattr(row.counters, name)
            cells.append((f"{name.replace('_', ' ')} ", "dim"))
            cells.append((f"{value:,}   ", "warn" if value and name in _WRONG else "text"))
        parts.append((tuple(cells), None))
    for index, (name, have, calls) in enumerate(row.coverage):
        share = have / calls if calls else 0.0
        role = "ok" if share >= 1 else "warn" if share > 0 else "error"
        line: Line = (
            (f"{'every call:' if not index else '':<12}", "dim"),
            (f"{name:<20}", "text"),
            (f"{share:>5.0%}  ", role),
            (f"{bar(share, 20):<20}", role),
            ("" if calls else "  no call yet", "dim"),
        )
        parts.append((line, None))
    return parts


class SourcesScreen(DocumentScreen):
    """Every log that is read."""

    HINTS = ("back", "copy", "help")

    def build(self, width: int) -> tuple[Line, list[Part]]:
        """All notices, then each source."""
        live = self.console_app.live
        parts: list[Part] = [(((" ! ", "warn"), (notice, "warn")), None) for notice in live.notices]
        for row in live.sources:
            parts += source_parts(row, width)
        if not live.sources:
            parts.append(((("No log is read.", "dim"),), None))
        return ((f"Logs: {len(live.sources)}", "title"),), parts
