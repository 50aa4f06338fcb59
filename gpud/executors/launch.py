"""Starting a runner process that outlives us, and finding those that live.

Called by executors/runner.py, and by daemon/run.py, which begins before it has loaded the rest of
itself. A runner is detached: its own session, no terminal, its words in runner.log. It answers on
the ready pipe once its socket listens.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from gpud.errors import GpudError, why_os
from gpud.locks import is_held
from gpud.runner import ENTRY

READY_TIMEOUT_S = 20.0


def live_versions(state_dir: Path) -> list[int]:
    """The versions of the runners that hold their lock, newest first."""
    found = []
    for lock in state_dir.glob("runner-*.lock"):
        version = lock.stem.removeprefix("runner-")
        if version.isdigit() and is_held(lock):
            found.append(int(version))
    return sorted(found, reverse=True)


class Launching(NamedTuple):
    """A runner that is starting; `ready` is the reading end of its pipe."""

    process: subprocess.Popen[bytes]
    ready: int
    state_dir: Path


def launch(state_dir: Path, cgroup: Path | None) -> int:
    """Start a runner of our version; its pid, once it listens. Raises GpudError."""
    return wait_ready(begin(state_dir, cgroup))


def begin(state_dir: Path, cgroup: Path | None) -> Launching:
    """Start it, and wait for nothing. Raises GpudError."""
    ready, ready_in = os.pipe()
    command = [sys.executable, "-I", "-S", ENTRY, str(state_dir)]
    command += ["--ready-fd", str(ready_in)]
    if cgroup is not None:
        command += ["--cgroup", str(cgroup)]
    try:
        log = os.open(
            state_dir / "runner.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                pass_fds=(ready_in,),
            )
        finally:
            os.close(log)
    except OSError as error:
        os.close(ready)
        os.close(ready_in)
        raise GpudError(f"cannot start the runner: {why_os(error)}") from error
    os.close(ready_in)
    return Launching(process, ready, state_dir)


def wait_ready(launching: Launching) -> int:
    """Its pid, once it listens. Raises GpudError."""
    process, ready, state_dir = launching
    try:
        if select.select([ready], [], [], READY_TIMEOUT_S)[0] and os.read(ready, 16):
            process.returncode = 0  # it outlives us; the executor reaps it if it does not
            return process.pid
    finally:
        os.close(ready)
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    raise GpudError(
        "cannot start the runner: it ended before it was ready",
        hint=f"see {state_dir / 'runner.log'}",
    )


def reap(launched: set[int]) -> None:
    """A runner that we launched is our child: leave no zombie. Takes those out that have ended."""
    for pid in list(launched):
        try:
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                continue
        except ChildProcessError:
            pass
        launched.discard(pid)
