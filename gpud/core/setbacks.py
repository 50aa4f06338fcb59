"""Ends that are no fault of the job, and what is made of them.

Called by core/attempts.py. A GPU that broke under an attempt is to blame for its bad end: the job
is tried again elsewhere and keeps its retries. So does a job whose end was lost with the runner or
the machine, where its policy retries that at all. A guest GPU that its owner wants back: the job is
tried again if it has a retry policy, else it is held, since to run a command twice is for the job's
owner to decide. Out of GPU memory: a retry gets more of it.
"""

from __future__ import annotations

from msgspec import structs

from gpud.core.model import AUTO_VRAM, FULL_MILLI, Attempt, Job, Outcome, Request
from gpud.core.placement import unsatisfiable
from gpud.core.sight import gib
from gpud.core.state import State

MOST = 5  # so often a job is tried again for no fault of its own: its fault it may be after all
EXCUSED = (Outcome.FAILED, Outcome.KILLED, Outcome.LOST)
MORE_PER_CENT = 150  # of the memory that was not enough

STOPS = {
    "idle": "it did nothing on its GPUs and was stopped (pool.stop_idle)",
    "guest": "the owner of its guest GPU came back",
}
OOM = {"cuda": "out of GPU memory", "host": "out of memory"}


def can_be_looked_at(state: State, attempt: Attempt) -> bool:
    """Whether a look can say anything about the GPUs of an attempt that ran and has ended."""
    if attempt.phase.value not in ("starting", "running"):
        return False
    return bool(state.uuids_of(attempt)) and not sick_gpu(state, attempt)


def was_looked_at(state: State, attempt: Attempt) -> bool:
    """A look at all its GPUs began after its end, or the driver does not answer."""
    if state.health.problem:
        return True
    seen = [state.health.of(uuid).seen_at_ms for uuid in state.uuids_of(attempt)]
    return all(at_ms > attempt.ended_at_ms for at_ms in seen)


def sick_gpu(state: State, attempt: Attempt) -> str:
    """Why one of its GPUs is to blame, as a clause; "" when none is."""
    known = state.pool.devices
    left = [part.device for part in attempt.lease if part.device not in known]  # maybe its UUID
    for uuid in (*state.uuids_of(attempt), *left):
        gpu = state.health.gpus.get(uuid)
        quarantine = gpu.quarantine if gpu is not None else None
        if quarantine is not None and quarantine.at_ms >= attempt.dispatched_at_ms:
            return f"its GPU is broken: {quarantine.why}"
    return ""


def is_excused(job: Job, outcome: Outcome, sick: str) -> bool:
    """Whether the job is tried again and keeps its retries. `sick`: why its GPU is to blame."""
    if job.setbacks >= MOST:
        return False
    # The runner died, or the machine: nothing that may have run is run twice unasked.
    retried = job.retry.retries > 0 and outcome in job.retry.on
    return bool(sick) or (outcome is Outcome.LOST and retried)


def leave_guest(state: State, job: Job, now_ms: int) -> None:
    if job.retry.retries and job.setbacks < MOST:
        job.setbacks += 1
        state.requeue(job)
    else:
        state.hold(job)


def with_more_memory(state: State, job: Job, attempt: Attempt) -> str:
    """The next attempt gets more of a GPU than this one, if there is more; says what."""
    request = job.request
    if request.exclusive or (
        not request.vram_mib and all(part.milli == FULL_MILLI for part in attempt.lease)
    ):
        return "nothing: it had its GPUs to itself"
    more = _more(state, request, max((part.mib for part in attempt.lease), default=0))
    job.request, job.grown = more, True
    return f"{gib(more.vram_mib)} of GPU memory" if more.vram_mib > 0 else "a GPU to itself"


def _more(state: State, request: Request, had_mib: int) -> Request:
    wanted = had_mib * MORE_PER_CENT // 100
    if request.vram_mib and request.vram_mib != AUTO_VRAM and wanted > 0:
        more = structs.replace(request, vram_mib=wanted)
        if not unsatisfiable(state.pool, more):
            return more
    return structs.replace(request, share_milli=0, vram_mib=0, exclusive=True)
