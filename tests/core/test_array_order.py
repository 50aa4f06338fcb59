"""Elements of arrays that are edited, moved and swapped stand where single jobs would stand.

Days from a seed, as in edit_scenarios.py, lived by arrays and by a job for each element side by
side, as in test_arrays.py. Planted bugs show that it would be noticed if they did not.
"""

from __future__ import annotations

from functools import partial
from random import Random

import pytest
from msgspec import structs

from gpud.core import order
from gpud.core.events import MoveRequested, SwapRequested
from gpud.core.lifecycle import ContradictionError
from gpud.core.model import Array, JobId, JobSpec, Request, RetryPolicy
from gpud.core.ready import rank_of
from gpud.core.spans import each

from .build import NOW_MS, A, answer, happens, ready, submit
from .planting import Bugs, plant
from .store import FakeStore
from .test_arrays import Life, RealStore, live

DAYS = 150
STEPS = 12
MOST = 16  # ids that are meant
BUGS: Bugs = {}
bug = partial(plant, BUGS)


def day(seed: int) -> list[tuple[str, object, object]]:
    dice = Random(seed)
    deeds: list[tuple[str, object, object]] = [("submit", specs(dice), [])]
    kinds = ["move", "move", "move", "swap", "edit", "hold", "release", "end", "submit", "restart"]
    for kind in dice.choices(kinds, [*[5] * 5, 2, 2, 4, 1, 1], k=STEPS):
        match kind:
            case "submit":
                deeds.append((kind, specs(dice)[:1], []))
            case "move":
                to = dice.choice(["before", "before", "after", "after", "first", "last"])
                deeds.append((kind, some(dice), (to, dice.randint(1, MOST))))
            case "swap":
                deeds.append((kind, (dice.randint(1, MOST), dice.randint(1, MOST)), None))
            case "edit":
                change = dice.choice([{"priority": 1}, {"priority": 0}, {"request": Request(0)}])
                deeds.append((kind, some(dice), change))
            case "end":
                deeds.append((kind, dice.randrange(5), dice.choice([0, 0, 3])))
            case _:
                deeds.append((kind, some(dice), None))
    return deeds


def specs(dice: Random) -> list[JobSpec]:
    """Two arrays with a job before, between and behind them; what is held cannot start."""
    held = JobSpec(b"train", held=dice.random() < 0.5, retry=RetryPolicy(dice.randint(0, 1)))
    sizes = [0, dice.randint(2, 5), 0, dice.randint(1, 4), 0]
    arrays = [Array(((5, 4 + size, 1),)) if size else None for size in sizes]
    priorities = [dice.choice([0, 0, 0, 1]) for _ in sizes]
    return [
        structs.replace(held, array=array, priority=priority)
        for array, priority in zip(arrays, priorities, strict=True)
    ]


def some(dice: Random) -> list[int]:
    first = dice.randint(1, MOST)
    return dice.choice([[first], [first], [first, first + 1], dice.sample(range(1, MOST), 3)])


def live_all(days: int, store: type[FakeStore | RealStore] = FakeStore) -> None:
    for seed in range(days):
        live(Life(FakeStore(), arrays=False), Life(store(), arrays=True), day(seed))


@pytest.mark.slow
@pytest.mark.parametrize("store", [FakeStore, RealStore])
def test_an_element_stands_where_a_job_would(store: type[FakeStore | RealStore]) -> None:
    live_all(DAYS, store)


# -- what is planted -------------------------------------------------------------------------------


@bug(order, "_sharing")
def who_is_moved_does_not_see_elements_that_share_a_record(right):
    return lambda state, priority, but: []


@bug(order, "_first_above")
def who_is_moved_behind_an_element_may_stand_behind_the_next(right):
    return lambda shared, place, *, with_it=False: None


@bug(order, "_last_below")
def who_is_moved_before_an_element_may_stand_before_the_last(right):
    return lambda shared, place, *, with_it=False: None


@bug(order, "_outermost")
def the_last_is_the_first(right):
    return lambda state, but, *, first: right(state, but, first=True)


@bug(order, "_rank")
def the_first_element_stands_for_all(right):
    def rank(state, job_id):
        job = state.find(job_id)
        return (-job.priority, job.rest[0][0], job_id) if job.rest else rank_of(job)

    return rank


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[name](monkeypatch)
    with pytest.raises((AssertionError, ContradictionError)):
        live_all(10 * DAYS)


# -- what it costs ---------------------------------------------------------------------------------


def test_only_what_is_moved_gets_a_record_of_its_own() -> None:
    state = ready(A)
    submit(state)
    first = submit(state, array=Array(((0, 99_999, 1),)))
    later = submit(state)
    happens(state, MoveRequested(1, (later,), "before", JobId(first + 5000)))
    happens(state, MoveRequested(2, (JobId(first + 7),), "last"))
    assert len(state.jobs) == 4
    rest = state.jobs[JobId(-first)].rest
    assert state.jobs[later].place == first + 4999.5
    assert JobId(first + 7) not in each(rest)
    assert state.jobs[JobId(first + 7)].place > first + 99_999, "behind the last element"
    happens(state, SwapRequested(3, (JobId(first + 9), later)))
    assert state.jobs[JobId(first + 9)].place == first + 4999.5
    assert state.jobs[later].place == first + 9


def test_an_array_that_is_first_already_stays_as_it_is() -> None:
    state = ready(A)
    submit(state)
    first = submit(state, array=Array(((0, 9, 1),)))
    submit(state)
    everything = tuple(map(JobId, range(first, first + 10)))
    said = answer(happens(state, MoveRequested(1, everything, "first"), now_ms=NOW_MS))
    assert said.jobs == everything
    assert len(state.jobs) == 3, "still one record"
