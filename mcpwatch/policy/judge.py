"""The judge: what the policy says of one call. The monitor judges with it and a guard can enforce with it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping
from functools import partial
from itertools import islice
from typing import Final

from mcpwatch.policy.address import canonical
from mcpwatch.policy.effort import MAX_VALUES, Effort
from mcpwatch.policy.marks import ALL, bits_in, bits_of
from mcpwatch.policy.model import Lockout, Policy, PrincipalKind, Revocation, Tier, ToolPolicy
from mcpwatch.policy.params import (
    NEITHER,
    PATH,
    TOO_MUCH,
    URL,
    Part,
    Roles,
    cut_at,
    in_repository,
    parts_of,
    withheld,
)
from mcpwatch.policy.paths import judge_path, looks_windows
from mcpwatch.policy.remembered import MAX_NAME, WORDS, Bad, Call, Known, Memory, is_small, kin_of
from mcpwatch.policy.tiers import tier_of
from mcpwatch.policy.urls import judge_url
from mcpwatch.policy.verdict import Finding, Verdict
from mcpwatch.text import safe

MAX_TOOLS: Final = 4_096
"""Tools whose judges are kept; further ones are judged the same way, only slower."""
_FEW: Final = 32
"""Parameters of an ordinary call, at most. More of them share the effort, and nothing is kept of them."""
_NONE: Final[tuple[Finding, ...]] = ()

_ASPECTS: Final = ("path", "domain")
_RANK: Final = {
    Verdict.VIOLATION: 0,
    Verdict.AMBIGUOUS: 1,
    Verdict.NOT_EVALUABLE: 2,
    Verdict.ALLOWED: 3,
    Verdict.NOT_APPLICABLE: 4,
}


def _worst_first(finding: Finding) -> tuple[int, bool, int]:
    return _ASPECTS.index(finding.aspect), not finding.critical, _RANK[finding.verdict]


_NOTHING: Final[Known] = {}
_BEYOND: Final = Part("", None, PATH | URL, TOO_MUCH)
"""Stands for the parameters beyond those that are looked at."""
_ASPECTS_SEEN: Final = PATH | URL
_MARKS: Final = 2
"""Where the bits of the marks begin."""


class ToolJudge:
    """What the policy says of the calls of one tool.

    Attributes:
        tool: Its name, as the log spells it. Untrusted text.
        listed: Whether the policy has a row for it.
        enabled: Whether that row leaves it enabled; True without a row.
        policy: Its row.
        restricted: Whether the row limits paths or domains.
        needs_params: Whether `findings` can find anything; if not, parameters needn't be looked at.
    """

    __slots__ = (
        "_complete", "_in_repository", "_known", "_memory", "_own", "_roles", "_windows", "enabled", "listed",
        "needs_params", "policy", "restricted", "tier", "tool",
    )  # fmt: skip

    def __init__(
        self, policy: Policy, tool: str, memory: Memory | None = None, own: tuple[str, ...] = ()
    ) -> None:
        self.tool = tool
        self.tier: Tier = tier_of(policy, tool)
        self.policy: ToolPolicy | None = policy.tools.get(tool)
        self.listed = self.policy is not None
        self.enabled = self.policy is None or self.policy.enabled
        self._roles = Roles.of(tool, self.policy)
        self._own = own
        row = self.policy or ToolPolicy()
        self._windows = looks_windows(row.allowed_paths)
        self.restricted = row.allowed_paths is not None or row.allowed_domains is not None
        inert = self._roles.known is not None and self._roles.known.inert and row.url_params is None
        # an unrestricted tool may still be sent to a cloud metadata address
        self.needs_params = self.restricted or not inert
        # a tool that takes no paths and URLs lacks none, whatever its row limits
        nameless = inert and row.path_params is None
        self._complete = tuple(nameless or _complete(row, seen) for seen in range(4))
        self._memory = memory or Memory()
        self._known = self._memory.new()
        # relative paths of calls about a repository are judged differently
        self._in_repository = self._memory.new()

    def suspects(self, params: Mapping[str, object] | None, alarming: int) -> object:
        """Whether anything about a call's parameters could be worth a second look. Never wrong when it says no.

        This is asked of every call, and nearly always answered from what is known of equal values.

        Args:
            alarming: Which marks are worth one, as bits of `policy.marks`.
        """
        if type(params) is not dict:
            return params is not None or self.restricted
        known = self._known
        repository = "owner" in params and in_repository(params)
        if repository:
            known = self._in_repository
        if len(params) > _FEW:
            if len(params) > MAX_VALUES:
                return True
            known = _NOTHING
        seen = 0
        for item in params.items():
            try:
                seen |= known[item]  # type: ignore[operator]
            except (KeyError, TypeError):
                result = self._look(item, known, repository, params)
                if isinstance(result, Bad):
                    return True
                seen |= result
        return seen >> _MARKS & alarming or not self._complete[seen & _ASPECTS_SEEN]

    def findings(self, params: Mapping[str, object] | None) -> tuple[Finding, ...]:
        """What is not fine about the paths and URLs of a call: paths first, the worst of each first.

        Never raises. When all is fine it is always the same empty tuple.
        """
        if not self.needs_params:
            return _NONE
        if not isinstance(params, dict):
            if not isinstance(params, Mapping):
                return self._unseen("no parameters in the log")
            params = dict(params)
        known = self._known
        repository = "owner" in params and in_repository(params)
        if repository:
            known = self._in_repository
        if len(params) > _FEW:
            known = _NOTHING
        seen = 0
        bad: list[Finding] = []
        for item in islice(params.items(), MAX_VALUES):
            try:
                seen |= known[item]  # type: ignore[operator]
            except (KeyError, TypeError):
                result = self._look(item, known, repository, params)
                if isinstance(result, Bad):
                    seen |= result.seen
                    bad += result.findings
                else:
                    seen |= result
        if len(params) > MAX_VALUES:
            bad += [each for each in self._judge_part(_BEYOND, repository) if not each.fine]
        if not self._complete[seen & _ASPECTS_SEEN]:
            bad += self._unseen("no path or URL among the parameters", seen)
        return tuple(sorted(bad, key=_worst_first)) if bad else _NONE

    def explain(self, params: Mapping[str, object] | None) -> tuple[Finding, ...]:
        """Every finding about a call's paths and URLs, the fine ones too. Never raises."""
        return tuple(finding for _, finding in self.explain_each(params))

    def explain_each(self, params: Mapping[str, object] | None) -> tuple[tuple[str, Finding], ...]:
        """The same, each with its parameter: `path`, `edits.path` for one in `edits`, "" for what is missing.

        Names of parameters are untrusted text.
        """
        if not isinstance(params, Mapping):
            return tuple(("", finding) for finding in self._unseen("no parameters in the log"))
        repository = in_repository(params)
        found: list[tuple[str, Finding]] = []
        shared = Effort()
        for name, value in islice(params.items(), MAX_VALUES):
            outer = name if isinstance(name, str) else ""
            effort = None if len(params) <= _FEW and is_small(name, value) else shared
            for part in parts_of(self._roles, outer, value, effort):
                where = outer if part.name == outer else f"{outer}.{part.name}"
                found.extend((where, finding) for finding in self._judge_part(part, repository, effort))
        if len(params) > MAX_VALUES:
            found.extend(("", finding) for finding in self._judge_part(_BEYOND, repository))
        seen = _seen([finding for _, finding in found])
        if not self._complete[seen]:
            found.extend(
                ("", finding) for finding in self._unseen("no path or URL among the parameters", seen)
            )
        return tuple(sorted(found, key=lambda each: _worst_first(each[1])))

    def scope(self, scopes: Collection[str] | None) -> Finding:
        """Whether the caller's effective scopes (None when nobody knows them) hold the one the tool requires."""
        required = self.policy.require_scope if self.policy is not None else None
        if required is None:
            return Finding("scope", Verdict.NOT_APPLICABLE, "", "requires no scope")
        if scopes is None:
            return Finding("scope", Verdict.NOT_EVALUABLE, required, "the scopes of the caller are not known")
        if required in scopes:
            return Finding("scope", Verdict.ALLOWED, required, f"has scope {safe(required, 80)}")
        return Finding("scope", Verdict.VIOLATION, required, f"lacks scope {safe(required, 80)}")

    def marks_in(self, params: Mapping[str, object]) -> int:
        """Bits of the marks that a call's parameters can have: `policy.marks` finds none whose bit isn't set."""
        repository = in_repository(params)
        known = self._in_repository if repository else self._known
        if len(params) > _FEW:
            if len(params) > MAX_VALUES:
                return ALL
            known = _NOTHING
        bits = 0
        for item in params.items():
            result = self._look(item, known, repository, params)
            bits |= result.seen if isinstance(result, Bad) else result
        return bits >> _MARKS

    def _look(
        self, item: tuple[str, object], known: Known, repository: bool, params: Mapping[str, object]
    ) -> int | Bad:
        """The bits of one parameter, or what is not fine about it."""
        name, value = item
        with contextlib.suppress(KeyError, TypeError):
            return known[item]
        if len(params) > _FEW or not is_small(name, value):
            return self._look_at_large(name, value, repository, params)
        bits = (_bits(name, ()) | _bits(value, self._own)) << _MARKS
        kin = kin_of(value) if self.needs_params else WORDS
        if kin is not None and (result := known.get((name, kin))) is not None and isinstance(result, int):
            result |= bits
            self._memory.put(known, item, result)
            return result
        result = self._judged(name, value, repository, bits)
        if kin is not None and isinstance(result, int) and self._is_of_kin(name, kin, repository):
            self._memory.put(known, (name, kin), result & _ASPECTS_SEEN)
        self._memory.put(known, item, result)
        return result

    def _look_at_large(
        self, name: str, value: object, repository: bool, params: Mapping[str, object]
    ) -> int | Bad:
        """The same of a parameter of which nothing is kept beyond this call."""
        call = self._memory.call
        if call is None or call.params is not params or call.judge is not self:
            call = self._memory.call = Call(self, params)
        result = call.known.get(name)
        if result is None:
            bits = (_bits(name, ()) | _bits(value, self._own, call.search)) << _MARKS
            result = call.known[name] = self._judged(name, value, repository, bits, call.effort)
        return result

    def _judged(
        self, name: str, value: object, repository: bool, bits: int, effort: Effort | None = None
    ) -> int | Bad:
        found = self._judge(name, value, repository, effort) if self.needs_params else []
        seen = _seen(found) | bits
        bad = tuple(finding for finding in found if not finding.fine)
        return Bad(seen, bad) if bad else seen

    def _is_of_kin(self, name: str, kin: tuple[int, str], repository: bool) -> bool:
        """Whether a value that is fine tells that all of its kin are.

        Not so of one that has another role than it looks like, nor of an allowed file or folder itself: there the
        folder around it isn't allowed.
        """
        role, around = kin
        named, _ = self._roles.named(name)
        if self._windows or named | role != role:
            return False
        return role == NEITHER or all(part.fine for part in self._judge(name, around, repository))

    def _judge(
        self, name: object, value: object, repository: bool, effort: Effort | None = None
    ) -> list[Finding]:
        found: list[Finding] = []
        for part in parts_of(self._roles, name if isinstance(name, str) else "", value, effort):
            found.extend(self._judge_part(part, repository, effort))
        return found

    def _judge_part(self, part: Part, repository: bool, effort: Effort | None = None) -> list[Finding]:
        row = self.policy or ToolPolicy()
        trouble = part.trouble
        if isinstance(part.value, str) and withheld(part.value):
            trouble = "redacted in the log"
        # what is too much to be read through was made so by the caller, and may hide anything
        verdict = Verdict.AMBIGUOUS if trouble == TOO_MUCH else Verdict.NOT_EVALUABLE
        found = []
        if part.role & PATH:
            if trouble and row.allowed_paths is not None:
                found.append(Finding("path", verdict, _text(part.value), trouble))
            else:
                found.append(self._judge_path(part.value, row, repository, effort))
        if part.role & URL:
            if trouble and row.allowed_domains is not None:
                found.append(Finding("domain", verdict, _text(part.value), trouble))
            else:
                found.append(_judge_url(part.value, row.allowed_domains, effort))
        return found

    def _judge_path(self, value: object, row: ToolPolicy, repository: bool, effort: Effort | None) -> Finding:
        base_dir = None if repository else row.base_dir
        finding = judge_path(
            value, row.allowed_paths, base_dir=base_dir, windows=self._windows, effort=effort
        )
        if not isinstance(value, str) or row.allowed_paths is None or (cut := cut_at(value)) is None:
            return finding
        # What is left of a cut path can prove that it is outside, never that it is inside. A head that could still
        # become an allowed folder proves nothing.
        start, ends = cut
        head = value[:start]
        grows = any(root.startswith(head) and len(head) < len(root.rstrip("/")) for root in row.allowed_paths)
        if finding.fine or (ends and grows):
            return Finding("path", Verdict.NOT_EVALUABLE, value, "cut off in the log")
        return finding

    def _unseen(self, reason: str, seen: int = 0) -> tuple[Finding, ...]:
        """NOT_EVALUABLE for each restricted aspect of which the call shows nothing."""
        row = self.policy or ToolPolicy()
        found = []
        if row.allowed_paths is not None and not seen & PATH:
            found.append(Finding("path", Verdict.NOT_EVALUABLE, "", reason))
        if row.allowed_domains is not None and not seen & URL:
            found.append(Finding("domain", Verdict.NOT_EVALUABLE, "", reason))
        return tuple(found) if found else _NONE


