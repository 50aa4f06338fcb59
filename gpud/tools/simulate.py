"""`gpud simulate`: when would these jobs be done, and what if there were more GPUs?

Called by gpud/main.py. Needs no daemon and no GPU, starts nothing and writes nothing. Owns the
command line and the JSON around the figures (docs/simulate.md).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec import to_builtins

from gpud.config.gpu_words import cpu_lane
from gpud.config.limits import MOST_GPUS, MOST_SLOTS
from gpud.config.units import parse_size_mib
from gpud.core.model import Device, Request
from gpud.errors import GpudError, why_os
from gpud.tools.fifo import fifo
from gpud.tools.figures import figures_of
from gpud.tools.output import say
from gpud.tools.progress import Progress
from gpud.tools.schedule import Told
from gpud.tools.side_by_side import Alternative, as_text, duration
from gpud.tools.simulation import simulate
from gpud.tools.synthetic import synthetic
from gpud.tools.trace import MOST_JOBS, TraceJob
from gpud.tools.trace_cells import COLUMNS
from gpud.tools.trace_csv import read_trace

JSON_VERSION = 1
DEFAULT_LOAD = 0.9
HELP = f"""\
The trace is a CSV file; its first line names the columns, in any order:
{", ".join(COLUMNS)}.
Only duration is needed. A duration is in seconds, or text like 90s, 10m, 2h30m, 1d.

  submit    since the start, or a moment like 2026-11-21 15:00; empty: the start
  duration  how long the job runs, once it has started
  gpus      how many, or a share of one (0.5); empty: one slot
            0: none, which needs --cpu-slots
  vram      GPU memory, like 12G; needs --vram
  limit     time limit; a job that would run longer is stopped there
  count     that many equal jobs

FIFO is what a plain queue would do on the same GPUs: in strict order, where the
first job that does not fit makes all behind it wait.

examples:
  gpud simulate sweep.csv --gpus 8
  gpud simulate sweep.csv --gpus 1,2,4 --slots-per-gpu 2
  printf 'duration,count\\n40m,60\\n' | gpud simulate - --gpus 4
  gpud simulate --synthetic 1000 --load 0.9 --gpus 8 --json

