"""The decisions: what a fact means for the jobs, and which job gets which slot next.

Theory of operation:

Rule 1: `handle` takes one event and changes the state; it never dispatches. `dispatch` pairs
    queued jobs with free slots; the engine calls it once per drained batch of events.
Rule 2: what they return is performed only after the commit of the changes. So the lease is taken
    here, where the decision is made, and nothing is asked of the world that is not written down.
Rule 3: `(job, attempt)` fences every fact. A fact about an attempt that is not live is stale:
    counted, and forgotten at the runner; it never changes a job.
Rule 4: level-triggered: nothing is started "because something ended". Free capacity and queued
    jobs are looked at afresh each time, in the total order of rank (-priority, id).
Rule 5: a job whose request does not fit now is passed by those behind it that do fit.

Called by the engine, the simulator and the tests. Pure: time enters as `now_ms`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_never

from gpud.core import attempts, reconcile, requests
from gpud.core.actions import Action, StartAttempt
from gpud.core.events import (
    AttemptEnded,
    AttemptLingering,
    AttemptNotStarted,
    AttemptStarted,
    CancelRequested,
    DevicesChanged,
    DrainRequested,
    EntriesRead,
    HoldRequested,
    JobsSubmitted,
    ReleaseRequested,
    RetryRequested,
    RunnerGone,
    RunnerReady,
    SourceSwitched,
    Tick,
    UndrainRequested,
)
from gpud.core.model import Request
from gpud.core.state import Rank, State

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
    | DrainRequested
    | UndrainRequested
    | SourceSwitched
    | DevicesChanged
    | RunnerReady
    | RunnerGone
    | Tick
)


def step(state: State, events: Iterable[AnyEvent], now_ms: int) -> list[Action]:
    """Handle a drained batch, then dispatch once: what the engine does in a turn."""
    actions: list[Action] = []
    for event in events:
        actions += handle(state, event, now_ms)
    actions += dispatch(state, now_ms)
    return actions


def handle(state: State, event: AnyEvent, now_ms: int) -> Sequence[Action]:
    """What one fact changes. Raises ContradictionError for a bug, never for a stale fact."""
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
        case DrainRequested():
            return requests.on_drain(state, event.request, True, now_ms)
        case UndrainRequested():
            return requests.on_drain(state, event.request, False, now_ms)
        case SourceSwitched():
            return requests.on_source_switched(state, event, now_ms)
        case DevicesChanged():
            state.pool.replace(event.devices)
            return ()
        case RunnerReady():
            return reconcile.on_runner_ready(state, event, now_ms)
        case RunnerGone():
            state.runner_problem = event.why
            return ()
        case Tick():
            return ()  # `dispatch` looks at what is due
        case _:
            assert_never(event)


def next_deadline(state: State) -> int | None:
    """When the state wants a Tick, in `now_ms` time, if nothing else happens."""
    return state.next_deadline_ms()


def dispatch(state: State, now_ms: int) -> list[Action]:
    """Pair queued jobs with free slots, in rank order, until nothing that waits fits."""
    state.make_due(now_ms)
    actions: list[Action] = []
    if state.shortage_until_ms <= now_ms:
        state.shortage_until_ms = 0
    if state.draining or state.runner_problem or state.shortage_until_ms:
        return actions
    shapes = set(state.ready)
    while shapes:
        best: tuple[Rank, Request] | None = None
        for request in tuple(shapes):
            head = state.ready_head(request)
            if head is None:
                shapes.discard(request)
                if not state.ready[request]:
                    del state.ready[request]
            elif best is None or head < best[0]:
                best = (head, request)
        if best is None:
            break
        (_, job_id), request = best
        lease = state.pool.place(request)
        if lease is None:
            shapes.discard(request)
            continue
        attempt = state.activate(state.jobs[job_id], lease, now_ms)
        state.tell(
            job_id,
            attempt.no,
            "dispatched",
            now_ms,
            lease={part.device: part.milli for part in lease},
        )
        actions.append(StartAttempt(job_id, attempt.no, lease))
    return actions
