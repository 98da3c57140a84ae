"""What the program counts while it runs, beside it, in the end and in replay: the same, and what is on disk."""

from __future__ import annotations

import random
import time
from pathlib import Path

from tests.functional.program import Home, Json, outcome, records, wait_until
from tests.random_writer import Writer


def test_counters_of_the_program_add_up_while_it_runs_and_agree_with_wc(tmp_path: Path) -> None:
    """`tail --json`, `status --json` beside it, and `replay` of what it left: one count of every line."""
    home = Home(tmp_path)
    logs = tmp_path / "logs"
    logs.mkdir()
    writer = Writer(logs / "audit.jsonl", random.Random(11), oversize=1)
    writer.path.touch()
    statuses: list[Json] = []
    with home.start("tail", writer.path, "--json", "--since", "365d") as tail:

        def watches() -> list[Json]:
            return records(home.run("status", "--json").stdout, "watch")

        wait_until(watches, "a watch")
        for _ in range(3):
            for _ in range(40):
                writer.act()
                time.sleep(0.01)
            statuses += watches()
        writer.finish()
        wait_until(lambda: watches()[0]["lines"] == writer.newlines, "status to count every line")
        assert tail.stop() == 0
        _, summary = outcome(tail.out)
    for record in [*statuses, *(source for each in statuses for source in each["sources"]), summary]:
        parts = ("understood", "not_understood", "blank", "repeated", "joined", "held")
        assert record["lines"] == sum(record[name] for name in parts)
    assert summary["lines"] == writer.newlines == writer.on_disk()
    replayed = home.run("replay", *sorted(logs.iterdir()), "--json")
    _, again = outcome(replayed.stdout)
    assert again["lines"] == sum(again[name] for name in parts)
    unterminated = sum(1 for file in logs.iterdir() if (data := file.read_bytes()) and data[-1:] != b"\n")
    assert again["lines"] == writer.newlines + unterminated
