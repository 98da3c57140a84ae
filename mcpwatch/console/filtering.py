"""What the list of events shows: all of them, those that pass a filter, or those of one session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from textual.suggester import Suggester

from mcpwatch.event import AuditEvent
from mcpwatch.filter import complete, parse, quote
from mcpwatch.policy.model import Tier
from mcpwatch.response.plan import Target
from mcpwatch.snapshot import EventRow, Snapshot
from mcpwatch.text import SafeText, safe, safe_id

Matches = Callable[[AuditEvent, Tier | None], bool]
HISTORY_LENGTH: Final = 200
_FIELDS: Final = {
    "session": "session", "key": "key", "client": "client", "subject": "subject", "source_ip": "ip",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shown:
    """A filter and how it reads."""

    label: SafeText
    matches: Matches


def from_text(text: str) -> Shown | None:
    """The filter of a text; None for a blank one.

    Raises:
        FilterError: The text can't be understood.
    """
    return Shown(safe(text.strip()), parse(text).match) if text.strip() else None


def from_target(target: Target) -> Shown:
    """Only the records of one session, or of one principal.

    The id is compared as it is: no text that stands in a log is ever parsed as a filter.
    """
    kind, wanted = target.kind, target.id
    get: dict[str, Callable[[AuditEvent], str | None]] = {
        "session": lambda event: event.session_id,
        "key": lambda event: event.key_id,
        "client": lambda event: event.client_id,
        "subject": lambda event: event.subject,
        "source_ip": lambda event: event.source_ip,
    }
    field = get[kind]
    return Shown(
        safe(f"{_FIELDS[kind]}:{quote(safe_id(wanted))}"), lambda event, _tier: field(event) == wanted
    )


class Sieve:
    """Remembers which rows passed, so that a new picture asks only about new rows."""

    def __init__(self, shown: Shown) -> None:
        self.shown = shown
        self._known: dict[int, tuple[EventRow, bool]] = {}

    def pick(self, rows: Sequence[EventRow]) -> list[EventRow]:
        """The rows that pass."""
        known: dict[int, tuple[EventRow, bool]] = {}
        matches = self.shown.matches
        for row in rows:
            before = self._known.get(row.seq)
            if before is not None and before[0] is row:
                known[row.seq] = before
            else:
                known[row.seq] = (row, matches(row.facts, row.tier))
        self._known = known
        return [row for row, passes in known.values() if passes]


class FilterSuggester(Suggester):
    """Completes field names, and values that are on the screen."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._snapshot = snapshot

    async def get_suggestion(self, value: str) -> str | None:
        """The likeliest completion of the word at the end."""
        found = complete(value, len(value), self._values)
        return next((whole for word in found if (whole := _completed(value, word)) is not None), None)

    def _values(self, field: str) -> Iterable[str]:
        rows = self._snapshot().events
        columns: dict[str, Callable[[EventRow], str]] = {
            "tool": lambda row: row.tool,
            "key": lambda row: row.key,
            "client": lambda row: row.client,
            "session": lambda row: row.session,
        }
        column = columns.get(field)
        return (
            dict.fromkeys(column(row) for row in reversed(rows) if column(row)) if column is not None else ()
        )


def _completed(value: str, word: str) -> str | None:
    """The text with its last word completed, if that begins as the text does."""
    for start in range(len(value) + 1):
        tail = value[start:]
        if tail and word.startswith(tail) and (start == 0 or value[start - 1] in " (-"):
            return value[:start] + word
    return None


class History:
    """What was typed before, newest last; kept in a file where there is a folder for it."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self._path = folder / name if folder is not None else None
        self.entries: list[str] = []
        if self._path is not None:
            try:
                text = self._path.read_text("utf-8", "replace")
            except OSError:
                text = ""
            self.entries = [line for line in text.splitlines() if line.isprintable() and line][
                -HISTORY_LENGTH:
            ]

    def add(self, text: str) -> None:
        """Remember a text. A folder that can't be written loses it at the end, no more."""
        text = text.strip()
        if not text or not text.isprintable():
            return
        self.entries = [*(entry for entry in self.entries if entry != text), text][-HISTORY_LENGTH:]
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._path.write_text("\n".join(self.entries) + "\n", "utf-8")
            except OSError:
                self._path = None
