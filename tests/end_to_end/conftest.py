"""Real daemons and real clients: everything here is the installed commands, as a user runs them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.devices.nvml_stub import Stub

TIMEOUT_S = 40
BIN = Path(sys.executable).parent
GPUD, GPUCTL = str(BIN / "gpud"), str(BIN / "gpuctl")


class Box:
    """A machine's corner: a home with its own state directory, and the commands in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.state = home / "state"
        self.socket = home / "gpud.sock"
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_STATE_HOME": str(home / "xdg-state"),
            "XDG_CONFIG_HOME": str(home / "xdg-config"),
            "GPUD_SOCKET": str(self.socket),
            "LC_ALL": "C.UTF-8",
        }

    # -- gpud ------------------------------------------------------------------------------------

    def gpud(self, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self._call([GPUD, *args], **options)

    def start_run(self, *args: str, stdin: Any = subprocess.PIPE) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [GPUD, "run", "--state-dir", str(self.state), *args],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env,
            cwd=self.home,
        )
        self.daemons.append(process)
        return process

    def serve(self, *args: str, gpus: str = "0,1") -> subprocess.Popen[bytes]:
        """A daemon that answers."""
        command = [GPUD, "serve", "--state-dir", str(self.state)]
        if gpus:
            command += ["--gpus", *gpus.split(" ")]
        with open(self.home / "serve.log", "ab") as log:
            process = subprocess.Popen(
                [*command, *args], stderr=log, stdout=log, stdin=subprocess.DEVNULL,
                env=self.env, cwd=self.home,
            )  # fmt: skip
        self.daemons.append(process)
        deadline = time.monotonic() + TIMEOUT_S
        while self.ctl("ping", check=False).returncode != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.home / "serve.log").read_text())
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait(TIMEOUT_S)

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        process.terminate()
        return process.wait(TIMEOUT_S)

    # -- gpuctl ----------------------------------------------------------------------------------

    def ctl(self, *args: str, check: bool = True, **options: Any) -> Any:
        done = self._call([GPUCTL, *args], **options)
        if check:
            assert done.returncode == 0, (args, done.returncode, done.stdout, done.stderr)
        return done

    def submit(self, *args: str, **options: Any) -> list[int]:
        return [int(line) for line in self.ctl("submit", *args, **options).stdout.split()]

    def show(self, job: int) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.ctl("show", str(job), "--json").stdout)
        return dict(shown["jobs"][0])

    def job(self, job: int) -> dict[str, Any]:
        return dict(self.show(job)["job"])

    def until(self, what: str, holds: Any) -> None:
        """Wait for something that has no event of its own (a file that appears)."""
        deadline = time.monotonic() + TIMEOUT_S
        while not holds():
            assert time.monotonic() < deadline, f"never happened: {what}"
            select.select([], [], [], 0.02)

    def runner_pids(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                home = os.fsencode(self.home)
                if any(w.endswith(b"runner/__main__.py") for w in words) and any(
                    home in w for w in words
                ):
                    found.append(int(entry.name))
        return found

    def _call(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        options.setdefault("env", self.env)
        options.setdefault("cwd", self.home)
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, **options
        )

    def close(self) -> None:
        for process in self.daemons:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=TIMEOUT_S)
        for pid in self.runner_pids():
            _end(pid)
        for pid in self.payload_pids():
            _end(pid)

    def payload_pids(self) -> list[int]:
        """Jobs that no runner watches any more: after a kill of the runner and a made-up reboot."""
        mark = b"\0HOME=" + os.fsencode(self.home) + b"\0"
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    environ = b"\0" + (entry / "environ").read_bytes()
                except OSError:
                    continue
                if mark in environ and b"\0GPUD_NONCE=" in environ:
                    found.append(int(entry.name))
        return found


def _end(pid: int) -> None:
    """TERM to a runner ends its payloads; wait for it by pidfd."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(fd, signal.SIGTERM)
        if not select.select([fd], [], [], 20)[0]:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path)
    try:
        yield box
    finally:
        box.close()


@pytest.fixture
def stub(box: Box, tmp_path: Path) -> Iterator[Stub]:
    """The driver of the box, with two GPUs that are well."""
    (tmp_path / "driver").mkdir()
    stub = Stub(tmp_path / "driver", gpus=2)
    box.env |= stub.variables
    yield stub
    stub.close()
