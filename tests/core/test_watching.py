"""When a look at the GPUs is asked for, and what waits for it."""

from __future__ import annotations

import pytest

from gpud.core.actions import Action, LookAtGpus, StartAttempt
from gpud.core.events import (
    AttemptEnded,
    CancelRequested,
    DevicesChanged,
    DrainRequested,
    Event,
    GpuBroke,
    GpusSeen,
    JobsSubmitted,
    Tick,
)
from gpud.core.explain import explain
from gpud.core.explain_room import devices_for
from gpud.core.health import GpuPolicy
from gpud.core.model import Device, JobId, NewJob, Request
from gpud.core.scheduler import next_deadline
from gpud.core.sight import GpuProcess, GpuSight
from gpud.core.state import State

from .build import CPUS, NOW_MS, A, happens, ready, spec_of, started, submit
from .draws import HALVES, U, V

LOOK = [LookAtGpus()]
BOBS = GpuProcess(4711, "python", "bob", 500)
ROOMY = Request(vram_mib=30_000)


def free(uuid: str = "GPU-u", free_mib: int = 39_700, **fields: object) -> GpuSight:
    used_mib = 40_000 - free_mib
    return GpuSight(uuid, total_mib=40_000, used_mib=used_mib, free_mib=free_mib, **fields)


def at(ms: int, state: State, event: Event) -> list[Action]:
    """So many milliseconds after NOW_MS."""
    return happens(state, event, now_ms=NOW_MS + ms)


def seen(ms: int, state: State, *sights: GpuSight, problem: str = "") -> list[Action]:
    """A look that began a millisecond before."""
    return at(ms, state, GpusSeen(NOW_MS + ms - 1, sights, problem))


def new(**fields: object) -> JobsSubmitted:
    return JobsSubmitted(1, (NewJob(spec_of(**fields)),))


def looks(actions: list[Action]) -> list[Action]:
    return [action for action in actions if isinstance(action, LookAtGpus)]


def starts(actions: list[Action]) -> list[JobId]:
    return [action.job for action in actions if isinstance(action, StartAttempt)]


def deadline(state: State) -> int | None:
    """In milliseconds after NOW_MS."""
    due = next_deadline(state)
    return None if due is None else due - NOW_MS


# -- nobody has looked ----------------------------------------------------------------------------


def test_for_a_gpu_that_nobody_has_looked_at_a_look_is_asked_for_once() -> None:
    state = ready(U, V)
    actions = at(0, state, new())
    assert (looks(actions), starts(actions)) == (LOOK, [])
    assert at(1, state, Tick()) == []
    assert looks(at(2, state, new())) == []


def test_a_look_that_does_not_come_is_asked_for_again() -> None:
    state = ready(U)
    at(0, state, new())
    assert deadline(state) == 30_000
    assert at(29_999, state, Tick()) == []
    assert at(30_000, state, Tick()) == LOOK
    assert deadline(state) == 60_000


def test_when_the_clock_was_set_back_the_look_is_asked_for_again() -> None:
    state = ready(U)
    at(3_600_000, state, new())
    assert at(0, state, Tick()) == LOOK
    assert deadline(state) == 30_000


def test_the_start_comes_in_the_dispatch_after_the_look() -> None:
    state = ready(U)
    at(0, state, new())
    assert starts(seen(5, state, free())) == [1]
    assert deadline(state) is None


def test_a_job_that_waits_for_a_look_waits_for_its_turn() -> None:
    state = ready(U)
    job = submit(state)
    assert (
        explain(state, job, NOW_MS)
        == "waits for a slot; GPU 0 takes no work: it is being looked at"
    )
    assert devices_for(state, job) == ["GPU 0: takes no work: it is being looked at"]


def test_on_the_word_of_a_look_jobs_start_for_two_seconds() -> None:
    state = ready(U, V, HALVES)
    seen(0, state, free(), free("GPU-v"), free("GPU-w"))
    assert starts(at(1_999, state, new())) == [1]
    assert starts(at(2_000, state, new())) == [2]
    actions = at(2_001, state, new())
    assert (looks(actions), starts(actions)) == (LOOK, [])


def test_after_an_end_somebody_looks_before_the_next_start() -> None:
    state = ready(U)
    seen(0, state, free())
    job, following = submit(state), submit(state)
    started(state, job)
    actions = at(10, state, AttemptEnded(job, 1, NOW_MS + 10, exit_code=0))
    assert (looks(actions), starts(actions)) == (LOOK, [])
    assert starts(seen(12, state, free())) == [following]


def test_a_look_that_began_before_the_end_will_not_do() -> None:
    state = ready(U)
    seen(0, state, free())
    job, following = submit(state), submit(state)
    started(state, job)
    at(10, state, AttemptEnded(job, 1, NOW_MS + 10, exit_code=0))
    actions = seen(11, state, free())
    assert (looks(actions), starts(actions)) == (LOOK, [])
    assert starts(seen(12, state, free())) == [following]


def test_an_end_in_the_future_is_one_of_now() -> None:
    """The clock was set back."""
    state = ready(U)
    seen(0, state, free())
    job, following = submit(state), submit(state)
    started(state, job)
    at(10, state, AttemptEnded(job, 1, NOW_MS + 3_600_000, exit_code=0))
    assert looks(seen(20, state, free())) == LOOK  # it began at 19, and the end was at 20
    assert starts(seen(30, state, free())) == [following]


