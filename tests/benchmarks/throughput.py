"""Jobs per second on four slots: the daemon, and `gpud run`."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from . import peers, programs
from .instance import Daemon
from .measure import Bench, Measured, inverted, take_turns

SLOTS = ("0", "0", "0", "0")
JOB = ("/bin/sh", "-c", "true")


def daemon(bench: Bench) -> Iterator[Measured]:
    key = "daemon-throughput"
    c_limit = programs.compiled("c_limit", bench.place)
    if c_limit is None:
        yield Measured(key, skipped=programs.NO_COMPILER)
        return
    jobs, place = bench.effort.jobs, bench.fresh("throughput")
    with Daemon(place, *SLOTS) as gpud, peers.tsp(place, len(SLOTS)) as tsp:
        gpud.meet_runner()
        others = [lambda: _daemon_s(gpud, jobs)]
        if tsp is not None:
            others.append(lambda: peers.tsp_s(tsp, c_limit, jobs))
        c_s, ratios = take_turns(bench.effort.rounds, lambda: _c_s(c_limit, jobs), *others)
    yield Measured(
        key,
        inverted(ratios[0]),
        peers={"tsp": _speed(ratios[1]) if tsp else peers.NOT_INSTALLED},
        detail={"jobs": jobs, "c_s": c_s},
    )


def run(bench: Bench) -> Iterator[Measured]:
    key = "run-throughput"
    c_limit = programs.compiled("c_limit", bench.place)
    if c_limit is None:
        yield Measured(key, skipped=programs.NO_COMPILER)
        return
    jobs, place = bench.effort.jobs, bench.fresh("run")
    lines = place / "commands"
    lines.write_text("true\n" * jobs)
    gpud = [*programs.gpud(), "run", "--state-dir", str(place), "--gpus", *SLOTS]
    with open(os.devnull, "wb") as null:

        def taken_s(command: list[str]) -> float:
            return peers.from_stdin_s(command, lines, null.fileno(), place)

        others = [lambda: taken_s(gpud), lambda: taken_s([*gpud, "--durable"])]
        subprocess.run(gpud, stdin=subprocess.DEVNULL, stderr=null, check=True)  # compiles
        sgs = peers.simple_gpu_scheduler()
        if sgs is not None:
            others.append(lambda: taken_s([sgs, "--gpus", *SLOTS]))
        c_s, ratios = take_turns(bench.effort.rounds, lambda: _c_s(c_limit, jobs), *others)
    yield Measured(
        key,
        inverted(ratios[0]),
        peers={"simple_gpu_scheduler": _speed(ratios[2]) if sgs else peers.NOT_INSTALLED},
        detail={"jobs": jobs, "c_s": c_s, "durable": inverted(ratios[1])},
    )
    if sgs is None:
        yield Measured("run-against-sgs", skipped=f"simple_gpu_scheduler: {peers.NOT_INSTALLED}")
    else:
        yield Measured(
            "run-against-sgs",
            [theirs / ours for ours, theirs in zip(ratios[0], ratios[2], strict=True)],
        )


def _c_s(c_limit: Path, jobs: int) -> float:
    return programs.c_limit_s(c_limit, len(SLOTS), jobs, *JOB)


def _daemon_s(gpud: Daemon, jobs: int) -> float:
    """From the submit being sent to the end of the last job."""
    with closing(gpud.connect()) as wire:
        before = wire.succeeded()
        lines = wire.bulk(["true"] * jobs)
        begin = time.monotonic()
        first = wire.exchange(lines)["first"]
        wire.wait(first, jobs)
        took_s = time.monotonic() - begin
        if (done := wire.succeeded() - before) != jobs:
            raise RuntimeError(f"only {done} of {jobs} jobs had ended when the last ones had")
    return took_s


def _speed(ratios: list[float]) -> float:
    return statistics.median(inverted(ratios))
