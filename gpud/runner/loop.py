"""One thread, one epoll: what is ready acts, then what is due, then the turn ends.

Owned by main.py; the others add the descriptors that they own. Must not know what they are for.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from math import inf

Act = Callable[[], None]
# Python itself ignores the last two, and SIG_IGN is what a payload would inherit; a handler is not.
LONGEST_S = 86_400.0  # epoll counts milliseconds in an int: 24 days and no more
CAUGHT = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE,
          signal.SIGXFSZ)  # fmt: skip


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
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for number in CAUGHT:
            signal.signal(number, lambda *_: None)
        wakeup, wakeup_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wakeup_in, warn_on_full_buffer=False)

        def on_signal() -> None:
            numbers = os.read(wakeup, 65536)
            if signal.SIGCHLD in numbers:
                on_child()
            if signal.SIGTERM in numbers:
                on_term()

        self.add(wakeup, on_signal)
