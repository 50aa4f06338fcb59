"""The engine: group commit, nothing before the commit, a disk that cannot be written, a bug."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gpud.core import scheduler
from gpud.core.changes import Changes
from gpud.core.events import (
    CancelRequested,
    DevicesChanged,
    GpuBroke,
    HoldRequested,
    JobsSubmitted,
    RetryRequested,
)
from gpud.core.model import Device, JobId, JobSpec, JobState, NewJob, RetryPolicy
from gpud.daemon import engine as engine_module
from gpud.daemon.engine import Engine
from gpud.daemon.strikes import Strikes
from gpud.errors import GpudError
from gpud.executors.fake import FakeExecutor, FakeRunner
from gpud.ports import StorageError
from gpud.protocol.replies import EventView
from gpud.store.sqlite import SqliteStore

DEVICES = (Device("0", ("0",)),)


class BrittleStore:
    """The real store, with a switch that makes the disk full and a count of commits."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.full = False
        self.commits = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def commit(self, changes: Changes) -> list[EventView]:
        if self.full:
            raise StorageError("cannot write gpud.db: no space left on device")
        self.commits += 1
        return self._store.commit(changes)


class Rig:
    def __init__(self, directory: Path, runner: FakeRunner | None = None) -> None:
        self.runner = runner or FakeRunner()
        self.store = BrittleStore(SqliteStore.open(directory, durable=False))
        self.engine = Engine(self.store, DevicesChanged(DEVICES), strikes=Strikes(directory))  # type: ignore[arg-type]
        self.executor = FakeExecutor(self.runner, self.engine.post)
        self.engine.executor = self.executor
        self.engine.meet_runner = self.executor.open
        self.executor.open()

    async def submit(self, *commands: str, key: str = "") -> list[int]:
        jobs = tuple(NewJob(JobSpec(c.encode())) for c in commands)
        answer = await self.engine.ask(lambda r: JobsSubmitted(r, jobs, key, key))
        return [answer.jobs[0] + i for i in range(answer.count)]

    async def until(self, holds: Callable[[], bool]) -> None:
        """For what has no event of its own: everything has settled."""
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    def close(self) -> None:
        self.executor.close()
        self.engine.close()
        self.store._store.close()


def play(directory: Path, scenario: Callable[[Rig], Awaitable[None]]) -> None:
    async def scene() -> None:
        rig = Rig(directory)
        try:
            await scenario(rig)
        finally:
            rig.close()

    asyncio.run(scene())


def test_what_is_asked_at_once_is_committed_at_once(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.submit("exit 0")
        await rig.until(lambda: not rig.engine.state.jobs)
        before = rig.store.commits
        await asyncio.gather(*(rig.submit("wait", key=f"k{n}") for n in range(50)))
        assert rig.store.commits - before <= 2

    play(tmp_path, scenario)


def test_nothing_is_answered_or_shown_before_its_commit(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        shown: list[int] = []
        rig.engine.subscribe(lambda events: shown.extend(e.seq for e in events))
        commit = rig.store.commit

        def watching(changes: Changes) -> list[EventView]:
            assert not asking.done()
            assert not rig.runner.starts
            assert not shown
            return commit(changes)

        rig.store.commit = watching  # type: ignore[method-assign]
        asking = asyncio.ensure_future(rig.submit("exit 0"))
        await asking
        assert rig.runner.starts
        assert shown

    play(tmp_path, scenario)


def test_a_full_disk_refuses_starts_nothing_and_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "STORAGE_RETRY_S", 0.02)

    async def scenario(rig: Rig) -> None:
        [first] = await rig.submit("run")
        rig.store.full = True
        with pytest.raises(GpudError, match="no space left"):
            await rig.submit("run")
        with pytest.raises(GpudError, match="no space left"):
            await rig.submit("run")  # at once, without a turn
        assert rig.engine.storage_problem
        rig.runner.end((JobId(first), 1), exit_code=3)  # it ends while nothing can be written
        assert rig.runner.ends
        rig.store.full = False
        await rig.until(lambda: not rig.engine.storage_problem)
        await rig.until(lambda: not rig.runner.ends)
        [view] = rig.store._store.views([JobId(first)])
        assert (view.outcome, view.exit_code) == ("failed", 3)
        assert await rig.submit("exit 0") == [first + 1]  # no id was used up by what was refused

    play(tmp_path, scenario)


def test_a_full_disk_at_a_dispatch_starts_the_job_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "STORAGE_RETRY_S", 0.02)

    async def scenario(rig: Rig) -> None:
        first, second = await rig.submit("run", "run")
        rig.store.full = True
        rig.runner.end((JobId(first), 1), exit_code=0)
        await rig.until(lambda: bool(rig.engine.storage_problem))
        assert (second, 1) not in rig.runner.starts
        rig.store.full = False
        await rig.until(lambda: (second, 1) in rig.runner.starts)
        assert set(rig.runner.starts.values()) == {1}

    play(tmp_path, scenario)


