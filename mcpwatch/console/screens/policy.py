"""The policy, opened: what may be done, who holds keys, who is shut out and whether that bites."""

from __future__ import annotations

from mcpwatch.console.columns import state_text
from mcpwatch.console.lines import Line, wrap
from mcpwatch.console.screens.document import DocumentScreen, Part, heading, table
from mcpwatch.snapshot import ChangeRow, PolicyDetail
from mcpwatch.text import SafeText

_NO_POLICY = (
    "There is no policy file: nothing is restricted and nothing can be revoked. "
    "`mcpwatch policy init --from LOG` writes a first one from what a log shows."
)
_TABLES = (
    ("Tools", "tools", ("tool", "tier", "enabled", "paths", "domains", "scope", "audit log"),
     "No tool is named: nothing is restricted."),
    ("Keys", "keys", ("key", "client", "owner", "scopes", "age", "last use"), "No key is named."),
    ("Revoked", "revoked", ("principal", "since", "until", "by", "reason", "state"), "Nobody is revoked."),
    ("Locked out", "lockouts", ("key", "address", "since", "until", "rule", "state"), "Nobody is locked out."),
)  # fmt: skip


def policy_parts(detail: PolicyDetail, changes: tuple[ChangeRow, ...], width: int) -> list[Part]:
    """The policy as a document."""
    row = detail.row
    parts: list[Part] = []
    if row.path is None:
        parts += [(line, None) for line in wrap(_NO_POLICY, width, "warn")]
    else:
        parts.append(((("file    ", "dim"), (row.path, "text")), None))
    for text, role in ((row.error, "error"), (row.changes_off, "warn")):
        if text is not None:
            parts += [(line, None) for line in wrap(text, width, role)]
    if changes:
        parts += heading("Changes made from here", width)
        parts += [(state_text(change), None) for change in changes]
    tables = {
        "tools": detail.tools,
        "keys": detail.keys,
        "revoked": detail.revoked,
        "lockouts": detail.lockouts,
    }
    for title, name, header, nothing in _TABLES:
        rows: tuple[tuple[SafeText, ...], ...] = tables[name]
        parts += heading(f"{title}: {len(rows)}", width)
        parts += table(header, rows, width) if rows else [(((nothing, "dim"),), None)]
    return parts


class PolicyScreen(DocumentScreen):
    """The policy as it is now."""

    HINTS = ("back", "unlock", "undo", "copy", "help")

    def build(self, width: int) -> tuple[Line, list[Part]]:
        """Tools, keys, revocations, lockouts."""
        app = self.console_app
        return (("Policy", "title"),), policy_parts(app.feed.policy(), app.live.changes, width)
