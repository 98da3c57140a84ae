"""What failed logins lead to, live: advice, or a lockout that mcpwatch writes itself.

Writing may wait for another writer and for the disk, so it has a thread of its own; the monitor only hands over.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import Final

from mcpwatch.detection.hit import Hit
from mcpwatch.monitor.known import Known
from mcpwatch.policy.model import Policy
from mcpwatch.response.lockout import (
    Offender,
    Trigger,
    due,
    exempt,
    ladder_length,
    lock_command,
    triggers,
    write_due,
)
from mcpwatch.response.operator import actor
from mcpwatch.response.report import Report, advised
from mcpwatch.text import SafeText, safe
from mcpwatch.times import SECOND

MOST_WAITING: Final = 1_000
"""Failures that may wait to be written; beyond that they are advised only."""
RETRY_AFTER: Final = 30 * SECOND
"""After a lockout that could not be written, failures this much later try again."""
CLOSE_WITHIN_S: Final = 10.0
_MOST_REMEMBERED: Final = 50_000


class Lockouts:
    """Follows the hits of `auth-lockout`.

    Attributes:
        trouble: Why the last lockout was not written, or None.
        exempted: Who was spared last because it is never locked out by itself, and why; or None.
    """

    def __init__(self, known: Known, wake: Callable[[], None]) -> None:
        self._known = known
        self._wake = wake
        self._waiting: queue.Queue[Trigger | None] = queue.Queue(MOST_WAITING)
        # what the writer is done with, and whether it was written
        self._done: queue.SimpleQueue[tuple[Trigger, bool]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._asked: set[Offender] = set()
        # subjects for which all is done up to an event time
        self._policy: Policy | None = None
        self._locked: dict[Offender, int] = {}
        self._failed: dict[Offender, int] = {}
        self._advised: dict[Offender, int] = {}
        self.trouble: SafeText | None = None
        self.exempted: SafeText | None = None

    @property
    def enforcing(self) -> bool:
        """Whether lockouts are to be written."""
        return self._known.settings.enforce or self._known.policy_file.policy.lockout.enforce

    @property
    def notices(self) -> list[SafeText]:
        """What the operator must know: what could not be written, and who is never locked out."""
        found = []
        off = self._known.operator.changes_off if self.enforcing else None
        why = off if off is not None else self.trouble
        if why is not None:
            found.append(safe(f"lockouts are advised, not written: {why}", 400))
        if self.exempted is not None:
            found.append(self.exempted)
        return found

    def take(self, hits: Iterable[Hit], now_ns: int) -> list[Report]:
        """Advise or hand over what hits ask for. Never waits."""
        policy = self._known.policy_file.policy
        reports = self._hear_back(policy)
        oldest = now_ns - max(policy.lockout.durations)
        asked = triggers(hits)
        writing = bool(asked) and self.enforcing and self._known.operator.changes_off is None
        settled = self._failed if writing else self._advised
        for trigger in asked:
            time, offender = trigger.time_ns, trigger.offender
            if (
                time <= oldest
                or (writing and offender in self._asked)
                or time < max(settled.get(offender, 0), self._locked_until(policy, trigger, now_ns))
            ):
                continue  # nearly all of an attack's hits; what `due` says of them takes longer
            spared = exempt(policy, trigger.offender)
            if spared is not None:
                self.exempted = safe(f"failed logins, and not locked out: {spared}", 300)
            elif due(policy, trigger, now_ns) is not None and not (writing and self._hand_over(trigger)):
                reports += self._advise(policy, trigger)
        return reports

    def _hear_back(self, policy: Policy) -> list[Report]:
        """Take note of what the writer is done with. What it wrote is in the policy from then on."""
        reports = []
        while not self._done.empty():
            trigger, written = self._done.get()
            self._asked.discard(trigger.offender)
            if not written:
                _remember(self._failed, trigger.offender, trigger.time_ns + RETRY_AFTER)
                reports += self._advise(policy, trigger)
        return reports

    def _locked_until(self, policy: Policy, trigger: Trigger, now_ns: int) -> int:
        """To when a subject is locked out by an entry that has begun."""
        if policy is not self._policy:
            self._policy, self._locked = policy, {}
            for entry in policy.lockouts:
                whom = Offender.of(entry)
                if entry.at <= now_ns and entry.until > self._locked.get(whom, 0):
                    self._locked[whom] = entry.until
        return self._locked.get(trigger.offender, 0)

    def _hand_over(self, trigger: Trigger) -> bool:
        """Ask for a lockout to be written; whether there was room for that."""
        try:
            self._waiting.put_nowait(trigger)
        except queue.Full:
            return False
        self._asked.add(trigger.offender)
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="lockouts", daemon=True)
            self._thread.start()
        return True

    def _advise(self, policy: Policy, trigger: Trigger) -> list[Report]:
        """Tell it once for as long as the lockout would last."""
        offender = trigger.offender
        if trigger.time_ns < self._advised.get(offender, trigger.time_ns):
            return []
        until = trigger.time_ns + ladder_length(policy, offender, trigger.time_ns)
        _remember(self._advised, offender, until)
        path = self._known.policy_file.path
        reason = f"auth-lockout {trigger.incident}"
        command = None if path is None else lock_command(offender, reason, path.absolute())
        return [advised(trigger, until, command)]

    def _write(self) -> None:
        """Write what is waiting, as much as there is in one go, until told to stop."""
        last = False
        while not last:
            asked = [self._waiting.get()]
            while not self._waiting.empty():
                asked.append(self._waiting.get())
            last = None in asked
            wanted = [trigger for trigger in asked if trigger is not None]
            if wanted:
                self._write_all(wanted)
                self._wake()

    def _write_all(self, wanted: list[Trigger]) -> None:
        settings, path = self._known.settings, self._known.policy_file.path
        assert path is not None
        try:
            write_due(path, wanted, now_ns=self._known.clock(), forced=settings.enforce,
                      state_dir=settings.state_dir, actor=actor())  # fmt: skip
        except Exception as error:  # a writer that died would look like one that has nothing to do
            self.trouble = safe(error, 300)
            written = False
        else:
            self.trouble = None
            written = True
        for trigger in wanted:
            self._done.put((trigger, written))

    def close(self) -> bool:
        """Wait until what was handed over is written; whether anything was ever handed over."""
        if self._thread is None:
            return False
        self._waiting.put(None)
        self._thread.join(CLOSE_WITHIN_S)
        self._thread = None
        return True


def _remember(until: dict[Offender, int], offender: Offender, time_ns: int) -> None:
    if len(until) >= _MOST_REMEMBERED:
        until.clear()
    until[offender] = time_ns
