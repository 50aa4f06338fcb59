"""What gpud tells systemd, and what systemd told it (sd_notify(3), sd_watchdog_enabled(3)).

Called by daemon/serve.py. Standard library only. Telling never blocks and never fails: where nobody
listens, gpud runs all the same. `gpud/environment.py` keeps these variables from jobs.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from typing import Protocol

ADDRESS = "NOTIFY_SOCKET"


class Watchdog(Protocol):
    def cancel(self) -> object: ...


def notify(*assignments: str, environ: Mapping[str, str] = os.environ) -> bool:
    """One datagram: "READY=1", "STOPPING=1", "STATUS=2 jobs run". False: it did not arrive."""
    address = environ.get(ADDRESS, "")
    if not address.startswith(("/", "@")):
        return False
    message = "\n".join(line.replace("\n", " ") for line in assignments).encode(errors="replace")
    if address.startswith("@"):  # the abstract namespace
        address = "\0" + address[1:]
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    try:
        with socket.socket(socket.AF_UNIX, kind) as sock:
            sock.sendto(message, address)
    except OSError:
        return False
    return True


def notify_reloading(*, environ: Mapping[str, str] = os.environ) -> bool:
    """Before a reload; READY=1 comes after it. systemd tells reloads apart by the time."""
    now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    return notify("RELOADING=1", f"MONOTONIC_USEC={now_us}", environ=environ)


def watchdog_interval_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """How often to say that we live: half of what the unit asks for. None: it does not ask."""
    wanted_us = environ.get("WATCHDOG_USEC", "")
    pid = environ.get("WATCHDOG_PID", "")
    if not _is_number(wanted_us) or int(wanted_us) == 0:
        return None
    if pid and pid != str(os.getpid()):
        return None
    return int(wanted_us) / 2e6


def start_watchdog(
    loop: asyncio.AbstractEventLoop, environ: Mapping[str, str] = os.environ
) -> Watchdog | None:
    """Says WATCHDOG=1 from the loop, so that a loop that hangs falls silent. None: not asked for.

    A timer and not a task: it has nothing to await, and a failed send is no reason to end.
    """
    interval_s = watchdog_interval_s(environ)
    if interval_s is None:
        return None
    beat = _Beat(loop, interval_s, environ)
    beat.strike()
    return beat


class _Beat:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, interval_s: float, environ: Mapping[str, str]
    ) -> None:
        self._loop = loop
        self._interval_s = interval_s
        self._environ = environ
        self._next: asyncio.TimerHandle | None = None

    def strike(self) -> None:
        notify("WATCHDOG=1", environ=self._environ)
        self._next = self._loop.call_later(self._interval_s, self.strike)

    def cancel(self) -> None:
        if self._next is not None:
            self._next.cancel()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
