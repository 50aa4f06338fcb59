"""Whatever a life has come to, a forecast can be made of it, and it changes nothing.

`ForeseeingMachine` is the machine of editing.py that makes forecasts now and then: for
test_foretold.py, where it is also seen that they come true.
"""

from __future__ import annotations

import copy
from itertools import islice

from hypothesis.stateful import rule
from msgspec import structs

from gpud.core.forecast import Walk, nobody_knows
from gpud.core.model import JobId, JobState
from gpud.core.ready import is_ready, rank_of
from gpud.core.shelves import Rank, Spot
from gpud.core.spans import each
from gpud.core.standing import waiting
from gpud.core.state import State
from gpud.core.twin import REMADE, Twin

from .draws import picks
from .editing import EditingMachine
from .store import picture

MOST_PIECES = 50


class ForeseeingMachine(EditingMachine):
    @rule(picks=picks)
    def foresee(self, picks: list[int]) -> None:
        """It changes nothing, and nothing starts before now."""
        state = self.daemon.state
        waiting = [job for job in self.some_jobs(picks) if waits(state, job)]
        before = everything(state)
        check_twin(state)
        walk = Walk(state, self.now_ms, waiting, nobody_knows)
        list(islice(walk.pieces(), MOST_PIECES))
        for job, found in walk.found.items():
            assert found.start_ms is None or found.start_ms >= self.now_ms, f"job {job}: {found}"
        assert everything(state) == before, "a forecast has changed the state"


def waits(state: State, job: JobId) -> bool:
    record = state.find(job)
    return record is not None and record.state is not JobState.ACTIVE


def all_queued(state: State) -> list[JobId]:
    found = [job for job in state.jobs.values() if job.state is JobState.QUEUED]
    return [JobId(n) for job in found for n in (each(job.rest) if job.rest else [job.id])]


def check_twin(state: State) -> None:
    """It has all that decisions rest on; a field that `State` gets later must be in one, too."""
    twin = Twin(state)
    for _ in twin.load():
        pass
    of_twin, of_live = picture(twin.state), picture(state)
    for shown in (of_twin, of_live):  # what they have used so far decides nothing
        shown["attempts"] = {job: attempt[:-1] for job, attempt in shown["attempts"].items()}
    assert of_twin == of_live, "the twin is another"
    for name in vars(state).keys() - REMADE:
        of_twin, of_live = plain(getattr(twin.state, name)), plain(getattr(state, name))
        assert of_twin == of_live, f"the twin has another {name}"
    assert who_is_offered(twin.state) == who_is_offered(state), "others wait in the twin"
    assert twin.state.delayed.first() == state.delayed.first()
    assert twin.state.expiring.first() == state.expiring.first()


def plain(value: object) -> object:
    """Two that have the same in them are equal."""
    return vars(value) if hasattr(value, "__dict__") else value


def who_is_offered(state: State) -> set[tuple[Spot, Rank]]:
    """Without the leftovers in its queues."""
    found = set()
    for spot, rank in waiting(state.ready):
        job = state.jobs.get(rank[-1])
        if job and is_ready(job) and (state.ready.spot_of(job), rank_of(job)) == (spot, rank):
            found.add((spot, rank))
    return found


def everything(state: State) -> object:
    """A state as it is at this moment."""
    found = (
        picture(state),
        structs.asdict(state.changes),
        {name: plain(getattr(state, name)) for name in vars(state).keys() - REMADE},
        vars(state.health),
        {name: value for name, value in vars(state.pool).items() if name != "devices"},
        waiting(state.ready),
        state.delayed.entries(),
        state.expiring.entries(),
    )
    return copy.deepcopy(found)
