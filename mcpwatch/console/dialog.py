"""The only way to a change: what it is about, the exact diff, a reason, and four letters to type."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING, ClassVar, Final, cast

from rich.cells import chop_cells
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import Input

from mcpwatch.console.columns import state_words
from mcpwatch.console.lines import BLANK, Line, cells, wrap
from mcpwatch.console.pane import Document, Pane
from mcpwatch.console.prompt import PlainInput
from mcpwatch.console.view import LineView
from mcpwatch.policy.address import canonical
from mcpwatch.response.plan import Plan, ResponseError, Target, Verb
from mcpwatch.snapshot import ChangeRow
from mcpwatch.text import SafeText, mask_secrets, safe, safe_id

if TYPE_CHECKING:
    from mcpwatch.console.app import ConsoleApp

EARLY_S: Final = 0.3
"""Keys this soon after the opening were meant for the screen below, and are ignored."""
SETTLE_S: Final = 0.15
"""How long the reason must rest before the diff is made again."""
LETTERS: Final = "abcdefghjkmnpqrstuvwxyz"
"""Letters of codes: none that looks like another or like a digit."""
MAX_CHOICES: Final = 12
MAX_WRONG: Final = 3
"""Wrong codes after which a dialog takes no more: a paste can try thousands, as fast as a terminal sends keys."""

Targets = tuple[Target, ...]
_PRINCIPALS: Final = ("key", "client", "subject", "session")
_WORDS: Final = {"source_ip": "address"}
_WHOLE_KEY: Final = (
    "the log holds a whole key as its id: so would the policy; change the key at its issuer instead"
)


def choices(verb: Verb, targets: Targets) -> tuple[Targets, ...]:
    """What a change could be about, the likeliest first.

    A lockout is best for a key from one address: that shuts out whoever guesses without locking out its owner.
    """
    by_kind = {
        kind: tuple(t for t in targets if t.kind == kind) for kind in (*_PRINCIPALS, "source_ip", "tool")
    }
    found: list[Targets]
    if verb == "disable":
        found = [(target,) for target in by_kind["tool"]]
    elif verb == "lock":
        keys, addresses = by_kind["key"], by_kind["source_ip"]
        found = [*product(keys, addresses), *((t,) for t in (*addresses, *keys))]
    else:
        found = [(target,) for kind in _PRINCIPALS for target in by_kind[kind]]
    return tuple(dict.fromkeys(found))[:MAX_CHOICES]


def current_lockouts(locked: tuple[Targets, ...], targets: Targets) -> tuple[Targets, ...]:
    """Of the lockouts of the policy those that shut out somebody whom a row names."""
    keys = {target.id for target in targets if target.kind == "key"}
    addresses = {canonical(target.id) for target in targets if target.kind == "source_ip"}
    return tuple(
        whom
        for whom in locked
        if any(
            target.id in keys if target.kind == "key" else canonical(target.id) in addresses
            for target in whom
        )
    )


def named(targets: Targets) -> SafeText:
    """`key key_0007 from address 203.0.113.9`."""
    return safe(
        " from ".join(
            f"{_WORDS.get(target.kind, target.kind)} {safe_id(target.id, 60)}" for target in targets
        )
    )


class TypedInput(PlainInput):
    """Takes characters from the keyboard only."""

    def _on_paste(self, event: events.Paste) -> None:
        # what can be pasted can be pasted by accident
        event.stop()
        event.prevent_default()

    def action_paste(self) -> None:
        """Pasting is no typing."""


class Dialog(ModalScreen[None], inherit_bindings=False):
    """What all dialogs share: they ignore keys that were meant for the screen below, and are drawn in lines."""

    DEFAULT_CSS = """
    Dialog { align: center middle; }
    Dialog > Vertical {
        width: 92%; max-width: 108; height: auto; max-height: 96%; border: round $primary; padding: 0 1;
        background: $background;
    }
    Dialog Horizontal { height: 1; }
    Dialog .label { width: 10; }
    Dialog PlainInput, Dialog PlainInput:focus { background: $panel; }
    """
    AUTO_FOCUS = ""

    def __init__(self) -> None:
        super().__init__()
        self._opened: float | None = None
        self._timer: Timer | None = None

    @property
    def console_app(self) -> ConsoleApp:
        """The app, by its own type."""
        return cast("ConsoleApp", self.app)

    def on_mount(self) -> None:
        """Start the time in which keys are ignored."""
        self._opened = events.Event().time
        self.call_after_refresh(self.paint)

    def on_resize(self) -> None:
        """Everything depends on the size."""
        self.call_after_refresh(self.paint)

    def too_early(self, event: events.Event) -> bool:
        """Whether a key was pressed before anybody can have read the dialog."""
        return self._opened is None or event.time - self._opened < EARLY_S

    def paint(self) -> None:
        """Draw everything."""
        raise NotImplementedError

    def later(self, act: Callable[[], None]) -> None:
        """Do something once nobody has typed for a moment."""
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(SETTLE_S, act)

    def fill(self, name: str, lines: list[Line]) -> None:
        """Show lines in one of the dialog's views, which is as high as they are many."""
        view = self.query_one(f"#{name}", LineView)
        view.display = bool(lines)
        height = view.styles.height
        if lines and height is not None and height.value != len(lines):
            view.styles.height = len(lines)
        view.show(lines)

    def action_close(self) -> None:
        """Nothing more is written."""
        self.console_app.close_screen(self)


