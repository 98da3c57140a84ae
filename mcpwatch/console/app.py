"""The Textual app: takes the newest snapshot, turns keys into named actions."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from rich.console import RenderableType
from rich.style import Style
from textual import events
from textual.app import App
from textual.binding import Binding, BindingsMap
from textual.command import Provider
from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver
from textual.filter import LineFilter
from textual.geometry import Size
from textual.screen import Screen
from textual.theme import Theme
from watchfiles import awatch

from mcpwatch.console.actions import ACTIONS, BY_ID, Action, key_sign, resolve_keys
from mcpwatch.console.clipboard import copy_lines
from mcpwatch.console.dialog import MAX_CHOICES, ChangeDialog, Dialog, choices, current_lockouts
from mcpwatch.console.exceptdialog import ExceptionDialog
from mcpwatch.console.filtering import History, from_target, from_text
from mcpwatch.console.lines import Line, Span
from mcpwatch.console.palette import ActionPalette, ActionProvider
from mcpwatch.console.screens.base import ConsoleScreen
from mcpwatch.console.screens.document import DocumentScreen
from mcpwatch.console.screens.help import HelpScreen
from mcpwatch.console.screens.incident import IncidentScreen
from mcpwatch.console.screens.main import MainScreen
from mcpwatch.console.screens.policy import PolicyScreen
from mcpwatch.console.screens.record import RecordScreen
from mcpwatch.console.screens.session import SessionScreen
from mcpwatch.console.screens.sources import SourcesScreen
from mcpwatch.console.terminal import SMALL, Leaver, usable_terminal
from mcpwatch.console.themes import build_styles, load_themes
from mcpwatch.console.timeline import next_speed
from mcpwatch.console.wall import PrintableOnly
from mcpwatch.console.wire import ThriftyDriver
from mcpwatch.data import shipped
from mcpwatch.filter import FilterError
from mcpwatch.response.plan import ResponseError, Target, Verb
from mcpwatch.snapshot import Feed, Player, Snapshot
from mcpwatch.text import safe

TICK_S: Final = 0.25
"""The view is drawn at most four times a second."""
SLOW_TICKS: Final = 4
"""Ticks between two pictures when nobody looks, or every byte counts."""
MESSAGE_S: Final = 8.0
"""How long a message stays when no key is pressed."""
_NO_TARGET: Final = {
    "revoke": "nothing to revoke here: select a session, an alert or a record with a key, client or session",
    "lock": "nothing to lock out here: select a row that has a key or an address",
    "unlock": "nobody here is locked out: select whom, or open the policy (p) for all",
    "disable": "no tool here: select an alert or a record of a tool call",
}
_VERBS: Final[Mapping[str, Verb]] = {"revoke": "revoke", "lock": "lock", "disable": "disable"}


class ConsoleError(Exception):
    """The console can't be drawn, or can't be drawn as asked. The message says why and what to do."""


class ConsoleApp(App[int], inherit_bindings=False):
    """The console. Draws the snapshots of a feed, and changes nothing without its dialog."""

    CSS = """
    Screen { background: $background; color: $foreground; }
    Dialog { background: $background 60%; }
    #upper, #middle { height: 5fr; }
    #upper Pane, #middle Pane { height: 100%; }
    #sessions, #alerts { width: 10fr; }
    #rates, #tiers { width: 7fr; }
    #events { height: 6fr; }
    .-wide #events { height: 8fr; }
    #document { height: 1fr; }
    """
    ENABLE_COMMAND_PALETTE = False
    ALLOW_SELECT = False
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {ActionProvider}
    TITLE = "mcpwatch"

    def __init__(
        self,
        feed: Feed,
        *,
        player: Player | None = None,
        theme: str | None = None,
        themes: Sequence[Path] = (),
        low_bandwidth: bool = False,
        utc: bool = True,
        filter_text: str = "",
        keymap: Mapping[str, str] | None = None,
        history_dir: Path | None = None,
    ) -> None:
        """Prepare a console.

        Args:
            feed: Where snapshots and details come from, and what changes go through.
            player: The controls, in a replay.
            theme: Name of the first theme.
            themes: Further folders of themes, over the shipped ones.
            low_bandwidth: One picture a second, the terminal's own colours.
            utc: Times in UTC; else in this machine's zone.
            filter_text: A filter to begin with.
            keymap: Keys by action id, over the default ones.
            history_dir: Where typed filters are kept; None forgets them.

        Raises:
            ConsoleError: There is no such theme, or the filter can't be understood.
        """
        self.role_styles: dict[str, Style] = {}
        # without colours, the terminal's own foreground and background are the theme
        plain = "NO_COLOR" in os.environ
        super().__init__(ansi_color=True if plain else None)
        self.use_command_palette = True
        self.animation_level = "none"
        self.plain = plain
        self.feed = feed
        self.player = player
        self.low_bandwidth = low_bandwidth
        self.local = not utc
        self.history = History(history_dir, "filters")
        self.live: Snapshot = feed.snapshot()
        self.view: Snapshot = self.live
        self.frozen = False
        self.message: Span | None = None
        self._message_until = 0.0
        self._ticks = 0
        self._painted_message: Span | None = None
        self._wall = PrintableOnly()
        try:
            self._first_filter = from_text(filter_text)
        except FilterError as error:
            raise ConsoleError(f"--filter: {safe(error)}") from None
        self.keys, self.problems = resolve_keys(keymap or {})
        self._bind_keys()
        self.theme_folders = [shipped("themes"), *themes]
        self.console_themes: dict[str, Theme] = {}
        self._load_themes()
        self._choose_theme("ansi" if plain or (low_bandwidth and theme is None) else theme or "dark")

    def _bind_keys(self) -> None:
        self._bindings = BindingsMap(
            Binding(self.keys[action.id], f"act('{action.id}')", action.label, show=False, id=action.id)
            for action in ACTIONS
        )
        self._bindings._add_binding(Binding("ctrl+c", "act('quit')", "quit", show=False))

    def _load_themes(self) -> None:
        found, problems = load_themes(self.theme_folders)
        for theme in found.values():
            self.register_theme(theme)
        self.console_themes = found
        self.problems += problems

    def _choose_theme(self, name: str) -> None:
        if name not in self.console_themes:
            known = ", ".join(self.console_themes)
            raise ConsoleError(f"there is no theme {safe(name, 40)!r}: choose one of {known}")
        self.role_styles = build_styles(self.console_themes[name], plain=self.plain)
        self.theme = name

    def get_default_screen(self) -> Screen[None]:
        """The main screen."""
        return MainScreen(self._first_filter)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """What Textual's own style sheet asks of a theme in the terminal's colours."""
        return {"ansi-background": "ansi_black", "ansi-foreground": "ansi_white"}

    def thaw(self) -> None:
        """Show the newest snapshot, unless the operator froze the view."""
        if not self.frozen:
            self.view = self.live

    def get_driver_class(self) -> type[Driver]:
        """On a real terminal, the driver that sends less."""
        usual = super().get_driver_class()
        return ThriftyDriver if usual is LinuxDriver else usual

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Textual's filters, and the second wall last."""
        return [*super().get_line_filters(), self._wall]

    def on_mount(self) -> None:
        """Begin to take snapshots, and watch the themes."""
        self.set_interval(TICK_S, self._tick)
        if self.problems:
            self.say(self.problems[0], "warn")
        folders = [folder for folder in self.theme_folders if folder.is_dir()]
        if folders and not self.is_headless:
            self.run_worker(self._watch_themes(folders), exit_on_error=False)

    async def _watch_themes(self, folders: Sequence[Path]) -> None:
        stop = asyncio.Event()
        try:
            async for _changes in awatch(*folders, stop_event=stop, rust_timeout=1_000):
                self.reload_themes()
        except (OSError, RuntimeError) as error:
            self.say(safe(f"themes are not watched: {error}"), "warn")
        finally:
            stop.set()

    def reload_themes(self) -> None:
        """Read the themes again, and draw with the current one as it is now."""
        self.problems = []
        self._load_themes()
        if self.theme in self.console_themes:
            self.role_styles = build_styles(self.console_themes[self.theme], plain=self.plain)
            self._watch_theme(self.theme)
            self._repaint()
        self.say(
            self.problems[0] if self.problems else "themes read again", "warn" if self.problems else "ok"
        )

    def _tick(self) -> None:
        self._ticks += 1
        if self.message is not None and asyncio.get_running_loop().time() > self._message_until:
            self._quiet()
        slow = self.low_bandwidth or not self.app_focus
        if not slow or self._ticks % SLOW_TICKS == 0:
            self.pull()

    def pull(self) -> None:
        """Take the newest snapshot and draw it; nothing happens where nothing is new."""
        live = self.feed.snapshot()
        if live.version == self.live.version:
            return
        self.live = live
        dialog = isinstance(self.screen, Dialog)
        if not dialog:
            self.thaw()
        for screen in self.screen_stack:
            if isinstance(screen, Dialog):
                screen.paint()
            elif isinstance(screen, ConsoleScreen):
                self._paint_one(screen)

    def _paint_one(self, screen: ConsoleScreen) -> None:
        top: Screen[object] = self.screen
        if screen is top:
            screen.paint()
        elif top.is_modal:
            # the view below a dialog stands still, its header does not
            screen.paint_header()

    def _repaint(self) -> None:
        for screen in self.screen_stack:
            screen.refresh()
            for widget in screen.walk_children():
                widget.refresh()

    def on_driver_signal_resume(self) -> None:
        """Stopped and continued: nothing of the picture is left on the terminal."""
        self.call_after_refresh(self._repaint)

    def say(self, text: str, role: str = "text") -> None:
        """Show a message in the footer until the next key."""
        self.message = (safe(text, 400), role)
        self._message_until = asyncio.get_running_loop().time() + MESSAGE_S
        self._paint_footer()

    def _quiet(self) -> None:
        if self.message is not None:
            self.message = None
            self._paint_footer()

    def _paint_footer(self) -> None:
        if self.screen_stack and isinstance(self.screen, ConsoleScreen):
            self.screen.paint_header()

    def size_notice(self, size: Size) -> list[Line]:
        """A banner in a terminal that is too small for everything."""
        if size.width >= SMALL[0] and size.height >= SMALL[1]:
            return []
        words = f" {size.width}x{size.height}: best from {SMALL[0]}x{SMALL[1]}; 1-5 turn pages"
        return [((words, "dim"),)]

    def available(self) -> list[Action]:
        """The actions that make sense here."""
        where = {"both", "replay" if self.player is not None else "live"}
        return [action for action in ACTIONS if action.where in where]

    def hints(self, wanted: Sequence[str]) -> list[tuple[str, str]]:
        """Key and label of these actions, for the footer."""
        if self.player is not None and isinstance(self.screen, MainScreen):
            wanted = MainScreen.REPLAY_HINTS
        here = {action.id for action in self.available()}
        return [(key_sign(self.keys[name]), BY_ID[name].label) for name in wanted if name in here]

    async def on_event(self, event: events.Event) -> None:
        """Drop what was typed before a dialog could be read; anything typed ends a message."""
        if isinstance(event, events.Key | events.Paste):
            # a key that was sent to the screen below comes back here when the dialog is already open
            screen = self.screen if self.screen_stack else None
            if isinstance(screen, Dialog) and screen.too_early(event):
                return
            if not event.is_forwarded:
                self._quiet()
        await super().on_event(event)

    def later(self, name: str) -> Callable[[], None]:
        """A call of an action, for the palette."""
        return lambda: self.action_act(name)

    def action_act(self, name: str) -> None:
        """Do an action of the table: the screen's own way, else the app's, else the main screen's."""
        action = BY_ID[name]
        if action not in self.available():
            where = "while a log is replayed" if action.where == "replay" else "on live logs"
            self.say(f"{action.label}: only {where}", "warn")
            return
        screen = self.screen
        if not screen.is_mounted:
            # keys can be faster than a screen that is just being opened
            self.call_later(self.action_act, name)
            return
        own = getattr(screen, f"do_{name}", None) or getattr(self, f"do_{name}", None)
        if own is None and hasattr(MainScreen, f"do_{name}"):
            self._to_main()
            own = getattr(self.screen, f"do_{name}")
        if own is not None:
            own()

    def _to_main(self) -> MainScreen:
        while len(self.screen_stack) > 1:
            self.pop_screen()
        main = self.screen
        assert isinstance(main, MainScreen)
        main.paint()
        return main

    def open_link(self, link: tuple[object, Hashable]) -> None:
        """Open a record, an incident or a session."""
        kind, name = link
        if kind == "record" and isinstance(name, int):
            self.push_screen(RecordScreen(name))
        elif kind == "incident" and isinstance(name, str):
            self.push_screen(IncidentScreen(name))
        elif kind == "session" and isinstance(name, str):
            self.push_screen(SessionScreen(name))

    def close_screen(self, screen: Screen[Any]) -> None:
        """Close a screen, unless it is closed already: an event of one that is gone may still be on its way."""
        if self.screen is screen and len(self.screen_stack) > 1:
            self.pop_screen()

    def _open_once(self, kind: type[DocumentScreen]) -> None:
        if not isinstance(self.screen, kind):
            self.push_screen(kind())

    def do_help(self) -> None:
        """Every key."""
        self._open_once(HelpScreen)

    def do_policy(self) -> None:
        """The policy."""
        self._open_once(PolicyScreen)

    def do_sources(self) -> None:
        """The logs."""
        self._open_once(SourcesScreen)

    def do_palette(self) -> None:
        """Find an action by name."""
        if self.size.width < 40 or self.size.height < 12:
            self.say("too small here for the palette; ? lists the keys", "warn")
        elif not isinstance(self.screen, ActionPalette):
            self.push_screen(ActionPalette(placeholder="What to do"))

    def do_quit(self) -> None:
        """Leave."""
        self.exit(0)

    def do_theme(self) -> None:
        """The next theme."""
        names = sorted(self.console_themes)
        at = names.index(self.theme) if self.theme in names else -1
        name = names[(at + 1) % len(names)]
        self._choose_theme(name)
        self._repaint()
        self.say(f"theme {name}", "text")

    def do_utc(self) -> None:
        """UTC, or this machine's zone."""
        self.local = not self.local
        if isinstance(self.screen, ConsoleScreen):
            self.screen.paint()
        self.say("times in this machine's zone" if self.local else "times in UTC")

    def do_copy(self) -> None:
        """Copy the selection."""
        lines = self.screen.text_lines() if isinstance(self.screen, ConsoleScreen) else []
        if lines:
            self.say(copy_lines(lines, self.copy_to_clipboard))
        else:
            self.say("nothing is selected to be copied", "warn")

    def do_same_session(self) -> None:
        """Only the records of the selected row's session."""
        target = self.screen.session_target() if isinstance(self.screen, ConsoleScreen) else None
        if target is None:
            self.say("select a session, an alert or a record first", "warn")
            return
        main = self._to_main()
        main.show_only(from_target(target))
        main.activate("events")

    def do_revoke(self) -> None:
        """Ask to revoke."""
        self._change("revoke")

    def do_lock(self) -> None:
        """Ask to lock out."""
        self._change("lock")

    def do_unlock(self) -> None:
        """Ask to end a lockout: of whom the row is about; on the policy screen, any."""
        if self._changes_off():
            return
        locked = self.live.policy.lockouts
        if not isinstance(self.screen, PolicyScreen):
            targets = self.screen.targets() if isinstance(self.screen, ConsoleScreen) else ()
            locked = current_lockouts(locked, targets)
        if locked:
            self.push_screen(ChangeDialog("unlock", locked[:MAX_CHOICES]))
        else:
            self.say(_NO_TARGET["unlock"], "warn")

    def do_disable(self) -> None:
        """Ask to disable the tool."""
        self._change("disable")

    def do_except(self) -> None:
        """Ask what the rule of the selected incident is not about."""
        incident = self.screen.incident_target() if isinstance(self.screen, ConsoleScreen) else None
        if incident is None:
            self.say("select an alert first: an exception is made of what a rule found", "warn")
            return
        try:
            self.push_screen(ExceptionDialog(incident, self.feed.exceptions(incident)))
        except ResponseError as error:
            self.say(f"no exception: {safe(error)}", "warn")

    def do_undo(self) -> None:
        """Ask to take the newest change back."""
        if self._changes_off():
            return
        self.push_screen(ChangeDialog(None, ()))

    def _change(self, name: str) -> None:
        if self._changes_off():
            return
        targets: tuple[Target, ...] = self.screen.targets() if isinstance(self.screen, ConsoleScreen) else ()
        options = choices(_VERBS[name], targets)
        if not options:
            self.say(_NO_TARGET[name], "warn")
            return
        self.push_screen(ChangeDialog(_VERBS[name], options))

    def _changes_off(self) -> bool:
        why = self.live.policy.changes_off
        if why is not None:
            self.say(f"changes are off: {why}", "warn")
        return why is not None

    def do_play(self) -> None:
        """Play or pause."""
        self._play(lambda player: player.toggle())

    def do_step(self) -> None:
        """One record on."""
        self._play(lambda player: player.step(1))

    def do_step_back(self) -> None:
        """One record back."""
        self._play(lambda player: player.step(-1))

    def do_faster(self) -> None:
        """The next speed."""
        self._speed(1)

    def do_slower(self) -> None:
        """The speed before."""
        self._speed(-1)

    def _speed(self, direction: int) -> None:
        replay = self.live.replay
        if replay is not None:
            self._play(lambda player: player.set_speed(next_speed(replay.speed, direction)))

    def do_next_incident(self) -> None:
        """To the next incident."""
        self._play(lambda player: player.next_incident(1))

    def do_previous_incident(self) -> None:
        """To the incident before."""
        self._play(lambda player: player.next_incident(-1))

    def _play(self, call: Callable[[Player], None]) -> None:
        if self.player is not None:
            call(self.player)
            self.pull()

    def _set_pointer_shape(self, shape: str) -> None:
        # a sequence that few terminals know, sent whenever something moves below the mouse
        return

    def _fatal_error(self) -> None:
        # Textual's own report prints the values of variables, which hold log text, to the terminal: whoever runs
        # the console tells of the fault, once the terminal is given back
        self._close_messages_no_wait()

    def panic(self, *_renderables: RenderableType) -> None:
        """End with a fault, printing nothing of it."""
        self._close_messages_no_wait()


