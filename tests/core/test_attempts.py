"""Ends that are no fault of the job."""

from __future__ import annotations

from gpud.core.actions import ForgetAttempt, StartAttempt
from gpud.core.dispatching import dispatch
from gpud.core.events import (
    AttemptEnded,
    AttemptNotStarted,
    AttemptStarted,
    CancelRequested,
    DiskFull,
    Tick,
)
from gpud.core.explain import explain
from gpud.core.model import Outcome
from gpud.core.scheduler import handle, next_deadline

from .build import NOW_MS, A, B, ready, submit

WHY = "the machine is short of something: too many open files"


def test_a_shortage_costs_no_retry_and_pauses_every_start() -> None:
    state = ready(A, B)
    first, second, third = submit(state), submit(state), submit(state)
    for job in (first, second):
        shortage = AttemptNotStarted(job, 1, NOW_MS, "resources", WHY)
        assert handle(state, shortage, NOW_MS) == (ForgetAttempt(job, 1),)
    assert dispatch(state, NOW_MS) == []
    assert {state.jobs[job].attempt for job in (first, second)} == {1}
    for job in (first, second, third):
        assert "too many open files" in explain(state, job, NOW_MS)
    due = next_deadline(state)
    assert due == NOW_MS + 1000
    handle(state, Tick(), due)
    starts = [(a.job, a.attempt) for a in dispatch(state, due) if isinstance(a, StartAttempt)]
    assert starts == [(first, 2), (second, 2)]


def test_the_pause_grows_until_a_start_succeeds() -> None:
    state = ready(A)
    job = submit(state)
    now, pauses = NOW_MS, []
    for attempt in range(1, 9):
        handle(state, AttemptNotStarted(job, attempt, now, "resources", WHY), now)
        due = next_deadline(state)
        assert due is not None
        pauses.append((due - now) // 1000)
        now = due
        dispatch(state, now)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    handle(state, AttemptStarted(job, 9, 77, now), now)
    assert not state.shortage.why
    assert next_deadline(state) is None


def test_a_cancel_during_a_shortage_is_a_cancel() -> None:
    state = ready(A)
    job = submit(state)
    handle(state, CancelRequested(2, (job,)), NOW_MS)
    handle(state, AttemptNotStarted(job, 1, NOW_MS, "resources", WHY), NOW_MS)
    assert state.changes.jobs[job].outcome is Outcome.CANCELLED


def test_what_its_runner_ended_unasked_is_lost_whatever_it_made_of_its_grace() -> None:
    """As at the shutdown of a machine. What a person ended is cancelled."""
    for more, outcome in (
        ({"exit_code": 0, "stopped": True}, Outcome.LOST),
        ({"signal": 15, "stopped": True}, Outcome.LOST),
        ({"signal": 15, "stopped": True, "timed_out": True}, Outcome.TIMED_OUT),
        ({"exit_code": 0}, Outcome.SUCCEEDED),
    ):
        state = ready(A)
        job = submit(state)
        handle(state, AttemptStarted(job, 1, 77, NOW_MS), NOW_MS)
        attempt = state.attempts[job]
        handle(state, AttemptEnded(job, 1, NOW_MS, **more), NOW_MS)
        assert attempt.outcome is outcome
        assert ("shut down" in attempt.why) == (outcome is Outcome.LOST)
    state = ready(A)
    job = submit(state)
    handle(state, AttemptStarted(job, 1, 77, NOW_MS), NOW_MS)
    attempt = state.attempts[job]
    handle(state, CancelRequested(1, (job,)), NOW_MS)
    handle(state, AttemptEnded(job, 1, NOW_MS, exit_code=0, stopped=True), NOW_MS)
    assert attempt.outcome is Outcome.CANCELLED


def test_a_full_disk_pauses_every_start_until_there_is_room() -> None:
    state = ready(A)
    handle(state, DiskFull("the disk of /logs is full"), NOW_MS)
    job = submit(state)
    now, pauses = NOW_MS, []
    for _ in range(8):
        handle(state, DiskFull("the disk of /logs is full"), now)
        assert dispatch(state, now) == []
        assert explain(state, job, now).endswith("more: the disk of /logs is full")
        assert not state.shortage.failed
        due = next_deadline(state)
        assert due is not None
        pauses.append((due - now) // 1000)
        now = due
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [type(action) for action in dispatch(state, now)] == [StartAttempt]
    handle(state, AttemptStarted(job, 1, 77, now), now)
    assert not state.shortage.why
