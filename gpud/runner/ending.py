"""From running to ended: deadlines, TERM and KILL, and the end once nothing is left.

Owned by main.py; called by orders.py, start.py and adopt.py, and by the loop for what ends by
itself. Must not start anything.
"""

import os
import resource
import select
import time
from functools import partial
from math import inf
from signal import SIGCONT, SIGKILL, SIGTERM

from gpud.runner.attempt import Attempt, Key
from gpud.runner.cgroup import kill_group, populated, remove_group
from gpud.runner.ledger import Ledger
from gpud.runner.link import Daemon
from gpud.runner.loop import Loop
from gpud.runner.machine import wall_ms
from gpud.runner.payload import Payloads
from gpud.runner.processes import Process, catches, send_signal
from gpud.runner.standstill import go_on, pause
from gpud.runner.wire import encode

KILL_AT_MOST_EVERY_S = 1.0


class Endings:
    def __init__(self, loop: Loop, ledger: Ledger, payloads: Payloads, daemon: Daemon) -> None:
        self.loop, self.ledger, self.payloads, self.daemon = loop, ledger, payloads, daemon
        self.due = inf  # the nearest deadline of all
        self.over: dict[Key, Attempt] = {}  # our shells that have ended, before all else of them

    # ---- what ends by itself

    def reap(self) -> None:
        may_have_orphans = True
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                may_have_orphans = False
                break
            if pid == 0:
                break
            if a := self.payloads.reaped(pid):
                code = os.waitstatus_to_exitcode(status)
                a.exit = f'{{"code":{code}}}' if code >= 0 else f'{{"signal":{-code}}}'
                a.rusage = rusage_json(usage)
                while a.gate is not None:
                    self.on_gate(a)
                self.over[a.key] = a
        if may_have_orphans and any(not a.group for a in self.over.values()):
            self.payloads.claim_orphans()
        for a in list(self.over.values()):
            self.settle(a)

    def settle(self, a: Attempt) -> None:
        """The shell has ended: end the attempt if all of its payload has, else let it linger, or
        stand still if it is paused and all of it counts."""
        if self.is_gone(a):
            self.end(a)
        elif a.phase == "stopping" and not a.was_swept:
            a.was_swept = True
            self.send_term(a)  # to what the shell made while it was being signalled
        elif a.phase == "running":
            left = self.payloads.of(a)
            if left and not a.adopted:
                self.ledger.note(a, a.exited_line())
            a.phase = "lingering"
            if not a.waits():
                self.go_on(a)
            a.linger_at = time.monotonic() + a.linger_s
            self.arm(a)
            if left:
                names = list(map(str, left))
                self.daemon.say_of(a.key, a.line("lingering", at_ms=wall_ms(), processes=names))

    def is_gone(self, a: Attempt) -> bool:
        if a.adopted:
            return not self.watch_members(a)
        if not a.group:
            return not self.payloads.has_orphans(a)
        if 0 not in a.fds:
            a.fds[0] = os.open(f"{a.group}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
            if populated(a.fds[0]):  # read before it is polled: no change is missed
                self.loop.add(a.fds[0], lambda: self.settle(a), select.EPOLLPRI)
                return False
            os.close(a.fds.pop(0))
            return True
        return not populated(a.fds[0])

    # ---- what is not our child

    def watch_members(self, a: Attempt) -> list[Process]:
        """Hold a pidfd on everything that an adopted attempt is seen to have."""
        found = self.payloads.of(a)
        for p in found:
            if p.pid not in a.fds:
                try:
                    fd = a.fds[p.pid] = os.pidfd_open(p.pid)
                except OSError:
                    continue
                self.loop.add(fd, partial(self.on_member_gone, a, p.pid))
        return found

    def on_member_gone(self, a: Attempt, pid: int) -> None:
        self.loop.drop(a.fds.pop(pid))
        self.settle_adopted(a)

    def settle_adopted(self, a: Attempt) -> None:
        found = self.watch_members(a)
        if a.pid is None and found:
            a.pid = min(found, key=lambda p: p.ticks).pid
        if a.exit is None and a.pid not in {p.pid for p in found}:
            a.exit = encode({"lost": a.why_lost})
        if a.exit:
            self.settle(a)

    # ---- the shell of another user

    def on_gate(self, a: Attempt) -> None:
        """The pipe of spawn.AS_USER: a word says why not, its end that the shell runs."""
        assert a.gate is not None
        try:
            word = os.read(a.gate, 4096).decode().strip()
        except BlockingIOError:
            return
        a.refusal = a.refusal or word
        if word:
            return
        self.loop.drop(a.gate)
        a.gate = None
        if not a.refusal:
            a.phase = "running" if a.phase == "starting" else a.phase
            self.daemon.say_soon(a.key, a.started)

    # ---- deadlines

    def arm(self, a: Attempt) -> None:
        waits = a.waits() and not a.timed_out
        a.limit_at = a.clock_s + a.paused_s + a.time_limit_s if waits else inf
        self.due = min(self.due, a.due_s())

    def act_on_deadlines(self) -> None:
        now = time.monotonic()
        for a in [a for a in self.ledger.live.values() if a.due_s() <= now]:
            if a.limit_at <= now:
                a.timed_out = True
                self.terminate(a, a.grace_s)
            if a.linger_at <= now:
                a.killed = [str(p) for p in self.payloads.of(a)]
                self.terminate(a, a.grace_s)
            if a.term_at <= now:
                self.terminate(a, a.grace_s)
            if a.kill_at <= now:
                self.kill(a)
        self.due = min((a.due_s() for a in self.ledger.live.values()), default=inf)

    def terminate(self, a: Attempt, grace_s: float) -> None:
        """TERM, and KILL after the grace; once more, it can only come earlier."""
        first = a.phase != "stopping"
        a.kill_at = min(a.kill_at, time.monotonic() + grace_s)
        a.phase, a.linger_at, a.term_at = "stopping", inf, inf
        if first:
            self.send_term(a)
        self.go_on(a)  # TERM waits in what stands still
        self.arm(a)

    # ---- what may be asked of it before

    def pause(self, a: Attempt) -> None:
        """Not of what is on its way out, or about to end by itself."""
        if a.phase not in ("stopping", "checkpointing") and a.waits():
            pause(a, self.payloads, self.ledger)

    def go_on(self, a: Attempt) -> None:
        go_on(a, self.payloads, self.ledger)
        self.due = min(self.due, a.due_s())

    def checkpoint(self, a: Attempt, number: int, grace_s: float) -> None:
        """The signal, and a stop after the grace; once more, that can only come earlier. Not of
        what is on its way out, or has ended by itself and is not reaped yet."""
        everybody = self.payloads.of(a)
        shell_lives = any(p.pid == a.pid for p in everybody)
        counts = shell_lives or (a.linger_s == inf and everybody)
        if a.phase == "stopping" or not counts:
            return
        now = time.monotonic()
        first = a.phase != "checkpointing"
        a.phase, a.linger_at, a.stopped = "checkpointing", inf, True
        a.grace_s, a.term_at = grace_s, min(a.term_at, now + grace_s)
        self.ledger.note(a, a.line("checkpointing", grace_s=grace_s, clock_s=now))
        self.ledger.flush()
        # A shell, or the worker of a data loader, would die of it while the others save.
        meant = [p for p in everybody if catches(p, number)] or everybody
        for p in meant if first else ():
            send_signal(p, number)
            send_signal(p, SIGCONT)
        self.go_on(a)

    def terminate_all(self) -> None:
        """Each with its own grace: the machine is shut down, or somebody ends the runner."""
        for a in list(self.ledger.live.values()):
            a.stopped = True
            self.terminate(a, a.grace_s)

    def send_term(self, a: Attempt) -> None:
        """TERM to each process once; CONT, or TERM would wait for ever in what is stopped."""
        for p in self.payloads.of(a):
            if a.termed.get(p.pid) != p.ticks:
                a.termed[p.pid] = p.ticks
                send_signal(p, SIGTERM)
                send_signal(p, SIGCONT)

    def kill(self, a: Attempt) -> None:
        """One pass; what forks faster than it is met by the next."""
        left = self.payloads.of(a)
        a.killed += [str(p) for p in left if p.pid != a.pid and str(p) not in a.killed]
        if not (a.group and kill_group(a.group)):
            for p in left:
                send_signal(p, SIGKILL)
        a.kill_at = time.monotonic() + a.kill_pause_s
        a.kill_pause_s = min(2 * a.kill_pause_s, KILL_AT_MOST_EVERY_S)
        if not left and a.adopted:
            self.settle_adopted(a)

    # ---- ends

    def end(self, a: Attempt) -> None:
        if a.refusal:
            remove_empty(a.log)
            self.end_not_started(a, a.refusal, a.refusals.get(a.refusal, a.refusal))
        else:
            unassigned = list(self.payloads.unassigned.values())
            self.finish(a, "ended", a.ended_line(wall_ms(), unassigned))

    def end_not_started(self, a: Attempt, kind: str, why: str) -> None:
        line = a.line("not-started", at_ms=wall_ms(), kind=kind, why=why)
        self.finish(a, "not-started", line)

    def finish(self, a: Attempt, phase: str, line: bytes) -> None:
        a.limit_at = a.linger_at = a.term_at = a.kill_at = inf
        for fd in a.fds.values():
            self.loop.drop(fd)
        a.fds.clear()
        a.members.clear()
        if a.group:
            remove_group(a.group)
        self.over.pop(a.key, None)
        self.ledger.finish(a, phase, line)
        self.daemon.say_of(a.key, line)


def rusage_json(u: resource.struct_rusage) -> str:
    """os.wait4 would import `resource` when it is first called: that is why it is named here."""
    return (
        f'{{"user_s":{u.ru_utime!r},"system_s":{u.ru_stime!r},"max_rss_kib":{u.ru_maxrss},'
        f'"minor_faults":{u.ru_minflt},"major_faults":{u.ru_majflt},'
        f'"in_blocks":{u.ru_inblock},"out_blocks":{u.ru_oublock}}}'
    )


def remove_empty(path: bytes) -> None:
    try:
        if os.stat(path).st_size == 0:
            os.unlink(path)
    except OSError:
        pass
