"""The ways to stop: `gpuctl drain --wait`, `gpuctl shutdown`, and a runner that is told to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess

from .conftest import GPUCTL, TIMEOUT_S, Box


def start_job(box: Box, command: str) -> None:
    """One that has said that it runs."""
    os.mkfifo(box.home / "runs")
    box.ctl("submit", f"{command}; echo > runs; while :; do sleep 0.05; done")
    with open(box.home / "runs") as fifo:
        fifo.read()


def test_drain_can_wait_over_a_restart(box: Box) -> None:
    daemon = box.serve()
    os.mkfifo(box.home / "go")
    box.ctl("submit", "read line < go; exit 3")
    waits = box.ctl("submit", "--hold", "true").stdout.strip()
    drain = subprocess.Popen(
        [GPUCTL, "drain", "--wait"], env=box.env, cwd=box.home, stdout=subprocess.PIPE, text=True
    )
    status = ("status", "--json")
    box.until("drained", lambda: json.loads(box.ctl(*status).stdout)["draining"])
    box.kill(daemon)
    box.serve()
    assert drain.poll() is None
    (box.home / "go").write_text("x\n")
    said, _ = drain.communicate(timeout=TIMEOUT_S)
    assert (drain.returncode, said) == (0, "drained: nothing new starts, nothing runs\n")
    assert box.job(1)["exit_code"] == 3
    assert box.job(int(waits))["state"] == "held"


def test_shutdown_leaves_jobs_running(box: Box) -> None:
    daemon = box.serve()
    start_job(box, "trap 'exit 4' TERM")
    assert box.ctl("shutdown").stdout == "gpud has ended; 1 job runs on\n"
    assert daemon.wait(TIMEOUT_S) == 0
    box.serve()
    assert box.job(1)["phase"] == "running"
    box.ctl("cancel", "1")
    box.ctl("wait", "1", check=False)


def test_shutdown_can_cancel_what_runs_and_keeps_what_waits(box: Box) -> None:
    daemon = box.serve(gpus="0")
    start_job(box, "trap 'echo bye; exit 4' TERM")
    box.ctl("submit", "true")
    said = box.ctl("shutdown", "--cancel").stdout.splitlines()
    assert said == [
        "gpud has ended; nothing runs",
        "it is drained: after its next start, gpuctl undrain",
    ]
    assert daemon.wait(TIMEOUT_S) == 0
    box.serve(gpus="0")
    assert box.job(1)["outcome"] == "cancelled"
    assert "bye" in box.ctl("logs", "1").stdout
    assert box.job(2)["state"] == "queued"
    box.ctl("undrain")
    assert box.ctl("wait", "2").returncode == 0


def test_a_runner_that_is_told_to_end_loses_its_jobs_with_their_grace(box: Box) -> None:
    """As at the shutdown of a machine: an exit status of 0 is no success that anybody asked for."""
    daemon = box.serve(gpus="0")
    start_job(box, "trap 'echo saved; exit 0' TERM")
    (runner,) = box.runner_pids()
    assert box.stop(daemon) == 0
    os.kill(runner, signal.SIGTERM)
    box.serve(gpus="0")
    box.ctl("wait", "1", check=False)
    found = box.job(1)
    assert (found["outcome"], found["exit_code"]) == ("lost", 0)
    assert "ended with its runner" in found["why"]
    assert "saved" in box.ctl("logs", "1").stdout
