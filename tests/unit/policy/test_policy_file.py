from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from mcpwatch.policy import lease
from mcpwatch.policy.file import SETTLED_S, PolicyFile, find
from mcpwatch.policy.load import MissingPolicy
from mcpwatch.policy.model import BUILT_IN, PolicyError

GOOD = "version: 1\nunlisted_tools: deny\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(GOOD)
    return tmp_path / "policy.yaml"


def test_without_a_file_the_built_in_policy_is_used() -> None:
    file = PolicyFile(None)
    assert (file.policy, file.error, file.check()) == (BUILT_IN, None, False)
    with file.watch(lambda: None):
        pass


def test_a_named_file_that_cannot_be_used_is_an_error_at_the_start(path: Path) -> None:
    with pytest.raises(MissingPolicy):
        PolicyFile(path.with_name("other.yaml"))
    path.write_text("version: 3")
    with pytest.raises(PolicyError, match="version must be 1"):
        PolicyFile(path)


def test_a_change_is_seen_even_with_the_same_size_at_the_same_moment(path: Path) -> None:
    file = PolicyFile(path)
    assert not file.check()
    assert file.policy.deny_unlisted
    path.write_text(GOOD.replace("deny ", "allow").replace("deny", "allow"))
    assert file.check()
    assert not file.policy.deny_unlisted
    path.write_text(GOOD.replace("deny", "deny "))
    assert file.check()
    assert file.policy.deny_unlisted
    assert not file.check()


def _error(file: PolicyFile) -> str | None:
    return file.error


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that have passed."""
    passed = [0.0]
    monkeypatch.setattr("mcpwatch.policy.file.time.monotonic", lambda: passed[0])
    return passed


@pytest.mark.parametrize("broken", ["", "version: 1\nunlisted_tools: de", "version: 1\nrevoked: [{", None])
def test_the_last_good_policy_stays_while_the_file_is_broken_or_gone(
    path: Path, broken: str | None, clock: list[float]
) -> None:
    file = PolicyFile(path)
    good = file.policy
    if broken is None:
        path.unlink()
        assert not file.check()
        clock[0] += SETTLED_S
    else:
        path.write_text(broken)
    assert file.check()
    assert file.policy is good
    assert file.error is not None
    assert str(path) in file.error
    assert not file.check()
    path.write_text(GOOD)
    assert file.check()
    assert file.policy == good
    assert _error(file) is None
    assert not file.check()


HALF, REST = "version: 1\nkeys:\n  key_0001: {}\n", "  key_0002: {}\nunlisted_tools: deny\n"


@pytest.mark.parametrize("start", ["truncated", "moved away"])
def test_half_a_file_that_somebody_is_writing_is_never_the_policy(
    path: Path, start: str, clock: list[float]
) -> None:
    """Valid as it may be: it is no policy until he is done. Nor does it raise a banner, however long he takes."""
    file = PolicyFile(path)
    good = file.policy
    if start == "moved away":
        path.rename(path.with_name("policy.yaml~"))
        assert not file.check()
    with path.open("w") as editor:
        for piece in ("", HALF[:15], HALF[15:]):
            editor.write(piece)
            editor.flush()
            for _ in range(3):
                assert not file.check()
                clock[0] += SETTLED_S / 4
        assert (file.policy, file.error) == (good, None)
        editor.write(REST)
    assert file.check()
    assert set(file.policy.keys) == {"key_0001", "key_0002"}


def test_a_file_that_is_held_open_without_being_written_is_taken_over_at_last(
    path: Path, clock: list[float]
) -> None:
    """Some editors never close it, and some network file systems say so of every file."""
    file = PolicyFile(path)
    with path.open("w") as editor:
        editor.write(HALF + REST)
        editor.flush()
        assert not file.check()
        clock[0] += SETTLED_S * 0.75
        assert not file.check()
        clock[0] += SETTLED_S * 0.25
        assert file.check()
    assert set(file.policy.keys) == {"key_0001", "key_0002"}
    assert not file.check()


def test_where_the_kernel_cannot_tell_a_file_is_taken_over_once_it_is_left_alone(
    path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's file, or one on a network file system: bad ones raise the banner as late."""
    monkeypatch.setattr(lease, "take", lambda _: lease.Access.UNKNOWN)
    file = PolicyFile(path)
    for text, error in ((HALF + REST, False), ("version: 1\nkeys: [", True)):
        path.write_text(HALF)
        assert not file.check()
        clock[0] += SETTLED_S * 0.75
        path.write_text(text)
        assert not file.check()
        clock[0] += SETTLED_S * 0.75
        assert not file.check()
        clock[0] += SETTLED_S * 0.25
        assert file.check()
        assert (file.error is not None) is error
        assert set(file.policy.keys) == {"key_0001", "key_0002"}


