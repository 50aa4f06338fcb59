"""One `gpud run` from its first line to the table at the end: interrupts, output, the verdict.

Called by daemon/run.py, which opened the instance. Interrupts: the first INT, TERM or HUP stops
the dispatch and lets running jobs finish; the second stops them (TERM, after the grace KILL).
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import stat
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from gpud.core.actions import StopAttempt
from gpud.core.events import CancelRequested, DrainRequested, Event, UndrainRequested
from gpud.core.explain import explain
from gpud.core.model import JobId, JobState, Outcome, Request
from gpud.core.placement import unsatisfiable
from gpud.core.pool import Pool
from gpud.core.ready import is_ready, rank_of
from gpud.core.spans import each
from gpud.core.watching import programs_of_others
from gpud.daemon import report
from gpud.daemon.app import App
from gpud.daemon.shown import Shown
from gpud.errors import GpudError, why_os
from gpud.ports import Source
from gpud.protocol.replies import EventView, JobView
from gpud.protocol.selectors import parse

MOST_NAMED = 10  # jobs that were not run
LOOK_AGAIN_S = 1.0


def may_ever_start(pool: Pool, request: Request) -> bool:
    """In this run. A GPU that the driver does not know now is not mended in it."""
    if unsatisfiable(pool, request):
        return False
    known = Pool([device for device in pool.devices.values() if not device.problem], pool.unknown)
    if len(known.devices) == len(pool.devices) or pool.wanted(request) == 0:
        return True
    return known.has_gpus and not unsatisfiable(known, request)


class Interrupts:
    """INT, TERM and HUP, counted from the start; `on_each` is told of those it missed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.count = 0
        self._on_each: Callable[[], None] | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._one)

    def follow(self, on_each: Callable[[], None]) -> None:
        self._on_each = on_each
        for _ in range(self.count):
            on_each()

    def _one(self) -> None:
        self.count += 1
        if self._on_each is not None:
            self._on_each()


