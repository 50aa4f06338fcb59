"""The decisions: what a fact means for the jobs, and which job gets which slot next.

Theory of operation:

Rule 1: `handle` takes one event and changes the state; it never dispatches. `dispatch` pairs
    queued jobs with free slots; the engine calls it once per drained batch of events.
Rule 2: what they return is performed only after the commit of the changes. So the lease is taken
    here, where the decision is made, and nothing is asked of the world that is not written down.
Rule 3: `(job, attempt)` fences every fact. A fact about an attempt that is not live is stale:
    counted, and forgotten at the runner; it never changes a job.
Rule 4: level-triggered: nothing is started "because something ended". Free capacity and queued
    jobs are looked at afresh each time, in the total order of rank (-priority, place, id).
Rule 5: a job whose request does not fit now is passed by those behind it that do fit, but the first
    such job keeps what it needs (core/reservation.py): nobody waits for ever.
Rule 6: nothing is started on a GPU that can be looked at and was not looked at lately
    (core/watching.py).

Called by the engine, the simulator and the tests. Pure: time enters as `now_ms`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from heapq import heappop, heappush
from typing import assert_never

from gpud.core import (
    attempts,
    deadlines,
    dependencies,
    edits,
    order,
    reconcile,
    requests,
    running,
    sights,
    watching,
)
from gpud.core.actions import Action, StartAttempt
from gpud.core.events import (
    AttemptEnded,
    AttemptLingering,
    AttemptNotStarted,
    AttemptStarted,
    CancelRequested,
    CheckpointRequested,
    ContinueRequested,
    DevicesChanged,
    DrainRequested,
    EditRequested,
    EntriesRead,
    GpuBroke,
    GpusSeen,
    HealRequested,
    HoldRequested,
    JobsSubmitted,
    MoveRequested,
    PauseRequested,
    ReleaseRequested,
    RetryRequested,
    RunnerGone,
    RunnerReady,
    SourceSwitched,
    SwapRequested,
    Tick,
    UndrainRequested,
)
from gpud.core.model import Attempt, JobId, Phase, Request
from gpud.core.placement import most_mib, place, rule_of
from gpud.core.pool import Lease
from gpud.core.ready import ANY_MEMORY, Kind, is_ready
from gpud.core.reservation import NEVER, Reservation, reserve
from gpud.core.state import State

AnyEvent = (
    AttemptEnded
    | AttemptStarted
    | AttemptNotStarted
    | AttemptLingering
    | JobsSubmitted
    | EntriesRead
    | CancelRequested
    | RetryRequested
    | HoldRequested
    | ReleaseRequested
    | PauseRequested
    | ContinueRequested
    | CheckpointRequested
    | EditRequested
    | MoveRequested
    | SwapRequested
    | DrainRequested
    | UndrainRequested
    | SourceSwitched
    | DevicesChanged
    | RunnerReady
    | RunnerGone
    | GpusSeen
    | GpuBroke
    | HealRequested
    | Tick
)


GPUS, LANE = True, False  # for what a request can be meant


def step(state: State, events: Iterable[AnyEvent], now_ms: int) -> list[Action]:
    """Handle a drained batch, then dispatch once: what the engine does in a turn."""
    actions: list[Action] = []
    for event in events:
        actions += handle(state, event, now_ms)
    actions += dispatch(state, now_ms)
    return actions


def handle(state: State, event: AnyEvent, now_ms: int) -> Sequence[Action]:
    """What one fact changes. Raises ContradictionError for a bug, never for a stale fact."""
    actions = _handle(state, event, now_ms)
    if state.ended:
        dependencies.settle(state, now_ms)
    return actions


def _handle(state: State, event: AnyEvent, now_ms: int) -> Sequence[Action]:
    match event:
        case AttemptEnded():
            return attempts.on_attempt_ended(state, event, now_ms)
        case AttemptStarted():
            return attempts.on_attempt_started(state, event)
        case AttemptNotStarted():
            return attempts.on_attempt_not_started(state, event, now_ms)
        case AttemptLingering():
            return attempts.on_attempt_lingering(state, event)
        case JobsSubmitted():
            return requests.on_jobs_submitted(state, event, now_ms)
        case EntriesRead():
            return requests.on_entries_read(state, event, now_ms)
        case CancelRequested():
            return requests.on_cancel(state, event, now_ms)
        case RetryRequested():
            return requests.on_retry(state, event, now_ms)
        case HoldRequested():
            return requests.on_hold(state, event, now_ms)
        case ReleaseRequested():
            return requests.on_release(state, event, now_ms)
        case PauseRequested():
            return running.on_pause(state, event, now_ms)
        case ContinueRequested():
            return running.on_continue(state, event, now_ms)
        case CheckpointRequested():
            return running.on_checkpoint(state, event, now_ms)
        case EditRequested():
            return edits.on_edit(state, event, now_ms)
        case MoveRequested():
            return order.on_move(state, event, now_ms)
        case SwapRequested():
            return order.on_swap(state, event, now_ms)
        case DrainRequested():
            return requests.on_drain(state, event.request, True, now_ms)
        case UndrainRequested():
            return requests.on_drain(state, event.request, False, now_ms)
        case SourceSwitched():
            return requests.on_source_switched(state, event, now_ms)
        case DevicesChanged():
            state.pool.replace(event.devices, event.unknown)  # leases, and what is known, stay
            state.ready.resolve_all()
            state.health.policy = event.policy
            return attempts.finish_after_look(state, now_ms)  # of GPUs that nobody looks at now
        case RunnerReady():
            return reconcile.on_runner_ready(state, event, now_ms)
        case RunnerGone():
            state.runner_problem = event.why
            return ()
        case GpusSeen():
            return sights.on_gpus_seen(state, event, now_ms)
        case GpuBroke():
            return sights.on_gpu_broke(state, event, now_ms)
        case HealRequested():
            return sights.on_heal(state, event, now_ms)
        case Tick():
            return attempts.finish_after_look(state, now_ms)  # `dispatch` looks at what is due
        case _:
            assert_never(event)


def next_deadline(state: State) -> int | None:
    """When the state wants a Tick, in `now_ms` time, if nothing else happens."""
    return state.next_deadline_ms()


def dispatch(state: State, now_ms: int) -> list[Action]:
    """Pair queued jobs with free slots, in rank order, until nothing that waits fits."""
    deadlines.expire(state, now_ms)
    state.make_due(now_ms)
    if state.shortage.until_ms <= now_ms:
        state.shortage.until_ms = 0
    state.look_at_ms = 0
    if state.draining or state.runner_problem or state.shortage.until_ms:
        return []
    actions: list[Action] = []
    pool = state.pool
    ready = state.ready
    heads = ready.heads()
    if pool.watched:
        for_gpus = any(shelf.on_gpus for *_, shelf in heads)
        for_memory = any(shelf.names_memory for *_, shelf in heads)
        actions += watching.prepare(state, now_ms, for_gpus=for_gpus, for_memory=for_memory)
    before = _kept_before(state)
    kept: Reservation | None = None
    gap_s = 0
    full = {lane for lane in (GPUS, LANE) if pool.is_full(gpus=lane, but=())}
    if GPUS not in full:
        state.reservation = None
    least: dict[tuple[Kind, bool], int] = {}  # memory of those for which there was no room
    while heads and len(full) < 2:
        rank, mib, shelf = head = heappop(heads)
        lane, job_id = shelf.on_gpus, rank[-1]
        if lane in full:
            continue
        into_gap = 0 < shelf.within_s <= gap_s
        kind = (shelf.kind, into_gap)
        below = least.get(kind, ANY_MEMORY)
        if mib < below:
            request = ready.asks(head)
            avoid = kept.devices if kept is not None and not into_gap else ()
            lease = place(pool, request, avoid)
            if lease is not None:
                actions.append(_start(state, job_id, request, lease, now_ms))
                nobodys = kept.devices if kept is not None and not gap_s else ()
                if pool.is_full(gpus=lane, but=nobodys):
                    full.add(lane)
            else:
                if shelf.names_memory:
                    mib = min(mib, most_mib(pool, request, avoid) + 1)
                below = least[kind] = mib
                others_wait = bool(heads) or ready.first(shelf, below) is not None
                if kept is None and lane is GPUS and others_wait:
                    kept = state.reservation = reserve(
                        pool,
                        state.attempts.values(),
                        job_id,
                        request,
                        partial(end_ms, state, now_ms),
                        before.devices if before is not None and before.job == job_id else (),
                    )
                    gap_s = _gap_s(kept, now_ms)
        if (following := ready.first(shelf, below)) is not None:
            heappush(heads, following)
    return actions


def _kept_before(state: State) -> Reservation | None:
    """The last reservation, if its job still waits."""
    before = state.reservation
    if before is not None:
        job = state.jobs.get(before.job)
        if job is None or not is_ready(job):
            before = state.reservation = None
    return before


def _gap_s(kept: Reservation | None, now_ms: int) -> int:
    """For so long what is kept may be used by others; 0 where nobody knows."""
    if kept is None or kept.at_ms == NEVER:
        return 0
    return max(0, kept.at_ms - now_ms) // 1000


def _start(
    state: State, job_id: JobId, request: Request, lease: Lease, now_ms: int
) -> StartAttempt:
    rule = rule_of(state.pool, request, lease)
    job = state.jobs[job_id]
    if job.rest:
        job = state.split(job, JobId(job.rest[0][0]))
    attempt = state.activate(job, lease, now_ms)
    detail: dict[str, object] = {
        "lease": {state.pool.label(part.device): part.milli for part in lease}
    }
    if rule:
        detail["rule"] = rule
    state.tell(job.id, attempt.no, "dispatched", now_ms, **detail)
    return StartAttempt(job.id, attempt.no, lease, job.retry_args, job.resume)


def end_ms(state: State, now_ms: int, attempt: Attempt) -> int:
    """When its payload is gone at the latest, by its limit; NEVER where nobody knows."""
    within_s = state.jobs[attempt.job].within_s
    if not within_s or attempt.phase is Phase.PAUSED:
        return NEVER
    ran_from_ms = (attempt.started_at_ms or now_ms) + attempt.paused_ms
    return max(now_ms, ran_from_ms + 1000 * within_s)
