"""Checks of what holds for every tool: unlisted tools, alerts, the lockout ladder."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from mcpwatch.policy.advice.subject import Found, Subject
from mcpwatch.times import format_duration

_HIGH: Final = {
    "session_calls_per_minute": (600, "ten calls a second, minute after minute, go unseen"),
    "auth_failures": (100, "a hundred guesses go unseen"),
}
"""Limits from which on a rule hardly ever fires, and what that means."""

_LOW: Final = {
    "session_calls_per_minute": (
        10,
        "a coding agent makes more calls than that all day: 30 or more is usual",
    ),
    "auth_failures": (2, "one typing error is an alert: 3 is usual"),
}
"""Limits below which a rule fires on everyday work, and what is better."""


def unlisted_allowed(subject: Subject) -> Found:
    """Tools without a row may be called."""
    if not subject.policy.deny_unlisted:
        what = "tools that are not listed may be called: set unlisted_tools: deny"
        yield subject.line("unlisted_tools"), "medium", what


def limit_high(subject: Subject) -> Found:
    """A limit that is hardly ever reached."""
    for name, (least, why) in _HIGH.items():
        value = getattr(subject.policy.alerts, name)
        if value >= least:
            yield subject.line("alerts", name), "medium", f"{name}: {value} is too high: {why}; lower it"


def limit_low(subject: Subject) -> Found:
    """A limit that everyday work exceeds. Only one that stands in the file: a default is nobody's choice."""
    for name, (least, why) in _LOW.items():
        value = getattr(subject.policy.alerts, name)
        if value < least and subject.node("alerts", name) is not None:
            yield subject.line("alerts", name), "low", f"{name}: {value} is low: {why}"


def limits_crossed(subject: Subject) -> Found:
    """A limit of a key that each of its sessions may exceed."""
    alerts = subject.policy.alerts
    key, session = alerts.key_requests_per_minute, alerts.session_calls_per_minute
    if key < session:
        what = (
            f"key_requests_per_minute: {key} is below session_calls_per_minute: {session}, so that one session "
            "fills it: raise it"
        )
        yield subject.line("alerts", "key_requests_per_minute"), "low", what


def grace_too_long(subject: Subject) -> Found:
    """A grace in which the shortest lockouts begin and end."""
    grace, shortest = subject.policy.alerts.enforcement_grace, min(subject.policy.lockout.durations)
    if grace >= shortest:
        what = (
            f"enforcement_grace {format_duration(grace)} is as long as the shortest lockout, "
            f"{format_duration(shortest)}, and nobody would see that it is not enforced: shorten the grace"
        )
        stated = subject.node("alerts", "enforcement_grace") is not None
        yield (
            subject.line(*(("alerts", "enforcement_grace") if stated else ("lockout", "durations"))),
            "medium",
            what,
        )


def ladder_not_rising(subject: Subject) -> Found:
    """A further lockout that is no longer than the one before."""
    for number, (before, after) in enumerate(pairwise(subject.policy.lockout.durations), 1):
        if after <= before:
            steps = f"from {format_duration(before)} to {format_duration(after)}"
            what = f"the ladder goes {steps}: let each step be longer than the one before"
            yield subject.line("lockout", "durations", number), "low", what