exit status: 0, or 1 where the trace cannot be used, 2 for a wrong option.
"""


class PoolShape(NamedTuple):
    gpus: int
    slots_per_gpu: int
    vram_mib: int
    cpu_slots: int

    @property
    def head(self) -> str:
        return "1 GPU" if self.gpus == 1 else f"{self.gpus} GPUs"

    def devices(self) -> tuple[Device, ...]:
        """GPUs that are all the same, of which nothing else is known."""
        gpus = (
            Device(str(index), (str(index),), self.slots_per_gpu, memory_mib=self.vram_mib)
            for index in range(self.gpus)
        )
        return (*gpus, *cpu_lane(self.cpu_slots))

    def in_words(self, why: str, request: Request) -> str:
        """Why it is refused, where an option would help: the core knows of machines only."""
        if request.vram_mib and request.gpus != 0 and not self.vram_mib:
            return "asks for GPU memory; say with --vram how much a GPU has"
        if request.gpus == 0 and not request.vram_mib and not self.cpu_slots:
            return "needs no GPU; say with --cpu-slots how many such jobs may run"
        return why


def main(argv: list[str]) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    if (options.trace is None) == (options.synthetic is None):
        parser.error("it takes a trace, or --synthetic N, and not both")
    shapes = [
        PoolShape(gpus, options.slots_per_gpu, options.vram, options.cpu_slots)
        for gpus in dict.fromkeys(options.gpus)
    ]
    try:
        with Progress() as progress:
            text = _text(options, shapes, progress)
    except GpudError as error:
        print(error.for_people("gpud simulate"), file=sys.stderr)
        return error.exit_status
    return say(text, "gpud simulate")


def _text(options: argparse.Namespace, shapes: Sequence[PoolShape], progress: Progress) -> str:
    jobs, about = _trace(options, shapes[0], progress)
    alternatives = [_alternative(jobs, shape, progress) for shape in shapes]
    if options.json:
        return json.dumps(_document(jobs, about, shapes, alternatives), indent=1)
    return "\n".join([about, _summary(jobs), *as_text(alternatives)])


def _trace(
    options: argparse.Namespace, shape: PoolShape, progress: Progress
) -> tuple[list[TraceJob], str]:
    """The jobs, and what they are, in a word or two."""
    if options.synthetic is None:
        return _read(options.trace, progress)
    jobs = synthetic(
        options.synthetic,
        gpus=shape.gpus,
        slots_per_gpu=shape.slots_per_gpu,
        load=options.load,
        seed=options.seed,
    )
    return jobs, f"synthetic, seed {options.seed}, load {options.load:g} on {shape.head}"


def _read(path: str, progress: Progress) -> tuple[list[TraceJob], str]:
    def told(line: int) -> None:
        if not is_typed:
            progress.show(lambda: f"reading the trace: line {line:,}")

    if path == "-":
        where: str | int = 0
        about, shown = "standard input", "on standard input"
    else:
        where = about = shown = path
    try:
        with open(where, encoding="utf-8", newline="", closefd=where != 0) as file:
            is_typed = file.isatty()
            return read_trace(file, shown, told), about
    except OSError as error:
        raise GpudError(f"cannot open the trace {shown}: {why_os(error)}") from error


def _alternative(jobs: Sequence[TraceJob], shape: PoolShape, progress: Progress) -> Alternative:
    def told(whose: str) -> Told:
        return lambda schedule: progress.show(
            lambda: f"{shape.head}, {whose}: {100 * schedule.done // len(jobs)} % of the jobs done"
        )

    devices = shape.devices()
    ours, reference = simulate(jobs, devices, told("gpud")), fifo(jobs, devices, told("FIFO"))
    return Alternative(
        head=shape.head,
        gpud=figures_of(ours, devices),
        fifo=figures_of(reference, devices),
        refused=[
            (jobs[place].place, shape.in_words(why, jobs[place].request))
            for place, why in ours.refused.items()
        ],
    )


def _summary(jobs: Sequence[TraceJob]) -> str:
    """ "24 jobs, 1d16h of GPU time, submitted over 1h"."""
    count = "1 job" if len(jobs) == 1 else f"{len(jobs):,} jobs"
    work = duration(sum(job.gpus * job.runs_ms for job in jobs) / 1000)
    over = f", submitted over {duration(jobs[-1].submit_ms / 1000)}" if jobs[-1].submit_ms else ""
    return f"{count}, {work} of GPU time{over}"


def _document(
    jobs: Sequence[TraceJob],
    about: str,
    shapes: Sequence[PoolShape],
    alternatives: Sequence[Alternative],
) -> dict[str, object]:
    return {
        "version": JSON_VERSION,
        "trace": {
            "about": about,
            "jobs": len(jobs),
            "gpu_s": sum(job.gpus * job.runs_ms for job in jobs) / 1000,
            "last_submit_s": jobs[-1].submit_ms / 1000,
        },
        "pools": [
            {
                **shape._asdict(),
                "gpud": to_builtins(alternative.gpud),
                "fifo": to_builtins(alternative.fifo),
                "refused": [{"job": job, "why": why} for job, why in alternative.refused],
            }
            for shape, alternative in zip(shapes, alternatives, strict=True)
        ],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpud simulate",
        usage="gpud simulate (TRACE.csv | - | --synthetic N) --gpus N[,N …] [option …]",
        description="Say how long jobs would wait and when they would be done, on so many GPUs.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("trace", nargs="?", metavar="TRACE.csv", help="- reads standard input")
    parser.add_argument(
        "--gpus",
        required=True,
        metavar="N[,N …]",
        type=_gpus,
        help="how many there are; several numbers are compared",
    )
    parser.add_argument(
        "--slots-per-gpu", type=_whole(1, MOST_SLOTS), default=1, metavar="N", help="default: 1"
    )
    parser.add_argument(
        "--vram", type=_size, default=0, metavar="SIZE", help="memory of each GPU, like 80G"
    )
    parser.add_argument(
        "--cpu-slots",
        type=_whole(0, MOST_SLOTS),
        default=0,
        metavar="N",
        help="for jobs with gpus 0; default: none",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object; see docs/simulate.md")
    made = parser.add_argument_group("instead of a trace")
    made.add_argument(
        "--synthetic", type=_whole(1, MOST_JOBS), metavar="N", help="N jobs, as clusters see them"
    )
    made.add_argument(
        "--load",
        type=_load,
        default=DEFAULT_LOAD,
        metavar="X",
        help=f"of the (first) pool; default: {DEFAULT_LOAD}",
    )
    made.add_argument(
        "--seed", type=_whole(0, 2**32), default=1, metavar="N", help="other dice; default: 1"
    )
    return parser


def _gpus(text: str) -> list[int]:
    whole = _whole(1, MOST_GPUS)
    return [whole(word) for word in text.split(",")]


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if text.strip().isdecimal() and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(
            f'"{text}" is not a whole number from {least:,} to {most:,}'
        )

    return read


def _load(text: str) -> float:
    try:
        load = float(text)
    except ValueError:
        load = math.nan
    if 0.01 <= load <= 100:  # not so for what is not a number
        return load
    raise argparse.ArgumentTypeError(f'"{text}" is not a load from 0.01 to 100, like 0.9')


def _size(text: str) -> int:
    try:
        return parse_size_mib(text)
    except GpudError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
