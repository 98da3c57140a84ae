"""Checks of what stands in the text of a record: secrets, files that matter, text that is made to deceive."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from mcpwatch.credentials import find, fingerprint, mask
from mcpwatch.detection.callchecks import BY_OUTCOME
from mcpwatch.detection.case import Case, Found
from mcpwatch.detection.hit import Severity
from mcpwatch.detection.repository import is_inside
from mcpwatch.event import AuditEvent, Flag
from mcpwatch.formats.twice import said_twice
from mcpwatch.policy.marks import is_hostile, marks
from mcpwatch.policy.params import in_repository
from mcpwatch.policy.tiers import is_shell
from mcpwatch.policy.verdict import Verdict
from mcpwatch.text import redact_text, safe

_HEAD: Final = 4_096
_WRITES: Final = re.compile(
    r">|\b(?:tee|cp|mv|ln|install|chmod|chown|touch|rm|dd|sed|perl|python3?|node|ruby|crontab|visudo|systemctl|rsync|scp"
    r"|curl|wget|patch|git|truncate|unlink|vi|vim|nano|ed|set-content|add-content|out-file|copy-item)\b",
    re.IGNORECASE,
)
"""What in a shell command may write a file."""


def _shown(text: str, limit: int) -> str:
    """The head of a text, for a reason; what is cut off is too far away to tell a secret in it."""
    return safe(redact_text(text[:_HEAD]), limit)


def secrets(case: Case) -> Iterable[Found]:
    """A credential stands in the parameters."""
    found = [
        (mark.name, secret.kind, mark.value[secret.start : secret.end])
        for mark in case.marks
        if mark.kind == "secret"
        for secret in find(mark.value)
    ]
    if found:
        name, kind, text = found[0]
        place = _shown(name, 60)
        shown = f"{kind} in {place}: {safe(mask(text), 60)}, fingerprint {fingerprint(text, case.fingerprint_key)}"
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        yield Found("secret-in-params", Severity.HIGH, f"{shown}{more}, {case.outcome}")


def tampering(case: Case) -> Iterable[Found]:
    """A file that steers agents or hosts, or a file of this monitor, is written."""
    shell = case.what.tool is not None and is_shell(case.what.tool)
    for mark in case.marks:
        if mark.kind == "tampering":
            if shell and _WRITES.search(str(case.event.params)) is None:
                return  # a command that only reads such a file tampers with nothing
            severity = BY_OUTCOME[Verdict.VIOLATION][case.what.status]
            if in_repository(case.event.params or {}) and is_inside(mark.value):
                severity = Severity.MEDIUM  # somebody still has to merge or check it out
            reason = f"{mark.what} written, {case.outcome}: {_shown(mark.value, 80)}"
            yield Found("policy-tampering", severity, reason)
            return


def sensitive_read(case: Case) -> Iterable[Found]:
    """A file that holds secrets is read."""
    if case.what.status not in ("success", "unknown"):
        return
    for mark in case.marks:
        if mark.kind == "sensitive":
            yield Found("sensitive-read", Severity.MEDIUM, f"{mark.what} read: {_shown(mark.value, 80)}")
            return


def hostile_text(case: Case) -> Iterable[Found]:
    """Text that is made to deceive stands in the parameters, the error, the name of the tool or the record itself."""
    event = case.event
    if event.flags & Flag.DUPLICATE_KEYS:
        yield Found("hostile-text", Severity.MEDIUM, _twice(event))
        return
    where = [(mark.name, mark.what) for mark in case.marks if mark.kind == "hostile"]
    for name, text in (("the tool's name", event.tool), ("the error", event.error)):
        if text is not None and is_hostile(text):
            where += [(name, mark.what) for mark in marks(text) if mark.kind == "hostile"]
    if where:
        yield Found("hostile-text", Severity.MEDIUM, f"{where[0][1]} in {_shown(where[0][0], 60)}")


def _twice(event: AuditEvent) -> str:
    """What a record says twice: a server, or another monitor, may go by the one that does not count here."""
    for name, values in said_twice(event):
        shown = " and ".join(f"'{safe(value, 60)}'" for value in values[:3])
        return f"the record says {safe(name, 60)} twice: {shown}; readers differ in which counts"
    return "the record says something twice; readers differ in which counts"


def hostile_ids(case: Case) -> Iterable[Found]:
    """It stands in what names the caller."""
    for name, text in case.who.identity.items():
        found = [mark for mark in marks(text) if mark.kind == "hostile"] if text else []
        if found:
            yield Found("hostile-text", Severity.MEDIUM, f"{found[0].what} in the {name.replace('_', ' ')}")
            return
