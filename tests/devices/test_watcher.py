"""When the watcher looks, and what it says of a driver that is slow."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from gpud.core.events import GpusSeen
from gpud.devices.driver import NO_ANSWER
from gpud.devices.knowledge import NOT_YET
from gpud.devices.patience import Limits
from gpud.devices.watcher import IDLE_S, NvmlWatcher
from gpud.ports import GpusFound, Watched
from tests.contracts.watchers import Box, waits
from tests.devices.nvml_stub import Stub, uuid

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("here")]
SLOW = Limits(look_s=20.0, wake_s=20.0, init_s=20.0)
IN_TIME_S = 0.3
NEVER_S = 1_000.0


def slow_watcher() -> NvmlWatcher:
    """One whose driver may take long, while those who ask are told soon."""
    return NvmlWatcher(
        idle_s=NEVER_S, busy_s=NEVER_S, limits=SLOW, spare_s=IN_TIME_S - SLOW.look_s, blind=""
    )


async def test_who_asks_while_a_look_is_slow_is_told_what_is_known(stub: Stub) -> None:
    watcher, box = slow_watcher(), Box()
    await watcher.find()
    stub.order("hang", "nvmlDeviceGetPowerUsage", gpu=1)
    watcher.watch(box, Watched, box.found.append)
    first = await box.seen(lambda seen: True)
    assert [(sight.uuid, sight.problem, sight.broken) for sight in first.gpus] == [
        (uuid(0), "", False),
        (uuid(1), NOT_YET, False),
    ]
    second = await box.look(watcher)
    assert (second.problem, second.gpus) == (NO_ANSWER, ())
    stub.order("hang", "nvmlDeviceGetPowerUsage", gpu=1, code=None)
    last = await box.seen(lambda seen: not seen.problem)
    assert [sight.problem for sight in last.gpus] == ["", ""]
    times = [event.at_ms for event in box.events if isinstance(event, GpusSeen)]
    assert times == sorted(times)  # what is older than what was said is not said
    await watcher.close()


async def test_a_look_that_began_before_somebody_asked_afresh_is_not_told(stub: Stub) -> None:
    """It would say once more of a GPU that it is broken, after a person has healed it."""
    watcher, box = slow_watcher(), Box()
    await watcher.find()
    stub.order("fail", "*", gpu=0, code=15)
    stub.order("hang", "nvmlDeviceGetPowerUsage", gpu=1)
    watcher.watch(box, Watched, box.found.append)
    assert (await box.seen(lambda seen: True)).gpus[0].broken
    watcher.look(afresh=True)
    stub.order("fail", "*", gpu=0, code=None)
    stub.order("hang", "nvmlDeviceGetPowerUsage", gpu=1, code=None)
    after = await box.seen(lambda seen: not seen.problem)
    assert not any(sight.broken for sight in after.gpus)
    await watcher.close()


async def test_a_fault_is_asked_for_when_somebody_has_healed_the_gpu(stub: Stub) -> None:
    """What the hardware remembers is not asked for in every look: in this one it is."""
    watcher, box = NvmlWatcher(idle_s=NEVER_S, busy_s=NEVER_S, health_s=NEVER_S, blind=""), Box()
    await watcher.find()
    stub.gpu(0, recovery=1)
    watcher.watch(box, Watched, box.found.append)
    assert (await box.seen(lambda seen: True)).gpus[0].broken
    stub.gpu(0, recovery=0)
    assert (await box.look(watcher)).gpus[0].broken
    watcher.look(afresh=True)
    seen = await box.seen(lambda seen: not waits(seen))
    assert [sight.problem for sight in seen.gpus] == ["", ""]
    await watcher.close()


async def test_a_driver_that_takes_long_to_begin_is_waited_for(stub: Stub) -> None:
    """Nobody asked `find`: what there is comes with the first look."""
    watcher, box = slow_watcher(), Box()
    stub.order("hang", "nvmlInitWithFlags")
    watcher.watch(box, Watched, box.found.append)
    assert (await box.seen(lambda seen: True)).problem == NO_ANSWER
    assert (await box.look(watcher)).problem == NO_ANSWER
    assert box.found == []
    stub.order("hang", "nvmlInitWithFlags", code=None)
    await box.seen(lambda seen: not seen.problem)
    assert [[gpu.uuid for gpu in found.gpus] for found in box.found] == [[uuid(0), uuid(1)]]
    await watcher.close()


@pytest.mark.parametrize("begins_s", [0.0, 3.7, 9.9])
async def test_a_job_is_looked_at_soon_after_whatever_it_does(
    monkeypatch: pytest.MonkeyPatch, begins_s: float
) -> None:
    """It is told of a wrong GPU within five seconds of its first CUDA context: so from its start on
    no two looks are further apart. The looks are counted only, and the loop's clock is ours."""
    loop, attempts, looks = asyncio.get_running_loop(), {}, [0.0]
    now_s = 0.0
    monkeypatch.setattr(loop, "time", lambda: now_s)
    watcher = NvmlWatcher(blind="")

    async def look() -> None:
        watcher._began_s = now_s
        looks.append(now_s)

    monkeypatch.setattr(watcher, "_look", look)
    watcher.watch(lambda event: None, lambda: Watched(attempts), lambda found: None)
    for tenth in range(300):
        now_s = tenth / 10
        if now_s >= begins_s:
            attempts[1] = (7, 1)
        for _ in range(10):
            await asyncio.sleep(0)
    since = [begins_s, *(at_s for at_s in looks if at_s > begins_s), now_s]
    assert max(after - before for before, after in pairwise(since)) < 5
    await watcher.close()


async def test_without_a_driver_it_can_be_closed() -> None:
    watcher = NvmlWatcher(blind="")
    await watcher.close()
    await watcher.close()


async def test_what_polling_costs(stub: Stub) -> None:
    """Under 0.2 % of a core with eight GPUs that do nothing, counting both processes. (Measured
    here: 0.04 %.) A real driver adds its own part: tests/devices/test_real_gpu.py."""
    stub.have(8)
    watcher, box = NvmlWatcher(idle_s=NEVER_S, busy_s=NEVER_S), Box()
    await watcher.find()
    watcher.watch(box, Watched, lambda found: None)
    await box.seen(lambda seen: True)
    helper = watcher._driver._helper
    assert helper is not None
    looks = 20
    before_s = cpu_s("self") + cpu_s(helper.pid)
    for _ in range(looks):
        await box.look(watcher)
    cost_s = (cpu_s("self") + cpu_s(helper.pid) - before_s) / looks
    await watcher.close()
    assert cost_s / IDLE_S < 0.002


def cpu_s(pid: int | str) -> float:
    """What the threads of a process have had of the processors."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


async def test_a_bug_in_the_daemons_part_is_not_swallowed(stub: Stub) -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    loop.set_exception_handler(lambda loop, context: told.set())

    def buggy(found: GpusFound) -> None:
        raise RuntimeError("a bug")

    watcher = NvmlWatcher(blind="")
    watcher.watch(lambda event: None, Watched, buggy)
    async with asyncio.timeout(20):
        await told.wait()
    await watcher.close()


def test_the_daemon_does_not_load_nvml() -> None:
    """Only the helper does: its import costs, and the library stays loaded."""
    program = "import sys, gpud.devices.watcher, gpud.devices.fake; print('pynvml' in sys.modules)"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"False\n"
