"""The stateless rules: what can be said of an event by itself, by the policy, and by who made it.

Which checks can fire is worked out once for every kind of call and every caller (`for_shape`, `for_caller`). Before
those on a kind of call stands a guard, which looks at the event alone and says cheaply whether any can fire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from mcpwatch.detection.hit import Severity, Subject
from mcpwatch.detection.principal import PRINCIPAL, Identity, subject_of
from mcpwatch.event import REFUSALS, REQUEST_KINDS, AuditEvent, Caller, Flag, Shape
from mcpwatch.formats.reader import lacking_fields, lacks_a_field
from mcpwatch.policy.judge import Judge, ToolJudge
from mcpwatch.policy.model import Lockout, Policy, Revocation, Tier, ToolPolicy
from mcpwatch.policy.tiers import is_shell
from mcpwatch.policy.verdict import Finding, Verdict


class DisabledTool(NamedTuple):
    """A tool that is switched off, and since when, ns: switched on and off again it is another restriction."""

    tool: str
    since: int | None


Restriction = Revocation | Lockout | DisabledTool
"""What is being enforced: an entry of the policy, or a disabled tool."""

_Entry = TypeVar("_Entry", Revocation, Lockout)


class Enforcement(NamedTuple):
    """An event that tells whether a restriction bites: a refusal proves that it does, a success that it does not.

    A success within the grace (`early`) proves nothing yet; it only takes back what a refusal before seemed to prove.
    """

    restriction: Restriction
    time_ns: int
    refused: bool
    early: bool = False


class Found(NamedTuple):
    """What a check says: the rule that fires, how bad, and why. `gap` names what was not enforced."""

    rule: str
    severity: Severity
    reason: str
    gap: str | None = None


@dataclass(frozen=True, slots=True)
class What:
    """Everything that is the same for all events of one shape.

    Attributes:
        feeds: Which windows count it: of tool calls, of requests, of failures.
        guard: Cheap look at the event alone; false when no check can fire on it. None where there is no check.
    """

    kind: str
    tool: str | None
    status: str
    tier: Tier | None
    judge: ToolJudge | None
    feeds: frozenset[str]
    guard: Guard | None
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Who:
    """Everything that is the same for all events of one caller."""

    identity: Identity
    principal: Subject | None
    identified: bool
    """Has a key, a subject or a client."""
    revocations: tuple[Revocation, ...]
    lockouts: tuple[Lockout, ...]
    checks: tuple[Check, ...]


class Case(NamedTuple):
    """One event before the checks.

    Attributes:
        time_ns: The event's time, or the best guess where it has none.
        identified_ns: When a caller was last named in this source; before every time if never.
    """

    event: AuditEvent
    who: Who
    what: What
    time_ns: int
    identified_ns: int
    policy: Policy
    judge: Judge
    enforcement: list[Enforcement]


Check = Callable[[Case], Iterable[Found]]
Guard = Callable[[AuditEvent], object]
"""False when the check can't fire on this event."""

BY_OUTCOME: Final[dict[Verdict, dict[str, Severity]]] = {
    Verdict.VIOLATION: {
        "success": Severity.CRITICAL,
        **dict.fromkeys(("unknown", "error", "timeout"), Severity.HIGH),
        **dict.fromkeys(("denied", "unauthenticated", "rate_limited"), Severity.MEDIUM),
    },
    Verdict.AMBIGUOUS: {"success": Severity.HIGH},
}
"""Severity of path and domain hits by verdict and outcome; medium where nothing is said."""

_FAILED_LOGIN: Final = frozenset({"unauthenticated", "denied", "error"})
_ASPECT_RULES: Final = {"path": "path-outside", "domain": "domain-unexpected"}
IDENTIFIED_WITHIN: Final = 300_000_000_000
"""A source "otherwise names its callers" if it did so in the five minutes before: no rule looks further back."""


def for_shape(shape: Shape, judge: ToolJudge | None, policy: Policy) -> What:
    """What is known of a kind of event, with the checks that can fire on it."""
    feeds = set()
    if shape.kind == "tool_call":
        feeds.add("call")
    if shape.kind in REQUEST_KINDS:
        feeds.add("request")
    if shape.status == "unauthenticated" or (shape.kind == "auth" and shape.status in _FAILED_LOGIN):
        feeds.add("failure")
    guard, checks = (
        _tool_checks(judge, policy) if judge is not None and shape.kind == "tool_call" else (None, ())
    )
    return What(
        kind=shape.kind,
        tool=shape.tool,
        status=shape.status,
        tier=judge.tier if judge is not None and shape.kind == "tool_call" else None,
        judge=judge,
        feeds=frozenset(feeds),
        guard=guard,
        checks=checks,
    )


