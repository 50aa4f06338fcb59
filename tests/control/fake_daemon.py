"""A daemon without executor, sources or disk: `Controlled` over the real core and a real store.

What tests do to it: `start` and `end` play the runner for a job, `post` hands in any fact, `gate`
holds commits back, `broken` is the trouble of a store that cannot write.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

from gpud.config.schema import JobDefaults
from gpud.core.actions import Answer, Refuse
from gpud.core.changes import By
from gpud.core.events import (
    AttemptEnded,
    AttemptStarted,
    Event,
    RunnerReady,
    SourceSwitched,
)
from gpud.core.model import CPU_LANE, Device, JobId
from gpud.core.pool import Pool
from gpud.core.retention import Limits
from gpud.core.scheduler import step
from gpud.core.state import State
from gpud.daemon.past import with_past
from gpud.errors import GpudError
from gpud.ports import Pruned, StorageError
from gpud.protocol.replies import EventView, SourceView
from gpud.store.sqlite import SqliteStore

SOURCE = SourceView(
    name="queue",
    kind="queue-file",
    target="/data/gpu.queue",
    stopped=False,
    problem="",
    note="",
    last_read_at_ms=0,
    taken=0,
    waiting=0,
)


class FakeDaemon:
    def __init__(self, gpus: int = 2) -> None:
        devices = [Device(str(n), (str(n),)) for n in range(gpus)]
        self.state = State(Pool([*devices, Device(CPU_LANE, (), 4)]))
        self.store = SqliteStore.in_memory()
        self.started_at_ms = 1_000
        self.state_dir = "/state"
        self.socket = "/run/gpud.sock"
        self.defaults = JobDefaults()
        self.submits_as = os.geteuid()
        self.forecasting = asyncio.Lock()
        self.gate: asyncio.Event | None = None
        self.broken = ""
        self.asked: list[Event] = []
        self.pruned: list[tuple[Limits, bool]] = []
        self.switched: list[tuple[str, bool]] = []
        self.listeners: list[Callable[[Sequence[EventView]], None]] = []
        self._now_ms = itertools.count(1_000_000)
        self._numbers = itertools.count(1)
        self.post(RunnerReady("boot"))

    # -- Controlled --------------------------------------------------------------------------

    async def ask(self, make: Callable[[int], Any], by: By | None = None) -> Answer:
        if self.broken:
            raise StorageError(self.broken)
        event = make(next(self._numbers))
        self.asked.append(event)
        if self.gate is not None:
            await self.gate.wait()
        event = with_past(event, self.state, self.store, self.store.spec)
        for action in self.post(event):
            if isinstance(action, Refuse):
                raise GpudError(action.message, kind=action.kind, hint=action.hint)
            if isinstance(action, Answer):
                return action
        raise AssertionError(f"no answer to {event}")

    def now_ms(self) -> int:
        return next(self._now_ms)

    def subscribe(self, listener: Callable[[Sequence[EventView]], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def sources(self) -> list[SourceView]:
        return [SOURCE]

    async def switch_source(self, name: str, *, stopped: bool, by: By | None = None) -> None:
        if name != SOURCE.name:
            raise GpudError(
                f'cannot {"stop" if stopped else "start"} source "{name}": no such source',
                kind="not-found",
                hint=f"sources: {SOURCE.name}",
            )
        self.switched.append((name, stopped))
        await self.ask(lambda number: SourceSwitched(number, name, stopped))

    def gpu_note(self) -> str:
        return ""

    limits = Limits(jobs_ms=1000 * 86_400_000, jobs=100, logs_bytes=1 << 30)

    async def prune(self, limits: Limits, *, really: bool) -> Pruned:
        self.pruned.append((limits, really))
        return Pruned(3, 2, 1 << 20, 1)

    def problems(self) -> list[str]:
        return [self.broken] if self.broken else []

    def metrics(self) -> str:
        return "# EOF\n"

    async def reload(self) -> list[str]:
        return ["[pool] gpus: needs a restart"]

    # -- what tests do -----------------------------------------------------------------------

    def post(self, *events: Any) -> list[Any]:
        """Handle, commit, tell the listeners; the actions are for the test."""
        actions = step(self.state, events, self.now_ms())
        self.commit()
        return actions

    def commit(self) -> None:
        told = self.store.commit(self.state.take_changes())
        if told:
            for listener in tuple(self.listeners):
                listener(told)

    def chatter(self, events: int) -> None:
        """So many events about gpud itself, in one commit."""
        for n in range(events):
            self.state.tell(JobId(0), 0, "noise", self.now_ms(), text="x" * 100, n=n)
        self.commit()

    def start(self, job: int) -> None:
        attempt = self.state.attempts[JobId(job)]
        self.post(AttemptStarted(JobId(job), attempt.no, pid=100 + job, at_ms=self.now_ms()))

    def end(self, job: int, exit_code: int = 0) -> None:
        attempt = self.state.attempts[JobId(job)]
        self.post(AttemptEnded(JobId(job), attempt.no, self.now_ms(), exit_code=exit_code))
