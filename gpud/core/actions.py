"""What the core wants done, in the imperative. Frozen and tagged; performed only after the commit.

Returned by `scheduler.handle` and `dispatching.dispatch`, performed by the engine. Each is
idempotent: performing it again after a crash changes nothing.
"""

from __future__ import annotations

from msgspec import Struct

from gpud.core.model import JobId, LeasePart


class Action(Struct, frozen=True, tag_field="action", tag=True):
    pass


class StartAttempt(Action, frozen=True):
    job: JobId
    attempt: int
    lease: tuple[LeasePart, ...]
    retry_args: bytes | None = None  # of a person's retry: in the place of the spec's
    resume: bool = False  # an earlier attempt was asked to save its state


class StopAttempt(Action, frozen=True):
    job: JobId
    attempt: int
    grace_s: float


class PauseAttempt(Action, frozen=True):
    """All its processes stand still, and its time limit with them."""

    job: JobId
    attempt: int


class ContinueAttempt(Action, frozen=True):
    job: JobId
    attempt: int


class CheckpointAttempt(Action, frozen=True):
    """It gets the signal at which it saves its state and leaves; after the grace it is stopped. A
    paused one is continued."""

    job: JobId
    attempt: int
    signal: int
    grace_s: float


class ForgetAttempt(Action, frozen=True):
    """The end of this attempt is committed: the runner need not repeat it."""

    job: JobId
    attempt: int


class LookAtGpus(Action, frozen=True):
    """Jobs wait for GPUs that nobody has looked at lately; a `GpusSeen` is the reply. `afresh`: at
    those, too, at which the driver hung before."""

    afresh: bool = False


class Answer(Action, frozen=True):
    """`jobs`: ids that were changed or made. `refused`: (id, sentence) of those that were not."""

    request: int
    jobs: tuple[JobId, ...] = ()
    count: int = 0  # a submit's ids are `count` contiguous ones from jobs[0] on
    refused: tuple[tuple[JobId, str], ...] = ()
    priorities: tuple[tuple[JobId, int], ...] = ()  # of jobs that got another one by a move
    again: bool = False  # an earlier submit with the same key is answered once more


class Refuse(Action, frozen=True):
    request: int
    kind: str
    message: str
    hint: str = ""
