"""Room for urgent jobs: those that can save their state are asked to leave.

Called by core/dispatching.py once an urgent job finds no room, for all that wait. It is worked out
on a copy of the pool, as it will be when everybody has left who is on the way out.

Rule 1: only attempts of jobs that named a signal for it (`--checkpoint`) and are not urgent
    themselves are asked; everybody else runs on.
Rule 2: nobody is asked in vain: only where the job has room once all have left who are asked, and
    nobody among them could stay. Those of low priority go first, then those that began last.
    Nor for who stands behind an urgent job that waits for ends: that would get what they leave.
Rule 3: what they leave is claimed for that job until it starts: only other urgent jobs go before.
    As long as it is, nothing is kept for jobs that ask for the same (core/reservation.py).
Rule 4: level-triggered: claims are worked out anew in each dispatch, and nothing of them is stored.
    Who has been asked counts as gone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from gpud.amounts import URGENT
from gpud.core.actions import Action
from gpud.core.model import Attempt, Job, JobId, Request
from gpud.core.placement import place
from gpud.core.pool import Lease, Pool
from gpud.core.spans import each
from gpud.core.state import State
from gpud.core.stops import GOING_ON, save_and_leave

PREEMPTED = "preempted"  # the key of setbacks.STOPS


# For this job (of a record of many this one), in this pool, and nothing of what is claimed; None
# where waiting will not help.
Keep = Callable[[Job, JobId, Pool, frozenset[str]], Collection[str] | None]


class Claims:
    """`of`: which devices (keys) each record claims, for each that it stands for in their order.
    `keep`: keeps devices for the first that cannot be helped, and says which."""

    def __init__(self, state: State, now_ms: int, keep: Keep) -> None:
        self._state = state
        self._now, self._then = state.pool.copy(), state.pool.copy()
        self._then.block(state.pool.lasting(), set(), dict(state.pool.seen_free))
        for attempt in state.attempts.values():
            if attempt.phase not in GOING_ON:
                _leave(self._then, attempt)
        self._may_leave = _may_leave(state)
        self._leaving: list[tuple[JobId, Attempt]] = []
        self.of: dict[JobId, list[frozenset[str]]] = {}
        self.devices: frozenset[str] = frozenset()
        promises = []
        gates = state.gates
        kept: Collection[str] | None = None
        hopeless: set[Request] = set()
        for job in state.ready.urgent():
            if job.request in hopeless:
                continue
            behind = gates.of(job.belongs)
            for element in each(job.rest) if job.rest else (job.id,):
                if gates.closed(behind, now_ms):
                    break
                if not self._has_room_now(job.request, kept or ()):
                    on_gpus = self._now.wanted(job.request) != 0
                    if (kept and on_gpus) or not self._claim(job.id, job.request, kept or ()):
                        if kept is None:
                            kept = keep(job, JobId(element), self._now, self.devices)
                        hopeless.add(job.request)
                        break
                    promises.append(behind)
                gates.promise(behind)
        gates.take_back()
        for behind in promises:  # who starts now counts by itself
            gates.promise(behind)
        if kept is not None and state.reservation is not None:
            record = state.find(state.reservation.job)
            assert record is not None
            gates.promise(gates.of(record.belongs))

    def _has_room_now(self, request: Request, avoid: Collection[str]) -> bool:
        lease = place(self._now, request, self.devices.union(avoid))
        if lease is None:
            return False
        self._now.take(lease)
        self._then.take(lease)
        return True

    def _claim(self, job: JobId, request: Request, avoid: Collection[str]) -> bool:
        """Whether there will be room for it once others have left."""
        pool = self._then
        leaving: list[Attempt] = []
        lease = place(pool, request, avoid)
        if lease is None:
            lease, leaving = self._without_others(request, avoid)
        if lease is None:
            return False
        pool.take(lease)
        self._may_leave = [attempt for attempt in self._may_leave if attempt not in leaving]
        self._leaving += ((job, attempt) for attempt in leaving)
        devices = frozenset(part.device for part in lease)
        self.of.setdefault(job, []).append(devices)
        self.devices |= devices
        return True

    def _without_others(
        self, request: Request, avoid: Collection[str]
    ) -> tuple[Lease | None, list[Attempt]]:
        """Its lease, and who has to leave for it: rule 2."""
        pool, lease = self._then, None
        leaving: list[Attempt] = []
        for attempt in self._may_leave:
            _leave(pool, attempt)
            leaving.append(attempt)
            if (lease := place(pool, request, avoid)) is not None:
                break
        needed = []
        for attempt in reversed(leaving):
            pool.take(attempt.lease)
            if lease is not None and (again := place(pool, request, avoid)) is not None:
                lease = again
            elif lease is not None:
                _leave(pool, attempt)
                needed.append(attempt)
        return lease, needed[::-1]

    def ask(self, now_ms: int) -> list[Action]:
        """What makes the room."""
        state = self._state
        actions: list[Action] = []
        for job, attempt in self._leaving:
            made_for = state.spoken(job)
            actions += save_and_leave(state, attempt, PREEMPTED, now_ms, made_for=made_for)
        return actions


def _may_leave(state: State) -> list[Attempt]:
    """In the order in which they are asked."""
    found = []
    for attempt in state.attempts.values():
        job = state.jobs[attempt.job]
        older = (attempt.job, attempt.no) in state.older
        if job.checkpoint and job.priority < URGENT and attempt.phase in GOING_ON and not older:
            found.append((job.priority, -attempt.dispatched_at_ms, -attempt.job, attempt))
    return [attempt for *_, attempt in sorted(found, key=lambda one: one[:3])]


def _leave(pool: Pool, attempt: Attempt) -> None:
    """Its memory is free again, as far as it was promised."""
    pool.give_back(attempt.lease)
    for part in attempt.lease:
        if part.device in pool.seen_free:
            pool.seen_free[part.device] += part.mib
