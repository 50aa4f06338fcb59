"""When jobs that wait will start, and what one could ask for to start now: for `why`.

Called by control/queries.py. A walk into the future takes up to a second; it is taken in pieces on
the loop, between which everybody else has their turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic

from msgspec import structs

from gpud.core.forecast import Forecast, Walk
from gpud.core.model import JobId, JobState
from gpud.core.placement import unsatisfiable
from gpud.core.remedies import remedies
from gpud.core.state import State
from gpud.ports import Controlled, Likeness, Store
from gpud.protocol.replies import ReasonView

MOST_JOBS = 100  # the first ones that are asked about
PIECE_S = 0.001  # a request takes a few rounds of the loop, and in each there is one piece


async def with_forecasts(daemon: Controlled, reasons: Sequence[ReasonView]) -> list[ReasonView]:
    """Of those whose reason does not say already that it cannot be known."""
    alone = len(reasons) == 1
    found: dict[JobId, Forecast] = {}
    async with daemon.forecasting:
        jobs = [JobId(r.job) for r in reasons if _may_start(daemon.state, JobId(r.job), alone)]
        if jobs:
            begun = monotonic()
            runs = Runs(daemon.store)
            walk = Walk(daemon.state, daemon.now_ms(), jobs[:MOST_JOBS], runs.like)
            for _ in walk.pieces():
                if monotonic() - begun > PIECE_S:
                    await asyncio.sleep(0)
                    begun = monotonic()
            found = walk.found
    return [_with(reason, found.get(JobId(reason.job))) for reason in reasons]


def starts_now(daemon: Controlled, job: JobId) -> tuple[str, ...]:
    """With what it could. May walk through the queue: for one job."""
    if _may_start(daemon.state, job, False):
        found = remedies(daemon.state, job, daemon.store.spec(job), daemon.now_ms())
        return tuple(remedy.text for remedy in found)
    return ()


class Runs:
    """How long jobs ran that are alike; the store is asked once for each likeness."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ms: dict[Likeness, list[int]] = {}

    def like(self, job: JobId) -> Sequence[int]:
        likeness = self._store.likeness(job)
        if likeness is None:
            return ()
        if likeness not in self._ms:
            self._ms[likeness] = self._store.runs_ms(likeness, job)
        return self._ms[likeness]


def _may_start(state: State, job_id: JobId, alone: bool) -> bool:
    job = state.find(job_id)
    if job is None or state.runner_problem or unsatisfiable(state.pool, job.request):
        return False
    if job.state is JobState.HELD:
        return alone
    return job.state is JobState.QUEUED and state.links.broken(job) is None


def _with(reason: ReasonView, forecast: Forecast | None) -> ReasonView:
    if forecast is None:
        return reason
    return structs.replace(
        reason,
        start_ms=forecast.start_ms or 0,
        after=forecast.after,
        assumes=tuple(assumption.value for assumption in forecast.assumes),
        later_than_ms=forecast.later_than_ms or 0,
        unknown=forecast.unknown,
        never=forecast.never,
    )
