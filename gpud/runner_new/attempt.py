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
    limit_at = linger_at = kill_at = inf  # on the monotonic clock
    kill_pause_s = KILL_FIRST_S
    gate: int | None = None  # the pipe of start.AS_USER, until the user's shell runs
    refusal = ""  # why that shell cannot run: a kind of `not-started`
    refusals: Message = {}
    log = b""
    why_lost = "the runner died while it ran"
    started = end = b""  # what the daemon is told (again)

    def __init__(self, m: Message) -> None:
        self.key: Key = (whole(m["job"]), whole(m["attempt"]))
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
        return min(self.limit_at, self.linger_at, self.kill_at)

    def waits(self) -> bool:
        """For something that a time limit is to end."""
        return self.exit is None or self.linger_s == inf

    def is_our_child(self) -> bool:
        return not self.adopted

    # The lines that each attempt has are written by format: a third of the cost of encoding them.

    def starting_line(self) -> bytes:
        return b'{"ev":"starting","job":%d,"attempt":%d,%b\n' % (
            *self.key,
            (
                f'"nonce":"{self.nonce}","boot_id":"{self.boot_id}","clock_s":{self.clock_s!r},'
                f'"cgroup":{encode(self.group) if self.group else "null"},'
                f'"grace_s":{shown_seconds(self.grace_s)},'
                f'"linger_s":{shown_seconds(self.linger_s)},'
                f'"time_limit_s":{shown_seconds(self.time_limit_s)}}}'
            ).encode(),
        )

    def started_line(self, ticks: int) -> bytes:
        return (
            '{"ev":"started","job":%d,"attempt":%d,"pid":%d,"at_ms":%d,"ticks":%d,"clock_s":%r}\n'
            % (*self.key, self.pid, self.started_at_ms, ticks, self.clock_s)
        ).encode()

    def ended_line(self, at_ms: int, unassigned: list[str]) -> bytes:
        job, attempt = self.key
        return (
            f'{{"ev":"ended","job":{job},"attempt":{attempt},"at_ms":{at_ms},'
            f'"started_at_ms":{self.started_at_ms or "null"},"exit":{self.exit},'
            f'"timed_out":{"true" if self.timed_out else "false"},'
            f'"stopped":{"true" if self.stopped else "false"},"rusage":{self.rusage},'
            f'"killed":{encode(self.killed)},"unassigned":{encode(unassigned)}}}\n'
        ).encode()

    def line(self, ev: str, **members: object) -> bytes:
        return line_of({"ev": ev, "job": self.key[0], "attempt": self.key[1], **members})
