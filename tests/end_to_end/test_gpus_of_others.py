"""GPUs that belong to somebody else: used while their owner is away, and given back."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.devices.nvml_stub import Stub
from tests.end_to_end.conftest import Box
from tests.end_to_end.gpus import gate, holding, phase, problem, story

# A job that saves its work when it is told to stop.
CAREFUL = "trap 'echo saved; exit 3' TERM; echo ready; sleep 600 & wait"
DEAF = "trap '' TERM; echo ready; sleep 600"


@pytest.fixture
def guest(box: Box, stub: Stub) -> None:
    """A daemon with a GPU of its own, 0, and somebody else's, 1."""
    config = box.home / "gpud.toml"
    config.write_text('[pool]\nguests = ["1"]\n')
    box.serve("--config", str(config), gpus="")


@contextmanager
def owner_of(stub: Stub, index: int, program: str = "sleep") -> Iterator[int]:
    """Somebody's process on that GPU."""
    with subprocess.Popen([program, "600"]) as process:
        stub.hold(process.pid, index, 500)
        try:
            yield process.pid
        finally:
            process.kill()


def on_guest(box: Box, stub: Stub, then: str, *options: str) -> int:
    """A job that computes on GPU 1."""
    [job] = box.submit(*options, holding(stub, 1, 600, then))
    box.until("it computes", lambda: box.ctl("logs", str(job)).stdout == "ready\n")
    assert box.job(job)["lease"] == ["1"]
    return job


@pytest.mark.usefixtures("guest")
def test_a_guest_gpu_is_given_back_and_its_job_held(box: Box, stub: Stub) -> None:
    hold = gate(box)
    [mine] = box.submit(f"read x < {hold}")
    job = on_guest(box, stub, CAREFUL)
    with owner_of(stub, 1) as pid:
        box.until("it is held", lambda: box.job(job)["state"] == "held")
        [stopped] = story(box, job, "stopped-by-gpud")
        assert stopped["reason"] == "guest"
        assert stopped["owner"].startswith(f"pid {pid} (sleep of ")
        assert box.ctl("logs", str(job)).stdout == "ready\nsaved\n"
        why = f"held since the owner of its guest GPU came back: gpuctl release {job}"
        assert why in box.ctl("why", str(job)).stdout
        assert f"used by pid {pid} (sleep of " in problem(box, 1)
        box.ctl("release", str(job))
        assert phase(box, job) == "queued"
        assert phase(box, mine) == "running"
        assert not story(box, job, "wrong-gpu")
    box.until("it runs again", lambda: phase(box, job) == "running")
    assert box.job(job)["lease"] == ["1"]
    assert [attempt["outcome"] for attempt in box.show(job)["attempts"]] == ["killed", ""]
    box.ctl("cancel", str(job))
    hold.write_text("go\n")
    box.ctl("wait", str(mine))


@pytest.mark.usefixtures("guest")
def test_a_job_with_retries_goes_on_elsewhere_and_keeps_them(box: Box, stub: Stub) -> None:
    hold = gate(box)
    [mine] = box.submit(f"read x < {hold}")
    job = on_guest(box, stub, DEAF, "--grace", "0.2", "--retries", "1")
    with owner_of(stub, 1):
        box.until("it waits again", lambda: phase(box, job) == "queued")
        hold.write_text("go\n")
        box.until("it runs", lambda: phase(box, job) == "running")
    assert box.job(job)["lease"] == ["0"]
    first, second = box.show(job)["attempts"]
    assert (first["outcome"], first["lease"], second["lease"]) == ("killed", ["1"], ["0"])
    assert first["why"] == "the owner of its guest GPU came back"
    assert box.job(job)["retries_left"] == 1
    box.ctl("cancel", str(job))
    box.ctl("wait", str(job), str(mine), check=False)


# -- gpud run ------------------------------------------------------------------------------------


def run(box: Box, *options: str) -> subprocess.Popen[bytes]:
    """One job on GPU 0."""
    process = box.start_run("--gpus", "0", *options)
    assert process.stdin is not None
    process.stdin.write(b"echo it ran\n")
    process.stdin.close()
    process.stdin = None
    return process


def said(process: subprocess.Popen[bytes], words: str) -> str:
    """The line with these words on its standard error."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line.decode():
            return line.decode()
    raise AssertionError(f"it has ended without a word of {words}")


@pytest.mark.parametrize("names", ["sleep", "firefox, sleep", "all"])
def test_gpud_run_starts_beside_programs_that_it_is_told_to_ignore(
    box: Box, stub: Stub, names: str
) -> None:
    with owner_of(stub, 0):
        process = run(box, "--ignore", names)
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, b"it ran\n")


def test_gpud_run_says_how_to_start_beside_others(box: Box, stub: Stub) -> None:
    with owner_of(stub, 0) as pid:
        process = run(box, "--slots-per-gpu", "2", "--ignore", "firefox")
        assert f"used by pid {pid} (sleep of " in said(process, "takes no work")
        hint = said(process, "--ignore")
        assert hint == "gpud: to start all the same: gpud run --ignore sleep\n"
        process.terminate()
        _, _, to_go_on = said(process, "to go on: ").partition("to go on: gpud ")
        assert process.wait(30) == 1
        assert "--slots-per-gpu 2 --ignore firefox" in to_go_on
        done = box.gpud(*shlex.split(to_go_on), "--ignore", "sleep")
    assert (done.returncode, done.stdout) == (0, "it ran\n")


def test_what_a_stranger_calls_his_program_does_not_reach_the_terminal(
    box: Box, stub: Stub
) -> None:
    program = box.home / "sl\x1b[31mp"
    shutil.copy("/bin/sleep", program)
    with owner_of(stub, 0, str(program)):
        process = run(box)
        assert "(sl?[31mp of " in said(process, "takes no work")
        assert "'sl?[31mp'" in said(process, "--ignore")


def test_names_to_ignore_are_names(box: Box, stub: Stub) -> None:
    done = box.gpud("run", "--gpus", "0", "--ignore", "python,", input="true\n")
    assert done.returncode == 2
    assert '"python," does not name a program beside each comma' in done.stderr
