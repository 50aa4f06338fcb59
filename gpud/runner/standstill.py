"""A pause: all of a payload stands still, and goes on.

Used by ending.py. The journal comes first, so that the next runner knows what it finds standing.
Must not know of deadlines: those of a paused attempt are moved by as long as it stood.
"""

import time
from signal import SIGCONT, SIGSTOP

from gpud.runner.attempt import Attempt
from gpud.runner.cgroup import freeze_group
from gpud.runner.ledger import Ledger
from gpud.runner.payload import Payloads
from gpud.runner.processes import send_signal

MOST_PASSES = 20  # over a payload that forks while it is being stopped


def pause(a: Attempt, payloads: Payloads, ledger: Ledger) -> None:
    """Once more, it stops what somebody else has continued."""
    if a.paused_at is None:
        a.paused_at = time.monotonic()
        ledger.note(a, a.line("paused", clock_s=a.paused_at))
        ledger.flush()
    stand(a, payloads)


def go_on(a: Attempt, payloads: Payloads, ledger: Ledger) -> None:
    if a.paused_at is None:
        return
    now = time.monotonic()
    stood_s = now - a.paused_at
    a.paused_at = None
    a.paused_s += stood_s
    a.limit_at += stood_s
    ledger.note(a, a.line("continued", clock_s=now))
    ledger.flush()
    if not (a.group and freeze_group(a.group, b"0")):
        for p in payloads.of(a):
            send_signal(p, SIGCONT)


def stand(a: Attempt, payloads: Payloads) -> None:
    """What a process forked before it stopped is met by the next pass."""
    if a.group and freeze_group(a.group, b"1"):
        return
    stopped: set[tuple[int, int]] = set()
    for _ in range(MOST_PASSES):
        new = [p for p in payloads.of(a) if (p.pid, p.ticks) not in stopped]
        if not new:
            return
        for p in new:
            send_signal(p, SIGSTOP)
            stopped.add((p.pid, p.ticks))
