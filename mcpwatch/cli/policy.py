"""`mcpwatch policy`: make a policy file, check it, explain what it says of a record, and try another one."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
from click.core import ParameterSource

from mcpwatch.cli.advice import Linted, Progress, print_json, print_plain, print_sarif
from mcpwatch.cli.exits import Exit, UsageError, note
from mcpwatch.cli.options import (
    LEVELS,
    json_option,
    log_options,
    option,
    policy_file,
    policy_option,
    reading,
    rule_set,
    rules_option,
)
from mcpwatch.cli.progress import ReadingProgress
from mcpwatch.detection.hit import Severity
from mcpwatch.monitor.pipeline import Pipeline, saved_events
from mcpwatch.policy.draft import ToolsSeen, draft
from mcpwatch.policy.file import PolicyFile, find
from mcpwatch.policy.lint import Subject, advise, in_order
from mcpwatch.policy.load import parse, read
from mcpwatch.policy.model import BUILT_IN, PolicyError
from mcpwatch.policy.symlinks import scan
from mcpwatch.sources.saved import open_saved
from mcpwatch.text import SafeText, safe


@click.group(
    epilog="\b\nExamples:\n  mcpwatch policy init --from audit.jsonl --output policy.yaml\n  mcpwatch policy lint\n"
    "  mcpwatch policy explain audit.jsonl:1234\n  mcpwatch policy what-if stricter.yaml audit.jsonl"
)
def policy() -> None:
    """Make a policy file from a log, check it, see what it says of a record, and try out another."""


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
  mcpwatch policy lint staging.yaml production.yaml --fail-on medium
  mcpwatch policy lint --policy /etc/mcpwatch/policy.yaml --json
  mcpwatch policy lint policy.yaml --sarif > policy.sarif      for code scanning
  sudo mcpwatch policy lint --scan-symlinks                    on the machine of the MCP servers
"""


@policy.command(epilog=LINT_EPILOG)
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(readable=False))
@policy_option
@json_option
@click.option("--sarif", "as_sarif", is_flag=True, help="One SARIF 2.1.0 log.")
@option(
    "--fail-on",
    type=click.Choice(LEVELS),
    default="high",
    show_default=True,
    help="Exit 1 when there is advice of this level or worse; critical: never.",
)
@click.option(
    "--scan-symlinks",
    is_flag=True,
    help="Also look on this machine for symbolic links that lead out of the allowed folders.",
)
def lint(files: tuple[str, ...], policy: str | None, as_json: bool, as_sarif: bool, fail_on: str,
         scan_symlinks: bool) -> None:  # fmt: skip
    """Check policy files: errors (exit 3), then what is looser, older or odder than it should be.

    Without FILE: the policy file in use.
    """
    asked = click.get_current_context().get_parameter_source
    if files and policy and asked("policy") is ParameterSource.COMMANDLINE:
        raise UsageError("--policy and FILE exclude each other: name every file without an option")
    if as_sarif and as_json and asked("as_json") is ParameterSource.COMMANDLINE:
        raise UsageError("--json and --sarif exclude each other")
    paths = [Path(name) for name in files] or [_in_use(policy)]
    found, unusable = _linted(paths, scan_symlinks)
    if as_sarif:
        print_sarif(found, unusable, Path.cwd())
    elif as_json:
        print_json(found)
    else:
        print_plain(found)
    for message in unusable:
        note(message)
    if unusable:
        sys.exit(Exit.UNUSABLE)
    worst = max((Severity.named(item.severity) for each in found for item in each.advice), default=None)
    sys.exit(Exit.FOUND if worst is not None and worst >= Severity.named(fail_on) else Exit.DONE)


def _in_use(named: str | None) -> Path:
    path = find(named, os.environ, Path.cwd())
    if path is None:
        raise PolicyError(
            "no policy file: name one with --policy, or make one with `mcpwatch policy init --from LOG`"
        )
    return path


def _linted(paths: Sequence[Path], scan_symlinks: bool) -> tuple[list[Linted], list[SafeText]]:
    """The valid files with the advice on them, and what is wrong with the others."""
    found: list[Linted] = []
    unusable: list[SafeText] = []
    today = datetime.now(UTC).date()
    for path in paths:
        try:
            subject = Subject.of(read(path), path, today=today)
        except PolicyError as error:
            unusable.append(safe(error, 2_000))
            continue
        advice = advise(subject)
        if scan_symlinks:
            progress = Progress()
            try:
                advice += scan(subject, progress)
            finally:
                progress.end()
        found.append(Linted(path, in_order(advice)))
    return found, unusable


EXPLAIN_EPILOG: Final = """\b
Examples:
  mcpwatch policy explain audit.jsonl:1234
  mcpwatch policy explain audit.jsonl.1 audit.jsonl --line 1234      the files of one log
  mcpwatch policy explain audit.jsonl:1234 --policy stricter.yaml --json
  tail -n 1 audit.jsonl | mcpwatch policy explain -
"""


