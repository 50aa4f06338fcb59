"""When jobs that wait will start, as far as that can be known: the core itself, run forward.

Called by control/forecasts.py, in pieces. A `Walk` takes a twin of the live state (core/twin.py)
and plays the world to it in virtual time, with `handle` and `dispatch`, which decide in the daemon.
So whatever keeps a job waiting there keeps it waiting here.

Rule 1: an attempt runs as long as jobs like it usually have, where that is known and its time
    limit allows it; else to the end of its limit; else nobody knows, and it keeps what it has.
Rule 2: all that run succeed. Nobody submits, cancels, holds or breaks anything.
Rule 3: of people one thing is expected: a pool that is drained is undrained now, and a job that is
    held is released now, where it is the only one that was asked about.
Rule 4: a window that is closed opens when its provider said; no other opens or closes again.
Rule 5: a walk is bounded: what has not started by then starts later than that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from enum import StrEnum
from heapq import heappop, heappush

from msgspec import Struct

from gpud.core.actions import Action, CheckpointAttempt, StartAttempt, StopAttempt
from gpud.core.blame import blame, endless
from gpud.core.changes import Changes
from gpud.core.dispatching import dispatch, end_ms
from gpud.core.events import (
    AttemptEnded,
    AttemptStarted,
    ReleaseRequested,
    Tick,
    UndrainRequested,
    WindowsTurned,
)
from gpud.core.model import Attempt, JobId, JobState, Outcome, Phase
from gpud.core.reservation import NEVER
from gpud.core.rules import Window
from gpud.core.scheduler import AnyEvent, handle, next_deadline
from gpud.core.state import State
from gpud.core.twin import Twin

MOST_TURNS = 1_000  # about a second where it is slow: 64 GPUs, thousands of different jobs
MOST_STARTS = 10_000
LEAST_RUNS = 3  # of its like make what is usual


class Assumption(StrEnum):
    """What a forecast rests on."""

    LIMITS = "limits"  # jobs that take their whole time limits
    USUAL = "usual"  # jobs that run as long as such jobs usually have
    RELEASE = "release"  # somebody releases the job now
    UNDRAIN = "undrain"  # somebody undrains the pool now


class Forecast(Struct, frozen=True):
    """It starts at `start_ms`, when the jobs `after` end; or later than `later_than_ms`; or nobody
    knows when, or it never does: then a clause says why."""

    start_ms: int | None = None
    after: tuple[JobId, ...] = ()
    assumes: tuple[Assumption, ...] = ()
    later_than_ms: int | None = None
    unknown: str = ""
    never: str = ""


RunsLike = Callable[[JobId], Sequence[int]]  # how long earlier jobs like this one ran, in ms


def nobody_knows(job: JobId) -> Sequence[int]:
    return ()


def forecast(
    live: State, now_ms: int, jobs: Collection[JobId], runs_like: RunsLike = nobody_knows
) -> dict[JobId, Forecast]:
    """All in one go."""
    walk = Walk(live, now_ms, jobs, runs_like)
    for _ in walk.pieces():
        pass
    return walk.found


class Walk:
    """`found`: what is known of the jobs that were asked about, which wait. All of them once
    `pieces` is through; the live state is read here and not again."""

    def __init__(
        self, live: State, now_ms: int, jobs: Collection[JobId], runs_like: RunsLike
    ) -> None:
        self.found: dict[JobId, Forecast] = {}
        self._twin = Twin(live)
        self._state = self._twin.state
        self._now_ms = now_ms
        self._asked = frozenset(jobs)
        self._runs_like = runs_like
        self._assumes: set[Assumption] = set()
        self._ends: list[tuple[int, JobId, int, Assumption | None]] = []  # a heap
        self._told: list[AnyEvent] = []  # facts of the last turn, for the next one
        self._starts = 0
        self._memory = _others_memory(self._state)

    def pieces(self) -> Iterator[None]:
        """Each takes a moment; between them the live state may go on."""
        yield from self._twin.load()
        for job in sorted(self._state.attempts, reverse=True):  # what is like it ran before it
            self._expect_end(self._state.attempts[job])
        self._expect_people()
        for _ in range(MOST_TURNS):
            self._turn()
            instant = self._next_instant_ms()
            if self._asked <= self.found.keys() or instant is None or self._starts > MOST_STARTS:
                break
            self._now_ms = max(self._now_ms, instant)
            yield
        for job in self._asked - self.found.keys():
            self.found[job] = self._not_started(job)

    # -- what happens ----------------------------------------------------------------------------

    def _expect_people(self) -> None:
        state = self._state
        if state.draining:
            self._told.append(UndrainRequested(0))
            self._assumes.add(Assumption.UNDRAIN)
        if len(self._asked) == 1:
            (job,) = self._asked
            record = state.find(job)
            if record is not None and record.state is JobState.HELD:
                self._told.append(ReleaseRequested(0, (job,)))
                self._assumes.add(Assumption.RELEASE)

    def _next_instant_ms(self) -> int | None:
        instants = [end[0] for end in self._ends[:1]]
        instants += self._openings_ms()
        if (deadline_ms := next_deadline(self._state)) is not None:
            instants.append(deadline_ms)
        return min(instants, default=None)

    def _openings_ms(self) -> list[int]:
        """Of windows that are closed, as their providers have told."""
        told = self._state.gates.told.values()
        return [w.until_ms for windows in told for w in windows.values() if not w.open]

    def _windows_that_open(self) -> Iterator[WindowsTurned]:
        """Now; that they close again is not foretold."""
        for provider, windows in [*self._state.gates.told.items()]:
            due = {k for k, w in windows.items() if not w.open and w.until_ms <= self._now_ms}
            if due:
                opened = dict.fromkeys(due, Window(open=True, until_ms=NEVER))
                yield WindowsTurned(provider, {**windows, **opened})

    def _turn(self) -> None:
        """All that happens at this instant."""
        state, now_ms = self._state, self._now_ms
        facts, self._told = self._told, []
        facts += self._windows_that_open()
        ended = []
        while self._ends and self._ends[0][0] <= now_ms:
            _, job, no, assumed = heappop(self._ends)
            attempt = state.attempts.get(job)
            if attempt is not None and attempt.no == no and attempt not in ended:
                self._assumes |= {assumed} if assumed else set()
                ended.append(attempt)
                stopped = attempt.phase is Phase.STOPPING
                facts.append(AttemptEnded(job, no, now_ms, exit_code=0, stopped=stopped))
        actions: list[Action] = []
        for fact in facts or [Tick()]:
            actions += handle(state, fact, now_ms)
        self._reckon_memory()
        actions += dispatch(state, now_ms)
        for action in actions:
            if isinstance(action, StartAttempt):
                self._note_start(state.attempts[action.job], ended)
            elif isinstance(action, StopAttempt | CheckpointAttempt):
                self._expect_end(state.attempts[action.job])
        self._note_ends(state.take_changes())  # once it is known how long all run that have started

    def _note_start(self, attempt: Attempt, ended: Sequence[Attempt]) -> None:
        job, now_ms = attempt.job, self._now_ms
        self._starts += 1
        self._told.append(AttemptStarted(job, attempt.no, 1, now_ms))
        self._expect_end(attempt)
        if job in self._asked and job not in self.found:
            after = self._made_room(attempt, ended)
            self.found[job] = Forecast(now_ms, after, self._assumptions())

    def _note_ends(self, changes: Changes) -> None:
        """Some end without having run: too late, or after one that was being stopped."""
        done = {j: job for j, job in changes.jobs.items() if job.state is JobState.DONE}
        outcomes = {job.outcome for job in done.values()} | {e.outcome for e in changes.ends}
        for job in self._asked & done.keys() - self.found.keys():
            self._note_never(job, done[job].why, outcomes)
        for end in changes.ends:
            for job in self._asked - self.found.keys():
                if end.first <= job <= end.last:
                    self._note_never(job, end.why, outcomes)

    def _note_never(self, job: JobId, why: str, outcomes: Collection[Outcome | None]) -> None:
        """That something is too late rests on how long others take, whatever happened so far."""
        known = {job for _, job, *_ in self._ends}
        others = [a for a in self._state.attempts.values() if a.job not in known]
        if others and Outcome.NOT_STARTED in outcomes:
            self.found[job] = Forecast(unknown=endless(others))
        else:
            nobody_ended_sooner = {assumed for *_, assumed in self._ends if assumed}
            self.found[job] = Forecast(assumes=self._assumptions(nobody_ended_sooner), never=why)

    # -- how long things take --------------------------------------------------------------------

    def _expect_end(self, attempt: Attempt) -> None:
        """When its payload is gone, and what that rests on; where nobody knows, never."""
        now_ms, job = self._now_ms, self._state.jobs[attempt.job]
        if attempt.phase is Phase.STOPPING:
            grace_s = job.grace_s if attempt.stop_grace_s is None else attempt.stop_grace_s
            heappush(self._ends, (now_ms + int(1000 * grace_s), job.id, attempt.no, None))
        if attempt.phase not in (Phase.STARTING, Phase.RUNNING):
            return  # the core itself ends what is finishing
        began_ms = (attempt.started_at_ms or now_ms) + attempt.paused_ms
        limit_end_ms = end_ms(self._state, now_ms, attempt)
        usual_ms = _usual_ms(self._runs_like(job.id), now_ms - began_ms)
        if usual_ms and began_ms + usual_ms < limit_end_ms:
            heappush(self._ends, (began_ms + usual_ms, job.id, attempt.no, Assumption.USUAL))
        elif limit_end_ms != NEVER:
            heappush(self._ends, (limit_end_ms, job.id, attempt.no, Assumption.LIMITS))

    def _reckon_memory(self) -> None:
        """What a look found in use beyond what was promised is there as long as those are that were
        there then; where none was, it is somebody else's and stays."""
        pool, free = self._state.pool, {}
        for key, (mib, users) in [*self._memory.items()]:
            if users and users.isdisjoint(self._state.attempts):
                del self._memory[key]
            else:
                free[key] = pool.unpromised_mib(pool.devices[key]) - mib
        pool.seen_free = free

    # -- what is said ----------------------------------------------------------------------------

    def _made_room(self, started: Attempt, ended: Sequence[Attempt]) -> tuple[JobId, ...]:
        """Of those that end at this moment: who was on its devices or is who it comes after, else
        all of them."""
        devices = {part.device for part in started.lease}
        spans = self._state.jobs[started.job].after.spans
        nearest = [
            a.job
            for a in ended
            if any(part.device in devices for part in a.lease)
            or any(span.first <= a.job <= span.last for span in spans)
        ]
        return tuple(sorted(nearest or [attempt.job for attempt in ended]))

    def _not_started(self, job: JobId) -> Forecast:
        if self._next_instant_ms() is not None:
            return Forecast(assumes=self._assumptions(), later_than_ms=self._now_ms)
        return Forecast(unknown=blame(self._state, job, self._now_ms))

    def _assumptions(self, more: Collection[Assumption] = ()) -> tuple[Assumption, ...]:
        return tuple(sorted(self._assumes.union(more)))


def _usual_ms(runs: Sequence[int], ran_ms: int) -> int:
    """The median of those runs that took longer than this one has already; 0: not known."""
    longer = sorted(ms for ms in runs if ms > ran_ms) if len(runs) >= LEAST_RUNS else ()
    return longer[len(longer) // 2] if longer else 0


def _others_memory(state: State) -> dict[str, tuple[int, set[JobId]]]:
    """Per device the memory in use that nobody was promised, and the jobs that may have it."""
    found = {}
    for key, free_mib in state.pool.seen_free.items():
        mib = state.pool.unpromised_mib(state.pool.devices[key]) - free_mib
        if mib > 0:
            users = {a.job for a in state.attempts.values() if _is_on(a, key)}
            found[key] = mib, users
    return found


def _is_on(attempt: Attempt, key: str) -> bool:
    return any(part.device == key for part in attempt.lease)
