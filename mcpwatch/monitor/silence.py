"""Which logs have gone silent: they delivered records regularly, and deliver none for long.

A writer that died and one that has nothing to say look the same from here, so this is a notice and no incident.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from mcpwatch.text import SafeText
from mcpwatch.times import MINUTE, SECOND, format_duration, iso

GAPS: Final = 20
"""Gaps between deliveries from which it is known how often a log has something to say."""
LEAST: Final = 5 * MINUTE
"""No log is called silent sooner, ns."""
APART: Final = SECOND
"""What is delivered closer together than this, ns, is one delivery."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A log that has gone silent.

    Attributes:
        since_ns: When it delivered last.
        usual_ns: The mean gap between its deliveries before that.
    """

    since_ns: int
    usual_ns: int

    def note(self, now_ns: int) -> SafeText:
        """How long it has been silent, to the minute."""
        return SafeText(
            f"nothing for {format_duration((now_ns - self.since_ns) // MINUTE * MINUTE)}; {self._before}"
        )

    @property
    def notice(self) -> SafeText:
        """Since when it has been silent: the same text for as long as it is."""
        return SafeText(f"nothing since {iso(self.since_ns)[:19]}Z; {self._before}")

    @property
    def _before(self) -> str:
        return f"before, about every {format_duration(self.usual_ns)}"


@dataclass(slots=True)
class _Heard:
    begun_ns: int
    last_ns: int
    behind: bool
    gaps: deque[int] = field(default_factory=lambda: deque(maxlen=GAPS))


class Hearing:
    """When each source delivered records. All times are those of arrival, ns."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}

    def take(self, source: str, now_ns: int, *, behind: bool) -> None:
        """Note that a source delivered records.

        Args:
            behind: It has more that is not read yet: the next delivery then says how fast we read, not how often
                it is written to.
        """
        heard = self._heard.get(source)
        if (
            heard is None or now_ns < heard.last_ns
        ):  # a clock that was set back: what was measured means nothing
            self._heard[source] = _Heard(now_ns, now_ns, behind)
            return
        gap = now_ns - heard.begun_ns
        if heard.behind or gap >= APART:
            if not heard.behind:
                heard.gaps.append(gap)
            heard.begun_ns = now_ns
        heard.last_ns, heard.behind = now_ns, behind

    def keep(self, sources: Collection[str]) -> None:
        """Forget every source but these."""
        if len(self._heard) > len(sources):
            self._heard = {name: heard for name, heard in self._heard.items() if name in sources}

    def silence(self, source: str, now_ns: int) -> Silence | None:
        """The silence of a source; None while it delivers, and before it is known how often it does.

        It is silent after `GAPS` times its mean gap, which is as long as its last deliveries took all together, so
        one that writes in bursts is given the time between bursts.
        """
        heard = self._heard.get(source)
        if heard is None or len(heard.gaps) < GAPS:
            return None
        total = sum(heard.gaps)
        if now_ns - heard.last_ns <= max(LEAST, total):
            return None
        return Silence(heard.last_ns, total // GAPS)
