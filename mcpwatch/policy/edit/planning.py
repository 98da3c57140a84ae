"""Plans one change of the policy file: finds the place, splices the bytes, and proves that nothing else moved.

The result is parsed again and must mean exactly the old policy with the change, or the edit is refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mcpwatch.documents.tree import MAX_BYTES, Document, compose
from mcpwatch.policy.edit import lockouts, revocations, tools
from mcpwatch.policy.edit.changes import (
    Change,
    Disable,
    Enable,
    Lock,
    LockAll,
    Relock,
    Restore,
    Revoke,
    Unlock,
    Withdraw,
)
from mcpwatch.policy.edit.splice import spliced
from mcpwatch.policy.edit.step import Step
from mcpwatch.policy.load import POLICY_FILE, interpret
from mcpwatch.policy.model import Policy, PolicyError
from mcpwatch.text import SafeText, safe

_LONG_LINE: Final = 1_000
_SHARED_SHOWN: Final = 200
"""Characters that are shown before and behind the change of a line longer than that."""

_STEPS: Final[Mapping[type, Callable[[Any, Document, Policy], Step]]] = {
    Revoke: revocations.revoke,
    Restore: revocations.restore,
    Lock: lockouts.lock,
    LockAll: lockouts.lock_all,
    Unlock: lockouts.unlock,
    Withdraw: lockouts.withdraw,
    Relock: lockouts.relock,
    Disable: tools.disable,
    Enable: tools.enable,
}


@dataclass(frozen=True, slots=True)
class Edit:
    """A planned change.

    Attributes:
        before: The whole file as it was read.
        after: The whole file as it is to be; equal to `before` when there is nothing to do.
        diff: Unified, three lines of context, safe to show.
        summary: What the change does, in one clause.
        noop: It is already so.
    """

    before: bytes
    after: bytes
    diff: SafeText
    summary: SafeText
    noop: bool


def _check(document: Document, before: bytes, after: bytes, step: Step) -> None:
    bom = len(document.bom)
    head = bom + len(document.text[: min(splice.start for splice in step.splices)].encode())
    tail = len(document.text[max(splice.end for splice in step.splices) :].encode())
    if len(after) > MAX_BYTES:
        raise PolicyError(
            safe(
                f"{document.name}: not changed: it would be larger than {MAX_BYTES} bytes: remove what is over"
            )
        )
    untouched = after[:head] == before[:head] and (not tail or after[-tail:] == before[-tail:])
    try:
        meant = interpret(compose(after, document.name, POLICY_FILE)) == step.expected
    except PolicyError:
        meant = False
    if not (untouched and meant):
        line = document.text.count("\n", 0, step.splices[0].start) + 1
        raise PolicyError(
            safe(
                f"{document.name}:{line}: not changed: the file is written in a way that can't be edited safely; "
                f"edit it by hand ({step.summary})"
            )
        )


def _around_change(old: str, new: str) -> tuple[str, str]:
    """Two long lines without most of what they share: a list in brackets is one line, however long it gets."""
    start, end = _same(old[1:], new[1:]), _same(old[:0:-1], new[:0:-1])
    end = min(end, min(len(old), len(new)) - 1 - start)
    left, right = (max(0, shared - _SHARED_SHOWN) for shared in (start, end))
    if max(len(old), len(new)) <= _LONG_LINE:
        return old, new

    def cut(line: str) -> str:
        return line[0] + "…" * (left > 0) + line[1 + left : len(line) - right] + "…" * (right > 0)

    return cut(old), cut(new)


def _same(one: str, other: str) -> int:
    """How many characters two texts have in common at their start."""
    differing = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


def _diff(before: bytes, after: bytes, name: str) -> SafeText:
    old, new = (data.decode("utf-8", "replace").split("\n") for data in (before, after))
    old, new = (lines[:-1] if lines[-1] == "" else lines for lines in (old, new))
    lines = list(difflib.unified_diff(old, new, name, name, n=3, lineterm=""))
    for at in range(2, len(lines) - 1):
        if lines[at][0] == "-" and lines[at + 1][0] == "+":
            lines[at : at + 2] = _around_change(lines[at], lines[at + 1])
    # each line made safe by itself: the newlines between them are ours; a CR at the end is no news
    return SafeText("\n".join(safe(line.removesuffix("\r")) for line in lines))


def plan(data: bytes, change: Change | LockAll, name: str) -> Edit:
    """Plan a change of the policy file.

    Args:
        data: The file's bytes.
        name: The file's name, for the diff and for messages.

    Raises:
        PolicyError: The file is not valid, the change makes no sense, or the place is written in a way (aliases,
            anchors, tags) that can't be edited without risk. The message has the line.
    """
    document = compose(data, name, POLICY_FILE)
    policy = interpret(document)
    step = _STEPS[type(change)](change, document, policy)
    summary = safe(step.summary, 400)
    if not step.splices:
        return Edit(data, data, SafeText(""), summary, True)
    after = spliced(document, data, step.splices)
    _check(document, data, after, step)
    return Edit(data, after, _diff(data, after, name), summary, False)
