"""`wait`: a reply once all of the chosen jobs are done.

Called by control/session.py, in a task of its own. Level-triggered: an event only says that it is
worth looking; the answer is what the store says. Rule 1: it listens before it looks, so that no
end falls between the two. Rule 2: the state in memory may be ahead of the commit, never behind
it: a job that is still in it is not done; whether one that is not in it is done, the store knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from gpud.control.choice import choose
from gpud.control.queries import pages
from gpud.core.model import JobId, JobState
from gpud.ports import Controlled
from gpud.protocol.replies import EndView, EventView, Waited
from gpud.protocol.requests import Wait


async def wait(daemon: Controlled, request: Wait) -> Waited:
    """All of them were done at one look; one that a person retries meanwhile is waited for again.
    Raises GpudError when the selectors say nothing that exists."""
    jobs = choose(daemon.store, "wait", request.jobs)
    missing: set[int] = set()
    changed = asyncio.Event()

    def hear(events: Sequence[EventView]) -> None:
        for job in touched(events, missing):
            if daemon.state.find(job) is None:
                missing.discard(job)
        if not missing:
            changed.set()

    stop = daemon.subscribe(hear)
    try:
        while True:
            changed.clear()
            ends, all_done = await _look(daemon, jobs, missing)
            if all_done:
                return Waited(id=request.id, jobs=tuple(ends))
            if missing:
                await changed.wait()
    finally:
        stop()


def touched(events: Iterable[EventView], jobs: set[int]) -> list[JobId]:
    """Those of `jobs` that the events are about."""
    found: list[JobId] = []
    for event in events:
        if event.count == 1:
            if event.job in jobs:
                found.append(JobId(event.job))
        elif event.count < len(jobs):
            ids = range(event.job, event.job + event.count)
            found += (JobId(job) for job in ids if job in jobs)
        else:
            end = event.job + event.count
            found += (JobId(job) for job in jobs if event.job <= job < end)
    return found


async def _look(
    daemon: Controlled, jobs: Sequence[JobId], missing: set[int]
) -> tuple[list[EndView], bool]:
    """The ends of those that are done, and whether all are; the others are `missing` from here on,
    until they end while this looks at further pages."""
    missing.update(job for job in jobs if daemon.state.find(job) is not None)
    if missing:
        return [], False  # rule 2: without asking the store
    ends: list[EndView] = []
    all_done = True
    async for page in pages(daemon, jobs):
        for view in page:
            if view.state == JobState.DONE:
                ends.append(EndView(view.id, view.outcome, view.exit_code, view.signal))
                missing.discard(view.id)
            else:
                missing.add(view.id)
                all_done = False
    return ends, all_done
