"""The console through its keys: what is typed, and what then stands on the screen."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from textual import events
from textual.command import CommandPalette
from textual.geometry import Region
from textual.keys import _character_to_key
from textual.pilot import Pilot

from mcpwatch.console import ConsoleApp, ConsoleError
from mcpwatch.console.actions import ACTIONS, FORBIDDEN, SIGNS, key_sign, resolve_keys
from mcpwatch.console.dialog import ChangeDialog
from mcpwatch.console.exceptdialog import ExceptionDialog
from mcpwatch.console.screens.document import DocumentScreen
from mcpwatch.console.screens.help import HelpScreen
from mcpwatch.console.screens.incident import IncidentScreen
from mcpwatch.console.screens.main import PANES, MainScreen
from mcpwatch.console.screens.policy import PolicyScreen
from mcpwatch.console.screens.record import RecordScreen
from mcpwatch.console.screens.session import SessionScreen
from mcpwatch.console.screens.sources import SourcesScreen
from mcpwatch.console.themes import ROLES
from mcpwatch.console.view import LineView
from mcpwatch.response.plan import Target
from mcpwatch.text import safe
from mcpwatch.times import MINUTE, SECOND
from tests.functional.console_feed import START, FakeFeed, FakePlayer

SIZES = [(80, 24), (120, 40)]


def screen_text(app: ConsoleApp) -> str:
    """What stands on the screen."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips(app.size))


def key_event(key: str) -> events.Key:
    """The event of a key, by its name or its character."""
    return events.Key(_character_to_key(key), key) if len(key) == 1 else events.Key(key, key_character(key))


def key_character(key: str) -> str | None:
    """What the key types, if anything."""
    sign = SIGNS.get(key, "")
    return " " if key == "space" else sign if len(sign) == 1 and sign.isascii() else None


async def type_keys(pilot: Pilot[int], *keys: str) -> None:
    """Type texts as fast as they come, wait after every other key, and let the console come to rest."""
    await pilot.pause()
    for key in keys:
        pilot.app.post_message(key_event(key))
        if pilot.app.focused is None or len(key) > 1:
            await pilot.pause()
    await pilot.pause()
    await pilot.pause(0.05)
    await pilot.pause()


async def tick(pilot: Pilot[int], feed: FakeFeed, count: int) -> None:
    feed.tick(count)
    app = pilot.app
    assert isinstance(app, ConsoleApp)
    app.pull()
    await pilot.pause()


def main_screen(app: ConsoleApp) -> MainScreen:
    screen = app.screen
    assert isinstance(screen, MainScreen)
    return screen


@pytest.mark.parametrize("size", SIZES)
async def test_the_main_screen_answers_without_a_key(size: tuple[int, int]) -> None:
    """Live and complete? What is wrong, worst first? Who? In force? All of it at once, in both sizes."""
    app = ConsoleApp(FakeFeed())
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        text = screen_text(app)
        for word in ("LIVE", "audit.jsonl", "412/s", "lag 0.3 s", "not understood 3", "2 revoked", "CRIT",
                     "enforcement-gap", "key_0007", "NOT IN FORCE", "Events", "next alert"):  # fmt: skip
            assert word in text, word
        rules = [row.rule for row in app.live.alerts]
        places = [text.index(rule[:14]) for rule in rules[:4]]
        assert places == sorted(places)


async def test_every_pane_is_side_by_side_when_there_is_room_and_a_tab_when_not() -> None:
    """Nothing is lost at 80x24: each pane can be turned to by its number."""
    for size in SIZES:
        app = ConsoleApp(FakeFeed())
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            signs = {"1": "TREND", "2": "median", "3": "enforcement-gap", "4": "66%", "5": "DETAIL"}
            if size == (120, 40):
                assert all(sign in screen_text(app) for sign in signs.values())
            for key, sign in signs.items():
                await type_keys(pilot, key)
                await pilot.pause()
                assert sign in screen_text(app), (size, key)
                assert main_screen(app).active == PANES[int(key) - 1]


