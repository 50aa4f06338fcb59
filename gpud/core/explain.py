"""Why a job waits, what its GPUs are to it, and which jobs misuse theirs: as sentences. Pure.

Called by the control server for `why`, `ls`, `show` and `gpus`, and by the daemon for `problems`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from msgspec import structs

from gpud.amounts import format_size, format_sizes
from gpud.core.dependencies import HOW
from gpud.core.lifecycle import place_of
from gpud.core.model import CPU_LANE, FULL_MILLI, Device, Job, JobId, JobState, Phase, Request
from gpud.core.placement import place, resolved, rule_of, serves, takes, unsatisfiable
from gpud.core.pool import Lease
from gpud.core.ready import Rank, is_ready, rank_of
from gpud.core.reservation import Reservation
from gpud.core.spans import common, count
from gpud.core.state import State

UUIDS = ("GPU-", "MIG-")  # how they begin
NO_RULE = "the first in the order of the pool that had room"
NO_GPU = "it needs no GPU"
HAS_ROOM = "has room"
MOST_NAMED = 8  # GPUs in a sentence


def explain(state: State, job: JobId, now_ms: int) -> str:
    """The first rule that keeps the job where it is; "" for a job that is not in memory (done)."""
    record = _record(state, job)
    if record is None:
        return ""
    if record.state is JobState.HELD:
        why = f" since {record.why}" if record.why else ""
        return f"held{why}: gpuctl release {job}"
    if record.state is JobState.ACTIVE:
        return _active(state, job, now_ms)
    if state.runner_problem:
        return f"jobs cannot be started now: {state.runner_problem}"
    if impossible := unsatisfiable(state.pool, record.request):
        return impossible
    if record.unmet:
        return _others(state, record)
    if record.not_before_ms and record.not_before_ms == record.begin_ms:
        return f"waits {_seconds(record.not_before_ms - now_ms)} more to begin, as it was asked to"
    if record.not_before_ms:
        return (
            f"waits {_seconds(record.not_before_ms - now_ms)} more before retry "
            f"{record.retry_no} of {record.retry_no + record.retries_left}"
        )
    if until_ms := state.shortage.until_ms:
        return f"waits {_seconds(until_ms - now_ms)} more: {state.shortage.why}"
    if state.draining:
        return "the pool is drained: gpuctl undrain"
    return _capacity(state, record)


def ahead(state: State, job: JobId) -> int:
    """How many jobs that could start now stand before this one. Walks the queue: for one job."""
    record = state.find(job)
    if record is None or not is_ready(record):
        return 0
    alone = structs.replace(record, id=job, rest=())
    (priority, place, _), wanted = rank_of(alone), state.pool.wanted
    rank, for_cpu = (priority, place, record.id), wanted(record.request) == 0
    before = (j for j in state.jobs.values() if is_ready(j) and rank_of(j) < rank)
    return sum(_before(j, rank, job) for j in before if (wanted(j.request) == 0) == for_cpu)


def _record(state: State, job: JobId) -> Job | None:
    """As if every element of an array had its own."""
    record = state.find(job)
    if record is not None and record.rest:
        return structs.replace(record, id=job, rest=())
    return record


def _before(job: Job, rank: Rank, asked: JobId) -> int:
    """Of the jobs this record stands for, those that come first."""
    if not job.rest:
        return 1
    all_of_it = -job.priority < rank[0] or (job.place and job.place < rank[1])
    end = asked if job.id == rank[-1] else rank[1]
    return count(job.rest if all_of_it else common(job.rest, ((0, ceil(end) - 1),)))


def devices_for(state: State, job: JobId) -> list[str]:
    """For `why --verbose`: a line per device, what it is to this job and why; of an active job the
    rule that chose its devices."""
    record = _record(state, job)
    if record is None:
        return []
    pool, request = state.pool, resolved(state.pool, record.request)
    if record.state is JobState.ACTIVE:
        lease = state.attempts[job].lease
        here = all(part.device in pool.devices for part in lease)
        rule = rule_of(pool, record.request, lease) if here else ""
        on_cpu = any(part.device == CPU_LANE for part in lease)
        return [f"placed on {_where(state, lease)}: {rule_in_words(rule, on_cpu=on_cpu)}"]
    gpus = pool.wanted(request)
    kept = kept_now(state)
    lines = []
    for device in pool.devices.values():
        if bool(device.ids) != (gpus != 0):
            continue
        told = _not_here(state, device, request, gpus)
        if kept is not None and device.key in kept.devices:
            told += ", and is " if kept.job == job or told != HAS_ROOM else ", but is "
            told += "kept for this job" if kept.job == job else f"kept for job {kept.job}"
        lines.append(f"{_gpus((device.label,)) if device.ids else device.key}: {told}")
    return lines


def rule_in_words(rule: str, *, on_cpu: bool) -> str:
    """Why an attempt was placed where it was. `rule`: what was said of it then, or ""."""
    return NO_GPU if on_cpu else rule or NO_RULE


def kept_now(state: State) -> Reservation | None:
    """What is kept for the first job that has no room, if it still waits."""
    kept = state.reservation
    job = None if kept is None else state.jobs.get(kept.job)
    if kept is None or job is None or not is_ready(job):
        return None
    return Reservation(state.spoken(kept.job), kept.devices, kept.at_ms)


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
            idle = _seconds(now_ms - used.idle_since_ms)
            found.append(f"job {job} has done nothing on its GPUs for {idle}")
    return found


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
    beside = f", beside {_jobs(jobs)}" if jobs else ""
    free = pool.free_milli(device)
    if milli > free:
        if not jobs:
            return "its GPUs are in use under another grouping"
        some = free > FULL_MILLI % device.slot_milli  # of thirds there is always a bit left over
        return f"has {free // 10} % free{beside}" if some else f"taken by {_jobs(jobs)}"
    free_mib = _free_mib(state, device)
    return f"has {format_sizes(free_mib, request.vram_mib)[0]} of memory free{beside}"


def _others(state: State, job: Job) -> str:
    """Other jobs keep it waiting."""
    before = state.links.broken(job)
    if before is not None:
        how = HOW[state.links.outcomes[before]]
        return f"waits for job {before}, which {how}: gpuctl retry {before}"
    waited_for = state.links.waited_for(job)
    if len(waited_for) == 1:
        (before,) = waited_for
        attempt = state.attempts.get(before)
        earlier = state.find(before)
        assert earlier is not None
        return f"waits for job {before}, which is {place_of(earlier, attempt)}"
    array = state.numbering.array_of(waited_for[0])
    if array is not None and array[0] <= min(waited_for) and max(waited_for) <= array[1]:
        size = array[1] - array[0] + 1
        return f"waits for array {array[0]}: {len(waited_for)} of its {size} jobs are not done"
    first = ", ".join(map(str, sorted(waited_for[:3])))
    return f"waits for {len(waited_for)} jobs: {first}{_and_more(waited_for)}"


def _active(state: State, job: JobId, now_ms: int) -> str:
    attempt = state.attempts[job]
    where = f"on {_where(state, attempt.lease)}"
    on_cpu = all(part.device == CPU_LANE for part in attempt.lease)
    held = "" if on_cpu else "; its GPU memory stays held"
    match attempt.phase:
        case Phase.STARTING:
            return f"starting {where}"
        case Phase.RUNNING:
            return f"running {where}"
        case Phase.PAUSED:
            long = _seconds(now_ms - attempt.paused_at_ms)
            return f"paused {where} for {long}{held}: gpuctl continue {job}"
        case Phase.STOPPING if attempt.leaving:
            return f"saving its state {where}, to be queued again"
        case Phase.STOPPING:
            return f"being stopped {where}"
        case Phase.FINISHING:
            return f"has ended {where}, which is being looked at"


def _capacity(state: State, job: Job) -> str:
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
    return _room(state, job, usable) + _take_no_work(state, blocked)


def _take_no_work(state: State, devices: list[Device]) -> str:
    bad = [f"; {_gpus((d.label,))} {_no_work(state, d)}" for d in devices]
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
    keys = kept.devices if kept is not None else ()
    labels = [d.label for key, d in pool.devices.items() if key in keys] if keys else []
    if kept is not None and labels:
        which = _gpus(labels) if len(labels) <= MOST_NAMED else f"{len(labels)} GPUs"
        are_kept = f"{which} {'is' if len(labels) == 1 else 'are'} kept"
        if kept.job == job.id:
            return f"waits for {_what(request, gpus)}: {are_kept} for it"
        if place(pool, request) is not None:
            return f"waits for its turn behind job {kept.job}, for which {are_kept}"
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
    if free:
        return f"waits for its turn: {_free(free, slots, kind)}"
    if slots > 1:
        return f"waits for a free {kind}: all {slots} are taken"
    return f"waits for the {kind}: it is taken"


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


def _where(state: State, lease: Lease) -> str:
    labels = [state.pool.label(part.device) for part in lease]
    return "the CPU" if labels == [CPU_LANE] else _gpus(labels)


def _gpus(labels: Sequence[str]) -> str:
    """ "GPU 0", "GPUs 0, 1 and 3"; those that are called by their UUIDs as they are."""
    if any(label.startswith(UUIDS) for label in labels):
        return _and(labels)
    return f"{'GPU' if len(labels) == 1 else 'GPUs'} {_and(labels)}"


def _jobs(jobs: Sequence[JobId]) -> str:
    return f"{'job' if len(jobs) == 1 else 'jobs'} {_and([str(job) for job in sorted(jobs)])}"


def _and(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _and_more(jobs: list[JobId]) -> str:
    return f" and {len(jobs) - 3} more" if len(jobs) > 3 else ""


def _seconds(ms: int) -> str:
    seconds = max(0, -(-ms // 1000))
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
