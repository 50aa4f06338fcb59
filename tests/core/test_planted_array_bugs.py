"""Bugs about arrays, planted in the core and the store: test_arrays.py must notice each of them."""

from __future__ import annotations

import sqlite3
from functools import partial

import pytest
from hypothesis import given, seed
from msgspec import structs

from gpud.core import gating, requests
from gpud.core import state as state_module
from gpud.core.gates import Gates
from gpud.core.lifecycle import ContradictionError
from gpud.core.model import Job, JobId, Outcome
from gpud.core.numbering import Numbering
from gpud.core.ready import Ready
from gpud.core.rules import ARRAY
from gpud.core.spans import Spans
from gpud.core.state import State
from gpud.store import commit
from gpud.store.arrays import Arrays
from gpud.store.gating import Groups

from .machine import one_pass
from .planting import Bugs, plant
from .test_arrays import DAYS, check_store, deeds

NOTICED = (AssertionError, ContradictionError, LookupError, sqlite3.IntegrityError, ExceptionGroup)
EXAMPLES, ROUNDS = 300, 12
BUGS: Bugs = {}
bug = partial(plant, BUGS)


@bug(State, "_take_out")
def an_element_that_was_taken_out_is_still_there(right):
    def take_out(self: State, many: Job, ids: Spans) -> None:
        before = many.rest
        right(self, many, ids)
        if len(before) == 1 and before[0][1] > before[0][0] + 2:
            many.rest = before

    return take_out


@bug(Ready, "push")
def the_next_element_is_forgotten(right):
    def push(self: Ready, job: Job) -> None:
        if not job.rest or job.rest[0][0] == job.array:
            right(self, job)

    return push


@bug(State, "end_elements")
def nobody_hears_that_elements_have_ended(right):
    def end_elements(self, many: Job, ids: Spans, outcome: Outcome, why: str, now_ms: int) -> None:
        dependents, self.links.dependents = self.links.dependents, {}
        right(self, many, ids, outcome, why, now_ms)
        self.links.dependents = dependents

    return end_elements


@bug(requests, "alone")
def a_hold_of_one_element_holds_all(right):
    def alone(state: State, jobs, which):
        for job_id in dict.fromkeys(jobs):
            yield job_id, state.find(job_id)

    return alone


@bug(Numbering, "before")
def the_job_before_is_the_last_element_alone(right):
    return lambda self, job, back: (job - back, job - back)


@bug(state_module, "size")
def an_array_has_one_element_less(right):
    return lambda indices: max(1, right(indices) - 1)


@bug(State, "split")
def an_element_forgets_what_it_comes_after(right):
    def split(self: State, many: Job, job_id: JobId) -> Job:
        element = right(self, many, job_id)
        if element.after.spans:
            self.links.leave(element)
            element.after = structs.replace(element.after, spans=())
        return element

    return split


@bug(Arrays, "committed")
def the_store_forgets_which_have_changed(right):
    def committed(self: Arrays, rest) -> None:
        right(self, {first: found for first, found in rest.items() if len(found.ids) == 1})

    return committed


@bug(commit, "moves")
def the_store_miscounts_what_ended_together(right):
    def moves(changes, new, moved) -> None:
        right(structs.replace(changes, ends=[]), new, moved)

    return moves


# -- how many run, and fail ------------------------------------------------------------------------


def no_array(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(key for key in keys if not key.startswith(ARRAY))


@bug(State, "_bound")
def the_limit_of_an_array_is_ignored(right):
    return lambda self, first, array: right(self, first, structs.replace(array, at_most=0))


@bug(State, "_bound")
def the_fails_of_an_array_hold_nothing(right):
    return lambda self, first, array: right(self, first, structs.replace(array, max_fails=0))


@bug(gating, "note_end")
def fails_of_elements_are_not_counted(right):
    def note_end(state: State, job: Job, *more: object) -> None:
        right(state, structs.replace(job, belongs=no_array(job.belongs)), *more)

    return note_end


@bug(gating, "_hold")
def the_rest_of_an_array_is_not_held(right):
    def hold(state: State, job: Job, *more: object) -> None:
        if not job.rest:
            right(state, job, *more)

    return hold


@bug(gating, "note_release")
def fails_of_an_array_are_never_forgiven(right):
    def note_release(state: State, job: Job) -> None:
        right(state, structs.replace(job, belongs=no_array(job.belongs)))

    return note_release


@bug(State, "split")
def an_element_does_not_belong_to_its_array(right):
    def split(self: State, many: Job, job_id: JobId) -> Job:
        element = right(self, many, job_id)
        element.belongs = no_array(element.belongs)
        return element

    return split


@bug(Gates, "__init__")
def a_restart_forgets_the_limits_of_arrays(right):
    class Forgetful(dict):
        def update(self, kept) -> None:
            super().update({key: k for key, k in kept.items() if not key.startswith(ARRAY)})

    def init(self: Gates, *rules: object) -> None:
        right(self, *rules)
        self.kept = Forgetful()

    return init


@bug(Arrays, "records")
def the_store_forgets_what_holds_an_array(right):
    return lambda self: [structs.replace(job, held_by="") for job in right(self)]


@bug(Groups, "move")
def elements_are_counted_in_their_group_twice(right):
    return lambda self, changes, elements: right(self, changes, ())


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[name](monkeypatch)
    with pytest.raises(NOTICED):
        live_all()


def live_all() -> None:
    for day in DAYS:
        check_store(day)
    for again in range(ROUNDS):
        seed(again)(one_pass(EXAMPLES)(given(deeds=deeds)(check_store)))()
