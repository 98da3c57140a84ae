"""Checks of the permission matrix: what a tool may do, and rows that contradict themselves or each other."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from mcpwatch.documents.tree import Node
from mcpwatch.policy.advice.comments import comments
from mcpwatch.policy.advice.subject import Found, Subject, short
from mcpwatch.policy.model import Tier, ToolPolicy
from mcpwatch.policy.params import plain_name
from mcpwatch.policy.tiers import KNOWN_TOOLS, VERBS, bare_name, is_shell, words

_PATH_WORDS: Final = frozenset({"file", "files", "path", "paths", "directory", "dir", "folder", "filesystem"})
_DOMAIN_WORDS: Final = frozenset(
    {"http", "https", "url", "fetch", "request", "web", "browser", "navigate", "webhook", "crawl", "scrape"}
)
_TOLD_WORDS: Final = frozenset().union(*VERBS.values())


def unrestricted_paths(subject: Subject) -> Found:
    """A file tool that reaches every path."""
    for name, row, tier in subject.tools():
        if tier is not Tier.LOW and row.allowed_paths is None and words(name) & _PATH_WORDS:
            what = f"{short(name)} reaches every path: give it allowed_paths"
            yield subject.line("tools", name), "high" if tier is Tier.HIGH else "medium", what


def unrestricted_domains(subject: Subject) -> Found:
    """A web tool that reaches every host."""
    for name, row, tier in subject.tools():
        if tier is not Tier.LOW and row.allowed_domains is None and words(name) & _DOMAIN_WORDS:
            what = f"{short(name)} reaches every host: give it allowed_domains"
            yield subject.line("tools", name), "high" if tier is Tier.HIGH else "medium", what


def unrestricted_high(subject: Subject) -> Found:
    """A high-risk tool without any restriction."""
    for name, row, tier in subject.tools():
        if _is_open(name, row, tier):
            what = f"{short(name)} is high risk, and everybody may call it: require a scope"
            yield subject.line("tools", name), "medium", what


def _is_open(name: str, row: ToolPolicy, tier: Tier) -> bool:
    limits = (row.allowed_paths, row.allowed_domains, row.require_scope)
    hinted = words(name) & (_PATH_WORDS | _DOMAIN_WORDS)
    return tier is Tier.HIGH and limits == (None, None, None) and not hinted and not is_shell(name)


def unexplained_high(subject: Subject) -> Found:
    """A high-risk tool that is enabled, and the file doesn't say why or for whom."""
    said = comments(subject.document)
    for name, row, tier in subject.tools():
        if tier is not Tier.HIGH or row.require_scope is not None:
            continue
        if is_shell(name) or _is_open(name, row, tier):  # which is said already
            continue
        start = subject.line("tools", name)
        node = subject.node("tools", name)
        inside = range(start, (start if node is None else _last_line(node)) + 1)
        if said.get(start - 1) or any(line in said for line in inside):
            continue
        what = f"{short(name)} is high risk: require a scope, or say in a comment on or above its line why it is open"
        yield start, "low", what


def _last_line(node: Node) -> int:
    last = node.line
    waiting = [node]
    while waiting:
        node = waiting.pop()
        last = max(last, node.line)
        waiting.extend(node.items)
        waiting.extend(each for pair in node.pairs for each in pair)
    return last


def shell_enabled(subject: Subject) -> Found:
    """A shell that may be called."""
    for name, _, _ in subject.tools():
        if is_shell(name):
            what = f"{short(name)} runs whatever it is told: set enabled: false unless there is no other way"
            yield subject.line("tools", name), "high", what


def unlogged(subject: Subject) -> Found:
    """A tool of a tier that matters, whose incomplete records nobody hears of."""
    for name, row, tier in subject.tools():
        if tier is not Tier.LOW and not row.require_audit_log:
            what = (
                f"{short(name)} is {tier} risk: set require_audit_log: true, to hear of calls logged without "
                "parameters"
            )
            yield subject.line("tools", name), "low", what


