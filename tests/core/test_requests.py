"""What people and sources ask for, and the answer each gets."""

from __future__ import annotations

import pytest

from gpud.core.actions import Answer, Refuse, StopAttempt
from gpud.core.events import (
    CancelRequested,
    DevicesChanged,
    DrainRequested,
    EntriesRead,
    HoldRequested,
    JobsSubmitted,
    ReleaseRequested,
    RetryRequested,
    SourceSwitched,
    UndrainRequested,
)
from gpud.core.model import Cursor, JobId, JobState, NewJob, Outcome, Phase, Request, RetryPolicy

from .build import (
    CPUS,
    HALVES,
    NOW_MS,
    A,
    B,
    answer,
    ended,
    happens,
    ready,
    refusal,
    spec_of,
    started,
    submit,
    unmet,
)

ONE_JOB = (NewJob(spec_of()),)
TWO_JOBS = (NewJob(spec_of()), NewJob(spec_of(held=True)))


def stories(state) -> list[tuple[JobId, str]]:
    return [(story.job, story.kind) for story in state.changes.story]


class TestSubmit:
    def test_ids_are_contiguous_and_written_with_their_specs(self) -> None:
        state = unmet(A)
        assert happens(state, JobsSubmitted(7, TWO_JOBS)) == [Answer(7, (JobId(1),), 2)]
        assert [state.jobs[JobId(n)].state for n in (1, 2)] == [JobState.QUEUED, JobState.HELD]
        assert state.changes.new == [(1, TWO_JOBS[0]), (2, TWO_JOBS[1])]
        assert state.changes.next_id == state.next_id == 3
        (story,) = state.changes.story
        assert (story.job, story.count, story.kind) == (1, 2, "submitted")

    def test_it_is_all_or_nothing(self) -> None:
        state = unmet(A)
        jobs = (*ONE_JOB, NewJob(spec_of(request=Request(4))))
        refused = refusal(happens(state, JobsSubmitted(1, jobs)))
        assert refused.message == "cannot submit: job 2: needs 4 GPUs, this machine has 1"
        assert not state.jobs
        assert not state.changes
        assert state.next_id == 1

    def test_one_job_that_is_refused_has_no_number(self) -> None:
        jobs = (NewJob(spec_of(request=Request(4))),)
        refused = refusal(happens(unmet(A), JobsSubmitted(1, jobs)))
        assert refused.message == "cannot submit: needs 4 GPUs, this machine has 1"

    def test_the_same_key_gets_the_same_answer(self) -> None:
        state = unmet(A)
        submit(state)
        first = answer(happens(state, JobsSubmitted(1, TWO_JOBS, "k", "digest")))
        again = answer(happens(state, JobsSubmitted(2, TWO_JOBS, "k", "digest")))
        assert (first.jobs, first.count, first.again) == ((JobId(2),), 2, False)
        assert again == Answer(2, (JobId(2),), 2, again=True)
        assert state.next_id == 4

    def test_the_same_key_is_known_after_the_commit_too(self) -> None:
        state = unmet(A)
        event = JobsSubmitted(2, TWO_JOBS, "k", "digest", earlier=(5, 2, "digest"))
        assert happens(state, event) == [Answer(2, (JobId(5),), 2, again=True)]
        assert not state.jobs

    def test_a_key_used_for_something_else_is_refused(self) -> None:
        state = unmet(A)
        happens(state, JobsSubmitted(1, ONE_JOB, "k", "digest"))
        refused = refusal(happens(state, JobsSubmitted(2, TWO_JOBS, "k", "other")))
        assert refused == Refuse(
            2,
            "refused",
            'cannot submit with key "k": it was used for a different submit, job 1',
        )

    def test_without_a_key_the_same_twice_is_two_jobs(self) -> None:
        state = unmet(A)
        assert [submit(state), submit(state)] == [1, 2]


class TestEntries:
    def test_cursor_and_jobs_are_in_one_change(self) -> None:
        state = unmet(A)
        cursor = Cursor("queue", "17")
        happens(state, EntriesRead(1, "queue", ONE_JOB, cursor))
        assert state.changes.cursors == {"queue": cursor}
        assert list(state.changes.jobs) == [1]

    def test_a_cursor_alone_is_a_change(self) -> None:
        state = unmet(A)
        assert happens(state, EntriesRead(1, "queue", (), Cursor("queue", "17"))) == [Answer(1)]
        assert state.changes

    def test_a_bad_entry_ends_at_once_and_stops_no_other(self) -> None:
        state = unmet(A)
        problem = "line 2 has a NUL byte"
        many = spec_of(request=Request(4))
        jobs = (NewJob(spec_of(), problem), *ONE_JOB, NewJob(many), NewJob(many, problem))
        assert answer(happens(state, EntriesRead(1, "queue", jobs))).count == 4
        assert list(state.jobs) == [2]
        whys = {job: record.why for job, record in state.changes.jobs.items()}
        too_many = "needs 4 GPUs, this machine has 1"
        assert whys == {1: problem, 2: "", 3: too_many, 4: problem}
        assert state.changes.jobs[JobId(1)].outcome is Outcome.NOT_STARTED
        assert [job for job, kind in stories(state) if kind == "ended"] == [1, 3, 4]


