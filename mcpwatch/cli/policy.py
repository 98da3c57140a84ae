"""`mcpwatch policy`: make a policy file from what a log shows, and check one."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from mcpwatch.cli.exits import Exit
from mcpwatch.cli.options import json_option, log_options, policy_option, reading
from mcpwatch.incidents.export import dump
from mcpwatch.monitor.pipeline import Pipeline, saved_events
from mcpwatch.policy.draft import ToolsSeen, draft
from mcpwatch.policy.file import find
from mcpwatch.policy.lint import lint as lint_policy
from mcpwatch.policy.load import parse, read
from mcpwatch.policy.model import BUILT_IN, PolicyError
from mcpwatch.sources.saved import open_saved
from mcpwatch.text import safe


@click.group(
    epilog="\b\nExamples:\n  mcpwatch policy init --from audit.jsonl --output policy.yaml\n  mcpwatch policy lint"
)
def policy() -> None:
    """Make a policy file from a log, and check one."""


INIT_EPILOG: Final = """\b
Examples:
  mcpwatch policy init --from audit.jsonl                        print it
  mcpwatch policy init --from audit.jsonl --output policy.yaml   write it, unless it is there
"""


@policy.command(epilog=INIT_EPILOG)
@click.option(
    "--from",
    "logs",
    metavar="LOG",
    multiple=True,
    required=True,
    type=click.Path(readable=False),
    help="Log to learn from; may be given more than once.",
)
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(readable=False),
    help="Write there; an existing file is never replaced.",
)
@log_options
def init(logs: tuple[str, ...], output: str | None, format_name: str, formats: str | None,
         policy: str | None, state: str | None) -> None:  # fmt: skip
    """Write a first policy from what a log shows: its tools, folders, hosts, scopes and keys.

    Read it before you use it: what an attacker did in that log is in it as well.
    """
    seen = ToolsSeen()
    pipeline = Pipeline(BUILT_IN, reading(formats, format_name, coverage=False))
    for events in saved_events(open_saved([Path(name) for name in logs]), pipeline):
        for event in events:
            seen.add(event)
    text = draft(seen)
    parse(text.encode(), None)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        with Path(output).open("x") as file:
            file.write(text)
    except FileExistsError:
        raise PolicyError(
            f"{safe(output)}: is there already; it was not touched (choose another --output)"
        ) from None
    click.echo(
        f"written: {safe(output)}; read it, then check it with: mcpwatch policy lint --policy {safe(output)}"
    )


LINT_EPILOG: Final = """\b
Examples:
  mcpwatch policy lint
  mcpwatch policy lint --policy /etc/mcpwatch/policy.yaml --json
"""


@policy.command(epilog=LINT_EPILOG)
@policy_option
@json_option
def lint(policy: str | None, as_json: bool) -> None:
    """Check a policy file: errors (exit 3), then what is looser, older or odder than it should be (exit 1)."""
    path = find(policy, os.environ, Path.cwd())
    if path is None:
        raise PolicyError(
            "no policy file: name one with --policy, or make one with `mcpwatch policy init --from LOG`"
        )
    advice = lint_policy(read(path), path, today=datetime.now(UTC).date())
    for item in advice:
        if as_json:
            click.echo(dump({"type": "advice", "file": safe(path), "line": item.line, "severity": item.severity,
                             "code": item.code, "message": item.message}))  # fmt: skip
        else:
            click.echo(f"{safe(path)}:{item.line}: {item.severity}: {item.message} [{item.code}]")
    if not as_json:
        click.echo(
            f"{safe(path)}: valid; {len(advice)} pieces of advice" if advice else f"{safe(path)}: valid"
        )
    sys.exit(Exit.FOUND if any(item.severity == "high" for item in advice) else Exit.DONE)


COMMANDS = {"policy": policy}
