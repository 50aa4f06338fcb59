"""Each invariant is shown to fire: a check that cannot fail checks nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gpud.core.events import HoldRequested
from gpud.core.invariants import check_invariants
from gpud.core.lifecycle import ContradictionError
from gpud.core.model import JobId, JobState, LeasePart, Outcome, RetryPolicy
from gpud.core.state import State

from .build import HALVES, A, B, ended, happens, ready, submit

ACTIVE, WAITS, HELD, DELAYED = map(JobId, range(1, 5))


def lively() -> State:
    """One job in each place: active on `a`, ready, held, and delayed."""
    state = ready(A)
    delayed = submit(state, retry=RetryPolicy(1))
    happens(state, ended(state, delayed, exit_code=1))
    jobs = [submit(state), submit(state), submit(state, held=True)]
    renamed = dict(zip([*jobs, delayed], (ACTIVE, WAITS, HELD, DELAYED), strict=True))
    return relabel(state, renamed)


def relabel(state: State, names: dict[JobId, JobId]) -> State:
    """The same state with the ids that the tests below speak of."""
    jobs, attempts = [], list(state.attempts.values())
    for job in state.jobs.values():
        job.id = names[job.id]
        jobs.append(job)
    for attempt in attempts:
        attempt.job = names[attempt.job]
    fresh = State(type(state.pool)(state.pool.devices.values()))
    fresh.next_id, fresh.boot_id, fresh.runner_problem = state.next_id, state.boot_id, ""
    fresh.load(jobs, attempts)
    return fresh
