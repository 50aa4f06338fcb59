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
