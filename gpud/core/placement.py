"""Which devices a job gets: the rules, and the sentence about each.

Called by core/dispatching.py, core/preemption.py and those that explain. Takes nothing: that is
core/pool.py. The rules, in this order; a device that is equal in one goes on to the next, and what
is left is the order of the pool, so the choice is the same every time.

Rule 1: only a device that may be used now, has what is asked for (model, memory, width) and has
    room; a group of exactly n GPUs before n single ones.
Rule 2: nobody's guest GPU while another will do.
Rule 3: n single GPUs are those nearest to each other: NVLink, one PCIe switch, one NUMA node.
Rule 4: the fullest that still has room, so that whole GPUs stay free for those who need them.

What a job takes of each of its devices: all of it when it is to be alone; the share it names; when
it names memory only, the same part of the device as of its memory; else a slot.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations

from msgspec import structs

from gpud.amounts import format_sizes
from gpud.core.model import AUTO_VRAM, CPU_LANE, FULL_MILLI, Device, LeasePart, Request
from gpud.core.pool import Lease, Pool, needs_gpu

FAR = 6  # steps between GPUs of which nothing is known; SYS is 5
MARGIN_PER_CENT = 15  # on top of what earlier runs took
MOST_PER_CENT = 90  # of a GPU's memory can be counted on; the driver has some
MOST_STARTS = 16  # of the search for near GPUs: it takes the cube of their number otherwise
A_GUEST = 1 << 20  # counts as so many steps: more than any group without one has
NOTHING: Collection[str] = ()


def place(pool: Pool, request: Request, avoid: Collection[str] = NOTHING) -> Lease | None:
    """The lease this request would get now, or None while nothing fits. Never on `avoid` (keys)."""
    request = resolved(pool, request)
    gpus = pool.wanted(request)
    if pool.unknown and gpus != 0:
        return None
    leased, promised, blocked = pool.leased, pool.promised, pool.blocked
    single, best = [], None
    best_rank: tuple[bool, int] | None = None
    for key, device in pool.devices.items():
        if leased.get(key, 0) >= FULL_MILLI or key in blocked or key in avoid:
            continue
        if request.vram_mib and promised.get(key, 0) + request.vram_mib > device.memory_mib:
            continue
        if not serves(device, request, gpus):
            continue
        milli, mib = takes(device, request)
        if not pool.has_room(device, milli, mib, seen_mib=request.vram_mib):
            continue
        if gpus is None or gpus <= 1 or len(device.ids) == gpus:
            rank = (device.guest, pool.free_milli(device))
            if best_rank is None or rank < best_rank:
                best, best_rank = LeasePart(key, milli, mib, device.uuids), rank
        else:
            single.append(device)
    if best is not None:
        return (best,)
    if gpus is None or gpus <= 1 or len(single) < gpus:
        return None
    chosen = _nearest(pool, single, gpus)
    return tuple(LeasePart(d.key, *takes(d, request), d.uuids) for d in single if d.key in chosen)


def most_mib(pool: Pool, request: Request, avoid: Collection[str] = NOTHING) -> int:
    """A request like this one that names more memory has no room now; nor may one with less have.
    For a resolved request that names memory."""
    gpus = request.gpus
    found = []
    for key, device in pool.devices.items():
        if key in pool.blocked or key in avoid or not is_of_model(device, request.gpu_model):
            continue
        mib = pool.unpromised_mib(device)
        if gpus is None:
            mib = min(mib, pool.free_milli(device) * device.memory_mib // FULL_MILLI)
        mib = min(mib, pool.seen_free.get(key, mib))
        found += [mib] * len(device.ids)
    found.sort(reverse=True)
    wanted = gpus or 1
    return found[wanted - 1] if len(found) >= wanted else 0


def resolved(pool: Pool, request: Request) -> Request:
    """With the memory that earlier runs took in the place of `auto`: a first run goes alone, and so
    does one that needs as much as there is."""
    if request.vram_mib != AUTO_VRAM:
        return request
    usual = pool.usual_mib.get(request.likeness)
    if usual is not None:
        mib = usual + usual * MARGIN_PER_CENT // 100
        if can_be_counted_on(pool, request, mib):
            return structs.replace(request, vram_mib=mib, likeness="")
    return structs.replace(request, vram_mib=0, exclusive=True, likeness="")


def can_be_counted_on(pool: Pool, request: Request, mib: int) -> bool:
    """Whether a GPU of the model asked for has that much, and some for the driver."""
    return any(
        100 * mib <= MOST_PER_CENT * device.memory_mib and is_of_model(device, request.gpu_model)
        for device in pool.devices.values()
    )


def takes(device: Device, request: Request) -> tuple[int, int]:
    """(thousandths, MiB on each of its GPUs) that a resolved request takes of a device."""
    milli, mib = device.slot_milli, request.vram_mib
    if request.exclusive:
        milli, mib = FULL_MILLI, device.memory_mib
    elif request.share_milli:
        milli = request.share_milli
    elif mib and request.gpus is None and device.memory_mib:
        milli = min(FULL_MILLI, max(1, -(-mib * FULL_MILLI // device.memory_mib)))
    return milli, mib or device.memory_mib * milli // FULL_MILLI


def serves(device: Device, request: Request, gpus: int | None) -> bool:
    """Whether the device has what a resolved request asks for: rule 1, without room."""
    width = len(device.ids)
    if gpus == 0:
        return not width
    if not width or (width > 1 and (request.share_milli or gpus not in (None, width))):
        return False
    if request.vram_mib > device.memory_mib or (device.mig and (gpus or 0) > 1):
        return False
    return is_of_model(device, request.gpu_model)


def is_of_model(device: Device, model: str) -> bool:
    return not model or model.lower() in device.model.lower()


def _nearest(pool: Pool, devices: Sequence[Device], count: int) -> Collection[str]:
    """Rules 2 to 4 for `count` single GPUs: from a GPU as a start, the nearest one after the other;
    of all these groups the best. One that is as far from all others as an earlier start was is no
    other start. Without any distances: in the order of rules 2 and 4."""
    order = sorted(devices, key=lambda d: (d.guest, pool.free_milli(d)))
    if not any(d.distance for d in order):
        return {device.key for device in order[:count]}
    steps = [[distance(one, other) for other in order] for one in order]
    apart = [A_GUEST if d.guest else 0 for d in order]
    best: list[int] = []
    best_rank: tuple[int, int] | None = None
    starts = list(range(len(order)))
    for _ in range(MOST_STARTS):
        start = starts[0]
        group, rest, far = [start], [i for i in range(len(order)) if i != start], apart
        total = apart[start]
        while len(group) < count:
            far = [a + b for a, b in zip(far, steps[group[-1]], strict=True)]
            nearest = min(rest, key=far.__getitem__)
            total += far[nearest]
            rest.remove(nearest)
            group.append(nearest)
        rank = (total, sum(pool.free_milli(order[i]) for i in group))
        if best_rank is None or rank < best_rank:
            best, best_rank = group, rank
        starts = [i for i in starts[1:] if not _alike(steps, start, i)]
        if not starts:
            break
    return {order[i].key for i in best}


def _alike(steps: Sequence[Sequence[int]], one: int, other: int) -> bool:
    """Whether these two are equally far from all others."""
    its = list(steps[other])
    its[one], its[other] = steps[one][one], steps[one][other]
    return its == steps[one]


def distance(one: Device, other: Device) -> int:
    """Between two single GPUs: 0 NVLink, 1 PIX, 2 PXB, 3 PHB, 4 NODE, 5 SYS, 6 not known."""
    return one.distance.get(other.uuids[0], FAR) if other.uuids else FAR


WAYS = {
    0: "NVLink",
    1: "one PCIe switch",
    2: "several PCIe switches",
    3: "the host bridge",
    4: "one NUMA node",
    5: "different NUMA nodes",
}


def rule_of(pool: Pool, request: Request, lease: Lease) -> str:
    """Why these devices, as a clause; "" for the lane `cpu` and where there was no choice."""
    devices = [pool.devices[part.device] for part in lease]
    gpus = [device for device in pool.devices.values() if device.ids]
    if len(gpus) < 2 or not devices[0].ids:
        return ""
    if any(device.guest for device in devices):
        return "guest GPUs, since no other has room"
    several = len(devices) > 1
    if several and any(device.distance for device in devices):
        steps = [distance(one, other) for one, other in combinations(devices, 2)]
        way = WAYS.get(max(steps), "")
        return "the nearest to each other that have room" + (way and f": {way}")
    if any(part.milli < FULL_MILLI for part in lease):
        return f"the fullest that {'have' if several else 'has'} room, so that whole GPUs stay free"
    return ""


# -- for ever ------------------------------------------------------------------------------------


def unsatisfiable(pool: Pool, request: Request) -> str:
    """Why this pool could never serve the request, as a sentence; "" when it could."""
    request = resolved(pool, request) if request.vram_mib != AUTO_VRAM else request
    gpus = pool.wanted(request)
    if gpus == 0:
        if needs_gpu(request):
            return "asks for no GPU, and for memory or a model of one"
        return "" if CPU_LANE in pool.devices else "needs the lane cpu, which has no slots"
    devices = [device for device in pool.devices.values() if device.ids]
    if pool.unknown or (gpus is None and not needs_gpu(request)):
        return ""  # a pool that has GPUs, or may have
    if not devices:
        return f"needs {_gpus(gpus or 1)}, this machine has 0"
    if request.vram_mib and not any(device.memory_mib for device in devices):
        return "asks for GPU memory, which gpud cannot see on this machine (gpuctl gpus)"
    if request.gpu_model:
        if not any(device.model for device in devices):
            return "asks for a GPU model, which gpud cannot see on this machine (gpuctl gpus)"
        devices = [device for device in devices if is_of_model(device, request.gpu_model)]
        if not devices:
            have = ", ".join(dict.fromkeys(d.model for d in pool.devices.values() if d.model))
            return f'needs a GPU whose model has "{request.gpu_model}", this machine has {have}'
    if request.vram_mib > 0:
        most = max(device.memory_mib for device in devices)
        devices = [device for device in devices if device.memory_mib >= request.vram_mib]
        if not devices:
            wanted, has = format_sizes(request.vram_mib, most)
            return f"needs {wanted} of GPU memory, the largest GPU here has {has}"
    if (gpus or 0) > 1 and any(device.mig for device in devices):
        devices = [device for device in devices if not device.mig]
        if not devices:
            return f"needs {_gpus(gpus or 0)}, and no process can use two MIG instances"
    if request.share_milli:
        devices = [device for device in devices if len(device.ids) == 1]
        if not devices:
            return "needs a share of one GPU, and this machine leases its GPUs in groups"
    widths = [len(device.ids) for device in devices]
    if gpus is None or gpus in widths or widths.count(1) >= gpus:
        return ""
    total = len({i for device in devices for i in device.ids})
    if total < gpus:
        such = f"{gpus} such GPUs" if request.gpu_model or request.vram_mib > 0 else _gpus(gpus)
        return f"needs {such}, this machine has {total}"
    return f"needs {_gpus(gpus)}, and no group of slots has exactly that many"


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"
