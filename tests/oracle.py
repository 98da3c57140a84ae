"""A second engine for the rules with a correlation: plain, slow, and written from their definition alone.

It keeps every event for ever and looks at all of them for each new one. Where it and the real engine disagree, one
of them is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from mcpwatch.detection.rule import Correlation, Rule
from mcpwatch.event import AuditEvent, CallEnd
from mcpwatch.formats.pairing import Pairing, Phase
from mcpwatch.formats.reader import Reader
from mcpwatch.policy.model import Alerts
from mcpwatch.sources.block import Block
from mcpwatch.times import iso

Subject = tuple[tuple[str, str], ...]


def read(
    lines: Iterable[dict[str, Any] | bytes | str], source: str = "a.jsonl", live: bool = False
) -> list[AuditEvent]:
    """The events of a log's lines, as the reader gives them. Live, "now" is the start of 2026-11-20."""
    return Reader(source).read(block_of(lines, source), 1_795_132_800 * 10**9 if live else None)


def block_of(lines: Iterable[dict[str, Any] | bytes | str], source: str = "a.jsonl") -> Block:
    """Lines as the sources room hands them on."""
    raw = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    return Block(source, raw, 0, 1)


class TwoLines(NamedTuple):
    """A line of a log in which calls may take two lines.

    Attributes:
        phase: What it is of its call; None for a line that says it all.
        key: What it has in common with the other line.
    """

    record: dict[str, Any]
    phase: Phase | None = None
    key: str = ""
    by_order: bool = False


def read_calls(
    lines: Iterable[TwoLines], source: str = "a.jsonl", pairing: Pairing | None = None
) -> list[AuditEvent]:
    """The events of a log in which calls may take two lines, and their ends."""
    lines = list(lines)
    pairing = Pairing() if pairing is None else pairing
    found: list[AuditEvent] = []
    for event in read([line.record for line in lines], source):
        line = lines[event.index]
        given: AuditEvent | None = event
        if line.phase is not None:
            given = pairing.take(event, line.phase, (line.key,), by_order=line.by_order)
        if given is not None:
            found.append(given)
    return found


def stamp(time_ns: int) -> str:
    """A timestamp with all nine digits."""
    return f"{iso(time_ns)[:19]}.{time_ns % 10**9:09d}Z"


class Firing(NamedTuple):
    """What a rule with a correlation must say: at which event, about whom, how full the window was, which limit."""

    at: int
    rule: str
    subject: Subject
    time_ns: int
    peak: int
    limit: int | None = None


class World(NamedTuple):
    """What an oracle must be told of the policy.

    Attributes:
        found: What the checks find in an event.
        tier: The tier of an event's tool.
    """

    alerts: Alerts
    known_keys: frozenset[str] = frozenset()
    found: Callable[[AuditEvent], Collection[str]] = lambda _: ()
    tier: Callable[[AuditEvent], str | None] = lambda _: None


class _Entry(NamedTuple):
    """An event that a rule counts."""

    at: int
    time: int
    subject: Subject
    steps: tuple[int, ...]
    event: AuditEvent


def late_of(events: list[AuditEvent], lateness: int) -> set[int]:
    """Which events of one source are late. The end of a call is where its beginning was, or would be by now."""
    starts = {id(event): at for at, event in enumerate(events)}
    ends = {at: starts.get(id(event.start)) for at, event in enumerate(events) if isinstance(event, CallEnd)}
    late = late_events([event.time_ns for event in events], lateness, frozenset(ends))
    return late | {at for at, start in ends.items() if start in late}


