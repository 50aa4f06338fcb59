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
from collections.abc import Sequence
from pathlib import Path

from gpud import paths
from gpud.config.gpu_words import from_command_line, from_config
from gpud.config.load import default_path, load
from gpud.config.schema import Config
from gpud.core.model import Device
from gpud.daemon import systemd
from gpud.daemon.app import App, Settings
from gpud.daemon.logs import configure
from gpud.daemon.neighbours import announce, shared_gpus
from gpud.daemon.reload import Configured
from gpud.errors import GpudError
from gpud.executors.delegated import delegated
from gpud.store.statedir import StateDir

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
    parser.add_argument("--state-dir", type=Path, help="where the queue is kept")
    parser.add_argument("--socket", type=Path, help="where gpuctl finds this daemon")
    parser.add_argument("--log-format", choices=["auto", "text", "json"])
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"])
    return parser


async def _serve(options: argparse.Namespace) -> int:
    path: Path | None = options.config or default_path()
    config = load(path) if path is not None else Config()
    log = configure(
        level=options.log_level or config.log.level, form=options.log_format or config.log.format
    )
    devices = devices_of(config, options.gpus)
    directory = open_state_dir(options.state_dir, config)
    if directory.note:
        log.warning("state_directory", note=directory.note)
    socket = options.socket or (Path(config.socket) if config.socket else None)
    settings = Settings(
        devices=devices,
        socket=socket or paths.socket_path(directory.path),
        cgroup=Path(config.cgroup) if config.cgroup else delegated(),
        defaults=config.defaults,
    )
    for sentence in shared_gpus(directory.path, devices, but=directory.path):
        log.warning("shared_gpus", note=sentence)
    announce(directory.path, devices)
    app = await App.open(directory, settings, warn=log.warning)
    try:
        configured = Configured(app, path, config, options.gpus)
        configured.start_sources()
        app.reloader = configured.reload
        log.info(
            "serving",
            socket=app.socket,
            state_dir=app.state_dir,
            gpus=[d.key for d in devices if d.ids],
            queued=len(app.state.jobs),
        )
        await _until_told(app, log)
        live = sorted(app.state.attempts)
        if live:
            _say_what_goes_on(live, app)
    finally:
        systemd.notify("STOPPING=1")
        await app.close()
    return 0


async def _until_told(app: App, log: object) -> None:
    """Until TERM or INT, or a bug, which is raised."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()

    def stop() -> None:
        if not told.done():
            told.set_result(None)

    def reload() -> None:
        systemd.notify_reloading()
        try:
            for sentence in app.reloader() if app.reloader else ():
                log.info("reloaded", change=sentence)  # type: ignore[attr-defined]
        except GpudError as error:
            log.error("not_reloaded", why=error.message)  # type: ignore[attr-defined]
        systemd.notify("READY=1")

    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGINT, stop)
    loop.add_signal_handler(signal.SIGHUP, reload)
    watchdog = systemd.start_watchdog(loop)
    systemd.notify("READY=1")
    try:
        await asyncio.wait({told, app.bug}, return_when=asyncio.FIRST_COMPLETED)
        if app.bug.done():
            app.bug.result()
    finally:
        if watchdog is not None:
            watchdog.cancel()


def devices_of(config: Config, words: list[str] | None) -> tuple[Device, ...]:
    """From --gpus, else the configuration, else what NVML finds. Raises GpudError."""
    cpu_slots = config.pool.cpu_slots
    if cpu_slots is None:
        cpu_slots = len(os.sched_getaffinity(0))
    if words is not None:
        return from_command_line(words, cpu_slots)
    if config.pool.gpus:
        return from_config(config.pool.gpus, cpu_slots)
    from gpud.devices.detect import detect

    return detect(cpu_slots)


def open_state_dir(given: Path | None, config: Config) -> StateDir:
    if given is not None:
        return StateDir.open(given, configured=True)
    if config.state_dir:
        return StateDir.open(Path(config.state_dir), configured=True)
    return StateDir.open(paths.state_dir(), configured=False)


def _say_what_goes_on(live: Sequence[int], app: App) -> None:
    ids = ", ".join(map(str, live[:10])) + (" …" if len(live) > 10 else "")
    jobs = f"job {ids} goes" if len(live) == 1 else f"jobs {ids} go"
    text = f"gpud: {jobs} on running; the next `gpud serve` on {app.state_dir} finds them"
    pid = app.executor.runner_pid
    if pid:
        text += f"\n  to stop them now: kill {pid} (the runner; it ends them all)"
    print(text, file=sys.stderr)
