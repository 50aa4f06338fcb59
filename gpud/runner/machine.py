"""What the runner asks of the machine: a file's bytes, the clock, the boot id, a lock.

Used by all the others. Must not know of attempts.
"""

import fcntl
import os
import signal
import sys
import time


def log(text: str) -> None:
    """A line for a person, in runner.log."""
    try:
        print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=sys.stderr, flush=True)
    except OSError:
        pass


def read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        data = b""
        while chunk := os.read(fd, 65536):
            data += chunk
        return data
    finally:
        os.close(fd)


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def boot_ticks() -> int:
    """Now, as a start time in /proc/PID/stat."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) * TICKS_PER_S // 1_000_000_000


def lock_file(path: str) -> int | None:
    """An exclusive lock for as long as this process lives; None when another has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def held_token(path: str) -> str | None:
    """The daemon's token, if a living daemon holds the lock that it is written in."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return os.read(fd, 4096).decode().strip()
    finally:
        os.close(fd)


def crash_at(point: str) -> None:
    """For the tests: die where dying is hardest to get right."""
    if point == CRASH_POINT:
        os.kill(os.getpid(), signal.SIGKILL)


def read_boot_id() -> str:
    given = os.environ.get("GPUD_BOOT_ID")  # for the tests
    return given or read("/proc/sys/kernel/random/boot_id").decode().strip()


BOOT_ID = read_boot_id()
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CRASH_POINT = os.environ.get("GPUD_RUNNER_CRASH")
