"""What a run of gpuctl costs, start to exit."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import closing

from . import programs
from .instance import Daemon, seeds
from .measure import Bench, Measured, quantile

PAGE = ("--limit", "50")  # the default on a terminal; in a pipe `ls` prints everything


def submit(bench: Bench) -> Iterator[Measured]:
    """Against `python -c pass`, in pairs. The daemon is drained: what it would start meanwhile is
    not the client's cost."""
    place = bench.fresh("submit")
    command = [*programs.gpuctl(), "--socket", str(place / "gpud.sock"), "submit", "true"]
    bare = [sys.executable, "-c", "pass"]
    ours_s, bare_s = [], []
    with Daemon(place, "0") as gpud, open(os.devnull, "wb") as null:
        with closing(gpud.connect()) as wire:
            wire.ask("drain")
        programs.spawn_s(command, null.fileno())  # compiles what is not compiled yet
        for _ in range(bench.effort.clients):
            ours_s.append(programs.spawn_s(command, null.fileno()))
            bare_s.append(programs.spawn_s(bare, null.fileno()))
    yield Measured(
        "gpuctl-submit",
        [ours / base for ours, base in zip(ours_s, bare_s, strict=True)],
        detail={
            "ms": 1000 * statistics.median(ours_s),
            "p99_ms": 1000 * quantile(ours_s, 0.99),
            "python_ms": 1000 * statistics.median(bare_s),
        },
    )


def ls(bench: Bench) -> Iterator[Measured]:
    """The default page of two daemons, one with few jobs queued and one with many, in turns."""
    few, many = bench.effort.small, bench.effort.large
    with (
        Daemon(bench.fresh("ls-few"), "0") as small,
        Daemon(bench.fresh("ls-many"), "0") as large,
        open(os.devnull, "wb") as null,
    ):
        commands = []
        for gpud, count in ((small, few), (large, many)):
            with closing(gpud.connect()) as wire:
                wire.ask("drain")
                wire.exchange(wire.bulk(seeds(count)))
            commands.append([*programs.gpuctl(), "--socket", str(gpud.socket), "ls", *PAGE])
            programs.spawn_s(commands[-1], null.fileno())
        taken_s = [
            [programs.spawn_s(command, null.fileno()) for command in commands]
            for _ in range(bench.effort.clients)
        ]
    yield Measured(
        "ls-flat",
        [large_s / small_s for small_s, large_s in taken_s],
        detail={
            f"{count}_ms": 1000 * statistics.median(column)
            for count, column in zip((few, many), zip(*taken_s, strict=True), strict=True)
        },
    )