@pytest.mark.parametrize("size", [(79, 23), (60, 15), (40, 10), (20, 5), (10, 3)])
async def test_a_small_terminal_is_told_and_nothing_breaks(size: tuple[int, int]) -> None:
    """Below 80x24 the console says so and goes on, on every screen."""
    app = ConsoleApp(FakeFeed())
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        if size[0] >= 40:
            assert f"{size[0]}x{size[1]}" in screen_text(app)
        await type_keys(pilot, *"12345z", "enter", "escape", "question_mark", "escape", "p", "escape", "s")
        await type_keys(pilot, "escape", "3", "r")
        assert isinstance(app.screen, ChangeDialog)


async def test_the_terminal_may_change_its_size_at_any_time() -> None:
    """Shrinking and growing draw the whole screen again."""
    app = ConsoleApp(FakeFeed())
    async with app.run_test(size=(120, 40)) as pilot:
        for size in ((40, 10), (200, 60), (80, 24), (120, 40)):
            await pilot.resize_terminal(*size)
            await pilot.pause(0.05)
            await pilot.pause()
        assert "TREND" in screen_text(app) and "Risk tiers" in screen_text(app)


async def test_the_empty_console_is_friendly() -> None:
    """Empty panes say what is going on."""
    app = ConsoleApp(FakeFeed(empty=True))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        text = screen_text(app)
        assert "No alerts. Watching." in text
        assert "Waiting for audit.jsonl to appear." in text
        assert "WAITING" in text and "LIVE" not in text
        await type_keys(pilot, "a", "e", "enter", "o", "r", "up", "down", "y")
        assert isinstance(app.screen, MainScreen)


DONE: dict[str, Callable[[ConsoleApp], bool]] = {
    "sessions": lambda app: main_screen(app).active == "sessions",
    "rates": lambda app: main_screen(app).active == "rates",
    "alerts": lambda app: main_screen(app).active == "alerts",
    "tiers": lambda app: main_screen(app).active == "tiers",
    "events": lambda app: main_screen(app).active == "events",
    "next_pane": lambda app: main_screen(app).active == "tiers",
    "previous_pane": lambda app: main_screen(app).active == "rates",
    "next_alert": lambda app: main_screen(app).pane("alerts").chosen,
    "previous_alert": lambda app: main_screen(app).pane("alerts").chosen,
    "next_error": lambda app: app.message is not None,
    "previous_error": lambda app: not main_screen(app).pane("events").follow,
    "up": lambda app: main_screen(app).pane("alerts").selected == 0,
    "down": lambda app: main_screen(app).pane("alerts").selected == 1,
    "page_up": lambda app: main_screen(app).pane("alerts").selected == 0,
    "page_down": lambda app: main_screen(app).pane("alerts").selected == 6,
    "first": lambda app: main_screen(app).pane("alerts").selected == 0,
    "last": lambda app: main_screen(app).pane("alerts").selected == 6,
    "open": lambda app: isinstance(app.screen, IncidentScreen),
    "back": lambda app: isinstance(app.screen, MainScreen),
    "freeze": lambda app: app.frozen,
    "filter": lambda app: main_screen(app).prompt.display,
    "filter_toggle": lambda app: app.message is not None,
    "same_session": lambda app: "filter: session:" in screen_text(app),
    "zoom": lambda app: main_screen(app).shown_panes() == ("alerts",),
    "policy": lambda app: isinstance(app.screen, PolicyScreen),
    "sources": lambda app: isinstance(app.screen, SourcesScreen),
    "copy": lambda app: "enforcement-gap" in app.clipboard,
    "revoke": lambda app: isinstance(app.screen, ChangeDialog) and app.screen.verb == "revoke",
    "lock": lambda app: isinstance(app.screen, ChangeDialog) and app.screen.verb == "lock",
    "unlock": lambda app: app.message is not None and "nobody here is locked out" in app.message[0],
    "disable": lambda app: isinstance(app.screen, ChangeDialog) and app.screen.verb == "disable",
    "except": lambda app: isinstance(app.screen, ExceptionDialog),
    "undo": lambda app: isinstance(app.screen, ChangeDialog) and app.screen.verb is None,
    "play": lambda app: asked(app) == ("toggle", 0),
    "step": lambda app: asked(app) == ("step", 1),
    "step_back": lambda app: asked(app) == ("step", -1),
    "faster": lambda app: asked(app) == ("speed", 60.0),
    "slower": lambda app: asked(app) == ("speed", 5.0),
    "next_incident": lambda app: asked(app) == ("incident", 1),
    "previous_incident": lambda app: asked(app) == ("incident", -1),
    "go_to": lambda app: main_screen(app).prompt.display,
    "theme": lambda app: app.theme == "high-contrast",
    "utc": lambda app: app.local,
    "palette": lambda app: isinstance(app.screen, CommandPalette),
    "help": lambda app: isinstance(app.screen, HelpScreen),
    "quit": lambda app: app._exit,
}
"""What every action does, seen from outside, when its key is pressed on the main screen."""


