"""A source that others send to: a child process receives and spools, and the spool is followed like any log."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from mcpwatch.sources.address import Address
from mcpwatch.sources.block import Gap, SourceError
from mcpwatch.sources.follow import READ_LIMIT, Delivery, Follower, SourceStatus
from mcpwatch.sources.protocol import Config, Count, Limits, State, TlsFiles, Trouble, read_state
from mcpwatch.text import SafeText, safe
from mcpwatch.times import SECOND

_READY_S: Final = 15.0
_FAREWELL_S: Final = 2.0
_RESTART_NS: Final = (SECOND // 10, SECOND, 5 * SECOND, 30 * SECOND)
_NOTE_NS: Final = 60 * SECOND
_SETTLED_NS: Final = SECOND
_TELL_NS: Final = 10 * SECOND
_PIECE: Final = 1 << 16


class Meaning(NamedTuple):
    """What a trouble means to the reader of the log.

    Attributes:
        text: Says it; may name the fields of `protocol.Count`.
        is_gap: Whether records may be missing because of it.
    """

    text: str
    is_gap: bool


TROUBLES: Final[dict[Trouble, Meaning]] = {
    "disk": Meaning("the spool cannot be written: {last}", True),
    "backlog": Meaning("the disk of the spool is slower than what arrives", True),
    "kernel": Meaning("datagrams that came faster than they could be read: {records:,}", True),
    "cut": Meaning("records over 1 MiB that were cut: {records:,} (last from {last})", True),
    "torn": Meaning("connections that ended in the middle of a record: {times:,} (last {last})", True),
    "framing": Meaning(
        "connections closed because no length came where one had to be: {times:,} (last {last})", True
    ),
    "refused": Meaning("connections refused because too many are open: {times:,} (last {last})", True),
    "silent": Meaning("connections closed that sent no record in time: {times:,} (last {last})", False),
    "tls": Meaning("TLS handshakes that failed: {times:,} (last {last})", False),
}
"""Every trouble of `protocol.State.troubles`."""

_LASTING: Final = ("disk", "backlog")


@dataclass(frozen=True, slots=True)
class Listening:
    """How addresses are listened on.

    Attributes:
        spools: Folder of the spools.
        tls: What TCP connections are encrypted with; None: they are not, and only this machine may connect.
    """

    spools: Path
    tls: TlsFiles | None = None
    limits: Limits = field(default_factory=Limits)


class ListenSource:
    """One address. `tick` never waits; a receiver that dies is started again."""

    def __init__(
        self, address: Address, listening: Listening, follow: Callable[[Path, SafeText], Follower]
    ) -> None:
        """Begin to receive.

        Args:
            follow: Makes the follower of the spool, from its path and the source's name.

        Raises:
            SourceError: Nothing can be received there, or somebody does already.
        """
        self.address = address
        self.spool = listening.spools.absolute() / address.spool_name
        if address.kind == "udp" and not address.is_loopback:
            raise SourceError(
                f"{address.name}: datagrams are received from this machine only: nothing says who sent one; "
                "use tcp:// with TLS"
            )
        if address.kind == "tcp" and not address.is_loopback and listening.tls is None:
            raise SourceError(
                f"{address.name}: other machines may send only with TLS and certificates of their own: give "
                "--tls-cert, --tls-key and --tls-client-ca, or listen on 127.0.0.1"
            )
        self._config = Config(
            **asdict(address),
            spool=str(self.spool),
            owner=os.getpid(),
            tls=listening.tls if address.kind == "tcp" else None,
            limits=listening.limits,
        )
        self._child: _Child | None = _Child(self._config)
        self._failures = 0
        self._restart_ns = 0
        self._gaps = 0
        self._down = ""
        try:
            self._child.wait_until_ready(address.name)
            self.follower = follow(self.spool, address.name)
            self.follower.tick(0, 0)
        except BaseException:
            self._child.stop()
            raise
        self._child.go()
        self._told = _Told(address.name, self.follower.status.rotations)

    @property
    def more(self) -> bool:
        """Whether the last tick left data that could be read at once."""
        return self.follower.more

    @property
    def status(self) -> SourceStatus:
        """How it goes, as of the last tick."""
        status = self.follower.status
        status = replace(status, senders=self._told.senders, gaps=status.gaps + self._gaps)
        if status.state == "ended":
            return status
        if self._down:
            return replace(status, state="waiting", note=safe(self._down), senders=())
        return replace(status, note=safe("; ".join(filter(None, (status.note, self._told.note))), 500))

    @property
    def descriptors(self) -> int:
        """Descriptors held open: the spool's, and the pipes to the receiver."""
        return self.follower.descriptors + (3 if self._child is not None else 0)

    def tick(self, now_ns: int, budget: int = READ_LIMIT) -> Delivery:
        """Take what is new in the spool, and what the receiver reports as lost."""
        if self.follower.status.state == "ended":
            return []
        gaps = [*self._look_after(now_ns)]
        delivered = self.follower.tick(now_ns, budget)
        gaps += self._told.gaps(self.follower.status, now_ns)
        self._gaps += len(gaps)
        return [*delivered, *gaps]

    def close(self) -> None:
        """Receive no more. What was sent by now is in the spool, for whoever reads it next."""
        self.follower.close()
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _look_after(self, now_ns: int) -> Iterator[Gap]:
        """Hear what the receiver says; start it again if it died."""
        if self._child is None:
            if now_ns >= self._restart_ns:
                self._child = _Child(self._config)
            return
        for report in self._child.reports():
            if report["type"] == "state":
                self._told.hear(read_state(report), now_ns)
            elif report["type"] == "ready":
                self._child.go()
                self._down = ""
            elif report["type"] == "failed":
                self._child.reason = str(report["reason"])
        if self._child.ended:
            why = self._child.why_it_ended()
            running = self._child.was_ready
            self._child = None
            self._failures = 0 if running else self._failures + 1
            self._restart_ns = now_ns + _RESTART_NS[min(self._failures, len(_RESTART_NS) - 1)]
            self._down = f"the receiver ended: {safe(why, 200)}; it is started again"
            if running:
                self._told.begin_anew()
                reason = f"the receiver ended ({safe(why, 200)}) and is started again: what is sent then may be lost"
                yield Gap(self.address.name, self.follower.status.offset, reason, None)


