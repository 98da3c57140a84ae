"""revoke, restore, lock, unlock, disable, enable: what they do to a policy file that people write by hand."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import pytest

from mcpwatch.policy.load import load
from mcpwatch.times import HOUR, MINUTE
from tests.functional.program import Home

# Comments, CRLF, odd indents, quotes of both kinds, no newline at the end.
HAND_WRITTEN = b"""\
# our policy\r
version:   1\r
tools:\r
      file_read:   {allowed_paths: ['/app/data/'], require_scope: "read"}   # data only\r
      shell_execute: {enabled: false}\r
unlisted_tools: deny\r
keys:\r
   key_0001: {client: bot, scopes: [read]}\r
\r
revoked:   # keep this list short\r
   - {key: old, at: "2026-01-01T00:00:00Z", by: 'me', reason: "x"}\r
lockouts: []\r
# the end"""

WHY = ["--reason", "odd calls"]
CHANGES = {
    "revoke": (["revoke", "key_0001", *WHY], ["restore", "key_0001"]),
    "revoke session": (
        ["revoke", "s: # 1", "--kind", "session", *WHY],
        ["restore", "s: # 1", "--kind", "session"],
    ),
    "lock": (["lock", "--key", "key_0001", "--ip", "203.0.113.9", *WHY], None),
    "disable": (["disable", "http_get", *WHY], None),
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "policy.yaml").write_bytes(HAND_WRITTEN)
    return Home(tmp_path)


def policy(home: Home) -> Path:
    return home.folder / "policy.yaml"


def changed_lines(before: bytes, after: bytes) -> tuple[list[bytes], list[bytes]]:
    """Lines that went, and lines that came."""
    old, new = (text.decode().splitlines(keepends=True) for text in (before, after))
    diff = list(difflib.ndiff(old, new))
    return [line[2:].encode() for line in diff if line[0] == "-"], [
        line[2:].encode() for line in diff if line[0] == "+"
    ]


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_adds_its_entry_and_its_reverse_takes_only_that_away(home: Home, name: str) -> None:
    make, undo = CHANGES[name]
    done = home.run(*make)
    assert done.returncode == 0
    assert "written: " in done.stdout
    assert "mcpwatch tail LOG" in done.stderr
    after = policy(home).read_bytes()
    gone, added = changed_lines(HAND_WRITTEN, after)
    # an empty flow list has to open; nothing else may differ
    assert gone in ([], [b"lockouts: []\r\n"])
    assert len(added) == 1
    assert all(line.endswith(b"\r\n") for line in added)
    load(policy(home))
    if undo is not None:
        assert home.run(*undo).returncode == 0
        assert policy(home).read_bytes() == HAND_WRITTEN


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_already_so_writes_nothing_and_is_no_error(home: Home, name: str) -> None:
    make, undo = CHANGES[name]
    assert home.run(*make).returncode == 0
    before, stat = policy(home).read_bytes(), policy(home).stat()
    again = home.run(*make)
    assert (again.returncode, again.stdout.startswith("already so: ")) == (0, True)
    if undo is not None:
        home.run(*undo)
        stat = policy(home).stat()
        before = policy(home).read_bytes()
        again = home.run(*undo)
        assert (again.returncode, again.stdout.startswith("already so: ")) == (0, True)
    assert policy(home).read_bytes() == before
    assert (policy(home).stat().st_ino, policy(home).stat().st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)


def test_enable_and_disable_switch_a_listed_tool(home: Home) -> None:
    assert home.run("enable", "shell_execute", *WHY).returncode == 0
    assert load(policy(home)).tools["shell_execute"].enabled
    assert home.run("disable", "shell_execute", *WHY).returncode == 0
    assert not load(policy(home)).tools["shell_execute"].enabled
    assert load(policy(home)).tools["shell_execute"].since is not None


def test_a_dry_run_shows_the_diff_and_writes_nothing(home: Home) -> None:
    done = home.run("revoke", "key_0001", *WHY, "--dry-run")
    assert done.returncode == 0
    assert '+   - {key: "key_0001", at: now, ' in done.stdout
    assert "nothing was written" in done.stdout
    assert policy(home).read_bytes() == HAND_WRITTEN
    assert sorted(path.name for path in home.folder.iterdir()) == ["policy.yaml"]


def test_a_revocation_for_a_while_ends_by_itself(home: Home) -> None:
    assert home.run("revoke", "key_0001", "--for", "4h", *WHY).returncode == 0
    entry = load(policy(home)).revoked[-1]
    assert (entry.kind, entry.id, entry.reason) == ("key", "key_0001", "odd calls")
    assert entry.until == entry.at + 4 * HOUR
    done = home.run("revoke", "key_0001", *WHY)
    assert done.stdout.endswith("written: revoke key key_0001\nreason: odd calls\n")


