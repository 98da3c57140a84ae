"""Shorter output draws the same picture."""

from __future__ import annotations

import pyte
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from rich.style import Style

from mcpwatch.console.wire import thrifty

COLOURS = st.sampled_from([None, "default", "red", "bright_blue", "#123456", "#abcdef", "color(99)"])
FLAGS = st.sampled_from([None, True])
STYLES = st.builds(
    Style, color=COLOURS, bgcolor=COLOURS, bold=FLAGS, dim=FLAGS, italic=FLAGS, underline=FLAGS, reverse=FLAGS
)
CONSOLE = Console(force_terminal=True, color_system="truecolor")


def picture(data: str) -> list[list[object]]:
    screen = pyte.Screen(40, 4)
    pyte.Stream(screen).feed(data)
    cells = [[screen.buffer[y][x] for x in range(40)] for y in range(4)]
    # the ink of a blank can't be seen, unless something is drawn through it
    return [
        [
            c._replace(fg="", bold=False, italics=False)
            if c.data == " " and not (c.reverse or c.underscore)
            else c
            for c in row
        ]
        for row in cells
    ]


@given(st.lists(st.tuples(st.text("ab █", min_size=1, max_size=8), STYLES), max_size=12))
def test_the_picture_is_the_same_and_never_longer(parts: list[tuple[str, Style]]) -> None:
    """Whatever Rich renders, with cursor moves in between."""
    data = "".join(
        f"\x1b[{1 + i % 4};{1 + i * 3 % 30}H" * (i % 3 == 0) + CONSOLE._render_buffer([Segment(text, style)])
        for i, (text, style) in enumerate(parts)
    )
    short = thrifty(data)
    assert picture(short) == picture(data)
    assert len(short) <= len(data)


def test_what_is_not_understood_is_left_as_it_is() -> None:
    """A code that is not known is not guessed at."""
    data = "\x1b[1ma\x1b[22mb\x1b[4:3mc\x1b[58;5;1md"
    assert thrifty(data) == data


def test_a_style_that_stays_is_sent_once() -> None:
    """The point of it all."""
    piece = "\x1b[38;2;1;2;3;48;2;4;5;6mx\x1b[0m"
    assert thrifty(piece * 10) == "\x1b[38;2;1;2;3;48;2;4;5;6m" + "x" * 10 + "\x1b[0m"
