"""Plans changes of the policy file. Nothing here touches a file.

A change is made by inserting or cutting text at places that the parser's marks give; every other byte stays
(comments, quotes, indents, line ends, byte order mark).
"""

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
from mcpwatch.policy.edit.lockouts import lockout_of, with_lockout
from mcpwatch.policy.edit.planning import Edit, plan
from mcpwatch.policy.edit.scalars import LONGEST_KEY, quoted, scalar
from mcpwatch.policy.edit.sections import ADDED
from mcpwatch.policy.edit.undo import undo_of

__all__ = [
    "ADDED", "LONGEST_KEY", "Change", "Disable", "Edit", "Enable", "Lock", "LockAll", "Relock", "Restore", "Revoke",
    "Unlock", "Withdraw", "lockout_of", "plan", "quoted", "scalar", "undo_of", "with_lockout",
]  # fmt: skip
