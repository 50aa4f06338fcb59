"""GPUs that belong to somebody else: used while their owner is away, and given back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.devices.nvml_stub import Stub
from tests.end_to_end.conftest import Box
from tests.end_to_end.gpus import gate, holding, phase, problem, story

# A job that saves its work when it is told to stop.
CAREFUL = "trap 'echo saved; exit 3' TERM; echo ready; sleep 600 & wait"


@pytest.fixture
def guest(box: Box, stub: Stub) -> None:
    """A daemon with a GPU of its own, 0, and somebody else's, 1."""
    config = box.home / "gpud.toml"
    config.write_text('[pool]\nguests = ["1"]\n')
    box.serve("--config", str(config), gpus="")


@contextmanager
def owner_of(stub: Stub, index: int) -> Iterator[int]:
    """Somebody's process on that GPU."""
    with subprocess.Popen(["sleep", "600"]) as process:
        stub.hold(process.pid, index, 500)
        try:
            yield process.pid
        finally:
            process.kill()


def on_guest(box: Box, stub: Stub, *options: str) -> int:
    """A job that computes on GPU 1."""
    [job] = box.submit(*options, holding(stub, 1, 600, CAREFUL))
    box.until("it computes", lambda: box.ctl("logs", str(job)).stdout == "ready\n")
    assert box.job(job)["lease"] == ["1"]
    return job


@pytest.mark.usefixtures("guest")
def test_a_guest_gpu_is_given_back_and_its_job_held(box: Box, stub: Stub) -> None:
    hold = gate(box)
    [mine] = box.submit(f"read x < {hold}")
    job = on_guest(box, stub)
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
    job = on_guest(box, stub, "--retries", "1", "--backoff", "0s")
    with owner_of(stub, 1):
        box.until("it waits again", lambda: phase(box, job) == "queued")
        hold.write_text("go\n")
        box.until("it runs", lambda: phase(box, job) == "running")
    assert box.job(job)["lease"] == ["0"]
    first, second = box.show(job)["attempts"]
    assert (first["outcome"], first["lease"], second["lease"]) == ("killed", ["1"], ["0"])
    assert first["why"] == "the owner of its guest GPU came back"
    assert box.job(job)["retries_left"] == 1
    box.ctl("wait", str(mine))
