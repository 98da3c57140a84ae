"""The stateless rules: what can be said of an event by itself, by the policy, and by who made it.

Which checks can fire is worked out once for every kind of call and every caller (`for_shape`, `for_caller`). Before
those on a kind of call stands a guard, which looks at the event alone and says cheaply whether any can fire.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Final, NamedTuple, TypeVar

from mcpwatch.credentials import PROCESS_KEY, find, fingerprint, mask
from mcpwatch.detection.book import Book, found_name
from mcpwatch.detection.hit import Severity, Subject
from mcpwatch.detection.principal import PRINCIPAL, Identity, subject_of
from mcpwatch.detection.reference import NEVER, Link, ReferenceTime
from mcpwatch.detection.rule import Rule
from mcpwatch.event import REFUSALS, REQUEST_KINDS, AuditEvent, Caller, Flag, Shape
from mcpwatch.filter import KIND, Filter
from mcpwatch.formats.reader import lacking_fields, lacks_a_field
from mcpwatch.policy.address import canonical
from mcpwatch.policy.judge import Judge, ToolJudge
from mcpwatch.policy.marks import HOSTILE, SECRET, SENSITIVE, TAMPER, Mark, bits_in, bits_of, marks
from mcpwatch.policy.model import Key, Lockout, Policy, Revocation, Tier, ToolPolicy
from mcpwatch.policy.params import in_repository
from mcpwatch.policy.tiers import is_shell, may_read, may_write
from mcpwatch.policy.verdict import Finding, Verdict
from mcpwatch.text import redact_text, safe
from mcpwatch.times import DAY, SECOND, format_duration, parse_time, utc_midnight


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
    """What a check finds: its name, which rules stand on, how bad it is, and why.

    Attributes:
        gap: What was not enforced, or which log is broken: part of the subject.
        nobody: It is about a log and not about whoever the record names.
    """

    check: str
    severity: Severity
    reason: str
    gap: str | None = None
    nobody: bool = False


@dataclass(frozen=True, slots=True)
class What:
    """Everything that is the same for all events of one shape.

    Attributes:
        guard: Cheap look at the event alone; false when no check can fire on it. None where there is no check.
    """

    kind: str
    tool: str | None
    status: str
    tier: Tier | None
    judge: ToolJudge | None
    guard: Guard | None
    checks: tuple[Check, ...]

    @property
    def example(self) -> AuditEvent:
        """An event of this kind."""
        return AuditEvent(event=self.kind, tool=self.tool, status=self.status)


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
    wakes: int
    """No check fires on an event before this time, ns."""


@dataclass(slots=True)
class Case:
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
    fingerprint_key: bytes = PROCESS_KEY
    _marks: tuple[Mark, ...] | None = None

    @property
    def marks(self) -> tuple[Mark, ...]:
        """What stands out in the parameters, whatever the policy says."""
        if self._marks is None:
            params = self.event.params
            found = marks(params, own=self.judge.own) if params is not None else ()
            if params is not None and in_repository(params):
                found = tuple(mark for mark in found if not _is_elsewhere(mark))
            self._marks = found
        return self._marks


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

_WRITES: Final = re.compile(
    r">|\b(?:tee|cp|mv|ln|install|chmod|chown|touch|rm|dd|sed|perl|python3?|node|ruby|crontab|visudo|systemctl|rsync|scp"
    r"|curl|wget|patch|git|truncate|unlink|vi|vim|nano|ed|set-content|add-content|out-file|copy-item)\b",
    re.IGNORECASE,
)
"""What in a shell command may write a file."""
_NO_HASH: Final = re.compile(r"(?:sha256:)?0*|genesis|none|null", re.IGNORECASE)
_REPOSITORY_PATH: Final = re.compile(r"(?!.*\.\.)[\w.-]+(?:/[\w. -]+)*", re.ASCII)
"""A path inside a repository: any caller can name one beside a path of this machine, and must gain nothing by it."""
_IN_REPOSITORY: Final = frozenset(
    {
        "MCP configuration",
        "agent configuration",
        "editor configuration",
        "git hooks or configuration",
        "CI workflow",
    }
)
"""Tampering that works from inside a repository too."""
_TELLING: Final = frozenset({"none", "jwt", "oauth"})
"""Methods of authentication that there is something to say of."""
_TOKENS: Final = frozenset({"jwt", "oauth"})
_MAX_CHAINS: Final = 1_000
_MAX_TIME_TEXT: Final = 64
_ASPECT_CHECKS: Final = {"path": "path-outside", "domain": "domain-unexpected"}
KEY_AGE: Final = 90 * DAY
"""Age at which a key is due for rotation, where a rule doesn't say it."""
TOKEN_LEEWAY: Final = 60 * SECOND
"""How far the clocks of issuer and server may be apart, where a rule doesn't say it."""
IDENTIFIED_WITHIN: Final = 300_000_000_000
"""A source "otherwise names its callers" if it did so in the five minutes before: no rule looks further back."""


