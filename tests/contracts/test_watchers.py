"""The contract of watchers (gpud/ports.py), over a stubbed driver with real helpers, and over the
fake.

A rig stands for the machine. What needs real processes (whose they are) has them in both.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gpud.core.events import Event, GpuBroke, GpusSeen
from gpud.core.sight import GpuInfo, GpuProcess, GpuSight
from gpud.devices.fake import FakeMachine, FakeProcess, FakeWatcher
from gpud.devices.patience import Limits
from gpud.devices.watcher import NvmlWatcher, wall_clock_ms
from gpud.errors import GpudError
from gpud.ports import GpusFound, GpuWatcher, Watched
from tests.devices.nvml_stub import Stub, mig_uuid, uuid

pytestmark = pytest.mark.anyio
TIMEOUT_S = 20
NEVER_S = 1_000.0
NOBODY = Watched()
PATIENT = Limits(look_s=TIMEOUT_S, wake_s=TIMEOUT_S, init_s=TIMEOUT_S, first_pause_s=0.05)
# For a driver that hangs; a helper that is well answers within milliseconds.
HASTY = Limits(look_s=1.0, wake_s=3.0, init_s=3.0, first_pause_s=0.05)
SPARE_S = 1.0


class Box:
    """What a daemon's mailbox has received; `wait` returns the first new event that fits."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.found: list[GpusFound] = []
        self._read = 0
        self._more = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()

    async def wait(self, fits: Callable[[Event], bool]) -> Any:
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                while self._read < len(self.events):
                    event = self.events[self._read]
                    self._read += 1
                    if fits(event):
                        return event
                self._more.clear()
                await self._more.wait()

    async def look(self, watcher: GpuWatcher) -> GpusSeen:
        """What an asked-for look brings."""
        at_ms = wall_clock_ms()
        watcher.look()
        return await self.wait(lambda e: isinstance(e, GpusSeen) and e.at_ms >= at_ms)

    async def seen(self, fits: Callable[[GpusSeen], bool]) -> GpusSeen:
        """The next look that fits, of those that are taken anyway."""
        return await self.wait(lambda e: isinstance(e, GpusSeen) and fits(e))


class StubRig:
    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stub = Stub(directory)
        for key, value in self.stub.variables.items():
            monkeypatch.setenv(key, value)

    def watcher(self, idle_s: float, busy_s: float, *, hasty: bool, blind: str) -> NvmlWatcher:
        return NvmlWatcher(
            idle_s=idle_s,
            busy_s=busy_s,
            health_s=0.0,
            limits=HASTY if hasty else PATIENT,
            spare_s=SPARE_S,
            blind=blind,
        )

    def have(self, gpus: int) -> None:
        self.stub.have(gpus)

    def uuid(self, index: int) -> str:
        return uuid(index)

    def show(self, index: int, **values: int) -> None:
        self.stub.gpu(index, **values)

    def use(self, index: int, *pids: int, mib: int = 500, kind: str = "compute") -> None:
        self.stub.gpu(index, **{kind: " ".join(f"{pid}:{mib}" for pid in pids) or None})

    def hang(self, index: int | None, hangs: bool = True) -> None:
        """On one GPU, or all of the driver."""
        code = 1 if hangs else None
        if index is None:
            self.stub.order("hang", "nvmlInitWithFlags", code=code)
            self.stub.order("hang", "nvmlDeviceGetCount_v2", code=code)
        else:
            self.stub.order("hang", "nvmlDeviceGetUtilizationRates", index, code)

    def lose(self, index: int) -> None:
        self.stub.order("fail", "*", index, 15)

    def refuse(self, refuses: bool = True) -> None:
        code = 18 if refuses else None
        self.stub.order("fail", "nvmlInitWithFlags", code=code)
        self.stub.order("fail", "nvmlDeviceGetCount_v2", code=code)

    def switch_mig_on(self, index: int) -> str:
        self.stub.gpu(index, mig=1)
        self.stub.instance(index, 0)
        return mig_uuid(index, 0)

    def xid(self, index: int, xid: int) -> None:
        self.stub.xid(index, xid)

    def close(self) -> None:
        self.stub.close()


