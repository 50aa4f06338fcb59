"""`gpud run`: commands from standard input on GPU slots, and then the end.

Called by gpud/main.py. An instance of its own: its own directory under `runs/` in the state
directory, its own lock and runner, so that any number go side by side, beside a daemon too.

Interrupts: the first INT, TERM or HUP stops the dispatch and lets running jobs finish; the second
stops them (TERM, after the grace KILL); what was not started is kept for `gpud run --resume ID`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gpud import environment, paths
from gpud.config.gpu_words import from_command_line
from gpud.config.schema import JobDefaults
from gpud.config.units import parse_duration_s
from gpud.core.events import CancelRequested, DrainRequested, UndrainRequested
from gpud.core.model import JobId, JobState, Outcome
from gpud.daemon import report
from gpud.daemon.app import App, Settings
from gpud.daemon.console import Console, Ended, Note, Started
from gpud.daemon.neighbours import announce, shared_gpus
from gpud.errors import GpudError
from gpud.protocol.replies import EventView, JobView
from gpud.protocol.selectors import parse
from gpud.sources.stdin import Stdin
from gpud.store.statedir import StateDir

EXAMPLES = """\
examples:
  gpud run --gpus 0,1 < commands.txt           one command per line, two at a time
  gpud run --gpus $CUDA_VISIBLE_DEVICES < f    the GPUs you were given
  gpud run --gpus 0,1 2 < f                    a slot of two GPUs and a slot of one
  gpud run --gpus 0 0 < f                      two jobs share GPU 0
  tail -f -n 0 gpu.queue | gpud run --gpus 0   until you press Ctrl-C
  gpud run --gpus 0 --retries 3 --retry-args=--resume < f
  gpud run --gpus 0,1 --resume 20260102-030405-678

