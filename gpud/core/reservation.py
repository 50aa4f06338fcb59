"""Capacity that is kept for the first job that does not fit, so that nobody waits for ever.

Called by core/dispatching.py. The first job in rank that has no room, and could
have it once attempts end, gets the devices on which there will be room the soonest. Until it starts
nobody else gets these, except a job that by its time limit is gone before all of them are free
(Slurm calls it backfill; the scheme with one reservation is EASY: D. Lifka, "The ANL/IBM SP
scheduling system", 1995).

Rule 1: made in each dispatch, from leases, time limits, and what was kept for the same job before.
Rule 2: what is kept is taken by nobody else and is kept again, but for a device with room in the
    place of one without: what is missing only shrinks, and no younger attempt comes into the way.
Rule 3: a device that may not be used now (another's process, a quarantine) is not counted on, and
    nothing is kept for a job for which the others are not enough.
Rule 4: a place in its gates is kept, too (core/gates.py).

So a job that is first in rank starts at the latest when the attempts have ended that were live
when it became first, and those started into the gap, which end before that by their limits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from msgspec import Struct

from gpud.core.model import FULL_MILLI, Attempt, Device, JobId, Request
from gpud.core.placement import resolved, serves, takes
from gpud.core.pool import Pool

NEVER = 1 << 62  # nobody knows when


# no room now, not kept before, room at, guest, free, place in the pool, key
Rank = tuple[bool, bool, int, bool, int, int, str]


class Reservation(Struct, frozen=True):
    """`devices` (keys) are kept for `job`, perhaps an element of an array: it is free at `at_ms` at
    the latest, or NEVER."""

    job: JobId
    devices: frozenset[str]
    at_ms: int


def reserve(
    pool: Pool,
    attempts: Iterable[Attempt],
    job: JobId,
    request: Request,
    ends_ms: Callable[[Attempt], int],
    before: Collection[str] = (),
    but: Collection[str] = (),
) -> Reservation | None:
    """What to keep for a job that does not fit now; None when waiting for ends will not help.
    `before`: the devices that were kept for it in the last dispatch; `but`: not these."""
    request = resolved(pool, request)
    gpus = pool.wanted(request)
    if pool.unknown and gpus != 0:
        return None
    leases: dict[str, list[tuple[int, int, int]]] = {}  # device -> (end, thousandths, MiB)
    for attempt in attempts:
        for part in attempt.lease:
            end = (ends_ms(attempt), part.milli, part.mib)
            leases.setdefault(part.device, []).append(end)
    groups: list[Rank] = []
    singles: list[Rank] = []
    for place, device in enumerate(pool.devices.values()):
        if not pool.may_be_counted_on(device) or not serves(device, request, gpus):
            continue
        if device.key in but:
            continue
        held = leases.get(device.key, [])
        milli, mib = takes(device, request)
        wanted_mib = request.vram_mib
        if not wanted_mib or pool.seen_free.get(device.key, wanted_mib) >= wanted_mib:
            at_ms = _room_at_ms(pool, device, (milli, mib), held)
        elif held:
            at_ms = max(held)[0]  # somebody there has more than was promised
        else:
            continue  # others have it
        key, free = device.key, -pool.free_milli(device)
        rank = (at_ms > 0, key not in before, at_ms, device.guest, free, place, key)
        (groups if gpus is None or gpus <= 1 or len(device.ids) == gpus else singles).append(rank)
    choices = []
    if groups:
        choices.append([min(groups)])
    if gpus is not None and 1 < gpus <= len(singles):
        choices.append(sorted(singles)[:gpus])
    if not choices:
        return None
    chosen = min(choices, key=_order_of_choice)
    at_ms = max(rank[2] for rank in chosen)
    return Reservation(job, frozenset(rank[-1] for rank in chosen), at_ms)


def _order_of_choice(ranks: list[Rank]) -> tuple[bool, bool, int]:
    """What has room now, then what was kept before, then what has room the soonest."""
    no_room, new = any(rank[0] for rank in ranks), all(rank[1] for rank in ranks)
    return no_room, new, max(rank[2] for rank in ranks)


def _room_at_ms(
    pool: Pool, device: Device, needs: tuple[int, int], held: list[tuple[int, int, int]]
) -> int:
    """When there is room on the device: 0 now, else once enough of its leases have ended."""
    milli, mib = needs
    free_milli, free_mib = pool.free_milli(device), pool.unpromised_mib(device)
    if free_milli >= milli and free_mib >= mib:
        return 0
    for end_ms, less_milli, less_mib in sorted(held):
        free_milli = min(FULL_MILLI, free_milli + less_milli)
        free_mib += less_mib
        if free_milli >= milli and free_mib >= mib:
            return end_ms
    return NEVER  # its GPUs are in use under another grouping
