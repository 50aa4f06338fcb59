"""A random life of a queue on a real store, in a process of its own: what a power cut interrupts.

    python -m tests.reliability.life DIRECTORY SEED TURNS full|normal

After each commit a line with a digest of all that the database says goes to `acknowledged` in the
directory: what a client has been told by then.
"""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

from gpud.core.actions import StartAttempt
from gpud.core.events import (
    AttemptEnded,
    AttemptStarted,
    CancelRequested,
    DrainRequested,
    EntriesRead,
    Event,
    HoldRequested,
    JobsSubmitted,
    ReleaseRequested,
    RetryRequested,
    RunnerReady,
    UndrainRequested,
)
from gpud.core.invariants import check_invariants
from gpud.core.model import (
    Array,
    Cursor,
    Device,
    JobId,
    JobSpec,
    NewJob,
    RetryPolicy,
)
from gpud.core.numbering import Numbering
from gpud.core.pool import Pool
from gpud.core.scheduler import step
from gpud.core.state import State
from gpud.daemon.past import with_past
from gpud.protocol.selectors import parse
from gpud.store.sqlite import SqliteStore

ACKNOWLEDGED = "acknowledged"
DEVICES = (Device("0", ("0",), 2), Device("1", ("1",)), Device("cpu", (), 2))
SOURCE = "queue"


def digest(db: sqlite3.Connection) -> str:
    """Of every row there is."""
    found = hashlib.sha256()
    tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    for (name,) in tables.fetchall():
        found.update(repr((name, sorted(map(repr, db.execute(f"SELECT * FROM {name}"))))).encode())
    return found.hexdigest()


def state_of(store: SqliteStore) -> State:
    """As the engine loads it."""
    loaded = store.load()
    state = State(Pool(DEVICES))
    state.next_id, state.draining = loaded.next_id, loaded.draining
    state.numbering = Numbering(loaded.arrays)
    state.load(
        loaded.jobs,
        loaded.attempts,
        loaded.quarantines,
        loaded.outcomes.get,
        loaded.gates,
        loaded.usage,
    )
    check_invariants(state)
    return state


class Life:
    def __init__(self, directory: Path, seed: int, *, durable: bool) -> None:
        self.dice = random.Random(seed)
        self.directory, self.durable = directory, durable
        self.told = os.open(directory / ACKNOWLEDGED, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.now_ms, self.lines = 1_000_000, 0
        self.open()

    def open(self) -> None:
        self.store = SqliteStore.open(self.directory, durable=self.durable)
        self.state = state_of(self.store)
        self.happens(RunnerReady("boot", ()))

    def happens(self, event: Event) -> None:
        self.now_ms += self.dice.randrange(5000)
        whole = with_past(event, self.state, self.store, self.store.spec)
        actions = step(self.state, [whole], self.now_ms)  # type: ignore[list-item]
        if changes := self.state.take_changes():
            self.store.commit(changes)
        os.write(self.told, f"{digest(self.store._db)}\n".encode())
        for action in actions:
            if isinstance(action, StartAttempt) and self.dice.random() < 0.8:
                self.happens(AttemptStarted(action.job, action.attempt, 4711, self.now_ms))

    # -- what may happen -------------------------------------------------------------------------

    def submit(self) -> None:
        self.happens(JobsSubmitted(1, tuple(self.new() for _ in range(self.dice.randint(1, 4)))))

    def read_lines(self) -> None:
        new = [self.new(source=SOURCE, entry_key=f"1:{self.lines + n}") for n in range(3)]
        self.lines += 3
        self.happens(EntriesRead(1, SOURCE, tuple(new), Cursor(SOURCE, str(self.lines))))

    def new(self, **fields: object) -> NewJob:
        dice = self.dice
        array = (
            Array(((0, dice.randint(1, 30), 1),)) if dice.random() < 0.2 and not fields else None
        )
        spec = JobSpec(
            b"train " + bytes(dice.choices(b"abc", k=dice.choice((1, 40, 3000)))),
            env=b"HOME=/" + bytes(dice.choices(b"xyz", k=8)),
            priority=dice.choice((0, 0, 7)),
            retry=RetryPolicy(dice.choice((0, 0, 2)), 1.0),
            held=dice.random() < 0.1,
            array=array,
            name=dice.choice(("", "a")),
            **fields,  # type: ignore[arg-type]
        )
        return NewJob(spec)

    def end(self) -> None:
        for job in self.dice.sample(list(self.state.attempts), min(2, len(self.state.attempts))):
            attempt = self.state.attempts.get(job)
            if attempt is not None:
                code = self.dice.choice((0, 0, 3))
                self.happens(AttemptEnded(job, attempt.no, self.now_ms, exit_code=code))

    def ask(self) -> None:
        some = tuple(self.some())
        make: Callable[[int, tuple[JobId, ...]], Event] = self.dice.choice(
            (CancelRequested, HoldRequested, ReleaseRequested, RetryRequested)
        )
        self.happens(make(1, some))

    def some(self) -> list[JobId]:
        ids = self.store.select(parse(["all"]))
        return sorted(self.dice.sample(ids, min(len(ids), self.dice.randint(1, 5))))

    def drain(self) -> None:
        self.happens(DrainRequested(1))
        self.happens(UndrainRequested(1))

    def copy_the_log(self) -> None:
        """What SQLite does by itself when the log has grown."""
        mode = self.dice.choice(("PASSIVE", "TRUNCATE", "RESTART"))
        self.store._db.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()

    def restart(self) -> None:
        self.store.close()
        self.open()


def main(directory: str, seed: str, turns: str, sync: str) -> None:
    life = Life(Path(directory), int(seed), durable=sync == "full")
    acts = [life.submit, life.read_lines, life.end, life.end, life.ask, life.drain]
    for _ in range(int(turns)):
        life.dice.choice(acts)()
        if life.dice.random() < 0.1:
            life.dice.choice((life.copy_the_log, life.restart))()


if __name__ == "__main__":
    main(*sys.argv[1:])
