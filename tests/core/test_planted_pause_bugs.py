"""Bugs about pauses and checkpoints, planted in the core: scenarios.py must notice each of them.

As in test_planted_gpu_bugs.py, in days on which people interrupt jobs more often.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
from msgspec import structs

from gpud.core import attempts, dispatching, reconcile, requests, running, sights, stops
from gpud.core.actions import Action, ContinueAttempt, PauseAttempt, StopAttempt
from gpud.core.events import CancelRequested, RetryRequested, RunnerReady
from gpud.core.lifecycle import ContradictionError
from gpud.core.model import Attempt, Job, Outcome, Phase
from gpud.core.state import State

from .planting import Bugs, plant
from .scenarios import INTERRUPTED, live

MOST_SCENARIOS = 400

BUGS: Bugs = {}
bug = partial(plant, BUGS)


# -- pauses ---------------------------------------------------------------------------------------


@bug(running, "on_pause")
def a_paused_job_gives_its_gpu_away(right):
    def on_pause(state: State, event, now_ms: int) -> Sequence[Action]:
        actions = right(state, event, now_ms)
        for action in actions:
            if isinstance(action, PauseAttempt):
                state.pool.give_back(state.attempts[action.job].lease)
        return actions

    return on_pause


@bug(reconcile, "on_runner_ready")
def a_pause_is_not_repeated_after_a_crash(right):
    def on_runner_ready(state: State, event: RunnerReady, now_ms: int) -> Sequence[Action]:
        return [a for a in right(state, event, now_ms) if not isinstance(a, PauseAttempt)]

    return on_runner_ready


@bug(reconcile, "on_runner_ready")
def a_continue_is_not_repeated_after_a_crash(right):
    def on_runner_ready(state: State, event: RunnerReady, now_ms: int) -> Sequence[Action]:
        return [a for a in right(state, event, now_ms) if not isinstance(a, ContinueAttempt)]

    return on_runner_ready


@bug(State, "load")
def a_restart_forgets_pauses(right):
    def load(state: State, jobs: list[Job], live: list[Attempt], *more: object) -> None:
        for attempt in live:
            if attempt.phase is Phase.PAUSED:
                attempt.phase, attempt.paused_at_ms = Phase.RUNNING, 0
        right(state, jobs, live, *more)

    return load


@bug(sights, "_add_up")
def who_is_paused_is_idle(right):
    def add_up(state: State, attempt: Attempt, *more: object) -> None:
        phase, attempt.phase = attempt.phase, Phase.RUNNING
        right(state, attempt, *more)
        attempt.phase = phase

    return add_up


@bug(dispatching, "end_ms")
def who_is_paused_is_gone_by_its_limit(right):
    def end_ms(state: State, now_ms: int, attempt: Attempt) -> int:
        return right(state, now_ms, structs.replace(attempt, phase=Phase.RUNNING))

    return end_ms


@bug(dispatching, "end_ms")
def a_pause_counts_as_running(right):
    def end_ms(state: State, now_ms: int, attempt: Attempt) -> int:
        return right(state, now_ms, structs.replace(attempt, paused_ms=0))

    return end_ms


@bug(running, "_why_not_now")
def a_pause_is_promised_while_nobody_can_keep_it(right):
    return lambda state, attempt: ""


@bug(requests, "unpause")
def a_cancelled_job_stays_paused(right):
    return lambda attempt, at_ms: None


# -- checkpoints ----------------------------------------------------------------------------------


@bug(attempts, "end")
def a_checkpoint_uses_up_a_retry(right):
    def end(state: State, attempt: Attempt, *more: object) -> None:
        job = state.jobs[attempt.job]
        job.retries_left = max(0, job.retries_left - attempt.leaving)
        right(state, attempt, *more)

    return end


@bug(attempts, "end")
def who_saves_its_state_and_leaves_has_failed(right):
    def end(state: State, attempt: Attempt, *more: object) -> None:
        attempt.leaving = False
        right(state, attempt, *more)

    return end


@bug(attempts, "end")
def who_leaves_with_status_0_is_done(right):
    def end(state: State, attempt: Attempt, outcome: Outcome, *more: object) -> None:
        attempt.leaving = attempt.leaving and outcome is not Outcome.SUCCEEDED
        right(state, attempt, outcome, *more)

    return end


@bug(attempts, "forget_checkpoint")
def an_end_before_the_signal_is_a_checkpoint(right):
    return lambda state, attempt: None


@bug(reconcile, "stop")
def after_a_crash_a_checkpoint_is_a_stop(right):
    return lambda state, attempt: StopAttempt(attempt.job, attempt.no, 10.0)


@bug(running, "NO_SIGNAL")
def any_job_is_asked_to_save_its_state(right):
    return ""


@bug(State, "requeue")
def nobody_is_told_to_resume(right):
    def requeue(state: State, job: Job, *more: object, **named: object) -> None:
        job.resume = False
        right(state, job, *more, **named)

    return requeue


@bug(State, "requeue")
def everybody_is_told_to_resume(right):
    def requeue(state: State, job: Job, *more: object, **named: object) -> None:
        job.resume = True
        right(state, job, *more, **named)

    return requeue


@bug(requests, "on_retry")
def what_has_succeeded_resumes_when_it_is_retried(right):
    def on_retry(state: State, event: RetryRequested, now_ms: int) -> Sequence[Action]:
        records = {job.id: job for job in event.recalled} | state.changes.jobs
        resumed = {job.id for job in records.values() if job.resume}
        actions = right(state, event, now_ms)
        for job in actions[0].jobs:
            state.jobs[job].resume = job in resumed
        return actions

    return on_retry


@bug(requests, "on_cancel")
def a_checkpoint_goes_before_a_cancel(right):
    def on_cancel(state: State, event: CancelRequested, now_ms: int) -> Sequence[Action]:
        before = {job: a.stop_why for job, a in state.attempts.items() if a.leaving}
        actions = right(state, event, now_ms)
        for job, why in before.items():
            state.attempts[job].leaving, state.attempts[job].stop_why = True, why
        return actions

    return on_cancel


@bug(sights, "save_and_leave")
def the_owner_of_a_guest_gpu_stops_who_could_save_its_state(right):
    return lambda state, attempt, why, at_ms, **detail: stops.stop(state, attempt, why, at_ms)


# -- all of them ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[name](monkeypatch)
    with pytest.raises((AssertionError, ContradictionError)):
        live_all()


def live_all() -> None:
    for seed in range(MOST_SCENARIOS):
        live(seed, often=INTERRUPTED)


@pytest.mark.slow
def test_without_a_bug_all_is_well() -> None:
    for seed in range(MOST_SCENARIOS // 4):
        live(seed, often=INTERRUPTED)
