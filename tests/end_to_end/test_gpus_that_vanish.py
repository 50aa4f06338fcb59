"""GPUs that disappear, move up, or were never there: nothing runs on them, or beside them."""

from __future__ import annotations

import os

import pytest

from gpud.core.sight import NOT_LISTED
from tests.devices.nvml_stub import Stub, uuid
from tests.end_to_end.conftest import Box
from tests.end_to_end.gpus import gate, problem


def seen(box: Box) -> None:
    """Both GPUs have been looked at."""
    box.until("they are looked at", lambda: not problem(box, 0) and not problem(box, 1))


def test_a_named_gpu_that_falls_off_the_bus_takes_no_work(box: Box, stub: Stub) -> None:
    daemon = box.serve(gpus="0 1")
    seen(box)
    stub.put({"count": 1})
    box.until("it is missed", lambda: problem(box, 1))
    jobs = [box.submit("echo $CUDA_VISIBLE_DEVICES")[0] for _ in range(3)]
    box.ctl("wait", *map(str, jobs))
    assert {box.ctl("logs", str(job)).stdout for job in jobs} == {"0\n"}
    box.stop(daemon)
    box.serve(gpus="0 1")  # the driver knows one GPU now
    box.until("it is told", lambda: problem(box, 1))
    assert "knows no GPU 1" in problem(box, 1) or NOT_LISTED in problem(box, 1)
    [job] = box.submit("--gpus", "2", "true")
    assert "GPU 1 takes no work" in box.ctl("why", str(job)).stdout


def test_a_gpu_that_has_moved_up_is_not_leased_twice(box: Box, stub: Stub) -> None:
    box.serve(gpus="0 1")
    seen(box)
    first, second = gate(box, "first"), gate(box, "second")
    [goes] = box.submit(f"read x < {first}")
    [stays] = box.submit(f"read x < {second}")
    box.until("both run", lambda: box.job(stays)["phase"] == "running")
    assert box.job(stays)["lease"] == ["1"]
    stub.put({"count": 1, "gpu0.uuid": uuid(1), "gpu0.name": "Stub 1"})
    first.write_text("\n")
    box.ctl("wait", str(goes))
    [waits] = box.submit("echo $GPUD_GPU_UUIDS")
    box.until("it is missed", lambda: problem(box, 1))
    assert box.job(waits)["state"] == "queued"
    second.write_text("\n")
    box.ctl("wait", str(stays), str(waits))
    assert box.ctl("logs", str(waits)).stdout.strip() == uuid(1)


def test_when_all_gpus_are_gone_jobs_wait(box: Box, stub: Stub) -> None:
    """And are not run on the CPU, which would use them up."""
    box.serve(gpus="")
    seen(box)
    stub.put({"count": 0})
    box.until("they are missed", lambda: problem(box, 0) and problem(box, 1))
    [job] = box.submit("echo [$CUDA_VISIBLE_DEVICES]")
    assert box.job(job)["state"] == "queued"
    assert "takes no work" in box.ctl("why", str(job)).stdout
    assert "GPU 0" in box.ctl("status").stdout
    stub.put({"count": 2})
    box.ctl("gpus", "heal")
    box.ctl("wait", str(job))
    assert box.ctl("logs", str(job)).stdout in ("[0]\n", "[1]\n")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--gpus", "0", "--vram", "100G"], "needs 100 GiB of GPU memory"),
        (["--gpus", "5"], "the NVIDIA driver knows no GPU 5"),
    ],
)
def test_gpud_run_ends_when_nothing_can_ever_start(
    box: Box, stub: Stub, options: list[str], why: str
) -> None:
    done = box.gpud("run", *options, input="echo hi\n")
    assert done.returncode == 1
    assert why in done.stderr
    assert done.stdout == ""
    assert "1 not run" in done.stderr


def test_gpud_run_says_why_nothing_runs(box: Box, stub: Stub) -> None:
    stub.gpu(0, compute=f"{os.getpid()}:500")
    run = box.start_run("--gpus", "0")
    assert run.stdin is not None
    assert run.stderr is not None
    run.stdin.write(b"echo hi\n")
    run.stdin.close()
    run.stdin = None
    line = run.stderr.readline()
    while b"takes no work: used by pid" not in line:
        assert line, "it has ended without a word"
        line = run.stderr.readline()
    stub.gpu(0, compute=None)
    assert run.wait(30) == 0
