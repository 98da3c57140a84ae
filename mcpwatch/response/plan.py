"""What an operator can do, and the plan that is shown before it is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mcpwatch.errors import NotApplied
from mcpwatch.policy.edit import Change, Edit
from mcpwatch.text import SafeText

Verb = Literal["revoke", "restore", "lock", "unlock", "disable", "enable"]
TargetKind = Literal["key", "client", "session", "subject", "source_ip", "tool"]


class ResponseError(NotApplied):
    """A change can't be planned or made. The message says what, where and what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that a change is about. `id` is raw, untrusted text: show it through `text.safe`."""

    kind: TargetKind
    id: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A change of the policy file, as it is shown and, if the operator agrees, as it is written.

    Attributes:
        what: One line, for example "revoke key key_0007".
        diff: Unified diff of the policy file, safe to show, a line each.
        impact: What depends on the target: sessions, calls in the last hour, its entry in the policy.
        noop: Already so: nothing would be written.
        edit: The exact bytes before and after.
        change: What the edit does.
    """

    verb: Verb
    targets: tuple[Target, ...]
    what: SafeText
    diff: tuple[SafeText, ...]
    impact: tuple[SafeText, ...]
    noop: bool
    edit: Edit
    change: Change
