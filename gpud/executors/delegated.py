"""The cgroup that systemd has delegated to this process: what payload groups can be made in.

Called by daemon/serve.py, where no cgroup is configured, and by `gpud doctor`. Reads /proc and
extended attributes; changes nothing. A cgroup that is merely writable (root's) is not taken: its
owner may remove it or enable controllers in it at any time.
"""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")
XATTRS = ("user.delegate", "trusted.delegate")  # set by systemd, the second for root only


def delegated(proc: Path = PROC) -> Path | None:
    """The directory of our own cgroup, if it is delegated and writable."""
    root, name = mount_point(proc), cgroup_of("self", proc)
    if root is None or name is None:
        return None
    directory = root / name.lstrip("/")
    return directory if is_delegated(directory) and is_writable(directory) else None


def mount_point(proc: Path = PROC) -> Path | None:
    """Where cgroup v2 is mounted: /sys/fs/cgroup, or in the hybrid layout a directory below it."""
    try:
        lines = (proc / "self" / "mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    for line in lines:
        fields, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            return Path(fields.split(" ")[4])
    return None


def cgroup_of(pid: int | str, proc: Path = PROC) -> str | None:
    """The path of its cgroup in the hierarchy of version 2: "/system.slice/gpud.service"."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    return next((line[3:] for line in lines if line.startswith("0::")), None)


def is_delegated(directory: Path) -> bool:
    for name in XATTRS:
        try:
            if os.getxattr(directory, name) == b"1":
                return True
        except OSError:
            pass  # not set, not for us to see, or no such attributes here
    return False


def is_writable(directory: Path) -> bool:
    """Groups can be made in it, and processes moved within it."""
    return os.access(directory, os.W_OK) and os.access(directory / "cgroup.procs", os.W_OK)
