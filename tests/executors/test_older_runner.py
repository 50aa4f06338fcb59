"""A daemon that finds an older runner: it finishes what it has, new attempts go to ours."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gpud
from gpud.core.actions import (
    CheckpointAttempt,
    ContinueAttempt,
    PauseAttempt,
    StartAttempt,
    StopAttempt,
)
from gpud.core.events import AttemptEnded, RunnerGone, RunnerReady
from gpud.core.model import Device, JobId, JobSpec, LeasePart
from gpud.executors.launch import live_versions
from gpud.executors.link import RunnerLink, connect
from gpud.executors.runner import RunnerExecutor
from gpud.executors.wire import AnyMessage, StartedMessage
from gpud.ports import Launch
from gpud.runner import VERSION
from tests.contracts.test_executors import Box

LEASE = (LeasePart("0", 1000),)


def older_package(directory: Path) -> Path:
    """The runner of an earlier release: ours, with another version and less that it knows."""
    source = Path(gpud.__file__).parent / "runner"
    target = directory / "old" / "gpud" / "runner"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    (target.parent / "__init__.py").touch()
    init = target / "__init__.py"
    text = init.read_text()
    assert f"VERSION = {VERSION}" in text
    init.write_text(text.replace(f"VERSION = {VERSION}", "VERSION = 0"))
    orders = target / "orders.py"
    new = ' | "pause" | "continue" | "checkpoint"'
    assert new in orders.read_text()
    orders.write_text(orders.read_text().replace(new, ""))
    return target


def start_older(directory: Path, state: Path) -> subprocess.Popen[bytes]:
    ready, ready_in = os.pipe()
    command = [sys.executable, "-I", "-S", str(older_package(directory)), str(state)]
    process = subprocess.Popen([*command, "--ready-fd", str(ready_in)], pass_fds=[ready_in])
    os.close(ready_in)
    assert select.select([ready], [], [], 20)[0]
    assert os.read(ready, 16)
    os.close(ready)
    return process


def spec(command: bytes) -> JobSpec:
    return JobSpec(command, cwd=b"/tmp", env=b"PATH=/usr/bin:/bin")


def launch(job: int, command: bytes) -> Launch:
    return Launch(StartAttempt(JobId(job), 1, LEASE), spec(command), (Device("0", ("0",)),))


async def start_at_older(state: Path, command: str) -> None:
    """As the daemon of its time did."""
    started = asyncio.Event()

    def listen(_: RunnerLink, messages: list[AnyMessage]) -> None:
        if any(isinstance(m, StartedMessage) for m in messages):
            started.set()

    link = await connect(state, 0, "token", listen, lambda _: None)
    link.send(
        {"op": "start", "job": 1, "attempt": 1, "cwd": "/tmp", "env": ["PATH=/usr/bin:/bin"],
         "argv": ["/bin/sh", "-c", command], "log": str(state / "log")}
    )  # fmt: skip
    link.flush()
    async with asyncio.timeout(20):
        await started.wait()
    link.close()


@contextmanager
def older_in(directory: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A state directory with a runner of an earlier release."""
    state = directory / "state"
    state.mkdir()
    with open(state / "lock", "w") as lock:
        lock.write("token\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start_older(directory, state)
        try:
            yield state, process
        finally:
            process.terminate()
            process.wait(20)


def test_what_it_does_not_know_it_is_not_asked(tmp_path: Path) -> None:
    """It would end the connection. A checkpoint becomes a stop."""

    async def scenario(state: Path) -> None:
        await start_at_older(state, "trap 'exit 7' TERM; while :; do sleep 0.01; done")
        box = Box()
        executor = RunnerExecutor(state, "token", box)
        await executor.open()
        ready = await box.wait(lambda e: isinstance(e, RunnerReady))
        assert [(k.job, k.phase, k.older) for k in ready.known] == [(1, "running", True)]
        executor.pause(PauseAttempt(JobId(1), 1))
        executor.unpause(ContinueAttempt(JobId(1), 1))
        executor.checkpoint(CheckpointAttempt(JobId(1), 1, 10, 20.0))
        executor.flush()
        end = await box.wait(lambda e: isinstance(e, AttemptEnded))
        assert not [e for e in box.events if isinstance(e, RunnerGone)]
        assert (end.exit_code, end.stopped) == (7, True)
        executor.forget([(JobId(1), 1)])
        await executor.close(retire=True)

    with older_in(tmp_path) as (state, _):
        asyncio.run(scenario(state))


def test_it_finishes_what_it_has(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    async def scenario(state: Path, process: subprocess.Popen[bytes]) -> None:
        await start_at_older(state, f"echo one >> {ran}; read x < {gate}; exit 5")
        box = Box()
        executor = RunnerExecutor(state, "token", box)
        await executor.open()
        ready = await box.wait(lambda e: isinstance(e, RunnerReady))
        assert live_versions(state) == [VERSION, 0]
        assert [(k.job, k.phase) for k in ready.known] == [(1, "running")]
        executor.start(launch(1, f"echo twice >> {ran}".encode()))  # as reconcile asks again
        executor.start(launch(2, b"exit 0"))
        executor.flush()
        await box.wait(lambda e: isinstance(e, AttemptEnded) and e.job == 2)
        gate.write_text("go\n")
        end = await box.wait(lambda e: isinstance(e, AttemptEnded) and e.job == 1)
        assert end.exit_code == 5
        assert ran.read_text() == "one\n"
        executor.forget([(JobId(1), 1), (JobId(2), 1)])
        executor.stop(StopAttempt(JobId(9), 1, 1.0))
        executor.flush()
        assert await asyncio.to_thread(process.wait, 20) == 0  # it had nothing left
        assert live_versions(state) == [VERSION]
        executor.start(launch(3, b"exit 0"))
        executor.flush()
        await box.wait(lambda e: isinstance(e, AttemptEnded) and e.job == 3)
        executor.forget([(JobId(3), 1)])
        await executor.close(retire=True)

    with older_in(tmp_path) as (state, process):
        asyncio.run(scenario(state, process))
