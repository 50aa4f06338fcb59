"""`gpud run`: commands from standard input on GPU slots, and then the end.

Called by gpud/main.py. An instance of its own: its own directory under `runs/` in the state
directory, its own lock and runner, so that any number go side by side, beside a daemon too.
What was not started is kept there for `gpud run --resume ID`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
import time
from pathlib import Path

import msgspec

from gpud import paths
from gpud.config.gpu_words import from_command_line
from gpud.config.schema import JobDefaults
from gpud.config.units import parse_duration_s
from gpud.daemon.app import App, Settings
from gpud.daemon.neighbours import FILE_NAME as GPUS_FILE
from gpud.daemon.neighbours import announce, shared_gpus
from gpud.daemon.running import Interrupts, Run
from gpud.errors import GpudError
from gpud.sources.build import clean_environment
from gpud.sources.stdin import Stdin
from gpud.store.sqlite import RESERVE
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
        "--time-limit", type=_limit, metavar="TIME", help="a job is stopped after this (2h30m)"
    )
    parser.add_argument(
        "--grace", type=_duration, default=10.0, metavar="TIME", help="from TERM to KILL (10s)"
    )
    parser.add_argument("--shell", default="/bin/sh -c", help='what runs a command ("/bin/sh -c")')
    parser.add_argument("--prefix", action="store_true", help="the job's id before each line")
    parser.add_argument("--quiet", action="store_true", help="no line per start and per bad end")
    parser.add_argument("--durable", action="store_true", help="survive power cuts, too; slower")
    parser.add_argument("--state-dir", type=Path, help="where runs are kept")
    parser.add_argument("--resume", metavar="ID", help="go on with an earlier run; nothing is read")
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


def _limit(text: str) -> float:
    seconds = _duration(text)
    if not seconds:
        raise argparse.ArgumentTypeError("no job can be done in no time")
    return seconds


async def _run(options: argparse.Namespace) -> int:
    interrupts = Interrupts(asyncio.get_running_loop())
    _check_no_file(options.gpus)
    devices = from_command_line(options.gpus, len(os.sched_getaffinity(0)))
    defaults = _defaults(options)
    directory = _open_directory(options.state_dir, options.resume)
    if directory.note:
        print(f"gpud: {directory.note}", file=sys.stderr)
    for sentence in shared_gpus(directory.path.parents[1], devices, but=directory.path):
        print(f"gpud: {sentence}", file=sys.stderr)
    announce(directory.path, devices)
    settings = Settings(devices=devices, durable=options.durable, defaults=defaults)
    app = await App.open(directory, settings, warn=_warn)
    finished = False
    try:
        source = None if options.resume is not None else _stdin(defaults)
        if source is not None and sys.stdin is not None and sys.stdin.isatty():
            print("gpud: reading commands from the terminal; Ctrl-D ends them", file=sys.stderr)
        run = Run(
            app,
            interrupts,
            source,
            resume=_resume_command(options, directory.path.name),
            prefix=options.prefix,
            quiet=options.quiet,
        )
        await run.until_done()
        finished = True
        return run.exit_status()
    finally:
        await app.close(retire_runner=finished)
        if finished:
            _tidy(directory.path)


def _check_no_file(words: list[str]) -> None:
    """A forgotten `<` makes a GPU of a file."""
    for word in words:
        if not word.isdecimal() and os.path.isfile(word):
            raise GpudError(
                f'cannot use --gpus {" ".join(words)}: "{word}" is a file',
                kind="usage",
                hint=f"commands come from standard input: gpud run --gpus 0,1 < {word}",
            )


def _resume_command(options: argparse.Namespace, run: str) -> str:
    words = ["gpud", "run", "--gpus", *options.gpus, "--resume", run]
    if options.state_dir is not None:
        words += ["--state-dir", str(options.state_dir)]
    return shlex.join(words)


def _defaults(options: argparse.Namespace) -> JobDefaults:
    """Held against the same bounds as the configuration. Raises GpudError (usage)."""
    given = {
        "shell": shlex.split(options.shell),
        "retries": options.retries,
        "retry_args": options.retry_args,
        "backoff_s": options.backoff,
        "backoff_max_s": max(options.backoff, JobDefaults().backoff_max_s),
        "time_limit_s": options.time_limit,
        "grace_s": options.grace,
    }
    try:
        return msgspec.convert(given, JobDefaults)
    except msgspec.ValidationError as error:
        raise GpudError(f"cannot run with these options: {error}", kind="usage") from error


def _stdin(defaults: JobDefaults) -> Stdin:
    env = clean_environment(os.environb)
    return Stdin(0, defaults, cwd=os.getcwdb(), env=env, uid=os.geteuid())


def _open_directory(given: Path | None, resume: str | None) -> StateDir:
    """A new directory for this run, or that of an earlier one."""
    runs = (given or paths.state_dir()) / "runs"
    if resume is None:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        return StateDir.open(runs / name, configured=given is not None)
    places = [runs] if given is not None else [runs, paths.fallback_state_dir() / "runs"]
    found = [place / resume for place in places if (place / resume).is_dir()]
    if not found or resume != os.path.basename(resume):
        known = sorted(p.name for place in places if place.is_dir() for p in place.iterdir())
        raise GpudError(
            f'cannot resume run "{resume}": there is no such run in {runs}',
            kind="not-found",
            hint="the last ones: " + (", ".join(known[-3:]) or "none"),
        )
    return StateDir.open(found[0], configured=True)


def _tidy(directory: Path) -> None:
    """What only a live instance needs; the queue's history and the logs stay."""
    for name in (RESERVE, GPUS_FILE):
        try:
            (directory / name).unlink(missing_ok=True)
        except OSError:
            pass  # it only takes room


def _warn(event: str, **values: object) -> None:
    text = ", ".join(f"{key} {value}" for key, value in values.items())
    print(f"gpud: {event.replace('_', ' ')}: {text}", file=sys.stderr)
