"""What kind of file system a path is on: whether inotify can be believed there.

Owns the list of file systems on which another host's changes come without notice. Called by the
queue file's watcher. Reads /proc/self/mountinfo and resolves the path: may block on a dead mount,
so call it aside.
"""

from __future__ import annotations

import os
import re

# On all of these inotify never sees a remote change (measured for NFSv4.2, GlusterFS and sshfs).
_NETWORK = frozenset(
    (
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "drvfs",
        "glusterfs",
        "gfs2",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "prl_fs",
        "pvfs2",
        "smb3",
        "smbfs",
        "vboxsf",
        "virtiofs",
        "vmhgfs",
    )
)
_OCTAL = re.compile(r"\\([0-7]{3})")


def type_of(path: str, mountinfo: str | None = None) -> str:
    """The type of the file system that holds `path` ("ext4", "nfs4", "fuse.sshfs"), "" if unknown.

    `mountinfo`: the text of /proc/self/mountinfo (proc(5)).
    """
    if mountinfo is None:
        try:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
                mountinfo = file.read()
        except OSError:
            return ""
        path = os.path.realpath(path)
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if not dash or len(fields) < 5:
            continue
        point = _OCTAL.sub(lambda m: chr(int(m[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:  # of two on one point, the later one is on top
            best, kind = len(point), after.split(" ")[0]
    return kind


def is_network(kind: str) -> bool:
    """Unknown FUSE file systems count as network: polling them is never wrong."""
    return kind in _NETWORK or kind.startswith("fuse.")
