"""The record of one attempt: what was asked, what is known, what is still to come.

Made by start.py from a `start`, by adopt.py from the `starting` line of a journal; kept in the
ledger. Must not act: it has no descriptor of its own making and writes nothing.
"""

import os
from math import inf

from gpud.runner.machine import BOOT_ID
from gpud.runner.wire import Message, encode, line_of, seconds, shown_seconds, whole

Key = tuple[int, int]

KILL_FIRST_S = 0.02  # between the first two passes of KILL; doubled with each


class Attempt:
    phase = "starting"
    pid: int | None = None
    adopted = False  # not our child: seen through pidfds, its exit cannot be known
    was_swept = False  # its payload got TERM again after the end of the shell
    exit: str | None = None  # of the shell, as JSON; None: it lives
    rusage = "null"  # of the shell, as JSON
    timed_out = stopped = False
    started_at_ms: int | None = None
    limit_at = linger_at = term_at = kill_at = inf  # on the monotonic clock
    paused_at: float | None = None  # the same clock; its other times do not count the pause
    paused_s = 0.0  # all pauses before
    kill_pause_s = KILL_FIRST_S
    gate: int | None = None  # the pipe of spawn.AS_USER, until the user's shell runs
    refusal = ""  # why that shell cannot run: a kind of `not-started`
    refusals: Message = {}
    log = b""
    why_lost = "the runner died while it ran"
    started = end = b""  # what the daemon is told (again)

    def __init__(self, m: Message) -> None:
        self.job, self.attempt = whole(m["job"]), whole(m["attempt"])
        self.key: Key = (self.job, self.attempt)
        self.grace_s = seconds(m.get("grace_s", 10.0))
        self.linger_s = seconds(m.get("linger_s", 10.0))
        self.time_limit_s = seconds(m.get("time_limit_s"))
        self.nonce: str = m.get("nonce") or os.urandom(16).hex()
        self.boot_id: str = m.get("boot_id") or BOOT_ID
        self.group: str | None = m.get("cgroup")
        self.clock_s = float(m.get("clock_s", 0))  # of its start
        self.members: dict[int, int] = {}  # pid and ticks of the payload as last seen
        self.termed: dict[int, int] = {}
        self.killed: list[str] = []
        self.fds: dict[int, int] = {}  # pidfds by pid; the cgroup's events under 0
        self.lines: list[bytes] = []  # its part of the journal

    def due_s(self) -> float:
        if self.paused_at is not None:
            return inf  # its time stands still; a stop would have continued it
        return min(self.limit_at, self.linger_at, self.term_at, self.kill_at)

    def shown_phase(self) -> str:
        return self.phase if self.paused_at is None else "paused"

    def waits(self) -> bool:
        """For something that a time limit is to end."""
        return self.exit is None or self.linger_s == inf

    # The lines that each attempt has are written by format: a third of the cost of encoding them.

    def starting_line(self) -> bytes:
        return (
            f'{{"ev":"starting","job":{self.job},"attempt":{self.attempt},"nonce":"{self.nonce}",'
            f'"boot_id":"{self.boot_id}","clock_s":{self.clock_s!r},'
            f'"cgroup":{encode(self.group) if self.group else "null"},'
            f'"grace_s":{shown_seconds(self.grace_s)},"linger_s":{shown_seconds(self.linger_s)},'
            f'"time_limit_s":{shown_seconds(self.time_limit_s)}}}\n'
        ).encode()

    def started_line(self, ticks: int) -> bytes:
        return (
            f'{{"ev":"started","job":{self.job},"attempt":{self.attempt},"pid":{self.pid},'
            f'"at_ms":{self.started_at_ms},"ticks":{ticks},"clock_s":{self.clock_s!r}}}\n'
        ).encode()

    def exited_line(self) -> bytes:
        return (
            f'{{"ev":"exited","job":{self.job},"attempt":{self.attempt},"exit":{self.exit},'
            f'"rusage":{self.rusage}}}\n'
        ).encode()

    def ended_line(self, at_ms: int, unassigned: list[str]) -> bytes:
        return (
            f'{{"ev":"ended","job":{self.job},"attempt":{self.attempt},"at_ms":{at_ms},'
            f'"started_at_ms":{self.started_at_ms or "null"},"exit":{self.exit},'
            f'"timed_out":{"true" if self.timed_out else "false"},'
            f'"stopped":{"true" if self.stopped else "false"},"rusage":{self.rusage},'
            f'"killed":{encode(self.killed) if self.killed else "[]"},'
            f'"unassigned":{encode(unassigned) if unassigned else "[]"}}}\n'
        ).encode()

    def line(self, ev: str, **members: object) -> bytes:
        return line_of({"ev": ev, "job": self.job, "attempt": self.attempt, **members})
