"""The dialog for exceptions: what is written is what was shown, and nothing by accident. On real files."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual import events
from textual.pilot import Pilot

from mcpwatch.console import ConsoleApp
from mcpwatch.console.exceptdialog import ExceptionDialog
from mcpwatch.console.prompt import PlainInput
from mcpwatch.console.screens.incident import IncidentScreen
from mcpwatch.console.screens.main import MainScreen
from mcpwatch.detection.rulefiles import load_rules
from mcpwatch.text import safe
from mcpwatch.times import SECOND
from tests.functional.test_console_app import key_event, screen_text, type_keys
from tests.unit.monitor.monitor_runs import NOW, Room, call

SIZES = [(80, 24), (120, 40)]
FILE = "tune-session-rate.yaml"


def burst(**fields: object) -> list[bytes]:
    """Nine calls of a session in nine seconds: four hits of one rule."""
    return [call(NOW + n * SECOND, **fields) for n in range(9)]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    (tmp_path / "rules").mkdir()
    room = Room(tmp_path, rules=tmp_path / "rules")
    room.write(*burst())
    return room


async def opened(pilot: Pilot[int], *, incident: bool = True) -> ExceptionDialog:
    """The dialog of the first alert, after the time in which it ignores keys."""
    await type_keys(pilot, "a", *(["enter"] if incident else []), "X")
    await pilot.pause(0.35)
    dialog = pilot.app.screen
    assert isinstance(dialog, ExceptionDialog)
    return dialog


@pytest.mark.parametrize("size", SIZES)
async def test_the_dialog_shows_the_file_the_effect_and_whether_it_is_in_use(
    room: Room, size: tuple[int, int]
) -> None:
    """Everything one must know before agreeing is on the screen, and the incident tells it afterwards."""
    app = ConsoleApp(room.monitor)
    async with app.run_test(size=size) as pilot:
        await opened(pilot)
        await type_keys(pilot, *"builds are fast")
        await pilot.pause(0.25)
        text = screen_text(app)
        for word in ("session-rate: a limit of 9 for key k1", "would have silenced 4 of this rule's 4 hits", "1 of 5",
                     "tune: session-rate", '- fields: {key: "k1"}', "gt: 9", '"builds are fast"'):  # fmt: skip
            assert word in text, word
        assert not (room.folder / "rules" / FILE).exists()
        await type_keys(pilot, "enter")
        assert "written, in use" in screen_text(app)
        await type_keys(pilot, "enter", "escape")
        assert isinstance(app.screen, IncidentScreen)
        app.screen.do_last()
        text = " ".join(str(part) for part in app.screen.text_lines())
        assert "a limit of 9 for key:k1" in text and "builds are fast" in text
        rules = load_rules(room.folder / "rules", room.monitor._today())
        (threshold,) = rules.by_id["session-rate"].thresholds
        assert (threshold.limit, threshold.reason) == (9, "builds are fast")


async def test_another_choice_and_another_term_are_another_file(room: Room) -> None:
    """The file always is that of what is typed."""
    app = ConsoleApp(room.monitor)
    async with app.run_test(size=(120, 40)) as pilot:
        dialog = await opened(pilot, incident=False)
        await type_keys(pilot, "down", *"ci", "tab", *["backspace"] * 12, *"90d", "tab")
        await pilot.pause(0.25)
        text = screen_text(app)
        assert "2 of 5" in text and '- fields: {client: "bot", tool: "file_read"}' in text
        assert "expires: 2027-02-20" in text
        copied: list[str] = []
        app.copy_to_clipboard = copied.append  # type: ignore[method-assign, assignment]
        await type_keys(pilot, "y")
        assert dialog.plan is not None and copied == ["\n".join(dialog.plan.lines)]
        await type_keys(pilot, "enter", "escape")
        assert isinstance(app.screen, MainScreen)
        assert b"expires: 2027-02-20" in (room.folder / "rules" / FILE).read_bytes()


async def test_an_empty_reason_a_wrong_term_or_escape_write_nothing(room: Room) -> None:
    """Each of them says so, or closes."""
    app = ConsoleApp(room.monitor)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await type_keys(pilot, "space", "enter")
        assert "a reason is needed" in screen_text(app)
        await type_keys(pilot, *"builds", "tab", *["backspace"] * 4, *"many", "enter")
        await pilot.pause(0.25)
        assert "the limit must be a whole number from 1 to 1000" in screen_text(app)
        await type_keys(pilot, "enter", "escape")
        assert isinstance(app.screen, IncidentScreen)
    assert list((room.folder / "rules").iterdir()) == []


async def test_keys_that_come_with_the_opening_and_whatever_is_pasted_are_ignored(room: Room) -> None:
    """What was meant for the screen below, or for another program, lands in no file."""
    app = ConsoleApp(room.monitor)
    async with app.run_test(size=(120, 40)) as pilot:
        await type_keys(pilot, "a")
        for key in ("X", *"xyz", "enter", "escape"):
            app.post_message(key_event(key))
        await pilot.pause()
        dialog = app.screen
        assert isinstance(dialog, ExceptionDialog)
        await pilot.pause(0.4)
        app.post_message(events.Paste("a reason\n"))
        app.copy_to_clipboard("a reason")
        await type_keys(pilot, "ctrl+v")
        assert dialog.query_one("#reason", PlainInput).value == ""
        await type_keys(pilot, "enter")
    assert list((room.folder / "rules").iterdir()) == []


async def test_a_file_that_was_changed_since_is_not_written_over(room: Room) -> None:
    """Enter on what is out of date says so; what is there now is shown next."""
    app = ConsoleApp(room.monitor)
    path = room.folder / "rules" / FILE
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await type_keys(pilot, *"builds")
        await pilot.pause(0.25)
        path.write_text("tune: session-rate\nenabled: false\nreason: mine\n")
        await type_keys(pilot, "enter")
        assert "somebody else changed it meanwhile" in screen_text(app)
        await type_keys(pilot, "enter", "tab")
        assert "put these lines into it" in screen_text(app)
        copied: list[str] = []
        app.copy_to_clipboard = copied.append  # type: ignore[method-assign, assignment]
        await type_keys(pilot, "enter")
        assert len(copied) == 1 and copied[0].startswith("thresholds:")
    assert "mine" in path.read_text()


async def test_read_only_shows_and_copies(tmp_path: Path) -> None:
    """Where nothing may be written the file can still be taken away."""
    (tmp_path / "rules").mkdir()
    room = Room(tmp_path, rules=tmp_path / "rules", read_only=True)
    room.write(*burst())
    app = ConsoleApp(room.monitor)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        assert "started with --read-only" in screen_text(app) and "copies it" in screen_text(app)
        copied: list[str] = []
        app.copy_to_clipboard = copied.append  # type: ignore[method-assign, assignment]
        await type_keys(pilot, *"builds")
        await pilot.pause(0.25)
        await type_keys(pilot, "enter")
        assert len(copied) == 1 and 'reason: "builds"' in copied[0]
    assert list((tmp_path / "rules").iterdir()) == []


async def test_an_incident_about_a_log_offers_nothing(room: Room) -> None:
    """Nobody to revoke, lock out or except, no tool to disable: neither in the footer nor by key."""
    room.write(call(NOW, sequence=1, session_id="q"), call(NOW + SECOND, sequence=9, session_id="q"))
    app = ConsoleApp(room.monitor)
    async with app.run_test(size=(120, 40)) as pilot:
        assert room.look().alerts[0].rule == "audit-gap"
        await type_keys(pilot, "a", "enter")
        footer = screen_text(app).splitlines()[-1]
        assert "back" in footer
        assert not any(word in footer for word in ("revoke", "lock out", "disable", "except"))
        for key, words in (("r", "nothing to revoke"), ("l", "nothing to lock"), ("d", "no tool here"),
                           ("X", "about a log")):  # fmt: skip
            await type_keys(pilot, key)
            assert words in screen_text(app).splitlines()[-1]
        assert isinstance(app.screen, IncidentScreen)


async def test_the_incident_screen_tells_the_rules_rate_and_the_file_of_ones_own_rule(room: Room) -> None:
    """How many hits and incidents of how many subjects, the highest count, and what other limits would find."""
    path = room.folder / "rules" / "slow.yaml"
    path.write_text("title: A\nid: slow\nlevel: critical\ndescription: D.\nmatch: 'duration>=10s'\n")
    room.write(call(NOW, duration_ms=20_000, session_id="q"))
    app = ConsoleApp(room.monitor)
    async with app.run_test(size=(120, 40)) as pilot:
        await type_keys(pilot, "a", "enter")
        assert str(path)[:60] in screen_text(app)
        await type_keys(pilot, "a")
        text = screen_text(app)
        assert "session-rate: 4 hits, 1 incident of 1 subject in 1 h of log; most seen 9 calls" in text
        assert "9: quiet" in text


async def test_hostile_ids_are_shown_safe_and_written_so_that_they_read_back(tmp_path: Path) -> None:
    """An id may try to end its quotes, to colour the screen or to hide."""
    client = 'x"}\n- \x1b[31m\u202e: #\u2028'
    (tmp_path / "rules").mkdir()
    room = Room(tmp_path, rules=tmp_path / "rules")
    room.write(
        *(call(NOW + n, tool="deploy", client_id=client, key_id=None, session_id=None) for n in range(9))
    )
    (tmp_path / "rules/own.yaml").write_text(
        "title: A\nid: own\nlevel: critical\ndescription: D.\nmatch: 'tool:deploy'\n"
    )
    room.write(call(NOW, tool="deploy", client_id=client, key_id=None, session_id=None))
    app = ConsoleApp(room.monitor)
    async with app.run_test(size=(80, 24)) as pilot:
        dialog = await opened(pilot)
        assert all(strip.text.isprintable() for strip in app.screen._compositor.render_strips(app.size))
        assert dialog.plan is not None and safe(client)[:9] in dialog.plan.what
        await type_keys(pilot, *"ours")
        await pilot.pause(0.25)
        await type_keys(pilot, "enter")
        assert "written, in use" in screen_text(app)
    count = room.look().alerts[0].count
    room.write(call(NOW, tool="deploy", client_id=client, key_id=None, session_id=None))
    assert room.look().alerts[0].count == count
