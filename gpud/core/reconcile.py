"""After a meeting with the runner: what became of the attempts we believe to be live.

Called by core/scheduler.py for `RunnerReady` (the daemon or the runner has restarted, or the
connection was lost). The runner's word is the truth for what it knows; what it does not know was
either never sent, or can no longer be known.

| our attempt | the runner knows it | it does not |
| --- | --- | --- |
| dispatched under another boot id | — | lost: the machine was restarted |
| starting, same boot | sent again: it answers with what it knows | never arrived: sent again |
| stopping, never started, same boot | stopped again | it never ran: cancelled, or queued again |
| starting, on a device that has left the pool | | not started |
| else, same boot | adopted, what was asked of it repeated | lost: nobody has seen its end |
| finishing | its end is known already | the same |

Sending a start again is safe: the runner's journal fences it.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpud.core import quarantines
from gpud.core.actions import (
    Action,
    CheckpointAttempt,
    ContinueAttempt,
    LookAtGpus,
    PauseAttempt,
    StartAttempt,
    StopAttempt,
)
from gpud.core.attempts import end
from gpud.core.events import RunnerReady
from gpud.core.model import Attempt, JobId, Outcome, Phase
from gpud.core.state import State

REBOOTED = "the machine was restarted while it ran"
UNSEEN = "the runner has no record of it, so nobody knows how it ended"
NO_DEVICE = "its device has left the pool"
NEVER_SENT = "cancelled before it was started"


def on_runner_ready(state: State, event: RunnerReady, now_ms: int) -> Sequence[Action]:
    state.boot_id, state.runner_problem = event.boot_id, ""
    known = {(k.job, k.attempt): k for k in event.known}
    state.older = {key for key, found in known.items() if found.older}
    latest = max((k.job for k in event.known), default=0)
    if latest >= state.next_id:  # of a database that was put back: its ids are not given out again
        state.next_id = state.changes.next_id = JobId(latest + 1)
    actions: list[Action] = []
    for attempt in list(state.attempts.values()):
        found = known.get((attempt.job, attempt.no))
        if attempt.phase is Phase.FINISHING:
            continue
        if found is None:
            actions += on_unknown_to_runner(state, attempt, now_ms)
        elif attempt.phase is Phase.STOPPING:
            actions.append(stop(state, attempt))
        elif attempt.phase is Phase.STARTING and attempt.boot_id == state.boot_id:
            actions.append(start(state, attempt))
        elif attempt.phase is Phase.PAUSED:
            actions.append(PauseAttempt(attempt.job, attempt.no))
        elif found.phase == "paused":
            actions.append(ContinueAttempt(attempt.job, attempt.no))
    quarantines.on_boot_known(state, now_ms)  # after the ends, which may be the fault of a GPU
    if state.finishing:
        actions.append(LookAtGpus())
    return actions


def on_unknown_to_runner(state: State, attempt: Attempt, now_ms: int) -> Sequence[Action]:
    if attempt.boot_id != state.boot_id:
        end(state, attempt, Outcome.LOST, REBOOTED, now_ms)
    elif attempt.started_at_ms:
        end(state, attempt, Outcome.LOST, UNSEEN, now_ms)
    elif attempt.phase is Phase.STOPPING:
        end(state, attempt, Outcome.CANCELLED, NEVER_SENT, now_ms)
    elif any(part.device not in state.pool.devices for part in attempt.lease):
        end(state, attempt, Outcome.NOT_STARTED, NO_DEVICE, now_ms)
    else:
        return (start(state, attempt),)
    return ()


def start(state: State, attempt: Attempt) -> StartAttempt:
    job = state.jobs[attempt.job]
    return StartAttempt(attempt.job, attempt.no, attempt.lease, job.retry_args, job.resume)


def stop(state: State, attempt: Attempt) -> StopAttempt | CheckpointAttempt:
    job, grace_s = state.jobs[attempt.job], attempt.stop_grace_s
    if grace_s is None:
        grace_s = job.grace_s
    if attempt.leaving:
        return CheckpointAttempt(attempt.job, attempt.no, job.checkpoint, grace_s)
    return StopAttempt(attempt.job, attempt.no, grace_s)
