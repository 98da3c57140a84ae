"""Every action of the console, in one table: bindings, footer, help, palette and docs are read from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from mcpwatch.text import safe

Group = Literal["Move", "Look", "Change", "Replay", "Console"]
Where = Literal["live", "replay", "both"]


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that a key does.

    Attributes:
        id: Its name in key maps.
        label: A word or two, for the footer.
        key: Default key, as Textual names it.
        help: One line for the help screen, the palette and the docs.
        changes: Whether it leads to a change of the policy file (always through the dialog).
        where: Whether it makes sense on live logs, in a replay, or both.
    """

    id: str
    label: str
    key: str
    help: str
    group: Group
    changes: bool = False
    where: Where = "both"


ACTIONS: Final[tuple[Action, ...]] = (
    Action("up", "up", "up", "one row up; in the events this leaves follow mode", "Move"),
    Action("down", "down", "down", "one row down", "Move"),
    Action("page_up", "page up", "pageup", "one page up", "Move"),
    Action("page_down", "page down", "pagedown", "one page down", "Move"),
    Action("first", "first", "home", "first row", "Move"),
    Action("last", "last", "end", "last row; in the events this follows new records again", "Move"),
    Action("next_pane", "next pane", "tab", "next pane", "Move"),
    Action("previous_pane", "previous pane", "shift+tab", "previous pane", "Move"),
    Action("sessions", "sessions", "1", "go to the sessions", "Move"),
    Action("rates", "rates", "2", "go to the calls per minute", "Move"),
    Action("alerts", "alerts", "3", "go to the alerts", "Move"),
    Action("tiers", "tiers", "4", "go to the risk tiers", "Move"),
    Action("events", "events", "5", "go to the events", "Move"),
    Action("next_alert", "next alert", "a", "select the next alert, from anywhere", "Move"),
    Action("previous_alert", "previous alert", "A", "select the previous alert, from anywhere", "Move"),
    Action("next_error", "next error", "e", "select the next record that failed or was refused", "Move"),
    Action("previous_error", "previous error", "E", "select the one before", "Move"),
    Action("open", "open", "enter", "open the selected row", "Look"),
    Action("back", "back", "escape", "close this view, leave zoom, or clear the filter", "Look"),
    Action("freeze", "freeze", "f", "freeze the view, or follow new records again", "Look"),
    Action("filter", "filter", "slash", "show only the records that match; never changes detection", "Look"),
    Action("filter_toggle", "filter on/off", "backslash", "switch the filter off and on again", "Look"),
    Action(
        "same_session", "same session", "o", "show only the records of the selected row's session", "Look"
    ),
    Action("zoom", "zoom", "z", "give the whole screen to this pane, and back", "Look"),
    Action("policy", "policy", "p", "the policy: tools, keys, revocations, lockouts", "Look"),
    Action("sources", "sources", "s", "the logs: what is read, what each one tells", "Look"),
    Action("copy", "copy", "y", "copy the selected row or the open view", "Look"),
    Action("revoke", "revoke", "r", "revoke the key, client, subject or session", "Change", True, "live"),
    Action("lock", "lock out", "l", "lock the key and the address out for a while", "Change", True, "live"),
    Action("unlock", "unlock", "L", "end a lockout before its time", "Change", True, "live"),
    Action("disable", "disable tool", "d", "disable the tool for everybody", "Change", True, "live"),
    Action("except", "except", "X", "make an exception of the selected alert, or raise its limit", "Change"),
    Action("undo", "undo", "u", "write the reverse of the last change made here", "Change", True, "live"),
    Action("play", "play/pause", "space", "play or pause", "Replay", where="replay"),
    Action("step_back", "step back", "left_square_bracket", "one record back", "Replay", where="replay"),
    Action("step", "step", "right_square_bracket", "one record on", "Replay", where="replay"),
    Action("slower", "slower", "comma", "slower", "Replay", where="replay"),
    Action("faster", "faster", "full_stop", "faster, up to as fast as it goes", "Replay", where="replay"),
    Action(
        "go_to", "go to", "g", "go to a time: 03:14, 03:14:07, +5m, -5m or RFC 3339", "Replay", where="replay"
    ),
    Action(
        "next_incident",
        "next incident",
        "i",
        "go to where the next incident begins",
        "Replay",
        where="replay",
    ),
    Action(
        "previous_incident", "previous incident", "I", "go to the incident before", "Replay", where="replay"
    ),
    Action("theme", "theme", "t", "next theme", "Console"),
    Action("utc", "UTC/local", "T", "times in UTC or in this machine's zone", "Console"),
    Action("palette", "palette", "colon", "find an action by name", "Console"),
    Action("help", "help", "question_mark", "this list", "Console"),
    Action("quit", "quit", "q", "leave; reading and alerting end with it", "Console"),
)
BY_ID: Final[Mapping[str, Action]] = {action.id: action for action in ACTIONS}

