"""Advice on a policy file that is valid, but looser, older or odder than it should be: the table of checks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Final

from mcpwatch.policy.advice import domains, keys, limits, paths, tools
from mcpwatch.policy.advice.keys import MAX_KEY_AGE
from mcpwatch.policy.advice.subject import Advice, Found, Severity, Subject, in_order
from mcpwatch.policy.symlinks import LINK_CHECKS
from mcpwatch.text import safe

__all__ = ["CHECKS", "CODES", "Advice", "Severity", "Subject", "advise", "in_order", "lint"]

CHECKS: Final[dict[str, tuple[str, Callable[[Subject], Found]]]] = {
    "unrestricted-paths": (
        "a file tool of high or medium risk without allowed_paths",
        tools.unrestricted_paths,
    ),
    "unrestricted-domains": (
        "a web tool of high or medium risk without allowed_domains",
        tools.unrestricted_domains,
    ),
    "unrestricted-high": (
        "a high-risk tool that is enabled without any restriction",
        tools.unrestricted_high,
    ),
    "unexplained-high": (
        "a high-risk tool that is enabled with neither a required scope nor a comment that says why",
        tools.unexplained_high,
    ),
    "shell-enabled": ("a shell tool that is enabled", tools.shell_enabled),
    "unlogged": ("a high- or medium-risk tool without require_audit_log", tools.unlogged),
    "unrated": ("a tool that is low risk only because neither file nor name tells its risk", tools.unrated),
    "risk-conflict": ("a risk that contradicts risk_tiers", tools.risk_conflict),
    "two-spellings": ("tools whose names differ only in case or hyphens", tools.two_spellings),
    "disabled-restricted": (
        "a tool disabled by hand with restrictions, which mean nothing",
        tools.disabled_restricted,
    ),
    "nothing-allowed": ("enabled: true beside nothing but empty lists", tools.nothing_allowed),
    "double-param": ("a parameter in path_params and in url_params", tools.double_param),
    "blind-restriction": (
        "a restriction that no parameter is judged by, or path_params without one",
        tools.blind_restriction,
    ),
    "wide-domain": ("a wildcard that covers domains of strangers", domains.wide_domain),
    "odd-domain": ("an allowed domain that is no host", domains.odd_domain),
    "metadata-domain": ("an allowed domain that is a cloud metadata service", domains.metadata_domain),
    "shadowed-domain": ("an allowed domain that another of the list covers", domains.shadowed_domain),
    "wide-path": ("an allowed path that covers everything", paths.wide_path),
    "pattern-path": ("an allowed path with a pattern in it", paths.pattern_path),
    "relative-path": ("an allowed path or base_dir that is relative", paths.relative_path),
    "path-without-slash": ("an allowed folder without a slash at its end", paths.path_without_slash),
    "shadowed-path": ("an allowed path that another of the list covers", paths.shadowed_path),
    "base-outside": ("a base_dir from which no relative path is allowed", paths.base_outside),
    "unlisted-allowed": ("tools that are not listed are allowed", limits.unlisted_allowed),
    "limit-high": ("a limit so high that its rule hardly ever fires", limits.limit_high),
    "limit-low": ("a limit so low that everyday work exceeds it", limits.limit_low),
    "limits-crossed": ("a limit of keys below the one of sessions", limits.limits_crossed),
    "grace-too-long": ("an enforcement_grace as long as the shortest lockout", limits.grace_too_long),
    "ladder-not-rising": ("a lockout ladder that does not rise", limits.ladder_not_rising),
    "old-key": (f"a key older than {MAX_KEY_AGE} days", keys.old_key),
    "undated-key": ("a key without the day of its creation", keys.undated_key),
    "unowned-key": ("a key without an owner", keys.unowned_key),
    "unused-scope": ("a scope of a key that no tool requires", keys.unused_scope),
    "unheld-scope": ("a required scope that no key has", keys.unheld_scope),
    "unknown-revoked": ("a revoked key that is not among the keys", keys.unknown_revoked),
    "revoked-twice": ("two revocations of the same principal at the same time", keys.revoked_twice),
    "locked-revoked": ("a lockout of a key that is revoked anyway", keys.locked_revoked),
    "locked-proxy": ("a lockout of this host or a trusted proxy", keys.locked_proxy),
    "over": ("a revocation or lockout that is over", keys.over),
}
"""Every check of the file alone by its code: what it finds, and the function that does."""

CODES: Final[dict[str, str]] = {code: what for code, (what, _) in CHECKS.items()} | LINK_CHECKS
"""Everything that advice can be about, by its code: the checks of the file, and those of the disk."""


def advise(subject: Subject) -> list[Advice]:
    """What is valid but unwise in a policy file, by line."""
    return in_order(
        Advice(line, severity, code, safe(message, 400))
        for code, (_, check) in CHECKS.items()
        for line, severity, message in check(subject)
    )


def lint(data: bytes, path: Path | None, *, today: date) -> list[Advice]:
    """Look for what is valid but unwise in the bytes of a policy file; `path` is for messages.

    Raises:
        PolicyError: The bytes are no valid policy.
    """
    return advise(Subject.of(data, path, today=today))