def _tool_checks(judge: ToolJudge, policy: Policy) -> tuple[Guard | None, tuple[Check, ...]]:
    """The checks that can fire on calls of a tool, and the guard before them."""
    tool, rules = judge.tool, judge.policy or ToolPolicy()
    always: tuple[tuple[bool, Check], ...] = (
        (is_shell(tool), _shell),
        (not judge.listed and policy.deny_unlisted, _unlisted),
        (not judge.enabled, _disabled),
    )
    scope, audited = rules.require_scope, rules.require_audit_log
    sometimes: tuple[tuple[bool, Check], ...] = (
        (judge.needs_params, _arguments),
        (scope is not None, _scope),
        (audited, _audit),
    )
    checks = tuple(check for applies, check in (*always, *sometimes) if applies)
    if any(applies for applies, _ in always):
        return _always, checks
    findings = judge.findings
    suspects: Callable[[Mapping[str, object] | None], object] = (
        findings if judge.restricted else judge.may_fetch
    )

    def suspect_arguments(event: AuditEvent) -> object:
        return suspects(event.params)

    def suspect_scope(event: AuditEvent) -> object:
        scopes = event.scopes
        return scopes is None or scope not in scopes or suspects(event.params)

    def suspect_record(event: AuditEvent) -> object:
        return lacks_a_field(event) or (scope is not None and suspect_scope(event)) or findings(event.params)

    guards = (
        (audited, suspect_record),
        (scope is not None, suspect_scope),
        (judge.needs_params, suspect_arguments),
    )
    return next((guard for applies, guard in guards if applies), None), checks


def _always(_: AuditEvent) -> object:
    return True


def for_caller(caller: Caller, judge: Judge, policy: Policy) -> Who:
    """What is known of a caller, with the checks that can fire on their events."""
    key = caller.key
    identity: Identity = {
        "key": key,
        "known_key": key if key in policy.keys else None,
        "client": caller.client,
        "session": caller.session,
        "subject": caller.subject,
        "source_ip": caller.source_ip,
    }
    revocations = judge.revocations(
        key=key, client=caller.client, session=caller.session, subject=caller.subject
    )
    lockouts = judge.lockouts(key=key, source_ip=caller.source_ip)
    identified = any(identity[name] is not None for name in ("key", "subject", "client"))
    method = caller.method
    table: tuple[tuple[bool, Check], ...] = (
        (bool(revocations), _revoked),
        (bool(lockouts), _locked),
        (key is not None and bool(policy.keys) and key not in policy.keys, _key_unknown),
        (method == "none", _no_credentials),
        (not identified and method != "none", _nobody),
    )
    return Who(
        identity=identity,
        principal=subject_of(PRINCIPAL, identity),
        identified=identified,
        revocations=revocations,
        lockouts=lockouts,
        checks=tuple(check for applies, check in table if applies),
    )


def _shell(case: Case) -> Iterable[Found]:
    yield Found("shell-execute", Severity.HIGH, f"shell tool called, {_outcome(case)}")


def _unlisted(case: Case) -> Iterable[Found]:
    yield Found("tool-unlisted", Severity.MEDIUM, f"not in the policy's list of tools, {_outcome(case)}")
    if case.what.status == "success":
        yield _gap("tool", "a tool that the policy does not list was called with success")


def _disabled(case: Case) -> Iterable[Found]:
    assert case.what.tool is not None
    since = case.policy.tools[case.what.tool].since
    if since is not None and case.time_ns < since:
        return
    yield Found("tool-disabled", Severity.MEDIUM, f"disabled by the policy, {_outcome(case)}")
    restriction = DisabledTool(case.what.tool, since)
    if case.what.status == "success":
        early = since is not None and case.time_ns <= since + case.policy.alerts.enforcement_grace
        _note(case, Enforcement(restriction, case.time_ns, refused=False, early=early))
        if not early:
            yield _gap("tool", "a disabled tool was called with success")
    elif case.what.status == "denied" and not _restrictions(case) and _arguments_fine(case):
        _note(case, Enforcement(restriction, case.time_ns, refused=True))


def _arguments(case: Case) -> Iterable[Found]:
    assert case.what.judge is not None
    judged: set[str] = set()
    for finding in case.what.judge.findings(case.event.params):
        # the worst of each aspect comes first, and a rule fires once on an event
        if finding.verdict is not Verdict.NOT_EVALUABLE and finding.aspect not in judged:
            judged.add(finding.aspect)
            yield Found(_ASPECT_RULES[finding.aspect], severity_of(finding, case.what.status), finding.reason)


def severity_of(finding: Finding, status: str) -> Severity:
    """How bad a path or domain finding is, by what came of the call."""
    if finding.critical:
        return Severity.CRITICAL
    return BY_OUTCOME[finding.verdict].get(status, Severity.MEDIUM)


def _scope(case: Case) -> Iterable[Found]:
    finding = _scope_finding(case)
    if finding is None or finding.verdict is not Verdict.VIOLATION:
        return
    yield Found("scope-missing", Severity.MEDIUM, f"{finding.reason}, {_outcome(case)}")
    if case.what.status == "success":
        yield _gap("scope", "a call succeeded without the scope that the policy requires")