def asked(app: ConsoleApp) -> tuple[str, float]:
    player = app.player
    assert isinstance(player, FakePlayer)
    return player.calls[-1]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.id)
async def test_every_action_does_what_it_says_by_its_key(action: object) -> None:
    """No row of the table is dead, and none is without a test."""
    row = next(each for each in ACTIONS if each is action)
    replay = row.where == "replay"
    app = ConsoleApp(FakeFeed(replay=replay), player=FakePlayer() if replay else None)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        await type_keys(pilot, row.key)
        await pilot.pause()
        assert DONE[row.id](app)


async def test_every_action_stands_in_the_help_with_its_key() -> None:
    """The help screen is made of the table."""
    app = ConsoleApp(FakeFeed(), keymap={"revoke": "R"})
    async with app.run_test(size=(120, 120)) as pilot:
        await type_keys(pilot, "question_mark")
        text = screen_text(app)
        for action in ACTIONS:
            key = "R" if action.id == "revoke" else key_sign(action.key)
            assert f"{key}  {action.label} " in text, action.id
        assert "tool:shell_execute" in text


async def test_the_palette_finds_an_action_and_does_it() -> None:
    """The palette is fed from the table, too."""
    app = ConsoleApp(FakeFeed())
    async with app.run_test(size=(120, 40)) as pilot:
        await type_keys(pilot, "colon", *"the logs")
        await pilot.pause(0.4)
        await type_keys(pilot, "enter")
        await pilot.pause(0.2)
        assert isinstance(app.screen, SourcesScreen)


def test_the_table_has_no_forbidden_key_no_clash_and_one_dialog_for_every_change() -> None:
    """Nothing on keys of tmux, vim or flow control; nothing changes anything in a replay."""
    keys, problems = resolve_keys({})
    assert not problems
    assert len(set(keys.values())) == len(ACTIONS) == len({action.id for action in ACTIONS})
    assert not FORBIDDEN & set(keys.values())
    assert {action.id for action in ACTIONS if action.changes} == {
        "revoke", "lock", "unlock", "disable", "undo",
    }  # fmt: skip
    assert all(action.where == "live" for action in ACTIONS if action.changes)


@pytest.mark.parametrize(
    ("keymap", "problem"),
    [
        ({"revok": "x"}, "no action"),
        ({"revoke": "ctrl+s"}, "can't be used"),
        ({"revoke": "ctrl+backslash"}, "can't be used"),
        ({"revoke": "q"}, "wanted by revoke and quit"),
        ({"revoke": "ä"}, "is no key"),
        ({"revoke": "\x1b"}, "is no key"),
    ],
)
def test_a_key_that_can_not_be_used_is_reported_and_the_default_stays(
    keymap: dict[str, str], problem: str
) -> None:
    """A broken key map never leaves an action without a key, or a key with two."""
    keys, problems = resolve_keys(keymap)
    assert keys["revoke"] == "r" and keys["quit"] == "q"
    assert len(problems) == 1 and problem in problems[0] and problems[0].isprintable()


