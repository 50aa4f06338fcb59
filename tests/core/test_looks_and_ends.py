"""Where a look, an end and a person's word meet: cases that were once wrong."""

from __future__ import annotations

from collections.abc import Sequence

from gpud.core.actions import Action, LookAtGpus, StopAttempt
from gpud.core.events import (
    AttemptEnded,
    DevicesChanged,
    Event,
    GpuBroke,
    GpusSeen,
    HealRequested,
    JobsSubmitted,
    RetryRequested,
)
from gpud.core.explain import explain
from gpud.core.health import GpuPolicy
from gpud.core.model import JobId, NewJob, Request, RetryPolicy
from gpud.core.pool import Pool
from gpud.core.sight import GpuProcess, GpuSight
from gpud.core.state import State
from gpud.core.watching import NOT_SEEN, device_problems

from .build import NOW_MS, happens, ready, spec_of, started, submit
from .draws import GUEST, HALVES, U, V

STOP_IDLE = GpuPolicy(idle_ms=10_000, stop_idle=True)
BOBS = GpuProcess(4711, "python", "bob", 500)
FELL = "Xid 79: it has fallen off the bus"


def free(uuid: str = "GPU-u", **fields: object) -> GpuSight:
    usual = {"total_mib": 40_000, "used_mib": 300, "free_mib": 39_700, "util": 50}
    return GpuSight(uuid, **(usual | fields))


def at(ms: int, state: State, event: Event) -> list[Action]:
    return happens(state, event, now_ms=NOW_MS + ms)


def seen(ms: int, state: State, *sights: GpuSight) -> list[Action]:
    return at(ms, state, GpusSeen(NOW_MS + ms - 1, sights))


def stops(actions: Sequence[Action]) -> list[JobId]:
    return [action.job for action in actions if isinstance(action, StopAttempt)]


def after_one_that_left_memory(*processes: GpuProcess) -> tuple[State, JobId]:
    """A job has ended on u, its memory is still in use, and another waits."""
    state = ready(U)
    seen(0, state, free())
    job, following = submit(state), submit(state)
    started(state, job)
    at(10, state, AttemptEnded(job, 1, NOW_MS + 10, exit_code=0))
    seen(20, state, free(used_mib=20_000, free_mib=20_000, processes=processes))
    return state, following


def test_a_job_is_not_idle_as_long_as_one_of_its_gpus_was_not_seen() -> None:
    state = ready()
    happens(state, DevicesChanged((U, V), STOP_IDLE))
    job = submit(state, request=Request(2))
    seen(0, state, free(), free("GPU-v"))
    started(state, job)
    unread = GpuSight("GPU-v", "the driver was busy")
    for ms in (1_000, 12_000):
        assert not stops(seen(ms, state, free(util=0), unread))
    seen(13_000, state, free(util=0), free("GPU-v", util=0))
    assert stops(seen(24_000, state, free(util=0), free("GPU-v", util=0))) == [job]


def test_one_per_cent_of_a_shared_gpu_is_not_nothing() -> None:
    state = ready()
    happens(state, DevicesChanged((HALVES,), STOP_IDLE))
    jobs = [submit(state), submit(state)]
    seen(0, state, free("GPU-w"))
    for job in jobs:
        started(state, job)
    for ms in (1_000, 12_000):
        assert not stops(seen(ms, state, free("GPU-w", util=1)))


def test_what_will_be_over_in_a_moment_does_not_hide_what_will_not() -> None:
    state, following = after_one_that_left_memory()
    at(30, state, GpuBroke("GPU-u", NOW_MS + 30, FELL))
    assert FELL in explain(state, following, NOW_MS + 30)
    state, following = after_one_that_left_memory(BOBS)
    assert "python of bob" in explain(state, following, NOW_MS + 20)


def test_a_guest_that_waits_again_says_so_in_its_story() -> None:
    state = ready(GUEST)
    job = submit(state, retry=RetryPolicy(2))
    seen(0, state, free("GPU-x"))
    started(state, job)
    seen(10, state, free("GPU-x", processes=(BOBS,)))
    at(15, state, AttemptEnded(job, 1, NOW_MS + 15, signal=15))
    (ended,) = (story.detail for story in state.changes.story if story.kind == "ended")
    assert ended["retry_at_ms"] == NOW_MS + 15


def test_a_guest_that_is_held_says_why() -> None:
    state = ready(GUEST)
    job = submit(state)
    seen(0, state, free("GPU-x"))
    started(state, job)
    seen(10, state, free("GPU-x", processes=(BOBS,)))
    at(15, state, AttemptEnded(job, 1, NOW_MS + 15, signal=15))
    why = f"held since the owner of its guest GPU came back: gpuctl release {job}"
    assert explain(state, job, NOW_MS + 20) == why


