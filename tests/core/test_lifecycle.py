"""The table of moves: nothing else is possible, and everything in it happens."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from gpud.core import state as state_module
from gpud.core.lifecycle import MOVES, ContradictionError, Place, check_move, place_of
from gpud.core.model import Job, JobState, NewJob, Phase

from .build import NOW_MS, A, ready, spec_of, started, submit, unmet
from .diagram import ARRIVALS, PAGE, section, write
from .scenarios import INTERRUPTED, OWNERS_COME, USUALLY, live

MOST_SCENARIOS = 500
PLACES: list[Place] = [JobState.QUEUED, JobState.HELD, *Phase, JobState.DONE]


@pytest.mark.parametrize("move", list(itertools.product(PLACES, PLACES)))
def test_only_the_moves_of_the_table_are_possible(move: tuple[Place, Place]) -> None:
    state = unmet(A)
    job = state.jobs[submit(state)]
    if move in MOVES:
        check_move(job, *move)
    else:
        with pytest.raises(ContradictionError, match=f"job 1 cannot go from {move[0]} to"):
            check_move(job, *move)


def test_an_active_job_is_where_its_attempt_is() -> None:
    state = ready(A)
    job = submit(state)
    assert place_of(state.jobs[job], state.attempts[job]) is Phase.STARTING
    started(state, job)
    assert place_of(state.jobs[job], state.attempts[job]) is Phase.RUNNING
    waits = submit(state, held=True)
    assert place_of(state.jobs[waits], None) is JobState.HELD


def test_every_place_can_be_left_and_be_reached() -> None:
    assert {before for before, _ in MOVES} == set(PLACES)
    assert {after for _, after in MOVES} == set(PLACES)
    assert JobState.ACTIVE not in PLACES, "an active job is in a phase"


def test_every_move_of_the_table_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that nothing takes is a row that nobody has thought about."""
    taken: Counter[tuple[Place, Place]] = Counter()

    def counting(job: Job, before: Place, after: Place) -> None:
        taken[before, after] += 1
        check_move(job, before, after)

    monkeypatch.setattr(state_module, "check_move", counting)
    for seed in range(MOST_SCENARIOS):
        live(seed, often=(INTERRUPTED, USUALLY, OWNERS_COME)[seed % 3])
        if MOVES.keys() == taken.keys():
            break
    assert not MOVES.keys() - taken.keys()
    assert not taken.keys() - MOVES.keys()


def test_the_diagram_in_the_docs_is_drawn_from_the_table() -> None:
    page = PAGE.read_text()
    assert section() in page, f"run tests/core/diagram.py; {PAGE.name} should have:\n{section()}"


def test_the_arrivals_of_the_diagram_are_those_of_the_code() -> None:
    state = unmet(A)
    new = [NewJob(spec_of()), NewJob(spec_of(held=True)), NewJob(spec_of(), "a NUL byte")]
    assert [state.add(job, NOW_MS).state for job in new] == list(ARRIVALS)


def test_the_diagram_is_written_between_its_marks_only(tmp_path) -> None:
    page = tmp_path / "architecture.md"
    write(page)
    page.write_text("before\n" + page.read_text().replace("queued", "?") + "after\n")
    write(page)
    assert page.read_text() == f"before\n# Architecture\n\n{section()}\nafter\n"