def unrated(subject: Subject) -> Found:
    """A tool that is low risk only because nothing is known of it."""
    for name, row, _ in subject.tools():
        told = row.risk is not None or name in subject.policy.risk_tiers or bare_name(name) in KNOWN_TOOLS
        if not told and not is_shell(name) and not words(name) & _TOLD_WORDS:
            what = (
                f"{short(name)} counts as low risk, as its name tells nothing: set risk: high, medium or low"
            )
            yield subject.line("tools", name), "low", what


def risk_conflict(subject: Subject) -> Found:
    """A tool with one risk in its row and another in risk_tiers."""
    for name, row in subject.policy.tools.items():
        listed = subject.policy.risk_tiers.get(name)
        if row.risk is not None and listed is not None and row.risk is not listed:
            what = f"{short(name)} is {row.risk} risk here and {listed} in risk_tiers, which does not count: keep one"
            yield subject.line("tools", name, "risk"), "medium", what


def two_spellings(subject: Subject) -> Found:
    """Rows whose names differ in nothing that a person would notice."""
    first: dict[str, str] = {}
    for name, row in subject.policy.tools.items():
        other = first.setdefault(re.sub(r"[-_]", "_", name.casefold()), name)
        if other == name:
            continue
        # what was switched when says nothing about what is meant
        same = replace(subject.policy.tools[other], since=None) == replace(row, since=None)
        what = (
            f"{short(name)} and {short(other)} on line {subject.line('tools', other)} differ only in case or "
            "hyphens, and each row counts only for its own spelling: keep the one that the server uses"
        )
        yield subject.line("tools", name), "low" if same else "medium", what


def disabled_restricted(subject: Subject) -> Found:
    """A row that is switched off by hand and restricted: one of the two was forgotten."""
    for name, row in subject.policy.tools.items():
        # `mcpwatch disable` leaves the restrictions for the day that the tool is enabled again
        if row.enabled or row.since is not None:
            continue
        given = (row.allowed_paths, row.allowed_domains, row.require_scope)
        if any(given) or row.require_audit_log:
            what = (
                f"{short(name)} is disabled, so that its other keys mean nothing: remove them, or enable it"
            )
            yield subject.line("tools", name), "low", what


def nothing_allowed(subject: Subject) -> Found:
    """A row that enables a tool in words and allows it nothing."""
    for name, row, _ in subject.tools():
        lists = {"allowed_paths": row.allowed_paths, "allowed_domains": row.allowed_domains}
        empty = [key for key, value in lists.items() if value == ()]
        if empty and not any(lists.values()) and subject.node("tools", name, "enabled") is not None:
            what = f"{short(name)} is enabled and may reach nothing: fill {empty[0]}, or set enabled: false"
            yield subject.line("tools", name, empty[0]), "low", what


def double_param(subject: Subject) -> Found:
    """A parameter that is named as a path and as a URL."""
    for name, row in subject.policy.tools.items():
        paths = set(map(plain_name, row.path_params or ()))
        for number, param in enumerate(row.url_params or ()):
            if plain_name(param) in paths:
                what = f"{short(param)} is in path_params too: each value would have to be a path and a URL; keep one"
                yield subject.line("tools", name, "url_params", number), "medium", what


def blind_restriction(subject: Subject) -> Found:
    """A restriction without a parameter that it could be applied to, or parameters without a restriction."""
    for name, row in subject.policy.tools.items():
        for params, limit in (("path_params", "allowed_paths"), ("url_params", "allowed_domains")):
            if getattr(row, params) == () and getattr(row, limit) is not None:
                what = (
                    f"{params}: [] leaves {limit} of {short(name)} nothing to judge: name some, or remove it"
                )
                yield subject.line("tools", name, params), "medium", what
        # URLs are looked at without a restriction too: for cloud metadata addresses
        if row.path_params and row.allowed_paths is None:
            what = f"path_params of {short(name)} mean nothing without allowed_paths: add them, or remove path_params"
            yield subject.line("tools", name, "path_params"), "low", what
