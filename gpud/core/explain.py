"""Why a job waits, as a sentence. Pure; called by the control server for `why`, `ls` and `show`."""

from __future__ import annotations

from collections.abc import Iterable

from gpud.core.dependencies import HOW
from gpud.core.lifecycle import place_of
from gpud.core.model import CPU_LANE, FULL_MILLI, Device, Job, JobId, JobState, Phase, Request
from gpud.core.placement import place, resolved, rule_of, serves, takes, unsatisfiable
from gpud.core.pool import Pool
from gpud.core.ready import is_ready, rank_of
from gpud.core.rules import USER
from gpud.core.sight import gib
from gpud.core.state import State


def explain(state: State, job: JobId, now_ms: int) -> str:
    """The first rule that keeps the job where it is; "" for a job that is not in memory (done)."""
    record = state.jobs.get(job)
    if record is None:
        return ""
    if record.state is JobState.HELD:
        why = f" since {record.why}" if record.why else ""
        which = state.gates.selector(record.held_by) if record.held_by else job
        return f"held{why}: gpuctl release {which}"
    if record.state is JobState.ACTIVE:
        return _active(state, job)
    if state.runner_problem:
        return f"jobs cannot be started now: {state.runner_problem}"
    if impossible := unsatisfiable(state.pool, record.request):
        return impossible
    if record.unmet:
        return _others(state, record)
    if record.not_before_ms and not record.retry_no:
        return f"waits {_seconds(record.not_before_ms - now_ms)} more to begin, as it was asked to"
    if record.not_before_ms:
        return (
            f"waits {_seconds(record.not_before_ms - now_ms)} more before retry "
            f"{record.retry_no} of {record.retry.retries}"
        )
    if until_ms := state.shortage.until_ms:
        return f"waits {_seconds(until_ms - now_ms)} more: {state.shortage.why}"
    if state.draining:
        return "the pool is drained: gpuctl undrain"
    kept, behind = state.reservation, state.gates.why(state.gates.of(record.belongs), now_ms)
    if behind and (kept is None or kept.job != job):  # which was found to wait for room alone
        return behind
    return _capacity(state, record, now_ms)


def ahead(state: State, job: JobId, now_ms: int) -> int:
    """How many jobs that could start now stand before this one. Walks the queue: for one job."""
    record, gates = state.jobs.get(job), state.gates
    if record is None or not is_ready(record) or gates.closed(gates.of(record.belongs), now_ms):
        return 0
    wanted, shares = state.pool.wanted, state.shares
    for_cpu = wanted(record.request) == 0
    share = {uid: shares.share(uid, now_ms) for uid in {j.uid for j in state.jobs.values()}}

    def order(job: Job) -> tuple[object, ...]:
        rank = rank_of(job)
        return rank[0], share[job.uid] if shares and not for_cpu else 0, rank

    before = order(record)
    return sum(
        is_ready(other)
        and (wanted(other.request) == 0) == for_cpu
        and order(other) < before
        and not gates.closed(gates.of(other.belongs), now_ms)
        for other in state.jobs.values()
    )


def devices_for(state: State, job: JobId) -> list[str]:
    """For `why --verbose`: a line per device, what it is to this job and why; of an active job the
    rule that chose its devices."""
    record = state.jobs.get(job)
    if record is None:
        return []
    pool, request = state.pool, resolved(state.pool, record.request)
    if record.state is JobState.ACTIVE:
        lease = state.attempts[job].lease
        here = all(part.device in pool.devices for part in lease)
        rule = rule_of(pool, record.request, lease) if here else ""
        where = _names(pool.label(part.device) for part in lease)
        return [f"placed on {where}: {rule or 'the first in the order of the pool that had room'}"]
    gpus = pool.wanted(request)
    kept = state.reservation
    lines = []
    for device in pool.devices.values():
        if bool(device.ids) != (gpus != 0):
            continue
        lines.append(f"{device.label}: {_not_here(state, device, request, gpus)}")
        if kept is not None and device.key in kept.devices:
            lines[-1] += "; kept for this job" if kept.job == job else f"; kept for job {kept.job}"
    return lines


