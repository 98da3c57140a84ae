"""The dialog: nothing is written by accident, and what is written is what was shown."""

from __future__ import annotations

import random

import pytest
from textual import events
from textual.pilot import Pilot

from mcpwatch.console import ConsoleApp
from mcpwatch.console.dialog import LETTERS, ChangeDialog, choices, current_lockouts, new_code
from mcpwatch.console.prompt import PlainInput
from mcpwatch.console.screens.main import MainScreen
from mcpwatch.response.confirm import sentence
from mcpwatch.response.plan import Target
from tests.functional.console_feed import FakeFeed
from tests.functional.test_console_app import key_event, screen_text, type_keys


async def opened(pilot: Pilot[int], key: str = "r") -> ChangeDialog:
    """The dialog, after the time in which it ignores keys."""
    await type_keys(pilot, key)
    await pilot.pause(0.35)
    dialog = pilot.app.screen
    assert isinstance(dialog, ChangeDialog)
    return dialog


async def confirm(pilot: Pilot[int], dialog: ChangeDialog, reason: str = "leaked") -> None:
    """Type reason and code, and press enter."""
    await type_keys(pilot, *reason, "tab", *dialog.code, "enter")


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_the_dialog_names_the_target_its_impact_and_the_exact_diff(size: tuple[int, int]) -> None:
    """Everything one must know before agreeing is on the screen, signs and all."""
    app = ConsoleApp(FakeFeed())
    async with app.run_test(size=size) as pilot:
        dialog = await opened(pilot)
        await type_keys(pilot, *"leaked")
        await pilot.pause(0.25)
        text = screen_text(app)
        for word in ("revoke key key_0007", "41 calls in the last hour", "@@ -20,3 +20,4 @@",
                     '+  - {key: key key_0007, by: "alice@bastion", reason: "leaked"}', dialog.code):  # fmt: skip
            assert word in text


async def test_what_is_written_is_the_plan_that_was_shown() -> None:
    """The very plan whose diff stood on the screen is applied, with the reason that was typed."""
    feed = FakeFeed()
    app = ConsoleApp(feed)
    async with app.run_test(size=(120, 40)) as pilot:
        dialog = await opened(pilot)
        await type_keys(pilot, *"leaked in a ticket", "tab")
        shown = dialog.plan
        await type_keys(pilot, *dialog.code, "enter")
        assert feed.applied == [shown]
        assert shown is not None and 'reason: "leaked in a ticket"' in shown.diff[-1]


async def test_a_wrong_code_a_missing_reason_or_escape_write_nothing() -> None:
    """Each of them says so, or closes."""
    feed = FakeFeed()
    app = ConsoleApp(feed)
    async with app.run_test(size=(120, 40)) as pilot:
        dialog = await opened(pilot)
        await type_keys(pilot, "tab", *dialog.code, "enter")
        assert "a reason is needed" in screen_text(app)
        wrong = "".join(LETTERS[(LETTERS.index(char) + 1) % len(LETTERS)] for char in dialog.code)
        await type_keys(pilot, *"   ", "tab", "enter")
        await type_keys(pilot, *"leaked", "tab", *["backspace"] * 8, *wrong, "enter")
        assert "nothing was written" in screen_text(app)
        await type_keys(pilot, *dialog.code[:3], "enter", "escape")
        assert isinstance(app.screen, MainScreen)
        assert feed.applied == []


async def test_keys_that_come_with_the_opening_are_ignored() -> None:
    """What was typed for the screen below does not land in the dialog, not even escape."""
    feed = FakeFeed()
    app = ConsoleApp(feed)
    async with app.run_test(size=(120, 40)) as pilot:
        await type_keys(pilot)
        for key in ("r", *"xyz", "enter", "escape"):
            app.post_message(key_event(key))
        await pilot.pause()
        dialog = app.screen
        assert isinstance(dialog, ChangeDialog)
        assert dialog.query_one("#reason", PlainInput).value == ""
        await pilot.pause(0.4)
        await type_keys(pilot, "x")
        assert dialog.query_one("#reason", PlainInput).value == "x"


