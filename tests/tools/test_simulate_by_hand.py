"""Schedules and figures of traces that are small enough to be worked out on paper."""

from __future__ import annotations

import pytest

from gpud.core.model import Request
from gpud.tools.fifo import fifo
from gpud.tools.figures import figures_of, waits
from gpud.tools.simulation import simulate

from .traces import GIB, job, pool, times_s


def test_jobs_run_side_by_side_and_then_one_after_the_other() -> None:
    jobs = [job(10), job(20), job(5)]
    assert times_s(simulate(jobs, pool(2))) == [(0, 10), (0, 20), (10, 15)]
    assert times_s(simulate(jobs, pool(1))) == [(0, 10), (10, 30), (30, 35)]
    assert times_s(simulate(jobs, pool(8))) == [(0, 10), (0, 20), (0, 5)]


def test_a_job_is_not_started_before_it_is_submitted() -> None:
    assert times_s(simulate([job(10), job(5, at_s=100)], pool(1))) == [(0, 10), (100, 105)]


def test_a_job_ends_at_its_limit() -> None:
    schedule = simulate([job(100, limit_s=30), job(100, limit_s=100), job(1)], pool(1))
    assert times_s(schedule) == [(0, 30), (30, 130), (130, 131)]
    figures = figures_of(schedule, pool(1))
    assert (figures.succeeded, figures.timed_out) == (2, 1)


def test_a_higher_priority_goes_first() -> None:
    jobs = [job(10), job(10), job(10, priority=1), job(10, priority=2, at_s=5)]
    expected = [(20, 30), (30, 40), (0, 10), (10, 20)]
    assert times_s(simulate(jobs, pool(1))) == expected
    assert times_s(fifo(jobs, pool(1))) == expected


def test_slots_share_a_gpu() -> None:
    schedule = simulate([job(10)] * 4, pool(1, 2))
    assert times_s(schedule) == [(0, 10), (0, 10), (10, 20), (10, 20)]
    assert figures_of(schedule, pool(1, 2)).utilisation == 1.0


def test_shares_and_memory_are_counted() -> None:
    half = job(10, request=Request(gpus=1, share_milli=500))
    assert times_s(simulate([half] * 3, pool(1))) == [(0, 10), (0, 10), (10, 20)]
    large = job(10, request=Request(vram_mib=40 * GIB))
    assert times_s(simulate([large] * 3, pool(1, gib=80))) == [(0, 10), (0, 10), (10, 20)]


def test_the_lane_cpu_takes_no_gpu() -> None:
    schedule = simulate([job(10, 0), job(10, 1)], pool(1, cpu_slots=1))
    assert times_s(schedule) == [(0, 10), (0, 10)]
    assert figures_of(schedule, pool(1, cpu_slots=1)).utilisation == 1.0


def test_what_takes_no_time_ends_when_it_starts() -> None:
    assert times_s(simulate([job(0)] * 3 + [job(1)], pool(1))) == [(0, 0), (0, 0), (0, 0), (0, 1)]


def test_what_can_never_fit_is_refused_and_counts_in_nothing() -> None:
    jobs = [job(10), job(99, 4), job(10)]
    for schedule in (simulate(jobs, pool(2)), fifo(jobs, pool(2))):
        assert schedule.refused == {1: "needs 4 GPUs, this machine has 2"}
        figures = figures_of(schedule, pool(2))
        assert (figures.succeeded, figures.refused, figures.makespan_s) == (2, 1, 10.0)
        assert [width.gpus for width in figures.by_gpus] == [1]


def test_where_everything_is_refused_there_are_no_figures() -> None:
    figures = figures_of(simulate([job(10, 4, at_s=5)], pool(2)), pool(2))
    assert (figures.wait, figures.longest_wait_of, figures.utilisation) == (None, None, None)


# One GPU is busy until 10 (at most until 100, by its limit), the next job needs both.
GAP = [job(10, 1, limit_s=100), job(10, 2), job(5, 1, limit_s=5)]


def test_a_short_job_is_backfilled_into_the_gap_before_a_wide_one() -> None:
    schedule = simulate(GAP, pool(2))
    assert times_s(schedule) == [(0, 10), (10, 20), (0, 5)]
    assert figures_of(schedule, pool(2)).utilisation == 35 / 40


def test_fifo_keeps_the_order() -> None:
    schedule = fifo(GAP, pool(2))
    assert times_s(schedule) == [(0, 10), (10, 20), (20, 25)]
    assert figures_of(schedule, pool(2)).utilisation == 35 / 50


@pytest.mark.parametrize("limit_s", [0, 1000])
def test_a_job_that_might_be_in_the_way_is_not_backfilled(limit_s: float) -> None:
    jobs = [*GAP[:2], job(5, 1, limit_s=limit_s)]
    assert times_s(simulate(jobs, pool(2))) == [(0, 10), (10, 20), (20, 25)]


def test_figures() -> None:
    jobs = [job(10, 1), job(10, 2, at_s=1), job(2, 1, at_s=4)]
    figures = figures_of(fifo(jobs, pool(2)), pool(2))
    assert figures.makespan_s == 22.0
    assert figures.wait is not None
    assert (figures.wait.mean_s, figures.wait.median_s) == ((0 + 9 + 16) / 3, 9.0)
    assert (figures.wait.p95_s, figures.wait.longest_s) == (16.0, 16.0)
    assert figures.utilisation == (10 + 20 + 2) / (2 * 22)
    assert figures.utilisation_arriving == 4 / (2 * 4)
    assert [(w.gpus, w.jobs, w.wait.longest_s) for w in figures.by_gpus] == [(2, 1, 9), (1, 2, 16)]


def test_of_a_hundred_waits_ninety_five_are_no_longer_than_p95() -> None:
    some = waits([1000 * second for second in range(100, 0, -1)])
    assert (some.mean_s, some.median_s, some.p95_s, some.longest_s) == (50.5, 50.5, 95.0, 100.0)
    assert waits([7000]).p95_s == 7.0
