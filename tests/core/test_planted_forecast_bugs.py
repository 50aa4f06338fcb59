"""Bugs planted in forecasts: the properties of foretold.py must notice each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest
from hypothesis import given

from gpud.core import forecast, remedies
from gpud.core.forecast import Walk
from gpud.core.lifecycle import ContradictionError
from gpud.core.model import Attempt
from gpud.core.state import State
from gpud.core.twin import Twin

from .foretold import (
    Life,
    check_changes_nothing,
    check_comes_true,
    check_is_like_the_live_one,
    check_remedies_help,
    lives,
)
from .machine import one_pass
from .planting import Bugs, plant

EXAMPLES = 1000
NOTICED = (AssertionError, ContradictionError, KeyError, RuntimeError)
CHECKS = (check_comes_true, check_changes_nothing, check_is_like_the_live_one)

BUGS: Bugs = {}
REMEDY_BUGS: Bugs = {}
bug, remedy_bug = partial(plant, BUGS), partial(plant, REMEDY_BUGS)


# -- the twin -------------------------------------------------------------------------------------


def but(change: Callable[[Twin, State], None]) -> Callable[..., Callable[..., None]]:
    """A twin that is made rightly, and then changed."""

    def breaks(right: Callable[[Twin, State], None]) -> Callable[..., None]:
        def made(twin: Twin, live: State) -> None:
            right(twin, live)
            change(twin, live)

        return made

    return breaks


@bug(Twin, "__init__")
def the_twin_has_the_records_of_the_live_one(right):
    def share(twin: Twin, live: State) -> None:
        twin._jobs = [*live.jobs.values()]

    return but(share)(right)


@bug(Twin, "__init__")
def the_twin_has_the_attempts_of_the_live_one(right):
    def share(twin: Twin, live: State) -> None:
        twin.state.attempts = live.attempts

    return but(share)(right)


@bug(Twin, "__init__")
def the_twin_writes_into_the_changes_of_the_live_one(right):
    def share(twin: Twin, live: State) -> None:
        twin.state.changes = live.changes

    return but(share)(right)


@bug(Twin, "__init__")
def the_twin_forgets_what_is_kept(right):
    def forget(twin: Twin, live: State) -> None:
        twin.state.reservation = None

    return but(forget)(right)


@bug(Twin, "__init__")
def the_twin_forgets_what_runs(right):
    def forget(twin: Twin, live: State) -> None:
        twin.state.attempts.clear()
        twin.state.pool.leased.clear()

    return but(forget)(right)


@bug(Twin, "__init__")
def the_twin_forgets_how_others_ended(right):
    def forget(twin: Twin, live: State) -> None:
        twin._outcomes.clear()

    return but(forget)(right)


@bug(Twin, "load")
def the_last_jobs_are_left_out(right):
    def load(twin: Twin) -> Iterator[None]:
        del twin._jobs[5:]
        return right(twin)

    return load


# -- the walk -------------------------------------------------------------------------------------


@bug(forecast, "_usual_ms")
def jobs_run_as_long_as_the_whole_limit_whatever_is_usual(right):
    return lambda runs, ran_ms: 0


@bug(Walk, "_expect_end")
def a_limit_counts_from_now(right):
    def expect(walk: Walk, attempt: Attempt) -> None:
        began_ms, attempt.started_at_ms = attempt.started_at_ms, 0
        right(walk, attempt)
        attempt.started_at_ms = began_ms

    return expect


@bug(Walk, "_expect_end")
def nobody_ends(right):
    return lambda walk, attempt: None


@bug(Walk, "_next_instant_ms")
def nothing_happens_but_ends(right):
    return lambda walk: walk._ends[0][0] if walk._ends else None


@bug(Walk, "_note_ends")
def who_ends_without_having_run_is_not_missed(right):
    return lambda walk, changes: None


@bug(Walk, "_made_room")
def all_that_ends_at_any_time_makes_room(right):
    def made_room(walk: Walk, started: Attempt, ended: Sequence[Attempt]):
        return (*right(walk, started, ended), *walk._state.attempts)

    return made_room


@bug(Walk, "_made_room")
def nobody_makes_room(right):
    return lambda walk, started, ended: ()


@bug(forecast, "MOST_TURNS")
def a_walk_gives_up_early(right):
    return 3


# -- remedies -------------------------------------------------------------------------------------


@remedy_bug(remedies, "_kept_for_others")
def what_is_kept_for_others_is_counted_on(right):
    return lambda *more: None


@remedy_bug(remedies, "longest_within")
def a_limit_that_is_rounded_up_goes_into_the_gap(right):
    return lambda seconds: seconds


@remedy_bug(remedies, "place")
def whatever_is_asked_for_has_room(right):
    return lambda pool, request, avoid=(): request.gpus == 1 or None


# -- all of them ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[name](monkeypatch)
    with pytest.raises(NOTICED):
        check_all(*CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", REMEDY_BUGS)
def test_a_remedy_that_does_not_help_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    REMEDY_BUGS[name](monkeypatch)
    with pytest.raises(NOTICED):
        check_all(check_remedies_help)


def check_all(*checks: Callable[[Life], None]) -> None:
    for check in checks:
        one_pass(EXAMPLES)(given(lives)(check))()
