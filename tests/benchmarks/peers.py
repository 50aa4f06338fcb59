"""The peers that may be installed here, each run as its own users run it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from . import programs

NOT_INSTALLED = "not installed"


def simple_gpu_scheduler() -> str | None:
    return programs.installed("simple_gpu_scheduler")


def from_stdin_s(command: list[str], lines: Path, output: int, place: Path) -> float:
    """A command that runs the lines of a file, start to exit; its own words go nowhere."""
    with open(lines, "rb") as file:
        begin = time.monotonic()
        subprocess.run(
            command,
            stdin=file,
            stdout=output,
            stderr=subprocess.DEVNULL,
            cwd=place,
            check=True,
        )
        return time.monotonic() - begin


@contextlib.contextmanager
def tsp(place: Path, slots: int) -> Iterator[str | None]:
    """The command `tsp` with a server of its own, or None; the server ends at the end."""
    command = shutil.which("tsp")
    if command is None:
        yield None
        return
    before = dict(os.environ)
    os.environ |= {"TS_SOCKET": str(place / "tsp.sock"), "TMPDIR": str(place)}
    try:
        subprocess.run([command, "-S", str(slots)], check=True, capture_output=True)
        yield command
    finally:
        subprocess.run([command, "-K"], capture_output=True)
        os.environ.clear()
        os.environ |= before


def tsp_s(command: str, c_limit: Path, count: int) -> float:
    """`count` jobs, a client each, one after another, and then the end of the last."""
    begin = time.monotonic()
    programs.c_limit_s(c_limit, 1, count, command, "-n", "/bin/sh", "-c", "true")
    subprocess.run([command, "-w"], check=True, capture_output=True)
    return time.monotonic() - begin