class TestCancel:
    @pytest.mark.parametrize("held", [True, False])
    def test_what_waits_is_done_at_once(self, held: bool) -> None:
        state = unmet(A)
        job = submit(state, held=held)
        assert answer(happens(state, CancelRequested(2, (job,)))).jobs == (job,)
        assert state.changes.jobs[job].outcome is Outcome.CANCELLED
        assert not state.jobs

    def test_what_waits_for_its_retry_is_done_at_once(self) -> None:
        state = ready(A)
        job = submit(state, retry=RetryPolicy(1))
        happens(state, ended(state, job, exit_code=1))
        happens(state, CancelRequested(2, (job,)))
        record = state.changes.jobs[job]
        assert (record.outcome, record.not_before_ms) == (Outcome.CANCELLED, 0)

    def test_what_runs_keeps_its_lease_until_its_end(self) -> None:
        state = ready(A)
        job, waits = submit(state, grace_s=30.0), submit(state)
        started(state, job)
        actions = happens(state, CancelRequested(2, (job,)))
        assert actions == [StopAttempt(job, 1, 30.0), Answer(2, (job,))]
        assert state.attempts[job].phase is Phase.STOPPING
        assert waits not in state.attempts
        happens(state, ended(state, job, exit_code=0))
        assert state.changes.jobs[job].outcome is Outcome.CANCELLED
        assert waits in state.attempts

    def test_a_second_cancel_may_be_less_patient(self) -> None:
        state = ready(A)
        job = submit(state)
        happens(state, CancelRequested(2, (job,), 60.0))
        assert StopAttempt(job, 1, 0.0) in happens(state, CancelRequested(3, (job,), 0.0))
        assert [kind for _, kind in stories(state)].count("cancel-requested") == 1

    def test_what_cannot_be_cancelled_is_refused_job_by_job(self) -> None:
        state = ready(A)
        done, waits = submit(state), submit(state)
        happens(state, ended(state, done, exit_code=0))
        asked = (done, waits, JobId(9), JobId(0), JobId(-1))
        refused = dict(answer(happens(state, CancelRequested(2, asked))).refused)
        assert refused == {
            done: "cannot cancel job 1: it is done (succeeded)",
            9: "cannot cancel job 9: no such job",
            0: "cannot cancel job 0: no such job",
            -1: "cannot cancel job -1: no such job",
        }
        state.take_changes()
        refused = dict(answer(happens(state, CancelRequested(3, (done,)))).refused)
        assert refused == {done: "cannot cancel job 1: it is done"}


class TestRetry:
    def test_what_is_done_is_queued_again_under_its_id(self) -> None:
        state = ready(A)
        job = submit(state)
        happens(state, ended(state, job, exit_code=1))
        assert answer(happens(state, RetryRequested(2, (job,)))).jobs == (job,)
        assert (state.attempts[job].no, state.jobs[job].outcome) == (2, None)
        assert (job, "retried") in stories(state)

    def test_a_record_of_long_ago_is_recalled(self) -> None:
        state = ready(A)
        job = submit(state)
        happens(state, CancelRequested(2, (job,)), ended(state, job, exit_code=0))
        record = state.take_changes().jobs[job]
        happens(state, RetryRequested(3, (job,), (record,)))
        assert state.changes.attempts[job, 2] is state.attempts[job]

    def test_what_is_not_done_or_does_not_exist_is_refused(self) -> None:
        state = ready(A)
        job = submit(state)
        refused = dict(answer(happens(state, RetryRequested(2, (job, JobId(9))))).refused)
        assert refused == {
            job: "cannot retry job 1: it is not done",
            9: "cannot retry job 9: no such job",
        }

    def test_the_same_job_twice_is_one_retry(self) -> None:
        state = ready(A)
        job = submit(state)
        happens(state, ended(state, job, exit_code=1))
        said = answer(happens(state, RetryRequested(2, (job, job))))
        assert (said.jobs, said.refused) == ((job,), ())

    def test_an_entry_that_never_was_a_job_is_not_tried(self) -> None:
        state = ready(A)
        bad = NewJob(spec_of(), "line 2 has a NUL byte")
        happens(state, EntriesRead(1, "q", (bad,)))
        refused = dict(answer(happens(state, RetryRequested(2, (JobId(1),)))).refused)
        assert "line 2 has a NUL byte" in refused[JobId(1)]


