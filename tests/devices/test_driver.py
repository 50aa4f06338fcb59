"""A driver that hangs, crashes and comes back: what is known of its GPUs meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from gpud.core.sight import NOT_LISTED, GpuSight
from gpud.devices.driver import NO_ANSWER
from gpud.devices.helper import Helper
from gpud.devices.knowledge import NOT_YET
from gpud.devices.patience import Trouble
from gpud.devices.wire import Broke
from tests.contracts.watchers import HASTY
from tests.devices.driving import driving, look, problems
from tests.devices.nvml_stub import Stub, uuid

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("here")]


# -- crashes -----------------------------------------------------------------------------------


async def test_one_crash_is_made_up_for_within_the_look(stub: Stub) -> None:
    async with driving() as (driver, warnings):
        await driver.find()
        stub.order("crash", "nvmlDeviceGetPowerUsage", gpu=1, code=2)
        assert problems(await look(driver)) == ["", ""]
        assert warnings == [(1, "crashed (SIGSEGV)")]


async def test_a_gpu_at_which_it_crashes_again_is_left_alone(stub: Stub) -> None:
    async with driving() as (driver, warnings):
        await driver.find()
        stub.order("crash", "nvmlDeviceGetPowerUsage", gpu=0)
        ill = GpuSight(uuid(0), "the GPU helper crashed (SIGSEGV) at it, twice", broken=True)
        seen = await look(driver)
        assert (seen[uuid(0)], seen[uuid(1)].problem) == (ill, "")
        assert len(warnings) == 2
        assert (await look(driver))[uuid(0)] == ill
        assert len(warnings) == 2


async def test_a_crash_at_no_gpu_is_trouble_with_all_and_the_next_try_waits(stub: Stub) -> None:
    limits = HASTY._replace(first_pause_s=60.0)
    async with driving(limits) as (driver, warnings):
        await driver.find()
        stub.order("crash", "nvmlDeviceGetCount_v2")
        for _ in range(3):
            with pytest.raises(Trouble, match=r"the GPU helper crashed \(SIGSEGV\)"):
                await look(driver)
        assert warnings == [(None, "crashed (SIGSEGV)")]  # the other looks asked nobody
        stub.order("crash", "nvmlDeviceGetCount_v2", code=None)
        await driver.find()  # a person does not wait
        assert problems(await look(driver)) == ["", ""]


async def test_pauses_grow(stub: Stub) -> None:
    async with driving() as (driver, _):
        stub.order("fail", "nvmlInitWithFlags", code=9)
        pauses = []
        for _ in range(4):
            driver._not_before = 0.0
            with pytest.raises(Trouble, match="installed and not loaded"):
                await look(driver)
            pauses.append(driver._pause_s)
        assert pauses == [0.05, 0.1, 0.2, 0.4]


async def test_a_helper_that_died_while_nobody_asked_is_replaced() -> None:
    async with driving() as (driver, warnings):
        await driver.find()
        helper = driver._helper
        assert helper is not None
        os.kill(helper.pid, signal.SIGKILL)
        assert await helper.receive() is None
        assert problems(await look(driver)) == ["", ""]
        assert warnings == [(None, "ended while nobody asked it anything")]


async def test_trouble_that_is_told_again_and_again_is_told_afresh(stub: Stub) -> None:
    """An exception that is raised again grows by a traceback each time."""
    limits = HASTY._replace(first_pause_s=60.0)
    async with driving(limits) as (driver, _):
        stub.order("fail", "nvmlInitWithFlags", code=9)
        troubles = []
        for _ in range(3):
            with pytest.raises(Trouble, match="installed and not loaded") as raised:
                await look(driver)
            troubles.append(raised.value)
        assert troubles[1] is not troubles[2]


# -- silence -----------------------------------------------------------------------------------


async def test_a_driver_that_hangs_at_no_gpu_is_told_as_such(stub: Stub) -> None:
    async with driving() as (driver, warnings):
        await driver.find()
        stub.order("hang", "nvmlDeviceGetCount_v2")
        with pytest.raises(Trouble, match=NO_ANSWER):
            await look(driver)
        assert warnings == [(None, "the driver did not answer within 1 s")]


async def test_a_gpu_that_does_not_wake_up_is_a_problem_of_its_own(stub: Stub) -> None:
    limits = HASTY._replace(wake_s=1.0)
    async with driving(limits) as (driver, _):
        stub.order("hang", "nvmlDeviceGetHandleByIndex_v2", gpu=0)
        found = await driver.find()
        assert [gpu.uuid for gpu in found.gpus] == [uuid(1)]
        assert found.unusable == {0: "the driver did not answer for it within 1 s"}
        assert list(await look(driver)) == [uuid(1)]


async def test_what_is_known_of_a_gpu_outlives_its_silence(stub: Stub) -> None:
    stub.have(3)
    stub.put({"near.0.1": 10, "near.0.2": 50, "near.1.2": 40})
    async with driving() as (driver, _):
        found = await driver.find()
        assert found.gpus[1].distance == {uuid(0): 1, uuid(2): 4}
        stub.order("hang", "nvmlDeviceGetPowerUsage", gpu=2)
        why = "the driver did not answer for it within 1 s"
        assert problems(await look(driver)) == ["", "", why]
        assert driver.knowledge.found == found


async def test_with_another_number_of_gpus_all_are_asked_again(stub: Stub) -> None:
    async with driving() as (driver, _):
        await driver.find()
        stub.order("hang", "nvmlDeviceGetPowerUsage", gpu=1)
        assert (await look(driver))[uuid(1)].broken
        stub.order("hang", "nvmlDeviceGetPowerUsage", gpu=1, code=None)
        stub.have(3)
        await look(driver)  # what an index means is not known
        assert problems(await look(driver)) == ["", "", ""]
        assert [gpu.uuid for gpu in driver.knowledge.found.gpus] == [
            uuid(index) for index in range(3)
        ]


async def test_a_gpu_that_disappears_is_told_as_such(stub: Stub) -> None:
    async with driving() as (driver, _):
        await driver.find()
        stub.have(1)
        gone = GpuSight(uuid(1), NOT_LISTED, broken=True)
        assert (await look(driver))[uuid(1)] == gone
        assert [gpu.uuid for gpu in driver.knowledge.found.gpus] == [uuid(0)]
        await driver.find()
        assert list(await look(driver)) == [uuid(0)]  # afresh: what is gone is forgotten


async def test_who_stops_waiting_leaves_no_helper_in_the_middle_of_an_answer(stub: Stub) -> None:
    async with driving() as (driver, _):
        stub.order("hang", "nvmlInitWithFlags")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await driver.find()
        assert driver._helper is None
        stub.order("hang", "nvmlInitWithFlags", code=None)
        assert len((await driver.find()).gpus) == 2


# -- afresh ------------------------------------------------------------------------------------


async def test_a_gpu_that_hung_is_touched_again_by_the_same_helper(stub: Stub) -> None:
    async with driving() as (driver, warnings):
        await driver.find()
        stub.order("hang", "nvmlDeviceGetPowerUsage", gpu=0)
        assert (await look(driver))[uuid(0)].broken
        helper = driver._helper
        stub.order("hang", "nvmlDeviceGetPowerUsage", gpu=0, code=None)
        assert not await driver.touch_again()  # nobody has asked for it
        driver.ask_afresh()
        assert problems(await look(driver)) == [NOT_YET, ""]
        assert await driver.touch_again()
        assert problems(await look(driver)) == ["", ""]
        assert not await driver.touch_again()
        assert driver._helper is helper
        assert len(warnings) == 1


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("hang", "the driver did not answer for it within 1 s"),
        ("crash", "the GPU helper crashed (SIGSEGV) at it"),
    ],
)
async def test_one_at_which_a_helper_is_lost_once_more_is_left_alone_at_once(
    stub: Stub, word: str, why: str
) -> None:
    async with driving() as (driver, warnings):
        await driver.find()
        stub.order("hang", "nvmlDeviceGetPowerUsage", gpu=1)
        await look(driver)
        stub.order("hang", "nvmlDeviceGetPowerUsage", gpu=1, code=None)
        stub.order(word, "nvmlDeviceGetPowerUsage", gpu=1)
        driver.ask_afresh()
        await look(driver)
        assert await driver.touch_again()
        assert len(warnings) == 2
        assert problems(await look(driver)) == ["", why]
        assert not await driver.touch_again()
        assert len(warnings) == 2


async def test_nobody_waits_for_a_pause_who_asks_afresh(stub: Stub) -> None:
    limits = HASTY._replace(first_pause_s=60.0)
    async with driving(limits) as (driver, _):
        stub.order("fail", "nvmlInitWithFlags", code=9)
        with pytest.raises(Trouble):
            await look(driver)
        stub.order("fail", "nvmlInitWithFlags", code=None)
        with pytest.raises(Trouble):
            await look(driver)
        driver.ask_afresh()
        assert problems(await look(driver)) == ["", ""]


async def test_trouble_while_a_gpu_is_touched_again_ends_that(stub: Stub) -> None:
    """Else each look that succeeds would be followed by the same trouble."""
    async with driving() as (driver, _):
        await driver.find()
        stub.order("hang", "nvmlDeviceGetPowerUsage", gpu=1)
        await look(driver)
        driver.ask_afresh()
        await look(driver)
        stub.order("fail", "nvmlDeviceGetMemoryInfo_v2", gpu=1, code=18)
        assert await driver.touch_again()
        driver._not_before = 0.0
        why = "the driver did not answer for it within 1 s"
        assert problems(await look(driver)) == ["", why]
        assert not await driver.touch_again()


async def test_one_that_answers_with_a_fault_stays_of_no_use(stub: Stub) -> None:
    async with driving(HASTY._replace(wake_s=1.0)) as (driver, _):
        stub.order("hang", "*", gpu=0)
        hung = {0: "the driver did not answer for it within 1 s"}
        assert (await driver.find()).unusable == hung
        stub.order("hang", "*", gpu=0, code=None)
        stub.order("fail", "*", gpu=0, code=15)
        driver.ask_afresh()
        await look(driver)
        assert driver.knowledge.found.unusable == hung
        await driver.touch_again()
        for _ in range(2):
            assert driver.knowledge.found.unusable == {0: "it has fallen off the bus"}
            assert list(await look(driver)) == [uuid(1)]


async def test_a_gpu_that_fails_is_touched_again_by_another_helper(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And until that one is ready the old one keeps the GPUs awake."""
    async with driving() as (driver, warnings):
        await driver.find()
        stub.order("fail", "*", gpu=0, code=15)
        assert problems(await look(driver)) == ["it has fallen off the bus", ""]
        stub.order("fail", "*", gpu=0, code=None)
        stub.order("hang", "nvmlInitWithFlags")
        old = driver._helper
        assert old is not None
        driver.ask_afresh()
        begun = asyncio.Event()
        monkeypatch.setattr(Helper, "start", telling(begun))
        looking = asyncio.create_task(look(driver))
        await begun.wait()
        assert not old.is_over
        stub.order("hang", "nvmlInitWithFlags", code=None)
        assert problems(await looking) == [NOT_YET, ""]
        assert old.is_over
        await driver.touch_again()
        assert problems(await look(driver)) == ["", ""]
        assert warnings == []


def telling(begun: asyncio.Event) -> Any:
    """`Helper.start`, and that it has been called."""
    start = Helper.start

    async def start_and_tell(broke: Callable[[Broke], None]) -> Helper:
        helper = await start(broke)
        begun.set()
        return helper

    return start_and_tell


# -- nonsense ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [-1, 9999])
async def test_an_absurd_number_of_gpus_is_trouble_with_all_and_heals(
    stub: Stub, count: int
) -> None:
    async with driving() as (driver, warnings):
        await driver.find()
        stub.put({"count": count})
        for pause_s in (0.05, 0.1, 0.2):
            with pytest.raises(Trouble, match=f"^the NVIDIA driver says that it has {count} GPUs$"):
                await look(driver)
            assert driver._pause_s == pause_s
            driver._not_before = 0.0
        assert driver._helper is None  # nothing that could go on counting
        stub.put({"count": 2})
        assert problems(await look(driver)) == ["", ""]
        assert warnings == []
