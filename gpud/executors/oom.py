"""Whether an attempt ended for want of memory: of a GPU ("cuda"), of the machine ("host").

Owned by executors/runner.py, asked about every message of a runner. Three witnesses: how the
attempt ended, the end of its log (executors/oom_log.py), and the kernel's count of processes that
it has killed for memory. Nothing is read for an attempt that succeeded, was stopped by us, ran into
its time limit or was lost; what cannot be read says nothing.
"""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM

from gpud.executors.wire import AnyMessage, EndedMessage
from gpud.paths import log_path

TAIL_BYTES = 32 * 1024
VMSTAT = Path("/proc/vmstat")
ENDED_BY_SOMEBODY = (SIGHUP, SIGINT, SIGTERM)  # neither the kernel nor a program for want of memory
SHELL_SAW_SIGKILL = 128 + SIGKILL
REMEMBERED = 1000
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC


def recognise(
    exit_code: int | None, signal: int | None, tail: bytes, killed_by_kernel: Callable[[], bool]
) -> str:
    """Of what it ended: "cuda", "host" or "". `killed_by_kernel` is asked where a process died of
    SIGKILL, once."""
    if exit_code == 0 or signal in ENDED_BY_SOMEBODY:
        return ""
    from gpud.executors.oom_log import last_word  # its patterns take 15 ms: not at our start
    from gpud.executors.oom_words import Sign

    sign = last_word(tail)
    killed = signal == SIGKILL or exit_code == SHELL_SAW_SIGKILL or sign is Sign.KILLED
    if killed and killed_by_kernel():
        return Sign.HOST.value
    return sign.value if sign in (Sign.CUDA, Sign.HOST) else ""


def read_tail(path: str) -> bytes:
    """The last TAIL_BYTES of a plain file; b"" for whatever else lies there. Never waits."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError:
        return b""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return b""
        return os.pread(fd, TAIL_BYTES, max(0, status.st_size - TAIL_BYTES))
    except OSError:
        return b""
    finally:
        os.close(fd)


class KernelKills:
    """The kernel's count of processes that it has killed for memory, anywhere on the machine.

    Each kill accounts for one attempt: two jobs that it killed at the same time were both killed
    by it, and the one that a person killed an hour later was not. What it killed before we came is
    not known.
    """

    def __init__(self, vmstat: Path) -> None:
        self._vmstat = vmstat
        self._count = self._read()
        self._unclaimed = 0
        self._rose_at_ms = 0  # when it was last seen to have risen

    def claim(self, started_at_ms: int) -> bool:
        """Whether an attempt that died of SIGKILL can be one of those not accounted for yet."""
        now = self._read()
        if now > self._count:
            self._unclaimed += now - self._count
            self._count, self._rose_at_ms = now, time.time_ns() // 1_000_000
        if not self._unclaimed or started_at_ms > self._rose_at_ms:
            return False
        self._unclaimed -= 1
        return True

    def _read(self) -> int:
        """0 where it cannot be read, or there is none (before Linux 4.13)."""
        try:
            _, _, rest = self._vmstat.read_bytes().partition(b"\noom_kill ")
            return int(rest.partition(b"\n")[0] or 0)
        except (OSError, ValueError):
            return 0


class OutOfMemory:
    def __init__(self, state_path: str, kernel: KernelKills | None = None) -> None:
        self._state_path = state_path
        self._kernel = kernel or KernelKills(VMSTAT)
        # An end is told again after a reconnect: what the kernel did is claimed once.
        self._claimed: deque[tuple[int, int]] = deque(maxlen=REMEMBERED)

    def of(self, message: AnyMessage) -> str:
        """Of what an attempt ended, if this says that one did: "cuda", "host"; else ""."""
        if not isinstance(message, EndedMessage) or not ended_badly(message):
            return ""
        tail = read_tail(log_path(self._state_path, message.job, message.attempt))
        end = message.exit
        return recognise(end.code, end.signal, tail, lambda: self._killed_by_kernel(message))

    def _killed_by_kernel(self, message: EndedMessage) -> bool:
        key = (message.job, message.attempt)
        if key in self._claimed:
            return True
        if not self._kernel.claim(message.started_at_ms or 0):
            return False
        self._claimed.append(key)
        return True


def ended_badly(message: EndedMessage) -> bool:
    """By itself: not by our stop or time limit, and known to have."""
    end = message.exit
    return end.code != 0 and end.lost is None and not (message.stopped or message.timed_out)
