"""Checks of a call by the policy: its tool, its paths and URLs, its scope, its record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mcpwatch.detection.case import Case, Found
from mcpwatch.detection.enforcement import DisabledTool, Enforcement
from mcpwatch.detection.hit import Severity
from mcpwatch.event import AuditEvent, is_open
from mcpwatch.formats.reader import lacking_fields
from mcpwatch.policy.verdict import Finding, Verdict
from mcpwatch.text import safe

BY_OUTCOME: Final[dict[Verdict, dict[str, Severity]]] = {
    Verdict.VIOLATION: {
        "success": Severity.CRITICAL,
        **dict.fromkeys(("unknown", "error", "timeout"), Severity.HIGH),
        **dict.fromkeys(("denied", "unauthenticated", "rate_limited"), Severity.MEDIUM),
    },
    Verdict.AMBIGUOUS: {"success": Severity.HIGH},
}
"""Severity of path and domain hits by verdict and outcome; medium where nothing is said."""

_ASPECT_CHECKS: Final = {"path": "path-outside", "domain": "domain-unexpected"}


def shell(case: Case) -> Iterable[Found]:
    """A shell is called, whatever comes of it; a record that only names one is no call."""
    if case.what.kind == "tool_call" or case.event.params is not None:
        yield Found("shell-execute", Severity.HIGH, f"shell tool called, {case.outcome}")


def unlisted(case: Case) -> Iterable[Found]:
    """A tool is called that the policy, which denies those, does not list."""
    yield Found("tool-unlisted", Severity.MEDIUM, f"not in the policy's list of tools, {case.outcome}")
    if case.what.status == "success":
        yield gap("tool", "a tool that the policy does not list was called with success")


def disabled(case: Case) -> Iterable[Found]:
    """A tool is called that the policy has switched off; what comes of it tells whether that bites."""
    assert case.what.tool is not None
    since = case.policy.tools[case.what.tool].since
    if since is not None and case.time_ns < since:
        return
    yield Found("tool-disabled", Severity.MEDIUM, f"disabled by the policy, {case.outcome}")
    restriction = DisabledTool(case.what.tool, since)
    if case.what.status == "success":
        early = since is not None and case.time_ns <= since + case.policy.alerts.enforcement_grace
        case.note(Enforcement(restriction, case.time_ns, refused=False, early=early))
        if not early:
            yield gap("tool", "a disabled tool was called with success")
    elif case.what.status == "denied" and not case.restrictions and arguments_fine(case):
        case.note(Enforcement(restriction, case.time_ns, refused=True))


def arguments(case: Case) -> Iterable[Found]:
    """The paths and URLs of a call are not what the policy allows."""
    judged: set[str] = set()
    for finding in argument_findings(case):
        # the worst of each aspect comes first, and a rule fires once on an event
        if finding.verdict is not Verdict.NOT_EVALUABLE and finding.aspect not in judged:
            judged.add(finding.aspect)
            yield Found(
                _ASPECT_CHECKS[finding.aspect], severity_of(finding, case.what.status), finding.reason
            )


def severity_of(finding: Finding, status: str) -> Severity:
    """How bad a path or domain finding is, by what came of the call."""
    if finding.critical:
        return Severity.CRITICAL
    return BY_OUTCOME[finding.verdict].get(status, Severity.MEDIUM)


def scope(case: Case) -> Iterable[Found]:
    """The caller lacks the scope that the tool requires."""
    finding = scope_finding(case)
    if finding is None or finding.verdict is not Verdict.VIOLATION:
        return
    yield Found("scope-missing", Severity.MEDIUM, f"{finding.reason}, {case.outcome}")
    if case.what.status == "success":
        yield gap("scope", "a call succeeded without the scope that the policy requires")


def audit(case: Case) -> Iterable[Found]:
    """The record lacks what it must have, as the tool requires an audit log."""
    later = ("status", "duration") if is_open(case.event) else ()
    lacking = [name for name in lacking_fields(case.event) if name is not None and name not in later]
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


def tool_changed(case: Case) -> Iterable[Found]:
    """The tool's definition is not the one that the policy knows."""
    expected = case.policy.tools[case.what.tool or ""].definition_sha256
    shown = case.event.definition_sha256
    if expected is not None and shown is not None and shown.lower().removeprefix("sha256:") != expected:
        reason = (
            f"the definition in the log is {safe(shown, 20)}, the policy has {expected[:12]}…, {case.outcome}"
        )
        yield Found("tool-changed", Severity.HIGH, reason)


def scope_finding(case: Case) -> Finding | None:
    """The verdict on the caller's effective scopes; None where no tool or resource is asked for."""
    if case.what.judge is None:
        return None
    scopes = case.event.scopes
    if scopes is not None:
        return case.what.judge.scope(scopes)
    known = case.policy.keys.get(case.who.identity["key"] or "")
    return case.what.judge.scope(known.scopes if known is not None else None)


def arguments_fine(case: Case) -> bool:
    """Whether nothing is wrong with the scope, the paths and the URLs of a call."""
    scope = scope_finding(case)
    return (scope is None or scope.fine) and not argument_findings(case)


def argument_findings(case: Case) -> tuple[Finding, ...]:
    """What is not fine about the paths and URLs of a call, or of a resource that is read."""
    judge = case.what.judge
    # a request without a tool is judged where it reads a resource
    judged = case.what.tool is not None or _names_resource(case.event)
    return judge.findings(case.event.params) if judge is not None and judge.needs_params and judged else ()


def gap(gap: str, reason: str) -> Found:
    """What is found where something is not enforced."""
    return Found("enforcement-gap", Severity.CRITICAL, reason, gap)


def otherwise_allowed(case: Case) -> bool:
    """Whether the policy would allow the call if its caller were not restricted: only then does `denied` prove it."""
    judge = case.what.judge
    if judge is not None and (not judge.enabled or (not judge.listed and case.policy.deny_unlisted)):
        return False
    return arguments_fine(case)


def _names_resource(event: AuditEvent) -> bool:
    return event.params is not None and "uri" in event.params
