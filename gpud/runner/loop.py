"""One thread, one epoll: what is ready acts, then what is due, then the turn ends.

Owned by main.py; the others add the descriptors that they own. Must not know what they are for.
"""

import ctypes
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterable
from math import inf

Act = Callable[[], None]
# Python itself ignores the last two, and SIG_IGN is what a payload would inherit; a handler is not.
LONGEST_S = 86_400.0  # epoll counts milliseconds in an int: 24 days and no more
CAUGHT = (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)
READ = (signal.SIGCHLD, signal.SIGTERM)
SIGINFO = struct.Struct("I124s")  # signalfd_siginfo, which begins with the number


def guard(act: Act) -> None:
    """What cannot happen must not cost the running jobs their exit codes."""
    try:
        act()
    except Exception:
        sys.excepthook(*sys.exc_info())


class Loop:
    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.watch: dict[int, Act] = {}

    def add(self, fd: int, act: Act, events: int = select.EPOLLIN) -> None:
        self.watch[fd] = act
        self.epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        self.epoll.modify(fd, events)

    def drop(self, fd: int) -> None:
        """Forget and close it."""
        del self.watch[fd]
        self.epoll.unregister(fd)
        os.close(fd)

    def turn(self, due: float) -> None:
        """Wait until something is ready or `due` (monotonic), and let what is ready act."""
        patience = None if due == inf else min(LONGEST_S, max(0.0, due - time.monotonic()))
        for fd, _ in self.epoll.poll(patience):
            if act := self.watch.get(fd):  # another may have dropped it in this turn
                guard(act)

    def catch_signals(self, on_child: Act, on_term: Act) -> None:
        """The two that mean something are blocked and read: no handler interrupts a spawn."""
        for number in CAUGHT:
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, READ)
        fd = signal_fd(READ)

        def on_signal() -> None:
            data = os.read(fd, 16 * SIGINFO.size)
            numbers = {number for number, _ in SIGINFO.iter_unpack(data)}
            if signal.SIGCHLD in numbers:
                on_child()
            if signal.SIGTERM in numbers:
                on_term()

        self.add(fd, on_signal)


def signal_fd(numbers: Iterable[int]) -> int:
    """signalfd(2), which Python 3.11 has not. Raises OSError."""
    mask = sum(1 << (number - 1) for number in numbers).to_bytes(128, sys.byteorder)
    fd = int(ctypes.CDLL(None, use_errno=True).signalfd(-1, mask, os.O_NONBLOCK | os.O_CLOEXEC))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "cannot read signals")
    return fd
