"""Stop the daemon at every commit and every act boundary of a scripted day, and start it again.

A day is a list of things that people, a source and the jobs do. It is played once undisturbed, and
then once for every boundary: at the n-th commit (before it, or after it and before anything is
performed) or the n-th act (before it, or after it), the daemon dies; a new one opens the same
database and meets the same runner. Clients repeat what was not answered, as gpuctl does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from gpud.core.actions import Answer
from gpud.core.changes import Changes
from gpud.core.events import (
    CancelRequested,
    CheckpointRequested,
    ContinueRequested,
    DevicesChanged,
    DrainRequested,
    Edit,
    EditRequested,
    EntriesRead,
    Event,
    HoldRequested,
    JobsSubmitted,
    MoveRequested,
    PauseRequested,
    ReleaseRequested,
    RetryRequested,
    UndrainRequested,
)
from gpud.core.invariants import check_invariants
from gpud.core.model import (
    Cursor,
    Device,
    JobId,
    JobSpec,
    NewJob,
    Outcome,
    Request,
    RetryPolicy,
)
from gpud.daemon.engine import Engine
from gpud.errors import GpudError
from gpud.executors.fake import FakeExecutor, FakeRunner
from gpud.ports import Launch
from gpud.protocol.replies import EventView
from gpud.protocol.selectors import parse
from gpud.store.sqlite import SqliteStore

DEVICES = (Device("0", ("0",)), Device("1", ("1",)), Device("cpu", (), 2))


class Crash(Exception):
    """The daemon is gone."""


class Doom:
    """Counts boundaries; raises Crash at the chosen one, once."""

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.passed = 0

    def boundary(self) -> None:
        self.passed += 1
        if self.passed == self.at:
            raise Crash


class DoomedStore:
    """The real store with a boundary on each side of a commit."""

    def __init__(self, store: SqliteStore, doom: Doom) -> None:
        self._store = store
        self._doom = doom

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, changes: Changes) -> list[EventView]:
        self._doom.boundary()
        committed = self._store.commit(changes)
        self._doom.boundary()
        return committed


class DoomedExecutor(FakeExecutor):
    """Boundaries on each side of every act."""

    doom: Doom

    def start(self, launch: Launch) -> None:
        self.doom.boundary()
        super().start(launch)
        self.doom.boundary()

    def stop(self, action: Any) -> None:
        self.doom.boundary()
        super().stop(action)
        self.doom.boundary()

    def pause(self, action: Any) -> None:
        self.doom.boundary()
        super().pause(action)
        self.doom.boundary()

    def unpause(self, action: Any) -> None:
        self.doom.boundary()
        super().unpause(action)
        self.doom.boundary()

    def checkpoint(self, action: Any) -> None:
        self.doom.boundary()
        super().checkpoint(action)
        self.doom.boundary()

    def forget(self, attempts: Sequence[Any]) -> None:
        self.doom.boundary()
        super().forget(attempts)
        self.doom.boundary()


class Daemon:
    """An engine on a database and a fake runner; `settle` runs it until nothing is left to do."""

    def __init__(self, directory: Path, runner: FakeRunner, doom: Doom) -> None:
        self.runner = runner
        self.store = SqliteStore.open(directory, durable=False)
        self.engine = Engine(
            DoomedStore(self.store, doom),
            DevicesChanged(DEVICES),
            clock=lambda: runner.now_ms,  # type: ignore[arg-type]
        )
        self.executor = DoomedExecutor(runner, self.engine.post)
        self.executor.doom = doom
        self.engine.executor = self.executor
        self.executor.open()

    def settle(self) -> None:
        """Turns until the mailbox is empty. Raises Crash."""
        engine = self.engine
        while engine._mailbox:
            engine._turn()
        check_invariants(engine.state)

    def tick(self) -> None:
        self.engine._turn()
        self.settle()

    def close(self) -> None:
        self.executor.close()
        self.engine.close()
        self.store.close()


Request_ = Callable[[int], Event]


class Day:
    """Plays the script against daemons that die, and keeps what was acknowledged."""

    def __init__(self, directory: Path, doom: Doom) -> None:
        self.directory = directory
        self.doom = doom
        self.runner = FakeRunner()
        self.acknowledged: dict[str, Answer] = {}
        self.taken = 0  # the source's position
        self.daemon = Daemon(directory, self.runner, Doom())
        self.daemon.executor.doom = doom
        self.daemon.engine.store._doom = doom  # type: ignore[attr-defined]

    def restart(self) -> None:
        self.daemon.close()
        while True:
            self.daemon = Daemon(self.directory, self.runner, self.doom)
            try:
                self.daemon.settle()
                return
            except Crash:
                self.daemon.close()

    def do(self, act: Callable[[], None]) -> None:
        try:
            act()
            self.daemon.settle()
        except Crash:
            self.restart()

    async def ask(self, name: str, make: Request_) -> None:
        """Ask until it is answered, as a client that repeats what was not."""
        while name not in self.acknowledged:
            task = asyncio.ensure_future(self.daemon.engine.ask(make))
            await asyncio.sleep(0)
            self.do(lambda: None)
            await asyncio.sleep(0)
            try:
                self.acknowledged[name] = await task
            except GpudError as error:
                if error.kind != "unreachable":
                    raise

    def jobs(self, name: str) -> tuple[JobId, ...]:
        answer = self.acknowledged[name]
        return tuple(JobId(answer.jobs[0] + i) for i in range(answer.count))

    def live(self) -> list[tuple[JobId, int]]:
        return list(self.runner.live)


def spec(command: str, **fields: Any) -> NewJob:
    return NewJob(JobSpec(command.encode(), **fields))


async def play(directory: Path, doom: Doom) -> Day:
    """The scripted day."""
    day = Day(directory, doom)
    day.do(lambda: None)

    def submit(key: str, *jobs: NewJob) -> Request_:
        return lambda request: JobsSubmitted(request, jobs, key, key)

    await day.ask("a", submit("a", spec("exit 0"), spec("exit 3"), spec("run")))
    day.runner.now_ms += 10
    retry = RetryPolicy(retries=2, backoff_s=1.0)
    await day.ask("b", submit("b", spec("exit 5", retry=retry), spec("refuse")))
    await day.ask(
        "c", submit("c", spec("run", request=Request(2)), spec("run", request=Request(0)))
    )
    cursor = Cursor("queue", "one")
    bad = NewJob(JobSpec(b"x", source="queue", entry_key="1:9"), "cannot run line 2: no")
    lines = (spec("run", source="queue", entry_key="1:0"), bad)
    while day.daemon.store.position("queue") is None:  # a source goes on from its cursor
        task = asyncio.ensure_future(
            day.daemon.engine.ask(lambda r: EntriesRead(r, "queue", lines, cursor))
        )
        await asyncio.sleep(0)
        day.do(lambda: None)
        await asyncio.gather(task, return_exceptions=True)
    held = day.jobs("c")[0]
    await day.ask("hold", lambda r: HoldRequested(r, (held,)))
    was = day.daemon.store.spec(held)
    becomes = structs.replace(was, command=b"run what was edited", priority=3, env=b"A=1")
    await day.ask("edit", lambda r: EditRequested(r, (Edit(held, was, becomes),)))
    await day.ask("move", lambda r: MoveRequested(r, (held,), "last"))
    for _ in range(3):  # the retries of b's first become due
        day.runner.now_ms += 5000
        day.do(day.daemon.tick)
    await day.ask("drain", DrainRequested)
    for key in day.live()[:2]:
        day.do(lambda key=key: day.runner.end(key, exit_code=0))  # type: ignore[misc]
    await day.ask("undrain", UndrainRequested)
    await day.ask("release", lambda r: ReleaseRequested(r, (day.jobs("c")[0],)))
    await day.ask("d", submit("d", spec("run", priority=5), spec("run")))
    victim = day.jobs("d")[1]
    await day.ask("cancel", lambda r: CancelRequested(r, (victim,)))
    await day.ask("e", submit("e", spec("run", request=Request(0), checkpoint=10)))
    (saver,) = day.jobs("e")
    await day.ask("pause", lambda r: PauseRequested(r, (saver,)))
    assert day.runner.paused == {(saver, 1)}
    await day.ask("continue", lambda r: ContinueRequested(r, (saver,)))
    assert not day.runner.paused
    await day.ask(  # not again, once it has been done
        "checkpoint",
        lambda r: CheckpointRequested(r, () if day.runner.resumed else (saver,)),
    )
    assert day.runner.resumed == [(saver, 2)]
    await day.ask("again", lambda r: RetryRequested(r, (day.jobs("a")[1],)))
    for _ in range(12):
        for key in day.live():
            day.do(lambda key=key: day.runner.end(key, exit_code=0))  # type: ignore[misc]
        day.runner.now_ms += 5000
        day.do(day.daemon.tick)
    return day


def outcomes(day: Day) -> dict[int, tuple[str, str, int]]:
    store = day.daemon.store
    views = store.views(store.select(parse(["all"])))
    return {v.id: (str(to_text(v.command)), v.outcome, v.attempt) for v in views}


def to_text(value: object) -> str:
    return str(value)


def check(day: Day) -> None:
    assert all(count == 1 for count in day.runner.starts.values()), "an attempt started twice"
    assert not day.daemon.engine.state.jobs, "a job is left"
    assert not day.daemon.engine.state.pool.leased, "a slot leaked"
    assert not day.runner.ends, "an end was never forgotten"
    store = day.daemon.store
    ids = set(store.select(parse(["all"])))
    for name in ("a", "b", "c", "d", "e"):
        assert set(day.jobs(name)) <= ids, f"{name} was acknowledged and is lost"
    for job in ids:
        for attempt in store.details([JobId(job)])[0].attempts:
            assert attempt.outcome, f"attempt {job}.{attempt.attempt} has no outcome"


def test_the_undisturbed_day_goes_as_scripted(tmp_path: Path) -> None:
    async def scenario() -> None:
        day = await play(tmp_path, Doom())
        check(day)
        found = outcomes(day)
        assert len(found) == 12
        assert found[day.jobs("e")[0]][1:] == (Outcome.SUCCEEDED, 2)  # it has saved its state
        first = day.jobs("a")[0]
        assert found[first][1] == Outcome.SUCCEEDED
        assert found[day.jobs("b")[0]][1:] == (Outcome.FAILED, 3)  # two retries
        assert found[day.jobs("b")[1]][1] == Outcome.NOT_STARTED
        assert found[day.jobs("c")[0]] == ("run what was edited", Outcome.SUCCEEDED, 1)
        assert found[day.jobs("d")[1]][1] == Outcome.CANCELLED
        assert found[day.jobs("a")[1]][1:] == (Outcome.FAILED, 2)  # a person's retry
        day.daemon.close()

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_crash_at_every_boundary_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        quiet = Doom()
        (tmp_path / "quiet").mkdir()
        day = await play(tmp_path / "quiet", quiet)
        expected = outcomes(day)
        day.daemon.close()
        assert quiet.passed > 80
        for at in range(1, quiet.passed + 1):
            directory = tmp_path / str(at)
            directory.mkdir()
            doom = Doom(at)
            day = await play(directory, doom)
            check(day)
            assert outcomes(day) == expected, f"crash at boundary {at}"
            day.daemon.close()

    asyncio.run(scenario())
