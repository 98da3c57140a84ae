"""Records that were taken out of a log, or changed in it: its own numbers and hashes say so."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpwatch.detection.engine import Engine
from mcpwatch.detection.hit import Hit, Severity
from mcpwatch.detection.rulefile import shipped
from mcpwatch.policy.model import Policy
from mcpwatch.times import SECOND, iso
from tests.oracle import read
from tests.unit.monitor.monitor_runs import NOW, Room, everything, headless

START = 1_795_132_800
RULES = shipped().only("audit-gap")


def hits_of(records: list[dict[str, Any]], source: str = "a.jsonl") -> list[Hit]:
    return Engine(Policy(), RULES).observe(read(records, source))


def numbered(*numbers: int | None, **fields: Any) -> list[dict[str, Any]]:
    return [{"timestamp": START + at, "tool": "t", "sequence": n} | fields for at, n in enumerate(numbers)]


def digest(number: int) -> str:
    return f"{number:064x}"


def chained(count: int, **fields: Any) -> list[dict[str, Any]]:
    """A log in which each record has the hash of the one before."""
    return [
        {"timestamp": START + n, "tool": "t", "hash": digest(n + 1), "prev_hash": digest(n) if n else None} | fields
        for n in range(count)
    ]  # fmt: skip


def lines(records: list[dict[str, Any]]) -> list[int | None]:
    hits = hits_of(records)
    assert {hit.severity for hit in hits} <= {Severity.HIGH}
    return [hit.line for hit in hits]


class TestNumbers:
    """Each record has the number after that of the record before."""

    @pytest.mark.parametrize(
        ("numbers", "fires"),
        [
            pytest.param([5, 6, 7, 8], [], id="whole"),
            pytest.param([5, 7, 8], [2], id="one is missing"),
            pytest.param([5, 9], [2], id="some are missing"),
            pytest.param([5, 5, 6], [2], id="repeated"),
            pytest.param([5, 6, 4, 5], [3], id="goes back"),
            pytest.param([5, 6, 0, 1, 2], [], id="starts anew at 0"),
            pytest.param([5, 6, 1, 2], [], id="starts anew at 1"),
            pytest.param([5, 6, 0, 2], [4], id="missing after a new start"),
            pytest.param([0, 1, 2], [], id="from 0"),
            pytest.param([0, 2], [2], id="missing after 0"),
            pytest.param([9], [], id="a start in the middle"),
            pytest.param([5, None, 6], [], id="one without a number"),
            pytest.param([5, None, 7], [3], id="missing, and one without a number"),
            pytest.param([2**63 - 1, 5], [2], id="the largest there is"),
        ],
    )
    def test_where_the_numbers_do_not_fit(self, numbers: list[int | None], fires: list[int]) -> None:
        assert lines(numbered(*numbers)) == fires

    @pytest.mark.parametrize(
        ("numbers", "reason"),
        [
            ((5, 6, 9), "record 9 follows on record 6: 2 records are missing"),
            ((5, 5), "record 5 follows on record 5: the numbers go back"),
        ],
    )
    def test_the_reason_says_between_which(self, numbers: tuple[int, ...], reason: str) -> None:
        assert [hit.reason for hit in hits_of(numbered(*numbers))] == [reason]

    @given(st.lists(st.integers(0, 12), max_size=30))
    def test_it_fires_exactly_where_a_number_is_neither_the_next_nor_a_new_start(
        self, numbers: list[int]
    ) -> None:
        fires = [
            at + 1
            for at in range(1, len(numbers))
            if numbers[at] != numbers[at - 1] + 1 and numbers[at] not in (0, 1)
        ]
        assert lines(numbered(*numbers)) == fires


class TestChains:
    """Each record holds the hash of the record before."""

    def test_a_whole_chain_is_fine(self) -> None:
        assert lines(chained(20)) == []

    @pytest.mark.parametrize("at", range(1, 9))
    def test_a_record_that_was_taken_out_is_noticed_at_the_next(self, at: int) -> None:
        records = chained(10)
        del records[at]
        assert lines(records) == [at + 1]

    @pytest.mark.parametrize("at", range(9))
    def test_a_record_that_was_changed_is_noticed_at_the_next(self, at: int) -> None:
        """Whoever changes a record and its hash cannot change what the next one says of it; the first one too."""
        records = chained(10)
        records[at]["hash"] = "f" * 64
        assert lines(records) == [at + 2]

    @pytest.mark.parametrize("numbers", [range(10), range(1, 11), range(40, 50)])
    def test_a_chain_with_numbers_is_checked_from_its_first_record_on(self, numbers: range) -> None:
        records = [record | {"sequence": n} for record, n in zip(chained(10), numbers, strict=True)]
        assert lines(records) == []
        records[1]["prev_hash"] = "f" * 64
        assert lines(records) == [2]

    def test_a_record_that_was_put_in_between_is_noticed(self) -> None:
        records = chained(10)
        records.insert(5, {"timestamp": START + 5, "tool": "t", "hash": "e" * 64})
        assert lines(records) == [7]

    def test_two_records_that_changed_places_are_noticed(self) -> None:
        records = chained(10)
        records[4], records[5] = records[5], records[4]
        assert lines(records) == [5, 6, 7]

    @pytest.mark.parametrize("genesis", [None, "", "-", "null"])
    def test_a_new_chain_begins_with_no_hash_before_it(self, genesis: str | None) -> None:
        again = chained(3)
        again[0]["prev_hash"] = genesis
        assert lines([*chained(5), *again]) == []

    @pytest.mark.parametrize("number", [0, 1])
    @pytest.mark.parametrize(
        ("before", "fires"),
        [(None, []), ("0" * 64, []), (digest(3), []), ("f" * 64, [4])],
        ids=["nothing", "zeros", "the last record", "a record that is not there"],
    )
    def test_a_new_start_is_chained_to_nothing_or_to_the_last_record(
        self, number: int, before: str | None, fires: list[int]
    ) -> None:
        """Whoever cuts a log's beginning off cannot pass the rest as a new one."""
        records = [record | {"sequence": n} for n, record in enumerate(chained(3), 7)]
        start = {
            "timestamp": START + 9,
            "tool": "t",
            "sequence": number,
            "hash": "e" * 64,
            "prev_hash": before,
        }
        assert lines([*records, start]) == fires

    def test_a_record_without_a_hash_says_nothing_of_the_one_before(self) -> None:
        assert lines([{"timestamp": START, "tool": "t", "prev_hash": digest(n)} for n in range(5)]) == []


