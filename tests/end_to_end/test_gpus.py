"""GPUs as a user meets them: the installed commands over a stand-in for the NVIDIA driver."""

from __future__ import annotations

import json
import os
import select
import time

from tests.devices.nvml_stub import Stub, uuid
from tests.end_to_end.conftest import Box
from tests.end_to_end.gpus import gate, gpus, holding, problem, story

WRONG_GPU_S = 5.0  # docs/gpus.md: from its process on a GPU that is not its own to the report


def test_the_gpus_are_found_and_shown(box: Box, stub: Stub) -> None:
    stub.gpu(0, used_mib=2048, util=37, temperature=61, power_mw=250_000)
    box.serve(gpus="")
    first, second = gpus(box)
    assert (first["key"], first["ids"], first["model"]) == (uuid(0), ["0"], "Stub 0")
    box.until("it is looked at", lambda: gpus(box)[0]["gpus"][0]["seen_at_ms"])
    shown = box.ctl("gpus").stdout.splitlines()[1].split()
    assert shown[:4] == ["0", "Stub", "0", "free"]
    assert {"2.0/80G", "37%", "61C", "250W"} <= set(shown)
    assert second["problem"] == ""


def test_what_a_job_sees(box: Box, stub: Stub) -> None:
    box.serve(gpus="")
    line = "echo $CUDA_VISIBLE_DEVICES $CUDA_DEVICE_ORDER $NVIDIA_VISIBLE_DEVICES $GPUD_GPU_UUIDS"
    [both] = box.submit("--gpus", "2", line)
    [cpu] = box.submit("--gpus", "0", 'echo "[$CUDA_VISIBLE_DEVICES] $NVIDIA_VISIBLE_DEVICES"')
    box.ctl("wait", str(both), str(cpu))
    assert box.ctl("logs", str(both)).stdout.split() == [
        "0,1", "PCI_BUS_ID", "0,1", f"{uuid(0)},{uuid(1)}",
    ]  # fmt: skip
    assert box.ctl("logs", str(cpu)).stdout == "[] void\n"


def test_uuids_by_configuration_and_always_for_mig(box: Box, stub: Stub) -> None:
    stub.gpu(1, mig=1)
    stub.instance(1, 0)
    config = box.home / "gpud.toml"
    config.write_text("[pool]\nvisible = 'uuid'\n")
    daemon = box.serve("--config", str(config), gpus="")
    [whole] = box.submit("--gpu-model", "Stub 0", "echo $CUDA_VISIBLE_DEVICES")
    box.ctl("wait", str(whole))
    assert box.ctl("logs", str(whole)).stdout.strip() == uuid(0)
    box.stop(daemon)
    box.serve(gpus="")
    instance = next(gpu for gpu in gpus(box) if gpu["key"].startswith("MIG-"))
    assert instance["ids"] == [instance["key"]]
    refused = box.ctl("submit", "--gpus", "3", "true", check=False)
    assert refused.returncode == 1
    assert "needs 3 GPUs, this machine has" in refused.stderr


def test_what_can_never_be_is_refused_at_submit(box: Box, stub: Stub) -> None:
    box.serve(gpus="")
    for words, why in [
        (["--gpus", "4"], "needs 4 GPUs, this machine has 2"),
        (["--vram", "100G"], "needs 100 GiB of GPU memory, the largest GPU here has 81 GiB"),
        (["--gpu-model", "H200"], 'has "H200", this machine has Stub 0, Stub 1'),
        (["--gpus", "0", "--vram", "1G"], "cannot ask for memory"),
    ]:
        done = box.ctl("submit", *words, "true", check=False)
        assert done.returncode == 1
        assert why in done.stderr
        assert "Traceback" not in done.stderr


def test_shares_and_promised_memory(box: Box, stub: Stub) -> None:
    box.serve(gpus="")
    hold = gate(box)
    asked = ["--vram", "40G"], ["--vram", "39G"], ["--vram", "30G"], ["--gpus", "0.7"]
    jobs = [box.submit(*words, f"read x < {hold}")[0] for words in asked]
    box.until(
        "three of them run",
        lambda: [box.job(job)["state"] for job in jobs] == ["active"] * 3 + ["queued"],
    )
    places = [box.job(job)["lease"][0].partition(":")[0] for job in jobs[:3]]
    assert places == ["0", "0", "1"]
    why = box.ctl("why", str(jobs[3]), "--verbose").stdout
    assert "0.7 of a GPU" in why
    assert "  GPU 1: " in why
    assert [gpu["promised_mib"] for gpu in gpus(box)] == [79 * 1024, 30 * 1024]
    head, first, *_ = box.ctl("gpus").stdout.splitlines()
    assert first[: head.index("PROMISED") + 8].endswith(" 79G")
    box.ctl("cancel", "all", "--yes")


