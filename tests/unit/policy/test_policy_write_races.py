"""Somebody else at the same moment: other writers take turns, and an edit by who knows no lock is never lost."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mcpwatch.policy.edit import Edit, Revoke, plan
from mcpwatch.policy.load import load
from mcpwatch.policy.model import PolicyError
from mcpwatch.policy.write import PolicyChanged, Written, apply, change, exchange, newfile, writing

TEXT = b"# the fleet\nversion: 1\nrevoked: []\n"
LOCK = ".policy.yaml.lock"


def revoke(name: str) -> Callable[[bytes], Edit]:
    return lambda data: plan(data, Revoke("key", name, 0, "me", None), "policy.yaml")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "policy.yaml").write_bytes(TEXT)
    return folder / "policy.yaml"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def names(folder: Path) -> set[str]:
    return {found.name for found in folder.iterdir()}


HOLDER = textwrap.dedent(
    """
    import os, sys, time
    from pathlib import Path
    from mcpwatch.policy.write.lockfile import locked
    path = Path(sys.argv[1])
    with locked(path, os.open(path.parent, os.O_RDONLY), "alice\\x1b[31m@bastion", 5):
        print("held", flush=True)
        time.sleep(60)
    """
)


def test_who_holds_the_lock_is_named_and_when_killed_nobody_waits_for_him(path: Path, state: Path) -> None:
    """The kernel gives the lock of the dead away, and their name is not that of the next holder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(PolicyError) as caught:
            change(path, revoke("b"), state_dir=state, actor="bob", lock_timeout=0.1)
        expected = (
            rf"alice\\e\[31m@bastion \(process {holder.pid}\) has been changing it for 0.1 s: try again"
        )
        assert re.search(expected, str(caught.value))
        holder.kill()
    assert change(path, revoke("b"), state_dir=state, actor="bob", lock_timeout=0)[1] is Written.APPLIED
    with (path.parent / LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PolicyError, match="somebody has been changing it"):
            change(path, revoke("c"), state_dir=state, actor="carol", lock_timeout=0)


def test_a_lock_file_that_was_removed_meanwhile_locks_nobody_out_and_lets_nobody_in(
    path: Path, state: Path
) -> None:
    """Who waits for a lock file that is gone waits for the one that stands there now."""
    change(path, revoke("a"), state_dir=state, actor="me")
    results: list[object] = []

    def wait() -> None:
        results.append(change(path, revoke("b"), state_dir=state, actor="bob")[1])

    with (path.parent / LOCK).open() as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(0.1)
        (path.parent / LOCK).unlink()
        with (path.parent / LOCK).open("w") as second:
            fcntl.flock(second, fcntl.LOCK_EX)
            fcntl.flock(first, fcntl.LOCK_UN)
            time.sleep(0.1)
            assert results == []
    waiter.join()
    assert results == [Written.APPLIED]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda lock: lock.symlink_to("/etc/passwd"), "can't be opened"),
        (os.mkfifo, "not a regular file"),
        (lambda lock: lock.mkdir(), "can't be opened"),
    ],
    ids=["symlink", "pipe", "folder"],
)
def test_a_lock_file_that_is_something_else_is_left_alone(
    make: Callable[[Path], object], said: str, path: Path, state: Path
) -> None:
    """A link would be followed as root, a pipe would hang."""
    make(path.parent / LOCK)
    with pytest.raises(PolicyError, match=rf"the lock file {re.escape(LOCK)} .*{said}"):
        change(path, revoke("a"), state_dir=state, actor="me")
    assert path.read_bytes() == TEXT


def _by_rename(path: Path) -> None:
    path.with_name("editor.tmp").write_bytes(path.read_bytes() + b"# mine\n")
    path.with_name("editor.tmp").rename(path)


def _in_place(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data + b"# mine\n")


def _same_size_at_the_same_moment(path: Path) -> None:
    found = path.stat()
    with path.open("r+b") as file:
        file.write(b"# THEIRS   ")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def _rights(path: Path) -> None:
    path.chmod(0o600)


