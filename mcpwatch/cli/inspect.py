"""`mcpwatch inspect`: what a log is, what it tells, and what of it could not be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from mcpwatch.cli.options import json_option, log_options, reading
from mcpwatch.formats.reader import Reader
from mcpwatch.incidents.export import dump
from mcpwatch.sources.saved import SavedLog, open_saved
from mcpwatch.text import safe

EXAMPLES_SHOWN: Final = 20

EPILOG: Final = """\b
Examples:
  mcpwatch inspect audit.jsonl
  mcpwatch inspect audit.jsonl --all          list every kept line that was not understood
  mcpwatch inspect gateway.log --formats ./mappings --json
"""


@click.command(epilog=EPILOG)
@click.argument("files", nargs=-1, required=True, type=click.Path(readable=False))
@click.option(
    "--all", "everything", is_flag=True, help="List all kept lines that were not understood, not only some."
)
@json_option
@log_options
def inspect(
    files: tuple[str, ...],
    everything: bool,
    as_json: bool,
    format_name: str,
    formats: str | None,
    policy: str | None,
    state: str | None,
) -> None:
    """Say which format each log is in, which of the five fields its tool calls have, and what was not understood."""
    how = reading(formats, format_name)
    for log in open_saved([Path(name) for name in files]):
        reader = Reader(log.name, mappings=how.mappings, format_name=how.format_name)
        for block in log.blocks():
            reader.read(block)
        if as_json:
            click.echo(dump(_record(log, reader)))
        else:
            _tell(log, reader, EXAMPLES_SHOWN if not everything else None)


def _record(log: SavedLog, reader: Reader) -> dict[str, Any]:
    return {
        "type": "inspect",
        "source": safe(log.name),
        "format": reader.format_name,
        "lines": reader.lines,
        "understood": reader.understood,
        "not_understood": reader.not_understood,
        "blank": reader.blank,
        "repeated": reader.repeated,
        "joined": reader.joined,
        "held": 0,
        "events": reader.events,
        "bad_utf8": reader.bad_utf8,
        "reasons": dict(reader.reasons),
        "fields": {name: {"have": have, "of": of} for name, have, of in reader.coverage},
        "examples": [
            {"line": item.line, "offset": item.offset, "reason": item.reason, "text": item.head}
            for item in reader.examples
        ],
    }


def _tell(log: SavedLog, reader: Reader, limit: int | None) -> None:
    click.echo(f"{safe(log.name)}: {reader.format_name}")
    click.echo(
        f"  {reader.lines} lines = {reader.understood} understood + {reader.not_understood} not understood + "
        f"{reader.blank} blank + {reader.repeated} repeated + {reader.joined} joined; {reader.events} events"
    )
    if reader.bad_utf8:
        click.echo(f"  {reader.bad_utf8} lines with bad UTF-8, shown as \\xNN")
    click.echo("  of the five fields that every tool call should have:")
    for name, have, of in reader.coverage:
        share = f"{have / of:4.0%}" if of else "  - "
        missing = "" if have == of else f"   missing in {of - have} of {of}"
        click.echo(f"    {name:22} {share}{missing}")
    if not reader.not_understood:
        return
    click.echo("  not understood:")
    for reason, count in reader.reasons.most_common():
        click.echo(f"    {count} x {reason}")
    shown = list(reader.examples)[-limit:] if limit is not None else list(reader.examples)
    for item in shown:
        place = f"line {item.line}" if item.line is not None else f"byte {item.offset}"
        click.echo(f"    {place}: {item.head}")
    if reader.not_understood > len(shown):
        click.echo(f"    ... and {reader.not_understood - len(shown)} more (--all lists the newest 200)")


COMMANDS = {"inspect": inspect}
