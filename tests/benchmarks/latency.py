"""How soon: from one start to the next on a slot, from a submit to its first instruction."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from . import peers, programs
from .instance import Daemon, Wire
from .measure import Bench, Measured, quantile, take_turns


def start_to_start(bench: Bench) -> Iterator[Measured]:
    """One slot, all jobs queued at once: the median of the gaps between their stamps."""
    key = "start-to-start"
    c_limit = programs.compiled("c_limit", bench.place)
    stamp = programs.compiled("stamp", bench.place)
    if c_limit is None or stamp is None:
        yield Measured(key, skipped=programs.NO_COMPILER)
        return
    count, place = bench.effort.serial, bench.fresh("gaps")
    files = (place / f"stamps-{number}" for number in itertools.count())

    def gap_s(run: Callable[[str], None]) -> float:
        file = next(files)
        run(f"exec {stamp} {file}")
        stamps = _stamps(file)
        return statistics.median(b - a for a, b in itertools.pairwise(stamps)) / 1e9

    def c(command: str) -> None:
        programs.c_limit_s(c_limit, 1, count, "/bin/sh", "-c", command)

    with Daemon(place, "0") as gpud, closing(gpud.connect()) as wire, peers.tsp(place, 1) as tsp:
        gpud.meet_runner()

        def ours(command: str) -> None:
            first = wire.exchange(wire.bulk([command] * count))["first"]
            wire.wait(first, count)

        def theirs(command: str) -> None:
            if tsp is not None:
                programs.c_limit_s(c_limit, 1, count, tsp, "-n", "/bin/sh", "-c", command)
                subprocess.run([tsp, "-w"], check=True, capture_output=True)

        others = [lambda: gap_s(ours)] + ([lambda: gap_s(theirs)] if tsp else [])
        c_s, ratios = take_turns(bench.effort.rounds, lambda: gap_s(c), *others)
    yield Measured(
        key,
        ratios[0],
        peers={"tsp": statistics.median(ratios[1]) if tsp else peers.NOT_INSTALLED},
        detail={"jobs": count, "c_ms": [1000 * s for s in c_s]},
    )


def first_instruction(bench: Bench) -> Iterator[Measured]:
    """Turns of a submit each, the daemon idle in between."""
    key = "first-instruction"
    stamp = programs.compiled("stamp", bench.place)
    if stamp is None:
        yield Measured(key, skipped=programs.NO_COMPILER)
        return
    place = bench.fresh("first")
    ours, theirs, floor = place / "ours", place / "theirs", place / "floor"
    with Daemon(place, "0") as gpud, closing(gpud.connect()) as wire, peers.tsp(place, 1) as tsp:
        gpud.meet_runner()
        gpud_ms, tsp_ms, spawn_ms = [], [], []
        for _ in range(bench.effort.stamps):
            gpud_ms.append(_submit_ms(wire, f"exec {stamp} {ours}", ours))
            spawn_ms.append(_spawn_ms(["/bin/sh", "-c", f"exec {stamp} {floor}"], floor))
            if tsp is not None:
                command = [tsp, "-n", "/bin/sh", "-c", f"exec {stamp} {theirs}"]
                tsp_ms.append(_spawn_ms(command, theirs))
    yield Measured(
        key,
        gpud_ms,
        peers={
            "tsp": statistics.median(tsp_ms) if tsp else peers.NOT_INSTALLED,
            "posix_spawn": statistics.median(spawn_ms),
        },
        detail={"p99_ms": quantile(gpud_ms, 0.99)},
    )


def _submit_ms(wire: Wire, command: str, file: Path) -> float:
    lines = wire.prepare("submit", job={"command": command, "cwd": "/"})
    before = len(_stamps(file))
    begin = time.monotonic_ns()
    wire.exchange(lines)
    return (_next_stamp(file, before) - begin) / 1e6


def _spawn_ms(command: list[str], file: Path) -> float:
    before = len(_stamps(file))
    begin = time.monotonic_ns()
    os.waitpid(os.posix_spawn(command[0], command, os.environ), 0)
    return (_next_stamp(file, before) - begin) / 1e6


def _next_stamp(file: Path, before: int) -> int:
    """The stamp after the first `before` ones, and then quiet enough for the next turn."""
    end = time.monotonic() + 10
    while len(stamps := _stamps(file)) <= before:
        if time.monotonic() > end:
            raise RuntimeError("a job that writes a stamp did not write it within 10 s")
        time.sleep(0.005)
    time.sleep(0.03)
    return stamps[before]


def _stamps(file: Path) -> list[int]:
    try:
        return sorted(map(int, file.read_text().split()))
    except FileNotFoundError:
        return []
