"""The policy file under every fault: it is the old one or the new one, complete, and what is reported is true."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from mcpwatch.policy.edit import Revoke, plan
from mcpwatch.policy.load import load, parse
from mcpwatch.policy.write import Written, change
from tests.faults.matrix import FULL, Figure, row

TEXT: Final = b"# the fleet\nversion: 1\nkeys: {key_0001: {}}\nrevoked: []\n# the end, without a newline"
NEW: Final = plan(TEXT, Revoke("key", "a", 0, None, None), "p").after

WRITE_ONCE: Final = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    from mcpwatch.policy.edit import Revoke, plan
    from mcpwatch.policy.model import PolicyError
    from mcpwatch.policy.write import change

    def write(path):
        make = lambda data: plan(data, Revoke("key", "a", 0, None, None), "p")
        try:
            return change(Path(path), make, state_dir=Path(sys.argv[3]), actor="me", lock_timeout=1)[1]
        except PolicyError as error:
            return f"REFUSED {error}"

    write(sys.argv[1])  # whatever is loaded late is loaded now
    os.write(2, b"GO")
    said = write(sys.argv[2])
    os.write(2, b"END")
    print(said)
    """
)
"""Writes one policy for practice, and another between two marks."""

FILE_CALLS: Final = (
    "openat,read,pread64,write,pwrite64,lseek,close,fstat,newfstatat,statx,lstat,stat,statfs,fstatfs,access,faccessat,"
    "faccessat2,fsync,fchmod,chmod,fchown,flock,fcntl,ftruncate,rename,renameat,renameat2,unlink,unlinkat,mkdir,"
    "getdents64,flistxattr,fgetxattr,fsetxattr,fremovexattr,readlink,readlinkat,geteuid,getcwd"
)
_CHANGING: Final = frozenset(
    {
        "openat", "write", "pwrite64", "fsync", "fchmod", "chmod", "fchown", "fsetxattr", "fremovexattr", "ftruncate",
        "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir",
    }
)  # fmt: skip
_SLOW: Final = frozenset(
    {
        "openat", "read", "write", "pwrite64", "fsync", "flock", "fcntl", "ftruncate", "close", "rename", "renameat2",
    }
)  # fmt: skip
ERRORS: Final[dict[str, frozenset[str] | None]] = {
    "EIO": None,
    "ENOSPC": None,
    "EDQUOT": _CHANGING,
    "EROFS": _CHANGING,
    "EINTR": _SLOW,
}
"""What a system call may fail with; None is any of them."""


QUICK_CALLS: Final = {"EIO": "fsync renameat2", "ENOSPC": "write"}
"""Which calls fail with what at small size."""


class Call(NamedTuple):
    """The nth call of a name in the life of the process."""

    name: str
    number: int


def _have_strace() -> bool:
    try:
        done = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


needs_strace = pytest.mark.skipif(not _have_strace(), reason="strace is not installed, or may not trace")


