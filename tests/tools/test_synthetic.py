"""The made-up traces have the shape that they are said to have."""

from __future__ import annotations

import statistics
from collections import Counter
from itertools import pairwise

import pytest

from gpud.tools.synthetic import LONGEST_S, LOOSEST, MEDIAN_S, WIDTHS, WITH_LIMIT, synthetic

MANY = synthetic(20_000, gpus=8, load=0.9, seed=7)


def test_the_same_seed_gives_the_same_trace() -> None:
    assert synthetic(50, gpus=8, load=0.9, seed=7) == synthetic(50, gpus=8, load=0.9, seed=7)
    assert synthetic(50, gpus=8, load=0.9, seed=7) != synthetic(50, gpus=8, load=0.9, seed=8)


@pytest.mark.parametrize(("gpus", "slots", "load"), [(8, 1, 0.9), (4, 2, 0.5), (1, 1, 2.0)])
def test_the_load_is_exact(gpus: int, slots: int, load: float) -> None:
    jobs = synthetic(500, gpus=gpus, slots_per_gpu=slots, load=load, seed=1)
    work_ms = sum(job.gpus * job.runs_ms for job in jobs)
    assert work_ms / (gpus * slots * jobs[-1].submit_ms) == pytest.approx(load, rel=1e-6)
    assert jobs[0].submit_ms == 0
    assert all(a.submit_ms <= b.submit_ms for a, b in pairwise(jobs))


def test_run_times_have_a_heavy_tail() -> None:
    runs_s = [job.runs_ms / 1000 for job in MANY]
    assert statistics.median(runs_s) == pytest.approx(MEDIAN_S, rel=0.1)
    assert statistics.mean(runs_s) > 8 * MEDIAN_S
    assert 1 <= min(runs_s) <= max(runs_s) <= LONGEST_S


def test_widths_are_those_of_philly_and_never_wider_than_the_pool() -> None:
    counts = Counter(job.gpus for job in MANY)
    assert {width: n / len(MANY) for width, n in counts.items()} == pytest.approx(WIDTHS, abs=0.01)
    assert {job.gpus for job in synthetic(500, gpus=3, load=0.9, seed=1)} == {1, 2}


def test_limits_are_loose_upper_bounds() -> None:
    limited = [job for job in MANY if job.limit_ms]
    assert len(limited) / len(MANY) == pytest.approx(WITH_LIMIT, abs=0.01)
    assert not any(job.times_out for job in limited)
    assert all(job.limit_ms <= LOOSEST * job.duration_ms + 1 for job in limited)


def test_one_job_is_a_trace() -> None:
    [job] = synthetic(1, gpus=1, load=0.9, seed=1)
    assert job.submit_ms == 0
