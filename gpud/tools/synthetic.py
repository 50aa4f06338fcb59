"""Traces made by dice, in the shape of those that GPU clusters have published.

Owns that shape. Called by tools/simulate.py (`--synthetic`) and by the benchmarks; the same seed
gives the same trace. Where the numbers come from:

- How long jobs run. Median and mean in seconds of what was published (data/cluster_summary.csv of
  github.com/InternLM/AcmeTrace, which sums up four papers' traces): Philly 874 and 18,006, Helios
  206 and 6,652, Alibaba PAI 481 and 4,787, Seren 122 and 1,414. A mean that is ten to thirty times
  the median is a heavy tail. Here: lognormal with Philly's median, and the sigma that gives a
  lognormal its mean, sqrt(2 ln(mean / median)). What is over a week is drawn again (PAI's longest
  job: 7.2 days), so that no single job decides what comes out.
- How many GPUs. The shares that the simulator of Gavel draws for Philly (github.com/
  stanford-futuredata/gavel; Narayanan et al., OSDI 2020). Their mean is 1.9, as Philly's is.
- When. Poisson arrivals, squeezed so that the GPU time asked for is exactly `load` times what
  the pool has from the first submit to the last.
- Time limits. People ask for much more than they need (Mu'alem and Feitelson, "Utilization,
  predictability, workloads, and user runtime estimates in scheduling the IBM SP2 with backfilling",
  IEEE TPDS 2001), and many ask for nothing. Here 60 % of the jobs have a limit, uniform between one
  and five times what they take (their f-model with f = 4); none runs into it.

Not in it: day and night, bursts of one user's equal jobs, wide jobs that run longer.
"""

from __future__ import annotations

import math
import random

from gpud.core.model import Request
from gpud.tools.trace import TraceJob

MEDIAN_S, MEAN_S = 874.0, 18_006.0
SIGMA = math.sqrt(2 * math.log(MEAN_S / MEDIAN_S))
LONGEST_S = 7 * 86_400
WIDTHS = {1: 0.70, 2: 0.10, 4: 0.15, 8: 0.05}  # GPUs -> part of the jobs
WITH_LIMIT = 0.6
LOOSEST = 5.0  # times what the job takes


def synthetic(
    count: int, *, gpus: int, slots_per_gpu: int = 1, load: float, seed: int
) -> list[TraceJob]:
    """`count` jobs in order of submit, none wider than `gpus`."""
    dice = random.Random(seed)
    widths = {width: part for width, part in WIDTHS.items() if width <= gpus}
    drawn = dice.choices(list(widths), list(widths.values()), k=count)
    runs_ms = [_runs_ms(dice) for _ in range(count)]
    limits_ms = [_limit_ms(dice, ms) for ms in runs_ms]
    at = [0.0]
    while len(at) < count:
        at.append(at[-1] + dice.expovariate(1.0))
    work_ms = sum(width * ms for width, ms in zip(drawn, runs_ms, strict=True))
    squeeze = work_ms / (gpus * slots_per_gpu * load) / at[-1] if at[-1] else 0.0
    requests = {width: Request(gpus=width) for width in widths}
    return [
        TraceJob(round(when * squeeze), ms, requests[width], limit_ms)
        for when, ms, width, limit_ms in zip(at, runs_ms, drawn, limits_ms, strict=True)
    ]


def _runs_ms(dice: random.Random) -> int:
    while True:
        seconds = dice.lognormvariate(math.log(MEDIAN_S), SIGMA)
        if seconds <= LONGEST_S:
            return max(1000, round(1000 * seconds))


def _limit_ms(dice: random.Random, runs_ms: int) -> int:
    if dice.random() >= WITH_LIMIT:
        return 0
    return math.ceil(runs_ms * dice.uniform(1.0, LOOSEST))
