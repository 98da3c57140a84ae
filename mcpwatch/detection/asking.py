"""Feeds that ask something of each event: what is alike in it, a value, or whether it enters at all.

They are small objects and no closures: a log goes from caller to caller, and what is scattered over memory costs more
than what is computed.
"""

from __future__ import annotations

from typing import Protocol

from mcpwatch.detection.alike import AlikeWindow
from mcpwatch.detection.calls import call_of, digest_of, hides_something
from mcpwatch.detection.hit import Subject
from mcpwatch.detection.rule import Rule, RuleException
from mcpwatch.detection.sequence import SequenceWindow
from mcpwatch.detection.windows import CountWindow, DistinctWindow
from mcpwatch.event import AuditEvent
from mcpwatch.filter import Filter

Door = tuple[object, ...]
"""Where an event enters a window: of equal doors it goes through one, and once."""


class AskingFeed(Protocol):
    """A window of a rule and a subject, and how an event enters it.

    Attributes:
        limit: The limit that was set for such events, where it is not the rule's own.
        number: Of the entry in the book, where events of all kinds enter by it alike; else -1.
    """

    rule: Rule
    subject: Subject
    limit: int | None
    number: int

    @property
    def window(self) -> CountWindow | DistinctWindow | SequenceWindow | AlikeWindow:
        """The window."""

    def enter(self, event: AuditEvent, time_ns: int, order: int) -> int:
        """Insert an event of that time and number; how many there are if that fires, else 0."""

    def door(self, event: AuditEvent, time_ns: int) -> Door | None:
        """Where an event enters; None where it does not."""


class AskedFeed:
    """A feed that not every event of its kind and caller enters."""

    __slots__ = ("exceptions", "feed", "limit", "match", "number", "rule", "subject", "tier", "window")

    def __init__(
        self, feed: AskingFeed, match: Filter | None, exceptions: tuple[RuleException, ...], tier: str | None
    ) -> None:
        self.feed, self.match, self.exceptions, self.tier = feed, match, exceptions, tier
        self.rule, self.subject, self.limit, self.window = feed.rule, feed.subject, feed.limit, feed.window
        self.number = -1

    def enter(self, event: AuditEvent, time_ns: int, order: int) -> int:
        """Insert an event, if the rule is about it."""
        return self.feed.enter(event, time_ns, order) if self._asks(event, time_ns) else 0

    def door(self, event: AuditEvent, time_ns: int) -> Door | None:
        """That of the feed, if the rule is about the event."""
        return self.feed.door(event, time_ns) if self._asks(event, time_ns) else None

    def _asks(self, event: AuditEvent, time_ns: int) -> bool:
        if self.match is not None and not self.match.match(event, self.tier):
            return False
        for each in self.exceptions:
            if (each.until is None or time_ns < each.until) and each.fields.match(event, self.tier):
                return False
        return True


class TimeFeed:
    """Counts events."""

    __slots__ = ("limit", "need", "number", "rule", "subject", "window")

    def __init__(
        self, window: CountWindow, rule: Rule, subject: Subject, need: int, limit: int | None
    ) -> None:
        self.window, self.rule, self.subject, self.need, self.limit = window, rule, subject, need, limit
        self.number = -1

    def enter(self, event: AuditEvent, time_ns: int, _order: int) -> int:
        """Insert the event's time."""
        call = call_of(event) if self.window.by_call else None
        return self.window.add(time_ns, call, self.need)

    def door(self, _event: AuditEvent, _time_ns: int) -> Door:
        """The window."""
        return (id(self.window),)


class ToolFeed:
    """Counts different values: the caller's own, or the events' tools."""

    __slots__ = ("limit", "need", "number", "rule", "subject", "value", "window")

    def __init__(
        self,
        window: DistinctWindow,
        rule: Rule,
        subject: Subject,
        need: int,
        limit: int | None,
        value: str | None,
    ) -> None:
        self.window, self.rule, self.subject, self.need, self.limit = window, rule, subject, need, limit
        self.number = -1
        self.value = value

    def enter(self, event: AuditEvent, time_ns: int, _order: int) -> int:
        """Insert the value; the tool where the caller has none."""
        value = self.value if self.value is not None else event.tool
        return self.window.add(time_ns, value, self.need) if value is not None else 0

    def door(self, event: AuditEvent, _time_ns: int) -> Door | None:
        """The window and the value."""
        value = self.value if self.value is not None else event.tool
        return (id(self.window), value) if value is not None else None


class StepFeed:
    """One step of a sequence."""

    __slots__ = ("limit", "number", "rule", "step", "subject", "window")

    def __init__(self, window: SequenceWindow, rule: Rule, subject: Subject, step: int) -> None:
        self.window, self.rule, self.subject, self.step = window, rule, subject, step
        self.limit: int | None = None
        self.number = -1

    def enter(self, _event: AuditEvent, time_ns: int, order: int) -> int:
        """Insert the step."""
        return self.window.add(time_ns, self.step, order)

    def door(self, _event: AuditEvent, _time_ns: int) -> Door:
        """The window and the step."""
        return id(self.window), self.step


class AlikeFeed:
    """Counts events that are alike."""

    __slots__ = (
        "by_call",
        "by_params",
        "by_tool",
        "limit",
        "need",
        "number",
        "rule",
        "subject",
        "who",
        "window",
    )

    def __init__(
        self, window: AlikeWindow, rule: Rule, subject: Subject, need: int, limit: int | None
    ) -> None:
        self.window, self.rule, self.subject, self.need, self.limit = window, rule, subject, need, limit
        self.number = -1
        counting = rule.correlation
        assert counting is not None
        self.by_tool, self.by_params = "tool" in counting.same, "params" in counting.same
        self.by_call = counting.once_per_call
        self.who = hash(subject)

    def enter(self, event: AuditEvent, time_ns: int, _order: int) -> int:
        """Insert the event, unless nobody knows whether its parameters were the same as others."""
        params = event.params
        digest = digest_of(params) if self.by_params and params is not None else None
        if self.by_params and digest is None:
            return 0
        call = call_of(event, digest) if self.by_call else None
        if call is not None and self.window.logged_before(time_ns, call.of(self.who)):
            return 0
        alike = hash((self.who, event.tool if self.by_tool else None, digest))
        peak = self.window.add(time_ns, alike, self.need)
        return peak if peak and not (self.by_params and hides_something(params)) else 0

    def door(self, event: AuditEvent, _time_ns: int) -> Door | None:
        """What the event is alike in."""
        digest = digest_of(event.params) if self.by_params and event.params is not None else None
        if self.by_params and digest is None:
            return None
        return id(self.window), self.who, event.tool if self.by_tool else None, digest
