"""What people asked for and what they may count on, as a ledger beside the core.

The machine writes down each wish when the core has handled it; the functions here say what the
state and the store must look like then. The pause of a retry is reckoned here without
core/retry.py, and what no retry is used for without core/setbacks.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from gpud.core import explain, explain_room, scheduler
from gpud.core.events import AttemptEnded
from gpud.core.model import (
    Attempt,
    Cursor,
    Job,
    JobId,
    JobSpec,
    JobState,
    Outcome,
    Phase,
    RetryPolicy,
)
from gpud.core.reconcile import NO_DEVICE
from gpud.core.state import State

from .store import FakeStore
from .world import FakeRunner, Key

SETBACKS = 5  # so often an end is no fault of the job
NOT_ITS_FAULT = (Outcome.FAILED, Outcome.KILLED, Outcome.TIMED_OUT, Outcome.LOST)  # if it broke
LOOK_WAIT_MS = 15_000  # an end that a GPU may be to blame for waits for a look at most so long


@dataclass
class Ledger:
    """Wishes that were handled. Copied at each commit; a crash goes back to the copy."""

    draining: bool = False
    runner_ready: bool = False
    held: set[JobId] = field(default_factory=set)
    cancelled: set[Key] = field(default_factory=set)  # live attempts
    waiting_cancelled: dict[JobId, int] = field(default_factory=dict)  # queued jobs: attempts then
    rounds: dict[JobId, tuple[int, ...]] = field(default_factory=dict)  # attempts before each retry
    keys: dict[str, tuple[str, JobId, int]] = field(default_factory=dict)  # digest, first, count
    cursors: dict[str, Cursor] = field(default_factory=dict)
    bad_entries: set[JobId] = field(default_factory=set)  # never a job, never tried again
    quarantined: dict[str, tuple[int, str]] = field(default_factory=dict)  # UUID -> when, boot
    memory: dict[str, int] = field(default_factory=dict)  # of these for memory: what may be in use
    stopped: dict[Key, str] = field(default_factory=dict)  # by gpud itself, and why
    excused: dict[Key, bool] = field(default_factory=dict)  # no retry is used; tried again at once
    expired: dict[JobId, int] = field(default_factory=dict)  # by a deadline: attempts then
    paused: dict[Key, int] = field(default_factory=dict)  # live attempts, since when
    paused_ms: dict[Key, int] = field(default_factory=dict)  # how long before that
    continued: dict[Key, int] = field(default_factory=dict)  # when
    leaving: set[Key] = field(default_factory=set)  # asked to save their state
    resuming: set[JobId] = field(default_factory=set)  # whose next attempts go on from that
    older: set[Key] = field(default_factory=set)  # attempts of a runner that cannot do either
    policies: dict[Key, RetryPolicy] = field(default_factory=dict)  # when the attempt ended
    specs: dict[JobId, JobSpec] = field(default_factory=dict)  # of edited jobs
    asked_anew: set[Key] = field(default_factory=set)  # a person's word, after that attempt
    said: dict[str, tuple[int, int]] = field(default_factory=dict)  # of gates: limit, most fails
    fails: dict[str, int] = field(default_factory=dict)  # of gates, since a release
    freed: set[JobId] = field(default_factory=set)  # a person wants these to wait, and no other

    def copy(self) -> Ledger:
        """As deep as it need be: everything in the containers is immutable."""
        return replace(
            self,
            held=self.held.copy(),
            cancelled=self.cancelled.copy(),
            waiting_cancelled=self.waiting_cancelled.copy(),
            rounds=self.rounds.copy(),
            keys=self.keys.copy(),
            cursors=self.cursors.copy(),
            bad_entries=self.bad_entries.copy(),
            quarantined=self.quarantined.copy(),
            memory=self.memory.copy(),
            stopped=self.stopped.copy(),
            excused=self.excused.copy(),
            expired=self.expired.copy(),
            paused=self.paused.copy(),
            paused_ms=self.paused_ms.copy(),
            continued=self.continued.copy(),
            leaving=self.leaving.copy(),
            resuming=self.resuming.copy(),
            policies=self.policies.copy(),
            specs=self.specs.copy(),
            asked_anew=self.asked_anew.copy(),
            said=self.said.copy(),
            fails=self.fails.copy(),
            freed=self.freed.copy(),
        )

    def first_of_round(self, job: JobId) -> int:
        """The number of the first attempt since the submit or the last retry by a person."""
        return 1 + self.rounds.get(job, (0,))[-1]

    def excuses(self, job: JobId, since: int = 1) -> int:
        """How many attempts from this number on were made good; a checkpoint is no setback."""
        setbacks = {key: again for key, again in self.excused.items() if key not in self.leaving}
        return sum(k[0] == job and k[1] >= since and again for k, again in setbacks.items())

    def note_continue(self, key: Key, now_ms: int) -> None:
        """Or something else that ends the pause."""
        if key in self.paused:
            this_ms = max(0, now_ms - self.paused.pop(key))
            self.paused_ms[key] = self.paused_ms.get(key, 0) + this_ms
            self.continued[key] = now_ms

    def note_preempted(self, keys: Iterable[Key], now_ms: int) -> None:
        for key in keys:
            self.note_continue(key, now_ms)
            self.stopped[key] = "preempted"
            self.leaving.add(key)

    def note_gone(self, attempt: Attempt, end: AttemptEnded | None) -> None:
        """Its payload is gone. `end`: what the runner knows of that."""
        key = attempt.job, attempt.no
        if end is not None:
            self.note_continue(key, end.at_ms)
        self.paused.pop(key, None)
        known = attempt.exit_code is not None or attempt.signal is not None
        if key in self.leaving and known and end is not None and not end.stopped:
            self.leaving.discard(key)  # it had ended before
            del self.stopped[key]

    def note_end(self, attempt: Attempt, gpus: Iterable[str], policy: RetryPolicy) -> None:
        """The attempt is over: is it made good? `gpus`: UUIDs of its lease; `policy`: its job's."""
        key = attempt.job, attempt.no
        self.policies[key] = policy
        if key in self.leaving:
            self.excused[key] = True
            if attempt.started_at_ms:
                self.resuming.add(attempt.job)
            return
        often = self.excuses(attempt.job, self.first_of_round(attempt.job)) >= SETBACKS
        if key in self.cancelled:
            return
        if self.stopped.get(key) == "guest":
            again = self.excused[key] = policy.retries > 0 and not often
            if not again:
                self.held.add(attempt.job)
        elif attempt.outcome in NOT_ITS_FAULT and not often:
            broken = self.quarantined.keys() - self.memory.keys()
            broke = [self.quarantined[uuid][0] for uuid in gpus if uuid in broken]
            lost = attempt.outcome is Outcome.LOST and Outcome.LOST in policy.on
            if (lost and policy.retries) or any(at >= attempt.dispatched_at_ms for at in broke):
                self.excused[key] = True


