"""A `start`: journal, cgroup, log, process; or a clear reason why not.

Owned by main.py, called by orders.py. Each attempt ends up running or as a `not-started`. Must not
wait for the payload.
"""

import os
import time

from gpud.runner.attempt import Attempt
from gpud.runner.cgroup import Groups
from gpud.runner.command import CannotStart, Command, Environ, User
from gpud.runner.ending import Endings, remove_empty
from gpud.runner.itself import Score
from gpud.runner.machine import boot_ticks, crash_at, wall_ms
from gpud.runner.processes import process
from gpud.runner.spawn import NULL_BYTE, SHORT_OF, reason, spawn, spawn_as
from gpud.runner.wire import shown

LOG_FLAGS = os.O_APPEND | os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
LOG_FLAGS |= os.O_NOCTTY | os.O_NOFOLLOW | os.O_NONBLOCK


class Starter:
    def __init__(self, endings: Endings, groups: Groups, score: Score) -> None:
        self.endings, self.groups, self.score = endings, groups, score
        self.ledger, self.payloads = endings.ledger, endings.payloads

    def start(self, a: Attempt, c: Command) -> None:
        """One that the ledger has never seen."""
        self.ledger.attempts[a.key] = self.ledger.live[a.key] = a
        if self.groups.path:
            a.group = f"{self.groups.path}/{a.job}.{a.attempt}-{a.nonce[:8]}"
        try:
            self.begin(a)
            self.run(a, c)
        except CannotStart as e:
            self.endings.end_not_started(a, e.kind, e.why)
        except ValueError:
            self.endings.end_not_started(a, "command", NULL_BYTE)
        except OSError as e:
            self.endings.end_not_started(a, "resources", f"the machine is short of something: {e}")

    def begin(self, a: Attempt) -> None:
        a.clock_s = time.monotonic()
        try:
            self.ledger.begin(a)
        except OSError as e:
            raise CannotStart("resources", f"the journal cannot be written: {e.strerror}") from e
        crash_at("after-starting")

    def run(self, a: Attempt, c: Command) -> None:
        environ = c.environ(a.nonce)
        output = open_log(c)
        before = boot_ticks()
        gate = -1
        try:
            if a.group:
                os.mkdir(a.group)
                self.groups.enter(a.group)
            self.score.restore()
            try:
                if c.user:
                    gate, a.pid = self.spawn_behind_gate(c.user, c, environ, output)
                else:
                    a.pid = spawn(c, environ, output)
            finally:
                self.score.lower()
                if a.group:
                    self.groups.leave()
        except BaseException:
            remove_empty(c.log)
            raise
        finally:
            os.close(output)
        self.on_spawned(a, a.pid, before)
        if c.user:
            self.watch_gate(a, c, gate)
        else:
            a.phase = "running"
            self.endings.daemon.say_soon(a.key, a.started)

    def on_spawned(self, a: Attempt, pid: int, ticks: int) -> None:
        """Written with the next `starting`, or at the end of the turn: until then only its nonce
        tells the process. Its start time is known without /proc (0.1 ms on a busy machine) if the
        spawn took place within one tick."""
        crash_at("before-started")
        self.payloads.shells[pid] = a
        if ticks != boot_ticks():
            p = process(pid)
            ticks = p.ticks if p else 0  # it has ended already
        a.members = {pid: ticks}
        a.clock_s, a.started_at_ms = time.monotonic(), wall_ms()
        a.started = a.started_line(ticks)
        self.ledger.note(a, a.started)
        self.endings.arm(a)

    def spawn_behind_gate(
        self, user: User, c: Command, environ: Environ, output: int
    ) -> tuple[int, int]:
        gate, gate_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return gate, spawn_as(user, c, environ, output, gate_in)
        except BaseException:
            os.close(gate)
            raise
        finally:
            os.close(gate_in)

    def watch_gate(self, a: Attempt, c: Command, gate: int) -> None:
        """`started` is told once the user's shell is about to run (Endings.on_gate)."""
        a.gate, a.log = gate, c.log
        a.refusals = {
            "cwd": f"the directory {shown(c.cwd)} does not exist or this user may not enter it",
            "shell": f"{shown(c.argv[0])} does not exist or this user may not execute it",
        }
        self.endings.loop.add(gate, lambda: self.endings.on_gate(a))


def open_log(c: Command) -> int:
    """Never through a link that a user laid there, never waiting at a FIFO."""
    try:
        try:
            fd = os.open(c.log, LOG_FLAGS, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(c.log), 0o700, exist_ok=True)
            fd = os.open(c.log, LOG_FLAGS, 0o600)
        os.set_blocking(fd, True)
        if c.user:
            os.fchown(fd, c.user.uid, c.user.gid if c.log_gid is None else c.log_gid)
            os.fchmod(fd, 0o600 if c.log_gid is None else 0o640)
        return fd
    except OSError as e:
        kind = "resources" if e.errno in SHORT_OF else "log"
        raise CannotStart(kind, f"the log {shown(c.log)} cannot be opened: {reason(e)}") from e
