"""Decides a call as a server that enforces the policy does: the same code that the monitor judges with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from mcpwatch.policy.judge import Judge
from mcpwatch.policy.resources import judge_of_resources
from mcpwatch.policy.verdict import Finding, Verdict


@dataclass(frozen=True, slots=True)
class Decision:
    """What a server that enforces the policy answers.

    Attributes:
        reason: Why not, in one clause without untrusted text; "" when allowed.
        findings: What is not fine about the call.
    """

    allowed: bool
    status: Literal["success", "denied", "unauthenticated"]
    reason: str = ""
    findings: tuple[Finding, ...] = ()


_ALLOWED: Final = Decision(True, "success")


def decide(
    judge: Judge,
    *,
    key: str | None,
    client: str | None,
    session: str | None,
    subject: str | None,
    source_ip: str | None,
    tool: str | None,
    params: Mapping[str, object] | None,
    scopes: Collection[str] | None,
    at_ns: int,
) -> Decision:
    """Decide one call the way a server that enforces the policy does. In doubt the answer is no.

    Args:
        tool: None for a request that calls no tool: the principal matters then, and the resource that it reads.
        scopes: Of the credential as the server saw it; None takes those of the key in the policy.
        at_ns: The time of the call, nanoseconds.
    """
    for revocation in judge.revocations(key=key, client=client, session=session, subject=subject):
        if revocation.at <= at_ns and (revocation.until is None or at_ns < revocation.until):
            return Decision(False, "unauthenticated", f"{revocation.kind} is revoked")
    for lockout in judge.lockouts(key=key, source_ip=source_ip):
        if lockout.at <= at_ns < lockout.until:
            return Decision(False, "unauthenticated", "locked out")
    if tool is None:
        findings = _of_resource(judge, params)
        return _refused(*findings) if findings else _ALLOWED
    tool_judge = judge.for_tool(tool)
    if not tool_judge.listed and judge.policy.deny_unlisted:
        return _refused(Finding("tool", Verdict.VIOLATION, tool, "tool is not listed in the policy"))
    if not tool_judge.enabled:
        return _refused(Finding("tool", Verdict.VIOLATION, tool, "tool is disabled"))
    if scopes is None and key is not None and (known := judge.policy.keys.get(key)) is not None:
        scopes = known.scopes
    scope = tool_judge.scope(scopes)
    if not scope.fine:
        return _refused(scope)
    findings = tool_judge.findings(params)
    return _refused(*findings) if findings else _ALLOWED


def _refused(*findings: Finding) -> Decision:
    return Decision(False, "denied", f"{findings[0].aspect}: {findings[0].reason}", findings)


def _of_resource(judge: Judge, params: Mapping[str, object] | None) -> tuple[Finding, ...]:
    """What is not fine about the resource that a request reads; a name that only its server knows is."""
    if params is None or "uri" not in params:
        return ()
    if judge.resources is None:
        judge.resources = judge_of_resources(judge.policy)
    found = judge.resources.findings(params)
    return tuple(finding for finding in found if finding.verdict is not Verdict.NOT_EVALUABLE)