def _bits(value: object, own: tuple[str, ...], effort: Effort | None = None) -> int:
    """The bits of the marks of a value, nested ones too."""
    if type(value) is str:
        return bits_of(value, own)
    if value is None or isinstance(value, int | float):
        return 0
    return bits_in(value, partial(bits_of, own=own), effort)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _seen(findings: list[Finding]) -> int:
    seen = 0
    for finding in findings:
        seen |= PATH if finding.aspect == "path" else URL
    return seen


def _judge_url(value: object, allowed: tuple[str, ...] | None, effort: Effort | None) -> Finding:
    finding = judge_url(value, allowed, effort)
    if not isinstance(value, str) or allowed is None or finding.critical or (cut := cut_at(value)) is None:
        return finding
    start, ends = cut
    host = value[:start].partition("://")[2].lower()
    if re.search(r"[/?#\\]", host):  # the host had ended before the cut
        return judge_url(value[:start], allowed)
    grows = any(entry.startswith("*") or entry.lower().startswith(host) for entry in allowed)
    if finding.fine or (ends and grows):
        return Finding("domain", Verdict.NOT_EVALUABLE, value, "cut off in the log")
    return finding


def _complete(row: ToolPolicy, seen: int) -> bool:
    """Whether the aspects seen in a call are all that its row needs to be judged by.

    Parameters that the policy names must be there. Otherwise one path or URL is enough, since a tool restricted in
    both may take either.
    """
    paths, urls = row.allowed_paths is not None, row.allowed_domains is not None
    if paths and row.path_params and not seen & PATH:
        return False
    if urls and row.url_params and not seen & URL:
        return False
    wanted = (PATH if paths else 0) | (URL if urls else 0)
    return not wanted or bool(seen & wanted)


