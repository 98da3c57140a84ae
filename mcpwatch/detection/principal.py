"""Whom a rule groups events by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from mcpwatch.detection.hit import Subject
from mcpwatch.policy.model import PrincipalKind

Grouping = tuple[tuple[str, ...], ...]
"""Alternatives, each a combination of identity names; the first that an event has is its subject.

Names: `key`, `known_key` (a key that the policy knows), `client`, `session`, `subject`, `source_ip`.
"""

PRINCIPAL: Final[Grouping] = (("key",), ("subject",), ("client",), ("session",), ("source_ip",))
"""Who did it, as far as the record tells."""

_KINDS: Final = {"known_key": "key"}
"""Names whose ids are of a kind with another name."""

Identity = Mapping[str, str | None]
"""Identity name -> id of one event."""


def subject_of(grouping: Grouping, identity: Identity) -> Subject | None:
    """The subject of an event under a grouping, None if it has none of the alternatives.

    Events without a subject are never pooled.
    """
    for names in grouping:
        subject: Subject = ()
        for name in names:
            value = identity[name]
            if value is None:
                break
            subject = (*subject, (_KINDS.get(name, name), value))
        else:
            return subject
    return None


def revocable(subject: Subject) -> list[tuple[PrincipalKind, str]]:
    """What of a subject can be revoked, the most specific first."""
    order: tuple[PrincipalKind, ...] = ("key", "subject", "client", "session")
    ids = dict(subject)
    return [(kind, ids[kind]) for kind in order if kind in ids]


def describe(subject: Subject, show: Callable[[str], str]) -> str:
    """A subject in one word or two: `key_0007`, `key_0007 from 203.0.113.9`, `key_0007 (revoked)`."""
    ids = dict(subject)
    if ids.keys() == {"gap"}:
        return show(ids["gap"])
    gap = ids.pop("gap", None)
    address = ids.pop("source_ip", None) if len(ids) > 1 else None
    words = " / ".join(show(value) for value in ids.values())
    if address is not None:
        words += f" from {show(address)}"
    return f"{words} ({show(gap)})" if gap is not None else words