# -- at any time ----------------------------------------------------------------------------------


def check_told(state: State, runner: FakeRunner, ledger: Ledger) -> None:
    """With nothing on its way, the runner has every attempt that it should, and every stop."""
    if ledger.runner_ready and runner.connected:
        for key, payload in runner.alive().items():
            told = payload.stopped
            assert told or key not in ledger.cancelled, f"{key} is not told to stop"
            assert told or key not in ledger.leaving, f"{key} is not told to save its state"
            assert payload.paused == (key in ledger.paused), f"{key} is told otherwise: {payload}"
        for job, live in state.attempts.items():
            known = (job, live.no) in runner.journal or live.phase is Phase.FINISHING
            assert known, f"{live} never got to the runner"


def check_world(state: State, runner: FakeRunner) -> None:
    """What lives in the world is what the core believes to live, and it fits on the devices."""
    used: dict[str, int] = {}
    for (job, no), payload in runner.alive().items():
        live = state.attempts.get(job)
        assert live is not None, f"{(job, no)} lives, and the core has ended it"
        assert live.no == no, f"{(job, no)} lives, and the core has {live}"
        assert live.lease == payload.lease, f"{(job, no)} lives on {payload.lease}, not on {live}"
        for part in payload.lease:
            used[part.device] = used.get(part.device, 0) + part.milli
    over = {device: milli for device, milli in used.items() if milli > 1000}
    assert not over, f"more than the whole of a device is in use: {over}"


