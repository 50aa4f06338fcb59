"""gpud's own core under a virtual clock: jobs of a trace in, a schedule out.

Called by tools/simulate.py, the tests and the benchmarks. Decides nothing: it is the engine, the
sources, the runner and the passing of time to `scheduler.step`, the function that decides in the
daemon, and it takes the changes of each turn as the store does. Deterministic.

Rule 1: one turn for each instant at which something happens: ends and submits of that instant
    together, or a Tick when the core has asked for one.
Rule 2: a start takes no time. The fact that an attempt has started comes with the next turn, when
    the core can first make use of it.
Rule 3: at its time limit a job is stopped and ends then, as the runner does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import heappop, heappush

from gpud.core.actions import Action, StartAttempt
from gpud.core.events import AttemptEnded, AttemptStarted, EntriesRead, RunnerReady, Tick
from gpud.core.explain import explain
from gpud.core.model import Device, JobId, JobSpec, NewJob
from gpud.core.pool import Pool
from gpud.core.rules import NO_RULES, Rules
from gpud.core.scheduler import AnyEvent, next_deadline, step
from gpud.core.state import State
from gpud.tools.schedule import Schedule, Told, nobody
from gpud.tools.trace import TraceJob

EPOCH_MS = 1_000_000_000  # of the core's clock at the first submit: there, 0 means "not yet"
BOOT_ID = "simulated"
SIGTERM = 15


def simulate(jobs: Sequence[TraceJob], devices: Iterable[Device], told: Told = nobody) -> Schedule:
    """What gpud does with the jobs, which are in order of submit. `told` after each turn."""
    simulation = Simulation(jobs, devices)
    for _ in simulation.turns():
        told(simulation.schedule)
    return simulation.schedule


class Simulation:
    """`state` is the core's, to be looked at between turns; a job's id is its place plus one."""

    def __init__(
        self, jobs: Sequence[TraceJob], devices: Iterable[Device], rules: Rules = NO_RULES
    ) -> None:
        self.schedule = Schedule(jobs)
        self.state = State(Pool(devices), rules=rules)
        self._jobs = jobs
        self._submitted = 0  # jobs so far
        self._started: list[AttemptStarted] = []  # not yet told
        self._ends: list[tuple[int, JobId, int]] = []  # (when, job, attempt), a heap
        step(self.state, (RunnerReady(BOOT_ID),), EPOCH_MS)
        self.state.take_changes()

    def turns(self) -> Iterator[int]:
        """Take all turns; yields the time after each. Raises RuntimeError where a job is left."""
        while (now_ms := self._next_instant_ms()) is not None:
            facts = self._facts(now_ms)
            self._perform(step(self.state, facts, EPOCH_MS + now_ms), now_ms)
            yield now_ms
        for job in self.state.jobs:  # a bug of the core, not of the trace
            why = explain(self.state, job, EPOCH_MS)
            raise RuntimeError(f"job {job} of the trace never started: {why}")

    def _next_instant_ms(self) -> int | None:
        instants = []
        if self._ends:
            instants.append(self._ends[0][0])
        if self._submitted < len(self._jobs):
            instants.append(self._jobs[self._submitted].submit_ms)
        if (deadline_ms := next_deadline(self.state)) is not None:
            instants.append(deadline_ms - EPOCH_MS)
        return min(instants, default=None)

    def _facts(self, now_ms: int) -> list[AnyEvent]:
        facts: list[AnyEvent] = [*self._started]
        self._started.clear()
        while self._ends and self._ends[0][0] <= now_ms:
            _, job, attempt = heappop(self._ends)
            facts.append(self._ended(job, attempt, now_ms))
        if arrived := self._arrived(now_ms):
            facts.append(EntriesRead(0, "trace", arrived))
        return facts or [Tick()]

    def _ended(self, job: JobId, attempt: int, now_ms: int) -> AttemptEnded:
        self.schedule.end(job - 1, now_ms)
        if self._jobs[job - 1].times_out:
            return AttemptEnded(job, attempt, EPOCH_MS + now_ms, signal=SIGTERM, timed_out=True)
        return AttemptEnded(job, attempt, EPOCH_MS + now_ms, exit_code=0)

    def _arrived(self, now_ms: int) -> tuple[NewJob, ...]:
        first = self._submitted
        while self._submitted < len(self._jobs):
            if self._jobs[self._submitted].submit_ms > now_ms:
                break
            self._submitted += 1
        return tuple(NewJob(spec_of(job)) for job in self._jobs[first : self._submitted])

    def _perform(self, actions: Iterable[Action], now_ms: int) -> None:
        """Nothing but starts concerns this world: nobody cancels, and no runner remembers."""
        for job_id, new in self.state.take_changes().new:
            if new.problem:
                self.schedule.refused[job_id - 1] = new.problem
        for action in actions:
            if isinstance(action, StartAttempt):
                end_ms = self.schedule.start(action.job - 1, action.lease, now_ms)
                heappush(self._ends, (end_ms, action.job, action.attempt))
                self._started.append(
                    AttemptStarted(action.job, action.attempt, 1, EPOCH_MS + now_ms)
                )


def spec_of(job: TraceJob) -> JobSpec:
    """As a source would have read it."""
    return JobSpec(
        command=b"",
        name=job.name,
        request=job.request,
        priority=job.priority,
        time_limit_s=job.limit_ms / 1000 if job.limit_ms else None,
        source="trace",
        group=job.group,
        uid=job.uid,
    )
