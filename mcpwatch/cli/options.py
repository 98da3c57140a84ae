"""Options that several commands share. Each is also `MCPWATCH_<NAME>` in the environment and a key of config.toml."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from mcpwatch.cli import config
from mcpwatch.cli.exits import STATE, UsageError, note
from mcpwatch.credentials import PROCESS_KEY
from mcpwatch.detection.hit import Severity
from mcpwatch.detection.rule import RuleSet
from mcpwatch.detection.rulefiles import RuleFiles
from mcpwatch.filter import parse
from mcpwatch.formats.mapping import Mapping
from mcpwatch.formats.mappingfile import FORMATS, load_mappings
from mcpwatch.formats.shipped import shipped_names
from mcpwatch.monitor.pipeline import Reading
from mcpwatch.policy.file import PolicyFile, find
from mcpwatch.sources.listen import Listening
from mcpwatch.sources.protocol import TlsFiles
from mcpwatch.text import safe
from mcpwatch.times import parse_duration, parse_time

Command = TypeVar("Command", bound=Callable[..., object])

SETTINGS: Final[set[str]] = set()
"""The keys of config.toml: the names of all options made with `option`."""

LEVELS: Final = tuple(severity.label for severity in Severity)


class Duration(click.ParamType[int]):
    """`15m`, `4h`, `1h30m`: nanoseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it, or say what it should look like."""
        if isinstance(value, int):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Since(click.ParamType[int]):
    """A duration, or `last`: where another watch stopped, which is `LAST`."""

    name = "duration|last"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it, or say what it should look like."""
        if value == "last" or value == LAST:
            return LAST
        return Duration().convert(value, param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """`last`, and some durations."""
        found = ("last", "15m", "1h", "1d", "7d")
        return [CompletionItem(value) for value in found if value.startswith(incomplete)]


LAST: Final = -1
"""`--since last`; no duration is negative."""


class Moment(click.ParamType[int]):
    """A date or a time: nanoseconds since the epoch, UTC where no zone is given."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it, or say what it should look like."""
        if isinstance(value, int):
            return value
        text = f"{value}T00:00:00Z" if len(value) == 10 else value
        found = parse_time(text)
        if found is None:
            self.fail(f"{value!r} is no time: write 2026-11-20 or 2026-11-20T08:00:00Z", param, ctx)
        return found[0]


def option(*names: str, **settings: Any) -> Callable[[Command], Command]:
    """A click option that the environment and the configuration file can set as well."""
    long = next(name for name in names[0].split("/") if name.startswith("--"))
    name = long.removeprefix("--")
    SETTINGS.add(name)
    return click.option(*names, envvar=config.PREFIX + name.replace("-", "_").upper(), **settings)


policy_option = option(
    "--policy",
    metavar="FILE",
    type=click.Path(readable=False),
    help="Policy file. Default: $MCPWATCH_POLICY, ./policy.yaml, /etc/mcpwatch/policy.yaml.",
)
rules_option = option(
    "--rules",
    metavar="DIR",
    type=click.Path(readable=False),
    help="Folder with rules of your own and with what tunes the shipped ones (*.yaml).",
)
state_option = option(
    "--state",
    metavar="DIR",
    type=click.Path(file_okay=False, readable=False),
    help="State folder. Default: /var/lib/mcpwatch if writable, else ~/.local/state/mcpwatch.",
)
read_only_option = option("--read-only", is_flag=True, help="Never change the policy file.")
json_option = option("--json", "as_json", is_flag=True, help="JSON lines, no console.")
theme_option = option("--theme", metavar="NAME", help="Theme of the console.")
bandwidth_option = option("--low-bandwidth", is_flag=True, help="One refresh a second, ANSI colours.")
utc_option = option(
    "--utc/--local", "utc", default=True, help="Times in UTC (default) or in this machine's zone."
)
since_option = option(
    "--since",
    type=Since(),
    help="Begin that long ago (15m, 7d), or read on where the last watch stopped (last). Default: the start of the "
    "UTC day, or 64 MiB before the end, whichever is nearer the end.",
)
enforce_option = option(
    "--enforce",
    is_flag=True,
    help="Write lockouts after failed logins, as lockout.enforce in the policy does.",
)
symlinks_option = option("--follow-symlinks", is_flag=True, help="Also follow logs that are symbolic links.")
_TLS_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    option("--tls-cert", metavar="FILE", type=click.Path(readable=False), help="Certificate shown to those who send "
           "to tcp:// (PEM)."),
    option("--tls-key", metavar="FILE", type=click.Path(readable=False), help="Its private key, without a "
           "passphrase."),
    option("--tls-client-ca", metavar="FILE", type=click.Path(readable=False), help="Authorities whose certificates "
           "those who send must show."),
)  # fmt: skip