class _Told:
    """What the receiver said so far, and which of it was told as a gap."""

    def __init__(self, name: SafeText, rotations: int) -> None:
        self.note = ""
        self.senders: tuple[SafeText, ...] = ()
        self._name = name
        self._state = State()
        self._gapped: dict[str, Count] = {}
        self._gapped_ns: dict[str, int] = {}
        self._came_up_ns: dict[str, int] = {}
        self._rotations = rotations
        self._missing = 0

    def begin_anew(self) -> None:
        """The receiver is another one now: it counts from nothing."""
        self._rotations += self._state.rotations
        self._state = State()
        self.senders = ()
        self._gapped.clear()

    def hear(self, state: State, now_ns: int) -> None:
        """Take in a report."""
        before = self._state.troubles
        for trouble, count in state.troubles.items():
            if count != before.get(trouble):
                self._came_up_ns[trouble] = now_ns
        self._state = state
        self.senders = tuple(map(_sender, state.senders))

    def gaps(self, status: SourceStatus, now_ns: int) -> Iterator[Gap]:
        """What has to be told now, with the note brought up to date."""
        notes = []
        for trouble, meaning in TROUBLES.items():
            count = self._state.troubles.get(trouble)
            if count is None:
                continue
            text = _text(meaning, count)
            if count.going_on or now_ns - self._came_up_ns.get(trouble, 0) < _NOTE_NS:
                lost = f": {count.records:,} records lost" if trouble in _LASTING else ""
                notes.append(text + lost)
            if meaning.is_gap:
                since = self._lasting if trouble in _LASTING else self._momentary
                yield from since(trouble, count, meaning, now_ns)
        yield from self._rotated_away(status)
        self.note = "; ".join(notes)

    def _lasting(self, trouble: str, count: Count, meaning: Meaning, now_ns: int) -> Iterator[Gap]:
        """A gap when it begins, and one with what it cost when it is over."""
        told = self._gapped.setdefault(trouble, Count())
        text = _text(meaning, count)
        if not told.going_on and (count.going_on or count.bytes > told.bytes):
            told.going_on = True
            yield self._gap(f"{text}: what arrives is lost until it can be written again", None)
        over = not count.going_on and now_ns - self._came_up_ns.get(trouble, 0) >= _SETTLED_NS
        if told.going_on and over:
            lost = f"{count.records - told.records:,} records were lost; it is written again"
            size = count.bytes - told.bytes
            self._gapped[trouble] = replace(count)
            yield self._gap(f"{text}: {lost}", size)

    def _momentary(self, trouble: str, count: Count, meaning: Meaning, now_ns: int) -> Iterator[Gap]:
        """A gap at once, and while it goes on like that one every ten seconds."""
        told = self._gapped.get(trouble, Count())
        new = Count(
            count.times - told.times, count.records - told.records, count.bytes - told.bytes, count.last
        )
        often = now_ns - self._gapped_ns.get(trouble, -_TELL_NS) < _TELL_NS
        if often or not (new.times or new.records or new.bytes):
            return
        self._gapped[trouble], self._gapped_ns[trouble] = replace(count), now_ns
        yield self._gap(_text(meaning, new), new.bytes or None)

    def _rotated_away(self, status: SourceStatus) -> Iterator[Gap]:
        """Spools that were rotated, and deleted, faster than they were followed."""
        missing = self._rotations + self._state.rotations - status.rotations - self._missing
        if missing > 0:
            self._missing += missing
            reason = (
                f"{missing} spool files were rotated away before they were read: it stood still for too long"
            )
            yield self._gap(reason, None)

    def _gap(self, reason: str, size: int | None) -> Gap:
        return Gap(self._name, self._state.offset, reason, size)