async def test_a_pasted_code_is_no_code_and_a_paste_never_writes() -> None:
    """A megabyte pasted anywhere in the dialog writes nothing; the code must be typed."""
    feed = FakeFeed()
    app = ConsoleApp(feed)
    async with app.run_test(size=(120, 40)) as pilot:
        dialog = await opened(pilot)
        app.post_message(events.Paste("\x1b[31mleaked\x07\nsecond line" + "y\r" * 500_000))
        await pilot.pause()
        reason = dialog.query_one("#reason", PlainInput).value
        assert reason.startswith("[31mleaked") and reason.isprintable() and len(reason) <= 200
        await type_keys(pilot, "tab")
        app.post_message(events.Paste(dialog.code))
        app.copy_to_clipboard(dialog.code)
        await type_keys(pilot, "ctrl+v", "enter")
        assert dialog.query_one("#code", PlainInput).value == ""
        assert feed.applied == []


async def test_random_keys_never_write() -> None:
    """Somebody who hammers on the keys changes nothing."""
    feed = FakeFeed()
    app = ConsoleApp(feed)
    keys = ["enter", "tab", "up", "down", "escape", "r", "l", "d", "u", "a", "y", "e", "space", "pagedown"]
    rng = random.Random(7)
    async with app.run_test(size=(80, 24)) as pilot:
        for _ in range(15):
            await type_keys(pilot, *rng.choices(keys, k=20))
        assert feed.applied == []


async def test_another_target_is_another_plan_and_another_code() -> None:
    """A code typed for one target is no good for another."""
    feed = FakeFeed()
    app = ConsoleApp(feed)
    async with app.run_test(size=(120, 40)) as pilot:
        dialog = await opened(pilot)
        code = dialog.code
        await type_keys(pilot, *"leaked", "tab", *code, "down")
        assert dialog.plan is not None and dialog.plan.targets[0].kind == "client"
        assert dialog.query_one("#code", PlainInput).value == ""
        assert "client support-agent" in screen_text(app)
        await type_keys(pilot, *code, "enter")
        assert feed.applied == [] or dialog.code == code


async def test_the_dialog_shows_whether_the_change_bites() -> None:
    """written, untested, in force; and NOT IN FORCE where somebody still gets through."""
    feed = FakeFeed()
    app = ConsoleApp(feed)
    async with app.run_test(size=(120, 40)) as pilot:
        dialog = await opened(pilot)
        await confirm(pilot, dialog)
        assert "written" in screen_text(app)
        for state, detail in (
            ("untested", "no attempt since"), ("in force", "after 0.8 s"), ("NOT IN FORCE", "success 12 s after"),
        ):  # fmt: skip
            feed.bite(state, detail)  # type: ignore[arg-type]
            app.pull()
            await pilot.pause()
            assert sentence(state, detail) in screen_text(app)
        await type_keys(pilot, "enter", "escape")
        assert isinstance(app.screen, MainScreen)
        assert "NOT IN FORCE" in screen_text(app)
        assert len(feed.applied) == 1


async def test_undo_asks_too_and_needs_no_reason() -> None:
    """The reverse edit is shown and confirmed by a code."""
    feed = FakeFeed()
    feed.apply(feed.plan("revoke", feed.targets(7)[:1], "leaked"))
    app = ConsoleApp(feed)
    async with app.run_test(size=(120, 40)) as pilot:
        dialog = await opened(pilot, "u")
        assert "undo revoke key key_0007" in screen_text(app)
        await type_keys(pilot, *dialog.code, "enter")
        assert [plan.verb for plan in feed.applied] == ["revoke", "restore"]


async def test_what_the_policy_refuses_is_said_in_the_dialog() -> None:
    """A change that can't be planned or written says why; nothing is lost silently."""
    feed = FakeFeed()
    app = ConsoleApp(feed)
    async with app.run_test(size=(120, 40)) as pilot:
        dialog = await opened(pilot)
        await type_keys(pilot, *"leaked", "tab", *dialog.code)
        feed.refuse = "policy.yaml changed on disk: look again and repeat"
        await type_keys(pilot, "enter")
        assert "not written: policy.yaml changed on disk" in screen_text(app)
        await type_keys(pilot, "escape", "r")
        await pilot.pause(0.35)
        assert "can't: policy.yaml changed on disk" in screen_text(app)