class ChangeDialog(Dialog, inherit_bindings=False):
    """Asks for one change, writes it, and shows whether it bites."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", show=False),
        Binding("ctrl+c", "close", show=False, priority=True),
        Binding("up", "choose(-1)", show=False),
        Binding("down", "choose(1)", show=False),
        Binding("tab", "next_field", show=False),
        Binding("shift+tab", "next_field", show=False),
        Binding("pageup", "scroll(-1)", show=False),
        Binding("pagedown", "scroll(1)", show=False),
    ]

    def __init__(self, verb: Verb | None, options: tuple[Targets, ...]) -> None:
        """Args: verb: what to do; None undoes the newest change. options: what it may be about."""
        super().__init__()
        self.verb = verb
        self.options = options
        self.plan: Plan | None = None
        """What is shown, and what would be written."""
        self.applied: ChangeRow | None = None
        self.code = new_code()
        self._wrong = 0
        self._choice = 0
        self._planned_for: tuple[int, str] | None = None
        self._shown_for: tuple[Plan | None, int] | None = None
        self._problem: Line = BLANK
        self._diff = Pane(id="diff", cursor=False)
        self._reason = PlainInput(id="reason", max_length=200)
        self._code = TypedInput(id="code", max_length=8)

    def compose(self) -> ComposeResult:
        """Target, impact, diff, reason, code, state."""
        with Vertical():
            yield LineView(id="what")
            yield LineView(id="impact")
            yield self._diff
            if self.verb is not None:
                with Horizontal(id="reason-row"):
                    yield LineView(id="reason-label", classes="label")
                    yield self._reason
            with Horizontal(id="code-row"):
                yield LineView(id="code-label", classes="label")
                yield self._code
            yield LineView(id="state")

    def on_mount(self) -> None:
        """Plan once."""
        super().on_mount()
        self._diff.framed = True
        (self._reason if self.verb is not None else self._code).focus()
        self._replan()

    def _replan(self) -> None:
        """Work the change out for the reason and target as they are now."""
        wanted = (self._choice, self._reason.value.strip())
        if wanted == self._planned_for or self.applied is not None:
            return
        feed = self.console_app.feed
        try:
            if self.verb is None:
                self.plan = feed.plan_undo()
            else:
                self.plan = feed.plan(self.verb, self.options[self._choice], wanted[1])
            self._problem = BLANK
        except ResponseError as error:
            self.plan = None
            self._problem = (("can't: ", "error"), (safe(error), "warn"))
        self._planned_for = wanted
        self.paint()

    def paint(self) -> None:
        """Draw everything."""
        if not self.is_mounted or not self._diff.size.width:
            return
        plan = self.plan
        self.fill("what", self._what_lines())
        width = max(self._diff.size.width, 20)
        impact = (
            [row for text in plan.impact for row in wrap(text, width, "text", "  ")]
            if plan is not None
            else []
        )
        self.fill("impact", impact[: max(1, self.size.height // 5)])
        diff = (
            [line for text in plan.diff for line in diff_lines(safe_id(text), self._diff.inner_width)]
            if plan
            else []
        )
        self._diff.styles.height = max(3, min(len(diff) + 2, self.size.height - 14))
        body = Document([(line, None) for line in diff])
        empty = "Already so: nothing to write." if plan is not None and plan.noop else ""
        self._diff.present(body, (("What is written to the policy file", "title"),), self._diff_note(), empty)
        self._show_changed(diff)
        asking = self.applied is None
        for name in ("#reason-row", "#code-row"):
            for row in self.query(name):
                row.display = asking
        if asking:
            for view in self.query("#reason-label").results(LineView):
                view.show([(("reason", "key"),)])
            self.query_one("#code-label", LineView).show([(("type ", "dim"), (self.code, "brand"))])
        self.fill("state", self._state_lines())

    def _show_changed(self, diff: list[Line]) -> None:
        """Scroll a new diff to what it changes, if that would be out of sight."""
        rows = self._diff.rows
        if self._shown_for == (self.plan, rows):
            return
        self._shown_for = (self.plan, rows)
        changed = [index for index, line in enumerate(diff) if line[-1][1] in ("add", "remove")]
        if changed:
            self._diff.scroll_rows(-len(diff))
            self._diff.scroll_rows(min(changed[0], max(changed[-1] + 1 - rows, 0)))

    def _what_lines(self) -> list[Line]:
        lines: list[Line] = [
            ((safe_id(self.plan.what), "bold"),) if self.plan is not None else (("No change", "bold"),)
        ]
        if self.verb is not None:
            about = named(self.options[self._choice])
            more = (
                f"   {self._choice + 1} of {len(self.options)}: ↑ ↓ for another"
                if len(self.options) > 1
                else ""
            )
            lines.append((("about ", "dim"), (about, "title-active"), (more, "dim")))
            if any(mask_secrets(target.id) != target.id for target in self.options[self._choice]):
                lines.append(((_WHOLE_KEY, "warn"),))
        return lines

    def _diff_note(self) -> Line:
        longer = len(self._diff.body) > self._diff.rows
        return (("pgup pgdn", "key"), (" more", "dim")) if longer else BLANK

    def _state_lines(self) -> list[Line]:
        if self.applied is not None:
            return self._bite_lines()
        if self._problem:
            return [self._problem, (("esc", "key"), (" closes; nothing was written", "dim"))]
        if self.plan is not None and self.plan.noop:
            return [(("Already so: nothing would be written. ", "ok"), ("esc", "key"), (" closes", "dim"))]
        keys = [("⏎", "writes it"), ("tab", "other field"), ("esc", "closes; nothing is written")]
        if self.verb is None:
            del keys[1]
        return [tuple(span for key, words in keys for span in ((key, "key"), (f" {words}  ", "dim")))]

    def _bite_lines(self) -> list[Line]:
        row = self._newest()
        steps: list[Line] = [(("written  ", "ok"), (safe_id(row.what), "text"))]
        if reason := self._reason.value.strip():
            steps.append((("reason   ", "dim"), (safe(reason, 200), "text")))
        if row.state != "written" or row.detail:
            steps.append(state_words(row))
        help_text = {
            "written": "proved by the first refusal in the log" if row.detail else "waiting for the log",
            "untested": "proved by the first refusal in the log",
            "in force": "a refusal was seen",
            "confirmed": "a refusal was seen",
            "NOT IN FORCE": "somebody got through after the change: act on the server itself",
            "over": "it has ended",
        }.get(row.state, "")
        steps.append(((help_text + "  ", "dim"), ("esc", "key"), (" closes", "dim")))
        return steps

    def _newest(self) -> ChangeRow:
        """The change that was made here, as it stands now."""
        applied = self.applied
        assert applied is not None
        rows = self.console_app.live.changes
        return next((row for row in rows if (row.what, row.at_ns) == (applied.what, applied.at_ns)), applied)

    def on_input_changed(self, event: Input.Changed) -> None:
        """A new reason is a new diff."""
        event.stop()
        if event.input is self._reason:
            self.later(self._replan)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter: from the reason to the code; from the code, write."""
        event.stop()
        if event.input is self._reason:
            self.action_next_field()
        else:
            self._write()

    def _write(self) -> None:
        reason = self._reason.value.strip()
        plan = self.plan
        if plan is None or plan.noop or self.applied is not None or self._wrong >= MAX_WRONG:
            return
        if self.verb is not None and not reason:
            self._tell("a reason is needed: say why in a few words")
            self._reason.focus()
        elif self._planned_for != (self._choice, reason):
            self._replan()
            self._tell("the diff was just made again: read it, then press ⏎")
        elif self._code.value.strip().lower() != self.code:
            self._code.value = ""
            self._wrong += 1
            closed = self._wrong >= MAX_WRONG
            more = ", and no more is taken: esc closes" if closed else ""
            self._tell(f"that is not {self.code}: nothing was written{more}")
            if closed:
                self.set_focus(None)
        else:
            self._apply(plan)

    def _apply(self, plan: Plan) -> None:
        try:
            self.applied = self.console_app.feed.apply(plan)
        except ResponseError as error:
            self._problem = (("not written: ", "error"), (safe(error), "warn"))
            self.plan, self._planned_for = None, None
        else:
            self._problem = BLANK
            self.set_focus(None)
        self.paint()

    def _tell(self, text: str) -> None:
        self.fill("state", [((text, "warn"),)])

    def action_next_field(self) -> None:
        """From the reason to the code and back; leaving the reason makes the diff for it."""
        if self.applied is not None or self.verb is None:
            return
        self._replan()
        (self._code if self.focused is self._reason else self._reason).focus()

    def action_choose(self, step: int) -> None:
        """Another target; a code typed for one is no good for another."""
        if len(self.options) > 1 and self.applied is None:
            self._choice = (self._choice + step) % len(self.options)
            self.code = new_code()
            self._code.value = ""
            self._replan()

    def action_scroll(self, pages: int) -> None:
        """Read the diff."""
        self._diff.page(pages)


def new_code() -> str:
    """Four random letters."""
    return "".join(secrets.choice(LETTERS) for _ in range(4))


def diff_lines(text: str, width: int) -> list[Line]:
    """A line of a diff, folded so that all of it can be read: its sign tells, and its colour too."""
    role = {"+": "add", "-": "remove", "@": "hunk"}.get(text[:1], "dim")
    if text.startswith(("+++", "---")):
        role = "dim"
    first, *rest = [text] if cells(text) <= width else chop_cells(text, max(width - len(_FOLD), 8))
    return [((first, role),), *(((_FOLD, "dim"), (piece, role)) for piece in rest)]


_FOLD: Final = "    "
