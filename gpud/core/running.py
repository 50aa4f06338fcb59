"""What people ask of jobs that run: pause, continue, checkpoint.

Called by core/scheduler.py (`handle`). Each job is changed or refused with a sentence of its own.
A paused job keeps its lease. What is asked for here is repeated when the runner is met
(core/reconcile.py); it is not asked for while the runner cannot be reached, since a person who
reads "paused" relies on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gpud.core.actions import Action, Answer, ContinueAttempt, PauseAttempt
from gpud.core.events import CheckpointRequested, ContinueRequested, PauseRequested
from gpud.core.model import Attempt, JobId, Phase
from gpud.core.requests import absent, place_word
from gpud.core.state import State
from gpud.core.stops import save_and_leave, unpause

OLDER = "it was started by an older gpud, whose runner cannot do that"
NO_SIGNAL = "it does not say at which signal it saves its state (gpuctl submit --checkpoint)"


def on_pause(state: State, event: PauseRequested, now_ms: int) -> Sequence[Action]:
    def pause(attempt: Attempt) -> Sequence[Action]:
        if attempt.phase is not Phase.PAUSED:
            attempt.paused_at_ms = now_ms
            state.set_phase(state.jobs[attempt.job], Phase.PAUSED)
            state.tell(attempt.job, attempt.no, "paused", now_ms)
        return (PauseAttempt(attempt.job, attempt.no),)  # somebody may have continued it

    return _for_each(state, event, "pause", _why_not_now, pause)


def on_continue(state: State, event: ContinueRequested, now_ms: int) -> Sequence[Action]:
    def go_on(attempt: Attempt) -> Sequence[Action]:
        if attempt.phase is Phase.RUNNING:
            return ()
        unpause(attempt, now_ms)
        state.set_phase(state.jobs[attempt.job], Phase.RUNNING)
        state.tell(attempt.job, attempt.no, "continued", now_ms)
        return (ContinueAttempt(attempt.job, attempt.no),)

    return _for_each(state, event, "continue", lambda state, attempt: "", go_on)


def on_checkpoint(state: State, event: CheckpointRequested, now_ms: int) -> Sequence[Action]:
    def why_not(state: State, attempt: Attempt) -> str:
        no_signal = "" if state.jobs[attempt.job].checkpoint else NO_SIGNAL
        return no_signal or _why_not_now(state, attempt)

    def ask(attempt: Attempt) -> Sequence[Action]:
        return save_and_leave(state, attempt, "asked", now_ms, event.grace_s)

    return _for_each(state, event, "checkpoint", why_not, ask)


def _for_each(
    state: State,
    event: PauseRequested | ContinueRequested | CheckpointRequested,
    verb: str,
    why_not: Callable[[State, Attempt], str],
    act: Callable[[Attempt], Sequence[Action]],
) -> Sequence[Action]:
    actions: list[Action] = []
    changed, refused = [], []
    for job_id in dict.fromkeys(event.jobs):
        attempt = state.attempts.get(job_id)
        if attempt is not None and attempt.leaving and verb == "checkpoint":
            changed.append(job_id)  # it is on its way
        elif attempt is None or attempt.phase not in (Phase.RUNNING, Phase.PAUSED):
            refused.append((job_id, f"cannot {verb} job {job_id}: {_not_running(state, job_id)}"))
        elif why := why_not(state, attempt):
            refused.append((job_id, f"cannot {verb} job {job_id}: {why}"))
        else:
            actions += act(attempt)
            changed.append(job_id)
    actions.append(Answer(event.request, tuple(changed), refused=tuple(refused)))
    return actions


def _not_running(state: State, job_id: JobId) -> str:
    known = state.find(job_id) is not None
    return f"it is {place_word(state, job_id)}" if known else absent(state, job_id)


def _why_not_now(state: State, attempt: Attempt) -> str:
    if state.runner_problem:
        return state.runner_problem
    return OLDER if (attempt.job, attempt.no) in state.older else ""