def _not_here(state: State, device: Device, request: Request, gpus: int | None) -> str:
    pool = state.pool
    if device.key in pool.blocked:
        return f"takes no work: {pool.blocked[device.key]}"
    if not serves(device, request, gpus):
        if request.vram_mib > device.memory_mib:
            return f"has {gib(device.memory_mib)} of memory"
        if request.gpu_model.lower() not in device.model.lower():
            return f"is {device.model or 'of an unknown model'}"
        return f"is a group of {len(device.ids)}" if len(device.ids) > 1 else "does not suit"
    milli, mib = takes(device, request)
    if pool.has_room(device, milli, mib, seen_mib=request.vram_mib):
        return "has room"
    jobs = [j for j, a in state.attempts.items() if any(p.device == device.key for p in a.lease)]
    if milli > pool.free_milli(device):
        taken = f"taken by job {_names(jobs)}"
        return taken if jobs else "its GPUs are in use under another grouping"
    beside = f", beside job {_names(jobs)}" if jobs else ""
    return f"has {gib(_free_mib(state, device))} of memory free{beside}"


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
        return f"waits for job {before}, which is {place_of(state.jobs[before], attempt)}"
    return f"waits for {len(waited_for)} jobs: {_names(waited_for[:3])}{_and_more(waited_for)}"


def _active(state: State, job: JobId) -> str:
    attempt = state.attempts[job]
    where = ", ".join(state.pool.label(part.device) for part in attempt.lease)
    where = "on the CPU" if where == CPU_LANE else f"on GPU {where}"
    match attempt.phase:
        case Phase.STARTING:
            return f"starting {where}"
        case Phase.RUNNING:
            return f"running {where}"
        case Phase.STOPPING:
            return f"being stopped {where}"
        case Phase.FINISHING:
            return f"has ended {where}, which is being looked at"


def _capacity(state: State, job: Job, now_ms: int) -> str:
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
        return f"waits for {_what(request, gpus)}{_take_no_work(pool, blocked)}"
    if gpus != 0 and (turn := _turn(state, job, now_ms)):
        return turn
    return _room(state, job, usable) + _take_no_work(pool, blocked)


def _turn(state: State, job: Job, now_ms: int) -> str:
    """Somebody else who waits has used less."""
    shares, rank, kept = state.shares, rank_of(job), state.reservation
    if not shares or (kept is not None and kept.job == job.id):
        return ""
    mine = shares.share(job.uid, now_ms)
    for uid, first in state.ready.first_of_users(now_ms).items():
        if uid != job.uid and first[0] == rank[0] and shares.share(uid, now_ms) < mine:
            return f"waits for its turn: {state.gates.name(f'{USER}{uid}')} has used less"
    return ""


def _take_no_work(pool: Pool, devices: list[Device]) -> str:
    bad = [f"; GPU {d.label} takes no work: {pool.blocked[d.key]}" for d in devices]
    return "".join(bad[:3]) + (f"; and {len(bad) - 3} more" if len(bad) > 3 else "")


def _room(state: State, job: Job, usable: list[Device]) -> str:
    """What of these devices is free, and why that is not for this job."""
    pool, request = state.pool, resolved(state.pool, job.request)
    gpus, kept = pool.wanted(request), state.reservation
    which = _names(map(pool.label, kept.devices)) if kept is not None else ""
    if kept is not None and kept.job == job.id:
        return f"waits for {_what(request, gpus)}: GPU {which} is kept for it"
    if kept is not None and place(pool, request) is not None:
        return f"waits for its turn: GPU {which} is kept for job {kept.job}, which stands before it"
    if request.vram_mib > 0:
        most = max((_free_mib(state, d) for d in usable), default=0)
        if most < request.vram_mib:
            return f"waits for {gib(request.vram_mib)} of GPU memory: {gib(most)} is free at most"
    slots = sum(d.slots for d in usable)
    free = sum(pool.free_slots(d) for d in usable)
    kind = "CPU slot" if gpus == 0 else "slot"
    if request.share_milli:
        share = max((pool.free_milli(d) for d in usable), default=0) / FULL_MILLI
        return f"waits for {_what(request, gpus)}: {share:g} of one is free at most"
    if request.exclusive or (gpus is not None and gpus > 1):
        return f"waits for {_what(request, gpus)}: {free} of {slots} slots are free"
    if free:
        return f"waits for its turn: {free} of {slots} {kind}s are free"
    if slots > 1:
        return f"waits for a free {kind}: all {slots} are taken"
    return f"waits for the {kind}"


def _what(request: Request, gpus: int | None) -> str:
    if gpus is not None and gpus > 1:
        return f"{gpus} GPUs at once"
    if request.exclusive:
        return "a GPU to itself"
    if request.share_milli:
        return f"{request.share_milli / FULL_MILLI:g} of a GPU"
    if request.vram_mib > 0:
        return f"{gib(request.vram_mib)} of GPU memory"
    return "a slot"


def _free_mib(state: State, device: Device) -> int:
    free = state.pool.unpromised_mib(device)
    return max(0, min(free, state.pool.seen_free.get(device.key, free)))


def _names(keys: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, keys)))


def _and_more(jobs: list[JobId]) -> str:
    return f" and {len(jobs) - 3} more" if len(jobs) > 3 else ""


def _seconds(ms: int) -> str:
    seconds = max(0, -(-ms // 1000))
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
