"""The store, faked: committed content only, and a check of everything that is written.

Used by tests/core/turns.py. Ids, attempt numbers and outcomes are written as they must be, and
nothing reaches it without a commit. What the real one does is in gpud/ports.py.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from msgspec import structs

from gpud.core.changes import Changes, NewSubmission
from gpud.core.health import GpuPolicy, Quarantine
from gpud.core.indices import size
from gpud.core.model import (
    Attempt,
    Cursor,
    Device,
    Job,
    JobId,
    JobSpec,
    JobState,
    Outcome,
    Story,
)
from gpud.core.numbering import Numbering
from gpud.core.pool import Pool
from gpud.core.ready import rank_of
from gpud.core.spans import spans_of
from gpud.core.state import State

from .world import Key


class FakeStore:
    """Writes copies, so that nothing reaches it without a commit."""

    def __init__(self) -> None:
        self.jobs: dict[JobId, Job] = {}
        self.arrays: dict[JobId, Job] = {}  # the records that stand for many
        self.specs: dict[JobId, JobSpec] = {}
        self.attempts: dict[Key, Attempt] = {}
        self.story: list[Story] = []
        self.submissions: dict[str, NewSubmission] = {}
        self.cursors: dict[str, Cursor] = {}
        self.stopped: dict[str, bool] = {}
        self.quarantines: dict[str, Quarantine] = {}
        self.usual_mib: dict[str, int] = {}
        self.next_id = JobId(1)
        self.draining = False

    def commit(self, changes: Changes) -> None:
        for job_id, new in changes.new:
            assert job_id == self.next_id, f"id {job_id} follows {self.next_id - 1}"
            record = changes.jobs.get(job_id) or changes.jobs.get(JobId(-job_id))
            assert record is not None, f"job {job_id} is new and has no record"
            array = new.spec.array if record.array else None
            for _ in range(size(array.indices) if array else 1):
                self.specs[self.next_id] = new.spec
                self.next_id = JobId(self.next_id + 1)
        assert changes.edited.keys() <= changes.jobs.keys(), "an edit without its record"
        self.specs |= changes.edited
        assert changes.next_id in (None, self.next_id)
        for key, attempt in sorted(changes.attempts.items()):
            self._write_attempt(key, attempt)
        known = dict(changes.jobs)
        for many in [job for job in known if job < 0]:
            self.arrays[many] = copy.copy(known.pop(many))
        for end in changes.ends:
            for n in range(end.first, end.last + 1):
                assert JobId(n) not in self.jobs, f"job {n} has changed before, and ends unchanged"
                ended = structs.replace(self.arrays[JobId(-end.array)], id=JobId(n), rest=())
                ended.state, ended.outcome, ended.why = JobState.DONE, end.outcome, end.why
                ended.ended_at_ms, ended.not_before_ms = end.at_ms, 0
                self.jobs[ended.id] = ended
        for job_id, job in known.items():
            assert job_id in self.specs, f"job {job_id} was never submitted"
            self.jobs[job_id] = copy.copy(job)
        for job_id in {*known, *(job_id for job_id, _ in changes.attempts)}:
            self._check_job(job_id)
        self.story += changes.story
        assert not self.submissions.keys() & changes.submissions.keys()
        self.submissions |= changes.submissions
        self.cursors |= changes.cursors
        self.stopped |= changes.stopped
        self.usual_mib |= changes.usual_mib
        found = self.quarantines | changes.quarantines
        self.quarantines = {uuid: why for uuid, why in found.items() if why is not None}
        if changes.draining is not None:
            self.draining = changes.draining

    def _write_attempt(self, key: Key, attempt: Attempt) -> None:
        before = self.attempts.get(key)
        if before is None:
            assert key[1] == 1 or (key[0], key[1] - 1) in self.attempts, f"{key} leaves a gap"
        else:
            assert before.outcome is None, f"{key} has ended and is written again: {attempt}"
            assert before.lease == attempt.lease, f"{key} changes its lease"
            assert before.boot_id == attempt.boot_id, f"{key} changes its boot"
        self.attempts[key] = copy_of(attempt)

    def _check_job(self, job_id: JobId) -> None:
        job, attempts = self.jobs[job_id], self.attempts_of(job_id)
        live = [attempt for attempt in attempts if attempt.outcome is None]
        assert job.attempt == len(attempts), f"{job} has {len(attempts)} attempts"
        assert len(live) == (job.state is JobState.ACTIVE), f"{job} has the live attempts {live}"
        assert (job.outcome is None) == (job.state is not JobState.DONE), f"{job}"
        if job.state is not JobState.QUEUED:
            assert not job.not_before_ms, f"{job} is {job.state} and waits for a time"

    def attempts_of(self, job_id: JobId) -> list[Attempt]:
        """In their order; the numbers have no gap, which `commit` has seen to."""
        found = []
        while attempt := self.attempts.get((job_id, len(found) + 1)):
            found.append(attempt)
        return found

    def load(self, devices: Sequence[Device], policy: GpuPolicy) -> State:
        state = State(Pool(devices), policy)
        state.next_id, state.draining = self.next_id, self.draining
        state.stopped_sources = {source for source, stopped in self.stopped.items() if stopped}
        jobs = [copy.copy(job) for job in self.jobs.values() if job.state is not JobState.DONE]
        attempts = [copy_of(a) for a in self.attempts.values() if a.outcome is None]
        state.pool.usual_mib = dict(self.usual_mib)
        for many in self.arrays.values():
            first = many.array
            ids = [n for n, spec in self.specs.items() if n >= first and spec.array]
            count = size(self.specs[first].array.indices) if self.specs[first].array else 0
            rest = spans_of(n for n in ids if n < first + count and n not in self.jobs)
            if rest:
                jobs.append(structs.replace(many, rest=rest))
        state.numbering = Numbering(
            (many.array, many.array + size(self.specs[many.array].array.indices) - 1)
            for many in self.arrays.values()
        )
        jobs.sort(key=rank_of)
        state.load(jobs, attempts, self.quarantines, self.outcome_of)
        return state

    def outcome_of(self, job: JobId) -> Outcome | None:
        """None: it is not done."""
        return self.jobs[job].outcome if job in self.jobs else None

    def recall(self, jobs: Sequence[JobId]) -> tuple[Job, ...]:
        found = [self.jobs[job_id] for job_id in dict.fromkeys(jobs) if job_id in self.jobs]
        return tuple(copy.copy(job) for job in found if job.state is JobState.DONE)


def copy_of(attempt: Attempt) -> Attempt:
    usage = attempt.usage
    if usage is not None:
        usage = structs.replace(usage, counters=dict(usage.counters))
    return structs.replace(attempt, usage=usage)


def picture(state: State) -> dict[str, object]:
    """All of a state that decisions rest on and that outlives a restart. What attempts used so far
    is written now and then only: what was said about it is kept."""
    quarantines = {uuid: gpu.quarantine for uuid, gpu in state.health.gpus.items()}
    return {
        "jobs": {job_id: structs.astuple(job) for job_id, job in sorted(state.jobs.items())},
        "attempts": {
            job_id: (*structs.astuple(structs.replace(a, usage=None)), told(a))
            for job_id, a in sorted(state.attempts.items())
        },
        "leased": state.pool.leased,
        "promised": state.pool.promised,
        "usual": state.pool.usual_mib,
        "quarantines": {uuid: found for uuid, found in quarantines.items() if found},
        "finishing": state.finishing,
        "dependents": state.links.dependents,
        "outcomes": state.links.outcomes,
        "next_id": state.next_id,
        "draining": state.draining,
        "stopped": state.stopped_sources,
    }


def told(attempt: Attempt) -> tuple[str, ...]:
    return attempt.usage.told if attempt.usage is not None else ()
