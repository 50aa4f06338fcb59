"""Who comes after whom, worked out afresh from what was submitted, without core/links.py.

Used by tests/core/turns.py: dispatches are held against it, and cancels that nobody asked for.
"""

from __future__ import annotations

from collections.abc import Callable

from gpud.core.events import RetryRequested
from gpud.core.model import Job, JobId, JobSpec, JobState, Outcome
from gpud.core.state import State

from .promises import last_start_of
from .store import FakeStore

OutcomeOf = Callable[[JobId], Outcome | None]


class Afters:
    """As of now: what the store says, and what this turn has changed already."""

    def __init__(self, state: State, store: FakeStore) -> None:
        self.state = state
        new = {job_id: new.spec for job_id, new in state.changes.new}
        self.specs: dict[JobId, JobSpec] = store.specs | new | state.changes.edited
        self._store = store

    def outcome_of(self, job: JobId) -> Outcome | None:
        """None: it is not done."""
        if job in self.state.jobs:
            return None
        record = self.state.changes.jobs.get(job) or self._store.jobs[job]
        return record.outcome

    def before(self, job: JobId) -> set[tuple[int, bool]]:
        """Jobs it comes after, and whether it is enough that they have ended."""
        return before_of(self.specs[job], job)

    def waits(self, job: JobId) -> bool:
        return any(not will_do(self.outcome_of(b), ended) for b, ended in self.before(job))

    def is_hopeless(self, job: JobId) -> bool:
        """Unless a person retries one of these."""
        found = [(self.outcome_of(b), ended) for b, ended in self.before(job)]
        return any(outcome and not will_do(outcome, ended) for outcome, ended in found)

    def can_be_submitted(self, spec: JobSpec, job: JobId, first: JobId, now_ms: int) -> bool:
        """As number `job` in a submit that begins with `first`."""
        last = last_start_of(spec)
        if last and last < max(now_ms, spec.begin_ms):
            return False
        for before, ended in before_of(spec, job):
            if not 0 < before < job:
                return False
            outcome = self.outcome_of(before) if before < first else None
            if outcome and not will_do(outcome, ended) and not spec.after.patient:
                return False
        return True

    def can_be_retried(self, event: RetryRequested, done: set[int], now_ms: int) -> set[int]:
        """Of those that are done; one after the other, in the order of the request."""
        again: set[int] = set()
        for job in event.jobs:
            last = last_start_of(self.specs[job]) if job in done else 0
            if job not in done or (last and last < now_ms):
                continue
            patient = self.specs[job].after.patient
            earlier = [(b, ended) for b, ended in self.before(job) if b not in again]
            outcomes = [(self.outcome_of(b), ended) for b, ended in earlier]
            if self.is_behind(job, {b for b, _ in self.before(job)}, {*self.state.jobs, *again}):
                continue
            if patient or all(not o or will_do(o, ended) for o, ended in outcomes):
                again.add(job)
        return again

    def is_behind(self, job: JobId, befores: set[int], waiting: set[int]) -> bool:
        """Whether `job` would come after itself, if it came after these."""
        found: set[int] = set()
        left = set(befores)
        while left:
            before = JobId(left.pop())
            found.add(before)
            if before in waiting:
                left |= {b for b, _ in self.before(before)} - found
        return job in found

    def check(self) -> None:
        """Who can no longer be started is gone, unless it is patient or on its way already."""
        for job in self.state.jobs.values():
            if job.state is not JobState.ACTIVE and not job.after.patient:
                assert not self.is_hopeless(job.id), f"{job} waits for what cannot be"


def before_of(spec: JobSpec | Job, job: JobId) -> set[tuple[int, bool]]:
    found = set()
    for span in spec.after.spans:
        first, last = (n if n > 0 else job + n for n in (span.first, span.last))
        found |= {(before, span.ended) for before in range(first, last + 1)}
    return found


def will_do(outcome: Outcome | None, ended: bool) -> bool:
    return outcome is Outcome.SUCCEEDED or (ended and outcome is not None)
