"""A temporary file for the incidents that a flood of them leaves no room for in memory."""

from __future__ import annotations

import marshal
import os
import sqlite3
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any, Final

from mcpwatch.detection.hit import Severity
from mcpwatch.detection.rule import Rule
from mcpwatch.incidents.incident import EVIDENCE_TAIL, Evidence, Incident

QUIET_AT_ONCE: Final = 1_000
"""Incidents that are told to have become quiet at once: after a stop they may be very many."""

Name = tuple[str, str]
"""A kind and an id, as a subject has them."""

# Times are bytes that sort like numbers: nanoseconds after the year 2262 don't fit into SQLite's integers. Nothing
# has to outlive the process: hence no journal on disk, and no waiting for it.
_SCHEMA: Final = """
PRAGMA journal_mode = MEMORY;
PRAGMA synchronous = OFF;
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA temp_store = FILE;
PRAGMA cache_size = -8192;
CREATE TABLE incidents (id TEXT UNIQUE NOT NULL, severity INTEGER, first BLOB, last BLOB, rule INTEGER,
  active INTEGER, body BLOB);
CREATE INDEX waiting ON incidents (rule, last) WHERE active;
CREATE TABLE names (name INTEGER, id TEXT, PRIMARY KEY (name, id)) WITHOUT ROWID;
"""
_PUT: Final = """
INSERT INTO incidents VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET severity = excluded.severity,
  first = excluded.first, last = excluded.last, active = excluded.active, body = excluded.body
"""
_OF_NAME: Final = "FROM names JOIN incidents USING (id) WHERE name = ?"


class Spill:
    """Incidents by id, in a file that has no name once it is open: it is gone with the process, however that ends.

    What was put in stays in, also when it was found again and is held elsewhere: then what is in here is out of date.
    Nothing here raises: what can't be written is not taken, what can't be read is not found, and `problem` says why.

    Attributes:
        problem: Why something could not be written or read, if anything could not.
    """

    def __init__(self) -> None:
        self.problem: str | None = None
        self._database: sqlite3.Connection | None = None
        self._rules: list[Rule] = []
        self._numbers: dict[int, int] = {}
        """Of each rule, by identity: its place in the list. An incident keeps the very rule that opened it."""

    def __bool__(self) -> bool:
        """Whether anything was put in."""
        return self._database is not None

    def put(self, incidents: Sequence[Incident]) -> bool:
        """Take incidents, in place of what was known of them; whether it could: all or none are taken."""
        rows = list(map(self._row, incidents))
        names = [(hash(name), each.id) for each in incidents for name in each.subject]
        try:
            if self._database is None:
                self._database = _open()
                weakref.finalize(self, self._database.close)
            with self._database as database:
                database.executemany(_PUT, rows)
                database.executemany("INSERT OR IGNORE INTO names VALUES (?, ?)", names)
        except (sqlite3.Error, OSError) as error:
            self.problem = _words(error)
            return False
        return True

    def find(self, incident_id: str) -> Incident | None:
        """An incident by its id."""
        for row in self._ask("SELECT body, active FROM incidents WHERE id = ?", incident_id):
            return self._incident(*row)
        return None

    def __iter__(self) -> Iterator[Incident]:
        """All, by first hit, then id."""
        for row in self._ask("SELECT body, active FROM incidents ORDER BY first, id"):
            yield self._incident(*row)

    def named(self, names: Iterable[Name], count: int) -> Iterator[Incident]:
        """Of each name the worst incidents whose subject has it, so many of each at most."""
        sql = f"SELECT body, active {_OF_NAME} ORDER BY severity DESC, last DESC, id LIMIT ?"
        for name in names:
            for row in self._ask(sql, hash(name), count):
                yield self._incident(*row)

    def worst(self, name: Name) -> Severity | None:
        """The severity of the worst incident whose subject has a name."""
        for (severity,) in self._ask(f"SELECT max(severity) {_OF_NAME}", hash(name)):
            return Severity(severity) if severity is not None else None
        return None

    def settle(self, quiet_since: Callable[[Rule], int]) -> list[Incident]:
        """Those that have become quiet, each once; not more than `QUIET_AT_ONCE`.

        Args:
            quiet_since: Of a rule, the time of the last hit (ns) before which its incidents are quiet.
        """
        sql = "SELECT body, active FROM incidents WHERE active AND rule = ? AND last < ? LIMIT ?"
        found: dict[str, Incident] = {}
        for number, rule in enumerate(self._rules):
            before = _sortable(quiet_since(rule))
            for row in self._ask(sql, number, before, QUIET_AT_ONCE - len(found)):
                incident = self._incident(*row)
                found[incident.id] = incident
        if not found:
            return []
        try:
            assert self._database is not None
            with self._database as database:
                database.executemany(
                    "UPDATE incidents SET active = 0 WHERE id = ?", ((name,) for name in found)
                )
        except sqlite3.Error as error:
            self.problem = _words(error)
            return []
        return list(found.values())

    def _ask(self, sql: str, *values: object) -> Iterator[tuple[Any, ...]]:
        if self._database is None:
            return
        try:
            yield from self._database.execute(sql, values)
        except sqlite3.Error as error:
            self.problem = _words(error)

    def _row(self, incident: Incident) -> tuple[object, ...]:
        number = self._numbers.get(id(incident.rule))
        if number is None:
            number = self._numbers[id(incident.rule)] = len(self._rules)
            self._rules.append(incident.rule)
        body = marshal.dumps((
            incident.id, number, incident.subject, incident.day, int(incident.severity), incident.reason,
            incident.first_ns, incident.last_ns, incident.count, incident.peak, dict(incident.outcomes),
            {int(severity): count for severity, count in incident.severities.items()},
            {int(severity): held for severity, held in incident.reasons.items()},
            incident.episodes, incident.set_limit, list(map(tuple, incident.head)),
            list(map(tuple, incident.tail[-EVIDENCE_TAIL:])),
        ))  # fmt: skip
        first, last = _sortable(incident.first_ns), _sortable(incident.last_ns)
        return incident.id, int(incident.severity), first, last, number, incident.active, body

    def _incident(self, body: bytes, active: int) -> Incident:
        name, number, subject, day, severity, reason, *numbers, head, tail = marshal.loads(body)
        first_ns, last_ns, count, peak, outcomes, severities, reasons, episodes, set_limit = numbers
        return Incident(
            name, self._rules[number], subject, day, Severity(severity), reason, first_ns, last_ns, count, peak,
            Counter(outcomes), Counter({Severity(each): hits for each, hits in severities.items()}),
            {Severity(each): held for each, held in reasons.items()}, episodes, set_limit, bool(active),
            list(starmap(Evidence, head)), list(starmap(Evidence, tail)),
        )  # fmt: skip


def _sortable(time_ns: int) -> bytes:
    return (time_ns + (1 << 71)).to_bytes(9, "big")


def _open() -> sqlite3.Connection:
    """A new database in a file that is removed as soon as it is open. Raises sqlite3.Error, OSError."""
    descriptor, path = tempfile.mkstemp(prefix="mcpwatch-", suffix=".incidents", dir=_folder())
    os.close(descriptor)
    try:
        # the console asks from another thread than the one that feeds; a lock keeps them apart
        database = sqlite3.connect(path, check_same_thread=False)
        database.executescript(_SCHEMA)
    finally:
        Path(path).unlink()
    return database


def _folder() -> str | None:
    """Where it goes: TMPDIR, else /var/tmp, which unlike /tmp is never kept in memory."""
    return None if os.environ.get("TMPDIR") or not os.access("/var/tmp", os.W_OK) else "/var/tmp"


def _words(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
