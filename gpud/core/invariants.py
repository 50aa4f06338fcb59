"""What is true between any two events. Public: tests call it after every step, the daemon at load,
when idle, and in each turn for the jobs that the turn touched.
"""

from __future__ import annotations

from collections.abc import Iterable

from gpud.core.circles import in_circles
from gpud.core.lifecycle import ContradictionError
from gpud.core.links import edges, is_met
from gpud.core.model import CPU_LANE, FULL_MILLI, Attempt, Job, JobId, JobState, Phase
from gpud.core.ready import is_ready, rank_of
from gpud.core.shape import shape_of
from gpud.core.state import State


def check_invariants(state: State, jobs: Iterable[JobId] | None = None) -> None:
    """Raises ContradictionError at the first thing that is not so.

    With `jobs`, only those jobs and the capacity are looked at; without, everything.
    """
    _check_capacity(state)
    for job_id in list(state.jobs) if jobs is None else jobs:
        job, attempt = state.jobs.get(job_id), state.attempts.get(job_id)
        if job is not None:
            _check_job(state, job_id, job, attempt)
        elif attempt is not None:
            raise ContradictionError(f"job {job_id} is done and has a live attempt")
    if jobs is None:
        _check_indices(state)


def _check_capacity(state: State) -> None:
    leased: dict[str, int] = {}
    promised: dict[str, int] = {}
    for job_id, attempt in state.attempts.items():
        lease = attempt.lease
        if attempt.job != job_id:
            raise ContradictionError(f"attempt {attempt} stands under job {job_id}")
        if not lease:
            raise ContradictionError(f"attempt {attempt} is live without a lease")
        if len(lease) > 1 and len({part.device for part in lease}) != len(lease):
            raise ContradictionError(f"{attempt} leases a device twice")
        for part in lease:
            leased[part.device] = leased.get(part.device, 0) + part.milli
            if part.mib:
                promised[part.device] = promised.get(part.device, 0) + part.mib
    if promised != state.pool.promised:
        raise ContradictionError(f"the pool counts {state.pool.promised} MiB, leases {promised}")
    if leased != state.pool.leased:
        raise ContradictionError(f"the pool counts {state.pool.leased}, leases {leased}")
    _check_gpus(state)
    by_gpu: dict[str, int] = {}
    for device, milli in leased.items():
        if device in state.pool.devices and milli > FULL_MILLI:
            raise ContradictionError(f"device {device} is leased to {milli} thousandths")
        for gpu in device.split(",") if device != CPU_LANE else ():
            by_gpu[gpu] = by_gpu.get(gpu, 0) + milli
    for gpu, milli in by_gpu.items():
        if milli > FULL_MILLI:
            raise ContradictionError(f"GPU {gpu} is leased to {milli} thousandths")


def _check_gpus(state: State) -> None:
    """Of what was leased, whatever it was called then."""
    taken: dict[str, int] = {}
    for attempt in state.attempts.values():
        for part in attempt.lease:
            for uuid in part.uuids:
                taken[uuid] = taken.get(uuid, 0) + part.milli
    for uuid, milli in taken.items():
        if milli > FULL_MILLI:
            raise ContradictionError(f"GPU {uuid} is leased to {milli} thousandths")


def _check_job(state: State, job_id: JobId, job: Job, attempt: Attempt | None) -> None:
    if not job.id == job_id < state.next_id:
        raise ContradictionError(f"job {job} stands under id {job_id}")
    if (job_id < 0) != bool(job.rest):
        raise ContradictionError(f"job {job} stands for many, or for none")
    if job.rest and (job.attempt or job.state is JobState.ACTIVE or job.id != -job.array):
        raise ContradictionError(f"{job} stands for jobs that are not as they were submitted")
    if job_id > 0 and state.many_with(job_id) is not None:
        raise ContradictionError(f"job {job_id} has two records")
    if job.array and state.numbering.array_of(job.array) is None:
        raise ContradictionError(f"{job} is of an array that is not known")
    if job.state is JobState.DONE:
        raise ContradictionError(f"job {job_id} is done and still in memory")
    if job.state is JobState.ACTIVE:
        if attempt is None:
            raise ContradictionError(f"job {job_id} is active without an attempt")
        if attempt.no != job.attempt:
            raise ContradictionError(f"{job} has the attempt {attempt}")
        if attempt.outcome is not None:
            raise ContradictionError(f"{attempt} is live and has an outcome")
        if (attempt.phase is Phase.PAUSED) != bool(attempt.paused_at_ms):
            raise ContradictionError(f"{attempt} is {attempt.phase}, and when was it paused?")
        if attempt.leaving and (attempt.phase is not Phase.STOPPING or not job.checkpoint):
            raise ContradictionError(f"{attempt} is to save its state, {attempt.phase} and {job}")
    elif attempt is not None:
        raise ContradictionError(f"job {job_id} is {job.state} and has the attempt {attempt}")
    if job.outcome is not None:
        raise ContradictionError(f"job {job_id} is {job.state} and has the outcome {job.outcome}")
    if not 0 <= job.retries_left <= job.retry.retries:
        raise ContradictionError(f"{job} has impossible retries")
    if job.place >= state.next_id:
        raise ContradictionError(f"{job} stands behind what is submitted later")


def _check_links(state: State) -> None:
    links = state.links
    known = {(b, (job, ended)) for b, edges_ in links.dependents.items() for job, ended in edges_}
    wanted = set()
    for job in state.jobs.values():
        unmet = 0
        for before, ended in edges(job):
            wanted.add((before, (job.id, ended)))
            outcome = links.outcomes.get(before)
            if (outcome is None) != (state.find(before) is not None):
                raise ContradictionError(f"job {before}: {outcome}, as job {job.id} sees it")
            unmet += not is_met(outcome, ended)
        if job.unmet != unmet:
            raise ContradictionError(f"{job} waits for {unmet} others")
    if known != wanted:
        raise ContradictionError(f"links that are wrong: {known ^ wanted}")
    if circle := in_circles(state.jobs):
        raise ContradictionError(f"these wait for one another: {circle}")
    if not links.outcomes.keys() <= links.dependents.keys():
        raise ContradictionError("outcomes are kept that nobody asks for")
    if state.ended:
        raise ContradictionError(f"nobody has looked at the ends of {state.ended}")


def _check_indices(state: State) -> None:
    _check_links(state)
    if not state.attempts.keys() <= state.jobs.keys():
        raise ContradictionError("an attempt of no known job is live")
    delayed, expiring = state.delayed.entries(), state.expiring.entries()
    waiting = state.ready.waiting()
    for job in state.jobs.values():
        last_ms, waits = job.last_start_ms, job.state is not JobState.ACTIVE
        if waits and last_ms and (last_ms, job.id) not in expiring:
            raise ContradictionError(f"job {job.id} has a deadline, and nobody minds it")
        if is_ready(job):
            if (shape_of(job), rank_of(job)) not in waiting:
                raise ContradictionError(f"job {job.id} waits, and will not be offered capacity")
        elif (
            job.state is JobState.QUEUED
            and job.not_before_ms
            and (job.not_before_ms, job.id) not in delayed
        ):
            raise ContradictionError(f"job {job.id} is delayed, but not in the queue of delays")
