"""Logs that grow past the cap lose their middle while their jobs run.

Made by daemon/app.py. Looks at the logs of live attempts, and once at those of attempts that have
ended since; while nothing runs, nothing is looked at and nobody is woken. Files are touched in a
thread.

Rule 1: what is cut out is committed before it is cut: a log never has a hole that nobody knows of.
A crash in between is made good by the next look, which finds the log as large as before.
Rule 2: one sentence a job, in its story: that its log was cut, or why it cannot be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from gpud.core.events import LogCut, LogTooLarge
from gpud.core.log_caps import LATEST_S, Cut, Room, cut_of, look_in_s
from gpud.core.model import JobId
from gpud.daemon.engine import Engine
from gpud.errors import GpudError
from gpud.ports import Files, LogFile, StorageError
from gpud.protocol.replies import EventView


class LogCaps:
    def __init__(
        self, engine: Engine, files: Files, *, on_bug: Callable[[BaseException], None]
    ) -> None:
        self.cap = 0  # bytes; 0: none
        self._engine = engine
        self._files = files
        self._on_bug = on_bug
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended: set[LogFile] = set()  # since the last look
        self._sizes: dict[LogFile, int] = {}  # at the last look
        self._looked_s = 0.0
        self._hopeless: set[LogFile] = set()  # cannot be cut, and that was said
        self._stop_listening: Callable[[], None] = lambda: None

    def start(self, cap: int) -> None:
        self._stop_listening = self._engine.subscribe(self._on_events)
        self.keep(cap)

    def keep(self, cap: int) -> None:
        """This cap from now on."""
        self.cap = cap
        self._hopeless.clear()
        if self._live():
            self._arm(0.0)

    async def close(self) -> None:
        self._stop_listening()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _on_events(self, events: Sequence[EventView]) -> None:
        if not self.cap:
            return
        for event in events:
            if event.kind == "ended" and event.attempt:
                self._ended.add(LogFile(JobId(event.job), event.attempt))
        if self._timer is None and (self._ended or self._engine.state.attempts):
            self._arm(LATEST_S)

    def _live(self) -> list[LogFile]:
        return [LogFile(job, attempt.no) for job, attempt in self._engine.state.attempts.items()]

    def _arm(self, in_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(in_s, self._begin)

    def _begin(self) -> None:
        self._timer = None
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._look())
            self._task.add_done_callback(self._looked)

    def _looked(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_bug(error)

    async def _look(self) -> None:
        """At all logs that may have grown; then the next look, if there is anything to look at."""
        if not self.cap:
            return
        live, ended = self._live(), self._ended
        self._ended = set()
        rooms = await asyncio.to_thread(self._files.rooms, [*live, *ended])
        for file, room in rooms.items():
            if room.taken > self.cap and file not in self._hopeless:
                await self._cut(file, room)
        if live or self._ended:
            hopeful = {*live} - self._hopeless
            self._arm(self._next_s({file: rooms[file] for file in hopeful if file in rooms}))
        self._hopeless &= {*live}

    def _next_s(self, rooms: dict[LogFile, Room]) -> float:
        now_s = self._loop.time()
        grown = max((r.size - self._sizes.get(f, 0) for f, r in rooms.items()), default=0)
        nearest = min((self.cap - room.taken for room in rooms.values()), default=self.cap)
        since_s, self._looked_s = now_s - self._looked_s, now_s
        self._sizes = {file: room.size for file, room in rooms.items()}
        return look_in_s(nearest, grown, since_s)

    async def _cut(self, file: LogFile, room: Room) -> None:
        engine, earlier = self._engine, self._earlier(file)
        cut = cut_of(room, self.cap, earlier)
        # The same again, if the last one was committed and not made.
        first, end = cut or earlier or (0, 0)
        if first == end or engine.storage_problem:
            return
        try:
            if cut is not None:
                engine.store.cut(file, first, end)
            await asyncio.to_thread(self._files.punch, file, first, end)
        except StorageError:
            return  # the next look tries again
        except GpudError as error:
            if earlier is None:
                self._take_back(file)
            self._hopeless.add(file)
            if not self._is_told(file, "log-too-large"):
                engine.post(LogTooLarge(file.job, file.attempt, room.taken, error.message))
            return
        if earlier is None:
            engine.post(LogCut(file.job, file.attempt, end - first))

    def _take_back(self, file: LogFile) -> None:
        try:
            self._engine.store.cut(file, 0, 0)
        except StorageError:
            pass  # gpuctl looks whether there is a hole where one was committed

    def _earlier(self, file: LogFile) -> Cut | None:
        return next(
            (a.log_cut for a in self._detail(file, "attempts") if a.attempt == file.attempt), None
        )

    def _is_told(self, file: LogFile, kind: str) -> bool:
        return any(event.kind == kind for event in self._detail(file, "story"))

    def _detail(self, file: LogFile, what: str) -> Iterable:  # type: ignore[type-arg]
        found = self._engine.store.details([file.job])
        return getattr(found[0], what) if found else ()