Ctrl-C once: running jobs finish, the rest is kept. Twice: running jobs are stopped.
Exit status: 0 when all jobs succeeded, 1 when one did not or was not run, 2 for wrong usage.
"""

LEFTOVERS = {
    "lingering": "its shell has ended, and these live on",
    "killed-leftovers": "ended with it",
    "unassigned": "nobody knows whose these are, they were left alone",
}


def main(argv: list[str]) -> int:
    try:
        return asyncio.run(_run(_parser().parse_args(argv)))
    except GpudError as error:
        print(error.for_people("gpud"), file=sys.stderr)
        return error.exit_status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpud run",
        description="Run the commands on standard input, each on a GPU slot of its own.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--gpus", nargs="+", required=True, metavar="ID", help="the slots, see the examples"
    )
    parser.add_argument(
        "--retries", type=_whole, default=0, metavar="N", help="tries after a bad end"
    )
    parser.add_argument("--retry-args", default="", metavar="ARGS", help="added to a command then")
    parser.add_argument(
        "--backoff", type=_duration, default=10.0, metavar="TIME",
        help="pause before the first retry, then twice as long each time (10s)",
    )  # fmt: skip
    parser.add_argument(
        "--time-limit", type=_duration, metavar="TIME", help="a job is stopped after this (2h30m)"
    )
    parser.add_argument(
        "--grace", type=_duration, default=10.0, metavar="TIME", help="from TERM to KILL (10s)"
    )
    parser.add_argument("--shell", default="/bin/sh -c", help='what runs a command ("/bin/sh -c")')
    parser.add_argument("--prefix", action="store_true", help="the job's id before each line")
    parser.add_argument("--quiet", action="store_true", help="no line per start and per bad end")
    parser.add_argument("--durable", action="store_true", help="survive power cuts, too; slower")
    parser.add_argument("--state-dir", type=Path, help="where runs are kept")
    parser.add_argument("--resume", metavar="ID", help="go on with what an earlier run kept")
    return parser


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'"{text}" is not a whole number')
    return int(text)


def _duration(text: str) -> float:
    try:
        return parse_duration_s(text)
    except GpudError as error:
        raise argparse.ArgumentTypeError(error.message) from error


async def _run(options: argparse.Namespace) -> int:
    devices = from_command_line(options.gpus, len(os.sched_getaffinity(0)))
    runs = (options.state_dir or paths.state_dir()) / "runs"
    directory = _open_directory(runs, options.resume)
    for sentence in shared_gpus(runs.parent, devices):
        print(f"gpud: {sentence}", file=sys.stderr)
    announce(directory.path, devices)
    defaults = JobDefaults(
        shell=tuple(options.shell.split()),
        retries=options.retries,
        retry_args=options.retry_args,
        backoff_s=options.backoff,
        time_limit_s=options.time_limit,
        grace_s=options.grace,
    )
    settings = Settings(devices=devices, durable=options.durable, defaults=defaults)
    app = await App.open(directory, settings, warn=_warn)
    finished = False
    try:
        run = Run(app, options)
        finished = await run.until_done()
        return run.exit_status()
    finally:
        await app.close(retire_runner=finished)


def _open_directory(runs: Path, resume: str | None) -> StateDir:
    """A new directory for this run, or that of an earlier one."""
    if resume is None:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        return StateDir.open(runs / name, configured=False)
    if resume != os.path.basename(resume) or not (runs / resume).is_dir():
        known = sorted(p.name for p in runs.iterdir())[-3:] if runs.is_dir() else []
        raise GpudError(
            f'cannot resume run "{resume}": there is no such run in {runs}',
            kind="not-found",
            hint="the last ones: " + (", ".join(known) or "none"),
        )
    return StateDir.open(runs / resume, configured=True)


def _warn(event: str, **values: object) -> None:
    text = ", ".join(f"{key} {value}" for key, value in values.items())
    print(f"gpud: {event.replace('_', ' ')}: {text}", file=sys.stderr)


class Run:
    """One run from the first line to the table at the end."""

    def __init__(self, app: App, options: argparse.Namespace) -> None:
        self._app = app
        self._quiet = options.quiet
        self._resumed = options.resume is not None
        self._id = Path(app.state_dir).name
        self._started_s = time.monotonic()
        self._done = 0
        self._failed = 0
        self._interrupts = 0
        self._changed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._work: set[asyncio.Task[object]] = set()
        self._console = Console(
            prefix=options.prefix, progress=self._progress if sys.stderr.isatty() else None
        )
        app.subscribe(self._on_events)
        app.bug.add_done_callback(lambda _: self._changed.set())

    # -- life ------------------------------------------------------------------------------------

    async def until_done(self) -> bool:
        """True when nothing is active any more; raises the bug that ended the app."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_interrupt)
        try:
            for job in self._app.state.attempts:
                self._console.put(Started(job, self._log(job), ""))
            if self._resumed:
                await self._app.ask(UndrainRequested)
            else:
                self._reading = self._read_stdin()
            while not self._is_over():
                self._changed.clear()
                await self._changed.wait()
                if self._app.bug.done():
                    self._app.bug.result()
        finally:
            self._console.close()
        self._say_the_end()
        return True

    def _read_stdin(self) -> asyncio.Task[None]:
        source = Stdin(
            0,
            self._app.defaults,
            cwd=os.getcwdb(),
            env=environment.pack(environment.capture(os.environb)),
            uid=os.geteuid(),
        )
        self._app.sources_hosted.add(source, "standard input")
        reading = asyncio.ensure_future(self._app.sources_hosted.exhausted(source.name))
        reading.add_done_callback(lambda _: self._changed.set())
        return reading

    def _is_over(self) -> bool:
        if self._reading is not None and not self._reading.done():
            return False
        if self._app.state.attempts:
            return False
        return self._interrupts > 0 or not self._app.state.jobs

    def exit_status(self) -> int:
        _, outcomes = self._app.store.counts()
        bad = sum(count for outcome, count in outcomes.items() if outcome != Outcome.SUCCEEDED)
        return 1 if bad or self._app.state.jobs else 0

    # -- interrupts ------------------------------------------------------------------------------

    def _on_interrupt(self) -> None:
        self._interrupts += 1
        active = len(self._app.state.attempts)
        jobs = "1 running job" if active == 1 else f"{active} running jobs"
        if self._interrupts == 1:
            self._console.put(Note(f"gpud: no more starts; {jobs} may finish (again: stop them)"))
            self._spawn(self._stop_starting())
        elif self._interrupts == 2:
            self._console.put(Note(f"gpud: stopping {jobs}"))
            self._spawn(self._stop_running())

    async def _stop_starting(self) -> None:
        await self._app.ask(DrainRequested)
        if self._reading is not None and not _is_regular(0):
            await self._app.sources_hosted.close()  # a file is read to its end: all of it is kept
        self._changed.set()

    async def _stop_running(self) -> None:
        live = tuple(self._app.state.attempts)
        await self._app.ask(lambda request: CancelRequested(request, live))

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._work.add(task)
        task.add_done_callback(self._worked)

    def _worked(self, task: asyncio.Task[object]) -> None:
        self._work.discard(task)
        task.result()

    # -- what is shown ---------------------------------------------------------------------------

    def _on_events(self, events: Sequence[EventView]) -> None:
        for event in events:
            if event.kind == "dispatched":
                self._console.put(Started(event.job, self._log(event.job), self._start_line(event)))
            elif event.kind == "ended":
                self._on_end(event)
            elif event.kind in LEFTOVERS and not self._quiet:
                names = event.detail["processes"]
                shown = ", ".join(names) if isinstance(names, list) else ""
                self._console.put(Note(f"[{event.job}] {LEFTOVERS[event.kind]}: {shown}"))
        self._changed.set()

    def _on_end(self, event: EventView) -> None:
        outcome = str(event.detail["outcome"])
        line = ""
        if "retry_at_ms" not in event.detail:
            self._done += 1
        if outcome != Outcome.SUCCEEDED:
            if "retry_at_ms" not in event.detail:
                self._failed += 1
            line = "" if self._quiet else _end_line(event, outcome)
        self._console.put(Ended(event.job, line))

    def _start_line(self, event: EventView) -> str:
        if self._quiet:
            return ""
        lease = event.detail["lease"]
        gpu = ",".join(lease) if isinstance(lease, dict) else ""
        spec = self._app.engine.spec(JobId(event.job))
        return f"[{event.job}] on GPU {gpu}: {report.shown(spec.command, 160)}"

    def _progress(self) -> str:
        state = self._app.state
        running = len(state.attempts)
        left = len(state.jobs) - running
        eta_s = None
        if self._done and (self._reading is None or self._reading.done()):
            eta_s = (time.monotonic() - self._started_s) / self._done * (left + running / 2)
        return report.progress(self._done, running, self._failed, left, eta_s)

    def _log(self, job: int) -> str:
        attempt = self._app.state.attempts.get(JobId(job))
        return paths.log_path(self._app.state_dir, job, attempt.no if attempt else 1)

    def _say_the_end(self) -> None:
        views = self._views()
        width = _width()
        lines = report.table(views, width) if views else []
        took_s = time.monotonic() - self._started_s
        store = self._app.store
        states, outcomes = store.counts()
        waiting = states.get(JobState.QUEUED, 0) + states.get(JobState.HELD, 0)
        lines.append(f"{report.counts(outcomes, waiting)} in {report.seconds(took_s)}")
        lines.append(f"logs: {self._app.state_dir}/logs")
        if waiting:
            lines.append(f"what was not run is kept: gpud run --gpus … --resume {self._id}")
        print("\n".join(lines), file=sys.stderr)

    def _views(self) -> list[JobView]:
        """All jobs of a short run; of a long one those that did not succeed."""
        store = self._app.store
        states, outcomes = store.counts()
        if sum(states.values()) <= report.MOST_ROWS:
            return store.views(store.select(parse(["all"]))) if states else []
        bad = [f"state:{o}" for o in outcomes if o != Outcome.SUCCEEDED]
        ids = store.select(parse(bad)) if bad else []
        return store.views(ids[: report.MOST_ROWS])


def _end_line(event: EventView, outcome: str) -> str:
    detail = event.detail
    how = outcome
    if "exit_code" in detail and outcome == Outcome.FAILED:
        how = f"failed with exit status {detail['exit_code']}"
    elif "signal" in detail and outcome == Outcome.KILLED:
        how = f"killed by {report.signal_name(int(str(detail['signal'])))}"
    if detail.get("why"):
        how += f": {detail['why']}"
    if "retry_at_ms" in detail:
        pause_s = max(0, (int(str(detail["retry_at_ms"])) - event.at_ms) // 1000)
        how += f"; tried again in {pause_s} s"
    return f"[{event.job}] {how}"


def _is_regular(fd: int) -> bool:
    import stat

    return stat.S_ISREG(os.fstat(fd).st_mode)


def _width() -> int:
    try:
        return os.get_terminal_size(2).columns
    except OSError:
        return 100
