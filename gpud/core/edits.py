"""What a job asks for and says is changed while it waits.

Called by core/scheduler.py. An edit brings the whole new spec of a job, made by the control server
from the one that was committed last: what is the same in both is left alone. Each job is changed
or refused with a sentence of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from gpud.core.actions import Action, Answer
from gpud.core.circles import circular
from gpud.core.dependencies import impossible, outcome_now
from gpud.core.events import Edit, EditRequested
from gpud.core.links import OutcomeOf, with_ids
from gpud.core.model import After, Job, JobId, JobSpec, JobState
from gpud.core.placement import unsatisfiable
from gpud.core.requests import absent, begins, is_too_late, place_word
from gpud.core.shape import last_start_ms, within_s
from gpud.core.state import State

# What concerns only later attempts: of a job that is active all else is said already.
OF_LATER_ATTEMPTS = frozenset({"priority", "retry", "retry_args"})
OF_TIME = frozenset({"begin_ms", "deadline_ms", "time_limit_s"})


def on_edit(state: State, event: EditRequested, now_ms: int) -> Sequence[Action]:
    outcome_of = outcome_now(state, event.outcomes)
    changed: list[JobId] = []
    refused: list[tuple[JobId, str]] = []
    for edit in event.edits:
        fields = changed_fields(edit.was, edit.becomes)
        if why := _why_not(state, edit, fields, outcome_of, now_ms):
            refused.append((edit.job, f"cannot edit job {edit.job}: {why}"))
        elif fields:
            job = state.own(edit.job)
            _change(state, job, edit.becomes, fields, now_ms)
            if "after" in fields:
                _come_after(state, job, edit.becomes.after, outcome_of)
            state.enter_again(job)
            # These two another event of this turn may have changed.
            spec = structs.replace(edit.becomes, priority=job.priority, after=job.after)
            state.changes.edited[job.id] = spec
            state.tell(job.id, job.attempt, "edited", now_ms, changed=edit.told)
            changed.append(job.id)
    return (Answer(event.request, tuple(changed), refused=tuple(refused)),)


def changed_fields(was: JobSpec, becomes: JobSpec) -> set[str]:
    names = JobSpec.__struct_fields__
    return {name for name in names if getattr(was, name) != getattr(becomes, name)}


def _why_not(state: State, edit: Edit, fields: set[str], outcome_of: OutcomeOf, now_ms: int) -> str:
    job, spec = state.find(edit.job), edit.becomes
    if job is None:
        return absent(state, edit.job)
    if edit.job in state.changes.edited:  # `was` is not what it is any more
        return "somebody else changes it at this moment; look at it and try again"
    if job.state is JobState.ACTIVE and fields - OF_LATER_ATTEMPTS:
        word = place_word(state, edit.job)
        return f"it is {word}: only its priority and its retries can be changed now"
    if "request" in fields and (why := unsatisfiable(state.pool, spec.request)):
        return why
    if fields & OF_TIME and is_too_late(spec, now_ms):
        return "it cannot be done by its deadline"
    if "after" not in fields:
        return ""
    if job.array:
        return "what an element of an array comes after is said of all of them, in the submit"
    after = _with_ids(state, job, spec.after)
    return impossible(state, after, outcome_of, state.next_id) or circular(state, job.id, after)


def _change(state: State, job: Job, spec: JobSpec, fields: set[str], now_ms: int) -> None:
    """Its record. Retries that it has used are used: a longer policy gives it the rest."""
    if "priority" in fields:
        job.priority = spec.priority
    if "request" in fields:
        job.request, job.grown = spec.request, False
    if "retry" in fields:
        job.retry = spec.retry
        job.retries_left = max(0, spec.retry.retries - job.retry_no)
    if "retry_args" in fields:
        job.retry_args = None
    job.grace_s = spec.grace_s
    job.within_s = within_s(spec.time_limit_s, spec.grace_s, spec.linger_s)
    job.last_start_ms = last_start_ms(spec.deadline_ms, spec.time_limit_s)
    if "begin_ms" in fields:
        pause_ms = 0 if job.not_before_ms == job.begin_ms else job.not_before_ms
        job.begin_ms = spec.begin_ms
        if job.state is JobState.QUEUED:
            job.not_before_ms = max(pause_ms, begins(job, now_ms))


def _come_after(state: State, job: Job, after: After, outcome_of: OutcomeOf) -> None:
    state.come_after(job, _with_ids(state, job, after), outcome_of)


def _with_ids(state: State, job: Job, after: After) -> After:
    return After(with_ids(after.spans, job.id, state.numbering), after.patient)
