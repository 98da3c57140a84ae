"""Many sources in one session, and standard input."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mcpwatch.sources.block import Block, SourceError
from mcpwatch.sources.live import MAX_OPEN, LiveSet
from mcpwatch.sources.stdin import PipeSource
from mcpwatch.times import SECOND


def add(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(line + "\n" for line in lines)


def collect(live: LiveSet, now_ns: int) -> dict[str, list[bytes]]:
    """Tick until nothing is left."""
    got: dict[str, list[bytes]] = {}
    while True:
        for item in live.tick(now_ns):
            assert isinstance(item, Block)
            got.setdefault(item.source, []).extend(item.lines)
        if live.wait_s:
            return got


def test_a_glob_finds_new_files_within_a_second_and_reads_them_from_the_start(tmp_path: Path) -> None:
    add(tmp_path / "a.jsonl", "a1", "a2")
    live = LiveSet([f"{tmp_path}/*.jsonl"], start=lambda path, name: (3, None))
    assert collect(live, 0) == {"a.jsonl": [b"a2"]}
    add(tmp_path / "b.jsonl", "b1", "b2")
    assert collect(live, SECOND) == {"b.jsonl": [b"b1", b"b2"]}
    live.close()


def test_a_folder_means_the_logs_in_it(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.log", "c.json", "d.ndjson", "e.txt", "f.jsonl.gz", "policy.yaml"):
        add(tmp_path / name, name)
    (tmp_path / "folder.log").mkdir()
    live = LiveSet([str(tmp_path)])
    assert sorted(collect(live, 0)) == ["a.jsonl", "b.log", "c.json", "d.ndjson"]
    live.close()


def test_rotated_files_that_a_glob_matches_are_not_sources_of_their_own(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    add(log, "1")
    live = LiveSet([f"{tmp_path}/a*"])
    assert collect(live, 0) == {"a.jsonl": [b"1"]}
    add(log, "2")
    log.rename(tmp_path / "a.jsonl.1")
    add(log, "3")
    assert collect(live, 2 * SECOND) == {"a.jsonl": [b"2", b"3"]}
    assert len(live.statuses) == 1
    live.close()


def test_names_are_base_names_and_paths_where_those_are_shared(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        add(tmp_path / folder / "audit.jsonl", folder)
    add(tmp_path / "other.jsonl", "other")
    paths = [
        str(tmp_path / "one/audit.jsonl"),
        str(tmp_path / "two/audit.jsonl"),
        str(tmp_path / "other.jsonl"),
    ]
    live = LiveSet([*paths, paths[0]])
    assert collect(live, 0) == {paths[0]: [b"one"], paths[1]: [b"two"], "other.jsonl": [b"other"]}
    live.close()


def test_one_file_named_in_two_ways_is_one_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    add(tmp_path / "a.jsonl", "a")
    live = LiveSet(["a.jsonl", str(tmp_path / "a.jsonl"), "*.jsonl", "."])
    assert collect(live, 0) == {"a.jsonl": [b"a"]}
    live.close()


@pytest.mark.parametrize("spec", ["redis://localhost", "rediss://localhost"])
def test_a_kind_of_source_that_there_is_none_of_is_refused_with_a_way_out(spec: str) -> None:
    with pytest.raises(SourceError, match="not in this version: follow a file or pipe into '-'"):
        LiveSet([spec])


def test_an_address_is_refused_where_nothing_can_be_received() -> None:
    """A session without a folder for spools has nowhere to put what arrives."""
    with pytest.raises(SourceError, match="nothing is received here"):
        LiveSet(["tcp://127.0.0.1:6514"])


def test_two_thousand_files_are_read_with_few_descriptors_and_none_is_left_out(tmp_path: Path) -> None:
    paths = [tmp_path / f"s{n:04}.jsonl" for n in range(2_000)]
    for path in paths:
        add(path, "start")
    gc.collect()  # what other tests left open would be closed at some moment in between
    before = len(list(Path("/proc/self/fd").iterdir()))
    live = LiveSet([f"{tmp_path}/*.jsonl"])
    assert len(collect(live, 0)) == 2_000
    for turn in range(1, 5):
        busy = paths[turn::100]
        for path in busy:
            add(path, *[f"{turn}"] * 500)
        assert collect(live, turn * SECOND) == {path.name: [b"%d" % turn] * 500 for path in busy}
        assert len(list(Path("/proc/self/fd").iterdir())) - before <= MAX_OPEN
    live.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_flood_in_one_source_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    (tmp_path / "flood.log").write_bytes(b"x" * 99 + b"\n" + b"y" * 99 + b"\n" * 1_000_000)
    for n in range(100):
        add(tmp_path / f"quiet{n}.log", "one")
    live = LiveSet([str(tmp_path)])
    sources = [item.source for _ in range(3) for item in live.tick(0)]
    assert {f"quiet{n}.log" for n in range(100)} <= set(sources)
    assert live.wait_s == 0.0
    live.close()


def test_one_tick_reads_4_mib_at_most_and_the_next_goes_on_with_those_left_out(tmp_path: Path) -> None:
    for n in range(100):
        (tmp_path / f"{n}.log").write_bytes(b"x" * 99 + b"\n" + b"y\n" * 50_000)
    live = LiveSet([str(tmp_path)])
    first, second = live.tick(0), live.tick(0)
    for got in (first, second):
        assert sum(len(line) + 1 for b in got if isinstance(b, Block) for line in b.lines) <= 4 << 20
    assert {b.source for b in first} | {b.source for b in second} == {f"{n}.log" for n in range(100)}
    live.close()


def test_the_wait_follows_what_is_going_on(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"x\n" * 1_000_000)
    live = LiveSet([str(log)])
    live.tick(0)
    assert live.wait_s == 0.0
    live.tick(0)
    assert live.wait_s == 0.05
    live.tick(3 * SECOND)
    assert live.wait_s == 0.25
    live.close()


def test_a_file_that_is_missing_is_waited_for_and_one_that_left_a_folder_is_let_go(tmp_path: Path) -> None:
    add(tmp_path / "session.log", "a")
    live = LiveSet([str(tmp_path), str(tmp_path / "later.txt")])
    collect(live, 0)
    assert {status.name: status.state for status in live.statuses} == {
        "later.txt": "waiting",
        "session.log": "reading",
    }
    (tmp_path / "session.log").unlink()
    for second in range(1, 70):
        live.tick(second * SECOND)
    assert [status.name for status in live.statuses] == ["later.txt"]
    live.close()


def test_standard_input_is_a_source_whose_last_line_needs_no_newline() -> None:
    code = (
        "import time\nfrom mcpwatch.sources.live import LiveSet\nlive = LiveSet(['-'])\n"
        "while True:\n"
        "  for b in live.tick(time.time_ns()): print(b.source, b.lines, b.offset, b.unterminated, flush=True)\n"
        "  if live.statuses[0].state == 'ended': break\n"
        "  time.sleep(live.wait_s)\n"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write("a\n")
    program.stdin.flush()
    assert program.stdout.readline() == "stdin [b'a'] 0 False\n"
    program.stdin.write("b")
    program.stdin.close()
    assert program.stdout.read() == "stdin [b'b'] 2 True\n"
    assert program.wait() == 0


def test_a_pipe_without_data_is_not_waited_for_and_a_long_one_is_read_in_shares() -> None:
    read, write = os.pipe()
    source = PipeSource(read, "pipe")
    assert source.tick(0) == []
    assert source.status.state == "reading"
    os.write(write, b"x\n" * 20_000)
    (block,) = source.tick(0, 1_000)
    assert isinstance(block, Block)
    assert len(block.lines) == 500
    assert source.more
    os.write(write, b"held")
    source.tick(0)
    assert source.status.held == 4
    assert not source.more
    os.close(write)
    (last,) = source.tick(0)
    assert isinstance(last, Block)
    assert (last.lines, last.unterminated, last.line) == ([b"held"], True, 20_001)
    assert source.status.state == "ended"
    assert source.tick(0) == []
    os.close(read)
