"""Machines for the contract suite of watchers: a stubbed driver with real helpers, and the fake.

A rig stands for the machine, a `Box` for the daemon that watches it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gpud.core.events import Event, GpusSeen
from gpud.core.sight import GpuInfo, GpuSight
from gpud.devices.fake import FakeMachine, FakeProcess, FakeWatcher
from gpud.devices.patience import Limits
from gpud.devices.watcher import NvmlWatcher, wall_clock_ms
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

    async def look(self, watcher: GpuWatcher, *, afresh: bool = False) -> GpusSeen:
        """What an asked-for look brings."""
        at_ms = wall_clock_ms()
        watcher.look(afresh)
        return await self.wait(lambda e: isinstance(e, GpusSeen) and e.at_ms >= at_ms)

    async def seen(self, fits: Callable[[GpusSeen], bool]) -> GpusSeen:
        """The next look that fits, of those that are taken anyway."""
        return await self.wait(lambda e: isinstance(e, GpusSeen) and fits(e))

    async def seen_or_asked(self, watcher: GpuWatcher, fits: Callable[[GpusSeen], bool]) -> None:
        """Ask for looks until one fits."""
        async with asyncio.timeout(TIMEOUT_S):
            while not fits(await self.look(watcher)):
                pass


class StubRig:
    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stub = Stub(directory)
        self.stub.use_here(monkeypatch)

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
        self.stub.put({f"gpu{index}.mig": None for index in range(gpus)})
        self.stub.have(gpus)

    def uuid(self, index: int) -> str:
        return uuid(index)

    def show(self, index: int, **values: int) -> None:
        self.stub.gpu(index, **values)

    def use(self, index: int, *pids: int, mib: int = 500, kind: str = "compute") -> None:
        self.stub.gpu(index, **{kind: " ".join(f"{pid}:{mib}" for pid in pids) or None})

    def hang(self, index: int | None, hangs: bool = True) -> None:
        """On one GPU, when it is looked at, or all of the driver."""
        code = 1 if hangs else None
        if index is None:
            self.stub.order("hang", "nvmlInitWithFlags", code=code)
            self.stub.order("hang", "nvmlDeviceGetCount_v2", code=code)
        else:
            self.stub.order("hang", "nvmlDeviceGetUtilizationRates", index, code)

    def sleep(self, index: int, sleeps: bool = True) -> None:
        """The driver hangs as soon as this GPU is touched."""
        self.stub.order("hang", "*", index, 1 if sleeps else None)

    def lose(self, index: int, lost: bool = True) -> None:
        self.stub.order("fail", "*", index, 15 if lost else None)

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

    def sleep(self, index: int, sleeps: bool = True) -> None:
        self.hang(index, sleeps)

    def lose(self, index: int, lost: bool = True) -> None:
        self.machine.gpus[self.uuid(index)].fails = "it has fallen off the bus" if lost else ""

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


def sight(seen: GpusSeen, uuid: str) -> GpuSight:
    (found,) = (one for one in seen.gpus if one.uuid == uuid)
    return found


def waits(seen: GpusSeen) -> bool:
    """Told while the driver has not answered for all GPUs that may be touched."""
    return any(one.problem and not one.broken for one in seen.gpus)
