"""Leases while the pool becomes another: nothing is given out twice, whatever it is called."""

from __future__ import annotations

from msgspec import structs

from gpud.core.model import Device, LeasePart, Request
from gpud.core.placement import place
from gpud.core.pool import Pool
from gpud.core.sight import NOT_LISTED

ZERO = Device("0", ("0",), uuids=("GPU-a",))
ONE = Device("1", ("1",), uuids=("GPU-b",))
WHOLE = (LeasePart("1", 1000),)  # of a daemon that kept no UUIDs
STRANGE = "the NVIDIA driver knows no GPU 1"


def test_a_gpu_that_has_moved_up_is_not_given_out_while_it_is_leased() -> None:
    """GPU 0 falls off the bus: what was GPU 1 is GPU 0 now, and job 1 still has it."""
    pool = Pool([ZERO, ONE])
    pool.take(WHOLE)
    moved_up = structs.replace(ZERO, uuids=("GPU-b",))
    pool.replace([moved_up, Device("1", ("1",), problem=STRANGE)])
    assert place(pool, Request()) is None
    pool.give_back(WHOLE)
    assert place(pool, Request()) == (LeasePart("0", 1000, 0, pool.devices["0"].uuids),)


def test_another_gpu_under_the_name_of_a_leased_one_is_not_given_out() -> None:
    pool = Pool([ZERO, ONE])
    pool.take((LeasePart("1", 500),))
    pool.replace([structs.replace(ONE, uuids=("GPU-c",))])
    assert pool.is_another("1")
    assert place(pool, Request(share_milli=500)) is None
    pool.give_back((LeasePart("1", 500),))
    assert place(pool, Request(share_milli=500)) is not None


def test_what_was_leased_before_the_driver_answered_stays_leased() -> None:
    pool = Pool([Device("0", ("0",)), Device("1", ("1",))], "the driver has not answered yet")
    pool.take(WHOLE)
    pool.replace([ZERO, ONE])
    assert not pool.is_another("1")
    assert place(pool, Request()) == (LeasePart("0", 1000, 0, pool.devices["0"].uuids),)
    pool.replace([structs.replace(ZERO, uuids=("GPU-b",))])
    assert place(pool, Request()) is None, "its UUID was learned meanwhile"


def test_a_lost_gpu_is_no_reason_to_run_jobs_on_the_cpu() -> None:
    lost = Device("GPU-a", ("0",), problem=NOT_LISTED)
    pool = Pool([lost, Device("cpu", (), 4)])
    assert pool.wanted(Request()) is None
    pool.block({"GPU-a": lost.problem}, set(), {})
    assert place(pool, Request()) is None


def test_a_lease_keeps_its_gpu_under_whatever_name() -> None:
    """gpus=[0] with a job on it, and after a restart visible="uuid"."""
    pool = Pool([Device("GPU-a", ("GPU-a",), uuids=("GPU-a",))])
    lease = (LeasePart("0", 1000, 0, ("GPU-a",)),)
    pool.take(lease)
    assert place(pool, Request()) is None
    pool.give_back(lease)
    assert place(pool, Request()) is not None