class FakeRig:
    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine = FakeMachine()

    def watcher(self, idle_s: float, busy_s: float, *, hasty: bool, blind: str) -> FakeWatcher:
        self.machine.blind = blind
        return FakeWatcher(self.machine, idle_s=idle_s, busy_s=busy_s)

    def have(self, gpus: int) -> None:
        self.machine.gpus.clear()
        for index in range(gpus):
            self.machine.add(
                GpuInfo(self.uuid(index), index, f"Stub {index}", (80 + index) * 1024)
            ).energy_mj = 1_000_000

    def uuid(self, index: int) -> str:
        return f"GPU-{index}"

    def show(self, index: int, **values: int) -> None:
        names = {"temperature": "temperature_c", "used_mib": "base_mib"}
        for name, value in values.items():
            setattr(self.machine.gpus[self.uuid(index)], names.get(name, name), value)

    def use(self, index: int, *pids: int, mib: int = 500, kind: str = "compute") -> None:
        gpu = self.machine.gpus[self.uuid(index)]
        gpu.base_mib, gpu.processes = 0, {}
        for pid in pids:
            process = FakeProcess(mib, "sleep", compute=kind != "graphics")
            self.machine.use(gpu.info.uuid, pid, process, _parent_of(pid))

    def hang(self, index: int | None, hangs: bool = True) -> None:
        if index is None:
            self.machine.trouble = "the NVIDIA driver does not answer" if hangs else ""
        else:
            self.machine.gpus[self.uuid(index)].hangs = hangs

    def lose(self, index: int) -> None:
        self.machine.gpus[self.uuid(index)].problem = "it has fallen off the bus"

    def refuse(self, refuses: bool = True) -> None:
        why = "the driver was updated: restart the machine"
        self.machine.trouble = why if refuses else ""

    def switch_mig_on(self, index: int) -> str:
        del self.machine.gpus[self.uuid(index)]
        self.machine.add(GpuInfo("MIG-0", index, "Fake MIG", 10 * 1024, mig=True))
        return "MIG-0"

    def xid(self, index: int, xid: int) -> None:
        self.machine.xid(self.uuid(index), xid)

    def close(self) -> None:
        pass


Rig = StubRig | FakeRig


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


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


@asynccontextmanager
async def watching(
    rig: Rig,
    *,
    watched: Watched = NOBODY,
    idle_s: float = NEVER_S,
    busy_s: float = NEVER_S,
    hasty: bool = False,
    blind: str = "",
) -> AsyncIterator[tuple[GpuWatcher, Box]]:
    """A daemon that has found GPUs and watches them; nothing of it is left afterwards."""
    before, tasks = children(), asyncio.all_tasks()
    watcher = rig.watcher(idle_s, busy_s, hasty=hasty, blind=blind)
    box = Box()
    try:
        await watcher.find()
        watcher.watch(box, lambda: watched, box.found.append)
        yield watcher, box
    finally:
        await watcher.close()
        assert children() == before
        assert asyncio.all_tasks() == tasks


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


def sight(seen: GpusSeen, uuid: str) -> GpuSight:
    (found,) = (one for one in seen.gpus if one.uuid == uuid)
    return found


# -- what there is -----------------------------------------------------------------------------


async def test_find_tells_all_gpus_in_the_order_of_the_bus(rig: Rig) -> None:
    watcher = rig.watcher(NEVER_S, NEVER_S, hasty=False, blind="")
    found = await watcher.find()
    await watcher.close()
    assert [(gpu.uuid, gpu.index, gpu.model, gpu.memory_mib, gpu.mig) for gpu in found.gpus] == [
        (rig.uuid(index), index, f"Stub {index}", (80 + index) * 1024, False) for index in range(3)
    ]
    assert (found.driver, found.problems, found.blind) == ("999.01", (), "")


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
        seen = await box.seen(lambda e: any(g.broken for g in e.gpus) and not _waits(e))
        assert seen.problem == ""
        assert [bool(one.problem) for one in seen.gpus] == [False, True, False]
        ill = sight(seen, rig.uuid(1))
        assert ill.broken
        assert ill.problem.startswith("the driver did not answer for it within ")

        rig.hang(1, hangs=False)  # it is left alone, until somebody asks afresh
        assert sight(await box.look(watcher), rig.uuid(1)).problem == ill.problem
        assert len((await watcher.find()).gpus) == 3
        assert sight(await box.look(watcher), rig.uuid(1)).problem == ""


def _waits(seen: GpusSeen) -> bool:
    """Told in time, of as much as was known by then."""
    return any(one.problem and not one.broken for one in seen.gpus)


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
        assert (gone.problem, gone.broken) == ("the driver does not list it any more", True)
        await box.look(watcher)
        assert len(box.found) == 1


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
