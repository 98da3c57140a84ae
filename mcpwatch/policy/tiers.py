"""How much harm a tool can do: its risk tier, from the policy, the table of known tools, or its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from mcpwatch.policy.model import Policy, Tier

KNOWN_TOOLS: Final[Mapping[str, Tier]] = MappingProxyType(
    {
        "shell_execute": Tier.HIGH,
        "bash": Tier.HIGH,
        "file_write": Tier.HIGH,
        "http_request": Tier.HIGH,
        "database_write": Tier.HIGH,
        "file_read": Tier.MEDIUM,
        "http_get": Tier.MEDIUM,
        "memory_store": Tier.MEDIUM,
        "calculator": Tier.LOW,
        "datetime": Tier.LOW,
        "text_transform": Tier.LOW,
    }
)
"""Tools whose tier is known by their whole name."""

_HIGH: Final = """
write delete exec execute send run create update insert put post patch edit append overwrite save store set add
move rename copy remove drop truncate kill terminate stop restart shutdown reboot spawn eval shell bash sh sudo
ssh terminal command install uninstall deploy publish upload push commit merge import grant revoke approve
transfer pay charge refund transact request chmod chown mkdir rm rmdir unlink destroy purge wipe reset rollback
restore apply submit invite disable enable fork webhook email sms
"""
_MEDIUM: Final = """
read get list search find fetch query select view show describe download open load lookup scan browse crawl
scrape navigate click screenshot export dump tail head cat ls grep glob tree stat inspect watch retrieve recall
peek clone pull checkout diff log status info count
"""
VERBS: Final[Mapping[Tier, frozenset[str]]] = MappingProxyType(
    {Tier.HIGH: frozenset(_HIGH.split()), Tier.MEDIUM: frozenset(_MEDIUM.split())}
)
"""Words in a tool's name that tell its tier, where nothing else does. The higher tier wins."""

_SHELLS: Final = """
shell_execute bash shell sh zsh cmd powershell pwsh terminal exec execute_shell run_shell shell_exec local_shell
execute_bash run_bash run_shell_command execute_command run_command run_in_terminal run_terminal_cmd
run_terminal_command execute_shell_command start_process interact_with_process
"""
SHELL_TOOLS: Final = frozenset(_SHELLS.split())
"""Tools that run whatever they are told: any call of one is reported, allowed or not."""

_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", re.ASCII)
_LONGEST_NAME: Final = 256


def bare_name(tool: str) -> str:
    """The tool's own name, in small letters: `mcp__files__File_Read` is `file_read`."""
    if tool.startswith("mcp__"):
        tool = tool.split("__", 2)[-1]
    return tool.lower()


def is_shell(tool: str) -> bool:
    """Whether the tool is one of `SHELL_TOOLS`, behind an `mcp__server__` prefix or with hyphens too."""
    return bare_name(tool).strip().replace("-", "_") in SHELL_TOOLS


def words(tool: str) -> frozenset[str]:
    """The words of a tool's name, split at `_ - . /` and at capitals: `deleteUser` is `delete`, `user`.

    Only the first 256 characters count; the name of the server in `mcp__server__tool` does not.
    """
    name = tool.split("__", 2)[-1] if tool.startswith("mcp__") else tool
    return frozenset(word.lower() for word in _WORDS.findall(name[:_LONGEST_NAME]))


_READ_VERBS: Final = VERBS[Tier.MEDIUM] | frozenset(
    {"copy", "move", "edit", "send", "upload", "push", "import"}
)
_WRITES: Final = """
write delete create update insert put patch edit append overwrite save store set add move rename copy remove truncate
replace editor modify change upsert generate export commit clone sync configure
install upload download chmod chown mkdir rm unlink purge wipe restore apply touch extract link push
"""
_WRITE_VERBS: Final = frozenset(_WRITES.split())


def may_read(tool: str) -> bool:
    """Whether a call of the tool may give back what is in a file; not so if its name only speaks of writing."""
    found = words(tool)
    return is_shell(tool) or bool(found & _READ_VERBS) or not found & _WRITE_VERBS


def may_write(tool: str) -> bool:
    """Whether a call of the tool changes files, as far as its name tells."""
    return is_shell(tool) or bool(words(tool) & _WRITE_VERBS)


@lru_cache(maxsize=4_096)
def _by_name(tool: str) -> Tier:
    known = KNOWN_TOOLS.get(bare_name(tool))
    if known is not None:
        return known
    if is_shell(tool):
        return Tier.HIGH
    found = words(tool)
    return next((tier for tier, verbs in VERBS.items() if found & verbs), Tier.LOW)


def tier_of(policy: Policy, tool: str) -> Tier:
    """The risk tier: the tool's own `risk`, else the policy's `risk_tiers`, else by its name."""
    row = policy.tools.get(tool)
    if row is not None and row.risk is not None:
        return row.risk
    tier = policy.risk_tiers.get(tool)
    # a name as long as a book must not stay in the cache
    return tier if tier is not None else _by_name(tool[:_LONGEST_NAME])