class TestLogs:
    """Whose numbers they are."""

    def test_servers_that_write_to_one_log_count_apart(self) -> None:
        a, b = numbered(*range(5, 15), server="a"), numbered(*range(100, 110), server="b")
        mixed = [record for pair in zip(a, b, strict=True) for record in pair]
        assert hits_of(mixed) == []
        del mixed[6]
        assert [(hit.subject, hit.line) for hit in hits_of(mixed)] == [((("gap", "a"),), 8)]

    def test_logs_count_apart_and_the_incident_names_the_log(self) -> None:
        engine = Engine(Policy(), RULES)
        assert engine.observe(read(numbered(5, 6), "one.jsonl")) == []
        assert engine.observe(read(numbered(90, 91), "two.jsonl")) == []
        (hit,) = engine.observe(read(numbered(8), "one.jsonl"))
        assert hit.subject == (("gap", "one.jsonl"),)

    def test_the_incident_is_about_the_log_whoever_the_record_names(self) -> None:
        first, second = hits_of([*numbered(5, 7, key_id="k1"), *numbered(9, key_id="k2", session_id="s")])
        assert first.subject == second.subject == (("gap", "a.jsonl"),)

    def test_names_of_servers_are_harmless(self) -> None:
        (hit,) = hits_of(numbered(5, 7, server="\x1b[2Jfiles\u202e"))
        assert hit.subject[0][1].isprintable()

    def test_records_of_any_kind_and_age_are_records(self) -> None:
        """Late ones and those without a time are in no window, but they are in the log."""
        records = numbered(5, 6, 7, 8, 9)
        records[2] |= {"timestamp": START - 10_000, "event": "auth"}
        records[3] |= {"timestamp": None, "event": "session_end"}
        assert hits_of(records) == []
        del records[2]
        assert lines(records) == [3]

    def test_any_number_of_servers_costs_no_memory(self) -> None:
        engine = Engine(Policy(), RULES)
        for n in range(5_000):
            engine.observe(read(numbered(n + 5, server=f"s{n}")))
        assert len(engine._references["a.jsonl"].chains) <= 1_000

    @given(st.integers(0, 2**32), st.integers(1, 9))
    def test_blocks_of_any_size_find_the_same(self, seed: int, size: int) -> None:
        maker = random.Random(seed)
        records = numbered(*(maker.randrange(6) for _ in range(30)))
        for record in records:
            record["server"] = maker.choice(["a", "b"])
        events = read(records)
        engine = Engine(Policy(), RULES)
        found = [hit for at in range(0, 30, size) for hit in engine.observe(events[at : at + size])]
        assert found == Engine(Policy(), RULES).observe(events)


def log(count: int, missing: set[int]) -> list[bytes]:
    records = [
        {"timestamp": iso(NOW - (count - n) * 15 * SECOND), "tool": "file_read", "params": {"path": "/app/data/a"},
         "status": "success", "duration_ms": 1, "key_id": "k1", "sequence": n + 5,
         "hash": digest(n + 1), "prev_hash": digest(n)}
        for n in range(count)
    ]  # fmt: skip
    return [json.dumps(record).encode() + b"\n" for n, record in enumerate(records) if n not in missing]


@pytest.mark.parametrize("missing", [set(), {4}, {10}, {9, 10, 11}])
def test_live_and_replay_of_one_file_and_of_a_rotated_one_agree(tmp_path: Path, missing: set[int]) -> None:
    """The record before the first of a file is the last of the file that was rotated away."""
    records = log(20, missing)
    room = Room(tmp_path)
    room.write(*records[:5])
    room.write(*records[5:12])
    room.write(*records[12:])
    live = everything(list(room.monitor.pipeline.fold))
    whole = everything(list(headless([room.log], room.policy_path).fold))
    assert live == whole
    assert len(live) == bool(missing)

    rotated = tmp_path / "rotated"
    rotated.mkdir()
    base = rotated / "audit.jsonl"
    (rotated / "audit.jsonl.2.gz").write_bytes(gzip.compress(b"".join(records[:7])))
    (rotated / "audit.jsonl.1").write_bytes(b"".join(records[7:12]))
    base.write_bytes(b"".join(records[12:]))
    files = [base, rotated / "audit.jsonl.1", rotated / "audit.jsonl.2.gz"]
    pieces = everything(list(headless(files, room.policy_path).fold))
    assert {name: facts[0] for name, facts in pieces.items()} == {
        name: facts[0] for name, facts in live.items()
    }


def test_live_a_rotation_is_no_gap(tmp_path: Path) -> None:
    records = log(20, {15})
    room = Room(tmp_path)
    room.write(*records[:8])
    room.log.rename(tmp_path / "audit.jsonl.1")
    room.write(*records[8:12])
    assert list(room.monitor.pipeline.fold) == []
    room.log.rename(tmp_path / "audit.jsonl.2")
    room.write(*records[12:])
    assert [(i.rule.id, i.count) for i in room.monitor.pipeline.fold] == [("audit-gap", 1)]
