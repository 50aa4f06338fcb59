"""The state of the core, its indices, and what has changed since the last commit.

Owns every mutation that keeps an index true: nobody else writes `Job.state`, a lease or a heap.
Called by the modules of the core that decide, and by the engine at start (`load`). Holds
the jobs that are not done; a job that ends leaves `jobs` and stays in `changes` until it is
committed.

Rule 1: a job is in exactly one place: ready (queued and due), delayed (queued, not yet due),
waiting for other jobs (queued, core/links.py), held, or active with exactly one live attempt. Who
is delayed waits for that first. Gates (core/gates.py) hold back jobs that are ready.
Rule 2: queues are pruned lazily (core/ready.py, core/times.py): an entry counts only while the
job's record agrees with it, so a job may stand in one twice, and neither copy can start it twice.
Rule 3: every mutation leaves its trace in `changes`, in the order in which it happened.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

from gpud.core.changes import Changes, EndOfMany
from gpud.core.gates import Gates
from gpud.core.health import DEFAULT_POLICY, LOOK_WAIT_MS, GpuPolicy, Health, Quarantine
from gpud.core.indices import size
from gpud.core.lifecycle import ContradictionError, check_move, place_of
from gpud.core.links import Links, OutcomeOf, is_met, nobody_knows, with_ids
from gpud.core.model import (
    After,
    Array,
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
from gpud.core.numbering import Numbering
from gpud.core.pool import Pool
from gpud.core.ready import Ready, is_ready
from gpud.core.reservation import Reservation
from gpud.core.rules import ARRAY, NO_RULES, Kept, Rules, belongs_of
from gpud.core.shape import last_start_ms, within_s
from gpud.core.shares import Shares, Sum, gpu_milli
from gpud.core.shortage import Shortage
from gpud.core.spans import Spans, holds, without
from gpud.core.times import Times

NO_QUARANTINES: Mapping[str, Quarantine] = {}
NO_GATES: Mapping[str, Kept] = {}
NO_USAGE: Mapping[int, Sum] = {}


class State:
    """All that decisions need. See the rules above."""

    def __init__(
        self, pool: Pool, policy: GpuPolicy = DEFAULT_POLICY, rules: Rules = NO_RULES
    ) -> None:
        self.pool = pool
        self.health = Health(policy)
        self.reservation: Reservation | None = None  # of the last dispatch
        # devices for urgent jobs, for each that a record stands for; of the last dispatch
        self.claims: dict[JobId, list[frozenset[str]]] = {}
        self.jobs: dict[JobId, Job] = {}  # not done
        self.attempts: dict[JobId, Attempt] = {}  # the live one of each active job
        self.links = Links()
        self.numbering = Numbering()
        self.ended: list[JobId] = []  # just now, and others come after them
        self.gates = Gates(rules)
        self.shares = Shares(rules)
        self.ready = Ready(self.jobs, pool, self.gates)
        self.ready.by_user = bool(self.shares)
        self.delayed = Times(self._due_ms)
        self.expiring = Times(self._last_start_ms)
        self.draining = False
        self.next_id = JobId(1)
        self.boot_id = ""  # "" until the runner is ready
        self.runner_problem = "the runner has not answered yet"  # "" while starts are possible
        self.older: set[tuple[JobId, int]] = set()  # attempts of a runner without pause, checkpoint
        self.shortage = Shortage()
        self.stopped_sources: set[str] = set()
        self.finishing: set[JobId] = set()  # whose attempt is in that phase
        self.look_at_ms = 0  # when the GPUs are to be looked at if nobody does before; 0: never
        self.stale = 0  # facts about attempts that are no longer live: ignored and counted
        self.changes = Changes()

    # -- reading ---------------------------------------------------------------------------

    def find(self, job_id: JobId) -> Job | None:
        """The record of a job that is not done; of an element of an array perhaps that of many."""
        return self.jobs.get(job_id) or self.many_with(job_id)

    def many_with(self, job_id: JobId) -> Job | None:
        """The record that stands for this element and others of its array."""
        array = self.numbering.array_of(job_id)
        many = self.jobs.get(JobId(-array[0])) if array is not None else None
        return many if many is not None and holds(many.rest, job_id) else None

    def spoken(self, job_id: JobId) -> JobId:
        """An id for people: of a record of many that of the next of them."""
        return job_id if job_id > 0 else JobId(self.jobs[job_id].rest[0][0])

    def _due_ms(self, job_id: JobId) -> int:
        job = self.jobs.get(job_id)
        return job.not_before_ms if job is not None and job.state is JobState.QUEUED else 0

    def _last_start_ms(self, job_id: JobId) -> int:
        job = self.jobs.get(job_id)
        return job.last_start_ms if job is not None and job.state is not JobState.ACTIVE else 0

    def next_deadline_ms(self) -> int | None:
        """When a delayed job becomes due or one expires, a shortage ends, a look is wanted, or its
        time is up."""
        times = [self.attempts[job].ended_at_ms + LOOK_WAIT_MS for job in self.finishing]
        if self.look_at_ms:
            times.append(self.look_at_ms)
        if (due := self.delayed.first()) is not None:
            times.append(due[0])
        if (last := self.expiring.first()) is not None:
            times.append(last[0] + 1)
        if self.shortage.until_ms and self.ready:
            times.append(self.shortage.until_ms)
        return min(times) if times else None

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

    def learn(self, likeness: str, mib: int) -> None:
        """What a run of this likeness took of a GPU's memory."""
        self.pool.usual_mib[likeness] = self.changes.usual_mib[likeness] = mib
        self.ready.learn(likeness)

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
        gates: Mapping[str, Kept] = NO_GATES,
        usage: Mapping[int, Sum] = NO_USAGE,
    ) -> None:
        """Fill a state from the store, at once or in parts; `jobs` in dispatch order makes it
        fastest. `outcome_of` knows the done jobs that any of them comes after."""
        self.gates.kept.update(gates)
        if usage:
            self.shares.load(usage)
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
            if job.state is JobState.QUEUED and job.not_before_ms:
                self.delayed.put(job.not_before_ms, job.id)
        for attempt in sorted(attempts, key=lambda a: (a.dispatched_at_ms, a.job)):
            job = known[attempt.job]
            self.gates.count(job.belongs, 1)
            if self.shares and (milli := gpu_milli(attempt.lease)):
                self.shares.resume(job.uid, milli, attempt.dispatched_at_ms)
        self.ready.load(job for job in jobs if is_ready(job))

    # -- mutations -------------------------------------------------------------------------

    def add(self, new: NewJob, now_ms: int, outcome_of: OutcomeOf = nobody_knows) -> Job:
        """A new job under the next id: ready, held, or (with a problem) done at once. `outcome_of`
        knows the done jobs that it comes after."""
        spec, first = new.spec, self.next_id
        array = None if new.problem else spec.array
        last = first + (size(array.indices) if array else 1) - 1
        job = Job(
            id=JobId(-first) if array else first,
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
            array=first if array else JobId(0),
            rest=((first, last),) if array else (),
        )
        job.uid, job.belongs = spec.uid, belongs_of(spec, job.array)
        self.next_id = self.changes.next_id = JobId(last + 1)
        self.changes.new.append((first, new))
        self.touch(job)
        if new.problem:
            job.state, job.outcome = JobState.DONE, Outcome.NOT_STARTED
            job.ended_at_ms, job.why, job.not_before_ms = now_ms, new.problem, 0
            return job
        self.jobs[job.id] = job
        if array:
            self.numbering.add(first, last)
            self._bound(first, array)
        if spec.after.spans:
            job.after = After(with_ids(spec.after.spans, first, self.numbering), spec.after.patient)
            job.unmet = self.links.join(job, outcome_of)
        self._may_expire(job)
        if job.state is JobState.QUEUED:
            self._push(job)
        return job

    def _bound(self, first: JobId, array: Array) -> None:
        """What the submit says of how many of its elements run, and fail."""
        if kept := Kept(array.at_most or None, array.max_fails or None):
            key = f"{ARRAY}{first}"
            self.gates.keep(key, kept)
            self.changes.gates[key] = kept

    def own(self, job_id: JobId) -> Job:
        """The record of a job that is not done; an element of an array has one of its own now."""
        job = self.find(job_id)
        assert job is not None
        if job.rest:
            job = self.split(job, job_id)
            if job.state is JobState.QUEUED:
                self._push(job)
        return job

    def split(self, many: Job, job_id: JobId) -> Job:
        """The element gets a record of its own, since it is about to change."""
        element = structs.replace(many, id=job_id, rest=())
        was = self.changes.before.get(many.id, (many.state, many.outcome))
        self.changes.before.setdefault(job_id, was)
        self.jobs[job_id] = element
        if element.after.spans:
            self.links.join(element, self.links.outcomes.get)
        self._may_expire(element)
        self._take_out(many, ((job_id, job_id),))
        return element

    def _take_out(self, many: Job, ids: Spans) -> None:
        many.rest = without(many.rest, ids)
        if many.rest:
            if is_ready(many):
                self._push(many)  # under the rank of the next
            return
        del self.jobs[many.id]
        if many.after.spans:
            self.links.leave(many)

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
        self._take_place(job, attempt)
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
        self._give_place(job, attempt)
        self.finishing.discard(job.id)
        self._note_end_on_gpus(attempt, seen=attempt.phase is Phase.FINISHING)
        self.touch_attempt(attempt)

    def _take_place(self, job: Job, attempt: Attempt) -> None:
        self.gates.count(job.belongs, 1)
        if self.shares and (milli := gpu_milli(attempt.lease)):
            self.shares.begin(job.uid, milli, attempt.dispatched_at_ms)
            self.keep_usage(job.uid)

    def _give_place(self, job: Job, attempt: Attempt) -> None:
        for key in self.gates.count(job.belongs, -1):
            self.ready.reopen(key)
        if self.shares and (milli := gpu_milli(attempt.lease)):
            since_ms, end_ms = attempt.dispatched_at_ms, attempt.ended_at_ms
            self.shares.end(job.uid, milli, since_ms, end_ms)
            self.keep_usage(job.uid)

    def keep_usage(self, uid: int) -> None:
        account = self.shares.accounts.get(uid)
        self.changes.usage[uid] = (account.used_s, account.at_ms) if account is not None else None

    def drop_tiny_usage(self, now_ms: int) -> None:
        for uid in self.shares.drop_tiny(now_ms) if self.shares else ():
            self.keep_usage(uid)

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
        job.outcome, job.why, job.ended_at_ms, job.held_by = None, "", 0, ""
        if job.id not in self.jobs:
            self.jobs[job.id] = job
            job.unmet = self.links.join(job, outcome_of)
            self._make_wait(job.id)
        elif job.unmet and (before := self.links.broken(job)) is not None:
            self.ended.append(before)
        self._may_expire(job)
        self._push(job)
        self.touch(job)

    def hold(self, job: Job, why: str = "", held_by: str = "") -> None:
        """Not to be started; a live attempt has just ended. `why`: when it was not a person.
        `held_by`: the gate that does it."""
        check_move(job, place_of(job, self.attempts.get(job.id)), JobState.HELD)
        self._end_attempt(job)
        self._note_before(job)
        job.state, job.why, job.held_by = JobState.HELD, why, held_by
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
        job.outcome, job.why, job.ended_at_ms, job.held_by = outcome, why, now_ms, ""
        del self.jobs[job.id]
        self._let_go_on(job.id, outcome)
        if job.after.spans:
            self.links.leave(job)
        self.touch(job)

    def end_waiting(self, job: Job, outcome: Outcome, why: str, now_ms: int) -> None:
        """What waits is done without having run: a job, or all that this record stands for."""
        if job.rest:
            self.end_elements(job, job.rest, outcome, why, now_ms)
            return
        self.finish(job, outcome, why, now_ms)
        self.tell(job.id, 0, "ended", now_ms, **_in_story(outcome, why))

    def end_elements(self, many: Job, ids: Spans, outcome: Outcome, why: str, now_ms: int) -> None:
        """The same for these elements of an array."""
        was, _ = self.changes.before.get(many.id, (many.state, None))
        detail = _in_story(outcome, why)
        self._take_out(many, ids)
        for first, last in ids:
            end = EndOfMany(many.array, first, last, was, outcome, why, now_ms, many.source)
            self.changes.ends.append(end)
            story = Story(JobId(first), 0, "ended", now_ms, detail, last - first + 1)
            self.changes.story.append(story)
        for before in [job for job in self.links.dependents if holds(ids, job)]:
            self._let_go_on(before, outcome)

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

    def come_after(self, job: Job, after: After, outcome_of: OutcomeOf) -> None:
        """Other jobs than before keep it waiting. `outcome_of` knows the done ones of these."""
        self.links.leave(job)
        job.after = after
        job.unmet = self.links.join(job, outcome_of)

    def enter_again(self, job: Job) -> None:
        """What decides when its turn comes has been changed: its rank, its request or its time."""
        self._may_expire(job)
        if job.state is JobState.QUEUED:
            self._push(job)
        self.touch(job)

    def _may_expire(self, job: Job) -> None:
        if job.last_start_ms:
            self.expiring.put(job.last_start_ms, job.id)

    def make_due(self, now_ms: int) -> None:
        """Delayed jobs whose time has come are ready."""
        while (due := self.delayed.first()) is not None and due[0] <= now_ms:
            job = self.jobs[due[1]]
            job.not_before_ms = 0
            self._push(job)
            self.touch(job)

    def _note_before(self, job: Job) -> None:
        """Of its states within one turn, the store knows the first."""
        self.changes.before.setdefault(job.id, (job.state, job.outcome))

    def touch(self, job: Job) -> None:
        self.changes.jobs[job.id] = job

    def touch_attempt(self, attempt: Attempt) -> None:
        self.changes.attempts[attempt.job, attempt.no] = attempt

    def tell(self, job: JobId, attempt: int, kind: str, at_ms: int, **detail: object) -> None:
        """One more event of the job's story, or of all that its record stands for."""
        if job >= 0:
            self.changes.story.append(Story(job, attempt, kind, at_ms, detail))
            return
        for first, last in self.jobs[job].rest:
            many = Story(JobId(first), attempt, kind, at_ms, detail, last - first + 1)
            self.changes.story.append(many)

    def tell_many(self, first: JobId, count: int, kind: str, at_ms: int) -> None:
        """The same event in the stories of `count` jobs from `first` on."""
        self.changes.story.append(Story(first, 0, kind, at_ms, {}, count))

    def _push(self, job: Job) -> None:
        if job.not_before_ms:
            self.delayed.put(job.not_before_ms, job.id)
        elif not job.unmet:
            self.ready.push(job)


def _in_story(outcome: Outcome, why: str) -> dict[str, object]:
    return {"outcome": outcome.value, "why": why} if why else {"outcome": outcome.value}
