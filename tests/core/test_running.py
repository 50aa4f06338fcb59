"""Pause, continue, checkpoint: what each does, to whom, and in which words it is refused."""

from __future__ import annotations

import pytest

from gpud.core.actions import (
    Action,
    Answer,
    CheckpointAttempt,
    ContinueAttempt,
    LookAtGpus,
    PauseAttempt,
    StartAttempt,
    StopAttempt,
)
from gpud.core.events import (
    AttemptEnded,
    AttemptNotStarted,
    AttemptStarted,
    CancelRequested,
    CheckpointRequested,
    ContinueRequested,
    DrainRequested,
    Event,
    KnownAttempt,
    PauseRequested,
    RetryRequested,
    RunnerGone,
    RunnerReady,
)
from gpud.core.explain import explain
from gpud.core.health import GpuPolicy
from gpud.core.model import Device, Job, JobId, JobState, Outcome, Phase, Request, RetryPolicy
from gpud.core.reservation import NEVER
from gpud.core.running import NO_SIGNAL, OLDER
from gpud.core.state import State

from .build import BOOT, CPUS, NOW_MS, A, B, happens, only, ready, started, submit
from .draws import GUEST, U
from .test_setbacks import OWNED, running, seen

FIRST = JobId(1)
USR1 = 10
TWICE = RetryPolicy(2, backoff_s=0)
LOST = "the connection to the runner was lost"


def runs(*devices: Device, **fields: object) -> State:
    state = ready(*(devices or (A,)))
    started(state, submit(state, **fields))
    return state


def at(ms: int, state: State, event: Event) -> list[Action]:
    return happens(state, event, now_ms=NOW_MS + ms)


def pause(state: State, ms: int = 0) -> list[Action]:
    return at(ms, state, PauseRequested(2, (FIRST,)))


def go_on(state: State, ms: int = 0) -> list[Action]:
    return at(ms, state, ContinueRequested(3, (FIRST,)))


def checkpoint(state: State, ms: int = 0, grace_s: float | None = None) -> list[Action]:
    return at(ms, state, CheckpointRequested(4, (FIRST,), grace_s))


def end(state: State, ms: int = 100, **how: object) -> list[Action]:
    no = state.attempts[FIRST].no
    return at(ms, state, AttemptEnded(FIRST, no, NOW_MS + ms, **(how or {"exit_code": 0})))


def leave(state: State, ms: int = 100, **how: object) -> list[Action]:
    """The signal has reached it."""
    return end(state, ms, stopped=True, **(how or {"exit_code": 0}))


def kinds(state: State) -> list[str]:
    return [story.kind for story in state.changes.story if story.job == FIRST]


def refusal(actions: list[Action]) -> str:
    answer = only(Answer, actions)
    assert answer.jobs == ()
    ((_, sentence),) = answer.refused
    return sentence


# -- pause and continue ---------------------------------------------------------------------------


def test_a_paused_job_keeps_its_lease_and_is_continued() -> None:
    state = runs()
    waits = submit(state)
    assert pause(state) == [PauseAttempt(FIRST, 1), Answer(2, (FIRST,))]
    assert state.attempts[FIRST].phase is Phase.PAUSED
    assert state.jobs[waits].state is JobState.QUEUED
    assert explain(state, waits, NOW_MS).startswith("waits for the slot")
    assert go_on(state, 5000) == [ContinueAttempt(FIRST, 1), Answer(3, (FIRST,))]
    attempt = state.attempts[FIRST]
    assert (attempt.phase, attempt.paused_ms) == (Phase.RUNNING, 5000)
    assert kinds(state)[-2:] == ["paused", "continued"]


def test_doing_it_twice_does_no_harm() -> None:
    state = runs()
    assert only(Answer, go_on(state)).jobs == (FIRST,)
    pause(state)
    assert pause(state, 50) == [PauseAttempt(FIRST, 1), Answer(2, (FIRST,))]
    assert state.attempts[FIRST].paused_at_ms == NOW_MS
    go_on(state)
    assert go_on(state) == [Answer(3, (FIRST,))]
    assert kinds(state).count("paused") == kinds(state).count("continued") == 1


