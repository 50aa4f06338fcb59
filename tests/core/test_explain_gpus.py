"""What `why` says about GPUs: the rule that chose them, what each is to who waits, the remedy."""

from __future__ import annotations

import pytest

from gpud.amounts import URGENT
from gpud.core.events import (
    CancelRequested,
    DevicesChanged,
    DrainRequested,
    GpuBroke,
    GpusSeen,
)
from gpud.core.explain import explain
from gpud.core.explain_room import devices_for, kept_now, misuses, unlisted
from gpud.core.health import GpuPolicy
from gpud.core.model import Array, Device, JobId, Request
from gpud.core.sight import GpuProcess, GpuSight
from gpud.core.state import State

from .build import CPUS, HALVES, NOW_MS, A, B, happens, ready, spec_of, started, submit
from .draws import U, V, gpu

C = Device("c", ("c",))
MIG = Device("MIG-1", ("MIG-1",), uuids=("MIG-1",), mig=True)
FELL = "Xid 79: it has fallen off the bus"


def sights(*uuids: str, util: int = 50) -> tuple[GpuSight, ...]:
    return tuple(GpuSight(uuid, used_mib=0, free_mib=40_000, util=util) for uuid in uuids)


def look(state: State, *seen: GpuSight, at_ms: int = NOW_MS) -> None:
    happens(state, GpusSeen(at_ms, seen), now_ms=at_ms + 1)


# -- where it runs, and why there -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("devices", "request_", "line"),
    [
        ((A, B), Request(), "GPU a: the first in the order of the pool that had room"),
        ((HALVES, A), Request(), "GPU h: the fullest that has room, so that whole GPUs stay free"),
        ((A, CPUS), Request(0), "the CPU: it needs no GPU"),
        ((A, B, C), Request(3),
         "GPUs a, b and c: the first in the order of the pool that had room"),
        ((HALVES, Device("g", ("g",), 2)), Request(2),
         "GPUs h and g: the fullest that have room, so that whole GPUs stay free"),
    ],
)  # fmt: skip
def test_of_an_active_job_the_rule_is_told(
    devices: tuple[Device, ...], request_: Request, line: str
) -> None:
    state = ready(*devices)
    job = submit(state, request=request_)
    assert devices_for(state, job) == [f"placed on {line}"]
    started(state, job)
    assert devices_for(state, job) == [f"placed on {line}"]


@pytest.mark.parametrize(
    ("devices", "request_", "line"),
    [
        ((U, V), Request(2), "GPUs 0 and 1: the nearest to each other that have room: NVLink"),
        ((gpu("x", y=1), gpu("y", x=1), gpu("z")), Request(3),
         "GPUs 3, 4 and 5: the nearest to each other that have room"),
        ((gpu("x", guest=True), gpu("y", guest=True)), Request(),
         "GPU 3: guest GPUs, since no other has room"),
        ((MIG, U), Request(gpu_model=""),
         "MIG-1: the first in the order of the pool that had room"),
    ],
)  # fmt: skip
def test_the_rule_on_gpus_that_are_looked_at(
    devices: tuple[Device, ...], request_: Request, line: str
) -> None:
    state = ready(*devices)
    job = submit(state, request=request_)
    look(state, *sights(*(uuid for device in devices for uuid in device.uuids)))
    assert devices_for(state, job) == [f"placed on {line}"]


def test_where_its_gpus_have_left_the_pool_it_says_at_least_which_they_are() -> None:
    state = ready(HALVES, A)
    job = submit(state)
    happens(state, DevicesChanged((A,)))
    assert devices_for(state, job)[0].startswith("placed on GPU h: ")


# -- what is kept ---------------------------------------------------------------------------------


def with_a_reservation() -> tuple[State, JobId, JobId]:
    """A job has GPU a; one waits for two GPUs, and one behind it for one."""
    state = ready(A, B, C)
    submit(state)
    submit(state, request=Request(exclusive=True))
    two, behind = submit(state, request=Request(2)), submit(state)
    assert state.reservation is not None
    return state, two, behind


