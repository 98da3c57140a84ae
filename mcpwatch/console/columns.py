"""The columns of every list: header, width, and how a row becomes a cell."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from mcpwatch.console.lines import Align, Line, Span, fit, spark
from mcpwatch.detection.hit import Severity
from mcpwatch.policy.model import Tier
from mcpwatch.response.confirm import sentence
from mcpwatch.snapshot import AlertRow, ChangeRow, EventRow, SessionRow
from mcpwatch.text import safe, safe_id
from mcpwatch.times import clock_time

Row = TypeVar("Row")

SEVERITY_WORDS: Final = {
    Severity.CRITICAL: "CRIT", Severity.HIGH: "HIGH", Severity.MEDIUM: "MED ", Severity.LOW: "LOW ",
}  # fmt: skip
STATUS_WORDS: Final = {
    "success": ("ok", "dim"), "error": ("ERROR", "warn"), "denied": ("DENIED", "warn"),
    "unauthenticated": ("UNAUTH", "warn"), "rate_limited": ("LIMITED", "warn"), "timeout": ("TIMEOUT", "warn"),
    "unknown": ("unknown", "dim"),
}  # fmt: skip
STATE_ROLES: Final = {
    "written": "text", "untested": "warn", "in force": "ok", "NOT IN FORCE": "error",
    "advised": "warn", "confirmed": "ok", "over": "dim",
}  # fmt: skip


def severity_chip(severity: Severity) -> Span:
    """The severity as a word on its colour."""
    return SEVERITY_WORDS[severity], f"chip-{severity.label}"


def state_text(row: ChangeRow) -> Line:
    """A change and whether it bites: `revoke key key_0007: in force after 0.4 s`."""
    return ((safe_id(row.what), "text"), (": ", "dim"), *state_words(row))


def state_words(row: ChangeRow) -> Line:
    """Whether a change bites: `untested, no attempt since`."""
    rest = sentence(row.state, row.detail).removeprefix(row.state)
    return ((row.state, STATE_ROLES[row.state]), (rest, "dim"))


def tier_letter(tier: Tier | None) -> Span:
    """H, M or L."""
    return (tier.value[0].upper(), f"tier-{tier.value}") if tier is not None else (" ", "text")


def note_role(text: str) -> str:
    """The role of an alert's most telling fact."""
    return next((role for state, role in STATE_ROLES.items() if text.startswith(state)), "text")


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column of a list.

    Attributes:
        width: Its least width in cells.
        grow: Its part of the cells that are left over.
        wide: The column is shown only where the list is at least that many cells wide.
    """

    header: str
    width: int
    cell: Callable[[Row, bool], Span]
    align: Align = "left"
    grow: int = 0
    wide: int = 0


def _number(value: int, role: str) -> Span:
    """Counts get a colour only when there is something to count."""
    return (f"{value:,}" if value else "·"), (role if value else "dim")


def _duration(row: EventRow, _local: bool) -> Span:
    ms = row.duration_ms
    if ms is None:
        return "", "dim"
    return (f"{ms / 1000:,.1f} s" if ms >= 10_000 else f"{ms:,.0f} ms"), "dim"


def _status(row: EventRow, _local: bool) -> Span:
    """The outcome; a call whose end is missing has none yet, which is not the same as one that its log leaves out."""
    return ("no end", "dim") if row.open else STATUS_WORDS.get(row.status, ("unknown", "dim"))


def _hit(row: EventRow, _local: bool) -> Span:
    return severity_chip(row.worst) if row.worst is not None else ("    ", "text")


SESSIONS: Final[tuple[Column[SessionRow], ...]] = (
    Column("SESSION", 9, lambda r, _: (r.session or "-", "text" if r.worst is None else "bold"), grow=2),
    Column("KEY", 8, lambda r, _: (r.key or "-", "text"), grow=1),
    Column("CLIENT", 8, lambda r, _: (r.client or "-", "dim"), grow=1, wide=58),
    Column("ALRT", 4, lambda r, _: severity_chip(r.worst) if r.worst is not None else ("", "text")),
    Column("/MIN", 5, lambda r, _: (f"{r.per_minute:,}", "bold"), "right"),
    Column("TREND", 9, lambda r, _: (spark(r.trend[-9:]), "trend"), wide=48),
    Column("H", 3, lambda r, _: _number(r.high, "tier-high"), "right"),
    Column("M", 3, lambda r, _: _number(r.medium, "tier-medium"), "right", wide=44),
    Column("L", 3, lambda r, _: _number(r.low, "tier-low"), "right", wide=44),
    Column("ERR", 3, lambda r, _: _number(r.errors, "warn"), "right"),
)

ALERTS: Final[tuple[Column[AlertRow], ...]] = (
    Column("", 4, lambda r, _: severity_chip(r.severity)),
    Column("LAST", 8, lambda r, local: (clock_time(r.last_ns, local=local), "dim"), wide=46),
    Column("RULE", 17, lambda r, _: (safe(r.rule), "dim" if r.quiet else "bold"), grow=1),
    Column("WHO", 10, lambda r, _: (r.subject, "dim" if r.quiet else "text"), grow=5),
    Column("COUNT", 6, lambda r, _: (f"x{r.count:,}", "dim"), "right"),
    Column("", 11, lambda r, _: (r.note, "dim" if r.quiet else note_role(r.note)), grow=1, wide=54),
)

EVENTS: Final[tuple[Column[EventRow], ...]] = (
    Column("TIME", 12, lambda r, local: (clock_time(r.time_ns, local=local, millis=True), "dim"), wide=60),
    Column("T", 1, lambda r, _: tier_letter(r.tier)),
    Column("KEY", 9, lambda r, _: (r.key or "-", "text"), grow=1, wide=44),
    Column("SESSION", 9, lambda r, _: (r.session or "-", "dim"), grow=1, wide=90),
    Column("CLIENT", 10, lambda r, _: (r.client or "-", "dim"), grow=1, wide=135),
    Column("TOOL", 12, lambda r, _: (r.tool, "bold" if r.worst is not None else "text"), grow=1),
    Column("DETAIL", 12, lambda r, _: (r.detail, "text"), grow=7),
    Column("STATUS", 7, _status),
    Column("TOOK", 8, _duration, "right", wide=90),
    Column("HIT", 4, _hit),
    Column("WHY", 10, lambda r, _: (r.note, "text"), grow=3, wide=60),
)


def _extend(out: list[Span], text: str, role: str) -> None:
    if out and out[-1][1] == role:
        text = out.pop()[0] + text
    out.append((text, role))


def arrange(columns: Sequence[Column[Row]], width: int) -> list[tuple[Column[Row], int]]:
    """Which columns fit into `width` cells, and how wide each one is."""
    shown = [column for column in columns if column.wide <= width]
    left = width - sum(column.width + 1 for column in shown) + 1
    while left < 0 and any(column.wide for column in shown):
        dropped = max(shown, key=lambda column: column.wide)
        shown.remove(dropped)
        left += dropped.width + 1
    weight = sum(column.grow for column in shown)
    out = []
    for column in shown:
        # a negative rest is taken from the same columns that a positive one is given to
        extra = max(left * column.grow // weight, 4 - column.width) if column.grow else 0
        left, weight = left - extra, weight - column.grow
        out.append((column, column.width + extra))
    return out


class Table(Generic[Row]):
    """Rows in columns, as a pane shows them."""

    def __init__(
        self,
        rows: Sequence[Row],
        columns: Sequence[Column[Row]],
        key: Callable[[Row], Hashable],
        *,
        local: bool,
        headers: bool = True,
    ) -> None:
        self.rows = rows
        self._columns = columns
        self._key = key
        self._local = local
        self._headers = headers
        self._width = -1
        self._arranged: list[tuple[Column[Row], int]] = []

    def __len__(self) -> int:
        return len(self.rows)

    def key(self, index: int) -> Hashable:
        """The row's own name."""
        return self._key(self.rows[index])

    def find(self, key: Hashable) -> int | None:
        """Where the row of that name is."""
        name = self._key
        return next((index for index, row in enumerate(self.rows) if name(row) == key), None)

    def line(self, index: int, width: int) -> Line:
        """One row."""
        row = self.rows[index]
        out: list[Span] = []
        for column, size in self._fit(width):
            text, role = column.cell(row, self._local)
            if role.startswith("chip-"):
                out.append((text, role))
                text, role, size = "", "text", size - len(text)
            # the blank between two columns belongs to the left one: every span costs bytes on the wire
            _extend(out, fit(text, size, column.align) + " ", role)
        last, role = out.pop()
        return (*out, (last[:-1], role))

    def head(self, width: int) -> Line | None:
        """The headers of the columns."""
        if not self._headers:
            return None
        out: list[Span] = []
        for column, size in self._fit(width):
            out.append(((" " if out else "") + fit(column.header, size, column.align), "head"))
        return tuple(out)

    def _fit(self, width: int) -> list[tuple[Column[Row], int]]:
        if width != self._width:
            self._width, self._arranged = width, arrange(self._columns, width)
        return self._arranged