def test_it_says_that_it_is_paused_for_how_long_and_what_stays_held() -> None:
    state = runs()
    pause(state)
    assert explain(state, FIRST, NOW_MS + 720_000) == (
        "paused on GPU a for 12 min; its GPU memory stays held: gpuctl continue 1"
    )
    state = runs(CPUS, request=Request(0))
    pause(state)
    assert explain(state, FIRST, NOW_MS) == "paused on the CPU for 0 s: gpuctl continue 1"


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (lambda: with_job(held=True), "it is held"),
        (lambda: with_job(DrainRequested(1)), "it is queued"),
        (lambda: with_job(), "it is starting"),
        (lambda: with_events(CancelRequested(1, (FIRST,))), "it is stopping"),
        (lambda: with_events(AttemptEnded(FIRST, 1, NOW_MS, exit_code=0)), "it is done"),
        (lambda: ready(A), "no such job"),
    ],
)
@pytest.mark.parametrize("verb", ["pause", "continue", "checkpoint"])
def test_who_does_not_run_cannot_be_interrupted(state, why: str, verb: str) -> None:
    ask = {"pause": pause, "continue": go_on, "checkpoint": checkpoint}[verb]
    made = state()
    assert refusal(ask(made)).startswith(f"cannot {verb} job 1: {why}")


def with_job(*events: Event, **fields: object) -> State:
    state = ready(A)
    happens(state, *events)
    submit(state, checkpoint=USR1, **fields)
    return state


def with_events(*events: Event) -> State:
    state = runs(checkpoint=USR1)
    happens(state, *events)
    return state


def test_nobody_is_told_paused_whom_the_runner_cannot_be_told_of() -> None:
    state = runs(checkpoint=USR1)
    happens(state, RunnerGone(LOST))
    assert refusal(pause(state)) == f"cannot pause job 1: {LOST}"
    assert refusal(checkpoint(state)) == f"cannot checkpoint job 1: {LOST}"
    happens(state, RunnerReady(BOOT, (KnownAttempt(FIRST, 1, "running"),)))
    pause(state)
    happens(state, RunnerGone(LOST))
    assert only(Answer, go_on(state)).jobs == (FIRST,)


def test_a_runner_that_knows_neither_is_not_asked() -> None:
    state = runs(checkpoint=USR1)
    happens(state, RunnerGone(LOST))
    happens(state, RunnerReady(BOOT, (KnownAttempt(FIRST, 1, "running", older=True),)))
    assert refusal(pause(state)) == f"cannot pause job 1: {OLDER}"
    assert refusal(checkpoint(state)) == f"cannot checkpoint job 1: {OLDER}"


def test_a_cancel_ends_a_pause() -> None:
    state = runs()
    pause(state)
    actions = at(10, state, CancelRequested(5, (FIRST,)))
    assert only(StopAttempt, actions).attempt == 1
    assert state.attempts[FIRST].phase is Phase.STOPPING
    end(state, signal=15, stopped=True)
    assert state.changes.jobs[FIRST].outcome is Outcome.CANCELLED


@pytest.mark.parametrize(
    ("how", "outcome"), [({"exit_code": 0}, "succeeded"), ({"signal": 9}, "killed")]
)
def test_who_ends_while_paused_ends_as_it_does(how: dict[str, int], outcome: str) -> None:
    state = runs()
    pause(state)
    end(state, **how)
    assert state.changes.jobs[FIRST].outcome == outcome
    assert not state.pool.leased


def test_who_ends_badly_on_a_gpu_while_paused_is_judged_after_a_look() -> None:
    state = running(U)
    pause(state)
    assert LookAtGpus() in end(state, signal=9)
    assert state.attempts[FIRST].phase is Phase.FINISHING


def test_after_a_meeting_the_runner_is_told_again_what_is_paused_and_what_is_not() -> None:
    state = runs()
    pause(state)
    happens(state, RunnerGone(LOST))
    known = KnownAttempt(FIRST, 1, "running")
    assert happens(state, RunnerReady(BOOT, (known,))) == [PauseAttempt(FIRST, 1)]
    happens(state, RunnerGone(LOST))
    go_on(state)
    known = KnownAttempt(FIRST, 1, "paused")
    assert happens(state, RunnerReady(BOOT, (known,))) == [ContinueAttempt(FIRST, 1)]
    happens(state, RunnerGone(LOST))
    assert happens(state, RunnerReady(BOOT, (KnownAttempt(FIRST, 1, "running"),))) == []


