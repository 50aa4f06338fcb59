"""Ways to take a live attempt off its GPUs: gpud's own stop, and the checkpoint.

Called by core/sights.py and core/running.py. A checkpoint is for jobs that said at which signal
they save their state and leave: it gets that signal, its grace to act on it, then TERM, and KILL
after the grace once more. However the attempt ends then, its job is queued again and keeps its
retries (core/attempts.py), and its later attempts are told to resume. A person's cancel goes before
both.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpud.core.actions import Action, CheckpointAttempt, StopAttempt
from gpud.core.model import Attempt, JobId, Phase
from gpud.core.state import State

GOING_ON = (Phase.STARTING, Phase.RUNNING, Phase.PAUSED)


def stop(
    state: State, attempt: Attempt, why: str, at_ms: int, **detail: object
) -> Sequence[Action]:
    """gpud's own stop. `why`: a key of setbacks.STOPS."""
    if attempt.phase not in GOING_ON:
        return ()
    job = state.jobs[attempt.job]
    unpause(attempt, at_ms)
    attempt.stop_why, attempt.stop_grace_s = why, job.grace_s
    state.set_phase(job, Phase.STOPPING)
    state.tell(JobId(job.id), attempt.no, "stopped-by-gpud", at_ms, reason=why, **detail)
    return (StopAttempt(job.id, attempt.no, job.grace_s),)


def save_and_leave(
    state: State,
    attempt: Attempt,
    why: str,
    at_ms: int,
    grace_s: float | None = None,
    **detail: object,
) -> Sequence[Action]:
    """Ask for a checkpoint. Only of a job with a signal for it; nothing when the attempt is on its
    way out already. `why`: a key of setbacks.STOPS; `grace_s` None: the job's."""
    if attempt.phase not in GOING_ON:
        return ()
    job = state.jobs[attempt.job]
    unpause(attempt, at_ms)
    attempt.stop_why, attempt.leaving = why, True
    attempt.stop_grace_s = job.grace_s if grace_s is None else grace_s
    state.set_phase(job, Phase.STOPPING)
    state.tell(
        JobId(job.id), attempt.no, "checkpoint-requested", at_ms,
        reason=why, signal=job.checkpoint, grace_s=attempt.stop_grace_s, **detail,
    )  # fmt: skip
    return (CheckpointAttempt(job.id, attempt.no, job.checkpoint, attempt.stop_grace_s),)


def unpause(attempt: Attempt, at_ms: int) -> None:
    """Its pause, if it is in one, is over: for so long its time stood still."""
    if attempt.paused_at_ms:
        attempt.paused_ms += max(0, at_ms - attempt.paused_at_ms)
        attempt.paused_at_ms = 0
