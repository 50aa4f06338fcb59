"""A daemon that finds an older runner: it finishes what it has, new attempts go to ours."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path

import gpud
from gpud.core.actions import StartAttempt, StopAttempt
from gpud.core.events import AttemptEnded, RunnerReady
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
    """The runner of an earlier release: ours, with another version."""
    source = Path(gpud.__file__).parent / "runner"
    target = directory / "old" / "gpud" / "runner"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    (target.parent / "__init__.py").touch()
    init = target / "__init__.py"
    text = init.read_text()
    assert f"VERSION = {VERSION}" in text
    init.write_text(text.replace(f"VERSION = {VERSION}", "VERSION = 0"))
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


def test_it_finishes_what_it_has(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    ran = tmp_path / "ran"
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    async def scenario() -> None:
        started = asyncio.Event()

        def listen(_: RunnerLink, messages: list[AnyMessage]) -> None:
            if any(isinstance(m, StartedMessage) for m in messages):
                started.set()

        link = await connect(state, 0, "token", listen, lambda _: None)  # the daemon of its time
        link.send(
            {"op": "start", "job": 1, "attempt": 1, "cwd": "/tmp", "env": ["PATH=/usr/bin:/bin"],
             "argv": ["/bin/sh", "-c", f"echo one >> {ran}; read x < {gate}; exit 5"],
             "log": str(tmp_path / "log")}
        )  # fmt: skip
        link.flush()
        async with asyncio.timeout(20):
            await started.wait()
        link.close()

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

    with open(state / "lock", "w") as lock:
        lock.write("token\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start_older(tmp_path, state)
        try:
            asyncio.run(scenario())
        finally:
            process.terminate()
            process.wait(20)