def for_shape(shape: Shape, judge: ToolJudge | None, policy: Policy, book: Book) -> What:
    """What is known of a kind of event, with the checks that can fire on it.

    `judge` is the tool's, or that of resource reads for a request that is no tool call.
    """
    called = judge if shape.kind == "tool_call" else None
    tier = called.tier if called is not None else None
    guards: list[Guard] = []
    checks: list[Check] = []
    if called is not None:
        guards, checks = _tool_checks(called, policy, book)
    elif shape.kind == "request" and judge is not None and judge.needs_params:
        guards.append(partial(_suspect_request, judge, _alarming(book)))
        checks += [_arguments, _secrets, _sensitive_read]
    if book.wants("hostile-text"):
        hostile_name = shape.tool is not None and bits_of(shape.tool) & HOSTILE
        if hostile_name or called is None:
            guards.append(_always if hostile_name else _suspect_text)
        checks.append(_hostile_text)
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


def _names_resource(event: AuditEvent) -> bool:
    return event.params is not None and "uri" in event.params


def _suspect_error(event: AuditEvent) -> object:
    return event.error is not None and bits_of(event.error) & HOSTILE


def _suspect_text(event: AuditEvent) -> object:
    return _suspect_error(event) or (event.params is not None and bits_in(event.params) & HOSTILE)


