"""A world in virtual time for the core alone: jobs come, run for as long as they run, and end.

Used by test_reservation.py. Each instant has two turns: what happens (ends, then arrivals), and the
fact that what was started runs. Nobody breaks a time limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

from msgspec import Struct

from gpud.core.actions import StartAttempt
from gpud.core.events import AttemptEnded, AttemptStarted, EntriesRead, RunnerReady
from gpud.core.invariants import check_invariants
from gpud.core.model import Device, JobId, JobSpec, LeasePart, NewJob, Request
from gpud.core.pool import Pool
from gpud.core.reservation import Reservation
from gpud.core.scheduler import step
from gpud.core.state import State

EPOCH_MS = 1_000_000


class Run(Struct, frozen=True):
    """A job: when it comes, how long it runs, and whether that is its time limit, too."""

    request: Request
    comes_s: int
    runs_s: int
    limited: bool = False
    spare_s: int = 0  # of the limit

    @property
    def spec(self) -> JobSpec:
        limit_s = float(self.runs_s + self.spare_s) if self.limited else None
        return JobSpec(
            b"train", request=self.request, time_limit_s=limit_s, grace_s=0.0, linger_s=0.0
        )


class Turn(Struct, frozen=True):
    """What is so after an instant."""

    now_ms: int
    waiting: tuple[JobId, ...]
    live: frozenset[JobId]
    started: dict[JobId, tuple[LeasePart, ...]]
    kept: Reservation | None


class World:
    """`ran[job]` is (started, ended) in milliseconds; job n is the n-th of `runs`, from 1."""

    def __init__(self, devices: Iterable[Device], runs: Sequence[Run]) -> None:
        self.state = State(Pool(devices))
        self.runs = sorted(runs, key=lambda run: run.comes_s)
        self.ran: dict[JobId, tuple[int, int]] = {}
        self.turns: list[Turn] = []
        self._ends: list[tuple[int, JobId]] = []
        step(self.state, [RunnerReady("boot-1")], EPOCH_MS)

    def run(self) -> None:
        arrivals = [*self.runs]
        while arrivals or self._ends:
            times = [EPOCH_MS + 1000 * run.comes_s for run in arrivals[:1]]
            times += [end for end, _ in self._ends[:1]]
            now_ms = min(times)
            facts: list[AttemptEnded | EntriesRead] = []
            while self._ends and self._ends[0][0] == now_ms:
                _, job = heappop(self._ends)
                facts.append(AttemptEnded(job, 1, now_ms, exit_code=0))
            new = []
            while arrivals and EPOCH_MS + 1000 * arrivals[0].comes_s == now_ms:
                new.append(NewJob(arrivals.pop(0).spec))
            if new:
                facts.append(EntriesRead(0, "trace", tuple(new)))
            self._turn(now_ms, facts)
        assert not self.state.jobs, f"these never start: {self.state.jobs}"
        assert not self.state.pool.leased

    def _turn(self, now_ms: int, facts: Sequence[AttemptEnded | EntriesRead]) -> None:
        actions = step(self.state, facts, now_ms)
        check_invariants(self.state)
        kept = self.state.reservation
        started = {a.job: a.lease for a in actions if isinstance(a, StartAttempt)}
        for job in started:
            end_ms = now_ms + 1000 * self.runs[job - 1].runs_s
            self.ran[job] = now_ms, end_ms
            heappush(self._ends, (end_ms, job))
        begun = [AttemptStarted(job, 1, 100, now_ms) for job in started]
        again = [a for a in step(self.state, begun, now_ms) if isinstance(a, StartAttempt)]
        assert not again, f"{again} start for no new reason"
        self.state.take_changes()
        waiting = tuple(job for job in self.state.jobs if job not in self.state.attempts)
        live = frozenset(self.state.attempts)
        self.turns.append(Turn(now_ms, waiting, live, started, kept))