@pytest.mark.parametrize("key", ["r", "l", "d", "u"])
async def test_where_changes_are_off_every_key_says_why(key: str) -> None:
    """Read-only is said, not guessed."""
    feed = FakeFeed()
    feed.changes_off = "--read-only"
    app = ConsoleApp(feed)
    async with app.run_test(size=(80, 24)) as pilot:
        await type_keys(pilot, key)
        assert isinstance(app.screen, MainScreen)
        assert "changes are off: --read-only" in screen_text(app)


async def test_the_view_below_a_dialog_stands_still_under_a_live_header() -> None:
    """Reading goes on while somebody decides."""
    feed = FakeFeed()
    app = ConsoleApp(feed)
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        main = app.screen_stack[0]
        assert isinstance(main, MainScreen)
        before = main.pane("events").drawn_text()
        feed.tick(9)
        app.pull()
        await pilot.pause()
        assert main.pane("events").drawn_text() == before
        assert "1,204,400" in screen_text(app)
        await type_keys(pilot, "escape")
        await pilot.pause(0.05)
        assert main.pane("events").drawn_text() != before


LOCKED = (
    (Target("key", "key_0005"), Target("source_ip", "203.0.113.5")),
    (Target("source_ip", "::ffff:203.0.113.7"),),
    (Target("key", "key_0009"),),
)


def test_only_current_lockouts_of_whom_a_row_names_can_be_ended() -> None:
    """However the address is spelled."""
    assert current_lockouts(LOCKED, (Target("source_ip", "203.0.113.7"),)) == LOCKED[1:2]
    assert current_lockouts(LOCKED, (Target("key", "key_0005"), Target("session", "key_0009"))) == LOCKED[:1]
    assert current_lockouts(LOCKED, (Target("key", "203.0.113.7"),)) == ()
    assert current_lockouts(LOCKED, ()) == ()


async def test_the_policy_screen_offers_every_current_lockout_to_be_ended() -> None:
    """With a reason, a diff and a code, as any change."""
    feed = FakeFeed()
    feed.lockouts = LOCKED
    app = ConsoleApp(feed)
    async with app.run_test(size=(120, 40)) as pilot:
        await type_keys(pilot, "p")
        dialog = await opened(pilot, "L")
        assert (dialog.verb, dialog.options) == ("unlock", LOCKED)
        await confirm(pilot, dialog, "our own scanner")
        assert [plan.verb for plan in feed.applied] == ["unlock"]
        assert "our own scanner" in screen_text(app)


def test_a_lockout_is_best_for_a_key_from_one_address() -> None:
    """Locking a whole key because somebody guesses at it would shut out its owner."""
    key, ip, tool = Target("key", "k"), Target("source_ip", "192.0.2.1"), Target("tool", "t")
    session, client = Target("session", "s"), Target("client", "c")
    mixed = (session, tool, client, ip, key)
    assert choices("lock", mixed) == ((key, ip), (ip,), (key,))
    assert choices("revoke", mixed) == ((key,), (client,), (session,))
    assert choices("disable", mixed) == ((tool,),)
    assert choices("revoke", (tool,)) == ()


def test_codes_are_four_letters_that_can_not_be_mistaken() -> None:
    """No i, l or o."""
    codes = {new_code() for _ in range(500)}
    assert len(codes) > 400
    assert all(len(code) == 4 and not set(code) & set("ilo") and code.islower() for code in codes)


async def test_a_reason_that_the_shown_diff_does_not_hold_yet_is_shown_before_it_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Enter on a diff that is out of date makes a new one and writes nothing; the next enter writes that."""
    monkeypatch.setattr("mcpwatch.console.dialog.SETTLE_S", 60.0)
    feed = FakeFeed()
    app = ConsoleApp(feed)
    async with app.run_test(size=(120, 40)) as pilot:
        dialog = await opened(pilot)
        await type_keys(pilot, *"leaked")
        dialog.query_one("#code", PlainInput).focus()  # as a click does
        await type_keys(pilot, *dialog.code, "enter")
        assert feed.applied == []
        assert "the diff was just made again" in screen_text(app)
        shown = dialog.plan
        assert shown is not None and 'reason: "leaked"' in shown.diff[-1]
        await type_keys(pilot, "enter")
        assert feed.applied == [shown]
