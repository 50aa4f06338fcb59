"""What a schedule amounts to, in figures: waits, utilisation, makespan.

Owns the shape of `gpud simulate --json` (docs/simulate.md): fields are added, never renamed or
taken away. Called by tools/simulate.py, the tests and the benchmarks. Pure.

Utilisation is the part of the pool's GPUs that was leased, over a stretch of time: until the last
job has ended, which tells how well a batch was packed; and while jobs were still being submitted,
which tells how a queue that never ends would do, since the tail after the last submit is left out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from msgspec import Struct

from gpud.core.model import CPU_LANE, FULL_MILLI, Device
from gpud.tools.schedule import Schedule


class Waits(Struct, frozen=True):
    """From submit to start, in seconds. `p95_s`: 95 of 100 jobs waited no longer (nearest rank)."""

    mean_s: float
    median_s: float
    p95_s: float
    longest_s: float


class Width(Struct, frozen=True):
    """The jobs that asked for this many GPUs; a share is less than 1, 0 is the lane `cpu`."""

    gpus: float
    jobs: int
    wait: Waits


class Figures(Struct, frozen=True):
    """Of one schedule. None where there is nothing to take it from."""

    succeeded: int
    timed_out: int
    refused: int
    makespan_s: float  # from the first submit to the last end
    wait: Waits | None
    longest_wait_of: str | None  # where the job stands that waited longest
    utilisation: float | None  # 0 to 1, until the last end
    utilisation_arriving: float | None  # until the last submit; None: all came at once
    by_gpus: list[Width]  # the widest first


def figures_of(schedule: Schedule, devices: Iterable[Device]) -> Figures:
    jobs, ran = schedule.jobs, schedule.ran()
    timed_out = sum(1 for place in ran if jobs[place].times_out)
    makespan_ms = max((schedule.end_ms[place] for place in ran), default=0)
    last_submit_ms = jobs[-1].submit_ms if jobs else 0
    longest = max(ran, key=schedule.wait_ms, default=None)
    by_gpus: dict[float, list[int]] = {}
    for place in ran:
        by_gpus.setdefault(jobs[place].gpus, []).append(schedule.wait_ms(place))
    gpus = sum(len(device.ids) for device in devices)
    return Figures(
        succeeded=len(ran) - timed_out,
        timed_out=timed_out,
        refused=len(schedule.refused),
        makespan_s=makespan_ms / 1000,
        wait=waits([schedule.wait_ms(place) for place in ran]) if ran else None,
        longest_wait_of=None if longest is None else jobs[longest].place,
        utilisation=_part_in_use(schedule, gpus, makespan_ms),
        utilisation_arriving=_part_in_use(schedule, gpus, last_submit_ms),
        by_gpus=[Width(g, len(by_gpus[g]), waits(by_gpus[g])) for g in sorted(by_gpus)[::-1]],
    )


def waits(waits_ms: Sequence[int]) -> Waits:
    """Of at least one job."""
    ordered = sorted(waits_ms)
    return Waits(
        mean_s=sum(ordered) / len(ordered) / 1000,
        median_s=statistics.median(ordered) / 1000,
        p95_s=ordered[math.ceil(0.95 * len(ordered)) - 1] / 1000,
        longest_s=ordered[-1] / 1000,
    )


def _part_in_use(schedule: Schedule, gpus: int, until_ms: int) -> float | None:
    """How much of `gpus` was leased from the first submit until then."""
    if not gpus or not until_ms:
        return None
    leased = 0  # thousandths of a GPU, times milliseconds
    for place in schedule.ran():
        start_ms, end_ms = schedule.start_ms[place], min(schedule.end_ms[place], until_ms)
        if start_ms < end_ms:
            leased += milli_of(schedule, place) * (end_ms - start_ms)
    return leased / (gpus * FULL_MILLI * until_ms)


def milli_of(schedule: Schedule, place: int) -> int:
    """Thousandths of GPUs that the job was leased."""
    return sum(
        part.milli * (1 + part.device.count(","))
        for part in schedule.leases[place]
        if part.device != CPU_LANE
    )
