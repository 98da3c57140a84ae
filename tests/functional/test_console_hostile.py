"""Hostile text: nothing of it is obeyed, on any pane or screen, by either wall alone."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

from mcpwatch.console import ConsoleApp
from mcpwatch.console.clipboard import copy_lines
from mcpwatch.console.lines import cells, fit, fit_line, spark, wrap
from mcpwatch.console.wall import PrintableOnly, printable
from mcpwatch.text import SafeText, safe
from tests.functional.console_feed import HOSTILE, MARKER, FakeFeed
from tests.functional.test_console_app import main_screen, type_keys


class RawFeed(FakeFeed):
    """A feed whose maker forgot `safe`."""

    def text(self, plain: str) -> SafeText:
        return cast(SafeText, self._random.choice(HOSTILE) + plain)


class OneWall(ConsoleApp):
    """A console without the second wall."""

    def get_line_filters(self) -> list[LineFilter]:
        return [wall for wall in super().get_line_filters() if not isinstance(wall, PrintableOnly)]


ROUTES = (
    *([key] for key in "12345"),
    ["1", "enter"], ["3", "enter"], ["5", "enter"], ["3", "enter", "enter"], ["p"], ["s"], ["question_mark"],
    ["5", "o"], ["slash", *"session:"], ["5", "y"], ["3", "r"], ["5", "d"], ["3", "l"], ["f"], ["z"], ["colon"],
    ["3", "X"],
)  # fmt: skip


@pytest.mark.parametrize(("app_type", "feed_type"), [(OneWall, FakeFeed), (ConsoleApp, RawFeed)])
async def test_every_strip_of_every_screen_is_printable(
    app_type: type[ConsoleApp], feed_type: type[FakeFeed]
) -> None:
    """By safe text alone, and by the second wall alone: not one control in a rendered strip."""
    app = app_type(feed_type(hostile=True))
    async with app.run_test(size=(120, 40)) as pilot:
        seen = ""
        for route in ROUTES:
            await type_keys(pilot, *route)
            await pilot.pause(0.31 if route[-1] in "rdlX" else 0)
            strips = app.screen._compositor.render_strips(app.size)
            for strip in strips:
                assert strip.text.isprintable(), (route, strip.text)
                assert not any(segment.control for segment in strip)
                # no style of ours carries a link or an action
                assert not any(s.style and (s.style.link or s.style.meta.get("@click")) for s in strip)
            seen += "".join(strip.text for strip in strips)
            while len(app.screen_stack) > 1:
                await app.pop_screen()
            main_screen(app).prompt.close()
        assert MARKER in seen
        assert not app._exit


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_copied_is_safe(text: str) -> None:
    """The clipboard gets spelled-out text."""
    sent: list[str] = []
    copy_lines([text, "second"], sent.append)
    assert sent[0].split("\n")[1] == "second"
    assert all(line.isprintable() for line in sent[0].split("\n"))


@given(st.text())
def test_the_second_wall_keeps_widths_and_lets_nothing_through(text: str) -> None:
    """What is taken out had no width, or leaves a mark of the same width."""
    out = printable(text)
    assert out.isprintable()
    assert cell_len(out) == sum(cell_len(char) for char in text) or text.isprintable()
    segments = PrintableOnly().apply([Segment(text, Style(bold=True))], Color(0, 0, 0))
    assert segments[0].text == out and segments[0].style == Style(bold=True)


@given(st.text(), st.integers(1, 60), st.sampled_from(["left", "right"]))
def test_a_fitted_text_is_exactly_as_wide_as_asked(text: str, width: int, align: str) -> None:
    """Wide characters, combining marks and cuts never shift a column."""
    assert cells(fit(safe(text), width, align)) == width  # type: ignore[arg-type]
    assert sum(cells(part) for part, _ in fit_line(((safe(text), "text"), ("x", "dim")), width)) == width


@given(st.text(min_size=1), st.integers(8, 60))
def test_wrapped_lines_fit(text: str, width: int) -> None:
    """No wrapped line is wider than the pane."""
    assert all(cells(part) <= width for line in wrap(safe(text), width) for part, _ in line)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_a_spark_shows_zero_lowest_and_the_peak_highest(values: list[int]) -> None:
    """Something is never drawn as nothing."""
    marks = spark(values)
    assert len(marks) == len(values)
    for value, mark in zip(values, marks, strict=True):
        assert (mark == "▁") == (value == 0)
    assert max(values) == 0 or "█" in marks
