"""Drafts a first policy from what a log shows: which tools were called, on what, by whom."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from posixpath import dirname
from typing import Final
from urllib.parse import urlsplit

from mcpwatch.event import AuditEvent, CallEnd
from mcpwatch.policy.edit import LONGEST_KEY, quoted, scalar
from mcpwatch.policy.judge import Judge, ToolJudge
from mcpwatch.policy.model import BUILT_IN, Policy, PolicyError, Tier, ToolPolicy
from mcpwatch.policy.paths import judge_path
from mcpwatch.policy.tiers import is_shell, tier_of
from mcpwatch.policy.urls import judge_url
from mcpwatch.policy.verdict import Verdict

MAX_TOOLS: Final = 1_000
MAX_KEYS: Final = 1_000
MAX_VALUES: Final = 200
"""Most paths, hosts and scopes that are remembered of one tool, and scopes of one key."""

_MAX_ROOTS: Final = 8
_MAX_NAME: Final = 200
_MAX_PATH: Final = 1_000
_MAX_SECTION: Final = 100_000  # characters; more than anybody reads, and far from what a policy file may hold
_HOST: Final = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*(?::\d{1,5})?")


@dataclass(slots=True)
class ToolSeen:
    """What the calls of one tool were about. Only calls that succeeded tell what it needs."""

    count: int = 0
    succeeded: int = 0
    folders: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    scopes: set[str] | None = None
    """Scopes that every successful call had; None before the first."""
    uncovered: set[str] = field(default_factory=set)
    """Which of `path` and `domain` had more than can be remembered, or something that no plain entry covers."""


@dataclass(slots=True)
class KeySeen:
    """What a key was used for, as far as calls succeeded."""

    client: str | None = None
    scopes: set[str] = field(default_factory=set)


@dataclass(slots=True)
class ToolsSeen:
    """What a log shows, collected event by event, in bounded memory."""

    tools: dict[str, ToolSeen] = field(default_factory=dict)
    keys: dict[str, KeySeen] = field(default_factory=dict)
    overlooked: int = 0
    """Calls of tools beyond the first thousand, or with names too long to list."""

    def add(self, event: AuditEvent) -> None:
        """Take note of one event; a call that ends is one that was noted when it began."""
        succeeded = event.status == "success"
        if succeeded and event.key_id:
            self._add_key(event.key_id, event)
        if not event.tool or event.event not in (None, "tool_call"):
            return
        tool = self.tools.get(event.tool)
        if tool is None:
            if len(self.tools) >= MAX_TOOLS or len(event.tool) > _MAX_NAME:
                self.overlooked += 1
                return
            tool = self.tools[event.tool] = ToolSeen()
        tool.count += not isinstance(event, CallEnd) or event.before.tool is None
        if not succeeded:
            return
        tool.succeeded += 1
        scopes = {scope for scope in event.scopes or () if 0 < len(scope) <= _MAX_NAME}
        tool.scopes = set(islice(scopes, MAX_VALUES)) if tool.scopes is None else tool.scopes & scopes
        if event.params:
            _add_params(tool, event.tool, event.params)

    def _add_key(self, name: str, event: AuditEvent) -> None:
        key = self.keys.get(name)
        if key is None:
            if len(self.keys) >= MAX_KEYS or len(name) > _MAX_NAME:
                return
            key = self.keys[name] = KeySeen()
        if event.client_id and len(event.client_id) <= _MAX_NAME:
            key.client = event.client_id
        for scope in event.scopes or ():
            if len(key.scopes) < MAX_VALUES and 0 < len(scope) <= _MAX_NAME:
                key.scopes.add(scope)


@lru_cache(maxsize=MAX_TOOLS)
def _nothing_allowed(tool: str) -> ToolJudge:
    # under a policy that allows nothing every path and host of a call is spelled out
    return Judge(Policy(tools={tool: ToolPolicy(allowed_paths=(), allowed_domains=())})).for_tool(tool)


def _add_params(tool: ToolSeen, name: str, params: Mapping[str, object]) -> None:
    for finding in _nothing_allowed(name).explain(params):
        if not finding.value:
            continue
        is_path = finding.aspect == "path"
        entries = tool.folders if is_path else tool.hosts
        entry = _folder(finding.value) if is_path else _host(finding.value)
        if entry is None or (len(entries) >= MAX_VALUES and entry not in entries):
            tool.uncovered.add(finding.aspect)
        else:
            entries.add(entry)


def _folder(value: str) -> str | None:
    """The entry that allows a path: its folder, or the path itself where that would be everything."""
    if not value.startswith("/") or len(value) > _MAX_PATH or {".", ".."} & set(value.split("/")):
        return None
    folder = (value if value.endswith("/") else dirname(value) + "/").replace("//", "/")
    entry = value if folder == "/" else folder
    return entry if entry != "/" and judge_path(value, (entry,)).verdict is Verdict.ALLOWED else None


def _host(value: str) -> str | None:
    """The entry that allows a URL: its host, with the port where it names one."""
    try:
        entry = urlsplit(value if "://" in value else f"//{value}").netloc.lower()
    except ValueError:
        return None
    if not _HOST.fullmatch(entry):
        return None
    return entry if judge_url(value, (entry,)).verdict is Verdict.ALLOWED else None


def _roots(folders: Iterable[str]) -> list[str]:
    """A few folders that hold all of the given ones, none of them nearer the top than its second level."""
    roots = set(folders)
    while True:
        roots = {root for root in roots if not any(_below(root, other) for other in roots)}
        deep = [root for root in roots if root.strip("/").count("/") >= 2]
        if len(roots) <= _MAX_ROOTS or not deep:
            return sorted(roots)
        deepest = max(deep, key=lambda root: (root.count("/"), root))
        roots = (roots - {deepest}) | {dirname(deepest.rstrip("/")) + "/"}


def _below(path: str, folder: str) -> bool:
    return path != folder and path.startswith(folder.rstrip("/") + "/")


def _texts(values: Iterable[str]) -> str:
    return "[" + ", ".join(map(quoted, values)) + "]"


def _writable(text: str) -> bool:
    try:
        quoted(text)
    except PolicyError:
        return False
    return True


def _fits(name: str) -> bool:
    # YAML takes no longer keys
    return _writable(name) and len(scalar(name)) <= LONGEST_KEY


def _tool_lines(name: str, seen: ToolSeen) -> list[str]:
    tier = tier_of(BUILT_IN, name)
    calls = f"{seen.count} call{'s' * (seen.count != 1)} seen, {seen.succeeded} succeeded"
    if is_shell(name):
        warning = f"  # {calls}. Runs whatever it is told: enable it only if there is no other way."
        return [warning, f"  {scalar(name)}: {{enabled: false}}"]
    if not seen.succeeded:
        return [f"  # {tier} risk; {calls}.", f"  {scalar(name)}: {{enabled: false}}"]
    lines = [f"  # {tier} risk; {calls}."]
    limits = []
    aspects = (
        ("path", "allowed_paths", _roots(seen.folders)),
        ("domain", "allowed_domains", sorted(seen.hosts)),
    )
    for aspect, limit, entries in aspects:
        if entries or aspect in seen.uncovered:
            limits.append(f"{limit}: {_texts(filter(_writable, entries))}")
        if aspect in seen.uncovered:
            lines.append(
                f"  # Some calls that succeeded are not covered by its {limit}: see `policy what-if`."
            )
    scopes = sorted(filter(_writable, seen.scopes or ()))
    if len(scopes) == 1:
        limits.append(f"require_scope: {quoted(scopes[0])}")
    elif scopes:
        lines.append(
            f"  # Every call that succeeded had the scopes {_texts(scopes)}: require_scope takes one of them."
        )
    if tier is not Tier.LOW:
        limits.append("require_audit_log: true")
    return [*lines, f"  {scalar(name)}: {{{', '.join(limits)}}}"]


def _section(name: str, rows: Iterable[list[str]], comment: str) -> list[str]:
    lines, room, left_out = [], _MAX_SECTION, 0
    for row in rows:
        room -= sum(map(len, row))
        if room < 0:
            left_out += 1
        else:
            lines += row
    more = [f"  # {left_out} more are not listed: there is no room for them."] if left_out else []
    return [f"# {comment}", f"{name}:" if lines else f"{name}: {{}}", *lines, *more, ""]


def _key_lines(name: str, seen: KeySeen) -> list[str]:
    client = f"client: {quoted(seen.client)}, " if seen.client and _writable(seen.client) else ""
    return [f"  {scalar(name)}: {{{client}scopes: {_texts(sorted(filter(_writable, seen.scopes)))}}}"]


def draft(seen: ToolsSeen) -> str:
    """The text of a first policy that allows what succeeded in the log, and nothing else.

    Every line is to be read by a person: what an attacker did with success is in the log as well.
    """
    # what was called most comes first where there is no room for all
    names = sorted(filter(_fits, seen.tools), key=lambda name: (-seen.tools[name].count, name))
    tools = [_tool_lines(name, seen.tools[name]) for name in names]
    if seen.overlooked:
        tools.append([f"  # {seen.overlooked} calls of further tools are not covered here."])
    keys = [_key_lines(name, seen.keys[name]) for name in sorted(filter(_fits, seen.keys))]
    lines = [
        "# Drafted by mcpwatch from a log: it allows what succeeded there. Read every line before you trust it:",
        "# what an attacker did with success is in the log as well.",
        "version: 1",
        "",
        *_section(
            "tools",
            tools,
            "What each tool may do. Without allowed_paths or allowed_domains it is not restricted.",
        ),
        "# Tools that are not listed above are refused.",
        "unlisted_tools: deny",
        "",
        *_section(
            "keys",
            keys,
            "Keys by name, never their values. Add `created: 2026-01-31` to each, to see when it is due.",
        ),
        "# Written by mcpwatch when somebody revokes a key, or when one is locked out.",
        "revoked: []",
        "lockouts: []",
    ]
    return "\n".join(lines) + "\n"
