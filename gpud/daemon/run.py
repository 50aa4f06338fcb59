"""`gpud run`: commands from standard input on GPU slots, and then the end.

Called by gpud/main.py. An instance of its own: its own directory under `runs/` in the state
directory, its own lock and runner, so that any number go side by side, beside a daemon too.
What was not started is kept there for `gpud run --resume ID`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

import msgspec

from gpud import paths
from gpud.config.asking import read_backoff, read_retry_on, read_vram
from gpud.config.gpu_words import cpu_lane, from_command_line
from gpud.config.limits import MOST_SLOTS
from gpud.config.requests import request_of
from gpud.config.schema import JobDefaults, Pool
from gpud.config.units import parse_duration_s
from gpud.daemon.devices import Plan
from gpud.errors import GpudError
from gpud.executors.launch import Launching, begin, live_versions
from gpud.runner import VERSION
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


EVERYBODY = "all"  # for --ignore


def main(argv: list[str]) -> int:
    try:
        return _run(_parser().parse_args(argv))
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
        "--slots-per-gpu", type=_slots, default=1, metavar="N", help="so many jobs share a GPU (1)"
    )
    parser.add_argument(
        "--vram", type=_vram, default=0, metavar="SIZE",
        help='each job where that much GPU memory is free (12G), or "auto"',
    )  # fmt: skip
    parser.add_argument(
        "--ignore", type=_programs, default=(), metavar="NAMES",
        help='start beside these programs of other people (python,firefox), or "all"',
    )  # fmt: skip
    parser.add_argument(
        "--retry-on", type=_ends, default=None, metavar="ENDS",
        help="which ends are tried again: failed,signal,timed-out,lost,oom, exit statuses (75)",
    )  # fmt: skip
    parser.add_argument(
        "--retries", type=_whole, default=0, metavar="N", help="tries after a bad end"
    )
    parser.add_argument("--retry-args", default="", metavar="ARGS", help="added to a command then")
    parser.add_argument(
        "--backoff", type=_backoff, default=(10.0, None), metavar="TIME",
        help="pause before the first retry, then twice as long each time (10s..10m)",
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


def _slots(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_SLOTS:
        raise argparse.ArgumentTypeError(f'"{text}" is not a number from 1 to {MOST_SLOTS}')
    return int(text)


def _vram(text: str) -> int | str:
    try:
        return read_vram(text)
    except GpudError as error:
        raise argparse.ArgumentTypeError(error.message) from error


def _programs(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f'"{text}" does not name a program beside each comma')
    return names


def _backoff(text: str) -> tuple[float, float | None]:
    try:
        return read_backoff(text)
    except GpudError as error:
        raise argparse.ArgumentTypeError(error.message) from error


def _ends(text: str) -> tuple[str | int, ...]:
    try:
        return read_retry_on(text)
    except GpudError as error:
        raise argparse.ArgumentTypeError(error.message) from error


def _limit(text: str) -> float:
    seconds = _duration(text)
    if not seconds:
        raise argparse.ArgumentTypeError("no job can be done in no time")
    return seconds


def _run(options: argparse.Namespace) -> int:
    """The runner starts while the rest of the program is loaded."""
    _check_no_file(options.gpus)
    pool = Pool(
        slots_per_gpu=options.slots_per_gpu,
        ignore=options.ignore,
        respect_others=EVERYBODY not in options.ignore,
    )
    lane = cpu_lane(len(os.sched_getaffinity(0)))
    plan = Plan(from_command_line(options.gpus), lane, pool)
    defaults = _defaults(options)
    directory = _open_directory(options.state_dir, options.resume)
    launching = _begin_runner(directory.path)
    if directory.note:
        print(f"gpud: {directory.note}", file=sys.stderr)

    from gpud.daemon.instance import run

    return run(
        directory,
        launching,
        plan=plan,
        durable=options.durable,
        defaults=defaults,
        resume=_resume_command(options, directory.path.name),
        read=options.resume is None,
        prefix=options.prefix,
        quiet=options.quiet,
        request=request_of(None, options.vram, "", False),
    )


def _begin_runner(directory: Path) -> Launching | None:
    """None: one lives (of a run that was killed), or the start is left to those who try again."""
    try:
        return None if VERSION in live_versions(directory) else begin(directory, None)
    except GpudError:
        return None


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
    if options.slots_per_gpu > 1:
        words += ["--slots-per-gpu", str(options.slots_per_gpu)]
    if options.ignore:
        words += ["--ignore", ",".join(options.ignore)]
    if options.state_dir is not None:
        words += ["--state-dir", str(options.state_dir)]
    return shlex.join(words)


def _defaults(options: argparse.Namespace) -> JobDefaults:
    """Held against the same bounds as the configuration. Raises GpudError (usage)."""
    first_s, longest_s = options.backoff
    given = {
        "shell": shlex.split(options.shell),
        "retries": options.retries,
        "retry_args": options.retry_args,
        "backoff_s": first_s,
        "backoff_max_s": longest_s or max(first_s, JobDefaults().backoff_max_s),
        "time_limit_s": options.time_limit,
        "grace_s": options.grace,
    }
    if options.retry_on is not None:
        given["retry_on"] = options.retry_on
    try:
        return msgspec.convert(given, JobDefaults)
    except msgspec.ValidationError as error:
        raise GpudError(f"cannot run with these options: {error}", kind="usage") from error


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
