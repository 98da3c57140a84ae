"""One write of the policy file: what is on disk afterwards, what is kept, and what is refused."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mcpwatch.policy.edit import Edit, Restore, Revoke, plan
from mcpwatch.policy.model import PolicyError
from mcpwatch.policy.write import (
    VERSIONS_KEPT,
    PolicyChanged,
    Written,
    apply,
    change,
    writable,
)

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
    assert len(kept) == VERSIONS_KEPT
    assert b"k11" in kept[-1].read_bytes()
    assert b"k12" not in kept[-1].read_bytes()
    assert b"k3" not in kept[0].read_bytes()
    assert b"k2" in kept[0].read_bytes()


def test_a_write_that_did_not_happen_leaves_no_second_copy_of_the_same_version(
    path: Path, state: Path
) -> None:
    """Whoever tries again and again must not push the ten versions out."""
    change(path, revoke("a"), state_dir=state, actor="me")
    for _ in range(3):
        with path.open("r+b"), pytest.raises(PolicyChanged):
            change(path, revoke("b"), state_dir=state, actor="me", lock_timeout=0)
    assert len(list((state / "policy-versions").iterdir())) == 2


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


def test_a_file_changed_since_it_was_shown_is_not_overwritten(path: Path, state: Path) -> None:
    edit = revoke("a")(TEXT)
    path.write_bytes(TEXT + b"# mine\n")
    with pytest.raises(PolicyChanged, match="somebody else changed it"):
        apply(path, edit, state_dir=state, actor="me")
    assert path.read_bytes() == TEXT + b"# mine\n"


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
