"""Bugs about arrays, planted in the core and the store: test_arrays.py must notice each of them."""

from __future__ import annotations

import sqlite3
from functools import partial

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from msgspec import structs

from gpud.core import requests
from gpud.core import state as state_module
from gpud.core.lifecycle import ContradictionError
from gpud.core.model import Job, JobId, Outcome
from gpud.core.numbering import Numbering
from gpud.core.ready import Ready
from gpud.core.spans import Spans
from gpud.core.state import State
from gpud.store import arrays as arrays_module
from gpud.store.arrays import Arrays

from .planting import Bugs, plant
from .test_arrays import check_store, deeds

NOTICED = (AssertionError, ContradictionError, LookupError, sqlite3.IntegrityError, ExceptionGroup)
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


@bug(arrays_module, "moves")
def the_store_miscounts_what_ended_together(right):
    def moves(changes, new, moved) -> None:
        right(structs.replace(changes, ends=[]), new, moved)

    return moves


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[name](monkeypatch)

    @settings(
        max_examples=1000,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(deeds=deeds)
    def lives(deeds: list[tuple[str, object, object]]) -> None:
        check_store(deeds)

    with pytest.raises(NOTICED):
        lives()
