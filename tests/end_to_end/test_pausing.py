"""Pause, continue and checkpoint as a user meets them: real processes, and kills of all of gpud."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import Any

from tests.devices.nvml_stub import Stub
from tests.end_to_end.conftest import Box
from tests.end_to_end.gpus import gate, story

# A training that saves its steps and leaves; one child of it has a session of its own.
TRAIN = """\
import os, signal, subprocess, time
step = int(open("saved").read()) if os.environ.get("GPUD_RESUME") == "1" else 0
worker = subprocess.Popen(["setsid", "sh", "-c", "while :; do echo >> worker; sleep 0.01; done"])
def leave(*_):
    open("saved", "w").write(str(step))
    worker.kill()
    raise SystemExit(0)
signal.signal(signal.SIGUSR1, leave)
print(os.environ["GPUD_ATTEMPT"], "resumes" if step else "begins", flush=True)
while not os.path.exists("enough"):
    step += 1
    open("steps", "a").write("x")
    time.sleep(0.01)
worker.kill()
"""


def training(box: Box) -> str:
    (box.home / "train.py").write_text(TRAIN)
    return "cd . && python3 train.py"


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def moves(path: Path) -> bool:
    before = size(path)
    select.select([], [], [], 0.2)
    return size(path) > before


def phase(box: Box, job: int) -> str:
    found = box.job(job)
    return str(found["phase"] or found["outcome"] or found["state"])


def runs(box: Box, job: int) -> None:
    box.until("it runs", lambda: phase(box, job) == "running" and size(box.home / "steps") > 3)


def test_a_paused_job_stands_still_whatever_is_killed(box: Box) -> None:
    daemon = box.serve(gpus="0")
    steps, worker = box.home / "steps", box.home / "worker"
    [job] = box.submit("--time-limit", "10m", training(box))
    [behind] = box.submit("echo done")
    runs(box, job)
    said = box.ctl("pause", str(job)).stdout
    assert said == f"job {job}: paused; GPU memory stays held\n"
    box.until("all of it stands still", lambda: not moves(steps) and not moves(worker))
    why = box.ctl("why", str(job)).stdout
    assert why.startswith("paused on GPU 0 for ")
    assert f"; its GPU memory stays held: gpuctl continue {job}" in why
    assert "paused" in box.ctl("ls", "state:paused").stdout
    assert "1 paused, holding GPU memory: gpuctl continue state:paused" in box.ctl().stdout

    box.kill(daemon)
    box.serve(gpus="0")
    assert phase(box, job) == "paused"
    assert not moves(steps)
    assert phase(box, behind) == "queued"

    [runner] = box.runner_pids()
    os.kill(runner, signal.SIGKILL)
    box.until("another runner", lambda: box.runner_pids() not in ([], [runner]))
    box.until("it is met", lambda: box.ctl("pause", str(job), check=False).returncode == 0)
    assert phase(box, job) == "paused"
    assert not moves(steps)

    box.ctl("continue", "state:paused")
    box.until("all of it goes on", lambda: moves(steps) and moves(worker))
    assert phase(box, job) == "running"
    (box.home / "enough").touch()
    box.ctl("wait", str(behind))
    kinds = [event["kind"] for event in box.show(job)["story"]]
    assert kinds.count("paused") == kinds.count("continued") == 1


def test_a_pause_that_was_asked_for_just_before_a_kill_is_kept(box: Box) -> None:
    """What is committed is repeated; the runner may never have heard of it."""
    daemon = box.serve(gpus="0")
    [job] = box.submit(training(box))
    runs(box, job)
    for verb, stands in (("pause", True), ("continue", False), ("pause", True)):
        box.ctl(verb, str(job))
        box.kill(daemon)
        daemon = box.serve(gpus="0")
        box.until(verb, lambda s=stands: moves(box.home / "steps") is not s)
    box.ctl("cancel", str(job))
    assert box.ctl("wait", str(job), check=False).returncode == 125
    assert box.job(job)["signal"] == signal.SIGTERM


def test_who_is_killed_while_paused_is_tried_again(box: Box) -> None:
    """The child that it leaves, stopped too, has a moment to end and is ended."""
    config = box.home / "gpud.toml"
    config.write_text("[defaults]\nlinger_s = 0.2\n")
    box.serve("--config", str(config), gpus="0")
    [job] = box.submit("--retries", "1", "--backoff", "0", "exec " + training(box)[8:])
    runs(box, job)
    box.ctl("pause", str(job))
    os.kill(box.show(job)["attempts"][0]["pid"], signal.SIGKILL)
    box.until("it is tried again", lambda: len(box.show(job)["attempts"]) == 2)
    assert box.show(job)["attempts"][0]["outcome"] == "killed"
    runs(box, job)
    (box.home / "enough").touch()
    box.ctl("wait", str(job))


def test_a_job_saves_its_state_leaves_and_goes_on(box: Box) -> None:
    box.serve(gpus="0")
    command = ["--checkpoint", "SIGUSR1", "--grace", "30s", training(box)]
    [job] = box.submit("--retries", "2", *command)
    runs(box, job)
    said = box.ctl("checkpoint", str(job)).stdout
    assert said == f"job {job}: asked to save and leave\n"
    box.until("it resumes", lambda: box.ctl("logs", str(job)).stdout == "2 resumes\n")
    box.until("it is known", lambda: phase(box, job) == "running")
    first, _ = box.show(job)["attempts"]
    assert (first["outcome"], first["exit_code"]) == ("killed", 0)
    assert first["why"] == "it was asked to save its state and leave"
    saved = int((box.home / "saved").read_text())
    assert saved > 3
    box.ctl("pause", str(job))
    box.ctl("checkpoint", str(job))  # a paused one is continued for it
    box.until("again", lambda: len(box.show(job)["attempts"]) == 3)
    assert int((box.home / "saved").read_text()) > saved
    assert box.job(job)["retries_left"] == 2
    (box.home / "enough").touch()
    box.ctl("wait", str(job))
    assert box.job(job)["outcome"] == "succeeded"


def test_a_checkpoint_goes_on_without_gpud(box: Box) -> None:
    """kill -9 right after the answer: the job leaves, and is queued again by the next one."""
    daemon = box.serve(gpus="0")
    [job] = box.submit("--checkpoint", "USR1", "--grace", "30s", training(box))
    runs(box, job)
    box.ctl("drain")
    box.ctl("checkpoint", str(job))
    box.kill(daemon)
    box.serve(gpus="0")
    box.until("it has left", lambda: phase(box, job) == "queued")
    assert int((box.home / "saved").read_text()) > 3
    box.ctl("undrain")
    (box.home / "enough").touch()
    box.ctl("wait", str(job))
    assert box.ctl("logs", str(job)).stdout == "2 resumes\n"


def test_who_does_not_leave_is_stopped_and_queued_again_all_the_same(box: Box) -> None:
    box.serve(gpus="0")
    deaf = "trap 'echo usr1' USR1; trap 'echo term' TERM; echo up; while :; do sleep 0.05; done"
    [job] = box.submit("--checkpoint", "10", f"test $GPUD_RESUME && exit 0; {deaf}")
    box.until("it is up", lambda: "up" in box.ctl("logs", str(job)).stdout)
    box.ctl("checkpoint", str(job), "--grace", "1s")
    box.ctl("wait", str(job))
    first, second = box.show(job)["attempts"]
    assert (first["outcome"], first["signal"]) == ("killed", signal.SIGKILL)
    assert second["outcome"] == "succeeded"
    assert [line for line in Path(first["log"]).read_text().split() if line.islower()] == [
        "up", "usr1", "term",
    ]  # fmt: skip


def test_a_queue_file_says_at_which_signal(box: Box) -> None:
    config = box.home / "gpud.toml"
    config.write_text(
        '[pool]\ngpus = [0]\n[defaults]\ncheckpoint = "TERM"\n'
        '[source.q]\ntype = "queue-file"\npath = "gpu.queue"\npoll_s = 0.1\n'
    )
    queue = box.home / "gpu.queue"
    queue.write_text("true\n#gpud: checkpoint=SIGUSR2\ntrue\n#gpud: checkpoint=none\ntrue\n")
    box.serve("--config", str(config), gpus="")
    box.until("all are taken", lambda: box.ctl("show", "3", check=False).returncode == 0)
    found = [box.job(job).get("checkpoint", "") for job in (1, 2, 3)]
    assert found == ["SIGTERM", "SIGUSR2", ""]
    assert "checkpoint  SIGUSR2" in box.ctl("show", "2").stdout


def test_refusals_are_sentences(box: Box) -> None:
    box.serve(gpus="0")
    hold = gate(box)
    [job] = box.submit(f"read x < {hold}")
    [waits] = box.submit("--checkpoint", "USR1", "true")
    box.until("it runs", lambda: phase(box, job) == "running")
    for verb, which, why in [
        ("checkpoint", job, "it does not say at which signal it saves its state"),
        ("checkpoint", waits, "it is queued"),
        ("pause", waits, "it is queued"),
        ("continue", waits, "it is queued"),
    ]:
        done = box.ctl(verb, str(which), check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(f"gpuctl: cannot {verb} job {which}: {why}")
    assert box.ctl("checkpoint", "all").stdout == "nothing to checkpoint\n"
    hold.write_text("go\n")
    box.ctl("wait", str(job))
    done = box.ctl("pause", str(job), check=False)
    assert done.stderr == f"gpuctl: cannot pause job {job}: it is done\n"


# -- over a stand-in for the NVIDIA driver --------------------------------------------------------


def serve_with(box: Box, pool: str) -> None:
    config = box.home / "gpud.toml"
    config.write_text(f"[pool]\n{pool}\n")
    box.serve("--config", str(config), gpus="")


def test_the_owner_of_a_guest_gpu_comes_back(box: Box, stub: Stub) -> None:
    serve_with(box, "guests = [1]")
    hold = gate(box)
    [other] = box.submit(f"read x < {hold}")
    [job] = box.submit("--checkpoint", "SIGUSR1", training(box))
    runs(box, job)
    assert box.job(job)["lease"] == ["1"]
    stub.gpu(1, compute=f"{os.getpid()}:500")
    box.until("it leaves", lambda: phase(box, job) == "queued")
    [told] = story(box, job, "checkpoint-requested")
    assert (told["reason"], told["signal"]) == ("guest", 10)
    assert f"pid {os.getpid()}" in told["owner"]
    hold.write_text("go\n")
    box.until("it goes on elsewhere", lambda: phase(box, job) == "running")
    assert box.job(job)["lease"] == ["0"]
    (box.home / "enough").touch()
    box.ctl("wait", str(other), str(job))
    assert box.ctl("logs", str(job)).stdout == "2 resumes\n"


def test_a_paused_job_is_not_called_idle(box: Box, stub: Stub) -> None:
    serve_with(box, "idle_after_s = 1")
    stub.gpu(0, util=0)
    hold = gate(box)
    busy: dict[str, Any] = {"command": f"read x < {hold}"}
    [job] = box.submit(busy["command"])
    box.until("it runs", lambda: phase(box, job) == "running")
    box.ctl("pause", str(job))
    seen = box.show(job)["job"]["paused_at_ms"]

    def looked_at_ms() -> int:
        reply = box.ctl("gpus", "--json").stdout
        return int(reply.split('"seen_at_ms": ')[1].split(",")[0])

    box.until("it was looked at for long", lambda: looked_at_ms() > seen + 4_500)
    assert not story(box, job, "gpu-idle")
    box.ctl("continue", str(job))
    box.until("now it is idle", lambda: story(box, job, "gpu-idle"))
    hold.write_text("go\n")
    box.ctl("wait", str(job))


def test_an_urgent_job_takes_the_gpu_of_one_that_saves_its_state(box: Box) -> None:
    box.serve(gpus="0,1")
    [stays] = box.submit("sleep 1000")
    [low] = box.submit("--checkpoint", "SIGUSR1", "--grace", "30s", training(box))
    runs(box, low)
    queue = box.home / "gate"
    os.mkfifo(queue)
    [urgent] = box.submit("--priority", "urgent", f"read x < {queue}")
    box.until("it has the GPU", lambda: phase(box, urgent) == "running")
    assert phase(box, low) == "queued"
    assert phase(box, stays) == "running"
    assert "priority    urgent" in box.ctl("show", str(urgent)).stdout
    assert f"to make room for job {urgent}, which is urgent" in box.ctl("show", str(low)).stdout
    assert "made room for an urgent job" in box.ctl("show", str(low)).stdout
    queue.write_text("go\n")
    box.ctl("wait", str(urgent))
    box.until("it goes on", lambda: phase(box, low) == "running")
    runs(box, low)
    assert box.show(low)["attempts"][0]["outcome"] == "killed"
    (box.home / "enough").touch()
    box.ctl("wait", str(low))
    assert "2 resumes" in box.ctl("logs", str(low)).stdout