def late_events(times: list[int | None], lateness: int, ends: frozenset[int] = frozenset()) -> set[int]:
    """Which records of one source are late: more than `lateness` behind its reference time.

    The reference is the largest "smaller of two consecutive times" so far, and is forgotten after ten late ones.
    `ends` are places of calls that ended: their times are those of the beginning, and are no news.
    """
    late = set()
    since = 0  # of the known times, the first that the reference rests on
    run = 0
    known: list[int] = []
    for index, time in enumerate(times):
        if time is None:
            continue
        if index in ends:
            pairs = list(zip(known[since:], known[since + 1 :], strict=False))
            late.update([index] if pairs and time < max(min(pair) for pair in pairs) - lateness else [])
            continue
        known.append(time)
        pairs = list(zip(known[since:], known[since + 1 :], strict=False))
        if pairs and time < max(min(pair) for pair in pairs) - lateness:
            late.add(index)
            run += 1
            if run == 10:
                run, since = 0, len(known) - 1
        else:
            run = 0
    return late


def firings(events: list[AuditEvent], rules: Iterable[Rule], world: World) -> list[Firing]:
    """Everything that the rules with a correlation say about a log of one source.

    A call that takes two lines enters where its beginning is counted, and when it ends where only what it has become
    is counted, at the time of its beginning. It fires once for one rule and subject.
    """
    late = late_of(events, world.alerts.allowed_lateness)
    in_time = [(at, event) for at, event in enumerate(events) if event.time_ns is not None and at not in late]
    return [firing for rule in rules if rule.correlation for firing in _of_rule(rule, in_time, world)]


def _of_rule(rule: Rule, events: list[tuple[int, AuditEvent]], world: World) -> list[Firing]:
    counting = rule.correlation
    assert counting is not None
    width = counting.timespan.of(world.alerts)
    memory = width + world.alerts.allowed_lateness
    so_far: list[_Entry] = []
    places = {id(event): at for at, event in events}
    found: list[Firing] = []
    for at, event in events:
        began = places.get(id(event.start), at) if isinstance(event, CallEnd) else at
        entry = _entry(rule, began, event, world)
        if entry is None:
            continue
        was = next((other for other in so_far if other.at == began), None)
        steps = entry.steps
        if was is not None:
            steps = tuple(step for step in entry.steps if step not in was.steps)
            if not steps:
                continue
            so_far.remove(was)
            entry = entry._replace(steps=was.steps + steps)
        before = [other for other in so_far if other.subject == entry.subject]
        so_far.append(entry)
        if counting.once_per_call:
            if _again(entry, before, memory):
                continue
            before = [other for n, other in enumerate(before) if not _again(other, before[:n], memory)]
        limit = _own_limit(rule, event, world)
        need = counting.need(world.alerts, limit)
        if counting.type == "temporal_ordered":
            peak = _sequence(entry, before, width, counting, steps)
        else:
            peak = _PEAKS[counting.type](entry, before, width, counting)
        fired = any((other.at, other.subject) == (began, entry.subject) for other in found)
        if (peak >= need if counting.type != "temporal_ordered" else peak) and not (fired and began != at):
            found.append(Firing(at, rule.id, entry.subject, entry.time, peak, limit))
    return found


def _entry(rule: Rule, at: int, event: AuditEvent, world: World) -> _Entry | None:
    """The event as the rule counts it; None where it does not."""
    counting, time, tier = rule.correlation, event.time_ns, world.tier(event)
    assert counting is not None and time is not None
    steps = tuple(
        number
        for number, step in enumerate(counting.events)
        if (step.match is None or step.match.match(event, tier))
        and (step.check is None or step.check in world.found(event))
    )
    excepted = any(
        each.fields.match(event, tier) and (each.until is None or time < each.until)
        for each in rule.exceptions
    )
    subject = _subject(rule, event, world.known_keys)
    unknown = "params" in counting.same and event.params is None
    if not steps or excepted or subject is None or unknown:
        return None
    return _Entry(at, time, subject, steps, event)


