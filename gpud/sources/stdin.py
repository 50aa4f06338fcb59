"""The source `stdin`: the entries of a pipe, a terminal or a redirected file, for `gpud run`.

Owns reading a descriptor to its end without ever blocking the loop, and without changing it
(O_NONBLOCK would reach the shell that shares the terminal): what epoll knows is read when it is
readable, what it does not know (regular files, /dev/null) in a thread. It reads on only when what
it read is committed, and takes at once what is there: `tail -f` piped in is not held up.

Called by `gpud run`, which gives it a descriptor that nobody else reads. There is no position: a
cancelled `run` can be called again on the same object and goes on where it stopped; another
process cannot. `run` returns at the end of the input, when all of it is taken.
"""

from __future__ import annotations

import asyncio
import functools
import os
import select
import time
from collections.abc import Callable

from gpud.config.jobs import spec_of
from gpud.config.schema import JobDefaults
from gpud.core.model import ONE_SLOT, NewJob, Request
from gpud.errors import why_os
from gpud.ports import SourceHealth, SourceHost
from gpud.sources.aside import aside
from gpud.sources.build import Template
from gpud.sources.lexer import LIMITS, Lexer, Limits

BATCH = 100  # entries in one `take`: while one is written, no job starts
BATCH_BYTES = 1024 * 1024
SLICE = 50  # entries between two turns of the loop
_PIECE = 64 * 1024


class Stdin:
    """`cwd`, `env` (`build.clean_environment`), `uid`, `request`, `priority`: of every job."""

    kind = "stdin"

    def __init__(
        self,
        fd: int,
        defaults: JobDefaults,
        *,
        cwd: bytes,
        env: bytes,
        uid: int,
        request: Request = ONE_SLOT,
        priority: int = 0,
        name: str = "stdin",
        label: str = "standard input",
        clock: Callable[[], float] = time.monotonic,
        limits: Limits = LIMITS,
    ) -> None:
        self.name = name
        self._fd = fd
        self._clock = clock
        self._lexer = Lexer(limits=limits)
        spec = spec_of(
            defaults, source=name, cwd=cwd, env=env, uid=uid, request=request, priority=priority
        )
        self._template = Template(spec, label)
        self._untaken: list[NewJob] = []
        self._reading: asyncio.Future[bytes] | None = None
        self._ended = False

    async def run(self, host: SourceHost) -> None:
        """Until the input ends; see `ports.Source`."""
        problem = ""
        while True:
            await self._take_all(host)
            host.report(SourceHealth(problem, "", time.time_ns() // 1_000_000))
            if self._ended:
                return
            try:
                data = await self._read()
            except OSError as error:  # a terminal that hung up: what was cut off does not run
                problem = f"cannot read standard input: {why_os(error)}"
                self._ended = True
                continue
            if data:
                self._lexer.feed(data, self._clock())
            elif data is not None:
                self._lexer.finish()
                self._ended = True

    async def _take_all(self, host: SourceHost) -> None:
        """Everything that is complete. What is built but not taken outlives a cancel."""
        more = True
        while more or self._untaken:
            while more and len(self._untaken) < BATCH:
                entries = self._lexer.entries(SLICE, self._clock())
                more = len(entries) == SLICE
                build = self._template.build
                self._untaken += [build(entry, f"1:{entry.offset}") for entry in entries]
                await asyncio.sleep(0)
            if self._untaken:
                await host.take(self._untaken, None)
                self._untaken = []

    async def _read(self) -> bytes | None:
        """What is there, b"" at the end; None: nothing came before the lexer's deadline."""
        loop = asyncio.get_running_loop()
        readable: asyncio.Future[None] = loop.create_future()
        try:
            if self._reading is None:
                loop.add_reader(self._fd, _wake, readable)
        except PermissionError:  # epoll_ctl(2): EPERM, a file that is always readable
            self._reading = aside(functools.partial(os.read, self._fd, BATCH_BYTES))
        if self._reading is not None:
            await asyncio.wait({self._reading})  # a cancel leaves it to the next run
            data, self._reading = self._reading.result(), None
            return data
        deadline = self._lexer.deadline
        wait_s = None if deadline is None else max(0.0, deadline - self._clock())
        try:
            async with asyncio.timeout(wait_s):
                await readable
        except TimeoutError:
            return None
        finally:
            loop.remove_reader(self._fd)
        return self._drain()

    def _drain(self) -> bytes:
        """All that is there now, to a limit: a burst becomes few batches."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        pieces, size = [], 0
        while size < BATCH_BYTES:
            piece = os.read(self._fd, _PIECE)
            pieces.append(piece)
            size += len(piece)
            if not piece or not any(event & select.POLLIN for _, event in poll.poll(0)):
                break
        if len(pieces) > 1 and not pieces[-1]:
            pieces.pop()  # the next read says again that this is the end
        return b"".join(pieces)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
