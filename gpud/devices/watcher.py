"""The GPUs of this machine, looked at again and again (gpud/ports.py, GpuWatcher).

Made by the daemon, and by devices/survey.py for one question. Owns when a look is taken and what is
posted of it; devices/driver.py owns the driver. Decides nothing about GPUs.

An idle look costs well under a millisecond a GPU on both sides, so `IDLE_S` and `BUSY_S` are chosen
by how old news may be: a job on the wrong GPU is noticed within BUSY_S of its first CUDA context.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gpud.core.events import Event, GpuBroke, GpusSeen
from gpud.devices.driver import NO_ANSWER, Driver
from gpud.devices.knowledge import Sights
from gpud.devices.patience import USUAL, Limits, Trouble
from gpud.devices.whose import blindness
from gpud.devices.wire import Broke
from gpud.errors import GpudError
from gpud.ports import GpusFound, Watched

IDLE_S = 10.0
BUSY_S = 2.0
HEALTH_S = 60.0  # faults of the hardware come as Xids at once; this is the second line
SPARE_S = 3.0  # to begin afresh without a GPU at which the driver hung, and look at the others

HINT = "name the slots yourself: --gpus 0,1 (or --gpus none, for jobs that need no GPU)"


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class NvmlWatcher:
    """See gpud/ports.py, GpuWatcher. `blind`: why process ids mean nothing here; None: find out."""

    def __init__(
        self,
        now_ms: Callable[[], int] = wall_clock_ms,
        *,
        idle_s: float = IDLE_S,
        busy_s: float = BUSY_S,
        health_s: float = HEALTH_S,
        limits: Limits = USUAL,
        spare_s: float = SPARE_S,
        blind: str | None = None,
        warn: Callable[..., None] = lambda event, **values: None,
    ) -> None:
        self._now_ms = now_ms
        self._idle_s = idle_s
        self._busy_s = busy_s
        self._health_s = health_s
        self._in_time_s = limits.look_s + spare_s
        self._driver = Driver(
            self._broke,
            blind=blindness() if blind is None else blind,
            limits=limits,
            warn=warn,
        )
        self._told: GpusFound | None = None  # what there is, as last said
        self._asked = asyncio.Event()
        self._began_s = float("-inf")  # the last look, by the loop's clock
        self._health_at_s = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._post: Callable[[Event], None] = lambda event: None
        self._watched: Callable[[], Watched] = Watched
        self._found: Callable[[GpusFound], None] = lambda found: None

    # -- the port ------------------------------------------------------------------------------

    async def find(self) -> GpusFound:
        """What there is, all of it, asked through a new helper. Raises GpudError."""
        try:
            found = await self._driver.find()
        except Trouble as trouble:
            kind = "not-found" if trouble.missing else "unreachable"
            message = f"cannot ask the NVIDIA driver for GPUs: {trouble.why}"
            raise GpudError(message, kind=kind, hint=HINT) from None
        self._told = found
        if not self._driver.knowledge.count:
            message = "cannot find a GPU: the NVIDIA driver has none"
            raise GpudError(message, kind="not-found", hint=HINT)
        return found

    def watch(
        self,
        post: Callable[[Event], None],
        watched: Callable[[], Watched],
        found: Callable[[GpusFound], None],
    ) -> None:
        self._post, self._watched, self._found = post, watched, found
        self._task = asyncio.get_running_loop().create_task(self._look_again_and_again())
        self._task.add_done_callback(_let_bugs_out)

    def look(self, afresh: bool = False) -> None:
        if afresh:
            self._driver.ask_afresh()
        self._asked.set()

    async def close(self) -> None:
        self._post = lambda event: None
        self._found = lambda found: None
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._driver.close()

    # -- looks ---------------------------------------------------------------------------------

    async def _look_again_and_again(self) -> None:
        while True:
            await self._until_due()
            await self._look()
            if await self._driver.touch_again():
                self._asked.set()  # what came of it is told with the next look

    async def _until_due(self) -> None:
        """An attempt may begin at any time: hence in small steps."""
        loop = asyncio.get_running_loop()
        while not self._asked.is_set():
            interval_s = self._busy_s if self._watched().attempts else self._idle_s
            left_s = self._began_s + interval_s - loop.time()
            if left_s <= 0:
                return
            try:
                async with asyncio.timeout(min(left_s, self._busy_s)):
                    await self._asked.wait()
            except TimeoutError:
                pass

    async def _look(self) -> None:
        """One that took too long, or began before somebody asked afresh, is taken once more."""
        loop = asyncio.get_running_loop()
        self._asked.clear()
        self._began_s = loop.time()
        began_ms = self._now_ms()
        health = self._began_s - self._health_at_s >= self._health_s
        sights = Sights()
        look = loop.create_task(self._driver.look(self._watched(), sights, health=health))
        try:
            late = await self._wait_for(look, began_ms, sights)
            problem = await _problem(look)
        finally:
            if not look.done():
                look.cancel()
                await asyncio.wait({look})
        if late or self._driver.is_asked_afresh:
            self._asked.set()  # too old to be told: once more
            return
        if problem:
            self._post(GpusSeen(began_ms, (), problem))
            return
        if health:
            self._health_at_s = self._began_s
        found = self._driver.knowledge.found
        if found != self._told:
            self._told = found
            self._found(found)
        self._post(GpusSeen(began_ms, self._driver.knowledge.all_of(sights)))

    async def _wait_for(self, look: asyncio.Task[None], began_ms: int, sights: Sights) -> bool:
        """Whoever waits for a look is told in time, of as much as is known; and then again and
        again that the driver does not answer. Whether what `look` brings is older than that."""
        late = partly_told = False
        while not (await asyncio.wait({look}, timeout=self._in_time_s))[0]:
            if sights.by_uuid and not partly_told:
                partly_told = True
                self._post(GpusSeen(began_ms, self._driver.knowledge.all_of(sights)))
            else:
                late = True
                self._asked.clear()
                self._post(GpusSeen(self._now_ms(), (), NO_ANSWER))
        return late

    def _broke(self, message: Broke) -> None:
        at_ms = self._now_ms()
        for uuid in message.uuids:
            self._post(GpuBroke(uuid, at_ms, message.why))


async def _problem(look: asyncio.Task[None]) -> str:
    try:
        await look
    except Trouble as trouble:
        return trouble.why
    return ""


def _let_bugs_out(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.result()  # goes on to the loop's handler
