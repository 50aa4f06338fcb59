"""How many jobs there are of each kind, without counting them.

Counted once over indices when the database is opened, then moved along by store/commit.py after
each transaction: neither `status` nor a page grows with the queue.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping

from gpud.core.model import JobState, Outcome

# Each reads one index and nothing else.
OPEN = "SELECT state, source, count(*) FROM jobs WHERE state <> 'done' GROUP BY state, source"
DONE = "SELECT outcome, '', count(*) FROM jobs WHERE state = 'done' GROUP BY outcome"

# (state, source) of jobs that are not done; (outcome, "") of those that are.
Kind = tuple[str, str]


class Tally:
    def __init__(self, db: sqlite3.Connection, without_row: Mapping[Kind, int]) -> None:
        """`without_row`: elements of arrays that have no row."""
        self._jobs: Counter[Kind] = Counter(without_row)
        self._taken: Counter[str] = Counter()
        for query in (OPEN, DONE):
            for word, source, count in db.execute(query):
                self._jobs[word, source] += count
        for name, taken in db.execute("SELECT name, taken FROM sources"):
            self._taken[name] = taken

    def move(self, jobs: dict[Kind, int], taken: dict[str, int]) -> None:
        """What a committed transaction changed; counts may be negative."""
        for kind, count in jobs.items():
            self._jobs[kind] += count
        for source, count in taken.items():
            self._taken[source] += count

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Per state, and per outcome."""
        states = dict.fromkeys((state.value for state in JobState), 0)
        outcomes = dict.fromkeys((outcome.value for outcome in Outcome), 0)
        for (word, _), count in self._jobs.items():
            if word in outcomes:
                outcomes[word] += count
                states[JobState.DONE.value] += count
            else:
                states[word] += count
        return states, outcomes

    def sources(self) -> dict[str, tuple[int, int]]:
        """Per source: entries taken so far, and jobs of them that are not done."""
        waiting: Counter[str] = Counter()
        for (_, source), count in self._jobs.items():
            waiting[source] += count
        return {name: (taken, waiting[name]) for name, taken in self._taken.items()}


def kind_of(state: str, outcome: str | None, source: str) -> Kind:
    return (state, source) if outcome is None else (outcome, "")