def run_console(
    feed: Feed,
    *,
    player: Player | None = None,
    theme: str | None = None,
    themes: Sequence[Path] = (),
    low_bandwidth: bool = False,
    utc: bool = True,
    filter_text: str = "",
    keymap: Mapping[str, str] | None = None,
    history_dir: Path | None = None,
    mouse: bool = True,
) -> int:
    """Draw the console until the operator leaves.

    Returns:
        Exit code.

    Raises:
        ConsoleError: There is no terminal to draw on, no such theme, or the filter can't be understood.
        Exception: A fault of the console itself; the terminal is given back then.
    """
    problem = usable_terminal()
    if problem is not None:
        raise ConsoleError(problem)
    app = ConsoleApp(
        feed,
        player=player,
        theme=theme,
        themes=themes,
        low_bandwidth=low_bandwidth,
        utc=utc,
        filter_text=filter_text,
        keymap=keymap,
        history_dir=history_dir,
    )
    leaver = Leaver(lambda: _leave(app))
    leaver.start()
    try:
        app.run(mouse=mouse)
    finally:
        leaver.stop()
    if app._exception is not None:
        raise app._exception
    return app.return_code or 0


def _leave(app: ConsoleApp) -> None:
    """Ask the app to exit, from another thread."""
    loop = app._loop
    if loop is not None and not loop.is_closed():
        loop.call_soon_threadsafe(app.exit, 0)
