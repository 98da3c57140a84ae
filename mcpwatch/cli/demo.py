"""`mcpwatch demo`: a small MCP fleet with an attacker in it."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from mcpwatch.cli.exits import Exit
from mcpwatch.cli.options import Show, bandwidth_option, theme_option, utc_option
from mcpwatch.demo.story import at_work, tell
from mcpwatch.text import safe

EPILOG: Final = """\b
In the console: a goes to the next alert, enter opens it, r revokes its key.

\b
Examples:
  mcpwatch demo                      watch, and take the attacker's key away
  mcpwatch demo --headless           the whole story in a few seconds, exit 0 only if it held
  mcpwatch demo --keep /tmp/demo     keep the log and the policy for replay
"""


@click.command(epilog=EPILOG)
@click.option("--seed", type=int, default=7, show_default=True, help="Another fleet for every number.")
@click.option("--headless", is_flag=True, help="Tell the whole story on a clock of its own, and check it.")
@click.option(
    "--keep",
    metavar="DIR",
    type=click.Path(file_okay=False, readable=False),
    help="Work in this folder and leave it there.",
)
@theme_option
@bandwidth_option
@utc_option
def demo(
    seed: int, headless: bool, keep: str | None, theme: str | None, low_bandwidth: bool, utc: bool
) -> None:
    """Run a small MCP fleet with an attacker in it, in a temporary folder.

    Three servers log their calls and obey a policy file; six clients work; somebody guesses keys, gets in with a
    stolen one, reads /etc/passwd, fetches cloud metadata and runs a shell. Without a terminal it tells the story
    instead.
    """
    with _folder(keep) as folder:
        if headless or not sys.stdout.isatty():
            held = tell(folder, seed=seed, say=click.echo)
            sys.exit(Exit.DONE if held else Exit.FOUND)
        from mcpwatch.cli.screen import draw

        show = Show(
            from_ns=None, to_ns=None, filter_text="", plain=False, as_json=False, events=False, fail_on=None,
            reveal=False, read_only=False, theme=theme, low_bandwidth=low_bandwidth, utc=utc,
        )  # fmt: skip
        with at_work(folder, seed=seed) as stage:
            code = draw(stage.monitor, show)
    if keep:
        click.echo(f"kept: {safe(stage.log)} and {safe(stage.policy)}")
    sys.exit(code)


@contextlib.contextmanager
def _folder(keep: str | None) -> Iterator[Path]:
    if keep:
        yield Path(keep)
        return
    with tempfile.TemporaryDirectory(prefix="mcpwatch-demo-") as name:
        yield Path(name)


COMMANDS = {"demo": demo}