@policy.command(epilog=EXPLAIN_EPILOG)
@click.argument("logs", metavar="LOG:LINE | LOG... --line N | -", nargs=-1, required=True)
@click.option(
    "--line",
    type=click.IntRange(min=1),
    help="Number of the line, from 1; counted on through a rotation set.",
)
@json_option
@rules_option
@log_options
def explain(logs: tuple[str, ...], line: int | None, as_json: bool, rules: str | None, policy: str | None,
            state: str | None, format_name: str, formats: str | None) -> None:  # fmt: skip
    """Say of one record, verdict by verdict and rule by rule, why.

    What stands before it in the log is read first, so that what rules count is what they counted then.
    """
    from mcpwatch.cli import explained
    from mcpwatch.monitor.explain import MAX_RECORD, explain_line, explain_record

    paths, number = _place(logs, line)
    in_use, known = policy_file(policy).policy, rule_set(rules)
    how = reading(formats, format_name, coverage=False)
    if number is None:
        data = sys.stdin.buffer.read(MAX_RECORD + 1)
        found = explain_record(data, in_use, known, how)
    else:
        opened = open_saved(paths)
        if len(opened) > 1:
            names = ", ".join(log.name for log in opened)
            raise UsageError(f"{names} are {len(opened)} logs: name one, or the files of one rotation set")
        progress = ReadingProgress(opened)
        try:
            found = explain_line(opened[0], number, in_use, known, how, progress.show)
        finally:
            progress.clear()
    (explained.print_json if as_json else explained.print_plain)(found, known)


def _place(logs: Sequence[str], line: int | None) -> tuple[list[Path], int | None]:
    """The files of the log and the number of the line in it; None where the record comes on standard input."""
    if list(logs) == ["-"]:
        if line is not None:
            raise UsageError("--line goes with a log; from standard input one record is read")
        return [], None
    if line is not None:
        return [Path(name) for name in logs], line
    name, _, number = logs[0].rpartition(":")
    if len(logs) > 1 or not name or not (number.isascii() and number.isdigit() and 0 < len(number) < 19):
        raise UsageError(f"which line? Write {safe(logs[0], 200)}:1234, or add --line 1234")
    if int(number) == 0:
        raise UsageError("lines are counted from 1")
    return [Path(name)], int(number)


WHAT_IF_EPILOG: Final = """\b
Examples:
  mcpwatch policy what-if stricter.yaml audit.jsonl
  mcpwatch policy what-if stricter.yaml audit.jsonl.2.gz audit.jsonl.1 audit.jsonl --policy policy.yaml
  mcpwatch policy what-if stricter.yaml audit.jsonl --fail-on high && cp stricter.yaml policy.yaml
  mcpwatch policy what-if stricter.yaml audit.jsonl --json | jq 'select(.type == "decision_change")'
"""


@policy.command("what-if", epilog=WHAT_IF_EPILOG)
@click.argument("new", metavar="NEW", type=click.Path(readable=False))
@click.argument("logs", metavar="LOG...", nargs=-1, required=True, type=click.Path(readable=False))
@option(
    "--fail-on",
    type=click.Choice(LEVELS),
    help="Exit 1 when NEW brings incidents of this level or worse, or raises some to it.",
)
@json_option
@rules_option
@log_options
def what_if(new: str, logs: tuple[str, ...], fail_on: str | None, as_json: bool, rules: str | None,
            policy: str | None, state: str | None, format_name: str, formats: str | None) -> None:  # fmt: skip
    """Go through saved logs under two policies, the one in use and NEW, and list what would change.

    Of the calls in LOG (plain or .gz; a rotation set is one log), those that would be refused or allowed differently;
    of the incidents, those that would appear, vanish or change.
    """
    from mcpwatch.cli import differences
    from mcpwatch.monitor.whatif import compare

    old, other = policy_file(policy).policy, PolicyFile(Path(new)).policy
    opened = open_saved([Path(name) for name in logs])
    progress = ReadingProgress(opened)
    try:
        found = compare(opened, old, other, rule_set(rules), reading(formats, format_name, coverage=False),
                        progress.show)  # fmt: skip
    finally:
        progress.clear()
    (differences.print_json if as_json else differences.print_plain)(found)
    if not found.differs:
        same = old.sha256 is not None and old.sha256 == other.sha256
        note("nothing differs: " + ("the two files are the same" if same else
                                    "the two policies judge these logs alike"))  # fmt: skip
    for name in found.unread:
        note(f"{name}: not one of its lines is an audit record: see mcpwatch inspect")
    if found.broken is not None:
        raise found.broken
    worst = found.worst_new
    sys.exit(
        Exit.FOUND
        if fail_on is not None and worst is not None and worst >= Severity.named(fail_on)
        else Exit.DONE
    )


COMMANDS = {"policy": policy}
