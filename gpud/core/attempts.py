"""What facts about attempts change: starts, leftovers, ends.

Called by core/scheduler.py (`handle`), core/sights.py and core/reconcile.py. A fact about an
attempt that is not live is stale: it is counted, forgotten at the runner, and changes nothing.

An attempt that ends badly on a GPU that can be looked at is not judged before the next look: where
the GPU turns out to be broken, the end is no fault of the job (core/setbacks.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from gpud.core import gating, setbacks
from gpud.core.actions import Action, ForgetAttempt, LookAtGpus
from gpud.core.events import AttemptEnded, AttemptLingering, AttemptNotStarted, AttemptStarted
from gpud.core.health import LOOK_WAIT_MS
from gpud.core.model import Attempt, JobId, JobState, Outcome, Phase
from gpud.core.retry import pause_ms, spread, wants_retry
from gpud.core.state import State
from gpud.core.stops import unpause
from gpud.core.usage import close

JUDGED_AFTER_A_LOOK = (Outcome.FAILED, Outcome.KILLED)
WITH_RUNNER = "it was ended with its runner: the machine was shut down, or somebody ended the jobs"
RESOURCES = "resources"  # the kind of a start that failed for want of memory, descriptors, space


def live_attempt(state: State, job: JobId, attempt: int) -> Attempt | None:
    """The attempt a fact is about, or None when the fact is stale (rule 3)."""
    live = state.attempts.get(job)
    if live is None or live.no != attempt:
        state.stale += 1
        return None
    return live


def on_attempt_started(state: State, event: AttemptStarted) -> Sequence[Action]:
    attempt = live_attempt(state, event.job, event.attempt)
    if attempt is None or attempt.started_at_ms:
        return ()
    state.shortage.end()
    attempt.started_at_ms, attempt.pid = event.at_ms, event.pid
    if attempt.phase is Phase.STARTING:
        state.set_phase(state.jobs[event.job], Phase.RUNNING)
    state.touch_attempt(attempt)
    state.tell(event.job, event.attempt, "started", event.at_ms, pid=event.pid)
    return ()


def on_attempt_lingering(state: State, event: AttemptLingering) -> Sequence[Action]:
    if live_attempt(state, event.job, event.attempt) is not None:
        state.tell(
            event.job, event.attempt, "lingering", event.at_ms, processes=list(event.processes)
        )
    return ()


def on_attempt_not_started(state: State, event: AttemptNotStarted, now_ms: int) -> Sequence[Action]:
    attempt = live_attempt(state, event.job, event.attempt)
    if attempt is not None:
        attempt.ended_at_ms = event.at_ms
        if event.kind == RESOURCES and attempt.phase is not Phase.STOPPING:
            start_later(state, attempt, event.why, now_ms)
        else:
            end(state, attempt, Outcome.NOT_STARTED, event.why, now_ms)
    return (ForgetAttempt(event.job, event.attempt),)


def on_attempt_ended(state: State, event: AttemptEnded, now_ms: int) -> Sequence[Action]:
    attempt = live_attempt(state, event.job, event.attempt)
    if attempt is not None and attempt.phase is not Phase.FINISHING:
        unpause(attempt, event.at_ms)
        if attempt.leaving and not event.stopped and event.lost is None:
            forget_checkpoint(state, attempt)
        attempt.ended_at_ms = event.at_ms
        attempt.exit_code, attempt.signal = event.exit_code, event.signal
        attempt.rusage = event.rusage
        if event.killed:
            names = list(event.killed)
            state.tell(event.job, event.attempt, "killed-leftovers", event.at_ms, processes=names)
        if event.unassigned:
            names = list(event.unassigned)
            state.tell(event.job, event.attempt, "unassigned", event.at_ms, processes=names)
        attempt.oom = event.oom
        note_usage(state, attempt, event.likeness)
        outcome, why = outcome_of(event), event.lost or ""
        if ended_with_runner(attempt, event):
            outcome, why = Outcome.LOST, WITH_RUNNER
        if outcome in JUDGED_AFTER_A_LOOK and setbacks.can_be_looked_at(state, attempt):
            state.set_phase(state.jobs[event.job], Phase.FINISHING)
            return (ForgetAttempt(event.job, event.attempt), LookAtGpus())
        end(state, attempt, outcome, why, now_ms)
    return (ForgetAttempt(event.job, event.attempt),)


def ended_with_runner(attempt: Attempt, event: AttemptEnded) -> bool:
    """The runner was told to end, and stopped it: nobody asked for that here, and what it would
    have come to, nobody knows, whatever it made of its grace."""
    asked_for = attempt.phase is Phase.STOPPING
    return event.stopped and event.lost is None and not event.timed_out and not asked_for


def forget_checkpoint(state: State, attempt: Attempt) -> None:
    """It has ended by itself, before the signal reached it: an end like any other."""
    attempt.leaving, attempt.stop_why, attempt.stop_grace_s = False, "", None
    state.set_phase(state.jobs[attempt.job], Phase.RUNNING)


def note_usage(state: State, attempt: Attempt, likeness: str) -> None:
    """What it used is complete; what it took of the memory is remembered for its like."""
    used = attempt.usage
    if used is None:
        return
    for part, uuid in state.parts_of(attempt):
        gpu = state.health.of(uuid)
        if gpu.sight is not None:
            gpu.claimed_mj += close(used, part, gpu.sight, attempt.ended_at_ms)
    if likeness and used.peak_mib > state.pool.usual_mib.get(likeness, 0):
        state.learn(likeness, used.peak_mib)


def finish_after_look(state: State, now_ms: int) -> Sequence[Action]:
    """Attempts that waited for a look at their GPUs: now there is one, or there will be none."""
    for attempt in [state.attempts[job] for job in sorted(state.finishing)]:
        if attempt.ended_at_ms > now_ms:  # the clock was set back
            attempt.ended_at_ms = now_ms
            state.touch_attempt(attempt)
        late = now_ms - attempt.ended_at_ms >= LOOK_WAIT_MS
        if late or setbacks.was_looked_at(state, attempt):
            outcome = Outcome.KILLED if attempt.signal is not None else Outcome.FAILED
            end(state, attempt, outcome, "", now_ms)
    return ()


def start_later(state: State, attempt: Attempt, why: str, now_ms: int) -> None:
    """The machine was short of something: no fault of the job, and none of its retries."""
    attempt.outcome, attempt.why = Outcome.NOT_STARTED, why
    state.shortage.begin(why, now_ms)
    state.requeue(state.jobs[attempt.job])
    outcome, again = Outcome.NOT_STARTED.value, state.shortage.until_ms
    state.tell(
        attempt.job, attempt.no, "ended", now_ms, outcome=outcome, why=why, retry_at_ms=again
    )
    gating.hold_if_tripped(state, state.jobs[attempt.job], now_ms)


def outcome_of(event: AttemptEnded) -> Outcome:
    if event.lost is not None:
        return Outcome.LOST
    if event.timed_out:
        return Outcome.TIMED_OUT
    if event.signal is not None:
        return Outcome.KILLED
    return Outcome.SUCCEEDED if event.exit_code == 0 else Outcome.FAILED


def end(state: State, attempt: Attempt, outcome: Outcome, why: str, now_ms: int) -> None:
    """The attempt is over: its lease is free, its job is done or queued again."""
    job = state.jobs[attempt.job]
    attempt.ended_at_ms = attempt.ended_at_ms or now_ms
    if attempt.phase is Phase.STOPPING:
        # whatever the end was: a person asked for it, or gpud
        if not attempt.stop_why:
            outcome = Outcome.CANCELLED
        elif outcome is not Outcome.LOST:
            outcome, why = Outcome.KILLED, setbacks.STOPS[attempt.stop_why]
    elif outcome in JUDGED_AFTER_A_LOOK:
        why = why or setbacks.OOM.get(attempt.oom, "")
    sick = setbacks.sick_gpu(state, attempt) if outcome in setbacks.EXCUSED else ""
    attempt.outcome, attempt.why = outcome, why = outcome, sick or why
    detail: dict[str, object] = {"outcome": outcome.value}
    if why:
        detail["why"] = why
    if attempt.exit_code is not None:
        detail["exit_code"] = attempt.exit_code
    if attempt.signal is not None:
        detail["signal"] = attempt.signal
    if attempt.leaving:
        job.resume = job.resume or attempt.started_at_ms > 0
        state.requeue(job)
        detail["retry_at_ms"] = now_ms
    elif attempt.stop_why == "guest":
        if setbacks.leave_guest(state, job):
            detail["retry_at_ms"] = now_ms
    elif setbacks.is_excused(job, outcome, sick):
        job.setbacks += 1
        state.requeue(job)
        detail["retry_at_ms"] = now_ms
    elif wants_retry(job, attempt, outcome):
        if attempt.oom == "cuda":
            detail["more"] = setbacks.with_more_memory(state, job, attempt)
        job.retries_left -= 1
        job.retry_no += 1
        pause = spread(pause_ms(job.retry, job.retry_no), job.id, job.retry_no)
        state.requeue(job, now_ms + pause if pause else 0)
        detail["retry_at_ms"] = now_ms + pause
    else:
        state.finish(job, outcome, why, attempt.ended_at_ms)
    state.tell(job.id, attempt.no, "ended", attempt.ended_at_ms, **detail)
    if job.state is JobState.QUEUED:
        gating.hold_if_tripped(state, job, now_ms)
    elif job.state is JobState.DONE:
        gating.note_end(state, job, attempt, outcome, now_ms)