def test_keys_can_be_swapped() -> None:
    """Two actions may exchange their keys."""
    keys, problems = resolve_keys({"revoke": "l", "lock": "r"})
    assert not problems and keys["revoke"] == "l" and keys["lock"] == "r"


async def test_a_frozen_view_stands_still_under_a_live_header() -> None:
    """Freezing stops the view only; a chip counts what is below; f follows again."""
    feed = FakeFeed()
    app = ConsoleApp(feed)
    async with app.run_test(size=(120, 40)) as pilot:
        await type_keys(pilot, "f")
        before = main_screen(app).pane("events").drawn_text()
        await tick(pilot, feed, 7)
        after = main_screen(app).pane("events").drawn_text()
        assert before[1:] == after[1:]
        text = screen_text(app)
        assert "7 new below" in text and "FROZEN" in text and "1,204,398" in text
        await type_keys(pilot, "f")
        assert "new below" not in screen_text(app)
        assert main_screen(app).pane("events").drawn_text() != after


async def test_any_move_up_leaves_follow_mode_and_the_rows_stay_where_they_are() -> None:
    """Nobody has to chase a row that scrolls away."""
    feed = FakeFeed()
    for way in ("up", "pageup", "home"):
        app = ConsoleApp(feed)
        async with app.run_test(size=(120, 40)) as pilot:
            await type_keys(pilot, "5", way)
            rows = main_screen(app).pane("events").drawn_text()[2:-1]
            await tick(pilot, feed, 9)
            assert main_screen(app).pane("events").drawn_text()[2:-1] == rows
            assert "below: f follows" in screen_text(app)
            await type_keys(pilot, "end")
            assert "below" not in screen_text(app)
            assert main_screen(app).pane("events").follow


async def test_the_wheel_scrolls_and_a_click_selects() -> None:
    """The mouse works: wheel up leaves follow mode, a click selects, a second one opens."""
    app = ConsoleApp(FakeFeed())
    async with app.run_test(size=(120, 40)) as pilot:
        pane = main_screen(app).pane("events")
        await pilot._post_mouse_events([events.MouseScrollUp], pane, button=0)
        await pilot.pause()
        assert not pane.follow
        await pilot.click("#alerts", offset=(10, 4))
        await pilot.pause()
        alerts = main_screen(app).pane("alerts")
        assert alerts.selected == 2
        await pilot.click("#alerts", offset=(10, 4), times=2)
        await pilot.pause()
        assert isinstance(app.screen, IncidentScreen)


async def test_the_cursor_stays_on_its_row_when_rows_move() -> None:
    """A session that overtakes another takes no cursor away: what is revoked is what was selected."""
    feed = FakeFeed()
    app = ConsoleApp(feed)
    async with app.run_test(size=(120, 40)) as pilot:
        await type_keys(pilot, "1", "down", "down")
        chosen = main_screen(app).targets()
        for _ in range(6):
            await tick(pilot, feed, 20)
            assert main_screen(app).targets() == chosen


async def test_a_filter_shows_only_what_matches_and_switches_off_and_on() -> None:
    """A filter is a view: the counters do not change."""
    app = ConsoleApp(FakeFeed())
    async with app.run_test(size=(120, 40)) as pilot:
        await type_keys(pilot, "slash", *"tool:shell_execute", "enter")
        rows = [line for line in main_screen(app).pane("events").drawn_text()[2:-1] if line.strip("│ ")]
        assert rows and all("shell_execute" in line for line in rows)
        assert "filter: tool:shell_execute" in screen_text(app)
        await type_keys(pilot, "backslash")
        assert "filter off" in screen_text(app)
        assert any("datetime" in line for line in main_screen(app).pane("events").drawn_text())
        await type_keys(pilot, "backslash")
        assert not any("datetime" in line for line in main_screen(app).pane("events").drawn_text())
        await type_keys(pilot, "escape")
        assert "filter" not in main_screen(app).pane("events").drawn_text()[0]


