"""Bugs about urgent jobs, planted in the core: test_preemption.py must notice each of them."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

import pytest
from hypothesis import given, seed

from gpud.core import dispatching, preemption
from gpud.core.lifecycle import ContradictionError
from gpud.core.model import Attempt, Request
from gpud.core.placement import place
from gpud.core.pool import Lease
from gpud.core.preemption import Claims
from gpud.core.state import State

from .machine import one_pass
from .planting import Bugs, plant
from .scenarios import live
from .test_preemption import asks, before, check_one, check_several, pools, several

EXAMPLES, MOST_DAYS = 300, 200
BUGS: Bugs = {}
bug = partial(plant, BUGS)


@bug(preemption, "_may_leave")
def those_who_cannot_save_their_state_leave_too(right):
    return lambda state: list(state.attempts.values())


@bug(preemption, "_may_leave")
def nobody_ever_leaves(right):
    return lambda state: []


@bug(preemption, "_may_leave")
def who_is_urgent_leaves_for_others_that_are(right):
    def may_leave(state: State) -> list[Attempt]:
        found = [a for a in state.attempts.values() if state.jobs[a.job].checkpoint]
        return [a for a in found if a.phase in preemption.GOING_ON]

    return may_leave


@bug(Claims, "_without_others")
def more_leave_than_have_to(right):
    def without_others(
        self: Claims, request: Request, avoid: Collection[str]
    ) -> tuple[Lease | None, list[Attempt]]:
        pool = self._then
        for attempt in self._may_leave:
            preemption._leave(pool, attempt)
        lease = place(pool, request, avoid)
        for attempt in self._may_leave if lease is None else ():
            pool.take(attempt.lease)
        return lease, [*self._may_leave] if lease is not None else []

    return without_others


@bug(Claims, "_without_others")
def those_leave_for_whom_that_is_in_vain(right):
    def without_others(
        self: Claims, request: Request, avoid: Collection[str]
    ) -> tuple[Lease | None, list[Attempt]]:
        lease, leaving = right(self, request, avoid)
        return (lease, leaving) if lease is not None else ((), self._may_leave[:1])

    return without_others


@bug(dispatching, "Claims")
def what_is_left_is_for_anybody(right):
    def claims(*what: object) -> Claims:
        found = right(*what)
        found.devices, found.of = frozenset(), {}
        return found

    return claims


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[name](monkeypatch)
    with pytest.raises((AssertionError, ContradictionError)):
        live_all()


def live_all() -> None:
    for again in range(3):
        one = given(devices=pools, before=before, request=asks)(check_one)
        seed(again)(one_pass(EXAMPLES)(one))()
        many = given(devices=pools, before=before, jobs=several)(check_several)
        seed(again)(one_pass(EXAMPLES)(many))()
    for day in range(MOST_DAYS):
        live(day)
