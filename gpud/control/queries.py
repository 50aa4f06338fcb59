"""The verbs that only read: status, ls, show and why.

Called by control/verbs.py. They see committed state only, and work while the store cannot write.
What may be long is made in pages, between which others have their turn.
"""

from __future__ import annotations

import asyncio
import os
import socket
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence

from msgspec import UNSET, structs

from gpud import __version__
from gpud.control.choice import choose
from gpud.control.forecasts import starts_now, with_forecasts
from gpud.control.views import attempts_of, gpu_views, place_in_queue, reason, with_reason
from gpud.core.explain_room import devices_for
from gpud.core.model import JobId, JobState
from gpud.core.spans import Spans, count
from gpud.errors import GpudError
from gpud.ports import Controlled, Store
from gpud.protocol.replies import (
    JobsReply,
    JobView,
    Reasons,
    ReasonView,
    Shown,
    StatusReply,
)
from gpud.protocol.requests import Ls, Show, Status, Why

PAGE = 500  # jobs that are read from the store in one go
MAX_SHOWN = 1000  # jobs with their whole story in one reply
MAX_LISTED = 10_000  # jobs in one answer to `ls`: encoded in one go, 10 ms on the loop
RECENT = 5  # ended jobs that `status` names


async def pages(daemon: Controlled, jobs: Sequence[JobId | Spans]) -> AsyncIterator[list[JobView]]:
    """The views of `jobs`, in order. Between two pages anything may happen."""
    for start in range(0, len(jobs), PAGE):
        if start:
            await asyncio.sleep(0)
        yield daemon.store.views(jobs[start : start + PAGE])


def status(daemon: Controlled, request: Status) -> StatusReply:
    state, now_ms = daemon.state, daemon.now_ms()
    states, outcomes = daemon.store.counts()
    active = states.get(JobState.ACTIVE, 0)
    # Active jobs come first among those that are not done; 0 would mean all.
    jobs, _ = daemon.store.page(RECENT, max(1, active))
    jobs = [with_reason(state, job, now_ms) for job in jobs]
    return StatusReply(
        id=request.id,
        gpud=__version__,
        host=socket.gethostname(),
        pid=os.getpid(),
        started_at_ms=daemon.started_at_ms,
        now_ms=now_ms,
        state_dir=daemon.state_dir,
        socket=daemon.socket,
        draining=state.draining,
        queued=states.get(JobState.QUEUED, 0),
        held=states.get(JobState.HELD, 0),
        active=active,
        done=outcomes,
        gpus=gpu_views(state, now_ms),
        sources=tuple(daemon.sources()),
        running=tuple(job for job in jobs if job.state == JobState.ACTIVE),
        recent=tuple(job for job in jobs if job.state == JobState.DONE),
        problems=tuple(daemon.problems()),
    )


async def ls(daemon: Controlled, request: Ls) -> JobsReply:
    """At most MAX_LISTED jobs; `more` says how many are left, `after` gets at the next ones."""
    limit = min(_bounded(request.limit, "limit") or MAX_LISTED, MAX_LISTED)
    recent = min(_bounded(request.recent, "recent"), MAX_LISTED)
    if not request.jobs:
        if request.after:
            raise GpudError("cannot list: `after` needs `jobs`", kind="usage")
        states, outcomes = daemon.store.counts()
        ended = min(recent, sum(outcomes.values()))
        active = states.get(JobState.ACTIVE, 0)
        waiting = states.get(JobState.QUEUED, 0) + states.get(JobState.HELD, 0)
        undone, recent = shares(limit, active, waiting, ended)
        views, _ = daemon.store.page(recent, max(1, undone))  # 0 would mean all
        more = active + waiting + ended - sum(view.count for view in views)
        state, now_ms = daemon.state, daemon.now_ms()
        listed = [with_reason(state, view, now_ms) for view in views]
        return JobsReply(id=request.id, jobs=tuple(listed), more=more)
    jobs = choose(daemon.store, "list", request.jobs)
    together = daemon.store.together(jobs)  # ascending by the first id of each
    together = together[bisect_right(together, request.after, key=_first_id) :]
    listed = []
    async for page in pages(daemon, together[:limit]):
        state, now_ms = daemon.state, daemon.now_ms()
        listed += [with_reason(state, view, now_ms) for view in page]
    more = sum(1 if isinstance(job, int) else count(job) for job in together[limit:])
    return JobsReply(id=request.id, jobs=tuple(listed), more=more)