def check_reasons(state: State, ledger: Ledger, now_ms: int) -> None:
    """Nothing waits without a reason; what waits for a time has a deadline, nothing else has one
    but a look at GPUs."""
    due = [job.not_before_ms for job in state.jobs.values() if job.not_before_ms]
    expiring = [job for job in state.jobs.values() if waits(job) and job.last_start_ms]
    due += [job.last_start_ms + 1 for job in expiring]
    finishing = [a for a in state.attempts.values() if a.phase is Phase.FINISHING]
    due += [attempt.ended_at_ms + LOOK_WAIT_MS for attempt in finishing]
    deadline = scheduler.next_deadline(state)
    if state.pool.watched:
        assert not due or (deadline is not None and deadline <= min(due)), f"{deadline} for {due}"
    else:
        assert deadline == (min(due) if due else None), f"{deadline} for what is due at {due}"
    for job in state.jobs.values():
        assert explain.explain(state, job.id, now_ms), f"{job} waits without a reason"
        assert explain.ahead(state, job.id, now_ms) >= 0
        at_length = explain_room.devices_for(state, job.id)
        assert len(at_length) == 1 or job.state is not JobState.ACTIVE, f"{job} is {at_length}"
        assert (job.id in ledger.held) == (job.state is JobState.HELD), f"{job}: {ledger.held}"
    assert state.draining == ledger.draining
    quarantined = {uuid for uuid, gpu in state.health.gpus.items() if gpu.quarantine}
    assert quarantined == ledger.quarantined.keys(), f"{quarantined}, {ledger.quarantined}"


def waits(job: Job) -> bool:
    return job.state in (JobState.QUEUED, JobState.HELD)


def last_start_of(spec: JobSpec) -> int:
    """When it must have started to be done by its deadline; 0: it has none."""
    if not spec.deadline_ms:
        return 0
    return max(1, spec.deadline_ms - int(1000 * (spec.time_limit_s or 0)))


def check_wishes(state: State, ledger: Ledger) -> None:
    """A cancel that was handled stays so: no new attempt, and the live one is being stopped."""
    for job in ledger.waiting_cancelled:
        assert job not in state.jobs, f"job {job} was cancelled and waits again"
    for job, no in ledger.cancelled:
        live = state.attempts.get(job)
        if live is not None and live.no == no:
            assert live.phase is Phase.STOPPING, f"{live} was cancelled"
    for job, live in state.attempts.items():
        key = job, live.no
        assert (key in ledger.paused) == (live.phase is Phase.PAUSED), f"{live}: {ledger.paused}"
        assert (key in ledger.leaving) == live.leaving, f"{live}: {ledger.leaving}"


# -- what is written ------------------------------------------------------------------------------


def check_written(
    store: FakeStore, runner: FakeRunner, ledger: Ledger, jobs: Iterable[JobId]
) -> None:
    for job in jobs:
        for attempt in store.attempts_of(job):
            if attempt.outcome is not None:
                check_outcome(attempt, runner, ledger)
        check_history(store, ledger, job)


def check_outcome(attempt: Attempt, runner: FakeRunner, ledger: Ledger) -> None:
    """What is said of an end is what happened, or that a person asked for it."""
    key = attempt.job, attempt.no
    end = runner.ends.get(key)
    kept = attempt.exit_code, attempt.signal
    exact = (end.exit_code, end.signal) if end else (None, None)
    if attempt.outcome not in (Outcome.LOST, Outcome.CANCELLED) or kept != (None, None):
        assert kept == exact, f"{attempt} ended with {end}"
    if key in ledger.cancelled:
        assert attempt.outcome is Outcome.CANCELLED, f"{attempt} was cancelled by a person"
    elif key in ledger.stopped:
        allowed = {Outcome.KILLED} | (runner.truth.get(key, {Outcome.LOST}) & {Outcome.LOST})
        assert attempt.outcome in allowed, f"{attempt} was stopped by gpud"
    elif key in runner.ever:
        allowed = runner.truth.get(key, set())
        assert attempt.outcome in allowed, f"{attempt}, in truth {allowed}"
    elif attempt.outcome is not Outcome.NOT_STARTED or attempt.why != NO_DEVICE:
        assert attempt.boot_id != runner.boot_id, f"{attempt} was never started in this boot"
        assert attempt.outcome is Outcome.LOST, f"{attempt} was never started"


