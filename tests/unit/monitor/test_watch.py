"""Watch files: who lives and who died, whatever lies in the folder; nothing of a log in them; never in the way."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpwatch.monitor import watching
from mcpwatch.monitor.watch import Identity, Watch, WatchError, decode, encode, path_key, watch_of
from mcpwatch.monitor.watchfiles import FOLDER, KEPT, KEPT_NS, checkpoints, lock_of, look, prune
from mcpwatch.monitor.watching import Watching
from mcpwatch.times import DAY, SECOND
from tests.unit.monitor.monitor_runs import NOW, Room, call

PATIENCE_S = 20.0


def wait_for(true: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look is a time to write."""
    monkeypatch.setattr(watching, "EVERY_S", 0.0)


@pytest.fixture
def kept(room: Room) -> Iterator[Watching]:
    """A watch file that is kept for the room."""
    state = room.folder / "state"
    made = Watching(room.monitor, state)
    yield made
    made.close(room.look(), room.sources.places, "stopped")
    room.sources.close()


def version(path: Path) -> tuple[int, int] | None:
    """What a replacement of a file changes: its inode alone is soon given to another."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None


def write(room: Room, made: Watching) -> Watch:
    """Let it write how it goes now, and read that."""
    before = version(made.path)
    shown = room.look()
    made.look(shown, lambda: room.sources.places)
    wait_for(lambda: version(made.path) not in (None, before))
    return decode(made.path.read_bytes())


def old(state: Path, number: int, updated_ns: int, path: str = "/a", **fields: object) -> Path:
    """A file that a process left that has ended."""
    record: dict[str, object] = {
        "version": 1, "mcpwatch": "0.1.0", "pid": os.getpid(), "host": "h", "user": "u", "started_ns": updated_ns,
        "updated_ns": updated_ns, "sources": [{"name": "a", "path": path, "state": "reading"}],
    }  # fmt: skip
    file = state / FOLDER / f"{number:020}-1-x.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record | fields))
    lock_of(file).touch()
    return file


@pytest.mark.usefixtures("always")
def test_a_watch_says_how_it_goes_and_that_it_ended(room: Room) -> None:
    state = room.folder / "state"
    made = Watching(room.monitor, state)
    room.write(call(NOW), call(NOW), b"rubbish\n", b"\n", call(NOW)[:20])
    watch = write(room, made)
    (source,) = watch.sources
    assert source.path == str(room.log)
    assert (source.counters.lines, source.counters.held, source.behind) == (5, 1, 0)
    assert source.counters.add_up and watch.totals == source.counters
    assert (watch.policy, len(watch.policy_sha256 or "")) == (str(room.policy_path), 64)
    (found,) = look(state).found
    assert (found.state, found.watch.ended_ns) == ("running", None)
    place = checkpoints(look(state))[path_key(str(room.log))].place
    assert (place.offset, place.line) == (room.log.stat().st_size - 20, 5)
    made.close(room.look(), room.sources.places, "stopped")
    (found,) = look(state).found
    assert (found.state, found.watch.how) == ("stopped", "stopped")
    room.sources.close()


@pytest.mark.usefixtures("always")
def test_only_the_lock_says_that_a_process_lives(room: Room, kept: Watching) -> None:
    """A file with the id of a living process died; one whose process id means nothing here runs."""
    state = room.folder / "state"
    write(room, kept)
    dead = old(state, 1, NOW, pid=os.getpid())
    states = {found.path: found.state for found in look(state).found}
    assert states == {kept.path: "running", dead: "died"}
    lock_of(dead).unlink()
    assert {found.state for found in look(state).found} == {"running", "died"}


@pytest.mark.usefixtures("always")
def test_nothing_of_the_log_and_no_secret_is_in_the_file(room: Room, kept: Watching) -> None:
    fields = ("tool", "key_id", "client_id", "session_id", "error", "call_id", "server", "status")
    marked = dict.fromkeys(fields, "MARKER-sk-ant-api03-AAAA")
    room.write(call(NOW, params={"MARKER": "MARKER"}, **marked), b"MARKER rubbish\n", b'{"MARKER": 1}\n')
    write(room, kept)
    assert kept.path.read_bytes()
    assert b"MARKER" not in kept.path.read_bytes()


@pytest.mark.usefixtures("always")
def test_a_record_of_the_year_9999_does_not_spoil_the_file(room: Room, kept: Watching) -> None:
    room.write(call(None, timestamp="9999-12-30T00:00:00Z"))
    room.monitor.last_records["audit.jsonl"] = 253_402_128_000 * SECOND
    (source,) = write(room, kept).sources
    assert source.last_record_ns == (1 << 63) - 1


def test_it_is_written_when_something_changed_and_now_and_then_anyway(
    room: Room, kept: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "EVERY_S", 0.0)
    monkeypatch.setattr(watching, "HEARTBEAT_S", 3600.0)
    write(room, kept)
    first = kept.path.stat().st_ino
    room.after(5)
    for _ in range(5):
        kept.look(room.look(), lambda: room.sources.places)
        time.sleep(0.02)
    assert kept.path.stat().st_ino == first
    room.write(call(NOW))
    assert write(room, kept).totals.lines == 1


@pytest.mark.usefixtures("always")
def test_the_folder_is_for_those_of_the_state_folder_and_the_file_is_not_for_everybody(room: Room) -> None:
    state = room.folder / "state"
    state.mkdir()
    state.chmod(0o2770)
    before = os.umask(0o077)
    try:
        made = Watching(room.monitor, state)
        write(room, made)
    finally:
        os.umask(before)
    assert (state / FOLDER).stat().st_mode & 0o7777 == 0o2770
    assert made.path.stat().st_mode & 0o777 == 0o640
    made.close(room.look(), {}, "stopped")
    room.sources.close()


@pytest.mark.usefixtures("always")
def test_a_folder_that_cannot_be_written_is_a_banner_and_goes_away_with_it(room: Room) -> None:
    """Nothing else changes: records are read, and the file is written as soon as it can be."""
    state = room.folder / "state"
    state.write_text("not a folder")
    made = Watching(room.monitor, state)
    made.look(room.write(call(NOW)), lambda: room.sources.places)
    wait_for(lambda: made.problem is not None)
    made.look(room.look(), lambda: room.sources.places)
    shown = room.write(call(NOW))
    assert any("others don't see this watch" in notice for notice in shown.notices)
    assert shown.counters.understood == 2
    state.unlink()
    room.write(call(NOW))

    def written() -> bool:
        made.look(room.look(), lambda: room.sources.places)
        return made.path.exists() and decode(made.path.read_bytes()).totals.lines == 3

    wait_for(written)
    wait_for(lambda: made.problem is None)
    made.look(room.look(), lambda: room.sources.places)
    assert not any("others don't see" in notice for notice in room.look().notices)
    made.close(room.look(), {}, "stopped")
    room.sources.close()


@pytest.mark.usefixtures("always")
def test_a_folder_that_somebody_empties_gets_a_new_file_and_lock(room: Room, kept: Watching) -> None:
    state = room.folder / "state"
    write(room, kept)
    for file in (state / FOLDER).iterdir():
        file.unlink()
    (state / FOLDER).rmdir()
    room.write(call(NOW))
    write(room, kept)
    assert [found.state for found in look(state).found] == ["running"]


RUBBISH = {
    "empty": b"",
    "torn": b'{"version":1,"pid":3',
    "text": b"hello",
    "array": b"[1]",
    "other-version": b'{"version":2}',
    "depth": b'{"version":1,"sources":' + b"[" * 200_000,
    "depth-place": b'{"version":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "digits": b'{"version":' + b"9" * 5_000 + b"}",
    "surrogate": b'{"version":1,"mcpwatch":"\\ud800","pid":1,"host":"","user":"","started_ns":1,"updated_ns":1}',
    "utf8": b'{"version":1,"mcpwatch":"\xff","pid":1,"host":"","user":"","started_ns":1,"updated_ns":1}',
    "negative": b'{"version":1,"mcpwatch":"","pid":-1,"host":"","user":"","started_ns":1,"updated_ns":1}',
    "huge": b'{"version":1,"mcpwatch":"","pid":1,"host":"","user":"","started_ns":1,"updated_ns":' + b"9" * 20 + b"}",
    "long": b'{"version":1,"mcpwatch":"","pid":1,"host":"","started_ns":1,"updated_ns":1,"user":"'
            + b"x" * 9_000 + b'"}',
}  # fmt: skip


@pytest.mark.parametrize("kind", RUBBISH)
def test_rubbish_is_ignored_with_a_word(tmp_path: Path, kind: str) -> None:
    good = old(tmp_path, 1, NOW)
    bad = tmp_path / FOLDER / "00000000000000000002-1-x.json"
    bad.write_bytes(RUBBISH[kind])
    found = look(tmp_path)
    assert [each.path for each in found.found] == [good]
    (word,) = found.ignored
    assert str(bad) in word and "ignored" in word and word.isprintable()


def test_what_is_no_file_is_ignored_with_a_word_and_never_waited_for(tmp_path: Path) -> None:
    good = old(tmp_path, 1, NOW)
    folder = tmp_path / FOLDER
    os.mkfifo(folder / "2.json")
    (folder / "3.json").mkdir()
    (folder / "4.json").symlink_to(good)
    (folder / "5.json").symlink_to("/dev/zero")
    os.mkfifo(folder / "6.lock")
    (folder / "6.json").write_bytes(good.read_bytes())
    found = look(tmp_path)
    assert {each.path.name for each in found.found} == {good.name, "6.json"}
    assert len(found.ignored) == 4
    prune(tmp_path, NOW)


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    with pytest.raises(WatchError):
        decode(data)


HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(["place", "counters", "last_gap", "state", "offset", "path", "name"]),
    HOSTILE,
    st.sampled_from(["sources", "pid", "totals", "incidents", "updated_ns", "ended_ns", "how"]),
    HOSTILE,
)
def test_no_value_of_any_field_does_more_than_be_refused(
    name: str, value: object, top: str, other: object
) -> None:
    source = {"name": "a", "path": "/a", "state": "reading", name: value}
    record = {
        "version": 1,
        "mcpwatch": "",
        "pid": 1,
        "host": "",
        "user": "",
        "started_ns": 1,
        "updated_ns": 1,
    }
    for tried in (record | {"sources": [source]}, record | {top: other}):
        try:
            watch = decode(json.dumps(tried).encode())
        except WatchError:
            continue
        assert decode(encode(watch)) == watch
        for each in watch.sources:
            assert isinstance(each.counters.add_up, bool)


def test_a_place_that_makes_no_sense_is_no_checkpoint(tmp_path: Path) -> None:
    for number, place in enumerate((1, "x", [], {}, {"dev": 1}, {"offset": -1}, {"offset": "x"})):
        source = {"name": "a", "path": "/a", "state": "reading", "place": place}
        old(tmp_path, number, NOW, sources=[source])
    found = look(tmp_path)
    assert len(found.found) == 7
    assert checkpoints(found) == {}


def test_what_nobody_needs_is_deleted(tmp_path: Path) -> None:
    """Of each log the newest of those that ended stays, none for ever, and never what still runs."""
    older, newer = old(tmp_path, 1, NOW - DAY, "/a"), old(tmp_path, 2, NOW, "/a")
    other, ancient = old(tmp_path, 3, NOW - 5 * DAY, "/b"), old(tmp_path, 4, NOW - KEPT_NS, "/c")
    torn = tmp_path / FOLDER / "5.json"
    torn.write_text("{")
    os.utime(torn, (1, 1))
    fresh = tmp_path / FOLDER / "6.json"
    fresh.write_text("{")
    prune(tmp_path, NOW)
    names = {path.name for path in (tmp_path / FOLDER).iterdir()}
    assert {newer.name, other.name, fresh.name} <= names
    assert not {older.name, ancient.name, torn.name, lock_of(older).name} & names


def test_no_more_files_are_kept_than_anybody_reads(tmp_path: Path) -> None:
    for number in range(KEPT + 20):
        old(tmp_path, number, NOW - number * SECOND, f"/{number}")
    prune(tmp_path, NOW)
    left = {found.watch.sources[0].path for found in look(tmp_path).found}
    assert left == {f"/{number}" for number in range(KEPT)}


@pytest.mark.usefixtures("always")
def test_a_running_process_is_never_pruned(room: Room, kept: Watching) -> None:
    state = room.folder / "state"
    write(room, kept)
    prune(state, room.now + 100 * DAY)
    assert [found.state for found in look(state).found] == ["running"]


def test_a_name_that_is_no_utf8_has_a_checkpoint_too(tmp_path: Path) -> None:
    name = os.fsdecode(b"/tmp/caf\xe9.jsonl")
    key = path_key(name)
    assert key == "/tmp/caf\\xe9.jsonl"
    assert msgspec.json.decode(msgspec.json.encode(key)) == key
    assert path_key("/a/../b.jsonl") == "/b.jsonl"


def test_a_watch_can_be_made_of_a_monitor_before_anything_was_read(room: Room) -> None:
    identity = Identity.of_this_process(NOW)
    watch = watch_of(room.monitor, room.monitor.snapshot(), {}, identity)
    assert decode(encode(watch)) == watch
