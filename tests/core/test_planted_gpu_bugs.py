"""Bugs about GPUs, planted in the core: scenarios.py must notice each of them.

As in test_planted_bugs.py; what is broken here is what queues for GPUs get wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
from msgspec import structs

from gpud.core import attempts, dispatching, health, placement, quarantines, setbacks, sights
from gpud.core.actions import Action
from gpud.core.events import GpusSeen
from gpud.core.health import Gpu, Health
from gpud.core.lifecycle import ContradictionError
from gpud.core.model import Attempt, Device, LeasePart, Outcome, Phase, Request
from gpud.core.pool import Lease, Pool
from gpud.core.ready import Ready
from gpud.core.sight import GpuSight
from gpud.core.state import State

from .planting import Bugs, plant
from .scenarios import live

MOST_SCENARIOS = 400

BUGS: Bugs = {}
bug = partial(plant, BUGS)


# -- other people ---------------------------------------------------------------------------------


@bug(health, "occupant")
def other_people_are_not_seen(right):
    return lambda sight, policy, holders: ""


@bug(health, "occupant")
def a_job_next_door_is_no_stranger(right):
    """It uses a GPU that it has no lease on (task-spooler issue 73)."""

    def occupant(sight, policy, holders) -> str:
        own = tuple(process for process in sight.processes if not process.job)
        return right(structs.replace(sight, processes=own), policy, holders)

    return occupant


@bug(Health, "is_stale")
def an_old_look_is_good_enough(right):
    return lambda self, device, now_ms: False


@bug(sights, "on_gpus_seen")
def a_look_that_is_told_late_wins(right):
    def on_gpus_seen(state: State, event: GpusSeen, now_ms: int) -> Sequence[Action]:
        state.health.seen_at_ms = 0
        return right(state, event, now_ms)

    return on_gpus_seen


@bug(Health, "note_end")
def a_look_from_before_the_end_counts(right):
    return lambda self, uuids, job, at_ms, *, seen: None


@bug(sights, "_give_back")
def guests_stay(right):
    return lambda state, attempt, at_ms: ()


# -- what is sick ---------------------------------------------------------------------------------


@bug(sights, "quarantine")
def a_broken_gpu_is_used_again(right):
    return lambda state, uuid, why, now_ms, **more: None


@bug(quarantines, "heal")
def heal_heals_nothing(right):
    return lambda state, uuid, now_ms, why: True


@bug(sights, "_judged")
def a_look_from_before_a_heal_undoes_it(right):
    def judged(state: State, event: GpusSeen, now_ms: int) -> list[GpuSight]:
        for sight in event.gpus:
            state.health.of(sight.uuid).healed_at_ms = 0
        return right(state, event, now_ms)

    return judged


@bug(sights, "quarantine")
def a_restart_lifts_a_quarantine(right):
    def quarantine(state: State, uuid: str, why: str, now_ms: int, **more: object) -> None:
        right(state, uuid, why, now_ms, **more)
        state.changes.quarantines.clear()

    return quarantine


@bug(setbacks, "sick_gpu")
def the_job_pays_for_a_broken_gpu(right):
    return lambda state, attempt: ""


@bug(setbacks, "sick_gpu")
def any_quarantine_excuses(right):
    """Also one from long before the attempt, on a GPU that was healed since."""

    def sick_gpu(state: State, attempt: Attempt) -> str:
        return right(state, attempt) or ("broken" if state.health.gpus else "")

    return sick_gpu


@bug(attempts, "finish_after_look")
def who_waits_for_a_look_waits_for_ever(right):
    return lambda state, now_ms: ()


@bug(sights, "finish_after_look")
def any_look_will_do(right):
    def finish(state: State, now_ms: int) -> Sequence[Action]:
        for job in sorted(state.finishing):
            attempts.end(state, state.attempts[job], Outcome.SUCCEEDED, "", now_ms)
        return ()

    return finish


# -- memory and shares ----------------------------------------------------------------------------


@bug(sights, "_judge_memory")
def memory_that_is_not_given_back_goes_unnoticed(right):
    return lambda state, gpu, sight, now_ms: None


@bug(sights, "_judge_memory")
def memory_that_stays_is_soon_anybodys(right):
    def judge(state: State, gpu: Gpu, sight: GpuSight, now_ms: int) -> None:
        right(state, gpu, structs.replace(sight, attributable=False), now_ms)

    return judge


@bug(sights, "_judge_memory")
def memory_that_may_be_anybodys_blocks_for_ever(right):
    def judge(state: State, gpu: Gpu, sight: GpuSight, now_ms: int) -> None:
        right(state, gpu, structs.replace(sight, attributable=True), now_ms)

    return judge


@bug(State, "_note_end_on_gpus")
def memory_of_a_job_whose_end_is_judged_later_is_usual(right):
    def note(state: State, attempt: Attempt, *, seen: bool) -> None:
        if attempt.phase is not Phase.FINISHING or seen:
            right(state, attempt, seen=seen)

    return note


@bug(sights, "lift_for_memory")
def memory_that_is_free_again_does_not_count(right):
    return lambda state, gpu, uuid, now_ms: None


@bug(Pool, "has_room")
def memory_is_promised_twice(right):
    return lambda pool, device, milli, mib, *, seen_mib: right(pool, device, milli, 0, seen_mib=0)


@bug(Health, "seen_free_mib")
def promises_that_are_not_used_yet_are_free(right):
    return lambda self, device, attempts: right(self, device, ())


@bug(placement, "takes")
def to_be_alone_is_a_wish_that_is_not_heard(right):
    def takes(device: Device, request: Request) -> tuple[int, int]:
        return right(device, structs.replace(request, exclusive=False))

    return takes


@bug(dispatching, "place")
def a_share_is_taken_for_a_whole(right):
    def place(pool: Pool, request: Request, avoid=()) -> Lease | None:
        lease = right(pool, request, avoid)
        return lease and tuple(LeasePart(part.device, 1, part.mib) for part in lease)

    return place


# -- first come -----------------------------------------------------------------------------------


@bug(dispatching, "reserve")
def nothing_is_kept_for_the_first(right):
    return lambda *args: None


@bug(dispatching, "_gap_s")
def anybody_with_a_limit_may_go_into_the_gap(right):
    return lambda kept, now_ms: 1_000_000


@bug(dispatching, "end_ms")
def time_limits_are_forgotten(right):
    return lambda state, now_ms, attempt: now_ms + 1000


@bug(State, "set_phase")
def gpus_are_freed_before_the_end_is_judged(right):
    def set_phase(state: State, job, phase: Phase) -> None:
        right(state, job, phase)
        if phase is Phase.FINISHING:
            state.pool.give_back(state.attempts[job.id].lease)

    return set_phase


# -- what was learned -----------------------------------------------------------------------------


@bug(attempts, "note_usage")
def what_runs_took_is_kept_in_memory_only(right):
    def note_usage(state: State, attempt: Attempt, likeness: str) -> None:
        right(state, attempt, likeness)
        state.changes.usual_mib.clear()

    return note_usage


@bug(Ready, "learn")
def who_waits_for_auto_does_not_hear_what_was_learned(right):
    return lambda self, likeness: None


@bug(dispatching, "most_mib")
def who_wants_little_memory_is_passed_over(right):
    return lambda pool, request, avoid: right(pool, request, avoid) // 2


@bug(setbacks, "with_more_memory")
def a_retry_after_oom_fails_in_the_same_way(right):
    return lambda state, job, attempt: ""


# -- all of them ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[name](monkeypatch)
    with pytest.raises((AssertionError, ContradictionError, KeyError)):
        live_all()


def live_all() -> None:
    for seed in range(MOST_SCENARIOS):
        live(seed)
