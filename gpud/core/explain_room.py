"""Where there is no room for a job, and what its GPUs are to it: as sentences. Pure.

Called by core/explain.py for jobs that wait for nothing else, and by the control server for `why
--verbose` and `gpus`, by the daemon for `problems`.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import structs

from gpud.amounts import URGENT, format_size, format_sizes
from gpud.core.model import CPU_LANE, FULL_MILLI, Device, Job, JobId, JobState, Phase, Request
from gpud.core.phrases import gpus_in_words, jobs_in_words, seconds, where
from gpud.core.placement import place, resolved, rule_of, serves, takes
from gpud.core.ready import is_ready, rank_of
from gpud.core.reservation import Reservation
from gpud.core.rules import USER
from gpud.core.spans import each
from gpud.core.state import State

NO_RULE = "the first in the order of the pool that had room"
NO_GPU = "it needs no GPU"
HAS_ROOM = "has room"
MOST_NAMED = 8  # GPUs in a sentence


def capacity(state: State, job: Job, now_ms: int) -> str:
    """All that is missing is room."""
    pool, request = state.pool, resolved(state.pool, job.request)
    gpus = pool.wanted(request)
    if pool.unknown and gpus != 0:
        return f"waits for the GPUs: {pool.unknown}"
    suited = [d for d in pool.devices.values() if serves(d, request, gpus)]
    usable = [d for d in suited if d.key not in pool.blocked]
    blocked = [d for d in suited if d.key in pool.blocked] if gpus != 0 else []
    counted_on = sum(pool.may_be_counted_on(d) for d in suited)
    if blocked and (not usable or counted_on < max(1, gpus or 1)):
        return f"waits for {_what(request, gpus)}{_take_no_work(state, blocked)}"
    if claimed := claimed_for(state, job.id):
        return _until_others_leave(state, request, gpus, claimed)
    if gpus != 0 and (turn := _turn(state, job, now_ms)):
        return turn
    return _room(state, job, usable) + _take_no_work(state, blocked)


def _until_others_leave(
    state: State, request: Request, gpus: int | None, claimed: Collection[str]
) -> str:
    """It is urgent, and there will be room for it."""
    leaving = [
        attempt.job
        for attempt in state.attempts.values()
        if attempt.phase is Phase.STOPPING and any(part.device in claimed for part in attempt.lease)
    ]
    what = _what(request, gpus)
    if not leaving:
        return f"waits for {what}: {_kept_devices(state, claimed)} for it"
    verb = "leaves" if len(leaving) == 1 else "leave"
    return f"waits for {what}: {jobs_in_words(leaving)} {verb} to make room for it"


def _turn(state: State, job: Job, now_ms: int) -> str:
    """Somebody else who waits has used less."""
    shares, rank, kept = state.shares, rank_of(job), kept_now(state)
    if not shares or (kept is not None and kept.job == job.id):
        return ""
    mine = shares.share(job.uid, now_ms)
    for uid, first in state.ready.first_of_users(now_ms).items():
        if uid != job.uid and first[0] == rank[0] and shares.share(uid, now_ms) < mine:
            return f"waits for its turn: {state.gates.name(f'{USER}{uid}')} has used less"
    return ""


def _take_no_work(state: State, devices: list[Device]) -> str:
    bad = [f"; {gpus_in_words((d.label,))} {_no_work(state, d)}" for d in devices]
    return "".join(bad[:3]) + (f"; and {len(bad) - 3} more" if len(bad) > 3 else "")


def _no_work(state: State, device: Device) -> str:
    """Why, and the remedy where a person has one."""
    why = state.pool.blocked[device.key]
    if state.health.is_quarantined(device):
        return f"is quarantined: {why} (gpuctl gpus heal {device.label})"
    return f"takes no work: {why}"


def _room(state: State, job: Job, usable: list[Device]) -> str:
    """What of these devices is free, and why that is not for this job."""
    pool, request = state.pool, resolved(state.pool, job.request)
    gpus, kept = pool.wanted(request), kept_now(state)
    if kept is not None and kept.job == job.id and any(key in pool.devices for key in kept.devices):
        return f"waits for {_what(request, gpus)}: {_kept_devices(state, kept.devices)} for it"
    if (behind := _behind(state, request)) is not None:
        other, keys = behind
        return f"waits for its turn behind job {other}, for which {_kept_devices(state, keys)}"
    first = None if kept is None else record_of(state, kept.job)
    if first is not None and job.priority >= URGENT and rank_of(job) > rank_of(first):
        assert kept is not None
        kept_devices = _kept_devices(state, kept.devices)
        return f"waits for its turn behind job {first.id}, for which {kept_devices}"
    if request.vram_mib > 0:
        most = max((_free_mib(state, d) for d in usable), default=0)
        if most < request.vram_mib:
            wanted, free_at_most = format_sizes(request.vram_mib, most)
            return f"waits for {wanted} of GPU memory: {free_at_most} is free at most"
    slots = sum(d.slots for d in usable)
    free = sum(pool.free_slots(d) for d in usable)
    kind = "CPU slot" if gpus == 0 else "slot"
    if request.share_milli:
        share = max((pool.free_milli(d) for d in usable), default=0) / FULL_MILLI
        return f"waits for {_what(request, gpus)}: {share:g} of one is free at most"
    if request.exclusive or (gpus is not None and gpus > 1):
        return f"waits for {_what(request, gpus)}: {_free(free, slots, kind)}"
    if (memory := _memory_of_a_slot(state, request, usable)) is not None:
        wanted, free_at_most = format_sizes(*memory)
        return f"waits for {wanted} of GPU memory, the part of a slot: {free_at_most} is left"
    if free:
        return f"waits for its turn: {_free(free, slots, kind)}"
    if slots > 1 and _count_there(state, usable) < slots:
        return f"waits for a free {kind}: what runs leaves none of {slots}"
    if slots > 1:
        return f"waits for a free {kind}: all {slots} are taken"
    return f"waits for the {kind}: it is taken"


def _memory_of_a_slot(
    state: State, request: Request, usable: list[Device]
) -> tuple[int, int] | None:
    """Wanted and left at most, in MiB, where it is only memory that is promised to others."""
    found = []
    for device in usable:
        milli, mib = takes(device, request)
        if state.pool.free_milli(device) >= milli:
            left = state.pool.unpromised_mib(device)
            if left >= mib:
                return None
            found.append((left, mib))
    return (max(found)[1], max(0, max(found)[0])) if found else None


def _count_there(state: State, devices: list[Device]) -> int:
    keys = {device.key for device in devices}
    leases = [attempt.lease for attempt in state.attempts.values()]
    return sum(any(part.device in keys for part in lease) for lease in leases)


def _behind(state: State, request: Request) -> tuple[JobId, list[str]] | None:
    """For whom what it could have is kept, and all that is kept for that job."""
    owners = kept_for(state)
    lease = place(state.pool, request) if owners else None
    if lease is None:
        return None
    other = next((owners[part.device] for part in lease if part.device in owners), None)
    other = next(iter(owners.values())) if other is None else other
    return other, [key for key, owner in owners.items() if owner == other]


def _free(free: int, slots: int, kind: str) -> str:
    if slots == 1:
        return f"the {kind} is {'free' if free else 'taken'}"
    return f"{free} of {slots} {kind}s {'is' if free == 1 else 'are'} free"


def _what(request: Request, gpus: int | None) -> str:
    if gpus is not None and gpus > 1:
        return f"{gpus} GPUs at once"
    if request.exclusive:
        return "a GPU to itself"
    if request.share_milli:
        return f"{request.share_milli / FULL_MILLI:g} of a GPU"
    if request.vram_mib > 0:
        return f"{format_size(request.vram_mib)} of GPU memory"
    return "a slot"


def _free_mib(state: State, device: Device) -> int:
    free = state.pool.unpromised_mib(device)
    return max(0, min(free, state.pool.seen_free.get(device.key, free)))


# -- for each GPU ----------------------------------------------------------------------------------


def devices_for(state: State, job: JobId) -> list[str]:
    """For `why --verbose`: a line per device, what it is to this job and why; of an active job the
    rule that chose its devices."""
    record = record_of(state, job)
    if record is None:
        return []
    pool, request = state.pool, resolved(state.pool, record.request)
    if record.state is JobState.ACTIVE:
        lease = state.attempts[job].lease
        here = all(part.device in pool.devices for part in lease)
        rule = rule_of(pool, record.request, lease) if here else ""
        on_cpu = any(part.device == CPU_LANE for part in lease)
        return [f"placed on {where(state, lease)}: {rule_in_words(rule, on_cpu=on_cpu)}"]
    gpus = pool.wanted(request)
    kept = kept_for(state)
    lines = []
    for device in pool.devices.values():
        if bool(device.ids) != (gpus != 0):
            continue
        told = _not_here(state, device, request, gpus)
        if other := kept.get(device.key):
            told += ", and is " if other == job or told != HAS_ROOM else ", but is "
            told += "kept for this job" if other == job else f"kept for job {other}"
        lines.append(f"{gpus_in_words((device.label,)) if device.ids else device.key}: {told}")
    return lines


def rule_in_words(rule: str, *, on_cpu: bool) -> str:
    """Why an attempt was placed where it was. `rule`: what was said of it then, or ""."""
    return NO_GPU if on_cpu else rule or NO_RULE


def _not_here(state: State, device: Device, request: Request, gpus: int | None) -> str:
    pool = state.pool
    if device.key in pool.blocked:
        return _no_work(state, device)
    if not serves(device, request, gpus):
        if request.vram_mib > device.memory_mib:
            return f"has {format_sizes(device.memory_mib, request.vram_mib)[0]} of memory"
        if request.gpu_model.lower() not in device.model.lower():
            return f"is {device.model or 'of an unknown model'}"
        return f"is a group of {len(device.ids)}" if len(device.ids) > 1 else "does not suit"
    milli, mib = takes(device, request)
    if pool.has_room(device, milli, mib, seen_mib=request.vram_mib):
        return HAS_ROOM
    jobs = [j for j, a in state.attempts.items() if any(p.device == device.key for p in a.lease)]
    beside = f", beside {jobs_in_words(jobs)}" if jobs else ""
    free = pool.free_milli(device)
    if milli > free:
        if not jobs:
            return "its GPUs are in use under another grouping"
        some = free > FULL_MILLI % device.slot_milli  # of thirds there is always a bit left over
        return f"has {free // 10} % free{beside}" if some else f"taken by {jobs_in_words(jobs)}"
    free_mib = _free_mib(state, device)
    return f"has {format_sizes(free_mib, request.vram_mib)[0]} of memory free{beside}"


def record_of(state: State, job: JobId) -> Job | None:
    """As if every element of an array had its own."""
    record = state.find(job)
    if record is not None and record.rest:
        return structs.replace(record, id=job, rest=())
    return record


# -- what is kept ----------------------------------------------------------------------------------


def kept_now(state: State) -> Reservation | None:
    """What is kept for the first job that has no room, if it still waits."""
    kept = state.reservation
    job = None if kept is None else state.find(kept.job)
    return kept if job is not None and is_ready(job) else None


def kept_for(state: State) -> dict[str, JobId]:
    """For whom devices are kept (their keys), with those that urgent jobs claim."""
    kept = kept_now(state)
    found = dict.fromkeys(kept.devices, kept.job) if kept is not None else {}
    for job, devices in _claims(state).items():
        found |= dict.fromkeys(devices, job)
    return {key: job for key, job in found.items() if key in state.pool.devices}


def claimed_for(state: State, job: JobId) -> frozenset[str]:
    """The devices that an urgent job claims, until it starts."""
    return frozenset(key for key in _claims(state).get(job, ()) if key in state.pool.devices)


def _claims(state: State) -> dict[JobId, frozenset[str]]:
    """As if every element of an array had its own."""
    found: dict[JobId, frozenset[str]] = {}
    for job, claims in state.claims.items():
        record = state.jobs.get(job)
        if record is not None and is_ready(record):
            ids = each(record.rest) if record.rest else (job,)
            found.update(zip(map(JobId, ids), claims, strict=False))
    return found


def _kept_devices(state: State, keys: Collection[str]) -> str:
    """ "GPU 0 is kept"."""
    labels = [d.label for key, d in state.pool.devices.items() if key in keys]
    which = gpus_in_words(labels) if len(labels) <= MOST_NAMED else f"{len(labels)} GPUs"
    return f"{which} {'is' if len(labels) == 1 else 'are'} kept"


# -- misuse ----------------------------------------------------------------------------------------


def misuses(state: State, now_ms: int) -> list[str]:
    """What looks at the GPUs have shown of live attempts, as sentences."""
    found = []
    for job, attempt in state.attempts.items():
        used = attempt.usage
        if used is None:
            continue
        if "wrong-gpu" in used.told:
            found.append(f"job {job} uses a GPU that it was not given (gpuctl show {job})")
        if "idle" in used.told and used.idle_since_ms:
            idle = seconds(now_ms - used.idle_since_ms)
            found.append(f"job {job} has done nothing on its GPUs for {idle}")
    return found


def unlisted(state: State) -> str:
    """A sentence about GPUs on which the driver lists no processes; "" when there are none."""
    seen = {uuid: gpu.sight for uuid, gpu in state.health.gpus.items()}
    labels = [
        device.label
        for device in state.pool.devices.values()
        if any(sight and not sight.attributable for sight in map(seen.get, device.uuids))
    ]
    if not labels:
        return ""
    get, which = "it gets" if len(labels) == 1 else "they get", gpus_in_words(labels)
    return f"the driver does not say who uses {which}: {get} jobs, whoever else is there"
