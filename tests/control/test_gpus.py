"""GPUs over the socket: why one takes no work, and which of them a `heal` means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpud.control.gpu_names import meant
from gpud.core.events import DevicesChanged, GpuBroke, HealRequested
from gpud.core.model import CPU_LANE, Device
from gpud.core.pool import Pool
from gpud.errors import GpudError

from .fake_daemon import FakeDaemon
from .talking import Served, run

A, B, C = "GPU-0a00-aaaa", "GPU-0b00-aaaa", "GPU-0b01-aaaa"
MIG = "MIG-00000000-aaaa"
DEVICES = (
    Device(A, ("0",), uuids=(A,)),
    Device("1,2", ("1", "2"), uuids=(B, C)),
    Device(MIG, (MIG,), uuids=(MIG,), mig=True),
    Device("7", ("7",), problem="the NVIDIA driver knows no GPU 7"),
    Device("GPU-ffff", ("GPU-ffff",), problem="the NVIDIA driver knows no GPU GPU-ffff"),
    Device("8", ("8",)),
    Device(CPU_LANE, (), 4),
)
POOL = Pool(DEVICES)


@pytest.mark.parametrize(
    ("word", "gpus"),
    [
        ("0", (A,)),
        (A, (A,)),
        ("GPU-0a", (A,)),
        ("GPU-0b00", (B,)),
        (C, (C,)),
        ("1,2", (B, C)),
        ("2", (B, C)),
        ("0,GPU-0b01", (A, C)),
        (f"{C},0,{C}", (C, A)),
        ("MIG-0000", (MIG,)),
        ("MIG-", (MIG,)),
        ("7", ("7",)),
        ("GPU-f", ("GPU-ffff",)),
    ],
)
def test_what_a_word_means(word: str, gpus: tuple[str, ...]) -> None:
    assert meant(POOL, word) == gpus


@pytest.mark.parametrize(
    ("word", "kind", "message"),
    [
        ("GPU-0b", "usage", f"cannot heal GPU-0b: several GPUs begin so: {B}, {C}"),
        ("GPU-", "usage", f"cannot heal GPU-: several GPUs begin so: {A}, {B}, {C}, GPU-ffff"),
        ("GPU-9", "not-found", "cannot heal GPU-9: there is no such GPU"),
        ("9", "not-found", "cannot heal GPU 9: there is no such GPU"),
        ("0,9", "not-found", "cannot heal GPU 9: there is no such GPU"),
        ("", "not-found", "cannot heal GPU : there is no such GPU"),
        ("G", "not-found", "cannot heal GPU G: there is no such GPU"),
        ("cpu", "not-found", "cannot heal GPU cpu: there is no such GPU"),
        ("8", "not-found", "cannot heal GPU 8: no driver can be asked about it"),
    ],
)
def test_a_word_that_means_no_gpu_or_several(word: str, kind: str, message: str) -> None:
    with pytest.raises(GpudError) as caught:
        meant(POOL, word)
    assert (caught.value.kind, caught.value.message) == (kind, message)


def test_many_that_begin_alike_are_not_all_named() -> None:
    pool = Pool([Device(f"GPU-{n}", (str(n),), uuids=(f"GPU-{n}",)) for n in range(9)])
    with pytest.raises(GpudError, match=r"begin so: GPU-0, GPU-1, GPU-2, GPU-3, …$"):
        meant(pool, "GPU-")


def test_a_group_whose_uuids_are_visible_is_no_riddle() -> None:
    both = Device(f"{A},{B}", (A, B), uuids=(A, B))
    assert meant(Pool([both]), "GPU-0a") == (A,)
    assert meant(Pool([both]), f"{A},{B}") == (A, B)
    assert meant(Pool([both]), "GPU-0a,GPU-0b") == (A, B)


def test_while_the_driver_has_not_answered_a_named_gpu_can_be_healed() -> None:
    pool = Pool([Device("8", ("8",))], unknown="the driver has not answered yet")
    assert meant(pool, "8") == ("8",)
    with pytest.raises(GpudError, match=r"^cannot heal GPU-1: the driver has not answered yet$"):
        meant(pool, "GPU-1")


def with_gpus(*devices: Device, unknown: str = "") -> FakeDaemon:
    daemon = FakeDaemon()
    daemon.post(DevicesChanged(devices, unknown=unknown))
    return daemon


def test_heal_over_the_socket(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            served.daemon.post(GpuBroke(B, served.daemon.now_ms(), "Xid 79"))

            async def heal(*gpus: str) -> tuple[int, bool]:
                reply = await client.ask("heal", gpus=gpus)
                assert reply["type"] == "healed", reply
                return reply["count"], reply.get("afresh", False)

            quarantined = [g.get("quarantined", False) for g in (await client.ask("gpus"))["gpus"]]
            assert quarantined == [False, True, False, False, False, False, False]
            assert await heal("0", "GPU-0a", "7") == (0, True)
            asked = served.daemon.asked[-1]
            assert isinstance(asked, HealRequested)
            assert asked.uuids == (A, "7")
            assert await heal("GPU-0b00") == (1, True)
            assert await heal() == (0, True), "a GPU has a problem"
            reply = await client.ask("heal", gpus=["GPU-0b"])
            assert (reply["type"], reply["kind"]) == ("error", "usage")

    run(path, test, lambda: with_gpus(*DEVICES))


def test_what_is_promised_and_kept_of_each_gpu(path: Path) -> None:
    """Of a group on each of its GPUs; in the lane of the CPU there is nothing to promise."""
    devices = (
        Device("0", ("0",), memory_mib=40_000),
        Device("1,2", ("1", "2"), memory_mib=20_000),
        Device("3", ("3",), 2, memory_mib=10_000),
        DEVICES[-1],
    )

    async def test(served: Served) -> None:
        async with served.client() as client:

            async def gpus(field: str) -> list[Any]:
                return [gpu.get(field) for gpu in (await client.ask("gpus"))["gpus"]]

            assert await gpus("promised_mib") == [0, 0, 0, None]
            await client.submit(vram_mib=30_000)
            await client.submit(gpus=2)
            await client.submit(vram_mib=3_000)
            assert await gpus("promised_mib") == [33_000, 20_000, 0, None]
            assert await gpus("kept_for") == [None] * 4
            waits = await client.submit(gpus=2)
            await client.submit(vram_mib=35_000)
            assert await gpus("kept_for") == [None, waits, None, None]
            status = await client.ask("status")
            assert [gpu.get("kept_for") for gpu in status["gpus"]] == [None, waits, None, None]
            served.daemon.post(DevicesChanged(devices[1:]))
            left = [gpu for gpu in (await client.ask("gpus"))["gpus"] if gpu["key"] == "0"]
            assert [gpu["promised_mib"] for gpu in left] == [33_000]

    run(path, test, lambda: with_gpus(*devices))


def test_why_at_length_tells_where_a_job_was_and_why_there(path: Path) -> None:
    halves = Device("GPU-1", ("0",), 2), Device("GPU-2", ("1",), 2), DEVICES[-1]

    async def test(served: Served) -> None:
        async with served.client() as client:
            shared = await client.submit(retries=1, backoff_s=0)
            cpu = await client.submit(gpus=0)
            waits = await client.submit(held=True)
            served.daemon.start(shared)
            served.daemon.end(shared, 3)
            served.daemon.start(shared)

            async def why(job: int) -> dict[str, Any]:
                reply = await client.ask("why", jobs=[job], verbose=True)
                return dict(reply["reasons"][0])

            rule = "the fullest that has room, so that whole GPUs stay free"
            active = await why(shared)
            assert active["devices"] == [f"placed on GPU 0: {rule}"]
            served.daemon.end(shared, 4)
            ended = await why(shared)
            assert ended["reason"] == "done: it failed with exit status 4"
            assert "devices" not in ended
            tries = [(t["lease"], t["rule"], t["exit_code"]) for t in ended["attempts"]]
            assert tries == [(["0:500"], rule, 3), (["0:500"], rule, 4)]
            (shown,) = (await client.ask("show", jobs=[shared]))["jobs"]
            assert shown["attempts"] == ended["attempts"]
            assert (await why(cpu))["devices"] == ["placed on the CPU: it needs no GPU"]
            assert (await why(cpu))["attempts"][0]["rule"] == "it needs no GPU"
            assert "attempts" not in await why(waits)
            several = await client.ask("why", jobs=["all"], verbose=True)
            assert not any("attempts" in reason for reason in several["reasons"])

    run(path, test, lambda: with_gpus(*halves))


def test_where_all_is_well_and_none_is_named_the_driver_is_not_spoken_of(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            assert await client.ask("heal") == {"type": "healed", "id": 1, "count": 0}

    run(path, test)


def test_until_the_driver_has_answered_no_gpu_takes_work(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:

            async def problems() -> dict[str, Any]:
                gpus = (await client.ask("gpus"))["gpus"]
                return {gpu["key"]: gpu["problem"] for gpu in gpus}

            assert await problems() == {"0": "not yet", CPU_LANE: ""}
            assert (await client.ask("heal"))["afresh"]
            served.daemon.post(DevicesChanged((Device("0", ("0",)), DEVICES[-1])))
            assert await problems() == {"0": "", CPU_LANE: ""}

    run(path, test, lambda: with_gpus(Device("0", ("0",)), DEVICES[-1], unknown="not yet"))
