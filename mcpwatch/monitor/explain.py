"""One record of a log, verdict by verdict and rule by rule."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from mcpwatch.detection.callchecks import scope_finding
from mcpwatch.detection.case import Case
from mcpwatch.detection.explain import Explained, Explainer
from mcpwatch.detection.rule import RuleSet
from mcpwatch.errors import Unusable
from mcpwatch.event import REQUEST_KINDS, AuditEvent, CallEnd
from mcpwatch.formats.pairing import Pairing
from mcpwatch.formats.reader import Reader
from mcpwatch.monitor.pipeline import Reading
from mcpwatch.policy.decide import Decision, decide
from mcpwatch.policy.model import Key, Lockout, Policy, Revocation, Tier
from mcpwatch.policy.tiers import KNOWN_TOOLS, VERBS, bare_name, is_shell, tier_of, words
from mcpwatch.policy.verdict import Finding
from mcpwatch.sources.block import MAX_LINE, Block
from mcpwatch.sources.saved import SavedLog
from mcpwatch.text import SafeText, safe

STDIN: Final = "stdin"
"""Name of the log that a record without a log is in."""

MAX_RECORD: Final = MAX_LINE
"""Longest record that is taken without a log, in bytes."""

RestrictionState = Literal["in_force", "in_grace", "over", "not_yet"]


class RecordError(Unusable):
    """There is no such record. The message says what is there, and what to do."""


@dataclass(frozen=True, slots=True)
class Restricted:
    """An entry of the policy that names the caller, and whether it holds at the time of the record."""

    entry: Revocation | Lockout
    state: RestrictionState


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that is said of one record.

    Attributes:
        before: How many events of its log were read before it.
        tier, tier_reason: Of its tool; None where no tool is called.
        findings: About its paths and URLs, the fine ones too, each with its parameter ("": what is missing).
        scope: Verdict on its caller's scopes; None where no tool or resource is asked for.
        key: Its key, if the policy knows it.
        restrictions: Revocations and lockouts that name its caller, whenever they hold.
        decision: What a server that enforces the policy answers; None for what is no request.
        explained: What the rules say.
    """

    event: AuditEvent
    before: int
    policy: Policy
    tier: Tier | None
    tier_reason: SafeText | None
    findings: tuple[tuple[SafeText, Finding], ...]
    scope: Finding | None
    key: Key | None
    restrictions: tuple[Restricted, ...]
    decision: Decision | None
    explained: Explained


def explain_line(log: SavedLog, number: int, policy: Policy, rules: RuleSet, how: Reading,
                 after_block: Callable[[], None] = lambda: None) -> Explanation:  # fmt: skip
    """Explain a line of a log, once everything before it is read: windows are as full as they were then.

    A call that is logged in two lines is explained as it came out, whichever of them is named.

    Args:
        number: Of the line, from 1; through all files of a rotation set.
        after_block: Called now and then while reading.

    Raises:
        RecordError: The log has no such line, or there is no record in it.
        SourceError: The log can't be read up to there.
    """
    record, number = _find(log, number, policy, how, after_block)
    explainer = Explainer(policy, rules, record, how.logs)
    reader = _reader(log.name, how, policy)
    for block in log.blocks():
        assert block.line is not None
        at = number - block.line
        if at >= len(block.lines):
            explainer.observe(reader.read(block))
            after_block()
            continue
        explainer.observe(reader.read(_part(block, 0, at)))
        return _explanation(explainer, record, reader.events)
    raise RecordError(f"{log.name}: was changed while it was read: try again")


def _find(
    log: SavedLog, number: int, policy: Policy, how: Reading, after_block: Callable[[], None]
) -> tuple[AuditEvent, int]:
    """The record of a line, and the line it stands in, which for the end of a call is that of the beginning.

    Where no call takes two lines only that line is understood, so what is wrong with it is known soon.
    """
    last = 0
    for block in log.blocks():
        assert block.line is not None
        last = block.line + len(block.lines) - 1
        if number <= last:
            at = number - block.line
            part, reader = _part(block, at, at + 1), _reader(log.name, how, policy)
            events = reader.read(part)
            if reader.pairing.taken:
                return _find_call(log, number, _reader(log.name, how, policy), after_block)
            return _record(events, reader, part), number
    lines = f"{last} line{'s' * (last != 1)}" if last else "no lines"
    raise RecordError(f"{log.name}: there is no line {number}: it has {lines}")


def _find_call(
    log: SavedLog, number: int, reader: Reader, after_block: Callable[[], None]
) -> tuple[AuditEvent, int]:
    """The call that begins or ends in a line, as it came out, and the line where it begins."""
    start: AuditEvent | None = None
    for block in log.blocks():
        for event in reader.read(block):
            if isinstance(event, CallEnd):
                if event.start is start or event.end_line == number:
                    event.apply()
                    return event.start, event.line or number
            elif event.line == number:
                start = event
        if start is not None and not reader.pairing.waits_for(start):
            break
        after_block()
    if start is None:
        raise RecordError(f"{log.name}: line {number}: is the end of a call that is over, and adds nothing")
    return start, number