def test_unlock_ends_a_lockout_and_leaves_it_to_the_ladder(home: Home) -> None:
    who = ["--key", "key_0001", "--ip", "203.0.113.9"]
    assert home.run("lock", *who, *WHY).returncode == 0
    (locked,) = load(policy(home)).lockouts
    before = policy(home).read_bytes()
    done = home.run("unlock", *who, "--reason", "our own\x1b scanner")
    assert done.stdout.endswith("reason: our own\\e scanner\n")
    (ended,) = load(policy(home)).lockouts
    assert locked.at == ended.at < ended.until < locked.until
    gone, added = changed_lines(before, policy(home).read_bytes())
    assert (len(gone), len(added)) == (1, 1)
    assert home.run("unlock", *who, *WHY).stdout.startswith("already so: ")
    assert home.run("lock", *who, *WHY).returncode == 0
    assert [entry.until - entry.at for entry in load(policy(home)).lockouts][1:] == [15 * MINUTE]


def test_half_a_lockout_is_not_unlocked_and_it_is_said_what_is(home: Home) -> None:
    who = ["--key", "key_0001", "--ip", "203.0.113.9"]
    assert home.run("lock", *who, *WHY).returncode == 0
    before = policy(home).read_bytes()
    done = home.run("unlock", "--key", "key_0001", *WHY)
    assert done.returncode == 4
    assert "mcpwatch unlock --key key_0001 --ip 203.0.113.9 --reason WHY" in done.stderr
    assert policy(home).read_bytes() == before
    assert home.run("unlock", *who, *WHY).returncode == 0
    assert home.run("unlock", "--key", "key_0001", *WHY).stdout.startswith("already so: ")


def test_the_ladder_says_how_long_a_lockout_is_and_for_overrules_it(home: Home) -> None:
    for address, length, minutes in (("203.0.113.1", [], 5), ("203.0.113.2", ["--for", "2h"], 120)):
        assert home.run("lock", "--ip", address, *WHY, *length).returncode == 0
        lockout = load(policy(home)).lockouts[-1]
        assert lockout.source_ip == address
        assert lockout.until - lockout.at == minutes * MINUTE


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["revoke", "k"], 2, "Missing option '--reason'"),
        (["revoke", "k", "--reason", "  "], 2, "--reason is empty"),
        (["revoke", "k", *WHY, "--kind", "nobody"], 2, "'nobody' is not one of"),
        (["revoke", "k", *WHY, "--for", "soon"], 2, "is not a duration"),
        (["lock", *WHY], 2, "name whom: --key ID, --ip ADDR, or both"),
        (["lock", "--ip", "999.1.1.1", *WHY], 2, "is no IP address"),
        (["enable", "nonsense", *WHY], 4, "is not in the policy, which denies unlisted tools"),
        (["revoke", "k", *WHY, "--policy", "absent.yaml"], 3, "absent.yaml: no such policy file"),
        (["revoke", "k", *WHY, "--read-only"], 4, "read-only"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_changes_that_are_not_made_say_why(home: Home, args: list[str], code: int, said: str) -> None:
    done = home.run(*args)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert policy(home).read_bytes() == HAND_WRITTEN


def test_without_a_policy_file_nothing_is_changed(home: Home) -> None:
    policy(home).unlink()
    done = home.run("revoke", "k", *WHY)
    assert done.returncode == 4
    assert "no policy file" in done.stderr
    assert "mcpwatch policy init" in done.stderr
    assert list(home.folder.iterdir()) == []


def test_an_invalid_policy_is_never_written(home: Home) -> None:
    policy(home).write_bytes(HAND_WRITTEN.replace(b"deny", b"dent"))
    done = home.run("revoke", "k", *WHY)
    assert done.returncode == 3
    assert "policy.yaml:6" in done.stderr
    assert b"dent" in policy(home).read_bytes()


@pytest.mark.parametrize("how", ["read-only", "symlink", "world-writable", "hard link"])
def test_a_file_that_may_not_be_replaced_is_left_alone(home: Home, how: str) -> None:
    """The change is not applied; what is already so is still no error."""
    match how:
        case "read-only":
            policy(home).chmod(0o444)
        case "symlink":
            policy(home).rename(home.folder / "real.yaml")
            policy(home).symlink_to("real.yaml")
        case "world-writable":
            policy(home).chmod(0o666)
        case "hard link":
            os.link(policy(home), home.folder / "second.yaml")
    done = home.run("revoke", "key_0001", *WHY)
    assert done.returncode == 4
    assert done.stderr.startswith("mcpwatch: ")
    assert "policy.yaml" in done.stderr
    assert policy(home).read_bytes() == HAND_WRITTEN
    assert home.run("revoke", "old", *WHY).stdout == "already so: revoke key old\n"


def test_replaced_versions_are_kept_in_the_state_folder(home: Home) -> None:
    assert home.run("revoke", "key_0001", *WHY).returncode == 0
    (kept,) = (home.folder / "home/state/mcpwatch/policy-versions").iterdir()
    assert kept.read_bytes() == HAND_WRITTEN
    assert home.run("restore", "key_0001", "--state", "elsewhere").returncode == 0
    assert len(list((home.folder / "elsewhere/policy-versions").iterdir())) == 1
