"""What people asked for and what they may count on, as a ledger beside the core.

The machine writes down each wish when the core has handled it; the functions here say what the
state, the store and every start must look like then. Capacity is counted here afresh, without
core/placement.py, and the pause of a retry without core/retry.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from gpud.core import explain, scheduler
from gpud.core.actions import StartAttempt
from gpud.core.model import (
    CPU_LANE,
    Attempt,
    Cursor,
    Device,
    Job,
    JobId,
    JobState,
    LeasePart,
    Outcome,
    Phase,
    Request,
)
from gpud.core.reconcile import NO_DEVICE
from gpud.core.state import State

from .world import FakeRunner, FakeStore, Key


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
        )

    def first_of_round(self, job: JobId) -> int:
        """The number of the first attempt since the submit or the last retry by a person."""
        return 1 + self.rounds.get(job, (0,))[-1]


# -- capacity, counted afresh -----------------------------------------------------------------


class Free:
    """Free slots per device, from leases alone."""

    def __init__(self, devices: Iterable[Device], leases: Iterable[Sequence[LeasePart]]) -> None:
        self.devices = {device.key: device for device in devices}
        self.used: dict[str, int] = {}
        for lease in leases:
            self.take(lease)

    def take(self, lease: Sequence[LeasePart]) -> None:
        for part in lease:
            self.used[part.device] = self.used.get(part.device, 0) + part.milli

    def slots(self, device: Device) -> int:
        """None while one of its GPUs is in use under another grouping."""
        for key in self.used:
            if key != device.key and set(key.split(",")) & set(device.ids):
                return 0
        return max(0, (1000 - self.used.get(device.key, 0)) // (1000 // device.slots))

    def fits(self, request: Request) -> bool:
        free = [device for device in self.devices.values() if self.slots(device)]
        if request.gpus is None and self.devices.keys() - {CPU_LANE}:
            return any(device.key != CPU_LANE for device in free)
        if not request.gpus:
            return any(device.key == CPU_LANE for device in free)
        widths = [len(device.ids) for device in free]
        return request.gpus in widths or widths.count(1) >= request.gpus

    def check_lease(self, request: Request, lease: Sequence[LeasePart]) -> None:
        """The lease is what was asked for, and it was free."""
        keys = [part.device for part in lease]
        assert keys, "a lease of nothing"
        assert len(set(keys)) == len(keys), f"{lease} has a device twice"
        for part in lease:
            device = self.devices[part.device]
            assert self.slots(device), f"{lease} takes {device}, of which {self.used} is used"
            assert part.milli == 1000 // device.slots, f"{lease} takes another share of {device}"
        gpus = sum(len(self.devices[key].ids) for key in keys)
        if request.gpus is None:
            assert len(keys) == 1, f"{lease} for one slot"
            assert gpus or not self.devices.keys() - {CPU_LANE}, f"{lease} for one slot of a GPU"
        else:
            assert gpus == request.gpus, f"{lease} for {request}"
            assert keys == [CPU_LANE] if request.gpus == 0 else CPU_LANE not in keys


# -- after each dispatch ------------------------------------------------------------------------


def check_dispatch(
    before: list[Job],
    state: State,
    ledger: Ledger,
    leases: Free,
    boot_id: str,
    starts: list[StartAttempt],
) -> None:
    """`before`: the jobs that were queued and due; `leases`: what was taken by then."""
    waiting = {job.id: job for job in before}
    if ledger.draining or not ledger.runner_ready:
        assert not starts, f"{starts} while drained or without a runner"
        return
    rank = {job.id: (-job.priority, job.id) for job in before}
    for start in starts:
        job = waiting.pop(start.job)
        assert job.id not in ledger.held, f"{job} is held and starts"
        assert job.id not in ledger.waiting_cancelled, f"{job} is cancelled and starts"
        passed = [other for other in waiting if rank[other] < rank[job.id]]
        for other in passed:
            assert not leases.fits(waiting[other].request), f"{job} starts before job {other}"
        leases.check_lease(job.request, start.lease)
        assert state.attempts[job.id].boot_id == boot_id, f"{start} is of another boot"
        leases.take(start.lease)
    for job in waiting.values():
        assert not leases.fits(job.request), f"{job} fits and waits"


# -- at any time ----------------------------------------------------------------------------------


def check_told(state: State, runner: FakeRunner, ledger: Ledger) -> None:
    """With nothing on its way, the runner has every attempt that it should, and every stop."""
    if ledger.runner_ready and runner.connected:
        for key, payload in runner.alive().items():
            assert payload.stopped or key not in ledger.cancelled, f"{key} is not told to stop"
        for job, live in state.attempts.items():
            assert (job, live.no) in runner.journal, f"{live} never got to the runner"


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
    """Nothing waits without a reason; what waits for a time has a deadline."""
    due = [job.not_before_ms for job in state.jobs.values() if job.not_before_ms]
    deadline = scheduler.next_deadline(state)
    assert deadline == (min(due) if due else None), f"{deadline} for what is due at {due}"
    for job in state.jobs.values():
        assert explain.explain(state, job.id, now_ms), f"{job} waits without a reason"
        assert explain.ahead(state, job.id) >= 0
        assert (job.id in ledger.held) == (job.state is JobState.HELD), f"{job}: {ledger.held}"
    assert state.draining == ledger.draining


def check_wishes(state: State, ledger: Ledger) -> None:
    """A cancel that was handled stays so: no new attempt, and the live one is being stopped."""
    for job in ledger.waiting_cancelled:
        assert job not in state.jobs, f"job {job} was cancelled and waits again"
    for job, no in ledger.cancelled:
        live = state.attempts.get(job)
        if live is not None and live.no == no:
            assert live.phase is Phase.STOPPING, f"{live} was cancelled"


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
    elif key in runner.ever:
        allowed = runner.truth.get(key, set())
        assert attempt.outcome in allowed, f"{attempt}, in truth {allowed}"
    elif attempt.outcome is not Outcome.NOT_STARTED or attempt.why != NO_DEVICE:
        assert attempt.boot_id != runner.boot_id, f"{attempt} was never started in this boot"
        assert attempt.outcome is Outcome.LOST, f"{attempt} was never started"


def check_history(store: FakeStore, ledger: Ledger, job_id: JobId) -> None:
    """Attempts follow one another as the policy says, and the job has the outcome of its last."""
    job, attempts = store.jobs[job_id], store.attempts_of(job_id)
    policy = store.specs[job_id].retry
    starts = [0, *ledger.rounds.get(job_id, ())]
    wants_more = False  # the policy asks for another attempt after the last one
    for first, last in zip(starts, [*starts[1:], len(attempts)], strict=True):
        wants_more = False
        for number, attempt in enumerate(attempts[first:last], 1):
            assert number == 1 or wants_more, f"{attempt} comes after {attempts[:last]}"
            more = number <= policy.retries
            wants_more = more and attempt.outcome in policy.on
    if attempts and attempts[-1].outcome is None:
        assert job.state is JobState.ACTIVE, f"{job} has a live attempt"
    elif ledger.waiting_cancelled.get(job_id) == len(attempts):
        assert job.outcome is Outcome.CANCELLED, f"{job} was cancelled while it waited"
    elif len(attempts) == starts[-1]:
        refused = not attempts and starts == [0] and job.outcome is Outcome.NOT_STARTED
        assert refused or job.state in (JobState.QUEUED, JobState.HELD), f"{job} was not tried"
    elif wants_more:
        assert job.state in (JobState.QUEUED, JobState.HELD), f"{job} has retries left"
    else:
        assert job.outcome is attempts[-1].outcome, f"{job} ends otherwise than {attempts[-1]}"


def check_pause(job: Job, ledger: Ledger, now_ms: int) -> None:
    """`job` was queued again by its policy at `now_ms`."""
    retry = job.attempt - ledger.first_of_round(job.id) + 1
    pause_s = min(job.retry.backoff_s * 2 ** (retry - 1), job.retry.backoff_max_s)
    due = now_ms + int(1000 * pause_s) if pause_s else 0
    assert job.not_before_ms == due, f"{job} is due at {job.not_before_ms}, not at {due}"


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
