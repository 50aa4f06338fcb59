"""What a decision costs: a turn of the core with thousands of jobs queued, on pools of any size.

A turn here is what the engine does between two commits: the facts (one job has started, one has
ended), then one dispatch pass over everything that waits. The jobs are tools/synthetic.py's, all
queued at once, so the pool is full and the head of the queue rarely fits: the case that costs most.
Added to it is what comes before each pass where GPUs can be looked at: all of them are judged.
Times are the processor's.
"""

from __future__ import annotations

import math
import operator
import statistics
import time
from collections.abc import Iterator, Sequence

from msgspec import structs

from gpud.core.events import EntriesRead, GpusSeen, RunnerReady
from gpud.core.model import Device, JobSpec, NewJob, Request
from gpud.core.pool import Pool
from gpud.core.scheduler import step
from gpud.core.sight import GpuProcess, GpuSight
from gpud.core.state import State
from gpud.core.watching import prepare
from gpud.tools.simulate import PoolShape
from gpud.tools.simulation import Simulation
from gpud.tools.synthetic import synthetic

from .measure import Bench, Measured, quantile

POOLS = (8, 64, 1024)  # GPUs
QUEUED_ON = 64  # the pool on which the length of the queue is varied
SEED = 1
NOW_MS = 1_000_000
MEMORY_MIB = 80_000


def dispatch(bench: Bench) -> Iterator[Measured]:
    """Turns of all pools one after the other, so that a mood of the machine meets each."""
    queued, turns = bench.effort.large, bench.effort.turns
    pools = [map(operator.add, _turns_s(queued, gpus), _judging_s(gpus)) for gpus in POOLS]
    taken_s = _interleaved(pools, turns)
    for gpus, column in zip(POOLS, taken_s, strict=True):
        yield Measured(
            f"dispatch-{gpus}",
            [1000 * s for s in column],
            detail={"queued": queued, "p99_ms": 1000 * quantile(column, 0.99)},
        )
    for small, large, few_s, many_s in zip(POOLS, POOLS[1:], taken_s, taken_s[1:], strict=False):
        yield Measured(
            f"dispatch-growth-{large}",
            [_ratio(few_s, many_s) / n_log_n(small, large)],
            detail={"from": small, "to": large, "times": _ratio(few_s, many_s)},
        )


def queue(bench: Bench) -> Iterator[Measured]:
    """The same with a queue that is ten times as long."""
    few, many, turns = bench.effort.large, 10 * bench.effort.large, bench.effort.turns
    few_s, many_s = _interleaved([_turns_s(few, QUEUED_ON), _turns_s(many, QUEUED_ON)], turns)
    yield Measured(
        "dispatch-queued",
        [_ratio(few_s, many_s)],
        detail={
            "queued": [few, many],
            "ms": [1000 * statistics.median(c) for c in (few_s, many_s)],
        },
    )


def n_log_n(few: int, many: int) -> float:
    """How many times the cost may be that of the smaller size."""
    return many * math.log2(many) / (few * math.log2(few))


def _turns_s(queued: int, gpus: int) -> Iterator[float]:
    """What each turn takes once the pool is full and `queued` jobs wait."""
    jobs = synthetic(queued + gpus, gpus=gpus, load=1.0, seed=SEED)
    at_once = [structs.replace(job, submit_ms=0) for job in jobs]
    turns = Simulation(at_once, PoolShape(gpus, 1, 0, 0).devices()).turns()
    next(turns)
    while True:
        begin = time.process_time()
        if next(turns, None) is None:
            return
        yield time.process_time() - begin


def _judging_s(gpus: int) -> Iterator[float]:
    """What it takes to judge GPUs that have each a job on it, while others wait for memory."""
    devices = [
        Device(f"GPU-{i}", (str(i),), uuids=(f"GPU-{i}",), memory_mib=MEMORY_MIB)
        for i in range(gpus)
    ]
    state = State(Pool(devices))
    job = NewJob(JobSpec(b"train", request=Request(1, vram_mib=MEMORY_MIB)))
    facts = [
        RunnerReady("boot"),
        _look(devices, busy=False),
        EntriesRead(0, "list", (job,) * 2 * gpus),
    ]
    step(state, facts, NOW_MS)
    step(state, [_look(devices, busy=True)], NOW_MS)
    assert len(state.attempts) == gpus
    while True:
        begin = time.process_time()
        prepare(state, {job.spec.request}, NOW_MS)
        yield time.process_time() - begin


def _look(devices: Sequence[Device], *, busy: bool) -> GpusSeen:
    """Job n + 1 is on the n-th GPU."""
    sights = []
    for i, device in enumerate(devices):
        processes = (GpuProcess(1000 + i, "python", "", MEMORY_MIB // 2, 90, i + 1, 1),)
        used_mib = MEMORY_MIB // 2 if busy else 0
        sights.append(
            GpuSight(
                device.key,
                total_mib=MEMORY_MIB,
                used_mib=used_mib,
                free_mib=MEMORY_MIB - used_mib,
                processes=processes if busy else (),
            )
        )
    return GpusSeen(NOW_MS, tuple(sights))


def _interleaved(columns: Sequence[Iterator[float]], turns: int) -> list[list[float]]:
    taken_s: list[list[float]] = [[] for _ in columns]
    for _ in range(turns):
        for column, source in zip(taken_s, columns, strict=True):
            column.append(next(source))
    return taken_s


def _ratio(few_s: Sequence[float], many_s: Sequence[float]) -> float:
    """Of neighbours: the moods of the machine are in both."""
    return statistics.median(b / a for a, b in zip(few_s, many_s, strict=True))
