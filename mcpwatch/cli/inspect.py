"""`mcpwatch inspect`: what a log is, what it tells, and what of it could not be read."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any, Final

import click

from mcpwatch.cli.inspected import FormatFound, Inspection, can_be_suggested, inspect_log, unknown_records
from mcpwatch.cli.options import json_option, log_options, reading
from mcpwatch.errors import Unusable
from mcpwatch.event import AuditEvent
from mcpwatch.formats.reader import NotUnderstood
from mcpwatch.formats.suggest import suggest
from mcpwatch.incidents.export import dump
from mcpwatch.monitor.pipeline import Reading
from mcpwatch.monitor.rows import detail_of
from mcpwatch.sources.saved import open_saved
from mcpwatch.text import safe, safe_id
from mcpwatch.times import iso

EXAMPLES_SHOWN: Final = 20
_EXAMPLES_OF_EACH: Final = 5
WIDTH: Final = 80
_WORDS_SHOWN: Final = 8

EPILOG: Final = """\b
Examples:
  mcpwatch inspect audit.jsonl
  mcpwatch inspect audit.jsonl --all          list every kept line that was not understood
  mcpwatch inspect gateway.log --suggest > formats/gateway.yaml
  mcpwatch inspect gateway.log --formats ./formats --json
"""


@click.command(epilog=EPILOG)
@click.argument("files", nargs=-1, required=True, type=click.Path(readable=False))
@click.option(
    "--all", "everything", is_flag=True, help="List all kept lines that were not understood, not only some."
)
@click.option(
    "--suggest",
    "suggesting",
    is_flag=True,
    help="Write a first mapping file for records that no format knows (YAML).",
)
@json_option
@log_options
def inspect(
    files: tuple[str, ...],
    everything: bool,
    suggesting: bool,
    as_json: bool,
    format_name: str,
    formats: str | None,
    policy: str | None,
    state: str | None,
) -> None:
    """Say which formats each log is in, what its records tell, what they lack, and what was not understood."""
    how = reading(formats, format_name)
    logs = [Path(name) for name in files]
    if suggesting:
        _suggest(logs, how)
        return
    for number, log in enumerate(open_saved(logs)):
        found = inspect_log(log, how)
        if as_json:
            click.echo(dump(_record(found)))
            continue
        if number:
            click.echo()
        _tell(found, EXAMPLES_SHOWN if not everything else None)


def _suggest(files: list[Path], how: Reading) -> None:
    if len(files) != 1:
        raise click.UsageError("--suggest takes one FILE")
    (log,) = open_saved(files)
    unknown = unknown_records(log, how)
    if not unknown.records:
        raise Unusable(
            f"{safe(log.name)}: no JSON or logfmt records in it that no format knows; nothing to suggest; for other "
            "text see `shape: text` in docs/formats.md"
        )
    name = "".join(
        sign if sign.isalnum() and sign.isascii() else "-" for sign in Path(files[0].name).stem
    ).strip("-")
    text = suggest(
        unknown.records,
        name[:40].lower() or "mine",
        shape=unknown.shape,
        template=unknown.template,
        remark=f"A first mapping, from {len(unknown.records)} {_plural(len(unknown.records), 'record')}.",
    )
    if text is None:
        raise Unusable(
            f"{safe(log.name)}: neither a tool nor a time can be found in its records; nothing to suggest"
        )
    click.echo(text, nl=False)


def _record(found: Inspection) -> dict[str, Any]:
    reader = found.reader
    return {
        "type": "inspect",
        "source": safe(found.log.name),
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
        "reasons": {safe(reason, 400): count for reason, count in reader.reasons.items()},
        "fields": {name: {"have": have, "of": of} for name, have, of in reader.coverage},
        "formats": [
            {
                "format": one.name,
                "title": safe(one.mapping.title) if one.mapping is not None else None,
                "records": one.records,
                "asides": one.asides,
                "events": one.events,
                "tool_calls": one.calls,
                "fields": {name: {"have": have, "of": of} for name, have, of in one.coverage},
                "outcomes": dict(+one.outcomes),
                "unknown_words": {safe(word): count for word, count in found.words(one.name).items()},
                "advice": {name: safe(said, 400) for name, said in one.advice.items()},
            }
            for one in found.formats
        ],
        "calls_without_end": reader.pairing.unended + reader.pairing.open,
        "records_without_end": reader.fragments.given_up + reader.fragments.open,
        "examples": [
            {"line": item.line, "offset": item.offset, "reason": item.reason, "text": item.head}
            for item in reader.examples
        ],
    }


def _tell(found: Inspection, limit: int | None) -> None:
    reader = found.reader
    read = reader.understood + reader.not_understood
    share = f", {100 * reader.understood // read}% understood" if read else ""
    main = reader.format_name if found.formats else "no known format"
    click.echo(f"{safe(found.log.name)}: {main}{share}")
    _say(
        f"{reader.lines} {_plural(reader.lines, 'line')} = {reader.understood} understood + "
        f"{reader.not_understood} not understood + {reader.blank} blank + {reader.repeated} repeated + "
        f"{reader.joined} joined"
    )
    if reader.bad_utf8:
        _say(f"{reader.bad_utf8} lines with bad UTF-8, shown as \\xNN")
    for one in found.formats:
        _tell_format(one, found.words(one.name), advised=bool(one.events) or not reader.events)
    without = reader.pairing.unended + reader.pairing.open
    if without:
        whose = "its" if without == 1 else "their"
        _say(f"{without} {_plural(without, 'call')} without an end: {whose} outcome is unknown")
    lost = reader.fragments.given_up + reader.fragments.open
    if lost:
        _say(f"{lost} {_plural(lost, 'record')} in pieces without the last one")
    if reader.not_understood:
        _tell_not_understood(found, limit)
    if can_be_suggested(found):
        click.echo()
        _say("to write a first mapping file for records that no format knows:")
        _say("mcpwatch inspect FILE --suggest", 4)
    elif reader.not_understood and not reader.understood:
        click.echo()
        _say("to have other text read, write a mapping file with `shape: text` (docs/formats.md)")


def _tell_format(one: FormatFound, words: dict[str, int], *, advised: bool) -> None:
    """What the records of one format tell.

    Args:
        advised: Also what to switch on, which is of no use for lines beside the records of another format.
    """
    title = (
        f" ({safe(one.mapping.title, 120)})"
        if one.mapping is not None and one.mapping.title != one.name
        else ""
    )
    click.echo()
    _say(f"{one.name}{title}")
    parts = [f"{one.records} {_plural(one.records, 'record')}"]
    if one.asides:
        parts.append(f"{one.asides} of them no audit records")
    parts += [
        f"{one.events} {_plural(one.events, 'event')}",
        f"{one.calls} tool {_plural(one.calls, 'call')}",
    ]
    _say(", ".join(parts), 4)
    for name, have, of in one.coverage if one.events else ():
        # rounded down: what one call lacks is not in all of them
        missing = f"   {_what(one, name)}missing in {of - have} of {of}" if have < of else ""
        click.echo(f"      {name:22} {100 * have // of:3}%{missing}")
    if one.events:
        outcomes = sorted((+one.outcomes).items(), key=lambda item: (-item[1], item[0]))
        _say("outcomes: " + ", ".join(f"{name} {count}" for name, count in outcomes), 4)
    if one.first is not None:
        _say(f"first call: {_as_read(one.first)}", 4)
    if one.nameless:
        _say(
            f"{one.nameless} of {one.events} {_plural(one.events, 'event')} without client, key, session, user or "
            "address: rules go by callers, and pass them over",
            4,
        )
    if words:
        listed = ", ".join(
            f"{safe(word, 40)} ({count})" for word, count in list(words.items())[:_WORDS_SHOWN]
        )
        more = f", and {len(words) - _WORDS_SHOWN} more" if len(words) > _WORDS_SHOWN else ""
        _say(f"words for outcomes of which nothing is known: {listed}{more}", 4)
    for name, said in one.advice.items() if advised else ():
        _say(f"for {name}: {safe(said, 400)}", 4)
    if one.mapping is None and one.calls and any(2 * have < of for _, have, of in one.coverage):
        _say("docs/formats.md has a logging middleware that writes all five", 4)


def _tell_not_understood(found: Inspection, limit: int | None) -> None:
    reader = found.reader
    click.echo()
    _say("not understood:")
    for reason, count in reader.reasons.most_common():
        _say(f"{count} x {safe(reason, 400)}", 4)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    shown = _newest(list(reader.examples), limit) if limit is not None else list(reader.examples)
    for item in shown:
        place = f"line {item.line}" if item.line is not None else f"byte {item.offset}"
        text = f"    {place}: {item.head}"
        click.echo(text if columns is None or len(text) <= columns else text[: columns - 1] + "…")
    if reader.not_understood > len(shown):
        click.echo(f"    ... and {reader.not_understood - len(shown)} more (--all lists the newest 200)")


def _newest(examples: list[NotUnderstood], limit: int) -> list[NotUnderstood]:
    """The newest, few of each reason: one that has many must not hide the others."""
    seen: Counter[str] = Counter()
    found = []
    for item in reversed(examples):
        seen[item.reason] += 1
        if seen[item.reason] <= _EXAMPLES_OF_EACH:
            found.append(item)
    return found[:limit][::-1]


def _what(one: FormatFound, name: str) -> str:
    """Which of tool and parameters it is that is missing, where it is always the same one."""
    lacking = [part for part in ("tool", "params") if one.lacking[part]]
    if name != "tool and parameters" or len(lacking) != 1:
        return ""
    return "tool " if lacking == ["tool"] else "parameters "


def _as_read(event: AuditEvent) -> str:
    """A call as it was read, for whoever knows the log: a wrong unit, place or word shows at once."""
    took = f"{event.duration_ms:,.6g} ms" if event.duration_ms is not None else None
    who = {"key": event.key_id, "client": event.client_id, "user": event.subject, "session": event.session_id}
    parts = [
        iso(event.time_ns) if event.time_ns is not None else "no time",
        safe(event.tool, 60) if event.tool is not None else "no tool",
        safe(detail_of(event.params, None), 80) or None,
        event.status or "unknown",
        took,
        *(f"{name} {safe_id(value, 40)}" for name, value in who.items() if value),
        f"from {safe(event.source_ip, 60)}" if event.source_ip else None,
    ]
    return ", ".join(part for part in parts if part is not None)


def _say(text: str, indent: int = 2) -> None:
    """A sentence, indented, in as many lines as it takes."""
    margin = " " * indent
    for line in textwrap.wrap(
        text, WIDTH, initial_indent=margin, subsequent_indent=margin + "  ", break_on_hyphens=False
    ):
        click.echo(line)


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else noun + "s"


COMMANDS = {"inspect": inspect}
