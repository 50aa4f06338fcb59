"""Housekeeping: what goes, when it is looked at, and a crash at any point of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gpud.core.events import DevicesChanged
from gpud.core.model import After, Device, JobId, JobSpec, NewJob, Outcome, Span
from gpud.core.pool import Pool
from gpud.core.retention import YOUNGEST_MS, Limits
from gpud.core.state import State
from gpud.daemon import housekeeping
from gpud.daemon.engine import Engine
from gpud.daemon.housekeeping import Housekeeping
from gpud.errors import GpudError
from gpud.paths import log_path
from gpud.ports import Pruned
from gpud.store.files import StateFiles
from gpud.store.sqlite import SqliteStore

HOUR = YOUNGEST_MS
NOW = 1000 * HOUR
POOL = (Device("0", ("0",)),)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "PAUSE_S", 0)


def past(directory: Path, ages_h: list[float], *, waits_for: int = 0) -> None:
    """Jobs with a log of a kibibyte each that ended so many hours ago."""
    store = SqliteStore.open(directory, durable=False)
    state = State(Pool(list(POOL)))
    for age in ages_h:
        entry_key = f"1:{state.next_id}"
        job = state.add(NewJob(JobSpec(b"true", source="q", entry_key=entry_key)), 1)
        state.activate(job, (), 1)
        store.commit(state.take_changes())
        at_ms = NOW - round(age * HOUR)
        attempt = state.attempts[job.id]
        attempt.outcome, attempt.ended_at_ms = Outcome.SUCCEEDED, at_ms
        state.finish(job, Outcome.SUCCEEDED, "", at_ms)
        store.commit(state.take_changes())
        path = Path(log_path(directory, job.id, 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1024)
    if waits_for:
        spec = JobSpec(b"late", held=True, after=After((Span(waits_for, waits_for),)))
        state.add(NewJob(spec), 1)
        store.commit(state.take_changes())
    store.close()


class Rig:
    def __init__(self, directory: Path, store: object, now_ms: int) -> None:
        self.now_ms = now_ms
        self.said: list[tuple[str, dict[str, object]]] = []
        self.bugs: list[BaseException] = []
        self.engine = Engine(store, DevicesChanged(POOL), clock=lambda: self.now_ms)  # type: ignore[arg-type]
        self.keeping = Housekeeping(
            self.engine, StateFiles(directory), warn=self.say, on_bug=self.bugs.append
        )

    def say(self, event: str, **values: object) -> None:
        self.said.append((event, values))


@asynccontextmanager
async def rig_on(
    directory: Path, *, now_ms: int = NOW, wrap: Callable[[SqliteStore], object] = lambda s: s
) -> AsyncIterator[Rig]:
    store = SqliteStore.open(directory, durable=False)
    rig = Rig(directory, wrap(store), now_ms)
    try:
        yield rig
    finally:
        await rig.keeping.close()
        rig.engine.close()
        store.close()
        assert not rig.bugs


def kept(directory: Path) -> tuple[list[int], list[int]]:
    """Ids of jobs, and of logs."""
    store = SqliteStore.open(directory, durable=False)
    try:
        states, _ = store.counts()
        jobs = [one.job for one in store.ended((0, 0), 1000)]
        assert states["done"] == len(jobs)
        assert not store.logs_due(9)
        for detail in store.details([JobId(job) for job in jobs]):
            for attempt in detail.attempts:
                assert Path(attempt.log).exists() != bool(attempt.log_gone_at_ms)
    finally:
        store.close()
    logs = [int(path.name.split(".")[0]) for path in directory.glob("logs/*/*.log")]
    return sorted(jobs), sorted(logs)


def go(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))  # type: ignore[arg-type]


# -- what ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "jobs", "logs"),
    [
        (Limits(), [1, 2, 3, 4], [1, 2, 3, 4]),
        (Limits(jobs_ms=24 * HOUR), [3, 4], [3, 4]),
        (Limits(jobs=3), [2, 3, 4], [2, 3, 4]),
        (Limits(jobs=1), [4], [4]),
        (Limits(logs_ms=24 * HOUR), [1, 2, 3, 4], [3, 4]),
        (Limits(logs_bytes=8192), [1, 2, 3, 4], [3, 4]),
        (Limits(jobs=3, logs_ms=24 * HOUR), [2, 3, 4], [3, 4]),
    ],
)
def test_a_pass(tmp_path: Path, limits: Limits, jobs: list[int], logs: list[int]) -> None:
    past(tmp_path, [100, 50, 20, 2])

    async def work() -> None:
        async with rig_on(tmp_path) as rig:
            would = await rig.keeping.prune(limits, really=False)
            assert kept_now(rig) == [1, 2, 3, 4]
            did = await rig.keeping.prune(limits, really=True)
            assert did.jobs == would.jobs == 4 - len(jobs)
            assert did.logs == 4 - len(logs) - did.jobs
            assert did.log_bytes == 4096 * (4 - len(logs))
            assert await rig.keeping.prune(limits, really=True) == Pruned()

    go(work)
    assert kept(tmp_path) == (jobs, logs)


def kept_now(rig: Rig) -> list[int]:
    return sorted(one.job for one in rig.engine.store.ended((0, 0), 1000))


def test_what_a_job_that_waits_comes_after_stays(tmp_path: Path) -> None:
    past(tmp_path, [100, 50, 20], waits_for=2)

    async def work() -> None:
        async with rig_on(tmp_path) as rig:
            did = await rig.keeping.prune(Limits(jobs_ms=HOUR), really=True)
            assert did.jobs == 2

    go(work)
    assert kept(tmp_path) == ([2], [2])


def test_many_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "PAGE", 7)
    monkeypatch.setattr(housekeeping, "STEP", 3)
    past(tmp_path, [100 - n for n in range(40)])

    async def work() -> None:
        async with rig_on(tmp_path) as rig:
            assert (await rig.keeping.prune(Limits(jobs=10), really=True)).jobs == 30

    go(work)
    assert kept(tmp_path) == ([*range(31, 41)], [*range(31, 41)])


def test_a_log_that_cannot_be_removed_is_said_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    past(tmp_path, [100])
    log = Path(log_path(tmp_path, 1, 1))
    log.unlink()
    log.mkdir()  # nobody can unlink a directory, not even root

    async def work() -> None:
        async with rig_on(tmp_path) as rig:
            monkeypatch.setattr(housekeeping, "FIRST_S", 0.0)
            rig.keeping._last_s = -1e9
            rig.keeping.start(Limits(jobs_ms=HOUR), rig.say)
            await passes(rig.keeping)
            assert ("pruned", {"jobs": 1, "logs": 0, "runs": 0}) in rig.said
            [told] = [values for event, values in rig.said if event == "housekeeping"]
            assert str(told["why"]).startswith(f"cannot remove {log}: ")
            log.rmdir()  # noqa: ASYNC240
            await rig.keeping.prune(Limits(), really=True)
            assert not rig.engine.store.logs_due(9)

    go(work)


# -- when ------------------------------------------------------------------------------------------


def test_an_idle_daemon_is_not_woken(tmp_path: Path) -> None:
    past(tmp_path, [2])

    async def work() -> None:
        async with rig_on(tmp_path) as rig:
            keeping = rig.keeping
            keeping._last_s = -1e9
            keeping.start(Limits(jobs=5), rig.say)
            assert keeping._timer is not None
            await passes(keeping)
            assert keeping._timer is None, "nothing can become due by itself"
            keeping.keep(Limits(jobs_ms=4 * HOUR))
            keeping._last_s = -1e9
            keeping.keep(Limits(jobs_ms=4 * HOUR))
            await passes(keeping)
            assert keeping._timer is not None
            in_s = keeping._timer.when() - asyncio.get_running_loop().time()
            assert 7190 < in_s < 7201, "when the oldest has its age"

    go(work)


def test_what_happens_makes_one_appointment(tmp_path: Path) -> None:
    async def work() -> None:
        async with rig_on(tmp_path) as rig:
            keeping = rig.keeping
            keeping._last_s = -1e9
            keeping.start(Limits(jobs=5), rig.say)
            await passes(keeping)
            began = keeping._last_s
            for _ in range(3):
                keeping._on_events(())
                assert keeping._timer is not None
                assert keeping._timer.when() == began + housekeeping.INTERVAL_S

    go(work)


async def passes(keeping: Housekeeping) -> None:
    """The appointment is kept, and the pass is over."""
    while keeping._task is None:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await keeping._task
    keeping._task = None


# -- trouble ---------------------------------------------------------------------------------------


class Crash(Exception):
    pass


class CrashingStore:
    """Dies before or after its n-th write."""

    def __init__(self, store: SqliteStore, at: int) -> None:
        self._store = store
        self._left = at
        self.survived = True

    def __getattr__(self, name: str) -> object:
        found = getattr(self._store, name)
        if name not in ("prune", "prune_logs", "logs_removed", "sweep"):
            return found

        def counted(*args: object) -> object:
            self._step()
            result = found(*args)
            self._step()
            return result

        return counted

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0:
            self.survived = False
            raise Crash


def test_a_crash_at_every_boundary_is_made_good_by_the_next_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "STEP", 2)
    limits = Limits(jobs=3, logs_ms=24 * HOUR)
    for at in itertools.count():
        directory = tmp_path / str(at)
        directory.mkdir()
        past(directory, [100, 90, 80, 50, 20, 2])
        stores: list[CrashingStore] = []

        async def first(
            directory: Path = directory, at: int = at, stores: list[CrashingStore] = stores
        ) -> None:
            def wrap(store: SqliteStore) -> object:
                stores.append(CrashingStore(store, at))
                return stores[0]

            async with rig_on(directory, wrap=wrap) as rig:
                try:
                    await rig.keeping.prune(limits, really=True)
                except Crash:
                    pass

        async def second(directory: Path = directory) -> None:
            async with rig_on(directory) as rig:
                await rig.keeping.prune(limits, really=True)
                assert len(rig.engine.store.taken("q", 0)) == 1
                assert sum(rig.engine.store.taken("q", 0).values()) == 6, "no entry is forgotten"

        go(first)
        go(second)
        assert kept(directory) == ([4, 5, 6], [5, 6])
        if stores[0].survived:
            break
    assert at > 10


def test_while_the_disk_is_full_nothing_is_forgotten(tmp_path: Path) -> None:
    past(tmp_path, [100])

    async def work() -> None:
        async with rig_on(tmp_path) as rig:
            rig.engine.storage_problem = "cannot write gpud.db: the disk is full"
            with pytest.raises(GpudError, match="the disk is full"):
                await rig.keeping.prune(Limits(jobs_ms=HOUR), really=True)

    go(work)
    assert kept(tmp_path) == ([1], [1])
