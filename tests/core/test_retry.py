"""When an attempt is tried again, and after which pause."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.core.events import AttemptNotStarted, CancelRequested, RetryRequested, Tick
from gpud.core.model import DEFAULT_RETRY_ON, JobState, NewJob, Outcome, RetryPolicy
from gpud.core.retry import pause_ms, wants_retry
from gpud.core.scheduler import next_deadline

from .build import NOW_MS, A, answer, ended, happens, ready, spec_of, started, submit

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
    job = ready().add(NewJob(spec_of(retry=RetryPolicy(1))), NOW_MS)
    assert wants_retry(job, outcome) == (outcome in DEFAULT_RETRY_ON)
    job.retries_left = 0
    assert not wants_retry(job, outcome)


def test_a_failed_attempt_waits_its_pause_and_starts_again() -> None:
    state = ready(A)
    job = submit(state, retry=RetryPolicy(2, backoff_s=10))
    started(state, job)
    happens(state, ended(state, job, exit_code=1))
    record = state.jobs[job]
    assert (record.state, record.retries_left, record.retry_no) == (JobState.QUEUED, 1, 1)
    assert next_deadline(state) == record.not_before_ms == NOW_MS + 10_000
    assert not happens(state, Tick(), now_ms=NOW_MS + 9_999)
    assert [action.attempt for action in happens(state, Tick(), now_ms=NOW_MS + 10_000)] == [2]


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
