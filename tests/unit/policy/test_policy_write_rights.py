"""Who may do what with the policy file: a write changes none of it, and a group can share the file."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcpwatch.policy.edit import Revoke, plan
from mcpwatch.policy.load import load
from mcpwatch.policy.model import PolicyError
from mcpwatch.policy.write import Written, change, owner_change

TEXT = b"version: 1\nrevoked: []\n"
GROUP = 54_321
ALICE, BOB, SERVER = 40_001, 40_002, 40_003

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
needs_acl = pytest.mark.skipif(
    not (shutil.which("setfacl") and shutil.which("getfacl")), reason="the package acl is not installed"
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody can get to; pytest's own are closed again whenever it starts anew."""
    with tempfile.TemporaryDirectory(prefix="mcpwatch-") as folder:
        path = Path(folder)
        path.chmod(0o711)
        (path / "etc").mkdir(mode=0o755)
        (path / "etc" / "policy.yaml").write_bytes(TEXT)
        yield path


def revoke(place: Path, name: str = "a") -> Written:
    def make(data: bytes) -> object:
        return plan(data, Revoke("key", name, 0, None, None), "p")

    return change(place / "etc" / "policy.yaml", make, state_dir=place / "state", actor="me")[1]  # type: ignore[arg-type]


def acl(path: Path) -> str:
    return subprocess.run(
        ["getfacl", "-cn", "--absolute-names", str(path)], capture_output=True, text=True, check=True
    ).stdout


def setfacl(*args: object) -> None:
    if subprocess.run(["setfacl", *map(str, args)], capture_output=True, check=False).returncode:
        pytest.skip("no access lists here")


CHANGE = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    from mcpwatch.policy.edit import Revoke, plan
    from mcpwatch.policy.model import PolicyError
    from mcpwatch.policy.write import change, owner_change
    place, user, groups = Path(sys.argv[1]), int(sys.argv[2]), [int(group) for group in sys.argv[3].split(",")]
    # rights are dropped after the imports: another user need not be able to read this checkout
    os.setgroups(groups); os.setgid(groups[0]); os.setuid(user); os.umask(0o077)
    path = place / "etc" / "policy.yaml"
    print(owner_change(path))
    make = lambda data: plan(data, Revoke("key", f"by {user}", 0, None, None), "p")
    try:
        print(change(path, make, state_dir=place / "state", actor=f"user {user}")[1])
    except PolicyError as error:
        print(error)
    """
)


def as_user(place: Path, user: int, *groups: int) -> list[str]:
    """What somebody is told who revokes a key: of the owner, and of the outcome."""
    command = [sys.executable, "-c", CHANGE, str(place), str(user), ",".join(map(str, groups))]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_mode_owner_group_and_attributes_are_taken_over(place: Path) -> None:
    """Of another owner, too, where the writer is root."""
    path = place / "etc" / "policy.yaml"
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, SERVER, GROUP)
    try:
        os.setxattr(path, "user.note", b"kept")
    except OSError:
        pytest.skip("no extended attributes here")
    before = path.stat()
    assert revoke(place) is Written.APPLIED
    after = path.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert os.getxattr(path, "user.note") == b"kept"
    assert owner_change(path) is None or os.geteuid() != 0
    assert owner_change(path.with_name("none")) is None


@needs_acl
def test_an_access_list_is_taken_over_entry_by_entry(place: Path) -> None:
    """The servers that may read the file may read the next one."""
    path = place / "etc" / "policy.yaml"
    path.chmod(0o600)
    setfacl("-m", f"u:{SERVER}:r,g:{GROUP}:rw,u:{ALICE}:-", path)
    before = acl(path)
    assert revoke(place) is Written.APPLIED
    assert acl(path) == before
    assert f"user:{SERVER}:r--" in before


@needs_acl
def test_an_access_list_of_the_folder_lets_nobody_in_whom_the_old_file_kept_out(place: Path) -> None:
    """New files inherit it; the policy is no new file."""
    path = place / "etc" / "policy.yaml"
    path.chmod(0o640)
    setfacl("-d", "-m", f"u:{BOB}:rw", path.parent)
    before = acl(path)
    assert str(BOB) not in before
    assert revoke(place) is Written.APPLIED
    assert acl(path) == before


def share(place: Path) -> Path:
    """The file, its folder and the state folder, given to a group; the file is Alice's."""
    path = place / "etc" / "policy.yaml"
    (place / "state").mkdir()
    for folder in (path.parent, place / "state"):
        os.chown(folder, 0, GROUP)
        folder.chmod(0o2770)
    os.chown(path, ALICE, GROUP)
    path.chmod(0o660)
    return path