def test_nobody_counts_on_the_time_limit_of_who_is_paused() -> None:
    state = runs(A, B, time_limit_s=100.0)
    submit(state, request=Request(2))  # for which B is kept
    submit(state)
    assert state.reservation is not None
    assert state.reservation.at_ms == NOW_MS + 120_000  # grace and linger are 10 s each
    pause(state)
    assert state.reservation.at_ms == NEVER
    go_on(state, 50_000)
    assert state.reservation.at_ms == NOW_MS + 50_000 + 120_000


def test_who_is_paused_is_not_idle_and_nor_is_that_time_later() -> None:
    state = running(U, policy=GpuPolicy(idle_ms=5_000))
    seen(1000, state)
    pause(state, 2000)
    for ms in (8_000, 60_000):
        seen(ms, state)
    go_on(state, 61_000)
    seen(62_000, state)
    assert "gpu-idle" not in kinds(state)
    seen(68_000, state)
    assert "gpu-idle" in kinds(state)


# -- checkpoints ----------------------------------------------------------------------------------


def test_a_job_saves_its_state_leaves_and_resumes() -> None:
    state = runs(checkpoint=USR1, retry=TWICE, retry_args=b"--go-on")
    assert checkpoint(state) == [CheckpointAttempt(FIRST, 1, USR1, 10.0), Answer(4, (FIRST,))]
    assert explain(state, FIRST, NOW_MS) == "saving its state on GPU a, to be queued again"
    start = only(StartAttempt, leave(state))
    assert (start.attempt, start.resume) == (2, True)
    job = state.jobs[FIRST]
    assert (job.retries_left, job.retry_no) == (2, 0)
    assert state.changes.attempts[FIRST, 1].outcome is Outcome.KILLED
    assert state.changes.attempts[FIRST, 1].why == "it was asked to save its state and leave"


@pytest.mark.parametrize(
    "how",
    [{"exit_code": 0}, {"exit_code": 3}, {"signal": 15}, {"signal": 15, "timed_out": True},
     {"lost": "the runner died while it ran"}],
)  # fmt: skip
@pytest.mark.parametrize("retry", [RetryPolicy(), TWICE])
def test_however_it_leaves_it_is_queued_again(how: dict[str, object], retry: RetryPolicy) -> None:
    state = runs(checkpoint=USR1, retry=retry)
    checkpoint(state)
    assert only(StartAttempt, leave(state, **how)).resume
    assert state.jobs[FIRST].retries_left == retry.retries


def test_as_often_as_it_is_asked() -> None:
    state = runs(checkpoint=USR1)
    for round_no in range(1, 10):
        checkpoint(state)
        leave(state)
        assert state.attempts[FIRST].no == round_no + 1
        started(state, FIRST)
    end(state)
    assert state.changes.jobs[FIRST].outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("how", "outcome"), [({"exit_code": 0}, "succeeded"), ({"exit_code": 4}, "failed")]
)
def test_who_ended_before_the_signal_was_sent_has_ended(how: dict[str, int], outcome: str) -> None:
    state = runs(checkpoint=USR1)
    checkpoint(state)
    end(state, **how)
    assert state.changes.jobs[FIRST].outcome == outcome


def test_an_end_before_the_signal_uses_up_a_retry_as_ever() -> None:
    state = runs(checkpoint=USR1, retry=TWICE)
    checkpoint(state)
    start = only(StartAttempt, end(state, exit_code=1))
    assert (start.resume, state.jobs[FIRST].retries_left) == (False, 1)


def test_what_was_never_started_has_nothing_to_resume() -> None:
    state = running_guest(checkpoint=USR1)
    state.attempts[FIRST].started_at_ms = 0  # not told yet
    seen(1000, state, OWNED)
    why = "the directory /x does not exist"
    at(1100, state, AttemptNotStarted(FIRST, 1, NOW_MS + 1100, "cwd", why))
    job = state.jobs[FIRST]
    assert (job.state, job.resume) == (JobState.QUEUED, False)


