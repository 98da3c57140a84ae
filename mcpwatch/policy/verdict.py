"""Verdicts: what the policy says of one aspect of one call."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Verdict(StrEnum):
    """What the policy says. Only `allowed` and `not_applicable` are fine."""

    ALLOWED = "allowed"
    VIOLATION = "violation"
    AMBIGUOUS = "ambiguous"
    """Inside under the plain reading; outside, or unreadable, under another that a real server might take."""
    NOT_EVALUABLE = "not_evaluable"
    """Missing, redacted, truncated or of the wrong type."""
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict with its reason, fit for a person to read.

    Attributes:
        aspect: Which question was asked.
        value: What was judged: the path, the URL, the scope. Untrusted text.
        reason: One clause, for example "outside /app/data/, /app/public/". Contains no untrusted text.
        critical: The worst there is whatever the outcome (cloud metadata and link-local addresses).
    """

    aspect: Literal["path", "domain", "scope", "tool"]
    verdict: Verdict
    value: str = ""
    reason: str = ""
    critical: bool = False

    @property
    def fine(self) -> bool:
        """Whether there is nothing to report."""
        return self.verdict in (Verdict.ALLOWED, Verdict.NOT_APPLICABLE)
