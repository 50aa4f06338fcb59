"""The decisions: what a fact means for the jobs. Which job gets which slot next is decided in
core/dispatching.py.

Theory of operation:

Rule 1: `handle` takes one event and changes the state; it never dispatches. `dispatch` pairs
    queued jobs with free slots; the engine calls it once per drained batch of events.
Rule 2: what they return is performed only after the commit of the changes. So the lease is taken
    here, where the decision is made, and nothing is asked of the world that is not written down.
Rule 3: `(job, attempt)` fences every fact. A fact about an attempt that is not live is stale:
    counted, and forgotten at the runner; it never changes a job.

Called by the engine, the simulator and the tests. Pure: time enters as `now_ms`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_never

from gpud.core import (
    attempts,
    dependencies,
    dispatching,
    edits,
    gating,
    order,
    reconcile,
    requests,
    running,
    sights,
)
from gpud.core.actions import Action
from gpud.core.events import (
    AttemptEnded,
    AttemptLingering,
    AttemptNotStarted,
    AttemptStarted,
    CancelRequested,
    CheckpointRequested,
    ContinueRequested,
    DevicesChanged,
    DiskFull,
    DrainRequested,
    EditRequested,
    EntriesRead,
    GateRequested,
    GpuBroke,
    GpusSeen,
    HealRequested,
    HoldRequested,
    JobsSubmitted,
    LogCut,
    LogTooLarge,
    MoveRequested,
    PauseRequested,
    ReleaseRequested,
    RetryRequested,
    RulesChanged,
    RunnerGone,
    RunnerReady,
    SourceSwitched,
    SwapRequested,
    Tick,
    UndrainRequested,
    WindowsTurned,
)
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
    | LogCut
    | LogTooLarge
    | DiskFull
    | GpusSeen
    | GpuBroke
    | HealRequested
    | RulesChanged
    | WindowsTurned
    | GateRequested
    | Tick
)


def step(state: State, events: Iterable[AnyEvent], now_ms: int) -> list[Action]:
    """Handle a drained batch, then dispatch once: what the engine does in a turn."""
    actions: list[Action] = []
    for event in events:
        actions += handle(state, event, now_ms)
    actions += dispatching.dispatch(state, now_ms)
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
        case LogCut():
            state.tell(event.job, event.attempt, "log-cut", now_ms, bytes=event.bytes)
            return ()
        case LogTooLarge():
            told = {"bytes": event.bytes, "why": event.why}
            state.tell(event.job, event.attempt, "log-too-large", now_ms, **told)
            return ()
        case DiskFull():
            state.shortage.begin(event.why, now_ms, failed=False)
            return ()
        case GpusSeen():
            return sights.on_gpus_seen(state, event, now_ms)
        case GpuBroke():
            return sights.on_gpu_broke(state, event, now_ms)
        case HealRequested():
            return sights.on_heal(state, event, now_ms)
        case RulesChanged():
            return gating.on_rules_changed(state, event, now_ms)
        case WindowsTurned():
            return gating.on_windows_turned(state, event)
        case GateRequested():
            return gating.on_gate_requested(state, event)
        case Tick():
            return attempts.finish_after_look(state, now_ms)  # `dispatch` looks at what is due
        case _:
            assert_never(event)


def next_deadline(state: State) -> int | None:
    """When the state wants a Tick, in `now_ms` time, if nothing else happens."""
    return state.next_deadline_ms()
