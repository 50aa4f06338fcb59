"""What it costs to foretell the start of the last of many jobs that wait.

All have time limits, so that the walk goes as far as it may (core/forecast.py, MOST_TURNS). What is
taken in one go counts most for everybody else: the copy of the records, and the longest of the
other pieces. Times are the processor's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from msgspec import structs

from gpud.core.forecast import Walk, nobody_knows
from gpud.core.model import JobId
from gpud.tools.simulate import PoolShape
from gpud.tools.simulation import EPOCH_MS, Simulation
from gpud.tools.synthetic import synthetic

from .measure import Bench, Measured, quantile

GPUS = 64
SEED = 1


def forecast(bench: Bench) -> Iterator[Measured]:
    """With a queue of 10,000 and with one that is ten times as long, in turns."""
    lengths = (bench.effort.large, 10 * bench.effort.large)
    simulations = [_full(queued) for queued in lengths]
    few, many = [], []
    for _ in range(bench.effort.rounds):
        for simulation, column in zip(simulations, (few, many), strict=True):
            column.append(_walked(simulation))
    yield Measured("forecast", [1000 * sum(walk) for walk in few], detail={"queued": lengths[0]})
    yield Measured(
        "forecast-growth",
        [sum(b) / sum(a) for a, b in zip(few, many, strict=True)],
        detail={"queued": list(lengths)},
    )
    for key, walks in (("forecast-piece", few), ("forecast-piece-100k", many)):
        yield Measured(
            key,
            [1000 * max(walk) for walk in walks],
            detail={
                "copy_ms": [1000 * walk[0] for walk in walks],
                "p99_ms": [1000 * quantile(walk, 0.99) for walk in walks],
            },
        )


def _full(queued: int) -> Simulation:
    """A pool on which all is taken, and so many wait."""
    jobs = synthetic(queued + GPUS, gpus=GPUS, load=1.0, seed=SEED)
    at_once = [
        structs.replace(job, submit_ms=0, limit_ms=job.limit_ms or job.runs_ms) for job in jobs
    ]
    simulation = Simulation(at_once, PoolShape(GPUS, 1, 0, 0).devices())
    next(simulation.turns())
    return simulation


def _walked(simulation: Simulation) -> list[float]:
    """Seconds that each piece took, the copy first."""
    state = simulation.state
    last = JobId(max(state.jobs))
    begin = time.process_time()
    walk = Walk(state, EPOCH_MS, [last], nobody_knows)
    taken = [time.process_time() - begin]
    pieces = walk.pieces()
    while True:
        begin = time.process_time()
        ended = next(pieces, ...) is ...
        taken.append(time.process_time() - begin)
        if ended:
            return taken
