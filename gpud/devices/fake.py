"""GPUs that are not there: for the contract tests of watchers, which alone use them.

`FakeMachine` is the hardware with its driver: it outlives any number of daemons, and whoever holds
it changes it at will. `FakeWatcher` is one daemon's sight of it; passes the contract suite of
watchers. Nothing hangs for real: what takes the real one its time limits happens here at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from msgspec import Struct

from gpud.core.events import Event, GpuBroke, GpusSeen
from gpud.core.sight import NOT_LISTED, GpuInfo, GpuProcess, GpuSight
from gpud.devices.patience import LOOK_TIMEOUT_S
from gpud.devices.watcher import BUSY_S, IDLE_S, wall_clock_ms
from gpud.devices.xids import judge
from gpud.errors import GpudError
from gpud.ports import GpusFound, Watched

DID_NOT_ANSWER = f"the driver did not answer for it within {LOOK_TIMEOUT_S:g} s"


class FakeProcess(Struct):
    mib: int | None = None
    name: str = "python"
    user: str = "alice"
    util: int | None = None
    compute: bool = True


class FakeGpu(Struct):
    """What a look shows of it: all of it may be changed. `problem`: a fault that the driver tells;
    `fails`: the one that it tells in the place of what there is; `hangs`: it tells nothing."""

    info: GpuInfo
    base_mib: int = 0  # used by nobody
    util: int | None = 0
    temperature_c: int | None = 30
    power_mw: int | None = 60_000
    energy_mj: int | None = 0
    processes: dict[int, FakeProcess] = {}  # by pid
    problem: str = ""
    broken: bool = True
    fails: str = ""
    hangs: bool = False

    def sight(self, watched: Watched, parents: Mapping[int, int], *, blind: bool) -> GpuSight:
        if self.fails or self.problem:
            broken = self.broken or bool(self.fails)
            return GpuSight(self.info.uuid, self.fails or self.problem, broken)
        total_mib = self.info.memory_mib
        used_mib = self.base_mib + sum(one.mib or 0 for one in self.processes.values())
        return GpuSight(
            self.info.uuid,
            total_mib=total_mib,
            used_mib=used_mib,
            free_mib=total_mib - used_mib,
            util=self.util,
            temperature_c=self.temperature_c,
            power_mw=self.power_mw,
            energy_mj=self.energy_mj,
            processes=tuple(
                GpuProcess(pid, "", "", one.mib, one.util, compute=one.compute)
                if blind
                else GpuProcess(
                    pid,
                    one.name,
                    one.user,
                    one.mib,
                    one.util,
                    *_whose(pid, watched, parents),
                    one.compute,
                )
                for pid, one in self.processes.items()
            ),
            attributable=not blind,
        )


class FakeMachine:
    """GPUs are `GPU-0`, `GPU-1`, …. `trouble`: why the driver as a whole cannot be asked."""

    def __init__(self, gpus: int = 0, memory_mib: int = 80 * 1024, model: str = "Fake") -> None:
        self.driver = "999.01"
        self.trouble = ""
        self.missing = False  # there is no driver at all
        self.blind = ""
        self.parents: dict[int, int] = {}  # pid -> pid
        self.gpus: dict[str, FakeGpu] = {}
        self.watchers: list[FakeWatcher] = []
        for index in range(gpus):
            self.add(GpuInfo(f"GPU-{index}", index, model, memory_mib))

    def add(self, info: GpuInfo) -> FakeGpu:
        """In the order of their indices, which is the caller's business."""
        gpu = self.gpus[info.uuid] = FakeGpu(info)
        return gpu

    def use(self, uuid: str, pid: int, process: FakeProcess, parent: int = 0) -> None:
        self.gpus[uuid].processes[pid] = process
        if parent:
            self.parents[pid] = parent

    def end(self, pid: int) -> None:
        """The process ends, and all its memory is given back."""
        for gpu in self.gpus.values():
            gpu.processes.pop(pid, None)

    def xid(self, uuid: str, xid: int) -> None:
        """The driver reports an Xid of this GPU."""
        if why := judge(xid, None):
            for watcher in self.watchers:
                watcher.break_down(uuid, why)


