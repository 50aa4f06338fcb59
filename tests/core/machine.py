"""A state machine that lives with the core: people, sources, payloads, crashes and reboots.

`CoreMachine` draws what happens next; tests/core/turns.py is the daemon it happens to,
tests/core/world.py the runner and the store, tests/core/promises.py what must then hold. Used by
test_machine.py (with the rules of editing.py), which wants it to pass, and test_planted_bugs.py,
which wants it to fail.
"""

from __future__ import annotations

import sys

from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from msgspec import structs

from gpud.core import scheduler
from gpud.core.events import (
    CancelRequested,
    CheckpointRequested,
    ContinueRequested,
    DrainRequested,
    EntriesRead,
    Event,
    HealRequested,
    HoldRequested,
    JobsSubmitted,
    PauseRequested,
    ReleaseRequested,
    RetryRequested,
    RunnerGone,
    SourceSwitched,
    Tick,
    UndrainRequested,
)
from gpud.core.health import GpuPolicy
from gpud.core.invariants import check_invariants
from gpud.core.model import After, Cursor, Device, JobId, JobSpec, JobState, NewJob, Span

from . import promises
from .draws import (
    BREAKDOWNS,
    ENDS,
    POLICIES_OF_POOL,
    POOLS,
    RICH,
    WATCHED,
    fates,
    often,
    picks,
    specs,
    steps,
)
from .gpus import FakeGpus
from .turns import Daemon, Fate
from .watched import LooksAtGpus

EXAMPLES = settings().max_examples * 3 // 2  # of the profile (tests/conftest.py): 150, in CI 600
STEPS = 50
INTERRUPTIONS = [*[PauseRequested, ContinueRequested] * 2, CheckpointRequested]


