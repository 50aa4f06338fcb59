"""After a meeting with the runner: each row of the table in core/reconcile.py."""

from __future__ import annotations

import pytest

from gpud.core.actions import ForgetAttempt, StartAttempt, StopAttempt
from gpud.core.events import (
    AttemptEnded,
    AttemptNotStarted,
    AttemptStarted,
    CancelRequested,
    DevicesChanged,
    DrainRequested,
    KnownAttempt,
    RunnerGone,
    RunnerReady,
)
from gpud.core.model import JobId, Outcome, Phase, RetryPolicy
from gpud.core.reconcile import NEVER_SENT, NO_DEVICE, REBOOTED, UNSEEN
from gpud.core.state import State

from .build import BOOT, NOW_MS, A, B, ended, happens, ready, started, submit, unmet


def meets(state: State, *known: KnownAttempt, boot: str = BOOT):
    happens(state, RunnerGone("the connection to the runner was lost"))
    return happens(state, RunnerReady(boot, known))


def outcome(state: State, job: JobId) -> tuple[Outcome | None, str]:
    record = state.changes.jobs[job]
    assert job not in state.jobs
    assert not state.pool.leased
    assert state.changes.attempts[job, record.attempt].outcome is record.outcome
    return record.outcome, record.why


def test_a_start_that_never_arrived_is_sent_again_with_its_lease() -> None:
    state = ready(A, B)
    job = submit(state)
    lease = state.attempts[job].lease
    assert meets(state) == [StartAttempt(job, 1, lease)]
    assert state.attempts[job].phase is Phase.STARTING


@pytest.mark.parametrize("phase", ["starting", "running"])
def test_a_start_that_arrived_is_asked_for_and_answered_with_what_became_of_it(phase: str) -> None:
    state = ready(A)
    job = submit(state)
    lease = state.attempts[job].lease
    assert meets(state, KnownAttempt(job, 1, phase, pid=77)) == [StartAttempt(job, 1, lease)]
    happens(state, AttemptStarted(job, 1, 77, NOW_MS + 5), AttemptStarted(job, 1, 77, NOW_MS + 5))
    attempt = state.attempts[job]
    assert (attempt.phase, attempt.pid) == (Phase.RUNNING, 77)
    assert attempt.started_at_ms == NOW_MS + 5
    assert [story.kind for story in state.changes.story].count("started") == 1


def test_a_start_that_never_arrived_needs_its_device() -> None:
    state = ready(A)
    job = submit(state)
    happens(state, DevicesChanged((B,)))
    assert meets(state) == []
    assert outcome(state, job) == (Outcome.NOT_STARTED, NO_DEVICE)


def test_what_has_run_and_is_unknown_is_lost() -> None:
    state = ready(A)
    job = submit(state)
    started(state, job)
    assert meets(state) == []
    assert outcome(state, job) == (Outcome.LOST, UNSEEN)


@pytest.mark.parametrize("ran", [True, False])
def test_what_was_dispatched_before_a_reboot_is_lost_and_never_sent_again(ran: bool) -> None:
    state = ready(A)
    job = submit(state)
    if ran:
        started(state, job)
    assert meets(state, boot="boot-2") == []
    assert outcome(state, job) == (Outcome.LOST, REBOOTED)


def test_an_end_that_the_runner_remembers_over_a_reboot_counts() -> None:
    state = ready(A)
    job = submit(state)
    assert meets(state, KnownAttempt(job, 1, "ended", pid=77), boot="boot-2") == []
    assert happens(state, ended(state, job, exit_code=3)) == [ForgetAttempt(job, 1)]
    assert outcome(state, job) == (Outcome.FAILED, "")


def test_a_lost_attempt_is_tried_again_where_the_policy_says_so() -> None:
    state = ready(A)
    job = submit(state, retry=RetryPolicy(1, backoff_s=0))
    started(state, job)
    (start,) = meets(state, boot="boot-2")
    assert (start.attempt, state.attempts[job].boot_id) == (2, "boot-2")
    assert state.changes.attempts[job, 1].outcome is Outcome.LOST


def test_a_stop_is_repeated_until_the_end_is_there() -> None:
    state = ready(A)
    job = submit(state, grace_s=30.0)
    started(state, job)
    happens(state, CancelRequested(2, (job,)))
    for phase in ("running", "stopping"):
        known = KnownAttempt(job, 1, phase, pid=77)
        assert meets(state, known) == [StopAttempt(job, 1, 30.0)]


def test_a_cancel_of_what_never_arrived_is_done() -> None:
    state = ready(A)
    job = submit(state)
    happens(state, CancelRequested(2, (job,)))
    assert meets(state) == []
    assert outcome(state, job) == (Outcome.CANCELLED, NEVER_SENT)


@pytest.mark.parametrize("boot", [BOOT, "boot-2"])
def test_a_cancelled_attempt_nobody_knows_is_cancelled(boot: str) -> None:
    state = ready(A)
    job = submit(state)
    started(state, job)
    happens(state, CancelRequested(2, (job,)))
    assert meets(state, boot=boot) == []
    assert outcome(state, job)[0] is Outcome.CANCELLED


def test_nothing_starts_between_the_loss_of_the_runner_and_the_meeting() -> None:
    state = unmet(A)
    submit(state)
    assert state.attempts == {}
    happens(state, RunnerReady(BOOT))
    assert len(state.attempts) == 1
    happens(state, RunnerGone("the connection to the runner was lost"))
    happens(state, AttemptEnded(JobId(1), 1, NOW_MS, exit_code=0))
    assert submit(state) not in state.attempts


def test_a_drained_pool_sends_again_what_was_dispatched_before_and_nothing_new() -> None:
    state = ready(A, B)
    job = submit(state)
    happens(state, DrainRequested(1))
    submit(state)
    assert [action.job for action in meets(state)] == [job]


@pytest.mark.parametrize(
    "fact",
    [
        AttemptEnded(JobId(1), 1, NOW_MS, exit_code=1),
        AttemptNotStarted(JobId(1), 1, NOW_MS, "cwd", "the directory /x does not exist"),
        AttemptEnded(JobId(1), 9, NOW_MS, exit_code=1),
        AttemptEnded(JobId(9), 1, NOW_MS, exit_code=1),
    ],
)
def test_a_stale_end_is_forgotten_at_the_runner_and_changes_nothing(fact) -> None:
    state = ready(A)
    job = submit(state, retry=RetryPolicy(1, backoff_s=0))
    happens(state, ended(state, job, exit_code=1))
    live = state.attempts[job]
    assert happens(state, fact) == [ForgetAttempt(fact.job, fact.attempt)]
    assert (state.stale, state.attempts[job]) == (1, live)
    assert (live.no, live.outcome) == (2, None)


def test_a_stale_start_is_counted() -> None:
    state = ready(A)
    job = submit(state)
    happens(state, ended(state, job, exit_code=0))
    assert happens(state, AttemptStarted(job, 1, 77, NOW_MS)) == []
    assert state.stale == 1
    assert job not in state.jobs
