"""What attempts used of their GPUs, added up from look to look.

Called by core/sights.py for every look. Of a GPU that several attempts share, energy and
utilisation are divided: by what the driver says each of them used, where it does, else by their
shares. What lies between the last look and the end of an attempt is reckoned with the power of the
last look, and taken from what those that were beside it get at the next. Pure arithmetic:
milliseconds, millijoules, MiB.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from gpud.core.model import FULL_MILLI, Attempt, LeasePart, Usage
from gpud.core.sight import MOST_POWER_MW, GpuSight

Part = tuple[Attempt, LeasePart]

IDLE_PER_CENT = 0  # a GPU that did this much at most did nothing
UNSEEN_MS = 60_000  # on top of the time between two looks: at one of them it may not have answered


def add_look(
    attempt: Attempt,
    uuid: str,
    part: LeasePart,
    sight: GpuSight,
    at_ms: int,
    beside: Sequence[Part],
    claimed_mj: int = 0,
) -> int | None:
    """Add one GPU of one look. `beside`: all attempts with a lease on it, this one too;
    `claimed_mj`: what of the energy attempts that have ended since the look before were given.
    Gives back the per cent of the GPU that the attempt used, None where nobody knows."""
    usage = attempt.usage
    if usage is None:
        return None
    own = [p for p in sight.processes if (p.job, p.attempt) == (attempt.job, attempt.no)]
    usage.peak_mib = max(usage.peak_mib, sum(process.mib or 0 for process in own))
    if not own and len(beside) == 1 and not sight.attributable and sight.used_mib is not None:
        usage.peak_mib = max(usage.peak_mib, sight.used_mib)  # nobody else is known to be there
    weight = _weight(attempt, part, sight, beside)
    elapsed_ms = at_ms - (usage.at_ms or attempt.started_at_ms or at_ms)
    if sight.energy_mj is not None:
        added_mj = sight.energy_mj - usage.counters.get(uuid, sight.energy_mj)
        if _can_be(added_mj, elapsed_ms):
            usage.energy_mj += int(max(0, added_mj - claimed_mj) * weight)
        usage.counters[uuid] = sight.energy_mj
    util = _util(sight, own_known=[p.util for p in own if p.util is not None], weight=weight)
    if util is not None and elapsed_ms > 0:
        usage.busy_ms += util * elapsed_ms // 100
        usage.seen_ms += elapsed_ms
    return util


def _can_be(added_mj: int, elapsed_ms: int) -> bool:
    """Not of a counter that began anew when the driver was loaded again, or that jumps."""
    return 0 <= added_mj <= MOST_POWER_MW * (elapsed_ms + UNSEEN_MS) // 1000


def _weight(attempt: Attempt, part: LeasePart, sight: GpuSight, beside: Sequence[Part]) -> float:
    """The attempt's part of what the GPU did, 0 to 1."""
    if len(beside) <= 1:
        return 1.0
    used = {(p.job, p.attempt): 0 for p in sight.processes}
    for process in sight.processes:
        used[process.job, process.attempt] += process.util or 0
    ours = [used.get((other.job, other.no), 0) for other, _ in beside]
    if sum(ours):
        return used.get((attempt.job, attempt.no), 0) / sum(ours)
    return part.milli / sum(other.milli for _, other in beside)


def _util(sight: GpuSight, own_known: list[int], weight: float) -> int | None:
    if own_known:
        return min(100, sum(own_known))
    return None if sight.util is None else ceil(sight.util * weight)  # 0: it did nothing


def close(usage: Usage, part: LeasePart, sight: GpuSight, end_ms: int) -> int:
    """Add what was used of one GPU since the last look, if it was looked at at all; gives it back,
    in millijoules."""
    if not usage.at_ms or sight.power_mw is None or sight.energy_mj is None:
        return 0
    since_ms = max(0, end_ms - usage.at_ms)
    used_mj = sight.power_mw * since_ms * part.milli // (1000 * FULL_MILLI)
    usage.energy_mj += used_mj
    return used_mj


def mean_util(usage: Usage) -> int | None:
    """Per cent, over all its GPUs; None when nobody looked."""
    return round(100 * usage.busy_ms / usage.seen_ms) if usage.seen_ms else None
