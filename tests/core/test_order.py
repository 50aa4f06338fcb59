"""Who stands where in the queue: moves, swaps, and the numbers behind them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.core.events import CancelRequested, HoldRequested, MoveRequested, SwapRequested
from gpud.core.explain import ahead
from gpud.core.model import JobId
from gpud.core.order import between, with_room
from gpud.core.ready import rank_of
from gpud.core.state import State

from .build import A, answer, ended, happens, ready, refusal, spec_of, submit


def queue(*priorities: int) -> State:
    """Job 1 runs; 2, 3, … wait with these priorities."""
    state = ready(A)
    submit(state)
    submit(state, *(spec_of(priority=priority) for priority in priorities))
    return state


def order(state: State) -> list[int]:
    waiting = [job for job in state.jobs.values() if job.id not in state.attempts]
    return [job.id for job in sorted(waiting, key=rank_of)]


def move(state: State, *jobs: int, to: str, beside: int = 0) -> list[int]:
    ids = tuple(map(JobId, jobs))
    said = answer(happens(state, MoveRequested(3, ids, to, JobId(beside))))
    assert set(said.jobs) == set(jobs)
    return order(state)


def test_moves() -> None:
    state = queue(0, 0, 0, 0)
    assert move(state, 5, to="before", beside=3) == [2, 5, 3, 4]
    assert move(state, 2, to="after", beside=3) == [5, 3, 2, 4]
    assert move(state, 4, to="first") == [4, 5, 3, 2]
    assert move(state, 5, to="last") == [4, 3, 2, 5]
    assert move(state, 5, 4, to="before", beside=2) == [3, 4, 5, 2], "in their order"
    assert ahead(state, JobId(2)) == 3


def test_they_start_in_that_order() -> None:
    state = queue(0, 0, 0)
    move(state, 4, to="first")
    found = []
    while state.jobs:
        (job,) = state.attempts
        found.append(job)
        happens(state, ended(state, job, exit_code=0))
    assert found == [1, 4, 2, 3]


def test_what_is_submitted_later_stands_behind_the_last() -> None:
    state = queue(0, 0, 0)
    for job in (2, 3, 4, 2):
        move(state, job, to="last")
    new = submit(state)
    assert order(state) == [3, 4, 2, new]


def test_a_move_beside_another_priority_takes_it() -> None:
    state = queue(0, 5, 0, 5)
    assert order(state) == [3, 5, 2, 4]
    said = answer(happens(state, MoveRequested(3, (JobId(4), JobId(5)), "before", JobId(3))))
    assert said.priorities == ((4, 5),)
    assert order(state) == [5, 4, 3, 2], "in the order in which they stood"
    assert state.jobs[JobId(4)].priority == 5
    assert move(state, 3, to="last") == [5, 4, 2, 3]
    assert state.jobs[JobId(3)].priority == 0


def test_the_first_of_those_that_wait_is_not_the_one_that_runs() -> None:
    state = ready(A)
    submit(state, priority=9)
    for _ in range(2):
        submit(state)
    assert move(state, 3, to="first") == [3, 2]
    assert state.jobs[JobId(3)].priority == 0


def test_where_it_stands_already_it_stays() -> None:
    state = queue(0, 0, 0)
    state.take_changes()
    assert move(state, 2, to="first") == [2, 3, 4]
    assert move(state, 3, to="after", beside=2) == [2, 3, 4]
    assert move(state, 2, 3, to="before", beside=4) == [2, 3, 4]
    assert not state.take_changes()


def test_held_jobs_have_their_place_too() -> None:
    state = queue(0, 0, 0)
    happens(state, HoldRequested(1, (JobId(2), JobId(4))))
    assert move(state, 4, to="before", beside=2) == [4, 2, 3]


def test_what_cannot_be_moved() -> None:
    state = queue(0, 0)
    refused = dict(
        answer(
            happens(state, MoveRequested(3, tuple(map(JobId, (1, 2, 3, 9))), "before", JobId(3)))
        ).refused
    )
    assert refused == {
        1: "cannot move job 1: it is starting",
        3: "cannot move job 3 before itself",
        9: "cannot move job 9: no such job",
    }
    said = refusal(happens(state, MoveRequested(3, (JobId(2),), "after", JobId(1))))
    assert (said.kind, said.message) == (
        "refused",
        "cannot move jobs after job 1: it is starting",
    )


def test_swap() -> None:
    state = queue(0, 5, 0, 0)
    said = answer(happens(state, SwapRequested(3, (JobId(3), JobId(5)))))
    assert order(state) == [5, 2, 4, 3]
    assert set(said.priorities) == {(3, 0), (5, 5)}
    happens(state, SwapRequested(3, (JobId(2), JobId(4))))
    assert order(state) == [5, 4, 2, 3]


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        (2, 2, "cannot swap job 2 with itself"),
        (2, 1, "cannot swap job 1: it is starting"),
        (9, 2, "cannot swap job 9: no such job"),
    ],
)
def test_what_cannot_be_swapped(one: int, other: int, why: str) -> None:
    state = queue(0, 0)
    said = refusal(happens(state, SwapRequested(3, (JobId(one), JobId(other)))))
    assert said.message == why


def test_a_gap_that_is_used_up_is_made_wider() -> None:
    state = queue(*[0] * 6)
    for _ in range(200):
        move(state, 7, to="before", beside=4)
        move(state, 6, to="before", beside=7)
        assert move(state, 6, to="before", beside=4) == [2, 3, 7, 6, 4, 5]
    assert move(state, 5, to="before", beside=3) == [2, 5, 3, 7, 6, 4]


def test_two_that_have_the_same_place_by_a_retry_can_be_swapped() -> None:
    state = queue(0, 0, 0, 0)
    gone = JobId(3)
    happens(state, CancelRequested(4, (gone,)))
    record = state.changes.jobs[gone]
    assert move(state, 5, to="before", beside=4) == [2, 5, 4]
    assert state.jobs[JobId(5)].place == 3, "between 2 and 4"
    state.requeue(record)
    assert order(state) == [2, 3, 5, 4]
    happens(state, SwapRequested(3, (JobId(3), JobId(5))))
    assert order(state) == [2, 5, 3, 4]


# -- numbers ---------------------------------------------------------------------------------------

places = st.floats(-1e6, 1e6, allow_nan=False) | st.sampled_from([-1.0, 1.0, 2.0, 5e-324, -5e-324])


@given(st.lists(places, max_size=12), st.integers(0, 12), st.integers(1, 40))
def test_room_is_made_and_the_order_is_kept(found: list[float], index: int, count: int) -> None:
    row, end = sorted(found), 1e6 + 1
    index = min(index, len(row))
    start, numbers = with_room(row, index, count, end)
    stop = start + len(numbers) - count
    assert start <= index <= stop
    whole = [*row[:start], *numbers, *row[stop:], end]
    assert all(numbers)
    beside = [*row[start - 1 : start], *numbers, whole[start + len(numbers)]]
    assert all(a < b for a, b in pairwise(beside))
    assert len(whole) == len(row) + count + 1


@given(st.lists(st.integers(0, 9), min_size=20, max_size=120))
def test_however_often_it_is_moved(picks: list[int]) -> None:
    """A list and its numbers, against a list."""
    row = list(range(10))
    numbers = {job: float(job + 1) for job in row}
    for pick in picks * 3:
        moved = row.pop(pick)
        index = pick // 2
        start, new = with_room([numbers[job] for job in row], index, 1, 11)
        row.insert(index, moved)
        numbers |= dict(zip(row[start : start + len(new)], new, strict=True))
        assert sorted(row, key=lambda job: numbers[job]) == row


def test_no_place_is_0() -> None:
    assert between(-1, 1, 1) == [0.5]
    assert between(-1, 1, 3) == [-0.5, 0.25, 0.5]
    assert between(None, 1, 2) == [-2, -1]
    assert between(None, -3.5, 1) == [-4.5]
