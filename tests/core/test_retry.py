"""When an attempt is tried again, and after which pause."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from gpud.core.events import AttemptNotStarted, CancelRequested, RetryRequested, Tick
from gpud.core.model import (
    DEFAULT_RETRY_ON,
    Attempt,
    Job,
    JobId,
    JobState,
    Outcome,
    RetryPolicy,
)
from gpud.core.retry import pause_ms, spread, wants_retry
from gpud.core.scheduler import next_deadline

from .build import NOW_MS, A, answer, ended, happens, ready, started, submit

TEN_YEARS_S = 10 * 366 * 86_400.0  # the longest that the configuration takes


def test_the_pause_doubles_up_to_its_cap() -> None:
    policy = RetryPolicy(9, backoff_s=10, backoff_max_s=65)
    assert [pause_ms(policy, n) for n in range(1, 6)] == [10_000, 20_000, 40_000, 65_000, 65_000]


def test_no_backoff_is_no_pause() -> None:
    assert pause_ms(RetryPolicy(1, backoff_s=0), 1) == 0


def test_a_first_pause_over_the_cap_is_the_cap() -> None:
    assert pause_ms(RetryPolicy(1, backoff_s=100, backoff_max_s=5), 1) == 5000


@given(
    backoff_s=st.floats(0, TEN_YEARS_S),
    most_s=st.floats(0, TEN_YEARS_S),
    retry_no=st.integers(1, 1_000_001),
)
def test_the_pause_grows_to_its_cap_and_never_overflows(
    backoff_s: float, most_s: float, retry_no: int
) -> None:
    policy = RetryPolicy(1_000_000, backoff_s, most_s)
    pause = pause_ms(policy, retry_no)
    assert 0 <= pause <= pause_ms(policy, retry_no + 1) <= round(1000 * most_s)
    if retry_no > 1:
        assert pause_ms(policy, retry_no - 1) <= pause


@pytest.mark.parametrize("outcome", Outcome)
def test_what_is_retried_without_being_asked(outcome: Outcome) -> None:
    job, attempt = attempted(RetryPolicy(1))
    assert wants_retry(job, attempt, outcome) == (outcome in DEFAULT_RETRY_ON)
    job.retries_left = 0
    assert not wants_retry(job, attempt, outcome)


def attempted(policy: RetryPolicy, **ended: object) -> tuple[Job, Attempt]:
    state = ready(A)
    job = state.jobs[submit(state, retry=policy)]
    return job, structs.replace(state.attempts[job.id], **ended)


def test_exit_statuses_are_retried_beside_outcomes() -> None:
    policy = RetryPolicy(1, on=(Outcome.KILLED,), codes=(75,))
    for code, wanted in ((75, True), (1, False)):
        job, attempt = attempted(policy, exit_code=code)
        assert wants_retry(job, attempt, Outcome.FAILED) == wanted
    job, attempt = attempted(policy, exit_code=75)
    assert not wants_retry(job, attempt, Outcome.TIMED_OUT), "it was stopped, and then said 75"
    assert wants_retry(job, attempt, Outcome.KILLED)


def test_out_of_memory_is_retried_whatever_the_outcome() -> None:
    job, attempt = attempted(RetryPolicy(1, on=(), oom=True), oom="host", signal=9)
    assert wants_retry(job, attempt, Outcome.KILLED)
    assert not wants_retry(job, attempt, Outcome.CANCELLED)


@given(pause=st.integers(0, 10**9), job=st.integers(1, 10**6), no=st.integers(1, 10**6))
def test_a_pause_is_shortened_by_a_quarter_at_most_and_always_equally(
    pause: int, job: int, no: int
) -> None:
    found = spread(pause, JobId(job), no)
    assert 0.75 * pause <= found <= pause
    assert found == spread(pause, JobId(job), no)


def test_jobs_that_failed_together_are_not_tried_together() -> None:
    assert len({spread(60_000, JobId(job), 1) for job in range(1, 101)}) > 90


def test_a_failed_attempt_waits_its_pause_and_starts_again() -> None:
    state = ready(A)
    job = submit(state, retry=RetryPolicy(2, backoff_s=10))
    started(state, job)
    happens(state, ended(state, job, exit_code=1))
    record = state.jobs[job]
    assert (record.state, record.retries_left, record.retry_no) == (JobState.QUEUED, 1, 1)
    due_ms = NOW_MS + spread(10_000, job, 1)
    assert next_deadline(state) == record.not_before_ms == due_ms
    assert not happens(state, Tick(), now_ms=due_ms - 1)
    assert [action.attempt for action in happens(state, Tick(), now_ms=due_ms)] == [2]


def test_the_slot_of_a_job_that_pauses_goes_to_the_next() -> None:
    state = ready(A)
    first = submit(state, retry=RetryPolicy(1))
    second = submit(state)
    happens(state, ended(state, first, exit_code=1))
    assert list(state.attempts) == [second]


def test_the_last_failure_is_the_outcome() -> None:
    state = ready(A)
    job = submit(state, retry=RetryPolicy(1, backoff_s=0))
    happens(state, ended(state, job, exit_code=1))
    assert state.attempts[job].no == 2
    happens(state, ended(state, job, signal=11))
    assert job not in state.jobs
    assert state.changes.jobs[job].outcome is Outcome.KILLED


def test_what_could_not_be_started_is_not_tried_again_by_default() -> None:
    state = ready(A)
    job = submit(state, retry=RetryPolicy(3))
    why = "the directory /x does not exist"
    happens(state, AttemptNotStarted(job, 1, NOW_MS, "cwd", why))
    record = state.changes.jobs[job]
    assert (record.outcome, record.why) == (Outcome.NOT_STARTED, why)


def test_a_cancelled_attempt_is_not_tried_again() -> None:
    state = ready(A)
    job = submit(state, retry=RetryPolicy(3))
    started(state, job)
    happens(state, CancelRequested(2, (job,)))
    happens(state, ended(state, job, signal=15))
    record = state.changes.jobs[job]
    assert (record.outcome, record.retries_left) == (Outcome.CANCELLED, 3)


def test_a_retry_by_a_person_counts_afresh() -> None:
    state = ready(A)
    job = submit(state, retry=RetryPolicy(1, backoff_s=0))
    happens(state, ended(state, job, exit_code=1))
    happens(state, ended(state, job, exit_code=1))
    record = state.take_changes().jobs[job]
    assert answer(happens(state, RetryRequested(2, (job,), (record,)))).jobs == (job,)
    assert (state.attempts[job].no, state.jobs[job].retries_left) == (3, 1)
