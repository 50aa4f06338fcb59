"""Which file system a path is on, and whether that one is shared over a network.

Called by the store (SQLite's journal and flock need a local disk), the queue file (inotify says
nothing of another machine's writes) and the doctor. Reads /proc/self/mountinfo and resolves the
path, which may block on a dead mount. Standard library only.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

# As the kernel names them, "fuse." taken off.
NETWORK = frozenset(
    (
        *("9p", "acfs", "afs", "beegfs", "ceph", "ceph-fuse", "cephfs", "cifs", "cvmfs", "davfs"),
        *("davfs2", "gcsfuse", "gfs", "gfs2", "gluster", "glusterfs", "gpfs", "juicefs", "lustre"),
        *("moosefs", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "rclone"),
        *("s3fs", "saunafs", "smb3", "smbfs", "sshfs", "weka", "wekafs"),
        *(
            "coda",
            "drvfs",
            "prl_fs",
            "vboxsf",
            "virtiofs",
            "vmhgfs",
        ),  # a host's, from inside a guest
    )
)


def type_of(path: Path | str, mounts: Path = MOUNTS) -> str:
    """The type of the file system that `path` is or would be on, "" where nobody can say."""
    place = os.path.realpath(path)
    best, found = "", ""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        # id parent major:minor root mount-point options [optional ...] - type source options
        fields, _, rest = line.partition(" - ")
        point = _unescape(fields.split(" ")[4])
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # a later mount at the same point hides the earlier
            best, found = point, rest.split(" ")[0]
    return found


def is_network(type_: str) -> bool:
    return type_.removeprefix("fuse.") in NETWORK


def may_be_remote(type_: str) -> bool:
    """Also FUSE file systems that nobody here knows: to poll one more is never wrong."""
    return is_network(type_) or type_.startswith("fuse.")


def _unescape(text: str) -> str:
    """mountinfo writes a blank as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