def test_who_waits_is_told_what_is_kept_and_for_whom() -> None:
    state, two, behind = with_a_reservation()
    kept = "GPUs a and c are kept"
    assert explain(state, two, NOW_MS) == f"waits for 2 GPUs at once: {kept} for it"
    turn = f"waits for its turn behind job {two}, for which {kept}"
    assert explain(state, behind, NOW_MS) == turn
    assert devices_for(state, two) == [
        "GPU a: taken by job 1, and is kept for this job",
        "GPU b: taken by job 2",
        "GPU c: has room, and is kept for this job",
    ]
    assert devices_for(state, behind) == [
        f"GPU a: taken by job 1, and is kept for job {two}",
        "GPU b: taken by job 2",
        f"GPU c: has room, but is kept for job {two}",
    ]


def test_the_first_element_of_an_array_is_told_what_is_kept_for_it() -> None:
    """And not that its array may have no more of them running: that place is its own."""
    state = ready(A, C)
    submit(state)
    first = submit(state, request=Request(2), array=Array(((0, 1, 1),), at_most=1))
    submit(state)
    assert explain(state, first, NOW_MS) == "waits for 2 GPUs at once: GPUs a and c are kept for it"
    told = f"waits for a place in array {first}: 0 of 1 run, and one is kept"
    assert explain(state, JobId(first + 1), NOW_MS) == told


def test_one_gpu_that_is_kept_is_told_in_the_singular() -> None:
    state = ready(HALVES)
    submit(state)
    alone, behind = submit(state, request=Request(exclusive=True)), submit(state)
    assert explain(state, alone, NOW_MS) == "waits for a GPU to itself: GPU h is kept for it"
    assert f"behind job {alone}, for which GPU h is kept" in explain(state, behind, NOW_MS)


@pytest.mark.parametrize(("count", "told"), [(8, "GPUs 0, 1, 2, 3, 4, 5, 6 and 7"), (9, "9 GPUs")])
def test_of_many_gpus_the_number_is_told(count: int, told: str) -> None:
    state = ready(*[Device(str(n), (str(n),)) for n in range(count)])
    submit(state)
    submit(state, request=Request(count))
    behind = submit(state)
    assert f"for which {told} are kept" in explain(state, behind, NOW_MS)


def test_nothing_is_kept_for_a_job_that_waits_no_more() -> None:
    """The pool is drained: no dispatch makes the reservation anew."""
    state, two, behind = with_a_reservation()
    assert kept_now(state) is not None
    happens(state, DrainRequested(2))
    happens(state, CancelRequested(3, (two,)))
    assert kept_now(state) is None
    assert devices_for(state, behind)[2] == "GPU c: has room"


def test_the_jobs_of_a_gpu_are_in_their_order() -> None:
    tenths = Device("t", ("t",), 11)
    state = ready(tenths)
    jobs = [submit(state) for _ in range(11)]
    waits = submit(state)
    assert devices_for(state, waits) == [
        f"GPU t: taken by jobs {', '.join(map(str, jobs[:-1]))} and {jobs[-1]}"
    ]


@pytest.mark.parametrize(
    ("slots", "told"), [(2, "has 50 % free, beside job 1"), (3, "has 66 % free, beside job 1")]
)
def test_a_gpu_that_is_partly_taken_says_how_much_is_free(slots: int, told: str) -> None:
    state = ready(Device("s", ("s",), slots))
    submit(state)
    waits = submit(state, request=Request(exclusive=True))
    assert devices_for(state, waits) == [f"GPU s: {told}"]
    for _ in range(slots - 1):
        submit(state, priority=1)
    assert devices_for(state, waits)[0].startswith("GPU s: taken by jobs 1")


# -- the remedy -----------------------------------------------------------------------------------


def test_who_waits_for_a_quarantined_gpu_is_told_what_to_do() -> None:
    state = ready(U)
    happens(state, GpuBroke("GPU-u", NOW_MS, FELL))
    job = submit(state)
    told = f"is quarantined: {FELL} (gpuctl gpus heal 0)"
    assert explain(state, job, NOW_MS) == f"waits for a slot; GPU 0 {told}"
    assert devices_for(state, job) == [f"GPU 0: {told}"]


def test_a_mig_instance_is_healed_by_its_uuid() -> None:
    state = ready(MIG)
    happens(state, GpuBroke("MIG-1", NOW_MS, FELL))
    told = f"MIG-1 is quarantined: {FELL} (gpuctl gpus heal MIG-1)"
    assert explain(state, submit(state), NOW_MS) == f"waits for a slot; {told}"


