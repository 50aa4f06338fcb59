"""A copy of a live state that lives on by itself, in a time of its own.

Called by core/forecast.py. Rule 1: nothing that can change is shared, and the live state is only
read. Rule 2: a twin is loaded from records, as after a restart; what else a state has is copied,
whatever it is. Rule 3: its GPUs are never looked at: they stay as usable as they were judged last,
but what is blocked for a moment only is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

from msgspec import structs

from gpud.core.model import Job, JobState
from gpud.core.pool import Pool
from gpud.core.state import State

PIECE = 500  # jobs: to load them takes a millisecond or two

# What `State.load` makes of the records, and what is of the live one alone.
REMADE = frozenset({
    "pool", "health", "jobs", "attempts", "links", "ended", "ready", "delayed",
    "expiring", "finishing", "changes", "gates", "shares",
})  # fmt: skip


class Twin:
    """`state` has its jobs when `load` is through. The live state is read here and not again."""

    def __init__(self, live: State) -> None:
        pool = Pool(live.pool.devices.values(), live.pool.unknown)
        pool.usual_mib = dict(live.pool.usual_mib)
        pool.watched = False
        self.state = State(pool, live.health.policy, live.gates.rules)
        ours: dict[int, object] = {id(live): self.state}  # in the place of what it may refer to
        ours |= {id(getattr(live, name)): getattr(self.state, name) for name in REMADE}
        for name in vars(live).keys() - REMADE:
            setattr(self.state, name, deepcopy(getattr(live, name), ours))
        jobs = [structs.replace(job) for job in live.jobs.values()]
        active = [job for job in jobs if job.state is JobState.ACTIVE]
        self._jobs = [job for job in jobs if job.state is not JobState.ACTIVE]
        self._outcomes = dict(live.links.outcomes)
        # What attempts have used so far decides nothing, and would have to be copied, too.
        attempts = [structs.replace(attempt, usage=None) for attempt in live.attempts.values()]
        gpus = live.health.gpus.items()
        quarantines = {uuid: gpu.quarantine for uuid, gpu in gpus if gpu.quarantine is not None}
        usage = {uid: (one.used_s, one.at_ms) for uid, one in live.shares.accounts.items()}
        self.state.load(
            active, attempts, quarantines, self._outcomes.get, dict(live.gates.kept), usage
        )
        for provider, windows in live.gates.told.items():
            self.state.gates.tell(provider, windows)
        pool.block(live.pool.lasting(), set(), dict(live.pool.seen_free))

    def load(self) -> Iterator[None]:
        """In pieces, between which the live one may go on."""
        for start in range(0, len(self._jobs), PIECE):
            part: list[Job] = self._jobs[start : start + PIECE]
            self.state.load(part, [], outcome_of=self._outcomes.get)
            yield
        self._jobs.clear()