class CoreMachine(LooksAtGpus, RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_000_000
        self.requests = 0
        self.entries = 0

    def post(self, event: Event, fate: Fate) -> None:
        self.now_ms += 1
        self.daemon.post(event)
        self.go_on(fate)

    def request(self) -> int:
        self.requests += 1
        return self.requests

    def some_jobs(self, picks: list[int]) -> tuple[JobId, ...]:
        """Active ones above all, but any id may be meant, and now and then one that is no job's."""
        state = self.daemon.state
        ids = [*state.attempts, *state.jobs, *map(JobId, range(state.next_id + 1))]
        return tuple(dict.fromkeys(ids[pick % len(ids)] for pick in picks))

    def go_on(self, fate: Fate) -> None:
        """A turn; in an eager world with all that follows from it at once."""
        self.daemon.turn(self.now_ms, fate)
        if not self.eager:
            self.begin_look_if_asked()
        elif fate is Fate.WHOLE:
            for key in self.daemon.runner.alive():
                self.daemon.runner.launch(key, self.now_ms)
            self.deliver_all(fate)
            self.answer_looks()

    def deliver_all(self, fate: Fate) -> None:
        wire = self.daemon.runner.wire
        while wire:
            self.daemon.post(wire.pop(0))
        self.daemon.turn(self.now_ms, fate)
        if fate is Fate.WHOLE:
            self.tell_looks()

    def meet(self, fate: Fate) -> None:
        self.post(self.daemon.runner.meet(), fate)

    @initialize(
        devices=st.sampled_from(POOLS) | st.sampled_from(WATCHED),
        policy=st.sampled_from(POLICIES_OF_POOL),
        ready=st.sampled_from([True, True, False]),
        eager=often,
        jobs=st.lists(specs, max_size=6),
    )
    def begin(
        self,
        devices: tuple[Device, ...],
        policy: GpuPolicy,
        ready: bool,
        eager: bool,
        jobs: list[JobSpec],
    ) -> None:
        gpus = FakeGpus([device for pool in WATCHED for device in pool])
        self.daemon, self.eager = Daemon(devices, gpus, policy), eager
        if ready:
            self.meet(Fate.WHOLE)
        new, cursor = tuple(map(NewJob, jobs)), Cursor("list", "all")
        self.post(EntriesRead(self.request(), "list", new, cursor), Fate.WHOLE)

    # -- people and sources ----------------------------------------------------------------------

    @rule(
        jobs=st.lists(specs, min_size=1, max_size=4),
        key=st.sampled_from(["", "", "k", "l"]),
        digest=st.sampled_from(["x", "x", "y"]),
        after=st.lists(st.tuples(st.integers(-3, 12), st.booleans()), max_size=2),
        patient=st.sampled_from([False, False, True]),
        fate=fates,
    )
    def submit(
        self,
        jobs: list[JobSpec],
        key: str,
        digest: str,
        after: list[tuple[int, bool]],
        patient: bool,
        fate: Fate,
    ) -> None:
        spans = []
        for pick, ended in after:
            (job,) = self.some_jobs([pick]) if pick >= 0 else (pick,)
            spans.append(Span(job, job, ended))
        what = After(tuple(spans), patient)
        new = tuple(NewJob(structs.replace(spec, after=what)) for spec in jobs)
        self.post(JobsSubmitted(self.request(), new, key, digest if key else ""), fate)

    @rule(
        jobs=st.lists(
            st.builds(NewJob, specs, st.sampled_from(["", "", "", "line 3 has a NUL byte"])),
            min_size=1,
            max_size=4,
        ),
        fate=fates,
    )
    def read_entries(self, jobs: list[NewJob], fate: Fate) -> None:
        self.entries += 1
        cursor = Cursor("queue", str(self.entries))
        self.post(EntriesRead(self.request(), "queue", tuple(jobs), cursor), fate)

    @rule(picks=picks, grace_s=st.sampled_from([None, 0.0, 60.0]), fate=fates)
    def cancel(self, picks: list[int], grace_s: float | None, fate: Fate) -> None:
        self.post(CancelRequested(self.request(), self.some_jobs(picks), grace_s), fate)

    @rule(picks=picks, args=st.sampled_from([None, None, b"--resume"]), fate=fates)
    def retry(self, picks: list[int], args: bytes | None, fate: Fate) -> None:
        self.post(RetryRequested(self.request(), self.some_jobs(picks), args=args), fate)

    @rule(picks=picks, release=st.booleans(), fate=fates)
    def hold_or_release(self, picks: list[int], release: bool, fate: Fate) -> None:
        ask = ReleaseRequested if release else HoldRequested
        self.post(ask(self.request(), self.some_jobs(picks)), fate)

    @precondition(lambda self: self.daemon.state.attempts)
    @rule(picks=picks, ask=st.sampled_from(INTERRUPTIONS), fate=fates)
    def interrupt(self, picks: list[int], ask: type[Event], fate: Fate) -> None:
        self.post(ask(self.request(), self.some_jobs(picks)), fate)

    @rule(what=st.sampled_from(["drain", "drain", "undrain", "undrain", "source"]), fate=fates)
    def switch(self, what: str, fate: Fate) -> None:
        if what == "drain":
            self.post(DrainRequested(self.request()), fate)
        elif what == "undrain":
            self.post(UndrainRequested(self.request()), fate)
        else:
            stopped = "queue" not in self.daemon.state.stopped_sources
            self.post(SourceSwitched(self.request(), "queue", stopped), fate)

    @rule(devices=st.sampled_from(POOLS) | st.sampled_from(WATCHED), fate=fates)
    def change_devices(self, devices: tuple[Device, ...], fate: Fate) -> None:
        self.daemon.change_devices(devices)
        self.go_on(fate)

    # -- time ------------------------------------------------------------------------------------

    @rule(ms=st.sampled_from([1, 500, 10_000, 100_000]), fate=fates)
    def time_passes(self, ms: int, fate: Fate) -> None:
        self.now_ms += ms
        self.post(Tick(), fate)

    @precondition(lambda self: scheduler.next_deadline(self.daemon.state) is not None)
    @rule()
    def deadline(self) -> None:
        """A Tick at the deadline makes progress: what waited for that time waits no more."""
        self.daemon.turn(self.now_ms)
        due = scheduler.next_deadline(self.daemon.state)
        if due is None:
            return
        self.now_ms = max(self.now_ms, due)
        self.daemon.post(Tick())
        self.daemon.turn(self.now_ms)
        later = scheduler.next_deadline(self.daemon.state)
        assert later is None or later > self.now_ms, f"the deadline {due} comes again: {later}"

    # -- the runner ------------------------------------------------------------------------------

    @precondition(lambda self: not self.daemon.runner.connected)
    @rule(fate=fates)
    def meet_runner(self, fate: Fate) -> None:
        self.meet(fate)

    @precondition(lambda self: self.daemon.runner.connected)
    @rule(dies=st.booleans(), back=often, fate=fates)
    def lose_runner(self, dies: bool, back: bool, fate: Fate) -> None:
        if dies:
            self.daemon.runner.die()
        else:
            self.daemon.runner.disconnect()
        self.post(RunnerGone("the connection to the runner was lost"), fate)
        if back:
            self.meet(fate)

    @precondition(lambda self: self.daemon.runner.alive())
    @rule(steps=steps, promptly=often, fate=fates)
    def payloads_go_on(self, steps: list[tuple[int, str]], promptly: bool, fate: Fate) -> None:
        runner = self.daemon.runner
        for which, what in steps:
            self.now_ms += 1
            if alive := sorted(runner.alive()):
                getattr(runner, what)(alive[which % len(alive)], self.now_ms)
        if promptly:
            self.deliver_all(fate)

    @precondition(lambda self: self.daemon.runner.alive())
    @rule(
        which=st.integers(0, 5),
        how=st.sampled_from(ENDS),
        leaves_mib=st.sampled_from([0, 0, 2_000]),
        order=st.sampled_from([1, 1, -1]),
        promptly=often,
        fate=fates,
    )
    def payload_ends(
        self,
        which: int,
        how: dict[str, object],
        leaves_mib: int,
        order: int,
        promptly: bool,
        fate: Fate,
    ) -> None:
        self.now_ms += 1
        alive = self.daemon.runner.alive()
        key = sorted(alive)[which % len(alive)]
        for part in alive[key].lease:
            self.daemon.gpus.leave_memory(part.device, leaves_mib)
        self.daemon.runner.end(key, self.now_ms, **how)
        self.daemon.runner.wire[:] = self.daemon.runner.wire[::order]
        if promptly:
            self.deliver_all(fate)

    @precondition(lambda self: self.daemon.runner.wire)
    @rule(picks=picks, fate=fates)
    def deliver(self, picks: list[int], fate: Fate) -> None:
        """Facts arrive late, in any order, and not all of them."""
        wire = self.daemon.runner.wire
        for pick in picks:
            if wire:
                self.daemon.post(wire.pop(pick % len(wire)))
        self.go_on(fate)

    @precondition(lambda self: self.daemon.runner.past)
    @rule(picks=picks, fate=fates)
    def echo(self, picks: list[int], fate: Fate) -> None:
        """Facts arrive again, however old they are."""
        past = self.daemon.runner.past
        for pick in picks:
            self.daemon.post(past[-1 - pick % len(past)])
        self.go_on(fate)

    # -- what breaks ------------------------------------------------------------------------------

    @rule(
        jobs=st.lists(specs, max_size=2),
        picks=picks,
        ask=st.sampled_from([CancelRequested, *INTERRUPTIONS]),
        how=st.sampled_from(BREAKDOWNS),
        performed=st.integers(1, 3),
        back=often,
    )
    def break_down(
        self,
        jobs: list[JobSpec],
        picks: list[int],
        ask: type[Event],
        how: Fate,
        performed: int,
        back: bool,
    ) -> None:
        """In a turn that has something to do."""
        if jobs:
            self.daemon.post(JobsSubmitted(self.request(), tuple(map(NewJob, jobs))))
        else:
            self.daemon.post(ask(self.request(), self.some_jobs(picks)))
        for fact in self.daemon.runner.wire:
            self.daemon.post(fact)
        self.daemon.turn(self.now_ms, how, performed)
        if back:
            self.meet(Fate.WHOLE)

    @rule(what=st.sampled_from(["remembers", "forgets", "upgrade"]), back=often)
    def reboot(self, what: str, back: bool) -> None:
        """Or another gpud, and another runner beside that of what lives."""
        self.daemon.restart()
        if what == "upgrade":
            self.daemon.runner.grow_old(self.daemon.ledger.paused)
        else:
            self.now_ms += 60_000
            self.daemon.runner.reboot(self.now_ms, remembers=what == "remembers")
        if back:
            self.meet(Fate.WHOLE)

    # -- always -----------------------------------------------------------------------------------

    @invariant()
    def all_is_well(self) -> None:
        daemon = self.daemon
        check_invariants(daemon.state)
        promises.check_world(daemon.state, daemon.runner)
        if not daemon.mailbox:
            promises.check_told(daemon.state, daemon.runner, daemon.ledger)
        promises.check_reasons(daemon.state, daemon.ledger, self.now_ms)

    # -- the end ----------------------------------------------------------------------------------

    def teardown(self) -> None:
        if sys.exc_info()[0] is None and hasattr(self, "daemon"):
            self.settle()

    def settle(self) -> None:
        """Given devices, a runner and time, the queue empties: each job has its one outcome."""
        daemon = self.daemon
        daemon.change_devices(RICH)
        self.post(UndrainRequested(self.request()), Fate.WHOLE)
        daemon.gpus.all_is_well()
        daemon.gpus.under_way.clear()
        self.post(HealRequested(self.request(), ()), Fate.WHOLE)
        most = sum(1 + job.retry.retries for job in daemon.state.jobs.values())
        most += len(daemon.ledger.leaving)
        for _ in range(2 + 2 * most):  # a look may stand between an end and the next start
            if not daemon.runner.connected:
                self.meet(Fate.WHOLE)
            held = tuple(daemon.ledger.held)
            self.post(ReleaseRequested(self.request(), held), Fate.WHOLE)
            waiting = [job for job in daemon.state.jobs.values() if job.state is JobState.QUEUED]
            stuck = tuple(job.id for job in waiting if daemon.state.links.broken(job))
            self.post(CancelRequested(self.request(), stuck), Fate.WHOLE)
            for key in sorted(daemon.runner.alive()):
                daemon.runner.end(key, self.now_ms, exit_code=0)
            self.deliver_all(Fate.WHOLE)
            self.answer_looks()
            if scheduler.next_deadline(daemon.state) is not None:
                self.deadline()
            self.all_is_well()
        assert not daemon.state.jobs, f"these never end: {daemon.state.jobs}"
        assert not daemon.state.attempts
        assert not daemon.state.pool.leased, f"leaked: {daemon.state.pool.leased}"
        assert not daemon.state.pool.promised, f"leaked: {daemon.state.pool.promised}"
        assert not daemon.runner.journal, f"not forgotten: {daemon.runner.journal}"
        store = daemon.store
        assert sorted(store.jobs) == list(range(1, store.next_id)), "a job is gone"
        assert all(job.state is JobState.DONE for job in store.jobs.values())
        promises.check_written(store, daemon.runner, daemon.ledger, store.jobs)
        promises.check_stories(store)


def machine_settings(examples: int = EXAMPLES, **more: object) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        suppress_health_check=list(HealthCheck),
        **more,
    )


def one_pass(examples: int) -> settings:
    """Always the same lives, and no shrinking: for tests that expect something of them."""
    return machine_settings(
        examples,
        phases=[Phase.generate],
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
    )
