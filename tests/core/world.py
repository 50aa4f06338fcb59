"""The world around the core, faked: a runner with a journal, a store, and the engine's turn.

Used by tests/core/machine.py. Each part checks by itself what it may be asked: the runner that an
attempt is started at most once and with one lease, the store that ids, attempt numbers and outcomes
are written as they must be. What the real ones do is in docs/runner-protocol.md and gpud/ports.py.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import count

from msgspec import Struct, structs

from gpud.core.actions import StartAttempt
from gpud.core.events import (
    AttemptEnded,
    AttemptLingering,
    AttemptNotStarted,
    AttemptStarted,
    KnownAttempt,
    RunnerReady,
)
from gpud.core.model import (
    Attempt,
    Cursor,
    Device,
    Job,
    JobId,
    JobSpec,
    JobState,
    LeasePart,
    Outcome,
    Story,
)
from gpud.core.placement import Pool
from gpud.core.state import Changes, NewSubmission, State

Key = tuple[JobId, int]
Fact = AttemptStarted | AttemptLingering | AttemptEnded | AttemptNotStarted

LOST_BY_RUNNER = "the runner died while it ran"


class Payload(Struct):
    """What the runner's journal and the machine hold of one attempt."""

    lease: tuple[LeasePart, ...]
    pid: int = 0  # 0 until its process is made
    orphan: bool = False  # its runner died: nobody can know how it ends
    stopped: bool = False
    started: AttemptStarted | None = None
    end: AttemptEnded | AttemptNotStarted | None = None


class FakeRunner:
    """Starts nothing; knows exactly what was started, what lives and how it ended."""

    def __init__(self) -> None:
        self.boot = 1
        self.connected = False
        self.journal: dict[Key, Payload] = {}
        self.ever: dict[Key, tuple[LeasePart, ...]] = {}  # accepted, in any boot
        self.truth: dict[Key, set[Outcome]] = {}  # what may be said of an end, but for a cancel
        self.ends: dict[Key, AttemptEnded] = {}  # in any boot
        self.wire: list[Fact] = []  # said, and not yet heard
        self.past: list[Fact] = []  # all that was ever said
        self._pids = count(100)

    @property
    def boot_id(self) -> str:
        return f"boot-{self.boot}"

    def alive(self) -> dict[Key, Payload]:
        return {key: payload for key, payload in self.journal.items() if payload.end is None}

    # -- what it is asked --------------------------------------------------------------------

    def start(self, action: StartAttempt) -> None:
        if not self.connected:
            return
        key = action.job, action.attempt
        if key in self.journal:
            payload = self.journal[key]
            assert payload.lease == action.lease, f"{key} is sent with two leases"
            if payload.end is not None:
                self._say(payload.end)
            elif payload.started is not None:
                self._say(payload.started)
            return
        assert key not in self.ever, f"{key} is started a second time"
        others = [other for other in self.alive() if other[0] == action.job]
        assert not others, f"{key} is started while {others} live"
        self.ever[key] = action.lease
        self.journal[key] = Payload(action.lease)

    def stop(self, key: Key) -> None:
        if self.connected and key in self.journal:
            self.journal[key].stopped = True

    def forget(self, key: Key) -> None:
        """Also compacts: from here on only the core keeps the attempt from a second start."""
        if self.connected and key in self.journal:
            assert self.journal[key].end is not None, f"{key} lives and shall be forgotten"
            del self.journal[key]

    def meet(self) -> RunnerReady:
        """A daemon says hello; what was on its way on the old connection is gone."""
        self.connected = True
        self.wire = [payload.end for payload in self.journal.values() if payload.end]
        known = [KnownAttempt(*key, phase(p), p.pid) for key, p in self.journal.items()]
        return RunnerReady(self.boot_id, tuple(known))

    # -- what happens to it ------------------------------------------------------------------

    def disconnect(self) -> None:
        self.connected = False
        self.wire.clear()

    def die(self) -> None:
        """The runner, not the payloads: what lives is adopted and ends as lost."""
        self.disconnect()
        for payload in self.alive().values():
            payload.orphan = True

    def reboot(self, now_ms: int, *, remembers: bool) -> None:
        """No payload survives; the journal does, or its last writes are gone with the power."""
        self.disconnect()
        self.boot += 1
        if remembers:
            for key in self.alive():
                self.end(key, now_ms, lost="the machine was restarted")
            self.wire.clear()
        else:
            for key in self.journal:
                self.truth.setdefault(key, set()).add(Outcome.LOST)
            self.journal.clear()

    # -- what happens to payloads --------------------------------------------------------------

    def launch(self, key: Key, now_ms: int) -> None:
        payload = self.journal[key]
        if not payload.pid and not payload.orphan:
            payload.pid = next(self._pids)
            payload.started = AttemptStarted(*key, payload.pid, now_ms)
            self._say(payload.started)

    def refuse(self, key: Key, now_ms: int) -> None:
        """Its directory does not exist, or something like that."""
        payload = self.journal[key]
        if not payload.pid and not payload.orphan:
            payload.end = AttemptNotStarted(*key, now_ms, "cwd", "the directory /x does not exist")
            self.truth[key] = {Outcome.NOT_STARTED}
            self._say(payload.end)

    def linger(self, key: Key, now_ms: int) -> None:
        if self.journal[key].pid:
            self._say(AttemptLingering(*key, now_ms, ("sleep (7)",)))

    def end(self, key: Key, now_ms: int, **how: object) -> None:
        payload = self.journal[key]
        if payload.orphan and "lost" not in how:
            how = {"lost": LOST_BY_RUNNER}
        elif not payload.pid and "lost" not in how:
            self.launch(key, now_ms)
        payload.end = self.ends[key] = AttemptEnded(*key, now_ms, **how)
        if "lost" in how:
            self.truth[key] = {Outcome.LOST}
        elif how.get("timed_out"):
            self.truth[key] = {Outcome.TIMED_OUT}
        elif "signal" in how:
            self.truth[key] = {Outcome.KILLED}
        else:
            self.truth[key] = {Outcome.FAILED if how["exit_code"] else Outcome.SUCCEEDED}
        self._say(payload.end)

    def _say(self, fact: Fact) -> None:
        self.past.append(fact)
        if self.connected:
            self.wire.append(fact)