@root_only
def test_a_group_shares_the_file_and_the_writer_becomes_its_owner_which_is_said_before(place: Path) -> None:
    """Alice, Bob, root, Alice: each can write after the other, whatever their umask."""
    path = share(place)
    assert as_user(place, BOB, BOB, GROUP) == [
        f"the file's owner becomes user {BOB} (it was user {ALICE})",
        "applied",
    ]
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (BOB, GROUP, 0o660)
    assert revoke(place, "by root") is Written.APPLIED
    assert path.stat().st_uid == BOB
    assert as_user(place, ALICE, ALICE, GROUP)[1] == "applied"
    assert as_user(place, ALICE + 10, ALICE + 10, GROUP)[1] == "applied"
    assert {entry.id for entry in load(path).revoked} == {
        f"by {BOB}",
        "by root",
        f"by {ALICE}",
        f"by {ALICE + 10}",
    }
    lock = (path.parent / ".policy.yaml.lock").stat()
    assert (lock.st_gid, stat.S_IMODE(lock.st_mode)) == (GROUP, 0o660)
    versions = list((place / "state" / "policy-versions").iterdir())
    assert [stat.S_IMODE(version.stat().st_mode) for version in versions] == [0o600] * 4


@root_only
def test_who_lacks_a_right_is_told_which_and_changes_nothing(place: Path) -> None:
    """Somebody outside the group, a file that the group may only read, a folder that it may only read."""
    path = share(place)
    assert as_user(place, BOB, BOB)[1].endswith("Permission denied")
    path.chmod(0o640)
    assert as_user(place, BOB, BOB, GROUP)[1].endswith("no permission to write it")
    path.chmod(0o660)
    path.parent.chmod(0o2750)
    assert as_user(place, BOB, BOB, GROUP)[1].endswith("no permission to write its folder")
    assert path.read_bytes() == TEXT


@root_only
@needs_acl
def test_a_group_that_the_writer_is_not_in_cannot_be_kept(place: Path) -> None:
    """Even if an access list lets him write: his file would be open to another group."""
    path = place / "etc" / "policy.yaml"
    os.chown(path, ALICE, GROUP)
    path.chmod(0o660)
    for target, rights in ((path.parent, "rwx"), (path, "rw"), (place, "rwx")):
        setfacl("-m", f"u:{BOB}:{rights}", target)
    before = acl(path)
    assert as_user(place, BOB, BOB)[1].endswith("its group can't be kept: you are not in it")
    assert (path.read_bytes(), acl(path)) == (TEXT, before)


@root_only
def test_who_may_only_read_the_policy_cannot_hold_its_lock(place: Path) -> None:
    """Else whoever reads the policy could keep everybody from revoking a key."""
    path = place / "etc" / "policy.yaml"
    os.chown(path, ALICE, GROUP)
    path.chmod(0o640)
    assert revoke(place) is Written.APPLIED
    lock = (path.parent / ".policy.yaml.lock").stat()
    assert (lock.st_uid, lock.st_gid, stat.S_IMODE(lock.st_mode)) == (ALICE, GROUP, 0o600)


def test_a_refusal_of_the_system_is_an_error_with_the_file_and_the_reason(place: Path) -> None:
    with pytest.raises(PolicyError, match=r"none.yaml: not written: No such file or directory"):
        change(place / "none.yaml", lambda data: plan(data, Revoke("key", "a", 0, None, None), "p"),
               state_dir=place, actor="me")  # fmt: skip
