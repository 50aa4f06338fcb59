"""The life of one connection: lines in, replies out, in order.

Made by control/server.py, once per client. Rule 1: requests are answered one after another, in the
order in which they came; only `wait` and `follow` run beside them. Rule 2: one task works while
there are lines to work on; an idle connection has none. Rule 3: reading stops while MAX_BACKLOG
bytes wait to be worked on, and work stops while answers pile up; so memory is bounded whatever a
client does. Rule 4: the end of the client's input ends its `wait`s and `follow`s; requests that
came whole are still carried out, and a submit that did not come whole never happened.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import cast

from gpud.control.bulk import Bulk
from gpud.control.following import Follower
from gpud.control.guard import Guard
from gpud.control.jobs import submit_one
from gpud.control.link import Link, Warn
from gpud.control.verbs import answer
from gpud.control.waiting import wait
from gpud.errors import GpudError
from gpud.ports import Controlled
from gpud.protocol.framing import LineSplitter, decode_request, request_id
from gpud.protocol.requests import Follow, Submit, Wait

MAX_BACKLOG = 512 << 10
MAX_STREAMS = 1000  # waits and follows of one connection
TURN_S = 0.005  # then the other connections, and the engine, have theirs

Admit = Callable[[asyncio.Transport], Guard | None]


class Session(asyncio.Protocol):
    def __init__(self, admit: Admit, sessions: set[Session], warn: Warn) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.guard: Guard | None = None  # who is at the other end
        self._admit = admit
        self._sessions = sessions
        self._warn = warn
        self._splitter = LineSplitter()
        self._lines: deque[bytes] = deque()
        self._backlog = 0  # bytes received since the last time that all lines were worked on
        self._reading = True
        self._no_more = False  # the client has ended its input
        self._bulk: Bulk | None = None  # the submit whose job lines are coming in
        self._worker: asyncio.Task[None] | None = None
        self._streams: set[asyncio.Task[None]] = set()

    # -- what the transport calls ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._sessions.add(self)
        self.guard = self._admit(self._transport)
        about = self.guard.about if self.guard is not None else {}
        self._link = Link(self._transport, self._warn, **about)
        if self.guard is None:
            self._no_more = True
            self._link.lost()

    def data_received(self, data: bytes) -> None:
        self._lines += self._splitter.feed(data)
        if not self._lines and self._splitter.broken is None:
            return  # a part of a line
        self._backlog += len(data)
        if self._backlog > MAX_BACKLOG and self._reading:
            self._transport.pause_reading()
            self._reading = False
        self._work_on()

    def eof_received(self) -> bool:
        self._no_more = True
        for stream in self._streams:
            stream.cancel()
        self._work_on()
        return True  # the worker closes, after the last answer

    def pause_writing(self) -> None:
        self._link.pause()

    def resume_writing(self) -> None:
        self._link.resume()

    def connection_lost(self, error: Exception | None) -> None:
        self._link.lost()
        self._lines.clear()
        for stream in self._streams:
            stream.cancel()
        self._sessions.discard(self)
        if not self.ended.done():
            self.ended.set_result(None)

    def end(self) -> None:
        """The server closes: nothing more is begun, nothing waited for."""
        for task in (*self._streams, *filter(None, [self._worker])):
            task.cancel()
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()

    # -- one line after another --------------------------------------------------------------

    def _work_on(self) -> None:
        if self._worker is None and not self._link.gone:
            self._worker = self._start(self._work())

    async def _work(self) -> None:
        turn = monotonic()
        try:
            while self._lines and not self._link.gone:
                await self._take(self._lines.popleft())
                if not self._link.writable:
                    await self._link.drained()
                elif monotonic() - turn > TURN_S:
                    await asyncio.sleep(0)
                    turn = monotonic()
        finally:
            self._worker = None
        self._backlog = 0
        if self._splitter.broken is not None:
            self._link.refuse(0, self._splitter.broken)
            self._transport.close()
        elif self._no_more:
            self._transport.close()
        elif not self._reading:
            self._reading = True
            self._transport.resume_reading()

    async def _take(self, line: bytes) -> None:
        number = 0
        try:
            if self._bulk is not None:
                await self._take_job(self._bulk, line)
                return
            request = decode_request(line)
            number = request.id
            assert self.guard is not None
            if isinstance(request, Submit) and request.count > 0:
                self._bulk = Bulk(request, self.guard.max_submit_bytes)
            daemon = self.guard.check(request)
            match request:
                case Submit() if self._bulk is not None:
                    self._bulk.begin(daemon)
                case Submit():
                    self._link.send(await submit_one(daemon, request))
                case Wait() | Follow():
                    self._stream(request, daemon, self.guard)
                case _:
                    self._link.send(self.guard.shown(await answer(daemon, request)))
        except GpudError as error:
            self._link.refuse(number or request_id(line), error)

    async def _take_job(self, bulk: Bulk, line: bytes) -> None:
        """One job line of a bulk submit; the last one commits them all."""
        try:
            bulk.add(line)
            if bulk.whole:
                self._link.send(await bulk.submit())
        except GpudError as error:
            self._link.refuse(bulk.request.id, error)
        finally:
            if bulk.left == 0:
                self._bulk = None

    # -- beside the order --------------------------------------------------------------------

    def _stream(self, request: Wait | Follow, daemon: Controlled, guard: Guard) -> None:
        if len(self._streams) >= MAX_STREAMS:
            raise GpudError(f"cannot wait or follow: {MAX_STREAMS} are open on this connection")
        task = self._start(self._run_stream(request, daemon, guard))
        self._streams.add(task)
        task.add_done_callback(self._streams.discard)

    async def _run_stream(self, request: Wait | Follow, daemon: Controlled, guard: Guard) -> None:
        try:
            if isinstance(request, Wait):
                self._link.send(await wait(daemon, request))
            else:
                await Follower(daemon, self._link, request, guard.events).run()
        except GpudError as error:
            self._link.refuse(request.id, error)

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        """What escapes from a task is a bug: the loop's exception handler says what then."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._link.drop("a bug in gpud")
        task.get_loop().call_exception_handler(
            {"message": "bug in the control server", "exception": error, "task": task}
        )
