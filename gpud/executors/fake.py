"""An executor without processes: for tests and for `gpud simulate`.

`FakeRunner` is the runner with its journal: it outlives any number of daemons. `FakeExecutor` is
one daemon's door to it. Commands mean: `exit N` ends at once with N, `signal N` dies of it,
`oom cuda` of want of memory, `refuse` cannot be started, everything else runs until
`FakeRunner.end` or a stop. Passes the contract suite of executors.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpud.core.actions import (
    CheckpointAttempt,
    ContinueAttempt,
    PauseAttempt,
    StopAttempt,
)
from gpud.core.events import (
    AttemptEnded,
    AttemptNotStarted,
    AttemptStarted,
    KnownAttempt,
    RunnerGone,
    RunnerReady,
)
from gpud.core.model import Device, JobId
from gpud.ports import Launch, Post

Key = tuple[JobId, int]
End = AttemptEnded | AttemptNotStarted


class FakeRunner:
    """Knows every attempt it ever saw; `starts` counts, so that a test can ask for twos."""

    def __init__(self, boot_id: str = "boot-1") -> None:
        self.boot_id = boot_id
        self.now_ms = 0
        self.starts: dict[Key, int] = {}
        self.commands: dict[Key, bytes] = {}
        self.devices: dict[Key, tuple[Device, ...]] = {}
        self.live: dict[Key, int] = {}  # to its pid
        self.paused: set[Key] = set()
        self.resumed: list[Key] = []  # started with the word that they resume
        self.ends: dict[Key, End] = {}  # not yet forgotten
        self.listener: FakeExecutor | None = None

    def end(
        self,
        key: Key,
        *,
        exit_code: int | None = None,
        signal: int | None = None,
        oom: str = "",
        stopped: bool = False,
    ) -> None:
        del self.live[key]
        self.paused.discard(key)
        ended = AttemptEnded(
            *key, self.now_ms, exit_code=exit_code, signal=signal, oom=oom, stopped=stopped
        )
        self._report(key, ended)

    def reboot(self, boot_id: str) -> None:
        """Everything that ran is gone, and nobody will ever know how it ended."""
        self.boot_id = boot_id
        self.paused.clear()
        for key in list(self.live):
            del self.live[key]
            job, attempt = key
            self.ends[key] = AttemptEnded(
                job, attempt, self.now_ms, lost="the machine was restarted while it ran"
            )

    def start(self, launch: Launch) -> None:
        key = (launch.action.job, launch.action.attempt)
        if key in self.starts:
            if key in self.live and self.listener is not None:
                self.listener.post(AttemptStarted(*key, self.live[key], self.now_ms))
            return
        self.starts[key] = 1
        if launch.action.resume:
            self.resumed.append(key)
        self.commands[key], self.devices[key] = launch.spec.command, launch.devices
        word, _, number = launch.spec.command.partition(b" ")
        if word == b"refuse":
            self._report(key, AttemptNotStarted(*key, self.now_ms, "cwd", "there is no directory"))
            return
        self.live[key] = 1000 + len(self.starts)
        if self.listener is not None:
            self.listener.post(AttemptStarted(*key, self.live[key], self.now_ms))
        if word == b"exit":
            self.end(key, exit_code=int(number))
        elif word == b"signal":
            self.end(key, signal=int(number))
        elif word == b"oom":
            self.end(key, exit_code=1, oom=number.decode())

    def _report(self, key: Key, end: End) -> None:
        self.ends[key] = end
        if self.listener is not None:
            self.listener.post(end)


class FakeExecutor:
    """See gpud/ports.py, Executor."""

    def __init__(self, runner: FakeRunner, post: Post) -> None:
        self.runner = runner
        self.post = post

    def open(self) -> None:
        """Meet the runner; a newer daemon supersedes an older one."""
        runner = self.runner
        runner.listener = self
        known = [
            KnownAttempt(*key, "paused" if key in runner.paused else "running", pid)
            for key, pid in runner.live.items()
        ]
        known += [KnownAttempt(*key, "ended") for key in runner.ends]
        self.post(RunnerReady(runner.boot_id, tuple(known)))
        for end in list(runner.ends.values()):
            self.post(end)

    def close(self) -> None:
        if self.runner.listener is self:
            self.runner.listener = None

    def lose(self, why: str) -> None:
        """The connection breaks."""
        self.close()
        self.post(RunnerGone(why))

    def start(self, launch: Launch) -> None:
        if self.runner.listener is self:
            self.runner.start(launch)

    def stop(self, action: StopAttempt) -> None:
        key = (action.job, action.attempt)
        if self.runner.listener is self and key in self.runner.live:
            self.runner.end(key, signal=15, stopped=True)

    def pause(self, action: PauseAttempt) -> None:
        key = (action.job, action.attempt)
        if self.runner.listener is self and key in self.runner.live:
            self.runner.paused.add(key)

    def unpause(self, action: ContinueAttempt) -> None:
        if self.runner.listener is self:
            self.runner.paused.discard((action.job, action.attempt))

    def checkpoint(self, action: CheckpointAttempt) -> None:
        key = (action.job, action.attempt)
        if self.runner.listener is self and key in self.runner.live:
            self.runner.end(key, signal=action.signal, stopped=True)

    def flush(self) -> None:
        pass  # everything was done when it was asked for

    def forget(self, attempts: Sequence[Key]) -> None:
        if self.runner.listener is self:
            for key in attempts:
                self.runner.ends.pop(key, None)
