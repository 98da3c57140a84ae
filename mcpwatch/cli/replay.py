"""`mcpwatch replay`: saved logs, as one timeline."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from mcpwatch.cli.exits import Exit, Stop, UsageError, faulted, note
from mcpwatch.cli.options import (
    Show,
    fingerprint_key,
    log_options,
    policy_file,
    reading,
    rule_files,
    rules_option,
    show_of,
    show_options,
    state_dir,
)
from mcpwatch.cli.output import Printer
from mcpwatch.cli.progress import ReadingProgress
from mcpwatch.detection.rule import RuleSet
from mcpwatch.detection.rulefiles import RuleFiles
from mcpwatch.monitor.pipeline import NO_POLICY, Pipeline, Reading, saved_events
from mcpwatch.policy.file import PolicyFile
from mcpwatch.response.confirm import Confirmations, SavedSightings
from mcpwatch.sources.block import SourceError
from mcpwatch.sources.saved import SavedLog, open_saved

EPILOG: Final = """\b
Examples:
  mcpwatch replay audit.jsonl                        look through it in the console
  mcpwatch replay audit.jsonl.2.gz audit.jsonl.1 audit.jsonl --json
  mcpwatch replay audit.jsonl --from 2026-11-20T03:00:00Z --to 2026-11-20T04:00:00Z --plain
  mcpwatch replay audit.jsonl --json --fail-on high || echo "look at this"
  mcpwatch replay audit.jsonl --rules ./rules        with rules of your own
"""


@click.command(epilog=EPILOG)
@click.argument("files", nargs=-1, required=True, type=click.Path(readable=False))
@rules_option
@log_options
@show_options
def replay(
    files: tuple[str, ...],
    rules: str | None,
    policy: str | None,
    state: str | None,
    format_name: str,
    formats: str | None,
    **shown: object,
) -> None:
    """Go through saved logs with the same rules as live, and find the same incidents with the same ids.

    FILES are plain, .gz or .zst. A rotation set (a.jsonl.2, a.jsonl.1, a.jsonl) counts as one log; several logs are
    merged by time. With a terminal it draws the console, with a timeline to go along.
    """
    show = show_of(shown)
    if "-" in files:
        raise UsageError("replay reads files; to read a pipe use: mcpwatch tail -")
    paths = [Path(name) for name in files]
    file, files_of_rules = policy_file(policy), rule_files(rules)
    how = reading(formats, format_name, show, coverage=not show.headless)
    how = replace(how, fingerprint_key=fingerprint_key(state_dir(state), make=False))
    if show.headless:
        sys.exit(_headless(open_saved(paths), file, files_of_rules.rules, how, show))
    open_saved(paths)  # what can't be used is said before the screen is taken
    sys.exit(_console(paths, file, files_of_rules, how, show, state))


def _headless(logs: list[SavedLog], file: PolicyFile, rules: RuleSet, how: Reading, show: Show) -> Exit:
    # events die young and hold no cycles: collecting often only costs
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    pipeline = Pipeline(file.policy, how, rules)
    printer = Printer(show, pipeline)
    progress = ReadingProgress(logs)
    if file.path is None:
        note(NO_POLICY)
    stop = Stop()
    broken: SourceError | None = None
    confirmations, sightings = Confirmations(), SavedSightings(file.policy.alerts.allowed_lateness)
    try:
        for events in saved_events(logs, pipeline):
            batch = pipeline.observe(events)
            confirmations.observe(sightings.take(batch.events, pipeline.engine.enforcement))
            pipeline.engine.enforcement.clear()
            if show.events:
                printer.events(batch.events)
            progress.show()
            if stop.received is not None:
                break
    except SourceError as error:
        broken = error  # broken gzip: what comes before the broken byte counts
    confirmations.observe(sightings.rest())
    progress.clear()
    printer.incidents()
    printer.summary(file.policy, confirmations)
    if pipeline.fold.notice is not None:
        note(pipeline.fold.notice)
    if broken is not None:
        raise broken
    return Exit.INTERRUPTED if stop.received == signal.SIGINT else printer.exit_code()


def _console(
    paths: list[Path], file: PolicyFile, rules: RuleFiles, how: Reading, show: Show, state: str | None
) -> int:
    from mcpwatch.cli.screen import draw
    from mcpwatch.monitor.monitor import Monitor, Settings
    from mcpwatch.monitor.player import ReplayPlayer

    settings = Settings(state_dir(state), read_only=show.read_only, reveal=show.reveal)
    monitor = Monitor(file, how, settings, time.time_ns, rules)
    player = ReplayPlayer(monitor, paths)
    thread = threading.Thread(target=player.run, name="monitor", daemon=True)
    thread.start()
    try:
        code = draw(monitor, show, player=player)
    finally:
        player.stop()
        thread.join(5)
    if player.failure is not None:
        return faulted(player.failure)
    return code


COMMANDS = {"replay": replay}