# -- nobody needs a look --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "events",
    [
        [Tick()],
        [new(held=True)],
        [new(request=Request(0))],
        [new(request=Request(0))] * 3,  # the third waits
        [DrainRequested(1), new()],
    ],
)
def test_while_no_job_could_start_on_a_gpu_nobody_looks(events: list[Event]) -> None:
    state = ready(U, CPUS)
    for event in events:
        assert looks(at(0, state, event)) == []
    assert deadline(state) is None


def test_a_gpu_that_cannot_be_looked_at_needs_no_look() -> None:
    state = ready(A)
    actions = at(0, state, new())
    assert (looks(actions), starts(actions)) == ([], [1])


@pytest.mark.parametrize("others", [(), (BOBS,)])
def test_a_gpu_without_room_needs_no_look(others: tuple[GpuProcess, ...]) -> None:
    state = ready(U)
    seen(0, state, free())
    assert starts(at(0, state, new())) == [1]
    seen(10, state, free(processes=others))
    assert looks(at(5_000, state, new())) == []
    assert deadline(state) is None


def test_one_slot_that_is_left_is_room() -> None:
    state = ready(HALVES)
    seen(0, state, free("GPU-w"))
    assert starts(at(0, state, new())) == [1]
    assert looks(at(5_000, state, new())) == LOOK


# -- somebody else is there -----------------------------------------------------------------------

IN_THE_WAY = [
    ([free(processes=(BOBS,))], ""),
    ([GpuSight("GPU-u", "it is being reset")], ""),
    ([], ""),  # the driver does not list it
    ([], "the driver does not answer"),
]


@pytest.mark.parametrize(("sights", "problem"), IN_THE_WAY)
def test_while_a_gpu_is_in_use_somebody_looks_every_two_seconds(
    sights: list[GpuSight], problem: str
) -> None:
    state = ready(U)
    at(0, state, new())
    assert seen(100, state, *sights, problem=problem) == []
    assert deadline(state) == 2_100
    assert at(2_099, state, Tick()) == []
    assert at(2_100, state, Tick()) == LOOK
    assert at(2_101, state, Tick()) == []
    assert deadline(state) == 32_100
    assert seen(2_105, state, *sights, problem=problem) == []
    assert deadline(state) == 4_105
    assert starts(seen(4_105, state, free())) == [1]


def test_a_job_that_comes_to_a_gpu_in_use_has_it_looked_at_first() -> None:
    state = ready(U)
    seen(0, state, free(processes=(BOBS,)))
    assert looks(at(1_999, state, new())) == []
    assert looks(at(2_000, state, new())) == LOOK


def test_nobody_looks_for_a_job_that_is_cancelled() -> None:
    state = ready(U)
    job = submit(state)
    seen(100, state, free(processes=(BOBS,)))
    at(200, state, CancelRequested(2, (job,)))
    assert deadline(state) is None


def test_nobody_looks_for_a_quarantined_gpu_to_get_better() -> None:
    state = ready(U)
    submit(state)
    at(5, state, GpuBroke("GPU-u", NOW_MS + 5, "Xid 79: it has fallen off the bus"))
    seen(10, state, free())
    assert at(5_000, state, Tick()) == []
    assert deadline(state) is None


def test_memory_that_is_being_given_back_is_waited_for() -> None:
    state = ready(U)
    seen(0, state, free())
    job, following = submit(state), submit(state)
    started(state, job)
    at(10, state, AttemptEnded(job, 1, NOW_MS + 10, exit_code=0))
    assert starts(seen(20, state, free(free_mib=20_000))) == []
    assert deadline(state) == 2_020
    assert starts(seen(2_020, state, free())) == [following]


# -- memory ---------------------------------------------------------------------------------------


def shared(device: Device) -> State:
    """Others on it are no reason; the memory that they take is."""
    state = ready()
    happens(state, DevicesChanged((device,), GpuPolicy(respect_others=False)))
    return state


def test_a_job_for_memory_waits_while_a_look_finds_too_little_free() -> None:
    state = shared(U)
    job = submit(state, request=ROOMY)
    assert starts(seen(5, state, free(free_mib=20_000, processes=(BOBS,)))) == []
    why = "waits for 29.3 GiB of GPU memory: 19.5 GiB is free at most"
    assert explain(state, job, NOW_MS) == why
    assert starts(seen(8, state, free(free_mib=29_999, processes=(BOBS,)))) == []
    why = "waits for 30000 MiB of GPU memory: 29999 MiB is free at most"
    assert explain(state, job, NOW_MS) == why
    assert devices_for(state, job)[0].endswith("has 29999 MiB of memory free")
    assert starts(seen(10, state, free(free_mib=30_000, processes=(BOBS,)))) == [job]


def test_a_job_that_names_no_memory_does_not_wait_for_it() -> None:
    state = shared(U)
    job = submit(state)
    assert starts(seen(5, state, free(free_mib=100, processes=(BOBS,)))) == [job]


def test_memory_that_is_promised_and_not_in_use_yet_is_not_free() -> None:
    state = shared(HALVES)
    submit(state, request=Request(vram_mib=15_000))
    seen(0, state, free("GPU-w", 30_000, processes=(BOBS,)))  # the first job has just started
    following = submit(state, request=Request(vram_mib=15_001))
    assert list(state.attempts) == [1]
    ours = GpuProcess(5_000, "python", "ann", 4_999, job=1, attempt=1)
    bobs = GpuProcess(4_711, "python", "bob", 9_999)
    assert starts(seen(10, state, free("GPU-w", 25_001, processes=(bobs, ours)))) == []
    assert starts(seen(20, state, free("GPU-w", 25_002, processes=(bobs, ours)))) == [following]