SIGNS: Final[Mapping[str, str]] = {
    "slash": "/", "backslash": "\\", "question_mark": "?", "colon": ":", "semicolon": ";", "comma": ",",
    "full_stop": ".", "left_square_bracket": "[", "right_square_bracket": "]", "space": "space",
    "enter": "⏎", "escape": "esc", "pageup": "pgup", "pagedown": "pgdn", "up": "↑", "down": "↓",
    "exclamation_mark": "!", "quotation_mark": '"', "number_sign": "#", "dollar_sign": "$",
    "percent_sign": "%", "ampersand": "&", "apostrophe": "'", "left_parenthesis": "(",
    "right_parenthesis": ")", "asterisk": "*", "plus": "+", "minus": "-", "less_than_sign": "<",
    "equals_sign": "=", "greater_than_sign": ">", "at": "@", "circumflex_accent": "^", "underscore": "_",
    "grave_accent": "`", "left_curly_bracket": "{", "vertical_line": "|", "right_curly_bracket": "}",
    "tilde": "~",
}  # fmt: skip
"""How keys are written on the screen, by Textual's name."""
_NAMES: Final = {sign: name for name, sign in SIGNS.items()}

FORBIDDEN: Final = frozenset(f"ctrl+{key}" for key in (*"abdkqs", "space", "backslash", *"hijm"))
"""Keys that tmux, vim or flow control take, or that terminals send for tab, enter and backspace."""
_ALLOWED: Final = re.compile(
    r"[A-Za-z0-9]|ctrl\+[a-z]|f([1-9]|1[0-2])|tab|shift\+tab|home|end|left|right|insert|delete"
)


def key_sign(key: str) -> str:
    """How a key is written: `slash` as `/`, `enter` as `⏎`."""
    return SIGNS.get(key, key)


def resolve_keys(keymap: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Put a user's keys over the default ones.

    Returns:
        (key by action id, what could not be used and why). What could not be used keeps its default key.
    """
    chosen: dict[str, str] = {}
    problems: list[str] = []
    for name, wanted in keymap.items():
        key = _NAMES.get(wanted, wanted)
        shown = safe(wanted, 40)
        if name not in BY_ID:
            problems.append(
                f"key map: there is no action {safe(name, 40)!r}: see the help screen for their names"
            )
        elif key in FORBIDDEN:
            problems.append(f"key map: {shown} can't be used for {name}: tmux, vim or the terminal take it")
        elif key not in SIGNS and not _ALLOWED.fullmatch(key):
            problems.append(
                f"key map: {shown!r} for {name} is no key: write one character, f1 to f12 or ctrl+x"
            )
        else:
            chosen[name] = key
    while True:
        keys = {action.id: chosen.get(action.id, action.key) for action in ACTIONS}
        owners: dict[str, list[str]] = {}
        for name, key in keys.items():
            owners.setdefault(key, []).append(name)
        clash = next((names for names in owners.values() if len(names) > 1), None)
        if clash is None:
            return keys, problems
        moved = [name for name in clash if name in chosen]
        problems.append(
            f"key map: {key_sign(keys[clash[0]])} is wanted by {' and '.join(clash)}: {' and '.join(moved)} "
            f"keep the default"
        )
        for name in moved:
            del chosen[name]
