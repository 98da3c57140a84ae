"""`mcpwatch completion`: the completion script of a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

EPILOG = """\b
Examples:
  mcpwatch completion bash > /etc/bash_completion.d/mcpwatch
  mcpwatch completion zsh > ~/.zfunc/_mcpwatch
  mcpwatch completion fish > ~/.config/fish/completions/mcpwatch.fish
"""


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(ctx.find_root().command, {}, "mcpwatch", "_MCPWATCH_COMPLETE").source())


COMMANDS = {"completion": completion}
