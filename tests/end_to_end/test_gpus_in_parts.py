"""Whole GPUs and parts of them: MIG instances, shares, and a GPU that a job has to itself."""

from __future__ import annotations

from tests.devices.nvml_stub import Stub, mig_uuid
from tests.end_to_end.conftest import Box
from tests.end_to_end.gpus import gate, gpus, holding, phase, story, wait_for_a_look


def test_an_exclusive_job_has_nobody_beside_it(box: Box, stub: Stub) -> None:
    stub.have(1)
    box.serve("--slots-per-gpu", "2", gpus="")
    first, second = gate(box, "first"), gate(box, "second")
    [shared] = box.submit(f"read x < {first}")
    [beside] = box.submit("true")
    box.ctl("wait", str(beside))  # there is room for two
    [alone] = box.submit("--exclusive", f"read x < {second}")
    wait_for_a_look(box)
    assert (phase(box, shared), phase(box, alone)) == ("running", "queued")
    first.write_text("go\n")
    box.until("it runs", lambda: phase(box, alone) == "running")
    assert box.job(alone)["lease"] == ["0"]
    asked = [], ["--gpus", "0.1"], ["--vram", "1G"], ["--exclusive"]
    others = [box.submit(*words, "true")[0] for words in asked]
    wait_for_a_look(box)
    assert [phase(box, job) for job in others] == ["queued"] * 4
    [cpu] = box.submit("--gpus", "0", "true")
    box.ctl("wait", str(cpu))
    assert phase(box, alone) == "running"
    second.write_text("go\n")
    box.ctl("wait", str(alone), *map(str, others))
    ended_ms = box.job(alone)["ended_at_ms"]
    assert all(box.job(job)["started_at_ms"] >= ended_ms for job in others)


def test_jobs_on_mig_instances(box: Box, stub: Stub) -> None:
    stub.have(1)
    stub.gpu(0, mig=1)
    for place in (0, 1):
        stub.instance(0, place)
    box.serve(gpus="")
    gates = [gate(box, f"gate-{n}") for n in range(3)]
    mine = "${CUDA_VISIBLE_DEVICES##*-00000000000}"  # the last digit of mig_uuid
    show = "echo $CUDA_VISIBLE_DEVICES $NVIDIA_VISIBLE_DEVICES $GPUD_GPU_UUIDS"
    lines = [holding(stub, 0, 600, f"{show}; read x < {hold}", place=mine) for hold in gates]
    jobs = [box.submit(line)[0] for line in lines]
    box.until("two run", lambda: [phase(box, job) for job in jobs[:2]] == ["running"] * 2)
    uuids = [mig_uuid(0, 0), mig_uuid(0, 1)]
    for job in jobs[:2]:
        box.until("its memory is seen", lambda job=job: box.job(job).get("peak_vram_mib") == 600)
    assert phase(box, jobs[2]) == "queued"
    assert [box.job(job)["lease"] for job in jobs[:2]] == [[one] for one in uuids]
    assert [gpu["jobs"] for gpu in gpus(box)] == [[jobs[0]], [jobs[1]]]
    for hold in gates:
        hold.write_text("go\n")
    box.ctl("wait", *map(str, jobs))
    seen = [box.ctl("logs", str(job)).stdout.split() for job in jobs]
    assert seen[:2] == [[one] * 3 for one in uuids]
    assert seen[2] in seen[:2]
    assert not any(story(box, job, "wrong-gpu") for job in jobs)
    refused = box.ctl("submit", "--gpus", "2", "true", check=False)
    assert refused.returncode == 1
    assert "MIG" in refused.stderr


def test_switching_mig_breaks_nothing(box: Box, stub: Stub) -> None:
    """Neither a GPU nor an instance that is gone is ill: it is well when it is back."""
    box.serve(gpus="")
    stub.gpu(1, mig=1)

    def labels() -> list[tuple[str, str]]:
        return [(gpu["ids"][0], gpu["problem"]) for gpu in gpus(box)]

    def look_until(expected: list[tuple[str, str]]) -> None:
        box.ctl("submit", "true")  # who wants a GPU has it looked at
        box.until("it is seen", lambda: labels() == expected)

    one, other = mig_uuid(1, 0), mig_uuid(1, 1)
    look_until([("0", ""), ("1", "MIG is on and it has no instances")])
    stub.instance(1, 0)
    look_until([("0", ""), (one, "")])
    stub.instance(1, 1)
    stub.gpu(1, **{"mig0.uuid": None})
    look_until([("0", ""), (other, "")])
    stub.instance(1, 0)
    look_until([("0", ""), (one, ""), (other, "")])
    stub.gpu(1, mig=0)
    look_until([("0", ""), ("1", "")])
    assert "quarantined" not in (box.home / "serve.log").read_text()
