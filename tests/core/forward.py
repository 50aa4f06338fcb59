"""What really happens to the jobs of a state when time passes: the world that a forecast foretells.

Used by foretold.py. Each job runs for as long as `runs_ms` says, unless nobody knows, and
succeeds; nobody interferes. Shares no code with gpud/core/forecast.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from gpud.core.actions import StartAttempt
from gpud.core.events import AttemptEnded, AttemptStarted
from gpud.core.invariants import check_invariants
from gpud.core.model import JobId
from gpud.core.scheduler import next_deadline, step
from gpud.core.state import State

FOREVER = 0  # a job that never ends
MOST_INSTANTS = 1000


class World:
    """`started_ms` and `ended_by` are filled as time passes."""

    def __init__(self, state: State, now_ms: int, runs_ms: Mapping[JobId, int]) -> None:
        self.state, self.now_ms = state, now_ms
        self.started_ms: dict[JobId, int] = {}
        self.ended_at: dict[int, list[JobId]] = {}
        self.runs_ms = runs_ms
        self._ends_ms: dict[JobId, int] = {}

    def go_on(self, instants: int = MOST_INSTANTS) -> None:
        """So many moments at which something happens, or until nothing does any more."""
        self._turn([])
        for _ in range(instants):
            times = [*self._ends_ms.values(), next_deadline(self.state)]
            known = [at_ms for at_ms in times if at_ms is not None]
            if not known:
                return
            self.now_ms = min(known)
            self._turn([job for job, at_ms in self._ends_ms.items() if at_ms == self.now_ms])
        assert instants < MOST_INSTANTS, "this goes on for ever"

    def _turn(self, ending: list[JobId]) -> None:
        facts = []
        for job in ending:
            del self._ends_ms[job]
            no = self.state.attempts[job].no
            facts.append(AttemptEnded(job, no, self.now_ms, exit_code=0))
        self.ended_at.setdefault(self.now_ms, []).extend(ending)
        actions = step(self.state, facts, self.now_ms)
        begun = []
        for action in actions:
            if isinstance(action, StartAttempt):
                self.started_ms[action.job] = self.now_ms
                begun.append(AttemptStarted(action.job, action.attempt, 7, self.now_ms))
                if (runs_ms := self.runs_ms[action.job]) != FOREVER:
                    self._ends_ms[action.job] = self.now_ms + runs_ms
        again = step(self.state, begun, self.now_ms)
        assert not any(isinstance(a, StartAttempt) for a in again), "a start for no new reason"
        check_invariants(self.state)
        self.state.take_changes()
