"""The closed loop in words: what becomes of every restriction, told when it happens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from mcpwatch.detection.enforcement import DisabledTool, Restriction
from mcpwatch.policy.model import Lockout, Policy, Revocation
from mcpwatch.response.confirm import (
    Confirmations,
    ForceState,
    Identity,
    Turn,
    identity,
    restrictions_of,
    since,
    until,
)
from mcpwatch.response.lockout import Trigger
from mcpwatch.text import SafeText, safe
from mcpwatch.times import SECOND, format_duration, iso

SCHEMA: Final = "mcpwatch/1"

ReportKind = Literal["advised", "written", "in_force", "not_in_force", "ended"]

_CHANGE_OF: Final[dict[ForceState, ReportKind]] = {"in force": "in_force", "NOT IN FORCE": "not_in_force"}
STATE_NAMES: Final[dict[ForceState, str]] = {
    "written": "untested", "untested": "untested", "in force": "in_force", "NOT IN FORCE": "not_in_force",
}  # fmt: skip
"""How the states are named in JSON."""


@dataclass(frozen=True, slots=True)
class Report:
    """Something that happened to a restriction, or a lockout that is advised.

    Attributes:
        kind: `key`, `client`, `session`, `subject`, `lockout` or `tool`.
        subject: Whom or what it is about. Untrusted text.
        at_ns: Since when it holds; None for a tool that was disabled by hand.
        until_ns: When it ends by itself; None for never.
        seen_ns: When that was so: time of the event that shows it, else of the clock.
        after_ns: From the beginning to that event, for `in_force` and `not_in_force`.
        command: What writes it, for `advised`; None where there is no policy file.
    """

    change: ReportKind
    kind: str
    subject: tuple[tuple[str, str], ...]
    at_ns: int | None
    until_ns: int | None
    seen_ns: int
    after_ns: int | None = None
    command: SafeText | None = None


def _about(restriction: Restriction) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Kind and subject."""
    match restriction:
        case Revocation():
            return restriction.kind, ((restriction.kind, restriction.id),)
        case Lockout():
            named = (("key", restriction.key), ("source_ip", restriction.source_ip))
            return "lockout", tuple((name, value) for name, value in named if value is not None)
        case DisabledTool():
            return "tool", (("tool", restriction.tool),)


def _report(
    change: ReportKind, restriction: Restriction, seen_ns: int, after_ns: int | None = None
) -> Report:
    kind, subject = _about(restriction)
    return Report(change, kind, subject, since(restriction), until(restriction), seen_ns, after_ns)


def advised(trigger: Trigger, until_ns: int, command: SafeText | None) -> Report:
    """A lockout that somebody should write."""
    who = (("key", trigger.offender.key), ("source_ip", trigger.offender.source_ip))
    subject = tuple((name, value) for name, value in who if value is not None)
    return Report("advised", "lockout", subject, trigger.time_ns, until_ns, trigger.time_ns, command=command)


class Reporter:
    """Tells what becomes of the restrictions of a policy that may change at any time.

    What the policy holds when it begins is known and not told; whether it bites is.
    """

    def __init__(self, policy: Policy, now_ns: int) -> None:
        self._policy = policy
        self._lasting: dict[Identity, Restriction] = {
            identity(found): found for found in restrictions_of(policy) if not _over(found, now_ns)
        }
        self._known = {identity(found) for found in restrictions_of(policy)}

    def look(self, policy: Policy, turns: Iterable[Turn], now_ns: int) -> list[Report]:
        """What is new: first what the policy says, then what the log shows, then what is over."""
        reports = self._compare(policy, now_ns) if policy is not self._policy else []
        for turn in turns:
            change = _CHANGE_OF.get(turn.state)
            if change is not None:
                begin = since(turn.restriction)
                after = None if begin is None else max(turn.time_ns - begin, 0)
                reports.append(_report(change, turn.restriction, turn.time_ns, after))
        for name, restriction in list(self._lasting.items()):
            if _over(restriction, now_ns):
                del self._lasting[name]
                reports.append(_report("ended", restriction, until(restriction) or now_ns))
        return reports

    def _compare(self, policy: Policy, now_ns: int) -> list[Report]:
        self._policy = policy
        found = {identity(restriction): restriction for restriction in restrictions_of(policy)}
        reports = []
        for name, restriction in found.items():
            if name not in self._known:
                reports.append(_report("written", restriction, now_ns))
                self._lasting[name] = restriction
            elif name in self._lasting or not _over(restriction, now_ns):
                self._lasting[name] = restriction  # its end may be another
        gone = [name for name in self._lasting if name not in found]
        reports += [_report("ended", self._lasting.pop(name), now_ns) for name in gone]
        self._known = set(found)
        return reports


def _over(restriction: Restriction, now_ns: int) -> bool:
    end = until(restriction)
    return end is not None and end <= now_ns


def report_record(report: Report) -> dict[str, Any]:
    """A report as JSON."""
    record: dict[str, Any] = {
        "type": "restriction",
        "schema": SCHEMA,
        "change": report.change,
        "kind": report.kind,
        "subject": dict(report.subject),
        "at": _moment(report.at_ns),
        "until": _moment(report.until_ns),
        "seen": iso(report.seen_ns),
        "after_s": _seconds(report.after_ns),
    }
    if report.change == "advised":
        record["command"] = report.command
    return record


_WORDS: Final[dict[ReportKind, str]] = {
    "advised": "advised", "written": "written", "in_force": "in force", "not_in_force": "NOT IN FORCE",
    "ended": "ended",
}  # fmt: skip


def report_line(report: Report) -> SafeText:
    """A report as one plain line."""
    change = "confirmed" if (report.kind, report.change) == ("lockout", "in_force") else _WORDS[report.change]
    what = (
        "lockout of" if report.kind == "lockout" else "disabled tool" if report.kind == "tool" else "revoked"
    )
    names = " from ".join(
        f"{_KINDS.get(kind, kind)} {safe(value, 60)}".lstrip() for kind, value in report.subject
    )
    return SafeText(f"{iso(report.seen_ns)} {change:12} {what} {names}{_detail(report)}")


_KINDS: Final = {"source_ip": "address", "tool": ""}


def _detail(report: Report) -> str:
    match report.change:
        case "advised" if report.command is None:
            return ": there is no policy file to write it into"
        case "advised":
            return f": {report.command}"
        case "written":
            end = "" if report.until_ns is None else f" until {iso(report.until_ns)}"
            return f"{end}: untested, no attempt since"
        case "in_force" | "not_in_force" if report.after_ns is not None:
            seen = "refused" if report.change == "in_force" else "a success"
            return f": {seen} {format_duration(report.after_ns)} after the change"
        case _:
            return ""


def end_states(policy: Policy, confirmations: Confirmations) -> list[dict[str, Any]]:
    """Every restriction of a policy, with what the log shows of it, as JSON."""
    records = []
    for restriction in restrictions_of(policy):
        kind, subject = _about(restriction)
        state, seen_ns = confirmations.proof(restriction)
        begin = since(restriction)
        after = None if seen_ns is None or begin is None else max(seen_ns - begin, 0)
        records.append(
            {
                "kind": kind,
                "subject": dict(subject),
                "at": _moment(begin),
                "until": _moment(until(restriction)),
                "state": STATE_NAMES[state],
                "seen": _moment(seen_ns),
                "after_s": _seconds(after),
            }
        )
    return records


def _moment(ns: int | None) -> str | None:
    return None if ns is None else iso(ns)


def _seconds(ns: int | None) -> float | None:
    return None if ns is None else round(ns / SECOND, 6)
