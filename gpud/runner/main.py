"""One runner's life: its lock, what it is made of, its turns, and when it goes.

Called by __main__.py.
"""

import gc
import os
import time
from math import inf

from gpud.runner import VERSION
from gpud.runner.adopt import take_journals
from gpud.runner.cgroup import Groups
from gpud.runner.ending import Endings
from gpud.runner.itself import Score, become_subreaper, detach, tell_ready
from gpud.runner.journal import Journal
from gpud.runner.ledger import Ledger
from gpud.runner.link import Daemon
from gpud.runner.loop import Loop, guard
from gpud.runner.machine import lock_file, log
from gpud.runner.orders import Orders
from gpud.runner.payload import Payloads
from gpud.runner.start import Starter

IDLE_S = 5.0


class Runner:
    def __init__(self, state_dir: str, cgroup: str | None) -> None:
        """The lock is ours. Raises OSError."""
        self.leaving = False
        self.idle_at = inf
        score, groups, self.loop = Score(), Groups(cgroup), Loop()
        self.ledger = Ledger(Journal(f"{state_dir}/runner-{VERSION}.journal"))
        self.daemon = Daemon(self.loop, state_dir)
        self.endings = Endings(self.loop, self.ledger, Payloads(self.ledger), self.daemon)
        self.orders = Orders(Starter(self.endings, groups, score))
        self.loop.catch_signals(self.endings.reap, self.leave)
        take_journals(state_dir, self.endings)
        self.daemon.listen(self.orders.greet, self.orders.obey)

    def run(self) -> None:
        endings = self.endings
        while not self.is_finished():
            self.loop.turn(min(endings.due, self.idle_at, self.daemon.due_s()))
            if endings.due != inf and time.monotonic() >= endings.due:
                guard(endings.act_on_deadlines)
            self.ledger.flush()  # before the daemon hears of it: rule 1
            self.daemon.flush()
        os.unlink(self.daemon.path)

    def is_finished(self) -> bool:
        if self.leaving:
            return not self.ledger.live
        if self.ledger.attempts:
            self.idle_at = inf
            return False
        if self.daemon.link:
            self.idle_at = inf
        elif self.idle_at == inf:
            self.idle_at = time.monotonic() + IDLE_S
        return self.orders.retiring or (self.idle_at != inf and time.monotonic() >= self.idle_at)

    def leave(self) -> None:
        self.leaving = self.orders.retiring = True
        self.endings.terminate_all()


def take_lock(state_dir: str) -> bool:
    """The descriptor is never closed: the lock is held for as long as this process lives."""
    return lock_file(f"{state_dir}/runner-{VERSION}.lock") is not None


def main(arguments: list[str]) -> int:
    options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    state_dir, ready = os.path.abspath(arguments[0]), int(options.get("--ready-fd", -1))
    try:
        is_ours = take_lock(state_dir)
        if is_ours:
            detach()
            become_subreaper()
            runner = Runner(state_dir, options.get("--cgroup"))
        tell_ready(ready, b"ready" if is_ours else b"held")
        if is_ours:
            gc.freeze()
            runner.run()
    except OSError as e:
        log(f"cannot run in {state_dir}: {e}")
        return 1
    return 0
