"""The line at the bottom where a filter or a time is typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.suggester import Suggester
from textual.widgets import Input

from mcpwatch.console.filtering import History
from mcpwatch.console.lines import Line
from mcpwatch.console.view import LineView

Check = Callable[[str], Line]
"""Says what is wrong with a text so far; nothing when it is fine."""


class PlainInput(Input):
    """One line of printable text; what is pasted loses everything else."""

    DEFAULT_CSS = """
    PlainInput, PlainInput:focus, PlainInput.-textual-compact {
        border: none; height: 1; padding: 0 1; background: $surface; width: 1fr;
    }
    """

    def __init__(
        self, *, id: str | None = None, max_length: int = 1000, suggester: Suggester | None = None
    ) -> None:
        super().__init__(
            id=id, max_length=max_length, suggester=suggester, select_on_focus=False, compact=True
        )
        # a blinking cursor would write to the terminal twice a second
        self.cursor_blink = False

    def insert_text_at_cursor(self, text: str) -> None:
        """Take printable characters only, typed or pasted."""
        super().insert_text_at_cursor("".join(char for char in text if char.isprintable()))

    def replace(self, text: str, start: int, end: int) -> None:
        """Take printable characters only."""
        super().replace("".join(char for char in text if char.isprintable()), start, end)


class Prompt(Horizontal):
    """A label, an input with history, and a hint that says what is wrong."""

    DEFAULT_CSS = """
    Prompt { height: 1; display: none; }
    Prompt LineView { width: auto; }
    Prompt #prompt-label { width: 10; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", show=False),
        Binding("up", "recall(-1)", show=False),
        Binding("down", "recall(1)", show=False),
        Binding("tab", "accept", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._done: Callable[[str], bool] = lambda _text: True
        self._check: Check = lambda _text: ()
        self._history: History | None = None
        self._at = 0
        self._input = PlainInput(id="prompt-input")
        self._label = LineView(id="prompt-label")
        self.hint: Line = ()

    def compose(self) -> ComposeResult:
        """Label and input; the hint is shown in the footer."""
        yield self._label
        yield self._input

    def ask(
        self,
        label: str,
        text: str,
        *,
        done: Callable[[str], bool],
        check: Check,
        history: History | None = None,
        suggester: Suggester | None = None,
    ) -> None:
        """Open the prompt.

        Args:
            done: Takes the text on enter; False keeps the prompt open.
        """
        self._done, self._check, self._history = done, check, history
        self._at = len(history.entries) if history is not None else 0
        self._input.suggester = suggester
        self._input.value = text
        self._input.cursor_position = len(text)
        self.display = True
        self._label.show([((f" {label}", "key"),)])
        self._input.focus()
        self._check_so_far(text)

    def close(self) -> None:
        """Close it without doing anything."""
        self.display = False
        self.hint = ()
        self.screen.set_focus(None)
        self.post_message(self.Hinted())

    class Hinted(Message):
        """The hint changed, or the prompt closed."""

    def _check_so_far(self, text: str) -> None:
        self.hint = self._check(text)
        self.post_message(self.Hinted())

    def on_input_changed(self, event: Input.Changed) -> None:
        """Check as it is typed."""
        event.stop()
        if self.display:
            self._check_so_far(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Use it."""
        event.stop()
        if self._done(event.value):
            if self._history is not None:
                self._history.add(event.value)
            self.close()

    def action_cancel(self) -> None:
        """Escape."""
        self.close()

    def action_accept(self) -> None:
        """Take the completion, as the right arrow does."""
        self._input.action_end()
        self._input.action_cursor_right()

    def action_recall(self, step: int) -> None:
        """Older or newer texts."""
        entries = self._history.entries if self._history is not None else []
        self._at = max(0, min(self._at + step, len(entries)))
        self._input.value = entries[self._at] if self._at < len(entries) else ""
        self._input.cursor_position = len(self._input.value)
