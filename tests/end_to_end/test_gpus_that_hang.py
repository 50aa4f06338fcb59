"""A driver that blocks while jobs run: nobody else notices."""

from __future__ import annotations

from tests.devices.nvml_stub import Stub
from tests.end_to_end.conftest import Box
from tests.end_to_end.gpus import gate, gpus, holding, phase, problem


def test_a_job_runs_on_and_ends_while_the_driver_hangs(box: Box, stub: Stub) -> None:
    box.serve(gpus="")
    hold = gate(box)
    line = f"echo before; read x < {hold}; echo after; exit 7"
    [job] = box.submit(holding(stub, 0, 600, line))
    box.until("it computes", lambda: box.job(job).get("peak_vram_mib") == 600)
    stub.order("hang", "nvmlDeviceGetCount_v2")
    [cpu] = box.submit("--gpus", "0", "true")
    box.ctl("wait", str(cpu))  # at once
    told = "the NVIDIA driver does not answer"
    box.until("it is told", lambda: problem(box, 1) == told)
    [waits] = box.submit("echo $CUDA_VISIBLE_DEVICES")
    assert told in box.ctl("why", str(waits)).stdout
    [cpu] = box.submit("--gpus", "0", "true")
    box.ctl("wait", str(cpu))
    assert (phase(box, job), phase(box, waits)) == ("running", "queued")
    hold.write_text("go\n")
    assert box.ctl("wait", str(job), check=False).returncode == 7
    [attempt] = box.show(job)["attempts"]
    assert (attempt["outcome"], attempt["exit_code"]) == ("failed", 7)
    assert box.ctl("logs", str(job)).stdout == "before\nafter\n"
    assert phase(box, waits) == "queued"
    stub.order("hang", "nvmlDeviceGetCount_v2", code=None)
    box.ctl("wait", str(waits))
    assert box.ctl("logs", str(waits)).stdout == "0\n"


def test_a_job_ends_well_on_the_gpu_at_which_the_driver_hangs(box: Box, stub: Stub) -> None:
    box.serve(gpus="")
    hold = gate(box)
    [job] = box.submit(holding(stub, 0, 600, f"echo before; read x < {hold}; echo after"))
    box.until("it computes", lambda: box.job(job).get("peak_vram_mib") == 600)
    stub.order("hang", "nvmlDeviceGetUtilizationRates", gpu=0)
    box.until("it is told", lambda: "did not answer" in problem(box, 0))
    [other] = box.submit("echo $CUDA_VISIBLE_DEVICES")
    box.ctl("wait", str(other))
    assert box.ctl("logs", str(other)).stdout == "1\n"
    assert phase(box, job) == "running"
    hold.write_text("go\n")
    box.ctl("wait", str(job))
    [attempt] = box.show(job)["attempts"]
    assert (attempt["outcome"], attempt["exit_code"]) == ("succeeded", 0)
    assert box.ctl("logs", str(job)).stdout == "before\nafter\n"


def test_gpus_that_are_found_late_are_told_to_other_instances(box: Box, stub: Stub) -> None:
    stub.order("hang", "nvmlInitWithFlags")
    box.serve(gpus="")
    assert gpus(box) == []
    stub.order("hang", "nvmlInitWithFlags", code=None)
    box.until("they are found", lambda: len(gpus(box)) == 2)
    run = box.start_run("--gpus", "1")
    _, said = run.communicate(b"true\n", timeout=30)
    assert f"gpud: GPU 1 is also used by the instance in {box.state}\n" in said.decode()
    assert run.returncode == 0