def _audit(case: Case) -> Iterable[Found]:
    lacking = [name for name in lacking_fields(case.event) if name is not None]
    if lacking:
        yield Found("audit-missing", Severity.MEDIUM, f"the record lacks {', '.join(lacking)}")
    elif case.what.judge is not None and case.what.judge.needs_params:
        for finding in case.what.judge.findings(case.event.params):
            if finding.verdict is Verdict.NOT_EVALUABLE:
                yield Found(
                    "audit-missing",
                    Severity.MEDIUM,
                    f"the {finding.aspect} can't be judged: {finding.reason}",
                )
                return


def _revoked(case: Case) -> Iterable[Found]:
    entries = _in_force(case.who.revocations, case.time_ns)
    if case.what.kind == "session_end" or not entries:
        return
    status = case.what.status
    if status in REFUSALS:
        _note_refusal(case, entries)
        yield Found("revoked-attempt", Severity.LOW, f"revoked {entries[0].kind} was refused ({status})")
    elif ignored := _note_success(case, entries):
        yield _gap("revoked", f"the {ignored[0].kind} is revoked, and the call succeeded")


def _locked(case: Case) -> Iterable[Found]:
    entries = _in_force(case.who.lockouts, case.time_ns)
    if case.what.kind == "session_end" or not entries:
        return
    _note_refusal(case, entries)
    if _note_success(case, entries):
        yield _gap("locked", "locked out, and the call succeeded")


def _restrictions(case: Case) -> list[Revocation | Lockout]:
    """What the caller is under at the time of the call."""
    return [*_in_force(case.who.revocations, case.time_ns), *_in_force(case.who.lockouts, case.time_ns)]


def _in_force(entries: Iterable[_Entry], time_ns: int) -> list[_Entry]:
    return [
        entry for entry in entries if entry.at <= time_ns and (entry.until is None or time_ns < entry.until)
    ]


def _note(case: Case, seen: Enforcement) -> None:
    # a record from the future would prove for ever what nothing after it can take back
    if not case.event.flags & Flag.FUTURE_TIME:
        case.enforcement.append(seen)


def _note_refusal(case: Case, entries: Iterable[_Entry]) -> None:
    """A refusal proves the entries, unless the call may have been denied for what it asked."""
    status = case.what.status
    if status == "unauthenticated" or (status == "denied" and _otherwise_allowed(case)):
        for entry in entries:
            _note(case, Enforcement(entry, case.time_ns, refused=True))


def _note_success(case: Case, entries: Iterable[_Entry]) -> list[_Entry]:
    """The entries that a success disproves: those that the server has had time to learn of."""
    if case.what.status != "success":
        return []
    grace = case.policy.alerts.enforcement_grace
    ignored = []
    for entry in entries:
        early = case.time_ns <= entry.at + grace
        _note(case, Enforcement(entry, case.time_ns, refused=False, early=early))
        if not early:
            ignored.append(entry)
    return ignored


def _key_unknown(case: Case) -> Iterable[Found]:
    if case.what.status == "success" and case.what.kind != "session_end":
        yield Found(
            "key-unknown", Severity.MEDIUM, "the key is not among the policy's keys, and the call succeeded"
        )


def _no_credentials(case: Case) -> Iterable[Found]:
    if case.what.status == "success" and case.what.kind in REQUEST_KINDS:
        yield Found("unauthenticated-success", Severity.CRITICAL, "succeeded with auth.method none")


def _nobody(case: Case) -> Iterable[Found]:
    if (
        case.what.status == "success"
        and case.what.kind in REQUEST_KINDS
        and abs(case.time_ns - case.identified_ns) < IDENTIFIED_WITHIN
    ):
        yield Found(
            "unauthenticated-success", Severity.CRITICAL,
            "succeeded without key, subject and client, on a source that names its callers",
        )  # fmt: skip


def _gap(gap: str, reason: str) -> Found:
    return Found("enforcement-gap", Severity.CRITICAL, reason, gap)


def _outcome(case: Case) -> str:
    return f"outcome {case.what.status}"


def _scope_finding(case: Case) -> Finding | None:
    if case.what.judge is None:
        return None
    scopes = case.event.scopes
    if scopes is not None:
        return case.what.judge.scope(scopes)
    known = case.policy.keys.get(case.who.identity["key"] or "")
    return case.what.judge.scope(known.scopes if known is not None else None)


def _arguments_fine(case: Case) -> bool:
    scope = _scope_finding(case)
    judge = case.what.judge
    return (scope is None or scope.fine) and (
        judge is None or not judge.needs_params or not judge.findings(case.event.params)
    )


def _otherwise_allowed(case: Case) -> bool:
    """Whether the policy would allow the call if its caller were not restricted: only then does `denied` prove it."""
    judge = case.what.judge
    if judge is not None and (not judge.enabled or (not judge.listed and case.policy.deny_unlisted)):
        return False
    return _arguments_fine(case)
