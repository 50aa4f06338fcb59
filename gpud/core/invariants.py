"""What is true between any two events. Public: tests call it after every step, the daemon at load,
when idle, and after each turn for the jobs that the turn touched.
"""

from __future__ import annotations

from collections.abc import Iterable

from gpud.core.lifecycle import ContradictionError
from gpud.core.model import FULL_MILLI, Job, JobId, JobState
from gpud.core.state import State, is_ready


def check_invariants(state: State, jobs: Iterable[JobId] | None = None) -> None:
    """Raises ContradictionError at the first thing that is not so.

    With `jobs`, only those jobs and the capacity are looked at; without, everything.
    """
    _check_capacity(state)
    for job_id in list(state.jobs) if jobs is None else jobs:
        job = state.jobs.get(job_id)
        if job is not None:
            _check_job(state, job_id, job)
        else:
            _expect(job_id not in state.attempts, f"job {job_id} is done and has a live attempt")
    if jobs is None:
        _check_indices(state)


def _check_capacity(state: State) -> None:
    leased: dict[str, int] = {}
    for job_id, attempt in state.attempts.items():
        _expect(attempt.job == job_id, f"attempt {attempt} stands under job {job_id}")
        _expect(bool(attempt.lease), f"attempt {attempt} is live without a lease")
        devices = {part.device for part in attempt.lease}
        _expect(len(devices) == len(attempt.lease), f"{attempt} leases a device twice")
        for part in attempt.lease:
            leased[part.device] = leased.get(part.device, 0) + part.milli
    _expect(leased == state.pool.leased, f"the pool counts {state.pool.leased}, leases {leased}")
    for device, milli in leased.items():
        _expect(
            milli <= FULL_MILLI or device not in state.pool.devices,
            f"device {device} is leased to {milli} thousandths",
        )


def _check_job(state: State, job_id: JobId, job: Job) -> None:
    _expect(job.id == job_id < state.next_id, f"job {job} stands under id {job_id}")
    _expect(job.state is not JobState.DONE, f"job {job_id} is done and still in memory")
    attempt = state.attempts.get(job_id)
    if job.state is JobState.ACTIVE:
        _expect(attempt is not None, f"job {job_id} is active without an attempt")
        assert attempt is not None
        _expect(attempt.no == job.attempt, f"{job} has the attempt {attempt}")
        _expect(attempt.outcome is None, f"{attempt} is live and has an outcome")
    else:
        _expect(attempt is None, f"job {job_id} is {job.state} and has the attempt {attempt}")
    _expect(job.outcome is None, f"job {job_id} is {job.state} and has the outcome {job.outcome}")
    _expect(0 <= job.retries_left <= job.retry.retries, f"{job} has impossible retries")


def _check_indices(state: State) -> None:
    _expect(set(state.attempts) <= set(state.jobs), "an attempt of no known job is live")
    ready = {
        (request, priority, job_id)
        for request, heap in state.ready.items()
        for priority, job_id in heap
    }
    delayed = set(state.delayed)
    for job in state.jobs.values():
        if is_ready(job):
            entry = (job.request, -job.priority, job.id)
            _expect(entry in ready, f"job {job.id} waits, but not in the queue of its shape")
        elif job.state is JobState.QUEUED:
            due = (job.not_before_ms, job.id)
            _expect(due in delayed, f"job {job.id} is delayed, but not in the queue of delays")


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ContradictionError(otherwise)