class Bench:
    """A policy file of its own, with an access list and an attribute, and a program that writes it once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "etc"
        self.path = self.folder / "policy.yaml"
        self.state = folder / "state"
        self.practice = folder / "practice"
        for place in (self.folder, self.practice):
            place.mkdir()
        self.script = folder / "write_once.py"
        self.script.write_text(WRITE_ONCE)
        self.reset()

    def reset(self) -> None:
        """Everything as in the beginning."""
        shutil.rmtree(self.state, ignore_errors=True)
        for place in (*self.folder.iterdir(), *self.practice.iterdir()):
            place.unlink()
        (self.practice / "policy.yaml").write_bytes(TEXT)
        self.path.write_bytes(TEXT)
        self.path.chmod(0o640)
        if shutil.which("setfacl"):
            subprocess.run(["setfacl", "-m", "u:65534:r", str(self.path)], check=True)
        os.setxattr(self.path, "user.note", b"kept")
        self.rights = self._rights()

    def _rights(self) -> tuple[object, ...]:
        found = self.path.stat()
        attributes = {name: os.getxattr(self.path, name) for name in os.listxattr(self.path)}
        return (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, attributes)

    def run(self, *options: str) -> str:
        """Write once under strace; what it said of that, nothing if it was killed."""
        places = (self.practice / "policy.yaml", self.path, self.state)
        command = [
            "strace",
            "-f",
            "--seccomp-bpf",
            *options,
            sys.executable,
            "-S",
            str(self.script),
            *map(str, places),
        ]
        site = os.pathsep.join(path for path in sys.path if path)
        env = {**os.environ, "PYTHONPATH": site, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=env)
        assert "Traceback" not in done.stderr, (options, done.stderr)
        return done.stdout.strip()

    def calls(self, names: str) -> list[Call]:
        """The system calls of one write, in order."""
        log = self.folder.parent / "strace.log"
        assert self.run("-o", str(log), "-e", f"trace={names},write") == "applied"
        self.reset()
        found, seen, inside = [], Counter[str](), False
        for line in log.read_text(errors="replace").splitlines():
            match = re.match(r"\d+\s+(\w+)\((.*)", line)
            if match is None:
                continue
            name, rest = match.groups()
            seen[name] += 1
            if name == "write" and rest.startswith('2, "GO"'):
                inside = True
            elif name == "write" and rest.startswith('2, "END"'):
                inside = False
            elif inside:
                found.append(Call(name, seen[name]))
        return found

    def check_whole(self) -> bool:
        """See that the file is the old or the new one with all its rights; whether it is the new one."""
        data = self.path.read_bytes()
        assert data in (TEXT, NEW)
        assert self._rights() == self.rights
        return data == NEW

    def check_goes_on(self) -> None:
        """See that whoever writes next neither waits for the dead nor leaves what they left."""
        make = lambda data: plan(data, Revoke("key", "b", 0, None, None), "p")  # noqa: E731
        written = change(self.path, make, state_dir=self.state, actor="me", lock_timeout=0.2)[1]
        assert written is Written.APPLIED
        names = {found.name for found in self.folder.iterdir()}
        assert names == {"policy.yaml", ".policy.yaml.lock"}
        for version in (self.state / "policy-versions").iterdir():
            assert parse(version.read_bytes(), None)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def _some(calls: list[Call], names: str) -> list[Call]:
    """All calls at full size; else the last of each of some names, and the one after it."""
    if FULL:
        return calls
    found = []
    for name in names.split():
        last = max(place for place, call in enumerate(calls) if call.name == name)
        found += calls[last : last + 2]
    return found


@needs_strace
@row("C1")
def test_killed_at_any_system_call_the_file_is_old_or_new_and_the_next_writer_goes_on(
    bench: Bench, figure: Figure
) -> None:
    """Even between the exchange of the files and the last look at them."""
    outcomes = Counter[bool]()
    for call in _some(bench.calls("all"), "renameat2 fchmod"):
        assert (
            bench.run("-o", "/dev/null", "-e", f"inject={call.name}:signal=KILL:when={call.number}") == ""
        ), call
        outcomes[bench.check_whole()] += 1
        bench.check_goes_on()
        bench.reset()
    assert outcomes[True] and outcomes[False]
    figure(f"killed at {outcomes.total()} calls: {outcomes[False]} old, {outcomes[True]} new, 0 torn")


@needs_strace
@row("C1")
def test_the_content_is_on_the_disk_before_it_is_put_in_place_and_the_name_after(bench: Bench) -> None:
    """A power cut leaves no empty file: the old version, the new file, the exchange and the folder come in order."""
    telling = [call.name for call in bench.calls("fsync,renameat2") if call.name != "write"]
    assert telling == ["fsync", "fsync", "renameat2", "fsync"]


@needs_strace
@row("C2")
def test_whatever_a_system_call_fails_with_the_file_is_whole_and_the_report_true(
    bench: Bench, figure: Figure
) -> None:
    """Every call of one write fails once with every error that it can have."""
    outcomes = Counter[str]()
    calls = [call for call in bench.calls(FILE_CALLS) if call.name in FILE_CALLS.split(",")]
    for error, names in ERRORS.items():
        for call in _some(calls, QUICK_CALLS.get(error, "")):
            if names is not None and call.name not in names:
                continue
            said = bench.run("-o", "/dev/null", "-e", f"inject={call.name}:error={error}:when={call.number}")
            new = bench.check_whole()
            assert said in ("applied", "unconfirmed") if new else said.startswith("REFUSED"), (
                error,
                call,
                said,
            )
            outcomes[said.partition(" ")[0].lower()] += 1
            bench.check_goes_on()
            bench.reset()
    assert outcomes["refused"] and outcomes["unconfirmed"]
    parts = ", ".join(f"{count} {what}" for what, count in sorted(outcomes.items()))
    figure(f"{outcomes.total()} failures at {len(calls)} calls: {parts}; 0 untrue, 0 torn")


@needs_strace
@row("C2")
@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"] if FULL else ["ENOLCK"])
def test_without_locks_nothing_is_written_and_it_is_said_what_to_do(bench: Bench, error: str) -> None:
    """As on a network file system that has none."""
    said = bench.run("-o", "/dev/null", "-e", f"inject=flock:error={error}")
    assert re.search(r"its file system has no locks \(.*\): keep the policy on a local one", said)
    assert not bench.check_whole()


@needs_strace
@row("C2")
@pytest.mark.parametrize("error", ["ENOSYS", "EINVAL"] if FULL else ["EINVAL"])
def test_without_an_exchange_or_leases_the_file_is_renamed_into_place(bench: Bench, error: str) -> None:
    """As on a network file system, and on old kernels."""
    assert bench.run("-o", "/dev/null", "-e", f"inject=renameat2:error={error}") == "applied"
    assert bench.check_whole()
    bench.reset()
    calls = bench.calls(FILE_CALLS)
    listed = max(place for place, call in enumerate(calls) if call.name == "getdents64")
    lease = next(call for call in calls[listed:] if call.name == "fcntl")
    assert bench.run("-o", "/dev/null", "-e", f"inject=fcntl:error={error}:when={lease.number}+") == "applied"
    assert bench.check_whole()
    bench.check_goes_on()


needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0755", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _revoke(path: Path, state: Path) -> str:
    try:
        return change(
            path, lambda data: plan(data, Revoke("key", "a", 0, None, None), "p"), state_dir=state, actor="me"
        )[1]
    except Exception as error:
        assert type(error).__name__ == "PolicyError"
        return str(error)


@needs_mount
@row("C2")
def test_a_full_disk_a_read_only_one_and_an_immutable_file_are_named(
    disk: Path, tmp_path: Path, figure: Figure
) -> None:
    """Really full, really mounted read-only: the file is as it was, with nothing beside it."""
    path, state = disk / "policy.yaml", tmp_path / "state"
    path.write_bytes(TEXT)
    (disk / "filler").write_bytes(b"x")
    with (disk / "filler").open("ab", buffering=0) as filler:
        try:
            while True:
                filler.write(b"x" * 4_096)
        except OSError:
            pass
    assert _revoke(path, state) == f"{path}: not written: No space left on device"
    assert _revoke(tmp_path / "none.yaml", state).endswith("No such file or directory")
    (disk / "filler").unlink()
    other = tmp_path / "policy.yaml"
    other.write_bytes(TEXT)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert _revoke(path, state) == f"{path}: not written: its file system is mounted read-only"
    assert "the old version can't be kept" in _revoke(other, disk / "state")
    assert (path.read_bytes(), other.read_bytes()) == (TEXT, TEXT)
    assert {found.name for found in disk.iterdir()} == {"policy.yaml", ".policy.yaml.lock"}
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert _revoke(path, state) == "applied"
    figure("really full, read-only: named, nothing written")


@needs_mount
@row("C2")
def test_an_immutable_file_is_named(tmp_path: Path) -> None:
    """Not even root may replace it."""
    path = tmp_path / "policy.yaml"
    path.write_bytes(TEXT)
    if subprocess.run(["chattr", "+i", str(path)], capture_output=True, check=False).returncode:
        pytest.skip("no immutable files here")
    try:
        assert "lsattr shows whether it is immutable" in _revoke(path, tmp_path / "state")
        assert path.read_bytes() == TEXT
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)
    assert _revoke(path, tmp_path / "state") == "applied"
    assert load(path).revoked


HALVES: Final = b"# edit 0 by rename\n# edit 0 in place\nversion: 1\nrevoked: []\nkeys:\n" + b"".join(
    b"  key_%03d: {client: bot, owner: payments, scopes: [read]}\n" % number for number in range(60)
)
"""A file of which the first half is a valid policy as well: with fewer keys."""

WRITER: Final = textwrap.dedent(
    """
    import subprocess, sys
    from pathlib import Path
    from mcpwatch.policy.edit import Revoke, plan
    from mcpwatch.policy.write import change
    path, state, who, count, how = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
    for number in range(int(count)):
        name = f"{who}-{number}"
        if how == "command" and number % 5 == 0:
            command = [sys.executable, "-m", "mcpwatch", "revoke", name, "--reason", who]
            command += ["--policy", path, "--state", state]
            while (done := subprocess.run(command, capture_output=True, text=True)).returncode:
                assert done.returncode == 4 and "not written" in done.stderr, done
            assert "written: " in done.stdout or "applied, not confirmed: " in done.stdout, done
        else:
            make = lambda data: plan(data, Revoke("key", name, 0, who, None), "p")
            print(change(path, make, state_dir=state, actor=who, lock_timeout=60)[1])
    """
)

EDITOR: Final = textwrap.dedent(
    """
    import fcntl, os, re, sys, time
    from pathlib import Path
    path, how = Path(sys.argv[1]), sys.argv[2]
    edits = 0

    def edit(file):
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return 0  # replaced since: what is written here would go nowhere
        new = re.sub(rb"# edit \\d+ " + how.encode(), f"# edit {edits + 1} {how}".encode(), file.read())
        if how == "by rename":
            path.with_name("editor.tmp").write_bytes(new)
            path.with_name("editor.tmp").rename(path)
            return 1
        file.seek(0)
        file.truncate()
        half = len(new) - 400
        file.write(new[:half])
        time.sleep(0.005)
        file.write(new[half:])
        return 1

    with path.with_name("editors").open("w") as turn:
        while not path.with_name("stop").exists():
            fcntl.flock(turn, fcntl.LOCK_EX)  # the two editors keep out of each other's way, and of nobody else's
            with path.open("r+b", buffering=0) as file:
                edits += edit(file)
            fcntl.flock(turn, fcntl.LOCK_UN)
            time.sleep(float(sys.argv[3]))
    print(edits)
    """
)
"""An editor that knows nothing of the lock. Like a careful one it has the file open while it saves, and then sees
whether that is still the one that stands there."""

READER: Final = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from mcpwatch.policy.file import PolicyFile
    path = Path(sys.argv[1])
    file, seen, looks = PolicyFile(path), set(), 0
    while not path.with_name("stop").exists():
        file.check()
        names = {entry.id for entry in file.policy.revoked}
        assert file.error is None, file.error
        assert len(file.policy.keys) == 60, "half a file"
        assert names >= seen, "a revocation was gone for a while"
        seen, looks = names, looks + 1
        time.sleep(0.01)
    print(looks)
    """
)


