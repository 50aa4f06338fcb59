"""Control groups (v2): the leaf that the runner lives in, and one group for each attempt.

Used by start.py, payload.py and ending.py. Must not know of attempts: a group is a path.
"""

import errno
import os

from gpud.runner.machine import log, read
from gpud.runner.processes import Process, process

OWN = "own"  # instead of a directory: the group that systemd has started us in


class Groups:
    """The directory that groups are made in; without one, payloads are sessions."""

    def __init__(self, path: str | None) -> None:
        """The runner lives in a leaf: a cgroup with members cannot hand controllers on."""
        self.path: str | None = None
        if path is None:
            return
        try:
            path = own_group() if path == OWN else path
            os.makedirs(f"{path}/runner", exist_ok=True)
            self.leaf = os.open(f"{path}/runner/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
            os.write(self.leaf, b"0")
            self.path = path
        except OSError as e:
            log(f"cannot use the cgroup {path}: {e.strerror}; payloads are sessions")

    def enter(self, group: str) -> None:
        """To be in it while a child is made costs 0.15 ms a start; a shell prefix that enters it
        0.65 ms; a child that is moved later may have forked."""
        fd = os.open(f"{group}/cgroup.procs", os.O_WRONLY)
        try:
            os.write(fd, b"0")
        finally:
            os.close(fd)

    def leave(self) -> None:
        os.write(self.leaf, b"0")


def own_group() -> str:
    """Its directory, by where cgroup v2 is mounted (in the hybrid layout not at the top). Raises
    OSError."""
    name = next((x[3:] for x in read("/proc/self/cgroup").split(b"\n") if x[:3] == b"0::"), None)
    for line in read("/proc/self/mountinfo").split(b"\n"):
        if b" - cgroup2 " in line and name is not None:
            return os.fsdecode(line.split(b" ")[4] + name.rstrip(b"/"))
    raise OSError(errno.ENOENT, "there is no cgroup of version 2 here")


def populated(events_fd: int) -> bool:
    return b"populated 1" in os.pread(events_fd, 4096, 0)


def group_members(group: str) -> list[Process]:
    found = []
    for where, _, _ in os.walk(group):
        try:
            found += [process(int(pid)) for pid in read(f"{where}/cgroup.procs").split()]
        except OSError:
            pass  # it went away in between
    return [p for p in found if p]


def kill_group(group: str) -> bool:
    """False on a kernel before 5.14: then its members are to be killed until it is empty."""
    try:
        fd = os.open(f"{group}/cgroup.kill", os.O_WRONLY)
    except OSError:
        return False
    try:
        return os.write(fd, b"1") == 1
    finally:
        os.close(fd)


def freeze_group(group: str, word: bytes) -> bool:
    """`word`: 1 or 0. False on a kernel before 5.2: then its members are to be signalled."""
    try:
        fd = os.open(f"{group}/cgroup.freeze", os.O_WRONLY)
    except OSError:
        return False
    try:
        return os.write(fd, word) == 1
    finally:
        os.close(fd)


def remove_group(group: str) -> None:
    try:
        try:
            os.rmdir(group)
        except OSError:  # the payload made groups of its own
            for where, _, _ in os.walk(group, topdown=False):
                os.rmdir(where)
    except FileNotFoundError:
        pass
    except OSError as e:
        log(f"cannot remove the cgroup {group}: {e.strerror}")
