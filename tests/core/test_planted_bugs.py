"""The machine is worth something only if it fails when the core is broken: here it is, on purpose.

Each case replaces one function of the core by a version with a bug of the kind that queues have
had, and the machine must notice. No shrinking: that it fails is all that is asked. Bugs about GPUs
are in test_planted_gpu_bugs.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

import pytest
from hypothesis import seed
from hypothesis.stateful import run_state_machine_as_test

from gpud.core import (
    attempts,
    deadlines,
    dependencies,
    dispatching,
    links,
    reconcile,
    requests,
    scheduler,
    setbacks,
)
from gpud.core import state as state_module
from gpud.core.actions import Action, Answer, StartAttempt
from gpud.core.changes import NewSubmission
from gpud.core.events import (
    AttemptEnded,
    CancelRequested,
    JobsSubmitted,
    RetryRequested,
    RunnerReady,
)
from gpud.core.lifecycle import ContradictionError
from gpud.core.model import (
    AT_ONCE,
    Attempt,
    Device,
    Job,
    JobId,
    JobState,
    LeasePart,
    NewJob,
    Outcome,
    Phase,
    Request,
)
from gpud.core.placement import place
from gpud.core.pool import Lease, Pool
from gpud.core.ready import Ready, is_ready
from gpud.core.state import State

from .edit_scenarios import live
from .machine import CoreMachine, one_pass
from .planting import Bugs, plant

EXAMPLES = 300
MOST_DAYS = 500

BUGS: Bugs = {}
bug = partial(plant, BUGS)


# -- leases ---------------------------------------------------------------------------------------


@bug(Pool, "give_back")
def a_lease_is_never_given_back(right):
    return lambda pool, lease: None


@bug(Pool, "give_back")
def a_lease_is_given_back_twice(right):
    def give_back(pool: Pool, lease: Lease) -> None:
        right(pool, lease)
        for part in lease:
            pool.leased[part.device] = max(0, pool.leased.get(part.device, 0) - part.milli)

    return give_back


@bug(requests, "on_cancel")
def a_cancel_frees_the_lease_while_the_payload_lives(right):
    def on_cancel(state: State, event: CancelRequested, now_ms: int) -> Sequence[Action]:
        actions = right(state, event, now_ms)
        for job in event.jobs:
            if job in state.attempts:
                attempts.end(state, state.attempts[job], Outcome.CANCELLED, "", now_ms)
        return actions

    return on_cancel


@bug(attempts, "on_attempt_lingering")
def the_end_of_the_shell_frees_the_lease(right):
    def on_attempt_lingering(state: State, event) -> Sequence[Action]:
        ended = AttemptEnded(event.job, event.attempt, event.at_ms, exit_code=0)
        return attempts.on_attempt_ended(state, ended, event.at_ms)

    return on_attempt_lingering


@bug(Pool, "free_milli")
def a_placement_overlooks_leases(right):
    return lambda pool, device: 1000


@bug(dispatching, "place")
def two_gpus_are_one_gpu_twice(right):
    def place(pool: Pool, request: Request, avoid: Collection[str] = ()) -> Lease | None:
        lease = right(pool, request, avoid)
        return (lease[0], lease[0]) if lease and len(lease) == 2 else lease

    return place


@bug(Pool, "replace")
def other_devices_void_the_leases(right):
    def replace(pool: Pool, devices: Sequence[Device], unknown: str = "") -> None:
        right(pool, devices, unknown)
        pool.leased = {key: milli for key, milli in pool.leased.items() if key in pool.devices}

    return replace


# -- facts ----------------------------------------------------------------------------------------


@bug(attempts, "live_attempt")
def stale_facts_are_not_fenced(right):
    return lambda state, job, attempt: state.attempts.get(job)


@bug(attempts, "outcome_of")
def a_signal_counts_as_success(right):
    def outcome_of(event: AttemptEnded) -> Outcome:
        return Outcome.SUCCEEDED if not event.exit_code else right(event)

    return outcome_of


@bug(attempts, "on_attempt_ended")
def stale_ends_are_repeated_for_ever(right):
    def on_attempt_ended(state: State, event: AttemptEnded, now_ms: int) -> Sequence[Action]:
        stale = state.stale
        actions = right(state, event, now_ms)
        return () if state.stale > stale else actions

    return on_attempt_ended


@bug(attempts, "on_attempt_started")
def a_started_attempt_is_forgotten_by_the_runner(right):
    def on_attempt_started(state: State, event) -> Sequence[Action]:
        return [*right(state, event), attempts.ForgetAttempt(event.job, event.attempt)]

    return on_attempt_started


@bug(attempts, "on_attempt_ended")
def the_exit_code_is_not_kept(right):
    def on_attempt_ended(state: State, event: AttemptEnded, now_ms: int) -> Sequence[Action]:
        attempt = state.attempts.get(event.job)
        actions = right(state, event, now_ms)
        if attempt is not None and event.exit_code:
            attempt.exit_code = 1
        return actions

    return on_attempt_ended


# -- retries and cancels --------------------------------------------------------------------------


@bug(State, "requeue")
def a_retry_does_not_count(right):
    def requeue(state: State, job: Job, not_before_ms: int = 0, **more: object) -> None:
        if job.state is JobState.ACTIVE:
            job.retries_left += 1
        right(state, job, not_before_ms, **more)

    return requeue


@bug(State, "requeue")
def a_retry_does_not_pause(right):
    return lambda state, job, not_before_ms=0, **more: right(state, job, **more)


@bug(attempts, "wants_retry")
def every_outcome_is_retried(right):
    return lambda job, attempt, outcome: job.retries_left > 0


@bug(attempts, "wants_retry")
def any_exit_status_is_retried(right):
    def wants_retry(job: Job, attempt: Attempt, outcome: Outcome) -> bool:
        codes = job.retry.codes
        return right(job, attempt, outcome) or bool(codes and job.retries_left)

    return wants_retry


@bug(attempts, "spread")
def a_spread_pause_is_longer(right):
    return lambda pause_ms, job, retry_no: pause_ms + 1


@bug(setbacks, "is_excused")
def a_lost_runner_uses_up_a_retry(right):
    return lambda job, outcome, sick: bool(sick) and right(job, outcome, sick)


@bug(setbacks, "is_excused")
def what_was_lost_is_run_again_unasked(right):
    return lambda job, outcome, sick: outcome is Outcome.LOST or right(job, outcome, sick)


@bug(attempts, "end")
def a_cancelled_attempt_fails(right):
    def end(state: State, attempt: Attempt, outcome: Outcome, why: str, now_ms: int) -> None:
        attempt.phase = Phase.RUNNING
        right(state, attempt, outcome, why, now_ms)

    return end


@bug(requests, "on_cancel")
def a_cancelled_job_stays_in_the_queue(right):
    def on_cancel(state: State, event: CancelRequested, now_ms: int) -> Sequence[Action]:
        active = tuple(job for job in event.jobs if job in state.attempts)
        actions = [*right(state, CancelRequested(event.request, active), now_ms)]
        known = tuple(job for job in event.jobs if job in state.jobs)
        refused = tuple((job, "cannot cancel it") for job in event.jobs if job not in known)
        actions[-1] = Answer(event.request, known, refused=refused)
        return actions

    return on_cancel


@bug(requests, "on_retry")
def a_retry_by_a_person_gives_no_new_retries(right):
    def on_retry(state: State, event: RetryRequested, now_ms: int) -> Sequence[Action]:
        records = {job.id: job for job in event.recalled} | state.changes.jobs
        left = {job.id: (job.retries_left, job.retry_no) for job in records.values()}
        actions = right(state, event, now_ms)
        for job in actions[0].jobs:
            state.jobs[job].retries_left, state.jobs[job].retry_no = left[job]
        return actions

    return on_retry


# -- dispatch -------------------------------------------------------------------------------------


@bug(dispatching, "dispatch")
def a_drained_pool_starts_jobs(right):
    def dispatch(state: State, now_ms: int) -> list[Action]:
        draining, state.draining = state.draining, False
        actions = right(state, now_ms)
        state.draining = draining
        return actions

    return dispatch


@bug(dispatching, "dispatch")
def jobs_start_without_a_runner(right):
    def dispatch(state: State, now_ms: int) -> list[Action]:
        problem, state.runner_problem = state.runner_problem, ""
        actions = right(state, now_ms)
        state.runner_problem = problem
        return actions

    return dispatch


@bug(dispatching, "dispatch")
def priority_is_ignored(right):
    def dispatch(state: State, now_ms: int) -> list[Action]:
        right_priority = {job.id: job.priority for job in state.jobs.values()}
        state.make_due(now_ms)
        rebuild_heaps(state, lambda job: 0)
        actions = right(state, now_ms)
        rebuild_heaps(state, lambda job: right_priority[job.id])
        return actions

    return dispatch


def rebuild_heaps(state: State, priority: Callable[[Job], int]) -> None:
    state.ready = Ready(state.jobs, state.pool)
    for job in state.jobs.values():
        job.priority = priority(job)
        if is_ready(job):
            state._push(job)


@bug(dispatching, "dispatch")
def the_last_comes_first(right):
    def dispatch(state: State, now_ms: int) -> list[Action]:
        state.make_due(now_ms)
        actions: list[Action] = []
        for job in sorted(state.jobs.values(), key=lambda job: (-job.priority, -job.id)):
            if is_ready(job) and not state.draining and not state.runner_problem:
                lease = place(state.pool, job.request)
                if lease is not None:
                    attempt = state.activate(job, lease, now_ms)
                    state.tell(job.id, attempt.no, "dispatched", now_ms)
                    actions.append(StartAttempt(job.id, attempt.no, lease))
        return actions

    return dispatch


@bug(dispatching, "dispatch")
def one_start_a_turn(right):
    """The rest waits for something to end: "on completion start the next one"."""

    def dispatch(state: State, now_ms: int) -> list[Action]:
        placed = []

        def place_once(pool: Pool, request: Request, avoid: Collection[str] = ()) -> Lease | None:
            if placed:
                return None
            placed.append(lease := place(pool, request, avoid))
            return lease

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dispatching, "place", place_once)
            return right(state, now_ms)

    return dispatch


@bug(State, "hold")
def held_jobs_start(right):
    def hold(state: State, job: Job) -> None:
        right(state, job)
        job.state = JobState.QUEUED
        state._push(job)

    return hold


@bug(State, "make_due")
def delayed_jobs_never_come_due(right):
    return lambda state, now_ms: None


@bug(State, "make_due")
def what_comes_due_is_forgotten(right):
    def make_due(state: State, now_ms: int) -> None:
        while (due := state.delayed.first()) is not None and due[0] <= now_ms:
            job = state.jobs[due[1]]
            job.not_before_ms = 0
            state.touch(job)

    return make_due


@bug(scheduler, "next_deadline")
def nobody_wakes_up_for_the_delayed(right):
    return lambda state: None


# -- jobs after others ----------------------------------------------------------------------------


@bug(links, "is_met")
def a_failure_will_do(right):
    return lambda outcome, ended: outcome is not None


@bug(links, "is_met")
def the_end_is_not_enough_for_who_asked_for_no_more(right):
    return lambda outcome, ended: right(outcome, False)


@bug(dependencies, "settle")
def who_can_no_longer_be_waits_for_ever(right):
    return lambda state, now_ms: state.ended.clear()


@bug(State, "_let_go_on")
def nobody_goes_on_when_a_job_has_succeeded(right):
    return lambda state, before, outcome: None


@bug(State, "_make_wait")
def a_retry_does_not_make_the_others_wait_again(right):
    return lambda state, before: None


@bug(requests, "impossible")
def jobs_come_after_what_is_not_there(right):
    return lambda *what: ""


@bug(State, "load")
def a_restart_forgets_who_comes_after_whom(right):
    def load(state: State, jobs: list[Job], *more: object) -> None:
        for job in jobs:
            job.after = AT_ONCE
        right(state, jobs, *more)

    return load


# -- time ------------------------------------------------------------------------------------------


@bug(deadlines, "expire")
def who_is_too_late_starts_all_the_same(right):
    return lambda state, now_ms: None


@bug(State, "_may_expire")
def nobody_minds_deadlines(right):
    return lambda state, job: None


@bug(state_module, "last_start_ms")
def the_time_limit_does_not_count_towards_the_deadline(right):
    return lambda deadline_ms, time_limit_s: right(deadline_ms, None)


@bug(State, "add")
def jobs_begin_at_once(right):
    def add(state: State, new: NewJob, *more: object) -> Job:
        job = right(state, new, *more)
        if job.not_before_ms:
            job.not_before_ms = 0
            state._push(job)
        return job

    return add


@bug(requests, "on_release")
def a_release_forgets_when_to_begin(right):
    def on_release(state: State, event, now_ms: int) -> Sequence[Action]:
        return right(state, event, max(now_ms, 10**15))

    return on_release


# -- submits --------------------------------------------------------------------------------------


@bug(requests, "on_jobs_submitted")
def the_key_is_ignored(right):
    def on_jobs_submitted(state: State, event: JobsSubmitted, now_ms: int) -> Sequence[Action]:
        return right(state, JobsSubmitted(event.request, event.jobs), now_ms)

    return on_jobs_submitted


@bug(requests, "NewSubmission")
def a_key_stands_for_any_submit(right):
    return lambda key, digest, first, count: NewSubmission(key, "x", first, count)


@bug(State, "add")
def ids_are_used_again(right):
    def add(state: State, new: NewJob, now_ms: int, *more: object) -> Job:
        state.next_id = JobId(max(state.jobs, default=0) + 1)
        return right(state, new, now_ms, *more)

    return add


@bug(State, "add")
def a_bad_entry_is_queued(right):
    return lambda state, new, *more: right(state, NewJob(new.spec), *more)


@bug(requests, "on_entries_read")
def the_cursor_stays_behind(right):
    def on_entries_read(state: State, event, now_ms: int) -> Sequence[Action]:
        actions = right(state, event, now_ms)
        state.changes.cursors.clear()
        return actions

    return on_entries_read


# -- what is written ------------------------------------------------------------------------------


@bug(State, "touch_attempt")
def the_start_of_an_attempt_is_not_written(right):
    def touch_attempt(state: State, attempt: Attempt) -> None:
        if not attempt.started_at_ms or attempt.outcome is not None:
            right(state, attempt)

    return touch_attempt


@bug(requests, "on_drain")
def a_restart_forgets_the_drain(right):
    def on_drain(state: State, request: int, draining: bool, now_ms: int) -> Sequence[Action]:
        actions = right(state, request, draining, now_ms)
        state.changes.draining = None
        return actions

    return on_drain


@bug(State, "load")
def a_restart_forgets_leases(right):
    def load(state: State, jobs: list[Job], live: list[Attempt], *more: object) -> None:
        right(state, jobs, live, *more)
        state.pool.leased.clear()

    return load


# -- after a meeting with the runner --------------------------------------------------------------


@bug(reconcile, "on_unknown_to_runner")
def starts_are_sent_again_after_a_reboot(right):
    def on_unknown_to_runner(state: State, attempt: Attempt, now_ms: int) -> Sequence[Action]:
        if attempt.phase is Phase.STARTING:
            return (StartAttempt(attempt.job, attempt.no, attempt.lease),)
        return right(state, attempt, now_ms)

    return on_unknown_to_runner


@bug(reconcile, "on_unknown_to_runner")
def what_the_runner_does_not_know_has_succeeded(right):
    def on_unknown_to_runner(state: State, attempt: Attempt, now_ms: int) -> Sequence[Action]:
        attempts.end(state, attempt, Outcome.SUCCEEDED, "", now_ms)
        return ()

    return on_unknown_to_runner


@bug(reconcile, "on_unknown_to_runner")
def what_never_arrived_is_waited_for(right):
    def on_unknown_to_runner(state: State, attempt: Attempt, now_ms: int) -> Sequence[Action]:
        return [a for a in right(state, attempt, now_ms) if not isinstance(a, StartAttempt)]

    return on_unknown_to_runner


@bug(reconcile, "on_unknown_to_runner")
def a_start_is_sent_again_with_another_lease(right):
    def on_unknown_to_runner(state: State, attempt: Attempt, now_ms: int) -> Sequence[Action]:
        actions = right(state, attempt, now_ms)
        other = (LeasePart("b", 1000),)
        return [StartAttempt(attempt.job, attempt.no, other) for _ in actions]

    return on_unknown_to_runner


@bug(reconcile, "on_runner_ready")
def a_meeting_starts_everything_anew(right):
    def on_runner_ready(state: State, event: RunnerReady, now_ms: int) -> Sequence[Action]:
        return right(state, RunnerReady(event.boot_id), now_ms)

    return on_runner_ready


@bug(reconcile, "on_runner_ready")
def a_stop_is_not_repeated_after_a_crash(right):
    def on_runner_ready(state: State, event: RunnerReady, now_ms: int) -> Sequence[Action]:
        return [a for a in right(state, event, now_ms) if isinstance(a, StartAttempt)]

    return on_runner_ready


@bug(State, "activate")
def attempts_do_not_remember_their_boot(right):
    def activate(state: State, job: Job, lease: Lease, now_ms: int) -> Attempt:
        attempt = right(state, job, lease, now_ms)
        attempt.boot_id = "boot-1"
        return attempt

    return activate


# -- all of them -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[name](monkeypatch)
    with pytest.raises((AssertionError, ContradictionError, LookupError)):
        live_all()


def live_all() -> None:
    """Most is noticed at once; what concerns jobs after others on days on which they are edited."""
    run_state_machine_as_test(seed(0)(CoreMachine), settings=one_pass(EXAMPLES))
    for day in range(MOST_DAYS):
        live(day)
    for again in range(1, 4):
        run_state_machine_as_test(seed(again)(CoreMachine), settings=one_pass(EXAMPLES))
