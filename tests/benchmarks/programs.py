"""The programs that are measured: two in C, compiled on the spot, and the installed commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).parent
NO_COMPILER = "no C compiler (cc) here"


@cache
def compiled(name: str, place: Path) -> Path | None:
    """The program made of NAME.c, or None without a compiler. Static where that is possible."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    target = place / name
    for extra in (["-static"], []):
        command = [compiler, "-O2", *extra, "-o", str(target), str(SOURCES / f"{name}.c")]
        if subprocess.run(command, capture_output=True).returncode == 0:
            return target
    return None


def installed(name: str) -> str | None:
    """A command of this Python's environment, else of the PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def gpud() -> list[str]:
    return [command] if (command := installed("gpud")) else [sys.executable, "-m", "gpud.main"]


def gpuctl() -> list[str]:
    return (
        [command] if (command := installed("gpuctl")) else [sys.executable, "-m", "gpud.ctl.main"]
    )


def c_limit_s(program: Path, in_flight: int, count: int, *command: str) -> float:
    """How long the C program takes for `count` runs of `command`."""
    done = subprocess.run(
        [program, str(in_flight), str(count), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
    )
    return int(done.stdout) / 1e9


def spawn_s(command: list[str], output: int) -> float:
    """Start to exit of one process, with the least between us and it. Raises when it fails."""
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, output, 1)]
        begin = time.monotonic()
        pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        took_s = time.monotonic() - begin
    finally:
        os.close(null)
    if status:
        raise RuntimeError(f"{command[0]} ended with {status}")
    return took_s
