"""Processes as /proc shows them, and signals that reach none but the one meant.

Used by payload.py, cgroup.py, ending.py and start.py. Must not know of attempts.
"""

import os
import signal
import time

from gpud.runner.machine import log, read

KTHREADD = 2  # the parent of the kernel's threads, which have no environment


class Process:
    __slots__ = ("name", "pid", "ppid", "session", "ticks")

    def __init__(self, pid: int, stat: bytes) -> None:
        head, _, tail = stat.rpartition(b")")
        field = tail.split()
        # A leader that is dead may have threads that live.
        if field[0] in b"ZX" and int(field[17]) <= 1:
            raise ProcessLookupError
        self.pid, self.ppid, self.session = pid, int(field[1]), int(field[3])
        self.ticks = int(field[19])  # start time since boot: with the pid, its identity
        self.name = head.partition(b"(")[2].decode("utf-8", "replace")

    def __str__(self) -> str:
        return f"{self.name} ({self.pid})"


def process(pid: int) -> Process | None:
    """None when it is gone or only a zombie is left of it."""
    try:
        return Process(pid, read(f"/proc/{pid}/stat"))
    except OSError:
        return None


def processes() -> dict[int, Process]:
    found = (process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {p.pid: p for p in found if p}


def has_nonce(p: Process, nonce: str) -> bool:
    """In the middle of an exec, environment and command line both read as empty for a moment."""
    if KTHREADD in (p.pid, p.ppid):
        return False
    try:
        for _ in range(20):
            environ = read(f"/proc/{p.pid}/environ")
            if environ or read(f"/proc/{p.pid}/cmdline"):
                return f"GPUD_NONCE={nonce}".encode() in environ.split(b"\0")
            time.sleep(0.001)
    except OSError:
        pass
    return False


def catches(p: Process, number: int) -> bool:
    """It has a handler for the signal. (A mask says little: a shell blocks all while it forks.)"""
    try:
        lines = read(f"/proc/{p.pid}/status").split(b"\n")
    except OSError:
        return False
    masks = [line.split()[1] for line in lines if line.startswith(b"SigCgt:")]
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


def send_signal(p: Process, number: int) -> None:
    """The pidfd pins the process whose start time is then compared: a reused pid is never hit."""
    try:
        fd = os.pidfd_open(p.pid)
    except OSError:
        return
    try:
        now = process(p.pid)
        if now and now.ticks == p.ticks:
            signal.pidfd_send_signal(fd, number)
    except OSError as e:
        log(f"cannot signal {p}: {e.strerror}")
    finally:
        os.close(fd)
