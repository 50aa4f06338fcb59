"""`gpud serve`: the daemon, in the foreground or under systemd.

Called by gpud/main.py. Reads the configuration, opens the app, follows signals, reloads. Ends with
0 after TERM or Ctrl-C: running jobs go on in their runner, and the next start finds them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from gpud import paths
from gpud.config.gpu_words import (
    VARIABLE,
    cpu_lane,
    from_command_line,
    from_config,
    from_variable,
)
from gpud.config.limits import MOST_SLOTS
from gpud.config.load import default_path, load
from gpud.config.retention import MIB, limits_of
from gpud.config.rules import ruling_of
from gpud.config.schema import Config
from gpud.core.model import Outcome
from gpud.daemon import systemd
from gpud.daemon.app import App, Settings
from gpud.daemon.devices import Plan
from gpud.daemon.gpus import Gpus
from gpud.daemon.logs import configure
from gpud.daemon.neighbours import Neighbours
from gpud.daemon.reload import Configured, cpu_slots_of
from gpud.daemon.sharing import open_up, policy_of, sockets_of
from gpud.errors import GpudError
from gpud.executors import transient
from gpud.executors.delegated import delegated
from gpud.protocol.replies import EventView
from gpud.store.statedir import StateDir

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

WORTH_A_WARNING = (
    "wrong-gpu",
    "gpu-idle",
    "gpu-quarantined",
    "gpu-healed",
    "stopped-by-gpud",
    "log-cut",
    "log-too-large",
)
DRIVER_WAIT_S = 5.0  # for the driver's first answer; then gpud serves without its GPUs

EXAMPLES = """\
examples:
  gpud serve --gpus 0,1                 two slots; gpuctl finds it
  gpud serve --config gpud.toml         with sources: see config.example.toml
  echo "python train.py" >> gpu.queue   a job, where gpu.queue is a configured source
"""


def main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    try:
        return asyncio.run(_serve(options))
    except GpudError as error:
        print(error.for_people("gpud"), file=sys.stderr)
        return error.exit_status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpud serve",
        description="Take jobs from sources and from gpuctl, and run them on GPU slots.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, help="configuration file (see gpud check)")
    parser.add_argument(
        "--gpus",
        nargs="+",
        metavar="ID",
        help="slots: 0 1 2, or 0,1 2 (a pair and a single one), or 0 0 (two jobs share it)",
    )
    parser.add_argument(
        "--slots-per-gpu", type=slots, metavar="N", help="so many jobs of one slot share a GPU"
    )
    parser.add_argument("--state-dir", type=Path, help="where the queue is kept")
    parser.add_argument("--socket", type=Path, help="where gpuctl finds this daemon")
    parser.add_argument("--log-format", choices=["auto", "text", "json"])
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"])
    return parser


class Told:
    """What signals have asked for, from the start: `stop` is set once, `reload` is called."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stop = loop.create_future()
        self.reload: Callable[[], None] = lambda: None
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: self.reload())

    def _on_stop(self) -> None:
        if not self.stop.done():
            self.stop.set_result(None)


async def _serve(options: argparse.Namespace) -> int:
    told = Told(asyncio.get_running_loop())
    path: Path | None = options.config or default_path()
    config = load(path) if path is not None else Config()
    level = options.log_level or config.log.level
    log = configure(level=level, form=options.log_format or config.log.format)
    plan, ruling = plan_of(config, options), ruling_of(config)
    policy = policy_of(config.access)
    directory = open_state_dir(options.state_dir, config)
    if directory.note:
        log.warning("state_directory", note=directory.note)
    if policy.system:
        open_up(directory.path, log.warning)
    for note in ruling.notes:
        log.warning("rules", note=note)
    gpus = Gpus(plan, warn=log.warning)
    try:
        await gpus.wait(DRIVER_WAIT_S)
    except GpudError:
        await gpus.close()
        directory.close()
        raise
    gpus.follow(Neighbours(directory.path, directory.path, log.warning).meet)
    manager = transient.manager()
    cgroup = None if manager else delegated()  # a service of its own has one of its own
    settings = Settings(
        sockets=sockets_of(config, options.socket, directory.path),
        cgroup=Path(config.cgroup) if config.cgroup else cgroup,
        manager=manager,
        defaults=config.defaults,
        rules=ruling.rules,
        metrics=config.metrics.listen,
        policy=policy,
    )
    app = await App.open(directory, settings, gpus, warn=log.warning)
    try:
        app.subscribe(lambda events: _log_events(events, log, verbose=level == "debug"))
        app.rule(ruling.rules, ruling.windows, ruling.notes)
        in_force = Configured(app, path, config, lambda new: plan_of(new, options))
        in_force.start_sources()
        app.housekeeping.start(limits_of(config.retention), log.info)
        app.log_caps.start(config.retention.log_cap * MIB)
        app.reloader = lambda: _reload(in_force, log)
        told.reload = lambda: _reload_by_signal(app)
        states, _ = app.store.counts()
        log.info(
            "serving",
            socket=app.socket,
            state_dir=app.state_dir,
            gpus=[d.key for d in gpus.pool.devices if d.ids],
            gpus_note=gpus.note,
            queued=states["queued"],
            active=states["active"],
        )
        await _until_told(app, told)
        _say_what_goes_on(app)
    finally:
        systemd.notify("STOPPING=1")
        await app.close()
    return 0