@row("C4")
def test_writers_beside_editors_that_know_no_lock_lose_nothing_and_nobody_reads_half_a_file(
    tmp_path: Path, figure: Figure
) -> None:
    """Four writers, one of them also by the command; editors by rename and in place; a reader all the while."""
    count = 50 if FULL else 4
    path, state = tmp_path / "policy.yaml", tmp_path / "state"
    path.write_bytes(HALVES)

    def start(code: str, *args: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, str(path), *map(str, args)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    others = [start(EDITOR, "by rename", 0.4), start(EDITOR, "in place", 0.4), start(READER)]
    ways = ["call", "call", "call", "command"] if FULL else ["call"] * 4
    writers = [start(WRITER, state, f"w{number}", count, how) for number, how in enumerate(ways)]
    results = Counter[str]()
    try:
        for writer in writers:
            results.update(writer.communicate(timeout=500)[0].split())
    finally:
        for writer in writers:
            writer.kill()
        (tmp_path / "stop").touch()
        found = [other.communicate(timeout=30)[0].strip() for other in others]
    assert [process.returncode for process in (*writers, *others)] == [0] * 7
    wanted = {f"w{who}-{number}" for who in range(4) for number in range(count)}
    entries = load(path).revoked
    assert {entry.id for entry in entries} == wanted
    assert len(entries) == len(wanted)
    by_rename, in_place, looks = map(int, found)
    first, second, rest = path.read_bytes().split(b"\n", 2)
    assert (first, second) == (b"# edit %d by rename" % by_rename, b"# edit %d in place" % in_place)
    assert rest.endswith(HALVES.split(b"keys:")[1])
    assert set(results) <= {"applied", "unconfirmed"}
    sure = sum(results.values()) and f"{results['applied']} of {results.total()} calls confirmed; "
    figure(
        f"{sure}{len(entries)} of {len(wanted)}, {by_rename + in_place} foreign edits, 0 lost, "
        f"0 torn in {looks} looks"
    )
