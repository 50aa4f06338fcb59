"""The engine as a source sees it: commits to memory, and dies where a test wants it to.

It keeps what the store keeps: jobs unique by (source, entry key), and a cursor that moves together
with the jobs. Whatever a test does, `take` checks both.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from gpud.core.entries import entry_digest
from gpud.core.model import Cursor, NewJob
from gpud.ports import Source, SourceHealth


class FakeHost:
    """A host whose `fates` are what happens at the next takes.

    "" commits; "before" is cancelled before the commit, "after" after it: a crash on either side.
    """

    def __init__(self) -> None:
        self.jobs: list[NewJob] = []
        self.cursor: str | None = None
        self.takes: list[int] = []
        self.asks = 0  # takes that were begun
        self.health = SourceHealth()
        self.reports = 0
        self.notes: list[str] = []
        self.problems: list[str] = []
        self.fates: list[str] = []
        self.gate: asyncio.Event | None = None  # while it is there and not set, `take` waits
        self._keys: set[tuple[str, str]] = set()
        self._changed: asyncio.Event | None = None

    # -- ports.SourceHost ------------------------------------------------------------------

    def position(self) -> str | None:
        return self.cursor

    async def taken(self, generation: int) -> Mapping[bytes, int]:
        found: Counter[bytes] = Counter()
        for job in self.jobs:
            key = job.spec.entry_key or ""
            if int(key.split(":")[0]) >= generation:
                found[entry_digest(job.spec.command)] += 1
        return found

    async def take(self, jobs: Sequence[NewJob], cursor: Cursor | None) -> int:
        fate = self.fates.pop(0) if self.fates else ""
        self.asks += 1
        self._ring()
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        if fate == "before":
            raise asyncio.CancelledError
        keys = [(job.spec.source, job.spec.entry_key or "") for job in jobs]
        assert not self._keys.intersection(keys), "an entry key was taken twice"
        assert len(set(keys)) == len(keys), "an entry key is twice in one batch"
        self._keys.update(keys)
        first = len(self.jobs) + 1 if jobs else 0
        self.jobs.extend(jobs)
        if cursor is not None:
            self.cursor = cursor.position
        self.takes.append(len(jobs))
        self._ring()
        if fate == "after":
            raise asyncio.CancelledError
        return first

    def report(self, health: SourceHealth) -> None:
        self.health = health
        self.reports += 1
        if health.note and health.note not in self.notes[-1:]:
            self.notes.append(health.note)
        if health.problem and health.problem not in self.problems[-1:]:
            self.problems.append(health.problem)
        self._ring()

    # -- for tests -------------------------------------------------------------------------

    def commands(self) -> list[bytes]:
        return [job.spec.command for job in self.jobs]

    def _ring(self) -> None:
        if self._changed is not None:
            self._changed.set()

    async def until(self, condition: Callable[[], object], limit_s: float = 20.0) -> None:
        """Until the condition holds; it is looked at after each take and report."""
        async with asyncio.timeout(limit_s):
            while not condition():
                self._changed = asyncio.Event()
                await self._changed.wait()

    async def looks(self, count: int = 2) -> None:
        """Until the source has looked so many times more."""
        wanted = self.reports + count
        await self.until(lambda: self.reports >= wanted)

    async def asked(self, count: int) -> None:
        """Until so many takes have begun, whether they were let through or not."""
        await self.until(lambda: self.asks >= count)


async def turns_of_the_loop(count: int = 50) -> None:
    """Time for whatever is ready: what waits for nothing but the loop has had its turns."""
    for _ in range(count):
        await asyncio.sleep(0)


@asynccontextmanager
async def running(source: Source, host: FakeHost) -> AsyncIterator[asyncio.Task[None]]:
    """The source's task, cancelled at the end; a source that ends by a bug fails the test."""
    task = asyncio.create_task(source.run(host))
    try:
        yield task
    finally:
        if not task.done():
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
