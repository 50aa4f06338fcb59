"""The instance behind a `gpud run`: opened, run to its end, closed.

Called by daemon/run.py, which has read the command line and has begun to start the runner.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from gpud.config.schema import JobDefaults
from gpud.core.model import Request
from gpud.daemon.app import App, Settings
from gpud.daemon.devices import Plan
from gpud.daemon.gpus import Gpus
from gpud.daemon.neighbours import FILE_NAME as GPUS_FILE
from gpud.daemon.neighbours import Neighbours
from gpud.daemon.running import Interrupts, Run
from gpud.executors.launch import Launching
from gpud.sources.build import clean_environment
from gpud.sources.stdin import Stdin
from gpud.store.sqlite import RESERVE
from gpud.store.statedir import StateDir


def run(
    directory: StateDir,
    launching: Launching | None,
    *,
    plan: Plan,
    request: Request,
    durable: bool,
    defaults: JobDefaults,
    resume: str,
    read: bool,
    prefix: bool,
    quiet: bool,
) -> int:
    """The exit status. `read`: jobs come from standard input, too; `resume`: the command that goes
    on with what is not run. Raises GpudError with one sentence."""
    settings = Settings(durable=durable, defaults=defaults)
    source = _stdin(defaults, request) if read else None
    return asyncio.run(_run(directory, launching, settings, plan, source, resume, prefix, quiet))


async def _run(
    directory: StateDir,
    launching: Launching | None,
    settings: Settings,
    plan: Plan,
    source: Stdin | None,
    resume: str,
    prefix: bool,
    quiet: bool,
) -> int:
    interrupts = Interrupts(asyncio.get_running_loop())
    gpus = Gpus(plan, warn=_warn)
    gpus.follow(Neighbours(directory.path, directory.path.parents[1], _warn).meet)
    app = await App.open(directory, settings, gpus, launching=launching, warn=_warn)
    finished = False
    try:
        if source is not None and sys.stdin is not None and sys.stdin.isatty():
            print("gpud: reading commands from the terminal; Ctrl-D ends them", file=sys.stderr)
        run = Run(app, interrupts, source, resume=resume, prefix=prefix, quiet=quiet)
        await run.until_done()
        finished = True
        return run.exit_status()
    finally:
        await app.close(retire_runner=finished)
        if finished:
            _tidy(directory.path)


def _stdin(defaults: JobDefaults, request: Request) -> Stdin:
    env = clean_environment(os.environb)
    return Stdin(0, defaults, cwd=os.getcwdb(), env=env, uid=os.geteuid(), request=request)


def _tidy(directory: Path) -> None:
    """What only a live instance needs; the queue's history and the logs stay."""
    for name in (RESERVE, GPUS_FILE):
        try:
            (directory / name).unlink(missing_ok=True)
        except OSError:
            pass  # it only takes room


def _warn(event: str, **values: object) -> None:
    if len(values) == 1 and values.keys() <= {"note", "why"}:  # a sentence
        (text,) = values.values()
    else:
        words = ", ".join(f"{key} {value}" for key, value in values.items())
        text = f"{event.replace('_', ' ')}: {words}"
    print(f"gpud: {text}", file=sys.stderr)