def shares(limit: int, active: int, waiting: int, ended: int) -> tuple[int, int]:
    """How many of those that are not done, and of the ended ones, a page of `limit` has.

    What runs comes first. Of the rest, up to a fifth of the page is for ended ones, so that a long
    queue does not hide them; then comes what waits; what room is left, ended ones have too.
    """
    undone = min(active, limit)
    kept = min(ended, limit // 5, limit - undone)
    undone += min(waiting, limit - undone - kept)
    return undone, min(ended, limit - undone)


def show(daemon: Controlled, request: Show) -> Shown:
    jobs = choose(daemon.store, "show", request.jobs)
    arrays: list[JobId] = []
    if not request.elements:
        arrays, jobs = whole_arrays(daemon.store, jobs)
    if len(jobs) + len(arrays) > MAX_SHOWN:
        raise GpudError(f"cannot show {len(jobs) + len(arrays)} jobs at once: at most {MAX_SHOWN}")
    state, now_ms = daemon.state, daemon.now_ms()
    details = daemon.store.details(jobs)
    return Shown(
        id=request.id,
        jobs=tuple(
            structs.replace(
                detail,
                job=with_reason(state, detail.job, now_ms),
                attempts=attempts_of(state, detail.attempts, detail.story),
                audit=tuple(daemon.store.audit(JobId(detail.job.id)) if request.audit else ()),
            )
            for detail in details
        ),
        arrays=tuple(daemon.store.array_views(arrays)) or UNSET,
    )


def whole_arrays(store: Store, jobs: Sequence[JobId]) -> tuple[list[JobId], list[JobId]]:
    """Arrays of which all elements are among the jobs (ascending), and the other jobs."""
    arrays: list[JobId] = []
    others: list[JobId] = []
    place = 0
    while place < len(jobs):
        first = jobs[place]
        last = store.array_at(first)
        size = 1 if last is None else last - first + 1
        if last is not None and jobs[min(place + size, len(jobs)) - 1] == last:
            arrays.append(first)
            place += size
        else:
            others.append(first)
            place += 1
    return arrays, others


async def why(daemon: Controlled, request: Why) -> Reasons:
    jobs = choose(daemon.store, "explain", request.jobs)
    reasons: list[ReasonView] = []
    async for page in pages(daemon, daemon.store.together(jobs)):
        state, now_ms = daemon.state, daemon.now_ms()
        reasons += (
            ReasonView(
                v.id,
                v.state,
                reason(state, v, now_ms),
                array=v.array,
                indices=v.indices,
                count=v.count,
            )
            for v in page
        )
    if len(reasons) == 1:  # it takes a walk through the queue
        reasons = [_of_one(daemon, reasons[0], verbose=request.verbose)]
    reasons = await with_forecasts(daemon, reasons)
    return Reasons(id=request.id, reasons=tuple(reasons))


def _of_one(daemon: Controlled, reason: ReasonView, *, verbose: bool) -> ReasonView:
    job = JobId(reason.job)
    reason = structs.replace(
        reason,
        reason=reason.reason + place_in_queue(daemon.state, job, daemon.now_ms()),
        starts_now=starts_now(daemon, job),
    )
    return _at_length(daemon, reason) if verbose else reason


def _at_length(daemon: Controlled, reason: ReasonView) -> ReasonView:
    """What each device is to the job, and what it has had."""
    job = JobId(reason.job)
    (detail,) = daemon.store.details([job])
    return structs.replace(
        reason,
        devices=tuple(devices_for(daemon.state, job)),
        attempts=attempts_of(daemon.state, detail.attempts, detail.story),
    )


def _first_id(job: JobId | Spans) -> int:
    return job if isinstance(job, int) else job[0][0]


def _bounded(value: int, what: str) -> int:
    if not 0 <= value < 2**31:
        raise GpudError(f"cannot list: {what} must be from 0 to {2**31 - 1}", kind="usage")
    return value
