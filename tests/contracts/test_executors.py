"""The contract of executors (gpud/ports.py), over real processes and over the fake.

A rig stands for what outlives a daemon: the runner. `meet` is a daemon that opens, `leave` one that
goes. Commands are written so that both understand them: `exit 3`, `signal 9`, `oom cuda` (shell
functions by the rig's setup line for real shells), `sleep`-like `run`.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGUSR1
from typing import Any

import pytest

from gpud.core.actions import (
    CheckpointAttempt,
    ContinueAttempt,
    PauseAttempt,
    StartAttempt,
    StopAttempt,
)
from gpud.core.events import (
    AttemptEnded,
    AttemptNotStarted,
    AttemptStarted,
    Event,
    RunnerGone,
    RunnerReady,
)
from gpud.core.model import Device, JobId, JobSpec, LeasePart
from gpud.executors.fake import FakeExecutor, FakeRunner
from gpud.executors.runner import RunnerExecutor
from gpud.ports import Launch

TIMEOUT_S = 20
SETUP = b"""signal() { kill -$1 $$; sleep 9; }; run() { sleep 600; }
cuda="torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
oom() { case $1 in cuda) echo "$cuda";; host) echo MemoryError;; esac; exit 1; }"""


class Box:
    """What a daemon's mailbox has received; `wait` returns the first event that fits."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._more = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()

    async def wait(self, fits: Callable[[Event], bool]) -> Any:
        async with asyncio.timeout(TIMEOUT_S):
            seen = 0
            while True:
                seen = min(seen, len(self.events))
                for event in self.events[seen:]:
                    seen += 1
                    if fits(event):
                        return event
                self._more.clear()
                if seen == len(self.events):
                    await self._more.wait()


class AtOnce:
    """An executor whose daemon takes a turn after each thing it asks for."""

    def __init__(self, executor: RunnerExecutor | FakeExecutor) -> None:
        self.executor = executor

    def start(self, launch: Launch) -> None:
        self.executor.start(launch)
        self.executor.flush()

    def stop(self, action: StopAttempt) -> None:
        self.executor.stop(action)
        self.executor.flush()

    def pause(self, job: int) -> None:
        self.executor.pause(PauseAttempt(JobId(job), 1))
        self.executor.flush()

    def unpause(self, job: int) -> None:
        self.executor.unpause(ContinueAttempt(JobId(job), 1))
        self.executor.flush()

    def checkpoint(self, job: int) -> None:
        self.executor.checkpoint(CheckpointAttempt(JobId(job), 1, SIGUSR1, 5.0))
        self.executor.flush()

    def forget(self, attempts: Sequence[tuple[JobId, int]]) -> None:
        self.executor.forget(attempts)
        self.executor.flush()


class RealRig:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = open(directory / "lock", "w")  # noqa: SIM115
        self._lock.write("token\n")
        self._lock.flush()
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._open: list[AtOnce] = []

    async def meet(self, box: Box) -> AtOnce:
        real = RunnerExecutor(self._directory, "token", box)
        await real.open()
        executor = AtOnce(real)
        self._open.append(executor)
        return executor

    async def leave(self, executor: AtOnce) -> None:
        self._open.remove(executor)
        assert isinstance(executor.executor, RunnerExecutor)
        await executor.executor.close()

    async def close(self) -> None:
        box = Box()
        for executor in list(self._open):
            await self.leave(executor)
        executor = await self.meet(box)
        ready = await box.wait(lambda e: isinstance(e, RunnerReady))
        for known in ready.known:
            executor.stop(StopAttempt(known.job, known.attempt, 0.1))
            await box.wait(_end_of(known.job, known.attempt))
            executor.forget([(known.job, known.attempt)])
        assert isinstance(executor.executor, RunnerExecutor)
        await executor.executor.close(retire=True)
        self._lock.close()

    def spec(self, command: bytes) -> JobSpec:
        if command == b"refuse":
            return JobSpec(b"true", cwd=os.fsencode(self._directory / "missing"))
        return JobSpec(command, setup=SETUP, cwd=b"/tmp", env=b"PATH=/usr/bin:/bin")


class FakeRig:
    def __init__(self, directory: Path) -> None:
        self._runner = FakeRunner()

    async def meet(self, box: Box) -> AtOnce:
        executor = FakeExecutor(self._runner, box)
        executor.open()
        return AtOnce(executor)

    async def leave(self, executor: AtOnce) -> None:
        assert isinstance(executor.executor, FakeExecutor)
        executor.executor.close()

    async def close(self) -> None:
        pass

    def spec(self, command: bytes) -> JobSpec:
        return JobSpec(command)


Rig = RealRig | FakeRig


@pytest.fixture(params=[RealRig, FakeRig], ids=["runner", "fake"])
def rig_type(request: pytest.FixtureRequest) -> type[Rig]:
    return request.param  # type: ignore[no-any-return]


@asynccontextmanager
async def rig_in(rig_type: type[Rig], directory: Path) -> AsyncIterator[Rig]:
    rig = rig_type(directory)
    try:
        yield rig
    finally:
        await rig.close()


