"""An incident, opened: why it fired, what it rests on, what was done, what to do."""

from __future__ import annotations

from typing import ClassVar

from mcpwatch.console.columns import ALERTS, STATE_ROLES, Table, severity_chip, state_text
from mcpwatch.console.header import paragraph
from mcpwatch.console.lines import Line, wrap
from mcpwatch.console.screens.document import DocumentScreen, Part, heading
from mcpwatch.response.confirm import sentence
from mcpwatch.response.plan import Target
from mcpwatch.snapshot import AlertRow, IncidentDetail, LockoutRow
from mcpwatch.text import SafeText, safe
from mcpwatch.times import clock_time, format_duration, iso


def _facts(detail: IncidentDetail, width: int, local: bool) -> list[Part]:
    row = detail.row
    first, last = (clock_time(ns, local=local, millis=True) for ns in (row.first_ns, row.last_ns))
    limit = safe(detail.limit) + (f" (most seen: {detail.peak:,})" if detail.peak is not None else "")
    outcomes = "  ".join(f"{safe(name)} {count:,}" for name, count in detail.outcomes)
    when = f"{iso(row.first_ns)[:10]} {first} to {last}, {format_duration(row.last_ns - row.first_ns)}"
    texts = (
        ("why", detail.why, "bold"),
        ("who", row.subject, "text"),
        (
            "hits",
            ", ".join(word for word in (f"{row.count:,}", "quiet now" * row.quiet, row.note) if word),
            "text",
        ),
        ("when", when, "text"),
        ("limit", limit, "text"),
        ("outcomes", outcomes, "text"),
        ("rate", rate_words(detail), "text"),
        ("at limit", limit_words(detail), "dim"),
        *(("tuned" if not number else "", text, "text") for number, text in enumerate(detail.tuned)),
        ("rule file", detail.place or "", "dim"),
        ("tags", safe(" ".join(detail.tags)), "dim"),
        ("id", safe(row.id), "dim"),
    )
    return [
        (line, None) for label, text, role in texts if text for line in paragraph(label, text, width, role)
    ]


def rate_words(detail: IncidentDetail) -> SafeText:
    """How often the rule fired: `session-rate: 340 hits, 12 incidents of 9 subjects in 4 h of log; 85 an hour`."""
    rate = detail.rate
    if rate is None:
        return safe("")
    more = "+" if rate.capped else ""
    found = (
        _some(rate.hits, "hit"),
        f"{_some(rate.incidents, 'incident', more)} of {_some(rate.subjects, 'subject', more)}",
    )
    words = f"{detail.row.rule}: {', '.join(found)}"
    if rate.hours:
        words += f" in {rate.hours:,} h of log"
    if rate.hours > 1:
        words += f"; {rate.hits / rate.hours:,.1f} an hour"
    return safe(words + (f"; most seen {rate.peak:,} {rate.unit}" if rate.peak is not None else ""))


def limit_words(detail: IncidentDetail) -> SafeText:
    """What there would be at higher limits: `10: 300 hits, 41: quiet`."""
    rate = detail.rate
    limits = rate.limits if rate is not None else ()
    return safe(", ".join(f"{limit:,}: {_some(hits, 'hit') if hits else 'quiet'}" for limit, hits in limits))


def _some(count: int, what: str, more: str = "") -> str:
    return f"{count:,}{more} {what}" + ("" if count == 1 else "s")


def _lockout(row: LockoutRow, width: int) -> list[Part]:
    """Where the lockout stands, and the command for it where it is advised."""
    state = row.state if row.state is not None else "not locked out"
    text = safe(sentence(state, row.detail), 300)
    parts: list[Part] = [
        (line, None) for line in paragraph("lockout", text, width, STATE_ROLES.get(state, "text"))
    ]
    if row.command is not None:
        parts += [(line, None) for line in paragraph("", safe("press l, or run:"), width, "dim")]
        parts += [(line, None) for line in paragraph("", row.command, width, "text")]
    return parts


