"""The main screen: sessions, rates, alerts, tiers and events, in one look."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Final

from textual import events
from textual.containers import Horizontal
from textual.widget import Widget

from mcpwatch.console.charts import rate_parts, tier_parts
from mcpwatch.console.columns import ALERTS, EVENTS, SESSIONS, Table
from mcpwatch.console.filtering import FilterSuggester, Shown, Sieve, from_text
from mcpwatch.console.lines import Line
from mcpwatch.console.pane import EMPTY, Document, Pane
from mcpwatch.console.prompt import Prompt
from mcpwatch.console.screens.base import ConsoleScreen
from mcpwatch.console.timeline import parse_go_to
from mcpwatch.console.view import LineView
from mcpwatch.event import REFUSALS
from mcpwatch.filter import FilterError
from mcpwatch.response.plan import Target
from mcpwatch.snapshot import Snapshot
from mcpwatch.text import SafeText, safe

PANES: Final = ("sessions", "rates", "alerts", "tiers", "events")
TITLES: Final = {
    "sessions": "Sessions", "rates": "Calls per minute", "alerts": "Alerts", "tiers": "Risk tiers",
    "events": "Events",
}  # fmt: skip
WIDE: Final = (100, 34)
"""Columns and rows from which on all five panes are side by side; below, four of them are tabs."""
LOW: Final = 16
"""Rows below which the events are a tab, too."""
_FAILURES: Final = REFUSALS | {"error", "rate_limited", "timeout"}


class MainScreen(ConsoleScreen):
    """Five panes; in a small terminal, tabs above the events."""

    HINTS: ClassVar[tuple[str, ...]] = (
        "next_alert", "open", "revoke", "freeze", "filter", "same_session", "help",
        "lock", "disable", "undo", "zoom", "copy", "policy", "sources", "quit",
    )  # fmt: skip
    REPLAY_HINTS: ClassVar[tuple[str, ...]] = (
        "play", "step_back", "step", "slower", "faster", "go_to", "next_incident", "next_alert", "open", "filter",
        "help", "same_session", "zoom", "copy", "quit",
    )  # fmt: skip

    def __init__(self, shown: Shown | None) -> None:
        super().__init__()
        self.active = "alerts"
        self.zoomed = False
        self._tab = "alerts"
        self._sieve = Sieve(shown) if shown is not None else None
        self.filter_on = shown is not None

    def content(self) -> Iterable[Widget]:
        """The panes, the tabs that fold them, and the prompt."""
        yield LineView(id="tabs")
        yield Horizontal(Pane(id="sessions"), Pane(id="rates", cursor=False), id="upper")
        yield Horizontal(Pane(id="alerts"), Pane(id="tiers", cursor=False), id="middle")
        yield Pane(id="events", tail=True)
        yield Prompt(id="prompt")

    def pane(self, name: str) -> Pane:
        """A pane by its name."""
        return self.query_one(f"#{name}", Pane)

    @property
    def prompt(self) -> Prompt:
        """The prompt."""
        return self.query_one("#prompt", Prompt)

    def shown_panes(self) -> tuple[str, ...]:
        """The panes that have a place on the screen now."""
        width, height = self.size
        if self.zoomed or height < LOW:
            return (self.active,)
        if width < WIDE[0] or height < WIDE[1]:
            return (self._tab, "events")
        return PANES

    def lay_out(self) -> None:
        """Give every pane its place for this size."""
        shown = self.shown_panes()
        wide = shown == PANES
        self.set_class(wide, "-wide")
        for name in PANES:
            pane = self.pane(name)
            pane.display = name in shown
            pane.framed = self.size.width >= WIDE[0] and self.size.height >= LOW
            pane.active = name == self.active
        self.query_one("#upper").display = bool({"sessions", "rates"} & set(shown))
        self.query_one("#middle").display = bool({"alerts", "tiers"} & set(shown))
        tabs = self.query_one("#tabs", LineView)
        tabs.display = not wide

    def paint_content(self) -> None:
        """Draw what has a place."""
        self.lay_out()
        view = self.console_app.view
        tabs = self.query_one("#tabs", LineView)
        if tabs.display:
            tabs.show([self._tab_line(view)])
        draw: dict[str, Callable[[Pane, Snapshot], None]] = {
            "sessions": self._sessions, "rates": self._rates, "alerts": self._alerts,
            "tiers": self._tiers, "events": self._events,
        }  # fmt: skip
        for name in PANES:
            pane = self.pane(name)
            if pane.display or name in ("alerts", "sessions", "events"):
                draw[name](pane, view)

    def on_resized(self) -> None:
        """A pane has its new size only after the layout: what was built for the old one is built again."""
        self.call_after_refresh(self.paint)

    def _tab_line(self, view: Snapshot) -> Line:
        counts = {"sessions": f" {view.session_count:,}", "alerts": f" {view.alert_count:,}"}
        out: list[tuple[str, str]] = [(" ", "text")]
        short = self.size.width < 70
        for number, name in enumerate(PANES, 1):
            there = name in self.shown_panes()
            words = name.capitalize() if short else TITLES[name]
            if short and self.size.width < 60:
                words = words[:4]
            role = ("title-active" if name == self.active else "title") if there else "dim"
            out += [
                (f"{number}", "key"),
                (f" {words}{'' if short else counts.get(name, '')}", role),
                ("  ", "text"),
            ]
        return tuple(out)

    def _title(self, name: str, count: str = "", what: str = "") -> Line:
        head: list[tuple[str, str]] = [(TITLES[name], "title")]
        if count:
            head.append((f" {count}", "bold"))
        if what:
            head.append((f" ─ {what}", "dim"))
        return tuple(head)

    def _sessions(self, pane: Pane, view: Snapshot) -> None:
        rows = view.sessions
        title = self._title("sessions", f"{view.session_count:,}", "by rate")
        note: Line = ((f"busiest {len(rows)}", "dim"),) if view.session_count > len(rows) else ()
        body = Table(rows, SESSIONS, lambda row: row.ref, local=self.console_app.local)
        pane.present(body, title, note, "No session yet.")

    def _rates(self, pane: Pane, view: Snapshot) -> None:
        title = self._title("rates", "", "15 min")
        rows = rate_parts(view.rates, pane.inner_width, pane.rows)
        pane.present(Document(rows) if rows else EMPTY, title, (), "No call yet.")

    def _alerts(self, pane: Pane, view: Snapshot) -> None:
        rows = view.alerts
        title = self._title("alerts", f"{view.alert_count:,} open" if view.alert_count else "", "worst first")
        note: Line = ((f"first {len(rows)}", "dim"),) if view.alert_count > len(rows) else ()
        body = Table(rows, ALERTS, lambda row: row.id, local=self.console_app.local)
        pane.present(body, title, note, "No alerts. Watching.")

    def _tiers(self, pane: Pane, view: Snapshot) -> None:
        rows = tier_parts(view.tiers, pane.inner_width, pane.rows)
        pane.present(Document(rows) if rows else EMPTY, self._title("tiers"), (), "No call yet.")

    def _events(self, pane: Pane, view: Snapshot) -> None:
        app = self.console_app
        rows = self._sieve.pick(view.events) if self._sieve is not None and self.filter_on else view.events
        body = Table(rows, EVENTS, lambda row: row.seq, local=app.local)
        pane.present(body, self._events_title(len(rows), len(view.events)), (), self._nothing(view))
        pane.title(self._events_title(len(rows), len(view.events)), self._chip(pane, view))

    def _events_title(self, shown: int, known: int) -> Line:
        if self._sieve is None:
            return self._title("events")
        label = self._sieve.shown.label
        if not self.filter_on:
            return (*self._title("events"), (" ─ filter off: ", "dim"), (label, "dim"))
        return (
            *self._title("events"),
            (" ─ filter: ", "dim"),
            (label, "key"),
            (f" ({shown:,} of {known:,})", "dim"),
        )

    def _chip(self, pane: Pane, view: Snapshot) -> Line:
        """How many records came that are not on the screen."""
        app = self.console_app
        new = 0
        if app.frozen and app.live.events and view.events:
            new = app.live.events[-1].seq - view.events[-1].seq
        elif app.frozen:
            new = len(app.live.events)
        below = new + (0 if pane.follow else pane.below)
        if app.frozen:
            return ((f" frozen, {below:,} new below: f follows ", "chip"),)
        return () if pane.follow else ((f" {below:,} below: f follows ", "chip"),)

    def _nothing(self, view: Snapshot) -> SafeText:
        """Why there is no event to show."""
        if view.events:
            return safe("No record passes the filter.")
        waiting = [source.name for source in view.sources if source.state == "waiting"]
        return safe(f"Waiting for {waiting[0]} to appear." if waiting else "No record yet. Watching.")

    def targets(self) -> tuple[Target, ...]:
        """Those of the selected row of the active pane."""
        pane = self.pane(self.active)
        at = pane.selected
        body = pane.body
        if at is None or not isinstance(body, Table):
            return ()
        found: tuple[Target, ...] = body.rows[at].targets
        return found

    def incident_target(self) -> str | None:
        """The selected alert."""
        pane = self.pane("alerts")
        key = pane.body.key(pane.selected) if self.active == "alerts" and pane.selected is not None else None
        return key if isinstance(key, str) else None

    def text_lines(self) -> list[str]:
        """The selected row, or the whole pane where rows can't be selected."""
        pane = self.pane(self.active)
        width = max(pane.inner_width, 140)
        at = pane.selected
        rows = [at] if at is not None else range(len(pane.body))
        return ["".join(text for text, _ in pane.body.line(index, width)) for index in rows]

    def activate(self, name: str) -> None:
        """Make a pane the one that keys move in; in a small terminal this turns to its tab."""
        self.active = name
        if name != "events":
            self._tab = name
        self.paint_content()
        # a pane that had no place has no size before the next layout
        self.call_after_refresh(self.paint_content)

    def do_sessions(self) -> None:
        """Go to the pane."""
        self.activate("sessions")

    def do_rates(self) -> None:
        """Go to the pane."""
        self.activate("rates")

    def do_alerts(self) -> None:
        """Go to the pane."""
        self.activate("alerts")

    def do_tiers(self) -> None:
        """Go to the pane."""
        self.activate("tiers")

    def do_events(self) -> None:
        """Go to the pane."""
        self.activate("events")

    def do_next_pane(self) -> None:
        """The next one in order."""
        self.activate(PANES[(PANES.index(self.active) + 1) % len(PANES)])

    def do_previous_pane(self) -> None:
        """The one before."""
        self.activate(PANES[PANES.index(self.active) - 1])

    def do_zoom(self) -> None:
        """One pane, or all of them."""
        self.zoomed = not self.zoomed
        self.activate(self.active)

    def do_up(self) -> None:
        """One row up."""
        self._moved(lambda pane: pane.move(-1))

    def do_down(self) -> None:
        """One row down."""
        self._moved(lambda pane: pane.move(1))

    def do_page_up(self) -> None:
        """One page up."""
        self._moved(lambda pane: pane.page(-1))

    def do_page_down(self) -> None:
        """One page down."""
        self._moved(lambda pane: pane.page(1))

    def do_first(self) -> None:
        """The first row."""
        self._moved(lambda pane: pane.edge(last=False))

    def do_last(self) -> None:
        """The last row."""
        self._moved(lambda pane: pane.edge(last=True))

    def _moved(self, move: Callable[[Pane], None]) -> None:
        pane = self.pane(self.active)
        move(pane)
        if self.active == "events":
            self._events(pane, self.console_app.view)

    def do_next_alert(self) -> None:
        """The next alert, from any pane; the worst one at first."""
        self._alert(1)

    def do_previous_alert(self) -> None:
        """The alert before."""
        self._alert(-1)

    def _alert(self, direction: int) -> None:
        pane = self.pane("alerts")
        was = self.active
        self.activate("alerts")
        if not len(pane.body):
            return
        if not pane.chosen:
            pane.select(0)
        elif was == "alerts" and pane.selected is not None:
            pane.select((pane.selected + direction) % len(pane.body))

    def do_next_error(self) -> None:
        """The next record that failed."""
        self._error(1)

    def do_previous_error(self) -> None:
        """The one before."""
        self._error(-1)

    def _error(self, direction: int) -> None:
        self.activate("events")
        pane = self.pane("events")
        body = pane.body
        if not isinstance(body, Table) or pane.selected is None:
            return
        at = pane.selected + direction
        while 0 <= at < len(body) and body.rows[at].status not in _FAILURES:
            at += direction
        if 0 <= at < len(body):
            pane.select(at)
            self._events(pane, self.console_app.view)
        else:
            self.console_app.say("no further record that failed", "warn")

    def do_open(self) -> None:
        """Open the selected session, alert or record."""
        pane = self.pane(self.active)
        at = pane.selected
        kinds = {"sessions": "session", "alerts": "incident", "events": "record"}
        if at is not None and self.active in kinds:
            self.console_app.open_link((kinds[self.active], pane.body.key(at)))

    def do_back(self) -> None:
        """Leave zoom, else follow again, else clear the filter."""
        if self.zoomed:
            self.do_zoom()
        elif self.console_app.frozen or not self.pane("events").follow:
            self.do_freeze()
        elif self._sieve is not None:
            self.show_only(None)

    def do_freeze(self) -> None:
        """Freeze; frozen or scrolled back, follow again."""
        app = self.console_app
        pane = self.pane("events")
        if app.frozen or not pane.follow:
            app.frozen = False
            app.view = app.live
            pane.follow = True
        else:
            app.frozen = True
        self.paint()

    def show_only(self, shown: Shown | None) -> None:
        """Filter the events."""
        self._sieve = Sieve(shown) if shown is not None else None
        self.filter_on = shown is not None
        self.paint_content()

    def do_filter(self) -> None:
        """Open the prompt."""
        app = self.console_app
        text = self._sieve.shown.label if self._sieve is not None else ""
        self.prompt.ask(
            "filter",
            text,
            done=self._filter_done,
            check=filter_check,
            history=app.history,
            suggester=FilterSuggester(lambda: app.view),
        )

    def _filter_done(self, text: str) -> bool:
        try:
            self.show_only(from_text(text))
        except FilterError:
            return False
        return True

    def do_filter_toggle(self) -> None:
        """Off and on."""
        if self._sieve is None:
            self.console_app.say("there is no filter: / sets one", "warn")
            return
        self.filter_on = not self.filter_on
        self.paint_content()

    def do_go_to(self) -> None:
        """Ask for a time."""
        self.prompt.ask("go to", "", done=self._go_to_done, check=self._go_to_check)

    def _go_to(self, text: str) -> int:
        replay = self.console_app.live.replay
        return parse_go_to(text, replay.at_ns if replay is not None else 0, local=self.console_app.local)

    def _go_to_done(self, text: str) -> bool:
        player = self.console_app.player
        try:
            time_ns = self._go_to(text)
        except ValueError:
            return False
        if player is not None:
            player.seek(time_ns)
        return True

    def _go_to_check(self, text: str) -> Line:
        if not text:
            return (("03:14, 03:14:07, +5m, -90s, or 2026-11-20T03:14:07Z", "dim"),)
        try:
            self._go_to(text)
        except ValueError as error:
            return ((safe(error), "warn"),)
        return (("enter goes there", "dim"),)

    def on_prompt_hinted(self, event: Prompt.Hinted) -> None:
        """The hint stands in the footer."""
        event.stop()
        self.paint_header()

    def footer_line(self) -> Line:
        """While something is typed, what is wrong with it."""
        prompt = self.prompt
        if prompt.display:
            return ((" ", "text"), *prompt.hint)
        return super().footer_line()

    def on_click(self, event: events.Click) -> None:
        """Select the row that is clicked; a second click opens it."""
        pane = event.widget
        if not isinstance(pane, Pane) or pane.id is None:
            return
        row = pane.row_at(event.y)
        self.activate(pane.id)
        if row is not None:
            self._moved(lambda active: active.select(row))
            if event.chain == 2:
                self.do_open()


def filter_check(text: str) -> Line:
    """Where a filter goes wrong, as it is typed."""
    try:
        from_text(text)
    except FilterError as error:
        at = error.position
        return (
            (safe(text[max(0, at - 16) : at]), "dim"),
            (safe(text[at : at + 16]) or "_", "remove"),
            ("  " + safe(error), "warn"),
        )
    return (("tool: tier>= status: client: path: and or not ( )   tab completes, ↑ earlier ones", "dim"),)