@pytest.mark.parametrize("meddle", [_by_rename, _in_place, _same_size_at_the_same_moment, _rights])
def test_an_edit_between_reading_and_writing_is_not_overwritten(
    meddle: Callable[[Path], None], path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content and rights: `apply` refuses, `change` plans again on what stands there now."""
    take_over, meddled = newfile.take_over, [0]

    def taking_over(target: Path, old: int, new: int) -> None:
        take_over(target, old, new)
        if meddled[0] < 2:
            meddled[0] += 1
            meddle(path)

    monkeypatch.setattr(newfile, "take_over", taking_over)
    with pytest.raises(PolicyChanged, match="somebody else changed it meanwhile"):
        apply(path, revoke("a")(TEXT), state_dir=state, actor="me")
    once = path.read_bytes()
    assert change(path, revoke("a"), state_dir=state, actor="me")[1] is Written.APPLIED
    assert [entry.id for entry in load(path).revoked] == ["a"]
    assert path.read_bytes().startswith(once[:11])
    assert path.read_bytes().count(b"# mine") == (2 if b"# mine" in once else 0)
    assert meddle is not _rights or path.stat().st_mode & 0o777 == 0o600
    assert names(path.parent) == {"policy.yaml", LOCK}


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _other_file(path: Path) -> None:
    path.with_name("other").write_bytes(TEXT)
    path.with_name("other").rename(path)


@pytest.mark.parametrize(
    ("meddle", "kind"),
    [(_by_rename, stat.S_IFREG), (_other_file, stat.S_IFREG), (_folder, stat.S_IFDIR), (_pipe, stat.S_IFIFO)],
)
def test_what_gets_into_the_place_at_the_last_instant_is_put_back(
    meddle: Callable[[Path], None], kind: int, path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the last look, where a plain rename would destroy it."""
    really, meddled = exchange._exchange, [0]

    def exchanging(folder: int, one: str, other: str) -> bool:
        meddled[0] += 1
        if meddled[0] == 1:
            meddle(path)
        return really(folder, one, other)

    monkeypatch.setattr(exchange, "_exchange", exchanging)
    with pytest.raises(PolicyChanged):
        apply(path, revoke("a")(TEXT), state_dir=state, actor="me")
    assert meddled[0] == 2
    assert stat.S_IFMT(path.stat().st_mode) == kind
    assert not path.is_file() or path.read_bytes() == TEXT + (b"# mine\n" if meddle is _by_rename else b"")
    assert names(path.parent) == {"policy.yaml", LOCK}


def test_an_editor_who_opens_the_file_during_the_exchange_writes_into_the_file_that_stays(
    path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He waits for the lease; the file that he is about to write is put back before he gets on."""
    editors: list[threading.Thread] = []
    really = exchange._exchange

    def exchanging(folder: int, one: str, other: str) -> bool:
        if not editors:
            editors.append(threading.Thread(target=lambda: path.write_bytes(TEXT + b"# mine\n")))
            editors[0].start()
            time.sleep(0.2)
        return really(folder, one, other)

    monkeypatch.setattr(exchange, "_exchange", exchanging)
    edit, written = change(path, revoke("a"), state_dir=state, actor="me")
    editors[0].join()
    assert written is Written.APPLIED
    assert path.read_bytes() == edit.after
    assert edit.before == TEXT + b"# mine\n"


def test_an_editor_who_has_the_file_open_is_waited_for(path: Path, state: Path) -> None:
    """Half of what he writes is no reason to give up, nor to write over it."""
    begun = threading.Event()

    def edit() -> None:
        with path.open("r+b", buffering=0) as file:
            file.truncate()
            begun.set()
            time.sleep(0.15)
            file.write(TEXT[:20])
            time.sleep(0.15)
            file.write(TEXT[20:] + b"# mine\n")

    editor = threading.Thread(target=edit)
    editor.start()
    begun.wait()
    assert change(path, revoke("a"), state_dir=state, actor="me")[1] is Written.APPLIED
    editor.join()
    assert path.read_bytes().endswith(b"# mine\n")
    assert [entry.id for entry in load(path).revoked] == ["a"]


def test_an_editor_who_never_closes_the_file_is_named_as_the_reason(path: Path, state: Path) -> None:
    """Nothing is written under his hands."""
    with path.open("r+b"):
        with pytest.raises(PolicyChanged, match="somebody is writing it just now"):
            apply(path, revoke("a")(TEXT), state_dir=state, actor="me")
        with pytest.raises(PolicyChanged, match="somebody is writing it just now"):
            change(path, revoke("a"), state_dir=state, actor="me", lock_timeout=0.1)
    assert path.read_bytes() == TEXT


def test_a_rename_that_was_made_but_reported_as_failed_is_reported_as_made(
    path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As happens over a network, when the answer is lost."""
    really = exchange._exchange

    def exchanging(folder: int, one: str, other: str) -> bool:
        really(folder, one, other)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(exchange, "_exchange", exchanging)
    assert apply(path, revoke("a")(TEXT), state_dir=state, actor="me") is Written.APPLIED
    assert path.read_bytes() == revoke("a")(TEXT).after


def test_an_edit_that_cannot_be_put_back_is_kept_and_the_write_not_confirmed(
    path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one case in which somebody else's edit is not in the file: it is among the versions, and that is told."""
    really, calls = exchange._exchange, [0]

    def exchanging(folder: int, one: str, other: str) -> bool:
        calls[0] += 1
        if calls[0] == 1:
            _by_rename(path)
            return really(folder, one, other)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(exchange, "_exchange", exchanging)
    assert apply(path, revoke("a")(TEXT), state_dir=state, actor="me") is Written.UNCONFIRMED
    kept = sorted((state / "policy-versions").iterdir())
    assert [version.read_bytes() for version in kept] == [TEXT, TEXT + b"# mine\n"]


@pytest.mark.parametrize("meddle", [_by_rename, lambda path: path.unlink()], ids=["by rename", "removed"])
def test_a_file_that_is_another_right_after_the_write_is_not_confirmed(
    meddle: Callable[[Path], None], path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was applied, and what stands there now is not what was applied."""
    really = writing._confirm

    def confirm(target: Path, folder: int, expected: bytes) -> Written:
        meddle(path)
        return really(target, folder, expected)

    monkeypatch.setattr(writing, "_confirm", confirm)
    assert apply(path, revoke("a")(TEXT), state_dir=state, actor="me") is Written.UNCONFIRMED
