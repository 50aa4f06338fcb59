"""What must hold of each dispatch: who starts, on what, and who is right to wait.

Called by tests/core/turns.py after each dispatch. Counts afresh: capacity (capacity.py), what may
be used (watch.py), and what is kept for the first job that does not fit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gpud.core.actions import StartAttempt
from gpud.core.model import Attempt, Job, JobId
from gpud.core.reservation import NEVER, Reservation
from gpud.core.state import State

from .afters import Afters
from .capacity import Free
from .edited import rank
from .promises import Ledger, last_start_of
from .watch import Watch, holders_of


class Before:
    """The state as it was before a dispatch, as far as that is needed."""

    def __init__(self, state: State, watch: Watch, now_ms: int, afters: Afters) -> None:
        self.now_ms = now_ms
        jobs = [job for job in state.jobs.values() if job.state == "queued"]
        due = [job for job in jobs if job.not_before_ms <= now_ms]
        self.due = {job.id: job for job in due if not afters.waits(job.id)}
        self.attempts = list(state.attempts.values())
        self.kept = state.reservation
        self.holders = holders_of(state)
        self.seen_mib = watch.seen_free_mib(state)
        self.specs = afters.specs


def check_dispatch(
    before: Before,
    state: State,
    ledger: Ledger,
    watch: Watch,
    boot_id: str,
    starts: Sequence[StartAttempt],
) -> None:
    if ledger.draining or not ledger.runner_ready:
        assert not starts, f"{starts} while drained or without a runner"
        return
    if state.shortage.until_ms:
        assert not starts, f"{starts} while the machine is short of something"
        return
    pool = state.pool
    leases = [attempt.lease for attempt in before.attempts]
    free = Free(pool.devices.values(), leases, pool.blocked, before.seen_mib, pool.usual_mib)
    check_blocked(before, state, ledger, watch, free)
    kept = state.reservation
    if kept is not None and not any(d.ids and free.is_open(d) for d in free.devices.values()):
        kept = None  # nothing is decided by it, and it may be of an earlier dispatch
    if kept is not None:
        check_reservation(before, state, free, kept, ledger)
    check_passed(before, state, free, kept, starts)
    check_starts(before, state, ledger, free, kept, starts)
    assert all(state.attempts[start.job].boot_id == boot_id for start in starts)


def check_starts(
    before: Before,
    state: State,
    ledger: Ledger,
    free: Free,
    kept: Reservation | None,
    starts: Sequence[StartAttempt],
) -> None:
    """In rank order; nobody is passed who could have started; what is left does not fit."""
    waiting = dict(before.due)
    first = state.jobs[kept.job] if kept is not None else None

    def may_start(job: Job) -> bool:
        if kept is None or first is None or rank(job) <= rank(first):
            return free.fits(job.request)
        in_gap = ends_in_time(job, before.now_ms, kept)
        return free.fits(job.request, but=() if in_gap else kept.devices)

    for start in starts:
        job = waiting.pop(start.job)
        assert job.id not in ledger.held, f"{job} is held and starts"
        check_time(before, job)
        assert job.id not in ledger.waiting_cancelled, f"{job} is cancelled and starts"
        for other in waiting.values():
            if rank(other) < rank(job):
                assert not may_start(other), f"{job} starts before {other}"
        free.check_lease(job.request, start.lease)
        if kept is not None and first is not None and rank(job) > rank(first):
            taken = kept.devices & {part.device for part in start.lease}
            late = not ends_in_time(job, before.now_ms, kept)
            assert not (taken and late), f"{job} takes {taken}, which is kept: {kept}"
        free.take(start.lease)
    for job in waiting.values():
        assert not may_start(job), f"{job} fits and waits"


def check_time(before: Before, job: Job) -> None:
    spec = before.specs[job.id]
    last = last_start_of(spec)
    assert not last or before.now_ms <= last, f"{job} starts too late: {last}"
    assert job.attempt > 1 or before.now_ms >= spec.begin_ms, f"{job} starts before {spec.begin_ms}"


def ends_in_time(job: Job, now_ms: int, kept: Reservation) -> bool:
    """By a bound that is rounded up to four steps per doubling (core/shape.py)."""
    step = 1
    while job.within_s > 8 * step:
        step *= 2
    bound_s = -(-job.within_s // step) * step
    return bound_s > 0 and kept.at_ms != NEVER and now_ms + 1000 * bound_s <= kept.at_ms


def check_reservation(
    before: Before, state: State, free: Free, kept: Reservation, ledger: Ledger
) -> None:
    """It is for the first that waits and can be served by ends alone; it is as much as that job
    needs, and there by the time that is said."""
    job = state.jobs[kept.job]
    assert job.id in before.due, f"{kept} for a job that does not wait"
    request = free.asked(job.request)
    devices = [free.devices[key] for key in kept.devices]
    suited = {device.key for device in free.suited(request)}
    assert kept.devices <= suited, f"{kept} keeps what does not suit {request}"
    assert free.is_enough(request, devices), f"{kept} is less than {request}"
    gpus = sum(len(device.ids) for device in devices)
    assert request.gpus is None or gpus == request.gpus, f"{kept} is more than {request}"
    for key in kept.devices:
        assert state.pool.may_be_counted_on(free.devices[key]), f"{kept} counts on {key}"
    if not state.pool.watched or not request.vram_mib:  # else a look may have found less memory
        at_ms = max(room_at_ms(before, state, key, free, job, ledger) for key in kept.devices)
        assert kept.at_ms == at_ms, f"{kept}, and there is room at {at_ms}"


def check_passed(
    before: Before,
    state: State,
    free: Free,
    kept: Reservation | None,
    starts: Sequence[StartAttempt],
) -> None:
    """Before anybody later gets anything, something is kept for the first whom waiting helps."""
    started = [state.jobs[start.job] for start in starts]
    later = [job for job in started if not free.is_for_cpu(free.asked(job.request))]
    later = [state.jobs[kept.job]] if kept is not None else later
    last = max(map(rank, later), default=None)
    for other in before.due.values():
        if last is None or rank(other) >= last or other.id in state.attempts:
            continue
        asked = free.asked(other.request)
        counted_on = [d for d in free.suited(asked) if state.pool.may_be_counted_on(d)]
        if free.is_for_cpu(asked) or (state.pool.watched and asked.vram_mib):
            continue
        assert not free.is_enough(asked, counted_on), f"{later} pass {other}, with {kept}"


def room_at_ms(before: Before, state: State, key: str, free: Free, job: Job, ledger: Ledger) -> int:
    """By the limits of the attempts there, one after the other gone."""
    device = free.devices[key]
    live = state.attempts.values()
    held = [a for a in live if any(part.device == key for part in a.lease)]
    others = [attempt for attempt in live if attempt not in held]
    held.sort(key=lambda a: end_ms(a, state, before.now_ms, ledger))
    at_ms = 0
    while True:
        leases = [attempt.lease for attempt in (*others, *held)]
        rest = Free(free.devices.values(), leases, usual_mib=free.usual_mib)
        if rest.has_room(device, rest.asked(job.request)):
            return at_ms
        if not held:
            return NEVER
        at_ms = end_ms(held.pop(0), state, before.now_ms, ledger)


def end_ms(attempt: Attempt, state: State, now_ms: int, ledger: Ledger) -> int:
    """Of a paused one nobody knows; how long it was paused before does not count."""
    key = attempt.job, attempt.no
    within_s = state.jobs[attempt.job].within_s
    if not within_s or key in ledger.paused:
        return NEVER
    lasts_ms = 1000 * within_s + ledger.paused_ms.get(key, 0)
    return max(now_ms, (attempt.started_at_ms or now_ms) + lasts_ms)


def check_blocked(before: Before, state: State, ledger: Ledger, watch: Watch, free: Free) -> None:
    """What the core takes out of use is exactly what looks speak against. Of a device without room
    it need not say that nobody has looked."""
    policy = state.health.policy
    for key, device in state.pool.devices.items():
        found: set[str] = {"the driver"} if device.problem else set()
        for uuid in device.uuids:
            holders: Collection[tuple[JobId, int]] = before.holders.get(uuid, ())
            found |= watch.faults(uuid, policy, holders, before.now_ms)
            if uuid in ledger.quarantined:
                found.add("quarantine")
        if free.milli_left(device) == 0:
            found -= {"unseen", "old news"}
            continue
        said = state.pool.blocked.get(key, "")
        assert bool(said) == bool(found), f'{device} is blocked by "{said}", looks say {found}'