class Judge:
    """The judge of one policy. A changed policy needs a new one.

    Attributes:
        own: Files that no tool has to change: the policy itself, and the logs that are watched.

    Args:
        logs: The paths of those.
    """

    def __init__(self, policy: Policy, logs: tuple[str, ...] = ()) -> None:
        self.policy = policy
        self.own = (*((str(policy.path),) if policy.path is not None else ()), *logs)
        self._tools: dict[str, ToolJudge] = {}
        self._memory = Memory()
        revoked: dict[tuple[PrincipalKind, str], tuple[Revocation, ...]] = {}
        for revocation in policy.revoked:
            name = (revocation.kind, revocation.id)
            revoked[name] = (*revoked.get(name, ()), revocation)
        self._revoked = revoked
        self.resources: ToolJudge | None = None
        """The judge of resource reads, once one was needed."""
        lockouts: dict[tuple[str | None, str | None], tuple[Lockout, ...]] = {}
        for lockout in policy.lockouts:
            whom = (lockout.key, None if lockout.source_ip is None else canonical(lockout.source_ip))
            lockouts[whom] = (*lockouts.get(whom, ()), lockout)
        self._lockouts = lockouts

    def for_tool(self, tool: str) -> ToolJudge:
        """The judge of one tool."""
        judge = self._tools.get(tool)
        if judge is None:
            kept = len(self._tools) < MAX_TOOLS and len(tool) <= MAX_NAME
            judge = ToolJudge(self.policy, tool, self._memory if kept else None, self.own)
            if kept:
                self._tools[tool] = judge
        return judge

    def revocations(
        self, *, key: str | None, client: str | None, session: str | None, subject: str | None
    ) -> tuple[Revocation, ...]:
        """Every revocation that names the principal, whenever it holds."""
        revoked = self._revoked
        if not revoked:
            return ()
        found: tuple[Revocation, ...] = ()
        if key is not None:
            found += revoked.get(("key", key), ())
        if client is not None:
            found += revoked.get(("client", client), ())
        if session is not None:
            found += revoked.get(("session", session), ())
        if subject is not None:
            found += revoked.get(("subject", subject), ())
        return found

    def lockouts(self, *, key: str | None, source_ip: str | None) -> tuple[Lockout, ...]:
        """Every lockout that names the caller, whenever it holds. One with key and address needs both."""
        lockouts = self._lockouts
        if not lockouts:
            return ()
        address = None if source_ip is None else canonical(source_ip)
        found: tuple[Lockout, ...] = ()
        if key is not None:
            found += lockouts.get((key, None), ())
        if address is not None:
            found += lockouts.get((None, address), ())
            if key is not None:
                found += lockouts.get((key, address), ())
        return found
