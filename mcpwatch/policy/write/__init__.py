"""Writes the policy file: the only code that does, and only by an `Edit` of exactly what is on disk.

Writers exclude each other through a lock file beside the policy. The new content goes into a file beside the old one,
which takes over its mode, owner, group and attributes and is put in its place: a reader, and a machine that dies at
any moment, sees the old file or the new one, complete. Somebody who edits without the lock is noticed, before and
after, and what he wrote stays.
"""

from mcpwatch.policy.write.refusals import owner_change, writable
from mcpwatch.policy.write.versions import VERSIONS_KEPT
from mcpwatch.policy.write.writing import PolicyChanged, Written, apply, change

__all__ = ["VERSIONS_KEPT", "PolicyChanged", "Written", "apply", "change", "owner_change", "writable"]