async def _until_told(app: App, told: Told) -> None:
    """Until TERM or INT, or a bug, which is raised."""
    watchdog = systemd.start_watchdog(asyncio.get_running_loop())
    systemd.notify("READY=1")
    try:
        await asyncio.wait({told.stop, app.bug}, return_when=asyncio.FIRST_COMPLETED)
        if app.bug.done():
            app.bug.result()
    finally:
        if watchdog is not None:
            watchdog.cancel()


def _reload(in_force: Configured, log: FilteringBoundLogger) -> list[str]:
    try:
        changes = in_force.reload()
    except GpudError as error:
        log.error("not_reloaded", why=error.message)
        raise
    for sentence in changes:
        log.info("reloaded", change=sentence)
    return changes


def _reload_by_signal(app: App) -> None:
    systemd.notify_reloading()
    try:
        if app.reloader is not None:
            app.reloader()
    except GpudError:
        pass  # it is in the log, and the old configuration holds
    systemd.notify("READY=1")


def _log_events(events: Sequence[EventView], log: FilteringBoundLogger, *, verbose: bool) -> None:
    """Jobs that did not succeed are worth a line in the journal; the rest is for debugging."""
    for event in events:
        bad = event.kind == "ended" and event.detail.get("outcome") != Outcome.SUCCEEDED
        if event.kind in WORTH_A_WARNING:
            log.warning(event.kind.replace("-", "_"), job=event.job, **event.detail)
        elif bad or verbose:
            bound = log.bind(job=event.job, attempt=event.attempt)
            (bound.info if bad else bound.debug)(event.kind.replace("-", "_"), **event.detail)


def plan_of(config: Config, options: argparse.Namespace) -> Plan:
    """The slots are named by --gpus, else by the configuration, else by a CUDA_VISIBLE_DEVICES that
    gpud itself was given, else all that there are. Raises GpudError (usage)."""
    pool, lane = config.pool, cpu_lane(cpu_slots_of(config))
    if options.slots_per_gpu is not None:
        pool = structs.replace(pool, slots_per_gpu=options.slots_per_gpu)
    given = os.environ.get(VARIABLE)
    if options.gpus is not None:
        return Plan(from_command_line(options.gpus), lane, pool)
    if pool.gpus:
        return Plan(from_config(pool.gpus), lane, pool)
    return Plan(None if given is None else from_variable(given), lane, pool)


def slots(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_SLOTS:
        raise argparse.ArgumentTypeError(f'"{text}" is not a number from 1 to {MOST_SLOTS}')
    return int(text)


def open_state_dir(given: Path | None, config: Config) -> StateDir:
    if given is not None:
        return StateDir.open(given, configured=True)
    if config.state_dir:
        return StateDir.open(Path(config.state_dir), configured=True)
    return StateDir.open(paths.state_dir(), configured=False)


def _say_what_goes_on(app: App) -> None:
    states, _ = app.store.counts()
    waiting = states["queued"] + states["held"]
    live = sorted(app.state.attempts)
    text = f"gpud: stopped; {waiting} waiting jobs are kept" if waiting else "gpud: stopped"
    if live:
        ids = ", ".join(map(str, live[:10])) + (" …" if len(live) > 10 else "")
        jobs = f"job {ids} goes" if len(live) == 1 else f"jobs {ids} go"
        text += f"\n  {jobs} on running; the next `gpud serve` on {app.state_dir} finds them"
        if pid := app.executor.runner_pid:
            text += f"\n  to stop them now: kill {pid} (the runner; it ends them all)"
    print(text, file=sys.stderr)
