"""The daemon of tests/core/machine.py: the engine's turn without its loop, with places to crash.

A turn is atomic, as in gpud/daemon/engine.py: drain the mailbox, handle, dispatch, commit, perform.
Beside the state runs its twin, which gets the same events at the same times: both must agree.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from enum import Enum, auto

from msgspec import structs

from gpud.core import deadlines, dispatching, scheduler
from gpud.core.actions import (
    Action,
    Answer,
    CheckpointAttempt,
    ContinueAttempt,
    ForgetAttempt,
    LookAtGpus,
    PauseAttempt,
    Refuse,
    StartAttempt,
    StopAttempt,
)
from gpud.core.events import (
    AttemptEnded,
    AttemptNotStarted,
    CancelRequested,
    CheckpointRequested,
    ContinueRequested,
    DevicesChanged,
    DrainRequested,
    EditRequested,
    EntriesRead,
    Event,
    GateRequested,
    GpuBroke,
    GpusSeen,
    HealRequested,
    HoldRequested,
    JobsSubmitted,
    MoveRequested,
    PauseRequested,
    ReleaseRequested,
    RetryRequested,
    RulesChanged,
    RunnerGone,
    RunnerReady,
    SwapRequested,
    UndrainRequested,
    WindowsTurned,
)
from gpud.core.health import DEFAULT_POLICY, GpuPolicy
from gpud.core.invariants import check_invariants
from gpud.core.model import Attempt, Device, JobId, JobSpec, JobState, Outcome, Phase
from gpud.core.rules import DEFAULT, NO_RULES, Rules, Window

from . import answers, edited, holds, pauses, promises, starts, watch
from .afters import Afters
from .gpus import FakeGpus
from .store import FakeStore, picture
from .world import FakeRunner


class Fate(Enum):
    """How far a turn gets."""

    WHOLE = auto()
    LATER = auto()  # no turn: the event waits in the mailbox for the next one
    CRASH_BEFORE_COMMIT = auto()
    CRASH_BEFORE_ACTIONS = auto()
    CRASH_AMID_ACTIONS = auto()
    STORE_FULL = auto()  # the turn is undone, the daemon lives on


class Daemon:
    def __init__(
        self,
        devices: Sequence[Device],
        gpus: FakeGpus | None = None,
        policy: GpuPolicy = DEFAULT_POLICY,
        rules: Rules = NO_RULES,
    ) -> None:
        self.store = FakeStore()
        self.runner = FakeRunner()
        self.gpus = gpus or FakeGpus(devices)
        self.devices = tuple(devices)
        self.policy = policy
        self.rules = rules
        self.told: dict[str, dict[str, Window]] = {}  # what providers of windows have said
        self.mailbox: list[Event] = []
        self.ledger = promises.Ledger()
        self.kept = self.ledger.copy()  # as of the last commit
        self.restart()

    def restart(self) -> None:
        """Memory is gone; what is committed is loaded, and the runner is to be met again."""
        self.state = self.store.load(self.devices, self.policy, self.rules)
        self.twin = self.store.load(self.devices, self.policy, self.rules)
        self.told.clear()
        self.watch = watch.Watch()
        for attempt in self.state.attempts.values():
            for uuid, mib in attempt.usage.base_mib.items() if attempt.usage else ():
                self.watch.of(uuid).base_mib = mib
        self.ledger = self.kept.copy()
        self.ledger.runner_ready = False
        self.ledger.freed |= {j.id for j in self.state.jobs.values() if j.state is JobState.QUEUED}
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
        if isinstance(event, JobsSubmitted):
            known = {job.id: job.outcome for job in self.store.jobs.values() if job.outcome}
            event = structs.replace(event, outcomes=known)
            if event.key in self.store.submissions:
                found = self.store.submissions[event.key]
                earlier = (found.first, found.count, found.digest)
                event = structs.replace(event, earlier=earlier)
        if isinstance(event, EditRequested):
            known = {job.id: job.outcome for job in self.store.jobs.values() if job.outcome}
            return structs.replace(event, outcomes=known)
        if isinstance(event, AttemptEnded):
            live = self.state.attempts.get(event.job)
            if live is not None and live.usage is not None and live.usage.peak_mib:
                request = self.store.specs[event.job].request
                return structs.replace(event, likeness=request.likeness)
        if isinstance(event, RetryRequested):
            done = [job for job in event.jobs if job not in self.state.jobs]
            known = {job.id: job.outcome for job in self.store.jobs.values() if job.outcome}
            return structs.replace(event, recalled=self.store.recall(done), outcomes=known)
        return event

    def handle(self, event: Event, now_ms: int) -> Sequence[Action]:
        live = dict(self.state.attempts)
        finishing = {job for job, a in live.items() if a.phase is Phase.FINISHING}
        attempts = {job_id: job.attempt for job_id, job in self.state.jobs.items()}
        waiting = {j for j, job in self.state.jobs.items() if job.state is not JobState.ACTIVE}
        held = {j for j, job in self.state.jobs.items() if job.state is JobState.HELD}
        first = self.state.next_id
        afters = Afters(self.state, self.store)
        if isinstance(event, RetryRequested):
            done = {job_id for job_id in range(1, first) if job_id not in attempts}
            may_be_retried = afters.can_be_retried(event, done - self.ledger.bad_entries, now_ms)
            succeeded = {j for j in done if afters.outcome_of(JobId(j)) is Outcome.SUCCEEDED}
        elif isinstance(event, JobsSubmitted):
            possible = [
                afters.can_be_submitted(new.spec, JobId(first + n), first, now_ms)
                for n, new in enumerate(event.jobs)
            ]
        if isinstance(event, EditRequested | MoveRequested | SwapRequested):
            before = edited.Before(self.state, afters)
        busy = self.busy_gpus() if isinstance(event, GpusSeen) else ()
        if isinstance(event, PauseRequested | ContinueRequested | CheckpointRequested):
            may_be_asked = pauses.possible(event, live.values(), self.ledger, self.specs())
        was_idle = pauses.told_idle(live.values())
        actions = scheduler.handle(self.state, event, now_ms)
        if isinstance(event, GpusSeen | GpuBroke):
            self.note_gpus(event, now_ms, busy)
            pauses.check_idle(self.state, self.ledger, was_idle, self.policy, now_ms)
        if isinstance(event, AttemptEnded | AttemptNotStarted):
            told = ForgetAttempt(event.job, event.attempt)
            assert told in actions, f"{event} is told again and again"
        for attempt in self.state.attempts.values():
            if attempt.phase is Phase.FINISHING and attempt.job not in finishing:
                gpus = watch.uuids_of(attempt.lease, self.state.pool.devices)
                self.watch.note_end(gpus, attempt.ended_at_ms, looked_at=False)
                self.ledger.note_gone(attempt, self.runner.ends[attempt.job, attempt.no])
        assert not any(isinstance(a, StartAttempt) for a in actions) or isinstance(
            event, RunnerReady
        ), f"{event} starts something by itself"
        for job_id, attempt in live.items():
            if job_id not in self.state.attempts:
                assert attempt.outcome is not None, f"{attempt} is gone without an outcome"
                self.note_end(attempt, looked_at=job_id in finishing)
                job = self.state.jobs.get(job_id)
                if job is not None and job.state is JobState.QUEUED:
                    promises.check_pause(job, self.ledger, now_ms)
        specs = Afters(self.state, self.store).specs
        gone = [a for job_id, a in live.items() if job_id not in self.state.attempts]
        holds.note_ends(gone, self.state, self.state.gates.rules, self.ledger, specs)
        match event:
            case WindowsTurned():
                self.told[event.provider] = event.windows
            case GateRequested():
                self.note_word(event)
            case RunnerReady():
                self.ledger.runner_ready = True
                self.ledger.older = {(k.job, k.attempt) for k in event.known if k.older}
                self.note_boot(event.boot_id, now_ms)
            case HealRequested():
                for uuid in event.uuids or {*self.watch.gpus, *self.ledger.quarantined}:
                    self.note_heal(uuid, now_ms)
            case GpusSeen():
                watch.check_guests(self.state, self.watch, self.policy)
            case RunnerGone():
                self.ledger.runner_ready = False
            case DrainRequested():
                self.ledger.draining = True
            case UndrainRequested():
                self.ledger.draining = False
            case JobsSubmitted():
                answers.check_new(self.state, self.ledger, event, first, actions, all(possible))
            case EntriesRead():
                answers.check_new(self.state, self.ledger, event, first, actions, True)
            case CancelRequested():
                for job_id in answers.answered(event, actions, set(attempts)):
                    self.ledger.held.discard(job_id)
                    if job_id in live:
                        key = job_id, live[job_id].no
                        self.ledger.cancelled.add(key)
                        self.ledger.leaving.discard(key)
                        self.ledger.note_continue(key, now_ms)
                    else:
                        self.ledger.waiting_cancelled[job_id] = attempts[job_id]
            case RetryRequested():
                for job_id in answers.answered(event, actions, may_be_retried):
                    job = self.state.jobs[job_id]
                    assert job.retries_left == job.retry.retries, f"{job} has not all its retries"
                    assert event.args is None or job.retry_args == event.args
                    if job_id in succeeded:
                        self.ledger.resuming.discard(job_id)
                    tried = job.attempt
                    before = self.ledger.rounds.get(job_id, ())
                    self.ledger.rounds[job_id] = (*before, tried)
                    self.ledger.waiting_cancelled.pop(job_id, None)
                    self.ledger.expired.pop(job_id, None)
                    self.ledger.freed.add(job_id)
            case PauseRequested() | ContinueRequested() | CheckpointRequested():
                granted = answers.answered(event, actions, may_be_asked)
                keys = [(job_id, live[job_id].no) for job_id in granted]
                pauses.note(event, keys, self.ledger, now_ms)
            case EditRequested() | MoveRequested() | SwapRequested():
                edited.check(before, self.state, event, actions, self.ledger, now_ms)
            case HoldRequested():
                self.ledger.held.update(answers.answered(event, actions, waiting))
            case ReleaseRequested():
                released = answers.answered(event, actions, set(attempts))
                for job_id in held & {*released}:
                    holds.note_release(job_id, self.state.gates.rules, self.ledger, specs[job_id])
                self.ledger.held.difference_update(released)
        self.note_cascade(waiting, attempts)
        holds.note_held(held, self.state, self.state.gates.rules, self.ledger, specs)
        return actions

    def specs(self) -> dict[JobId, JobSpec]:
        """Of this turn's new jobs, too."""
        return self.store.specs | {job: new.spec for job, new in self.state.changes.new}

    def note_word(self, event: GateRequested) -> None:
        """A person's word about a gate stays until there is another; a new number of fails counts
        from then on."""
        limit, max_fails = self.ledger.said.get(event.key, (DEFAULT, DEFAULT))
        limit = limit if event.limit is None else event.limit
        if event.max_fails is not None:
            max_fails = event.max_fails
            self.ledger.fails.pop(event.key, None)
        self.ledger.said[event.key] = limit, max_fails

    def holds(self, now_ms: int) -> holds.Holds:
        """As of now."""
        specs = Afters(self.state, self.store).specs
        attempts = self.store.attempts | self.state.changes.attempts
        rules = self.state.gates.rules
        return holds.Holds(rules, self.ledger, self.told, specs, attempts.values(), now_ms)

    def note_cascade(self, waiting: set[JobId], attempts: dict[JobId, int]) -> None:
        """Jobs that waited and have ended without anybody's cancel."""
        afters = Afters(self.state, self.store)
        afters.check()
        for job_id in waiting - self.state.jobs.keys() - self.ledger.waiting_cancelled.keys():
            assert afters.is_hopeless(job_id), f"job {job_id} ends, and nobody asked for it"
            self.ledger.waiting_cancelled[job_id] = attempts[job_id]
            self.ledger.held.discard(job_id)

    def dispatch(self, now_ms: int) -> list[Action]:
        self.expire(now_ms)
        afters = Afters(self.state, self.store)
        holds = self.holds(now_ms)
        before = starts.Before(self.state, self.watch, now_ms, afters, holds)
        actions = dispatching.dispatch(self.state, now_ms)
        started = [action for action in actions if isinstance(action, StartAttempt)]
        may_be = StartAttempt | LookAtGpus | CheckpointAttempt
        assert all(isinstance(action, may_be) for action in actions)
        asked = {(a.job, a.attempt) for a in actions if isinstance(a, CheckpointAttempt)}
        starts.check_preempted(before, self.state, self.ledger, asked)
        self.ledger.note_preempted(asked, now_ms)
        boot_id = self.runner.boot_id
        starts.check_dispatch(before, self.state, self.ledger, self.watch, boot_id, started)
        return actions

    def expire(self, now_ms: int) -> None:
        """What a dispatch does first; the twin lets it do so."""
        specs = Afters(self.state, self.store).specs
        waiting = {job.id: job.attempt for job in self.state.jobs.values() if promises.waits(job)}
        last = {job_id: promises.last_start_of(specs[job_id]) for job_id in waiting}
        late = {job_id for job_id in waiting if last[job_id] and last[job_id] < now_ms}
        deadlines.expire(self.state, now_ms)
        assert not late & self.state.jobs.keys(), f"{late} should have started"
        for job_id in late:
            self.ledger.expired[job_id] = waiting[job_id]
            self.ledger.held.discard(job_id)
        self.note_cascade(waiting.keys() - late, waiting)

    # -- what is known of the GPUs -----------------------------------------------------------------

    def busy_gpus(self) -> set[str]:
        attempts = self.state.attempts.values()
        leases = [a.lease for a in attempts if a.phase is not Phase.FINISHING]
        devices = self.state.pool.devices
        return {uuid for lease in leases for uuid in watch.uuids_of(lease, devices)}

    def note_gpus(self, event: GpusSeen | GpuBroke, now_ms: int, busy: Collection[str]) -> None:
        broke = []
        if isinstance(event, GpuBroke):
            broke.append(event.uuid)
        elif self.note_memory(event, now_ms, busy):
            broke += [sight.uuid for sight in self.watch.judged(event) if sight.broken]
        for uuid in broke:
            self.watch.of(uuid)
            self.ledger.quarantined.setdefault(uuid, (now_ms, self.state.boot_id))
        pauses.note_stops(self.state, self.ledger, self.specs(), now_ms)

    def note_memory(self, look: GpusSeen, now_ms: int, busy: Collection[str]) -> bool:
        """GPUs that are set aside, or taken back, for memory. False: the look came too late."""
        ledger, wait_ms = self.ledger, self.policy.release_wait_ms
        before = set(ledger.memory)
        broken = ledger.quarantined.keys() - before
        judged = self.watch.note_look(look, now_ms, busy, wait_ms, ledger.memory, broken)
        for uuid in ledger.memory.keys() - before:
            ledger.quarantined[uuid] = now_ms, self.state.boot_id
        for uuid in before - ledger.memory.keys():
            del ledger.quarantined[uuid]
        return judged

    def note_end(self, attempt: Attempt, *, looked_at: bool) -> None:
        gpus = watch.uuids_of(attempt.lease, self.state.pool.devices)
        self.watch.note_end(gpus, attempt.ended_at_ms, looked_at=looked_at)
        policy = Afters(self.state, self.store).specs[attempt.job].retry
        self.ledger.note_gone(attempt, self.runner.ends.get((attempt.job, attempt.no)))
        self.ledger.note_end(attempt, set(gpus), policy)

    def note_boot(self, boot_id: str, now_ms: int) -> None:
        for uuid, (at_ms, boot) in [*self.ledger.quarantined.items()]:
            if boot and boot != boot_id:
                self.note_heal(uuid, now_ms)
            else:
                self.ledger.quarantined[uuid] = at_ms, boot_id

    def note_heal(self, uuid: str, now_ms: int) -> None:
        if uuid in self.ledger.quarantined or self.watch.of(uuid).unreleased_ms is not None:
            self.watch.note_heal(uuid, now_ms)
            self.ledger.quarantined.pop(uuid, None)
            self.ledger.memory.pop(uuid, None)

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
        for job_id, spec in self.ledger.specs.items():
            assert self.store.specs[job_id] == spec, f"job {job_id} does not say what it was made"
        again = self.store.load(self.devices_of_state(), self.policy, self.state.gates.rules)
        there, here = picture(again), picture(self.state)
        changed = {k: (here[k], there[k]) for k in here if here[k] != there[k]}
        assert not changed, f"a restart now would change the state: {changed}"
        check_invariants(again)

    def perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case StartAttempt():
                    resumes = action.job in self.ledger.resuming
                    assert action.resume == resumes, f"{action}: {self.ledger.resuming}"
                    self.runner.start(action)
                case StopAttempt():
                    key = action.job, action.attempt
                    assert key in self.ledger.cancelled or key in self.ledger.stopped
                    assert key not in self.ledger.leaving, f"{key} is to save its state"
                    self.runner.stop(key)
                case CheckpointAttempt():
                    key = action.job, action.attempt
                    over = key in self.runner.ends  # it was, before it was asked
                    assert over or key in self.ledger.stopped, f"{key} is to go on"
                    assert action.signal == self.store.specs[action.job].checkpoint
                    self.runner.stop(key)
                case PauseAttempt():
                    key = action.job, action.attempt
                    asked = key in self.ledger.paused or key in self.ledger.paused_ms
                    assert asked, f"{key} is to go on"
                    self.runner.pause(key)
                case ContinueAttempt():
                    key = action.job, action.attempt
                    assert key in self.ledger.paused_ms, f"{key} was never to go on"
                    self.runner.pause(key, paused=False)
                case ForgetAttempt():
                    key = action.job, action.attempt
                    attempt = self.store.attempts[key]
                    known = attempt.outcome is not None or attempt.phase is Phase.FINISHING
                    assert known, f"{key} has no end yet"
                    self.runner.forget(key)
                case Answer(jobs=()):
                    pass  # what it counts is no jobs
                case Answer():
                    first = action.jobs[0] if action.count else 0
                    for job in {*action.jobs, *range(first, first + action.count)}:
                        assert job in self.store.jobs, f"{action} before the commit"
                case LookAtGpus():
                    self.gpus.asked = True
                case Refuse():
                    assert action.message.startswith("cannot ")

    def change_rules(self, rules: Rules) -> None:
        self.rules = rules
        self.post(RulesChanged(rules))

    def change_devices(self, devices: Sequence[Device]) -> None:
        """Another configuration: for the next turn, and for every state loaded later."""
        self.devices = tuple(devices)
        self.post(DevicesChanged(self.devices, self.policy))


def own(event: Event) -> Event:
    """The twin's copy: recalled records become part of the state that they are given to."""
    if isinstance(event, RetryRequested):
        recalled = tuple(copy.copy(job) for job in event.recalled)
        return structs.replace(event, recalled=recalled)
    return event
