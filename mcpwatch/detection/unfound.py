"""Why a check found nothing in a record: what it looked for, and what was there instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from mcpwatch.detection.callchecks import scope_finding
from mcpwatch.detection.callerchecks import IDENTIFIED_WITHIN, KEY_AGE, TOKEN_LEEWAY
from mcpwatch.detection.case import Case
from mcpwatch.detection.rule import Rule
from mcpwatch.event import REQUEST_KINDS
from mcpwatch.policy.model import Key, Revocation, ToolPolicy
from mcpwatch.policy.tiers import is_shell, may_read, may_write
from mcpwatch.policy.verdict import Verdict
from mcpwatch.text import SafeText, safe
from mcpwatch.times import DAY, format_duration, iso, utc_midnight


class Silence(NamedTuple):
    """Why nothing was found.

    Attributes:
        concerned: Whether the check is about such records at all.
        reason: One clause.
    """

    concerned: bool
    reason: SafeText


def why_nothing(check: str, rule: Rule, case: Case) -> Silence:
    """Why a check, by its name in `rule.CHECK_NAMES`, found nothing for a rule in an event that it was asked of."""
    concerned, reason = _REASONS[check](case, rule)
    return Silence(concerned, safe(reason, 400))


_Reason = Callable[[Case, Rule], tuple[bool, str]]
_NO_CALL: Final = (False, "no call of a tool")


def _key(case: Case) -> Key | None:
    return case.policy.keys.get(case.who.identity["key"] or "")


def _row(case: Case) -> ToolPolicy:
    return (case.what.judge.policy if case.what.judge is not None else None) or ToolPolicy()


def _is_call(case: Case) -> bool:
    return case.what.kind == "tool_call" and case.what.judge is not None


def _not_success(case: Case) -> tuple[bool, str]:
    return True, f"it did not succeed: outcome {case.what.status}"


def _gap(case: Case, _: Rule) -> tuple[bool, str]:
    judge = case.what.judge
    scope = scope_finding(case) if _is_call(case) else None
    disabled = _is_call(case) and judge is not None and not judge.enabled
    unlisted = _is_call(case) and judge is not None and not judge.listed and case.policy.deny_unlisted
    lacking = scope is not None and scope.verdict is Verdict.VIOLATION
    if not (case.restrictions or disabled or unlisted or lacking):
        return False, "the policy forbids neither the caller nor the tool, and no scope is missing"
    if case.what.status != "success":
        return _not_success(case)
    since = _row(case).since
    if disabled and since is not None and case.time_ns < since:
        return True, "the tool was not yet disabled then"
    grace = format_duration(case.policy.alerts.enforcement_grace)
    return True, f"within the grace of {grace} that servers have to notice a change"


def _unauthenticated(case: Case, _: Rule) -> tuple[bool, str]:
    if case.what.kind not in REQUEST_KINDS:
        return False, f"no request: {case.what.kind}"
    if case.who.identified:
        return False, "the record names its caller"
    if case.what.status != "success":
        return _not_success(case)
    within = format_duration(IDENTIFIED_WITHIN)
    return True, f"nobody is named, but neither in the {within} around it in this log"


def _shell(case: Case, _: Rule) -> tuple[bool, str]:
    tool = case.what.tool
    return (False, "no shell tool") if _is_call(case) and tool and not is_shell(tool) else _NO_CALL


def _aspect(aspect: str, words: str) -> _Reason:
    def reason(case: Case, _: Rule) -> tuple[bool, str]:
        judge = case.what.judge
        if judge is None:
            return False, "no call of a tool, and no resource is read"
        found = [each for each in judge.explain(case.event.params) if each.aspect == aspect]
        if not judge.needs_params or not found:
            return False, f"no {words} among the parameters"
        worst = found[0]
        if worst.verdict is Verdict.NOT_APPLICABLE:
            return False, f"the tool is not restricted in {words}s"
        if worst.verdict is Verdict.NOT_EVALUABLE:
            return True, f"the {words} can't be judged: {worst.reason}"
        more = f"; {len(found) - 1} more, fine too" if len(found) > 1 else ""
        return True, f"the {words} is fine: {worst.reason}{more}"

    return reason


def _disabled(case: Case, _: Rule) -> tuple[bool, str]:
    if not _is_call(case):
        return _NO_CALL
    row = _row(case)
    if not row.enabled and row.since is not None:
        return True, f"the tool was disabled later, {iso(row.since)}"
    return False, "the tool is not disabled"


def _unlisted(case: Case, _: Rule) -> tuple[bool, str]:
    if not _is_call(case):
        return _NO_CALL
    if case.what.judge is not None and case.what.judge.listed:
        return False, "the policy lists the tool"
    return False, "the policy allows tools that it does not list"


def _scope(case: Case, _: Rule) -> tuple[bool, str]:
    finding = scope_finding(case)
    if not _is_call(case) or finding is None:
        return _NO_CALL
    return finding.verdict is not Verdict.NOT_APPLICABLE, finding.reason


def _audit(case: Case, _: Rule) -> tuple[bool, str]:
    if not _is_call(case):
        return _NO_CALL
    if not _row(case).require_audit_log:
        return False, "the policy does not require complete records of this tool"
    return True, "the record has all that is needed"


def _key_unknown(case: Case, _: Rule) -> tuple[bool, str]:
    if case.who.identity["key"] is None:
        return False, "the record names no key"
    if not case.policy.keys:
        return False, "the policy lists no keys"
    if _key(case) is not None:
        return False, "the policy knows the key"
    return _not_success(case) if case.what.status != "success" else (False, "the end of a session")


def _revoked(case: Case, _: Rule) -> tuple[bool, str]:
    if not any(isinstance(entry, Revocation) for entry in case.restrictions):
        return False, "the caller is not revoked"
    if case.what.kind == "session_end":
        return False, "the end of a session"
    return True, f"the caller is revoked, and was not refused: outcome {case.what.status}"


def _params(what: str) -> _Reason:
    def reason(case: Case, _: Rule) -> tuple[bool, str]:
        if not _is_call(case):
            return _NO_CALL
        if case.event.params is None:
            return False, "no parameters in the log"
        return True, f"{what} in the parameters"

    return reason


def _tampering(case: Case, rule: Rule) -> tuple[bool, str]:
    if _is_call(case) and not may_write(case.what.tool or ""):
        return False, "by its name the tool only reads"
    return _params("no path of agent configuration, start files, scheduled jobs, policy or log")(case, rule)


def _sensitive_read(case: Case, rule: Rule) -> tuple[bool, str]:
    if _is_call(case) and not may_read(case.what.tool or ""):
        return False, "by its name the tool only writes"
    if _is_call(case) and case.what.status not in ("success", "unknown"):
        return _not_success(case)
    return _params("no path of a file that holds secrets")(case, rule)


def _chain(case: Case, _: Rule) -> tuple[bool, str]:
    event = case.event
    if event.sequence is None and event.prev_hash is None and event.hash is None:
        return False, "the record has no number and no hash"
    return True, "it fits the record before, or is the first of its server"


def _token(case: Case, rule: Rule) -> tuple[bool, str]:
    if case.event.caller.method != "jwt":
        return False, "not authenticated by a JWT"
    if case.what.status != "success":
        return _not_success(case)
    if case.what.kind == "session_end":
        return False, "the end of a session"
    leeway = rule.settings.get("leeway", TOKEN_LEEWAY)
    longest = format_duration(case.policy.alerts.token_lifetime)
    return (
        True,
        f"not expired (leeway {format_duration(leeway)}), and not known to live longer than {longest}",
    )


def _stale(case: Case, rule: Rule) -> tuple[bool, str]:
    key = _key(case)
    if key is None or key.created is None:
        return False, "the policy does not say how old the key is"
    days = max(0, case.time_ns - utc_midnight(key.created)) // DAY
    limit = rule.settings.get("age", KEY_AGE) // DAY
    return True, f"the key is {days} days old; it is due for rotation after {limit}"


def _changed(case: Case, _: Rule) -> tuple[bool, str]:
    if not _is_call(case) or _row(case).definition_sha256 is None:
        return False, "the policy has no definition_sha256 of the tool"
    if case.event.definition_sha256 is None:
        return False, "the record does not tell the tool's definition"
    return True, "the definition is that of the policy"


def _hostile(case: Case, _: Rule) -> tuple[bool, str]:
    where = "tool, parameters, error and ids" if _is_call(case) else "error and ids"
    return True, f"no hidden or hostile text in {where}"


_REASONS: Final[Mapping[str, _Reason]] = MappingProxyType(
    {
        "enforcement-gap": _gap,
        "unauthenticated-success": _unauthenticated,
        "shell-execute": _shell,
        "path-outside": _aspect("path", "path"),
        "domain-unexpected": _aspect("domain", "URL"),
        "tool-disabled": _disabled,
        "tool-unlisted": _unlisted,
        "scope-missing": _scope,
        "audit-missing": _audit,
        "key-unknown": _key_unknown,
        "revoked-attempt": _revoked,
        "secret-in-params": _params("nothing of the form of a credential"),
        "policy-tampering": _tampering,
        "audit-gap": _chain,
        "token-lifetime": _token,
        "key-stale": _stale,
        "tool-changed": _changed,
        "hostile-text": _hostile,
        "sensitive-read": _sensitive_read,
    }
)
