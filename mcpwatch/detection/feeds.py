"""How the events of a caller get into the windows of the rules.

What an event of some caller and kind has to do with each rule is worked out once (`Feeder.feeds`): most rules have
nothing to do with it; most others take every such event; a few ask something of the event itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from mcpwatch.detection.asking import AlikeFeed, AskedFeed, AskingFeed, Door, StepFeed, TimeFeed, ToolFeed
from mcpwatch.detection.book import Book, Entry
from mcpwatch.detection.calls import call_of
from mcpwatch.detection.case import What
from mcpwatch.detection.hit import Subject
from mcpwatch.detection.pools import Pools, Window
from mcpwatch.detection.principal import Identity, subject_of
from mcpwatch.detection.rule import Rule
from mcpwatch.detection.sequence import SequenceWindow
from mcpwatch.detection.windows import CountWindow, DistinctWindow
from mcpwatch.event import AuditEvent, Auth
from mcpwatch.filter import KIND, KIND_AND_CALLER, Filter
from mcpwatch.policy.model import Alerts


class CountFeed(NamedTuple):
    """A window of times that a caller's events enter."""

    window: CountWindow
    rule: Rule
    subject: Subject
    need: int
    limit: int | None
    """The limit that was set for such events, where it is not the rule's own."""
    number: int
    """Of the entry in the book, where events of all kinds enter by it alike; else -1."""


class ValueFeed:
    """A window of values that a caller's events enter, with the stretch of the caller's own value in it."""

    __slots__ = ("limit", "need", "number", "rule", "stretch", "subject", "value", "window")

    def __init__(
        self,
        window: DistinctWindow,
        value: str,
        rule: Rule,
        subject: Subject,
        need: int,
        limit: int | None,
        number: int,
    ) -> None:
        self.window, self.value, self.rule, self.subject = window, value, rule, subject
        self.need, self.limit, self.number = need, limit, number
        self.stretch = window.stretch(value)


class Feeds(NamedTuple):
    """The windows that an event enters.

    Attributes:
        counts: Those of times, each with its times, minus its need, and its width at hand.
        values: Those of values that are the caller's own.
        asking: All others.
    """

    counts: tuple[tuple[list[int], int, int, CountFeed], ...]
    values: tuple[ValueFeed, ...]
    asking: tuple[AskingFeed, ...]

    def all(self) -> list[Feed]:
        """All of them."""
        return [*(feed for *_, feed in self.counts), *self.values, *self.asking]


Feed = CountFeed | ValueFeed | AskingFeed


def door_of(feed: Feed, event: AuditEvent, time_ns: int) -> Door | None:
    """Where an event enters by a feed of its caller and kind; None where it does not."""
    if isinstance(feed, CountFeed):
        return (id(feed.window),)
    if isinstance(feed, ValueFeed):
        return id(feed.window), feed.value
    return feed.door(event, time_ns)


def enter(feed: Feed, event: AuditEvent, time_ns: int, order: int) -> int:
    """Insert an event by a feed of its caller and kind; how many there are if that fires, else 0."""
    if isinstance(feed, CountFeed):
        return feed.window.add(time_ns, call_of(event) if feed.window.by_call else None, feed.need)
    if isinstance(feed, ValueFeed):
        peak = feed.window.add(time_ns, feed.value, feed.need)
        feed.stretch = feed.window.stretch(feed.value)
        return peak
    return feed.enter(event, time_ns, order)


class Way(NamedTuple):
    """How the events of a kind get into the windows of a rule.

    Attributes:
        number: Of its entry in the book.
        left: What is left to ask of an event whose kind is known; True where nothing is.
        need: How many fire; None where that depends on the caller.
        fields: What is counted: for `value_count`, each field by itself.
    """

    number: int
    entry: Entry
    left: Filter | bool
    need: int | None
    fields: tuple[str, ...]


class _Subjects:
    """The subjects that a caller is under the groupings of rules, each worked out once."""

    __slots__ = ("_known", "identity")

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self._known: dict[int, tuple[Subject, tuple[str, ...]] | None] = {}

    def under(self, entry: Entry) -> tuple[Subject, tuple[str, ...]] | None:
        """The subject under the grouping of a rule, and the kinds of ids in it; None if there is none."""
        if entry.grouping in self._known:
            return self._known[entry.grouping]
        subject = subject_of(entry.rule.group_by, self.identity)
        found = (subject, tuple([kind for kind, _ in subject])) if subject is not None else None
        self._known[entry.grouping] = found
        return found


