"""Tells whether a file lies on a network file system, where other machines write behind the kernel's back."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Final

_NAMES: Final = """
9p acfs afs beegfs ceph cifs coda glusterfs gpfs lustre ncpfs nfs nfs4 orangefs prl_fs pvfs2 smb3 smbfs vboxsf
virtiofs
fuse.ceph-fuse fuse.gcsfuse fuse.glusterfs fuse.grpcfuse fuse.juicefs fuse.osxfs fuse.rclone fuse.s3fs fuse.sshfs
"""
NETWORK: Final = frozenset(_NAMES.split())
"""File system types, as mountinfo names them, whose files other machines can change."""

_MOUNTINFO: Final = Path("/proc/self/mountinfo")
_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")


def network_filesystem(path: Path) -> str | None:
    """The type of the network file system that a path lies on (`nfs4`), None for a local or unknown one."""
    try:
        table = _MOUNTINFO.read_bytes()
    except OSError:
        return None
    return filesystem_in(table, os.path.realpath(path.parent))


def filesystem_in(table: bytes, folder: str) -> str | None:
    """The same of an absolute folder, from the text of /proc/PID/mountinfo (see proc(5))."""
    place = os.fsencode(folder).rstrip(b"/") + b"/"
    best, kind = b"", ""
    for point, name in _mounts(table):
        # of several mounts on one point the last one is on top
        if place.startswith(point) and len(point) >= len(best):
            best, kind = point, name
    return kind if kind in NETWORK else None


@lru_cache(maxsize=2)
def _mounts(table: bytes) -> tuple[tuple[bytes, str], ...]:
    """Mount points, each with a slash at its end, and file system types."""
    found = []
    for line in table.split(b"\n"):
        before, separator, after = line.partition(b" - ")
        fields, kinds = before.split(b" "), after.split(b" ")
        if separator and len(fields) >= 6 and kinds[0]:
            point = _ESCAPE.sub(_plain, fields[4])
            found.append((point.rstrip(b"/") + b"/", kinds[0].decode("ascii", "replace")))
    return tuple(found)


def _plain(escape: re.Match[bytes]) -> bytes:
    return bytes([int(escape[1], 8) & 0xFF])