def launch(rig: Rig, job: int, command: bytes, attempt: int = 1) -> Launch:
    action = StartAttempt(JobId(job), attempt, (LeasePart("0", 1000),))
    return Launch(action, rig.spec(command), (Device("0", ("0",)),))


def _end_of(job: int, attempt: int = 1) -> Callable[[Event], bool]:
    return lambda e: (
        isinstance(e, AttemptEnded | AttemptNotStarted) and (e.job, e.attempt) == (job, attempt)
    )


def is_ready(event: Event) -> bool:
    return isinstance(event, RunnerReady)


def test_ends_are_exact(rig_type: type[Rig], tmp_path: Path) -> None:
    async def scenario() -> None:
        async with rig_in(rig_type, tmp_path) as rig:
            box = Box()
            executor = await rig.meet(box)
            for job, command in enumerate((b"exit 0", b"exit 3", b"signal 9"), 1):
                executor.start(launch(rig, job, command))
            codes = [await box.wait(_end_of(job)) for job in (1, 2, 3)]
            assert [e.exit_code for e in codes] == [0, 3, None]
            assert [e.signal for e in codes] == [None, None, 9]
            assert all(e.lost is None and not e.timed_out for e in codes)
            executor.forget([(JobId(j), 1) for j in (1, 2, 3)])

    asyncio.run(scenario())


def test_what_cannot_start_says_why(rig_type: type[Rig], tmp_path: Path) -> None:
    async def scenario() -> None:
        async with rig_in(rig_type, tmp_path) as rig:
            box = Box()
            executor = await rig.meet(box)
            executor.start(launch(rig, 1, b"refuse"))
            end = await box.wait(_end_of(1))
            assert isinstance(end, AttemptNotStarted)
            assert end.kind == "cwd"
            assert end.why
            executor.forget([(JobId(1), 1)])

    asyncio.run(scenario())


