"""The state of the core, its indices, and what has changed since the last commit.

Owns every mutation that keeps an index true: nobody else writes `Job.state`, a lease or a heap.
Called by the modules of the core that decide, and by the engine at start (`load`). Holds
the jobs that are not done; a job that ends leaves `jobs` and stays in `changes` until it is
committed.

Rule 1: a job is in exactly one place: ready (queued and due), delayed (queued, not yet due),
waiting for other jobs (queued, core/links.py), held, or active with exactly one live attempt. Who
is delayed waits for that first.
Rule 2: heaps are pruned lazily: an entry counts only while the job's record agrees with it, so a
job may stand in a heap twice, and neither copy can start it twice.
Rule 3: every mutation leaves its trace in `changes`, in the order in which it happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heappop, heappush

from gpud.core.changes import Changes
from gpud.core.health import DEFAULT_POLICY, LOOK_WAIT_MS, GpuPolicy, Health, Quarantine
from gpud.core.lifecycle import ContradictionError, check_move, place_of
from gpud.core.links import Links, OutcomeOf, is_met, nobody_knows, with_ids
from gpud.core.model import (
    After,
    Attempt,
    Job,
    JobId,
    JobState,
    LeasePart,
    NewJob,
    Outcome,
    Phase,
    Story,
    Usage,
)
from gpud.core.pool import Pool
from gpud.core.reservation import Reservation
from gpud.core.shape import Shape, last_start_ms, shape_of, within_s

NO_QUARANTINES: Mapping[str, Quarantine] = {}
SHORTAGE_FIRST_MS, SHORTAGE_MAX_MS = 1_000, 60_000  # pauses when the machine is short of something

Rank = tuple[int, JobId]  # (-priority, id): the total order of dispatch


class State:
    """All that decisions need. See the rules above."""

    def __init__(self, pool: Pool, policy: GpuPolicy = DEFAULT_POLICY) -> None:
        self.pool = pool
        self.health = Health(policy)
        self.reservation: Reservation | None = None  # of the last dispatch
        self.jobs: dict[JobId, Job] = {}  # not done
        self.attempts: dict[JobId, Attempt] = {}  # the live one of each active job
        self.links = Links()
        self.ended: list[JobId] = []  # just now, and others come after them
        self.ready: dict[Shape, list[Rank]] = {}
        self.delayed: list[tuple[int, JobId]] = []  # (not_before_ms, id)
        self.expiring: list[tuple[int, JobId]] = []  # (last_start_ms, id)
        self.draining = False
        self.next_id = JobId(1)
        self.boot_id = ""  # "" until the runner is ready
        self.runner_problem = "the runner has not answered yet"  # "" while starts are possible
        self.older: set[tuple[JobId, int]] = set()  # attempts of a runner without pause, checkpoint
        self.shortage = ""  # what the machine was short of at the last start that failed for it
        self.shortage_until_ms = 0  # no start before; 0 again once it is over
        self.shortage_pause_ms = 0  # the last pause; the next one is twice as long
        self.stopped_sources: set[str] = set()
        self.finishing: set[JobId] = set()  # whose attempt is in that phase
        self.look_at_ms = 0  # when the GPUs are to be looked at if nobody does before; 0: never
        self.stale = 0  # facts about attempts that are no longer live: ignored and counted
        self.changes = Changes()

    # -- reading ---------------------------------------------------------------------------

    def ready_head(self, shape: Shape) -> Rank | None:
        """The first job that waits for this shape of capacity, or None."""
        return self._first(self.ready.get(shape, []))

    def ready_heads(self) -> list[tuple[Rank, Shape]]:
        """The first job of each shape, as a heap."""
        heads = []
        for shape, heap in [*self.ready.items()]:
            if (head := self._first(heap)) is not None:
                heads.append((head, shape))
            else:
                del self.ready[shape]
        heapify(heads)
        return heads

    def _first(self, heap: list[Rank]) -> Rank | None:
        jobs = self.jobs
        while heap:
            rank = heap[0]
            job = jobs.get(rank[1])
            if job is not None and is_ready(job) and rank[0] == -job.priority:
                return rank
            heappop(heap)  # left over from a hold, a cancel or an end
        return None

    def next_delay_ms(self) -> int | None:
        """When the first delayed job becomes due, or None."""
        while self.delayed:
            due, job_id = self.delayed[0]
            job = self.jobs.get(job_id)
            if job is not None and job.state is JobState.QUEUED and job.not_before_ms == due:
                return due
            heappop(self.delayed)
        return None

    def next_expiry_ms(self) -> int | None:
        """When the first job that waits can no longer be done by its deadline, or None."""
        while self.expiring:
            last_ms, job_id = self.expiring[0]
            job = self.jobs.get(job_id)
            waits = job is not None and job.state is not JobState.ACTIVE
            if waits and job is not None and job.last_start_ms == last_ms:
                return last_ms + 1
            heappop(self.expiring)
        return None

    def next_deadline_ms(self) -> int | None:
        """When a delayed job becomes due or one expires, a shortage ends, a look is wanted, or its
        time is up."""
        times = [self.next_delay_ms(), self.next_expiry_ms(), self.look_at_ms]
        times += [self.attempts[job].ended_at_ms + LOOK_WAIT_MS for job in self.finishing]
        if self.shortage_until_ms and any(self.ready.values()):
            times.append(self.shortage_until_ms)
        return min((time for time in times if time), default=None)

    def parts_of(self, attempt: Attempt) -> list[tuple[LeasePart, str]]:
        """The GPUs (UUIDs) it has leased, as far as they can be looked at."""
        pool, found = self.pool, []
        for part in attempt.lease:
            device = pool.devices.get(part.device)
            now = device.uuids if device is not None else ()
            found += [(part, uuid) for uuid in part.uuids or now]
        return found

    def uuids_of(self, attempt: Attempt) -> list[str]:
        return [uuid for _, uuid in self.parts_of(attempt)]

    def take_changes(self) -> Changes:
        taken, self.changes = self.changes, Changes()
        return taken

    # -- loading ---------------------------------------------------------------------------

    def load(
        self,
        jobs: list[Job],
        attempts: list[Attempt],
        quarantines: Mapping[str, Quarantine] = NO_QUARANTINES,
        outcome_of: OutcomeOf = nobody_knows,
    ) -> None:
        """Fill an empty state from the store; `jobs` in dispatch order makes it fastest.
        `outcome_of` knows the done jobs that any of them comes after."""
        for uuid, quarantine in quarantines.items():
            self.health.of(uuid).quarantine = quarantine
        for attempt in attempts:
            self.attempts[attempt.job] = attempt
            self.pool.take(attempt.lease)
            if attempt.phase is Phase.FINISHING:
                self.finishing.add(attempt.job)
            for uuid, mib in attempt.usage.base_mib.items() if attempt.usage else ():
                self.health.of(uuid).base_mib = mib
        known = self.jobs
        for job in jobs:
            known[job.id] = job
            if job.after.spans:
                job.unmet = self.links.join(job, outcome_of)
            self._may_expire(job)
            if job.state is JobState.QUEUED:
                if job.not_before_ms:
                    self.delayed.append((job.not_before_ms, job.id))
                elif not job.unmet:
                    self.ready.setdefault(shape_of(job), []).append((-job.priority, job.id))
        heapify(self.delayed)
        for heap in self.ready.values():
            heapify(heap)

    # -- mutations -------------------------------------------------------------------------

    def add(self, new: NewJob, now_ms: int, outcome_of: OutcomeOf = nobody_knows) -> Job:
        """A new job under the next id: ready, held, or (with a problem) done at once. `outcome_of`
        knows the done jobs that it comes after."""
        spec = new.spec
        job = Job(
            id=self.next_id,
            request=spec.request,
            priority=spec.priority,
            retry=spec.retry,
            grace_s=spec.grace_s,
            state=JobState.HELD if spec.held else JobState.QUEUED,
            submitted_at_ms=now_ms,
            retries_left=spec.retry.retries,
            source=spec.source,
            within_s=within_s(spec.time_limit_s, spec.grace_s, spec.linger_s),
            begin_ms=spec.begin_ms,
            last_start_ms=last_start_ms(spec.deadline_ms, spec.time_limit_s),
            checkpoint=spec.checkpoint,
            not_before_ms=spec.begin_ms if spec.begin_ms > now_ms and not spec.held else 0,
        )
        self.next_id = JobId(job.id + 1)
        self.changes.new.append((job.id, new))
        self.changes.next_id = self.next_id
        self.changes.jobs[job.id] = job
        if new.problem:
            job.state, job.outcome = JobState.DONE, Outcome.NOT_STARTED
            job.ended_at_ms, job.why, job.not_before_ms = now_ms, new.problem, 0
            return job
        self.jobs[job.id] = job
        if spec.after.spans:
            job.after = After(with_ids(spec.after.spans, job.id), spec.after.patient)
            job.unmet = self.links.join(job, outcome_of)
        self._may_expire(job)
        if job.state is JobState.QUEUED:
            self._push(job)
        return job

    def activate(self, job: Job, lease: tuple[LeasePart, ...], now_ms: int) -> Attempt:
        """Queued to active: the lease is taken and the attempt exists, in one step."""
        check_move(job, job.state, Phase.STARTING)
        self._note_before(job)
        job.state = JobState.ACTIVE
        job.attempt += 1
        job.not_before_ms = 0
        attempt = Attempt(
            job=job.id,
            no=job.attempt,
            phase=Phase.STARTING,
            lease=lease,
            boot_id=self.boot_id,
            dispatched_at_ms=now_ms,
        )
        self.pool.take(lease)
        self.attempts[job.id] = attempt
        if self.pool.watched:
            uuids = self.uuids_of(attempt)
            counters, base_mib = self.health.counters(uuids), self.health.base_mib(uuids)
            attempt.usage = Usage(counters=counters, base_mib=base_mib)
        self.touch(job)
        self.touch_attempt(attempt)
        return attempt

    def set_phase(self, job: Job, phase: Phase) -> None:
        attempt = self.attempts[job.id]
        check_move(job, attempt.phase, phase)
        attempt.phase = phase
        if phase is Phase.FINISHING:
            self.finishing.add(job.id)
            self._note_end_on_gpus(attempt, seen=False)
        else:
            self.finishing.discard(job.id)
        self.touch_attempt(attempt)

    def _end_attempt(self, job: Job) -> None:
        """The live attempt is over and its lease is given back."""
        attempt = self.attempts.pop(job.id, None)
        if attempt is None:
            return
        if attempt.outcome is None:
            raise ContradictionError(f"job {job.id} leaves attempt {attempt} without an outcome")
        self.pool.give_back(attempt.lease)
        self.finishing.discard(job.id)
        self._note_end_on_gpus(attempt, seen=attempt.phase is Phase.FINISHING)
        self.touch_attempt(attempt)

    def _note_end_on_gpus(self, attempt: Attempt, *, seen: bool) -> None:
        if uuids := self.uuids_of(attempt):
            self.health.note_end(uuids, attempt.job, attempt.ended_at_ms, seen=seen)

    def requeue(
        self,
        job: Job,
        not_before_ms: int = 0,
        outcome_of: OutcomeOf = nobody_knows,
    ) -> None:
        """Back to queued: at once, or not before a time. A live attempt has just ended, or the job
        was done; then `outcome_of` knows the done jobs that it comes after."""
        check_move(job, place_of(job, self.attempts.get(job.id)), JobState.QUEUED)
        self._end_attempt(job)
        self._note_before(job)
        job.state = JobState.QUEUED
        job.not_before_ms = not_before_ms
        job.outcome, job.why, job.ended_at_ms = None, "", 0
        if job.id not in self.jobs:
            self.jobs[job.id] = job
            job.unmet = self.links.join(job, outcome_of)
            self._make_wait(job.id)
        elif job.unmet and (before := self.links.broken(job)) is not None:
            self.ended.append(before)
        self._may_expire(job)
        self._push(job)
        self.touch(job)

    def hold(self, job: Job, why: str = "") -> None:
        """Not to be started; a live attempt has just ended. `why`: when it was not a person."""
        check_move(job, place_of(job, self.attempts.get(job.id)), JobState.HELD)
        self._end_attempt(job)
        self._note_before(job)
        job.state, job.why = JobState.HELD, why
        job.not_before_ms = 0
        self._may_expire(job)
        self.touch(job)

    def finish(self, job: Job, outcome: Outcome, why: str, now_ms: int) -> None:
        """Done, with its outcome; the job leaves memory, and `changes` keep it until the commit."""
        check_move(job, place_of(job, self.attempts.get(job.id)), JobState.DONE)
        self._end_attempt(job)
        self._note_before(job)
        job.state = JobState.DONE
        job.not_before_ms = 0
        job.outcome, job.why, job.ended_at_ms = outcome, why, now_ms
        del self.jobs[job.id]
        self._let_go_on(job.id, outcome)
        if job.after.spans:
            self.links.leave(job)
        self.touch(job)

    def _let_go_on(self, before: JobId, outcome: Outcome) -> None:
        """A job is done: those that it kept waiting go on, as far as that will do for them."""
        links = self.links
        if before not in links.dependents:
            return
        links.outcomes[before] = outcome
        self.ended.append(before)
        for job_id, ended in links.after(before):
            if is_met(outcome, ended):
                job = self.jobs[job_id]
                job.unmet -= 1
                if is_ready(job):
                    self._push(job)

    def _make_wait(self, before: JobId) -> None:
        """A job that was done is queued again."""
        outcome = self.links.outcomes.pop(before, None)
        for job_id, ended in self.links.after(before):
            self.jobs[job_id].unmet += is_met(outcome, ended)

    def _may_expire(self, job: Job) -> None:
        if job.last_start_ms:
            heappush(self.expiring, (job.last_start_ms, job.id))

    def make_due(self, now_ms: int) -> None:
        """Delayed jobs whose time has come are ready."""
        while (due := self.next_delay_ms()) is not None and due <= now_ms:
            job = self.jobs[heappop(self.delayed)[1]]
            job.not_before_ms = 0
            self._push(job)
            self.touch(job)

    def wait_for_resources(self, why: str, now_ms: int) -> None:
        """No start for a while, longer each time, until one succeeds."""
        if not self.shortage_until_ms:  # several starts fail at once: one shortage
            longer = 2 * self.shortage_pause_ms
            self.shortage_pause_ms = min(max(longer, SHORTAGE_FIRST_MS), SHORTAGE_MAX_MS)
            self.shortage_until_ms = now_ms + self.shortage_pause_ms
        self.shortage = why

    def have_resources(self) -> None:
        self.shortage, self.shortage_until_ms, self.shortage_pause_ms = "", 0, 0

    def _note_before(self, job: Job) -> None:
        """Of its states within one turn, the store knows the first."""
        self.changes.before.setdefault(job.id, (job.state, job.outcome))

    def touch(self, job: Job) -> None:
        self.changes.jobs[job.id] = job

    def touch_attempt(self, attempt: Attempt) -> None:
        self.changes.attempts[attempt.job, attempt.no] = attempt

    def tell(self, job: JobId, attempt: int, kind: str, at_ms: int, **detail: object) -> None:
        """One more event of the job's story."""
        self.changes.story.append(Story(job, attempt, kind, at_ms, detail))

    def tell_many(self, first: JobId, count: int, kind: str, at_ms: int) -> None:
        """The same event in the stories of `count` jobs from `first` on."""
        self.changes.story.append(Story(first, 0, kind, at_ms, {}, count))

    def _push(self, job: Job) -> None:
        if job.not_before_ms:
            heappush(self.delayed, (job.not_before_ms, job.id))
        elif not job.unmet:
            shape = shape_of(job)
            heap = self.ready.get(shape)
            if heap is None:
                heap = self.ready[shape] = []
            heappush(heap, (-job.priority, job.id))


def is_ready(job: Job) -> bool:
    """Queued, and nothing but capacity keeps it waiting."""
    return job.state is JobState.QUEUED and not job.not_before_ms and not job.unmet
