"""A daemon to measure, and the plainest client of its protocol."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from gpud.environment import capture
from gpud.paths import short_address

from . import programs

STARTS_WITHIN_S = 30.0
POLL_S = 0.001


class Wire:
    """One connection, greeted. Blocking; one request at a time."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with short_address(path) as address:
                self._socket.connect(address)
        except OSError:
            self._socket.close()
            raise
        self._rest = b""
        self._id = 0
        self._line()

    def close(self) -> None:
        self._socket.close()

    def ask(self, type: str, **fields: object) -> dict[str, Any]:
        return self.exchange(self.prepare(type, **fields))

    def prepare(self, type: str, **fields: object) -> bytes:
        self._id += 1
        return json.dumps({"type": type, "id": self._id, **fields}).encode() + b"\n"

    def exchange(self, lines: bytes) -> dict[str, Any]:
        """Send what `prepare` and `bulk` made; the reply."""
        self._socket.sendall(lines)
        reply = json.loads(self._line())
        if reply["type"] == "error":
            raise RuntimeError(reply["message"])
        return reply

    def bulk(self, commands: Sequence[str], **common: object) -> bytes:
        """A submit of many, ready to be sent, with the directory and environment of a user."""
        here = {"cwd": os.getcwd(), "env": user_environment(), **common}
        head = self.prepare("submit", count=len(commands), common=here)
        jobs = [json.dumps({"command": command}).encode() + b"\n" for command in commands]
        return head + b"".join(jobs)

    def wait(self, first: int, count: int) -> None:
        """Until jobs that are started in order have ended. Waiting for each of thousands would be
        work for the daemon that is no part of the figure: the last ones end last."""
        last = first + count - 1
        self.ask("wait", jobs=[f"{max(first, last - 31)}-{last}"])

    def succeeded(self) -> int:
        return int(self.ask("status")["done"].get("succeeded", 0))

    def _line(self) -> bytes:
        parts = [self._rest]
        while b"\n" not in parts[-1]:
            data = self._socket.recv(1 << 18)
            if not data:
                raise ConnectionError("gpud has closed the connection")
            parts.append(data)
        line, _, self._rest = b"".join(parts).partition(b"\n")
        return line


def user_environment() -> list[str]:
    return [pair.decode(errors="replace") for pair in capture(os.environb)]


class Daemon:
    """`gpud serve` on a directory of its own. Ends with its runner."""

    def __init__(
        self,
        place: Path,
        *gpus: str,
        config: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.place = place
        self._environment = {**quiet_environment(place), **(environment or {})}
        self.socket = place / "gpud.sock"
        self.pid = 0
        self._arguments = [*programs.gpud(), "serve", "--gpus", *gpus]
        self._arguments += ["--state-dir", str(place / "state"), "--socket", str(self.socket)]
        (place / "gpud.toml").write_text(config)
        self._arguments += ["--config", str(place / "gpud.toml"), "--log-level", "warning"]
        self._runners: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Daemon:
        self.start().close()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        for pid in self._runners:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def start(self) -> Wire:
        """Start, and connect as soon as that is possible."""
        with open(self.place / "gpud.log", "ab") as log:
            self._process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        self.pid = self._process.pid
        end = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                return Wire(self.socket)
            except (FileNotFoundError, ConnectionError):
                if self._process.poll() is not None or time.monotonic() > end:
                    said = (self.place / "gpud.log").read_text(errors="replace")
                    raise RuntimeError(f"gpud serve did not start: {said.strip()}") from None
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Ends the daemon; its runner stays for the next start."""
        if self._process is None:
            return
        self._runners.update(self.runners())
        self._process.terminate()
        self._process.wait()
        self._process = None

    def connect(self) -> Wire:
        return Wire(self.socket)

    def runners(self) -> set[int]:
        """The runners that this daemon has started."""
        return {pid for pid in self.children() if b"runner" in _command(pid)}

    def children(self) -> set[int]:
        found: set[int] = set()
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            found.update(map(int, (thread / "children").read_text().split()))
        return found

    def meet_runner(self) -> None:
        """Return when the runner has answered: until then no job can start."""
        with contextlib.closing(self.connect()) as wire:
            end = time.monotonic() + STARTS_WITHIN_S
            while wire.ask("status")["problems"]:
                if time.monotonic() > end:
                    raise RuntimeError("the runner does not answer")
                time.sleep(0.01)


def quiet_environment(place: Path) -> dict[str, str]:
    """Ours, without what would lead gpud to somebody's real state or configuration."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GPUD_", "XDG_"))}
    return kept | {"XDG_CONFIG_HOME": str(place), "XDG_STATE_HOME": str(place)}


def seeds(count: int) -> list[str]:
    """Commands as people write them, for jobs that are queued and not run."""
    return [
        f"python train.py --lr 1e-3 --seed {number} > log.{number} 2>&1" for number in range(count)
    ]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""  # it has ended


def rss_mb(pid: int) -> float:
    for line in _lines(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no memory")


def wake_ups(pid: int) -> int:
    """How often a thread of the process gave up the processor to wait for something."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for line in _lines(f"{thread}/status"):
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total


def _lines(path: str) -> Iterable[str]:
    return Path(path).read_text().splitlines()
