"""Helper processes that do not start, do not die, or are stopped at any moment: none is left."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from gpud.devices import helper as helper_module
from gpud.devices.driver import NO_ANSWER
from gpud.devices.helper import Helper
from gpud.devices.patience import Trouble
from tests.contracts.watchers import HASTY
from tests.devices.driving import driving, look, problems
from tests.devices.nvml_stub import Stub

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("here")]


async def test_one_that_cannot_die_holds_nobody_up(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver may hold a process in the kernel: here the kill does nothing."""
    async with driving() as (driver, _):
        await driver.find()
        helper = driver._helper
        assert helper is not None
        assert helper._process is not None
        stub.order("hang", "*", gpu=0)
        stop(helper.pid)  # nor does it see that its input closes
        monkeypatch.setattr(helper._process, "kill", lambda: None)
        began = time.monotonic()
        await driver.close()
        assert time.monotonic() - began < 1
        os.kill(helper.pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitpid, helper.pid, 0)


async def test_one_that_dies_late_is_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    async with driving() as (driver, _):
        await driver.find()
        helper = driver._helper
        assert helper is not None
        assert helper._process is not None
        stop(helper.pid)
        monkeypatch.setattr(helper._process, "kill", lambda: None)
        with pytest.raises(Trouble, match=NO_ANSWER):
            await look(driver)
        assert not helper.is_dead
        os.kill(helper.pid, signal.SIGKILL)
        assert await helper.dead(10)
        assert is_reaped(helper.pid)


def stop(pid: int) -> None:
    """It does nothing more from when this returns."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)


def is_reaped(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def test_a_daemon_that_was_frozen_blames_no_gpu() -> None:
    """With the helper, as by a paused container: then most of the limit is still there."""
    async with driving() as (driver, warnings):
        await driver.find()
        assert driver._helper is not None
        helper, loop = driver._helper.pid, asyncio.get_running_loop()
        loop.call_soon(stop, helper)
        loop.call_soon(time.sleep, 2 * HASTY.look_s)
        loop.call_soon(os.kill, helper, signal.SIGCONT)
        assert problems(await look(driver)) == ["", ""]
        assert warnings == []


async def test_a_helper_that_cannot_be_started_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper_module, "COMMAND", ("/no/such/program",))
    async with driving() as (driver, _):
        why = "cannot start the GPU helper: no such file or directory"
        with pytest.raises(Trouble, match=why):
            await driver.find()


async def test_one_that_talks_nonsense_is_put_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper_module, "COMMAND", ("/bin/sh", "-c", "echo hello; sleep 600"))
    helper = await Helper.start(lambda message: None)
    assert await helper.receive() is None
    assert await helper.dead(10)


async def test_stopping_at_any_moment_leaves_nothing_behind() -> None:
    before = left_behind()
    for turns in [*range(12), 30, 100, 300]:
        async with driving() as (driver, _):
            finding = asyncio.create_task(driver.find())
            for _ in range(turns):
                await asyncio.sleep(0)
            finding.cancel()
            await asyncio.wait({finding})
        assert left_behind() == before


def left_behind() -> tuple[str, int]:
    """Child processes, and how many descriptors are open."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return children, len(os.listdir("/proc/self/fd"))
