"""Bugs about jobs that are changed and moved, planted in the core: edit_scenarios.py must notice
each of them. As in test_planted_bugs.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest

from gpud.core import edits, order, ready, requests
from gpud.core.actions import Action
from gpud.core.events import SwapRequested
from gpud.core.lifecycle import ContradictionError
from gpud.core.model import After, Attempt, Job, JobSpec
from gpud.core.ready import rank_of
from gpud.core.state import State

from .edit_scenarios import live
from .planting import Bugs, plant

MOST_SCENARIOS = 1000

BUGS: Bugs = {}
bug = partial(plant, BUGS)


# -- edits ----------------------------------------------------------------------------------------


@bug(edits, "_change")
def an_edit_gives_used_retries_back(right):
    def change(state: State, job: Job, spec: JobSpec, fields: set[str], now_ms: int) -> None:
        right(state, job, spec, fields, now_ms)
        if "retry" in fields:
            job.retries_left = job.retry.retries

    return change


@bug(edits, "_change")
def an_edit_of_anything_takes_memory_back(right):
    def change(state: State, job: Job, spec: JobSpec, *more: object) -> None:
        right(state, job, spec, *more)
        job.request, job.grown = spec.request, False

    return change


@bug(edits, "_change")
def an_edit_of_begin_does_not_move_the_start(right):
    def change(state: State, job: Job, *more: object) -> None:
        before = job.not_before_ms
        right(state, job, *more)
        job.not_before_ms = before

    return change


@bug(edits, "_change")
def an_edit_of_begin_forgets_the_pause_before_a_retry(right):
    def change(state: State, job: Job, spec: JobSpec, fields: set[str], now_ms: int) -> None:
        if "begin_ms" in fields:
            job.begin_ms = job.not_before_ms
        right(state, job, spec, fields, now_ms)

    return change


@bug(edits, "_change")
def an_edit_forgets_the_deadline(right):
    def change(state: State, job: Job, *more: object) -> None:
        right(state, job, *more)
        job.last_start_ms = 0

    return change


@bug(edits, "OF_LATER_ATTEMPTS")
def what_runs_is_changed_under_its_feet(right):
    return frozenset(JobSpec.__struct_fields__)


@bug(edits, "_why_not")
def the_second_edit_of_a_turn_undoes_the_first(right):
    def why_not(state: State, *more: object) -> str:
        state.changes.edited, kept = {}, state.changes.edited
        why = right(state, *more)
        state.changes.edited = kept
        return why

    return why_not


@bug(edits, "unsatisfiable")
def an_edit_asks_for_what_there_is_not(right):
    return lambda pool, request: ""


@bug(edits, "is_too_late")
def an_edit_sets_a_deadline_that_cannot_be_met(right):
    return lambda spec, now_ms: False


@bug(edits, "impossible")
def an_edit_names_jobs_that_are_not_there(right):
    return lambda *what: ""


@bug(edits, "circular")
def an_edit_makes_a_circle(right):
    return lambda *what: ""


@bug(requests, "circular")
def a_retry_makes_a_circle(right):
    return lambda *what: ""


@bug(State, "come_after")
def an_edit_leaves_the_old_ones_before_it(right):
    def come_after(state: State, job: Job, after: After, *more: object) -> None:
        spans = tuple(dict.fromkeys((*job.after.spans, *after.spans)))
        right(state, job, After(spans, after.patient), *more)

    return come_after


@bug(State, "enter_again")
def who_asks_for_something_else_stands_in_the_old_queue(right):
    return lambda state, job: state.touch(job)


@bug(State, "enter_again")
def a_crash_forgets_an_edit(right):
    def enter_again(state: State, job: Job) -> None:
        right(state, job)
        state.changes.jobs.pop(job.id)
        state.changes.edited.pop(job.id, None)

    return enter_again


@bug(edits, "on_edit")
def what_is_edited_is_not_written(right):
    def on_edit(state: State, *more: object) -> Sequence[Action]:
        actions = right(state, *more)
        state.changes.edited.clear()
        return actions

    return on_edit


# -- order ----------------------------------------------------------------------------------------


@bug(ready, "rank_of")
def who_was_moved_starts_as_if_it_was_not(right):
    return lambda job: (-job.priority, job.id, job.id)


@bug(order, "_put")
def who_is_moved_keeps_its_priority(right):
    def put(state: State, moved: Sequence[Job], beside: Job, *, behind: bool) -> None:
        before = [job.priority for job in moved]
        right(state, moved, beside, behind=behind)
        for job, priority in zip(moved, before, strict=True):
            job.priority = priority
            state.enter_again(job)

    return put


@bug(order, "_put")
def before_is_behind(right):
    return lambda state, moved, beside, *, behind: right(state, moved, beside, behind=True)


@bug(order, "_put")
def who_is_moved_together_is_turned_around(right):
    return lambda state, moved, *more, **how: right(state, moved[::-1], *more, **how)


@bug(order, "_outermost")
def the_first_is_one_that_runs(right):
    def outermost(state: State, but: set[int], *, first: bool) -> Job | None:
        others = [job for job in state.jobs.values() if job.id not in but]
        return (min if first else max)(others, key=rank_of, default=None)

    return outermost


@bug(order, "between")
def a_place_of_0_is_none(right):
    def between(low: float | None, high: float, count: int) -> list[float]:
        if low is None:
            return right(low, high, count)
        step = (high - low) / (count + 1)
        return [low + step * n for n in range(1, count + 1)]

    return between


@bug(order, "with_room")
def the_last_stands_behind_all_that_will_ever_come(right):
    def with_room(places: Sequence[float], index: int, count: int, end: float):
        if index < len(places):
            return right(places, index, count, end)
        return index, [1e9 + n for n in range(count)]

    return with_room


@bug(order, "on_swap")
def a_swap_is_one_of_places_alone(right):
    def on_swap(state: State, event: SwapRequested, now_ms: int) -> Sequence[Action]:
        before = {job: state.jobs[job].priority for job in event.jobs if job in state.jobs}
        actions = right(state, event, now_ms)
        for job, priority in before.items():
            state.jobs[job].priority = priority
            state.enter_again(state.jobs[job])
        return actions

    return on_swap


@bug(order, "on_swap")
def who_runs_is_swapped(right):
    def on_swap(state: State, event: SwapRequested, now_ms: int) -> Sequence[Action]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(order, "not_waiting", lambda state, job: "" if job in state.jobs else "x")
            return right(state, event, now_ms)

    return on_swap


@bug(State, "load")
def a_restart_puts_everybody_back(right):
    def load(state: State, jobs: list[Job], live: list[Attempt], *more: object) -> None:
        for job in jobs:
            job.place = 0
        right(state, jobs, live, *more)

    return load


# -- all of them -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[name](monkeypatch)
    with pytest.raises((AssertionError, ContradictionError)):
        live_all()


def live_all() -> None:
    for seed in range(MOST_SCENARIOS):
        live(seed)