def test_a_rename_away_and_back_raises_no_banner(path: Path, clock: list[float]) -> None:
    """As some editors save: for a few milliseconds there is no file."""
    file = PolicyFile(path)
    for _ in range(3):
        path.rename(path.with_name("policy.yaml~"))
        assert not file.check()
        clock[0] += SETTLED_S / 64
        path.with_name("policy.yaml~").rename(path)
        assert not file.check()
        clock[0] += SETTLED_S
    assert file.error is None
    path.rename(path.with_name("policy.yaml~"))
    assert not file.check()
    clock[0] += SETTLED_S
    assert file.check()
    assert "no such policy file" in (_error(file) or "")


def test_at_the_start_somebody_who_is_writing_the_file_is_waited_for(path: Path) -> None:
    """A command that starts in that moment must not fail, nor go by half a file."""
    begun = threading.Event()

    def edit() -> None:
        with path.open("w") as editor:
            begun.set()
            editor.write(HALF)
            editor.flush()
            time.sleep(0.2)
            editor.write(REST)

    editor = threading.Thread(target=edit)
    editor.start()
    begun.wait()
    assert set(PolicyFile(path).policy.keys) == {"key_0001", "key_0002"}
    editor.join()


def test_a_settled_file_is_not_read_again_until_it_changes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []

    def read(path: Path) -> bytes:
        reads.append(path)
        return GOOD.encode()

    monkeypatch.setattr("mcpwatch.policy.file.read", read)
    file = PolicyFile(path)
    assert not file.check()
    assert len(reads) == 2  # just made: a second write in the same tick would look the same
    later = time.time_ns() + 10_000_000_000
    monkeypatch.setattr("mcpwatch.documents.watch.time.time_ns", lambda: later)
    assert not file.check()
    assert not file.check()
    assert len(reads) == 3
    os.utime(path, ns=(1, 1))
    assert not file.check()
    assert len(reads) == 4


def test_the_watch_wakes_when_the_file_is_replaced_and_ends_when_closed(path: Path) -> None:
    file = PolicyFile(path)
    woken = threading.Event()
    watch = file.watch(woken.set)
    try:
        # the watch may start a moment after its thread, so the change is made until it is seen
        for number in range(100):
            (path.parent / "new").write_text(f"{GOOD}# {number}\n")
            (path.parent / "new").rename(path)
            if woken.wait(0.1):
                break
        assert woken.is_set()
        assert file.check()
    finally:
        watch.close()
    assert "policy-watch" not in {thread.name for thread in threading.enumerate()}


def test_the_nearest_place_wins_and_a_named_file_need_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "system.yaml"
    monkeypatch.setattr("mcpwatch.policy.file.SYSTEM_PLACE", system)
    here = tmp_path / "here"
    here.mkdir()
    assert find(None, {}, here) is None
    system.write_text(GOOD)
    assert find(None, {}, here) == system
    (here / "policy.yaml").write_text(GOOD)
    assert find(None, {}, here) == here / "policy.yaml"
    assert find(None, {"MCPWATCH_POLICY": "other.yaml"}, here) == here / "other.yaml"
    assert find("/named.yaml", {"MCPWATCH_POLICY": "other.yaml"}, here) == Path("/named.yaml")
    assert find(None, {"MCPWATCH_POLICY": ""}, here) == here / "policy.yaml"
