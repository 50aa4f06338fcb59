"""What the runner is to the kernel: detached, the reaper of orphans, spared when memory is short.

Used by main.py at start, and by start.py around each spawn, since a child inherits the OOM score.
"""

import ctypes
import os
import socket

PR_SET_CHILD_SUBREAPER = 36
OOM_SCORES = (-500, 0)  # the first that is lower and allowed


class Score:
    """To give it back around a spawn are two writes (1.3 us) with no race; to write that of the
    child afterwards costs 4.4 us and has one."""

    def __init__(self) -> None:
        self.fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        self.before, self.lowered = os.read(self.fd, 16).strip(), b""
        for score in OOM_SCORES:
            if score < int(self.before) and not self.lowered:
                try:
                    os.pwrite(self.fd, b"%d" % score, 0)
                    self.lowered = b"%d" % score
                except OSError:
                    pass  # not allowed to: an unprivileged runner keeps what it has

    def restore(self) -> None:
        if self.lowered:
            os.pwrite(self.fd, self.before, 0)

    def lower(self) -> None:
        if self.lowered:
            os.pwrite(self.fd, self.lowered, 0)


def detach() -> None:
    """Nothing of where it was started: no directory; /dev/null as the stdin of all that it runs."""
    os.chdir("/")
    while (null := os.open("/dev/null", os.O_RDWR)) < 3:
        pass  # a standard descriptor that was closed
    os.dup2(null, 0)
    os.close(null)


def tell_ready(fd: int, word: bytes) -> None:
    """To the daemon that started us, through its pipe, or to systemd (sd_notify(3)), which did."""
    if fd >= 0:
        os.write(fd, word + b"\n")
        os.close(fd)
    elif address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(b"READY=1", "\0" + address[1:] if address[0] == "@" else address)


def become_subreaper() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot become the reaper of orphans")
