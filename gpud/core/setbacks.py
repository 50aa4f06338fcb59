"""Ends that are no fault of the job, and what is made of them.

Called by core/attempts.py. A GPU that broke under an attempt is to blame for its bad end: the job
is tried again elsewhere and keeps its retries. So does a job whose end was lost with the runner or
the machine, where its policy retries that at all. A guest GPU that its owner wants back: a job that
can save its state does so and goes on elsewhere (core/stops.py); another one is tried again if it
has a retry policy, else it is held, since to run a command twice is for the job's owner to decide.
Out of GPU memory: a retry gets more of it.
"""

from __future__ import annotations

from msgspec import structs

from gpud.amounts import format_size
from gpud.core.model import FULL_MILLI, Attempt, Job, Outcome
from gpud.core.placement import can_be_counted_on
from gpud.core.state import State

MOST = 5  # so often a job is tried again for no fault of its own: its fault it may be after all
EXCUSED = (Outcome.FAILED, Outcome.KILLED, Outcome.LOST, Outcome.TIMED_OUT)
MORE_PER_CENT = 150  # of the memory that was not enough

STOPS = {
    "idle": "it did nothing on its GPUs and was stopped (pool.stop_idle)",
    "guest": "the owner of its guest GPU came back",
    "preempted": "it made room for an urgent job",
    "asked": "it was asked to save its state and leave",
}
OOM = {"cuda": "out of GPU memory", "host": "out of memory"}


def can_be_looked_at(state: State, attempt: Attempt) -> bool:
    """Whether a look can say anything about the GPUs of an attempt that ran and has ended."""
    if attempt.phase.value not in ("starting", "running", "paused"):
        return False
    return bool(state.uuids_of(attempt)) and not sick_gpu(state, attempt)


def was_looked_at(state: State, attempt: Attempt) -> bool:
    """A look at all its GPUs that are in the pool now began after its end, or the driver does not
    answer."""
    if state.health.problem:
        return True
    now = {uuid for device in state.pool.devices.values() for uuid in device.uuids}
    seen = [state.health.of(uuid).seen_at_ms for uuid in state.uuids_of(attempt) if uuid in now]
    return all(at_ms > attempt.ended_at_ms for at_ms in seen)


def sick_gpu(state: State, attempt: Attempt) -> str:
    """Why one of its GPUs is to blame, as a clause; "" when none is."""
    for uuid in state.uuids_of(attempt):
        gpu = state.health.gpus.get(uuid)
        quarantine = gpu.quarantine if gpu is not None else None
        if quarantine is None or quarantine.base_mib is not None:
            continue
        if quarantine.at_ms >= attempt.dispatched_at_ms:
            return f"its GPU is broken: {quarantine.why}"
    return ""


def is_excused(job: Job, outcome: Outcome, sick: str) -> bool:
    """Whether the job is tried again and keeps its retries. `sick`: why its GPU is to blame."""
    if job.setbacks >= MOST:
        return False
    # The runner died, or the machine: nothing that may have run is run twice unasked.
    retried = job.retry.retries > 0 and outcome in job.retry.on
    return bool(sick) or (outcome is Outcome.LOST and retried)


def leave_guest(state: State, job: Job) -> bool:
    """Whether it is tried again."""
    if job.retry.retries and job.setbacks < MOST:
        job.setbacks += 1
        state.requeue(job)
        return True
    state.hold(job, STOPS["guest"])
    return False


def with_more_memory(state: State, job: Job, attempt: Attempt) -> str:
    """The next attempt gets more of a GPU than this one, if there is more; says what."""
    request, had_mib = job.request, max((part.mib for part in attempt.lease), default=0)
    alone = all(part.milli == FULL_MILLI for part in attempt.lease)
    wanted = had_mib * MORE_PER_CENT // 100
    if (request.vram_mib or alone) and wanted and can_be_counted_on(state.pool, request, wanted):
        job.request = structs.replace(request, vram_mib=wanted, likeness="")
        told = f"{format_size(wanted)} of GPU memory"
    elif alone:
        return "nothing: it had its GPUs to itself"
    else:
        least = had_mib if request.vram_mib else 0  # not on a smaller GPU
        job.request = structs.replace(
            request, share_milli=0, vram_mib=least, exclusive=True, likeness=""
        )
        told = "a GPU to itself"
    job.grown = True
    return told
