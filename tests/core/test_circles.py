"""Circles among jobs that come after others: found exactly where there are some."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpud.core.circles import circular, in_circles
from gpud.core.links import nobody_knows
from gpud.core.model import After, JobId, Span
from gpud.core.state import State

from .build import A, ready, submit

MOST = 7
graphs = st.lists(st.sets(st.integers(1, MOST), max_size=3), min_size=MOST, max_size=MOST)


def waiting(befores: list[set[int]]) -> State:
    """Jobs 1, 2, … that come after these; a circle among them stays."""
    state = ready(A)
    for _ in befores:
        submit(state, held=True)
    for job, before in zip(state.jobs.values(), befores, strict=True):
        job.after = after(before)
        job.unmet = state.links.join(job, nobody_knows)
    return state


def after(jobs: set[int]) -> After:
    return After(tuple(Span(job, job) for job in sorted(jobs)))


def reached(befores: list[set[int]], start: set[int]) -> set[int]:
    found: set[int] = set()
    left = set(start)
    while left:
        job = left.pop()
        found.add(job)
        left |= befores[job - 1] - found
    return found


@given(graphs, st.integers(1, MOST), st.sets(st.integers(1, MOST), min_size=1, max_size=3))
def test_a_job_is_found_behind_itself_or_not(
    befores: list[set[int]], job: int, wanted: set[int]
) -> None:
    befores[job - 1] = set()
    why = circular(waiting(befores), JobId(job), after(wanted))
    assert bool(why) == (job in reached(befores, wanted))
    if why and job not in wanted:
        named = int(why.split("job ")[1].split(",")[0])
        assert named in wanted
        assert job in reached(befores, {named})


@given(graphs)
def test_those_in_a_circle_and_behind_one(befores: list[set[int]]) -> None:
    found = in_circles(waiting(befores).jobs)
    circle = {job for job in range(1, MOST + 1) if job in reached(befores, befores[job - 1])}
    behind = {job for job in range(1, MOST + 1) if reached(befores, {job}) & circle}
    assert found == behind