class TestHold:
    def test_a_held_job_is_passed_and_a_released_one_has_its_old_rank(self) -> None:
        state = ready(A)
        first, second, third = submit(state), submit(state), submit(state)
        happens(state, HoldRequested(2, (second,)))
        happens(state, ended(state, first, exit_code=0))
        assert list(state.attempts) == [third]
        fourth = submit(state)
        happens(state, ReleaseRequested(3, (second,)))
        happens(state, ended(state, third, exit_code=0))
        assert list(state.attempts) == [second]
        assert fourth in state.jobs

    def test_a_hold_of_what_is_active_is_refused(self) -> None:
        state = ready(A)
        job = submit(state)
        for phase in ("starting", "running"):
            refused = dict(answer(happens(state, HoldRequested(2, (job,)))).refused)
            assert refused == {job: f"cannot hold job 1: it is {phase}"}
            started(state, job)

    @pytest.mark.parametrize("ask", [HoldRequested, ReleaseRequested])
    def test_asking_twice_is_asking_once(self, ask) -> None:
        state = unmet(A)
        job = submit(state)
        happens(state, HoldRequested(2, (job,)))
        state.take_changes()
        assert answer(happens(state, ask(3, (job, job)))).jobs == (job,)
        assert len(stories(state)) == (ask is ReleaseRequested)

    @pytest.mark.parametrize(
        ("ask", "verb"), [(HoldRequested, "hold"), (ReleaseRequested, "release")]
    )
    def test_what_does_not_wait_is_refused(self, ask, verb: str) -> None:
        state = unmet(A)
        job = submit(state)
        happens(state, CancelRequested(2, (job,)))
        refused = dict(answer(happens(state, ask(3, (job, JobId(9))))).refused)
        assert refused == {
            job: f"cannot {verb} job 1: it is done (cancelled)",
            9: f"cannot {verb} job 9: no such job",
        }

    def test_a_release_does_not_wait_for_the_rest_of_the_pause(self) -> None:
        state = ready(A)
        job = submit(state, retry=RetryPolicy(1))
        happens(state, ended(state, job, exit_code=1))
        happens(state, HoldRequested(2, (job,)))
        assert state.delayed.first() is None
        happens(state, ReleaseRequested(3, (job,)))
        assert state.attempts[job].no == 2


class TestPoolAndSources:
    def test_a_drained_pool_finishes_and_starts_nothing(self) -> None:
        state = ready(A)
        job, waits = submit(state), submit(state)
        assert answer(happens(state, DrainRequested(1))).jobs == (job,)
        happens(state, ended(state, job, exit_code=0))
        assert state.attempts == {}
        happens(state, UndrainRequested(2))
        assert list(state.attempts) == [waits]

    def test_draining_twice_is_draining_once(self) -> None:
        state = unmet(A)
        happens(state, DrainRequested(1), DrainRequested(2))
        assert stories(state) == [(0, "drained")]
        assert state.changes.draining is True
        happens(state, UndrainRequested(3))
        assert state.changes.draining is False

    def test_a_source_is_stopped_once_and_remembered(self) -> None:
        state = unmet(A)
        happens(state, SourceSwitched(1, "queue", True), SourceSwitched(2, "queue", True))
        assert (state.stopped_sources, state.changes.stopped) == ({"queue"}, {"queue": True})
        happens(state, SourceSwitched(3, "queue", False))
        assert (state.stopped_sources, state.changes.stopped) == (set(), {"queue": False})
        assert stories(state) == [(0, "source-stopped"), (0, "source-started")]


def test_a_job_that_does_not_fit_is_passed_on_what_it_does_not_need() -> None:
    state = ready(A, B, CPUS)
    first = submit(state)
    both, small = submit(state, request=Request(2), priority=9), submit(state)
    for_cpu = submit(state, request=Request(0))
    assert set(state.attempts) == {first, for_cpu}
    happens(state, ended(state, first, exit_code=0))
    assert set(state.attempts) == {both, for_cpu}
    happens(state, ended(state, both, exit_code=0))
    assert set(state.attempts) == {small, for_cpu}


def test_a_job_that_waiting_does_not_help_keeps_nothing() -> None:
    state = ready(A, B, HALVES)
    first = submit(state, priority=9)
    three, small = submit(state, request=Request(3)), submit(state)
    assert set(state.attempts) == {first}
    happens(state, DevicesChanged((A, B), state.health.policy))
    assert set(state.attempts) == {first, small}, f"job {three} needs a GPU that has left"


def test_rank_is_priority_then_id_over_all_shapes() -> None:
    state = unmet(A)
    jobs = [
        submit(state, request=request, priority=priority)
        for request, priority in [(Request(), 0), (Request(1), 0), (Request(), 1), (Request(1), 2)]
    ]
    state.runner_problem = ""
    order = []
    happens(state)
    while state.attempts:
        (job,) = state.attempts
        order.append(job)
        happens(state, ended(state, job, exit_code=0))
    assert order == [jobs[3], jobs[2], jobs[0], jobs[1]]


def test_times_and_facts_of_an_end_are_kept() -> None:
    state = ready(A)
    job = submit(state)
    started(state, job)
    happens(
        state,
        ended(state, job, signal=9, killed=("python (7)",), unassigned=("x (8)",)),
        now_ms=NOW_MS + 5,
    )
    attempt = state.changes.attempts[job, 1]
    assert (attempt.signal, attempt.exit_code, attempt.outcome) == (9, None, Outcome.KILLED)
    assert attempt.ended_at_ms == NOW_MS
    kinds = [kind for _, kind in stories(state)]
    assert kinds == [
        "submitted",
        "dispatched",
        "started",
        "killed-leftovers",
        "unassigned",
        "ended",
    ]
