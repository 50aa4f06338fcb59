"""The reference: plain FIFO without backfill, on the same pool and the same placement.

What `gpud simulate` compares with. In strict order (priority, then submit) the first job is started
as soon as it fits; until then all behind it wait. Called by tools/simulate.py, the tests and the
benchmarks. Shares the core's placement, so that the two differ in nothing but the queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

from gpud.core.model import Device, Request
from gpud.core.placement import place as placed
from gpud.core.placement import unsatisfiable
from gpud.core.pool import Pool
from gpud.tools.schedule import Schedule, Told, nobody
from gpud.tools.trace import TraceJob


def fifo(jobs: Sequence[TraceJob], devices: Iterable[Device], told: Told = nobody) -> Schedule:
    """What FIFO does with the jobs, which are in order of submit. `told` after each turn."""
    schedule, pool = Schedule(jobs), Pool(devices)
    waiting: list[tuple[int, int]] = []  # (-priority, place), a heap
    ends: list[tuple[int, int]] = []  # (when, place), a heap
    impossible: dict[Request, str] = {}  # why never; "" when it could
    submitted = 0
    while submitted < len(jobs) or ends:
        now_ms = ends[0][0] if ends else jobs[submitted].submit_ms
        if submitted < len(jobs):
            now_ms = min(now_ms, jobs[submitted].submit_ms)
        while ends and ends[0][0] <= now_ms:
            place = heappop(ends)[1]
            pool.give_back(schedule.leases[place])
            schedule.end(place, now_ms)
        while submitted < len(jobs) and jobs[submitted].submit_ms <= now_ms:
            request = jobs[submitted].request
            if request not in impossible:
                impossible[request] = unsatisfiable(pool, request)
            if impossible[request]:
                schedule.refused[submitted] = impossible[request]
            else:
                heappush(waiting, (-jobs[submitted].priority, submitted))
            submitted += 1
        while waiting:
            place = waiting[0][1]
            lease = placed(pool, jobs[place].request)
            if lease is None:
                break
            heappop(waiting)
            pool.take(lease)
            heappush(ends, (schedule.start(place, lease, now_ms), place))
        told(schedule)
    return schedule
