"""What people and sources ask for, and the answer each gets.

Called by core/scheduler.py (`handle`). A request names many jobs: each is changed or refused with
a sentence of its own; a submit is taken as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gpud.core.actions import Action, Answer, Refuse, StopAttempt
from gpud.core.attempts import end
from gpud.core.changes import NewSubmission
from gpud.core.circles import circular
from gpud.core.dependencies import impossible, outcome_now
from gpud.core.events import (
    CancelRequested,
    EntriesRead,
    HoldRequested,
    JobsSubmitted,
    ReleaseRequested,
    RetryRequested,
    SourceSwitched,
)
from gpud.core.indices import size
from gpud.core.links import OutcomeOf, nobody_knows, with_ids
from gpud.core.model import (
    After,
    Job,
    JobId,
    JobSpec,
    JobState,
    NewJob,
    Outcome,
    Phase,
    Request,
    Span,
)
from gpud.core.placement import unsatisfiable
from gpud.core.shape import last_start_ms
from gpud.core.spans import each, spans_of
from gpud.core.state import State
from gpud.core.stops import unpause


def on_jobs_submitted(state: State, event: JobsSubmitted, now_ms: int) -> Sequence[Action]:
    if event.key:
        held = state.changes.submissions.get(event.key)
        earlier = (held.first, held.count, held.digest) if held else event.earlier
        if earlier is not None:
            first, count, digest = earlier
            if digest == event.digest:
                return (Answer(event.request, (JobId(first),), count, again=True),)
            return (
                Refuse(
                    event.request,
                    "refused",
                    f'cannot submit with key "{event.key}": it was used for a different submit, '
                    f"job {first}",
                ),
            )
    if not event.jobs:
        return (Refuse(event.request, "usage", "cannot submit: there is no job in it"),)
    outcome_of = outcome_now(state, event.outcomes)
    bad: dict[Request, str] = {}
    numbered = numbered_jobs(state, event.jobs)
    for number, ((job_id, spans), new) in enumerate(zip(numbered, event.jobs, strict=True)):
        spec = new.spec
        if (why := bad.get(spec.request)) is None:
            why = bad[spec.request] = unsatisfiable(state.pool, spec.request)
        if not why and spec.deadline_ms and is_too_late(spec, now_ms):
            why = "it cannot be done by its deadline"
        if not why and spec.after.spans:
            why = impossible(state, After(spans, spec.after.patient), outcome_of, job_id)
        if why:
            which = f"job {number + 1}: " if len(event.jobs) > 1 else ""
            return (Refuse(event.request, "refused", f"cannot submit: {which}{why}"),)
    first = add_all(state, event.jobs, now_ms, outcome_of)
    if event.key:
        state.changes.submissions[event.key] = NewSubmission(
            event.key, event.digest, first, state.next_id - first
        )
    return (Answer(event.request, (first,), state.next_id - first),)


def on_entries_read(state: State, event: EntriesRead, now_ms: int) -> Sequence[Action]:
    jobs = []
    bad: dict[Request, str] = {}
    for new in event.jobs:
        request = new.spec.request
        if request not in bad:
            bad[request] = unsatisfiable(state.pool, request)
        jobs.append(NewJob(new.spec, bad[request]) if bad[request] and not new.problem else new)
    if event.cursor is not None:
        state.changes.cursors[event.source] = event.cursor
    if not jobs:
        return (Answer(event.request),)
    first = add_all(state, jobs, now_ms)
    return (Answer(event.request, (first,), state.next_id - first),)


def begins(job: Job, now_ms: int) -> int:
    """Not before that; 0: at once."""
    return job.begin_ms if job.begin_ms > now_ms else 0


def is_too_late(spec: JobSpec, now_ms: int) -> bool:
    last_ms = last_start_ms(spec.deadline_ms, spec.time_limit_s)
    return last_ms > 0 and last_ms < max(now_ms, spec.begin_ms)


def add_all(
    state: State,
    jobs: Sequence[NewJob],
    now_ms: int,
    outcome_of: OutcomeOf = nobody_knows,
) -> JobId:
    """Add jobs under contiguous ids; gives back the first."""
    first = state.next_id
    added = [state.add(new, now_ms, outcome_of) for new in jobs]
    ended = [job for job in added if job.outcome is not None]
    state.tell_many(first, state.next_id - first, "submitted", now_ms)
    for job in ended:
        outcome = Outcome.NOT_STARTED.value
        state.tell(job.id, 0, "ended", now_ms, outcome=outcome, why=job.why)
    return first


def numbered_jobs(state: State, jobs: Sequence[NewJob]) -> Iterator[tuple[JobId, tuple[Span, ...]]]:
    """For each the (first) id that it will get, and the ids of those that it comes after."""
    first, numbering = state.next_id, state.numbering.copy()
    for new in jobs:
        yield first, with_ids(new.spec.after.spans, first, numbering)
        if new.spec.array and not new.problem:
            last = first + size(new.spec.array.indices) - 1
            numbering.add(first, last)
            first = JobId(last)
        first = JobId(first + 1)


def on_cancel(state: State, event: CancelRequested, now_ms: int) -> Sequence[Action]:
    actions: list[Action] = []
    changed, refused = [], []
    elements: dict[JobId, list[JobId]] = {}
    for job_id in dict.fromkeys(event.jobs):
        job = state.find(job_id)
        if job is None:
            refused.append((job_id, f"cannot cancel job {job_id}: {absent(state, job_id)}"))
            continue
        changed.append(job_id)
        if job.rest:
            elements.setdefault(job.id, []).append(job_id)
            continue
        if job.state is not JobState.ACTIVE:
            state.end_waiting(job, Outcome.CANCELLED, "", now_ms)
            continue
        attempt = state.attempts[job_id]
        grace_s = job.grace_s if event.grace_s is None else event.grace_s
        attempt.stop_grace_s = grace_s
        unpause(attempt, now_ms)
        state.touch_attempt(attempt)
        over = attempt.phase is Phase.FINISHING
        if attempt.phase is not Phase.STOPPING or attempt.stop_why:
            attempt.stop_why, attempt.leaving = "", False  # a cancel goes before any other stop
            if attempt.phase is not Phase.STOPPING:
                state.set_phase(job, Phase.STOPPING)
            state.tell(job_id, attempt.no, "cancel-requested", now_ms, grace_s=grace_s)
        if over:
            end(state, attempt, Outcome.CANCELLED, "", now_ms)
            continue
        actions.append(StopAttempt(job_id, attempt.no, grace_s))
    for many, ids in elements.items():
        state.end_elements(state.jobs[many], spans_of(ids), Outcome.CANCELLED, "", now_ms)
    actions.append(Answer(event.request, tuple(changed), refused=tuple(refused)))
    return actions


def on_retry(state: State, event: RetryRequested, now_ms: int) -> Sequence[Action]:
    recalled = {job.id: job for job in event.recalled}
    outcome_of = outcome_now(state, event.outcomes)
    changed, refused = [], []
    for job_id in dict.fromkeys(event.jobs):
        job = state.changes.jobs.get(job_id) or recalled.get(job_id)
        if state.find(job_id) is not None:
            refused.append((job_id, f"cannot retry job {job_id}: it is not done"))
        elif job is None and state.changes.outcome_of(job_id) is not None:
            refused.append((job_id, f"cannot retry job {job_id}: it ends at this moment"))
        elif job is None:
            refused.append((job_id, f"cannot retry job {job_id}: no such job"))
        elif not job.attempt and job.outcome is Outcome.NOT_STARTED:
            why = f"it never was a job ({job.why}); submit it anew"
            refused.append((job_id, f"cannot retry job {job_id}: {why}"))
        elif job.last_start_ms and job.last_start_ms < now_ms:
            why = "its deadline has passed; submit it anew"
            refused.append((job_id, f"cannot retry job {job_id}: {why}"))
        elif why := (
            impossible(state, job.after, outcome_of, state.next_id)
            or circular(state, job_id, job.after)
        ):
            refused.append((job_id, f"cannot retry job {job_id}: {why}"))
        else:
            job.retries_left, job.retry_no, job.setbacks = job.retry.retries, 0, 0
            job.resume = job.resume and job.outcome is not Outcome.SUCCEEDED
            if event.args is not None:
                job.retry_args = event.args
            state.requeue(job, begins(job, now_ms), outcome_of=outcome_of)
            state.tell(job_id, job.attempt, "retried", now_ms)
            changed.append(job_id)
    return (Answer(event.request, tuple(changed), refused=tuple(refused)),)


def on_hold(state: State, event: HoldRequested, now_ms: int) -> Sequence[Action]:
    changed, refused = [], []
    for job_id, job in alone(state, event.jobs, JobState.QUEUED):
        if job is None:
            refused.append((job_id, f"cannot hold job {job_id}: {absent(state, job_id)}"))
        elif job.state is JobState.ACTIVE:
            refused.append((job_id, f"cannot hold job {job_id}: it is {place_word(state, job_id)}"))
        else:
            if job.state is JobState.QUEUED:
                state.hold(job)
                state.tell(job.id, job.attempt, "held", now_ms)
            changed.append(job_id)
    return (Answer(event.request, tuple(changed), refused=tuple(refused)),)


def on_release(state: State, event: ReleaseRequested, now_ms: int) -> Sequence[Action]:
    changed, refused = [], []
    for job_id, job in alone(state, event.jobs, JobState.HELD):
        if job is None:
            refused.append((job_id, f"cannot release job {job_id}: {absent(state, job_id)}"))
            continue
        if job.state is JobState.HELD:
            state.requeue(job, begins(job, now_ms))
            state.tell(job.id, job.attempt, "released", now_ms)
        changed.append(job_id)
    return (Answer(event.request, tuple(changed), refused=tuple(refused)),)


def alone(
    state: State, jobs: Sequence[JobId], which: JobState
) -> Iterator[tuple[JobId, Job | None]]:
    """Each of the jobs with its record. An element that is in this state gets one of its own,
    except where all that one record stands for are asked for: then they stay together."""
    asked = dict.fromkeys(jobs)
    whole: dict[JobId, bool] = {}
    for job_id in asked:
        job = state.find(job_id)
        if job is not None and job.rest and job.state is which:
            if job.id not in whole:
                whole[job.id] = all(element in asked for element in each(job.rest))
            if not whole[job.id]:
                job = state.split(job, job_id)
        yield job_id, job


def on_drain(state: State, request: int, draining: bool, now_ms: int) -> Sequence[Action]:
    if state.draining != draining:
        state.draining = state.changes.draining = draining
        state.tell(JobId(0), 0, "drained" if draining else "undrained", now_ms)
    return (Answer(request, tuple(state.attempts)),)


def on_source_switched(state: State, event: SourceSwitched, now_ms: int) -> Sequence[Action]:
    if (event.source in state.stopped_sources) != event.stopped:
        state.changes.stopped[event.source] = event.stopped
        (state.stopped_sources.add if event.stopped else state.stopped_sources.discard)(
            event.source
        )
        kind = "source-stopped" if event.stopped else "source-started"
        state.tell(JobId(0), 0, kind, now_ms, source=event.source)
    return (Answer(event.request),)


def absent(state: State, job_id: JobId) -> str:
    """Why a job is not among those that are not done."""
    if not 0 < job_id < state.next_id:
        return "no such job"
    done = state.changes.jobs.get(job_id)
    return f"it is done ({done.outcome})" if done else "it is done"


def place_word(state: State, job_id: JobId) -> str:
    attempt, job = state.attempts.get(job_id), state.find(job_id)
    assert job is not None
    return attempt.phase.value if attempt else job.state.value