_LOG_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    policy_option,
    state_option,
    option("--format", "format_name", metavar="NAME", default="auto", help="Format of the logs: auto, "
           "native, generic, the name of a product (docs/formats.md) or of a mapping file."),
    option("--formats", metavar="DIR", type=click.Path(readable=False), help="Folder with mapping files (*.yaml)."),
)  # fmt: skip

_SHOW_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    option("--from", "from_ns", type=Moment(), help="Only what happened from this time on."),
    option("--to", "to_ns", type=Moment(), help="Only what happened before this time."),
    option("--filter", "filter_text", metavar="EXPR", default="", help="What is shown, for example 'tier>=medium "
           "-status:success'. Detection and counters don't change."),
    option("--plain", is_flag=True, help="One plain line for each change, no console."),
    json_option,
    option("--events", is_flag=True, help="With --json or --plain: the events too."),
    option("--fail-on", type=click.Choice(LEVELS), help="Exit 1 when there is an incident of this level or worse."),
    option("--reveal", is_flag=True, help="Show parameters without redaction."),
    read_only_option,
    theme_option,
    bandwidth_option,
    utc_option,
)  # fmt: skip


def log_options(command: Command) -> Command:
    """The options of commands that read logs."""
    for decorate in reversed(_LOG_OPTIONS):
        command = decorate(command)
    return command


def tls_options(command: Command) -> Command:
    """The options of TLS for commands that others send to."""
    for decorate in reversed(_TLS_OPTIONS):
        command = decorate(command)
    return command


def show_options(command: Command) -> Command:
    """The options of commands that show what they find."""
    for decorate in reversed(_SHOW_OPTIONS):
        command = decorate(command)
    return command


@dataclass(frozen=True, slots=True)
class Show:
    """What is shown, and how."""

    from_ns: int | None
    to_ns: int | None
    filter_text: str
    plain: bool
    as_json: bool
    events: bool
    fail_on: str | None
    reveal: bool
    read_only: bool
    theme: str | None
    low_bandwidth: bool
    utc: bool

    @property
    def headless(self) -> bool:
        """Whether lines are printed in place of the console."""
        return self.plain or self.as_json or not sys.stdout.isatty()


_NEARNESS: Final = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)


def show_of(shown: dict[str, Any]) -> Show:
    """What the running command shows. Of --plain and --json the nearer one wins: option, environment, file.

    Raises:
        UsageError: Options contradict each other.
        FilterError: The filter can't be read.
    """
    source = click.get_current_context().get_parameter_source
    if shown["plain"] and shown["as_json"]:
        asked = [(_NEARNESS.index(found), name) for name in ("plain", "as_json") if (found := source(name))]
        if len({nearness for nearness, _ in asked}) < 2:
            raise UsageError("--plain and --json exclude each other")
        shown = shown | {max(asked)[1]: False}
    show = Show(**shown)
    if show.events and not show.headless and source("events") is ParameterSource.COMMANDLINE:
        raise UsageError("--events goes with --plain or --json")
    if show.from_ns is not None and show.to_ns is not None and show.from_ns >= show.to_ns:
        raise UsageError("--from must be before --to")
    parse(show.filter_text)
    return show