def test_what_is_kept_for_a_large_job_is_shown(box: Box, stub: Stub) -> None:
    box.serve(gpus="")
    hold = gate(box)
    [first] = box.submit(f"read x < {hold}")
    [both] = box.submit("--gpus", "2", "true")
    [behind] = box.submit(f"read x < {hold}")
    told = f"kept for job {both}"
    box.until("it is kept", lambda: told in box.ctl("gpus").stdout)
    assert [gpu.get("kept_for") for gpu in gpus(box)] == [both, both]
    assert f"GPU 1: {told}" in box.ctl("status").stdout
    why = box.ctl("why", str(behind), "--verbose").stdout
    assert f"GPU 1: has room, but is {told}" in why
    box.ctl("cancel", str(first), str(behind))
    box.ctl("wait", str(both))
    assert box.ctl("why", str(both), "-v").stdout.splitlines()[:2] == [
        "done: it succeeded",
        "  placed on GPUs 0 and 1: the first in the order of the pool that had room",
    ]
    assert "kept" not in box.ctl("gpus").stdout


def test_a_gpu_that_somebody_else_uses_is_not_used(box: Box, stub: Stub) -> None:
    stub.gpu(0, compute=f"{os.getpid()}:500")
    box.serve(gpus="")
    hold = gate(box)
    [first] = box.submit(f"read x < {hold}")
    [second] = box.submit("true")
    box.until("the first runs", lambda: box.job(first)["phase"] == "running")
    assert box.job(first)["lease"] == ["1"]
    assert f"used by pid {os.getpid()}" in problem(box, 0)
    assert "in use" in box.ctl("gpus").stdout
    waits = box.ctl("why", str(second)).stdout
    assert (
        f"waits for the slot: it is taken; GPU 0 takes no work: used by pid {os.getpid()}" in waits
    )
    stub.gpu(0, compute=None)
    box.ctl("wait", str(second))  # it is noticed by itself
    assert box.job(second)["lease"] == ["0"]
    hold.write_text("go\n")


def test_a_job_on_the_wrong_gpu_is_pointed_out_in_time(box: Box, stub: Stub) -> None:
    """One at its start, and one in the middle of its life."""
    box.serve("--slots-per-gpu", "2", gpus="")
    hold = gate(box)
    stray = holding(stub, 1, 600, "echo $$ > it; mv it stray-$GPUD_JOB_ID; sleep 600")
    [first] = box.submit(stray)
    [second] = box.submit(holding(stub, 0, 600, f"read x < {hold}; {stray}"))
    check_wrong_gpu(box, stub, first)
    box.until("the other computes", lambda: box.job(second).get("peak_vram_mib") == 600)
    assert not story(box, second, "wrong-gpu")
    assert f"job {first} uses a GPU that it was not given" in box.ctl("status").stdout
    assert "uses GPU 1, the job was given GPU 0" in box.ctl("show", str(first)).stdout
    assert "wrong_gpu" in (box.home / "serve.log").read_text()
    hold.write_text("go\n")
    check_wrong_gpu(box, stub, second)
    box.ctl("cancel", "all", "--yes")


def check_wrong_gpu(box: Box, stub: Stub, job: int) -> None:
    """Of one that was given GPU 0 and uses GPU 1: reported in time, and what is reported."""
    place = box.home / f"stray-{job}"
    box.until("it is on GPU 1", place.exists)
    pid = int(place.read_text())
    box.until("it is told", lambda: story(box, job, "wrong-gpu"))
    shown_s, appeared_s = time.time(), (stub.holders / str(pid)).stat().st_mtime
    [told] = [event for event in box.show(job)["story"] if event["kind"] == "wrong-gpu"]
    assert told["at_ms"] / 1000 - appeared_s <= WRONG_GPU_S
    assert shown_s - appeared_s <= WRONG_GPU_S
    assert told["detail"]["pid"] == pid
    assert (told["detail"]["on"], told["detail"]["assigned"]) == (uuid(1), [uuid(0)])


def test_a_broken_gpu_is_quarantined_until_it_is_healed(box: Box, stub: Stub) -> None:
    box.serve(gpus="")
    hold = gate(box)
    [job] = box.submit(f"read x < {hold}; test $CUDA_VISIBLE_DEVICES = 1")
    box.until("it runs", lambda: box.job(job)["phase"] == "running")
    stub.xid(0, 79)
    box.until("it is noticed", lambda: "Xid 79" in problem(box, 0))
    hold.write_text("go\n")  # it fails on GPU 0, which is to blame
    box.until("it runs again", lambda: len(box.show(job)["attempts"]) == 2)
    hold.write_text("go\n")
    box.ctl("wait", str(job))
    first, second = box.show(job)["attempts"]
    assert (first["outcome"], first["lease"], second["lease"]) == ("failed", ["0"], ["1"])
    assert "Xid 79" in first["why"]
    assert "quarantined" in box.ctl("gpus").stdout
    assert "healed" in box.ctl("gpus", "heal", "0").stdout
    assert problem(box, 0) == ""
    assert box.ctl("gpus", "heal", "9", check=False).returncode == 3


