"""What a job that waits for room could ask for instead, to start now. Pure.

Called by control/forecasts.py for `why` of one job. Each is tried with the rules by which the next
dispatch decides: core/placement.py, and what is kept for the first in rank (core/reservation.py).
Those that stand before the job have been offered all that is free, and it does not do for them.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from itertools import chain
from operator import itemgetter

from msgspec import Struct, structs

from gpud.amounts import URGENT, format_size
from gpud.core.dispatching import end_ms
from gpud.core.explain_room import kept_now
from gpud.core.model import AUTO_VRAM, FULL_MILLI, Job, JobId, JobSpec, Request
from gpud.core.placement import most_mib, place, resolved, unsatisfiable
from gpud.core.pool import Pool
from gpud.core.ready import is_ready, rank_of
from gpud.core.reservation import NEVER, Reservation, reserve
from gpud.core.shape import longest_within
from gpud.core.shelves import Rank
from gpud.core.state import State

LEAST_LIMIT_S = 60  # nobody asks for less
LEAST_MIB = 1024
LEAST_MILLI = 50


class Remedy(Struct, frozen=True):
    """`text` goes on from "it could start now": "with 2 GPUs"."""

    text: str
    request: Request
    time_limit_s: int | None = None  # the same as before


def remedies(state: State, job_id: JobId, spec: JobSpec, now_ms: int) -> list[Remedy]:
    """Each alone will do. None for a job that waits for something else than room. May walk through
    the queue."""
    job, pool = state.find(job_id), state.pool
    if job is None or not is_ready(job) or unsatisfiable(pool, job.request):
        return []
    if state.draining or state.runner_problem or state.shortage.until_ms:
        return []
    if pool.wanted(job.request) == 0:
        return []
    if place(pool, job.request) is None and not _less(pool, job, ()):
        return []  # whatever is kept for others: to know that takes a walk
    others = _kept_for_others(state, job, job_id, now_ms)
    avoid = others.devices if others is not None else frozenset[str]()
    if job.priority < URGENT:
        avoid = avoid.union(*chain.from_iterable(state.claims.values()))
    if place(pool, job.request, avoid) is not None:
        return []  # it has its turn in a moment
    shorter = _shorter(pool, job, spec, others, now_ms)
    return ([shorter] if shorter is not None else []) + _less(pool, job, avoid)


def _less(pool: Pool, job: Job, avoid: Collection[str]) -> list[Remedy]:
    """With less of something than it asks for now."""
    found = [_fewer_gpus(pool, job, avoid), _less_memory(pool, job, avoid)]
    found.append(_a_smaller_share(pool, job, avoid))
    if job.request.exclusive:
        shared = structs.replace(job.request, exclusive=False)
        found.append(_if_placed(pool, avoid, "beside others on its GPU", shared))
    if job.request.gpu_model:
        any_model = structs.replace(job.request, gpu_model="")
        found.append(_if_placed(pool, avoid, "on a GPU of any model", any_model))
    return [remedy for remedy in found if remedy is not None]


def _kept_for_others(state: State, job: Job, job_id: JobId, now_ms: int) -> Reservation | None:
    """In the next dispatch, should this job ask for something else: what is kept now, else for the
    first in rank of those before it for which that helps."""
    kept, pool = kept_now(state), state.pool
    if kept is not None:
        return kept if kept.job != job_id else None
    alone = structs.replace(job, id=job_id, rest=())
    rank = (*rank_of(alone)[:2], job.id)
    firsts: dict[Request, Rank] = {}
    if job.rest and job.rest[0][0] != job_id:  # others of its array come first
        firsts[job.request] = rank_of(job)
    for other in state.jobs.values():
        if is_ready(other) and rank_of(other) < firsts.get(other.request, rank):
            firsts[other.request] = rank_of(other)
    for request, first in sorted(firsts.items(), key=itemgetter(1)):
        if pool.wanted(request) != 0:
            ends_ms, attempts = partial(end_ms, state, now_ms), state.attempts.values()
            if (kept := reserve(pool, attempts, first[-1], request, ends_ms)) is not None:
                return kept
    return None


def _if_placed(pool: Pool, avoid: Collection[str], text: str, request: Request) -> Remedy | None:
    return Remedy(text, request) if place(pool, request, avoid) is not None else None


def _fewer_gpus(pool: Pool, job: Job, avoid: Collection[str]) -> Remedy | None:
    for gpus in range((job.request.gpus or 1) - 1, 0, -1):
        text = "with 1 GPU" if gpus == 1 else f"with {gpus} GPUs"
        fewer = structs.replace(job.request, gpus=gpus)
        if (remedy := _if_placed(pool, avoid, text, fewer)) is not None:
            return remedy
    return None


def _shorter(
    pool: Pool, job: Job, spec: JobSpec, kept: Reservation | None, now_ms: int
) -> Remedy | None:
    """Gone before what is kept for another job is needed."""
    if kept is None or kept.at_ms == NEVER or spec.linger_s is None:
        return None
    within_s = longest_within((kept.at_ms - now_ms) // 1000)
    limit_s = int(within_s - spec.grace_s - spec.linger_s)
    if limit_s < LEAST_LIMIT_S or place(pool, job.request) is None:
        return None
    limit_s -= limit_s % LEAST_LIMIT_S
    hours, minutes = divmod(limit_s // LEAST_LIMIT_S, 60)
    told = (
        f"{hours}h{minutes:02}m" if hours and minutes else f"{hours}h" if hours else f"{minutes}m"
    )
    return Remedy(f"with a time limit of {told}", job.request, limit_s)


def _less_memory(pool: Pool, job: Job, avoid: Collection[str]) -> Remedy | None:
    request = job.request
    if request.vram_mib == AUTO_VRAM or not request.vram_mib:
        return None
    mib = most_mib(pool, resolved(pool, request), avoid)
    mib -= mib % LEAST_MIB
    if not 0 < mib < request.vram_mib:
        return None
    less = structs.replace(request, vram_mib=mib)
    return _if_placed(pool, avoid, f"with {format_size(mib)} of GPU memory", less)


def _a_smaller_share(pool: Pool, job: Job, avoid: Collection[str]) -> Remedy | None:
    devices = [d for key, d in pool.devices.items() if len(d.ids) == 1 and key not in avoid]
    milli = max((pool.free_milli(d) for d in devices if d.key not in pool.blocked), default=0)
    milli -= milli % LEAST_MILLI
    if not 0 < milli < job.request.share_milli:
        return None
    smaller = structs.replace(job.request, share_milli=milli)
    return _if_placed(pool, avoid, f"with {milli / FULL_MILLI:g} of a GPU", smaller)