def mappings(folder: str | None) -> list[Mapping]:
    """The mapping files asked for, then those of the user's configuration folder. Raises FormatError.

    A name that is in both means the one asked for.
    """
    found = load_mappings(Path(folder)) if folder else []
    own = config.folder() / "formats"
    names = {mapping.name for mapping in found}
    return found + [each for each in (load_mappings(own) if own.is_dir() else []) if each.name not in names]


def reading(
    formats: str | None, format_name: str, show: Show | None = None, *, coverage: bool = True
) -> Reading:
    """How logs are read. Raises FormatError for mapping files, UsageError for a format that there is none of."""
    maps = mappings(formats)
    known = [*FORMATS, *dict.fromkeys((*(found.name for found in maps), *shipped_names()))]
    if format_name not in known:
        near = difflib.get_close_matches(format_name[:80], known, n=1)
        hint = f"did you mean '{safe(near[0], 60)}'?" if near else f"there are: {', '.join(known)}"
        raise UsageError(f"--format {safe(format_name, 60)}: there is no such format; {hint}")
    for found in maps:
        if format_name == "auto" and not found.signed:
            name = safe(found.name, 60)
            note(f"format {name} has no 'match' to know its records by: it reads only with --format {name}")
    return Reading(
        mappings=maps,
        format_name=format_name,
        coverage=coverage,
        from_ns=show.from_ns if show is not None else None,
        to_ns=show.to_ns if show is not None else None,
    )


def policy_file(named: str | None) -> PolicyFile:
    """The policy file to use. Raises PolicyError where a named one is missing, or the one found is invalid."""
    return PolicyFile(find(named, os.environ, Path.cwd()))


def rule_files(named: str | None) -> RuleFiles:
    """The shipped rules with those of a folder; what can't be used of it is said once on standard error.

    Raises:
        RuleError: The folder is missing or no folder.
    """
    files = RuleFiles(Path(named) if named else None, _today)
    for problem in files.rules.problems:
        note(problem)
    return files


def rule_set(named: str | None) -> RuleSet:
    """The rules of a run that does not follow changes of their files (see `rule_files`)."""
    return rule_files(named).rules


def _today() -> date:
    return datetime.now(UTC).date()


def fingerprint_key(folder: Path, *, make: bool = True) -> bytes:
    """The key of the fingerprints of secrets: one for a state folder, made when it is first needed.

    Where it can't be kept, fingerprints mean nothing to another run.
    """
    path = folder / "fingerprint.key"
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
                    file.write(PROCESS_KEY)
        key = path.read_bytes()
    except OSError:
        return PROCESS_KEY
    return key if len(key) == len(PROCESS_KEY) else PROCESS_KEY


def listening(state: Path, cert: str | None, key: str | None, client_ca: str | None) -> Listening:
    """How addresses are listened on. Raises UsageError where a file of TLS is missing."""
    files = {"--tls-cert": cert, "--tls-key": key, "--tls-client-ca": client_ca}
    missing = [name for name, file in files.items() if not file]
    if missing and len(missing) < len(files):
        raise UsageError(f"TLS needs {', '.join(missing)} too")
    tls = TlsFiles(*(str(Path(file).absolute()) for file in files.values() if file)) if not missing else None
    return Listening(state / "spool", tls)


def state_dir(named: str | None) -> Path:
    """The state folder: named, else /var/lib/mcpwatch where it is writable, else the user's own."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    system = Path("/var/lib/mcpwatch")
    found = Path(named) if named else system if os.access(system, os.W_OK) else Path(base) / "mcpwatch"
    context = click.get_current_context(silent=True)
    if context is not None:
        context.meta[STATE] = found  # a report of a fault goes there as well
    return found
