"""What must hold of each dispatch: who starts, on what, and who is right to wait.

Called by tests/core/turns.py after each dispatch. Counts afresh: capacity (capacity.py), what may
be used (watch.py), and what is kept for the first job that does not fit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec import structs

from gpud.amounts import URGENT
from gpud.core.actions import StartAttempt
from gpud.core.model import Attempt, Job, JobId, Request
from gpud.core.reservation import NEVER, Reservation
from gpud.core.state import State

from .afters import Afters
from .capacity import Free
from .holds import Holds, is_open, rule_of
from .promises import Ledger, last_start_of
from .watch import Watch, holders_of


class Before:
    """The state as it was before a dispatch, as far as that is needed."""

    def __init__(
        self, state: State, watch: Watch, now_ms: int, afters: Afters, holds: Holds
    ) -> None:
        self.now_ms = now_ms
        self.holds = holds
        self.shares = holds.shares()
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
    waiting = dict(before.due)
    check_starts(before, state, ledger, free, kept, starts, waiting)
    check_passed(before, state, free, kept, starts)
    assert all(state.attempts[start.job].boot_id == boot_id for start in starts)


def check_starts(
    before: Before,
    state: State,
    ledger: Ledger,
    free: Free,
    kept: Reservation | None,
    starts: Sequence[StartAttempt],
    waiting: dict[JobId, Job],
) -> None:
    """In order; nobody is passed who could have started; what is left does not fit, or stands at a
    gate. Takes who starts out of `waiting`."""
    first, holds = state.jobs[kept.job] if kept is not None else None, before.holds

    claiming = [*state.claims]

    def is_before(one: Job, other: Job) -> bool:
        lane = free.is_for_cpu(free.asked(one.request))
        if lane != free.is_for_cpu(free.asked(other.request)):
            return False  # they are not in each other's way
        return holds.is_before(one, other, lane=lane)

    def stands_before_first(job: Job) -> bool:
        """Also when that was found to have no room, before its user had others started."""
        return is_before(job, first) and holds.was_before(
            job, first, holds.shares(), before.shares, lane=False
        )

    def may_start(job: Job) -> bool:
        others = claimed_by_others(state, job)
        if kept is None or first is None or job is first or stands_before_first(job):
            return not holds.closed(job.id, claiming) and free.fits(job.request, but=others)
        if holds.closed(job.id, [*claiming, first.id]):
            return False
        in_gap = ends_in_time(job, before.now_ms, kept)
        return free.fits(job.request, but=others if in_gap else kept.devices | others)

    for start in starts:
        job = waiting.pop(start.job)
        ahead = [first.id] if first is not None and is_before(first, job) else []
        assert not holds.closed(job.id, ahead), f"{job} starts through {holds.closed(job.id)}"
        assert job.id not in ledger.held, f"{job} is held and starts"
        check_time(before, job)
        assert job.id not in ledger.waiting_cancelled, f"{job} is cancelled and starts"
        for other in waiting.values():
            if is_before(other, job):
                assert not may_start(other), f"{job} starts before {other}"
        free.check_lease(job.request, start.lease)
        taken = claimed_by_others(state, job) & {part.device for part in start.lease}
        assert not taken or job.priority >= URGENT, f"{job} takes {taken}: {state.claims}"
        if kept is not None and first is not None and is_before(first, job):
            taken = kept.devices & {part.device for part in start.lease}
            late = not ends_in_time(job, before.now_ms, kept)
            assert not (taken and late), f"{job} takes {taken}, which is kept: {kept}"
        free.take(start.lease)
        holds.start(state.attempts[job.id])
    for job in waiting.values():
        assert not may_start(job), f"{job} fits and waits"


def kind(request: Request) -> tuple[object, ...]:
    """For jobs like one that claims something nothing is kept (core/preemption.py, rule 3)."""
    return *structs.astuple(structs.replace(request, vram_mib=0, likeness="")), request.vram_mib > 0


def claimed_by_others(state: State, job: Job) -> frozenset[str]:
    return frozenset[str]().union(
        *(d for other, each in state.claims.items() if other != job.id for d in each)
    )


def check_preempted(
    before: Before, state: State, ledger: Ledger, asked: Collection[tuple[JobId, int]]
) -> None:
    """Only those are asked to leave who can save their state, and only for urgent jobs."""
    for job_id in state.claims:
        job = state.jobs[job_id]
        assert job.priority >= URGENT, f"{job} claims something"
        assert job_id in before.due, f"{job} claims something"
    assert state.claims or not asked, f"{asked} are asked for nobody"
    for key in asked:
        job = state.jobs[key[0]]
        assert key not in {*ledger.stopped, *ledger.cancelled}, f"{key} leaves already"
        assert key not in ledger.older, f"the runner of {key} cannot do that"
        assert job.checkpoint, f"{job} cannot save its state"
        assert job.priority < URGENT, f"{job} is urgent, too"


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
    assert not before.holds.closed(job.id) or job.id in state.attempts, f"{kept} behind a gate"
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
        unknown = job.priority >= URGENT and kept.at_ms == NEVER  # it was kept before some starts
        assert unknown or kept.at_ms == at_ms, f"{kept}, and there is room at {at_ms}"


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
    holds, after = before.holds, before.holds.shares()
    claiming = {kind(free.asked(state.jobs[job].request)) for job in state.claims}
    for other in before.due.values():
        passed = any(
            holds.was_before(other, job, after, before.shares, lane=False) for job in later
        )
        if not passed or other.id in state.attempts or holds.closed(other.id, [*state.claims]):
            continue
        asked = free.asked(other.request)
        if kind(asked) in claiming:
            continue
        others = claimed_by_others(state, other)
        suited = [d for d in free.suited(asked) if d.key not in others]
        counted_on = [d for d in suited if state.pool.may_be_counted_on(d)]
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
        holds = before.holds
        for gate in device.gates:
            rule = rule_of(gate, holds.rules, ledger)
            if not is_open(gate, rule, holds.told, before.now_ms):
                found.add("a window")
        for uuid in device.uuids:
            holders: Collection[tuple[JobId, int]] = before.holders.get(uuid, ())
            found |= watch.faults(uuid, policy, holders, before.now_ms)
            if uuid in ledger.quarantined:
                found.add("quarantine")
        if free.milli_left(device) == 0:
            found -= {"unseen", "old news"}
            continue
        if "a window" in found:
            found -= {"unseen", "old news"}
        said = state.pool.blocked.get(key, "")
        assert bool(said) == bool(found), f'{device} is blocked by "{said}", looks say {found}'
