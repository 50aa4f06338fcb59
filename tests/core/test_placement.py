"""Which devices a job gets, what it takes of them, and that it never gets what is not free."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gpud.core.model import AUTO_VRAM, CPU_LANE, Device, LeasePart, Request
from gpud.core.placement import place, rule_of, unsatisfiable
from gpud.core.pool import Lease, Pool

from .build import CPUS, HALVES, PAIR, A, B
from .capacity import Free, spread_of
from .draws import gpu

ANY, NONE, ONE, TWO, THREE = (Request(gpus) for gpus in (None, 0, 1, 2, 3))
H100, A100 = gpu("u"), Device("GPU-v", ("1",), uuids=("GPU-v",), model="A100", memory_mib=80_000)


def keys(lease: Lease | None) -> list[str]:
    assert lease is not None
    return [part.device for part in lease]


def after(devices: list[Device], *taken: tuple[str, int]) -> Pool:
    """A pool of which so many thousandths of these devices are taken."""
    pool = Pool(devices)
    for key, milli in taken:
        pool.take((LeasePart(key, milli, pool.devices[key].memory_mib * milli // 1000),))
    return pool


# -- which device ---------------------------------------------------------------------------------


def test_shares_are_packed_so_that_whole_gpus_stay_free() -> None:
    pool, placed = Pool([HALVES, Device("k", ("k",), 2)]), []
    while lease := place(pool, ANY):
        pool.take(lease)
        placed += keys(lease)
    assert placed == ["h", "h", "k", "k"]
    assert keys(place(after([A, HALVES], ("h", 500)), ANY)) == ["h"]


def test_among_equals_the_first_in_the_pool_wins() -> None:
    assert keys(place(Pool([B, A]), ANY)) == ["b"]


def test_n_gpus_are_a_group_of_n_where_one_is_free_else_n_single_ones() -> None:
    assert keys(place(Pool([A, B, PAIR]), TWO)) == ["p0,p1"]
    assert keys(place(after([PAIR, A, B], ("p0,p1", 1000)), TWO)) == ["a", "b"]
    assert keys(place(Pool([PAIR]), ANY)) == ["p0,p1"], "no number is asked for"
    assert place(Pool([PAIR]), ONE) is None, "a group is not split"


def test_a_guest_gpu_is_the_last_choice() -> None:
    guest = gpu("x", guest=True)
    assert keys(place(Pool([guest, H100]), ANY)) == ["GPU-u"]
    pool = after([guest, H100], ("GPU-u", 1000))
    assert keys(lease := place(pool, ANY)) == ["GPU-x"]
    assert rule_of(pool, ANY, lease) == "guest GPUs, since no other has room"


def test_several_gpus_are_those_nearest_to_each_other() -> None:
    """0 and 2 are joined by NVLink, as are 1 and 3."""
    near, far = 0, 5
    four = [gpu("u", v=far, w=near, x=far), gpu("v", u=far, w=far, x=near)]
    four += [gpu("w", u=near, v=far, x=far), gpu("x", u=far, v=near, w=far)]
    pool = Pool(four)
    assert keys(lease := place(pool, TWO)) == ["GPU-u", "GPU-w"]
    assert rule_of(pool, TWO, lease) == "the nearest to each other that have room: NVLink"
    pool.take(place(pool, ONE))
    assert keys(place(pool, TWO)) == ["GPU-v", "GPU-x"]


def test_the_model_is_a_part_of_the_name_in_any_case() -> None:
    pool = Pool([H100, A100])
    assert keys(place(pool, Request(gpu_model="a100"))) == ["GPU-v"]
    assert place(after([H100, A100], ("GPU-v", 1000)), Request(gpu_model="A100")) is None


def test_what_takes_no_work_is_not_chosen() -> None:
    pool = Pool([H100, A100])
    pool.block({"GPU-u": "used by somebody"}, set(), {})
    assert keys(place(pool, ANY)) == ["GPU-v"]
    assert place(pool, TWO) is None
    assert place(pool, ANY, avoid=["GPU-v"]) is None


def test_nothing_is_placed_on_gpus_that_could_not_be_found() -> None:
    pool = Pool([CPUS], unknown="the driver does not answer")
    assert place(pool, ANY) is None
    assert place(pool, NONE) is not None
    assert unsatisfiable(pool, THREE) == "", "it may be served once they are found"


# -- the lane of jobs without a GPU ---------------------------------------------------------------


def test_a_job_for_the_cpu_gets_its_lane_and_never_a_gpu() -> None:
    assert place(Pool([A, CPUS]), NONE) == (LeasePart(CPU_LANE, 500),)
    assert place(Pool([A]), NONE) is None


def test_a_job_for_a_gpu_never_gets_the_lane_cpu() -> None:
    pool = Pool([CPUS])
    assert [place(pool, request) for request in (ONE, TWO)] == [None] * 2


def test_a_job_that_does_not_say_gets_the_lane_where_there_is_no_gpu() -> None:
    assert place(Pool([CPUS]), ANY) == (LeasePart(CPU_LANE, 500),)
    assert place(after([CPUS, A], ("a", 1000)), ANY) is None


# -- what it takes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "milli", "mib"),
    [
        (ANY, 333, 13_320),  # a slot, and its part of the memory
        (ONE, 333, 13_320),
        (Request(share_milli=250), 250, 10_000),
        (Request(vram_mib=10_000), 250, 10_000),  # memory only: its part of the GPU, too
        (Request(1, vram_mib=10_000), 333, 10_000),
        (Request(share_milli=100, vram_mib=30_000), 100, 30_000),
        (Request(vram_mib=1), 1, 1),
        (Request(exclusive=True), 1000, 40_000),
        (Request(vram_mib=AUTO_VRAM, likeness="new"), 1000, 40_000),  # a first run goes alone
        (Request(vram_mib=AUTO_VRAM, likeness="known"), 288, 11_500),  # and 15 % on top
        (Request(vram_mib=AUTO_VRAM, likeness="huge"), 1000, 40_000),
    ],
)
def test_what_a_request_takes_of_a_gpu_with_three_slots(
    request_: Request, milli: int, mib: int
) -> None:
    pool = Pool([gpu("u", slots=3)])
    pool.usual_mib = {"known": 10_000, "huge": 39_000}
    assert place(pool, request_) == (LeasePart("GPU-u", milli, mib, ("GPU-u",)),)


def test_shares_fit_as_long_as_the_promised_memory_does() -> None:
    pool = Pool([H100])
    for mib in (25_000, 10_000):
        pool.take(place(pool, Request(vram_mib=mib)))
    assert place(pool, Request(vram_mib=5_001)) is None
    assert place(pool, Request(vram_mib=5_000)) is not None
    assert place(pool, ANY) is None, "a slot is the whole of it here"
    assert place(pool, Request(exclusive=True)) is None


def test_memory_that_a_look_does_not_find_free_is_not_promised() -> None:
    pool = Pool([H100, A100])
    pool.block({}, set(), {"GPU-u": 9_000, "GPU-v": 70_000})
    assert keys(place(pool, Request(vram_mib=12_000))) == ["GPU-v"]
    assert keys(place(pool, Request(vram_mib=9_000))) == ["GPU-u"]
    pool.take((LeasePart("GPU-u", 250, 4_000),))
    assert keys(place(pool, Request(vram_mib=9_000))) == ["GPU-v"]


def test_a_share_is_of_one_gpu_and_never_of_a_group() -> None:
    assert place(Pool([PAIR]), Request(share_milli=500)) is None


# -- leases outlive their devices -----------------------------------------------------------------


def test_a_lease_on_a_device_that_left_is_still_given_back() -> None:
    pool = Pool([A])
    lease = place(pool, ANY)
    pool.take(lease)
    pool.replace([B])
    assert keys(place(pool, ANY)) == ["b"]
    pool.replace([A])
    assert place(pool, ANY) is None
    pool.give_back(lease)
    assert pool.leased == {}


def test_fewer_slots_than_before_leave_what_is_free() -> None:
    pool = after([HALVES], ("h", 500))
    pool.replace([Device("h", ("h",), 1)])
    assert place(pool, ANY) is None
    assert keys(place(pool, Request(share_milli=500))) == ["h"]


def test_gpus_in_use_under_another_grouping_are_not_given_out() -> None:
    pool = Pool([Device("0,1", ("0", "1"))])
    lease = place(pool, TWO)
    pool.take(lease)
    pool.replace([Device(i, (i,)) for i in "012"])
    assert keys(place(pool, ANY)) == ["2"]
    assert place(pool, TWO) is None
    pool.give_back(lease)
    assert keys(place(pool, THREE)) == ["0", "1", "2"]


# -- for ever -------------------------------------------------------------------------------------

NO_MEMORY = "asks for GPU memory, which gpud cannot see on this machine (gpuctl gpus)"
GEFORCE = Device("4090", ("4090",), memory_mib=24_564)  # it is sold with 24 GiB
NO_MODEL = "asks for a GPU model, which gpud cannot see on this machine (gpuctl gpus)"


@pytest.mark.parametrize(
    ("devices", "request_", "sentence"),
    [
        ([CPUS], ANY, ""),
        ([], ANY, "needs the lane cpu, which has no slots"),
        ([CPUS], ONE, "needs 1 GPU, this machine has 0"),
        ([A], NONE, "needs the lane cpu, which has no slots"),
        ([A, B], THREE, "needs 3 GPUs, this machine has 2"),
        ([A, PAIR], THREE, "needs 3 GPUs, and no group of slots has exactly that many"),
        ([A, PAIR], TWO, ""),
        ([A, B], TWO, ""),
        ([PAIR], ANY, ""),
        ([PAIR], ONE, "needs 1 GPU, and no group of slots has exactly that many"),
        ([A], Request(vram_mib=1), NO_MEMORY),
        ([A], Request(gpu_model="H100"), NO_MODEL),
        ([GEFORCE], Request(vram_mib=24_576),
         "needs 24576 MiB of GPU memory, the largest GPU here has 24564 MiB"),
        ([H100], Request(vram_mib=40_000), ""),
        ([H100, A100], Request(2, vram_mib=30_000), ""),
    ],
)  # fmt: skip
def test_what_can_never_be_served_is_said_in_a_sentence(
    devices: list[Device], request_: Request, sentence: str
) -> None:
    assert unsatisfiable(Pool(devices), request_) == sentence


# -- properties -----------------------------------------------------------------------------------

NAMES = "stuvwxyz"


@st.composite
def gpus_of(draw: st.DrawFn, name: str) -> Device:
    """Of any kind: a plain one, a group, shared, with memory, a model, distances."""
    width = draw(st.sampled_from([1, 1, 1, 2, 3]))
    seen = width == 1 and draw(st.booleans())
    others = {f"GPU-{n}": draw(st.integers(0, 5)) for n in NAMES if n != name} if seen else {}
    return Device(
        key=f"GPU-{name}",
        ids=tuple(f"{name}{i}" for i in range(width)),
        slots=draw(st.sampled_from([1, 1, 2, 3, 7, 1000])),
        uuids=(f"GPU-{name}",) if seen else (),
        model=draw(st.sampled_from(["", "H100", "A100"])) if seen else "",
        memory_mib=draw(st.sampled_from([10, 16_000, 80_000])) if seen else 0,
        guest=draw(st.booleans()),
        distance=others,
    )


@st.composite
def pools(draw: st.DrawFn) -> list[Device]:
    names = draw(st.lists(st.sampled_from(NAMES), max_size=6, unique=True))
    lanes = [Device(CPU_LANE, (), draw(st.integers(1, 64)))] if draw(st.booleans()) else []
    return [draw(gpus_of(name)) for name in names] + lanes


few = st.sampled_from([None, 1, 2])
requests = st.one_of(
    st.builds(Request, st.sampled_from([None, 0, 1, 2, 3, 4, 9])),
    st.builds(Request, st.sampled_from([None, 1]), share_milli=st.integers(1, 999)),
    st.builds(Request, few, vram_mib=st.sampled_from([1, 9, 9_000, 50_000])),
    st.builds(Request, few, exclusive=st.just(True)),
    st.builds(Request, few, gpu_model=st.sampled_from(["h100", "A100"])),
)


@given(devices=pools(), asked=st.lists(requests, max_size=40), ends=st.lists(st.integers(0, 40)))
def test_no_placement_takes_what_is_not_free(
    devices: list[Device], asked: list[Request], ends: list[int]
) -> None:
    pool, leases = Pool(devices), []
    for number, request in enumerate(asked):
        free = Free(devices, leases)
        lease = place(pool, request)
        assert (lease is not None) == free.fits(request)
        if lease is not None:
            free.check_lease(request, lease)
            pool.take(lease)
            leases.append(lease)
        if number in ends and leases:
            pool.give_back(leases.pop(0))
    for lease in leases:
        pool.give_back(lease)
    assert pool.leased == pool.promised == {}


@given(devices=pools(), request=requests)
def test_unsatisfiable_is_what_an_empty_pool_cannot_place(
    devices: list[Device], request: Request
) -> None:
    pool = Pool(devices)
    assert bool(unsatisfiable(pool, request)) == (place(pool, request) is None)


@given(devices=pools(), taken=st.lists(requests, max_size=10), request=requests)
def test_a_placement_depends_on_the_pool_alone(
    devices: list[Device], taken: list[Request], request: Request
) -> None:
    pool = Pool(devices)
    for earlier in taken:
        pool.take(place(pool, earlier) or ())
    first = place(pool, request)
    assert first == place(pool, request), "placing takes nothing"
    again = Pool(devices)
    again.leased = dict(reversed(pool.leased.items()))
    again.promised = dict(reversed(pool.promised.items()))
    assert place(again, request) == first, "the order of the leases does not matter"


@given(devices=pools(), taken=st.lists(requests, max_size=20), request=requests)
def test_nothing_fuller_has_room_and_no_guest_is_disturbed_for_nothing(
    devices: list[Device], taken: list[Request], request: Request
) -> None:
    pool, leases = Pool(devices), []
    for earlier in taken:
        if lease := place(pool, earlier):
            pool.take(lease)
            leases.append(lease)
    lease = place(pool, request)
    assume(lease is not None and len(lease) == 1 and (request.gpus or 1) == 1)
    free = Free(devices, leases)
    asked = free.asked(request)
    chosen = pool.devices[keys(lease)[0]]
    for other in free.suited(asked):
        if free.has_room(other, asked):
            left = chosen.guest, free.milli_left(chosen)
            assert left <= (other.guest, free.milli_left(other)), f"{other} instead of {chosen}"


steps_between = st.lists(st.integers(0, 5), min_size=15, max_size=15)


@given(steps=steps_between, guests=st.sets(st.integers(0, 5)), count=st.integers(2, 6))
def test_a_group_has_few_guests_and_short_ways(
    steps: list[int], guests: set[int], count: int
) -> None:
    """Of two GPUs the shortest way there is; for more the search is greedy and need not find it."""
    names = "stuvwx"
    far = dict(zip(combinations(range(6), 2), steps, strict=True))
    devices = []
    for i, name in enumerate(names):
        ways = {names[j]: far[min(i, j), max(i, j)] for j in range(6) if j != i}
        devices.append(gpu(name, guest=i in guests, **ways))
    chosen = [d for d in devices if d.key in keys(place(Pool(devices), Request(count)))]
    assert len(chosen) == count
    few_guests = max(0, count - (6 - len(guests)))
    assert sum(device.guest for device in chosen) == few_guests
    if count == 2:
        pairs = [p for p in combinations(devices, 2) if sum(d.guest for d in p) == few_guests]
        assert spread_of(chosen) == min(map(spread_of, pairs))
