"""The verbs that change something: what is asked of the daemon, and its answer as one reply.

Called by control/verbs.py. The core decides about every single job; here it is only decided which
jobs it is asked about, and which of its refusals are worth telling.
"""

from __future__ import annotations

from gpud.control.choice import choose_apart
from gpud.control.fields import seconds, text_of
from gpud.control.gpu_names import meant
from gpud.core.events import (
    CancelRequested,
    CheckpointRequested,
    ContinueRequested,
    DrainRequested,
    Event,
    HealRequested,
    HoldRequested,
    PauseRequested,
    ReleaseRequested,
    RetryRequested,
    UndrainRequested,
)
from gpud.core.model import JobId, JobState, Phase
from gpud.core.state import State
from gpud.core.watching import device_problems
from gpud.errors import GpudError
from gpud.ports import Controlled
from gpud.protocol.replies import (
    Cancelled,
    Changed,
    Checkpointed,
    Continued,
    Drained,
    Healed,
    HeldReply,
    Paused,
    RefusedView,
    Released,
    Retried,
    SourceStarted,
    SourceStopped,
    Undrained,
)
from gpud.protocol.requests import (
    Cancel,
    Checkpoint,
    Continue,
    Drain,
    Heal,
    Hold,
    Pause,
    Release,
    Retry,
    SourceStart,
    SourceStop,
    Undrain,
)
from gpud.protocol.text import Text

Change = Cancel | Retry | Hold | Release | Pause | Continue | Checkpoint

VERB = {
    Cancel: "cancel",
    Retry: "retry",
    Hold: "hold",
    Release: "release",
    Pause: "pause",
    Continue: "continue",
    Checkpoint: "checkpoint",
}
REPLY: dict[type[Change], type[Changed]] = {
    Cancel: Cancelled,
    Retry: Retried,
    Hold: HeldReply,
    Release: Released,
    Pause: Paused,
    Continue: Continued,
    Checkpoint: Checkpointed,
}


async def change(daemon: Controlled, request: Change) -> Changed:
    """Raises GpudError (not-found) when the selectors match no job; a job that they match and the
    verb does not apply to is refused when it was named by itself, else left out."""
    verb = type(request)
    args = None
    if isinstance(request, Cancel | Checkpoint) and request.grace_s is not None:
        _check_grace(VERB[verb], request.grace_s)
    elif isinstance(request, Retry) and request.args is not None:
        args = _args(request.args)
    single, under = choose_apart(daemon.store, VERB[verb], request.jobs)
    applicable = (job for job in under if _applies(daemon.state, verb, job))
    jobs = tuple(sorted({*single, *applicable}))
    if not jobs:
        return REPLY[verb](id=request.id, jobs=())
    answer = await daemon.ask(lambda number: _event(request, number, jobs, args))
    named = set(single)
    refused = (RefusedView(job, why) for job, why in answer.refused if job in named)
    return REPLY[verb](id=request.id, jobs=answer.jobs, refused=tuple(refused))


async def drain(daemon: Controlled, request: Drain) -> Drained:
    await daemon.ask(DrainRequested)
    return Drained(id=request.id, active=len(daemon.state.attempts))


async def undrain(daemon: Controlled, request: Undrain) -> Undrained:
    await daemon.ask(UndrainRequested)
    return Undrained(id=request.id)


async def heal(daemon: Controlled, request: Heal) -> Healed:
    """Raises GpudError for a word that means no GPU that gpud looks at, or may mean several."""
    state = daemon.state
    gpus = tuple(dict.fromkeys(gpu for word in request.gpus for gpu in meant(state.pool, word)))
    afresh = bool(gpus or state.pool.unknown or device_problems(state))
    answer = await daemon.ask(lambda number: HealRequested(number, gpus))
    return Healed(id=request.id, count=answer.count, afresh=afresh)


async def switch_source(
    daemon: Controlled, request: SourceStop | SourceStart
) -> SourceStopped | SourceStarted:
    """Returns once nothing more is read from it, or it is being read again."""
    stopped = isinstance(request, SourceStop)
    await daemon.switch_source(request.name, stopped=stopped)
    if stopped:
        return SourceStopped(id=request.id, name=request.name)
    return SourceStarted(id=request.id, name=request.name)


def _check_grace(verb: str, grace_s: float) -> None:
    try:
        seconds(grace_s, "grace_s")
    except GpudError as error:
        raise GpudError(f"cannot {verb}: {error.message}", kind=error.kind) from error


def _args(value: Text) -> bytes:
    try:
        return text_of(value, "args")
    except GpudError as error:
        raise GpudError(f"cannot retry: {error.message}", kind="usage") from error


def _applies(state: State, verb: type[Change], job: JobId) -> bool:
    record = state.find(job)
    if verb is Retry:
        return record is None
    if record is None:
        return False
    if verb is Hold:
        return record.state is JobState.QUEUED
    if verb in (Pause, Continue, Checkpoint):
        return _can_be_interrupted(state, verb, job)
    return verb is Cancel or record.state is JobState.HELD


def _can_be_interrupted(state: State, verb: type[Change], job: JobId) -> bool:
    attempt = state.attempts.get(job)
    phase = None if attempt is None else attempt.phase
    if verb is Checkpoint:
        return phase in (Phase.RUNNING, Phase.PAUSED) and state.jobs[job].checkpoint > 0
    return phase is (Phase.RUNNING if verb is Pause else Phase.PAUSED)


def _event(request: Change, number: int, jobs: tuple[JobId, ...], args: bytes | None) -> Event:
    match request:
        case Cancel():
            return CancelRequested(number, jobs, request.grace_s)
        case Retry():
            return RetryRequested(number, jobs, args=args)
        case Hold():
            return HoldRequested(number, jobs)
        case Release():
            return ReleaseRequested(number, jobs)
        case Pause():
            return PauseRequested(number, jobs)
        case Continue():
            return ContinueRequested(number, jobs)
        case Checkpoint():
            return CheckpointRequested(number, jobs, request.grace_s)
