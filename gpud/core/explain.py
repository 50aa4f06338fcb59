"""Why a job waits, as a sentence. Pure; called by the control server for `why`, `ls` and `show`."""

from __future__ import annotations

from gpud.core.model import CPU_LANE, JobId, JobState, Phase
from gpud.core.state import State, is_ready


def explain(state: State, job: JobId, now_ms: int) -> str:
    """The first rule that keeps the job where it is; "" for a job that is not in memory (done)."""
    record = state.jobs.get(job)
    if record is None:
        return ""
    if record.state is JobState.HELD:
        return f"held: gpuctl release {job}"
    if record.state is JobState.ACTIVE:
        return _active(state, job)
    if state.runner_problem:
        return f"jobs cannot be started now: {state.runner_problem}"
    if impossible := state.pool.unsatisfiable(record.request):
        return impossible
    if record.not_before_ms:
        return (
            f"waits {_seconds(record.not_before_ms - now_ms)} more before retry "
            f"{record.retry_no} of {record.retry.retries}"
        )
    if state.shortage_until_ms:
        return f"waits {_seconds(state.shortage_until_ms - now_ms)} more: {state.shortage}"
    if state.draining:
        return "the pool is drained: gpuctl undrain"
    return _capacity(state, state.pool.wanted(record.request))


def ahead(state: State, job: JobId) -> int:
    """How many jobs that could start now stand before this one. Walks the queue: for one job."""
    record = state.jobs.get(job)
    if record is None or not is_ready(record):
        return 0
    rank = (-record.priority, job)
    return sum(1 for j in state.jobs.values() if is_ready(j) and (-j.priority, j.id) < rank)


def _active(state: State, job: JobId) -> str:
    attempt = state.attempts[job]
    where = ", ".join(part.device for part in attempt.lease)
    where = "on the CPU" if where == CPU_LANE else f"on GPU {where}"
    match attempt.phase:
        case Phase.STARTING:
            return f"starting {where}"
        case Phase.RUNNING:
            return f"running {where}"
        case Phase.STOPPING:
            return f"being stopped {where}"


def _capacity(state: State, gpus: int | None) -> str:
    lanes = [d for d in state.pool.devices.values() if (d.key == CPU_LANE) == (gpus == 0)]
    if gpus == 1:
        lanes = [d for d in lanes if len(d.ids) == 1]
    slots = sum(d.slots for d in lanes)
    free = sum(state.pool.free_milli(d) // d.slot_milli for d in lanes)
    kind = "CPU slot" if gpus == 0 else "slot"
    if gpus is not None and gpus > 1:
        return f"waits for {gpus} GPUs at once: {free} of {slots} slots are free"
    if free:
        return f"waits for its turn: {free} of {slots} {kind}s are free"
    return (
        f"waits for a free {kind}: all {slots} are taken" if slots > 1 else f"waits for the {kind}"
    )


def _seconds(ms: int) -> str:
    seconds = max(0, -(-ms // 1000))
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