class Feeder:
    """Leads events into the windows of the rules.

    Attributes:
        pools: The windows.
    """

    def __init__(self) -> None:
        self.pools = Pools()
        self._profiles: list[tuple[Way, ...]] = []
        self._numbers: dict[object, int] = {}

    def set_rules(self, book: Book, alerts: Alerts) -> None:
        """Take over other rules or limits."""
        self.book = book
        self.alerts = alerts
        self._profiles.clear()
        self._numbers.clear()
        self.pools.set_rules(book, alerts)

    def profile(self, what: What) -> int:
        """Number of the ways that events of a kind can go, the same for all kinds that are alike in this."""
        found = [self._way(number, entry, what) for number, entry in enumerate(self.book.entries)]
        ways = tuple(way for way in found if way is not None)
        tuned = any(way.entry.rule.exceptions or way.entry.rule.thresholds for way in ways)
        # exceptions and limits of their own may tell kinds apart that are alike otherwise
        left = tuple((way.number, way.left) for way in ways)
        alike = (left, (what.kind, what.tool, what.status) if tuned else None)
        known = self._numbers.get(alike)
        if known is None:
            known = self._numbers[alike] = len(self._profiles)
            self._profiles.append(ways)
        return known

    def _way(self, number: int, entry: Entry, what: What) -> Way | None:
        left = entry.match.settle(what.example, what.tier, KIND) if entry.match is not None else True
        rule = entry.rule
        counting = rule.correlation
        if left is False or counting is None:
            return None
        need = None if rule.thresholds else counting.need(self.alerts)
        return Way(number, entry, left, need, counting.fields or ("",))

    def feeds(self, what: What, profile: int, identity: Identity, others: Iterable[Feeds] = ()) -> Feeds:
        """The windows that an event of this kind and caller enters; made where they are missing.

        `others` are the caller's feeds for events of other kinds: what is the same is shared.
        """
        shared: dict[int, list[Feed]] = {}
        for feed in {id(feed): feed for feeds in others for feed in feeds.all()}.values():
            if feed.number >= 0:
                shared.setdefault(feed.number, []).append(feed)
        at_hand = {id(entry[3]): entry for feeds in others for entry in feeds.counts}
        counts: list[tuple[list[int], int, int, CountFeed]] = []
        values: list[ValueFeed] = []
        asking: list[AskingFeed] = []
        caller = _Subjects(identity)
        for way in self._profiles[profile]:
            plain = way.left is True and way.need is not None and not way.entry.rule.exceptions
            known = shared.get(way.number) if plain else None
            for feed in known or self._feeds_of(way, what, caller, way.number if plain else -1):
                if isinstance(feed, CountFeed):
                    known_entry = at_hand.get(id(feed))
                    counts.append(known_entry or (feed.window.times, -feed.need, feed.window.width, feed))
                elif isinstance(feed, ValueFeed):
                    values.append(feed)
                else:
                    asking.append(feed)
        return Feeds(tuple(counts), tuple(values), tuple(asking))

    def feeds_of_check(self, check: str, what: What, identity: Identity) -> list[AskingFeed]:
        """The windows that an event enters because a check found something in it."""
        feeds: list[AskingFeed] = []
        caller = _Subjects(identity)
        for entry in self.book.entries_by_check.get(check, ()):
            way = self._way(-1, entry, what)
            for feed in self._feeds_of(way, what, caller, -1, asking=True) if way is not None else ():
                assert not isinstance(feed, CountFeed | ValueFeed)
                feeds.append(feed)
        return feeds

    def _feeds_of(
        self, way: Way, what: What, caller: _Subjects, number: int, *, asking: bool = False
    ) -> Iterator[Feed]:
        rule, left = way.entry.rule, way.left
        found = caller.under(way.entry)
        if found is None:
            return
        subject, kinds = found
        need, limit = way.need, None
        if need is None or not isinstance(left, bool):
            example = _example(what, caller.identity)
            left = left if isinstance(left, bool) else left.settle(example, what.tier, KIND_AND_CALLER)
            if left is False:
                return
            need, limit = self._limit(rule, example, what.tier)
        asked = bool(rule.exceptions) or not isinstance(left, bool)
        for field in way.fields:
            value = _value_of(field, caller.identity)
            if field and field != "tool" and value is None:
                continue
            window = self.pools.window(rule, field, kinds, subject)
            if isinstance(window, CountWindow) and not asked and not asking:
                yield CountFeed(window, rule, subject, need, limit, number)
            elif isinstance(window, DistinctWindow) and not asked and not asking and value is not None:
                yield ValueFeed(window, value, rule, subject, need, limit, number)
            else:
                feed = _asking(window, way, subject, need, limit, value)
                feed.number = number
                match = None if isinstance(left, bool) else left
                yield AskedFeed(feed, match, rule.exceptions, what.tier) if asked else feed

    def _limit(self, rule: Rule, example: AuditEvent, tier: str | None) -> tuple[int, int | None]:
        """How many fire, and the limit that was set for such events, if one was."""
        counting = rule.correlation
        assert counting is not None
        limit = next((each.limit for each in rule.thresholds if each.fields.match(example, tier)), None)
        return counting.need(self.alerts, limit), limit


def _example(what: What, identity: Identity) -> AuditEvent:
    """An event of a kind and a caller."""
    example = what.example
    example.key_id, example.client_id, example.session_id = (
        identity["key"],
        identity["client"],
        identity["session"],
    )
    example.source_ip = identity["source_ip"]
    if identity["subject"] is not None:
        example.auth = Auth(subject=identity["subject"])
    return example


def _asking(
    window: Window, way: Way, subject: Subject, need: int, limit: int | None, value: str | None
) -> AskingFeed:
    rule = way.entry.rule
    if isinstance(window, CountWindow):
        return TimeFeed(window, rule, subject, need, limit)
    if isinstance(window, DistinctWindow):
        return ToolFeed(window, rule, subject, need, limit, value)
    if isinstance(window, SequenceWindow):
        return StepFeed(window, rule, subject, way.entry.step)
    return AlikeFeed(window, rule, subject, need, limit)


def _value_of(field: str, identity: Identity) -> str | None:
    """What a caller contributes to a count of different values; None if nothing."""
    if field == "network":
        address = identity["source_ip"]
        return network_of(address) if address is not None else None
    return identity.get(field) if field and field != "tool" else None


@lru_cache(maxsize=8_192)
def network_of(address: str) -> str:
    """The network that an address is in, /24 for IPv4 and /48 for IPv6, as text; what is no address is itself."""
    try:
        found = ip_address(address.strip("[]"))
    except ValueError:
        return address[:256]
    mapped = getattr(found, "ipv4_mapped", None) or found
    return str(ip_network((mapped, 24 if mapped.version == 4 else 48), strict=False))
