"""Every query walks an index: what a call costs does not grow with the queue or the history."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from gpud.core.model import Device, JobId, JobSpec, JobState, NewJob, Outcome
from gpud.core.placement import place
from gpud.core.pool import Pool
from gpud.core.state import State
from gpud.ports import Likeness
from gpud.protocol.selectors import parse
from gpud.store import inserting, intern
from gpud.store.sqlite import SqliteStore

STEP = 10  # virtual machine steps between two looks


def filled(waiting: int, ended: int) -> SqliteStore:
    store = SqliteStore.in_memory()
    state = State(Pool([Device("0", ("0",))]))
    for number in range(ended):
        job = state.add(NewJob(JobSpec(b"x", name="n" if number < 3 else "")), number)
        state.finish(job, Outcome.FAILED if number < 3 else Outcome.SUCCEEDED, "", number)
        state.tell(job.id, 0, "ended", number)
    for _ in range(waiting):
        state.add(NewJob(JobSpec(b"x", source="q", name="w")), 1)
    state.tell_many(JobId(ended + 1), waiting, "submitted", 1)
    running = state.add(NewJob(JobSpec(b"x")), 1)
    lease = place(state.pool, running.request)
    assert lease is not None
    state.activate(running, lease, 1)
    store.commit(state.take_changes())
    return store


@contextmanager
def counted(db: sqlite3.Connection) -> Iterator[list[int]]:
    """How many steps SQLite's machine makes meanwhile."""
    steps = [0]

    def count() -> int:
        steps[0] += STEP
        return 0

    db.set_progress_handler(count, STEP)
    yield steps
    db.set_progress_handler(None, 0)


def turn(store: SqliteStore) -> int:
    """The running job ends, the next one starts: steps of that commit."""
    state = State(Pool([Device("0", ("0",))]))
    loaded = store.load()
    state.load(loaded.jobs, loaded.attempts)
    (active,) = [job for job in loaded.jobs if job.state is JobState.ACTIVE]
    state.attempts[active.id].outcome = Outcome.SUCCEEDED
    state.finish(active, Outcome.SUCCEEDED, "", 5)
    state.tell(active.id, 1, "ended", 5)
    lease = place(state.pool, loaded.jobs[1].request)
    assert lease is not None
    state.activate(loaded.jobs[1], lease, 5)
    changes = state.take_changes()
    with counted(store._db) as steps:
        store.commit(changes)
    return steps[0]


CALLS: dict[str, Callable[[SqliteStore], object]] = {
    "page": lambda store: store.page(10, 20),
    "spec": lambda store: store.spec(JobId(5)),
    "details": lambda store: store.details([JobId(5)]),
    "views": lambda store: store.views([JobId(5), JobId(7)]),
    "recall": lambda store: store.recall([JobId(5)]),
    "events": lambda store: store.events_after(100, 5),
    "likeness": lambda store: store.likeness(JobId(2)),
    "runs": lambda store: store.runs_ms(Likeness(name="w"), JobId(10**6)),
    "runs of an array": lambda store: store.runs_ms(Likeness(array=5), JobId(10**6)),
    "counts": lambda store: (store.counts(), store.source_counts()),
    "ids": lambda store: store.select(parse(["5", "@", "@~3", "7-9"])),
    "name": lambda store: store.select(parse(["name:n"])),
    "failed": lambda store: store.select(parse(["state:failed", "state:active", "state:held"])),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_costs_the_same_at_any_length(call: str) -> None:
    costs = []
    for length in (300, 3000):
        with closing(filled(length, length)) as store:
            CALLS[call](store)  # templates are read once
            with counted(store._db) as steps:
                CALLS[call](store)
            costs.append(steps[0])
    assert costs[1] <= costs[0] + 2 * STEP


def test_a_turn_costs_the_same_at_any_length() -> None:
    costs = []
    for length in (300, 3000):
        with closing(filled(length, length)) as store:
            costs.append(turn(store))
    assert costs[1] <= costs[0] + 2 * STEP


def test_a_hundred_thousand_jobs_are_few_statements() -> None:
    with closing(SqliteStore.in_memory()) as store:
        statements: list[str] = []
        store._db.set_trace_callback(statements.append)
        state = State(Pool([]))
        for number in range(64_000):
            state.add(NewJob(JobSpec(b"x %d" % number, name=str(number), env=b"A=1")), 1)
        state.tell_many(JobId(1), 64_000, "submitted", 1)
        store.commit(state.take_changes())
        assert len(statements) < 64_000 / inserting.RUN + 12


def test_more_templates_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intern, "CACHED", 4)
    with closing(SqliteStore.in_memory()) as store:
        state = State(Pool([]))
        specs = [JobSpec(b"x", cwd=b"/%d" % (n % 10), env=b"E=%d" % (n % 3)) for n in range(60)]
        for _ in range(3):
            jobs = [state.add(NewJob(spec), 1) for spec in specs]
            store.commit(state.take_changes())
            assert [store.spec(job.id) for job in jobs] == specs
            assert len(store._interned._templates) <= 4
            assert len(store._interned._ids) <= 4
        assert store._db.execute("SELECT count(*) FROM templates").fetchone() == (30,)
        assert store._db.execute("SELECT count(*) FROM environments").fetchone() == (3,)
        assert len(store.load().jobs) == 180
