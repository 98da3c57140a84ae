from __future__ import annotations

import fcntl
import os
import re
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from mcpwatch.policy import write
from mcpwatch.policy.edit import Edit, Restore, Revoke, plan
from mcpwatch.policy.load import load
from mcpwatch.policy.model import PolicyError
from mcpwatch.policy.write import PolicyChanged, Written, apply, change, owner_change, writable

TEXT = b"# the fleet\nversion: 1\nrevoked: []\n"
AT = 1_795_317_247_123_456_000


def revoke(name: str) -> Callable[[bytes], Edit]:
    return lambda data: plan(data, Revoke("key", name, AT, "me", None), "policy.yaml")


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


def test_what_was_planned_is_what_is_on_disk_and_the_old_version_is_kept(path: Path, state: Path) -> None:
    edit = revoke("a")(TEXT)
    assert apply(path, edit, state_dir=state, actor="me") is Written.APPLIED
    assert path.read_bytes() == edit.after
    assert names(path.parent) == {"policy.yaml", ".policy.yaml.lock"}
    (kept,) = (state / "policy-versions").iterdir()
    assert kept.read_bytes() == TEXT
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_nothing_to_do_writes_nothing(path: Path, state: Path) -> None:
    before = path.stat()
    edit, result = change(
        path, lambda data: plan(data, Restore("key", "a"), "p"), state_dir=state, actor="me"
    )
    assert (edit.noop, result) == (True, Written.UNCHANGED)
    assert apply(path, edit, state_dir=state, actor="me") is Written.UNCHANGED
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino
    assert not state.exists()


def test_only_the_last_ten_versions_stay(path: Path, state: Path) -> None:
    for number in range(13):
        change(path, revoke(f"k{number}"), state_dir=state, actor="me")
    kept = sorted((state / "policy-versions").iterdir())
    assert len(kept) == write.VERSIONS_KEPT
    assert b"k11" in kept[-1].read_bytes()
    assert b"k12" not in kept[-1].read_bytes()
    assert b"k3" not in kept[0].read_bytes()
    assert b"k2" in kept[0].read_bytes()


def test_mode_owner_group_and_attributes_are_taken_over(path: Path, state: Path) -> None:
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 4_321, 1_234)
    try:
        os.setxattr(path, "user.note", b"kept")
    except OSError:
        pytest.skip("no extended attributes here")
    before = path.stat()
    change(path, revoke("a"), state_dir=state, actor="me")
    after = path.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert os.getxattr(path, "user.note") == b"kept"
    assert owner_change(path) is None or os.geteuid() != 0


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _symlink(path: Path) -> None:
    path.rename(path.parent / "real.yaml")
    path.symlink_to("real.yaml")


REFUSALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "symlink": (_symlink, "symbolic link"),
    "hard link": (lambda path: (path.parent / "other").hardlink_to(path), "hard link"),
    "world-writable": (lambda path: path.chmod(0o666), "everybody may write it"),
    "world-writable folder": (lambda path: path.parent.chmod(0o777), "its folder"),
    "sticky folder": (lambda path: path.parent.chmod(0o1777), "its folder"),
    "read-only": (lambda path: path.chmod(0o444), "read-only"),
    "missing": (lambda path: path.unlink(), "No such file"),
    "folder": (_folder, "not a regular file"),
    "pipe": (_pipe, "not a regular file"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_files_that_must_not_be_replaced_are_left_alone(name: str, path: Path, state: Path) -> None:
    prepare, message = REFUSALS[name]
    edit = revoke("a")(TEXT)
    assert writable(path) is None
    prepare(path)
    reason = writable(path)
    assert reason is not None
    assert message in reason
    for attempt in (
        lambda: apply(path, edit, state_dir=state, actor="me"),
        lambda: change(path, revoke("a"), state_dir=state, actor="me"),
    ):
        with pytest.raises(PolicyError, match=re.escape(f"{path}: not written: ")) as caught:
            attempt()
        assert message in str(caught.value)
    assert not [found for found in names(path.parent) if found.endswith((".lock", ".new"))]
    assert not path.is_file() or path.read_bytes() == TEXT


def test_a_group_writable_file_in_a_group_writable_folder_is_fine(path: Path, state: Path) -> None:
    path.parent.chmod(0o2770)
    path.chmod(0o660)
    assert change(path, revoke("a"), state_dir=state, actor="me")[1] is Written.APPLIED
    assert stat.S_IMODE((path.parent / ".policy.yaml.lock").stat().st_mode) == 0o660


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_without_permission_nothing_is_written(path: Path, tmp_path: Path) -> None:
    # rights are dropped after the imports: another user need not be able to read this checkout
    code = (
        "import os, pathlib, mcpwatch.policy.write as w; os.setgroups([]); os.setgid(65534); os.setuid(65534); "
        f"print(w.writable(pathlib.Path({str(path)!r})))"
    )
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    path.chmod(0o644)
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == "no permission to write it\n"
    path.chmod(0o664)
    os.chown(path, 65_534, 65_534)
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == "no permission to write its folder\n"


def test_a_file_changed_since_it_was_shown_is_not_overwritten(path: Path, state: Path) -> None:
    edit = revoke("a")(TEXT)
    path.write_bytes(TEXT + b"# mine\n")
    with pytest.raises(PolicyChanged, match="somebody else changed it"):
        apply(path, edit, state_dir=state, actor="me")
    assert path.read_bytes() == TEXT + b"# mine\n"


@pytest.mark.parametrize("how", ["in place", "by rename"])
def test_a_file_changed_at_the_last_moment_is_not_overwritten(
    how: str, path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading and renaming comes an edit by somebody who knows nothing of the lock."""
    take_over = write._take_over
    edits = [0]

    def meddle(target: Path, old: int, new: int) -> None:
        take_over(target, old, new)
        if edits[0] < 2:
            edits[0] += 1
            other = path.parent / "editor.tmp" if how == "by rename" else path
            other.write_bytes(path.read_bytes() + b"# mine\n")
            other.rename(path)

    monkeypatch.setattr(write, "_take_over", meddle)
    with pytest.raises(PolicyChanged):
        apply(path, revoke("a")(TEXT), state_dir=state, actor="me")
    assert path.read_bytes() == TEXT + b"# mine\n"
    assert change(path, revoke("a"), state_dir=state, actor="me")[1] is Written.APPLIED
    assert path.read_bytes().endswith(b"# mine\n# mine\n")
    assert [entry.id for entry in load(path).revoked] == ["a"]
    assert names(path.parent) == {"policy.yaml", ".policy.yaml.lock"}


def test_half_a_file_that_an_editor_is_writing_is_read_again(path: Path, state: Path) -> None:
    def make(data: bytes) -> Edit:
        if not data:
            path.write_bytes(TEXT)
        return revoke("a")(data)

    path.write_bytes(b"")
    assert change(path, make, state_dir=state, actor="me")[1] is Written.APPLIED


def test_an_invalid_file_is_not_edited_and_an_invalid_result_not_written(path: Path, state: Path) -> None:
    good = revoke("a")(TEXT)
    with pytest.raises(PolicyError, match="unknown key 'oops'"):
        apply(
            path,
            Edit(TEXT, b"version: 1\noops: 1\n", good.diff, good.summary, False),
            state_dir=state,
            actor="me",
        )
    assert path.read_bytes() == TEXT
    path.write_bytes(b"version: 1\noops: 1\n")
    with pytest.raises(PolicyError, match="unknown key 'oops'"):
        change(path, revoke("a"), state_dir=state, actor="me")


def test_who_holds_the_lock_is_named(path: Path, state: Path) -> None:
    change(path, revoke("a"), state_dir=state, actor="alice\x1b[31m@bastion")
    with (path.parent / ".policy.yaml.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PolicyError, match=r"alice\\e\[31m@bastion \(process \d+\) has been changing it"):
            change(path, revoke("b"), state_dir=state, actor="bob", lock_timeout=0.1)
    assert change(path, revoke("b"), state_dir=state, actor="bob")[1] is Written.APPLIED


def test_a_state_folder_that_cannot_be_written_blocks_the_change(path: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(PolicyError, match="the old version can't be kept"):
        change(path, revoke("a"), state_dir=tmp_path / "state", actor="me")
    assert path.read_bytes() == TEXT
    assert not [name for name in names(path.parent) if name.endswith(".new")]


def test_leftovers_of_a_killed_writer_are_cleared(path: Path, state: Path) -> None:
    left = path.parent / ".policy.yaml.0123456789abcdef.new"
    left.write_text("half")
    (path.parent / ".policy.yaml.mine.new").write_text("not ours")
    change(path, revoke("a"), state_dir=state, actor="me")
    assert names(path.parent) == {"policy.yaml", ".policy.yaml.lock", ".policy.yaml.mine.new"}


SYSCALLS = "openat,write,pwrite64,fsync,fchmod,rename,renameat,renameat2,unlink,unlinkat,ftruncate,mkdir"
SCRIPT = """
    import sys
    from pathlib import Path
    from mcpwatch.policy.edit import Revoke, plan
    from mcpwatch.policy.model import PolicyError
    from mcpwatch.policy.write import change
    path, state, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    import os; os.write(2, b"GO")
    try:
        print(change(path, lambda data: plan(data, Revoke("key", name, 0, None, None), "p"),
                     state_dir=state, actor="me")[1])
    except PolicyError as error:
        print("REFUSED", error)
"""


def have_strace() -> bool:
    try:
        probe = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return probe.returncode == 0


FAULTS = [
    ("fsync:error=EIO:when=1", "can't be kept", False),
    ("fsync:error=ENOSPC:when=2", "not written", False),
    ("fsync:error=EIO:when=3", "unconfirmed", True),
    ("rename,renameat,renameat2:error=EIO", "not written", False),
    ("fchmod:error=EPERM:when=2", "not written", False),
    ("rename,renameat,renameat2:signal=KILL", "", None),
    ("fsync:signal=KILL:when=2", "", False),
    ("fsync:signal=KILL:when=3", "", True),
]


@pytest.mark.skipif(not have_strace(), reason="strace is not installed, or may not trace")
@pytest.mark.parametrize(("fault", "said", "applied"), FAULTS)
def test_a_failing_system_call_leaves_the_old_or_the_new_file_and_a_true_report(
    fault: str, said: str, applied: bool | None, path: Path, state: Path
) -> None:
    trace = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={SYSCALLS}", "-e", f"inject={fault}"]
    command = [*trace, sys.executable, "-c", textwrap.dedent(SCRIPT), str(path), str(state), "a"]
    out = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert said in out
    new = plan(TEXT, Revoke("key", "a", 0, None, None), "p").after
    assert path.read_bytes() in (TEXT, new)
    if applied is not None:
        assert (path.read_bytes() == new) == applied
    assert change(path, revoke("b"), state_dir=state, actor="me")[1] is Written.APPLIED
    assert not [name for name in names(path.parent) if name.endswith(".new")]


WRITER = """
    import sys
    from pathlib import Path
    from mcpwatch.policy.edit import Revoke, plan
    from mcpwatch.policy.write import change
    path, state, who = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    for number in range(10):
        make = lambda data: plan(data, Revoke("key", f"{who}-{number}", 0, who, None), "p")
        change(path, make, state_dir=state, actor=who, lock_timeout=60)
"""


def test_writers_beside_each_other_and_an_editor_lose_nothing(path: Path, state: Path) -> None:
    """Four processes revoke ten keys each while an editor that takes the lock rewrites the first comment."""
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), str(state)]
    writers = [subprocess.Popen([*command, f"w{number}"]) for number in range(4)]
    edits = 0
    try:
        while any(writer.poll() is None for writer in writers):
            with (path.parent / ".policy.yaml.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                comment, rest = path.read_bytes().split(b"\n", 1)
                assert comment == (f"# edit {edits}".encode() if edits else b"# the fleet")
                edits += 1
                (path.parent / "editor.tmp").write_bytes(f"# edit {edits}\n".encode() + rest)
                (path.parent / "editor.tmp").rename(path)
            load(path)
    finally:
        codes = [writer.wait() for writer in writers]
    assert codes == [0, 0, 0, 0]
    assert {entry.id for entry in load(path).revoked} == {
        f"w{who}-{n}" for who in range(4) for n in range(10)
    }
    assert path.read_bytes().startswith(f"# edit {edits}\n".encode())
