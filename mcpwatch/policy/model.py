"""The policy: what each tool, key and client may do, as read from the policy file (docs/policy-file.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from mcpwatch.documents.tree import DocumentError
from mcpwatch.times import HOUR, MINUTE, SECOND

PrincipalKind = Literal["key", "client", "session", "subject"]
PRINCIPAL_KINDS: Final[tuple[PrincipalKind, ...]] = ("key", "client", "session", "subject")


class PolicyError(DocumentError):
    """The policy can't be used or changed. The message says what, where (file and line) and what to do."""


class Tier(StrEnum):
    """How much harm a tool can do."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class ToolPolicy:
    """One row of the permission matrix. None means not restricted, an empty tuple nothing allowed."""

    enabled: bool = True
    since: int | None = None
    """When `enabled` was last changed by mcpwatch, ns; enforcement gaps count from then."""
    allowed_paths: tuple[str, ...] | None = None
    allowed_domains: tuple[str, ...] | None = None
    require_scope: str | None = None
    require_audit_log: bool = False
    risk: Tier | None = None
    path_params: tuple[str, ...] | None = None
    url_params: tuple[str, ...] | None = None
    base_dir: str | None = None
    definition_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Alerts:
    """Limits of the window rules. Counts are per window; times are nanoseconds."""

    session_calls_per_minute: int = 5
    key_requests_per_minute: int = 100
    auth_failures: int = 3
    auth_failures_within: int = 5 * MINUTE
    enforcement_grace: int = 10 * SECOND
    allowed_lateness: int = 120 * SECOND
    token_lifetime: int = 15 * MINUTE
    """Longest time from issue to expiry that a JWT may have."""


@dataclass(frozen=True, slots=True)
class LockoutRules:
    """Whether mcpwatch writes lockouts itself, for how long (ns), and which addresses never get one."""

    enforce: bool = False
    durations: tuple[int, ...] = (5 * MINUTE, 15 * MINUTE, HOUR, 4 * HOUR, 24 * HOUR)
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Key:
    """A credential that the policy knows by name. Only its hash is ever stored."""

    id: str
    client: str | None = None
    owner: str | None = None
    scopes: tuple[str, ...] | None = None
    created: date | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    """A principal that may do nothing any more, from `at` (until `until`, if that is set), ns."""

    kind: PrincipalKind
    id: str
    at: int
    by: str | None = None
    reason: str | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Lockout:
    """A key, an address, or a key from an address, shut out for at <= time < until, ns."""

    key: str | None
    source_ip: str | None
    at: int
    until: int
    rule: str | None = None
    incident: str | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """The whole policy file, validated.

    `path` is None for the built-in policy, which restricts nothing and only sets tiers and limits.
    """

    tools: Mapping[str, ToolPolicy] = field(default_factory=lambda: MappingProxyType({}))
    deny_unlisted: bool = False
    risk_tiers: Mapping[str, Tier] = field(default_factory=lambda: MappingProxyType({}))
    """Tools that the file puts into a tier; empty where the file has no `risk_tiers`."""
    alerts: Alerts = Alerts()
    lockout: LockoutRules = LockoutRules()
    keys: Mapping[str, Key] = field(default_factory=lambda: MappingProxyType({}))
    revoked: tuple[Revocation, ...] = ()
    lockouts: tuple[Lockout, ...] = ()
    path: Path | None = None
    sha256: str | None = None
    """Hash of the file's bytes."""


BUILT_IN: Final = Policy()
"""Used where there is no policy file."""