def phase(payload: Payload) -> str:
    if payload.end is not None:
        return "not-started" if isinstance(payload.end, AttemptNotStarted) else "ended"
    if payload.stopped:
        return "stopping"
    return "running" if payload.pid else "starting"


class FakeStore:
    """Committed content only. Writes copies, so that nothing reaches it without a commit."""

    def __init__(self) -> None:
        self.jobs: dict[JobId, Job] = {}
        self.specs: dict[JobId, JobSpec] = {}
        self.attempts: dict[Key, Attempt] = {}
        self.story: list[Story] = []
        self.submissions: dict[str, NewSubmission] = {}
        self.cursors: dict[str, Cursor] = {}
        self.stopped: dict[str, bool] = {}
        self.next_id = JobId(1)
        self.draining = False

    def commit(self, changes: Changes) -> None:
        for job_id, new in changes.new:
            assert job_id == self.next_id, f"id {job_id} follows {self.next_id - 1}"
            assert job_id in changes.jobs, f"job {job_id} is new and has no record"
            self.specs[job_id] = new.spec
            self.next_id = JobId(job_id + 1)
        assert changes.next_id in (None, self.next_id)
        for key, attempt in sorted(changes.attempts.items()):
            self._write_attempt(key, attempt)
        for job_id, job in changes.jobs.items():
            assert job_id in self.specs, f"job {job_id} was never submitted"
            self.jobs[job_id] = copy.copy(job)
        for job_id in {*changes.jobs, *(job_id for job_id, _ in changes.attempts)}:
            self._check_job(job_id)
        self.story += changes.story
        assert not self.submissions.keys() & changes.submissions.keys()
        self.submissions |= changes.submissions
        self.cursors |= changes.cursors
        self.stopped |= changes.stopped
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
        self.attempts[key] = copy.copy(attempt)

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

    def load(self, devices: Sequence[Device]) -> State:
        state = State(Pool(devices))
        state.next_id, state.draining = self.next_id, self.draining
        state.stopped_sources = {source for source, stopped in self.stopped.items() if stopped}
        jobs = [copy.copy(job) for job in self.jobs.values() if job.state is not JobState.DONE]
        attempts = [copy.copy(a) for a in self.attempts.values() if a.outcome is None]
        state.load(sorted(jobs, key=lambda job: (-job.priority, job.id)), attempts)
        return state

    def recall(self, jobs: Sequence[JobId]) -> tuple[Job, ...]:
        found = [self.jobs[job_id] for job_id in dict.fromkeys(jobs) if job_id in self.jobs]
        return tuple(copy.copy(job) for job in found if job.state is JobState.DONE)


def picture(state: State) -> dict[str, object]:
    """All of a state that decisions rest on and that outlives a restart."""
    return {
        "jobs": {job_id: structs.astuple(job) for job_id, job in sorted(state.jobs.items())},
        "attempts": {job_id: structs.astuple(a) for job_id, a in sorted(state.attempts.items())},
        "leased": state.pool.leased,
        "next_id": state.next_id,
        "draining": state.draining,
        "stopped": state.stopped_sources,
    }
