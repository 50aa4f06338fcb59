"""The simulator over a heavy-tailed trace (tools/synthetic.py): how fast, and what it makes of it.

Decisions are starts; a second is one of the processor, in the simulator, which does all that the
engine does but writing to the disk and talking to the runner.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from gpud.tools.fifo import fifo
from gpud.tools.figures import Figures, figures_of
from gpud.tools.simulate import PoolShape
from gpud.tools.simulation import simulate
from gpud.tools.synthetic import synthetic

from .deciding import POOLS, n_log_n
from .measure import Bench, Measured

LOAD = 0.9
GROWTH_ON = 64  # GPUs
SEED = 1
SHORT = 10  # short traces


def decisions(bench: Bench) -> Iterator[Measured]:
    """The long trace on every pool; on one of them also ten short ones with as many jobs in all,
    half of them before it and half after: what a job costs in a trace that is ten times as long."""
    many = bench.effort.trace
    few = many // SHORT
    for gpus in POOLS:
        if gpus != GROWTH_ON:
            yield _speed(many, gpus, _simulated_s(many, gpus, SEED))
            continue
        few_s = [_simulated_s(few, gpus, seed) for seed in range(SHORT // 2)]
        took_s = _simulated_s(many, gpus, SEED)
        few_s += [_simulated_s(few, gpus, seed) for seed in range(SHORT // 2, SHORT)]
        yield _speed(many, gpus, took_s)
        times = SHORT * took_s / sum(few_s)
        yield Measured(
            "simulate-growth",
            [times / n_log_n(few, many)],
            detail={"jobs": [few, many], "took_s": took_s, "short_s": few_s, "times": times},
        )


def _speed(jobs: int, gpus: int, took_s: float) -> Measured:
    return Measured(f"simulate-{gpus}", [jobs / took_s], detail={"jobs": jobs, "took_s": took_s})


def _simulated_s(count: int, gpus: int, seed: int) -> float:
    trace = synthetic(count, gpus=gpus, load=LOAD, seed=seed)
    devices = PoolShape(gpus, 1, 0, 0).devices()
    begin = time.process_time()
    simulate(trace, devices)
    return time.process_time() - begin


def utilisation(bench: Bench) -> Iterator[Measured]:
    """Against FIFO without backfill, while jobs come; a sample for each seed."""
    jobs, shape = bench.effort.load_jobs, PoolShape(8, 1, 0, 0)
    devices, ratios = shape.devices(), []
    ours: list[Figures] = []
    theirs: list[Figures] = []
    for seed in range(bench.effort.rounds):
        trace = synthetic(jobs, gpus=shape.gpus, load=LOAD, seed=seed)
        ours.append(figures_of(simulate(trace, devices), devices))
        theirs.append(figures_of(fifo(trace, devices), devices))
        ratios.append(_in_use(ours[-1]) / _in_use(theirs[-1]))
    yield Measured(
        "load-utilisation",
        ratios,
        detail={
            "jobs": jobs,
            "gpud": [_in_use(f) for f in ours],
            "fifo": [_in_use(f) for f in theirs],
        },
    )


def _in_use(figures: Figures) -> float:
    part = figures.utilisation_arriving
    if part is None:
        raise RuntimeError("a synthetic trace came all at once")
    return part