class FakeWatcher:
    """See gpud/ports.py, GpuWatcher."""

    def __init__(
        self,
        machine: FakeMachine,
        now_ms: Callable[[], int] = wall_clock_ms,
        *,
        idle_s: float = IDLE_S,
        busy_s: float = BUSY_S,
    ) -> None:
        self.machine = machine
        self._now_ms = now_ms
        self._idle_s = idle_s
        self._busy_s = busy_s
        self._told: GpusFound | None = None
        self._skipped: set[str] = set()  # UUIDs of those that once hung
        self._known: dict[str, GpuInfo] = {}  # those that were usable once, since `find`
        self._next: asyncio.Handle | None = None
        self._post: Callable[[Event], None] = lambda event: None
        self._watched: Callable[[], Watched] = Watched
        self._found: Callable[[GpusFound], None] = lambda found: None

    async def find(self) -> GpusFound:
        machine = self.machine
        self._forget()
        if machine.trouble:
            kind = "not-found" if machine.missing else "unreachable"
            raise GpudError(f"cannot ask the NVIDIA driver for GPUs: {machine.trouble}", kind=kind)
        if not machine.gpus:
            raise GpudError("cannot find a GPU: the NVIDIA driver has none", kind="not-found")
        self._told = self._all()
        return self._told

    def watch(
        self,
        post: Callable[[Event], None],
        watched: Callable[[], Watched],
        found: Callable[[GpusFound], None],
    ) -> None:
        self._post, self._watched, self._found = post, watched, found
        self.machine.watchers.append(self)
        self.look()

    def look(self, afresh: bool = False) -> None:
        if afresh:
            self._forget()
        if self in self.machine.watchers:
            self._schedule(asyncio.get_running_loop().call_soon(self.look_now))

    async def close(self) -> None:
        if self in self.machine.watchers:
            self.machine.watchers.remove(self)
        if self._next is not None:
            self._next.cancel()

    def look_now(self) -> None:
        """A look, and what is posted of it, before this returns."""
        at_ms, problem = self._now_ms(), self.machine.trouble
        watched = self._watched()
        if not problem and (found := self._all()) != self._told:
            self._told = found
            self._found(found)
        self._post(GpusSeen(at_ms, () if problem else self.sights(watched), problem))
        pause_s = self._busy_s if watched.attempts else self._idle_s
        if self in self.machine.watchers:
            self._schedule(asyncio.get_running_loop().call_later(pause_s, self.look_now))

    def sights(self, watched: Watched) -> tuple[GpuSight, ...]:
        """What a look shows now."""
        machine, blind = self.machine, bool(self.machine.blind)
        self._touch()
        found = []
        for uuid, info in self._known.items():
            if uuid not in machine.gpus:
                found.append(GpuSight(uuid, NOT_LISTED, broken=not self._is_divided(info)))
            elif uuid in self._skipped:
                found.append(GpuSight(uuid, DID_NOT_ANSWER, broken=True))
            else:
                found.append(machine.gpus[uuid].sight(watched, machine.parents, blind=blind))
        return tuple(found)

    def break_down(self, uuid: str, why: str) -> None:
        self._post(GpuBroke(uuid, self._now_ms(), why))

    def _all(self) -> GpusFound:
        self._touch()
        machine = self.machine
        infos = tuple(gpu.info for uuid, gpu in machine.gpus.items() if uuid in self._known)
        unusable = {
            gpu.info.index: DID_NOT_ANSWER if uuid in self._skipped else gpu.fails
            for uuid, gpu in machine.gpus.items()
            if uuid not in self._known
        }
        return GpusFound(machine.driver, infos, unusable, machine.blind)

    def _is_divided(self, gone: GpuInfo) -> bool:
        """Whether MIG was switched there, so that something else is in its place."""
        now = [gpu.info for gpu in self.machine.gpus.values()]
        return any(one.index == gone.index and one.mig != gone.mig for one in now)

    def _touch(self) -> None:
        for uuid, gpu in self.machine.gpus.items():
            if gpu.hangs:
                self._skipped.add(uuid)
            elif uuid not in self._skipped and not gpu.fails:
                self._known[uuid] = gpu.info

    def _forget(self) -> None:
        """Which ones hung, and those that are gone."""
        self._skipped.clear()
        here = self.machine.gpus
        self._known = {uuid: info for uuid, info in self._known.items() if uuid in here}

    def _schedule(self, handle: asyncio.Handle) -> None:
        """In the place of the look that was to be the next."""
        if self._next is not None:
            self._next.cancel()
        self._next = handle


def _whose(pid: int, watched: Watched, parents: Mapping[int, int]) -> tuple[int, int]:
    while pid:
        if pid in watched.attempts:
            return watched.attempts[pid]
        if pid in watched.runners:
            return -1, 0
        pid = parents.get(pid, 0)
    return 0, 0
