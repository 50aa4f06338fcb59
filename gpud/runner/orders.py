"""What the daemon orders: each op, checked, and passed to the one who does it.

Owned by main.py, called by link.py for each line of the daemon. A line that is wrong raises before
it has had any effect. Must not act itself.
"""

import os
from collections.abc import Iterator
from signal import NSIG, Signals

from gpud.runner import VERSION
from gpud.runner.attempt import Attempt
from gpud.runner.command import Command, Environ, environ_of
from gpud.runner.machine import BOOT_ID
from gpud.runner.processes import send_signal
from gpud.runner.start import Starter
from gpud.runner.wire import Message, line_of, raws, seconds, whole


class Orders:
    def __init__(self, starter: Starter) -> None:
        self.starter = starter
        self.endings = starter.endings
        self.ledger, self.daemon = self.endings.ledger, self.endings.daemon
        self.retiring = False
        self.base: Environ | None = {}  # what the starts of this connection add theirs to

    def greet(self) -> Iterator[bytes]:
        self.base = {}
        payload = "cgroup" if self.starter.groups.path else "session"
        attempts = self.ledger.listing()
        yield line_of({"ev": "hello", "runner": VERSION, "pid": os.getpid(), "boot_id": BOOT_ID,
                       "payload": payload, "attempts": attempts})  # fmt: skip
        for a in self.ledger.attempts.values():
            yield a.end

    def obey(self, m: Message) -> None:
        match m["op"]:
            case "start":
                self.start(Attempt(m), Command(m, self.base))
            case "forget":
                self.ledger.forget([(whole(job), whole(attempt)) for job, attempt in m["attempts"]])
            case "env":
                self.base = environ_of(raws(m["vars"]))
            case "stop" | "signal" | "limit" | "pause" | "continue" | "checkpoint" as op:
                a = self.ledger.attempts.get((whole(m["job"]), whole(m["attempt"])))
                if a is None:
                    self.daemon.say(
                        {"ev": "unknown", "job": m["job"], "attempt": m["attempt"], "op": op}
                    )
                elif a.end:
                    self.daemon.say_line(a.end)
                else:
                    self.change(a, m)
            case "list":
                self.daemon.say({"ev": "attempts", "attempts": self.ledger.listing()})
            case "retire":
                self.retiring = True
            case op:
                raise ValueError(f"there is no op {op!r}")

    def start(self, a: Attempt, c: Command) -> None:
        if known := self.ledger.attempts.get(a.key):
            self.daemon.say_line(known.end or known.started)
        elif a.key in self.ledger.forgotten:
            self.daemon.say_line(a.line("unknown", op="start", forgotten=True))
        elif self.retiring:
            self.daemon.say_line(a.line("unknown", op="start"))
        else:
            self.starter.start(a, c)

    def change(self, a: Attempt, m: Message) -> None:
        match m["op"]:
            case "stop":
                grace_s = seconds(m.get("grace_s", a.grace_s))
                a.stopped = True
                self.ledger.note(a, a.line("stopping", grace_s=m.get("grace_s", a.grace_s)))
                self.endings.terminate(a, grace_s)
            case "signal":
                named = Signals["SIG" + m["signal"]]
                for p in self.endings.payloads.of(a):
                    send_signal(p, named)
            case "pause":
                self.endings.pause(a)
            case "continue":
                self.endings.go_on(a)
            case "checkpoint":
                number = whole(m["signal"])
                if not 0 < number < NSIG:
                    raise ValueError(f"there is no signal {number}")
                self.endings.checkpoint(a, number, seconds(m.get("grace_s", a.grace_s)))
            case "limit":
                a.time_limit_s = seconds(m["time_limit_s"])
                self.ledger.note(a, a.line("limit", time_limit_s=m["time_limit_s"]))
                if a.waits():
                    self.endings.arm(a)
