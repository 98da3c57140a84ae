"""The table of commands. A command's module is imported when it is run, so that each starts fast."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, Final

import click
from click.core import ParameterSource

from mcpwatch import __version__
from mcpwatch.cli import config
from mcpwatch.cli.exits import Exit, friendly, prepare_streams
from mcpwatch.text import safe

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "tail": ("tail", "Watch audit logs live."),
    "replay": ("replay", "Go through saved logs, with the same rules and the same incident ids."),
    "demo": ("demo", "A small MCP fleet with an attacker in it, in a temporary folder."),
    "revoke": ("change", "Take a key, client, session or subject away."),
    "restore": ("change", "Give it back."),
    "lock": ("change", "Lock a key, an address, or a key from an address out for a while."),
    "unlock": ("change", "End a lockout."),
    "disable": ("change", "Switch a tool off."),
    "enable": ("change", "Switch a tool on."),
    "status": ("status", "What is being watched, whether it adds up, and what ended or died."),
    "inspect": ("inspect", "Which format a log is in, what it tells and what could not be read."),
    "policy": ("policy", "Make a policy file from a log, and check one."),
    "rules": ("rules", "What is detected, and why."),
    "completion": ("completion", "Print the completion script of a shell."),
}
"""Command -> (module of mcpwatch.cli, help line)."""

EXAMPLES: Final = """\b
Examples:
  mcpwatch demo                                    see it at work
  mcpwatch tail /var/log/mcp/audit.jsonl           watch a log
  mcpwatch replay audit.jsonl.2.gz audit.jsonl.1 audit.jsonl
  mcpwatch replay audit.jsonl --json | jq 'select(.severity=="critical")'
  mcpwatch revoke key_0007 --reason "leaked in a ticket"

\b
Every option is also MCPWATCH_... in the environment and a key of config.toml; the nearest one wins.
Exit codes: 0 done, 1 found (--fail-on), 2 usage, 3 a file can't be used, 4 change not made, 130 interrupted.
"""


class _Group(click.Group):
    """Finds a command in the table and imports its module only then.

    The rooms' errors are turned into exit codes in here: further out, click has its own idea of a closed pipe
    and of Ctrl-C.
    """

    def make_context(self, *args: Any, **settings: Any) -> click.Context:
        with friendly():
            return super().make_context(*args, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        with friendly():
            try:
                return super().invoke(ctx)
            except click.BadParameter as error:
                origin = _origin(error)
                if not origin:
                    raise
                raise click.BadParameter(error.message + origin, error.ctx, error.param) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"mcpwatch.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.COMMANDS[cmd_name]
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and command is not None and not ctx.resilient_parsing:
            from mcpwatch.cli.options import SETTINGS  # loads half the house: not for --version and --help

            ctx.default_map = {name: config.defaults(command, config.load(frozenset(SETTINGS)))}
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _origin(error: click.BadParameter) -> str:
    """Where a bad value came from, if not from the command line."""
    if error.ctx is None or error.param is None or error.param.name is None:
        return ""
    source = error.ctx.get_parameter_source(error.param.name)
    places = {
        ParameterSource.ENVIRONMENT: str(error.param.envvar),
        ParameterSource.DEFAULT_MAP: safe(config.path()),
    }
    return f" (from {places[source]})" if source in places else ""


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"mcpwatch {__version__}")
        ctx.exit()


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXAMPLES,
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
def cli() -> None:
    """Watch MCP servers through their audit logs, see what is wrong, take keys away, and see that it worked."""


def main() -> None:
    """Run the command line."""
    prepare_streams()
    with friendly():
        try:
            code = cli.main(prog_name="mcpwatch", standalone_mode=False)
        except click.exceptions.Exit as leave:
            code = leave.exit_code
        except click.Abort:
            code = Exit.INTERRUPTED
        except click.ClickException as error:
            _explain(error)
            code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)


def _explain(error: click.ClickException) -> None:
    """Print a usage error as click does, without trusting what was typed: a shell glob types file names."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return
    context = getattr(error, "ctx", None)
    if context is not None:
        click.echo(context.get_usage(), err=True)
        click.echo(f"Try '{context.command_path} --help' for help.\n", err=True)
    click.echo(f"Error: {safe(error.format_message(), 2_000)}", err=True)
