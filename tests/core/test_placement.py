"""Which slots a job gets, and that it never gets what is not free."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.core.model import CPU_LANE, Device, LeasePart, Request
from gpud.core.placement import Lease, Pool

from .build import CPUS, HALVES, PAIR, A, B
from .promises import Free

ANY, NONE, ONE, TWO, THREE = (Request(gpus) for gpus in (None, 0, 1, 2, 3))


def keys(lease: Lease | None) -> list[str]:
    assert lease is not None
    return [part.device for part in lease]


def test_a_slot_of_any_device_is_on_the_one_with_most_room() -> None:
    pool = Pool([A, B])
    pool.take((LeasePart("a", 500),))
    assert keys(pool.place(ANY)) == ["b"]


def test_among_equals_the_first_in_the_pool_wins() -> None:
    assert keys(Pool([B, A]).place(ANY)) == ["b"]


def test_jobs_of_one_slot_spread_before_they_share() -> None:
    pool = Pool([HALVES, Device("k", ("k",), 2)])
    placed = []
    while lease := pool.place(ANY):
        pool.take(lease)
        placed += keys(lease)
    assert placed == ["h", "k", "h", "k"]


def test_a_slot_is_one_nth_of_its_device() -> None:
    thirds = Device("t", ("t",), 3)
    assert Pool([thirds]).place(ANY) == (LeasePart("t", 333),)


def test_a_job_that_asks_for_no_number_may_get_a_group() -> None:
    assert keys(Pool([PAIR]).place(ANY)) == ["p0,p1"]


def test_a_job_for_the_cpu_gets_its_lane_and_never_a_gpu() -> None:
    pool = Pool([A, CPUS])
    assert pool.place(NONE) == (LeasePart(CPU_LANE, 500),)
    assert Pool([A]).place(NONE) is None


def test_a_job_for_a_gpu_never_gets_the_lane_cpu() -> None:
    pool = Pool([CPUS])
    assert [pool.place(request) for request in (ONE, TWO)] == [None] * 2


def test_a_job_that_does_not_say_gets_the_lane_where_there_is_no_gpu() -> None:
    assert Pool([CPUS]).place(ANY) == (LeasePart(CPU_LANE, 500),)
    busy = Pool([CPUS, A])
    busy.take((LeasePart("a", 1000),))
    assert busy.place(ANY) is None


def test_n_gpus_are_a_group_of_n_where_one_is_free() -> None:
    assert keys(Pool([A, B, PAIR]).place(TWO)) == ["p0,p1"]


def test_n_gpus_are_n_single_ones_where_no_group_is_free() -> None:
    pool = Pool([PAIR, A, B])
    pool.take((LeasePart("p0,p1", 1000),))
    assert keys(pool.place(TWO)) == ["a", "b"]


def test_n_single_ones_are_the_freest_in_the_order_of_the_pool() -> None:
    pool = Pool([A, HALVES, B])
    pool.take((LeasePart("h", 500),))
    assert keys(pool.place(TWO)) == ["a", "b"]
    pool.take((LeasePart("b", 1000),))
    assert pool.place(TWO) == (LeasePart("a", 1000), LeasePart("h", 500))


def test_a_group_is_not_split() -> None:
    pool = Pool([PAIR])
    assert pool.place(ONE) is None
    assert pool.unsatisfiable(ONE) == "needs 1 GPU, and no group of slots has exactly that many"


def test_a_lease_on_a_device_that_left_is_still_given_back() -> None:
    pool = Pool([A])
    lease = pool.place(ANY)
    pool.take(lease)
    pool.replace([B])
    assert keys(pool.place(ANY)) == ["b"]
    pool.replace([A])
    assert pool.place(ANY) is None
    pool.give_back(lease)
    assert pool.leased == {}


def test_fewer_slots_than_before_are_not_negative_room() -> None:
    pool = Pool([HALVES])
    pool.take((LeasePart("h", 500),))
    whole = Device("h", ("h",), 1)
    pool.replace([whole])
    assert pool.free_milli(whole) == 0


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
    ],
)
def test_what_can_never_be_served_is_said_in_a_sentence(
    devices: list[Device], request_: Request, sentence: str
) -> None:
    assert Pool(devices).unsatisfiable(request_) == sentence


gpus = st.builds(
    lambda number, width, slots: Device(
        f"g{number}", tuple(f"{number}.{i}" for i in range(width)), slots
    ),
    st.integers(0, 7),
    st.integers(1, 3),
    st.integers(1, 1000),
)
lanes = st.builds(lambda slots: Device(CPU_LANE, (), slots), st.integers(1, 64))
pools = st.builds(
    lambda gpus, lane: [*gpus, *lane],
    st.lists(gpus, max_size=6, unique_by=lambda device: device.key),
    st.lists(lanes, max_size=1),
)
requests = st.builds(Request, st.sampled_from([None, 0, 1, 2, 3, 4, 9]))


@given(devices=pools, asked=st.lists(requests, max_size=40), ends=st.lists(st.integers(0, 40)))
def test_no_placement_takes_what_is_not_free(
    devices: list[Device], asked: list[Request], ends: list[int]
) -> None:
    pool, leases = Pool(devices), []
    for number, request in enumerate(asked):
        free = Free(devices, leases)
        lease = pool.place(request)
        assert (lease is not None) == free.fits(request)
        if lease is not None:
            free.check_lease(request, lease)
            pool.take(lease)
            leases.append(lease)
        if number in ends and leases:
            pool.give_back(leases.pop(0))
    for lease in leases:
        pool.give_back(lease)
    assert pool.leased == {}


@given(devices=pools, request=requests)
def test_unsatisfiable_is_what_an_empty_pool_cannot_place(
    devices: list[Device], request: Request
) -> None:
    pool = Pool(devices)
    assert bool(pool.unsatisfiable(request)) == (pool.place(request) is None)


@given(devices=pools, taken=st.lists(requests, max_size=10), request=requests)
def test_a_placement_depends_on_the_pool_alone(
    devices: list[Device], taken: list[Request], request: Request
) -> None:
    pool = Pool(devices)
    for earlier in taken:
        pool.take(pool.place(earlier) or ())
    first = pool.place(request)
    assert first == pool.place(request), "placing takes nothing"
    again = Pool(devices)
    again.leased = dict(reversed(pool.leased.items()))
    assert again.place(request) == first, "the order of the leases does not matter"


@given(devices=pools, taken=st.lists(requests, max_size=20))
def test_one_slot_is_on_a_device_with_the_most_room(
    devices: list[Device], taken: list[Request]
) -> None:
    pool = Pool(devices)
    for earlier in taken:
        pool.take(pool.place(earlier) or ())
    usable = [device for device in devices if device.ids] or devices
    room = [pool.free_milli(device) for device in usable]
    lease = pool.place(ANY)
    if lease is None:
        assert not any(room)
    else:
        assert pool.free_milli(pool.devices[lease[0].device]) == max(room)
        assert keys(lease) == [usable[room.index(max(room))].key]


def test_gpus_in_use_under_another_grouping_are_not_given_out() -> None:
    pair = Device("0,1", ("0", "1"))
    singles = [Device(i, (i,)) for i in "012"]
    pool = Pool([pair])
    lease = pool.place(Request(2))
    assert lease is not None
    pool.take(lease)
    pool.replace(singles)
    assert keys(pool.place(ANY)) == ["2"]
    assert pool.place(Request(2)) is None
    pool.give_back(lease)
    assert keys(pool.place(Request(3))) == ["0", "1", "2"]
