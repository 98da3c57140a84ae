"""A record, opened: its fields, what the policy says and why, and the line itself."""

from __future__ import annotations

from mcpwatch.console.columns import STATUS_WORDS, severity_chip
from mcpwatch.console.header import paragraph
from mcpwatch.console.lines import Line, line_cells, wrap
from mcpwatch.console.screens.document import DocumentScreen, Part, heading
from mcpwatch.response.plan import Target
from mcpwatch.snapshot import RecordDetail
from mcpwatch.text import safe

_VERDICT_ROLES = {"allowed": "ok", "violation": "error", "ambiguous": "warn", "not_evaluable": "warn"}


def record_parts(detail: RecordDetail, width: int) -> list[Part]:
    """The record as a document."""
    parts: list[Part] = [(line, None) for line in paragraph("where", detail.where, width, "dim")]
    for name, value in detail.fields:
        parts += [(line, None) for line in paragraph(safe(name, 40), value, width)]
    parts += heading("What the policy says", width)
    if not detail.verdicts:
        parts.append(((("Nothing: no rule of the policy is about this record.", "dim"),), None))
    for aspect, verdict, reason in detail.verdicts:
        words = verdict.replace("_", " ")
        head: Line = ((f"{safe(aspect, 10):<12}", "dim"), (f"{words}  ", _VERDICT_ROLES.get(verdict, "dim")))
        rows = wrap(reason, width - line_cells(head))
        parts.append(((*head, *rows[0]), None))
        parts += [(((" " * line_cells(head), "text"), *row), None) for row in rows[1:]]
    parts += heading("The record, redacted", width)
    parts += [(line, None) for text in detail.raw for line in _raw(text, width)]
    return parts


def _raw(text: str, width: int) -> list[Line]:
    blanks = len(text) - len(text.lstrip(" "))
    return wrap(text.lstrip(" "), width, "text", " " * min(blanks, width // 2))


class RecordScreen(DocumentScreen):
    """One record."""

    def __init__(self, seq: int) -> None:
        super().__init__()
        self._seq = seq
        self._targets: tuple[Target, ...] = ()

    def build(self, width: int) -> tuple[Line, list[Part]]:
        """Fields, verdicts, raw."""
        detail = self.console_app.feed.record(self._seq)
        if detail is None:
            return (("Record", "title"),), [((("This record is no longer in memory.", "dim"),), None)]
        row = detail.row
        self._targets = row.targets
        chip: Line = (severity_chip(row.worst), (" ", "text")) if row.worst is not None else ()
        title: Line = (*chip, ("Record: ", "title"), (row.tool, "title"), (" ", "text"))
        return (*title, STATUS_WORDS.get(row.status, ("unknown", "dim"))), record_parts(detail, width)

    def targets(self) -> tuple[Target, ...]:
        """Its principals and its tool."""
        return self._targets