class Run:
    """`source` None: an earlier run is resumed, nothing is read. `resume`: the command for that."""

    def __init__(
        self,
        app: App,
        interrupts: Interrupts,
        source: Source | None,
        *,
        resume: str,
        prefix: bool,
        quiet: bool,
    ) -> None:
        self._app = app
        self._interrupts = interrupts
        self._source = source
        self._resume = resume
        self._started_s = time.monotonic()
        self._left_out = 0  # rows that the table at the end leaves out
        self._unread = False  # standard input had more
        self._asked = 0  # interrupts that we have acted on
        self._said = ""  # why nothing runs
        self._changed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._work: set[asyncio.Task[None]] = set()
        self._shown = Shown(app, prefix=prefix, quiet=quiet)
        self._shown.all_read = source is None
        app.subscribe(self._on_events)
        app.bug.add_done_callback(lambda _: self._changed.set())

    # -- life ------------------------------------------------------------------------------------

    async def until_done(self) -> None:
        """Until nothing is active and nothing more can start; raises the bug that ended the app."""
        try:
            if self._source is None:
                await self._app.ask(UndrainRequested)
            else:
                self._read(self._source)
            self._interrupts.follow(self._on_interrupt)
            while not self._is_over():
                self._changed.clear()
                try:
                    async with asyncio.timeout(LOOK_AGAIN_S):
                        await self._changed.wait()
                except TimeoutError:  # the pool may have changed, which is no event of a job
                    self._say_why_nothing_runs()
                if self._app.bug.done():
                    self._app.bug.result()
        finally:
            self._shown.close()
        self._say_the_end()

    def _read(self, source: Source) -> None:
        self._app.sources_hosted.add(source, "standard input")
        self._reading = asyncio.ensure_future(self._app.sources_hosted.exhausted(source.name))
        self._reading.add_done_callback(self._on_all_read)

    def _on_all_read(self, reading: asyncio.Task[None]) -> None:
        self._shown.all_read = True
        self._changed.set()

    def _is_over(self) -> bool:
        if self._app.state.attempts:
            return False
        if self._reading is not None and not self._reading.done():
            return False
        if self._asked and not self._work:
            return True
        state = self._app.state
        return not any(
            job.state is JobState.QUEUED and may_ever_start(state.pool, job.request)
            for job in state.jobs.values()
        )

    def _say_why_nothing_runs(self) -> None:
        """Once for each reason, and only while nothing does."""
        state = self._app.state
        ready = [job for job in state.jobs.values() if is_ready(job)]
        if state.attempts or not ready or self._asked:
            return
        first = state.spoken(min(ready, key=rank_of).id)
        reason = explain(state, first, self._app.engine.now_ms())
        kind = reason.partition("(")[0]  # without how much memory it is now
        if kind != self._said:
            self._said = kind
            self._shown.note(f"job {first} {reason}")
            if names := programs_of_others(state):
                words = ",".join(names) if all(names) else "all"
                self._shown.note(f"to start all the same: gpud run --ignore {shlex.quote(words)}")

    def exit_status(self) -> int:
        _, outcomes = self._app.store.counts()
        bad = sum(count for outcome, count in outcomes.items() if outcome != Outcome.SUCCEEDED)
        return 1 if bad or self._unread or self._app.state.jobs else 0

    # -- interrupts ------------------------------------------------------------------------------

    def _on_interrupt(self) -> None:
        self._asked += 1
        active = len(self._app.state.attempts)
        jobs = "1 running job" if active == 1 else f"{active} running jobs"
        if self._asked == 1:
            may = f"{jobs} may finish; Ctrl-C again stops them" if active else "nothing is running"
            self._shown.note(f"no more starts; {may}")
            self._spawn(self._stop_starting())
        elif self._asked == 2:
            self._shown.note(f"stopping {jobs}")
            self._spawn(self._stop_running())

    async def _stop_starting(self) -> None:
        if self._reading is not None and not self._reading.done() and not _is_file(0):
            # what a file still has is read and kept; a pipe may never end
            self._unread = True
            self._shown.note("standard input is not read any further")
            await self._app.sources_hosted.close()
        await self._insist(DrainRequested)

    async def _stop_running(self) -> None:
        live = list(self._app.state.attempts.values())
        for attempt in live:  # at once, whatever the disk says to the request below
            grace_s = self._app.state.jobs[attempt.job].grace_s
            self._app.executor.stop(StopAttempt(attempt.job, attempt.no, grace_s))
        self._app.executor.flush()
        jobs = tuple(attempt.job for attempt in live)
        await self._insist(lambda request: CancelRequested(request, jobs))

    async def _insist(self, make: Callable[[int], Event]) -> None:
        """Until it is committed: a disk that is full now may not be so in a moment."""
        said = ""
        while True:
            try:
                await self._app.ask(make)
                return
            except GpudError as error:
                if error.message != said:
                    self._shown.note(error.message)
                    said = error.message
            await asyncio.sleep(1)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._worked)

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        self._changed.set()
        if not task.cancelled():
            task.result()  # a bug goes on to the loop's handler

    def _on_events(self, events: Sequence[EventView]) -> None:
        if not self._app.state.attempts:
            self._changed.set()  # it may be over

    # -- the end ---------------------------------------------------------------------------------

    def _say_the_end(self) -> None:
        views = self._views()
        width = _width()
        lines = report.table(views, width) if views else []
        if self._left_out > 0:
            lines.append(f"… and {self._left_out} more that did not succeed")
        took_s = time.monotonic() - self._started_s
        _, outcomes = self._app.store.counts()
        open_jobs = self._app.state.jobs.values()
        ids = (each(job.rest) if job.rest else (job.id,) for job in open_jobs)
        waiting = sorted(map(JobId, chain.from_iterable(ids)))
        lines.append(f"{report.counts(outcomes, len(waiting))} in {report.seconds(took_s)}")
        lines.append(f"logs: {self._app.state_dir}/logs")
        if self._unread:
            lines.append("standard input was not read to its end")
        if waiting:
            lines += self._not_run(waiting, width)
        print("\n".join(lines), file=sys.stderr)

    def _not_run(self, waiting: Sequence[JobId], width: int) -> list[str]:
        """What is kept, and how to go on; as a file too, that `gpud run` reads."""
        specs = {job: self._app.store.spec(job) for job in waiting}
        path = Path(self._app.state_dir) / "not-run"
        lines = [f"not run, and kept in {path}:"]
        try:
            path.write_bytes(b"".join(report.entry(spec) for spec in specs.values()))
        except OSError as error:  # the database has them all the same
            lines = [f"not run, and kept (cannot write {path}: {why_os(error)}):"]
        for job in waiting[:MOST_NAMED]:
            line = f"{job:>6}  {report.shown(specs[job].command, width - 8)}"
            why = explain(self._app.state, job, self._app.now_ms())
            lines.append(line if self._asked else f"{line}\n        {why}")
        if len(waiting) > MOST_NAMED:
            lines.append(f"        and {len(waiting) - MOST_NAMED} more")
        lines.append(f"to go on: {self._resume}")
        return lines

    def _views(self) -> list[JobView]:
        """All jobs of a short run; of a long one those that did not succeed."""
        store = self._app.store
        states, outcomes = store.counts()
        if sum(states.values()) <= report.MOST_ROWS:
            return store.views(store.select(parse(["all"]))) if states else []
        bad = [f"state:{o}" for o in outcomes if outcomes[o] and o != Outcome.SUCCEEDED]
        ids = store.select(parse(bad)) if bad else []
        self._left_out = len(ids) - report.MOST_ROWS
        return store.views(ids[: report.MOST_ROWS])


def _is_file(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


def _width() -> int:
    try:
        return os.get_terminal_size(2).columns
    except OSError:
        return 100