def test_where_a_person_can_do_nothing_no_remedy_is_told() -> None:
    state = ready(U)
    job = submit(state)
    bobs = GpuProcess(4711, "python", "bob", 500)
    look(state, GpuSight("GPU-u", used_mib=500, free_mib=39_500, processes=(bobs,)))
    assert "heal" not in explain(state, job, NOW_MS)


# -- what is wrong now ----------------------------------------------------------------------------


def test_a_job_on_a_wrong_gpu_is_a_problem_while_it_lives() -> None:
    state = ready(U, V)
    job = submit(state)
    look(state, *sights("GPU-u", "GPU-v"))
    started(state, job)
    assert misuses(state, NOW_MS) == []
    stray = GpuProcess(4800, "python", "ann", 500, None, job, 1)
    look(state, *sights("GPU-u"), GpuSight("GPU-v", processes=(stray,)), at_ms=NOW_MS + 10)
    told = f"job {job} uses a GPU that it was not given (gpuctl show {job})"
    assert misuses(state, NOW_MS) == [told]
    happens(state, CancelRequested(2, (job,)))
    assert misuses(state, NOW_MS) == [told]


def test_a_job_that_does_nothing_is_a_problem_until_it_works() -> None:
    state = ready()
    happens(state, DevicesChanged((U,), GpuPolicy(idle_ms=10_000)))
    job = submit(state)
    look(state, *sights("GPU-u"))
    started(state, job)
    look(state, *sights("GPU-u", util=0), at_ms=NOW_MS + 1_000)
    assert misuses(state, NOW_MS + 9_000) == []
    look(state, *sights("GPU-u", util=0), at_ms=NOW_MS + 11_000)
    idle = f"job {job} has done nothing on its GPUs for"
    assert misuses(state, NOW_MS + 31_000) == [f"{idle} 30 s"]
    assert misuses(state, NOW_MS + 3_601_000) == [f"{idle} 60 min"]
    look(state, *sights("GPU-u", util=50), at_ms=NOW_MS + 12_000)
    assert misuses(state, NOW_MS + 31_000) == []


# -- what cannot be seen --------------------------------------------------------------------------


def test_gpus_whose_users_the_driver_does_not_list_are_told() -> None:
    state = ready(U, V, MIG, A)
    unseen = [GpuSight(uuid, attributable=False) for uuid in ("GPU-u", "GPU-v")]
    assert unlisted(state) == ""
    look(state, *sights("GPU-u", "GPU-v", "MIG-1"))
    assert unlisted(state) == ""
    look(state, unseen[0], *sights("GPU-v", "MIG-1"))
    says, beside = "the driver does not say who uses", "jobs, whoever else is there"
    assert unlisted(state) == f"{says} GPU 0: it gets {beside}"
    look(state, *unseen, *sights("MIG-1"))
    assert unlisted(state) == f"{says} GPUs 0 and 1: they get {beside}"


def test_memory_is_named_where_it_is_what_is_short() -> None:
    """Of a slot's part of it, which others were promised: not "all slots are taken"."""
    big = Device("big", ("big",), 2, memory_mib=24_000)
    state = ready(big)
    submit(state, request=Request(1, share_milli=300, vram_mib=15_000))
    waiting = submit(state)
    told = "waits for 11.7 GiB of GPU memory, the part of a slot: 8.8 GiB is left"
    assert explain(state, waiting, NOW_MS) == told


def test_slots_that_are_no_slots_any_more_are_not_called_taken() -> None:
    state = ready(Device("big", ("big",), 2, memory_mib=24_000))
    submit(state, request=Request(vram_mib=20_000))
    waiting = submit(state)
    assert explain(state, waiting, NOW_MS) == "waits for a free slot: what runs leaves none of 2"


def test_who_stands_behind_an_urgent_job_that_waits_for_ends() -> None:
    state = ready(A, B)
    submit(state, spec_of(), spec_of(checkpoint=10))
    both = submit(state, priority=URGENT, request=Request(2))
    one = submit(state, priority=URGENT)
    told = f"waits for its turn behind job {both}, for which GPUs a and b are kept"
    assert explain(state, one, NOW_MS) == told