async def test_a_wrong_filter_says_where_and_changes_nothing() -> None:
    """The error stands in the footer while it is typed; enter does not take it."""
    app = ConsoleApp(FakeFeed())
    async with app.run_test(size=(80, 24)) as pilot:
        await type_keys(pilot, "slash", *"tool:x )")
        assert "at 8" in screen_text(app)
        await type_keys(pilot, "enter")
        assert main_screen(app).prompt.display
        await type_keys(pilot, "escape")
        assert not main_screen(app).prompt.display
        assert "filter:" not in screen_text(app)


async def test_a_filter_is_completed_and_remembered(tmp_path: Path) -> None:
    """Tab completes; the next console finds the filter with the arrow up."""
    app = ConsoleApp(FakeFeed(), history_dir=tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await type_keys(pilot, "slash", *"tool:shell")
        await pilot.pause(0.1)
        await type_keys(pilot, "tab", "enter")
        assert "filter: tool:shell_execute" in screen_text(app)
    again = ConsoleApp(FakeFeed(), history_dir=tmp_path)
    async with again.run_test(size=(120, 40)) as pilot:
        await type_keys(pilot, "slash", "up", "enter")
        assert "filter: tool:shell_execute" in screen_text(again)


async def test_only_the_records_of_one_session_are_shown_whatever_its_id() -> None:
    """The id is compared, never parsed: a hostile one filters as any other."""
    feed = FakeFeed(hostile=True)
    odd = '") or tool:* or ("'
    assert feed.events
    feed.events = [
        replace(row, facts=msgspec.structs.replace(row.facts, session_id=odd), targets=(
            Target("session", odd),))
        if row.seq % 3 == 0 else row for row in feed.events
    ]  # fmt: skip
    app = ConsoleApp(feed)
    async with app.run_test(size=(120, 40)) as pilot:
        await type_keys(pilot, "5", "o")
        assert app.view.events[-1].seq % 3 == 0
        pane = main_screen(app).pane("events")
        assert len(pane.body) == len([row for row in feed.events if row.facts.session_id == odd])


async def test_every_row_opens_and_every_view_leads_back() -> None:
    """Session, incident, record; from an incident to its evidence; escape goes back one by one."""
    app = ConsoleApp(FakeFeed())
    async with app.run_test(size=(120, 40)) as pilot:
        for key, kind in (("1", SessionScreen), ("3", IncidentScreen), ("5", RecordScreen)):
            await type_keys(pilot, key, "enter")
            assert isinstance(app.screen, kind)
            await type_keys(pilot, "escape")
            assert isinstance(app.screen, MainScreen)
        await type_keys(pilot, "3", "enter", "down", "enter")
        assert isinstance(app.screen, RecordScreen)
        assert "violation" in screen_text(app) and "audit.jsonl:1202" in screen_text(app)
        await type_keys(pilot, "escape")
        text = screen_text(app)
        for word in ("why", "A revoked key still works", "limit", "Evidence", "What to do", "INC-"):
            assert word in text
        await type_keys(pilot, "a")
        assert "File access outside" in screen_text(app)


async def test_the_first_press_chooses_the_worst_alert_and_the_next_ones_go_round() -> None:
    """At 3 a.m. the first key must land on what is worst, whatever came in before it was pressed."""
    app = ConsoleApp(FakeFeed())
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        pane = main_screen(app).pane("alerts")
        picked = []
        for key in ("a", "a", "A", "A"):
            await type_keys(pilot, key)
            picked.append(pane.selected)
        assert picked == [0, 1, 0, len(pane.body) - 1]


async def test_a_long_document_can_be_read_to_its_end() -> None:
    """Every line of the help can be scrolled to in a small terminal."""
    app = ConsoleApp(FakeFeed())
    async with app.run_test(size=(80, 24)) as pilot:
        await type_keys(pilot, "question_mark")
        seen = screen_text(app)
        for _ in range(12):
            await type_keys(pilot, "pagedown")
            seen += screen_text(app)
        assert all(action.help[:30] in seen for action in ACTIONS)
        screen = app.screen
        assert isinstance(screen, DocumentScreen) and screen.pane.below == 0


async def test_actions_of_the_main_screen_work_from_every_other() -> None:
    """`/` in an opened incident goes back and asks for a filter; so does every pane's number."""
    app = ConsoleApp(FakeFeed())
    async with app.run_test(size=(120, 40)) as pilot:
        await type_keys(pilot, "p", "s", "question_mark", "slash")
        assert main_screen(app).prompt.display
        await type_keys(pilot, "escape", "p", "2")
        assert main_screen(app).active == "rates"


async def test_replay_keys_say_why_they_do_nothing_on_live_logs_and_changes_in_a_replay() -> None:
    """A key that has no sense here says so."""
    app = ConsoleApp(FakeFeed())
    async with app.run_test(size=(80, 24)) as pilot:
        await type_keys(pilot, "space")
        assert "only while a log is replayed" in screen_text(app)
    app = ConsoleApp(FakeFeed(replay=True), player=FakePlayer())
    async with app.run_test(size=(80, 24)) as pilot:
        await type_keys(pilot, "r")
        assert isinstance(app.screen, MainScreen)
        assert "only on live logs" in screen_text(app)


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("+5m", START + 5 * MINUTE),
        ("-90s", START - 90 * SECOND),
        ("00:30", START // (86_400 * SECOND) * 86_400 * SECOND + 30 * MINUTE),
        ("2026-11-20T08:00:05Z", 1_795_161_605 * SECOND),
    ],
)
async def test_a_replay_goes_where_it_is_told(typed: str, wanted: int) -> None:
    """The timeline shows where the replay stands, with the marks of the incidents."""
    player = FakePlayer()
    app = ConsoleApp(FakeFeed(replay=True), player=player)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        text = screen_text(app)
        assert "REPLAY" in text and "playing" in text and "10x" in text
        bar = next(line for line in text.splitlines() if "●" in line and "━" in line)
        assert bar.index("H") < bar.index("●") < bar.index("C")
        await type_keys(pilot, "g", *typed, "enter")
        assert player.calls == [("seek", wanted)]


