"""The runner's protocol as the daemon sees it (docs/runner-protocol.md): messages and their facts.

Called by executors/link.py. Pure: bytes to structs, structs to core events.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from gpud.core.events import (
    AttemptEnded,
    AttemptLingering,
    AttemptNotStarted,
    AttemptStarted,
    KnownAttempt,
)
from gpud.core.model import JobId, Rusage
from gpud.protocol.text import Text


class EnvOp(Struct, frozen=True, tag_field="op", tag="env"):
    """What the starts after it, on the same connection, add their own `env` to."""

    vars: list[Text]


class UserOp(Struct, frozen=True):
    """Another user than the runner's."""

    uid: int
    gid: int
    groups: tuple[int, ...]


class StartOp(Struct, frozen=True, tag_field="op", tag="start", omit_defaults=True):
    job: int
    attempt: int
    argv: list[Text]
    cwd: Text
    env: list[Text]
    log: Text
    grace_s: float
    linger_s: float | None  # None: wait
    time_limit_s: float | None = None
    umask: int | None = None
    user: UserOp | None = None
    log_gid: int | None = None  # the group that may read the log of another user's job


class Exit(Struct, frozen=True):
    code: int | None = None
    signal: int | None = None
    lost: str | None = None


class RunnerMessage(Struct, frozen=True, tag_field="ev"):
    pass


class Listed(Struct, frozen=True):
    job: int
    attempt: int
    phase: str
    pid: int | None = None  # None: no process was made, or the runner died while making it


class HelloMessage(RunnerMessage, frozen=True, tag="hello"):
    runner: int
    pid: int
    boot_id: str
    payload: Literal["cgroup", "session"]
    attempts: tuple[Listed, ...]

    def known(self, *, older: bool = False) -> list[KnownAttempt]:
        return [
            KnownAttempt(JobId(a.job), a.attempt, a.phase, a.pid or 0, older) for a in self.attempts
        ]


class AttemptsMessage(RunnerMessage, frozen=True, tag="attempts"):
    attempts: tuple[Listed, ...]


class StartedMessage(RunnerMessage, frozen=True, tag="started"):
    job: int
    attempt: int
    pid: int
    at_ms: int


class LingeringMessage(RunnerMessage, frozen=True, tag="lingering"):
    job: int
    attempt: int
    at_ms: int
    processes: tuple[str, ...] = ()


class EndedMessage(RunnerMessage, frozen=True, tag="ended"):
    job: int
    attempt: int
    at_ms: int
    exit: Exit
    started_at_ms: int | None = None  # None: the runner died while starting it
    timed_out: bool = False
    stopped: bool = False
    rusage: Rusage | None = None
    killed: tuple[str, ...] = ()
    unassigned: tuple[str, ...] = ()


class NotStartedMessage(RunnerMessage, frozen=True, tag="not-started"):
    job: int
    attempt: int
    at_ms: int
    kind: str
    why: str


class UnknownMessage(RunnerMessage, frozen=True, tag="unknown"):
    job: int
    attempt: int
    op: str
    forgotten: bool = False  # it was there, and a daemon has said that it knows its end


class RefusedMessage(RunnerMessage, frozen=True, tag="refused"):
    why: str


AnyMessage = (
    HelloMessage
    | AttemptsMessage
    | StartedMessage
    | LingeringMessage
    | EndedMessage
    | NotStartedMessage
    | UnknownMessage
    | RefusedMessage
)
Fact = AttemptStarted | AttemptLingering | AttemptEnded | AttemptNotStarted

_decoder = msgspec.json.Decoder(AnyMessage)
encode = msgspec.json.Encoder().encode


def decode(line: bytes) -> AnyMessage:
    """Raises msgspec.DecodeError for a line that is no message of the runner."""
    message: AnyMessage = _decoder.decode(line)
    return message


def fact_of(message: AnyMessage, oom: str = "") -> Fact | None:
    """The core's event for a message about one attempt; None for the others. `oom`: of its end."""
    match message:
        case EndedMessage(job=job, attempt=attempt, at_ms=at_ms, exit=status):
            return AttemptEnded(
                JobId(job),
                attempt,
                at_ms,
                exit_code=status.code,
                signal=status.signal,
                lost=status.lost,
                timed_out=message.timed_out,
                stopped=message.stopped,
                rusage=message.rusage,
                killed=message.killed,
                unassigned=message.unassigned,
                oom=oom,
            )
        case StartedMessage(job=job, attempt=attempt, pid=pid, at_ms=at_ms):
            return AttemptStarted(JobId(job), attempt, pid, at_ms)
        case LingeringMessage(job=job, attempt=attempt, at_ms=at_ms, processes=processes):
            return AttemptLingering(JobId(job), attempt, at_ms, processes)
        case NotStartedMessage(job=job, attempt=attempt, at_ms=at_ms, kind=kind, why=why):
            return AttemptNotStarted(JobId(job), attempt, at_ms, kind, why)
        case UnknownMessage(job=job, attempt=attempt, forgotten=True):
            why = "the runner has had this attempt before, and a daemon knew how it ended"
            return AttemptEnded(JobId(job), attempt, 0, lost=why)
        case UnknownMessage(job=job, attempt=attempt, op="stop"):
            return AttemptEnded(JobId(job), attempt, 0, lost="the runner does not have it")
        case _:
            return None