def test_a_quarantine_survives_a_restart(box: Box, stub: Stub) -> None:
    daemon = box.serve(gpus="")
    stub.xid(1, 48)
    box.until("it is noticed", lambda: "Xid 48" in problem(box, 1))
    box.kill(daemon)
    box.serve(gpus="")
    assert "Xid 48" in problem(box, 1)
    [job] = box.submit("--gpus", "2", "true")
    assert "(gpuctl gpus heal 1)" in box.ctl("why", str(job)).stdout


def test_a_driver_that_hangs_stops_nobody(box: Box, stub: Stub) -> None:
    box.serve(gpus="")
    stub.order("hang", "nvmlDeviceGetMemoryInfo_v2", gpu=0)
    [cpu] = box.submit("--gpus", "0", "true")
    box.ctl("wait", str(cpu))
    seen_ms = gpus(box)[0]["gpus"][0]["seen_at_ms"]
    box.until("the last look is old", lambda: time.time() * 1000 > seen_ms + 2500)
    [gpu] = box.submit("echo $CUDA_VISIBLE_DEVICES")
    box.ctl("wait", str(gpu))
    assert "did not answer" in problem(box, 0)
    assert box.ctl("logs", str(gpu)).stdout == "1\n"
    stub.order("hang", "nvmlDeviceGetMemoryInfo_v2", gpu=0, code=None)


def test_a_driver_that_hangs_at_the_start(box: Box, stub: Stub) -> None:
    stub.order("hang", "nvmlInitWithFlags")
    box.serve(gpus="0,1")
    [gpu] = box.submit("true")
    [cpu] = box.submit("--gpus", "0", "true")
    box.ctl("wait", str(cpu))
    assert "waits for the GPUs" in box.ctl("why", str(gpu)).stdout
    assert "no GPU is used now" in box.ctl("status").stdout
    stub.order("hang", "nvmlInitWithFlags", code=None)
    box.ctl("wait", str(gpu))


def test_out_of_gpu_memory_gets_more_of_it(box: Box, stub: Stub) -> None:
    box.serve(gpus="")
    trouble = "echo 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB'; exit 1"
    job = box.submit(
        "--vram", "8G", "--retries", "2", "--retry-on", "oom",
        f'if [ "$GPUD_ATTEMPT" = 1 ]; then {trouble}; fi',
    )[0]  # fmt: skip
    box.until("it was tried", lambda: box.show(job)["attempts"][0]["outcome"])
    first = box.show(job)["attempts"][0]
    assert (first["outcome"], first["oom"], first["why"]) == (
        "failed", "cuda", "out of GPU memory",
    )  # fmt: skip
    [told] = story(box, job, "ended")
    assert told["more"] == "12 GiB of GPU memory"
    box.ctl("cancel", str(job))


def test_what_it_cost(box: Box, stub: Stub) -> None:
    box.serve(gpus="")
    hold = gate(box)
    [job] = box.submit("--name", "net", holding(stub, 0, 3000, f"read x < {hold}"))
    box.until("it runs", lambda: box.job(job)["phase"] == "running")
    stub.gpu(0, energy_mj=1_000_000 + 7_200_000, util=50)
    box.until("it is counted", lambda: (box.job(job).get("energy_j") or 0) >= 7200)
    box.until("the memory too", lambda: box.job(job).get("peak_vram_mib") == 3000)
    hold.write_text("go\n")
    box.ctl("wait", str(job))
    shown = box.ctl("show", str(job)).stdout
    assert "2.9 GiB GPU memory" in shown
    assert "2 Wh" in shown
    cost = box.ctl("why", str(job), "--verbose").stdout.splitlines()[-1]
    assert cost.startswith("  cost: 2.9 GiB GPU memory, GPU at ")
    assert cost.endswith(" Wh")
    [later] = box.submit("--name", "net", "true")
    assert box.show(later)["usual_vram_mib"] == 3000
    [auto] = box.submit("--name", "net", "--vram", "auto", "true")
    box.ctl("wait", str(auto))
    [part] = box.job(auto)["lease"]
    gpu, _, milli = part.partition(":")
    assert gpu == "0"
    assert 0 < int(milli) < 1000  # a share of its memory, not the whole GPU


def test_without_a_driver_gpud_says_what_it_cannot_see(box: Box) -> None:
    box.serve(gpus="0,1")
    reply = json.loads(box.ctl("gpus", "--json").stdout)
    assert "no NVIDIA driver" in reply["note"]
    done = box.ctl("submit", "--vram", "1G", "true", check=False)
    assert done.returncode == 1
    assert "cannot see" in done.stderr


def test_gpud_run_waits_for_a_gpu_that_others_use(box: Box, stub: Stub) -> None:
    stub.gpu(0, compute=f"{os.getpid()}:500")
    commands = box.home / "commands"
    commands.write_text("echo done\n")
    with open(commands) as file:
        run = box.start_run("--gpus", "0", stdin=file)
    assert run.stdout is not None
    assert not select.select([run.stdout], [], [], 1.5)[0], "it ran beside somebody else"
    stub.gpu(0, compute=None)
    assert run.stdout.readline() == b"done\n"
    assert run.wait(40) == 0