def test_a_start_that_failed_is_told_to_the_next_daemon_too(
    rig_type: type[Rig], tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with rig_in(rig_type, tmp_path) as rig:
            first = Box()
            executor = await rig.meet(first)
            executor.start(launch(rig, 1, b"refuse"))
            await first.wait(_end_of(1))
            await rig.leave(executor)

            second = Box()
            executor = await rig.meet(second)
            end = await second.wait(_end_of(1))
            assert isinstance(end, AttemptNotStarted)
            assert isinstance(second.events[0], RunnerReady)
            executor.forget([(JobId(1), 1)])

    asyncio.run(scenario())


def test_an_attempt_that_was_seen_is_never_started_again(
    rig_type: type[Rig], tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with rig_in(rig_type, tmp_path) as rig:
            box = Box()
            executor = await rig.meet(box)
            executor.start(launch(rig, 1, b"exit 4"))
            executor.start(launch(rig, 1, b"exit 5"))
            assert (await box.wait(_end_of(1))).exit_code == 4
            executor.start(launch(rig, 1, b"exit 6"))
            executor.start(launch(rig, 2, b"exit 0"))
            await box.wait(_end_of(2))
            ends = [e for e in box.events if _end_of(1)(e)]
            assert {e.exit_code for e in ends} == {4}
            starts = [e for e in box.events if isinstance(e, AttemptStarted) and e.job == 1]
            assert len({e.pid for e in starts}) == 1
            executor.forget([(JobId(1), 1), (JobId(2), 1)])

    asyncio.run(scenario())


def test_an_end_is_repeated_until_it_is_forgotten(rig_type: type[Rig], tmp_path: Path) -> None:
    async def scenario() -> None:
        async with rig_in(rig_type, tmp_path) as rig:
            first = Box()
            executor = await rig.meet(first)
            executor.start(launch(rig, 1, b"exit 7"))
            await first.wait(_end_of(1))
            await rig.leave(executor)

            second = Box()
            executor = await rig.meet(second)
            assert (await second.wait(_end_of(1))).exit_code == 7
            kinds = [type(e) for e in second.events]
            assert kinds.index(RunnerReady) < kinds.index(AttemptEnded)
            executor.forget([(JobId(1), 1)])
            await rig.leave(executor)

            third = Box()
            executor = await rig.meet(third)
            ready = await third.wait(is_ready)
            assert ready.known == ()
            executor.start(launch(rig, 2, b"exit 0"))
            await third.wait(_end_of(2))
            assert not [e for e in third.events if _end_of(1)(e)]
            executor.forget([(JobId(2), 1)])

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["cuda", "host"])
def test_an_end_for_want_of_memory_says_of_which(
    rig_type: type[Rig], tmp_path: Path, kind: str
) -> None:
    async def scenario() -> None:
        async with rig_in(rig_type, tmp_path) as rig:
            first = Box()
            executor = await rig.meet(first)
            executor.start(launch(rig, 1, b"oom " + kind.encode()))
            executor.start(launch(rig, 2, b"exit 1"))
            end = await first.wait(_end_of(1))
            assert (end.exit_code, end.oom) == (1, kind)
            assert (await first.wait(_end_of(2))).oom == ""
            await rig.leave(executor)

            second = Box()
            executor = await rig.meet(second)
            assert (await second.wait(_end_of(1))).oom == kind  # repeated, it says the same
            executor.forget([(JobId(1), 1), (JobId(2), 1)])

    asyncio.run(scenario())


def test_running_attempts_do_not_notice_a_new_daemon(rig_type: type[Rig], tmp_path: Path) -> None:
    async def scenario() -> None:
        async with rig_in(rig_type, tmp_path) as rig:
            first = Box()
            executor = await rig.meet(first)
            executor.start(launch(rig, 1, b"run"))
            started = await first.wait(lambda e: isinstance(e, AttemptStarted))
            await rig.leave(executor)

            second = Box()
            executor = await rig.meet(second)
            ready = await second.wait(is_ready)
            assert [(k.job, k.attempt, k.pid) for k in ready.known] == [(1, 1, started.pid)]
            executor.stop(StopAttempt(JobId(1), 1, 5.0))
            assert (await second.wait(_end_of(1))).signal == 15
            executor.forget([(JobId(1), 1)])

    asyncio.run(scenario())


def test_a_pause_is_kept_and_known_to_the_next_daemon(rig_type: type[Rig], tmp_path: Path) -> None:
    async def scenario() -> None:
        async with rig_in(rig_type, tmp_path) as rig:

            async def phases(box: Box) -> list[tuple[int, str, bool]]:
                known = (await box.wait(is_ready)).known
                return [(k.job, k.phase, k.older) for k in known]

            box = Box()
            executor = await rig.meet(box)
            executor.start(launch(rig, 1, b"run"))
            await box.wait(lambda e: isinstance(e, AttemptStarted))
            executor.pause(1)
            executor.pause(1)
            await rig.leave(executor)

            executor = await rig.meet(box := Box())
            assert await phases(box) == [(1, "paused", False)]
            executor.unpause(1)
            executor.unpause(1)
            await rig.leave(executor)

            executor = await rig.meet(box := Box())
            assert await phases(box) == [(1, "running", False)]
            executor.pause(1)
            executor.stop(StopAttempt(JobId(1), 1, 5.0))
            end = await box.wait(_end_of(1))
            assert (end.signal, end.stopped) == (15, True)
            for ask in (executor.pause, executor.unpause, executor.checkpoint):
                ask(1)  # it is over
                ask(9)  # it never was
            executor.start(launch(rig, 2, b"exit 0"))
            assert not (await box.wait(_end_of(2))).stopped
            executor.forget([(JobId(1), 1), (JobId(2), 1)])

    asyncio.run(scenario())


@pytest.mark.parametrize("paused", [False, True])
def test_an_end_after_a_checkpoint_says_so(
    rig_type: type[Rig], tmp_path: Path, paused: bool
) -> None:
    async def scenario() -> None:
        async with rig_in(rig_type, tmp_path) as rig:
            box = Box()
            executor = await rig.meet(box)
            executor.start(launch(rig, 1, b"run"))
            await box.wait(lambda e: isinstance(e, AttemptStarted))
            if paused:
                executor.pause(1)
            executor.checkpoint(1)
            end = await box.wait(_end_of(1))
            assert (end.signal, end.stopped) == (SIGUSR1, True)
            executor.forget([(JobId(1), 1)])

    asyncio.run(scenario())


def test_meeting_a_living_runner_again_repeats_what_it_has(tmp_path: Path) -> None:
    """As the daemon does once a full disk can be written again."""

    async def scenario() -> None:
        async with rig_in(RealRig, tmp_path) as rig:
            box = Box()
            executor = await rig.meet(box)
            assert isinstance(executor.executor, RunnerExecutor)
            executor.start(launch(rig, 1, b"exit 7"))
            await box.wait(_end_of(1))
            for _ in range(3):
                box.events.clear()
                executor.executor.meet_again()
                await box.wait(is_ready)
                assert (await box.wait(_end_of(1))).exit_code == 7
                assert not [e for e in box.events if isinstance(e, RunnerGone)]
            executor.start(launch(rig, 2, b"exit 0"))
            await box.wait(_end_of(2))
            executor.forget([(JobId(1), 1), (JobId(2), 1)])

    asyncio.run(scenario())


def test_an_attempt_that_was_forgotten_is_lost_and_not_awaited(tmp_path: Path) -> None:
    """A database that was put back asks for what the runner has had."""

    async def scenario() -> None:
        async with rig_in(RealRig, tmp_path) as rig:
            box = Box()
            executor = await rig.meet(box)
            executor.start(launch(rig, 1, b"exit 0"))
            await box.wait(_end_of(1))
            executor.forget([(JobId(1), 1)])
            box.events.clear()
            executor.start(launch(rig, 1, b"exit 0"))
            end = await box.wait(_end_of(1))
            assert "has had this attempt before" in end.lost

    asyncio.run(scenario())