def explain_record(data: bytes, policy: Policy, rules: RuleSet, how: Reading) -> Explanation:
    """Explain a record that is in no log: a line, or an object that was printed over several.

    Raises:
        RecordError: It is none, or more than one.
    """
    line = data.strip()
    if len(line) > MAX_RECORD:
        raise RecordError(f"{STDIN}: more than {MAX_RECORD >> 20} MiB: give one record")
    if b"\n" in line:
        # within JSON a newline means nothing, and within its strings there can be none
        joined = line.replace(b"\n", b" ")
        if not _is_json(joined):
            count = sum(1 for each in line.splitlines() if each.strip())
            raise RecordError(f"{STDIN}: {count} lines: give one record, or save them and name LOG:LINE")
        line = joined
    reader, block = _reader(STDIN, how, policy), Block(STDIN, [line], 0, 1)
    event = _record(reader.read(block), reader, block)
    return _explanation(Explainer(policy, rules, event, how.logs), event, 0)


def _reader(name: str, how: Reading, policy: Policy) -> Reader:
    reader = Reader(name, mappings=how.mappings, format_name=how.format_name, coverage=False)
    reader.pairing = Pairing(policy.alerts.allowed_lateness)
    return reader


def _part(block: Block, start: int, end: int) -> Block:
    """Some lines of a block as a block of their own."""
    assert block.line is not None
    if start == 0 and end == len(block.lines):
        return block
    lines, line = block.lines[start:end], block.line + start
    return Block(block.source, lines, block.offset_at(start), line, written_ns=block.written_ns)


def _record(events: list[AuditEvent], reader: Reader, block: Block) -> AuditEvent:
    """The event of a block of one line. Raises RecordError if there is none."""
    if len(events) == 1:
        return events[0]
    where = block.source if block.source == STDIN else f"{block.source}: line {block.line}"
    if events:
        raise RecordError(f"{where}: {len(events)} records in one line: give each a line of its own")
    if reader.pairing.taken:
        raise RecordError(
            f"{where}: is the end of a call, and says nothing by itself: name its line in the log"
        )
    if not reader.examples or reader.examples[-1].offset != block.offset:
        raise RecordError(f"{where}: is blank: name a line with a record")
    found = reader.examples[-1]
    count = _objects(block.lines[0])
    advice = (
        f"{count} records in one line: give each a line of its own" if count > 1 else f"begins {found.head}"
    )
    raise RecordError(safe(f"{where}: is no audit record: {found.reason}; {advice}", 400))


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode("utf-8", "backslashreplace"), strict=False), dict)
    except (ValueError, RecursionError):
        return False


def _objects(line: bytes) -> int:
    """How many JSON objects a line holds, one behind the other or in a list."""
    text = line.decode("utf-8", "backslashreplace").strip()
    decoder, at, count = json.JSONDecoder(strict=False), 0, 0
    try:
        while at < len(text):
            value, at = decoder.raw_decode(text, at)
            count += len(value) if isinstance(value, list) else 1
            while at < len(text) and text[at] in " \t\r,;":
                at += 1
    except (ValueError, RecursionError):
        return 0
    return count


def _explanation(explainer: Explainer, event: AuditEvent, before: int) -> Explanation:
    explained, engine = explainer.explain(event), explainer.engine
    case, policy = explained.case, engine.policy
    judge, is_call = case.what.judge, case.what.kind == "tool_call"
    caller, tool = event.caller, event.tool if is_call else None
    decision = None
    if case.what.kind in REQUEST_KINDS:
        decision = decide(
            engine.judge, key=caller.key, client=caller.client, session=caller.session, subject=caller.subject,
            source_ip=caller.source_ip, tool=tool, params=event.params, scopes=event.scopes, at_ns=case.time_ns,
        )  # fmt: skip
    return Explanation(
        event=event,
        before=before,
        policy=policy,
        tier=case.what.tier,
        tier_reason=tier_reason(policy, tool) if tool is not None else None,
        findings=tuple(_named(judge.explain_each(event.params))) if judge is not None else (),
        scope=scope_finding(case) if is_call else None,
        key=policy.keys.get(caller.key or ""),
        restrictions=tuple(_restricted(case)),
        decision=decision,
        explained=explained,
    )


def _named(findings: tuple[tuple[str, Finding], ...]) -> Iterator[tuple[SafeText, Finding]]:
    for name, finding in findings:
        yield safe(name, 80), finding


def _restricted(case: Case) -> Iterator[Restricted]:
    entries: tuple[Revocation | Lockout, ...] = (*case.who.revocations, *case.who.lockouts)
    for entry in entries:
        state: RestrictionState = "in_force"
        if case.time_ns < entry.at:
            state = "not_yet"
        elif entry.until is not None and case.time_ns >= entry.until:
            state = "over"
        elif case.time_ns <= entry.at + case.policy.alerts.enforcement_grace:
            state = "in_grace"
        yield Restricted(entry, state)


def tier_reason(policy: Policy, tool: str) -> SafeText:
    """Why a tool is in its risk tier."""
    row = policy.tools.get(tool)
    if row is not None and row.risk is not None:
        return SafeText("by risk in its row of the policy")
    if tool in policy.risk_tiers:
        return SafeText("by risk_tiers in the policy")
    if bare_name(tool) in KNOWN_TOOLS:
        return SafeText("a well-known tool")
    if is_shell(tool):
        return SafeText("a shell")
    telling = sorted(words(tool) & VERBS.get(tier_of(policy, tool), frozenset()))
    if telling:
        return safe(f"by its name: {', '.join(telling)}", 120)
    return SafeText("nothing in its name says more")
