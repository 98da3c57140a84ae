"""mcpwatch, as a program, on what the other programs write."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mcpwatch.times import iso
from tests.functional.program import Home, Json, Running, records

_LAST: Final = "the-last-of-this-log"
_SAME_EVENT: Final = ("source", "line", "offset", "time")
"""By these an amendment names its event. Lines are counted anew in the file that follows a rotation."""


@dataclass(frozen=True)
class Seen:
    """What a run printed.

    Attributes:
        events: By source, in the order in which they were printed, each as it stood at the end of the run.
        text: All of it.
    """

    events: dict[str, list[Json]]
    summary: Json
    text: str

    def calls(self, source: str) -> list[tuple[str | None, str]]:
        """Tool and outcome of each tool call."""
        return [(event.get("tool"), event["status"]) for event in self.of_kind(source, "tool_call")]

    def of_kind(self, source: str, kind: str) -> list[Json]:
        """The events of a kind."""
        return [event for event in self.events.get(source, []) if event["event"] == kind]


class Tail:
    """`mcpwatch tail` of some logs, which may not be there yet."""

    def __init__(self, home: Home, logs: Sequence[Path]) -> None:
        self.home = home
        self.logs = logs
        self.running: Running = home.start("tail", *logs, "--json", "--events", "--since", "1h")

    def __enter__(self) -> Tail:
        return self

    def __exit__(self, *_: object) -> None:
        self.running.__exit__()

    def end(self) -> Seen:
        """Wait until every log was read to its end, and stop.

        A last record is added to each log: a line of another form than those before it, which must be read too.
        """
        last = json.dumps({"timestamp": iso(time.time_ns()), "tool": _LAST, "status": "success"})
        for log in self.logs:
            with log.open("a") as file:
                file.write(f"{last}\n")

        def all_read() -> bool:
            return self.running.out.count(f'"tool":"{_LAST}"') == len(self.logs)

        self.running.wait_for("the last record of every log", all_read)
        assert self.running.stop() == 0
        return seen(self.running.out)


def replayed(home: Home, logs: Iterable[Path], *options: object) -> Seen:
    """What `mcpwatch replay` makes of the same logs."""
    return seen(home.run("replay", *logs, "--json", "--events", *options).stdout)


def inspected(home: Home, logs: Iterable[Path]) -> dict[str, Json]:
    """What `mcpwatch inspect` says about logs, by their names."""
    told = records(home.run("inspect", *logs, "--json").stdout, "inspect")
    return {record["source"]: record for record in told}


def seen(text: str) -> Seen:
    """The events of a run with what was learnt of them later, without those that `Tail.end` added."""
    events: dict[str, list[Json]] = {}
    begun: dict[tuple[object, ...], Json] = {}
    for line in text.splitlines():
        record = json.loads(line)
        place = tuple(record.get(name) for name in _SAME_EVENT)
        if record["type"] == "event" and record.get("tool") != _LAST:
            events.setdefault(record["source"], []).append(record)
            begun[place] = record
        elif record["type"] == "amendment":
            begun[place].update({name: value for name, value in record.items() if name != "type"})
    (summary,) = records(text, "summary")
    return Seen(events, summary, text)
