"""Which checks can fire: worked out once for every kind of event (`for_shape`) and every caller (`for_caller`).

Before those on a kind of event stands a guard, which looks at the event alone and says cheaply whether any can fire.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Final

from mcpwatch.detection import callchecks, callerchecks, textchecks
from mcpwatch.detection.book import Book, found_name
from mcpwatch.detection.case import Case, Check, Found, Guard, What, Who
from mcpwatch.detection.hit import Severity
from mcpwatch.detection.principal import PRINCIPAL, Identity, subject_of
from mcpwatch.detection.reference import NEVER
from mcpwatch.detection.rule import Rule
from mcpwatch.event import AuditEvent, Caller, Flag, Shape
from mcpwatch.filter import KIND, Filter
from mcpwatch.formats.reader import lacks_a_field
from mcpwatch.policy.address import canonical
from mcpwatch.policy.judge import Judge, ToolJudge
from mcpwatch.policy.marks import HOSTILE, SECRET, SENSITIVE, TAMPER, bits_in, is_hostile
from mcpwatch.policy.model import Policy, Tier, ToolPolicy
from mcpwatch.policy.tiers import is_shell, may_read, may_write
from mcpwatch.text import safe

_TELLING: Final = frozenset({"none", "jwt", "oauth"})
"""Methods of authentication that there is something to say of."""
_TOKENS: Final = frozenset({"jwt", "oauth"})
_TWICE: Final = int(Flag.DUPLICATE_KEYS)  # a plain number, as flags are asked for on every event


def for_shape(shape: Shape, judge: ToolJudge | None, policy: Policy, book: Book) -> What:
    """What is known of a kind of event, with the checks that can fire on it.

    `judge` is the tool's, or that of resource reads for a request that is no tool call. A record of another kind that
    names a tool is no call of it, but what it hands to the tool is judged all the same: one word in a record must not
    hide a path, a URL or a command.
    """
    named = shape.tool is not None and judge is not None
    called = judge if shape.kind == "tool_call" else None
    tier = called.tier if called is not None else None
    guards: list[Guard] = []
    checks: list[Check] = []
    if called is not None:
        guards, checks = _tool_checks(called, policy, book)
    elif judge is not None and (named or (shape.kind == "request" and judge.needs_params)):
        guards.append(partial(_suspect_request, judge, _alarming(book)))
        checks += [callchecks.arguments, textchecks.secrets, textchecks.sensitive_read]
        if named and is_shell(judge.tool) and book.wants("shell-execute"):
            guards.append(_has_params)
            checks.append(callchecks.shell)
    if book.wants("hostile-text"):
        hostile_name = shape.tool is not None and is_hostile(shape.tool)
        if hostile_name or called is None:
            guards.append(_always if hostile_name else _suspect_text)
        checks.append(textchecks.hostile_text)
    what = What(shape.kind, shape.tool, shape.status, tier, judge, None, ())
    for rule in book.own:
        match = rule.condition.match
        left = match.settle(what.example, tier, KIND) if match is not None else True
        if left is not False:
            guards.append(_always if left is True else _matching(left, tier))
            checks.append(_match_check(rule, left, tier))
    return replace(what, guard=_any_of(guards), checks=tuple(checks))


def _matching(match: Filter, tier: Tier | None) -> Guard:
    return lambda event: match.match(event, tier)


def _match_check(rule: Rule, left: Filter | bool, tier: Tier | None) -> Check:
    """The check of a rule that stands on nothing but a filter; `left` is what the kind of event leaves to ask."""
    reason = f"matches {safe(rule.condition.match, 200)}"

    def check(case: Case) -> Iterable[Found]:
        if left is True or (left is not False and left.match(case.event, tier)):
            yield Found(found_name(rule, None), rule.level or Severity.MEDIUM, reason)

    return check


def _any_of(guards: list[Guard]) -> Guard | None:
    """One guard for several: whether any of them lets the event through."""
    if _always in guards:
        return _always
    if len(guards) < 2:
        return guards[0] if guards else None
    first, second, *rest = guards
    if rest:
        return _any_of([lambda event: first(event) or second(event), *rest])
    return lambda event: first(event) or second(event)


def _alarming(book: Book) -> int:
    """Which marks matter in a request that is no tool call."""
    table = (("secret-in-params", SECRET), ("hostile-text", HOSTILE), ("sensitive-read", SENSITIVE))
    return sum(mark for check, mark in table if book.wants(check))


def _suspect_request(judge: ToolJudge, alarming: int, event: AuditEvent) -> object:
    return event.params is not None and judge.suspects(event.params, alarming)


def _has_params(event: AuditEvent) -> object:
    return event.params is not None


def _suspect_text(event: AuditEvent) -> object:
    return (
        event.flags & _TWICE
        or (event.error is not None and is_hostile(event.error))
        or (event.params is not None and bits_in(event.params) & HOSTILE)
    )


def _tool_checks(judge: ToolJudge, policy: Policy, book: Book) -> tuple[list[Guard], list[Check]]:
    """The checks that can fire on calls of a tool, and the guards before them."""
    tool, row, wants = judge.tool, judge.policy or ToolPolicy(), book.wants
    scope, audited = row.require_scope, row.require_audit_log
    reads, writes = may_read(tool), may_write(tool)
    always: tuple[tuple[bool, Check], ...] = (
        (is_shell(tool) and wants("shell-execute"), callchecks.shell),
        (not judge.listed and policy.deny_unlisted, callchecks.unlisted),
        (not judge.enabled, callchecks.disabled),
    )
    on_params: tuple[tuple[bool, int, Check], ...] = (
        (judge.needs_params, 0, callchecks.arguments),
        (wants("secret-in-params"), SECRET, textchecks.secrets),
        (wants("hostile-text"), HOSTILE, textchecks.hostile_text),
        (wants("policy-tampering") and writes, TAMPER, textchecks.tampering),
        (wants("sensitive-read") and reads, SENSITIVE, textchecks.sensitive_read),
    )
    others: tuple[tuple[bool, Check], ...] = (
        (scope is not None, callchecks.scope),
        (audited, callchecks.audit),
        (row.definition_sha256 is not None and wants("tool-changed"), callchecks.tool_changed),
    )
    checks = [check for applies, check in (*always, *others) if applies]
    alarming = 0
    for applies, mark, check in on_params:
        if applies:
            alarming |= mark
            if (
                check is not textchecks.hostile_text
            ):  # which looks at more than parameters, and is there already
                checks.append(check)
    if any(applies for applies, _ in always):
        return [_always], checks
    looks = bool(alarming) or judge.needs_params
    errors, defined = wants("hostile-text"), row.definition_sha256 is not None
    return [_tool_guard(judge, alarming if looks else None, scope, audited, errors, defined)], checks


def _tool_guard(
    judge: ToolJudge, alarming: int | None, scope: str | None, audited: bool, errors: bool, defined: bool
) -> Guard:
    """The guard of a tool's calls, in one piece: it is asked of every call.

    Args:
        alarming: Which marks of parameters matter; None if nothing of them does.
        scope: The scope that a caller must have.
        audited: Whether a record must be complete.
        errors: Whether the error message is looked at, and whether the record is ambiguous.
        defined: Whether the tool's definition is.
    """
    suspects = judge.suspects

    def guard(event: AuditEvent) -> object:
        if alarming is not None and suspects(event.params, alarming):
            return True
        if scope is not None and ((scopes := event.scopes) is None or scope not in scopes):
            return True
        if errors and (event.flags & _TWICE or (event.error is not None and is_hostile(event.error))):
            return True
        return (audited and lacks_a_field(event)) or (defined and event.definition_sha256 is not None)

    return guard


def _always(_: AuditEvent) -> object:
    return True


def for_caller(caller: Caller, judge: Judge, policy: Policy, book: Book) -> Who:
    """What is known of a caller, with the checks that can fire on their events."""
    key = caller.key
    identity: Identity = {
        "key": key,
        "known_key": key if key in policy.keys else None,
        "client": caller.client,
        "session": caller.session,
        "subject": caller.subject,
        "source_ip": canonical(caller.source_ip) if caller.source_ip is not None else None,
    }
    revocations = judge.revocations(
        key=key, client=caller.client, session=caller.session, subject=caller.subject
    )
    lockouts = judge.lockouts(key=key, source_ip=caller.source_ip)
    identified = key is not None or caller.subject is not None or caller.client is not None
    method = caller.method.lower() if caller.method is not None else ""
    names = (key, caller.client, caller.session, caller.subject, caller.source_ip)
    joined = "".join(name for name in names if name is not None)
    plain = joined.isascii() and joined.isprintable()
    hostile = book.wants("hostile-text") and not plain
    stale = callerchecks.stale_checks(policy.keys.get(key or ""), book)
    if identified and not (revocations or lockouts or policy.keys or stale or hostile or method in _TELLING):
        return Who(identity, subject_of(PRINCIPAL, identity), identified, (), (), (), -NEVER)
    table: tuple[tuple[bool, int, Check], ...] = (
        (bool(revocations), min((entry.at for entry in revocations), default=NEVER), callerchecks.revoked),
        (bool(lockouts), min((entry.at for entry in lockouts), default=NEVER), callerchecks.locked),
        (key is not None and bool(policy.keys) and key not in policy.keys, NEVER, callerchecks.key_unknown),
        (method == "none", NEVER, callerchecks.no_credentials),
        (not identified and method != "none", NEVER, callerchecks.nobody),
        (hostile, NEVER, textchecks.hostile_ids),
        *(
            (method in _TOKENS, NEVER, callerchecks.token_check(rule))
            for rule in book.parametric("token-lifetime")
        ),
        *stale,
    )
    return Who(
        identity=identity,
        principal=subject_of(PRINCIPAL, identity),
        identified=identified,
        revocations=revocations,
        lockouts=lockouts,
        checks=tuple(check for applies, _, check in table if applies),
        wakes=min((wakes for applies, wakes, _ in table if applies), default=-NEVER),
    )
