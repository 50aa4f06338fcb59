"""A state directory on a disk that fills up (a tmpfs of 16 MiB; needs root to be mounted)."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Box


@pytest.fixture
def small_disk(box: Box) -> Iterator[Path]:
    """Mounted at the box's state directory; taken away after its processes are gone."""
    box.state.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", str(box.state)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield box.state
    finally:
        box.close()
        subprocess.run(["umount", "-l", str(box.state)], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Not a byte is free, and what gpud gives up to make room is taken at once."""
    path = disk / "filler"
    over = threading.Event()

    def fill() -> None:
        with open(path, "wb", buffering=0) as file:
            while not over.is_set():
                for size in (1 << 20, 4096, 64):
                    try:
                        while True:
                            file.write(bytes(size))
                    except OSError:
                        continue
                filled.set()
                over.wait(0.001)

    filled = threading.Event()
    thread = threading.Thread(target=fill)
    thread.start()
    assert filled.wait(20)
    try:
        yield
    finally:
        over.set()
        thread.join()
        path.unlink()


def test_the_daemon_heals(box: Box, small_disk: Path) -> None:
    box.serve(gpus="0")
    gate = box.home / "gate"
    os.mkfifo(gate)
    [job] = box.submit(f"read x < {gate}; exit 7")
    box.until("it runs", lambda: box.job(job)["phase"] == "running")
    with full(small_disk):
        for _ in range(50):  # what is left in the journal is used up first
            refused = box.ctl("submit", "true # " + "x" * 60_000, check=False)
            if refused.returncode:
                break
        assert refused.returncode == 1
        assert "cannot write" in refused.stderr
        assert "cannot write" in box.ctl("status").stdout
        gate.write_text("go\n")  # it ends while nothing can be written
    assert box.ctl("wait", str(job), check=False).returncode == 7
    [after] = box.submit("true")
    box.ctl("wait", str(after))


def explained(box: Box, job: int, *words: str) -> bool:
    told = box.ctl("why", str(job)).stdout
    return all(word in told for word in words)


def test_what_waits_starts_when_there_is_room_again(box: Box, small_disk: Path) -> None:
    box.serve(gpus="0")
    gate, ran = box.home / "gate", box.home / "ran"
    os.mkfifo(gate)
    [first] = box.submit(f"read x < {gate}; echo first >> {ran}; exit 7")
    [second] = box.submit(f"echo second >> {ran}")
    box.until("it runs", lambda: box.job(first)["phase"] == "running")
    with full(small_disk):
        gate.write_text("go\n")  # it ends, and its slot is free
        box.until("it has ended", ran.exists)
        box.until("that is said", lambda: explained(box, second, "the disk", "full"))
        assert "the disk" in box.ctl("status").stdout
        assert box.job(second)["state"] == "queued"
        assert ran.read_text() == "first\n"
    assert box.ctl("wait", str(first), check=False).returncode == 7
    assert box.ctl("wait", str(second)).returncode == 0
    assert ran.read_text() == "first\nsecond\n", "each once"
    box.until("all is well", lambda: "full" not in box.ctl("status").stdout)


def test_while_little_is_left_jobs_are_taken_and_wait(box: Box, small_disk: Path) -> None:
    box.serve(gpus="0 0")
    gate = box.home / "gate"
    os.mkfifo(gate)
    [running] = box.submit(f"echo a; read x < {gate}; echo b")
    box.until("it runs", lambda: box.job(running)["phase"] == "running")
    filler = small_disk / "filler"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    filler.write_bytes(bytes(free - (5 << 20)))
    [waits] = box.submit("echo c")
    assert explained(box, waits, "waits", "more: the disk of", "is full", "less than 8 MiB")
    assert "jobs cannot be started now: the disk of" in box.ctl("status").stdout
    gate.write_text("go\n")
    assert box.ctl("wait", str(running), check=False).returncode == 0
    assert box.ctl("logs", str(running)).stdout == "a\nb\n"
    assert box.job(waits)["state"] == "queued"
    filler.unlink()
    assert "is full" not in box.ctl("status").stdout
    assert box.ctl("wait", str(waits)).returncode == 0
    assert box.ctl("logs", str(waits)).stdout == "c\n"


def test_logs_on_a_disk_of_their_own_that_is_full(box: Box) -> None:
    box.serve(gpus="0 0")
    logs = box.state / "logs"
    logs.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m,mode=0700", "tmpfs", str(logs)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        gate = box.home / "gate"
        os.mkfifo(gate)
        [running] = box.submit(f"echo a; read x < {gate}; echo b; exit 7")
        box.until("it runs", lambda: box.job(running)["phase"] == "running")
        with full(logs):
            [waits] = box.submit("echo c")
            assert explained(box, waits, f"the disk of {logs} is full: 0 bytes are free")
            gate.write_text("go\n")  # what it writes is lost, it goes on
            assert box.ctl("wait", str(running), check=False).returncode == 7
            assert box.job(waits)["state"] == "queued"
        assert box.ctl("wait", str(waits)).returncode == 0
        assert box.ctl("logs", str(waits)).stdout == "c\n"
    finally:
        box.close()
        subprocess.run(["umount", "-l", str(logs)], check=True)


def test_a_disk_that_cannot_be_written(box: Box, small_disk: Path) -> None:
    daemon = box.serve(gpus="0")
    [job] = box.submit("true")
    box.ctl("wait", str(job))
    box.stop(daemon)
    for pid in box.runner_pids():  # its journal is open
        os.kill(pid, signal.SIGKILL)
    box.until("the runner is gone", lambda: not box.runner_pids())
    remount(small_disk, "ro")
    for verb in (["serve", "--gpus", "0"], ["run", "--gpus", "0"]):
        done = box.gpud(*verb, "--state-dir", str(box.state), input="true\n")
        assert done.returncode == 1
        assert done.stderr.startswith("gpud: cannot")
        assert "ead-only file system" in done.stderr
        assert "Traceback" not in done.stderr
    remount(small_disk, "rw")
    box.serve(gpus="0")
    assert box.job(job)["outcome"] == "succeeded", "what was there is there"


def remount(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode},size=16m", str(disk)], check=True)
