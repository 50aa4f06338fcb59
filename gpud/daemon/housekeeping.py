"""Retention: what of the past goes, and when. The hands; the rule is core/retention.py.

Made by daemon/app.py. A pass walks the done jobs from the oldest on and forgets those that the rule
names, STEP at a time with a pause after each, so that no turn of the engine waits for long. It runs
at most once in INTERVAL_S, and only when something may have to go: after something has happened, or
when the age of the oldest says so: an idle daemon is woken once in LONGEST_S, or never.

Rule 1: what the state still needs (jobs that others wait for) is asked anew at each step, between
two turns of the engine, where state and store agree.
Rule 2: files go after the commit that says so, and what a crash leaves of that is finished by the
first pass of the next daemon (store/pruning.py, rule 1).
Rule 3: trouble with the disk ends the pass; the next one is INTERVAL_S later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gpud.core.model import JobId, JobState
from gpud.core.retention import YOUNGEST_MS, Ended, Limits, jobs_to_go, logs_to_go
from gpud.daemon.engine import Engine
from gpud.errors import GpudError
from gpud.ports import Files, Pruned, StorageError, Store
from gpud.protocol.replies import EventView

FIRST_S = 30.0  # after a start, which has better things to do
INTERVAL_S = 3600.0
LONGEST_S = 86_400.0  # clocks are set: no appointment is made for later
PAGE = 500  # jobs that are looked at in one go
STEP = 100  # jobs that are forgotten in one transaction: some 10 ms
PAUSE_S = 0.05  # between two of them

Warn = Callable[..., None]


class Housekeeping:
    def __init__(
        self,
        engine: Engine,
        files: Files,
        *,
        warn: Warn,
        on_bug: Callable[[BaseException], None],
    ) -> None:
        self.limits = Limits()
        self._problem = ""  # of the pass that is under way
        self._reported = ""
        self._engine = engine
        self._files = files
        self._say: Warn = lambda event, **values: None
        self._warn = warn
        self._on_bug = on_bug
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()  # one pass at a time
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._unswept = True  # a crash may have left something
        self._last_s = self._loop.time() - INTERVAL_S + FIRST_S  # of the last pass
        self._stop_listening: Callable[[], None] = lambda: None

    # -- when ------------------------------------------------------------------------------------

    def start(self, limits: Limits, say: Warn) -> None:
        """`say`: what went, for the log."""
        self._say = say
        self._stop_listening = self._engine.subscribe(self._on_events)
        self.keep(limits)

    def keep(self, limits: Limits) -> None:
        """These limits from now on."""
        self.limits = limits
        self._arm(0.0)

    async def close(self) -> None:
        """What a pass had not come to is done by the next daemon."""
        self._stop_listening()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _on_events(self, events: Sequence[EventView]) -> None:
        if self._timer is None or self._timer.when() > self._last_s + INTERVAL_S:
            self._arm(0.0)

    def _arm(self, in_s: float) -> None:
        """The next pass in so many seconds, but not sooner than INTERVAL_S after the last."""
        if self._timer is not None:
            self._timer.cancel()
        at_s = max(self._loop.time() + in_s, self._last_s + INTERVAL_S)
        self._timer = self._loop.call_at(at_s, self._begin)

    def _begin(self) -> None:
        self._timer = None
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._pass())
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_bug(error)

    async def _pass(self) -> None:
        self._unswept = True  # a crash may have left something
        self._last_s = self._loop.time()
        try:
            async with self._lock:
                next_ms = await self._keep_to(self.limits)
        except GpudError as error:
            self._report(error.message)
            self._arm(INTERVAL_S)
            return
        if next_ms:
            in_s = (next_ms - self._engine.now_ms()) / 1000
            self._arm(min(max(in_s, 0.0), LONGEST_S))

    def _report(self, problem: str) -> None:
        if problem and problem != self._reported:
            self._warn("housekeeping", why=problem)
        self._reported = problem

    # -- what ------------------------------------------------------------------------------------

    async def _keep_to(self, limits: Limits) -> int:
        """One pass; when the next one may find something, 0 for never, as far as is known now."""
        self._problem = ""
        await self._remove_due()
        jobs, jobs_ms = await self._jobs(limits, really=True)
        logs, logs_ms = await self._logs(limits, really=True)
        runs = await self._runs(limits, really=True)
        await self._sweep(jobs.jobs)
        if jobs.jobs or logs.logs or runs:
            self._say("pruned", jobs=jobs.jobs, logs=logs.logs, runs=runs)
        self._report(self._problem)
        return min(filter(None, (jobs_ms, logs_ms)), default=0)

    async def prune(self, limits: Limits, *, really: bool) -> Pruned:
        """A pass that a person asks for; not `really`: what it would do. Raises GpudError."""
        async with self._lock:
            if really:
                await self._remove_due()
            sizes = await asyncio.to_thread(self._files.sizes)
            jobs, _ = await self._jobs(limits, really=really, sizes=sizes)
            logs, _ = await self._logs(limits, really=really)
            runs = await self._runs(limits, really=really)
            if really:
                await self._sweep(jobs.jobs)
        return Pruned(jobs.jobs, logs.logs, jobs.log_bytes + logs.log_bytes, runs)

    async def _jobs(
        self, limits: Limits, *, really: bool, sizes: dict[JobId, int] | None = None
    ) -> tuple[Pruned, int]:
        """`sizes`: of logs, to say how much went."""
        if not (limits.jobs or limits.jobs_ms):
            return Pruned(), 0
        states, _ = self._store_now().counts()
        left, after, went, room = states[JobState.DONE], (0, 0), 0, 0
        first_elements: list[JobId] = []  # of arrays: they go with the last of the others
        while True:
            page = self._store_now().ended(after, PAGE)
            choice = jobs_to_go(page, left, limits, self._engine.now_ms(), self._is_needed)
            left = choice.left
            for start in range(0, len(choice.go), STEP):
                step = choice.go[start : start + STEP]
                gone = await self._forget(step) if really else step
                first_elements += set(step) - set(gone)
                went += len(gone)
                room += sum(sizes.get(job, 0) for job in gone) if sizes else 0
            if choice.over or len(page) < PAGE:
                break
            after = page[-1].ended_at_ms, page[-1].job
            await asyncio.sleep(0)
        for start in range(0, len(first_elements), STEP):
            went += len(await self._forget(first_elements[start : start + STEP]))
        return Pruned(jobs=went, log_bytes=room), choice.next_ms

    async def _forget(self, jobs: Sequence[JobId]) -> tuple[JobId, ...]:
        still = [job for job in jobs if not self._is_needed(job)]
        gone = self._store_now().prune(still, self._engine.now_ms())
        await asyncio.sleep(PAUSE_S)
        await self._remove_due()
        return gone

    def _is_needed(self, job: JobId) -> bool:
        """A job that waits comes after it."""
        return job in self._engine.state.links.dependents

    async def _logs(self, limits: Limits, *, really: bool) -> tuple[Pruned, int]:
        if not (limits.logs_ms or limits.logs_bytes):
            return Pruned(), 0
        sizes = await asyncio.to_thread(self._files.sizes)
        jobs, ended = sorted(sizes), []
        for start in range(0, len(jobs), PAGE):
            part = self._store_now().ended_of(jobs[start : start + PAGE])
            ended += [Ended(one.ended_at_ms, one.job, sizes[one.job]) for one in part]
            await asyncio.sleep(0)
        ended.sort(key=lambda one: (one.ended_at_ms, one.job))
        choice = logs_to_go(ended, sum(sizes.values()), limits, self._engine.now_ms())
        for start in range(0, len(choice.go) if really else 0, STEP):
            step = choice.go[start : start + STEP]
            self._store_now().prune_logs(step, self._engine.now_ms())
            await asyncio.sleep(PAUSE_S)
            await self._remove_due()
        room = sum(sizes[job] for job in choice.go)
        return Pruned(logs=len(choice.go), log_bytes=room), choice.next_ms

    async def _remove_due(self) -> None:
        """The files of logs that are due. What cannot be removed is due again in the next pass."""
        while due := self._store_now().logs_due(PAGE):
            gone, problem = await asyncio.to_thread(self._files.remove, due)
            if gone:
                self._store_now().logs_removed(gone)
            self._problem = problem or self._problem
            if len(gone) < len(due) or len(due) < PAGE:
                return

    async def _runs(self, limits: Limits, *, really: bool) -> int:
        """By age alone: how many a person has is for that person to say."""
        if not limits.jobs_ms:
            return 0
        longest_ms, now_ms = max(limits.jobs_ms, YOUNGEST_MS), self._engine.now_ms()
        prune = self._files.prune_runs
        gone, problem = await asyncio.to_thread(prune, longest_ms, now_ms, really=really)
        self._problem = problem or self._problem
        return len(gone)

    async def _sweep(self, went: int) -> None:
        if not went and not self._unswept:
            return
        walk = self._store_now().sweep(None)
        while walk is not None:
            await asyncio.sleep(PAUSE_S)
            walk = self._store_now().sweep(walk)
        self._unswept = False

    def _store_now(self) -> Store:
        """The store, while the engine could use it. Raises StorageError."""
        if self._engine.storage_problem:
            raise StorageError(self._engine.storage_problem)
        return self._engine.store
