"""Urgent jobs: who is asked to leave for them, and that nobody is asked in vain."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from gpud.amounts import URGENT
from gpud.core.actions import Action, CheckpointAttempt, StartAttempt
from gpud.core.events import (
    AttemptEnded,
    CheckpointRequested,
    DrainRequested,
    JobsSubmitted,
    PauseRequested,
    RulesChanged,
    Tick,
)
from gpud.core.explain import explain
from gpud.core.explain_room import kept_for
from gpud.core.forecast import forecast
from gpud.core.model import Array, Device, JobId, JobSpec, JobState, NewJob, Outcome, Phase, Request
from gpud.core.placement import place
from gpud.core.pool import Pool
from gpud.core.rules import Rule, Rules
from gpud.core.state import State

from .build import CPUS, HALVES, NOW_MS, PAIR, A, B, happens, ready, spec_of, started, submit

USR1 = 10
C = Device("c", ("c",))


def saves(**fields: object) -> JobSpec:
    return spec_of(checkpoint=USR1, **fields)


def urgent(**fields: object) -> JobSpec:
    return spec_of(priority=URGENT, **fields)


def running(state: State, *specs: JobSpec) -> list[JobId]:
    """Submitted one after the other; all of them run."""
    jobs = [submit(state, spec) for spec in specs]
    for job in jobs:
        started(state, job)
    return jobs


def asked(state: State) -> list[JobId]:
    return [job for job, attempt in sorted(state.attempts.items()) if attempt.leaving]


def leave(state: State, job: JobId) -> list[Action]:
    attempt = state.attempts[job]
    return happens(state, AttemptEnded(job, attempt.no, NOW_MS, exit_code=0, stopped=True))


def test_an_urgent_job_gets_the_gpu_of_one_that_saves_its_state() -> None:
    state = ready(A)
    (low,) = running(state, saves(grace_s=30.0))
    job = submit(state, urgent())
    assert asked(state) == [low]
    assert explain(state, job, NOW_MS) == "waits for a slot: job 1 leaves to make room for it"
    told = "saving its state on GPU a, to make room for an urgent job, to be queued again"
    assert explain(state, low, NOW_MS) == told
    assert kept_for(state) == {"a": job}
    (start,) = (action for action in leave(state, low) if isinstance(action, StartAttempt))
    assert (start.job, start.lease[0].device) == (job, "a")
    assert state.jobs[low].state is JobState.QUEUED
    assert (state.jobs[low].retries_left, state.jobs[low].resume) == (0, True)
    assert kept_for(state) == {}


def test_it_is_asked_for_once_with_its_grace_and_its_signal() -> None:
    state = ready(A)
    (low,) = running(state, saves(grace_s=30.0))
    actions = happens(state, JobsSubmitted(1, (NewJob(urgent()),)))
    assert CheckpointAttempt(low, 1, USR1, 30.0) in actions
    assert not any(happens(state, Tick()) for _ in range(3))


@pytest.mark.parametrize(
    "others",
    [spec_of(), saves(priority=URGENT), spec_of(priority=-9)],
    ids=["one that saves nothing", "one that is urgent, too", "one of low priority"],
)
def test_others_run_on(others: JobSpec) -> None:
    state = ready(A)
    running(state, others)
    job = submit(state, urgent())
    assert asked(state) == []
    assert state.reservation is not None or state.jobs[job].state is JobState.QUEUED
    assert explain(state, job, NOW_MS).startswith("waits for")


def test_who_is_not_urgent_makes_nobody_leave() -> None:
    state = ready(A)
    running(state, saves(priority=-9))
    submit(state, spec_of(priority=URGENT - 1))
    assert asked(state) == []


def test_nobody_leaves_while_there_is_room() -> None:
    state = ready(A, B)
    running(state, saves())
    job = submit(state, urgent())
    assert asked(state) == []
    assert job in state.attempts


def test_lower_priorities_leave_first_and_then_who_began_last() -> None:
    state = ready(A, B, C)
    high, first, last = running(state, saves(priority=5), saves(), saves())
    submit(state, urgent())
    assert asked(state) == [last]
    submit(state, urgent())
    assert asked(state) == [first, last]
    submit(state, urgent())
    assert asked(state) == [high, first, last]


def test_many_urgent_jobs_are_made_room_for_at_once() -> None:
    state = ready(A, B, C)
    jobs = running(state, saves(), saves(), saves())
    array = submit(state, urgent(array=Array(((0, 9, 1),))))
    assert asked(state) == jobs
    for job in jobs:
        leave(state, job)
    assert sorted(state.attempts) == [array, array + 1, array + 2]


def test_nobody_is_asked_in_vain() -> None:
    """Two GPUs are wanted, and on one of them runs somebody who stays."""
    state = ready(A, B)
    running(state, spec_of(), saves())
    job = submit(state, urgent(request=Request(2)))
    assert asked(state) == []
    assert explain(state, job, NOW_MS).startswith("waits for 2 GPUs at once")


def test_of_those_who_share_a_gpu_only_as_many_leave_as_have_to() -> None:
    state = ready(HALVES)
    halves = running(state, saves(), saves())
    submit(state, urgent(request=Request(share_milli=500, gpus=1)))
    assert asked(state) == halves[1:]
    submit(state, urgent(request=Request(share_milli=500, gpus=1)))
    assert asked(state) == halves


def test_what_is_left_is_not_for_others() -> None:
    state = ready(A, B)
    one, two = running(state, saves(), saves())
    job = submit(state, urgent(request=Request(2)))
    waiting = submit(state, spec_of(priority=9, time_limit_s=1.0))
    assert asked(state) == [one, two]
    leave(state, two)
    assert waiting not in state.attempts, "its GPU is kept"
    assert explain(state, waiting, NOW_MS) == (
        "waits for its turn behind job 3, for which GPUs a and b are kept"
    )
    leave(state, one)
    assert job in state.attempts


def test_whoever_is_on_the_way_out_counts_as_gone() -> None:
    state = ready(A, B)
    one, two = running(state, saves(), saves(priority=-1))
    happens(state, CheckpointRequested(5, (one,)))
    submit(state, urgent())
    assert asked(state) == [one]
    assert state.attempts[two].phase is Phase.RUNNING


def test_a_paused_job_leaves_too() -> None:
    state = ready(A)
    (low,) = running(state, saves())
    happens(state, PauseRequested(5, (low,)))
    submit(state, urgent())
    assert asked(state) == [low]


def test_a_place_in_its_group_is_needed_first() -> None:
    state = ready(A, B)
    happens(state, RulesChanged(Rules({"group:g": Rule(limit=1)})))
    running(state, saves(), saves())
    submit(state, urgent(group="g"), urgent(group="g"))
    assert len(asked(state)) == 1, "the second could not start"


def test_who_may_not_start_makes_nobody_leave() -> None:
    state = ready(A)
    running(state, saves())
    happens(state, DrainRequested(5))
    submit(state, urgent(), urgent(held=True), urgent(begin_ms=NOW_MS + 1000))
    assert asked(state) == []


def test_one_of_an_older_runner_stays() -> None:
    state = ready(A)
    (low,) = running(state, saves())
    state.older.add((low, 1))
    submit(state, urgent())
    assert asked(state) == []


def test_slots_of_the_lane_are_made_free_too() -> None:
    state = ready(CPUS)
    low, high = running(state, saves(request=Request(0)), saves(request=Request(0), priority=1))
    submit(state, urgent(request=Request(0)))
    assert asked(state) == [low]
    assert high in state.attempts


def test_a_pair_is_freed_as_a_whole() -> None:
    state = ready(PAIR, A)
    pair, single = running(state, saves(request=Request(2)), saves(request=Request(1)))
    submit(state, urgent(request=Request(2)))
    assert asked(state) == [pair]
    assert state.attempts[single].phase is Phase.RUNNING


def test_when_it_starts_is_foretold() -> None:
    state = ready(A)
    running(state, saves(grace_s=30.0))
    job = submit(state, urgent())
    told = forecast(state, NOW_MS, [job])[job]
    assert told.start_ms == NOW_MS + 30_000


def test_who_left_goes_on_when_there_is_room_again() -> None:
    state = ready(A)
    (low,) = running(state, saves())
    job = submit(state, urgent())
    leave(state, low)
    started(state, job)
    actions = happens(state, AttemptEnded(job, 1, NOW_MS, exit_code=0))
    (again,) = (action for action in actions if isinstance(action, StartAttempt))
    assert (again.job, again.attempt, again.resume) == (low, 2, True)


# -- whatever runs and waits -----------------------------------------------------------------------

BIG = Device("big", ("big",), 2, memory_mib=40_000)
SMALL = Device("small", ("small",), 1, memory_mib=16_000, model="T4")
DEVICES = [A, B, HALVES, PAIR, BIG, SMALL, CPUS]
asks = st.sampled_from([
    Request(), Request(0), Request(1), Request(2), Request(3), Request(1, share_milli=300),
    Request(vram_mib=10_000), Request(1, vram_mib=20_000), Request(exclusive=True),
    Request(gpu_model="T4"),
])  # fmt: skip
specs = st.builds(
    JobSpec,
    command=st.just(b"train"),
    request=asks,
    priority=st.sampled_from([0, 0, 1, -1, URGENT]),
    checkpoint=st.sampled_from([0, USR1, USR1]),
)


pools = st.lists(st.sampled_from(DEVICES), min_size=1, unique_by=lambda d: d.key)
before = st.lists(specs, max_size=14)


@given(devices=pools, before=before, request=asks)
def test_one_urgent_job(devices: list[Device], before: Sequence[JobSpec], request: Request) -> None:
    check_one(devices, before, request)


def check_one(devices: list[Device], before: Sequence[JobSpec], request: Request) -> None:
    """All who leave have to, and then there is room; if nobody does, it would not help."""
    state = ready(*devices)
    for spec in before:
        calm = structs.replace(spec, priority=min(spec.priority, 5))
        state.add(NewJob(calm), NOW_MS)
    happens(state, Tick())
    may_leave = [job for job in state.attempts if state.jobs[job].checkpoint]
    was_full = place(state.pool, request) is None
    job = state.add(NewJob(urgent(request=request)), NOW_MS).id
    happens(state, Tick())
    leaving = asked(state)
    assert set(leaving) <= set(may_leave)
    if not was_full:
        assert job in state.attempts
        assert not leaving
        return
    assert (place(without(state, leaving), request) is not None) == bool(leaving)
    for stays in leaving:
        others = [one for one in leaving if one != stays]
        assert place(without(state, others), request) is None, f"{stays} could stay"
    if not leaving:
        assert place(without(state, may_leave), request) is None
        return
    for one in leaving:
        assert job not in state.attempts
        leave(state, one)
    assert job in state.attempts
    assert asked(state) == []


several = st.lists(asks, min_size=1, max_size=6)


@given(devices=pools, before=before, jobs=several)
def test_several_urgent_jobs(
    devices: list[Device], before: Sequence[JobSpec], jobs: Sequence[Request]
) -> None:
    check_several(devices, before, jobs)


def check_several(
    devices: list[Device], before: Sequence[JobSpec], jobs: Sequence[Request]
) -> None:
    """The first that is made room for starts once those have left, whoever else waits; of the
    others each that fits; and when all have ended all others go on."""
    state = ready(*devices)
    for spec in before:
        state.add(NewJob(spec), NOW_MS)
    happens(state, Tick())
    for request in jobs:
        state.add(NewJob(urgent(request=request)), NOW_MS)
    happens(state, Tick())
    urgents = [job.id for job in state.jobs.values() if job.priority >= URGENT]
    assert not set(urgents) & set(asked(state))
    claims = set(state.claims)
    assert claims <= set(urgents)
    for one in asked(state):
        leave(state, one)
    assert not claims or min(claims) in state.attempts
    while leaving := asked(state):
        leave(state, leaving[0])
    assert not state.claims
    kept_for_one = state.reservation.job if state.reservation is not None else state.next_id
    for job in urgents[: urgents.index(kept_for_one)] if kept_for_one in urgents else urgents:
        assert job not in state.jobs or job in state.attempts or would_not_help(state, job)
    while state.attempts:
        job, attempt = next(iter(state.attempts.items()))
        happens(state, AttemptEnded(job, attempt.no, NOW_MS, exit_code=0))
    for job in state.jobs.values():
        assert explain(state, job.id, NOW_MS).startswith(("needs", "no GPU", "asks", "waits"))
        assert place(state.pool, job.request) is None


def would_not_help(state: State, job: JobId) -> bool:
    """Even if all left who can."""
    may_leave = [
        other
        for other in state.attempts
        if state.jobs[other].checkpoint and state.jobs[other].priority < URGENT
    ]
    return place(without(state, may_leave), state.jobs[job].request) is None


def without(state: State, jobs: Sequence[JobId]) -> Pool:
    pool = state.pool.copy()
    for job in jobs:
        pool.give_back(state.attempts[job].lease)
    return pool


def test_what_became_of_it_is_told() -> None:
    state = ready(A)
    (low,) = running(state, saves())
    job = submit(state, urgent())
    leave(state, low)
    told = [event for event in state.changes.story if event.kind == "checkpoint-requested"]
    assert [event.detail["made_for"] for event in told] == [job]
    ends = [event for event in state.changes.story if event.kind == "ended"]
    assert ends[0].detail["outcome"] == Outcome.KILLED
    assert ends[0].detail["why"] == "it made room for an urgent job"


def test_each_element_of_an_urgent_array_is_told_what_waits_for_it() -> None:
    """The first ones claim what is left to them; for the next one something is kept."""
    state = ready(A, B, C)
    can_save, *_ = running(state, saves(), spec_of(), spec_of())
    first = submit(state, urgent(array=Array(((0, 2, 1),))))
    told = [explain(state, JobId(first + n), NOW_MS) for n in range(3)]
    assert told[0] == f"waits for a slot: job {can_save} leaves to make room for it"
    assert told[1] == "waits for a slot: GPU b is kept for it"
    assert told[2].startswith(f"waits for its turn behind job {first + 1}")