class _Child:
    """The receiving process, and the pipes to it."""

    def __init__(self, config: Config) -> None:
        self.reason = ""
        self.was_ready = False
        self.ended = False
        self._rest = b""
        # -P: the folder that we were started in may hold modules of somebody else
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mcpwatch.sources.receiver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._life_line = self._process.stdin
        self._out, self._err = self._process.stdout.fileno(), self._process.stderr.fileno()
        os.set_blocking(self._out, False)
        os.set_blocking(self._err, False)
        self._say(json.dumps(asdict(config)))

    def wait_until_ready(self, name: SafeText) -> None:
        """Wait until it listens. Raises SourceError: it can't, and why."""
        end = time.monotonic() + _READY_S
        while not self.ended and (left := end - time.monotonic()) > 0:
            select.select([self._out], [], [], left)
            for report in self.reports():
                if report["type"] == "ready":
                    return
                if report["type"] == "failed":
                    self.reason = str(report["reason"])
        why = self.why_it_ended() if self.ended else f"no answer within {_READY_S:g} s"
        raise SourceError(f"{name}: {safe(why, 400)}")

    def reports(self) -> Iterator[dict[str, Any]]:
        """What it reported since the last time."""
        while True:
            try:
                data = os.read(self._out, _PIECE)
            except BlockingIOError:
                return
            if not data:
                self.ended = True
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                report: dict[str, Any] = json.loads(line)
                self.was_ready = self.was_ready or report["type"] == "ready"
                yield report

    def go(self) -> None:
        """The spool is open here: it may be rotated."""
        self._say("followed")

    def why_it_ended(self) -> str:
        """The reason that it gave, its last words, or how it was ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_FAREWELL_S)
        words = b""
        with contextlib.suppress(OSError):
            words = os.read(self._err, _PIECE)
        self._close_pipes()
        code = self._process.returncode
        if self.reason:
            return self.reason
        if words.strip():
            return words.strip().splitlines()[-1].decode("utf-8", "replace")
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"

    def stop(self) -> None:
        """Let go of it: it takes what was sent by now, and ends."""
        with contextlib.suppress(OSError):
            self._life_line.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_FAREWELL_S)
        self._close_pipes()

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # it died: its pipe says so
            self._life_line.write(line.encode() + b"\n")
            self._life_line.flush()

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _text(meaning: Meaning, count: Count) -> str:
    return meaning.text.format(times=count.times, records=count.records, last=safe(count.last, 200))


def _sender(peer: dict[str, Any]) -> SafeText:
    if "pid" in peer:
        user = _user(int(peer["uid"]))
        who = (
            f"{user} (uid {peer['uid']}, pid {peer['pid']})"
            if user
            else f"uid {peer['uid']}, pid {peer['pid']}"
        )
        return safe(who, 120)
    if "subject" in peer:
        return safe(f"{peer['subject']} ({peer['address']})", 120)
    return safe(peer["address"], 120)


@lru_cache(maxsize=256)
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""
