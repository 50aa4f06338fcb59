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
import random
import statistics
import time
from collections.abc import Iterator, Sequence

from msgspec import structs

from gpud.core.events import EntriesRead, GpusSeen, RunnerReady
from gpud.core.model import AUTO_VRAM, FULL_MILLI, Device, JobSpec, LeasePart, NewJob, Request
from gpud.core.placement import place
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
KINDS = ("dispatch-memory", "dispatch-auto", "dispatch-wide")
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


def kinds(bench: Bench) -> Iterator[Measured]:
    """What makes a decision hard: requests that all differ, and GPUs that are to be near."""
    queued, turns = bench.effort.large, bench.effort.turns
    dice = random.Random(SEED)
    memory = [Request(None, vram_mib=dice.randrange(1, MEMORY_MIB)) for _ in range(queued)]
    names = [Request(1, vram_mib=AUTO_VRAM, likeness=f"net {i}") for i in range(queued)]
    columns = [_turns_with_s(memory), _turns_with_s(names), _choices_s(dice)]
    for key, column in zip(KINDS, _interleaved(columns, turns), strict=True):
        yield Measured(
            key,
            [1000 * s for s in column],
            detail={"queued": queued, "p99_ms": 1000 * quantile(column, 0.99)},
        )


def n_log_n(few: int, many: int) -> float:
    """How many times the cost may be that of the smaller size."""
    return many * math.log2(many) / (few * math.log2(few))


def _turns_s(queued: int, gpus: int) -> Iterator[float]:
    """What each turn takes once the pool is full and `queued` jobs wait."""
    jobs = synthetic(queued + gpus, gpus=gpus, load=1.0, seed=SEED)
    at_once = [structs.replace(job, submit_ms=0) for job in jobs]
    return _each_s(Simulation(at_once, PoolShape(gpus, 1, 0, 0).devices()))


def _turns_with_s(requests: Sequence[Request]) -> Iterator[float]:
    """The same with jobs that ask for this, on `QUEUED_ON` GPUs."""
    jobs = synthetic(len(requests), gpus=1, load=1.0, seed=SEED)
    at_once = [
        structs.replace(job, submit_ms=0, request=request)
        for job, request in zip(jobs, requests, strict=True)
    ]
    simulation = Simulation(at_once, PoolShape(QUEUED_ON, 1, MEMORY_MIB, 0).devices())
    usual = {request.likeness: 1000 + 7 * i for i, request in enumerate(requests)}
    simulation.state.pool.usual_mib = usual
    return _each_s(simulation)


def _choices_s(dice: random.Random) -> Iterator[float]:
    """What it takes to choose 8, 16 or 32 of the GPUs that are free, with NVLink in each eight."""
    gpus = range(QUEUED_ON)
    devices = []
    for i in gpus:
        uuids, way = (f"GPU-{i}",), {f"GPU-{j}": 0 if i // 8 == j // 8 else 5 for j in gpus}
        devices.append(Device(f"GPU-{i}", (str(i),), uuids=uuids, distance=way))
    while True:
        pool = Pool(devices)
        taken = dice.sample(devices, QUEUED_ON // 4)
        pool.take(tuple(LeasePart(device.key, FULL_MILLI) for device in taken))
        request = Request(dice.choice((8, 16, 32)))
        begin = time.process_time()
        assert place(pool, request) is not None
        yield time.process_time() - begin


def _each_s(simulation: Simulation) -> Iterator[float]:
    turns = simulation.turns()
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
        prepare(state, NOW_MS, for_gpus=True, for_memory=True)
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
