"""The contract of watchers (gpud/ports.py), over a stubbed driver with real helpers, and over the
fake (tests/contracts/watchers.py). What needs real processes (whose they are) has them in both.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpud.core.events import GpuBroke, GpusSeen
from gpud.core.sight import NOT_LISTED, GpuProcess, GpuSight
from gpud.errors import GpudError
from gpud.ports import GpuWatcher, Watched
from tests.contracts.watchers import (
    HASTY,
    NEVER_S,
    SPARE_S,
    Box,
    FakeRig,
    Rig,
    StubRig,
    sight,
    waits,
    watching,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=[StubRig, FakeRig], ids=["nvml", "fake"])
def rig(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Rig]:
    made: Rig = request.param(tmp_path, monkeypatch)
    made.have(3)
    yield made
    made.close()


@pytest.fixture
def shell() -> Iterator[tuple[int, int]]:
    """A job's shell in a session of its own, and a process that it has started."""
    with subprocess.Popen(
        ["/bin/sh", "-c", "sleep 600 & echo $!; wait"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        yield process.pid, child
        os.killpg(process.pid, 9)


@pytest.fixture
def stranger() -> Iterator[int]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


# -- what there is -----------------------------------------------------------------------------


async def test_find_tells_all_gpus_in_the_order_of_the_bus(rig: Rig) -> None:
    watcher = rig.watcher(NEVER_S, NEVER_S, hasty=False, blind="")
    found = await watcher.find()
    await watcher.close()
    assert [(gpu.uuid, gpu.index, gpu.model, gpu.memory_mib, gpu.mig) for gpu in found.gpus] == [
        (rig.uuid(index), index, f"Stub {index}", (80 + index) * 1024, False) for index in range(3)
    ]
    assert (found.driver, found.unusable, found.blind) == ("999.01", {}, "")


async def test_no_gpu_is_not_found(rig: Rig) -> None:
    rig.have(0)
    watcher = rig.watcher(NEVER_S, NEVER_S, hasty=False, blind="")
    with pytest.raises(GpudError, match="cannot find a GPU: the NVIDIA driver has none") as error:
        await watcher.find()
    assert error.value.kind == "not-found"
    await watcher.close()


async def test_a_driver_that_hangs_is_unreachable(rig: Rig) -> None:
    rig.hang(None)
    watcher = rig.watcher(NEVER_S, NEVER_S, hasty=True, blind="")
    with pytest.raises(GpudError, match="the NVIDIA driver does not answer") as error:
        await watcher.find()
    assert error.value.kind == "unreachable"
    await watcher.close()


# -- looks -------------------------------------------------------------------------------------


async def test_a_look_shows_what_is(rig: Rig) -> None:
    async with watching(rig) as (watcher, box):
        rig.show(1, used_mib=4096, util=77, temperature=81, power_mw=650_000, energy_mj=2_000_000)
        seen = await box.look(watcher)
        assert seen.problem == ""
        assert [one.uuid for one in seen.gpus] == [rig.uuid(index) for index in range(3)]
        assert sight(seen, rig.uuid(1)) == GpuSight(
            rig.uuid(1),
            total_mib=81 * 1024,
            used_mib=4096,
            free_mib=77 * 1024,
            util=77,
            temperature_c=81,
            power_mw=650_000,
            energy_mj=2_000_000,
        )


async def test_it_looks_by_itself(rig: Rig) -> None:
    async with watching(rig, idle_s=0.05) as (_, box):
        times = [(await box.wait(lambda e: isinstance(e, GpusSeen))).at_ms for _ in range(4)]
        assert times == sorted(times)


async def test_live_attempts_are_looked_at_more_often(rig: Rig) -> None:
    async with watching(rig, watched=Watched({1: (1, 1)}), busy_s=0.05) as (_, box):
        for _ in range(4):
            await box.wait(lambda e: isinstance(e, GpusSeen))


async def test_an_attempt_that_begins_is_noticed_in_the_middle_of_an_idle_pause(rig: Rig) -> None:
    """Within `busy_s`: the fake needs to be asked, as the daemon does at a start."""
    attempts: dict[int, tuple[int, int]] = {}
    async with watching(rig, watched=Watched(attempts), busy_s=0.05) as (watcher, box):
        await box.look(watcher)
        attempts[1] = (1, 1)
        if isinstance(rig, FakeRig):
            watcher.look()
        for _ in range(3):
            await box.wait(lambda e: isinstance(e, GpusSeen))


async def test_every_look_is_followed_by_a_sight_that_is_not_older(rig: Rig) -> None:
    async with watching(rig) as (watcher, box):
        for value in range(5):
            rig.show(0, temperature=40 + value)
            watcher.look()
            assert sight(await box.look(watcher), rig.uuid(0)).temperature_c == 40 + value


# -- processes ---------------------------------------------------------------------------------


async def test_processes_are_told_apart(rig: Rig, shell: tuple[int, int], stranger: int) -> None:
    pid, child = shell
    async with watching(rig, watched=Watched({pid: (7, 2)})) as (watcher, box):
        rig.use(0, pid, child, stranger)
        processes = sight(await box.look(watcher), rig.uuid(0)).processes
        assert [(p.pid, p.job, p.attempt) for p in processes] == [
            (pid, 7, 2),
            (child, 7, 2),
            (stranger, 0, 0),
        ]
        assert {p.mib for p in processes} == {500}
        assert all(p.name and p.user and p.compute for p in processes)


async def test_a_desktop_is_told_from_a_computation(rig: Rig, stranger: int) -> None:
    async with watching(rig) as (watcher, box):
        rig.use(0, stranger, kind="graphics")
        assert [p.compute for p in sight(await box.look(watcher), rig.uuid(0)).processes] == [False]


async def test_a_process_that_ends_is_seen_no_more(rig: Rig, stranger: int) -> None:
    async with watching(rig) as (watcher, box):
        rig.use(2, stranger)
        assert sight(await box.look(watcher), rig.uuid(2)).processes
        rig.use(2)
        assert not sight(await box.look(watcher), rig.uuid(2)).processes


async def test_blind_it_shows_processes_and_says_nothing_of_them(rig: Rig, stranger: int) -> None:
    watched = Watched({stranger: (7, 2)})
    async with watching(rig, watched=watched, blind="it is dark") as (watcher, box):
        rig.use(0, stranger)
        seen = sight(await box.look(watcher), rig.uuid(0))
        assert not seen.attributable
        assert seen.processes == (GpuProcess(stranger, "", "", 500),)
        assert (await watcher.find()).blind == "it is dark"


# -- faults ------------------------------------------------------------------------------------


async def test_a_gpu_at_which_the_driver_hangs_harms_no_other(rig: Rig) -> None:
    async with watching(rig, hasty=True, idle_s=0.05) as (watcher, box):
        await box.look(watcher)
        rig.hang(1)
        seen = await box.seen(lambda e: any(g.broken for g in e.gpus) and not waits(e))
        assert seen.problem == ""
        assert [bool(one.problem) for one in seen.gpus] == [False, True, False]
        ill = sight(seen, rig.uuid(1))
        assert ill.broken
        assert ill.problem.startswith("the driver did not answer for it within ")

        rig.hang(1, hangs=False)  # it is left alone, until somebody asks afresh
        assert sight(await box.look(watcher), rig.uuid(1)).problem == ill.problem
        watcher.look(afresh=True)
        healed = await box.seen(lambda e: not sight(e, rig.uuid(1)).broken and not waits(e))
        assert [one.problem for one in healed.gpus] == ["", "", ""]
        assert box.found == []


async def test_a_driver_that_hangs_is_a_problem_in_time_and_heals(rig: Rig) -> None:
    async with watching(rig, hasty=True, idle_s=0.05) as (watcher, box):
        await box.look(watcher)
        rig.hang(None)
        asked = time.monotonic()
        seen = await box.look(watcher)
        assert time.monotonic() - asked < HASTY.look_s + SPARE_S + 2
        assert (seen.problem, seen.gpus) == ("the NVIDIA driver does not answer", ())
        rig.hang(None, hangs=False)
        seen = await box.seen(lambda e: not e.problem)
        assert [one.problem for one in seen.gpus] == ["", "", ""]


async def test_a_driver_that_refuses_says_why_and_heals(rig: Rig) -> None:
    async with watching(rig, idle_s=0.05) as (watcher, box):
        await box.look(watcher)
        rig.refuse()
        seen = await box.look(watcher)
        assert seen.problem == "the driver was updated: restart the machine"
        rig.refuse(refuses=False)
        await box.seen(lambda e: not e.problem)


async def test_a_lost_gpu_is_broken(rig: Rig) -> None:
    async with watching(rig) as (watcher, box):
        await box.look(watcher)
        rig.lose(2)
        seen = await box.look(watcher)
        assert sight(seen, rig.uuid(2)) == GpuSight(
            rig.uuid(2), "it has fallen off the bus", broken=True
        )
        assert sight(seen, rig.uuid(0)).problem == ""


@pytest.mark.parametrize("ill", ["sleep", "lose"])
async def test_a_gpu_that_cannot_be_used_at_the_start_is_told_with_the_reason(
    rig: Rig, ill: str
) -> None:
    getattr(rig, ill)(1)
    why = "it has fallen off the bus" if ill == "lose" else "the driver did not answer for it wi"
    async with watching(rig, hasty=True) as (watcher, box):
        found = await watcher.find()
        assert [gpu.index for gpu in found.gpus] == [0, 2]
        assert list(found.unusable) == [1]
        assert found.unusable[1].startswith(why)
        seen = await box.look(watcher)
        assert [one.uuid for one in seen.gpus] == [rig.uuid(0), rig.uuid(2)]

        getattr(rig, ill)(1, False)
        watcher.look(afresh=True)
        seen = await box.seen(lambda e: len(e.gpus) == 3)
        assert [one.problem for one in seen.gpus] == ["", "", ""]
        assert [gpu.index for gpu in box.found[-1].gpus] == [0, 1, 2]
        assert box.found[-1].unusable == {}


async def test_a_gpu_that_was_usable_once_is_not_among_the_unusable(rig: Rig) -> None:
    async with watching(rig, hasty=True) as (watcher, box):
        await box.look(watcher)
        rig.sleep(1)
        rig.lose(2)
        await box.seen_or_asked(watcher, lambda e: [g.broken for g in e.gpus] == [0, 1, 1])
        found = await watcher.find()
        assert [gpu.index for gpu in found.gpus] == [0, 1, 2]
        assert found.unusable == {}


async def _heal_in_vain(rig: Rig, box: Box, watcher: GpuWatcher, ill: set[int]) -> None:
    """Until all that are ill have been touched again. Whoever asks for a look at the others in the
    meantime gets it, and in time."""
    seen = await box.look(watcher, afresh=True)
    if not isinstance(rig, FakeRig):  # there they are touched at once
        assert not any(one.broken for one in seen.gpus)
    while waits(seen):
        asked = time.monotonic()
        seen = await box.look(watcher)
        assert time.monotonic() - asked < HASTY.look_s + SPARE_S + 1
        assert seen.problem == ""
        assert {i for i in range(4) if sight(seen, rig.uuid(i)).problem} == ill
    assert {i for i in range(4) if sight(seen, rig.uuid(i)).broken} == ill


@pytest.mark.parametrize("ill", [{1}, {0, 3}], ids=["one", "two"])
async def test_healing_gpus_that_hang_makes_nobody_wait_longer_than_a_look(
    rig: Rig, ill: set[int]
) -> None:
    rig.have(4)
    async with watching(rig, hasty=True) as (watcher, box):
        await box.look(watcher)
        for index in ill:
            rig.sleep(index)
        await box.seen_or_asked(watcher, lambda e: sum(g.broken for g in e.gpus) == len(ill))
        await _heal_in_vain(rig, box, watcher, ill)
        for index in ill:
            rig.sleep(index, False)
        watcher.look(afresh=True)
        await box.seen(lambda e: not any(one.problem for one in e.gpus))
        assert box.found == []


async def test_a_lost_gpu_that_comes_back_is_well_when_it_is_healed(rig: Rig) -> None:
    async with watching(rig) as (watcher, box):
        await box.look(watcher)
        rig.lose(2)
        await box.look(watcher)
        watcher.look(afresh=True)  # too early
        seen = await box.seen(lambda e: any(one.broken for one in e.gpus))
        assert sight(seen, rig.uuid(2)).problem == "it has fallen off the bus"
        rig.lose(2, False)
        watcher.look(afresh=True)
        seen = await box.seen(lambda e: not any(one.broken for one in e.gpus) and not waits(e))
        assert [one.problem for one in seen.gpus] == ["", "", ""]


async def test_a_gpu_that_is_gone_is_forgotten_when_somebody_asks_afresh(rig: Rig) -> None:
    async with watching(rig) as (watcher, box):
        await box.look(watcher)
        rig.have(2)
        seen = await box.look(watcher)
        assert sight(seen, rig.uuid(2)).problem == NOT_LISTED
        seen = await box.look(watcher, afresh=True)
        assert [one.problem for one in seen.gpus] == ["", ""]
        rig.have(3)
        assert len((await box.look(watcher)).gpus) == 3


async def test_an_xid_is_told_at_once_if_it_breaks_the_gpu(rig: Rig) -> None:
    async with watching(rig) as (watcher, box):
        await box.look(watcher)
        rig.xid(0, 13)  # a program's own fault
        rig.xid(1, 79)
        broke = await box.wait(lambda e: isinstance(e, GpuBroke))
        assert (broke.uuid, broke.why) == (rig.uuid(1), "Xid 79: it has fallen off the bus")


async def test_what_there_is_may_change(rig: Rig) -> None:
    async with watching(rig) as (watcher, box):
        await box.look(watcher)
        assert box.found == []
        instance = rig.switch_mig_on(2)
        seen = await box.look(watcher)
        assert [(gpu.uuid, gpu.mig) for gpu in box.found[0].gpus] == [
            (rig.uuid(0), False),
            (rig.uuid(1), False),
            (instance, True),
        ]
        assert sight(seen, instance).total_mib == 10 * 1024
        gone = sight(seen, rig.uuid(2))
        assert (gone.problem, gone.broken) == (NOT_LISTED, False)
        await box.look(watcher)
        assert len(box.found) == 1
        rig.have(3)
        assert not any(one.broken for one in (await box.look(watcher)).gpus)
        rig.have(2)
        gone = sight(await box.look(watcher), rig.uuid(2))
        assert (gone.problem, gone.broken) == (NOT_LISTED, True)


async def test_close_returns_at_once_and_nothing_comes_after_it(rig: Rig) -> None:
    async with watching(rig, idle_s=0.01) as (watcher, box):
        await box.look(watcher)
        rig.hang(0)
        watcher.look()
        await asyncio.sleep(0)
        asked = time.monotonic()
        await watcher.close()
        assert time.monotonic() - asked < 1
        had = len(box.events)
        rig.xid(1, 79)
        watcher.look()
        await asyncio.sleep(0.05)
        assert len(box.events) == had