def test_a_gpu_that_breaks_while_the_disk_is_full_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver tells an Xid once."""
    monkeypatch.setattr(engine_module, "STORAGE_RETRY_S", 0.02)

    async def scenario(rig: Rig) -> None:
        rig.store.full = True
        rig.engine.post(GpuBroke("GPU-a", 1, "Xid 48"))  # in the turn that is undone
        await rig.until(lambda: bool(rig.engine.storage_problem))
        rig.engine.post(GpuBroke("GPU-b", 2, "Xid 79"))  # while there are no turns
        rig.store.full = False
        await rig.until(lambda: not rig.engine.storage_problem)
        await rig.until(lambda: len(rig.store._store.load().quarantines) == 2)

    play(tmp_path, scenario)


def test_a_retry_pause_ends_by_itself(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        policy = RetryPolicy(retries=2, backoff_s=0.02)
        jobs = (NewJob(JobSpec(b"exit 1", retry=policy)),)
        await rig.engine.ask(lambda r: JobsSubmitted(r, jobs))
        await rig.until(lambda: len(rig.runner.starts) == 3)
        await rig.until(lambda: not rig.engine.state.jobs)

    play(tmp_path, scenario)


def test_a_person_retries_a_job_that_has_left_memory(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        [job] = await rig.submit("exit 4")
        await rig.until(lambda: not rig.engine.state.jobs)
        answer = await rig.engine.ask(lambda r: RetryRequested(r, (JobId(job), JobId(99))))
        assert answer.jobs == (job,)
        assert answer.refused == ((99, "cannot retry job 99: no such job"),)
        await rig.until(lambda: (job, 2) in rig.runner.starts)

    play(tmp_path, scenario)


def test_a_job_that_crashes_gpud_three_times_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = scheduler.handle

    def buggy(state: object, event: object, now_ms: int) -> object:
        if getattr(event, "job", 0) == 2 and type(event).__name__ == "AttemptEnded":
            raise RuntimeError("a bug")
        return handle(state, event, now_ms)  # type: ignore[arg-type]

    monkeypatch.setattr(engine_module, "handle", buggy)

    async def life(runner: FakeRunner, first: bool) -> bool:
        """True when this daemon crashed."""
        crashed: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, about: crashed.append(about))
        rig = Rig(tmp_path, runner)
        try:
            if first:
                await rig.submit("run", "exit 0", "exit 0")
                rig.runner.end((JobId(1), 1), exit_code=0)
            await rig.until(lambda: bool(crashed) or (not runner.live and len(runner.starts) == 3))
            if not crashed:
                await rig.until(lambda: set(rig.engine.state.jobs) == {2})
                assert rig.engine.set_aside == {2: "AttemptEnded"}
                await rig.engine.ask(lambda r: CancelRequested(r, (JobId(99),)))
            return bool(crashed)
        finally:
            rig.close()

    runner = FakeRunner()
    crashes = [asyncio.run(life(runner, n == 0)) for n in range(3)]
    assert crashes == [True, True, True]
    assert asyncio.run(life_after(tmp_path, runner)) == {2: "AttemptEnded"}


async def life_after(directory: Path, runner: FakeRunner) -> dict[int, str]:
    rig = Rig(directory, runner)
    try:
        # the slot of job 2 stays leased: nobody knows what became of it; the rest goes on
        answer = await rig.engine.ask(lambda r: HoldRequested(r, (JobId(3),)))
        assert answer.jobs == (3,)
        assert rig.engine.state.jobs[JobId(3)].state is JobState.HELD
        return rig.engine.set_aside
    finally:
        rig.close()
