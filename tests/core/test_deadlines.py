"""When a job may begin, and by when it must be done."""

from __future__ import annotations

from gpud.core.actions import StartAttempt
from gpud.core.events import (
    HoldRequested,
    JobsSubmitted,
    ReleaseRequested,
    RetryRequested,
    Tick,
)
from gpud.core.explain import explain
from gpud.core.model import After, JobId, NewJob, Outcome, Span
from gpud.core.scheduler import next_deadline

from .build import NOW_MS, A, answer, ended, happens, only, ready, refusal, spec_of, submit, unmet

LATER = NOW_MS + 60_000


def test_a_job_begins_when_it_may_and_not_before() -> None:
    state = ready(A)
    job = submit(state, begin_ms=LATER)
    assert explain(state, job, NOW_MS) == "waits 60 s more to begin, as it was asked to"
    assert next_deadline(state) == LATER
    assert not happens(state, Tick(), now_ms=LATER - 1)
    assert only(StartAttempt, happens(state, Tick(), now_ms=LATER)).job == job


def test_a_begin_that_is_past_is_now() -> None:
    state = ready(A)
    assert submit(state, begin_ms=NOW_MS - 1) in state.attempts


def test_hold_and_release_do_not_make_it_begin_earlier() -> None:
    state = ready(A)
    job = submit(state, begin_ms=LATER, held=True)
    happens(state, ReleaseRequested(2, (job,)))
    assert not state.attempts
    happens(state, HoldRequested(3, (job,)))
    happens(state, ReleaseRequested(4, (job,)), now_ms=LATER)
    assert job in state.attempts


def test_who_cannot_be_done_in_time_is_not_started() -> None:
    state = unmet(A)
    limited = submit(state, deadline_ms=LATER, time_limit_s=20.0)
    other = submit(state, deadline_ms=LATER, held=True)
    assert next_deadline(state) == LATER - 20_000 + 1
    happens(state, Tick(), now_ms=LATER - 20_000)
    assert {limited, other} <= state.jobs.keys()
    happens(state, Tick(), now_ms=LATER - 20_000 + 1)
    assert limited not in state.jobs
    record = state.changes.jobs[limited]
    told = "it could not be started in time for its deadline"
    assert (record.outcome, record.why) == (Outcome.NOT_STARTED, told)
    happens(state, Tick(), now_ms=LATER + 1)
    assert other not in state.jobs


def test_who_has_started_in_time_goes_on() -> None:
    state = ready(A)
    job = submit(state, deadline_ms=LATER)
    happens(state, Tick(), now_ms=LATER + 1)
    assert job in state.attempts
    happens(state, ended(state, job, exit_code=0), now_ms=LATER + 2)
    assert state.changes.jobs[job].outcome is Outcome.SUCCEEDED


def test_who_comes_after_it_is_cancelled_with_it() -> None:
    state = unmet(A)
    job = submit(state, deadline_ms=LATER)
    follower = submit(state, after=After((Span(job, job),)))
    happens(state, Tick(), now_ms=LATER + 1)
    why = f"job {job}, which it comes after, could not be started"
    record = state.changes.jobs[follower]
    assert (record.outcome, record.why) == (Outcome.CANCELLED, why)


def test_what_is_too_late_already_is_refused() -> None:
    state = ready(A)
    for fields in (
        {"deadline_ms": NOW_MS - 1},
        {"deadline_ms": NOW_MS + 10_000, "time_limit_s": 20.0},
        {"deadline_ms": LATER, "begin_ms": LATER + 1},
    ):
        new = (NewJob(spec_of(**fields)),)
        told = refusal(happens(state, JobsSubmitted(1, new))).message
        assert told == "cannot submit: it cannot be done by its deadline"


def test_a_retry_after_the_deadline_is_refused() -> None:
    state = unmet(A)
    job = submit(state, deadline_ms=LATER)
    happens(state, Tick(), now_ms=LATER + 1)
    record = state.take_changes().jobs[job]
    # It never had an attempt: it is submitted anew in any case.
    again = RetryRequested(2, (job,), (record,))
    ((_, why),) = answer(happens(state, again, now_ms=LATER + 2)).refused
    assert why.startswith(f"cannot retry job {job}: ")
    assert JobId(job) not in state.jobs
