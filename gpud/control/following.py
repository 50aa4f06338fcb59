"""`follow`: the events of the past from the store, then each new one as it is committed.

Made by control/session.py, in a task of its own. Rule 1: `_seq` is the last event that was sent or
passed over; nothing up to it is sent again, nothing after it is left out. Rule 2: a follower is
either live, and sends what it hears, or behind, and reads pages from the store until a page is
empty; between that page and being live there is no await. Rule 3: a client that reads slowly makes
its follower fall behind, which costs nothing; one that has read nothing for STALL_S, while
MAX_MISSED events went by, is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gpud.control.choice import choose
from gpud.control.link import Link
from gpud.control.waiting import touched
from gpud.core.model import JobId
from gpud.errors import GpudError
from gpud.ports import Controlled
from gpud.protocol.replies import End, EventReply, EventView, Following
from gpud.protocol.requests import Follow

PAGE = 500
MAX_MISSED = 50_000  # about 8 MiB of events
STALL_S = 30.0

Seen = Callable[[Sequence[EventView]], Sequence[EventView]]


class Follower:
    def __init__(self, daemon: Controlled, link: Link, request: Follow, seen: Seen) -> None:
        """`seen`: events as the client may see them. Raises GpudError for jobs that do not
        exist."""
        self._daemon = daemon
        self._link = link
        self._seen = seen
        self._request = request
        if request.until_done and not request.jobs:
            raise GpudError("cannot follow until done: no job is given", kind="usage")
        self._jobs: set[int] = set()
        if request.jobs:
            self._jobs.update(choose(daemon.store, "follow", request.jobs))
        last = daemon.store.last_seq()
        self._seq = last if request.since is None else max(0, min(request.since, last))
        self._live = False
        self._missed = 0  # events that went by since the client last read something
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Until the jobs are done, where that was asked for, or else for ever."""
        stop = self._daemon.subscribe(self._hear)
        try:
            self._link.send(Following(id=self._request.id, since=self._seq))
            while True:
                await self._link.drained()
                self._missed = 0
                # In this order: what is done before the last page was read is in it or before it.
                done = self._request.until_done and self._all_done()
                page = self._daemon.store.events_after(self._seq, PAGE)
                if page:
                    self._send(page)
                    await asyncio.sleep(0)
                elif done:
                    break
                else:
                    self._wake.clear()
                    self._live = True
                    await self._wake.wait()
            self._link.send(End(id=self._request.id))
        finally:
            stop()

    def _hear(self, events: Sequence[EventView]) -> None:
        """Called by the engine after a commit: must be quick and must not raise."""
        if not self._live:
            self._missed += len(events)
            if self._missed > MAX_MISSED and self._link.stalled_s() > STALL_S:
                self._link.drop("it follows and does not read")
        elif not self._link.writable or len(events) > PAGE:
            self._fall_behind()
        else:
            self._send(events)
            if self._request.until_done and touched(events, self._jobs) and self._none_open():
                self._fall_behind()  # to ask the store whether that was the last one

    def _fall_behind(self) -> None:
        self._live = False
        self._wake.set()

    def _send(self, events: Sequence[EventView]) -> None:
        new = [event for event in events if event.seq > self._seq]
        if not new:
            return
        self._seq = new[-1].seq
        if self._jobs:
            new = [event for event in new if touched((event,), self._jobs)]
        if new:
            number = self._request.id
            self._link.send(*(EventReply(id=number, event=event) for event in self._seen(new)))

    def _none_open(self) -> bool:
        find = self._daemon.state.find
        return not any(find(JobId(job)) for job in self._jobs)

    def _all_done(self) -> bool:
        """In the store too: the state in memory may be ahead of the commit."""
        jobs = [JobId(job) for job in self._jobs]
        return self._none_open() and len(self._daemon.store.recall(jobs)) == len(jobs)