def test_it_resumes_until_it_has_succeeded() -> None:
    state = runs(checkpoint=USR1, retry=TWICE)
    checkpoint(state)
    leave(state)
    started(state, FIRST)
    assert only(StartAttempt, end(state, exit_code=1)).resume
    started(state, FIRST)
    end(state, signal=9)
    started(state, FIRST)
    end(state, exit_code=1)
    assert retried(state).resume
    started(state, FIRST)
    end(state)
    assert not retried(state).resume


def retried(state: State) -> StartAttempt:
    job = state.changes.jobs[FIRST]
    assert isinstance(job, Job)
    return only(StartAttempt, happens(state, RetryRequested(9, (FIRST,), (job,))))


def test_only_who_said_how_is_asked() -> None:
    state = runs()
    assert refusal(checkpoint(state)) == f"cannot checkpoint job 1: {NO_SIGNAL}"


def test_a_grace_of_its_own_and_asking_again() -> None:
    state = runs(checkpoint=USR1, grace_s=30.0)
    assert only(CheckpointAttempt, checkpoint(state, grace_s=2.5)).grace_s == 2.5
    assert checkpoint(state) == [Answer(4, (FIRST,))]
    assert refusal(pause(state)) == "cannot pause job 1: it is stopping"
    happens(state, RunnerGone(LOST))
    again = happens(state, RunnerReady(BOOT, (KnownAttempt(FIRST, 1, "stopping"),)))
    assert again == [CheckpointAttempt(FIRST, 1, USR1, 2.5)]


def test_a_paused_one_is_asked_and_paused_no_more() -> None:
    state = runs(checkpoint=USR1)
    pause(state)
    assert only(CheckpointAttempt, checkpoint(state, 1000)).signal == USR1
    assert state.attempts[FIRST].paused_ms == 1000


def test_a_cancel_goes_before_a_checkpoint() -> None:
    state = runs(checkpoint=USR1)
    checkpoint(state)
    assert only(StopAttempt, happens(state, CancelRequested(5, (FIRST,), 1.0))).grace_s == 1.0
    leave(state)
    assert state.changes.jobs[FIRST].outcome is Outcome.CANCELLED


def test_a_checkpoint_under_way_is_over_with_the_machine() -> None:
    state = runs(checkpoint=USR1)
    checkpoint(state)
    happens(state, RunnerGone(LOST))
    start = only(StartAttempt, happens(state, RunnerReady("boot-2")))
    assert start.resume
    assert state.changes.attempts[FIRST, 1].outcome is Outcome.LOST


# -- guests ---------------------------------------------------------------------------------------


def running_guest(**fields: object) -> State:
    return running(GUEST, **fields)


@pytest.mark.parametrize("paused", [False, True])
def test_the_owner_of_a_guest_gpu_comes_and_a_job_saves_its_state(paused: bool) -> None:
    state = running_guest(checkpoint=USR1)
    if paused:
        pause(state)
    asked = only(CheckpointAttempt, seen(1000, state, OWNED))
    assert (asked.signal, asked.grace_s) == (USR1, 10.0)
    (told,) = [s.detail for s in state.changes.story if s.kind == "checkpoint-requested"]
    assert (told["reason"], told["owner"]) == ("guest", "pid 4711 (python of bob, 500 MiB)")
    assert not [a for a in leave(state, 1100) if isinstance(a, StartAttempt)]
    job = state.jobs[FIRST]
    assert (job.state, job.resume, job.setbacks) == (JobState.QUEUED, True, 0)
    assert only(StartAttempt, seen(5000, state)).resume
    happens(state, AttemptStarted(FIRST, 2, 5, NOW_MS + 5000))


def test_who_cannot_save_its_state_is_stopped_paused_or_not() -> None:
    state = running_guest()
    pause(state)
    assert only(StopAttempt, seen(1000, state, OWNED)).attempt == 1
    leave(state, 1100, signal=15)
    assert state.jobs[FIRST].state is JobState.HELD
