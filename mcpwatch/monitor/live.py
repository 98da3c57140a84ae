"""Live: one thread reads, judges and folds; the console, if there is one, looks on."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from mcpwatch.event import AuditEvent, logged_at
from mcpwatch.incidents.fold import Change
from mcpwatch.monitor.lockouts import Lockouts
from mcpwatch.monitor.monitor import Monitor
from mcpwatch.monitor.watching import Watching
from mcpwatch.response.report import Report, Reporter
from mcpwatch.sources.block import Gap
from mcpwatch.sources.follow import Delivery, SourceStatus
from mcpwatch.sources.live import LiveSet
from mcpwatch.times import DAY, SECOND

PUBLISH_EVERY_S: Final = 0.25

Tell = Callable[[list[Change]], None]
ShowEvents = Callable[[list[AuditEvent]], None]
Look = Callable[[Delivery, Sequence[SourceStatus]], None]
"""Shown what the sources delivered, and how it goes with each."""
TellReports = Callable[[list[Report]], None]
"""Shown what became of restrictions."""


RULES_EVERY: Final = SECOND
"""How often a folder of rule files is looked at, ns."""


def day_start(now_ns: int) -> int:
    """The start of the UTC day."""
    return now_ns - now_ns % DAY


class Live:
    """Feeds a monitor from its sources until it is stopped, and writes lockouts where it may."""

    def __init__(
        self,
        monitor: Monitor,
        sources: LiveSet,
        tell: Tell | None = None,
        show: ShowEvents | None = None,
        look: Look | None = None,
        report: TellReports | None = None,
        *,
        gaps: Sequence[Gap] = (),
        watching: Watching | None = None,
    ) -> None:
        """Feed a monitor from sources.

        Args:
            gaps: What is known to be lost before the first tick.
            watching: Says to others how it goes.
        """
        self.monitor = monitor
        monitor.on_events = show
        self.sources = sources
        self._tell = tell
        self._look = look
        self._report = report
        self._lost_before: list[Gap] = [*gaps]
        self._watching = watching
        self._reporter = Reporter(monitor.policy_file.policy, monitor.clock())
        self._stopping = False
        # a signal handler may put into this queue; to set an Event there can deadlock with its own wait
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._publish_at = 0.0
        self._rules_checked_ns = 0
        self.failure: BaseException | None = None
        self._lockouts = Lockouts(monitor, lambda: self._wake.put(None))
        monitor.lockout_notices = lambda: self._lockouts.notices

    def tick(self) -> None:
        """Take in whatever is there now. Never waits."""
        monitor = self.monitor
        now = monitor.clock()
        monitor.check_policy()
        if not 0 <= now - self._rules_checked_ns < RULES_EVERY:  # a clock may be set back
            self._rules_checked_ns = now
            monitor.check_rules()
        delivered = [*self._lost_before, *self.sources.tick(now)]
        self._lost_before.clear()
        statuses = self.sources.statuses
        behind = {status.name for status in statuses if status.behind}
        with monitor.lock:
            monitor.pipeline.expect(status.name for status in statuses)
            changes = [*monitor.untold]
            monitor.untold.clear()
            reports = []
            for item in delivered:
                if isinstance(item, Gap):
                    changes += monitor.take([item], now)
                    continue
                batch = monitor.pipeline.take(item, now)
                if batch.events:
                    newest = logged_at(batch.events[-1])
                    if newest is not None:
                        monitor.last_records[item.source] = newest
                    monitor.hearing.take(item.source, now, behind=item.source in behind)
                changes += monitor.absorb(batch, now)
                reports += self._lockouts.take([hit for hit in batch.hits if hit.amends is None], now)
            reports += self._lockouts.take((), now)
            reports += self._reporter.look(monitor.policy_file.policy, monitor.confirmations.turns, now)
            monitor.confirmations.turns.clear()
            monitor.note_sources(statuses)
            monitor.hearing.keep({status.name for status in statuses})
            changes += monitor.pipeline.fold.settle(now)
        if self._look is not None:
            self._look(delivered, statuses)
        if changes and self._tell is not None:
            self._tell(changes)
        if reports and self._report is not None:
            self._report(reports)

    def run(self) -> None:
        """Tick until stopped, publishing at most four times a second."""
        how = "stopped"
        try:
            with self.monitor.policy_file.watch(lambda: self._wake.put(None)):
                while not self._stopping:
                    self.tick()
                    if time.monotonic() >= self._publish_at:
                        self._publish()
                    if self.ended:
                        how = "all sources ended"
                        break
                    with contextlib.suppress(queue.Empty):
                        self._wake.get(timeout=self.sources.wait_s)
                self.tick()
                if self._lockouts.close():
                    self.monitor.publish()
                    self.tick()  # tells what was written last, or why it was not
                self.monitor.publish()
        except BaseException as error:
            how = f"failed: {type(error).__name__}"
            self.failure = error
            self.monitor.fail(error)
            if threading.current_thread() is threading.main_thread():
                raise  # in the background a traceback would be printed over the console, with log text in it
        finally:
            try:
                if self._watching is not None:
                    self._watching.close(self.monitor.snapshot(), self.sources.places, how)
            finally:
                self.sources.close()

    def _publish(self) -> None:
        began = time.monotonic()
        self.monitor.publish()
        if self._watching is not None:
            self._watching.look(self.monitor.snapshot(), lambda: self.sources.places)
        ended = time.monotonic()
        # with very many incidents a picture takes long: it may cost a fifth of the time at most
        self._publish_at = ended + max(PUBLISH_EVERY_S, 4 * (ended - began))

    def stop(self) -> None:
        """Ask `run` to end after one last tick: from any thread, and from a signal handler."""
        self._stopping = True
        self._wake.put(None)

    @property
    def ended(self) -> bool:
        """Whether every source has come to its end (standard input does)."""
        statuses = self.sources.statuses
        return bool(statuses) and all(status.state == "ended" for status in statuses)


def wall_clock() -> int:
    """This machine's clock, ns since the epoch."""
    return time.time_ns()
