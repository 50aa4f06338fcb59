"""The life of sources inside the daemon: a task each, stopped and started, their health kept.

Called by daemon/app.py. A source reads and decides; this file takes what it read to the engine and
waits for the commit. A source that ends with a bug ends the daemon; everything expected it reports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from gpud.core.changes import By
from gpud.core.events import EntriesRead, SourceSwitched
from gpud.core.model import Cursor, NewJob
from gpud.daemon.engine import Engine
from gpud.ports import Source, SourceHealth, StorageError
from gpud.protocol.replies import SourceView

STORAGE_PAUSE_S = 1.0


class Host:
    """What one source is given: gpud/ports.py, SourceHost."""

    def __init__(self, engine: Engine, source: Source, warn: Callable[..., None]) -> None:
        self._engine = engine
        self._source = source
        self._warn = warn
        self.health = SourceHealth()

    def position(self) -> str | None:
        return self._engine.store.position(self._source.name)

    async def taken(self, generation: int) -> Mapping[bytes, int]:
        return self._engine.store.taken(self._source.name, generation)

    def report(self, health: SourceHealth) -> None:
        if health.problem != self.health.problem:
            if health.problem:
                self._warn("source_problem", source=self._source.name, why=health.problem)
            else:
                self._warn("source_works_again", source=self._source.name)
        self.health = health

    async def take(self, jobs: Sequence[NewJob], cursor: Cursor | None) -> int:
        name, batch = self._source.name, tuple(jobs)
        while True:
            try:
                answer = await self._engine.ask(
                    lambda request: EntriesRead(request, name, batch, cursor)
                )
            except StorageError:
                await asyncio.sleep(STORAGE_PAUSE_S)  # nothing was taken: the same batch again
                continue
            return answer.jobs[0] if answer.jobs else 0


class Sources:
    """All sources of the daemon; a bug of one is handed to `on_bug`."""

    def __init__(
        self,
        engine: Engine,
        *,
        on_bug: Callable[[BaseException], None],
        warn: Callable[..., None],
    ) -> None:
        self._engine = engine
        self._warn = warn
        self._on_bug = on_bug
        self._hosts: dict[str, Host] = {}
        self._sources: dict[str, Source] = {}
        self._targets: dict[str, str] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def names(self) -> list[str]:
        return list(self._sources)

    def add(self, source: Source, target: str) -> None:
        """Take over a source, and start it unless a person has stopped it."""
        self._sources[source.name] = source
        self._targets[source.name] = target
        self._hosts[source.name] = Host(self._engine, source, self._warn)
        if source.name not in self._engine.state.stopped_sources:
            self._run(source.name)

    async def remove(self, name: str) -> None:
        """The source is no longer configured; what it had taken stays."""
        await self._cancel(name)
        del self._sources[name], self._targets[name], self._hosts[name]

    async def stop(self, name: str, by: By | None = None) -> None:
        await self._engine.ask(lambda request: SourceSwitched(request, name, True), by)
        await self._cancel(name)

    async def start(self, name: str, by: By | None = None) -> None:
        await self._engine.ask(lambda request: SourceSwitched(request, name, False), by)
        if name not in self._tasks:
            self._run(name)

    async def close(self) -> None:
        for name in list(self._tasks):
            await self._cancel(name)

    async def exhausted(self, name: str) -> None:
        """Wait until the source has returned by itself (standard input has ended)."""
        task = self._tasks.get(name)
        if task is not None:
            await asyncio.wait({task})

    def views(self) -> list[SourceView]:
        counts = self._engine.store.source_counts()
        stopped = self._engine.state.stopped_sources
        views = []
        for name, source in self._sources.items():
            health = self._hosts[name].health
            taken, waiting = counts.get(name, (0, 0))
            views.append(
                SourceView(
                    name=name,
                    kind=source.kind,
                    target=self._targets[name],
                    stopped=name in stopped,
                    problem=health.problem,
                    note=health.note,
                    last_read_at_ms=health.last_read_at_ms,
                    taken=taken,
                    waiting=waiting,
                )
            )
        return views

    def _run(self, name: str) -> None:
        task = asyncio.ensure_future(self._sources[name].run(self._hosts[name]))
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._done(name, done))

    def _done(self, name: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]
        if not task.cancelled() and (bug := task.exception()) is not None:
            self._on_bug(bug)

    async def _cancel(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
