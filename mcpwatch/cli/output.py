"""What headless commands print: incidents, events and the summary, as JSON or as plain lines."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable

from mcpwatch.cli.exits import Exit, note
from mcpwatch.cli.options import Show
from mcpwatch.detection.hit import Severity
from mcpwatch.event import AuditEvent, CallEnd
from mcpwatch.filter import Filter, parse
from mcpwatch.formats.reader import OVERSIZE
from mcpwatch.incidents.export import (
    checks_of,
    dump,
    event_line,
    event_record,
    incident_line,
    incident_record,
)
from mcpwatch.incidents.fold import Change
from mcpwatch.incidents.incident import Incident
from mcpwatch.monitor.pipeline import Pipeline
from mcpwatch.policy.model import Policy
from mcpwatch.response.confirm import Confirmations
from mcpwatch.response.report import Report, end_states, report_line, report_record
from mcpwatch.times import DAY, utc_day


class Printer:
    """Prints what a pipeline finds.

    Args:
        count_since: Where counting began, ns, if not at the start of a log: an incident of that day says so.
    """

    def __init__(self, show: Show, pipeline: Pipeline, count_since: int | None = None) -> None:
        self.show = show
        self.pipeline = pipeline
        self.count_since = count_since
        self._filter: Filter = parse(show.filter_text)
        self._out = sys.stdout

    def changes(self, changes: Iterable[Change]) -> None:
        """What happened to incidents, as it happens."""
        for change in changes:
            self._change(change)
        self._out.flush()

    def reports(self, reports: Iterable[Report]) -> None:
        """What became of restrictions, as it happens."""
        for report in reports:
            self._line(dump(report_record(report)) if self.show.as_json else report_line(report))
        self._out.flush()

    def incidents(self) -> None:
        """Every incident once, by first hit."""
        for incident in self.pipeline.fold:
            if self.show.as_json:
                self._line(dump(self._record(incident, None)))
            else:
                self._line(incident_line(Change("final", incident), self.pipeline.fold.alerts))

    def final(self) -> None:
        """Every incident once more, after a live session."""
        for incident in self.pipeline.fold:
            self._change(Change("final", incident))

    def summary(self, policy: Policy, confirmations: Confirmations, held: int = 0) -> None:
        """The counters, and whether what the policy holds against somebody was seen to bite."""
        record = self.pipeline.summary(held)
        restrictions = end_states(policy, confirmations)
        if self.show.as_json:
            self._line(dump(record | {"restrictions": restrictions}))
        else:
            found = ", ".join(f"{count} {name}" for name, count in record["incidents"].items())
            lines = ", ".join(
                f"{record[name]} {name.replace('_', ' ')}"
                for name in ("understood", "not_understood", "blank", "repeated", "joined", "held")
                if record[name] or name == "understood"
            )
            states = Counter(entry["state"].replace("_", " ") for entry in restrictions)
            told = ", ".join(f"{states[name]} {name}" for name in sorted(states))
            self._line(
                f"{record['lines']} lines: {lines}; {record['events']} events; incidents: {found}"
                + (f"; restrictions: {told}" if told else "")
            )
        self._out.flush()
        for name, reader in self.pipeline.readers.items():
            if reader.reasons[OVERSIZE]:
                note(f"{name}: lines over 1 MiB, which no rule has judged: {reader.reasons[OVERSIZE]:,}")
            if reader.not_understood and not reader.understood:
                note(f"{name}: not one of its lines is an audit record: see mcpwatch inspect")

    def events(self, events: Iterable[AuditEvent]) -> None:
        """The events that the filter lets through, if they were asked for.

        A call that is logged in two lines is told of when it begins, and again when it has ended.
        """
        if not self.show.events:
            return
        engine = self.pipeline.engine
        for event in events:
            tier = engine.what(event).tier
            if not self._filter.match(event, tier) and not (
                isinstance(event, CallEnd) and self._filter.match(event.start, tier)
            ):
                continue
            if self.show.as_json:
                checks = checks_of(engine.found(event))
                self._line(dump(event_record(event, tier, reveal=self.show.reveal, checks=checks)))
            else:
                self._line(event_line(event, tier, reveal=self.show.reveal))
        self._out.flush()

    def exit_code(self) -> Exit:
        """1 when there is an incident at or above --fail-on, else 0."""
        if self.show.fail_on is None:
            return Exit.DONE
        level = Severity.named(self.show.fail_on)
        worst = max((level for level, count in self.pipeline.fold.by_severity().items() if count), default=0)
        return Exit.FOUND if worst >= level else Exit.DONE

    def _change(self, change: Change) -> None:
        if self.show.as_json:
            self._line(dump(self._record(change.incident, change.kind)))
        else:
            self._line(incident_line(change, self.pipeline.fold.alerts))

    def _record(self, incident: Incident, kind: str | None) -> dict[str, object]:
        since = self.count_since
        if since is not None and (since % DAY == 0 or utc_day(since) != incident.day):
            since = None
        return incident_record(incident, self.pipeline.fold.alerts, change=kind, count_since=since)

    def _line(self, line: str) -> None:
        self._out.write(line + "\n")
