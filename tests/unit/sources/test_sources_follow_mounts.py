"""Which file systems other machines write to."""

import os
from pathlib import Path

import pytest

from mcpwatch.sources.follow import Follower
from mcpwatch.sources.mounts import NETWORK, filesystem_in, network_filesystem

# the lines are proc(5)'s: id, parent, device, root, mount point, options, optional fields, "-", type, source, options
TABLE = b"""\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /srv rw - nfs4 server:/srv rw,vers=4.2
31 30 8:2 / /srv/local rw shared:7 master:3 - xfs /dev/sdb1 rw
32 22 0:41 / /mnt/with\\040space\\134and\\011tab rw - cifs //server/share rw
33 22 0:42 / /over rw - ext4 /dev/sdc1 rw
34 33 0:43 / /over rw - 9p host rw,trans=virtio
35 22 0:44 / /home/me/remote rw - fuse.sshfs me@host: rw
36 22 0:45 / /home/me/own rw - fuse.encfs encfs rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/log", None),
        ("/srv", "nfs4"),
        ("/srv/logs/mcp", "nfs4"),
        ("/srv/local", None),
        ("/srv/local/logs", None),
        ("/srvlocal", None),
        ("/mnt/with space\\and\ttab/logs", "cifs"),
        ("/over", "9p"),
        ("/home/me/remote", "fuse.sshfs"),
        ("/home/me/own", None),
        ("/", None),
    ],
)
def test_the_longest_mount_point_counts_and_of_those_the_one_on_top(folder: str, kind: str | None) -> None:
    assert filesystem_in(TABLE, folder) == kind


@pytest.mark.parametrize("table", [b"", b"rubbish\n", b"1 2 3 - nfs4", b"\xff\xfe - - -\n", b" - " * 100])
def test_a_table_of_another_form_names_nothing(table: bytes) -> None:
    assert filesystem_in(table, "/srv") is None


def test_a_bad_type_name_is_no_network() -> None:
    assert filesystem_in(b"22 1 8:1 / / rw - \xff\xfe server rw\n", "/srv") is None


def test_the_table_of_this_machine_is_read(tmp_path: Path) -> None:
    """Whatever it says of the folder of tests, it says it of a log and of its folder alike."""
    table = Path("/proc/self/mountinfo").read_bytes()
    found = network_filesystem(tmp_path / "audit.jsonl")
    assert found == filesystem_in(table, os.path.realpath(tmp_path))
    assert found is None or found in NETWORK
    assert Follower(tmp_path / "audit.jsonl", "log").status.filesystem == found
