"""The GPUs of one instance: found, watched, and found again when they change.

Made by `gpud serve` and `gpud run`. Owns the watcher and what people are told of what cannot be
seen. Until the driver has answered no GPU is used; one that never answers stops only the GPUs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gpud.core.events import DevicesChanged
from gpud.core.model import Device
from gpud.core.sight import GpuInfo
from gpud.daemon.devices import (
    ASKING,
    NO_DRIVER,
    Known,
    Plan,
    found,
    not_asked,
    now_lost,
    unknown_guests,
    without_driver,
)
from gpud.devices.presence import driver_is_there
from gpud.devices.whose import OTHERS_UNSEEN
from gpud.errors import GpudError
from gpud.ports import GpusFound, GpuWatcher, Watched

if TYPE_CHECKING:
    from gpud.daemon.engine import Engine

ASK_AGAIN_S = 30.0  # a driver that did not answer, or had no GPU


class Gpus:
    """`pool` is what is known now. `note`: a sentence about what cannot be seen, or ""."""

    def __init__(
        self,
        plan: Plan,
        *,
        warn: Callable[..., None],
        watcher: GpuWatcher | None = None,
    ) -> None:
        self._plan = plan
        self._warn = warn
        self._watcher = watcher
        self._engine: Engine | None = None
        self._follow: Callable[[Sequence[Device]], None] = lambda devices: None
        self._known = Known()
        self._blind = ""  # why processes cannot be told apart
        self._said: list[str] = []
        self._finding: asyncio.Task[None] | None = None
        named = plan.named is None or any(device.ids for device in plan.named)
        if watcher is None and named and plan.pool.maker == "nvidia" and driver_is_there():
            from gpud.devices.watcher import NvmlWatcher

            self._watcher = NvmlWatcher(warn=warn)
        if self._watcher is None:
            self.pool = without_driver(plan)
            self.note = NO_DRIVER if named else ""
        else:
            self.pool, self.note = not_asked(plan), f"{ASKING}: no GPU is used until then"
            self._start_finding()

    async def wait(self, seconds: float) -> None:
        """Until the driver has answered, but not for ever. Raises GpudError when nobody named a GPU
        and there is no driver, or it has none."""
        if self._finding is not None:
            await asyncio.wait({self._finding}, timeout=seconds)
        if self._plan.named is None and not self.pool.unknown and not _gpu_count(self.pool):
            raise GpudError(
                self.note if self.note.startswith("cannot ") else f"cannot find a GPU: {self.note}",
                hint="name the slots yourself: --gpus 0,1 (or --gpus none, for jobs without GPU)",
            )

    def follow(self, told: Callable[[Sequence[Device]], None]) -> None:
        """`told` is called with the devices, now and whenever they become others."""
        self._follow = told
        told(self.pool.devices)

    def attach(self, engine: Engine, watched: Callable[[], Watched]) -> None:
        """From now on the engine is told of every look, and may ask for one."""
        self._engine = engine
        if self._watcher is not None:
            engine.look = self._look
            self._watcher.watch(engine.post, watched, self._on_found)
        if self.pool != engine.devices:
            engine.change_devices(self.pool)

    def replan(self, plan: Plan) -> None:
        """Another configuration."""
        self._plan = plan
        if self._watcher is None:
            self._change(without_driver(plan))
        elif self._known == Known():
            self._start_finding()
        else:
            self._apply()

    async def close(self) -> None:
        if self._finding is not None:
            self._finding.cancel()
            await asyncio.wait({self._finding})
        if self._watcher is not None:
            await self._watcher.close()

    def _look(self, afresh: bool) -> None:
        if afresh and self._known == Known():
            self._start_finding()
        if self._watcher is not None:
            self._watcher.look(afresh)

    def _start_finding(self) -> None:
        if self._finding is None or self._finding.done():
            self._finding = asyncio.ensure_future(self._find())
            self._finding.add_done_callback(_let_bugs_out)

    async def _find(self) -> None:
        """Ask until there is an answer."""
        assert self._watcher is not None
        while True:
            try:
                self._on_found(await self._watcher.find())
                return
            except GpudError as error:
                self.note = error.message
                if error.kind == "not-found" and self._known != Known():
                    self._on_found(GpusFound("", ()))  # they are gone
                    return
                if error.kind == "not-found":
                    self._say([error.message])
                    self._change(without_driver(self._plan))
                    return
                self._warn("gpus_not_found", why=error.message)
                if self.pool.unknown:  # else looks tell of each GPU by itself
                    self._change(DevicesChanged(self.pool.devices, self.pool.policy, error.message))
            await asyncio.sleep(ASK_AGAIN_S)

    def _on_found(self, answer: GpusFound) -> None:
        ever: tuple[GpuInfo, ...] = (*self._known.gpus, *self._known.lost)
        self._known = Known(answer.gpus, answer.unusable, now_lost(ever, answer.gpus))
        self._blind = answer.blind
        self._apply()

    def _apply(self) -> None:
        """The configuration, to what is known."""
        notes = unknown_guests(self._plan, self._known)
        if self._blind:
            notes.append(f"{OTHERS_UNSEEN}: {self._blind}")
        pool = found(self._plan, self._known)
        self._say([*notes, *_problems(pool)])
        self.note = "; ".join(notes)  # the rest is in the table of GPUs
        self._change(pool)

    def _say(self, sentences: list[str]) -> None:
        """To the log: what was not said the last time."""
        for sentence in sentences:
            if sentence not in self._said:
                self._warn("gpus", note=sentence)
        self._said = sentences

    def _change(self, pool: DevicesChanged) -> None:
        if pool != self.pool:
            self.pool = pool
            self._follow(pool.devices)
            if self._engine is not None:
                self._engine.change_devices(pool)


def _let_bugs_out(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.result()  # goes on to the loop's handler


def _problems(pool: DevicesChanged) -> list[str]:
    return [f"GPU {d.label} takes no work: {d.problem}" for d in pool.devices if d.problem]


def _gpu_count(pool: DevicesChanged) -> int:
    return sum(1 for device in pool.devices if device.ids)
