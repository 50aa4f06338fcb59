"""The daemon of tests/core/machine.py: the engine's turn without its loop, with places to crash.

A turn is atomic, as in gpud/daemon/engine.py: drain the mailbox, handle, dispatch, commit, perform.
Beside the state runs its twin, which gets the same events at the same times: both must agree.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from enum import Enum, auto

from gpud.core import scheduler
from gpud.core.actions import (
    Action,
    Answer,
    ForgetAttempt,
    Refuse,
    StartAttempt,
    StopAttempt,
)
from gpud.core.events import (
    CancelRequested,
    DevicesChanged,
    DrainRequested,
    EntriesRead,
    Event,
    HoldRequested,
    JobsSubmitted,
    ReleaseRequested,
    RetryRequested,
    RunnerGone,
    RunnerReady,
    UndrainRequested,
)
from gpud.core.invariants import check_invariants
from gpud.core.model import Device, JobId, JobState

from . import promises
from .world import FakeRunner, FakeStore, picture


class Fate(Enum):
    """How far a turn gets."""

    WHOLE = auto()
    LATER = auto()  # no turn: the event waits in the mailbox for the next one
    CRASH_BEFORE_COMMIT = auto()
    CRASH_BEFORE_ACTIONS = auto()
    CRASH_AMID_ACTIONS = auto()
    STORE_FULL = auto()  # the turn is undone, the daemon lives on


class Daemon:
    def __init__(self, devices: Sequence[Device]) -> None:
        self.store = FakeStore()
        self.runner = FakeRunner()
        self.devices = tuple(devices)
        self.mailbox: list[Event] = []
        self.ledger = promises.Ledger()
        self.kept = self.ledger.copy()  # as of the last commit
        self.restart()

    def restart(self) -> None:
        """Memory is gone; what is committed is loaded, and the runner is to be met again."""
        self.state = self.store.load(self.devices)
        self.twin = self.store.load(self.devices)
        self.ledger = self.kept.copy()
        self.ledger.runner_ready = False
        self.mailbox.clear()
        self.runner.disconnect()
        check_invariants(self.state)

    def post(self, event: Event) -> None:
        self.mailbox.append(event)

    # -- the turn --------------------------------------------------------------------------------

    def turn(self, now_ms: int, fate: Fate = Fate.WHOLE, performed: int = 0) -> None:
        if fate is Fate.LATER:
            return
        actions = self.decide(now_ms)
        if fate in (Fate.CRASH_BEFORE_COMMIT, Fate.STORE_FULL):
            self.restart()
            return
        self.commit()
        if fate is Fate.CRASH_BEFORE_ACTIONS:
            actions = []
        elif fate is Fate.CRASH_AMID_ACTIONS:
            actions = actions[:performed]
        self.perform(actions)
        if fate is not Fate.WHOLE:
            self.restart()

    def decide(self, now_ms: int) -> list[Action]:
        events = [self.with_past(event) for event in self.mailbox]
        self.mailbox.clear()
        expected = scheduler.step(self.twin, [own(event) for event in events], now_ms)
        actions: list[Action] = []
        for event in events:
            actions += self.handle(event, now_ms)
        actions += self.dispatch(now_ms)
        assert actions == expected, "the same events at the same time, and other actions"
        assert picture(self.state) == picture(self.twin), "the twin has become another"
        assert self.state.stale == self.twin.stale, "the twin counts other stale facts"
        check_invariants(self.state)
        promises.check_wishes(self.state, self.ledger)
        return actions

    def with_past(self, event: Event) -> Event:
        """What the engine adds: earlier submits by key, records of done jobs."""
        if isinstance(event, JobsSubmitted) and event.key in self.store.submissions:
            found = self.store.submissions[event.key]
            earlier = (found.first, found.count, found.digest)
            return JobsSubmitted(event.request, event.jobs, event.key, event.digest, earlier)
        if isinstance(event, RetryRequested):
            done = [job for job in event.jobs if job not in self.state.jobs]
            return RetryRequested(event.request, event.jobs, self.store.recall(done))
        return event

    def handle(self, event: Event, now_ms: int) -> Sequence[Action]:
        live = dict(self.state.attempts)
        attempts = {job_id: job.attempt for job_id, job in self.state.jobs.items()}
        waiting = {j for j, job in self.state.jobs.items() if job.state is not JobState.ACTIVE}
        first = self.state.next_id
        actions = scheduler.handle(self.state, event, now_ms)
        assert not any(isinstance(a, StartAttempt) for a in actions) or isinstance(
            event, RunnerReady
        ), f"{event} starts something by itself"
        for job_id, attempt in live.items():
            if job_id not in self.state.attempts:
                assert attempt.outcome is not None, f"{attempt} is gone without an outcome"
                if (job := self.state.jobs.get(job_id)) is not None:
                    promises.check_pause(job, self.ledger, now_ms)
        match event:
            case RunnerReady():
                self.ledger.runner_ready = True
            case RunnerGone():
                self.ledger.runner_ready = False
            case DrainRequested():
                self.ledger.draining = True
            case UndrainRequested():
                self.ledger.draining = False
            case JobsSubmitted() | EntriesRead():
                self.note_new(event, first, actions)
            case CancelRequested():
                for job_id in self.answered(event, actions, set(attempts)):
                    self.ledger.held.discard(job_id)
                    if job_id in live:
                        self.ledger.cancelled.add((job_id, live[job_id].no))
                    else:
                        self.ledger.waiting_cancelled[job_id] = attempts[job_id]
            case RetryRequested():
                done = {job_id for job_id in range(1, first) if job_id not in attempts}
                done -= self.ledger.bad_entries
                for job_id in self.answered(event, actions, done):
                    tried = self.state.jobs[job_id].attempt
                    before = self.ledger.rounds.get(job_id, ())
                    self.ledger.rounds[job_id] = (*before, tried)
                    self.ledger.waiting_cancelled.pop(job_id, None)
            case HoldRequested():
                self.ledger.held.update(self.answered(event, actions, waiting))
            case ReleaseRequested():
                self.ledger.held.difference_update(self.answered(event, actions, set(attempts)))
        return actions

    def answered(
        self,
        event: CancelRequested | RetryRequested | HoldRequested | ReleaseRequested,
        actions: Sequence[Action],
        possible: set[int],
    ) -> tuple[JobId, ...]:
        """Each id that was asked for is changed or refused with a sentence, as it must be."""
        (answer,) = (a for a in actions if isinstance(a, Answer))
        assert answer.request == event.request
        assert set(answer.jobs) == set(event.jobs) & possible
        assert {job for job, _ in answer.refused} == set(event.jobs) - possible
        assert all(why.startswith("cannot ") for _, why in answer.refused)
        return answer.jobs

    def note_new(
        self, event: JobsSubmitted | EntriesRead, first: JobId, actions: Sequence[Action]
    ) -> None:
        (answer,) = actions
        assert isinstance(answer, Answer | Refuse)
        assert answer.request == event.request
        key = event.key if isinstance(event, JobsSubmitted) else ""
        if isinstance(answer, Refuse) or answer.again:
            assert self.state.next_id == first, f"{answer} made jobs"
        pool = promises.Free(self.devices_of_state(), [])
        possible = [pool.fits(job.spec.request) for job in event.jobs]
        if key in self.ledger.keys:
            digest, first_then, count = self.ledger.keys[key]
            if event.digest == digest:
                same = Answer(event.request, (first_then,), count, again=True)
                assert answer == same, f"another answer for the key {key}: {answer}"
            else:
                assert isinstance(answer, Refuse), f"the key {key} stands for two submits"
        elif isinstance(answer, Answer):
            assert answer == Answer(event.request, (first,)[: len(event.jobs)], len(event.jobs))
            new = {JobId(first + n): job.spec for n, job in enumerate(event.jobs)}
            good = [p and not job.problem for p, job in zip(possible, event.jobs, strict=True)]
            assert all(possible) or isinstance(event, EntriesRead), f"{event} cannot be served"
            assert [j in self.state.jobs for j in new] == good, f"other entries of {event} are good"
            assert self.state.next_id == first + len(new)
            self.ledger.bad_entries |= {j for j in new if j not in self.state.jobs}
            self.ledger.held |= {j for j, s in new.items() if s.held and j in self.state.jobs}
            if key:
                self.ledger.keys[key] = event.digest, first, len(new)
            if isinstance(event, EntriesRead):
                self.ledger.cursors[event.source] = event.cursor
        else:
            assert not all(possible), f"{answer} for no reason"

    def dispatch(self, now_ms: int) -> list[Action]:
        queued = [copy.copy(j) for j in self.state.jobs.values() if j.state is JobState.QUEUED]
        due = [job for job in queued if job.not_before_ms <= now_ms]
        leases = [attempt.lease for attempt in self.state.attempts.values()]
        free = promises.Free(self.devices_of_state(), leases)
        actions = scheduler.dispatch(self.state, now_ms)
        starts = [action for action in actions if isinstance(action, StartAttempt)]
        assert starts == actions
        boot_id = self.runner.boot_id
        promises.check_dispatch(due, self.state, self.ledger, free, boot_id, starts)
        return actions

    def devices_of_state(self) -> list[Device]:
        return list(self.state.pool.devices.values())

    def commit(self) -> None:
        changes = self.state.take_changes()
        self.twin.take_changes()
        touched = {*changes.jobs, *(job for job, _ in changes.attempts)}
        if changes:
            self.store.commit(changes)
        assert self.store.cursors == self.ledger.cursors, "a cursor without its entries"
        self.kept = self.ledger.copy()
        promises.check_written(self.store, self.runner, self.ledger, touched)
        again = self.store.load(self.devices_of_state())
        assert picture(again) == picture(self.state), "a restart now would change the state"
        check_invariants(again)

    def perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case StartAttempt():
                    self.runner.start(action)
                case StopAttempt():
                    assert (action.job, action.attempt) in self.ledger.cancelled
                    self.runner.stop((action.job, action.attempt))
                case ForgetAttempt():
                    key = action.job, action.attempt
                    assert self.store.attempts[key].outcome is not None, f"{key} has no end yet"
                    self.runner.forget(key)
                case Answer():
                    first = action.jobs[0] if action.count else 0
                    for job in {*action.jobs, *range(first, first + action.count)}:
                        assert job in self.store.jobs, f"{action} before the commit"
                case Refuse():
                    assert action.message.startswith("cannot ")

    def change_devices(self, devices: Sequence[Device]) -> None:
        """Another configuration: for the next turn, and for every state loaded later."""
        self.devices = tuple(devices)
        self.post(DevicesChanged(self.devices))


def own(event: Event) -> Event:
    """The twin's copy: recalled records become part of the state that they are given to."""
    if isinstance(event, RetryRequested):
        recalled = tuple(copy.copy(job) for job in event.recalled)
        return RetryRequested(event.request, event.jobs, recalled)
    return event
