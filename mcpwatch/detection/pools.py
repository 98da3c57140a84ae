"""The windows of all rules: made when they are first needed, freed when nothing can touch them any more."""

from __future__ import annotations

from collections import Counter
from typing import Final

from mcpwatch.detection.alike import AlikeWindow
from mcpwatch.detection.book import Book
from mcpwatch.detection.hit import Subject
from mcpwatch.detection.rule import Rule
from mcpwatch.detection.sequence import SequenceWindow
from mcpwatch.detection.windows import MAX_TIMES, CountWindow, DistinctWindow
from mcpwatch.policy.model import Alerts

MAX_SUBJECTS: Final = 50_000
"""Windows kept for each rule and kind of subject; beyond that the least recently used go, and that is counted."""

_WORTH_A_SWEEP: Final = 16_384

Window = CountWindow | DistinctWindow | AlikeWindow | SequenceWindow
Pool = dict[Subject, Window]


class Pools:
    """The windows of all rules.

    Attributes:
        evictions: Windows, or kinds of calls, dropped because a rule had too many, by rule id.
    """

    def __init__(self) -> None:
        self.evictions: Counter[str] = Counter()
        self._pools: dict[tuple[str, str, tuple[str, ...]], Pool] = {}
        self._measured: dict[str, tuple[int, int, int]] = {}
        self._book: Book | None = None
        self._made = self._kept = 0

    def set_rules(self, book: Book, alerts: Alerts) -> None:
        """Take over other rules or limits. Windows of a rule that counts the same things as before stay."""
        before, self._book = self._book, book
        self._measured = {rule.id: measures(rule, alerts) for rule in book.correlated}
        for name, pool in list(self._pools.items()):
            rule, old = book.by_id.get(name[0]), before.by_id.get(name[0]) if before is not None else None
            if rule is None or old is None or not _counts_the_same(rule, old):
                for window in self._pools.pop(name).values():
                    window.freed = True
                continue
            for window in pool.values():
                window.set_limits(*self._measured[rule.id])

    def window(self, rule: Rule, field: str, kinds: tuple[str, ...], subject: Subject) -> Window:
        """The window of a rule for a subject of those kinds; of the field that is counted, if one is."""
        pool = self._pools.setdefault((rule.id, field, kinds), {})
        who = () if rule.correlation is not None and rule.correlation.same else subject
        window = pool.get(who)
        if window is None:
            self._made += 1
            window = pool[who] = self._new_window(rule)
        return window

    def _new_window(self, rule: Rule) -> Window:
        """An empty window as the rule needs it."""
        counting = rule.correlation
        assert counting is not None
        need, width, keep = self._measured[rule.id]
        if counting.type == "temporal_ordered":
            return SequenceWindow(need, width, keep, in_one=counting.in_one_call)
        if counting.type == "value_count":
            return DistinctWindow(need, width, keep)
        if counting.same:
            return AlikeWindow(need, width, keep)
        return CountWindow(need, width, keep, by_call=counting.once_per_call)

    @property
    def full(self) -> bool:
        """Whether a rule has as many subjects as it may."""
        return any(len(pool) >= MAX_SUBJECTS for pool in self._pools.values())

    @property
    def grown(self) -> bool:
        """Whether there are so many new windows that it is worth looking for idle ones."""
        return self._made > max(_WORTH_A_SWEEP, self._kept)

    def sweep(self, now_ns: int | None) -> None:
        """Free windows that nothing from `now_ns` on can touch, then the least recently used of a full pool."""
        for name, pool in self._pools.items():
            gone = [
                who for who, window in pool.items() if now_ns is not None and not window.is_needed(now_ns)
            ]
            over = len(pool) - len(gone) - MAX_SUBJECTS
            if over >= 0:
                freed = set(gone)
                # of equally old ones those that were made first, so that every run drops the same
                by_use = sorted((who for who in pool if who not in freed), key=lambda who: pool[who].newest)
                oldest = by_use[: over + MAX_SUBJECTS // 4]
                self.evictions[name[0]] += len(oldest)
                gone += oldest
            for window in pool.values():
                if isinstance(window, AlikeWindow) and window.forgotten:
                    self.evictions[name[0]] += window.forgotten
                    window.forgotten = 0
            for who in gone:
                pool.pop(who).freed = True
        self._made, self._kept = 0, sum(map(len, self._pools.values()))


def measures(rule: Rule, alerts: Alerts) -> tuple[int, int, int]:
    """What a window of the rule is made for: need, width and how long it keeps, ns."""
    counting = rule.correlation
    assert counting is not None
    width = counting.timespan.of(alerts)
    keep = width + alerts.allowed_lateness
    if counting.type == "temporal_ordered":
        return len(counting.events), width, keep
    needs = [
        counting.need(alerts),
        *(counting.need(alerts, each.limit) for each in rule.thresholds),
    ]
    # times need room for the highest limit; values are held in order from the lowest on
    need = max(needs) if counting.type == "event_count" else min(needs)
    return min(need, MAX_TIMES), width, keep


def _counts_the_same(rule: Rule, old: Rule) -> bool:
    """Whether the windows of a rule can go on as those of another: the same events of the same subjects enter."""
    if rule.correlation is None or old.correlation is None:
        return False

    def counted(each: Rule) -> tuple[object, ...]:
        counting = each.correlation
        assert counting is not None
        return (
            each.group_by,
            counting.type,
            counting.events,
            counting.fields,
            counting.same,
            counting.once_per_call,
            counting.in_one_call,
        )

    return counted(rule) == counted(old)
