"""Shorter output draws the same picture."""

from __future__ import annotations

import re

import pyte
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from rich.style import Style

from mcpwatch.console.wall import own_only
from mcpwatch.console.wire import thrifty
from mcpwatch.text import plain_output
from tests.terminal.hostile import OWN, PAYLOADS

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


@given(st.lists(st.one_of(st.text(max_size=8), st.sampled_from(PAYLOADS)), max_size=12))
def test_only_the_console_s_own_sequences_are_written(parts: list[str]) -> None:
    """Whatever somebody passes to the driver; and filtering twice changes nothing more."""
    out = own_only("".join(parts))
    assert OWN.sub("", out).replace("\n", "").isprintable()
    assert own_only(out) == out


def test_what_rich_draws_passes_the_wall_as_it_is() -> None:
    data = CONSOLE._render_buffer([Segment("╭─ \u4e16 ✓", Style(color="#123456", bold=True)), Segment("\n")])
    frame = f"\x1b[?2026h\x1b[3;1H{data}\x1b[?25l\x1b[>25u\x1b[?2048$p\x1b]52;c;eA==\x07\x1b[<u\x1b[?2026l"
    assert own_only(frame) == frame


@given(st.lists(st.one_of(st.text(max_size=8), st.sampled_from(PAYLOADS)), max_size=12))
def test_headless_output_holds_nothing_that_a_terminal_obeys(parts: list[str]) -> None:
    """The last wall of standard output: only line ends, tabs and colours are left."""
    out = plain_output("".join(parts))
    assert all(piece.isprintable() for piece in re.split(r"\x1b\[[0-9;]*m|[\n\t]", out))
    assert plain_output("a\tb\n\x1b[1;31mred\x1b[0m ✓") == "a\tb\n\x1b[1;31mred\x1b[0m ✓"
