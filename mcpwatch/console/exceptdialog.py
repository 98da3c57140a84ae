"""Asks what a rule is not about: the choices, the file that says so, a reason, and until when."""

from __future__ import annotations

from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Input

from mcpwatch.console.clipboard import copy_lines
from mcpwatch.console.dialog import Dialog, TypedInput, diff_lines
from mcpwatch.console.lines import BLANK, Line, wrap
from mcpwatch.console.pane import Document, Pane
from mcpwatch.console.view import LineView
from mcpwatch.response.exception import Choice, Effect
from mcpwatch.response.exceptionfile import ExceptionPlan
from mcpwatch.response.plan import ResponseError
from mcpwatch.snapshot import ExceptionRow
from mcpwatch.text import safe

_AROUND: Final = 4
"""Lines of the dialog's frame and of what is typed."""


class ExceptionDialog(Dialog, inherit_bindings=False):
    """Asks for one exception or limit, and writes it; where it can't be written, it can be copied."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", show=False),
        Binding("ctrl+c", "close", show=False, priority=True),
        Binding("up", "choose(-1)", show=False),
        Binding("down", "choose(1)", show=False),
        Binding("tab", "next_field(1)", show=False),
        Binding("shift+tab", "next_field(-1)", show=False),
        Binding("enter", "agree", show=False),
        Binding("y", "copy", show=False),
        Binding("pageup", "scroll(-1)", show=False),
        Binding("pagedown", "scroll(1)", show=False),
    ]

    def __init__(self, incident_id: str, options: tuple[Choice, ...]) -> None:
        """Args: options: what it may be about, the first one is proposed."""
        super().__init__()
        self.incident_id = incident_id
        self.options = options
        self.plan: ExceptionPlan | None = None
        """What is shown, and what would be written."""
        self.written: ExceptionRow | None = None
        self._choice = 0
        self._planned_for: tuple[int, str, str] | None = None
        self._problem: str | None = None
        self._note = ""
        self._file = Pane(id="file", cursor=False)
        self._reason = TypedInput(id="reason", max_length=200)
        self._term = TypedInput(id="term", max_length=20)

    def compose(self) -> ComposeResult:
        """Rule, choice, effect, file, reason, term, state."""
        with Vertical():
            yield LineView(id="what")
            yield self._file
            with Horizontal(id="reason-row"):
                yield LineView(id="reason-label", classes="label")
                yield self._reason
            with Horizontal(id="term-row"):
                yield LineView(id="term-label", classes="label")
                yield self._term
            yield LineView(id="state")

    def on_mount(self) -> None:
        """Plan once."""
        super().on_mount()
        self._file.framed = True
        self._propose_term()
        self._reason.focus()
        self._replan()

    @property
    def _option(self) -> Choice:
        return self.options[self._choice]

    def _propose_term(self) -> None:
        self._term.value = self.console_app.feed.first_term(self._option)
        self._term.cursor_position = len(self._term.value)

    @property
    def _asked(self) -> tuple[int, str, str]:
        """What the plan depends on."""
        return self._choice, self._reason.value.strip(), self._term.value.strip()

    def _replan(self) -> None:
        """Work the file out for what is typed now."""
        asked = self._asked
        if asked == self._planned_for or self.written is not None:
            return
        _, reason, term = asked
        try:
            # an empty reason is no reason to show no file
            self.plan = self.console_app.feed.plan_exception(
                self.incident_id, self._option, reason or "…", term
            )
            self._problem = None
        except ResponseError as error:
            self.plan, self._problem = None, safe(error)
        self._planned_for, self._note = asked, ""
        self.paint()

    def paint(self) -> None:
        """Draw everything."""
        if not self.is_mounted or not self._file.size.width:
            return
        plan, width = self.plan, max(self._file.size.width, 20)
        what = self._what_lines(width)
        self.fill("what", what)
        body = (
            [row for text in plan.lines for row in diff_lines(text, self._file.inner_width)] if plan else []
        )
        note = wrap(self._note, width, "warn") if self._note else []
        state = [*note, *self._state_lines(width)]
        room = self.size.height * 24 // 25 - len(what) - len(state) - _AROUND
        self._file.styles.height = max(3, min(len(body) + 2, room))
        more: Line = (("pgup pgdn", "key"), (" more", "dim")) if len(body) + 2 > room else BLANK
        self._file.present(Document([(line, None) for line in body]), self._title(), more)
        for name in ("#reason-row", "#term-row"):
            for row in self.query(name):
                row.display = self.written is None
        labels = (("reason", "reason"), ("term", "limit" if self._option.limit is not None else "expires"))
        for name, words in labels if self.written is None else ():
            self.query_one(f"#{name}-label", LineView).show([((words, "key"),)])
        self.fill("state", state)

    def _title(self) -> Line:
        plan = self.plan
        if plan is None:
            return (("Nothing to write", "title"),)
        if plan.path is None:
            return (("Not written, to be copied", "title"),)
        verb = "Written to " if self.written is not None else "What is written to "
        return ((verb, "title"), (safe(plan.path, 200), "title"))

    def _what_lines(self, width: int) -> list[Line]:
        lines = wrap(self.plan.what if self.plan is not None else self._option.what, width, "bold")[:2]
        if len(self.options) > 1 and self.written is None:
            place = f"{self._choice + 1} of {len(self.options)}"
            lines.append(((place, "title-active"), ("   ", "text"), ("↑ ↓", "key"), (" for another", "dim")))
        if self.plan is not None:
            lines += effect_lines(self.plan.effect, width)
        return lines

    def _state_lines(self, width: int) -> list[Line]:
        if self.written is not None:
            return self._written_lines(self.written, width)
        closes: Line = (("esc", "key"), (" closes; nothing is written", "dim"))
        if self._problem is not None:
            return [*wrap(f"can't: {self._problem}", width, "warn"), closes]
        plan = self.plan
        hand = wrap(plan.by_hand, width, "warn") if plan is not None and plan.by_hand is not None else []
        keys = (
            ("⏎", "writes it" if plan is not None and plan.path is not None else "copies it"),
            ("tab", "other field"),
            ("esc", "closes; nothing is written"),
        )
        return [*hand, tuple(span for key, words in keys for span in ((key, "key"), (f" {words}  ", "dim")))]

    def _written_lines(self, row: ExceptionRow, width: int) -> list[Line]:
        closes: Line = (("y", "key"), (" copies it  ", "dim"), ("esc", "key"), (" closes", "dim"))
        if row.in_use:
            return [(("written, in use", "ok"),), closes]
        return [(("written, not in use", "warn"),), *wrap(row.note, width, "warn"), closes]

    def on_input_changed(self, event: Input.Changed) -> None:
        """What is typed is another file."""
        event.stop()
        self.later(self._replan)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter: from the reason, or the term."""
        event.stop()
        self.action_agree()

    def action_agree(self) -> None:
        """Write what is shown, or copy it where nothing can be written."""
        plan = self.plan
        if self.written is not None or plan is None:
            return
        if not self._reason.value.strip():
            self._tell("a reason is needed: say why this is normal here")
            self._reason.focus()
        elif self._planned_for != self._asked:
            self._replan()
            self._tell("the file was just made again: read it, then press ⏎")
        elif plan.path is None:
            self.action_copy()
        else:
            self._write(plan)

    def _write(self, plan: ExceptionPlan) -> None:
        try:
            self.written = self.console_app.feed.write_exception(plan)
        except ResponseError as error:
            self._problem, self._planned_for = safe(error), None
        else:
            self.set_focus(None)
        self.paint()

    def _tell(self, text: str) -> None:
        self._note = text
        self.paint()

    def action_copy(self) -> None:
        """Copy what is shown."""
        if self.plan is not None:
            self._tell(copy_lines(self.plan.lines, self.app.copy_to_clipboard))

    def action_next_field(self, step: int) -> None:
        """From the reason to the term, to the file (where y copies), and round again."""
        if self.written is not None:
            return
        self._replan()
        fields = (self._reason, self._term, None)
        at = next(index for index, field in enumerate(fields) if field is self.focused)
        self.set_focus(fields[(at + step) % len(fields)])
        if self.focused is None:
            self._tell("y copies it")

    def action_choose(self, step: int) -> None:
        """Another way to quiet the rule; the term goes with it."""
        if len(self.options) > 1 and self.written is None:
            self._choice = (self._choice + step) % len(self.options)
            self._propose_term()
            self._replan()

    def action_scroll(self, pages: int) -> None:
        """Read the file."""
        self._file.page(pages)


def effect_lines(effect: Effect, width: int) -> list[Line]:
    """What would have been quiet, and what of it should not be."""
    some = "at least " if effect.at_least and effect.silenced < effect.hits else ""
    text = f"would have silenced {some}{effect.silenced:,} of this rule's {effect.hits:,} hits in this run"
    lines = wrap(text, width, "text")
    if effect.critical:
        lines += wrap(
            f"{effect.critical:,} of them critical: fix the cause rather than the rule", width, "error"
        )
    return lines
