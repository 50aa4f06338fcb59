"""The GPUs of the machine, faked: what is true of them, and looks that show it.

Used by tests/core/turns.py and tests/core/test_fault_scenarios.py. Foreign processes come and go,
GPUs break, memory is given back late; a look is a picture of the moment in which it began, however
late it is told. What the real one does is in gpud/ports.py, GpuWatcher.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

from msgspec import Struct, structs

from gpud.core.events import GpusSeen
from gpud.core.model import Device
from gpud.core.sight import GpuProcess, GpuSight

from .world import FakeRunner

DRIVERS_OWN_MIB = 300  # in use by nobody, always
POWER_MW = 200_000
STRAY_EVERY = 4  # so many jobs set CUDA_VISIBLE_DEVICES themselves
NO_ANSWER = "the driver does not answer"


class FakeGpu(Struct):
    total_mib: int
    foreign: tuple[GpuProcess, ...] = ()
    leaked_mib: int = 0  # of attempts that have ended
    broken: str = ""  # and a look shows it
    trouble: str = ""  # a look cannot tell, this time
    idle: bool = False


class FakeGpus:
    def __init__(self, devices: Iterable[Device]) -> None:
        """All that are ever in the pool."""
        self.by_uuid = {u: FakeGpu(d.memory_mib) for d in devices for u in d.uuids}
        self.of_key = {d.key: d.uuids for d in devices}
        self.driver_problem = ""
        self.blind = False  # whose a process is cannot be known
        self.asked = False  # for a look that has not begun
        self.under_way: list[GpusSeen] = []  # begun, and not told
        self.told: list[GpusSeen] = []
        self._pids = count(9_000)

    def begin_look(self, now_ms: int, runner: FakeRunner) -> GpusSeen:
        self.asked = False
        if self.driver_problem:
            look = GpusSeen(now_ms, (), self.driver_problem)
        else:
            ours = self._ours(runner)
            found = self.by_uuid.items()
            sights = [self._sight(uuid, gpu, ours.get(uuid, []), now_ms) for uuid, gpu in found]
            look = GpusSeen(now_ms, tuple(sights))
        self.under_way.append(look)
        return look

    def _ours(self, runner: FakeRunner) -> dict[str, list[GpuProcess]]:
        """A process of each payload that lives, on each of its GPUs; and of some on another. Who is
        paused does nothing."""
        found: dict[str, list[GpuProcess]] = {}
        for (job, attempt), payload in runner.alive().items():
            for part in payload.lease if payload.pid else ():
                for uuid in self.of_key.get(part.device, ()):
                    mib, util = part.mib // 2 + 1, 0 if payload.paused else 50
                    process = GpuProcess(payload.pid, "python", "ann", mib, util, job, attempt)
                    found.setdefault(uuid, []).append(process)
            if payload.pid and job % STRAY_EVERY == 0:
                process = GpuProcess(payload.pid, "python", "ann", 300, 50, job, attempt)
                found.setdefault([*self.by_uuid][job % len(self.by_uuid)], []).append(process)
        return found

    def _sight(self, uuid: str, gpu: FakeGpu, ours: list[GpuProcess], now_ms: int) -> GpuSight:
        if gpu.broken or gpu.trouble:
            return GpuSight(uuid, gpu.broken or gpu.trouble, broken=bool(gpu.broken))
        processes = (*ours, *gpu.foreign)
        if self.blind:
            processes = tuple(structs.replace(p, job=0, attempt=0) for p in processes)
        used_mib = DRIVERS_OWN_MIB + gpu.leaked_mib + sum(p.mib or 0 for p in processes)
        return GpuSight(
            uuid,
            total_mib=gpu.total_mib,
            used_mib=used_mib,
            free_mib=max(0, gpu.total_mib - used_mib),
            util=0 if gpu.idle else 50,
            power_mw=POWER_MW,
            energy_mj=POWER_MW * now_ms // 1000,
            processes=processes,
            attributable=not self.blind,
        )

    # -- what happens to them ----------------------------------------------------------------------

    def guest_comes(self, uuid: str, mib: int = 500, name: str = "python") -> None:
        """Somebody else's process."""
        self.by_uuid[uuid].foreign += (GpuProcess(next(self._pids), name, "bob", mib),)

    def leave_memory(self, device: str, mib: int) -> None:
        for uuid in self.of_key.get(device, ()):
            self.by_uuid[uuid].leaked_mib += mib

    def all_is_well(self) -> None:
        self.driver_problem = ""
        for gpu in self.by_uuid.values():
            gpu.foreign, gpu.leaked_mib = (), 0
            gpu.broken = gpu.trouble = ""