def _subject(rule: Rule, event: AuditEvent, known_keys: frozenset[str]) -> Subject | None:
    identity = {
        "key": event.key_id,
        "known_key": event.key_id if event.key_id in known_keys else None,
        "client": event.client_id,
        "session": event.session_id,
        "subject": event.subject,
        "source_ip": event.source_ip,
    }
    for names in rule.group_by:
        values = [(name.removeprefix("known_"), identity[name]) for name in names]
        if all(value is not None for _, value in values):
            return tuple((name, value) for name, value in values if value is not None)
    return None


def _own_limit(rule: Rule, event: AuditEvent, world: World) -> int | None:
    fitting = [each.limit for each in rule.thresholds if each.fields.match(event, world.tier(event))]
    return fitting[0] if fitting else None


def _again(entry: _Entry, before: list[_Entry], memory: int) -> bool:
    """Whether a call was logged before."""
    return entry.event.call_id is not None and any(
        _one_call(other.event, entry.event) and abs(other.time - entry.time) < memory for other in before
    )


def _one_call(one: AuditEvent, other: AuditEvent) -> bool:
    """Whether two records are of one call: the same id and tool, and the same parameters where both show theirs."""
    shown = [each.params for each in (one, other) if each.params and not _hides(each.params)]
    same = len(shown) < 2 or shown[0] == shown[1]
    return one.call_id == other.call_id and one.tool == other.tool and same


def _windows(entry: _Entry, together: list[_Entry], width: int) -> list[list[_Entry]]:
    """What is in each window (t-W, t] that contains an event and ends at one."""
    ends = {other.time for other in together if other.time - width < entry.time <= other.time}
    return [[other for other in together if end - width < other.time <= end] for end in ends]


def _count(entry: _Entry, before: list[_Entry], width: int, counting: Correlation) -> int:
    """How many events alike are in the fullest window around one."""
    alike = [
        other for other in before if _likeness(other.event, counting) == _likeness(entry.event, counting)
    ]
    if "params" in counting.same and _hides(entry.event.params):
        return 0
    return max(map(len, _windows(entry, [*alike, entry], width)))


def _likeness(event: AuditEvent, counting: Correlation) -> tuple[str | None, ...]:
    params = json.dumps(event.params, sort_keys=True)
    return tuple({"tool": event.tool, "params": params}[name] for name in counting.same)


def _hides(params: dict[str, Any] | None) -> bool:
    return "[redacted]" in (params or {}).values()


def _values(entry: _Entry, before: list[_Entry], width: int, counting: Correlation) -> int:
    """How many different values of a field are in the fullest window around one; of the field with the most."""
    peaks = [0]
    for field in counting.fields:
        together = [other for other in [*before, entry] if _value(other.event, field) is not None]
        if entry in together:
            windows = _windows(entry, together, width)
            peaks += [len({_value(other.event, field) for other in window}) for window in windows]
    return max(peaks)


def _value(event: AuditEvent, field: str) -> str | None:
    if field == "network":
        address = event.source_ip
        return None if address is None else address.rpartition(".")[0]  # the oracle's logs have IPv4 only
    names = {"session": "session_id", "key": "key_id", "client": "client_id"}
    value: str | None = getattr(event, names.get(field, field))
    return value


def _sequence(
    entry: _Entry, before: list[_Entry], width: int, counting: Correlation, new: tuple[int, ...]
) -> int:
    """The number of steps, if some events in their order have the event among them, as a `new` step, within W."""
    steps = len(counting.events)
    in_order = sorted([*before, entry], key=lambda each: (each.time, each.at))

    def complete(chosen: list[_Entry]) -> bool:
        if chosen and chosen[-1].time - chosen[0].time >= width:
            return False
        if len(chosen) == steps:
            return any(chosen[step] is entry for step in new)
        # an event may stand for the step behind its own as well, where the rule lets it
        later = in_order[in_order.index(chosen[-1]) + (not counting.in_one_call) :] if chosen else in_order
        return any(complete([*chosen, each]) for each in later if len(chosen) in each.steps)

    return steps if complete([]) else 0


_PEAKS = {"event_count": _count, "value_count": _values}