def _evidence(detail: IncidentDetail, width: int, local: bool) -> list[Part]:
    left_out = f", {detail.evidence_left_out:,} between them left out" if detail.evidence_left_out else ""
    parts = heading(f"Evidence: {len(detail.evidence)} records{left_out}", width)
    for row in detail.evidence:
        where = f"{row.source}:{row.line if row.line is not None else f'byte {row.offset}'}"
        line: Line = (
            (clock_time(row.time_ns, local=local, millis=True), "dim"),
            (f"  {where}  ", "link" if row.seq is not None else "dim"),
            (row.text, "text"),
        )
        parts.append((line, ("record", row.seq) if row.seq is not None else None))
    return parts


def incident_parts(detail: IncidentDetail, width: int, *, local: bool) -> list[Part]:
    """The incident as a document."""
    parts = _facts(detail, width, local)
    if detail.lockout is not None:
        parts += _lockout(detail.lockout, width)
    if detail.changes:
        parts += heading("What was done", width)
        parts += [(state_text(row), None) for row in detail.changes]
    parts += _evidence(detail, width, local)
    if detail.related:
        parts += heading("Other incidents of the same principal", width)
        rows: Table[AlertRow] = Table(detail.related, ALERTS, lambda row: row.id, local=local)
        parts += [(rows.line(i, width), ("incident", row.id)) for i, row in enumerate(detail.related)]
    if detail.runbook:
        parts += heading("What to do", width)
        for number, step in enumerate(detail.runbook, 1):
            rows_ = wrap(safe(step), width - 4)
            parts += [
                (((f"{number:>2}. " if not i else "    ", "key"), *row), None) for i, row in enumerate(rows_)
            ]
    return parts


class IncidentScreen(DocumentScreen):
    """One incident."""

    HINTS = ("back", "open", "next_alert", "revoke", "lock", "disable", "except", "copy", "help")
    _OF_SOMEBODY: ClassVar = frozenset({"revoke", "lock", "disable", "except"})

    def __init__(self, incident_id: str) -> None:
        super().__init__()
        self.incident_id = incident_id
        self._targets: tuple[Target, ...] = ()

    def build(self, width: int) -> tuple[Line, list[Part]]:
        """Why, evidence, related, runbook."""
        app = self.console_app
        detail = app.feed.incident(self.incident_id)
        if detail is None:
            self._targets = ()
            return (("Incident", "title"),), [((("This incident is no longer in memory.", "dim"),), None)]
        self._targets = detail.row.targets
        row = detail.row
        title: Line = (severity_chip(row.severity), (" ", "text"), (safe(row.title or row.rule, 80), "title"))
        return title, incident_parts(detail, width, local=app.local)

    def paint_content(self) -> None:
        """Draw it; the footer names what can be done about it."""
        before = self.hints()
        super().paint_content()
        if self.hints() != before:
            self.paint_header()

    def targets(self) -> tuple[Target, ...]:
        """Its principals and tools."""
        return self._targets

    def incident_target(self) -> str:
        """The incident itself."""
        return self.incident_id

    def hints(self) -> tuple[str, ...]:
        """Where it is about a log and not about a caller, nothing can be done to anybody."""
        return tuple(name for name in self.HINTS if self._targets or name not in self._OF_SOMEBODY)

    def do_next_alert(self) -> None:
        """The next incident, in place."""
        self._step(1)

    def do_previous_alert(self) -> None:
        """The previous incident, in place."""
        self._step(-1)

    def _step(self, direction: int) -> None:
        ids = [row.id for row in self.console_app.live.alerts]
        if ids:
            at = ids.index(self.incident_id) if self.incident_id in ids else -direction
            self.incident_id = ids[(at + direction) % len(ids)]
            self.pane.edge(last=False)
            self.paint_content()