async def test_a_time_that_is_none_goes_nowhere() -> None:
    """The prompt stays open and says what to write."""
    player = FakePlayer()
    app = ConsoleApp(FakeFeed(replay=True), player=player)
    async with app.run_test(size=(120, 40)) as pilot:
        await type_keys(pilot, "g", *"soon", "enter")
        assert player.calls == [] and main_screen(app).prompt.display
        assert "write a time as 03:14" in screen_text(app)


async def test_copying_says_what_it_did_and_long_texts_go_to_a_private_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At most 8 kB go to the terminal's clipboard."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    feed = FakeFeed()
    app = ConsoleApp(feed)
    async with app.run_test(size=(120, 40)) as pilot:
        await type_keys(pilot, "y")
        assert "clipboard (OSC 52" in screen_text(app)
        feed.tick(2_000)
        await type_keys(pilot, "1", "enter", "y")
        assert "too long for the clipboard" in screen_text(app)
        files = list(tmp_path.iterdir())
        assert len(files) == 1 and stat.S_IMODE(files[0].stat().st_mode) == 0o600
        assert files[0].stat().st_size > 8_192


async def test_themes_change_reload_and_a_broken_one_is_named(tmp_path: Path) -> None:
    """A theme file that is edited shows at once; a broken one is skipped by name."""
    good = (Path(__file__).parents[2] / "themes" / "dark.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(good.replace("name: dark", "name: mine"))
    app = ConsoleApp(FakeFeed(), themes=[tmp_path], theme="mine")
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        (tmp_path / "mine.yaml").write_text(
            good.replace("name: dark", "name: mine").replace("#14161f", "#002200")
        )
        app.reload_themes()
        await pilot.pause()
        assert app.role_styles["text"].bgcolor is not None
        assert app.role_styles["text"].bgcolor.name == "#002200"
        (tmp_path / "bad.yaml").write_text("name: [unclosed\n")
        app.reload_themes()
        await pilot.pause()
        assert "bad.yaml: is no YAML" in screen_text(app)
        assert app.theme == "mine"


@pytest.mark.parametrize("name", ["dark", "light", "high-contrast", "colour-blind", "ansi"])
async def test_every_shipped_theme_draws_every_screen(name: str) -> None:
    """Each theme has a style for every role, and the dialog and the palette open under it."""
    app = ConsoleApp(FakeFeed(), theme=name)
    assert set(app.role_styles) == set(ROLES)
    async with app.run_test(size=(80, 24)) as pilot:
        await type_keys(pilot, "r")
        assert isinstance(app.screen, ChangeDialog)
        await app.pop_screen()
        await type_keys(pilot, "p", "colon")
        assert isinstance(app.screen, CommandPalette)


async def test_a_message_of_a_broken_key_map_is_shown_at_the_start() -> None:
    """Problems of the configuration are not lost behind the alternate screen."""
    app = ConsoleApp(FakeFeed(), keymap={"revoke": "q"})
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        assert "wanted by revoke and quit" in screen_text(app)


async def test_an_unknown_theme_and_a_wrong_filter_are_refused_before_anything_is_drawn() -> None:
    """Both are named in one line."""
    with pytest.raises(ConsoleError, match="no theme 'nope': choose one of"):
        ConsoleApp(FakeFeed(), theme="nope")
    with pytest.raises(ConsoleError, match="--filter"):
        ConsoleApp(FakeFeed(), filter_text="tool:x )")


async def test_nothing_is_drawn_when_nothing_changed() -> None:
    """An unchanged snapshot refreshes no widget; four changed rows refresh those rows."""
    feed = FakeFeed()
    app = ConsoleApp(feed)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause(0.3)
        pane = main_screen(app).pane("sessions")
        drawn: list[tuple[object, ...]] = []
        real = pane.refresh

        def refresh(*regions: Region, **options: bool) -> LineView:
            drawn.append(regions)
            return real(*regions, **options)

        pane.refresh = refresh  # type: ignore[method-assign,assignment]
        feed.version += 1
        app.pull()
        assert drawn == []
        feed.bump += 1
        feed.version += 1
        app.pull()
        assert len(drawn) == 4


async def test_changes_and_what_became_of_them_stay_in_sight() -> None:
    """The newest changes stand above the footer with their state."""
    feed = FakeFeed()
    feed.apply(feed.plan("revoke", feed.targets(7)[:1], "leaked"))
    feed.bite("NOT IN FORCE", "success 12 s after the change")
    app = ConsoleApp(feed)
    for size in SIZES:
        app = ConsoleApp(feed)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            assert "revoke key key_0007: NOT IN FORCE, success 12 s after the change" in screen_text(app)


async def test_the_policy_that_is_broken_or_missing_is_said_in_the_header() -> None:
    """Nobody believes in a policy that is not there."""
    feed = FakeFeed()
    app = ConsoleApp(feed)
    async with app.run_test(size=(120, 40)) as pilot:
        live = app.live
        app.live = replace(live, policy=replace(live.policy, error=safe("policy.yaml line 3: unknown key")))
        main_screen(app).paint()
        await pilot.pause()
        assert "POLICY BROKEN" in screen_text(app) and "line 3: unknown key" in screen_text(app)
        app.live = replace(live, policy=replace(live.policy, path=None))
        main_screen(app).paint()
        await pilot.pause()
        assert "NO POLICY" in screen_text(app)


async def test_no_color_leaves_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR not one colour is used, and nothing is lost."""
    monkeypatch.setitem(os.environ, "NO_COLOR", "1")
    app = ConsoleApp(FakeFeed())
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        strips = app.screen._compositor.render_strips(app.size)
        styles = [segment.style for strip in strips for segment in strip if segment.style is not None]
        assert all(style.color is None or style.color.is_default for style in styles)
        assert all(style.bgcolor is None or style.bgcolor.is_default for style in styles)
        assert "CRIT" in screen_text(app)
