"""An attempt's end, its log and the kernel's count: who may say that memory ran out, and when."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpud.core.events import AttemptEnded
from gpud.core.model import JobId
from gpud.executors import oom
from gpud.executors.oom import KernelKills, OutOfMemory, recognise
from gpud.executors.wire import EndedMessage, Exit, StartedMessage
from gpud.paths import log_path
from tests.contracts.test_executors import Box, RealRig, launch, rig_in

CUDA_LOG = b"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
HOST_LOG = b"MemoryError\n"
WORKER_LOG = b"RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed. \n"


class Kernel:
    """/proc/vmstat."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "vmstat"
        self.kills = 3  # what it has killed before us
        self.kill(0)

    def kill(self, more: int = 1) -> None:
        self.kills += more
        self.path.write_text(f"nr_free_pages 1\noom_kill {self.kills}\nnuma_hit 9\n")


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


class Daemon:
    def __init__(self, state: Path, kernel: Kernel) -> None:
        self.state = state
        self.oom = OutOfMemory(str(state), KernelKills(kernel.path))

    def log(self, job: int, text: bytes) -> None:
        path = Path(log_path(self.state, job, 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)

    def end(
        self,
        job: int = 1,
        *,
        code: int | None = None,
        signal: int | None = None,
        lost: str | None = None,
        stopped: bool = False,
        timed_out: bool = False,
        started_at_ms: int | None = 1,
    ) -> str:
        end = Exit(code, signal, lost)
        return self.oom.of(
            EndedMessage(job, 1, 99, end, started_at_ms, timed_out=timed_out, stopped=stopped)
        )


@pytest.fixture
def daemon(tmp_path: Path, kernel: Kernel) -> Daemon:
    return Daemon(tmp_path, kernel)


# ---- the pure part


@pytest.mark.parametrize(
    ("exit_code", "signal", "tail", "kernel_says", "expected"),
    [
        (1, None, CUDA_LOG, False, "cuda"),
        (None, 6, CUDA_LOG, False, "cuda"),
        (None, 11, HOST_LOG, False, "host"),
        (0, None, CUDA_LOG, True, ""),  # caught, and went on to succeed
        (1, None, b"KeyError: 'x'\n", True, ""),
        (None, 9, b"", True, "host"),
        (137, None, b"", True, "host"),
        (None, 9, b"", False, ""),  # somebody's kill -9
        (None, 9, CUDA_LOG, False, "cuda"),
        (None, 9, CUDA_LOG, True, "host"),  # the kernel knows best
        (1, None, WORKER_LOG, True, "host"),
        (1, None, WORKER_LOG, False, ""),
        (None, 15, CUDA_LOG, False, ""),  # somebody ended it
        (None, 2, HOST_LOG, False, ""),
    ],
)
def test_what_an_end_is_taken_for(
    exit_code: int | None, signal: int | None, tail: bytes, kernel_says: bool, expected: str
) -> None:
    assert recognise(exit_code, signal, tail, lambda: kernel_says) == expected


def test_the_kernel_is_asked_only_where_a_process_was_killed() -> None:
    def asked() -> bool:
        raise AssertionError

    assert recognise(1, None, CUDA_LOG, asked) == "cuda"
    assert recognise(1, None, b"", asked) == ""
    assert recognise(0, None, b"", asked) == ""


# ---- with the log


def test_the_log_of_the_attempt_is_read(daemon: Daemon) -> None:
    daemon.log(1, CUDA_LOG)
    daemon.log(2, b"")
    daemon.log(3, HOST_LOG)
    assert daemon.end(1, code=1) == "cuda"
    assert daemon.end(2, code=1) == ""
    assert daemon.end(3, signal=6) == "host"
    assert daemon.end(4, code=1) == ""  # there is no log


def test_what_we_ended_ourselves_or_do_not_know_is_not_judged(daemon: Daemon) -> None:
    daemon.log(1, CUDA_LOG)
    assert daemon.end(code=1, stopped=True) == ""
    assert daemon.end(signal=9, timed_out=True) == ""
    assert daemon.end(lost="the runner died while it ran") == ""
    assert daemon.oom.of(StartedMessage(1, 1, 7, 1)) == ""


def test_a_success_costs_no_look_at_anything(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("something was read")

    monkeypatch.setattr(oom, "read_tail", never)
    monkeypatch.setattr(KernelKills, "_read", never)
    with monkeypatch.context() as patched:
        for name in ("open", "stat", "fstat", "read", "pread"):
            patched.setattr(os, name, never)
        said = daemon.end(code=0), daemon.end(code=1, stopped=True)
    assert said == ("", "")


# ---- with the kernel


def test_whom_the_kernel_killed_for_memory(daemon: Daemon, kernel: Kernel) -> None:
    assert daemon.end(1, signal=9) == ""  # what it killed before we came does not count
    kernel.kill()
    assert daemon.end(2, code=137) == "host"
    assert daemon.end(3, signal=9) == ""  # this one was killed by hand


def test_two_that_it_killed_at_the_same_time(daemon: Daemon, kernel: Kernel) -> None:
    kernel.kill(2)
    assert [daemon.end(job, signal=9) for job in (1, 2, 3)] == ["host", "host", ""]


def test_what_started_after_the_kill_was_not_killed_by_it(daemon: Daemon, kernel: Kernel) -> None:
    kernel.kill(2)  # a browser, too
    assert daemon.end(1, signal=9) == "host"
    later = time.time_ns() // 1_000_000 + 60_000
    assert daemon.end(2, signal=9, started_at_ms=later) == ""
    assert daemon.end(3, signal=9, started_at_ms=None) == "host"


def test_a_repeated_end_says_the_same(daemon: Daemon, kernel: Kernel) -> None:
    kernel.kill()
    assert [daemon.end(1, signal=9) for _ in range(3)] == ["host"] * 3
    assert daemon.end(2, signal=9) == ""


@pytest.mark.parametrize("text", [None, "", "nr_free_pages 1\n", "a 1\noom_kill many\n"])
def test_a_kernel_that_does_not_count(daemon: Daemon, kernel: Kernel, text: str | None) -> None:
    if text is None:
        kernel.path.unlink()
    else:
        kernel.path.write_text(text)
    assert daemon.end(1, signal=9) == ""
    daemon.log(2, HOST_LOG)
    assert daemon.end(2, signal=9) == "host"


def test_a_count_that_cannot_be_read_for_a_while_blames_nobody(
    daemon: Daemon, kernel: Kernel
) -> None:
    kernel.path.write_text("")
    assert daemon.end(1, signal=9) == ""
    kernel.kill(0)
    assert daemon.end(2, signal=9) == ""


# ---- for real


def test_through_a_runner(tmp_path: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that caught it and succeeded, one that did not; killed by a person, by the kernel."""
    monkeypatch.setattr(oom, "VMSTAT", kernel.path)
    said = f"echo '{CUDA_LOG.decode().strip()}'"

    async def scenario() -> None:
        async with rig_in(RealRig, tmp_path) as rig:
            box = Box()
            executor = await rig.meet(box)

            async def end_of(job: int, command: str) -> tuple[int | None, int | None, str]:
                executor.start(launch(rig, job, command.encode()))
                end = await box.wait(lambda e: isinstance(e, AttemptEnded) and e.job == job)
                executor.forget([(JobId(job), 1)])
                return end.exit_code, end.signal, end.oom

            assert await end_of(1, f"{said}; exit 0") == (0, None, "")
            assert await end_of(2, f"{said}; exit 3") == (3, None, "cuda")
            for job, killed, seen in [(3, "signal 9", (None, 9)), (5, "exit 137", (137, None))]:
                assert await end_of(job, killed) == (*seen, "")
                kernel.kill()
                assert await end_of(job + 1, killed) == (*seen, "host")

    asyncio.run(scenario())


def test_our_start_does_not_pay_for_it() -> None:
    code = "import sys, gpud.executors.runner; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert "gpud.executors.oom" in done.stdout.split()
    assert "gpud.executors.oom_words" not in done.stdout.split()