def check_history(store: FakeStore, ledger: Ledger, job_id: JobId) -> None:
    """Attempts follow one another as the policy says, and the job has the outcome of its last."""
    job, attempts = store.jobs[job_id], store.attempts_of(job_id)
    starts = [0, *ledger.rounds.get(job_id, ())]
    wants_more = False  # the policy asks for another attempt after the last one
    for first, last in zip(starts, [*starts[1:], len(attempts)], strict=True):
        wants_more = False
        used = 0  # retries
        for number, attempt in enumerate(attempts[first:last], 1):
            assert number == 1 or wants_more, f"{attempt} comes after {attempts[:last]}"
            if number > 1:
                check_memory(attempts[attempt.no - 2], attempt, ledger)
            if (job_id, attempt.no) in ledger.excused:
                wants_more = True
                continue
            used += 1
            if attempt.outcome is None:
                wants_more = False
                continue
            policy = ledger.policies[job_id, attempt.no]
            retried = attempt.outcome in policy.on or (attempt.oom != "" and policy.oom)
            coded = attempt.outcome is Outcome.FAILED and attempt.exit_code in policy.codes
            retried = retried or coded
            retried = retried and attempt.outcome is not Outcome.CANCELLED
            wants_more = retried and used <= policy.retries
    if attempts and attempts[-1].outcome is None:
        assert job.state is JobState.ACTIVE, f"{job} has a live attempt"
    elif ledger.waiting_cancelled.get(job_id) == len(attempts):
        assert job.outcome is Outcome.CANCELLED, f"{job} was cancelled while it waited"
    elif ledger.expired.get(job_id) == len(attempts):
        assert job.outcome is Outcome.NOT_STARTED, f"{job} was too late for its deadline"
    elif len(attempts) == starts[-1]:
        refused = not attempts and starts == [0] and job.outcome is Outcome.NOT_STARTED
        assert refused or job.state in (JobState.QUEUED, JobState.HELD), f"{job} was not tried"
    elif wants_more:
        assert job.state in (JobState.QUEUED, JobState.HELD), f"{job} has retries left"
    else:
        assert job.outcome is attempts[-1].outcome, f"{job} ends otherwise than {attempts[-1]}"


def check_memory(before: Attempt, after: Attempt, ledger: Ledger) -> None:
    """What was short of GPU memory gets more of it, or all there is of a GPU."""
    key = before.job, before.no
    if before.oom != "cuda" or key in ledger.excused or key in ledger.asked_anew:
        return
    had, has = ([(part.milli, part.mib) for part in a.lease] for a in (before, after))
    if all(milli == 1000 for milli, _ in had) or all(milli == 1000 for milli, _ in has):
        return
    assert min(mib for _, mib in has) > max(mib for _, mib in had), f"{after} as {before}"


def check_pause(job: Job, ledger: Ledger, now_ms: int) -> None:
    """`job` was queued again by its policy at `now_ms`."""
    if (job.id, job.attempt) in ledger.excused:
        assert not job.not_before_ms, f"{job} waits, and its end was no fault of its own"
        return
    first = ledger.first_of_round(job.id)
    excused = sum(j == job.id and no >= first for j, no in ledger.excused)
    retry = job.attempt - first + 1 - excused
    pause_s = min(job.retry.backoff_s * 2 ** (retry - 1), job.retry.backoff_max_s)
    waits_ms = job.not_before_ms - now_ms if job.not_before_ms else 0
    assert 750 * pause_s <= waits_ms <= 1000 * pause_s, f"{job} waits {waits_ms} of {pause_s} s"


def check_stories(store: FakeStore) -> None:
    """Of finished jobs: each was submitted, each attempt was dispatched once and ended once."""
    told: Counter[tuple[JobId, int, str]] = Counter()
    for entry in store.story:
        for job in range(entry.job, entry.job + entry.count):
            told[JobId(job), entry.attempt, entry.kind] += 1
    for job in store.jobs:
        assert told[job, 0, "submitted"] == 1, f"job {job} came without a word"
    for job, no in store.attempts:
        assert told[job, no, "dispatched"] == 1, f"attempt {job}.{no} was not dispatched once"
        assert told[job, no, "started"] <= 1, f"attempt {job}.{no} started twice"
        assert told[job, no, "ended"] == 1, f"attempt {job}.{no} ends without a word"
