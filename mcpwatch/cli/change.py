"""`revoke`, `restore`, `lock`, `unlock`, `disable`, `enable`: changes of the policy file, from the shell."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any, Final

import click

from mcpwatch.cli.exits import UsageError, note
from mcpwatch.cli.options import (
    Command,
    Duration,
    policy_file,
    policy_option,
    read_only_option,
    state_dir,
    state_option,
)
from mcpwatch.monitor.live import wall_clock
from mcpwatch.policy.model import PRINCIPAL_KINDS
from mcpwatch.response.operator import DOUBT, Operator, change_for
from mcpwatch.response.plan import ResponseError, Target, TargetKind, Verb
from mcpwatch.text import safe

_reason = click.option(
    "--reason", metavar="TEXT", required=True, help="Why; a revocation keeps it in the policy."
)
_kind = click.option("--kind", type=click.Choice(PRINCIPAL_KINDS), default="key", show_default=True,
                     help="What the id names.")  # fmt: skip
_for = click.option("--for", "length", type=Duration(), help="How long, for example 4h. Default: for good.")
_lock_for = click.option(
    "--for", "length", type=Duration(), help="How long. Default: a step of the policy's ladder."
)
_key = click.option("--key", metavar="ID", help="The key.")
_ip = click.option("--ip", metavar="ADDR", help="The address.")
_HOW: Final[tuple[Callable[[Any], Any], ...]] = (
    click.option("--dry-run", is_flag=True, help="Show the diff and write nothing."),
    policy_option,
    state_option,
    read_only_option,
)
"""How a change is made: the parameters of `_change` that all commands hand on."""


def _how(command: Command) -> Command:
    for decorate in reversed(_HOW):
        command = decorate(command)
    return command


def _change(
    verb: Verb,
    targets: tuple[Target, ...],
    reason: str | None,
    length: int | None = None,
    *,
    dry_run: bool,
    policy: str | None,
    state: str | None,
    read_only: bool,
) -> None:
    """Plan, show the diff, write. A change that is already so writes nothing and is no error."""
    if reason is not None and not reason.strip():
        raise UsageError("--reason is empty: say why in a few words")
    file = policy_file(policy)
    if file.path is None:
        raise ResponseError(
            "no policy file: name one with --policy, or make one with `mcpwatch policy init --from LOG`"
        )
    operator = Operator(file.path, state_dir=state_dir(state), clock=wall_clock, read_only=read_only)
    change = change_for(
        verb, targets, reason or "", now_ns=wall_clock(), by=operator.by, policy=file.policy, length_ns=length
    )
    plan = operator.plan_change(verb, change, targets)
    if plan.noop:
        click.echo(f"already so: {plan.what}")
        return
    for line in plan.diff:
        click.echo(line)
    for line in plan.impact:
        note(line)
    if dry_run:
        click.echo("dry run: nothing was written")
        return
    made = operator.apply(plan)
    click.echo(f"{'applied, not confirmed' if made.unconfirmed else 'written'}: {plan.what}")
    if reason is not None:
        click.echo(f"reason: {safe(reason.strip(), 400)}")
    if made.unconfirmed:
        note(DOUBT)
    note("whether it is in force shows in the log: mcpwatch tail LOG")


def _epilog(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


@click.command(
    epilog=_epilog(
        'mcpwatch revoke key_0007 --reason "leaked in a ticket"',
        'mcpwatch revoke s-81c2 --kind session --for 4h --reason "odd calls" --dry-run',
    )
)
@click.argument("id")
@_reason
@_kind
@_for
@_how
def revoke(id: str, reason: str, kind: TargetKind, length: int | None, **how: Any) -> None:
    """Take a key, client, session or subject away."""
    _change("revoke", (Target(kind, id),), reason, length, **how)


@click.command(epilog=_epilog("mcpwatch restore key_0007"))
@click.argument("id")
@_kind
@_how
def restore(id: str, kind: TargetKind, **how: Any) -> None:
    """Give a revoked key, client, session or subject back."""
    _change("restore", (Target(kind, id),), None, **how)


@click.command(
    epilog=_epilog(
        'mcpwatch lock --ip 203.0.113.9 --reason "guessing keys"',
        'mcpwatch lock --key key_0009 --ip 203.0.113.9 --for 1h --reason "guessing"',
    )
)
@_key
@_ip
@_reason
@_lock_for
@_how
def lock(key: str | None, ip: str | None, reason: str, length: int | None, **how: Any) -> None:
    """Lock a key, an address, or a key from an address out; for how long, the policy's ladder says."""
    _change("lock", _who(key, ip), reason, length, **how)


@click.command(epilog=_epilog('mcpwatch unlock --ip 203.0.113.9 --reason "our own scanner"'))
@_key
@_ip
@_reason
@_how
def unlock(key: str | None, ip: str | None, reason: str, **how: Any) -> None:
    """End a lockout."""
    _change("unlock", _who(key, ip), reason, **how)


@click.command(epilog=_epilog('mcpwatch disable shell_execute --reason "incident 4711"'))
@click.argument("tool")
@_reason
@_how
def disable(tool: str, reason: str, **how: Any) -> None:
    """Switch a tool off."""
    _change("disable", (Target("tool", tool),), reason, **how)


@click.command(epilog=_epilog('mcpwatch enable file_write --reason "fixed in 2.3"'))
@click.argument("tool")
@_reason
@_how
def enable(tool: str, reason: str, **how: Any) -> None:
    """Switch a tool on."""
    _change("enable", (Target("tool", tool),), reason, **how)


def _who(key: str | None, ip: str | None) -> tuple[Target, ...]:
    named: tuple[tuple[TargetKind, str | None], ...] = (("key", key), ("source_ip", ip))
    targets = tuple(Target(kind, name) for kind, name in named if name is not None)
    if not targets:
        raise UsageError("name whom: --key ID, --ip ADDR, or both")
    if ip is not None:
        try:
            ipaddress.ip_address(ip)
        except ValueError:
            raise UsageError(f"--ip {safe(ip, 60)}: is no IP address") from None
    return targets


COMMANDS: Final[dict[str, click.Command]] = {
    "revoke": revoke, "restore": restore, "lock": lock, "unlock": unlock, "disable": disable, "enable": enable,
}  # fmt: skip
