"""Help: every action with its key, the filter language, and what the words mean."""

from __future__ import annotations

from collections.abc import Mapping

from mcpwatch.console.actions import ACTIONS, key_sign
from mcpwatch.console.lines import Line, wrap
from mcpwatch.console.screens.document import DocumentScreen, Part, heading
from mcpwatch.filter import HELP

_WORDS = (
    ("written", "the change is in the policy file"),
    ("untested", "nobody tried since, so nothing is proved"),
    ("in force", "a first refusal was seen in the log"),
    ("NOT IN FORCE", "somebody got through after the change: act on the server"),
    ("H M L", "risk tier of the tool: high, medium, low"),
)


def help_parts(keys: Mapping[str, str], width: int, *, replay: bool) -> list[Part]:
    """The help as a document."""
    parts: list[Part] = []
    for group in dict.fromkeys(action.group for action in ACTIONS):
        parts += heading(group, width)[0 if parts else 1 :]
        if group == "Replay" and not replay:
            parts.append(((("While a saved log is replayed:", "dim"),), None))
        for action in (row for row in ACTIONS if row.group == group):
            line: Line = ((f"{key_sign(keys[action.id]):>9}  ", "key"), (f"{action.label:<18}", "bold"))
            rows = wrap(action.help, width - 29, "text")
            parts.append(((*line, *rows[0]), None))
            parts += [(((" " * 29, "text"), *row), None) for row in rows[1:]]
    parts += heading("Changes ask first", width)
    parts += [(line, None) for line in wrap(
        "r, l, d and u open a dialog with the exact change of the policy file. It is written only after a reason "
        "and the four letters shown are typed. X shows the rule file that it would write, and asks for a reason.",
        width)]  # fmt: skip
    parts += heading("Words", width)
    parts += [(((f"{word:>16}  ", "bold"), (text, "text")), None) for word, text in _WORDS]
    parts += heading("Filter", width)
    for text in HELP.splitlines():
        parts += [(line, None) for line in wrap(text, width)]
    return parts


class HelpScreen(DocumentScreen):
    """What every key does."""

    HINTS = ("back", "palette", "quit")

    def build(self, width: int) -> tuple[Line, list[Part]]:
        """From the table of actions."""
        app = self.console_app
        return (("Keys", "title"),), help_parts(app.keys, width, replay=app.player is not None)

    def do_help(self) -> None:
        """The help key closes it, too."""
        self.do_back()