def _tool_checks(judge: ToolJudge, policy: Policy, book: Book) -> tuple[list[Guard], list[Check]]:
    """The checks that can fire on calls of a tool, and the guards before them."""
    tool, row, wants = judge.tool, judge.policy or ToolPolicy(), book.wants
    scope, audited = row.require_scope, row.require_audit_log
    reads, writes = may_read(tool), may_write(tool)
    always: tuple[tuple[bool, Check], ...] = (
        (is_shell(tool) and wants("shell-execute"), _shell),
        (not judge.listed and policy.deny_unlisted, _unlisted),
        (not judge.enabled, _disabled),
    )
    on_params: tuple[tuple[bool, int, Check], ...] = (
        (judge.needs_params, 0, _arguments),
        (wants("secret-in-params"), SECRET, _secrets),
        (wants("hostile-text"), HOSTILE, _hostile_text),
        (wants("policy-tampering") and writes, TAMPER, _tampering),
        (wants("sensitive-read") and reads, SENSITIVE, _sensitive_read),
    )
    others: tuple[tuple[bool, Check], ...] = (
        (scope is not None, _scope),
        (audited, _audit),
        (row.definition_sha256 is not None and wants("tool-changed"), _tool_changed),
    )
    checks = [check for applies, check in (*always, *others) if applies]
    alarming = 0
    for applies, mark, check in on_params:
        if applies:
            alarming |= mark
            if check is not _hostile_text:  # which looks at more than parameters, and is there already
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
        errors: Whether the error message is looked at.
        defined: Whether the tool's definition is.
    """
    suspects = judge.suspects

    def guard(event: AuditEvent) -> object:
        if alarming is not None and suspects(event.params, alarming):
            return True
        if scope is not None and ((scopes := event.scopes) is None or scope not in scopes):
            return True
        if errors and event.error is not None and bits_of(event.error) & HOSTILE:
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
    stale = _stale_checks(policy.keys.get(key or ""), book)
    if identified and not (revocations or lockouts or policy.keys or stale or hostile or method in _TELLING):
        return Who(identity, subject_of(PRINCIPAL, identity), identified, (), (), (), -NEVER)
    table: tuple[tuple[bool, int, Check], ...] = (
        (bool(revocations), min((entry.at for entry in revocations), default=NEVER), _revoked),
        (bool(lockouts), min((entry.at for entry in lockouts), default=NEVER), _locked),
        (key is not None and bool(policy.keys) and key not in policy.keys, NEVER, _key_unknown),
        (method == "none", NEVER, _no_credentials),
        (not identified and method != "none", NEVER, _nobody),
        (hostile, NEVER, _hostile_ids),
        *((method in _TOKENS, NEVER, _token_check(rule)) for rule in book.parametric("token-lifetime")),
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
    judged: set[str] = set()
    for finding in _argument_findings(case):
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
            # the failure that a lockout is for was refused before there was a lockout
            if case.time_ns > entry.at:
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


def _secrets(case: Case) -> Iterable[Found]:
    found = [
        (mark.name, secret.kind, mark.value[secret.start : secret.end])
        for mark in case.marks
        if mark.kind == "secret"
        for secret in find(mark.value)
    ]
    if found:
        name, kind, text = found[0]
        place = safe(redact_text(name), 60)
        shown = f"{kind} in {place}: {safe(mask(text), 60)}, fingerprint {fingerprint(text, case.fingerprint_key)}"
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        yield Found("secret-in-params", Severity.HIGH, f"{shown}{more}, {_outcome(case)}")


def _tampering(case: Case) -> Iterable[Found]:
    shell = case.what.tool is not None and is_shell(case.what.tool)
    if shell and _WRITES.search(str(case.event.params)) is None:
        return  # a command that only reads such a file tampers with nothing
    for mark in case.marks:
        if mark.kind == "tampering":
            severity = BY_OUTCOME[Verdict.VIOLATION][case.what.status]
            if in_repository(case.event.params or {}) and _REPOSITORY_PATH.fullmatch(mark.value):
                severity = Severity.MEDIUM  # somebody still has to merge or check it out
            reason = f"{mark.what} written, {_outcome(case)}: {safe(redact_text(mark.value), 80)}"
            yield Found("policy-tampering", severity, reason)
            return


def _sensitive_read(case: Case) -> Iterable[Found]:
    if case.what.status not in ("success", "unknown"):
        return
    for mark in case.marks:
        if mark.kind == "sensitive":
            yield Found(
                "sensitive-read", Severity.MEDIUM, f"{mark.what} read: {safe(redact_text(mark.value), 80)}"
            )
            return


def _hostile_text(case: Case) -> Iterable[Found]:
    event = case.event
    where = [(mark.name, mark.what) for mark in case.marks if mark.kind == "hostile"]
    for name, text in (("the tool's name", event.tool), ("the error", event.error)):
        if text is not None and bits_of(text) & HOSTILE:
            where += [(name, mark.what) for mark in marks(text) if mark.kind == "hostile"]
    if where:
        yield Found("hostile-text", Severity.MEDIUM, f"{where[0][1]} in {safe(redact_text(where[0][0]), 60)}")


def _hostile_ids(case: Case) -> Iterable[Found]:
    for name, text in case.who.identity.items():
        found = [mark for mark in marks(text) if mark.kind == "hostile"] if text else []
        if found:
            yield Found("hostile-text", Severity.MEDIUM, f"{found[0].what} in the {name.replace('_', ' ')}")
            return


def _tool_changed(case: Case) -> Iterable[Found]:
    expected = case.policy.tools[case.what.tool or ""].definition_sha256
    shown = case.event.definition_sha256
    if expected is not None and shown is not None and shown.lower().removeprefix("sha256:") != expected:
        reason = f"the definition in the log is {safe(shown, 20)}, the policy has {expected[:12]}…, {_outcome(case)}"
        yield Found("tool-changed", Severity.HIGH, reason)


def broken_chain(event: AuditEvent, source: ReferenceTime) -> Found | None:
    """What doesn't fit between a record and the one before it in the same log, by their numbers and hashes.

    A number of 0 or 1 that does not follow is the beginning of a new log: a server that starts anew counts anew.
    """
    before = source.chains.get(event.server)
    number, expected = event.sequence, event.prev_hash
    if before is None or (number in (0, 1) and before.sequence != number - 1):
        if before is None and len(source.chains) >= _MAX_CHAINS:
            source.chains.clear()
        source.chains[event.server] = Link(number, event.hash)
        if before is None or expected is None or expected == before.hash or _NO_HASH.fullmatch(expected):
            return None
        return _broken(
            event, f"record {number} begins a new log, and yet is chained to a record that is not there"
        )
    source.chains[event.server] = Link(number if number is not None else before.sequence, event.hash)
    if number is not None and before.sequence is not None and number != before.sequence + 1:
        lost = number - before.sequence - 1
        said = f"{lost} records are missing" if lost > 0 else "the numbers go back"
        return _broken(event, f"record {number} follows on record {before.sequence}: {said}")
    if expected is not None and before.hash is not None and expected != before.hash:
        return _broken(event, "the record before is not the one that this record was chained to")
    return None


def _broken(event: AuditEvent, problem: str) -> Found:
    return Found("audit-gap", Severity.HIGH, problem, safe(event.server or event.source, 200), nobody=True)


def _stale_checks(key: Key | None, book: Book) -> list[tuple[bool, int, Check]]:
    """For each rule about old keys: whether it can fire, from when on, and its check."""
    if key is None or key.created is None:
        return []
    created = utc_midnight(key.created)
    found: list[tuple[bool, int, Check]] = []
    for rule in book.parametric("key-stale"):
        stale = created + rule.settings.get("age", KEY_AGE)
        found.append((True, stale, _stale_check(rule, created, stale)))
    return found


def _stale_check(rule: Rule, created: int, stale: int) -> Check:
    def check(case: Case) -> Iterable[Found]:
        if case.time_ns > stale and case.what.kind != "session_end":
            age = (case.time_ns - created) // DAY
            yield Found(
                found_name(rule, "key-stale"), Severity.LOW, f"the key is {age} days old, {_outcome(case)}"
            )

    return check


def _token_check(rule: Rule) -> Check:
    leeway = rule.settings.get("leeway", TOKEN_LEEWAY)
    name = found_name(rule, "token-lifetime")

    def check(case: Case) -> Iterable[Found]:
        auth = case.event.auth
        if auth is None or case.what.status != "success" or case.what.kind == "session_end":
            return
        expires = _auth_time(auth.expires_at)
        issued = _auth_time(auth.issued_at)
        longest = case.policy.alerts.token_lifetime
        if auth.expires_at is None and (auth.method or "").lower() != "jwt":
            return  # it may be opaque, and known to its issuer alone
        if auth.expires_at is None:
            # a log that tells neither time may just not write them
            severity = Severity.LOW if auth.issued_at is None else Severity.MEDIUM
            yield Found(name, severity, "the record shows no expiry of the token")
        elif expires is None:
            yield Found(name, Severity.MEDIUM, "the expiry of the token can't be read")
        elif case.time_ns > expires + leeway:
            late = format_duration(case.time_ns - expires)
            yield Found(name, Severity.HIGH, f"the token had expired {late} before, and the call succeeded")
        elif expires - (begins := _begins(issued, case.time_ns + leeway)) > longest:
            lifetime = format_duration(expires - begins)
            reason = f"the token is valid for {lifetime}; the policy allows {format_duration(longest)}"
            yield Found(name, Severity.LOW, reason)

    return check


def _begins(issued: int | None, used: int) -> int:
    """When a token was issued, ns: before it was used at the latest, whatever it says of itself."""
    return used if issued is None else min(issued, used)


def _auth_time(value: str | float | None) -> int | None:
    if value is None or (isinstance(value, str) and len(value) > _MAX_TIME_TEXT):
        return None  # nor is it kept
    return _known_time(value)


@lru_cache(maxsize=8_192)
def _known_time(value: str | float) -> int | None:
    found = parse_time(value)
    return found[0] if found is not None else None


def _gap(gap: str, reason: str) -> Found:
    return Found("enforcement-gap", Severity.CRITICAL, reason, gap)


def _is_elsewhere(mark: Mark) -> bool:
    """Whether what stands out in a call about a repository is a file that does nothing there."""
    about_files = mark.kind in ("sensitive", "tampering")
    return (
        about_files and mark.what not in _IN_REPOSITORY and _REPOSITORY_PATH.fullmatch(mark.value) is not None
    )


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
    return (scope is None or scope.fine) and not _argument_findings(case)


def _argument_findings(case: Case) -> tuple[Finding, ...]:
    judge = case.what.judge
    # a request without a tool is judged where it reads a resource
    judged = case.what.tool is not None or _names_resource(case.event)
    return judge.findings(case.event.params) if judge is not None and judge.needs_params and judged else ()


def _otherwise_allowed(case: Case) -> bool:
    """Whether the policy would allow the call if its caller were not restricted: only then does `denied` prove it."""
    judge = case.what.judge
    if judge is not None and (not judge.enabled or (not judge.listed and case.policy.deny_unlisted)):
        return False
    return _arguments_fine(case)
