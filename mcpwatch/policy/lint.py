"""Advice on a policy file that is valid, but looser, older or odder than it should be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final, Literal

from mcpwatch.documents.tree import Document, compose
from mcpwatch.policy.load import POLICY_FILE, interpret
from mcpwatch.policy.model import Policy, Tier, ToolPolicy
from mcpwatch.policy.tiers import is_shell, tier_of, words
from mcpwatch.text import SafeText, safe
from mcpwatch.times import utc_day

MAX_KEY_AGE: Final = 90
"""Days after which a key is due for rotation."""

Severity = Literal["high", "medium", "low"]


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to look at.

    Attributes:
        line: Line of the policy file.
        code: Short name of the check, one of `CHECKS`.
        message: What is wrong and what to do, safe to show.
    """

    line: int
    severity: Severity
    code: str
    message: SafeText


@dataclass(frozen=True, slots=True)
class _Subject:
    document: Document
    policy: Policy
    today: date

    def line(self, *keys: str | int) -> int:
        """Line of what the keys and list numbers lead to, or of the nearest thing above it that is there."""
        node, line = self.document.root, self.document.root.line
        for key in keys:
            if isinstance(key, int):
                if key >= len(node.items):
                    break
                node = node.items[key]
                line = node.line
            else:
                found = node.pair(key)
                if found is None:
                    break
                line, node = found[0].line, found[1]
        return line

    def tools(self) -> Iterator[tuple[str, ToolPolicy, Tier]]:
        """Tools that may be called, with their tiers."""
        return (
            (name, row, tier_of(self.policy, name)) for name, row in self.policy.tools.items() if row.enabled
        )


_Found = Iterator[tuple[int, Severity, str]]

_PATH_WORDS: Final = frozenset({"file", "files", "path", "paths", "directory", "dir", "folder", "filesystem"})
_DOMAIN_WORDS: Final = frozenset(
    {"http", "https", "url", "fetch", "request", "web", "browser", "navigate", "webhook", "crawl", "scrape"}
)
_OPEN_WILDCARD: Final = re.compile(r"\*(?:\.(?:[^.]+|(?:ac|co|com|edu|gov|net|org)\.[a-z]{2}))?\.?(?::\d+)?")
_DOMAIN: Final = re.compile(
    r"(?:\*\.)?[^\s/?#@*:]+(?::\d{1,5})?|\*(?::\d+)?|\[?[0-9A-Fa-f:.]+\]?(?::\d{1,5})?"
)


def _unrestricted_paths(subject: _Subject) -> _Found:
    for name, row, tier in subject.tools():
        if tier is not Tier.LOW and row.allowed_paths is None and words(name) & _PATH_WORDS:
            what = f"{name} reaches every path: give it allowed_paths"
            yield subject.line("tools", name), "high" if tier is Tier.HIGH else "medium", what


def _unrestricted_domains(subject: _Subject) -> _Found:
    for name, row, tier in subject.tools():
        if tier is not Tier.LOW and row.allowed_domains is None and words(name) & _DOMAIN_WORDS:
            what = f"{name} reaches every host: give it allowed_domains"
            yield subject.line("tools", name), "high" if tier is Tier.HIGH else "medium", what


def _unrestricted_high(subject: _Subject) -> _Found:
    for name, row, tier in subject.tools():
        limits = (row.allowed_paths, row.allowed_domains, row.require_scope)
        hinted = words(name) & (_PATH_WORDS | _DOMAIN_WORDS)
        if tier is Tier.HIGH and limits == (None, None, None) and not hinted and not is_shell(name):
            yield (
                subject.line("tools", name),
                "medium",
                f"{name} is high risk, and everybody may call it: require a scope",
            )


def _shell_enabled(subject: _Subject) -> _Found:
    for name, _, _ in subject.tools():
        if is_shell(name):
            what = f"{name} runs whatever it is told: set enabled: false unless there is no other way"
            yield subject.line("tools", name), "high", what


def _unlogged(subject: _Subject) -> _Found:
    for name, row, tier in subject.tools():
        if tier is not Tier.LOW and not row.require_audit_log:
            what = f"{name} is {tier} risk: set require_audit_log: true, to hear of calls logged without parameters"
            yield subject.line("tools", name), "low", what


def _wide_domain(subject: _Subject) -> _Found:
    for name, row, _ in subject.tools():
        for number, domain in enumerate(row.allowed_domains or ()):
            if _OPEN_WILDCARD.fullmatch(domain):
                what = f"{domain} lets {name} reach hosts that anybody can register: name the hosts"
                yield subject.line("tools", name, "allowed_domains", number), "high", what


def _odd_domain(subject: _Subject) -> _Found:
    for name, row in subject.policy.tools.items():
        for number, domain in enumerate(row.allowed_domains or ()):
            if not _DOMAIN.fullmatch(domain):
                what = f"{domain} is no host: write api.example.com, *.example.com or host:port"
                yield subject.line("tools", name, "allowed_domains", number), "medium", what


