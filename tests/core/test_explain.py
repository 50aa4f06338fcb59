"""Why a job waits, as a sentence for the person who asked."""

from __future__ import annotations

import pytest

from gpud.core.events import (
    CancelRequested,
    DevicesChanged,
    DrainRequested,
    HoldRequested,
    RunnerGone,
)
from gpud.core.explain import ahead, explain
from gpud.core.model import After, Array, Device, JobId, Request, RetryPolicy, Span

from .build import CPUS, HALVES, NOW_MS, PAIR, A, B, ended, happens, ready, started, submit, unmet


def test_a_held_job_says_how_to_release_it() -> None:
    state = ready(A)
    job = submit(state, held=True)
    assert explain(state, job, NOW_MS) == f"held: gpuctl release {job}"


def test_hold_is_the_first_reason() -> None:
    state = unmet(A)
    job = submit(state)
    happens(state, HoldRequested(2, (job,)))
    assert explain(state, job, NOW_MS).startswith("held")


def test_an_active_job_says_where_it_is_and_in_which_phase() -> None:
    state = ready(A, B, CPUS)
    both = submit(state, request=Request(2))
    cpu = submit(state, request=Request(0))
    assert explain(state, both, NOW_MS) == "starting on GPUs a and b"
    started(state, both)
    assert explain(state, both, NOW_MS) == "running on GPUs a and b"
    happens(state, CancelRequested(2, (both,)))
    assert explain(state, both, NOW_MS) == "being stopped on GPUs a and b"
    assert explain(state, cpu, NOW_MS) == "starting on the CPU"


def test_without_a_runner_the_reason_is_the_runner() -> None:
    state = unmet(A)
    job = submit(state)
    reason = "jobs cannot be started now: the runner has not answered yet"
    assert explain(state, job, NOW_MS) == reason
    happens(state, RunnerGone("cannot reach the runner: it hung up"))
    assert explain(state, job, NOW_MS).endswith("cannot reach the runner: it hung up")


def test_a_job_whose_devices_have_left_says_so() -> None:
    state = ready(A, B)
    submit(state, request=Request(2))
    job = submit(state, request=Request(2))
    happens(state, DevicesChanged((A,)))
    assert explain(state, job, NOW_MS) == "needs 2 GPUs, this machine has 1"


@pytest.mark.parametrize(
    ("pause_s", "after_ms", "left"),
    [
        (10, 0, "10 s"),
        (10, 9_001, "1 s"),
        (10, 20_000, "0 s"),
        (119, 0, "119 s"),
        (120, 0, "2 min"),
        (7199, 0, "119 min"),
        (7200, 0, "2 h"),
    ],
)
def test_a_delayed_job_says_how_long(pause_s: float, after_ms: int, left: str) -> None:
    state = ready(A)
    job = submit(state, retry=RetryPolicy(3, backoff_s=pause_s, backoff_max_s=90_000))
    happens(state, ended(state, job, exit_code=1))
    state.jobs[job].not_before_ms = NOW_MS + int(1000 * pause_s)  # the whole of the pause
    reason = f"waits {left} more before retry 1 of 3"
    assert explain(state, job, NOW_MS + after_ms) == reason


def test_a_drained_pool_says_how_to_undo_it() -> None:
    state = ready(A)
    happens(state, DrainRequested(1))
    job = submit(state)
    assert explain(state, job, NOW_MS) == "the pool is drained: gpuctl undrain"


@pytest.mark.parametrize(
    ("devices", "request_", "reason"),
    [
        ((A,), Request(), "waits for the slot: it is taken"),
        ((HALVES,), Request(), "waits for a free slot: all 2 are taken"),
        ((A, B), Request(2), "waits for 2 GPUs at once: 0 of 2 slots are free"),
        ((PAIR,), Request(2), "waits for 2 GPUs at once: the slot is taken"),
        ((CPUS, A), Request(0), "waits for a free CPU slot: all 2 are taken"),
    ],
)
def test_a_full_pool_is_the_reason(
    devices: tuple[Device, ...], request_: Request, reason: str
) -> None:
    state = ready(*devices)
    jobs = [submit(state, request=request_) for _ in range(3)]
    assert explain(state, jobs[-1], NOW_MS) == reason


def test_a_job_that_will_start_in_this_turn_waits_for_its_turn() -> None:
    state = ready(A)
    happens(state, DrainRequested(1))
    job = submit(state)
    state.draining = False
    assert explain(state, job, NOW_MS) == "waits for its turn: the slot is free"


def test_a_job_that_is_not_in_memory_has_no_reason() -> None:
    assert explain(ready(A), JobId(7), NOW_MS) == ""


def test_ahead_counts_those_of_better_rank_that_could_start() -> None:
    state = ready(A)
    happens(state, DrainRequested(1))
    low, first, second = submit(state, priority=-1), submit(state), submit(state)
    held, urgent = submit(state, held=True), submit(state, priority=5)
    counts = {job: ahead(state, job, NOW_MS) for job in (low, first, second, held, urgent)}
    assert counts == {urgent: 0, first: 1, second: 2, low: 3, held: 0}
    assert ahead(state, JobId(99), NOW_MS) == 0


def test_a_hint_about_the_first_element_means_it_alone() -> None:
    """Its id alone means all of the array."""
    state = ready(A)
    first = submit(state, array=Array(((0, 2, 1),)))
    after = After((Span(first, first),), patient=True)
    waiting = submit(state, after=after)
    happens(state, CancelRequested(2, (first,)))
    happens(state, ended(state, first, signal=15))
    told = f"waits for job {first}, which was cancelled: gpuctl retry {first}-{first}"
    assert explain(state, waiting, NOW_MS) == told
    happens(state, HoldRequested(3, (JobId(first + 2),)))
    told = f"held: gpuctl release {first + 2}"
    assert explain(state, JobId(first + 2), NOW_MS) == told
