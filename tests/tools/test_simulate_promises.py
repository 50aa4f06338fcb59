"""What is true of every schedule, whatever the trace; and of gpud's against that of FIFO."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.core.invariants import check_invariants
from gpud.core.model import Request
from gpud.core.ready import is_ready
from gpud.tools.fifo import fifo
from gpud.tools.figures import figures_of, milli_of
from gpud.tools.schedule import NOT_YET, Schedule
from gpud.tools.simulate import PoolShape
from gpud.tools.simulation import Simulation, simulate
from gpud.tools.synthetic import synthetic
from gpud.tools.trace import TraceJob

from .traces import check_capacity, shapes, traces, wide

# After the limit: the grace of the stop, and how long leftovers may linger (model.JobSpec).
STOPS_WITHIN_MS = 20_000


@given(trace=traces(), shape=shapes)
def test_every_job_ends_exactly_once_and_no_gpu_is_given_twice(
    trace: Sequence[TraceJob], shape: PoolShape
) -> None:
    devices = shape.devices()
    simulation = Simulation(trace, devices)
    for _ in simulation.turns():
        check_invariants(simulation.state)
    assert not simulation.state.pool.leased
    ours, reference = simulation.schedule, fifo(trace, devices)
    assert ours.refused == reference.refused
    for schedule in (ours, reference):
        check_schedule(schedule, shape)


def check_schedule(schedule: Schedule, shape: PoolShape) -> None:
    check_capacity(schedule, shape.devices())
    for place, one in enumerate(schedule.jobs):
        if place in schedule.refused:
            assert schedule.start_ms[place] == schedule.end_ms[place] == NOT_YET
        else:
            assert schedule.start_ms[place] >= one.submit_ms
            assert schedule.end_ms[place] == schedule.start_ms[place] + one.runs_ms
            assert schedule.leases[place]
    figures = figures_of(schedule, shape.devices())
    ran = schedule.ran()
    assert figures.succeeded + figures.timed_out + figures.refused == len(schedule.jobs)
    least_ms = max((schedule.jobs[p].submit_ms + schedule.jobs[p].runs_ms for p in ran), default=0)
    work = sum(milli_of(schedule, p) * schedule.jobs[p].runs_ms for p in ran)
    makespan_ms = round(1000 * figures.makespan_s)
    assert makespan_ms >= least_ms
    assert makespan_ms * 1000 * shape.gpus >= work
    for part in (figures.utilisation, figures.utilisation_arriving):
        assert part is None or 0 <= part <= 1


@given(trace=traces(), shape=shapes)
def test_the_same_trace_gives_the_same_schedule(
    trace: Sequence[TraceJob], shape: PoolShape
) -> None:
    first, second = (simulate(trace, shape.devices()) for _ in range(2))
    assert (first.start_ms, first.end_ms, first.leases) == (
        second.start_ms,
        second.end_ms,
        second.leases,
    )


@given(trace=traces(), shape=shapes)
def test_fifo_starts_in_order(trace: Sequence[TraceJob], shape: PoolShape) -> None:
    schedule = fifo(trace, shape.devices())
    for priority in {one.priority for one in trace}:
        starts = [schedule.start_ms[p] for p in schedule.ran() if trace[p].priority == priority]
        assert starts == sorted(starts)


@given(trace=st.one_of(traces(), traces(wide)), shape=shapes)
def test_who_is_first_starts_when_those_that_ran_then_have_ended(
    trace: Sequence[TraceJob], shape: PoolShape
) -> None:
    check_bound(trace, shape)


@pytest.mark.parametrize("seed", range(3))
def test_nobody_in_a_heavy_tailed_trace_waits_longer_than_the_bound(seed: int) -> None:
    check_bound(synthetic(300, gpus=8, load=0.9, seed=seed), PoolShape(8, 1, 0, 0))


def test_a_stream_of_small_jobs_does_not_starve_a_wide_one() -> None:
    small = [TraceJob(1000 * second, 8000, Request(gpus=1)) for second in range(600)]
    wide = TraceJob(20_000, 10_000, Request(gpus=8))
    trace = sorted([*small, wide], key=lambda one: one.submit_ms)
    schedule = simulate(trace, PoolShape(8, 1, 0, 0).devices())
    assert schedule.wait_ms(trace.index(wide)) <= 8000


def check_bound(trace: Sequence[TraceJob], shape: PoolShape) -> None:
    """The bound of core/reservation.py: from the turn in which a job becomes the first in rank
    that waits, it starts at the latest when the attempts have ended that were live then and had
    come before it. Where their ends are known only by their limits, others may have been started
    into the gap before these. A better rank that comes later takes its place."""
    simulation = Simulation(trace, shape.devices())
    schedule = simulation.schedule
    ranks = [(-one.priority, place) for place, one in enumerate(trace)]
    earlier: set[int] = set()  # started in the turns so far
    first, bound_ms = NOT_YET, 0
    for now_ms in simulation.turns():
        if first != NOT_YET:
            assert (schedule.start_ms[first] if _started(schedule, first) else now_ms) <= bound_ms
        started = {place for place in range(len(trace)) if _started(schedule, place)}
        live = [place for place in started if schedule.end_ms[place] == NOT_YET]
        waiting = [job.id - 1 for job in simulation.state.jobs.values() if is_ready(job)]
        head = min(waiting, key=ranks.__getitem__, default=NOT_YET)
        passed_by = [p for p in started - earlier if head == NOT_YET or ranks[p] < ranks[head]]
        if head != first or passed_by:
            first = head
            before = [place for place in live if place in earlier or place in passed_by]
            bound_ms = max((_gone_ms(schedule, place) for place in before), default=now_ms)
        earlier = started


def _started(schedule: Schedule, place: int) -> bool:
    return schedule.start_ms[place] != NOT_YET


def _gone_ms(schedule: Schedule, place: int) -> int:
    """When it is gone at the latest, as the core can know it."""
    one, start_ms = schedule.jobs[place], schedule.start_ms[place]
    return start_ms + (one.limit_ms + STOPS_WITHIN_MS if one.limit_ms else one.runs_ms)


@pytest.mark.parametrize("seed", range(3))
def test_at_load_0_9_more_of_the_pool_is_in_use_than_with_fifo(seed: int) -> None:
    devices = PoolShape(8, 1, 0, 0).devices()
    trace = synthetic(500, gpus=8, load=0.9, seed=seed)
    ours = figures_of(simulate(trace, devices), devices)
    reference = figures_of(fifo(trace, devices), devices)
    assert ours.utilisation_arriving is not None
    assert reference.utilisation_arriving is not None
    assert ours.utilisation_arriving > reference.utilisation_arriving
    assert ours.makespan_s <= reference.makespan_s