def _paths(subject: _Subject) -> Iterator[tuple[int, str, str]]:
    for name, row in subject.policy.tools.items():
        for number, path in enumerate(row.allowed_paths or ()):
            yield subject.line("tools", name, "allowed_paths", number), name, path


def _wide_path(subject: _Subject) -> _Found:
    for line, name, path in _paths(subject):
        if re.fullmatch(r"[/\\]*|[A-Za-z]:[/\\]*", path):
            yield line, "high", f"{path} lets {name} reach every file: name the folders"


def _pattern_path(subject: _Subject) -> _Found:
    for line, _, path in _paths(subject):
        if any(char in path for char in "*?~$"):
            yield (
                line,
                "medium",
                f"{path} is taken as it is written: patterns, ~ and variables mean nothing here",
            )


def _relative_path(subject: _Subject) -> _Found:
    for line, _, path in _paths(subject):
        if not re.match(r"[/\\~$*]|[A-Za-z]:", path):
            yield line, "medium", f"{path} is relative: write the whole path"


def _path_without_slash(subject: _Subject) -> _Found:
    for line, _, path in _paths(subject):
        if path[-1] not in "/\\*":
            yield line, "low", f"{path} has no slash at its end: write one if it is a folder"


def _unlisted_allowed(subject: _Subject) -> _Found:
    if not subject.policy.deny_unlisted:
        yield (
            subject.line("unlisted_tools"),
            "medium",
            "tools that are not listed may be called: set unlisted_tools: deny",
        )


def _old_key(subject: _Subject) -> _Found:
    for name, key in subject.policy.keys.items():
        age = (subject.today - key.created).days if key.created else 0
        if age > MAX_KEY_AGE:
            what = f"{name} is {age} days old: rotate keys every {MAX_KEY_AGE} days"
            yield subject.line("keys", name, "created"), "medium", what


def _undated_key(subject: _Subject) -> _Found:
    for name, key in subject.policy.keys.items():
        if key.created is None:
            yield (
                subject.line("keys", name),
                "low",
                f"{name} has no created day, so that nobody sees when to rotate it",
            )


def _unknown_revoked(subject: _Subject) -> _Found:
    keys = subject.policy.keys
    for number, entry in enumerate(subject.policy.revoked):
        if keys and entry.kind == "key" and entry.id not in keys:
            yield (
                subject.line("revoked", number),
                "low",
                f"the revoked key {entry.id} is not among the keys: a slip?",
            )


def _over(subject: _Subject) -> _Found:
    today = subject.today.isoformat()
    for number, entry in enumerate(subject.policy.revoked):
        if entry.until is not None and utc_day(entry.until) < today:
            line = subject.line("revoked", number)
            yield line, "low", f"the revocation of {entry.kind} {entry.id} is over: remove it"
    for number, lock in enumerate(subject.policy.lockouts):
        if utc_day(lock.until) < today:
            name = " from ".join(filter(None, (lock.key, lock.source_ip)))
            yield subject.line("lockouts", number), "low", f"the lockout of {name} is over: remove it"


CHECKS: Final[dict[str, tuple[str, Callable[[_Subject], _Found]]]] = {
    "unrestricted-paths": ("a file tool of high or medium risk without allowed_paths", _unrestricted_paths),
    "unrestricted-domains": (
        "a web tool of high or medium risk without allowed_domains",
        _unrestricted_domains,
    ),
    "unrestricted-high": ("a high-risk tool that is enabled without any restriction", _unrestricted_high),
    "shell-enabled": ("a shell tool that is enabled", _shell_enabled),
    "unlogged": ("a high- or medium-risk tool without require_audit_log", _unlogged),
    "wide-domain": ("a wildcard that covers domains of strangers", _wide_domain),
    "odd-domain": ("an allowed domain that is no host", _odd_domain),
    "wide-path": ("an allowed path that covers everything", _wide_path),
    "pattern-path": ("an allowed path with a pattern in it", _pattern_path),
    "relative-path": ("an allowed path that is relative", _relative_path),
    "path-without-slash": ("an allowed folder without a slash at its end", _path_without_slash),
    "unlisted-allowed": ("tools that are not listed are allowed", _unlisted_allowed),
    "old-key": (f"a key older than {MAX_KEY_AGE} days", _old_key),
    "undated-key": ("a key without the day of its creation", _undated_key),
    "unknown-revoked": ("a revoked key that is not among the keys", _unknown_revoked),
    "over": ("a revocation or lockout that is over", _over),
}
"""Every check by its code: what it finds, and the function that does."""


def lint(data: bytes, path: Path | None, *, today: date) -> list[Advice]:
    """Look for what is valid but unwise in a policy file, in the order of its lines.

    Raises:
        PolicyError: The bytes are no valid policy.
    """
    document = compose(data, "policy" if path is None else str(path), POLICY_FILE)
    subject = _Subject(document, interpret(document), today)
    found = [
        Advice(line, severity, code, safe(message, 400))
        for code, (_, check) in CHECKS.items()
        for line, severity, message in check(subject)
    ]
    return sorted(found, key=lambda advice: advice.line)
