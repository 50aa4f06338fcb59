"""Logs of running jobs are cut in their middle; where that cannot be, it is said once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gpud.core.events import DevicesChanged, JobsSubmitted
from gpud.core.model import Device, JobSpec, NewJob
from gpud.daemon.engine import Engine
from gpud.daemon.log_caps import LogCaps
from gpud.errors import GpudError
from gpud.executors.fake import FakeExecutor, FakeRunner
from gpud.paths import log_path
from gpud.ports import LogFile
from gpud.store.files import StateFiles
from gpud.store.sqlite import SqliteStore

CAP = 1 << 20
BLOCK = 1 << 16


class Rig:
    def __init__(self, directory: Path, files: StateFiles) -> None:
        self.directory = directory
        self.store = SqliteStore.open(directory, durable=False)
        self.engine = Engine(self.store, DevicesChanged((Device("0", ("0",)),)))
        self.runner = FakeRunner()
        self.executor = FakeExecutor(self.runner, self.engine.post)
        self.engine.executor = self.executor
        self.engine.meet_runner = self.executor.open
        self.executor.open()
        self.caps = LogCaps(self.engine, files, on_bug=self.bug)
        self.caps.start(CAP)
        self.bugs: list[BaseException] = []
        self.log = Path(log_path(directory, 1, 1))

    def bug(self, error: BaseException) -> None:
        self.bugs.append(error)

    async def run_job(self) -> None:
        jobs = (NewJob(JobSpec(b"run")),)
        await self.engine.ask(lambda r: JobsSubmitted(r, jobs, "", ""))
        while not self.engine.state.attempts:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    def write(self, blocks: int, letter: bytes = b"x") -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, letter * blocks * BLOCK)
        os.close(fd)

    async def look(self) -> None:
        await self.caps._look()
        await asyncio.sleep(0.01)

    def story(self) -> list[str]:
        [detail] = self.store.details([1])  # type: ignore[list-item]
        return [event.kind for event in detail.story]

    def cut(self) -> tuple[int, int] | None:
        [detail] = self.store.details([1])  # type: ignore[list-item]
        return detail.attempts[0].log_cut

    async def close(self) -> None:
        await self.caps.close()
        self.executor.close()
        self.engine.close()
        self.store.close()
        assert not self.bugs


def play(
    directory: Path, scenario: Callable[[Rig], Awaitable[None]], files: StateFiles | None = None
) -> None:
    async def scene() -> None:
        rig = Rig(directory, files or StateFiles(directory))
        try:
            await scenario(rig)
        finally:
            await rig.close()

    asyncio.run(asyncio.wait_for(scene(), 20))


@pytest.fixture
def punching(tmp_path: Path) -> None:
    path = tmp_path / "probe"
    path.write_bytes(b"x" * 2 * BLOCK)
    try:
        from gpud.store import punching

        punching.punch(str(path), 0, BLOCK)
    except GpudError as error:
        pytest.skip(str(error))
    path.unlink()


def test_a_log_loses_its_middle(tmp_path: Path, punching: None) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.run_job()
        rig.write(4, b"h")
        rig.write(16)
        rig.write(4, b"t")
        await rig.look()
        assert rig.cut() == (4 * BLOCK, 20 * BLOCK)
        assert rig.story()[-1] == "log-cut"
        assert rig.log.stat().st_blocks * 512 <= 9 * BLOCK
        text = rig.log.read_bytes()
        assert text == b"h" * 4 * BLOCK + bytes(16 * BLOCK) + b"t" * 4 * BLOCK
        rig.write(4, b"n")
        await rig.look()
        assert rig.cut() == (4 * BLOCK, 20 * BLOCK), "it has not grown by half the cap"
        rig.write(8, b"m")
        await rig.look()
        assert rig.cut() == (4 * BLOCK, 32 * BLOCK)
        assert rig.story().count("log-cut") == 1
        assert rig.log.read_bytes()[32 * BLOCK :] == b"m" * 4 * BLOCK

    play(tmp_path, scenario)


def test_one_that_was_committed_and_not_made_is_made(tmp_path: Path, punching: None) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.run_job()
        rig.write(24)
        rig.store.cut(LogFile(1, 1), 4 * BLOCK, 20 * BLOCK)  # type: ignore[arg-type]
        await rig.look()
        assert rig.log.stat().st_blocks * 512 <= 9 * BLOCK
        assert rig.cut() == (4 * BLOCK, 20 * BLOCK)

    play(tmp_path, scenario)


class NoHoles(StateFiles):
    def punch(self, file: LogFile, first: int, end: int) -> None:
        raise GpudError("this file system cannot: Operation not supported", kind="storage")


def test_where_it_cannot_be_done_it_is_said_once(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.run_job()
        rig.write(24)
        for _ in range(3):
            await rig.look()
            rig.caps.keep(CAP)  # as a new daemon
        assert rig.story().count("log-too-large") == 1
        assert rig.cut() is None
        assert rig.log.read_bytes() == b"x" * 24 * BLOCK

    play(tmp_path, scenario, NoHoles(tmp_path))


def test_while_nothing_runs_nothing_is_looked_at(tmp_path: Path, punching: None) -> None:
    async def scenario(rig: Rig) -> None:
        assert rig.caps._timer is None
        await rig.run_job()
        assert rig.caps._timer is not None
        rig.write(24)
        rig.runner.end((1, 1), exit_code=0)  # type: ignore[arg-type]
        while rig.engine.state.attempts:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        rig.caps._arm(0.0)
        while rig.caps._timer is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert rig.caps._task is not None
        await rig.caps._task
        assert rig.cut() is not None, "what had ended was looked at once"
        assert rig.caps._timer is None or not rig.caps._ended

    play(tmp_path, scenario)


def test_no_cap(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.caps.keep(0)
        await rig.run_job()
        assert rig.caps._timer is None
        rig.write(24)
        await rig.look()
        assert rig.cut() is None

    play(tmp_path, scenario)
