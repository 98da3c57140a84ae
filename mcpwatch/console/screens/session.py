"""A session, opened: who it is, its incidents, and its records in order."""

from __future__ import annotations

from mcpwatch.console.columns import ALERTS, EVENTS, Table
from mcpwatch.console.header import paragraph
from mcpwatch.console.lines import Line, spark
from mcpwatch.console.screens.document import DocumentScreen, Part, heading
from mcpwatch.response.plan import Target
from mcpwatch.snapshot import AlertRow, EventRow, SessionDetail
from mcpwatch.times import clock_time


def session_parts(detail: SessionDetail, width: int, *, local: bool) -> list[Part]:
    """The session as a document."""
    row = detail.row
    tiers = f"{row.high:,} high, {row.medium:,} medium, {row.low:,} low risk"
    texts = (
        ("session", row.session or "none: the source has no sessions"),
        ("key", row.key or "-"),
        ("client", row.client or "-"),
        ("calls", f"{row.calls:,}: {tiers}; {row.errors:,} failed"),
        (
            "pace",
            f"{row.per_minute:,} a minute  {spark(row.trend)}  last at {clock_time(row.last_ns, local=local)}",
        ),
    )
    parts: list[Part] = [(line, None) for label, text in texts for line in paragraph(label, text, width)]
    if detail.alerts:
        parts += heading(f"Incidents: {len(detail.alerts)}", width)
        alerts: Table[AlertRow] = Table(detail.alerts, ALERTS, lambda alert: alert.id, local=local)
        parts += [(alerts.line(i, width), ("incident", alert.id)) for i, alert in enumerate(detail.alerts)]
    parts += heading(f"Records: the newest {len(detail.timeline)}", width)
    events: Table[EventRow] = Table(detail.timeline, EVENTS, lambda event: event.seq, local=local)
    parts.append((events.head(width) or (), None))
    parts += [(events.line(i, width), ("record", event.seq)) for i, event in enumerate(detail.timeline)]
    return parts


class SessionScreen(DocumentScreen):
    """One session."""

    def __init__(self, ref: str) -> None:
        super().__init__()
        self._ref = ref
        self._targets: tuple[Target, ...] = ()

    def build(self, width: int) -> tuple[Line, list[Part]]:
        """Who, incidents, records."""
        app = self.console_app
        detail = app.feed.session(self._ref)
        if detail is None:
            return (("Session", "title"),), [((("This session is no longer in memory.", "dim"),), None)]
        self._targets = detail.row.targets
        name = detail.row.session or detail.row.key or detail.row.client or "-"
        title: Line = (("Session ", "title"), (name, "title"))
        return title, session_parts(detail, width, local=app.local)

    def targets(self) -> tuple[Target, ...]:
        """Its principals."""
        return self._targets
