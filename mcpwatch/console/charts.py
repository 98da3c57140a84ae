"""The two panes that count: calls per minute, and shares of the risk tiers."""

from __future__ import annotations

from collections.abc import Sequence

from mcpwatch.console.lines import Line, Span, bar, cells, chart, fit, fit_line
from mcpwatch.console.screens.document import Part
from mcpwatch.snapshot import RATE_MINUTES, RateRow, TierRow

_LABEL = 7
_FACTS = 12


def rate_parts(rates: Sequence[RateRow], width: int, height: int) -> list[Part]:
    """A chart per tier, as tall as there is room: the last 15 minutes, the newest at the right."""
    each = max(1, min(4, (height - 1) // max(len(rates), 1)))
    step = max(1, min(3, (width - _LABEL - _FACTS) // RATE_MINUTES))
    parts: list[Part] = []
    for rate in rates:
        role = f"tier-{rate.tier.value}"
        values = (*(0,) * (RATE_MINUTES - len(rate.per_minute)), *rate.per_minute[-RATE_MINUTES:])
        facts: tuple[Span, ...] = (
            (f"  {rate.now:,} now", "bold"),
            (f"  median {rate.median:,}", "dim"),
            (f"  most {max(values):,}", "dim"),
        )
        rows = chart(values, each, step=step)
        for index, row in enumerate(rows):
            label = fit(rate.tier.value.upper() if not index else "", _LABEL)
            extra = facts[index] if index < len(facts) else ("", "dim")
            if each == 1:
                parts.append((((label, role), (row, role), facts[0], facts[1]), None))
            else:
                parts.append((((label, role), (row, role), extra), None))
    if len(parts) < height and rates:
        axis = fit("15 min ago", max(RATE_MINUTES * step - 3, 10)) + "now"
        parts.append((((" " * _LABEL, "text"), (axis, "dim")), None))
    return parts


def _tools(row: TierRow, width: int) -> Line:
    out: list[Span] = []
    left = width
    for tool, count in row.tools:
        size = cells(tool) + len(f" {count:,}  ")
        if size > left and out:
            out.append(("…", "dim"))
            break
        out += [(tool, "text"), (f" {count:,}  ", "dim")]
        left -= size
    return fit_line(tuple(out), width)


def tier_parts(tiers: Sequence[TierRow], width: int, height: int) -> list[Part]:
    """A bar per tier, and the tools that make it up."""
    two = height >= 2 * len(tiers)
    size = max(8, width - _LABEL - 20) if two else min(16, max(4, width // 4))
    parts: list[Part] = []
    for row in tiers:
        role = f"tier-{row.tier.value}"
        head: Line = (
            (fit(row.tier.value.upper(), _LABEL), role),
            (f"{row.share:>4.0%}  ", "bold"),
            (f"{bar(row.share, size):<{size}}", role),
        )
        if two:
            calls = f"{row.calls:,} calls"
            parts.append((((*head, (f" {calls:>12}", "dim"))), None))
            inside = _tools(row, width - _LABEL)
            parts.append((((" " * _LABEL, "text"), *inside), None))
        else:
            parts.append((((*head, ("  ", "text"), *_tools(row, max(1, width - _LABEL - size - 8)))), None))
    spare = height - len(parts)
    if two and spare >= len(tiers) - 1 > 0:
        blank: Part = ((), None)
        parts = [*parts[:2], blank, *parts[2:4], blank, *parts[4:]]
    return parts