def test_who_has_ended_since_the_last_look_is_not_beside_the_next_one() -> None:
    """Its process was there in that look: the next job need not wait until somebody looks again."""
    state = ready(U)
    job, following = submit(state), submit(state)
    seen(0, state, free())
    started(state, job)
    process = GpuProcess(4800, "python", "ann", 500, None, job, 1)
    seen(1_000, state, free(processes=(process,)))
    actions = at(1_100, state, AttemptEnded(job, 1, NOW_MS + 1_100, exit_code=0))
    assert LookAtGpus() in actions
    assert NOT_SEEN in explain(state, following, NOW_MS + 1_100)
    assert "used by job 1" not in device_problems(state).get("GPU-u", "")
    seen(1_110, state, free(processes=(process,)))
    assert "used by job 1, pid 4800" in device_problems(state)["GPU-u"]  # it lives on


def test_others_are_there_whoever_has_ended() -> None:
    state = ready(U)
    job = submit(state)
    seen(0, state, free())
    started(state, job)
    seen(1_000, state, free(processes=(BOBS,)))
    at(1_100, state, AttemptEnded(job, 1, NOW_MS + 1_100, exit_code=0))
    assert "python of bob" in device_problems(state)["GPU-u"]


def test_a_late_look_does_not_make_anybody_ask_again() -> None:
    state = ready(U)
    seen(10, state, free())
    assert LookAtGpus() in at(5_000, state, JobsSubmitted(1, (NewJob(spec_of()),)))
    assert LookAtGpus() not in at(5_001, state, GpusSeen(NOW_MS, (free(),)))


def test_a_heal_asks_for_one_look() -> None:
    state = ready(U)
    at(0, state, GpuBroke("GPU-u", NOW_MS, FELL))
    submit(state)
    looks = [a for a in at(1, state, HealRequested(5, ())) if isinstance(a, LookAtGpus)]
    assert looks == [LookAtGpus(afresh=True)]


def test_a_look_that_began_before_a_heal_says_nothing_of_that_gpu() -> None:
    """A driver that is slow at another GPU tells what it has seen so far after seconds."""
    state = ready(U, V)
    ill = GpuSight("GPU-u", "the driver did not answer for it", broken=True)
    seen(0, state, ill, GpuSight("GPU-v", "it must be reset", broken=True))
    at(10, state, HealRequested(5, ("GPU-u",)))
    assert told(state) == ["quarantined GPU-u", "quarantined GPU-v", "healed GPU-u"]
    at(8_000, state, GpusSeen(NOW_MS + 9, (ill, free("GPU-v"))))
    assert len(told(state)) == 3
    assert device_problems(state) == {"GPU-u": NOT_SEEN, "GPU-v": "it must be reset"}
    at(8_001, state, GpusSeen(NOW_MS + 10, (ill, free("GPU-v"))))  # asked for by the heal
    assert told(state)[3:] == ["quarantined GPU-u"]


def told(state: State) -> list[str]:
    gpus = (story for story in state.changes.story if story.kind.startswith("gpu-"))
    return [f"{story.kind.removeprefix('gpu-')} {story.detail['gpu']}" for story in gpus]


def test_after_the_clock_was_set_back_a_healed_gpu_is_seen_again() -> None:
    state = ready(U)
    at(3_600_000, state, GpuBroke("GPU-u", NOW_MS, FELL))
    at(3_600_000, state, HealRequested(5, ()))
    seen(0, state, free())
    seen(10, state, free())
    assert device_problems(state) == {}


def test_a_retry_by_a_person_forgives_setbacks() -> None:
    state = ready(U)
    job = submit(state)
    seen(0, state, free())
    started(state, job)
    state.jobs[job].setbacks = 5
    at(10, state, AttemptEnded(job, 1, NOW_MS + 10, lost="unseen"))
    record = state.take_changes().jobs[job]
    at(11, state, RetryRequested(2, (job,), (record,)))
    assert state.jobs[job].setbacks == 0


def test_a_gpu_that_takes_no_work_is_named_beside_one_that_has() -> None:
    state = ready(U, V)
    seen(0, state, free(processes=(BOBS,)), free("GPU-v"))
    busy, waits = submit(state), submit(state)
    assert set(state.attempts) == {busy}
    why = "GPU 0 takes no work: used by pid 4711 (python of bob, 500 MiB)"
    assert explain(state, waits, NOW_MS) == f"waits for the slot: it is taken; {why}"


def test_a_gpu_that_left_the_pool_and_is_back_is_looked_at_before_it_is_used() -> None:
    state = ready(U)
    seen(0, state, free())
    job = submit(state)
    started(state, job)
    at(5, state, DevicesChanged(()))
    at(10, state, AttemptEnded(job, 1, NOW_MS + 10, exit_code=0))
    at(11, state, DevicesChanged((U,)))
    actions = at(12, state, JobsSubmitted(1, (NewJob(spec_of()),)))
    assert LookAtGpus() in actions
    assert not state.attempts


def test_memory_of_a_job_that_outlived_the_daemon_is_waited_for() -> None:
    state = ready(U)
    seen(0, state, free())
    job = submit(state)
    started(state, job)
    again = State(Pool([U]))
    again.load([*state.jobs.values()], [*state.attempts.values()])
    again.boot_id, again.runner_problem, again.next_id = state.boot_id, "", state.next_id
    at(10, again, AttemptEnded(job, 1, NOW_MS + 10, exit_code=0))
    following = submit(again)
    seen(20, again, free(used_mib=20_000, free_mib=20_000))
    assert "being given back" in explain(again, following, NOW_MS + 20)
