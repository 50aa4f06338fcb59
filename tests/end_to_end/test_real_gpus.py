"""A daemon on real GPUs, where there are some: jobs with CUDA contexts, and others beside them."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from gpud.ports import GpusFound
from tests.devices.cuda import CUDA_PROGRAM, HELD_MIB, cuda_job, real_gpus
from tests.end_to_end.conftest import Box
from tests.end_to_end.gpus import gate, gpus, phase, problem, story
from tests.end_to_end.test_gpus import WRONG_GPU_S

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def real() -> GpusFound:
    return real_gpus()


@pytest.fixture
def served(box: Box, real: GpusFound) -> Box:
    """A daemon with all of them."""
    if any(gpu.mig for gpu in real.gpus):
        pytest.skip("needs GPUs that are not divided: no job can have two instances")
    if "LD_LIBRARY_PATH" in os.environ:  # of the driver, in some containers
        box.env["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    (box.home / "program.py").write_text(CUDA_PROGRAM)
    box.serve(gpus="")
    for index, gpu in enumerate(gpus(box)):
        if gpu["problem"].startswith("used by"):
            pytest.skip(f"needs GPUs that nobody uses: GPU {index} is {gpu['problem']}")
    return box


def computing(hold: Path) -> str:
    """It has memory of its GPU until something is written to `hold`."""
    return f"{sys.executable} program.py <> {hold}"


def submit_for_all(box: Box, real: GpusFound) -> list[int]:
    """A job that needs every GPU."""
    several = ["--gpus", str(len(real.gpus))] if len(real.gpus) > 1 else []
    return box.submit(*several, "true")


def until_it_computes(box: Box, job: int) -> float:
    """When that was, at the latest."""
    box.until("it has a context", lambda: "ready" in box.ctl("logs", str(job)).stdout)
    return time.time()


def test_a_job_computes_on_the_gpu_that_it_was_given(served: Box, real: GpusFound) -> None:
    box, hold = served, gate(served)
    [job] = box.submit(computing(hold))
    until_it_computes(box, job)
    box.until("it is seen", lambda: (gpus(box)[0]["gpus"][0]["used_mib"] or 0) >= HELD_MIB)
    [behind] = submit_for_all(box, real)
    assert phase(box, behind) == "queued"
    computes_s = time.time()
    box.until("it was watched", lambda: time.time() - computes_s > WRONG_GPU_S)
    assert not story(box, job, "wrong-gpu")
    hold.write_text("go\n")
    box.ctl("wait", str(job), str(behind))  # its memory was given back
    used = box.job(job)
    assert used["peak_vram_mib"] >= HELD_MIB
    assert used["gpu_util"] is not None
    if gpus(box)[0]["gpus"][0]["power_w"] is not None:
        assert used["energy_j"] > 0


def test_what_another_uses_is_left_alone(served: Box, real: GpusFound) -> None:
    if real.blind:
        pytest.skip(f"needs to know whose a process is: {real.blind}")
    box = served
    with cuda_job(real.gpus[0].uuid):
        box.until("it is seen", lambda: problem(box, 0).startswith("used by pid "))
        [job] = submit_for_all(box, real)
        box.until("it waits", lambda: "used by pid" in box.ctl("why", str(job)).stdout)
    box.ctl("wait", str(job))


def test_a_job_that_goes_elsewhere_is_told_in_time(served: Box, real: GpusFound) -> None:
    if real.blind:
        pytest.skip(f"needs to know whose a process is: {real.blind}")
    if len(real.gpus) < 2:
        pytest.skip("needs two GPUs")
    box, hold = served, gate(served)
    [job] = box.submit(f"CUDA_VISIBLE_DEVICES={real.gpus[1].uuid} {computing(hold)}")
    computes_s = until_it_computes(box, job)
    box.until("it is told", lambda: story(box, job, "wrong-gpu"))
    assert time.time() - computes_s <= WRONG_GPU_S
    hold.write_text("go\n")
    box.ctl("wait", str(job))
